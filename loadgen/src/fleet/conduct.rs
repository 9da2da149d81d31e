//! What the shards of a run share: the present phase, when it began, and counts for the conductor.
//!
//! ```text
//!   phase 0 ── it is over ─▶ phase 1 … ─▶ the end
//!      └────────── interrupted ────────────▲
//! ```
//!
//! The conductor alone moves on; the shards look once a turn. Each shard counts into cells of its
//! own, so nothing is written by two.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use datapath::time::Instant;

use super::sample::Samples;

/// Shared by the conductor and all shards.
#[derive(Debug)]
pub(crate) struct Conduct {
    /// The number of the present phase; that of the end is one past the last.
    phase: AtomicUsize,
    /// When each phase began: its first start or packet is planned for then.
    began: Box<[AtomicU64]>,
    /// Sessions up on all shards when the present phase began.
    up: AtomicU64,
}

impl Conduct {
    /// A run of `phases` phases whose first begins at `at`.
    pub(crate) fn new(phases: usize, at: Instant) -> Arc<Self> {
        Arc::new(Self {
            phase: AtomicUsize::new(0),
            began: (0..phases.max(1))
                .map(|_| AtomicU64::new(at.as_nanos()))
                .collect(),
            up: AtomicU64::new(0),
        })
    }

    pub(crate) fn phase(&self) -> usize {
        self.phase.load(Ordering::Acquire)
    }

    /// When `phase` began, if it has.
    pub(crate) fn began(&self, phase: usize) -> Instant {
        let nanos = self.began.get(phase).or_else(|| self.began.last());
        Instant::from_nanos(nanos.map_or(0, |nanos| nanos.load(Ordering::Relaxed)))
    }

    pub(crate) fn up(&self) -> u64 {
        self.up.load(Ordering::Relaxed)
    }

    /// Begins `phase` at `at`.
    pub(crate) fn begin(&self, phase: usize, at: Instant, up: u64) {
        if let Some(began) = self.began.get(phase) {
            began.store(at.as_nanos(), Ordering::Relaxed);
        }
        self.up.store(up, Ordering::Relaxed);
        self.phase.store(phase, Ordering::Release);
    }

    /// Ends the run.
    pub(crate) fn end(&self) {
        self.phase.store(self.began.len(), Ordering::Release);
    }
}

/// What one shard tells the conductor while it runs.
#[derive(Debug, Default)]
pub(crate) struct Live {
    /// Sessions that came up, failed, or could not be begun, each once.
    settled: AtomicU64,
    up: AtomicU64,
    addressed: AtomicU64,
    failed: AtomicU64,
    lost: AtomicU64,
    left: AtomicU64,
    steady: AtomicU64,
    unsent: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
    /// Its seconds.
    pub(super) samples: Samples,
}

/// The same as plain numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) settled: u64,
    /// Up now.
    pub(crate) up: u64,
    /// Sessions that were given an IPv4 address, which may come after they are up.
    pub(crate) addressed: u64,
    pub(crate) failed: u64,
    /// Ended without our asking.
    pub(crate) lost: u64,
    /// Endings that were planned and are done with, whether or not somebody was there to leave.
    pub(crate) left: u64,
    /// Shards that send the packets of the present phase.
    pub(crate) steady: u64,
    /// Packets that are planned and not sent yet.
    pub(crate) unsent: u64,
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

impl Live {
    pub(crate) fn tell(&self, standing: &Standing) {
        self.settled.store(standing.settled, Ordering::Relaxed);
        self.up.store(standing.up, Ordering::Relaxed);
        self.addressed.store(standing.addressed, Ordering::Relaxed);
        self.failed.store(standing.failed, Ordering::Relaxed);
        self.lost.store(standing.lost, Ordering::Relaxed);
        self.left.store(standing.left, Ordering::Relaxed);
        self.steady.store(standing.steady, Ordering::Relaxed);
        self.unsent.store(standing.unsent, Ordering::Relaxed);
        self.sent.store(standing.sent, Ordering::Relaxed);
        self.received.store(standing.received, Ordering::Relaxed);
    }

    pub(crate) fn add_to(&self, sum: &mut Standing) {
        sum.settled += self.settled.load(Ordering::Relaxed);
        sum.up += self.up.load(Ordering::Relaxed);
        sum.addressed += self.addressed.load(Ordering::Relaxed);
        sum.failed += self.failed.load(Ordering::Relaxed);
        sum.lost += self.lost.load(Ordering::Relaxed);
        sum.left += self.left.load(Ordering::Relaxed);
        sum.steady += self.steady.load(Ordering::Relaxed);
        sum.unsent += self.unsent.load(Ordering::Relaxed);
        sum.sent += self.sent.load(Ordering::Relaxed);
        sum.received += self.received.load(Ordering::Relaxed);
    }
}
