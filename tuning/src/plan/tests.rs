//! The arithmetic, by hand for one load, and its sanity for all.

use proptest::prelude::*;

use super::*;

fn load(sessions: u32, gbps: f64) -> Load {
    Load {
        sessions,
        gbps,
        setups_per_s: None,
        packet_size: None,
        rtt_ms: 100.0,
        flows: 100,
    }
}

#[test]
fn ten_gigabits_for_five_thousand() {
    let plan = Plan::of(load(5_000, 10.0));
    // 1.25 GB/s × 1.373 + 41.67 / 3538, at half load: 1.716 + 0.012 = 1.728 → 3.46.
    assert_eq!(plan.shards, 4);
    // 5,000 + 1,000 + 64 + 4 × 6.
    assert_eq!(plan.files, 6_088);
    insta::assert_snapshot!("five_thousand", plan.text());
}

#[test]
fn small_packets_are_counted_one_by_one() {
    let mut voice = load(20_000, 1.0);
    voice.packet_size = Some(200);
    voice.setups_per_s = Some(2_000.0);
    insta::assert_snapshot!("voice", Plan::of(voice).text());
}

#[test]
fn every_figure_is_in_a_table_of_this_project() {
    let readme = include_str!("../../../bench/README.md");
    let rows = BULK.iter().map(|(_, figure)| figure);
    let all = rows.chain(PACKETS.iter().map(|(_, figure)| figure));
    for Figure { source, .. } in all.chain([&SET_UPS, &SESSION]) {
        let row = source.strip_prefix("bench/README.md, ").expect("a row");
        assert!(
            readme.lines().any(|line| line.starts_with(row)),
            "bench/README.md has no row {row}"
        );
    }
}

proptest! {
    #[test]
    fn more_load_never_needs_less(
        sessions in 1..1_000_000_u32,
        gbps in 0.001..400.0_f64,
        size in proptest::option::of(40..=1_500_u32),
        rtt_ms in 0.1..1_000.0_f64,
    ) {
        let less = Load { packet_size: size, rtt_ms, ..load(sessions, gbps) };
        let more = Load { gbps: gbps * 2.0, ..less };
        let (less, more) = (Plan::of(less), Plan::of(more));
        prop_assert!(more.shards >= less.shards);
        prop_assert!(more.memory_sum() >= less.memory_sum());
        prop_assert!(more.buffer >= less.buffer && more.buffer <= 64 << 20);
        prop_assert!(less.files > u64::from(sessions));
        let config: toml::Table = less.config().parse().unwrap();
        prop_assert_eq!(config["limits"]["sessions"].as_integer(), Some(i64::from(sessions)));
        prop_assert!(config["shards"]["count"].as_integer().unwrap() <= 256);
        for line in less.sysctl().lines() {
            prop_assert!(line.starts_with('#') || line.contains(" = "), "{}", line);
        }
    }
}
