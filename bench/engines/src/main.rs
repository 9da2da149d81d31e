//! Engines compared: the gateway's pump, without TLS, on what could move its bytes.
//!
//! ```text
//!  engines (clients, inside; processor A) ── TCP, UDP ── engines pump (TUN; processor B)
//! ```
//!
//! bench/README.md says how to read what it prints.

mod case;
mod check;
mod clients;
mod engine;
mod meter;
mod pump;
mod report;
mod rig;
mod run;
mod sys;
mod traffic;
mod trial;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use std::{fs, io};

use clap::{Parser, Subcommand};

use engine::Engine;

/// Compares I/O engines as the pump of the gateway, without TLS. Needs root and iproute2; makes a
/// network namespace of its own, and leaves nothing behind.
#[derive(Debug, Parser)]
#[command(name = "engines")]
struct Flags {
    /// Rounds; in each, every engine is measured once in every case.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Wall-clock time of one measurement, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 800, value_parser = clap::value_parser!(u64).range(50..=60_000))]
    slice: u64,
    /// How long a pump runs before, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(50..=60_000))]
    warm_up: u64,
    /// Only what has this in `direction/length/load engine`, or in an engine's name.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Also writes the result as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// One pump; what the rest starts.
    #[command(hide = true)]
    Pump {
        #[arg(long)]
        engine: Engine,
        #[arg(long)]
        cpu: usize,
        #[arg(long)]
        beside: usize,
        #[arg(long)]
        warm_up: u64,
        #[arg(long)]
        slice: u64,
    },
}

fn main() -> ExitCode {
    match run(Flags::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("engines: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: Flags) -> io::Result<()> {
    if let Some(Part::Pump {
        engine,
        cpu,
        beside,
        warm_up,
        slice,
    }) = flags.part
    {
        return pump::run(pump::Options {
            engine,
            cpu,
            beside,
            warm_up: Duration::from_millis(warm_up),
            slice: Duration::from_millis(slice),
        });
    }
    let options = run::Options {
        rounds: flags.rounds,
        slice: Duration::from_millis(flags.slice),
        warm_up: Duration::from_millis(flags.warm_up),
        only: flags.only,
    };
    let report = run::run(&options)?;
    print!("{report}");
    flags
        .json
        .map_or(Ok(()), |path| fs::write(path, report.to_json()))
}
