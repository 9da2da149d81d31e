//! Time as a value: instants come in as arguments, nothing here reads a clock.
//!
//! [`Instant`] counts nanoseconds from an origin that the caller chooses (the monotonic clock in
//! production, a number in tests), so an hour of timeouts is tested in a microsecond.
//! [`Deadlines`] is the fixed set of deadlines of one machine.
//!
//! It does not schedule: `shard::timers` finds the nearest deadline of all sessions.

use core::fmt;
use core::ops::Add;
pub use core::time::Duration;

/// A point in time, in nanoseconds since an origin shared by all values of one process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The origin itself.
    pub const ZERO: Self = Self(0);

    /// The instant `nanos` nanoseconds after the origin.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the origin.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// How long after `earlier` this is; zero if it is not after it.
    #[must_use]
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    /// Saturates at the end of time, 584 years after the origin.
    fn add(self, rhs: Duration) -> Self {
        let nanos = u64::try_from(rhs.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }
}

/// What a deadline is for; the position of its slot in [`Deadlines`].
pub trait DeadlineKind: Copy + fmt::Debug {
    /// The kind's slot, below the `N` of the [`Deadlines`] that holds it.
    fn index(self) -> usize;
    /// The kind in slot `index`.
    fn from_index(index: usize) -> Self;
}

/// The deadlines of one machine: one slot a kind, nothing allocated.
#[derive(Clone, Debug)]
pub struct Deadlines<K, const N: usize> {
    slots: [Option<Instant>; N],
    kind: core::marker::PhantomData<K>,
}

impl<K: DeadlineKind, const N: usize> Default for Deadlines<K, N> {
    fn default() -> Self {
        Self {
            slots: [None; N],
            kind: core::marker::PhantomData,
        }
    }
}

impl<K: DeadlineKind, const N: usize> Deadlines<K, N> {
    /// Sets or moves the deadline of `kind`.
    pub fn set(&mut self, kind: K, at: Instant) {
        if let Some(slot) = self.slots.get_mut(kind.index()) {
            *slot = Some(at);
        }
    }

    /// Removes the deadline of `kind`; it is no error if there was none.
    pub fn clear(&mut self, kind: K) {
        if let Some(slot) = self.slots.get_mut(kind.index()) {
            *slot = None;
        }
    }

    /// Removes every deadline.
    pub fn clear_all(&mut self) {
        self.slots = [None; N];
    }

    /// The deadline of `kind`, if it is set.
    #[must_use]
    pub fn at(&self, kind: K) -> Option<Instant> {
        self.slots.get(kind.index()).copied().flatten()
    }

    /// The nearest deadline of all.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.slots.iter().flatten().min().copied()
    }

    /// Takes the earliest deadline that is not after `now`; call until it returns `None`.
    pub fn take_expired(&mut self, now: Instant) -> Option<K> {
        let (index, at) = self
            .slots
            .iter()
            .enumerate()
            .filter_map(|(index, slot)| slot.map(|at| (index, at)))
            .min_by_key(|&(_, at)| at)?;
        if at > now {
            return None;
        }
        if let Some(slot) = self.slots.get_mut(index) {
            *slot = None;
        }
        Some(K::from_index(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Kind {
        A,
        B,
    }

    impl DeadlineKind for Kind {
        fn index(self) -> usize {
            self as usize
        }
        fn from_index(index: usize) -> Self {
            if index == 0 { Self::A } else { Self::B }
        }
    }

    #[test]
    fn the_earliest_expires_first_and_once() {
        let mut deadlines = Deadlines::<Kind, 2>::default();
        deadlines.set(Kind::A, Instant::from_nanos(20));
        deadlines.set(Kind::B, Instant::from_nanos(10));
        assert_eq!(deadlines.next(), Some(Instant::from_nanos(10)));
        assert_eq!(deadlines.take_expired(Instant::from_nanos(9)), None);
        assert_eq!(
            deadlines.take_expired(Instant::from_nanos(30)),
            Some(Kind::B)
        );
        assert_eq!(
            deadlines.take_expired(Instant::from_nanos(30)),
            Some(Kind::A)
        );
        assert_eq!(deadlines.take_expired(Instant::from_nanos(30)), None);
    }

    #[test]
    fn time_saturates_instead_of_wrapping() {
        let end = Instant::from_nanos(u64::MAX);
        assert_eq!(end + Duration::from_secs(1), end);
        assert_eq!(Instant::ZERO.saturating_since(end), Duration::ZERO);
    }
}
