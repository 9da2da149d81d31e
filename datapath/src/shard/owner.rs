//! Who a shard works for: the gateway's policy, or a load generator's scenario.
//!
//! An [`Owner`] lives on the shard's thread and must never wait. It is told what happens as it
//! happens, and once a turn it is asked what it wants done: it fills [`Commands`], which the shard
//! carries out. So no call ever comes back into the shard from within the shard.

use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

use crate::io::{ConnectionId, TunQueue};
use crate::session::event::{EndReason, Event};
use crate::session::policy::{Answer, Policy, Question};
use crate::session::{ClientSettings, Leave, ServerSettings};
use crate::time::{Duration, Instant};

/// A session of this process: its shard and its place there. Never reused while anything of it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId {
    /// The shard's number.
    pub shard: u16,
    /// Its place on the shard.
    pub connection: ConnectionId,
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ConnectionId { slot, generation } = self.connection;
        write!(f, "{}-{slot}-{generation}", self.shard)
    }
}

/// What decides for a shard.
pub trait Owner {
    /// A connection was accepted: how shall it be served? `None` refuses it.
    fn accept(
        &mut self,
        session: SessionId,
        listener: usize,
        peer: SocketAddr,
    ) -> Option<Arc<ServerSettings>>;

    /// A session asks; answer in a later [`Owner::poll`] by [`Commands::answer`].
    fn ask(&mut self, session: SessionId, question: Question);

    /// A session tells its news.
    fn event(&mut self, now: Instant, session: SessionId, event: Event);

    /// A packet for the inside, when the shard's inside is [`super::Inside::Owner`].
    fn packet(&mut self, now: Instant, session: SessionId, packet: &[u8]) {
        let _ = (now, session, packet);
    }

    /// The connection asked for under `token` is being opened as `session`, or could not even be
    /// asked for.
    fn connecting(&mut self, token: u64, session: std::io::Result<SessionId>) {
        let _ = (token, session);
    }

    /// The queue given by [`Commands::replace_tun`] is in use, or could not be taken.
    fn tun_replaced(&mut self, result: std::io::Result<()>) {
        let _ = result;
    }

    /// Once a turn: what shall be done?
    fn poll(&mut self, now: Instant, commands: &mut Commands);

    /// When [`Owner::poll`] wants to be called even if nothing happens.
    fn next_timeout(&self) -> Option<Instant> {
        None
    }
}

/// One thing to be done.
#[derive(Debug)]
pub(super) enum Command {
    Answer(SessionId, Answer),
    Policy(SessionId, Box<Policy>),
    Terminate(SessionId, EndReason),
    Abandon(SessionId, EndReason),
    Leave(SessionId, Leave, EndReason),
    Connect {
        token: u64,
        settings: Arc<ClientSettings>,
        to: SocketAddr,
        source: Option<SocketAddr>,
    },
    Packet(SessionId, Range<usize>),
    Echo(SessionId),
    Move(SessionId, u16),
    ReplaceTun(TunQueue),
    Drain {
        reason: EndReason,
        within: Duration,
    },
    Stop,
}

/// What an owner wants done this turn, in order.
#[derive(Debug, Default)]
pub struct Commands {
    pub(super) list: Vec<Command>,
    /// The bytes of all [`Command::Packet`]s; kept from turn to turn.
    pub(super) packets: Vec<u8>,
}

impl Commands {
    /// Answers the question of `session`; an answer to a session that is gone is dropped.
    pub fn answer(&mut self, session: SessionId, answer: Answer) {
        self.list.push(Command::Answer(session, answer));
    }

    /// Replaces what `session` may do.
    pub fn set_policy(&mut self, session: SessionId, policy: Box<Policy>) {
        self.list.push(Command::Policy(session, policy));
    }

    /// Ends `session` politely.
    pub fn terminate(&mut self, session: SessionId, reason: EndReason) {
        self.list.push(Command::Terminate(session, reason));
    }

    /// Cuts `session` without a word.
    pub fn abandon(&mut self, session: SessionId, reason: EndReason) {
        self.list.push(Command::Abandon(session, reason));
    }

    /// Leaves `session` as a client does that crashes or loses its network.
    pub fn leave(&mut self, session: SessionId, how: Leave, reason: EndReason) {
        self.list.push(Command::Leave(session, how, reason));
    }

    /// Opens a session in the client role; [`Owner::connecting`] tells its id.
    pub fn connect(
        &mut self,
        token: u64,
        settings: Arc<ClientSettings>,
        to: SocketAddr,
        source: Option<SocketAddr>,
    ) {
        self.list.push(Command::Connect {
            token,
            settings,
            to,
            source,
        });
    }

    /// Sends an IP packet through `session`.
    pub fn send_packet(&mut self, session: SessionId, packet: &[u8]) {
        let start = self.packets.len();
        self.packets.extend_from_slice(packet);
        self.list
            .push(Command::Packet(session, start..self.packets.len()));
    }

    /// Sends an LCP Echo-Request on `session`; the answer is [`Event::EchoReply`].
    pub fn echo(&mut self, session: SessionId) {
        self.list.push(Command::Echo(session));
    }

    /// Moves the connection of `session` to another shard, where it gets another id. Possible until
    /// its first question; otherwise nothing happens.
    pub fn move_to(&mut self, session: SessionId, shard: u16) {
        self.list.push(Command::Move(session, shard));
    }

    /// Uses `queue` from now on in place of the shard's TUN queue, whose device is gone; it must be of
    /// a device with the same offloads. [`Owner::tun_replaced`] tells what came of it.
    pub fn replace_tun(&mut self, queue: TunQueue) {
        self.list.push(Command::ReplaceTun(queue));
    }

    /// Stops accepting, ends every session politely, and ends the shard when all are gone or
    /// `within` has passed.
    pub fn drain(&mut self, reason: EndReason, within: Duration) {
        self.list.push(Command::Drain { reason, within });
    }

    /// Ends the shard at once.
    pub fn stop(&mut self) {
        self.list.push(Command::Stop);
    }
}
