//! The gateway and other servers through the same three hosts, one TCP connection by iperf3 inside.
//!
//! What is on whose account: a veth delivers on the processor and the account of the sender. So beside
//! encryption and copies each server here pays for forwarding to the inside host, for that host's TCP as
//! far as it runs in softirq (its acknowledgements and what they set free), and for the client host's
//! outer TCP. All servers pay alike, so ratios between them may be taken, and are smaller than
//! the servers' own work would have them; none of it may be divided by the floor.

mod iperf;
mod ocserv;
mod openvpn;
mod sstp;

use std::io;
use std::time::{Duration, Instant};

use super::Options;
use super::cpu::Meter;
use super::process::Process;
use super::process::{self, Workspace};
use super::report::{Bar, Report, Row, Sense};
use super::topology::{INSIDE, Topology};

use iperf::Transfer;

/// Of the tunnel, for all.
const MTU: u32 = 1400;

/// From the start of a client to the first answered ping.
const PATIENCE: Duration = Duration::from_secs(20);

/// The names of the figures.
pub(super) const NAMES: [&str; 6] = [
    "peers/sstp-gw up",
    "peers/sstp-gw down",
    "peers/openvpn up",
    "peers/openvpn down",
    "peers/ocserv up",
    "peers/ocserv down",
];

/// A server and a client of it, both running.
#[derive(Debug)]
struct Tunnel {
    name: &'static str,
    meter: Meter,
    /// Kept: they end when dropped.
    _running: Vec<Process>,
    gateway: Option<super::gateway::Gateway>,
    up: Vec<Transfer>,
    down: Vec<Transfer>,
}

impl Tunnel {
    fn transfers(&self, direction: Direction) -> &[Transfer] {
        match direction {
            Direction::Up => &self.up,
            Direction::Down => &self.down,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

/// Measures all of them, in turn.
pub(super) fn run(options: &Options, workspace: &Workspace, report: &mut Report) -> io::Result<()> {
    if !NAMES.iter().any(|name| options.wants(name)) {
        return Ok(());
    }
    if process::find("iperf3").is_none() {
        let why = "peers/: no iperf3 (Debian package iperf3)";
        report.skipped.push(why.to_owned());
        return Ok(());
    }
    let topology = Topology::new(workspace)?;
    let server = iperf::serve(workspace, &topology)?;
    let mut tunnels = Vec::new();
    // One at a time on the route to the inside host; all stay up, idle.
    tunnels.push(sstp::start(workspace, &topology)?);
    for (name, package, start) in [
        ("openvpn", "openvpn", openvpn::start as Start),
        ("ocserv", "ocserv and openconnect", ocserv::start),
    ] {
        if !NAMES
            .iter()
            .any(|full| full.contains(name) && options.wants(full))
        {
            continue;
        }
        match start(workspace, &topology) {
            Ok(Some(tunnel)) => tunnels.push(tunnel),
            Ok(None) => report
                .skipped
                .push(format!("peers/{name}: not installed (Debian: {package})")),
            Err(error) => report.skipped.push(format!("peers/{name}: {error}")),
        }
    }
    let seconds = if options.is_quick { 1 } else { 2 };
    for _ in 0..options.peer_reps() {
        for tunnel in &mut tunnels {
            route(&topology, tunnel.name)?;
            for direction in [Direction::Up, Direction::Down] {
                let transfer = iperf::transfer(workspace, &topology, tunnel, direction, seconds)?;
                match direction {
                    Direction::Up => tunnel.up.push(transfer),
                    Direction::Down => tunnel.down.push(transfer),
                }
            }
            if let Some(gateway) = &mut tunnel.gateway {
                gateway.skim();
            }
        }
    }
    drop(server);
    report.rows.extend(rows(&tunnels));
    Ok(())
}

type Start = fn(&Workspace, &Topology) -> io::Result<Option<Tunnel>>;

/// How the client host reaches the inside host from now on.
fn route(topology: &Topology, device: &str) -> io::Result<()> {
    let script = format!("ip route replace {INSIDE}/32 dev {device}0");
    topology.client.shell(&script).map(|_| ())
}

/// Waits until the client host reaches the inside host through `device`.
fn wait_until_it_carries(
    topology: &Topology,
    name: &str,
    running: &mut [Process],
) -> io::Result<()> {
    let begun = Instant::now();
    let script = format!("ip route replace {INSIDE}/32 dev {name}0 && ping -c1 -W1 {INSIDE}");
    while topology.client.shell(&script).is_err() {
        if begun.elapsed() > PATIENCE {
            let said: Vec<String> = running.iter_mut().map(Process::said).collect();
            let said = said.join("\n--\n");
            return Err(io::Error::other(format!("{name} carries nothing:\n{said}")));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

fn rows(tunnels: &[Tunnel]) -> Vec<Row> {
    let mut rows = Vec::new();
    let ours = tunnels.iter().find(|tunnel| tunnel.name == "sstp");
    for tunnel in tunnels {
        for (direction, word) in [(Direction::Up, "up"), (Direction::Down, "down")] {
            let values = |tunnel: &Tunnel| -> Vec<f64> {
                let transfers = tunnel.transfers(direction).iter();
                transfers.map(Transfer::cpu_ms_per_gb).collect()
            };
            let rates = tunnel.transfers(direction).iter();
            let rate = crate::floor::Spread::of(rates.map(Transfer::gbit_per_s)).median;
            let note = format!("{rate:.2} Gbit/s, iperf3 over veth");
            let row = match ours {
                Some(ours) if ours.name != tunnel.name => Row::beside(
                    &format!("peers/{} {word}", tunnel.name),
                    "ms/GB",
                    &values(tunnel),
                    ("sstp-gw", &values(ours)),
                    Some(bar(tunnel.name)),
                ),
                _ => Row::alone(
                    &format!("peers/sstp-gw {word}"),
                    "ms/GB",
                    &values(tunnel),
                    None,
                ),
            };
            rows.push(row.with_note(note));
        }
    }
    rows
}

fn bar(name: &str) -> Bar {
    let (bar, stretch) = if name == "openvpn" {
        (12.0, 20.0)
    } else {
        (8.0, 15.0)
    };
    Bar {
        sense: Sense::AtLeast,
        bar,
        stretch,
    }
}
