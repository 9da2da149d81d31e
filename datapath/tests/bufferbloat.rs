//! A ping inside the tunnel while bulk TCP fills it, over paths of 40 ms: what it waits for is what stands
//! in queues, the path's own included.
//!
//! Every time is simulated. The connections inside are a model of TCP: a window that doubles in a round
//! trip until the first loss, is cut to 0.7 at each, and grows as CUBIC's does (RFC 9438). The tunnel's
//! own has a window of what the path holds and 5 ms more, as it would behind CoDel, or far more, as where
//! the path has a deep queue; it loses nothing.

mod queue_world;

use std::collections::VecDeque;

use queue_world::{Rig, quantile, run};

use datapath::testing::io::Path;
use datapath::time::{Duration, Instant};

/// One way.
const DELAY: Duration = Duration::from_millis(20);
const SEGMENT_LEN: usize = 1_400;
/// The flow of the ping; the bulk ones come before it.
const PING: u16 = 100;
const PING_INTERVAL: Duration = Duration::from_millis(10);

/// One sender on the inside: segments are numbered and never sent again, a gap is a loss.
struct Tcp {
    flow: u16,
    /// Segments that may be under way, and that the receiver has room for.
    window: f64,
    window_max: f64,
    /// The window at the last loss, and when that was; `None`: slow start.
    lost: Option<(f64, Instant)>,
    sent: u64,
    /// Segments below this number arrived or are lost.
    acked: u64,
    /// Losses before this segment was sent are the same congestion.
    recover: u64,
    acks: VecDeque<(Instant, u64)>,
}

impl Tcp {
    const fn new(flow: u16, window_max: f64) -> Self {
        Self {
            flow,
            window: 10.0,
            window_max,
            lost: None,
            sent: 0,
            acked: 0,
            recover: 0,
            acks: VecDeque::new(),
        }
    }

    fn tick(&mut self, rig: &Rig) {
        while let Some(&(at, number)) = self.acks.front()
            && at <= rig.now()
        {
            self.acks.pop_front();
            self.acked(number, at);
        }
        while ((self.sent - self.acked) as f64) < self.window.min(self.window_max) {
            rig.inject(0, self.flow, self.sent, SEGMENT_LEN, 0);
            self.sent += 1;
        }
    }

    fn acked(&mut self, number: u64, now: Instant) {
        // A flow keeps its order in the tunnel.
        if number > self.acked && number >= self.recover {
            self.recover = self.sent;
            self.lost = Some((self.window, now));
            self.window *= 0.7;
        } else if let Some((before, at)) = self.lost {
            let (age, c) = (now.saturating_since(at).as_secs_f64(), 0.4);
            let k = (before * 0.3 / c).cbrt();
            self.window = self.window.max(before + c * (age - k).powi(3));
        } else {
            self.window += 1.0;
        }
        self.acked = number + 1;
    }
}

/// What a run showed.
struct Seen {
    p50: Duration,
    p99: Duration,
    used: f64,
}

/// `flows` bulk connections, each with so many segments under way at most, and a ping over a path of
/// `mbit` in which the tunnel's connection would have `standing` milliseconds stand, the first three seconds
/// not counted.
fn run_bulk(mbit: u64, standing: u64, flows: u16, window_max: f64) -> Seen {
    let mut rig = Rig::new(1, 64, false);
    rig.set_delay(DELAY);
    let rate = mbit * 125_000;
    // 40 ms of it are on their way.
    let flight_len_max = usize::try_from(rate * (40 + standing) / 1_000).unwrap();
    rig.set_down_path(
        0,
        Path {
            rate,
            flight_len_max: Some(flight_len_max),
        },
    );
    // What was on its way when the delay changed.
    run(&mut rig, &mut [], DELAY * 4);
    rig.take_arrivals();
    let mut bulk: Vec<_> = (0..flows).map(|flow| Tcp::new(flow, window_max)).collect();
    let (begin, mut next_ping, mut pings) = (rig.now(), rig.now(), 0);
    let (warm, time) = (Duration::from_secs(3), Duration::from_secs(8));
    let (mut waits, mut bulk_len) = (Vec::new(), 0);
    while rig.now() < begin + warm + time {
        for tcp in &mut bulk {
            tcp.tick(&rig);
        }
        if rig.now() >= next_ping {
            next_ping = next_ping + PING_INTERVAL;
            rig.inject(0, PING, pings, 84, 0);
            pings += 1;
        }
        rig.step();
        for arrival in rig.take_arrivals() {
            let is_counted = arrival.at >= begin + warm;
            if arrival.mark.flow == PING {
                let wait = arrival.at.saturating_since(arrival.mark.sent_at + DELAY);
                waits.extend(is_counted.then_some(wait));
            } else {
                bulk_len += if is_counted { arrival.len } else { 0 };
                let tcp = &mut bulk[usize::from(arrival.mark.flow)];
                tcp.acks
                    .push_back((arrival.at + DELAY, arrival.mark.number));
            }
        }
    }
    assert_eq!(rig.device_drops(), 0, "the TUN is always drained");
    assert!(waits.len() > 700, "none of them is lost: {}", waits.len());
    Seen {
        p50: quantile(waits.clone(), 500),
        p99: quantile(waits, 990),
        used: bulk_len as f64 / (rate * time.as_secs()) as f64,
    }
}

/// Within the bars, with the path in use.
fn check(mbit: u64, standing: u64, flows: u16, window_max: f64) {
    let Seen { p50, p99, used } = run_bulk(mbit, standing, flows, window_max);
    println!(
        "{mbit} Mbit/s, {standing} ms, {flows} flows: p50 {p50:?}, p99 {p99:?}, path used {used:.3}"
    );
    assert!(p50 <= Duration::from_millis(15), "{p50:?} at {mbit} Mbit/s");
    assert!(p99 <= Duration::from_millis(40), "{p99:?} at {mbit} Mbit/s");
    assert!(used >= 0.9, "{used} of {mbit} Mbit/s");
}

#[test]
fn bufferbloat_of_a_ping_beside_bulk_is_a_few_packets() {
    for mbit in [10, 20, 50, 100] {
        for flows in [1, 4] {
            check(mbit, 5, flows, f64::INFINITY);
        }
    }
}

#[test]
fn bufferbloat_of_a_window_that_the_kernel_could_hold_is_no_more() {
    // What the path holds, and 60 KB.
    check(10, 5, 1, 80.0);
    check(20, 5, 1, 120.0);
}

#[test]
fn bufferbloat_of_a_path_with_a_deep_queue_is_a_few_packets() {
    for mbit in [10, 20, 50, 100] {
        for standing in [60, 100] {
            check(mbit, standing, 4, f64::INFINITY);
        }
    }
}
