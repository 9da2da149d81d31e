//! What is to be done about single sessions, and when.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use datapath::time::Instant;

/// One thing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Todo {
    /// Start the session again.
    Return,
    /// Ask by DHCPINFORM, so many times before.
    Inform(u8),
}

/// A list of things to do, by their time.
#[derive(Debug, Default)]
pub(crate) struct Agenda(BinaryHeap<Reverse<(Instant, u32, Todo)>>);

impl Agenda {
    /// `todo` for `member`, not before `at`.
    pub(crate) fn add(&mut self, at: Instant, member: u32, todo: Todo) {
        self.0.push(Reverse((at, member, todo)));
    }

    /// The next that is due: when it was, whom it concerns, and what it is.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<(Instant, u32, Todo)> {
        let Reverse((at, ..)) = self.0.peek()?;
        if *at > now {
            return None;
        }
        self.0.pop().map(|Reverse(due)| due)
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.0.peek().map(|Reverse((at, ..))| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_first_is_done_first() {
        let at = Instant::from_nanos;
        let mut agenda = Agenda::default();
        agenda.add(at(20), 1, Todo::Return);
        agenda.add(at(10), 2, Todo::Inform(0));
        assert_eq!(agenda.next(), Some(at(10)));
        assert_eq!(agenda.take_due(at(9)), None);
        assert_eq!(agenda.take_due(at(30)), Some((at(10), 2, Todo::Inform(0))));
        assert_eq!(agenda.take_due(at(30)), Some((at(20), 1, Todo::Return)));
        assert_eq!((agenda.take_due(at(30)), agenda.next()), (None, None));
    }
}
