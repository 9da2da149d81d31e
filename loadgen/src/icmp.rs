//! ICMP Echo, to ping through a tunnel (RFC 792, RFC 4443 §4).
//!
//! ```text
//!  IPv4 or IPv6 header | type | code | checksum | identifier | sequence | data
//! ```
//!
//! It makes whole packets without IP options and reads whole packets with them; fragments are not
//! put together. Lengths are bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use datapath::ip::checksum::{self, Sum};
use datapath::ip::packet::{Packet, Part};

// RFC 792, RFC 4443 §2.1.
const V4_PROTOCOL: u8 = 1;
const V6_PROTOCOL: u8 = 58;
const V4_REPLY: u8 = 0;
const V4_REQUEST: u8 = 8;
const V6_REQUEST: u8 = 128;
const V6_REPLY: u8 = 129;
const HEADER_LEN: usize = 8;

// RFC 791 §3.1, RFC 8200 §3.
const V4_HEADER_LEN: usize = 20;
const TTL: u8 = 64;

/// Which of the two messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Request,
    Reply,
}

/// An echo message that was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Echo<'a> {
    pub(crate) kind: Kind,
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) identifier: u16,
    pub(crate) sequence: u16,
    pub(crate) data: &'a [u8],
}

/// The echo message in `packet`; `None` if it is anything else, or damaged.
pub(crate) fn parse(packet: &[u8]) -> Option<Echo<'_>> {
    let packet = Packet::parse(packet).ok()?;
    let transport = packet.transport()?;
    if transport.part != Part::Whole {
        return None;
    }
    let message = packet.bytes().get(transport.offset..)?;
    let (source, destination) = (packet.source(), packet.destination());
    let is_right = match (source, destination) {
        (IpAddr::V4(_), IpAddr::V4(_)) => checksum::is_right(message),
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let len = u32::try_from(message.len()).ok()?;
            let sum = checksum::pseudo_v6(source, destination, V6_PROTOCOL, len);
            sum.add_bytes(message).fold() == 0xffff
        }
        _ => false,
    };
    let (&[kind, code, _, _, id_high, id_low, seq_high, seq_low], data) =
        message.split_first_chunk::<HEADER_LEN>()?;
    let kind = match (transport.protocol, source.is_ipv4(), kind) {
        (V4_PROTOCOL, true, V4_REQUEST) | (V6_PROTOCOL, false, V6_REQUEST) => Kind::Request,
        (V4_PROTOCOL, true, V4_REPLY) | (V6_PROTOCOL, false, V6_REPLY) => Kind::Reply,
        _ => return None,
    };
    (is_right && code == 0).then_some(Echo {
        kind,
        source,
        destination,
        identifier: u16::from_be_bytes([id_high, id_low]),
        sequence: u16::from_be_bytes([seq_high, seq_low]),
        data,
    })
}

impl Echo<'_> {
    /// Puts this message into `packet` as a whole packet. `None`, and nothing useful in `packet`, if
    /// the addresses are not of one family or it is longer than a packet can be.
    pub(crate) fn emit(&self, packet: &mut Vec<u8>) -> Option<()> {
        packet.clear();
        let len = HEADER_LEN.checked_add(self.data.len())?;
        let (kind, sum) = match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                v4_header(source, destination, len, packet)?;
                let kind = match self.kind {
                    Kind::Request => V4_REQUEST,
                    Kind::Reply => V4_REPLY,
                };
                (kind, Sum::ZERO)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                v6_header(source, destination, len, packet)?;
                let kind = match self.kind {
                    Kind::Request => V6_REQUEST,
                    Kind::Reply => V6_REPLY,
                };
                let len = u32::try_from(len).ok()?;
                (
                    kind,
                    checksum::pseudo_v6(source, destination, V6_PROTOCOL, len),
                )
            }
            _ => return None,
        };
        let [id_high, id_low] = self.identifier.to_be_bytes();
        let [seq_high, seq_low] = self.sequence.to_be_bytes();
        let mut header = [kind, 0, 0, 0, id_high, id_low, seq_high, seq_low];
        // The header's length is even, so the data starts at an even place of the sum.
        let [high, low] = sum
            .add_bytes(&header)
            .add_bytes(self.data)
            .checksum()
            .to_be_bytes();
        header[2] = high;
        header[3] = low;
        packet.extend_from_slice(&header);
        packet.extend_from_slice(self.data);
        Some(())
    }
}

fn v4_header(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    len: usize,
    packet: &mut Vec<u8>,
) -> Option<()> {
    let [high, low] = u16::try_from(V4_HEADER_LEN.checked_add(len)?)
        .ok()?
        .to_be_bytes();
    // Version 4, header of 5 words; Don't Fragment.
    let mut header = [0x45, 0, high, low, 0, 0, 0x40, 0, TTL, V4_PROTOCOL, 0, 0];
    let addresses = [source.octets(), destination.octets()].concat();
    let [high, low] = Sum::ZERO
        .add_bytes(&header)
        .add_bytes(&addresses)
        .checksum()
        .to_be_bytes();
    header[10] = high;
    header[11] = low;
    packet.extend_from_slice(&header);
    packet.extend_from_slice(&addresses);
    Some(())
}

fn v6_header(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    len: usize,
    packet: &mut Vec<u8>,
) -> Option<()> {
    let [high, low] = u16::try_from(len).ok()?.to_be_bytes();
    packet.extend_from_slice(&[0x60, 0, 0, 0, high, low, V6_PROTOCOL, TTL]);
    packet.extend_from_slice(&source.octets());
    packet.extend_from_slice(&destination.octets());
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `ping -c1 -s4 -p 61626364 10.0.0.1` from 10.0.0.2, checksums worked out by hand: the sum of
    /// the header's words is 0x4500+0x0020+0x4000+0x4001+0x0a00+0x0002+0x0a00+0x0001 = 0xd924, and
    /// of the message's 0x0800+0x1234+0x0001+0x6162+0x6364 = 0xdefb.
    const V4: [u8; 32] = [
        0x45, 0x00, 0x00, 0x20, 0x00, 0x00, 0x40, 0x00, 0x40, 0x01, 0x26, 0xdb, 10, 0, 0, 2, 10, 0,
        0, 1, 0x08, 0x00, 0x21, 0x04, 0x12, 0x34, 0x00, 0x01, b'a', b'b', b'c', b'd',
    ];

    fn v4(kind: Kind) -> Echo<'static> {
        Echo {
            kind,
            source: IpAddr::from([10, 0, 0, 2]),
            destination: IpAddr::from([10, 0, 0, 1]),
            identifier: 0x1234,
            sequence: 1,
            data: b"abcd",
        }
    }

    #[test]
    fn the_ipv4_vector() {
        let mut packet = Vec::new();
        v4(Kind::Request).emit(&mut packet).unwrap();
        assert_eq!(packet, V4);
        assert_eq!(parse(&V4), Some(v4(Kind::Request)));
    }

    #[test]
    fn both_kinds_and_families_come_back_as_they_were() {
        let v6 = |kind| Echo {
            source: "fe80::2".parse().unwrap(),
            destination: "fe80::1".parse().unwrap(),
            data: b"odd",
            ..v4(kind)
        };
        let mut packet = Vec::new();
        for echo in [v4(Kind::Reply), v6(Kind::Request), v6(Kind::Reply)] {
            echo.emit(&mut packet).unwrap();
            assert_eq!(parse(&packet), Some(echo));
        }
    }

    #[test]
    fn every_damage_is_seen() {
        for bit in 20 * 8..V4.len() * 8 {
            let mut packet = V4;
            packet[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(parse(&packet), None, "bit {bit}");
        }
        for len in 0..V4.len() {
            assert_eq!(parse(&V4[..len]), None, "{len} bytes");
        }
    }

    #[test]
    fn families_do_not_mix() {
        let mixed = Echo {
            destination: "fe80::1".parse().unwrap(),
            ..v4(Kind::Request)
        };
        assert_eq!(mixed.emit(&mut Vec::new()), None);
        let long = vec![0; 65_536];
        let long = Echo {
            data: &long,
            ..v4(Kind::Request)
        };
        assert_eq!(long.emit(&mut Vec::new()), None);
    }
}
