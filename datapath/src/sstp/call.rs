//! What the calls of both roles have in common: what they tell, how they fail and how they end
//! (MS-SSTP §3.1).
//!
//! ```text
//! CallDisconnected ─ start ─▶ live states of the role ─┬─ we abort ─────▶ AbortPending ─────────┐
//!                                                      ├─ peer aborts ──▶ AbortTimeoutPending ──┤
//!                                                      ├─ we disconnect ▶ DisconnectAckPending ─┤
//!                                                      ├─ peer does ────▶ DisconnectTimeoutP. ──┤
//!                                                      └─ framing, Hello ───────────────────────┴▶ Closed
//! ```
//!
//! The four draining states carry no data, answer at most once and end by a deadline of five seconds
//! at the most. `Call_Abort_In_Progress` and `Call_Disconnect_In_Progress` of the specification last
//! while a message is written; here that is an action.
#![cfg_attr(
    not(test),
    warn(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)
)]

use core::fmt;

use super::binding::{BindingRefused, BindingVerified, HashBitmask};
use super::message::{
    self, AttributeError, AttributeId, Malformed, MessageType, Status, StatusInfo, bare,
};
use super::packet::{FramingError, Kind, Packet};
use crate::output::Output;
use crate::time::{DeadlineKind, Deadlines, Duration, Instant};

// MS-SSTP §3.1.2, timers.
/// We sent CALL_ABORT first: how long its answer is awaited.
pub const ABORT_1_TIMEOUT: Duration = Duration::from_secs(3);
/// We answered a CALL_ABORT: how long the peer has to close.
pub const ABORT_2_TIMEOUT: Duration = Duration::from_secs(1);
/// We sent CALL_DISCONNECT: how long its acknowledgement is awaited.
pub const DISCONNECT_1_TIMEOUT: Duration = Duration::from_secs(5);
/// We acknowledged a CALL_DISCONNECT: how long the peer has to close.
pub const DISCONNECT_2_TIMEOUT: Duration = Duration::from_secs(1);
/// Negative acknowledgements before a call is aborted, on either side.
pub const NAK_COUNT_MAX: u8 = 3;

/// CALL_ECHO answers a second: more would let a peer make us work for nothing.
const ECHO_ANSWERS_PER_SECOND: u8 = 10;

/// The timeouts that an operator may set; the defaults are the specification's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Start to CALL_CONNECT_REQUEST (server), CALL_CONNECT_REQUEST to its answer (client).
    pub request_timeout: Duration,
    /// CALL_CONNECT_ACK to a valid CALL_CONNECTED; PPP authentication must fit in.
    pub negotiation_timeout: Duration,
    /// Silence after which a CALL_ECHO_REQUEST is sent, and again until the peer is given up.
    pub hello_interval: Duration,
    /// CALL_ECHO_REQUESTs in a row that may go unanswered; the specification says one.
    pub hello_unanswered_max: u8,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            request_timeout: Duration::from_secs(60),
            negotiation_timeout: Duration::from_secs(60),
            hello_interval: Duration::from_secs(60),
            hello_unanswered_max: 1,
        }
    }
}

impl Timing {
    /// The same with a Hello interval moved by up to a tenth either way, `random` being any number:
    /// sessions that came up together then do not all send at once.
    #[must_use]
    pub fn with_hello_jitter(mut self, random: u16) -> Self {
        // 0.9 to 1.1, in units of a tenth of 2^-16.
        let scale = u32::from(random).saturating_mul(2).saturating_add(9 << 16);
        self.hello_interval = self.hello_interval.saturating_mul(scale) / (10 << 16);
        self
    }
}

/// What a call tells its owner.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// PPP may speak: data packets with PPP control frames are admitted from here on.
    StartPpp,
    /// Server: the binding is proven, the call is connected, network frames are admitted.
    Connected(BindingVerified),
    /// Client: CALL_CONNECTED is sent and the call is connected; the server never confirms it.
    BindingSent,
    /// The call is over and only drains: send what is queued, take no data any more.
    Draining(CloseReason),
    /// The connection may be closed now.
    Closed(CloseReason),
}

/// Whether a packet's payload may go on to PPP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It was a control packet and is dealt with.
    Control,
    /// It may, if it is a PPP control frame (protocol 0x8000 and above).
    Ppp,
    /// It may, network frames included.
    PppAll,
    /// It must not; count it.
    Drop(DropReason),
}

/// Why a packet was dropped without harm to the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// The call has not started, or is closed.
    NotOpen,
    /// The call only drains.
    Draining,
    /// A data packet before CALL_CONNECT_ACK.
    NoCall,
    /// A data packet without a frame.
    Empty,
    /// Echo requests come faster than they are answered.
    EchoFlood,
}

/// The attribute and status that a peer gave as its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// The attribute it names.
    pub attribute: AttributeId,
    /// What it says is wrong.
    pub status: Status,
}

impl From<StatusInfo<'_>> for PeerStatus {
    fn from(info: StatusInfo<'_>) -> Self {
        Self {
            attribute: info.attribute,
            status: info.status,
        }
    }
}

/// A rule that the peer broke with a message that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerMisbehaved {
    /// The message may not come in this state.
    #[error("unexpected {0:?}")]
    UnexpectedMessage(MessageType),
    /// A second CALL_CONNECTED while the first waits for the key.
    #[error("CALL_CONNECTED repeated")]
    RepeatedCallConnected,
    /// A CALL_CONNECTED without a Crypto Binding, or with more than it.
    #[error("CALL_CONNECTED: {0}")]
    CallConnected(AttributeError),
    /// A CALL_CONNECT_ACK without a Crypto Binding Request.
    #[error("CALL_CONNECT_ACK: {0}")]
    CallConnectAck(AttributeError),
    /// A fourth CALL_CONNECT_REQUEST that cannot be accepted.
    #[error("too many unacceptable requests")]
    TooManyRequests,
}

/// Why a call ended: the first cause, whatever came after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// The owner ended it.
    #[error("disconnected by us")]
    Disconnected,
    /// The owner aborted it.
    #[error("aborted by us: {0}")]
    Aborted(Status),
    /// The peer ended it.
    #[error("disconnected by the peer")]
    PeerDisconnected,
    /// The peer aborted it, with its reason if it gave one.
    #[error("aborted by the peer: {}", DisplayPeerStatus(.0))]
    PeerAborted(Option<PeerStatus>),
    /// The server refused the request four times; what it said last.
    #[error("refused by the peer: {}", DisplayPeerStatus(.0))]
    PeerRefused(Option<PeerStatus>),
    /// The peer's bytes are no control message.
    #[error("malformed control message: {0}")]
    Malformed(#[source] Malformed),
    /// The peer broke a rule.
    #[error("peer misbehaved: {0}")]
    PeerMisbehaved(#[source] PeerMisbehaved),
    /// The server offers no hash function that may be used.
    #[error("peer offers no usable hash protocol ({bitmask:#04x})", bitmask = .0.0)]
    NoHashProtocol(HashBitmask),
    /// The crypto binding is wrong: somebody may stand between.
    #[error("crypto binding refused: {0}")]
    BindingRefused(#[source] BindingRefused),
    /// No CALL_CONNECT_REQUEST came, or no answer to ours.
    #[error("call request timed out")]
    RequestTimeout,
    /// PPP authentication or CALL_CONNECTED took too long.
    #[error("call negotiation timed out")]
    NegotiationTimeout,
    /// The peer said nothing for two Hello intervals.
    #[error("peer silent")]
    HelloTimeout,
    /// The stream cannot be cut into packets any more.
    #[error("framing lost: {0}")]
    FramingError(#[source] FramingError),
}

impl CloseReason {
    /// What the peer is owed in a CALL_ABORT, if anything (MS-SSTP §2.2.8, §3.1.5).
    #[must_use]
    pub const fn status_owed(&self) -> Option<PeerStatus> {
        let (attribute, status) = match self {
            Self::Aborted(status) => (AttributeId::NONE, *status),
            Self::Malformed(_) => (AttributeId::NONE, Status::INVALID_FRAME_RECEIVED),
            Self::PeerMisbehaved(
                PeerMisbehaved::UnexpectedMessage(_) | PeerMisbehaved::RepeatedCallConnected,
            ) => (AttributeId::NONE, Status::UNACCEPTED_FRAME_RECEIVED),
            Self::PeerMisbehaved(
                PeerMisbehaved::CallConnected(_) | PeerMisbehaved::CallConnectAck(_),
            ) => (
                AttributeId::STATUS_INFO,
                Status::ATTRIB_NOT_SUPPORTED_IN_MSG,
            ),
            Self::PeerMisbehaved(PeerMisbehaved::TooManyRequests) | Self::PeerRefused(_) => {
                (AttributeId::STATUS_INFO, Status::RETRY_COUNT_EXCEEDED)
            }
            Self::NoHashProtocol(_) => {
                (AttributeId::CRYPTO_BINDING_REQ, Status::VALUE_NOT_SUPPORTED)
            }
            Self::BindingRefused(_) => (AttributeId::CRYPTO_BINDING, Status::VALUE_NOT_SUPPORTED),
            Self::RequestTimeout | Self::NegotiationTimeout => {
                (AttributeId::NONE, Status::NEGOTIATION_TIMEOUT)
            }
            Self::Disconnected
            | Self::PeerDisconnected
            | Self::PeerAborted(_)
            | Self::HelloTimeout
            | Self::FramingError(_) => return None,
        };
        Some(PeerStatus { attribute, status })
    }
}

struct DisplayPeerStatus<'a>(&'a Option<PeerStatus>);

impl fmt::Display for DisplayPeerStatus<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(told) => write!(f, "{} (attribute {})", told.status, told.attribute.0),
            None => f.write_str("no reason given"),
        }
    }
}

/// A connected call as plain values, for another process on the same host to take up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct CallSnapshot {
    /// The Hello interval of this call, in nanoseconds.
    pub hello_interval_nanos: u64,
    /// When the last packet came, in nanoseconds since the origin of time of the host.
    pub last_received_nanos: u64,
    /// Whether an echo request waits for a sign of life.
    pub echo_outstanding: bool,
}

/// The states of one role in which its call is neither over nor unborn.
pub trait Live: Copy + fmt::Debug + PartialEq + Eq {
    /// The state in which everything is admitted.
    const CONNECTED: Self;
    /// Whether data packets are admitted at all.
    fn carries_ppp(self) -> bool;
}

/// The state of a call with the live states `L` of its role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State<L> {
    /// Not started.
    CallDisconnected,
    /// In one of the role's own states.
    Live(L),
    /// Over, waiting for the peer or a deadline.
    Draining(Drain),
    /// Over; the connection may be closed.
    Closed,
}

/// The states in which a call ends (MS-SSTP §3.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drain {
    /// `Call_Abort_Pending`: we sent CALL_ABORT.
    AbortPending,
    /// `Call_Abort_Timeout_Pending`: both have sent CALL_ABORT.
    AbortTimeoutPending,
    /// `Call_Disconnect_Ack_Pending`: we sent CALL_DISCONNECT.
    DisconnectAckPending,
    /// `Call_Disconnect_Timeout_Pending`: we acknowledged the peer's.
    DisconnectTimeoutPending,
}

impl Drain {
    const fn timeout(self) -> Duration {
        match self {
            Self::AbortPending => ABORT_1_TIMEOUT,
            Self::AbortTimeoutPending => ABORT_2_TIMEOUT,
            Self::DisconnectAckPending => DISCONNECT_1_TIMEOUT,
            Self::DisconnectTimeoutPending => DISCONNECT_2_TIMEOUT,
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Timer {
    /// The request and negotiation timeouts: which one, the state says.
    Negotiation,
    /// Due no later than this; moved on expiry, so that a packet costs no more than a store.
    Hello,
    Drain,
}

impl DeadlineKind for Timer {
    fn index(self) -> usize {
        self as usize
    }

    fn from_index(index: usize) -> Self {
        match index {
            0 => Self::Negotiation,
            1 => Self::Hello,
            _ => Self::Drain,
        }
    }
}

/// State, deadlines and the way out, for both roles.
#[derive(Debug)]
pub(super) struct Core<L> {
    pub(super) state: State<L>,
    pub(super) deadlines: Deadlines<Timer, 3>,
    pub(super) timing: Timing,
    last_received: Instant,
    echo_outstanding: bool,
    /// CALL_ECHO_REQUESTs in a row, while the last one is outstanding.
    echoes_unanswered: u8,
    /// CALL_DISCONNECT goes out without Status Info.
    pub(super) omits_status: bool,
    echo_second: Instant,
    echo_answers: u8,
    reason: Option<CloseReason>,
}

impl<L: Live> Core<L> {
    pub(super) fn new(timing: Timing) -> Self {
        Self {
            state: State::CallDisconnected,
            deadlines: Deadlines::default(),
            timing,
            last_received: Instant::ZERO,
            echo_outstanding: false,
            echoes_unanswered: 0,
            omits_status: false,
            echo_second: Instant::ZERO,
            echo_answers: 0,
            reason: None,
        }
    }

    pub(super) fn restore(snapshot: &CallSnapshot) -> Self {
        let hello_interval = Duration::from_nanos(snapshot.hello_interval_nanos);
        let mut core = Self::new(Timing {
            hello_interval,
            ..Timing::default()
        });
        core.state = State::Live(L::CONNECTED);
        core.last_received = Instant::from_nanos(snapshot.last_received_nanos);
        core.echo_outstanding = snapshot.echo_outstanding;
        core.echoes_unanswered = u8::from(snapshot.echo_outstanding);
        core.deadlines
            .set(Timer::Hello, core.last_received + hello_interval);
        core
    }

    pub(super) fn snapshot(&self) -> Option<CallSnapshot> {
        (self.state == State::Live(L::CONNECTED)).then(|| CallSnapshot {
            hello_interval_nanos: u64::try_from(self.timing.hello_interval.as_nanos())
                .unwrap_or(u64::MAX),
            last_received_nanos: self.last_received.as_nanos(),
            echo_outstanding: self.echo_outstanding,
        })
    }

    /// Notes a sign of life and says where a packet of `kind` goes; `None` for a control packet
    /// that a live state must look at.
    #[inline]
    pub(super) fn admit(&mut self, now: Instant, packet: &Packet<'_>) -> Option<Admission> {
        let State::Live(live) = self.state else {
            return self.admit_when_over(packet.kind());
        };
        self.last_received = now;
        self.echo_outstanding = false;
        if packet.kind() == Kind::Control {
            return None;
        }
        Some(if !live.carries_ppp() {
            Admission::Drop(DropReason::NoCall)
        } else if packet.payload().is_empty() {
            Admission::Drop(DropReason::Empty)
        } else if live == L::CONNECTED {
            Admission::PppAll
        } else {
            Admission::Ppp
        })
    }

    #[cold]
    fn admit_when_over(&self, kind: Kind) -> Option<Admission> {
        match (self.state, kind) {
            (State::Draining(_), Kind::Control) => None,
            (State::Draining(_), Kind::Data) => Some(Admission::Drop(DropReason::Draining)),
            _ => Some(Admission::Drop(DropReason::NotOpen)),
        }
    }

    /// Enters the role's connected state: the negotiation is over, Hello begins.
    pub(super) fn connect(&mut self, now: Instant) {
        self.state = State::Live(L::CONNECTED);
        self.deadlines.clear(Timer::Negotiation);
        self.last_received = now;
        self.echo_outstanding = false;
        self.deadlines
            .set(Timer::Hello, now + self.timing.hello_interval);
    }

    /// MS-SSTP §3.1.5: the rules of the draining states, for either role.
    pub(super) fn handle_draining(
        &mut self,
        now: Instant,
        drain: Drain,
        message_type: MessageType,
        out: &mut impl Output<Event>,
    ) -> Admission {
        match (drain, message_type) {
            (Drain::AbortPending, MessageType::CallAbort) => {
                self.drain(now, Drain::AbortTimeoutPending);
            }
            (Drain::DisconnectAckPending, MessageType::CallAbort) => {
                out.send(&answering_abort());
                self.drain(now, Drain::AbortTimeoutPending);
            }
            (Drain::DisconnectAckPending, MessageType::CallDisconnect) => {
                out.send(&bare(MessageType::CallDisconnectAck));
                self.drain(now, Drain::DisconnectTimeoutPending);
            }
            (Drain::DisconnectAckPending, MessageType::CallDisconnectAck) => {
                self.close(CloseReason::Disconnected, out);
            }
            _ => return Admission::Drop(DropReason::Draining),
        }
        Admission::Control
    }

    pub(super) fn answer_echo(&mut self, now: Instant, out: &mut impl Output<Event>) -> Admission {
        if now.saturating_since(self.echo_second) >= Duration::from_secs(1) {
            self.echo_second = now;
            self.echo_answers = 0;
        }
        if self.echo_answers >= ECHO_ANSWERS_PER_SECOND {
            return Admission::Drop(DropReason::EchoFlood);
        }
        self.echo_answers = self.echo_answers.saturating_add(1);
        out.send(&bare(MessageType::EchoResponse));
        Admission::Control
    }

    /// The peer aborted a live call: one CALL_ABORT in answer, then a second to close.
    pub(super) fn answer_abort(
        &mut self,
        now: Instant,
        info: Option<StatusInfo<'_>>,
        out: &mut impl Output<Event>,
    ) -> Admission {
        out.send(&answering_abort());
        self.end(
            now,
            Drain::AbortTimeoutPending,
            CloseReason::PeerAborted(info.map(PeerStatus::from)),
            out,
        );
        Admission::Control
    }

    /// The peer ended a live call: it is acknowledged in every state.
    pub(super) fn answer_disconnect(
        &mut self,
        now: Instant,
        out: &mut impl Output<Event>,
    ) -> Admission {
        out.send(&bare(MessageType::CallDisconnectAck));
        let reason = CloseReason::PeerDisconnected;
        self.end(now, Drain::DisconnectTimeoutPending, reason, out);
        Admission::Control
    }

    /// Aborts a live call with the status that `reason` owes.
    pub(super) fn abort(
        &mut self,
        now: Instant,
        reason: CloseReason,
        out: &mut impl Output<Event>,
    ) -> Admission {
        if let (State::Live(_), Some(owed)) = (self.state, reason.status_owed()) {
            out.send(&message::with_status(
                MessageType::CallAbort,
                owed.attribute,
                owed.status,
            ));
            self.end(now, Drain::AbortPending, reason, out);
        } else if self.state == State::CallDisconnected {
            self.close(reason, out);
        }
        Admission::Control
    }

    /// Ends a live call in order.
    pub(super) fn disconnect(&mut self, now: Instant, out: &mut impl Output<Event>) {
        match self.state {
            State::Live(_) => {
                if self.omits_status {
                    out.send(&bare(MessageType::CallDisconnect));
                } else {
                    out.send(&message::with_status(
                        MessageType::CallDisconnect,
                        AttributeId::NONE,
                        Status::NO_ERROR,
                    ));
                }
                let reason = CloseReason::Disconnected;
                self.end(now, Drain::DisconnectAckPending, reason, out);
            }
            State::CallDisconnected => self.close(CloseReason::Disconnected, out),
            State::Draining(_) | State::Closed => {}
        }
    }

    /// Ends a call, in whatever state, without another word; the first reason stands.
    pub(super) fn close(&mut self, reason: CloseReason, out: &mut impl Output<Event>) {
        if self.state == State::Closed {
            return;
        }
        self.state = State::Closed;
        self.deadlines.clear_all();
        let reason = *self.reason.get_or_insert(reason);
        out.event(Event::Closed(reason));
    }

    /// Acts on Hello and the draining deadlines; true if the role's negotiation deadline passed.
    pub(super) fn handle_timeout(&mut self, now: Instant, out: &mut impl Output<Event>) -> bool {
        while let Some(timer) = self.deadlines.take_expired(now) {
            match timer {
                Timer::Negotiation => return true,
                Timer::Hello => self.handle_hello(now, out),
                Timer::Drain => self.close(CloseReason::Disconnected, out),
            }
        }
        false
    }

    /// MS-SSTP §3.1.6.1: the first expiry asks for a sign of life, the second in a row gives up.
    /// The specification's figure and text differ on a last CALL_ABORT: nobody would read it.
    fn handle_hello(&mut self, now: Instant, out: &mut impl Output<Event>) {
        let due = self.last_received + self.timing.hello_interval;
        if !self.echo_outstanding {
            self.echoes_unanswered = 0;
        }
        if self.echo_outstanding && self.echoes_unanswered >= self.timing.hello_unanswered_max {
            self.close(CloseReason::HelloTimeout, out);
        } else if !self.echo_outstanding && due > now {
            self.deadlines.set(Timer::Hello, due);
        } else {
            out.send(&bare(MessageType::EchoRequest));
            self.echo_outstanding = true;
            self.echoes_unanswered = self.echoes_unanswered.saturating_add(1);
            self.deadlines
                .set(Timer::Hello, now + self.timing.hello_interval);
        }
    }

    fn end(
        &mut self,
        now: Instant,
        drain: Drain,
        reason: CloseReason,
        out: &mut impl Output<Event>,
    ) {
        self.reason = Some(reason);
        self.deadlines.clear_all();
        self.drain(now, drain);
        out.event(Event::Draining(reason));
    }

    fn drain(&mut self, now: Instant, drain: Drain) {
        self.state = State::Draining(drain);
        self.deadlines.set(Timer::Drain, now + drain.timeout());
    }
}

/// The CALL_ABORT that answers the peer's: it reports no fault of its own.
fn answering_abort() -> [u8; 20] {
    message::with_status(MessageType::CallAbort, AttributeId::NONE, Status::NO_ERROR)
}
