//! The first step of a downlink packet: from the TUN, or from another shard, to its session.
//!
//! With offload each read brings a virtio-net header and up to 64 KB: a packet whose checksum is still
//! to be made, or a superpacket that its session cuts straight into its records.

use std::net::IpAddr;

use super::owner::Owner;
use super::{Inside, Shard, TUN_BURST_LEN_MAX, TUN_BURST_MAX};
use crate::io::{Io, TunRead};
use crate::ip::offload::{VNET_HEADER_LEN, VnetHeader};
use crate::output::Entropy;
use crate::session::event::DropReason;

/// The destination of an IP packet whose header is whole.
pub(super) fn destination(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => Some(IpAddr::from(*packet.get(16..)?.first_chunk::<4>()?)),
        6 => Some(IpAddr::from(*packet.get(24..)?.first_chunk::<16>()?)),
        _ => None,
    }
}

/// The source of an IP packet whose header is whole.
fn source(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => Some(IpAddr::from(*packet.get(12..)?.first_chunk::<4>()?)),
        6 => Some(IpAddr::from(*packet.get(8..)?.first_chunk::<16>()?)),
        _ => None,
    }
}

impl<I: Io, O: Owner, N: Entropy + Clone> Shard<I, O, N> {
    /// Reads a burst from the TUN: until it is empty or the connections have waited long enough.
    pub(super) fn read_inside(&mut self) {
        let mut buffer = std::mem::take(&mut self.packet);
        self.core.tun_pending = true;
        let mut burst_len = 0;
        for _ in 0..TUN_BURST_MAX {
            if burst_len >= TUN_BURST_LEN_MAX {
                break;
            }
            match self.io.tun_read(&mut buffer) {
                TunRead::Packet(len) => {
                    burst_len += len;
                    if let Some(bytes) = buffer.get_mut(..len) {
                        self.deliver(bytes, true);
                    }
                }
                TunRead::Empty | TunRead::Failed(_) => {
                    self.core.tun_pending = false;
                    break;
                }
            }
        }
        self.packet = buffer;
    }

    /// Takes what other shards handed over.
    pub(super) fn take_parcels(&mut self) {
        let Some(mailbox) = self
            .core
            .config
            .mailboxes
            .get(usize::from(self.core.config.index))
            .cloned()
        else {
            return;
        };
        for _ in 0..TUN_BURST_MAX {
            let Some(mut parcel) = mailbox.take() else {
                break;
            };
            self.core.counters.totals.handoff_in += 1;
            self.deliver(parcel.packet(), false);
            mailbox.recycle(parcel);
        }
        while let Some(moved) = mailbox.take_session() {
            self.adopt(moved);
        }
        if mailbox.has_more() {
            self.io.waker().wake();
        }
    }

    /// Brings what was read from the TUN to its session, here or on another shard.
    fn deliver(&mut self, bytes: &mut [u8], may_hand_over: bool) {
        let header_len = if self.core.tun_writer.has_header() {
            VNET_HEADER_LEN
        } else {
            0
        };
        let of_session = match self.core.config.inside {
            Inside::ClientTun => source,
            Inside::Tun | Inside::Reflector | Inside::Owner => destination,
        };
        let Some(address) = bytes.get(header_len..).and_then(of_session) else {
            self.core.counters.dropped(DropReason::NoSession);
            return;
        };
        let mut session = self.core.local.find(address);
        if session.is_none() && self.core.config.inside == Inside::ClientTun {
            // A lone client is the host's, whatever address the host uses (IPv6 link-local).
            session = self.core.local.only();
        }
        if let Some(connection) = session {
            if header_len == 0 {
                self.drive(connection, |session, now, edge| {
                    session.send_packet(now, bytes, edge);
                });
            } else {
                self.deliver_offloaded(connection, bytes);
            }
            return;
        }
        let config = &self.core.config;
        let owner = config
            .directory
            .owner(address)
            .filter(|&owner| owner != config.index);
        match owner.and_then(|owner| config.mailboxes.get(usize::from(owner))) {
            Some(mailbox) if may_hand_over => {
                if mailbox.post(bytes) {
                    self.core.counters.totals.handoff_out += 1;
                } else {
                    self.core.counters.dropped(DropReason::HandoffFull);
                }
            }
            _ => self.core.counters.dropped(DropReason::NoSession),
        }
    }

    /// The same for a packet behind a virtio-net header.
    fn deliver_offloaded(&mut self, connection: crate::io::ConnectionId, bytes: &mut [u8]) {
        let Some((header, packet)) = bytes.split_first_chunk_mut::<VNET_HEADER_LEN>() else {
            return;
        };
        let Ok(header) = VnetHeader::parse(header) else {
            self.core.counters.dropped(DropReason::Malformed);
            return;
        };
        if let Some(gso) = header.gso {
            self.core.counters.totals.superpackets_read += 1;
            let len = packet.len() as u64;
            self.core.counters.sizes.superpacket_bytes.record(len);
            self.drive(connection, |session, now, edge| {
                session.send_superpacket(now, gso, packet, edge);
            });
            return;
        }
        if let Some(checksum) = header.checksum
            && checksum.complete(packet).is_err()
        {
            self.core.counters.dropped(DropReason::Malformed);
            return;
        }
        self.drive(connection, |session, now, edge| {
            session.send_packet(now, packet, edge);
        });
    }
}
