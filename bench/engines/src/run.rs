//! All engines through all cases: first each is checked, then they are measured, one after the other
//! within a round, so that what disturbs the machine disturbs all alike.

use std::io;
use std::time::Duration;

use clap::ValueEnum as _;
use datapath::sys::{affinity, uring};

use crate::case::{self, Case, Direction};
use crate::engine::Engine;
use crate::meter::Sample;
use crate::report::{Outcome, Report, Row};
use crate::rig;
use crate::trial::{self, Setting};

/// How to measure.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) rounds: u32,
    pub(crate) slice: Duration,
    pub(crate) warm_up: Duration,
    pub(crate) only: Option<String>,
}

/// Measures in a network of its own.
///
/// # Errors
///
/// If there can be none, or `only` leaves nothing. An engine that fails is a row of the report.
pub(crate) fn run(options: &Options) -> io::Result<Report> {
    let cpus = affinity::cpus();
    let (beside, cpu) = (cpus[0], cpus[cpus.len() - 1]);
    rig::enter_network()?;
    affinity::pin(beside).map_err(io::Error::other)?;
    let setting = Setting {
        cpu,
        beside,
        warm_up: options.warm_up,
        slice: options.slice,
    };
    let mut rows = rows(options.only.as_deref());
    if rows.is_empty() {
        return Err(io::Error::other("no case and engine has that in its name"));
    }
    let load = load_average();
    if let Err(why) = uring::probe() {
        for row in &mut rows {
            if row.engine.needs_io_uring() {
                row.outcome = Outcome::LeftOut(why.to_string());
            }
        }
    }
    check(&mut rows, setting);
    for round in 0..options.rounds {
        eprintln!("round {} of {}", round + 1, options.rounds);
        for row in &mut rows {
            let Outcome::Measured(samples) = &mut row.outcome else {
                continue;
            };
            match trial::measure(row.engine, row.case, setting) {
                Ok(sample) => samples.push(sample),
                Err(error) => row.outcome = Outcome::Failed(error.to_string()),
            }
        }
    }
    Ok(Report::new(options, cpu == beside, load, rows))
}

fn rows(only: Option<&str>) -> Vec<Row> {
    let mut rows = Vec::new();
    for case in case::all() {
        for &engine in Engine::value_variants() {
            rows.push(Row {
                case,
                engine,
                late: 0,
                outcome: Outcome::Measured(Vec::<Sample>::new()),
            });
        }
    }
    if let Some(only) = only {
        let is_wanted = |row: &Row| {
            format!("{} {}", row.case, row.engine.argument()).contains(only)
                || row.engine.name().contains(only)
        };
        rows.retain(is_wanted);
    }
    rows
}

/// Checks each engine once with each direction and length.
fn check(rows: &mut [Row], setting: Setting) {
    let mut done: Vec<(Engine, Direction, usize)> = Vec::new();
    for at in 0..rows.len() {
        let Row { case, engine, .. } = rows[at];
        let Case { direction, len, .. } = case;
        if done.contains(&(engine, direction, len)) || !rows[at].is_wanted() {
            continue;
        }
        done.push((engine, direction, len));
        let checked = trial::check(engine, direction, len, setting);
        let same = rows.iter_mut().filter(|row| {
            (row.engine, row.case.direction, row.case.len) == (engine, direction, len)
        });
        for row in same {
            match &checked {
                Ok(late) => row.late = *late,
                Err(error) => row.outcome = Outcome::Failed(format!("when checked: {error}")),
            }
        }
    }
}

fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}
