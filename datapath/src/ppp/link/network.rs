//! The network protocols on a link (RFC 1661 §3.6): when they start, and what passes while they are open.
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::indexing_slicing))]

use super::{
    Assignment, AuthenticateeConfig, AuthenticatorConfig, CloseReason, Echo, Event, Exchange, Link,
    Timer,
};
use crate::output::{Entropy, Output};
use crate::ppp::automaton::{self, State};
use crate::ppp::config::NetworkOrder;
use crate::ppp::control::{self, Packet, code};
use crate::ppp::frame;
use crate::ppp::ipcp::Ipcp;
use crate::ppp::ipv6cp::Ipv6cp;
use crate::ppp::negotiation::{Context, Layer, Negotiation, Terms};
use crate::time::Instant;

// Specification: RFC 1962.

const CCP: u16 = 0x80fd;

// Implementation.

/// A Configure-Request that comes before the assignment is kept if it is no longer than this: every
/// client's is. To drop it would cost the client its restart timer, 3 s.
const EARLY_LEN_MAX: usize = 128;

impl Link {
    pub(super) fn start_network_as_authenticator(
        &mut self,
        now: Instant,
        config: &AuthenticatorConfig,
        assignment: Assignment,
        entropy: &mut impl Entropy,
        out: &mut impl Output<Event>,
    ) {
        let held_until = (self.network_since + config.times.network_hold).max(now);
        let ipv4 = assignment.ipv4.filter(|_| config.ipv4);
        let ipv6 = assignment.ipv6.filter(|_| config.ipv6);
        self.assignment = Some(assignment);
        let cx = &mut self.shared.context(now, out);
        self.ipcp = ipv4.map(|ipv4| {
            let mut ipcp = Negotiation::new(Ipcp::authenticator(ipv4), 1);
            ipcp.command(cx, automaton::Event::Open);
            cx.deadlines.set(Timer::IpcpHold, held_until);
            ipcp
        });
        self.ipv6cp = ipv6.map(|ipv6| {
            let mut ipv6cp = Negotiation::new(Ipv6cp::authenticator(ipv6), 1);
            ipv6cp.command(cx, automaton::Event::Open);
            cx.deadlines.set(Timer::Ipv6cpHold, held_until);
            ipv6cp
        });
        if self.ipcp.is_none() && self.ipv6cp.is_none() {
            let reason = CloseReason::NoNetworkProtocol;
            self.terminate_for(now, reason, "no network protocol", out);
            return;
        }
        let [ipcp, ipv6cp] = core::mem::take(&mut self.early);
        if let Some(request) = ipv6cp {
            self.handle_ipv6cp(now, &request, entropy, out);
        }
        if let Some(request) = ipcp {
            self.handle_ipcp(now, &request, entropy, out);
        }
    }

    pub(super) fn start_network(
        &mut self,
        now: Instant,
        config: &AuthenticateeConfig,
        entropy: &mut impl Entropy,
        out: &mut impl Output<Event>,
    ) {
        let cx = &mut self.shared.context(now, out);
        self.ipv6cp = config
            .ipv6
            .then(|| Negotiation::new(Ipv6cp::authenticatee(entropy), 1));
        self.ipcp = config
            .ipv4
            .then(|| Negotiation::new(Ipcp::authenticatee(config), 1));
        if config.network_order == NetworkOrder::Ipv6First || !config.ipv4 {
            open_at_once(self.ipv6cp.as_mut(), cx);
        }
        open_at_once(self.ipcp.as_mut(), cx);
        if config.network_order == NetworkOrder::Ipv4First {
            open_at_once(self.ipv6cp.as_mut(), cx);
        }
        if let Some(options) = config.ccp {
            control::send(cx.out, CCP, code::CONFIGURE_REQUEST, 1, |to| {
                to.put(options)
            });
        }
        if self.ipcp.is_none() && self.ipv6cp.is_none() {
            let reason = CloseReason::NoNetworkProtocol;
            self.terminate_for(now, reason, "no network protocol", out);
        }
    }

    pub(super) fn release_ipcp(&mut self, now: Instant, out: &mut impl Output<Event>) {
        if let Some(ipcp) = &mut self.ipcp {
            ipcp.release(&mut self.shared.context(now, out));
        }
    }

    pub(super) fn release_ipv6cp(&mut self, now: Instant, out: &mut impl Output<Event>) {
        if let Some(ipv6cp) = &mut self.ipv6cp {
            ipv6cp.release(&mut self.shared.context(now, out));
        }
    }

    /// Whether what is not configured now may be configured yet.
    pub(super) const fn awaits_assignment(&self) -> bool {
        self.is_authenticator() && self.assignment.is_none()
    }

    pub(super) fn handle_ipcp(
        &mut self,
        now: Instant,
        information: &[u8],
        entropy: &mut impl Entropy,
        out: &mut impl Output<Event>,
    ) {
        let awaited = self.awaits_assignment();
        let Some(ipcp) = &mut self.ipcp else {
            if awaited {
                let [early, _] = &mut self.early;
                keep_early(early, information);
            } else {
                self.reject_protocol(now, frame::IPCP, information, out);
            }
            return;
        };
        let Ok(packet) = Packet::parse(information) else {
            return;
        };
        let cx = &mut self.shared.context(now, out);
        if packet.code == code::CONFIGURE_REQUEST {
            cx.deadlines.clear(Timer::IpcpHold);
            ipcp.release(cx);
        }
        let layer = ipcp.handle_packet(cx, packet, entropy);
        self.ipcp_changed(now, layer, out);
    }

    pub(super) fn ipcp_changed(
        &mut self,
        now: Instant,
        layer: Layer,
        out: &mut impl Output<Event>,
    ) {
        if layer.down && self.ipv4_open {
            self.ipv4_open = false;
            out.event(Event::Ipv4Closed);
        }
        if layer.up
            && let Some(ipcp) = &mut self.ipcp
        {
            let terms = &ipcp.terms;
            if terms.local().is_unspecified() {
                // The server has no address for us: open, but of no use.
                ipcp.close(&mut self.shared.context(now, out), b"no address");
            } else {
                self.ipv4_open = true;
                out.event(Event::Ipv4Opened {
                    local: terms.local(),
                    peer: terms.peer(),
                    dns: terms.dns(),
                    nbns: terms.nbns(),
                });
            }
        }
        if (layer.up || layer.finished)
            && let Some(ipv6cp) = &mut self.ipv6cp
            && ipv6cp.state() == State::Initial
        {
            open_at_once(Some(ipv6cp), &mut self.shared.context(now, out));
        }
        self.network_changed(now, layer, out);
    }

    pub(super) fn handle_ipv6cp(
        &mut self,
        now: Instant,
        information: &[u8],
        entropy: &mut impl Entropy,
        out: &mut impl Output<Event>,
    ) {
        let awaited = self.awaits_assignment();
        let Some(ipv6cp) = &mut self.ipv6cp else {
            if awaited {
                let [_, early] = &mut self.early;
                keep_early(early, information);
            } else {
                self.reject_protocol(now, frame::IPV6CP, information, out);
            }
            return;
        };
        let Ok(packet) = Packet::parse(information) else {
            return;
        };
        let cx = &mut self.shared.context(now, out);
        if packet.code == code::CONFIGURE_REQUEST {
            cx.deadlines.clear(Timer::Ipv6cpHold);
            ipv6cp.release(cx);
        }
        let layer = ipv6cp.handle_packet(cx, packet, entropy);
        self.ipv6cp_changed(now, layer, out);
    }

    pub(super) fn ipv6cp_changed(
        &mut self,
        now: Instant,
        layer: Layer,
        out: &mut impl Output<Event>,
    ) {
        if layer.down && self.ipv6_open {
            self.ipv6_open = false;
            out.event(Event::Ipv6Closed);
        }
        if layer.up
            && let Some(ipv6cp) = &self.ipv6cp
        {
            self.ipv6_open = true;
            out.event(Event::Ipv6Opened {
                local_id: ipv6cp.terms.local_id(),
                peer_id: ipv6cp.terms.peer_id(),
            });
        }
        self.network_changed(now, layer, out);
    }

    /// Bounds the time without any network protocol, and ends the link when none can come.
    pub(super) fn network_changed(
        &mut self,
        now: Instant,
        layer: Layer,
        out: &mut impl Output<Event>,
    ) {
        if self.ipv4_open || self.ipv6_open {
            if layer.up {
                self.shared.deadlines.clear(Timer::Phase);
                // The peer has heard the verdict; its repetition is needed no more.
                if matches!(self.exchange, Exchange::Authenticator(_)) {
                    self.exchange = Exchange::None;
                }
            }
            return;
        }
        if layer.down {
            let limit = self.lcp.terms.role.times().network_limit;
            self.shared.deadlines.set(Timer::Phase, now + limit);
        }
        let is_over = |state: State| matches!(state, State::Stopped | State::Closed);
        let ipv4_over = self.ipcp.as_ref().is_none_or(|ipcp| is_over(ipcp.state()));
        let ipv6_over = self
            .ipv6cp
            .as_ref()
            .is_none_or(|ipv6cp| is_over(ipv6cp.state()));
        if layer.finished && ipv4_over && ipv6_over {
            let reason = CloseReason::NoNetworkProtocol;
            self.terminate_for(now, reason, "no network protocol", out);
        }
    }

    /// LCP is going down: nothing above it stands any more, and nothing is said about it.
    pub(super) fn leave_network(&mut self, out: &mut impl Output<Event>) {
        self.exchange = Exchange::None;
        self.ipcp = None;
        self.ipv6cp = None;
        self.assignment = None;
        self.early = [None, None];
        self.echo = Echo::default();
        for timer in Timer::ALL {
            if timer != Timer::LcpRestart {
                self.shared.deadlines.clear(timer);
            }
        }
        if core::mem::take(&mut self.ipv4_open) {
            out.event(Event::Ipv4Closed);
        }
        if core::mem::take(&mut self.ipv6_open) {
            out.event(Event::Ipv6Closed);
        }
    }
}

fn open_at_once<T: Terms, O: Output<Event>>(
    protocol: Option<&mut Negotiation<T>>,
    cx: &mut Context<'_, O>,
) {
    if let Some(protocol) = protocol {
        protocol.command(cx, automaton::Event::Open);
        protocol.command(cx, automaton::Event::Up);
    }
}

fn keep_early(early: &mut Option<Box<[u8]>>, information: &[u8]) {
    let is_request =
        Packet::parse(information).is_ok_and(|packet| packet.code == code::CONFIGURE_REQUEST);
    if is_request && information.len() <= EARLY_LEN_MAX {
        *early = Some(information.into());
    }
}
