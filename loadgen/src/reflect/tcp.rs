//! The far end of transfers over TCP: receives what is sent up and compares it, sends what is asked
//! for. One thread a connection, for they are hundreds and not thousands.
//!
//! Limits: connections at once, seconds of silence.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use datapath::sys::clock;
use datapath::time::Duration;
use socket2::{Domain, Protocol, Socket, Type};

use crate::pattern::{REQUEST_LEN, Request, Verdict};
use crate::payload::Kind;

/// Connections at once; one more is closed at its beginning.
const CONNECTIONS_MAX: u64 = 4096;

/// A connection that moves nothing for so long is over.
const SILENT_MAX: Duration = Duration::from_secs(60);

const DURATION_MAX: Duration = Duration::from_secs(3600);

/// How long a queue of connections that nobody has accepted yet may get.
const BACKLOG: i32 = 1024;

/// Bytes read or written at a time, and of a thread's stack.
const BUFFER_LEN: usize = 256 << 10;
const STACK_LEN: usize = 128 << 10;

/// What all transfers came to.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) connections: AtomicU64,
    pub(super) open: AtomicU64,
    /// Refused for their number, or for what they asked.
    pub(super) refused: AtomicU64,
    pub(super) received_bytes: AtomicU64,
    pub(super) sent_bytes: AtomicU64,
    /// Transfers up in which a byte was not the right one.
    pub(super) corrupted: AtomicU64,
    /// Ended by an error, such as a reset.
    pub(super) broken: AtomicU64,
}

pub(super) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Takes connections until it is stopped, which the next one that comes tells it.
pub(super) fn run(listener: &TcpListener, counts: &Arc<Counts>, stop: &AtomicBool) {
    for connection in listener.incoming() {
        if stop.load(Ordering::Acquire) {
            return;
        }
        // The peer may be gone already, or this process may have no descriptor left.
        let Ok(connection) = connection else {
            counts.broken.fetch_add(1, Ordering::Relaxed);
            continue;
        };
        counts.connections.fetch_add(1, Ordering::Relaxed);
        if counts.open.fetch_add(1, Ordering::AcqRel) >= CONNECTIONS_MAX {
            counts.open.fetch_sub(1, Ordering::AcqRel);
            counts.refused.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        let of_thread = Arc::clone(counts);
        let thread = std::thread::Builder::new().stack_size(STACK_LEN);
        let spawned = thread.spawn(move || {
            if serve(connection, &of_thread).is_err() {
                of_thread.broken.fetch_add(1, Ordering::Relaxed);
            }
            of_thread.open.fetch_sub(1, Ordering::AcqRel);
        });
        if spawned.is_err() {
            counts.open.fetch_sub(1, Ordering::AcqRel);
            counts.refused.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn serve(mut connection: TcpStream, counts: &Counts) -> io::Result<()> {
    connection.set_read_timeout(Some(SILENT_MAX))?;
    connection.set_write_timeout(Some(SILENT_MAX))?;
    let mut message = [0; REQUEST_LEN];
    connection.read_exact(&mut message)?;
    match Request::parse(&message) {
        Some(request) if request.kind == Kind::Upload => receive(connection, &request, counts),
        Some(request) => send(connection, &request, counts),
        None => {
            counts.refused.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
    }
}

/// Reads to the end of the upload, and says what it was.
fn receive(mut connection: TcpStream, request: &Request, counts: &Counts) -> io::Result<()> {
    let mut pattern = request.pattern();
    let mut buffer = vec![0; BUFFER_LEN];
    let mut right = None;
    loop {
        let len = match connection.read(&mut buffer) {
            Ok(0) => break,
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let before = pattern.at();
        let bytes = buffer.get(..len).unwrap_or_default();
        if !pattern.check(bytes) && right.is_none() {
            right = Some(before);
            counts.corrupted.fetch_add(1, Ordering::Relaxed);
        }
        counts
            .received_bytes
            .fetch_add(len as u64, Ordering::Relaxed);
    }
    let verdict = Verdict {
        run: request.run,
        session: request.session,
        received: pattern.at(),
        damaged: right.map_or(0, |right| pattern.at() - right),
    };
    connection.write_all(&verdict.emit())?;
    connection.shutdown(Shutdown::Write)
}

/// Sends until the time is up or the bytes are sent, and waits for the peer's end.
fn send(mut connection: TcpStream, request: &Request, counts: &Counts) -> io::Result<()> {
    let duration = Duration::from_millis(u64::from(request.duration_ms));
    let duration = if duration.is_zero() {
        DURATION_MAX
    } else {
        duration.min(DURATION_MAX)
    };
    let end = clock::now() + duration;
    let mut left = if request.bytes == 0 {
        u64::MAX
    } else {
        request.bytes
    };
    let mut pattern = request.pattern();
    let mut buffer = vec![0; BUFFER_LEN];
    while left > 0 && clock::now() < end {
        let len = usize::try_from(left).unwrap_or(BUFFER_LEN).min(BUFFER_LEN);
        let bytes = buffer.get_mut(..len).unwrap_or_default();
        pattern.fill(bytes);
        connection.write_all(bytes)?;
        counts.sent_bytes.fetch_add(len as u64, Ordering::Relaxed);
        left -= len as u64;
    }
    connection.shutdown(Shutdown::Write)?;
    // Closed before it has read all, this end would reset what is still on its way.
    while connection.read(&mut buffer)? > 0 {}
    Ok(())
}
