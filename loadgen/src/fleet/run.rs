//! A run from its plan to its exit code: the shards, with the conductor that moves them.

use std::net::IpAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc;

use datapath::io::{Io as _, Waker};
use datapath::output::Entropy as _;
use datapath::session::event::DropReason;
use datapath::shard::counters::Published;
use datapath::shard::handoff::Mailbox;
use datapath::shard::route::Directory;
use datapath::shard::{self, Inside, Shard};
use datapath::sys::driver::{self, Choice, Driver};
use datapath::sys::entropy::SystemEntropy;
use datapath::sys::thread::spawn_shard;
use datapath::sys::{affinity, clock, copy_and_sum, limits};
use datapath::time::Duration;

use super::conduct::{Conduct, Live};
use super::conductor::{Conductor, Handle, LEAD, Signals};
use super::curve::Curve;
use super::output;
use super::owner::{self, Fleet, Manner};
use super::plan::{Carry, Phase, Starts};
use super::report::{self, Memory, Report};
use super::tally::Tally;
use super::traffic::Plan;
use super::watch::Watch;
use crate::connect;
use crate::flags;
use crate::persona::Persona;
use crate::seed::Seed;
use crate::settings::{self, Stop, Template};
use crate::trust::Trust;
use crate::users::Users;

/// Submission queue, receive buffers and send buffers of 64 KB of a shard. The pool's memory is
/// touched only as far as it is used at one time.
const RING_ENTRIES: u32 = 2048;
const RECEIVE_BUFFERS: u16 = 64;
const SEND_BUFFERS_MAX: usize = 1024;

/// The same where no phase sends packets: a DHCPINFORM here and there is all that takes one. At 10,000
/// sessions the full number was 13 KB of memory a session.
const SEND_BUFFERS_QUIET: usize = 32;

/// Descriptors that the process has besides its connections.
const DESCRIPTORS_FIXED: u64 = 64;

/// What a report says of the phases after the start: the packets if there are any, otherwise how long
/// the rest is planned to take.
#[derive(Debug)]
pub(super) enum Scenario {
    Hold(Duration),
    Traffic {
        plan: Arc<Plan>,
        record_per_packet: bool,
    },
}

/// What is to be run.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    pub(crate) flags: &'a flags::Fleet,
    pub(crate) phases: Vec<Phase>,
    pub(crate) record_per_packet: bool,
    /// The scenario's file, if there is one.
    pub(crate) file: Option<String>,
}

impl Job<'_> {
    fn scenario(&self) -> Scenario {
        let mut plans = self.phases.iter().filter_map(|phase| match phase {
            Phase::Traffic(carry) => Some(&carry.plan),
            _ => None,
        });
        match plans.next() {
            Some(plan) => Scenario::Traffic {
                plan: Arc::clone(plan),
                record_per_packet: self.record_per_packet,
            },
            None => Scenario::Hold(self.phases.iter().map(Phase::time).sum()),
        }
    }
}

/// All sessions of the flags, at their rate.
fn start_all(flags: &flags::Fleet) -> Phase {
    Phase::Start(Starts {
        first: 0,
        count: flags.sessions,
        curve: Curve::Even { rate: flags.rate },
    })
}

/// Runs `loadgen storm`.
pub(crate) fn storm(flags: &flags::Storm) -> ExitCode {
    perform(&Job {
        flags: &flags.fleet,
        phases: vec![start_all(&flags.fleet), Phase::Hold(flags.hold)],
        record_per_packet: false,
        file: None,
    })
}

/// Runs `loadgen traffic`.
pub(crate) fn traffic(flags: &flags::Traffic) -> ExitCode {
    let carry = Carry {
        plan: Arc::new(Plan::of(flags, u32::from_be_bytes(SystemEntropy.array()))),
        wait: flags.wait,
    };
    perform(&Job {
        flags: &flags.fleet,
        phases: vec![start_all(&flags.fleet), Phase::Traffic(carry)],
        record_per_packet: flags.record_per_packet,
        file: None,
    })
}

/// Runs a plan to its exit code.
pub(crate) fn perform(job: &Job<'_>) -> ExitCode {
    output::exit(job.flags, run(job))
}

fn run(job: &Job<'_>) -> Result<Report, Stop> {
    let flags = job.flags;
    let trust = Trust::of(&flags.access);
    let users = match (&flags.users, &flags.user) {
        (Some(path), _) => Users::read(path)
            .map_err(|error| Stop::Usage(format!("--users {}: {error}", path.display())))?,
        (None, user) => Users::Pattern {
            name: user.clone().unwrap_or_default(),
            first: flags.first_user,
        },
    };
    let manners = manners(job, &trust)?;
    let scenario = job.scenario();
    let sources = &flags.sources.0;
    let address = connect::addresses(&flags.server, sources.first().copied())?
        .into_iter()
        .next()
        .ok_or_else(|| Stop::Failed(format!("{} has no address", flags.server.host)))?;
    let cpus = affinity::cpus();
    let shards = flags.shards.map_or(cpus.len(), usize::from).max(1);
    let shards = shards.min(flags.sessions as usize);
    check_host(flags.sessions, shards, sources)?;
    if let Scenario::Traffic { plan, .. } = &scenario
        && let Some(desk) = &plan.search
    {
        desk.expect(shards);
    }

    let conduct = Conduct::new(job.phases.len(), clock::now() + LEAD * 4);
    let plan = Arc::new(owner::Plan {
        phases: job.phases.clone(),
        manners,
        mix: flags.access.persona.clone(),
        seed: Seed(flags.seed),
        users,
        host: settings::name(&flags.access, &flags.server).to_owned(),
        to: address,
        sources: sources.clone(),
        sessions: flags.sessions,
        shards: u32::try_from(shards).unwrap_or(1),
    });
    let command = match (&job.file, &scenario) {
        (Some(_), _) => "run",
        (None, Scenario::Traffic { .. }) => "traffic",
        (None, Scenario::Hold(_)) => "storm",
    };
    let is_traffic = matches!(scenario, Scenario::Traffic { .. });
    let watch = Watch::new(flags, command, is_traffic, shards)?;
    // From here on a signal ends the run in order.
    let no_signals = |error| Stop::Failed(format!("cannot wait for signals: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(no_signals)?;
    let signals = {
        let _entered = runtime.enter();
        Signals::new().map_err(no_signals)?
    };
    let driver = connect::choice(flags.access.driver);
    let handles = start(&plan, &conduct, &cpus, shards, driver)?;
    let mut memory = Memory {
        before: resident_bytes(),
        up: 0,
    };
    let mut conductor = Conductor {
        phases: &plan.phases,
        conduct: &conduct,
        handles: &handles,
        memory: &mut memory,
        signals,
        watch,
        endings: 0,
        laps: Vec::new(),
    };
    let timing = runtime.block_on(conductor.conduct());
    let Conductor {
        laps, mut watch, ..
    } = conductor;
    // However it went, no thread is left behind.
    conduct.end();
    for handle in &handles {
        handle.waker.wake();
    }
    let mut tally = Tally::default();
    let mut failed = None;
    for (shard, handle) in handles.into_iter().enumerate() {
        let ended = handle.thread.join();
        watch.add(shard, handle.live.samples.take());
        match ended {
            Ok(Ok(one)) => tally.add(&one),
            Ok(Err(error)) => failed = Some(error),
            Err(_) => {
                failed = Some("a thread of loadgen panicked, which is our mistake".to_owned())
            }
        }
    }
    if let Some(error) = failed {
        return Err(Stop::Failed(error));
    }
    let timeline = watch.finish(&mut tally);
    tally.cpu_total += clock::thread_cpu_time();
    Ok(Report::new(&report::Subject {
        flags,
        trust: &trust,
        address,
        scenario: &scenario,
        shards,
        timing: &timing,
        memory: &memory,
        tally: &tally,
        timeline: &timeline,
        laps: &laps,
        file: job.file.as_deref(),
    }))
}

/// How each kind of client of the mix behaves; flags that are given win over a persona.
fn manners(job: &Job<'_>, trust: &Trust) -> Result<Vec<Manner>, Stop> {
    let flags = job.flags;
    let password = settings::password(&flags.access.password)?;
    let of = |persona: Option<&Persona>| {
        let mut template = Template::new(&flags.access, &flags.server, trust, &password, persona)?;
        let plain_echo = persona.is_none().then(|| flags.lcp_echo());
        if let Some(interval) = flags.lcp_echo.or(plain_echo) {
            template.link.lcp_echo_interval = (!interval.is_zero()).then_some(interval);
        }
        if let Some(interval) = flags.sstp_echo {
            template.settings.timing.hello_interval = interval.max(Duration::from_secs(1));
        }
        template.settings.limits.record_per_packet |= job.record_per_packet;
        Ok(Manner {
            template,
            dhcp: flags.dhcp || persona.is_some_and(|persona| persona.dhcp),
        })
    };
    let mut manners = Vec::new();
    for persona in flags.access.persona.personas() {
        manners.push(of(Some(persona))?);
    }
    if manners.is_empty() {
        manners.push(of(None)?);
    }
    Ok(manners)
}

/// Starts a thread a shard, and waits until each has its ring.
fn start(
    plan: &Arc<owner::Plan>,
    conduct: &Arc<Conduct>,
    cpus: &[usize],
    shards: usize,
    driver: Choice,
) -> Result<Vec<Handle>, Stop> {
    let mailboxes: Arc<[_]> = (0..shards).map(|_| Mailbox::new(1)).collect();
    let mut handles: Vec<Handle> = Vec::new();
    let mut failed = None;
    for (index, number) in (0..shards).zip(0_u16..) {
        let (ready, is_ready) = mpsc::channel();
        let live = Arc::new(Live::default());
        let owner = Fleet::new(
            Arc::clone(plan),
            u32::from(number),
            Arc::clone(conduct),
            Arc::clone(&live),
        );
        let carries = plan
            .phases
            .iter()
            .any(|phase| matches!(phase, Phase::Traffic(_)));
        let config = shard_config(number, owner.connections_max(), carries, &mailboxes);
        let cpu = cpus.get(index % cpus.len().max(1)).copied();
        let thread = spawn_shard(format!("clients-{number}"), cpu, move |_| {
            run_shard(owner, config, driver, &ready)
        })
        .map_err(|error| Stop::Failed(format!("cannot start a thread: {error}")))?;
        match is_ready.recv() {
            Ok(Ok(waker)) => handles.push(Handle {
                live,
                waker,
                thread,
            }),
            Ok(Err(why)) => failed = Some(why),
            Err(_) => failed = Some("a thread of loadgen ended at its start".to_owned()),
        }
        if let Some(why) = failed.take() {
            stop(handles, conduct);
            return Err(Stop::Failed(why));
        }
    }
    Ok(handles)
}

/// Ends the shards that were started before one that could not be.
fn stop(handles: Vec<Handle>, conduct: &Conduct) {
    conduct.end();
    for handle in handles {
        handle.waker.wake();
        let _ = handle.thread.join();
    }
}

fn shard_config(
    index: u16,
    sessions: usize,
    carries: bool,
    mailboxes: &Arc<[Arc<Mailbox>]>,
) -> shard::Config {
    let send_buffers_max = if carries {
        SEND_BUFFERS_MAX
    } else {
        SEND_BUFFERS_QUIET
    };
    shard::Config {
        index,
        connections_max: sessions,
        handshakes_max: sessions,
        send_buffers: sessions.saturating_mul(4).clamp(8, send_buffers_max),
        inside: Inside::Owner,
        offloads: None,
        copy_and_sum: copy_and_sum::fastest(),
        isolate: false,
        directory: Arc::new(Directory::new(&[])),
        mailboxes: Arc::clone(mailboxes),
        published: Published::new(),
    }
}

fn run_shard(
    owner: Fleet,
    config: shard::Config,
    driver: Choice,
    ready: &mpsc::Sender<Result<Waker, String>>,
) -> Result<Tally, String> {
    let wanted = driver::Config {
        submission_entries: RING_ENTRIES,
        receive_buffers: RECEIVE_BUFFERS,
        connections: u32::try_from(config.connections_max).unwrap_or(u32::MAX),
        ..driver::Config::default()
    };
    let driver = match Driver::open(driver, wanted) {
        Ok(driver) => driver,
        Err(why) => {
            let _ = ready.send(Err(why.to_string()));
            return Err(why.to_string());
        }
    };
    let _ = ready.send(Ok(driver.waker()));
    let mut shard = Shard::new(driver, owner, SystemEntropy, config);
    shard
        .run()
        .map_err(|error| format!("the I/O driver cannot go on: {error}"))?;
    let counters = shard.counters().clone();
    let mut tally = shard.owner_mut().take_tally();
    tally.own_queue_full = counters.drops(DropReason::QueueFull);
    let all: u64 = DropReason::ALL
        .iter()
        .map(|&reason| counters.drops(reason))
        .sum();
    tally.own_drops = all - tally.own_queue_full;
    tally.sends = counters.totals.sends;
    tally.turns = counters.totals.turns;
    Ok(tally)
}

/// Whether this host lets us open so many connections.
fn check_host(sessions: u32, shards: usize, sources: &[IpAddr]) -> Result<(), Stop> {
    let allowed = limits::raise_open_files()
        .map_err(|error| Stop::Failed(format!("cannot read the limit on open files: {error}")))?;
    let needed = u64::from(sessions) + DESCRIPTORS_FIXED + 8 * shards as u64;
    if needed > allowed {
        return Err(Stop::Failed(format!(
            "{sessions} sessions need {needed} open files, and this process may have {allowed}; raise the \
             limit (shell: ulimit -Hn {needed}, systemd: LimitNOFILE={needed}) or ask for fewer sessions"
        )));
    }
    let range =
        std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut ports = range.split_whitespace().map(str::parse::<u64>);
    if let (Some(Ok(first)), Some(Ok(last))) = (ports.next(), ports.next()) {
        let ports = (last.saturating_sub(first) + 1) * (sources.len().max(1) as u64);
        if u64::from(sessions) > ports {
            return Err(Stop::Failed(format!(
                "{sessions} sessions need as many ports, and the source addresses have {ports} to one \
                 server; give more by --sources, or widen net.ipv4.ip_local_port_range"
            )));
        }
    }
    Ok(())
}

/// Memory of this process that is in use, as the kernel counts it.
pub(super) fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0).saturating_mul(1024)
}
