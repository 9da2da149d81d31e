//! The inside as it stands: what its device was given, and what is done when the device falls.
//!
//! Whoever rules the host may set the device down, delete it or change its MTU while traffic runs. The
//! kernel tells (netlink, group link), and the control thread mends:
//!
//! ```text
//!             down                            deleted
//!  Up ────────────────▶ Down      Up, Down ──────────────▶ Gone
//!  Up ◀──────────────── Down           Up ◀────────────── Gone
//!       up: addresses and routes            made again: queues, steering, addresses, routes;
//!       are given again                     tried at longer and longer intervals
//! ```
//!
//! Sessions stay. What they send meanwhile is dropped and counted (`inside-down`); no shard asks a
//! dead device again and again. A log line a change, at most [`LINES_MAX`] in [`LINES_PERIOD`].

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use datapath::io::{Steering, TunQueue};
use datapath::ip::offload::merge::Offloads;
use datapath::sys::bpf::{SteeringError, SteeringMap};
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::config::Config;
use crate::host::{self, HostError, Tun};

/// How long a device that went down may take to turn out deleted; then it is said to be down.
const DOWN_PAUSE: Duration = Duration::from_millis(200);
/// First pause before a device that could not be made is tried again; doubles up to the last.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_LAST: Duration = Duration::from_secs(30);
/// How long the news of its own making may lag behind a device.
const SETTLE: Duration = Duration::from_secs(1);
/// News that may wait to be looked at; beyond it the kernel's own buffer fills, and then it says so.
const NEWS_MAX: usize = 256;
/// Log lines in so much time, at most, whatever happens to the device.
const LINES_MAX: u32 = 10;
const LINES_PERIOD: Duration = Duration::from_secs(10);

/// What the kernel tells, or the clock.
#[derive(Debug)]
pub(crate) enum Change {
    /// An interface is as told.
    Link {
        index: u32,
        up: bool,
        mtu: Option<u32>,
    },
    /// An interface is no more.
    Deleted { index: u32 },
    /// Some news was lost.
    Lost,
    /// It is time to look after what is open.
    Due,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Made then; the news of it may still be on its way.
    Settling(Instant),
    Up,
    Down {
        since: Instant,
        /// When it shall be told in the log, if it is not yet.
        say_at: Option<Instant>,
    },
    Gone {
        since: Instant,
        try_at: Instant,
        pause: Duration,
    },
}

/// The device, watched.
#[derive(Debug)]
pub(crate) struct Inside {
    name: String,
    index: u32,
    mtu: u32,
    queue_count: usize,
    offloads: Option<Offloads>,
    steering: Option<Arc<SteeringMap>>,
    state: State,
    watch: Option<Watch>,
    lines: Lines,
    made: Vec<String>,
    /// What was got of all that makes it fast.
    got: String,
    /// What was not got that an operator can give.
    missed: Vec<String>,
}

impl Inside {
    /// Makes the device with a queue a shard, steered if that can be; and the queues, in order.
    ///
    /// # Errors
    /// When there is no device. That it is not steered or not watched is none.
    pub(crate) async fn open(
        config: &Config,
        queue_count: usize,
    ) -> Result<(Self, Vec<OwnedFd>), HostError> {
        let watch = Watch::new();
        let Tun {
            queues,
            offloads,
            made,
            index,
        } = host::open_tun(config, queue_count).await?;
        let steering = steer(config, &queues);
        let mut missed = Vec::new();
        let steered = match &steering {
            Steered::Alone => "one shard has all packets",
            Steered::By(_) => "packets go to the queue of their shard (eBPF)",
            Steered::Not(error) => {
                missed.push(format!(
                    "packets are not steered to the queue of their shard but handed over: {error}"
                ));
                "packets are handed over between shards"
            }
        };
        let superpackets = match offloads {
            None => "no superpackets",
            Some(Offloads { udp: false, .. }) => "superpackets of TCP (TSO)",
            Some(Offloads { udp: true, .. }) => "superpackets of TCP and UDP (TSO, USO)",
        };
        if let Err(error) = &watch {
            missed.push(format!(
                "cannot watch the device (netlink: {error}): restart the gateway should it be \
                 deleted or have been down"
            ));
        }
        let name = config.network.tun.clone();
        let inside = Self {
            got: format!(
                "{name}: {queue_count} queue{}, {superpackets}; {steered}",
                if queue_count == 1 { "" } else { "s" }
            ),
            name,
            index,
            mtu: u32::from(config.network.mtu),
            queue_count,
            offloads,
            steering: match steering {
                Steered::By(map) => Some(map),
                _ => None,
            },
            state: State::Settling(Instant::now()),
            watch: watch.ok(),
            lines: Lines::new(Instant::now()),
            made,
            missed,
        };
        Ok((inside, queues))
    }

    /// Which superpackets the device takes.
    pub(crate) const fn offloads(&self) -> Option<Offloads> {
        self.offloads
    }

    /// What shards enter their addresses into.
    pub(crate) fn steering(&self) -> Option<Arc<dyn Steering>> {
        let map = self.steering.clone()?;
        Some(map)
    }

    /// What was made on the host.
    pub(crate) fn made(&self) -> &[String] {
        &self.made
    }

    /// Says in the log what was got, and what was not.
    pub(crate) fn announce(&self) {
        tracing::info!("inside: {}", self.got);
        for missed in &self.missed {
            tracing::warn!("{missed}");
        }
        for name in host::interfaces_without_tso(&self.name) {
            tracing::warn!(
                "{name} does not cut TCP superpackets (TSO is off or not there): a superpacket that \
                 leaves through it costs about six times as much; cure: ethtool -K {name} tso on"
            );
        }
    }

    /// Waits for the next change.
    pub(crate) async fn change(&mut self) -> Change {
        let due = match self.state {
            State::Down { say_at, .. } => say_at,
            State::Gone { try_at, .. } => Some(try_at),
            State::Settling(_) | State::Up => None,
        };
        let due = async move {
            match due {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        let watch = &mut self.watch;
        let news = async move {
            match watch {
                Some(watch) => watch.news.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = due => Change::Due,
            news = news => news.unwrap_or_else(|| {
                // The task that told is gone, and with it the news.
                self.watch = None;
                Change::Lost
            }),
        }
    }

    /// Does what a change asks for; the queues that the shards shall use from now on, if others.
    pub(crate) async fn handle(&mut self, config: &Config, change: Change) -> Vec<TunQueue> {
        let now = Instant::now();
        match change {
            Change::Link { index, up, mtu } if index == self.index => {
                self.link_changed(config, now, up).await;
                self.mtu_changed(config, mtu);
                Vec::new()
            }
            Change::Deleted { index } if index == self.index => self.deleted(config, now).await,
            Change::Link { .. } | Change::Deleted { .. } => Vec::new(),
            Change::Lost => {
                if host::interface_exists(&self.name) {
                    self.came_up(config).await;
                    Vec::new()
                } else {
                    self.deleted(config, now).await
                }
            }
            Change::Due => match self.state {
                State::Gone { .. } => self.make_again(config, now).await,
                State::Down { since, .. } => {
                    self.state = State::Down {
                        since,
                        say_at: None,
                    };
                    let name = &self.name;
                    self.lines.warn(format_args!(
                        "{name} was set down: packets of clients are dropped (inside-down) until \
                         it is up again; cure: ip link set {name} up"
                    ));
                    Vec::new()
                }
                State::Settling(_) | State::Up => Vec::new(),
            },
        }
    }

    async fn link_changed(&mut self, config: &Config, now: Instant, up: bool) {
        match (self.state, up) {
            (State::Settling(_), true) => self.state = State::Up,
            // What it was before it was brought up, by us.
            (State::Settling(made), false) if now < made + SETTLE => {}
            (State::Settling(_) | State::Up, false) => {
                self.state = State::Down {
                    since: now,
                    say_at: Some(now + DOWN_PAUSE),
                };
            }
            (State::Down { since, .. }, true) => {
                self.state = State::Up;
                // The kernel took routes and IPv6 addresses away.
                if self.came_up(config).await {
                    self.lines.info(format_args!(
                        "{} is up again after {:.1} s, with its addresses and routes",
                        self.name,
                        now.duration_since(since).as_secs_f64()
                    ));
                }
            }
            (State::Up | State::Gone { .. }, true)
            | (State::Down { .. } | State::Gone { .. }, false) => {}
        }
    }

    async fn came_up(&mut self, config: &Config) -> bool {
        match host::restore(config, &self.name, self.index).await {
            Ok(()) => true,
            Err(error) => {
                self.lines.warn(format_args!("{error}"));
                false
            }
        }
    }

    fn mtu_changed(&mut self, config: &Config, mtu: Option<u32>) {
        let Some(mtu) = mtu.filter(|&mtu| mtu != self.mtu) else {
            return;
        };
        if matches!(self.state, State::Settling(_)) {
            return;
        }
        let before = std::mem::replace(&mut self.mtu, mtu);
        let (name, wanted) = (&self.name, config.network.mtu);
        self.lines.warn(format_args!(
            "the MTU of {name} was changed from {before} to {mtu} (`network.mtu` is {wanted}): \
             packets too long for a session are answered with too-big; to undo: ip link set {name} mtu {wanted}"
        ));
    }

    async fn deleted(&mut self, config: &Config, now: Instant) -> Vec<TunQueue> {
        self.state = State::Gone {
            since: now,
            try_at: now,
            pause: RETRY_FIRST,
        };
        self.make_again(config, now).await
    }

    /// Makes the device that is gone again, or notes when to try next.
    async fn make_again(&mut self, config: &Config, now: Instant) -> Vec<TunQueue> {
        let State::Gone { since, pause, .. } = self.state else {
            return Vec::new();
        };
        let made = host::open_tun(config, self.queue_count).await;
        let name = &self.name;
        let tun = match made {
            Ok(tun) if tun.offloads == self.offloads => tun,
            other => {
                let why = match other {
                    Ok(_) => "the kernel offers other superpackets than before".to_owned(),
                    Err(error) => error.to_string(),
                };
                self.lines.error(format_args!(
                    "{name} was deleted and cannot be made again: {why}; packets of clients are \
                     dropped (inside-down); next try in {:.1} s",
                    pause.as_secs_f64()
                ));
                self.state = State::Gone {
                    since,
                    try_at: now + pause,
                    pause: (pause * 2).min(RETRY_LAST),
                };
                return Vec::new();
            }
        };
        // Every address is still in the map; only the new device does not know the program.
        if let Some(Err(error)) = self
            .steering
            .as_ref()
            .zip(tun.queues.first())
            .map(|(map, queue)| map.attach(queue.as_fd()))
        {
            self.lines.warn(format_args!(
                "{name} is made again, but not steered: {error}; packets are handed over between shards"
            ));
        }
        self.index = tun.index;
        self.mtu = u32::from(config.network.mtu);
        self.state = State::Settling(now);
        self.lines.warn(format_args!(
            "{name} was deleted; it was made again after {:.1} s, with its queues, addresses and routes; \
             sessions go on",
            Instant::now().duration_since(since).as_secs_f64()
        ));
        tun.queues.into_iter().map(TunQueue::Descriptor).collect()
    }
}

/// How packets find their shard.
enum Steered {
    /// There is one queue.
    Alone,
    By(Arc<SteeringMap>),
    Not(SteeringError),
}

fn steer(config: &Config, queues: &[OwnedFd]) -> Steered {
    let [first, _, ..] = queues else {
        return Steered::Alone;
    };
    // An address and a prefix a session.
    let map = SteeringMap::new(config.limits.sessions.saturating_mul(2));
    match map.and_then(|map| map.attach(first.as_fd()).map(|()| map)) {
        Ok(map) => Steered::By(Arc::new(map)),
        Err(error) => Steered::Not(error),
    }
}

/// The kernel's news of interfaces, as long as this lives.
#[derive(Debug)]
struct Watch {
    news: Receiver<Change>,
    tasks: [JoinHandle<()>; 2],
}

impl Watch {
    fn new() -> Result<Self, std::io::Error> {
        let (connection, _, mut messages) =
            rtnetlink::new_multicast_connection(&[MulticastGroup::Link])?;
        let (sender, news) = channel(NEWS_MAX);
        let connection = tokio::spawn(connection);
        let reader = tokio::spawn(async move {
            while let Ok((message, _)) = messages.recv().await {
                if !tell(message, &sender).await {
                    break;
                }
            }
        });
        Ok(Self {
            news,
            tasks: [connection, reader],
        })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Passes a message on; `false` when nobody listens any more.
async fn tell(message: NetlinkMessage<RouteNetlinkMessage>, to: &Sender<Change>) -> bool {
    let change = match message.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => link_change(&link),
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link)) => Change::Deleted {
            index: link.header.index,
        },
        NetlinkPayload::Overrun(_) => Change::Lost,
        _ => return true,
    };
    to.send(change).await.is_ok()
}

fn link_change(link: &LinkMessage) -> Change {
    Change::Link {
        index: link.header.index,
        up: link.header.flags.contains(LinkFlags::Up),
        mtu: link
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                LinkAttribute::Mtu(mtu) => Some(*mtu),
                _ => None,
            }),
    }
}

/// Log lines, bounded.
#[derive(Debug)]
struct Lines {
    period: Instant,
    said: u32,
    unsaid: u32,
}

impl Lines {
    const fn new(now: Instant) -> Self {
        Self {
            period: now,
            said: 0,
            unsaid: 0,
        }
    }

    /// Whether there may be a line now; and how many there could not be since the last.
    fn admit(&mut self, now: Instant) -> Option<u32> {
        if now.duration_since(self.period) >= LINES_PERIOD {
            self.period = now;
            self.said = 0;
        }
        if self.said >= LINES_MAX {
            self.unsaid = self.unsaid.saturating_add(1);
            return None;
        }
        self.said += 1;
        Some(std::mem::take(&mut self.unsaid))
    }

    fn info(&mut self, text: std::fmt::Arguments<'_>) {
        if let Some(unsaid) = self.admit(Instant::now()) {
            tracing::info!("{text}{}", Unsaid(unsaid));
        }
    }

    fn warn(&mut self, text: std::fmt::Arguments<'_>) {
        if let Some(unsaid) = self.admit(Instant::now()) {
            tracing::warn!("{text}{}", Unsaid(unsaid));
        }
    }

    fn error(&mut self, text: std::fmt::Arguments<'_>) {
        if let Some(unsaid) = self.admit(Instant::now()) {
            tracing::error!("{text}{}", Unsaid(unsaid));
        }
    }
}

/// Lines that were not said, if any.
struct Unsaid(u32);

impl std::fmt::Display for Unsaid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            0 => Ok(()),
            count => write!(f, " ({count} lines like it were left out before)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_flaps_does_not_fill_the_log() {
        let start = Instant::now();
        let mut lines = Lines::new(start);
        let said = (0..1_000).filter(|_| lines.admit(start).is_some()).count();
        assert_eq!(said, LINES_MAX as usize);
        assert_eq!(lines.admit(start + LINES_PERIOD), Some(1_000 - LINES_MAX));
        assert_eq!(lines.admit(start + LINES_PERIOD), Some(0));
    }
}
