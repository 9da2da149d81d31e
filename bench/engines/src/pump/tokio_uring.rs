//! tokio-uring: a task a connection, every operation an owned buffer.
//!
//! As its documentation has it: the TUN is a file, each packet a `write_at` of a part of what was
//! received, without a copy and all of them in flight at once, and 16 `read_at` wait for packets.
//! Around it: write(2), and readiness from the epoll of the tokio runtime under it, then read(2).

use std::cell::RefCell;
use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;
use futures_util::future::{join_all, select_all};
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio_uring::buf::BoundedBuf as _;
use tokio_uring::net::TcpStream;

use super::downlink::{Downlink, Piece};
use super::uplink::Uplink;
use super::{Counts, Edges, RECEIVE_LEN, TUN_BURST, TUN_READS, closed, set_blocking};
use crate::sys;
use crate::traffic::{self, HEADER_LEN, PACKET_LEN_MAX};

/// Of the submission queue; of the completion queue, which must hold all that is in flight.
const ENTRIES: u32 = 1024;
const COMPLETIONS: u32 = 65_536;

pub(super) fn run(is_around: bool, edges: Edges, counts: &Arc<Counts>) -> io::Result<Infallible> {
    let mut ring = tokio_uring::uring_builder();
    ring.setup_cqsize(COMPLETIONS);
    let mut runtime = tokio_uring::builder();
    runtime.entries(ENTRIES).uring_builder(&ring);
    runtime.start(pump(is_around, edges, Arc::clone(counts)))
}

struct Shared {
    links: Vec<Link>,
    downlink: RefCell<Downlink>,
    counts: Arc<Counts>,
}

struct Link {
    stream: TcpStream,
    is_due: Notify,
}

async fn pump(is_around: bool, edges: Edges, counts: Arc<Counts>) -> io::Result<Infallible> {
    let link = |stream| Link {
        stream: TcpStream::from_std(stream),
        is_due: Notify::new(),
    };
    let links: Vec<_> = edges.streams.into_iter().map(link).collect();
    let count = links.len();
    let shared = Rc::new(Shared {
        links,
        downlink: RefCell::new(Downlink::new()),
        counts,
    });
    let mut tasks = Vec::new();
    for index in 0..count {
        tasks.push(tokio_uring::spawn(send(Rc::clone(&shared), index)));
    }
    if is_around {
        let tun = Rc::new(sys::register(edges.tun)?);
        tasks.push(tokio_uring::spawn(down_around(
            Rc::clone(&shared),
            Rc::clone(&tun),
        )));
        for index in 0..count {
            let up = up_around(Rc::clone(&shared), Rc::clone(&tun), index);
            tasks.push(tokio_uring::spawn(up));
        }
    } else {
        // A ring answers EAGAIN on a non-blocking descriptor, where it should wait.
        set_blocking(&edges.tun)?;
        let tun = Rc::new(tokio_uring::fs::File::from_std(edges.tun));
        for _ in 0..TUN_READS {
            tasks.push(tokio_uring::spawn(down(
                Rc::clone(&shared),
                Rc::clone(&tun),
            )));
        }
        for index in 0..count {
            let up = up(Rc::clone(&shared), Rc::clone(&tun), index);
            tasks.push(tokio_uring::spawn(up));
        }
    }
    select_all(tasks).await.0?
}

async fn up(
    shared: Rc<Shared>,
    tun: Rc<tokio_uring::fs::File>,
    index: usize,
) -> io::Result<Infallible> {
    let mut buffer = BytesMut::new();
    loop {
        // Takes the memory back that the last packets lay in; a frame begun moves to its start.
        buffer.reserve(RECEIVE_LEN);
        let begun = buffer.len();
        let (received, whole) = shared.links[index]
            .stream
            .read(buffer.slice(begun..begun + RECEIVE_LEN))
            .await;
        buffer = whole.into_inner();
        if received? == 0 {
            return Err(closed());
        }
        let mut writes = Vec::new();
        while let Some(len) = traffic::frame_len(&buffer)? {
            let packet = buffer.split_to(len).freeze().slice(HEADER_LEN..);
            writes.push(tun.write_at(packet, 0).submit());
        }
        let packets = writes.len() as u64;
        for (written, _) in join_all(writes).await {
            written?;
        }
        shared.counts.carried(packets, 1);
    }
}

async fn down(shared: Rc<Shared>, tun: Rc<tokio_uring::fs::File>) -> io::Result<Infallible> {
    let mut buffer = vec![0; PACKET_LEN_MAX];
    loop {
        let (read, whole) = tun.read_at(buffer, 0).await;
        buffer = whole;
        shared.deliver(&buffer[..read?]);
        shared.notify();
    }
}

async fn up_around(
    shared: Rc<Shared>,
    tun: Rc<AsyncFd<File>>,
    index: usize,
) -> io::Result<Infallible> {
    let mut tun = tun.get_ref();
    let mut uplink = Uplink::default();
    let mut buffer = vec![0; RECEIVE_LEN];
    loop {
        let (received, whole) = shared.links[index].stream.read(buffer).await;
        buffer = whole;
        match received? {
            0 => return Err(closed()),
            len => uplink.received(&buffer[..len], &shared.counts, |packet| {
                tun.write(packet).map(|_| ())
            })?,
        }
    }
}

async fn down_around(shared: Rc<Shared>, tun: Rc<AsyncFd<File>>) -> io::Result<Infallible> {
    let mut buffer = [0; PACKET_LEN_MAX];
    loop {
        let mut guard = tun.readable().await?;
        for _ in 0..TUN_BURST {
            match guard.try_io(|tun| tun.get_ref().read(&mut buffer)) {
                Ok(len) => shared.deliver(&buffer[..len?]),
                Err(_would_block) => break,
            }
        }
        shared.notify();
        // The others are due: what was read is sent before the next burst is.
        tokio::task::yield_now().await;
    }
}

impl Shared {
    fn deliver(&self, packet: &[u8]) {
        self.downlink.borrow_mut().deliver(packet, &self.counts);
    }

    fn notify(&self) {
        let mut downlink = self.downlink.borrow_mut();
        while let Some(index) = downlink.due() {
            self.links[index].is_due.notify_one();
        }
    }

    fn take(&self, index: usize) -> Option<Piece> {
        self.downlink.borrow_mut().take(index, &self.counts)
    }
}

/// Sends what is gathered for one connection, a piece at a time.
async fn send(shared: Rc<Shared>, index: usize) -> io::Result<Infallible> {
    let link = &shared.links[index];
    loop {
        while let Some(piece) = shared.take(index) {
            let (len, bytes) = (piece.len, piece.bytes.into_vec());
            let (sent, whole) = link.stream.write_all(bytes.slice(..len)).await;
            sent?;
            let piece = Piece::again(whole.into_inner());
            shared.downlink.borrow_mut().sent(index, piece);
        }
        link.is_due.notified().await;
    }
}
