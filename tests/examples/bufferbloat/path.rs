//! A path between two hosts: a rate on the way down, a delay each way, which may vary, and a queue before
//! the rate.
//!
//! ```text
//!  gateway's path0 ──▶ queue (CoDel, RFC 8289, or deep; pings overtake) ─▶ rate ─▶ delay ─▶ client's path0
//!                  ◀────────────────────────────────────────────────────── delay ◀──
//! ```
//!
//! Two TUN devices and a thread that looks every quarter of a millisecond. When a packet leaves is
//! reckoned from when the one before it left, not from when the thread looked: the rate is exact, and what
//! the thread is late by adds to the delay alone.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use datapath::sys::namespace::enter_network_of;
use datapath::sys::tun::{self, TunConfig};

/// Where it is idle it looks so often.
const LOOK: Duration = Duration::from_micros(250);

/// RFC 8289 §4.2 and §4.3.
const TARGET: Duration = Duration::from_millis(5);
const INTERVAL: Duration = Duration::from_millis(100);

/// Bytes before the rate at most: 800 ms at 10 Mbit/s.
const QUEUE_LEN_MAX: usize = 1_000_000;

const MTU: u16 = 1_500;

/// A path that stands, until it is dropped.
#[derive(Debug)]
pub(super) struct Path {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    ends: AtomicBool,
    /// Bits a second down.
    rate: AtomicU64,
    delivered: AtomicU64,
    dropped: AtomicU64,
    /// Microseconds that the thread looked too late, at most.
    late: AtomicU64,
}

/// What has passed since the path stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Passed {
    /// Bytes that came out at the client's end.
    pub(super) bytes: u64,
    /// Packets that the queue before the rate dropped.
    pub(super) drops: u64,
    /// The longest that the emulation itself was late since last asked.
    pub(super) late: Duration,
}

impl Path {
    /// Between the networks of two processes, `delay` each way and up to `jitter` more; its devices are
    /// called path0.
    ///
    /// # Panics
    /// When there is no TUN device to be had.
    pub(super) fn new(
        (gateway, client): (u32, u32),
        delay: Duration,
        jitter: Duration,
        queue: Queue,
    ) -> Self {
        let shared = Arc::new(Shared::default());
        shared.rate.store(1_000_000_000, Ordering::Relaxed);
        let (north, south) = (device_in(gateway), device_in(client));
        let mut ends = Ends {
            north,
            south,
            down: Down::new(Instant::now(), queue),
            flying_down: VecDeque::new(),
            flying_up: VecDeque::new(),
            delays: Delays::new(delay, jitter),
            shared: Arc::clone(&shared),
        };
        let thread = thread::spawn(move || ends.run());
        Self {
            shared,
            thread: Some(thread),
        }
    }

    /// Sets the rate on the way down.
    pub(super) fn set_rate(&self, mbit: u64) {
        self.shared.rate.store(mbit * 1_000_000, Ordering::Relaxed);
    }

    /// What has passed.
    pub(super) fn passed(&self) -> Passed {
        Passed {
            bytes: self.shared.delivered.load(Ordering::Relaxed),
            drops: self.shared.dropped.load(Ordering::Relaxed),
            late: Duration::from_micros(self.shared.late.swap(0, Ordering::Relaxed)),
        }
    }
}

impl Drop for Path {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A device made in the network of a process.
fn device_in(id: u32) -> File {
    let maker = thread::spawn(move || {
        enter_network_of(id).unwrap();
        tun::create(&TunConfig {
            name: Some("path0".to_owned()),
            mtu: MTU,
            queue_len: Some(10_000),
            ..TunConfig::default()
        })
        .unwrap()
    });
    let mut device = maker.join().unwrap();
    File::from(device.queues.remove(0))
}

type Packet = Box<[u8]>;

struct Ends {
    north: File,
    south: File,
    down: Down,
    flying_down: VecDeque<(Instant, Packet)>,
    flying_up: VecDeque<(Instant, Packet)>,
    delays: Delays,
    shared: Arc<Shared>,
}

impl Ends {
    fn run(&mut self) {
        let mut looked = Instant::now();
        while !self.shared.ends.load(Ordering::Relaxed) {
            let now = Instant::now();
            let late = u64::try_from((now - looked).saturating_sub(LOOK).as_micros());
            self.shared
                .late
                .fetch_max(late.unwrap_or(u64::MAX), Ordering::Relaxed);
            looked = now;
            self.turn(now);
            thread::sleep(LOOK);
        }
    }

    fn turn(&mut self, now: Instant) {
        while let Some(packet) = read(&self.north) {
            if !self.down.push(now, packet) {
                self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
        while let Some(packet) = read(&self.south) {
            self.flying_up
                .push_back((now + self.delays.at(now), packet));
        }
        let rate = self.shared.rate.load(Ordering::Relaxed);
        while let Some((left, packet)) = self.down.pop(now, rate) {
            self.flying_down
                .push_back((left + self.delays.at(now), packet));
        }
        let drops = std::mem::take(&mut self.down.drops);
        self.shared.dropped.fetch_add(drops, Ordering::Relaxed);
        for packet in due(&mut self.flying_down, now) {
            let len = packet.len() as u64;
            self.shared.delivered.fetch_add(len, Ordering::Relaxed);
            let _ = self.south.write(&packet);
        }
        for packet in due(&mut self.flying_up, now) {
            let _ = self.north.write(&packet);
        }
    }
}

/// A delay that wanders: every [`WANDER`] it makes for another value, so what came earlier leaves earlier.
#[derive(Debug)]
struct Delays {
    least: Duration,
    jitter: Duration,
    from: f64,
    to: f64,
    since: Instant,
    /// Of a linear congruential generator (Knuth's MMIX).
    random: u64,
}

/// Twice the time that a packet is on its way, so the delay falls more slowly than time passes.
const WANDER: Duration = Duration::from_millis(80);

impl Delays {
    fn new(least: Duration, jitter: Duration) -> Self {
        Self {
            least,
            jitter: jitter.min(WANDER / 2),
            from: 0.0,
            to: 0.0,
            since: Instant::now(),
            random: 1,
        }
    }

    fn at(&mut self, now: Instant) -> Duration {
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed >= WANDER {
            self.random = self
                .random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            self.from = self.to;
            self.to = (self.random >> 40) as f64 / (1_u64 << 24) as f64;
            self.since = now;
            return self.least + self.jitter.mul_f64(self.from);
        }
        let way = elapsed.as_secs_f64() / WANDER.as_secs_f64();
        self.least + self.jitter.mul_f64(self.from + (self.to - self.from) * way)
    }
}

fn read(mut device: &File) -> Option<Packet> {
    let mut packet = [0; MTU as usize + 100];
    let len = device.read(&mut packet).ok()?;
    Some(packet.get(..len)?.into())
}

fn due(flying: &mut VecDeque<(Instant, Packet)>, now: Instant) -> impl Iterator<Item = Packet> {
    std::iter::from_fn(move || {
        let (_, packet) = flying.pop_front_if(|(at, _)| *at <= now)?;
        Some(packet)
    })
}

/// What keeps the queue before the rate short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Queue {
    CoDel,
    /// Nothing: it holds a megabyte.
    Deep,
}

/// What waits for the rate.
#[derive(Debug)]
struct Down {
    queue: Queue,
    pings: VecDeque<(Instant, Packet)>,
    bulk: VecDeque<(Instant, Packet)>,
    bulk_len: usize,
    /// When the packet before has left.
    free_at: Instant,
    /// CoDel's state, in the words of RFC 8289 §5.
    first_above: Option<Instant>,
    drop_next: Instant,
    count: u32,
    last_count: u32,
    dropping: bool,
    drops: u64,
}

impl Down {
    const fn new(now: Instant, queue: Queue) -> Self {
        Self {
            queue,
            pings: VecDeque::new(),
            bulk: VecDeque::new(),
            bulk_len: 0,
            free_at: now,
            first_above: None,
            drop_next: now,
            count: 0,
            last_count: 0,
            dropping: false,
            drops: 0,
        }
    }

    /// Whether there was room for it.
    fn push(&mut self, now: Instant, packet: Packet) -> bool {
        const ICMP: u8 = 1;
        if packet.get(9) == Some(&ICMP) {
            self.pings.push_back((now, packet));
            return true;
        }
        if self.bulk_len + packet.len() > QUEUE_LEN_MAX {
            return false;
        }
        self.bulk_len += packet.len();
        self.bulk.push_back((now, packet));
        true
    }

    /// The next packet that has left by `now`, and when it had.
    fn pop(&mut self, now: Instant, rate: u64) -> Option<(Instant, Packet)> {
        let first = match (self.pings.front(), self.bulk.front()) {
            (Some((ping, _)), _) => *ping,
            (None, Some((bulk, _))) => *bulk,
            (None, None) => return None,
        };
        let start = self.free_at.max(first);
        if start > now {
            return None;
        }
        let packet = match self.pings.pop_front() {
            Some((_, ping)) => ping,
            None if self.queue == Queue::Deep => self.take(start)?.0,
            None => self.pop_judged(start)?,
        };
        let nanos = packet.len() as u64 * 8_000_000_000 / rate;
        self.free_at = start + Duration::from_nanos(nanos);
        Some((self.free_at, packet))
    }

    /// RFC 8289 §5.5.
    fn pop_judged(&mut self, now: Instant) -> Option<Packet> {
        let (mut packet, mut may_drop) = self.take(now)?;
        if !may_drop {
            self.dropping = false;
            return Some(packet);
        }
        if !self.dropping {
            (packet, _) = self.dropped(now)?;
            self.dropping = true;
            let delta = self.count.saturating_sub(self.last_count);
            let lately = now.saturating_duration_since(self.drop_next) < INTERVAL * 16;
            self.count = if delta > 1 && lately { delta } else { 1 };
            self.last_count = self.count;
            self.drop_next = now + INTERVAL.div_f64(f64::from(self.count).sqrt());
            return Some(packet);
        }
        while now >= self.drop_next && self.dropping {
            self.count += 1;
            (packet, may_drop) = self.dropped(now)?;
            if may_drop {
                self.drop_next += INTERVAL.div_f64(f64::from(self.count).sqrt());
            } else {
                self.dropping = false;
            }
        }
        Some(packet)
    }

    /// The packet behind one that was dropped.
    fn dropped(&mut self, now: Instant) -> Option<(Packet, bool)> {
        self.drops += 1;
        self.take(now)
    }

    /// The oldest, and whether the queue stands.
    fn take(&mut self, now: Instant) -> Option<(Packet, bool)> {
        let Some((since, packet)) = self.bulk.pop_front() else {
            self.first_above = None;
            return None;
        };
        self.bulk_len -= packet.len();
        if now.saturating_duration_since(since) < TARGET || self.bulk_len <= usize::from(MTU) {
            self.first_above = None;
            return Some((packet, false));
        }
        let since = *self.first_above.get_or_insert(now + INTERVAL);
        Some((packet, now >= since))
    }
}
