//! A driver for one connection that allocates nothing once it is made.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use datapath::io::{
    Completion, ConnectionId, Detached, Io, ReceiveBuffer, SendBuffer, TunQueue, TunRead, Wake,
    Waker,
};
use datapath::time::Instant;

const CONNECTION: ConnectionId = ConnectionId {
    slot: 0,
    generation: 1,
};
pub(crate) const RECEIVE_BUFFER_LEN: usize = 4_096;

#[derive(Debug)]
struct NoWake;

impl Wake for NoWake {
    fn wake(&self) {}
}

/// What is on the other side of a [`FixedIo`]; all its memory is there from the start.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) now: Instant,
    pub(crate) accepts: bool,
    /// From the peer to the shard.
    pub(crate) inbox: Vec<u8>,
    /// From the shard to the peer.
    pub(crate) outbox: Vec<u8>,
    pub(crate) receive_buffers: Vec<ReceiveBuffer>,
    pub(crate) sending: Option<SendBuffer>,
    /// Packets of the TUN, in a ring; so many of them are still to be read.
    pub(crate) tun_packets: Vec<Vec<u8>>,
    pub(crate) tun_left: usize,
    pub(crate) tun_written: u64,
    pub(crate) closed: bool,
}

/// A driver for one connection that allocates nothing.
#[derive(Debug)]
pub(crate) struct FixedIo {
    pub(crate) wire: Rc<RefCell<Wire>>,
    waker: Waker,
}

impl FixedIo {
    /// A driver whose TUN gives these packets, over and over.
    pub(crate) fn new(tun_packets: Vec<Vec<u8>>) -> Self {
        let receive_buffers = (0..8)
            .map(|id| ReceiveBuffer {
                bytes: vec![0; RECEIVE_BUFFER_LEN].into_boxed_slice(),
                len: 0,
                id,
            })
            .collect();
        let wire = Wire {
            now: Instant::from_nanos(1_000_000_000),
            accepts: false,
            inbox: Vec::with_capacity(1 << 20),
            outbox: Vec::with_capacity(1 << 20),
            receive_buffers,
            sending: None,
            tun_packets,
            tun_left: 0,
            tun_written: 0,
            closed: false,
        };
        Self {
            wire: Rc::new(RefCell::new(wire)),
            waker: Waker::new(Arc::new(NoWake)),
        }
    }
}

impl Io for FixedIo {
    fn now(&self) -> Instant {
        self.wire.borrow().now
    }

    fn turn(
        &mut self,
        _: Option<Instant>,
        completions: &mut Vec<Completion>,
    ) -> std::io::Result<()> {
        let wire = &mut *self.wire.borrow_mut();
        if std::mem::take(&mut wire.accepts) {
            completions.push(Completion::Accepted {
                listener: 0,
                connection: CONNECTION,
                peer: ([192, 0, 2, 9], 50_000).into(),
            });
        }
        if let Some(buffer) = wire.sending.take() {
            wire.outbox
                .extend_from_slice(&buffer.bytes[buffer.start..buffer.end]);
            let result = Ok(());
            completions.push(Completion::Sent {
                connection: CONNECTION,
                buffer,
                result,
            });
        }
        while !wire.inbox.is_empty()
            && let Some(mut buffer) = wire.receive_buffers.pop()
        {
            let len = wire.inbox.len().min(RECEIVE_BUFFER_LEN);
            buffer.bytes[..len].copy_from_slice(&wire.inbox[..len]);
            buffer.len = len;
            wire.inbox.drain(..len);
            completions.push(Completion::Received {
                connection: CONNECTION,
                buffer,
            });
        }
        if wire.tun_left > 0 {
            completions.push(Completion::TunReadable);
        }
        Ok(())
    }

    fn release(&mut self, buffer: ReceiveBuffer) {
        self.wire.borrow_mut().receive_buffers.push(buffer);
    }

    fn send(&mut self, connection: ConnectionId, buffer: SendBuffer) {
        assert_eq!(connection, CONNECTION);
        let before = self.wire.borrow_mut().sending.replace(buffer);
        assert!(before.is_none(), "one send at a time");
    }

    fn connect(&mut self, _: SocketAddr, _: Option<SocketAddr>) -> std::io::Result<ConnectionId> {
        Err(std::io::ErrorKind::Unsupported.into())
    }

    fn pause_receive(&mut self, _: ConnectionId) {}
    fn resume_receive(&mut self, _: ConnectionId) {}
    fn shutdown(&mut self, _: ConnectionId) {}
    fn close(&mut self, _: ConnectionId, _: bool) {
        self.wire.borrow_mut().closed = true;
    }
    fn stop_accepting(&mut self) {}
    fn detach(&mut self, _: ConnectionId) -> Option<Detached> {
        None
    }
    fn attach(&mut self, _: Detached) -> std::io::Result<ConnectionId> {
        Err(std::io::ErrorKind::Unsupported.into())
    }

    fn tun_read(&mut self, buffer: &mut [u8]) -> TunRead {
        let wire = &mut *self.wire.borrow_mut();
        let Some(left) = wire.tun_left.checked_sub(1) else {
            return TunRead::Empty;
        };
        wire.tun_left = left;
        let packet = &wire.tun_packets[left % wire.tun_packets.len()];
        buffer[..packet.len()].copy_from_slice(packet);
        TunRead::Packet(packet.len())
    }

    fn tun_write(&mut self, _: &[u8], _: &[u8]) -> std::io::Result<()> {
        self.wire.borrow_mut().tun_written += 1;
        Ok(())
    }

    fn replace_tun(&mut self, _: TunQueue) -> std::io::Result<()> {
        unreachable!("its device never goes")
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }
}
