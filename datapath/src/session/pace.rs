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
//! Measured is only what is limited by the connection: from the end of a send that had to wait to the end
//! of another, if in between sends followed each other without a pause, or the one after the pause had
//! to wait, too: then the kernel never ran dry. Many bytes in a short time that did not wait say that the
//! connection is faster than thought.
//!
//! Of a new connection the kernel holds the least, so that a path that is the limit shows at the first
//! send that finds it busy. The sends themselves are as long as can be until then: one that finds the
//! kernel empty delays nothing that could have gone before it, and on a connection that is never the
//! limit more of them would only cost CPU.
//!
//! It does not read a clock and sets nothing: its owner asks [`Pace::quantum`], and
//! [`Pace::take_unsent_limit`] after each send.

use crate::io::UNSENT_LIMIT_AT_START;
use crate::time::{Duration, Instant};

/// The smallest quantum: three full packets.
pub(super) const QUANTUM_MIN: usize = UNSENT_LIMIT_AT_START;

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

/// So many bytes without waiting for the connection double the quantum, if they came at the rate of the
/// doubled one. The kernel takes a window full of bytes at once when it was idle, so fewer would prove
/// nothing: 60 KB at 10 Mbit/s over 40 ms.
const UNHINDERED_LEN: usize = 128 * 1_024;

/// The measured rate of one connection, and what follows from it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// What the kernel may hold unsent; and of a send, once something is known.
    quantum: usize,
    /// The connection was neither the limit for long nor carried much: nothing is known of it.
    is_new: bool,
    /// The number of unsent bytes that the kernel was told.
    told: usize,
    /// Length of the send under way, and when it began.
    send_len: usize,
    send_began: Instant,
    window: Option<Window>,
    /// Bytes sent without waiting, and since when.
    unhindered_len: usize,
    unhindered_since: Instant,
    /// One window said that the quantum is too large; two must.
    was_low: bool,
    /// Bytes a second, as last measured.
    rate: Option<u64>,
}

/// Bytes sent since the end of a send that waited, of which the kernel has always had some to send.
#[derive(Clone, Copy, Debug)]
struct Window {
    since: Instant,
    len: usize,
    /// There was nothing to send behind the last one: only if the next one waits had the kernel enough.
    is_in_doubt: bool,
}

impl Window {
    const fn new(since: Instant, more: bool) -> Self {
        Self {
            since,
            len: 0,
            is_in_doubt: !more,
        }
    }
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            quantum: QUANTUM_MIN,
            is_new: true,
            told: UNSENT_LIMIT_AT_START,
            send_len: 0,
            send_began: Instant::ZERO,
            window: None,
            unhindered_len: 0,
            unhindered_since: Instant::ZERO,
            was_low: false,
            rate: None,
        }
    }
}

impl Pace {
    /// Bytes to give to one send.
    pub(super) const fn quantum(&self) -> usize {
        if self.is_new {
            QUANTUM_MAX
        } else {
            self.quantum
        }
    }

    /// Whether there is nothing to be gained by sending less than a send can be.
    pub(super) const fn is_full(&self) -> bool {
        self.quantum() == QUANTUM_MAX
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
        if waited || now.saturating_since(self.unhindered_since) > self.time_to_double() {
            self.unhindered_since = now;
            self.unhindered_len = 0;
        }
        if !waited {
            self.unhindered_len += self.send_len;
        }
        if self.unhindered_len >= UNHINDERED_LEN {
            self.unhindered_since = now;
            self.unhindered_len = 0;
            self.window = None;
            self.was_low = false;
            self.set_quantum(self.quantum * 2);
            return;
        }
        self.window = match self.window {
            None => waited.then_some(Window::new(now, more)),
            // It may have run dry in the pause: this says nothing of the connection.
            Some(Window {
                is_in_doubt: true, ..
            }) if !waited => None,
            // From the end of a send that waited to the end of another: in between, the kernel
            // takes more than the path does.
            Some(Window { since, len, .. }) if waited && now.saturating_since(since) >= WINDOW => {
                self.measured(now.saturating_since(since), len + self.send_len);
                Some(Window::new(now, more))
            }
            Some(Window { since, len, .. }) => Some(Window {
                since,
                len: len + self.send_len,
                is_in_doubt: !more,
            }),
        };
    }

    /// What [`UNHINDERED_LEN`] takes at the rate of twice the quantum.
    fn time_to_double(&self) -> Duration {
        let quanta = UNHINDERED_LEN / (2 * self.quantum);
        QUANTUM_TIME * u32::try_from(quanta.max(1)).unwrap_or(1)
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
        let quantum = self.quantum();
        let is_low = right < quantum - quantum / 8;
        if right >= quantum * 2 {
            self.set_quantum(quantum * 2);
        } else if is_low && self.was_low {
            let floor = right.checked_ilog2().map_or(1, |power| 1 << power);
            self.set_quantum(floor);
            self.is_new = false;
        } else if !is_low {
            self.set_quantum(quantum);
        }
        self.was_low = is_low;
    }

    fn set_quantum(&mut self, quantum: usize) {
        self.quantum = quantum.clamp(QUANTUM_MIN, QUANTUM_MAX);
        self.is_new &= self.quantum < QUANTUM_MAX;
    }

    /// The number of unsent bytes the kernel shall hold at most, if that has changed.
    pub(super) fn take_unsent_limit(&mut self) -> Option<usize> {
        let limit = if self.quantum == QUANTUM_MAX {
            UNSENT_LIMIT_MAX
        } else {
            self.quantum
        };
        (std::mem::replace(&mut self.told, limit) != limit).then_some(limit)
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
        assert_eq!((pace.quantum(), limits), (QUANTUM_MIN, vec![]), "10 Mbit/s");
        let limits = run(&mut pace, &mut now, 1_250_000, Duration::from_secs(60));
        assert_eq!(limits, [0; 0], "a steady rate changes nothing");
        let up = [8, 16, 32, 128].map(|kilo| kilo * 1_024);
        let limits = run(&mut pace, &mut now, 125_000_000, Duration::from_millis(20));
        assert_eq!(limits, up, "1 Gbit/s");
        let (mut pace, mut now) = (Pace::default(), Instant::ZERO);
        let limits = run(&mut pace, &mut now, 125_000_000, Duration::from_millis(10));
        assert_eq!(limits, up[3..], "1 Gbit/s from the start");
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
        assert_eq!(pace.take_unsent_limit(), None, "and not fast");
    }

    #[test]
    fn a_window_full_that_is_taken_at_once_is_not_fast() {
        let (mut pace, mut now) = (Pace::default(), Instant::ZERO);
        // 10 Mbit/s over 40 ms that stand idle every other moment.
        for _ in 0..100 {
            pace.started(now, 60_000);
            pace.sent(now, false);
            now = now + Duration::from_millis(50);
        }
        assert_eq!(pace.take_unsent_limit(), None);
    }

    #[test]
    fn bursts_that_are_taken_at_once_say_that_the_connection_is_fast() {
        let (mut pace, mut now) = (Pace::default(), Instant::ZERO);
        let mut limits = Vec::new();
        for _ in 0..8 {
            pace.started(now, QUANTUM_MAX);
            pace.sent(now, false);
            limits.extend(pace.take_unsent_limit());
            now = now + Duration::from_millis(1);
        }
        assert_eq!(limits, [8, 16, 32, 128].map(|kilo| kilo * 1_024));
    }

    #[test]
    fn a_queue_that_runs_empty_behind_each_send_is_measured_where_the_next_one_waits() {
        let measured = |pause: u64, wait: u64| {
            let (mut pace, mut now) = (Pace::default(), Instant::ZERO);
            for _ in 0..20 {
                now = now + Duration::from_micros(pause);
                pace.started(now, 5_000);
                now = now + Duration::from_micros(wait);
                pace.sent(now, false);
            }
            pace.rate
        };
        assert_eq!(measured(2_000, 2_000), Some(1_250_000));
        assert_eq!(
            measured(4_000, 0),
            None,
            "it may be the sender that is slow"
        );
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
