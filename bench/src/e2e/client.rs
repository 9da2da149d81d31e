//! A client of the harness: the data path's own session in the client role over a plain socket.
//!
//! No ring and no thread of its own: whoever makes the load drives thousands of these in one loop, and
//! decides for each whether a record carries one packet (as Windows and sstpc do) or as many as fit.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;

use datapath::io::{Loss, SendBuffer};
use datapath::ppp::link::AuthenticateeConfig;
use datapath::session::event::{DropReason, Event};
use datapath::session::policy::Question;
use datapath::session::transmit::{BUFFER_LEN, BufferSource, SMALL_BUFFER_LEN};
use datapath::session::{ClientSettings, Disposition, Edge, Habits, Limits, Session};
use datapath::sstp::Timing;
use datapath::sys::clock;
use datapath::sys::copy_and_sum;
use datapath::sys::entropy::SystemEntropy;
use datapath::time::Instant;
use datapath::tls::{ClientProfile, TlsOptions};
use rustls_pki_types::ServerName;
use zeroize::Zeroizing;

use super::gateway::{PASSWORD, USER};
use super::probe;

/// Sealed bytes that may wait for the socket; more is not sealed.
const OUT_LEN_MAX: usize = 256 << 10;

/// Receives in a row from one socket, so that others have their turn.
const RECEIVES_MAX: usize = 8;

/// What all clients are configured with.
pub(super) fn settings() -> io::Result<Arc<ClientSettings>> {
    let tls = ClientProfile::danger_accept_any(&TlsOptions::default()).map_err(io::Error::other)?;
    let server_name = ServerName::try_from("bench.example").map_err(io::Error::other)?;
    Ok(Arc::new(ClientSettings {
        tls: Arc::new(tls),
        server_name,
        host: "bench.example".to_owned(),
        proxy: None,
        timing: Timing::default(),
        link: Arc::new(AuthenticateeConfig {
            user: USER.as_bytes().to_vec(),
            password: Zeroizing::new(PASSWORD.to_owned()),
            ipv6: false,
            ..AuthenticateeConfig::default()
        }),
        limits: Limits::default(),
        habits: Habits::default(),
    }))
}

/// One client.
#[derive(Debug)]
pub(super) struct Client {
    stream: TcpStream,
    session: Session,
    inbox: Inbox,
    /// Sealed, and not yet taken by the socket from `out_at` on.
    out: Vec<u8>,
    out_at: usize,
    pub(super) record_per_packet: bool,
    is_shut: bool,
}

/// What came to a client.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    pub(super) packets: u64,
    pub(super) bytes: u64,
    /// Of its own, before they were sealed.
    pub(super) dropped: u64,
    /// Nanoseconds that probes were under way.
    pub(super) probes: Vec<u64>,
    free: Vec<SendBuffer>,
    ended: Option<String>,
}

impl Client {
    /// Opens a connection and says the first words.
    pub(super) fn connect(settings: &Arc<ClientSettings>, to: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(to)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let now = clock::now();
        let session = Session::connect(now, Arc::clone(settings), to).map_err(io::Error::other)?;
        let mut client = Self {
            stream,
            session,
            inbox: Inbox::default(),
            out: Vec::new(),
            out_at: 0,
            record_per_packet: false,
            is_shut: false,
        };
        client.session.connected(now, &mut client.inbox);
        client.flush(now)?;
        Ok(client)
    }

    pub(super) fn is_up(&self) -> bool {
        self.session.is_up() && self.address().is_some()
    }

    /// Its address in the tunnel.
    pub(super) fn address(&self) -> Option<Ipv4Addr> {
        self.session.addresses().ipv4
    }

    pub(super) const fn inbox(&mut self) -> &mut Inbox {
        &mut self.inbox
    }

    /// Why it is over, if it is.
    pub(super) fn ended(&self) -> Option<&str> {
        self.inbox.ended.as_deref()
    }

    /// Whether it takes another burst without keeping it to itself.
    pub(super) const fn is_idle(&self) -> bool {
        self.out.is_empty()
    }

    /// Takes a packet for the gateway; [`Client::flush`] sends it.
    pub(super) fn send(&mut self, now: Instant, packet: &[u8]) {
        self.session.send_packet(now, packet, &mut self.inbox);
        if self.record_per_packet || self.session.has_full_buffer() {
            self.seal(now);
        }
    }

    fn seal(&mut self, now: Instant) {
        while let Some(buffer) = self.session.poll_send(now, &mut self.inbox) {
            if let Some(bytes) = buffer.bytes.get(buffer.start..buffer.end) {
                self.out.extend_from_slice(bytes);
            }
            if buffer.bytes.len() == BUFFER_LEN {
                self.inbox.free.push(buffer);
            }
            self.session.sent(now, Ok(()), &mut self.inbox);
        }
    }

    /// Seals what waits, and gives the socket what it takes.
    pub(super) fn flush(&mut self, now: Instant) -> io::Result<()> {
        if self.out.len() - self.out_at < OUT_LEN_MAX {
            self.seal(now);
        }
        while let Some(rest) = self.out.get(self.out_at..).filter(|rest| !rest.is_empty()) {
            match self.stream.write(rest) {
                Ok(len) => self.out_at += len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.out.clear();
        self.out_at = 0;
        if self.session.disposition() == Disposition::Shutdown && !self.is_shut {
            self.is_shut = true;
            self.stream.shutdown(std::net::Shutdown::Write)?;
        }
        Ok(())
    }

    /// Takes what has come, acts on what is due, sends what follows from it.
    pub(super) fn step(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        let now = clock::now();
        for _ in 0..RECEIVES_MAX {
            match self.stream.read(buffer) {
                Ok(0) => {
                    self.session.receive_ended(Loss::Finished, &mut self.inbox);
                    break;
                }
                Ok(len) => {
                    if let Some(bytes) = buffer.get_mut(..len) {
                        self.session.receive(now, bytes, &mut self.inbox);
                    }
                    if len < buffer.len() {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        if self.session.next_timeout().is_some_and(|at| at <= now) {
            self.session.handle_timeout(now, &mut self.inbox);
        }
        self.flush(now)
    }
}

impl BufferSource for Inbox {
    fn large(&mut self) -> Option<SendBuffer> {
        Some(self.free.pop().unwrap_or_else(|| buffer(BUFFER_LEN)))
    }

    fn small(&mut self) -> SendBuffer {
        buffer(SMALL_BUFFER_LEN)
    }
}

fn buffer(len: usize) -> SendBuffer {
    SendBuffer {
        bytes: vec![0; len].into_boxed_slice(),
        start: 0,
        end: 0,
    }
}

impl Edge for Inbox {
    type Entropy = SystemEntropy;

    fn inside(&mut self, packet: &mut [u8]) {
        if let Some(sent_at) = probe::sent_at(packet) {
            self.probes.push(probe::age(sent_at));
            return;
        }
        self.packets += 1;
        self.bytes += packet.len() as u64;
    }

    fn ask(&mut self, _: Question) {}

    fn event(&mut self, event: Event) {
        if let Event::Ended(ended) = event {
            self.ended = Some(format!("{:?} {:?}", ended.reason, ended.detail));
        }
    }

    fn dropped(&mut self, _: DropReason) {
        self.dropped += 1;
    }

    fn entropy(&self) -> SystemEntropy {
        SystemEntropy
    }

    fn copy_and_sum(&self) -> datapath::ip::checksum::CopyAndSum {
        copy_and_sum::fastest()
    }

    fn take_stash(&mut self) -> Vec<u8> {
        Vec::new()
    }

    fn give_stash(&mut self, _: Vec<u8>) {}
}
