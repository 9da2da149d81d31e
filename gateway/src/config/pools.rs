//! The pools: each alone, and against each other.

use std::fmt::Display;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

use super::reader::Placed;
use super::sections::{Draft, PoolDraft};
use super::{Pool, PoolV4, PoolV6};
use crate::diagnostics::Report;

// 2^20 addresses, or /64s: what the shards' directory holds of one pool.
const POOL_V4_PREFIX_LEN_MIN: u8 = 12;
const POOL_V6_PREFIX_LEN_MIN: u8 = 44;

/// Checks the pools, which the users' addresses are then checked against.
pub(super) fn check(draft: &Draft, report: &mut Report) -> Vec<Pool> {
    if draft.pools.is_empty() {
        report.error(
            None,
            "there is no [[pool]], so no session could get an address; add: [[pool]] with v4 = \"10.99.0.0/16\"",
        );
    }
    let mut seen_v4: Vec<Ipv4Net> = Vec::new();
    let mut seen_v6: Vec<Ipv6Net> = Vec::new();
    let mut pools = Vec::new();
    for pool in &draft.pools {
        if pool.empty {
            report.error(
                pool.place.clone(),
                "this [[pool]] has neither `v4` nor `v6`; add: v4 = \"10.99.0.0/16\"",
            );
        }
        if let Some(net) = &pool.v4 {
            overlap(
                net,
                seen_v4
                    .iter()
                    .find(|seen| seen.contains(&net.value) || net.contains(*seen)),
                report,
            );
            seen_v4.push(net.value);
        }
        if let Some(net) = &pool.v6 {
            overlap(
                net,
                seen_v6
                    .iter()
                    .find(|seen| seen.contains(&net.value) || net.contains(*seen)),
                report,
            );
            seen_v6.push(net.value);
        }
        pools.push(Pool {
            v4: pool_v4(pool, report),
            v6: pool_v6(pool, report),
        });
    }
    pools
}

fn overlap<N: Display>(net: &Placed<N>, other: Option<&N>, report: &mut Report) {
    if let Some(other) = other {
        report.error(
            net.place(),
            format!(
                "the pool {} overlaps the pool {other}; every address must be in one pool only",
                net.value
            ),
        );
    }
}

fn pool_v4(pool: &PoolDraft, report: &mut Report) -> Option<PoolV4> {
    let Some(net) = &pool.v4 else {
        for (key, place) in [
            ("v4_range", pool.v4_range.as_ref().map(Placed::place)),
            ("v4_gateway", pool.v4_gateway.as_ref().map(Placed::place)),
        ] {
            if let (Some(place), true) = (place, pool.v6.is_some()) {
                report.error(
                    place,
                    format!("`pool.{key}` is set, but the pool has no `v4` network"),
                );
            }
        }
        return None;
    };
    let network = net.value;
    if network.trunc() != network {
        report.error(
            net.place(),
            format!(
                "`pool.v4` = \"{network}\" names a host, not a network; did you mean \"{}\"?",
                network.trunc()
            ),
        );
        return None;
    }
    if network.prefix_len() > 30 {
        report.error(
            net.place(),
            format!("`pool.v4` = \"{network}\" has no room for the gateway and a session; it must be /30 or larger"),
        );
        return None;
    }
    if network.prefix_len() < POOL_V4_PREFIX_LEN_MIN {
        report.error(
            net.place(),
            format!("`pool.v4` = \"{network}\" is too large; it may be a /{POOL_V4_PREFIX_LEN_MIN} at most: a million addresses"),
        );
        return None;
    }
    let ip = network.network();
    if ip.is_loopback()
        || ip.is_multicast()
        || ip.is_link_local()
        || ip.octets()[0] == 0
        || ip.octets()[0] >= 240
    {
        report.error(
            net.place(),
            format!("`pool.v4` = \"{network}\" cannot be routed to hosts; take private addresses, for example \"10.99.0.0/16\""),
        );
        return None;
    }
    let (first, last) = hosts(network);
    let gateway = match &pool.v4_gateway {
        None => first,
        Some(gateway) => {
            let what = if !network.contains(&gateway.value) {
                "lies outside of"
            } else if gateway.value == network.network() {
                "is the network's own address of"
            } else if gateway.value == network.broadcast() {
                "is the broadcast address of"
            } else {
                ""
            };
            if !what.is_empty() {
                report.error(
                    gateway.place(),
                    format!("`pool.v4_gateway` = \"{}\" {what} {network}; take one from {first} to {last}", gateway.value),
                );
            }
            gateway.value
        }
    };
    let range = match &pool.v4_range {
        None => (first, last),
        Some(range) => {
            if range.first < first || range.last > last {
                report.error(
                    range.place(),
                    format!(
                        "`pool.v4_range` = \"{}-{}\" leaves the hosts of {network}, which are {first} to {last}",
                        range.first, range.last
                    ),
                );
            } else if range.first == gateway && range.last == gateway {
                report.error(
                    range.place(),
                    format!(
                        "`pool.v4_range` holds nothing but the gateway {gateway}; make it larger"
                    ),
                );
            }
            (range.first, range.last)
        }
    };
    Some(PoolV4 {
        network,
        range,
        gateway,
    })
}

/// First and last host of a network of /30 or larger.
fn hosts(network: Ipv4Net) -> (Ipv4Addr, Ipv4Addr) {
    (
        Ipv4Addr::from_bits(network.network().to_bits().saturating_add(1)),
        Ipv4Addr::from_bits(network.broadcast().to_bits().saturating_sub(1)),
    )
}

fn pool_v6(pool: &PoolDraft, report: &mut Report) -> Option<PoolV6> {
    let Some(net) = &pool.v6 else {
        if let (Some(gateway), true) = (&pool.v6_gateway, pool.v4.is_some()) {
            report.error(
                gateway.place(),
                "`pool.v6_gateway` is set, but the pool has no `v6` network",
            );
        }
        return None;
    };
    let network = net.value;
    if network.trunc() != network {
        report.error(
            net.place(),
            format!(
                "`pool.v6` = \"{network}\" names a host, not a network; did you mean \"{}\"?",
                network.trunc()
            ),
        );
        return None;
    }
    if network.prefix_len() > 63 {
        report.error(
            net.place(),
            format!(
                "`pool.v6` = \"{network}\" has no room: every session gets a /64 and the gateway one; \
                 it must be /63 or larger, /48 is usual"
            ),
        );
        return None;
    }
    if network.prefix_len() < POOL_V6_PREFIX_LEN_MIN {
        report.error(
            net.place(),
            format!("`pool.v6` = \"{network}\" is too large; it may be a /{POOL_V6_PREFIX_LEN_MIN} at most: a million sessions"),
        );
        return None;
    }
    let ip = network.network();
    if ip.is_multicast() || ip.is_unicast_link_local() || ip.segments()[0] == 0 {
        report.error(
            net.place(),
            format!("`pool.v6` = \"{network}\" cannot be routed to hosts; take for example \"fd00:99::/48\""),
        );
        return None;
    }
    let own = Ipv6Net::new(ip, 64).map_or(network, |own| own.trunc());
    let gateway = match &pool.v6_gateway {
        None => Ipv6Addr::from_bits(ip.to_bits() | 1),
        Some(gateway) => {
            if !own.contains(&gateway.value) || gateway.value == ip {
                report.error(
                    gateway.place(),
                    format!(
                        "`pool.v6_gateway` = \"{}\" must be a host of the pool's first /64, {own}, which is ours",
                        gateway.value
                    ),
                );
            }
            gateway.value
        }
    };
    Some(PoolV6 { network, gateway })
}
