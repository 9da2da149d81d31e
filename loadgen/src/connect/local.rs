//! This host's end of a session without root: the sockets that are forwarded, and the signals that end
//! it, on a thread of their own.
//!
//! ```text
//!  program ── TCP ──▶ task ── chunks, bounded ──▶ ┌──────────────────┐
//!          ◀─ TCP ── task ◀─ chunks, bounded ──── │ tunnels::Tunnels │ in the shard's thread
//!                       └─────── wakes ─────────▶ └──────────────────┘
//! ```
//!
//! The shard never waits for this thread: it takes what is there, leaves what there is room for, and is
//! woken when either changes. Limits: [`CONNECTIONS_MAX`] connections, [`CHUNKS_MAX`] chunks of
//! [`CHUNK_LEN`] bytes each way of each.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use datapath::io::Waker;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::forward::Forward;
use crate::fleet::Signals;

/// Forwarded connections at once; more wait in the listener's queue.
pub(super) const CONNECTIONS_MAX: usize = 64;

/// Bytes read from a socket in one go.
pub(super) const CHUNK_LEN: usize = 16 * 1024;

/// Chunks that may lie between the two threads, a connection and direction.
const CHUNKS_MAX: usize = 4;

/// After a listener could not accept: too many open files, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The tunnel's end of one connection. Dropping an end of a channel says that no more comes, or is
/// wanted.
#[derive(Debug)]
pub(crate) struct Pipe {
    pub(super) from_local: mpsc::Receiver<Vec<u8>>,
    pub(super) to_local: mpsc::Sender<Vec<u8>>,
    pub(super) fault: Fault,
}

/// Whether a connection is to be reset instead of finished; whoever sees the reason says so before it
/// drops its end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fault(Arc<AtomicBool>);

impl Fault {
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// How many times somebody wanted an end: by the first, politely; by the second, at once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interrupts(Arc<AtomicU8>);

impl Interrupts {
    pub(crate) fn count(&self) -> u8 {
        self.0.load(Ordering::Acquire)
    }

    #[cfg(test)]
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

/// A program connected to a forwarded port.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(super) to: SocketAddr,
    pub(super) pipe: Pipe,
}

/// Listeners that are bound and not served yet.
#[derive(Debug, Default)]
pub(super) struct Bound(Vec<(TcpListener, SocketAddr)>);

/// The thread; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Local {
    interrupts: Interrupts,
    arrivals: Option<mpsc::Receiver<Arrived>>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Bound {
    /// Binds every port; tells which one cannot be.
    pub(super) fn new(forwards: &[Forward]) -> Result<Self, String> {
        let bind = |forward: &Forward| {
            let listener = TcpListener::bind(forward.bind)
                .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
                .map_err(|error| format!("cannot listen on {}: {error}", forward.bind))?;
            Ok((listener, forward.to))
        };
        Ok(Self(
            forwards.iter().map(bind).collect::<Result<_, String>>()?,
        ))
    }

    /// Where it listens, now that ports are chosen.
    pub(super) fn forwards(&self) -> Vec<Forward> {
        let forward = |(listener, to): &(TcpListener, SocketAddr)| {
            let bind = listener.local_addr().ok()?;
            Some(Forward { bind, to: *to })
        };
        self.0.iter().filter_map(forward).collect()
    }
}

impl Local {
    /// Serves `bound`, and waits for signals; `waker` ends the shard's wait.
    pub(super) fn start(bound: Bound, waker: Waker) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let interrupts = Interrupts::default();
        let (tell, arrivals) = mpsc::channel(1);
        let (end, ended) = oneshot::channel();
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut listeners = Vec::new();
        let mut signals = {
            let _entered = runtime.enter();
            for (listener, to) in bound.0 {
                listeners.push((tokio::net::TcpListener::from_std(listener)?, to));
            }
            Signals::new()?
        };
        let count = interrupts.clone();
        let work = async move {
            for (listener, to) in listeners {
                let door = Door {
                    to,
                    tell: tell.clone(),
                    room: Arc::clone(&room),
                    waker: waker.clone(),
                };
                tokio::spawn(door.serve(listener));
            }
            let count_signals = async {
                loop {
                    signals.any().await;
                    count.0.fetch_add(1, Ordering::AcqRel);
                    waker.wake();
                }
            };
            tokio::select! {
                () = count_signals => {}
                _ = ended => {}
            }
        };
        let thread = std::thread::Builder::new()
            .name("local".to_owned())
            .spawn(move || runtime.block_on(work))?;
        Ok(Self {
            interrupts,
            arrivals: Some(arrivals),
            end: Some(end),
            thread: Some(thread),
        })
    }

    /// Counts the signals.
    pub(super) fn interrupts(&self) -> Interrupts {
        self.interrupts.clone()
    }

    /// Who connects; once.
    pub(super) fn take_arrivals(&mut self) -> Option<mpsc::Receiver<Arrived>> {
        self.arrivals.take()
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        if let Some(end) = self.end.take() {
            // It may have ended already.
            let _ = end.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One port, and whom it tells of what comes through it.
struct Door {
    to: SocketAddr,
    tell: mpsc::Sender<Arrived>,
    room: Arc<Semaphore>,
    waker: Waker,
}

impl Door {
    async fn serve(self, listener: tokio::net::TcpListener) {
        loop {
            let Ok(permit) = Arc::clone(&self.room).acquire_owned().await else {
                return;
            };
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            // Until the far end has finished in order, whatever closes this connection resets it: a
            // session that is lost must not look like the end of a file.
            let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            let (to_tunnel, from_local) = mpsc::channel(CHUNKS_MAX);
            let (to_local, from_tunnel) = mpsc::channel(CHUNKS_MAX);
            let fault = Fault::default();
            let pipe = Pipe {
                from_local,
                to_local,
                fault: fault.clone(),
            };
            let arrived = Arrived { to: self.to, pipe };
            if self.tell.send(arrived).await.is_err() {
                return;
            }
            self.waker.wake();
            let end = End {
                stream,
                fault,
                waker: self.waker.clone(),
            };
            tokio::spawn(async move {
                tokio::join!(end.read(to_tunnel), end.write(from_tunnel));
                drop(permit);
            });
        }
    }
}

/// This host's end of one connection.
struct End {
    stream: TcpStream,
    fault: Fault,
    waker: Waker,
}

impl End {
    /// Carries what the program writes, until it finishes or the tunnel wants no more.
    async fn read(&self, to_tunnel: mpsc::Sender<Vec<u8>>) {
        let mut chunk = vec![0; CHUNK_LEN];
        // Nothing is read before there is room for it: the program waits when the tunnel does.
        while let Ok(room) = to_tunnel.reserve().await {
            let ready = tokio::select! {
                () = to_tunnel.closed() => break,
                ready = self.stream.readable() => ready,
            };
            match ready.and_then(|()| self.stream.try_read(&mut chunk)) {
                Ok(0) => break,
                Ok(len) => {
                    room.send(chunk.get(..len).unwrap_or_default().to_vec());
                    self.waker.wake();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => {
                    self.fault.set();
                    break;
                }
            }
        }
        drop(to_tunnel);
        self.waker.wake();
    }

    /// Carries what comes out of the tunnel, until its end.
    async fn write(&self, mut from_tunnel: mpsc::Receiver<Vec<u8>>) {
        while let Some(chunk) = from_tunnel.recv().await {
            self.waker.wake();
            if self.write_all(&chunk).await.is_err() {
                self.fault.set();
                drop(from_tunnel);
                self.waker.wake();
                return;
            }
        }
        if !self.fault.is_set() {
            let socket = SockRef::from(&self.stream);
            // The program may be gone already, and then nothing is owed to it.
            let _ = socket.set_linger(None);
            let _ = socket.shutdown(std::net::Shutdown::Write);
        }
    }

    async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.stream.writable().await?;
            match self.stream.try_write(bytes) {
                Ok(len) => bytes = bytes.get(len..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
