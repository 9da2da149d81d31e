//! What came of it, as a table and as JSON.

use std::fmt;
use std::fs;

use datapath::sys::clock;
use serde::Serialize;

use super::peers::Table;
use crate::floor::Spread;

/// Which way is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Sense {
    /// The bar is an upper bound.
    AtMost,
    /// The bar is a lower bound.
    AtLeast,
}

/// What a ratio, or a figure without one, is judged by.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bar {
    /// Which way is good.
    pub sense: Sense,
    /// What must be reached.
    pub bar: f64,
    /// What should be reached.
    pub stretch: f64,
}

/// How a row stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The stretch is reached.
    Stretch,
    /// The bar is reached.
    Bar,
    /// It is not.
    Missed,
    /// Nothing to be judged by.
    Info,
}

impl Bar {
    /// Judges a value.
    #[must_use]
    pub fn judge(self, value: f64) -> Verdict {
        let reaches = |limit: f64| match self.sense {
            Sense::AtMost => value <= limit,
            Sense::AtLeast => value >= limit,
        };
        if reaches(self.stretch) {
            Verdict::Stretch
        } else if reaches(self.bar) {
            Verdict::Bar
        } else {
            Verdict::Missed
        }
    }
}

/// One figure, what it is compared with, and how it stands.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What was measured.
    pub name: String,
    /// Of `figure` and `beside`.
    pub unit: &'static str,
    /// Of the gateway.
    pub figure: Spread,
    /// What it is compared with, of the same rounds.
    pub beside: Option<Beside>,
    /// Median, least and most of the rounds' ratios.
    pub ratio: Option<Spread>,
    /// What `ratio` is judged by, or `figure` if there is none.
    pub bar: Option<Bar>,
    /// How it stands.
    pub verdict: Verdict,
    /// Rates, losses and other circumstances.
    pub note: String,
}

/// What a figure is compared with.
#[derive(Clone, Debug, Serialize)]
pub struct Beside {
    /// Whose it is.
    pub name: String,
    /// Its own values.
    pub figure: Spread,
}

impl Row {
    /// A figure of its own.
    #[must_use]
    pub fn alone(name: &str, unit: &'static str, values: &[f64], bar: Option<Bar>) -> Self {
        let figure = Spread::of(values.iter().copied());
        Self {
            name: name.to_owned(),
            unit,
            figure,
            beside: None,
            ratio: None,
            bar,
            verdict: bar.map_or(Verdict::Info, |bar| bar.judge(figure.median)),
            note: String::new(),
        }
    }

    /// A figure with another beside it, round by round: the ratio is `values / beside`.
    #[must_use]
    pub fn beside(
        name: &str,
        unit: &'static str,
        values: &[f64],
        (other, others): (&str, &[f64]),
        bar: Option<Bar>,
    ) -> Self {
        let ratio = Spread::of(
            values
                .iter()
                .zip(others)
                .map(|(value, other)| value / other),
        );
        Self {
            beside: Some(Beside {
                name: other.to_owned(),
                figure: Spread::of(others.iter().copied()),
            }),
            ratio: Some(ratio),
            verdict: bar.map_or(Verdict::Info, |bar| bar.judge(ratio.median)),
            ..Self::alone(name, unit, values, bar)
        }
    }

    /// With circumstances.
    #[must_use]
    pub fn with_note(self, note: String) -> Self {
        Self { note, ..self }
    }
}

/// A run of the harness.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Seconds since 1970-01-01 UTC.
    pub date: u64,
    /// Release of the running kernel.
    pub kernel: String,
    /// Name of the processor.
    pub processor: String,
    /// Load average of the last minute when it began: what else was running.
    pub load: String,
    /// Measurements of each figure.
    pub reps: u32,
    /// One a figure.
    pub rows: Vec<Row>,
    /// What other servers cost, if they were measured.
    pub peers: Option<Table>,
    /// What was left out, and why.
    pub skipped: Vec<String>,
    /// How far different clocks of the same CPU time are apart.
    pub clocks: Vec<String>,
}

impl Report {
    /// An empty one of this host.
    #[must_use]
    pub fn new(reps: u32) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let processor = read("/proc/cpuinfo");
        let processor = processor
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Self {
            date: clock::wall_clock().as_secs(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            processor: processor.map_or("", |(_, name)| name).to_owned(),
            load: read("/proc/loadavg")
                .split(' ')
                .next()
                .unwrap_or_default()
                .to_owned(),
            reps,
            rows: Vec::new(),
            peers: None,
            skipped: Vec::new(),
            clocks: Vec::new(),
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

/// Three significant digits.
pub(super) fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

pub(super) fn spread(spread: &Spread) -> String {
    format!("({}..{})", short(spread.min), short(spread.max))
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let beside = self.beside.as_ref();
        let beside = beside.map(|beside| short(beside.figure.median));
        let ratio = self.ratio.as_ref();
        let sign = |bar: &Bar| match bar.sense {
            Sense::AtMost => "≤",
            Sense::AtLeast => "≥",
        };
        let bar = |value: fn(&Bar) -> f64| {
            let bar = self.bar.as_ref();
            bar.map(|bar| format!("{} {}", sign(bar), short(value(bar))))
        };
        write!(
            f,
            "{:34} {:>9} {:>8} {:>17} {:>8} {:>6} {:>13} {:>7} {:>7} {:8} {}",
            self.name,
            self.unit,
            short(self.figure.median),
            spread(&self.figure),
            beside.unwrap_or_default(),
            ratio.map(|ratio| short(ratio.median)).unwrap_or_default(),
            ratio.map(spread).unwrap_or_default(),
            bar(|bar| bar.bar).unwrap_or_default(),
            bar(|bar| bar.stretch).unwrap_or_default(),
            match self.verdict {
                Verdict::Stretch => "stretch",
                Verdict::Bar => "bar",
                Verdict::Missed => "MISSED",
                Verdict::Info => "",
            },
            self.note
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "Linux {}, {}, load average {} at start, {} rounds; medians (least..most)",
            self.kernel, self.processor, self.load, self.reps
        )?;
        writeln!(
            f,
            "{:34} {:>9} {:>8} {:>17} {:>8} {:>6} {:>13} {:>7} {:>7} {:8} note",
            "", "unit", "figure", "", "beside", "ratio", "", "bar", "stretch", "verdict"
        )?;
        for row in &self.rows {
            writeln!(f, "{row}")?;
        }
        if let Some(peers) = &self.peers {
            write!(f, "{peers}")?;
        }
        for line in &self.clocks {
            writeln!(f, "{line}")?;
        }
        for why in &self.skipped {
            writeln!(f, "*** SKIPPED: {why} ***")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BAR: Bar = Bar {
        sense: Sense::AtMost,
        bar: 1.6,
        stretch: 1.3,
    };

    #[test]
    fn ratios_are_those_of_the_rounds() {
        // A noisy round is noisy for both.
        let row = Row::beside(
            "x",
            "ms/GB",
            &[300.0, 600.0],
            ("floor", &[200.0, 400.0]),
            Some(BAR),
        );
        let ratio = row.ratio.unwrap();
        assert_eq!((ratio.median, ratio.min, ratio.max), (1.5, 1.5, 1.5));
        assert_eq!(row.figure.median, 450.0);
        assert_eq!(row.verdict, Verdict::Bar);
    }

    #[test]
    fn a_bar_is_reached_missed_or_exceeded() {
        assert_eq!(BAR.judge(1.3), Verdict::Stretch);
        assert_eq!(BAR.judge(1.31), Verdict::Bar);
        assert_eq!(BAR.judge(1.61), Verdict::Missed);
        assert_eq!(BAR.judge(f64::NAN), Verdict::Missed);
        let least = Bar {
            sense: Sense::AtLeast,
            bar: 12.0,
            stretch: 20.0,
        };
        assert_eq!(least.judge(25.0), Verdict::Stretch);
        assert_eq!(least.judge(11.9), Verdict::Missed);
    }

    #[test]
    fn a_report_names_figures_verdicts_and_what_was_skipped() {
        let mut report = Report::new(5);
        let row = Row::beside(
            "bulk down",
            "ms/GB",
            &[500.0],
            ("floor", &[200.0]),
            Some(BAR),
        );
        report.rows.push(row.with_note("10 Gbit/s".to_owned()));
        report.skipped.push("OpenVPN: not installed".to_owned());
        let text = report.to_string();
        let line = text.lines().find(|line| line.starts_with("bulk down"));
        let words: Vec<&str> = line.unwrap().split_whitespace().collect();
        assert!(
            words.contains(&"2.50") && words.contains(&"MISSED"),
            "{text}"
        );
        assert!(text.contains("SKIPPED: OpenVPN"));
        let json: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
        assert_eq!(json["rows"][0]["verdict"], "missed");
        assert_eq!(json["rows"][0]["beside"]["figure"]["median"], 200.0);
    }

    #[test]
    fn numbers_are_as_long_as_they_are_known() {
        assert_eq!(short(1234.5), "1234");
        assert_eq!(short(12.345), "12.3");
        assert_eq!(short(1.2345), "1.23");
    }
}
