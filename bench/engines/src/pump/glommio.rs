//! glommio: a task a connection on one executor.
//!
//! As its documentation has it: the TUN is a `BufferedFile`, each packet a `write_at` of a vector of
//! its own, all of one receive in flight at once, and 16 `read_at` wait for packets. Around it:
//! write(2); and one `read_at` to be woken by, then preadv2(2) that does not wait.

use std::cell::RefCell;
use std::convert::Infallible;
use std::fs::File;
use std::io::{self, IoSliceMut, Write as _};
use std::rc::Rc;
use std::sync::Arc;

use futures_lite::{AsyncReadExt as _, AsyncWriteExt as _};
use futures_util::future::{join_all, select_all};
use glommio::io::BufferedFile;
use glommio::net::TcpStream;
use glommio::{GlommioError, LocalExecutorBuilder, Placement};
use rustix::io::{Errno, ReadWriteFlags, preadv2};
use tokio::sync::Notify;

use super::downlink::{Downlink, Piece};
use super::uplink::Uplink;
use super::{Counts, Edges, RECEIVE_LEN, TUN_BURST, TUN_READS, closed, set_blocking};
use crate::sys;
use crate::traffic::PACKET_LEN_MAX;

pub(super) fn run(is_around: bool, edges: Edges, counts: &Arc<Counts>) -> io::Result<Infallible> {
    LocalExecutorBuilder::new(Placement::Fixed(edges.cpu))
        .make()
        .map_err(error_of)?
        .run(pump(is_around, edges, Arc::clone(counts)))
}

struct Shared {
    /// The device as glommio sees it, and as the system calls do.
    tun: BufferedFile,
    queue: File,
    is_around: bool,
    downlink: RefCell<Downlink>,
    is_due: Vec<Notify>,
    counts: Arc<Counts>,
}

async fn pump(is_around: bool, edges: Edges, counts: Arc<Counts>) -> io::Result<Infallible> {
    // A ring answers EAGAIN on a non-blocking descriptor, where it should wait.
    set_blocking(&edges.tun)?;
    let shared = Rc::new(Shared {
        queue: edges.tun.try_clone()?,
        tun: sys::adopt(edges.tun.into()),
        is_around,
        downlink: RefCell::new(Downlink::new()),
        is_due: edges.streams.iter().map(|_| Notify::new()).collect(),
        counts,
    });
    let mut tasks = Vec::new();
    for (index, stream) in edges.streams.into_iter().enumerate() {
        stream.set_nonblocking(true)?;
        let clone = stream.try_clone()?;
        let of = |stream| TcpStream::from(socket2_04::Socket::from(stream));
        tasks.push(glommio::spawn_local(up(Rc::clone(&shared), of(clone))));
        tasks.push(glommio::spawn_local(send(
            Rc::clone(&shared),
            of(stream),
            index,
        )));
    }
    for _ in 0..if is_around { 1 } else { TUN_READS } {
        tasks.push(glommio::spawn_local(down(Rc::clone(&shared))));
    }
    select_all(tasks).await.0
}

async fn up(shared: Rc<Shared>, mut stream: TcpStream) -> io::Result<Infallible> {
    let mut uplink = Uplink::default();
    let mut buffer = vec![0; RECEIVE_LEN];
    let mut queue = &shared.queue;
    loop {
        let len = stream.read(&mut buffer).await?;
        if len == 0 {
            return Err(closed());
        }
        let mut writes = Vec::new();
        uplink.received(&buffer[..len], &shared.counts, |packet| {
            if shared.is_around {
                return queue.write(packet).map(|_| ());
            }
            writes.push(shared.tun.write_at(packet.to_vec(), 0));
            Ok(())
        })?;
        for written in join_all(writes).await {
            written.map_err(error_of)?;
        }
        // Its sockets are read at once when they can be: without this the first would go on for ever.
        glommio::yield_if_needed().await;
    }
}

async fn down(shared: Rc<Shared>) -> io::Result<Infallible> {
    let mut buffer = [0; PACKET_LEN_MAX];
    loop {
        let read = shared.tun.read_at(0, PACKET_LEN_MAX).await;
        shared.deliver(&read.map_err(error_of)?);
        if shared.is_around {
            for _ in 1..TUN_BURST {
                let read = preadv2(
                    &shared.queue,
                    &mut [IoSliceMut::new(&mut buffer)],
                    0,
                    ReadWriteFlags::NOWAIT,
                );
                match read {
                    Ok(len) => shared.deliver(&buffer[..len]),
                    Err(Errno::AGAIN) => break,
                    Err(error) => return Err(error.into()),
                }
            }
        }
        let mut downlink = shared.downlink.borrow_mut();
        while let Some(index) = downlink.due() {
            shared.is_due[index].notify_one();
        }
    }
}

impl Shared {
    fn deliver(&self, packet: &[u8]) {
        self.downlink.borrow_mut().deliver(packet, &self.counts);
    }

    fn take(&self, index: usize) -> Option<Piece> {
        self.downlink.borrow_mut().take(index, &self.counts)
    }
}

/// Sends what is gathered for one connection, a piece at a time.
async fn send(shared: Rc<Shared>, mut stream: TcpStream, index: usize) -> io::Result<Infallible> {
    loop {
        while let Some(piece) = shared.take(index) {
            stream.write_all(&piece.bytes[..piece.len]).await?;
            shared.downlink.borrow_mut().sent(index, piece);
        }
        shared.is_due[index].notified().await;
    }
}

fn error_of(error: GlommioError<()>) -> io::Error {
    error.into()
}
