//! A connection that is slower than what comes for it: packets are sorted by flow, under CoDel.

use std::net::Ipv4Addr;

use datapath::io::SendBuffer;
use datapath::testing::fixtures as known;
use datapath::time::Duration;
use datapath::tls::Suite;

use super::ends::{Ends, Settings};
use super::{Path, Work, apart};
use crate::floor::rig::{CLIENT, SERVER};

/// What comes in a turn, of this many flows, and how long a send takes: more than the path carries.
const PACKETS: usize = 32;
const FLOWS: usize = 8;
const SEND_TIME: Duration = Duration::from_millis(10);
const LEN: usize = 1_400;
/// Turns after which the queue is full and CoDel is at work.
const TURNS_BEFORE: usize = 300;

struct BackedUp {
    ends: Ends,
    packets: Vec<Vec<u8>>,
    in_flight: Option<SendBuffer>,
}

impl Work for BackedUp {
    fn run(&mut self) {
        let server = &mut self.ends.server;
        if self.in_flight.is_none() {
            self.in_flight = server.session.poll_send(self.ends.now, &mut server.edge);
        }
        for packet in &self.packets {
            let session = &mut server.session;
            session.send_packet(self.ends.now, packet, &mut server.edge);
        }
        self.ends.now = self.ends.now + SEND_TIME;
        if let Some(buffer) = self.in_flight.take() {
            apart(|| server.edge.pool.give(buffer));
            server.session.sent(self.ends.now, Ok(()), &mut server.edge);
        }
    }
}

/// A datagram of one of the flows that may be marked.
fn packet(flow: usize) -> Vec<u8> {
    let port = u8::try_from(flow).expect("a few flows");
    let (source, client): (Ipv4Addr, _) = (SERVER, CLIENT);
    let mut packet = known::udp(source, client, &[port; LEN - 28]);
    packet[21] = port;
    packet[26..28].fill(0);
    packet
}

pub(super) fn paths() -> Vec<Path> {
    let name = format!("queue/codel/{PACKETS}x{LEN}");
    vec![Path::new(name, PACKETS, PACKETS * LEN, || {
        let mut work = BackedUp {
            ends: Ends::up(&Settings::new(Some(Suite::Aes128Gcm), false)),
            packets: (0..PACKETS).map(|at| packet(at % FLOWS)).collect(),
            in_flight: None,
        };
        for _ in 0..TURNS_BEFORE {
            work.run();
        }
        assert!(work.ends.server.edge.late > 0, "the queue stands");
        work
    })]
}
