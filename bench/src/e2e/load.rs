//! Makes the load and counts what arrives: one thread, on a processor of its own, that never sleeps.
//!
//! It keeps a bounded number of packets under way (so nothing is dropped for want of room), or sends
//! at a given pace. What is counted arrived; what arrived was paid for: a measurement begins and ends
//! with nothing under way.

use std::io;
use std::net::Ipv4Addr;

use datapath::sys::clock;
use datapath::time::{Duration, Instant};

use super::client::Client;
use super::cpu::Meter;
use super::inside::{self, Inside};
use super::probe;
use crate::floor::rig::SERVER;
use crate::floor::traffic::{self, Direction, Kind};

/// What has not arrived in so long is lost.
const PATIENCE: Duration = Duration::from_millis(300);

/// What the gateway has the processor for, between two looks at what it has carried.
const LEAVE: Duration = Duration::from_micros(100);

/// Between two probes.
const PROBE_INTERVAL: Duration = Duration::from_micros(500);

/// One write to the TUN or packet to a client.
#[derive(Clone, Debug)]
struct Shot {
    bytes: Vec<u8>,
    packets: u64,
}

/// What is sent, to or by each client in turn.
#[derive(Clone, Debug)]
pub(super) struct Flow {
    direction: Direction,
    /// Of each client; sent round and round.
    streams: Vec<Vec<Shot>>,
    /// Packets under way, at most.
    window: u64,
    /// Packets of a burst, about.
    burst: u64,
    /// Shots sent to or by a client before the next has its turn.
    group: usize,
    pub(super) record_per_packet: bool,
}

impl Flow {
    /// Packets of `kind` and `len`, `count` of them before they repeat.
    pub(super) fn new(
        clients: &[Client],
        kind: Kind,
        direction: Direction,
        len: usize,
        count: usize,
    ) -> Self {
        let addresses = clients.iter().filter_map(Client::address);
        let stream = |address: Ipv4Addr| {
            let packets = traffic::packets_of(address, kind, direction, len, count);
            match (direction, kind) {
                (Direction::Uplink, _) => shots(packets, |_| 1),
                // Packets of many flows cannot be merged; those of one are.
                (Direction::Downlink, Kind::UdpFlows) => shots(traffic::plain(&packets), |_| 1),
                (Direction::Downlink, _) => shots(traffic::merged(&packets), count_of),
            }
        };
        Self {
            direction,
            streams: addresses.map(stream).collect(),
            window: 768,
            burst: 2_880,
            group: match direction {
                Direction::Uplink => 96,
                Direction::Downlink => 1,
            },
            record_per_packet: false,
        }
    }

    /// With another number of packets under way.
    pub(super) fn with_window(self, window: u64) -> Self {
        Self { window, ..self }
    }

    /// With bursts of so many packets.
    pub(super) fn with_burst(self, burst: u64) -> Self {
        Self { burst, ..self }
    }

    /// With a record a packet.
    pub(super) fn with_record_per_packet(self) -> Self {
        Self {
            record_per_packet: true,
            ..self
        }
    }

    /// With so many shots of a client before the next one's turn.
    pub(super) fn with_group(self, group: usize) -> Self {
        Self { group, ..self }
    }
}

fn shots(packets: Vec<Vec<u8>>, count: impl Fn(&[u8]) -> u64) -> Vec<Shot> {
    let shot = |bytes: Vec<u8>| Shot {
        packets: count(&bytes),
        bytes,
    };
    packets.into_iter().map(shot).collect()
}

fn count_of(write: &[u8]) -> u64 {
    write
        .split_first_chunk()
        .map_or(1, |(header, packet)| inside::carried(header, packet).0)
}

/// What was carried, and what it cost the gateway.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sample {
    /// Of the gateway, all threads, user and system.
    pub(super) cpu: Duration,
    pub(super) wall: Duration,
    pub(super) bytes: u64,
    pub(super) packets: u64,
    /// Sent and never seen again.
    pub(super) lost: u64,
}

impl Sample {
    pub(super) fn cpu_ms_per_gb(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e12 / self.bytes as f64
    }

    pub(super) fn cpu_ns_per_packet(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e9 / self.packets as f64
    }

    pub(super) fn gbit_per_s(&self) -> f64 {
        self.bytes as f64 * 8.0 / self.wall.as_secs_f64() / 1e9
    }

    pub(super) fn packets_per_s(&self) -> f64 {
        self.packets as f64 / self.wall.as_secs_f64()
    }

    /// Share of one processor that the gateway used.
    pub(super) fn busy(&self) -> f64 {
        self.cpu.as_secs_f64() / self.wall.as_secs_f64()
    }

    /// Share of the packets.
    pub(super) fn loss(&self) -> f64 {
        self.lost as f64 / (self.lost + self.packets).max(1) as f64
    }
}

/// How fast to send.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pace {
    /// As the window allows: the gateway works while it comes.
    Full,
    /// A burst at a time, and the next when the gateway has carried that: as the floor is measured. The
    /// calling thread must have the gateway's processor and come before it ([`super::place`]).
    Bursts,
    /// So many packets a second.
    Packets(f64),
}

/// The clients, and the thread's own things.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) clients: Vec<Client>,
    pub(super) meter: Meter,
    buffer: Vec<u8>,
}

impl Field {
    pub(super) fn new(clients: Vec<Client>, meter: Meter) -> Self {
        Self {
            clients,
            meter,
            buffer: vec![0; 256 << 10],
        }
    }

    /// Lets every client do what is due.
    pub(super) fn step(&mut self) -> io::Result<()> {
        for client in &mut self.clients {
            client.step(&mut self.buffer)?;
            if let Some(why) = client.ended() {
                return Err(io::Error::other(format!(
                    "the gateway ended a session: {why}"
                )));
            }
        }
        Ok(())
    }

    fn arrived(&mut self, flow: &Flow, inside: &mut Inside) -> io::Result<(u64, u64)> {
        self.step()?;
        inside.drain()?;
        Ok(match flow.direction {
            Direction::Uplink => (inside.packets, inside.bytes),
            Direction::Downlink => self.clients.iter_mut().fold((0, 0), |sum, client| {
                let inbox = client.inbox();
                (sum.0 + inbox.packets, sum.1 + inbox.bytes)
            }),
        })
    }

    /// Sends `flow` for `slice`, and waits for what is under way. With `probes`, also sends some.
    pub(super) fn run(
        &mut self,
        flow: &Flow,
        inside: &mut Inside,
        slice: Duration,
        pace: Pace,
        probes: bool,
    ) -> io::Result<Sample> {
        for client in &mut self.clients {
            client.record_per_packet = flow.record_per_packet;
        }
        let begin = self.arrived(flow, inside)?;
        let cpu = self.meter.read()?;
        let start = clock::now();
        let mut sender = Sender::new(flow, start, pace);
        let mut probe_at = start;
        loop {
            let now = clock::now();
            let sends = now.saturating_since(start) < slice;
            if sends {
                if let Pace::Bursts = pace {
                    self.burst(&mut sender, inside)?;
                } else {
                    sender.send(now, &mut self.clients, inside)?;
                }
            }
            if probes && sends && now >= probe_at {
                probe_at = now + PROBE_INTERVAL;
                send_probe(flow.direction, &mut self.clients, inside, now)?;
            }
            let (packets, _) = self.arrived(flow, inside)?;
            sender.arrived(now, packets - begin.0);
            if !sends && sender.outstanding() == 0 {
                break;
            }
        }
        let wall = clock::now().saturating_since(start);
        let end = self.arrived(flow, inside)?;
        Ok(Sample {
            cpu: self.meter.read()?.saturating_sub(cpu),
            wall,
            bytes: end.1 - begin.1,
            packets: end.0 - begin.0,
            lost: sender.lost,
        })
    }
}

impl Field {
    /// Sends a burst if nothing is under way, else leaves the processor to the gateway for a while.
    fn burst(&mut self, sender: &mut Sender<'_>, inside: &Inside) -> io::Result<()> {
        if sender.outstanding() > 0 {
            std::thread::sleep(LEAVE);
            return Ok(());
        }
        let before = sender.sent;
        while sender.outstanding() < sender.flow.burst
            && sender.send_group(clock::now(), &mut self.clients, inside)?
        {}
        if sender.sent == before {
            // What was given up still fills the client's socket: the gateway must run to take it.
            std::thread::sleep(LEAVE);
        }
        sender.progress_at = clock::now();
        Ok(())
    }
}

fn send_probe(
    direction: Direction,
    clients: &mut [Client],
    inside: &Inside,
    now: Instant,
) -> io::Result<()> {
    let Some(client) = clients.first_mut() else {
        return Ok(());
    };
    let Some(address) = client.address() else {
        return Ok(());
    };
    match direction {
        Direction::Uplink => {
            client.send(now, &probe::packet(address, SERVER));
            client.flush(now)
        }
        Direction::Downlink => {
            let packet = probe::packet(SERVER, address);
            inside.write(&[&[0; 10], packet.as_slice()].concat())
        }
    }
}

/// Whose turn it is, and how much is under way.
struct Sender<'a> {
    flow: &'a Flow,
    pace: Pace,
    start: Instant,
    /// Next shot of each client.
    positions: Vec<usize>,
    turn: usize,
    sent: u64,
    arrived: u64,
    lost: u64,
    progress_at: Instant,
}

impl<'a> Sender<'a> {
    fn new(flow: &'a Flow, start: Instant, pace: Pace) -> Self {
        Self {
            flow,
            pace,
            start,
            positions: vec![0; flow.streams.len()],
            turn: 0,
            sent: 0,
            arrived: 0,
            lost: 0,
            progress_at: start,
        }
    }

    fn outstanding(&self) -> u64 {
        (self.sent - self.lost).saturating_sub(self.arrived)
    }

    fn arrived(&mut self, now: Instant, packets: u64) {
        if packets > self.arrived {
            self.arrived = packets;
            self.progress_at = now;
            // What was given up may come after all.
            self.lost = self.lost.min(self.sent.saturating_sub(packets));
        } else if self.outstanding() > 0 && now.saturating_since(self.progress_at) > PATIENCE {
            self.lost = self.sent.saturating_sub(self.arrived);
            self.progress_at = now;
        }
    }

    /// Whether `packets` more may be sent now.
    fn may_send(&self, now: Instant, packets: u64) -> bool {
        let is_due = match self.pace {
            Pace::Full => true,
            // One at a time, of whatever size.
            Pace::Bursts => return true,
            Pace::Packets(rate) => {
                let due = now.saturating_since(self.start).as_secs_f64() * rate;
                (self.sent + packets) as f64 <= due
            }
        };
        is_due && self.outstanding() + packets <= self.flow.window
    }

    fn send(&mut self, now: Instant, clients: &mut [Client], inside: &Inside) -> io::Result<()> {
        // Bounded, so that arrivals are looked after too.
        for _ in 0..self.positions.len().clamp(4, 64) {
            if self.outstanding() == 0 {
                // Idle time is no lack of progress.
                self.progress_at = now;
            }
            if !self.send_group(now, clients, inside)? {
                break;
            }
        }
        Ok(())
    }

    fn send_group(
        &mut self,
        now: Instant,
        clients: &mut [Client],
        inside: &Inside,
    ) -> io::Result<bool> {
        let turn = self.turn;
        let Some(stream) = self.flow.streams.get(turn) else {
            return Ok(false);
        };
        let (Some(client), Some(position)) = (clients.get_mut(turn), self.positions.get_mut(turn))
        else {
            return Ok(false);
        };
        let from = *position;
        let shots = stream.iter().cycle().skip(from).take(self.flow.group);
        let packets = shots.clone().map(|shot| shot.packets).sum();
        *position = (from + self.flow.group) % stream.len().max(1);
        if !self.may_send(now, packets)
            || (self.flow.direction == Direction::Uplink && !client.is_idle())
        {
            if let Some(position) = self.positions.get_mut(turn) {
                *position = from;
            }
            return Ok(false);
        }
        for shot in shots {
            match self.flow.direction {
                Direction::Uplink => client.send(now, &shot.bytes),
                Direction::Downlink => inside.write(&shot.bytes)?,
            }
        }
        if self.flow.direction == Direction::Uplink {
            client.flush(now)?;
        }
        self.sent += packets;
        self.turn = (turn + 1) % self.positions.len().max(1);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_told_per_byte_and_per_packet() {
        // 1,000 packets of 1,000 bytes in 200 µs of CPU and 400 µs: 200 ms/GB, 20 Gbit/s.
        let sample = Sample {
            cpu: Duration::from_micros(200),
            wall: Duration::from_micros(400),
            bytes: 1_000_000,
            packets: 1_000,
            lost: 1_000,
        };
        let near = |value: f64, expected: f64| (value / expected - 1.0).abs() < 1e-9;
        assert!(near(sample.cpu_ms_per_gb(), 200.0));
        assert!(near(sample.cpu_ns_per_packet(), 200.0));
        assert!(near(sample.gbit_per_s(), 20.0));
        assert!(near(sample.packets_per_s(), 2_500_000.0));
        assert!(near(sample.busy(), 0.5));
        assert!(near(sample.loss(), 0.5));
    }

    fn flow(window: u64) -> Flow {
        Flow {
            direction: Direction::Downlink,
            streams: vec![Vec::new()],
            window,
            burst: 1,
            group: 1,
            record_per_packet: false,
        }
    }

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn no_more_is_under_way_than_the_window_and_the_pace_allow() {
        let flow = flow(100);
        let mut sender = Sender::new(&flow, at(0), Pace::Full);
        assert!(sender.may_send(at(0), 100));
        assert!(!sender.may_send(at(0), 101));
        sender.sent = 60;
        assert!(!sender.may_send(at(0), 48));
        sender.arrived(at(1), 40);
        assert!(sender.may_send(at(1), 48));
        let paced = Sender::new(&flow, at(0), Pace::Packets(1_000.0));
        assert!(!paced.may_send(at(9), 10));
        assert!(paced.may_send(at(10), 10));
    }

    #[test]
    fn what_does_not_come_is_given_up_and_taken_back_if_it_comes() {
        let flow = flow(100);
        let mut sender = Sender::new(&flow, at(0), Pace::Full);
        sender.sent = 50;
        sender.arrived(at(1), 20);
        sender.arrived(at(250), 20);
        assert_eq!((sender.outstanding(), sender.lost), (30, 0));
        sender.arrived(at(350), 20);
        assert_eq!((sender.outstanding(), sender.lost), (0, 30));
        sender.arrived(at(360), 45);
        assert_eq!((sender.outstanding(), sender.lost), (0, 5));
    }
}
