//! The memory a shard lends to its sessions: send buffers, and stashes for what arrives in part.
//!
//! Everything is allocated at start and circulates. An empty pool of large buffers means that data
//! is dropped (and counted) until a send completes; control traffic takes small buffers, which are
//! made when needed and kept, and so are the queues of sessions whose connection is slow.

use crate::io::SendBuffer;
use crate::session::queue::FlowQueue;
use crate::session::transmit::{BUFFER_LEN, BufferSource, SMALL_BUFFER_LEN};

/// Small buffers and stashes kept for reuse, at most; more are freed.
const SPARE_MAX: usize = 256;

/// A shard's lending library.
#[derive(Debug)]
pub struct Pool {
    large: Vec<SendBuffer>,
    small: Vec<SendBuffer>,
    stashes: Vec<Vec<u8>>,
    queues: Vec<Box<FlowQueue>>,
    /// Large buffers, here or lent.
    large_count: usize,
}

impl Pool {
    /// A pool of `large_count` send buffers of [`BUFFER_LEN`] bytes each.
    #[must_use]
    pub fn new(large_count: usize) -> Self {
        let large = (0..large_count).map(|_| buffer(BUFFER_LEN)).collect();
        Self {
            large,
            small: Vec::with_capacity(SPARE_MAX),
            stashes: Vec::with_capacity(SPARE_MAX),
            queues: Vec::new(),
            large_count,
        }
    }

    /// Large buffers that are here now.
    #[must_use]
    pub const fn large_left(&self) -> usize {
        self.large.len()
    }

    /// Takes a buffer back; one that is of neither kind (a TLS flight) is freed.
    pub fn give(&mut self, buffer: SendBuffer) {
        match buffer.bytes.len() {
            BUFFER_LEN => self.large.push(buffer),
            SMALL_BUFFER_LEN if self.small.len() < SPARE_MAX => self.small.push(buffer),
            _ => {}
        }
    }

    /// An empty stash.
    pub fn take_stash(&mut self) -> Vec<u8> {
        self.stashes.pop().unwrap_or_default()
    }

    /// Takes a stash back.
    pub fn give_stash(&mut self, mut stash: Vec<u8>) {
        if self.stashes.len() < SPARE_MAX {
            stash.clear();
            self.stashes.push(stash);
        }
    }
}

impl BufferSource for Pool {
    fn large(&mut self) -> Option<SendBuffer> {
        self.large.pop()
    }

    /// Refuses the second buffer of a session when a quarter is left, the third at half.
    fn large_beside(&mut self, held: usize) -> Option<SendBuffer> {
        if self.large.len() * 4 <= self.large_count * held {
            return None;
        }
        self.large()
    }

    fn give_back(&mut self, buffer: SendBuffer) {
        self.give(buffer);
    }

    fn queue(&mut self) -> Box<FlowQueue> {
        self.queues.pop().unwrap_or_default()
    }

    fn give_queue(&mut self, mut queue: Box<FlowQueue>) {
        if self.queues.len() < SPARE_MAX {
            queue.clear();
            self.queues.push(queue);
        }
    }

    fn small(&mut self) -> SendBuffer {
        self.small.pop().unwrap_or_else(|| buffer(SMALL_BUFFER_LEN))
    }
}

fn buffer(len: usize) -> SendBuffer {
    SendBuffer {
        bytes: vec![0; len].into_boxed_slice(),
        start: 0,
        end: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_lends_what_it_has_and_takes_back_its_own() {
        let mut pool = Pool::new(1);
        let large = pool.large().unwrap();
        assert!(pool.large().is_none());
        pool.give(SendBuffer {
            bytes: vec![0; 99].into_boxed_slice(),
            start: 0,
            end: 0,
        });
        assert_eq!(pool.large_left(), 0, "a flight is not a pool buffer");
        pool.give(large);
        assert_eq!(pool.large_left(), 1);
        assert_eq!(
            pool.small().bytes.len(),
            SMALL_BUFFER_LEN,
            "control traffic gets out"
        );
    }
}
