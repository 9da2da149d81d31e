//! The one seam to the kernel: what a shard asks for and what it is told.
//!
//! A shard runs in turns. In a turn it calls [`Io::turn`] once, which submits what was asked for,
//! waits until something happens or the deadline passes, and appends what happened as
//! [`Completion`]s; then the shard acts on each. Connections are named by [`ConnectionId`], which
//! is never reused while anything of the connection is under way. Memory changes hands by value:
//! a receive buffer is the shard's until [`Io::release`], a send buffer is the driver's until its
//! [`Completion::Sent`].
//!
//! Drivers: io_uring (`sys::uring`), epoll (`sys::epoll`) and simulated (`testing::io`). There is no
//! descriptor and no pointer on this side of the seam.

pub mod kernel_tls;

use std::io;
use std::net::{IpAddr, SocketAddr};

use self::kernel_tls::{Direction, KernelSend, TlsKeys};
use crate::time::{Duration, Instant};

/// Unsent bytes that the kernel holds of a new connection (TCP_NOTSENT_LOWAT), until
/// [`Io::set_unsent_limit`]: nothing is known of its path yet, and what stands there cannot be taken back.
pub const UNSENT_LIMIT_AT_START: usize = 4 * 1_024;

/// A connection of this driver: a slot and the slot's generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId {
    /// Position in the driver's table.
    pub slot: u32,
    /// Counts the users of the slot, so that a late completion finds nobody.
    pub generation: u32,
}

/// A buffer that bytes were received into; give it back with [`Io::release`].
#[derive(Debug)]
pub struct ReceiveBuffer {
    /// The whole memory; the first `len` bytes of it were received.
    pub bytes: Box<[u8]>,
    /// Bytes received.
    pub len: usize,
    /// The driver's name for it.
    pub id: u16,
}

/// Bytes to send: `bytes[start..end]`; comes back with its [`Completion::Sent`].
#[derive(Debug, Default)]
pub struct SendBuffer {
    /// The whole memory.
    pub bytes: Box<[u8]>,
    /// First byte to send.
    pub start: usize,
    /// One past the last byte to send.
    pub end: usize,
}

/// How the path of a connection does, seen from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathSeen {
    /// From sending to the acknowledgement, lately and on average.
    pub rtt: Duration,
    /// The shortest of the last minutes: nothing stood in queues.
    pub rtt_min: Duration,
    /// Bytes that the other end has acknowledged, since the connection stands.
    pub acked: u64,
    /// More than half of what congestion control lets be under way is.
    pub is_filled: bool,
    /// Packets sent again, since the connection stands.
    pub retransmitted: u32,
    /// Something was lost, and what came behind it waits.
    pub is_recovering: bool,
}

/// Why a connection can carry no more in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The peer closed in order (FIN).
    Finished,
    /// The peer or the path reset it (ECONNRESET, EPIPE).
    Reset,
    /// Nothing was acknowledged for too long (ETIMEDOUT).
    TimedOut,
    /// Another error of the system, by number.
    Os(i32),
}

/// What happened.
#[derive(Debug)]
pub enum Completion {
    /// A connection was accepted on listener number `listener`; receiving is already under way.
    Accepted {
        /// Index of the listener, in the order the driver was given them.
        listener: usize,
        /// The new connection.
        connection: ConnectionId,
        /// Where it comes from.
        peer: SocketAddr,
    },
    /// A connection asked for by [`Io::connect`] stands or failed; receiving is under way if it stands.
    Connected {
        /// The connection asked for. After a failure the id is dead.
        connection: ConnectionId,
        /// Why it failed.
        result: Result<(), Loss>,
    },
    /// Bytes arrived.
    Received {
        /// Where.
        connection: ConnectionId,
        /// The bytes; give the buffer back.
        buffer: ReceiveBuffer,
    },
    /// A record that is not data arrived on a connection whose receiving half the kernel opens.
    ReceivedControl {
        /// Where.
        connection: ConnectionId,
        /// Its type (RFC 8446 §5.1).
        content_type: u8,
        /// Its plaintext; give the buffer back.
        buffer: ReceiveBuffer,
    },
    /// Nothing more will be received on this connection.
    ReceiveEnded {
        /// Which.
        connection: ConnectionId,
        /// Why.
        loss: Loss,
    },
    /// A send ended: all of it went out, or the connection is lost.
    Sent {
        /// Which connection (it may be closed by now: reuse the buffer all the same).
        connection: ConnectionId,
        /// The buffer given to [`Io::send`].
        buffer: SendBuffer,
        /// Why not all of it went out.
        result: Result<(), Loss>,
    },
    /// The TUN queue has packets to read, until [`TunRead::Empty`].
    TunReadable,
    /// Another thread called the driver's waker.
    Woken,
    /// A listener cannot accept for want of descriptors or memory; the driver pauses it by itself.
    AcceptPaused {
        /// Index of the listener.
        listener: usize,
        /// The system's error number.
        errno: i32,
    },
}

/// Result of one read from the TUN queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunRead {
    /// One packet of so many bytes is in the buffer.
    Packet(usize),
    /// The queue is empty (EAGAIN).
    Empty,
    /// The device is gone (EBADFD) or its read failed with this error number.
    Failed(i32),
}

/// What a shard can ask of the kernel, or of its simulation.
pub trait Io {
    /// Time as read at the start of this turn.
    fn now(&self) -> Instant;

    /// Submits, waits until `deadline` at most (`None`: for ever; not after `now`: does not wait),
    /// and appends what happened to `completions`. An error here ends the shard.
    fn turn(
        &mut self,
        deadline: Option<Instant>,
        completions: &mut Vec<Completion>,
    ) -> io::Result<()>;

    /// How long the shard worked between the last two waits; zero where nobody measures it.
    fn last_busy(&self) -> Duration {
        Duration::ZERO
    }

    /// Gives a receive buffer back.
    fn release(&mut self, buffer: ReceiveBuffer);

    /// Sends `bytes[start..end]` in order; at most one send a connection may be under way.
    /// A dead id answers with `Sent` and [`Loss::Reset`].
    fn send(&mut self, connection: ConnectionId, buffer: SendBuffer);

    /// Has the kernel seal or open from here on under `keys`; again for a direction it has: new keys.
    /// For [`Direction::Rx`] everything that was told must have been consumed, up to the end of a
    /// record; for [`Direction::Tx`] no send may be under way. The error is the system's number, or
    /// EOPNOTSUPP where the driver cannot; nothing has changed then.
    fn install_tls(
        &mut self,
        _connection: ConnectionId,
        _direction: Direction,
        _keys: &TlsKeys,
    ) -> Result<(), i32> {
        Err(libc::EOPNOTSUPP)
    }

    /// As [`Io::send`], for plaintext on a connection whose sending half the kernel has. A driver
    /// that never took one gives the buffer back and sends nothing.
    fn send_by_kernel(
        &mut self,
        _connection: ConnectionId,
        buffer: SendBuffer,
        _how: KernelSend,
    ) -> Result<(), SendBuffer> {
        Err(buffer)
    }

    /// Sends what the connection takes without waiting; nothing may be under way on it. `Ok`: all of
    /// it is sent and no completion follows. `Err`: `start` says what is left, for [`Io::send`]; a
    /// driver that only does things by completions, and any error, leaves all of it.
    fn send_now(
        &mut self,
        _connection: ConnectionId,
        buffer: SendBuffer,
    ) -> Result<SendBuffer, SendBuffer> {
        Err(buffer)
    }

    /// Opens a connection, from `source` if given; the answer is [`Completion::Connected`].
    fn connect(&mut self, to: SocketAddr, source: Option<SocketAddr>) -> io::Result<ConnectionId>;

    /// Stops receiving until [`Io::resume_receive`]: back-pressure towards the peer. Bytes already
    /// on their way may still be told.
    fn pause_receive(&mut self, connection: ConnectionId);

    /// Undoes [`Io::pause_receive`].
    fn resume_receive(&mut self, connection: ConnectionId);

    /// The kernel shall take no more of a send while it holds `bytes` of this connection that were
    /// not sent yet (TCP_NOTSENT_LOWAT): what it holds can no longer be dropped or overtaken. A hint.
    fn set_unsent_limit(&mut self, connection: ConnectionId, bytes: usize) {
        let _ = (connection, bytes);
    }

    /// How the path of a connection does; `None` where nobody can tell.
    fn path(&mut self, connection: ConnectionId) -> Option<PathSeen> {
        let _ = connection;
        None
    }

    /// The kernel shall send no more than so many bytes a second (SO_MAX_PACING_RATE); `u64::MAX`: as many
    /// as its congestion control lets it. A hint.
    fn set_rate_limit(&mut self, connection: ConnectionId, rate: u64) {
        let _ = (connection, rate);
    }

    /// Sends FIN after what is under way; receiving goes on.
    fn shutdown(&mut self, connection: ConnectionId);

    /// Ends the connection; `reset` drops what is under way and sends RST. No completion but an
    /// outstanding `Sent` follows.
    fn close(&mut self, connection: ConnectionId, reset: bool);

    /// Stops accepting on all listeners, for good.
    fn stop_accepting(&mut self);

    /// Takes a connection out of this driver (nothing may be under way but receiving), to be put
    /// into another one on another thread.
    fn detach(&mut self, connection: ConnectionId) -> Option<Detached>;

    /// Puts a detached connection into this driver; receiving starts.
    fn attach(&mut self, connection: Detached) -> io::Result<ConnectionId>;

    /// Reads one packet from this shard's TUN queue.
    fn tun_read(&mut self, buffer: &mut [u8]) -> TunRead;

    /// Writes one packet to the inside, `header` (which may be empty) right before it.
    fn tun_write(&mut self, header: &[u8], packet: &[u8]) -> io::Result<()>;

    /// Takes `queue` for this shard's TUN queue in place of the one it had, whose device is gone.
    ///
    /// # Errors
    /// When the queue is of another kind of driver, or the system refuses; the old one stays.
    fn replace_tun(&mut self, queue: TunQueue) -> io::Result<()>;

    /// A handle by which another thread ends this driver's wait.
    fn waker(&self) -> Waker;
}

/// A connection between two drivers, and bytes that were received but not yet told.
#[derive(Debug)]
pub struct Detached {
    /// The connection itself; only a driver of the same kind can take it.
    pub connection: DetachedConnection,
    /// Received while it was being detached.
    pub received: Vec<u8>,
}

/// What a [`Detached`] connection is, by kind of driver.
#[derive(Debug)]
pub enum DetachedConnection {
    /// An open socket.
    Socket(std::os::fd::OwnedFd),
    /// A simulated connection, by number.
    Simulated(u64),
}

/// A TUN queue on its way to a driver that runs.
#[derive(Debug)]
pub enum TunQueue {
    /// An open descriptor.
    Descriptor(std::os::fd::OwnedFd),
    /// The next queue of a simulated device, by number.
    Simulated(usize),
}

/// Says which queue of the TUN gets the packets of which inside address. Shared by all shards.
pub trait Steering: Send + Sync + std::fmt::Debug {
    /// Packets for `address` (IPv6: for its /64) go to `queue` from now on.
    ///
    /// # Errors
    /// When there is no room for one more address: its packets go to any queue.
    fn steer(&self, address: IpAddr, queue: u16) -> Result<(), SteeringFull>;

    /// Packets for `address` go to any queue from now on.
    fn forget(&self, address: IpAddr);
}

/// There is no room for one more address to be steered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SteeringFull;

/// Ends the wait of one driver from any thread; cheap when it is awake already.
#[derive(Clone, Debug)]
pub struct Waker(std::sync::Arc<dyn Wake>);

/// How a kind of driver is woken.
pub trait Wake: Send + Sync + std::fmt::Debug {
    /// Makes the driver's next or present wait end with [`Completion::Woken`].
    fn wake(&self);
}

impl Waker {
    /// A waker that calls `wake`.
    #[must_use]
    pub fn new(wake: std::sync::Arc<dyn Wake>) -> Self {
        Self(wake)
    }

    /// Wakes the driver.
    pub fn wake(&self) {
        self.0.wake();
    }
}
