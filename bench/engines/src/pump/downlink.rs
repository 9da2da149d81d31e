//! From the TUN to the connections: gathers packets by owner, so that one send carries many.
//!
//! A connection has two pieces of memory: one that packets are gathered in, and one that is under way.
//! What finds no room is dropped and counted.

use super::Counts;
use crate::traffic::{self, CONNECTIONS, HEADER_LEN};

/// Frames for one connection.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) bytes: Box<[u8]>,
    pub(super) len: usize,
    packets: u64,
}

/// Of a piece.
const PIECE_LEN: usize = 64 << 10;

impl Piece {
    fn new() -> Self {
        Self {
            bytes: vec![0; PIECE_LEN].into_boxed_slice(),
            len: 0,
            packets: 0,
        }
    }

    /// The piece again, after its memory was lent to a runtime.
    pub(super) fn again(bytes: Vec<u8>) -> Self {
        Self {
            bytes: bytes.into_boxed_slice(),
            len: 0,
            packets: 0,
        }
    }

    fn push(&mut self, packet: &[u8]) -> bool {
        let end = self.len + HEADER_LEN + packet.len();
        let Some(room) = self.bytes.get_mut(self.len..end) else {
            return false;
        };
        let (header, body) = room.split_at_mut(HEADER_LEN);
        header.copy_from_slice(&traffic::header(packet.len()));
        body.copy_from_slice(packet);
        self.len = end;
        self.packets += 1;
        true
    }
}

#[derive(Debug)]
struct Out {
    gathered: Piece,
    /// The other piece, while nothing is under way.
    spare: Option<Piece>,
    is_due: bool,
}

/// All connections.
#[derive(Debug)]
pub(super) struct Downlink {
    outs: Vec<Out>,
    /// Connections that have something to send and nothing under way.
    due: Vec<usize>,
}

impl Downlink {
    pub(super) fn new() -> Self {
        let out = || Out {
            gathered: Piece::new(),
            spare: Some(Piece::new()),
            is_due: false,
        };
        Self {
            outs: std::iter::repeat_with(out).take(CONNECTIONS).collect(),
            due: Vec::with_capacity(CONNECTIONS),
        }
    }

    /// Puts a packet to those of its owner, and tells who that is.
    pub(super) fn deliver(&mut self, packet: &[u8], counts: &Counts) -> Option<usize> {
        let owner = traffic::owner(packet);
        let is_kept = owner.is_some_and(|index| self.outs[index].gathered.push(packet));
        if !is_kept {
            counts.dropped();
        }
        if let Some(index) = owner {
            self.note(index);
        }
        owner
    }

    fn note(&mut self, index: usize) {
        let out = &mut self.outs[index];
        if out.gathered.len > 0 && out.spare.is_some() && !out.is_due {
            out.is_due = true;
            self.due.push(index);
        }
    }

    /// A connection that has something to send and nothing under way.
    pub(super) fn due(&mut self) -> Option<usize> {
        let index = self.due.pop()?;
        self.outs[index].is_due = false;
        Some(index)
    }

    /// What is to be sent on connection `index` now; [`Downlink::sent`] gives it back. `None` if there
    /// is nothing, or something is under way.
    pub(super) fn take(&mut self, index: usize, counts: &Counts) -> Option<Piece> {
        let out = &mut self.outs[index];
        if out.gathered.len == 0 {
            return None;
        }
        let spare = out.spare.take()?;
        let piece = std::mem::replace(&mut out.gathered, spare);
        counts.carried(piece.packets, 1);
        Some(piece)
    }

    /// What was under way is sent.
    pub(super) fn sent(&mut self, index: usize, mut piece: Piece) {
        piece.len = 0;
        piece.packets = 0;
        self.outs[index].spare = Some(piece);
        self.note(index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A packet as the TUN gives it to the pump: for a client.
    fn packet_for(index: usize, len: usize) -> Vec<u8> {
        let mut packet = traffic::packet(index, 0, len);
        packet.copy_within(12..16, 16);
        packet
    }

    #[test]
    fn packets_are_gathered_while_one_piece_is_under_way() {
        let (mut downlink, counts) = (Downlink::new(), Counts::default());
        assert_eq!(downlink.deliver(&packet_for(5, 100), &counts), Some(5));
        assert_eq!(downlink.due(), Some(5));
        let piece = downlink.take(5, &counts).unwrap();
        assert_eq!(piece.len, 108);
        downlink.deliver(&packet_for(5, 100), &counts);
        downlink.deliver(&packet_for(5, 200), &counts);
        assert_eq!(downlink.due(), None);
        assert!(downlink.take(5, &counts).is_none());
        downlink.sent(5, piece);
        assert_eq!(downlink.due(), Some(5));
        assert_eq!(downlink.take(5, &counts).unwrap().len, 108 + 208);
        let read = counts.read();
        assert_eq!((read.packets, read.calls, read.dropped), (3, 2, 0));
    }

    #[test]
    fn what_finds_no_room_or_no_owner_is_counted() {
        let (mut downlink, counts) = (Downlink::new(), Counts::default());
        for _ in 0..PIECE_LEN / 1008 + 3 {
            downlink.deliver(&packet_for(0, 1000), &counts);
        }
        assert_eq!(counts.read().dropped, 3);
        assert_eq!(downlink.deliver(&[0; 40], &counts), None);
        assert_eq!(counts.read().dropped, 4);
    }
}
