//! How much one key may protect, counted in AEAD blocks and records.
//!
//! Sources: draft-irtf-cfrg-aead-limits §5.1.1 (AES-GCM) and §5.2.1 (ChaCha20-Poly1305), RFC 8446 §5.5.
//!
//! For AES-GCM with 96-bit nonces that never repeat, the advantage of an attacker who wants to tell
//! the records from random bytes is at most
//!
//! ```text
//! (s + q + 1)² / 2¹²⁹      s = blocks of 16 bytes sealed, q = records sealed
//! ```
//!
//! so an advantage of at most p allows `s + q + 1 ≤ √p · 2^64.5`. A limit in *records* has to assume
//! that each is full (16 KiB: 1,026 blocks here) and comes to 2^24.5 of them, which is why rustls
//! stops at 2^24. A VPN record may be one packet of 1,400 bytes, 90 blocks, so counting blocks lets
//! the same bound last twelve times as long. Each record counts its plaintext, rounded up, one
//! block for its header (authenticated only, so this errs on the safe side) and one for itself.
//!
//! - TLS 1.3 changes its keys by itself: p = 2⁻⁶⁰, 2^34.5 blocks, about 390 GB. Our `KeyUpdate` is due
//!   at [`REKEY_BLOCKS`], 2^34, and sealing stops at the limit, so at least 114 GB lie between.
//! - TLS 1.2 cannot change keys without renegotiation, which we refuse. Ending the session costs
//!   the user something, and p = 2⁻⁶⁰ would end it after 50 minutes at 1 Gbit/s. So p = 2⁻⁵⁰: 2^39.5
//!   blocks, about 12.4 TB or 27 hours at 1 Gbit/s. That is still 2^18 times stricter than the 2⁻³²
//!   that NIST SP 800-38D §8 asks of nonces. [`Budget::is_near`] tells 1/16 of it ahead, 1.7 hours at
//!   1 Gbit/s; the session then ends politely, with a reason of its own.
//! - ChaCha20-Poly1305 has no such bound; only the 2⁶⁴ sequence numbers end.
//!
//! Forgeries need no budget: the first record that fails authentication ends the connection.

use serde::{Deserialize, Serialize};

use super::{Suite, Version};

/// ⌊2^34.5⌋: p = 2⁻⁶⁰.
const BLOCKS_MAX_TLS13_GCM: u64 = 24_296_003_999;

/// ⌊2^39.5⌋: p = 2⁻⁵⁰.
const BLOCKS_MAX_TLS12_GCM: u64 = 777_472_127_993;

/// Where TLS 1.3 asks for new keys.
const REKEY_BLOCKS: u64 = 1 << 34;

/// What one key has protected so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    /// Records.
    pub records: u64,
    /// Blocks of 16 bytes, counted as the module says.
    pub blocks: u64,
}

impl Used {
    /// Counts one record of `plaintext_len` bytes.
    pub(super) const fn count(&mut self, plaintext_len: usize) {
        self.records = self.records.saturating_add(1);
        self.blocks = self.blocks.saturating_add(Self::blocks_of(plaintext_len));
    }

    /// Whether one more record of `plaintext_len` bytes stays within `blocks_max`.
    pub(super) const fn allows(&self, plaintext_len: usize, blocks_max: u64) -> bool {
        self.blocks.saturating_add(Self::blocks_of(plaintext_len)) <= blocks_max
    }

    const fn blocks_of(plaintext_len: usize) -> u64 {
        (plaintext_len as u64).div_ceil(16).saturating_add(2)
    }
}

/// The limits of a connection's keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// Blocks after which nothing is sealed.
    pub(super) blocks_max: u64,
    /// Blocks after which TLS 1.3 changes keys.
    pub(super) rekey_blocks: u64,
}

impl Limits {
    /// The limits of `suite` under `version`; `lowered` may only lower them.
    pub(super) fn new(version: Version, suite: Suite, lowered: Option<u64>) -> Self {
        let derived = match (version, suite) {
            (Version::Tls12, Suite::Aes128Gcm | Suite::Aes256Gcm) => BLOCKS_MAX_TLS12_GCM,
            (Version::Tls13, Suite::Aes128Gcm | Suite::Aes256Gcm) => BLOCKS_MAX_TLS13_GCM,
            _ => u64::MAX,
        };
        let blocks_max = lowered.map_or(derived, |lowered| lowered.min(derived));
        let rekey_blocks = match version {
            // The same distance from the limit as 2^34 has from 2^34.5.
            Version::Tls13 if blocks_max != u64::MAX => {
                REKEY_BLOCKS.min((blocks_max / 10).saturating_mul(7))
            }
            _ => u64::MAX,
        };
        Self {
            blocks_max,
            rekey_blocks,
        }
    }
}

/// What a connection's present keys have protected, and what they may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Sealed by us under our present key.
    pub sealed: Used,
    /// Opened by us under the peer's present key.
    pub opened: Used,
    /// Blocks after which nothing more is sealed; `u64::MAX` where there is no bound.
    pub limit_blocks: u64,
    /// Records after which nothing more is sealed: rustls' own bound, where it does the sealing;
    /// else `u64::MAX`.
    pub limit_records: u64,
    /// How often our key was changed.
    pub key_updates: u64,
}

impl Budget {
    /// Whether 15/16 of our key's budget is used, so that the end should be announced.
    #[must_use]
    pub fn is_near(&self) -> bool {
        let near = |used: u64, limit: u64| used >= limit.saturating_sub(limit / 16);
        near(self.sealed.blocks, self.limit_blocks) || near(self.sealed.records, self.limit_records)
    }
}
