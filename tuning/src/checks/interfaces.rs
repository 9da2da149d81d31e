//! Which interfaces carry the tunnels: cards, and the one that the default route leads to.

use crate::host::{Host, Unread};

const NET: &str = "/sys/class/net";
const ROUTES4: &str = "/proc/net/route";
const ROUTES6: &str = "/proc/net/ipv6_route";

/// Interfaces that are looked at, at most.
const INTERFACES_MAX: usize = 16;

/// Interfaces with a device behind them (cards, real or virtual); without any, as in a container,
/// the one that the default route leads to.
pub(crate) fn cards(host: &Host) -> Vec<String> {
    let mut cards: Vec<String> = host
        .names(NET)
        .into_iter()
        .filter(|name| host.exists(&format!("{NET}/{name}/device")))
        .take(INTERFACES_MAX)
        .collect();
    if cards.is_empty() {
        cards.extend(outside(host).ok().flatten());
    }
    cards
}

/// The interface of the default route; `None` if there is none.
pub(crate) fn outside(host: &Host) -> Result<Option<String>, (&'static str, Unread)> {
    let v4 = host.text(ROUTES4);
    let v6 = host.text(ROUTES6);
    let by_v4 = v4.as_deref().unwrap_or_default().lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        (fields.get(1) == Some(&"00000000") && fields.get(7) == Some(&"00000000"))
            .then(|| fields.first().map(|&name| name.to_owned()))?
    });
    let by_v6 = || {
        v6.as_deref().unwrap_or_default().lines().find_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let name = *fields.get(9)?;
            (fields.get(1) == Some(&"00") && name != "lo").then(|| name.to_owned())
        })
    };
    match (by_v4.or_else(by_v6), v4) {
        (Some(name), _) => Ok(Some(name)),
        (None, Err(why)) => Err((ROUTES4, why)),
        (None, Ok(_)) => Ok(None),
    }
}

/// The path of a file of an interface.
pub(crate) fn path(interface: &str, file: &str) -> String {
    format!("{NET}/{interface}/{file}")
}

/// How many queues of a kind (`rx-` or `tx-`) an interface has.
pub(crate) fn queues(host: &Host, interface: &str, kind: &str) -> usize {
    host.names(&path(interface, "queues"))
        .iter()
        .filter(|name| name.starts_with(kind))
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_route_names_the_outside() {
        let of = |v4, v6| outside(&Host::of(&[(ROUTES4, v4), (ROUTES6, v6)]));
        let heading = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n";
        let v4 = format!(
            "{heading}eth1 000200C0 00000000 0001 0 0 0 00FFFFFF 0 0 0\n\
                          eth0 00000000 010200C0 0003 0 0 0 00000000 0 0 0\n"
        );
        assert_eq!(of(&v4, ""), Ok(Some("eth0".to_owned())));
        let zeros = "00000000000000000000000000000000";
        let v6 = format!("{zeros} 00 {zeros} 00 {zeros} 00000400 00000001 00000000 00000003 eth2");
        assert_eq!(of(heading, &v6), Ok(Some("eth2".to_owned())));
        assert_eq!(of("garbage", "garbage"), Ok(None));
        assert!(outside(&Host::of(&[])).is_err());
    }
}
