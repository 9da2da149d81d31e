//! Replays the committed fuzz corpora, and a few mutations of each input, on the stable toolchain.
#![expect(
    clippy::cast_possible_truncation,
    reason = "fuzz targets are tests; a wrong cast shows"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "a test reads its corpus from files"
)]

use std::path::Path;

#[path = "../fuzz/src/targets/mod.rs"]
#[expect(
    unreachable_pub,
    reason = "shared with the fuzz crate, where it is public"
)]
mod targets;

#[test]
fn fuzz_corpora() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for &(name, target) in targets::ALL {
        target(&[]);
        let mut count = 0;
        for entry in std::fs::read_dir(corpora.join(name)).expect("every target has a corpus") {
            let bytes = std::fs::read(entry.expect("a readable corpus").path()).expect("an input");
            target(&bytes);
            // Truncation, and one flipped bit in a place that differs from input to input.
            target(&bytes[..bytes.len() / 2]);
            let mut flipped = bytes;
            let at = count * 7 % flipped.len().max(1);
            if let Some(byte) = flipped.get_mut(at) {
                *byte ^= 1 << (count % 8);
            }
            target(&flipped);
            count += 1;
        }
        assert!(count > 0, "the corpus of {name} is empty");
        println!("{name}: {count} inputs");
    }
}

#[test]
fn the_session_target_starts_behind_the_login() {
    for method in [0, 2, 3] {
        for pieces in [0, 2, 3] {
            let selector = method | 2 << 2 | pieces << 6;
            assert!(targets::starts_up(selector), "{selector:#04x}");
        }
    }
}
