//! What the shards of a run share: the present act, when it began, and counts for the conductor.
//!
//! ```text
//!   Setup ── all settled ─▶ Steady (hold, or traffic) ── time is up ─▶ End
//!     └──────────────────── interrupted ─────────────────────────────▲
//! ```
//!
//! The conductor alone moves on; the shards look once a turn. Each shard counts into cells of its
//! own, so nothing is written by two.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use datapath::time::Instant;

use super::sample::Samples;

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Setup,
    Steady,
    End,
}

/// Shared by the conductor and all shards.
#[derive(Debug)]
pub(crate) struct Conduct {
    act: AtomicU8,
    /// When the first session is to start, and when the first packet is to be sent.
    setup_at: AtomicU64,
    steady_at: AtomicU64,
    /// Sessions up on all shards when the steady act began.
    up_at_steady: AtomicU64,
}

impl Conduct {
    /// A run that starts its first session at `setup_at`.
    pub(crate) fn new(setup_at: Instant) -> Arc<Self> {
        Arc::new(Self {
            act: AtomicU8::new(0),
            setup_at: AtomicU64::new(setup_at.as_nanos()),
            steady_at: AtomicU64::new(0),
            up_at_steady: AtomicU64::new(0),
        })
    }

    pub(crate) fn act(&self) -> Act {
        match self.act.load(Ordering::Acquire) {
            0 => Act::Setup,
            1 => Act::Steady,
            _ => Act::End,
        }
    }

    pub(crate) fn setup_at(&self) -> Instant {
        Instant::from_nanos(self.setup_at.load(Ordering::Relaxed))
    }

    pub(crate) fn steady_at(&self) -> Instant {
        Instant::from_nanos(self.steady_at.load(Ordering::Relaxed))
    }

    pub(crate) fn up_at_steady(&self) -> u64 {
        self.up_at_steady.load(Ordering::Relaxed)
    }

    /// Begins the steady act; its first packet is due at `at`.
    pub(crate) fn steady(&self, at: Instant, up: u64) {
        self.steady_at.store(at.as_nanos(), Ordering::Relaxed);
        self.up_at_steady.store(up, Ordering::Relaxed);
        self.act.store(1, Ordering::Release);
    }

    /// Ends the run.
    pub(crate) fn end(&self) {
        self.act.store(2, Ordering::Release);
    }
}

/// What one shard tells the conductor while it runs.
#[derive(Debug, Default)]
pub(crate) struct Live {
    /// Sessions that came up, failed, or could not be begun.
    settled: AtomicU64,
    up: AtomicU64,
    addressed: AtomicU64,
    failed: AtomicU64,
    lost: AtomicU64,
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
    /// Shards that have begun the steady act.
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
        sum.steady += self.steady.load(Ordering::Relaxed);
        sum.unsent += self.unsent.load(Ordering::Relaxed);
        sum.sent += self.sent.load(Ordering::Relaxed);
        sum.received += self.received.load(Ordering::Relaxed);
    }
}
