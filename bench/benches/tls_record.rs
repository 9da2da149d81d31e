//! `tls_record`: sealing and opening records in place, the largest part of a packet's cost.

use std::cell::RefCell;

use bench::fixtures;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use datapath::tls::Suite;

const SUITES: [(&str, Suite); 3] = [
    ("aes128gcm", Suite::Aes128Gcm),
    ("aes256gcm", Suite::Aes256Gcm),
    ("chacha20poly1305", Suite::ChaCha20Poly1305),
];

/// A packet, a page, the largest record.
const LENS: [usize; 3] = [1_400, 4_096, 16_384];

fn seal(criterion: &mut Criterion) {
    for (name, suite) in SUITES {
        let mut group = criterion.benchmark_group(format!("tls_record/seal_{name}"));
        for len in LENS {
            let (mut client, _) = fixtures::tls_pair(suite);
            let mut record = fixtures::record_room(&client, len);
            group.throughput(Throughput::ElementsAndBytes {
                elements: 1,
                bytes: len as u64,
            });
            group.bench_function(len.to_string(), |bencher| {
                bencher.iter(|| {
                    client
                        .seal(&mut record, len)
                        .expect("within the key budget")
                });
            });
        }
        group.finish();
    }
}

fn open(criterion: &mut Criterion) {
    for (name, suite) in SUITES {
        let mut group = criterion.benchmark_group(format!("tls_record/open_{name}"));
        for len in LENS {
            let (client, mut server) = fixtures::tls_pair(suite);
            let room = fixtures::record_room(&client, len);
            let client = RefCell::new(client);
            group.throughput(Throughput::ElementsAndBytes {
                elements: 1,
                bytes: len as u64,
            });
            group.bench_function(len.to_string(), |bencher| {
                // Records are sealed and opened in the same order, outside and inside the measurement.
                bencher.iter_batched_ref(
                    || {
                        let mut record = room.clone();
                        let len = client.borrow_mut().seal(&mut record, len);
                        record.truncate(len.expect("within the key budget"));
                        record
                    },
                    |record| {
                        server.open(record).expect("sealed by the other end");
                    },
                    BatchSize::NumIterations(64),
                );
            });
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(std::time::Duration::from_millis(500))
        .measurement_time(std::time::Duration::from_secs(2));
    targets = seal, open
}
criterion_main!(benches);
