//! The answer to a packet that does not fit: fragmentation needed (RFC 792, RFC 1191 §4) and
//! Packet Too Big (RFC 4443 §3.2).
//!
//! ```text
//!  IPv4  |IP 20|3|4|checksum|0 0|next-hop MTU|  the packet's beginning, 576 bytes in all
//!  IPv6  |IP 40|2|0|checksum|       MTU      |  the packet's beginning, 1280 bytes in all
//! ```
//!
//! Some packets get no answer whatever happens, or two routers could talk for ever and one forged
//! packet could wake a crowd: ICMP errors, later fragments, packets from or to a group or nobody
//! (RFC 1122 §3.2.2, RFC 4443 §2.4 e). How many answers a second are sent is the caller's concern.

use core::net::{Ipv4Addr, Ipv6Addr};

use super::checksum;
use super::packet::{ICMP, ICMPV6, Packet, Part, V4, V6};
use crate::wire::{TooShort, Writer};

// RFC 1812 §4.3.2.3 and RFC 8200 §5 with RFC 4443 §2.4 c.
const V4_REPLY_LEN_MAX: usize = 576;
const V6_REPLY_LEN_MAX: usize = 1280;
/// Room that always suffices for an answer.
pub const REPLY_LEN_MAX: usize = V6_REPLY_LEN_MAX;

// RFC 792, RFC 4443 §3.2, RFC 4861 §4.5.
const UNREACHABLE: u8 = 3;
const FRAGMENTATION_NEEDED: u8 = 4;
const PACKET_TOO_BIG: u8 = 2;
const FIRST_INFORMATIONAL: u8 = 128;
const REDIRECT_V6: u8 = 137;

const TTL: u8 = 64;
/// RFC 1812 §4.3.2.5: precedence 6, internetwork control.
const TOS: u8 = 0xc0;

/// The addresses the gateway's own ICMP comes from; without one of a family, that family's
/// packets go unanswered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gateway {
    /// The gateway's inside IPv4 address.
    pub v4: Option<Ipv4Addr>,
    /// The gateway's inside IPv6 address, one that the packet's sender can be reached from.
    pub v6: Option<Ipv6Addr>,
}

/// Writes to `out` the answer that tells the sender of `packet` to send no more than `mtu` bytes,
/// and returns its length; it goes back to where `packet` came from. `None`: no answer is owed
/// (see the module), or none can be built in less than [`REPLY_LEN_MAX`] of room.
///
/// An IPv4 packet without DF is not answered: split it instead.
#[must_use]
pub fn too_big(packet: &[u8], mtu: u16, gateway: &Gateway, out: &mut [u8]) -> Option<usize> {
    match Packet::parse(packet).ok()? {
        Packet::V4(packet) => {
            let source = gateway.v4.filter(|_| deserves_answer_v4(&packet))?;
            write_v4(&packet, mtu, source, out).ok()
        }
        Packet::V6(packet) => {
            let source = gateway.v6.filter(|_| deserves_answer_v6(&packet))?;
            write_v6(&packet, mtu, source, out).ok()
        }
    }
}

fn deserves_answer_v4(packet: &V4<'_>) -> bool {
    // RFC 1122 §3.2.2: only a single host may be told, about what was sent to a single host.
    let is_unicast = |address: Ipv4Addr| {
        let first = address.octets()[0];
        first != 0 && first != 127 && first < 224
    };
    let is_error = packet.protocol() == ICMP
        // A beginning too short to show its type may be an error as well.
        && packet.payload().first().is_none_or(|kind| matches!(kind, 3..=5 | 11 | 12));
    packet.dont_fragment()
        && packet.fragment_offset() == 0
        && is_unicast(packet.source())
        && is_unicast(packet.destination())
        && !is_error
}

fn deserves_answer_v6(packet: &V6<'_>) -> bool {
    let source = packet.source();
    // A chain that cannot be walked may hide an error.
    let Some(transport) = packet.transport() else {
        return false;
    };
    let is_error = transport.protocol == ICMPV6
        && packet
            .bytes()
            .get(transport.offset)
            .is_none_or(|&kind| kind < FIRST_INFORMATIONAL || kind == REDIRECT_V6);
    transport.part != Part::Later
        && !source.is_unspecified()
        && !source.is_loopback()
        && !source.is_multicast()
        && !packet.destination().is_multicast()
        && !is_error
}

fn write_v4(
    packet: &V4<'_>,
    mtu: u16,
    source: Ipv4Addr,
    out: &mut [u8],
) -> Result<usize, TooShort> {
    const HEADERS_LEN: usize = 28;
    let quoted_len = packet.bytes().len().min(V4_REPLY_LEN_MAX - HEADERS_LEN);
    let quoted = packet.bytes().get(..quoted_len).unwrap_or_default();
    let len = quoted.len().saturating_add(HEADERS_LEN);
    let mut writer = Writer::new(out);
    writer.put(&[0x45, TOS])?;
    writer.u16(u16::try_from(len).unwrap_or(u16::MAX))?;
    // RFC 6864 §4.1: an atomic datagram (DF, no fragment) needs no identification.
    writer.put(&[0, 0, 0x40, 0, TTL, ICMP, 0, 0])?;
    writer.put(&source.octets())?;
    writer.put(&packet.source().octets())?;
    let header_checksum = checksum::of(writer.written());
    writer.set_u16(10, header_checksum)?;
    writer.put(&[UNREACHABLE, FRAGMENTATION_NEEDED, 0, 0, 0, 0])?;
    writer.u16(mtu)?;
    writer.put(quoted)?;
    let icmp_checksum = checksum::of(writer.written().get(20..).unwrap_or_default());
    writer.set_u16(22, icmp_checksum)?;
    Ok(len)
}

fn write_v6(
    packet: &V6<'_>,
    mtu: u16,
    source: Ipv6Addr,
    out: &mut [u8],
) -> Result<usize, TooShort> {
    const HEADERS_LEN: usize = 48;
    let quoted_len = packet.bytes().len().min(V6_REPLY_LEN_MAX - HEADERS_LEN);
    let quoted = packet.bytes().get(..quoted_len).unwrap_or_default();
    let payload_len = u16::try_from(quoted.len().saturating_add(8)).unwrap_or(u16::MAX);
    let mut writer = Writer::new(out);
    writer.put(&[0x60, 0, 0, 0])?;
    writer.u16(payload_len)?;
    writer.put(&[ICMPV6, TTL])?;
    writer.put(&source.octets())?;
    writer.put(&packet.source().octets())?;
    writer.put(&[PACKET_TOO_BIG, 0, 0, 0, 0, 0])?;
    writer.u16(mtu)?;
    writer.put(quoted)?;
    let sum = checksum::pseudo_v6(source, packet.source(), ICMPV6, u32::from(payload_len))
        .add_bytes(writer.written().get(40..).unwrap_or_default());
    writer.set_u16(42, sum.checksum())?;
    Ok(writer.len())
}
