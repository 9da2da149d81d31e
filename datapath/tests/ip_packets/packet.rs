//! Packets made by hand.

use std::net::{IpAddr, Ipv6Addr};

use crate::rfc1071::slow_sum;

pub(crate) fn slow_checksum(bytes: &[u8]) -> u16 {
    0xffff - slow_sum(bytes)
}

pub(crate) fn pseudo(source: IpAddr, destination: IpAddr, protocol: u8, len: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for address in [source, destination] {
        match address {
            IpAddr::V4(address) => bytes.extend(address.octets()),
            IpAddr::V6(address) => bytes.extend(address.octets()),
        }
    }
    bytes.extend((len as u32).to_be_bytes());
    bytes.extend([0, 0, 0, protocol]);
    bytes
}

pub(crate) fn v4(source: [u8; 4], destination: [u8; 4], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 0, 0x12, 0x34, 0x40, 0, 64, protocol, 0, 0];
    packet.extend(source);
    packet.extend(destination);
    finish_v4(packet, payload)
}

pub(crate) fn finish_v4(mut header: Vec<u8>, payload: &[u8]) -> Vec<u8> {
    let len = (header.len() + payload.len()) as u16;
    header[2..4].copy_from_slice(&len.to_be_bytes());
    header[10..12].fill(0);
    let sum = slow_checksum(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    header.extend(payload);
    header
}

pub(crate) fn v6(source: Ipv6Addr, destination: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([next, 64]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(payload);
    packet
}

pub(crate) fn a6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

/// `count` destination-options headers of 8 bytes, then UDP.
pub(crate) fn chain(count: usize) -> Vec<u8> {
    let mut payload = Vec::new();
    for left in (0..count).rev() {
        payload.extend([if left == 0 { 17 } else { 60 }, 0, 1, 4, 0, 0, 0, 0]);
    }
    payload.extend([0; 8]);
    let next = if count == 0 { 17 } else { 60 };
    v6(a6("2001:db8::2"), a6("2001:db8::1"), next, &payload)
}
