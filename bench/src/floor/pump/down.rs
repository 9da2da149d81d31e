//! TUN to socket.
//!
//! ```text
//!  room   | 5 | 8 packet | 8 packet | … | 17 | 5 | 8 packet | …
//!          header  frames              suffix  the next record
//! ```
//!
//! A record is sealed when the next frame does not fit, four are sent at a time, and what is there
//! when the TUN is empty.

use std::io;
use std::net::TcpStream;

use aws_lc_rs::aead::AES_128_GCM;
use datapath::ip::checksum::CopyAndSum;
use datapath::ip::offload::cut::Cut;
use datapath::ip::offload::{VNET_HEADER_LEN, VnetHeader};
use datapath::sys::copy_and_sum;
use datapath::time::Duration;

use super::super::Figure;
use super::super::meter::Sample;
use super::super::record::{HEADER_LEN, Half, PLAINTEXT_LEN_MAX, RECORD_LEN_MAX, SUFFIX_LEN};
use super::super::rig::{self, MTU, READ_LEN_MAX, Rig};
use super::super::socket;
use super::{PREFIX_LEN, RECORDS, prefix};

/// Records under way, and where they go.
struct Records<W> {
    half: Half,
    room: Vec<u8>,
    /// Where the open record starts, and where its next frame goes.
    start: usize,
    at: usize,
    sealed: usize,
    records_max: usize,
    copy_and_sum: CopyAndSum,
    out: W,
}

impl<W: io::Write> Records<W> {
    fn new(records_max: usize, out: W) -> Self {
        Self {
            half: Half::new(&AES_128_GCM),
            room: vec![0; records_max * RECORD_LEN_MAX],
            start: 0,
            at: HEADER_LEN,
            sealed: 0,
            records_max,
            copy_and_sum: copy_and_sum::fastest(),
            out,
        }
    }

    /// Takes what was read from a TUN, vnet header in front; tells how many packets it was.
    #[inline]
    fn push(&mut self, read: &mut [u8]) -> io::Result<usize> {
        let (header, packet) = read
            .split_first_chunk_mut::<VNET_HEADER_LEN>()
            .ok_or_else(|| io::Error::other("a read without a header"))?;
        let header = VnetHeader::parse(header).map_err(io::Error::other)?;
        let Some(gso) = header.gso else {
            if let Some(checksum) = header.checksum {
                checksum.complete(packet).map_err(io::Error::other)?;
            }
            self.frame(packet.len())?.copy_from_slice(packet);
            return Ok(1);
        };
        let mut cut = Cut::new(gso, packet, MTU).map_err(io::Error::other)?;
        let count = cut.count();
        let copy_and_sum = self.copy_and_sum;
        while let Some(len) = cut.next_len() {
            cut.write_next_with(self.frame(len)?, copy_and_sum);
        }
        Ok(count)
    }

    /// Room for the next packet, behind its prefix.
    #[inline]
    fn frame(&mut self, packet_len: usize) -> io::Result<&mut [u8]> {
        let frame_len = PREFIX_LEN + packet_len;
        if self.at + frame_len > self.start + HEADER_LEN + PLAINTEXT_LEN_MAX {
            self.seal()?;
            if self.sealed == self.records_max {
                self.send()?;
            }
        }
        let (head, room) = self.room[self.at..self.at + frame_len].split_at_mut(PREFIX_LEN);
        head.copy_from_slice(&prefix(packet_len));
        self.at += frame_len;
        Ok(room)
    }

    fn seal(&mut self) -> io::Result<()> {
        let end = self.at + SUFFIX_LEN;
        self.half.seal(&mut self.room[self.start..end])?;
        self.start = end;
        self.at = end + HEADER_LEN;
        self.sealed += 1;
        Ok(())
    }

    fn send(&mut self) -> io::Result<()> {
        self.out.write_all(&self.room[..self.start])?;
        self.start = 0;
        self.at = HEADER_LEN;
        self.sealed = 0;
        Ok(())
    }

    /// Sends what is left.
    fn flush(&mut self) -> io::Result<()> {
        if self.at > self.start + HEADER_LEN {
            self.seal()?;
        }
        if self.sealed > 0 {
            self.send()?;
        }
        Ok(())
    }
}

/// The whole way.
pub(super) struct Down<'a> {
    name: &'static str,
    rig: &'a Rig,
    writes: Vec<Vec<u8>>,
    packets: usize,
    packet_bytes: usize,
    records: Records<TcpStream>,
    buffer: Vec<u8>,
}

impl<'a> Down<'a> {
    pub(super) fn new(
        name: &'static str,
        rig: &'a Rig,
        writes: Vec<Vec<u8>>,
        packets: usize,
        records_max: usize,
        receiver_cpu: usize,
    ) -> io::Result<Self> {
        Ok(Self {
            name,
            rig,
            packets,
            packet_bytes: packet_bytes(&writes, packets),
            writes,
            records: Records::new(records_max, socket::drained(receiver_cpu)?),
            buffer: vec![0; READ_LEN_MAX],
        })
    }
}

/// Bytes of the IP packets that `writes` stand for.
fn packet_bytes(writes: &[Vec<u8>], packets: usize) -> usize {
    let bytes: usize = writes
        .iter()
        .map(|write| write.len() - VNET_HEADER_LEN)
        .sum();
    // A superpacket has the headers of TCP once, its packets each.
    bytes + (packets - writes.len()) * 40
}

impl Figure for Down<'_> {
    fn name(&self) -> String {
        self.name.to_owned()
    }

    fn measure(&mut self, slice: Duration) -> io::Result<Sample> {
        let mut sample = Sample::default();
        while sample.wall < slice {
            for write in &self.writes {
                rig::write(&self.rig.network, write)?;
            }
            let mut came = 0;
            sample.time(|| {
                while let Some(len) = rig::read(&self.rig.gateway, &mut self.buffer)? {
                    came += self.records.push(&mut self.buffer[..len])?;
                }
                self.records.flush()?;
                Ok((self.packet_bytes, self.packets))
            })?;
            if came != self.packets {
                return Err(io::Error::other(format!(
                    "{}: {} packets became {came}",
                    self.name, self.packets
                )));
            }
        }
        Ok(sample)
    }
}

/// Without TUN and socket: what user space does.
pub(super) struct Crypt {
    name: &'static str,
    reads: Vec<Vec<u8>>,
    records: Records<io::Sink>,
    packet_bytes: usize,
}

impl Crypt {
    pub(super) fn new(name: &'static str, reads: &[Vec<u8>], copy_and_sum: CopyAndSum) -> Self {
        let mut records = Records::new(RECORDS, io::sink());
        records.copy_and_sum = copy_and_sum;
        let mut reads = reads.to_vec();
        let mut packets = 0;
        for read in &mut reads {
            packets += records.push(read).expect("a good superpacket");
        }
        Self {
            name,
            packet_bytes: packet_bytes(&reads, packets),
            reads,
            records,
        }
    }
}

impl Figure for Crypt {
    fn name(&self) -> String {
        self.name.to_owned()
    }

    fn measure(&mut self, slice: Duration) -> io::Result<Sample> {
        let mut sample = Sample::default();
        while sample.wall < slice {
            sample.time(|| {
                let mut packets = 0;
                for read in &mut self.reads {
                    packets += self.records.push(read)?;
                }
                self.records.flush()?;
                Ok((self.packet_bytes, packets))
            })?;
        }
        Ok(sample)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::record::record_len;
    use super::super::super::traffic::{self, Direction, Kind};
    use super::super::packet_len;
    use super::*;

    #[test]
    fn superpackets_come_out_as_the_packets_they_were_made_of() {
        for (kind, count) in [(Kind::Tcp, 100), (Kind::UdpFlow, 50), (Kind::UdpFlows, 30)] {
            let packets = traffic::packets(kind, Direction::Downlink, 1400, count);
            let mut records = Records::new(RECORDS, Vec::new());
            let mut pushed = 0;
            for mut read in traffic::merged(&packets) {
                pushed += records.push(&mut read).unwrap();
            }
            records.flush().unwrap();
            assert_eq!(pushed, count);

            let mut half = Half::new(&AES_128_GCM);
            let mut stream = records.out.as_mut_slice();
            let mut came = Vec::new();
            while let Some(len) = record_len(stream) {
                let (record, rest) = stream.split_at_mut(len);
                let len = half.open(record).unwrap();
                let mut frames = &record[HEADER_LEN..HEADER_LEN + len];
                while !frames.is_empty() {
                    let len = packet_len(frames).unwrap();
                    came.push(frames[PREFIX_LEN..PREFIX_LEN + len].to_vec());
                    frames = &frames[PREFIX_LEN + len..];
                }
                stream = rest;
            }
            let mut packets = packets;
            if kind == Kind::UdpFlows {
                // Merging keeps the order within a flow, not between flows.
                came.sort();
                packets.sort();
            }
            assert!(came == packets, "{kind:?}");
        }
    }
}
