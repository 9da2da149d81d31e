//! When things are planned: evenly, from a start, whatever becomes of them.

use datapath::time::{Duration, Instant};

/// Fractions of a nanosecond in the interval, so that a long run does not drift.
const FRACTION_BITS: u32 = 24;

/// The planned times of a sequence of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pace {
    start: Instant,
    /// Nanoseconds between two, times 2^[`FRACTION_BITS`].
    interval: u64,
}

impl Pace {
    /// `rate` events a second from `start` on.
    pub(crate) fn new(start: Instant, rate: f64) -> Self {
        let interval = Duration::try_from_secs_f64(1.0 / rate);
        let fine = Duration::try_from_secs_f64(f64::from(1_u32 << FRACTION_BITS) / rate);
        // Slower than an event in nine minutes the fraction does not matter.
        let interval = match (fine, interval) {
            (Ok(fine), _) if fine.as_nanos() < u128::from(u64::MAX) => {
                u64::try_from(fine.as_nanos()).unwrap_or(u64::MAX)
            }
            (_, Ok(interval)) => u64::try_from(interval.as_nanos())
                .unwrap_or(u64::MAX)
                .saturating_mul(1 << FRACTION_BITS),
            _ => u64::MAX,
        };
        Self {
            start,
            interval: interval.max(1),
        }
    }

    /// When event `number`, from 0, is planned.
    pub(crate) fn at(&self, number: u64) -> Instant {
        let nanos = (u128::from(number) * u128::from(self.interval)) >> FRACTION_BITS;
        let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
        Instant::from_nanos(self.start.as_nanos().saturating_add(nanos))
    }

    /// How many events lie before `end`.
    pub(crate) fn count_before(&self, end: Instant) -> u64 {
        let (mut low, mut high) = (0, 1_u64 << 40);
        while low < high {
            let middle = low.midpoint(high);
            if self.at(middle) < end {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_millionth_event_is_as_exact_as_the_first() {
        let start = Instant::from_nanos(1_000);
        let pace = Pace::new(start, 3_000_000.0);
        assert_eq!(pace.at(0), start);
        assert_eq!(pace.at(3).as_nanos(), 1_000 + 999);
        let late = pace.at(3_000_000_000).as_nanos() - 1_000;
        assert!(late.abs_diff(1_000_000_000_000) < 100_000, "{late}");
        let slow = Pace::new(start, 0.001);
        assert_eq!(slow.at(1).as_nanos() / 1_000_000_000, 1_000);
    }
}
