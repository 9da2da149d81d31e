//! Views of one IP packet whose lengths have been checked (RFC 791 §3.1, RFC 8200 §3).
//!
//! ```text
//!  IPv4  |ver IHL|tos|total len |id|flags offset|ttl|proto|checksum|source|destination|options…|
//!  IPv6  |ver class flow label  |payload len|next|hop limit|source 16|destination 16|extensions…|
//! ```
//!
//! A view ends where the header's own length says, so bytes behind the packet (padding of a frame)
//! are cut off; it never begins short of a whole header. Nothing else is validated: no checksum,
//! no address, no option. Lengths are bytes.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

// RFC 791 §3.1, RFC 8200 §3.
/// The IPv4 header without options.
pub const V4_HEADER_LEN: usize = 20;
/// The IPv6 header without extensions.
pub const V6_HEADER_LEN: usize = 40;

// Assigned Internet protocol numbers.
/// ICMP.
pub const ICMP: u8 = 1;
/// TCP.
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;
/// ICMPv6.
pub const ICMPV6: u8 = 58;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;

/// How many IPv6 extension headers [`Packet::transport`] walks. RFC 8200 §4.1 has six in its order
/// (destination options twice); whoever sends more wants the walk, not the delivery.
pub const EXTENSION_HEADERS_MAX: usize = 8;

/// Whether a next-header number is that of an extension header which [`Packet::transport`] walks.
#[must_use]
pub const fn is_v6_extension(next_header: u8) -> bool {
    matches!(
        next_header,
        HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS
    )
}

/// Which Internet protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Why bytes are not an IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Malformed {
    /// Fewer bytes than the smallest header of the version.
    #[error("shorter than an IP header")]
    Short,
    /// The version nibble is neither 4 nor 6.
    #[error("IP version is neither 4 nor 6")]
    Version,
    /// IHL is below 5 words, or the header is longer than the packet.
    #[error("IPv4 header length is impossible")]
    HeaderLength,
    /// The total or payload length is more than the bytes there are.
    #[error("IP length is more than was received")]
    Length,
}

/// An IP packet of either family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// An IPv4 packet.
    V4(V4<'a>),
    /// An IPv6 packet.
    V6(V6<'a>),
}

impl<'a> Packet<'a> {
    /// A view of the packet at the start of `bytes`; what is behind its own length is left out.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        match bytes.first().ok_or(Malformed::Short)? >> 4 {
            4 => V4::parse(bytes).map(Self::V4),
            6 => V6::parse(bytes).map(Self::V6),
            _ => Err(Malformed::Version),
        }
    }

    /// The whole packet, headers included.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        match self {
            Self::V4(packet) => packet.bytes,
            Self::V6(packet) => packet.bytes,
        }
    }

    /// Which protocol.
    #[must_use]
    pub const fn family(&self) -> Family {
        match self {
            Self::V4(_) => Family::V4,
            Self::V6(_) => Family::V6,
        }
    }

    /// Source address.
    #[must_use]
    pub fn source(&self) -> IpAddr {
        match self {
            Self::V4(packet) => packet.source().into(),
            Self::V6(packet) => packet.source().into(),
        }
    }

    /// Destination address.
    #[must_use]
    pub fn destination(&self) -> IpAddr {
        match self {
            Self::V4(packet) => packet.destination().into(),
            Self::V6(packet) => packet.destination().into(),
        }
    }

    /// Where the transport header is, behind IPv4 options or at most [`EXTENSION_HEADERS_MAX`] IPv6
    /// extension headers. `None` if the chain is longer or leaves the packet.
    #[must_use]
    pub fn transport(&self) -> Option<Transport> {
        match self {
            Self::V4(packet) => Some(packet.transport()),
            Self::V6(packet) => packet.transport(),
        }
    }
}

/// What part of a datagram a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// Its beginning, so the transport header is (mostly) here.
    First,
    /// A later piece: no transport header, payload in its place.
    Later,
}

/// Where a packet's transport header is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport {
    /// The protocol's number.
    pub protocol: u8,
    /// Its first byte, from the start of the packet; at most the packet's length.
    pub offset: usize,
    /// Whether the header is really there.
    pub part: Part,
    /// Whether an IPv6 routing header names further stations: the transport checksum then covers
    /// another destination than the fixed header has (RFC 8200 §8.1).
    pub is_routed: bool,
}

/// A checked IPv4 packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct V4<'a> {
    bytes: &'a [u8],
    fixed: &'a [u8; V4_HEADER_LEN],
    options: &'a [u8],
    payload: &'a [u8],
}

impl<'a> V4<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (fixed, _) = bytes.split_first_chunk().ok_or(Malformed::Short)?;
        let fixed: &[u8; V4_HEADER_LEN] = fixed;
        let header_len = usize::from(fixed[0] & 0x0f) << 2;
        let len = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
        let bytes = bytes.get(..len).ok_or(Malformed::Length)?;
        let (header, payload) = bytes
            .split_at_checked(header_len)
            .ok_or(Malformed::HeaderLength)?;
        let options = header.get(V4_HEADER_LEN..).ok_or(Malformed::HeaderLength)?;
        Ok(Self {
            bytes,
            fixed,
            options,
            payload,
        })
    }

    /// The whole packet.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The header with its options.
    #[must_use]
    pub fn header(&self) -> &'a [u8] {
        self.bytes.get(..self.header_len()).unwrap_or_default()
    }

    /// The header's length with its options: 20 to 60.
    #[must_use]
    pub const fn header_len(&self) -> usize {
        self.options.len().saturating_add(V4_HEADER_LEN)
    }

    /// The options, as they are.
    #[must_use]
    pub const fn options(&self) -> &'a [u8] {
        self.options
    }

    /// Everything behind the header.
    #[must_use]
    pub const fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// Type of service: DSCP and ECN.
    #[must_use]
    pub const fn tos(&self) -> u8 {
        self.fixed[1]
    }

    /// Identification.
    #[must_use]
    pub const fn identification(&self) -> u16 {
        u16::from_be_bytes([self.fixed[4], self.fixed[5]])
    }

    /// Whether the sender forbids fragmentation.
    #[must_use]
    pub const fn dont_fragment(&self) -> bool {
        self.fixed[6] & 0x40 != 0
    }

    /// Whether more fragments of the datagram follow this one.
    #[must_use]
    pub const fn more_fragments(&self) -> bool {
        self.fixed[6] & 0x20 != 0
    }

    /// Position of this fragment in its datagram, in units of 8 bytes.
    #[must_use]
    pub const fn fragment_offset(&self) -> u16 {
        u16::from_be_bytes([self.fixed[6] & 0x1f, self.fixed[7]])
    }

    /// Time to live.
    #[must_use]
    pub const fn ttl(&self) -> u8 {
        self.fixed[8]
    }

    /// Protocol of the payload.
    #[must_use]
    pub const fn protocol(&self) -> u8 {
        self.fixed[9]
    }

    /// Source address.
    #[must_use]
    pub const fn source(&self) -> Ipv4Addr {
        let [.., a, b, c, d, _, _, _, _] = *self.fixed;
        Ipv4Addr::new(a, b, c, d)
    }

    /// Destination address.
    #[must_use]
    pub const fn destination(&self) -> Ipv4Addr {
        let [.., a, b, c, d] = *self.fixed;
        Ipv4Addr::new(a, b, c, d)
    }

    /// Where the payload starts and what it is.
    #[must_use]
    pub const fn transport(&self) -> Transport {
        Transport {
            protocol: self.protocol(),
            offset: self.header_len(),
            part: if self.fragment_offset() != 0 {
                Part::Later
            } else if self.more_fragments() {
                Part::First
            } else {
                Part::Whole
            },
            is_routed: false,
        }
    }
}

/// A checked IPv6 packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct V6<'a> {
    bytes: &'a [u8],
    fixed: &'a [u8; V6_HEADER_LEN],
    payload: &'a [u8],
}

impl<'a> V6<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (fixed, behind) = bytes.split_first_chunk().ok_or(Malformed::Short)?;
        let fixed: &[u8; V6_HEADER_LEN] = fixed;
        let len = usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
        let payload = behind.get(..len).ok_or(Malformed::Length)?;
        let bytes = bytes
            .get(..len.saturating_add(V6_HEADER_LEN))
            .ok_or(Malformed::Length)?;
        Ok(Self {
            bytes,
            fixed,
            payload,
        })
    }

    /// The whole packet.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Everything behind the fixed header, extension headers included.
    #[must_use]
    pub const fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// Traffic class: DSCP and ECN.
    #[must_use]
    pub const fn traffic_class(&self) -> u8 {
        (self.fixed[0] << 4) | (self.fixed[1] >> 4)
    }

    /// What follows the fixed header.
    #[must_use]
    pub const fn next_header(&self) -> u8 {
        self.fixed[6]
    }

    /// Hop limit.
    #[must_use]
    pub const fn hop_limit(&self) -> u8 {
        self.fixed[7]
    }

    /// Source address.
    #[must_use]
    pub fn source(&self) -> Ipv6Addr {
        let (source, _) = self.addresses();
        Ipv6Addr::from(*source)
    }

    /// Destination address.
    #[must_use]
    pub fn destination(&self) -> Ipv6Addr {
        let (_, destination) = self.addresses();
        Ipv6Addr::from(*destination)
    }

    fn addresses(&self) -> (&'a [u8; 16], &'a [u8; 16]) {
        const NONE: &[u8; 16] = &[0; 16];
        let source = self.fixed.get(8..24).and_then(<[u8]>::first_chunk);
        (
            source.unwrap_or(NONE),
            self.fixed.last_chunk().unwrap_or(NONE),
        )
    }

    /// Walks the extension headers to the transport header; see [`Packet::transport`].
    #[must_use]
    pub fn transport(&self) -> Option<Transport> {
        let mut protocol = self.next_header();
        let mut offset = V6_HEADER_LEN;
        let mut part = Part::Whole;
        let mut is_routed = false;
        for _ in 0..=EXTENSION_HEADERS_MAX {
            let header_len = match protocol {
                // RFC 8200 §4.3, 4.4, 4.6: the length is in units of 8, the first not counted.
                HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => {
                    usize::from(self.byte(offset, 1)?).saturating_add(1) << 3
                }
                // RFC 4302 §2.2: in units of 4, minus 2.
                AUTHENTICATION => usize::from(self.byte(offset, 1)?).saturating_add(2) << 2,
                FRAGMENT => {
                    let [high, low] = [self.byte(offset, 2)?, self.byte(offset, 3)?];
                    part = match (u16::from_be_bytes([high, low & 0xf8]), low & 1) {
                        (0, 0) => part,
                        (0, _) => Part::First,
                        _ => Part::Later,
                    };
                    8
                }
                _ => {
                    return Some(Transport {
                        protocol,
                        offset,
                        part,
                        is_routed,
                    });
                }
            };
            // RFC 8200 §4.4: segments left.
            is_routed |= protocol == ROUTING && self.byte(offset, 3)? != 0;
            protocol = self.byte(offset, 0)?;
            offset = offset.checked_add(header_len)?;
            if offset > self.bytes.len() {
                return None;
            }
            if part == Part::Later {
                // What follows is the middle of something: only its number is known.
                return Some(Transport {
                    protocol,
                    offset,
                    part,
                    is_routed,
                });
            }
        }
        None
    }

    fn byte(&self, offset: usize, at: usize) -> Option<u8> {
        self.bytes.get(offset.checked_add(at)?).copied()
    }
}
