//! One client and one server session, joined by two byte pipes and a number for a clock.
//!
//! The smallest world in which the whole protocol runs: no shard, no driver. A test steps it until
//! nothing moves ([`Pair::settle`]), or lets time jump to the next deadline ([`Pair::wait`]).

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use super::rng::Rng;
use crate::io::{Loss, SendBuffer};
use crate::output::Entropy;
use crate::session::event::{DropReason, Event};
use crate::session::policy::{Answer, Question};
use crate::session::transmit::{BUFFER_LEN, BufferSource, SMALL_BUFFER_LEN};
use crate::session::{ClientSettings, Disposition, Edge, ServerSettings, Session};
use crate::time::Instant;
use crate::tls;

/// A handle on one seeded generator; clones draw from the same sequence.
#[derive(Clone, Debug)]
pub struct SharedRng(Rc<RefCell<Rng>>);

impl SharedRng {
    /// A generator whose draws follow from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Rc::new(RefCell::new(Rng::new(seed))))
    }
}

impl Entropy for SharedRng {
    fn fill(&mut self, bytes: &mut [u8]) {
        self.0.borrow_mut().fill(bytes);
    }
}

/// An edge that keeps everything.
#[derive(Debug)]
pub struct TestEdge {
    /// Packets that reached the inside.
    pub inside: Vec<Vec<u8>>,
    /// Questions not yet answered.
    pub questions: VecDeque<Question>,
    /// News, in order.
    pub events: Vec<Event>,
    /// Drops, in order.
    pub drops: Vec<DropReason>,
    rng: SharedRng,
    /// Buffers that were sent, to be used again.
    spare: Vec<SendBuffer>,
}

impl TestEdge {
    /// An edge whose random numbers follow from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            inside: Vec::new(),
            questions: VecDeque::new(),
            events: Vec::new(),
            drops: Vec::new(),
            rng: SharedRng::new(seed),
            spare: Vec::new(),
        }
    }

    fn buffer(&mut self, len: usize) -> SendBuffer {
        let known = self.spare.iter().position(|one| one.bytes.len() == len);
        known.map_or_else(
            || SendBuffer {
                bytes: vec![0; len].into_boxed_slice(),
                start: 0,
                end: 0,
            },
            |index| self.spare.swap_remove(index),
        )
    }
}

impl BufferSource for TestEdge {
    fn large(&mut self) -> Option<SendBuffer> {
        Some(self.buffer(BUFFER_LEN))
    }

    fn small(&mut self) -> SendBuffer {
        self.buffer(SMALL_BUFFER_LEN)
    }
}

impl Edge for TestEdge {
    type Entropy = SharedRng;

    fn inside(&mut self, packet: &mut [u8]) {
        self.inside.push(packet.to_vec());
    }

    fn ask(&mut self, question: Question) {
        self.questions.push_back(question);
    }

    fn event(&mut self, event: Event) {
        self.events.push(event);
    }

    fn dropped(&mut self, reason: DropReason) {
        self.drops.push(reason);
    }

    fn entropy(&self) -> SharedRng {
        self.rng.clone()
    }

    fn take_stash(&mut self) -> Vec<u8> {
        Vec::new()
    }

    fn give_stash(&mut self, _: Vec<u8>) {}
}

/// A session, its edge, and whether its connection still stands.
#[derive(Debug)]
pub struct End {
    /// The session.
    pub session: Session,
    /// What it reaches.
    pub edge: TestEdge,
    /// Its connection is closed.
    pub closed: bool,
    shut: bool,
}

/// Answers a server's questions.
pub type Authority = Box<dyn FnMut(Question) -> Option<Answer>>;

/// Two sessions and the wire between them.
pub struct Pair {
    /// The client's end.
    pub client: End,
    /// The server's end.
    pub server: End,
    /// The time.
    pub now: Instant,
    /// Answers the server's questions; `None` leaves one unanswered for good.
    pub authority: Authority,
    /// Bytes are delivered in pieces of at most this many.
    pub piece_len: usize,
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pair")
            .field("now", &self.now)
            .finish_non_exhaustive()
    }
}

impl Pair {
    /// Two sessions under these settings, about to shake hands.
    ///
    /// # Errors
    ///
    /// TLS cannot begin under these settings.
    pub fn new(
        client: Arc<ClientSettings>,
        server: Arc<ServerSettings>,
        seed: u64,
        authority: Authority,
    ) -> Result<Self, tls::Error> {
        let now = Instant::from_nanos(1_000_000_000);
        let peer = ([127, 0, 0, 1], 1).into();
        let end = |session, seed| End {
            session,
            edge: TestEdge::new(seed),
            closed: false,
            shut: false,
        };
        let mut pair = Self {
            client: end(Session::connect(now, client, peer)?, seed),
            server: end(Session::accept(now, server, peer)?, !seed),
            now,
            authority,
            piece_len: usize::MAX,
        };
        pair.client.session.connected(now, &mut pair.client.edge);
        Ok(pair)
    }

    /// Carries bytes and answers until nothing moves.
    pub fn settle(&mut self) {
        loop {
            let mut moved = carry(&mut self.client, &mut self.server, self.now, self.piece_len);
            moved |= carry(&mut self.server, &mut self.client, self.now, self.piece_len);
            while let Some(question) = self.server.edge.questions.pop_front() {
                if let Some(answer) = (self.authority)(question) {
                    let End { session, edge, .. } = &mut self.server;
                    session.handle_answer(self.now, answer, edge);
                    moved = true;
                }
            }
            if !moved {
                return;
            }
        }
    }

    /// Jumps to the next deadline of either session, lets it act, and settles; `false` if none.
    pub fn wait(&mut self) -> bool {
        let next = [&self.client, &self.server]
            .into_iter()
            .filter(|end| !end.closed)
            .filter_map(|end| end.session.next_timeout())
            .min();
        let Some(next) = next else { return false };
        self.now = self.now.max(next);
        for end in [&mut self.client, &mut self.server] {
            if !end.closed && end.session.next_timeout().is_some_and(|at| at <= self.now) {
                end.session.handle_timeout(self.now, &mut end.edge);
            }
        }
        self.settle();
        true
    }

    /// Settles and waits until `done`, for at most `limit` deadlines.
    pub fn run_until(&mut self, limit: usize, mut done: impl FnMut(&Self) -> bool) -> bool {
        self.settle();
        for _ in 0..limit {
            if done(self) {
                return true;
            }
            if !self.wait() {
                break;
            }
        }
        done(self)
    }

    /// Whether both sides have told that they are up.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.client.session.is_up() && self.server.session.is_up()
    }

    /// Sends a packet from the client's inside.
    pub fn client_sends(&mut self, packet: &[u8]) {
        let End { session, edge, .. } = &mut self.client;
        session.send_packet(self.now, packet, edge);
        self.settle();
    }

    /// Sends a packet from the server's inside.
    pub fn server_sends(&mut self, packet: &[u8]) {
        let End { session, edge, .. } = &mut self.server;
        session.send_packet(self.now, packet, edge);
        self.settle();
    }
}

/// Moves what `from` wants to send to `to`, and acts on both dispositions.
fn carry(from: &mut End, to: &mut End, now: Instant, piece_len: usize) -> bool {
    let mut moved = false;
    while !from.closed {
        let Some(mut buffer) = from.session.poll_send(now, &mut from.edge) else {
            break;
        };
        moved = true;
        let bytes = &mut buffer.bytes[buffer.start..buffer.end];
        for piece in bytes.chunks_mut(piece_len) {
            if !to.closed {
                to.session.receive(now, piece, &mut to.edge);
            }
        }
        if matches!(buffer.bytes.len(), BUFFER_LEN | SMALL_BUFFER_LEN) {
            from.edge.spare.push(buffer);
        }
        from.session.sent(now, Ok(()), &mut from.edge);
    }
    let disposition = from.session.disposition();
    match disposition {
        Disposition::Shutdown if !from.shut => {
            from.shut = true;
            moved = true;
            if !to.closed {
                to.session.receive_ended(Loss::Finished, &mut to.edge);
            }
        }
        Disposition::Close { reset } if !from.closed => {
            from.closed = true;
            moved = true;
            if !to.closed && !from.shut {
                let loss = if reset { Loss::Reset } else { Loss::Finished };
                to.session.receive_ended(loss, &mut to.edge);
            }
        }
        _ => {}
    }
    moved
}
