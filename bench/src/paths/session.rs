//! The whole way of a packet through a session: records, SSTP, PPP, IP, and merging or cutting.

use datapath::ip::offload::Gso;
use datapath::tls::Suite;

use super::ends::{Ends, Settings};
use super::offload::{BURST_PACKETS, PACKET_LEN, superpacket};
use super::{Path, Work};
use crate::floor::traffic::{self, Direction, Kind};

/// What a receive buffer of the ring holds.
const RECEIVE_LEN: usize = 65_536;

const SUITE: Option<Suite> = Some(Suite::Aes128Gcm);

enum Burst {
    Superpacket(Gso, Vec<u8>),
    Packets(Vec<Vec<u8>>),
}

struct Downlink {
    ends: Ends,
    burst: Burst,
    wire: Vec<u8>,
}

impl Work for Downlink {
    fn ready(&mut self) {
        self.wire.clear();
    }

    fn run(&mut self) {
        let (now, server) = (self.ends.now, &mut self.ends.server);
        let sent = server.session.traffic().downlink_packets;
        match &self.burst {
            Burst::Superpacket(gso, packet) => {
                let session = &mut server.session;
                session.send_superpacket(now, *gso, packet, &mut server.edge);
            }
            Burst::Packets(packets) => {
                for packet in packets {
                    server.session.send_packet(now, packet, &mut server.edge);
                }
            }
        }
        server.send(now, &mut self.wire);
        let sent = server.session.traffic().downlink_packets - sent;
        assert_eq!(sent, BURST_PACKETS as u64, "packets were lost");
    }
}

struct Uplink {
    ends: Ends,
    packets: Vec<Vec<u8>>,
    wire: Vec<u8>,
}

impl Work for Uplink {
    fn ready(&mut self) {
        self.wire.clear();
        let (now, client) = (self.ends.now, &mut self.ends.client);
        for packet in &self.packets {
            client.session.send_packet(now, packet, &mut client.edge);
        }
        client.send(now, &mut self.wire);
    }

    fn run(&mut self) {
        let server = &mut self.ends.server;
        let received = server.edge.packets;
        for piece in self.wire.chunks_mut(RECEIVE_LEN) {
            let session = &mut server.session;
            session.receive(self.ends.now, piece, &mut server.edge);
        }
        server.edge.flush();
        let received = server.edge.packets - received;
        assert_eq!(received, BURST_PACKETS as u64, "packets were lost");
    }
}

fn downlink(name: &str, kind: Kind, len: usize) -> Path {
    let name = format!("session/down_{name}/{BURST_PACKETS}x{len}");
    Path::new(name, BURST_PACKETS, BURST_PACKETS * len, move || {
        let packets = traffic::packets(kind, Direction::Downlink, len, BURST_PACKETS);
        let burst = if kind == Kind::UdpFlows {
            Burst::Packets(packets)
        } else {
            let (gso, packet) = superpacket(&packets);
            Burst::Superpacket(gso, packet)
        };
        Downlink {
            ends: Ends::up(&Settings::new(SUITE, false)),
            burst,
            wire: Vec::new(),
        }
    })
}

fn uplink(name: &str, is_packed: bool, kind: Kind, len: usize) -> Path {
    let name = format!("session/up_{name}/{BURST_PACKETS}x{len}");
    Path::new(name, BURST_PACKETS, BURST_PACKETS * len, move || Uplink {
        ends: Ends::up(&Settings::new(SUITE, !is_packed)),
        packets: traffic::packets(kind, Direction::Uplink, len, BURST_PACKETS),
        wire: Vec::new(),
    })
}

pub(super) fn paths() -> Vec<Path> {
    vec![
        downlink("superpacket", Kind::Tcp, PACKET_LEN),
        downlink("plain", Kind::UdpFlows, PACKET_LEN),
        downlink("plain", Kind::UdpFlows, 64),
        uplink("merged", true, Kind::Tcp, PACKET_LEN),
        uplink("record_a_packet", false, Kind::Tcp, PACKET_LEN),
        uplink("plain", true, Kind::UdpFlows, PACKET_LEN),
        uplink("plain", true, Kind::UdpFlows, 64),
    ]
}
