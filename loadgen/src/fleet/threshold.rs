//! `--fail`: what must hold of a run for it to pass.

use std::fmt;
use std::str::FromStr;

/// One condition, such as `loss<0.1%`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Threshold {
    pub(crate) figure: String,
    comparison: Comparison,
    /// In the figure's own unit: times in microseconds, shares as fractions.
    pub(crate) limit: f64,
    text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// What a figure is measured in, and the units its limit may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    /// Microseconds.
    Time,
    /// A fraction.
    Share,
    /// A plain number.
    Count,
}

const SHARES: [&str; 1] = ["loss"];

const COUNTS: [&str; 14] = [
    "duplicates",
    "reordered",
    "corrupted",
    "wrong_session",
    "failed",
    "disconnects",
    "rate",
    "pps",
    "bps",
    "ndr_pps",
    "up_bps",
    "down_bps",
    "cpu",
    "memory",
];

/// Distributions: a figure is one of these, `_`, and a quantile.
const TIMES: [&str; 13] = [
    "setup", "tcp", "tls", "http", "sstp", "lcp", "auth", "binding", "network", "echo", "ping",
    "latency", "lateness",
];

const QUANTILES: [&str; 5] = ["p50", "p90", "p99", "p999", "max"];

fn unit_of(figure: &str) -> Option<Unit> {
    if SHARES.contains(&figure) {
        return Some(Unit::Share);
    }
    if COUNTS.contains(&figure) {
        return Some(Unit::Count);
    }
    let (name, quantile) = figure.split_once('_')?;
    (TIMES.contains(&name) && QUANTILES.contains(&quantile)).then_some(Unit::Time)
}

impl Threshold {
    /// Whether `value`, in the figure's own unit, keeps to it.
    pub(crate) fn holds(&self, value: f64) -> bool {
        match self.comparison {
            Comparison::Less => value < self.limit,
            Comparison::LessOrEqual => value <= self.limit,
            Comparison::Greater => value > self.limit,
            Comparison::GreaterOrEqual => value >= self.limit,
        }
    }
}

impl FromStr for Threshold {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let at = text.find(['<', '>']).ok_or("there is no < or > in it")?;
        let (figure, rest) = text.split_at(at);
        let (comparison, limit) = match rest.split_at(1) {
            ("<", rest) => match rest.strip_prefix('=') {
                Some(rest) => (Comparison::LessOrEqual, rest),
                None => (Comparison::Less, rest),
            },
            (_, rest) => match rest.strip_prefix('=') {
                Some(rest) => (Comparison::GreaterOrEqual, rest),
                None => (Comparison::Greater, rest),
            },
        };
        let figure = figure.trim();
        let unit = unit_of(figure).ok_or_else(|| {
            format!(
                "there is no figure {figure:?}; there are {}, {}, and one of {} with _p50, _p90, _p99, \
                 _p999 or _max",
                SHARES.join(", "),
                COUNTS.join(", "),
                TIMES.join(", ")
            )
        })?;
        Ok(Self {
            figure: figure.to_owned(),
            comparison,
            limit: limit_of(unit, limit.trim())?,
            text: text.to_owned(),
        })
    }
}

fn limit_of(unit: Unit, text: &str) -> Result<f64, String> {
    let units: &[(&str, f64)] = match unit {
        Unit::Time => &[("us", 1.0), ("ms", 1e3), ("s", 1e6)],
        Unit::Share => &[("%", 0.01)],
        Unit::Count => &[("k", 1e3), ("M", 1e6), ("G", 1e9)],
    };
    let found = units
        .iter()
        .find_map(|(suffix, factor)| Some((text.strip_suffix(suffix)?, *factor)));
    let (digits, factor) = match (found, unit) {
        (Some(found), _) => found,
        (None, Unit::Time) => return Err("a time needs its unit: us, ms or s".to_owned()),
        (None, Unit::Share | Unit::Count) => (text, 1.0),
    };
    let number: f64 = digits
        .trim()
        .parse()
        .map_err(|_| format!("{digits:?} is no number"))?;
    if number.is_finite() && number >= 0.0 {
        Ok(number * factor)
    } else {
        Err(format!("{digits:?} is no limit"))
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn threshold(text: &str) -> Result<Threshold, String> {
        text.parse()
    }

    #[test]
    fn limits_have_units() {
        let close = |text: &str, limit: f64| {
            assert!(
                (threshold(text).unwrap().limit - limit).abs() < 1e-9,
                "{text}"
            );
        };
        close("loss<0.1%", 0.001);
        close("setup_p99<500ms", 500_000.0);
        close("latency_max<=1.5s", 1_500_000.0);
        close("pps>=20k", 20_000.0);
        close("wrong_session<1", 1.0);
        for bad in [
            "loss",
            "loss<",
            "setup_p99<5",
            "setup_p98<5ms",
            "speed>1",
            "loss<-1%",
            "loss<nan",
        ] {
            assert!(threshold(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn each_comparison_holds_where_it_says() {
        for (text, below, at, above) in [
            ("failed<5", true, false, false),
            ("failed<=5", true, true, false),
            ("failed>5", false, false, true),
            ("failed>=5", false, true, true),
        ] {
            let threshold = threshold(text).unwrap();
            assert_eq!(
                [4.0, 5.0, 6.0].map(|value| threshold.holds(value)),
                [below, at, above]
            );
        }
    }
}
