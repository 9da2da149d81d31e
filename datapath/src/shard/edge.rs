//! What a session sees of its shard while it works.

use super::counters::Counters;
use super::owner::{Owner, SessionId};
use super::pool::Pool;
use super::route::Directory;
use super::uplink::TunWriter;
use super::{Core, Inside};
use crate::io::{Io, SendBuffer};
use crate::ip::checksum::CopyAndSum;
use crate::output::Entropy;
use crate::session::Edge;
use crate::session::event::{DropReason, Event, Traffic};
use crate::session::policy::Question;
use crate::session::queue::{FlowQueue, Shed};
use crate::session::transmit::BufferSource;
use crate::time::Instant;

/// The shard, but for the table the session itself is in.
pub(super) struct ShardEdge<'a, I, O, N> {
    pub(super) io: &'a mut I,
    pub(super) owner: &'a mut O,
    pub(super) now: Instant,
    pub(super) id: SessionId,
    pub(super) pool: &'a mut Pool,
    pub(super) counters: &'a mut Counters,
    pub(super) tun_writer: &'a mut TunWriter,
    pub(super) entropy: &'a N,
    pub(super) copy_and_sum: CopyAndSum,
    pub(super) inside: Inside,
    pub(super) isolated: Option<&'a Directory>,
    pub(super) reflected: &'a mut Vec<(usize, usize)>,
    pub(super) reflected_bytes: &'a mut Vec<u8>,
}

impl<N> Core<N> {
    /// Splits the shard into one session's entry and the edge it works with.
    pub(super) fn with_edge<'a, I, O>(
        &'a mut self,
        io: &'a mut I,
        owner: &'a mut O,
        connection: crate::io::ConnectionId,
    ) -> Option<(&'a mut super::table::Entry, ShardEdge<'a, I, O, N>)> {
        let id = self.id(connection);
        let entry = self.table.get_mut(connection)?;
        let edge = ShardEdge {
            io,
            owner,
            now: self.now,
            id,
            pool: &mut self.pool,
            counters: &mut self.counters,
            tun_writer: &mut self.tun_writer,
            entropy: &self.entropy,
            copy_and_sum: self.config.copy_and_sum,
            inside: self.config.inside,
            isolated: self.config.isolate.then_some(&*self.config.directory),
            reflected: &mut self.reflected,
            reflected_bytes: &mut self.reflected_bytes,
        };
        Some((entry, edge))
    }
}

impl<N> Core<N> {
    /// The edge for a session that is not in the table.
    pub(super) fn edge<'a, I, O>(
        &'a mut self,
        io: &'a mut I,
        owner: &'a mut O,
        id: SessionId,
    ) -> ShardEdge<'a, I, O, N> {
        ShardEdge {
            io,
            owner,
            now: self.now,
            id,
            pool: &mut self.pool,
            counters: &mut self.counters,
            tun_writer: &mut self.tun_writer,
            entropy: &self.entropy,
            copy_and_sum: self.config.copy_and_sum,
            inside: self.config.inside,
            isolated: self.config.isolate.then_some(&*self.config.directory),
            reflected: &mut self.reflected,
            reflected_bytes: &mut self.reflected_bytes,
        }
    }
}

impl<I, O, N> BufferSource for ShardEdge<'_, I, O, N> {
    fn large(&mut self) -> Option<SendBuffer> {
        self.pool.large()
    }

    fn small(&mut self) -> SendBuffer {
        self.pool.small()
    }

    fn large_beside(&mut self, held: usize) -> Option<SendBuffer> {
        self.pool.large_beside(held)
    }

    fn give_back(&mut self, buffer: SendBuffer) {
        self.pool.give(buffer);
    }

    fn queue(&mut self) -> Box<FlowQueue> {
        self.pool.queue()
    }

    fn give_queue(&mut self, queue: Box<FlowQueue>) {
        self.pool.give_queue(queue);
    }
}

impl<I: Io, O: Owner, N: Entropy + Clone> Edge for ShardEdge<'_, I, O, N> {
    type Entropy = N;

    fn inside(&mut self, packet: &mut [u8]) {
        match self.inside {
            Inside::Tun | Inside::ClientTun => {
                if let Some(directory) = self.isolated
                    && let Some(destination) = super::downlink::destination(packet)
                    && directory.covers(destination)
                {
                    self.counters.dropped(DropReason::Isolated);
                    return;
                }
                let session = self.id.connection.slot;
                self.tun_writer
                    .write(session, packet, self.io, self.counters);
            }
            Inside::Reflector => {
                super::dispatch::swap_addresses(packet);
                let start = self.reflected_bytes.len();
                self.reflected_bytes.extend_from_slice(packet);
                self.reflected.push((start, self.reflected_bytes.len()));
            }
            Inside::Owner => self.owner.packet(self.now, self.id, packet),
        }
    }

    fn ask(&mut self, question: Question) {
        self.owner.ask(self.id, question);
    }

    fn event(&mut self, event: Event) {
        match &event {
            Event::Up(_) => self.counters.totals.sessions_up += 1,
            Event::Ended(ended) => self.counters.ended(ended.reason),
            _ => {}
        }
        self.owner.event(self.now, self.id, event);
    }

    fn dropped(&mut self, reason: DropReason) {
        self.counters.dropped(reason);
    }

    fn shed(&mut self, shed: &Shed, taken_back: Traffic) {
        self.counters.shed(shed, taken_back);
    }

    fn entropy(&self) -> N {
        self.entropy.clone()
    }

    fn copy_and_sum(&self) -> CopyAndSum {
        self.copy_and_sum
    }

    fn take_stash(&mut self) -> Vec<u8> {
        self.pool.take_stash()
    }

    fn give_stash(&mut self, stash: Vec<u8>) {
        self.pool.give_stash(stash);
    }
}
