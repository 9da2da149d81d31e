//! A run second by second: what the shards hand over, merged, and kept in bounded memory.
//!
//! A second is closed when every shard has told of it; what it held is then a [`Point`]. From
//! [`POINTS_MAX`] on two neighbours become one, so a run of hours has points of 2, 4, 8 seconds.
//! Distributions are merged as such, and never their quantiles: a point keeps them to two digits, in
//! the form HdrHistogram writes to disk, which takes a few hundred bytes.

use std::collections::BTreeMap;

use datapath::time::Duration;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer as _, V2Serializer};
use serde::Serialize;

use super::sample::{Counts, Distributions, Metric, Sample};
use super::tally::{NANOS_MAX, Tally, Times};

/// Points that are kept: an hour of seconds.
const POINTS_MAX: usize = 3_600;

/// The distribution of a point: its quantiles, and what they are taken from, for merging.
#[derive(Clone, Debug)]
struct Brief {
    quantiles: Quantiles,
    cells: Vec<u8>,
}

/// What is told of a distribution in one point, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Quantiles {
    pub(super) count: u64,
    pub(super) p50: u64,
    pub(super) p90: u64,
    pub(super) p99: u64,
    pub(super) max: u64,
}

impl Quantiles {
    /// Those of a second.
    pub(super) fn of_times(times: &Times) -> Self {
        Self::of(times.histogram(), times.histogram().max())
    }

    fn of(histogram: &Histogram<u32>, max: u64) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile).min(max);
        Self {
            count: histogram.len(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            max,
        }
    }
}

/// An empty histogram of the precision that points keep.
fn coarse() -> Histogram<u32> {
    let histogram = Histogram::new_with_max(NANOS_MAX, 2);
    histogram.unwrap_or_else(|_| unreachable!("constant bounds that are in order"))
}

impl Brief {
    fn new(times: &Times) -> Self {
        let mut coarse = coarse();
        // The bounds are the same, so no value is out of them.
        let _ = coarse.add(times.histogram());
        Self {
            quantiles: Quantiles::of_times(times),
            cells: cells(&coarse),
        }
    }

    fn merge(&mut self, other: &Self) {
        let mut sum = coarse();
        for brief in [&*self, other] {
            // What was written by `cells` can be read.
            if let Ok(one) = Deserializer::new().deserialize::<u32, _>(&mut brief.cells.as_slice())
            {
                let _ = sum.add(one);
            }
        }
        let max = self.quantiles.max.max(other.quantiles.max);
        self.quantiles = Quantiles::of(&sum, max);
        self.cells = cells(&sum);
    }
}

fn cells(histogram: &Histogram<u32>) -> Vec<u8> {
    let mut cells = Vec::new();
    // Writing to memory cannot fail, and every count fits.
    let _ = V2Serializer::new().serialize(histogram, &mut cells);
    cells.shrink_to_fit();
    cells
}

/// The distributions that a point has, in the order of [`Point::briefs`].
const KEPT: [Metric; 5] = [
    Metric::Setup,
    Metric::Echo,
    Metric::Latency,
    Metric::StartLateness,
    Metric::SendLateness,
];

/// A second, or as many as a point is wide.
#[derive(Clone, Debug)]
struct Point {
    second: u32,
    up: u64,
    counts: Counts,
    briefs: [Option<Box<Brief>>; KEPT.len()],
}

impl Point {
    /// The neighbour that follows becomes part of it.
    fn merge(&mut self, next: Self) {
        self.up = next.up;
        self.counts = self.counts.plus(next.counts);
        for (brief, next) in self.briefs.iter_mut().zip(next.briefs) {
            match (brief, next) {
                (Some(brief), Some(next)) => brief.merge(&next),
                (brief @ None, next) => *brief = next,
                (Some(_), None) => {}
            }
        }
    }
}

/// A second that not all shards have told of.
#[derive(Debug, Default)]
struct Open {
    /// By shard.
    up: Vec<Option<u64>>,
    counts: Counts,
    distributions: Distributions,
}

/// A second that is over, as it is told to those who watch.
#[derive(Clone, Debug, Default)]
pub(super) struct Second {
    pub(super) second: u32,
    pub(super) up: u64,
    pub(super) counts: Counts,
    pub(super) distributions: Distributions,
}

/// The seconds of a run so far.
#[derive(Debug)]
pub(super) struct Timeline {
    open: BTreeMap<u32, Open>,
    /// By shard: the last second it told of, and the sessions that were up then.
    told: Vec<Option<u32>>,
    up: Vec<u64>,
    /// Seconds of a point.
    width: u32,
    points: Vec<Point>,
    totals: Distributions,
}

impl Timeline {
    pub(super) fn new(shards: usize) -> Self {
        Self {
            open: BTreeMap::new(),
            told: vec![None; shards],
            up: vec![0; shards],
            width: 1,
            points: Vec::new(),
            totals: Distributions::default(),
        }
    }

    /// Takes what a shard handed over.
    pub(super) fn add(&mut self, shard: usize, sample: Sample) {
        let shards = self.told.len();
        if let Some(told) = self.told.get_mut(shard) {
            *told = Some(sample.second);
        }
        let open = self.open.entry(sample.second).or_default();
        open.up.resize(shards, None);
        if let Some(up) = open.up.get_mut(shard) {
            *up = Some(sample.up);
        }
        open.counts = open.counts.plus(sample.counts);
        open.distributions.merge(sample.distributions);
    }

    /// The next second that every shard has told of, or at the end of the run any.
    pub(super) fn close(&mut self, is_over: bool) -> Option<Second> {
        let (&second, _) = self.open.first_key_value()?;
        let is_told = |told: &Option<u32>| told.is_some_and(|told| told >= second);
        if !is_over && !self.told.iter().all(is_told) {
            return None;
        }
        let open = self.open.remove(&second)?;
        for (last, up) in self.up.iter_mut().zip(&open.up) {
            *last = up.unwrap_or(*last);
        }
        let second = Second {
            second,
            up: self.up.iter().sum(),
            counts: open.counts,
            distributions: open.distributions,
        };
        self.keep(&second);
        self.totals.add(&second.distributions);
        Some(second)
    }

    fn keep(&mut self, second: &Second) {
        let brief = |metric| Some(Box::new(Brief::new(second.distributions.of(metric)?)));
        self.push(Point {
            second: second.second,
            up: second.up,
            counts: second.counts,
            briefs: KEPT.map(brief),
        });
        if self.points.len() > POINTS_MAX {
            self.width *= 2;
            for point in std::mem::take(&mut self.points) {
                self.push(point);
            }
        }
    }

    fn push(&mut self, mut point: Point) {
        point.second -= point.second % self.width;
        match self.points.last_mut() {
            Some(last) if last.second == point.second => last.merge(point),
            _ => self.points.push(point),
        }
    }

    /// The distributions of the run so far.
    pub(super) const fn so_far(&self) -> &Distributions {
        &self.totals
    }

    /// Gives the distributions of all seconds to the tally, which had them in parts.
    pub(super) fn add_to(&self, tally: &mut Tally) {
        self.totals.add_to(tally);
    }

    /// All of it, for a report. With `loss`, what was sent is known to the second it was received.
    pub(super) fn report(&self, loss: bool) -> TimelineReport {
        let (mut sent, mut received) = (0_u64, 0_u64);
        let points = self.points.iter().map(|point| {
            let counts = &point.counts;
            sent += counts.sent;
            received += counts.received;
            let missing = sent.saturating_sub(received) as f64;
            let brief =
                |brief: &Option<Box<Brief>>| Some(QuantilesReport::of(&brief.as_ref()?.quantiles));
            let [setup, echo, latency, start_lateness, send_lateness] = &point.briefs;
            PointReport {
                t_s: point.second,
                up: point.up,
                started: counts.started,
                came_up: counts.came_up,
                failed: counts.failed,
                disconnects: counts.disconnects,
                ended: counts.ended,
                sent: counts.sent,
                sent_bytes: counts.sent_bytes,
                received: counts.received,
                received_bytes: counts.received_bytes,
                loss: (loss && sent > 0).then(|| missing / sent as f64),
                setup_us: brief(setup),
                lcp_echo_us: brief(echo),
                latency_us: brief(latency),
                start_lateness_us: brief(start_lateness),
                send_lateness_us: brief(send_lateness),
                cpu_s: (counts.cpu.as_secs_f64() * 1e6).round() / 1e6,
            }
        });
        TimelineReport {
            interval_s: self.width,
            points: points.collect(),
        }
    }
}

/// The run over time. Counts are those of the interval, not since the beginning.
#[derive(Debug, Serialize)]
pub(super) struct TimelineReport {
    /// Seconds of a point; the last may be shorter.
    interval_s: u32,
    points: Vec<PointReport>,
}

#[derive(Debug, Serialize)]
struct PointReport {
    /// When it begins, from the first planned start.
    t_s: u32,
    /// At its end.
    up: u64,
    started: u64,
    came_up: u64,
    failed: u64,
    disconnects: u64,
    ended: u64,
    sent: u64,
    sent_bytes: u64,
    received: u64,
    received_bytes: u64,
    /// Of all that was sent until its end, what had not arrived: lost or under way.
    loss: Option<f64>,
    setup_us: Option<QuantilesReport>,
    lcp_echo_us: Option<QuantilesReport>,
    latency_us: Option<QuantilesReport>,
    start_lateness_us: Option<QuantilesReport>,
    send_lateness_us: Option<QuantilesReport>,
    /// What the shards used of the processors in it.
    cpu_s: f64,
}

#[derive(Debug, Serialize)]
struct QuantilesReport {
    count: u64,
    p50: f64,
    p90: f64,
    p99: f64,
    max: f64,
}

impl QuantilesReport {
    fn of(quantiles: &Quantiles) -> Self {
        let us = |nanos: u64| super::report::micros(Duration::from_nanos(nanos));
        Self {
            count: quantiles.count,
            p50: us(quantiles.p50),
            p90: us(quantiles.p90),
            p99: us(quantiles.p99),
            max: us(quantiles.max),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(second: u32, up: u64, latency_ms: u64) -> Sample {
        let mut times = Times::default();
        times.record(Duration::from_millis(latency_ms));
        Sample {
            second,
            up,
            counts: Counts {
                sent: 10,
                received: 9,
                ..Counts::default()
            },
            distributions: Distributions::with(Metric::Latency, times),
        }
    }

    #[test]
    fn a_second_is_closed_when_all_shards_told_of_it() {
        let mut timeline = Timeline::new(2);
        timeline.add(0, sample(0, 3, 1));
        timeline.add(0, sample(1, 4, 1));
        assert!(timeline.close(false).is_none(), "the other shard is silent");
        // It was starved: its first sample covers both seconds, its next is two later.
        timeline.add(1, sample(0, 5, 100));
        let second = timeline.close(false).unwrap();
        assert_eq!((second.second, second.up, second.counts.sent), (0, 8, 20));
        let latency = second.distributions.of(Metric::Latency).unwrap();
        assert_eq!(latency.histogram().len(), 2, "merged");
        assert!(timeline.close(false).is_none());
        timeline.add(1, sample(3, 6, 1));
        let second = timeline.close(false).unwrap();
        assert_eq!((second.second, second.up), (1, 9), "what is not told stays");
        assert!(timeline.close(false).is_none());
        assert_eq!(timeline.close(true).unwrap().up, 10);
        assert!(timeline.close(true).is_none());
        let mut tally = Tally::default();
        timeline.add_to(&mut tally);
        assert_eq!(tally.packets.latency.histogram().len(), 4);
    }

    #[test]
    fn a_day_has_no_more_points_than_an_hour() {
        let mut timeline = Timeline::new(1);
        for second in 0..7_600 {
            let latency = if second % 4 == 3 { 100 } else { 1 };
            timeline.add(0, sample(second, u64::from(second), latency));
            assert!(timeline.close(false).is_some());
        }
        let report = timeline.report(true);
        assert_eq!((report.interval_s, report.points.len()), (4, 1_900));
        let point = &report.points[1];
        assert_eq!((point.t_s, point.up, point.sent), (4, 7, 40));
        assert!((point.loss.unwrap() - 0.1).abs() < 1e-9);
        let latency = point.latency_us.as_ref().unwrap();
        // Three of four took 1 ms: merged, not averaged.
        assert_eq!(latency.count, 4);
        assert!((latency.max - 100_000.0).abs() < 100.0, "{latency:?}");
        assert!((latency.p50 - 1_000.0).abs() < 10.0, "{latency:?}");
        assert!((latency.p90 - 100_000.0).abs() < 1_000.0, "{latency:?}");
        let kept: usize = timeline
            .points
            .iter()
            .flat_map(|point| point.briefs.iter().flatten())
            .map(|brief| brief.cells.len())
            .sum();
        assert!(kept < 1_900 * 200, "{kept} bytes");
    }
}
