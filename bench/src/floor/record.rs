//! The least that can be called a TLS 1.3 record layer (RFC 8446 §5.2): a key, an IV, a number.
//!
//! Not the product's, so that this one can be judged by it.

use std::io;

use aws_lc_rs::aead::{Aad, Algorithm, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

pub(super) const HEADER_LEN: usize = 5;
const TAG_LEN: usize = 16;
/// The byte of the content type, and the tag.
pub(super) const SUFFIX_LEN: usize = 1 + TAG_LEN;
pub(super) const PLAINTEXT_LEN_MAX: usize = 16_384;
pub(super) const RECORD_LEN_MAX: usize = HEADER_LEN + PLAINTEXT_LEN_MAX + SUFFIX_LEN;

const APPLICATION_DATA: u8 = 23;

/// One direction.
#[derive(Debug)]
pub(super) struct Half {
    key: LessSafeKey,
    iv: [u8; NONCE_LEN],
    number: u64,
}

impl Half {
    /// A fixed key: what is sealed here are numbered bytes.
    pub(super) fn new(algorithm: &'static Algorithm) -> Self {
        let key = [0x42; 32];
        let key = UnboundKey::new(algorithm, &key[..algorithm.key_len()]);
        Self {
            key: LessSafeKey::new(key.expect("a key of the right length")),
            iv: [0x17; NONCE_LEN],
            number: 0,
        }
    }

    fn nonce(&mut self) -> Nonce {
        let mut nonce = self.iv;
        for (byte, number) in nonce[4..].iter_mut().zip(self.number.to_be_bytes()) {
            *byte ^= number;
        }
        self.number += 1;
        Nonce::assume_unique_for_key(nonce)
    }

    /// Seals `header | plaintext | suffix` in place.
    pub(super) fn seal(&mut self, record: &mut [u8]) -> io::Result<()> {
        let nonce = self.nonce();
        let len = u16::try_from(record.len() - HEADER_LEN).expect("a record is that short");
        let [high, low] = len.to_be_bytes();
        let (header, body) = record.split_at_mut(HEADER_LEN);
        header.copy_from_slice(&[APPLICATION_DATA, 3, 3, high, low]);
        let (body, tag) = body.split_at_mut(body.len() - TAG_LEN);
        body[body.len() - 1] = APPLICATION_DATA;
        let sealed = self
            .key
            .seal_in_place_separate_tag(nonce, Aad::from(&header), body)
            .map_err(|_| io::Error::other("sealing failed"))?;
        tag.copy_from_slice(sealed.as_ref());
        Ok(())
    }

    /// Opens a whole record in place and gives the length of its plaintext, which lies behind the
    /// header.
    pub(super) fn open(&mut self, record: &mut [u8]) -> io::Result<usize> {
        let nonce = self.nonce();
        let (header, body) = record.split_at_mut(HEADER_LEN);
        let plaintext = self
            .key
            .open_in_place(nonce, Aad::from(&header), body)
            .map_err(|_| io::Error::other("opening failed"))?;
        Ok(plaintext.len() - 1)
    }
}

/// The length of the record that `bytes` start with, if its header is there.
pub(super) fn record_len(bytes: &[u8]) -> Option<usize> {
    let &[_, _, _, high, low] = bytes.first_chunk()?;
    Some(HEADER_LEN + usize::from(u16::from_be_bytes([high, low])))
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::aead::AES_128_GCM;

    use super::*;

    #[test]
    fn what_one_half_seals_the_other_opens_once_and_in_order() {
        let (mut ours, mut theirs) = (Half::new(&AES_128_GCM), Half::new(&AES_128_GCM));
        for len in [1, 1408, PLAINTEXT_LEN_MAX] {
            let mut record = vec![7; HEADER_LEN + len + SUFFIX_LEN];
            ours.seal(&mut record).unwrap();
            assert_eq!(record_len(&record), Some(record.len()));
            let sealed = record.clone();
            assert_eq!(theirs.open(&mut record).unwrap(), len);
            assert!(record[HEADER_LEN..][..len].iter().all(|&byte| byte == 7));
            theirs.open(&mut sealed.clone()).unwrap_err();
            theirs.number -= 1;
        }
        assert_eq!(record_len(&[23, 3, 3, 0]), None);
    }
}
