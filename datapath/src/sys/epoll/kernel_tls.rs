//! Connections whose TLS the kernel does.
//!
//! A connection gets one receive a turn, told at once: at the end of a turn nothing received is
//! anywhere but in the socket, which is what installing keys stands on.

use std::io::{self, Read as _};
use std::os::fd::AsFd as _;

use super::{Connection, Epoll, Sending};
use crate::io::kernel_tls::{Direction, KernelSend, TlsKeys};
use crate::io::{Completion, ConnectionId, Loss, SendBuffer};
use crate::sys::ktls;

/// How far one connection has gone over.
#[derive(Debug, Default)]
pub(super) struct KernelTls {
    /// The TLS protocol is on the socket; keys may be installed.
    attached: bool,
    /// The kernel seals what is sent.
    seals: bool,
    /// It opens what is received.
    opens: bool,
}

impl Connection {
    /// One receive, with the record's type where the kernel opens them.
    pub(super) fn receive(&mut self, memory: &mut [u8]) -> io::Result<ktls::Received> {
        if self.kernel_tls.opens {
            return ktls::receive(self.socket.as_fd(), memory);
        }
        let len = self.socket.read(memory)?;
        Ok(ktls::Received {
            len,
            content_type: None,
        })
    }
}

impl Sending {
    /// Where the next call ends: the last packet has a record to itself (see `session::transmit`).
    pub(super) fn next_end(&self) -> usize {
        let end = self.buffer.end;
        let Some(KernelSend::Data { last_len }) = self.by_kernel else {
            return end;
        };
        let boundary = end.saturating_sub(last_len);
        if self.position < boundary {
            boundary
        } else {
            end
        }
    }
}

impl Epoll {
    /// Gives the kernel keys; see `Io::install_tls`.
    pub(super) fn install(
        &mut self,
        id: ConnectionId,
        direction: Direction,
        keys: &TlsKeys,
    ) -> Result<(), i32> {
        let live = self.table.live_mut(id).ok_or(libc::ENOTCONN)?;
        if direction == Direction::Tx && live.sending.is_some() {
            return Err(libc::EBUSY);
        }
        let number = |error: io::Error| error.raw_os_error().unwrap_or(libc::EIO);
        if !live.kernel_tls.attached {
            ktls::attach(live.socket.as_fd()).map_err(number)?;
        }
        live.kernel_tls.attached = true;
        ktls::install(live.socket.as_fd(), direction, keys).map_err(number)?;
        match direction {
            Direction::Tx => live.kernel_tls.seals = true,
            Direction::Rx => {
                live.kernel_tls.opens = true;
                // What came before is the kernel's to open now, and makes no new edge.
                live.readable = true;
                self.list(id);
            }
        }
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
            Some(live) if !live.kernel_tls.seals => return Err(buffer),
            Some(live) => {
                if buffer.start > buffer.end || buffer.end > buffer.bytes.len() {
                    Err(Loss::Os(libc::EINVAL))
                } else if live.sending.is_some() {
                    Err(Loss::Os(libc::EBUSY))
                } else if buffer.start == buffer.end {
                    Ok(())
                } else {
                    live.sending = Some(Sending {
                        position: buffer.start,
                        buffer,
                        by_kernel: Some(how),
                    });
                    if live.writable {
                        self.send_on(id);
                    }
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
}
