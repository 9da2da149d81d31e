//! What each event makes possible, and doing it.

use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd as _;

use super::poll::{self, Event, Interest, Token};
use super::{Connection, Epoll, POOLED_BUFFER, Sending};
use crate::io::kernel_tls::KernelSend;
use crate::io::{Completion, ConnectionId, Loss, ReceiveBuffer};
use crate::sys::driver::{ACCEPT_PAUSE_FIRST, ACCEPT_PAUSE_LAST};
use crate::sys::errno::{self, loss};
use crate::sys::ktls;
use crate::time::Instant;

/// Connections accepted from one listener in one turn, so that those who are in are not starved.
const ACCEPTS_MAX: usize = 64;

/// What became of a send that was tried.
pub(super) enum Tried {
    /// The rest waits until the socket is writable.
    Waits,
    /// It is over.
    Ended(Result<(), Loss>),
}

impl Epoll {
    pub(super) fn happened(&mut self, event: Event) {
        self.counters.completions += 1;
        match event.token {
            Token::Connection(id) => self.connection_edge(id, event),
            Token::Listener(index) => self.accept(index as usize),
            Token::Tun => self.tun_edge(event),
            Token::Waker => {
                self.waker.clear();
                self.woken = true;
            }
        }
    }

    fn tun_edge(&mut self, event: Event) {
        let Some(tun) = &mut self.tun else {
            return;
        };
        tun.readable = true;
        if event.failed {
            // The device is gone, which its edges would tell for ever; the shard's read tells what
            // it is. It cannot fail: the queue is in the list.
            let _ = self.poll.remove(tun.file.as_fd(), Token::Tun);
        }
    }

    fn connection_edge(&mut self, id: ConnectionId, event: Event) {
        let Some(connection) = self.table.any_mut(id) else {
            self.counters.unclaimed += 1;
            return;
        };
        connection.readable |= event.readable;
        connection.writable |= event.writable;
        connection.hung_up |= event.hung_up;
        if connection.connecting {
            if event.writable {
                self.connected(id);
            }
            return;
        }
        if event.writable {
            self.send_on(id);
        }
        self.list(id);
    }

    fn connected(&mut self, id: ConnectionId) {
        let Some(connection) = self.table.any_mut(id) else {
            return;
        };
        connection.connecting = false;
        let result = match connection.socket.take_error() {
            Ok(None) => Ok(()),
            Ok(Some(error)) | Err(error) => Err(loss_of(&error)),
        };
        if result.is_err() {
            self.table.remove(id);
        }
        self.told.push(Completion::Connected {
            connection: id,
            result,
        });
        self.list(id);
    }

    // Accepting.

    fn accept(&mut self, index: usize) {
        for _ in 0..ACCEPTS_MAX {
            let Some(listener) = self.listeners.get_mut(index) else {
                self.counters.unclaimed += 1;
                return;
            };
            let Some(socket) = &listener.socket else {
                return;
            };
            match poll::accept(socket) {
                Ok((socket, peer)) => {
                    listener.next_pause = ACCEPT_PAUSE_FIRST;
                    // An address that cannot be read is none of a TCP client.
                    if let Some(peer) = peer {
                        self.take_in(index, socket, peer);
                    }
                }
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN) => return,
                    Some(errno) if !errno::accept_goes_on(errno) => {
                        self.pause_accept(index, errno);
                        return;
                    }
                    _ => {}
                },
            }
        }
    }

    fn take_in(&mut self, listener: usize, socket: socket2::Socket, peer: std::net::SocketAddr) {
        match self.admit(Connection::new(socket)) {
            Ok(connection) => self.told.push(Completion::Accepted {
                listener,
                connection,
                peer,
            }),
            Err(_) => self.counters.refused += 1,
        }
    }

    fn pause_accept(&mut self, index: usize, errno: i32) {
        let Some(listener) = self.listeners.get_mut(index) else {
            return;
        };
        let Some(socket) = &listener.socket else {
            return;
        };
        let Ok(number) = u32::try_from(index) else {
            return;
        };
        // It cannot fail: the listener is in the list.
        let _ = self.poll.remove(socket.as_fd(), Token::Listener(number));
        listener.paused = Some(self.now + listener.next_pause);
        listener.next_pause = (listener.next_pause * 2).min(ACCEPT_PAUSE_LAST);
        self.counters.accept_pauses += 1;
        self.told.push(Completion::AcceptPaused {
            listener: index,
            errno,
        });
    }

    /// Ends the pauses that are over; returns when the next one is.
    pub(super) fn unpause(&mut self, now: Instant) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        for (index, listener) in (0..).zip(&mut self.listeners) {
            let (Some(socket), Some(until)) = (&listener.socket, listener.paused) else {
                continue;
            };
            let token = Token::Listener(index);
            let is_back = until <= now
                && self
                    .poll
                    .add(socket.as_fd(), token, Interest::Readable)
                    .is_ok();
            listener.paused = match (is_back, until <= now) {
                (true, _) => None,
                (false, false) => Some(until),
                // No memory for the interest list either: later.
                (false, true) => Some(now + listener.next_pause),
            };
            if let Some(until) = listener.paused {
                next = Some(next.map_or(until, |next| next.min(until)));
            }
        }
        next
    }

    /// Closes a listener for good, after taking in what already waits in its queue: those clients
    /// have been told that they are connected.
    pub(super) fn close_listener(&mut self, index: usize) {
        let Some(socket) = self
            .listeners
            .get_mut(index)
            .and_then(|listener| listener.socket.take())
        else {
            return;
        };
        while let Ok((accepted, peer)) = poll::accept(&socket) {
            if let Some(peer) = peer {
                self.take_in(index, accepted, peer);
            }
        }
    }

    // Receiving.

    /// Gives each connection of the ready list one receive, as long as there are buffers.
    pub(super) fn receive_round(&mut self) {
        for _ in 0..self.ready.len() {
            let Some(&id) = self.ready.front() else {
                return;
            };
            let wants = match self.table.any_mut(id) {
                Some(connection) if connection.wants_receive() => true,
                Some(connection) => {
                    connection.listed = false;
                    false
                }
                None => false,
            };
            if !wants {
                self.ready.pop_front();
                continue;
            }
            let Some(memory) = self.buffers.free.pop() else {
                self.count_waits();
                return;
            };
            self.ready.pop_front();
            self.receive(id, memory);
        }
    }

    /// Counts those who found no buffer, each once until it gets one.
    fn count_waits(&mut self) {
        // From the back: whoever waits longer has been counted.
        for &id in self.ready.iter().rev() {
            let Some(connection) = self.table.any_mut(id) else {
                continue;
            };
            if std::mem::replace(&mut connection.waits_for_buffer, true) {
                return;
            }
            self.counters.buffer_waits += 1;
        }
    }

    /// One receive of a connection that was taken off the ready list.
    fn receive(&mut self, id: ConnectionId, mut memory: Box<[u8]>) {
        let Some(connection) = self.table.any_mut(id) else {
            self.buffers.give(memory);
            return;
        };
        connection.listed = false;
        connection.waits_for_buffer = false;
        let ended = match connection.receive(&mut memory) {
            Ok(received) if received.len > 0 || received.is_control() => {
                // What comes after a short receive is a new edge (epoll(7), question 9); the end
                // of the stream is not, if it was told already. A short receive from a kernel that
                // opens TLS ends at a record: there may be another.
                let is_short = received.content_type.is_none() && received.len < memory.len();
                if is_short && !connection.hung_up {
                    connection.readable = false;
                }
                let buffer = ReceiveBuffer {
                    len: received.len,
                    bytes: memory,
                    id: POOLED_BUFFER,
                };
                self.told.push(match received.content_type {
                    Some(content_type) if received.is_control() => Completion::ReceivedControl {
                        connection: id,
                        content_type,
                        buffer,
                    },
                    _ => Completion::Received {
                        connection: id,
                        buffer,
                    },
                });
                self.list(id);
                return;
            }
            Ok(_) => Some(Loss::Finished),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => {
                    connection.readable = false;
                    None
                }
                io::ErrorKind::Interrupted => None,
                _ => Some(loss_of(&error)),
            },
        };
        self.buffers.give(memory);
        if let Some(loss) = ended {
            connection.ended = true;
            self.told.push(Completion::ReceiveEnded {
                connection: id,
                loss,
            });
        }
        self.list(id);
    }

    // Sending.

    /// Sends on where a socket stopped taking, and ends the send if it can.
    pub(super) fn send_on(&mut self, id: ConnectionId) {
        let Some(connection) = self.table.any_mut(id) else {
            return;
        };
        let Some(sending) = &mut connection.sending else {
            return;
        };
        let (socket, end_of_send) = (&connection.socket, connection.end_of_send);
        let short_sends = &mut self.counters.short_sends;
        let tried = try_send(socket, end_of_send, sending, short_sends);
        match tried {
            Tried::Waits => connection.writable = false,
            Tried::Ended(result) => self.sent(id, result),
        }
    }

    /// The send under way is over.
    pub(super) fn sent(&mut self, id: ConnectionId, result: Result<(), Loss>) {
        let Some(connection) = self.table.any_mut(id) else {
            return;
        };
        let Some(sending) = connection.sending.take() else {
            return;
        };
        if std::mem::take(&mut connection.fin_owed) && result.is_ok() {
            // It can only fail if the connection is lost, which is told by receiving.
            let _ = connection.socket.shutdown(Shutdown::Write);
        }
        let is_over = connection.closing;
        self.told.push(Completion::Sent {
            connection: id,
            buffer: sending.buffer,
            result,
        });
        if is_over {
            self.table.remove(id);
        }
    }
}

/// Sends until all is sent, the socket takes no more, or the connection is lost.
pub(super) fn try_send(
    socket: &socket2::Socket,
    end_of_send: i32,
    sending: &mut Sending,
    short_sends: &mut u64,
) -> Tried {
    loop {
        let end = sending.next_end();
        let rest = sending
            .buffer
            .bytes
            .get(sending.position..end)
            .unwrap_or_default();
        let sent = match sending.by_kernel {
            Some(KernelSend::Control { content_type }) => {
                ktls::send_control(socket.as_fd(), content_type, rest).map(|()| rest.len())
            }
            Some(KernelSend::Data { .. }) => socket.send_with_flags(rest, libc::MSG_NOSIGNAL),
            None => socket.send_with_flags(rest, libc::MSG_NOSIGNAL | end_of_send),
        };
        match sent {
            // The kernel never takes nothing of something; were it to, asking again would spin.
            Ok(0) => return Tried::Ended(Err(Loss::Reset)),
            Ok(len) if len < rest.len() => {
                sending.position = sending.position.saturating_add(len);
                *short_sends += 1;
            }
            Ok(_) if end < sending.buffer.end => sending.position = end,
            Ok(_) => return Tried::Ended(Ok(())),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => return Tried::Waits,
                io::ErrorKind::Interrupted => {}
                _ => return Tried::Ended(Err(loss_of(&error))),
            },
        }
    }
}

pub(super) fn loss_of(error: &io::Error) -> Loss {
    loss(error.raw_os_error().unwrap_or(libc::EIO))
}
