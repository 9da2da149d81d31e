//! A shaper against a model of a path, a look at a time.

use super::*;

const RTT_MIN: Duration = Duration::from_millis(40);
const MBIT: u64 = 125_000;

/// Marsaglia's xorshift64: the same numbers in each run.
struct Random(u64);

impl Random {
    const fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// A path of so many bytes a second, and what stands in it.
struct Model {
    rate: u64,
    /// Bytes of ours that stand in it, and may.
    own: u64,
    own_max: u64,
    /// What others have standing in it.
    others: Duration,
    /// Our share of the rate is what we send in what all send; others send this much.
    others_rate: u64,
    /// What its round trips vary by.
    varies: Duration,
    /// What congestion control sends without a limit.
    free_rate: u64,
    acked: u64,
    lost: u32,
    /// Looks in which something is lost by chance.
    loses_per_mille: u64,
    now: Instant,
    /// What stood in it at the look before: that is what acknowledgements tell of.
    queued_before: Duration,
    random: Random,
}

impl Model {
    fn new(rate: u64) -> Self {
        Self {
            rate,
            own: 0,
            own_max: u64::MAX,
            others: Duration::ZERO,
            others_rate: 0,
            varies: Duration::ZERO,
            free_rate: rate * 5 / 4,
            acked: 0,
            lost: 0,
            loses_per_mille: 0,
            now: Instant::from_nanos(1),
            queued_before: Duration::ZERO,
            random: Random(7),
        }
    }

    fn queued(&self) -> Duration {
        Duration::from_nanos(self.own * 1_000_000_000 / self.rate) + self.others
    }

    /// What passes until the next look, then that; the bytes a second that passed.
    fn look(&mut self, shaper: &mut Shaper) -> u64 {
        let varies = self.varies * u32::try_from(self.random.below(1_001)).unwrap() / 1_000;
        let elapsed = RTT_MIN + self.queued() + varies;
        let sent = shaper.rate().unwrap_or(u64::MAX).min(self.free_rate);
        let taken = if self.others_rate > 0 {
            (self.rate * sent / (sent + self.others_rate)).min(sent)
        } else {
            let left = share(self.own, Duration::from_secs(1), elapsed);
            self.rate.min(sent + left)
        };
        let bytes = |rate: u64| share(rate, elapsed, Duration::from_secs(1));
        if self.others_rate == 0 {
            let own = (self.own + bytes(sent)).saturating_sub(bytes(taken));
            self.own = own.min(self.own_max);
            self.lost += u32::from(own > self.own_max);
        }
        self.lost += u32::from(self.random.below(1_000) < self.loses_per_mille);
        self.acked += bytes(taken);
        self.now = self.now + elapsed;
        // An acknowledgement comes later, of up to two packets in 35.
        let late = self.random.below(1 + bytes(taken) / 17);
        let (queued, standing) = (self.queued_before, self.queued());
        self.queued_before = standing;
        let seen = PathSeen {
            rtt: RTT_MIN + queued + varies,
            rtt_min: RTT_MIN,
            acked: self.acked - late,
            is_filled: true,
            retransmitted: self.lost,
            is_recovering: false,
        };
        shaper.look(self.now, &seen, queued + varies);
        taken
    }

    /// What passes in so many looks: the mean.
    fn looks(&mut self, shaper: &mut Shaper, count: u64) -> u64 {
        (0..count).map(|_| self.look(shaper)).sum::<u64>() / count
    }
}

#[test]
fn a_queue_that_is_ours_is_drained_and_stays_small_with_the_path_in_use() {
    for mbit in [1, 10, 100] {
        let (mut model, mut shaper) = (Model::new(mbit * MBIT), Shaper::default());
        // 400 ms stand in it.
        model.own = model.rate * 4 / 10;
        let drains = model.looks(&mut shaper, 40) as f64 / model.rate as f64;
        assert!(drains >= 0.98, "{mbit}: {drains}");
        let (mut taken, mut longest) = (0, Duration::ZERO);
        for _ in 0..1_000 {
            taken += model.look(&mut shaper);
            longest = longest.max(model.queued());
        }
        let used = taken as f64 / (model.rate * 1_000) as f64;
        println!("{mbit}: {drains} {used} {longest:?}");
        assert!(used >= 0.96, "{mbit}: {used}");
        assert!(longest <= TARGET * 5 / 2, "{mbit}: {longest:?}");
    }
}

#[test]
fn a_path_that_becomes_faster_is_followed() {
    let (mut model, mut shaper) = (Model::new(10 * MBIT), Shaper::default());
    model.looks(&mut shaper, 100);
    (model.rate, model.free_rate) = (100 * MBIT, 110 * MBIT);
    let looks = (0..400).take_while(|_| model.look(&mut shaper) < 88 * MBIT);
    let looks = looks.count();
    assert!(looks < 125, "five seconds: {looks}");
}

#[test]
fn a_path_that_becomes_slower_is_measured_anew() {
    let (mut model, mut shaper) = (Model::new(50 * MBIT), Shaper::default());
    model.looks(&mut shaper, 100);
    (model.rate, model.free_rate) = (10 * MBIT, 12 * MBIT);
    // Behind 60 ms something is lost.
    model.own_max = 75_000;
    let (began, mut taken, mut looks) = (model.now, 0, 0);
    while model.now.saturating_since(began) < Duration::from_secs(10) {
        taken += model.look(&mut shaper);
        looks += 1;
    }
    println!("{taken} in {looks}");
    assert!(taken >= model.rate * looks * 97 / 100, "{taken} in {looks}");
    assert!(model.looks(&mut shaper, 200) >= model.rate * 95 / 100);
    assert!(model.queued() <= TARGET * 5 / 2, "{:?}", model.queued());
}

/// What is left of it with a shaper, at worst in four seconds and over all of ten minutes, and how long it
/// was free each time.
fn left(mut model: Model) -> (f64, f64, Vec<Duration>) {
    let mut shaper = Shaper::default();
    let (mut worst, mut free_since, mut pauses) = (f64::INFINITY, Some(model.now), Vec::new());
    let free = if model.others_rate > 0 {
        model.rate * model.free_rate / (model.free_rate + model.others_rate)
    } else {
        model.free_rate.min(model.rate)
    } as f64;
    let (mut all, mut looks) = (0.0, 0.0);
    while model.now < Instant::from_nanos(600_000_000_000) {
        let (mut some, before) = (0.0, looks);
        let begin = model.now;
        while model.now < begin + Duration::from_secs(4) {
            some += model.look(&mut shaper) as f64;
            looks += 1.0;
            match (free_since, shaper.limit) {
                (Some(since), Some(_)) => {
                    pauses.push(model.now.saturating_since(since));
                    free_since = None;
                }
                (None, None) => free_since = Some(model.now),
                _ => {}
            }
        }
        all += some;
        worst = worst.min(some / (looks - before) / free);
    }
    (worst, all / looks / free, pauses)
}

#[test]
fn where_others_fill_the_path_little_is_given_way_and_ever_less() {
    let mut model = Model::new(10 * MBIT);
    (model.others, model.others_rate) = (Duration::from_millis(80), 8 * MBIT);
    model.free_rate = 8 * MBIT;
    let (worst, all, pauses) = left(model);
    println!("{worst} {all} {pauses:?}");
    // Who sends an eighth less gets less than that of what all send.
    assert!(worst >= 0.75, "{worst}");
    assert!(all >= 0.98, "{all}");
    assert!(pauses.is_sorted() && pauses.len() >= 4, "{pauses:?}");
}

#[test]
fn round_trips_that_vary_cost_little_and_ever_less() {
    for millis in [8, 12, 16, 40] {
        let mut model = Model::new(10 * MBIT);
        model.varies = Duration::from_millis(millis);
        model.loses_per_mille = 50;
        model.free_rate = 9 * MBIT;
        let (worst, all, pauses) = left(model);
        println!("{millis}: {worst} {all} {pauses:?}");
        assert!(worst >= 0.85, "{millis}: {worst}");
        assert!(all >= 0.95, "{millis}: {all}, {pauses:?}");
    }
}

#[test]
fn what_is_limited_by_something_else_keeps_its_limit() {
    let (mut model, mut shaper) = (Model::new(10 * MBIT), Shaper::default());
    model.looks(&mut shaper, 100);
    let limit = shaper.rate().unwrap();
    model.free_rate = 2 * MBIT;
    model.looks(&mut shaper, 100);
    let kept = shaper.rate().unwrap();
    assert!(kept <= limit * 17 / 16, "{limit} → {kept}");
}

/// Looks at these milliseconds, of a path that takes a byte a microsecond; `queued` stands in it.
fn looks(shaper: &mut Shaper, queued: Duration, looks: &[(u64, u32)]) -> Vec<bool> {
    let look = |&(millis, retransmitted): &(u64, u32)| {
        let seen = PathSeen {
            rtt: RTT_MIN + queued,
            rtt_min: RTT_MIN,
            acked: millis * 1_000,
            is_filled: true,
            retransmitted,
            is_recovering: retransmitted % 2 == 1,
        };
        shaper.look(Instant::from_nanos(millis * 1_000_000), &seen, queued);
        shaper.limit.is_some()
    };
    looks.iter().map(look).collect()
}

#[test]
fn it_begins_with_a_loss_behind_a_queue_or_a_queue_that_is_deep() {
    let short = Duration::from_millis(5);
    let mut shaper = Shaper::default();
    let seen = [(100, 0), (145, 0), (190, 0), (235, 0), (280, 1)];
    let limited = looks(&mut shaper, short, &seen);
    assert_eq!(limited, [false, false, false, false, true], "a loss");
    let limit = shaper.rate().unwrap();
    assert!((875_000..1_000_000).contains(&limit), "{limit}");
    let mut shaper = Shaper::default();
    let limited = looks(&mut shaper, Duration::from_millis(1), &seen);
    assert!(!limited.contains(&true), "a loss without a queue");
    let mut shaper = Shaper::default();
    let limited = looks(
        &mut shaper,
        RTT_MIN * 2,
        &[(100, 0), (220, 0), (340, 0), (460, 0)],
    );
    assert_eq!(limited, [false, false, false, true], "a deep queue");
}

#[test]
fn neither_recovery_nor_a_pause_is_a_measurement() {
    let mut shaper = Shaper::default();
    // As many looks as it takes to find a rate, were it not for what happens in between.
    let seen = [
        (100, 0),
        (220, 0),
        (800, 0),
        (920, 1),
        (1_040, 2),
        (1_160, 2),
    ];
    let limited = looks(&mut shaper, RTT_MIN * 2, &seen);
    assert!(!limited.contains(&true), "{limited:?}");
    assert_eq!(looks(&mut shaper, RTT_MIN * 2, &[(1_280, 2)]), [true]);
}

#[test]
fn a_queue_that_others_made_while_we_had_little_to_send_is_no_reason() {
    let mut shaper = Shaper::default();
    for look in 1..100_u64 {
        let seen = PathSeen {
            rtt: RTT_MIN * 2,
            rtt_min: RTT_MIN,
            acked: look * 1_000,
            is_filled: false,
            retransmitted: u32::try_from(look).unwrap(),
            is_recovering: false,
        };
        let now = Instant::from_nanos(look * 80_000_000);
        shaper.look(now, &seen, RTT_MIN);
    }
    assert_eq!(shaper.rate(), None);
}
