//! Inside packets → PPP frames → SSTP packets → TLS records → outside bytes: `uplink.rs` reversed.
//!
//! ```text
//! packet ─ fits? ─▶ room in the record being filled: │ SSTP 4 │ FF 03 + protocol 4 │ packet │
//!             │                                              clamp MSS there, seal at the flush
//!             └─ too big: ICMP to its sender, or fragments
//! ```
//!
//! The packet is copied once, from where the TUN put it to its place in the record. A client sends
//! its own packets the same way; only the counters differ.

use super::event::DropReason;
use super::tunnel::{Call, Tunnel};
use super::{Context, Edge, Ledger, Role, Session, Stage};
use crate::ip::offload::Gso;
use crate::ip::offload::cut::{Cut, Uncut};
use crate::ip::packet::Packet;
use crate::ip::{fragment, icmp, mss};
use crate::ppp::frame;
use crate::sstp;
use crate::time::{Duration, Instant};

/// Bytes before an IP packet in the SSTP stream.
pub(super) const DATA_HEADER_LEN: usize = sstp::packet::HEADER_LEN + frame::HEADER_LEN;

/// ICMP too-big answers and fragmented packets of one session in a second, at most.
const TOO_BIG_PER_SECOND: u8 = 50;

/// The headers of an SSTP data packet with an IP packet of `packet_len` bytes in it.
pub(super) fn data_header(protocol: u16, packet_len: usize) -> [u8; DATA_HEADER_LEN] {
    let mut header = [0; DATA_HEADER_LEN];
    if let Some((sstp_header, frame_header)) = header.split_first_chunk_mut() {
        // A packet is at most as long as the peer's MRU, which is capped at what fits.
        let _ = sstp::packet::write_data_header(sstp_header, packet_len + frame::HEADER_LEN);
        frame_header.copy_from_slice(&frame::header(protocol));
    }
    header
}

/// The headers for `packet`, if it is IP.
pub(super) fn data_header_of(packet: &[u8]) -> Option<[u8; DATA_HEADER_LEN]> {
    Some(data_header(protocol_of(packet)?, packet.len()))
}

/// The PPP protocol number for an IP packet, by its version.
fn protocol_of(packet: &[u8]) -> Option<u16> {
    match packet.first()? >> 4 {
        4 => Some(frame::IPV4),
        6 => Some(frame::IPV6),
        _ => None,
    }
}

/// Counts a packet that will be sent: the server sends downlink, the client uplink.
const fn count_sent(packet_len: usize, role: &Role, ledger: &mut Ledger) {
    let traffic = &mut ledger.traffic;
    match role {
        Role::Server(_) => {
            traffic.downlink_packets += 1;
            traffic.downlink_bytes += packet_len as u64;
        }
        Role::Client(_) => {
            traffic.uplink_packets += 1;
            traffic.uplink_bytes += packet_len as u64;
        }
    }
}

/// Bounds the work that packets over the MTU can cause.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TooBig {
    since: Instant,
    count: u8,
}

impl TooBig {
    fn admit(&mut self, now: Instant) -> bool {
        if now.saturating_since(self.since) >= Duration::from_secs(1) {
            *self = Self {
                since: now,
                count: 0,
            };
        }
        let admitted = self.count < TOO_BIG_PER_SECOND;
        self.count += u8::from(admitted);
        admitted
    }
}

impl Session {
    /// Sends one IP packet to the peer.
    pub fn send_packet<E: Edge>(&mut self, now: Instant, packet: &[u8], edge: &mut E) {
        let (stage, mut cx) = self.split(now, edge);
        match stage {
            Stage::Tunnel(tunnel) => tunnel.send_packet(packet, &mut cx),
            Stage::Proxy(_) | Stage::Handshake(_) | Stage::Request | Stage::Closing(_) => {
                cx.edge.dropped(DropReason::NotUp);
            }
        }
    }
}

impl Session {
    /// Sends every packet that a superpacket of the TUN stands for.
    pub fn send_superpacket<E: Edge>(
        &mut self,
        now: Instant,
        gso: Gso,
        packet: &[u8],
        edge: &mut E,
    ) {
        let (stage, mut cx) = self.split(now, edge);
        match stage {
            Stage::Tunnel(tunnel) => tunnel.send_superpacket(gso, packet, &mut cx),
            Stage::Proxy(_) | Stage::Handshake(_) | Stage::Request | Stage::Closing(_) => {
                cx.edge.dropped(DropReason::NotUp);
            }
        }
    }
}

impl Tunnel {
    fn send_superpacket<E: Edge>(&mut self, gso: Gso, packet: &[u8], cx: &mut Context<'_, E>) {
        let Some(protocol) = protocol_of(packet) else {
            return cx.edge.dropped(DropReason::Malformed);
        };
        if !self.is_connected() || !self.link.admits(protocol) {
            return cx.edge.dropped(DropReason::NotUp);
        }
        let mut cut = match Cut::new(gso, packet, self.mtu) {
            Ok(cut) => cut,
            Err(Uncut::Bad(_)) => return cx.edge.dropped(DropReason::Malformed),
            Err(Uncut::TooBig) => return self.send_too_big_datagrams(gso, packet, cx),
        };
        let Some(tls) = cx.outside.tls.as_ref() else {
            return;
        };
        let class = cx.outside.transmit.class_of(packet, tls, cx.edge);
        while let Some(packet_len) = cut.next_len() {
            let len = DATA_HEADER_LEN + packet_len;
            let room = cx.outside.transmit.reserve(len, class, tls, cx.edge);
            let Some((header, room)) = room.ok().and_then(<[u8]>::split_first_chunk_mut) else {
                // What is left of it finds no room either.
                for _ in 0..cut.count() {
                    cx.edge.dropped(DropReason::QueueFull);
                }
                return;
            };
            *header = data_header(protocol, packet_len);
            cut.write_next_with(room, cx.edge.copy_and_sum());
            count_sent(packet_len, cx.role, cx.ledger);
        }
        cx.ledger.last_traffic = cx.now;
    }

    /// Datagrams cannot be cut smaller as segments can: each is treated as a packet that does not
    /// fit. It happens when a session's MTU is below the TUN's.
    fn send_too_big_datagrams<E: Edge>(
        &mut self,
        gso: Gso,
        packet: &[u8],
        cx: &mut Context<'_, E>,
    ) {
        let Ok(mut cut) = Cut::new(gso, packet, u16::MAX) else {
            return cx.edge.dropped(DropReason::Malformed);
        };
        let mut datagram = cx.edge.take_stash();
        while let Some(len) = cut.next_len() {
            datagram.resize(len, 0);
            cut.write_next(&mut datagram);
            self.send_packet(&datagram, cx);
        }
        cx.edge.give_stash(datagram);
    }

    fn send_packet<E: Edge>(&mut self, packet: &[u8], cx: &mut Context<'_, E>) {
        let Some(protocol) = protocol_of(packet) else {
            return cx.edge.dropped(DropReason::Malformed);
        };
        if !self.is_connected() || !self.link.admits(protocol) {
            return cx.edge.dropped(DropReason::NotUp);
        }
        if packet.len() > usize::from(self.mtu) {
            return self.send_too_big(packet, cx);
        }
        self.send_frame(protocol, &[packet], cx);
    }

    /// Lays one packet, given in parts, into the record that is being filled.
    fn send_frame<E: Edge>(&self, protocol: u16, parts: &[&[u8]], cx: &mut Context<'_, E>) {
        let packet_len = parts.iter().map(|part| part.len()).sum::<usize>();
        let Some(tls) = cx.outside.tls.as_ref() else {
            return;
        };
        let len = DATA_HEADER_LEN + packet_len;
        let transmit = &mut cx.outside.transmit;
        let class = transmit.class_of(parts.first().copied().unwrap_or_default(), tls, cx.edge);
        let Ok(room) = transmit.reserve(len, class, tls, cx.edge) else {
            return cx.edge.dropped(DropReason::QueueFull);
        };
        let Some((header, mut room)) = room.split_first_chunk_mut::<DATA_HEADER_LEN>() else {
            return;
        };
        *header = data_header(protocol, packet_len);
        if let ([packet], Role::Server(_)) = (parts, cx.role) {
            room.copy_from_slice(packet);
            mss::clamp(room, self.mtu);
        } else {
            for part in parts {
                let Some((place, rest)) = room.split_at_mut_checked(part.len()) else {
                    return;
                };
                place.copy_from_slice(part);
                room = rest;
            }
        }
        count_sent(packet_len, cx.role, cx.ledger);
        cx.ledger.last_traffic = cx.now;
    }

    /// The packet does not fit: its sender is told, or it is cut where that is allowed
    /// (RFC 791 §2.3, RFC 1191 §4, RFC 8200 §5).
    fn send_too_big<E: Edge>(&mut self, packet: &[u8], cx: &mut Context<'_, E>) {
        if !self.too_big.admit(cx.now) {
            return cx.edge.dropped(DropReason::TooBig);
        }
        let may_split = matches!(
            Packet::parse(packet),
            Ok(Packet::V4(view)) if !view.dont_fragment()
        );
        if may_split {
            let mtu = self.mtu;
            let result = fragment::split(packet, mtu, |header, payload| {
                self.send_frame(frame::IPV4, &[header, payload], cx);
            });
            if result.is_err() {
                cx.edge.dropped(DropReason::TooBig);
            }
            return;
        }
        cx.edge.dropped(DropReason::TooBig);
        let gateway = icmp::Gateway {
            v4: self.addresses.ipv4_gateway,
            v6: self
                .policy
                .as_ref()
                .and_then(|policy| policy.ipv6)
                .and_then(|ipv6| ipv6.gateway),
        };
        let mut answer = [0; icmp::REPLY_LEN_MAX];
        if let (Role::Server(_), Some(len)) = (
            cx.role,
            icmp::too_big(packet, self.mtu, &gateway, &mut answer),
        ) && let Some(answer) = answer.get_mut(..len)
        {
            cx.edge.inside(answer);
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        match &self.call {
            Call::Server(call) => call.is_connected(),
            Call::Client(call) => call.is_connected(),
        }
    }
}
