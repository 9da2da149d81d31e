//! Many packets made one for the TUN, and one from the TUN made many, each with one copy.

use std::hint::black_box;

use datapath::ip::offload::cut::Cut;
use datapath::ip::offload::merge::{Merge, Offloads, Pushed};
use datapath::ip::offload::{Gso, VNET_HEADER_LEN, VnetHeader};
use datapath::sys::copy_and_sum;

use super::{Path, Work};
use crate::fixtures;
use crate::floor::traffic::{self, Direction, Kind};

/// What the kernel makes of a bulk stream: as many packets as fit 64 KB.
pub(super) const BURST_PACKETS: usize = 46;
pub(super) const PACKET_LEN: usize = 1_400;

/// Both kinds of superpacket.
pub(super) const OFFLOADS: Offloads = Offloads {
    tcp: true,
    udp: true,
};

struct Uplink {
    merge: Merge,
    packets: Vec<Vec<u8>>,
}

impl Work for Uplink {
    fn run(&mut self) {
        let mut written = 0;
        for packet in &self.packets {
            let pushed = self.merge.push(0, packet, &mut |aggregate| {
                written += aggregate.bytes.len();
            });
            written += usize::from(pushed == Pushed::Direct) * packet.len();
        }
        self.merge.flush(&mut |aggregate| {
            written += black_box(aggregate.bytes).len();
        });
        assert!(written >= BURST_PACKETS * (PACKET_LEN - 40));
    }
}

struct Downlink {
    gso: Gso,
    superpacket: Vec<u8>,
    room: Vec<u8>,
}

impl Work for Downlink {
    fn run(&mut self) {
        let cut = Cut::new(self.gso, &self.superpacket, fixtures::MTU);
        let mut cut = cut.expect("a good superpacket");
        let (mut count, mut at) = (0, 0);
        let copy_and_sum = copy_and_sum::fastest();
        while let Some(len) = cut.write_next_with(&mut self.room[at..], copy_and_sum) {
            at += len;
            count += 1;
        }
        assert_eq!(count, BURST_PACKETS);
    }
}

/// One superpacket of this traffic, and what it stands for.
pub(super) fn superpacket(packets: &[Vec<u8>]) -> (Gso, Vec<u8>) {
    let write = traffic::merged(packets).swap_remove(0);
    let (header, packet) = write
        .split_first_chunk::<VNET_HEADER_LEN>()
        .expect("a header");
    let header = VnetHeader::parse(header).expect("our own header");
    (header.gso.expect("a superpacket"), packet.to_vec())
}

pub(super) fn paths() -> Vec<Path> {
    let mut paths = Vec::new();
    for (name, kind) in [
        ("tcp", Kind::Tcp),
        ("udp", Kind::UdpFlow),
        ("unmergeable", Kind::UdpFlows),
    ] {
        let name = format!("offload/merge_{name}/{BURST_PACKETS}x{PACKET_LEN}");
        paths.push(Path::new(
            name,
            BURST_PACKETS,
            BURST_PACKETS * PACKET_LEN,
            move || Uplink {
                merge: Merge::new(OFFLOADS).with_copy_and_sum(copy_and_sum::fastest()),
                packets: traffic::packets(kind, Direction::Uplink, PACKET_LEN, BURST_PACKETS),
            },
        ));
    }
    for (name, kind) in [("tcp", Kind::Tcp), ("udp", Kind::UdpFlow)] {
        let name = format!("offload/cut_{name}/{BURST_PACKETS}x{PACKET_LEN}");
        paths.push(Path::new(
            name,
            BURST_PACKETS,
            BURST_PACKETS * PACKET_LEN,
            move || {
                let packets =
                    traffic::packets(kind, Direction::Downlink, PACKET_LEN, BURST_PACKETS);
                let (gso, superpacket) = superpacket(&packets);
                Downlink {
                    gso,
                    superpacket,
                    room: vec![0; BURST_PACKETS * PACKET_LEN],
                }
            },
        ));
    }
    paths
}
