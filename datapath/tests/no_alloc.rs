//! Nothing is allocated for a packet: in steady state the counter of the allocator stands still, in a
//! session and in a whole shard, in both directions, whatever the packets and their cuts.
//!
//! Only the thread that works is counted; what a test prepares, it prepares before.

mod fixed_io;
mod pool_edge;
mod raw_client;
mod traffic_mix;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use datapath::io::{Loss, SendBuffer};
use datapath::ip::checksum;
use datapath::ppp::auth::AuthMethod;
use datapath::session::event::{DropReason, Event};
use datapath::session::policy::Question;
use datapath::session::transmit::BufferSource;
use datapath::session::{ClientSettings, Disposition, Edge, ServerSettings, Session};
use datapath::shard::counters::Published;
use datapath::shard::handoff::Mailbox;
use datapath::shard::route::{Directory, Range};
use datapath::shard::{self, Commands, Inside, Owner, Pool, SessionId, Shard};
use datapath::sys::alloc::{CountingAllocator, counted};
use datapath::testing::fixtures::{self, PASSWORD, USER};
use datapath::testing::pair::{Pair, SharedRng};
use datapath::time::{Duration, Instant};
use datapath::tls::{
    self, ClientProfile, Opened, RecordLayerKind, ServerGeneration, Suite, TlsOptions, Version,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use fixed_io::{FixedIo, Wire};
use pool_edge::PoolEdge;
use raw_client::{Client, NUMBER, settings};
use traffic_mix::{downlink_mix, service_mix, stream_of, uplink_mix};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Packets that are counted over, at the least.
const PACKETS_MIN: u64 = 10_000;

/// Virtual time of the warm-up: past the first Hello.
const WARM_UP: Duration = Duration::from_secs(150);

/// The two ends' TLS, by name: null, and the own record layer under each version and suite.
fn ends() -> Vec<(String, Arc<ServerGeneration>, Arc<ClientProfile>)> {
    let null = Arc::new(ServerGeneration::null(raw_client::GOLDEN_CERTIFICATE));
    let mut ends = vec![("null".to_owned(), null, Arc::new(ClientProfile::null()))];
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["vpn.example.com".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    for version in [Version::Tls13, Version::Tls12] {
        for suite in [Suite::Aes128Gcm, Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
            let options = TlsOptions {
                min_version: version,
                max_version: version,
                suites: vec![suite],
                record_layer: RecordLayerKind::Own,
                ..TlsOptions::default()
            };
            let chain = vec![CertificateDer::from(certificate.der().to_vec())];
            let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
            ends.push((
                format!("{version:?} {suite:?}"),
                Arc::new(ServerGeneration::new(chain, key, &options).unwrap()),
                Arc::new(ClientProfile::danger_accept_any(&options).unwrap()),
            ));
        }
    }
    ends
}

fn server_settings(tls: Arc<ServerGeneration>) -> ServerSettings {
    ServerSettings {
        tls,
        ..settings(AuthMethod::MsChapV2)
    }
}

/// One session that is up, its peer's keys, and a wire that allocates nothing.
struct Bench {
    client: Client,
    edge: PoolEdge,
    /// The uplink mix as an SSTP stream.
    stream: Vec<u8>,
    packets: u64,
    /// Records that the session sent.
    received: u64,
    wire: Vec<u8>,
}

impl Bench {
    fn new(server: Arc<ServerGeneration>, profile: &Arc<ClientProfile>) -> Self {
        let mut client = Client::with(server_settings(server), profile, true, 1);
        client.come_up(AuthMethod::MsChapV2);
        let mix = uplink_mix();
        Self {
            client,
            edge: PoolEdge::new(),
            stream: stream_of(&mix),
            packets: mix.len() as u64,
            received: 0,
            wire: Vec::with_capacity(64 * 1024),
        }
    }

    /// Time passes, and what falls due is done.
    fn pass(&mut self, time: Duration) {
        self.client.now = self.client.now + time;
        let now = self.client.now;
        if self
            .client
            .session
            .next_timeout()
            .is_some_and(|at| at <= now)
        {
            self.client.session.handle_timeout(now, &mut self.edge);
        }
    }

    /// The uplink mix once, in records of `record_len`, received `piece_len` at a time.
    fn uplink(&mut self, record_len: usize, piece_len: usize) {
        let tls = self.client.tls.as_mut().unwrap();
        let (prefix, suffix) = (tls.prefix_len(), tls.suffix_len());
        self.wire.clear();
        for part in self.stream.chunks(record_len) {
            let start = self.wire.len();
            self.wire.resize(start + prefix, 0);
            self.wire.extend_from_slice(part);
            self.wire.resize(self.wire.len() + suffix, 0);
            let len = tls.seal(&mut self.wire[start..], part.len()).unwrap();
            self.wire.truncate(start + len);
        }
        for piece in self.wire.chunks_mut(piece_len) {
            self.client
                .session
                .receive(self.client.now, piece, &mut self.edge);
        }
        self.flush();
    }

    fn downlink(&mut self, packets: &[Vec<u8>]) {
        for packet in packets {
            self.client
                .session
                .send_packet(self.client.now, packet, &mut self.edge);
        }
        self.flush();
    }

    /// Takes what the session sends, as its peer would.
    fn flush(&mut self) {
        let now = self.client.now;
        while let Some(mut buffer) = self.client.session.poll_send(now, &mut self.edge) {
            let mut bytes = &mut buffer.bytes[buffer.start..buffer.end];
            while let Some(len) = tls::Connection::record_len(bytes).unwrap() {
                let (record, rest) = bytes.split_at_mut(len);
                let opened = self.client.tls.as_mut().unwrap().open(record).unwrap();
                assert!(matches!(opened, Opened::Data(_)));
                self.received += 1;
                bytes = rest;
            }
            self.edge.pool.give(buffer);
            self.client.session.sent(now, Ok(()), &mut self.edge);
        }
        assert_eq!(self.client.session.disposition(), Disposition::Keep);
    }
}

#[test]
fn no_alloc_session_uplink() {
    for (name, server, profile) in ends() {
        let mut bench = Bench::new(server, &profile);
        let cuts = [
            (16_384, 65_536),
            (1_000, 1_460),
            (4_000, 333),
            (77, 4_096),
            (16_384, 1),
        ];
        let mut run = |packets_min: u64, time: Duration| {
            let mut packets = 0;
            let end = bench.client.now + time;
            while packets < packets_min || bench.client.now < end {
                for (record_len, piece_len) in cuts {
                    bench.uplink(record_len, piece_len);
                    bench.pass(Duration::from_millis(100));
                    packets += bench.packets;
                }
            }
            packets
        };
        run(1, WARM_UP);
        let (packets, allocations) = counted(|| run(PACKETS_MIN, Duration::ZERO));
        assert_eq!(
            allocations.count, 0,
            "{name}: {allocations:?} in {packets} packets"
        );
        assert_eq!(allocations.frees, 0, "{name}");
        println!("{name}: 0 allocations in {packets} uplink packets");
        let passed = bench.edge.packets * bench.packets / (bench.edge.packets + bench.edge.drops);
        assert_eq!(passed, bench.packets - 1, "{name}: all but the forged one");
    }
}

#[test]
fn no_alloc_session_downlink() {
    for (name, server, profile) in ends() {
        let mut bench = Bench::new(server, &profile);
        let mix = downlink_mix();
        let mut run = |packets_min: u64, time: Duration| {
            let mut packets = 0;
            let end = bench.client.now + time;
            while packets < packets_min || bench.client.now < end {
                for bursts in [1, 8, 3] {
                    for _ in 0..bursts {
                        bench.downlink(&mix);
                    }
                    // A sign of life, or the session ends for want of one.
                    bench.uplink(16_384, 65_536);
                    bench.pass(Duration::from_millis(100));
                    packets += bursts * mix.len() as u64;
                }
                // More than both buffers hold: what is too much is dropped.
                for _ in 0..20 {
                    for packet in &mix {
                        let Bench { client, edge, .. } = &mut bench;
                        client.session.send_packet(client.now, packet, edge);
                    }
                }
                bench.flush();
            }
            packets
        };
        run(1, WARM_UP);
        let (packets, allocations) = counted(|| run(PACKETS_MIN, Duration::ZERO));
        assert_eq!(
            allocations.count, 0,
            "{name}: {allocations:?} in {packets} packets"
        );
        assert_eq!(allocations.frees, 0, "{name}");
        println!("{name}: 0 allocations in {packets} downlink packets");
        let traffic = bench.client.session.traffic();
        assert!(traffic.downlink_packets >= packets, "{name}");
    }
}

/// A connection that takes 10 ms a send, and more comes than it takes: packets are sorted by flow,
/// marked, dropped late and pushed out, and now and then nothing waits any more.
#[test]
fn no_alloc_session_backed_up() {
    let (name, server, profile) = ends().swap_remove(1);
    let mut bench = Bench::new(server, &profile);
    bench.edge.pool = Pool::new(16);
    let mut mix = downlink_mix();
    for packet in &mut mix {
        if packet[0] >> 4 == 4 && packet[9] == 17 {
            packet[1] |= 2;
            packet[10..12].fill(0);
            let sum = checksum::of(&packet[..20]);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
        }
    }
    mix.extend(downlink_mix());
    let mut late = 0;
    let mut run = |rounds: usize| {
        for round in 0..rounds {
            let Bench { client, edge, .. } = &mut bench;
            let in_flight = client.session.poll_send(client.now, edge);
            let bursts = if round % 100 < 80 { 3 } else { 0 };
            for packet in std::iter::repeat_n(&mix, bursts).flatten() {
                client.session.send_packet(client.now, packet, edge);
            }
            client.now = client.now + Duration::from_millis(10);
            if let Some(mut buffer) = in_flight {
                let mut bytes = &mut buffer.bytes[buffer.start..buffer.end];
                while let Some(len) = tls::Connection::record_len(bytes).unwrap() {
                    let (record, rest) = bytes.split_at_mut(len);
                    client.tls.as_mut().unwrap().open(record).unwrap();
                    bytes = rest;
                }
                edge.pool.give(buffer);
                client.session.sent(client.now, Ok(()), edge);
            }
            if round % 100 == 99 {
                late += edge.late;
                edge.late = 0;
                bench.flush();
                bench.uplink(16_384, 65_536);
                bench.pass(Duration::ZERO);
            }
        }
    };
    run(2_000);
    let (_, allocations) = counted(|| run(4_000));
    assert_eq!(allocations.count, 0, "{name}: {allocations:?}");
    assert_eq!(allocations.frees, 0, "{name}");
    assert!(late > 100, "the queue stood, and was told so: {late}");
    assert_eq!(bench.edge.pool.large_left(), 16, "all buffers are back");
}

/// The gateway's own answers inside the tunnel.
#[test]
fn no_alloc_session_services() {
    for (name, server, profile) in ends() {
        let mut bench = Bench::new(server, &profile);
        let mix = service_mix();
        bench.stream = stream_of(&mix);
        let mut run = |rounds: usize| {
            for _ in 0..rounds {
                bench.uplink(16_384, 65_536);
                bench.pass(Duration::from_millis(2_000));
            }
        };
        run(100);
        let (_, allocations) = counted(|| run(4_000));
        assert_eq!(allocations.count, 0, "{name}: {allocations:?}");
        assert!(
            bench.received > 4_000,
            "{name}: {} answered",
            bench.received
        );
        assert_eq!(bench.edge.packets, 0, "{name}: none of it is the inside's");
        assert_eq!(bench.edge.drops, 0, "{name}: all of it is served");
    }
}

/// Two sessions, both of them ours: the client's side allocates nothing either.
#[test]
fn no_alloc_session_pair() {
    for (name, server, profile) in ends() {
        let mut pair = Pair::new(
            Arc::new(fixtures::client_settings_with(
                profile,
                USER,
                PASSWORD,
                AuthMethod::MsChapV2,
            )),
            Arc::new(fixtures::server_settings_with(server)),
            3,
            Box::new(|question| Some(fixtures::judge(&question, NUMBER))),
        )
        .unwrap();
        assert!(pair.run_until(100, Pair::is_up), "{name}");
        let (mut client_edge, mut server_edge) = (PoolEdge::new(), PoolEdge::new());
        let (mut now, mut packets) = (pair.now, 0);
        let (client, server) = (&mut pair.client.session, &mut pair.server.session);
        let (up, down) = (uplink_mix(), downlink_mix());
        let mut run = |packets_min: u64, time: Duration| {
            let end = now + time;
            let start = packets;
            while packets - start < packets_min || now < end {
                for (up, down) in up.iter().zip(&down) {
                    client.send_packet(now, up, &mut client_edge);
                    server.send_packet(now, down, &mut server_edge);
                    packets += 2;
                }
                while carry(client, &mut client_edge, server, &mut server_edge, now)
                    | carry(server, &mut server_edge, client, &mut client_edge, now)
                {
                }
                now = now + Duration::from_millis(100);
                client.handle_timeout(now, &mut client_edge);
                server.handle_timeout(now, &mut server_edge);
            }
            packets - start
        };
        run(1, WARM_UP);
        let (packets, allocations) = counted(|| run(PACKETS_MIN, Duration::ZERO));
        assert_eq!(
            allocations.count, 0,
            "{name}: {allocations:?} in {packets} packets"
        );
        assert_eq!(allocations.frees, 0, "{name}");
        assert!(
            client_edge.packets > 5_000 && server_edge.packets > 5_000,
            "{name}"
        );
    }
}

fn carry(
    from: &mut Session,
    from_edge: &mut PoolEdge,
    to: &mut Session,
    to_edge: &mut PoolEdge,
    now: Instant,
) -> bool {
    let Some(mut buffer) = from.poll_send(now, from_edge) else {
        return false;
    };
    for piece in buffer.bytes[buffer.start..buffer.end].chunks_mut(1_111) {
        to.receive(now, piece, to_edge);
    }
    from_edge.pool.give(buffer);
    from.sent(now, Ok(()), from_edge);
    true
}

// A whole shard

/// Lets one client in; with the owner inside it counts what comes and sends a burst each turn.
#[derive(Debug)]
struct OneClient {
    settings: Arc<ServerSettings>,
    question: Option<(SessionId, Question)>,
    session: Option<SessionId>,
    received: u64,
    to_send: Vec<Vec<u8>>,
    /// Bursts still to be sent.
    bursts: u64,
}

impl Owner for OneClient {
    fn accept(&mut self, _: SessionId, _: usize, _: SocketAddr) -> Option<Arc<ServerSettings>> {
        Some(Arc::clone(&self.settings))
    }

    fn ask(&mut self, session: SessionId, question: Question) {
        self.question = Some((session, question));
    }

    fn event(&mut self, _: Instant, session: SessionId, event: Event) {
        match event {
            Event::Up(_) => self.session = Some(session),
            Event::Ended(ended) => panic!("{ended:?}"),
            _ => {}
        }
    }

    fn packet(&mut self, _: Instant, _: SessionId, _: &[u8]) {
        self.received += 1;
    }

    fn poll(&mut self, _: Instant, commands: &mut Commands) {
        if let Some((session, question)) = self.question.take() {
            commands.answer(session, fixtures::judge(&question, NUMBER));
        }
        if let (Some(session), Some(left)) = (self.session, self.bursts.checked_sub(1)) {
            self.bursts = left;
            for packet in &self.to_send {
                commands.send_packet(session, packet);
            }
        }
    }
}

type TestShard = Shard<FixedIo, OneClient, SharedRng>;

/// A client session and the shards before it; the second shard, if any, only has a TUN queue.
struct Site {
    shards: Vec<TestShard>,
    wires: Vec<Rc<RefCell<Wire>>>,
    client: Session,
    edge: PoolEdge,
    is_up: bool,
    now: Instant,
}

/// As [`PoolEdge`], but for the set-up.
struct SetUpEdge<'a>(&'a mut PoolEdge, &'a mut bool);

impl BufferSource for SetUpEdge<'_> {
    fn large(&mut self) -> Option<SendBuffer> {
        self.0.large()
    }
    fn small(&mut self) -> SendBuffer {
        self.0.small()
    }
}

impl Edge for SetUpEdge<'_> {
    type Entropy = SharedRng;
    fn inside(&mut self, packet: &mut [u8]) {
        self.0.inside(packet);
    }
    fn ask(&mut self, question: Question) {
        self.0.ask(question);
    }
    fn event(&mut self, event: Event) {
        *self.1 |= matches!(event, Event::Up(_));
    }
    fn dropped(&mut self, reason: DropReason) {
        self.0.dropped(reason);
    }
    fn entropy(&self) -> SharedRng {
        self.0.entropy()
    }
    fn take_stash(&mut self) -> Vec<u8> {
        self.0.take_stash()
    }
    fn give_stash(&mut self, stash: Vec<u8>) {
        self.0.give_stash(stash);
    }
}

impl Site {
    fn new(
        server: Arc<ServerGeneration>,
        profile: Arc<ClientProfile>,
        inside: Inside,
        shards: u16,
    ) -> Self {
        let directory = Arc::new(Directory::new(&[
            Range::v4([10, 8, 0, 0].into(), 256).unwrap(),
            Range::v6("fd00:8::".parse().unwrap(), 256).unwrap(),
        ]));
        let mailboxes: Arc<[Arc<Mailbox>]> = (0..shards).map(|_| Mailbox::new(64)).collect();
        let settings = Arc::new(server_settings(server));
        let mut wires = Vec::new();
        let shards = (0..shards)
            .map(|index| {
                let io = FixedIo::new(downlink_mix());
                wires.push(Rc::clone(&io.wire));
                let owner = OneClient {
                    settings: Arc::clone(&settings),
                    question: None,
                    session: None,
                    received: 0,
                    to_send: downlink_mix(),
                    bursts: 0,
                };
                let config = shard::Config {
                    index,
                    connections_max: 16,
                    handshakes_max: 16,
                    send_buffers: 8,
                    inside,
                    offloads: None,
                    copy_and_sum: checksum::copy_and_sum,
                    isolate: true,
                    directory: Arc::clone(&directory),
                    mailboxes: Arc::clone(&mailboxes),
                    published: Published::new(),
                };
                Shard::new(io, owner, SharedRng::new(index.into()), config)
            })
            .collect();
        let now = wires[0].borrow().now;
        let client: ClientSettings =
            fixtures::client_settings_with(profile, USER, PASSWORD, AuthMethod::MsChapV2);
        let client = Session::connect(now, Arc::new(client), ([127, 0, 0, 1], 443).into()).unwrap();
        wires[0].borrow_mut().accepts = true;
        let mut site = Self {
            shards,
            wires,
            client,
            edge: PoolEdge::new(),
            is_up: false,
            now,
        };
        let Self {
            client,
            edge,
            is_up,
            ..
        } = &mut site;
        client.connected(now, &mut SetUpEdge(edge, is_up));
        for _ in 0..200 {
            site.turn(Duration::from_millis(50));
        }
        assert!(site.is_up && site.shards[0].owner().session.is_some());
        site
    }

    /// One turn of every shard and of the client.
    fn turn(&mut self, time: Duration) {
        self.now = self.now + time;
        for (wire, shard) in self.wires.iter().zip(&mut self.shards) {
            wire.borrow_mut().now = self.now;
            assert!(shard.turn().unwrap());
        }
        let wire = &mut *self.wires[0].borrow_mut();
        assert!(!wire.closed);
        let mut edge = SetUpEdge(&mut self.edge, &mut self.is_up);
        self.client.handle_timeout(self.now, &mut edge);
        if !wire.outbox.is_empty() {
            self.client.receive(self.now, &mut wire.outbox, &mut edge);
            wire.outbox.clear();
        }
        while let Some(buffer) = self.client.poll_send(self.now, &mut edge) {
            wire.inbox
                .extend_from_slice(&buffer.bytes[buffer.start..buffer.end]);
            edge.0.pool.give(buffer);
            self.client.sent(self.now, Ok::<(), Loss>(()), &mut edge);
        }
    }

    fn client_sends(&mut self, packets: &[Vec<u8>]) {
        for packet in packets {
            self.client.send_packet(self.now, packet, &mut self.edge);
        }
    }

    /// Warms up, then counts.
    fn assert_no_alloc(&mut self, name: &str, mut burst: impl FnMut(&mut Self) -> u64) {
        let end = self.now + WARM_UP;
        while self.now < end {
            burst(self);
            self.turn(Duration::from_millis(100));
        }
        let (packets, allocations) = counted(|| {
            let mut packets = 0;
            while packets < PACKETS_MIN {
                packets += burst(self);
                self.turn(Duration::from_millis(100));
            }
            packets
        });
        assert_eq!(
            allocations.count, 0,
            "{name}: {allocations:?} in {packets} packets"
        );
        assert_eq!(allocations.frees, 0, "{name}");
        println!("{name}: 0 allocations in {packets} packets");
    }
}

#[test]
fn no_alloc_shard_tun() {
    for (name, server, profile) in ends() {
        let mut site = Site::new(server, profile, Inside::Tun, 1);
        let up = uplink_mix();
        site.assert_no_alloc(&format!("{name}, TUN"), |site| {
            site.client_sends(&up);
            site.wires[0].borrow_mut().tun_left += 14;
            up.len() as u64 + 14
        });
        assert!(site.wires[0].borrow().tun_written > 5_000);
        assert!(site.edge.packets > 5_000);
    }
}

#[test]
fn no_alloc_shard_reflector() {
    for (name, server, profile) in ends() {
        let mut site = Site::new(server, profile, Inside::Reflector, 1);
        let up = uplink_mix();
        site.assert_no_alloc(&format!("{name}, reflector"), |site| {
            site.client_sends(&up);
            2 * up.len() as u64
        });
        assert!(site.edge.packets > 3_000);
    }
}

#[test]
fn no_alloc_shard_owner() {
    for (name, server, profile) in ends() {
        let mut site = Site::new(server, profile, Inside::Owner, 1);
        let up = uplink_mix();
        site.assert_no_alloc(&format!("{name}, owner"), |site| {
            site.client_sends(&up);
            let owner = site.shards[0].owner_mut();
            owner.bursts += 1;
            (up.len() + owner.to_send.len()) as u64
        });
        assert!(site.shards[0].owner().received > 5_000);
        assert!(site.edge.packets > 5_000);
    }
}

#[test]
fn no_alloc_shard_handoff() {
    let (name, server, profile) = ends().remove(1);
    let mut site = Site::new(server, profile, Inside::Tun, 2);
    let up = uplink_mix();
    site.assert_no_alloc(&format!("{name}, wrong TUN queue"), |site| {
        site.client_sends(&up);
        site.wires[1].borrow_mut().tun_left += 14;
        14
    });
    assert!(site.shards[1].counters().totals.handoff_out > 5_000);
    assert!(site.edge.packets > 5_000);
}
