//! The last step of an uplink packet: out of the shard, to the TUN, alone or as part of a superpacket.
//!
//! A write costs the kernel 1.4 µs a packet and 3.2 µs a superpacket of 48, so consecutive segments of
//! one flow are merged (`ip::offload::merge`). Nothing is held past the turn, and nothing is merged
//! across sessions. A kernel that refuses a valid superpacket (EINVAL) gets single packets from then
//! on, and the refused one is cut again: nothing is lost.

use super::counters::Counters;
use crate::io::Io;
use crate::ip::checksum::CopyAndSum;
use crate::ip::offload::cut::Cut;
use crate::ip::offload::merge::{Aggregate, Merge, Offloads, Pushed};
use crate::ip::offload::{VNET_HEADER_LEN, VnetHeader};
use crate::session::event::DropReason;

// Linux' numbers, named here because a shard must not depend on the system. Of a TUN they mean:
/// the packet is invalid,
const EINVAL: i32 = 22;
/// the device is down,
const EIO: i32 = 5;
/// the device is gone.
const EBADFD: i32 = 77;

/// The header of a packet that is just itself.
const PLAIN: [u8; VNET_HEADER_LEN] = [0; VNET_HEADER_LEN];

/// The way to the TUN.
#[derive(Debug)]
pub(super) struct TunWriter {
    /// `None`: packets carry no header and are written one by one.
    merge: Option<Merge>,
    /// The kernel has refused a superpacket.
    refused: bool,
}

impl TunWriter {
    /// With superpackets of these kinds, or without the header at all.
    pub(super) fn new(offloads: Option<Offloads>, copy_and_sum: CopyAndSum) -> Self {
        let merge = |offloads| Merge::new(offloads).with_copy_and_sum(copy_and_sum);
        Self {
            merge: offloads.map(merge),
            refused: false,
        }
    }

    /// Whether every packet read or written has a virtio-net header.
    pub(super) const fn has_header(&self) -> bool {
        self.merge.is_some()
    }

    /// Writes a packet of `session`, or keeps it until [`TunWriter::flush`].
    pub(super) fn write(
        &mut self,
        session: u32,
        packet: &[u8],
        io: &mut impl Io,
        counters: &mut Counters,
    ) {
        let refused = &mut self.refused;
        let header: &[u8] = match &mut self.merge {
            None => &[],
            Some(_) if *refused => &PLAIN,
            Some(merge) => {
                let mut out = |aggregate: Aggregate<'_>| {
                    write_aggregate(&aggregate, io, counters, refused);
                };
                if merge.push(session, packet, &mut out) == Pushed::Kept {
                    return;
                }
                &PLAIN
            }
        };
        if let Err(error) = io.tun_write(header, packet) {
            counters.dropped(reason(&error));
        }
    }

    /// Writes all that was kept.
    pub(super) fn flush(&mut self, io: &mut impl Io, counters: &mut Counters) {
        let refused = &mut self.refused;
        if let Some(merge) = &mut self.merge {
            merge.flush(&mut |aggregate| write_aggregate(&aggregate, io, counters, refused));
        }
    }
}

fn write_aggregate(
    aggregate: &Aggregate<'_>,
    io: &mut impl Io,
    counters: &mut Counters,
    refused: &mut bool,
) {
    let Some((header, packet)) = aggregate.bytes.split_first_chunk::<VNET_HEADER_LEN>() else {
        return;
    };
    let segments = aggregate.segments as u64;
    counters.sizes.segments_per_aggregate.record(segments);
    if aggregate.segments > 1 {
        counters.totals.merged_packets += segments;
        counters.totals.merged_writes += 1;
    }
    if !*refused {
        let Err(error) = io.tun_write(header, packet) else {
            return;
        };
        // Only that the superpacket is invalid is a word on superpackets.
        if error.raw_os_error() != Some(EINVAL) {
            for _ in 0..aggregate.segments {
                counters.dropped(reason(&error));
            }
            return;
        }
    }
    let gso = VnetHeader::parse(header).ok().and_then(|header| header.gso);
    let Some(mut cut) = gso.and_then(|gso| Cut::new(gso, packet, u16::MAX).ok()) else {
        for _ in 0..aggregate.segments {
            counters.dropped(DropReason::InsideRefused);
        }
        return;
    };
    *refused = true;
    counters.totals.superpackets_refused += 1;
    // Once in the life of a shard, so it may allocate.
    let mut room = vec![0; packet.len()];
    while let Some(len) = cut.write_next(&mut room) {
        let segment = room.get(..len).unwrap_or_default();
        if let Err(error) = io.tun_write(&PLAIN, segment) {
            counters.dropped(reason(&error));
        }
    }
}

/// Why a packet was lost that the TUN did not take.
fn reason(error: &std::io::Error) -> DropReason {
    match error.raw_os_error() {
        Some(EIO | EBADFD) => DropReason::InsideDown,
        _ => DropReason::InsideRefused,
    }
}
