//! The response of CHAP with MD5 (RFC 1994 §4.1, algorithm 5). It makes no key.

use md5::{Digest, Md5};
use subtle::ConstantTimeEq;

/// MD5 of identifier ‖ secret ‖ challenge, the Value of a Response.
#[must_use]
pub fn response(identifier: u8, secret: &[u8], challenge: &[u8]) -> [u8; 16] {
    let mut hasher = Md5::new();
    hasher.update([identifier]);
    hasher.update(secret);
    hasher.update(challenge);
    hasher.finalize().into()
}

/// Whether `received` is the response to `challenge`, compared in constant time.
#[must_use]
pub fn verify(identifier: u8, secret: &[u8], challenge: &[u8], received: &[u8; 16]) -> bool {
    response(identifier, secret, challenge)
        .ct_eq(received)
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hex_literal::hex;

    #[test]
    fn vectors_chap_md5() {
        let challenge = hex!("000102030405060708090a0b0c0d0e0f");
        let value = hex!("38c2daa052a6a8c6a18baf443b779c7b");
        assert_eq!(response(0x16, b"clientPass", &challenge), value);
        assert!(verify(0x16, b"clientPass", &challenge, &value));
        assert!(!verify(0x17, b"clientPass", &challenge, &value));
    }
}
