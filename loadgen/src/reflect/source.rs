//! Streams that were asked for: packets at planned times, several in one system call where they are
//! due together.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};

use datapath::sys::clock;
use datapath::time::{Duration, Instant};
use socket2::{MsgHdr, SockAddr, SockRef};

use crate::fleet::{Pace, Sizes, StreamRequest};
use crate::payload::{self, HEADER_LEN, Header, Kind};

/// Packets a second, and seconds, of one stream at most.
const RATE_MAX: f64 = 2e6;
const DURATION_MAX: Duration = Duration::from_secs(3600);

/// A stream whose start is further away than this is asked for by another clock; it starts at once.
const START_WITHIN: Duration = Duration::from_secs(10);

/// Longest sleep, so that a new stream and the end are seen.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Packets of one stream sent at a time, so that others are not kept waiting.
const BURST_MAX: u64 = 64;

/// Bytes of payload in one segmented send: what fits one UDP packet.
const SEGMENTED_LEN_MAX: usize = 65_507;

/// `UDP_SEGMENT` of linux/udp.h, at the level of UDP.
const SOL_UDP: i32 = 17;
const UDP_SEGMENT: i32 = 103;

/// What was sent of one stream; counted here, read by the receiver.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) sent: AtomicU64,
    pub(super) bytes: AtomicU64,
}

/// A stream that is asked for.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) to: SocketAddr,
    pub(super) run: u32,
    pub(super) session: u32,
    pub(super) stream: StreamRequest,
    pub(super) sizes: Sizes,
    pub(super) counts: Arc<Counts>,
}

/// A stream under way.
#[derive(Debug)]
struct Stream {
    request: Request,
    pace: Pace,
    end: Instant,
    next: u64,
}

/// Sends all streams.
pub(super) struct Source {
    socket: UdpSocket,
    /// Several packets in one system call, which the kernel cuts (UDP_SEGMENT).
    segmented: bool,
    failures: Arc<AtomicU64>,
    streams: Vec<Stream>,
    /// When each stream's next packet is planned.
    due: BinaryHeap<Reverse<(Instant, usize)>>,
    /// Payloads to be sent, and the length of each.
    bytes: Vec<u8>,
}

impl Source {
    pub(super) fn new(socket: UdpSocket, segmented: bool, failures: Arc<AtomicU64>) -> Self {
        Self {
            socket,
            segmented,
            failures,
            streams: Vec::new(),
            due: BinaryHeap::new(),
            bytes: Vec::new(),
        }
    }

    /// Until it is stopped or nobody can ask any more.
    pub(super) fn run(mut self, requests: &Receiver<Request>, stop: &AtomicBool) {
        while !stop.load(Ordering::Acquire) {
            loop {
                match requests.try_recv() {
                    Ok(request) => self.add(request),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return,
                }
            }
            self.send_due();
            let wait = match self.due.peek() {
                Some(Reverse((at, _))) => at.saturating_since(clock::now()).min(LOOK_INTERVAL),
                None => LOOK_INTERVAL,
            };
            if wait.is_zero() {
                continue;
            }
            match requests.recv_timeout(wait) {
                Ok(request) => self.add(request),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn add(&mut self, request: Request) {
        let now = clock::now();
        let asked = Instant::from_nanos(request.stream.start);
        let is_near = asked >= now && asked.saturating_since(now) <= START_WITHIN;
        let start = if is_near { asked } else { now };
        let rate = (request.stream.rate_milli as f64 / 1e3).clamp(0.001, RATE_MAX);
        let duration = Duration::from_millis(u64::from(request.stream.duration_ms));
        let stream = Stream {
            pace: Pace::new(start, rate),
            end: start + duration.min(DURATION_MAX),
            next: 0,
            request,
        };
        self.due.push(Reverse((start, self.streams.len())));
        self.streams.push(stream);
    }

    fn send_due(&mut self) {
        let now = clock::now();
        while let Some(&Reverse((at, index))) = self.due.peek() {
            if at > now {
                break;
            }
            self.due.pop();
            if let Some(next) = self.send_burst(now, index) {
                self.due.push(Reverse((next, index)));
            }
        }
    }

    /// Sends what is due of one stream; when its next packet is planned, if there is one.
    fn send_burst(&mut self, now: Instant, index: usize) -> Option<Instant> {
        let stream = self.streams.get_mut(index)?;
        let to = SockAddr::from(stream.request.to);
        let mut left = BURST_MAX;
        loop {
            let planned = stream.pace.at(stream.next);
            if planned >= stream.end {
                return None;
            }
            if planned > now || left == 0 {
                return Some(planned);
            }
            // As many of one size as may go together.
            let size = stream.size_of(stream.next);
            let payload_len = usize::from(size) - usize::from(payload::PACKET_LEN_MIN) + HEADER_LEN;
            let most = if self.segmented {
                SEGMENTED_LEN_MAX / payload_len
            } else {
                1
            };
            self.bytes.clear();
            let mut count = 0;
            while count < most && left > 0 {
                let planned = stream.pace.at(stream.next);
                if planned > now || planned >= stream.end || stream.size_of(stream.next) != size {
                    break;
                }
                stream.write(planned, size, &mut self.bytes);
                count += 1;
                left -= 1;
            }
            let sent = send(&self.socket, &self.bytes, &to, payload_len, count);
            let counts = &stream.request.counts;
            if sent.is_ok() {
                counts.sent.fetch_add(count as u64, Ordering::Relaxed);
                let bytes = count as u64 * u64::from(size);
                counts.bytes.fetch_add(bytes, Ordering::Relaxed);
            } else {
                self.failures.fetch_add(count as u64, Ordering::Relaxed);
            }
        }
    }
}

impl Stream {
    fn size_of(&self, number: u64) -> u16 {
        self.request
            .sizes
            .at(number + u64::from(self.request.session))
    }

    /// Appends the next payload.
    fn write(&mut self, planned: Instant, size: u16, bytes: &mut Vec<u8>) {
        let start = bytes.len();
        bytes.extend_from_slice(&[0; HEADER_LEN]);
        payload::append_body(size, bytes);
        let header = Header {
            kind: Kind::Source,
            run: self.request.run,
            session: self.request.session,
            sequence: self.next,
            planned: planned.as_nanos(),
        };
        self.next += 1;
        if let Some(payload) = bytes.get_mut(start..) {
            header.seal(payload);
        }
    }
}

/// Sends `count` payloads of `len` bytes each; the kernel cuts them if they are several.
fn send(
    socket: &UdpSocket,
    bytes: &[u8],
    to: &SockAddr,
    len: usize,
    count: usize,
) -> std::io::Result<()> {
    let buffers = [std::io::IoSlice::new(bytes)];
    let message = MsgHdr::new().with_addr(to).with_buffers(&buffers);
    let control = segment_control(len);
    let sent = if count > 1 {
        SockRef::from(socket).sendmsg(&message.with_control(&control), 0)?
    } else {
        SockRef::from(socket).sendmsg(&message, 0)?
    };
    debug_assert_eq!(sent, bytes.len(), "a datagram is sent whole or not at all");
    Ok(())
}

/// A control message that tells the length of a segment: cmsghdr (length, level, type) as the kernel
/// lays it out, two bytes of value, and padding.
fn segment_control(len: usize) -> Vec<u8> {
    let header_len = size_of::<usize>() + 8;
    let value = u16::try_from(len).unwrap_or(u16::MAX);
    let mut control = Vec::with_capacity(header_len + size_of::<usize>());
    control.extend_from_slice(&(header_len + 2).to_ne_bytes());
    control.extend_from_slice(&SOL_UDP.to_ne_bytes());
    control.extend_from_slice(&UDP_SEGMENT.to_ne_bytes());
    control.extend_from_slice(&value.to_ne_bytes());
    control.resize(header_len + size_of::<usize>(), 0);
    control
}
