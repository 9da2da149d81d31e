//! The tunnel's end of what is forwarded: for each program that connected, a TCP connection of the
//! session's own stack.
//!
//! It lives on the shard's thread and never waits: bytes move as far as both sides have room. A window
//! that is full stops the far end, a channel that is full stops the program; nothing is dropped. One
//! side's end of stream becomes the other's, and so does a reset. Lengths are bytes.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use datapath::session::event::Addresses;
use datapath::time::Instant;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::{TryRecvError, TrySendError};

use super::local::{Arrived, CHUNK_LEN, CONNECTIONS_MAX, Fault, Pipe};
use crate::stack::{self, Connection, Stack, State, Window};

/// Of packets inside the tunnel. Every server takes as much: it is what is left of the smallest usual
/// MTU outside, and the default of `--mtu`.
const MTU: u16 = 1400;

/// Enough for 100 Mbit/s over 20 ms, and for 64 connections to stay within 32 MB.
const WINDOW: Window = Window {
    receive: 256 * 1024,
    send: 256 * 1024,
};

/// Packets sent in one turn, so that others have theirs.
const PACKETS_MAX: usize = 64;

/// All that is forwarded through one session, and through those that replace it.
#[derive(Debug)]
pub(crate) struct Tunnels {
    arrivals: mpsc::Receiver<Arrived>,
    seed: u64,
    inside: Option<Inside>,
    open: Vec<Tunnel>,
    /// Why connections did not come about, to be told.
    failures: Vec<String>,
}

#[derive(Debug)]
struct Inside {
    addresses: Vec<IpAddr>,
    stack: Stack,
}

/// One connection.
#[derive(Debug)]
struct Tunnel {
    to: SocketAddr,
    connection: Connection,
    fault: Fault,
    /// `None` once the program has finished and that was told to the far end.
    from_local: Option<mpsc::Receiver<Vec<u8>>>,
    /// `None` once the far end has finished and that was told to the program.
    to_local: Option<mpsc::Sender<Vec<u8>>>,
    /// Of the last chunk, what the stack had no room for.
    rest: Vec<u8>,
}

/// Whether a connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    GoesOn,
    /// It is over, in order or because one side is gone.
    Over,
}

impl Tunnels {
    /// For those who will arrive; from `seed` follow port and sequence numbers.
    pub(crate) const fn new(arrivals: mpsc::Receiver<Arrived>, seed: u64) -> Self {
        Self {
            arrivals,
            seed,
            inside: None,
            open: Vec::new(),
            failures: Vec::new(),
        }
    }

    /// A session has these addresses. If they are those of the last one, connections live on.
    pub(crate) fn up(&mut self, now: Instant, addresses: &Addresses) {
        let link_local = |id: u64| Ipv6Addr::from((0xfe80_u128 << 112) | u128::from(id));
        let v4 = addresses.ipv4.map(IpAddr::from);
        let v6 = addresses.ipv6_ids.map(|(own, _)| link_local(own).into());
        let addresses: Vec<IpAddr> = v4.into_iter().chain(v6).collect();
        if matches!(&self.inside, Some(inside) if inside.addresses == addresses) {
            return;
        }
        for tunnel in self.open.drain(..) {
            tunnel.fault.set();
        }
        let settings = stack::Settings {
            mtu: MTU,
            seed: self.seed,
        };
        self.seed = self
            .seed
            .wrapping_mul(0x5851_F42D_4C95_7F2D)
            .wrapping_add(1);
        let stack = Stack::new(&settings, &addresses, now);
        self.inside = Some(Inside { addresses, stack });
    }

    /// A packet came out of the tunnel.
    pub(crate) fn handle_packet(&mut self, now: Instant, packet: &[u8]) {
        if let Some(inside) = &mut self.inside {
            inside.stack.handle_packet(now, packet);
        }
    }

    /// Moves what can be moved; `send` takes the packets for the tunnel.
    pub(crate) fn poll(&mut self, now: Instant, send: impl FnMut(&[u8])) {
        let Some(Inside { stack, .. }) = &mut self.inside else {
            return;
        };
        while self.open.len() < CONNECTIONS_MAX
            && let Ok(Arrived { to, pipe }) = self.arrivals.try_recv()
        {
            match stack.connect(to, WINDOW) {
                Ok(connection) => self.open.push(Tunnel::new(to, connection, pipe)),
                Err(error) => {
                    pipe.fault.set();
                    self.failures.push(format!("{to}: {error}"));
                }
            }
        }
        let mut index = 0;
        while let Some(tunnel) = self.open.get_mut(index) {
            match tunnel.carry(stack, &mut self.failures) {
                Fate::GoesOn => index += 1,
                Fate::Over => stack.release(self.open.swap_remove(index).connection),
            }
        }
        stack.handle_timeout(now, PACKETS_MAX, send);
    }

    /// The session is about to end: both ends of whatever is open are told, the far ones through `send`.
    /// They would wait for minutes for somebody who is gone.
    pub(crate) fn close(&mut self, now: Instant, send: impl FnMut(&[u8])) {
        let Some(Inside { stack, .. }) = &mut self.inside else {
            return;
        };
        for tunnel in self.open.drain(..) {
            tunnel.fault.set();
            stack.release(tunnel.connection);
        }
        // One reset each.
        stack.handle_timeout(now, 2 * CONNECTIONS_MAX, send);
    }

    /// When [`Tunnels::poll`] is to be called even if nothing comes.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.inside.as_ref()?.stack.next_timeout()
    }

    /// Why connections did not come about or broke, since the last call.
    pub(crate) fn take_failures(&mut self) -> Vec<String> {
        std::mem::take(&mut self.failures)
    }
}

impl Drop for Tunnels {
    fn drop(&mut self) {
        // Nobody has finished in order.
        for tunnel in &self.open {
            tunnel.fault.set();
        }
    }
}

impl Tunnel {
    fn new(to: SocketAddr, connection: Connection, pipe: Pipe) -> Self {
        Self {
            to,
            connection,
            fault: pipe.fault,
            from_local: Some(pipe.from_local),
            to_local: Some(pipe.to_local),
            rest: Vec::new(),
        }
    }

    fn carry(&mut self, stack: &mut Stack, failures: &mut Vec<String>) -> Fate {
        self.carry_up(stack);
        let program_is_there = self.carry_down(stack);
        if self.fault.is_set() || !program_is_there {
            return Fate::Over;
        }
        // What came before the end is delivered before the end is.
        if stack.readable(&self.connection) > 0 {
            return Fate::GoesOn;
        }
        match stack.state(&self.connection) {
            State::Opening | State::Open => Fate::GoesOn,
            State::HalfOpen => {
                self.to_local = None;
                Fate::GoesOn
            }
            State::Finished => Fate::Over,
            State::Failed(failure) => {
                self.fault.set();
                failures.push(format!("{}: {failure}", self.to));
                Fate::Over
            }
        }
    }

    /// From the program into the tunnel.
    fn carry_up(&mut self, stack: &mut Stack) {
        while let Some(from_local) = &mut self.from_local {
            if self.rest.is_empty() {
                match from_local.try_recv() {
                    Ok(chunk) => self.rest = chunk,
                    Err(TryRecvError::Empty) => return,
                    Err(TryRecvError::Disconnected) => {
                        self.from_local = None;
                        // A fault is told by a reset, not by an end in order.
                        if !self.fault.is_set() {
                            stack.finish(&self.connection);
                        }
                        return;
                    }
                }
            }
            let rest = &self.rest;
            let written = stack.write(&self.connection, |room| {
                let len = room.len().min(rest.len());
                if let (Some(room), Some(rest)) = (room.get_mut(..len), rest.get(..len)) {
                    room.copy_from_slice(rest);
                }
                len
            });
            if written == 0 {
                return;
            }
            self.rest.drain(..written);
        }
    }

    /// Out of the tunnel to the program; `false` if that is gone.
    fn carry_down(&self, stack: &mut Stack) -> bool {
        let Some(to_local) = &self.to_local else {
            return true;
        };
        loop {
            if stack.readable(&self.connection) == 0 {
                return !to_local.is_closed();
            }
            let room = match to_local.try_reserve() {
                Ok(room) => room,
                Err(TrySendError::Full(())) => return true,
                Err(TrySendError::Closed(())) => return false,
            };
            let mut chunk = Vec::with_capacity(CHUNK_LEN);
            // What came may lie in two pieces.
            while chunk.len() < CHUNK_LEN {
                let left = CHUNK_LEN - chunk.len();
                let read = stack.read(&self.connection, |bytes| {
                    let bytes = bytes.get(..left).unwrap_or(bytes);
                    chunk.extend_from_slice(bytes);
                    bytes.len()
                });
                if read == 0 {
                    break;
                }
            }
            room.send(chunk);
        }
    }
}

#[cfg(test)]
mod tests;
