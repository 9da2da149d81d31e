//! Packets whose session lives on another shard: a bounded, lock-free way over.
//!
//! Each shard owns a box of packet buffers that others fill. A sender takes a free buffer of the
//! *destination*, copies the packet in, puts it into the destination's queue and wakes it. When the
//! destination does not keep up its buffers run out, and the packet is dropped and counted at the
//! sender. With steering that works (the right TUN queue, the right listener) nothing comes here.

use std::sync::Arc;

use crossbeam::queue::ArrayQueue;

use super::Moved;
use crate::io::Waker;

/// Bytes of one buffer: the largest packet a TUN hands over, with its virtio-net header.
const BUFFER_LEN: usize = 65_546;

/// Sessions on their way to a shard, at most.
const SESSIONS_MAX: usize = 64;

/// A packet on its way to another shard.
#[derive(Debug)]
pub struct Parcel {
    bytes: Box<[u8]>,
    len: usize,
}

impl Parcel {
    /// The packet, as it was read from the TUN.
    #[must_use]
    pub fn packet(&mut self) -> &mut [u8] {
        self.bytes.get_mut(..self.len).unwrap_or_default()
    }
}

/// One shard's letter box; shared by all shards of the process.
#[derive(Debug)]
pub struct Mailbox {
    free: ArrayQueue<Box<[u8]>>,
    full: ArrayQueue<Parcel>,
    sessions: ArrayQueue<Moved>,
    waker: std::sync::OnceLock<Waker>,
}

impl Mailbox {
    /// A box of `capacity` packets (at least one), whose memory is allocated here.
    #[must_use]
    pub fn new(capacity: usize) -> Arc<Self> {
        Self::with_len_max(capacity, BUFFER_LEN)
    }

    /// The same for packets of at most `len_max` bytes.
    #[must_use]
    pub fn with_len_max(capacity: usize, len_max: usize) -> Arc<Self> {
        let capacity = capacity.max(1);
        let free = ArrayQueue::new(capacity);
        for _ in 0..capacity {
            // The queue has room for exactly as many as are pushed.
            let _ = free.push(vec![0; len_max].into_boxed_slice());
        }
        Arc::new(Self {
            free,
            full: ArrayQueue::new(capacity),
            sessions: ArrayQueue::new(SESSIONS_MAX),
            waker: std::sync::OnceLock::new(),
        })
    }

    /// Tells how to wake the shard that empties this box; the first call counts.
    pub fn set_waker(&self, waker: Waker) {
        let _ = self.waker.set(waker);
    }

    /// Copies `packet` in and wakes the owner. `false`: no room, the packet is the caller's loss.
    #[must_use]
    pub fn post(&self, packet: &[u8]) -> bool {
        let Some(mut bytes) = self.free.pop() else {
            return false;
        };
        let Some(room) = bytes.get_mut(..packet.len()) else {
            let _ = self.free.push(bytes);
            return false;
        };
        room.copy_from_slice(packet);
        let was_empty = self.full.is_empty();
        // As many slots as buffers: there is room.
        let _ = self.full.push(Parcel {
            bytes,
            len: packet.len(),
        });
        if was_empty && let Some(waker) = self.waker.get() {
            waker.wake();
        }
        true
    }

    /// Whether something waits here.
    #[must_use]
    pub fn has_more(&self) -> bool {
        !self.full.is_empty() || !self.sessions.is_empty()
    }

    /// Puts a session in and wakes the owner; a full box gives it back.
    pub(super) fn post_session(&self, moved: Moved) -> Result<(), Moved> {
        self.sessions.push(moved)?;
        if let Some(waker) = self.waker.get() {
            waker.wake();
        }
        Ok(())
    }

    /// Takes a session that was moved here.
    pub(super) fn take_session(&self) -> Option<Moved> {
        self.sessions.pop()
    }

    /// Takes the oldest packet; give it back with [`Mailbox::recycle`].
    #[must_use]
    pub fn take(&self) -> Option<Parcel> {
        self.full.pop()
    }

    /// Gives the memory of a packet back.
    pub fn recycle(&self, parcel: Parcel) {
        let _ = self.free.push(parcel.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_box_refuses_and_a_recycled_buffer_makes_room() {
        let mailbox = Mailbox::new(2);
        assert!(mailbox.post(&[1]));
        assert!(mailbox.post(&[2, 2]));
        assert!(!mailbox.post(&[3]), "bounded");
        let mut parcel = mailbox.take().unwrap();
        assert_eq!(parcel.packet(), [1], "in order");
        mailbox.recycle(parcel);
        assert!(mailbox.post(&[4]));
    }

    #[test]
    fn an_oversized_packet_is_refused_and_costs_no_buffer() {
        let mailbox = Mailbox::new(1);
        assert!(!mailbox.post(&vec![0; BUFFER_LEN + 1]));
        assert!(mailbox.post(&[1]));
    }
}
