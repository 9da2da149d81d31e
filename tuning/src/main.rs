//! `sstp-tune`: reads a host and says what holds an SSTP gateway on it back.
//!
//! `check` reads `/proc`, `/sys` and `/dev` below a root directory and prints one finding for each
//! point: what was found, what it should be, what that is worth, and the commands that set it and
//! that undo the setting. It changes nothing, needs no rights (what it may not read it reports as
//! unknown), and opens no connection. `apply` sets what the operator names, `undo` restores.
//!
//! Path of a run: flags → [`host::Host`] → every function of [`checks::ALL`] → [`report`] | [`apply`].

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

mod apply;
mod checks;
mod finding;
mod host;
mod plan;
mod recorded;
mod report;

use crate::apply::{Disk, Ending};
use crate::finding::State;
use crate::host::Host;
use crate::plan::{Load, Plan};
use crate::recorded::Recorded;
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
        /// Read the host below this directory, or the one that `sstp-tune record` wrote into this file.
        #[arg(long, value_name = "DIR|FILE", default_value = "/")]
        root: PathBuf,
        /// Print what each point is worth also where it is as it should be.
        #[arg(long, short)]
        verbose: bool,
        /// Exit with 1 also for advice, not only for problems.
        #[arg(long)]
        strict: bool,
    },
    /// Print what `check` reads of this host, as one text that `check --root FILE` reads again.
    ///
    /// For whoever helps from afar. It has the contents of the files that the points are about, which
    /// are settings and counters of this host; no key, no password, not the gateway's configuration.
    Record,
    /// Size a host for a load, from measured costs; print the formulas, a configuration and sysctls.
    Plan(PlanFlags),
    /// Set what the named points advise, and keep the way back; without a name, list what can be chosen.
    ///
    /// Writes /etc/sysctl.d/60-sstp-gw.conf, a drop-in of the unit sstp-gw.service,
    /// /etc/tmpfiles.d/60-sstp-gw.conf and the values that run now. What was there is kept in
    /// /var/lib/sstp-tune/journal first.
    ///
    /// Exit code: 0 if all that was asked for is done, 1 if a part is not, 2 if nothing was done.
    Apply {
        /// Say what would be done, and do nothing.
        #[arg(long)]
        dry_run: bool,
        /// Change the host below this directory instead of this one.
        #[arg(long, value_name = "DIR", default_value = "/")]
        root: PathBuf,
        /// Points by their names, as `check` prints them.
        #[arg(value_name = "POINT")]
        points: Vec<String>,
    },
    /// Restore everything that `apply` changed, files and running values.
    ///
    /// What somebody else changed since is left alone and named.
    ///
    /// Exit code: 0 if everything is as it was, 1 if something was left, 2 if nothing was done.
    Undo {
        /// Say what would be restored, and do nothing.
        #[arg(long)]
        dry_run: bool,
        /// Restore also what somebody else changed since.
        #[arg(long)]
        force: bool,
        /// Restore the host below this directory instead of this one.
        #[arg(long, value_name = "DIR", default_value = "/")]
        root: PathBuf,
    },
}

/// `sstp-tune plan`
#[derive(Debug, Args)]
struct PlanFlags {
    /// Sessions at the same time.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    sessions: u32,
    /// Gbit/s inside the tunnels, both directions together.
    #[arg(long, value_name = "G", value_parser = above_zero)]
    gbps: f64,
    /// New sessions in a second; by default all of them within two minutes.
    #[arg(long, value_name = "S", value_parser = above_zero)]
    setups_per_s: Option<f64>,
    /// Bytes of a packet, for traffic that cannot be merged (voice, games); bulk TCP without.
    #[arg(long, value_name = "B", value_parser = clap::value_parser!(u32).range(20..=1_500))]
    packet_size: Option<u32>,
    /// Round trip to the clients, in milliseconds.
    #[arg(long, value_name = "MS", default_value = "100", value_parser = above_zero)]
    rtt_ms: f64,
    /// Flows of one client at a time, as connection tracking counts them.
    #[arg(long, value_name = "F", default_value = "100")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100_000))]
    flows: u32,
    /// Print the gateway's configuration alone.
    #[arg(long, conflicts_with = "sysctl")]
    config: bool,
    /// Print the sysctls alone.
    #[arg(long)]
    sysctl: bool,
}

/// A number above zero and below a million.
fn above_zero(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number < 1e6 => Ok(number),
        _ => Err("a number above 0 and below 1000000 is needed".to_owned()),
    }
}

fn plan(flags: &PlanFlags) -> ExitCode {
    let plan = Plan::of(Load {
        sessions: flags.sessions,
        gbps: flags.gbps,
        setups_per_s: flags.setups_per_s,
        packet_size: flags.packet_size,
        rtt_ms: flags.rtt_ms,
        flows: flags.flows,
    });
    print(&match (flags.config, flags.sysctl) {
        (true, _) => plan.config(),
        (_, true) => plan.sysctl(),
        _ => plan.text(),
    });
    ExitCode::SUCCESS
}

fn main() -> ExitCode {
    match Flags::parse().command {
        Command::Check {
            json,
            root,
            verbose,
            strict,
        } => check(&root, json, verbose, strict),
        Command::Record => {
            let host = Host::below(PathBuf::from("/"));
            let _ = Report::of(&host);
            let mut record = host.log();
            // It may have secrets in it one day, and only names two files.
            record.files.remove(checks::keys::CONFIG);
            print(&record.text());
            ExitCode::SUCCESS
        }
        Command::Plan(flags) => plan(&flags),
        Command::Apply {
            dry_run,
            root,
            points,
        } => {
            let findings = Report::of(&Host::below(root.clone())).findings;
            if points.is_empty() {
                print(&apply::choices(&findings));
                return ExitCode::SUCCESS;
            }
            let disk = Disk::below(root);
            ended(apply::apply(&disk, &findings, &points, dry_run))
        }
        Command::Undo {
            dry_run,
            force,
            root,
        } => ended(apply::undo(&Disk::below(root), dry_run, force)),
    }
}

/// Prints how a change went; its exit code.
fn ended(result: Result<(String, Ending), String>) -> ExitCode {
    match result {
        Ok((text, Ending::Done)) => {
            print(&text);
            ExitCode::SUCCESS
        }
        Ok((text, Ending::InPart)) => {
            print(&text);
            ExitCode::from(1)
        }
        Err(why) => {
            eprintln!("sstp-tune: {why}");
            ExitCode::from(2)
        }
    }
}

/// Prints; a reader that has gone away (`| head`) is no reason to fail.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn check(root: &Path, json: bool, verbose: bool, strict: bool) -> ExitCode {
    let host = match open(root) {
        Ok(host) => host,
        Err(why) => {
            eprintln!("sstp-tune: --root {}: {why}", root.display());
            return ExitCode::from(2);
        }
    };
    let report = Report::of(&host);
    let text = if json {
        report.json()
    } else {
        let coloured = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        report.table(verbose, coloured)
    };
    print(&text);

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

/// The host below a directory, or in a record.
fn open(root: &Path) -> Result<Host, String> {
    if root.is_dir() {
        return Ok(Host::below(root.to_owned()));
    }
    let text = std::fs::read_to_string(root).map_err(|error| error.to_string())?;
    Ok(Host::recorded(Recorded::parse(&text)?))
}
