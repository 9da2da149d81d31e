//! What came of a run: lines while it goes on, a summary at its end, JSON for machines.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use datapath::session::event::{Addresses, EndReason, Milestone, Milestones, Up};
use datapath::time::Duration;
use serde::Serialize;

use crate::client::{Notice, Outcome};
use crate::explain::{self, Failure, PHASES};
use crate::flags::Server;
use crate::ping::Tally;
use crate::trust::Trust;

/// Raised when a field of the JSON changes its meaning or goes.
const SCHEMA_VERSION: u32 = 1;

/// Everything about one run of `connect`.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    schema_version: u32,
    version: &'static str,
    /// Whether all that was asked came about.
    pub(crate) ok: bool,
    server: String,
    address: SocketAddr,
    /// The HTTP proxy in between, whose the address then is.
    proxy: Option<String>,
    user: String,
    session: Option<Session>,
    phases: Vec<Phase>,
    ping: Option<Ping>,
    lcp_echo_us: Option<f64>,
    end: Option<End>,
    failure: Option<Failure>,
    /// Sessions that came up after the first.
    reconnects: u32,
    /// A signal ended it before its time was up.
    pub(crate) interrupted: bool,
}

/// A session that came up.
#[derive(Debug, Serialize)]
struct Session {
    setup_us: Option<f64>,
    ipv4: Option<Ipv4Addr>,
    ipv4_gateway: Option<Ipv4Addr>,
    dns: Vec<Ipv4Addr>,
    ipv6_link_local: Option<Ipv6Addr>,
    ipv6_gateway: Option<Ipv6Addr>,
    tls: Tls,
}

#[derive(Debug, Serialize)]
struct Tls {
    version: String,
    suite: String,
    group: String,
    certificate_verified: bool,
}

/// One phase of the set-up.
#[derive(Debug, Serialize)]
struct Phase {
    name: &'static str,
    us: f64,
}

#[derive(Debug, Serialize)]
struct Ping {
    target: IpAddr,
    sent: u32,
    answered: u32,
    lost: u32,
    reflected: u32,
    duplicates: u32,
    late: u32,
    corrupted: u32,
    round_trip_us: Option<RoundTrips>,
}

#[derive(Debug, Serialize)]
struct RoundTrips {
    min: f64,
    mean: f64,
    p50: f64,
    p90: f64,
    p99: f64,
    max: f64,
}

#[derive(Debug, Serialize)]
struct End {
    reason: &'static str,
    detail: Option<String>,
    uplink_packets: u64,
    uplink_bytes: u64,
    downlink_packets: u64,
    downlink_bytes: u64,
}

/// What a report needs to know beside the outcome.
#[derive(Debug)]
pub(crate) struct Subject<'a> {
    pub(crate) server: &'a Server,
    /// The name its certificate is verified for.
    pub(crate) name: &'a str,
    /// Where the connection goes: the server, or the proxy.
    pub(crate) address: SocketAddr,
    pub(crate) proxy: Option<&'a Server>,
    pub(crate) user: &'a str,
    pub(crate) trust: &'a Trust,
}

impl Report {
    /// The report of a run that is over.
    pub(crate) fn new(subject: &Subject<'_>, outcome: &Outcome) -> Self {
        let milestones = outcome
            .ended
            .as_ref()
            .map(|ended| ended.milestones)
            .or_else(|| outcome.up.as_ref().map(|up| up.milestones))
            .unwrap_or_default();
        let failure = failure(subject, outcome);
        let tally = outcome.target.zip(outcome.tally.as_ref());
        let unanswered = tally.is_some_and(|(_, tally)| tally.sent > 0 && tally.answered == 0);
        Self {
            schema_version: SCHEMA_VERSION,
            version: env!("CARGO_PKG_VERSION"),
            ok: failure.is_none() && !unanswered,
            server: format!("{}:{}", subject.server.host, subject.server.port),
            address: subject.address,
            proxy: subject
                .proxy
                .map(|proxy| format!("{}:{}", proxy.host, proxy.port)),
            user: subject.user.to_owned(),
            session: outcome
                .up
                .as_ref()
                .map(|up| Session::new(up, &outcome.addresses, subject.trust)),
            phases: phases(&milestones),
            ping: tally.map(|(target, tally)| Ping::new(target, tally)),
            lcp_echo_us: outcome.echo.map(micros),
            end: outcome.ended.as_ref().map(|ended| End {
                reason: ended.reason.name(),
                detail: ended.detail.clone(),
                uplink_packets: ended.traffic.uplink_packets,
                uplink_bytes: ended.traffic.uplink_bytes,
                downlink_packets: ended.traffic.downlink_packets,
                downlink_bytes: ended.traffic.downlink_bytes,
            }),
            failure,
            reconnects: outcome.reconnects,
            interrupted: outcome.interrupted,
        }
    }

    /// For machines: one object, pretty-printed.
    pub(crate) fn json(&self) -> String {
        // Only strings and finite numbers are in it, so writing it cannot fail.
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// For people, after the lines of [`line`](fn@line): what it all came to.
    pub(crate) fn summary(&self) -> String {
        let mut text = String::new();
        if let Some(ping) = &self.ping {
            text += &ping.summary();
        }
        if let Some(end) = &self.end
            && self.session.is_some()
        {
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "session ended: {}; {} packets up, {} down",
                end.reason, end.uplink_packets, end.downlink_packets
            );
        }
        if let Some(failure) = &self.failure {
            let _ = writeln!(text, "failed: {}", failure.text);
            if let Some(hint) = failure.hint {
                let _ = writeln!(text, "  {hint}");
            }
        } else if !self.ok {
            text += "failed: no ping was answered\n  \
                     The gateway may drop ICMP; name another host by --ping-to.\n";
        }
        text
    }
}

/// Why the run failed, if it did.
fn failure(subject: &Subject<'_>, outcome: &Outcome) -> Option<Failure> {
    if let Some(error) = &outcome.not_begun {
        return Some(explain::not_begun(error.clone()));
    }
    match &outcome.ended {
        Some(ended) if ended.was_up && ended.reason == EndReason::UserRequest => {
            outcome.no_ping.clone().map(explain::no_ping)
        }
        Some(ended) => Some(explain::failure(ended, subject.name)),
        None => Some(explain::not_begun(
            "the run ended before the session did".to_owned(),
        )),
    }
}

impl Session {
    fn new(up: &Up, addresses: &Addresses, trust: &Trust) -> Self {
        Self {
            setup_us: between(&up.milestones, Milestone::Begun, Milestone::Network).map(micros),
            ipv4: addresses.ipv4,
            ipv4_gateway: addresses.ipv4_gateway,
            dns: addresses.dns.into_iter().flatten().collect(),
            ipv6_link_local: addresses.ipv6_ids.map(|(own, _)| link_local(own)),
            ipv6_gateway: addresses.ipv6_ids.map(|(_, gateway)| link_local(gateway)),
            tls: Tls {
                version: up.protection.version.to_string(),
                suite: up.protection.suite.to_string(),
                group: up.protection.group.to_string(),
                certificate_verified: *trust != Trust::Anybody,
            },
        }
    }
}

impl Ping {
    fn new(target: IpAddr, tally: &Tally) -> Self {
        let trips = &tally.round_trips;
        let us = |nanos| micros(Duration::from_nanos(nanos));
        Self {
            target,
            sent: tally.sent,
            answered: tally.answered,
            lost: tally.lost(),
            reflected: tally.reflected,
            duplicates: tally.duplicates,
            late: tally.late,
            corrupted: tally.corrupted,
            round_trip_us: (!trips.is_empty()).then(|| RoundTrips {
                min: us(trips.min()),
                mean: trips.mean() / 1_000.0,
                p50: us(trips.value_at_quantile(0.5)),
                p90: us(trips.value_at_quantile(0.9)),
                p99: us(trips.value_at_quantile(0.99)),
                max: us(trips.max()),
            }),
        }
    }

    fn summary(&self) -> String {
        let mut text = format!("{} pings, {} answered", self.sent, self.answered);
        for (count, word) in [
            (self.reflected, "reflected"),
            (self.lost, "lost"),
            (self.late, "late"),
            (self.duplicates, "duplicate"),
            (self.corrupted, "corrupted"),
        ] {
            if count > 0 {
                let _ = write!(text, ", {count} {word}");
            }
        }
        if let Some(trips) = &self.round_trip_us {
            let ms = |us: f64| us / 1_000.0;
            let _ = write!(
                text,
                "; round trip min {:.3}, median {:.3}, p99 {:.3}, max {:.3} ms",
                ms(trips.min),
                ms(trips.p50),
                ms(trips.p99),
                ms(trips.max)
            );
        }
        text.push('\n');
        text
    }
}

/// What is printed first.
pub(crate) fn begin(subject: &Subject<'_>) -> String {
    let Subject {
        server,
        address,
        proxy,
        user,
        trust,
        ..
    } = subject;
    let way = match proxy {
        Some(proxy) => format!("by the proxy {} ({address})", proxy.host),
        None => format!("({address})"),
    };
    let mut text = format!("connecting to {} {way} as {user}\n", server.host);
    if **trust == Trust::Anybody {
        text +=
            "  the certificate is NOT verified: anyone on the way can read and change everything\n";
    }
    text
}

/// A notice as one or more lines.
pub(crate) fn line(notice: &Notice, subject: &Subject<'_>) -> String {
    match notice {
        Notice::Up(up) => up_lines(up, subject.trust),
        Notice::Answered { from, answer } => format!(
            "ping {} {from}: {:.3} ms{}\n",
            answer.number,
            micros(answer.round_trip) / 1_000.0,
            if answer.is_reflected {
                " (reflected)"
            } else {
                ""
            }
        ),
        Notice::Lost { target, number } => format!("ping {number} {target}: no answer\n"),
        Notice::NoPing(why) => format!("no ping: {why}\n"),
        Notice::Echoed(round_trip) => {
            format!("LCP echo: {:.3} ms\n", micros(*round_trip) / 1_000.0)
        }
        Notice::Changed(addresses) => {
            let mut text = "the session's addresses are now:\n".to_owned();
            text += &address_lines(addresses);
            text
        }
        Notice::Again { ended, wait } => format!(
            "no session: {}; connecting again in {:.1} s\n",
            explain::failure(ended, subject.name).text,
            wait.as_secs_f64()
        ),
        Notice::NotForwarded(why) => format!("not forwarded: {why}\n"),
    }
}

fn up_lines(up: &Up, trust: &Trust) -> String {
    let session = Session::new(up, &up.addresses, trust);
    let mut text = "session up".to_owned();
    if let Some(us) = session.setup_us {
        let _ = write!(text, " in {:.1} ms", us / 1_000.0);
    }
    text.push('\n');
    text += &address_lines(&up.addresses);
    let Tls {
        version,
        suite,
        group,
        ..
    } = &session.tls;
    let _ = writeln!(text, "  TLS          {version}, {suite}, {group}");
    let _ = writeln!(text, "  certificate  {trust}");
    let phases: Vec<String> = phases(&up.milestones)
        .iter()
        .map(|phase| format!("{} {:.1}", phase.name, phase.us / 1_000.0))
        .collect();
    let _ = writeln!(text, "  phases (ms)  {}", phases.join(", "));
    text
}

fn address_lines(addresses: &Addresses) -> String {
    let mut text = String::new();
    if let Some(address) = addresses.ipv4 {
        let _ = write!(text, "  IPv4         {address}");
        if let Some(gateway) = addresses.ipv4_gateway {
            let _ = write!(text, ", gateway {gateway}");
        }
        let dns: Vec<String> = addresses
            .dns
            .iter()
            .flatten()
            .map(ToString::to_string)
            .collect();
        if !dns.is_empty() {
            let _ = write!(text, ", DNS {}", dns.join(" and "));
        }
        text.push('\n');
    }
    if let Some((own, gateway)) = addresses.ipv6_ids {
        let (own, gateway) = (link_local(own), link_local(gateway));
        let _ = writeln!(text, "  IPv6         {own}, gateway {gateway}");
    }
    text
}

fn link_local(id: u64) -> Ipv6Addr {
    Ipv6Addr::from((0xfe80_u128 << 112) | u128::from(id))
}

/// How long each phase took that was passed, from the milestone before it that was.
fn phases(milestones: &Milestones) -> Vec<Phase> {
    let mut last = milestones.at(Milestone::Begun);
    let mut phases = Vec::new();
    for (milestone, name) in PHASES {
        let Some(at) = milestones.at(milestone) else {
            continue;
        };
        if let Some(since) = last {
            phases.push(Phase {
                name,
                us: micros(at.saturating_since(since)),
            });
        }
        last = Some(at);
    }
    phases
}

fn between(milestones: &Milestones, from: Milestone, to: Milestone) -> Option<Duration> {
    Some(milestones.at(to)?.saturating_since(milestones.at(from)?))
}

/// Microseconds, to a thousandth.
fn micros(duration: Duration) -> f64 {
    let micros = duration.as_secs_f64() * 1e6;
    (micros * 1_000.0).round() / 1_000.0
}
