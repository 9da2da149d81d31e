//! The host: the TUN device with its addresses and routes, and what of the host stands in the way.
//!
//! Nothing of the host is changed silently. The device, its addresses and its routes are ours and go
//! with the process; all else is only looked at, and named in one line with its cure.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;

use datapath::ip::offload::merge::Offloads;
use datapath::sys::ethtool::has_tso;
use datapath::sys::tun::{self, TunConfig, TunError};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rtnetlink::RouteMessageBuilder;

use crate::config::Config;

/// Interfaces that are looked at for what they can do, at most.
const INTERFACES_MAX: usize = 16;

/// Why the inside does not stand.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HostError {
    #[error("{0}")]
    Tun(#[from] TunError),
    #[error(
        "the pool {pool} overlaps {route}, which this host reaches through {device}; choose another pool"
    )]
    Overlap {
        pool: IpNet,
        route: IpNet,
        device: String,
    },
    #[error("cannot speak to the kernel (netlink): {0}")]
    Netlink(std::io::Error),
    #[error("cannot give {device} the address {address}: {error}")]
    Address {
        device: String,
        address: IpAddr,
        error: rtnetlink::Error,
    },
    #[error("cannot route {pool} to {device}: {error}")]
    Route {
        device: String,
        pool: IpNet,
        error: rtnetlink::Error,
    },
}

impl HostError {
    /// Whether it is only a right that is missing.
    pub(crate) const fn is_missing_right(&self) -> bool {
        matches!(self, Self::Tun(TunError::NotPermitted | TunError::NoNode))
    }
}

/// The device, as long as its queues are open.
#[derive(Debug)]
pub(crate) struct Tun {
    pub(crate) queues: Vec<OwnedFd>,
    /// Which superpackets it takes; `Some`: packets have a virtio-net header.
    pub(crate) offloads: Option<Offloads>,
    /// What was made, for people.
    pub(crate) made: Vec<String>,
    /// The interface's index.
    pub(crate) index: u32,
}

/// Makes the device with a queue a shard, and gives it the pools.
pub(crate) async fn open_tun(config: &Config, queues: usize) -> Result<Tun, HostError> {
    let name = &config.network.tun;
    let routes = routes_of_host();
    for pool in pools(config) {
        overlap(pool, name, &routes)?;
    }
    let device = tun::create(&TunConfig {
        name: Some(name.clone()),
        mtu: config.network.mtu,
        queues,
        offload: config.network.offload,
        ..TunConfig::default()
    })?;
    let offloads = device.offload.then_some(Offloads {
        tcp: true,
        udp: device.udp_offload,
    });
    if let Some(lack) = lack(config.network.offload, offloads) {
        tracing::warn!("{lack}");
    }
    let mut made = vec![format!(
        "device {} with {queues} queue{}, MTU {}",
        device.name,
        if queues == 1 { "" } else { "s" },
        config.network.mtu
    )];
    let (connection, netlink, _) = rtnetlink::new_connection().map_err(HostError::Netlink)?;
    let connection = tokio::spawn(connection);
    let given = Given::First;
    let result = configure(config, &device.name, device.index, &netlink, given).await;
    connection.abort();
    made.extend(result?);
    Ok(Tun {
        queues: device.queues,
        offloads,
        made,
        index: device.index,
    })
}

/// What the TUN was asked for and the kernel does not have; the gateway works without.
fn lack(wanted: bool, offloads: Option<Offloads>) -> Option<&'static str> {
    match offloads {
        _ if !wanted => None,
        None => Some(
            "the kernel refuses superpackets at the TUN (TUNSETOFFLOAD: EINVAL): packets cross it one by one, \
             at thirteen times the cost of bulk; cure: Linux 6.1 or newer without a filter on that call, \
             or network.offload = false",
        ),
        Some(Offloads { udp: false, .. }) => Some(
            "the kernel has no UDP superpackets at the TUN (USO): UDP crosses it packet by packet; \
             cure: Linux 6.2 or newer",
        ),
        Some(Offloads { udp: true, .. }) => None,
    }
}

/// Gives the device its addresses and routes again, those that it has lost.
pub(crate) async fn restore(config: &Config, device: &str, index: u32) -> Result<(), HostError> {
    let (connection, netlink, _) = rtnetlink::new_connection().map_err(HostError::Netlink)?;
    let connection = tokio::spawn(connection);
    let result = configure(config, device, index, &netlink, Given::Again).await;
    connection.abort();
    result.map(drop)
}

/// Whether a device has what it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Given {
    /// It has not; if it has, something is amiss.
    First,
    /// It may have it still.
    Again,
}

async fn configure(
    config: &Config,
    device: &str,
    index: u32,
    netlink: &rtnetlink::Handle,
    given: Given,
) -> Result<Vec<String>, HostError> {
    let mut made = Vec::new();
    let gateways = config.pools.iter().flat_map(|pool| {
        let v4 = pool.v4.map(|v4| (IpAddr::V4(v4.gateway), 32));
        let v6 = pool.v6.map(|v6| (IpAddr::V6(v6.gateway), 128));
        v4.into_iter().chain(v6)
    });
    for (address, prefix_len) in gateways {
        let mut add = netlink.address().add(index, address, prefix_len);
        if given == Given::Again {
            add = add.replace();
        }
        add.execute().await.map_err(|error| HostError::Address {
            device: device.to_owned(),
            address,
            error,
        })?;
        made.push(format!("address {address}/{prefix_len} on {device}"));
    }
    for pool in pools(config) {
        let route = match pool {
            IpNet::V4(net) => RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(net.network(), net.prefix_len())
                .output_interface(index)
                .build(),
            IpNet::V6(net) => RouteMessageBuilder::<Ipv6Addr>::new()
                .destination_prefix(net.network(), net.prefix_len())
                .output_interface(index)
                .build(),
        };
        let mut add = netlink.route().add(route);
        if given == Given::Again {
            add = add.replace();
        }
        add.execute().await.map_err(|error| HostError::Route {
            device: device.to_owned(),
            pool,
            error,
        })?;
        made.push(format!("route {pool} to {device}"));
    }
    Ok(made)
}

/// The networks of the pools.
fn pools(config: &Config) -> impl Iterator<Item = IpNet> {
    config.pools.iter().flat_map(|pool| {
        let v4 = pool.v4.map(|v4| IpNet::V4(v4.network));
        let v6 = pool.v6.map(|v6| IpNet::V6(v6.network));
        v4.into_iter().chain(v6)
    })
}

/// A route that this host has, and the device it leads to.
pub(crate) type HostRoute = (IpNet, String);

fn overlap(pool: IpNet, tun: &str, routes: &[HostRoute]) -> Result<(), HostError> {
    let overlaps = |route: &IpNet| pool.contains(route) || route.contains(&pool);
    match routes
        .iter()
        .find(|(route, device)| device != tun && overlaps(route))
    {
        Some((route, device)) => Err(HostError::Overlap {
            pool,
            route: *route,
            device: device.clone(),
        }),
        None => Ok(()),
    }
}

/// Every route of this host but the default ones; none where `/proc` cannot be read.
pub(crate) fn routes_of_host() -> Vec<HostRoute> {
    let v4 = fs::read_to_string("/proc/net/route").unwrap_or_default();
    let v6 = fs::read_to_string("/proc/net/ipv6_route").unwrap_or_default();
    let mut routes: Vec<_> = v4.lines().filter_map(parse_v4_route).collect();
    routes.extend(v6.lines().filter_map(parse_v6_route));
    routes
}

/// `Iface Destination Gateway Flags RefCnt Use Metric Mask …`, addresses as the host's u32 in hex.
fn parse_v4_route(line: &str) -> Option<HostRoute> {
    let fields: Vec<_> = line.split_whitespace().collect();
    let address = |index: usize| {
        let field = fields.get(index)?;
        Some(Ipv4Addr::from(
            u32::from_str_radix(field, 16).ok()?.to_ne_bytes(),
        ))
    };
    let net = Ipv4Net::with_netmask(address(1)?, address(7)?).ok()?;
    (net.prefix_len() > 0).then(|| (IpNet::V4(net), fields[0].to_owned()))
}

/// `destination prefix_len source … device`, hex.
fn parse_v6_route(line: &str) -> Option<HostRoute> {
    let fields: Vec<_> = line.split_whitespace().collect();
    let address = u128::from_str_radix(fields.first()?, 16).ok()?;
    let prefix_len = u8::from_str_radix(fields.get(1)?, 16).ok()?;
    let device = *fields.get(9)?;
    let net = Ipv6Net::new(Ipv6Addr::from_bits(address), prefix_len).ok()?;
    // Loopback's own, link-local and multicast routes stand in nobody's way.
    let ours = net.addr().is_unicast_link_local() || net.addr().is_multicast() || device == "lo";
    (prefix_len > 0 && !ours).then(|| (IpNet::V6(net), device.to_owned()))
}

/// Whether there is an interface of this name.
pub(crate) fn interface_exists(name: &str) -> bool {
    let text = fs::read_to_string("/proc/net/dev").unwrap_or_default();
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .any(|(interface, _)| interface.trim() == name)
}

/// Interfaces that packets of clients may leave through, and that do not cut TCP superpackets; of
/// [`INTERFACES_MAX`] at most. Those that do not say are left out.
pub(crate) fn interfaces_without_tso(tun: &str) -> Vec<String> {
    let v4 = fs::read_to_string("/proc/net/route").unwrap_or_default();
    let v6 = fs::read_to_string("/proc/net/ipv6_route").unwrap_or_default();
    let v4 = v4
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().next());
    let v6 = v6.lines().filter_map(|line| line.split_whitespace().nth(9));
    let mut names: Vec<_> = v4
        .chain(v6)
        .filter(|&name| name != tun && name != "lo")
        .map(str::to_owned)
        .collect();
    names.sort();
    names.dedup();
    names.truncate(INTERFACES_MAX);
    names.retain(|name| has_tso(name).is_ok_and(|has| !has));
    names
}

/// What of this host would keep packets from passing, each with its cure. Nothing is changed.
pub(crate) fn obstacles(config: &Config) -> Vec<String> {
    let read = |path: &str| Some(fs::read_to_string(path).ok()?.trim().to_owned());
    let mut obstacles = Vec::new();
    let has_v4 = config.pools.iter().any(|pool| pool.v4.is_some());
    let has_v6 = config.pools.iter().any(|pool| pool.v6.is_some());
    if has_v4 && read("/proc/sys/net/ipv4/ip_forward").as_deref() == Some("0") {
        obstacles.push(
            "IPv4 forwarding is off: clients reach this host only; cure: sysctl -w net.ipv4.ip_forward=1"
                .to_owned(),
        );
    }
    if has_v6 && read("/proc/sys/net/ipv6/conf/all/forwarding").as_deref() == Some("0") {
        obstacles.push(
            "IPv6 forwarding is off: clients reach this host only; cure: sysctl -w net.ipv6.conf.all.forwarding=1"
                .to_owned(),
        );
    }
    let tun = &config.network.tun;
    let strict = |name: &str| {
        read(&format!("/proc/sys/net/ipv4/conf/{name}/rp_filter")).as_deref() == Some("1")
    };
    if has_v4 && (strict("all") || strict(tun)) {
        obstacles.push(format!(
            "rp_filter is strict on {tun}: packets of clients are dropped whose way back leads elsewhere, \
             which routes of your own may cause; cure: sysctl -w net.ipv4.conf.{tun}.rp_filter=2"
        ));
    }
    obstacles
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_read_as_the_kernel_writes_them() {
        let line = "eth0\t0010A8C0\t00000000\t0001\t0\t0\t0\t00F0FFFF\t0\t0\t0";
        let (net, device) = parse_v4_route(line).unwrap();
        assert_eq!(
            (net.to_string().as_str(), device.as_str()),
            ("192.168.16.0/20", "eth0")
        );
        // The default route, and the heading.
        assert!(
            parse_v4_route("eth0\t00000000\t0110A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0").is_none()
        );
        assert!(parse_v4_route("Iface\tDestination\tGateway").is_none());

        let line = "20010db8000000000000000000000000 20 00000000000000000000000000000000 00 \
                    00000000000000000000000000000000 00000100 00000001 00000000 00000001 eth0";
        let (net, device) = parse_v6_route(line).unwrap();
        assert_eq!(
            (net.to_string().as_str(), device.as_str()),
            ("2001:db8::/32", "eth0")
        );
    }

    #[test]
    fn a_pool_that_this_host_routes_elsewhere_is_refused() {
        let routes = [("10.0.0.0/8".parse().unwrap(), "eth0".to_owned())];
        let error = overlap("10.99.0.0/16".parse().unwrap(), "sstp0", &routes).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("through eth0; choose another pool"),
            "{error}"
        );
        assert!(overlap("10.99.0.0/16".parse().unwrap(), "eth0", &routes).is_ok());
        assert!(overlap("192.168.0.0/16".parse().unwrap(), "sstp0", &routes).is_ok());
    }
}
