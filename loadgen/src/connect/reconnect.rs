//! When to try again: ever longer waits, of which chance decides half, so that the clients of a server
//! that comes back do not all come back at once.
//!
//! Units: milliseconds. Bounds: [`FIRST_MS`] to [`LONGEST_MS`]. It draws no randomness: the seed is
//! passed in.

use datapath::time::Duration;

/// The first wait, at most.
const FIRST_MS: u64 = 1_000;
/// The longest wait.
const LONGEST_MS: u64 = 60_000;

/// A session that lived so long was a good one: the next wait is short again.
pub(crate) const GOOD_AFTER: Duration = Duration::from_secs(30);

/// How long to wait before the next attempt.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    random: u64,
    longest_ms: u64,
}

impl Backoff {
    /// From `seed` follows every wait.
    pub(crate) const fn new(seed: u64) -> Self {
        Self {
            random: seed,
            longest_ms: FIRST_MS,
        }
    }

    /// The next wait: between half of the longest it may be now and that.
    pub(crate) fn next_wait(&mut self) -> Duration {
        let half = self.longest_ms / 2;
        let wait = half + self.draw() % (half + 1);
        self.longest_ms = self.longest_ms.saturating_mul(2).min(LONGEST_MS);
        Duration::from_millis(wait)
    }

    /// A session was good.
    pub(crate) const fn reset(&mut self) {
        self.longest_ms = FIRST_MS;
    }

    /// Steele and others' SplitMix64.
    const fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_minute_and_chance_decides_half() {
        for seed in 0..200 {
            let mut backoff = Backoff::new(seed);
            for longest in [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000] {
                let wait = backoff.next_wait();
                let bounds = Duration::from_millis(longest / 2)..=Duration::from_millis(longest);
                assert!(bounds.contains(&wait), "{wait:?} of {longest} ms");
            }
            backoff.reset();
            assert!(backoff.next_wait() <= Duration::from_secs(1));
        }
    }

    #[test]
    fn two_clients_do_not_wait_alike() {
        let waits = |seed| {
            let mut backoff = Backoff::new(seed);
            [(); 6].map(|()| backoff.next_wait())
        };
        assert_ne!(waits(1), waits(2));
        assert_eq!(waits(3), waits(3));
    }
}
