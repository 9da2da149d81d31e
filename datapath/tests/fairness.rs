//! Who shares what with whom: sessions of a shard, and flows of a session.
//!
//! Every time is simulated. Shares are of what a session could have had: the smaller of what came for
//! it and what its path takes.

mod queue_world;

use queue_world::{DELAY, Rig, Source, mbit, quantile, run};

use datapath::time::Duration;

/// Jain's index of fairness: 1 when all are equal, 1/n when one has everything.
fn jain(shares: &[f64]) -> f64 {
    let sum: f64 = shares.iter().sum();
    let squares: f64 = shares.iter().map(|share| share * share).sum();
    sum * sum / (shares.len() as f64 * squares)
}

/// What became of each session: its share, and how long its packets took.
struct Result {
    shares: Vec<f64>,
    waits: Vec<Vec<Duration>>,
}

/// Runs one source a client over a path of `paths[client]`, the first second not counted.
fn contest(paths: &[Option<u64>], mut sources: Vec<Source>, buffers: usize) -> Result {
    let mut rig = Rig::new(paths.len(), buffers, false);
    for (client, &path) in paths.iter().enumerate() {
        rig.set_down_rate(client, path);
    }
    run(&mut rig, &mut sources, Duration::from_secs(1));
    rig.take_arrivals();
    let time = Duration::from_secs(2);
    run(&mut rig, &mut sources, time);
    assert_eq!(rig.device_drops(), 0, "the test's own queue is long enough");
    let mut bytes = vec![0_u64; paths.len()];
    let mut waits = vec![Vec::new(); paths.len()];
    for arrival in rig.take_arrivals() {
        bytes[arrival.client] += arrival.len as u64;
        waits[arrival.client].push(arrival.at.saturating_since(arrival.mark.sent_at));
    }
    let shares = bytes.iter().zip(paths).zip(&sources);
    let shares = shares.map(|((&bytes, &path), source)| {
        let possible = path.map_or(source.rate, |path| path.min(source.rate));
        bytes as f64 / (possible as f64 * time.as_secs_f64())
    });
    Result {
        shares: shares.collect(),
        waits,
    }
}

fn p99_of(waits: &[Vec<Duration>]) -> Duration {
    quantile(waits.concat(), 990)
}

#[test]
fn fairness_of_one_hog_against_ninety_nine_light() {
    let light = |client| Source::new(client, 1, 200, mbit(1).map(|rate| rate / 4));
    let paths: Vec<_> = std::iter::repeat_n(mbit(100), 100).collect();
    let calm = contest(&paths, (0..100).map(light).collect(), 64);
    let mut sources: Vec<_> = (0..100).map(light).collect();
    sources[0] = Source::new(0, 1, 1_400, mbit(1_000));
    let busy = contest(&paths, sources, 64);
    assert!(jain(&busy.shares) >= 0.95, "{:?}", busy.shares);
    let (before, after) = (p99_of(&calm.waits[1..]), p99_of(&busy.waits[1..]));
    println!(
        "light p99: calm {before:?}, beside a hog {after:?}; hog {:.3}",
        busy.shares[0]
    );
    assert!(after <= before * 3 / 2, "{before:?} became {after:?}");
    assert!(
        busy.shares[1..].iter().all(|&share| share > 0.97),
        "{:?}",
        busy.shares
    );
}

#[test]
fn fairness_of_ten_hogs_against_ten_light() {
    let paths: Vec<_> = std::iter::repeat_n(mbit(20), 20).collect();
    let source = |client| {
        let (len, rate) = if client < 10 {
            (1_400, mbit(60))
        } else {
            (300, mbit(1))
        };
        Source::new(client, 1, len, rate)
    };
    let result = contest(&paths, (0..20).map(source).collect(), 64);
    println!("{:.3?}", result.shares);
    assert!(jain(&result.shares) >= 0.95, "{:?}", result.shares);
    assert!(result.shares[10..].iter().all(|&share| share > 0.97));
}

#[test]
fn fairness_of_fast_against_slow_readers() {
    let path = |client| if client < 10 { mbit(100) } else { mbit(2) };
    let paths: Vec<_> = (0..20).map(path).collect();
    let source = |client| Source::new(client, 1, 1_400, mbit(10));
    let result = contest(&paths, (0..20).map(source).collect(), 64);
    println!("{:.3?}", result.shares);
    assert!(jain(&result.shares) >= 0.95, "{:?}", result.shares);
    assert!(result.shares[..10].iter().all(|&share| share > 0.97));
}

#[test]
fn fairness_of_big_against_small_packets() {
    let paths: Vec<_> = std::iter::repeat_n(mbit(10), 10).collect();
    let source = |client| Source::new(client, 1, if client < 5 { 1_400 } else { 120 }, mbit(15));
    let result = contest(&paths, (0..10).map(source).collect(), 64);
    println!("{:.3?}", result.shares);
    assert!(jain(&result.shares) >= 0.95, "{:?}", result.shares);
}

/// Bulk flows of one session that all want more than the path has, of big and of small packets.
#[test]
fn fairness_of_flows_inside_a_session() {
    let mut rig = Rig::new(1, 64, false);
    rig.set_down_rate(0, mbit(10));
    let flow = |flow| Source::new(0, flow, if flow < 3 { 1_400 } else { 250 }, mbit(8));
    let mut sources: Vec<_> = (0..6).map(flow).collect();
    run(&mut rig, &mut sources, Duration::from_secs(1));
    rig.take_arrivals();
    run(&mut rig, &mut sources, Duration::from_secs(3));
    let mut bytes = [0.0; 6];
    for arrival in rig.take_arrivals() {
        bytes[usize::from(arrival.mark.flow)] += arrival.len as f64;
    }
    println!("{bytes:?}");
    assert!(jain(&bytes) >= 0.95, "{bytes:?}");
}

#[test]
fn fairness_keeps_a_sparse_flow_of_a_busy_session_below_ten_milliseconds() {
    for path in [10, 30, 100] {
        let mut rig = Rig::new(1, 64, false);
        rig.set_down_rate(0, mbit(path));
        let mut sources = [
            Source::new(0, 1, 1_400, mbit(path * 2)),
            Source::new(0, 2, 100, mbit(1).map(|rate| rate / 20)),
        ];
        run(&mut rig, &mut sources, Duration::from_secs(2));
        rig.take_arrivals();
        run(&mut rig, &mut sources, Duration::from_secs(4));
        let (mut waits, mut bulk, mut bulk_len) = (Vec::new(), Vec::new(), 0);
        for arrival in rig.take_arrivals() {
            let wait = arrival.at.saturating_since(arrival.mark.sent_at);
            if arrival.mark.flow == 2 {
                waits.push(wait);
            } else {
                bulk.push(wait);
                bulk_len += arrival.len;
            }
        }
        let used = bulk_len as f64 / (path * 500_000) as f64;
        let worst = *waits.iter().max().unwrap();
        println!(
            "{path} Mbit/s: sparse p50 {:?} p99 {:?} max {worst:?}, bulk p50 {:?}, path used {used:.3}",
            quantile(waits.clone(), 500),
            quantile(waits.clone(), 990),
            quantile(bulk, 500),
        );
        assert!(waits.len() > 200, "none of it is lost: {}", waits.len());
        assert!(
            worst <= Duration::from_millis(10) + DELAY,
            "{worst:?} at {path} Mbit/s"
        );
        assert!(used > 0.9, "{used}");
    }
}
