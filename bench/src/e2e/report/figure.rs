//! What the rounds read, and all that they read.

use std::fmt;

use serde::Serialize;

use crate::floor::Spread;

/// Values of one figure, one a round, and what stands for them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// Half are below; not a number if there are none.
    pub median: f64,
    /// The least of them.
    pub least: f64,
    /// The most.
    pub most: f64,
    /// Each, in the order of the rounds.
    pub samples: Vec<f64>,
}

impl Figure {
    /// Of these values. A round in which nothing came through has none, and stands for nothing.
    #[must_use]
    pub fn of(samples: Vec<f64>) -> Self {
        let Spread { median, min, max } =
            Spread::of(samples.iter().copied().filter(|value| value.is_finite()));
        Self {
            median,
            least: min,
            most: max,
            samples,
        }
    }

    /// Of the rounds' ratios, each of two values of one round.
    #[must_use]
    pub fn ratio(values: &[f64], others: &[f64]) -> Self {
        let rounds = values.iter().zip(others);
        Self::of(rounds.map(|(value, other)| value / other).collect())
    }
}

/// Median, least and most.
impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", short(self.median), self.spread())
    }
}

impl Figure {
    /// Least and most.
    pub(crate) fn spread(&self) -> String {
        format!("({}..{})", short(self.least), short(self.most))
    }
}

/// Three significant digits.
pub(crate) fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_that_of_the_rounds() {
        // A noisy round is noisy for both.
        let ratio = Figure::ratio(&[300.0, 600.0], &[200.0, 400.0]);
        assert_eq!((ratio.median, ratio.least, ratio.most), (1.5, 1.5, 1.5));
        assert_eq!(
            Figure::of(vec![3.0, 1.0, 2.0]).to_string(),
            "2.00 (1.00..3.00)"
        );
        assert!(Figure::of(Vec::new()).median.is_nan());
        assert_eq!(Figure::of(vec![f64::NAN, 1.0]).most, 1.0);
    }

    #[test]
    fn numbers_are_as_long_as_they_are_known() {
        assert_eq!(short(1234.5), "1234");
        assert_eq!(short(12.345), "12.3");
        assert_eq!(short(1.2345), "1.23");
    }
}
