//! A server and a client of it, both running, and what their transfers cost.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use super::super::cpu::Meter;
use super::super::gateway::Gateway;
use super::super::process::Process;
use super::super::topology::{INSIDE, Topology};
use super::Direction;
use super::iperf::{self, Transfer};
use super::tree;

/// From the start of a client to the first answered ping.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where the CPU time of a server is read.
#[derive(Debug)]
pub(super) enum Server {
    /// One that the harness started.
    Process(Meter),
    /// One that it did not, with all it has started.
    Tree(u32),
    /// On another host, or nobody said which process it is.
    Unknown,
}

/// Where the CPU time of both ends is read.
#[derive(Debug)]
pub(super) struct Cpus {
    pub(super) server: Server,
    pub(super) client: Meter,
}

impl Cpus {
    pub(super) fn of(server: &Process, client: &Process) -> Self {
        Self {
            server: Server::Process(server.meter()),
            client: client.meter(),
        }
    }

    /// Of the server, if it can be read, and of the client.
    pub(super) fn read(&self) -> io::Result<(Option<Duration>, Duration)> {
        let server = match &self.server {
            Server::Process(meter) => Some(meter.read()?),
            Server::Tree(pid) => Some(tree::cpu_time(*pid)?),
            Server::Unknown => None,
        };
        Ok((server, self.client.read()?))
    }
}

/// Both, and what was measured so far.
#[derive(Debug)]
pub(super) struct Tunnel {
    pub(super) name: &'static str,
    /// Protocol, cipher, transport, client.
    pub(super) what: String,
    /// What leads to the inside host.
    device: &'static str,
    /// Through the three hosts; else the tunnel's client is in the harness's own network.
    pub(super) is_on_topology: bool,
    /// Where iperf3 listens.
    pub(super) inside: SocketAddr,
    pub(super) cpus: Cpus,
    running: Vec<Process>,
    gateway: Option<Gateway>,
    pub(super) up: Vec<Transfer>,
    pub(super) down: Vec<Transfer>,
    /// Why there are no more.
    pub(super) failed: Option<String>,
}

impl Tunnel {
    pub(super) fn new(
        name: &'static str,
        what: &str,
        device: &'static str,
        cpus: Cpus,
        running: Vec<Process>,
    ) -> Self {
        Self {
            name,
            what: what.to_owned(),
            device,
            is_on_topology: true,
            inside: SocketAddr::new(IpAddr::V4(INSIDE), iperf::PORT),
            cpus,
            running,
            gateway: None,
            up: Vec::new(),
            down: Vec::new(),
            failed: None,
        }
    }

    pub(super) fn with_gateway(self, gateway: Gateway) -> Self {
        Self {
            gateway: Some(gateway),
            ..self
        }
    }

    /// In the harness's own network, to an iperf3 of somebody else's.
    pub(super) fn elsewhere(self, inside: SocketAddr) -> Self {
        Self {
            is_on_topology: false,
            inside,
            ..self
        }
    }

    pub(super) fn transfers(&self, direction: Direction) -> &[Transfer] {
        match direction {
            Direction::Up => &self.up,
            Direction::Down => &self.down,
        }
    }

    /// Keeps what was measured.
    pub(super) fn note(&mut self, direction: Direction, transfer: Transfer) {
        match direction {
            Direction::Up => self.up.push(transfer),
            Direction::Down => self.down.push(transfer),
        }
    }

    /// The round just measured, for who watches.
    pub(super) fn last(&self) -> String {
        let cost = |transfers: &[Transfer]| {
            let last = transfers.last();
            let cost = last.and_then(Transfer::cpu_ms_per_gb).unwrap_or(f64::NAN);
            let rate = last.map_or(f64::NAN, Transfer::gbit_per_s);
            format!("{cost:.0} ms/GB at {rate:.2} Gbit/s")
        };
        format!(
            "{} up {}, down {}",
            self.name,
            cost(&self.up),
            cost(&self.down)
        )
    }

    /// Throws away what its processes have said.
    pub(super) fn skim(&mut self) {
        if let Some(gateway) = &mut self.gateway {
            gateway.skim();
        }
        for process in &mut self.running {
            process.skim();
        }
    }

    /// Makes it the client host's way to the inside host.
    pub(super) fn take_the_route(&self, topology: &Topology) -> io::Result<()> {
        if !self.is_on_topology {
            // It has a route of its own.
            return Ok(());
        }
        topology.client.shell(&route(self.device)).map(|_| ())
    }
}

fn route(device: &str) -> String {
    format!("ip route replace {INSIDE}/32 dev {device}")
}

/// Waits until the client host reaches the inside host through `device`.
pub(super) fn wait_until_it_carries(
    topology: &Topology,
    device: &str,
    running: &mut [Process],
) -> io::Result<()> {
    let script = format!("{} && {}", route(device), ping(INSIDE));
    wait_until(device, running, || topology.client.shell(&script))
}

/// One echo.
fn ping(to: Ipv4Addr) -> String {
    format!("ping -c1 -W1 {to}")
}

/// Repeats `attempt` until it succeeds.
pub(super) fn wait_until(
    name: &str,
    running: &mut [Process],
    attempt: impl Fn() -> io::Result<String>,
) -> io::Result<()> {
    let begun = Instant::now();
    while let Err(error) = attempt() {
        if begun.elapsed() > PATIENCE {
            let said: Vec<String> = running.iter_mut().map(Process::said).collect();
            let said = said.join("\n--\n");
            let message = format!("{name} carries nothing: {error}\n{said}");
            return Err(io::Error::other(message));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}
