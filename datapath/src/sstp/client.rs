//! The client's call (MS-SSTP §3.2).
//!
//! ```text
//! CallDisconnected ─ start / REQUEST ─▶ ConnectRequestSent ─ ACK ─▶ ConnectAckReceived
//!                                         NAK / REQUEST, 3 times      │ PPP has authenticated
//!                                                                     ▼ / CALL_CONNECTED
//!                                                                   CallConnected
//! ```
//!
//! The server never confirms CALL_CONNECTED: that no CALL_ABORT follows and that packets come is all
//! the proof there is. How a call ends is in [`super::call`].
#![cfg_attr(
    not(test),
    warn(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)
)]

use super::binding::{self, CertificateHashes, HashBitmask, HashProtocol, Nonce};
use super::call::{
    self, Admission, CallSnapshot, CloseReason, Core, Event, NAK_COUNT_MAX, PeerMisbehaved,
    PeerStatus, State, Timer, Timing,
};
use super::message::{self, AttributeError, BindingRequest, Message, Status, StatusInfo};
use super::packet::{FramingError, Packet};
use crate::crypto::Hlak;
use crate::output::Output;
use crate::time::Instant;

/// What a client's call needs to know.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// The timeouts.
    pub timing: Timing,
    /// The leaf certificate that the server presented in this very connection.
    pub certificate: CertificateHashes,
    /// The hash functions that may be used.
    pub allowed: HashBitmask,
    /// Whether CALL_DISCONNECT carries its Status Info; the specification says that it should.
    pub gives_status: bool,
}

impl Config {
    /// The specification's timeouts, either hash function.
    #[must_use]
    pub fn new(certificate: CertificateHashes) -> Self {
        Self {
            timing: Timing::default(),
            certificate,
            allowed: HashBitmask::BOTH,
            gives_status: true,
        }
    }
}

/// The client's own states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Live {
    /// `Client_Connect_Request_Sent`
    ConnectRequestSent,
    /// `Client_Connect_Ack_Received`: PPP authenticates.
    ConnectAckReceived,
    /// `Client_Call_Connected`
    CallConnected,
}

impl call::Live for Live {
    const CONNECTED: Self = Self::CallConnected;

    fn carries_ppp(self) -> bool {
        self != Self::ConnectRequestSent
    }
}

/// One call, as the client sees it.
#[derive(Debug)]
pub struct Call {
    core: Core<Live>,
    nak_count: u8,
    certificate: Option<CertificateHashes>,
    allowed: HashBitmask,
    /// What the server asked for, while PPP authenticates.
    asked: Option<(HashProtocol, Nonce)>,
}

impl Call {
    /// A call that has not started.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let mut core = Core::new(config.timing);
        core.omits_status = !config.gives_status;
        Self {
            core,
            nak_count: 0,
            certificate: Some(config.certificate),
            allowed: config.allowed,
            asked: None,
        }
    }

    /// A connected call that another process has kept until now.
    #[must_use]
    pub fn restore(snapshot: &CallSnapshot) -> Self {
        Self {
            core: Core::restore(snapshot),
            nak_count: 0,
            certificate: None,
            allowed: HashBitmask::BOTH,
            asked: None,
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

    /// Whether network frames pass, as far as this side knows.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.core.state == State::Live(Live::CallConnected)
    }

    /// The nearest deadline.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        self.core.deadlines.next()
    }

    /// Sends CALL_CONNECT_REQUEST; the HTTP response must have come.
    pub fn start(&mut self, now: Instant, out: &mut impl Output<Event>) {
        if self.core.state == State::CallDisconnected {
            self.request(now, out);
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
    }

    /// Acts on every deadline that is not after `now`.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut impl Output<Event>) {
        if self.core.handle_timeout(now, out) {
            let reason = if self.core.state == State::Live(Live::ConnectRequestSent) {
                CloseReason::RequestTimeout
            } else {
                CloseReason::NegotiationTimeout
            };
            self.core.abort(now, reason, out);
        }
    }

    /// PPP authentication has succeeded and `hlak` is its key, [`Hlak::ZERO`] if its method makes
    /// none: sends CALL_CONNECTED.
    pub fn authenticated(&mut self, now: Instant, hlak: &Hlak, out: &mut impl Output<Event>) {
        if self.core.state == State::Live(Live::ConnectAckReceived)
            && let Some((protocol, nonce)) = self.asked.take()
            && let Some(certificate) = self.certificate.take()
        {
            out.send(binding::compute(hlak, &nonce, protocol, &certificate).packet());
            self.core.connect(now);
            out.event(Event::BindingSent);
        }
    }

    /// Ends the call in order; a link that is open should have been terminated before.
    pub fn disconnect(&mut self, now: Instant, out: &mut impl Output<Event>) {
        self.core.disconnect(now, out);
    }

    /// Ends the call as a failure of the protocol.
    pub fn abort(&mut self, now: Instant, status: Status, out: &mut impl Output<Event>) {
        self.core.abort(now, CloseReason::Aborted(status), out);
    }

    #[cold]
    fn handle_control(
        &mut self,
        now: Instant,
        packet: &[u8],
        out: &mut impl Output<Event>,
    ) -> Admission {
        match (self.core.state, message::parse(packet)) {
            (State::Live(live), Ok(message)) => self.handle_message(now, live, message, out),
            (State::Live(_), Err(error)) => {
                self.core.abort(now, CloseReason::Malformed(error), out)
            }
            (State::Draining(drain), Ok(message)) => {
                self.core
                    .handle_draining(now, drain, message.message_type(), out)
            }
            _ => Admission::Drop(call::DropReason::Draining),
        }
    }

    fn handle_message(
        &mut self,
        now: Instant,
        live: Live,
        message: Message<'_>,
        out: &mut impl Output<Event>,
    ) -> Admission {
        use Live::{CallConnected, ConnectAckReceived, ConnectRequestSent};
        match (live, message) {
            (_, Message::CallAbort(info)) => self.core.answer_abort(now, info, out),
            (_, Message::CallDisconnect(_)) => self.core.answer_disconnect(now, out),
            (ConnectRequestSent, Message::CallConnectAck(request)) => {
                self.handle_ack(now, request, out)
            }
            (ConnectRequestSent, Message::CallConnectNak(info)) => self.handle_nak(now, info, out),
            // Servers that echo early are answered rather than lost.
            (ConnectAckReceived | CallConnected, Message::EchoRequest) => {
                self.core.answer_echo(now, out)
            }
            (ConnectAckReceived | CallConnected, Message::EchoResponse) => Admission::Control,
            (_, message) => {
                let what = PeerMisbehaved::UnexpectedMessage(message.message_type());
                self.core.abort(now, CloseReason::PeerMisbehaved(what), out)
            }
        }
    }

    /// MS-SSTP §3.2.5.3.2.
    fn handle_ack(
        &mut self,
        now: Instant,
        request: Result<BindingRequest, AttributeError>,
        out: &mut impl Output<Event>,
    ) -> Admission {
        let request = match request {
            Ok(request) => request,
            Err(error) => {
                let what = PeerMisbehaved::CallConnectAck(error);
                return self.core.abort(now, CloseReason::PeerMisbehaved(what), out);
            }
        };
        let usable = HashBitmask(request.offered.0 & self.allowed.0);
        let Some(protocol) = usable.strongest() else {
            let reason = CloseReason::NoHashProtocol(request.offered);
            return self.core.abort(now, reason, out);
        };
        self.asked = Some((protocol, request.nonce));
        self.core.state = State::Live(Live::ConnectAckReceived);
        let at = now + self.core.timing.negotiation_timeout;
        self.core.deadlines.set(Timer::Negotiation, at);
        out.event(Event::StartPpp);
        Admission::Control
    }

    /// MS-SSTP §3.2.5.3.3: the same request again, a bounded number of times.
    fn handle_nak(
        &mut self,
        now: Instant,
        info: Option<StatusInfo<'_>>,
        out: &mut impl Output<Event>,
    ) -> Admission {
        if self.nak_count >= NAK_COUNT_MAX {
            let reason = CloseReason::PeerRefused(info.map(PeerStatus::from));
            return self.core.abort(now, reason, out);
        }
        self.nak_count = self.nak_count.saturating_add(1);
        self.request(now, out);
        Admission::Control
    }

    fn request(&mut self, now: Instant, out: &mut impl Output<Event>) {
        out.send(&message::CALL_CONNECT_REQUEST);
        self.core.state = State::Live(Live::ConnectRequestSent);
        let at = now + self.core.timing.request_timeout;
        self.core.deadlines.set(Timer::Negotiation, at);
    }
}
