//! `crypto`: what one MS-CHAPv2 log-in costs the server, apart from TLS.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use datapath::crypto::hlak::Hlak;
use datapath::crypto::mschapv2;
use datapath::crypto::nt_hash::nt_password_hash;

const CHALLENGE: [u8; 16] = [0x5b; 16];
const PEER_CHALLENGE: [u8; 16] = [0x21; 16];
const USER: &[u8] = b"user";

fn mschapv2_exchange(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("crypto/mschapv2");
    group.throughput(Throughput::Elements(1));
    let hash = nt_password_hash("clientPass");
    let response = mschapv2::nt_response(&CHALLENGE, &PEER_CHALLENGE, USER, &hash);
    group.bench_function("nt_hash", |bencher| {
        bencher.iter(|| nt_password_hash(black_box("clientPass")));
    });
    group.bench_function("verify", |bencher| {
        bencher.iter(|| {
            mschapv2::verify_nt_response(
                black_box(&CHALLENGE),
                &PEER_CHALLENGE,
                USER,
                &hash,
                &response,
            )
        });
    });
    group.bench_function("answer", |bencher| {
        bencher.iter(|| {
            mschapv2::authenticator_response(
                black_box(&CHALLENGE),
                &PEER_CHALLENGE,
                USER,
                &hash,
                &response,
            )
        });
    });
    group.bench_function("hlak", |bencher| {
        bencher.iter(|| Hlak::from_mschapv2(black_box(&hash), &response));
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(std::time::Duration::from_millis(500))
        .measurement_time(std::time::Duration::from_secs(2));
    targets = mschapv2_exchange
}
criterion_main!(benches);
