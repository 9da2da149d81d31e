//! The packets of one shard: which is due, what came back, and what that says.
//!
//! The datagrams are here; TCP is [`bulk`], pings are [`pings`](super::pings).

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;

use datapath::time::{Duration, Instant};

use super::bulk::{self, Bulk};
use super::pace::Pace;
use super::pings::Pings;
use super::report::{LATE_SHARE_MAX, SEND_LATE};
use super::search::{Goal, Outcome};
use super::sizes::Sizes;
use super::stream::{StreamRequest, StreamTally};
use super::tally::Packets;
use super::trials::{Desk, Trials, Turn};
use super::window::{Arrival, Window};
use crate::flags::{self, Direction};
use crate::payload::{self, CLIENT_PORT, Header, Kind, Maker, Path, Payload};

/// Packets sent in one turn, at most, so that arrivals are not kept waiting.
const BURST_MAX: u64 = 1024;

/// How often a stream is asked for, in case the question is lost.
const ASK_INTERVAL: Duration = Duration::from_millis(250);
const ASKS_MAX: u32 = 8;

/// A trial of a search lasts so long at least, and a search at most.
const TRIAL_MIN: Duration = Duration::from_millis(100);
const SEARCH_MAX: Duration = Duration::from_secs(24 * 3600);

/// How much is sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Load {
    /// Packets a second over all sessions.
    Total(f64),
    /// Packets a second of each.
    PerSession(f64),
}

/// What shall be sent; the same for all shards.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) direction: Direction,
    /// `None`: the gateway's address in the tunnel, at the port of echo.
    pub(crate) to: Option<SocketAddr>,
    /// Of datagrams, if there are any.
    pub(crate) load: Option<Load>,
    pub(crate) bulk: Option<bulk::Plan>,
    /// Between two pings of a session.
    pub(crate) ping_interval: Option<Duration>,
    pub(crate) sizes: Sizes,
    pub(crate) duration: Duration,
    pub(crate) run: u32,
    /// The highest rate is searched for, and `load` is not looked at.
    pub(crate) search: Option<Arc<Desk>>,
}

impl Plan {
    /// What these flags ask for, in the run of that number.
    pub(crate) fn of(flags: &flags::Traffic, run: u32) -> Self {
        let bits = flags.size.mean() * 8.0;
        let load = match (flags.pps, flags.pps_per_session) {
            (Some(pps), _) => Some(Load::Total(pps)),
            (None, Some(pps)) => Some(Load::PerSession(pps)),
            (None, None) => match (flags.bps, flags.bps_per_session) {
                (Some(bps), _) => Some(Load::Total(bps / bits)),
                (None, Some(bps)) => Some(Load::PerSession(bps / bits)),
                (None, None) => None,
            },
        };
        let search = flags.search.map(|_| {
            let goal = Goal {
                loss_max: flags.loss,
                first_rate: flags.pps.unwrap_or(1.0),
                trial: flags.duration.max(TRIAL_MIN),
            };
            Desk::new(goal, LATE_SHARE_MAX, flags.wait, flags.fleet.quiet)
        });
        let inside = &flags.inside;
        let bulk = flags.to.filter(|_| inside.tcp_up || inside.tcp_down);
        Self {
            direction: flags.direction(),
            to: flags.to,
            load,
            bulk: bulk.map(|to| bulk::Plan {
                up: inside.tcp_up,
                down: inside.tcp_down,
                to,
                window: inside.tcp_window,
                raw: inside.tcp_raw,
            }),
            ping_interval: inside.ping_interval,
            sizes: flags.size.clone(),
            // A search ends when it has found what it searches for.
            duration: if flags.search.is_some() {
                SEARCH_MAX
            } else {
                flags.duration
            },
            run,
            search,
        }
    }
}

/// The stream of one session.
#[derive(Clone, Debug, Default)]
struct Stream {
    /// Number of the session in the run.
    session: u32,
    path: Option<Path>,
    next: u64,
    received: u64,
    /// The same of earlier trials.
    earlier: u64,
    arrived: Window,
    /// The far end's count was heard.
    tallied: bool,
}

/// A session that can carry packets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Carrier {
    /// Its place on this shard.
    pub(crate) member: u32,
    /// Its number in the run.
    pub(crate) session: u32,
    pub(crate) own: Option<Ipv4Addr>,
    pub(crate) gateway: Option<Ipv4Addr>,
}

/// The packets of one shard.
#[derive(Debug)]
pub(crate) struct Traffic {
    plan: Arc<Plan>,
    start: Instant,
    /// What packets of the present period are marked with, and how long it lasts.
    run: u32,
    duration: Duration,
    /// A packet of a trial that is sent later shows that we do not keep up.
    overdue_at: Instant,
    pace: Pace,
    /// Packets a second of each session.
    rate_each: f64,
    up_everywhere: u64,
    /// The members that carry, in order.
    carriers: Vec<u32>,
    /// By member; those that carry nothing have none.
    streams: Vec<Option<Box<Stream>>>,
    /// The next packet, and one past the last.
    next: u64,
    count: u64,
    maker: Maker,
    /// Questions to the far end that were sent, and when the next is due.
    asks: u32,
    ask_at: Instant,
    bulk: Option<Bulk>,
    pings: Option<Pings>,
    trials: Option<Trials>,
    /// Whether there are datagrams at all.
    is_begun: bool,
    /// What is planned of them, and was sent late.
    counted: Outcome,
    pub(crate) tally: Packets,
}

impl Traffic {
    /// Streams over these sessions, of `up_everywhere` in the run, from `start` on.
    pub(crate) fn new(
        plan: &Arc<Plan>,
        start: Instant,
        carriers: &[Carrier],
        up_everywhere: u64,
    ) -> Self {
        let mut streams = Vec::new();
        let mut members = Vec::new();
        let mut bulk = plan
            .bulk
            .map(|bulk| Bulk::new(bulk, plan.run, start, plan.duration));
        let mut pings = plan
            .ping_interval
            .map(|interval| Pings::new(plan.run, start, interval, plan.duration));
        for carrier in carriers {
            let member = carrier.member as usize;
            if member >= streams.len() {
                streams.resize_with(member + 1, || None);
            }
            let stream = Stream {
                session: carrier.session,
                path: path(plan.to, carrier),
                ..Stream::default()
            };
            if let Some(slot) = streams.get_mut(member) {
                *slot = Some(Box::new(stream));
            }
            members.push(carrier.member);
            if let (Some(bulk), Some(own)) = (&mut bulk, carrier.own) {
                bulk.add(carrier.member, carrier.session, IpAddr::V4(own));
            }
            if let (Some(pings), Some(path)) = (&mut pings, path(plan.to, carrier)) {
                let (own, to) = (path.source.into(), path.destination.into());
                pings.add(carrier.member, carrier.session, own, to);
            }
        }
        let mut traffic = Self {
            plan: Arc::clone(plan),
            start,
            run: plan.run,
            duration: plan.duration,
            overdue_at: start,
            pace: Pace::new(start, 1.0),
            rate_each: 1.0,
            up_everywhere: up_everywhere.max(1),
            carriers: members,
            streams,
            next: 0,
            count: 0,
            maker: Maker::default(),
            asks: 0,
            ask_at: start,
            bulk,
            pings,
            trials: None,
            is_begun: false,
            counted: Outcome::default(),
            tally: Packets::default(),
        };
        match &plan.search {
            Some(desk) => {
                let (trials, step) = Trials::begin(desk, start);
                traffic.trials = Some(trials);
                if let Some(step) = step {
                    traffic.overdue_at = start + step.overdue_after();
                    traffic.begin(start, step.duration, Load::Total(step.rate));
                }
            }
            None => {
                if let Some(load) = plan.load {
                    traffic.begin(start, plan.duration, load);
                }
            }
        }
        traffic
    }

    /// Begins a period of datagrams.
    fn begin(&mut self, start: Instant, duration: Duration, load: Load) {
        self.rate_each = match load {
            Load::Total(rate) => rate / (self.up_everywhere as f64),
            Load::PerSession(rate) => rate,
        };
        let carriers = self.carriers.len();
        self.start = start;
        self.duration = duration;
        self.pace = Pace::new(start, self.rate_each * (carriers.max(1) as f64));
        let count = self.pace.count_before(start + duration);
        self.next = 0;
        self.count = match self.plan.direction {
            Direction::Both | Direction::Up if carriers > 0 => count,
            _ => 0,
        };
        if carriers > 0 {
            self.counted.planned += count;
        }
        self.asks = 0;
        self.ask_at = start;
        self.is_begun = true;
    }

    /// Goes on to the next trial of a search, if this one is over.
    fn try_on(&mut self, now: Instant, send: &mut impl FnMut(u32, &[u8]) -> bool) {
        let Some(trials) = &mut self.trials else {
            return;
        };
        let counted = Outcome {
            sent: self.tally.sent,
            received: self.tally.received,
            ..self.counted
        };
        match trials.turn(now, &counted) {
            Turn::Nothing => {}
            Turn::Ask if self.plan.direction == Direction::Both => {}
            Turn::Ask => self.ask_for_tallies(now, send),
            Turn::Begin { step, at, number } => {
                // What is still under way of the last trial is told from this one by its run.
                self.run = self.plan.run.wrapping_add(number);
                for stream in self.streams.iter_mut().flatten() {
                    **stream = Stream {
                        session: stream.session,
                        path: stream.path,
                        earlier: stream.earlier + stream.received,
                        ..Stream::default()
                    };
                }
                self.overdue_at = at + step.overdue_after();
                self.begin(at, step.duration, Load::Total(step.rate));
            }
        }
    }

    /// Packets that are planned and were not sent yet, and transfers that are not over.
    pub(crate) fn unsent(&self) -> u64 {
        let transfers = self.bulk.as_ref().map_or(0, Bulk::open);
        let pings = self.pings.as_ref().map_or(0, Pings::unsent);
        self.datagrams_unsent() + transfers + pings
    }

    const fn datagrams_unsent(&self) -> u64 {
        self.count.saturating_sub(self.next)
    }

    /// When something is to be sent.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let bulk = self.bulk.as_ref().and_then(Bulk::next_timeout);
        let pings = self.pings.as_ref().and_then(Pings::next_timeout);
        let datagrams = if self.datagrams_unsent() > 0 {
            Some(self.pace.at(self.next))
        } else {
            self.asks_for_streams().then_some(self.ask_at)
        };
        let trials = self.trials.as_ref().and_then(Trials::next_timeout);
        let others = bulk.into_iter().chain(pings).chain(trials);
        datagrams.into_iter().chain(others).min()
    }

    fn asks_for_streams(&self) -> bool {
        self.is_begun
            && self.plan.direction == Direction::Down
            && self.asks < ASKS_MAX
            && !self.carriers.is_empty()
    }

    /// Sends what is due; `send` answers whether the member is still up.
    pub(crate) fn handle_timeout(
        &mut self,
        now: Instant,
        mut send: impl FnMut(u32, &[u8]) -> bool,
    ) {
        if let Some(bulk) = &mut self.bulk {
            bulk.handle_timeout(now, &mut self.tally.bulk, &mut send);
        }
        if let Some(pings) = &mut self.pings {
            pings.handle_timeout(now, &mut self.tally.pings, &mut send);
        }
        self.try_on(now, &mut send);
        if self.plan.direction == Direction::Down {
            return self.ask_for_streams(now, send);
        }
        let kind = match self.plan.direction {
            Direction::Up => Kind::Sink,
            Direction::Both | Direction::Down => Kind::Echo,
        };
        let burst_end = self.count.min(self.next + BURST_MAX);
        let mut turn = self.turn_of(self.next);
        while self.next < burst_end {
            let planned = self.pace.at(self.next);
            if planned > now {
                break;
            }
            let member = self.carriers.get(turn).copied();
            turn = if turn + 1 < self.carriers.len() {
                turn + 1
            } else {
                0
            };
            self.next += 1;
            let Some(member) = member else { continue };
            self.send_one(now, planned, kind, member, &mut send);
        }
    }

    /// Whose turn it is at packet `number`.
    fn turn_of(&self, number: u64) -> usize {
        let count = self.carriers.len() as u64;
        usize::try_from(number.checked_rem(count).unwrap_or(0)).unwrap_or(0)
    }

    fn send_one(
        &mut self,
        now: Instant,
        planned: Instant,
        kind: Kind,
        member: u32,
        send: &mut impl FnMut(u32, &[u8]) -> bool,
    ) {
        let stream = self
            .streams
            .get_mut(member as usize)
            .and_then(Option::as_mut);
        let Some((stream, path)) = stream.and_then(|stream| {
            let path = stream.path?;
            Some((stream, path))
        }) else {
            self.tally.not_sent += 1;
            return;
        };
        let header = Header {
            kind,
            run: self.run,
            session: stream.session,
            sequence: stream.next,
            planned: planned.as_nanos(),
        };
        let len = self.plan.sizes.at(stream.next + u64::from(stream.session));
        if !send(member, self.maker.packet(len, path, &header)) {
            self.tally.not_sent += 1;
            return;
        }
        stream.next += 1;
        self.tally.sent += 1;
        self.tally.sent_bytes += u64::from(len);
        let late = now.saturating_since(planned);
        self.counted.late += u64::from(late > SEND_LATE);
        self.counted.overdue += u64::from(now > self.overdue_at);
        self.tally.lateness.record(late);
    }

    /// Asks the far end for what is to come down; again, until each has been heard.
    fn ask_for_streams(&mut self, now: Instant, mut send: impl FnMut(u32, &[u8]) -> bool) {
        if now < self.ask_at || !self.asks_for_streams() {
            return;
        }
        self.asks += 1;
        self.ask_at = now + ASK_INTERVAL;
        let body = StreamRequest {
            start: self.start.as_nanos(),
            rate_milli: milli(self.rate_each),
            duration_ms: u32::try_from(self.duration.as_millis()).unwrap_or(u32::MAX),
        }
        .emit(&self.plan.sizes);
        for &member in &self.carriers {
            let stream = self.streams.get(member as usize).and_then(Option::as_ref);
            let Some((stream, path)) = stream.and_then(|stream| Some((stream, stream.path?)))
            else {
                continue;
            };
            if stream.received > 0 {
                continue;
            }
            let header = Header {
                kind: Kind::Start,
                run: self.run,
                session: stream.session,
                sequence: u64::from(self.asks),
                planned: now.as_nanos(),
            };
            send(member, self.maker.packet_with(&body, path, &header));
        }
    }

    /// Asks the far end what it received and sent, as far as it has not said.
    pub(crate) fn ask_for_tallies(
        &mut self,
        now: Instant,
        mut send: impl FnMut(u32, &[u8]) -> bool,
    ) {
        if !self.is_begun {
            return;
        }
        for &member in &self.carriers {
            let stream = self.streams.get(member as usize).and_then(Option::as_ref);
            let Some((stream, path)) = stream.and_then(|stream| Some((stream, stream.path?)))
            else {
                continue;
            };
            if stream.tallied {
                continue;
            }
            let header = Header {
                kind: Kind::Tally,
                run: self.run,
                session: stream.session,
                sequence: 0,
                planned: now.as_nanos(),
            };
            send(
                member,
                self.maker.packet(payload::PACKET_LEN_MIN, path, &header),
            );
        }
    }

    /// A packet came out of the tunnel of `member`.
    pub(crate) fn handle_packet(&mut self, now: Instant, member: u32, packet: &[u8]) {
        if self.is_of_a_transfer(now, member, packet) || self.is_of_a_ping(now, member, packet) {
            return;
        }
        let Some((path, payload)) = payload::parse(packet) else {
            self.tally.foreign += 1;
            return;
        };
        let header = match Header::open(payload) {
            Payload::Ours(header) => header,
            Payload::Damaged => {
                self.tally.corrupted += 1;
                return;
            }
            Payload::Foreign => {
                // Only what was ours goes to or from our port.
                if path.source_port == CLIENT_PORT || path.destination_port == CLIENT_PORT {
                    self.tally.corrupted += 1;
                } else {
                    self.tally.foreign += 1;
                }
                return;
            }
        };
        if header.run != self.run {
            self.tally.foreign += 1;
            return;
        }
        let stream = self
            .streams
            .get_mut(member as usize)
            .and_then(Option::as_mut);
        let Some(stream) = stream.filter(|stream| stream.session == header.session) else {
            self.tally.wrong_session += 1;
            return;
        };
        match header.kind {
            Kind::Tally => {
                let body = payload.get(payload::HEADER_LEN..).unwrap_or_default();
                if let Some(counts) = StreamTally::parse(body)
                    && !stream.tallied
                {
                    stream.tallied = true;
                    self.take_counts(member, &counts);
                }
                return;
            }
            // A reflector sends the question back.
            Kind::Start | Kind::Upload | Kind::Download => return,
            Kind::Echo | Kind::Sink | Kind::Source => {}
        }
        match stream.arrived.arrive(header.sequence) {
            Arrival::Duplicate => {
                self.tally.duplicates += 1;
                return;
            }
            Arrival::TooOld => {
                self.tally.too_old += 1;
                return;
            }
            Arrival::Late => self.tally.reordered += 1,
            Arrival::InOrder => {}
        }
        stream.received += 1;
        self.tally.received += 1;
        self.tally.received_bytes += packet.len() as u64;
        let planned = Instant::from_nanos(header.planned);
        self.tally.latency.record(now.saturating_since(planned));
    }

    fn is_of_a_transfer(&mut self, now: Instant, member: u32, packet: &[u8]) -> bool {
        let Some(bulk) = &mut self.bulk else {
            return false;
        };
        match destination_of(packet, TCP) {
            Some(to) => bulk.handle_packet(now, member, to, packet, &mut self.tally.bulk),
            None => return false,
        }
        true
    }

    fn is_of_a_ping(&mut self, now: Instant, member: u32, packet: &[u8]) -> bool {
        match &mut self.pings {
            Some(pings) if destination_of(packet, ICMP).is_some() => {
                pings.handle_packet(now, member, packet, &mut self.tally.pings)
            }
            _ => false,
        }
    }

    /// What the far end says of one stream: what it received of ours, or sent to us.
    fn take_counts(&mut self, member: u32, counts: &StreamTally) {
        let tally = &mut self.tally;
        match self.plan.direction {
            Direction::Up => {
                tally.received += counts.received;
                tally.received_bytes += counts.received_bytes;
                tally.duplicates += counts.duplicates;
                tally.reordered += counts.reordered;
                tally.corrupted += counts.corrupted;
                let stream = self
                    .streams
                    .get_mut(member as usize)
                    .and_then(Option::as_mut);
                if let Some(stream) = stream {
                    stream.received = counts.received;
                }
            }
            Direction::Down => {
                tally.sent += counts.sent;
                tally.sent_bytes += counts.sent_bytes;
            }
            Direction::Both => {}
        }
    }

    /// Closes the account of every session.
    pub(crate) fn finish(&mut self) {
        if self.is_begun {
            for stream in self.streams.iter().flatten() {
                self.tally.add_session(stream.earlier + stream.received);
            }
        }
        if let Some(bulk) = &mut self.bulk {
            bulk.finish(&mut self.tally.bulk);
        }
    }
}

/// The thousandfold as a whole number; a rate is bounded by its flag.
fn milli(rate: f64) -> u64 {
    Duration::try_from_secs_f64(rate * 1e3).map_or(u64::MAX, |thousandfold| thousandfold.as_secs())
}

// RFC 790.
const ICMP: u8 = 1;
const TCP: u8 = 6;

/// Where an IPv4 packet of this protocol goes.
fn destination_of(packet: &[u8], protocol: u8) -> Option<IpAddr> {
    let header = packet.first_chunk::<20>()?;
    let is_it = header[0] >> 4 == 4 && header[9] == protocol;
    is_it.then(|| Ipv4Addr::new(header[16], header[17], header[18], header[19]).into())
}

/// From a session to the far end, if the session has what it takes.
fn path(to: Option<SocketAddr>, carrier: &Carrier) -> Option<Path> {
    let to = match to {
        Some(SocketAddr::V4(to)) => to,
        Some(SocketAddr::V6(_)) => return None,
        None => SocketAddrV4::new(carrier.gateway?, 7),
    };
    Some(Path {
        source: carrier.own?,
        source_port: CLIENT_PORT,
        destination: *to.ip(),
        destination_port: to.port(),
    })
}

#[cfg(test)]
mod tests;
