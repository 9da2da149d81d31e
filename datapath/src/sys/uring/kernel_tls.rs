//! Connections whose TLS the kernel does: receiving by poll and recvmsg, sending in records.
//!
//! A multishot receive gives bytes without the type of their record, and may have received more than
//! the shard knows of when keys are installed. So with [`Config::kernel_opens_tls`](super::Config) every
//! connection is polled, once a turn, and read at the end of the turn into one buffer: when the shard
//! acts, nothing of a connection is anywhere but in the socket and in the buffer it was told of.
//!
//! ```text
//! Idle ─ poll ─▶ Armed ─▶ Ready ─ recvmsg ─▶ Told ─ next turn ─▶ Idle
//!                           ▲                                    │
//!                           └─ the kernel opens TLS ─────────────┘
//! ```
//!
//! Where the kernel opens TLS it is read until nothing is left, and polled only then: a `KeyUpdate` that it
//! opened right behind data waits in it for the next recvmsg, and until the new keys are there
//! (Linux 6.14 on) poll does not call the connection readable, whatever waits.

use std::io;
use std::os::fd::AsFd as _;

use super::Uring;
use super::table::{Receive, Sending};
use crate::io::kernel_tls::{Direction, KernelSend, TlsKeys};
use crate::io::{Completion, ConnectionId, Loss, ReceiveBuffer, SendBuffer};
use crate::sys::errno::loss;
use crate::sys::ktls;

/// Name of receive buffers that recvmsg filled.
pub(super) const POLLED_BUFFER: u16 = u16::MAX - 1;

/// What polling connections takes.
#[derive(Debug)]
pub(super) struct Polled {
    /// Found readable, in order.
    ready: Vec<ConnectionId>,
    /// Told of in this turn.
    told: Vec<ConnectionId>,
    /// Free buffers.
    buffers: Vec<Box<[u8]>>,
    /// Buffers that may still be made.
    unmade: u16,
    buffer_len: usize,
}

impl Polled {
    pub(super) const fn new(count: u16, buffer_len: usize) -> Self {
        Self {
            ready: Vec::new(),
            told: Vec::new(),
            buffers: Vec::new(),
            unmade: count,
            buffer_len,
        }
    }

    fn take_buffer(&mut self) -> Option<Box<[u8]>> {
        if let Some(buffer) = self.buffers.pop() {
            return Some(buffer);
        }
        self.unmade = self.unmade.checked_sub(1)?;
        Some(vec![0; self.buffer_len].into_boxed_slice())
    }

    pub(super) fn push_ready(&mut self, id: ConnectionId) {
        self.ready.push(id);
    }

    pub(super) fn give_buffer(&mut self, buffer: Box<[u8]>) {
        if buffer.len() == self.buffer_len {
            self.buffers.push(buffer);
        }
    }

    /// Whether connections wait to be read that no poll need tell of.
    pub(super) fn is_behind(&self) -> bool {
        !self.ready.is_empty()
    }
}

impl Uring {
    /// Gives the kernel keys; see `Io::install_tls`.
    pub(super) fn install(
        &mut self,
        id: ConnectionId,
        direction: Direction,
        keys: &TlsKeys,
    ) -> Result<(), i32> {
        if direction == Direction::Rx && self.polled.is_none() {
            return Err(libc::EOPNOTSUPP);
        }
        let live = self.table.live_mut(id).ok_or(libc::ENOTCONN)?;
        if direction == Direction::Tx && live.send.is_some() {
            return Err(libc::EBUSY);
        }
        let number = |error: io::Error| error.raw_os_error().unwrap_or(libc::EIO);
        let socket = live.socket.as_fd();
        if !live.tls_attached {
            ktls::attach(socket).map_err(number)?;
        }
        live.tls_attached = true;
        ktls::install(live.socket.as_fd(), direction, keys).map_err(number)?;
        live.kernel_seals |= direction == Direction::Tx;
        live.kernel_opens |= direction == Direction::Rx;
        Ok(())
    }

    /// Sends plaintext that the kernel seals; see `Io::send_by_kernel`.
    pub(super) fn send_plaintext(
        &mut self,
        id: ConnectionId,
        buffer: SendBuffer,
        how: KernelSend,
    ) -> Result<(), SendBuffer> {
        let result = match self.table.live_mut(id) {
            None => Err(Loss::Reset),
            // It would go out as it is.
            Some(live) if !live.kernel_seals => return Err(buffer),
            Some(live) => {
                if buffer.start > buffer.end || buffer.end > buffer.bytes.len() {
                    Err(Loss::Os(libc::EINVAL))
                } else if live.send.is_some() {
                    Err(Loss::Os(libc::EBUSY))
                } else if buffer.start == buffer.end {
                    Ok(())
                } else {
                    live.send = Some(Sending::lend_plaintext(buffer, how));
                    self.send_rest(id);
                    return Ok(());
                }
            }
        };
        self.told.push(Completion::Sent {
            connection: id,
            buffer,
            result,
        });
        Ok(())
    }

    /// A poll ended: there is something to read, an error to find, or it was cancelled.
    pub(super) fn receive_polled(&mut self, id: ConnectionId, result: i32) {
        let Some(connection) = self.table.any_mut(id) else {
            self.counters.unclaimed += 1;
            return;
        };
        if result < 0 || connection.receive == Receive::Cancelling || connection.closing {
            connection.receive = Receive::Idle;
            self.settle(id);
            return;
        }
        connection.receive = Receive::Ready;
        if let Some(polled) = &mut self.polled {
            polled.push_ready(id);
        }
    }

    /// Lets those be polled again that were told of in the last turn.
    pub(super) fn arm_told(&mut self) {
        let Some(polled) = &mut self.polled else {
            return;
        };
        let mut told = std::mem::take(&mut polled.told);
        for id in told.drain(..) {
            if let Some(connection) = self.table.any_mut(id)
                && connection.receive == Receive::Told
            {
                connection.receive = Receive::Idle;
                self.settle(id);
            }
        }
        if let Some(polled) = &mut self.polled {
            polled.told = told;
        }
    }

    /// Reads each readable connection once, as far as there are buffers.
    pub(super) fn read_ready(&mut self) {
        let Some(polled) = &mut self.polled else {
            return;
        };
        let mut ready = std::mem::take(&mut polled.ready);
        let mut done = 0;
        for &id in &ready {
            let Some(buffer) = self.polled.as_mut().and_then(Polled::take_buffer) else {
                self.counters.buffer_waits += 1;
                break;
            };
            if let Some(buffer) = self.read_one(id, buffer)
                && let Some(polled) = &mut self.polled
            {
                polled.give_buffer(buffer);
            }
            done += 1;
        }
        ready.drain(..done);
        if let Some(polled) = &mut self.polled {
            ready.append(&mut polled.ready);
            polled.ready = ready;
        }
    }

    /// Reads one connection; the buffer comes back if it was not told.
    fn read_one(&mut self, id: ConnectionId, mut buffer: Box<[u8]>) -> Option<Box<[u8]>> {
        let Some(live) = self.table.live_mut(id) else {
            return Some(buffer);
        };
        if live.receive != Receive::Ready {
            return Some(buffer);
        }
        if !live.receive_wanted {
            // Paused meanwhile: it is found as it was when it is resumed.
            live.receive = Receive::Idle;
            return Some(buffer);
        }
        let received = match ktls::receive(live.socket.as_fd(), &mut buffer) {
            Ok(received) => received,
            Err(error) => {
                self.receive_failed(id, error.raw_os_error().unwrap_or(libc::EIO));
                return Some(buffer);
            }
        };
        let is_control = received.is_control();
        if received.len == 0 && !is_control {
            live.receive = Receive::Ended;
            self.told.push(Completion::ReceiveEnded {
                connection: id,
                loss: Loss::Finished,
            });
            return Some(buffer);
        }
        live.receive = Receive::Told;
        live.may_hold_more = live.kernel_opens;
        if let Some(polled) = &mut self.polled {
            polled.told.push(id);
        }
        let buffer = ReceiveBuffer {
            len: received.len.min(buffer.len()),
            bytes: buffer,
            id: POLLED_BUFFER,
        };
        self.told.push(match received.content_type {
            Some(content_type) if is_control => Completion::ReceivedControl {
                connection: id,
                content_type,
                buffer,
            },
            _ => Completion::Received {
                connection: id,
                buffer,
            },
        });
        None
    }

    fn receive_failed(&mut self, id: ConnectionId, errno: i32) {
        let Some(live) = self.table.live_mut(id) else {
            return;
        };
        if matches!(errno, libc::EAGAIN | libc::EINTR) {
            live.receive = Receive::Idle;
            live.may_hold_more &= errno != libc::EAGAIN;
            self.settle(id);
            return;
        }
        live.receive = Receive::Ended;
        self.told.push(Completion::ReceiveEnded {
            connection: id,
            loss: loss(errno),
        });
    }
}
