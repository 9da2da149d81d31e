//! The gateway at work: starts everything, answers the shards, and ends in order.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use datapath::session::event::DropReason;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep_until};

use crate::config::{InsideKind, Snapshot};
use crate::driver::Announcer;
use crate::host::{self, HostError};
use crate::inside::{Change, Inside};
use crate::kernel_tls;
use crate::owner::{Control, FromShard, ToShard};
use crate::shards::{self, Parts, Shards, StartError};

/// Messages handled before signals are looked at again.
const BURST: usize = 1_024;
/// How soon a message that did not fit is sent again.
const RETRY: Duration = Duration::from_millis(5);
/// What shards have beyond their deadline to say that they ended.
const GRACE: Duration = Duration::from_secs(1);

/// Why the gateway ended other than by a signal.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("{0}")]
    Host(#[from] HostError),
    #[error("cannot set up the control plane: {0}")]
    Runtime(io::Error),
    #[error("cannot read the limit on open files: {0}")]
    Limits(io::Error),
    #[error(
        "{needed} descriptors are needed for the configured sessions and handshakes, {allowed} are allowed; \
         raise the limit (systemd: LimitNOFILE={needed}, shell: ulimit -Hn {needed}) or lower `limits.sessions`"
    )]
    Descriptors { needed: u64, allowed: u64 },
    #[error("shard {shard} failed: {error}")]
    Shard { shard: u16, error: String },
}

/// What to do when there is no right to make a TUN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WithoutTun {
    /// Refuse to start.
    Fail,
    /// Say so in one line, and send packets back.
    Reflect,
}

/// How the gateway stands once it serves.
#[derive(Debug)]
pub(crate) struct Standing {
    pub(crate) inside: InsideKind,
    /// What was made on the host.
    pub(crate) made: Vec<String>,
    pub(crate) obstacles: Vec<String>,
}

/// Serves until a signal; `ready` is called once, when connections are accepted.
///
/// # Errors
/// When it cannot start, or a shard fails.
pub(crate) fn serve(
    snapshot: Snapshot,
    per_source: u32,
    without_tun: WithoutTun,
    ready: impl FnOnce(&Standing),
) -> Result<(), ServeError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ServeError::Runtime)?;
    runtime.block_on(async {
        let mut signals = Signals::new().map_err(ServeError::Runtime)?;
        let (mut gateway, standing) = Gateway::start(snapshot, per_source, without_tun).await?;
        let result = gateway.run(&mut signals, &standing, ready).await;
        gateway.shards.join();
        result
    })
}

/// The signals that end the gateway.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.hang_up.recv() => "SIGHUP",
        }
    }
}

struct Gateway {
    snapshot: Arc<Snapshot>,
    control: Control,
    /// The device, if there is one.
    inside: Option<Inside>,
    /// How connections find their shard, in words; and whether that is the better way.
    spread: (String, bool),
    shards: Shards,
    drivers: Announcer,
    ready: usize,
    stopped: usize,
    failure: Option<ServeError>,
    stage: Stage,
}

/// How far the end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Serving,
    /// Sessions are ended politely, until then.
    Draining(Instant),
    /// Everything was told to end at once; nobody waits longer than until then.
    Stopping(Instant),
}

impl Gateway {
    async fn start(
        snapshot: Snapshot,
        per_source: u32,
        without_tun: WithoutTun,
    ) -> Result<(Self, Standing), ServeError> {
        let config = &snapshot.config;
        let cpus = shards::processors(config);
        let needed = shards::descriptors_needed(config, cpus.len());
        let allowed = datapath::sys::limits::raise_open_files().map_err(ServeError::Limits)?;
        if allowed < needed {
            return Err(ServeError::Descriptors { needed, allowed });
        }
        let kernel_tls =
            kernel_tls::decide(&config.tls, &kernel_tls::ThisHost).map_err(StartError::from)?;
        let listeners = config
            .listen
            .iter()
            .map(|listen| shards::listen(listen, &cpus))
            .collect::<Result<Vec<_>, _>>()?;
        let (tun, inside) = match config.network.inside {
            InsideKind::Reflector => (None, InsideKind::Reflector),
            InsideKind::Tun => match Inside::open(config, cpus.len()).await {
                Ok(tun) => (Some(tun), InsideKind::Tun),
                Err(error) if without_tun == WithoutTun::Reflect && error.is_missing_right() => {
                    tracing::warn!("{error}; packets are sent back to their clients instead");
                    (None, InsideKind::Reflector)
                }
                Err(error) => return Err(error.into()),
            },
        };
        let (tun, queues) = tun.unzip();
        let obstacles = match inside {
            InsideKind::Tun => host::obstacles(config),
            InsideKind::Reflector => Vec::new(),
        };
        let memory = shards::fixed_memory(cpus.len());
        tracing::info!(
            shards = cpus.len(),
            sessions_max = config.limits.sessions,
            handshakes_max = config.limits.handshakes,
            descriptors_max = allowed,
            fixed_memory_mib = memory >> 20,
            inside = %inside,
            "starting"
        );
        if let Some(line) = &kernel_tls.line {
            tracing::info!("{line}");
        }
        let spread = shards::spread(&listeners);
        let parts = Parts {
            kernel: kernel_tls.plan,
            cpus,
            listeners,
            queues: queues.unwrap_or_default(),
            steering: tun.as_ref().and_then(Inside::steering),
            offloads: tun.as_ref().and_then(Inside::offloads),
            per_source,
        };
        let shards = shards::start(&snapshot, parts)?;
        let snapshot = Arc::new(snapshot);
        let made = tun.as_ref().map_or(&[][..], Inside::made).to_vec();
        let gateway = Self {
            control: Control::new(Arc::clone(&snapshot)),
            snapshot,
            inside: tun,
            spread,
            shards,
            drivers: Announcer::default(),
            ready: 0,
            stopped: 0,
            failure: None,
            stage: Stage::Serving,
        };
        let standing = Standing {
            inside,
            made,
            obstacles,
        };
        Ok((gateway, standing))
    }

    async fn run(
        &mut self,
        signals: &mut Signals,
        standing: &Standing,
        ready: impl FnOnce(&Standing),
    ) -> Result<(), ServeError> {
        let mut ready = Some(ready);
        let news = Arc::clone(&self.shards.news);
        let mut unsent = false;
        while self.stopped < self.shards.len() {
            let retry = Instant::now() + RETRY;
            tokio::select! {
                biased;
                name = signals.next() => self.signalled(name),
                () = sleep_until(self.stage.deadline()), if self.stage != Stage::Serving => {
                    if !self.overdue() {
                        break;
                    }
                }
                () = sleep_until(retry), if unsent => {}
                // At the end the device goes with the shards.
                change = next_change(&mut self.inside), if self.stage == Stage::Serving => {
                    self.inside_changed(change).await;
                }
                () = news.notified() => {}
            }
            let more = self.receive();
            unsent = !self.shards.flush();
            if more {
                news.notify_one();
            }
            if self.ready == self.shards.len()
                && let Some(ready) = ready.take()
            {
                self.announce(standing);
                ready(standing);
            }
        }
        let counters = self.shards.counters();
        let totals = counters.totals;
        let drops: Vec<_> = DropReason::ALL
            .iter()
            .map(|&reason| (reason.name(), counters.drops(reason)))
            .filter(|&(_, count)| count > 0)
            .map(|(name, count)| format!("{name} {count}"))
            .collect();
        tracing::info!(
            accepted = totals.accepted,
            refused = totals.refused,
            sessions = totals.sessions_up,
            uplink_bytes = totals.uplink_bytes,
            downlink_bytes = totals.downlink_bytes,
            handed_over = totals.handoff_out,
            taken_over = totals.handoff_in,
            dropped = if drops.is_empty() {
                "none".to_owned()
            } else {
                drops.join(", ")
            },
            "stopped"
        );
        for (name, sizes) in counters.sizes.entries() {
            if sizes.count() > 0 {
                tracing::info!(
                    count = sizes.count(),
                    mean = sizes.mean(),
                    half_at_most = sizes.at_most(500),
                    most_at_most = sizes.at_most(990),
                    "sizes of {name}"
                );
            }
        }
        self.failure.take().map_or(Ok(()), Err)
    }

    fn announce(&self, standing: &Standing) {
        for made in &standing.made {
            tracing::info!("made {made}");
        }
        if let Some(inside) = &self.inside {
            inside.announce();
        }
        match &self.spread {
            (how, true) => tracing::info!("outside: {how}"),
            (how, false) => tracing::warn!("outside: {how}"),
        }
        for obstacle in &standing.obstacles {
            tracing::warn!("{obstacle}");
        }
        let listen: Vec<_> = self
            .snapshot
            .config
            .listen
            .iter()
            .map(|listen| listen.address.to_string())
            .collect();
        tracing::info!(listen = listen.join(" "), "serving");
    }

    /// Mends the inside, and tells the shards of it.
    async fn inside_changed(&mut self, change: Change) {
        let Some(inside) = &mut self.inside else {
            return;
        };
        let queues = inside.handle(&self.snapshot.config, change).await;
        for (shard, queue) in (0..).zip(queues) {
            self.shards.send(shard, ToShard::Tun(queue));
        }
    }

    fn signalled(&mut self, name: &str) {
        let within = self.snapshot.config.timeouts.shutdown;
        match self.stage {
            Stage::Serving => {
                tracing::info!(
                    signal = name,
                    within_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX),
                    "ending every session; a second signal ends them at once"
                );
                self.shards.send_all(|| ToShard::Drain(within));
                self.stage = Stage::Draining(Instant::now() + within + GRACE);
            }
            Stage::Draining(_) => {
                tracing::info!(signal = name, "ending at once");
                self.stop();
            }
            Stage::Stopping(_) => {}
        }
    }

    fn stop(&mut self) {
        self.shards.send_all(|| ToShard::Stop);
        self.stage = Stage::Stopping(Instant::now() + GRACE);
    }

    /// The deadline of the stage has passed; `false` when nobody is waited for any longer.
    fn overdue(&mut self) -> bool {
        match self.stage {
            Stage::Serving => true,
            Stage::Draining(_) => {
                tracing::warn!("not every session ended in time");
                self.stop();
                true
            }
            Stage::Stopping(_) => {
                let left = self.shards.len() - self.stopped;
                tracing::error!(left, "shards did not stop; leaving them behind");
                self.shards.abandon();
                false
            }
        }
    }

    /// Handles what the shards have sent; `true` if there may be more.
    fn receive(&mut self) -> bool {
        for _ in 0..BURST {
            let Ok(message) = self.shards.inbox.try_recv() else {
                return false;
            };
            let shards = &mut self.shards;
            match message {
                FromShard::Asked { session, question } => {
                    self.control.ask(session, &question, &mut |shard, message| {
                        shards.send(shard, message);
                    });
                }
                FromShard::Told { at, session, event } => {
                    self.control
                        .told(at, session, &event, &mut |shard, message| {
                            shards.send(shard, message);
                        });
                }
                FromShard::Ready {
                    shard,
                    driver,
                    features,
                    waker,
                } => {
                    self.drivers.announce(driver);
                    tracing::info!(shard, "shard ready: {features}");
                    self.shards.set_waker(shard, waker);
                    self.ready += 1;
                }
                FromShard::TunReplaced { shard, error } => {
                    if let Some(error) = error {
                        tracing::error!(
                            shard,
                            "cannot use the queue of the device made again: {error}; restart the gateway"
                        );
                    }
                }
                FromShard::Stopped { shard, error } => self.shard_stopped(shard, error),
            }
        }
        true
    }

    fn shard_stopped(&mut self, shard: u16, error: Option<String>) {
        self.stopped += 1;
        if let Some(error) = error {
            tracing::error!(shard, "shard failed: {error}");
            self.failure
                .get_or_insert(ServeError::Shard { shard, error });
            if matches!(self.stage, Stage::Serving) {
                // Its listener is gone with it, and every address it held: start anew as a whole.
                self.stop();
            }
        }
    }
}

async fn next_change(inside: &mut Option<Inside>) -> Change {
    match inside {
        Some(inside) => inside.change().await,
        None => std::future::pending().await,
    }
}

impl Stage {
    fn deadline(self) -> Instant {
        match self {
            Self::Serving => Instant::now() + GRACE,
            Self::Draining(deadline) | Self::Stopping(deadline) => deadline,
        }
    }
}
