//! The server's surroundings: its owner, its inside and its pool.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, Ipv6Addr};

use datapath::io::SendBuffer;
use datapath::ip::packet::Packet;
use datapath::session::Edge;
use datapath::session::event::{DropReason, Event};
use datapath::session::policy::Question;
use datapath::session::transmit::{BUFFER_LEN, BufferSource, SMALL_BUFFER_LEN};

use super::super::Seeded;

/// The server's surroundings. What happens is judged when it happens, for order matters.
pub(super) struct Watch {
    pub(super) inside: usize,
    pub(super) inside_bytes: usize,
    pub(super) questions: VecDeque<Question>,
    pub(super) drops: usize,
    pub(super) is_up: bool,
    pub(super) ended: bool,
    /// Set while a packet from the inside is handled: its sender may be told that it is too big.
    pub(super) may_answer_inside: bool,
    pub(super) client: Ipv4Addr,
    pub(super) prefix: Ipv6Addr,
    pub(super) entropy: Seeded,
}

impl BufferSource for Watch {
    fn large(&mut self) -> Option<SendBuffer> {
        Some(buffer(BUFFER_LEN))
    }

    fn small(&mut self) -> SendBuffer {
        buffer(SMALL_BUFFER_LEN)
    }
}

fn buffer(len: usize) -> SendBuffer {
    SendBuffer {
        bytes: vec![0; len].into_boxed_slice(),
        start: 0,
        end: 0,
    }
}

impl Edge for Watch {
    type Entropy = Seeded;

    fn inside(&mut self, packet: &mut [u8]) {
        assert!(self.is_up && !self.ended, "a packet of a session not up");
        let view = Packet::parse(packet).expect("only whole packets go inside");
        assert_eq!(view.bytes().len(), packet.len());
        if !self.may_answer_inside {
            match view {
                Packet::V4(view) => assert_eq!(view.source(), self.client),
                Packet::V6(view) => assert_eq!(
                    view.source().segments()[..4],
                    self.prefix.segments()[..4],
                    "a foreign source"
                ),
            }
        }
        self.inside += 1;
        self.inside_bytes += packet.len();
    }

    fn ask(&mut self, question: Question) {
        assert!(!self.ended, "a question after the end");
        self.questions.push_back(question);
        assert!(self.questions.len() <= 64, "it asks for ever");
    }

    fn event(&mut self, event: Event) {
        assert!(!self.ended, "{event:?} after the end");
        match event {
            Event::Up(up) => {
                assert!(!self.is_up, "up twice");
                assert!(
                    up.addresses
                        .ipv4
                        .is_none_or(|address| address == self.client)
                );
                self.is_up = true;
            }
            Event::Ended(ended) => {
                assert_eq!(ended.was_up, self.is_up);
                self.ended = true;
            }
            Event::Changed(_) => assert!(self.is_up),
            Event::Identified(_) | Event::EchoReply { .. } => {}
        }
    }

    fn dropped(&mut self, _: DropReason) {
        self.drops += 1;
    }

    fn entropy(&self) -> Seeded {
        // A clone would draw the same numbers again; what differs is how much was seen so far.
        let seen = (self.inside + self.drops + self.questions.len()) as u64;
        Seeded(self.entropy.0 ^ (seen << 8))
    }

    fn take_stash(&mut self) -> Vec<u8> {
        Vec::new()
    }

    fn give_stash(&mut self, stash: Vec<u8>) {
        assert!(stash.is_empty(), "what is given back holds nothing");
    }
}
