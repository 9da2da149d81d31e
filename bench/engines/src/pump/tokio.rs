//! tokio's current_thread runtime, which is epoll: a task a connection, `AsyncFd` for the TUN.

use std::cell::RefCell;
use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::rc::Rc;
use std::sync::Arc;

use futures_util::future::select_all;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::{self, LocalSet};

use super::downlink::{Downlink, Piece};
use super::uplink::Uplink;
use super::{Counts, Edges, RECEIVE_LEN, TUN_BURST, closed};
use crate::sys;
use crate::traffic::PACKET_LEN_MAX;

pub(super) fn run(edges: Edges, counts: &Arc<Counts>) -> io::Result<Infallible> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    LocalSet::new().block_on(&runtime, pump(edges, Arc::clone(counts)))
}

/// What the tasks share.
struct Shared {
    tun: AsyncFd<File>,
    links: Vec<Link>,
    downlink: RefCell<Downlink>,
    /// Received into by whoever's turn it is.
    scratch: RefCell<Vec<u8>>,
    counts: Arc<Counts>,
}

struct Link {
    stream: TcpStream,
    /// What the socket did not take at once, and how much of it was sent.
    stuck: RefCell<Option<(Piece, usize)>>,
    is_stuck: Notify,
}

async fn pump(edges: Edges, counts: Arc<Counts>) -> io::Result<Infallible> {
    let mut links = Vec::new();
    for stream in edges.streams {
        stream.set_nonblocking(true)?;
        links.push(Link {
            stream: TcpStream::from_std(stream)?,
            stuck: RefCell::new(None),
            is_stuck: Notify::new(),
        });
    }
    let count = links.len();
    let shared = Rc::new(Shared {
        tun: sys::register(edges.tun)?,
        links,
        downlink: RefCell::new(Downlink::new()),
        scratch: RefCell::new(vec![0; RECEIVE_LEN]),
        counts,
    });
    let mut tasks = vec![task::spawn_local(down(Rc::clone(&shared)))];
    for index in 0..count {
        tasks.push(task::spawn_local(up(Rc::clone(&shared), index)));
        tasks.push(task::spawn_local(send_rest(Rc::clone(&shared), index)));
    }
    select_all(tasks).await.0?
}

async fn up(shared: Rc<Shared>, index: usize) -> io::Result<Infallible> {
    let stream = &shared.links[index].stream;
    let mut tun = shared.tun.get_ref();
    let mut uplink = Uplink::default();
    loop {
        stream.readable().await?;
        let mut scratch = shared.scratch.borrow_mut();
        match stream.try_read(&mut scratch) {
            Ok(0) => return Err(closed()),
            Ok(len) => uplink.received(&scratch[..len], &shared.counts, |packet| {
                tun.write(packet).map(|_| ())
            })?,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

async fn down(shared: Rc<Shared>) -> io::Result<Infallible> {
    let mut buffer = [0; PACKET_LEN_MAX];
    loop {
        let mut guard = shared.tun.readable().await?;
        for _ in 0..TUN_BURST {
            match guard.try_io(|tun| tun.get_ref().read(&mut buffer)) {
                Ok(len) => {
                    let mut downlink = shared.downlink.borrow_mut();
                    downlink.deliver(&buffer[..len?], &shared.counts);
                }
                Err(_would_block) => break,
            }
        }
        drop(guard);
        loop {
            let due = shared.downlink.borrow_mut().due();
            let Some(index) = due else { break };
            shared.send(index)?;
        }
    }
}

impl Shared {
    /// Sends what is gathered for connection `index`, unless something is under way; what the socket
    /// does not take goes to the connection's task.
    fn send(&self, index: usize) -> io::Result<()> {
        let piece = self.downlink.borrow_mut().take(index, &self.counts);
        let Some(piece) = piece else { return Ok(()) };
        let link = &self.links[index];
        let sent = match link.stream.try_write(&piece.bytes[..piece.len]) {
            Ok(sent) => sent,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        if sent == piece.len {
            self.downlink.borrow_mut().sent(index, piece);
        } else {
            *link.stuck.borrow_mut() = Some((piece, sent));
            link.is_stuck.notify_one();
        }
        Ok(())
    }
}

async fn send_rest(shared: Rc<Shared>, index: usize) -> io::Result<Infallible> {
    let link = &shared.links[index];
    loop {
        link.is_stuck.notified().await;
        let stuck = link.stuck.borrow_mut().take();
        let Some((piece, mut start)) = stuck else {
            continue;
        };
        while start < piece.len {
            link.stream.writable().await?;
            match link.stream.try_write(&piece.bytes[start..piece.len]) {
                Ok(sent) => start += sent,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        shared.downlink.borrow_mut().sent(index, piece);
        shared.send(index)?;
    }
}
