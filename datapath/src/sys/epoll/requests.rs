//! What a shard asks of the driver.

use std::fs::File;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsFd as _;

use socket2::{SockAddr, Socket};

use super::events::{Tried, loss_of, try_send};
use super::poll::{Interest, Token};
use super::{Connection, Epoll, Sending};
use crate::io::kernel_tls::{Direction, KernelSend, TlsKeys};
use crate::io::{
    Completion, ConnectionId, Detached, DetachedConnection, Io, Loss, PathSeen, ReceiveBuffer,
    SendBuffer, TunQueue, TunRead, Waker,
};
use crate::sys::driver::FOREIGN_BUFFER;
use crate::sys::{clock, path, socket, told, tun};
use crate::time::{Duration, Instant};

impl Io for Epoll {
    fn now(&self) -> Instant {
        self.now
    }

    fn turn(
        &mut self,
        deadline: Option<Instant>,
        completions: &mut Vec<Completion>,
    ) -> io::Result<()> {
        let before = clock::now();
        self.last_busy = before.saturating_since(self.now);
        let pause_ends = self.unpause(before);
        let until = match (deadline, pause_ends) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let can_receive = !self.ready.is_empty() && !self.buffers.free.is_empty();
        let limit = if can_receive || !self.told.is_empty() {
            Some(Duration::ZERO)
        } else {
            until.map(|until| until.saturating_since(before))
        };
        let count = self.poll.wait(limit)?;
        self.now = clock::now();
        for number in 0..count {
            if let Some(event) = self.poll.event(number) {
                self.happened(event);
            }
        }
        self.receive_round();

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
        Self::take_back(&mut self.buffers, buffer);
    }

    fn send(&mut self, connection: ConnectionId, buffer: SendBuffer) {
        let result = match self.table.live_mut(connection) {
            None => Err(Loss::Reset),
            Some(live) => {
                let in_bounds = buffer.start <= buffer.end && buffer.end <= buffer.bytes.len();
                if !in_bounds || live.connecting {
                    Err(Loss::Os(libc::EINVAL))
                } else if live.sending.is_some() {
                    Err(Loss::Os(libc::EBUSY))
                } else if buffer.start == buffer.end {
                    Ok(())
                } else {
                    live.sending = Some(Sending {
                        position: buffer.start,
                        buffer,
                        by_kernel: None,
                    });
                    if live.writable {
                        self.send_on(connection);
                    }
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

    fn last_busy(&self) -> Duration {
        self.last_busy
    }

    fn send_now(
        &mut self,
        connection: ConnectionId,
        buffer: SendBuffer,
    ) -> Result<SendBuffer, SendBuffer> {
        let Some(live) = self.table.live_mut(connection) else {
            return Err(buffer);
        };
        if live.connecting || live.sending.is_some() || !live.writable {
            return Err(buffer);
        }
        let mut sending = Sending {
            position: buffer.start,
            buffer,
            by_kernel: None,
        };
        let short_sends = &mut self.counters.short_sends;
        let tried = try_send(&live.socket, live.end_of_send, &mut sending, short_sends);
        live.writable = !matches!(tried, Tried::Waits);
        let mut buffer = sending.buffer;
        if matches!(tried, Tried::Ended(Ok(()))) {
            return Ok(buffer);
        }
        buffer.start = sending.position;
        Err(buffer)
    }

    fn install_tls(
        &mut self,
        connection: ConnectionId,
        direction: Direction,
        keys: &TlsKeys,
    ) -> Result<(), i32> {
        self.install(connection, direction, keys)
    }

    fn send_by_kernel(
        &mut self,
        connection: ConnectionId,
        buffer: SendBuffer,
        how: KernelSend,
    ) -> Result<(), SendBuffer> {
        self.send_plaintext(connection, buffer, how)
    }

    fn set_unsent_limit(&mut self, connection: ConnectionId, bytes: usize) {
        if let Some(live) = self.table.live_mut(connection)
            && let Ok(limit) = u32::try_from(bytes)
        {
            live.end_of_send = socket::end_of_send(bytes);
            // What fails on a connection that is lost is told by receiving.
            let _ = live.socket.set_tcp_notsent_lowat(limit);
        }
    }

    fn path(&mut self, connection: ConnectionId) -> Option<PathSeen> {
        path::seen(&self.table.live_mut(connection)?.socket)
    }

    fn set_rate_limit(&mut self, connection: ConnectionId, rate: u64) {
        if let Some(live) = self.table.live_mut(connection) {
            // What fails on a connection that is lost is told by receiving.
            let _ = path::limit(&live.socket, rate);
        }
    }

    fn connect(&mut self, to: SocketAddr, source: Option<SocketAddr>) -> io::Result<ConnectionId> {
        if self.table.is_full() {
            return Err(io::Error::from_raw_os_error(libc::ENOBUFS));
        }
        let socket = socket::outgoing(to, source, &self.options)?;
        socket.set_nonblocking(true)?;
        // Asked for before it is registered: a socket that is not even connecting is hung up.
        let asked = socket.connect(&SockAddr::from(to));
        let mut connection = Connection::new(socket);
        let result = match asked {
            Ok(()) => Some(Ok(())),
            Err(error) => match error.raw_os_error() {
                Some(libc::EINPROGRESS | libc::EINTR) => {
                    connection.connecting = true;
                    None
                }
                _ => Some(Err(loss_of(&error))),
            },
        };
        let id = self.admit(connection)?;
        if let Some(result) = result {
            if result.is_err() {
                self.table.remove(id);
            }
            self.told.push(Completion::Connected {
                connection: id,
                result,
            });
        }
        Ok(id)
    }

    fn pause_receive(&mut self, connection: ConnectionId) {
        if let Some(live) = self.table.live_mut(connection) {
            live.receive_wanted = false;
        }
    }

    fn resume_receive(&mut self, connection: ConnectionId) {
        if let Some(live) = self.table.live_mut(connection) {
            live.receive_wanted = true;
            self.list(connection);
        }
    }

    fn shutdown(&mut self, connection: ConnectionId) {
        if let Some(live) = self.table.live_mut(connection) {
            if live.sending.is_some() {
                live.fin_owed = true;
            } else {
                // It can only fail if the connection is lost, which is told by receiving.
                let _ = live.socket.shutdown(Shutdown::Write);
            }
        }
    }

    fn close(&mut self, connection: ConnectionId, reset: bool) {
        let Some(any) = self.table.any_mut(connection) else {
            return;
        };
        any.closing = true;
        if reset {
            // If it cannot be set the peer gets a FIN instead of a RST.
            let _ = any.socket.set_linger(Some(Duration::ZERO));
        }
        let sends_on = any.sending.is_some() && !reset;
        self.untell(connection);
        if reset {
            self.sent(connection, Err(Loss::Reset));
        }
        if !sends_on {
            // Its descriptor is nowhere else, so it leaves the interest list by being closed.
            self.table.remove(connection);
        }
    }

    fn stop_accepting(&mut self) {
        for index in 0..self.listeners.len() {
            self.close_listener(index);
        }
    }

    fn detach(&mut self, connection: ConnectionId) -> Option<Detached> {
        let live = self.table.live_mut(connection)?;
        if live.sending.is_some() || live.connecting {
            return None;
        }
        let token = Token::Connection(connection);
        // It cannot fail: the socket is in the list.
        let _ = self.poll.remove(live.socket.as_fd(), token);
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
        socket.set_nonblocking(true)?;
        let id = self.admit(Connection::new(socket))?;
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
        Ok(id)
    }

    fn tun_read(&mut self, buffer: &mut [u8]) -> TunRead {
        match &self.tun {
            Some(tun) => tun::read(&tun.file, buffer),
            None => TunRead::Empty,
        }
    }

    fn tun_write(&mut self, header: &[u8], packet: &[u8]) -> io::Result<()> {
        match &self.tun {
            Some(tun) => tun::write(&tun.file, header, packet),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn replace_tun(&mut self, queue: TunQueue) -> io::Result<()> {
        let TunQueue::Descriptor(queue) = queue else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        tun::set_nonblocking(queue.as_fd())?;
        if let Some(old) = self.tun.take() {
            // It is no more in the list if its device was found to be gone.
            let _ = self.poll.remove(old.file.as_fd(), Token::Tun);
        }
        self.poll
            .add(queue.as_fd(), Token::Tun, Interest::ReadableEdge)?;
        self.tun = Some(super::TunQueue {
            file: File::from(queue),
            readable: false,
        });
        Ok(())
    }

    fn waker(&self) -> Waker {
        Waker::new(self.waker.clone())
    }
}

impl Epoll {
    /// Takes what is not yet told of a connection out; the bytes received are returned.
    fn untell(&mut self, id: ConnectionId) -> Vec<u8> {
        let buffers = &mut self.buffers;
        told::take_back(&mut self.told, id, |buffer| {
            Self::take_back(buffers, buffer)
        })
    }
}
