//! The gateway and other servers through the same three hosts, one TCP connection by iperf3 inside.
//!
//! What is on whose account: a veth delivers on the processor and the account of the sender. So beside
//! encryption and copies each server here pays for forwarding to the inside host, for that host's TCP as
//! far as it runs in softirq (its acknowledgements and what they set free), and for the client host's
//! outer TCP. All servers pay alike, so ratios between them may be taken, and are smaller than
//! the servers' own work would have them; none of it may be divided by the floor.

mod flags;
mod iperf;
mod ocserv;
mod openvpn;
mod other;
mod sstp;
mod table;
mod tree;
mod tunnel;
mod wireguard;

use std::io;

use super::Options;
use super::process::{self, Workspace};
use super::report::{Bar, Report, Row, Sense};
use super::topology::Topology;

pub use flags::SstpFlags;
pub use table::{Line, Table, Way};

use iperf::Transfer;
use tunnel::Tunnel;

/// Of the tunnel, for all.
const MTU: u32 = 1400;

/// The names of the figures.
pub(super) const NAMES: [&str; 10] = [
    "peers/sstp-gw up",
    "peers/sstp-gw down",
    "peers/openvpn up",
    "peers/openvpn down",
    "peers/ocserv up",
    "peers/ocserv down",
    "peers/wireguard-go up",
    "peers/wireguard-go down",
    "peers/sstp-server up",
    "peers/sstp-server down",
];

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
    let mut tunnels = start(options, workspace, &topology, report)?;
    let seconds = if options.is_quick { 1 } else { 2 };
    let rounds = options.peer_reps();
    for round in 1..=rounds {
        for tunnel in tunnels.iter_mut().filter(|tunnel| tunnel.failed.is_none()) {
            if let Err(error) = both_ways(workspace, &topology, tunnel, seconds) {
                if tunnel.name == "sstp-gw" {
                    return Err(error);
                }
                tunnel.failed = Some(error.to_string());
            }
            eprintln!("round {round} of {rounds}: {}", tunnel.last());
        }
    }
    drop(server);
    for tunnel in &mut tunnels {
        if let Some(why) = tunnel.failed.take() {
            let why = format!("peers/{}: {why}", tunnel.name);
            report.skipped.push(why);
            // A round less would be beside another round of sstp-gw's.
            tunnel.up.clear();
            tunnel.down.clear();
        }
    }
    report.rows.extend(rows(&tunnels));
    report.peers = Table::new(&tunnels);
    Ok(())
}

/// Brings up all that is wanted and installed. One at a time is on the route to the inside host; all stay
/// up, idle.
fn start(
    options: &Options,
    workspace: &Workspace,
    topology: &Topology,
    report: &mut Report,
) -> io::Result<Vec<Tunnel>> {
    let mut tunnels = vec![sstp::start(workspace, topology)?];
    let wants = |name: &str| {
        let prefix = format!("peers/{name} ");
        let mut names = NAMES.iter().filter(|full| full.starts_with(&prefix));
        names.any(|full| options.wants(full))
    };
    for (name, packages, start) in [
        ("openvpn", "openvpn", openvpn::start as Start),
        ("ocserv", "ocserv, openconnect", ocserv::start),
        (
            "wireguard-go",
            "wireguard-go, wireguard-tools",
            wireguard::start,
        ),
    ] {
        if !wants(name) {
            continue;
        }
        match start(workspace, topology) {
            Ok(Some(tunnel)) => tunnels.push(tunnel),
            Ok(None) => report
                .skipped
                .push(format!("peers/{name}: not installed (Debian: {packages})")),
            Err(error) => report.skipped.push(format!("peers/{name}: {error}")),
        }
    }
    if wants("sstp-server") {
        match other::start(workspace, &options.sstp) {
            Ok(tunnel) => tunnels.extend(tunnel),
            Err(error) => report.skipped.push(format!("peers/sstp-server: {error}")),
        }
    }
    Ok(tunnels)
}

type Start = fn(&Workspace, &Topology) -> io::Result<Option<Tunnel>>;

fn both_ways(
    workspace: &Workspace,
    topology: &Topology,
    tunnel: &mut Tunnel,
    seconds: u32,
) -> io::Result<()> {
    tunnel.take_the_route(topology)?;
    for direction in [Direction::Up, Direction::Down] {
        let transfer = iperf::transfer(workspace, topology, tunnel, direction, seconds)?;
        tunnel.note(direction, transfer);
    }
    tunnel.skim();
    Ok(())
}

fn rows(tunnels: &[Tunnel]) -> Vec<Row> {
    let mut rows = Vec::new();
    let ours = tunnels.iter().find(|tunnel| tunnel.name == "sstp-gw");
    for tunnel in tunnels {
        for (direction, word) in [(Direction::Up, "up"), (Direction::Down, "down")] {
            let values = |tunnel: &Tunnel| -> Option<Vec<f64>> {
                let transfers = tunnel.transfers(direction).iter();
                transfers.map(Transfer::cpu_ms_per_gb).collect()
            };
            // Of a server whose CPU nobody can read the table says the rest.
            let Some(costs) = values(tunnel).filter(|costs| !costs.is_empty()) else {
                continue;
            };
            let rates = tunnel.transfers(direction).iter();
            let rate = crate::floor::Spread::of(rates.map(Transfer::gbit_per_s)).median;
            let path = if tunnel.is_on_topology {
                "veth"
            } else {
                "a path of its own"
            };
            let note = format!("{rate:.2} Gbit/s, iperf3 over {path}");
            let name = format!("peers/{} {word}", tunnel.name);
            let ours = ours.filter(|ours| ours.name != tunnel.name);
            let row = match ours.and_then(values) {
                Some(ours) => {
                    let ours = ("sstp-gw", ours.as_slice());
                    Row::beside(&name, "ms/GB", &costs, ours, bar(tunnel.name))
                }
                None => Row::alone(&name, "ms/GB", &costs, None),
            };
            rows.push(row.with_note(note));
        }
    }
    rows
}

fn bar(name: &str) -> Option<Bar> {
    let (bar, stretch) = match name {
        "openvpn" => (12.0, 20.0),
        "ocserv" => (8.0, 15.0),
        _ => return None,
    };
    Some(Bar {
        sense: Sense::AtLeast,
        bar,
        stretch,
    })
}
