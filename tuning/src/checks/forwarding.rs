//! Whether the kernel passes packets on between the TUN and the network.

use crate::finding::{Basis, Finding, Point};
use crate::host::{Host, Unread};

const IPV4: &str = "/proc/sys/net/ipv4/ip_forward";
const IPV6: &str = "/proc/sys/net/ipv6/conf/all/forwarding";
const RP_FILTER_ALL: &str = "/proc/sys/net/ipv4/conf/all/rp_filter";
const RP_FILTER_DEFAULT: &str = "/proc/sys/net/ipv4/conf/default/rp_filter";

const FORWARD4: Point = Point {
    name: "forwarding.ipv4",
    should_be: "1",
    worth: "with 0 clients connect and reach the gateway's own addresses, but nothing behind it",
    basis: Basis::Documented,
    source: "Documentation/networking/ip-sysctl.rst",
};

const FORWARD6: Point = Point {
    name: "forwarding.ipv6",
    should_be: "1 where clients get IPv6",
    worth: "with 0 IPv6 inside the tunnel ends at the gateway; with 1 the host stops accepting router \
            advertisements itself unless accept_ra is 2",
    basis: Basis::Documented,
    source: "Documentation/networking/ip-sysctl.rst",
};

const REVERSE_PATH: Point = Point {
    name: "forwarding.rp_filter",
    should_be: "1 (2 where routes are asymmetric)",
    worth: "with 0 a neighbour on the outside network can send packets that claim a client's inside address",
    basis: Basis::Documented,
    source: "Documentation/networking/ip-sysctl.rst; RFC 3704",
};

/// IPv4 from interface to interface.
pub(crate) fn ipv4(host: &Host) -> Finding {
    match host.number(IPV4) {
        Ok(0) => FORWARD4
            .problem("0")
            .by_sysctl("net.ipv4.ip_forward", "1", "0"),
        Ok(value) => FORWARD4.ok(value.to_string()),
        Err(why) => FORWARD4.unread(IPV4, why),
    }
}

/// IPv6 from interface to interface.
pub(crate) fn ipv6(host: &Host) -> Finding {
    match host.number(IPV6) {
        Ok(0) => FORWARD6
            .advice("0")
            .by_sysctl("net.ipv6.conf.all.forwarding", "1", "0"),
        Ok(value) => FORWARD6.ok(value.to_string()),
        Err(Unread::Absent) => FORWARD6.note("this kernel has no IPv6, or it is switched off"),
        Err(why) => FORWARD6.unread(IPV6, why),
    }
}

/// Source validation by the way back. An interface made later, as the TUN is, takes `default`; the
/// larger of it and `all` holds (ip-sysctl, rp_filter).
pub(crate) fn reverse_path(host: &Host) -> Finding {
    let all = match host.number(RP_FILTER_ALL) {
        Ok(all) => all,
        Err(why) => return REVERSE_PATH.unread(RP_FILTER_ALL, why),
    };
    let default = host.number(RP_FILTER_DEFAULT).unwrap_or(0);
    match all.max(default) {
        0 => REVERSE_PATH
            .advice("0: off for new interfaces")
            .by_sysctls(&[
                ("net.ipv4.conf.all.rp_filter", "1", "0"),
                ("net.ipv4.conf.default.rp_filter", "1", "0"),
            ]),
        1 => REVERSE_PATH.ok("1: strict"),
        2 => REVERSE_PATH.ok("2: loose"),
        _ => REVERSE_PATH.unread(RP_FILTER_ALL, Unread::Garbage),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::State;

    #[test]
    fn ipv6_that_is_off_is_no_fault() {
        assert_eq!(ipv6(&Host::of(&[])).state, State::Note);
        assert_eq!(ipv6(&Host::of(&[(IPV6, "0")])).state, State::Advice);
        assert_eq!(ipv4(&Host::of(&[(IPV4, "0")])).state, State::Problem);
        assert_eq!(ipv4(&Host::of(&[])).state, State::Unknown);
    }

    #[test]
    fn the_larger_reverse_path_value_holds() {
        let of = |all, default| {
            reverse_path(&Host::of(&[
                (RP_FILTER_ALL, all),
                (RP_FILTER_DEFAULT, default),
            ]))
            .found
        };
        assert_eq!(of("0", "2"), "2: loose");
        assert_eq!(of("1", "0"), "1: strict");
        assert_eq!(of("0", "0"), "0: off for new interfaces");
    }
}
