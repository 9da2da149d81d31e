//! Starts the shards: listeners, TUN queues, drivers and threads. The one place that knows how.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam::channel::{Receiver, Sender, bounded};
use datapath::http::ProbeAnswer;
use datapath::io::{Io as _, Steering, Waker};
use datapath::ip::offload::merge::Offloads;
use datapath::ppp::auth::AuthMethod;
use datapath::ppp::link::AuthenticatorConfig;
use datapath::session::{Limits, QueueLimits, ServerSettings};
use datapath::shard::counters::Published;
use datapath::shard::handoff::Mailbox;
use datapath::shard::route::{Directory, Range};
use datapath::shard::{Config as ShardConfig, Inside, Shard};
use datapath::sstp;
use datapath::sstp::binding::HashBitmask;
use datapath::sys::affinity;
use datapath::sys::copy_and_sum;
use datapath::sys::driver::{Choice, Config as DriverConfig, Driver};
use datapath::sys::entropy::SystemEntropy;
use datapath::sys::socket::{
    ConnectionOptions, ListenGroup, ListenOptions, NotByCpu, listen_group,
};
use datapath::sys::thread::spawn_shard;
use datapath::tls::{
    KernelPlan, KernelUse, RecordLayerKind, ServerGeneration, TlsOptions, Version,
};
use tokio::sync::Notify;

use crate::config::{Config, InsideKind, Listen, Method, Pool, RecordLayer, Snapshot, TlsVersion};
use crate::owner::{FromShard, Outbox, ShardOwner, SourceGate, ToShard};

/// Messages from all shards that may wait for the control plane.
const FROM_SHARDS: usize = 4_096;
/// Messages that may wait for one shard.
const TO_SHARD: usize = 1_024;
/// Packets that may wait for one shard on their way from others; 64 KB each.
const HANDOFF_PACKETS: usize = 64;
/// Buffers of 64 KB a shard sends from; what one core fills in a few milliseconds.
const SEND_BUFFERS: usize = 256;
/// Buffers of 64 KB a shard receives into.
const RECEIVE_BUFFERS: u16 = 64;

/// Linux' answers to a congestion control that we may not use, and to one that it has not; binding a
/// port that we may not use is answered with another one.
const EPERM: i32 = 1;
const ENOENT: i32 = 2;

/// Why the shards did not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error(
        "not allowed to listen on {0}: ports below 1024 need CAP_NET_BIND_SERVICE; run as root, or: \
             setcap cap_net_bind_service,cap_net_admin+ep $(command -v sstp-gw)"
    )]
    PortNotAllowed(SocketAddr),
    #[error("{0} is in use by another process, perhaps another sstp-gw; to see which: ss -ltnp")]
    PortInUse(SocketAddr),
    #[error("{0} is no address of this host; to see them: ip address")]
    NoSuchAddress(SocketAddr),
    #[error("cannot listen on {address}: {source}")]
    Listen {
        address: SocketAddr,
        source: io::Error,
    },
    #[error(transparent)]
    KernelTls(#[from] crate::kernel_tls::Missing),
    #[error(
        "listener {address} cannot have the congestion control \"{name}\": {source}; to see those of this kernel: \
             sysctl net.ipv4.tcp_available_congestion_control; one that is not in tcp_allowed_congestion_control \
             needs CAP_NET_ADMIN"
    )]
    Congestion {
        address: SocketAddr,
        name: String,
        source: io::Error,
    },
    #[error("TLS cannot be set up: {0}")]
    Tls(datapath::tls::Error),
    #[error("cannot write the key log {path}: {source}")]
    KeyLog {
        path: std::path::PathBuf,
        source: io::Error,
    },
    #[error("cannot start the thread of shard {shard}: {source}")]
    Thread { shard: u16, source: io::Error },
}

/// The processors the shards run on: as many as the configuration says, or all that we may use.
pub(crate) fn processors(config: &Config) -> Vec<usize> {
    let cpus = affinity::cpus();
    let count = config.shards.map_or(cpus.len(), usize::from).max(1);
    (0..count)
        .map(|shard| cpus.get(shard % cpus.len().max(1)).copied().unwrap_or(0))
        .collect()
}

/// Bytes that the shards take at start, whatever they carry.
pub(crate) const fn fixed_memory(shards: usize) -> usize {
    shards
        * (HANDOFF_PACKETS * 65_536
            + SEND_BUFFERS * datapath::session::transmit::BUFFER_LEN
            + RECEIVE_BUFFERS as usize * 65_536)
}

/// Descriptors that the process opens at most.
pub(crate) fn descriptors_needed(config: &Config, shards: usize) -> u64 {
    // A shard: ring or epoll, eventfd, TUN queue, listeners; the rest is files and the control plane's.
    let fixed = 64 + shards * (4 + config.listen.len());
    u64::from(config.limits.sessions) + u64::from(config.limits.handshakes) + fixed as u64
}

/// Opens the group of listeners of one address, a listener a shard.
pub(crate) fn listen(listen: &Listen, cpus: &[usize]) -> Result<ListenGroup, StartError> {
    let address = listen.address;
    let explain = |source: io::Error| match source.kind() {
        io::ErrorKind::PermissionDenied => StartError::PortNotAllowed(address),
        io::ErrorKind::AddrInUse => StartError::PortInUse(address),
        io::ErrorKind::AddrNotAvailable => StartError::NoSuchAddress(address),
        _ => StartError::Listen { address, source },
    };
    // With SO_REUSEPORT two gateways would share the port without a word, so ask without it first.
    // `[::]` here takes IPv4 too, which another listener of ours may have; the group says so itself.
    if !(address.is_ipv6() && address.ip().is_unspecified()) {
        TcpListener::bind(address).map_err(explain)?;
    }
    let options = ListenOptions {
        connection: ConnectionOptions {
            congestion: listen.congestion.clone(),
            user_timeout: Some(listen.user_timeout),
            ..ConnectionOptions::default()
        },
        ..ListenOptions::default()
    };
    listen_group(address, cpus, &options).map_err(|source| {
        let refused = matches!(source.raw_os_error(), Some(EPERM | ENOENT));
        match listen.congestion.clone().filter(|_| refused) {
            Some(name) => StartError::Congestion {
                address,
                name,
                source,
            },
            None => explain(source),
        }
    })
}

/// How connections find their shard, in words; and whether that is the better way.
pub(crate) fn spread(groups: &[ListenGroup]) -> (String, bool) {
    let first_not = groups.iter().find_map(|group| group.by_cpu.as_ref().err());
    match first_not {
        None => (
            "a connection goes to the shard of the CPU that took its SYN (CBPF)".to_owned(),
            true,
        ),
        Some(NotByCpu::Alone) => ("one shard has all connections".to_owned(), true),
        Some(why) => (
            format!("connections are spread over the shards by their hash: {why}"),
            false,
        ),
    }
}

/// What every session of this snapshot is served with.
pub(crate) fn settings(
    snapshot: &Snapshot,
    kernel: KernelPlan,
) -> Result<ServerSettings, StartError> {
    let config = &snapshot.config;
    let key_log =
        match &config.tls.insecure_key_log {
            Some(path) => Some(crate::keylog::FileKeyLog::open(path).map_err(|source| {
                StartError::KeyLog {
                    path: path.clone(),
                    source,
                }
            })?),
            None => None,
        };
    let options = TlsOptions {
        min_version: match config.tls.min_version {
            TlsVersion::V12 => Version::Tls12,
            TlsVersion::V13 => Version::Tls13,
        },
        record_layer: match config.tls.record_layer {
            RecordLayer::Own => RecordLayerKind::Own,
            RecordLayer::Rustls => RecordLayerKind::Rustls,
        },
        kernel,
        key_log: key_log.map(|log| log as Arc<dyn rustls::KeyLog>),
        ..TlsOptions::default()
    };
    let tls = ServerGeneration::new(
        snapshot.identity.certificates().to_vec(),
        snapshot.identity.key().clone_key(),
        &options,
    )
    .map_err(StartError::Tls)?;
    let methods = config
        .auth
        .methods
        .iter()
        .map(|method| match method {
            Method::MsChapV2 => AuthMethod::MsChapV2,
            Method::Eap => AuthMethod::Eap,
            Method::Pap => AuthMethod::Pap,
            Method::ChapMd5 => AuthMethod::ChapMd5,
        })
        .collect();
    let times = &config.timeouts;
    Ok(ServerSettings {
        tls: Arc::new(tls),
        timing: sstp::Timing {
            request_timeout: times.negotiation,
            negotiation_timeout: times.negotiation,
            hello_interval: times.hello,
            ..sstp::Timing::default()
        },
        offered: HashBitmask::BOTH,
        link: Arc::new(AuthenticatorConfig {
            methods,
            ipv4: config.pools.iter().any(|pool| pool.v4.is_some()),
            ipv6: config.pools.iter().any(|pool| pool.v6.is_some()),
            ..AuthenticatorConfig::default()
        }),
        limits: Limits {
            handshake: times.handshake,
            http: times.handshake,
            queue: QueueLimits {
                target: config.network.queue_target,
                // RFC 8289 §4.3: the target is a twentieth of the interval.
                interval: (20 * config.network.queue_target).max(QueueLimits::default().interval),
            },
            ..Limits::default()
        },
        probe: ProbeAnswer::default(),
    })
}

/// The running shards, as the control plane holds them.
#[derive(Debug)]
pub(crate) struct Shards {
    pub(crate) inbox: Receiver<FromShard>,
    /// Notified when something is in `inbox`.
    pub(crate) news: Arc<Notify>,
    shards: Vec<Handle>,
}

#[derive(Debug)]
struct Handle {
    outbox: Outbox<ToShard>,
    waker: Option<Waker>,
    thread: Option<JoinHandle<()>>,
    /// What it counted.
    published: Arc<Published>,
}

/// What the shards are started with.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) cpus: Vec<usize>,
    /// A group an address, a listener a shard.
    pub(crate) listeners: Vec<ListenGroup>,
    /// A queue a shard; empty without a TUN.
    pub(crate) queues: Vec<OwnedFd>,
    /// What gives each packet to the queue of its shard.
    pub(crate) steering: Option<Arc<dyn Steering>>,
    /// Which superpackets the TUN takes.
    pub(crate) offloads: Option<Offloads>,
    /// What the kernel does of TLS.
    pub(crate) kernel: KernelPlan,
    /// Bounds unfinished connections of one source.
    pub(crate) per_source: u32,
}

/// Starts a thread a shard; each reports [`FromShard::Ready`] or [`FromShard::Stopped`].
pub(crate) fn start(snapshot: &Snapshot, parts: Parts) -> Result<Shards, StartError> {
    let config = &snapshot.config;
    let settings = Arc::new(settings(snapshot, parts.kernel)?);
    let directory = Directory::new(&ranges(&config.pools)).steered_by(parts.steering);
    let directory = Arc::new(directory);
    let mailboxes: Arc<[_]> = parts
        .cpus
        .iter()
        .map(|_| Mailbox::new(HANDOFF_PACKETS))
        .collect();
    let (to_control, inbox) = bounded(FROM_SHARDS);
    let news = Arc::new(Notify::new());
    let connections = u64::from(config.limits.sessions) + u64::from(config.limits.handshakes);
    let shard_count = u32::try_from(parts.cpus.len()).unwrap_or(u32::MAX);

    let mut by_shard: Vec<Vec<_>> = parts.cpus.iter().map(|_| Vec::new()).collect();
    for group in parts.listeners {
        for (shard, socket) in by_shard.iter_mut().zip(group.sockets) {
            shard.push(socket);
        }
    }
    let mut queues = parts.queues.into_iter();
    let mut shards = Vec::new();
    for ((index, &cpu), listeners) in (0..).zip(&parts.cpus).zip(by_shard) {
        let (to_shard, from_control) = bounded(TO_SHARD);
        let published = Published::new();
        let tun = queues.next();
        let plan = Plan {
            config: ShardConfig {
                index,
                connections_max: usize::try_from(connections).unwrap_or(usize::MAX),
                handshakes_max: usize::try_from(config.limits.handshakes.div_ceil(shard_count))
                    .unwrap_or(usize::MAX),
                send_buffers: SEND_BUFFERS,
                inside: match config.network.inside {
                    InsideKind::Tun if tun.is_some() => Inside::Tun,
                    _ => Inside::Reflector,
                },
                offloads: parts.offloads,
                copy_and_sum: copy_and_sum::fastest(),
                isolate: !config.network.client_to_client,
                directory: Arc::clone(&directory),
                mailboxes: Arc::clone(&mailboxes),
                published: Arc::clone(&published),
            },
            choice: crate::driver::choice(config.driver),
            io: DriverConfig {
                connections: u32::try_from(connections).unwrap_or(u32::MAX).min(1 << 24),
                receive_buffers: RECEIVE_BUFFERS,
                listeners,
                tun,
                kernel_opens_tls: parts.kernel.rx != KernelUse::Never,
                ..DriverConfig::default()
            },
            owner: ShardOwner::new(
                index,
                Arc::clone(&settings),
                SourceGate::new(parts.per_source),
                to_control.clone(),
                from_control,
                Arc::clone(&news),
            ),
            to_control: to_control.clone(),
            news: Arc::clone(&news),
        };
        let name = format!("shard-{index}");
        let thread = spawn_shard(name, Some(cpu), move |pinned| plan.run(pinned.is_ok(), cpu))
            .map_err(|source| StartError::Thread {
                shard: index,
                source,
            })?;
        shards.push(Handle {
            outbox: Outbox::new(to_shard),
            waker: None,
            thread: Some(thread),
            published,
        });
    }
    Ok(Shards {
        inbox,
        news,
        shards,
    })
}

/// The pools, as the shards' directory counts them: without the gateway's own addresses, which
/// every client may reach though clients are kept from each other.
fn ranges(pools: &[Pool]) -> Vec<Range> {
    let mut ranges = Vec::new();
    for pool in pools {
        if let Some(v4) = pool.v4 {
            let first = v4.network.network().to_bits();
            let gateway = v4.gateway.to_bits();
            let last = v4.network.broadcast().to_bits();
            let before = u64::from(gateway.saturating_sub(first));
            let after = u64::from(last.saturating_sub(gateway));
            ranges.extend(Range::v4(Ipv4Addr::from_bits(first), before));
            ranges.extend(Range::v4(
                Ipv4Addr::from_bits(gateway.saturating_add(1)),
                after,
            ));
        }
        if let Some(v6) = pool.v6 {
            // The first /64 is ours as a whole.
            let second = v6.network.network().to_bits().saturating_add(1 << 64);
            let count = 1_u64 << (64 - u32::from(v6.network.prefix_len()));
            ranges.extend(Range::v6(Ipv6Addr::from_bits(second), count - 1));
        }
    }
    ranges
}

/// All that goes to a shard's thread.
struct Plan {
    config: ShardConfig,
    choice: Choice,
    io: DriverConfig,
    owner: ShardOwner,
    to_control: Sender<FromShard>,
    news: Arc<Notify>,
}

impl Plan {
    fn run(self, pinned: bool, cpu: usize) {
        let shard = self.config.index;
        // Told even if the shard panics: the control plane must not wait for the dead.
        let mut last_word = LastWord {
            shard,
            error: Some("it panicked".to_owned()),
            to_control: self.to_control,
            news: self.news,
        };
        let driver = match Driver::open(self.choice, self.io) {
            Ok(driver) => driver,
            Err(error) => {
                last_word.error = Some(error.to_string());
                return;
            }
        };
        let place = if pinned {
            format!("CPU {cpu}")
        } else {
            "any CPU (not allowed to pin)".to_owned()
        };
        let inside = match self.config.inside {
            Inside::Tun => match self.config.offloads {
                None => "TUN queue without offload",
                Some(Offloads { udp: false, .. }) => "TUN queue with TCP offload",
                Some(Offloads { udp: true, .. }) => "TUN queue with TCP and UDP offload",
            },
            Inside::Reflector => "reflector",
            Inside::ClientTun => "client's TUN",
            Inside::Owner => "owner",
        };
        let features = format!("{place}, {inside}");
        let waker = driver.waker();
        last_word.tell(FromShard::Ready {
            shard,
            driver: driver.describe(),
            features,
            waker,
        });
        let mut serving = Shard::new(driver, self.owner, SystemEntropy, self.config);
        last_word.error = serving.run().err().map(|error| error.to_string());
    }
}

/// Says on drop that the shard has ended.
struct LastWord {
    shard: u16,
    error: Option<String>,
    to_control: Sender<FromShard>,
    news: Arc<Notify>,
}

impl LastWord {
    fn tell(&self, message: FromShard) {
        // Waits if it must: at start and at the end there is nobody to serve.
        let _ = self.to_control.send(message);
        self.news.notify_one();
    }
}

impl Drop for LastWord {
    fn drop(&mut self) {
        let error = self.error.take();
        self.tell(FromShard::Stopped {
            shard: self.shard,
            error,
        });
    }
}

impl Shards {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.shards.len()
    }

    /// Notes how to wake a shard.
    pub(crate) fn set_waker(&mut self, shard: u16, waker: Waker) {
        if let Some(handle) = self.shards.get_mut(usize::from(shard)) {
            waker.wake();
            handle.waker = Some(waker);
        }
    }

    /// Sends to one shard and wakes it.
    pub(crate) fn send(&mut self, shard: u16, message: ToShard) {
        if let Some(handle) = self.shards.get_mut(usize::from(shard)) {
            handle.outbox.send(message);
            if let Some(waker) = &handle.waker {
                waker.wake();
            }
        }
    }

    /// Sends to every shard.
    pub(crate) fn send_all(&mut self, message: impl Fn() -> ToShard) {
        for shard in 0..u16::try_from(self.shards.len()).unwrap_or(u16::MAX) {
            self.send(shard, message());
        }
    }

    /// Sends what did not fit, and wakes whom it is for; `true` if nothing is left.
    pub(crate) fn flush(&mut self) -> bool {
        let mut done = true;
        for handle in &mut self.shards {
            if handle.outbox.is_empty() {
                continue;
            }
            done &= handle.outbox.flush();
            if let Some(waker) = &handle.waker {
                waker.wake();
            }
        }
        done
    }

    /// What all shards counted.
    pub(crate) fn counters(&self) -> datapath::shard::counters::Counters {
        let mut sum = datapath::shard::counters::Counters::default();
        for handle in &self.shards {
            handle.published.add_to(&mut sum);
        }
        sum
    }

    /// Gives the threads up: [`Shards::join`] waits for none of them.
    pub(crate) fn abandon(&mut self) {
        for handle in &mut self.shards {
            handle.thread = None;
        }
    }

    /// Waits for the threads, which have all said that they end.
    pub(crate) fn join(&mut self) {
        for handle in &mut self.shards {
            if let Some(thread) = handle.thread.take() {
                // A panic has been told by its LastWord.
                let _ = thread.join();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use datapath::io::Wake;

    use super::*;
    use crate::config::{PoolV4, PoolV6};

    #[derive(Debug, Default)]
    struct Woken(AtomicU32);

    impl Wake for Woken {
        fn wake(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn only_a_shard_that_is_told_something_is_woken() {
        let (_, inbox) = bounded(1);
        let wakers: [Arc<Woken>; 2] = Default::default();
        let (handles, receivers): (Vec<_>, Vec<_>) = wakers
            .iter()
            .map(|woken| {
                let (sender, receiver) = bounded(1);
                let handle = Handle {
                    outbox: Outbox::new(sender),
                    waker: Some(Waker::new(Arc::<Woken>::clone(woken))),
                    thread: None,
                    published: Published::new(),
                };
                (handle, receiver)
            })
            .unzip();
        let mut shards = Shards {
            inbox,
            news: Arc::default(),
            shards: handles,
        };
        let woken = || {
            wakers
                .each_ref()
                .map(|woken| woken.0.load(Ordering::Relaxed))
        };
        assert!(shards.flush());
        assert_eq!(woken(), [0, 0], "there is nothing to tell");
        shards.send(1, ToShard::Stop);
        shards.send(1, ToShard::Stop);
        assert!(!shards.flush(), "the second does not fit");
        assert_eq!(woken()[0], 0);
        let before = woken()[1];
        assert!(receivers[1].try_recv().is_ok());
        assert!(shards.flush());
        assert_eq!(woken(), [0, before + 1]);
        assert!(receivers[1].try_recv().is_ok());
    }

    #[test]
    fn the_directory_has_every_client_and_not_the_gateway() {
        let pool = Pool {
            v4: Some(PoolV4 {
                network: "10.99.0.0/16".parse().unwrap(),
                range: ("10.99.0.9".parse().unwrap(), "10.99.0.20".parse().unwrap()),
                gateway: "10.99.7.7".parse().unwrap(),
            }),
            v6: Some(PoolV6 {
                network: "fd00:99::/48".parse().unwrap(),
                gateway: "fd00:99::1".parse().unwrap(),
            }),
        };
        let directory = Directory::new(&ranges(&[pool]));
        for (address, covered) in [
            ("10.98.255.255", false),
            ("10.99.0.0", true),
            ("10.99.7.6", true),
            ("10.99.7.7", false),
            ("10.99.7.8", true),
            ("10.99.255.255", true),
            ("10.100.0.0", false),
            ("fd00:99::1", false),
            ("fd00:99:0:1::5", true),
            ("fd00:99:0:ffff::5", true),
            ("fd00:99:1::5", false),
        ] {
            assert_eq!(
                directory.covers(address.parse().unwrap()),
                covered,
                "{address}"
            );
        }
    }
}
