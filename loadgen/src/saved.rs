//! A report that was written before: read back, and its figures by name.
//!
//! It is read as plain JSON, so that one of a newer loadgen with more fields can be read too. It is
//! a file of somebody's: every figure in it may be missing or of the wrong kind.

use std::path::Path;

use serde_json::Value;

use crate::units::{percent, plain, scaled, time, with_unit};

/// The version of the report's schema that is understood.
const SCHEMA_VERSION: u64 = 1;

/// A report is a few megabytes at most.
const LEN_MAX: u64 = 64 << 20;

/// Reads the report of a `storm` or of `traffic`.
pub(crate) fn read(path: &Path) -> Result<Value, String> {
    let name = path.display();
    let len = std::fs::metadata(path).map_err(|error| format!("cannot read {name}: {error}"))?;
    if len.len() > LEN_MAX {
        return Err(format!("{name} is no report: it has {} bytes", len.len()));
    }
    let text = std::fs::read(path).map_err(|error| format!("cannot read {name}: {error}"))?;
    let report: Value = serde_json::from_slice(&text)
        .map_err(|error| format!("{name} is no report: it is not JSON ({error})"))?;
    let version = report.get("schema_version").and_then(Value::as_u64);
    if version != Some(SCHEMA_VERSION) || report.get("setup").is_none() {
        return Err(format!(
            "{name} is not the report of a storm or of traffic as this loadgen writes it (it has schema \
             version {}, and {SCHEMA_VERSION} is understood)",
            version.map_or_else(|| "none".to_owned(), |version| version.to_string())
        ));
    }
    Ok(report)
}

/// What is at `path`, whose parts are separated by dots.
pub(crate) fn at<'a>(report: &'a Value, path: &str) -> Option<&'a Value> {
    let found = path
        .split('.')
        .try_fold(report, |value, part| value.get(part))?;
    (!found.is_null()).then_some(found)
}

/// The number at `path`.
pub(crate) fn number(report: &Value, path: &str) -> Option<f64> {
    at(report, path)?.as_f64()
}

/// The text at `path`; empty if there is none.
pub(crate) fn text<'a>(report: &'a Value, path: &str) -> &'a str {
    at(report, path).and_then(Value::as_str).unwrap_or_default()
}

/// The list at `path`; empty if there is none.
pub(crate) fn list<'a>(report: &'a Value, path: &str) -> &'a [Value] {
    at(report, path)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// Whether what is at `path` is true.
pub(crate) fn is(report: &Value, path: &str) -> bool {
    at(report, path).and_then(Value::as_bool).unwrap_or(false)
}

/// What a figure is measured in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Microseconds.
    Time,
    Share,
    /// Events that are counted one by one.
    Events,
    /// Something a second, with k, M and G.
    Rate,
    Seconds,
    Bytes,
    Plain,
}

/// Which way a figure is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Better {
    Lower,
    Higher,
    /// It says nothing of the server.
    Neither,
}

/// One figure of a report.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) unit: Unit,
    pub(crate) better: Better,
    path: String,
    /// Of a distribution: where its count is, and the share that lies below.
    pub(crate) quantile: Option<(String, f64)>,
}

const PLAIN: [(&str, &str, Unit, Better); 15] = [
    ("rate", "setup.rate_per_s", Unit::Rate, Better::Higher),
    ("failed", "setup.failed", Unit::Events, Better::Lower),
    (
        "disconnects",
        "hold.disconnects",
        Unit::Events,
        Better::Lower,
    ),
    ("pps", "traffic.pps_received", Unit::Rate, Better::Higher),
    ("bps", "traffic.bps_received", Unit::Rate, Better::Higher),
    ("lost", "traffic.lost", Unit::Events, Better::Lower),
    ("loss", "traffic.loss", Unit::Share, Better::Lower),
    (
        "duplicates",
        "traffic.duplicates",
        Unit::Events,
        Better::Lower,
    ),
    (
        "reordered",
        "traffic.reordered",
        Unit::Events,
        Better::Lower,
    ),
    (
        "corrupted",
        "traffic.corrupted",
        Unit::Events,
        Better::Lower,
    ),
    (
        "wrong_session",
        "traffic.wrong_session",
        Unit::Events,
        Better::Lower,
    ),
    ("fairness", "traffic.fairness", Unit::Plain, Better::Higher),
    ("cpu", "generator.cpu_s", Unit::Seconds, Better::Neither),
    (
        "own_queue_full",
        "traffic.own_queue_full",
        Unit::Events,
        Better::Lower,
    ),
    (
        "memory",
        "generator.memory_per_session_bytes",
        Unit::Bytes,
        Better::Neither,
    ),
];

/// Distributions, and where they are; those of the phases are by name.
const TIMES: [(&str, &str, Better); 13] = [
    ("setup", "setup.total_us", Better::Lower),
    ("tcp", "", Better::Lower),
    ("tls", "", Better::Lower),
    ("http", "", Better::Lower),
    ("sstp", "", Better::Lower),
    ("lcp", "", Better::Lower),
    ("auth", "", Better::Lower),
    ("binding", "", Better::Lower),
    ("network", "", Better::Lower),
    ("echo", "hold.lcp_echo_us", Better::Lower),
    ("latency", "traffic.latency_us", Better::Lower),
    ("lateness", "traffic.lateness_us", Better::Neither),
    ("start_lateness", "setup.lateness_us", Better::Neither),
];

const QUANTILES: [(&str, f64); 5] = [
    ("p50", 0.5),
    ("p90", 0.9),
    ("p99", 0.99),
    ("p999", 0.999),
    ("max", 1.0),
];

/// Every figure a report may have, in the order they are told.
pub(crate) fn figures() -> Vec<Figure> {
    let plain = PLAIN.iter().map(|&(name, path, unit, better)| Figure {
        name: name.to_owned(),
        unit,
        better,
        path: path.to_owned(),
        quantile: None,
    });
    let times = TIMES.iter().flat_map(|&(name, path, better)| {
        QUANTILES.iter().map(move |&(quantile, share)| Figure {
            name: format!("{name}_{quantile}"),
            unit: Unit::Time,
            better,
            path: if path.is_empty() {
                format!("{name}.{quantile}")
            } else {
                format!("{path}.{quantile}")
            },
            quantile: Some((
                format!("{}.count", if path.is_empty() { name } else { path }),
                share,
            )),
        })
    });
    plain.chain(times).collect()
}

impl Figure {
    /// Its value in this report.
    pub(crate) fn of(&self, report: &Value) -> Option<f64> {
        lookup(report, &self.path)
    }

    /// How many values its distribution has above it, if it is a quantile.
    pub(crate) fn count_beyond(&self, report: &Value) -> Option<f64> {
        let (path, share) = self.quantile.as_ref()?;
        Some(lookup(report, path)? * (1.0 - share))
    }

    /// For people.
    pub(crate) fn write(&self, value: f64) -> String {
        match self.unit {
            Unit::Time => time(value),
            Unit::Share => percent(value),
            Unit::Rate => format!("{}/s", scaled(value)),
            Unit::Events => format!("{value:.0}"),
            Unit::Seconds => format!("{} s", plain(value)),
            Unit::Bytes => with_unit(value, "B"),
            Unit::Plain => format!("{value:.3}"),
        }
    }
}

/// The value of a threshold in a report, in its figure's own unit.
pub(crate) fn write_threshold(threshold: &Value) -> String {
    let Some(value) = number(threshold, "value") else {
        return "not measured".to_owned();
    };
    let name = text(threshold, "threshold");
    let name = name.split(['<', '>']).next().unwrap_or_default().trim();
    let figures = figures();
    let figure = figures.iter().find(|figure| figure.name == name);
    figure.map_or_else(|| plain(value), |figure| figure.write(value))
}

/// A number by its path; one that begins with the name of a phase is found in that phase.
fn lookup(report: &Value, path: &str) -> Option<f64> {
    number(report, path).or_else(|| {
        let (name, field) = path.split_once('.')?;
        let phase = list(report, "setup.phases")
            .iter()
            .find(|phase| text(phase, "name").eq_ignore_ascii_case(name))?;
        number(phase.get("us")?, field)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found_by_name() {
        let report = serde_json::json!({
            "setup": {"rate_per_s": 5.5, "total_us": {"count": 1000, "p99": 7.0}, "failed": null,
                      "phases": [{"name": "TLS", "us": {"count": 9, "p50": 3.0}},
                                 {"name": "LCP", "us": null}]},
        });
        let figures = figures();
        let figure = |name: &str| figures.iter().find(|figure| figure.name == name).unwrap();
        assert_eq!(figure("rate").of(&report), Some(5.5));
        assert_eq!(figure("setup_p99").of(&report), Some(7.0));
        let beyond = figure("setup_p99").count_beyond(&report).unwrap();
        assert!((beyond - 10.0).abs() < 1e-6);
        assert_eq!(figure("tls_p50").of(&report), Some(3.0));
        assert_eq!(figure("lcp_p50").of(&report), None);
        assert_eq!(figure("failed").of(&report), None);
    }

    #[test]
    fn what_is_no_report_is_said_to_be_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        assert!(read(&path).unwrap_err().contains("cannot read"));
        for (text, why) in [
            ("{", "not JSON"),
            ("{}", "schema version none"),
            ("{\"schema_version\": 2, \"setup\": {}}", "schema version 2"),
            ("{\"schema_version\": 1}", "not the report of a storm"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = read(&path).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
