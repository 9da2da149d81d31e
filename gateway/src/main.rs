//! `sstp-gw`, the SSTP gateway process: policy and operations.
//!
//! ```text
//! cli ─▶ config (users, pki) ─▶ Snapshot ─▶ serve ─▶ host (TUN, routes)
//!                                             ├────▶ shards (threads, rings, listeners)
//!                                             └────▶ owner ◀─▶ auth, addresses, logs
//! ```
//!
//! The protocol, the packet path and everything `unsafe` are in `datapath`; here are files, people
//! and the kernel's configuration.
//!
//! Exit status: 0 all is well, 1 it failed, 2 wrong usage, 78 the configuration is wrong.

mod addresses;
mod auth;
mod cli;
mod config;
mod demo;
mod diagnostics;
mod driver;
mod files;
mod host;
mod inside;
mod kernel_tls;
mod keylog;
mod logs;
mod owner;
mod pki;
mod serve;
mod shards;
mod users;

use std::fmt::Display;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use clap::Parser as _;

use crate::cli::{Cli, Command, UserCommand};
use crate::config::Snapshot;
use crate::diagnostics::Severity;
use crate::serve::WithoutTun;

// Handshakes allocate and sessions come and go on every shard; the system's allocator keeps what
// one thread gave up from the others.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Wrong usage.
const USAGE: u8 = 2;
/// EX_CONFIG of sysexits.h.
const BAD_CONFIG: u8 = 78;

fn main() -> ExitCode {
    // clap ends the process itself, with 2, when the usage is wrong.
    match Cli::parse().command {
        Command::Demo(flags) => status(demo::run(&flags)),
        Command::Run(flags) => run(&flags),
        Command::Check { config } => check(&config.path),
        Command::User(flags) => user(flags),
    }
}

fn status<E: Display>(result: Result<(), E>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(error),
    }
}

fn fail(error: impl Display) -> ExitCode {
    eprintln!("sstp-gw: {error}");
    ExitCode::FAILURE
}

/// Reads a configuration; says on standard error what keeps it from being used.
fn load(path: &Path) -> Result<(Snapshot, Vec<String>), ExitCode> {
    let loaded = config::load(path, SystemTime::now()).map_err(|error| {
        eprintln!("sstp-gw: {error}");
        ExitCode::from(BAD_CONFIG)
    })?;
    let warnings = loaded
        .reports
        .iter()
        .flat_map(|report| report.messages(Severity::Warning))
        .map(str::to_owned)
        .collect();
    loaded.snapshot.map_or_else(
        || {
            for report in &loaded.reports {
                eprint!("{report}");
            }
            Err(ExitCode::from(BAD_CONFIG))
        },
        |snapshot| Ok((snapshot, warnings)),
    )
}

fn run(flags: &cli::Run) -> ExitCode {
    let (mut snapshot, warnings) = match load(&flags.config.path) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    if flags.shards.is_some() {
        snapshot.config.shards = flags.shards;
    }
    if let Some(driver) = flags.driver {
        snapshot.config.driver = driver;
    }
    logs::start(snapshot.config.log);
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let per_source = snapshot.config.limits.handshakes_per_source;
    status(serve::serve(snapshot, per_source, WithoutTun::Fail, |_| {}))
}

fn check(path: &Path) -> ExitCode {
    let loaded = match config::load(path, SystemTime::now()) {
        Ok(loaded) => loaded,
        Err(error) => {
            eprintln!("sstp-gw: {error}");
            return ExitCode::from(BAD_CONFIG);
        }
    };
    let mut said: String = loaded.reports.iter().map(ToString::to_string).collect();
    let code = match loaded.snapshot {
        Some(snapshot) => {
            let chain = snapshot.identity.chain();
            let until = chain
                .not_after()
                .map_or_else(String::new, |date| format!(", until {date}"));
            said += &format!(
                "certificate for {}{until}\n{}\n{} users; the configuration is good\n",
                chain.names().join(", "),
                driver::probe(snapshot.config.driver),
                snapshot.users.iter().count()
            );
            match kernel_tls::decide(&snapshot.config.tls, &kernel_tls::ThisHost) {
                Ok(decision) => {
                    said.extend(decision.line.map(|line| format!("here, now: {line}\n")));
                }
                // The file is right; it is for another host, or this one is not ready.
                Err(missing) => {
                    said += &format!("on this host, now, it does not start: {missing}\n")
                }
            }
            ExitCode::SUCCESS
        }
        None => ExitCode::from(BAD_CONFIG),
    };
    // A reader that has seen enough (`| head`) changes nothing about the answer.
    let _ = io::stdout().write_all(said.as_bytes());
    code
}

fn user(flags: cli::User) -> ExitCode {
    let path = match users_file(flags.file) {
        Ok(path) => path,
        Err(code) => return code,
    };
    let command = match flags.command {
        UserCommand::Add {
            name,
            password,
            v4,
            v6,
            disabled,
        } => users::Command::Add {
            name,
            pap_only: password.pap_only,
            password_stdin: password.from_stdin,
            v4,
            v6,
            disabled,
        },
        UserCommand::Remove { name } => users::Command::Remove { name },
        UserCommand::List { json } => users::Command::List { json },
        UserCommand::Passwd { name, password } => users::Command::Passwd {
            name,
            pap_only: password.pap_only,
            password_stdin: password.from_stdin,
        },
        UserCommand::Disable { name } => users::Command::Disable {
            name,
            disabled: true,
        },
        UserCommand::Enable { name } => users::Command::Disable {
            name,
            disabled: false,
        },
    };
    status(users::run(&path, command, &mut io::stdout()))
}

/// The users file, named by itself or by the configuration.
fn users_file(flags: cli::UsersFile) -> Result<PathBuf, ExitCode> {
    match (flags.users, flags.config) {
        (Some(users), None) => Ok(users),
        (None, Some(config)) => match config::users_file(&config) {
            Ok(users) => Ok(users),
            Err(error) => {
                eprint!("{error}");
                Err(ExitCode::from(BAD_CONFIG))
            }
        },
        (None, None) => {
            eprintln!("sstp-gw: which users file? Give --config FILE or --users FILE");
            Err(ExitCode::from(USAGE))
        }
        (Some(_), Some(_)) => {
            eprintln!("sstp-gw: give --config FILE or --users FILE, not both");
            Err(ExitCode::from(USAGE))
        }
    }
}
