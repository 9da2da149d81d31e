//! The Internet checksum of RFC 1071 §1 word by word, in no hurry: what the fast ones are held against.

pub(crate) fn slow_sum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        let low = pair.get(1).copied().unwrap_or(0);
        sum += u32::from(pair[0]) * 256 + u32::from(low);
        if sum > 0xffff {
            sum -= 0xffff;
        }
    }
    u16::try_from(sum).expect("folded")
}
