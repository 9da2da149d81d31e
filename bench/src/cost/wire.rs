//! A driver for one connection between two shards, that marks when its shard is not at work.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use datapath::io::{
    Completion, ConnectionId, Detached, Io, ReceiveBuffer, SendBuffer, TunQueue, TunRead, Wake,
    Waker,
};
use datapath::time::{Duration, Instant};

use super::trace::Marks;
use crate::paths::apart;

static SWITCH: AtomicU64 = AtomicU64::new(0);
static BURST: AtomicU64 = AtomicU64::new(0);

/// Counting begins, or pauses.
pub(super) fn switch() {
    SWITCH.store(1, Ordering::Relaxed);
}

/// A burst is over.
pub(super) fn end_of_burst() {
    BURST.store(1, Ordering::Relaxed);
}

/// Where the stores of [`switch`] and [`end_of_burst`] go.
pub(super) fn marks() -> Marks {
    Marks {
        switch: std::ptr::from_ref(&SWITCH).addr() as u64,
        burst: std::ptr::from_ref(&BURST).addr() as u64,
    }
}

const CONNECTION: ConnectionId = ConnectionId {
    slot: 0,
    generation: 1,
};
const RECEIVE_LEN: usize = 65_536;

#[derive(Debug)]
struct NoWake;

impl Wake for NoWake {
    fn wake(&self) {}
}

/// What goes one way.
pub(super) type Stream = Rc<RefCell<Vec<u8>>>;

/// One end of the connection.
#[derive(Debug)]
pub(super) struct End {
    /// Of the gateway: the connection is accepted. Of the client: it was asked for.
    pub(super) opens: bool,
    pub(super) now: Instant,
    /// Counted: calls of the driver are marked.
    pub(super) is_marked: bool,
    /// Reads from the TUN that are still to come, and what each gives.
    pub(super) tun_left: usize,
    pub(super) tun_reads: Vec<Vec<u8>>,
    /// Bytes written to the TUN.
    pub(super) tun_written: u64,
    free: Vec<ReceiveBuffer>,
    sent: Option<SendBuffer>,
}

/// The driver of one end.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) end: Rc<RefCell<End>>,
    receives: Stream,
    sends: Stream,
    is_server: bool,
}

impl Wire {
    pub(super) fn new(receives: &Stream, sends: &Stream, is_server: bool) -> Self {
        let free = (0..16).map(|id| ReceiveBuffer {
            bytes: vec![0; RECEIVE_LEN].into_boxed_slice(),
            len: 0,
            id,
        });
        let end = End {
            opens: is_server,
            now: Instant::from_nanos(1_000_000_000),
            is_marked: false,
            tun_left: 0,
            tun_reads: Vec::new(),
            tun_written: 0,
            free: free.collect(),
            sent: None,
        };
        Self {
            end: Rc::new(RefCell::new(end)),
            receives: Rc::clone(receives),
            sends: Rc::clone(sends),
            is_server,
        }
    }

    /// Does the driver's part, uncounted.
    fn apart<T>(&self, work: impl FnOnce(&Self, &mut End) -> T) -> T {
        let is_marked = self.end.borrow().is_marked;
        if is_marked {
            switch();
        }
        let result = apart(|| work(self, &mut self.end.borrow_mut()));
        if is_marked {
            switch();
        }
        result
    }
}

impl Io for Wire {
    fn now(&self) -> Instant {
        self.end.borrow().now
    }

    fn turn(&mut self, _: Option<Instant>, completions: &mut Vec<Completion>) -> io::Result<()> {
        self.apart(|wire, end| {
            end.now = end.now + Duration::from_millis(1);
            if std::mem::take(&mut end.opens) {
                completions.push(if wire.is_server {
                    Completion::Accepted {
                        listener: 0,
                        connection: CONNECTION,
                        peer: ([192, 0, 2, 9], 50_000).into(),
                    }
                } else {
                    Completion::Connected {
                        connection: CONNECTION,
                        result: Ok(()),
                    }
                });
            }
            if let Some(buffer) = end.sent.take() {
                completions.push(Completion::Sent {
                    connection: CONNECTION,
                    buffer,
                    result: Ok(()),
                });
            }
            let mut receives = wire.receives.borrow_mut();
            while !receives.is_empty()
                && let Some(mut buffer) = end.free.pop()
            {
                let len = receives.len().min(RECEIVE_LEN);
                buffer.bytes[..len].copy_from_slice(&receives[..len]);
                buffer.len = len;
                receives.drain(..len);
                completions.push(Completion::Received {
                    connection: CONNECTION,
                    buffer,
                });
            }
            if end.tun_left > 0 {
                completions.push(Completion::TunReadable);
            }
        });
        Ok(())
    }

    fn release(&mut self, buffer: ReceiveBuffer) {
        self.apart(|_, end| end.free.push(buffer));
    }

    fn send(&mut self, _: ConnectionId, buffer: SendBuffer) {
        self.apart(|wire, end| {
            let bytes = &buffer.bytes[buffer.start..buffer.end];
            wire.sends.borrow_mut().extend_from_slice(bytes);
            end.sent = Some(buffer);
        });
    }

    fn send_now(&mut self, _: ConnectionId, buffer: SendBuffer) -> Result<SendBuffer, SendBuffer> {
        self.apart(|wire, _| {
            let bytes = &buffer.bytes[buffer.start..buffer.end];
            wire.sends.borrow_mut().extend_from_slice(bytes);
        });
        Ok(buffer)
    }

    fn connect(&mut self, _: SocketAddr, _: Option<SocketAddr>) -> io::Result<ConnectionId> {
        self.end.borrow_mut().opens = true;
        Ok(CONNECTION)
    }

    fn pause_receive(&mut self, _: ConnectionId) {}
    fn resume_receive(&mut self, _: ConnectionId) {}
    fn shutdown(&mut self, _: ConnectionId) {}
    fn close(&mut self, _: ConnectionId, _: bool) {}
    fn stop_accepting(&mut self) {}
    fn detach(&mut self, _: ConnectionId) -> Option<Detached> {
        None
    }
    fn attach(&mut self, _: Detached) -> io::Result<ConnectionId> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn tun_read(&mut self, buffer: &mut [u8]) -> TunRead {
        self.apart(|_, end| {
            let Some(left) = end.tun_left.checked_sub(1) else {
                return TunRead::Empty;
            };
            end.tun_left = left;
            let bytes = &end.tun_reads[end.tun_reads.len() - 1 - left % end.tun_reads.len()];
            buffer[..bytes.len()].copy_from_slice(bytes);
            TunRead::Packet(bytes.len())
        })
    }

    fn tun_write(&mut self, header: &[u8], packet: &[u8]) -> io::Result<()> {
        self.apart(|_, end| end.tun_written += (header.len() + packet.len()) as u64);
        Ok(())
    }

    fn replace_tun(&mut self, _: TunQueue) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn waker(&self) -> Waker {
        Waker::new(Arc::new(NoWake))
    }
}
