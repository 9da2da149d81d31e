//! io_uring with nothing but the plain crate, and everything a request: multishot receive and multishot
//! TUN read into provided buffers, a request for each packet written to the TUN, without a copy, and for
//! each send.
//!
//! Beside the gateway's driver, which calls read(2) and write(2) for the TUN, this tells what batching
//! those calls is worth.

use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::net::TcpStream;
use std::os::fd::AsFd as _;

use super::downlink::{Downlink, Piece};
use super::uplink::Uplink;
use super::{Counts, Edges, RECEIVE_LEN, TUN_BURST, closed, set_blocking};
use crate::sys::{Done, Ring};
use crate::traffic::{self, CONNECTIONS, HEADER_LEN, PACKET_LEN_MAX};

const SUBMISSIONS: u32 = 1024;
/// All packets of all buffers can be under way at once.
const COMPLETIONS: u32 = 65_536;
/// The groups of buffers: for what connections bring, and what the TUN does.
const STREAMS: u16 = 0;
const PACKETS: u16 = 1;
const GROUPS: [(u16, usize); 2] = [(64, RECEIVE_LEN), (1024, PACKET_LEN_MAX)];
/// The key of the TUN; a connection's is its index.
const TUN: u32 = u32::MAX;

pub(super) fn run(edges: Edges, counts: &Counts) -> io::Result<Infallible> {
    // A ring answers EAGAIN on a non-blocking descriptor, where it should wait.
    set_blocking(&edges.tun)?;
    let mut pump = Pump {
        ring: Ring::new(SUBMISSIONS, COMPLETIONS, &GROUPS, CONNECTIONS)?,
        uplinks: edges.streams.iter().map(|_| Uplink::default()).collect(),
        tun: edges.tun,
        streams: edges.streams,
        downlink: Downlink::new(),
        counts,
    };
    (0..)
        .zip(&pump.streams)
        .try_for_each(|(key, stream)| pump.ring.receive(stream.as_fd(), STREAMS, key))?;
    pump.ring.read(pump.tun.as_fd(), PACKETS, TUN)?;
    let mut done = Vec::new();
    loop {
        pump.ring.turn(true, &mut done)?;
        for (number, done) in done.drain(..).enumerate() {
            pump.complete(done)?;
            if number % TUN_BURST == TUN_BURST - 1 {
                pump.send()?;
            }
        }
        pump.send()?;
    }
}

struct Pump<'a> {
    ring: Ring,
    tun: File,
    streams: Vec<TcpStream>,
    uplinks: Vec<Uplink>,
    downlink: Downlink,
    counts: &'a Counts,
}

impl Pump<'_> {
    fn complete(&mut self, done: Done) -> io::Result<()> {
        match done {
            Done::Received {
                key,
                result,
                is_last,
            } => {
                match result {
                    Ok((id, len)) if key == TUN => {
                        let packet = self.ring.bytes(PACKETS, id, 0..len);
                        self.downlink.deliver(packet, self.counts);
                        self.ring.release(PACKETS, id);
                    }
                    Ok((id, len)) => self.received(index(key), id, len)?,
                    // Every buffer is in use: those of this turn come back, and it goes on.
                    Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                        return Err(closed());
                    }
                    Err(error) => return Err(error),
                }
                if is_last && key == TUN {
                    self.ring.read(self.tun.as_fd(), PACKETS, TUN)?;
                } else if is_last {
                    let stream = &self.streams[index(key)];
                    self.ring.receive(stream.as_fd(), STREAMS, key)?;
                }
            }
            Done::Sent { key, bytes, result } => {
                result?;
                let piece = Piece::again(bytes.into_vec());
                self.downlink.sent(index(key), piece);
            }
            Done::WriteFailed(error) => return Err(error),
        }
        Ok(())
    }

    /// Cuts what was received, and has each packet written from where it lies.
    fn received(&mut self, index: usize, id: u16, len: usize) -> io::Result<()> {
        let uplink = &mut self.uplinks[index];
        let (mut start, mut packets) = (0, 0);
        if uplink.has_begun() {
            let bytes = self.ring.bytes(STREAMS, id, 0..len);
            let Some((frame, rest)) = uplink.complete(bytes)? else {
                self.ring.release(STREAMS, id);
                self.counts.carried(0, 1);
                return Ok(());
            };
            start = len - rest.len();
            packets += 1;
            self.ring
                .write_copy(self.tun.as_fd(), &frame[HEADER_LEN..])?;
        }
        while let Some(frame_len) = traffic::frame_len(self.ring.bytes(STREAMS, id, start..len))? {
            let packet = start + HEADER_LEN..start + frame_len;
            self.ring.write(self.tun.as_fd(), STREAMS, id, packet)?;
            packets += 1;
            start += frame_len;
        }
        uplink.begin(self.ring.bytes(STREAMS, id, start..len));
        self.ring.release(STREAMS, id);
        self.counts.carried(packets, 1);
        Ok(())
    }

    fn send(&mut self) -> io::Result<()> {
        while let Some(index) = self.downlink.due() {
            let Some(piece) = self.downlink.take(index, self.counts) else {
                continue;
            };
            let key = u32::try_from(index).unwrap_or(u32::MAX);
            let stream = self.streams[index].as_fd();
            self.ring.send(stream, piece.bytes, piece.len, key)?;
        }
        Ok(())
    }
}

fn index(key: u32) -> usize {
    usize::try_from(key).unwrap_or(usize::MAX)
}
