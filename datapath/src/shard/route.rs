//! Inside address → shard and slot.
//!
//! Two tables. [`Directory`] is shared by all shards and says which *shard* owns an address; it is
//! sized at start from the pools and written only when a session comes up or ends. [`Local`] is a
//! shard's own and says which *session*; it is the only one a packet on the right queue meets. What
//! brings packets to the right queue is a copy of the directory that the kernel reads
//! ([`Steering`]), kept by [`Directory::steer`].
//!
//! An IPv6 session owns a whole /64, so only the upper half of an IPv6 address is looked at.
//! Pools hold at most [`POOL_LEN_MAX`] addresses (or /64s).

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use crate::io::{ConnectionId, Steering, SteeringFull};

/// Addresses in one pool, at most: 2^20 sessions' worth, 2 MiB of directory.
pub const POOL_LEN_MAX: u64 = 1 << 20;

/// Times that an address may change hands while it is being steered. Were it to do so more often its
/// packets would be handed over, until it changes hands again.
const STEER_MAX: u32 = 16;

/// No shard owns the address.
const NOBODY: u16 = u16::MAX;

/// A contiguous range of addresses: of IPv4 addresses, or of IPv6 /64 prefixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    first: Key,
    len: u64,
}

/// What a session is found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Key {
    V4(u32),
    /// The upper 64 bits.
    V6(u64),
}

impl Key {
    fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::V4(address.to_bits()),
            IpAddr::V6(address) => Self::V6(upper_half(address)),
        }
    }

    fn offset_from(self, first: Self) -> Option<u64> {
        match (self, first) {
            (Self::V4(key), Self::V4(first)) => key.checked_sub(first).map(u64::from),
            (Self::V6(key), Self::V6(first)) => key.checked_sub(first),
            _ => None,
        }
    }
}

const fn upper_half(address: Ipv6Addr) -> u64 {
    (address.to_bits() >> 64) as u64
}

impl Range {
    /// The `len` IPv4 addresses from `first` on; `None` beyond [`POOL_LEN_MAX`].
    #[must_use]
    pub fn v4(first: Ipv4Addr, len: u64) -> Option<Self> {
        (len <= POOL_LEN_MAX).then_some(Self {
            first: Key::V4(first.to_bits()),
            len,
        })
    }

    /// The `len` /64 prefixes from that of `first` on; `None` beyond [`POOL_LEN_MAX`].
    #[must_use]
    pub fn v6(first: Ipv6Addr, len: u64) -> Option<Self> {
        (len <= POOL_LEN_MAX).then_some(Self {
            first: Key::V6(upper_half(first)),
            len,
        })
    }
}

/// Which shard owns which inside address; shared.
#[derive(Debug)]
pub struct Directory {
    pools: Vec<(Range, Box<[AtomicU16]>)>,
    steering: Option<Arc<dyn Steering>>,
}

impl Directory {
    /// A directory of these pools, all addresses unowned.
    #[must_use]
    pub fn new(ranges: &[Range]) -> Self {
        let pools = ranges
            .iter()
            .map(|&range| {
                (
                    range,
                    (0..range.len).map(|_| AtomicU16::new(NOBODY)).collect(),
                )
            })
            .collect();
        Self {
            pools,
            steering: None,
        }
    }

    /// The same, kept up with by `steering`, which gives packets to the queue of their owner.
    #[must_use]
    pub fn steered_by(mut self, steering: Option<Arc<dyn Steering>>) -> Self {
        self.steering = steering;
        self
    }

    /// Whether `address` belongs to one of the pools.
    #[must_use]
    pub fn covers(&self, address: IpAddr) -> bool {
        self.slot(address).is_some()
    }

    /// The shard that owns `address`.
    #[must_use]
    pub fn owner(&self, address: IpAddr) -> Option<u16> {
        let owner = self.slot(address)?.load(Ordering::Relaxed);
        (owner != NOBODY).then_some(owner)
    }

    /// Enters `shard` as the owner; `false` if the address is in no pool.
    pub fn claim(&self, address: IpAddr, shard: u16) -> bool {
        self.slot(address)
            .map(|slot| slot.store(shard, Ordering::Relaxed))
            .is_some()
    }

    /// Removes `shard` as the owner, unless another shard has claimed the address since.
    pub fn release(&self, address: IpAddr, shard: u16) {
        if let Some(slot) = self.slot(address) {
            let _ = slot.compare_exchange(shard, NOBODY, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Makes the steering, if there is one, say of `address` what the directory says. A system call:
    /// for when a session comes up or ends.
    ///
    /// Two shards may do so at once, one that releases an address and one that has claimed it since.
    /// So each looks again after it has written: whoever writes last has seen the last owner.
    ///
    /// # Errors
    /// When the steering has no room for the address.
    pub fn steer(&self, address: IpAddr) -> Result<(), SteeringFull> {
        let Some(steering) = &self.steering else {
            return Ok(());
        };
        let mut owner = self.owner(address);
        for _ in 0..STEER_MAX {
            let written = match owner {
                Some(shard) => steering.steer(address, shard),
                None => {
                    steering.forget(address);
                    Ok(())
                }
            };
            let now = self.owner(address);
            if now == owner {
                return written;
            }
            owner = now;
        }
        Ok(())
    }

    fn slot(&self, address: IpAddr) -> Option<&AtomicU16> {
        let key = Key::of(address);
        self.pools.iter().find_map(|(range, slots)| {
            slots.get(usize::try_from(key.offset_from(range.first)?).ok()?)
        })
    }
}

/// Which session of this shard owns which inside address.
#[derive(Debug, Default)]
pub struct Local {
    /// Without a random key: nothing here draws randomness, and only the owner's addresses are entered.
    sessions: HashMap<Key, ConnectionId, BuildHasherDefault<DefaultHasher>>,
}

impl Local {
    /// A table with room for `capacity` sessions of two families.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self {
            sessions: HashMap::with_capacity_and_hasher(
                capacity.saturating_mul(2),
                BuildHasherDefault::default(),
            ),
        }
    }

    /// Enters the session of `address` and returns the one that was there.
    pub fn insert(&mut self, address: IpAddr, session: ConnectionId) -> Option<ConnectionId> {
        self.sessions.insert(Key::of(address), session)
    }

    /// Removes `address` if it is still `session`'s.
    pub fn remove(&mut self, address: IpAddr, session: ConnectionId) {
        let key = Key::of(address);
        if self.sessions.get(&key) == Some(&session) {
            self.sessions.remove(&key);
        }
    }

    /// The session of `address`.
    #[must_use]
    pub fn find(&self, address: IpAddr) -> Option<ConnectionId> {
        self.sessions.get(&Key::of(address)).copied()
    }

    /// The session of the only address there is.
    #[must_use]
    pub fn only(&self) -> Option<ConnectionId> {
        let mut sessions = self.sessions.values();
        sessions
            .next()
            .copied()
            .filter(|_| sessions.next().is_none())
    }

    /// Addresses entered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether no address is entered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(slot: u32) -> ConnectionId {
        ConnectionId {
            slot,
            generation: 1,
        }
    }

    #[test]
    fn the_directory_knows_its_pools_and_nothing_else() {
        let directory = Directory::new(&[
            Range::v4(Ipv4Addr::new(10, 0, 0, 0), 256).unwrap(),
            Range::v6("fd00:1:2::".parse().unwrap(), 16).unwrap(),
        ]);
        let v4: IpAddr = "10.0.0.255".parse().unwrap();
        assert_eq!(directory.owner(v4), None);
        assert!(directory.claim(v4, 3));
        assert_eq!(directory.owner(v4), Some(3));
        assert!(!directory.claim("10.0.1.0".parse().unwrap(), 3));
        assert!(!directory.claim("9.255.255.255".parse().unwrap(), 3));
        assert!(directory.claim("fd00:1:2:f::9".parse().unwrap(), 1));
        assert_eq!(
            directory.owner("fd00:1:2:f:ffff::".parse().unwrap()),
            Some(1)
        );
        assert!(!directory.claim("fd00:1:2:10::".parse().unwrap(), 1));
    }

    #[test]
    fn a_late_release_does_not_take_the_address_from_its_new_owner() {
        let directory = Directory::new(&[Range::v4(Ipv4Addr::new(10, 0, 0, 0), 2).unwrap()]);
        let address: IpAddr = "10.0.0.1".parse().unwrap();
        directory.claim(address, 0);
        directory.claim(address, 1);
        directory.release(address, 0);
        assert_eq!(directory.owner(address), Some(1));

        let mut local = Local::default();
        local.insert(address, id(1));
        assert_eq!(local.insert(address, id(2)), Some(id(1)));
        local.remove(address, id(1));
        assert_eq!(local.find(address), Some(id(2)));
    }

    /// One address.
    #[derive(Debug)]
    struct OneQueue(AtomicU16);

    impl Steering for OneQueue {
        fn steer(&self, _: IpAddr, queue: u16) -> Result<(), SteeringFull> {
            // As the kernel's lock does: who writes later has seen what was before.
            self.0.swap(queue, Ordering::AcqRel);
            Ok(())
        }

        fn forget(&self, _: IpAddr) {
            self.0.swap(NOBODY, Ordering::AcqRel);
        }
    }

    #[test]
    fn the_steering_says_what_the_directory_says_whoever_wrote_last() {
        let steering = Arc::new(OneQueue(AtomicU16::new(NOBODY)));
        let address: IpAddr = "10.0.0.1".parse().unwrap();
        let range = Range::v4(Ipv4Addr::new(10, 0, 0, 0), 2).unwrap();
        let directory = Directory::new(&[range]).steered_by(Some(steering.clone()));
        for round in 0..200_u16 {
            // One shard lets the address go while another takes it.
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    directory.release(address, round);
                    directory.steer(address).unwrap();
                });
                directory.claim(address, round + 1);
                directory.steer(address).unwrap();
            });
            assert_eq!(directory.owner(address), Some(round + 1));
            assert_eq!(steering.0.load(Ordering::Relaxed), round + 1);
        }
    }

    #[test]
    fn a_steering_without_room_is_told() {
        #[derive(Debug)]
        struct Full;
        impl Steering for Full {
            fn steer(&self, _: IpAddr, _: u16) -> Result<(), SteeringFull> {
                Err(SteeringFull)
            }
            fn forget(&self, _: IpAddr) {}
        }
        let range = Range::v4(Ipv4Addr::new(10, 0, 0, 0), 2).unwrap();
        let directory = Directory::new(&[range]).steered_by(Some(Arc::new(Full)));
        let address: IpAddr = "10.0.0.1".parse().unwrap();
        assert_eq!(directory.steer(address), Ok(()), "nobody's");
        directory.claim(address, 1);
        assert_eq!(directory.steer(address), Err(SteeringFull));
        assert_eq!(directory.owner(address), Some(1), "it is handed over");
    }

    #[test]
    fn a_pool_beyond_the_limit_is_refused() {
        assert!(Range::v4(Ipv4Addr::UNSPECIFIED, POOL_LEN_MAX + 1).is_none());
    }
}
