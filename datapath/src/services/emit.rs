//! IP and UDP headers around an answer; lengths and checksums are filled in at the end.

use core::net::{Ipv4Addr, Ipv6Addr};

use crate::ip::checksum;
use crate::ip::packet::{UDP, V4_HEADER_LEN, V6_HEADER_LEN};
use crate::wire::{TooShort, Writer};

const TTL: u8 = 64;
const UDP_HEADER_LEN: usize = 8;
const UDP_CHECKSUM_AT: usize = 6;

/// Starts an IPv4 UDP datagram in `room`; its payload is to follow.
pub(super) fn begin_udp_v4(
    room: &mut [u8],
    (source, source_port): (Ipv4Addr, u16),
    (destination, destination_port): (Ipv4Addr, u16),
) -> Result<Writer<'_>, TooShort> {
    let mut writer = Writer::new(room);
    // RFC 6864 §4.1: DF and no fragment, so no identification.
    writer.put(&[0x45, 0, 0, 0, 0, 0, 0x40, 0, TTL, UDP, 0, 0])?;
    writer.put(&source.octets())?;
    writer.put(&destination.octets())?;
    writer.u16(source_port)?;
    writer.u16(destination_port)?;
    writer.put(&[0; 4])?;
    Ok(writer)
}

/// Fills in what [`begin_udp_v4`] left open and returns the packet.
pub(super) fn finish_udp_v4<'a>(
    mut writer: Writer<'a>,
    source: Ipv4Addr,
    destination: Ipv4Addr,
) -> Result<&'a [u8], TooShort> {
    let len = len_u16(writer.len())?;
    let udp_len = len_u16(writer.len().saturating_sub(V4_HEADER_LEN))?;
    writer.set_u16(2, len)?;
    writer.set_u16(V4_HEADER_LEN.saturating_add(4), udp_len)?;
    let header = writer.written().get(..V4_HEADER_LEN).unwrap_or_default();
    let header_checksum = checksum::of(header);
    writer.set_u16(10, header_checksum)?;
    let datagram = writer.written().get(V4_HEADER_LEN..).unwrap_or_default();
    let sum = checksum::pseudo_v4(source, destination, UDP, udp_len).add_bytes(datagram);
    writer.set_u16(
        V4_HEADER_LEN.saturating_add(UDP_CHECKSUM_AT),
        checksum::udp(sum),
    )?;
    Ok(writer.finish())
}

/// Starts an IPv6 packet of `protocol` in `room`; its payload is to follow.
pub(super) fn begin_v6(
    room: &mut [u8],
    protocol: u8,
    hop_limit: u8,
    source: Ipv6Addr,
    destination: Ipv6Addr,
) -> Result<Writer<'_>, TooShort> {
    let mut writer = Writer::new(room);
    writer.put(&[0x60, 0, 0, 0, 0, 0, protocol, hop_limit])?;
    writer.put(&source.octets())?;
    writer.put(&destination.octets())?;
    Ok(writer)
}

/// Fills in the payload length and, `checksum_at` bytes into the payload, the checksum, and returns
/// the packet.
pub(super) fn finish_v6<'a>(
    mut writer: Writer<'a>,
    protocol: u8,
    checksum_at: usize,
    source: Ipv6Addr,
    destination: Ipv6Addr,
) -> Result<&'a [u8], TooShort> {
    let len = len_u16(writer.len().saturating_sub(V6_HEADER_LEN))?;
    writer.set_u16(4, len)?;
    let payload = writer.written().get(V6_HEADER_LEN..).unwrap_or_default();
    let sum = checksum::pseudo_v6(source, destination, protocol, u32::from(len)).add_bytes(payload);
    let value = if protocol == UDP {
        checksum::udp(sum)
    } else {
        sum.checksum()
    };
    writer.set_u16(V6_HEADER_LEN.saturating_add(checksum_at), value)?;
    Ok(writer.finish())
}

/// Writes a UDP header into a packet from [`begin_v6`], to be finished by [`finish_udp_v6`].
pub(super) fn put_udp_header(
    writer: &mut Writer<'_>,
    source_port: u16,
    destination_port: u16,
) -> Result<(), TooShort> {
    writer.u16(source_port)?;
    writer.u16(destination_port)?;
    writer.put(&[0; 4])
}

/// As [`finish_v6`], for UDP.
pub(super) fn finish_udp_v6<'a>(
    mut writer: Writer<'a>,
    source: Ipv6Addr,
    destination: Ipv6Addr,
) -> Result<&'a [u8], TooShort> {
    let len = len_u16(writer.len().saturating_sub(V6_HEADER_LEN))?;
    writer.set_u16(V6_HEADER_LEN.saturating_add(4), len)?;
    finish_v6(writer, UDP, UDP_CHECKSUM_AT, source, destination)
}

/// The payload of a UDP datagram whose length and checksum are right; `pseudo` is the sum of its
/// pseudo-header. `may_lack` says whether a zero checksum means that there is none (IPv4 only,
/// RFC 768; RFC 8200 §8.1).
pub(super) fn udp_payload(datagram: &[u8], pseudo: checksum::Sum, may_lack: bool) -> Option<&[u8]> {
    let (header, _) = datagram.split_first_chunk::<UDP_HEADER_LEN>()?;
    let len = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let lacks = header[6] == 0 && header[7] == 0;
    let is_right = if lacks {
        may_lack
    } else {
        pseudo.add_bytes(datagram).fold() == 0xffff
    };
    (len == datagram.len() && is_right).then_some(datagram.get(UDP_HEADER_LEN..)?)
}

fn len_u16(len: usize) -> Result<u16, TooShort> {
    u16::try_from(len).map_err(|_| TooShort {
        wanted: len,
        left: usize::from(u16::MAX),
    })
}
