//! Lowers the MSS that a TCP connection announces to what fits the tunnel (RFC 9293 §3.7.1).
//!
//! The far end's segments then fit the session's MTU without ICMP, which many networks drop. Both
//! directions are clamped, on SYN and SYN-ACK alike; the option is only lowered, never raised nor
//! added. Later fragments carry no TCP header and are left alone.
//!
//! Lengths are bytes. The walk is bounded by 40 bytes of TCP options and
//! [`EXTENSION_HEADERS_MAX`](super::packet::EXTENSION_HEADERS_MAX).

use super::checksum;
use super::packet::{Packet, Part, TCP, V4_HEADER_LEN, V6_HEADER_LEN};

// RFC 9293 §3.1, §3.2.
const TCP_HEADER_LEN: usize = 20;
const CHECKSUM_AT: usize = 16;
const FLAG_SYN: u8 = 0x02;
const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;
const OPTION_MSS: u8 = 2;
const OPTION_MSS_LEN: u8 = 4;

/// Lowers the MSS option of a TCP SYN in `packet` to what fits `mtu`, the longest packet the
/// tunnel carries, and mends the checksum (RFC 1624). Returns whether anything was changed.
/// Anything but a SYN, and a packet whose lengths are wrong, is left as it is.
pub fn clamp(packet: &mut [u8], mtu: u16) -> bool {
    let Some((tcp_at, limit)) = find_syn(packet, mtu) else {
        return false;
    };
    let Some(tcp) = packet.get_mut(tcp_at..) else {
        return false;
    };
    clamp_segment(tcp, limit).unwrap_or(false)
}

/// Where the TCP header of a SYN starts, and the largest MSS it may announce.
fn find_syn(bytes: &[u8], mtu: u16) -> Option<(usize, u16)> {
    let packet = Packet::parse(bytes).ok()?;
    let ip_len = match packet {
        Packet::V4(_) => V4_HEADER_LEN,
        Packet::V6(_) => V6_HEADER_LEN,
    };
    let transport = packet.transport()?;
    if transport.protocol != TCP || transport.part == Part::Later {
        return None;
    }
    let header = packet.bytes().get(transport.offset..)?;
    if header.get(13)? & FLAG_SYN == 0 {
        return None;
    }
    // RFC 6691: the MSS leaves out the fixed headers only, whatever options there are.
    let fixed = u16::try_from(ip_len.saturating_add(TCP_HEADER_LEN)).ok()?;
    Some((transport.offset, mtu.saturating_sub(fixed).max(1)))
}

/// Lowers every MSS option in `tcp`, which starts with a TCP header.
fn clamp_segment(tcp: &mut [u8], limit: u16) -> Option<bool> {
    let header_len = usize::from(tcp.get(12)? >> 4) << 2;
    // A header that is cut off is not ours to judge.
    let header = tcp.get_mut(..header_len)?;
    let mut at = TCP_HEADER_LEN;
    let mut changed = false;
    loop {
        let kind = match header.get(at) {
            None | Some(&OPTION_END) => break,
            Some(&OPTION_NOP) => {
                at = at.saturating_add(1);
                continue;
            }
            Some(&kind) => kind,
        };
        let Some(&len) = header.get(at.saturating_add(1)) else {
            break;
        };
        let end = at.saturating_add(usize::from(len));
        if len < 2 || end > header.len() {
            break;
        }
        if kind == OPTION_MSS && len == OPTION_MSS_LEN {
            changed |= clamp_option(header, at.saturating_add(2), limit)?;
        }
        at = end;
    }
    Some(changed)
}

/// Lowers the MSS value at `at` of the TCP header.
fn clamp_option(header: &mut [u8], at: usize, limit: u16) -> Option<bool> {
    let value = header.get_mut(at..)?.first_chunk_mut::<2>()?;
    let old = u16::from_be_bytes(*value);
    if old <= limit {
        return Some(false);
    }
    *value = limit.to_be_bytes();
    let (old, new) = if at.is_multiple_of(2) {
        (old, limit)
    } else {
        (old.swap_bytes(), limit.swap_bytes())
    };
    let field = header.get_mut(CHECKSUM_AT..)?.first_chunk_mut::<2>()?;
    *field = checksum::update(u16::from_be_bytes(*field), old, new).to_be_bytes();
    Some(true)
}
