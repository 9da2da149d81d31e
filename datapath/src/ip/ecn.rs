//! Explicit congestion notification (RFC 3168): tells the ends of a flow to slow down without
//! losing a packet.

use super::checksum;

/// Both bits of the ECN field.
const ECN: u8 = 0b11;

/// Marks the packet as having met congestion, if its ends understand that (ECT, RFC 3168 §5), and
/// mends the IPv4 header checksum. Returns whether the packet bears the mark now; if not, it is as
/// it was, and what would have been said with the mark is said by dropping it.
pub fn mark(packet: &mut [u8]) -> bool {
    match packet.first().map(|byte| byte >> 4) {
        Some(4) => mark_v4(packet).unwrap_or(false),
        Some(6) => mark_v6(packet).unwrap_or(false),
        _ => false,
    }
}

fn mark_v4(packet: &mut [u8]) -> Option<bool> {
    let header = packet.first_chunk_mut::<20>()?;
    let before = u16::from_be_bytes([header[0], header[1]]);
    if header[1] & ECN == 0 {
        return Some(false);
    }
    header[1] |= ECN;
    let after = u16::from_be_bytes([header[0], header[1]]);
    let sum = u16::from_be_bytes([header[10], header[11]]);
    let [high, low] = checksum::update(sum, before, after).to_be_bytes();
    (header[10], header[11]) = (high, low);
    Some(true)
}

/// The field is the lower half of the traffic class, which lies across the first two bytes
/// (RFC 8200 §3).
fn mark_v6(packet: &mut [u8]) -> Option<bool> {
    let byte = packet.get_mut(1)?;
    if *byte & (ECN << 4) == 0 {
        return Some(false);
    }
    *byte |= ECN << 4;
    Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(tos: u8) -> Vec<u8> {
        let mut packet = vec![0x45, tos, 0, 20, 0x12, 0x34, 0, 0, 64, 17, 0, 0];
        packet.extend([192, 0, 2, 1, 10, 8, 0, 5]);
        let sum = checksum::of(&packet);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet
    }

    #[test]
    fn ect_becomes_ce_and_the_checksum_stays_right() {
        for tos in 0..=255 {
            let mut packet = v4(tos);
            let before = packet.clone();
            assert_eq!(mark(&mut packet), tos & ECN != 0, "{tos:#x}");
            if tos & ECN == 0 {
                assert_eq!(packet, before);
            } else {
                assert_eq!(packet[1], tos | ECN);
            }
            assert!(checksum::is_right(&packet), "{tos:#x}");
        }
    }

    #[test]
    fn the_field_of_ipv6_lies_across_two_bytes() {
        let mut packet = [0; 40];
        packet[0] = 0x6f;
        assert!(!mark(&mut packet), "not ECT");
        packet[1] = 0x2a;
        assert!(mark(&mut packet));
        assert_eq!(packet[..2], [0x6f, 0x3a], "DSCP and flow label stay");
    }

    #[test]
    fn what_is_too_short_is_left_alone() {
        for packet in [&mut [][..], &mut [0x45, 3], &mut [0x60]] {
            assert!(!mark(packet));
        }
    }
}
