//! Both ends of a session, without a shard or a driver: the server's is measured.

use std::sync::Arc;

use datapath::io::SendBuffer;
use datapath::ip::checksum::CopyAndSum;
use datapath::ip::offload::merge::{Merge, Pushed};
use datapath::ppp::auth::AuthMethod;
use datapath::session::event::{DropReason, Event};
use datapath::session::policy::{Answer, Question};
use datapath::session::queue::FlowQueue;
use datapath::session::transmit::BufferSource;
use datapath::session::{ClientSettings, Edge, ServerSettings, Session};
use datapath::shard::Pool;
use datapath::sys::copy_and_sum;
use datapath::testing::fixtures::{self as known, PASSWORD, USER};
use datapath::testing::pair::SharedRng;
use datapath::time::Instant;
use datapath::tls::{ClientProfile, ServerGeneration, Suite};

use super::apart;
use super::offload::OFFLOADS;
use crate::fixtures;
use crate::floor::rig::CLIENT;

/// Turns within which a session is up.
const SET_UP_TURNS: usize = 100;

/// What a session reaches: a shard's pool, and a merge for what goes inside.
#[derive(Debug)]
pub(super) struct PathEdge {
    pub(super) pool: Pool,
    entropy: SharedRng,
    question: Option<Question>,
    merge: Merge,
    copy_and_sum: CopyAndSum,
    /// Packets for the inside, and writes that took them there.
    pub(super) packets: u64,
    pub(super) writes: u64,
    pub(super) drops: u64,
    pub(super) late: u64,
}

impl PathEdge {
    fn new(seed: u64) -> Self {
        Self {
            pool: Pool::new(16),
            entropy: SharedRng::new(seed),
            question: None,
            merge: Merge::new(OFFLOADS).with_copy_and_sum(copy_and_sum::fastest()),
            copy_and_sum: copy_and_sum::fastest(),
            packets: 0,
            writes: 0,
            drops: 0,
            late: 0,
        }
    }

    /// Writes what was kept to be merged.
    pub(super) fn flush(&mut self) {
        let writes = &mut self.writes;
        self.merge.flush(&mut |_| *writes += 1);
    }
}

impl BufferSource for PathEdge {
    fn large(&mut self) -> Option<SendBuffer> {
        self.pool.large()
    }
    fn small(&mut self) -> SendBuffer {
        self.pool.small()
    }
    fn large_beside(&mut self, held: usize) -> Option<SendBuffer> {
        self.pool.large_beside(held)
    }
    fn give_back(&mut self, buffer: SendBuffer) {
        self.pool.give_back(buffer);
    }
    fn queue(&mut self) -> Box<FlowQueue> {
        self.pool.queue()
    }
    fn give_queue(&mut self, queue: Box<FlowQueue>) {
        self.pool.give_queue(queue);
    }
}

impl Edge for PathEdge {
    type Entropy = SharedRng;

    fn inside(&mut self, packet: &mut [u8]) {
        let writes = &mut self.writes;
        if self.merge.push(0, packet, &mut |_| *writes += 1) == Pushed::Direct {
            *writes += 1;
        }
        self.packets += 1;
    }
    fn ask(&mut self, question: Question) {
        self.question = Some(question);
    }
    fn event(&mut self, event: Event) {
        assert!(!matches!(event, Event::Ended(_)), "{event:?}");
    }
    fn dropped(&mut self, reason: DropReason) {
        self.drops += 1;
        self.late += u64::from(reason == DropReason::Late);
    }
    fn entropy(&self) -> SharedRng {
        self.entropy.clone()
    }
    fn copy_and_sum(&self) -> CopyAndSum {
        self.copy_and_sum
    }
    fn take_stash(&mut self) -> Vec<u8> {
        self.pool.take_stash()
    }
    fn give_stash(&mut self, stash: Vec<u8>) {
        self.pool.give_stash(stash);
    }
}

/// One end.
#[derive(Debug)]
pub(super) struct End {
    pub(super) session: Session,
    pub(super) edge: PathEdge,
}

impl End {
    /// Sends what waits, to `wire`; the copy there is not this end's.
    pub(super) fn send(&mut self, now: Instant, wire: &mut Vec<u8>) {
        while let Some(buffer) = self.session.poll_send(now, &mut self.edge) {
            apart(|| wire.extend_from_slice(&buffer.bytes[buffer.start..buffer.end]));
            self.edge.pool.give(buffer);
            self.session.sent(now, Ok(()), &mut self.edge);
        }
    }

    /// Takes what came by `wire`.
    pub(super) fn receive(&mut self, now: Instant, wire: &mut Vec<u8>) {
        if !wire.is_empty() {
            self.session.receive(now, wire, &mut self.edge);
            wire.clear();
        }
    }
}

/// How two ends speak.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) server: Arc<ServerSettings>,
    pub(super) client: Arc<ClientSettings>,
}

impl Settings {
    /// Under `suite` of TLS 1.3, or without secrecy.
    pub(super) fn new(suite: Option<Suite>, record_per_packet: bool) -> Self {
        let (server, mut client) = match suite {
            None => (
                known::server_settings(),
                known::client_settings(USER, PASSWORD, AuthMethod::MsChapV2),
            ),
            Some(suite) => with_roles(fixtures::tls_roles(suite)),
        };
        client.limits.record_per_packet = record_per_packet;
        Self {
            server: Arc::new(server),
            client: Arc::new(client),
        }
    }

    /// With keys and a certificate as they are shipped, which take other instructions each time.
    pub(super) fn random(suite: Suite) -> Self {
        let (server, client) = with_roles(fixtures::random_tls_roles(suite));
        Self {
            server: Arc::new(server),
            client: Arc::new(client),
        }
    }
}

fn with_roles(
    (generation, profile): (ServerGeneration, ClientProfile),
) -> (ServerSettings, ClientSettings) {
    let method = AuthMethod::MsChapV2;
    let mut client = known::client_settings_with(Arc::new(profile), USER, PASSWORD, method);
    client.server_name = fixtures::server_name();
    (known::server_settings_with(Arc::new(generation)), client)
}

/// Both ends, and what is under way between them.
#[derive(Debug)]
pub(super) struct Ends {
    pub(super) client: End,
    pub(super) server: End,
    pub(super) now: Instant,
    to_server: Vec<u8>,
    to_client: Vec<u8>,
}

impl Ends {
    /// Sets a session up; what the client and the owner do in it is done [`apart`].
    pub(super) fn set_up(settings: &Settings) -> Self {
        let now = Instant::from_nanos(1_000_000_000);
        let peer = ([192, 0, 2, 9], 50_000).into();
        let (client, edge, server_settings) = apart(|| {
            let session = Session::connect(now, Arc::clone(&settings.client), peer);
            let mut client = End {
                session: session.expect("good settings"),
                edge: PathEdge::new(1),
            };
            client.session.connected(now, &mut client.edge);
            (client, PathEdge::new(2), Arc::clone(&settings.server))
        });
        let session = Session::accept(now, server_settings, peer).expect("good settings");
        let mut ends = Self {
            client,
            server: End { session, edge },
            now,
            to_server: Vec::new(),
            to_client: Vec::new(),
        };
        ends.turn_until(|ends| ends.client.session.is_up() && ends.server.session.is_up());
        ends
    }

    /// A session that carries IPv4 and has said all it says at first.
    pub(super) fn up(settings: &Settings) -> Self {
        let mut ends = Self::set_up(settings);
        let has_ipv4 = |end: &End| end.session.addresses().ipv4.is_some();
        ends.turn_until(|ends| has_ipv4(&ends.client) && has_ipv4(&ends.server));
        while ends.turn() {}
        ends
    }

    fn turn_until(&mut self, is_done: impl Fn(&Self) -> bool) {
        let mut turns = 0;
        while !is_done(self) {
            assert!(turns < SET_UP_TURNS, "the session is not up");
            turns += 1;
            if !self.turn() {
                self.wait();
            }
        }
    }

    /// Carries what there is; `false` if neither had anything to say.
    fn turn(&mut self) -> bool {
        let now = self.now;
        apart(|| {
            self.client.receive(now, &mut self.to_client);
            self.client.send(now, &mut self.to_server);
        });
        let has_come = !self.to_server.is_empty();
        self.server.receive(now, &mut self.to_server);
        if let Some(question) = self.server.edge.question.take() {
            let answer = apart(|| judge(question));
            let End { session, edge } = &mut self.server;
            session.handle_answer(now, answer, edge);
        }
        self.server.send(now, &mut self.to_client);
        has_come || !self.to_client.is_empty()
    }

    /// Lets time pass until the next deadline.
    fn wait(&mut self) {
        let ends = [&self.client.session, &self.server.session];
        let next = ends.into_iter().filter_map(Session::next_timeout).min();
        self.now = next.map_or(self.now, |next| next.max(self.now));
        let End { session, edge } = &mut self.client;
        apart(|| session.handle_timeout(self.now, edge));
        let End { session, edge } = &mut self.server;
        session.handle_timeout(self.now, edge);
    }
}

/// Lets the one user in.
fn judge(question: Question) -> Answer {
    let mut answer = known::judge(&question, 1);
    if let Answer::Accept { policy, .. } = &mut answer
        && let Some(ipv4) = &mut policy.ipv4
    {
        ipv4.client = CLIENT;
    }
    answer
}
