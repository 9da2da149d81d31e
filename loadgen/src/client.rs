//! The owner of one client session: connect, ping, echo, hold, end.
//!
//! ```text
//!   Idle ─ connect ─▶ Connecting ─ Up ─▶ Up ─ pings done, held long enough ─▶ Ending ─ Ended ─▶ Over
//!                         └───────── Ended, or it could not be begun ────────────────────────────▲
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

use crate::icmp::{self, Echo, Kind};
use crate::ping::{self, Answer, Arrival, Pinger, Tally};

/// The second network protocol may open a moment after the first.
const SECOND_PROTOCOL_WAIT: Duration = Duration::from_secs(1);

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
    /// Stay up at least so long.
    pub(crate) hold: Duration,
    /// Tells our pings from others'; unpredictable.
    pub(crate) nonce: u64,
}

/// Something worth telling while it happens.
#[derive(Clone, Debug)]
pub(crate) enum Notice {
    /// The session is up.
    Up(Box<Up>),
    /// A ping was answered.
    Answered { from: IpAddr, answer: Answer },
    /// A ping was not answered in time.
    Lost { target: IpAddr, number: u32 },
    /// There is nothing to ping, or no address to ping from.
    NoPing(String),
    /// The server answered an LCP echo.
    Echoed(Duration),
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
    /// The session is gone; the shard may end.
    Over,
    /// The shard was told so.
    Drained,
}

/// One client.
#[derive(Debug)]
pub(crate) struct Client {
    plan: Plan,
    stage: Stage,
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
    /// A client that will do what `plan` says.
    pub(crate) fn new(plan: Plan) -> Self {
        Self {
            plan,
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
        let link = &self.plan.settings.link;
        let addresses = self.outcome.addresses;
        let waits =
            (link.ipv4 && addresses.ipv4.is_none()) || (link.ipv6 && addresses.ipv6_ids.is_none());
        if waits && now < since + SECOND_PROTOCOL_WAIT {
            return;
        }
        self.begun = true;
        if let Some(up) = &self.outcome.up {
            let up = Up {
                addresses,
                ..up.clone()
            };
            self.notices.push(Notice::Up(Box::new(up)));
        }
        if self.plan.ping_count == 0 {
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
        if self.is_done(now, since) {
            commands.terminate(session, EndReason::UserRequest);
            self.stage = Stage::Ending;
        }
    }

    fn is_done(&self, now: Instant, since: Instant) -> bool {
        let pings = self.begun && self.pinger.as_ref().is_none_or(Pinger::is_done);
        pings && now >= since + self.plan.hold && self.echo_deadline().is_none_or(|at| now >= at)
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
                self.outcome.addresses = up.addresses;
                self.outcome.up = Some(up);
            }
            Event::Changed(addresses) => self.outcome.learn(addresses),
            Event::EchoReply { round_trip } => {
                if self.outcome.echo.is_none() {
                    self.outcome.echo = Some(round_trip);
                    self.notices.push(Notice::Echoed(round_trip));
                }
            }
            Event::Identified(_) => {}
            Event::Ended(ended) => {
                self.outcome.ended = Some(ended);
                self.stage = Stage::Over;
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
            (Arrival::Foreign, _) if self.replies.len() < REPLIES_MAX => {
                self.replies
                    .extend(reply_to(packet, &self.outcome.addresses));
            }
            _ => {}
        }
    }

    fn poll(&mut self, now: Instant, commands: &mut Commands) {
        self.polled_at = now;
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
            Stage::Connecting | Stage::Ending | Stage::Drained => {}
        }
    }

    fn next_timeout(&self) -> Option<Instant> {
        match self.stage {
            // At once.
            Stage::Idle | Stage::Over => Some(Instant::ZERO),
            Stage::Up { since } => {
                let pings = match &self.pinger {
                    Some(pinger) => pinger.next_timeout(),
                    None => (!self.begun).then(|| since + SECOND_PROTOCOL_WAIT),
                };
                // What has passed was seen by the last poll; to ask for it again would never end.
                let hold = since + self.plan.hold;
                let waits = [Some(hold), self.echo_deadline()];
                let waits = waits
                    .into_iter()
                    .flatten()
                    .filter(|&at| at > self.polled_at);
                pings.into_iter().chain(waits).min()
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
mod tests {
    use datapath::io::ConnectionId;
    use datapath::session::event::{Milestones, Protection};
    use datapath::session::{Habits, Limits};
    use datapath::sstp::Timing;
    use datapath::tls::{ClientProfile, TlsOptions};

    use super::*;

    fn addresses() -> Addresses {
        Addresses {
            ipv4: Some([10, 0, 0, 2].into()),
            ipv4_gateway: Some([10, 0, 0, 1].into()),
            ipv6_ids: Some((2, 1)),
            ..Addresses::default()
        }
    }

    /// A client of `plan`, up at `now`.
    fn up(now: Instant, ping_count: u32, hold: Duration) -> Client {
        let tls = ClientProfile::danger_accept_any(&TlsOptions::default()).unwrap();
        let settings = ClientSettings {
            tls: Arc::new(tls),
            server_name: "vpn.example".try_into().unwrap(),
            host: String::new(),
            timing: Timing::default(),
            link: Arc::default(),
            limits: Limits::default(),
            habits: Habits::default(),
        };
        let mut client = Client::new(Plan {
            settings: Arc::new(settings),
            to: ([127, 0, 0, 1], 443).into(),
            source: None,
            ping_count,
            ping_to: None,
            ping_interval: Duration::from_millis(100),
            ping_data_len: 56,
            hold,
            nonce: 1,
        });
        client.poll(now, &mut Commands::default());
        assert_eq!(client.stage, Stage::Connecting);
        client.connecting(0, Ok(ID));
        let up = Up {
            user: Vec::new(),
            addresses: addresses(),
            protection: Protection::default(),
            milestones: Milestones::default(),
        };
        client.event(now, ID, Event::Up(up));
        client
    }

    const ID: SessionId = SessionId {
        shard: 0,
        connection: ConnectionId {
            slot: 0,
            generation: 0,
        },
    };

    #[test]
    fn it_waits_only_for_what_is_to_come() {
        let start = Instant::from_nanos(1_000_000_000);
        for (pings, hold_ms) in [(0, 0), (0, 300), (0, 5_000), (3, 0), (3, 5_000)] {
            let hold = Duration::from_millis(hold_ms);
            let mut client = up(start, pings, hold);
            let mut now = start;
            let mut polls = 0;
            // No ping and no echo is answered, and it ends all the same, in few polls.
            while client.stage != Stage::Ending {
                client.poll(now, &mut Commands::default());
                polls += 1;
                assert!(polls < 20, "{pings} pings, {hold_ms} ms: it spins");
                now = client.next_timeout().unwrap_or(now).max(now);
            }
            assert!(now.saturating_since(start) >= hold);
            assert!(now.saturating_since(start) <= hold.max(Duration::from_secs(3)));
        }
    }

    #[test]
    fn the_gateway_is_pinged_unless_another_is_named() {
        let v4 = |last| IpAddr::from([10, 0, 0, last]);
        assert_eq!(endpoints(&addresses(), None), Ok((v4(2), v4(1))));
        assert_eq!(endpoints(&addresses(), Some(v4(9))), Ok((v4(2), v4(9))));
        let only_v6 = Addresses {
            ipv4: None,
            ipv4_gateway: None,
            ..addresses()
        };
        let link_local = |last| Ok::<IpAddr, ()>(format!("fe80::{last}").parse().unwrap());
        assert_eq!(
            endpoints(&only_v6, None).unwrap(),
            (link_local(2).unwrap(), link_local(1).unwrap())
        );
        assert!(endpoints(&only_v6, Some(v4(9))).is_err());
        assert!(endpoints(&addresses(), Some("2001:db8::1".parse().unwrap())).is_err());
        assert!(endpoints(&Addresses::default(), None).is_err());
        let nameless = Addresses {
            ipv4_gateway: Some([0; 4].into()),
            ipv6_ids: None,
            ..addresses()
        };
        assert!(endpoints(&nameless, None).is_err());
    }

    #[test]
    fn a_ping_to_us_is_answered_and_nothing_else() {
        let mut packet = Vec::new();
        let request = Echo {
            kind: Kind::Request,
            source: [10, 0, 0, 1].into(),
            destination: [10, 0, 0, 2].into(),
            identifier: 1,
            sequence: 2,
            data: b"data",
        };
        request.emit(&mut packet).unwrap();
        let reply = reply_to(&packet, &addresses()).unwrap();
        let reply = icmp::parse(&reply).unwrap();
        assert_eq!(
            (reply.kind, reply.destination, reply.data),
            (Kind::Reply, request.source, request.data)
        );
        Echo {
            destination: [10, 0, 0, 3].into(),
            ..request
        }
        .emit(&mut packet)
        .unwrap();
        assert_eq!(reply_to(&packet, &addresses()), None);
        Echo {
            kind: Kind::Reply,
            ..request
        }
        .emit(&mut packet)
        .unwrap();
        assert_eq!(reply_to(&packet, &addresses()), None);
    }
}
