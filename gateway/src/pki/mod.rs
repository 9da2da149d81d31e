//! Certificates and keys: loading them with every mistake in words, and making those of the demo.
//!
//! What clients ask of a server certificate: a DNS name or address in subjectAltName, the extended
//! key usage serverAuth, SHA-2, RSA ≥ 2048 or P-256, a bounded validity, and an issuer they trust.

mod date;
mod load;
mod make;

pub(crate) use date::Date;
pub(crate) use load::{Chain, Identity, Key};
pub(crate) use make::{DevPki, MakeError};
