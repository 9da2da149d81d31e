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
//! network protocols before the verdict, a second proof while one is being judged. If the peer
//! negotiates LCP again, everything above it starts again, authentication included, and the owner is
//! asked again.
//!
//! It does not move packets: it says whether they may pass.
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

use core::net::Ipv4Addr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::crypto::hlak::Hlak;
use crate::output::{Entropy, Output};
use crate::ppp::auth::{
    AuthMethod, Authenticatee, Authenticator, Credentials, Outcome, Progress, Verdict,
};
use crate::ppp::automaton::{self, State};
use crate::ppp::control::{self, Packet, code};
use crate::ppp::frame;
use crate::ppp::ipcp::Ipcp;
use crate::ppp::ipv6cp::Ipv6cp;
use crate::ppp::lcp::{Lcp, Role};
use crate::ppp::negotiation::{Context, Layer, Limits, Negotiation};
use crate::time::{DeadlineKind, Deadlines, Duration, Instant};

pub use crate::ppp::config::{
    Assignment, AuthenticateeConfig, AuthenticatorConfig, Ipv4Assignment, Ipv6Assignment, Persona,
    Times,
};
pub use crate::ppp::snapshot::{LinkSnapshot, RestoreError};

// Implementation.

/// The first repetition of a Challenge or Identity Request: early, for peers that were not listening.
const ASK_AGAIN_FIRST: Duration = Duration::from_secs(1);
/// Every later one, and PAP's.
const ASK_AGAIN: Duration = Duration::from_secs(3);
/// LCP Echo-Requests in a row without an answer until the peer counts as dead.
const ECHO_MISSED_MAX: u8 = 3;
/// What a Protocol-Reject repeats of the information; see `negotiation`.
const REJECTED_LEN_MAX: usize = 64;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// The peer sent a Terminate-Request.
    PeerTerminated,
    /// The peer was refused, or refused us.
    AuthenticationFailed {
        /// RFC 2759 §6 error number; 691 where the method has none.
        error: u16,
    },
    /// Authenticatee: the server accepted us without proving that it knows the password.
    ServerUnproven,
    /// The two ends have no authentication method in common, or the peer refuses to authenticate.
    NoAuthMethod,
    /// No network protocol opened, or none is left.
    NoNetworkProtocol,
    /// The phase's deadline passed.
    Timeout(Phase),
    /// The peer answered no LCP Echo-Request.
    EchoTimeout,
    /// The peer is ourselves (RFC 1661 §6.4).
    LoopDetected,
    /// The peer called forth more than 30 renegotiations a minute.
    RenegotiationLimit,
    /// The peer rejected LCP itself, or a packet that LCP cannot do without.
    ProtocolRejected,
    /// The owner ended it.
    TerminatedByUs,
}

/// News for the owner of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// LCP opened. It may come again: then authentication starts again.
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
    network_since: Instant,
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
            network_since: Instant::ZERO,
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
            Timer::IpcpHold => {
                if let Some(ipcp) = &mut self.ipcp {
                    ipcp.command(&mut self.shared.context(now, out), automaton::Event::Up);
                }
            }
            Timer::Ipv6cpHold => {
                if let Some(ipv6cp) = &mut self.ipv6cp {
                    ipv6cp.command(&mut self.shared.context(now, out), automaton::Event::Up);
                }
            }
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
            Timer::Ask => self.ask_again(now, ASK_AGAIN, out),
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
        _entropy: &mut impl Entropy,
        out: &mut impl Output<Event>,
    ) {
        let Role::Authenticator(config) = &self.lcp.terms.role else {
            return;
        };
        if self.phase != Phase::Network || self.assignment.is_some() {
            return;
        }
        let ipv4 = assignment.ipv4.filter(|_| config.ipv4);
        let ipv6 = assignment.ipv6.filter(|_| config.ipv6);
        let held_until = (self.network_since + config.times.network_hold).max(now);
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

    // LCP

    fn handle_lcp(
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
    fn release_lcp(&mut self, now: Instant, out: &mut impl Output<Event>) {
        self.shared.deadlines.clear(Timer::LcpHold);
        if self.phase == Phase::Establish && self.lcp.state() == State::Starting {
            let cx = &mut self.shared.context(now, out);
            self.lcp.command(cx, automaton::Event::Up);
        }
    }

    fn lcp_changed(
        &mut self,
        now: Instant,
        layer: Layer,
        finished_for: CloseReason,
        entropy: &mut impl Entropy,
        out: &mut impl Output<Event>,
    ) {
        if layer.down && self.phase != Phase::Terminate {
            self.leave_network(out);
            self.phase = Phase::Establish;
            let limit = self.lcp.terms.role.times().lcp_limit;
            self.shared.deadlines.set(Timer::Phase, now + limit);
        }
        if layer.finished {
            self.finish(self.closing.unwrap_or(finished_for), out);
        }
        if layer.up && self.phase == Phase::Establish {
            out.event(Event::LcpOpened);
            self.start_authentication(now, entropy, out);
        }
    }

    fn handle_protocol_reject(
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
                self.closing.get_or_insert(CloseReason::ProtocolRejected);
                if layer.down {
                    self.leave_network(out);
                    self.phase = Phase::Terminate;
                }
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

    fn answer_echo(&mut self, now: Instant, packet: Packet<'_>, out: &mut impl Output<Event>) {
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
    fn handle_echo_reply(&mut self, now: Instant, identifier: u8, out: &mut impl Output<Event>) {
        if let Some((sent, at)) = self.echo.sent
            && sent == identifier
        {
            self.echo = Echo::default();
            let round_trip = now.saturating_since(at);
            out.event(Event::EchoReply { round_trip });
        }
    }

    fn echo_due(&mut self, now: Instant, out: &mut impl Output<Event>) {
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

    pub(super) fn start_echoes(&mut self, now: Instant) {
        if let Some(interval) = self.lcp.terms.role.echo_interval() {
            self.shared.deadlines.set(Timer::Echo, now + interval);
        }
    }

    fn reject_protocol(
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

    // Authentication

    fn start_authentication(
        &mut self,
        now: Instant,
        entropy: &mut impl Entropy,
        out: &mut impl Output<Event>,
    ) {
        self.phase = Phase::Authenticate;
        let role = self.lcp.terms.role.clone();
        let times = role.times();
        self.shared
            .deadlines
            .set(Timer::Phase, now + times.auth_limit);
        match (role.clone(), self.lcp.terms.auth_method()) {
            (Role::Authenticator(_), Some(method)) => {
                let exchange = Authenticator::new(method, 1, entropy);
                self.exchange = Exchange::Authenticator(Box::new(exchange));
                self.shared.deadlines.set(Timer::Ask, now + times.auth_gap);
            }
            (Role::Authenticatee(config), Some(method)) => {
                let exchange = Authenticatee::new(config, method);
                self.exchange = Exchange::Authenticatee(Box::new(exchange));
                self.ask_again(now, ASK_AGAIN, out);
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

    /// Says what is ours to say without being asked, and again later.
    fn ask_again(&mut self, now: Instant, later: Duration, out: &mut impl Output<Event>) {
        let Role::Authenticator(config) = &self.lcp.terms.role else {
            if let Exchange::Authenticatee(exchange) = &self.exchange
                && exchange.speak(out)
            {
                self.shared.deadlines.set(Timer::Ask, now + later);
            }
            return;
        };
        let Exchange::Authenticator(exchange) = &mut self.exchange else {
            return;
        };
        let later = if exchange.is_first_question() {
            ASK_AGAIN_FIRST
        } else {
            later
        };
        if exchange.ask(&config.name, out) {
            self.shared.deadlines.set(Timer::Ask, now + later);
        }
    }

    fn handle_auth(
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
                // A later one is a periodic challenge that went well (RFC 1994 §2); the key stays.
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

    fn authenticated(
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

    // Network protocols

    fn start_network(
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
        // IPV6CP first, as Windows.
        for event in [automaton::Event::Open, automaton::Event::Up] {
            if let Some(ipv6cp) = &mut self.ipv6cp {
                ipv6cp.command(cx, event);
            }
        }
        for event in [automaton::Event::Open, automaton::Event::Up] {
            if let Some(ipcp) = &mut self.ipcp {
                ipcp.command(cx, event);
            }
        }
        if self.ipcp.is_none() && self.ipv6cp.is_none() {
            let reason = CloseReason::NoNetworkProtocol;
            self.terminate_for(now, reason, "no network protocol", out);
        }
    }

    /// Whether what is not configured now may be configured yet.
    const fn awaits_assignment(&self) -> bool {
        self.is_authenticator() && self.assignment.is_none()
    }

    fn handle_ipcp(
        &mut self,
        now: Instant,
        information: &[u8],
        entropy: &mut impl Entropy,
        out: &mut impl Output<Event>,
    ) {
        let awaited = self.awaits_assignment();
        let Some(ipcp) = &mut self.ipcp else {
            if !awaited {
                self.reject_protocol(now, frame::IPCP, information, out);
            }
            return;
        };
        let Ok(packet) = Packet::parse(information) else {
            return;
        };
        let cx = &mut self.shared.context(now, out);
        if ipcp.state() == State::Starting && packet.code == code::CONFIGURE_REQUEST {
            cx.deadlines.clear(Timer::IpcpHold);
            ipcp.command(cx, automaton::Event::Up);
        }
        let layer = ipcp.handle_packet(cx, packet, entropy);
        self.ipcp_changed(now, layer, out);
    }

    fn ipcp_changed(&mut self, now: Instant, layer: Layer, out: &mut impl Output<Event>) {
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
        self.network_changed(now, layer, out);
    }

    fn handle_ipv6cp(
        &mut self,
        now: Instant,
        information: &[u8],
        entropy: &mut impl Entropy,
        out: &mut impl Output<Event>,
    ) {
        let awaited = self.awaits_assignment();
        let Some(ipv6cp) = &mut self.ipv6cp else {
            if !awaited {
                self.reject_protocol(now, frame::IPV6CP, information, out);
            }
            return;
        };
        let Ok(packet) = Packet::parse(information) else {
            return;
        };
        let cx = &mut self.shared.context(now, out);
        if ipv6cp.state() == State::Starting && packet.code == code::CONFIGURE_REQUEST {
            cx.deadlines.clear(Timer::Ipv6cpHold);
            ipv6cp.command(cx, automaton::Event::Up);
        }
        let layer = ipv6cp.handle_packet(cx, packet, entropy);
        self.ipv6cp_changed(now, layer, out);
    }

    fn ipv6cp_changed(&mut self, now: Instant, layer: Layer, out: &mut impl Output<Event>) {
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
    fn network_changed(&mut self, now: Instant, layer: Layer, out: &mut impl Output<Event>) {
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
    fn leave_network(&mut self, out: &mut impl Output<Event>) {
        self.exchange = Exchange::None;
        self.ipcp = None;
        self.ipv6cp = None;
        self.assignment = None;
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

    // The end

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
