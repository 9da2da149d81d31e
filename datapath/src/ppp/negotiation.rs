//! The automaton at work: packets in, packets out, for one protocol whose options are [`Terms`].
//!
//! RFC 1661 §4.3–4.6 and §5. [`Negotiation`] owns a state of [`automaton`](super::automaton), the
//! identifier of the request that is out, and the restart counter; the timer itself is a deadline of
//! the link. What became of the layer is told by the returned [`Layer`], never by a call back.
//!
//! It does not know phases. An Ack, Nak or Reject must carry the identifier of a request that is not
//! answered yet, and an Ack must repeat it to the byte (§5.2–5.4); anything else is discarded.
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::indexing_slicing))]

use crate::output::{Entropy, Output};
use crate::ppp::automaton::{Action, Event, State, transition};
use crate::ppp::control::{self, Options, Packet, code};
use crate::ppp::link;
use crate::ppp::rate::Rate;
use crate::time::{Deadlines, Duration, Instant};
use crate::wire::{TooShort, Writer};

// Specification: RFC 1661 §4.6.

const CONFIGURE_MAX: u8 = 10;
const TERMINATE_MAX: u8 = 2;
const FAILURE_MAX: u8 = 5;

// Implementation.

/// Between Terminate-Requests. The stream loses nothing, so this only bounds the wait for a peer that
/// does not answer: 3 s in all.
const TERMINATE_INTERVAL: Duration = Duration::from_millis(1500);

/// A request older than this that nobody answered was lost by a peer that was not listening yet; its
/// own request shows that it listens now.
const QUICK_RETRANSMISSION_AGE: Duration = Duration::from_millis(200);

/// What one protocol negotiates.
pub(super) trait Terms {
    /// Its protocol number.
    const PROTOCOL: u16;
    /// The deadline that is its restart timer.
    const RESTART: link::Timer;

    /// Writes the options of our Configure-Request; the same until an answer changes them.
    fn write_request(&self, to: &mut Writer<'_>) -> Result<(), TooShort>;

    /// Judges the peer's request. `naks_spent`: the peer was sent so many Naks that what is not
    /// acceptable is to be rejected (RFC 1661 §4.6, Max-Failure).
    fn judge(
        &mut self,
        request: Options<'_>,
        naks_spent: bool,
        entropy: &mut impl Entropy,
    ) -> Judgement;

    /// The peer wants other values in our request.
    fn handle_nak(&mut self, options: Options<'_>, entropy: &mut impl Entropy);

    /// The peer does not want these options in our request.
    fn handle_reject(&mut self, options: Options<'_>);

    /// Nothing that can be sent would lead anywhere: the link ends, and no answer goes out.
    fn is_hopeless(&self) -> bool {
        false
    }
}

/// What is answered to a Configure-Request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// All is well; the values are taken.
    Ack,
    /// The options to send in a Configure-Nak.
    Nak(Vec<u8>),
    /// The options to send in a Configure-Reject.
    Reject(Vec<u8>),
    /// There is nothing to be agreed with this peer.
    Close,
}

/// Gathers what is wrong with a request; a Reject takes precedence over a Nak (RFC 1661 §5.4).
#[derive(Debug, Default)]
pub(super) struct Faults {
    rejects: Vec<u8>,
    naks: Vec<u8>,
    naks_spent: bool,
}

impl Faults {
    pub(super) fn new(naks_spent: bool) -> Self {
        Self {
            naks_spent,
            ..Self::default()
        }
    }

    pub(super) fn reject(&mut self, option: &control::Opt<'_>) {
        self.rejects.extend_from_slice(option.bytes);
    }

    /// Asks for `value` instead of the option's own; `value` is short.
    pub(super) fn nak(&mut self, option: &control::Opt<'_>, value: &[u8]) {
        if self.naks_spent {
            self.reject(option);
        } else {
            self.append(option.kind, value);
        }
    }

    /// Asks for an option that the request lacks.
    pub(super) fn append(&mut self, kind: u8, value: &[u8]) {
        let mut room = [0; 64];
        let mut writer = Writer::new(&mut room);
        if control::put_option(&mut writer, kind, value).is_ok() {
            self.naks.extend_from_slice(writer.written());
        }
    }

    pub(super) fn judgement(self) -> Judgement {
        if !self.rejects.is_empty() {
            Judgement::Reject(self.rejects)
        } else if !self.naks.is_empty() {
            Judgement::Nak(self.naks)
        } else {
            Judgement::Ack
        }
    }
}

/// What became of the layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Layer {
    /// tlu: it opened.
    pub(super) up: bool,
    /// tld: it is open no more.
    pub(super) down: bool,
    /// tlf: it came to an end.
    pub(super) finished: bool,
}

/// What an automaton needs of its link while it acts.
#[derive(Debug)]
pub(super) struct Context<'a, O> {
    pub(super) now: Instant,
    pub(super) out: &'a mut O,
    pub(super) deadlines: &'a mut Deadlines<link::Timer, { link::Timer::COUNT }>,
    pub(super) limits: &'a mut Limits,
    pub(super) restart: Duration,
}

/// Bounds on what a peer can make us send.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    /// Configure-Requests of ours that the peer's packets called forth.
    pub(super) renegotiations: Rate,
    /// Code-Rejects and Protocol-Rejects.
    pub(super) rejects: Rate,
    /// Echo-Replies.
    pub(super) echoes: Rate,
    /// Control packets looked at.
    pub(super) packets: Rate,
    /// Set once `renegotiations` ran out; the link terminates.
    pub(super) exceeded: bool,
}

impl Default for Limits {
    fn default() -> Self {
        let second = Duration::from_secs(1);
        Self {
            renegotiations: Rate::new(30, Duration::from_secs(60)),
            rejects: Rate::new(10, second),
            echoes: Rate::new(10, second),
            packets: Rate::new(200, second),
            exceeded: false,
        }
    }
}

/// What an automaton's event came from, and what its answer is made of.
#[derive(Clone, Copy, Debug)]
enum Cause<'a> {
    /// The owner or a deadline; the text goes into a Terminate-Request.
    Command(&'a [u8]),
    /// The peer: code, identifier and data of the answer, should the table ask for one.
    Peer {
        code: u8,
        identifier: u8,
        data: &'a [u8],
    },
}

/// One automaton with what it negotiates.
#[derive(Debug)]
pub(super) struct Negotiation<T> {
    pub(super) terms: T,
    state: State,
    restart_count: u8,
    request_identifier: u8,
    next_identifier: u8,
    /// Our request is out and not answered.
    outstanding: bool,
    requested_at: Instant,
    /// Naks sent since the last Ack.
    failures: u8,
}

impl<T: Terms> Negotiation<T> {
    pub(super) const fn new(terms: T, first_identifier: u8) -> Self {
        Self {
            terms,
            state: State::Initial,
            restart_count: 0,
            request_identifier: 0,
            next_identifier: first_identifier,
            outstanding: false,
            requested_at: Instant::ZERO,
            failures: 0,
        }
    }

    /// As it was exported: open, or waiting for its lower layer.
    pub(super) const fn restored(terms: T, open: bool, next_identifier: u8) -> Self {
        let mut negotiation = Self::new(terms, next_identifier);
        negotiation.state = if open { State::Opened } else { State::Starting };
        negotiation
    }

    pub(super) const fn state(&self) -> State {
        self.state
    }

    pub(super) const fn is_open(&self) -> bool {
        matches!(self.state, State::Opened)
    }

    pub(super) const fn next_identifier(&self) -> u8 {
        self.next_identifier
    }

    /// An identifier for a packet that answers nothing.
    pub(super) const fn take_identifier(&mut self) -> u8 {
        let identifier = self.next_identifier;
        self.next_identifier = identifier.wrapping_add(1);
        identifier
    }

    /// Up, Down or Open.
    pub(super) fn command<O: Output<link::Event>>(
        &mut self,
        cx: &mut Context<'_, O>,
        event: Event,
    ) -> Layer {
        self.step(cx, event, Cause::Command(b""))
    }

    /// Ends the wait before our first request, if it lasts.
    pub(super) fn release<O: Output<link::Event>>(&mut self, cx: &mut Context<'_, O>) {
        if self.state == State::Starting {
            self.command(cx, Event::Up);
        }
    }

    /// Close, with a text for the peer.
    pub(super) fn close<O: Output<link::Event>>(
        &mut self,
        cx: &mut Context<'_, O>,
        text: &[u8],
    ) -> Layer {
        self.step(cx, Event::Close, Cause::Command(text))
    }

    /// The restart timer expired.
    pub(super) fn handle_timeout<O: Output<link::Event>>(
        &mut self,
        cx: &mut Context<'_, O>,
    ) -> Layer {
        let event = if self.restart_count > 0 {
            Event::TimeoutPlus
        } else {
            Event::TimeoutMinus
        };
        self.step(cx, event, Cause::Command(b""))
    }

    /// The peer rejected this whole protocol (RFC 1661 §5.7).
    pub(super) fn handle_protocol_reject<O: Output<link::Event>>(
        &mut self,
        cx: &mut Context<'_, O>,
    ) -> Layer {
        self.step(cx, Event::RxjMinus, peer(code::CODE_REJECT, 0, b""))
    }

    /// A packet of codes 1–7, or of a code that is unknown.
    pub(super) fn handle_packet<O: Output<link::Event>>(
        &mut self,
        cx: &mut Context<'_, O>,
        packet: Packet<'_>,
        entropy: &mut impl Entropy,
    ) -> Layer {
        let Packet {
            code,
            identifier,
            data,
            bytes,
        } = packet;
        match code {
            code::CONFIGURE_REQUEST => self.handle_request(cx, packet, entropy),
            code::CONFIGURE_ACK => {
                if !self.answers(identifier) || !self.is_own_request(data) {
                    return Layer::default();
                }
                self.outstanding = false;
                self.step(cx, Event::Rca, peer(code, identifier, data))
            }
            code::CONFIGURE_NAK | code::CONFIGURE_REJECT => {
                let Ok(options) = Options::parse(data) else {
                    return Layer::default();
                };
                if !self.answers(identifier) {
                    return Layer::default();
                }
                self.outstanding = false;
                if code == code::CONFIGURE_NAK {
                    self.terms.handle_nak(options, entropy);
                } else {
                    self.terms.handle_reject(options);
                }
                if self.terms.is_hopeless() {
                    return Layer::default();
                }
                self.step(cx, Event::Rcn, peer(code, identifier, data))
            }
            code::TERMINATE_REQUEST => self.step(cx, Event::Rtr, peer(code, identifier, b"")),
            code::TERMINATE_ACK => self.step(cx, Event::Rta, peer(code, identifier, b"")),
            code::CODE_REJECT => {
                let survivable = data
                    .first()
                    .is_none_or(|&rejected| rejected == 0 || rejected > code::CODE_REJECT);
                let event = if survivable {
                    Event::RxjPlus
                } else {
                    Event::RxjMinus
                };
                self.step(cx, event, peer(code, identifier, b""))
            }
            _ => self.step(cx, Event::Ruc, peer(code, identifier, bytes)),
        }
    }

    fn handle_request<O: Output<link::Event>>(
        &mut self,
        cx: &mut Context<'_, O>,
        packet: Packet<'_>,
        entropy: &mut impl Entropy,
    ) -> Layer {
        let Ok(options) = Options::parse(packet.data) else {
            return Layer::default();
        };
        if matches!(
            self.state,
            State::Initial | State::Starting | State::Closing | State::Stopping
        ) {
            return Layer::default();
        }
        self.retransmit_if_lost(cx);
        let identifier = packet.identifier;
        let naks_spent = self.failures >= FAILURE_MAX;
        let judgement = self.terms.judge(options, naks_spent, entropy);
        if self.terms.is_hopeless() {
            return Layer::default();
        }
        match judgement {
            Judgement::Ack => {
                self.failures = 0;
                let cause = peer(code::CONFIGURE_ACK, identifier, packet.data);
                self.step(cx, Event::RcrPlus, cause)
            }
            Judgement::Nak(options) => {
                self.failures = self.failures.saturating_add(1);
                let cause = peer(code::CONFIGURE_NAK, identifier, &options);
                self.step(cx, Event::RcrMinus, cause)
            }
            Judgement::Reject(options) => {
                let cause = peer(code::CONFIGURE_REJECT, identifier, &options);
                self.step(cx, Event::RcrMinus, cause)
            }
            Judgement::Close => self.step(cx, Event::Close, Cause::Command(b"")),
        }
    }

    /// Windows drops a request that comes before it listens; waiting for the restart timer would cost
    /// 3 s a connection.
    fn retransmit_if_lost<O: Output<link::Event>>(&mut self, cx: &mut Context<'_, O>) {
        let age = cx.now.saturating_since(self.requested_at);
        if self.state == State::ReqSent && self.outstanding && age > QUICK_RETRANSMISSION_AGE {
            self.send_request(cx, true);
        }
    }

    const fn answers(&self, identifier: u8) -> bool {
        self.outstanding && identifier == self.request_identifier
    }

    fn is_own_request(&self, data: &[u8]) -> bool {
        let mut room = [0; REQUEST_LEN_MAX];
        let mut writer = Writer::new(&mut room);
        self.terms.write_request(&mut writer).is_ok() && writer.written() == data
    }

    fn step<O: Output<link::Event>>(
        &mut self,
        cx: &mut Context<'_, O>,
        event: Event,
        cause: Cause<'_>,
    ) -> Layer {
        let mut layer = Layer::default();
        let Some(transition) = transition(self.state, event) else {
            return layer;
        };
        self.state = transition.next;
        for action in transition.actions {
            self.act(cx, *action, cause, &mut layer);
        }
        if !self.state.restarts() {
            cx.deadlines.clear(T::RESTART);
        } else if cx.deadlines.at(T::RESTART).is_none() {
            cx.deadlines.set(T::RESTART, cx.now + cx.restart);
        }
        layer
    }

    fn act<O: Output<link::Event>>(
        &mut self,
        cx: &mut Context<'_, O>,
        action: Action,
        cause: Cause<'_>,
        layer: &mut Layer,
    ) {
        match (action, cause) {
            (Action::tlu, _) => layer.up = true,
            (Action::tld, _) => {
                layer.down = true;
                self.outstanding = false;
            }
            (Action::tlf, _) => layer.finished = true,
            (Action::irc, _) => {
                self.restart_count = match self.state {
                    State::Closing | State::Stopping => TERMINATE_MAX,
                    _ => CONFIGURE_MAX,
                };
            }
            (Action::zrc, _) => {
                self.restart_count = 0;
                cx.deadlines.set(T::RESTART, cx.now + cx.restart);
            }
            (Action::scr, cause) => self.send_request(cx, matches!(cause, Cause::Peer { .. })),
            (
                Action::sca | Action::scn,
                Cause::Peer {
                    code,
                    identifier,
                    data,
                },
            ) => control::send(cx.out, T::PROTOCOL, code, identifier, |to| to.put(data)),
            (Action::str, cause) => {
                let text = match cause {
                    Cause::Command(text) => text,
                    Cause::Peer { .. } => b"",
                };
                self.restart_count = self.restart_count.saturating_sub(1);
                let identifier = self.take_identifier();
                control::send(
                    cx.out,
                    T::PROTOCOL,
                    code::TERMINATE_REQUEST,
                    identifier,
                    |to| to.put(text),
                );
                cx.deadlines.set(T::RESTART, cx.now + TERMINATE_INTERVAL);
            }
            (Action::sta, Cause::Peer { identifier, .. }) => {
                let none = |_: &mut Writer<'_>| Ok(());
                control::send(cx.out, T::PROTOCOL, code::TERMINATE_ACK, identifier, none);
            }
            (Action::scj, Cause::Peer { data, .. }) if cx.limits.rejects.allow(cx.now) => {
                let identifier = self.take_identifier();
                let data = data.get(..REJECTED_LEN_MAX).unwrap_or(data);
                control::send(cx.out, T::PROTOCOL, code::CODE_REJECT, identifier, |to| {
                    to.put(data)
                });
            }
            // tls tells the owner to bring the lower layer up, which SSTP has done by then; echoes are
            // LCP's own. A command answers nobody.
            (Action::tls | Action::ser, _)
            | (Action::sca | Action::scn | Action::sta | Action::scj, _) => {}
        }
    }

    fn send_request<O: Output<link::Event>>(&mut self, cx: &mut Context<'_, O>, provoked: bool) {
        if provoked && !cx.limits.renegotiations.allow(cx.now) {
            cx.limits.exceeded = true;
            return;
        }
        // RFC 1661 §5.1: a new identifier once an answer came, the same one for a retransmission.
        if !self.outstanding {
            self.request_identifier = self.take_identifier();
        }
        self.outstanding = true;
        self.requested_at = cx.now;
        self.restart_count = self.restart_count.saturating_sub(1);
        let identifier = self.request_identifier;
        control::send(
            cx.out,
            T::PROTOCOL,
            code::CONFIGURE_REQUEST,
            identifier,
            |to| self.terms.write_request(to),
        );
        cx.deadlines.set(T::RESTART, cx.now + cx.restart);
    }
}

const fn peer(code: u8, identifier: u8, data: &[u8]) -> Cause<'_> {
    Cause::Peer {
        code,
        identifier,
        data,
    }
}

/// Every option list of ours is far below this.
const REQUEST_LEN_MAX: usize = 128;

/// What a Code-Reject repeats at most. The RFC would have the packet truncated to the peer's MRU; a
/// few octets identify it, and no peer can make us send more than it sent.
const REJECTED_LEN_MAX: usize = 64;
