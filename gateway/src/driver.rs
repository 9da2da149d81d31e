//! Which I/O driver the shards get, and the one line that says why.

use datapath::sys::driver::{Choice, Config, Driver};
use datapath::sys::uring::Rung;

use crate::config::DriverKind;

/// What the configuration's word asks for.
pub(crate) const fn choice(kind: DriverKind) -> Choice {
    match kind {
        DriverKind::Auto => Choice::Auto,
        DriverKind::IoUring => Choice::IoUring(Rung::NoArray),
        DriverKind::IoUring61 => Choice::IoUring(Rung::DeferTaskrun),
        DriverKind::IoUring60 => Choice::IoUring(Rung::CoopTaskrun),
        DriverKind::Epoll => Choice::Epoll,
    }
}

/// Which driver a gateway would get here and now, or why none: for `check`.
pub(crate) fn probe(kind: DriverKind) -> String {
    // As large as a shard's, since memory may be what is missing.
    match Driver::open(choice(kind), Config::default()) {
        Ok(driver) => format!("driver: {}", driver.describe()),
        Err(error) => format!("no driver for this user on this host: {error}"),
    }
}

/// Says which driver there is, once for all shards that have the same.
#[derive(Debug, Default)]
pub(crate) struct Announcer {
    last: Option<String>,
}

impl Announcer {
    /// A shard has this driver, described in words.
    pub(crate) fn announce(&mut self, driver: String) {
        if self.last.as_ref() != Some(&driver) {
            tracing::info!("driver: {driver}");
            self.last = Some(driver);
        }
    }
}
