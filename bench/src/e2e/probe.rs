//! Packets that say when they were sent, and the answer how long they were under way.

use std::net::Ipv4Addr;

use datapath::ip::checksum;
use datapath::sys::clock;

/// What nothing else in this harness uses.
const PORT: u16 = 7_777;
const LEN: usize = 200;
const UDP: u8 = 17;
const TIME: std::ops::Range<usize> = 28..36;

/// A UDP packet with the time in it.
pub(super) fn packet(source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
    let mut packet = vec![0; LEN];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&short(LEN));
    packet[6] = 0x40;
    packet[8] = 64;
    packet[9] = UDP;
    packet[12..16].copy_from_slice(&source.octets());
    packet[16..20].copy_from_slice(&destination.octets());
    let sum = checksum::of(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet[20..22].copy_from_slice(&PORT.to_be_bytes());
    packet[22..24].copy_from_slice(&PORT.to_be_bytes());
    // Without a checksum, as IPv4 allows (RFC 768).
    packet[24..26].copy_from_slice(&short(LEN - 20));
    packet[TIME].copy_from_slice(&clock::now().as_nanos().to_be_bytes());
    packet
}

fn short(value: usize) -> [u8; 2] {
    u16::try_from(value).unwrap_or(u16::MAX).to_be_bytes()
}

/// When a probe was sent, in the clock's nanoseconds; `None` of any other packet.
pub(super) fn sent_at(packet: &[u8]) -> Option<u64> {
    if packet.len() != LEN || packet.get(9) != Some(&UDP) {
        return None;
    }
    if packet.get(22..24)? != PORT.to_be_bytes() {
        return None;
    }
    Some(u64::from_be_bytes(packet.get(TIME)?.try_into().ok()?))
}

/// Nanoseconds since then.
pub(super) fn age(sent_at: u64) -> u64 {
    clock::now().as_nanos().saturating_sub(sent_at)
}

/// The value below which a share of `values` lies; `None` of none.
pub(super) fn percentile(values: &mut [u64], share: f64) -> Option<u64> {
    values.sort_unstable();
    let last = values.len().checked_sub(1)?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and last"
    )]
    let index = (last as f64 * share.clamp(0.0, 1.0)).round() as usize;
    values.get(index).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_is_known_by_its_port_and_says_its_age() {
        let packet = packet([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let sent_at = sent_at(&packet).unwrap();
        assert!(age(sent_at) < 10_000_000_000);
        assert!(checksum::is_right(&packet[..20]));
        let mut other = packet;
        other[23] ^= 1;
        assert_eq!(super::sent_at(&other), None);
        assert_eq!(super::sent_at(&[]), None);
    }

    #[test]
    fn percentiles_are_values() {
        let mut values: Vec<u64> = (1..=101).rev().collect();
        assert_eq!(percentile(&mut values, 0.5), Some(51));
        assert_eq!(percentile(&mut values, 0.99), Some(100));
        assert_eq!(percentile(&mut values, 1.0), Some(101));
        assert_eq!(percentile(&mut [], 0.5), None);
    }
}
