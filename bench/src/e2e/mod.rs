//! End to end: the gateway as it is shipped, under load, in network namespaces of its own.
//!
//! ```text
//!  namespace of the gateway
//!   harness ── loopback TCP ── sstp-gw ── sstp0 10.77.0.0/16 ── kernel forwards ── network0 ── harness
//!   clients      (outside)      CPU 0                                               (inside)   CPU 1
//! ```
//!
//! These surroundings are the floor's, so a figure may be divided by the floor's: the same packets, the
//! same two hops, the same share of the kernel's work on the same account. Peers are compared another
//! way, by iperf3 through three namespaces ([`peers`]).
//!
//! CPU is that of the whole gateway process, user and system, by its control group.

pub mod baseline;

mod cases;
mod client;
mod cpu;
mod gateway;
mod generator;
mod inside;
mod load;
mod many;
mod matrix;
mod page;
pub mod peers;
mod pki;
mod place;
mod probe;
mod process;
mod report;
mod sessions;
mod topology;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;

use datapath::session::ClientSettings;
use datapath::sys::{affinity, clock, limits};
use datapath::time::Duration;

use crate::floor::{Beside, rig};

pub use matrix::{Cell, Dims, Engine, EngineCost, Latency, Matrix, Ratios};
pub use peers::SstpFlags;
pub use report::{Bar, Beside as ComparedWith, Figure, Machine, Report, Row, Sense, Told, Verdict};

use client::Client;
use gateway::Gateway;
use inside::Inside;
use load::Field;
use place::Place;
use process::Workspace;

/// Where the gateway of the floor's surroundings listens.
const OUTSIDE: ([u8; 4], u16) = ([127, 0, 0, 1], 443);

/// How to measure.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Measurements of each figure.
    pub reps: u32,
    /// Wall-clock time of each.
    pub slice: Duration,
    /// Parts of the names of the figures to measure; all if empty.
    pub only: Vec<String>,
    /// Less of everything.
    pub is_quick: bool,
    /// Another SSTP server.
    pub sstp: SstpFlags,
}

impl Options {
    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|part| name.contains(part))
    }

    fn wants_any(&self, names: &[&str]) -> bool {
        names.iter().any(|name| self.wants(name))
    }

    /// The matrix takes minutes, so a part of a name means it only if it begins as its names do.
    fn wants_matrix(&self, name: &str) -> bool {
        let means = |part: &String| part.starts_with("matrix") && name.contains(part);
        self.only.is_empty() || self.only.iter().any(means)
    }

    /// Rounds of the comparison with peers, each of which takes seconds.
    const fn peer_reps(&self) -> u32 {
        if self.is_quick { 2 } else { self.reps }
    }
}

/// The names of the figures, a line each.
#[must_use]
pub fn list() -> String {
    let names = cases::NAMES.iter().chain(&many::NAMES);
    let names = names.chain(&sessions::NAMES).chain(&generator::NAMES);
    let names = names.chain(&peers::NAMES);
    let names: String = names.map(|name| format!("{name}\n")).collect();
    names + &matrix::list()
}

/// Measures. Needs root.
///
/// # Errors
///
/// If the surroundings cannot be made, or the gateway does not do what it should.
pub fn run(options: &Options) -> io::Result<Report> {
    gateway::build()?;
    limits::raise_open_files()?;
    let workspace = Workspace::new()?;
    let mut report = Report::new(options);
    // A thread of its own: it moves to another network, and what it starts ends with it.
    let result = thread::scope(|scope| {
        scope
            .spawn(|| {
                peers::run(options, &workspace, &mut report)?;
                beside_the_floor(options, &workspace, &mut report)
            })
            .join()
    });
    match result {
        Ok(result) => result.map(|()| report),
        Err(_) => Err(io::Error::other("the harness panicked")),
    }
}

/// What is measured in the floor's surroundings.
fn beside_the_floor(
    options: &Options,
    workspace: &Workspace,
    report: &mut Report,
) -> io::Result<()> {
    let (Some(&first), Some(&last)) = (workspace.cpus.first(), workspace.cpus.last()) else {
        return Err(io::Error::other("no processor"));
    };
    let place = Place { first, last };
    let names = cases::NAMES.iter().chain(&many::NAMES);
    let names = names.chain(&sessions::NAMES).chain(&generator::NAMES);
    let names: Vec<&str> = names.copied().collect();
    if !options.wants_any(&names) && !matrix::is_wanted(options) {
        return Ok(());
    }
    rig::enter_network()?;
    let mut inside = Inside::new()?;
    if options.wants_any(&names) {
        one_by_one(options, workspace, &mut inside, place, report)?;
    }
    matrix::run(options, workspace, &mut inside, place, report)
}

/// The figures that have a name each.
fn one_by_one(
    options: &Options,
    workspace: &Workspace,
    inside: &mut Inside,
    place: Place,
    report: &mut Report,
) -> io::Result<()> {
    let plan = gateway::Plan {
        name: "one-shard",
        listen: "127.0.0.1:443",
        pool: "10.77.0.0/16",
        tun: "sstp0",
        shards: 1,
        sessions: 4_000,
        network: None,
    };
    let mut gateway = Gateway::start(workspace, &plan)?;
    // A burst must find room in the device whole, as in the floor's.
    rig::ip("link set sstp0 txqueuelen 2000")?;
    let settings = client::settings()?;
    let mut one = Field::new(
        connect(&settings, OUTSIDE.into(), 1)?,
        gateway.meter.clone(),
    );

    let mut cases = cases::all(&one);
    cases.retain(|case| options.wants(case.name));
    if !cases.is_empty() {
        let floor = Beside::start(place.first)?;
        for round in 1..=options.reps {
            for case in &mut cases {
                case.measure(options, &floor, &mut one, inside, place)?;
                eprintln!("round {round} of {}: {}", options.reps, case.last());
            }
            gateway.skim();
        }
    }
    for case in &cases {
        report.rows.extend([case.row(), case.streamed()]);
    }
    affinity::pin(place.last).map_err(io::Error::other)?;
    if !cases.is_empty() {
        let slice = Duration::from_secs(1).min(options.slice * 3);
        report.clocks.push(many::clocks(&mut one, inside, slice)?);
    }
    many::latency(options, &mut one, inside, report)?;
    many::clients(options, &mut gateway, inside, report)?;
    sessions::set_ups(options, &mut gateway, report)?;
    many::shards(options, workspace, &gateway, inside, report)?;
    drop(one);
    generator::cost(options, workspace, report)?;
    let last = gateway.stop()?;
    report.clocks.push(format!(
        "the gateway with 1 shard, over the whole run: handed over {}, dropped {}",
        last.handed_over, last.dropped
    ));
    sessions::idle(options, workspace, report)
}

/// Brings up `count` clients, as many on each shard: a SYN comes to the listener of the processor that
/// it is sent on. Leaves the thread on the last processor.
fn connect_to_shards(
    workspace: &Workspace,
    settings: &Arc<ClientSettings>,
    to: SocketAddr,
    count: usize,
    shards: usize,
) -> io::Result<Vec<Client>> {
    let mut clients = Vec::with_capacity(count);
    for (index, &cpu) in workspace.cpus.iter().take(shards).enumerate() {
        affinity::pin(cpu).map_err(io::Error::other)?;
        // The first has what cannot be divided.
        let share = (count + shards - 1 - index) / shards;
        clients.extend(connect(settings, to, share)?);
    }
    if let Some(&last) = workspace.cpus.last() {
        affinity::pin(last).map_err(io::Error::other)?;
    }
    Ok(clients)
}

/// Brings up `count` clients.
fn connect(
    settings: &Arc<ClientSettings>,
    to: SocketAddr,
    count: usize,
) -> io::Result<Vec<Client>> {
    /// Handshakes at a time.
    const AT_ONCE: usize = 250;
    const PATIENCE: Duration = Duration::from_secs(20);

    let mut buffer = vec![0; 64 << 10];
    let (mut up, mut coming): (Vec<Client>, Vec<Client>) = (Vec::new(), Vec::new());
    let mut progress_at = clock::now();
    while up.len() < count {
        while coming.len() < AT_ONCE && up.len() + coming.len() < count {
            coming.push(Client::connect(settings, to)?);
        }
        for client in &mut coming {
            client.step(&mut buffer)?;
            if let Some(why) = client.ended() {
                return Err(io::Error::other(format!("a client did not come up: {why}")));
            }
        }
        let before = up.len();
        up.extend(coming.extract_if(.., |client| client.is_up()));
        let now = clock::now();
        if up.len() > before {
            progress_at = now;
        } else if now.saturating_since(progress_at) > PATIENCE {
            return Err(io::Error::other("clients do not come up"));
        }
    }
    Ok(up)
}
