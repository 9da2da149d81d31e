//! The Router Advertisement (RFC 4861 §4.2; options RFC 4191, RFC 8106).
//!
//! ```text
//!  |134|0|checksum|64|M O …|router lifetime|reachable 4|retrans 4|
//!   Prefix Information  the session's /64, A set, L clear: on this link is nobody but the gateway
//!   MTU
//!   RDNSS, DNSSL        as DHCPv6 tells them too; some systems read only one
//!   Route Information   one for each network behind the gateway
//! ```
//!
//! No link-layer address is told: PPP has none.

use core::net::Ipv6Addr;

use super::profile::Profile;
use super::{Ipv6, emit, neighbour};
use crate::ip::packet::ICMPV6;
use crate::wire::{TooShort, Writer};

// RFC 4861 §4.2, §4.6; RFC 4191 §2.3; RFC 8106 §5.
const CURRENT_HOP_LIMIT: u8 = 64;
const FLAG_OTHER_CONFIGURATION: u8 = 0x40;
const PREFIX_INFORMATION: u8 = 3;
const PREFIX_FLAG_AUTONOMOUS: u8 = 0x40;
const MTU: u8 = 5;
const ROUTE_INFORMATION: u8 = 24;
const RDNSS: u8 = 25;
const DNSSL: u8 = 31;

/// Three times the longest interval between advertisements (RFC 4861 §6.2.1, RFC 8106 §5.1).
const ROUTER_LIFETIME_S: u16 = 1800;
/// The prefix goes with the session, so it lives as RFC 9096 §4 advises for renumbered networks.
const PREFERRED_LIFETIME_S: u32 = 2700;
const VALID_LIFETIME_S: u32 = 5400;

/// Writes the advertisement to `to` into `room` and returns the packet.
pub(super) fn emit<'a>(
    profile: &Profile,
    ipv6: Ipv6,
    mtu: u16,
    to: Ipv6Addr,
    room: &'a mut [u8],
) -> Result<&'a [u8], TooShort> {
    let from = ipv6.gateway();
    let mut writer = emit::begin_v6(room, ICMPV6, neighbour::HOP_LIMIT, from, to)?;
    writer.put(&[neighbour::ROUTER_ADVERTISEMENT, 0, 0, 0])?;
    writer.put(&[CURRENT_HOP_LIMIT, FLAG_OTHER_CONFIGURATION])?;
    // Without a prefix the client has no address that a default route would serve.
    let is_default_router = profile.default_route_v6 && ipv6.prefix.is_some();
    writer.u16(if is_default_router {
        ROUTER_LIFETIME_S
    } else {
        0
    })?;
    // Reachable time and retransmission timer: unspecified.
    writer.put(&[0; 8])?;
    if let Some(prefix) = ipv6.prefix() {
        writer.put(&[PREFIX_INFORMATION, 4, 64, PREFIX_FLAG_AUTONOMOUS])?;
        writer.u32(VALID_LIFETIME_S)?;
        writer.u32(PREFERRED_LIFETIME_S)?;
        writer.u32(0)?;
        writer.put(&prefix.octets())?;
    }
    writer.put(&[MTU, 1, 0, 0])?;
    writer.u32(u32::from(mtu))?;
    put_dns(&mut writer, profile)?;
    for &(network, prefix_len) in &profile.routes_v6 {
        put_route(&mut writer, network, prefix_len)?;
    }
    emit::finish_v6(writer, ICMPV6, neighbour::CHECKSUM_AT, from, to)
}

fn put_dns(writer: &mut Writer<'_>, profile: &Profile) -> Result<(), TooShort> {
    if !profile.dns_v6.is_empty() {
        let units = profile.dns_v6.len().saturating_mul(2).saturating_add(1);
        writer.put(&[RDNSS, u8::try_from(units).unwrap_or(u8::MAX), 0, 0])?;
        writer.u32(u32::from(ROUTER_LIFETIME_S))?;
        for server in &profile.dns_v6 {
            writer.put(&server.octets())?;
        }
    }
    if !profile.search.is_empty() {
        let padded_len = profile.search.len().next_multiple_of(8);
        let units = (padded_len >> 3).saturating_add(1);
        writer.put(&[DNSSL, u8::try_from(units).unwrap_or(u8::MAX), 0, 0])?;
        writer.u32(u32::from(ROUTER_LIFETIME_S))?;
        writer.put(&profile.search)?;
        for _ in profile.search.len()..padded_len {
            writer.u8(0)?;
        }
    }
    Ok(())
}

/// RFC 4191 §2.3: only the bytes of the prefix that it covers, in units of 8.
fn put_route(writer: &mut Writer<'_>, network: Ipv6Addr, prefix_len: u8) -> Result<(), TooShort> {
    let host_bits = 128_u32.saturating_sub(u32::from(prefix_len));
    let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
    let network = (u128::from(network) & mask).to_be_bytes();
    let units = prefix_len.div_ceil(64);
    writer.put(&[ROUTE_INFORMATION, units.saturating_add(1), prefix_len, 0])?;
    writer.u32(u32::from(ROUTER_LIFETIME_S))?;
    writer.put(network.get(..usize::from(units) << 3).unwrap_or_default())
}
