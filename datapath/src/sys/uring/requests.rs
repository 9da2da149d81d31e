//! What a shard asks of the driver.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;

use socket2::{SockRef, Socket};

use super::kernel_tls::{POLLED_BUFFER, Polled};
use super::op::{Kind, Op};
use super::table::{Connection, Sending};
use super::{Accepting, REAP_ROUND, Uring};
use crate::io::kernel_tls::{Direction, KernelSend, TlsKeys};
use crate::io::{
    Completion, ConnectionId, Detached, DetachedConnection, Io, Loss, PathSeen, ReceiveBuffer,
    SendBuffer, TunQueue, TunRead, Waker,
};
use crate::sys::driver::FOREIGN_BUFFER;
use crate::sys::{clock, path, socket, tun};
use crate::time::{Duration, Instant};

impl Io for Uring {
    fn now(&self) -> Instant {
        self.now
    }

    fn last_busy(&self) -> Duration {
        self.last_busy
    }

    fn turn(
        &mut self,
        deadline: Option<Instant>,
        completions: &mut Vec<Completion>,
    ) -> io::Result<()> {
        let before = clock::now();
        self.last_busy = before.saturating_since(self.now);
        self.arm_told();
        let more_to_unpark = self.unpark();
        let pause_ends = self.unpause(before);
        self.submit_backlog()?;

        let until = match (deadline, pause_ends) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let behind = self.polled.as_ref().is_some_and(Polled::is_behind);
        let at_once = more_to_unpark || behind || !self.told.is_empty() || !self.backlog.is_empty();
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
        self.read_ready();

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
        match buffer.id {
            FOREIGN_BUFFER => {}
            POLLED_BUFFER => {
                if let Some(polled) = &mut self.polled {
                    polled.give_buffer(buffer.bytes);
                }
            }
            id => {
                self.buffers.give(id, buffer.bytes);
            }
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

    fn send_now(
        &mut self,
        connection: ConnectionId,
        mut buffer: SendBuffer,
    ) -> Result<SendBuffer, SendBuffer> {
        let Some(live) = self.table.live_mut(connection) else {
            return Err(buffer);
        };
        if live.send.is_some() || live.connect.is_some() {
            return Err(buffer);
        }
        let bytes = buffer.bytes.get(buffer.start..buffer.end);
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL | live.end_of_send;
        let sent = live
            .socket
            .send_with_flags(bytes.unwrap_or_default(), flags);
        buffer.start += sent.unwrap_or(0);
        if buffer.start < buffer.end {
            return Err(buffer);
        }
        Ok(buffer)
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
            // Linux 6.18 was seen to keep a cancelled send that waited for the second time; this ends it.
            // Where it cannot, the cancellation and the lingering of none do what they can.
            let _ = socket::reset(&any.socket);
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
        let generation = (self.tun.as_ref()).map_or(0, |old| old.generation.wrapping_add(1));
        let old = self.tun.replace(super::TunQueue::new(queue, generation));
        if let Some(old) = old.filter(|old| old.armed) {
            self.cancel(Op::new(Kind::PollTun, 0, old.generation));
            self.old_tuns.push(old);
        }
        self.arm_tun();
        Ok(())
    }

    fn waker(&self) -> Waker {
        Waker::new(self.waker.clone())
    }
}
