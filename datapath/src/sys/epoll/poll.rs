//! The system calls: the interest list, waiting with nanoseconds, accepting.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd, OwnedFd};

use socket2::{SockAddr, SockAddrStorage, Socket};

use crate::io::ConnectionId;
use crate::time::Duration;

/// Events taken from the kernel at once; what is left is told by the next turn, in order.
const EVENTS_MAX: usize = 256;

/// What an event belongs to, in the 64 bits of `epoll_data`: slot and generation of a connection, or
/// one of these slots that no connection has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Connection(ConnectionId),
    /// By number.
    Listener(u32),
    Tun,
    Waker,
}

const SLOT_LISTENER: u32 = u32::MAX;
const SLOT_TUN: u32 = u32::MAX - 1;
const SLOT_WAKER: u32 = u32::MAX - 2;

impl Token {
    fn encode(self) -> u64 {
        let (slot, generation) = match self {
            Self::Connection(id) => (id.slot, id.generation),
            Self::Listener(index) => (SLOT_LISTENER, index),
            Self::Tun => (SLOT_TUN, 0),
            Self::Waker => (SLOT_WAKER, 0),
        };
        u64::from(slot) << 32 | u64::from(generation)
    }

    fn decode(bits: u64) -> Self {
        let [s3, s2, s1, s0, g3, g2, g1, g0] = bits.to_be_bytes();
        let slot = u32::from_be_bytes([s3, s2, s1, s0]);
        let generation = u32::from_be_bytes([g3, g2, g1, g0]);
        match slot {
            SLOT_LISTENER => Self::Listener(generation),
            SLOT_TUN => Self::Tun,
            SLOT_WAKER => Self::Waker,
            slot => Self::Connection(ConnectionId { slot, generation }),
        }
    }
}

/// What is asked for of a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interest {
    /// Readable, as long as it is.
    Readable,
    /// When it becomes readable.
    ReadableEdge,
    /// When it becomes readable or writable.
    BothEdges,
}

/// What became possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) token: Token,
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// The peer has closed, or an error waits.
    pub(super) hung_up: bool,
    /// An error, or both directions are over.
    pub(super) failed: bool,
}

/// One epoll instance with room for its events.
pub(super) struct Poll {
    epoll: OwnedFd,
    events: Box<[libc::epoll_event]>,
    /// The kernel has `epoll_pwait2` (Linux 5.11) and no filter hides it.
    has_nanoseconds: bool,
}

impl std::fmt::Debug for Poll {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Poll")
            .field("epoll", &self.epoll)
            .field("has_nanoseconds", &self.has_nanoseconds)
            .finish_non_exhaustive()
    }
}

impl Poll {
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: takes no pointer.
        // JUSTIFICATION: neither std nor a crate in use wraps epoll.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        let mut poll = Self {
            // SAFETY: just made, and owned by nobody else.
            epoll: unsafe { OwnedFd::from_raw_fd(fd) },
            events: vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS_MAX].into_boxed_slice(),
            has_nanoseconds: true,
        };
        poll.wait(Some(Duration::ZERO))?;
        Ok(poll)
    }

    /// Whether deadlines are kept to the nanosecond; else to the millisecond after them.
    pub(super) const fn has_nanoseconds(&self) -> bool {
        self.has_nanoseconds
    }

    pub(super) fn add(
        &self,
        fd: BorrowedFd<'_>,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        let events = match interest {
            Interest::Readable => libc::EPOLLIN,
            Interest::ReadableEdge => libc::EPOLLIN | libc::EPOLLET,
            Interest::BothEdges => {
                libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET
            }
        };
        self.control(libc::EPOLL_CTL_ADD, fd, events.cast_unsigned(), token)
    }

    /// Takes a descriptor out; closing it does the same if it is nowhere else.
    pub(super) fn remove(&self, fd: BorrowedFd<'_>, token: Token) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_DEL, fd, 0, token)
    }

    fn control(&self, op: i32, fd: BorrowedFd<'_>, events: u32, token: Token) -> io::Result<()> {
        let mut event = libc::epoll_event {
            events,
            u64: token.encode(),
        };
        // SAFETY: both descriptors are open while they are borrowed; `event` is read by the call only.
        let result =
            unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), op, fd.as_raw_fd(), &raw mut event) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// Waits for events, `limit` at most; returns how many there are, to be read by [`Poll::event`].
    pub(super) fn wait(&mut self, limit: Option<Duration>) -> io::Result<usize> {
        if self.has_nanoseconds {
            match self.wait_nanoseconds(limit) {
                // A filter older than the call answers EPERM to what it does not know.
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
                    self.has_nanoseconds = false;
                }
                other => return other,
            }
        }
        // Rounded up: before its deadline a turn would only find nothing to do, and wait again.
        let milliseconds = limit.map_or(-1, |limit| {
            i32::try_from(limit.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)
        });
        let room = i32::try_from(self.events.len()).unwrap_or(i32::MAX);
        // SAFETY: the call writes at most `room` events to `events`, which has room for them.
        let count = unsafe {
            libc::epoll_wait(
                self.epoll.as_raw_fd(),
                self.events.as_mut_ptr(),
                room,
                milliseconds,
            )
        };
        Self::count(count)
    }

    fn wait_nanoseconds(&mut self, limit: Option<Duration>) -> io::Result<usize> {
        let limit = limit.map(|limit| libc::timespec {
            tv_sec: limit.as_secs().try_into().unwrap_or(libc::time_t::MAX),
            tv_nsec: limit.subsec_nanos().into(),
        });
        let limit = limit
            .as_ref()
            .map_or(std::ptr::null(), std::ptr::from_ref::<libc::timespec>);
        // SAFETY: the call writes at most that many events to `events`, which has room for them; the
        // limit is null or a timespec that outlives the call; the set of signals is null: unchanged.
        // JUSTIFICATION: by number, for the C library has no name for it before its version 2.35.
        let count = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                self.epoll.as_raw_fd(),
                self.events.as_mut_ptr(),
                self.events.len(),
                limit,
                std::ptr::null::<libc::sigset_t>(),
                0_usize,
            )
        };
        Self::count(i32::try_from(count).unwrap_or(-1))
    }

    fn count(result: i32) -> io::Result<usize> {
        usize::try_from(result).or_else(|_| {
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::EINTR) => Ok(0),
                _ => Err(error),
            }
        })
    }

    /// The event of that number, of the last wait.
    pub(super) fn event(&self, number: usize) -> Option<Event> {
        let event = self.events.get(number)?;
        let (token, events) = (event.u64, event.events);
        let has = |bits: i32| events & bits.cast_unsigned() != 0;
        let failed = has(libc::EPOLLERR | libc::EPOLLHUP);
        Some(Event {
            token: Token::decode(token),
            readable: failed || has(libc::EPOLLIN | libc::EPOLLRDHUP),
            writable: failed || has(libc::EPOLLOUT),
            hung_up: failed || has(libc::EPOLLRDHUP),
            failed,
        })
    }
}

/// Accepts one connection, non-blocking and closed on exec, in one system call.
pub(super) fn accept(listener: &Socket) -> io::Result<(Socket, Option<SocketAddr>)> {
    let mut address = SockAddrStorage::zeroed();
    let mut len = address.size_of();
    // SAFETY: the call writes at most `len` bytes to `address`, which has so many, and `len`.
    // JUSTIFICATION: socket2 would take two calls more to make it non-blocking.
    let fd = unsafe {
        libc::accept4(
            listener.as_raw_fd(),
            (&raw mut address).cast(),
            &raw mut len,
            libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made this descriptor for us and nobody else knows it.
    let socket = Socket::from(unsafe { OwnedFd::from_raw_fd(fd) });
    // SAFETY: `address` holds `len` bytes of an address, as the kernel wrote it.
    let address = unsafe { SockAddr::new(address, len) };
    Ok((socket, address.as_socket()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_comes_back() {
        let connection = |slot, generation| Token::Connection(ConnectionId { slot, generation });
        for token in [
            Token::Waker,
            Token::Tun,
            Token::Listener(0),
            Token::Listener(7),
            connection(0, 0),
            connection((1 << 24) - 1, u32::MAX),
        ] {
            assert_eq!(Token::decode(token.encode()), token);
        }
    }
}
