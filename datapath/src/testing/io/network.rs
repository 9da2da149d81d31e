//! The state of a simulated network: hosts, ends of connections, events to come.

mod faults;
mod path;
mod requests;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub use self::faults::Faults;
pub use self::path::Path;
use self::path::Unacked;
use super::super::clock::Clock;
use super::super::rng::Rng;
use super::{Packets, SimConfig};
use crate::io::{
    Completion, ConnectionId, Loss, PathSeen, ReceiveBuffer, SendBuffer, UNSENT_LIMIT_AT_START,
    Wake,
};
use crate::time::{Duration, Instant};

/// Bytes a direction holds that were sent and not yet received.
const WINDOW: usize = 256 * 1024;
/// Packets a TUN queue holds, the kernel's default.
const TUN_QUEUE_LEN: usize = 500;
/// Linux' numbers, named here because a simulation must not depend on the system.
const ECONNREFUSED: i32 = 111;
const EADDRNOTAVAIL: i32 = 99;
const ENOBUFS: i32 = 105;

/// The waker of a simulated host.
#[derive(Debug, Default)]
pub struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(&self) {
        self.0.store(true, Ordering::Release);
    }
}

#[derive(Debug)]
enum Event {
    /// Bytes arrive.
    Bytes(Vec<u8>),
    /// A FIN arrives.
    Fin,
    /// The connection breaks.
    Broken(Loss),
    /// A connect arrives at the address.
    Syn(SocketAddr),
    /// The answer to a connect arrives.
    Answer(Result<(), Loss>),
    /// A short write goes on.
    Continue,
}

#[derive(Debug)]
enum Happening {
    /// Of one end of a connection.
    End(usize, Event),
    /// A host has receive buffers again.
    Buffers(usize),
    /// A host's listeners try again.
    Accept(usize),
}

#[derive(Debug)]
struct End {
    /// `None` while detached or after it was closed.
    place: Option<(usize, ConnectionId)>,
    /// Closed by its shard, and only finishing.
    closed: bool,
    other: Option<usize>,
    local: SocketAddr,
    peer: SocketAddr,
    connecting: bool,
    /// Nothing arrives before what was sent before.
    last_arrival: Instant,
    /// Bytes sent to this end and not yet received, those on their way included.
    unread: usize,
    readable: VecDeque<u8>,
    /// What is told once `readable` is empty.
    ending: Option<Loss>,
    ended: bool,
    receive_wanted: bool,
    queued: bool,
    sending: Option<(SendBuffer, usize)>,
    /// A write is held up until its `Continue`.
    held_up: bool,
    path: Option<Path>,
    /// When the path has taken all that was given to it.
    free_at: Instant,
    unacked: VecDeque<Unacked>,
    /// What is known of the path from what was acknowledged.
    seen: Option<PathSeen>,
    /// Bytes a second that go out at most, and when the next may.
    rate_limit: u64,
    next_at: Instant,
    unsent_limit: usize,
    fin_owed: bool,
    fin_sent: bool,
    /// No further send can succeed.
    broken: Option<Loss>,
    /// What is sent is lost on the way: the receiver was told a FIN.
    swallowed: bool,
}

struct Host {
    alive: bool,
    config: SimConfig,
    flag: Arc<Flag>,
    /// By slot: generation and the end that uses it.
    slots: Vec<(u32, Option<usize>)>,
    free: Vec<u32>,
    connections: usize,
    buffers: Vec<(u16, Box<[u8]>)>,
    buffers_withheld: bool,
    told: Vec<Completion>,
    ready: VecDeque<usize>,
    deadline: Option<Instant>,
    starved: Option<i32>,
    accept_pause: Duration,
    accept_paused: bool,
    waiting: VecDeque<(usize, usize)>,
    next_port: u16,
    tun: Option<(usize, usize)>,
    tun_packets: Packets,
    tun_readable: bool,
}

/// Says which queue gets a packet.
type Steer = Box<dyn Fn(&[u8]) -> usize>;

struct Device {
    steer: Steer,
    /// Host by queue.
    queues: Vec<usize>,
    written: Vec<(usize, Vec<u8>)>,
    dropped: u64,
    failed: Option<i32>,
}

/// A member of a group of listeners on one address: its host, and its number there.
type Member = (usize, usize);

pub(super) struct State {
    pub(super) clock: Clock,
    pub(super) faults: Faults,
    pub(super) trace: u64,
    rng: Rng,
    events: BTreeMap<(Instant, u64), Happening>,
    event_count: u64,
    hosts: Vec<Host>,
    /// Never reused, so that a late event finds nobody.
    ends: Vec<Option<End>>,
    listeners: BTreeMap<SocketAddr, Vec<Member>>,
    devices: Vec<Device>,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("now", &self.clock.now())
            .field("hosts", &self.hosts.len())
            .field("ends", &self.end_count())
            .field("events", &self.events.len())
            .finish_non_exhaustive()
    }
}

impl State {
    pub(super) fn new(seed: u64, faults: Faults) -> Self {
        Self {
            clock: Clock::default(),
            faults,
            trace: 0xCBF2_9CE4_8422_2325,
            rng: Rng::new(seed),
            events: BTreeMap::new(),
            event_count: 0,
            hosts: Vec::new(),
            ends: Vec::new(),
            listeners: BTreeMap::new(),
            devices: Vec::new(),
        }
    }

    // Time and events.

    fn schedule(&mut self, at: Instant, happening: Happening) {
        self.event_count += 1;
        self.events.insert((at, self.event_count), happening);
    }

    /// Sends an event to an end, behind all that was sent to it before.
    fn transmit(&mut self, to: usize, event: Event) {
        let mut delay = self.rng.duration(&self.faults.delay);
        if self.rng.chance(self.faults.late_per_mille) {
            delay += self.rng.duration(&self.faults.late);
        }
        let now = self.clock.now();
        let Some(end) = self.end(to) else { return };
        let taken = end.other.and_then(|other| self.end(other));
        let now = taken.map_or(now, |from| from.free_at.max(now));
        let Some(end) = self.end(to) else { return };
        let at = (now + delay).max(end.last_arrival);
        end.last_arrival = at;
        self.schedule(at, Happening::End(to, event));
    }

    pub(super) fn run_due(&mut self) {
        while let Some(entry) = self.events.first_entry() {
            if entry.key().0 > self.clock.now() {
                return;
            }
            match entry.remove() {
                Happening::End(end, event) => self.happen(end, event),
                Happening::Buffers(host) => self.hosts[host].buffers_withheld = false,
                Happening::Accept(host) => self.retry_accept(host),
            }
        }
    }

    fn next_time(&self) -> Option<Instant> {
        let event = self.events.first_key_value().map(|(&(at, _), _)| at);
        let deadline = self.hosts.iter().filter(|host| host.alive);
        let deadline = deadline.filter_map(|host| host.deadline).min();
        match (event, deadline) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    pub(super) fn advance(&mut self) -> bool {
        if self.has_work() {
            return true;
        }
        let Some(at) = self.next_time() else {
            return false;
        };
        self.clock.advance_to(at);
        self.run_due();
        true
    }

    pub(super) fn advance_until(&mut self, until: Instant) {
        while let Some((&(at, _), _)) = self.events.first_key_value()
            && at <= until
        {
            self.clock.advance_to(at);
            self.run_due();
        }
        self.clock.advance_to(until);
    }

    pub(super) fn has_work(&self) -> bool {
        (0..self.hosts.len()).any(|host| self.host_has_work(host))
    }

    pub(super) fn host_has_work(&self, host: usize) -> bool {
        let host = &self.hosts[host];
        let due = host.deadline.is_some_and(|at| at <= self.clock.now());
        let deliverable =
            !host.ready.is_empty() && !host.buffers.is_empty() && !host.buffers_withheld;
        host.alive
            && (due
                || deliverable
                || !host.told.is_empty()
                || host.tun_readable
                || host.flag.0.load(Ordering::Acquire))
    }

    // Hosts.

    pub(super) fn add_host(
        &mut self,
        config: &SimConfig,
        device: Option<usize>,
        flag: &Arc<Flag>,
    ) -> usize {
        let number = self.hosts.len();
        let tun = device.map(|device| {
            let queues = &mut self.devices[device].queues;
            queues.push(number);
            (device, queues.len() - 1)
        });
        for (listener, &address) in config.listeners.iter().enumerate() {
            let group = self.listeners.entry(address).or_default();
            group.push((number, listener));
        }
        let buffer = |id| (id, vec![0; config.receive_buffer_len].into_boxed_slice());
        self.hosts.push(Host {
            alive: true,
            flag: flag.clone(),
            slots: Vec::new(),
            free: Vec::new(),
            connections: 0,
            buffers: (0..config.receive_buffers).map(buffer).collect(),
            buffers_withheld: false,
            told: Vec::new(),
            ready: VecDeque::new(),
            deadline: None,
            starved: None,
            accept_pause: Duration::from_millis(100),
            accept_paused: false,
            waiting: VecDeque::new(),
            next_port: 32_768,
            tun,
            tun_packets: VecDeque::new(),
            tun_readable: false,
            config: config.clone(),
        });
        number
    }

    pub(super) fn remove_host(&mut self, host: usize) {
        self.stop_accepting(host);
        let ends: Vec<usize> = self.hosts[host].slots.iter().filter_map(|s| s.1).collect();
        for end in ends {
            self.abandon(end);
        }
        let host = &mut self.hosts[host];
        host.alive = false;
        host.told.clear();
        host.ready.clear();
    }

    pub(super) fn connection_count(&self, host: usize) -> usize {
        self.hosts[host].connections
    }

    pub(super) fn buffers_available(&self, host: usize) -> usize {
        self.hosts[host].buffers.len()
    }

    pub(super) fn end_count(&self) -> usize {
        self.ends.iter().flatten().count()
    }

    fn enter(&mut self, host: usize, end: usize) -> Option<ConnectionId> {
        let place = &mut self.hosts[host];
        if place.connections >= place.config.connections {
            return None;
        }
        let slot = match place.free.pop() {
            Some(slot) => slot,
            None => {
                place.slots.push((0, None));
                u32::try_from(place.slots.len() - 1).ok()?
            }
        };
        let entry = place.slots.get_mut(slot as usize)?;
        entry.1 = Some(end);
        place.connections += 1;
        let id = ConnectionId {
            slot,
            generation: entry.0,
        };
        self.end(end)?.place = Some((host, id));
        Some(id)
    }

    /// Takes an end from its host; its id is dead from here on.
    fn leave(&mut self, end: usize) {
        let Some((host, id)) = self.end(end).and_then(|end| end.place.take()) else {
            return;
        };
        let host = &mut self.hosts[host];
        let slot = &mut host.slots[id.slot as usize];
        *slot = (slot.0.wrapping_add(1), None);
        host.free.push(id.slot);
        host.connections -= 1;
    }

    fn end(&mut self, number: usize) -> Option<&mut End> {
        self.ends.get_mut(number)?.as_mut()
    }

    /// The end of that name, if its shard has not closed it.
    fn find(&self, host: usize, id: ConnectionId) -> Option<usize> {
        let &(generation, end) = self.hosts[host].slots.get(id.slot as usize)?;
        let end = end.filter(|_| generation == id.generation)?;
        let state = self.ends.get(end)?.as_ref()?;
        (!state.closed).then_some(end)
    }

    fn tell(&mut self, end: usize, tell: impl FnOnce(ConnectionId) -> Completion) {
        if let Some((host, id)) = self.end(end).and_then(|end| end.place) {
            self.hosts[host].told.push(tell(id));
        }
    }

    fn new_end(&mut self, local: SocketAddr, peer: SocketAddr, other: Option<usize>) -> usize {
        self.ends.push(Some(End {
            place: None,
            closed: false,
            other,
            local,
            peer,
            connecting: false,
            last_arrival: self.clock.now(),
            unread: 0,
            readable: VecDeque::new(),
            ending: None,
            ended: false,
            receive_wanted: true,
            queued: false,
            sending: None,
            held_up: false,
            path: None,
            free_at: self.clock.now(),
            unacked: VecDeque::new(),
            seen: None,
            rate_limit: u64::MAX,
            next_at: self.clock.now(),
            unsent_limit: UNSENT_LIMIT_AT_START,
            fin_owed: false,
            fin_sent: false,
            broken: None,
            swallowed: false,
        }));
        self.ends.len() - 1
    }

    // A turn.

    pub(super) fn turn(
        &mut self,
        host: usize,
        deadline: Option<Instant>,
        completions: &mut Vec<Completion>,
    ) {
        self.hosts[host].deadline = deadline;
        self.deliver(host);
        let place = &mut self.hosts[host];
        if place.flag.0.swap(false, Ordering::AcqRel) {
            place.told.push(Completion::Woken);
        }
        if std::mem::take(&mut place.tun_readable) {
            place.told.push(Completion::TunReadable);
        }
        let told = std::mem::take(&mut place.told);
        for completion in told {
            self.record(host, &completion);
            completions.push(completion);
        }
    }

    /// Tells each connection with something to read once, as buffers last.
    fn deliver(&mut self, host: usize) {
        for _ in 0..self.hosts[host].ready.len() {
            let place = &mut self.hosts[host];
            let Some(&number) = place.ready.front() else {
                return;
            };
            let Some(end) = self.ends[number].as_mut().filter(|end| {
                end.receive_wanted && !end.closed && end.place.is_some_and(|place| place.0 == host)
            }) else {
                place.ready.pop_front();
                if let Some(end) = self.end(number) {
                    end.queued = false;
                }
                continue;
            };
            if end.readable.is_empty() {
                place.ready.pop_front();
                end.queued = false;
                if let Some(loss) = end.ending.filter(|_| !end.ended) {
                    end.ended = true;
                    self.tell(number, |connection| Completion::ReceiveEnded {
                        connection,
                        loss,
                    });
                }
                continue;
            }
            if place.buffers_withheld {
                return;
            }
            if self.rng.chance(self.faults.no_buffer_per_mille) {
                place.buffers_withheld = true;
                let back = self.clock.now() + self.rng.duration(&self.faults.delay);
                self.schedule(back, Happening::Buffers(host));
                return;
            }
            let Some((id, mut bytes)) = place.buffers.pop() else {
                return;
            };
            place.ready.pop_front();
            let mut len = end.readable.len().min(bytes.len());
            if self.rng.chance(self.faults.cut_per_mille) {
                len = 1 + self.rng.index(len);
            }
            for (to, from) in bytes.iter_mut().zip(end.readable.drain(..len)) {
                *to = from;
            }
            end.unread -= len;
            end.queued = !end.readable.is_empty() || (end.ending.is_some() && !end.ended);
            if end.queued {
                place.ready.push_back(number);
            }
            let other = end.other;
            self.tell(number, |connection| Completion::Received {
                connection,
                buffer: ReceiveBuffer { bytes, len, id },
            });
            if let Some(other) = other {
                self.pump(other);
            }
        }
    }

    fn mark_ready(&mut self, number: usize) {
        let Some(end) = self.end(number) else { return };
        let something = !end.readable.is_empty() || (end.ending.is_some() && !end.ended);
        if end.queued || !something || !end.receive_wanted || end.closed || end.connecting {
            return;
        }
        if let Some((host, _)) = end.place {
            end.queued = true;
            self.hosts[host].ready.push_back(number);
        }
    }

    pub(super) fn release(&mut self, host: usize, buffer: ReceiveBuffer) {
        let host = &mut self.hosts[host];
        let twice = host.buffers.iter().any(|(id, _)| *id == buffer.id);
        assert!(!twice, "a receive buffer was given back twice");
        host.buffers.push((buffer.id, buffer.bytes));
    }

    // The trace.

    fn record(&mut self, host: usize, completion: &Completion) {
        self.mix(&(host as u64).to_le_bytes());
        self.mix(&self.clock.now().as_nanos().to_le_bytes());
        match completion {
            Completion::Received { connection, buffer } => {
                self.mix(format!("received {connection:?}").as_bytes());
                self.mix(&buffer.bytes[..buffer.len]);
            }
            Completion::Sent {
                connection, result, ..
            } => self.mix(format!("sent {connection:?} {result:?}").as_bytes()),
            other => self.mix(format!("{other:?}").as_bytes()),
        }
    }

    /// FNV-1a.
    fn mix(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.trace = (self.trace ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3);
        }
    }
}
