//! `loadgen compare A.json B.json`: what changed from one run to another, beyond the noise.
//!
//! [`verdict`] says what counts as a change, [`limit`] what `--fail` asks of it. Runs of different
//! scenarios are not compared, unless told to: their figures mean different things.

use std::fmt::Write as _;
use std::process::ExitCode;

use serde::Serialize;
use serde_json::Value;

use crate::connect;
use crate::flags::Compare;
use crate::saved::{self, Better, at, is, text};

pub(crate) mod limit;

mod verdict;

use self::limit::Limit;
use self::verdict::Verdict;

/// Raised when a field of the JSON changes its meaning or goes.
const SCHEMA_VERSION: u32 = 1;

/// Threads and processors are part of the machine and may be what is compared; all else that was
/// asked for must be the same.
const MAY_DIFFER: [&str; 1] = ["shards"];

/// Of what traffic reports, that which was asked for.
const ASKED_OF_TRAFFIC: [&str; 3] = ["direction", "sizes", "record_per_packet"];

/// What came of a comparison.
#[derive(Debug, Serialize)]
struct Comparison {
    schema_version: u32,
    version: &'static str,
    a: Side,
    b: Side,
    /// What was asked of the two runs and is not the same.
    differences: Vec<Difference>,
    figures: Vec<Row>,
    thresholds: Vec<ThresholdRow>,
    /// Whether every threshold holds.
    ok: bool,
}

#[derive(Debug, Serialize)]
struct Side {
    file: String,
    version: String,
    server: String,
    ok: bool,
    generator_bound: bool,
}

#[derive(Debug, Serialize)]
struct Difference {
    what: String,
    a: Value,
    b: Value,
}

#[derive(Debug, Serialize)]
struct Row {
    figure: String,
    /// In the figure's own unit, as in the reports.
    a: Option<f64>,
    b: Option<f64>,
    /// Of `a`; none if that is nothing.
    change: Option<f64>,
    /// Changes up to this share of `a` are noise.
    noise: Option<f64>,
    verdict: Verdict,
    #[serde(skip)]
    written: (String, String),
}

#[derive(Debug, Serialize)]
struct ThresholdRow {
    threshold: String,
    change: Option<f64>,
    ok: bool,
}

/// Runs `loadgen compare`: 0, 1 if it cannot be written, 2 if they cannot be compared, 99.
pub(crate) fn run(flags: &Compare) -> ExitCode {
    let comparison = match compare(flags) {
        Ok(comparison) => comparison,
        Err(error) => {
            eprintln!("loadgen: {error}");
            return ExitCode::from(2);
        }
    };
    if flags.json {
        // Only strings and numbers are in it, so writing it cannot fail.
        let json = serde_json::to_string_pretty(&comparison).unwrap_or_default();
        connect::print(&(json + "\n"));
    } else {
        connect::print(&comparison.table());
    }
    if comparison.ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(99)
    }
}

fn compare(flags: &Compare) -> Result<Comparison, String> {
    let (a, b) = (saved::read(&flags.a)?, saved::read(&flags.b)?);
    let differences = differences(&a, &b);
    if !differences.is_empty() && !flags.force {
        let mut message = "these runs were not asked for the same:".to_owned();
        for Difference { what, a, b } in &differences {
            let _ = write!(message, "\n  {what}: {a} and {b}");
        }
        return Err(
            message + "\nWhat differs explains what changed; --force compares them all the same."
        );
    }
    let side = |file: &std::path::Path, report: &Value| Side {
        file: file.display().to_string(),
        version: text(report, "version").to_owned(),
        server: text(report, "server").to_owned(),
        ok: is(report, "ok"),
        generator_bound: is(report, "generator_bound"),
    };
    let figures = rows(&a, &b);
    let thresholds: Vec<ThresholdRow> = flags
        .fail
        .iter()
        .map(|limit| threshold(limit, &figures))
        .collect();
    Ok(Comparison {
        schema_version: SCHEMA_VERSION,
        version: env!("CARGO_PKG_VERSION"),
        a: side(&flags.a, &a),
        b: side(&flags.b, &b),
        differences,
        figures,
        ok: thresholds.iter().all(|threshold| threshold.ok),
        thresholds,
    })
}

fn threshold(limit: &Limit, figures: &[Row]) -> ThresholdRow {
    let row = figures.iter().find(|row| row.figure == limit.figure);
    let pair = row.and_then(|row| Some((row.a?, row.b?)));
    ThresholdRow {
        threshold: limit.to_string(),
        change: row.and_then(|row| row.change),
        // What was not measured cannot be claimed to hold.
        ok: pair.is_some_and(|(a, b)| limit.holds(a, b)),
    }
}

/// What was asked of the runs and is not the same.
fn differences(a: &Value, b: &Value) -> Vec<Difference> {
    let mut paths = vec!["command".to_owned()];
    for report in [a, b] {
        if let Some(Value::Object(scenario)) = at(report, "scenario") {
            let asked = scenario
                .keys()
                .filter(|key| !MAY_DIFFER.contains(&key.as_str()));
            paths.extend(asked.map(|key| format!("scenario.{key}")));
        }
    }
    paths.extend(ASKED_OF_TRAFFIC.map(|key| format!("traffic.{key}")));
    paths.sort();
    paths.dedup();
    let different = paths.into_iter().filter_map(|what| {
        let (a, b) = (at(a, &what), at(b, &what));
        (a != b).then(|| Difference {
            a: a.cloned().unwrap_or_default(),
            b: b.cloned().unwrap_or_default(),
            what,
        })
    });
    different.collect()
}

fn rows(a: &Value, b: &Value) -> Vec<Row> {
    saved::figures()
        .iter()
        .filter_map(|figure| {
            let values = (figure.of(a), figure.of(b));
            if values == (None, None) {
                return None;
            }
            let write = |value: Option<f64>| {
                value.map_or_else(|| "–".to_owned(), |value| figure.write(value))
            };
            let judged = verdict::judge(figure, a, b);
            Some(Row {
                figure: figure.name.clone(),
                a: values.0,
                b: values.1,
                change: judged.change,
                noise: judged.noise,
                verdict: judged.verdict,
                written: (write(values.0), write(values.1)),
            })
        })
        .collect()
}

impl Comparison {
    /// For people. Writing to a String cannot fail.
    fn table(&self) -> String {
        let mut text = String::new();
        for (name, side) in [("A", &self.a), ("B", &self.b)] {
            let mut notes = String::new();
            if !side.ok {
                notes += ", FAILED";
            }
            if side.generator_bound {
                notes += ", generator-bound: its figures are loadgen's, not the server's";
            }
            let _ = writeln!(text, "{name}: {} ({}){notes}", side.file, side.server);
        }
        for Difference { what, a, b } in &self.differences {
            let _ = writeln!(text, "not the same: {what}: {a} and {b}");
        }
        let _ = writeln!(
            text,
            "\n{:20}{:>14}{:>14}{:>10}{:>9}  verdict",
            "", "A", "B", "change", "noise"
        );
        for row in &self.figures {
            // Nothing happened in either.
            if row.a == Some(0.0) && row.b == Some(0.0) {
                continue;
            }
            let change = row.change.map_or_else(
                || "–".to_owned(),
                |change| format!("{:+.1} %", change * 100.0),
            );
            let noise = row
                .noise
                .map_or_else(String::new, |noise| format!("±{:.0} %", noise * 100.0));
            let _ = writeln!(
                text,
                "{:20}{:>14}{:>14}{change:>10}{noise:>9}  {}",
                row.figure,
                row.written.0,
                row.written.1,
                row.verdict.word()
            );
        }
        let count = |verdict| {
            self.figures
                .iter()
                .filter(|row| row.verdict == verdict)
                .count()
        };
        let _ = writeln!(
            text,
            "\n{} better, {} worse, the rest within the noise or not judged",
            count(Verdict::Better),
            count(Verdict::Worse)
        );
        for threshold in &self.thresholds {
            let word = if threshold.ok { "holds" } else { "BROKEN" };
            let _ = writeln!(text, "{}: {word}", threshold.threshold);
        }
        text
    }
}

/// Which way round a change of this sign is good.
const fn is_better(better: Better, rises: bool) -> Option<bool> {
    match better {
        Better::Lower => Some(!rises),
        Better::Higher => Some(rises),
        Better::Neither => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_must_be_the_same() {
        let a = serde_json::json!({"command": "storm", "scenario": {"sessions": 5, "shards": 1}});
        let scenario = serde_json::json!({"sessions": 6, "shards": 2, "persona": "x"});
        let b = serde_json::json!({"command": "storm", "scenario": scenario});
        let found: Vec<String> = differences(&a, &b).into_iter().map(|d| d.what).collect();
        assert_eq!(found, ["scenario.persona", "scenario.sessions"]);
        assert!(differences(&a, &a).is_empty());
    }
}
