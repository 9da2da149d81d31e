//! A PPP link: the phases of RFC 1661 §3.2, their deadlines, and who may speak when; both roles.
//!
//! ```text
//! up ─▶ Establish ── LCP opened ─▶ Authenticate ── verdict ─▶ Network ─ … ─▶ Terminate ─▶ Dead
//!         20 s                        60 s                    30 s to the       3 s
//!                                                             first protocol
//! ```
//!
//! The owner calls [`Link::up`] once the call admits PPP, gives it every frame that
//! [`Link::admits`] does not claim, and asks [`Link::next_timeout`]. [`Event::Authenticate`] is
//! answered by [`Link::handle_verdict`] whenever the answer is there, and [`Event::Authenticated`] by
//! [`Link::assign`]; nothing about addresses is said before. [`Event::Closed`] comes once and last.
//!
//! What is out of place is discarded without a word: frames of other protocols before LCP is open,
//! network protocols before the verdict, a second proof while one is being judged.
//!
//! The peer may negotiate LCP again until it has sent a proof of who it is; then authentication starts
//! again. Later it may not, and the link ends: a verdict that is still out could be taken for the next
//! proof's, and crypto binding has bound the first login, not a second one. So each of
//! [`Event::Authenticate`] (but for EAP's rounds) and [`Event::Authenticated`] comes once.
//!
//! It does not move packets: it says whether they may pass.
//!
//! | module | holds |
//! |---|---|
//! | `establish` | LCP's packets, echo, rejects |
//! | `authenticate` | who speaks when, and what a decision leads to |
//! | `network` | IPCP and IPV6CP: held start, opening, closing |
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::indexing_slicing))]

mod authenticate;
mod establish;
mod network;
#[cfg(test)]
mod tests;

use core::net::Ipv4Addr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::crypto::hlak::Hlak;
use crate::output::{Entropy, Output};
use crate::ppp::auth::{
    AuthMethod, Authenticatee, Authenticator, Credentials, Outcome, Verdict, error_words,
};
use crate::ppp::automaton::{self, State};
use crate::ppp::control::{self, code};
use crate::ppp::frame;
use crate::ppp::ipcp::Ipcp;
use crate::ppp::ipv6cp::Ipv6cp;
use crate::ppp::lcp::{Lcp, Role};
use crate::ppp::negotiation::{Context, Limits, Negotiation};
use crate::time::{DeadlineKind, Deadlines, Duration, Instant};

pub use crate::ppp::config::{
    Assignment, AuthenticateeConfig, AuthenticatorConfig, Ipv4Assignment, Ipv6Assignment,
    NetworkOrder, Persona, Times,
};
pub use crate::ppp::snapshot::{LinkSnapshot, RestoreError};

/// Where a link stands (RFC 1661 §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Phase {
    /// Not up yet, or over.
    Dead,
    /// LCP negotiates.
    Establish,
    /// LCP is open; the peer is being authenticated.
    Authenticate,
    /// The peer is accepted; network protocols negotiate and open.
    Network,
    /// A Terminate-Request is out.
    Terminate,
}

/// Why a link ended; a closed list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum CloseReason {
    /// The peer sent a Terminate-Request.
    #[error("the peer terminated the link")]
    PeerTerminated,
    /// The peer was refused, or refused us.
    #[error("authentication failed (error {error}, {})", error_words(*.error))]
    AuthenticationFailed {
        /// RFC 2759 §6 error number; 691 where the method has none.
        error: u16,
    },
    /// Authenticatee: the server accepted us without proving that it knows the password.
    #[error("the server did not prove that it knows the password")]
    ServerUnproven,
    /// The two ends have no authentication method in common, or the peer refuses to authenticate.
    #[error("no authentication method in common")]
    NoAuthMethod,
    /// No network protocol opened, or none is left.
    #[error("no network protocol is open")]
    NoNetworkProtocol,
    /// The phase's deadline passed.
    #[error("time is up in phase {0:?}")]
    Timeout(Phase),
    /// The peer answered no LCP Echo-Request.
    #[error("no answer to LCP Echo-Requests")]
    EchoTimeout,
    /// The peer is ourselves (RFC 1661 §6.4).
    #[error("the link is looped back")]
    LoopDetected,
    /// The peer called forth more than 30 renegotiations a minute.
    #[error("too many renegotiations")]
    RenegotiationLimit,
    /// The peer negotiated LCP again after authentication had begun in earnest.
    #[error("LCP negotiated again after authentication had begun")]
    Renegotiated,
    /// The peer rejected LCP itself, or a packet that LCP cannot do without.
    #[error("the peer rejected LCP")]
    ProtocolRejected,
    /// The owner ended it.
    #[error("terminated by us")]
    TerminatedByUs,
}

/// News for the owner of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// LCP opened. It may come again before anything of authentication was told.
    LcpOpened,
    /// Authenticator: judge these and answer by [`Link::handle_verdict`].
    Authenticate(Credentials),
    /// Authenticator: the peer has been told that it is accepted; answer by [`Link::assign`].
    /// Authenticatee: we are accepted, and the server is verified.
    Authenticated {
        /// The key for crypto binding.
        hlak: Hlak,
    },
    /// IPCP opened: IPv4 packets may pass.
    Ipv4Opened {
        /// Our address.
        local: Ipv4Addr,
        /// The peer's address; unspecified if it named none.
        peer: Ipv4Addr,
        /// DNS servers that the authenticator gave.
        dns: [Option<Ipv4Addr>; 2],
        /// NetBIOS name servers that the authenticator gave.
        nbns: [Option<Ipv4Addr>; 2],
    },
    /// IPV6CP opened: IPv6 packets may pass.
    Ipv6Opened {
        /// Our interface identifier.
        local_id: u64,
        /// The peer's.
        peer_id: u64,
    },
    /// IPv4 packets may pass no more.
    Ipv4Closed,
    /// IPv6 packets may pass no more.
    Ipv6Closed,
    /// The peer's LCP Identification, as it came: text or binary (RFC 1570 §2.1).
    PeerIdentification(Vec<u8>),
    /// An LCP Echo-Request of ours was answered.
    EchoReply {
        /// How long it took.
        round_trip: Duration,
    },
    /// The link is over; nothing follows.
    Closed(CloseReason),
}

/// The deadlines of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timer {
    LcpRestart,
    IpcpRestart,
    Ipv6cpRestart,
    /// Our first LCP request waits for the peer's.
    LcpHold,
    IpcpHold,
    Ipv6cpHold,
    /// The phase must be over.
    Phase,
    /// Ask the peer to authenticate itself, or repeat what was said.
    Ask,
    /// A refused peer has had time to show why.
    Linger,
    Echo,
}

impl Timer {
    const ALL: [Self; 10] = [
        Self::LcpRestart,
        Self::IpcpRestart,
        Self::Ipv6cpRestart,
        Self::LcpHold,
        Self::IpcpHold,
        Self::Ipv6cpHold,
        Self::Phase,
        Self::Ask,
        Self::Linger,
        Self::Echo,
    ];
    pub(super) const COUNT: usize = Self::ALL.len();
}

impl DeadlineKind for Timer {
    fn index(self) -> usize {
        self as usize
    }
    fn from_index(index: usize) -> Self {
        Self::ALL.get(index).copied().unwrap_or(Self::Phase)
    }
}

/// What all automata of a link share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) deadlines: Deadlines<Timer, { Timer::COUNT }>,
    limits: Limits,
    pub(super) restart: Duration,
}

impl Shared {
    fn context<'a, O>(&'a mut self, now: Instant, out: &'a mut O) -> Context<'a, O> {
        Context {
            now,
            out,
            deadlines: &mut self.deadlines,
            limits: &mut self.limits,
            restart: self.restart,
        }
    }
}

/// The authentication under way or done.
#[derive(Debug, Default)]
enum Exchange {
    #[default]
    None,
    Authenticator(Box<Authenticator>),
    Authenticatee(Box<Authenticatee>),
}

/// LCP Echo-Requests of ours.
#[derive(Clone, Debug, Default)]
struct Echo {
    sent: Option<(u8, Instant)>,
    missed: u8,
}

/// One PPP link.
#[derive(Debug)]
pub struct Link {
    pub(super) phase: Phase,
    pub(super) lcp: Negotiation<Lcp>,
    pub(super) ipcp: Option<Negotiation<Ipcp>>,
    pub(super) ipv6cp: Option<Negotiation<Ipv6cp>>,
    pub(super) ipv4_open: bool,
    pub(super) ipv6_open: bool,
    /// Authenticator: what the accepted peer was given.
    pub(super) assignment: Option<Assignment>,
    exchange: Exchange,
    pub(super) shared: Shared,
    echo: Echo,
    /// LCP and authentication end by then, however often LCP starts again.
    setup_until: Instant,
    network_since: Instant,
    /// Configure-Requests of IPCP and IPV6CP that came before the assignment.
    early: [Option<Box<[u8]>>; 2],
    /// Why it is ending or has ended.
    closing: Option<CloseReason>,
}

impl Link {
    /// The end that demands authentication; many links may share one `Arc` of a configuration.
    pub fn authenticator(
        config: impl Into<Arc<AuthenticatorConfig>>,
        entropy: &mut impl Entropy,
    ) -> Self {
        Self::new(Role::Authenticator(config.into()), 1, entropy)
    }

    /// The end that authenticates itself.
    pub fn authenticatee(
        config: impl Into<Arc<AuthenticateeConfig>>,
        entropy: &mut impl Entropy,
    ) -> Self {
        Self::new(Role::Authenticatee(config.into()), 0, entropy)
    }

    fn new(role: Role, first_identifier: u8, entropy: &mut impl Entropy) -> Self {
        let shared = Shared {
            restart: role.times().restart,
            ..Shared::default()
        };
        Self {
            phase: Phase::Dead,
            lcp: Negotiation::new(Lcp::new(role, entropy), first_identifier),
            ipcp: None,
            ipv6cp: None,
            ipv4_open: false,
            ipv6_open: false,
            assignment: None,
            exchange: Exchange::None,
            shared,
            echo: Echo::default(),
            setup_until: Instant::ZERO,
            network_since: Instant::ZERO,
            early: [None, None],
            closing: None,
        }
    }

    /// Where the link stands.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether a network packet of this protocol may pass now, in either direction.
    #[must_use]
    pub const fn admits(&self, protocol: u16) -> bool {
        match protocol {
            frame::IPV4 => self.ipv4_open,
            frame::IPV6 => self.ipv6_open,
            _ => false,
        }
    }

    /// What the peer can receive, as it said: bytes of information.
    #[must_use]
    pub const fn peer_mru(&self) -> u16 {
        self.lcp.terms.peer_mru
    }

    /// The largest packet to send: the least of the assignment, the peer's MRU and what fits.
    #[must_use]
    pub fn send_mtu(&self) -> u16 {
        let assigned = self.assignment.as_ref().map_or(0, |given| given.mtu);
        let bound = if assigned == 0 { u16::MAX } else { assigned };
        frame::send_mru(self.peer_mru()).min(bound)
    }

    /// Our magic number; zero if the peer would not have one.
    #[must_use]
    pub const fn magic(&self) -> u32 {
        self.lcp.terms.magic()
    }

    /// The authentication method in force, once LCP is open.
    #[must_use]
    pub const fn auth_method(&self) -> Option<AuthMethod> {
        if self.lcp.is_open() {
            self.lcp.terms.auth_method()
        } else {
            None
        }
    }

    /// When [`Link::handle_timeout`] is due.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        self.shared.deadlines.next()
    }

    /// The call carries PPP from now on. The authenticatee starts LCP at once, the authenticator as
    /// soon as the peer does, or after [`Times::lcp_hold`].
    pub fn up(&mut self, now: Instant, _entropy: &mut impl Entropy, out: &mut impl Output<Event>) {
        if self.phase != Phase::Dead || self.closing.is_some() {
            return;
        }
        if self.lcp.terms.is_auth_refused() {
            self.finish(CloseReason::NoAuthMethod, out);
            return;
        }
        self.phase = Phase::Establish;
        let times = self.lcp.terms.role.times().clone();
        self.setup_until = now + times.lcp_limit + times.auth_limit;
        let deadlines = &mut self.shared.deadlines;
        deadlines.set(Timer::Phase, now + times.lcp_limit);
        let is_authenticator = self.is_authenticator();
        let cx = &mut self.shared.context(now, out);
        self.lcp.command(cx, automaton::Event::Open);
        if is_authenticator {
            cx.deadlines.set(Timer::LcpHold, now + times.lcp_hold);
        } else {
            self.lcp.command(cx, automaton::Event::Up);
        }
    }

    /// Handles a frame that is not a network packet to be passed on: every control protocol, and
    /// protocols nobody knows. Any bytes will do.
    pub fn handle_frame(
        &mut self,
        now: Instant,
        protocol: u16,
        information: &[u8],
        entropy: &mut impl Entropy,
        out: &mut impl Output<Event>,
    ) {
        if self.phase == Phase::Dead || !self.shared.limits.packets.allow(now) {
            return;
        }
        match (protocol, self.phase) {
            (frame::LCP, _) => self.handle_lcp(now, information, entropy, out),
            (_, Phase::Dead | Phase::Establish | Phase::Terminate) => {}
            (frame::PAP | frame::CHAP | frame::EAP, _) => {
                self.handle_auth(now, protocol, information, entropy, out);
            }
            // Some peers end the session on a Protocol-Reject at this time.
            (_, Phase::Authenticate) => {}
            (frame::IPCP, _) => self.handle_ipcp(now, information, entropy, out),
            (frame::IPV6CP, _) => self.handle_ipv6cp(now, information, entropy, out),
            (protocol, Phase::Network) => self.reject_protocol(now, protocol, information, out),
        }
        if self.shared.limits.exceeded {
            let reason = CloseReason::RenegotiationLimit;
            self.terminate_for(now, reason, "too many renegotiations", out);
        }
    }

    /// Acts on every deadline that has passed.
    pub fn handle_timeout(
        &mut self,
        now: Instant,
        entropy: &mut impl Entropy,
        out: &mut impl Output<Event>,
    ) {
        // Each deadline fires once a call at most, were an interval ever zero.
        for _ in 0..Timer::COUNT {
            let Some(timer) = self.shared.deadlines.take_expired(now) else {
                return;
            };
            self.expire(now, timer, entropy, out);
        }
    }

    fn expire(
        &mut self,
        now: Instant,
        timer: Timer,
        entropy: &mut impl Entropy,
        out: &mut impl Output<Event>,
    ) {
        match timer {
            Timer::LcpRestart => {
                let reason = CloseReason::Timeout(self.phase);
                let layer = self.lcp.handle_timeout(&mut self.shared.context(now, out));
                self.lcp_changed(now, layer, reason, entropy, out);
            }
            Timer::IpcpRestart => {
                if let Some(ipcp) = &mut self.ipcp {
                    let layer = ipcp.handle_timeout(&mut self.shared.context(now, out));
                    self.ipcp_changed(now, layer, out);
                }
            }
            Timer::Ipv6cpRestart => {
                if let Some(ipv6cp) = &mut self.ipv6cp {
                    let layer = ipv6cp.handle_timeout(&mut self.shared.context(now, out));
                    self.ipv6cp_changed(now, layer, out);
                }
            }
            Timer::LcpHold => self.release_lcp(now, out),
            Timer::IpcpHold => self.release_ipcp(now, out),
            Timer::Ipv6cpHold => self.release_ipv6cp(now, out),
            Timer::Phase => match self.phase {
                Phase::Dead | Phase::Terminate => {}
                Phase::Establish => self.finish(CloseReason::Timeout(self.phase), out),
                Phase::Network if self.ipcp.is_some() || self.ipv6cp.is_some() => {
                    let reason = CloseReason::NoNetworkProtocol;
                    self.terminate_for(now, reason, "no network protocol", out);
                }
                Phase::Authenticate | Phase::Network => {
                    let reason = CloseReason::Timeout(self.phase);
                    self.terminate_for(now, reason, "too slow", out);
                }
            },
            Timer::Ask => self.speak(now, out),
            Timer::Linger => {
                if let Some(reason) = self.closing {
                    self.terminate_for(now, reason, "authentication failed", out);
                }
            }
            Timer::Echo => self.echo_due(now, out),
        }
    }

    /// The owner's answer to [`Event::Authenticate`]; ignored if nothing was asked.
    pub fn handle_verdict(
        &mut self,
        now: Instant,
        verdict: Verdict,
        entropy: &mut impl Entropy,
        out: &mut impl Output<Event>,
    ) {
        let (Phase::Authenticate, Exchange::Authenticator(exchange)) =
            (self.phase, &mut self.exchange)
        else {
            return;
        };
        match exchange.handle_verdict(verdict, entropy, out) {
            Outcome::Ignored | Outcome::Continued => {}
            Outcome::Accepted(hlak) => self.authenticated(now, hlak, entropy, out),
            Outcome::Rejected { error } => {
                self.closing = Some(CloseReason::AuthenticationFailed { error });
                let linger = self.lcp.terms.role.times().failure_linger;
                self.shared.deadlines.clear(Timer::Ask);
                self.shared.deadlines.set(Timer::Linger, now + linger);
            }
        }
    }

    /// Authenticator: the addresses of an accepted peer, once; starts the network protocols. Ignored
    /// before [`Event::Authenticated`]. What it leaves out is rejected for good; if it leaves out
    /// everything the link ends.
    pub fn assign(
        &mut self,
        now: Instant,
        assignment: Assignment,
        entropy: &mut impl Entropy,
        out: &mut impl Output<Event>,
    ) {
        let Role::Authenticator(config) = self.lcp.terms.role.clone() else {
            return;
        };
        if self.phase == Phase::Network && self.assignment.is_none() {
            self.start_network_as_authenticator(now, &config, assignment, entropy, out);
        }
    }

    /// Ends the link in order: Terminate-Request, its acknowledgement or 3 s, then [`Event::Closed`].
    pub fn terminate(&mut self, now: Instant, text: &str, out: &mut impl Output<Event>) {
        self.terminate_for(now, CloseReason::TerminatedByUs, text, out);
    }

    /// Sends an LCP Echo-Request now, if LCP is open; [`Event::EchoReply`] follows.
    pub fn echo(&mut self, now: Instant, out: &mut impl Output<Event>) {
        if !self.lcp.is_open() {
            return;
        }
        let identifier = self.lcp.take_identifier();
        let magic = self.magic();
        control::send(out, frame::LCP, code::ECHO_REQUEST, identifier, |to| {
            to.u32(magic)
        });
        self.echo.sent = Some((identifier, now));
    }

    pub(super) const fn is_authenticator(&self) -> bool {
        matches!(self.lcp.terms.role, Role::Authenticator(_))
    }

    fn terminate_for(
        &mut self,
        now: Instant,
        reason: CloseReason,
        text: &str,
        out: &mut impl Output<Event>,
    ) {
        if self.phase == Phase::Terminate || (self.phase == Phase::Dead && self.closing.is_some()) {
            return;
        }
        let reason = *self.closing.get_or_insert(reason);
        self.leave_network(out);
        self.phase = Phase::Terminate;
        let cx = &mut self.shared.context(now, out);
        self.lcp.close(cx, text.as_bytes());
        if self.lcp.state() != State::Closing {
            self.finish(reason, out);
        }
    }

    fn finish(&mut self, reason: CloseReason, out: &mut impl Output<Event>) {
        if self.phase == Phase::Dead && self.closing.is_some() {
            return;
        }
        self.leave_network(out);
        self.shared.deadlines.clear_all();
        self.phase = Phase::Dead;
        self.closing = Some(reason);
        out.event(Event::Closed(reason));
    }
}
