//! What a measured packet carries: who sent it, when it was planned, and proof that it is intact.
//!
//! ```text
//! 0        2    3    4        8        12                 20                 28       32
//! │ magic  │ ver│kind│ run    │ session│ sequence         │ planned          │ check  │ body …
//! ```
//!
//! All numbers are big-endian. *run* tells one run of loadgen from another, *session* is the number
//! of the client (from 0), *sequence* counts the packets of that session and direction from 0,
//! *planned* is when the packet was to be sent, in nanoseconds of the sender's `CLOCK_MONOTONIC`, and
//! *check* covers everything but itself. The body is the same for all packets, so that it costs the
//! sender nothing; it is verified through the check.
//!
//! A packet is UDP in IPv4 without options, so the smallest is 20 + 8 + 32 = 60 bytes. Ports: the
//! far end's, and [`CLIENT_PORT`]. Shared by the clients and by `loadgen reflect`.

use std::net::Ipv4Addr;

use datapath::ip::checksum::{self, Sum};
use datapath::ip::packet::Packet;

// Specification constants.

const MAGIC: u16 = 0x5354;
const VERSION: u8 = 1;

/// Bytes of the header.
pub(crate) const HEADER_LEN: usize = 32;

/// What a packet is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// To be sent back as it is.
    Echo,
    /// To be counted.
    Sink,
    /// Asks for a stream; the body says which.
    Start,
    /// A packet of such a stream.
    Source,
    /// Asks what came of a run; the answer has the same kind and a body.
    Tally,
    /// Over TCP: what follows is to be received, or asked for ([`crate::pattern`]).
    Upload,
    Download,
}

impl Kind {
    const ALL: [Self; 7] = [
        Self::Echo,
        Self::Sink,
        Self::Start,
        Self::Source,
        Self::Tally,
        Self::Upload,
        Self::Download,
    ];

    const fn number(self) -> u8 {
        self as u8 + 1
    }

    fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.number() == number)
    }
}

/// The port that clients send from.
pub(crate) const CLIENT_PORT: u16 = 7100;

const V4_HEADER_LEN: u16 = 20;
const UDP_HEADER_LEN: u16 = 8;
const UDP: u8 = 17;
const TTL: u8 = 64;

/// Bytes of the smallest packet.
pub(crate) const PACKET_LEN_MIN: u16 = V4_HEADER_LEN + UDP_HEADER_LEN + 32;

/// Bytes of the largest: what fits one SSTP packet with its PPP header.
pub(crate) const PACKET_LEN_MAX: u16 = 4087;

/// The header of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) run: u32,
    pub(crate) session: u32,
    pub(crate) sequence: u64,
    /// Nanoseconds of the sender's monotonic clock.
    pub(crate) planned: u64,
}

/// What a payload turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Payload {
    Ours(Header),
    /// It has our magic, but was changed on the way.
    Damaged,
    Foreign,
}

impl Header {
    /// Writes header and check in front of the body that is in `payload` already.
    pub(crate) fn seal(&self, payload: &mut [u8]) {
        let hash = body_hash(payload.get(HEADER_LEN..).unwrap_or_default());
        self.seal_over(hash, payload);
    }

    /// The same, for a body whose hash is known.
    pub(crate) fn seal_over(&self, body_hash: u64, payload: &mut [u8]) {
        let [m0, m1] = MAGIC.to_be_bytes();
        let mut head = [0; 28];
        head[..4].copy_from_slice(&[m0, m1, VERSION, self.kind.number()]);
        head[4..8].copy_from_slice(&self.run.to_be_bytes());
        head[8..12].copy_from_slice(&self.session.to_be_bytes());
        head[12..20].copy_from_slice(&self.sequence.to_be_bytes());
        head[20..].copy_from_slice(&self.planned.to_be_bytes());
        let check = check(&head, body_hash);
        if let Some((place, _)) = payload.split_first_chunk_mut::<HEADER_LEN>() {
            place[..28].copy_from_slice(&head);
            place[28..].copy_from_slice(&check.to_be_bytes());
        }
    }

    /// Reads a payload.
    pub(crate) fn open(payload: &[u8]) -> Payload {
        let Some((header, body)) = payload.split_first_chunk::<HEADER_LEN>() else {
            return Payload::Foreign;
        };
        let [m0, m1, version, kind, rest @ ..] = *header;
        if u16::from_be_bytes([m0, m1]) != MAGIC || version != VERSION {
            return Payload::Foreign;
        }
        let Some((head, claimed)) = header.split_first_chunk::<28>() else {
            return Payload::Foreign;
        };
        if check(head, body_hash(body)).to_be_bytes() != claimed {
            return Payload::Damaged;
        }
        let Some(kind) = Kind::from_number(kind) else {
            return Payload::Damaged;
        };
        let (run, rest) = take(&rest);
        let (session, rest) = take(rest);
        let (sequence, rest) = take(rest);
        let (planned, _) = take(rest);
        Payload::Ours(Self {
            kind,
            run: u32::from_be_bytes(run),
            session: u32::from_be_bytes(session),
            sequence: u64::from_be_bytes(sequence),
            planned: u64::from_be_bytes(planned),
        })
    }
}

/// The next `N` bytes, or zeros where there are none.
fn take<const N: usize>(bytes: &[u8]) -> ([u8; N], &[u8]) {
    bytes
        .split_first_chunk()
        .map_or(([0; N], bytes), |(head, rest)| (*head, rest))
}

const fn mix(state: u64, word: u64) -> u64 {
    (state.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn check(head: &[u8; 28], body_hash: u64) -> u32 {
    let (words, tail) = head.as_chunks::<8>();
    let hash = words
        .iter()
        .fold(body_hash, |hash, word| mix(hash, u64::from_be_bytes(*word)));
    let (last, _) = take(tail);
    let hash = mix(hash, u64::from(u32::from_be_bytes(last)));
    let [high, ..] = [hash ^ (hash >> 29)].map(u64::to_be_bytes);
    let (high, _) = take(&high);
    u32::from_be_bytes(high)
}

/// A hash that any single damage changes; four lanes, for a body is hashed at each arrival.
fn body_hash(body: &[u8]) -> u64 {
    let (blocks, tail) = body.as_chunks::<32>();
    let mut lanes = [1_u64, 2, 3, 4];
    for block in blocks {
        let (words, _) = block.as_chunks::<8>();
        for (lane, word) in lanes.iter_mut().zip(words) {
            *lane = mix(*lane, u64::from_le_bytes(*word));
        }
    }
    let hash = lanes.into_iter().fold(body.len() as u64, mix);
    tail.iter()
        .fold(hash, |hash, &byte| mix(hash, u64::from(byte)))
}

/// Packets of one length, all made but for what differs from packet to packet.
#[derive(Debug)]
struct Template {
    len: u16,
    body: Vec<u8>,
    body_hash: u64,
    body_sum: Sum,
}

/// Makes packets; keeps a template for every length it was asked for.
#[derive(Debug, Default)]
pub(crate) struct Maker {
    templates: Vec<Template>,
    packet: Vec<u8>,
}

/// From where to where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Path {
    pub(crate) source: Ipv4Addr,
    pub(crate) source_port: u16,
    pub(crate) destination: Ipv4Addr,
    pub(crate) destination_port: u16,
}

impl Maker {
    /// The packet of `len` bytes, [`PACKET_LEN_MIN`] at least.
    pub(crate) fn packet(&mut self, len: u16, path: Path, header: &Header) -> &[u8] {
        let known = self.templates.iter().position(|one| one.len == len);
        let index = known.unwrap_or_else(|| {
            self.templates.push(Template::new(len));
            self.templates.len() - 1
        });
        if let Some(template) = self.templates.get(index) {
            template.write(path, header, &mut self.packet);
        }
        &self.packet
    }

    /// A packet with this body.
    pub(crate) fn packet_with(&mut self, body: &[u8], path: Path, header: &Header) -> &[u8] {
        Template::of(body.to_vec()).write(path, header, &mut self.packet);
        &self.packet
    }
}

/// The body of every packet whose length is `len`.
fn body(len: u16) -> Vec<u8> {
    let mut body = Vec::new();
    append_body(len, &mut body);
    body
}

/// Appends that body: no two bytes near each other are equal.
pub(crate) fn append_body(len: u16, bytes: &mut Vec<u8>) {
    let count = usize::from(len.saturating_sub(PACKET_LEN_MIN));
    let pattern = (0..=u8::MAX).map(|byte| byte.wrapping_mul(167));
    bytes.extend(pattern.cycle().take(count));
}

impl Template {
    fn new(len: u16) -> Self {
        Self::of(body(len))
    }

    fn of(body: Vec<u8>) -> Self {
        let len = u16::try_from(body.len()).unwrap_or(PACKET_LEN_MAX - PACKET_LEN_MIN);
        Self {
            len: len.saturating_add(PACKET_LEN_MIN),
            body_hash: body_hash(&body),
            body_sum: Sum::ZERO.add_bytes(&body),
            body,
        }
    }

    fn write(&self, path: Path, header: &Header, packet: &mut Vec<u8>) {
        let udp_len = self.len - V4_HEADER_LEN;
        packet.clear();
        packet.extend_from_slice(&v4_header(self.len, path));
        let mut payload_header = [0; HEADER_LEN];
        header.seal_over(self.body_hash, &mut payload_header);
        let mut udp = [0; 8];
        udp[..2].copy_from_slice(&path.source_port.to_be_bytes());
        udp[2..4].copy_from_slice(&path.destination_port.to_be_bytes());
        udp[4..6].copy_from_slice(&udp_len.to_be_bytes());
        // All parts but the last have even lengths, so their sums add up.
        let sum = checksum::pseudo_v4(path.source, path.destination, UDP, udp_len)
            .add_bytes(&udp)
            .add_bytes(&payload_header)
            .add_sum(self.body_sum);
        udp[6..].copy_from_slice(&checksum::udp(sum).to_be_bytes());
        packet.extend_from_slice(&udp);
        packet.extend_from_slice(&payload_header);
        packet.extend_from_slice(&self.body);
    }
}

fn v4_header(len: u16, path: Path) -> [u8; 20] {
    let [len_high, len_low] = len.to_be_bytes();
    let [s0, s1, s2, s3] = path.source.octets();
    let [d0, d1, d2, d3] = path.destination.octets();
    // Version 4, header of 5 words; Don't Fragment.
    let mut header = [
        0x45, 0, len_high, len_low, 0, 0, 0x40, 0, TTL, UDP, 0, 0, s0, s1, s2, s3, d0, d1, d2, d3,
    ];
    let sum = Sum::ZERO.add_bytes(&header).checksum();
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    header
}

/// A UDP packet in IPv4: its addresses and ports, and what it carries.
pub(crate) fn parse(packet: &[u8]) -> Option<(Path, &[u8])> {
    let Ok(Packet::V4(view)) = Packet::parse(packet) else {
        return None;
    };
    let bytes = view.bytes();
    // Our packets have no options, and nobody on the way may add some.
    let (header, datagram) = bytes.split_first_chunk::<20>()?;
    if header[0] != 0x45 || header[9] != UDP {
        return None;
    }
    let (udp, payload) = datagram.split_first_chunk::<8>()?;
    let path = Path {
        source: view.source(),
        source_port: u16::from_be_bytes([udp[0], udp[1]]),
        destination: view.destination(),
        destination_port: u16::from_be_bytes([udp[2], udp[3]]),
    };
    Some((path, payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: Path = Path {
        source: Ipv4Addr::new(10, 0, 0, 2),
        source_port: CLIENT_PORT,
        destination: Ipv4Addr::new(10, 0, 0, 1),
        destination_port: 7,
    };

    const HEADER: Header = Header {
        kind: Kind::Echo,
        run: 0x0102_0304,
        session: 9_999,
        sequence: 1 << 33,
        planned: 123_456_789,
    };

    #[test]
    fn what_is_sent_is_read_back() {
        let mut maker = Maker::default();
        for len in [60, 61, 64, 95, 570, 1400, 4087] {
            let packet = maker.packet(len, PATH, &HEADER).to_vec();
            assert_eq!(packet.len(), usize::from(len));
            let (path, payload) = parse(&packet).unwrap();
            assert_eq!(path, PATH);
            assert_eq!(Header::open(payload), Payload::Ours(HEADER));
            // The kernel would take it: both checksums are right.
            assert!(checksum::is_right(&packet[..20]));
            let udp_len = len - 20;
            let pseudo = checksum::pseudo_v4(PATH.source, PATH.destination, UDP, udp_len);
            assert_eq!(pseudo.add_bytes(&packet[20..]).checksum(), 0);
        }
    }

    #[test]
    fn every_damage_is_seen() {
        let mut maker = Maker::default();
        let packet = maker.packet(200, PATH, &HEADER).to_vec();
        let payload = &packet[28..];
        for bit in 0..payload.len() * 8 {
            let mut damaged = payload.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let expected = if bit < 24 {
                Payload::Foreign
            } else {
                Payload::Damaged
            };
            assert_eq!(Header::open(&damaged), expected, "bit {bit}");
        }
        for len in 0..payload.len() {
            assert!(
                !matches!(Header::open(&payload[..len]), Payload::Ours(_)),
                "{len} bytes"
            );
        }
    }

    #[test]
    fn a_header_can_be_put_before_any_body() {
        let mut payload = vec![7; HEADER_LEN + 13];
        HEADER.seal(&mut payload);
        assert_eq!(Header::open(&payload), Payload::Ours(HEADER));
        let mut maker = Maker::default();
        let packet = maker.packet_with(&[1, 2, 3], PATH, &HEADER);
        let (_, payload) = parse(packet).unwrap();
        assert_eq!(&payload[HEADER_LEN..], [1, 2, 3]);
    }
}
