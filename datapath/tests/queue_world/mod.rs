//! One gateway shard and some clients on simulated paths that have a rate; traffic by the tick.
//!
//! The gateway turns once a tick, whatever there is to do, so a turn stands for the work of a tick.
//! All times are simulated: nothing here depends on how fast the machine is.

#![allow(dead_code, reason = "each test takes what it needs")]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use datapath::ppp::auth::AuthMethod;
use datapath::session::event::{DropReason, Event};
use datapath::session::policy::Question;
use datapath::session::{ClientSettings, ServerSettings};
use datapath::shard::counters::{Counters, Published};
use datapath::shard::handoff::Mailbox;
use datapath::shard::route::{Directory, Range};
use datapath::shard::{Commands, Config, Inside, Owner, SessionId, Shard};
use datapath::testing::fixtures::{self, PASSWORD, USER};
use datapath::testing::io::{DeviceId, Faults, Network, Path, SimConfig, SimIo};
use datapath::testing::pair::SharedRng;
use datapath::time::{Duration, Instant};

const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)), 443);
/// A host of the inside.
pub(crate) const HOST: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// What a turn of the gateway stands for.
pub(crate) const TICK: Duration = Duration::from_micros(200);
/// One way, of every path unless a test says otherwise.
pub(crate) const DELAY: Duration = Duration::from_micros(50);
/// IP, UDP, and the mark of [`packet`].
const HEADER_LEN: usize = 28;

/// A path of that rate with room for no more than it takes.
fn path(rate: Option<u64>) -> Option<Path> {
    rate.map(|rate| Path {
        rate,
        flight_len_max: None,
    })
}

/// Bytes a second.
pub(crate) const fn mbit(rate: u64) -> Option<u64> {
    Some(rate * 125_000)
}

#[derive(Debug)]
pub(crate) struct Gateway {
    settings: Arc<ServerSettings>,
    next: u16,
    pub(crate) by_number: BTreeMap<u16, SessionId>,
    pending: Vec<(SessionId, Question)>,
}

impl Owner for Gateway {
    fn accept(&mut self, _: SessionId, _: usize, _: SocketAddr) -> Option<Arc<ServerSettings>> {
        Some(Arc::clone(&self.settings))
    }
    fn ask(&mut self, session: SessionId, question: Question) {
        self.pending.push((session, question));
    }
    fn event(&mut self, _: Instant, _: SessionId, _: Event) {}
    fn poll(&mut self, _: Instant, commands: &mut Commands) {
        for (session, question) in self.pending.drain(..) {
            self.by_number.insert(self.next, session);
            commands.answer(session, fixtures::judge(&question, self.next));
            self.next += 1;
        }
    }
}

/// A packet that a client received.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    pub(crate) client: usize,
    pub(crate) at: Instant,
    pub(crate) mark: Mark,
    pub(crate) len: usize,
    pub(crate) ecn: u8,
}

/// What a packet of [`packet`] carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mark {
    pub(crate) flow: u16,
    pub(crate) number: u64,
    pub(crate) sent_at: Instant,
}

/// A UDP packet of `len` bytes with its mark in it.
pub(crate) fn packet(from: Ipv4Addr, to: Ipv4Addr, mark: Mark, len: usize, tos: u8) -> Vec<u8> {
    let mut payload = vec![0; len - HEADER_LEN];
    payload[..8].copy_from_slice(&mark.number.to_be_bytes());
    payload[8..16].copy_from_slice(&mark.sent_at.as_nanos().to_be_bytes());
    let mut packet = fixtures::udp(from, to, &payload);
    packet[20..22].copy_from_slice(&mark.flow.to_be_bytes());
    packet[1] = tos;
    packet[10..12].fill(0);
    let sum = datapath::ip::checksum::of(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

pub(crate) fn mark_of(packet: &[u8]) -> Mark {
    assert!(datapath::ip::checksum::is_right(&packet[..20]));
    let number = |at: usize| u64::from_be_bytes(packet[at..at + 8].try_into().unwrap());
    Mark {
        flow: u16::from_be_bytes([packet[20], packet[21]]),
        number: number(28),
        sent_at: Instant::from_nanos(number(36)),
    }
}

#[derive(Debug)]
pub(crate) struct Clients {
    settings: Arc<ClientSettings>,
    sessions: Vec<Option<SessionId>>,
    index_of: BTreeMap<SessionId, usize>,
    addresses: Vec<Option<Ipv4Addr>>,
    wanted: usize,
    pub(crate) arrivals: Vec<Arrival>,
    pub(crate) to_send: Vec<(usize, Vec<u8>)>,
}

impl Owner for Clients {
    fn accept(&mut self, _: SessionId, _: usize, _: SocketAddr) -> Option<Arc<ServerSettings>> {
        None
    }
    fn ask(&mut self, _: SessionId, _: Question) {}
    fn event(&mut self, _: Instant, session: SessionId, event: Event) {
        match event {
            Event::Up(up) => self.addresses[self.index_of[&session]] = up.addresses.ipv4,
            Event::Changed(addresses) => self.addresses[self.index_of[&session]] = addresses.ipv4,
            Event::Ended(ended) => panic!("{session} ended: {ended:?}"),
            _ => {}
        }
    }
    fn packet(&mut self, at: Instant, session: SessionId, packet: &[u8]) {
        if packet[0] >> 4 == 4 && packet[9] == 17 && packet.len() >= HEADER_LEN + 16 {
            self.arrivals.push(Arrival {
                client: self.index_of[&session],
                at,
                mark: mark_of(packet),
                len: packet.len(),
                ecn: packet[1] & 3,
            });
        }
    }
    fn connecting(&mut self, token: u64, session: std::io::Result<SessionId>) {
        let index = usize::try_from(token).unwrap();
        let session = session.unwrap();
        self.sessions[index] = Some(session);
        self.index_of.insert(session, index);
    }
    fn poll(&mut self, _: Instant, commands: &mut Commands) {
        for token in self.wanted..self.sessions.len() {
            commands.connect(token as u64, Arc::clone(&self.settings), LISTEN, None);
        }
        self.wanted = self.sessions.len();
        for (index, packet) in self.to_send.drain(..) {
            commands.send_packet(self.sessions[index].unwrap(), &packet);
        }
    }
}

/// A gateway and clients that are all up.
pub(crate) struct Rig {
    pub(crate) network: Network,
    device: DeviceId,
    pub(crate) gateway: Shard<SimIo, Gateway, SharedRng>,
    pub(crate) clients: Shard<SimIo, Clients, SharedRng>,
}

fn shard_config(count: usize, send_buffers: usize, inside: Inside, isolate: bool) -> Config {
    let ranges = [
        Range::v4(Ipv4Addr::new(10, 8, 0, 2), 4_000).unwrap(),
        Range::v6("fd00:8:0:2::".parse().unwrap(), 4_000).unwrap(),
    ];
    let ranges = if inside == Inside::Tun {
        &ranges[..]
    } else {
        &[]
    };
    Config {
        index: 0,
        connections_max: count,
        handshakes_max: count,
        send_buffers,
        inside,
        offloads: None,
        copy_and_sum: datapath::ip::checksum::copy_and_sum,
        isolate,
        directory: Arc::new(Directory::new(ranges)),
        mailboxes: Arc::from([Mailbox::with_len_max(16, 2_048)]),
        published: Published::new(),
    }
}

impl Rig {
    /// `count` clients of a gateway with so many send buffers, all of them up, no rate set.
    pub(crate) fn new(count: usize, send_buffers: usize, isolate: bool) -> Self {
        let network = Network::new(1, Faults::none());
        let device = network.add_device(|_| 0);
        let sim = SimConfig {
            listeners: vec![LISTEN],
            device: Some(device),
            ..SimConfig::default()
        };
        let owner = Gateway {
            settings: Arc::new(fixtures::server_settings()),
            next: 2,
            by_number: BTreeMap::new(),
            pending: Vec::new(),
        };
        let config = shard_config(count, send_buffers, Inside::Tun, isolate);
        let io = SimIo::new(&network, &sim);
        let gateway = Shard::new(io, owner, SharedRng::new(2), config);
        let method = AuthMethod::MsChapV2;
        let owner = Clients {
            settings: Arc::new(fixtures::client_settings(USER, PASSWORD, method)),
            sessions: vec![None; count],
            index_of: BTreeMap::new(),
            addresses: vec![None; count],
            wanted: 0,
            arrivals: Vec::new(),
            to_send: Vec::new(),
        };
        let config = shard_config(count, 4 * count, Inside::Owner, false);
        let io = SimIo::new(&network, &SimConfig::default());
        let clients = Shard::new(io, owner, SharedRng::new(3), config);
        let mut rig = Self {
            network,
            device,
            gateway,
            clients,
        };
        for _ in 0..5_000 {
            rig.step();
        }
        let up = rig.clients.owner().addresses.iter().flatten().count();
        assert_eq!(
            up,
            count,
            "clients are up: {:?} {:?}",
            rig.gateway.counters(),
            rig.clients.counters()
        );
        rig
    }

    pub(crate) fn now(&self) -> Instant {
        self.network.now()
    }

    /// One tick: the gateway turns once, the clients until they have nothing left to do.
    pub(crate) fn step(&mut self) {
        self.gateway.turn().unwrap();
        self.clients.turn().unwrap();
        while self.clients.io().has_work() {
            self.clients.turn().unwrap();
        }
        self.network.advance_by(TICK);
    }

    /// Ticks until nothing waits any more.
    pub(crate) fn drain(&mut self, ticks: usize) {
        for _ in 0..ticks {
            self.step();
        }
    }

    pub(crate) fn address(&self, client: usize) -> Ipv4Addr {
        self.clients.owner().addresses[client].unwrap()
    }

    /// The number that decides a client's addresses.
    pub(crate) fn number(&self, client: usize) -> u16 {
        let [_, _, high, low] = self.address(client).octets();
        u16::from_be_bytes([high, low])
    }

    /// The path from the gateway to a client takes so much.
    pub(crate) fn set_down_rate(&self, client: usize, rate: Option<u64>) {
        let session = self.gateway.owner().by_number[&self.number(client)];
        self.gateway.io().set_path(session.connection, path(rate));
    }

    /// The path from the gateway to a client.
    pub(crate) fn set_down_path(&self, client: usize, path: Path) {
        let session = self.gateway.owner().by_number[&self.number(client)];
        self.gateway.io().set_path(session.connection, Some(path));
    }

    /// One way, of every path from now on.
    pub(crate) fn set_delay(&self, delay: Duration) {
        self.network.set_faults(Faults {
            delay: delay..=delay,
            ..Faults::none()
        });
    }

    /// The path from a client to the gateway takes so much.
    pub(crate) fn set_up_rate(&self, client: usize, rate: Option<u64>) {
        let session = self.clients.owner().sessions[client].unwrap();
        self.clients.io().set_path(session.connection, path(rate));
    }

    pub(crate) fn stall(&self, client: usize, stalled: bool) {
        let session = self.clients.owner().sessions[client].unwrap();
        self.clients.io().stall(session.connection, stalled);
    }

    /// A packet for a client comes from the inside.
    pub(crate) fn inject(&self, client: usize, flow: u16, number: u64, len: usize, tos: u8) {
        let mark = Mark {
            flow,
            number,
            sent_at: self.now(),
        };
        let packet = packet(HOST, self.address(client), mark, len, tos);
        self.network.inject(self.device, &packet);
    }

    /// A client sends a packet.
    pub(crate) fn send(&mut self, client: usize, packet: Vec<u8>) {
        self.clients.owner_mut().to_send.push((client, packet));
    }

    /// What reached the inside.
    pub(crate) fn take_inside(&self) -> Vec<Vec<u8>> {
        let written = self.network.take_written(self.device);
        written.into_iter().map(|(_, packet)| packet).collect()
    }

    pub(crate) fn take_arrivals(&mut self) -> Vec<Arrival> {
        std::mem::take(&mut self.clients.owner_mut().arrivals)
    }

    /// Packets that the TUN device itself refused: the traffic of the test is wrong.
    pub(crate) fn device_drops(&self) -> u64 {
        self.network.device_drops(self.device)
    }
}

/// All drops that were counted.
pub(crate) fn drops(counters: &Counters) -> Vec<(DropReason, u64)> {
    let all = DropReason::ALL.iter();
    all.map(|&reason| (reason, counters.drops(reason)))
        .filter(|&(_, count)| count > 0)
        .collect()
}

/// Sends at a rate, tick by tick.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) client: usize,
    pub(crate) flow: u16,
    pub(crate) len: usize,
    pub(crate) tos: u8,
    /// Bytes of IP a second.
    pub(crate) rate: u64,
    pub(crate) sent: u64,
    credit: u64,
}

impl Source {
    pub(crate) const fn new(client: usize, flow: u16, len: usize, rate: Option<u64>) -> Self {
        let rate = match rate {
            Some(rate) => rate,
            None => 0,
        };
        Self {
            client,
            flow,
            len,
            tos: 0,
            rate,
            sent: 0,
            // Different sources do not send in step.
            credit: (client as u64 * 977 + flow as u64 * 331) % len as u64 * 1_000_000_000,
        }
    }

    /// What it sends in this tick.
    pub(crate) fn tick(&mut self, rig: &Rig) {
        self.credit += self.rate * u64::try_from(TICK.as_nanos()).unwrap();
        let cost = self.len as u64 * 1_000_000_000;
        while self.credit >= cost {
            self.credit -= cost;
            rig.inject(self.client, self.flow, self.sent, self.len, self.tos);
            self.sent += 1;
        }
    }
}

/// Runs sources for so long.
pub(crate) fn run(rig: &mut Rig, sources: &mut [Source], time: Duration) {
    let end = rig.now() + time;
    while rig.now() < end {
        for source in sources.iter_mut() {
            source.tick(rig);
        }
        rig.step();
    }
}

/// The smallest number that `per_mille` of 1,000 values do not exceed.
pub(crate) fn quantile(mut values: Vec<Duration>, per_mille: usize) -> Duration {
    values.sort_unstable();
    let index = (values.len() * per_mille).div_ceil(1_000).max(1) - 1;
    values[index]
}
