//! The two clocks: monotonic for every deadline, wall clock for logs and certificates; and what a
//! thread has used of its processor, for measurements.
//!
//! A shard reads [`now`] once or twice a turn and hands the value down; nothing else calls it.

use std::time::SystemTime;

use crate::time::{Duration, Instant};

/// Nanoseconds of `CLOCK_MONOTONIC`: never goes back, does not run while the host is suspended,
/// and is the same for all processes of one boot (so a hand-over can carry deadlines).
#[must_use]
pub fn now() -> Instant {
    Instant::from_nanos(nanos_of(libc::CLOCK_MONOTONIC))
}

/// What the calling thread has used of a processor so far, user and system together
/// (`CLOCK_THREAD_CPUTIME_ID`). A system call each time: not for the packet path.
#[must_use]
pub fn thread_cpu_time() -> Duration {
    Duration::from_nanos(nanos_of(libc::CLOCK_THREAD_CPUTIME_ID))
}

fn nanos_of(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a valid timespec that the call fills, and nothing else points to it.
    // JUSTIFICATION: std::time::Instant hides its origin, which a hand-over to another process needs,
    // and std has no clock of a thread's own time.
    let result = unsafe { libc::clock_gettime(clock, &raw mut time) };
    debug_assert_eq!(result, 0, "both clocks exist on every Linux");
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

/// Time since 1970-01-01 00:00 UTC as the host believes it to be; it can jump.
#[must_use]
pub fn wall_clock() -> Duration {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_monotonic_clock_does_not_go_back() {
        let mut last = now();
        assert!(last > Instant::ZERO);
        for _ in 0..1000 {
            let next = now();
            assert!(next >= last);
            last = next;
        }
    }

    #[test]
    fn a_thread_is_not_charged_for_waiting() {
        let before = thread_cpu_time();
        std::thread::sleep(Duration::from_millis(30));
        let waited = thread_cpu_time();
        assert!(waited - before < Duration::from_millis(20));
        while thread_cpu_time() - waited < Duration::from_millis(1) {}
    }

    #[test]
    fn the_wall_clock_is_past_2020() {
        assert!(wall_clock() > Duration::from_secs(50 * 365 * 86_400));
    }
}
