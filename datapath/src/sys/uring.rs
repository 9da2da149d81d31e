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
mod op;
mod setup;
mod table;
mod waker;

use std::collections::VecDeque;
use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::{fmt, io};

use io_uring::types::{CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, opcode, squeue};
use socket2::{SockAddr, SockRef, Socket};

pub use self::setup::{Rung, Unavailable, probe};

use self::op::{Kind, Op, SLOT_COUNT_MAX};
use self::table::{Connection, Receive, Sending, Table};
use self::waker::EventFd;
use super::buf_ring::BufRing;
use super::lent::Lent;
use super::{clock, socket, tun};
use crate::io::{
    Completion, ConnectionId, Detached, DetachedConnection, Io, Loss, ReceiveBuffer, SendBuffer,
    TunRead, Waker,
};
use crate::time::{Duration, Instant};

// Implementation constants.

/// The one buffer group of a ring.
const GROUP: u16 = 0;
/// First pause of a listener that found no descriptor or memory; doubles up to the last.
const ACCEPT_PAUSE_FIRST: Duration = Duration::from_millis(100);
/// Longest pause, below the second within which accepting must resume once there is room.
const ACCEPT_PAUSE_LAST: Duration = Duration::from_millis(800);
/// Name of receive buffers that are not of the ring: bytes that came with a [`Detached`].
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
    /// Options of connections made by [`Io::connect`] (accepted ones inherit their listener's).
    pub options: socket::ConnectionOptions,
    /// Lets the kernel finish a short send by itself (MSG_WAITALL); off, the driver does it.
    pub kernel_finishes_sends: bool,
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
        let (ring, rung) = setup::open(config.submission_entries, cq_entries)?;
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

    /// Queues a request that will have completions.
    fn submit(&mut self, entry: squeue::Entry, op: Op) {
        self.in_flight += 1;
        self.push(entry.user_data(op.encode()));
    }

    fn cancel(&mut self, op: Op) {
        let entry = opcode::AsyncCancel2::new(CancelBuilder::user_data(op.encode())).build();
        let cancel = Op::new(Kind::Cancel, op.slot, op.generation);
        self.push(entry.user_data(cancel.encode()));
    }

    fn push(&mut self, entry: squeue::Entry) {
        // In order: a cancellation must not overtake the request it is for.
        if self.backlog.is_empty() {
            // SAFETY: every entry made in this module names memory that is `Lent` until its final
            // completion and descriptors that are open until then (see the module).
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return;
            }
        }
        self.backlog.push_back(entry);
    }

    /// Hands the backlog to the kernel, except for as much as fits in the submission queue.
    fn submit_backlog(&mut self) -> io::Result<()> {
        let mut stuck = 0;
        loop {
            let before = self.backlog.len();
            {
                let mut queue = self.ring.submission();
                while let Some(entry) = self.backlog.front() {
                    // SAFETY: as in `push`.
                    if unsafe { queue.push(entry) }.is_err() {
                        break;
                    }
                    self.backlog.pop_front();
                }
            }
            if self.backlog.is_empty() {
                return Ok(());
            }
            stuck = if self.backlog.len() < before {
                0
            } else {
                stuck + 1
            };
            if stuck > STUCK_SUBMITS_MAX {
                return Ok(());
            }
            self.enter(Some(Duration::ZERO))?;
            self.reap()?;
        }
    }

    /// Submits, and waits until something completed, `limit` at most.
    fn enter(&mut self, limit: Option<Duration>) -> io::Result<()> {
        let submitter = self.ring.submitter();
        let result = match limit {
            None => submitter.submit_and_wait(1),
            Some(Duration::ZERO) => submitter.submit(),
            Some(limit) => {
                let limit = Timespec::from(limit);
                submitter.submit_with_args(1, &SubmitArgs::new().timespec(&limit))
            }
        };
        match result {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                // EBUSY: the completion queue must be emptied first, which follows.
                Some(libc::ETIME | libc::EINTR | libc::EBUSY) => Ok(()),
                // No memory for requests: asking again at once would spin.
                Some(libc::EAGAIN) => {
                    std::thread::sleep(Duration::from_millis(1));
                    Ok(())
                }
                _ => Err(error),
            },
        }
    }

    /// Whether there is a reason to enter the kernel without waiting.
    fn must_enter(&mut self) -> bool {
        let queue = self.ring.submission();
        !queue.is_empty() || queue.taskrun() || queue.cq_overflow()
    }

    fn arm_accept(&mut self, index: usize) {
        let Some(listener) = self.listeners.get_mut(index) else {
            return;
        };
        let (Some(socket), Ok(slot)) = (&listener.socket, u32::try_from(index)) else {
            return;
        };
        listener.accepting = Accepting::Armed;
        let entry = opcode::AcceptMulti::new(Fd(socket.as_raw_fd()))
            .flags(libc::SOCK_CLOEXEC)
            .build();
        self.submit(entry, Op::new(Kind::Accept, slot, 0));
    }

    fn arm_waker(&mut self) {
        let entry = poll(self.waker.as_raw_fd());
        self.submit(entry, Op::new(Kind::PollWaker, 0, 0));
    }

    fn arm_tun(&mut self) {
        if let Some(tun) = &self.tun {
            let entry = poll(tun.file.as_raw_fd());
            self.submit(entry, Op::new(Kind::PollTun, 0, 0));
        }
    }

    /// Makes the receiving of a connection what is wanted now, and lets go of one that is closed.
    fn settle(&mut self, id: ConnectionId) {
        let Some(connection) = self.table.any_mut(id) else {
            return;
        };
        let receive_op = Op::new(Kind::Receive, id.slot, id.generation);
        let wanted = connection.receive_wanted && !connection.closing && !self.dropping;
        match connection.receive {
            Receive::Armed if !wanted => {
                connection.receive = Receive::Cancelling;
                self.cancel(receive_op);
            }
            Receive::Idle if wanted && connection.connect.is_none() => {
                if self.buffers.available() == 0 {
                    connection.receive = Receive::Parked;
                    self.counters.buffer_waits += 1;
                    self.parked.push_back(id);
                } else {
                    connection.receive = Receive::Armed;
                    let fd = Fd(connection.socket.as_raw_fd());
                    self.submit(opcode::RecvMulti::new(fd, GROUP).build(), receive_op);
                }
            }
            _ if connection.closing && connection.is_quiet() => {
                self.table.remove(id);
            }
            _ => {}
        }
    }

    /// Queues the rest of a connection's send.
    fn send_rest(&mut self, id: ConnectionId) {
        let Some(connection) = self.table.any_mut(id) else {
            return;
        };
        let Some(sending) = &connection.send else {
            return;
        };
        let fd = Fd(connection.socket.as_raw_fd());
        let bytes = sending.memory.as_ptr().cast::<u8>();
        let first = bytes.wrapping_add(sending.position).cast_const();
        let len = u32::try_from(sending.end - sending.position).unwrap_or(u32::MAX);
        let entry = opcode::Send::new(fd, first, len)
            .flags(self.send_flags)
            .build();
        self.submit(entry, Op::new(Kind::Send, id.slot, id.generation));
    }

    /// Lets parked connections receive again, as many as there are buffers. Returns whether more
    /// could at once.
    fn unpark(&mut self) -> bool {
        let mut room = self.buffers.available();
        while room > 0 {
            let Some(id) = self.parked.pop_front() else {
                return false;
            };
            if let Some(connection) = self.table.any_mut(id)
                && connection.receive == Receive::Parked
            {
                connection.receive = Receive::Idle;
                self.settle(id);
                room -= 1;
            }
        }
        !self.parked.is_empty() && self.buffers.available() > 0
    }

    /// Ends the pauses that are over; returns when the next one is.
    fn unpause(&mut self, now: Instant) -> Option<Instant> {
        let mut next = None;
        for index in 0..self.listeners.len() {
            let Some(Accepting::Paused { until }) =
                self.listeners.get(index).map(|listener| listener.accepting)
            else {
                continue;
            };
            if until <= now {
                self.arm_accept(index);
            } else {
                next = Some(next.map_or(until, |next: Instant| next.min(until)));
            }
        }
        next
    }

    /// Takes what is not yet told of a connection out; the bytes received are returned.
    fn untell(&mut self, id: ConnectionId) -> Vec<u8> {
        let mut received = Vec::new();
        if self.told.is_empty() {
            return received;
        }
        for completion in std::mem::take(&mut self.told) {
            match completion {
                Completion::Received { connection, buffer } if connection == id => {
                    received.extend_from_slice(buffer.bytes.get(..buffer.len).unwrap_or_default());
                    self.release(buffer);
                }
                Completion::ReceiveEnded { connection, .. }
                | Completion::Connected { connection, .. }
                | Completion::Accepted { connection, .. }
                    if connection == id => {}
                other => self.told.push(other),
            }
        }
        received
    }

    fn prepare_connect(
        &mut self,
        to: SocketAddr,
        source: Option<SocketAddr>,
    ) -> io::Result<ConnectionId> {
        if self.table.is_full() {
            return Err(io::Error::from_raw_os_error(libc::ENOBUFS));
        }
        let socket = socket::outgoing(to, source, &self.options)?;
        let mut connection = Connection::new(socket);
        let address = Lent::lend(Box::new(SockAddr::from(to)));
        let fd = Fd(connection.socket.as_raw_fd());
        // SAFETY: the pointer is to the address just lent, which nothing writes.
        let shared = unsafe { &*address.as_ptr() };
        let entry = opcode::Connect::new(fd, shared.as_ptr().cast(), shared.len()).build();
        connection.connect = Some(address);
        let id = self
            .table
            .insert(connection)
            .map_err(|_| io::Error::from_raw_os_error(libc::ENOBUFS))?;
        self.submit(entry, Op::new(Kind::Connect, id.slot, id.generation));
        Ok(id)
    }

    /// Cancels everything and waits for it; returns whether nothing is with the kernel any more.
    fn reap_everything(&mut self) -> bool {
        // What was never submitted never happens.
        let unsubmitted = self
            .backlog
            .drain(..)
            .filter_map(|entry| Op::decode(entry.get_user_data()))
            .filter(|op| op.kind != Kind::Cancel)
            .count();
        self.in_flight -= unsubmitted;
        self.dropping = true;
        for _ in 0..REAP_ROUNDS {
            if self.in_flight == 0 {
                return true;
            }
            let cancel = Op::new(Kind::Cancel, 0, 0);
            let entry = opcode::AsyncCancel2::new(CancelBuilder::any()).build();
            self.push(entry.user_data(cancel.encode()));
            if self.submit_backlog().is_err()
                || self.enter(Some(REAP_ROUND)).is_err()
                || self.reap().is_err()
            {
                return false;
            }
        }
        self.in_flight == 0
    }
}

fn poll(fd: RawFd) -> squeue::Entry {
    let events = u32::from(libc::POLLIN.cast_unsigned());
    opcode::PollAdd::new(Fd(fd), events).multi(true).build()
}

/// Why a direction of a connection ended, by the system's error number.
fn loss(errno: i32) -> Loss {
    match errno {
        libc::ECONNRESET | libc::EPIPE | libc::ECANCELED => Loss::Reset,
        libc::ETIMEDOUT => Loss::TimedOut,
        other => Loss::Os(other),
    }
}

impl Io for Uring {
    fn now(&self) -> Instant {
        self.now
    }

    fn turn(
        &mut self,
        deadline: Option<Instant>,
        completions: &mut Vec<Completion>,
    ) -> io::Result<()> {
        let before = clock::now();
        let more_to_unpark = self.unpark();
        let pause_ends = self.unpause(before);
        self.submit_backlog()?;

        let until = match (deadline, pause_ends) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let at_once = more_to_unpark || !self.told.is_empty() || !self.backlog.is_empty();
        let limit = if at_once {
            Some(Duration::ZERO)
        } else {
            until.map(|until| until.saturating_since(before))
        };
        if limit != Some(Duration::ZERO) || self.must_enter() {
            self.enter(limit)?;
        }
        self.now = clock::now();
        self.reap()?;

        if std::mem::take(&mut self.woken) {
            self.told.push(Completion::Woken);
        }
        if let Some(tun) = &mut self.tun
            && std::mem::take(&mut tun.readable)
        {
            self.told.push(Completion::TunReadable);
        }
        completions.append(&mut self.told);
        Ok(())
    }

    fn release(&mut self, buffer: ReceiveBuffer) {
        if buffer.id != FOREIGN_BUFFER {
            self.buffers.give(buffer.id, buffer.bytes);
        }
    }

    fn send(&mut self, connection: ConnectionId, buffer: SendBuffer) {
        let result = match self.table.live_mut(connection) {
            None => Err(Loss::Reset),
            Some(live) => {
                let in_bounds = buffer.start <= buffer.end && buffer.end <= buffer.bytes.len();
                if !in_bounds || live.connect.is_some() {
                    Err(Loss::Os(libc::EINVAL))
                } else if live.send.is_some() {
                    Err(Loss::Os(libc::EBUSY))
                } else if buffer.start == buffer.end {
                    Ok(())
                } else {
                    live.send = Some(Sending::lend(buffer));
                    self.send_rest(connection);
                    return;
                }
            }
        };
        self.told.push(Completion::Sent {
            connection,
            buffer,
            result,
        });
    }

    fn connect(&mut self, to: SocketAddr, source: Option<SocketAddr>) -> io::Result<ConnectionId> {
        self.prepare_connect(to, source)
    }

    fn pause_receive(&mut self, connection: ConnectionId) {
        if let Some(live) = self.table.live_mut(connection) {
            live.receive_wanted = false;
            self.settle(connection);
        }
    }

    fn resume_receive(&mut self, connection: ConnectionId) {
        if let Some(live) = self.table.live_mut(connection) {
            live.receive_wanted = true;
            self.settle(connection);
        }
    }

    fn shutdown(&mut self, connection: ConnectionId) {
        if let Some(live) = self.table.live_mut(connection) {
            if live.send.is_some() {
                live.fin_owed = true;
            } else {
                // It can only fail if the connection is lost, which is told by receiving.
                let _ = live.socket.shutdown(std::net::Shutdown::Write);
            }
        }
    }

    fn close(&mut self, connection: ConnectionId, reset: bool) {
        let Some(any) = self.table.any_mut(connection) else {
            return;
        };
        any.closing = true;
        let connecting = any.connect.is_some();
        let mut sending = false;
        if reset && !any.reset {
            any.reset = true;
            sending = any.send.is_some();
            // If it cannot be set the peer gets a FIN instead of a RST.
            let _ = SockRef::from(&any.socket).set_linger(Some(Duration::ZERO));
        }
        let op = |kind| Op::new(kind, connection.slot, connection.generation);
        if sending {
            self.cancel(op(Kind::Send));
        }
        if connecting {
            self.cancel(op(Kind::Connect));
        }
        self.untell(connection);
        self.settle(connection);
    }

    fn stop_accepting(&mut self) {
        self.stopping = true;
        for index in 0..self.listeners.len() {
            let Some(listener) = self.listeners.get_mut(index) else {
                continue;
            };
            match listener.accepting {
                Accepting::Armed => {
                    listener.accepting = Accepting::Cancelling;
                    if let Ok(slot) = u32::try_from(index) {
                        self.cancel(Op::new(Kind::Accept, slot, 0));
                    }
                }
                Accepting::Cancelling => {}
                Accepting::Idle | Accepting::Paused { .. } => self.close_listener(index),
            }
        }
    }

    fn detach(&mut self, connection: ConnectionId) -> Option<Detached> {
        let live = self.table.live_mut(connection)?;
        if live.send.is_some() || live.connect.is_some() {
            return None;
        }
        let was_wanted = std::mem::replace(&mut live.receive_wanted, false);
        self.settle(connection);
        loop {
            let live = self.table.live_mut(connection)?;
            if live.is_quiet() {
                break;
            }
            let waited = self
                .submit_backlog()
                .and_then(|()| self.enter(Some(REAP_ROUND)))
                .and_then(|()| self.reap());
            if waited.is_err() {
                // The ring is broken; the next turn says so.
                self.table.live_mut(connection)?.receive_wanted = was_wanted;
                return None;
            }
        }
        let received = self.untell(connection);
        let socket = self.table.remove(connection)?.socket;
        Some(Detached {
            connection: DetachedConnection::Socket(socket.into()),
            received,
        })
    }

    fn attach(&mut self, connection: Detached) -> io::Result<ConnectionId> {
        let DetachedConnection::Socket(fd) = connection.connection else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let socket = Socket::from(fd);
        socket.set_nonblocking(false)?;
        let id = self
            .table
            .insert(Connection::new(socket))
            .map_err(|_| io::Error::from_raw_os_error(libc::ENOBUFS))?;
        if !connection.received.is_empty() {
            self.told.push(Completion::Received {
                connection: id,
                buffer: ReceiveBuffer {
                    len: connection.received.len(),
                    bytes: connection.received.into_boxed_slice(),
                    id: FOREIGN_BUFFER,
                },
            });
        }
        self.settle(id);
        Ok(id)
    }

    fn tun_read(&mut self, buffer: &mut [u8]) -> TunRead {
        let Some(tun) = &mut self.tun else {
            return TunRead::Empty;
        };
        tun::read(&tun.file, buffer)
    }

    fn tun_write(&mut self, packet: &[u8]) -> io::Result<()> {
        match &self.tun {
            Some(tun) => tun::write(&tun.file, packet),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn waker(&self) -> Waker {
        Waker::new(self.waker.clone())
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
