//! The packets that are pumped.

use std::net::Ipv4Addr;

use datapath::ip::checksum;
use datapath::ip::offload::VNET_HEADER_LEN;
use datapath::ip::offload::merge::{Merge, Offloads, Pushed};

use super::rig::{CLIENT, SERVER};

/// What the Internet carries, about: seven small packets to four of the old minimum MTU to one large.
pub(crate) const IMIX: [usize; 12] = [64, 576, 64, 64, 576, 64, 1400, 64, 576, 64, 576, 64];

/// TCP or UDP inside IPv4, without options.
const TCP_HEADERS_LEN: usize = 40;
const UDP_HEADERS_LEN: usize = 28;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Uplink,
    Downlink,
}

/// What the packets of a burst are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Segments of one flow, each the next one's neighbour.
    Tcp,
    /// Datagrams of one flow.
    UdpFlow,
    /// Datagrams, each of a flow of its own, so that nothing can be merged.
    UdpFlows,
}

/// `count` packets of `len` bytes each, with right checksums.
///
/// # Panics
///
/// If `len` has no room for headers, or there are more packets than ports or numbers.
pub(crate) fn packets(kind: Kind, direction: Direction, len: usize, count: usize) -> Vec<Vec<u8>> {
    packets_of(CLIENT, kind, direction, len, count)
}

/// As [`packets`], of another client.
///
/// # Panics
///
/// As [`packets`].
pub(crate) fn packets_of(
    client: Ipv4Addr,
    kind: Kind,
    direction: Direction,
    len: usize,
    count: usize,
) -> Vec<Vec<u8>> {
    mixed_of(client, kind, direction, &[len], count)
}

/// As [`packets_of`], of these lengths in turn.
///
/// # Panics
///
/// As [`packets`].
pub(crate) fn mixed_of(
    client: Ipv4Addr,
    kind: Kind,
    direction: Direction,
    lens: &[usize],
    count: usize,
) -> Vec<Vec<u8>> {
    let lens = lens.iter().cycle().take(count);
    let packet = |(number, &len)| packet(client, kind, direction, len, number);
    lens.enumerate().map(packet).collect()
}

fn packet(
    client: Ipv4Addr,
    kind: Kind,
    direction: Direction,
    len: usize,
    number: usize,
) -> Vec<u8> {
    let (protocol, headers_len, port) = match kind {
        Kind::Tcp => (TCP, TCP_HEADERS_LEN, 49_152),
        Kind::UdpFlow => (UDP, UDP_HEADERS_LEN, 49_153),
        Kind::UdpFlows => (UDP, UDP_HEADERS_LEN, 10_000 + number),
    };
    let (source, destination) = match direction {
        Direction::Uplink => (client, SERVER),
        Direction::Downlink => (SERVER, client),
    };
    let short = |value: usize| u16::try_from(value).expect("it is that small");
    let mut packet = vec![0; len];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&short(len).to_be_bytes());
    packet[4..6].copy_from_slice(&short(number).to_be_bytes());
    packet[6] = 0x40;
    packet[8] = 64;
    packet[9] = protocol;
    packet[12..16].copy_from_slice(&source.octets());
    packet[16..20].copy_from_slice(&destination.octets());
    let ip_checksum = checksum::of(&packet[..20]);
    packet[10..12].copy_from_slice(&ip_checksum.to_be_bytes());

    let transport = &mut packet[20..];
    transport[0..2].copy_from_slice(&short(port).to_be_bytes());
    transport[2..4].copy_from_slice(&5001_u16.to_be_bytes());
    let transport_len = short(len - 20);
    let payload_len = len - headers_len;
    let checksum_at = if protocol == TCP {
        let sequence = u32::try_from(number * payload_len).expect("a short stream");
        transport[4..8].copy_from_slice(&sequence.to_be_bytes());
        transport[12] = 0x50;
        transport[13] = 0x10;
        transport[14] = 0xff;
        16
    } else {
        transport[4..6].copy_from_slice(&transport_len.to_be_bytes());
        6
    };
    // Anything that is not all the same.
    for (at, byte) in transport[headers_len - 20..].iter_mut().enumerate() {
        *byte = (at * 31 + number * 7).to_le_bytes()[0];
    }
    let sum =
        checksum::pseudo_v4(source, destination, protocol, transport_len).add_bytes(transport);
    let value = if protocol == TCP {
        sum.checksum()
    } else {
        checksum::udp(sum)
    };
    transport[checksum_at..checksum_at + 2].copy_from_slice(&value.to_be_bytes());
    packet
}

/// `packets` as they are written to a TUN, each by itself.
pub(crate) fn plain(packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let with_header = |packet: &Vec<u8>| [&[0; VNET_HEADER_LEN], packet.as_slice()].concat();
    packets.iter().map(with_header).collect()
}

/// `packets` as they are written to a TUN, merged into as few as can be.
pub(crate) fn merged(packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut merge = Merge::new(Offloads {
        tcp: true,
        udp: true,
    });
    let mut writes = Vec::new();
    for packet in packets {
        let pushed = merge.push(0, packet, &mut |aggregate| {
            writes.push(aggregate.bytes.to_vec());
        });
        if pushed == Pushed::Direct {
            writes.push([&[0; VNET_HEADER_LEN], packet.as_slice()].concat());
        }
    }
    merge.flush(&mut |aggregate| writes.push(aggregate.bytes.to_vec()));
    writes
}

#[cfg(test)]
mod tests {
    use datapath::ip::packet::Packet;

    use super::*;

    #[test]
    fn a_mix_is_seven_to_four_to_one() {
        let (kind, direction) = (Kind::UdpFlows, Direction::Uplink);
        let packets = mixed_of(CLIENT, kind, direction, &IMIX, 24);
        let of = |len| packets.iter().filter(|packet| packet.len() == len).count();
        assert_eq!([64, 576, 1400].map(of), [14, 8, 2]);
    }

    #[test]
    fn a_flow_is_merged_and_flows_are_not() {
        for (kind, len, count, writes) in [
            (Kind::Tcp, 1400, 96, 2),
            (Kind::UdpFlow, 1400, 47, 1),
            (Kind::UdpFlows, 1400, 20, 20),
            (Kind::UdpFlows, 64, 20, 20),
        ] {
            for direction in [Direction::Uplink, Direction::Downlink] {
                let packets = packets(kind, direction, len, count);
                for packet in &packets {
                    assert_eq!(Packet::parse(packet).unwrap().bytes().len(), len);
                    assert!(checksum::is_right(&packet[..20]));
                }
                assert_eq!(merged(&packets).len(), writes, "{kind:?} {len}");
                assert_eq!(plain(&packets).len(), count);
            }
        }
    }
}
