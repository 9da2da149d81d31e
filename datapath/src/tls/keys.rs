//! The keys of one direction: made, replaced, handed over.
//!
//! Sources: RFC 8446 §7.1 (HKDF-Expand-Label), §7.2 (the next traffic secret), §7.3 (key and IV).
//!
//! TLS 1.3 keeps the traffic secret, from which the next keys follow, so a connection that was handed
//! to another process can still change its keys. TLS 1.2 has no secret to keep: its key never changes.
//! All of it is zeroized when dropped, and `Debug` shows none of it.

use core::fmt;

use aws_lc_rs::aead::{self, LessSafeKey, UnboundKey};
use aws_lc_rs::hkdf;
use rustls::ConnectionTrafficSecrets;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::budget::Used;
use super::{Error, Role, Suite, Version};

/// The layout of [`ExportedKeys`]; another number is refused.
pub(super) const EXPORT_FORMAT: u16 = 1;

/// Bytes of every suite's nonce and IV (RFC 8446 §5.3, RFC 5288 §3, RFC 7905 §2).
pub(super) const IV_LEN: usize = 12;

const KEY_LEN_MAX: usize = 32;

/// A TLS 1.3 traffic secret.
pub(super) type Secret = Zeroizing<Vec<u8>>;

impl Suite {
    pub(super) const fn key_len(self) -> usize {
        match self {
            Self::Aes128Gcm => 16,
            Self::Aes256Gcm | Self::ChaCha20Poly1305 => 32,
            #[cfg(any(test, feature = "testing"))]
            Self::Null => 0,
        }
    }

    fn aead(self) -> Result<&'static aead::Algorithm, Error> {
        Ok(match self {
            Self::Aes128Gcm => &aead::AES_128_GCM,
            Self::Aes256Gcm => &aead::AES_256_GCM,
            Self::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
            #[cfg(any(test, feature = "testing"))]
            Self::Null => return Err(Error::Internal("the null suite has no cipher".into())),
        })
    }

    /// The hash of TLS 1.3's suite with this AEAD (RFC 8446 §B.4) and its length.
    const fn hash(self) -> (hkdf::Algorithm, usize) {
        match self {
            Self::Aes256Gcm => (hkdf::HKDF_SHA384, 48),
            _ => (hkdf::HKDF_SHA256, 32),
        }
    }
}

/// Key and IV of one direction, with the secret that they and their successors come from.
#[derive(ZeroizeOnDrop)]
pub(super) struct Keys {
    #[zeroize(skip)]
    suite: Suite,
    key: [u8; KEY_LEN_MAX],
    iv: [u8; IV_LEN],
    secret: Option<Vec<u8>>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys")
            .field("suite", &self.suite)
            .finish_non_exhaustive()
    }
}

impl Keys {
    /// The keys that rustls extracted; for TLS 1.3 also `secret`, from which they must follow.
    pub(super) fn from_extracted(
        extracted: &ConnectionTrafficSecrets,
        secret: Option<Secret>,
    ) -> Result<Self, Error> {
        let (suite, key, iv) = match extracted {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (Suite::Aes128Gcm, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (Suite::Aes256Gcm, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => {
                (Suite::ChaCha20Poly1305, key, iv)
            }
            _ => return Err(Error::Internal("unknown cipher in the secrets".into())),
        };
        Self::from_parts(suite, key.as_ref(), iv.as_ref(), secret)
    }

    /// Keys from their parts; where there is a secret, the parts must follow from it.
    pub(super) fn from_parts(
        suite: Suite,
        key: &[u8],
        iv: &[u8],
        secret: Option<Secret>,
    ) -> Result<Self, Error> {
        let mut keys = Self {
            suite,
            key: [0; KEY_LEN_MAX],
            iv: [0; IV_LEN],
            secret: None,
        };
        let bad = || Error::Internal("key material of the wrong length".into());
        if key.len() != suite.key_len() || iv.len() != IV_LEN {
            return Err(bad());
        }
        keys.key
            .get_mut(..key.len())
            .ok_or_else(bad)?
            .copy_from_slice(key);
        keys.iv.copy_from_slice(iv);
        if let Some(secret) = secret {
            let derived = Self::derive(suite, secret)?;
            aws_lc_rs::constant_time::verify_slices_are_equal(&derived.key, &keys.key)
                .and_then(|()| {
                    aws_lc_rs::constant_time::verify_slices_are_equal(&derived.iv, &keys.iv)
                })
                .map_err(|_| Error::Internal("keys do not follow from their secret".into()))?;
            return Ok(derived);
        }
        Ok(keys)
    }

    /// `[sender]_write_key` and `[sender]_write_iv` (RFC 8446 §7.3).
    fn derive(suite: Suite, secret: Secret) -> Result<Self, Error> {
        let mut keys = Self {
            suite,
            key: [0; KEY_LEN_MAX],
            iv: [0; IV_LEN],
            secret: None,
        };
        let key = keys
            .key
            .get_mut(..suite.key_len())
            .ok_or_else(|| Error::Internal("key length".into()))?;
        expand_label(suite, &secret, b"key", key)?;
        expand_label(suite, &secret, b"iv", &mut keys.iv)?;
        let mut secret = secret;
        keys.secret = Some(core::mem::take(&mut *secret));
        Ok(keys)
    }

    /// The keys after a `KeyUpdate` (RFC 8446 §7.2).
    pub(super) fn next(&self) -> Result<Self, Error> {
        let Some(secret) = &self.secret else {
            return Err(Error::Internal("these keys have no successor".into()));
        };
        let mut next = Zeroizing::new(vec![0; self.suite.hash().1]);
        expand_label(self.suite, secret, b"traffic upd", &mut next)?;
        Self::derive(self.suite, next)
    }

    pub(super) const fn suite(&self) -> Suite {
        self.suite
    }

    pub(super) const fn iv(&self) -> &[u8; IV_LEN] {
        &self.iv
    }

    pub(super) fn cipher(&self) -> Result<LessSafeKey, Error> {
        let key = self.key.get(..self.suite.key_len()).unwrap_or_default();
        UnboundKey::new(self.suite.aead()?, key)
            .map(LessSafeKey::new)
            .map_err(|_| Error::Internal("the cipher refuses its key".into()))
    }

    /// A copy that may leave the process.
    pub(super) fn export(&self, seq: u64, used: Used) -> ExportedHalf {
        ExportedHalf {
            key: self
                .key
                .get(..self.suite.key_len())
                .unwrap_or_default()
                .to_vec(),
            iv: self.iv.to_vec(),
            secret: self.secret.clone(),
            seq,
            used,
        }
    }
}

struct Len(usize);

impl hkdf::KeyType for Len {
    fn len(&self) -> usize {
        self.0
    }
}

/// HKDF-Expand-Label with an empty context (RFC 8446 §7.1); fills all of `out`.
fn expand_label(suite: Suite, secret: &[u8], label: &[u8], out: &mut [u8]) -> Result<(), Error> {
    let failed = || Error::Internal("key derivation failed".into());
    let (hash, hash_len) = suite.hash();
    if secret.len() != hash_len {
        return Err(failed());
    }
    let out_len = u16::try_from(out.len())
        .map_err(|_| failed())?
        .to_be_bytes();
    let prefix = b"tls13 ";
    let label_len = u8::try_from(prefix.len().saturating_add(label.len())).map_err(|_| failed())?;
    hkdf::Prk::new_less_safe(hash, secret)
        .expand(
            &[&out_len, &[label_len], prefix, label, &[0]],
            Len(out.len()),
        )
        .and_then(|okm| okm.fill(out))
        .map_err(|_| failed())
}

/// One direction of [`ExportedKeys`].
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct ExportedHalf {
    /// The AEAD key, 16 or 32 bytes.
    pub key: Vec<u8>,
    /// The 12 bytes that the sequence number is added to. TLS 1.2 AES-GCM: salt and the first
    /// explicit nonce (RFC 5288 §3).
    pub iv: Vec<u8>,
    /// TLS 1.3: the traffic secret of this generation of keys.
    pub(super) secret: Option<Vec<u8>>,
    /// The number of the next record.
    pub seq: u64,
    #[zeroize(skip)]
    pub(super) used: Used,
}

impl fmt::Debug for ExportedHalf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExportedHalf")
            .field("seq", &self.seq)
            .finish_non_exhaustive()
    }
}

/// Everything another process, or the kernel, needs to carry a connection on.
///
/// Whoever holds it can read and forge the connection. Only one holder may seal: two that seal
/// under one key repeat a nonce, which gives the key away. It is zeroized when dropped; a
/// serialized copy is the caller's to wipe.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct ExportedKeys {
    pub(super) format: u16,
    /// Which end it is.
    #[zeroize(skip)]
    pub role: Role,
    /// TLS 1.2 or 1.3.
    #[zeroize(skip)]
    pub version: Version,
    /// The AEAD of both directions.
    #[zeroize(skip)]
    pub suite: Suite,
    /// For sealing.
    pub tx: ExportedHalf,
    /// For opening.
    pub rx: ExportedHalf,
    pub(super) key_budget: Option<u64>,
    pub(super) key_updates: u64,
    pub(super) control_run: u8,
    /// How far a handshake message that spans records has come: header bytes and bytes to skip.
    pub(super) message: (Vec<u8>, u32),
    pub(super) owes_key_update: bool,
    pub(super) owes_refusal: bool,
    pub(super) asked_peer: bool,
}

impl fmt::Debug for ExportedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExportedKeys")
            .field("role", &self.role)
            .field("version", &self.version)
            .field("suite", &self.suite)
            .field("tx", &self.tx)
            .field("rx", &self.rx)
            .finish_non_exhaustive()
    }
}
