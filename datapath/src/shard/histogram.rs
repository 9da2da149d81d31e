//! How large things are: counts by powers of two, as plain numbers of one shard.
//!
//! Five sizes explain nearly every question about speed: what the TUN gives at a time, how much is
//! merged, how much goes into a send, and how long a turn of the loop lasts.

use std::sync::atomic::{AtomicU64, Ordering};

/// Buckets: the last one holds all from 2^30 up.
const BUCKETS: usize = 32;

/// Counts of values: bucket 0 of zeros, bucket `n` of those from 2^(n-1) to 2^n - 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    buckets: [u64; BUCKETS],
    sum: u64,
}

impl Histogram {
    /// Numbers of which it consists, when published.
    pub(super) const CELLS: usize = BUCKETS + 1;

    /// Counts one value.
    pub fn record(&mut self, value: u64) {
        let bits = (u64::BITS - value.leading_zeros()) as usize;
        if let Some(bucket) = self.buckets.get_mut(bits.min(BUCKETS - 1)) {
            *bucket += 1;
        }
        self.sum = self.sum.saturating_add(value);
    }

    /// Values counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Their mean; 0 of none.
    #[must_use]
    pub fn mean(&self) -> u64 {
        self.sum.checked_div(self.count()).unwrap_or(0)
    }

    /// What at least `per_mille` of 1,000 values do not exceed, as the upper end of a bucket: at most
    /// twice the true value.
    #[must_use]
    pub fn at_most(&self, per_mille: u64) -> u64 {
        let wanted = u128::from(self.count()) * u128::from(per_mille);
        let mut seen = 0;
        for (bits, count) in self.buckets.iter().enumerate() {
            seen += u128::from(*count) * 1_000;
            if seen >= wanted {
                return (1_u64 << bits) - 1;
            }
        }
        u64::MAX
    }

    /// Upper end and count of each bucket that is not empty.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> {
        let ends = (0..BUCKETS).map(|bits| (1_u64 << bits) - 1);
        ends.zip(self.buckets).filter(|&(_, count)| count > 0)
    }

    fn store(&self, cells: &[AtomicU64]) {
        for (cell, value) in cells.iter().zip(self.buckets.iter().chain([&self.sum])) {
            cell.store(*value, Ordering::Relaxed);
        }
    }

    fn add_from(&mut self, cells: &[AtomicU64]) {
        let values = self.buckets.iter_mut().chain([&mut self.sum]);
        for (value, cell) in values.zip(cells) {
            *value = value.saturating_add(cell.load(Ordering::Relaxed));
        }
    }
}

/// The five of a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Histograms {
    /// Bytes of each superpacket read from the TUN.
    pub superpacket_bytes: Histogram,
    /// Packets in each write to the TUN that was held back to be merged.
    pub segments_per_aggregate: Histogram,
    /// TLS records in each send.
    pub records_per_send: Histogram,
    /// Bytes of each send.
    pub bytes_per_send: Histogram,
    /// Nanoseconds from the end of one wait for the kernel to the beginning of the next.
    pub turn_ns: Histogram,
}

impl Histograms {
    const COUNT: usize = 5;
    /// Numbers of which they consist, when published.
    pub(super) const CELLS: usize = Self::COUNT * Histogram::CELLS;

    /// Name and histogram of each, in a fixed order.
    #[must_use]
    pub const fn entries(&self) -> [(&'static str, &Histogram); Self::COUNT] {
        [
            ("superpacket_bytes", &self.superpacket_bytes),
            ("segments_per_aggregate", &self.segments_per_aggregate),
            ("records_per_send", &self.records_per_send),
            ("bytes_per_send", &self.bytes_per_send),
            ("turn_ns", &self.turn_ns),
        ]
    }

    pub(super) fn store(&self, cells: &[AtomicU64]) {
        for ((_, histogram), cells) in self.entries().iter().zip(cells.chunks(Histogram::CELLS)) {
            histogram.store(cells);
        }
    }

    pub(super) fn add_from(&mut self, cells: &[AtomicU64]) {
        let all = [
            &mut self.superpacket_bytes,
            &mut self.segments_per_aggregate,
            &mut self.records_per_send,
            &mut self.bytes_per_send,
            &mut self.turn_ns,
        ];
        for (histogram, cells) in all.into_iter().zip(cells.chunks(Histogram::CELLS)) {
            histogram.add_from(cells);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_counted_in_the_bucket_that_its_bits_number() {
        let mut histogram = Histogram::default();
        for value in [0, 1, 2, 3, 4, 7, 8, 65_535, u64::MAX] {
            histogram.record(value);
        }
        let buckets: Vec<_> = histogram.buckets().collect();
        assert_eq!(
            buckets,
            [
                (0, 1),
                (1, 1),
                (3, 2),
                (7, 2),
                (15, 1),
                (65_535, 1),
                ((1 << 31) - 1, 1)
            ]
        );
        assert_eq!(histogram.count(), 9);
    }

    #[test]
    fn mean_and_quantile_are_of_what_was_counted() {
        assert_eq!(Histogram::default().mean(), 0);
        assert_eq!(Histogram::default().at_most(500), 0);
        let mut histogram = Histogram::default();
        for value in 1..=1_000 {
            histogram.record(value);
        }
        assert_eq!(histogram.mean(), 500);
        assert_eq!(histogram.at_most(500), 511);
        assert_eq!(histogram.at_most(990), 1_023);
        assert_eq!(histogram.at_most(1), 1);
    }

    #[test]
    fn what_is_published_by_two_shards_adds_up() {
        let cells: Vec<_> = (0..Histograms::CELLS).map(|_| AtomicU64::new(0)).collect();
        let mut one = Histograms::default();
        one.turn_ns.record(1_000);
        one.bytes_per_send.record(65_536);
        one.store(&cells);
        let mut sum = one;
        sum.add_from(&cells);
        assert_eq!(sum.turn_ns.count(), 2);
        assert_eq!(sum.turn_ns.mean(), 1_000);
        assert_eq!(sum.bytes_per_send.mean(), 65_536);
        assert_eq!(sum.records_per_send.count(), 0);
    }
}
