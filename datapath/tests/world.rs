//! The seeded world: production shards, simulated network, virtual time.
//!
//! `WORLD_SEEDS=n` runs seeds `0..n`, `WORLD_SEED=s` runs one and prints what became of it.

use datapath::testing::world::{World, WorldConfig};

const fn config(seed: u64) -> WorldConfig {
    WorldConfig {
        seed,
        shards: 8,
        clients: 200,
        rough: true,
        offload: seed % 2 == 1,
        steered: seed % 4 == 2,
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn world_without_faults_comes_up_and_goes() {
    let outcome = World::new(WorldConfig {
        rough: false,
        ..config(1)
    })
    .run();
    assert!(outcome.came_up >= 200, "{outcome:?}");
    assert!(
        outcome.handed_over > 0,
        "the steering is wrong on purpose: {outcome:?}"
    );
}

#[test]
fn world_that_is_steered_hands_nothing_over() {
    for offload in [false, true] {
        let outcome = World::new(WorldConfig {
            rough: false,
            offload,
            steered: true,
            ..config(1)
        })
        .run();
        assert!(outcome.downlink > 0, "{outcome:?}");
        assert_eq!(outcome.handed_over, 0, "{outcome:?}");
    }
}

#[test]
fn world_is_the_same_for_the_same_seed() {
    let first = World::new(config(42)).run();
    assert_eq!(first, World::new(config(42)).run());
    assert_ne!(first.trace, World::new(config(43)).run().trace);
}

#[test]
fn world_survives_every_seed() {
    if let Some(seed) = number("WORLD_SEED") {
        println!("{:#?}", World::new(config(seed)).run());
        return;
    }
    let seeds = number("WORLD_SEEDS").unwrap_or(100);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let run = |first| {
        (first..seeds)
            .step_by(threads)
            .map(|seed| World::new(config(seed)).run())
    };
    let moved: u64 = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads as u64)
            .map(|first| scope.spawn(move || run(first).map(|outcome| outcome.moved).sum::<u64>()))
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().expect("a world broke"))
            .sum()
    });
    assert!(moved > 0, "connections move between shards in these worlds");
    println!("{seeds} seeds, {moved} connections moved");
}
