//! The figures that need nothing but the gateway, of two gateways in turn.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use datapath::session::ClientSettings;
use datapath::sys::affinity;
use datapath::time::Duration;

use super::super::gateway::{Gateway, Plan};
use super::super::inside::Inside;
use super::super::load::{Field, Flow, Pace, Sample};
use super::super::many::{self, DIRECTIONS};
use super::super::place::Place;
use super::super::process::Workspace;
use super::super::{Options, cases, client, connect, probe, sessions};
use super::report::Row;
use crate::floor::traffic::{Direction, Kind};
use crate::floor::{Spread, rig};

/// What the gateway of the baseline is called among the processes; the other is `this`.
pub(super) const BASELINE: &str = "baseline";

/// Times A B B A in a round for what is measured by the slice. Whatever else the machine does comes in
/// spells: many short slices in turn, and the median of either side's, let few of them count.
const TURNS: u32 = 4;

/// Sessions whose memory is looked at, and the most that carry anything.
const MANY: usize = 1_000;

const OTHERS: [&str; 12] = [
    "clients/1 down",
    "clients/10 down",
    "clients/1000 down",
    "clients/1 up",
    "clients/10 up",
    "clients/1000 up",
    "latency/down p50",
    "latency/down p99",
    "latency/up p50",
    "latency/up p99",
    "set-ups",
    "idle/memory",
];

/// What there is to compare.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    cases::NAMES.into_iter().chain(OTHERS)
}

/// What all rounds read, a column a figure.
#[derive(Debug)]
pub(super) struct Series(Vec<Column>);

#[derive(Debug)]
struct Column {
    name: &'static str,
    unit: &'static str,
    this: Vec<f64>,
    baseline: Vec<f64>,
}

impl Series {
    pub(super) fn new(names: &[&'static str]) -> Self {
        let column = |&name| Column {
            name,
            unit: "",
            this: Vec::new(),
            baseline: Vec::new(),
        };
        Self(names.iter().map(column).collect())
    }

    fn wants(&self, name: &str) -> bool {
        self.0.iter().any(|column| column.name == name)
    }

    /// Notes what one round read of both; ignored where nobody asked, and where one of them carried nothing.
    fn note(&mut self, name: &str, unit: &'static str, [this, baseline]: [f64; 2]) {
        if !(this.is_finite() && baseline.is_finite() && this > 0.0 && baseline > 0.0) {
            eprintln!("{name}: a round that read nothing is left out");
            return;
        }
        if let Some(column) = self.0.iter_mut().find(|column| column.name == name) {
            column.unit = unit;
            column.this.push(this);
            column.baseline.push(baseline);
        }
    }

    /// The ratios of the round just measured, for who watches.
    pub(super) fn last(&self) -> String {
        let ratio = |column: &Column| {
            let (this, baseline) = (column.this.last(), column.baseline.last());
            let ratio = this.unwrap_or(&f64::NAN) / baseline.unwrap_or(&f64::NAN);
            format!(" {} {ratio:.3}", column.name)
        };
        self.0.iter().map(ratio).collect::<Vec<_>>().join(",")
    }

    pub(super) fn rows(&self, error_max: f64) -> Vec<Row> {
        let row = |column: &Column| {
            let Column {
                name,
                unit,
                this,
                baseline,
            } = column;
            Row::new(name, unit, this, baseline, error_max)
        };
        self.0.iter().map(row).collect()
    }
}

/// One of the two, running.
#[derive(Debug)]
struct Side {
    gateway: Gateway,
    to: SocketAddr,
    one: Field,
}

/// Both and what they are driven by.
struct Pair<'a> {
    options: &'a Options,
    settings: Arc<ClientSettings>,
    sides: [Side; 2],
    inside: Inside,
    /// Whose turn it is.
    order: [usize; 4],
}

/// One round of all figures.
pub(super) fn round(
    options: &Options,
    workspace: &Workspace,
    binaries: [&Path; 2],
    round: u32,
    series: &mut Series,
) -> io::Result<()> {
    let (Some(&first), Some(&last)) = (workspace.cpus.first(), workspace.cpus.last()) else {
        return Err(io::Error::other("no processor"));
    };
    affinity::pin(last).map_err(io::Error::other)?;
    rig::enter_network()?;
    let is_even = round.is_multiple_of(2);
    let settings = client::settings()?;
    let [new, old] = binaries;
    let start = |name, binary, place| start(workspace, &settings, name, binary, place);
    // Who is first in one round is second in the next.
    let (this, baseline);
    if is_even {
        this = start("this", new, 0)?;
        baseline = start(BASELINE, old, 1)?;
    } else {
        baseline = start(BASELINE, old, 0)?;
        this = start("this", new, 1)?;
    }
    let mut pair = Pair {
        options,
        settings: Arc::clone(&settings),
        sides: [this, baseline],
        inside: Inside::new()?,
        order: if is_even { [0, 1, 1, 0] } else { [1, 0, 0, 1] },
    };
    // Memory first: what has carried something has touched more.
    pair.many(series)?;
    pair.bursts(Place { first, last }, series)?;
    pair.latency(series)?;
    pair.set_ups(series)
}

fn start(
    workspace: &Workspace,
    settings: &Arc<ClientSettings>,
    name: &str,
    binary: &Path,
    place: usize,
) -> io::Result<Side> {
    let places = [
        (443, "127.0.0.1:443", "10.77.0.0/16", "sstp0"),
        (445, "127.0.0.1:445", "10.80.0.0/16", "sstp1"),
    ];
    let (port, listen, pool, tun) = *places.get(place).unwrap_or(&places[0]);
    let plan = Plan {
        name,
        listen,
        pool,
        tun,
        shards: 1,
        sessions: 4_000,
        network: None,
    };
    let failed = |error| io::Error::other(format!("{name}: {error}"));
    let gateway = Gateway::start_binary(workspace, &plan, binary).map_err(failed)?;
    // A burst must find room in the device whole, as in the floor's.
    rig::ip(&format!("link set {tun} txqueuelen 2000"))?;
    let to = ([127, 0, 0, 1], port).into();
    let clients = connect(settings, to, 1).map_err(failed)?;
    let one = Field::new(clients, gateway.meter.clone());
    Ok(Side { gateway, to, one })
}

impl Pair<'_> {
    /// Measures both, twice each and that `times` over.
    fn in_turn<T>(
        &mut self,
        times: u32,
        mut measure: impl FnMut(usize, &mut Side, &mut Inside) -> io::Result<T>,
    ) -> io::Result<[Vec<T>; 2]> {
        let mut read = [Vec::new(), Vec::new()];
        for turn in (0..times).flat_map(|_| self.order) {
            if let (Some(side), Some(read)) = (self.sides.get_mut(turn), read.get_mut(turn)) {
                read.push(measure(turn, side, &mut self.inside)?);
                side.gateway.skim();
            }
        }
        Ok(read)
    }

    /// The cases that otherwise stand beside the floor.
    fn bursts(&mut self, place: Place, series: &mut Series) -> io::Result<()> {
        let slice = self.options.slice / TURNS;
        let warm = slice / 8;
        let cases = [0, 1].map(|turn| {
            let side = self.sides.get(turn);
            side.map_or_else(Vec::new, |side| cases::all(&side.one))
        });
        for name in cases::NAMES {
            if !series.wants(name) {
                continue;
            }
            place.before_the_gateway()?;
            let read = self.in_turn(TURNS, |turn, side, inside| {
                let case = cases.get(turn);
                let case = case.and_then(|cases| cases.iter().find(|case| case.name == name));
                let case = case.ok_or_else(|| io::Error::other("there is no such case"))?;
                let mut run = |slice| side.one.run(&case.flow, inside, slice, Pace::Bursts, false);
                run(warm)?;
                run(slice).map(|sample| (case.per.of_gateway(), sample))
            });
            place.beside_the_gateway()?;
            let read = read?;
            let Some(((unit, value), _)) = read[0].first() else {
                continue;
            };
            let cost =
                |read: &Vec<(_, Sample)>| median(read.iter().map(|(_, sample)| value(sample)));
            series.note(name, unit, read.each_ref().map(cost));
        }
        Ok(())
    }

    /// The same rate from and to 1, 10 and 1,000 clients; and what 1,000 hold.
    fn many(&mut self, series: &mut Series) -> io::Result<()> {
        let counts = [(1, 0), (10, 1), (MANY, 2)];
        let names = |count| DIRECTIONS.map(|(_, word)| format!("clients/{count} {word}"));
        let wants = |count: usize| names(count).iter().any(|name| series.wants(name));
        let wants_memory = series.wants("idle/memory");
        let wanted = counts.map(|(count, _)| wants(count) || (count == MANY && wants_memory));
        let mut fields: [Vec<Option<Field>>; 2] = Default::default();
        let mut memory = [f64::NAN; 2];
        for ((side, fields), memory) in self.sides.iter_mut().zip(&mut fields).zip(&mut memory) {
            for (count, index) in counts.into_iter().rev() {
                if wanted.get(index) != Some(&true) {
                    fields.insert(0, None);
                    continue;
                }
                let before = sessions::memory(side.gateway.id())?;
                let clients = connect(&self.settings, side.to, count)?;
                let mut field = Field::new(clients, side.gateway.meter.clone());
                if count == MANY && wants_memory {
                    // What the handshakes left is given back in a while.
                    sessions::wait(&mut field, Duration::from_secs(2))?;
                    let after = sessions::memory(side.gateway.id())?;
                    *memory = after.saturating_sub(before) as f64 / MANY as f64 / 1e3;
                }
                fields.insert(0, Some(field));
                side.gateway.skim();
            }
        }
        if wants_memory {
            series.note("idle/memory", "KB", memory);
        }
        let slice = self.options.slice / TURNS;
        for (count, index) in counts {
            for ((direction, _), name) in DIRECTIONS.into_iter().zip(names(count)) {
                if !series.wants(&name) {
                    continue;
                }
                let read = self.in_turn(TURNS, |turn, _, inside| {
                    let field = fields
                        .get_mut(turn)
                        .and_then(|fields| fields.get_mut(index));
                    let field = field.and_then(Option::as_mut);
                    let field = field.ok_or_else(|| io::Error::other("there are no clients"))?;
                    let flow = many::paced(&field.clients, direction);
                    let pace = Pace::Packets(many::RATE);
                    field.run(&flow, inside, slice / 4, pace, false)?;
                    field.run(&flow, inside, slice, pace, false)
                })?;
                let cost = |read: Vec<Sample>| median(read.iter().map(Sample::cpu_ms_per_gb));
                series.note(&name, "ms/GB", read.map(cost));
            }
        }
        Ok(())
    }

    /// How long a packet takes at half of what the lesser of them carries.
    fn latency(&mut self, series: &mut Series) -> io::Result<()> {
        for (direction, word) in DIRECTIONS {
            let shares = [(0.5, "p50"), (0.99, "p99")];
            let names = shares.map(|(share, which)| (share, format!("latency/{word} {which}")));
            if !names.iter().any(|(_, name)| series.wants(name)) {
                continue;
            }
            let slice = self.options.slice;
            let flow = |side: &Side| {
                let clients = &side.one.clients;
                let flow = Flow::new(clients, Kind::Tcp, direction, 1400, 48 * 8);
                let group = if direction == Direction::Uplink {
                    48
                } else {
                    1
                };
                flow.with_group(group)
            };
            let full = self.in_turn(1, |_, side, inside| {
                side.one
                    .run(&flow(side), inside, slice / 4, Pace::Full, false)
            })?;
            let rates = full.iter().flatten().map(half_rate);
            let pace = Pace::Packets(rates.fold(f64::INFINITY, f64::min));
            let read = self.in_turn(1, |_, side, inside| {
                many::probes(direction, &mut side.one, inside).clear();
                let flow = flow(side);
                side.one.run(&flow, inside, slice, pace, true)?;
                Ok(std::mem::take(many::probes(
                    direction,
                    &mut side.one,
                    inside,
                )))
            })?;
            let mut ages = read.map(|ages: Vec<Vec<u64>>| ages.concat());
            for (share, name) in names {
                let value = |ages: &mut Vec<u64>| {
                    probe::percentile(ages, share).map_or(f64::NAN, |age| age as f64 / 1e3)
                };
                let [this, baseline] = &mut ages;
                series.note(&name, "µs", [value(this), value(baseline)]);
            }
        }
        Ok(())
    }

    /// CPU of a session from SYN to an address and its end.
    fn set_ups(&mut self, series: &mut Series) -> io::Result<()> {
        const COUNT: usize = 100;

        if !series.wants("set-ups") {
            return Ok(());
        }
        let settings = Arc::clone(&self.settings);
        let read = self.in_turn(1, |_, side, _| {
            let before = side.gateway.meter.read()?;
            drop(connect(&settings, side.to, COUNT)?);
            // Their ends are part of the cost, and take a moment.
            std::thread::sleep(Duration::from_millis(300));
            let cpu = side.gateway.meter.read()?.saturating_sub(before);
            Ok(cpu.as_secs_f64() * 1e6 / COUNT as f64)
        })?;
        let cost = |values: Vec<f64>| median(values.into_iter());
        series.note("set-ups", "CPU-µs", read.map(cost));
        Ok(())
    }
}

/// Packets a second that are half of what the gateway could carry, of what it did carry when given as
/// much as there is room for.
fn half_rate(full: &Sample) -> f64 {
    let rate = full.packets_per_s() / full.busy().clamp(0.1, 1.0) / 2.0;
    rate.min(full.packets_per_s() * 0.7)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    Spread::of(values).median
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_is_named_as_in_a_run_without_a_baseline() {
        let all = super::super::super::list();
        for name in names() {
            assert!(all.lines().any(|line| line == name), "{name}");
        }
    }

    #[test]
    fn rounds_become_rows_in_the_order_asked_for() {
        let mut series = Series::new(&["udp/up 64", "bulk/down"]);
        assert!(series.wants("bulk/down") && !series.wants("bulk"));
        for _ in 0..6 {
            series.note("bulk/down", "ms/GB", [300.0, 200.0]);
            series.note("udp/up 64", "ns/packet", [2.0, 2.0]);
            series.note("nobody asked", "", [0.0, 0.0]);
        }
        assert_eq!(series.last(), " udp/up 64 1.000, bulk/down 1.500");
        let rows = series.rows(0.05);
        let seen: Vec<_> = rows
            .iter()
            .map(|row| (row.name.as_str(), row.unit))
            .collect();
        assert_eq!(seen, [("udp/up 64", "ns/packet"), ("bulk/down", "ms/GB")]);
        assert_eq!(rows[1].ratio.median, 1.5);
    }

    #[test]
    fn a_round_that_carried_nothing_is_left_out() {
        let mut series = Series::new(&["bulk/down"]);
        series.note("bulk/down", "ms/GB", [300.0, 200.0]);
        for nothing in [f64::NAN, f64::INFINITY, 0.0] {
            series.note("bulk/down", "ms/GB", [nothing, 200.0]);
            series.note("bulk/down", "ms/GB", [300.0, nothing]);
        }
        assert_eq!(series.rows(0.05)[0].rounds, 1);
    }
}
