//! The nearest deadline of all sessions of a shard.
//!
//! A session's deadline moves with almost every packet, mostly into the future. So a heap entry is
//! a lower bound: it is made only when a session's deadline comes *before* the entry it has, and
//! one that comes up too early is asked again. Moving a deadline back costs nothing.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::time::Instant;

/// The scheduled wake-ups of a shard's sessions, by slot.
#[derive(Debug)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(Instant, u32)>>,
    /// The entry that counts, by slot; other entries of the slot are stale.
    scheduled: Vec<Option<Instant>>,
}

impl Timers {
    /// Timers for slots `0..capacity`.
    #[must_use]
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            heap: BinaryHeap::with_capacity(capacity.saturating_mul(2)),
            scheduled: vec![None; capacity],
        }
    }

    /// Tells that slot `slot` next wants to be woken at `deadline`.
    pub(super) fn update(&mut self, slot: u32, deadline: Option<Instant>) {
        let Some(deadline) = deadline else { return };
        let index = slot as usize;
        if index >= self.scheduled.len() {
            self.scheduled.resize(index + 1, None);
        }
        if self.scheduled[index].is_none_or(|at| deadline < at) {
            self.scheduled[index] = Some(deadline);
            self.heap.push(Reverse((deadline, slot)));
        }
    }

    /// Forgets a slot whose session is gone.
    pub(super) fn clear(&mut self, slot: u32) {
        if let Some(at) = self.scheduled.get_mut(slot as usize) {
            *at = None;
        }
    }

    /// When the next slot must be asked.
    pub(super) fn next(&mut self) -> Option<Instant> {
        self.drop_stale();
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes one slot whose time has come; its session must be asked, and [`Timers::update`]d.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<u32> {
        self.drop_stale();
        let &Reverse((at, slot)) = self.heap.peek()?;
        if at > now {
            return None;
        }
        self.heap.pop();
        self.clear(slot);
        Some(slot)
    }

    fn drop_stale(&mut self) {
        while let Some(&Reverse((at, slot))) = self.heap.peek() {
            if self.scheduled.get(slot as usize).copied().flatten() == Some(at) {
                break;
            }
            self.heap.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(nanos: u64) -> Instant {
        Instant::from_nanos(nanos)
    }

    #[test]
    fn an_earlier_deadline_replaces_a_later_one() {
        let mut timers = Timers::new(4);
        timers.update(1, Some(at(50)));
        timers.update(1, Some(at(20)));
        timers.update(2, Some(at(30)));
        assert_eq!(timers.next(), Some(at(20)));
        assert_eq!(timers.take_due(at(30)), Some(1));
        assert_eq!(timers.take_due(at(30)), Some(2));
        assert_eq!(timers.next(), None, "the entry at 50 is stale");
    }

    #[test]
    fn a_later_deadline_leaves_the_lower_bound() {
        let mut timers = Timers::new(4);
        timers.update(0, Some(at(10)));
        timers.update(0, Some(at(90)));
        assert_eq!(
            timers.take_due(at(10)),
            Some(0),
            "asked early, it answers with 90"
        );
        timers.update(0, Some(at(90)));
        assert_eq!(timers.take_due(at(89)), None);
        timers.clear(0);
        assert_eq!(
            timers.take_due(at(100)),
            None,
            "a dead session is not woken"
        );
    }
}
