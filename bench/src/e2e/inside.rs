//! The inside host: a TUN device behind the gateway's, between which the kernel forwards, as in the floor.

use std::fs::File;
use std::io;

use datapath::ip::offload::VNET_HEADER_LEN;

use super::probe;
use crate::floor::rig::{self, READ_LEN_MAX};

const TCP: u8 = 6;
const IPV4_LEN: usize = 20;
const UDP_LEN: usize = 8;

/// The device, and what came out of it.
#[derive(Debug)]
pub(super) struct Inside {
    tun: File,
    buffer: Vec<u8>,
    pub(super) packets: u64,
    /// Of IP packets, as they would be one by one.
    pub(super) bytes: u64,
    /// Nanoseconds that probes were under way.
    pub(super) probes: Vec<u64>,
}

impl Inside {
    /// In the network of the calling thread.
    pub(super) fn new() -> io::Result<Self> {
        let (tun, _) = rig::device("network0", "10.78.0.1/24")?;
        Ok(Self {
            tun,
            buffer: vec![0; READ_LEN_MAX],
            packets: 0,
            bytes: 0,
            probes: Vec::new(),
        })
    }

    /// Sends a packet or superpacket behind its vnet header.
    pub(super) fn write(&self, packet: &[u8]) -> io::Result<()> {
        rig::write(&self.tun, packet)
    }

    /// Takes all that has come.
    pub(super) fn drain(&mut self) -> io::Result<()> {
        while let Some(len) = rig::read(&self.tun, &mut self.buffer)? {
            let read = self.buffer.get(..len).unwrap_or_default();
            let Some((header, packet)) = read.split_first_chunk::<VNET_HEADER_LEN>() else {
                continue;
            };
            if let Some(sent_at) = probe::sent_at(packet) {
                self.probes.push(probe::age(sent_at));
                continue;
            }
            let (packets, bytes) = carried(header, packet);
            self.packets += packets;
            self.bytes += bytes;
        }
        Ok(())
    }
}

/// How many packets a read of a TUN stands for, and their bytes.
pub(super) fn carried(header: &[u8; VNET_HEADER_LEN], packet: &[u8]) -> (u64, u64) {
    let whole = (1, packet.len() as u64);
    let segment_len = usize::from(u16::from_le_bytes([header[4], header[5]]));
    let is_super = header[1] & 0x7f != 0;
    if !is_super || segment_len == 0 {
        return whole;
    }
    let headers_len = match (packet.get(9), packet.get(IPV4_LEN + 12)) {
        (Some(&TCP), Some(offset)) => IPV4_LEN + usize::from(offset >> 4) * 4,
        _ => IPV4_LEN + UDP_LEN,
    };
    let Some(payload_len) = packet.len().checked_sub(headers_len) else {
        return whole;
    };
    let count = payload_len.div_ceil(segment_len).max(1);
    (count as u64, (count * headers_len + payload_len) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::floor::traffic::{self, Direction, Kind};

    #[test]
    fn a_superpacket_counts_as_the_packets_it_was_made_of() {
        for (kind, len, count) in [
            (Kind::Tcp, 1400, 96),
            (Kind::Tcp, 1400, 5),
            (Kind::UdpFlow, 1400, 47),
            (Kind::UdpFlows, 64, 20),
        ] {
            let packets = traffic::packets(kind, Direction::Uplink, len, count);
            let mut sum = (0, 0);
            for write in traffic::merged(&packets) {
                let (header, packet) = write.split_first_chunk().unwrap();
                let (packets, bytes) = carried(header, packet);
                sum = (sum.0 + packets, sum.1 + bytes);
            }
            assert_eq!(sum, (count as u64, (count * len) as u64), "{kind:?}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_one_packet() {
        let header = [0, 1, 0, 0, 10, 0, 0, 0, 0, 0];
        assert_eq!(carried(&header, &[0x45; 10]), (1, 10));
        assert_eq!(carried(&[0; 10], &[]), (1, 0));
    }
}
