//! What proves a user: an NT hash or an Argon2id string. Neither is ever printed.

use std::fmt;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use datapath::crypto::nt_hash::{NtHash, nt_password_hash};
use datapath::output::Entropy as _;
use datapath::sys::entropy::SystemEntropy;
use zeroize::Zeroizing;

/// What is kept of a password.
#[derive(Clone)]
pub(crate) enum Secret {
    /// MD4 of the password (RFC 2759 §8.3), for MS-CHAPv2, EAP-MSCHAPv2 and PAP: password-equivalent.
    NtHash(NtHash),
    /// For PAP alone.
    Argon2(Zeroizing<String>),
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NtHash(_) => "NtHash([redacted])",
            Self::Argon2(_) => "Argon2([redacted])",
        })
    }
}

impl Secret {
    /// Keeps `password` for MS-CHAPv2.
    pub(crate) fn nt_hash(password: &str) -> Self {
        Self::NtHash(nt_password_hash(password))
    }

    /// Reads an NT hash of 32 hexadecimal digits.
    pub(crate) fn parse_nt_hash(text: &str) -> Result<Self, &'static str> {
        let bytes = text.as_bytes();
        if bytes.len() != 32 {
            return Err("an NT hash has 32 hexadecimal digits");
        }
        let mut hash = Zeroizing::new([0; 16]);
        for (byte, pair) in hash.iter_mut().zip(bytes.chunks_exact(2)) {
            let digits =
                str::from_utf8(pair).map_err(|_| "an NT hash has hexadecimal digits only")?;
            if digits.contains('+') {
                return Err("an NT hash has hexadecimal digits only");
            }
            *byte = u8::from_str_radix(digits, 16)
                .map_err(|_| "an NT hash has hexadecimal digits only")?;
        }
        Ok(Self::NtHash(NtHash::from_bytes(*hash)))
    }

    /// Reads an Argon2 string.
    pub(crate) fn parse_argon2(text: &str) -> Result<Self, &'static str> {
        let hash = PasswordHash::new(text)
            .map_err(|_| "this is no Argon2 string; make one by: sstp-gw user passwd --pap-only")?;
        if !hash.algorithm.as_str().starts_with("argon2") || hash.hash.is_none() {
            return Err("this is no Argon2 string; make one by: sstp-gw user passwd --pap-only");
        }
        Ok(Self::Argon2(Zeroizing::new(text.to_owned())))
    }

    /// The value in the users file: its key and its text.
    pub(super) fn file_entry(&self) -> (&'static str, Zeroizing<String>) {
        match self {
            Self::NtHash(hash) => {
                let mut text = Zeroizing::new(String::with_capacity(32));
                for byte in *hash.as_bytes() {
                    for nibble in [byte >> 4, byte & 15] {
                        text.push(char::from_digit(nibble.into(), 16).unwrap_or_default());
                    }
                }
                ("nt_hash", text)
            }
            Self::Argon2(text) => ("argon2", text.clone()),
        }
    }
}

/// Argon2id of `password` with a fresh salt and the crate's parameters (19 MiB, 2 passes: OWASP's
/// first choice).
pub(crate) fn argon2_hash(password: &[u8]) -> Result<Secret, argon2::password_hash::Error> {
    let mut salt = [0; 16];
    SystemEntropy.fill(&mut salt);
    let hash = Argon2::default().hash_password_with_salt(password, &salt)?;
    Ok(Secret::Argon2(Zeroizing::new(hash.to_string())))
}

/// Whether `password` is the one `hash` was made of; takes as long either way.
pub(crate) fn argon2_verify(password: &[u8], hash: &str) -> bool {
    Argon2::default().verify_password(password, hash).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_printed() {
        let secret = Secret::parse_nt_hash("44ebba8d5312b8d611474411f56989ae").unwrap();
        assert_eq!(format!("{secret:?}"), "NtHash([redacted])");
        let secret = argon2_hash(b"pw").unwrap();
        assert_eq!(format!("{secret:?}"), "Argon2([redacted])");
    }

    #[test]
    fn argon2_knows_its_password() {
        let Secret::Argon2(hash) = argon2_hash(b"clientPass").unwrap() else {
            panic!("not Argon2")
        };
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        assert!(argon2_verify(b"clientPass", &hash));
        assert!(!argon2_verify(b"clientpass", &hash));
        assert!(Secret::parse_argon2(&hash).is_ok());
    }

    #[test]
    fn the_nt_hash_is_that_of_rfc_2759() {
        let secret = Secret::nt_hash("clientPass");
        assert_eq!(
            secret.file_entry().1.as_str(),
            "44ebba8d5312b8d611474411f56989ae"
        );
    }

    #[test]
    fn broken_hashes_are_refused() {
        for text in [
            "",
            "44",
            "44ebba8d5312b8d611474411f56989zz",
            "+4ebba8d5312b8d611474411f56989ae",
        ] {
            assert!(Secret::parse_nt_hash(text).is_err(), "{text}");
        }
        for text in [
            "",
            "$argon2id$",
            "$scrypt$ln=1$aaaa$bbbb",
            "44ebba8d5312b8d611474411f56989ae",
        ] {
            assert!(Secret::parse_argon2(text).is_err(), "{text}");
        }
    }
}
