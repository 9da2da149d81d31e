//! What came of it, as a table and as JSON.

use std::fmt;

use datapath::sys::clock;
use serde::Serialize;

use super::Options;
use super::matrix::Matrix;
use super::page;
use super::peers::Table;

mod figure;
mod machine;
#[cfg(test)]
pub(super) mod made_up;

pub use figure::Figure;
pub use machine::Machine;

pub(super) use figure::short;
pub(super) use machine::utc;

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
    pub figure: Figure,
    /// What it is compared with, of the same rounds.
    pub beside: Option<Beside>,
    /// Median, least and most of the rounds' ratios.
    pub ratio: Option<Figure>,
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
    pub figure: Figure,
}

impl Row {
    /// A figure of its own.
    #[must_use]
    pub fn alone(name: &str, unit: &'static str, values: &[f64], bar: Option<Bar>) -> Self {
        let figure = Figure::of(values.to_vec());
        Self {
            name: name.to_owned(),
            unit,
            verdict: bar.map_or(Verdict::Info, |bar| bar.judge(figure.median)),
            figure,
            beside: None,
            ratio: None,
            bar,
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
        let ratio = Figure::ratio(values, others);
        Self {
            beside: Some(Beside {
                name: other.to_owned(),
                figure: Figure::of(others.to_vec()),
            }),
            verdict: bar.map_or(Verdict::Info, |bar| bar.judge(ratio.median)),
            ratio: Some(ratio),
            ..Self::alone(name, unit, values, bar)
        }
    }

    /// With circumstances.
    #[must_use]
    pub fn with_note(self, note: String) -> Self {
        Self { note, ..self }
    }
}

/// A run of the harness, as `bench/schema/e2e-1.json` describes it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Version of the shape; another one if a field goes or comes to mean something else.
    pub schema: u32,
    /// Seconds since 1970-01-01 UTC when it began.
    pub date: u64,
    /// The commit of the sources; empty if it is not known.
    pub commit: String,
    /// What was run.
    pub command: String,
    /// The host.
    pub machine: Machine,
    /// How it was measured.
    pub options: Told,
    /// One a figure.
    pub rows: Vec<Row>,
    /// Every size, number of sessions, number of shards and driver, if that was wanted.
    pub matrix: Option<Matrix>,
    /// What other servers cost, if they were measured.
    pub peers: Option<Table>,
    /// What was left out, and why.
    pub skipped: Vec<String>,
    /// How far different clocks of the same CPU time are apart, and what the gateway said at its end.
    pub clocks: Vec<String>,
}

/// Of [`Options`], what a figure depends on.
#[derive(Clone, Debug, Serialize)]
pub struct Told {
    /// Measurements of each figure.
    pub reps: u32,
    /// Wall-clock milliseconds of each.
    pub slice_ms: u64,
    /// Parts of the names of what was measured; all if empty.
    pub only: Vec<String>,
    /// Less of everything.
    pub quick: bool,
}

impl Report {
    /// An empty one of this host.
    #[must_use]
    pub fn new(options: &Options) -> Self {
        Self {
            schema: 1,
            date: clock::wall_clock().as_secs(),
            commit: machine::commit(),
            command: machine::command(),
            machine: Machine::here(),
            options: Told {
                reps: options.reps,
                slice_ms: u64::try_from(options.slice.as_millis()).unwrap_or(u64::MAX),
                only: options.only.clone(),
                quick: options.is_quick,
            },
            rows: Vec::new(),
            matrix: None,
            peers: None,
            skipped: Vec::new(),
            clocks: Vec::new(),
        }
    }

    /// The report as one page for a browser, with nothing outside of it.
    #[must_use]
    pub fn to_html(&self) -> String {
        page::page(self)
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
            self.figure.spread(),
            beside.unwrap_or_default(),
            ratio.map(|ratio| short(ratio.median)).unwrap_or_default(),
            ratio.map(Figure::spread).unwrap_or_default(),
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
        let reps = self.options.reps;
        writeln!(f, "{}, {reps} rounds; medians (least..most)", self.machine)?;
        if !self.rows.is_empty() {
            writeln!(
                f,
                "{:34} {:>9} {:>8} {:>17} {:>8} {:>6} {:>13} {:>7} {:>7} {:8} note",
                "", "unit", "figure", "", "beside", "ratio", "", "bar", "stretch", "verdict"
            )?;
            for row in &self.rows {
                writeln!(f, "{row}")?;
            }
        }
        if let Some(peers) = &self.peers {
            write!(f, "{peers}")?;
        }
        for line in &self.clocks {
            writeln!(f, "{line}")?;
        }
        if let Some(matrix) = &self.matrix {
            write!(f, "\n{matrix}")?;
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
    fn a_row_with_another_beside_it_is_judged_by_their_ratio() {
        let beside = ("floor", [200.0, 400.0].as_slice());
        let row = Row::beside("x", "ms/GB", &[300.0, 600.0], beside, Some(BAR));
        assert_eq!(row.ratio.unwrap().median, 1.5);
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
        let mut report = Report::new(&Options::default());
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

    /// What is wrong with a report by the schema that is kept beside the sources.
    fn problems(report: &str) -> Vec<String> {
        let schema = include_str!("../../schema/e2e-1.json");
        let schema: serde_json::Value = serde_json::from_str(schema).unwrap();
        let report: serde_json::Value = serde_json::from_str(report).unwrap();
        let validator = jsonschema::draft202012::new(&schema).unwrap();
        let problems = validator.iter_errors(&report);
        problems
            .map(|problem| format!("{}: {problem}", problem.instance_path()))
            .collect()
    }

    #[test]
    fn a_report_is_as_its_schema_says() {
        let report = made_up::report().to_json();
        assert_eq!(problems(&report), Vec::<String>::new());
        let empty = Report::new(&Options::default()).to_json();
        assert_eq!(problems(&empty), Vec::<String>::new());
        // It can be told from others.
        for (from, to) in [
            ("\"schema\": 1", "\"schema\": 2"),
            ("\"verdict\": \"missed\"", "\"verdict\": \"late\""),
            ("\"cpu_ns_per_packet\"", "\"cpu\""),
        ] {
            assert_ne!(problems(&report.replacen(from, to, 1)).len(), 0, "{to}");
        }
    }

    #[test]
    fn a_report_says_all_cells_in_lines_of_engines() {
        let text = made_up::report().to_string();
        let line = text
            .lines()
            .find(|line| line.starts_with("up   bulk     1000"));
        assert_eq!(line.unwrap().matches('×').count(), 4, "{text}");
        assert!(text.contains("2 shards/epoll"));
        assert!(text.contains("p50 45.0 (40.5..54.0) µs"), "{text}");
    }
}
