//! What a completion belongs to, in the 64 bits of `user_data`.
//!
//! ```text
//! 63      56 55              32 31                            0
//! +---------+------------------+------------------------------+
//! |  kind   |       slot       |          generation          |
//! +---------+------------------+------------------------------+
//! ```

use crate::sys::driver::CONNECTIONS_MAX;

/// Kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Multishot accept; the slot is the listener's number.
    Accept,
    /// Multishot receive of a connection.
    Receive,
    /// Poll of a connection, once, where the kernel opens TLS.
    PollReceive,
    /// The one send of a connection.
    Send,
    /// The connect of a connection.
    Connect,
    /// Multishot poll of the TUN queue.
    PollTun,
    /// Multishot poll of the waker's eventfd.
    PollWaker,
    /// A cancellation; its own outcome is of no interest.
    Cancel,
}

const KINDS: [Kind; 8] = [
    Kind::Accept,
    Kind::Receive,
    Kind::PollReceive,
    Kind::Send,
    Kind::Connect,
    Kind::PollTun,
    Kind::PollWaker,
    Kind::Cancel,
];

/// A request by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Op {
    pub(super) kind: Kind,
    pub(super) slot: u32,
    pub(super) generation: u32,
}

impl Op {
    pub(super) const fn new(kind: Kind, slot: u32, generation: u32) -> Self {
        Self {
            kind,
            slot,
            generation,
        }
    }

    /// The 64 bits. `slot` must be below [`CONNECTIONS_MAX`].
    pub(super) const fn encode(self) -> u64 {
        debug_assert!(self.slot < CONNECTIONS_MAX);
        // Kind 0 is never used, so that a zeroed user_data names nothing.
        ((self.kind as u64 + 1) << 56) | ((self.slot as u64) << 32) | self.generation as u64
    }

    /// The request that `bits` names, if it is one of ours.
    pub(super) fn decode(bits: u64) -> Option<Self> {
        let [kind, s2, s1, s0, g3, g2, g1, g0] = bits.to_be_bytes();
        let kind = *KINDS.get(usize::from(kind.checked_sub(1)?))?;
        Some(Self {
            kind,
            slot: u32::from_be_bytes([0, s2, s1, s0]),
            generation: u32::from_be_bytes([g3, g2, g1, g0]),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_and_the_corners_come_back() {
        for kind in KINDS {
            for slot in [0, 1, CONNECTIONS_MAX - 1] {
                for generation in [0, 1, u32::MAX] {
                    let op = Op::new(kind, slot, generation);
                    assert_eq!(Op::decode(op.encode()), Some(op));
                }
            }
        }
    }

    #[test]
    fn foreign_bits_name_nothing() {
        assert_eq!(Op::decode(0), None);
        assert_eq!(Op::decode(u64::MAX), None);
        assert_eq!(Op::decode(9 << 56), None);
    }
}
