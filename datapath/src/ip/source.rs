//! Whether a client may send this packet, and who is to have it.
//!
//! The source must be what was assigned, exactly: one IPv4 address, one IPv6 prefix (RFC 2827).
//! Of link-local addresses only the negotiated one (RFC 5072 §5) is the client's, and `::` only
//! for duplicate address detection and the like (RFC 4862 §5.4); both reach the gateway's own
//! services and nobody else, because a packet with such a source is never for [`To::Inside`].
//!
//! No reply is owed to a refused packet: the reason is there to be counted. The common case costs
//! the length checks and one or two compares; the reason is looked for only after a refusal.
//! Whether clients may reach each other is decided elsewhere.

use core::net::{Ipv4Addr, Ipv6Addr};

use super::packet::{Family, Malformed, Packet, V4, V6};

/// What a session may use as source, made once when its addresses are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceCheck {
    v4: Option<Ipv4Addr>,
    v6: Option<Prefix>,
    link_local: Option<Ipv6Addr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Prefix {
    network: u128,
    mask: u128,
}

/// A packet that may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Its protocol.
    pub family: Family,
    /// Its length by its own header; cut the bytes here.
    pub len: usize,
    /// Who is to have it.
    pub to: To,
}

/// Who is to have a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// The network behind the gateway (and the gateway's own addresses in it).
    Inside,
    /// `services::Services` only: broadcast, multicast or link-local. Never write it to the TUN.
    Services,
}

/// Why a packet from a client is refused; one count each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum DropReason {
    /// It is no IP packet.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The session has no address of this family.
    #[error("no address of this family was assigned")]
    NotAssigned,
    /// The source is unspecified (or in 0.0.0.0/8).
    #[error("source address is zero")]
    Zero,
    /// The source is a loopback address.
    #[error("source address is loopback")]
    Loopback,
    /// The source is a multicast, broadcast or reserved (240.0.0.0/4) address.
    #[error("source address is multicast, broadcast or reserved")]
    Multicast,
    /// The source is link-local and not the negotiated address.
    #[error("link-local source address is not the negotiated one")]
    LinkLocal,
    /// The source is the negotiated link-local address, the destination beyond the link.
    #[error("link-local source address with a destination beyond the link")]
    LinkLocalScope,
    /// The source is somebody else's.
    #[error("source address is not the assigned one")]
    Foreign,
    /// The destination can be nobody's: zero, loopback, reserved.
    #[error("destination address is zero, loopback or reserved")]
    Destination,
}

impl SourceCheck {
    /// A check for the assigned IPv4 address, IPv6 prefix (address and length, at most 128) and
    /// interface identifier of the negotiated link-local address.
    #[must_use]
    pub fn new(
        v4: Option<Ipv4Addr>,
        v6_prefix: Option<(Ipv6Addr, u8)>,
        link_local_id: Option<u64>,
    ) -> Self {
        Self {
            v4,
            v6: v6_prefix.map(|(address, len)| {
                let host_bits = 128_u32.saturating_sub(u32::from(len));
                let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
                Prefix {
                    network: u128::from(address) & mask,
                    mask,
                }
            }),
            link_local: link_local_id.map(link_local),
        }
    }

    /// Whether `bytes` (a frame's payload) is a packet the client may send.
    pub fn check(&self, bytes: &[u8]) -> Result<Accepted, DropReason> {
        match Packet::parse(bytes)? {
            Packet::V4(packet) => self.check_v4(&packet),
            Packet::V6(packet) => self.check_v6(&packet),
        }
    }

    fn check_v4(&self, packet: &V4<'_>) -> Result<Accepted, DropReason> {
        let assigned = self.v4.ok_or(DropReason::NotAssigned)?;
        let source = packet.source();
        if source != assigned || !is_unicast_v4(source) {
            return Err(reason_v4(source));
        }
        let destination = packet.destination();
        let to = if destination.is_multicast() || destination.is_broadcast() {
            To::Services
        } else if is_unicast_v4(destination) {
            To::Inside
        } else {
            return Err(DropReason::Destination);
        };
        Ok(Accepted {
            family: Family::V4,
            len: packet.bytes().len(),
            to,
        })
    }

    fn check_v6(&self, packet: &V6<'_>) -> Result<Accepted, DropReason> {
        if self.v6.is_none() && self.link_local.is_none() {
            return Err(DropReason::NotAssigned);
        }
        let source = packet.source();
        let destination = packet.destination();
        if destination.is_unspecified() || destination.is_loopback() {
            return Err(DropReason::Destination);
        }
        let on_link = destination.is_multicast() || destination.is_unicast_link_local();
        if source.is_unicast_link_local() {
            if self.link_local != Some(source) {
                return Err(DropReason::LinkLocal);
            }
            if !on_link {
                return Err(DropReason::LinkLocalScope);
            }
        } else if source.is_unspecified() {
            // RFC 4291 §2.5.2; the node's own questions go to groups only (RFC 4861 §4.1, 4.3).
            if !destination.is_multicast() {
                return Err(DropReason::Zero);
            }
        } else if source.is_multicast() {
            return Err(DropReason::Multicast);
        } else if source.is_loopback() {
            return Err(DropReason::Loopback);
        } else if !self.v6.is_some_and(|prefix| prefix.contains(source)) {
            return Err(DropReason::Foreign);
        }
        Ok(Accepted {
            family: Family::V6,
            len: packet.bytes().len(),
            to: if on_link { To::Services } else { To::Inside },
        })
    }
}

impl Prefix {
    fn contains(self, address: Ipv6Addr) -> bool {
        u128::from(address) & self.mask == self.network
    }
}

/// The link-local address of an interface identifier (RFC 5072 §5).
#[must_use]
pub fn link_local(id: u64) -> Ipv6Addr {
    Ipv6Addr::from((0xfe80_u128 << 112) | u128::from(id))
}

/// Neither 0/8, loopback, multicast nor 240/4 (RFC 1122 §3.2.1.3, RFC 1112 §4).
const fn is_unicast_v4(address: Ipv4Addr) -> bool {
    let first = address.octets()[0];
    first != 0 && first != 127 && first < 224
}

const fn reason_v4(source: Ipv4Addr) -> DropReason {
    match source.octets()[0] {
        0 => DropReason::Zero,
        127 => DropReason::Loopback,
        224.. => DropReason::Multicast,
        _ => DropReason::Foreign,
    }
}
