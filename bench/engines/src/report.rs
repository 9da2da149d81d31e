//! What was measured, as a table a case and as JSON.

use std::fmt;
use std::fs;

use clap::ValueEnum as _;
use serde::Serialize;

use crate::case::{Case, Direction};
use crate::engine::{BASE, Engine};
use crate::meter::Sample;
use crate::run::Options;

/// A row whose median is below this part of the rate that was meant says so: the machine was too busy for
/// the clients, and packets came in other bursts.
const OFFERED_MIN: f64 = 0.9;

/// One engine in one case.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) case: Case,
    pub(crate) engine: Engine,
    /// Packets that came out of order when it was checked.
    pub(crate) late: u32,
    pub(crate) outcome: Outcome,
}

/// What became of it.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    /// A sample a round.
    Measured(Vec<Sample>),
    Failed(String),
    /// It cannot run on this host.
    LeftOut(String),
}

impl Row {
    /// Nothing speaks against measuring it.
    pub(crate) const fn is_wanted(&self) -> bool {
        matches!(self.outcome, Outcome::Measured(_))
    }

    fn samples(&self) -> &[Sample] {
        match &self.outcome {
            Outcome::Measured(samples) => samples,
            Outcome::Failed(_) | Outcome::LeftOut(_) => &[],
        }
    }

    fn spread(&self, value: impl Fn(&Sample) -> f64) -> Spread {
        Spread::of(self.samples().iter().map(value).collect())
    }
}

/// Median, least and most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Spread {
    median: f64,
    least: f64,
    most: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let Some((&least, &most)) = values.first().zip(values.last()) else {
            return Self::default();
        };
        let middle = values.len() / 2;
        let median = if values.len().is_multiple_of(2) {
            f64::midpoint(values[middle - 1], values[middle])
        } else {
            values[middle]
        };
        Self {
            median,
            least,
            most,
        }
    }
}

/// All of it.
#[derive(Debug)]
pub(crate) struct Report {
    head: String,
    notes: Vec<String>,
    rows: Vec<Row>,
}

impl Report {
    pub(crate) fn new(options: &Options, is_shared: bool, load: String, rows: Vec<Row>) -> Self {
        let head = format!(
            "Linux {}, {}, load average {load} at start, {} rounds of {} ms after {} ms",
            kernel_release(),
            processor(),
            options.rounds,
            options.slice.as_millis(),
            options.warm_up.as_millis(),
        );
        let mut notes = Vec::new();
        if is_shared {
            notes.push(
                "one processor only: the pump shares it with its clients, and no figure is worth much"
                    .to_owned(),
            );
        }
        let samples = || rows.iter().flat_map(Row::samples);
        if samples().any(|sample| sample.task_clock_ns.is_none()) {
            notes.push(
                "no task clock (perf_event_open): CPU is what the scheduler accounts".to_owned(),
            );
        }
        Self { head, notes, rows }
    }

    /// The same for programs.
    pub(crate) fn to_json(&self) -> String {
        let rows: Vec<_> = self.rows.iter().map(|row| self.record(row)).collect();
        let record = serde_json::json!({ "host": self.head, "notes": self.notes, "rows": rows });
        format!("{record:#}\n")
    }

    fn record(&self, row: &Row) -> serde_json::Value {
        let why = match &row.outcome {
            Outcome::Measured(_) => None,
            Outcome::Failed(why) => Some(format!("failed: {why}")),
            Outcome::LeftOut(why) => Some(format!("left out: {why}")),
        };
        serde_json::json!({
            "case": row.case.to_string(),
            "engine": row.engine.argument(),
            "why_not": why,
            "out_of_order": row.late,
            "cpu_us_per_packet": row.spread(us_per_packet),
            "ratio": self.ratio(row),
            "samples": row.samples(),
        })
    }

    /// To the base, each round to the same round of it.
    fn ratio(&self, row: &Row) -> Option<Spread> {
        let base = self
            .rows
            .iter()
            .find(|other| other.case == row.case && other.engine == BASE)?;
        let pairs = row.samples().iter().zip(base.samples());
        let ratios: Vec<f64> = pairs
            .map(|(sample, base)| us_per_packet(sample) / us_per_packet(base))
            .collect();
        (!ratios.is_empty()).then(|| Spread::of(ratios))
    }

    fn write_case(&self, f: &mut fmt::Formatter<'_>, case: Case) -> fmt::Result {
        let per = match case.direction {
            Direction::Up => "packets/receive",
            Direction::Down => "packets/send",
        };
        writeln!(
            f,
            "\n{:<36} {:>22} {:>19} {:>8} {:>9} {:>6} {:>15} {:>9}",
            case.to_string(),
            "CPU s/million packets",
            "ratio",
            "account",
            "kpps/core",
            "kpps",
            per,
            "sleeps/k",
        )?;
        for row in self.rows.iter().filter(|row| row.case == case) {
            write!(f, "{:<36} ", row.engine.name())?;
            match &row.outcome {
                Outcome::Measured(_) => self.write_row(f, row)?,
                Outcome::Failed(why) => writeln!(f, "failed: {why}")?,
                Outcome::LeftOut(why) => writeln!(f, "left out: {why}")?,
            }
        }
        Ok(())
    }

    /// All cases beside each other: what the rest comes to.
    fn write_ratios(&self, f: &mut fmt::Formatter<'_>, cases: &[Case]) -> fmt::Result {
        write!(f, "\n{:<36}", "ratio, all cases")?;
        for case in cases {
            let case = case.to_string();
            write!(f, " {:>13}", case.replace("saturated", "full"))?;
        }
        writeln!(f)?;
        for &engine in Engine::value_variants() {
            if !self.rows.iter().any(|row| row.engine == engine) {
                continue;
            }
            write!(f, "{:<36}", engine.name())?;
            for &case in cases {
                let mut rows = self.rows.iter();
                let row = rows.find(|row| row.case == case && row.engine == engine);
                match row.and_then(|row| self.ratio(row)) {
                    Some(ratio) => write!(f, " {:>13.2}", ratio.median)?,
                    None => write!(f, " {:>13}", "-")?,
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }

    fn write_row(&self, f: &mut fmt::Formatter<'_>, row: &Row) -> fmt::Result {
        let cpu = row.spread(us_per_packet);
        let account = row.spread(|sample| per_packet(sample, sample.schedstat_ns as f64 / 1e3));
        let range = format!("({:.2}..{:.2})", cpu.least, cpu.most);
        write!(f, "{:>8.2} {range:>13} ", cpu.median)?;
        match self.ratio(row) {
            Some(ratio) => {
                let range = format!("({:.2}..{:.2})", ratio.least, ratio.most);
                write!(f, "{:>5.2} {range:>13} ", ratio.median)?;
            }
            None => write!(f, "{:>19} ", "-")?,
        }
        let rate = row.spread(|sample| sample.packets as f64 * 1e6 / sample.wall_ns as f64);
        let calls = row.spread(|sample| sample.packets as f64 / sample.calls.max(1) as f64);
        let sleeps = row.spread(|sample| per_packet(sample, sample.sleeps as f64 * 1e3));
        write!(
            f,
            "{:>8.2} {:>9.0} {:>6.0} {:>15.1} {:>9.1}",
            account.median,
            1e3 / cpu.median,
            rate.median,
            calls.median,
            sleeps.median,
        )?;
        let dropped: u64 = row.samples().iter().map(|sample| sample.dropped).sum();
        if dropped > 0 {
            write!(f, "  {dropped} dropped")?;
        }
        if let Some(offered) = row.case.rate.map(|rate| f64::from(rate) / 1e3)
            && rate.median < offered * OFFERED_MIN
        {
            write!(f, "  only {:.0} of {offered:.0} kpps came", rate.median)?;
        }
        if row.late > 0 {
            write!(f, "  {} out of order when checked", row.late)?;
        }
        writeln!(f)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}; medians (least..most)", self.head)?;
        for note in &self.notes {
            writeln!(f, "{note}")?;
        }
        let mut cases: Vec<Case> = self.rows.iter().map(|row| row.case).collect();
        cases.dedup();
        for &case in &cases {
            self.write_case(f, case)?;
        }
        self.write_ratios(f, &cases)
    }
}

fn per_packet(sample: &Sample, value: f64) -> f64 {
    value / sample.packets.max(1) as f64
}

/// Microseconds a packet are seconds a million packets.
fn us_per_packet(sample: &Sample) -> f64 {
    per_packet(sample, sample.cpu_ns() as f64 / 1e3)
}

fn kernel_release() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/osrelease");
    text.map_or_else(|_| "?".to_owned(), |text| text.trim().to_owned())
}

fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    name.map_or_else(|| "?".to_owned(), |(_, name)| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_of_two_lies_between_them() {
        let spread = Spread::of(vec![3.0, 1.0]);
        assert_eq!((spread.median, spread.least, spread.most), (2.0, 1.0, 3.0));
        assert_eq!(Spread::of(vec![5.0, 1.0, 2.0]).median, 2.0);
        assert_eq!(Spread::of(Vec::new()), Spread::default());
    }
}
