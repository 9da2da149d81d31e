//! ICMP Echo inside the tunnels at planned times: the round trip, beside whatever else is sent.
//!
//! Open loop, as all is: a ping goes out when it is planned, whether the last one was answered or not,
//! and its time counts from there. The sessions take turns, so that pings are spread evenly.

use std::net::IpAddr;

use datapath::time::{Duration, Instant};

use super::pace::Pace;
use super::tally::Times;
use super::window::{Arrival, Window};
use crate::icmp::{Echo, Kind, parse};

/// Pings sent in one turn, at most.
const BURST_MAX: u64 = 1024;

/// Bytes of data: run, session, sequence, planned time.
const DATA_LEN: usize = 24;

/// What became of the pings.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) duplicates: u64,
    pub(crate) wrong_session: u64,
    /// From the planned time to the answer.
    pub(crate) round_trip: Times,
    /// From the planned time to the sending.
    pub(crate) lateness: Times,
}

impl Counts {
    pub(crate) fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.received += other.received;
        self.duplicates += other.duplicates;
        self.wrong_session += other.wrong_session;
        self.round_trip.add(&other.round_trip);
        self.lateness.add(&other.lateness);
    }
}

/// Who pings whom.
#[derive(Clone, Debug)]
struct Pinger {
    member: u32,
    session: u32,
    own: IpAddr,
    to: IpAddr,
    next: u64,
    arrived: Window,
}

/// The pings of one shard.
#[derive(Debug)]
pub(super) struct Pings {
    run: u32,
    start: Instant,
    interval: Duration,
    duration: Duration,
    pinger: Vec<Pinger>,
    /// By member: which pinger.
    by_member: Vec<Option<usize>>,
    pace: Pace,
    next: u64,
    count: u64,
    packet: Vec<u8>,
}

impl Pings {
    pub(super) fn new(run: u32, start: Instant, interval: Duration, duration: Duration) -> Self {
        Self {
            run,
            start,
            interval,
            duration,
            pinger: Vec::new(),
            by_member: Vec::new(),
            pace: Pace::new(start, 1.0),
            next: 0,
            count: 0,
            packet: Vec::new(),
        }
    }

    /// A session that shall ping.
    pub(super) fn add(&mut self, member: u32, session: u32, own: IpAddr, to: IpAddr) {
        let index = member as usize;
        if index >= self.by_member.len() {
            self.by_member.resize(index + 1, None);
        }
        if let Some(slot) = self.by_member.get_mut(index) {
            *slot = Some(self.pinger.len());
        }
        self.pinger.push(Pinger {
            member,
            session,
            own,
            to,
            next: 0,
            arrived: Window::default(),
        });
        let rate = self.pinger.len() as f64 / self.interval.as_secs_f64();
        self.pace = Pace::new(self.start, rate);
        self.count = self.pace.count_before(self.start + self.duration);
    }

    /// Pings that are planned and were not sent yet.
    pub(super) const fn unsent(&self) -> u64 {
        self.count.saturating_sub(self.next)
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        (self.unsent() > 0).then(|| self.pace.at(self.next))
    }

    /// Sends what is due.
    pub(super) fn handle_timeout(
        &mut self,
        now: Instant,
        counts: &mut Counts,
        mut send: impl FnMut(u32, &[u8]) -> bool,
    ) {
        let burst_end = self.count.min(self.next.saturating_add(BURST_MAX));
        while self.next < burst_end {
            let planned = self.pace.at(self.next);
            if planned > now {
                break;
            }
            let turn = self.next.checked_rem(self.pinger.len() as u64);
            self.next += 1;
            let turn = turn.and_then(|turn| usize::try_from(turn).ok());
            let Some(pinger) = turn.and_then(|turn| self.pinger.get_mut(turn)) else {
                continue;
            };
            let mut data = [0; DATA_LEN];
            data[..4].copy_from_slice(&self.run.to_be_bytes());
            data[4..8].copy_from_slice(&pinger.session.to_be_bytes());
            data[8..16].copy_from_slice(&pinger.next.to_be_bytes());
            data[16..].copy_from_slice(&planned.as_nanos().to_be_bytes());
            let [.., high, low] = pinger.next.to_be_bytes();
            let [.., id_high, id_low] = self.run.to_be_bytes();
            let echo = Echo {
                kind: Kind::Request,
                source: pinger.own,
                destination: pinger.to,
                identifier: u16::from_be_bytes([id_high, id_low]),
                sequence: u16::from_be_bytes([high, low]),
                data: &data,
            };
            if echo.emit(&mut self.packet).is_some() && send(pinger.member, &self.packet) {
                pinger.next += 1;
                counts.sent += 1;
                counts.lateness.record(now.saturating_since(planned));
            }
        }
    }

    /// An ICMP packet came out of the tunnel of `member`; `false` if it is none of ours.
    pub(super) fn handle_packet(
        &mut self,
        now: Instant,
        member: u32,
        packet: &[u8],
        counts: &mut Counts,
    ) -> bool {
        let Some(echo) = parse(packet).filter(|echo| echo.kind == Kind::Reply) else {
            return false;
        };
        let Some((session, sequence, planned)) = self.read(echo.data) else {
            return false;
        };
        let pinger = self.by_member.get(member as usize).copied().flatten();
        let pinger = pinger.and_then(|index| self.pinger.get_mut(index));
        let Some(pinger) = pinger.filter(|pinger| pinger.session == session) else {
            counts.wrong_session += 1;
            return true;
        };
        match pinger.arrived.arrive(sequence) {
            Arrival::InOrder | Arrival::Late => {
                counts.received += 1;
                counts.round_trip.record(now.saturating_since(planned));
            }
            Arrival::Duplicate | Arrival::TooOld => counts.duplicates += 1,
        }
        true
    }

    /// Session, sequence and planned time of data that is of this run.
    fn read(&self, data: &[u8]) -> Option<(u32, u64, Instant)> {
        let (run, rest) = data.split_first_chunk()?;
        let (session, rest) = rest.split_first_chunk()?;
        let (sequence, rest) = rest.split_first_chunk()?;
        let planned = rest.try_into().ok()?;
        (u32::from_be_bytes(*run) == self.run).then_some((
            u32::from_be_bytes(*session),
            u64::from_be_bytes(*sequence),
            Instant::from_nanos(u64::from_be_bytes(planned)),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Instant = Instant::from_nanos(5_000_000_000);
    const MS: Duration = Duration::from_millis(1);

    fn reply(request: &[u8]) -> Vec<u8> {
        let echo = parse(request).unwrap();
        let mut packet = Vec::new();
        Echo {
            kind: Kind::Reply,
            source: echo.destination,
            destination: echo.source,
            ..echo
        }
        .emit(&mut packet)
        .unwrap();
        packet
    }

    #[test]
    fn pings_take_turns_and_count_from_their_planned_time() {
        let mut pings = Pings::new(7, START, MS * 10, MS * 20);
        let to = IpAddr::from([10, 0, 0, 1]);
        for member in 0..2 {
            let own = IpAddr::from([10, 0, 0, 2 + u8::try_from(member).unwrap()]);
            pings.add(member, member * 2, own, to);
        }
        let mut counts = Counts::default();
        let mut sent = Vec::new();
        let mut send = |member, packet: &[u8]| {
            sent.push((member, packet.to_vec()));
            true
        };
        assert_eq!(pings.next_timeout(), Some(START));
        pings.handle_timeout(START, &mut counts, &mut send);
        assert_eq!(pings.next_timeout(), Some(START + MS * 5));
        pings.handle_timeout(START + MS * 1000, &mut counts, &mut send);
        assert_eq!((counts.sent, pings.next_timeout()), (4, None));
        let members: Vec<u32> = sent.iter().map(|(member, _)| *member).collect();
        assert_eq!(members, [0, 1, 0, 1]);

        let now = START + MS * 1000;
        let (member, request) = &sent[1];
        assert!(!pings.handle_packet(now, *member, request, &mut counts));
        assert!(pings.handle_packet(now, *member, &reply(request), &mut counts));
        assert!(pings.handle_packet(now, *member, &reply(request), &mut counts));
        assert!(pings.handle_packet(now, 0, &reply(request), &mut counts));
        assert_eq!(
            (counts.received, counts.duplicates, counts.wrong_session),
            (1, 1, 1)
        );
        assert!(counts.round_trip.histogram().max() >= 994_000_000);
        let mut other = Pings::new(8, START, MS, MS);
        assert!(!other.handle_packet(now, 0, &reply(request), &mut counts));
    }
}
