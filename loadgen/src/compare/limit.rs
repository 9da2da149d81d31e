//! `--fail` of a comparison: how far a figure may move from the first run to the second.

use std::fmt;
use std::str::FromStr;

use super::verdict::change;
use crate::saved;

/// One condition, such as `latency_p99<+10%`: the change of the figure must be less than that.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Limit {
    pub(crate) figure: String,
    is_upper: bool,
    /// Whether the limit itself is good.
    is_inclusive: bool,
    /// A share of the first run's value.
    change: f64,
    text: String,
}

impl Limit {
    /// Whether a change from `a` to `b` keeps to it. From nothing, anything is without limit.
    pub(super) fn holds(&self, a: f64, b: f64) -> bool {
        let change = change(a, b).unwrap_or(if b > a {
            f64::INFINITY
        } else {
            f64::NEG_INFINITY
        });
        (self.is_inclusive && change == self.change)
            || if self.is_upper {
                change < self.change
            } else {
                change > self.change
            }
    }
}

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let at = text.find(['<', '>']).ok_or("there is no < or > in it")?;
        let (figure, rest) = text.split_at(at);
        let figure = figure.trim();
        let is_upper = rest.starts_with('<');
        let rest = rest.get(1..).unwrap_or_default();
        let (is_inclusive, limit) = match rest.strip_prefix('=') {
            Some(limit) => (true, limit),
            None => (false, rest),
        };
        if !saved::figures().iter().any(|known| known.name == figure) {
            return Err(format!(
                "there is no figure {figure:?}; `loadgen compare` without --fail lists those of two reports"
            ));
        }
        let digits = limit
            .trim()
            .strip_suffix('%')
            .ok_or("the limit of a change is a percentage, such as +10%")?;
        let percent: f64 = digits
            .trim()
            .parse()
            .map_err(|_| format!("{digits:?} is no number"))?;
        if !percent.is_finite() {
            return Err(format!("{digits:?} is no limit"));
        }
        Ok(Self {
            figure: figure.to_owned(),
            is_upper,
            is_inclusive,
            change: percent / 100.0,
            text: text.to_owned(),
        })
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_on_the_change() {
        let holds = |text: &str, a: f64, b: f64| text.parse::<Limit>().unwrap().holds(a, b);
        assert!(holds("latency_p99<+10%", 100.0, 109.0));
        assert!(!holds("latency_p99<+10%", 100.0, 111.0));
        assert!(holds("pps>-5%", 100.0, 96.0));
        assert!(!holds("pps>-5%", 100.0, 94.0));
        assert!(!holds("failed<0%", 5.0, 5.0) && holds("failed<=0%", 5.0, 5.0));
        assert!(!holds("failed<1000%", 0.0, 1.0), "from nothing");
        assert!(holds("failed<=0%", 0.0, 0.0));
    }

    #[test]
    fn what_is_no_limit_is_refused() {
        for bad in ["loss", "speed<1%", "loss<1", "loss<x%", "loss<nan%", "<1%"] {
            assert!(bad.parse::<Limit>().is_err(), "{bad}");
        }
    }
}
