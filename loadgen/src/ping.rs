//! Pings in the tunnel: when to send one, which answer belongs to which, and how long it took.
//!
//! Open loop: a ping goes out at its planned time whether or not the last one was answered, and its
//! round trip counts from the planned time, so a sender that was late hides nothing. An answer is an
//! Echo Reply, or the request itself with its addresses exchanged, which is what a reflector sends.
//! Answers are matched by identifier, sequence and data.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use datapath::time::{Duration, Instant};
use hdrhistogram::Histogram;

use crate::icmp::{self, Echo, Kind};

/// An answer later than this counts as lost.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Round trips are kept to three digits, up to a minute.
const ROUND_TRIP_NANOS_MAX: u64 = 60_000_000_000;

/// What to send.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) source: IpAddr,
    pub(crate) target: IpAddr,
    /// How many.
    pub(crate) count: u32,
    pub(crate) interval: Duration,
    /// Bytes of data in each, 16 at least.
    pub(crate) data_len: usize,
    /// Tells our pings from others'; unpredictable.
    pub(crate) nonce: u64,
}

/// A ping that was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Counts from 1.
    pub(crate) number: u32,
    pub(crate) round_trip: Duration,
    /// It was the request that came back, not a reply.
    pub(crate) is_reflected: bool,
}

/// What a packet from the tunnel was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// The first answer to one of our pings.
    Answer(Answer),
    /// Another answer, or one after its time, or one whose data was changed.
    Counted,
    /// Nothing of ours.
    Foreign,
}

/// Sends pings and takes their answers.
#[derive(Debug)]
pub(crate) struct Pinger {
    plan: Plan,
    /// When the next is to be sent.
    next_at: Instant,
    /// Planned times of those that are not answered, by number.
    waiting: BTreeMap<u32, Instant>,
    /// Those that were given up.
    given_up: BTreeSet<u32>,
    tally: Tally,
    packet: Vec<u8>,
    data: Vec<u8>,
}

/// The result so far.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    pub(crate) sent: u32,
    pub(crate) answered: u32,
    /// Of those answered: came back as they went out.
    pub(crate) reflected: u32,
    pub(crate) duplicates: u32,
    pub(crate) late: u32,
    /// Answers with our identifier whose data was not what was sent.
    pub(crate) corrupted: u32,
    /// Round trips in nanoseconds.
    pub(crate) round_trips: Histogram<u64>,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            sent: 0,
            answered: 0,
            reflected: 0,
            duplicates: 0,
            late: 0,
            corrupted: 0,
            round_trips: Histogram::new_with_max(ROUND_TRIP_NANOS_MAX, 3)
                .unwrap_or_else(|_| unreachable!("constant bounds that are in order")),
        }
    }
}

impl Tally {
    /// Pings without an answer in time.
    pub(crate) const fn lost(&self) -> u32 {
        self.sent.saturating_sub(self.answered)
    }
}

impl Pinger {
    /// Sends its first ping at `now`.
    pub(crate) fn new(now: Instant, plan: Plan) -> Self {
        Self {
            plan,
            next_at: now,
            waiting: BTreeMap::new(),
            given_up: BTreeSet::new(),
            tally: Tally::default(),
            packet: Vec::new(),
            data: Vec::new(),
        }
    }

    /// What is done so far.
    pub(crate) const fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Whether all are sent and none can be answered any more.
    pub(crate) fn is_done(&self) -> bool {
        self.tally.sent >= self.plan.count && self.waiting.is_empty()
    }

    /// When to call [`Self::handle_timeout`] next.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let send = (self.tally.sent < self.plan.count).then_some(self.next_at);
        let give_up = self.waiting.values().next().map(|&at| at + ANSWER_TIMEOUT);
        [send, give_up].into_iter().flatten().min()
    }

    /// Gives up on what is overdue (`lost` learns its number) and sends what is due.
    pub(crate) fn handle_timeout(
        &mut self,
        now: Instant,
        mut lost: impl FnMut(u32),
        mut send: impl FnMut(&[u8]),
    ) {
        while let Some((&number, &planned)) = self.waiting.first_key_value() {
            if planned + ANSWER_TIMEOUT > now {
                break;
            }
            self.waiting.remove(&number);
            self.given_up.insert(number);
            lost(number);
        }
        while self.tally.sent < self.plan.count && self.next_at <= now {
            self.tally.sent += 1;
            let number = self.tally.sent;
            self.fill_data(number);
            let request = Echo {
                kind: Kind::Request,
                source: self.plan.source,
                destination: self.plan.target,
                identifier: self.identifier(),
                sequence: sequence(number),
                data: &self.data,
            };
            if request.emit(&mut self.packet).is_some() {
                send(&self.packet);
                self.waiting.insert(number, self.next_at);
            }
            self.next_at = self.next_at + self.plan.interval;
        }
    }

    /// Looks whether `packet` answers a ping.
    pub(crate) fn handle_packet(&mut self, now: Instant, packet: &[u8]) -> Arrival {
        let Some(echo) = icmp::parse(packet) else {
            return Arrival::Foreign;
        };
        let is_ours = echo.identifier == self.identifier()
            && echo.source == self.plan.target
            && echo.destination == self.plan.source;
        if !is_ours {
            return Arrival::Foreign;
        }
        let Some(number) = self.number_of(echo.data) else {
            self.tally.corrupted += 1;
            return Arrival::Counted;
        };
        self.fill_data(number);
        if echo.data != self.data || echo.sequence != sequence(number) {
            self.tally.corrupted += 1;
            return Arrival::Counted;
        }
        let Some(planned) = self.waiting.remove(&number) else {
            if self.given_up.remove(&number) {
                self.tally.late += 1;
            } else {
                self.tally.duplicates += 1;
            }
            return Arrival::Counted;
        };
        let is_reflected = echo.kind == Kind::Request;
        let round_trip = now.saturating_since(planned);
        self.tally.answered += 1;
        self.tally.reflected += u32::from(is_reflected);
        let nanos = u64::try_from(round_trip.as_nanos()).unwrap_or(u64::MAX);
        self.tally.round_trips.saturating_record(nanos);
        Arrival::Answer(Answer {
            number,
            round_trip,
            is_reflected,
        })
    }

    /// The identifier of all our pings.
    const fn identifier(&self) -> u16 {
        let [high, low, ..] = self.plan.nonce.to_be_bytes();
        u16::from_be_bytes([high, low])
    }

    /// The data of ping `number`: nonce, number, and a pattern that depends on both.
    fn fill_data(&mut self, number: u32) {
        self.data.clear();
        self.data.extend_from_slice(&self.plan.nonce.to_be_bytes());
        self.data
            .extend_from_slice(&u64::from(number).to_be_bytes());
        let [seed, ..] = number.to_le_bytes();
        let pattern = (0..=u8::MAX).cycle().map(|byte| byte ^ seed);
        self.data
            .extend(pattern.take(self.plan.data_len.saturating_sub(16)));
    }

    /// The number in an answer's data, if it is one that was sent.
    fn number_of(&self, data: &[u8]) -> Option<u32> {
        let (nonce, rest) = data.split_first_chunk::<8>()?;
        let (number, _) = rest.split_first_chunk::<8>()?;
        let number = u32::try_from(u64::from_be_bytes(*number)).ok()?;
        let is_sent = u64::from_be_bytes(*nonce) == self.plan.nonce
            && (1..=self.tally.sent).contains(&number);
        is_sent.then_some(number)
    }
}

/// The sequence field of ping `number`; it wraps.
const fn sequence(number: u32) -> u16 {
    let [.., high, low] = number.to_be_bytes();
    u16::from_be_bytes([high, low])
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Instant = Instant::from_nanos(1_000_000_000);
    const MS: Duration = Duration::from_millis(1);

    fn pinger(count: u32) -> Pinger {
        let plan = Plan {
            source: IpAddr::from([10, 0, 0, 2]),
            target: IpAddr::from([10, 0, 0, 1]),
            count,
            interval: MS * 100,
            data_len: 56,
            nonce: 0x1234_5678_9abc_def0,
        };
        Pinger::new(START, plan)
    }

    fn sent(pinger: &mut Pinger, now: Instant) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        pinger.handle_timeout(now, |_| {}, |packet| packets.push(packet.to_vec()));
        packets
    }

    fn answer(request: &[u8], kind: Kind) -> Vec<u8> {
        let request = icmp::parse(request).unwrap();
        let mut packet = Vec::new();
        Echo {
            kind,
            source: request.destination,
            destination: request.source,
            ..request
        }
        .emit(&mut packet)
        .unwrap();
        packet
    }

    #[test]
    fn a_reply_and_a_reflection_both_count() {
        let mut pinger = pinger(2);
        let first = sent(&mut pinger, START).remove(0);
        assert_eq!(first.len(), 84);
        let second = sent(&mut pinger, START + MS * 100).remove(0);
        let reply = answer(&first, Kind::Reply);
        let expected = Answer {
            number: 1,
            round_trip: MS * 103,
            is_reflected: false,
        };
        assert_eq!(
            pinger.handle_packet(START + MS * 103, &reply),
            Arrival::Answer(expected)
        );
        let reflection = answer(&second, Kind::Request);
        let expected = Answer {
            number: 2,
            round_trip: MS * 5,
            is_reflected: true,
        };
        assert_eq!(
            pinger.handle_packet(START + MS * 105, &reflection),
            Arrival::Answer(expected)
        );
        assert!(pinger.is_done());
        assert_eq!(pinger.next_timeout(), None);
        assert_eq!((pinger.tally().answered, pinger.tally().reflected), (2, 1));
    }

    #[test]
    fn a_late_sender_hides_no_delay() {
        let mut pinger = pinger(3);
        // The loop was busy for 150 ms: two pings are due at once, and count from when they were due.
        let late = START + MS * 150;
        let packets = sent(&mut pinger, late);
        assert_eq!(packets.len(), 2);
        let Arrival::Answer(first) = pinger.handle_packet(late, &answer(&packets[0], Kind::Reply))
        else {
            panic!("an answer");
        };
        assert_eq!(first.round_trip, MS * 150);
        assert_eq!(pinger.next_timeout(), Some(START + MS * 200));
    }

    #[test]
    fn what_is_not_answered_in_time_is_lost_and_told() {
        let mut pinger = pinger(1);
        let request = sent(&mut pinger, START).remove(0);
        assert_eq!(pinger.next_timeout(), Some(START + ANSWER_TIMEOUT));
        let mut lost = Vec::new();
        pinger.handle_timeout(START + ANSWER_TIMEOUT, |number| lost.push(number), |_| {});
        assert_eq!(lost, [1]);
        assert!(pinger.is_done());
        let reply = answer(&request, Kind::Reply);
        assert_eq!(
            pinger.handle_packet(START + ANSWER_TIMEOUT + MS, &reply),
            Arrival::Counted
        );
        assert_eq!((pinger.tally().lost(), pinger.tally().late), (1, 1));
    }

    #[test]
    fn duplicates_corruption_and_strangers_are_told_apart() {
        let mut pinger = pinger(1);
        let request = sent(&mut pinger, START).remove(0);
        let reply = answer(&request, Kind::Reply);
        let now = START + MS;
        assert!(matches!(
            pinger.handle_packet(now, &reply),
            Arrival::Answer(_)
        ));
        assert_eq!(pinger.handle_packet(now, &reply), Arrival::Counted);
        assert_eq!(pinger.tally().duplicates, 1);

        let echo = icmp::parse(&reply).unwrap();
        let mut data = echo.data.to_vec();
        data[40] ^= 1;
        let mut packet = Vec::new();
        Echo {
            data: &data,
            ..echo
        }
        .emit(&mut packet)
        .unwrap();
        assert_eq!(pinger.handle_packet(now, &packet), Arrival::Counted);
        assert_eq!(pinger.tally().corrupted, 1);

        Echo {
            identifier: echo.identifier ^ 1,
            ..echo
        }
        .emit(&mut packet)
        .unwrap();
        assert_eq!(pinger.handle_packet(now, &packet), Arrival::Foreign);
        assert_eq!(pinger.handle_packet(now, &[]), Arrival::Foreign);
        assert_eq!(pinger.tally().answered, 1);
    }
}
