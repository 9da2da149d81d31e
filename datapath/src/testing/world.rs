//! Many clients and several shards on one simulated network, one thread, one seed.
//!
//! The shards run the production loop over [`SimIo`]; the authority answers with a delay of its
//! own. Each step turns every shard, then checks what must always hold; when all is quiet time jumps
//! to the next event. A failure names the seed, and the same seed is the same run.
//!
//! It uses the null TLS: real handshakes are neither fast nor reproducible.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use super::fixtures::{self, PASSWORD, USER};
use super::io::{DeviceId, Faults, Network, SimConfig, SimIo};
use super::pair::SharedRng;
use super::rng::Rng;
use super::steering::SimSteering;
use crate::io::{Io as _, TunQueue};
use crate::ip::checksum;
use crate::ip::offload::cut::Cut;
use crate::ip::offload::merge::Offloads;
use crate::ip::offload::{VNET_HEADER_LEN, VnetHeader};
use crate::ppp::auth::AuthMethod;
use crate::session::event::{EndReason, Event};
use crate::session::policy::Question;
use crate::session::{ClientSettings, ServerSettings};
use crate::shard::counters::{Counters, Published};
use crate::shard::handoff::Mailbox;
use crate::shard::route::{Directory, Range};
use crate::shard::{Commands, Config, Inside, Owner, SessionId, Shard};
use crate::time::{Duration, Instant};

/// What a read of a device says that is no more (EBADFD).
const GONE: i32 = 77;

/// Where the shards listen.
const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)), 443);
/// A host of the inside.
const HOST: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);

/// How a world is made.
#[derive(Clone, Copy, Debug)]
pub struct WorldConfig {
    /// Everything follows from it.
    pub seed: u64,
    /// Shards of the gateway.
    pub shards: u16,
    /// Clients, each on a connection of its own.
    pub clients: u16,
    /// What goes wrong.
    pub rough: bool,
    /// Whether the TUN speaks in superpackets.
    pub offload: bool,
    /// Whether packets from the inside go to the queue of their shard.
    pub steered: bool,
}

/// What became of a world.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Hash over all completions.
    pub trace: u64,
    /// Times a client came up.
    pub came_up: u64,
    /// Packets that clients sent and the inside received.
    pub uplink: u64,
    /// Packets that the inside sent and their client received.
    pub downlink: u64,
    /// Packets that crossed from one shard to another.
    pub handed_over: u64,
    /// Connections that moved to another shard.
    pub moved: u64,
}

/// Addresses and logins of the gateway side, shared by all its shards.
#[derive(Debug, Default)]
struct Authority {
    free: VecDeque<u16>,
    held: BTreeMap<SessionId, u16>,
    starts: u64,
    stops: u64,
    accepted: BTreeSet<SessionId>,
}

#[derive(Debug)]
struct Gateway {
    settings: Arc<ServerSettings>,
    authority: Rc<RefCell<Authority>>,
    rng: Rng,
    shards: u16,
    pending: Vec<(Instant, SessionId, Question)>,
    moves: Vec<(SessionId, u16)>,
    /// To be taken in place of the one the shard has.
    queue: Option<TunQueue>,
}

impl Owner for Gateway {
    fn accept(
        &mut self,
        session: SessionId,
        _: usize,
        _: SocketAddr,
    ) -> Option<Arc<ServerSettings>> {
        if self.rng.chance(100) {
            let shard = u16::try_from(self.rng.below(u64::from(self.shards))).unwrap_or(0);
            self.moves.push((session, shard));
        }
        Some(Arc::clone(&self.settings))
    }

    fn ask(&mut self, session: SessionId, question: Question) {
        let delay = Duration::from_millis(self.rng.below(200));
        self.pending
            .push((Instant::ZERO + delay, session, question));
    }

    fn event(&mut self, _: Instant, session: SessionId, event: Event) {
        let mut authority = self.authority.borrow_mut();
        match event {
            Event::Up(_) => {
                authority.starts += 1;
                assert!(
                    authority.accepted.contains(&session),
                    "{session} is up without a login"
                );
            }
            Event::Ended(ended) => {
                authority.stops += u64::from(ended.was_up);
                self.pending.retain(|(_, asking, _)| *asking != session);
                if let Some(number) = authority.held.remove(&session) {
                    authority.free.push_back(number);
                }
            }
            _ => {}
        }
    }

    fn connecting(&mut self, _: u64, _: std::io::Result<SessionId>) {}

    fn tun_replaced(&mut self, result: std::io::Result<()>) {
        result.expect("a queue of the same simulation");
    }

    fn poll(&mut self, now: Instant, commands: &mut Commands) {
        for (session, shard) in self.moves.drain(..) {
            commands.move_to(session, shard);
        }
        if let Some(queue) = self.queue.take() {
            commands.replace_tun(queue);
        }
        let mut pending = std::mem::take(&mut self.pending);
        for (at, session, question) in pending.drain(..) {
            // A fresh question is stamped with its delay; the clock is known only here.
            let at = if at.as_nanos() < 1_000_000_000 {
                now + Duration::from_nanos(at.as_nanos())
            } else {
                at
            };
            if at > now {
                self.pending.push((at, session, question));
                continue;
            }
            let mut authority = self.authority.borrow_mut();
            let Some(number) = authority.free.pop_front() else {
                continue;
            };
            authority.held.insert(session, number);
            authority.accepted.insert(session);
            commands.answer(session, fixtures::judge(&question, number));
        }
    }

    fn next_timeout(&self) -> Option<Instant> {
        self.pending.iter().map(|(at, ..)| *at).min()
    }
}

#[derive(Debug, Default)]
struct ClientState {
    session: Option<SessionId>,
    up: Option<Ipv4Addr>,
    connecting: bool,
}

/// All clients, on one shard of their own.
#[derive(Debug)]
struct Clients {
    settings: Arc<ClientSettings>,
    states: Vec<ClientState>,
    by_session: BTreeMap<SessionId, usize>,
    came_up: u64,
    received: Vec<(Ipv4Addr, Vec<u8>)>,
    to_send: Vec<(usize, Vec<u8>)>,
    to_end: Vec<(usize, bool)>,
    /// Clients that go away do not come back.
    closing: bool,
}

impl Owner for Clients {
    fn accept(&mut self, _: SessionId, _: usize, _: SocketAddr) -> Option<Arc<ServerSettings>> {
        None
    }

    fn ask(&mut self, _: SessionId, _: Question) {}

    fn event(&mut self, _: Instant, session: SessionId, event: Event) {
        let Some(&index) = self.by_session.get(&session) else {
            return;
        };
        let state = &mut self.states[index];
        match event {
            Event::Up(up) => {
                state.up = up.addresses.ipv4;
                self.came_up += 1;
            }
            Event::Changed(addresses) => state.up = addresses.ipv4,
            Event::Ended(_) => {
                *state = ClientState::default();
                self.by_session.remove(&session);
            }
            _ => {}
        }
    }

    fn packet(&mut self, _: Instant, session: SessionId, packet: &[u8]) {
        let Some(&index) = self.by_session.get(&session) else {
            return;
        };
        if let Some(address) = self.states[index].up
            && packet[0] >> 4 == 4
        {
            self.received.push((address, packet.to_vec()));
        }
    }

    fn connecting(&mut self, token: u64, session: std::io::Result<SessionId>) {
        let index = usize::try_from(token).unwrap_or(usize::MAX);
        let state = &mut self.states[index];
        state.connecting = false;
        if let Ok(session) = session {
            state.session = Some(session);
            self.by_session.insert(session, index);
        }
    }

    fn poll(&mut self, _: Instant, commands: &mut Commands) {
        for (index, state) in self.states.iter_mut().enumerate() {
            if state.session.is_none() && !state.connecting && !self.closing {
                state.connecting = true;
                commands.connect(index as u64, Arc::clone(&self.settings), LISTEN, None);
            }
        }
        for (index, packet) in self.to_send.drain(..) {
            if let Some(session) = self.states[index].session {
                commands.send_packet(session, &packet);
            }
        }
        for (index, politely) in self.to_end.drain(..) {
            if let Some(session) = self.states[index].session {
                if politely {
                    commands.terminate(session, EndReason::UserRequest);
                } else {
                    commands.abandon(session, EndReason::UserRequest);
                }
            }
        }
    }
}

/// A gateway, its clients and the network between them.
#[derive(Debug)]
pub struct World {
    config: WorldConfig,
    network: Network,
    device: DeviceId,
    shards: Vec<Shard<SimIo, Gateway, SharedRng>>,
    clients: Shard<SimIo, Clients, SharedRng>,
    authority: Rc<RefCell<Authority>>,
    directory: Arc<Directory>,
    steering: Arc<SimSteering>,
    rng: Rng,
    outcome: Outcome,
}

/// A device of which every packet is in the right queue, or, unsteered, on a wrong one as often as
/// chance will have it.
fn add_device(network: &Network, config: &WorldConfig, steering: &Arc<SimSteering>) -> DeviceId {
    let steering = config.steered.then(|| Arc::clone(steering));
    let queues = usize::from(config.shards);
    let header_len = if config.offload { VNET_HEADER_LEN } else { 0 };
    network.add_device(move |bytes| match &steering {
        Some(steering) => steering.queue(bytes.get(header_len..).unwrap_or_default()),
        None => bytes.iter().map(|&byte| usize::from(byte)).sum::<usize>() % queues,
    })
}

impl World {
    /// A world in which nothing has happened yet.
    ///
    /// # Panics
    ///
    /// Never: its pools are within bounds.
    #[must_use]
    pub fn new(config: WorldConfig) -> Self {
        let mut rng = Rng::new(config.seed);
        let faults = if config.rough {
            Faults::rough()
        } else {
            Faults::none()
        };
        let network = Network::new(rng.next_u64(), faults);
        let pool_len = u64::from(config.clients) * 2 + 16;
        let pools = [
            Range::v4(Ipv4Addr::new(10, 8, 0, 0), pool_len).expect("a small pool"),
            Range::v6("fd00:8::".parse().expect("an address"), pool_len).expect("a small pool"),
        ];
        let steering = SimSteering::new(&pools);
        let device = add_device(&network, &config, &steering);
        let directory = Directory::new(&pools).steered_by(Some(steering.clone()));
        let directory = Arc::new(directory);
        let authority = Rc::new(RefCell::new(Authority {
            free: (2..config.clients * 2 + 10).collect(),
            ..Authority::default()
        }));
        let mailboxes: Arc<[Arc<Mailbox>]> = (0..config.shards)
            .map(|_| Mailbox::with_len_max(256, 2_048))
            .collect();
        let settings = Arc::new(fixtures::server_settings());
        let shards = (0..config.shards)
            .map(|index| {
                let io = SimIo::new(
                    &network,
                    &SimConfig {
                        listeners: vec![LISTEN],
                        device: Some(device),
                        receive_buffers: 16,
                        receive_buffer_len: 4_096,
                        connections: usize::from(config.clients) + 16,
                        ..SimConfig::default()
                    },
                );
                let owner = Gateway {
                    settings: Arc::clone(&settings),
                    authority: Rc::clone(&authority),
                    rng: Rng::new(rng.next_u64()),
                    shards: config.shards,
                    pending: Vec::new(),
                    moves: Vec::new(),
                    queue: None,
                };
                let shard = Config {
                    index,
                    connections_max: usize::from(config.clients) * 2,
                    handshakes_max: usize::from(config.clients) * 2,
                    send_buffers: 64,
                    inside: Inside::Tun,
                    offloads: config.offload.then_some(Offloads {
                        tcp: true,
                        udp: true,
                    }),
                    copy_and_sum: checksum::copy_and_sum,
                    isolate: false,
                    directory: Arc::clone(&directory),
                    mailboxes: Arc::clone(&mailboxes),
                    published: Published::new(),
                };
                Shard::new(io, owner, SharedRng::new(rng.next_u64()), shard)
            })
            .collect();
        let clients = Shard::new(
            SimIo::new(
                &network,
                &SimConfig {
                    connections: usize::from(config.clients) * 2,
                    receive_buffers: 16,
                    receive_buffer_len: 4_096,
                    ..SimConfig::default()
                },
            ),
            Clients {
                settings: Arc::new(fixtures::client_settings(
                    USER,
                    PASSWORD,
                    AuthMethod::MsChapV2,
                )),
                states: (0..config.clients)
                    .map(|_| ClientState::default())
                    .collect(),
                by_session: BTreeMap::new(),
                came_up: 0,
                received: Vec::new(),
                to_send: Vec::new(),
                to_end: Vec::new(),
                closing: false,
            },
            SharedRng::new(rng.next_u64()),
            Config {
                index: 0,
                connections_max: usize::from(config.clients) * 2,
                handshakes_max: usize::from(config.clients) * 2,
                send_buffers: usize::from(config.clients) + 16,
                inside: Inside::Owner,
                offloads: None,
                copy_and_sum: checksum::copy_and_sum,
                isolate: false,
                directory: Arc::new(Directory::new(&[])),
                mailboxes: Arc::from([]),
                published: Published::new(),
            },
        );
        Self {
            config,
            network,
            device,
            shards,
            clients,
            authority,
            directory,
            steering,
            rng,
            outcome: Outcome::default(),
        }
    }

    /// Lives: everyone logs in, packets fly, clients leave in every way and come back; then the
    /// faults stop, everyone must come up, and in the end leave without a trace.
    ///
    /// # Panics
    ///
    /// When an invariant is broken; the message names the seed.
    pub fn run(mut self) -> Outcome {
        for round in 0..12 {
            self.pass(Duration::from_millis(700));
            self.stir();
            match round {
                4 if self.config.rough => self.network.fail_device(self.device, GONE),
                6 if self.config.rough => self.replace_device(),
                _ => {}
            }
        }
        self.network.set_faults(Faults::none());
        let healed = self.network.now();
        while self.up_count() < usize::from(self.config.clients) {
            self.pass(Duration::from_secs(1));
            let waited = self.network.now().saturating_since(healed);
            assert!(
                waited < Duration::from_secs(400),
                "seed {}: {} of {} clients are up {waited:?} after the faults have stopped",
                self.config.seed,
                self.up_count(),
                self.config.clients
            );
        }
        self.exchange();
        self.leave();
        self.finish()
    }

    /// Gives every shard a queue of a new device; sessions must not notice but by what they lost.
    fn replace_device(&mut self) {
        self.check();
        self.device = add_device(&self.network, &self.config, &self.steering);
        for shard in &mut self.shards {
            shard.owner_mut().queue = Some(Network::queue_of(self.device));
            shard.io().waker().wake();
        }
    }

    fn up_count(&self) -> usize {
        self.clients
            .owner()
            .states
            .iter()
            .filter(|state| state.up.is_some())
            .count()
    }

    /// Turns everyone until time has moved on by `duration`.
    fn pass(&mut self, duration: Duration) {
        let until = self.network.now() + duration;
        while self.network.now() < until {
            self.turn_all();
            if !self.network.has_work() && !self.network.advance() {
                self.network.advance_by(duration);
            }
        }
    }

    fn turn_all(&mut self) {
        for shard in &mut self.shards {
            shard.turn().expect("the simulated driver does not fail");
        }
        self.clients
            .turn()
            .expect("the simulated driver does not fail");
        self.check();
    }

    /// What must hold after every step.
    fn check(&mut self) {
        let written = self.network.take_written(self.device);
        let singles: Vec<_> = written
            .into_iter()
            .flat_map(|(_, bytes)| self.singles(bytes))
            .collect();
        for packet in singles {
            if packet[0] >> 4 != 4 {
                continue;
            }
            let source = Ipv4Addr::new(packet[12], packet[13], packet[14], packet[15]);
            // The payload of a client's packet is its own address.
            assert_eq!(
                packet.get(28..32),
                Some(&source.octets()[..]),
                "seed {}: a packet from the tunnel has another's source",
                self.config.seed
            );
            self.outcome.uplink += 1;
        }
        for (address, packet) in std::mem::take(&mut self.clients.owner_mut().received) {
            assert_eq!(
                packet.get(28..32),
                Some(&address.octets()[..]),
                "seed {}: a packet was delivered to the wrong client",
                self.config.seed
            );
            self.outcome.downlink += 1;
        }
    }

    /// The packets that something written to the TUN stands for.
    fn singles(&self, bytes: Vec<u8>) -> Vec<Vec<u8>> {
        if !self.config.offload {
            return vec![bytes];
        }
        let (header, packet) = bytes.split_first_chunk().expect("a header");
        let header = VnetHeader::parse(header).expect("a header that was just made");
        let Some(gso) = header.gso else {
            return vec![packet.to_vec()];
        };
        let mut cut = Cut::new(gso, packet, u16::MAX).expect("a superpacket that was just made");
        let mut singles = Vec::new();
        while let Some(len) = cut.next_len() {
            let mut single = vec![0; len];
            cut.write_next(&mut single);
            singles.push(single);
        }
        singles
    }

    /// Packets both ways, moves between shards, and clients that leave in different ways.
    fn stir(&mut self) {
        self.send_packets();
        let clients = usize::from(self.config.clients);
        for _ in 0..clients / 16 {
            let index = self.rng.index(clients);
            let politely = self.rng.chance(500);
            self.clients.owner_mut().to_end.push((index, politely));
        }
        if self.rng.chance(100) {
            self.network.reset_all();
        }
    }

    fn send_packets(&mut self) {
        let up: Vec<_> = self
            .clients
            .owner()
            .states
            .iter()
            .enumerate()
            .filter_map(|(index, state)| Some((index, state.up?)))
            .collect();
        for (index, address) in up {
            let packet = fixtures::udp(address, HOST, &address.octets());
            self.clients.owner_mut().to_send.push((index, packet));
            let mut packet = fixtures::udp(HOST, address, &address.octets());
            if self.config.offload {
                packet.splice(0..0, VnetHeader::default().to_bytes());
            }
            self.network.inject(self.device, &packet);
        }
    }

    /// With the faults gone every packet must arrive.
    fn exchange(&mut self) {
        self.pass(Duration::from_secs(2));
        let before = self.outcome;
        let up = self.up_count() as u64;
        self.send_packets();
        self.pass(Duration::from_secs(2));
        assert_eq!(
            (
                self.outcome.uplink - before.uplink,
                self.outcome.downlink - before.downlink
            ),
            (up, up),
            "seed {}: a packet was lost without a fault",
            self.config.seed
        );
    }

    fn leave(&mut self) {
        let clients = usize::from(self.config.clients);
        let owner = self.clients.owner_mut();
        owner.closing = true;
        owner
            .to_end
            .extend((0..clients).map(|index| (index, index % 2 == 0)));
        // The longest a connection may linger: two Hello intervals and a drain.
        self.pass(Duration::from_secs(200));
    }

    fn finish(mut self) -> Outcome {
        let seed = self.config.seed;
        let mut sum = Counters::default();
        for shard in &self.shards {
            assert!(
                shard.is_empty(),
                "seed {seed}: a session outlived its client"
            );
            assert!(shard.is_whole(), "seed {seed}: a send buffer is lost");
            sum.totals.handoff_out += shard.counters().totals.handoff_out;
            sum.totals.moved += shard.counters().totals.moved;
        }
        let authority = self.authority.borrow();
        assert_eq!(
            authority.starts, authority.stops,
            "seed {seed}: starts and stops"
        );
        assert!(
            authority.held.is_empty(),
            "seed {seed}: an address is still held"
        );
        for number in 0..self.config.clients * 2 + 10 {
            let [high, low] = number.to_be_bytes();
            let address = IpAddr::V4(Ipv4Addr::new(10, 8, high, low));
            assert_eq!(
                self.directory.owner(address),
                None,
                "seed {seed}: {address} has an owner"
            );
        }
        drop(authority);
        self.outcome.trace = self.network.trace_hash();
        self.outcome.came_up = self.clients.owner().came_up;
        self.outcome.handed_over = sum.totals.handoff_out;
        self.outcome.moved = sum.totals.moved;
        self.outcome
    }
}
