//! Which flow a packet belongs to, as a number: equal for all packets of one flow.
//!
//! A flow is source, destination and protocol, and for TCP, UDP, SCTP and the like the two ports.
//! A fragment has no ports here, not even the first, so that all fragments of one flow agree.
//!
//! The hash is not keyed: who makes flows collide shares a queue with himself, in his own session.

use super::packet::{Packet, Part, TCP, UDP};

/// Protocols whose header begins with two ports, besides TCP and UDP: DCCP, SCTP, UDP-Lite.
const WITH_PORTS: [u8; 3] = [33, 132, 136];

/// A number that all packets of the flow share; packets that cannot be read are one flow.
#[must_use]
pub fn hash(packet: &[u8]) -> u32 {
    let Ok(packet) = Packet::parse(packet) else {
        return 0;
    };
    let addresses = match packet {
        Packet::V4(_) => packet.bytes().get(12..20),
        Packet::V6(_) => packet.bytes().get(8..40),
    };
    let mut state = 0;
    let (words, _) = addresses.unwrap_or_default().as_chunks();
    for word in words {
        state = mix(state, u32::from_be_bytes(*word));
    }
    if let Some(transport) = packet.transport() {
        state = mix(state, u32::from(transport.protocol));
        let has_ports =
            matches!(transport.protocol, TCP | UDP) || WITH_PORTS.contains(&transport.protocol);
        if transport.part == Part::Whole
            && has_ports
            && let Some(rest) = packet.bytes().get(transport.offset..)
            && let Some(ports) = rest.first_chunk()
        {
            state = mix(state, u32::from_be_bytes(*ports));
        }
    }
    // The upper half of the product has seen all bits.
    u32::try_from(state >> 32).unwrap_or(0)
}

/// One step of a multiplicative hash; the factor is 2^64 over the golden ratio.
const fn mix(state: u64, word: u32) -> u64 {
    let state = (state.rotate_left(23) ^ word as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    state ^ (state >> 29)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hex_literal::hex;

    fn udp(ports: [u8; 4], fragment: [u8; 2]) -> Vec<u8> {
        let mut packet = hex!("4500001c 00010000 4011 0000 c0000201 0a080005").to_vec();
        packet[6..8].copy_from_slice(&fragment);
        packet.extend(ports);
        packet.extend(hex!("0008 0000"));
        packet
    }

    #[test]
    fn ports_tell_flows_apart_but_not_in_fragments() {
        let first = hash(&udp([1, 2, 3, 4], [0, 0]));
        assert_eq!(
            first,
            hash(&udp([1, 2, 3, 4], [0x40, 0])),
            "DF is no matter"
        );
        assert_ne!(first, hash(&udp([1, 2, 3, 5], [0, 0])));
        let fragment = hash(&udp([1, 2, 3, 4], [0x20, 0]));
        assert_eq!(fragment, hash(&udp([9, 9, 9, 9], [0, 7])));
        assert_ne!(first, fragment);
    }

    #[test]
    fn many_flows_spread_over_few_buckets() {
        let mut buckets = [0_u32; 64];
        for port in 0..6_400_u16 {
            let [high, low] = port.to_be_bytes();
            buckets[hash(&udp([0, 53, high, low], [0, 0])) as usize % 64] += 1;
        }
        assert!(
            buckets.iter().all(|count| (60..=140).contains(count)),
            "{buckets:?}"
        );
    }

    #[test]
    fn what_is_no_packet_has_a_flow_too() {
        assert_eq!(hash(&[]), hash(&[0x45, 0]));
    }
}
