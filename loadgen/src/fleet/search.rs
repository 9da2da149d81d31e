//! `--search ndr`: the highest rate without loss above a bound, by trials on the same sessions.
//!
//! ```text
//!   first rate ─ passes ─▶ twice, twice, … until one fails ─┐
//!              └ fails ──▶ half, half, …  until one passes ─┴▶ bisect ─▶ confirm, three times as long
//!                                                                        └ fails ▶ a tenth less, …
//! ```
//!
//! RFC 2544 §26.1 with a bound in place of zero. A trial in which loadgen fell behind its plan says
//! nothing of the server, and neither does one that lost packets while loadgen was late, for late
//! packets come in bursts. Such a rate is tried once more; then it is not exceeded, and what is found
//! below it is told as bound by the generator. Late packets of which none was lost prove the rate all
//! the more. Rates are packets a second over all sessions.

use datapath::time::Duration;
use serde::Serialize;

/// Trials at most, with confirmations.
pub(crate) const TRIALS_MAX: usize = 40;

/// A rate within this share of one that fails is the highest.
const PRECISION: f64 = 0.02;

/// The share of what was planned that must have been sent.
const SENT_SHARE_MIN: f64 = 0.98;

/// Rates that are tried at all.
const RATE_MIN: f64 = 1.0;
const RATE_MAX: f64 = 1e8;

/// Rates one below the other at which loadgen itself was too slow, after which no lower one is tried.
const BEHIND_MAX: usize = 4;

/// A confirmation lasts so many times as long as a trial.
const CONFIRM_FACTOR: u32 = 3;

/// Times that a rate may fail its confirmation before the search gives up.
const CONFIRMATIONS_MAX: u32 = 6;

/// What is left of a rate that did not last, for the next confirmation: one a little lower would most
/// likely not last either.
const STEP_BACK: f64 = 0.9;

/// What is searched for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Goal {
    /// As a fraction of what was sent.
    pub(crate) loss_max: f64,
    pub(crate) first_rate: f64,
    pub(crate) trial: Duration,
}

/// What is to be tried next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Step {
    pub(crate) rate: f64,
    pub(crate) duration: Duration,
    pub(crate) confirms: bool,
}

/// What a trial showed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) planned: u64,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// Sent later than planned, by more than the report allows.
    pub(crate) late: u64,
    /// Sent when the trial should long have been over ([`Step::overdue_after`]).
    pub(crate) overdue: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    Pass,
    Loss,
    /// Loadgen was late, or sent nothing: the trial is no result.
    GeneratorBound,
}

/// One trial, for the report.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Trial {
    pub(crate) pps: f64,
    pub(crate) seconds: f64,
    pub(crate) confirms: bool,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) loss: f64,
    /// The share of packets that loadgen sent late.
    pub(crate) late: f64,
    pub(crate) verdict: Verdict,
}

impl Step {
    /// From the start of the trial until a packet that is still to be sent shows that loadgen does not
    /// keep up.
    pub(crate) fn overdue_after(&self) -> Duration {
        self.duration + (self.duration / 50).max(Duration::from_millis(10))
    }
}

impl Outcome {
    pub(crate) const fn add(&mut self, other: &Self) {
        self.planned += other.planned;
        self.sent += other.sent;
        self.received += other.received;
        self.late += other.late;
        self.overdue += other.overdue;
    }
}

/// What ended the search.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum BoundBy {
    /// A rate a little higher loses more than the bound.
    Loss,
    /// A rate a little higher is more than loadgen can send here: the server may do more.
    Generator,
    /// No higher rate is tried.
    RateMax,
    /// The search ended before it was sure.
    Unsure,
}

/// The search, from trial to trial.
#[derive(Clone, Debug)]
pub(crate) struct Search {
    goal: Goal,
    late_share_max: f64,
    /// What was no result, and is tried once more.
    again: Option<Step>,
    /// The highest that passed and the lowest that did not.
    passed: Option<f64>,
    failed: Option<(f64, Verdict)>,
    confirmed: Option<f64>,
    confirmations_failed: u32,
    /// The rate to confirm after one that did not last.
    stepped_back: Option<f64>,
    trials: Vec<Trial>,
}

impl Search {
    /// A search in which a trial with more than `late_share_max` late packets is no result.
    pub(crate) const fn new(goal: Goal, late_share_max: f64) -> Self {
        Self {
            goal,
            late_share_max,
            again: None,
            passed: None,
            failed: None,
            confirmed: None,
            confirmations_failed: 0,
            stepped_back: None,
            trials: Vec::new(),
        }
    }

    /// What to try; `None` when all is known or it is no use.
    pub(crate) fn next(&self) -> Option<Step> {
        let is_over = self.confirmed.is_some()
            || self.trials.len() >= TRIALS_MAX
            || self.confirmations_failed >= CONFIRMATIONS_MAX;
        if is_over {
            return None;
        }
        if self.again.is_some() {
            return self.again;
        }
        let trial = |rate: f64| Step {
            rate,
            duration: self.goal.trial,
            confirms: false,
        };
        let confirmation = |rate| Step {
            rate,
            duration: self.goal.trial * CONFIRM_FACTOR,
            confirms: true,
        };
        if let Some(rate) = self.stepped_back {
            return Some(confirmation(rate));
        }
        let behind = |trial: &&Trial| trial.verdict == Verdict::GeneratorBound && !trial.confirms;
        let in_a_row = self.trials.iter().rev().take_while(behind).count();
        if in_a_row >= 2 * BEHIND_MAX {
            // No higher rate can be had here; what passed may yet last.
            return self.passed.map(confirmation);
        }
        match (self.passed, self.failed) {
            (None, None) => Some(trial(self.goal.first_rate)),
            (None, Some((failed, _))) => (failed / 2.0 >= RATE_MIN).then(|| trial(failed / 2.0)),
            (Some(passed), None) if passed >= RATE_MAX => Some(confirmation(passed)),
            (Some(passed), None) => Some(trial((passed * 2.0).min(RATE_MAX))),
            (Some(passed), Some((failed, _))) if failed - passed <= failed * PRECISION => {
                Some(confirmation(passed))
            }
            (Some(passed), Some((failed, _))) => Some(trial(f64::midpoint(passed, failed))),
        }
    }

    /// Takes what came of the last step.
    pub(crate) fn judge(&mut self, step: &Step, outcome: &Outcome) -> Trial {
        let share = |part: u64| {
            if outcome.sent > 0 {
                part as f64 / outcome.sent as f64
            } else {
                1.0
            }
        };
        let loss = share(outcome.sent.saturating_sub(outcome.received));
        let late = share(outcome.late);
        // A far end that sends on request has no lateness to tell, but its count falls short.
        let short = outcome.sent as f64 <= outcome.planned as f64 * SENT_SHARE_MIN;
        let behind = short || share(outcome.overdue) > self.late_share_max;
        let is_lossy = loss > self.goal.loss_max;
        let verdict = if behind || is_lossy && late > self.late_share_max {
            Verdict::GeneratorBound
        } else if is_lossy {
            Verdict::Loss
        } else {
            Verdict::Pass
        };
        let trial = Trial {
            pps: step.rate,
            seconds: step.duration.as_secs_f64(),
            confirms: step.confirms,
            sent: outcome.sent,
            received: outcome.received,
            loss,
            late,
            verdict,
        };
        self.trials.push(trial);
        let was_again = self.again.take().is_some();
        if verdict == Verdict::GeneratorBound && !was_again {
            self.again = Some(*step);
            return trial;
        }
        match (verdict, step.confirms) {
            (Verdict::Pass, true) => self.confirmed = Some(step.rate),
            (Verdict::Pass, false) => {
                self.passed = Some(
                    self.passed
                        .map_or(step.rate, |passed| passed.max(step.rate)),
                );
            }
            (_, true) => {
                self.confirmations_failed += 1;
                self.failed = Some((step.rate, verdict));
                self.stepped_back = Some(step.rate * STEP_BACK);
            }
            (_, false) => self.failed = Some((step.rate, verdict)),
        }
        trial
    }

    pub(crate) fn report(&self, mean_bits: f64) -> SearchReport {
        let bound_by = match (self.confirmed, self.failed) {
            (None, _) => BoundBy::Unsure,
            (Some(_), None) => BoundBy::RateMax,
            (Some(_), Some((_, Verdict::GeneratorBound))) => BoundBy::Generator,
            (Some(_), Some(_)) => BoundBy::Loss,
        };
        SearchReport {
            loss_max: self.goal.loss_max,
            found_pps: self.confirmed,
            found_bps: self.confirmed.map(|pps| pps * mean_bits),
            bound_by,
            trials: self.trials.clone(),
        }
    }
}

/// What the search came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct SearchReport {
    pub(crate) loss_max: f64,
    /// The highest confirmed rate; none if there is none.
    pub(crate) found_pps: Option<f64>,
    /// The same in bits of IP packets.
    pub(crate) found_bps: Option<f64>,
    pub(crate) bound_by: BoundBy,
    pub(crate) trials: Vec<Trial>,
}

impl Trial {
    /// One line for people.
    pub(crate) fn line(&self) -> String {
        let what = match (self.verdict, self.confirms) {
            (Verdict::Pass, false) => "passes",
            (Verdict::Pass, true) => "is confirmed",
            (Verdict::Loss, false) => "loses too much",
            (Verdict::Loss, true) => "loses too much when it lasts",
            (Verdict::GeneratorBound, _) => "is no result: loadgen itself was late",
        };
        format!(
            "{:.0} pps for {:.0} s {what} ({} sent, {:.4} % lost, {:.1} % late)",
            self.pps,
            self.seconds,
            self.sent,
            self.loss * 100.0,
            self.late * 100.0
        )
    }
}

impl SearchReport {
    pub(crate) const fn is_found(&self) -> bool {
        self.found_pps.is_some()
    }

    /// All trials and what was found.
    pub(crate) fn table(&self) -> String {
        let trials = self.trials.iter().map(|trial| trial.line() + "\n");
        format!("\n{}{}\n", trials.collect::<String>(), self.line())
    }

    /// What is found, for people.
    pub(crate) fn line(&self) -> String {
        let bound = self.loss_max * 100.0;
        let (Some(pps), Some(bps)) = (self.found_pps, self.found_bps) else {
            return format!(
                "no rate was found at which no more than {bound} % are lost; see the trials for why, and \
                 give a lower --pps, a longer --duration or a machine that does nothing else"
            );
        };
        let why = match self.bound_by {
            BoundBy::Loss => "more is lost above",
            BoundBy::Generator => {
                "loadgen cannot send more from here, so the server may do more: give it more processors"
            }
            BoundBy::RateMax => "no higher rate is tried",
            BoundBy::Unsure => "unconfirmed",
        };
        format!(
            "highest rate with no more than {bound} % lost: {pps:.0} pps, {:.1} Mbit/s; {why}",
            bps / 1e6
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOAL: Goal = Goal {
        loss_max: 0.001,
        first_rate: 1000.0,
        trial: Duration::from_secs(5),
    };

    /// Searches a server that loses one in ten above `capacity`, by a loadgen that is late above
    /// `own`; in a confirmation the capacity is `steady`.
    fn search(goal: Goal, capacity: f64, steady: f64, own: f64) -> SearchReport {
        let mut search = Search::new(goal, 0.01);
        while let Some(step) = search.next() {
            let capacity = if step.confirms { steady } else { capacity };
            let outcome = Outcome {
                planned: 100_000,
                sent: 100_000,
                received: if step.rate > capacity {
                    90_000
                } else {
                    100_000
                },
                // It is late now and then at any rate.
                late: if own < capacity { 20_000 } else { 10 },
                overdue: if step.rate > own { 5_000 } else { 10 },
            };
            search.judge(&step, &outcome);
        }
        search.report(8000.0)
    }

    #[test]
    fn a_capacity_is_found_from_either_side_and_confirmed() {
        for first_rate in [10.0, 777.0, 12_345.0, 1e6] {
            let report = search(Goal { first_rate, ..GOAL }, 12_345.0, 1e9, 1e9);
            let found = report.found_pps.unwrap();
            assert!((12_345.0 * 0.98..=12_345.0).contains(&found), "{report:?}");
            assert_eq!(report.bound_by, BoundBy::Loss);
            assert_eq!(report.found_bps, Some(found * 8000.0));
            let last = report.trials.last().unwrap();
            assert!(last.confirms && (last.seconds - 15.0).abs() < 1e-9);
            assert!(report.trials.len() < TRIALS_MAX, "{report:?}");
        }
    }

    #[test]
    fn what_loadgen_cannot_send_is_no_result() {
        let report = search(GOAL, 1e9, 1e9, 50_000.0);
        let found = report.found_pps.unwrap();
        assert!((49_000.0..=50_000.0).contains(&found), "{report:?}");
        assert_eq!(report.bound_by, BoundBy::Generator);
        assert!(report.line().contains("the server may do more"));
    }

    #[test]
    fn what_passed_is_confirmed_when_loadgen_can_do_no_more() {
        let goal = Goal {
            first_rate: 4_000.0,
            ..GOAL
        };
        // Behind at 1,024,000, 768,000, 640,000 and 576,000: nothing between is tried any more.
        let report = search(goal, 1e9, 1e9, 520_000.0);
        assert_eq!(report.found_pps, Some(512_000.0), "{report:?}");
        assert_eq!(report.bound_by, BoundBy::Generator);
    }

    #[test]
    fn a_rate_that_does_not_last_is_not_reported() {
        let report = search(GOAL, 10_000.0, 9_700.0, 1e9);
        assert!(
            report.found_pps.is_none_or(|found| found <= 9_700.0),
            "{report:?}"
        );
        let failed = report.trials.iter().find(|trial| trial.confirms);
        assert_eq!(failed.map(|trial| trial.verdict), Some(Verdict::Loss));
    }

    #[test]
    fn a_server_that_always_loses_ends_the_search() {
        let report = search(GOAL, 0.0, 0.0, 1e9);
        assert_eq!((report.found_pps, report.bound_by), (None, BoundBy::Unsure));
        let report = search(GOAL, 1e12, 1e12, 1e12);
        assert_eq!(report.bound_by, BoundBy::RateMax);
    }

    #[test]
    fn a_trial_that_sent_nothing_is_no_result() {
        let mut search = Search::new(GOAL, 0.01);
        let step = search.next().unwrap();
        let trial = search.judge(&step, &Outcome::default());
        assert_eq!(trial.verdict, Verdict::GeneratorBound);
    }

    #[test]
    fn a_loss_while_loadgen_was_late_is_no_result_and_tried_once_more() {
        let mut search = Search::new(GOAL, 0.01);
        let outcome = Outcome {
            planned: 1000,
            sent: 1000,
            received: 900,
            late: 100,
            overdue: 0,
        };
        for _ in 0..2 {
            let step = search.next().unwrap();
            assert!((step.rate - 1000.0).abs() < 1e-9);
            let trial = search.judge(&step, &outcome);
            assert_eq!(trial.verdict, Verdict::GeneratorBound);
        }
        assert!(search.next().is_some_and(|step| step.rate < 501.0));
        // It gives up when it is late at whatever rate.
        while let Some(step) = search.next() {
            search.judge(&step, &outcome);
        }
        assert_eq!(search.report(1.0).trials.len(), 2 * BEHIND_MAX);
    }
}
