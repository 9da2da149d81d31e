//! The drivers that the gateway has: io_uring and epoll, through the seam that its shards use.
//!
//! io_uring: multishot receive into provided buffers, a multishot poll and read(2) on the TUN, sends
//! as requests. epoll: edge-triggered. Both write to the TUN with write(2).

use std::convert::Infallible;
use std::io;

use datapath::io::{
    Completion, ConnectionId, Detached, DetachedConnection, Io, Loss, SendBuffer, TunRead,
};
use datapath::sys::driver::{Choice, Config, Driver};

use super::downlink::{Downlink, Piece};
use super::uplink::Uplink;
use super::{Counts, Edges, TUN_BURST, closed};
use crate::traffic::{CONNECTIONS, PACKET_LEN_MAX};

/// Far from what the pump has unsent: the other engines have no such limit.
const UNSENT_LIMIT: usize = 1 << 30;

pub(super) fn run(choice: Choice, edges: Edges, counts: &Counts) -> io::Result<Infallible> {
    let config = Config {
        connections: u32::try_from(CONNECTIONS).unwrap_or(u32::MAX),
        tun: Some(edges.tun.into()),
        ..Config::default()
    };
    let mut driver = Driver::open(choice, config).map_err(io::Error::other)?;
    let mut connections = Vec::new();
    for stream in edges.streams {
        let connection = driver.attach(Detached {
            connection: DetachedConnection::Socket(stream.into()),
            received: Vec::new(),
        })?;
        driver.set_unsent_limit(connection, UNSENT_LIMIT);
        connections.push(connection);
    }
    Pump {
        index_by_slot: (0..connections.len()).collect(),
        uplinks: connections.iter().map(|_| Uplink::default()).collect(),
        downlink: Downlink::new(),
        connections,
        tun_pending: false,
        driver,
        counts,
    }
    .start()
}

struct Pump<'a> {
    driver: Driver,
    connections: Vec<ConnectionId>,
    /// Which client a slot of the driver's table is.
    index_by_slot: Vec<usize>,
    uplinks: Vec<Uplink>,
    downlink: Downlink,
    tun_pending: bool,
    counts: &'a Counts,
}

impl Pump<'_> {
    fn start(mut self) -> io::Result<Infallible> {
        for (index, connection) in self.connections.iter().enumerate() {
            let slot = usize::try_from(connection.slot).unwrap_or(usize::MAX);
            let place = self.index_by_slot.get_mut(slot);
            *place.ok_or_else(|| io::Error::other("a slot outside the table"))? = index;
        }
        let mut completions = Vec::new();
        loop {
            let deadline = self.tun_pending.then(|| self.driver.now());
            self.driver.turn(deadline, &mut completions)?;
            for completion in completions.drain(..) {
                self.complete(completion)?;
            }
            if self.tun_pending {
                self.read_tun()?;
            }
            self.send();
        }
    }

    fn complete(&mut self, completion: Completion) -> io::Result<()> {
        match completion {
            Completion::Received { connection, buffer } => {
                let bytes = &buffer.bytes[..buffer.len];
                let (driver, uplink) = (
                    &mut self.driver,
                    &mut self.uplinks[self.index_by_slot[slot(connection)]],
                );
                uplink.received(bytes, self.counts, |packet| driver.tun_write(&[], packet))?;
                self.driver.release(buffer);
            }
            Completion::Sent {
                connection,
                buffer,
                result,
            } => {
                result.map_err(lost)?;
                let piece = Piece::again(buffer.bytes.into_vec());
                self.downlink
                    .sent(self.index_by_slot[slot(connection)], piece);
            }
            Completion::TunReadable => self.tun_pending = true,
            Completion::ReceiveEnded { .. } => return Err(closed()),
            _ => {}
        }
        Ok(())
    }

    fn read_tun(&mut self) -> io::Result<()> {
        let mut buffer = [0; PACKET_LEN_MAX];
        for _ in 0..TUN_BURST {
            match self.driver.tun_read(&mut buffer) {
                TunRead::Packet(len) => {
                    self.downlink.deliver(&buffer[..len], self.counts);
                }
                TunRead::Empty => {
                    self.tun_pending = false;
                    break;
                }
                TunRead::Failed(errno) => return Err(io::Error::from_raw_os_error(errno)),
            }
        }
        Ok(())
    }

    fn send(&mut self) {
        while let Some(index) = self.downlink.due() {
            let Some(piece) = self.downlink.take(index, self.counts) else {
                continue;
            };
            let connection = self.connections[index];
            let buffer = SendBuffer {
                bytes: piece.bytes,
                start: 0,
                end: piece.len,
            };
            match self.driver.send_now(connection, buffer) {
                Ok(buffer) => {
                    let piece = Piece::again(buffer.bytes.into_vec());
                    self.downlink.sent(index, piece);
                }
                Err(rest) => self.driver.send(connection, rest),
            }
        }
    }
}

fn slot(connection: ConnectionId) -> usize {
    usize::try_from(connection.slot).unwrap_or(usize::MAX)
}

fn lost(loss: Loss) -> io::Error {
    io::Error::other(format!("a connection is lost: {loss:?}"))
}
