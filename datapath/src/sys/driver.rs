//! Which driver a shard gets: io_uring where the host allows it, epoll where it does not.
//!
//! | [`Choice`] | io_uring possible | io_uring forbidden or absent |
//! |---|---|---|
//! | `Auto` | io_uring | epoll, and [`Driver::why`] names the reason and its cure |
//! | `IoUring` | io_uring | [`OpenError::IoUring`] |
//! | `Epoll` | epoll | epoll |
//!
//! [`Driver`] is an enum, so that a shard is compiled once for both; what it costs is one well
//! predicted branch a call.

use std::os::fd::OwnedFd;
use std::{fmt, io};

use socket2::Socket;

use super::epoll::Epoll;
use super::socket;
use super::uring::{Ring, Rung, Unavailable, Uring};
use crate::io::kernel_tls::{Direction, KernelSend, TlsKeys};
use crate::io::{
    Completion, ConnectionId, Detached, Io, PathSeen, ReceiveBuffer, SendBuffer, TunQueue, TunRead,
    Waker,
};
use crate::time::{Duration, Instant};

// Implementation constants, of both drivers.

/// Connections that fit in a driver's table: a slot has 24 bits of a ring's `user_data`.
pub(super) const CONNECTIONS_MAX: u32 = 1 << 24;
/// Receive buffers at most: what the kernel takes in one buffer ring.
const RECEIVE_BUFFERS_MAX: u16 = 32_768;
/// First pause of a listener that found no descriptor or memory; doubles up to the last.
pub(super) const ACCEPT_PAUSE_FIRST: Duration = Duration::from_millis(100);
/// Longest pause, below the second within which accepting must resume once there is room.
pub(super) const ACCEPT_PAUSE_LAST: Duration = Duration::from_millis(800);
/// Name of receive buffers that are not of the driver: bytes that came with a [`Detached`].
pub(super) const FOREIGN_BUFFER: u16 = u16::MAX;

/// What a driver is made of; can be sent to the thread that will run it.
#[derive(Debug)]
pub struct Config {
    /// io_uring: entries of the submission queue; rounded up to a power of two.
    pub submission_entries: u32,
    /// io_uring: entries of the completion queue; `None` is four times the submission queue.
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
    /// io_uring: lets the kernel finish a short send by itself (MSG_WAITALL); off, the driver does it.
    pub kernel_finishes_sends: bool,
    /// io_uring: receives so that the kernel can open TLS (`Io::install_tls`): poll and recvmsg, one
    /// buffer a connection and turn, instead of multishot receive, which cannot tell the type of a
    /// record. epoll receives like that in any case.
    pub kernel_opens_tls: bool,
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
        }
    }
}

impl Config {
    /// Says what in it no host could serve.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        if self.connections > CONNECTIONS_MAX {
            return Err("more than 16777216 connections");
        }
        if self.submission_entries == 0 {
            return Err("a ring without entries");
        }
        if self.receive_buffers == 0 || self.receive_buffers > RECEIVE_BUFFERS_MAX {
            return Err("the count of receive buffers must be 1..=32768");
        }
        if self.receive_buffer_len == 0 || u32::try_from(self.receive_buffer_len).is_err() {
            return Err("the length of receive buffers must be 1..=4294967295");
        }
        Ok(())
    }
}

/// What a driver counts; plain numbers, since its creation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Completions taken from the ring, or events from epoll.
    pub completions: u64,
    /// io_uring: times the completion queue was found to have overflowed; nothing is lost by it.
    pub cq_overflows: u64,
    /// io_uring: completions the kernel had no memory to keep; anything but 0 is a fault.
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

/// Which driver is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// io_uring if this host has it for us, else epoll.
    Auto,
    /// io_uring or nothing, and no higher than this rung of its features.
    IoUring(Rung),
    /// epoll, whatever else there is.
    Epoll,
}

/// Why there is no driver.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// io_uring was demanded and is not to be had.
    #[error(
        "the driver io_uring is demanded, but {0}; or let the driver be chosen (auto), or epoll"
    )]
    IoUring(Unavailable),
    /// Not even epoll works.
    #[error("epoll cannot be set up: {0}")]
    Epoll(io::Error),
    /// The configuration makes no sense, or a descriptor in it cannot be used.
    #[error("the I/O driver cannot be set up: {0}")]
    Config(io::Error),
}

/// Why a shard has the driver that it has.
#[derive(Debug)]
pub enum Why {
    /// The configuration says so.
    Wanted,
    /// It is the better of the two, and works.
    Best,
    /// This keeps io_uring from us.
    Fallback(Unavailable),
}

/// The driver of one shard.
#[derive(Debug)]
pub struct Driver {
    kind: Kind,
    why: Why,
}

#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one a shard, and a box would cost every call a pointer"
)]
enum Kind {
    Uring(Uring),
    Epoll(Epoll),
}

impl Driver {
    /// Opens the driver that `choice` and this host give; the calling thread is the one that must run
    /// it.
    ///
    /// # Errors
    ///
    /// When neither can be had, or not the one demanded; and for a configuration that makes no sense.
    pub fn open(choice: Choice, config: Config) -> Result<Self, OpenError> {
        config
            .check()
            .map_err(|what| OpenError::Config(io::Error::new(io::ErrorKind::InvalidInput, what)))?;
        let rung_max = match choice {
            Choice::Epoll => return Self::epoll(config, Why::Wanted),
            Choice::Auto => Rung::NoArray,
            Choice::IoUring(rung) => rung,
        };
        let ring = match (Ring::open(&config, rung_max), choice) {
            (Ok(ring), _) => ring,
            (Err(why), Choice::Auto) => return Self::epoll(config, Why::Fallback(why)),
            (Err(why), _) => return Err(OpenError::IoUring(why)),
        };
        let uring = Uring::on(ring, config).map_err(OpenError::Config)?;
        let why = match choice {
            Choice::Auto => Why::Best,
            _ => Why::Wanted,
        };
        Ok(Self {
            kind: Kind::Uring(uring),
            why,
        })
    }

    fn epoll(config: Config, why: Why) -> Result<Self, OpenError> {
        let epoll = Epoll::new(config).map_err(OpenError::Epoll)?;
        Ok(Self {
            kind: Kind::Epoll(epoll),
            why,
        })
    }

    /// Why it is this one.
    #[must_use]
    pub const fn why(&self) -> &Why {
        &self.why
    }

    /// Where on the ladder of io_uring's features it stands; `None` on epoll.
    #[must_use]
    pub const fn rung(&self) -> Option<Rung> {
        match &self.kind {
            Kind::Uring(uring) => Some(uring.rung()),
            Kind::Epoll(_) => None,
        }
    }

    /// The driver and why it is this one, in one line for the log.
    #[must_use]
    pub fn describe(&self) -> String {
        Description(self).to_string()
    }

    /// What it counted so far.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        match &self.kind {
            Kind::Uring(uring) => uring.counters(),
            Kind::Epoll(epoll) => epoll.counters(),
        }
    }

    /// Connections it holds, with those whose last requests are still under way.
    #[must_use]
    pub fn connection_count(&self) -> usize {
        match &self.kind {
            Kind::Uring(uring) => uring.connection_count(),
            Kind::Epoll(epoll) => epoll.connection_count(),
        }
    }

    /// Receive buffers that are not with the shard.
    #[must_use]
    pub fn buffers_available(&self) -> usize {
        match &self.kind {
            Kind::Uring(uring) => uring.buffers_available(),
            Kind::Epoll(epoll) => epoll.buffers_available(),
        }
    }
}

struct Description<'a>(&'a Driver);

impl fmt::Display for Description<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.kind {
            Kind::Uring(uring) => write!(f, "io_uring, {}", uring.rung())?,
            Kind::Epoll(epoll) if epoll.has_nanoseconds() => f.write_str("epoll")?,
            Kind::Epoll(_) => f.write_str(
                "epoll with deadlines to the millisecond (no epoll_pwait2, Linux 5.11)",
            )?,
        }
        match &self.0.why {
            Why::Fallback(why) => write!(f, ", because {why}"),
            Why::Wanted => f.write_str(", because the configuration demands it"),
            Why::Best => Ok(()),
        }
    }
}

/// Calls one method of whichever driver it is.
macro_rules! either {
    ($driver:expr, $method:ident($($argument:expr),*)) => {
        match $driver {
            Kind::Uring(driver) => driver.$method($($argument),*),
            Kind::Epoll(driver) => driver.$method($($argument),*),
        }
    };
}

impl Io for Driver {
    fn now(&self) -> Instant {
        either!(&self.kind, now())
    }

    fn turn(
        &mut self,
        deadline: Option<Instant>,
        completions: &mut Vec<Completion>,
    ) -> io::Result<()> {
        either!(&mut self.kind, turn(deadline, completions))
    }

    fn release(&mut self, buffer: ReceiveBuffer) {
        either!(&mut self.kind, release(buffer));
    }

    fn send(&mut self, connection: ConnectionId, buffer: SendBuffer) {
        either!(&mut self.kind, send(connection, buffer));
    }

    fn last_busy(&self) -> Duration {
        either!(&self.kind, last_busy())
    }

    fn send_now(
        &mut self,
        connection: ConnectionId,
        buffer: SendBuffer,
    ) -> Result<SendBuffer, SendBuffer> {
        either!(&mut self.kind, send_now(connection, buffer))
    }

    fn install_tls(
        &mut self,
        connection: ConnectionId,
        direction: Direction,
        keys: &TlsKeys,
    ) -> Result<(), i32> {
        either!(&mut self.kind, install_tls(connection, direction, keys))
    }

    fn send_by_kernel(
        &mut self,
        connection: ConnectionId,
        buffer: SendBuffer,
        how: KernelSend,
    ) -> Result<(), SendBuffer> {
        either!(&mut self.kind, send_by_kernel(connection, buffer, how))
    }

    fn set_unsent_limit(&mut self, connection: ConnectionId, bytes: usize) {
        either!(&mut self.kind, set_unsent_limit(connection, bytes));
    }

    fn path(&mut self, connection: ConnectionId) -> Option<PathSeen> {
        either!(&mut self.kind, path(connection))
    }

    fn set_rate_limit(&mut self, connection: ConnectionId, rate: u64) {
        either!(&mut self.kind, set_rate_limit(connection, rate));
    }

    fn connect(
        &mut self,
        to: std::net::SocketAddr,
        source: Option<std::net::SocketAddr>,
    ) -> io::Result<ConnectionId> {
        either!(&mut self.kind, connect(to, source))
    }

    fn pause_receive(&mut self, connection: ConnectionId) {
        either!(&mut self.kind, pause_receive(connection));
    }

    fn resume_receive(&mut self, connection: ConnectionId) {
        either!(&mut self.kind, resume_receive(connection));
    }

    fn shutdown(&mut self, connection: ConnectionId) {
        either!(&mut self.kind, shutdown(connection));
    }

    fn close(&mut self, connection: ConnectionId, reset: bool) {
        either!(&mut self.kind, close(connection, reset));
    }

    fn stop_accepting(&mut self) {
        either!(&mut self.kind, stop_accepting());
    }

    fn detach(&mut self, connection: ConnectionId) -> Option<Detached> {
        either!(&mut self.kind, detach(connection))
    }

    fn attach(&mut self, connection: Detached) -> io::Result<ConnectionId> {
        either!(&mut self.kind, attach(connection))
    }

    fn tun_read(&mut self, buffer: &mut [u8]) -> TunRead {
        either!(&mut self.kind, tun_read(buffer))
    }

    fn tun_write(&mut self, header: &[u8], packet: &[u8]) -> io::Result<()> {
        either!(&mut self.kind, tun_write(header, packet))
    }

    fn replace_tun(&mut self, queue: TunQueue) -> io::Result<()> {
        either!(&mut self.kind, replace_tun(queue))
    }

    fn waker(&self) -> Waker {
        either!(&self.kind, waker())
    }
}
