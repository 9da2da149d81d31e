//! The connections of one driver: slots, each with a generation.

use socket2::{SockAddr, Socket};

use super::super::ktls::ControlMessage;
use super::super::lent::Lent;
use crate::io::kernel_tls::KernelSend;
use crate::io::{ConnectionId, SendBuffer};

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
}

impl Connection {
    pub(super) fn new(socket: Socket) -> Self {
        Self {
            socket,
            receive: Receive::Idle,
            receive_wanted: true,
            send: None,
            connect: None,
            fin_owed: false,
            closing: false,
            reset: false,
            tls_attached: false,
            kernel_seals: false,
        }
    }

    /// Nothing of it is with the kernel, so its descriptor may be closed.
    pub(super) fn is_quiet(&self) -> bool {
        !matches!(self.receive, Receive::Armed | Receive::Cancelling)
            && self.send.is_none()
            && self.connect.is_none()
    }
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    connection: Option<Connection>,
}

/// A fixed number of slots; a full table refuses.
#[derive(Debug)]
pub(super) struct Table {
    slots: Vec<Slot>,
    free: Vec<u32>,
    capacity: u32,
    len: usize,
}

impl Table {
    pub(super) fn new(capacity: u32) -> Self {
        Self {
            slots: Vec::with_capacity(capacity as usize),
            free: Vec::with_capacity(capacity as usize),
            capacity,
            len: 0,
        }
    }

    /// Connections in it, with those that are closing.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_full(&self) -> bool {
        self.len >= self.capacity as usize
    }

    /// Puts a connection in; gives it back if the table is full.
    pub(super) fn insert(&mut self, connection: Connection) -> Result<ConnectionId, Connection> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => match u32::try_from(self.slots.len()) {
                Ok(slot) if slot < self.capacity => {
                    self.slots.push(Slot::default());
                    slot
                }
                _ => return Err(connection),
            },
        };
        let Some(place) = self.slots.get_mut(slot as usize) else {
            return Err(connection);
        };
        place.connection = Some(connection);
        self.len += 1;
        Ok(ConnectionId {
            slot,
            generation: place.generation,
        })
    }

    /// The connection of that name, closing or not.
    pub(super) fn any_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        let slot = self.slots.get_mut(id.slot as usize)?;
        if slot.generation == id.generation {
            slot.connection.as_mut()
        } else {
            None
        }
    }

    /// The connection of that name, if the shard has not closed it.
    pub(super) fn live_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.any_mut(id).filter(|connection| !connection.closing)
    }

    /// Takes the connection out; its name is dead from here on.
    pub(super) fn remove(&mut self, id: ConnectionId) -> Option<Connection> {
        let slot = self.slots.get_mut(id.slot as usize)?;
        if slot.generation != id.generation {
            return None;
        }
        let connection = slot.connection.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(id.slot);
        self.len -= 1;
        Some(connection)
    }

    /// All connections, to be taken down.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Connection> {
        self.len = 0;
        self.free.clear();
        self.slots.drain(..).filter_map(|slot| slot.connection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::{Domain, Type};

    fn connection() -> Connection {
        Connection::new(Socket::new(Domain::IPV4, Type::STREAM, None).unwrap())
    }

    #[test]
    fn a_name_dies_with_its_connection() {
        let mut table = Table::new(1);
        let first = table.insert(connection()).unwrap();
        assert!(table.insert(connection()).is_err());
        assert!(table.is_full());
        assert!(table.remove(first).is_some());
        assert!(table.remove(first).is_none());
        let second = table.insert(connection()).unwrap();
        assert_eq!(first.slot, second.slot);
        assert_ne!(first.generation, second.generation);
        assert!(table.any_mut(first).is_none());
        assert!(table.any_mut(second).is_some());
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn a_closing_connection_is_not_live() {
        let mut table = Table::new(2);
        let id = table.insert(connection()).unwrap();
        table.any_mut(id).unwrap().closing = true;
        assert!(table.live_mut(id).is_none());
        assert!(table.any_mut(id).is_some());
    }
}
