//! Two links over an imagined wire, and an owner with one user.

mod authentication;
mod limits;
mod manners;
mod network;
mod start;

use std::collections::VecDeque;

use super::*;
use crate::crypto::mschapv2;
use crate::crypto::nt_hash::nt_password_hash;
use crate::crypto::{chap_md5, hlak::Hlak};
use crate::output::Collected;
use crate::ppp::auth::{ERROR_AUTHENTICATION_FAILURE, eap_mschapv2};
use zeroize::Zeroizing;

pub(super) const USER: &[u8] = b"User";
pub(super) const PASSWORD: &str = "clientPass";

/// A seeded generator (splitmix64).
#[derive(Clone, Debug)]
pub(super) struct Seeded(pub(super) u64);

impl Entropy for Seeded {
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            *byte = (z ^ (z >> 31)).to_le_bytes()[0];
        }
    }
}

pub(super) fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(super) fn ip(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 8, 0, last)
}

pub(super) fn assignment() -> Assignment {
    Assignment {
        ipv4: Some(Ipv4Assignment {
            gateway: ip(1),
            client: ip(5),
            dns: [
                Some(Ipv4Addr::new(9, 9, 9, 9)),
                Some(Ipv4Addr::new(1, 1, 1, 1)),
            ],
            nbns: [None, None],
        }),
        ipv6: Some(Ipv6Assignment {
            gateway_id: 1,
            client_id: None,
        }),
        mtu: 1400,
    }
}

pub(super) fn client_config(method: AuthMethod, password: &str) -> AuthenticateeConfig {
    AuthenticateeConfig {
        user: USER.to_vec(),
        password: Zeroizing::new(password.to_owned()),
        methods: vec![method],
        ..AuthenticateeConfig::default()
    }
}

pub(super) fn server_config(methods: &[AuthMethod]) -> AuthenticatorConfig {
    AuthenticatorConfig {
        methods: methods.to_vec(),
        ..AuthenticatorConfig::default()
    }
}

/// Judges by the one user there is.
#[derive(Debug, Default)]
pub(super) struct Owner {
    eap: Option<eap_mschapv2::Authenticator>,
}

impl Owner {
    pub(super) fn judge(&mut self, credentials: &Credentials, entropy: &mut Seeded) -> Verdict {
        let nt_hash = nt_password_hash(PASSWORD);
        let accept = |hlak, message: &[u8]| Verdict::Accept {
            hlak,
            message: message.to_vec(),
        };
        let reject = Verdict::Reject {
            error: ERROR_AUTHENTICATION_FAILURE,
            message: Vec::new(),
            eap: None,
        };
        let known = credentials.user() == USER;
        match credentials {
            Credentials::Pap { password, .. } if known && password[..] == *PASSWORD.as_bytes() => {
                accept(Hlak::ZERO, b"welcome")
            }
            Credentials::ChapMd5 {
                identifier,
                challenge,
                response,
                ..
            } if known
                && chap_md5::verify(*identifier, PASSWORD.as_bytes(), challenge, response) =>
            {
                accept(Hlak::ZERO, b"welcome")
            }
            Credentials::MsChapV2 {
                user,
                challenge,
                peer_challenge,
                nt_response,
                ..
            } if known => {
                mschapv2::verify_nt_response(challenge, peer_challenge, user, &nt_hash, nt_response)
                    .map_or(reject, |verified| {
                        accept(verified.hlak, &verified.authenticator_response)
                    })
            }
            Credentials::Eap { identity, response } => self
                .eap
                .get_or_insert_with(|| eap_mschapv2::Authenticator::new(identity, entropy))
                .handle_response(response, known.then_some(&nt_hash)),
            _ => reject,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Server,
    Client,
}

/// Server and client, joined.
pub(super) struct Pair {
    pub(super) now: Instant,
    pub(super) server: Link,
    pub(super) client: Link,
    pub(super) entropy: Seeded,
    owner: Owner,
    pub(super) assignment: Assignment,
    /// Frames under way, in order, with their sender.
    wire: VecDeque<(Side, Vec<u8>)>,
    /// Every frame that was sent, with its time and its sender.
    pub(super) trace: Vec<(Instant, Side, Vec<u8>)>,
    pub(super) server_events: Vec<Event>,
    pub(super) client_events: Vec<Event>,
    /// Frames for which this is true get lost.
    pub(super) loses: fn(Side, &[u8]) -> bool,
    /// The owner leaves questions unanswered.
    pub(super) silent_owner: bool,
}

impl Pair {
    pub(super) fn new(server: AuthenticatorConfig, client: AuthenticateeConfig) -> Self {
        let mut entropy = Seeded(7);
        Self {
            now: Instant::from_nanos(1_000_000_000),
            server: Link::authenticator(server, &mut entropy),
            client: Link::authenticatee(client, &mut entropy),
            entropy,
            owner: Owner::default(),
            assignment: assignment(),
            wire: VecDeque::new(),
            trace: Vec::new(),
            server_events: Vec::new(),
            client_events: Vec::new(),
            loses: |_, _| false,
            silent_owner: false,
        }
    }

    pub(super) fn up(&mut self) {
        let mut out = Collected::default();
        self.server.up(self.now, &mut self.entropy, &mut out);
        self.collect(Side::Server, out);
        let mut out = Collected::default();
        self.client.up(self.now, &mut self.entropy, &mut out);
        self.collect(Side::Client, out);
    }

    fn collect(&mut self, side: Side, out: Collected<Event>) {
        for frame in out.sent {
            self.trace.push((self.now, side, frame.clone()));
            if !(self.loses)(side, &frame) {
                self.wire.push_back((side, frame));
            }
        }
        for event in out.events {
            if side == Side::Client {
                self.client_events.push(event);
                continue;
            }
            self.server_events.push(event.clone());
            let mut out = Collected::default();
            match &event {
                Event::Authenticate(credentials) if !self.silent_owner => {
                    let verdict = self.owner.judge(credentials, &mut self.entropy);
                    self.server
                        .handle_verdict(self.now, verdict, &mut self.entropy, &mut out);
                }
                Event::Authenticated { .. } => {
                    let assignment = self.assignment.clone();
                    self.server
                        .assign(self.now, assignment, &mut self.entropy, &mut out);
                }
                _ => {}
            }
            self.collect(Side::Server, out);
        }
    }

    /// Delivers what is under way, and what that calls forth, at this instant.
    pub(super) fn deliver(&mut self) {
        for _ in 0..1000 {
            let Some((from, bytes)) = self.wire.pop_front() else {
                return;
            };
            let frame = frame::parse(&bytes).expect("what we send is a frame");
            let mut out = Collected::default();
            let (to, link) = match from {
                Side::Server => (Side::Client, &mut self.client),
                Side::Client => (Side::Server, &mut self.server),
            };
            link.handle_frame(
                self.now,
                frame.protocol,
                frame.information,
                &mut self.entropy,
                &mut out,
            );
            self.collect(to, out);
        }
        panic!("the links talk without end");
    }

    /// Lets time pass, from deadline to deadline.
    pub(super) fn run(&mut self, length: Duration) {
        let end = self.now + length;
        self.deliver();
        for _ in 0..10_000 {
            let next = [self.server.next_timeout(), self.client.next_timeout()];
            let Some(next) = next.into_iter().flatten().min().filter(|&at| at <= end) else {
                self.now = end;
                return;
            };
            assert!(next >= self.now, "a deadline in the past");
            self.now = next;
            let mut out = Collected::default();
            self.server
                .handle_timeout(self.now, &mut self.entropy, &mut out);
            self.collect(Side::Server, out);
            let mut out = Collected::default();
            self.client
                .handle_timeout(self.now, &mut self.entropy, &mut out);
            self.collect(Side::Client, out);
            self.deliver();
        }
        panic!("deadlines without end");
    }

    pub(super) fn server_closed(&self) -> Option<CloseReason> {
        closed(&self.server_events)
    }

    pub(super) fn client_closed(&self) -> Option<CloseReason> {
        closed(&self.client_events)
    }

    /// The frames of one side whose information begins so.
    pub(super) fn sent(&self, side: Side, head: &[u8]) -> Vec<(Instant, &[u8])> {
        self.trace
            .iter()
            .filter(|(_, from, frame)| *from == side && frame.starts_with(head))
            .map(|(at, _, frame)| (*at, &frame[..]))
            .collect()
    }
}

pub(super) fn closed(events: &[Event]) -> Option<CloseReason> {
    let mut reasons = events.iter().filter_map(|event| match event {
        Event::Closed(reason) => Some(*reason),
        _ => None,
    });
    let reason = reasons.next();
    assert_eq!(reasons.next(), None, "closed twice");
    if reason.is_some() {
        assert!(
            matches!(events.last(), Some(Event::Closed(_))),
            "news after the end"
        );
    }
    reason
}

pub(super) fn hlak(events: &[Event]) -> Option<Hlak> {
    events.iter().find_map(|event| match event {
        Event::Authenticated { hlak } => Some(hlak.clone()),
        _ => None,
    })
}

/// One link and a hand that plays its peer.
pub(super) struct Solo {
    pub(super) now: Instant,
    pub(super) link: Link,
    pub(super) entropy: Seeded,
    pub(super) events: Vec<Event>,
    answered: usize,
}

impl Solo {
    pub(super) fn server(config: AuthenticatorConfig) -> Self {
        let mut entropy = Seeded(3);
        let link = Link::authenticator(config, &mut entropy);
        Self::new(link, entropy)
    }

    pub(super) fn client(config: AuthenticateeConfig) -> Self {
        let mut entropy = Seeded(4);
        let link = Link::authenticatee(config, &mut entropy);
        Self::new(link, entropy)
    }

    fn new(link: Link, entropy: Seeded) -> Self {
        Self {
            now: Instant::from_nanos(1_000_000_000),
            link,
            entropy,
            events: Vec::new(),
            answered: 0,
        }
    }

    fn take(&mut self, out: Collected<Event>) -> Vec<Vec<u8>> {
        self.events.extend(out.events);
        out.sent
    }

    pub(super) fn up(&mut self) -> Vec<Vec<u8>> {
        let mut out = Collected::default();
        self.link.up(self.now, &mut self.entropy, &mut out);
        self.take(out)
    }

    /// The peer sends a frame, `FF 03` and protocol included; returns what the link sends.
    pub(super) fn hear(&mut self, frame: &[u8]) -> Vec<Vec<u8>> {
        let frame = frame::parse(frame).expect("a frame");
        let mut out = Collected::default();
        self.link.handle_frame(
            self.now,
            frame.protocol,
            frame.information,
            &mut self.entropy,
            &mut out,
        );
        self.take(out)
    }

    /// Lets time pass; returns what the link sends meanwhile, with how long it waited.
    pub(super) fn wait(&mut self, length: Duration) -> Vec<(Duration, Vec<u8>)> {
        let (start, end) = (self.now, self.now + length);
        let mut sent = Vec::new();
        while let Some(next) = self.link.next_timeout().filter(|&at| at <= end) {
            self.now = next.max(self.now);
            let mut out = Collected::default();
            self.link
                .handle_timeout(self.now, &mut self.entropy, &mut out);
            let waited = self.now.saturating_since(start);
            sent.extend(self.take(out).into_iter().map(|frame| (waited, frame)));
        }
        self.now = end;
        sent
    }

    pub(super) fn verdict(&mut self, verdict: Verdict) -> Vec<Vec<u8>> {
        let mut out = Collected::default();
        self.link
            .handle_verdict(self.now, verdict, &mut self.entropy, &mut out);
        self.take(out)
    }

    pub(super) fn assign(&mut self, assignment: Assignment) -> Vec<Vec<u8>> {
        let mut out = Collected::default();
        self.link
            .assign(self.now, assignment, &mut self.entropy, &mut out);
        self.take(out)
    }

    /// Events since the last call.
    pub(super) fn news(&mut self) -> Vec<Event> {
        let news = self.events[self.answered..].to_vec();
        self.answered = self.events.len();
        news
    }

    /// Opens LCP of a server: answers its request with an Ack, sends an empty one.
    pub(super) fn open_lcp(&mut self) {
        self.up();
        let sent = self.hear(&control_frame(frame::LCP, 1, 200, &[]));
        let mut ack = sent[0].clone();
        assert_eq!(ack[..5], [0xff, 3, 0xc0, 0x21, 1], "our request goes first");
        ack[4] = 2;
        self.hear(&ack);
        assert!(self.link.lcp.is_open());
    }

    /// A server in the network phase, by PAP; nothing assigned yet.
    pub(super) fn accepted(config: AuthenticatorConfig) -> Self {
        let mut solo = Self::server(AuthenticatorConfig {
            methods: vec![AuthMethod::Pap],
            ..config
        });
        solo.open_lcp();
        solo.hear(&control_frame(frame::PAP, 1, 1, b"\x04User\x01x"));
        let sent = solo.verdict(Verdict::Accept {
            hlak: Hlak::ZERO,
            message: Vec::new(),
        });
        assert_eq!(sent, [control_frame(frame::PAP, 2, 1, &[0])]);
        solo.news();
        solo
    }

    /// The same with the usual addresses assigned.
    pub(super) fn assigned(config: AuthenticatorConfig) -> Self {
        let mut solo = Self::accepted(config);
        assert!(solo.assign(assignment()).is_empty());
        solo
    }
}

/// One option, type and length included.
pub(super) fn option(kind: u8, value: &[u8]) -> Vec<u8> {
    let mut room = [0; 255];
    let mut writer = crate::wire::Writer::new(&mut room);
    control::put_option(&mut writer, kind, value).expect("it fits");
    writer.written().to_vec()
}

/// A whole frame with a control packet.
pub(super) fn control_frame(protocol: u16, code: u8, identifier: u8, data: &[u8]) -> Vec<u8> {
    let mut out = Collected::<()>::default();
    control::send(&mut out, protocol, code, identifier, |to| to.put(data));
    out.sent.pop().expect("it fits")
}
