//! `loadgen reflect`: the far end, on the network behind a gateway.
//!
//! One UDP port, one protocol ([`crate::payload`]): what a packet says it is for is done with it. An
//! echo goes back as it came, a sink is counted, a request for a stream is answered with packets at
//! planned times, a question for the tally with what was counted.
//!
//! Over TCP on the same port it receives and sends in bulk ([`crate::pattern`]).
//!
//! ```text
//!   receiver: recv ─▶ echo │ count │ tally ─▶ send        one thread
//!                └─ request ─▶ source: heap of streams ─▶ send at planned times, another
//!   listener: accept ─▶ receive and compare │ send       one more, and one a connection
//! ```
//!
//! It answers whoever asks, with up to what was asked for, so it belongs on a network of one's own.
//!
//! Limits: streams known at once, packets a second and seconds of one stream.

mod source;
mod tcp;

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::time::Duration;

use serde::Serialize;

use self::source::{Counts, Request};
use crate::connect;
use crate::flags::Reflect;
use crate::fleet::{Arrival, StreamRequest, StreamTally, Window};
use crate::payload::{HEADER_LEN, Header, Kind, Payload};
use crate::settings::Stop;

/// Streams that are counted at once; what comes of more is not.
const STREAMS_MAX: usize = 100_000;

/// How soon a thread sees that it shall end.
const END_INTERVAL: Duration = Duration::from_millis(100);

/// Bytes asked of the system for the socket's buffers; it may grant less.
const SOCKET_BUFFER: usize = 8 << 20;

/// No payload is longer.
const PAYLOAD_LEN_MAX: usize = 65_536;

const SCHEMA_VERSION: u32 = 1;

/// What came of it.
#[derive(Debug, Serialize)]
struct Report {
    schema_version: u32,
    version: &'static str,
    received: u64,
    received_bytes: u64,
    echoed: u64,
    counted: u64,
    duplicates: u64,
    reordered: u64,
    corrupted: u64,
    foreign: u64,
    sent: u64,
    sent_bytes: u64,
    /// Echoes, tallies and packets of streams that the system did not take.
    send_errors: u64,
    streams: usize,
    tcp: TcpReport,
}

/// What was moved over TCP.
#[derive(Debug, Serialize)]
struct TcpReport {
    connections: u64,
    refused: u64,
    received_bytes: u64,
    sent_bytes: u64,
    corrupted: u64,
    broken: u64,
}

/// What the receiver counts.
#[derive(Debug, Default)]
struct Totals {
    received: u64,
    received_bytes: u64,
    echoed: u64,
    counted: u64,
    duplicates: u64,
    reordered: u64,
    corrupted: u64,
    foreign: u64,
    send_errors: u64,
}

/// What is known of the stream of one session, both ways.
#[derive(Debug, Default)]
struct Stream {
    arrived: Window,
    tally: StreamTally,
    /// What is sent to it, once it has asked.
    source: Option<Arc<Counts>>,
}

/// Every stream, by run and session.
type Streams = HashMap<(u32, u32), Stream>;

/// Runs `loadgen reflect`.
pub(crate) fn run(flags: &Reflect) -> ExitCode {
    match try_run(flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Stop::Usage(message)) => {
            eprintln!("loadgen: {message}");
            ExitCode::from(2)
        }
        Err(Stop::Failed(message)) => {
            eprintln!("loadgen: {message}");
            ExitCode::FAILURE
        }
    }
}

fn try_run(flags: &Reflect) -> Result<(), Stop> {
    let failed = |what: &str| {
        let what = what.to_owned();
        move |error: io::Error| Stop::Failed(format!("{what}: {error}"))
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed("cannot wait for signals"))?;
    let mut signals = {
        let _entered = runtime.enter();
        crate::fleet::Signals::new().map_err(failed("cannot wait for signals"))?
    };
    let socket =
        open(flags.listen).map_err(failed(&format!("cannot listen on {}", flags.listen)))?;
    let address = socket
        .local_addr()
        .map_err(failed("the socket has no address"))?;
    // One port for both, so that a client has one far end to name.
    let listener =
        tcp::listen(address).map_err(failed(&format!("cannot listen on {address} for TCP")))?;
    let twin = || {
        socket
            .try_clone()
            .map_err(failed("cannot share the socket"))
    };
    let stop = Arc::new(AtomicBool::new(false));
    let failures = Arc::new(AtomicU64::new(0));

    let (requests, asked) = mpsc::channel();
    let pacer = source::Source::new(twin()?, flags.gso, Arc::clone(&failures));
    let pacer_stop = Arc::clone(&stop);
    let pacer = std::thread::spawn(move || pacer.run(&asked, &pacer_stop));
    let receiver = Receiver {
        socket: twin()?,
        requests,
        streams: HashMap::new(),
        totals: Totals::default(),
    };
    let transfers = Arc::new(tcp::Counts::default());
    let (of_listener, listener_stop) = (Arc::clone(&transfers), Arc::clone(&stop));
    // It ends with the process: it waits in accept, and its connections in read.
    std::thread::spawn(move || tcp::run(&listener, &of_listener, &listener_stop));
    let receiver_stop = Arc::clone(&stop);
    let receiver = std::thread::spawn(move || receiver.run(&receiver_stop));

    if !flags.quiet {
        connect::print(&format!("reflecting on {address}\n"));
    }
    runtime.block_on(signals.any());
    stop.store(true, Ordering::Release);
    let panicked =
        |_| Stop::Failed("a thread of loadgen panicked, which is our mistake".to_owned());
    let (totals, streams) = receiver
        .join()
        .map_err(panicked)?
        .map_err(failed("cannot receive"))?;
    pacer.join().map_err(panicked)?;
    let report = report(
        &totals,
        &streams,
        failures.load(Ordering::Relaxed),
        &transfers,
    );
    if let Some(path) = &flags.json {
        let mut text = serde_json::to_string_pretty(&report).unwrap_or_default();
        text.push('\n');
        std::fs::write(path, text).map_err(failed(&format!("cannot write {}", path.display())))?;
    }
    if !flags.quiet {
        connect::print(&format!(
            "{} received, {} echoed, {} counted, {} corrupted, {} foreign; {} sent in {} streams; \
             {} bytes received and {} sent over {} TCP connections, {} corrupted\n",
            report.received,
            report.echoed,
            report.counted,
            report.corrupted,
            report.foreign,
            report.sent,
            report.streams,
            report.tcp.received_bytes,
            report.tcp.sent_bytes,
            report.tcp.connections,
            report.tcp.corrupted,
        ));
    }
    Ok(())
}

fn report(totals: &Totals, streams: &Streams, failures: u64, transfers: &tcp::Counts) -> Report {
    let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let sources = || {
        streams
            .values()
            .filter_map(|stream| stream.source.as_deref())
    };
    Report {
        schema_version: SCHEMA_VERSION,
        version: env!("CARGO_PKG_VERSION"),
        received: totals.received,
        received_bytes: totals.received_bytes,
        echoed: totals.echoed,
        counted: totals.counted,
        duplicates: totals.duplicates,
        reordered: totals.reordered,
        corrupted: totals.corrupted,
        foreign: totals.foreign,
        sent: sources()
            .map(|counts| counts.sent.load(Ordering::Relaxed))
            .sum(),
        sent_bytes: sources()
            .map(|counts| counts.bytes.load(Ordering::Relaxed))
            .sum(),
        send_errors: totals.send_errors + failures,
        streams: sources().count(),
        tcp: TcpReport {
            connections: count(&transfers.connections),
            refused: count(&transfers.refused),
            received_bytes: count(&transfers.received_bytes),
            sent_bytes: count(&transfers.sent_bytes),
            corrupted: count(&transfers.corrupted),
            broken: count(&transfers.broken),
        },
    }
}

fn open(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(address),
        socket2::Type::DGRAM,
        Some(socket2::Protocol::UDP),
    )?;
    // Best effort: without it a burst is lost here and not in the gateway.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    socket.bind(&address.into())?;
    let socket = UdpSocket::from(socket);
    socket.set_read_timeout(Some(END_INTERVAL))?;
    Ok(socket)
}

/// Takes what comes.
struct Receiver {
    socket: UdpSocket,
    requests: Sender<Request>,
    streams: Streams,
    totals: Totals,
}

impl Receiver {
    /// Until it is stopped; what it counted.
    fn run(mut self, stop: &AtomicBool) -> io::Result<(Totals, Streams)> {
        let mut buffer = vec![0; PAYLOAD_LEN_MAX];
        while !stop.load(Ordering::Acquire) {
            match self.socket.recv_from(&mut buffer) {
                Ok((len, from)) => {
                    let payload = buffer.get(..len).unwrap_or_default();
                    self.handle(payload, from);
                }
                // Its time to look is up, or an ICMP error of an earlier send is told.
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock
                    | io::ErrorKind::TimedOut
                    | io::ErrorKind::Interrupted
                    | io::ErrorKind::ConnectionRefused
                    | io::ErrorKind::HostUnreachable
                    | io::ErrorKind::NetworkUnreachable => {}
                    _ => return Err(error),
                },
            }
        }
        Ok((self.totals, self.streams))
    }

    fn handle(&mut self, payload: &[u8], from: SocketAddr) {
        self.totals.received += 1;
        self.totals.received_bytes += payload.len() as u64;
        let header = match Header::open(payload) {
            Payload::Ours(header) => header,
            Payload::Damaged => {
                self.totals.corrupted += 1;
                return;
            }
            Payload::Foreign => {
                self.totals.foreign += 1;
                return;
            }
        };
        let body = payload.get(HEADER_LEN..).unwrap_or_default();
        match header.kind {
            Kind::Echo => {
                self.totals.echoed += 1;
                self.send(payload, from);
            }
            Kind::Sink => self.count(&header, payload.len()),
            Kind::Start => self.start(&header, body, from),
            Kind::Tally => self.tell(&header, from),
            // Ours alone to send.
            Kind::Source | Kind::Upload | Kind::Download => self.totals.foreign += 1,
        }
    }

    fn send(&mut self, payload: &[u8], to: SocketAddr) {
        if self.socket.send_to(payload, to).is_err() {
            self.totals.send_errors += 1;
        }
    }

    /// The stream that a packet belongs to, unless there are too many.
    fn stream(&mut self, header: &Header) -> Option<&mut Stream> {
        let key = (header.run, header.session);
        if self.streams.len() >= STREAMS_MAX && !self.streams.contains_key(&key) {
            return None;
        }
        Some(self.streams.entry(key).or_default())
    }

    fn count(&mut self, header: &Header, payload_len: usize) {
        let Some(stream) = self.stream(header) else {
            return;
        };
        let arrival = stream.arrived.arrive(header.sequence);
        let tally = &mut stream.tally;
        match arrival {
            Arrival::Duplicate => tally.duplicates += 1,
            Arrival::InOrder | Arrival::Late => {
                tally.received += 1;
                // As packets are counted at the other end: with their headers.
                tally.received_bytes += payload_len as u64 + IP_AND_UDP_LEN;
                tally.reordered += u64::from(arrival == Arrival::Late);
            }
            Arrival::TooOld => {}
        }
        self.totals.counted += 1;
        self.totals.duplicates += u64::from(arrival == Arrival::Duplicate);
        self.totals.reordered += u64::from(arrival == Arrival::Late);
    }

    fn start(&mut self, header: &Header, body: &[u8], from: SocketAddr) {
        let Some(request) = StreamRequest::parse(body) else {
            self.totals.corrupted += 1;
            return;
        };
        let counts = Arc::new(Counts::default());
        match self.stream(header) {
            // It asks again because its first packet is still on its way.
            Some(stream) if stream.source.is_none() => stream.source = Some(Arc::clone(&counts)),
            _ => return,
        }
        let (stream, sizes) = request;
        // The pacer outlives the receiver but for a panic, which is told at the end.
        let _ = self.requests.send(Request {
            to: from,
            run: header.run,
            session: header.session,
            stream,
            sizes,
            counts,
        });
    }

    fn tell(&mut self, header: &Header, from: SocketAddr) {
        let Some(stream) = self.streams.get(&(header.run, header.session)) else {
            return;
        };
        let mut tally = stream.tally;
        if let Some(counts) = &stream.source {
            tally.sent = counts.sent.load(Ordering::Relaxed);
            tally.sent_bytes = counts.bytes.load(Ordering::Relaxed);
        }
        let mut payload = vec![0; HEADER_LEN];
        payload.extend(tally.emit());
        header.seal(&mut payload);
        self.send(&payload, from);
    }
}

/// What lies before a payload on the wire, for IPv4.
const IP_AND_UDP_LEN: u64 = 28;
