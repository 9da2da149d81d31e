//! What one shard did in one second: the difference to the second before, and its distributions.
//!
//! A shard hands over a [`Sample`] a second and begins the next with empty distributions, so a packet
//! is recorded once, as it would be without them. [`timeline`](super::timeline) merges the shards.

use std::sync::{Mutex, PoisonError};

use datapath::sys::clock;
use datapath::time::{Duration, Instant};

use super::tally::{Packets, Tally, Times};
use crate::explain::PHASES;

/// How long one sample is.
pub(super) const INTERVAL: Duration = Duration::from_secs(1);

/// What is counted; in a [`Sample`] it is what came to it in that second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) started: u64,
    pub(super) came_up: u64,
    pub(super) failed: u64,
    pub(super) disconnects: u64,
    pub(super) ended: u64,
    pub(super) sent: u64,
    pub(super) sent_bytes: u64,
    pub(super) received: u64,
    pub(super) received_bytes: u64,
    pub(super) cpu: Duration,
}

impl Counts {
    fn map(self, other: Self, count: impl Fn(u64, u64) -> u64, cpu: Duration) -> Self {
        Self {
            started: count(self.started, other.started),
            came_up: count(self.came_up, other.came_up),
            failed: count(self.failed, other.failed),
            disconnects: count(self.disconnects, other.disconnects),
            ended: count(self.ended, other.ended),
            sent: count(self.sent, other.sent),
            sent_bytes: count(self.sent_bytes, other.sent_bytes),
            received: count(self.received, other.received),
            received_bytes: count(self.received_bytes, other.received_bytes),
            cpu,
        }
    }

    pub(super) fn plus(self, other: Self) -> Self {
        self.map(other, u64::saturating_add, self.cpu + other.cpu)
    }

    fn minus(self, other: Self) -> Self {
        let cpu = self.cpu.saturating_sub(other.cpu);
        self.map(other, u64::saturating_sub, cpu)
    }
}

/// How many distributions a second has.
const METRICS: usize = 5 + PHASES.len();

/// One of them, by its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Metric {
    Setup,
    Echo,
    Latency,
    StartLateness,
    SendLateness,
    /// Of the set-up, by its place in [`PHASES`].
    Phase(usize),
}

impl Metric {
    /// All of them, in order.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        let first = [
            Self::Setup,
            Self::Echo,
            Self::Latency,
            Self::StartLateness,
            Self::SendLateness,
        ];
        first.into_iter().chain((0..PHASES.len()).map(Self::Phase))
    }

    const fn place(self) -> usize {
        match self {
            Self::Setup => 0,
            Self::Echo => 1,
            Self::Latency => 2,
            Self::StartLateness => 3,
            Self::SendLateness => 4,
            Self::Phase(phase) => 5 + phase,
        }
    }

    /// What it is called in files.
    pub(super) fn name(self) -> String {
        match self {
            Self::Setup => "setup".to_owned(),
            Self::Echo => "lcp_echo".to_owned(),
            Self::Latency => "latency".to_owned(),
            Self::StartLateness => "start_lateness".to_owned(),
            Self::SendLateness => "send_lateness".to_owned(),
            Self::Phase(phase) => {
                let name = PHASES.get(phase).map_or("", |(_, name)| name);
                format!("phase_{}", name.to_lowercase())
            }
        }
    }
}

/// The distributions of a second; what nothing was recorded in takes no memory.
#[derive(Clone, Debug, Default)]
pub(super) struct Distributions([Times; METRICS]);

impl Distributions {
    pub(super) fn of(&self, metric: Metric) -> Option<&Times> {
        let times = self.0.get(metric.place());
        times.filter(|times| !times.is_empty())
    }

    /// Takes what a shard recorded since the last time, and leaves it empty.
    fn take(tally: &mut Tally, packets: Option<&mut Packets>) -> Self {
        let mut taken = Self::default();
        let mut take = |metric: Metric, times: &mut Times| {
            if let Some(place) = taken.0.get_mut(metric.place()) {
                *place = std::mem::take(times);
            }
        };
        take(Metric::Setup, &mut tally.setup);
        take(Metric::Echo, &mut tally.echo);
        take(Metric::StartLateness, &mut tally.lateness);
        for (phase, times) in tally.phases.iter_mut().enumerate() {
            take(Metric::Phase(phase), times);
        }
        if let Some(packets) = packets {
            take(Metric::Latency, &mut packets.latency);
            take(Metric::SendLateness, &mut packets.lateness);
        }
        taken
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (sum, times) in self.0.iter_mut().zip(&other.0) {
            sum.add(times);
        }
    }

    /// The same of one that is not needed any more: where there was nothing it is not copied.
    pub(super) fn merge(&mut self, other: Self) {
        for (sum, times) in self.0.iter_mut().zip(other.0) {
            if sum.is_empty() {
                *sum = times;
            } else {
                sum.add(&times);
            }
        }
    }

    /// Gives back to the tally what was taken from it.
    pub(super) fn add_to(&self, tally: &mut Tally) {
        for metric in Metric::all() {
            let Some(times) = self.of(metric) else {
                continue;
            };
            match metric {
                Metric::Setup => tally.setup.add(times),
                Metric::Echo => tally.echo.add(times),
                Metric::Latency => tally.packets.latency.add(times),
                Metric::StartLateness => tally.lateness.add(times),
                Metric::SendLateness => tally.packets.lateness.add(times),
                Metric::Phase(phase) => {
                    if let Some(sum) = tally.phases.get_mut(phase) {
                        sum.add(times);
                    }
                }
            }
        }
    }

    /// With one distribution, for tests.
    #[cfg(test)]
    pub(super) fn with(metric: Metric, times: Times) -> Self {
        let mut one = Self::default();
        one.0[metric.place()] = times;
        one
    }
}

/// One second of one shard.
#[derive(Debug)]
pub(super) struct Sample {
    /// Which second of the run, from 0.
    pub(super) second: u32,
    /// Sessions up at its end.
    pub(super) up: u64,
    pub(super) counts: Counts,
    pub(super) distributions: Distributions,
}

/// Samples on their way from a shard to the conductor, which takes them a hundred times a second.
#[derive(Debug, Default)]
pub(super) struct Samples(Mutex<Vec<Sample>>);

impl Samples {
    fn push(&self, sample: Sample) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(sample);
    }

    pub(super) fn take(&self) -> Vec<Sample> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A shard's side: knows when a second is over, and what was handed over before.
#[derive(Debug)]
pub(super) struct Sampler {
    start: Instant,
    /// When the present second is over.
    pub(super) next_at: Instant,
    last: Counts,
}

impl Sampler {
    /// The seconds of a run that begins at `start`.
    pub(super) fn new(start: Instant) -> Self {
        Self {
            start,
            next_at: start + INTERVAL,
            last: Counts::default(),
        }
    }

    /// Hands over a sample if a second is over; one that comes late holds all since the last.
    pub(super) fn poll(
        &mut self,
        now: Instant,
        up: u64,
        tally: &mut Tally,
        packets: Option<&mut Packets>,
        to: &Samples,
    ) {
        if now >= self.next_at {
            self.take(up, tally, packets, to);
            let over = now.saturating_since(self.start).as_secs();
            self.next_at = self.start + Duration::from_secs(over.saturating_add(1));
        }
    }

    /// Hands over what is there of the present second.
    pub(super) fn take(
        &mut self,
        up: u64,
        tally: &mut Tally,
        packets: Option<&mut Packets>,
        to: &Samples,
    ) {
        let so_far = counts(tally, packets.as_deref());
        let before = self.next_at.saturating_since(self.start + INTERVAL);
        to.push(Sample {
            second: u32::try_from(before.as_secs()).unwrap_or(u32::MAX),
            up,
            counts: so_far.minus(self.last),
            distributions: Distributions::take(tally, packets),
        });
        self.last = so_far;
    }
}

fn counts(tally: &Tally, packets: Option<&Packets>) -> Counts {
    let counts = Counts {
        started: tally.started,
        came_up: tally.up,
        failed: super::tally::total(&tally.failures),
        disconnects: super::tally::total(&tally.disconnects),
        ended: tally.polite_ends + super::tally::total(&tally.other_ends),
        cpu: clock::thread_cpu_time(),
        ..Counts::default()
    };
    packets.map_or(counts, |packets| Counts {
        sent: packets.sent,
        sent_bytes: packets.sent_bytes,
        received: packets.received,
        received_bytes: packets.received_bytes,
        ..counts
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Instant = Instant::from_nanos(5_000_000_000);

    fn at(millis: u64) -> Instant {
        START + Duration::from_millis(millis)
    }

    #[test]
    fn a_second_holds_what_came_to_it() {
        let (samples, mut sampler) = (Samples::default(), Sampler::new(START));
        let mut tally = Tally::default();
        let mut packets = Packets::default();
        for (millis, sent) in [(400, 3), (999, 5), (1_001, 9), (2_000, 9), (4_500, 12)] {
            packets.sent = sent;
            packets.latency.record(Duration::from_millis(sent));
            sampler.poll(at(millis), sent, &mut tally, Some(&mut packets), &samples);
        }
        tally.up = 1;
        sampler.take(1, &mut tally, Some(&mut packets), &samples);
        let samples = samples.take();
        let told = samples.iter().map(|sample| {
            let latency = sample.distributions.of(Metric::Latency);
            let recorded = latency.map_or(0, |latency| latency.histogram().len());
            (sample.second, sample.counts.sent, sample.up, recorded)
        });
        assert_eq!(
            told.collect::<Vec<_>>(),
            [(0, 9, 9, 3), (1, 0, 9, 1), (2, 3, 12, 1), (4, 0, 1, 0)]
        );
        assert_eq!(samples[3].counts.came_up, 1);
        assert!(packets.latency.is_empty(), "it was handed over");
    }

    #[test]
    fn what_was_taken_is_given_back() {
        let mut tally = Tally::default();
        tally.setup.record(Duration::from_millis(1));
        tally.packets.latency.record(Duration::from_millis(2));
        let mut packets = std::mem::take(&mut tally.packets);
        let mut sum = Distributions::take(&mut tally, Some(&mut packets));
        sum.add(&sum.clone());
        assert!(tally.setup.is_empty() && packets.latency.is_empty());
        sum.add_to(&mut tally);
        assert_eq!(tally.setup.histogram().len(), 2);
        assert_eq!(tally.packets.latency.histogram().len(), 2);
    }
}
