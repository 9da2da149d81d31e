//! Cuts a superpacket into the packets it stands for, each written once, where it is to be.
//!
//! ```text
//!  superpacket   | headers | part 1 | part 2 | part 3 |
//!  room          …| headers' | part 1 |…| headers'' | part 2 |…
//! ```
//!
//! Every segment gets the superpacket's headers, with what differs put right: lengths, IPv4
//! identification (one up each) and checksums; for TCP the sequence number, FIN and PSH on the last
//! segment only, CWR on the first only (RFC 3168 §6.1.2). Payload is copied and summed in one pass.
//! Sums over what is the same in all segments are made once.

use super::super::checksum::{self, Sum};
use super::super::packet::{Packet, Part, TCP, Transport, UDP, V4_HEADER_LEN, V6_HEADER_LEN};
use super::{
    BadOffload, CWR, FIN, Gso, GsoKind, PSH, TCP_CHECKSUM_AT, TCP_HEADER_LEN, UDP_CHECKSUM_AT,
    UDP_HEADER_LEN, set, u16_at, u32_at,
};

/// The longest stack of headers that is cut under: IPv6 with extensions and a full TCP header.
const HEADERS_LEN_MAX: usize = 256;

/// Why a superpacket is not cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Uncut {
    /// It contradicts itself: drop it.
    #[error(transparent)]
    Bad(#[from] BadOffload),
    /// Its datagrams are longer than the MTU, and datagrams cannot be cut. Cut it for an MTU of
    /// 65,535 and treat each as any packet that does not fit (RFC 1191, RFC 8200 §5).
    #[error("the datagrams of the superpacket exceed the MTU")]
    TooBig,
}

/// A superpacket under the knife: what of it is still to be written.
#[derive(Clone, Debug)]
pub struct Cut<'a> {
    headers: &'a [u8],
    /// What no segment has been made of yet.
    payload: &'a [u8],
    segment_len: usize,
    transport_at: usize,
    is_v4: bool,
    is_tcp: bool,
    is_first: bool,
    /// IPv4 identification of the next segment.
    identification: u16,
    /// TCP sequence number of the next segment.
    sequence: u32,
    flags: u8,
    /// Of the IPv4 header without what differs.
    ip_sum: Sum,
    /// Of pseudo-header and transport header without what differs.
    transport_sum: Sum,
}

impl<'a> Cut<'a> {
    /// Starts cutting `packet` into segments of at most `mtu` bytes, headers included, and of the
    /// length that `gso` says. TCP segments are made smaller where `mtu` asks for it.
    pub fn new(gso: Gso, packet: &'a [u8], mtu: u16) -> Result<Self, Uncut> {
        let packet = Packet::parse(packet).map_err(|_| BadOffload::Malformed)?;
        let transport = packet.transport().ok_or(BadOffload::Malformed)?;
        let is_v4 = matches!(packet, Packet::V4(_));
        let is_tcp = transport.protocol == TCP;
        let is_as_told = match gso.kind {
            GsoKind::TcpV4 => is_tcp && is_v4,
            GsoKind::TcpV6 => is_tcp && !is_v4,
            GsoKind::Udp => transport.protocol == UDP,
        };
        if !is_as_told || transport.part != Part::Whole || transport.is_routed {
            return Err(BadOffload::Malformed.into());
        }
        let bytes = packet.bytes();
        let (headers, payload) = headers_len(bytes, transport, is_tcp)
            .and_then(|len| bytes.split_at_checked(len))
            .filter(|(headers, payload)| {
                headers.len() <= HEADERS_LEN_MAX && !payload.is_empty() && gso.segment_len != 0
            })
            .ok_or(BadOffload::Malformed)?;
        let room = usize::from(mtu)
            .checked_sub(headers.len())
            .filter(|&room| room > 0)
            .ok_or(Uncut::TooBig)?;
        let segment_len = usize::from(gso.segment_len).min(payload.len());
        if segment_len > room && !is_tcp {
            return Err(Uncut::TooBig);
        }
        let cut = Self {
            headers,
            payload,
            segment_len: segment_len.min(room),
            transport_at: transport.offset,
            is_v4,
            is_tcp,
            is_first: true,
            identification: 0,
            sequence: 0,
            flags: 0,
            ip_sum: Sum::ZERO,
            transport_sum: Sum::ZERO,
        };
        Ok(cut.with_sums(&packet).ok_or(BadOffload::Malformed)?)
    }

    /// Reads what differs between segments and sums up the rest.
    fn with_sums(mut self, packet: &Packet<'_>) -> Option<Self> {
        let at = self.transport_at;
        let mut room = [0; HEADERS_LEN_MAX];
        let headers = room.get_mut(..self.headers.len())?;
        headers.copy_from_slice(self.headers);
        if self.is_v4 {
            self.identification = u16_at(headers, 4)?;
            set(headers, 2, [0; 4])?;
            set(headers, 10, [0; 2])?;
            self.ip_sum = Sum::ZERO.add_bytes(headers.get(..at)?);
        }
        if self.is_tcp {
            self.sequence = u32_at(headers, at.checked_add(4)?)?;
            self.flags = *headers.get(at.checked_add(13)?)?;
            set(headers, at.checked_add(4)?, [0; 4])?;
            set(headers, at.checked_add(13)?, [0])?;
            set(headers, at.checked_add(TCP_CHECKSUM_AT)?, [0; 2])?;
        } else {
            set(headers, at.checked_add(4)?, [0; 4])?;
        }
        let pseudo = match packet {
            Packet::V4(packet) => {
                checksum::pseudo_v4(packet.source(), packet.destination(), self.protocol(), 0)
            }
            Packet::V6(packet) => {
                checksum::pseudo_v6(packet.source(), packet.destination(), self.protocol(), 0)
            }
        };
        self.transport_sum = pseudo.add_bytes(headers.get(at..)?);
        Some(self)
    }

    const fn protocol(&self) -> u8 {
        if self.is_tcp { TCP } else { UDP }
    }

    /// How many segments are left.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.payload.len().div_ceil(self.segment_len)
    }

    /// The length of the next segment's packet; `None` when all are written.
    #[must_use]
    pub fn next_len(&self) -> Option<usize> {
        if self.payload.is_empty() {
            return None;
        }
        let part_len = self.segment_len.min(self.payload.len());
        self.headers.len().checked_add(part_len)
    }

    /// Writes the next segment's packet to the start of `room` and returns its length. `None` when
    /// all are written, or if `room` is shorter than [`Cut::next_len`]; then nothing has changed.
    pub fn write_next(&mut self, room: &mut [u8]) -> Option<usize> {
        self.write_next_with(room, checksum::copy_and_sum)
    }

    /// As [`Cut::write_next`], with another way to do what [`checksum::copy_and_sum`] does.
    pub fn write_next_with(
        &mut self,
        room: &mut [u8],
        copy_and_sum: impl FnOnce(&[u8], &mut [u8]) -> Sum,
    ) -> Option<usize> {
        let len = self.next_len()?;
        let (headers, part_room) = room
            .get_mut(..len)?
            .split_at_mut_checked(self.headers.len())?;
        let (part, rest) = self.payload.split_at_checked(part_room.len())?;
        headers.copy_from_slice(self.headers);
        let payload_sum = copy_and_sum(part, part_room);
        self.finish_ip(headers, len)?;
        let transport_len = u16::try_from(len.checked_sub(self.transport_at)?).ok()?;
        let sum = self
            .transport_sum
            .add_sum(payload_sum)
            .add_u16(transport_len);
        if self.is_tcp {
            self.finish_tcp(headers, sum, rest.is_empty())?;
            // A segment is shorter than 65,535 bytes.
            let part_len = u32::try_from(part.len()).ok()?;
            self.sequence = self.sequence.wrapping_add(part_len);
        } else {
            let at = self.transport_at;
            set(headers, at.checked_add(4)?, transport_len.to_be_bytes())?;
            let value = checksum::udp(sum.add_u16(transport_len));
            set(
                headers,
                at.checked_add(UDP_CHECKSUM_AT)?,
                value.to_be_bytes(),
            )?;
        }
        self.identification = self.identification.wrapping_add(1);
        self.is_first = false;
        self.payload = rest;
        Some(len)
    }

    fn finish_ip(&self, headers: &mut [u8], len: usize) -> Option<()> {
        if self.is_v4 {
            let len = u16::try_from(len).ok()?;
            set(headers, 2, len.to_be_bytes())?;
            set(headers, 4, self.identification.to_be_bytes())?;
            let sum = self.ip_sum.add_u16(len).add_u16(self.identification);
            set(headers, 10, sum.checksum().to_be_bytes())
        } else {
            let len = u16::try_from(len.checked_sub(V6_HEADER_LEN)?).ok()?;
            set(headers, 4, len.to_be_bytes())
        }
    }

    fn finish_tcp(&self, headers: &mut [u8], sum: Sum, is_last: bool) -> Option<()> {
        let at = self.transport_at;
        let mut flags = self.flags;
        if !is_last {
            flags &= !(FIN | PSH);
        }
        if !self.is_first {
            flags &= !CWR;
        }
        let [s0, s1, s2, s3] = self.sequence.to_be_bytes();
        let value = sum
            .add_u16(u16::from_be_bytes([s0, s1]))
            .add_u16(u16::from_be_bytes([s2, s3]))
            .add_u16(u16::from(flags))
            .checksum();
        set(headers, at.checked_add(4)?, [s0, s1, s2, s3])?;
        set(headers, at.checked_add(13)?, [flags])?;
        set(
            headers,
            at.checked_add(TCP_CHECKSUM_AT)?,
            value.to_be_bytes(),
        )
    }
}

/// The length of all headers, by the packet's own account; at least those that are always there.
fn headers_len(packet: &[u8], transport: Transport, is_tcp: bool) -> Option<usize> {
    let len = if is_tcp {
        let offset = packet.get(transport.offset.checked_add(12)?)? >> 4;
        usize::from(offset) << 2
    } else {
        UDP_HEADER_LEN
    };
    let is_whole = !is_tcp || len >= TCP_HEADER_LEN;
    debug_assert!(
        transport.offset >= V4_HEADER_LEN,
        "a view has a whole header"
    );
    transport.offset.checked_add(len).filter(|_| is_whole)
}
