//! The packets of one shard: which is due, what came back, and what that says.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;

use datapath::time::{Duration, Instant};

use super::pace::Pace;
use super::sizes::Sizes;
use super::tally::Packets;
use super::window::{Arrival, Window};
use crate::flags::Direction;
use crate::payload::{self, CLIENT_PORT, Header, Kind, Maker, Path, Payload};

/// Packets sent in one turn, at most, so that arrivals are not kept waiting.
const BURST_MAX: u64 = 1024;

/// How often a stream is asked for, in case the question is lost.
const ASK_INTERVAL: Duration = Duration::from_millis(250);
const ASKS_MAX: u32 = 8;

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
    pub(crate) load: Load,
    pub(crate) sizes: Sizes,
    pub(crate) duration: Duration,
    pub(crate) run: u32,
}

/// The stream of one session.
#[derive(Clone, Debug, Default)]
struct Stream {
    /// Number of the session in the run.
    session: u32,
    path: Option<Path>,
    next: u64,
    received: u64,
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
    pace: Pace,
    /// Packets a second of each session.
    rate_each: f64,
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
        let rate_each = match plan.load {
            Load::Total(rate) => rate / (up_everywhere.max(1) as f64),
            Load::PerSession(rate) => rate,
        };
        let rate = rate_each * (carriers.len().max(1) as f64);
        let mut streams = Vec::new();
        let mut members = Vec::new();
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
        }
        let pace = Pace::new(start, rate);
        let sends = plan.direction != Direction::Down && !members.is_empty();
        Self {
            plan: Arc::clone(plan),
            start,
            pace,
            rate_each,
            carriers: members,
            streams,
            next: 0,
            count: if sends {
                count_within(&pace, start + plan.duration)
            } else {
                0
            },
            maker: Maker::default(),
            asks: 0,
            ask_at: start,
            tally: Packets::default(),
        }
    }

    /// Packets that are planned and were not sent yet.
    pub(crate) const fn unsent(&self) -> u64 {
        self.count.saturating_sub(self.next)
    }

    /// When something is to be sent.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        if self.unsent() > 0 {
            return Some(self.pace.at(self.next));
        }
        (self.plan.direction == Direction::Down
            && self.asks < ASKS_MAX
            && !self.carriers.is_empty())
        .then_some(self.ask_at)
    }

    /// Sends what is due; `send` answers whether the member is still up.
    pub(crate) fn handle_timeout(
        &mut self,
        now: Instant,
        mut send: impl FnMut(u32, &[u8]) -> bool,
    ) {
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
            run: self.plan.run,
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
        self.tally.lateness.record(now.saturating_since(planned));
    }

    /// Asks the far end for what is to come down; again, until each has been heard.
    fn ask_for_streams(&mut self, now: Instant, mut send: impl FnMut(u32, &[u8]) -> bool) {
        if now < self.ask_at || self.asks >= ASKS_MAX {
            return;
        }
        self.asks += 1;
        self.ask_at = now + ASK_INTERVAL;
        let body = StreamRequest {
            start: self.start.as_nanos(),
            rate_milli: milli(self.rate_each),
            duration_ms: u32::try_from(self.plan.duration.as_millis()).unwrap_or(u32::MAX),
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
                run: self.plan.run,
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
                run: self.plan.run,
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
        if header.run != self.plan.run {
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
            Kind::Start => return,
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
        for stream in self.streams.iter().flatten() {
            self.tally.add_session(stream.received);
        }
    }
}

/// The thousandfold as a whole number; a rate is bounded by its flag.
fn milli(rate: f64) -> u64 {
    Duration::try_from_secs_f64(rate * 1e3).map_or(u64::MAX, |thousandfold| thousandfold.as_secs())
}

/// How many events of `pace` lie before `end`.
fn count_within(pace: &Pace, end: Instant) -> u64 {
    let (mut low, mut high) = (0, 1_u64 << 40);
    while low < high {
        let middle = low.midpoint(high);
        if pace.at(middle) < end {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
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

/// The body of [`Kind::Start`]: what stream a session asks for. It is followed by the sizes, two
/// bytes each, to the end of the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamRequest {
    /// When the first is planned, by the asker's clock; the far end may be late.
    pub(crate) start: u64,
    /// Packets in a thousand seconds.
    pub(crate) rate_milli: u64,
    pub(crate) duration_ms: u32,
}

impl StreamRequest {
    pub(crate) fn emit(&self, sizes: &Sizes) -> Vec<u8> {
        let mut body = Vec::new();
        body.extend_from_slice(&self.start.to_be_bytes());
        body.extend_from_slice(&self.rate_milli.to_be_bytes());
        body.extend_from_slice(&self.duration_ms.to_be_bytes());
        body.extend(sizes.list().iter().flat_map(|size| size.to_be_bytes()));
        body
    }

    /// Reads a body; `None` if it is not one.
    pub(crate) fn parse(body: &[u8]) -> Option<(Self, Sizes)> {
        let (start, rest) = body.split_first_chunk::<8>()?;
        let (rate_milli, rest) = rest.split_first_chunk::<8>()?;
        let (duration_ms, rest) = rest.split_first_chunk::<4>()?;
        let (sizes, tail) = rest.as_chunks::<2>();
        let sizes = sizes.iter().map(|size| u16::from_be_bytes(*size)).collect();
        let request = Self {
            start: u64::from_be_bytes(*start),
            rate_milli: u64::from_be_bytes(*rate_milli),
            duration_ms: u32::from_be_bytes(*duration_ms),
        };
        tail.is_empty().then_some(())?;
        Some((request, Sizes::new(sizes)?))
    }
}

/// The body of an answer to [`Kind::Tally`]: seven numbers of eight bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StreamTally {
    pub(crate) received: u64,
    pub(crate) received_bytes: u64,
    pub(crate) duplicates: u64,
    pub(crate) reordered: u64,
    pub(crate) corrupted: u64,
    pub(crate) sent: u64,
    pub(crate) sent_bytes: u64,
}

impl StreamTally {
    pub(crate) fn emit(&self) -> Vec<u8> {
        [
            self.received,
            self.received_bytes,
            self.duplicates,
            self.reordered,
            self.corrupted,
            self.sent,
            self.sent_bytes,
        ]
        .iter()
        .flat_map(|number| number.to_be_bytes())
        .collect()
    }

    pub(crate) fn parse(body: &[u8]) -> Option<Self> {
        let (numbers, rest) = body.as_chunks::<8>();
        let &[a, b, c, d, e, f, g] = numbers else {
            return None;
        };
        let [
            received,
            received_bytes,
            duplicates,
            reordered,
            corrupted,
            sent,
            sent_bytes,
        ] = [a, b, c, d, e, f, g].map(u64::from_be_bytes);
        rest.is_empty().then_some(Self {
            received,
            received_bytes,
            duplicates,
            reordered,
            corrupted,
            sent,
            sent_bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Instant = Instant::from_nanos(5_000_000_000);
    const MS: Duration = Duration::from_millis(1);

    fn carrier(member: u32) -> Carrier {
        Carrier {
            member,
            session: member * 2,
            own: Some(Ipv4Addr::new(10, 0, 0, 10)),
            gateway: Some(Ipv4Addr::new(10, 0, 0, 1)),
        }
    }

    fn traffic(direction: Direction, carriers: &[Carrier]) -> Traffic {
        let plan = Plan {
            direction,
            to: None,
            load: Load::Total(1000.0),
            sizes: "64,200".parse().unwrap(),
            duration: MS * 100,
            run: 77,
        };
        Traffic::new(&Arc::new(plan), START, carriers, carriers.len() as u64)
    }

    fn sent(traffic: &mut Traffic, now: Instant) -> Vec<(u32, Vec<u8>)> {
        let mut packets = Vec::new();
        traffic.handle_timeout(now, |member, packet| {
            packets.push((member, packet.to_vec()));
            true
        });
        packets
    }

    #[test]
    fn a_late_sender_catches_up_and_hides_nothing() {
        let mut traffic = traffic(Direction::Both, &[carrier(0), carrier(1)]);
        assert_eq!(traffic.next_timeout(), Some(START));
        assert_eq!(sent(&mut traffic, START).len(), 1);
        let late = START + MS * 50;
        let packets = sent(&mut traffic, late);
        assert_eq!(packets.len(), 50);
        for (member, packet) in &packets {
            traffic.handle_packet(late, *member, packet);
        }
        assert_eq!(traffic.tally.received, 50);
        assert!(traffic.tally.latency.histogram().max() >= 49_000_000);
        sent(&mut traffic, START + MS * 1000);
        assert_eq!(traffic.tally.sent, 100, "no more than what was planned");
        assert_eq!(traffic.next_timeout(), None);
    }

    #[test]
    fn whatever_is_wrong_with_an_arrival_is_told() {
        let mut traffic = traffic(Direction::Both, &[carrier(0), carrier(1)]);
        let packets = sent(&mut traffic, START + MS * 9);
        let (member, packet) = &packets[0];
        let now = START + MS * 9;
        traffic.handle_packet(now, 1 - member, packet);
        assert_eq!(traffic.tally.wrong_session, 1);
        traffic.handle_packet(now, *member, &packets[2].1);
        traffic.handle_packet(now, *member, packet);
        traffic.handle_packet(now, *member, packet);
        assert_eq!((traffic.tally.reordered, traffic.tally.duplicates), (1, 1));
        let mut damaged = packets[4].1.clone();
        *damaged.last_mut().unwrap() ^= 1;
        traffic.handle_packet(now, *member, &damaged);
        assert_eq!(traffic.tally.corrupted, 1);
        // The magic itself damaged: still ours, by its port.
        let mut damaged = packets[4].1.clone();
        damaged[28] ^= 1;
        traffic.handle_packet(now, *member, &damaged);
        assert_eq!(traffic.tally.corrupted, 2);
        traffic.handle_packet(now, *member, &[]);
        assert_eq!(traffic.tally.foreign, 1);
        assert_eq!(traffic.tally.received, 2);
    }

    #[test]
    fn a_session_that_is_gone_sends_nothing_and_that_is_counted() {
        let mut traffic = traffic(Direction::Up, &[carrier(0)]);
        traffic.handle_timeout(START + MS * 100, |_, _| false);
        assert_eq!((traffic.tally.sent, traffic.tally.not_sent), (0, 100));
    }

    #[test]
    fn requests_and_tallies_are_read_back() {
        let request = StreamRequest {
            start: 1,
            rate_milli: 2,
            duration_ms: 3,
        };
        let sizes: Sizes = "64,1400".parse().unwrap();
        let body = request.emit(&sizes);
        assert_eq!(StreamRequest::parse(&body), Some((request, sizes)));
        for len in 0..body.len() {
            let cut = StreamRequest::parse(&body[..len]);
            assert!(
                cut.is_none_or(|(_, sizes)| sizes.list() == [64]),
                "{len} bytes"
            );
        }
        let tally = StreamTally {
            received: 1,
            sent_bytes: 7,
            ..StreamTally::default()
        };
        assert_eq!(StreamTally::parse(&tally.emit()), Some(tally));
        assert_eq!(StreamTally::parse(&tally.emit()[1..]), None);
    }
}
