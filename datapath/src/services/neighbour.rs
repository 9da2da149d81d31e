//! Neighbour Discovery on a link of two (RFC 4861), and echo (RFC 4443 §4).
//!
//! ```text
//!  |135|0|checksum|reserved 4|target 16|options …    Neighbour Solicitation
//!  |136|0|checksum|R S O …   |target 16|             Neighbour Advertisement
//! ```
//!
//! PPP needs no address resolution, but clients check with it that the gateway is alive (§7.3). A
//! solicitation from `::` is a client detecting duplicates of its own address: it is left
//! unanswered, unless the address is the gateway's.

use core::net::Ipv6Addr;

use super::{ALL_NODES, Discard, emit};
use crate::ip::checksum;
use crate::ip::packet::{ICMPV6, V6};
use crate::wire::TooShort;

// RFC 4443 §4, RFC 4861 §4.
pub(super) const ECHO_REQUEST: u8 = 128;
const ECHO_REPLY: u8 = 129;
pub(super) const ROUTER_SOLICITATION: u8 = 133;
pub(super) const ROUTER_ADVERTISEMENT: u8 = 134;
pub(super) const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
pub(super) const REDIRECT: u8 = 137;
/// Proves that no router has forwarded the packet (RFC 4861 §11.2).
pub(super) const HOP_LIMIT: u8 = 255;
pub(super) const CHECKSUM_AT: usize = 2;
pub(super) const ROUTER_SOLICITATION_LEN: usize = 8;
const NEIGHBOUR_SOLICITATION_LEN: usize = 24;
const ECHO_HEADER_LEN: usize = 8;
const SOURCE_LINK_LAYER_ADDRESS: u8 = 1;
const FLAG_ROUTER: u8 = 0x80;
const FLAG_SOLICITED: u8 = 0x40;

/// To whom a Neighbour Advertisement goes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asked {
    /// To the one that asked.
    By(Ipv6Addr),
    /// To all: somebody without an address wanted the gateway's.
    Claimed,
}

/// Checks what RFC 4861 §6.1.1 and §7.1.1 ask of both solicitations, whose part before the options
/// has `fixed_len` bytes.
pub(super) fn check_solicitation(packet: &V6<'_>, fixed_len: usize) -> Result<(), Discard> {
    let message = packet.payload();
    if packet.hop_limit() != HOP_LIMIT
        || message.get(1) != Some(&0)
        || message.len() < fixed_len
        || !checksum_is_right(packet)
    {
        return Err(Discard::Malformed);
    }
    let mut options = message.get(fixed_len..).unwrap_or_default();
    while let [kind, rest @ ..] = options {
        let len = usize::from(rest.first().copied().unwrap_or(0)) << 3;
        if len == 0 || len > options.len() {
            return Err(Discard::Malformed);
        }
        if *kind == SOURCE_LINK_LAYER_ADDRESS && packet.source().is_unspecified() {
            return Err(Discard::Malformed);
        }
        options = options.get(len..).unwrap_or_default();
    }
    Ok(())
}

/// Parses a Neighbour Solicitation for `gateway` (RFC 4861 §7.1.1, §7.2.3).
pub(super) fn parse_solicitation(packet: &V6<'_>, gateway: Ipv6Addr) -> Result<Asked, Discard> {
    check_solicitation(packet, NEIGHBOUR_SOLICITATION_LEN)?;
    let target = packet.payload().get(8..24).and_then(<[u8]>::first_chunk);
    let target = Ipv6Addr::from(*target.ok_or(Discard::Malformed)?);
    if target.is_multicast() {
        return Err(Discard::Malformed);
    }
    let source = packet.source();
    match (source.is_unspecified(), target == gateway) {
        (true, _) if !is_solicited_node(packet.destination()) => Err(Discard::Malformed),
        (true, true) => Ok(Asked::Claimed),
        (true, false) => Err(Discard::AddressDetection),
        (false, true) if source != gateway => Ok(Asked::By(source)),
        // Nobody else is on this link.
        (false, _) => Err(Discard::Unserved),
    }
}

/// Writes the advertisement of `gateway` into `room` and returns the packet.
pub(super) fn emit_advertisement(
    asked: Asked,
    gateway: Ipv6Addr,
    room: &mut [u8],
) -> Result<&[u8], TooShort> {
    // Without R, a client would forget its default router (RFC 4861 §7.2.5).
    let (to, flags) = match asked {
        Asked::By(source) => (source, FLAG_ROUTER | FLAG_SOLICITED),
        Asked::Claimed => (Ipv6Addr::from(ALL_NODES), FLAG_ROUTER),
    };
    let mut writer = emit::begin_v6(room, ICMPV6, HOP_LIMIT, gateway, to)?;
    writer.put(&[NEIGHBOUR_ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0])?;
    writer.put(&gateway.octets())?;
    emit::finish_v6(writer, ICMPV6, CHECKSUM_AT, gateway, to)
}

/// Checks an Echo Request and returns whom to answer.
pub(super) fn check_echo(packet: &V6<'_>) -> Result<Ipv6Addr, Discard> {
    let source = packet.source();
    let is_whole = packet.payload().len() >= ECHO_HEADER_LEN
        && packet.payload().get(1) == Some(&0)
        && checksum_is_right(packet);
    let is_somebody =
        !source.is_unspecified() && !source.is_multicast() && source != packet.destination();
    if is_whole && is_somebody {
        Ok(source)
    } else {
        Err(Discard::Malformed)
    }
}

/// Writes the Echo Reply into `room` and returns the packet.
pub(super) fn emit_echo_reply<'a>(
    packet: &V6<'_>,
    gateway: Ipv6Addr,
    to: Ipv6Addr,
    room: &'a mut [u8],
) -> Result<&'a [u8], TooShort> {
    let body = packet.payload().get(4..).unwrap_or_default();
    let mut writer = emit::begin_v6(room, ICMPV6, 64, gateway, to)?;
    writer.put(&[ECHO_REPLY, 0, 0, 0])?;
    writer.put(body)?;
    emit::finish_v6(writer, ICMPV6, CHECKSUM_AT, gateway, to)
}

fn checksum_is_right(packet: &V6<'_>) -> bool {
    let message = packet.payload();
    u32::try_from(message.len()).is_ok_and(|len| {
        checksum::pseudo_v6(packet.source(), packet.destination(), ICMPV6, len)
            .add_bytes(message)
            .fold()
            == 0xffff
    })
}

/// `ff02::1:ff00:0/104` (RFC 4291 §2.7.1).
fn is_solicited_node(address: Ipv6Addr) -> bool {
    u128::from(address) >> 24 == (0xff02 << 88) | 0x1ff
}
