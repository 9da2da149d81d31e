//! The owner of one client session: connect, ping, echo, hold, end.
//!
//! ```text
//!   Idle ─ connect ─▶ Connecting ─ Up ─▶ Up ─ pings done, held long enough ─▶ Ending ─ Ended ─▶ Over
//!     ▲                   └───────── Ended, or it could not be begun ──┬─────────────────────────▲
//!     └─ the wait is over ─ Waiting ◀── to be tried again ─────────────┘
//! ```
//!
//! It reads no clock and prints nothing: what happens is left as [`Notice`]s for whoever runs the
//! shard, and what came of it as an [`Outcome`].

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use datapath::session::ClientSettings;
use datapath::session::ServerSettings;
use datapath::session::event::{Addresses, EndReason, Ended, Event, Up};
use datapath::session::policy::Question;
use datapath::shard::{Commands, Owner, SessionId};
use datapath::time::{Duration, Instant};

use crate::connect::local::Interrupts;
use crate::connect::reconnect::{Backoff, GOOD_AFTER};
use crate::connect::tunnels::Tunnels;
use crate::explain;
use crate::icmp::{self, Echo, Kind};
use crate::ping::{self, Answer, Arrival, Pinger, Tally};

/// IPv4 may open so long after IPv6: a server that takes its addresses from DHCP asks for one, and may
/// first try whether somebody has it (SoftEther needs two seconds).
const IPV4_WAIT: Duration = Duration::from_secs(5);

/// IPv6 needs no address, so it comes soon after IPv4 or not at all.
const IPV6_WAIT: Duration = Duration::from_secs(1);

/// Servers need not answer an LCP echo at once, and some never do.
const ECHO_WAIT: Duration = Duration::from_secs(1);

/// From a polite end to the cut.
const END_WAIT: Duration = Duration::from_secs(6);

/// Answers owed to others' pings in one turn.
const REPLIES_MAX: usize = 64;

/// What to do.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) settings: Arc<ClientSettings>,
    pub(crate) to: SocketAddr,
    pub(crate) source: Option<SocketAddr>,
    pub(crate) ping_count: u32,
    /// Instead of the gateway's address in the tunnel.
    pub(crate) ping_to: Option<IpAddr>,
    pub(crate) ping_interval: Duration,
    pub(crate) ping_data_len: usize,
    /// From when it is up first, stay so long; `None`: until somebody interrupts.
    pub(crate) hold: Option<Duration>,
    /// Connect again when a session is lost, or the first attempt failed and there is no other address.
    pub(crate) reconnect: Reconnect,
    /// Tells our pings from others'; unpredictable.
    pub(crate) nonce: u64,
}

/// What to do when a session ends that was not to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reconnect {
    /// Report it.
    Never,
    /// Connect again, if it was up once.
    OnceUp,
    /// Connect again, from the first attempt on.
    Always,
}

/// Something worth telling while it happens.
#[derive(Clone, Debug)]
pub(crate) enum Notice {
    /// The session is up.
    Up(Box<Up>),
    /// The session has other addresses than it came up with.
    Changed(Box<Addresses>),
    /// A ping was answered.
    Answered { from: IpAddr, answer: Answer },
    /// A ping was not answered in time.
    Lost { target: IpAddr, number: u32 },
    /// There is nothing to ping, or no address to ping from.
    NoPing(String),
    /// The server answered an LCP echo.
    Echoed(Duration),
    /// A session ended, and there will be another after this wait.
    Again { ended: Box<Ended>, wait: Duration },
    /// A forwarded connection broke, or did not come about.
    NotForwarded(String),
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    /// As it was when the session came up.
    pub(crate) up: Option<Up>,
    /// The last address it had of each kind.
    pub(crate) addresses: Addresses,
    /// What was pinged.
    pub(crate) target: Option<IpAddr>,
    /// Why nothing could be pinged although it was to be.
    pub(crate) no_ping: Option<String>,
    /// What came of the pings.
    pub(crate) tally: Option<Tally>,
    /// Round trip of the LCP echo.
    pub(crate) echo: Option<Duration>,
    /// Why it could not be begun.
    pub(crate) not_begun: Option<String>,
    /// How it ended.
    pub(crate) ended: Option<Ended>,
    /// Sessions that came up after the first.
    pub(crate) reconnects: u32,
    /// Somebody ended it before its time was up.
    pub(crate) interrupted: bool,
}

impl Outcome {
    /// Takes new addresses; one that is lost, as all are when a link ends, stays what it was.
    fn learn(&mut self, new: Addresses) {
        let old = self.addresses;
        if new.ipv4.is_some() {
            self.addresses = Addresses {
                ipv6_ids: new.ipv6_ids.or(old.ipv6_ids),
                ..new
            };
        } else if new.ipv6_ids.is_some() {
            self.addresses.ipv6_ids = new.ipv6_ids;
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Idle,
    Connecting,
    Up {
        since: Instant,
    },
    Ending,
    /// The session is gone; another is to come.
    Waiting {
        until: Instant,
    },
    /// The session is gone; the shard may end.
    Over,
    /// The shard was told so.
    Drained,
}

/// One client.
#[derive(Debug)]
pub(crate) struct Client {
    plan: Plan,
    interrupts: Interrupts,
    tunnels: Option<Tunnels>,
    backoff: Backoff,
    stage: Stage,
    /// When a session was up for the first time.
    first_up: Option<Instant>,
    session: Option<SessionId>,
    pinger: Option<Pinger>,
    /// The session was told to be up, and the pinger was made if there can be one.
    begun: bool,
    echo_sent_at: Option<Instant>,
    polled_at: Instant,
    replies: Vec<Vec<u8>>,
    notices: Vec<Notice>,
    outcome: Outcome,
}

impl Client {
    /// A client that will do what `plan` says until `interrupts` says otherwise, and carries `tunnels`.
    pub(crate) fn new(plan: Plan, interrupts: Interrupts, tunnels: Option<Tunnels>) -> Self {
        Self {
            backoff: Backoff::new(plan.nonce),
            plan,
            interrupts,
            tunnels,
            first_up: None,
            stage: Stage::Idle,
            session: None,
            pinger: None,
            begun: false,
            echo_sent_at: None,
            polled_at: Instant::ZERO,
            replies: Vec::new(),
            notices: Vec::new(),
            outcome: Outcome::default(),
        }
    }

    /// What happened since the last call.
    pub(crate) fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// What came of it so far.
    pub(crate) fn outcome(&self) -> Outcome {
        Outcome {
            tally: self.pinger.as_ref().map(|pinger| pinger.tally().clone()),
            ..self.outcome.clone()
        }
    }

    /// Tells that the session is up and makes the pinger, once every network protocol that was asked
    /// for is open or has had its time.
    fn begin(&mut self, now: Instant, since: Instant) {
        if self.begun {
            return;
        }
        if self
            .second_protocol_wait()
            .is_some_and(|wait| now < since + wait)
        {
            return;
        }
        let addresses = self.outcome.addresses;
        self.begun = true;
        if let Some(tunnels) = &mut self.tunnels {
            tunnels.up(now, &addresses);
        }
        if let Some(up) = &self.outcome.up {
            let up = Up {
                addresses,
                ..up.clone()
            };
            self.notices.push(Notice::Up(Box::new(up)));
        }
        if self.plan.ping_count == 0 || self.pinger.as_ref().is_some_and(Pinger::is_done) {
            return;
        }
        match endpoints(&self.outcome.addresses, self.plan.ping_to) {
            Ok((source, target)) => {
                self.outcome.target = Some(target);
                self.pinger = Some(Pinger::new(
                    now,
                    ping::Plan {
                        source,
                        target,
                        count: self.plan.ping_count,
                        interval: self.plan.ping_interval,
                        data_len: self.plan.ping_data_len,
                        nonce: self.plan.nonce,
                    },
                ));
            }
            Err(why) => {
                self.outcome.no_ping = Some(why.clone());
                self.notices.push(Notice::NoPing(why));
            }
        }
    }

    /// An address came after all, or was replaced.
    fn handle_addresses(&mut self, now: Instant) {
        let addresses = self.outcome.addresses;
        if let Some(tunnels) = &mut self.tunnels {
            tunnels.up(now, &addresses);
        }
        self.notices.push(Notice::Changed(Box::new(addresses)));
    }

    /// How long the network protocol that is not open yet may still take; `None` if all are open.
    fn second_protocol_wait(&self) -> Option<Duration> {
        let link = &self.plan.settings.link;
        let addresses = self.outcome.addresses;
        if link.ipv4 && addresses.ipv4.is_none() {
            Some(IPV4_WAIT)
        } else if link.ipv6 && addresses.ipv6_ids.is_none() {
            Some(IPV6_WAIT)
        } else {
            None
        }
    }

    /// Sends what is due while the session is up.
    fn work(&mut self, now: Instant, since: Instant, session: SessionId, commands: &mut Commands) {
        for reply in self.replies.drain(..) {
            commands.send_packet(session, &reply);
        }
        self.begin(now, since);
        if self.begun && self.echo_sent_at.is_none() {
            self.echo_sent_at = Some(now);
            commands.echo(session);
        }
        if let (Some(pinger), Some(target)) = (&mut self.pinger, self.outcome.target) {
            let notices = &mut self.notices;
            pinger.handle_timeout(
                now,
                |number| notices.push(Notice::Lost { target, number }),
                |packet| commands.send_packet(session, packet),
            );
        }
        if let Some(tunnels) = &mut self.tunnels {
            tunnels.poll(now, |packet| commands.send_packet(session, packet));
            let failures = tunnels.take_failures().into_iter();
            self.notices.extend(failures.map(Notice::NotForwarded));
        }
        if self.is_done(now) {
            self.end(now, session, commands);
        }
    }

    /// Ends the session politely.
    fn end(&mut self, now: Instant, session: SessionId, commands: &mut Commands) {
        if let Some(tunnels) = &mut self.tunnels {
            tunnels.close(now, |packet| commands.send_packet(session, packet));
        }
        commands.terminate(session, EndReason::UserRequest);
        self.stage = Stage::Ending;
    }

    /// Somebody wants an end, politely at first.
    fn handle_interrupt(&mut self, now: Instant, count: u8, commands: &mut Commands) {
        if count > 1 {
            self.outcome.interrupted = true;
            commands.stop();
            return;
        }
        match (self.stage, self.session) {
            (Stage::Connecting | Stage::Up { .. }, Some(session)) => {
                // To be held until an interrupt is to be done by it.
                let is_done = self.first_up.is_some() && self.plan.hold.is_none();
                self.outcome.interrupted = !is_done;
                self.end(now, session, commands);
            }
            (Stage::Idle | Stage::Waiting { .. }, _) | (Stage::Connecting, None) => {
                self.outcome.interrupted = true;
                self.stage = Stage::Over;
            }
            _ => {}
        }
    }

    /// Whether to try again after this end, and then when.
    fn wait_after(&mut self, now: Instant, ended: &Ended) -> Option<Duration> {
        let is_wanted = match self.plan.reconnect {
            Reconnect::Never => false,
            Reconnect::OnceUp => self.first_up.is_some(),
            Reconnect::Always => true,
        };
        if !is_wanted || self.stage == Stage::Ending || !explain::can_heal(ended) {
            return None;
        }
        if let Stage::Up { since } = self.stage
            && now >= since + GOOD_AFTER
        {
            self.backoff.reset();
        }
        Some(self.backoff.next_wait())
    }

    fn is_done(&self, now: Instant) -> bool {
        let pings = self.begun && self.pinger.as_ref().is_none_or(Pinger::is_done);
        let held = self.hold_until().is_some_and(|until| now >= until);
        pings && held && self.echo_deadline().is_none_or(|at| now >= at)
    }

    /// Until when it is held; `None`: until somebody interrupts.
    fn hold_until(&self) -> Option<Instant> {
        Some(self.first_up? + self.plan.hold?)
    }

    /// Until when an echo is waited for; `None` if none is.
    fn echo_deadline(&self) -> Option<Instant> {
        let sent_at = self.echo_sent_at?;
        self.outcome.echo.is_none().then(|| sent_at + ECHO_WAIT)
    }
}

impl Owner for Client {
    fn accept(&mut self, _: SessionId, _: usize, _: SocketAddr) -> Option<Arc<ServerSettings>> {
        None
    }

    fn ask(&mut self, _: SessionId, _: Question) {}

    fn connecting(&mut self, _: u64, session: io::Result<SessionId>) {
        match session {
            Ok(session) => self.session = Some(session),
            Err(error) => {
                self.outcome.not_begun = Some(error.to_string());
                self.stage = Stage::Over;
            }
        }
    }

    fn event(&mut self, now: Instant, _: SessionId, event: Event) {
        match event {
            Event::Up(up) => {
                self.stage = Stage::Up { since: now };
                if self.first_up.is_some() {
                    self.outcome.reconnects += 1;
                }
                self.first_up.get_or_insert(now);
                self.outcome.addresses = up.addresses;
                self.outcome.up = Some(up);
            }
            Event::Changed(addresses) => {
                let before = self.outcome.addresses;
                self.outcome.learn(addresses);
                if self.begun && self.outcome.addresses != before {
                    self.handle_addresses(now);
                }
            }
            Event::EchoReply { round_trip } => {
                if self.outcome.echo.is_none() {
                    self.outcome.echo = Some(round_trip);
                    self.notices.push(Notice::Echoed(round_trip));
                }
            }
            Event::Identified(_) => {}
            Event::Ended(ended) => {
                self.session = None;
                self.begun = false;
                self.stage = match self.wait_after(now, &ended) {
                    Some(wait) => {
                        self.notices.push(Notice::Again {
                            ended: Box::new(ended.clone()),
                            wait,
                        });
                        Stage::Waiting { until: now + wait }
                    }
                    None => Stage::Over,
                };
                self.outcome.ended = Some(ended);
            }
        }
    }

    fn packet(&mut self, now: Instant, _: SessionId, packet: &[u8]) {
        let arrival = match &mut self.pinger {
            Some(pinger) => pinger.handle_packet(now, packet),
            None => Arrival::Foreign,
        };
        match (arrival, self.outcome.target) {
            (Arrival::Answer(answer), Some(from)) => {
                self.notices.push(Notice::Answered { from, answer });
            }
            (Arrival::Foreign, _) => {
                match (reply_to(packet, &self.outcome.addresses), &mut self.tunnels) {
                    (Some(reply), _) if self.replies.len() < REPLIES_MAX => {
                        self.replies.push(reply)
                    }
                    (None, Some(tunnels)) => tunnels.handle_packet(now, packet),
                    _ => {}
                }
            }
            _ => {}
        }
    }

    fn poll(&mut self, now: Instant, commands: &mut Commands) {
        self.polled_at = now;
        let interrupts = self.interrupts.count();
        if interrupts > 0 {
            self.handle_interrupt(now, interrupts, commands);
        }
        if let Stage::Waiting { until } = self.stage
            && now >= until
        {
            self.stage = Stage::Idle;
        }
        match self.stage {
            Stage::Idle => {
                self.stage = Stage::Connecting;
                let settings = Arc::clone(&self.plan.settings);
                commands.connect(0, settings, self.plan.to, self.plan.source);
            }
            Stage::Up { since } => {
                if let Some(session) = self.session {
                    self.work(now, since, session, commands);
                }
            }
            Stage::Over => {
                // The session's last words are still to be sent.
                self.stage = Stage::Drained;
                commands.drain(EndReason::UserRequest, END_WAIT);
            }
            Stage::Connecting | Stage::Ending | Stage::Waiting { .. } | Stage::Drained => {}
        }
    }

    fn next_timeout(&self) -> Option<Instant> {
        match self.stage {
            // At once.
            Stage::Idle | Stage::Over => Some(Instant::ZERO),
            Stage::Waiting { until } => Some(until),
            Stage::Up { since } => {
                let pings = match &self.pinger {
                    Some(pinger) => pinger.next_timeout(),
                    None => (!self.begun)
                        .then(|| self.second_protocol_wait())
                        .flatten()
                        .map(|wait| since + wait),
                };
                // What has passed was seen by the last poll; to ask for it again would never end.
                let waits = [self.hold_until(), self.echo_deadline()];
                let waits = waits
                    .into_iter()
                    .flatten()
                    .filter(|&at| at > self.polled_at);
                let tunnels = self.tunnels.as_ref().and_then(Tunnels::next_timeout);
                pings.into_iter().chain(waits).chain(tunnels).min()
            }
            Stage::Connecting | Stage::Ending | Stage::Drained => None,
        }
    }
}

/// From which of our addresses to ping what.
fn endpoints(addresses: &Addresses, wish: Option<IpAddr>) -> Result<(IpAddr, IpAddr), String> {
    let link_local = |id: u64| Ipv6Addr::from((0xfe80_u128 << 112) | u128::from(id));
    let own_v4 = addresses.ipv4.map(IpAddr::from);
    let own_v6 = addresses
        .ipv6_ids
        .map(|(own, _)| IpAddr::from(link_local(own)));
    let gateway_v4 = addresses
        .ipv4_gateway
        .filter(|gateway| !gateway.is_unspecified())
        .map(IpAddr::from);
    let gateway_v6 = addresses
        .ipv6_ids
        .map(|(_, gateway)| IpAddr::from(link_local(gateway)));
    let target = wish
        .or(gateway_v4)
        .or(gateway_v6)
        .ok_or("the server named no address of its own; name one to ping by --ping-to")?;
    let source = match target {
        IpAddr::V4(_) => own_v4.ok_or("we were given no IPv4 address"),
        IpAddr::V6(target) if target.is_unicast_link_local() => {
            own_v6.ok_or("there is no IPv6 in this tunnel")
        }
        IpAddr::V6(_) => Err("from a link-local IPv6 address only the gateway's can be pinged"),
    };
    Ok((source?, target))
}

/// The reply that a ping from the network is owed, as any host would send it.
fn reply_to(packet: &[u8], addresses: &Addresses) -> Option<Vec<u8>> {
    let request = icmp::parse(packet)?;
    let is_for_us = addresses.ipv4.map(IpAddr::from) == Some(request.destination);
    if request.kind != Kind::Request || !is_for_us {
        return None;
    }
    let mut reply = Vec::new();
    Echo {
        kind: Kind::Reply,
        source: request.destination,
        destination: request.source,
        ..request
    }
    .emit(&mut reply)?;
    Some(reply)
}

#[cfg(test)]
mod tests;
