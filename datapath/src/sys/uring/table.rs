//! What the ring keeps of one connection.

use socket2::{SockAddr, Socket};

use super::super::lent::Lent;
use super::super::slots::Held;
use crate::io::SendBuffer;

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
}

impl Sending {
    pub(super) fn lend(buffer: SendBuffer) -> Self {
        Self {
            start: buffer.start,
            end: buffer.end,
            position: buffer.start,
            memory: Lent::lend(buffer.bytes),
        }
    }

    /// The buffer as it was given.
    ///
    /// # Safety
    ///
    /// The send's final completion was seen, or it never reached the kernel.
    pub(super) unsafe fn take_back(self) -> SendBuffer {
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
