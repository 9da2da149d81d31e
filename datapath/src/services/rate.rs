//! At most `PER_SECOND` answers a second in the long run, after a burst of as many.

use super::Discard;
use crate::time::{Duration, Instant};

/// A token bucket of `PER_SECOND` tokens that is filled at `PER_SECOND` tokens a second.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate<const PER_SECOND: u8> {
    tokens: u8,
    filled_at: Instant,
}

impl<const PER_SECOND: u8> Default for Rate<PER_SECOND> {
    fn default() -> Self {
        Self {
            tokens: PER_SECOND,
            filled_at: Instant::ZERO,
        }
    }
}

impl<const PER_SECOND: u8> Rate<PER_SECOND> {
    const TOKEN_TIME: Duration = Duration::from_nanos(1_000_000_000 / PER_SECOND as u64);

    /// Takes a token, or says that the request is one too many.
    pub(super) fn take(&mut self, now: Instant) -> Result<(), Discard> {
        while self.tokens < PER_SECOND && after(self.filled_at, Self::TOKEN_TIME) <= now {
            self.tokens = self.tokens.saturating_add(1);
            self.filled_at = after(self.filled_at, Self::TOKEN_TIME);
        }
        if self.tokens == PER_SECOND {
            // A full bucket gains nothing by waiting.
            self.filled_at = now;
        }
        self.tokens = self.tokens.checked_sub(1).ok_or(Discard::Rate)?;
        Ok(())
    }
}

/// `delay` after `start`.
#[expect(clippy::arithmetic_side_effects, reason = "`Instant` saturates")]
pub(super) fn after(start: Instant, delay: Duration) -> Instant {
    start + delay
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_rate() {
        let mut rate = Rate::<5>::default();
        let start = Instant::from_nanos(7_000_000_000);
        let allowed_by = |rate: &mut Rate<5>, ms: u64| {
            (0..1000)
                .filter(|_| rate.take(start + Duration::from_millis(ms)).is_ok())
                .count()
        };
        assert_eq!(allowed_by(&mut rate, 0), 5);
        assert_eq!(allowed_by(&mut rate, 199), 0);
        assert_eq!(allowed_by(&mut rate, 200), 1);
        assert_eq!(allowed_by(&mut rate, 1000), 4);
        assert_eq!(
            allowed_by(&mut rate, 3_600_000),
            5,
            "never more than the burst"
        );
    }
}
