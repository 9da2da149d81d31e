//! A shaper against a model of a path, a look at a time.

use super::*;

const TARGET: Duration = Duration::from_millis(5);
const RTT_MIN: Duration = Duration::from_millis(40);

/// A path of so many bytes a second, and what stands in it.
struct Model {
    rate: u64,
    /// Bytes of ours that stand in it.
    own: u64,
    /// What others have standing in it, or what its round trips vary by.
    others: Duration,
    /// Our share of the rate is what we send in what all send; others send this much.
    others_rate: u64,
    /// What congestion control sends without a limit.
    free_rate: u64,
    acked: u64,
    now: Instant,
    /// What stood in it at the look before: that is what acknowledgements tell of.
    queued_before: Duration,
    looks: u64,
}

impl Model {
    fn new(rate: u64) -> Self {
        Self {
            rate,
            own: 0,
            others: Duration::ZERO,
            others_rate: 0,
            free_rate: rate * 5 / 4,
            acked: 0,
            now: Instant::from_nanos(1),
            queued_before: Duration::ZERO,
            looks: 0,
        }
    }

    fn queued(&self) -> Duration {
        Duration::from_nanos(self.own * 1_000_000_000 / self.rate) + self.others
    }

    /// What passes until the next look, then that; the bytes a second that passed.
    fn look(&mut self, shaper: &mut Shaper) -> u64 {
        let rtt = RTT_MIN + self.queued();
        let elapsed = rtt.max(BETWEEN_LOOKS_MIN);
        let sent = shaper.limit.unwrap_or(u64::MAX).min(self.free_rate);
        let taken = if self.others_rate > 0 {
            self.rate * sent / (sent + self.others_rate)
        } else {
            let left = share(self.own, Duration::from_secs(1), elapsed);
            self.rate.min(sent + left)
        };
        let bytes = |rate: u64| share(rate, elapsed, Duration::from_secs(1));
        if self.others_rate == 0 {
            self.own = (self.own + bytes(sent)).saturating_sub(bytes(taken));
        }
        self.acked += bytes(taken);
        self.now = self.now + elapsed;
        self.looks += 1;
        // Every other acknowledgement comes a little later, of a 24th of what passed.
        let late = if self.looks.is_multiple_of(2) {
            bytes(taken) / 24
        } else {
            0
        };
        let (queued, standing) = (self.queued_before, self.queued());
        self.queued_before = standing;
        let seen = PathSeen {
            rtt: RTT_MIN + queued,
            rtt_min: RTT_MIN,
            acked: self.acked - late,
            is_recovering: false,
        };
        shaper.look(self.now, &seen, TARGET, true);
        taken
    }
}

#[test]
fn a_queue_that_is_ours_is_drained_and_stays_small_with_the_path_in_use() {
    for mbit in [1, 10, 100] {
        let (mut model, mut shaper) = (Model::new(mbit * 125_000), Shaper::default());
        // 400 ms stand in it.
        model.own = model.rate * 4 / 10;
        let mut taken = Vec::new();
        for look in 0..400 {
            taken.push(model.look(&mut shaper));
            let queued = model.queued();
            assert!(
                look < 40 || queued <= TARGET * 5 / 2,
                "{mbit}, {look}: {queued:?}"
            );
        }
        let mean = taken.iter().sum::<u64>() / taken.len() as u64;
        assert!(
            mean >= model.rate * 95 / 100,
            "{mbit}: {mean} of {}",
            model.rate
        );
    }
}

#[test]
fn a_path_that_becomes_faster_is_followed() {
    let (mut model, mut shaper) = (Model::new(1_250_000), Shaper::default());
    for _ in 0..100 {
        model.look(&mut shaper);
    }
    (model.rate, model.free_rate) = (12_500_000, 13_750_000);
    let looks = (0..200).take_while(|_| model.look(&mut shaper) < 11_000_000);
    assert!(looks.count() < 50, "two seconds");
}

#[test]
fn where_others_fill_the_path_there_is_no_limit_for_ever_longer() {
    let (mut model, mut shaper) = (Model::new(1_250_000), Shaper::default());
    (model.others, model.others_rate) = (Duration::from_millis(80), 1_000_000);
    (model.free_rate, model.acked) = (1_000_000, 0);
    let (mut limited, mut looks, mut lifted) = (0, 0, Vec::new());
    while model.now < Instant::from_nanos(600_000_000_000) {
        let before = shaper.limit;
        model.look(&mut shaper);
        looks += 1;
        limited += usize::from(shaper.limit.is_some());
        if before.is_some() && shaper.limit.is_none() {
            lifted.push(model.now);
        }
    }
    assert!(limited * 50 < looks, "{limited} of {looks} looks");
    let pauses = lifted
        .windows(2)
        .map(|two| two[1].saturating_since(two[0]).as_secs());
    let pauses: Vec<_> = pauses.collect();
    assert!(pauses.is_sorted() && pauses.len() >= 4, "{pauses:?}");
}

#[test]
fn round_trips_that_are_long_by_themselves_cost_little_and_then_nothing() {
    let (mut model, mut shaper) = (Model::new(1_250_000), Shaper::default());
    (model.others, model.free_rate) = (Duration::from_millis(8), 1_000_000);
    let mut least = u64::MAX;
    for _ in 0..100 {
        least = least.min(model.look(&mut shaper));
    }
    assert!(least >= 550_000, "{least}");
    assert_eq!(shaper.limit, None);
}

#[test]
fn what_is_limited_by_something_else_keeps_its_limit() {
    let (mut model, mut shaper) = (Model::new(1_250_000), Shaper::default());
    for _ in 0..100 {
        model.look(&mut shaper);
    }
    let limit = shaper.limit.unwrap();
    model.free_rate = 200_000;
    for _ in 0..100 {
        model.look(&mut shaper);
    }
    let grown = shaper.limit.unwrap();
    assert!(grown <= limit * 5 / 4, "{limit} → {grown}");
}

#[test]
fn neither_a_loss_nor_a_pause_is_a_measurement() {
    let seen = |acked, is_recovering| PathSeen {
        rtt: RTT_MIN * 2,
        rtt_min: RTT_MIN,
        acked,
        is_recovering,
    };
    let at = |millis: u64| Instant::from_nanos(millis * 1_000_000);
    let mut shaper = Shaper::default();
    shaper.look(at(1), &seen(0, false), TARGET, true);
    shaper.look(at(100), &seen(10_000, true), TARGET, true);
    shaper.look(at(200), &seen(20_000, false), TARGET, true);
    shaper.look(at(800), &seen(30_000, false), TARGET, true);
    assert_eq!(shaper.limit, None);
    shaper.look(at(900), &seen(30_100, false), TARGET, true);
    shaper.look(at(1_000), &seen(130_100, false), TARGET, true);
    assert!(
        shaper.limit.is_some_and(|limit| limit < 1_000_000),
        "{:?}",
        shaper.limit
    );
}

#[test]
fn a_queue_that_others_made_while_we_had_little_to_send_is_no_reason() {
    let mut shaper = Shaper::default();
    for look in 1..100_u64 {
        let seen = PathSeen {
            rtt: RTT_MIN * 2,
            rtt_min: RTT_MIN,
            acked: look * 1_000,
            is_recovering: false,
        };
        let now = Instant::from_nanos(look * 80_000_000);
        shaper.look(now, &seen, TARGET, false);
    }
    assert_eq!(shaper.limit, None);
}
