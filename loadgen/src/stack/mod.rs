//! A TCP/IP endpoint inside one session's tunnel, without the kernel: connections to hosts behind
//! the gateway, made of the IP packets that the session carries.
//!
//! ```text
//!   owner ── connect, write, read, finish ─▶ ┌───────┐ ── handle_timeout ─▶ packets to send
//!         ◀─ state, readable, writable ───── │ Stack │
//!         ── packets that came ────────────▶ └───────┘ ── next_timeout ───▶ when to call again
//! ```
//!
//! The state machine (RFC 9293, with window scaling, cubic congestion control, delayed and
//! duplicate acknowledgements) is smoltcp's. Nothing here reads a clock, sleeps or draws randomness:
//! the owner passes the time and a seed, hands over what came out of the tunnel and is handed what
//! goes in. UDP, ICMP errors and fragments are not looked at.
//!
//! Limits: packets that wait as an immediate answer, [`ANSWERS_MAX`]; two buffers a connection, as
//! long as it asks for. Lengths are bytes.

mod port;
mod sent;

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use datapath::time::{Duration, Instant};
use smoltcp::iface::{Config, Interface, PollResult, SocketHandle, SocketSet};
use smoltcp::socket::tcp;
use smoltcp::wire::{HardwareAddress, IpCidr, IpEndpoint};

use self::port::Port;

/// Ports that connections start from (RFC 6335 §6).
const EPHEMERAL_FIRST: u16 = 49_152;
const EPHEMERAL_COUNT: u16 = 16_384;

/// Answers to single packets (resets, challenges) that wait for the next turn; more are dropped, as
/// a slow line would.
const ANSWERS_MAX: usize = 64;

/// From the first SYN until a connection is given up.
const CONNECT_WITHIN: Duration = Duration::from_secs(20);

/// An open connection that is silent for the first is asked whether it lives, and given up after the
/// second.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
const SILENT_MAX: Duration = Duration::from_secs(100);

/// What a stack is made for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// Of IP packets: what the session may send.
    pub(crate) mtu: u16,
    /// Where ports and sequence numbers begin; anything that an outsider cannot guess.
    pub(crate) seed: u64,
}

/// Bytes that one connection may have under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    /// Received and not read yet: what the peer is offered.
    pub(crate) receive: usize,
    /// Written and not acknowledged yet.
    pub(crate) send: usize,
}

/// A connection of a stack. It is no copy, so none is used after its release.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Connection(SocketHandle);

/// What a connection has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// The far end has not answered yet.
    Opening,
    /// The far end may still send. Whether we may is our own affair.
    Open,
    /// The far end sends no more; what it sent may still be read, and we may write.
    HalfOpen,
    /// Both have said that they send no more.
    Finished,
    Failed(Failure),
}

/// Why a connection ended before both had finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    Refused,
    Unanswered,
    Reset,
    Silent,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "the far end refused the connection: nothing listens on that port, or a firewall rejects it",
            Self::Unanswered => "the far end did not answer: no such host, no route back to this session's address, or a firewall drops it",
            Self::Reset => "the far end reset the connection",
            Self::Silent => "the far end fell silent in the middle of the connection",
        })
    }
}

/// Why a connection could not be begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectError {
    /// The session was given no address of that family, or the address is no host's.
    Unreachable,
    /// All 16,384 ports are in use.
    NoPort,
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreachable => {
                "the session has no address of that family, or the far end's is no host's; \
                 see what the server gave it, and name another far end"
            }
            Self::NoPort => "all ports of the session's address are in use; close some connections",
        })
    }
}

/// What a connection was when last looked at.
#[derive(Debug)]
struct Known {
    handle: SocketHandle,
    port: u16,
    last: tcp::State,
    failure: Option<Failure>,
    /// Its owner wants no more of it.
    released: bool,
}

/// See the module.
pub(crate) struct Stack {
    port: Port,
    interface: Interface,
    sockets: SocketSet<'static>,
    known: Vec<Known>,
    next_port: u16,
    /// When it wants to be called; what was written or came in meanwhile makes that at once.
    timeout: Option<Instant>,
}

impl fmt::Debug for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stack")
            .field("connections", &self.known)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

impl Stack {
    /// An endpoint with these addresses, of which those that no host can have are left out.
    pub(crate) fn new(settings: &Settings, addresses: &[IpAddr], now: Instant) -> Self {
        let mut port = Port::new(settings.mtu);
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = settings.seed;
        let mut interface = Interface::new(config, &mut port.receiving(&[]), time(now));
        interface.update_ip_addrs(|list| {
            for &address in addresses {
                let len = if address.is_ipv4() { 32 } else { 128 };
                if is_host(address) {
                    // Only the first few fit; a session has two or three.
                    let _ = list.push(IpCidr::new(address.into(), len));
                }
            }
        });
        let offset = settings.seed % u64::from(EPHEMERAL_COUNT);
        Self {
            port,
            interface,
            sockets: SocketSet::new(Vec::new()),
            known: Vec::new(),
            next_port: EPHEMERAL_FIRST + u16::try_from(offset).unwrap_or(0),
            timeout: None,
        }
    }

    /// Begins a connection to `to`.
    pub(crate) fn connect(
        &mut self,
        to: SocketAddr,
        window: Window,
    ) -> Result<Connection, ConnectError> {
        let local = self.free_port().ok_or(ConnectError::NoPort)?;
        let mut own = self.interface.ip_addrs().iter().map(IpCidr::address);
        let has_family = own.any(|own| IpAddr::from(own).is_ipv4() == to.is_ipv4());
        if !has_family || !is_host(to.ip()) {
            return Err(ConnectError::Unreachable);
        }
        let mut socket = socket(window);
        socket.set_timeout(Some(span(CONNECT_WITHIN)));
        let to = IpEndpoint::new(to.ip().into(), to.port());
        socket
            .connect(self.interface.context(), to, local)
            .map_err(|_| ConnectError::Unreachable)?;
        self.port.sent.forget(local);
        Ok(self.add(socket, local))
    }

    /// Waits for one connection to `port`.
    #[cfg(test)]
    pub(crate) fn listen(&mut self, port: u16, window: Window) -> Connection {
        let mut socket = socket(window);
        socket.listen(port).expect("a port that is none but zero");
        self.add(socket, port)
    }

    fn add(&mut self, socket: tcp::Socket<'static>, port: u16) -> Connection {
        let last = socket.state();
        let handle = self.sockets.add(socket);
        self.known.push(Known {
            handle,
            port,
            last,
            failure: None,
            released: false,
        });
        self.timeout = Some(Instant::ZERO);
        Connection(handle)
    }

    fn free_port(&mut self) -> Option<u16> {
        for _ in 0..EPHEMERAL_COUNT {
            let port = self.next_port;
            let offset = (port - EPHEMERAL_FIRST + 1) % EPHEMERAL_COUNT;
            self.next_port = EPHEMERAL_FIRST + offset;
            if self.known.iter().all(|known| known.port != port) {
                return Some(port);
            }
        }
        None
    }

    /// What has become of a connection.
    pub(crate) fn state(&self, connection: &Connection) -> State {
        let socket = self.socket(connection);
        let known = self.known.iter().find(|known| known.handle == connection.0);
        if let Some(failure) = known.and_then(|known| known.failure) {
            return State::Failed(failure);
        }
        match socket.state() {
            tcp::State::Listen | tcp::State::SynSent | tcp::State::SynReceived => State::Opening,
            tcp::State::Established | tcp::State::FinWait1 | tcp::State::FinWait2 => State::Open,
            tcp::State::CloseWait | tcp::State::LastAck | tcp::State::Closing => State::HalfOpen,
            tcp::State::TimeWait | tcp::State::Closed => State::Finished,
        }
    }

    /// How many bytes could be read at once.
    pub(crate) fn readable(&self, connection: &Connection) -> usize {
        self.socket(connection).recv_queue()
    }

    /// Shows `take` what came, as far as it lies in one piece, and forgets as much as it answers;
    /// the answer again, and 0 when there is nothing (more).
    pub(crate) fn read(
        &mut self,
        connection: &Connection,
        take: impl FnOnce(&[u8]) -> usize,
    ) -> usize {
        let took = self.socket_mut(connection).recv(|bytes| {
            let taken = take(bytes).min(bytes.len());
            (taken, taken)
        });
        self.stirred(took.unwrap_or(0))
    }

    /// How many bytes could be written at once: none before it is open or after it is finished.
    pub(crate) fn writable(&self, connection: &Connection) -> usize {
        let socket = self.socket(connection);
        if socket.may_send() {
            socket.send_capacity() - socket.send_queue()
        } else {
            0
        }
    }

    /// Lets `fill` write into free room that lies in one piece; how much of it it did.
    pub(crate) fn write(
        &mut self,
        connection: &Connection,
        fill: impl FnOnce(&mut [u8]) -> usize,
    ) -> usize {
        let filled = self.socket_mut(connection).send(|room| {
            let filled = fill(room).min(room.len());
            (filled, filled)
        });
        self.stirred(filled.unwrap_or(0))
    }

    /// So many bytes were moved, after which there may be something to send.
    const fn stirred(&mut self, count: usize) -> usize {
        if count > 0 {
            self.timeout = Some(Instant::ZERO);
        }
        count
    }

    /// Bytes written that the far end has not acknowledged.
    pub(crate) fn unacknowledged(&self, connection: &Connection) -> usize {
        self.socket(connection).send_queue()
    }

    /// Says that no more will be written; what was is still delivered.
    pub(crate) fn finish(&mut self, connection: &Connection) {
        let socket = self.socket_mut(connection);
        let before = socket.state();
        socket.close();
        if socket.state() != before {
            self.timeout = Some(Instant::ZERO);
        }
    }

    /// Lets go of a connection; one that is not over is reset.
    pub(crate) fn release(&mut self, connection: Connection) {
        let Connection(handle) = connection;
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(handle);
        if socket.state() != tcp::State::TimeWait {
            socket.abort();
        }
        if let Some(known) = self.known.iter_mut().find(|known| known.handle == handle) {
            known.released = true;
        }
        self.timeout = Some(Instant::ZERO);
    }

    /// Data segments that were sent more than once, over all connections.
    pub(crate) const fn retransmitted(&self) -> u64 {
        self.port.sent.again()
    }

    /// A packet came out of the tunnel. Whatever it is, it does no harm.
    pub(crate) fn handle_packet(&mut self, now: Instant, packet: &[u8]) {
        self.interface.poll_ingress_single(
            time(now),
            &mut self.port.receiving(packet),
            &mut self.sockets,
        );
        self.note(Cause::Peer);
        self.timeout = Some(Instant::ZERO);
    }

    /// Hands what is to be sent to `send`, `room` packets at most.
    pub(crate) fn handle_timeout(
        &mut self,
        now: Instant,
        room: usize,
        mut send: impl FnMut(&[u8]),
    ) {
        let mut room = room;
        while room > 0
            && let Some(packet) = self.port.answers.pop_front()
        {
            send(&packet);
            room -= 1;
        }
        let mut device = self.port.sending(room, &mut send);
        while self
            .interface
            .poll_egress(time(now), &mut device, &mut self.sockets)
            != PollResult::None
        {}
        self.note(Cause::Time);
        self.bury();
        self.timeout = self.interface.poll_at(time(now), &self.sockets).map(|at| {
            let micros = u64::try_from(at.total_micros()).unwrap_or(0);
            Instant::from_nanos(micros.saturating_mul(1000))
        });
        if !self.port.answers.is_empty() {
            self.timeout = Some(Instant::ZERO);
        }
    }

    /// When [`Self::handle_timeout`] is to be called.
    pub(crate) const fn next_timeout(&self) -> Option<Instant> {
        self.timeout
    }

    /// Notes how connections changed, which tells who ended them.
    fn note(&mut self, cause: Cause) {
        for known in &mut self.known {
            let socket = self.sockets.get_mut::<tcp::Socket<'_>>(known.handle);
            let state = socket.state();
            if state == known.last {
                continue;
            }
            if matches!(known.last, tcp::State::SynSent | tcp::State::SynReceived)
                && state != tcp::State::Closed
            {
                socket.set_timeout(Some(span(SILENT_MAX)));
                socket.set_keep_alive(Some(span(KEEP_ALIVE)));
            }
            if state == tcp::State::Closed {
                known.failure = failure(known.last, cause);
            }
            known.last = state;
        }
    }

    /// Forgets those that are released and have said their last.
    fn bury(&mut self) {
        let sockets = &mut self.sockets;
        self.known.retain(|known| {
            let socket = sockets.get::<tcp::Socket<'_>>(known.handle);
            let is_gone = known.released
                && socket.state() == tcp::State::Closed
                && socket.remote_endpoint().is_none();
            if is_gone {
                sockets.remove(known.handle);
            }
            !is_gone
        });
    }

    fn socket(&self, connection: &Connection) -> &tcp::Socket<'static> {
        self.sockets.get(connection.0)
    }

    fn socket_mut(&mut self, connection: &Connection) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(connection.0)
    }
}

/// What a connection changed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Peer,
    Time,
}

/// Why a connection that was in `last` is closed now, if it was not as it should be.
const fn failure(last: tcp::State, cause: Cause) -> Option<Failure> {
    match (last, cause) {
        (tcp::State::SynSent, Cause::Peer) => Some(Failure::Refused),
        (tcp::State::SynSent, Cause::Time) => Some(Failure::Unanswered),
        (tcp::State::LastAck | tcp::State::TimeWait | tcp::State::Closing, Cause::Peer)
        | (tcp::State::TimeWait, Cause::Time) => None,
        (_, Cause::Peer) => Some(Failure::Reset),
        (_, Cause::Time) => Some(Failure::Silent),
    }
}

fn socket(window: Window) -> tcp::Socket<'static> {
    let buffer = |len: usize| tcp::SocketBuffer::new(vec![0; len.max(1)]);
    let mut socket = tcp::Socket::new(buffer(window.receive), buffer(window.send));
    socket.set_congestion_control(tcp::CongestionControl::Cubic);
    socket
}

/// Whether a host can have it.
fn is_host(address: IpAddr) -> bool {
    let is_broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    !address.is_unspecified() && !address.is_multicast() && !is_broadcast
}

fn time(now: Instant) -> smoltcp::time::Instant {
    let micros = i64::try_from(now.as_nanos() / 1000).unwrap_or(i64::MAX);
    smoltcp::time::Instant::from_micros(micros)
}

fn span(duration: Duration) -> smoltcp::time::Duration {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    smoltcp::time::Duration::from_micros(micros)
}

#[cfg(test)]
mod tests;
