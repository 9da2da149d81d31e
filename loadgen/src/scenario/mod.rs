//! `loadgen run`: a scenario from a TOML file.
//!
//! ```text
//!   FILE.toml ─ serde ─▶ file::File ─┬─ head ─▶ the flags of `storm`, with those of the command line
//!                                    └─ phases ─▶ fleet's plan                   ─▶ fleet::perform
//! ```
//!
//! The head of the file becomes the flags that it stands for and is read by their parser: there is one
//! definition of what each means. Every mistake is told with the line it is in.

mod file;
mod word;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser as _;
use datapath::output::Entropy as _;
use datapath::sys::entropy::SystemEntropy;
use toml::Spanned;

use self::file::{File, Kind as PhaseKind};
use self::word::{Amount, Rate, Word};
use crate::flags::{self, Direction};
use crate::fleet::churn::{Churn, Weights};
use crate::fleet::curve::Curve;
use crate::fleet::plan::{Carry, Phase, Starts};
use crate::fleet::sizes::Sizes;
use crate::fleet::{BulkPlan, Job, Load, TrafficPlan, perform};
use crate::persona::Mix;

/// No scenario is longer, in bytes, in phases and in sessions.
const FILE_LEN_MAX: u64 = 1 << 20;
const PHASES_MAX: usize = 1_000;
const SESSIONS_MAX: u32 = 1_000_000;

/// What a traffic phase does unless it says otherwise; as the flags of `traffic`.
const TRAFFIC_TIME: Duration = Duration::from_secs(10);
const TRAFFIC_WAIT: Duration = Duration::from_secs(2);

/// Flags that say what the phases say.
const PHASES_OWN: [&str; 4] = ["-N", "--sessions", "--rate", "--hold"];

/// Runs `loadgen run`.
pub(crate) fn run(flags: &flags::Run) -> ExitCode {
    let scenario = match Scenario::read(&flags.file) {
        Ok(scenario) => scenario,
        Err(why) => return usage(&format!("{}: {why}", flags.file.display())),
    };
    let arguments = match scenario.arguments(flags) {
        Ok(arguments) => arguments,
        Err(why) => return usage(&format!("{}: {why}", flags.file.display())),
    };
    let head = match flags::Head::try_parse_from(arguments) {
        Ok(head) => head,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(2);
        }
    };
    if flags.check {
        crate::connect::print(&scenario.summary());
        return ExitCode::SUCCESS;
    }
    perform(&Job {
        flags: &head.fleet,
        phases: scenario.phases,
        record_per_packet: scenario.file.clients.record_per_packet,
        file: Some(flags.file.display().to_string()),
    })
}

fn usage(message: &str) -> ExitCode {
    eprintln!("loadgen: {message}");
    ExitCode::from(2)
}

/// A file that makes sense.
#[derive(Debug)]
struct Scenario {
    file: File,
    /// Where the file is: what it names is looked for there.
    dir: PathBuf,
    phases: Vec<Phase>,
    sessions: u32,
}

impl Scenario {
    fn read(path: &Path) -> Result<Self, String> {
        use std::io::Read as _;

        let mut text = String::new();
        std::fs::File::open(path)
            .and_then(|file| file.take(FILE_LEN_MAX).read_to_string(&mut text))
            .map_err(|error| error.to_string())?;
        let dir = path.parent().unwrap_or_else(|| Path::new("")).to_owned();
        Self::parse(&text, dir)
    }

    fn parse(text: &str, dir: PathBuf) -> Result<Self, String> {
        let file: File = toml::from_str(text).map_err(|error| {
            // Not as toml prints it: that shows the line, which may hold a password.
            let message = error.message().trim_end();
            error
                .span()
                .map_or_else(|| message.to_owned(), |span| at(text, &span, message))
        })?;
        if let Some(personas) = &file.personas {
            mix_of(personas)
                .parse::<Mix>()
                .map_err(|why| at(text, &personas.span(), &format!("[personas]: {why}")))?;
        }
        let mut phases = Vec::new();
        let mut sessions = 0;
        let mut has_ended = false;
        for (number, spanned) in (1..).zip(&file.phases) {
            let explain = |(span, why): (Option<Range<usize>>, String)| {
                let kind = spanned.get_ref().kind.name();
                at(
                    text,
                    &span.unwrap_or_else(|| spanned.span()),
                    &format!("phase {number}, {kind}: {why}"),
                )
            };
            if has_ended {
                return Err(explain((None, "nothing can follow the end".to_owned())));
            }
            match phase(spanned.get_ref(), sessions).map_err(explain)? {
                Some(phase) => {
                    let is_traffic = |phase: &Phase| matches!(phase, Phase::Traffic(_));
                    if is_traffic(&phase) && phases.iter().any(is_traffic) {
                        let why = "there is a traffic phase before it, and a report has one";
                        return Err(explain((None, why.to_owned())));
                    }
                    if let Phase::Start(starts) = &phase {
                        sessions = starts.end();
                    }
                    phases.push(phase);
                }
                None => has_ended = true,
            }
            if sessions > SESSIONS_MAX || phases.len() > PHASES_MAX {
                let why = format!("more than {SESSIONS_MAX} sessions, or {PHASES_MAX} phases");
                return Err(explain((None, why)));
            }
        }
        if !matches!(phases.first(), Some(Phase::Start(_))) {
            return Err(
                "the first [[phase]] must be of kind connect or ramp: nobody is there yet"
                    .to_owned(),
            );
        }
        Ok(Self {
            file,
            dir,
            phases,
            sessions,
        })
    }

    /// The head as flags, and those of the command line behind it.
    fn arguments(&self, run: &flags::Run) -> Result<Vec<OsString>, String> {
        let given: Vec<String> = run
            .flags
            .iter()
            .map(|flag| flag.to_string_lossy().into_owned())
            .collect();
        let is_given = |names: &[&str]| {
            given.iter().any(|flag| {
                let name = flag.split('=').next().unwrap_or_default();
                names.contains(&name)
            })
        };
        if is_given(&PHASES_OWN) {
            return Err(format!("{} are what the phases say", PHASES_OWN.join(", ")));
        }
        let mut arguments: Vec<OsString> = Vec::new();
        let mut put = |flag: &str, value: OsString| {
            let mut word = OsString::from(format!("--{flag}="));
            word.push(value);
            arguments.push(word);
        };
        let File {
            seed,
            fail,
            server,
            users,
            personas,
            clients,
            ..
        } = &self.file;
        put("sessions", self.sessions.to_string().into());
        for threshold in fail {
            put("fail", (&threshold.0.text).into());
        }
        let mut flag = |name: &str, value: Option<OsString>| {
            if let Some(value) = value {
                put(name, value);
            }
        };
        flag("seed", seed.map(|seed| seed.to_string().into()));
        flag("server-name", server.name.as_ref().map(Into::into));
        if !is_given(&["--ca", "--insecure-accept-any-certificate"]) {
            flag("ca", server.ca.as_ref().map(|ca| self.dir.join(ca).into()));
        }
        if !is_given(&["--user", "-u", "--users"]) {
            flag("user", users.pattern.as_ref().map(Into::into));
            flag(
                "first-user",
                users.first.map(|first| first.to_string().into()),
            );
        }
        let has_users = is_given(&["--users", "--user", "-u"]);
        if !has_users && !is_given(&["--password", "--password-stdin"]) {
            flag(
                "users",
                users.file.as_ref().map(|file| self.dir.join(file).into()),
            );
        }
        if !is_given(&["--users", "--password", "--password-stdin"]) {
            flag(
                "password",
                users
                    .password
                    .as_ref()
                    .map(|password| password.0.as_str().into()),
            );
        }
        flag(
            "persona",
            personas.as_ref().map(|personas| mix_of(personas).into()),
        );
        flag(
            "sources",
            clients
                .sources
                .as_ref()
                .map(|sources| (&sources.0.text).into()),
        );
        flag(
            "shards",
            clients.shards.map(|shards| shards.to_string().into()),
        );
        flag(
            "method",
            clients
                .method
                .as_ref()
                .map(|method| method.join(",").into()),
        );
        flag("tls", clients.tls.as_ref().map(Into::into));
        for (name, time) in [
            ("timeout", clients.timeout),
            ("lcp-echo", clients.lcp_echo),
            ("sstp-echo", clients.sstp_echo),
        ] {
            flag(
                name,
                time.map(|time| time.0.as_secs_f64().to_string().into()),
            );
        }
        let switches = [
            ("dhcp", clients.dhcp),
            ("no-ipv4", clients.no_ipv4),
            ("no-ipv6", clients.no_ipv6),
            (
                "insecure-accept-any-certificate",
                server.insecure_accept_any_certificate,
            ),
        ];
        for (name, is_on) in switches {
            if is_on && !(name.starts_with("insecure") && is_given(&["--ca"])) {
                arguments.push(format!("--{name}").into());
            }
        }
        arguments.extend(run.flags.iter().cloned());
        let address = run.server.as_ref().map(|server| {
            let flags::Server { host, port } = server;
            format!("[{host}]:{port}")
        });
        match (address, &server.address) {
            (Some(address), _) => arguments.push(address.into()),
            (None, Some(address)) => arguments.push((&address.0.text).into()),
            (None, None) => {
                return Err("[server] has no address, and there is no --server".to_owned());
            }
        }
        Ok(arguments)
    }

    /// What it would do, a line a phase.
    fn summary(&self) -> String {
        let mut text = format!("{} sessions\n", self.sessions);
        for (number, phase) in (1..).zip(&self.phases) {
            // Writing to a String does not fail.
            let _ = write!(text, "{number:4}  {:8}", phase.name());
            let _ = match phase {
                Phase::Start(starts) => match starts.curve {
                    Curve::Even { rate } => writeln!(text, "{} at {rate}/s", starts.count),
                    Curve::Ramp { from, to, time } => {
                        let seconds = time.as_secs_f64();
                        writeln!(
                            text,
                            "{} at {from}/s to {to}/s in {seconds} s",
                            starts.count
                        )
                    }
                },
                Phase::Hold(_) | Phase::Churn(_) | Phase::Traffic(_) => {
                    writeln!(text, "{} s", phase.time().as_secs_f64())
                }
            };
        }
        text
    }
}

/// `why`, with the line that `span` begins in.
fn at(text: &str, span: &Range<usize>, why: &str) -> String {
    let before = text.get(..span.start).unwrap_or(text);
    format!("line {}: {why}", before.matches('\n').count() + 1)
}

/// As `--persona` takes it.
fn mix_of(personas: &Spanned<std::collections::BTreeMap<String, u32>>) -> String {
    let each = personas
        .get_ref()
        .iter()
        .map(|(name, weight)| format!("{name}={weight}"));
    each.collect::<Vec<_>>().join(",")
}

/// What is wrong with a phase, and where if it is a key's fault.
type Fault = (Option<Range<usize>>, String);

/// The plan of a phase that begins when `sessions` are started; `None` is the end.
fn phase(phase: &file::Phase, sessions: u32) -> Result<Option<Phase>, Fault> {
    let allowed: &[&str] = match phase.kind {
        PhaseKind::Connect => &["sessions", "rate"],
        PhaseKind::Ramp => &["from", "to", "time"],
        PhaseKind::Hold => &["time"],
        PhaseKind::Churn => &["time", "rate", "endings", "return-after"],
        PhaseKind::Traffic => &[
            "time",
            "pps",
            "pps-per-session",
            "bps",
            "bps-per-session",
            "size",
            "direction",
            "far-end",
            "tcp",
            "tcp-window",
            "ping-interval",
            "wait",
        ],
        PhaseKind::End => &[],
    };
    let is_strange = |(key, _): &(&str, Range<usize>)| !allowed.contains(key);
    if let Some((key, span)) = phase.keys().into_iter().find(is_strange) {
        let why = match allowed {
            [] => format!("it has no key {key:?}, nor any other"),
            _ => format!("it has no key {key:?}; its keys are {}", allowed.join(", ")),
        };
        return Err((Some(span), why));
    }
    Ok(Some(match phase.kind {
        PhaseKind::Connect => Phase::Start(Starts {
            first: sessions,
            count: positive_count(&phase.sessions)?,
            curve: Curve::Even {
                rate: positive_rate(&phase.rate, "rate")?,
            },
        }),
        PhaseKind::Ramp => ramp(phase, sessions)?,
        PhaseKind::Hold => Phase::Hold(needed(&phase.time, "time")?.0),
        PhaseKind::Churn => Phase::Churn(churn(phase)?),
        PhaseKind::Traffic => Phase::Traffic(carry(phase)?),
        PhaseKind::End => return Ok(None),
    }))
}

fn needed<'a, T>(value: &'a Option<Spanned<T>>, key: &str) -> Result<&'a T, Fault> {
    let value = value.as_ref().map(Spanned::get_ref);
    value.ok_or_else(|| (None, format!("the key {key:?} is missing")))
}

fn positive_count(count: &Option<Spanned<u32>>) -> Result<u32, Fault> {
    match (needed(count, "sessions")?, count) {
        (0, Some(spanned)) => Err((Some(spanned.span()), "no sessions at all".to_owned())),
        (count, _) => Ok(*count),
    }
}

fn positive_rate(rate: &Option<Spanned<Word<Rate>>>, key: &str) -> Result<f64, Fault> {
    match (needed(rate, key)?.0.0, rate) {
        (none, Some(spanned)) if none <= 0.0 => Err((
            Some(spanned.span()),
            format!("the {key} must be more than 0"),
        )),
        (rate, _) => Ok(rate),
    }
}

fn ramp(phase: &file::Phase, sessions: u32) -> Result<Phase, Fault> {
    let time = needed(&phase.time, "time")?.0;
    let curve = Curve::Ramp {
        from: needed(&phase.from, "from")?.0.0,
        to: needed(&phase.to, "to")?.0.0,
        time,
    };
    let is_flat_zero = matches!(curve, Curve::Ramp { from, to, .. } if from + to <= 0.0);
    let count = if is_flat_zero {
        0
    } else {
        curve.count_within(time)
    };
    if count == 0 {
        return Err((
            None,
            "in that time, at those rates, no session starts".to_owned(),
        ));
    }
    Ok(Phase::Start(Starts {
        first: sessions,
        count,
        curve,
    }))
}

fn churn(phase: &file::Phase) -> Result<Churn, Fault> {
    let endings = match &phase.endings {
        None => Weights::POLITE,
        Some(endings) => {
            let file::Endings {
                polite,
                reset,
                close,
                silent,
            } = *endings.get_ref();
            let weights = [polite, reset, close, silent].map(u32::from);
            if weights == [0; 4] {
                return Err((Some(endings.span()), "no ending has a weight".to_owned()));
            }
            Weights(weights)
        }
    };
    Ok(Churn {
        time: needed(&phase.time, "time")?.0,
        rate: positive_rate(&phase.rate, "rate")?,
        endings,
        return_after: phase.return_after.as_ref().map(|after| after.get_ref().0),
    })
}

fn carry(phase: &file::Phase) -> Result<Carry, Fault> {
    let sizes: Sizes = match &phase.size {
        Some(sizes) => sizes.get_ref().0.clone(),
        None => Sizes::default(),
    };
    let bits = sizes.mean() * 8.0;
    let amount = |amount: &Option<Spanned<Word<Amount>>>, unit: f64| {
        amount.as_ref().map(|amount| amount.get_ref().0.0 / unit)
    };
    let loads = [
        amount(&phase.pps, 1.0).map(Load::Total),
        amount(&phase.pps_per_session, 1.0).map(Load::PerSession),
        amount(&phase.bps, bits).map(Load::Total),
        amount(&phase.bps_per_session, bits).map(Load::PerSession),
    ];
    let mut loads = loads.into_iter().flatten();
    let load = loads.next();
    let has_more = phase.tcp.is_some() || phase.ping_interval.is_some();
    if loads.next().is_some() || (load.is_none() && !has_more) {
        let why = "one of pps, pps-per-session, bps and bps-per-session says how much; or tcp or \
                   ping-interval what else is sent";
        return Err((None, why.to_owned()));
    }
    let time = |time: &Option<Spanned<Word<Duration>>>, plain: Duration| {
        time.as_ref().map_or(plain, |time| time.get_ref().0)
    };
    let direction = phase
        .direction
        .as_ref()
        .map(|direction| *direction.get_ref());
    let far_end = phase.far_end.as_ref().map(|to| to.get_ref().0.0);
    let bulk = match (&phase.tcp, far_end) {
        (None, _) => None,
        (Some(tcp), None) => {
            let why = "tcp wants a far-end".to_owned();
            return Err((Some(tcp.span()), why));
        }
        (Some(tcp), Some(to)) => {
            let window = match &phase.tcp_window {
                Some(window) => window.get_ref().0.0,
                None => flags::window(flags::TCP_WINDOW).map_err(|why| (None, why))?,
            };
            let way = *tcp.get_ref();
            Some(BulkPlan {
                up: way != Direction::Down,
                down: way != Direction::Up,
                to,
                window,
                raw: false,
            })
        }
    };
    Ok(Carry {
        plan: Arc::new(TrafficPlan {
            direction: direction.unwrap_or(Direction::Both),
            to: far_end,
            load,
            bulk,
            ping_interval: phase.ping_interval.as_ref().map(|time| time.get_ref().0),
            search: None,
            sizes,
            duration: time(&phase.time, TRAFFIC_TIME),
            run: u32::from_be_bytes(SystemEntropy.array()),
        }),
        wait: time(&phase.wait, TRAFFIC_WAIT),
    })
}

#[cfg(test)]
mod tests;
