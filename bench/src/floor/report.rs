//! What was measured, as a table and as JSON.

use std::fmt;
use std::fs;

use datapath::sys::clock;
use serde::Serialize;

use super::Options;
use super::meter::Sample;

/// A run of the floor.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Seconds since 1970-01-01 UTC.
    pub date: u64,
    /// Release of the running kernel.
    pub kernel: String,
    /// Name of the processor.
    pub processor: String,
    /// Measurements of each figure.
    pub rounds: u32,
    /// Wall-clock time of each, in milliseconds.
    pub slice_ms: u128,
    /// Receivers on another processor than the pump.
    pub apart: bool,
    /// Why what needs root was left out.
    pub skipped: Option<String>,
    /// One a figure.
    pub rows: Vec<Row>,
}

/// A figure.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// `part/what/size`.
    pub name: String,
    /// CPU milliseconds a GB.
    pub cpu_ms_per_gb: Spread,
    /// Wall-clock milliseconds a GB.
    pub wall_ms_per_gb: Spread,
    /// CPU nanoseconds a packet; of AEAD a record, of sends a send, of the TUN what a system call takes.
    pub cpu_ns_per_packet: Spread,
}

/// What the rounds read.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// Half are below.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The most.
    pub max: f64,
}

impl Spread {
    /// Of these values; of none, it is not a number.
    pub(crate) fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        let (half, last) = (values.len() / 2, values.len().saturating_sub(1));
        let median = if values.len().is_multiple_of(2) {
            f64::midpoint(at(half.saturating_sub(1)), at(half))
        } else {
            at(half)
        };
        Self {
            median,
            min: at(0),
            max: at(last),
        }
    }
}

impl Row {
    pub(super) fn new(name: String, samples: &[Sample]) -> Self {
        let spread = |value: fn(&Sample) -> f64| Spread::of(samples.iter().map(value));
        Self {
            name,
            cpu_ms_per_gb: spread(Sample::cpu_ms_per_gb),
            wall_ms_per_gb: spread(|sample| {
                sample.wall.as_nanos() as f64 * 1e3 / sample.bytes as f64
            }),
            cpu_ns_per_packet: spread(Sample::cpu_ns_per_packet),
        }
    }
}

impl Report {
    pub(super) fn new(options: &Options, rows: Vec<Row>, skipped: Option<String>) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let processor = read("/proc/cpuinfo");
        let processor = processor
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Self {
            date: clock::wall_clock().as_secs(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            processor: processor.map_or("", |(_, name)| name).to_owned(),
            rounds: options.rounds,
            slice_ms: options.slice.as_millis(),
            apart: options.apart,
            skipped,
            rows,
        }
    }

    /// The report as one JSON object.
    ///
    /// # Panics
    ///
    /// Never: it has nothing that JSON cannot say.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("numbers and text")
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kernel,
            processor,
            rounds,
            slice_ms,
            ..
        } = self;
        writeln!(
            f,
            "Linux {kernel}, {processor}, {rounds} rounds of {slice_ms} ms; medians (least..most)"
        )?;
        writeln!(
            f,
            "{:32} {:>24} {:>9} {:>22} {:>9}",
            "", "CPU ms/GB", "wall", "CPU ns/packet", "Gbit/s"
        )?;
        for row in &self.rows {
            let Spread { median, min, max } = row.cpu_ms_per_gb;
            let packet = row.cpu_ns_per_packet;
            writeln!(
                f,
                "{:32} {:>8.1} {:>15} {:>9.1} {:>8.0} {:>13} {:>9.1}",
                row.name,
                median,
                format!("({min:.1}..{max:.1})"),
                row.wall_ms_per_gb.median,
                packet.median,
                format!("({:.0}..{:.0})", packet.min, packet.max),
                // 8 Gbit a GB.
                8000.0 / median
            )?;
        }
        if let Some(why) = &self.skipped {
            writeln!(f, "\n*** SKIPPED: every figure of TUN and pump: {why} ***")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use datapath::time::Duration;

    use super::*;

    #[test]
    fn a_spread_is_that_of_the_values() {
        let spread = |values: &[f64]| Spread::of(values.iter().copied());
        let (median, min, max) = (2.0, 1.0, 9.0);
        assert_eq!(spread(&[9.0, 1.0, 2.0]), Spread { median, min, max });
        assert_eq!(spread(&[4.0, 2.0]).median, 3.0);
        assert!(spread(&[]).median.is_nan());
    }

    #[test]
    fn a_report_names_its_units_and_what_was_skipped() {
        let options = Options {
            rounds: 1,
            slice: Duration::from_millis(10),
            only: None,
            apart: false,
        };
        // 1,000 packets of 1,000 bytes in 200 µs: 200 ns each, 200 ms/GB, 40 Gbit/s.
        let sample = Sample {
            cpu: Duration::from_micros(200),
            wall: Duration::from_micros(300),
            bytes: 1_000_000,
            packets: 1_000,
        };
        let row = Row::new("pump/down".to_owned(), &[sample]);
        let report = Report::new(&options, vec![row], Some("no right".to_owned()));
        let table = report.to_string();
        let line = table.lines().find(|line| line.starts_with("pump/down"));
        let words: Vec<&str> = line.unwrap().split_whitespace().collect();
        assert_eq!(
            words[1..],
            [
                "200.0",
                "(200.0..200.0)",
                "300.0",
                "200",
                "(200..200)",
                "40.0"
            ]
        );
        assert!(table.contains("SKIPPED"));
        let json: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
        assert_eq!(json["rows"][0]["wall_ms_per_gb"]["median"], 300.0);
    }
}
