//! What the ring keeps of one connection.

use socket2::{SockAddr, Socket};

use super::super::ktls::ControlMessage;
use super::super::lent::Lent;
use super::super::slots::Held;
use super::super::socket;
use crate::io::kernel_tls::KernelSend;
use crate::io::{SendBuffer, UNSENT_LIMIT_AT_START};

/// Where the receiving of a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Receive {
    /// No request; may be armed.
    Idle,
    /// A multishot receive is under way.
    Armed,
    /// It is under way, and so is its cancellation.
    Cancelling,
    /// No buffer was left; waits in the queue of the parked.
    Parked,
    /// Found readable; to be read in this turn, or the next.
    Ready,
    /// What was read is being told; to be armed again in the next turn.
    Told,
    /// Nothing more will come.
    Ended,
}

/// A send under way.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) memory: Lent<[u8]>,
    pub(super) start: usize,
    pub(super) end: usize,
    /// Next byte to send.
    pub(super) position: usize,
    /// Where one send must end and another begin, for the sake of TLS records that the kernel makes.
    pub(super) boundary: usize,
    /// What sendmsg is called with, for a record that is not data.
    pub(super) control: Option<Lent<ControlMessage>>,
}

impl Sending {
    pub(super) fn lend(buffer: SendBuffer) -> Self {
        Self {
            start: buffer.start,
            end: buffer.end,
            position: buffer.start,
            boundary: buffer.start,
            control: None,
            memory: Lent::lend(buffer.bytes),
        }
    }

    /// As `lend`, for plaintext that the kernel seals.
    pub(super) fn lend_plaintext(buffer: SendBuffer, how: KernelSend) -> Self {
        let mut sending = Self::lend(buffer);
        let len = sending.end - sending.start;
        match how {
            KernelSend::Data { last_len } => {
                sending.boundary = sending.end - last_len.min(len);
            }
            KernelSend::Control { content_type } => {
                let bytes = sending.memory.as_ptr().cast::<u8>();
                let bytes = bytes.wrapping_add(sending.start);
                let message = ControlMessage::new(content_type, bytes, len);
                sending.control = Some(Lent::lend(message));
            }
        }
        sending
    }

    /// Bytes that the next request sends: up to the boundary, or the end.
    pub(super) fn next_len(&self) -> usize {
        let end = if self.position < self.boundary {
            self.boundary
        } else {
            self.end
        };
        end - self.position
    }

    /// The buffer as it was given.
    ///
    /// # Safety
    ///
    /// The send's final completion was seen, or it never reached the kernel.
    pub(super) unsafe fn take_back(self) -> SendBuffer {
        if let Some(control) = self.control {
            // SAFETY: the caller's promise is the one asked for.
            drop(unsafe { control.take_back() });
        }
        SendBuffer {
            // SAFETY: the caller's promise is the one asked for.
            bytes: unsafe { self.memory.take_back() },
            start: self.start,
            end: self.end,
        }
    }
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) socket: Socket,
    pub(super) receive: Receive,
    /// Bytes came since the receive was armed.
    pub(super) received: bool,
    /// The shard wants to receive: not paused.
    pub(super) receive_wanted: bool,
    pub(super) send: Option<Sending>,
    /// The address of a connect under way.
    pub(super) connect: Option<Lent<SockAddr>>,
    /// FIN is to be sent when the send under way ends.
    pub(super) fin_owed: bool,
    /// Closed by the shard: its id is dead, only requests under way keep the slot.
    pub(super) closing: bool,
    /// Closed with a reset.
    pub(super) reset: bool,
    /// The TLS protocol is on the socket; keys may be installed.
    pub(super) tls_attached: bool,
    /// The kernel seals what is sent.
    pub(super) kernel_seals: bool,
    /// How a send ends for the kernel; see [`socket::end_of_send`].
    pub(super) end_of_send: i32,
}

impl Connection {
    pub(super) fn new(socket: Socket) -> Self {
        Self {
            socket,
            receive: Receive::Idle,
            received: false,
            receive_wanted: true,
            send: None,
            connect: None,
            fin_owed: false,
            closing: false,
            reset: false,
            tls_attached: false,
            kernel_seals: false,
            end_of_send: socket::end_of_send(UNSENT_LIMIT_AT_START),
        }
    }

    /// Nothing of it is with the kernel, so its descriptor may be closed.
    pub(super) fn is_quiet(&self) -> bool {
        !matches!(self.receive, Receive::Armed | Receive::Cancelling)
            && self.send.is_none()
            && self.connect.is_none()
    }
}

impl Held for Connection {
    fn is_closing(&self) -> bool {
        self.closing
    }
}
