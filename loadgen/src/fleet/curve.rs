//! When starts are planned: at a rate, or at one that rises or falls.

use datapath::time::{Duration, Instant};

use super::pace::Pace;

/// A rate of starts over time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Curve {
    /// So many a second.
    Even { rate: f64 },
    /// From one rate to another, evenly, within `time`.
    Ramp { from: f64, to: f64, time: Duration },
}

impl Curve {
    /// The events that are planned within `time` of the start.
    pub(crate) fn count_within(&self, time: Duration) -> u32 {
        let start = Instant::ZERO;
        let (mut low, mut high) = (0, u32::MAX);
        while low < high {
            let middle = low.midpoint(high);
            if self.at(start, middle) < start + time {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// When event `number`, from 0, is planned if the first is at `start`.
    pub(crate) fn at(&self, start: Instant, number: u32) -> Instant {
        match *self {
            Self::Even { rate } => Pace::new(start, rate).at(u64::from(number)),
            Self::Ramp { from, to, time } => {
                // n = from·t + slope·t²/2, solved for t in the form that is exact for slope 0 too.
                let number = f64::from(number);
                let slope = (to - from) / time.as_secs_f64().max(1e-9);
                let root = (from * from + 2.0 * slope * number).max(0.0).sqrt();
                let seconds = if from + root > 0.0 {
                    2.0 * number / (from + root)
                } else {
                    0.0
                };
                start + Duration::try_from_secs_f64(seconds).unwrap_or(time)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(curve: &Curve, number: u32) -> f64 {
        let start = Instant::from_nanos(5_000_000_000);
        curve
            .at(start, number)
            .saturating_since(start)
            .as_secs_f64()
    }

    #[test]
    fn a_ramp_rises_evenly() {
        let time = Duration::from_secs(10);
        let (from, to) = (0.0, 20.0);
        let ramp = Curve::Ramp { from, to, time };
        assert_eq!(ramp.count_within(time), 100);
        assert_eq!(Curve::Even { rate: 0.5 }.count_within(time), 5);
        assert_eq!(seconds(&ramp, 0), 0.0);
        // A quarter of the events in the first half of the time.
        assert!((seconds(&ramp, 25) - 5.0).abs() < 1e-6);
        assert!((seconds(&ramp, 100) - 10.0).abs() < 1e-6);
        let falling = Curve::Ramp {
            from: 20.0,
            to: 0.0,
            time,
        };
        assert!((seconds(&falling, 75) - 5.0).abs() < 1e-6);
        assert!((seconds(&falling, 100) - 10.0).abs() < 1e-3);
        let level = Curve::Ramp {
            from: 4.0,
            to: 4.0,
            time,
        };
        assert!((seconds(&level, 8) - 2.0).abs() < 1e-9);
        assert!((seconds(&Curve::Even { rate: 4.0 }, 8) - 2.0).abs() < 1e-6);
    }
}
