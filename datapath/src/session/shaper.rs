//! Keeps what we send from standing in the path: where it does, the kernel is told to send no faster than
//! the path takes it.
//!
//! A tunnel is one TCP connection for all that is in it. Left to itself its congestion control fills the
//! path's queue until something is lost, and then everything behind the loss waits a round trip for it,
//! pings too. So while a connection is the limit it is looked at once a round trip. What a packet takes
//! longer than on the idle path stood in queues. When something is lost while more than a few milliseconds
//! stood there, or a whole round trip stands there, the connection gets a limit: what the path takes, which
//! acknowledgements tell as long as something stands in it, less what drains the queue in two round trips.
//! Once it is drained the limit is brought back to just below what the path took, and from there it creeps.
//! What waits then waits here, where flows take turns and CoDel drops what is late
//! ([`queue`](super::queue)).
//!
//! ```text
//!        a loss behind a queue, or a deep one              it does not help
//!   free ────────────────────────────────────▶ limited ────────────────────▶ left alone, for 2 s,
//!     ▲                                         │                            then 4, 8, … 300
//!     ├──── the connection is fast ─────────────┘                                     │
//!     └───────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Others may fill the path, it may become slower, round trips may vary by themselves: a limit would only
//! give way. So it never falls below seven eighths of what the path took when there was none
//! ([`Limit::floor`]), which drains any queue of our own; and where that does not show soon ([`Trial`]) the
//! limit is lifted, and the congestion control does what it always does.
//!
//! It does not read a clock and sets nothing: its owner asks [`Session::wants_path`] when it is done with a
//! session for a turn. A connection that is not the limit, or is fast, costs nothing but that question.

use super::Session;
use crate::io::PathSeen;
use crate::time::{Duration, Instant};

/// What may stand in the path: below CoDel's target, so that a path that has it drops nothing.
const TARGET: Duration = Duration::from_micros(2_500);

/// It is not looked more often than this.
const BETWEEN_LOOKS_MIN: Duration = Duration::from_millis(20);

/// A rate is that of so many looks: with 35 packets a round trip, two more or less in one are noise.
const RATE_LOOKS: usize = 6;

/// So many looks in a row in which something stood in the path, recovery aside, and it is full.
const FILLED_LOOKS_MIN: u32 = 2;

/// A queue of a whole round trip, and of this, is as good as a loss.
const DEEP_MIN: Duration = Duration::from_millis(10);

/// So many looks, then the limit is judged ([`Trial`]).
const JUDGED_LOOKS: u32 = 24;

/// So many weak looks among them, and it does not help.
const WEAK_LOOKS_MAX: u32 = 4;

/// So many looks in a row below half of the target, and the limit grows ever faster.
const EMPTY_LOOKS: u32 = 16;

/// So many looks below the target, and the path is believed to be good again.
const GOOD_LOOKS: u32 = 128;

/// How long there is no limit once it did not help; doubled each time.
const LEFT_ALONE: Duration = Duration::from_secs(2);
const LEFT_ALONE_MAX: Duration = Duration::from_secs(300);

/// Bytes a second that a limit always leaves.
const LIMIT_MIN: u64 = 8 * 1_024;

/// What is known of one connection's path, and the limit that follows from it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shaper {
    limit: Option<Limit>,
    next_look: Instant,
    looks: Looks,
    retransmitted: u32,
    /// Without a limit: looks in a row at a full path, and what it took then.
    filled_looks: u32,
    free_rate: u64,
    good_looks: u32,
    left_alone: Duration,
    left_alone_until: Instant,
}

/// Rates are bytes a second.
#[derive(Clone, Copy, Debug)]
struct Limit {
    rate: u64,
    /// It does not fall below this.
    floor: u64,
    /// What the path took when something stood in it.
    taken: u64,
    /// Something stands in it that is to drain first.
    drains: bool,
    empty_looks: u32,
    trial: Trial,
}

/// Looks that a limit is judged by.
#[derive(Clone, Copy, Debug)]
struct Trial {
    since: Instant,
    /// What stood in the path at the first.
    queued: Duration,
    looks: u32,
    high_looks: u32,
    /// Those in which the path took clearly less than it did before: with a queue of ours it would not.
    weak_looks: u32,
}

/// Bytes a second.
#[derive(Clone, Copy, Debug)]
struct Rates {
    /// Since the last look.
    newest: u64,
    /// Over all that are kept.
    mean: u64,
}

/// The last looks: when, and how many bytes had been acknowledged; the newest first.
#[derive(Clone, Copy, Debug, Default)]
struct Looks {
    ring: [(Instant, u64); RATE_LOOKS],
    count: usize,
}

impl Default for Shaper {
    fn default() -> Self {
        Self {
            limit: None,
            next_look: Instant::ZERO,
            looks: Looks::default(),
            retransmitted: 0,
            filled_looks: 0,
            free_rate: 0,
            good_looks: 0,
            left_alone: LEFT_ALONE,
            left_alone_until: Instant::ZERO,
        }
    }
}

impl Session {
    /// Whether [`Session::path_seen`] wants to know how the connection's path does.
    #[must_use]
    pub fn wants_path(&self, now: Instant) -> bool {
        let (transmit, shaper) = (&self.outside.transmit, &self.outside.shaper);
        (transmit.is_slow() || shaper.limit.is_some()) && now >= shaper.next_look
    }

    /// The path does so. The number of bytes a second that the kernel shall send at most from now on, if
    /// that has changed; `u64::MAX`: as many as it will.
    pub fn path_seen(&mut self, now: Instant, seen: &PathSeen) -> Option<u64> {
        let (transmit, shaper) = (&self.outside.transmit, &mut self.outside.shaper);
        let before = shaper.rate();
        if transmit.is_slow() {
            // The kernel sends two at a time, and the acknowledgement is of the second.
            let queued = seen
                .rtt
                .saturating_sub(seen.rtt_min + transmit.two_packets());
            shaper.look(now, seen, queued);
        } else {
            shaper.lift();
            shaper.next_look = now + BETWEEN_LOOKS_MIN;
        }
        let rate = shaper.rate();
        (rate != before).then(|| rate.unwrap_or(u64::MAX))
    }
}

impl Shaper {
    fn rate(&self) -> Option<u64> {
        self.limit.map(|limit| limit.rate)
    }

    fn lift(&mut self) {
        self.limit = None;
        self.looks = Looks::default();
        self.filled_looks = 0;
    }

    /// `queued` of the round trip stood in queues.
    fn look(&mut self, now: Instant, seen: &PathSeen, queued: Duration) {
        let between = seen.rtt.max(BETWEEN_LOOKS_MIN);
        self.next_look = now + between;
        let retransmitted = std::mem::replace(&mut self.retransmitted, seen.retransmitted);
        // What arrives behind a loss is acknowledged all at once: that says nothing of the rate.
        let rates = if seen.is_recovering {
            None
        } else {
            self.looks.rates(now, seen.acked, between * 2)
        };
        let excess = |rate| share(rate, queued.saturating_sub(TARGET / 2), seen.rtt * 2);
        let Some(limit) = &mut self.limit else {
            if !seen.is_recovering {
                // Who sends little does not fill the path.
                let is_filled = queued > TARGET && seen.is_filled && rates.is_some();
                self.filled_looks = if is_filled { self.filled_looks + 1 } else { 0 };
                // It may have been growing.
                self.free_rate = rates.map_or(0, |rates| rates.newest.max(rates.mean));
            }
            let is_full =
                retransmitted != seen.retransmitted || queued > seen.rtt_min.max(DEEP_MIN);
            if is_full && self.filled_looks >= FILLED_LOOKS_MIN && now >= self.left_alone_until {
                let rate = self.free_rate;
                self.good_looks = 0;
                self.limit = Some(Limit::new(rate, excess(rate), Trial::new(now, queued)));
            }
            return;
        };
        let Some(Rates { mean: rate, .. }) = rates else {
            return;
        };
        let is_high = queued > TARGET;
        let is_weak = is_high && rate < limit.floor.saturating_add(limit.floor / 14);
        if !limit.trial.helps(now, queued, is_high, is_weak) {
            self.lift();
            self.left_alone_until = now + self.left_alone;
            self.left_alone = (self.left_alone * 2).min(LEFT_ALONE_MAX);
            return;
        }
        if is_high {
            limit.high(rate, excess(rate));
            return;
        }
        limit.low(rate, queued <= TARGET / 2);
        self.good_looks = self.good_looks.saturating_add(1);
        if self.good_looks >= GOOD_LOOKS {
            self.left_alone = LEFT_ALONE;
        }
    }
}

impl Limit {
    /// The path takes `rate`, and something stands in it: `excess` less drains it.
    fn new(rate: u64, excess: u64, trial: Trial) -> Self {
        let floor = floor_of(rate);
        Self {
            rate: rate.saturating_sub(excess).max(floor),
            floor,
            taken: rate,
            drains: true,
            empty_looks: 0,
            trial,
        }
    }

    /// More than the target stands in the path, which takes `rate`: `excess` less drains it.
    fn high(&mut self, rate: u64, excess: u64) {
        self.drains = true;
        self.empty_looks = 0;
        self.taken = rate;
        self.rate = rate.saturating_sub(excess).max(self.floor);
    }

    /// There is room for more in the path, which took `rate`.
    fn low(&mut self, rate: u64, is_empty: bool) {
        if std::mem::take(&mut self.drains) {
            self.floor = self.floor.max(floor_of(self.taken));
        }
        // It is something else that limits.
        if rate < self.rate - self.rate / 8 {
            self.empty_looks = 0;
            return;
        }
        self.empty_looks = if is_empty { self.empty_looks + 1 } else { 0 };
        let known = self.taken - self.taken / 32;
        if self.rate < known {
            self.rate = known;
        } else if self.empty_looks > EMPTY_LOOKS {
            self.rate = self.rate.saturating_add(self.rate / 32);
        } else if is_empty {
            self.rate = self.rate.saturating_add(self.rate / 128);
        }
    }
}

impl Trial {
    const fn new(since: Instant, queued: Duration) -> Self {
        Self {
            since,
            queued,
            looks: 0,
            high_looks: 0,
            weak_looks: 0,
        }
    }

    /// Whether the limit helps, as far as is known.
    fn helps(&mut self, now: Instant, queued: Duration, is_high: bool, is_weak: bool) -> bool {
        self.looks += 1;
        self.high_looks += u32::from(is_high);
        self.weak_looks += u32::from(is_weak);
        if self.weak_looks == WEAK_LOOKS_MAX {
            return false;
        }
        if self.looks < JUDGED_LOOKS {
            return true;
        }
        // At the floor an eighth of the time drains; half of that will do.
        let drained = now.saturating_since(self.since) / 16;
        let drains = queued + drained <= self.queued;
        let is_mostly_high = self.high_looks * 2 >= self.looks;
        *self = Self::new(now, queued);
        drains || !is_mostly_high
    }
}

impl Looks {
    /// The rates up to now, if there were two looks before. Where there was none for longer than `pause`
    /// there was little to send, and those before say nothing.
    fn rates(&mut self, now: Instant, acked: u64, pause: Duration) -> Option<Rates> {
        let rate = |&(at, before): &(Instant, u64)| {
            per_second(acked.saturating_sub(before), now.saturating_since(at))
        };
        let [newest, ..] = &self.ring;
        if now.saturating_since(newest.0) > pause {
            self.count = 0;
        }
        let oldest = self.count.checked_sub(1).filter(|&oldest| oldest > 0);
        let oldest = oldest.and_then(|oldest| self.ring.get(oldest));
        let rates = oldest.map(|oldest| Rates {
            newest: rate(newest),
            mean: rate(oldest),
        });
        self.ring.rotate_right(1);
        self.ring[0] = (now, acked);
        self.count = (self.count + 1).min(RATE_LOOKS);
        rates
    }
}

fn floor_of(rate: u64) -> u64 {
    (rate - rate / 8).max(LIMIT_MIN)
}

fn per_second(bytes: u64, elapsed: Duration) -> u64 {
    let nanos = elapsed.as_nanos().max(1);
    u64::try_from(u128::from(bytes) * 1_000_000_000 / nanos).unwrap_or(u64::MAX)
}

/// `part` of `whole` in `rate`.
fn share(rate: u64, part: Duration, whole: Duration) -> u64 {
    let share = u128::from(rate) * part.as_nanos() / whole.as_nanos().max(1);
    u64::try_from(share).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
