//! A run from its flags to its exit code: the shards, and the conductor that moves them.

use std::net::IpAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;

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
use datapath::time::{Duration, Instant};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::conduct::{Conduct, Live, Standing};
use super::output;
use super::owner::{self, Fleet};
use super::report::{self, Memory, Report};
use super::tally::Tally;
use super::traffic::{self, Load};
use super::watch::{Sight, Watch};
use crate::connect;
use crate::flags::{self, Direction};
use crate::settings::{self, Stop, Template};
use crate::trust::Trust;

/// Submission queue, receive buffers and send buffers of 64 KB of a shard. The pool's memory is
/// touched only as far as it is used at one time.
const RING_ENTRIES: u32 = 2048;
const RECEIVE_BUFFERS: u16 = 64;
const SEND_BUFFERS_MAX: usize = 1024;

/// Descriptors that the process has besides its connections.
const DESCRIPTORS_FIXED: u64 = 64;

/// How often the conductor looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// From the word to the first start and the first packet, so that every shard has heard it.
const LEAD: Duration = Duration::from_millis(50);

/// The second network protocol may open a moment after the first.
const SECOND_PROTOCOL_WAIT: Duration = Duration::from_secs(1);

/// What is done once all sessions are up.
#[derive(Debug)]
pub(super) enum Scenario {
    Hold(Duration),
    Traffic {
        plan: Arc<traffic::Plan>,
        wait: Duration,
        record_per_packet: bool,
    },
}

/// Runs `loadgen storm`.
pub(crate) fn storm(flags: &flags::Storm) -> ExitCode {
    output::exit(&flags.fleet, run(&flags.fleet, Scenario::Hold(flags.hold)))
}

/// Runs `loadgen traffic`.
pub(crate) fn traffic(flags: &flags::Traffic) -> ExitCode {
    let mean = flags.size.mean() * 8.0;
    let load = match (
        flags.pps,
        flags.pps_per_session,
        flags.bps,
        flags.bps_per_session,
    ) {
        (Some(pps), ..) => Load::Total(pps),
        (_, Some(pps), ..) => Load::PerSession(pps),
        (.., Some(bps), _) => Load::Total(bps / mean),
        (.., bps) => Load::PerSession(bps.unwrap_or(mean) / mean),
    };
    let plan = traffic::Plan {
        direction: flags.direction(),
        to: flags.to,
        load,
        sizes: flags.size.clone(),
        duration: flags.duration,
        run: u32::from_be_bytes(SystemEntropy.array()),
    };
    let scenario = Scenario::Traffic {
        plan: Arc::new(plan),
        wait: flags.wait,
        record_per_packet: flags.record_per_packet,
    };
    output::exit(&flags.fleet, run(&flags.fleet, scenario))
}

/// One shard, as the conductor holds it.
struct Handle {
    live: Arc<Live>,
    waker: Waker,
    thread: JoinHandle<Result<Tally, String>>,
}

fn run(flags: &flags::Fleet, scenario: Scenario) -> Result<Report, Stop> {
    let trust = Trust::of(&flags.access);
    let mut template = Template::new(&flags.access, &flags.server, &trust)?;
    template.link.lcp_echo_interval = (!flags.lcp_echo.is_zero()).then_some(flags.lcp_echo);
    template.settings.timing.hello_interval = flags.sstp_echo.max(Duration::from_secs(1));
    if let Scenario::Traffic {
        record_per_packet, ..
    } = &scenario
    {
        template.settings.limits.record_per_packet = *record_per_packet;
    }
    let sources = &flags.sources.0;
    let address = connect::addresses(&flags.server, sources.first().copied())?
        .into_iter()
        .next()
        .ok_or_else(|| Stop::Failed(format!("{} has no address", flags.server.host)))?;
    let cpus = affinity::cpus();
    let shards = flags.shards.map_or(cpus.len(), usize::from).max(1);
    let shards = shards.min(flags.sessions as usize);
    check_host(flags.sessions, shards, sources)?;

    let conduct = Conduct::new(clock::now() + LEAD * 4);
    let plan = Arc::new(owner::Plan {
        template,
        user: flags.user.clone(),
        first_user: flags.first_user,
        host: settings::name(&flags.access, &flags.server).to_owned(),
        to: address,
        sources: sources.clone(),
        sessions: flags.sessions,
        rate: flags.rate,
        shards: u32::try_from(shards).unwrap_or(1),
        traffic: match &scenario {
            Scenario::Traffic { plan, .. } => Some(Arc::clone(plan)),
            Scenario::Hold(_) => None,
        },
    });
    let is_traffic = matches!(scenario, Scenario::Traffic { .. });
    let watch = Watch::new(flags, is_traffic, shards)?;
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
        flags,
        scenario: &scenario,
        conduct: &conduct,
        handles: &handles,
        memory: &mut memory,
        signals,
        watch,
        span: None,
    };
    let timing = runtime.block_on(conductor.conduct());
    let mut watch = conductor.watch;
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
    }))
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
        let config = shard_config(number, owner.len(), &mailboxes);
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

fn shard_config(index: u16, sessions: usize, mailboxes: &Arc<[Arc<Mailbox>]>) -> shard::Config {
    shard::Config {
        index,
        connections_max: sessions,
        handshakes_max: sessions,
        send_buffers: sessions.saturating_mul(4).clamp(8, SEND_BUFFERS_MAX),
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
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0).saturating_mul(1024)
}

/// The signals that end a run.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    pub(crate) async fn any(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// When the acts of a run took place.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Timing {
    pub(super) setup: Duration,
    pub(super) steady: Duration,
    pub(super) interrupted: bool,
}

struct Conductor<'a> {
    flags: &'a flags::Fleet,
    scenario: &'a Scenario,
    conduct: &'a Conduct,
    handles: &'a [Handle],
    memory: &'a mut Memory,
    signals: Signals,
    watch: Watch,
    /// When the steady act began and will be over.
    span: Option<(Instant, Instant)>,
}

impl Conductor<'_> {
    async fn conduct(&mut self) -> Timing {
        let mut timing = Timing::default();
        let began = self.conduct.setup_at();
        let sessions = u64::from(self.flags.sessions);
        let settled = self.wait(|_, standing| standing.settled >= sessions).await;
        let now = clock::now();
        timing.setup = now.saturating_since(began);
        self.memory.up = resident_bytes();
        let up = self.standing().up;
        if !settled {
            timing.interrupted = true;
            return timing;
        }
        if up == 0 {
            return timing;
        }
        if let Scenario::Traffic { .. } = self.scenario {
            // IPv6 may have opened first; a server that gives no IPv4 is not waited for long.
            let until = now + SECOND_PROTOCOL_WAIT;
            self.wait(|now, standing| standing.addressed >= up || now >= until)
                .await;
        }
        let begin = clock::now() + LEAD;
        self.conduct.steady(begin, up);
        self.wake();
        let (until, patience, early) = match self.scenario {
            Scenario::Hold(hold) => (begin + *hold, Duration::ZERO, false),
            Scenario::Traffic { plan, wait, .. } => {
                let early = plan.direction != Direction::Down;
                (begin + plan.duration, *wait, early)
            }
        };
        self.span = Some((begin, until));
        let shards = self.handles.len() as u64;
        let done = self
            .wait(|now, standing| {
                let is_all_sent = standing.steady >= shards && standing.unsent == 0;
                let is_all_here = early && is_all_sent && standing.received >= standing.sent;
                now >= until && (is_all_here || now >= until + patience)
            })
            .await;
        timing.interrupted = !done;
        timing.steady = clock::now().saturating_since(begin);
        self.memory.up = self.memory.up.max(resident_bytes());
        timing
    }

    /// Waits until `done`; `false` when a signal came first.
    async fn wait(&mut self, done: impl Fn(Instant, &Standing) -> bool) -> bool {
        let mut looks = tokio::time::interval(LOOK_INTERVAL);
        loop {
            tokio::select! {
                () = self.signals.any() => return false,
                _ = looks.tick() => {}
            }
            let (now, standing) = (clock::now(), self.standing());
            self.look(now, &standing);
            // A shard that died has said nothing more, and never will.
            let is_dead = self
                .handles
                .iter()
                .any(|handle| handle.thread.is_finished());
            if is_dead || done(now, &standing) {
                return true;
            }
        }
    }

    fn look(&mut self, now: Instant, standing: &Standing) {
        for (shard, handle) in self.handles.iter().enumerate() {
            self.watch.add(shard, handle.live.samples.take());
        }
        let is_sending = matches!(self.scenario, Scenario::Traffic { .. }) && self.span.is_some();
        self.watch.look(&Sight {
            now,
            began: self.conduct.setup_at(),
            doing: match (self.span, is_sending) {
                (None, _) => "setting up",
                (Some(_), true) => "sending",
                (Some(_), false) => "holding",
            },
            is_sending,
            span: self.span,
            standing: *standing,
        });
    }

    fn standing(&self) -> Standing {
        let mut sum = Standing::default();
        for handle in self.handles {
            handle.live.add_to(&mut sum);
        }
        sum
    }

    fn wake(&self) {
        for handle in self.handles {
            handle.waker.wake();
        }
    }
}
