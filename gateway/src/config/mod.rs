//! The configuration: one file in, one immutable value out.
//!
//! ```text
//! file ── sections ──> Draft (values and where they stand) ── cross ──> Config
//!                        └────────── Report: everything wrong ──────────┘
//! ```
//!
//! A [`Snapshot`] is everything the gateway takes from disk, read at one moment and never changed;
//! a reload makes a new one and swaps it.

mod cross;
mod names;
mod pools;
mod reader;
mod sections;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use datapath::services::Profile;
use ipnet::{Ipv4Net, Ipv6Net};
use toml::de::DeTable;

pub(crate) use names::{
    DriverKind, InsideKind, KernelTls, LogFormat, LogLevel, Method, RecordLayer, TlsVersion,
};
pub(crate) use reader::{Placed, Section};

use crate::diagnostics::Report;
use crate::files;
use crate::pki;
use crate::users::Users;

/// What an operator sets; every value is checked, alone and against the others.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) listen: Vec<Listen>,
    pub(crate) tls: Tls,
    pub(crate) auth: Auth,
    pub(crate) pools: Vec<Pool>,
    pub(crate) network: Network,
    pub(crate) limits: Limits,
    pub(crate) timeouts: Timeouts,
    /// How many shards; `None`: one a CPU that we may use.
    pub(crate) shards: Option<u16>,
    /// `shards.driver`
    pub(crate) driver: DriverKind,
    pub(crate) log: Log,
}

/// Where clients connect to, and how TCP behaves towards them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Listen {
    pub(crate) address: SocketAddr,
    /// Congestion control by the kernel's name; `None`: the system's default.
    pub(crate) congestion: Option<String>,
    /// How long sent bytes may stay unacknowledged.
    pub(crate) user_timeout: Duration,
}

/// `[tls]`
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    pub(crate) min_version: TlsVersion,
    pub(crate) record_layer: RecordLayer,
    /// Whether the kernel seals what is sent.
    pub(crate) kernel_tx: KernelTls,
    /// Whether it opens what is received.
    pub(crate) kernel_rx: KernelTls,
    /// Where to write TLS secrets for a packet capture; for support only.
    pub(crate) insecure_key_log: Option<PathBuf>,
}

/// `[auth]`
#[derive(Clone, Debug)]
pub(crate) struct Auth {
    /// In order of preference.
    pub(crate) methods: Vec<Method>,
}

/// One `[[pool]]`: addresses inside, of which sessions get theirs.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    pub(crate) v4: Option<PoolV4>,
    pub(crate) v6: Option<PoolV6>,
}

/// A network of IPv4 addresses, one a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PoolV4 {
    /// What is routed into the TUN; static addresses may be anywhere in it.
    pub(crate) network: Ipv4Net,
    /// First and last address given to users that have no static one.
    pub(crate) range: (Ipv4Addr, Ipv4Addr),
    /// Ours, the sessions' peer.
    pub(crate) gateway: Ipv4Addr,
}

/// A network of IPv6 prefixes, one /64 a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PoolV6 {
    /// What is routed into the TUN; its first /64 is ours.
    pub(crate) network: Ipv6Net,
    /// Ours, in the first /64.
    pub(crate) gateway: Ipv6Addr,
}

/// `[network]`: the inside, and what clients are told about it.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    pub(crate) inside: InsideKind,
    /// Name of the TUN device.
    pub(crate) tun: String,
    pub(crate) mtu: u16,
    pub(crate) dns: Vec<IpAddr>,
    pub(crate) nbns: Vec<Ipv4Addr>,
    /// DNS, domain and routes as the services inside the tunnel tell them.
    pub(crate) profile: Arc<Profile>,
    pub(crate) client_to_client: bool,
    /// Whether the TUN is asked for superpackets.
    pub(crate) offload: bool,
    /// How long packets for a client may stand in its queue (CoDel's target, RFC 8289).
    pub(crate) queue_target: Duration,
}

/// `[limits]`
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) sessions: u32,
    /// Connections that have not logged in yet.
    pub(crate) handshakes: u32,
    /// Of these, from one source address (IPv6: from one /64).
    pub(crate) handshakes_per_source: u32,
}

/// `[timeouts]`
#[derive(Clone, Debug)]
pub(crate) struct Timeouts {
    /// From accept to a whole HTTP request.
    pub(crate) handshake: Duration,
    /// MS-SSTP §3.1.2's negotiation timer, of each of its two phases.
    pub(crate) negotiation: Duration,
    /// MS-SSTP §3.1.2's hello timer.
    pub(crate) hello: Duration,
    /// What polite endings may take altogether when the gateway stops.
    pub(crate) shutdown: Duration,
}

/// `[log]`
#[derive(Clone, Copy, Debug)]
pub(crate) struct Log {
    pub(crate) format: LogFormat,
    pub(crate) level: LogLevel,
}

/// Everything taken from disk, at one moment.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) config: Config,
    pub(crate) identity: pki::Identity,
    pub(crate) users: Arc<Users>,
}

/// What became of reading a configuration.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// `None` if a report has an error.
    pub(crate) snapshot: Option<Snapshot>,
    /// One a file that was read.
    pub(crate) reports: Vec<Report>,
}

/// Reads the file and everything it names; says all that is wrong.
///
/// # Errors
/// When the file itself cannot be read, so that there is nothing to report on.
pub(crate) fn load(path: &Path, now: SystemTime) -> Result<Loaded, files::FileError> {
    let source = files::read_text(path)?;
    let mut report = Report::new(path, &source);
    let (table, syntax) = DeTable::parse_recoverable(&source);
    if !syntax.is_empty() {
        // What could be read of a broken file would be reported as missing or unknown: noise.
        for error in syntax {
            report.error(
                error.span(),
                format!("this is not TOML: {}", error.message()),
            );
        }
        return Ok(Loaded {
            snapshot: None,
            reports: vec![report],
        });
    }
    let directory = path.parent().unwrap_or_else(|| Path::new("."));
    let draft = sections::read(table.get_ref(), directory, &mut report);
    let pools = pools::check(&draft, &mut report);
    let config = cross::check(&draft, &pools, &mut report);
    let identity = cross::identity(&draft, now, &mut report);
    let (users, users_report) = cross::users(&draft, &pools, &mut report);
    let mut reports = vec![report];
    reports.extend(users_report);
    let snapshot = match (config, identity, users) {
        (Some(config), Some(identity), Some(users)) if !reports.iter().any(Report::has_errors) => {
            Some(Snapshot {
                config,
                identity,
                users: Arc::new(users),
            })
        }
        _ => None,
    };
    Ok(Loaded { snapshot, reports })
}

/// The users file that the configuration at `path` names, whatever else is wrong with it: the file
/// may have to be made before the configuration can be right.
///
/// # Errors
/// A text for people that says why there is none.
pub(crate) fn users_file(path: &Path) -> Result<PathBuf, String> {
    let source = files::read_text(path).map_err(|error| format!("sstp-gw: {error}\n"))?;
    let mut report = Report::new(path, &source);
    let (table, syntax) = DeTable::parse_recoverable(&source);
    for error in syntax {
        report.error(
            error.span(),
            format!("this is not TOML: {}", error.message()),
        );
    }
    if report.has_errors() {
        return Err(report.to_string());
    }
    let directory = path.parent().unwrap_or_else(|| Path::new("."));
    sections::read(table.get_ref(), directory, &mut report)
        .users
        .map(|users| users.value)
        .ok_or_else(|| report.to_string())
}
