//! TCP, which carries every tunnel.

use super::bytes;
use crate::finding::{Basis, Finding, Point};
use crate::host::{Host, Unread};

const SOMAXCONN: &str = "/proc/sys/net/core/somaxconn";
const SYN_BACKLOG: &str = "/proc/sys/net/ipv4/tcp_max_syn_backlog";
const SYN_COOKIES: &str = "/proc/sys/net/ipv4/tcp_syncookies";
const RMEM: &str = "/proc/sys/net/ipv4/tcp_rmem";
const WMEM: &str = "/proc/sys/net/ipv4/tcp_wmem";
const NOTSENT_LOWAT: &str = "/proc/sys/net/ipv4/tcp_notsent_lowat";
const CONGESTION: &str = "/proc/sys/net/ipv4/tcp_congestion_control";
const QDISC: &str = "/proc/sys/net/core/default_qdisc";

/// A burst of clients that all come back at once (a router restarted) on one shard.
const BACKLOG: u64 = 4_096;
/// 1 Gbit/s over 100 ms is 12.5 MB on the way.
const BUFFER_MAX: u64 = 16 << 20;
/// Above it a session's backlog in the kernel is what the user feels.
const UNSENT_MAX: u64 = 256 << 10;

const ACCEPT: Point = Point {
    name: "tcp.somaxconn",
    should_be: "4096 or more",
    worth: "it caps the accept queue; SYNs beyond it are dropped and come again after 1 s, 3 s, 7 s",
    basis: Basis::Documented,
    source: "Documentation/networking/ip-sysctl.rst; RFC 6298 for the repeats",
};

const SYN: Point = Point {
    name: "tcp.syn_backlog",
    should_be: "4096 or more, and SYN cookies on",
    worth: "beyond it SYNs are answered by cookies, which lose the options that make TCP fast on long paths, or are lost",
    basis: Basis::Documented,
    source: "Documentation/networking/ip-sysctl.rst, tcp_max_syn_backlog and tcp_syncookies",
};

const RECEIVE: Point = Point {
    name: "tcp.rmem_max",
    should_be: "16 MiB or more as the third value of tcp_rmem",
    worth: "an upload is no faster than about half this buffer for each round trip: 6 MiB at 100 ms is 250 Mbit/s",
    basis: Basis::Arithmetic,
    source: "bandwidth × round trip; Documentation/networking/ip-sysctl.rst",
};

const SEND: Point = Point {
    name: "tcp.wmem_max",
    should_be: "16 MiB or more as the third value of tcp_wmem",
    worth: "a download is no faster than this buffer for each round trip: 4 MiB at 100 ms is 335 Mbit/s",
    basis: Basis::Arithmetic,
    source: "bandwidth × round trip; Documentation/networking/ip-sysctl.rst",
};

const UNSENT: Point = Point {
    name: "tcp.notsent_lowat",
    should_be: "262144 or less, or set by the program on each socket",
    worth: "unsent bytes wait in the kernel, where they can neither be dropped nor overtaken: 4 MiB at 10 Mbit/s \
            are 3.4 s of delay for everything in the tunnel",
    basis: Basis::Arithmetic,
    source: "bytes / rate; Documentation/networking/ip-sysctl.rst",
};

const CONTROL: Point = Point {
    name: "tcp.congestion_control",
    should_be: "cubic, or bbr together with the fq qdisc",
    worth: "bbr without fq paces by timers in the kernel: 295 against 154 ms of CPU for each GB on one core",
    basis: Basis::Measured,
    source: "64 KB sends over loopback on one core, Linux 6.18",
};

/// How many connections may wait for `accept`.
pub(crate) fn accept_backlog(host: &Host) -> Finding {
    match host.number(SOMAXCONN) {
        Ok(value) if value >= BACKLOG => ACCEPT.ok(value.to_string()),
        Ok(value) => ACCEPT.advice(value.to_string()).by_sysctl(
            "net.core.somaxconn",
            &BACKLOG.to_string(),
            &value.to_string(),
        ),
        Err(why) => ACCEPT.unread(SOMAXCONN, why),
    }
}

/// How many connections may be half open.
pub(crate) fn syn_backlog(host: &Host) -> Finding {
    let cookies = match host.number(SYN_COOKIES) {
        Ok(0) => ", no SYN cookies",
        _ => "",
    };
    match host.number(SYN_BACKLOG) {
        Ok(value) if value >= BACKLOG && cookies.is_empty() => SYN.ok(value.to_string()),
        Ok(value) => {
            let (want, was) = (BACKLOG.max(value).to_string(), value.to_string());
            let mut all = vec![("net.ipv4.tcp_max_syn_backlog", want.as_str(), was.as_str())];
            if !cookies.is_empty() {
                all.push(("net.ipv4.tcp_syncookies", "1", "0"));
            }
            SYN.advice(format!("{value}{cookies}")).by_sysctls(&all)
        }
        Err(why) => SYN.unread(SYN_BACKLOG, why),
    }
}

/// The largest receive buffer that autotuning may take.
pub(crate) fn receive_buffer(host: &Host) -> Finding {
    buffer(host, RECEIVE, RMEM, "net.ipv4.tcp_rmem")
}

/// The largest send buffer that autotuning may take.
pub(crate) fn send_buffer(host: &Host) -> Finding {
    buffer(host, SEND, WMEM, "net.ipv4.tcp_wmem")
}

fn buffer(host: &Host, point: Point, path: &str, key: &str) -> Finding {
    match host.numbers(path) {
        Ok([_, _, max]) if max >= BUFFER_MAX => point.ok(bytes(max)),
        Ok([min, default, max]) => point.advice(bytes(max)).by_sysctl(
            key,
            &format!("{min} {default} {BUFFER_MAX}"),
            &format!("{min} {default} {max}"),
        ),
        Err(why) => point.unread(path, why),
    }
}

/// How much a socket may hold that was not sent yet. Never worse than a note: a program that cares
/// sets the option on its own sockets, and this value is for those that do not.
pub(crate) fn unsent_low_water(host: &Host) -> Finding {
    match host.number(NOTSENT_LOWAT) {
        Ok(value) if value <= UNSENT_MAX => UNSENT.ok(bytes(value)),
        Ok(value) => {
            let found = if value >= u64::from(u32::MAX >> 1) {
                "no bound for programs that do not set their own".to_owned()
            } else {
                bytes(value)
            };
            UNSENT
                .note(found)
                .by_sysctl("net.ipv4.tcp_notsent_lowat", "131072", &value.to_string())
        }
        Err(why) => UNSENT.unread(NOTSENT_LOWAT, why),
    }
}

/// How senders react to loss, and whether the qdisc suits that.
pub(crate) fn congestion_control(host: &Host) -> Finding {
    let control = match host.word(CONGESTION) {
        Ok(control) => control,
        Err(why) => return CONTROL.unread(CONGESTION, why),
    };
    if !control.starts_with("bbr") {
        return CONTROL.ok(control);
    }
    match host.word(QDISC) {
        Ok(qdisc) if qdisc == "fq" => CONTROL.ok(format!("{control} with fq")),
        Ok(qdisc) => CONTROL.advice(format!("{control} with {qdisc}")).by_sysctl(
            "net.core.default_qdisc",
            "fq",
            &qdisc,
        ),
        Err(Unread::Absent) => CONTROL.note(format!("{control}, qdisc unknown")),
        Err(why) => CONTROL.unread(QDISC, why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::State;

    #[test]
    fn only_the_largest_of_the_three_values_is_changed() {
        let finding = receive_buffer(&Host::of(&[(RMEM, "4096\t131072\t6291456\n")]));
        assert_eq!(finding.state, State::Advice);
        assert_eq!(finding.found, "6 MiB");
        assert_eq!(
            finding.set.as_deref(),
            Some("sysctl -w 'net.ipv4.tcp_rmem=4096 131072 16777216'")
        );
        assert_eq!(
            finding.undo.as_deref(),
            Some("sysctl -w 'net.ipv4.tcp_rmem=4096 131072 6291456'")
        );
        assert_eq!(
            receive_buffer(&Host::of(&[(RMEM, "4096 131072")])).state,
            State::Unknown
        );
        assert_eq!(
            send_buffer(&Host::of(&[(WMEM, "4096 16384 33554432")])).state,
            State::Ok
        );
    }

    #[test]
    fn bbr_wants_fq() {
        let of = |control, qdisc| {
            congestion_control(&Host::of(&[(CONGESTION, control), (QDISC, qdisc)])).state
        };
        assert_eq!(of("cubic", "fq_codel"), State::Ok);
        assert_eq!(of("bbr", "fq"), State::Ok);
        assert_eq!(of("bbr", "fq_codel"), State::Advice);
    }

    #[test]
    fn an_unbounded_backlog_is_only_noted() {
        let of = |value| unsent_low_water(&Host::of(&[(NOTSENT_LOWAT, value)]));
        assert_eq!(of("4294967295").state, State::Note);
        assert_eq!(of("131072").found, "128 KiB");
        assert_eq!(of("-1").state, State::Unknown);
    }

    #[test]
    fn a_short_queue_is_advice() {
        assert_eq!(
            accept_backlog(&Host::of(&[(SOMAXCONN, "128")])).state,
            State::Advice
        );
        assert_eq!(
            accept_backlog(&Host::of(&[(SOMAXCONN, "4096")])).state,
            State::Ok
        );
    }
}
