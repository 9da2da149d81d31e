//! What one MS-CHAPv2 log-in costs the server, apart from TLS.

use std::hint::black_box;

use datapath::crypto::hlak::Hlak;
use datapath::crypto::mschapv2;
use datapath::crypto::nt_hash::nt_password_hash;

use super::{Path, REPEATS, repeated};

const CHALLENGE: [u8; 16] = [0x5b; 16];
const PEER_CHALLENGE: [u8; 16] = [0x21; 16];
const USER: &[u8] = b"user";
const PASSWORD: &str = "clientPass";

pub(super) fn paths() -> Vec<Path> {
    let hash = nt_password_hash(PASSWORD);
    let response = mschapv2::nt_response(&CHALLENGE, &PEER_CHALLENGE, USER, &hash);
    let (verify_hash, answer_hash, hlak_hash) = (hash.clone(), hash.clone(), hash);
    vec![
        repeated("crypto/mschapv2/nt_hash", REPEATS, 0, || {
            || nt_password_hash(black_box(PASSWORD))
        }),
        repeated("crypto/mschapv2/verify", REPEATS, 0, move || {
            let hash = verify_hash.clone();
            move || {
                let challenge = black_box(&CHALLENGE);
                mschapv2::verify_nt_response(challenge, &PEER_CHALLENGE, USER, &hash, &response)
            }
        }),
        repeated("crypto/mschapv2/answer", REPEATS, 0, move || {
            let hash = answer_hash.clone();
            move || {
                let challenge = black_box(&CHALLENGE);
                mschapv2::authenticator_response(challenge, &PEER_CHALLENGE, USER, &hash, &response)
            }
        }),
        repeated("crypto/mschapv2/hlak", REPEATS, 0, move || {
            let hash = hlak_hash.clone();
            move || Hlak::from_mschapv2(black_box(&hash), &response)
        }),
    ]
}
