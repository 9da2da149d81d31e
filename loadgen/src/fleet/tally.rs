//! What a shard's clients came to: counts, and distributions that are merged and never averaged.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use datapath::time::Duration;
use hdrhistogram::Histogram;

use super::census::Census;
use crate::explain::PHASES;

/// Times are kept to three digits, up to two minutes; what is longer counts as that.
pub(super) const NANOS_MAX: u64 = 120_000_000_000;

/// A distribution of times in nanoseconds. It takes memory from the first of them on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Times(Option<Box<Histogram<u32>>>);

static EMPTY: LazyLock<Histogram<u32>> = LazyLock::new(empty);

fn empty() -> Histogram<u32> {
    let histogram = Histogram::new_with_max(NANOS_MAX, 3);
    histogram.unwrap_or_else(|_| unreachable!("constant bounds that are in order"))
}

impl Times {
    pub(crate) fn record(&mut self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.begun().saturating_record(nanos);
    }

    fn begun(&mut self) -> &mut Histogram<u32> {
        self.0.get_or_insert_with(|| Box::new(empty()))
    }

    pub(crate) fn add(&mut self, other: &Self) {
        if let Some(other) = &other.0 {
            // Both have the same bounds, so it cannot fail.
            let _ = self.begun().add(other.as_ref());
        }
    }

    pub(crate) fn histogram(&self) -> &Histogram<u32> {
        self.0.as_deref().unwrap_or_else(|| &EMPTY)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(|histogram| histogram.is_empty())
    }

    /// The share of times longer than `limit`.
    pub(crate) fn share_over(&self, limit: Duration) -> f64 {
        let nanos = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
        let within = self.histogram().count_between(0, nanos) as f64;
        let all = self.histogram().len() as f64;
        if all > 0.0 { 1.0 - within / all } else { 0.0 }
    }
}

/// How often something happened, and its first words.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cases {
    pub(crate) count: u64,
    pub(crate) example: String,
}

/// What happened, by class and phase.
pub(crate) type Causes = BTreeMap<(&'static str, &'static str), Cases>;

fn add_causes(to: &mut Causes, from: &Causes) {
    for (key, cases) in from {
        let sum = to.entry(*key).or_default();
        sum.count += cases.count;
        if sum.example.is_empty() {
            sum.example.clone_from(&cases.example);
        }
    }
}

/// What is counted of packets.
#[derive(Clone, Debug, Default)]
pub(crate) struct Packets {
    pub(crate) sent: u64,
    pub(crate) sent_bytes: u64,
    /// Planned, but their session was gone.
    pub(crate) not_sent: u64,
    /// Different ones that arrived.
    pub(crate) received: u64,
    pub(crate) received_bytes: u64,
    pub(crate) duplicates: u64,
    /// Arrived after one with a higher number.
    pub(crate) reordered: u64,
    /// So late that it cannot be told whether they came before.
    pub(crate) too_old: u64,
    pub(crate) corrupted: u64,
    pub(crate) wrong_session: u64,
    /// Of other runs, or nothing of ours.
    pub(crate) foreign: u64,
    /// Sessions that sent, or were to receive.
    pub(crate) sessions: u64,
    /// The fewest and the most that one session received.
    pub(crate) received_min: Option<u64>,
    pub(crate) received_max: u64,
    /// Sums for Jain's index of fairness.
    pub(crate) received_squares: f64,
    pub(crate) latency: Times,
    pub(crate) lateness: Times,
    pub(crate) bulk: super::bulk::Counts,
    pub(crate) pings: super::pings::Counts,
}

impl Packets {
    /// Adds what one session received.
    pub(crate) fn add_session(&mut self, received: u64) {
        self.sessions += 1;
        self.received_min = Some(self.received_min.map_or(received, |min| min.min(received)));
        self.received_max = self.received_max.max(received);
        self.received_squares += (received as f64) * (received as f64);
    }

    fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.sent_bytes += other.sent_bytes;
        self.not_sent += other.not_sent;
        self.received += other.received;
        self.received_bytes += other.received_bytes;
        self.duplicates += other.duplicates;
        self.reordered += other.reordered;
        self.too_old += other.too_old;
        self.corrupted += other.corrupted;
        self.wrong_session += other.wrong_session;
        self.foreign += other.foreign;
        self.sessions += other.sessions;
        self.received_min = self
            .received_min
            .into_iter()
            .chain(other.received_min)
            .min();
        self.received_max = self.received_max.max(other.received_max);
        self.received_squares += other.received_squares;
        self.latency.add(&other.latency);
        self.lateness.add(&other.lateness);
        self.bulk.add(&other.bulk);
        self.pings.add(&other.pings);
    }
}

/// Everything one shard counted; the sum of all is what is reported.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) started: u64,
    pub(crate) up: u64,
    pub(crate) failures: Causes,
    pub(crate) disconnects: Causes,
    /// Ended by us, and the server agreed.
    pub(crate) polite_ends: u64,
    /// Ended while we were ending it, otherwise.
    pub(crate) other_ends: Causes,
    /// Still being set up when the run was interrupted.
    pub(crate) given_up: u64,
    /// By phase, as in [`PHASES`].
    pub(crate) phases: [Times; PHASES.len()],
    /// From the planned start to up.
    pub(crate) setup: Times,
    /// From the planned start to the start.
    pub(crate) lateness: Times,
    pub(crate) echo: Times,
    pub(crate) packets: Packets,
    /// Packets that found no room in the queue of their own session.
    pub(crate) own_queue_full: u64,
    /// Packets that our own role dropped for another reason.
    pub(crate) own_drops: u64,
    pub(crate) sends: u64,
    pub(crate) turns: u64,
    pub(crate) cpu_setup: Duration,
    pub(crate) cpu_steady: Duration,
    pub(crate) cpu_total: Duration,
    /// What the clients were and did besides.
    pub(crate) census: Census,
    /// TLS version, suite and group of the first session that came up.
    pub(crate) protection: Option<(String, String, String)>,
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Self) {
        self.started += other.started;
        self.up += other.up;
        add_causes(&mut self.failures, &other.failures);
        add_causes(&mut self.disconnects, &other.disconnects);
        self.polite_ends += other.polite_ends;
        add_causes(&mut self.other_ends, &other.other_ends);
        self.given_up += other.given_up;
        for (sum, times) in self.phases.iter_mut().zip(&other.phases) {
            sum.add(times);
        }
        self.setup.add(&other.setup);
        self.lateness.add(&other.lateness);
        self.echo.add(&other.echo);
        self.packets.add(&other.packets);
        self.own_queue_full += other.own_queue_full;
        self.own_drops += other.own_drops;
        self.sends += other.sends;
        self.turns += other.turns;
        self.cpu_setup += other.cpu_setup;
        self.cpu_steady += other.cpu_steady;
        self.cpu_total += other.cpu_total;
        self.census.add(&other.census);
        if self.protection.is_none() {
            self.protection.clone_from(&other.protection);
        }
    }
}

/// Counts one case.
pub(crate) fn count(causes: &mut Causes, class: &'static str, phase: &'static str, text: &str) {
    let cases = causes.entry((class, phase)).or_default();
    cases.count += 1;
    if cases.example.is_empty() {
        text.clone_into(&mut cases.example);
    }
}

/// How many cases there are.
pub(crate) fn total(causes: &Causes) -> u64 {
    causes.values().map(|cases| cases.count).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distributions_are_merged_and_not_averaged() {
        let (mut fast, mut slow) = (Times::default(), Times::default());
        for _ in 0..99 {
            fast.record(Duration::from_millis(1));
        }
        slow.record(Duration::from_secs(1));
        fast.add(&slow);
        let histogram = fast.histogram();
        assert_eq!(histogram.len(), 100);
        assert!(histogram.value_at_quantile(0.5) < 1_010_000);
        assert!(histogram.max() >= 999_000_000);
        assert!((fast.share_over(Duration::from_millis(500)) - 0.01).abs() < 1e-9);
    }

    #[test]
    fn causes_keep_their_first_words() {
        let mut causes = Causes::new();
        count(&mut causes, "peer-closed", "SSTP", "first");
        count(&mut causes, "peer-closed", "SSTP", "second");
        count(&mut causes, "peer-closed", "LCP", "third");
        assert_eq!(total(&causes), 3);
        assert_eq!(causes[&("peer-closed", "SSTP")].example, "first");
        let mut sum = Causes::new();
        add_causes(&mut sum, &causes);
        add_causes(&mut sum, &causes);
        assert_eq!(total(&sum), 6);
    }

    #[test]
    fn the_extremes_of_sessions_outlive_the_merge() {
        let mut sum = Packets::default();
        for counts in [[10, 20], [5, 30]] {
            let mut packets = Packets::default();
            for count in counts {
                packets.add_session(count);
            }
            sum.add(&packets);
        }
        assert_eq!(
            (sum.received_min, sum.received_max, sum.sessions),
            (Some(5), 30, 4)
        );
    }
}
