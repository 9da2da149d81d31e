//! What a shard and the kernel say to each other about TLS that the kernel does itself.
//!
//! Plain values: keys as the kernel wants them, without their life (that is the record layer's), and
//! the two ways to send once the kernel seals. Sources: RFC 8446 §5.3, RFC 5288 §3, RFC 7905 §2;
//! Linux' `Documentation/networking/tls.rst`.

use core::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

/// Bytes of the longest key.
pub const KEY_LEN_MAX: usize = 32;

/// Which half of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// What we send.
    Tx,
    /// What we receive.
    Rx,
}

/// The version whose records the kernel is to make or open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    /// RFC 5246.
    Tls12,
    /// RFC 8446.
    Tls13,
}

/// The AEAD of the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsCipher {
    /// AES-128 in Galois/counter mode.
    Aes128Gcm,
    /// AES-256 in Galois/counter mode.
    Aes256Gcm,
    /// ChaCha20-Poly1305.
    ChaCha20Poly1305,
}

/// The keys of one direction and the number of its next record. Wiped when dropped.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct TlsKeys {
    /// TLS 1.2 or 1.3.
    #[zeroize(skip)]
    pub version: TlsVersion,
    /// The AEAD.
    #[zeroize(skip)]
    pub cipher: TlsCipher,
    /// The key; AES-128 uses the first 16 bytes.
    pub key: [u8; KEY_LEN_MAX],
    /// What the number is added to. TLS 1.2 AES-GCM: the salt, then where our own explicit nonces
    /// began (each was this xor its number).
    pub iv: [u8; 12],
    /// The number of the next record.
    pub seq: u64,
}

impl fmt::Debug for TlsKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsKeys")
            .field("version", &self.version)
            .field("cipher", &self.cipher)
            .field("seq", &self.seq)
            .finish_non_exhaustive()
    }
}

/// How plaintext is sent on a connection whose sending half the kernel seals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelSend {
    /// Data; the last so many bytes in a record of their own.
    Data {
        /// At most the length of what is sent; 0 or all of it: no boundary.
        last_len: usize,
    },
    /// One record of another type (RFC 8446 §5.1: 21 alert, 22 handshake).
    Control {
        /// The type.
        content_type: u8,
    },
}
