//! When a queue has stood too long: CoDel (RFC 8289), a state machine on how long packets waited.
//!
//! It looks at each packet that leaves a queue. Waiting now and then is what queues are for; only when
//! *every* packet of a whole interval waited longer than the target is the queue a standing one, and
//! then the ends are told, at first once an interval, then ever more often (the interval over the
//! square root of the number of tellings) until the waiting is below the target.
//!
//! It does not queue, drop or mark: its owner does, when told [`Verdict::Congested`].

use crate::time::{Duration, Instant};

/// A queue with no more than one packet left is not congested, however slow it is (RFC 8289 §5.1).
const PACKET_LEN_MAX: usize = 1_514;

/// Begins where it stopped if it was dropping so few intervals ago (RFC 8289 §5.6).
const RESUME_INTERVALS: u32 = 16;

/// How long packets may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// The waiting that is all right however long it lasts.
    pub target: Duration,
    /// How long more is all right; about the round trip of the slowest ends (RFC 8289 §4.2).
    pub interval: Duration,
}

impl Default for Parameters {
    /// RFC 8289 §4.2 and §4.3: 5 ms in 100 ms.
    fn default() -> Self {
        Self {
            target: Duration::from_millis(5),
            interval: Duration::from_millis(100),
        }
    }
}

/// What shall become of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It goes out.
    Pass,
    /// It is marked and goes out, or it is dropped and the next one is judged.
    Congested,
}

/// What CoDel remembers of one queue.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Codel {
    /// When the waiting will have been above the target for an interval; `ZERO`: it is not above.
    above_until: Instant,
    next_at: Instant,
    count: u32,
    count_before: u32,
    congested: bool,
}

impl Codel {
    /// Judges a packet that waited since `since`; `behind` bytes still wait behind it.
    pub(super) fn judge(
        &mut self,
        now: Instant,
        since: Instant,
        behind: usize,
        parameters: &Parameters,
    ) -> Verdict {
        let stands = self.stands(now, since, behind, parameters);
        if !stands {
            self.congested = false;
            return Verdict::Pass;
        }
        if !self.congested {
            self.congested = true;
            let lately =
                now.saturating_since(self.next_at) < parameters.interval * RESUME_INTERVALS;
            let count = self.count.saturating_sub(self.count_before);
            self.count = if lately && count > 1 { count } else { 1 };
            self.count_before = self.count;
            self.next_at = now + step(parameters.interval, self.count);
            return Verdict::Congested;
        }
        if now < self.next_at {
            return Verdict::Pass;
        }
        self.count = self.count.saturating_add(1);
        self.next_at = self.next_at + step(parameters.interval, self.count);
        Verdict::Congested
    }

    /// Whether the waiting has been above the target for an interval.
    fn stands(
        &mut self,
        now: Instant,
        since: Instant,
        behind: usize,
        parameters: &Parameters,
    ) -> bool {
        if now.saturating_since(since) < parameters.target || behind <= PACKET_LEN_MAX {
            self.above_until = Instant::ZERO;
            return false;
        }
        if self.above_until == Instant::ZERO {
            self.above_until = now + parameters.interval;
            return false;
        }
        now >= self.above_until
    }
}

/// The control law: the interval over the square root of `count` (RFC 8289 §5.3), in integers.
fn step(interval: Duration, count: u32) -> Duration {
    let nanos = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX);
    // 16 bits behind the point of the root's square are 8 behind that of the root.
    let root = (u64::from(count.max(1)) << 16).isqrt();
    Duration::from_nanos(nanos.saturating_mul(256) / root)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARAMETERS: Parameters = Parameters {
        target: Duration::from_millis(5),
        interval: Duration::from_millis(100),
    };

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(1_000 + millis)
    }

    /// A packet a millisecond, each having waited `waited`; the times at which the ends were told.
    fn told(codel: &mut Codel, from: u64, to: u64, waited: u64) -> Vec<u64> {
        let mut told = Vec::new();
        for time in from..to {
            let since = Instant::ZERO + Duration::from_millis(1_000 + time - waited);
            if codel.judge(at(time), since, 100_000, &PARAMETERS) == Verdict::Congested {
                told.push(time);
            }
        }
        told
    }

    #[test]
    fn below_the_target_nothing_happens_for_ever() {
        assert_eq!(told(&mut Codel::default(), 0, 10_000, 4), [0; 0]);
    }

    #[test]
    fn a_burst_shorter_than_the_interval_passes() {
        let mut codel = Codel::default();
        assert_eq!(told(&mut codel, 0, 99, 50), [0; 0]);
        assert_eq!(
            told(&mut codel, 99, 100, 1),
            [0; 0],
            "one good packet ends it"
        );
        assert_eq!(told(&mut codel, 100, 200, 50), [0; 0]);
    }

    #[test]
    fn a_standing_queue_is_told_after_an_interval_and_then_by_the_square_root() {
        // RFC 8289 §5.3: 100, then 100 + 100/√1, + 100/√2, + 100/√3, …
        let told = told(&mut Codel::default(), 0, 500, 20);
        assert_eq!(told, [100, 200, 271, 329, 379, 424, 465]);
    }

    #[test]
    fn one_packet_that_waited_less_ends_it() {
        let mut codel = Codel::default();
        assert_eq!(told(&mut codel, 0, 250, 20), [100, 200]);
        assert_eq!(told(&mut codel, 250, 251, 4), [0; 0]);
        assert_eq!(
            told(&mut codel, 251, 351, 20),
            [0; 0],
            "a new interval begins"
        );
    }

    #[test]
    fn soon_after_it_goes_on_where_it_stopped() {
        let mut codel = Codel::default();
        assert_eq!(told(&mut codel, 0, 425, 20), [100, 200, 271, 329, 379, 424]);
        told(&mut codel, 425, 430, 1);
        // Six tellings, so the next comes after 100/√5 and not after 100: five were new.
        assert_eq!(told(&mut codel, 430, 620, 20), [530, 575, 616]);
        told(&mut codel, 620, 3_000, 1);
        assert_eq!(
            told(&mut codel, 3_000, 3_250, 20),
            [3_100, 3_200],
            "long after, afresh"
        );
    }

    #[test]
    fn the_last_packet_is_never_held_against_the_queue() {
        let mut codel = Codel::default();
        for time in 0..1_000 {
            let verdict = codel.judge(at(time), Instant::ZERO, PACKET_LEN_MAX, &PARAMETERS);
            assert_eq!(verdict, Verdict::Pass);
        }
    }

    #[test]
    fn the_control_law_in_integers_is_close_to_the_real_one() {
        for count in [1, 2, 3, 10, 1_000, 1_000_000, u32::MAX] {
            let exact = 1e8 / f64::from(count).sqrt();
            let nanos = step(PARAMETERS.interval, count).as_nanos() as f64;
            assert!(
                (nanos / exact - 1.0).abs() < 0.003,
                "{count}: {nanos} {exact}"
            );
        }
    }
}
