//! The clients of a pump, and whoever is inside: what is fed to it, and what becomes of it.
//!
//! Saturated, the connections are kept full, or the device is. At a rate, packets come in bursts when
//! they are due, 4 of a connection up and 8 to a client down, and what is late is sent at once.

use std::io::{self, IoSlice, Write as _};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::{
    MMsgHdr, RecvFlags, SendAncillaryBuffer, SendFlags, SocketAddrAny, SocketAddrV4, sendmmsg,
};
use socket2::SockRef;

use crate::case::{Case, Direction};
use crate::traffic::{self, CONNECTIONS, INSIDE, PORT};

/// Packets of one burst on one connection.
const BURST_UP: usize = 4;
const BURST_DOWN: usize = 8;
/// What a client has ready to send: about so many bytes, whole frames.
const STREAM_LEN: usize = 64 << 10;
/// Bytes thrown away at a time.
const DISCARD_LEN: usize = 256 << 10;
/// How long to wait when nobody takes anything.
const PAUSE: Duration = Duration::from_micros(50);

/// Both sides of a pump.
#[derive(Debug)]
pub(crate) struct Clients {
    /// By client; non-blocking.
    pub(crate) streams: Vec<TcpStream>,
    /// Inside.
    pub(crate) inside: UdpSocket,
}

impl Clients {
    /// Connects all of them; each says which it is.
    pub(crate) fn connect(port: u16) -> io::Result<Self> {
        let mut streams = Vec::new();
        for index in 0..CONNECTIONS {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
            stream.set_nodelay(true)?;
            stream.write_all(&[u8::try_from(index).unwrap_or(u8::MAX)])?;
            stream.set_nonblocking(true)?;
            streams.push(stream);
        }
        let inside = UdpSocket::bind((INSIDE, PORT))?;
        Ok(Self { streams, inside })
    }

    /// Feeds the pump until `is_over`, until `deadline` at most.
    pub(crate) fn feed(
        &mut self,
        case: Case,
        is_over: &AtomicBool,
        deadline: Instant,
    ) -> io::Result<()> {
        let is_over = || is_over.load(Ordering::Relaxed) || Instant::now() >= deadline;
        let mut pace = case.rate.map(Pace::new);
        match case.direction {
            Direction::Up => self.feed_up(case.len, pace.as_mut(), is_over),
            Direction::Down => self.feed_down(case.len, pace.as_mut(), is_over),
        }
    }

    fn feed_up(
        &mut self,
        len: usize,
        mut pace: Option<&mut Pace>,
        is_over: impl Fn() -> bool,
    ) -> io::Result<()> {
        let frame_len = len + traffic::HEADER_LEN;
        let burst = pace.as_ref().map(|_| BURST_UP);
        let frames = burst.unwrap_or(STREAM_LEN / frame_len);
        let mut feeds: Vec<_> = (0..CONNECTIONS)
            .map(|index| Feed::new(index, frames, len))
            .collect();
        while !is_over() {
            let mut has_moved = false;
            for (stream, feed) in self.streams.iter_mut().zip(&mut feeds) {
                if let Some(pace) = &mut pace {
                    pace.wait(frames);
                }
                has_moved |= feed.send(stream)?;
            }
            if !has_moved {
                thread::sleep(PAUSE);
            }
        }
        Ok(())
    }

    fn feed_down(
        &self,
        len: usize,
        mut pace: Option<&mut Pace>,
        is_over: impl Fn() -> bool,
    ) -> io::Result<()> {
        let mut discard = vec![MaybeUninit::uninit(); DISCARD_LEN];
        let payloads: Vec<_> = (0..CONNECTIONS)
            .map(|index| traffic::payload(index, 0, len))
            .collect();
        while !is_over() {
            for (index, payload) in payloads.iter().enumerate() {
                if let Some(pace) = &mut pace {
                    pace.wait(BURST_DOWN);
                }
                send_burst(&self.inside, index, payload)?;
                // As often as it takes to keep the connections empty.
                if index % 16 == 0 {
                    self.discard(&mut discard)?;
                }
            }
        }
        Ok(())
    }

    /// Throws away what came, without a copy.
    fn discard(&self, buffer: &mut [MaybeUninit<u8>]) -> io::Result<()> {
        for stream in &self.streams {
            let flags = RecvFlags::TRUNC.bits().cast_signed();
            match SockRef::from(stream).recv_with_flags(buffer, flags) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Sends one burst of equal packets to a client.
fn send_burst(socket: &UdpSocket, index: usize, payload: &[u8]) -> io::Result<()> {
    let to = SocketAddr::from((traffic::client(index), PORT));
    let SocketAddr::V4(to) = to else {
        return Ok(());
    };
    let to: SocketAddrAny = SocketAddrV4::new(*to.ip(), to.port()).into();
    let bytes = [IoSlice::new(payload)];
    let mut controls: [_; BURST_DOWN] = std::array::from_fn(|_| SendAncillaryBuffer::default());
    let mut messages: Vec<_> = controls
        .iter_mut()
        .map(|control| MMsgHdr::new_with_addr(&to, &bytes, control))
        .collect();
    sendmmsg(socket, &mut messages, SendFlags::empty())?;
    Ok(())
}

/// Frames that one client sends over and over.
struct Feed {
    stream: Vec<u8>,
    /// Sent of it so far.
    start: usize,
}

impl Feed {
    fn new(index: usize, frames: usize, len: usize) -> Self {
        let mut stream = Vec::new();
        for _ in 0..frames {
            stream.extend(traffic::header(len));
            stream.extend(traffic::packet(index, 0, len));
        }
        Self { stream, start: 0 }
    }

    /// Sends the rest of it if there is room, and tells whether any of it went.
    fn send(&mut self, stream: &mut TcpStream) -> io::Result<bool> {
        match stream.write(&self.stream[self.start..]) {
            Ok(sent) => {
                self.start += sent;
                if self.start == self.stream.len() {
                    self.start = 0;
                }
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Packets become due at a rate, whatever became of those before.
struct Pace {
    begun: Instant,
    rate: u32,
    sent: u64,
}

impl Pace {
    fn new(rate: u32) -> Self {
        Self {
            begun: Instant::now(),
            rate,
            sent: 0,
        }
    }

    /// Waits until the next burst is due.
    fn wait(&mut self, packets: usize) {
        let due = Duration::from_nanos(self.sent * 1_000_000_000 / u64::from(self.rate));
        self.sent += packets as u64;
        let early = (self.begun + due).saturating_duration_since(Instant::now());
        if !early.is_zero() {
            thread::sleep(early);
        }
    }
}
