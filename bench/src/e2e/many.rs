//! What changes with the number of clients, with the load, and with the number of shards.

use std::io;

use datapath::time::Duration;

use super::cases::{median, note};
use super::client::Client;
use super::gateway::{Gateway, Plan};
use super::inside::Inside;
use super::load::{Field, Flow, Pace, Sample};
use super::process::Workspace;
use super::report::{Bar, Report, Row, Sense};
use super::{Options, client, connect, connect_to_shards, probe};
use crate::floor::traffic::{Direction, Kind};

/// The names of the figures.
pub(super) const NAMES: [&str; 15] = [
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
    "shards/1 down",
    "shards/2 down",
    "shards/1 up",
    "shards/2 up",
    "shards/handed over",
];

/// Packets a second of all clients together: 2 Gbit/s.
pub(super) const RATE: f64 = 178_571.0;

pub(super) const DIRECTIONS: [(Direction, &str); 2] =
    [(Direction::Downlink, "down"), (Direction::Uplink, "up")];

const fn at_most(bar: f64, stretch: f64) -> Option<Bar> {
    Some(Bar {
        sense: Sense::AtMost,
        bar,
        stretch,
    })
}

/// The segments that one of so many flows sends at a time: what is due in about 4 ms at its rate, at
/// least an initial window (RFC 6928), at most what a superpacket takes.
const fn segments(clients: usize) -> usize {
    match clients {
        0..=10 => 48,
        11..=50 => 24,
        _ => 10,
    }
}

/// The same rate from and to 1, 10 and 1,000 clients.
pub(super) fn clients(
    options: &Options,
    gateway: &mut Gateway,
    inside: &mut Inside,
    report: &mut Report,
) -> io::Result<()> {
    if !options.wants_any(&NAMES[..6]) {
        return Ok(());
    }
    let settings = client::settings()?;
    let mut fields = Vec::new();
    for count in [1, 10, 1000] {
        let clients = connect(&settings, super::OUTSIDE.into(), count)?;
        fields.push(Field::new(clients, gateway.meter.clone()));
        gateway.skim();
    }
    for (direction, word) in DIRECTIONS {
        let mut columns: [Vec<Sample>; 3] = Default::default();
        let flows: Vec<Flow> = fields
            .iter()
            .map(|field| paced(&field.clients, direction))
            .collect();
        for _ in 0..options.reps {
            for ((field, flow), samples) in fields.iter_mut().zip(&flows).zip(&mut columns) {
                let pace = Pace::Packets(RATE);
                field.run(flow, inside, options.slice / 4, pace, false)?;
                samples.push(field.run(flow, inside, options.slice, pace, false)?);
            }
        }
        let [one, ten, thousand] = columns;
        let values = |samples: &[Sample]| -> Vec<f64> {
            samples.iter().map(Sample::cpu_ms_per_gb).collect()
        };
        let first = values(&one);
        let name = |count: usize| format!("clients/{count} {word}");
        report
            .rows
            .push(Row::alone(&name(1), "ms/GB", &first, None).with_note(note(&one)));
        for (count, samples, bar) in [(10, ten, None), (1000, thousand, at_most(3.0, 2.0))] {
            let beside = ("1 client", first.as_slice());
            let row = Row::beside(&name(count), "ms/GB", &values(&samples), beside, bar);
            report.rows.push(row.with_note(note(&samples)));
        }
    }
    Ok(())
}

/// A flow of TCP to or from each, for [`RATE`].
pub(super) fn paced(clients: &[Client], direction: Direction) -> Flow {
    let count = segments(clients.len());
    let group = if direction == Direction::Uplink {
        count
    } else {
        1
    };
    Flow::new(clients, Kind::Tcp, direction, 1400, count)
        .with_group(group)
        .with_window(20_000)
}

/// How long a packet takes at half of what the gateway carries.
pub(super) fn latency(
    options: &Options,
    field: &mut Field,
    inside: &mut Inside,
    report: &mut Report,
) -> io::Result<()> {
    if !options.wants_any(&NAMES[6..10]) {
        return Ok(());
    }
    for (direction, word) in DIRECTIONS {
        let flow = Flow::new(&field.clients, Kind::Tcp, direction, 1400, 48 * 8);
        let group = if direction == Direction::Uplink {
            48
        } else {
            1
        };
        let flow = flow.with_group(group);
        let (mut p50, mut p99, mut samples) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..options.reps {
            let full = field.run(&flow, inside, options.slice / 2, Pace::Full, false)?;
            // Of what the gateway could do, not of what it was given.
            let rate = full.packets_per_s() / full.busy().clamp(0.1, 1.0) / 2.0;
            let rate = rate.min(full.packets_per_s() * 0.7);
            let (sample, ages) = probed(&flow, field, inside, options.slice, rate)?;
            samples.push(sample);
            p50.push(ages[0]);
            p99.push(ages[1]);
        }
        let note = format!(
            "one way with both hops and the harness's own turn; {:.1} Gbit/s, gateway busy {:.0} %",
            median(&samples, Sample::gbit_per_s),
            median(&samples, Sample::busy) * 100.0
        );
        let name = |which| format!("latency/{word} {which}");
        let rows = [
            Row::alone(&name("p50"), "µs", &p50, at_most(50.0, 30.0)),
            Row::alone(&name("p99"), "µs", &p99, at_most(300.0, 150.0)),
        ];
        report
            .rows
            .extend(rows.map(|row| row.with_note(note.clone())));
    }
    Ok(())
}

/// Sends so many packets a second, and probes: what was carried, and in how many microseconds half
/// the probes and 99 of 100 came through.
pub(super) fn probed(
    flow: &Flow,
    field: &mut Field,
    inside: &mut Inside,
    slice: Duration,
    rate: f64,
) -> io::Result<(Sample, [f64; 2])> {
    probes(flow.direction, field, inside).clear();
    let sample = field.run(flow, inside, slice, Pace::Packets(rate), true)?;
    let ages = probes(flow.direction, field, inside);
    let micros = |age: Option<u64>| age.map_or(f64::NAN, |age| age as f64 / 1e3);
    let shares = [0.5, 0.99].map(|share| micros(probe::percentile(ages, share)));
    ages.clear();
    Ok((sample, shares))
}

pub(super) fn probes<'a>(
    direction: Direction,
    field: &'a mut Field,
    inside: &'a mut Inside,
) -> &'a mut Vec<u64> {
    match (direction, field.clients.first_mut()) {
        (Direction::Downlink, Some(client)) => &mut client.inbox().probes,
        _ => &mut inside.probes,
    }
}

/// The same clients on one shard and on two.
pub(super) fn shards(
    options: &Options,
    workspace: &Workspace,
    one: &Gateway,
    inside: &mut Inside,
    report: &mut Report,
) -> io::Result<()> {
    const CLIENTS: usize = 8;

    if !options.wants_any(&NAMES[10..]) {
        return Ok(());
    }
    if workspace.cpus.len() < 2 {
        let why = "shards/: there is one processor";
        report.skipped.push(why.to_owned());
        return Ok(());
    }
    let plan = Plan {
        name: "two-shards",
        listen: "127.0.0.1:445",
        pool: "10.80.0.0/16",
        tun: "sstp2",
        shards: 2,
        sessions: 100,
        network: None,
    };
    let two = Gateway::start(workspace, &plan)?;
    crate::floor::rig::ip("link set sstp2 txqueuelen 2000")?;
    let settings = client::settings()?;
    let mut fields = Vec::new();
    for (port, meter) in [(443, &one.meter), (445, &two.meter)] {
        let to = ([127, 0, 0, 1], port).into();
        // From both processors, whichever the shards.
        let clients = connect_to_shards(workspace, &settings, to, CLIENTS, 2)?;
        fields.push(Field::new(clients, meter.clone()));
    }
    for (direction, word) in DIRECTIONS {
        let mut columns: [Vec<Sample>; 2] = Default::default();
        let flow = |field: &Field| Flow::new(&field.clients, Kind::Tcp, direction, 1400, 48 * 4);
        let flows: Vec<Flow> = fields.iter().map(flow).collect();
        for _ in 0..options.reps {
            for ((field, flow), samples) in fields.iter_mut().zip(&flows).zip(&mut columns) {
                field.run(flow, inside, options.slice / 4, Pace::Bursts, false)?;
                samples.push(field.run(flow, inside, options.slice, Pace::Bursts, false)?);
            }
        }
        let [one, two] = columns;
        let values = |samples: &[Sample]| -> Vec<f64> {
            samples.iter().map(Sample::cpu_ms_per_gb).collect()
        };
        let name = |count: usize| format!("shards/{count} {word}");
        let first = values(&one);
        let row = Row::alone(&name(1), "ms/GB", &first, None);
        report.rows.push(row.with_note(note(&one)));
        let beside = ("1 shard", first.as_slice());
        let row = Row::beside(&name(2), "ms/GB", &values(&two), beside, at_most(1.05, 1.0));
        report.rows.push(row.with_note(note(&two)));
    }
    drop(fields);
    let last = two.stop()?;
    let handed_over = [last.handed_over as f64];
    let row = Row::alone(
        "shards/handed over",
        "packets",
        &handed_over,
        at_most(0.0, 0.0),
    );
    report.rows.push(row.with_note(format!(
        "of the whole run with 2 shards; dropped: {}",
        last.dropped
    )));
    Ok(())
}

/// How far the clocks of CPU time are apart, over one run of `slice`.
pub(super) fn clocks(
    field: &mut Field,
    inside: &mut Inside,
    slice: Duration,
) -> io::Result<String> {
    let flow = Flow::new(&field.clients, Kind::Tcp, Direction::Downlink, 1400, 48 * 8);
    let meter = field.meter.clone();
    // Longer than the run on whatever machine; it counts nothing while the gateway sleeps.
    let perf = meter.perf(slice.as_secs_f64() * 3.0 + 2.0);
    // Attached before the load begins, and read after it has ended.
    std::thread::sleep(slice.min(Duration::from_millis(500)));
    let before = meter.readings();
    field.run(&flow, inside, slice, Pace::Full, false)?;
    let after = meter.readings();
    let perf = perf.and_then(|perf| perf.join().ok().flatten());
    let span = |before: Option<Duration>, after: Option<Duration>| {
        Some(after?.saturating_sub(before?).as_secs_f64() * 1e3)
    };
    let values = [
        ("cgroup cpu.stat", span(before.cgroup, after.cgroup)),
        (
            "threads' schedstat",
            span(before.schedstat, after.schedstat),
        ),
        ("utime + stime (getrusage)", span(before.stat, after.stat)),
        ("perf task-clock", perf.map(|time| time.as_secs_f64() * 1e3)),
    ];
    Ok(disagreement(&values))
}

fn disagreement(values: &[(&str, Option<f64>)]) -> String {
    let known: Vec<f64> = values.iter().filter_map(|(_, value)| *value).collect();
    let least = known.iter().copied().fold(f64::INFINITY, f64::min);
    let most = known.iter().copied().fold(0.0, f64::max);
    let texts: Vec<String> = values
        .iter()
        .map(|(name, value)| match value {
            Some(value) => format!("{name} {value:.0} ms"),
            None => format!("{name} not to be had"),
        })
        .collect();
    format!(
        "CPU time of one run by different clocks: {}; apart by {:.1} %",
        texts.join(", "),
        (most / least - 1.0) * 100.0
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_are_compared_as_far_as_there_are_any() {
        let text = disagreement(&[("a", Some(100.0)), ("b", None), ("c", Some(103.0))]);
        assert!(
            text.contains("b not to be had") && text.ends_with("apart by 3.0 %"),
            "{text}"
        );
    }

    #[test]
    fn bursts_shrink_with_the_number_of_clients() {
        assert_eq!([1, 10, 40, 1000].map(segments), [48, 48, 24, 10]);
    }
}
