//! TLS: rustls shakes hands, our own record layer carries the data.
//!
//! Sources: RFC 8446 (TLS 1.3), RFC 5246 (TLS 1.2), RFC 5288 and RFC 7905 (its AEAD suites).
//!
//! ```text
//! ServerGeneration ─┐                       ┌─ Own    record, keys, budget, control
//!                   │                       │         ╰ kernel: a direction of it moved there
//! ClientProfile ────┴─ Handshake ─ finish ──┼─ Rustls reference (reference and fallback)
//!                      bytes in, bytes out  └─ Null   null (tests: no secrecy)
//! ```
//!
//! A [`Handshake`] is fed whatever arrived and writes what must be sent. [`Handshake::finish`] turns
//! it into a [`Connection`], which seals and opens one whole record at a time, in place and without
//! allocating. What the connection owes its peer on its own account (a `KeyUpdate`, an alert) waits
//! until [`Connection::pending_output`] is called, so that the order of calls is the order of bytes
//! on the wire: bytes of `pending_output` go before records sealed after it.
//!
//! It does not resume sessions, send tickets, take early data or negotiate ALPN: VPN connections are
//! rare, and crypto binding hashes the certificate of this very handshake (MS-SSTP §3.2.5.2).
//!
//! Limits: [`PLAINTEXT_LEN_MAX`] bytes of plaintext a record, [`HANDSHAKE_BYTES_MAX`] and
//! [`HANDSHAKE_RECORDS_MAX`] for a handshake, [`CONTROL_RECORDS_MAX`] records in a row without data.

#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

mod budget;

mod config;

mod connection;

mod control;

mod error;

mod handshake;

mod kernel;

mod keys;

#[cfg(any(test, feature = "testing"))]
mod null;

mod record;

mod reference;

pub use budget::{Budget, Used};
pub use config::{
    CertHashes, ClientProfile, KeyExchange, RecordLayerKind, ServerGeneration, TlsOptions,
};
pub use connection::{Connection, Opened, record_len};
pub use error::{CertificateFault, Error, Limit, alert_name};
pub use handshake::{
    Finished, HANDSHAKE_BYTES_MAX, HANDSHAKE_RECORDS_MAX, Handshake, Info, Progress,
};
pub use kernel::{Control, Half, KernelKeys, KernelPlan, KernelUse};
pub use keys::{ExportedHalf, ExportedKeys};
pub use record::CONTROL_RECORDS_MAX;

use serde::{Deserialize, Serialize};

/// Most plaintext bytes of one record (RFC 8446 §5.1, RFC 5246 §6.2.1).
pub const PLAINTEXT_LEN_MAX: usize = 1 << 14;

/// Bytes of a record's header: type, legacy version, length (RFC 8446 §5.1).
pub const HEADER_LEN: usize = 5;

/// Most bytes behind a record's header. RFC 8446 §5.2 allows 256 more than the plaintext; the AEAD
/// suites of TLS 1.2 need 24, so its looser 2048 (RFC 5246 §6.2.3) is not granted.
pub const PAYLOAD_LEN_MAX: usize = PLAINTEXT_LEN_MAX + 256;

/// The version a connection agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Version {
    /// RFC 5246.
    Tls12,
    /// RFC 8446.
    Tls13,
}

impl Version {
    /// Its usual name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tls12 => "TLS 1.2",
            Self::Tls13 => "TLS 1.3",
        }
    }
}

/// The AEAD that protects the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Suite {
    /// AES-128 in Galois/counter mode.
    Aes128Gcm,
    /// AES-256 in Galois/counter mode.
    Aes256Gcm,
    /// ChaCha20-Poly1305.
    ChaCha20Poly1305,
    /// No secrecy: the stand-in for simulation.
    #[cfg(any(test, feature = "testing"))]
    Null,
}

impl Suite {
    /// Its usual name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aes128Gcm => "AES-128-GCM",
            Self::Aes256Gcm => "AES-256-GCM",
            Self::ChaCha20Poly1305 => "ChaCha20-Poly1305",
            #[cfg(any(test, feature = "testing"))]
            Self::Null => "null",
        }
    }
}

/// Which end of the connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Role {
    /// It sent the ClientHello.
    Client,
    /// It answered.
    Server,
}

/// The content type of a record (RFC 8446 §5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum ContentType {
    ChangeCipherSpec = 20,
    Alert = 21,
    Handshake = 22,
    ApplicationData = 23,
}

impl ContentType {
    const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            20 => Self::ChangeCipherSpec,
            21 => Self::Alert,
            22 => Self::Handshake,
            23 => Self::ApplicationData,
            _ => return None,
        })
    }

    const fn byte(self) -> u8 {
        self as u8
    }
}
