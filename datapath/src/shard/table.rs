//! The sessions of a shard, by connection.
//!
//! The driver's [`ConnectionId`] is the key: its slot is the place, its generation must match, so
//! what comes late for a dead session finds nobody. The table never grows past its capacity.

use crate::io::ConnectionId;
use crate::session::Session;
use crate::session::event::{Addresses, EndReason};

/// A session and what its shard keeps beside it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) session: Box<Session>,
    /// The addresses that are routed to it now.
    pub(super) routed: Addresses,
    /// It is in the list of those to be flushed.
    pub(super) is_dirty: bool,
    /// It counts among the handshakes in progress.
    pub(super) is_shaking_hands: bool,
    /// It counts among the sessions that are up.
    pub(super) is_up: bool,
    /// FIN was sent.
    pub(super) is_shut: bool,
    /// It shall end for this reason when it is next looked at.
    pub(super) doom: Option<EndReason>,
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    entry: Option<Entry>,
}

/// All sessions of a shard.
#[derive(Debug)]
pub(super) struct Table {
    slots: Vec<Slot>,
    len: usize,
    capacity: usize,
    doomed: Vec<ConnectionId>,
}

impl Table {
    /// An empty table for `capacity` sessions.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            slots: Vec::new(),
            len: 0,
            capacity,
            doomed: Vec::new(),
        }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) const fn is_full(&self) -> bool {
        self.len >= self.capacity
    }

    /// Enters a session under its connection.
    pub(super) fn insert(&mut self, id: ConnectionId, session: Session) {
        let index = id.slot as usize;
        if index >= self.slots.len() {
            self.slots.resize_with(index + 1, Slot::default);
        }
        let slot = &mut self.slots[index];
        if slot.entry.is_none() {
            self.len += 1;
        }
        *slot = Slot {
            generation: id.generation,
            entry: Some(Entry {
                is_shaking_hands: session.is_shaking_hands(),
                session: Box::new(session),
                routed: Addresses::default(),
                is_dirty: false,
                is_up: false,
                is_shut: false,
                doom: None,
            }),
        };
    }

    /// The session of a connection.
    pub(super) fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Entry> {
        let slot = self.slots.get_mut(id.slot as usize)?;
        slot.entry
            .as_mut()
            .filter(|_| slot.generation == id.generation)
    }

    /// The session in a slot, whatever its generation.
    pub(super) fn in_slot(&self, slot: u32) -> Option<ConnectionId> {
        let entry = self.slots.get(slot as usize)?;
        entry.entry.is_some().then_some(ConnectionId {
            slot,
            generation: entry.generation,
        })
    }

    /// Takes a session out.
    pub(super) fn remove(&mut self, id: ConnectionId) -> Option<Entry> {
        let slot = self.slots.get_mut(id.slot as usize)?;
        if slot.generation != id.generation {
            return None;
        }
        let entry = slot.entry.take()?;
        self.len -= 1;
        Some(entry)
    }

    /// Marks a session to be ended; see [`Table::take_doomed`].
    pub(super) fn doom(&mut self, id: ConnectionId, reason: EndReason) {
        if let Some(entry) = self.get_mut(id) {
            entry.doom = Some(reason);
            self.doomed.push(id);
        }
    }

    /// The next session that was marked, with the reason.
    pub(super) fn take_doomed(&mut self) -> Option<(ConnectionId, EndReason)> {
        while let Some(id) = self.doomed.pop() {
            if let Some(reason) = self.get_mut(id).and_then(|entry| entry.doom.take()) {
                return Some((id, reason));
            }
        }
        None
    }

    /// Every connection in the table.
    pub(super) fn ids(&self) -> Vec<ConnectionId> {
        (0..self.slots.len())
            .filter_map(|slot| self.in_slot(u32::try_from(slot).ok()?))
            .collect()
    }
}
