//! `sstp_packet`: the framing of the stream, as every byte of every session passes through it.

use std::hint::black_box;

use bench::fixtures;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use datapath::sstp::packet;

fn walk(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("sstp_packet/walk");
    // 16 KB is a full record, 64 KB a full receive buffer.
    for (count, len) in [(11, 1400), (46, 1400), (256, 64), (16, 4000)] {
        let stream = fixtures::data_packets(count, len);
        group.throughput(Throughput::ElementsAndBytes {
            elements: count as u64,
            bytes: stream.len() as u64,
        });
        group.bench_function(format!("{count}x{len}"), |bencher| {
            bencher.iter(|| {
                let mut rest = black_box(stream.as_slice());
                let mut payload_len = 0;
                while let Ok(Some((packet, len))) = packet::parse(rest) {
                    payload_len += packet.payload().len();
                    rest = &rest[len..];
                }
                payload_len
            });
        });
    }
    group.finish();
}

fn refuse(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("sstp_packet/refuse");
    group.throughput(Throughput::Elements(1));
    for (name, bytes) in [
        ("version", [0x20, 0x00, 0x00, 0x08]),
        ("length", [0x10, 0x00, 0x00, 0x03]),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| packet::parse(black_box(&bytes)).is_err());
        });
    }
    group.finish();
}

fn emit(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("sstp_packet/emit");
    group.throughput(Throughput::Elements(1));
    group.bench_function("data_header", |bencher| {
        let mut header = [0; packet::HEADER_LEN];
        bencher.iter(|| packet::write_data_header(black_box(&mut header), black_box(1404)));
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(std::time::Duration::from_millis(500))
        .measurement_time(std::time::Duration::from_secs(2));
    targets = walk, refuse, emit
}
criterion_main!(benches);
