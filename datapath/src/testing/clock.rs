//! A clock that stands still until it is moved.

use std::cell::Cell;
use std::rc::Rc;

use crate::time::{Duration, Instant};

/// Virtual time, shared by its clones.
#[derive(Clone, Debug)]
pub struct Clock(Rc<Cell<Instant>>);

impl Default for Clock {
    /// Starts at one hour, so that a test can look back.
    fn default() -> Self {
        Self(Rc::new(Cell::new(
            Instant::ZERO + Duration::from_secs(3600),
        )))
    }
}

impl Clock {
    /// What time it is.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.0.get()
    }

    /// Moves to `at`; never back.
    pub fn advance_to(&self, at: Instant) {
        self.0.set(self.now().max(at));
    }

    /// Moves forward by `duration`.
    pub fn advance(&self, duration: Duration) {
        self.advance_to(self.now() + duration);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_share_the_time_and_it_never_goes_back() {
        let clock = Clock::default();
        let other = clock.clone();
        let start = clock.now();
        clock.advance(Duration::from_secs(1));
        assert_eq!(other.now().saturating_since(start), Duration::from_secs(1));
        other.advance_to(start);
        assert!(clock.now() > start);
    }
}
