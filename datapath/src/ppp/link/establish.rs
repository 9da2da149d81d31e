//! LCP on a link: its packets, and what their outcome means for the phase (RFC 1661 §3.4, §5.7–5.9).
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::indexing_slicing))]

use super::{CloseReason, Echo, Event, Link, Phase, Timer};
use crate::output::{Entropy, Output};
use crate::ppp::automaton::{self, State};
use crate::ppp::control::{self, Packet, code};
use crate::ppp::frame;
use crate::ppp::lcp::Role;
use crate::ppp::negotiation::Layer;
use crate::time::Instant;

// Implementation.

/// LCP Echo-Requests in a row without an answer until the peer counts as dead.
const ECHO_MISSED_MAX: u8 = 3;
/// What a Protocol-Reject repeats of the information; see `negotiation`.
const REJECTED_LEN_MAX: usize = 64;
/// What is told of an Identification; Windows' longest is its host name.
const IDENTIFICATION_LEN_MAX: usize = 255;

impl Link {
    pub(super) fn handle_lcp(
        &mut self,
        now: Instant,
        information: &[u8],
        entropy: &mut impl Entropy,
        out: &mut impl Output<Event>,
    ) {
        let Ok(packet) = Packet::parse(information) else {
            return;
        };
        self.release_lcp(now, out);
        let is_open = self.lcp.is_open();
        match packet.code {
            code::PROTOCOL_REJECT if is_open => {
                self.handle_protocol_reject(now, packet.data, entropy, out);
            }
            code::ECHO_REQUEST if is_open => self.answer_echo(now, packet, out),
            code::ECHO_REPLY if is_open => self.handle_echo_reply(now, packet.identifier, out),
            code::IDENTIFICATION => {
                if let Some((_magic, text)) = packet.data.split_first_chunk::<4>() {
                    let text = text.get(..IDENTIFICATION_LEN_MAX).unwrap_or(text);
                    out.event(Event::PeerIdentification(text.to_vec()));
                }
            }
            code::PROTOCOL_REJECT
            | code::ECHO_REQUEST
            | code::ECHO_REPLY
            | code::DISCARD_REQUEST
            | code::TIME_REMAINING => {}
            _ => {
                let cx = &mut self.shared.context(now, out);
                let layer = self.lcp.handle_packet(cx, packet, entropy);
                if packet.code == code::TERMINATE_REQUEST {
                    self.finish(self.closing.unwrap_or(CloseReason::PeerTerminated), out);
                    return;
                }
                self.lcp_changed(now, layer, CloseReason::ProtocolRejected, entropy, out);
                if self.lcp.terms.is_looped() {
                    self.terminate_for(now, CloseReason::LoopDetected, "loop", out);
                } else if self.lcp.terms.is_auth_refused() {
                    let reason = CloseReason::NoAuthMethod;
                    self.terminate_for(now, reason, "authentication required", out);
                }
            }
        }
    }

    /// Ends the wait for the peer's first LCP frame.
    pub(super) fn release_lcp(&mut self, now: Instant, out: &mut impl Output<Event>) {
        self.shared.deadlines.clear(Timer::LcpHold);
        if self.phase == Phase::Establish && self.lcp.state() == State::Starting {
            let cx = &mut self.shared.context(now, out);
            self.lcp.command(cx, automaton::Event::Up);
        }
    }

    pub(super) fn lcp_changed(
        &mut self,
        now: Instant,
        layer: Layer,
        finished_for: CloseReason,
        entropy: &mut impl Entropy,
        out: &mut impl Output<Event>,
    ) {
        if layer.down && self.lcp.state() == State::Stopping {
            self.closing.get_or_insert(finished_for);
            self.leave_network(out);
            self.phase = Phase::Terminate;
        } else if layer.down && self.is_committed() {
            let reason = CloseReason::Renegotiated;
            self.terminate_for(now, reason, "no renegotiation", out);
        } else if layer.down && self.phase != Phase::Terminate {
            self.leave_network(out);
            self.phase = Phase::Establish;
            let limit = now + self.lcp.terms.role.times().lcp_limit;
            let deadline = limit.min(self.setup_until);
            self.shared.deadlines.set(Timer::Phase, deadline);
        }
        if layer.finished {
            self.finish(self.closing.unwrap_or(finished_for), out);
        }
        if layer.up && self.phase == Phase::Establish {
            self.identify(out);
            out.event(Event::LcpOpened);
            self.start_authentication(now, entropy, out);
        }
    }

    /// Says who we are, as clients do that are imitated (RFC 1570 §2.1).
    fn identify(&mut self, out: &mut impl Output<Event>) {
        let Role::Authenticatee(config) = self.lcp.terms.role.clone() else {
            return;
        };
        let magic = self.magic();
        for text in config.identifications {
            let identifier = self.lcp.take_identifier();
            control::send(out, frame::LCP, code::IDENTIFICATION, identifier, |to| {
                to.u32(magic)?;
                to.put(text)
            });
        }
    }

    pub(super) fn handle_protocol_reject(
        &mut self,
        now: Instant,
        data: &[u8],
        entropy: &mut impl Entropy,
        out: &mut impl Output<Event>,
    ) {
        let Some((protocol, _)) = data.split_first_chunk::<2>() else {
            return;
        };
        match u16::from_be_bytes(*protocol) {
            frame::LCP => {
                let cx = &mut self.shared.context(now, out);
                let layer = self.lcp.handle_protocol_reject(cx);
                let reason = CloseReason::ProtocolRejected;
                self.lcp_changed(now, layer, reason, entropy, out);
            }
            frame::IPCP => {
                if let Some(ipcp) = &mut self.ipcp {
                    let layer = ipcp.handle_protocol_reject(&mut self.shared.context(now, out));
                    self.ipcp_changed(now, layer, out);
                }
            }
            frame::IPV6CP => {
                if let Some(ipv6cp) = &mut self.ipv6cp {
                    let layer = ipv6cp.handle_protocol_reject(&mut self.shared.context(now, out));
                    self.ipv6cp_changed(now, layer, out);
                }
            }
            protocol => {
                // What it agreed to in LCP it will not do after all.
                let method = self.lcp.terms.auth_method();
                if self.phase == Phase::Authenticate
                    && method.is_some_and(|method| method.protocol() == protocol)
                {
                    let reason = CloseReason::NoAuthMethod;
                    self.terminate_for(now, reason, "authentication required", out);
                }
            }
        }
    }

    pub(super) fn answer_echo(
        &mut self,
        now: Instant,
        packet: Packet<'_>,
        out: &mut impl Output<Event>,
    ) {
        let Some((theirs, data)) = packet.data.split_first_chunk::<4>() else {
            return;
        };
        let magic = self.magic();
        let is_own = magic != 0 && u32::from_be_bytes(*theirs) == magic;
        if is_own || !self.shared.limits.echoes.allow(now) {
            return;
        }
        // Code to length, and the magic number.
        let room = usize::from(frame::send_mru(self.peer_mru())).saturating_sub(8);
        let data = data.get(..room).unwrap_or(data);
        control::send(out, frame::LCP, code::ECHO_REPLY, packet.identifier, |to| {
            to.u32(magic)?;
            to.put(data)
        });
    }

    /// The magic number in it is not looked at: SoftEther copies ours, Open SSTP Client sends a text.
    pub(super) fn handle_echo_reply(
        &mut self,
        now: Instant,
        identifier: u8,
        out: &mut impl Output<Event>,
    ) {
        if let Some((sent, at)) = self.echo.sent
            && sent == identifier
        {
            self.echo = Echo::default();
            let round_trip = now.saturating_since(at);
            out.event(Event::EchoReply { round_trip });
        }
    }

    pub(super) fn echo_due(&mut self, now: Instant, out: &mut impl Output<Event>) {
        let Some(interval) = self.lcp.terms.role.echo_interval() else {
            return;
        };
        if self.echo.sent.is_some() {
            self.echo.missed = self.echo.missed.saturating_add(1);
        }
        if self.echo.missed >= ECHO_MISSED_MAX {
            self.finish(CloseReason::EchoTimeout, out);
            return;
        }
        self.echo(now, out);
        self.shared.deadlines.set(Timer::Echo, now + interval);
    }

    pub(in crate::ppp) fn start_echoes(&mut self, now: Instant) {
        if let Some(interval) = self.lcp.terms.role.echo_interval() {
            self.shared.deadlines.set(Timer::Echo, now + interval);
        }
    }

    pub(super) fn reject_protocol(
        &mut self,
        now: Instant,
        protocol: u16,
        information: &[u8],
        out: &mut impl Output<Event>,
    ) {
        // Packets of protocols that are not open, and compressed ones: data, not a question.
        let is_data = matches!(
            protocol,
            frame::IPV4 | frame::IPV6 | 0x002d | 0x002f | 0x003d | 0x00fd
        );
        if is_data || !self.lcp.is_open() || !self.shared.limits.rejects.allow(now) {
            return;
        }
        let identifier = self.lcp.take_identifier();
        let information = information.get(..REJECTED_LEN_MAX).unwrap_or(information);
        control::send(out, frame::LCP, code::PROTOCOL_REJECT, identifier, |to| {
            to.u16(protocol)?;
            to.put(information)
        });
    }
}
