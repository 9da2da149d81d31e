//! SHA-1, SHA-256 and their HMACs, one call each (FIPS 180-4, RFC 2104), by aws-lc.
//!
//! SHA-1 is here because RFC 2759, RFC 3079 and MS-SSTP §2.2.7 are made of it.

use aws_lc_rs::{digest, hmac};

/// Bytes of a SHA-1 digest or of its HMAC.
pub const SHA1_LEN: usize = 20;
/// Bytes of a SHA-256 digest or of its HMAC.
pub const SHA256_LEN: usize = 32;

/// SHA-1 of the concatenation of `parts`.
#[must_use]
pub fn sha1(parts: &[&[u8]]) -> [u8; SHA1_LEN] {
    fixed(hash(&digest::SHA1_FOR_LEGACY_USE_ONLY, parts).as_ref())
}

/// SHA-256 of the concatenation of `parts`.
#[must_use]
pub fn sha256(parts: &[&[u8]]) -> [u8; SHA256_LEN] {
    fixed(hash(&digest::SHA256, parts).as_ref())
}

/// HMAC-SHA-1 under `key` of the concatenation of `parts`.
#[must_use]
pub fn hmac_sha1(key: &[u8], parts: &[&[u8]]) -> [u8; SHA1_LEN] {
    fixed(mac(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key, parts).as_ref())
}

/// HMAC-SHA-256 under `key` of the concatenation of `parts`.
#[must_use]
pub fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> [u8; SHA256_LEN] {
    fixed(mac(hmac::HMAC_SHA256, key, parts).as_ref())
}

fn hash(algorithm: &'static digest::Algorithm, parts: &[&[u8]]) -> digest::Digest {
    let mut context = digest::Context::new(algorithm);
    for part in parts {
        context.update(part);
    }
    context.finish()
}

fn mac(algorithm: hmac::Algorithm, key: &[u8], parts: &[&[u8]]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(&hmac::Key::new(algorithm, key));
    for part in parts {
        context.update(part);
    }
    context.sign()
}

/// The first `N` bytes of an output whose algorithm makes exactly `N`.
fn fixed<const N: usize>(output: &[u8]) -> [u8; N] {
    debug_assert_eq!(output.len(), N);
    output.first_chunk().copied().unwrap_or([0; N])
}

#[cfg(test)]
mod tests {
    use super::*;
    use hex_literal::hex;

    /// FIPS 180-4 examples; RFC 2202 test case 2; RFC 4231 test case 2.
    #[test]
    fn vectors_of_the_standards() {
        assert_eq!(
            sha1(&[b"a", b"bc"]),
            hex!("a9993e364706816aba3e25717850c26c9cd0d89d")
        );
        assert_eq!(
            sha256(&[b"abc"]),
            hex!("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
        );
        let message: &[&[u8]] = &[b"what do ya want ", b"for nothing?"];
        assert_eq!(
            hmac_sha1(b"Jefe", message),
            hex!("effcdf6ae5eb2fa2d27416d5f184df9c259a7c79")
        );
        assert_eq!(
            hmac_sha256(b"Jefe", message),
            hex!("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843")
        );
    }
}
