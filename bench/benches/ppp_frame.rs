//! `ppp_frame`: taking the frame off a packet, and putting it on.

use std::hint::black_box;

use bench::fixtures;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use datapath::ppp::frame;

fn parse(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ppp_frame/parse");
    let packet = fixtures::tcp_segment(1_400, false);
    let canonical = fixtures::ppp_frame(&packet);
    // Address and protocol compressed, which some clients send though it was never agreed.
    let mut compressed = vec![0x21];
    compressed.extend_from_slice(&packet);
    for (name, payload) in [("1400", &canonical), ("1400_compressed", &compressed)] {
        group.throughput(Throughput::ElementsAndBytes {
            elements: 1,
            bytes: payload.len() as u64,
        });
        group.bench_function(name, |bencher| {
            bencher.iter(|| frame::parse(black_box(payload)).map(|frame| frame.protocol));
        });
    }
    group.finish();
}

fn emit(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ppp_frame/emit");
    group.throughput(Throughput::Elements(1));
    group.bench_function("header", |bencher| {
        bencher.iter(|| frame::header(black_box(frame::IPV4)));
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(std::time::Duration::from_millis(500))
        .measurement_time(std::time::Duration::from_secs(2));
    targets = parse, emit
}
criterion_main!(benches);
