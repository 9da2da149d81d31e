//! `loadgen connect`: one session, from the flags to the exit code.

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::process::ExitCode;
use std::sync::Arc;

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

use crate::client::{Client, Notice, Outcome, Plan};
use crate::flags::{self, Connect, Server};
use crate::report::{self, Report, Subject};
use crate::settings::{self, Stop, Template};
use crate::trust::Trust;
use crate::tun;

/// Room for one connection and its turns.
const RING_ENTRIES: u32 = 64;
const RECEIVE_BUFFERS: u16 = 8;
const SEND_BUFFERS: usize = 4;

/// Runs `loadgen connect`.
pub(crate) fn run(flags: &Connect) -> ExitCode {
    match try_run(flags) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
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

fn try_run(flags: &Connect) -> Result<bool, Stop> {
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
    let settings = template.for_user(&flags.user, None);
    let addresses = addresses(&flags.server, flags.source)?;
    let last = addresses.len().saturating_sub(1);
    for (index, &address) in addresses.iter().enumerate() {
        let subject = Subject {
            server: &flags.server,
            name: settings::name(&flags.access, &flags.server),
            address,
            user: &flags.user,
            trust: &trust,
        };
        if !flags.json {
            print(&report::begin(&subject));
        }
        let outcome = session(flags, &settings, &subject)?;
        // Another address of the same name may be reachable.
        let unreachable = outcome
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
        return Ok(report.ok);
    }
    Err(Stop::Failed(format!(
        "{} has no address",
        flags.server.host
    )))
}

/// Runs one session to its end on this thread.
fn session(
    flags: &Connect,
    settings: &Arc<ClientSettings>,
    subject: &Subject<'_>,
) -> Result<Outcome, Stop> {
    let plan = Plan {
        settings: Arc::clone(settings),
        to: subject.address,
        source: flags.source.map(|source| SocketAddr::new(source, 0)),
        // With an interface it is the host that pings.
        ping_count: if flags.tun.is_some() { 0 } else { flags.ping },
        ping_to: flags.ping_to,
        ping_interval: flags.interval,
        ping_data_len: usize::from(flags.size),
        hold: flags.hold,
        nonce: u64::from_be_bytes(SystemEntropy.array()),
    };
    let interface = flags.tun.as_deref().map(|name| {
        tun::open(name, flags.mtu, !flags.no_offload).map_err(|why| Stop::Failed(why.to_string()))
    });
    let (interface, queue) = interface.transpose()?.unzip();
    let config = driver::Config {
        submission_entries: RING_ENTRIES,
        receive_buffers: RECEIVE_BUFFERS,
        connections: 1,
        tun: queue,
        ..driver::Config::default()
    };
    let driver = Driver::open(choice(flags.access.driver), config)
        .map_err(|why| Stop::Failed(why.to_string()))?;
    let config = shard::Config {
        index: 0,
        connections_max: 1,
        handshakes_max: 1,
        send_buffers: SEND_BUFFERS,
        inside: if interface.is_some() {
            Inside::ClientTun
        } else {
            Inside::Owner
        },
        offloads: interface.as_ref().and_then(|tun| tun.offloads),
        copy_and_sum: copy_and_sum::fastest(),
        isolate: false,
        directory: Arc::new(Directory::new(&[])),
        mailboxes: Arc::new([Mailbox::new(1)]),
        published: Published::new(),
    };
    let mut shard = Shard::new(driver, Client::new(plan), SystemEntropy, config);
    loop {
        let goes_on = shard
            .turn()
            .map_err(|error| Stop::Failed(format!("the I/O driver cannot go on: {error}")))?;
        for notice in shard.owner_mut().take_notices() {
            if let (Notice::Up(up), Some(tun)) = (&notice, &interface) {
                tun.configure(&up.addresses, &flags.route)
                    .map_err(|why| Stop::Failed(why.to_string()))?;
            }
            if !flags.json {
                print(&report::line(&notice, subject.trust));
            }
        }
        if !goes_on {
            return Ok(shard.owner().outcome());
        }
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
