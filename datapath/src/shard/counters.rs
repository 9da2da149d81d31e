//! Counters: plain numbers owned by their shard, published now and then, summed by the reader.
//!
//! The shard adds to plain `u64`s. [`Counters::publish`] copies them into a [`Published`] that other
//! threads read without a lock; a reader may see some counters of the last publication and some of
//! the one before, each of them true at its time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::histogram::Histograms;
use crate::session::event::{DropReason, EndReason, Traffic};
use crate::session::queue::Shed;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What a shard counts, besides drops and ends.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Totals {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Totals {
            /// Name and value of each, in a fixed order.
            #[must_use]
            pub fn entries(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }

            const NAMES: &[&'static str] = &[$(stringify!($name),)*];

            fn store(&self, cells: &[AtomicU64]) {
                let values = [$(self.$name,)*];
                for (cell, value) in cells.iter().zip(values) {
                    cell.store(value, Ordering::Relaxed);
                }
            }

            fn add_from(&mut self, cells: &[AtomicU64]) {
                let mut cells = cells.iter();
                $(if let Some(cell) = cells.next() {
                    self.$name += cell.load(Ordering::Relaxed);
                })*
            }
        }
    };
}

counters! {
    /// Connections accepted.
    accepted,
    /// Connections refused for a limit.
    refused,
    /// TLS handshakes finished.
    handshakes,
    /// Sessions that came up.
    sessions_up,
    /// Sessions that ended, up or not.
    sessions_ended,
    /// Sessions up now.
    sessions,
    /// Connections held now, up or not.
    connections,
    /// Packets from clients to the network.
    uplink_packets,
    /// Their bytes.
    uplink_bytes,
    /// Packets from the network to clients.
    downlink_packets,
    /// Their bytes.
    downlink_bytes,
    /// Sends handed to the kernel.
    sends,
    /// Packets that arrived on the wrong shard and were handed over.
    handoff_out,
    /// Packets taken from other shards.
    handoff_in,
    /// Addresses that the steering had no room for; their packets are handed over.
    unsteered,
    /// Turns of the loop.
    turns,
    /// Times the listener had to pause for want of descriptors.
    accept_pauses,
    /// Connections moved to another shard.
    moved,
    /// Uplink packets that were written as part of a superpacket.
    merged_packets,
    /// Superpackets written.
    merged_writes,
    /// Times the kernel refused a superpacket; at most once a shard.
    superpackets_refused,
    /// Superpackets read from the TUN.
    superpackets_read,
    /// Packets that were marked as having met congestion while they waited (RFC 3168).
    marked_packets,
}

const TOTALS: usize = Totals::NAMES.len();

/// A shard's own counters.
#[derive(Clone, Debug)]
pub struct Counters {
    /// The plain ones.
    pub totals: Totals,
    /// How large things were.
    pub sizes: Histograms,
    drops: [u64; DropReason::ALL.len()],
    ends: [u64; EndReason::ALL.len()],
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            totals: Totals::default(),
            sizes: Histograms::default(),
            drops: [0; DropReason::ALL.len()],
            ends: [0; EndReason::ALL.len()],
        }
    }
}

impl Counters {
    /// Counts a dropped packet.
    pub fn dropped(&mut self, reason: DropReason) {
        self.drops[reason as usize] += 1;
    }

    /// Packets dropped for `reason`.
    #[must_use]
    pub const fn drops(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize]
    }

    /// Counts a session's end.
    pub fn ended(&mut self, reason: EndReason) {
        self.totals.sessions_ended += 1;
        self.ends[reason as usize] += 1;
    }

    /// Sessions that ended for `reason`.
    #[must_use]
    pub const fn ends(&self, reason: EndReason) -> u64 {
        self.ends[reason as usize]
    }

    /// Adds what one burst carried.
    pub const fn carried(&mut self, traffic: Traffic) {
        self.totals.uplink_packets += traffic.uplink_packets;
        self.totals.uplink_bytes += traffic.uplink_bytes;
        self.totals.downlink_packets += traffic.downlink_packets;
        self.totals.downlink_bytes += traffic.downlink_bytes;
    }

    /// Counts what was dropped or marked while it waited; it had been counted as carried.
    pub fn shed(&mut self, shed: &Shed, taken_back: Traffic) {
        self.drops[DropReason::Late as usize] += shed.late;
        self.drops[DropReason::QueueFull as usize] += shed.evicted;
        let totals = &mut self.totals;
        totals.marked_packets += shed.marked;
        totals.uplink_packets -= taken_back.uplink_packets;
        totals.uplink_bytes -= taken_back.uplink_bytes;
        totals.downlink_packets -= taken_back.downlink_packets;
        totals.downlink_bytes -= taken_back.downlink_bytes;
    }

    /// Counts the packets that still waited when their session ended.
    pub const fn left_behind(&mut self, count: usize) {
        self.drops[DropReason::Ended as usize] += count as u64;
    }

    /// Copies everything to where other threads read it.
    pub fn publish(&self, published: &Published) {
        let (totals, rest) = published.cells.split_at(TOTALS);
        let (drops, rest) = rest.split_at(DropReason::ALL.len());
        let (ends, sizes) = rest.split_at(EndReason::ALL.len());
        self.sizes.store(sizes);
        self.totals.store(totals);
        for (cell, value) in drops.iter().zip(self.drops) {
            cell.store(value, Ordering::Relaxed);
        }
        for (cell, value) in ends.iter().zip(self.ends) {
            cell.store(value, Ordering::Relaxed);
        }
    }
}

/// A shard's counters as others see them.
#[derive(Debug)]
pub struct Published {
    cells: Box<[AtomicU64]>,
}

impl Published {
    /// All zero.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let count = TOTALS + DropReason::ALL.len() + EndReason::ALL.len() + Histograms::CELLS;
        Arc::new(Self {
            cells: (0..count).map(|_| AtomicU64::new(0)).collect(),
        })
    }

    /// Adds this shard's counters to `sum`.
    pub fn add_to(&self, sum: &mut Counters) {
        let (totals, rest) = self.cells.split_at(TOTALS);
        let (drops, rest) = rest.split_at(DropReason::ALL.len());
        let (ends, sizes) = rest.split_at(EndReason::ALL.len());
        sum.sizes.add_from(sizes);
        sum.totals.add_from(totals);
        for (value, cell) in sum.drops.iter_mut().zip(drops) {
            *value += cell.load(Ordering::Relaxed);
        }
        for (value, cell) in sum.ends.iter_mut().zip(ends) {
            *value += cell.load(Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reader_sums_what_each_shard_published() {
        let (a, b) = (Published::new(), Published::new());
        let mut counters = Counters::default();
        counters.totals.accepted = 3;
        counters.totals.moved = 1;
        counters.dropped(DropReason::Source);
        counters.ended(EndReason::UserRequest);
        counters.publish(&a);
        counters.publish(&b);
        let mut sum = Counters::default();
        a.add_to(&mut sum);
        b.add_to(&mut sum);
        assert_eq!(sum.totals.accepted, 6);
        assert_eq!(sum.totals.moved, 2);
        assert_eq!(sum.drops(DropReason::Source), 2);
        assert_eq!(sum.ends(EndReason::UserRequest), 2);
        assert_eq!(sum.totals.sessions_ended, 2);
    }
}
