//! The computations of MS-CHAPv2, both ends (RFC 2759 §8). The exchange itself is `ppp::auth`.
//!
//! The user name enters the challenge hash without its `DOMAIN\` part (RFC 2759 §4), as Windows and
//! pppd do; some peers hash it whole, and [`verify_nt_response`] takes both. It is a string of bytes
//! and is not converted. The authenticator's challenge comes first in every signature.

use des::Des;
use des::cipher::{BlockCipherEncrypt, KeyInit};
use subtle::ConstantTimeEq;

use super::hlak::Hlak;
use super::hmac::sha1;
use super::nt_hash::NtHash;

/// Bytes of an authenticator response as text: `S=` and 40 hexadecimal digits.
pub const AUTHENTICATOR_RESPONSE_LEN: usize = 42;

// RFC 2759 §8.7
const MAGIC_SIGNING: &[u8; 39] = b"Magic server to client signing constant";
const MAGIC_PAD: &[u8; 41] = b"Pad to make it do more than one iteration";

/// What a server gets from a right NT-Response: its own proof, and the key for the binding.
#[derive(Clone, Debug)]
pub struct Verified {
    /// `S=` and 40 upper-case hexadecimal digits, to be sent in the Success.
    pub authenticator_response: [u8; AUTHENTICATOR_RESPONSE_LEN],
    /// The key that crypto binding must use.
    pub hlak: Hlak,
}

/// `name` without everything up to its last backslash.
#[must_use]
pub fn strip_domain(name: &[u8]) -> &[u8] {
    name.rsplit(|&byte| byte == b'\\').next().unwrap_or(name)
}

/// `ChallengeHash` of RFC 2759 §8.2, of `name` exactly as given.
#[must_use]
pub fn challenge_hash(
    authenticator_challenge: &[u8; 16],
    peer_challenge: &[u8; 16],
    name: &[u8],
) -> [u8; 8] {
    let digest = sha1(&[peer_challenge, authenticator_challenge, name]);
    let [a, b, c, d, e, f, g, h, ..] = digest;
    [a, b, c, d, e, f, g, h]
}

/// `GenerateNTResponse` of RFC 2759 §8.1: the client's proof, for `user` without its domain.
#[must_use]
pub fn nt_response(
    authenticator_challenge: &[u8; 16],
    peer_challenge: &[u8; 16],
    user: &[u8],
    nt_hash: &NtHash,
) -> [u8; 24] {
    let challenge = challenge_hash(authenticator_challenge, peer_challenge, strip_domain(user));
    challenge_response(challenge, nt_hash)
}

/// Checks a client's proof in constant time, first for `user` without its domain, then as sent.
#[must_use]
pub fn verify_nt_response(
    authenticator_challenge: &[u8; 16],
    peer_challenge: &[u8; 16],
    user: &[u8],
    nt_hash: &NtHash,
    received: &[u8; 24],
) -> Option<Verified> {
    let stripped = strip_domain(user);
    let whole = (stripped.len() != user.len()).then_some(user);
    [Some(stripped), whole]
        .into_iter()
        .flatten()
        .find_map(|name| {
            let challenge = challenge_hash(authenticator_challenge, peer_challenge, name);
            let expected = challenge_response(challenge, nt_hash);
            bool::from(expected.ct_eq(received)).then(|| Verified {
                authenticator_response: authenticator_response_to(challenge, nt_hash, received),
                hlak: Hlak::from_mschapv2(nt_hash, received),
            })
        })
}

/// `GenerateAuthenticatorResponse` of RFC 2759 §8.7: the server's proof, for `user` without its
/// domain, in upper case because clients compare the text.
#[must_use]
pub fn authenticator_response(
    authenticator_challenge: &[u8; 16],
    peer_challenge: &[u8; 16],
    user: &[u8],
    nt_hash: &NtHash,
    nt_response: &[u8; 24],
) -> [u8; AUTHENTICATOR_RESPONSE_LEN] {
    let challenge = challenge_hash(authenticator_challenge, peer_challenge, strip_domain(user));
    authenticator_response_to(challenge, nt_hash, nt_response)
}

/// Checks the server's proof at the head of a Success `message` in constant time; what follows the
/// 42 bytes and the case of the digits do not matter.
#[must_use]
pub fn verify_authenticator_response(
    authenticator_challenge: &[u8; 16],
    peer_challenge: &[u8; 16],
    user: &[u8],
    nt_hash: &NtHash,
    nt_response: &[u8; 24],
    message: &[u8],
) -> bool {
    let Some(mut received) = message.first_chunk::<AUTHENTICATOR_RESPONSE_LEN>().copied() else {
        return false;
    };
    let [_, _, digits @ ..] = &mut received;
    digits.make_ascii_uppercase();
    authenticator_response(
        authenticator_challenge,
        peer_challenge,
        user,
        nt_hash,
        nt_response,
    )
    .ct_eq(&received)
    .into()
}

fn authenticator_response_to(
    challenge: [u8; 8],
    nt_hash: &NtHash,
    nt_response: &[u8; 24],
) -> [u8; AUTHENTICATOR_RESPONSE_LEN] {
    let hash_hash = nt_hash.hash_hash();
    let digest = sha1(&[hash_hash.as_bytes(), nt_response, MAGIC_SIGNING]);
    let digest = sha1(&[&digest, &challenge, MAGIC_PAD]);
    let mut text = [0; AUTHENTICATOR_RESPONSE_LEN];
    let [s, equals, digits @ ..] = &mut text;
    (*s, *equals) = (b'S', b'=');
    for (pair, byte) in digits.chunks_exact_mut(2).zip(digest) {
        pair.copy_from_slice(&[hex_digit(byte >> 4), hex_digit(byte & 0x0F)]);
    }
    text
}

const fn hex_digit(nibble: u8) -> u8 {
    match nibble {
        0..=9 => b'0' + nibble,
        _ => b'A' + (nibble & 0x0F) - 10,
    }
}

/// `ChallengeResponse` of RFC 2759 §8.5: the challenge under three DES keys cut from the hash.
fn challenge_response(challenge: [u8; 8], nt_hash: &NtHash) -> [u8; 24] {
    let mut keys = [0; 21];
    keys[..16].copy_from_slice(nt_hash.as_bytes());
    let mut response = [0; 24];
    for (block, key) in response.chunks_exact_mut(8).zip(keys.chunks_exact(7)) {
        let mut cipher_block = challenge.into();
        Des::new(&expand_key(key).into()).encrypt_block(&mut cipher_block);
        block.copy_from_slice(&cipher_block);
    }
    zeroize::Zeroize::zeroize(&mut keys);
    response
}

/// Seven bytes as a DES key: seven bits in the upper part of each byte; DES ignores the parity bit.
fn expand_key(seven: &[u8]) -> [u8; 8] {
    let bits = seven
        .iter()
        .fold(0_u64, |bits, &byte| (bits << 8) | u64::from(byte));
    core::array::from_fn(|index| {
        let [.., low] = (bits >> (49 - 7 * index)).to_be_bytes();
        low << 1
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::nt_hash::nt_password_hash;
    use hex_literal::hex;

    const AUTHENTICATOR: [u8; 16] = hex!("5b5d7c7d7b3f2f3e3c2c602132262628");
    const PEER: [u8; 16] = hex!("21402324255e262a28295f2b3a337c7e");
    const RESPONSE: [u8; 24] = hex!("82309ecd8d708b5ea08faa3981cd83544233114a3d85d6df");
    const PROOF: &[u8; 42] = b"S=407A5589115FD0D6209F510FE9C04566932CDA56";

    #[test]
    fn vectors_rfc_2759_section_9_2() {
        let hash = nt_password_hash("clientPass");
        assert_eq!(
            challenge_hash(&AUTHENTICATOR, &PEER, b"User"),
            hex!("d02e4386bce91226")
        );
        assert_eq!(nt_response(&AUTHENTICATOR, &PEER, b"User", &hash), RESPONSE);
        assert_eq!(
            &authenticator_response(&AUTHENTICATOR, &PEER, b"User", &hash, &RESPONSE),
            PROOF
        );
    }

    #[test]
    fn vectors_rfc_2433_challenge_response() {
        assert_eq!(
            challenge_response(hex!("102db5df085d3041"), &nt_password_hash("MyPw")),
            hex!("4e9d3c8f9cfd385d5bf4d3246791956ca4c351ab409a3d61")
        );
    }

    #[test]
    fn a_domain_is_stripped_up_to_the_last_backslash() {
        assert_eq!(strip_domain(b"A\\B\\User"), b"User");
        assert_eq!(strip_domain(b"user@realm"), b"user@realm");
        assert_eq!(strip_domain(b"A\\"), b"");
        let hash = nt_password_hash("clientPass");
        assert_eq!(
            nt_response(&AUTHENTICATOR, &PEER, b"DOMAIN\\User", &hash),
            RESPONSE
        );
    }

    #[test]
    fn both_forms_of_a_name_with_a_domain_are_verified() {
        let hash = nt_password_hash("clientPass");
        let name = b"DOMAIN\\User";
        let verified = verify_nt_response(&AUTHENTICATOR, &PEER, name, &hash, &RESPONSE).unwrap();
        assert_eq!(&verified.authenticator_response, PROOF);
        let challenge = challenge_hash(&AUTHENTICATOR, &PEER, name);
        let whole = challenge_response(challenge, &hash);
        let verified = verify_nt_response(&AUTHENTICATOR, &PEER, name, &hash, &whole).unwrap();
        assert_eq!(
            verified.authenticator_response,
            authenticator_response_to(challenge, &hash, &whole),
            "the proof covers the form that the client hashed"
        );
    }

    #[test]
    fn each_flipped_bit_is_refused() {
        let hash = nt_password_hash("clientPass");
        for bit in 0..RESPONSE.len() * 8 {
            let mut wrong = RESPONSE;
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert!(verify_nt_response(&AUTHENTICATOR, &PEER, b"User", &hash, &wrong).is_none());
        }
    }

    #[test]
    fn the_servers_proof_is_verified_whatever_the_case_and_what_follows() {
        let hash = nt_password_hash("clientPass");
        let verify = |message: &[u8]| {
            let user = b"User";
            verify_authenticator_response(&AUTHENTICATOR, &PEER, user, &hash, &RESPONSE, message)
        };
        assert!(verify(PROOF));
        assert!(verify(
            b"S=407a5589115fd0d6209f510fe9c04566932cda56 M=welcome"
        ));
        assert!(!verify(b"S=407A5589115FD0D6209F510FE9C04566932CDA57"));
        assert!(!verify(b"s=407A5589115FD0D6209F510FE9C04566932CDA56"));
        assert!(!verify(&PROOF[..41]));
        assert!(!verify(b""));
    }
}
