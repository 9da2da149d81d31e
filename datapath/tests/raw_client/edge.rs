//! What the tormented session reaches.

use std::collections::VecDeque;

use datapath::io::SendBuffer;
use datapath::output::Entropy;
use datapath::session::Edge;
use datapath::session::event::{DropReason, Event};
use datapath::session::policy::Question;
use datapath::session::transmit::{BUFFER_LEN, BufferSource, SMALL_BUFFER_LEN};
use datapath::sys::alloc::allocations;
use datapath::testing::pair::SharedRng;
use hex_literal::hex;

/// Draws the worked examples' nonce and challenge, by their lengths; else random bytes.
#[derive(Clone, Debug)]
pub(crate) struct Scripted {
    pub(crate) rng: SharedRng,
    pub(crate) golden: bool,
}

impl Entropy for Scripted {
    fn fill(&mut self, bytes: &mut [u8]) {
        match bytes.len() {
            32 if self.golden => {
                for (byte, value) in bytes.iter_mut().zip(0..) {
                    *byte = value;
                }
            }
            16 if self.golden => bytes.copy_from_slice(&hex!("5b5d7c7d7b3f2f3e3c2c602132262628")),
            _ => self.rng.fill(bytes),
        }
    }
}

/// Memory that the calling thread holds and the counting allocator knows of.
pub(crate) fn held() -> i64 {
    let allocations = allocations();
    i64::try_from(allocations.bytes).unwrap() - i64::try_from(allocations.freed_bytes).unwrap()
}

/// What the session reaches: everything is kept, and its memory is not the session's.
#[derive(Debug)]
pub(crate) struct ScriptedEdge {
    pub(crate) inside: Vec<Vec<u8>>,
    pub(crate) questions: VecDeque<Question>,
    pub(crate) events: Vec<Event>,
    pub(crate) drops: Vec<DropReason>,
    pub(crate) entropy: Scripted,
    /// Memory that the edge itself took while the session worked.
    pub(crate) own: i64,
}

impl ScriptedEdge {
    fn apart(&mut self, work: impl FnOnce(&mut Self)) {
        let before = held();
        work(self);
        self.own += held() - before;
    }
}

fn buffer(len: usize) -> SendBuffer {
    let bytes = vec![0; len].into_boxed_slice();
    SendBuffer {
        bytes,
        start: 0,
        end: 0,
    }
}

impl BufferSource for ScriptedEdge {
    fn large(&mut self) -> Option<SendBuffer> {
        Some(buffer(BUFFER_LEN))
    }
    fn small(&mut self) -> SendBuffer {
        buffer(SMALL_BUFFER_LEN)
    }
}

impl Edge for ScriptedEdge {
    type Entropy = Scripted;

    fn inside(&mut self, packet: &mut [u8]) {
        self.apart(|edge| edge.inside.push(packet.to_vec()));
    }
    fn ask(&mut self, question: Question) {
        self.apart(|edge| edge.questions.push_back(question));
    }
    fn event(&mut self, event: Event) {
        self.apart(|edge| edge.events.push(event));
    }
    fn dropped(&mut self, reason: DropReason) {
        self.apart(|edge| edge.drops.push(reason));
    }
    fn entropy(&self) -> Scripted {
        self.entropy.clone()
    }
    fn take_stash(&mut self) -> Vec<u8> {
        Vec::new()
    }
    fn give_stash(&mut self, _: Vec<u8>) {}
}
