//! Keeps what we send from standing in the path: where it would, the kernel is told to send no faster than
//! the path takes it.
//!
//! A tunnel is one TCP connection for all that is in it. Left to itself its congestion control fills the
//! path's queue until something is lost, and then everything behind the loss waits a round trip for it,
//! pings too. So while a connection is the limit it is looked at once a round trip. What a packet takes
//! longer than on the idle path stood in queues. If that is more than a few milliseconds the connection gets
//! a limit: what the path took since the last look, less what drains half of the queue in a round trip.
//! With less in the queue the limit grows. What waits then waits here, where flows take turns and CoDel
//! drops what is late ([`queue`](super::queue)).
//!
//! ```text
//!          queue > target                    stays so, though we send a third less,
//!   free ─────────────────▶ limited          or for 24 looks in a row
//!     ▲                      │  ▲ ─────────────────────────────────────────────▶ free, for 10 s,
//!     └─ connection is fast ─┘  └──── queue ≤ target: grows ───                  then 20, 40, … 300
//! ```
//!
//! Where others fill the path, or its round trips vary by themselves, a limit would only give way to them:
//! then there is none for a while, and the congestion control does what it always does.
//!
//! It does not read a clock and sets nothing: its owner asks [`Session::wants_path`] when it is done with a
//! session for a turn. A connection that is not the limit, or is fast, costs nothing but that question.

use super::Session;
use crate::io::PathSeen;
use crate::time::{Duration, Instant};

/// What may stand in the path, and the time of a packet more: below CoDel's target, so that a path that
/// has it drops nothing; above what acknowledgements that wait for a second packet make of an idle path.
const TARGET: Duration = Duration::from_millis(3);

/// It is not looked more often than this.
const BETWEEN_LOOKS_MIN: Duration = Duration::from_millis(20);

/// So many looks in a row above the target, and it is not our queue.
const HIGH_LOOKS_MAX: u32 = 24;

/// So many looks in a row below half of the target, and the limit grows ever faster.
const LOW_LOOKS_MAX: u32 = 8;

/// So many looks below the target, and the path is believed to be good again.
const GOOD_LOOKS: u32 = 256;

/// How long there is no limit once it did not help; doubled each time.
const LEFT_ALONE: Duration = Duration::from_secs(10);
const LEFT_ALONE_MAX: Duration = Duration::from_secs(300);

/// Bytes a second that a limit always leaves.
const LIMIT_MIN: u64 = 8 * 1_024;

/// The limit of one connection, and what it follows from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shaper {
    /// Bytes a second.
    limit: Option<u64>,
    next_look: Instant,
    /// The last look: when, and how many bytes had been acknowledged.
    last: Option<(Instant, u64)>,
    /// Since it was above the target.
    high: Option<High>,
    low_looks: u32,
    /// Bytes a second that the path took at the last look below the target.
    rate_before: u64,
    good_looks: u32,
    left_alone: Duration,
    left_alone_until: Instant,
}

/// Looks in a row above the target.
#[derive(Clone, Copy, Debug)]
struct High {
    looks: u32,
    /// At the first: bytes a second that the path took, and what stood in it.
    rate: u64,
    queued: Duration,
    /// The less of the first two: later ones may have found it empty for a while.
    taken: u64,
    /// Bytes a second that it took at the last.
    last: u64,
}

impl Default for Shaper {
    fn default() -> Self {
        Self {
            limit: None,
            next_look: Instant::ZERO,
            last: None,
            high: None,
            low_looks: 0,
            rate_before: 0,
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
        if !transmit.is_slow() {
            shaper.next_look = now + BETWEEN_LOOKS_MIN;
            shaper.last = None;
            return shaper.limit.take().map(|_| u64::MAX);
        }
        let before = shaper.limit;
        let target = TARGET + transmit.two_packets() / 2;
        shaper.look(now, seen, target, transmit.is_sorted());
        (shaper.limit != before).then(|| shaper.limit.unwrap_or(u64::MAX))
    }
}

impl Shaper {
    /// `waits`: there is more to send than the connection takes.
    fn look(&mut self, now: Instant, seen: &PathSeen, target: Duration, waits: bool) {
        self.next_look = now + seen.rtt.max(BETWEEN_LOOKS_MIN);
        // What arrives behind a loss is acknowledged all at once: that says nothing of the rate.
        let last = std::mem::replace(
            &mut self.last,
            (!seen.is_recovering).then_some((now, seen.acked)),
        );
        let Some((at, acked)) = last.filter(|_| !seen.is_recovering) else {
            return;
        };
        let elapsed = now.saturating_since(at);
        // There was little to send in between.
        if elapsed > seen.rtt.max(BETWEEN_LOOKS_MIN) * 2 {
            return;
        }
        let rate = per_second(seen.acked.saturating_sub(acked), elapsed);
        let queued = seen.rtt.saturating_sub(seen.rtt_min);
        if queued > target {
            // Where nothing waits it is not we who fill the path.
            if self.limit.is_none() && !waits {
                return;
            }
            self.high(now, seen, rate, queued, queued - target / 2);
        } else {
            self.low(seen, rate, target - queued, queued < target / 2);
        }
    }

    /// `excess` of the `queued` that stands in the path is too much.
    fn high(
        &mut self,
        now: Instant,
        seen: &PathSeen,
        rate: u64,
        queued: Duration,
        excess: Duration,
    ) {
        if now < self.left_alone_until || rate == 0 {
            return;
        }
        (self.low_looks, self.good_looks) = (0, 0);
        let is_first = self.high.is_none();
        let first = self.high.get_or_insert(High {
            looks: 0,
            rate,
            queued,
            taken: rate,
            last: rate,
        });
        // One that stalled is no measure of the path.
        if is_first && self.limit.is_none() {
            return;
        }
        let rate_before = std::mem::replace(&mut first.last, rate);
        first.looks += 1;
        if first.looks <= 2 {
            first.taken = first.taken.min(rate);
        }
        // A queue that is our own drains.
        let is_in_vain = rate < first.rate / 3 * 2 && queued > first.queued / 4 * 3;
        if is_in_vain || first.looks > HIGH_LOOKS_MAX {
            self.limit = None;
            self.high = None;
            self.left_alone_until = now + self.left_alone;
            self.left_alone = (self.left_alone * 2).min(LEFT_ALONE_MAX);
            return;
        }
        // What became of the look before is seen at the next.
        if first.looks > 1 && first.looks % 2 == 1 {
            return;
        }
        // Once it may be that somebody was late, us included.
        if let (1, Some(limit)) = (first.looks, self.limit) {
            self.limit = Some(limit - limit / 32);
            return;
        }
        // What an acknowledgement that came late takes from one look it gives to the next; and with pauses
        // in what we send the path takes more than it was given.
        let rate = match self.limit {
            Some(limit) => rate.min(rate_before).max(limit - limit / 4),
            None => rate.max(rate_before),
        };
        let less = share(rate, excess, seen.rtt * 2);
        self.limit = Some(rate.saturating_sub(less).max(LIMIT_MIN));
    }

    /// There is `room` for more.
    fn low(&mut self, seen: &PathSeen, rate: u64, room: Duration, is_empty: bool) {
        let high = self.high.take();
        let rate_before = std::mem::replace(&mut self.rate_before, rate);
        let Some(limit) = self.limit else {
            return;
        };
        self.good_looks = self.good_looks.saturating_add(1);
        if self.good_looks >= GOOD_LOOKS {
            self.left_alone = LEFT_ALONE;
        }
        // What drained the queue was less than the path takes, which was seen while something stood in it.
        if let Some(high) = high {
            self.limit = Some(limit.max(high.taken - high.taken / 32));
            return;
        }
        // It is something else that limits.
        if rate < limit - limit / 8 {
            self.low_looks = 0;
            return;
        }
        self.low_looks = if is_empty { self.low_looks + 1 } else { 0 };
        let mut more = share(limit, room, seen.rtt * 4);
        if is_empty {
            more = more.max(limit / 64);
        }
        // Beyond what the path takes, a limit would only let the queue grow.
        let mut bound = rate.max(rate_before) / 32 * 33;
        if self.low_looks > LOW_LOOKS_MAX {
            more = more.max(limit / 16);
            bound = bound.max(limit.saturating_add(more));
        }
        self.limit = Some(limit.saturating_add(more).min(bound));
    }
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
