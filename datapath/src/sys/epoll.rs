//! The epoll driver: for hosts where io_uring is forbidden or absent.
//!
//! ```text
//!            turn: wait for readiness, then do what became possible
//!   listener ── level-triggered ── accept4 until EAGAIN ──→ Accepted
//!   connection ─ edge-triggered ─┬ ready list, recv(2) into pooled buffers ──→ Received
//!                                └ the rest of a send ──→ Sent        connect ──→ Connected
//!   TUN, waker ─ edge-triggered ──→ TunReadable, Woken
//! ```
//!
//! A connection is registered once, for both directions: its edges are remembered as *readable* and
//! *writable* until a call answers EAGAIN, so pausing, resuming and sending cost no `epoll_ctl`. A
//! send is tried at once, when it is asked for; what the socket does not take waits for the next
//! edge. In a turn each readable connection gets one receive, in the order in which they became
//! readable, into the buffer that came back last, which is the one still in the cache.
//!
//! There is no memory that the kernel uses beyond a call, so nothing has to be reaped: dropping the
//! driver closes its descriptors, and that is all.
//!
//! Limits: [`Config`]. A full table refuses connections; without buffers the readable wait in order;
//! events and accepts a turn are bounded, what is left is told by the next turn.

mod events;
mod kernel_tls;
mod poll;
mod requests;

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::sync::Arc;

use socket2::Socket;

use self::kernel_tls::KernelTls;
use self::poll::{Interest, Poll, Token};
use super::driver::{ACCEPT_PAUSE_FIRST, FOREIGN_BUFFER};
pub use super::driver::{Config, Counters};
use super::slots::{Held, Slots};
use super::waker::EventFd;
use super::{clock, socket, tun};
use crate::io::kernel_tls::KernelSend;
use crate::io::{Completion, ConnectionId, ReceiveBuffer, SendBuffer, UNSENT_LIMIT_AT_START};
use crate::time::{Duration, Instant};

/// Name of the buffers of the pool: they need none of their own.
const POOLED_BUFFER: u16 = 0;

/// A send that the socket has not taken whole.
#[derive(Debug)]
struct Sending {
    buffer: SendBuffer,
    /// Next byte to send.
    position: usize,
    /// How, where the kernel seals; `None`: as it is.
    by_kernel: Option<KernelSend>,
}

#[derive(Debug)]
struct Connection {
    socket: Socket,
    /// A call may find bytes, the end or an error.
    readable: bool,
    /// The peer's end or an error was seen: a short receive does not mean that nothing is left.
    hung_up: bool,
    /// A call may take bytes.
    writable: bool,
    /// It is in the ready list.
    listed: bool,
    /// It found no buffer, and that was counted.
    waits_for_buffer: bool,
    /// The shard wants to receive: not paused.
    receive_wanted: bool,
    /// The end of receiving was told.
    ended: bool,
    connecting: bool,
    sending: Option<Sending>,
    /// FIN is to be sent when the send under way ends.
    fin_owed: bool,
    /// Closed by the shard: its id is dead, only its send keeps the slot.
    closing: bool,
    /// What of its TLS the kernel does.
    kernel_tls: KernelTls,
    /// How a send ends for the kernel; see [`socket::end_of_send`].
    end_of_send: i32,
}

impl Connection {
    fn new(socket: Socket) -> Self {
        Self {
            socket,
            readable: false,
            hung_up: false,
            // Whether it is, the first send finds out.
            writable: true,
            listed: false,
            waits_for_buffer: false,
            receive_wanted: true,
            ended: false,
            connecting: false,
            sending: None,
            fin_owed: false,
            closing: false,
            kernel_tls: KernelTls::default(),
            end_of_send: socket::end_of_send(UNSENT_LIMIT_AT_START),
        }
    }

    /// A receive is due.
    fn wants_receive(&self) -> bool {
        self.readable && self.receive_wanted && !self.ended && !self.connecting && !self.closing
    }
}

impl Held for Connection {
    fn is_closing(&self) -> bool {
        self.closing
    }
}

#[derive(Debug)]
struct Listener {
    /// `None` once stopped for good.
    socket: Option<Socket>,
    /// Out of the interest list until then.
    paused: Option<Instant>,
    next_pause: Duration,
}

#[derive(Debug)]
struct TunQueue {
    file: File,
    /// Readiness to be told in this turn.
    readable: bool,
}

/// Receive buffers that are not with the shard. The last one back is the next one out.
#[derive(Debug)]
struct Buffers {
    free: Vec<Box<[u8]>>,
    count: usize,
    len: usize,
}

impl Buffers {
    fn new(count: u16, len: usize) -> Self {
        let count = usize::from(count);
        Self {
            free: (0..count)
                .map(|_| vec![0; len].into_boxed_slice())
                .collect(),
            count,
            len,
        }
    }

    /// Takes one back; memory that is not one of ours is replaced or dropped.
    fn give(&mut self, memory: Box<[u8]>) {
        if self.free.len() >= self.count {
            return;
        }
        self.free.push(if memory.len() == self.len {
            memory
        } else {
            vec![0; self.len].into_boxed_slice()
        });
    }
}

/// The epoll driver of one shard; see the module.
#[derive(Debug)]
pub struct Epoll {
    poll: Poll,
    buffers: Buffers,
    table: Slots<Connection>,
    listeners: Vec<Listener>,
    tun: Option<TunQueue>,
    waker: Arc<EventFd>,
    woken: bool,
    /// Connections with something to receive, in order.
    ready: VecDeque<ConnectionId>,
    /// What happened and is not yet told.
    told: Vec<Completion>,
    now: Instant,
    last_busy: Duration,
    options: socket::ConnectionOptions,
    counters: Counters,
}

impl Epoll {
    /// Sets the driver up.
    ///
    /// # Errors
    ///
    /// When descriptors are short, or the configuration makes no sense.
    pub fn new(config: Config) -> io::Result<Self> {
        config
            .check()
            .map_err(|what| io::Error::new(io::ErrorKind::InvalidInput, what))?;
        let poll = Poll::new()?;
        let waker = Arc::new(EventFd::new()?);
        poll.add((*waker).as_fd(), Token::Waker, Interest::ReadableEdge)?;
        let mut listeners = Vec::with_capacity(config.listeners.len());
        for (index, listener) in (0..).zip(config.listeners) {
            listener.set_nonblocking(true)?;
            poll.add(listener.as_fd(), Token::Listener(index), Interest::Readable)?;
            listeners.push(Listener {
                socket: Some(listener),
                paused: None,
                next_pause: ACCEPT_PAUSE_FIRST,
            });
        }
        let tun = match config.tun {
            Some(queue) => {
                tun::set_nonblocking(queue.as_fd())?;
                poll.add(queue.as_fd(), Token::Tun, Interest::ReadableEdge)?;
                Some(TunQueue {
                    file: File::from(queue),
                    readable: false,
                })
            }
            None => None,
        };
        Ok(Self {
            poll,
            buffers: Buffers::new(config.receive_buffers, config.receive_buffer_len),
            table: Slots::new(config.connections),
            listeners,
            tun,
            waker,
            woken: false,
            ready: VecDeque::new(),
            told: Vec::new(),
            now: clock::now(),
            last_busy: Duration::ZERO,
            options: config.options,
            counters: Counters::default(),
        })
    }

    /// What it counted so far.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// Whether deadlines are kept to the nanosecond (`epoll_pwait2`); else to the millisecond after them.
    pub(super) const fn has_nanoseconds(&self) -> bool {
        self.poll.has_nanoseconds()
    }

    /// Connections it holds, with those whose last send is still under way.
    #[must_use]
    pub fn connection_count(&self) -> usize {
        self.table.len()
    }

    /// Receive buffers that are not with the shard.
    #[must_use]
    pub fn buffers_available(&self) -> usize {
        self.buffers.free.len()
    }

    /// Takes a connection in and asks for its edges.
    fn admit(&mut self, connection: Connection) -> io::Result<ConnectionId> {
        let full = || io::Error::from_raw_os_error(libc::ENOBUFS);
        let id = self.table.insert(connection).map_err(|_| full())?;
        let Some(connection) = self.table.any_mut(id) else {
            return Err(full());
        };
        let fd = connection.socket.as_fd();
        match self
            .poll
            .add(fd, Token::Connection(id), Interest::BothEdges)
        {
            Ok(()) => Ok(id),
            Err(error) => {
                self.table.remove(id);
                Err(error)
            }
        }
    }

    /// Puts a connection that has something to receive into the ready list, once.
    fn list(&mut self, id: ConnectionId) {
        let Some(connection) = self.table.any_mut(id) else {
            return;
        };
        if connection.listed || !connection.wants_receive() {
            return;
        }
        connection.listed = true;
        if self.ready.len() >= self.table.capacity() {
            // Names of the dead are dropped when their turn comes, or here: it never holds more
            // names than there are slots.
            let table = &mut self.table;
            self.ready.retain(|&id| table.any_mut(id).is_some());
        }
        self.ready.push_back(id);
    }

    /// Gives the memory of a buffer back.
    fn take_back(buffers: &mut Buffers, buffer: ReceiveBuffer) {
        if buffer.id != FOREIGN_BUFFER {
            buffers.give(buffer.bytes);
        }
    }
}
