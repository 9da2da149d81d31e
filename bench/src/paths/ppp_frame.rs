//! Taking the frame off a packet, and putting it on.

use std::hint::black_box;

use datapath::ppp::frame;

use super::{MANY_REPEATS, Path, repeated};
use crate::fixtures;

pub(super) fn paths() -> Vec<Path> {
    let parse = |name: &str, make: fn() -> Vec<u8>| {
        repeated(
            format!("ppp_frame/parse/{name}"),
            MANY_REPEATS,
            1_400,
            move || {
                let payload = make();
                move || frame::parse(black_box(&payload)).map(|frame| frame.protocol)
            },
        )
    };
    vec![
        parse("1400", || {
            fixtures::ppp_frame(&fixtures::tcp_segment(1_400, false))
        }),
        // Address and protocol compressed, which some clients send though it was never agreed.
        parse("1400_compressed", || {
            [vec![0x21], fixtures::tcp_segment(1_400, false)].concat()
        }),
        repeated("ppp_frame/emit/header", MANY_REPEATS, 0, || {
            || frame::header(black_box(frame::IPV4))
        }),
    ]
}
