//! The server's call (MS-SSTP §3.3).
//!
//! ```text
//! CallDisconnected ─ start ─▶ ConnectRequestPending ─ REQUEST / ACK ─▶ CallConnectedPending
//!                               bad REQUEST / NAK, 3 times               │ CALL_CONNECTED and the key
//!                                                                        ▼ of PPP's authentication
//!                                                                      CallConnected
//! ```
//!
//! CALL_CONNECTED may come before PPP authentication has ended on this side; it is then kept, and
//! verified when [`Call::authenticated`] brings the key. Network frames pass only once it is
//! verified. How a call ends is in [`super::call`].
#![cfg_attr(
    not(test),
    warn(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)
)]

use super::binding::{self, CallConnected, CertificateHashes, Expected, HashBitmask, Nonce};
use super::call::{
    self, Admission, CallSnapshot, CloseReason, Core, Event, NAK_COUNT_MAX, PeerMisbehaved, State,
    Timer, Timing,
};
use super::message::{self, AttributeError, BindingRequest, Message, Request, Status};
use super::packet::{FramingError, PACKET_LEN_MAX, Packet};
use crate::crypto::Hlak;
use crate::output::Output;
use crate::time::Instant;

/// What a server's call needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// The timeouts.
    pub timing: Timing,
    /// 32 unpredictable bytes, never used before.
    pub nonce: Nonce,
    /// The hash functions on offer.
    pub offered: HashBitmask,
    /// The certificate of this very connection; several where TLS ends in front of the gateway.
    pub certificates: Vec<CertificateHashes>,
}

impl Config {
    /// The specification's timeouts, both hash functions.
    #[must_use]
    pub fn new(nonce: Nonce, certificates: Vec<CertificateHashes>) -> Self {
        Self {
            timing: Timing::default(),
            nonce,
            offered: HashBitmask::BOTH,
            certificates,
        }
    }
}

/// The server's own states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Live {
    /// `Server_Connect_Request_Pending`: waits for CALL_CONNECT_REQUEST.
    ConnectRequestPending,
    /// `Server_Call_Connected_Pending`: PPP authenticates; waits for CALL_CONNECTED and the key.
    CallConnectedPending,
    /// `Server_Call_Connected`
    CallConnected,
}

impl call::Live for Live {
    const CONNECTED: Self = Self::CallConnected;

    fn carries_ppp(self) -> bool {
        self != Self::ConnectRequestPending
    }
}

/// What is needed until the call is connected, and wiped then.
#[derive(Debug)]
struct Negotiation {
    nonce: Nonce,
    offered: HashBitmask,
    certificates: Vec<CertificateHashes>,
    nak_count: u8,
    /// A CALL_CONNECTED that came before the key.
    parked: Option<CallConnected>,
    hlak: Option<Hlak>,
}

/// One call, as the server sees it.
#[derive(Debug)]
pub struct Call {
    core: Core<Live>,
    negotiation: Option<Box<Negotiation>>,
}

impl Call {
    /// A call that has not started.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            core: Core::new(config.timing),
            negotiation: Some(Box::new(Negotiation {
                nonce: config.nonce,
                offered: config.offered,
                certificates: config.certificates,
                nak_count: 0,
                parked: None,
                hlak: None,
            })),
        }
    }

    /// A connected call that another process has kept until now.
    #[must_use]
    pub fn restore(snapshot: &CallSnapshot) -> Self {
        Self {
            core: Core::restore(snapshot),
            negotiation: None,
        }
    }

    /// The call for another process to go on with; `None` unless it is connected.
    #[must_use]
    pub fn snapshot(&self) -> Option<CallSnapshot> {
        self.core.snapshot()
    }

    /// Where the call stands.
    #[must_use]
    pub const fn state(&self) -> State<Live> {
        self.core.state
    }

    /// Whether network frames pass.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.core.state == State::Live(Live::CallConnected)
    }

    /// The nearest deadline.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        self.core.deadlines.next()
    }

    /// Begins to wait for CALL_CONNECT_REQUEST; `now` is when the connection was accepted or later.
    pub fn start(&mut self, now: Instant, _out: &mut impl Output<Event>) {
        if self.core.state == State::CallDisconnected {
            self.core.state = State::Live(Live::ConnectRequestPending);
            let at = now + self.core.timing.request_timeout;
            self.core.deadlines.set(Timer::Negotiation, at);
        }
    }

    /// Takes a packet and says whether its payload may go on to PPP.
    #[inline]
    pub fn handle_packet(
        &mut self,
        now: Instant,
        packet: Packet<'_>,
        out: &mut impl Output<Event>,
    ) -> Admission {
        match self.core.admit(now, &packet) {
            Some(admission) => admission,
            None => self.handle_control(now, packet.bytes(), out),
        }
    }

    /// The stream has lost its framing: nothing is sent (MS-SSTP §3.1.5.1).
    pub fn framing_error(&mut self, error: FramingError, out: &mut impl Output<Event>) {
        self.core.close(CloseReason::FramingError(error), out);
        self.forget_unless_negotiating();
    }

    /// Acts on every deadline that is not after `now`.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut impl Output<Event>) {
        if self.core.handle_timeout(now, out) {
            if self.core.state == State::Live(Live::ConnectRequestPending) {
                // Figure and text of the specification differ here; a peer that never spoke SSTP
                // is told nothing.
                self.core.close(CloseReason::RequestTimeout, out);
            } else {
                self.core.abort(now, CloseReason::NegotiationTimeout, out);
            }
        }
        self.forget_unless_negotiating();
    }

    /// PPP authentication has succeeded and `hlak` is its key, [`Hlak::ZERO`] if its method makes
    /// none. The first key stands.
    pub fn authenticated(&mut self, now: Instant, hlak: &Hlak, out: &mut impl Output<Event>) {
        if self.core.state != State::Live(Live::CallConnectedPending) {
            return;
        }
        let Some(negotiation) = &mut self.negotiation else {
            return;
        };
        negotiation.hlak.get_or_insert_with(|| hlak.clone());
        if let Some(message) = negotiation.parked.take() {
            self.handle_call_connected(now, Ok(message), out);
        }
        self.forget_unless_negotiating();
    }

    /// Ends the call in order; a link that is open should have been terminated before.
    pub fn disconnect(&mut self, now: Instant, out: &mut impl Output<Event>) {
        self.core.disconnect(now, out);
        self.forget_unless_negotiating();
    }

    /// Ends the call as a failure of the protocol.
    pub fn abort(&mut self, now: Instant, status: Status, out: &mut impl Output<Event>) {
        self.core.abort(now, CloseReason::Aborted(status), out);
        self.forget_unless_negotiating();
    }

    #[cold]
    fn handle_control(
        &mut self,
        now: Instant,
        packet: &[u8],
        out: &mut impl Output<Event>,
    ) -> Admission {
        let admission = match (self.core.state, message::parse(packet)) {
            (State::Live(live), Ok(message)) => self.handle_message(now, live, message, out),
            (State::Live(_), Err(error)) => {
                self.core.abort(now, CloseReason::Malformed(error), out)
            }
            (State::Draining(drain), Ok(message)) => {
                self.core
                    .handle_draining(now, drain, message.message_type(), out)
            }
            _ => Admission::Drop(call::DropReason::Draining),
        };
        self.forget_unless_negotiating();
        admission
    }

    fn handle_message(
        &mut self,
        now: Instant,
        live: Live,
        message: Message<'_>,
        out: &mut impl Output<Event>,
    ) -> Admission {
        use Live::{CallConnected, CallConnectedPending, ConnectRequestPending};
        match (live, message) {
            (_, Message::CallAbort(info)) => self.core.answer_abort(now, info, out),
            (_, Message::CallDisconnect(_)) => self.core.answer_disconnect(now, out),
            (ConnectRequestPending, Message::CallConnectRequest(request)) => {
                self.handle_request(now, &request, out)
            }
            (CallConnectedPending, Message::CallConnected(message)) => {
                self.handle_call_connected(now, message, out)
            }
            // A client is connected as soon as it has *sent* CALL_CONNECTED, so its echo may come
            // while ours is still parked.
            (CallConnectedPending | CallConnected, Message::EchoRequest) => {
                self.core.answer_echo(now, out)
            }
            (CallConnectedPending | CallConnected, Message::EchoResponse) => Admission::Control,
            (_, message) => self.misbehaved(
                now,
                PeerMisbehaved::UnexpectedMessage(message.message_type()),
                out,
            ),
        }
    }

    /// MS-SSTP §3.3.5.2.2.
    fn handle_request(
        &mut self,
        now: Instant,
        request: &Request<'_>,
        out: &mut impl Output<Event>,
    ) -> Admission {
        let Some(negotiation) = &mut self.negotiation else {
            return Admission::Control;
        };
        if request.problems().next().is_none() {
            out.send(&message::call_connect_ack(&BindingRequest {
                offered: negotiation.offered,
                nonce: negotiation.nonce,
            }));
            self.core.state = State::Live(Live::CallConnectedPending);
            let at = now + self.core.timing.negotiation_timeout;
            self.core.deadlines.set(Timer::Negotiation, at);
            out.event(Event::StartPpp);
            return Admission::Control;
        }
        if negotiation.nak_count >= NAK_COUNT_MAX {
            return self.misbehaved(now, PeerMisbehaved::TooManyRequests, out);
        }
        negotiation.nak_count = negotiation.nak_count.saturating_add(1);
        let mut buffer = [0; PACKET_LEN_MAX];
        out.send(message::write_call_connect_nak(
            request.problems(),
            &mut buffer,
        ));
        Admission::Control
    }

    /// MS-SSTP §3.3.5.2.3.
    fn handle_call_connected(
        &mut self,
        now: Instant,
        message: Result<CallConnected, AttributeError>,
        out: &mut impl Output<Event>,
    ) -> Admission {
        let message = match message {
            Ok(message) => message,
            Err(error) => {
                return self.misbehaved(now, PeerMisbehaved::CallConnected(error), out);
            }
        };
        let Some(negotiation) = &mut self.negotiation else {
            return Admission::Control;
        };
        let Some(hlak) = &negotiation.hlak else {
            if negotiation.parked.is_some() {
                return self.misbehaved(now, PeerMisbehaved::RepeatedCallConnected, out);
            }
            negotiation.parked = Some(message);
            return Admission::Control;
        };
        let expected = Expected {
            nonce: &negotiation.nonce,
            offered: negotiation.offered,
            certificates: &negotiation.certificates,
        };
        match binding::verify(&message, &expected, hlak) {
            Ok(verified) => {
                self.core.connect(now);
                out.event(Event::Connected(verified));
                Admission::Control
            }
            Err(refused) => self
                .core
                .abort(now, CloseReason::BindingRefused(refused), out),
        }
    }

    fn misbehaved(
        &mut self,
        now: Instant,
        what: PeerMisbehaved,
        out: &mut impl Output<Event>,
    ) -> Admission {
        self.core.abort(now, CloseReason::PeerMisbehaved(what), out)
    }

    /// Wipes the key and what goes with it as soon as no state can use it any more.
    fn forget_unless_negotiating(&mut self) {
        match self.core.state {
            State::CallDisconnected
            | State::Live(Live::ConnectRequestPending | Live::CallConnectedPending) => {}
            State::Live(Live::CallConnected) | State::Draining(_) | State::Closed => {
                self.negotiation = None;
            }
        }
    }
}
