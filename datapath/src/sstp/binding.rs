//! Crypto binding: the proof that the TLS connection and the PPP authentication have the same
//! client (MS-SSTP §2.2.7, §3.2.5.2, §3.3.5.2.3).
//!
//! ```text
//! HLAK ─ HMAC(SEED ‖ LEN ‖ 01) ─▶ compound MAC key ─ HMAC(CALL_CONNECTED, bytes 80..112 zero) ─▶ MAC
//!
//! CALL_CONNECTED   0..16 headers   15 hash   16..48 nonce   48..80 certificate hash   80..112 MAC
//! ```
//!
//! `LEN` is little-endian, alone in all of SSTP. With SHA-1 both hash fields hold 20 bytes and 12
//! zero bytes behind them. Secrets are compared in constant time.
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

use subtle::{Choice, ConstantTimeEq};
use zeroize::Zeroizing;

use super::message::{AttributeId, MessageType};
use crate::crypto::Hlak;
use crate::crypto::hmac::{SHA1_LEN, SHA256_LEN, hmac_sha1, hmac_sha256, sha1, sha256};

/// Bytes of a CALL_CONNECTED (MS-SSTP §2.2.11).
pub const CALL_CONNECTED_LEN: usize = 112;
/// Bytes of a nonce, and of each of the two hash fields.
pub const FIELD_LEN: usize = 32;

// MS-SSTP §3.2.5.2.2: no terminating zero.
const SEED: &[u8; 29] = b"SSTP inner method derived CMK";

/// What the server sends in CALL_CONNECT_ACK and wants back: unpredictable, used once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Nonce(pub [u8; FIELD_LEN]);

/// One of the two hash functions of the binding, by its code point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum HashProtocol {
    /// `CERT_HASH_PROTOCOL_SHA1`
    Sha1 = 0x01,
    /// `CERT_HASH_PROTOCOL_SHA256`
    Sha256 = 0x02,
}

impl HashProtocol {
    /// The protocol with this code point.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0x01 => Some(Self::Sha1),
            0x02 => Some(Self::Sha256),
            _ => None,
        }
    }

    /// The code point.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Sha1 => 0x01,
            Self::Sha256 => 0x02,
        }
    }
}

/// The set of hash functions that a server offers (MS-SSTP §2.2.6); unknown bits are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashBitmask(pub u8);

impl HashBitmask {
    /// SHA-1 alone.
    pub const SHA1: Self = Self(0x01);
    /// SHA-256 alone.
    pub const SHA256: Self = Self(0x02);
    /// Both.
    pub const BOTH: Self = Self(0x03);

    /// Whether `protocol` is offered.
    #[must_use]
    pub const fn contains(self, protocol: HashProtocol) -> bool {
        self.0 & protocol.code() != 0
    }

    /// What a client must use: SHA-256 where it is offered; `None` if nothing known is.
    #[must_use]
    pub const fn strongest(self) -> Option<HashProtocol> {
        if self.contains(HashProtocol::Sha256) {
            Some(HashProtocol::Sha256)
        } else if self.contains(HashProtocol::Sha1) {
            Some(HashProtocol::Sha1)
        } else {
            None
        }
    }
}

impl Default for HashBitmask {
    fn default() -> Self {
        Self::BOTH
    }
}

/// Both hashes of the DER encoding of the leaf certificate of one TLS connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CertificateHashes {
    /// SHA-1 of the certificate.
    pub sha1: [u8; SHA1_LEN],
    /// SHA-256 of the certificate.
    pub sha256: [u8; SHA256_LEN],
}

impl CertificateHashes {
    /// The hashes of a certificate in DER; neither of its key nor of its chain.
    #[must_use]
    pub fn of_der(der: &[u8]) -> Self {
        Self {
            sha1: sha1(&[der]),
            sha256: sha256(&[der]),
        }
    }

    fn field(&self, protocol: HashProtocol) -> [u8; FIELD_LEN] {
        match protocol {
            HashProtocol::Sha1 => padded(self.sha1),
            HashProtocol::Sha256 => self.sha256,
        }
    }
}

/// Evidence that a CALL_CONNECTED was verified; only [`verify`] makes it.
#[derive(Debug, PartialEq, Eq)]
pub struct BindingVerified(());

/// Why a CALL_CONNECTED proves nothing (MS-SSTP §3.3.5.2.3). The peer is told the same for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BindingRefused {
    /// It uses a hash function that was not offered.
    #[error("hash protocol {0:#04x} was not offered")]
    HashProtocol(u8),
    /// It does not carry the nonce of this call.
    #[error("wrong nonce")]
    Nonce,
    /// It was made for another certificate: someone stands between, or offloads TLS.
    #[error("wrong certificate hash")]
    CertificateHash,
    /// It was made with another key: PPP authenticated someone else.
    #[error("wrong compound MAC")]
    CompoundMac,
}

/// A CALL_CONNECTED with the attribute it must have, not verified yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallConnected(pub(super) [u8; CALL_CONNECTED_LEN]);

impl CallConnected {
    /// The whole packet.
    #[must_use]
    pub const fn packet(&self) -> &[u8; CALL_CONNECTED_LEN] {
        &self.0
    }

    /// Reserved bytes of the fields are left as received: the MAC covers them.
    fn fields(&self) -> Fields<'_> {
        let (head, fields) = split::<16>(&self.0);
        let (nonce, fields) = split::<FIELD_LEN>(fields);
        let (certificate_hash, fields) = split::<FIELD_LEN>(fields);
        let (compound_mac, _) = split::<FIELD_LEN>(fields);
        let [.., hash_protocol] = *head;
        Fields {
            hash_protocol,
            nonce,
            certificate_hash,
            compound_mac,
        }
    }
}

struct Fields<'a> {
    hash_protocol: u8,
    nonce: &'a [u8; FIELD_LEN],
    certificate_hash: &'a [u8; FIELD_LEN],
    compound_mac: &'a [u8; FIELD_LEN],
}

/// `bytes` cut behind its first `N`, which the type of the packet guarantees.
fn split<const N: usize>(bytes: &[u8]) -> (&[u8; N], &[u8]) {
    bytes.split_first_chunk().unwrap_or((&[0; N], &[]))
}

/// Makes the CALL_CONNECTED of a client.
#[must_use]
pub fn compute(
    hlak: &Hlak,
    nonce: &Nonce,
    protocol: HashProtocol,
    certificate: &CertificateHashes,
) -> CallConnected {
    let mut packet = [0; CALL_CONNECTED_LEN];
    let parts: [&[u8]; 6] = [
        &[0x10, 0x01, 0x00, 0x70],
        &MessageType::CallConnected.code().to_be_bytes(),
        &[0x00, 0x01],
        &[0x00, AttributeId::CRYPTO_BINDING.0, 0x00, 0x68],
        &[0x00, 0x00, 0x00, protocol.code()],
        &nonce.0,
    ];
    let fields = [certificate.field(protocol)];
    let bytes = parts.into_iter().flatten().chain(fields.iter().flatten());
    for (to, from) in packet.iter_mut().zip(bytes) {
        *to = *from;
    }
    let compound_mac = compound_mac(hlak, protocol, &packet);
    if let Some(field) = packet.last_chunk_mut::<FIELD_LEN>() {
        *field = compound_mac;
    }
    CallConnected(packet)
}

/// What a server expects of the one CALL_CONNECTED of a call.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// The nonce that was sent.
    pub nonce: &'a Nonce,
    /// The hash functions that were offered.
    pub offered: HashBitmask,
    /// The certificate of this connection; several where TLS ends in front of the gateway.
    pub certificates: &'a [CertificateHashes],
}

/// Verifies a CALL_CONNECTED against what is expected and the key that PPP authentication made.
pub fn verify(
    message: &CallConnected,
    expected: &Expected<'_>,
    hlak: &Hlak,
) -> Result<BindingVerified, BindingRefused> {
    let fields = message.fields();
    let protocol = HashProtocol::from_code(fields.hash_protocol)
        .filter(|&protocol| expected.offered.contains(protocol))
        .ok_or(BindingRefused::HashProtocol(fields.hash_protocol))?;
    if !bool::from(fields.nonce.ct_eq(&expected.nonce.0)) {
        return Err(BindingRefused::Nonce);
    }
    // Padding is not compared: the MAC covers that of the certificate hash, and its own is nobody's.
    let known = expected
        .certificates
        .iter()
        .map(|certificate| certificate.field(protocol))
        .fold(Choice::from(0), |known, hash| {
            known | same(fields.certificate_hash, &hash, protocol)
        });
    if !bool::from(known) {
        return Err(BindingRefused::CertificateHash);
    }
    let compound_mac = compound_mac(hlak, protocol, &message.0);
    if bool::from(same(fields.compound_mac, &compound_mac, protocol)) {
        Ok(BindingVerified(()))
    } else {
        Err(BindingRefused::CompoundMac)
    }
}

/// Whether two hash fields hold the same hash, in constant time.
fn same(a: &[u8; FIELD_LEN], b: &[u8; FIELD_LEN], protocol: HashProtocol) -> Choice {
    let len = match protocol {
        HashProtocol::Sha1 => SHA1_LEN,
        HashProtocol::Sha256 => SHA256_LEN,
    };
    a.iter()
        .zip(b)
        .take(len)
        .fold(Choice::from(1), |same, (a, b)| same & a.ct_eq(b))
}

/// The MAC field for `packet`: the HMAC of it with bytes 80..112 taken as zero, zero-padded.
fn compound_mac(
    hlak: &Hlak,
    protocol: HashProtocol,
    packet: &[u8; CALL_CONNECTED_LEN],
) -> [u8; FIELD_LEN] {
    let (covered, _) = split::<80>(packet);
    let zeros = [0; FIELD_LEN];
    match protocol {
        HashProtocol::Sha1 => {
            let key = Zeroizing::new(hmac_sha1(hlak.as_bytes(), &[SEED, &[20, 0], &[0x01]]));
            padded(hmac_sha1(&*key, &[covered, &zeros]))
        }
        HashProtocol::Sha256 => {
            let key = Zeroizing::new(hmac_sha256(hlak.as_bytes(), &[SEED, &[32, 0], &[0x01]]));
            hmac_sha256(&*key, &[covered, &zeros])
        }
    }
}

fn padded(digest: [u8; SHA1_LEN]) -> [u8; FIELD_LEN] {
    let mut field = [0; FIELD_LEN];
    for (to, from) in field.iter_mut().zip(digest) {
        *to = from;
    }
    field
}
