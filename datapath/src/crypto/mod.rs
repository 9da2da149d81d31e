//! The primitives and key schedules that no TLS library carries, as pure functions of bytes.
//!
//! ```text
//! password ─ MD4 ─▶ NtHash ─┬─ DES ─▶ NT-Response ─┐            RFC 2759   nt_hash, mschapv2
//!                           └──────── SHA-1 ───────┴─▶ K2 ‖ K3  RFC 3079   mppe
//!                                                        │
//!                          HLAK (32 bytes, MS-SSTP §3.2.5.2) ◀──┘          hlak
//! ```
//!
//! What is made of the HLAK (the compound MAC) is `sstp::binding`. Nothing here draws random
//! numbers, and no type here prints a secret. Secrets are compared in constant time and wiped when
//! they are dropped.

pub mod chap_md5;
pub mod hlak;
pub mod hmac;
pub mod mppe;
pub mod mschapv2;
pub mod nt_hash;

pub use hlak::Hlak;
pub use nt_hash::NtHash;
