//! Authentication on a link: who speaks when, and what a decision means for the phase (RFC 1661 §3.5).
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::indexing_slicing))]

use super::{CloseReason, Event, Exchange, Link, Phase, Timer};
use crate::crypto::hlak::Hlak;
use crate::output::{Entropy, Output};
use crate::ppp::auth::{Authenticatee, Authenticator, Progress};
use crate::ppp::control::Packet;
use crate::ppp::lcp::Role;
use crate::time::{Duration, Instant};

// Implementation.

/// The first repetition of a Challenge or Identity Request: early, for peers that were not listening.
const ASK_AGAIN_FIRST: Duration = Duration::from_secs(1);
/// Every later one, and PAP's.
const ASK_AGAIN: Duration = Duration::from_secs(3);

impl Link {
    /// Whether a login is being judged or has been: there will be no other on this link.
    pub(super) fn is_committed(&self) -> bool {
        match (&self.exchange, self.phase) {
            (Exchange::Authenticator(exchange), _) => exchange.is_committed(),
            (_, phase) => phase == Phase::Network,
        }
    }

    pub(super) fn start_authentication(
        &mut self,
        now: Instant,
        entropy: &mut impl Entropy,
        out: &mut impl Output<Event>,
    ) {
        self.phase = Phase::Authenticate;
        let role = self.lcp.terms.role.clone();
        let times = role.times();
        let deadline = (now + times.auth_limit).min(self.setup_until);
        self.shared.deadlines.set(Timer::Phase, deadline);
        match (role.clone(), self.lcp.terms.auth_method()) {
            (Role::Authenticator(_), Some(method)) => {
                let exchange = Authenticator::new(method, 1, entropy);
                self.exchange = Exchange::Authenticator(Box::new(exchange));
                self.shared.deadlines.set(Timer::Ask, now + times.auth_gap);
            }
            (Role::Authenticatee(config), Some(method)) => {
                let exchange = Authenticatee::new(config, method);
                self.exchange = Exchange::Authenticatee(Box::new(exchange));
                self.speak(now, out);
            }
            (Role::Authenticatee(config), None) if config.allow_unauthenticated => {
                self.authenticated(now, Hlak::ZERO, entropy, out);
            }
            (_, None) => {
                let reason = CloseReason::NoAuthMethod;
                self.terminate_for(now, reason, "authentication required", out);
            }
        }
    }

    /// Says what is ours to say without being asked, and sets the time to say it again.
    pub(super) fn speak(&mut self, now: Instant, out: &mut impl Output<Event>) {
        let later = match (&mut self.exchange, &self.lcp.terms.role) {
            (Exchange::Authenticator(exchange), Role::Authenticator(config)) => {
                let later = if exchange.is_first_question() {
                    ASK_AGAIN_FIRST
                } else {
                    ASK_AGAIN
                };
                exchange.ask(&config.name, out).then_some(later)
            }
            (Exchange::Authenticatee(exchange), _) => exchange.speak(out).then_some(ASK_AGAIN),
            _ => None,
        };
        if let Some(later) = later {
            self.shared.deadlines.set(Timer::Ask, now + later);
        }
    }

    pub(super) fn handle_auth(
        &mut self,
        now: Instant,
        protocol: u16,
        information: &[u8],
        entropy: &mut impl Entropy,
        out: &mut impl Output<Event>,
    ) {
        let Ok(packet) = Packet::parse(information) else {
            return;
        };
        let progress = match &mut self.exchange {
            Exchange::None => return,
            Exchange::Authenticator(exchange) => {
                if let Some(credentials) = exchange.handle_packet(protocol, packet, out) {
                    self.shared.deadlines.clear(Timer::Ask);
                    out.event(Event::Authenticate(credentials));
                }
                return;
            }
            Exchange::Authenticatee(exchange) => {
                exchange.handle_packet(now, protocol, packet, entropy, out)
            }
        };
        let reason = match progress {
            Progress::Pending => return,
            Progress::Authenticated(hlak) => {
                // A later one is a periodic challenge that went well (RFC 1994 §2); the key, which
                // crypto binding has used, stays.
                if self.phase == Phase::Authenticate {
                    self.authenticated(now, hlak, entropy, out);
                }
                return;
            }
            Progress::Failed { error } => CloseReason::AuthenticationFailed { error },
            Progress::ServerUnproven => CloseReason::ServerUnproven,
        };
        self.terminate_for(now, reason, "authentication failed", out);
    }

    pub(super) fn authenticated(
        &mut self,
        now: Instant,
        hlak: Hlak,
        entropy: &mut impl Entropy,
        out: &mut impl Output<Event>,
    ) {
        self.phase = Phase::Network;
        self.network_since = now;
        let limit = self.lcp.terms.role.times().network_limit;
        self.shared.deadlines.clear(Timer::Ask);
        self.shared.deadlines.set(Timer::Phase, now + limit);
        self.start_echoes(now);
        out.event(Event::Authenticated { hlak });
        if let Role::Authenticatee(config) = self.lcp.terms.role.clone() {
            self.start_network(now, &config, entropy, out);
        }
    }
}
