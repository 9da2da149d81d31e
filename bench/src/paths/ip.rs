//! What is done to each packet: view, source check, checksum, MSS clamp.

use std::hint::black_box;
use std::net::Ipv4Addr;

use datapath::ip::packet::Packet;
use datapath::ip::source::SourceCheck;
use datapath::ip::{checksum, mss};
use datapath::sys::copy_and_sum;

use super::{MANY_REPEATS, Path, REPEATS, repeated};
use crate::fixtures;

pub(super) fn paths() -> Vec<Path> {
    let mut paths = Vec::new();
    for len in [20, 64, 1_360, 65_535] {
        paths.push(repeated(
            format!("ip/checksum/{len}"),
            REPEATS,
            len,
            move || {
                let bytes = vec![0xa5; len];
                move || checksum::of(black_box(&bytes))
            },
        ));
    }
    paths.push(repeated("ip/checksum/update", MANY_REPEATS, 0, || {
        || checksum::update(black_box(0x1234), black_box(0x05b4), black_box(0x0550))
    }));
    paths.push(repeated("ip/copy_and_sum/1360", REPEATS, 1_360, || {
        let (from, mut to) = (vec![0xa5; 1_360], vec![0; 1_360]);
        let copy_and_sum = copy_and_sum::fastest();
        move || copy_and_sum(black_box(&from), &mut to).checksum()
    }));
    for len in [64, 1_400] {
        paths.push(repeated(
            format!("ip/parse/{len}"),
            MANY_REPEATS,
            len,
            move || {
                let packet = fixtures::tcp_segment(len, false);
                move || Packet::parse(black_box(&packet)).map(|packet| packet.destination())
            },
        ));
    }
    for (name, last) in [("own", 1), ("foreign", 2)] {
        paths.push(repeated(
            format!("ip/source_check/{name}"),
            MANY_REPEATS,
            0,
            move || {
                let packet = fixtures::tcp_segment(1_400, false);
                let check = SourceCheck::new(Some(Ipv4Addr::new(192, 0, 2, last)), None, None);
                move || check.check(black_box(&packet)).is_ok()
            },
        ));
    }
    for (name, len, is_syn) in [("syn", 60, true), ("bulk", 1_400, false)] {
        paths.push(repeated(
            format!("ip/mss_clamp/{name}"),
            MANY_REPEATS,
            0,
            move || {
                let original = fixtures::tcp_segment(len, is_syn);
                let mut packet = original.clone();
                move || {
                    // A clamped SYN would not be clamped again: put its first bytes back.
                    packet[..44].copy_from_slice(&original[..44]);
                    mss::clamp(black_box(&mut packet), fixtures::MTU)
                }
            },
        ));
    }
    paths
}
