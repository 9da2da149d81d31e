//! The Internet checksum: whole (RFC 1071) and by difference (RFC 1624).
//!
//! The sum is kept in 64 bits and in the machine's own byte order, which RFC 1071 §2 (B) allows: it
//! is folded and turned only at the end. Positions count from the start of what is summed, so only
//! the last piece of several may have an odd length.

use core::net::{Ipv4Addr, Ipv6Addr};

/// A one's-complement sum under way.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// The sum of nothing.
    pub const ZERO: Self = Self(0);

    /// Adds `bytes`; an odd last byte counts as if a zero followed.
    #[must_use]
    #[inline]
    pub fn add_bytes(self, bytes: &[u8]) -> Self {
        let (words, rest) = bytes.as_chunks();
        let mut sum = self.0;
        for run in words.chunks(RUN_MAX) {
            let mut halves = Halves::default();
            for word in run {
                halves.add(*word);
            }
            sum = add_wide(sum, halves.total());
        }
        Self(add_wide(sum, last_word(rest)))
    }

    /// A sum made elsewhere, of words in the machine's own byte order (vector instructions make it).
    #[must_use]
    pub const fn from_native(sum: u64) -> Self {
        Self(sum)
    }

    /// Adds one 16-bit word, given as a number.
    #[must_use]
    pub const fn add_u16(self, word: u16) -> Self {
        Self(add_wide(self.0, word.to_be() as u64))
    }

    /// Adds another sum.
    #[must_use]
    pub const fn add_sum(self, other: Self) -> Self {
        Self(add_wide(self.0, other.0))
    }

    /// The sum in 16 bits: 0xFFFF for data whose checksum field is in it and right.
    #[must_use]
    pub const fn fold(self) -> u16 {
        let sum = (self.0 & 0xffff_ffff).wrapping_add(self.0 >> 32);
        let sum = (sum & 0xffff).wrapping_add(sum >> 16);
        let sum = (sum & 0xffff).wrapping_add(sum >> 16);
        let sum = (sum & 0xffff).wrapping_add(sum >> 16);
        u16::from_be(sum as u16)
    }

    /// The value for the checksum field that was zero while summed.
    #[must_use]
    pub const fn checksum(self) -> u16 {
        !self.fold()
    }
}

/// 32 bits take so many halves of 16 bits without overflow.
const RUN_MAX: usize = 65_536;

/// The sums of the first and second halves of 32-bit words. Without any carry between them, a loop
/// over words becomes vector instructions (twice as fast as summing whole words in 64 bits).
#[derive(Default)]
struct Halves {
    low: u32,
    high: u32,
}

impl Halves {
    #[inline]
    const fn add(&mut self, word: [u8; 4]) {
        let word = u32::from_ne_bytes(word);
        self.low = self.low.wrapping_add(word & 0xffff);
        self.high = self.high.wrapping_add(word >> 16);
    }

    fn total(&self) -> u64 {
        (u64::from(self.high) << 16).wrapping_add(u64::from(self.low))
    }
}

/// What is left of bytes behind their last whole word, as a word with zeros behind.
fn last_word(rest: &[u8]) -> u64 {
    let mut word = [0; 4];
    for (to, from) in word.iter_mut().zip(rest) {
        *to = *from;
    }
    u64::from(u32::from_ne_bytes(word))
}

/// Adds with the carry brought round, so that a sum may itself be summed up without limit.
const fn add_wide(a: u64, b: u64) -> u64 {
    let (sum, carry) = a.overflowing_add(b);
    sum.wrapping_add(carry as u64)
}

/// What copies and sums like [`copy_and_sum`]; `sys` has wider ones for some processors.
pub type CopyAndSum = fn(&[u8], &mut [u8]) -> Sum;

/// Copies `from` to `to`, which is as long, and sums it up on the way: one pass over the bytes
/// instead of two. Of different lengths, the shorter one counts.
pub fn copy_and_sum(from: &[u8], to: &mut [u8]) -> Sum {
    let len = from.len().min(to.len());
    let (words, rest) = from.get(..len).unwrap_or_default().as_chunks();
    let (to_words, to_rest) = to.get_mut(..len).unwrap_or_default().as_chunks_mut();
    let mut sum = 0;
    for (run, to_run) in words.chunks(RUN_MAX).zip(to_words.chunks_mut(RUN_MAX)) {
        let mut halves = Halves::default();
        for (word, to_word) in run.iter().zip(to_run) {
            halves.add(*word);
            *to_word = *word;
        }
        sum = add_wide(sum, halves.total());
    }
    // At most 3 bytes: not worth a call.
    for (to, from) in to_rest.iter_mut().zip(rest) {
        *to = *from;
    }
    Sum(add_wide(sum, last_word(rest)))
}

/// The checksum of `bytes`, whose checksum field is zero (or left out).
#[must_use]
pub fn of(bytes: &[u8]) -> u16 {
    Sum::ZERO.add_bytes(bytes).checksum()
}

/// Whether `bytes`, its checksum field included, sums up right.
#[must_use]
pub fn is_right(bytes: &[u8]) -> bool {
    Sum::ZERO.add_bytes(bytes).fold() == 0xffff
}

/// The checksum after a 16-bit word under it changed from `old` to `new` (RFC 1624 §3, eqn 3).
/// For a word at an odd position, give both with their bytes swapped.
#[must_use]
pub const fn update(checksum: u16, old: u16, new: u16) -> u16 {
    Sum::ZERO
        .add_u16(!checksum)
        .add_u16(!old)
        .add_u16(new)
        .checksum()
}

/// The value for a UDP checksum field: zero there would mean "none", so its twin 0xFFFF is sent
/// (RFC 768, RFC 8200 §8.1).
#[must_use]
pub const fn udp(sum: Sum) -> u16 {
    match sum.checksum() {
        0 => 0xffff,
        value => value,
    }
}

/// The sum of the IPv4 pseudo-header (RFC 9293 §3.1); `len` is that of transport header and data.
#[must_use]
pub fn pseudo_v4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, len: u16) -> Sum {
    Sum::ZERO
        .add_bytes(&source.octets())
        .add_bytes(&destination.octets())
        .add_u16(u16::from(protocol))
        .add_u16(len)
}

/// The sum of the IPv6 pseudo-header (RFC 8200 §8.1); `len` is that of transport header and data.
#[must_use]
pub fn pseudo_v6(source: Ipv6Addr, destination: Ipv6Addr, protocol: u8, len: u32) -> Sum {
    Sum::ZERO
        .add_bytes(&source.octets())
        .add_bytes(&destination.octets())
        .add_bytes(&len.to_be_bytes())
        .add_u16(u16::from(protocol))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_1071_section_3_example() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::ZERO.add_bytes(&bytes).fold(), 0xddf2);
        assert_eq!(of(&bytes), 0x220d);
    }

    #[test]
    fn rfc_1624_section_4_example() {
        // HC = DD2F, m = 5555, m' = 3285: equation 3 gives 0000, where equation 2 gives FFFF.
        assert_eq!(update(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    #[test]
    fn a_known_ipv4_header_is_right() {
        let header = hex_literal::hex!("45000073 00004000 4011b861 c0a80001 c0a800c7");
        assert!(is_right(&header));
        let mut without = header;
        without[10..12].fill(0);
        assert_eq!(of(&without), 0xb861);
    }
}
