//! The NT password hash: MD4 of the password in UTF-16LE (RFC 2759 §8.3, §8.4).
//!
//! It is password-equivalent: who has it can log in with MS-CHAPv2 without knowing the password.

use core::fmt;
use md4::{Digest, Md4};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// MD4 of a password in UTF-16LE, 16 bytes; compared in constant time, wiped on drop, never printed.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct NtHash([u8; 16]);

impl NtHash {
    /// A hash that was computed before, as a users file or a directory keeps it.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// MD4 of the hash: `HashNtPasswordHash` of RFC 2759 §8.4, the secret behind the
    /// authenticator's answer and the MPPE keys.
    #[must_use]
    pub fn hash_hash(&self) -> Self {
        Self(Md4::digest(self.0).into())
    }
}

impl PartialEq for NtHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for NtHash {}

impl fmt::Debug for NtHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NtHash([redacted])")
    }
}

/// `NtPasswordHash` of RFC 2759 §8.3; no terminator is hashed.
#[must_use]
pub fn nt_password_hash(password: &str) -> NtHash {
    let mut hasher = Md4::new();
    // Unit by unit, so that no second copy of the password is left in memory.
    for unit in password.encode_utf16() {
        hasher.update(unit.to_le_bytes());
    }
    NtHash(hasher.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hex_literal::hex;

    #[test]
    fn vectors_md4_rfc_1320() {
        for (message, digest) in [
            ("", hex!("31d6cfe0d16ae931b73c59d7e0c089c0")),
            ("abc", hex!("a448017aaf21d8525fc10ae87aa6729d")),
            ("message digest", hex!("d9130a8164549fe818874806e1c7014b")),
        ] {
            assert_eq!(<[u8; 16]>::from(Md4::digest(message)), digest);
        }
    }

    #[test]
    fn vectors_rfc_2759_and_rfc_2433() {
        let hash = nt_password_hash("clientPass");
        assert_eq!(hash.as_bytes(), &hex!("44ebba8d5312b8d611474411f56989ae"));
        assert_eq!(
            hash.hash_hash().as_bytes(),
            &hex!("41c00c584bd2d91c4017a2a12fa59f3f")
        );
        assert_eq!(
            nt_password_hash("MyPw").as_bytes(),
            &hex!("fc156af7edcd6c0edde3337d427f4eac")
        );
    }

    #[test]
    fn nothing_is_printed() {
        let hash = nt_password_hash("clientPass");
        assert_eq!(format!("{hash:?}"), "NtHash([redacted])");
    }
}
