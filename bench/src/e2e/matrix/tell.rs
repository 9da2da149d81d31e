//! What the rounds come to: figures of each cell, and how cells stand to each other.

use std::io;

use datapath::time::Duration;
use serde::Serialize;

use super::super::load::Sample;
use super::super::report::Figure;
use super::arena::Arena;
use super::cell::{Dims, Engine, Group, Measured};

/// The whole of it.
#[derive(Clone, Debug, Serialize)]
pub struct Matrix {
    /// Wall-clock milliseconds of one measurement of a cell.
    pub slice_ms: u64,
    /// One a combination.
    pub cells: Vec<Cell>,
    /// At 2 Gbit/s of TCP, one a combination of what it was measured for.
    pub latency: Vec<Latency>,
    /// One a gateway.
    pub engines: Vec<EngineCost>,
}

/// What one combination costs and carries.
#[derive(Clone, Debug, Serialize)]
pub struct Cell {
    /// `matrix/direction/size/sessions/shards/driver`.
    pub name: String,
    /// The same, one by one.
    #[serde(flatten)]
    pub dims: Dims,
    /// Nanoseconds of the gateway's CPU a packet.
    pub cpu_ns_per_packet: Figure,
    /// Milliseconds of it for 10⁹ bytes of packets.
    pub cpu_ms_per_gb: Figure,
    /// Gbit/s that one processor would carry at that cost.
    pub gbit_per_core_s: Figure,
    /// Gbit/s that were carried, burst by burst: of gateway and harness together, no capacity.
    pub gbit_per_s: Figure,
    /// Packets a second, likewise.
    pub packets_per_s: Figure,
    /// Share of the packets sent that never came.
    pub loss: Figure,
    /// Nanoseconds a packet that the floor takes for the same packets, for one session.
    pub floor_ns_per_packet: Option<Figure>,
    /// Of CPU a packet to that of others, round by round.
    pub ratios: Ratios,
}

/// Of CPU a packet; none of what was not measured, and of a cell to itself.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Ratios {
    /// To the floor.
    pub floor: Option<Figure>,
    /// To the same cell with one session.
    pub one_session: Option<Figure>,
    /// To the same cell with one shard.
    pub one_shard: Option<Figure>,
    /// To the same cell on io_uring.
    pub io_uring: Option<Figure>,
    /// To the same cell with TLS in user space.
    pub user_tls: Option<Figure>,
}

/// How long packets take, one way through both hops, with the harness's own turn in it.
#[derive(Clone, Debug, Serialize)]
pub struct Latency {
    /// As a cell's, under `matrix/latency`.
    pub name: String,
    /// What was measured.
    #[serde(flatten)]
    pub dims: Dims,
    /// Microseconds in which half the probes of a round came through.
    pub p50_us: Figure,
    /// And 99 of 100.
    pub p99_us: Figure,
    /// Gbit/s of the load beside them.
    pub gbit_per_s: Figure,
}

/// What a gateway costs whatever it carries.
#[derive(Clone, Debug, Serialize)]
pub struct EngineCost {
    /// `matrix/set-ups, memory/shards/driver`.
    pub name: String,
    /// What it runs on.
    #[serde(flatten)]
    pub engine: Engine,
    /// Sessions set up and cut per second of its CPU.
    pub set_ups_per_core_s: Option<Figure>,
    /// Anonymous resident bytes, 10³ each, of each of 1,000 idle sessions.
    pub memory_kb_per_session: Option<f64>,
    /// Anonymous resident bytes before the first, 10⁶ each.
    pub memory_mb_empty: f64,
    /// Packets handed from shard to shard over the whole run.
    pub handed_over: u64,
    /// Packets dropped over the whole run, by reason.
    pub dropped: String,
}

/// A latency as it is measured, round by round.
#[derive(Debug)]
pub(super) struct Probed {
    dims: Dims,
    samples: Vec<Sample>,
    p50: Vec<f64>,
    p99: Vec<f64>,
}

impl Probed {
    /// Adds a round's.
    pub(super) fn add(all: &mut Vec<Self>, dims: Dims, sample: Sample, (p50, p99): (f64, f64)) {
        let index = all.iter().position(|probed| probed.dims == dims);
        let index = index.unwrap_or_else(|| {
            all.push(Self {
                dims,
                samples: Vec::new(),
                p50: Vec::new(),
                p99: Vec::new(),
            });
            all.len() - 1
        });
        if let Some(probed) = all.get_mut(index) {
            probed.samples.push(sample);
            probed.p50.push(p50);
            probed.p99.push(p99);
        }
    }
}

/// The result of all rounds.
pub(super) fn matrix(
    slice: Duration,
    groups: &[Group],
    probed: &[Probed],
    engines: Vec<EngineCost>,
) -> Matrix {
    let all: Vec<&Measured> = groups.iter().flat_map(|group| &group.cells).collect();
    let of_group = |group: &Group| -> Vec<Cell> {
        let cells = group.cells.iter();
        cells.map(|cell| told(cell, &group.floors, &all)).collect()
    };
    Matrix {
        slice_ms: u64::try_from(slice.as_millis()).unwrap_or(u64::MAX),
        cells: groups.iter().flat_map(of_group).collect(),
        latency: probed.iter().map(latency).collect(),
        engines,
    }
}

fn figure(samples: &[Sample], value: impl Fn(&Sample) -> f64) -> Figure {
    Figure::of(samples.iter().map(value).collect())
}

fn told(cell: &Measured, floors: &[f64], all: &[&Measured]) -> Cell {
    let Measured { dims, samples } = cell;
    let cost = |samples: &[Sample]| -> Vec<f64> {
        samples.iter().map(Sample::cpu_ns_per_packet).collect()
    };
    let own = cost(samples);
    // To another cell, if this is not that one.
    let to = |other: Dims| {
        let other = all
            .iter()
            .find(|cell| cell.dims == other && other != *dims)?;
        Some(Figure::ratio(&own, &cost(&other.samples)))
    };
    let on = |engine: Engine| Dims { engine, ..*dims };
    let engine = dims.engine;
    let has_floor = !floors.is_empty();
    let ratios = Ratios {
        floor: has_floor.then(|| Figure::ratio(&own, floors)),
        one_session: to(Dims {
            sessions: 1,
            ..*dims
        }),
        one_shard: to(on(Engine {
            shards: 1,
            ..engine
        })),
        io_uring: to(on(Engine {
            driver: "io_uring",
            ..engine
        })),
        user_tls: to(on(Engine {
            kernel_tls: false,
            ..engine
        })),
    };
    Cell {
        name: dims.name(),
        dims: *dims,
        cpu_ms_per_gb: figure(samples, Sample::cpu_ms_per_gb),
        // Eight bits a byte.
        gbit_per_core_s: figure(samples, |sample| 8e3 / sample.cpu_ms_per_gb()),
        gbit_per_s: figure(samples, Sample::gbit_per_s),
        packets_per_s: figure(samples, Sample::packets_per_s),
        loss: figure(samples, Sample::loss),
        cpu_ns_per_packet: Figure::of(own),
        floor_ns_per_packet: has_floor.then(|| Figure::of(floors.to_vec())),
        ratios,
    }
}

fn latency(probed: &Probed) -> Latency {
    Latency {
        name: probed.dims.name().replacen("matrix", super::LATENCY, 1),
        dims: probed.dims,
        p50_us: Figure::of(probed.p50.clone()),
        p99_us: Figure::of(probed.p99.clone()),
        gbit_per_s: figure(&probed.samples, Sample::gbit_per_s),
    }
}

/// Ends the gateway.
pub(super) fn engine_cost(mut arena: Arena) -> io::Result<EngineCost> {
    let (engine, empty, each) = (arena.engine, arena.empty, arena.memory_each);
    let set_ups = std::mem::take(&mut arena.set_ups);
    let last = arena.stop()?;
    Ok(EngineCost {
        name: format!("{}/{}", super::SET_UPS, engine.words()),
        engine,
        set_ups_per_core_s: (!set_ups.is_empty()).then(|| Figure::of(set_ups)),
        memory_kb_per_session: each.map(|bytes| bytes / 1e3),
        memory_mb_empty: empty as f64 / 1e6,
        handed_over: last.handed_over,
        dropped: last.dropped,
    })
}
