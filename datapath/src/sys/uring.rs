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
//! from its [`Config`] on the shard's own thread.
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
mod waker;

use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::{fmt, io};

use io_uring::{IoUring, squeue};
use socket2::Socket;

pub use self::setup::{Rung, Unavailable, probe};

use self::op::SLOT_COUNT_MAX;
use self::table::Table;
use self::waker::EventFd;
use super::buf_ring::BufRing;
use super::{clock, socket, tun};
use crate::io::{Completion, ConnectionId};
use crate::time::{Duration, Instant};

// Implementation constants.

/// The one buffer group of a ring.
const GROUP: u16 = 0;
/// First pause of a listener that found no descriptor or memory; doubles up to the last.
const ACCEPT_PAUSE_FIRST: Duration = Duration::from_millis(100);
/// Longest pause, below the second within which accepting must resume once there is room.
const ACCEPT_PAUSE_LAST: Duration = Duration::from_millis(800);
/// Name of receive buffers that are not of the ring: bytes that came with a
/// [`Detached`](crate::io::Detached).
const FOREIGN_BUFFER: u16 = u16::MAX;
/// How long dropping waits for one round of cancellations, and how many rounds, before it leaks.
const REAP_ROUND: Duration = Duration::from_millis(100);
const REAP_ROUNDS: u32 = 50;
/// Submissions in a row that may move nothing before a turn goes on without the rest.
const STUCK_SUBMITS_MAX: u32 = 16;

/// What a driver is made of; can be sent to the thread that will run it.
#[derive(Debug)]
pub struct Config {
    /// Entries of the submission queue; rounded up to a power of two.
    pub submission_entries: u32,
    /// Entries of the completion queue; `None` is four times the submission queue.
    pub completion_entries: Option<u32>,
    /// Receive buffers shared by all connections, 1..=32768.
    pub receive_buffers: u16,
    /// Bytes of each receive buffer.
    pub receive_buffer_len: usize,
    /// Connections held at once, at most 2^24; beyond it, accepted ones are closed at once.
    pub connections: u32,
    /// Listening sockets, in the order [`Completion::Accepted`] numbers them.
    pub listeners: Vec<Socket>,
    /// The TUN queue.
    pub tun: Option<OwnedFd>,
    /// Options of connections made by [`Io::connect`](crate::io::Io::connect) (accepted ones inherit
    /// their listener's).
    pub options: socket::ConnectionOptions,
    /// Lets the kernel finish a short send by itself (MSG_WAITALL); off, the driver does it.
    pub kernel_finishes_sends: bool,
    /// Receives so that the kernel can open TLS (`Io::install_tls`): poll and recvmsg, one buffer a
    /// connection and turn, instead of multishot receive, which cannot tell the type of a record.
    pub kernel_opens_tls: bool,
    /// Do not climb above this rung of kernel features; for tests and comparison.
    pub rung_max: Rung,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            submission_entries: 2048,
            completion_entries: None,
            receive_buffers: 64,
            receive_buffer_len: 64 * 1024,
            connections: 16_384,
            listeners: Vec::new(),
            tun: None,
            options: socket::ConnectionOptions::default(),
            kernel_finishes_sends: true,
            kernel_opens_tls: false,
            rung_max: Rung::NoArray,
        }
    }
}

/// What the driver counts; plain numbers, since its creation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Completions taken from the ring.
    pub completions: u64,
    /// Times the completion queue was found to have overflowed; nothing is lost by it.
    pub cq_overflows: u64,
    /// Completions the kernel had no memory to keep; anything but 0 is a fault.
    pub cq_lost: u64,
    /// Times a connection had to wait for a receive buffer.
    pub buffer_waits: u64,
    /// Pauses of a listener.
    pub accept_pauses: u64,
    /// Connections refused because the table was full.
    pub refused: u64,
    /// Sends that the kernel took only a part of.
    pub short_sends: u64,
    /// Completions that belonged to nobody; anything but 0 is a fault.
    pub unclaimed: u64,
}

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
    /// Readiness to be told in this turn.
    readable: bool,
    /// The device is gone: polling it would never end.
    gone: bool,
}

/// The io_uring driver of one shard; see the module.
pub struct Uring {
    ring: IoUring,
    rung: Rung,
    buffers: BufRing,
    table: Table,
    listeners: Vec<Listener>,
    tun: Option<TunQueue>,
    waker: Arc<EventFd>,
    woken: bool,
    /// Requests that found the submission queue full, in order.
    backlog: VecDeque<squeue::Entry>,
    /// Connections that found no receive buffer, in order.
    parked: VecDeque<ConnectionId>,
    /// What happened and is not yet told.
    told: Vec<Completion>,
    now: Instant,
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

impl Uring {
    /// Sets the ring up; the calling thread is the one that must run it.
    pub fn new(config: Config) -> Result<Self, Unavailable> {
        if config.connections > SLOT_COUNT_MAX || config.submission_entries == 0 {
            return Err(Unavailable::Other(io::ErrorKind::InvalidInput.into()));
        }
        let cq_entries = config
            .completion_entries
            .unwrap_or_else(|| config.submission_entries.saturating_mul(4));
        let (ring, rung) = setup::open(config.submission_entries, cq_entries, config.rung_max)?;
        let buffers = BufRing::new(
            &ring.submitter(),
            GROUP,
            config.receive_buffers,
            config.receive_buffer_len,
        )
        .map_err(Unavailable::Other)?;
        let waker = Arc::new(EventFd::new().map_err(Unavailable::Other)?);
        let mut listeners = Vec::with_capacity(config.listeners.len());
        for listener in config.listeners {
            // A ring does not wait on a non-blocking descriptor: it answers EAGAIN.
            listener
                .set_nonblocking(false)
                .map_err(Unavailable::Other)?;
            listeners.push(Listener {
                socket: Some(listener),
                accepting: Accepting::Idle,
                next_pause: ACCEPT_PAUSE_FIRST,
            });
        }
        let tun = match config.tun {
            Some(queue) => {
                tun::set_nonblocking(queue.as_fd()).map_err(Unavailable::Other)?;
                Some(TunQueue {
                    file: File::from(queue),
                    readable: false,
                    gone: false,
                })
            }
            None => None,
        };
        let waitall = if config.kernel_finishes_sends {
            libc::MSG_WAITALL
        } else {
            0
        };
        let mut driver = Self {
            ring,
            rung,
            buffers,
            table: Table::new(config.connections),
            listeners,
            tun,
            waker,
            woken: false,
            backlog: VecDeque::new(),
            parked: VecDeque::new(),
            told: Vec::new(),
            now: clock::now(),
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
    pub fn rung(&self) -> Rung {
        self.rung
    }

    /// What it counted so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
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
