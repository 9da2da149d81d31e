//! The loop of one core: reap → dispatch → read the inside → ask the owner → expire → flush → wait.
//!
//! A shard owns everything of its sessions: connections, timers, buffers, its TUN queue. It shares
//! nothing mutable with other shards but the letter boxes of `handoff` and the address
//! [`route::Directory`]. It is generic over [`Io`], so the same loop runs on io_uring, on epoll and in
//! simulation, and over its [`Owner`], so the same loop runs the gateway and the load generator.
//!
//! ```text
//!   completions ─▶ session.receive ─▶ inside (TUN, reflector, owner)
//!   TUN queue ──▶ route ─▶ session.send_packet ─┐        other shards ◀─▶ letter boxes
//!   owner ──────▶ commands ────────────────────▶ dirty ─▶ seal, send, one system call a turn
//! ```
//!
//! Nothing is sent the moment it arises: sessions that have something are *dirty* and are flushed
//! once, at the end of the turn, so that a burst becomes few records and one send.
//!
//! Limits: connections per shard, handshakes in progress, packets read from the TUN a turn, send
//! buffers; each fixed at start.

pub mod counters;

pub mod handoff;

pub mod histogram;

pub mod route;

mod owner;

mod pool;

mod table;

mod timers;

mod dispatch;

mod downlink;

mod uplink;

mod edge;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use self::counters::{Counters, Published};
pub use self::dispatch::Moved;
use self::handoff::Mailbox;
pub use self::owner::{Commands, Owner, SessionId};
pub use self::pool::Pool;
use self::route::{Directory, Local};
use self::table::Table;
use self::timers::Timers;
use self::uplink::TunWriter;
use crate::io::{Completion, ConnectionId, Io};
use crate::ip::checksum::CopyAndSum;
use crate::ip::offload::VNET_HEADER_LEN;
use crate::ip::offload::merge::Offloads;
use crate::output::Entropy;
use crate::session::event::{Addresses, EndReason};
use crate::time::{Duration, Instant};

/// Packets read from the TUN in one turn, at most, so that connections are not starved.
const TUN_BURST_MAX: usize = 256;

/// Bytes read from the TUN in one turn, at most (but for the last packet): about 100 µs of work.
const TUN_BURST_LEN_MAX: usize = 1 << 20;

/// Counters are published this often.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(100);

/// Bytes of the buffer that the TUN is read into: the largest IP packet and its header.
const PACKET_LEN_MAX: usize = VNET_HEADER_LEN + 65_536;

/// What is on the inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inside {
    /// This shard's TUN queue; a packet read there is of the session that it goes to.
    Tun,
    /// This shard's TUN queue in the client role; a packet read there is of the session it comes from.
    ClientTun,
    /// Nothing: packets come back with source and destination swapped.
    Reflector,
    /// The owner takes and makes packets.
    Owner,
}

/// What one shard is made with.
#[derive(Debug)]
pub struct Config {
    /// This shard's number, its place in `mailboxes`.
    pub index: u16,
    /// Connections it holds, at most.
    pub connections_max: usize,
    /// TLS handshakes in progress, at most; each costs memory and CPU before anybody logged in.
    pub handshakes_max: usize,
    /// Send buffers of 64 KB.
    pub send_buffers: usize,
    /// What is on the inside.
    pub inside: Inside,
    /// Which superpackets the TUN takes; with `Some` every packet has a virtio-net header.
    pub offloads: Option<Offloads>,
    /// What copies packets of superpackets: the fastest that this processor has.
    pub copy_and_sum: CopyAndSum,
    /// Whether clients are kept from each other.
    pub isolate: bool,
    /// Which shard owns which address; the same for all shards.
    pub directory: Arc<Directory>,
    /// Every shard's letter box, in order.
    pub mailboxes: Arc<[Arc<Mailbox>]>,
    /// Where the counters are published.
    pub published: Arc<Published>,
}

/// One shard.
#[derive(Debug)]
pub struct Shard<I, O, N> {
    io: I,
    owner: O,
    core: Core<N>,
    completions: Vec<Completion>,
    commands: Commands,
    /// What the TUN is read into.
    packet: Box<[u8]>,
}

/// A shard but for its edges.
#[derive(Debug)]
struct Core<N> {
    config: Config,
    entropy: N,
    now: Instant,
    table: Table,
    local: Local,
    timers: Timers,
    counters: Counters,
    tun_writer: TunWriter,
    pool: Pool,
    /// Sessions that were touched this turn, each once.
    dirty: Vec<ConnectionId>,
    /// Packets that the reflector turned round, as `[start, end)` of `reflected_bytes`.
    reflected: Vec<(usize, usize)>,
    reflected_bytes: Vec<u8>,
    handshakes: usize,
    /// The TUN had more when the burst was full.
    tun_pending: bool,
    last_publish: Instant,
    drain_deadline: Option<Instant>,
    stopped: bool,
}

impl<I: Io, O: Owner, N: Entropy + Clone> Shard<I, O, N> {
    /// A shard that serves `owner` over `io`.
    pub fn new(io: I, owner: O, entropy: N, config: Config) -> Self {
        if let Some(mailbox) = config.mailboxes.get(usize::from(config.index)) {
            mailbox.set_waker(io.waker());
        }
        let now = io.now();
        let capacity = config.connections_max;
        Self {
            io,
            owner,
            core: Core {
                entropy,
                now,
                table: Table::new(capacity),
                local: Local::with_capacity(capacity),
                timers: Timers::new(capacity),
                counters: Counters::default(),
                tun_writer: TunWriter::new(config.offloads, config.copy_and_sum),
                pool: Pool::new(config.send_buffers),
                dirty: Vec::with_capacity(capacity),
                reflected: Vec::new(),
                reflected_bytes: Vec::new(),
                handshakes: 0,
                tun_pending: false,
                last_publish: now,
                drain_deadline: None,
                stopped: false,
                config,
            },
            completions: Vec::with_capacity(256),
            commands: Commands::default(),
            packet: vec![0; PACKET_LEN_MAX].into_boxed_slice(),
        }
    }

    /// Runs until a drain has ended or [`Commands::stop`] was called.
    ///
    /// # Errors
    ///
    /// When the driver cannot go on.
    pub fn run(&mut self) -> io::Result<()> {
        while self.turn()? {}
        Ok(())
    }

    /// One turn of the loop; `false` when the shard has ended.
    ///
    /// # Errors
    ///
    /// When the driver cannot go on.
    pub fn turn(&mut self) -> io::Result<bool> {
        let deadline = self.next_deadline();
        let mut completions = std::mem::take(&mut self.completions);
        self.io.turn(deadline, &mut completions)?;
        self.core.now = self.io.now();
        self.core.counters.totals.turns += 1;
        let busy_ns = self.io.last_busy().as_nanos();
        let turn_ns = &mut self.core.counters.sizes.turn_ns;
        turn_ns.record(u64::try_from(busy_ns).unwrap_or(u64::MAX));
        for completion in completions.drain(..) {
            self.dispatch(completion);
        }
        self.completions = completions;

        if self.core.tun_pending {
            self.read_inside();
        }
        self.take_parcels();
        self.ask_owner();
        self.expire();
        self.core
            .tun_writer
            .flush(&mut self.io, &mut self.core.counters);
        self.flush();
        self.core.publish_if_due();
        if self.core.has_ended() {
            self.core.publish();
            return Ok(false);
        }
        Ok(true)
    }

    /// The counters as they stand.
    pub const fn counters(&self) -> &Counters {
        &self.core.counters
    }

    /// Whether no connection is left.
    pub const fn is_empty(&self) -> bool {
        self.core.table.is_empty()
    }

    /// Whether every send buffer is back in the pool.
    pub const fn is_whole(&self) -> bool {
        self.core.pool.large_left() == self.core.config.send_buffers
    }

    /// Send buffers that are with sessions or the driver now.
    pub const fn send_buffers_lent(&self) -> usize {
        self.core.config.send_buffers - self.core.pool.large_left()
    }

    /// The driver, for what only its kind can answer.
    pub const fn io(&self) -> &I {
        &self.io
    }

    /// The owner.
    pub const fn owner(&self) -> &O {
        &self.owner
    }

    /// The owner, to be given something between turns.
    pub const fn owner_mut(&mut self) -> &mut O {
        &mut self.owner
    }

    /// When the next turn must begin even if nothing happens.
    pub fn next_deadline(&mut self) -> Option<Instant> {
        if self.core.tun_pending || self.core.stopped {
            return Some(self.core.now);
        }
        [
            self.core.timers.next(),
            self.owner.next_timeout(),
            self.core.drain_deadline,
        ]
        .into_iter()
        .flatten()
        .min()
    }
}

impl<N> Core<N> {
    const fn id(&self, connection: ConnectionId) -> SessionId {
        SessionId {
            shard: self.config.index,
            connection,
        }
    }

    fn has_ended(&self) -> bool {
        self.stopped
            || self
                .drain_deadline
                .is_some_and(|deadline| self.table.is_empty() || self.now >= deadline)
    }

    fn publish_if_due(&mut self) {
        if self.now.saturating_since(self.last_publish) >= PUBLISH_INTERVAL {
            self.publish();
        }
    }

    fn publish(&mut self) {
        self.last_publish = self.now;
        self.counters.totals.connections = self.table.len() as u64;
        self.counters.publish(&self.config.published);
    }

    /// Enters the addresses of a session, or takes them out.
    fn route(&mut self, connection: ConnectionId, before: Addresses, after: Addresses) {
        let index = self.config.index;
        for (old, new) in [
            (before.ipv4.map(Into::into), after.ipv4.map(Into::into)),
            (
                before.ipv6_prefix.map(Into::into),
                after.ipv6_prefix.map(Into::into),
            ),
        ] {
            if old == new {
                continue;
            }
            if let Some(old) = old {
                self.local.remove(old, connection);
                if self.local.find(old).is_none() {
                    self.config.directory.release(old, index);
                    self.steer(old);
                }
            }
            if let Some(new) = new {
                if let Some(loser) = self.local.insert(new, connection)
                    && loser != connection
                {
                    self.table.doom(loser, EndReason::Replaced);
                }
                self.config.directory.claim(new, index);
                self.steer(new);
            }
        }
    }

    fn steer(&mut self, address: IpAddr) {
        if self.config.directory.steer(address).is_err() {
            self.counters.totals.unsteered += 1;
        }
    }
}
