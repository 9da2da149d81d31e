//! An edge that lends what a shard's pool lends, and counts all else.

use datapath::io::SendBuffer;
use datapath::session::Edge;
use datapath::session::event::{DropReason, Event};
use datapath::session::policy::Question;
use datapath::session::queue::FlowQueue;
use datapath::session::transmit::BufferSource;
use datapath::shard::Pool;
use datapath::testing::pair::SharedRng;

/// A pool for one session, and counters for all else.
#[derive(Debug)]
pub(crate) struct PoolEdge {
    pub(crate) pool: Pool,
    entropy: SharedRng,
    pub(crate) packets: u64,
    pub(crate) drops: u64,
    /// Of them, those that had waited too long.
    pub(crate) late: u64,
}

impl PoolEdge {
    pub(crate) fn new() -> Self {
        Self {
            pool: Pool::new(4),
            entropy: SharedRng::new(1),
            packets: 0,
            drops: 0,
            late: 0,
        }
    }
}

impl BufferSource for PoolEdge {
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
        self.pool.give_back(buffer);
    }
    fn queue(&mut self) -> Box<FlowQueue> {
        self.pool.queue()
    }
    fn give_queue(&mut self, queue: Box<FlowQueue>) {
        self.pool.give_queue(queue);
    }
}

impl Edge for PoolEdge {
    type Entropy = SharedRng;

    fn inside(&mut self, _: &mut [u8]) {
        self.packets += 1;
    }
    fn ask(&mut self, question: Question) {
        panic!("asked {question:?}");
    }
    fn event(&mut self, event: Event) {
        panic!("told {event:?}");
    }
    fn dropped(&mut self, reason: DropReason) {
        self.drops += 1;
        self.late += u64::from(reason == DropReason::Late);
    }
    fn entropy(&self) -> SharedRng {
        self.entropy.clone()
    }
    fn take_stash(&mut self) -> Vec<u8> {
        self.pool.take_stash()
    }
    fn give_stash(&mut self, stash: Vec<u8>) {
        self.pool.give_stash(stash);
    }
}
