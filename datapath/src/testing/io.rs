//! The simulated driver: many [`SimIo`]s on one [`Network`], in virtual time, with faults.
//!
//! ```text
//!  harness: loop { turn every shard; if all is quiet: Network::advance() }
//!
//!  SimIo A ── connections: pipes with delay, cuts, short writes, resets ── SimIo B
//!     └─ TUN queue 0 ┐
//!  SimIo C ─ queue 1 ┴─ device: Network::inject → steering → queue;  write → Network::take_written
//! ```
//!
//! A turn never waits: it tells what has happened by now and remembers its deadline. Time moves
//! only by [`Network::advance`], to the nearest event or deadline. Faults are drawn from the
//! network's seed.
//!
//! A direction of a connection may have a [`Path`] with a rate; then its sender's kernel takes no further
//! send while it holds the unsent limit, and goes on when half of that is gone, as Linux does.
//!
//! Limits: a direction of a connection holds 256 KiB that were sent and not yet received.

mod network;

use std::cell::{RefCell, RefMut};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use self::network::State;
pub use self::network::{Faults, Flag, Path};
use super::clock::Clock;
use crate::io::{
    Completion, ConnectionId, Detached, DetachedConnection, Io, Loss, PathSeen, ReceiveBuffer,
    SendBuffer, TunQueue, TunRead, Waker,
};
use crate::time::{Duration, Instant};

/// Name of receive buffers that came with a [`Detached`] and belong to no pool.
const FOREIGN_BUFFER: u16 = u16::MAX;

/// A TUN device of the simulation, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceId(usize);

/// Everything the simulated hosts share; clones are the same network.
#[derive(Clone, Debug)]
pub struct Network(Rc<RefCell<State>>);

impl Network {
    /// A network whose every fault and delay follows from `seed`.
    #[must_use]
    pub fn new(seed: u64, faults: Faults) -> Self {
        Self(Rc::new(RefCell::new(State::new(seed, faults))))
    }

    fn state(&self) -> RefMut<'_, State> {
        self.0.borrow_mut()
    }

    /// The network's clock.
    #[must_use]
    pub fn clock(&self) -> Clock {
        self.0.borrow().clock.clone()
    }

    /// What time it is.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.0.borrow().clock.now()
    }

    /// Other faults from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.state().faults = faults;
    }

    /// Whether some host would be told something by a turn now, or its deadline has come.
    #[must_use]
    pub fn has_work(&self) -> bool {
        let mut state = self.state();
        state.run_due();
        state.has_work()
    }

    /// Moves time to the nearest event or deadline of a host; while a host still has work, time
    /// stands (turn them all before). Returns false if nothing will ever happen again by itself.
    #[must_use]
    pub fn advance(&self) -> bool {
        self.state().advance()
    }

    /// Moves time by `duration`, with all that happens meanwhile.
    pub fn advance_by(&self, duration: Duration) {
        let mut state = self.state();
        let until = state.clock.now() + duration;
        state.advance_until(until);
    }

    /// A hash over all completions told so far, to whom and when. Two runs with one seed agree.
    #[must_use]
    pub fn trace_hash(&self) -> u64 {
        self.0.borrow().trace
    }

    /// Makes a TUN device. `steer` says for a packet which queue gets it (modulo their number), as
    /// the steering program of the kernel would.
    pub fn add_device(&self, steer: impl Fn(&[u8]) -> usize + 'static) -> DeviceId {
        DeviceId(self.state().add_device(Box::new(steer)))
    }

    /// A packet comes from the inside to the device.
    pub fn inject(&self, device: DeviceId, packet: &[u8]) {
        self.state().inject(device.0, packet);
    }

    /// Takes what was written to the device since: queue and packet, in order.
    #[must_use]
    pub fn take_written(&self, device: DeviceId) -> Vec<(usize, Vec<u8>)> {
        self.state().take_written(device.0)
    }

    /// Packets that found a queue full and were dropped by the device.
    #[must_use]
    pub fn device_drops(&self, device: DeviceId) -> u64 {
        self.0.borrow().device_drops(device.0)
    }

    /// The device fails: reads and writes answer with `errno` from now on (EBADFD: it is gone).
    pub fn fail_device(&self, device: DeviceId, errno: i32) {
        self.state().fail_device(device.0, errno);
    }

    /// The next queue of `device`, for [`Io::replace_tun`].
    #[must_use]
    pub const fn queue_of(device: DeviceId) -> TunQueue {
        TunQueue::Simulated(device.0)
    }

    /// Breaks every connection that stands, as a failing path would.
    pub fn reset_all(&self) {
        self.state().reset_all();
    }

    /// Connection ends that still exist: 0 when everything was closed on both sides.
    #[must_use]
    pub fn end_count(&self) -> usize {
        self.0.borrow().end_count()
    }
}

/// What a simulated driver is made of.
#[derive(Clone, Debug)]
pub struct SimConfig {
    /// Addresses listened on. Several hosts may share one, as with SO_REUSEPORT.
    pub listeners: Vec<SocketAddr>,
    /// The TUN device whose next queue this host attaches.
    pub device: Option<DeviceId>,
    /// Receive buffers.
    pub receive_buffers: u16,
    /// Bytes of each.
    pub receive_buffer_len: usize,
    /// Connections at once.
    pub connections: usize,
    /// Where connections come from that name no source.
    pub address: std::net::IpAddr,
}

impl Default for SimConfig {
    fn default() -> Self {
        Self {
            listeners: Vec::new(),
            device: None,
            receive_buffers: 64,
            receive_buffer_len: 64 * 1024,
            connections: 16_384,
            address: std::net::Ipv4Addr::new(192, 0, 2, 1).into(),
        }
    }
}

/// One simulated driver.
#[derive(Debug)]
pub struct SimIo {
    network: Network,
    host: usize,
    flag: Arc<Flag>,
    now: Instant,
}

impl SimIo {
    /// Joins the network.
    #[must_use]
    pub fn new(network: &Network, config: &SimConfig) -> Self {
        let flag = Arc::new(Flag::default());
        let mut state = network.state();
        let host = state.add_host(config, config.device.map(|device| device.0), &flag);
        let now = state.clock.now();
        drop(state);
        Self {
            network: network.clone(),
            host,
            flag,
            now,
        }
    }

    /// The network it is on.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Whether a turn now would tell something, or the last turn's deadline has come.
    #[must_use]
    pub fn has_work(&self) -> bool {
        let mut state = self.network.state();
        state.run_due();
        state.host_has_work(self.host)
    }

    /// Connections it holds.
    #[must_use]
    pub fn connection_count(&self) -> usize {
        self.network.0.borrow().connection_count(self.host)
    }

    /// Receive buffers that are not with the shard.
    #[must_use]
    pub fn buffers_available(&self) -> usize {
        self.network.0.borrow().buffers_available(self.host)
    }

    /// From now on accepting fails with `errno` (EMFILE); `None` ends it, and those who waited are
    /// accepted.
    pub fn starve(&self, errno: Option<i32>) {
        self.network.state().starve(self.host, errno);
    }

    /// From now on what this end sends takes this path; `None`: one that takes any number of bytes.
    pub fn set_path(&self, connection: ConnectionId, path: Option<Path>) {
        let mut state = self.network.state();
        state.set_path(self.host, connection, path);
    }

    /// The program at this end stops reading (or begins to again), whatever its shard wants.
    pub fn stall(&self, connection: ConnectionId, stalled: bool) {
        let mut state = self.network.state();
        state.want_receive(self.host, connection, !stalled);
    }

    /// Breaks one connection, as its path would.
    pub fn break_connection(&self, connection: ConnectionId, loss: Loss) {
        self.network
            .state()
            .break_connection(self.host, connection, loss);
    }
}

impl Io for SimIo {
    fn now(&self) -> Instant {
        self.now
    }

    fn turn(
        &mut self,
        deadline: Option<Instant>,
        completions: &mut Vec<Completion>,
    ) -> io::Result<()> {
        let mut state = self.network.state();
        state.run_due();
        self.now = state.clock.now();
        state.turn(self.host, deadline, completions);
        Ok(())
    }

    fn release(&mut self, buffer: ReceiveBuffer) {
        if buffer.id != FOREIGN_BUFFER {
            self.network.state().release(self.host, buffer);
        }
    }

    fn send(&mut self, connection: ConnectionId, buffer: SendBuffer) {
        self.network.state().send(self.host, connection, buffer);
    }

    fn connect(&mut self, to: SocketAddr, source: Option<SocketAddr>) -> io::Result<ConnectionId> {
        self.network.state().connect(self.host, to, source)
    }

    fn pause_receive(&mut self, connection: ConnectionId) {
        self.network
            .state()
            .want_receive(self.host, connection, false);
    }

    fn resume_receive(&mut self, connection: ConnectionId) {
        self.network
            .state()
            .want_receive(self.host, connection, true);
    }

    fn set_unsent_limit(&mut self, connection: ConnectionId, bytes: usize) {
        let mut state = self.network.state();
        state.set_unsent_limit(self.host, connection, bytes);
    }

    fn path(&mut self, connection: ConnectionId) -> Option<PathSeen> {
        self.network.state().path_seen(self.host, connection)
    }

    fn set_rate_limit(&mut self, connection: ConnectionId, rate: u64) {
        let mut state = self.network.state();
        state.set_rate_limit(self.host, connection, rate);
    }

    fn shutdown(&mut self, connection: ConnectionId) {
        self.network.state().shutdown(self.host, connection);
    }

    fn close(&mut self, connection: ConnectionId, reset: bool) {
        self.network.state().close(self.host, connection, reset);
    }

    fn stop_accepting(&mut self) {
        self.network.state().stop_accepting(self.host);
    }

    fn detach(&mut self, connection: ConnectionId) -> Option<Detached> {
        let (end, received) = self.network.state().detach(self.host, connection)?;
        Some(Detached {
            connection: DetachedConnection::Simulated(end as u64),
            received,
        })
    }

    fn attach(&mut self, connection: Detached) -> io::Result<ConnectionId> {
        let DetachedConnection::Simulated(end) = connection.connection else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let end = usize::try_from(end).map_err(|_| io::ErrorKind::InvalidInput)?;
        self.network
            .state()
            .attach(self.host, end, connection.received)
    }

    fn tun_read(&mut self, buffer: &mut [u8]) -> TunRead {
        self.network.state().tun_read(self.host, buffer)
    }

    fn tun_write(&mut self, header: &[u8], packet: &[u8]) -> io::Result<()> {
        let whole = [header, packet].concat();
        self.network.state().tun_write(self.host, &whole)
    }

    fn replace_tun(&mut self, queue: TunQueue) -> io::Result<()> {
        let TunQueue::Simulated(device) = queue else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        self.network.state().replace_tun(self.host, device)
    }

    fn waker(&self) -> Waker {
        Waker::new(self.flag.clone())
    }
}

impl Drop for SimIo {
    /// As when a process dies: every connection is reset, every listener and queue is gone.
    fn drop(&mut self) {
        self.network.state().remove_host(self.host);
    }
}

/// Packets waiting, oldest first.
type Packets = VecDeque<Vec<u8>>;

#[cfg(test)]
mod tests;
