//! `ip`: what is done to each packet: view, source check, checksum, MSS clamp.

use std::hint::black_box;
use std::net::Ipv4Addr;

use bench::fixtures;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use datapath::ip::packet::Packet;
use datapath::ip::source::SourceCheck;
use datapath::ip::{checksum, mss};

fn checksums(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ip/checksum");
    for len in [20, 64, 1_360, 65_535] {
        let bytes = vec![0xa5; len];
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(len.to_string(), |bencher| {
            bencher.iter(|| checksum::of(black_box(&bytes)));
        });
    }
    group.throughput(Throughput::Elements(1));
    group.bench_function("update", |bencher| {
        bencher.iter(|| checksum::update(black_box(0x1234), black_box(0x05b4), black_box(0x0550)));
    });
    group.finish();
}

fn parse(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ip/parse");
    for len in [64, 1_400] {
        let packet = fixtures::tcp_segment(len, false);
        group.throughput(Throughput::ElementsAndBytes {
            elements: 1,
            bytes: len as u64,
        });
        group.bench_function(len.to_string(), |bencher| {
            bencher.iter(|| Packet::parse(black_box(&packet)).map(|packet| packet.destination()));
        });
    }
    group.finish();
}

fn source(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ip/source_check");
    group.throughput(Throughput::Elements(1));
    let packet = fixtures::tcp_segment(1_400, false);
    for (name, address) in [
        ("own", Ipv4Addr::new(192, 0, 2, 1)),
        ("foreign", Ipv4Addr::new(192, 0, 2, 2)),
    ] {
        let check = SourceCheck::new(Some(address), None, None);
        group.bench_function(name, |bencher| {
            bencher.iter(|| check.check(black_box(&packet)).is_ok());
        });
    }
    group.finish();
}

fn clamp(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ip/mss_clamp");
    group.throughput(Throughput::Elements(1));
    for (name, len, is_syn) in [("syn", 60, true), ("bulk", 1_400, false)] {
        let original = fixtures::tcp_segment(len, is_syn);
        let mut packet = original.clone();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                // A clamped SYN would not be clamped again: put its first 64 bytes back.
                let head = original.len().min(64);
                packet[..head].copy_from_slice(&original[..head]);
                mss::clamp(black_box(&mut packet), fixtures::MTU)
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(std::time::Duration::from_millis(500))
        .measurement_time(std::time::Duration::from_secs(2));
    targets = checksums, parse, source, clamp
}
criterion_main!(benches);
