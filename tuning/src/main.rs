//! `sstp-tune`: reads a host and says what holds an SSTP gateway on it back.
//!
//! `check` reads `/proc`, `/sys` and `/dev` below a root directory and prints one finding for each
//! point: what was found, what it should be, what that is worth, and the commands that set it and
//! that undo the setting. It changes nothing, needs no rights (what it may not read it reports as
//! unknown), and opens no connection.
//!
//! Path of a run: flags → [`host::Host`] → every function of [`checks::ALL`] → [`report`].

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod checks;
mod finding;
mod host;
mod report;

use crate::finding::State;
use crate::host::Host;
use crate::report::Report;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Reads this host and says what holds an SSTP gateway on it back.
///
/// Nothing is changed: every setting is printed as a command to run, beside the one that undoes it.
#[derive(Debug, Parser)]
#[command(name = "sstp-tune", version)]
struct Flags {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Read the host and print one finding for each point.
    ///
    /// Exit code: 0 if nothing stops a gateway here, 1 if a point is a problem, 2 for a usage error.
    Check {
        /// Print JSON for machines instead of the table.
        #[arg(long)]
        json: bool,
        /// Read /proc, /sys and /dev below this directory (a recorded host) instead of this host's.
        #[arg(long, value_name = "DIR", default_value = "/")]
        root: PathBuf,
        /// Print what each point is worth also where it is as it should be.
        #[arg(long, short)]
        verbose: bool,
        /// Exit with 1 also for advice, not only for problems.
        #[arg(long)]
        strict: bool,
    },
}

fn main() -> ExitCode {
    let Flags { command } = Flags::parse();
    let Command::Check {
        json,
        root,
        verbose,
        strict,
    } = command;
    if !root.is_dir() {
        eprintln!("sstp-tune: --root {}: not a directory", root.display());
        return ExitCode::from(2);
    }

    let host = Host::below(root);
    let report = Report::of(&host);
    let text = if json {
        report.json()
    } else {
        let coloured = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        report.table(verbose, coloured)
    };
    // A reader that has gone away (`| head`) is no reason to fail.
    let _ = std::io::stdout().write_all(text.as_bytes());

    let limit = if strict {
        State::Advice
    } else {
        State::Problem
    };
    if report.worst() >= limit {
        ExitCode::from(1)
    } else {
        ExitCode::SUCCESS
    }
}
