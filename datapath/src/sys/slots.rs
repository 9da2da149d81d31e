//! The connections of one driver: slots, each with a generation.

use crate::io::ConnectionId;

/// What a slot holds.
pub(super) trait Held {
    /// The shard has closed it: its id is dead, and only what is still under way keeps the slot.
    fn is_closing(&self) -> bool;
}

#[derive(Debug)]
struct Slot<C> {
    generation: u32,
    connection: Option<C>,
}

/// A fixed number of slots; a full table refuses.
#[derive(Debug)]
pub(super) struct Slots<C> {
    slots: Vec<Slot<C>>,
    free: Vec<u32>,
    capacity: u32,
    len: usize,
}

impl<C: Held> Slots<C> {
    pub(super) fn new(capacity: u32) -> Self {
        Self {
            slots: Vec::with_capacity(capacity as usize),
            free: Vec::with_capacity(capacity as usize),
            capacity,
            len: 0,
        }
    }

    /// Connections in it, with those that are closing.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity as usize
    }

    pub(super) fn is_full(&self) -> bool {
        self.len >= self.capacity()
    }

    /// Puts a connection in; gives it back if the table is full.
    pub(super) fn insert(&mut self, connection: C) -> Result<ConnectionId, C> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => match u32::try_from(self.slots.len()) {
                Ok(slot) if slot < self.capacity => {
                    self.slots.push(Slot {
                        generation: 0,
                        connection: None,
                    });
                    slot
                }
                _ => return Err(connection),
            },
        };
        let Some(place) = self.slots.get_mut(slot as usize) else {
            return Err(connection);
        };
        place.connection = Some(connection);
        self.len += 1;
        Ok(ConnectionId {
            slot,
            generation: place.generation,
        })
    }

    /// The connection of that name, closing or not.
    pub(super) fn any_mut(&mut self, id: ConnectionId) -> Option<&mut C> {
        let slot = self.slots.get_mut(id.slot as usize)?;
        if slot.generation == id.generation {
            slot.connection.as_mut()
        } else {
            None
        }
    }

    /// The connection of that name, if the shard has not closed it.
    pub(super) fn live_mut(&mut self, id: ConnectionId) -> Option<&mut C> {
        self.any_mut(id)
            .filter(|connection| !connection.is_closing())
    }

    /// Takes the connection out; its name is dead from here on.
    pub(super) fn remove(&mut self, id: ConnectionId) -> Option<C> {
        let slot = self.slots.get_mut(id.slot as usize)?;
        if slot.generation != id.generation {
            return None;
        }
        let connection = slot.connection.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(id.slot);
        self.len -= 1;
        Some(connection)
    }

    /// All connections, to be taken down.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = C> {
        self.len = 0;
        self.free.clear();
        self.slots.drain(..).filter_map(|slot| slot.connection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default)]
    struct Thing {
        closing: bool,
    }

    impl Held for Thing {
        fn is_closing(&self) -> bool {
            self.closing
        }
    }

    #[test]
    fn a_name_dies_with_its_connection() {
        let mut slots = Slots::new(1);
        let first = slots.insert(Thing::default()).unwrap();
        assert!(slots.insert(Thing::default()).is_err());
        assert!(slots.is_full());
        assert!(slots.remove(first).is_some());
        assert!(slots.remove(first).is_none());
        let second = slots.insert(Thing::default()).unwrap();
        assert_eq!(first.slot, second.slot);
        assert_ne!(first.generation, second.generation);
        assert!(slots.any_mut(first).is_none());
        assert!(slots.any_mut(second).is_some());
        assert_eq!(slots.len(), 1);
    }

    #[test]
    fn a_closing_connection_is_not_live() {
        let mut slots = Slots::new(2);
        let id = slots.insert(Thing::default()).unwrap();
        slots.any_mut(id).unwrap().closing = true;
        assert!(slots.live_mut(id).is_none());
        assert!(slots.any_mut(id).is_some());
    }
}
