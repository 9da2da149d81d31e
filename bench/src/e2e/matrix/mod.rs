//! The matrix: direction × size × sessions × shards × driver × who does TLS.
//!
//! ```text
//!  a round   for each direction, size, number of sessions     floor, then each gateway, one after the other
//!            for each direction, number of sessions           latency at 2 Gbit/s, each gateway
//!            each gateway                                     set-ups
//! ```
//!
//! The gateways and their sessions stay for the whole run, so that a round visits every cell; those not
//! measured sleep. Cells are the rows beside the floor in miniature: bursts, from before the gateway
//! on its first processor ([`super::place`]), so that they may be divided by the floor. Ratios
//! between cells are taken round by round.

mod arena;
mod cell;
mod table;
mod tell;

use std::io;
use std::sync::Arc;

use datapath::io::kernel_tls::Direction as KernelTls;
use datapath::session::ClientSettings;
use datapath::sys::ktls;
use datapath::time::Duration;

use super::inside::Inside;
use super::load::Pace;
use super::many;
use super::place::Place;
use super::process::Workspace;
use super::report::Report;
use super::{Options, client};
use crate::floor::Beside;

pub use cell::{Dims, Engine};
pub use tell::{Cell, EngineCost, Latency, Matrix, Ratios};

use arena::Arena;
use cell::{DIRECTIONS, Group, SESSIONS};
use tell::Probed;

/// The prefix of the figures that are not cells.
const SET_UPS: &str = "matrix/set-ups, memory";
const LATENCY: &str = "matrix/latency";

/// The names of the cells that every host has, a line each.
pub(super) fn list() -> String {
    let all = Options {
        reps: 1,
        ..Options::default()
    };
    let groups = cell::groups(&all, &cell::engines(2, false));
    let cells = groups.iter().flat_map(|group| &group.cells);
    let names = cells.map(|cell| cell.dims.name());
    let others = [LATENCY.to_owned(), SET_UPS.to_owned()];
    names
        .chain(others)
        .map(|name| format!("{name}\n"))
        .collect()
}

/// Whether any of it is.
pub(super) fn is_wanted(options: &Options) -> bool {
    !cell::groups(options, &cell::engines(2, true)).is_empty()
        || [LATENCY, SET_UPS]
            .iter()
            .any(|name| options.wants_matrix(name))
}

/// Measures what is wanted of it.
pub(super) fn run(
    options: &Options,
    workspace: &Workspace,
    inside: &mut Inside,
    place: Place,
    report: &mut Report,
) -> io::Result<()> {
    if !is_wanted(options) {
        return Ok(());
    }
    let takes_all = |capabilities: ktls::Capabilities| {
        [KernelTls::Tx, KernelTls::Rx].map(|way| capabilities.takes_all(way)) == [true; 2]
    };
    let has_kernel_tls = ktls::probe().is_ok_and(takes_all);
    if !has_kernel_tls {
        let why = "matrix/…+ktls: the kernel does no TLS here (module tls)";
        report.skipped.push(why.to_owned());
    }
    if workspace.cpus.len() < 2 {
        let why = "matrix/…/2 shards: there is one processor";
        report.skipped.push(why.to_owned());
    }
    let engines = cell::engines(workspace.cpus.len(), has_kernel_tls);
    let groups = cell::groups(options, &engines);
    let settings = client::settings()?;
    let wants_latency = options.wants_matrix(LATENCY);
    let counts: Vec<usize> = SESSIONS
        .into_iter()
        .filter(|&count| {
            let mut groups = groups.iter();
            groups.any(|group| group.sessions == count) || (wants_latency && many_enough(count))
        })
        .collect();
    let mut arenas = Vec::new();
    for (index, engine) in (0_u16..).zip(&engines) {
        eprintln!("matrix: {} with {counts:?} sessions", engine.words());
        let mut arena = Arena::start(workspace, &settings, index, *engine, &counts)?;
        if options.wants_matrix(SET_UPS) {
            arena.weigh(workspace, &settings)?;
        }
        arenas.push(arena);
    }
    let mut run = Run {
        options,
        slice: options.slice / 2,
        floor: Beside::start(place.first)?,
        place,
        inside,
        settings,
        arenas,
        groups,
        probed: Vec::new(),
    };
    for round in 1..=options.reps {
        run.cells(round)?;
        if wants_latency {
            run.latency(round)?;
        }
        if options.wants_matrix(SET_UPS) {
            for arena in &mut run.arenas {
                arena.set_up(workspace, &run.settings)?;
            }
        }
    }
    let Run {
        groups,
        probed,
        arenas,
        slice,
        ..
    } = run;
    let mut costs = Vec::new();
    for arena in arenas {
        costs.push(tell::engine_cost(arena)?);
    }
    report.matrix = Some(tell::matrix(slice, &groups, &probed, costs));
    Ok(())
}

/// With a thousand sockets to look after, the harness's own turn is longer than what it would measure.
const fn many_enough(sessions: usize) -> bool {
    sessions < 1000
}

/// What a round needs.
struct Run<'a> {
    options: &'a Options,
    slice: Duration,
    floor: Beside,
    place: Place,
    inside: &'a mut Inside,
    settings: Arc<ClientSettings>,
    arenas: Vec<Arena>,
    groups: Vec<Group>,
    probed: Vec<Probed>,
}

impl Run<'_> {
    /// Every cell once.
    fn cells(&mut self, round: u32) -> io::Result<()> {
        for group in &mut self.groups {
            self.arenas.iter_mut().try_for_each(Arena::step)?;
            self.place.beside_the_gateway()?;
            if group.sessions == 1 {
                let slice = (self.slice / 4).max(Duration::from_millis(60));
                let name = group.size.floor(group.direction);
                let reading = self.floor.measure(name, slice)?;
                group.floors.push(reading.cpu_ns_per_packet());
            }
            self.place.before_the_gateway()?;
            // What follows on what is part of the noise, so each has its turn before the other.
            let mut order: Vec<_> = group.cells.iter_mut().collect();
            if round.is_multiple_of(2) {
                order.reverse();
            }
            for cell in order {
                let engine = cell.dims.engine;
                let mut arenas = self.arenas.iter_mut();
                let arena = arenas.find(|arena| arena.engine == engine);
                let Some(field) = arena.and_then(|arena| arena.field(group.sessions)) else {
                    continue;
                };
                let flow = group.size.flow(&field.clients, group.direction);
                field.run(&flow, self.inside, self.slice / 8, Pace::Bursts, false)?;
                let sample = field.run(&flow, self.inside, self.slice, Pace::Bursts, false)?;
                cell.samples.push(sample);
            }
            eprintln!("round {round} of {}: {}", self.options.reps, group.last());
        }
        self.place.beside_the_gateway()
    }

    /// How long packets take at a rate that every gateway carries.
    fn latency(&mut self, round: u32) -> io::Result<()> {
        for (direction, word) in DIRECTIONS {
            for sessions in SESSIONS.into_iter().filter(|&count| many_enough(count)) {
                for arena in &mut self.arenas {
                    let engine = arena.engine;
                    arena.step()?;
                    let Some(field) = arena.field(sessions) else {
                        continue;
                    };
                    let flow = many::paced(&field.clients, direction);
                    let pace = Pace::Packets(many::RATE);
                    field.run(&flow, self.inside, self.slice / 4, pace, false)?;
                    let (sample, [p50, p99]) =
                        many::probed(&flow, field, self.inside, self.slice, many::RATE)?;
                    let dims = Dims {
                        direction: word,
                        size: "bulk",
                        sessions,
                        engine,
                    };
                    eprintln!(
                        "round {round} of {}: {LATENCY}, {}: {p50:.0} and {p99:.0} µs",
                        self.options.reps,
                        dims.name()
                    );
                    Probed::add(&mut self.probed, dims, sample, (p50, p99));
                }
            }
        }
        Ok(())
    }
}

impl Group {
    /// The round just measured, for who watches.
    fn last(&self) -> String {
        let floor = self.floors.last();
        let floor = floor.map_or_else(String::new, |floor| format!(", floor {floor:.0}"));
        let cells = self.cells.iter().map(|cell| {
            let sample = cell.samples.last();
            let value = sample.map_or(f64::NAN, |sample| sample.cpu_ns_per_packet());
            format!("{} {value:.0}", cell.dims.engine.words())
        });
        let cells: Vec<String> = cells.collect();
        let first = self.cells.first().map(|cell| cell.dims.name());
        let name = first.unwrap_or_default();
        // The engine's two parts are told of each.
        let name = name.rsplitn(3, '/').last().unwrap_or_default();
        format!("{name}: {} ns/packet{floor}", cells.join(", "))
    }
}
