//! Whether this host lets a process have an io_uring.

use crate::finding::{Basis, Finding, Point};
use crate::host::{Host, Unread};

const DISABLED: &str = "/proc/sys/kernel/io_uring_disabled";
const KEY: &str = "kernel.io_uring_disabled";
const STATUS: &str = "/proc/self/status";

const ALLOWED: Point = Point {
    name: "io_uring.disabled",
    should_be: "0, or absent (before 6.6)",
    worth: "where io_uring is forbidden (io_uring_setup answers EPERM) sstp-gw falls back to epoll and says so at start; \
            the same throughput, more system calls",
    basis: Basis::Documented,
    source: "Documentation/admin-guide/sysctl/kernel.rst; the table of costs in datapath/ARCHITECTURE.md",
};

const SECCOMP: Point = Point {
    name: "io_uring.seccomp",
    should_be: "no filter over the gateway, or one that allows io_uring_*",
    worth: "the default seccomp profiles of Docker and containerd answer EPERM to io_uring_setup",
    basis: Basis::Documented,
    source: "Docker's documentation, \"Seccomp security profiles for Docker\"",
};

const FEATURES: Point = Point {
    name: "io_uring.features",
    should_be: "every feature of Linux 6.6",
    worth: "each that is missing costs interrupts or memory accesses in every turn of a shard; without io_uring the \
            gateway uses epoll, at the same throughput",
    basis: Basis::Documented,
    source: "datapath/src/sys/uring/setup.rs, the ladder of features; io_uring_setup(2)",
};

/// What the gateway's own probe finds: which features, or why no ring at all.
pub(crate) fn features(host: &Host) -> Finding {
    const PATH: &str = "the probe of io_uring";
    let answer = match host.io_uring() {
        Ok(answer) => answer,
        Err(Unread::Absent) => return FEATURES.note("not probed: this is not the host itself"),
        Err(why) => return FEATURES.unread(PATH, why),
    };
    match answer.split_once(", ") {
        Some(("yes", with)) if with.starts_with("with every") => FEATURES.ok(with),
        Some(("yes", without)) => FEATURES.advice(without),
        Some(("no", why)) => FEATURES.advice(why),
        _ => FEATURES.unread(PATH, Unread::Garbage),
    }
}

/// The sysctl: 0 allows everyone, 1 only CAP_SYS_ADMIN and io_uring_group, 2 nobody.
pub(crate) fn allowed(host: &Host) -> Finding {
    match host.number(DISABLED) {
        Ok(0) => ALLOWED.ok("0"),
        Ok(1) => ALLOWED
            .advice("1: only with CAP_SYS_ADMIN or in io_uring_group")
            .by_sysctl(KEY, "0", "1"),
        Ok(value) => ALLOWED
            .advice(format!("{value}: forbidden to everyone"))
            .by_sysctl(KEY, "0", &value.to_string()),
        Err(Unread::Absent) => ALLOWED.ok("absent"),
        Err(why) => ALLOWED.unread(DISABLED, why),
    }
}

/// A seccomp filter over this very process, as in most containers.
pub(crate) fn seccomp(host: &Host) -> Finding {
    let status = match host.text(STATUS) {
        Ok(status) => status,
        Err(why) => return SECCOMP.unread(STATUS, why),
    };
    let mode = status
        .lines()
        .find_map(|line| line.strip_prefix("Seccomp:"))
        .map(str::trim);
    match mode {
        Some("0") | None => SECCOMP.ok("none"),
        Some("1" | "2") => SECCOMP
            .advice("a filter is over this process")
            .by_only("docker run --security-opt seccomp=PROFILE (the default profile plus io_uring_setup, io_uring_enter, io_uring_register)"),
        Some(_) => SECCOMP.unread(STATUS, Unread::Garbage),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::State;

    #[test]
    fn the_three_values_of_the_sysctl() {
        let of = |value| allowed(&Host::of(&[(DISABLED, value)]));
        assert_eq!(of("0").state, State::Ok);
        assert_eq!(of("1").state, State::Advice);
        let two = of("2");
        assert_eq!(two.state, State::Advice, "epoll carries as much");
        assert_eq!(
            two.undo.as_deref(),
            Some("sysctl -w kernel.io_uring_disabled=2")
        );
        assert_eq!(of("-1").state, State::Unknown);
        assert_eq!(allowed(&Host::of(&[])).state, State::Ok);
    }

    #[test]
    fn the_probe_says_yes_or_why_not() {
        let of = |answer| features(&Host::of(&[("/probe/io_uring", answer)]));
        assert_eq!(of("yes, with every feature of Linux 6.6").state, State::Ok);
        assert_eq!(
            of("yes, without NO_SQARRAY (Linux 6.6)").state,
            State::Advice
        );
        assert_eq!(of("no, there is no io_uring (ENOSYS)").state, State::Advice);
        assert_eq!(of("perhaps").state, State::Unknown);
        assert_eq!(features(&Host::of(&[])).state, State::Note);
    }

    #[test]
    fn a_filter_is_seen() {
        let of = |status| seccomp(&Host::of(&[(STATUS, status)])).state;
        assert_eq!(
            of("Name:\tcat\nSeccomp:\t2\nSeccomp_filters:\t1\n"),
            State::Advice
        );
        assert_eq!(of("Seccomp:\t0"), State::Ok);
        assert_eq!(of("Seccomp:\tmany"), State::Unknown);
    }
}
