//! What each completion means: the half of the driver that reaps.

use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd, OwnedFd};
use std::{io, net::SocketAddr};

use io_uring::cqueue;
use socket2::Socket;

use super::op::{Kind, Op};
use super::table::{Connection, Receive};
use super::{Accepting, Uring};
use crate::io::{Completion, ConnectionId, Loss, ReceiveBuffer};
use crate::sys::driver::{ACCEPT_PAUSE_FIRST, ACCEPT_PAUSE_LAST};
use crate::sys::errno::{self, loss};
use crate::time::Duration;

/// Completions taken from the queue at once.
const BATCH: usize = 64;
/// Overflows flushed in one turn; the next turn goes on without waiting.
const FLUSHES_MAX: u32 = 64;

impl Uring {
    /// Takes everything out of the completion queue, and what overflowed it.
    pub(super) fn reap(&mut self) -> io::Result<()> {
        for _ in 0..FLUSHES_MAX {
            loop {
                let mut batch = [const { MaybeUninit::<cqueue::Entry>::uninit() }; BATCH];
                let entries = self.ring.completion().fill(&mut batch);
                if entries.is_empty() {
                    break;
                }
                for entry in entries {
                    self.complete(entry);
                }
            }
            self.counters.cq_lost = u64::from(self.ring.completion().overflow());
            if !self.ring.submission().cq_overflow() {
                break;
            }
            self.counters.cq_overflows += 1;
            self.enter(Some(Duration::ZERO))?;
        }
        Ok(())
    }

    fn complete(&mut self, entry: &cqueue::Entry) {
        self.counters.completions += 1;
        let flags = entry.flags();
        let result = entry.result();
        let Some(op) = Op::decode(entry.user_data()) else {
            self.counters.unclaimed += 1;
            return;
        };
        if op.kind == Kind::Cancel {
            return;
        }
        let more = cqueue::more(flags);
        if !more {
            self.in_flight -= 1;
        }
        let id = ConnectionId {
            slot: op.slot,
            generation: op.generation,
        };
        match op.kind {
            Kind::Accept => self.accepted(op.slot as usize, result, more),
            Kind::Receive => self.received(id, result, flags, more),
            Kind::PollReceive => self.receive_polled(id, result),
            Kind::Send => self.sent(id, result),
            Kind::Connect => self.connected(id, result),
            Kind::PollTun => self.tun_polled(op.generation, result, more),
            Kind::PollWaker => self.waker_polled(more),
            Kind::Cancel => {}
        }
    }

    fn accepted(&mut self, index: usize, result: i32, more: bool) {
        if result >= 0 {
            // SAFETY: the kernel just made this descriptor for us and nobody else knows it.
            let socket = Socket::from(unsafe { OwnedFd::from_raw_fd(result) });
            self.admit(index, socket);
        }
        let Some(listener) = self.listeners.get_mut(index) else {
            self.counters.unclaimed += 1;
            return;
        };
        if result >= 0 {
            listener.next_pause = ACCEPT_PAUSE_FIRST;
        }
        if more {
            return;
        }
        listener.accepting = Accepting::Idle;
        if self.dropping {
            return;
        }
        if self.stopping {
            self.close_listener(index);
            return;
        }
        match -result {
            // Ended by a full completion queue, or cancelled.
            ..=0 | libc::ECANCELED => self.arm_accept(index),
            errno if errno::accept_goes_on(errno) => self.arm_accept(index),
            errno => {
                listener.accepting = Accepting::Paused {
                    until: self.now + listener.next_pause,
                };
                listener.next_pause = (listener.next_pause * 2).min(ACCEPT_PAUSE_LAST);
                self.counters.accept_pauses += 1;
                self.told.push(Completion::AcceptPaused {
                    listener: index,
                    errno,
                });
            }
        }
    }

    /// Takes an accepted connection in and tells of it.
    fn admit(&mut self, listener: usize, socket: Socket) {
        let peer = socket.peer_addr().ok().and_then(|peer| peer.as_socket());
        // Reset before it was accepted: there is nothing to tell.
        let Some(peer): Option<SocketAddr> = peer else {
            return;
        };
        match self.table.insert(Connection::new(socket)) {
            Ok(connection) => {
                self.told.push(Completion::Accepted {
                    listener,
                    connection,
                    peer,
                });
                self.settle(connection);
            }
            Err(_) => self.counters.refused += 1,
        }
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
        if socket.set_nonblocking(true).is_err() {
            return;
        }
        while let Ok((accepted, _)) = socket.accept() {
            self.admit(index, accepted);
        }
    }

    fn received(&mut self, id: ConnectionId, result: i32, flags: u32, more: bool) {
        let buffer = cqueue::buffer_select(flags).and_then(|buffer_id| {
            // SAFETY: this completion says that the kernel consumed the buffer.
            let bytes = unsafe { self.buffers.take(buffer_id) }?;
            Some((buffer_id, bytes))
        });
        let Some(connection) = self.table.any_mut(id) else {
            self.counters.unclaimed += 1;
            if let Some((buffer_id, bytes)) = buffer {
                self.buffers.give(buffer_id, bytes);
            }
            return;
        };
        if !more {
            connection.receive = Receive::Idle;
        }
        let tell = !connection.closing;
        match (usize::try_from(result), buffer) {
            (Ok(len @ 1..), Some((buffer_id, bytes))) if tell => {
                connection.received = true;
                self.told.push(Completion::Received {
                    connection: id,
                    buffer: ReceiveBuffer {
                        len: len.min(bytes.len()),
                        bytes,
                        id: buffer_id,
                    },
                });
            }
            (_, buffer) => {
                if let Some((buffer_id, bytes)) = buffer {
                    self.buffers.give(buffer_id, bytes);
                }
                if !more {
                    self.receive_stopped(id, result);
                }
            }
        }
        if !more {
            self.settle(id);
        }
    }

    /// A multishot receive ended without bytes.
    fn receive_stopped(&mut self, id: ConnectionId, result: i32) {
        let Some(connection) = self.table.live_mut(id) else {
            return;
        };
        let ended = match -result {
            // Bytes for a connection closed meanwhile, or one of these: armed again if wanted.
            ..0 | libc::ECANCELED | libc::EINTR | libc::EAGAIN => return,
            libc::ENOBUFS => {
                connection.receive = Receive::Parked;
                self.counters.buffer_waits += 1;
                if connection.received {
                    self.parked.push_back(id);
                } else {
                    self.starved.push_back(id);
                }
                return;
            }
            0 => Loss::Finished,
            errno => loss(errno),
        };
        connection.receive = Receive::Ended;
        self.told.push(Completion::ReceiveEnded {
            connection: id,
            loss: ended,
        });
    }

    fn sent(&mut self, id: ConnectionId, result: i32) {
        let Some(connection) = self.table.any_mut(id) else {
            self.counters.unclaimed += 1;
            return;
        };
        let Some(sending) = &mut connection.send else {
            self.counters.unclaimed += 1;
            return;
        };
        let outcome = match (usize::try_from(result), -result) {
            (Ok(len @ 1..), _) => {
                sending.position = sending.position.saturating_add(len).min(sending.end);
                if sending.position == sending.end {
                    Some(Ok(()))
                } else {
                    if sending.position != sending.boundary {
                        self.counters.short_sends += 1;
                    }
                    None
                }
            }
            (_, libc::EINTR | libc::EAGAIN) => None,
            // The kernel never takes nothing of something; were it to, asking again would spin.
            (_, 0) => Some(Err(Loss::Reset)),
            (_, errno) => Some(Err(loss(errno))),
        };
        let result = match outcome {
            None if !connection.reset && !self.dropping => {
                self.send_rest(id);
                return;
            }
            None => Err(Loss::Reset),
            Some(outcome) => outcome,
        };
        let fin = std::mem::take(&mut connection.fin_owed);
        if fin && result.is_ok() {
            // It can only fail if the connection is lost, which is told by receiving.
            let _ = connection.socket.shutdown(std::net::Shutdown::Write);
        }
        if let Some(sending) = connection.send.take() {
            self.told.push(Completion::Sent {
                connection: id,
                // SAFETY: a send has one completion, and this was it.
                buffer: unsafe { sending.take_back() },
                result,
            });
        }
        self.settle(id);
    }

    fn connected(&mut self, id: ConnectionId, result: i32) {
        let Some(connection) = self.table.any_mut(id) else {
            self.counters.unclaimed += 1;
            return;
        };
        if let Some(address) = connection.connect.take() {
            // SAFETY: a connect has one completion, and this was it.
            drop(unsafe { address.take_back() });
        }
        if connection.closing {
            self.settle(id);
            return;
        }
        let result = if result < 0 {
            self.table.remove(id);
            Err(loss(-result))
        } else {
            self.settle(id);
            Ok(())
        };
        self.told.push(Completion::Connected {
            connection: id,
            result,
        });
    }

    fn tun_polled(&mut self, generation: u32, result: i32, more: bool) {
        let Some(tun) = (self.tun.as_mut()).filter(|tun| tun.generation == generation) else {
            if !more {
                // Only now may the descriptor's number be used again.
                self.old_tuns.retain(|old| old.generation != generation);
            }
            return;
        };
        tun.armed = more;
        tun.readable = true;
        let bad = i32::from(libc::POLLERR | libc::POLLHUP | libc::POLLNVAL);
        if result < 0 || result & bad != 0 {
            // Readable all the same: the shard's read tells what it is.
            tun.gone = true;
        }
        if !more && !tun.gone && !self.dropping {
            self.arm_tun();
        }
    }

    fn waker_polled(&mut self, more: bool) {
        self.waker.clear();
        self.woken = true;
        if !more && !self.dropping {
            self.arm_waker();
        }
    }
}
