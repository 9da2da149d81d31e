//! Whether a figure changed, or only wavered.
//!
//! The rule: a change counts if it is larger than the noise, and the noise of a figure is the largest
//! of
//!
//! - 5 % of it, 10 % of a p99 and 20 % of a p99.9: what two runs of one build differ by on a machine
//!   that does other things too;
//! - how far the run itself wavered: the interquartile range of the figure over the seconds of the run,
//!   as a share of its median, in the run that wavered more (for figures that the timeline has);
//! - what chance does: for a quantile, three by the square root of the values beyond it in the run that
//!   has fewer; for events, three times the square root of how many there were in both.
//!
//! A quantile with fewer than ten values beyond it in either run is not judged, and a maximum never: it
//! is one value. Nor are times and rates if either run was bound by its generator, whose they are then.

use serde::Serialize;
use serde_json::Value;

use super::is_better;
use crate::saved::{Figure, Unit, is, list, number};

/// Values beyond a quantile from which it says something.
const BEYOND_MIN: f64 = 9.999;

/// Seconds from which a timeline tells how a figure wavers.
const SECONDS_MIN: usize = 4;

/// What is said of one figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    Better,
    Worse,
    /// Beyond the noise, of a figure that has no better or worse.
    Changed,
    /// Within the noise.
    Same,
    /// They are loadgen's own.
    GeneratorBound,
    /// Too few values to say anything.
    TooFew,
    /// One value, or in one run only.
    NotJudged,
}

impl Verdict {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Worse => "WORSE",
            Self::Changed => "changed",
            Self::Same => "same",
            Self::GeneratorBound => "generator-bound",
            Self::TooFew => "too few values",
            Self::NotJudged => "",
        }
    }
}

/// A figure of two runs, judged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Judged {
    /// Of the first; none if that is nothing.
    pub(super) change: Option<f64>,
    pub(super) noise: Option<f64>,
    pub(super) verdict: Verdict,
}

pub(super) fn judge(figure: &Figure, a: &Value, b: &Value) -> Judged {
    let not_judged = |change, verdict| Judged {
        change,
        noise: None,
        verdict,
    };
    let (Some(from), Some(to)) = (figure.of(a), figure.of(b)) else {
        return not_judged(None, Verdict::NotJudged);
    };
    let change = change(from, to);
    if let Some((_, share)) = figure.quantile {
        if share >= 1.0 {
            return not_judged(change, Verdict::NotJudged);
        }
        let is_known = |report| {
            figure
                .count_beyond(report)
                .is_some_and(|count| count >= BEYOND_MIN)
        };
        if !is_known(a) || !is_known(b) {
            return not_judged(change, Verdict::TooFew);
        }
    }
    let is_count = matches!(figure.unit, Unit::Events | Unit::Share | Unit::Bytes);
    if !is_count && (is(a, "generator_bound") || is(b, "generator_bound")) {
        return not_judged(change, Verdict::GeneratorBound);
    }
    let difference = (to - from).abs();
    let (noise, absolute) = if figure.unit == Unit::Events {
        let absolute = 3.0 * (from + to).max(0.0).sqrt();
        ((from > 0.0).then(|| absolute / from), absolute)
    } else {
        let noise = [a, b].into_iter().fold(floor(figure), |noise, report| {
            noise
                .max(wavering(&figure.name, report))
                .max(chance(figure, report))
        });
        (Some(noise), noise * from.abs())
    };
    let verdict = match is_better(figure.better, to > from) {
        _ if difference <= absolute => Verdict::Same,
        Some(true) => Verdict::Better,
        Some(false) => Verdict::Worse,
        None => Verdict::Changed,
    };
    Judged {
        change,
        noise,
        verdict,
    }
}

/// The relative change; none from nothing to something.
pub(super) fn change(from: f64, to: f64) -> Option<f64> {
    if from == to {
        Some(0.0)
    } else {
        (from != 0.0).then(|| (to - from) / from.abs())
    }
}

fn floor(figure: &Figure) -> f64 {
    match figure.quantile {
        Some((_, share)) if share > 0.99 => 0.2,
        Some((_, share)) if share > 0.9 => 0.1,
        _ => 0.05,
    }
}

/// How far a quantile of so many values is off by chance; 0 of any other figure.
fn chance(figure: &Figure, report: &Value) -> f64 {
    let beyond = figure.count_beyond(report).filter(|&count| count > 0.0);
    beyond.map_or(0.0, |count| 3.0 / count.sqrt())
}

/// The interquartile range of a figure over the seconds of a run, as a share of its median; 0 where
/// the timeline does not tell.
fn wavering(figure: &str, report: &Value) -> f64 {
    let path = match figure.split_once('_') {
        Some(("setup", quantile)) => format!("setup_us.{}", known(quantile)),
        Some(("echo", quantile)) => format!("lcp_echo_us.{}", known(quantile)),
        Some(("latency", quantile)) => format!("latency_us.{}", known(quantile)),
        Some(("lateness", quantile)) => format!("send_lateness_us.{}", known(quantile)),
        _ => match figure {
            "rate" => "came_up".to_owned(),
            "pps" => "received".to_owned(),
            "bps" => "received_bytes".to_owned(),
            _ => return 0.0,
        },
    };
    let points = list(report, "timeline.points");
    let seconds = points.iter().filter_map(|point| number(point, &path));
    let mut seconds: Vec<f64> = seconds.filter(|&value| value > 0.0).collect();
    // The first and the last were begun or ended within the second.
    if seconds.len() > 2 {
        seconds.pop();
        seconds.remove(0);
    }
    seconds.sort_by(f64::total_cmp);
    let at = |part: usize| seconds.get(seconds.len() * part / 4).copied();
    match (at(1), at(2), at(3)) {
        (Some(low), Some(median), Some(high)) if seconds.len() >= SECONDS_MIN && median > 0.0 => {
            (high - low) / median
        }
        _ => 0.0,
    }
}

/// The timeline has no p99.9; its p99 wavers less, so this asks no more than is known.
fn known(quantile: &str) -> &str {
    if quantile == "p999" { "p99" } else { quantile }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saved::figures;

    fn verdict(name: &str, a: &Value, b: &Value) -> Verdict {
        let figures = figures();
        let figure = figures.iter().find(|figure| figure.name == name).unwrap();
        judge(figure, a, b).verdict
    }

    /// A run whose p99 of latency was this, and in its seconds these.
    fn run(p99: f64, seconds: &[f64]) -> Value {
        let points: Vec<Value> = seconds
            .iter()
            .map(|p99| serde_json::json!({"latency_us": {"p99": p99}, "received": 1000}))
            .collect();
        serde_json::json!({
            "traffic": {
                "latency_us": {"count": 100_000, "p99": p99, "max": p99 * 9.0},
                "pps_received": 1000.0,
            },
            "timeline": {"interval_s": 1, "points": points},
        })
    }

    #[test]
    fn a_change_is_what_is_beyond_the_noise() {
        let steady = run(100.0, &[100.0; 10]);
        let seconds = [
            0.0, 60.0, 70.0, 100.0, 100.0, 100.0, 120.0, 140.0, 150.0, 0.0,
        ];
        let wavering = run(100.0, &seconds);
        for (a, p99, expected) in [
            (&steady, 109.0, Verdict::Same),
            (&steady, 111.0, Verdict::Worse),
            (&steady, 80.0, Verdict::Better),
            (&wavering, 111.0, Verdict::Same),
            (&wavering, 190.0, Verdict::Worse),
        ] {
            let b = run(p99, &[p99; 10]);
            assert_eq!(verdict("latency_p99", a, &b), expected, "{p99}");
        }
        assert_eq!(
            verdict("latency_max", &steady, &wavering),
            Verdict::NotJudged
        );
        assert_eq!(
            verdict("latency_p90", &steady, &wavering),
            Verdict::NotJudged
        );
    }

    #[test]
    fn events_are_compared_as_chance_allows() {
        let failed = |count: u32| serde_json::json!({"setup": {"failed": count}});
        for (from, to, expected) in [
            (0, 0, Verdict::Same),
            (0, 9, Verdict::Same),
            (0, 10, Verdict::Worse),
            (100, 130, Verdict::Same),
            (100, 160, Verdict::Worse),
            (100, 50, Verdict::Better),
        ] {
            assert_eq!(
                verdict("failed", &failed(from), &failed(to)),
                expected,
                "{from} {to}"
            );
        }
    }

    #[test]
    fn few_values_make_no_quantile() {
        let few = |count: u32| {
            let total = serde_json::json!({"count": count, "p99": 1.0, "p50": 1.0});
            serde_json::json!({"setup": {"total_us": total}})
        };
        assert_eq!(
            verdict("setup_p99", &few(900), &few(5_000)),
            Verdict::TooFew
        );
        assert_eq!(
            verdict("setup_p99", &few(1_000), &few(5_000)),
            Verdict::Same
        );
        assert_eq!(verdict("setup_p50", &few(30), &few(30)), Verdict::Same);
        let took = |p50: f64, count: u32| {
            let total = serde_json::json!({"count": count, "p50": p50});
            serde_json::json!({"setup": {"total_us": total}})
        };
        assert_eq!(
            verdict("setup_p50", &took(1.0, 60), &took(1.5, 60)),
            Verdict::Same
        );
        assert_eq!(
            verdict("setup_p50", &took(1.0, 6_000), &took(1.5, 6_000)),
            Verdict::Worse
        );
    }

    #[test]
    fn what_the_generator_made_is_not_the_servers() {
        let (a, mut b) = (run(100.0, &[100.0; 10]), run(150.0, &[150.0; 10]));
        assert_eq!(verdict("latency_p99", &a, &b), Verdict::Worse);
        b["generator_bound"] = true.into();
        assert_eq!(verdict("latency_p99", &a, &b), Verdict::GeneratorBound);
    }
}
