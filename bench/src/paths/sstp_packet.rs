//! The framing of the stream, as every byte of every session passes through it.

use std::hint::black_box;

use datapath::sstp::packet;

use super::{MANY_REPEATS, Path, Work, repeated};
use crate::fixtures;

struct Walk(Vec<u8>);

impl Work for Walk {
    fn run(&mut self) {
        let mut rest = black_box(self.0.as_slice());
        let mut payload_len = 0;
        while let Ok(Some((packet, len))) = packet::parse(rest) {
            payload_len += packet.payload().len();
            rest = &rest[len..];
        }
        black_box(payload_len);
    }
}

pub(super) fn paths() -> Vec<Path> {
    // 16 KB is a full record, 64 KB a full receive buffer.
    let walks = [(11, 1_400), (46, 1_400), (256, 64), (16, 4_000)];
    let mut paths: Vec<_> = walks
        .into_iter()
        .map(|(count, len)| {
            let name = format!("sstp_packet/walk/{count}x{len}");
            Path::new(name, count, count * len, move || {
                Walk(fixtures::data_packets(count, len))
            })
        })
        .collect();
    for (name, bytes) in [
        ("version", [0x20, 0x00, 0x00, 0x08]),
        ("length", [0x10, 0x00, 0x00, 0x03]),
    ] {
        let name = format!("sstp_packet/refuse/{name}");
        paths.push(repeated(name, MANY_REPEATS, 0, move || {
            move || packet::parse(black_box(&bytes)).is_err()
        }));
    }
    paths.push(repeated(
        "sstp_packet/emit/data_header",
        MANY_REPEATS,
        0,
        || {
            let mut header = [0; packet::HEADER_LEN];
            move || packet::write_data_header(black_box(&mut header), black_box(1_404)).is_ok()
        },
    ));
    paths
}
