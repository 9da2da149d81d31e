//! The addresses of sessions: who has which, and which are free.
//!
//! Every pool is a row of numbered places. A free place is taken in order the first time, and after
//! that in the order in which places were given back: the queue of places given back is the
//! quarantine, in which an address rests as long as the pool's size allows before somebody else
//! gets it. Users' own addresses are never given to others.

use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::Ipv6Net;

use crate::config::{Pool, PoolV4, PoolV6};
use crate::users::User;

/// Most places of one pool: as many as the shards' directory of addresses holds.
const PLACES_MAX: u32 = 1 << 20;
const _: () = assert!(PLACES_MAX as u64 == datapath::shard::route::POOL_LEN_MAX);

/// Places 0 to `count` − 1, each free, taken or somebody's own.
#[derive(Debug)]
struct Places {
    /// A bit a place: set if it may not be given out.
    used: Vec<u64>,
    count: u32,
    /// The first place that was never given out.
    fresh: u32,
    /// Given back, the longest rested in front.
    resting: VecDeque<u32>,
}

impl Places {
    fn new(count: u32) -> Self {
        Self {
            used: vec![0; usize::try_from(count.div_ceil(64)).unwrap_or_default()],
            count,
            fresh: 0,
            resting: VecDeque::new(),
        }
    }

    fn word(&mut self, place: u32) -> Option<(&mut u64, u64)> {
        if place >= self.count {
            return None;
        }
        let word = self.used.get_mut(usize::try_from(place / 64).ok()?)?;
        Some((word, 1 << (place % 64)))
    }

    fn is_used(&mut self, place: u32) -> bool {
        self.word(place).is_none_or(|(word, bit)| *word & bit != 0)
    }

    /// Takes `place` out of the row for good; outside of it, nothing happens.
    fn reserve(&mut self, place: u32) {
        if let Some((word, bit)) = self.word(place) {
            *word |= bit;
        }
    }

    fn take(&mut self) -> Option<u32> {
        while self.fresh < self.count {
            let place = self.fresh;
            self.fresh += 1;
            if !self.is_used(place) {
                self.reserve(place);
                return Some(place);
            }
        }
        let place = self.resting.pop_front()?;
        self.reserve(place);
        Some(place)
    }

    fn give_back(&mut self, place: u32) {
        if let Some((word, bit)) = self.word(place)
            && *word & bit != 0
        {
            *word &= !bit;
            self.resting.push_back(place);
        }
    }
}

#[derive(Debug)]
struct V4 {
    pool: PoolV4,
    places: Places,
}

impl V4 {
    fn new(pool: PoolV4) -> Self {
        let (first, last) = pool.range;
        let count = last
            .to_bits()
            .saturating_sub(first.to_bits())
            .saturating_add(1);
        let mut new = Self {
            pool,
            places: Places::new(count.min(PLACES_MAX)),
        };
        new.reserve(pool.gateway);
        new
    }

    fn place(&self, address: Ipv4Addr) -> Option<u32> {
        address.to_bits().checked_sub(self.pool.range.0.to_bits())
    }

    fn reserve(&mut self, address: Ipv4Addr) {
        if let Some(place) = self.place(address) {
            self.places.reserve(place);
        }
    }

    fn take(&mut self) -> Option<LeaseV4> {
        let place = self.places.take()?;
        Some(LeaseV4 {
            client: Ipv4Addr::from_bits(self.pool.range.0.to_bits().checked_add(place)?),
            gateway: self.pool.gateway,
            own: false,
        })
    }
}

#[derive(Debug)]
struct V6 {
    pool: PoolV6,
    places: Places,
}

impl V6 {
    fn new(pool: PoolV6) -> Self {
        let bits = u32::from(64_u8.saturating_sub(pool.network.prefix_len()));
        let mut places = Places::new(
            1_u32
                .checked_shl(bits)
                .unwrap_or(PLACES_MAX)
                .min(PLACES_MAX),
        );
        // The first /64 is the gateway's.
        places.reserve(0);
        Self { pool, places }
    }

    fn place(&self, prefix: Ipv6Addr) -> Option<u32> {
        let distance = prefix
            .to_bits()
            .checked_sub(self.pool.network.network().to_bits())?
            >> 64;
        u32::try_from(distance).ok()
    }

    fn reserve(&mut self, prefix: Ipv6Addr) {
        if let Some(place) = self.place(prefix) {
            self.places.reserve(place);
        }
    }

    fn take(&mut self) -> Option<LeaseV6> {
        let place = self.places.take()?;
        let bits = self.pool.network.network().to_bits() | u128::from(place) << 64;
        Some(LeaseV6 {
            prefix: Ipv6Addr::from_bits(bits),
            gateway: self.pool.gateway,
            own: false,
        })
    }
}

/// An IPv4 address that belongs to one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LeaseV4 {
    pub(crate) client: Ipv4Addr,
    /// Ours, its peer.
    pub(crate) gateway: Ipv4Addr,
    /// The user's own, not from the range.
    own: bool,
}

/// A /64 that belongs to one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LeaseV6 {
    pub(crate) prefix: Ipv6Addr,
    /// Ours, beyond the link.
    pub(crate) gateway: Ipv6Addr,
    /// The user's own, not from the pool's row.
    own: bool,
}

/// What one session was given; [`Addresses::release`] takes it back.
#[must_use = "a lease that is not released is lost to the pool"]
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) v4: Option<LeaseV4>,
    pub(crate) v6: Option<LeaseV6>,
}

/// Why there is no lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoLease {
    #[error("every address of the pools is taken")]
    Exhausted,
    #[error("the user's own address {0} is held by another session")]
    OwnV4Taken(Ipv4Addr),
    #[error("the user's own prefix {0} is held by another session")]
    OwnV6Taken(Ipv6Net),
}

/// Every pool, and the addresses that are users' own.
#[derive(Debug)]
pub(crate) struct Addresses {
    v4: Vec<V4>,
    v6: Vec<V6>,
    own_v4: HashMap<Ipv4Addr, bool>,
    own_v6: HashMap<Ipv6Addr, bool>,
}

impl Addresses {
    /// Everything free.
    pub(crate) fn new<'a>(pools: &[Pool], users: impl Iterator<Item = &'a User>) -> Self {
        let mut v4: Vec<_> = pools
            .iter()
            .filter_map(|pool| pool.v4)
            .map(V4::new)
            .collect();
        let mut v6: Vec<_> = pools
            .iter()
            .filter_map(|pool| pool.v6)
            .map(V6::new)
            .collect();
        let (mut own_v4, mut own_v6) = (HashMap::new(), HashMap::new());
        for user in users {
            if let Some(address) = user.v4 {
                v4.iter_mut().for_each(|pool| pool.reserve(address));
                own_v4.insert(address, false);
            }
            if let Some(prefix) = user.v6 {
                v6.iter_mut()
                    .for_each(|pool| pool.reserve(prefix.network()));
                own_v6.insert(prefix.network(), false);
            }
        }
        Self {
            v4,
            v6,
            own_v4,
            own_v6,
        }
    }

    /// Gives `user` what the pools have: an address of each family that there is a pool of.
    pub(crate) fn take(&mut self, user: &User) -> Result<Lease, NoLease> {
        let v4 = match user.v4 {
            Some(address) => Some(self.take_own_v4(address)?),
            None => self.v4.iter_mut().find_map(V4::take),
        };
        let v6 = match user.v6 {
            Some(prefix) => self.take_own_v6(prefix).map(Some),
            None => Ok(self.v6.iter_mut().find_map(V6::take)),
        };
        let lease = Lease {
            v4,
            v6: v6.as_ref().copied().unwrap_or_default(),
        };
        let exhausted = (lease.v4.is_none() && !self.v4.is_empty())
            || (lease.v6.is_none() && !self.v6.is_empty());
        let refusal = match v6 {
            Err(refusal) => refusal,
            Ok(_) if exhausted => NoLease::Exhausted,
            Ok(_) => return Ok(lease),
        };
        // One family alone would be a session that half works.
        self.release(lease);
        Err(refusal)
    }

    fn take_own_v4(&mut self, client: Ipv4Addr) -> Result<LeaseV4, NoLease> {
        let taken = self.own_v4.entry(client).or_default();
        if std::mem::replace(taken, true) {
            return Err(NoLease::OwnV4Taken(client));
        }
        let gateway = self
            .v4
            .iter()
            .find(|v4| v4.pool.network.contains(&client))
            .map_or(Ipv4Addr::UNSPECIFIED, |v4| v4.pool.gateway);
        Ok(LeaseV4 {
            client,
            gateway,
            own: true,
        })
    }

    fn take_own_v6(&mut self, net: Ipv6Net) -> Result<LeaseV6, NoLease> {
        let taken = self.own_v6.entry(net.network()).or_default();
        if std::mem::replace(taken, true) {
            return Err(NoLease::OwnV6Taken(net));
        }
        let gateway = self
            .v6
            .iter()
            .find(|v6| v6.pool.network.contains(&net))
            .map_or(Ipv6Addr::UNSPECIFIED, |v6| v6.pool.gateway);
        Ok(LeaseV6 {
            prefix: net.network(),
            gateway,
            own: true,
        })
    }

    /// Takes back what a session had.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "who has released a lease has it no more"
    )]
    pub(crate) fn release(&mut self, lease: Lease) {
        if let Some(LeaseV4 { client, own, .. }) = lease.v4 {
            if own {
                self.own_v4.insert(client, false);
            } else if let Some(v4) = self
                .v4
                .iter_mut()
                .find(|v4| v4.pool.network.contains(&client))
                && let Some(place) = v4.place(client)
            {
                v4.places.give_back(place);
            }
        }
        if let Some(LeaseV6 { prefix, own, .. }) = lease.v6 {
            if own {
                self.own_v6.insert(prefix, false);
            } else if let Some(v6) = self
                .v6
                .iter_mut()
                .find(|v6| v6.pool.network.contains(&prefix))
                && let Some(place) = v6.place(prefix)
            {
                v6.places.give_back(place);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::users::Secret;

    fn user(v4: Option<&str>, v6: Option<&str>) -> User {
        User {
            name: "user".to_owned(),
            secret: Secret::nt_hash("pw"),
            v4: v4.map(|v4| v4.parse().unwrap()),
            v6: v6.map(|v6| v6.parse().unwrap()),
            disabled: false,
        }
    }

    fn pools() -> Vec<Pool> {
        let v4 = |network: &str, first: &str, last: &str, gateway: &str| PoolV4 {
            network: network.parse().unwrap(),
            range: (first.parse().unwrap(), last.parse().unwrap()),
            gateway: gateway.parse().unwrap(),
        };
        vec![
            Pool {
                v4: Some(v4("10.9.0.0/24", "10.9.0.1", "10.9.0.20", "10.9.0.5")),
                v6: Some(PoolV6 {
                    network: "fd00:9::/58".parse().unwrap(),
                    gateway: "fd00:9::1".parse().unwrap(),
                }),
            },
            Pool {
                v4: Some(v4("10.8.0.0/30", "10.8.0.1", "10.8.0.2", "10.8.0.1")),
                v6: None,
            },
        ]
    }

    #[test]
    fn a_users_own_address_is_never_given_to_others() {
        let own = user(Some("10.9.0.7"), Some("fd00:9:0:3::/64"));
        let mut addresses = Addresses::new(&pools(), std::iter::once(&own));
        let anybody = user(None, None);
        let leases: Vec<_> = std::iter::from_fn(|| addresses.take(&anybody).ok()).collect();
        // 20 of the range less gateway and own, and one of the second pool.
        assert_eq!(leases.len(), 19);
        assert!(
            leases
                .iter()
                .all(|lease| lease.v4.unwrap().client != own.v4.unwrap())
        );
        assert!(
            leases
                .iter()
                .all(|lease| lease.v6.unwrap().prefix != own.v6.unwrap().network())
        );
        let lease = addresses.take(&own).unwrap();
        assert_eq!(lease.v4.unwrap().client, own.v4.unwrap());
        assert_eq!(
            lease.v4.unwrap().gateway,
            "10.9.0.5".parse::<Ipv4Addr>().unwrap()
        );
        assert_eq!(
            addresses.take(&own),
            Err(NoLease::OwnV4Taken(own.v4.unwrap()))
        );
        addresses.release(lease);
        let again = addresses.take(&own).unwrap();
        addresses.release(again);
    }

    #[test]
    fn an_exhausted_pool_says_so_and_loses_nothing() {
        let mut addresses = Addresses::new(&pools(), std::iter::empty());
        let anybody = user(None, None);
        let mut leases: Vec<_> = std::iter::from_fn(|| addresses.take(&anybody).ok()).collect();
        for _ in 0..100 {
            assert_eq!(addresses.take(&anybody), Err(NoLease::Exhausted));
        }
        let v4 = leases[3].v4;
        addresses.release(leases.swap_remove(3));
        let lease = addresses.take(&anybody).unwrap();
        assert_eq!(lease.v4, v4);
        assert!(lease.v6.is_some());
        addresses.release(lease);
    }

    #[test]
    fn what_was_given_back_rests_as_long_as_possible() {
        let mut addresses = Addresses::new(&pools()[..1], std::iter::empty());
        let anybody = user(None, None);
        let mut seen = Vec::new();
        for _ in 0..38 {
            let lease = addresses.take(&anybody).unwrap();
            seen.push(lease.v4.unwrap().client);
            addresses.release(lease);
        }
        assert_eq!(seen[..19], seen[19..]);
        assert_eq!(seen[..19].iter().collect::<HashSet<_>>().len(), 19);
    }

    #[test]
    fn a_large_pool_is_no_large_cost() {
        let pool = Pool {
            v4: Some(PoolV4 {
                network: "10.0.0.0/12".parse().unwrap(),
                range: (
                    "10.0.0.1".parse().unwrap(),
                    "10.15.255.254".parse().unwrap(),
                ),
                gateway: "10.0.0.1".parse().unwrap(),
            }),
            v6: Some(PoolV6 {
                network: "fd00::/44".parse().unwrap(),
                gateway: "fd00::1".parse().unwrap(),
            }),
        };
        let mut addresses = Addresses::new(&[pool], std::iter::empty());
        let lease = addresses.take(&user(None, None)).unwrap();
        assert_eq!(
            lease.v4.unwrap().client,
            "10.0.0.2".parse::<Ipv4Addr>().unwrap()
        );
        assert_eq!(
            lease.v6.unwrap().prefix,
            "fd00:0:0:1::".parse::<Ipv6Addr>().unwrap()
        );
        addresses.release(lease);
    }

    proptest! {
        /// Never the same address twice at a time, never the gateway's, always one of the pool.
        #[test]
        fn no_address_is_given_twice(
            steps in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 1..400),
        ) {
            let pools = pools();
            let own = user(Some("10.9.0.7"), Some("fd00:9:0:3::/64"));
            let mut addresses = Addresses::new(&pools, std::iter::once(&own));
            let anybody = user(None, None);
            let mut held: Vec<Lease> = Vec::new();
            for (take, index) in steps {
                if take {
                    let who = if index.index(8) == 0 { &own } else { &anybody };
                    if let Ok(lease) = addresses.take(who) {
                        held.push(lease);
                    }
                } else if !held.is_empty() {
                    addresses.release(held.swap_remove(index.index(held.len())));
                }
                let v4: HashSet<_> = held.iter().filter_map(|lease| lease.v4).map(|v4| v4.client).collect();
                let v6: HashSet<_> = held.iter().filter_map(|lease| lease.v6).map(|v6| v6.prefix).collect();
                prop_assert_eq!(v4.len(), held.len());
                prop_assert_eq!(v6.len(), held.len());
                for lease in &held {
                    let (v4, v6) = (lease.v4.unwrap(), lease.v6.unwrap());
                    prop_assert_ne!(v4.client, v4.gateway);
                    prop_assert!(pools.iter().any(|pool| pool.v4.unwrap().network.contains(&v4.client)));
                    prop_assert!(pools[0].v6.unwrap().network.contains(&v6.prefix));
                    prop_assert_ne!(v6.prefix, "fd00:9::".parse::<Ipv6Addr>().unwrap());
                }
            }
        }
    }
}
