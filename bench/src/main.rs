//! Measurements that are programs of their own: `cargo run --release -p bench -- floor`, `-- e2e`.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use bench::{cost, e2e, floor, gate};
use clap::{Parser, Subcommand};
use datapath::sys::alloc::CountingAllocator;
use datapath::time::Duration;

/// Counts for the gate; nothing that is measured by the clock allocates.
#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

#[derive(Debug, Parser)]
#[command(about = "What the gateway is judged against")]
struct Flags {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// What this machine can do at best: AEAD, TUN, loopback TCP, and one thread that pumps packets
    /// through all of them without any protocol. Needs root; makes a network namespace of its own.
    Floor {
        /// Rounds; in each, every figure is measured once.
        #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=1000))]
        rounds: u32,
        /// Wall-clock time of one measurement, in milliseconds.
        #[arg(long, value_name = "MS", default_value_t = 60)]
        slice: u64,
        /// Only the figures whose name has this in it.
        #[arg(long, value_name = "TEXT")]
        only: Option<String>,
        /// Has what is sent received on another processor than the pump's.
        #[arg(long)]
        apart: bool,
        /// Also writes the result as JSON.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// Instructions and cache lines that a packet costs the gateway, counted under valgrind.
    Cost {
        /// Only the cases whose name has this in it.
        #[arg(long, value_name = "TEXT")]
        only: Option<String>,
        /// Runs the named case here and marks what is to be counted.
        #[arg(long, hide = true, requires = "only")]
        marked: bool,
    },
    /// Instructions and allocations of every path, counted under valgrind and compared with
    /// bench/baseline.json. Fails where a path grew by more than 3 %, or allocates more often.
    Gate {
        /// Only the paths whose name has this in it.
        #[arg(long, value_name = "TEXT")]
        only: Option<String>,
        /// Writes what is counted to bench/baseline.json.
        #[arg(long)]
        update: bool,
        /// Also writes what is counted, as bench/baseline.json is written: two runs can be compared.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
        /// Runs the named path here, once.
        #[arg(long, hide = true, value_name = "PATH")]
        here: Option<String>,
    },
    /// The gateway itself under load, with the floor and other servers beside it. Needs root; makes
    /// network namespaces of its own, and leaves nothing behind.
    E2e {
        /// Rounds; in each, every figure is measured once.
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
        reps: u32,
        /// Wall-clock time of one measurement, in milliseconds.
        #[arg(long, value_name = "MS", default_value_t = 400)]
        slice: u64,
        /// Only the figures whose name has one of these in it.
        #[arg(long, value_name = "TEXT,..", value_delimiter = ',')]
        only: Vec<String>,
        /// Less of everything: under two minutes.
        #[arg(long)]
        quick: bool,
        /// Name the figures and end.
        #[arg(long)]
        list: bool,
        /// Also writes the result as JSON, by bench/schema/e2e-1.json.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
        /// Also writes the result as a page for a browser.
        #[arg(long, value_name = "FILE", conflicts_with = "list")]
        html: Option<PathBuf>,
        /// Builds the gateway of this commit and measures this tree's beside it, in turn, with as many
        /// rounds as it takes to call a difference or --reps if those are more.
        #[arg(long, value_name = "REV", conflicts_with = "list")]
        baseline: Option<String>,
        #[command(flatten)]
        sstp: Box<e2e::SstpFlags>,
    },
}

fn main() -> ExitCode {
    let run = match Flags::parse().command {
        Command::Floor {
            rounds,
            slice,
            only,
            apart,
            json,
        } => {
            let options = floor::Options {
                rounds,
                slice: Duration::from_millis(slice),
                only,
                apart,
            };
            floor::run(&options).and_then(|report| {
                print!("{report}");
                json.map_or(Ok(()), |path| std::fs::write(path, report.to_json()))
            })
        }
        Command::Cost { only, marked } => run_cost(only.as_deref(), marked),
        Command::Gate {
            here: Some(path), ..
        } => gate::run_here(&path),
        Command::Gate {
            only, update, json, ..
        } => {
            let options = gate::Options { only, update, json };
            gate::run(&options).and_then(|is_good| {
                is_good
                    .then_some(())
                    .ok_or_else(|| io::Error::other("the gate is closed"))
            })
        }
        Command::E2e { list: true, .. } => {
            print!("{}", e2e::list());
            Ok(())
        }
        Command::E2e {
            reps,
            slice,
            only,
            quick,
            json,
            html,
            baseline,
            sstp,
            ..
        } => {
            let options = e2e::Options {
                reps: if quick { reps.min(3) } else { reps },
                slice: Duration::from_millis(if quick { slice.min(200) } else { slice }),
                only,
                is_quick: quick,
                sstp: *sstp,
            };
            match baseline {
                Some(name) => e2e::baseline::run(&options, &name)
                    .and_then(|comparison| tell(&comparison, comparison.to_json(), json)),
                None => e2e::run(&options).and_then(|report| {
                    html.map_or(Ok(()), |path| std::fs::write(path, report.to_html()))?;
                    tell(&report, report.to_json(), json)
                }),
            }
        }
    };
    match run {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Prints what came of it, and writes it where it was asked for.
fn tell(report: &impl fmt::Display, in_json: String, file: Option<PathBuf>) -> io::Result<()> {
    print!("{report}");
    file.map_or(Ok(()), |path| std::fs::write(path, in_json))
}

fn run_cost(only: Option<&str>, is_marked: bool) -> io::Result<()> {
    if is_marked {
        let named = cost::CASES.iter().find(|case| Some(case.name) == only);
        let case = named.ok_or_else(|| io::Error::other("there is no such case"))?;
        cost::run_marked(*case);
    } else {
        print!("{}", cost::run(only)?);
    }
    Ok(())
}
