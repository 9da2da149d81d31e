//! The sum against RFC 1071 word by word.

use datapath::ip::checksum;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::rfc1071::slow_sum;

proptest! {
    #[test]
    fn the_sum_equals_the_slow_one(bytes in vec(any::<u8>(), 0..3000), cut in 0..1500_usize) {
        prop_assert_eq!(checksum::Sum::ZERO.add_bytes(&bytes).fold() % 0xffff, slow_sum(&bytes) % 0xffff);
        prop_assert_eq!(checksum::of(&bytes) == 0xffff, bytes.iter().all(|&byte| byte == 0));
        let cut = (2 * cut).min(bytes.len() & !1);
        let (front, back) = bytes.split_at(cut);
        let in_parts = checksum::Sum::ZERO.add_bytes(front).add_sum(checksum::Sum::ZERO.add_bytes(back));
        prop_assert_eq!(in_parts.checksum(), checksum::of(&bytes));
    }

    #[test]
    fn an_update_equals_a_new_sum(
        mut bytes in vec(any::<u8>(), 2..100), at in any::<prop::sample::Index>(), new: [u8; 2]
    ) {
        // RFC 1624 §3 holds for data that is not all zero; a pseudo-header never is.
        bytes.splice(0..0, [1, 0]);
        let before = checksum::of(&bytes);
        let at = at.index(bytes.len() - 3) + 2;
        let old = [bytes[at], bytes[at + 1]];
        bytes[at..at + 2].copy_from_slice(&new);
        let turn = |word: [u8; 2]| {
            let word = u16::from_be_bytes(word);
            if at.is_multiple_of(2) { word } else { word.swap_bytes() }
        };
        prop_assert_eq!(checksum::update(before, turn(old), turn(new)), checksum::of(&bytes));
    }
}

#[test]
fn ones_do_not_overflow_the_sum() {
    let bytes = [0xff; 65_536];
    let mut sum = checksum::Sum::ZERO;
    for _ in 0..1000 {
        sum = sum.add_bytes(&bytes);
    }
    assert_eq!(sum.fold(), 0xffff);
}
