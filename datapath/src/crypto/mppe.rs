//! The MPPE master keys that MS-CHAPv2 makes (RFC 3079 §3), the stuff of the HLAK.
//!
//! MPPE itself is never negotiated: TLS encrypts. "Send" and "receive" depend on who speaks, so the
//! keys are named here by the direction of the data, which both ends see alike.

use core::fmt;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::hmac::sha1;
use super::nt_hash::NtHash;

// RFC 3079 §3.4
const MAGIC_MASTER: &[u8; 27] = b"This is the MPPE Master Key";
const MAGIC_CLIENT_SEND: &[u8; 84] = b"On the client side, this is the send key; on the server \
    side, it is the receive key.";
const MAGIC_CLIENT_RECEIVE: &[u8; 84] = b"On the client side, this is the receive key; on the \
    server side, it is the send key.";
const PAD_1: [u8; 40] = [0x00; 40];
const PAD_2: [u8; 40] = [0xF2; 40];

/// The two 128-bit master keys of one MS-CHAPv2 login; wiped on drop, never printed.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct MasterKeys {
    /// The client's send key, which is the server's receive key (`MS-MPPE-Recv-Key` in RADIUS).
    pub client_to_server: [u8; 16],
    /// The client's receive key, which is the server's send key (`MS-MPPE-Send-Key` in RADIUS).
    pub server_to_client: [u8; 16],
}

impl fmt::Debug for MasterKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKeys([redacted])")
    }
}

/// The master keys of the login that `nt_response` proved (RFC 3079 §3.4).
#[must_use]
pub fn master_keys(nt_hash: &NtHash, nt_response: &[u8; 24]) -> MasterKeys {
    let master = master_key(nt_hash, nt_response);
    MasterKeys {
        client_to_server: asymmetric_start_key(&master, MAGIC_CLIENT_SEND),
        server_to_client: asymmetric_start_key(&master, MAGIC_CLIENT_RECEIVE),
    }
}

fn master_key(nt_hash: &NtHash, nt_response: &[u8; 24]) -> Zeroizing<[u8; 16]> {
    let hash_hash = nt_hash.hash_hash();
    Zeroizing::new(first_16(sha1(&[
        hash_hash.as_bytes(),
        nt_response,
        MAGIC_MASTER,
    ])))
}

fn asymmetric_start_key(master: &[u8; 16], magic: &[u8; 84]) -> [u8; 16] {
    first_16(sha1(&[master, &PAD_1, magic, &PAD_2]))
}

fn first_16(digest: [u8; 20]) -> [u8; 16] {
    let [first @ .., _, _, _, _] = digest;
    first
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::nt_hash::nt_password_hash;
    use hex_literal::hex;

    /// RFC 3079 §3.5.3.
    #[test]
    fn vectors_rfc_3079() {
        let nt_hash = nt_password_hash("clientPass");
        let nt_response = hex!("82309ecd8d708b5ea08faa3981cd83544233114a3d85d6df");
        assert_eq!(
            *master_key(&nt_hash, &nt_response),
            hex!("fdece3717a8c838cb388e527ae3cdd31")
        );
        let keys = master_keys(&nt_hash, &nt_response);
        assert_eq!(
            keys.client_to_server,
            hex!("d5f0e9521e3ea9589645e86051c82226")
        );
        assert_eq!(
            keys.server_to_client,
            hex!("8b7cdc149b993a1ba118cb153f56dccb")
        );
    }

    /// Another implementation's unit test (sstp-client 1.0.18).
    #[test]
    fn vectors_of_sstpc() {
        let nt_response = hex!("859a0c0ece474df20d0ae831ac3ae3d24f826e93679e36bc");
        let keys = master_keys(&nt_password_hash("DukeNuke3D"), &nt_response);
        assert_eq!(
            keys.client_to_server,
            hex!("000bc1dea2cb8516bc77f552b9ec5a03")
        );
        assert_eq!(
            keys.server_to_client,
            hex!("93d92706f513a2ea50f8cd9469573cdb")
        );
    }
}
