//! The command line: one definition per flag.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use ipnet::Ipv6Net;

use crate::config::{DriverKind, InsideKind, LogFormat, LogLevel};
use crate::users::parse_prefix;

/// An SSTP gateway.
#[derive(Debug, Parser)]
#[command(
    name = "sstp-gw",
    version,
    about = "An SSTP gateway: Windows, RouterOS, iOS, Android and Linux connect to it as they are",
    after_help = "Exit status: 0 all is well, 1 it failed, 2 wrong usage, 78 the configuration is wrong.",
    max_term_width = 100,
    disable_help_subcommand = true
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run at once, with a certificate, a user and a pool of its own, and print how to connect
    ///
    /// Makes everything in a fresh directory and a TUN device; removes all of it on exit. Without the
    /// right to make a TUN, packets are sent back with their addresses swapped, which is enough for
    /// loadgen.
    Demo(Demo),
    /// Run as configured, until SIGTERM or SIGINT
    ///
    /// The first signal ends every session politely within `timeouts.shutdown`, the second one at once.
    Run(Run),
    /// Check a configuration and everything it names; print all that is wrong
    Check {
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Edit the users file
    ///
    /// The file keeps the NT hash of each password, which MS-CHAPv2 needs. It is password-equivalent:
    /// whoever reads it can log in. Users who log in by PAP alone can have an Argon2 hash instead
    /// (--pap-only).
    User(User),
}

/// `--config`
#[derive(Debug, Args)]
pub(crate) struct ConfigFile {
    /// The configuration file, in TOML
    #[arg(long = "config", short = 'c', value_name = "FILE")]
    pub(crate) path: PathBuf,
}

/// `sstp-gw run`
#[derive(Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) config: ConfigFile,
    /// How many shards, instead of `shards.count` in the file
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) shards: Option<u16>,
    /// "auto", "io_uring" or "epoll", instead of `shards.driver` in the file
    #[arg(long, value_name = "DRIVER")]
    pub(crate) driver: Option<DriverKind>,
}

/// `sstp-gw demo`
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Where to listen; by default 0.0.0.0:443, or 127.0.0.1:8443 without the right to that
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<SocketAddr>,
    /// The name or address by which clients will connect; by default this host's
    #[arg(long, value_name = "NAME")]
    pub(crate) host: Option<String>,
    /// How many shards
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) shards: Option<u16>,
    /// What the shards do their I/O with: "auto", "io_uring" or "epoll"; by default io_uring where it is allowed
    #[arg(long, value_name = "DRIVER", default_value = "auto")]
    pub(crate) driver: DriverKind,
    /// Where packets from the tunnels go: "tun" or "reflector"; by default a TUN if that is allowed
    #[arg(long, value_name = "KIND")]
    pub(crate) inside: Option<InsideKind>,
    /// Let clients reach the network behind this host: forward packets and translate their addresses
    ///
    /// Sets net.ipv4.ip_forward and adds an nftables table; both are undone on exit.
    #[arg(long)]
    pub(crate) forward: bool,
    /// How log lines look: "human" or "json"
    #[arg(long, value_name = "FORMAT", default_value = "human")]
    pub(crate) log_format: LogFormat,
    /// What is logged: "error", "warn", "info", "debug" or "trace"
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub(crate) log_level: LogLevel,
}

/// `sstp-gw user`
#[derive(Debug, Args)]
pub(crate) struct User {
    #[command(flatten)]
    pub(crate) file: UsersFile,
    #[command(subcommand)]
    pub(crate) command: UserCommand,
}

/// Which users file.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(crate) struct UsersFile {
    /// The configuration that names the users file
    #[arg(long, short = 'c', value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,
    /// The users file itself
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) users: Option<PathBuf>,
}

/// What to do with it.
#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Add a user; the password is asked for, or read from standard input
    Add {
        /// The name, as the client sends it
        name: String,
        #[command(flatten)]
        password: Password,
        /// Always give this IPv4 address
        #[arg(long, value_name = "ADDRESS")]
        v4: Option<Ipv4Addr>,
        /// Always give this IPv6 /64
        #[arg(long, value_name = "PREFIX", value_parser = parse_prefix)]
        v6: Option<Ipv6Net>,
        /// Not allowed to log in yet
        #[arg(long)]
        disabled: bool,
    },
    /// Remove a user
    Remove {
        /// The name
        name: String,
    },
    /// List every user; no secret is shown
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Set a user's password anew
    Passwd {
        /// The name
        name: String,
        #[command(flatten)]
        password: Password,
    },
    /// Let a user log in no more
    Disable {
        /// The name
        name: String,
    },
    /// Let a disabled user log in again
    Enable {
        /// The name
        name: String,
    },
}

/// Where a password comes from, and what is kept of it.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Password {
    /// Read the password from the first line of standard input, instead of asking for it
    #[arg(long = "password-stdin")]
    pub(crate) from_stdin: bool,
    /// Keep an Argon2 hash: safer in the file, but the user can log in by PAP only
    #[arg(long)]
    pub(crate) pap_only: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn help(path: &[&str]) -> String {
        let mut command = Cli::command().term_width(100);
        command.build();
        let mut found = &mut command;
        for name in path {
            found = found.find_subcommand_mut(name).unwrap();
        }
        found.render_long_help().to_string()
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_is_as_promised() {
        insta::assert_snapshot!("help", help(&[]));
        insta::assert_snapshot!("help-demo", help(&["demo"]));
        insta::assert_snapshot!("help-run", help(&["run"]));
        insta::assert_snapshot!("help-check", help(&["check"]));
        insta::assert_snapshot!("help-user", help(&["user"]));
        insta::assert_snapshot!("help-user-add", help(&["user", "add"]));
        insta::assert_snapshot!("help-user-passwd", help(&["user", "passwd"]));
        insta::assert_snapshot!("help-user-list", help(&["user", "list"]));
    }

    #[test]
    fn a_password_is_never_an_argument() {
        for arguments in [
            vec!["sstp-gw", "user", "add", "alice", "secret"],
            vec!["sstp-gw", "user", "add", "alice", "--password", "secret"],
            vec!["sstp-gw", "user", "add", "alice", "--password-stdin=secret"],
        ] {
            assert_eq!(Cli::try_parse_from(arguments).unwrap_err().exit_code(), 2);
        }
    }
}
