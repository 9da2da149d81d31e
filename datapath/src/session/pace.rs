//! How much to give the kernel at once: as much as the connection carries in a few milliseconds.
//!
//! What the kernel holds can no longer be dropped, marked or overtaken. A send of 64 KB is 52 ms of
//! waiting at 10 Mbit/s, and nothing at 10 Gbit/s, where smaller sends cost CPU. So the connection's
//! rate is measured while it is the limit, and the *quantum* follows in powers of two; the kernel's
//! own store of unsent bytes (TCP_NOTSENT_LOWAT) is kept at one quantum, which it lets fall to half
//! before it takes more: that is a millisecond or two, and a turn is shorter.
//!
//! ```text
//! quantum   4 KB    8 KB     16 KB    32 KB     64 KB
//! rate         … 26     … 52     … 105    … 210      …   Mbit/s
//! ```
//!
//! Measured is only what is limited by the connection: from the end of a send that had to wait, over
//! sends that follow each other without a pause. Sends that never wait, one behind the other, say
//! that the connection is faster than thought.
//!
//! It does not read a clock and sets nothing: its owner asks [`Pace::quantum`], and
//! [`Pace::take_unsent_limit`] after each send.

use crate::time::{Duration, Instant};

/// The smallest quantum: three full packets.
pub(super) const QUANTUM_MIN: usize = 4 * 1_024;

/// The quantum of a connection that is fast, or not measured yet: all that a send can be.
pub(super) const QUANTUM_MAX: usize = 64 * 1_024;

/// Unsent bytes in the kernel on a fast connection: it must not run dry while others have their turn.
const UNSENT_LIMIT_MAX: usize = 128 * 1_024;

/// A quantum is what the connection carries in this time, or a little more, or half of it. A packet
/// that overtakes all others waits for a send, and for what is unsent before that: up to three quanta.
const QUANTUM_TIME: Duration = Duration::from_micros(2_500);

/// A send that took so long had to wait for the connection; turns are shorter.
const WAITED: Duration = Duration::from_micros(500);

/// A measurement lasts so long, at least.
const WINDOW: Duration = Duration::from_millis(8);

/// So many bytes without waiting for the connection double the quantum. The kernel takes a window
/// full of bytes at once when it was idle, so fewer would prove nothing.
const UNHINDERED_LEN: usize = 128 * 1_024;

/// The measured rate of one connection, and what follows from it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    quantum: usize,
    /// The kernel was told that of this quantum.
    told: usize,
    /// Length of the send under way, and when it began.
    send_len: usize,
    send_began: Instant,
    window: Option<Window>,
    /// Bytes sent one behind the other without waiting.
    unhindered_len: usize,
    /// One window said that the quantum is too large; two must.
    was_low: bool,
    /// Bytes a second, as last measured.
    rate: Option<u64>,
}

/// Bytes sent one behind the other, since the end of a send that waited.
#[derive(Clone, Copy, Debug)]
struct Window {
    since: Instant,
    len: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            quantum: QUANTUM_MAX,
            told: QUANTUM_MAX,
            send_len: 0,
            send_began: Instant::ZERO,
            window: None,
            unhindered_len: 0,
            was_low: false,
            rate: None,
        }
    }
}

impl Pace {
    /// Bytes to give to one send.
    pub(super) const fn quantum(&self) -> usize {
        self.quantum
    }

    /// Whether there is nothing to be gained by sending less than a send can be.
    pub(super) const fn is_full(&self) -> bool {
        self.quantum == QUANTUM_MAX
    }

    /// How long two full packets take: no queue can be kept shorter.
    pub(super) fn two_packets(&self) -> Duration {
        self.rate.map_or(Duration::ZERO, |rate| {
            Duration::from_nanos(3_000_000_000_000 / rate.max(1))
        })
    }

    /// A send of `len` bytes begins.
    pub(super) const fn started(&mut self, now: Instant, len: usize) {
        self.send_len = len;
        self.send_began = now;
    }

    /// It has ended; `more` waits to be sent at once.
    pub(super) fn sent(&mut self, now: Instant, more: bool) {
        let waited = now.saturating_since(self.send_began) >= WAITED;
        self.unhindered_len = if waited || !more {
            0
        } else {
            self.unhindered_len + self.send_len
        };
        if self.unhindered_len >= UNHINDERED_LEN {
            self.unhindered_len = 0;
            self.window = None;
            self.was_low = false;
            self.quantum = (self.quantum * 2).min(QUANTUM_MAX);
            return;
        }
        self.window = match self.window {
            // What comes next was not there to be sent: this says nothing of the connection.
            _ if !more => None,
            None => waited.then_some(Window { since: now, len: 0 }),
            // From the end of a send that waited to the end of another: in between, the kernel
            // takes more than the path does.
            Some(Window { since, len }) if waited && now.saturating_since(since) >= WINDOW => {
                self.measured(now.saturating_since(since), len + self.send_len);
                Some(Window { since: now, len: 0 })
            }
            Some(Window { since, len }) => Some(Window {
                since,
                len: len + self.send_len,
            }),
        };
    }

    /// The path took `len` bytes in `elapsed`, and could not have taken more.
    fn measured(&mut self, elapsed: Duration, len: usize) {
        let per_second = |len: usize| {
            let nanos = elapsed.as_nanos().max(1);
            u64::try_from(len as u128 * 1_000_000_000 / nanos).unwrap_or(u64::MAX)
        };
        self.rate = Some(per_second(len));
        let in_time = len as u128 * QUANTUM_TIME.as_nanos() / elapsed.as_nanos().max(1);
        let right = usize::try_from(in_time).unwrap_or(QUANTUM_MAX);
        // The quantum stays while it is between a half and eight sevenths of what is right.
        let is_low = right < self.quantum - self.quantum / 8;
        if right >= self.quantum * 2 {
            self.quantum = (self.quantum * 2).min(QUANTUM_MAX);
        } else if is_low && self.was_low {
            let floor = right.checked_ilog2().map_or(1, |power| 1 << power);
            self.quantum = floor.clamp(QUANTUM_MIN, QUANTUM_MAX);
        }
        self.was_low = is_low;
    }

    /// The number of unsent bytes the kernel shall hold at most, if that has changed.
    pub(super) const fn take_unsent_limit(&mut self) -> Option<usize> {
        if self.told == self.quantum {
            return None;
        }
        self.told = self.quantum;
        Some(if self.is_full() {
            UNSENT_LIMIT_MAX
        } else {
            self.quantum
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends for `time` over a connection of `rate` bytes a second that always has more to send.
    fn run(pace: &mut Pace, now: &mut Instant, rate: u64, time: Duration) -> Vec<usize> {
        let (end, mut limits) = (*now + time, Vec::new());
        while *now < end {
            let len = pace.quantum();
            pace.started(*now, len);
            // The turn of the loop takes its time, too.
            let nanos = (len as u64 * 1_000_000_000 / rate).max(20_000);
            *now = *now + Duration::from_nanos(nanos);
            pace.sent(*now, true);
            limits.extend(pace.take_unsent_limit());
        }
        limits
    }

    #[test]
    fn the_quantum_follows_the_rate_within_bounds() {
        for (mbit, quantum) in [(1, 4), (10, 4), (40, 8), (80, 16), (150, 32), (300, 64)] {
            let (mut pace, mut now) = (Pace::default(), Instant::ZERO);
            run(&mut pace, &mut now, mbit * 125_000, Duration::from_secs(4));
            assert_eq!(pace.quantum(), quantum * 1_024, "{mbit} Mbit/s");
        }
    }

    #[test]
    fn it_comes_down_and_up_in_no_time_and_changes_rarely() {
        let (mut pace, mut now) = (Pace::default(), Instant::ZERO);
        let limits = run(&mut pace, &mut now, 1_250_000, Duration::from_millis(300));
        assert_eq!(limits, [4 * 1_024], "10 Mbit/s");
        let limits = run(&mut pace, &mut now, 1_250_000, Duration::from_secs(60));
        assert_eq!(limits, [0; 0], "a steady rate changes nothing");
        let limits = run(&mut pace, &mut now, 125_000_000, Duration::from_millis(20));
        assert_eq!(
            limits,
            [8, 16, 32, 128].map(|kilo| kilo * 1_024),
            "1 Gbit/s"
        );
    }

    #[test]
    fn a_rate_at_a_border_does_not_flap() {
        // 52.4 Mbit/s is where 16 KB begin; it sways by 10 %.
        let (mut pace, mut now) = (Pace::default(), Instant::ZERO);
        run(&mut pace, &mut now, 6_550_000, Duration::from_secs(1));
        let mut changes = 0;
        for round in 0..200 {
            let rate = if round % 2 == 0 { 5_900_000 } else { 7_200_000 };
            changes += run(&mut pace, &mut now, rate, Duration::from_millis(50)).len();
        }
        assert!(changes <= 1, "{changes}");
    }

    #[test]
    fn a_connection_that_is_not_the_limit_is_not_measured() {
        let (mut pace, mut now) = (Pace::default(), Instant::ZERO);
        for _ in 0..10_000 {
            pace.started(now, 100);
            now = now + Duration::from_micros(50);
            pace.sent(now, false);
            now = now + Duration::from_millis(1);
        }
        assert!(pace.is_full(), "a trickle is not slow");
    }

    #[test]
    fn one_hiccup_is_no_measurement() {
        let (mut pace, mut now) = (Pace::default(), Instant::ZERO);
        run(
            &mut pace,
            &mut now,
            1_000_000_000,
            Duration::from_millis(50),
        );
        pace.started(now, QUANTUM_MAX);
        now = now + Duration::from_millis(20);
        pace.sent(now, true);
        run(
            &mut pace,
            &mut now,
            1_000_000_000,
            Duration::from_millis(50),
        );
        assert!(pace.is_full());
    }
}
