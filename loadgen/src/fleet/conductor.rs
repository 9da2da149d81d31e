//! The conductor: moves all shards from one phase to the next, and lets the run be watched.

use std::sync::Arc;
use std::thread::JoinHandle;

use datapath::io::Waker;
use datapath::sys::clock;
use datapath::time::{Duration, Instant};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::census::Lap;
use super::conduct::{Conduct, Live, Standing};
use super::plan::{Carry, Phase};
use super::report::Memory;
use super::run::resident_bytes;
use super::tally::Tally;
use super::trials::Desk;
use super::watch::{Act, Sight, Watch};
use crate::flags::Direction;

/// How often the conductor looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// From the word to the first start and the first packet, so that every shard has heard it.
pub(super) const LEAD: Duration = Duration::from_millis(50);

/// The second network protocol may open a moment after the first.
const SECOND_PROTOCOL_WAIT: Duration = Duration::from_secs(1);

/// How long shards are waited for that are late with what was due.
const LATE_WAIT: Duration = Duration::from_secs(10);

/// One shard, as the conductor holds it.
pub(super) struct Handle {
    pub(super) live: Arc<Live>,
    pub(super) waker: Waker,
    pub(super) thread: JoinHandle<Result<Tally, String>>,
}

/// The signals that end a run.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    pub(crate) async fn any(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// How long the phases of a run took.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Timing {
    /// Those in which sessions start.
    pub(super) setup: Duration,
    /// All others.
    pub(super) steady: Duration,
    pub(super) interrupted: bool,
}

pub(super) struct Conductor<'a> {
    pub(super) phases: &'a [Phase],
    pub(super) conduct: &'a Conduct,
    pub(super) handles: &'a [Handle],
    pub(super) memory: &'a mut Memory,
    pub(super) signals: Signals,
    pub(super) watch: Watch,
    /// Endings that were planned so far.
    pub(super) endings: u64,
    /// How each phase went.
    pub(super) laps: Vec<Lap>,
}

impl Conductor<'_> {
    pub(super) async fn conduct(&mut self) -> Timing {
        let mut timing = Timing::default();
        let phases = self.phases;
        for (number, phase) in phases.iter().enumerate() {
            let up = self.standing().up;
            let starts = matches!(phase, Phase::Start(_));
            // Without a session there is nothing to hold or to send through.
            if up == 0 && !starts {
                continue;
            }
            if matches!(phase, Phase::Traffic(_)) && !self.wait_for_addresses().await {
                timing.interrupted = true;
                return timing;
            }
            let began = if number == 0 {
                self.conduct.began(0)
            } else {
                let began = clock::now() + LEAD;
                self.conduct.begin(number, began, self.standing().up);
                self.wake();
                began
            };
            let time = phase.time();
            self.watch.timed((!starts).then(|| (began, began + time)));
            let is_whole = self.finish(phase, began).await;
            let took = clock::now().saturating_since(began);
            if starts {
                timing.setup += took;
            } else {
                timing.steady += took;
            }
            self.memory.up = self.memory.up.max(resident_bytes());
            let standing = self.standing();
            self.laps.push(Lap {
                phase: phase.name(),
                seconds: took.as_secs_f64(),
                up: standing.up,
                failed: standing.failed,
                lost: standing.lost,
            });
            if !is_whole {
                timing.interrupted = true;
                return timing;
            }
        }
        timing
    }

    /// Waits until `phase` is over; `false` when a signal came first.
    async fn finish(&mut self, phase: &Phase, began: Instant) -> bool {
        match phase {
            Phase::Start(starts) => {
                let settled = u64::from(starts.end());
                self.wait(|_, standing| standing.settled >= settled).await
            }
            Phase::Hold(time) => self.wait(|now, _| now >= began + *time).await,
            Phase::Churn(churn) => {
                let until = began + churn.time;
                self.endings += u64::from(churn.count());
                let planned = self.endings;
                self.wait(|now, standing| {
                    now >= until && (standing.left >= planned || now >= until + LATE_WAIT)
                })
                .await
            }
            Phase::Traffic(Carry { plan, wait }) => {
                let until = began + plan.duration;
                let early = plan.direction != Direction::Down;
                let shards = self.handles.len() as u64;
                self.wait(|now, standing| {
                    let is_all_sent = standing.steady >= shards && standing.unsent == 0;
                    let is_all_here = early && is_all_sent && standing.received >= standing.sent;
                    if plan.search.as_deref().is_some_and(Desk::is_done) {
                        return true;
                    }
                    now >= until && (is_all_here || now >= until + *wait)
                })
                .await
            }
        }
    }

    /// IPv6 may have opened first; a server that gives no IPv4 is not waited for long.
    async fn wait_for_addresses(&mut self) -> bool {
        let until = clock::now() + SECOND_PROTOCOL_WAIT;
        self.wait(|now, standing| standing.addressed >= standing.up || now >= until)
            .await
    }

    /// Waits until `done`; `false` when a signal came first.
    async fn wait(&mut self, done: impl Fn(Instant, &Standing) -> bool) -> bool {
        let mut looks = tokio::time::interval(LOOK_INTERVAL);
        loop {
            tokio::select! {
                () = self.signals.any() => return false,
                _ = looks.tick() => {}
            }
            let (now, standing) = (clock::now(), self.standing());
            self.look(now, standing);
            // A shard that died has said nothing more, and never will.
            let is_dead = self
                .handles
                .iter()
                .any(|handle| handle.thread.is_finished());
            if is_dead || done(now, &standing) {
                return true;
            }
        }
    }

    fn look(&mut self, now: Instant, standing: Standing) {
        for (shard, handle) in self.handles.iter().enumerate() {
            self.watch.add(shard, handle.live.samples.take());
        }
        self.watch.look(&Sight {
            now,
            began: self.conduct.began(0),
            act: Act::of(self.phases.get(self.conduct.phase())),
            standing,
        });
    }

    fn standing(&self) -> Standing {
        let mut sum = Standing::default();
        for handle in self.handles {
            handle.live.add_to(&mut sum);
        }
        sum
    }

    fn wake(&self) {
        for handle in self.handles {
            handle.waker.wake();
        }
    }
}
