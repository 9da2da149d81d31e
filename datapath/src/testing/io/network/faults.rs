//! What goes wrong on a simulated network.

use std::ops::RangeInclusive;

use crate::time::Duration;

/// What goes wrong, and how often.
#[derive(Clone, Debug)]
pub struct Faults {
    /// One-way delay of everything sent.
    pub delay: RangeInclusive<Duration>,
    /// How many of a thousand pieces are delayed by `late` more.
    pub late_per_mille: u16,
    /// That further delay.
    pub late: RangeInclusive<Duration>,
    /// How many of a thousand deliveries are cut at a random byte.
    pub cut_per_mille: u16,
    /// How many of a thousand writes are short: the rest follows after a delay.
    pub short_write_per_mille: u16,
    /// How many of a thousand sends reset the connection.
    pub reset_per_mille: u16,
    /// How many of a thousand sends are the last their receiver sees: it is told a FIN.
    pub half_close_per_mille: u16,
    /// How many of a thousand deliveries find no receive buffer for a while.
    pub no_buffer_per_mille: u16,
    /// How many of a thousand connects are refused.
    pub refuse_per_mille: u16,
}

impl Faults {
    /// Nothing goes wrong; everything takes 50 µs.
    #[must_use]
    pub fn none() -> Self {
        let delay = Duration::from_micros(50);
        Self {
            delay: delay..=delay,
            late_per_mille: 0,
            late: Duration::ZERO..=Duration::ZERO,
            cut_per_mille: 0,
            short_write_per_mille: 0,
            reset_per_mille: 0,
            half_close_per_mille: 0,
            no_buffer_per_mille: 0,
            refuse_per_mille: 0,
        }
    }

    /// Everything a path does to a stream short of breaking it: delays, cuts, short writes, want of
    /// buffers. Every byte arrives all the same.
    #[must_use]
    pub fn rough() -> Self {
        Self {
            delay: Duration::from_micros(20)..=Duration::from_millis(2),
            late_per_mille: 20,
            late: Duration::from_millis(10)..=Duration::from_millis(300),
            cut_per_mille: 500,
            short_write_per_mille: 200,
            no_buffer_per_mille: 50,
            ..Self::none()
        }
    }

    /// As rough, and connections break.
    #[must_use]
    pub fn harsh() -> Self {
        Self {
            reset_per_mille: 2,
            half_close_per_mille: 2,
            refuse_per_mille: 50,
            ..Self::rough()
        }
    }
}
