//! What a run does, phase by phase: the one plan that flags and scenario files become.
//!
//! ```text
//!   storm      Start, Hold                         run FILE   any of them, in any order
//!   traffic    Start, Traffic
//! ```
//!
//! After the last phase comes the end, which ends all sessions politely.

use std::sync::Arc;

use datapath::time::Duration;

use super::churn::Churn;
use super::curve::Curve;
use super::traffic;

/// A part of a run; all sessions are in the same one.
#[derive(Clone, Debug)]
pub(crate) enum Phase {
    /// New sessions start; over when each has come up or failed.
    Start(Starts),
    /// Nothing happens but echoes.
    Hold(Duration),
    /// Sessions leave, and come back.
    Churn(Churn),
    /// Packets pass through the tunnels.
    Traffic(Carry),
}

/// Sessions to start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Starts {
    /// The number of the first one; those before it are of earlier phases.
    pub(crate) first: u32,
    pub(crate) count: u32,
    pub(crate) curve: Curve,
}

impl Starts {
    /// One past the number of the last one.
    pub(crate) const fn end(&self) -> u32 {
        self.first.saturating_add(self.count)
    }
}

/// Packets to send, and how long to wait for the last of them.
#[derive(Clone, Debug)]
pub(crate) struct Carry {
    pub(crate) plan: Arc<traffic::Plan>,
    pub(crate) wait: Duration,
}

impl Phase {
    /// How long it is planned to last; a start lasts until all are up.
    pub(crate) fn time(&self) -> Duration {
        match self {
            Self::Start(_) => Duration::ZERO,
            Self::Hold(time) => *time,
            Self::Churn(churn) => churn.time,
            Self::Traffic(carry) => carry.plan.duration,
        }
    }

    /// As reports and scenario files call it.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Start(starts) => match starts.curve {
                Curve::Even { .. } => "connect",
                Curve::Ramp { .. } => "ramp",
            },
            Self::Hold(_) => "hold",
            Self::Churn(_) => "churn",
            Self::Traffic(_) => "traffic",
        }
    }
}
