//! The state of a simulated network: hosts, ends of connections, events to come.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::clock::Clock;
use super::super::rng::Rng;
use super::{FOREIGN_BUFFER, Packets, SimConfig};
use crate::io::{Completion, ConnectionId, Loss, ReceiveBuffer, SendBuffer, TunRead, Wake};
use crate::time::{Duration, Instant};

/// Bytes a direction holds that were sent and not yet received.
const WINDOW: usize = 256 * 1024;
/// Packets a TUN queue holds, the kernel's default.
const TUN_QUEUE_LEN: usize = 500;
/// Linux' numbers, named here because a simulation must not depend on the system.
const ECONNREFUSED: i32 = 111;
const EADDRNOTAVAIL: i32 = 99;
const ENOBUFS: i32 = 105;

/// What goes wrong, and how often.
#[derive(Clone, Debug)]
pub struct Faults {
    /// One-way delay of everything sent.
    pub delay: RangeInclusive<Duration>,
    /// How many of a thousand pieces are delayed by `late` more.
    pub late_per_mille: u16,
    /// That further delay.
    pub late: RangeInclusive<Duration>,
    /// How many of a thousand deliveries are cut at a random byte.
    pub cut_per_mille: u16,
    /// How many of a thousand writes are short: the rest follows after a delay.
    pub short_write_per_mille: u16,
    /// How many of a thousand sends reset the connection.
    pub reset_per_mille: u16,
    /// How many of a thousand sends are the last their receiver sees: it is told a FIN.
    pub half_close_per_mille: u16,
    /// How many of a thousand deliveries find no receive buffer for a while.
    pub no_buffer_per_mille: u16,
    /// How many of a thousand connects are refused.
    pub refuse_per_mille: u16,
}

impl Faults {
    /// Nothing goes wrong; everything takes 50 µs.
    #[must_use]
    pub fn none() -> Self {
        let delay = Duration::from_micros(50);
        Self {
            delay: delay..=delay,
            late_per_mille: 0,
            late: Duration::ZERO..=Duration::ZERO,
            cut_per_mille: 0,
            short_write_per_mille: 0,
            reset_per_mille: 0,
            half_close_per_mille: 0,
            no_buffer_per_mille: 0,
            refuse_per_mille: 0,
        }
    }

    /// Everything a path does to a stream short of breaking it: delays, cuts, short writes, want of
    /// buffers. Every byte arrives all the same.
    #[must_use]
    pub fn rough() -> Self {
        Self {
            delay: Duration::from_micros(20)..=Duration::from_millis(2),
            late_per_mille: 20,
            late: Duration::from_millis(10)..=Duration::from_millis(300),
            cut_per_mille: 500,
            short_write_per_mille: 200,
            no_buffer_per_mille: 50,
            ..Self::none()
        }
    }

    /// As rough, and connections break.
    #[must_use]
    pub fn harsh() -> Self {
        Self {
            reset_per_mille: 2,
            half_close_per_mille: 2,
            refuse_per_mille: 50,
            ..Self::rough()
        }
    }
}

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

struct Device {
    steer: Box<dyn Fn(&[u8]) -> usize>,
    /// Host by queue.
    queues: Vec<usize>,
    written: Vec<(usize, Vec<u8>)>,
    dropped: u64,
    failed: Option<i32>,
}

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
    /// Host and number of the listener, in the order they came.
    listeners: BTreeMap<SocketAddr, Vec<(usize, usize)>>,
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

    // What happens to one end.

    fn happen(&mut self, number: usize, event: Event) {
        match event {
            Event::Syn(to) => return self.syn(number, to),
            Event::Continue => {
                if let Some(end) = self.end(number) {
                    end.held_up = false;
                }
                return self.pump(number);
            }
            _ => {}
        }
        let Some(end) = self.end(number) else { return };
        match event {
            Event::Bytes(bytes) => {
                if end.closed {
                    // As the kernel answers bytes for a socket that nobody has.
                    if let Some(other) = end.other {
                        self.transmit(other, Event::Broken(Loss::Reset));
                    }
                    return;
                }
                end.readable.extend(bytes);
            }
            Event::Fin => {
                end.ending.get_or_insert(Loss::Finished);
            }
            Event::Broken(loss) => self.break_end(number, loss),
            Event::Answer(result) => {
                end.connecting = false;
                self.tell(number, |connection| Completion::Connected {
                    connection,
                    result,
                });
                if result.is_err() {
                    self.leave(number);
                    self.ends[number] = None;
                }
            }
            Event::Syn(_) | Event::Continue => {}
        }
        self.mark_ready(number);
        self.forget_if_done(number);
    }

    fn break_end(&mut self, number: usize, loss: Loss) {
        let Some(end) = self.end(number) else { return };
        end.broken = Some(loss);
        end.other = None;
        if !end.ended && end.ending != Some(Loss::Finished) {
            end.ending = Some(loss);
        }
        if let Some((buffer, _)) = end.sending.take() {
            self.tell(number, |connection| Completion::Sent {
                connection,
                buffer,
                result: Err(loss),
            });
        }
        self.mark_ready(number);
        self.forget_if_done(number);
    }

    /// Drops an end that was closed and has nothing left to do.
    fn forget_if_done(&mut self, number: usize) {
        let Some(end) = self.end(number) else { return };
        if !end.closed || end.sending.is_some() {
            return;
        }
        let (other, gone) = (end.other, end.broken.is_some());
        self.leave(number);
        // An orderly end stays until the other goes too: late bytes must find it.
        let other_stays = other.is_some_and(|other| {
            self.end(other)
                .is_some_and(|end| !(end.closed && end.sending.is_none()))
        });
        if gone || !other_stays {
            self.ends[number] = None;
            if let Some(other) = other {
                self.forget_if_done(other);
            }
        }
    }

    /// Ends an end at once with a reset to the other.
    fn abandon(&mut self, number: usize) {
        let Some(end) = self.end(number) else { return };
        let other = end.other;
        self.leave(number);
        self.ends[number] = None;
        if let Some(other) = other {
            self.transmit(other, Event::Broken(Loss::Reset));
        }
    }

    // Sending.

    pub(super) fn send(&mut self, host: usize, connection: ConnectionId, buffer: SendBuffer) {
        let refuse = |state: &mut Self, buffer, result| {
            state.hosts[host].told.push(Completion::Sent {
                connection,
                buffer,
                result,
            });
        };
        let Some(number) = self.find(host, connection) else {
            return refuse(self, buffer, Err(Loss::Reset));
        };
        let reset = self.rng.chance(self.faults.reset_per_mille);
        let half_close = self.rng.chance(self.faults.half_close_per_mille);
        let Some(end) = self.end(number) else { return };
        assert!(end.sending.is_none(), "one send a connection");
        assert!(
            !end.connecting,
            "a send on a connection that does not stand"
        );
        assert!(
            buffer.start <= buffer.end && buffer.end <= buffer.bytes.len(),
            "a send within its buffer"
        );
        if let Some(loss) = end.broken {
            return refuse(self, buffer, Err(loss));
        }
        if end.fin_sent {
            return refuse(self, buffer, Err(Loss::Reset));
        }
        let start = buffer.start;
        end.sending = Some((buffer, start));
        let other = end.other;
        if reset {
            self.break_end(number, Loss::Reset);
            if let Some(other) = other {
                self.transmit(other, Event::Broken(Loss::Reset));
            }
            return;
        }
        self.pump(number);
        if half_close && let Some(other) = other {
            self.transmit(other, Event::Fin);
            if let Some(end) = self.end(number) {
                end.swallowed = true;
            }
        }
    }

    /// Moves what fits of an end's send on its way.
    fn pump(&mut self, number: usize) {
        loop {
            let short = self.rng.chance(self.faults.short_write_per_mille);
            let Some(end) = self.end(number) else { return };
            let (other, swallowed, held_up) = (end.other, end.swallowed, end.held_up);
            let Some((buffer, position)) = end.sending.take() else {
                return;
            };
            if position == buffer.end {
                return self.finish_send(number, buffer);
            }
            let unread = other
                .and_then(|other| self.end(other))
                .map_or(0, |other| other.unread);
            let mut len = (buffer.end - position).min(WINDOW.saturating_sub(unread));
            let short = short && len > 1;
            if short {
                len = 1 + self.rng.index(len - 1);
            }
            if len == 0 || held_up {
                if let Some(end) = self.end(number) {
                    end.sending = Some((buffer, position));
                }
                return;
            }
            if let Some(other) = other.filter(|_| !swallowed) {
                let bytes = buffer.bytes[position..position + len].to_vec();
                if let Some(end) = self.end(other) {
                    end.unread += len;
                }
                self.transmit(other, Event::Bytes(bytes));
            }
            if let Some(end) = self.end(number) {
                end.sending = Some((buffer, position + len));
                end.held_up = short;
            }
            if short {
                let at = self.clock.now() + self.rng.duration(&self.faults.delay);
                self.schedule(at, Happening::End(number, Event::Continue));
                return;
            }
        }
    }

    fn finish_send(&mut self, number: usize, buffer: SendBuffer) {
        self.tell(number, |connection| Completion::Sent {
            connection,
            buffer,
            result: Ok(()),
        });
        if self.end(number).is_some_and(|end| end.fin_owed) {
            self.send_fin(number);
        }
        self.forget_if_done(number);
    }

    fn send_fin(&mut self, number: usize) {
        let Some(end) = self.end(number) else { return };
        if std::mem::replace(&mut end.fin_sent, true) {
            return;
        }
        if let Some(other) = end.other {
            self.transmit(other, Event::Fin);
        }
    }

    // What a shard asks for.

    pub(super) fn connect(
        &mut self,
        host: usize,
        to: SocketAddr,
        source: Option<SocketAddr>,
    ) -> io::Result<ConnectionId> {
        let place = &mut self.hosts[host];
        let mut local = source.unwrap_or_else(|| SocketAddr::new(place.config.address, 0));
        if local.port() == 0 {
            local.set_port(place.next_port);
            place.next_port = place.next_port.checked_add(1).unwrap_or(32_768);
        }
        if local.is_ipv4() != to.is_ipv4() {
            return Err(io::Error::from_raw_os_error(EADDRNOTAVAIL));
        }
        let number = self.new_end(local, to, None);
        let Some(id) = self.enter(host, number) else {
            self.ends[number] = None;
            return Err(io::Error::from_raw_os_error(ENOBUFS));
        };
        if let Some(end) = self.end(number) {
            end.connecting = true;
        }
        self.transmit(number, Event::Syn(to));
        Ok(id)
    }

    fn syn(&mut self, client: usize, to: SocketAddr) {
        let refuse = self.rng.chance(self.faults.refuse_per_mille);
        // The SO_REUSEPORT group's member is drawn: which processor takes a SYN is chance.
        let draw = self.rng.next_u64();
        let Some(end) = self.end(client) else { return };
        if !end.connecting || end.closed {
            return;
        }
        let group = self.listeners.get(&to).filter(|_| !refuse);
        let member = group.and_then(|group| {
            let index = usize::try_from(draw % group.len().max(1) as u64).ok()?;
            group.get(index).copied()
        });
        match member {
            None => self.transmit(client, Event::Answer(Err(Loss::Os(ECONNREFUSED)))),
            Some((host, listener)) if self.hosts[host].accept_paused => {
                self.hosts[host].waiting.push_back((client, listener));
            }
            Some((host, listener)) => self.accept(host, listener, client),
        }
    }

    fn accept(&mut self, host: usize, listener: usize, client: usize) {
        let Some(end) = self.end(client) else { return };
        let (local, peer) = (end.peer, end.local);
        if let Some(errno) = self.hosts[host].starved {
            let place = &mut self.hosts[host];
            place.waiting.push_back((client, listener));
            place.accept_paused = true;
            place
                .told
                .push(Completion::AcceptPaused { listener, errno });
            let pause = place.accept_pause;
            place.accept_pause = (pause * 2).min(Duration::from_millis(800));
            let at = self.clock.now() + pause;
            return self.schedule(at, Happening::Accept(host));
        }
        self.hosts[host].accept_pause = Duration::from_millis(100);
        let server = self.new_end(local, peer, Some(client));
        if let Some(end) = self.end(client) {
            end.other = Some(server);
        }
        self.transmit(client, Event::Answer(Ok(())));
        if self.enter(host, server).is_none() {
            // A full table refuses.
            return self.abandon(server);
        }
        self.tell(server, |connection| Completion::Accepted {
            listener,
            connection,
            peer,
        });
    }

    fn retry_accept(&mut self, host: usize) {
        self.hosts[host].accept_paused = false;
        while !self.hosts[host].accept_paused
            && let Some((client, listener)) = self.hosts[host].waiting.pop_front()
        {
            self.accept(host, listener, client);
        }
    }

    pub(super) fn starve(&mut self, host: usize, errno: Option<i32>) {
        self.hosts[host].starved = errno;
    }

    pub(super) fn want_receive(&mut self, host: usize, id: ConnectionId, wanted: bool) {
        if let Some(number) = self.find(host, id)
            && let Some(end) = self.end(number)
        {
            end.receive_wanted = wanted;
            self.mark_ready(number);
        }
    }

    pub(super) fn shutdown(&mut self, host: usize, id: ConnectionId) {
        if let Some(number) = self.find(host, id)
            && let Some(end) = self.end(number)
        {
            end.fin_owed = true;
            if end.sending.is_none() {
                self.send_fin(number);
            }
        }
    }

    pub(super) fn close(&mut self, host: usize, id: ConnectionId, reset: bool) {
        let Some(&(generation, Some(number))) = self.hosts[host].slots.get(id.slot as usize) else {
            return;
        };
        if generation != id.generation {
            return;
        }
        self.untell(host, id);
        let Some(end) = self.end(number) else { return };
        end.closed = true;
        end.fin_owed = true;
        if end.connecting {
            self.leave(number);
            self.ends[number] = None;
            return;
        }
        if reset {
            if let Some((buffer, _)) = end.sending.take() {
                self.tell(number, |connection| Completion::Sent {
                    connection,
                    buffer,
                    result: Err(Loss::Reset),
                });
            }
            return self.abandon(number);
        }
        // Bytes that came and were not read: the kernel resets instead of finishing.
        if !end.readable.is_empty() && end.sending.is_none() {
            return self.abandon(number);
        }
        if end.sending.is_none() {
            self.send_fin(number);
        }
        self.forget_if_done(number);
    }

    /// Takes what is not yet told of a connection back, but for a send's end.
    fn untell(&mut self, host: usize, id: ConnectionId) -> Vec<u8> {
        let mut received = Vec::new();
        for completion in std::mem::take(&mut self.hosts[host].told) {
            match completion {
                Completion::Received { connection, buffer } if connection == id => {
                    received.extend_from_slice(&buffer.bytes[..buffer.len]);
                    if buffer.id != FOREIGN_BUFFER {
                        self.release(host, buffer);
                    }
                }
                Completion::ReceiveEnded { connection, .. }
                | Completion::Connected { connection, .. }
                | Completion::Accepted { connection, .. }
                    if connection == id => {}
                other => self.hosts[host].told.push(other),
            }
        }
        received
    }

    pub(super) fn stop_accepting(&mut self, host: usize) {
        for group in self.listeners.values_mut() {
            group.retain(|&(member, _)| member != host);
        }
        self.listeners.retain(|_, group| !group.is_empty());
        for (client, _) in std::mem::take(&mut self.hosts[host].waiting) {
            self.transmit(client, Event::Answer(Err(Loss::Reset)));
        }
    }

    pub(super) fn detach(&mut self, host: usize, id: ConnectionId) -> Option<(usize, Vec<u8>)> {
        let number = self.find(host, id)?;
        let end = self.end(number)?;
        if end.sending.is_some() || end.connecting {
            return None;
        }
        let mut received = self.untell(host, id);
        // Some of what has arrived comes with it, some is still in the socket.
        let taken = self.end(number)?.readable.len() + 1;
        let taken = self.rng.index(taken);
        let end = self.end(number)?;
        received.extend(end.readable.drain(..taken));
        end.unread -= taken;
        end.ended = false;
        end.queued = false;
        self.hosts[host].ready.retain(|&ready| ready != number);
        self.leave(number);
        Some((number, received))
    }

    pub(super) fn attach(
        &mut self,
        host: usize,
        number: usize,
        received: Vec<u8>,
    ) -> io::Result<ConnectionId> {
        if self.end(number).is_none_or(|end| end.place.is_some()) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let Some(connection) = self.enter(host, number) else {
            self.abandon(number);
            return Err(io::Error::from_raw_os_error(ENOBUFS));
        };
        if !received.is_empty() {
            self.tell(number, |connection| Completion::Received {
                connection,
                buffer: ReceiveBuffer {
                    len: received.len(),
                    bytes: received.into_boxed_slice(),
                    id: FOREIGN_BUFFER,
                },
            });
        }
        if let Some(end) = self.end(number) {
            end.receive_wanted = true;
            let other = end.other;
            self.mark_ready(number);
            if let Some(other) = other {
                self.pump(other);
            }
        }
        Ok(connection)
    }

    pub(super) fn break_connection(&mut self, host: usize, id: ConnectionId, loss: Loss) {
        if let Some(number) = self.find(host, id) {
            let other = self.end(number).and_then(|end| end.other);
            self.break_end(number, loss);
            if let Some(other) = other {
                self.transmit(other, Event::Broken(loss));
            }
        }
    }

    pub(super) fn reset_all(&mut self) {
        for number in 0..self.ends.len() {
            if self.end(number).is_some_and(|end| end.other.is_some()) {
                self.break_end(number, Loss::Reset);
            }
        }
    }

    // The inside.

    pub(super) fn add_device(&mut self, steer: Box<dyn Fn(&[u8]) -> usize>) -> usize {
        self.devices.push(Device {
            steer,
            queues: Vec::new(),
            written: Vec::new(),
            dropped: 0,
            failed: None,
        });
        self.devices.len() - 1
    }

    pub(super) fn inject(&mut self, device: usize, packet: &[u8]) {
        let device = &mut self.devices[device];
        let queue = (device.steer)(packet) % device.queues.len().max(1);
        let host = device.queues.get(queue).map(|&host| &mut self.hosts[host]);
        match host.filter(|host| host.alive && host.tun_packets.len() < TUN_QUEUE_LEN) {
            Some(host) if device.failed.is_none() => {
                host.tun_packets.push_back(packet.to_vec());
                host.tun_readable = true;
            }
            _ => device.dropped += 1,
        }
    }

    pub(super) fn take_written(&mut self, device: usize) -> Vec<(usize, Vec<u8>)> {
        std::mem::take(&mut self.devices[device].written)
    }

    pub(super) fn device_drops(&self, device: usize) -> u64 {
        self.devices[device].dropped
    }

    pub(super) fn fail_device(&mut self, device: usize, errno: i32) {
        self.devices[device].failed = Some(errno);
        for &host in &self.devices[device].queues {
            self.hosts[host].tun_readable = true;
        }
    }

    pub(super) fn tun_read(&mut self, host: usize, buffer: &mut [u8]) -> TunRead {
        let host = &mut self.hosts[host];
        let Some((device, _)) = host.tun else {
            return TunRead::Empty;
        };
        if let Some(errno) = self.devices[device].failed {
            return TunRead::Failed(errno);
        }
        match host.tun_packets.pop_front() {
            None => TunRead::Empty,
            Some(packet) => {
                // A packet longer than the buffer is cut, as the kernel does.
                let len = packet.len().min(buffer.len());
                buffer[..len].copy_from_slice(&packet[..len]);
                TunRead::Packet(len)
            }
        }
    }

    pub(super) fn tun_write(&mut self, host: usize, packet: &[u8]) -> io::Result<()> {
        let Some((device, queue)) = self.hosts[host].tun else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let device = &mut self.devices[device];
        if let Some(errno) = device.failed {
            return Err(io::Error::from_raw_os_error(errno));
        }
        device.written.push((queue, packet.to_vec()));
        Ok(())
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
