//! The trials of a [`Search`] on all shards: the same sessions, one period of packets after another.
//!
//! ```text
//!   desk      step 0 ─────────────────▶ judged ─▶ step 1 ──────────────────▶ judged …
//!   shard 0   packets ─ last arrivals ─▶ report    packets ─ …
//!   shard 1   packets ─ last arrivals ───▶ report  packets ─ …
//! ```
//!
//! The shard that reports last judges and sets the next step; the others look every few milliseconds
//! until it is there. Nothing is shared while packets are sent.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use datapath::time::{Duration, Instant};

use super::search::{Goal, Outcome, Search, SearchReport, Step};

/// From the word to the first packet, so that every shard has heard it.
const LEAD: Duration = Duration::from_millis(50);

/// How often a shard looks for the next step.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// How often the far end is asked for its counts after a trial.
const ASK_INTERVAL: Duration = Duration::from_millis(100);

/// What the shards share.
#[derive(Debug)]
pub(crate) struct Desk {
    /// After the last packet of a trial, the longest that is waited for those under way.
    wait: Duration,
    quiet: bool,
    shards: AtomicUsize,
    /// The number of the present step.
    number: AtomicUsize,
    is_done: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    search: Search,
    step: Option<Step>,
    /// When the step begins; the first begins when the run says so.
    at: Option<Instant>,
    sum: Outcome,
    reports: usize,
}

impl Desk {
    pub(crate) fn new(goal: Goal, late_share_max: f64, wait: Duration, quiet: bool) -> Arc<Self> {
        let search = Search::new(goal, late_share_max);
        Arc::new(Self {
            wait,
            quiet,
            shards: AtomicUsize::new(1),
            number: AtomicUsize::new(0),
            is_done: AtomicBool::new(false),
            state: Mutex::new(State {
                step: search.next(),
                search,
                at: None,
                sum: Outcome::default(),
                reports: 0,
            }),
        })
    }

    /// So many shards will report; said before the first begins.
    pub(crate) fn expect(&self, shards: usize) {
        self.shards.store(shards, Ordering::Release);
    }

    pub(crate) fn is_done(&self) -> bool {
        self.is_done.load(Ordering::Acquire)
    }

    pub(crate) fn report(&self, mean_bits: f64) -> SearchReport {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.search.report(mean_bits)
    }

    fn take(&self, now: Instant, outcome: &Outcome) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.sum.add(outcome);
        state.reports += 1;
        if state.reports < self.shards.load(Ordering::Acquire) {
            return;
        }
        let (sum, step) = (state.sum, state.step.take());
        state.sum = Outcome::default();
        state.reports = 0;
        if let Some(step) = step {
            let trial = state.search.judge(&step, &sum);
            if !self.quiet {
                eprintln!("trial: {}", trial.line());
            }
        }
        state.step = state.search.next();
        state.at = Some(now + LEAD);
        self.is_done.store(state.step.is_none(), Ordering::Release);
        self.number.fetch_add(1, Ordering::AcqRel);
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Stage {
    Sending,
    /// All is reported; the others are waited for.
    Waiting,
    Over,
}

/// One shard's part.
#[derive(Debug)]
pub(super) struct Trials {
    desk: Arc<Desk>,
    number: usize,
    stage: Stage,
    end: Instant,
    look_at: Instant,
    /// What was counted before this trial.
    before: Outcome,
}

/// What a shard does now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Turn {
    Nothing,
    /// Ask the far end what it counted.
    Ask,
    /// Begin a trial at that time; its number tells its packets from others.
    Begin {
        step: Step,
        at: Instant,
        number: u32,
    },
}

impl Trials {
    /// The first step, which begins at `start`.
    pub(super) fn begin(desk: &Arc<Desk>, start: Instant) -> (Self, Option<Step>) {
        let mut state = desk.state.lock().unwrap_or_else(PoisonError::into_inner);
        let start = *state.at.get_or_insert(start);
        let step = state.step;
        let end = step.map_or(start, |step| start + step.duration);
        let trials = Self {
            desk: Arc::clone(desk),
            number: 0,
            stage: Stage::Sending,
            end,
            look_at: end,
            before: Outcome::default(),
        };
        (trials, step)
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        (self.stage != Stage::Over).then_some(self.look_at)
    }

    /// Looks whether the trial is over, or the next begins. `counted` is what the shard has counted in
    /// all trials.
    pub(super) fn turn(&mut self, now: Instant, counted: &Outcome) -> Turn {
        if now < self.look_at {
            return Turn::Nothing;
        }
        match self.stage {
            Stage::Sending => {
                let outcome = Outcome {
                    planned: counted.planned - self.before.planned,
                    sent: counted.sent - self.before.sent,
                    received: counted.received - self.before.received,
                    late: counted.late - self.before.late,
                    overdue: counted.overdue - self.before.overdue,
                };
                let is_all_here =
                    outcome.sent >= outcome.planned && outcome.received >= outcome.sent;
                if !is_all_here && now < self.end + self.desk.wait {
                    self.look_at = now + ASK_INTERVAL;
                    return Turn::Ask;
                }
                self.before = *counted;
                self.stage = Stage::Waiting;
                self.look_at = now;
                self.desk.take(now, &outcome);
                Turn::Nothing
            }
            Stage::Waiting => self.look(now),
            Stage::Over => Turn::Nothing,
        }
    }

    fn look(&mut self, now: Instant) -> Turn {
        self.look_at = now + LOOK_INTERVAL;
        if self.desk.number.load(Ordering::Acquire) == self.number {
            return Turn::Nothing;
        }
        self.number += 1;
        let state = self
            .desk
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let (Some(step), Some(at)) = (state.step, state.at) else {
            self.stage = Stage::Over;
            return Turn::Nothing;
        };
        self.stage = Stage::Sending;
        self.end = at + step.duration;
        self.look_at = self.end;
        Turn::Begin {
            step,
            at,
            number: u32::try_from(self.number).unwrap_or(u32::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Instant = Instant::from_nanos(5_000_000_000);

    #[test]
    fn shards_try_the_same_rate_at_the_same_time() {
        let goal = Goal {
            loss_max: 0.0,
            first_rate: 100.0,
            trial: Duration::from_secs(1),
        };
        let desk = Desk::new(goal, 0.01, Duration::from_secs(2), true);
        desk.expect(2);
        let (mut one, step) = Trials::begin(&desk, START);
        let (mut two, same) = Trials::begin(&desk, START);
        assert_eq!(step, same);
        assert_eq!(one.next_timeout(), Some(START + goal.trial));
        let half = |sent, received| Outcome {
            planned: sent,
            sent,
            received,
            late: 0,
            overdue: 0,
        };
        let mut now = START + goal.trial;
        // One has all at once, the other waits for what is lost.
        assert_eq!(one.turn(now, &half(50, 50)), Turn::Nothing);
        assert_eq!(one.turn(now, &half(50, 50)), Turn::Nothing);
        assert_eq!(two.turn(now, &half(50, 40)), Turn::Ask);
        now = now + Duration::from_secs(2);
        assert_eq!(two.turn(now, &half(50, 40)), Turn::Nothing);
        let begun = one.turn(now, &half(50, 50));
        let Turn::Begin { step, at, number } = begun else {
            panic!("{begun:?}");
        };
        assert!((step.rate - 50.0).abs() < 1e-9 && at == now + LEAD && number == 1);
        assert_eq!(two.turn(now, &half(50, 40)), begun);
        // The counts of the last trial are not counted again.
        now = at + step.duration;
        assert_eq!(one.turn(now, &half(75, 75)), Turn::Nothing);
        assert_eq!(two.turn(now, &half(75, 64)), Turn::Ask);
        let later = now + ASK_INTERVAL;
        assert_eq!(two.turn(later, &half(75, 65)), Turn::Nothing);
        let report = desk.report(1.0);
        assert_eq!(report.trials.len(), 2);
        assert_eq!(report.trials.last().map(|trial| trial.received), Some(50));
        assert!(!desk.is_done());
    }
}
