//! Merges packets of one flow that follow each other into superpackets (GRO; for UDP, USO).
//!
//! ```text
//!  packets   | h1 | p1 | h2 | p2 | h3 | p3 |     of one flow, in order
//!  aggregate | vnet header | h1' | p1 | p2 | p3 |
//! ```
//!
//! A write of 48 packets as one costs a twentieth of 48 writes. It must not show on the inside:
//! whatever cuts the aggregate, kernel or network card, must make the very packets that went in.
//! So a packet joins only if its headers are those of the first, but for what cutting puts right:
//!
//! - checksums exactly what would be computed (a wrong one must not be made right);
//! - IPv4: no options, no fragment, identification one up; IPv6: no extension headers;
//! - TCP: sequence number follows, flags ACK (and ECE alike); PSH or FIN end the aggregate, any
//!   other flag keeps out; all options equal, time stamps too;
//! - UDP: a checksum, and a length that agrees with IP's;
//! - payload as long as the first one's; a shorter one ends the aggregate;
//! - at most [`SEGMENTS_MAX`] segments and 65,535 bytes.
//!
//! One aggregate a flow is open at most, and [`FLOWS`] in all: each flow has one place, and whoever
//! comes there later sends off the one before. What cannot join is handed back to be written at
//! once, after the aggregate of its flow, so a flow keeps its order. Nothing is held for longer
//! than its owner's turn, at whose end it calls [`Merge::flush`].
//!
//! Memory is [`FLOWS`] times 64 KB, taken once.

use super::super::checksum::{self, CopyAndSum, Sum};
use super::super::packet::{
    Packet, TCP, UDP, V4, V4_HEADER_LEN, V6, V6_HEADER_LEN, is_v6_extension,
};
use super::{
    ACK, ECE, FIN, Gso, GsoKind, PSH, PartialChecksum, TCP_CHECKSUM_AT, TCP_HEADER_LEN,
    UDP_CHECKSUM_AT, UDP_HEADER_LEN, VNET_HEADER_LEN, VnetHeader, set, u16_at, u32_at,
};

/// Aggregates that may be open at a time.
pub const FLOWS: usize = 8;
/// Leaves of a 32-bit hash the bits that number the slots.
const SLOT_SHIFT: u32 = u32::BITS - FLOWS.ilog2();
/// Segments of an aggregate; older kernels refuse UDP superpackets of more.
pub const SEGMENTS_MAX: usize = 64;
/// What the length fields of IP can say.
const PACKET_LEN_MAX: usize = 65_535;
/// A payload up to this does not open an aggregate: it is speech, a game, a query, a key stroke, and
/// what it could save is less than what its sender gains by not waiting.
const SMALL_PAYLOAD_LEN_MAX: usize = 256;

// Ones where the headers of all segments are equal; zeros for lengths, identification, checksums,
// sequence number, PSH and FIN. A line each for the IP header, its addresses and the transport's.
const ALL: u32 = u32::MAX;
#[rustfmt::skip]
const TCP_V4_MASK: [u32; 10] = [
    0xffff_0000, 0x0000_ffff, 0xffff_0000,
    ALL, ALL,
    ALL, 0, ALL, 0xfff6_ffff, 0x0000_ffff,
];
#[rustfmt::skip]
const UDP_V4_MASK: [u32; 7] = [
    0xffff_0000, 0x0000_ffff, 0xffff_0000,
    ALL, ALL,
    ALL, 0,
];
#[rustfmt::skip]
const TCP_V6_MASK: [u32; 15] = [
    ALL, 0x0000_ffff,
    ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL,
    ALL, 0, ALL, 0xfff6_ffff, 0x0000_ffff,
];
#[rustfmt::skip]
const UDP_V6_MASK: [u32; 12] = [
    ALL, 0x0000_ffff,
    ALL, ALL, ALL, ALL, ALL, ALL, ALL, ALL,
    ALL, 0,
];

/// Which superpackets the TUN takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offloads {
    /// TCP over IPv4 and IPv6 (TSO).
    pub tcp: bool,
    /// UDP (USO, Linux 6.2).
    pub udp: bool,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It was copied and will come out as part of an aggregate.
    Kept,
    /// It is to be written as it is, now, behind a [`VnetHeader`] of all zeros.
    Direct,
}

/// One or more packets to be written as one.
#[derive(Clone, Copy, Debug)]
pub struct Aggregate<'a> {
    /// The vnet header and the packet.
    pub bytes: &'a [u8],
    /// How many packets it stands for; 1: it is that packet, unchanged.
    pub segments: usize,
    /// Whose they are.
    pub session: u32,
}

/// The open aggregates of one shard.
#[derive(Debug)]
pub struct Merge {
    slots: [Slot; FLOWS],
    offloads: Offloads,
    copy_and_sum: CopyAndSum,
}

/// The place of the flows whose hash is its index.
#[derive(Debug)]
struct Slot {
    /// Vnet header, then packet.
    buffer: Box<[u8]>,
    open: Option<Open>,
}

/// An aggregate that can grow.
#[derive(Clone, Copy, Debug)]
struct Open {
    session: u32,
    shape: Shape,
    /// Payload of the first segment.
    segment_len: usize,
    /// The packet so far.
    len: usize,
    segments: usize,
    next_sequence: u32,
    next_identification: u16,
}

/// Where things are in a packet that may join an aggregate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    is_v4: bool,
    is_tcp: bool,
    transport_at: usize,
    headers_len: usize,
}

/// A packet that may join or open an aggregate.
#[derive(Clone, Copy, Debug)]
struct Candidate<'a> {
    bytes: &'a [u8],
    shape: Shape,
    payload: &'a [u8],
    /// 0 for UDP.
    flags: u8,
    sequence: u32,
    identification: u16,
}

/// What a packet can do.
#[derive(Clone, Copy, Debug)]
enum Class<'a> {
    Candidate(Candidate<'a>),
    /// It belongs to a flow that may be open, but joins nothing.
    Loner {
        bytes: &'a [u8],
        shape: Shape,
    },
    /// It may belong to any flow of its session.
    Obscure,
    /// It belongs to no flow of the kind that is merged.
    Other,
}

impl Merge {
    /// With room for [`FLOWS`] aggregates and nothing open.
    #[must_use]
    pub fn new(offloads: Offloads) -> Self {
        let slot = || Slot {
            buffer: vec![0; VNET_HEADER_LEN + PACKET_LEN_MAX].into_boxed_slice(),
            open: None,
        };
        Self {
            slots: core::array::from_fn(|_| slot()),
            offloads,
            copy_and_sum: checksum::copy_and_sum,
        }
    }

    /// With another way to do what [`checksum::copy_and_sum`] does.
    #[must_use]
    pub fn with_copy_and_sum(self, copy_and_sum: CopyAndSum) -> Self {
        Self {
            copy_and_sum,
            ..self
        }
    }

    /// Takes an uplink packet of `session` that is ready to be written; `out` gets what is complete.
    /// An answer of [`Pushed::Direct`] is to be followed by the packet's own write.
    pub fn push(
        &mut self,
        session: u32,
        packet: &[u8],
        out: &mut impl FnMut(Aggregate<'_>),
    ) -> Pushed {
        match self.classify(packet) {
            Class::Candidate(candidate) => {
                let copy_and_sum = self.copy_and_sum;
                let slot = self.slot(session, candidate.bytes, candidate.shape);
                slot.map_or(Pushed::Direct, |slot| {
                    slot.take(session, &candidate, copy_and_sum, out)
                })
            }
            Class::Loner { bytes, shape } => {
                if let Some(slot) = self.slot(session, bytes, shape)
                    && slot.is_of_flow(session, bytes, shape)
                {
                    slot.emit(out);
                }
                Pushed::Direct
            }
            Class::Obscure => {
                self.flush_session(session, out);
                Pushed::Direct
            }
            Class::Other => Pushed::Direct,
        }
    }

    /// Gives all that is open to `out`: at the end of a turn.
    pub fn flush(&mut self, out: &mut impl FnMut(Aggregate<'_>)) {
        for slot in &mut self.slots {
            slot.emit(out);
        }
    }

    /// Gives all that is open of `session` to `out`: before the session ends or moves.
    pub fn flush_session(&mut self, session: u32, out: &mut impl FnMut(Aggregate<'_>)) {
        for slot in &mut self.slots {
            if slot
                .open
                .as_ref()
                .is_some_and(|open| open.session == session)
            {
                slot.emit(out);
            }
        }
    }

    fn slot(&mut self, session: u32, bytes: &[u8], shape: Shape) -> Option<&mut Slot> {
        let at = shape.transport_at;
        // The last words of both addresses, then both ports.
        let source_at = if shape.is_v4 { 12 } else { 20 };
        let destination_at = at.checked_sub(4)?;
        let mut hash = session ^ u32::from(shape.is_tcp);
        for word_at in [source_at, destination_at, at] {
            hash = hash.rotate_left(7) ^ u32_at(bytes, word_at)?;
        }
        // Fibonacci hashing: the best bits are the highest.
        let index = hash.wrapping_mul(0x9e37_79b9) >> SLOT_SHIFT;
        self.slots.get_mut(usize::try_from(index).ok()?)
    }

    fn classify<'a>(&self, packet: &'a [u8]) -> Class<'a> {
        let (bytes, protocol, is_v4) = match Packet::parse(packet) {
            Ok(Packet::V4(packet)) => match clear_protocol_v4(&packet) {
                Ok(protocol) => (packet.bytes(), protocol, true),
                Err(class) => return class,
            },
            Ok(Packet::V6(packet)) => match clear_protocol_v6(&packet) {
                Ok(protocol) => (packet.bytes(), protocol, false),
                Err(class) => return class,
            },
            Err(_) => return Class::Other,
        };
        let is_tcp = match protocol {
            TCP if self.offloads.tcp => true,
            UDP if self.offloads.udp => false,
            _ => return Class::Other,
        };
        let transport_at = if is_v4 { V4_HEADER_LEN } else { V6_HEADER_LEN };
        let shape = Shape {
            is_v4,
            is_tcp,
            transport_at,
            headers_len: transport_at,
        };
        candidate(bytes, shape).map_or(Class::Loner { bytes, shape }, Class::Candidate)
    }
}

/// The protocol behind a header that can be merged under.
fn clear_protocol_v4(packet: &V4<'_>) -> Result<u8, Class<'static>> {
    let protocol = packet.protocol();
    if protocol != TCP && protocol != UDP {
        return Err(Class::Other);
    }
    // Reserved bit, MF, offset: nothing but DF may be set.
    let fragment = u16_at(packet.bytes(), 6).unwrap_or(u16::MAX);
    if packet.header_len() != V4_HEADER_LEN || fragment & !0x4000 != 0 {
        return Err(Class::Obscure);
    }
    Ok(protocol)
}

/// The protocol behind a header that can be merged under.
const fn clear_protocol_v6(packet: &V6<'_>) -> Result<u8, Class<'static>> {
    match packet.next_header() {
        protocol @ (TCP | UDP) => Ok(protocol),
        protocol if is_v6_extension(protocol) => Err(Class::Obscure),
        _ => Err(Class::Other),
    }
}

/// The packet as one that may join or open an aggregate; `None` if it may not.
fn candidate(bytes: &[u8], shape: Shape) -> Option<Candidate<'_>> {
    let at = shape.transport_at;
    let transport = bytes.get(at..)?;
    let (header_len, flags, sequence) = if shape.is_tcp {
        let (&offset, &flags) = (transport.get(12)?, transport.get(13)?);
        // The low bits of the offset's byte are reserved (or AccECN's).
        let header_len = usize::from(offset >> 4) << 2;
        let is_data = flags & !(PSH | FIN | ECE) == ACK && offset & 0x0f == 0;
        if header_len < TCP_HEADER_LEN || !is_data {
            return None;
        }
        (header_len, flags, u32_at(transport, 4)?)
    } else {
        let len = usize::from(u16_at(transport, 4)?);
        let has_checksum = u16_at(transport, UDP_CHECKSUM_AT)? != 0;
        if len != transport.len() || !has_checksum {
            return None;
        }
        (UDP_HEADER_LEN, 0, 0)
    };
    let headers_len = at.checked_add(header_len)?;
    let payload = bytes
        .get(headers_len..)
        .filter(|payload| !payload.is_empty())?;
    let identification = if shape.is_v4 {
        // A checksum that is right but not the one that cutting makes (0 for 0xFFFF) is no good.
        let header = bytes.first_chunk::<V4_HEADER_LEN>()?;
        let found = u16_at(header, 10)?;
        let sum = Sum::ZERO.add_bytes(header);
        if sum.add_u16(!found).checksum() != found {
            return None;
        }
        u16_at(header, 4)?
    } else {
        0
    };
    Some(Candidate {
        bytes,
        shape: Shape {
            headers_len,
            ..shape
        },
        payload,
        flags,
        sequence,
        identification,
    })
}

impl Shape {
    /// Whether two packets of this shape have the same headers, but for what cutting makes.
    fn headers_are_alike(self, one: &[u8], other: &[u8]) -> bool {
        let mask: &[u32] = match (self.is_v4, self.is_tcp) {
            (true, true) => &TCP_V4_MASK,
            (true, false) => &UDP_V4_MASK,
            (false, true) => &TCP_V6_MASK,
            (false, false) => &UDP_V6_MASK,
        };
        // Word by word and without branches, this becomes a few vector instructions.
        let (ours, theirs) = (one.as_chunks::<4>().0, other.as_chunks::<4>().0);
        let mut difference = 0;
        for ((one, other), mask) in ours.iter().zip(theirs).zip(mask) {
            difference |= (u32::from_be_bytes(*one) ^ u32::from_be_bytes(*other)) & mask;
        }
        let options = size_of_val(mask)..self.headers_len;
        difference == 0 && one.get(options.clone()) == other.get(options)
    }
}

impl Candidate<'_> {
    fn headers(&self) -> &[u8] {
        self.bytes.get(..self.shape.headers_len).unwrap_or_default()
    }

    /// Whether no segment may follow this one.
    const fn is_last(&self) -> bool {
        self.flags & (PSH | FIN) != 0
    }

    /// Whether the transport checksum is the one that would be computed.
    fn checksum_is_right(&self, payload_sum: Sum) -> bool {
        let Shape {
            is_tcp,
            transport_at,
            headers_len,
            ..
        } = self.shape;
        let field_at = if is_tcp {
            TCP_CHECKSUM_AT
        } else {
            UDP_CHECKSUM_AT
        };
        let Some(found) = u16_at(self.bytes, transport_at.saturating_add(field_at)) else {
            return false;
        };
        let sum = pseudo(self.bytes, self.shape, headers_len, self.bytes.len())
            .add_sum(payload_sum)
            // Takes the field itself out again.
            .add_u16(!found);
        let computed = if is_tcp {
            sum.checksum()
        } else {
            checksum::udp(sum)
        };
        computed == found
    }
}

/// The sum of the pseudo-header of a packet of `len` bytes and of what lies between its addresses and
/// `end`: nothing, or, as they are neighbours, the transport header.
fn pseudo(packet: &[u8], shape: Shape, end: usize, len: usize) -> Sum {
    let addresses_at = if shape.is_v4 { 12 } else { 8 };
    let transport_len = len.saturating_sub(shape.transport_at);
    Sum::ZERO
        .add_bytes(packet.get(addresses_at..end).unwrap_or_default())
        .add_u16(u16::from(if shape.is_tcp { TCP } else { UDP }))
        // At most 65,535.
        .add_u16(u16::try_from(transport_len).unwrap_or(u16::MAX))
}

impl Slot {
    /// The packet so far, or its room.
    fn packet(&self) -> &[u8] {
        self.buffer.get(VNET_HEADER_LEN..).unwrap_or_default()
    }

    fn packet_mut(&mut self) -> &mut [u8] {
        self.buffer.get_mut(VNET_HEADER_LEN..).unwrap_or_default()
    }

    /// Whether the open aggregate is of the flow of the packet `bytes`.
    fn is_of_flow(&self, session: u32, bytes: &[u8], shape: Shape) -> bool {
        // Both addresses and, right behind them, both ports.
        let flow = if shape.is_v4 { 12..24 } else { 8..44 };
        self.open.as_ref().is_some_and(|open| {
            open.session == session
                && open.shape.is_v4 == shape.is_v4
                && open.shape.is_tcp == shape.is_tcp
                && self.packet().get(flow.clone()) == bytes.get(flow)
        })
    }

    fn take(
        &mut self,
        session: u32,
        candidate: &Candidate<'_>,
        copy_and_sum: CopyAndSum,
        out: &mut impl FnMut(Aggregate<'_>),
    ) -> Pushed {
        if self.continues(session, candidate) {
            let pushed = self.append(candidate, copy_and_sum);
            if pushed == Pushed::Direct || self.is_complete(candidate) {
                self.emit(out);
            }
            return pushed;
        }
        let is_alone = candidate.is_last() || candidate.payload.len() <= SMALL_PAYLOAD_LEN_MAX;
        if !is_alone {
            self.emit(out);
            return self.begin(session, candidate, copy_and_sum);
        }
        if self.is_of_flow(session, candidate.bytes, candidate.shape) {
            self.emit(out);
        }
        Pushed::Direct
    }

    /// Whether `candidate` is what comes next in the open aggregate.
    fn continues(&self, session: u32, candidate: &Candidate<'_>) -> bool {
        let Some(open) = &self.open else {
            return false;
        };
        let shape = candidate.shape;
        open.session == session
            && open.shape == shape
            && (!shape.is_tcp || candidate.sequence == open.next_sequence)
            && (!shape.is_v4 || candidate.identification == open.next_identification)
            && candidate.payload.len() <= open.segment_len
            && open.segments < SEGMENTS_MAX
            && open.len.saturating_add(candidate.payload.len()) <= PACKET_LEN_MAX
            && shape.headers_are_alike(self.packet(), candidate.bytes)
    }

    /// Copies the payload behind the open aggregate, if its checksum is right.
    fn append(&mut self, candidate: &Candidate<'_>, copy_and_sum: CopyAndSum) -> Pushed {
        let Some(open) = &mut self.open else {
            return Pushed::Direct;
        };
        let packet = self.buffer.get_mut(VNET_HEADER_LEN..).unwrap_or_default();
        let end = open.len.saturating_add(candidate.payload.len());
        let Some(room) = packet.get_mut(open.len..end) else {
            return Pushed::Direct;
        };
        let sum = copy_and_sum(candidate.payload, room);
        if !candidate.checksum_is_right(sum) {
            // What was copied lies behind the aggregate's end.
            return Pushed::Direct;
        }
        // Untouched otherwise: a byte written here would be waited for by the next comparison.
        if candidate.is_last()
            && let Some(flags) = packet.get_mut(candidate.shape.transport_at.saturating_add(13))
        {
            *flags |= candidate.flags & (FIN | PSH);
        }
        open.len = end;
        open.segments = open.segments.saturating_add(1);
        open.expect_after(candidate);
        Pushed::Kept
    }

    /// Opens an aggregate with `candidate`, if its checksum is right.
    fn begin(
        &mut self,
        session: u32,
        candidate: &Candidate<'_>,
        copy_and_sum: CopyAndSum,
    ) -> Pushed {
        let headers_len = candidate.shape.headers_len;
        let Some((headers, room)) = self
            .packet_mut()
            .get_mut(..candidate.bytes.len())
            .and_then(|room| room.split_at_mut_checked(headers_len))
        else {
            return Pushed::Direct;
        };
        headers.copy_from_slice(candidate.headers());
        let sum = copy_and_sum(candidate.payload, room);
        if !candidate.checksum_is_right(sum) {
            return Pushed::Direct;
        }
        let mut open = Open {
            session,
            shape: candidate.shape,
            segment_len: candidate.payload.len(),
            len: candidate.bytes.len(),
            segments: 1,
            next_sequence: 0,
            next_identification: 0,
        };
        open.expect_after(candidate);
        self.open = Some(open);
        Pushed::Kept
    }

    /// Whether the aggregate that `joined` was the last to join can take no more.
    fn is_complete(&self, joined: &Candidate<'_>) -> bool {
        self.open.as_ref().is_some_and(|open| {
            joined.is_last()
                || joined.payload.len() < open.segment_len
                || open.segments >= SEGMENTS_MAX
                || open.len >= PACKET_LEN_MAX
        })
    }

    /// Gives the open aggregate to `out`, if there is one.
    fn emit(&mut self, out: &mut impl FnMut(Aggregate<'_>)) {
        let Some(open) = self.open.take() else {
            return;
        };
        let header = if open.segments == 1 {
            VnetHeader::default()
        } else {
            self.finish(&open)
        };
        let end = open.len.saturating_add(VNET_HEADER_LEN);
        if let Some(bytes) = self.buffer.get_mut(..end) {
            let written = set(bytes, 0, header.to_bytes());
            debug_assert_eq!(written, Some(()), "the buffer has room for it");
            out(Aggregate {
                bytes,
                segments: open.segments,
                session: open.session,
            });
        }
    }

    /// Makes the headers those of a superpacket.
    fn finish(&mut self, open: &Open) -> VnetHeader {
        let Shape {
            is_v4,
            is_tcp,
            transport_at,
            headers_len,
        } = open.shape;
        let len_u16 = |len: usize| u16::try_from(len).unwrap_or(u16::MAX);
        let checksum_at = if is_tcp {
            TCP_CHECKSUM_AT
        } else {
            UDP_CHECKSUM_AT
        };
        let packet = self.packet_mut();
        // The field holds the sum of the pseudo-header, not inverted.
        let partial = pseudo(packet, open.shape, transport_at, open.len)
            .fold()
            .to_be_bytes();
        let transport_len = len_u16(open.len.saturating_sub(transport_at)).to_be_bytes();
        let mut finish_headers = || {
            set(packet, transport_at.checked_add(checksum_at)?, partial)?;
            if !is_tcp {
                set(packet, transport_at.checked_add(4)?, transport_len)?;
            }
            if !is_v4 {
                return set(packet, 4, transport_len);
            }
            set(packet, 2, len_u16(open.len).to_be_bytes())?;
            set(packet, 10, [0; 2])?;
            let sum = checksum::of(packet.get(..V4_HEADER_LEN)?);
            set(packet, 10, sum.to_be_bytes())
        };
        let finished = finish_headers();
        debug_assert_eq!(finished, Some(()), "the headers are in the buffer");
        VnetHeader {
            checksum: Some(PartialChecksum {
                start: len_u16(transport_at),
                offset: len_u16(checksum_at),
            }),
            gso: Some(Gso {
                kind: match (is_tcp, is_v4) {
                    (true, true) => GsoKind::TcpV4,
                    (true, false) => GsoKind::TcpV6,
                    (false, _) => GsoKind::Udp,
                },
                segment_len: len_u16(open.segment_len),
                has_cwr: false,
            }),
            headers_len: len_u16(headers_len),
        }
    }
}

impl Open {
    /// Sets what the packet after `candidate` must have.
    fn expect_after(&mut self, candidate: &Candidate<'_>) {
        // A payload is shorter than 65,535 bytes.
        let payload_len = u32::try_from(candidate.payload.len()).unwrap_or(u32::MAX);
        self.next_sequence = candidate.sequence.wrapping_add(payload_len);
        self.next_identification = candidate.identification.wrapping_add(1);
    }
}
