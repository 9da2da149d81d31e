//! The control plane's half of every shard: who may come in, with which addresses.
//!
//! ```text
//!  shard thread                         control thread
//!  ShardOwner ── FromShard (bounded) ──▶ Control: users file, pools, log
//!             ◀─ ToShard   (bounded) ──          (plain calls, no threads in it)
//! ```
//!
//! A shard never waits: what does not fit into a queue stays with its sender and goes with the next
//! turn. That is bounded too, since a session has one question open at a time and ends once.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use crossbeam::channel::{Receiver, Sender, TrySendError};
use datapath::io::{ConnectionId, TunQueue, Waker};
use datapath::session::ServerSettings;
use datapath::session::event::{EndReason, Event};
use datapath::session::policy::{Answer, Ipv4Policy, Ipv6Policy, Policy, Question, Refusal};
use datapath::shard::{Commands, Owner, SessionId};
use datapath::time::{Duration, Instant};
use tokio::sync::Notify;

use crate::addresses::{Addresses, Lease, NoLease};
use crate::auth::{Authority, Outcome, Rejection};
use crate::config::Snapshot;
use crate::logs::{EndLine, SessionLog, UpLine};
use crate::users::User;

/// RFC 2759 §6: no permission to dial in. Of its numbers the one that does not ask for the password
/// again.
const ERROR_NO_DIALIN_PERMISSION: u16 = 649;
/// How soon a shard tries again what did not fit into the queue.
const RETRY: Duration = Duration::from_millis(5);

/// From a shard to the control plane.
#[derive(Debug)]
pub(crate) enum FromShard {
    /// A session asks.
    Asked {
        session: SessionId,
        question: Question,
    },
    /// A session has news.
    Told {
        at: Instant,
        session: SessionId,
        event: Event,
    },
    /// The shard serves; what it stands on, in words, and how to wake it.
    Ready {
        shard: u16,
        /// Which driver it got, and why.
        driver: String,
        features: String,
        waker: Waker,
    },
    /// The shard uses the queue it was given, or could not take it.
    TunReplaced { shard: u16, error: Option<String> },
    /// The shard has ended; with why, if it was not asked to.
    Stopped { shard: u16, error: Option<String> },
}

/// From the control plane to a shard.
#[derive(Debug)]
pub(crate) enum ToShard {
    Answer(SessionId, Answer),
    /// Cut this session without a word.
    Abandon(SessionId, EndReason),
    /// Use this TUN queue: the device was made again.
    Tun(TunQueue),
    /// End everything politely, within this time.
    Drain(Duration),
    /// End everything at once.
    Stop,
}

/// A queue whose sender keeps what does not fit.
#[derive(Debug)]
pub(crate) struct Outbox<T> {
    sender: Sender<T>,
    backlog: VecDeque<T>,
}

impl<T> Outbox<T> {
    pub(crate) const fn new(sender: Sender<T>) -> Self {
        Self {
            sender,
            backlog: VecDeque::new(),
        }
    }

    /// Sends `message`, now or with a later [`Outbox::flush`], in order.
    pub(crate) fn send(&mut self, message: T) {
        self.backlog.push_back(message);
        self.flush();
    }

    /// Whether nothing was kept.
    pub(crate) fn is_empty(&self) -> bool {
        self.backlog.is_empty()
    }

    /// Sends what was kept; `true` if nothing is left.
    pub(crate) fn flush(&mut self) -> bool {
        while let Some(message) = self.backlog.pop_front() {
            match self.sender.try_send(message) {
                Ok(()) => {}
                Err(TrySendError::Full(message)) => {
                    self.backlog.push_front(message);
                    return false;
                }
                // The other side has ended; nobody misses it.
                Err(TrySendError::Disconnected(_)) => self.backlog.clear(),
            }
        }
        true
    }
}

/// What a shard asks, on the shard's own thread.
#[derive(Debug)]
pub(crate) struct ShardOwner {
    shard: u16,
    settings: Arc<ServerSettings>,
    gate: SourceGate,
    now: Instant,
    outbox: Outbox<FromShard>,
    inbox: Receiver<ToShard>,
    control: Arc<Notify>,
}

impl ShardOwner {
    /// Serves with `settings`; `control` wakes the control plane.
    pub(crate) fn new(
        shard: u16,
        settings: Arc<ServerSettings>,
        gate: SourceGate,
        outbox: Sender<FromShard>,
        inbox: Receiver<ToShard>,
        control: Arc<Notify>,
    ) -> Self {
        Self {
            shard,
            settings,
            gate,
            now: Instant::ZERO,
            outbox: Outbox::new(outbox),
            inbox,
            control,
        }
    }

    fn tell(&mut self, message: FromShard) {
        self.outbox.send(message);
        self.control.notify_one();
    }
}

impl Owner for ShardOwner {
    fn accept(
        &mut self,
        session: SessionId,
        _listener: usize,
        peer: SocketAddr,
    ) -> Option<Arc<ServerSettings>> {
        self.gate
            .admit(session, peer.ip())
            .then(|| Arc::clone(&self.settings))
    }

    fn ask(&mut self, session: SessionId, question: Question) {
        self.gate.leave(session);
        self.tell(FromShard::Asked { session, question });
    }

    fn event(&mut self, now: Instant, session: SessionId, event: Event) {
        if matches!(event, Event::Ended(_)) {
            self.gate.leave(session);
        }
        if matches!(event, Event::Up(_) | Event::Ended(_)) {
            self.tell(FromShard::Told {
                at: now,
                session,
                event,
            });
        }
    }

    fn tun_replaced(&mut self, result: std::io::Result<()>) {
        let shard = self.shard;
        let error = result.err().map(|error| error.to_string());
        self.tell(FromShard::TunReplaced { shard, error });
    }

    fn poll(&mut self, now: Instant, commands: &mut Commands) {
        self.now = now;
        self.outbox.flush();
        while let Ok(message) = self.inbox.try_recv() {
            match message {
                ToShard::Answer(session, answer) => commands.answer(session, answer),
                ToShard::Abandon(session, reason) => commands.abandon(session, reason),
                ToShard::Tun(queue) => commands.replace_tun(queue),
                ToShard::Drain(within) => commands.drain(EndReason::Shutdown, within),
                ToShard::Stop => commands.stop(),
            }
        }
    }

    fn next_timeout(&self) -> Option<Instant> {
        (!self.outbox.backlog.is_empty()).then(|| self.now + RETRY)
    }
}

/// Bounds the connections of one source that have not come as far as a password.
///
/// Its tables are as large as the shard's own at most: a place there is a place here.
#[derive(Debug)]
pub(crate) struct SourceGate {
    per_source: u32,
    /// Generation and source of the connection in each place, until it asks or ends.
    waiting: HashMap<u32, (u32, IpAddr)>,
    counts: HashMap<IpAddr, u32>,
}

impl SourceGate {
    /// At most `per_source` of one source.
    pub(crate) fn new(per_source: u32) -> Self {
        Self {
            per_source,
            waiting: HashMap::new(),
            counts: HashMap::new(),
        }
    }

    /// An IPv6 source is its /64: who has one has all of its addresses.
    fn key(ip: IpAddr) -> IpAddr {
        match ip {
            IpAddr::V4(_) => ip,
            IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64)),
        }
    }

    /// Whether this connection of `ip` is served.
    fn admit(&mut self, session: SessionId, ip: IpAddr) -> bool {
        let ConnectionId { slot, generation } = session.connection;
        // One that was in this place before is gone, whether we were told or not.
        self.remove(slot);
        let key = Self::key(ip);
        let count = self.counts.entry(key).or_default();
        if *count >= self.per_source {
            return false;
        }
        *count += 1;
        self.waiting.insert(slot, (generation, key));
        true
    }

    /// A connection has come as far as a password, or is gone.
    fn leave(&mut self, session: SessionId) {
        let ConnectionId { slot, generation } = session.connection;
        if self
            .waiting
            .get(&slot)
            .is_some_and(|&(of, _)| of == generation)
        {
            self.remove(slot);
        }
    }

    fn remove(&mut self, slot: u32) {
        if let Some((_, key)) = self.waiting.remove(&slot)
            && let Some(count) = self.counts.get_mut(&key)
        {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&key);
            }
        }
    }
}

/// A session as the control plane knows it, from its first question to its end.
#[derive(Debug)]
struct Held {
    /// As the client gives it, for the log.
    name: Vec<u8>,
    peer: SocketAddr,
    lease: Option<Lease>,
    up_since: Option<Instant>,
}

/// An accepted login that waits for an older session of its user to be gone.
#[derive(Debug)]
struct Waiting {
    session: SessionId,
    user: Arc<User>,
    hlak: datapath::crypto::hlak::Hlak,
    message: Vec<u8>,
}

/// The control plane's mind: questions in, answers out, no threads and no clock.
#[derive(Debug)]
pub(crate) struct Control {
    snapshot: Arc<Snapshot>,
    authority: Authority,
    addresses: Addresses,
    sessions: HashMap<SessionId, Held>,
    /// Sessions that have a lease.
    leases: usize,
    /// Logins that wait for the end of the session they are filed under.
    waiting: HashMap<SessionId, Vec<Waiting>>,
    log: SessionLog,
}

impl Control {
    /// Decides by `snapshot`.
    pub(crate) fn new(snapshot: Arc<Snapshot>) -> Self {
        Self {
            authority: Authority::new(Arc::clone(&snapshot.users)),
            addresses: Addresses::new(&snapshot.config.pools, snapshot.users.iter()),
            snapshot,
            sessions: HashMap::new(),
            leases: 0,
            waiting: HashMap::new(),
            log: SessionLog::default(),
        }
    }

    /// A session asks; answers go to `out`.
    pub(crate) fn ask(
        &mut self,
        session: SessionId,
        question: &Question,
        out: &mut impl FnMut(u16, ToShard),
    ) {
        let Question::Authenticate { credentials, peer } = question;
        self.sessions.entry(session).or_insert_with(|| Held {
            name: credentials.user().to_vec(),
            peer: *peer,
            lease: None,
            up_since: None,
        });
        match self.authority.judge(session, credentials) {
            Outcome::Accepted {
                user,
                hlak,
                message,
            } => {
                let login = Waiting {
                    session,
                    user,
                    hlak,
                    message,
                };
                self.let_in(login, out);
            }
            Outcome::Rejected(rejection) => {
                out(session.shard, ToShard::Answer(session, reject(rejection)))
            }
            Outcome::Continue { request } => {
                out(
                    session.shard,
                    ToShard::Answer(session, Answer::Continue { request }),
                );
            }
        }
    }

    /// Gives addresses to a login that is good; or makes room for it first.
    fn let_in(&mut self, login: Waiting, out: &mut impl FnMut(u16, ToShard)) {
        let limit = usize::try_from(self.snapshot.config.limits.sessions).unwrap_or(usize::MAX);
        if self.leases >= limit {
            out(
                login.session.shard,
                ToShard::Answer(login.session, no_room("All sessions are taken")),
            );
            return;
        }
        let lease = match self.addresses.take(&login.user) {
            Ok(lease) => lease,
            Err(NoLease::Exhausted) => {
                self.log.exhausted();
                out(
                    login.session.shard,
                    ToShard::Answer(login.session, no_room("No address is free")),
                );
                return;
            }
            Err(NoLease::OwnV4Taken(_) | NoLease::OwnV6Taken(_)) => {
                // The newer login wins: the older session is most likely a connection that has been
                // lost without our knowing. It gets the address when that one is gone.
                if let Some(older) = self.holder(&login.user) {
                    out(older.shard, ToShard::Abandon(older, EndReason::Replaced));
                    self.waiting.entry(older).or_default().push(login);
                } else {
                    out(
                        login.session.shard,
                        ToShard::Answer(login.session, no_room("Address in use")),
                    );
                }
                return;
            }
        };
        let policy = self.policy(&login.user, &lease);
        match self.sessions.get_mut(&login.session) {
            Some(held) if held.lease.is_none() => {
                held.lease = Some(lease);
                self.leases += 1;
            }
            // It is gone, or asks a second time; either way it needs no other lease.
            _ => {
                self.addresses.release(lease);
                return;
            }
        }
        let answer = Answer::Accept {
            hlak: login.hlak,
            message: login.message,
            policy: Box::new(policy),
        };
        out(login.session.shard, ToShard::Answer(login.session, answer));
    }

    /// The session that holds an address of this user's own.
    fn holder(&self, user: &User) -> Option<SessionId> {
        self.sessions.iter().find_map(|(&session, held)| {
            let lease = held.lease.as_ref()?;
            let v4 = user.v4.is_some() && lease.v4.map(|v4| v4.client) == user.v4;
            let own_v6 = user.v6.map(|v6| v6.network());
            let v6 = own_v6.is_some() && lease.v6.map(|v6| v6.prefix) == own_v6;
            (v4 || v6).then_some(session)
        })
    }

    fn policy(&self, user: &User, lease: &Lease) -> Policy {
        let network = &self.snapshot.config.network;
        let mut dns = network.dns.iter().filter_map(|dns| match dns {
            IpAddr::V4(dns) => Some(*dns),
            IpAddr::V6(_) => None,
        });
        let dns = [dns.next(), dns.next()];
        let nbns = [network.nbns.first().copied(), network.nbns.get(1).copied()];
        Policy {
            user: user.name.as_bytes().to_vec(),
            ipv4: lease.v4.map(|v4| Ipv4Policy {
                client: v4.client,
                gateway: v4.gateway,
                dns,
                nbns,
            }),
            ipv6: lease.v6.map(|v6| Ipv6Policy {
                prefix: Some(v6.prefix),
                gateway: Some(v6.gateway),
                // fe80::1, whatever the pool's own address is.
                gateway_id: 1,
                client_id: None,
            }),
            mtu: network.mtu,
            session_timeout: None,
            idle_timeout: None,
            network: Some(Arc::clone(&network.profile)),
        }
    }

    /// A session has news.
    pub(crate) fn told(
        &mut self,
        at: Instant,
        session: SessionId,
        event: &Event,
        out: &mut impl FnMut(u16, ToShard),
    ) {
        match event {
            Event::Up(up) => {
                let Some(held) = self.sessions.get_mut(&session) else {
                    return;
                };
                held.up_since = Some(at);
                let line = UpLine {
                    session,
                    peer: held.peer,
                    // What it was given: one of the two families may be open only in a moment.
                    v4: held
                        .lease
                        .as_ref()
                        .and_then(|lease| lease.v4)
                        .map(|v4| v4.client),
                    v6: held
                        .lease
                        .as_ref()
                        .and_then(|lease| lease.v6)
                        .map(|v6| v6.prefix),
                };
                self.log.up(&line, at, up);
            }
            Event::Ended(ended) => {
                self.authority.forget(session);
                let held = self.sessions.remove(&session);
                let line = EndLine {
                    session,
                    name: held.as_ref().map(|held| held.name.as_slice()),
                    peer: held.as_ref().map(|held| held.peer),
                    lasted: held
                        .as_ref()
                        .and_then(|held| held.up_since)
                        .map(|since| at.saturating_since(since)),
                };
                self.log.ended(&line, ended);
                if let Some(lease) = held.and_then(|held| held.lease) {
                    self.addresses.release(lease);
                    self.leases -= 1;
                }
                self.forget_waiting(session);
                for login in self.waiting.remove(&session).unwrap_or_default() {
                    self.let_in(login, out);
                }
            }
            _ => {}
        }
    }

    /// A login that waits is gone itself.
    fn forget_waiting(&mut self, session: SessionId) {
        self.waiting.retain(|_, logins| {
            logins.retain(|login| login.session != session);
            !logins.is_empty()
        });
    }
}

fn reject(rejection: Rejection) -> Answer {
    let Rejection {
        error,
        message,
        eap,
        refusal,
    } = rejection;
    Answer::Reject {
        error,
        message,
        eap,
        refusal,
    }
}

fn no_room(message: &str) -> Answer {
    Answer::Reject {
        error: ERROR_NO_DIALIN_PERMISSION,
        message: message.as_bytes().to_vec(),
        eap: None,
        refusal: Refusal::NoAddress,
    }
}

#[cfg(test)]
mod tests;
