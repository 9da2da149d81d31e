//! Sums and headers, slow and independent.

use crate::rfc1071::slow_sum;

/// Fills in the lengths and checksums of an IPv4 UDP datagram or an IPv6 packet.
pub(crate) fn sealed(mut packet: Vec<u8>) -> Vec<u8> {
    let len = packet.len();
    let is_v4 = packet[0] >> 4 == 4;
    let header_len = if is_v4 { 20 } else { 40 };
    let upper_len = (len - header_len) as u16;
    let protocol = if is_v4 {
        packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        packet[10..12].fill(0);
        let sum = !slow_sum(&packet[..20]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet[9]
    } else {
        packet[4..6].copy_from_slice(&upper_len.to_be_bytes());
        packet[6]
    };
    let at = header_len + if protocol == 17 { 6 } else { 2 };
    if protocol == 17 {
        packet[header_len + 4..header_len + 6].copy_from_slice(&upper_len.to_be_bytes());
    }
    packet[at..at + 2].fill(0);
    let sum = !upper_sum(&packet);
    packet[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// The sum of pseudo-header and upper layer: 0xFFFF if the checksum in it is right.
pub(crate) fn upper_sum(packet: &[u8]) -> u16 {
    let (header_len, addresses, protocol) = match packet[0] >> 4 {
        4 => (20, &packet[12..20], packet[9]),
        _ => (40, &packet[8..40], packet[6]),
    };
    let mut bytes = addresses.to_vec();
    bytes.extend([0, protocol]);
    bytes.extend(((packet.len() - header_len) as u16).to_be_bytes());
    bytes.extend(&packet[header_len..]);
    slow_sum(&bytes)
}

pub(crate) fn assert_sums(packet: &[u8]) {
    if packet[0] >> 4 == 4 {
        assert_eq!(slow_sum(&packet[..20]), 0xffff, "header checksum");
        assert_eq!(packet[2..4], (packet.len() as u16).to_be_bytes());
    } else {
        assert_eq!(packet[4..6], (packet.len() as u16 - 40).to_be_bytes());
    }
    assert_eq!(upper_sum(packet), 0xffff, "transport checksum");
}
