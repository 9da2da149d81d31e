//! A bound on how often something may happen: so many times in a window.
//!
//! Windows are fixed, not sliding: at most twice the count can fall into a stretch of one window's
//! length, which is bound enough for answers to a peer.

use crate::time::{Duration, Instant};

/// Counts the current window.
#[derive(Clone, Debug)]
pub(super) struct Rate {
    count_max: u16,
    window: Duration,
    started: Instant,
    count: u16,
}

impl Rate {
    pub(super) const fn new(count_max: u16, window: Duration) -> Self {
        Self {
            count_max,
            window,
            started: Instant::ZERO,
            count: 0,
        }
    }

    /// Counts one more; `false` if that is too many.
    pub(super) fn allow(&mut self, now: Instant) -> bool {
        if now.saturating_since(self.started) >= self.window {
            self.started = now;
            self.count = 0;
        }
        if self.count >= self.count_max {
            return false;
        }
        self.count = self.count.saturating_add(1);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_allows_its_count_and_the_next_window_again() {
        let mut rate = Rate::new(2, Duration::from_secs(1));
        let at = |millis: u64| Instant::from_nanos(millis * 1_000_000);
        assert!(rate.allow(at(5000)) && rate.allow(at(5500)));
        assert!(!rate.allow(at(5999)));
        assert!(rate.allow(at(6000)));
    }
}
