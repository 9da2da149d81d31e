//! The io_uring driver: one ring, one buffer ring, one TUN queue, for one shard.
//!
//! ```text
//!            turn: submit what was asked for, wait, reap
//!   accept ── multishot ──→ Accepted          send ── one a connection, continued ──→ Sent
//!   receive ─ multishot ──→ Received          connect ──→ Connected
//!   poll TUN, waker ── multishot ──→ TunReadable, Woken       cancel ──→ (nobody)
//! ```
//!
//! Whatever the kernel may touch is out of Rust's hands until the request's final completion
//! (`Lent`), and a descriptor is closed only when no request names it any more, so neither memory
//! nor a descriptor's number can be reused under a request. Dropping the driver cancels everything,
//! reaps it, and only then frees memory; what cannot be reaped is leaked rather than freed.
//!
//! The ring belongs to the thread that made it (SINGLE_ISSUER); the type is not `Send`, so build it
//! on the shard's own thread.
//!
//! Limits: [`Config`]. A full table refuses connections; an empty buffer ring stops receiving until
//! buffers come back; a queue longer than the submission queue is submitted in several calls.

mod completion;
mod kernel_tls;
mod op;
mod requests;
mod setup;
mod submit;
mod table;

use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::{fmt, io};

use io_uring::{IoUring, squeue};
use socket2::Socket;

pub use self::setup::{Rung, Unavailable, probe};
pub use super::driver::{Config, Counters};

use self::table::Connection;
use super::buf_ring::BufRing;
use super::driver::ACCEPT_PAUSE_FIRST;
use super::slots::Slots;
use super::waker::EventFd;
use super::{clock, socket, tun};
use crate::io::{Completion, ConnectionId};
use crate::time::{Duration, Instant};

// Implementation constants.

/// The one buffer group of a ring.
const GROUP: u16 = 0;
/// How long dropping waits for one round of cancellations, and how many rounds, before it leaks.
const REAP_ROUND: Duration = Duration::from_millis(100);
const REAP_ROUNDS: u32 = 50;
/// Submissions in a row that may move nothing before a turn goes on without the rest.
const STUCK_SUBMITS_MAX: u32 = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accepting {
    Idle,
    Armed,
    Cancelling,
    Paused { until: Instant },
}

#[derive(Debug)]
struct Listener {
    /// `None` once stopped for good.
    socket: Option<Socket>,
    accepting: Accepting,
    next_pause: Duration,
}

#[derive(Debug)]
struct TunQueue {
    file: File,
    /// Names its poll among those of queues before and after it.
    generation: u32,
    /// Its poll is with the kernel.
    armed: bool,
    /// Readiness to be told in this turn.
    readable: bool,
    /// The device is gone: polling it would never end.
    gone: bool,
}

impl TunQueue {
    fn new(queue: OwnedFd, generation: u32) -> Self {
        Self {
            file: File::from(queue),
            generation,
            armed: false,
            readable: false,
            gone: false,
        }
    }
}

/// The io_uring driver of one shard; see the module.
pub struct Uring {
    ring: IoUring,
    rung: Rung,
    buffers: BufRing,
    table: Slots<Connection>,
    listeners: Vec<Listener>,
    tun: Option<TunQueue>,
    /// Queues that were replaced, until nothing polls them any more.
    old_tuns: Vec<TunQueue>,
    waker: Arc<EventFd>,
    woken: bool,
    /// Requests that found the submission queue full, in order.
    backlog: VecDeque<squeue::Entry>,
    /// Connections that got no receive buffer since they last asked, in order: these go first. One that
    /// always has more would else take every buffer that comes back, each time anew.
    starved: VecDeque<ConnectionId>,
    /// Connections that used the last buffers up, in order.
    parked: VecDeque<ConnectionId>,
    /// What happened and is not yet told.
    told: Vec<Completion>,
    now: Instant,
    last_busy: Duration,
    /// Requests with the kernel or on their way there, cancellations not counted.
    in_flight: usize,
    stopping: bool,
    /// Being dropped: nothing may be armed again.
    dropping: bool,
    options: socket::ConnectionOptions,
    send_flags: i32,
    counters: Counters,
    /// Receiving by poll and recvmsg, where the kernel is to open TLS.
    polled: Option<kernel_tls::Polled>,
}

impl fmt::Debug for Uring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Uring")
            .field("rung", &self.rung)
            .field("connections", &self.table.len())
            .field("in_flight", &self.in_flight)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

/// A ring with its buffers, of which a driver can be made: all that can be missing on a host is here.
pub(super) struct Ring {
    ring: IoUring,
    rung: Rung,
    buffers: BufRing,
}

impl Ring {
    /// Sets a ring up on the highest rung possible, `rung_max` at most.
    pub(super) fn open(config: &Config, rung_max: Rung) -> Result<Self, Unavailable> {
        config.check().map_err(Unavailable::Config)?;
        let cq_entries = config
            .completion_entries
            .unwrap_or_else(|| config.submission_entries.saturating_mul(4));
        let (ring, rung) = setup::open(config.submission_entries, cq_entries, rung_max)?;
        let buffers = BufRing::new(
            &ring.submitter(),
            GROUP,
            config.receive_buffers,
            config.receive_buffer_len,
        )
        .map_err(setup::explain)?;
        Ok(Self {
            ring,
            rung,
            buffers,
        })
    }
}

impl Uring {
    /// Sets the ring up; the calling thread is the one that must run it.
    ///
    /// # Errors
    ///
    /// When this host has no io_uring for us, or the configuration makes no sense.
    pub fn new(config: Config) -> Result<Self, Unavailable> {
        let ring = Ring::open(&config, Rung::NoArray)?;
        Self::on(ring, config).map_err(Unavailable::Other)
    }

    /// Makes a driver; the calling thread is the one that opened the ring and must run it.
    pub(super) fn on(ring: Ring, config: Config) -> io::Result<Self> {
        let Ring {
            ring,
            rung,
            buffers,
        } = ring;
        let waker = Arc::new(EventFd::new()?);
        let mut listeners = Vec::with_capacity(config.listeners.len());
        for listener in config.listeners {
            // A ring does not wait on a non-blocking descriptor: it answers EAGAIN.
            listener.set_nonblocking(false)?;
            listeners.push(Listener {
                socket: Some(listener),
                accepting: Accepting::Idle,
                next_pause: ACCEPT_PAUSE_FIRST,
            });
        }
        let tun = match config.tun {
            Some(queue) => {
                tun::set_nonblocking(queue.as_fd())?;
                Some(TunQueue::new(queue, 0))
            }
            None => None,
        };
        let waitall = if config.kernel_finishes_sends {
            libc::MSG_WAITALL
        } else {
            0
        };
        // A turn on a busy host finds every buffer filled, and a send done besides.
        let told_len = usize::from(config.receive_buffers) + 64;
        let mut driver = Self {
            ring,
            rung,
            buffers,
            table: Slots::new(config.connections),
            listeners,
            tun,
            old_tuns: Vec::new(),
            waker,
            woken: false,
            backlog: VecDeque::with_capacity(64),
            starved: VecDeque::with_capacity(64),
            parked: VecDeque::with_capacity(64),
            told: Vec::with_capacity(told_len),
            now: clock::now(),
            last_busy: Duration::ZERO,
            in_flight: 0,
            stopping: false,
            dropping: false,
            options: config.options,
            send_flags: libc::MSG_NOSIGNAL | waitall,
            counters: Counters::default(),
            polled: config.kernel_opens_tls.then(|| {
                kernel_tls::Polled::new(config.receive_buffers, config.receive_buffer_len)
            }),
        };
        for listener in 0..driver.listeners.len() {
            driver.arm_accept(listener);
        }
        driver.arm_waker();
        driver.arm_tun();
        Ok(driver)
    }

    /// Where on the ladder of kernel features this driver stands.
    #[must_use]
    pub const fn rung(&self) -> Rung {
        self.rung
    }

    /// What it counted so far.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// Connections it holds, with those whose last requests are still under way.
    #[must_use]
    pub fn connection_count(&self) -> usize {
        self.table.len()
    }

    /// Receive buffers that are not with the shard.
    #[must_use]
    pub fn buffers_available(&self) -> usize {
        self.buffers.available()
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        if !self.reap_everything() {
            // Lent memory leaks by itself when the table and the buffer ring are dropped.
            return;
        }
        // SAFETY: no request is under way, so none selects from the group.
        unsafe { self.buffers.retire(&self.ring.submitter()) };
        for connection in self.table.drain() {
            if let Some(sending) = connection.send {
                // SAFETY: no request is under way.
                drop(unsafe { sending.take_back() });
            }
            if let Some(address) = connection.connect {
                // SAFETY: no request is under way.
                drop(unsafe { address.take_back() });
            }
        }
    }
}
