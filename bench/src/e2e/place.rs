//! Where the harness's own thread runs, and whether it comes first there.
//!
//! A burst must lie in the TUN or the socket before the gateway begins with it, as in the floor. So for
//! bursts the harness shares the gateway's processor under a real-time policy: the gateway runs when
//! the harness sleeps.

use std::fs;
use std::io;
use std::process::Command;

use datapath::sys::affinity;

use super::process;

/// Processors: the gateway's, and another if there is one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) first: usize,
    pub(super) last: usize,
}

impl Place {
    /// Moves the calling thread to the gateway's processor and before it.
    pub(super) fn before_the_gateway(self) -> io::Result<()> {
        affinity::pin(self.first).map_err(io::Error::other)?;
        schedule(&["-f", "-p", "1"])
    }

    /// Moves it to the other processor, as a thread like any other.
    pub(super) fn beside_the_gateway(self) -> io::Result<()> {
        schedule(&["-o", "-p", "0"])?;
        affinity::pin(self.last).map_err(io::Error::other)
    }
}

/// Sets the scheduling policy of the calling thread.
fn schedule(policy: &[&str]) -> io::Result<()> {
    // `PID/task/TID`
    let link = fs::read_link("/proc/thread-self")?;
    let thread = link.file_name().unwrap_or_default();
    process::run(Command::new("chrt").args(policy).arg(thread)).map(|_| ())
}
