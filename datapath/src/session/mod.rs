//! One client from accept to release: the only place that knows more than one layer.
//!
//! ```text
//!            Handshake ──▶ Request ──▶ Tunnel (negotiate … established) ──▶ Closing
//! holds      tls::Handshake  HTTP head   call, link, services               what is left to send
//! ends at    its deadline    deadline    the deadlines of call and link     the drain deadline
//! ```
//!
//! A client behind an HTTP proxy begins one stage earlier (`proxy.rs`).
//!
//! A session is driven by its shard: [`Session::receive`] when bytes arrived, [`Session::send_packet`]
//! when the inside has a packet, [`Session::handle_answer`] when the owner has decided,
//! [`Session::handle_timeout`] when its deadline has passed; after any of these the shard asks
//! [`Session::poll_send`] and [`Session::disposition`]. What the session wants of its surroundings it
//! takes from an [`Edge`].
//!
//! The path of a packet is `uplink.rs` and `downlink.rs`, a call per layer; `control.rs` joins
//! the call to the link and carries PPP's keys to SSTP's binding. Both roles live here: the names
//! *uplink* and *downlink* are the server's; a client runs the same two functions the other way round.
//!
//! Limits: one partial TLS record (16 KiB) and one partial SSTP packet (4 KiB) are kept a session,
//! only while they are partial; see [`transmit`] for what waits to be sent.

pub mod event;

pub mod policy;

pub mod transmit;

pub mod queue;

mod codel;

mod filling;

mod pace;

mod shaper;

mod settings;

mod tunnel;

mod control;

mod uplink;

mod downlink;

mod handover;

mod kernel_tls;

mod proxy;

mod outside;

mod leave;

use std::net::SocketAddr;
use std::sync::Arc;

pub use codel::Parameters as QueueLimits;
pub use handover::{Exported, NotExportable};
pub use leave::Leave;
pub use settings::{ClientSettings, Farewell, Habits, Limits, ServerSettings};

use self::event::{
    Addresses, DropReason, EndReason, Ended, Event, Milestone, Milestones, Protection, Traffic,
};
use self::outside::Outside;
use self::policy::{Answer, Policy, Question};
use self::queue::Shed;
use self::transmit::BufferSource;
use self::tunnel::Tunnel;
use crate::http;
use crate::io::{Loss, SendBuffer};
use crate::ip::checksum::{self, CopyAndSum};
use crate::output::Entropy;
use crate::time::{DeadlineKind, Deadlines, Instant};
use crate::tls;

/// What a session reaches while it works: its shard.
pub trait Edge: BufferSource {
    /// A handle on the generator of this shard.
    type Entropy: Entropy + Clone;
    /// A packet for the inside, checked; the edge may change it in place.
    fn inside(&mut self, packet: &mut [u8]);
    /// A question for the owner.
    fn ask(&mut self, question: Question);
    /// News for the owner.
    fn event(&mut self, event: Event);
    /// A packet was dropped.
    fn dropped(&mut self, reason: DropReason);
    /// Packets that were counted as sent were dropped while they waited, or marked.
    fn shed(&mut self, shed: &Shed, taken_back: Traffic) {
        let _ = taken_back;
        for _ in 0..shed.late {
            self.dropped(DropReason::Late);
        }
        for _ in 0..shed.evicted {
            self.dropped(DropReason::QueueFull);
        }
    }
    /// Unpredictable bytes.
    fn entropy(&self) -> Self::Entropy;
    /// What copies packets of superpackets.
    fn copy_and_sum(&self) -> CopyAndSum {
        checksum::copy_and_sum
    }
    /// An empty stash for what arrived only in part; it may have room already.
    fn take_stash(&mut self) -> Vec<u8>;
    /// Gives a stash back that is needed no more.
    fn give_stash(&mut self, stash: Vec<u8>);
}

/// What the shard must do with a session after it was driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Nothing: it lives.
    Keep,
    /// Send FIN; the session waits for the peer's, or its drain deadline.
    Shutdown,
    /// Close the connection and forget the session.
    Close {
        /// With RST: the peer is hostile or gone, nothing is owed to it.
        reset: bool,
    },
}

/// Which side of the protocol this session speaks, and its configuration.
#[derive(Clone, Debug)]
enum Role {
    Server(Arc<ServerSettings>),
    Client(Arc<ClientSettings>),
}

impl Role {
    fn limits(&self) -> &Limits {
        match self {
            Self::Server(settings) => &settings.limits,
            Self::Client(settings) => &settings.limits,
        }
    }

    fn farewell(&self) -> Farewell {
        match self {
            Self::Server(_) => Farewell::default(),
            Self::Client(settings) => settings.habits.farewell,
        }
    }
}

/// How far a session has come.
#[derive(Debug)]
enum Stage {
    /// Client role: an HTTP proxy is asked to let it through first.
    Proxy(Box<tls::Handshake>),
    Handshake(Box<tls::Handshake>),
    Request,
    Tunnel(Box<Tunnel>),
    Closing(Closing),
}

/// The last steps of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closing {
    /// Something is still to be sent, then `close_notify`.
    Flush,
    /// `close_notify` is with the kernel.
    Notified,
    /// FIN is sent; the peer's is awaited.
    Shut,
    /// Done.
    Close { reset: bool },
    /// It plays dead: what comes is ignored, and nothing is sent any more.
    Silent,
}

/// The session's own deadlines; call and link have theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Timer {
    /// The present stage of the set-up.
    Stage,
    /// The whole set-up.
    Setup,
    /// The policy's session timeout.
    Session,
    /// The policy's idle timeout; asked early, it is moved.
    Idle,
    /// The peer terminated the link and should end the call.
    Linger,
    /// The end of a polite end.
    Drain,
}

impl DeadlineKind for Timer {
    fn index(self) -> usize {
        self as usize
    }
    fn from_index(index: usize) -> Self {
        [
            Self::Stage,
            Self::Setup,
            Self::Session,
            Self::Idle,
            Self::Linger,
            Self::Drain,
        ]
        .get(index)
        .copied()
        .unwrap_or(Self::Drain)
    }
}

/// What is known of a session, for its owner.
#[derive(Debug, Default)]
struct Ledger {
    protection: Protection,
    milestones: Milestones,
    traffic: Traffic,
    /// When a user's packet last passed.
    last_traffic: Instant,
    /// The first cause wins; set once.
    end: Option<(EndReason, Option<String>)>,
    ended_told: bool,
    user: Option<Vec<u8>>,
    was_up: bool,
}

impl Ledger {
    /// Notes why the session ends; the first cause wins.
    fn note_end(&mut self, reason: EndReason, detail: Option<String>) {
        if self.end.is_none() {
            self.end = Some((reason, detail));
        }
    }

    /// Tells the owner that it ended, once.
    fn tell_end<E: Edge>(&mut self, edge: &mut E) {
        if self.ended_told {
            return;
        }
        self.ended_told = true;
        let (reason, detail) = self.end.take().unwrap_or((EndReason::Exhausted, None));
        edge.event(Event::Ended(Ended {
            reason,
            detail,
            user: self.user.take(),
            was_up: self.was_up,
            milestones: self.milestones,
            traffic: self.traffic,
        }));
    }
}

/// Everything a stage may touch while it works, but the stage itself.
struct Context<'a, E> {
    now: Instant,
    peer: SocketAddr,
    role: &'a Role,
    outside: &'a mut Outside,
    ledger: &'a mut Ledger,
    deadlines: &'a mut Deadlines<Timer, 6>,
    edge: &'a mut E,
}

/// Whether a session goes on after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
enum Flow {
    /// It goes on.
    Continue,
    /// It closes politely: what waits is sent, then `close_notify`.
    Close,
    /// It is cut: nothing is owed to the peer.
    Cut,
}

/// One client's session.
#[derive(Debug)]
pub struct Session {
    role: Role,
    peer: SocketAddr,
    stage: Stage,
    outside: Outside,
    ledger: Ledger,
    deadlines: Deadlines<Timer, 6>,
}

impl Session {
    /// A session for a connection that was just accepted.
    ///
    /// # Errors
    ///
    /// TLS cannot begin under these settings.
    pub fn accept(
        now: Instant,
        settings: Arc<ServerSettings>,
        peer: SocketAddr,
    ) -> Result<Self, tls::Error> {
        let handshake = tls::Handshake::server(&settings.tls)?;
        let mut session = Self::new(now, Role::Server(settings), peer, handshake);
        session.ledger.milestones.pass(Milestone::Tcp, now);
        Ok(session)
    }

    /// A session for a connection that is being opened; [`Session::connected`] starts it.
    ///
    /// # Errors
    ///
    /// TLS cannot begin under these settings.
    pub fn connect(
        now: Instant,
        settings: Arc<ClientSettings>,
        peer: SocketAddr,
    ) -> Result<Self, tls::Error> {
        let handshake = tls::Handshake::client(&settings.tls, settings.server_name.clone())?;
        Ok(Self::new(now, Role::Client(settings), peer, handshake))
    }

    fn new(now: Instant, role: Role, peer: SocketAddr, handshake: tls::Handshake) -> Self {
        let handshake = Box::new(handshake);
        let has_proxy = matches!(&role, Role::Client(settings) if settings.proxy.is_some());
        let mut session = Self {
            peer,
            stage: if has_proxy {
                Stage::Proxy(handshake)
            } else {
                Stage::Handshake(handshake)
            },
            outside: Outside::default(),
            ledger: Ledger {
                last_traffic: now,
                ..Ledger::default()
            },
            deadlines: Deadlines::default(),
            role,
        };
        session.ledger.milestones.pass(Milestone::Begun, now);
        let limits = *session.role.limits();
        session
            .outside
            .transmit
            .set_record_per_packet(limits.record_per_packet);
        let first = match session.role {
            Role::Server(_) => limits.hello.min(limits.handshake),
            Role::Client(_) => limits.handshake,
        };
        session.deadlines.set(Timer::Stage, now + first);
        session.deadlines.set(Timer::Setup, now + limits.setup);
        session
    }

    fn split<'a, E: Edge>(
        &'a mut self,
        now: Instant,
        edge: &'a mut E,
    ) -> (&'a mut Stage, Context<'a, E>) {
        self.outside.transmit.set_now(now);
        let context = Context {
            now,
            peer: self.peer,
            role: &self.role,
            outside: &mut self.outside,
            ledger: &mut self.ledger,
            deadlines: &mut self.deadlines,
            edge,
        };
        (&mut self.stage, context)
    }

    /// The connection stands (client role): the first flight of TLS goes out, or the request to the proxy.
    pub fn connected<E: Edge>(&mut self, now: Instant, edge: &mut E) {
        self.ledger.milestones.pass(Milestone::Tcp, now);
        if self.is_at_proxy() {
            return self.ask_proxy(now, edge);
        }
        self.receive(now, &mut [], edge);
    }

    /// The connection could not be opened (client role).
    pub fn connect_failed<E: Edge>(&mut self, loss: Loss, edge: &mut E) {
        self.cut(EndReason::ConnectFailed, Some(format!("{loss:?}")), edge);
    }

    /// Nothing more will come from the peer.
    pub fn receive_ended<E: Edge>(&mut self, loss: Loss, edge: &mut E) {
        let reason = match loss {
            Loss::Finished => EndReason::PeerClosed,
            Loss::Reset | Loss::Os(_) => EndReason::ConnectionReset,
            Loss::TimedOut => EndReason::PeerLost,
        };
        if self.is_at_proxy() {
            self.note_proxy_failed(http::proxy::Error::Closed);
        }
        self.ledger.note_end(reason, None);
        self.ledger.tell_end(edge);
        self.deadlines.clear_all();
        self.stage = Stage::Closing(Closing::Close {
            reset: loss != Loss::Finished,
        });
    }

    /// The kernel is done with the last buffer.
    pub fn sent<E: Edge>(&mut self, now: Instant, result: Result<(), Loss>, edge: &mut E) {
        self.outside.transmit.set_now(now);
        self.outside.transmit.sent();
        match result {
            Err(loss) => self.receive_ended(loss, edge),
            Ok(()) => {
                if let Stage::Closing(Closing::Notified) = self.stage
                    && !self.outside.has_controls()
                {
                    self.stage = Stage::Closing(Closing::Shut);
                    self.deadlines
                        .set(Timer::Drain, now + self.role.limits().drain);
                }
            }
        }
    }

    /// The owner has decided.
    pub fn handle_answer<E: Edge>(&mut self, now: Instant, answer: Answer, edge: &mut E) {
        let (stage, mut context) = self.split(now, edge);
        let Stage::Tunnel(tunnel) = stage else { return };
        let flow = tunnel.handle_answer(answer, &mut context);
        self.follow(flow, now, edge);
    }

    /// Replaces what the session may do; addresses in use stay until it ends.
    pub fn set_policy<E: Edge>(&mut self, now: Instant, policy: Box<Policy>, edge: &mut E) {
        let (stage, mut context) = self.split(now, edge);
        if let Stage::Tunnel(tunnel) = stage {
            tunnel.set_policy(policy, &mut context);
        }
    }

    /// Ends the session politely: LCP Terminate, Call Disconnect, `close_notify`, FIN.
    pub fn terminate<E: Edge>(&mut self, now: Instant, reason: EndReason, edge: &mut E) {
        if self.is_silent() {
            return self.cut(reason, None, edge);
        }
        self.ledger.note_end(reason, None);
        let drain = self.role.limits().drain;
        let (stage, mut context) = self.split(now, edge);
        let flow = match stage {
            Stage::Tunnel(tunnel) => {
                context.deadlines.clear_all();
                context.deadlines.set(Timer::Drain, now + drain);
                tunnel.terminate(&mut context)
            }
            Stage::Proxy(_) | Stage::Handshake(_) | Stage::Request | Stage::Closing(_) => {
                Flow::Close
            }
        };
        self.follow(flow, now, edge);
    }

    /// Ends the session at once: nothing more is sent.
    pub fn abandon<E: Edge>(&mut self, reason: EndReason, edge: &mut E) {
        self.cut(reason, None, edge);
    }

    /// Acts on every deadline that has passed.
    pub fn handle_timeout<E: Edge>(&mut self, now: Instant, edge: &mut E) {
        while let Some(timer) = self.deadlines.take_expired(now) {
            match timer {
                Timer::Stage | Timer::Setup => {
                    if self.is_at_proxy() {
                        self.note_proxy_failed(http::proxy::Error::TimedOut);
                    }
                    let last = self.ledger.milestones.last();
                    let detail = format!("nothing followed {last:?}");
                    self.ledger.note_end(EndReason::SetupTimeout, Some(detail));
                    self.close_politely(now, edge);
                }
                Timer::Session => self.terminate(now, EndReason::SessionTimeout, edge),
                Timer::Idle => self.check_idle(now, edge),
                Timer::Linger => {
                    let (stage, mut context) = self.split(now, edge);
                    if let Stage::Tunnel(tunnel) = stage {
                        let flow = tunnel.linger_expired(&mut context);
                        self.follow(flow, now, edge);
                    }
                }
                Timer::Drain => self.cut(EndReason::PeerLost, None, edge),
            }
        }
        let (stage, mut context) = self.split(now, edge);
        if let Stage::Tunnel(tunnel) = stage {
            let flow = tunnel.handle_timeout(&mut context);
            self.follow(flow, now, edge);
        }
    }

    fn check_idle<E: Edge>(&mut self, now: Instant, edge: &mut E) {
        let Stage::Tunnel(tunnel) = &self.stage else {
            return;
        };
        let Some(timeout) = tunnel.policy().and_then(|policy| policy.idle_timeout) else {
            return;
        };
        let due = self.ledger.last_traffic + timeout;
        if due <= now {
            self.terminate(now, EndReason::IdleTimeout, edge);
        } else {
            self.deadlines.set(Timer::Idle, due);
        }
    }

    /// When [`Session::handle_timeout`] wants to be called next.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        let layers = match &self.stage {
            Stage::Tunnel(tunnel) => tunnel.next_timeout(),
            Stage::Proxy(_) | Stage::Handshake(_) | Stage::Request | Stage::Closing(_) => None,
        };
        [self.deadlines.next(), layers].into_iter().flatten().min()
    }

    /// The next buffer to send, if the connection is free and there is something.
    pub fn poll_send<E: Edge>(&mut self, now: Instant, edge: &mut E) -> Option<SendBuffer> {
        if self.outside.transmit.in_flight() || self.is_silent() {
            return None;
        }
        if let Stage::Closing(Closing::Flush) = self.stage
            && self.outside.flight.is_empty()
            && !self.outside.transmit.has_pending()
        {
            self.stage = Stage::Closing(Closing::Notified);
            if let Some(tls) = self.outside.tls.as_mut() {
                tls.close_notify(&mut self.outside.flight);
            }
            if self.outside.flight.is_empty() && !self.outside.has_controls() {
                self.sent(now, Ok(()), edge);
                return None;
            }
        }
        self.outside.transmit.set_now(now);
        let next = self.outside.next_buffer(&self.role.limits().queue, edge);
        self.account_for_shed(edge);
        match next {
            Ok(buffer) => {
                self.check_keys(now, edge);
                buffer
            }
            Err(error) => {
                self.cut(uplink::end_of(&error), Some(error.to_string()), edge);
                None
            }
        }
    }

    /// Ends the session politely while its key may still seal what that takes. TLS 1.3 does not
    /// come here: it changes its keys long before.
    fn check_keys<E: Edge>(&mut self, now: Instant, edge: &mut E) {
        let is_near = self
            .outside
            .tls
            .as_ref()
            .is_some_and(|tls| tls.budget().is_near());
        if is_near && self.ledger.end.is_none() && matches!(self.stage, Stage::Tunnel(_)) {
            self.terminate(now, EndReason::KeysSpent, edge);
        }
    }

    /// TLS records in the buffer that [`Session::poll_send`] gave last; 0 of a TLS flight.
    #[must_use]
    pub const fn last_send_records(&self) -> usize {
        self.outside.transmit.last_records()
    }

    /// Whether so much waits that it should be sent before the turn ends.
    #[must_use]
    pub fn has_full_buffer(&self) -> bool {
        self.outside.transmit.has_full() && !self.outside.awaits_keys()
    }

    /// Takes what was dropped while it waited out of what was sent.
    fn account_for_shed<E: Edge>(&mut self, edge: &mut E) {
        let shed = self.outside.transmit.take_shed();
        if shed == Shed::default() {
            return;
        }
        let (packets, bytes) = (shed.late + shed.evicted, shed.bytes);
        let taken_back = match self.role {
            Role::Server(_) => Traffic {
                downlink_packets: packets,
                downlink_bytes: bytes,
                ..Traffic::default()
            },
            Role::Client(_) => Traffic {
                uplink_packets: packets,
                uplink_bytes: bytes,
                ..Traffic::default()
            },
        };
        self.ledger.traffic.take_back(taken_back);
        edge.shed(&shed, taken_back);
    }

    /// The number of unsent bytes that the kernel shall hold of this connection, if that has
    /// changed.
    pub fn take_unsent_limit(&mut self) -> Option<usize> {
        self.outside.transmit.take_unsent_limit()
    }

    /// Users' packets that wait to be sent.
    #[must_use]
    pub fn waiting_count(&self) -> usize {
        self.outside.transmit.waiting_count()
    }

    /// What the shard must do now.
    #[must_use]
    pub const fn disposition(&self) -> Disposition {
        match self.stage {
            Stage::Closing(Closing::Shut) => Disposition::Shutdown,
            Stage::Closing(Closing::Close { reset }) => Disposition::Close { reset },
            _ => Disposition::Keep,
        }
    }

    /// Where the connection comes from or goes to.
    #[must_use]
    pub const fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Whether traffic passes.
    #[must_use]
    pub const fn is_up(&self) -> bool {
        self.ledger.was_up && matches!(self.stage, Stage::Tunnel(_))
    }

    /// Whether the TLS handshake is still under way, or before us.
    #[must_use]
    pub const fn is_shaking_hands(&self) -> bool {
        matches!(self.stage, Stage::Proxy(_) | Stage::Handshake(_))
    }

    /// What the session carried so far.
    #[must_use]
    pub const fn traffic(&self) -> Traffic {
        self.ledger.traffic
    }

    /// The addresses it has now.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        match &self.stage {
            Stage::Tunnel(tunnel) => tunnel.addresses(),
            _ => Addresses::default(),
        }
    }

    /// What protects it.
    #[must_use]
    pub const fn protection(&self) -> &Protection {
        &self.ledger.protection
    }

    /// The buffers a dead session still held, one a call; its shard takes them back.
    pub fn release_buffer(&mut self) -> Option<SendBuffer> {
        self.outside.transmit.discard()
    }

    fn follow<E: Edge>(&mut self, flow: Flow, now: Instant, edge: &mut E) {
        match flow {
            Flow::Continue => {}
            Flow::Close => self.close_politely(now, edge),
            Flow::Cut => self.cut(EndReason::Exhausted, None, edge),
        }
    }

    /// Ends at once, without a word to the peer; a cause noted before stays the cause.
    fn cut<E: Edge>(&mut self, reason: EndReason, detail: Option<String>, edge: &mut E) {
        self.ledger.note_end(reason, detail);
        self.ledger.tell_end(edge);
        self.deadlines.clear_all();
        self.stage = Stage::Closing(Closing::Close { reset: true });
    }

    /// Lets what is pending go out, then `close_notify` and FIN.
    fn close_politely<E: Edge>(&mut self, now: Instant, edge: &mut E) {
        if let Stage::Closing(_) = self.stage {
            return;
        }
        self.ledger.tell_end(edge);
        self.stage = Stage::Closing(Closing::Flush);
        self.deadlines.clear_all();
        self.deadlines
            .set(Timer::Drain, now + self.role.limits().drain);
    }
}
