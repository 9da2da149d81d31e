//! What the rounds' ratios say: better, the same or worse.
//!
//! Nothing is known of how noise is distributed on a shared machine, so nothing is assumed but that the
//! rounds are alike: if there is no difference, a round's ratio is as likely above 1 as below. Of the ordered
//! ratios as many are left out at both ends as that allows (the sign test's interval of the median), and
//! what is left must lie on one side of 1.

use serde::Serialize;

/// How often a run of the harness may call a difference that is not there, all its rows together.
pub(super) const ERROR_MAX: f64 = 0.05;

/// How a row of this tree stands to the baseline's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It costs less.
    Better,
    /// No difference can be told.
    Same,
    /// It costs more.
    Worse,
}

/// What is left of the ratios.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// The least of them.
    pub low: f64,
    /// The most.
    pub high: f64,
}

impl Interval {
    /// Of the median of `ratios`, wrong with a probability of `error_max` at most. With fewer than
    /// [`rounds_min`] of them everything is possible.
    pub(super) fn of(ratios: &[f64], error_max: f64) -> Self {
        let mut sorted = ratios.to_vec();
        sorted.sort_by(f64::total_cmp);
        let count = sorted.len();
        let bounds = left_out(count, error_max)
            .and_then(|cut| Some((*sorted.get(cut)?, *sorted.get(count.checked_sub(cut + 1)?)?)));
        match bounds {
            Some((low, high)) => Self { low, high },
            None => Self {
                low: 0.0,
                high: f64::INFINITY,
            },
        }
    }

    /// Of costs: less is better.
    pub(super) fn verdict(self) -> Verdict {
        if self.high < 1.0 {
            Verdict::Better
        } else if self.low > 1.0 {
            Verdict::Worse
        } else {
            Verdict::Same
        }
    }
}

/// How many of `count` ordered ratios are left out at each end; `None` if even none are too many.
fn left_out(count: usize, error_max: f64) -> Option<usize> {
    let mut binomial = 1.0;
    let mut tail = 0.0;
    let mut fits = None;
    for cut in 0..count / 2 {
        // Both ends, each as likely as `cut` or fewer heads in `count` throws.
        tail += binomial;
        if 2.0 * tail / 2_f64.powf(count as f64) > error_max {
            break;
        }
        fits = Some(cut);
        binomial *= (count - cut) as f64 / (cut + 1) as f64;
    }
    fits
}

/// Rounds that it takes to call any difference, if all of them agree.
pub(super) fn rounds_min(error_max: f64) -> u32 {
    // The bound keeps a nonsensical error from running for ever.
    let enough = |rounds: &u32| left_out(*rounds as usize, error_max).is_some();
    (2..64).find(enough).unwrap_or(64)
}

/// Ratios of two series of the same rounds.
pub(super) fn ratios(this: &[f64], baseline: &[f64]) -> Vec<f64> {
    let pairs = this.iter().zip(baseline);
    pairs.map(|(this, baseline)| this / baseline).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_are_left_out_as_the_error_allows() {
        // 2 / 2^6 = 3.1 %, 2 / 2^5 = 6.3 %.
        assert_eq!(left_out(6, 0.05), Some(0));
        assert_eq!(left_out(5, 0.05), None);
        // 2 (1 + 12) / 2^12 = 0.63 %, and with the next 79 / 2^11 = 3.9 %.
        assert_eq!(left_out(12, 0.01), Some(1));
        assert_eq!(left_out(12, 0.05), Some(2));
        assert_eq!(left_out(0, 0.05), None);
        assert_eq!(rounds_min(0.05), 6);
        assert_eq!(rounds_min(0.05 / 22.0), 10);
    }

    #[test]
    fn one_round_among_many_decides_nothing() {
        let mut ratios = vec![
            1.10, 1.08, 1.12, 1.09, 1.11, 1.07, 1.13, 1.10, 1.09, 1.10, 1.10,
        ];
        ratios.push(0.4);
        let interval = Interval::of(&ratios, 0.01);
        assert_eq!((interval.low, interval.high), (1.07, 1.12));
        assert_eq!(interval.verdict(), Verdict::Worse);
        let turned: Vec<f64> = ratios.iter().map(|ratio| 1.0 / ratio).collect();
        assert_eq!(Interval::of(&turned, 0.01).verdict(), Verdict::Better);
    }

    #[test]
    fn what_lies_on_both_sides_is_the_same() {
        let ratios = [0.9, 1.1, 0.95, 1.3, 1.2, 1.1, 0.99, 1.05, 1.01, 1.1];
        assert_eq!(Interval::of(&ratios, 0.05).verdict(), Verdict::Same);
        assert_eq!(Interval::of(&[1.0; 12], 0.05).verdict(), Verdict::Same);
    }

    #[test]
    fn too_few_rounds_and_no_numbers_call_nothing() {
        assert_eq!(Interval::of(&[2.0; 5], 0.05).verdict(), Verdict::Same);
        assert_eq!(Interval::of(&[], 0.05).verdict(), Verdict::Same);
        assert_eq!(Interval::of(&[f64::NAN; 9], 0.05).verdict(), Verdict::Same);
    }

    #[test]
    fn ratios_are_those_of_the_rounds() {
        assert_eq!(ratios(&[3.0, 8.0], &[2.0, 4.0]), [1.5, 2.0]);
    }
}
