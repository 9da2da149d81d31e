//! `loadgen connect`: one session, from the flags to the exit code.

pub(crate) mod forward;
mod host;
pub(crate) mod local;
pub(crate) mod proxy;
pub(crate) mod reconnect;
pub(crate) mod tunnels;

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use datapath::io::Io as _;
use datapath::ip::offload::merge::Offloads;
use datapath::output::Entropy;
use datapath::session::ClientSettings;
use datapath::session::event::EndReason;
use datapath::shard::counters::Published;
use datapath::shard::handoff::Mailbox;
use datapath::shard::route::Directory;
use datapath::shard::{self, Inside, Shard};
use datapath::sys::copy_and_sum;
use datapath::sys::driver::{self, Choice, Driver};
use datapath::sys::entropy::SystemEntropy;
use datapath::sys::uring::Rung;

use crate::client::{Client, Notice, Outcome, Plan, Reconnect};
use crate::flags::{self, Connect, Server};
use crate::report::{self, Report, Subject};
use crate::settings::{self, Stop, Template};
use crate::trust::Trust;
use crate::tun;

use self::host::Host;
use self::local::{Bound, Local};
use self::proxy::Proxy;
use self::tunnels::Tunnels;

/// One, and one that is still closing when the next is begun.
const CONNECTIONS: u32 = 2;

/// Room for them and their turns.
const RING_ENTRIES: u32 = 64;
const RECEIVE_BUFFERS: u16 = 8;
const SEND_BUFFERS: usize = 4;

/// The exit code of what was interrupted.
const INTERRUPTED: u8 = 130;

/// Runs `loadgen connect`.
pub(crate) fn run(flags: &Connect) -> ExitCode {
    match try_run(flags) {
        Ok(code) => code,
        Err(Stop::Usage(message)) => {
            eprintln!("loadgen: {message}");
            ExitCode::from(2)
        }
        Err(Stop::Failed(message)) => {
            eprintln!("loadgen: {message}");
            ExitCode::from(1)
        }
    }
}

fn try_run(flags: &Connect) -> Result<ExitCode, Stop> {
    let trust = Trust::of(&flags.access);
    let password = settings::password(&flags.access.password)?;
    let mut personas = flags.access.persona.personas();
    let persona = personas.next();
    if personas.next().is_some() {
        let message = "--persona: this is one client, and so wants one persona";
        return Err(Stop::Usage(message.to_owned()));
    }
    let mut template = Template::new(&flags.access, &flags.server, &trust, &password, persona)?;
    template.settings.limits.record_per_packet |= flags.record_per_packet;
    let proxy = way(flags)?;
    template.settings.proxy = proxy
        .as_ref()
        .map(|proxy| Arc::new(proxy.connect(&flags.server)));
    let settings = template.for_user(&flags.user, None);
    let proxy = proxy.as_ref().map(|proxy| &proxy.server);
    let addresses = addresses(proxy.unwrap_or(&flags.server), flags.source)?;
    let last = addresses.len().saturating_sub(1);
    for (index, &address) in addresses.iter().enumerate() {
        let subject = Subject {
            server: &flags.server,
            name: settings::name(&flags.access, &flags.server),
            address,
            proxy,
            user: &flags.user,
            trust: &trust,
        };
        if !flags.json {
            print(&report::begin(&subject));
        }
        let reconnect = match (flags.reconnect, index == last) {
            (false, _) => Reconnect::Never,
            (true, false) => Reconnect::OnceUp,
            (true, true) => Reconnect::Always,
        };
        let outcome = session(flags, &settings, &subject, reconnect)?;
        // Another address of the same name may be reachable.
        let unreachable = outcome.up.is_none()
            && outcome
                .ended
                .as_ref()
                .is_some_and(|ended| ended.reason == EndReason::ConnectFailed);
        let report = Report::new(&subject, &outcome);
        if unreachable && index < last {
            if !flags.json {
                print(&report.summary());
            }
            continue;
        }
        print(&if flags.json {
            report.json()
        } else {
            report.summary()
        });
        return Ok(match (report.ok, report.interrupted) {
            (_, true) => ExitCode::from(INTERRUPTED),
            (true, false) => ExitCode::SUCCESS,
            (false, false) => ExitCode::from(1),
        });
    }
    Err(Stop::Failed(format!(
        "{} has no address",
        flags.server.host
    )))
}

/// The proxy to go through, if any.
fn way(flags: &Connect) -> Result<Option<Proxy>, Stop> {
    let Some(choice) = &flags.proxy else {
        return Ok(None);
    };
    let variable = |name: &str| std::env::var(name).ok();
    let mut proxy = choice
        .resolve(&flags.server, variable)
        .map_err(Stop::Usage)?;
    if let (Some(proxy), Some(path)) = (&mut proxy, &flags.proxy_password_file) {
        proxy.read_password(path)?;
    }
    Ok(proxy)
}

/// Runs one session, and those that replace it, to the end on this thread.
fn session(
    flags: &Connect,
    settings: &Arc<ClientSettings>,
    subject: &Subject<'_>,
    reconnect: Reconnect,
) -> Result<Outcome, Stop> {
    let stays = flags.tun.is_some() || !flags.forward.is_empty();
    let hold_default = (!stays).then_some(Duration::ZERO);
    let plan = Plan {
        settings: Arc::clone(settings),
        to: subject.address,
        source: flags.source.map(|source| SocketAddr::new(source, 0)),
        // With an interface it is the host that pings.
        ping_count: if flags.tun.is_some() { 0 } else { flags.ping },
        ping_to: flags.ping_to,
        ping_interval: flags.interval,
        ping_data_len: usize::from(flags.size),
        hold: flags.hold.or(hold_default),
        reconnect,
        nonce: u64::from_be_bytes(SystemEntropy.array()),
    };
    let bound = Bound::new(&flags.forward).map_err(Stop::Failed)?;
    let forwards = bound.forwards();
    let (mut host, queue) = host(flags, subject.address)?.unzip();
    let offloads = host.as_ref().and_then(|host| host.interface.offloads);
    let driver = open_driver(flags, queue)?;
    let mut local = Local::start(bound, driver.waker())
        .map_err(|error| Stop::Failed(format!("cannot wait for signals or sockets: {error}")))?;
    let tunnels = local
        .take_arrivals()
        .filter(|_| !forwards.is_empty())
        .map(|arrivals| Tunnels::new(arrivals, u64::from_be_bytes(SystemEntropy.array())));
    let owner = Client::new(plan, local.interrupts(), tunnels);
    let config = shard_config(host.is_some(), offloads);
    let mut shard = Shard::new(driver, owner, SystemEntropy, config);
    let tell = |text: &str| {
        if !flags.json {
            print(text);
        }
    };
    loop {
        let goes_on = shard
            .turn()
            .map_err(|error| Stop::Failed(format!("the I/O driver cannot go on: {error}")))?;
        for notice in shard.owner_mut().take_notices() {
            tell(&report::line(&notice, subject));
            let addresses = match &notice {
                Notice::Up(up) => &up.addresses,
                Notice::Changed(addresses) => addresses,
                _ => continue,
            };
            if let Some(host) = &mut host {
                let told = host.apply(addresses);
                tell(&told.map_err(|why| Stop::Failed(why.to_string()))?);
            }
            if let Notice::Changed(_) = notice {
                continue;
            }
            for forward in &forwards {
                tell(&format!("  forwarding   {forward}\n"));
            }
            if plan_is_endless(flags, stays) {
                tell("  stays up until SIGINT or SIGTERM\n");
            }
        }
        if !goes_on {
            let outcome = shard.owner().outcome();
            if let Some(mut host) = host {
                eprint!("{}", host.undo());
            }
            return Ok(outcome);
        }
    }
}

const fn plan_is_endless(flags: &Connect, stays: bool) -> bool {
    stays && flags.hold.is_none()
}

/// The interface and what is to be set when the session is up; the second is its queue.
fn host(flags: &Connect, server: SocketAddr) -> Result<Option<(Host, OwnedFd)>, Stop> {
    let Some(name) = &flags.tun else {
        return Ok(None);
    };
    let (interface, queue) = tun::open(name, flags.mtu, !flags.no_offload)
        .map_err(|why| Stop::Failed(why.to_string()))?;
    let wishes = host::Wishes {
        routes: flags.route.clone(),
        default_route: flags.default_route.then(|| server.ip()),
        dns: flags.dns,
    };
    Ok(Some((Host::new(interface, wishes), queue)))
}

fn open_driver(flags: &Connect, queue: Option<OwnedFd>) -> Result<Driver, Stop> {
    let config = driver::Config {
        submission_entries: RING_ENTRIES,
        receive_buffers: RECEIVE_BUFFERS,
        connections: CONNECTIONS,
        tun: queue,
        ..driver::Config::default()
    };
    Driver::open(choice(flags.access.driver), config).map_err(|why| Stop::Failed(why.to_string()))
}

fn shard_config(has_tun: bool, offloads: Option<Offloads>) -> shard::Config {
    shard::Config {
        index: 0,
        connections_max: CONNECTIONS as usize,
        handshakes_max: CONNECTIONS as usize,
        send_buffers: SEND_BUFFERS,
        inside: if has_tun {
            Inside::ClientTun
        } else {
            Inside::Owner
        },
        offloads,
        copy_and_sum: copy_and_sum::fastest(),
        isolate: false,
        directory: Arc::new(Directory::new(&[])),
        mailboxes: Arc::new([Mailbox::new(1)]),
        published: Published::new(),
    }
}

pub(crate) const fn choice(driver: flags::Driver) -> Choice {
    match driver {
        flags::Driver::Auto => Choice::Auto,
        flags::Driver::IoUring => Choice::IoUring(Rung::NoArray),
        flags::Driver::Epoll => Choice::Epoll,
    }
}

/// Every address of the server that can be reached from the wanted source.
pub(crate) fn addresses(server: &Server, source: Option<IpAddr>) -> Result<Vec<SocketAddr>, Stop> {
    let addresses: Vec<SocketAddr> = (server.host.as_str(), server.port)
        .to_socket_addrs()
        .map_err(|error| Stop::Failed(format!("{}: {error}", server.host)))?
        .filter(|address| source.is_none_or(|source| source.is_ipv4() == address.is_ipv4()))
        .collect();
    if addresses.is_empty() {
        let message = format!("{} has no address of the family of --source", server.host);
        return Err(Stop::Failed(message));
    }
    Ok(addresses)
}

/// Prints at once; a reader that has gone away is no reason to fail.
pub(crate) fn print(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}
