//! `aead`: sealing in place, which every byte pays for once.

use std::io;

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Algorithm, CHACHA20_POLY1305};
use datapath::time::Duration;

use super::Figure;
use super::meter::Sample;
use super::record::{HEADER_LEN, Half, SUFFIX_LEN};

const CIPHERS: [(&str, &Algorithm); 3] = [
    ("aes128gcm", &AES_128_GCM),
    ("aes256gcm", &AES_256_GCM),
    ("chacha20poly1305", &CHACHA20_POLY1305),
];

/// A packet, a page, the largest record.
const LENS: [usize; 3] = [1_400, 4_096, 16_384];

/// Bytes between two looks at the clock.
const PIECE_LEN: usize = 1 << 20;

pub(super) fn figures<'a>() -> Vec<Box<dyn Figure + 'a>> {
    let mut figures: Vec<Box<dyn Figure>> = Vec::new();
    for (cipher, algorithm) in CIPHERS {
        for len in LENS {
            figures.push(Box::new(Seal {
                name: format!("aead/seal {cipher}/{len}"),
                half: Half::new(algorithm),
                record: vec![0x5a; HEADER_LEN + len + SUFFIX_LEN],
                len,
            }));
        }
    }
    figures
}

struct Seal {
    name: String,
    half: Half,
    record: Vec<u8>,
    len: usize,
}

impl Figure for Seal {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn measure(&mut self, slice: Duration) -> io::Result<Sample> {
        let mut sample = Sample::default();
        let count = PIECE_LEN.div_ceil(self.len);
        while sample.wall < slice {
            sample.time(|| {
                for _ in 0..count {
                    self.half.seal(&mut self.record)?;
                }
                Ok((count * self.len, count))
            })?;
        }
        Ok(sample)
    }
}
