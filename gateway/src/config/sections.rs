//! The format of the file, section by section: each value alone.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use toml::de::DeTable;

use super::names::{
    DriverKind, InsideKind, KernelTls, LogFormat, LogLevel, Method, RecordLayer, TlsVersion,
};
use super::reader::{Placed, Section};
use super::{Limits, Log, Timeouts};
use crate::diagnostics::Report;

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// Values that were read, with their places; `None`: absent or wrong.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) listen: Vec<Placed<SocketAddr>>,
    /// As many as `listen`.
    pub(super) listen_tcp: Vec<ListenTcp>,
    pub(super) certificate: Option<Placed<PathBuf>>,
    pub(super) key: Option<Placed<PathBuf>>,
    pub(super) min_version: TlsVersion,
    pub(super) record_layer: RecordLayer,
    pub(super) kernel_tx: KernelTls,
    pub(super) kernel_rx: KernelTls,
    pub(super) insecure_key_log: Option<Placed<PathBuf>>,
    pub(super) users: Option<Placed<PathBuf>>,
    /// `None`: not in the file, the default holds.
    pub(super) methods: Option<Vec<Placed<Method>>>,
    pub(super) methods_place: Option<Range<usize>>,
    pub(super) pools: Vec<PoolDraft>,
    pub(super) network: NetworkDraft,
    pub(super) limits: Limits,
    pub(super) sessions_place: Option<Range<usize>>,
    pub(super) timeouts: Timeouts,
    pub(super) shards: Option<Placed<u16>>,
    pub(super) driver: DriverKind,
    pub(super) log: Log,
}

/// How TCP behaves towards the clients of one listener.
#[derive(Clone, Debug)]
pub(super) struct ListenTcp {
    /// Congestion control by the kernel's name; `None`: the system's default.
    pub(super) congestion: Option<Placed<String>>,
    pub(super) user_timeout: Duration,
}

#[derive(Debug)]
pub(super) struct PoolDraft {
    pub(super) place: Option<Range<usize>>,
    pub(super) v4: Option<Placed<Ipv4Net>>,
    pub(super) v4_range: Option<Placed<AddressRange>>,
    pub(super) v4_gateway: Option<Placed<Ipv4Addr>>,
    pub(super) v6: Option<Placed<Ipv6Net>>,
    pub(super) v6_gateway: Option<Placed<Ipv6Addr>>,
    /// Neither network stands in the file, right or wrong.
    pub(super) empty: bool,
    /// A network stands in the file and could not be read.
    pub(super) unread: bool,
}

#[derive(Debug)]
pub(super) struct NetworkDraft {
    pub(super) inside: InsideKind,
    pub(super) tun: Option<Placed<String>>,
    pub(super) mtu: Option<Placed<u16>>,
    pub(super) dns: Vec<Placed<IpAddr>>,
    pub(super) nbns: Vec<Placed<Ipv4Addr>>,
    pub(super) domain: Option<Placed<String>>,
    pub(super) routes: Vec<Placed<IpNet>>,
    pub(super) client_to_client: bool,
    pub(super) offload: bool,
    pub(super) queue_target: Duration,
}

/// `first-last`, both included.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct AddressRange {
    pub(super) first: Ipv4Addr,
    pub(super) last: Ipv4Addr,
}

impl FromStr for AddressRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (first, last) = text.split_once('-').ok_or("there is no `-` in it")?;
        let address = |text: &str| {
            text.trim()
                .parse::<Ipv4Addr>()
                .map_err(|_| format!("`{}` is no IPv4 address", text.trim()))
        };
        let (first, last) = (address(first)?, address(last)?);
        if first > last {
            return Err(format!("{first} comes after {last}"));
        }
        Ok(Self { first, last })
    }
}

/// Reads every section; `directory` is what relative paths are relative to.
pub(super) fn read(table: &DeTable<'_>, directory: &Path, report: &mut Report) -> Draft {
    let mut root = Section::root(table);
    let (listen, listen_tcp) = listen(&mut root, report);

    let mut tls = root.section("tls", report);
    let certificate = path(&mut tls, "certificate", directory, report);
    let key = path(&mut tls, "key", directory, report);
    let min_version = word(
        &mut tls,
        "min_version",
        TlsVersion::V12,
        TlsVersion::wanted(),
        report,
    );
    let record_layer = word(
        &mut tls,
        "record_layer",
        RecordLayer::Own,
        RecordLayer::wanted(),
        report,
    );
    let mut kernel = |key, default| word(&mut tls, key, default, KernelTls::wanted(), report);
    let both = kernel("kernel", KernelTls::Off);
    let kernel_tx = kernel("kernel_tx", both);
    let kernel_rx = kernel("kernel_rx", both);
    let insecure_key_log = optional_path(&mut tls, "insecure_key_log", directory, report);
    tls.finish(report);

    let mut auth = root.section("auth", report);
    let users = path(&mut auth, "users", directory, report);
    let methods_place = auth.place();
    let methods = auth.list::<Method>("methods", &Method::wanted(), report);
    auth.finish(report);

    let pools = root
        .sections("pool", report)
        .into_iter()
        .map(|section| pool(section, report))
        .collect();
    let network = network(root.section("network", report), report);
    let (limits, sessions_place) = limits(root.section("limits", report), report);
    let timeouts = timeouts(root.section("timeouts", report), report);

    let mut shards = root.section("shards", report);
    let count = shards.integer("count", 1..=256, report);
    let driver = word(
        &mut shards,
        "driver",
        DriverKind::Auto,
        DriverKind::wanted(),
        report,
    );
    shards.finish(report);

    let mut log = root.section("log", report);
    let format = word(
        &mut log,
        "format",
        LogFormat::Human,
        LogFormat::wanted(),
        report,
    );
    let level = word(
        &mut log,
        "level",
        LogLevel::Info,
        LogLevel::wanted(),
        report,
    );
    log.finish(report);

    root.finish(report);
    Draft {
        listen,
        listen_tcp,
        certificate,
        key,
        min_version,
        record_layer,
        kernel_tx,
        kernel_rx,
        insecure_key_log,
        users,
        methods,
        methods_place,
        pools,
        network,
        limits,
        sessions_place,
        timeouts,
        shards: count,
        driver,
        log: Log { format, level },
    }
}

fn listen(
    root: &mut Section<'_>,
    report: &mut Report,
) -> (Vec<Placed<SocketAddr>>, Vec<ListenTcp>) {
    const WANTED: &str = "an address and a port, for example \"0.0.0.0:443\" or \"[::]:443\"";
    if !root.has("listen") {
        root.missing(
            "listen",
            "[[listen]] with address = \"0.0.0.0:443\"",
            report,
        );
    }
    let (mut addresses, mut options) = (Vec::new(), Vec::new());
    for mut section in root.sections("listen", report) {
        if !section.has("address") {
            section.missing("address", "address = \"0.0.0.0:443\"", report);
        }
        let address = section.parsed::<SocketAddr>("address", WANTED, report);
        let tcp = ListenTcp {
            congestion: section.string("congestion", report),
            user_timeout: section
                .duration("user_timeout", SECOND..=HOUR, report)
                .unwrap_or(60 * SECOND),
        };
        if let Some(address) = address {
            addresses.push(address);
            options.push(tcp);
        }
        section.finish(report);
    }
    (addresses, options)
}

fn pool(mut section: Section<'_>, report: &mut Report) -> PoolDraft {
    const V4: &str = "an IPv4 network, for example \"10.99.0.0/16\"";
    const V6: &str = "an IPv6 network of /64 or more, for example \"fd00:99::/48\"";
    let (has_v4, has_v6) = (section.has("v4"), section.has("v6"));
    let mut draft = PoolDraft {
        place: section.place(),
        empty: !has_v4 && !has_v6,
        unread: false,
        v4: section.parsed("v4", V4, report),
        v4_range: section.parsed(
            "v4_range",
            "two IPv4 addresses, for example \"10.99.0.10-10.99.0.250\"",
            report,
        ),
        v4_gateway: section.parsed("v4_gateway", "an IPv4 address", report),
        v6: section.parsed("v6", V6, report),
        v6_gateway: section.parsed("v6_gateway", "an IPv6 address", report),
    };
    draft.unread = (has_v4 && draft.v4.is_none()) || (has_v6 && draft.v6.is_none());
    section.finish(report);
    draft
}

fn network(mut section: Section<'_>, report: &mut Report) -> NetworkDraft {
    let draft = NetworkDraft {
        inside: word(
            &mut section,
            "inside",
            InsideKind::Tun,
            InsideKind::wanted(),
            report,
        ),
        tun: section.string("tun", report),
        // 576: every IPv4 host takes it (RFC 791); 4087: what fits one SSTP packet.
        mtu: section.integer("mtu", 576..=4087, report),
        dns: section
            .list("dns", "an address of a DNS server", report)
            .unwrap_or_default(),
        nbns: section
            .list("nbns", "an IPv4 address of a NetBIOS name server", report)
            .unwrap_or_default(),
        domain: section.string("domain", report),
        routes: section
            .list("routes", "a network, for example \"10.0.0.0/8\"", report)
            .unwrap_or_default(),
        client_to_client: section.boolean("client_to_client", report).unwrap_or(false),
        queue_target: section
            .duration("queue_target", MILLISECOND..=SECOND, report)
            .unwrap_or(5 * MILLISECOND),
        offload: section.boolean("offload", report).unwrap_or(true),
    };
    section.finish(report);
    draft
}

fn limits(mut section: Section<'_>, report: &mut Report) -> (Limits, Option<Range<usize>>) {
    let sessions = section.integer("sessions", 1..=1_000_000, report);
    let limits = Limits {
        sessions: sessions.as_ref().map_or(10_000, |sessions| sessions.value),
        handshakes: section
            .integer("handshakes", 1..=1_000_000, report)
            .map_or(1_000, |handshakes| handshakes.value),
        handshakes_per_source: section
            .integer("handshakes_per_source", 1..=1_000_000, report)
            .map_or(32, |handshakes| handshakes.value),
    };
    section.finish(report);
    (limits, sessions.and_then(|sessions| sessions.place()))
}

fn timeouts(mut section: Section<'_>, report: &mut Report) -> Timeouts {
    let mut duration =
        |key, range, default| section.duration(key, range, report).unwrap_or(default);
    let timeouts = Timeouts {
        handshake: duration("handshake", SECOND..=60 * SECOND, 10 * SECOND),
        negotiation: duration("negotiation", SECOND..=HOUR, 60 * SECOND),
        hello: duration("hello", SECOND..=24 * HOUR, 60 * SECOND),
        shutdown: duration("shutdown", MILLISECOND..=HOUR, 5 * SECOND),
    };
    section.finish(report);
    timeouts
}

fn word<T>(
    section: &mut Section<'_>,
    key: &'static str,
    default: T,
    wanted: String,
    report: &mut Report,
) -> T
where
    T: FromStr<Err: std::fmt::Display>,
{
    section
        .parsed(key, &wanted, report)
        .map_or(default, |placed: Placed<T>| placed.value)
}

/// A path that must be there.
fn path(
    section: &mut Section<'_>,
    key: &'static str,
    directory: &Path,
    report: &mut Report,
) -> Option<Placed<PathBuf>> {
    if !section.has(key) {
        section.missing(key, &format!("{key} = \"/etc/sstp-gw/...\""), report);
    }
    optional_path(section, key, directory, report)
}

fn optional_path(
    section: &mut Section<'_>,
    key: &'static str,
    directory: &Path,
    report: &mut Report,
) -> Option<Placed<PathBuf>> {
    let text = section.string(key, report)?;
    if text.is_empty() {
        report.error(text.place(), format!("`{key}` is empty; it must be a path"));
        return None;
    }
    Some(Placed {
        value: directory.join(&text.value),
        span: text.span,
    })
}
