//! The way to the clients: MTU, the port, and where it is taken.

use super::interfaces;
use crate::finding::{Basis, Finding, Point, State};
use crate::host::{Host, Unread};

const PROBING: &str = "/proc/sys/net/ipv4/tcp_mtu_probing";
const TCP4: &str = "/proc/net/tcp";
const TCP6: &str = "/proc/net/tcp6";
const FIRST_FREE_PORT: &str = "/proc/sys/net/ipv4/ip_unprivileged_port_start";

const ETHERNET: u64 = 1_500;
/// Processes whose names are looked at, at most.
const PROCESSES_MAX: usize = 4_096;

const MTU: Point = Point {
    name: "path.mtu",
    should_be: "1500 or more on the interface of the default route",
    worth: "the tunnel is TCP and fits any MTU; less than 1500 is more segments for the same bytes",
    basis: Basis::Arithmetic,
    source: "each segment costs 40 to 60 bytes of headers",
};

const BLACK_HOLES: Point = Point {
    name: "path.mtu_probing",
    should_be: "1: probe when a black hole is suspected",
    worth: "where a router on the way swallows ICMP \"too big\", downloads hang after the first full segment until the \
            client gives up",
    basis: Basis::Documented,
    source: "Documentation/networking/ip-sysctl.rst, tcp_mtu_probing; RFC 4821",
};

const PORT: Point = Point {
    name: "port.443",
    should_be: "free, or taken by sstp-gw",
    worth: "the port that clients dial: taken by a web server, the gateway does not start",
    basis: Basis::Documented,
    source: "MS-SSTP §1.9",
};

/// MTU of the outside.
pub(crate) fn mtu(host: &Host) -> Finding {
    let name = match interfaces::outside(host) {
        Ok(Some(name)) => name,
        Ok(None) => return MTU.note("no default route"),
        Err((path, why)) => return MTU.unread(path, why),
    };
    let path = interfaces::path(&name, "mtu");
    match host.number(&path) {
        Ok(mtu) if mtu >= ETHERNET => MTU.ok(format!("{name}: {mtu}")),
        Ok(mtu) => MTU.note(format!("{name}: {mtu}")),
        Err(why) => MTU.unread(&path, why),
    }
}

/// Whether TCP finds its way around routers that say nothing.
pub(crate) fn mtu_probing(host: &Host) -> Finding {
    match host.number(PROBING) {
        Ok(0) => BLACK_HOLES
            .advice("0: never")
            .by_sysctl("net.ipv4.tcp_mtu_probing", "1", "0"),
        Ok(1) => BLACK_HOLES.ok("1"),
        Ok(2) => BLACK_HOLES.ok("2: always"),
        Ok(_) => BLACK_HOLES.unread(PROBING, Unread::Garbage),
        Err(why) => BLACK_HOLES.unread(PROBING, why),
    }
}

/// Who listens on port 443.
pub(crate) fn port(host: &Host) -> Finding {
    let (v4, v6) = (host.text(TCP4), host.text(TCP6));
    if let (Err(why), Err(_)) = (&v4, &v6) {
        return PORT.unread(TCP4, *why);
    }
    let readable = [(TCP4, &v4), (TCP6, &v6)].into_iter().find(|(_, text)| {
        // The heading that the kernel writes above even an empty table.
        text.as_ref()
            .is_ok_and(|text| !text.contains("local_address"))
    });
    if let Some((path, _)) = readable {
        return PORT.unread(path, Unread::Garbage);
    }
    let taken = [v4, v6]
        .iter()
        .flatten()
        .any(|text| text.lines().any(listens));
    if taken {
        let ours = host
            .names("/proc")
            .iter()
            .filter(|name| name.starts_with(|c: char| c.is_ascii_digit()))
            .take(PROCESSES_MAX)
            .any(|pid| host.word(&format!("/proc/{pid}/comm")).as_deref() == Ok("sstp-gw"));
        return match ours {
            true => PORT.ok("taken, and sstp-gw runs"),
            false => PORT
                .found(State::Problem, "taken, and no sstp-gw runs")
                .by_only("ss -Hltnp 'sport = :443' says by whom; or another [[listen]] address for the gateway"),
        };
    }
    match host.number(FIRST_FREE_PORT) {
        Ok(first) if first <= 443 => PORT.ok("free, also without CAP_NET_BIND_SERVICE"),
        _ => PORT.ok("free"),
    }
}

/// Whether a line of `/proc/net/tcp` is a listener (state 0A) on port 443 (01BB).
fn listens(line: &str) -> bool {
    let fields: Vec<&str> = line.split_whitespace().collect();
    fields.get(3) == Some(&"0A") && fields.get(1).is_some_and(|local| local.ends_with(":01BB"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADING: &str =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt uid\n";

    #[test]
    fn only_a_listener_takes_the_port() {
        let of = |line: &str, comm: &str| {
            let text = format!("{HEADING}{line}");
            port(&Host::of(&[(TCP4, &text), ("/proc/77/comm", comm)]))
        };
        let listener = "   0: 00000000:01BB 00000000:0000 0A 00000000:00000000 00:00000000 0";
        assert_eq!(of(listener, "nginx").state, State::Problem);
        assert_eq!(of(listener, "sstp-gw").state, State::Ok);
        let connection = "   0: 0100007F:01BB 0100007F:8BDB 01 00000000:00000000 00:00000000 0";
        assert_eq!(of(connection, "nginx").found, "free");
        assert_eq!(port(&Host::of(&[(TCP4, "garbage")])).state, State::Unknown);
        assert_eq!(port(&Host::of(&[])).state, State::Unknown);
    }
}
