//! From a connection to the TUN: cuts what was received into packets.

use std::io;

use super::Counts;
use crate::traffic::{self, HEADER_LEN};

/// What is kept of one connection between two receives: the beginning of a frame.
#[derive(Debug, Default)]
pub(super) struct Uplink {
    carry: Vec<u8>,
}

impl Uplink {
    /// Gives `write` each packet that is whole now, in place where it can be, and counts.
    pub(super) fn received(
        &mut self,
        mut bytes: &[u8],
        counts: &Counts,
        mut write: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut packets = 0;
        if !self.carry.is_empty() {
            let Some((frame, rest)) = self.complete(bytes)? else {
                counts.carried(0, 1);
                return Ok(());
            };
            write(&frame[HEADER_LEN..])?;
            self.carry = frame;
            self.carry.clear();
            packets += 1;
            bytes = rest;
        }
        while let Some(len) = traffic::frame_len(bytes)? {
            let (frame, rest) = bytes.split_at(len);
            write(&frame[HEADER_LEN..])?;
            packets += 1;
            bytes = rest;
        }
        self.carry.extend_from_slice(bytes);
        counts.carried(packets, 1);
        Ok(())
    }

    /// Completes the frame that was begun: takes it out, with what follows it. `None`: it goes on.
    pub(super) fn complete<'a>(
        &mut self,
        bytes: &'a [u8],
    ) -> io::Result<Option<(Vec<u8>, &'a [u8])>> {
        let missing = HEADER_LEN.saturating_sub(self.carry.len());
        let (head, bytes) = bytes.split_at(missing.min(bytes.len()));
        self.carry.extend_from_slice(head);
        let Some(&[_, _, high, low]) = self.carry.first_chunk() else {
            return Ok(None);
        };
        let len = usize::from(u16::from_be_bytes([high, low]));
        let missing = len.saturating_sub(self.carry.len());
        let (tail, rest) = bytes.split_at(missing.min(bytes.len()));
        self.carry.extend_from_slice(tail);
        let is_whole = traffic::frame_len(&self.carry)?.is_some();
        Ok(is_whole.then(|| (std::mem::take(&mut self.carry), rest)))
    }

    /// A frame is begun.
    pub(super) fn has_begun(&self) -> bool {
        !self.carry.is_empty()
    }

    /// Keeps the beginning of a frame.
    pub(super) fn begin(&mut self, bytes: &[u8]) {
        self.carry.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_cut_of_a_stream_gives_the_same_packets() {
        let packets: Vec<_> = (0..4).map(|n| traffic::packet(3, n, 100)).collect();
        let mut stream = Vec::new();
        for packet in &packets {
            stream.extend(traffic::header(packet.len()));
            stream.extend(packet);
        }
        for cut in 1..stream.len() {
            let (mut uplink, counts) = (Uplink::default(), Counts::default());
            let mut written = Vec::new();
            for piece in stream.chunks(cut) {
                let write = |packet: &[u8]| {
                    written.push(packet.to_vec());
                    Ok(())
                };
                uplink.received(piece, &counts, write).unwrap();
            }
            assert_eq!(written, packets, "cut by {cut}");
            assert_eq!(counts.read().packets, 4);
        }
    }

    #[test]
    fn a_stream_out_of_step_is_an_error() {
        let mut uplink = Uplink::default();
        let received = uplink.received(&[7; 16], &Counts::default(), |_| Ok(()));
        received.unwrap_err();
    }
}
