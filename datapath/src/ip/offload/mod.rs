//! Many packets as one: what the TUN takes and gives with `IFF_VNET_HDR` (virtio 1.2 §5.1.6).
//!
//! ```text
//!  | 0 flags | 1 gso_type | 2 hdr_len | 4 gso_size | 6 csum_start | 8 csum_offset | 10 packet …
//! ```
//!
//! A *superpacket* is one IP packet of up to 64 KB that stands for many: equal headers, and a
//! payload to be cut every `gso_size` bytes. [`merge`] makes them of a client's packets before the
//! write, [`cut`] makes packets of those that were read. A packet that [`PartialChecksum`] comes
//! with has its transport checksum still to be made.
//!
//! The header is in the machine's own byte order, as the TUN has it by default. `hdr_len` is
//! written but never believed: of forwarded packets it may be wrong.
//!
//! Merged and cut again, packets are the same byte for byte; that is what the rules of [`merge`]
//! are for.

pub mod cut;

pub mod merge;

use super::checksum::{self, Sum};

/// The length of the header before each packet.
pub const VNET_HEADER_LEN: usize = 10;

// virtio 1.2 §5.1.6, with the kernel's type 5 for UDP.
const FLAG_NEEDS_CHECKSUM: u8 = 1;
const GSO_NONE: u8 = 0;
const GSO_TCP_V4: u8 = 1;
const GSO_TCP_V6: u8 = 4;
const GSO_UDP: u8 = 5;
/// A flag beside the type: the first segment has CWR.
const GSO_ECN: u8 = 0x80;

/// Offsets of the checksum in a UDP and a TCP header.
const UDP_CHECKSUM_AT: usize = 6;
const TCP_CHECKSUM_AT: usize = 16;
const UDP_HEADER_LEN: usize = 8;
const TCP_HEADER_LEN: usize = 20;

// RFC 9293 §3.1, RFC 3168 §6.1.
const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
const ECE: u8 = 0x40;
const CWR: u8 = 0x80;

/// What the header before a packet says. The default is that of an ordinary packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VnetHeader {
    /// The checksum that is still to be made.
    pub checksum: Option<PartialChecksum>,
    /// What the packet stands for, if it is a superpacket.
    pub gso: Option<Gso>,
    /// Length of all headers; a hint, not to be believed.
    pub headers_len: u16,
}

/// A transport checksum whose field holds the sum of the pseudo-header only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartialChecksum {
    /// Where the sum starts, in bytes of the packet.
    pub start: u16,
    /// Where the checksum is, from `start`.
    pub offset: u16,
}

/// What a superpacket stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gso {
    /// What its segments are.
    pub kind: GsoKind,
    /// Payload of each segment but the last, in bytes.
    pub segment_len: u16,
    /// Whether the TCP header has CWR, which the first segment only is to have.
    pub has_cwr: bool,
}

/// What the segments of a superpacket are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GsoKind {
    /// TCP over IPv4.
    TcpV4,
    /// TCP over IPv6.
    TcpV6,
    /// UDP datagrams over either.
    Udp,
}

/// Why a packet from the TUN cannot be used; its owner drops and counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadOffload {
    /// The kernel was not told that this kind of superpacket is understood.
    #[error("superpacket of unknown type {0}")]
    Unknown(u8),
    /// Header and packet contradict each other, or a length lies.
    #[error("superpacket contradicts its header")]
    Malformed,
}

impl VnetHeader {
    /// Reads the header before a packet.
    pub fn parse(bytes: &[u8; VNET_HEADER_LEN]) -> Result<Self, BadOffload> {
        let &[flags, kind, h0, h1, s0, s1, c0, c1, o0, o1] = bytes;
        let segment_len = u16::from_ne_bytes([s0, s1]);
        let of = |gso_kind| {
            Some(Gso {
                kind: gso_kind,
                segment_len,
                has_cwr: kind & GSO_ECN != 0,
            })
        };
        let gso = match kind & !GSO_ECN {
            GSO_NONE => None,
            GSO_TCP_V4 => of(GsoKind::TcpV4),
            GSO_TCP_V6 => of(GsoKind::TcpV6),
            GSO_UDP => of(GsoKind::Udp),
            _ => return Err(BadOffload::Unknown(kind)),
        };
        Ok(Self {
            checksum: (flags & FLAG_NEEDS_CHECKSUM != 0).then_some(PartialChecksum {
                start: u16::from_ne_bytes([c0, c1]),
                offset: u16::from_ne_bytes([o0, o1]),
            }),
            gso,
            headers_len: u16::from_ne_bytes([h0, h1]),
        })
    }

    /// The header as bytes.
    #[must_use]
    pub fn to_bytes(self) -> [u8; VNET_HEADER_LEN] {
        let (flags, start, offset) = self.checksum.map_or((0, 0, 0), |checksum| {
            (FLAG_NEEDS_CHECKSUM, checksum.start, checksum.offset)
        });
        let (kind, segment_len) = self.gso.map_or((GSO_NONE, 0), |gso| {
            let kind = match gso.kind {
                GsoKind::TcpV4 => GSO_TCP_V4,
                GsoKind::TcpV6 => GSO_TCP_V6,
                GsoKind::Udp => GSO_UDP,
            };
            (
                kind | if gso.has_cwr { GSO_ECN } else { 0 },
                gso.segment_len,
            )
        });
        let [h0, h1] = self.headers_len.to_ne_bytes();
        let [s0, s1] = segment_len.to_ne_bytes();
        let [c0, c1] = start.to_ne_bytes();
        let [o0, o1] = offset.to_ne_bytes();
        [flags, kind, h0, h1, s0, s1, c0, c1, o0, o1]
    }
}

impl PartialChecksum {
    /// Makes the checksum of `packet`, an ordinary one.
    pub fn complete(self, packet: &mut [u8]) -> Result<(), BadOffload> {
        let offset = usize::from(self.offset);
        let summed = packet
            .get_mut(usize::from(self.start)..)
            .ok_or(BadOffload::Malformed)?;
        // The field is part of the sum and brings the pseudo-header in.
        let sum = Sum::ZERO.add_bytes(summed);
        let value = if offset == UDP_CHECKSUM_AT {
            checksum::udp(sum)
        } else {
            sum.checksum()
        };
        let field = summed
            .get_mut(offset..)
            .and_then(<[u8]>::first_chunk_mut)
            .ok_or(BadOffload::Malformed)?;
        *field = value.to_be_bytes();
        Ok(())
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let word = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_be_bytes(*word))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_be_bytes(*word))
}

/// Overwrites the bytes at `at`; `None` if they are not all there.
fn set<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) -> Option<()> {
    *bytes.get_mut(at..)?.first_chunk_mut()? = value;
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_header_is_read_as_it_was_written(
            bytes: [u8; 10],
            kind in prop::sample::select(vec![0_u8, 1, 4, 5, 0x81, 0x84, 0x85]),
            flags in 0..2_u8,
        ) {
            let mut bytes = bytes;
            bytes[0] = flags;
            bytes[1] = kind;
            let header = VnetHeader::parse(&bytes).unwrap();
            prop_assert_eq!(VnetHeader::parse(&header.to_bytes()), Ok(header));
            if flags == 1 && kind != 0 {
                prop_assert_eq!(header.to_bytes(), bytes);
            }
        }
    }

    #[test]
    fn what_was_not_asked_for_is_refused() {
        for kind in (0..=255).filter(|kind| !matches!(kind & 0x7f, 0 | 1 | 4 | 5)) {
            let bytes = [0, kind, 0, 0, 0, 0, 0, 0, 0, 0];
            assert_eq!(VnetHeader::parse(&bytes), Err(BadOffload::Unknown(kind)));
        }
    }

    #[test]
    fn a_checksum_outside_the_packet_is_refused() {
        let mut packet = [0; 30];
        for (start, offset) in [(31, 0), (20, 9), (30, 0), (0, 29), (u16::MAX, u16::MAX)] {
            let checksum = PartialChecksum { start, offset };
            assert_eq!(checksum.complete(&mut packet), Err(BadOffload::Malformed));
        }
        assert_eq!(packet, [0; 30]);
        // A UDP checksum of zero would mean that there is none.
        packet[20..24].fill(0xff);
        let checksum = PartialChecksum {
            start: 20,
            offset: 6,
        };
        assert_eq!(checksum.complete(&mut packet), Ok(()));
        assert_eq!(packet[26..28], [0xff, 0xff]);
    }
}
