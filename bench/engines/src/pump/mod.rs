//! The pump: a process of its own, with one thread that does on one engine what a shard of the gateway
//! does without TLS, and another that measures it.
//!
//! ```text
//!  uplink     receive → cut into frames → write each packet to the TUN
//!  downlink   read the TUN → header, gather by owner → one send a connection at a time
//! ```

mod downlink;
mod driver;
mod glommio;
mod tokio;
mod tokio_uring;
mod uplink;
mod uring;

use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Read as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use datapath::sys::affinity;
use datapath::sys::driver::Choice;
use datapath::sys::uring::Rung;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use crate::engine::Engine;
use crate::meter::Meter;
use crate::rig;
use crate::traffic::CONNECTIONS;

/// Bytes received at a time, at most.
const RECEIVE_LEN: usize = 64 << 10;
/// Packets read from the TUN before what was read is sent.
const TUN_BURST: usize = 64;
/// Reads that wait for packets at once, where a read is a request and not a call.
const TUN_READS: usize = 16;

/// What to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    pub(crate) engine: Engine,
    /// The processor of the pump, and that of all else.
    pub(crate) cpu: usize,
    pub(crate) beside: usize,
    pub(crate) warm_up: Duration,
    pub(crate) slice: Duration,
}

/// What a pump stands between.
struct Edges {
    /// Non-blocking.
    tun: File,
    /// By client; blocking.
    streams: Vec<TcpStream>,
    /// The processor that the thread is kept on.
    cpu: usize,
}

/// What was carried.
#[derive(Debug, Default)]
struct Counts {
    packets: AtomicU64,
    calls: AtomicU64,
    dropped: AtomicU64,
}

/// [`Counts`] at one time.
#[derive(Clone, Copy, Debug, Default)]
struct Carried {
    packets: u64,
    /// Receives that brought something, or sends.
    calls: u64,
    dropped: u64,
}

impl Counts {
    fn carried(&self, packets: u64, calls: u64) {
        add(&self.packets, packets);
        add(&self.calls, calls);
    }

    fn dropped(&self) {
        add(&self.dropped, 1);
    }

    fn read(&self) -> Carried {
        Carried {
            packets: self.packets.load(Ordering::Relaxed),
            calls: self.calls.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
        }
    }
}

/// Only the pump's thread adds, so nobody has to lock the bus for it.
fn add(counter: &AtomicU64, count: u64) {
    counter.store(counter.load(Ordering::Relaxed) + count, Ordering::Relaxed);
}

/// Runs a pump and measures it. Prints the port for the clients and the name of the device, then, on
/// the second line, what was measured; ends when that is done, or when standard input does.
pub(crate) fn run(options: Options) -> io::Result<()> {
    die_with_parent()?;
    let (tun, device) = rig::device()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{} {device}", listener.local_addr()?.port());
    let edges = Edges {
        tun,
        streams: accept(&listener)?,
        cpu: options.cpu,
    };
    let counts = Arc::new(Counts::default());
    let (tell, told) = mpsc::channel();
    let pumped = Arc::clone(&counts);
    thread::Builder::new()
        .name("pump".to_owned())
        .spawn(move || {
            let pinned = affinity::pin(options.cpu).map_err(io::Error::other);
            let Err(error) = pinned.and_then(|()| pump(options.engine, edges, &pumped));
            let _ = tell.send(error);
        })?;
    affinity::pin(options.beside).map_err(io::Error::other)?;
    wait(&told, options.warm_up)?;
    let mut meter = Meter::new(options.cpu)?;
    let (begun, before) = (meter.read()?, counts.read());
    wait(&told, options.slice)?;
    let (ended, after) = (meter.read()?, counts.read());
    let mut sample = ended.since(&begun);
    sample.packets = after.packets - before.packets;
    sample.calls = after.calls - before.calls;
    sample.dropped = after.dropped - before.dropped;
    println!("{}", serde_json::to_string(&sample)?);
    Ok(())
}

/// Waits for `time`; the pump's error, if it ends before.
fn wait(told: &mpsc::Receiver<io::Error>, time: Duration) -> io::Result<()> {
    match told.recv_timeout(time) {
        Ok(error) => Err(error),
        Err(RecvTimeoutError::Timeout) => Ok(()),
        Err(RecvTimeoutError::Disconnected) => Err(io::Error::other("the pump panicked")),
    }
}

fn pump(engine: Engine, edges: Edges, counts: &Arc<Counts>) -> io::Result<Infallible> {
    match engine {
        Engine::IoUring => driver::run(Choice::IoUring(Rung::NoArray), edges, counts),
        Engine::IoUringSqes => uring::run(edges, counts),
        Engine::Epoll => driver::run(Choice::Epoll, edges, counts),
        Engine::Tokio => tokio::run(edges, counts),
        Engine::TokioUring => tokio_uring::run(false, edges, counts),
        Engine::TokioUringAround => tokio_uring::run(true, edges, counts),
        Engine::Glommio => glommio::run(false, edges, counts),
        Engine::GlommioAround => glommio::run(true, edges, counts),
    }
}

/// Ends the process when standard input ends, which it does when whoever started it is gone.
fn die_with_parent() -> io::Result<()> {
    let watch = || {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        #[expect(clippy::exit, reason = "nobody is left to tell")]
        std::process::exit(1);
    };
    thread::Builder::new()
        .name("watch".to_owned())
        .spawn(watch)?;
    Ok(())
}

/// Accepts all clients; each says first which it is.
fn accept(listener: &TcpListener) -> io::Result<Vec<TcpStream>> {
    let mut streams: Vec<Option<TcpStream>> = (0..CONNECTIONS).map(|_| None).collect();
    for _ in 0..CONNECTIONS {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let mut index = [0];
        stream.read_exact(&mut index)?;
        let place = streams.get_mut(usize::from(index[0]));
        *place.ok_or_else(closed)? = Some(stream);
    }
    let streams: Option<Vec<_>> = streams.into_iter().collect();
    streams.ok_or_else(closed)
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "a client is gone")
}

fn set_blocking(file: &File) -> io::Result<()> {
    let flags = fcntl_getfl(file)?;
    Ok(fcntl_setfl(file, flags - OFlags::NONBLOCK)?)
}
