//! Outside bytes → TLS records → SSTP packets → PPP frames → inside packets, in place.
//!
//! ```text
//! received │ record │ record │ rec…   whole records are opened where they lie; the rest waits
//!          └ open ─▶ │ SSTP │ SSTP │ SS…   the same one layer up
//!                    └ strip 4 ─▶ PPP frame ─ strip 4 ─▶ IP packet ─ check, clamp ─▶ inside
//! ```
//!
//! Only what straddles the end of a receive buffer is copied. Every step consumes, closes or
//! waits: a length that lies ends the session, it cannot make it loop.

use super::event::{DropReason, EndReason, Milestone, Protection};
use super::tunnel::{Call, Tunnel};
use super::{Context, Edge, Flow, Role, Session, Stage, Timer};
use crate::ip::packet::Packet;
use crate::ip::{mss, source};
use crate::ppp;
use crate::services::Handled;
use crate::sstp;
use crate::time::Instant;
use crate::tls;

/// PPP protocol numbers below this one are those of network layers (RFC 1661 §2).
const FIRST_CONTROL_PROTOCOL: u16 = 0x8000;

impl Session {
    /// Takes what the connection received; the bytes are changed in place.
    pub fn receive<E: Edge>(&mut self, now: Instant, bytes: &mut [u8], edge: &mut E) {
        let flow = match self.stage {
            Stage::Proxy(_) => self.receive_proxy(now, bytes, edge),
            Stage::Handshake(_) => self.receive_handshake(now, bytes, edge),
            Stage::Request | Stage::Tunnel(_) => self.receive_records(now, bytes, edge),
            Stage::Closing(_) => Flow::Continue,
        };
        self.follow(flow, now, edge);
    }

    pub(super) fn receive_handshake<E: Edge>(
        &mut self,
        now: Instant,
        bytes: &[u8],
        edge: &mut E,
    ) -> Flow {
        let (stage, context) = self.split(now, edge);
        let Stage::Handshake(handshake) = stage else {
            return Flow::Continue;
        };
        match handshake.handle_bytes(bytes, &mut context.outside.flight) {
            Ok(tls::Progress::Pending) => {
                // It has an answer: the hello was whole.
                if let Role::Server(_) = context.role
                    && !context.outside.flight.is_empty()
                    && let Some(begun) = context.ledger.milestones.at(Milestone::Begun)
                {
                    let at = begun + context.role.limits().handshake;
                    context.deadlines.set(Timer::Stage, at);
                }
                return Flow::Continue;
            }
            Ok(tls::Progress::Done) => {}
            Err(error) => {
                context
                    .ledger
                    .note_end(end_of(&error), Some(error.to_string()));
                return Flow::Close;
            }
        }
        let Stage::Handshake(handshake) = std::mem::replace(stage, Stage::Request) else {
            return Flow::Continue;
        };
        let done = match handshake.finish() {
            Ok(done) => done,
            Err(error) => {
                context
                    .ledger
                    .note_end(end_of(&error), Some(error.to_string()));
                return Flow::Close;
            }
        };
        context.ledger.milestones.pass(Milestone::Tls, now);
        context.ledger.protection = protection(&done.info);
        context
            .deadlines
            .set(Timer::Stage, now + context.role.limits().http);
        context.outside.tls = Some(done.connection);
        context.outside.certificate = Some(done.info.certificate);
        let mut plaintext = done.plaintext;
        let mut unread = done.rest;
        if let Role::Client(_) = context.role {
            self.send_request(now, edge);
        }
        match self.receive_plaintext(now, &mut plaintext, edge) {
            Flow::Continue => self.receive_records(now, &mut unread, edge),
            flow => flow,
        }
    }

    /// Opens every whole record in `bytes`, and keeps the part of one at the end.
    fn receive_records<E: Edge>(
        &mut self,
        now: Instant,
        mut bytes: &mut [u8],
        edge: &mut E,
    ) -> Flow {
        if self.receives_by_kernel() {
            const APPLICATION_DATA: u8 = 23; // RFC 8446 §5.1
            return self.receive_opened(now, APPLICATION_DATA, bytes, edge);
        }
        if !self.outside.partial_record.is_empty() {
            let mut record = std::mem::take(&mut self.outside.partial_record);
            let taken = match complete(&mut record, bytes, tls::Connection::record_len) {
                Ok(taken) => taken,
                Err(error) => return self.tls_failed(&error),
            };
            bytes = bytes.get_mut(taken..).unwrap_or_default();
            let flow = match tls::Connection::record_len(&record) {
                Ok(Some(len)) if len == record.len() => self.receive_record(now, &mut record, edge),
                Ok(_) => {
                    self.outside.partial_record = record;
                    return Flow::Continue;
                }
                Err(error) => self.tls_failed(&error),
            };
            record.clear();
            edge.give_stash(record);
            if flow != Flow::Continue {
                return flow;
            }
        }
        loop {
            let len = match tls::Connection::record_len(bytes) {
                Ok(Some(len)) if len <= bytes.len() => len,
                Ok(_) => break,
                Err(error) => return self.tls_failed(&error),
            };
            let (record, rest) = bytes.split_at_mut(len);
            let flow = self.receive_record(now, record, edge);
            if flow != Flow::Continue {
                return flow;
            }
            bytes = rest;
        }
        if !bytes.is_empty() {
            let mut stash = edge.take_stash();
            stash.extend_from_slice(bytes);
            self.outside.partial_record = stash;
        }
        Flow::Continue
    }

    fn receive_record<E: Edge>(&mut self, now: Instant, record: &mut [u8], edge: &mut E) -> Flow {
        let Some(tls) = self.outside.tls.as_mut() else {
            return Flow::Cut;
        };
        match tls.open(record) {
            Ok(tls::Opened::Data(plaintext)) => self.receive_plaintext(now, plaintext, edge),
            Ok(tls::Opened::Handled) => Flow::Continue,
            Ok(tls::Opened::Closed) => {
                self.ledger.note_end(EndReason::PeerClosed, None);
                Flow::Close
            }
            Err(error) => self.tls_failed(&error),
        }
    }

    /// TLS broke: the alert that is owed goes out, then the connection is closed.
    pub(super) fn tls_failed(&mut self, error: &tls::Error) -> Flow {
        self.ledger.note_end(end_of(error), Some(error.to_string()));
        if let Some(tls) = self.outside.tls.as_mut() {
            tls.pending_output(&mut self.outside.flight);
        }
        Flow::Close
    }

    pub(super) fn receive_plaintext<E: Edge>(
        &mut self,
        now: Instant,
        plaintext: &mut [u8],
        edge: &mut E,
    ) -> Flow {
        match self.stage {
            Stage::Request => self.receive_head(now, plaintext, edge),
            Stage::Tunnel(_) => self.receive_sstp(now, plaintext, edge),
            Stage::Proxy(_) | Stage::Handshake(_) | Stage::Closing(_) => Flow::Continue,
        }
    }

    /// Collects the HTTP head; what follows it in the same bytes belongs to SSTP.
    fn receive_head<E: Edge>(&mut self, now: Instant, bytes: &[u8], edge: &mut E) -> Flow {
        if bytes.is_empty() {
            return Flow::Continue;
        }
        let mut head = std::mem::take(&mut self.outside.partial);
        head.extend_from_slice(bytes);
        let head_len = match self.handle_head(now, &head, edge) {
            Ok(Some(len)) => len,
            Ok(None) => {
                self.outside.partial = head;
                return Flow::Continue;
            }
            Err(flow) => return flow,
        };
        let mut rest = head.split_off(head_len);
        self.receive_sstp(now, &mut rest, edge)
    }

    /// Walks the SSTP packets in `bytes`, and keeps the part of one at the end.
    fn receive_sstp<E: Edge>(&mut self, now: Instant, mut bytes: &mut [u8], edge: &mut E) -> Flow {
        let (stage, mut context) = self.split(now, edge);
        let Stage::Tunnel(tunnel) = stage else {
            return Flow::Continue;
        };
        if !context.outside.partial.is_empty() {
            let mut packet = std::mem::take(&mut context.outside.partial);
            let taken = match complete(&mut packet, bytes, sstp::packet::packet_len) {
                Ok(taken) => taken,
                Err(error) => return tunnel.framing_error(&error, &mut context),
            };
            bytes = bytes.get_mut(taken..).unwrap_or_default();
            let flow = match sstp::packet::packet_len(&packet) {
                Ok(Some(len)) if len == packet.len() => {
                    tunnel.receive_packet(&mut packet, &mut context)
                }
                Ok(_) => {
                    context.outside.partial = packet;
                    return Flow::Continue;
                }
                Err(error) => tunnel.framing_error(&error, &mut context),
            };
            packet.clear();
            context.edge.give_stash(packet);
            if flow != Flow::Continue {
                return flow;
            }
        }
        loop {
            let len = match sstp::packet::packet_len(bytes) {
                Ok(Some(len)) if len <= bytes.len() => len,
                Ok(_) => break,
                Err(error) => return tunnel.framing_error(&error, &mut context),
            };
            let (packet, rest) = bytes.split_at_mut(len);
            let flow = tunnel.receive_packet(packet, &mut context);
            if flow != Flow::Continue {
                return flow;
            }
            bytes = rest;
        }
        if !bytes.is_empty() {
            let mut stash = context.edge.take_stash();
            stash.extend_from_slice(bytes);
            context.outside.partial = stash;
        }
        Flow::Continue
    }
}

impl Tunnel {
    /// One SSTP packet, down through the layers: call, frame, link, IP.
    fn receive_packet<E: Edge>(&mut self, packet: &mut [u8], cx: &mut Context<'_, E>) -> Flow {
        let admission = self.receive_call(packet, cx);
        let Some(admission) = admission else {
            return self.settle(cx);
        };
        let payload = packet
            .get_mut(sstp::packet::HEADER_LEN..)
            .unwrap_or_default();
        let Ok((protocol, at)) = ppp::frame::parse_offset(payload) else {
            cx.edge.dropped(DropReason::BadFrame);
            return Flow::Continue;
        };
        let information = payload.get_mut(at..).unwrap_or_default();
        if protocol >= FIRST_CONTROL_PROTOCOL {
            self.with_link(cx, |link, now, entropy, out| {
                link.handle_frame(now, protocol, information, entropy, out);
            });
            return self.settle(cx);
        }
        if admission != sstp::Admission::PppAll || !self.link.admits(protocol) {
            cx.edge.dropped(DropReason::NotUp);
            return Flow::Continue;
        }
        match cx.role {
            Role::Server(_) => self.receive_uplink(information, cx),
            Role::Client(_) => self.receive_downlink(information, cx),
        }
        Flow::Continue
    }

    /// Hands the packet to the call; `None` when there is nothing in it for PPP.
    fn receive_call<E: Edge>(
        &mut self,
        packet: &[u8],
        cx: &mut Context<'_, E>,
    ) -> Option<sstp::Admission> {
        let Ok(Some((packet, _))) = sstp::packet::parse(packet) else {
            return None;
        };
        let admission = self.with_call(cx, |call, now, out| match call {
            Call::Server(call) => call.handle_packet(now, packet, out),
            Call::Client(call) => call.handle_packet(now, packet, out),
        })?;
        match admission {
            sstp::Admission::Control => None,
            sstp::Admission::Drop(_) => {
                cx.edge.dropped(DropReason::NotUp);
                None
            }
            sstp::Admission::Ppp | sstp::Admission::PppAll => Some(admission),
        }
    }

    /// A client's packet: its source must be the session's; then it is the inside's.
    fn receive_uplink<E: Edge>(&mut self, packet: &mut [u8], cx: &mut Context<'_, E>) {
        let accepted = match self.source_check.check(packet) {
            Ok(accepted) => accepted,
            Err(source::DropReason::Malformed(_)) => {
                return cx.edge.dropped(DropReason::Malformed);
            }
            Err(source::DropReason::Destination | source::DropReason::LinkLocalScope) => {
                return cx.edge.dropped(DropReason::Unserved);
            }
            Err(_) => return cx.edge.dropped(DropReason::Source),
        };
        let Some(packet) = packet.get_mut(..accepted.len) else {
            return;
        };
        if accepted.len > usize::from(self.receive_len_max) {
            return cx.edge.dropped(DropReason::TooLong);
        }
        if accepted.to == source::To::Services {
            return self.serve(packet, cx);
        }
        cx.ledger.traffic.uplink_packets += 1;
        cx.ledger.traffic.uplink_bytes += packet.len() as u64;
        cx.ledger.last_traffic = cx.now;
        mss::clamp(packet, self.mtu);
        cx.edge.inside(packet);
    }

    /// A packet of the network, at the client's end.
    fn receive_downlink<E: Edge>(&self, packet: &mut [u8], cx: &mut Context<'_, E>) {
        let len = match Packet::parse(packet) {
            Ok(view) => view.bytes().len(),
            Err(_) => return cx.edge.dropped(DropReason::Malformed),
        };
        let Some(packet) = packet.get_mut(..len) else {
            return;
        };
        cx.ledger.traffic.downlink_packets += 1;
        cx.ledger.traffic.downlink_bytes += packet.len() as u64;
        cx.ledger.last_traffic = cx.now;
        cx.edge.inside(packet);
    }

    /// What the gateway itself answers inside the tunnel; the rest of it goes nowhere.
    fn serve<E: Edge>(&mut self, packet: &[u8], cx: &mut Context<'_, E>) {
        let handled = self.with_services(cx, |services, now, _, out| {
            services.handle_packet(now, packet, out)
        });
        if handled != Some(Handled::Consumed) {
            cx.edge.dropped(DropReason::Unserved);
        }
    }
}

/// Adds what `bytes` has of the unit that `partial` began; returns how many bytes it took.
/// `whole_len` tells the unit's length from its header, once that is there.
fn complete<T>(
    partial: &mut Vec<u8>,
    bytes: &[u8],
    whole_len: impl Fn(&[u8]) -> Result<Option<usize>, T>,
) -> Result<usize, T> {
    let mut taken = 0;
    loop {
        // Until the header is whole it is taken byte by byte: it has at most five.
        let wanted = match whole_len(partial)? {
            Some(len) => len.saturating_sub(partial.len()),
            None => 1,
        };
        let left = bytes.get(taken..).unwrap_or_default();
        if wanted == 0 || left.is_empty() {
            return Ok(taken);
        }
        let part = left.get(..wanted).unwrap_or(left);
        partial.extend_from_slice(part);
        taken += part.len();
    }
}

/// What of a handshake is worth a log line.
fn protection(info: &tls::Info) -> Protection {
    Protection {
        version: info.version.name(),
        suite: info.suite_name,
        group: info.group,
        server_name: info.sni.clone(),
    }
}

/// What a TLS failure means for the session.
pub(super) const fn end_of(error: &tls::Error) -> EndReason {
    match error {
        tls::Error::Certificate(_) => EndReason::CertificateRefused,
        tls::Error::KernelTls(_) => EndReason::KernelTls,
        tls::Error::KeyBudgetSpent => EndReason::KeysSpent,
        tls::Error::Exhausted(_) => EndReason::Exhausted,
        _ => EndReason::TlsFailed,
    }
}
