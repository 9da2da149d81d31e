//! The higher-layer authentication key: what PPP authentication hands to SSTP's crypto binding
//! (MS-SSTP §3.2.5.2.1 for the client, §3.3.5.2.1 for the server). Both ends reach the same 32 bytes.

use core::fmt;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::mppe;
use super::nt_hash::NtHash;

/// 32 bytes of key made by PPP authentication; compared in constant time, wiped on drop, never
/// printed.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Hlak([u8; Self::LEN]);

impl Hlak {
    /// Bytes of a HLAK.
    pub const LEN: usize = 32;

    /// The key of methods that make none: PAP, CHAP with MD5, EAP-MD5 (MS-SSTP §3.2.5.2.1). It binds
    /// no user, but nonce and certificate hash are verified all the same.
    pub const ZERO: Self = Self([0; Self::LEN]);

    /// A key that was derived elsewhere.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// The key of an MS-CHAPv2 or EAP-MSCHAPv2 login.
    #[must_use]
    pub fn from_mschapv2(nt_hash: &NtHash, nt_response: &[u8; 24]) -> Self {
        let keys = mppe::master_keys(nt_hash, nt_response);
        Self::from_mppe_keys(&keys.client_to_server, &keys.server_to_client)
    }

    /// The key made of the server's receive and send keys as RADIUS carries them
    /// (`MS-MPPE-Recv-Key`, `MS-MPPE-Send-Key`, decrypted): their concatenation cut or zero-padded
    /// to 32 bytes, so that keys of any length are taken.
    #[must_use]
    pub fn from_mppe_keys(receive: &[u8], send: &[u8]) -> Self {
        let mut key = Self::ZERO;
        for (to, from) in key.0.iter_mut().zip(receive.iter().chain(send)) {
            *to = *from;
        }
        key
    }

    /// The key made of an EAP method's MSK: its first 32 bytes, zero-padded.
    #[must_use]
    pub fn from_msk(msk: &[u8]) -> Self {
        Self::from_mppe_keys(msk, &[])
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// Whether this is the key that binds no user.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        *self == Self::ZERO
    }
}

impl PartialEq for Hlak {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Hlak {}

impl fmt::Debug for Hlak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hlak([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::nt_hash::nt_password_hash;
    use hex_literal::hex;

    #[test]
    fn vectors_hlak_of_mschapv2() {
        let hlak = Hlak::from_mschapv2(
            &nt_password_hash("clientPass"),
            &hex!("82309ecd8d708b5ea08faa3981cd83544233114a3d85d6df"),
        );
        assert_eq!(
            hlak.as_bytes(),
            &hex!("d5f0e9521e3ea9589645e86051c822268b7cdc149b993a1ba118cb153f56dccb")
        );
        let mut msk = [0; 64];
        msk[..32].copy_from_slice(hlak.as_bytes());
        assert_eq!(Hlak::from_msk(&msk), hlak, "EAP-MSCHAPv2");
    }

    #[test]
    fn mppe_keys_of_any_length_are_taken() {
        assert_eq!(Hlak::from_mppe_keys(&[], &[]), Hlak::ZERO);
        let long = Hlak::from_mppe_keys(&[1; 32], &[2; 32]);
        assert_eq!(long.as_bytes(), &[1; 32]);
        let short = Hlak::from_mppe_keys(&[1; 8], &[2; 8]);
        assert_eq!(short.as_bytes()[..16], [[1; 8], [2; 8]].concat());
        assert_eq!(short.as_bytes()[16..], [0; 16]);
    }

    #[test]
    fn nothing_is_printed() {
        assert_eq!(
            format!("{:?}", Hlak::from_bytes([0xAA; 32])),
            "Hlak([redacted])"
        );
    }
}
