//! The clock, which every turn of a shard reads.

use crate::finding::{Basis, Finding, Point};
use crate::host::{Host, Unread};

const CURRENT: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
const AVAILABLE: &str = "/sys/devices/system/clocksource/clocksource0/available_clocksource";

const SOURCE: Point = Point {
    name: "clock.source",
    should_be: "tsc (x86; kvm-clock or hyperv in a guest), arch_sys_counter (ARM)",
    worth: "with these the clock is read without a system call; hpet and acpi_pm cost one, and a slow device \
            register, each time",
    basis: Basis::Documented,
    source: "vdso(7); Documentation/admin-guide/kernel-parameters.txt, clocksource=",
};

/// What the kernel counts time by.
pub(crate) fn source(host: &Host) -> Finding {
    let current = match host.word(CURRENT) {
        Ok(current) => current,
        Err(Unread::Absent) => return SOURCE.note("not told by this kernel"),
        Err(why) => return SOURCE.unread(CURRENT, why),
    };
    match current.as_str() {
        "tsc" | "kvm-clock" | "arch_sys_counter" | "hyperv_clocksource_tsc_page" => {
            SOURCE.ok(current)
        }
        _ => {
            let tsc = host
                .text(AVAILABLE)
                .is_ok_and(|available| available.split_whitespace().any(|name| name == "tsc"));
            let finding = SOURCE.advice(current.clone());
            if tsc {
                finding.by_value(CURRENT, "tsc", &current)
            } else {
                finding
            }
        }
    }
}

const SYNC: Point = Point {
    name: "clock.sync",
    should_be: "the time is kept by NTP or PTP",
    worth: "certificates begin and end by it, on both sides; a clock that is wrong by a day refuses a new certificate",
    basis: Basis::Documented,
    source: "RFC 5280 §4.1.2.5",
};

const ENTROPY: Point = Point {
    name: "entropy.available",
    should_be: "256 bits: the generator is seeded",
    worth: "before it is, getrandom(2) waits, and with it the first handshake",
    basis: Basis::Documented,
    source: "random(4), getrandom(2)",
};

const ENTROPY_AVAILABLE: &str = "/proc/sys/kernel/random/entropy_avail";

/// What shows that somebody keeps the time; each leaves one of these while it runs.
const KEEPERS: [(&str, &str); 6] = [
    (
        "/run/systemd/timesync/synchronized",
        "systemd-timesyncd, synchronised",
    ),
    ("/run/chrony/chronyd.pid", "chronyd runs"),
    ("/run/chronyd.pid", "chronyd runs"),
    ("/run/ntpd.pid", "ntpd runs"),
    ("/run/ntpsec/ntpd.pid", "ntpsec runs"),
    ("/run/openntpd.pid", "openntpd runs"),
];

/// Who keeps the time.
pub(crate) fn sync(host: &Host) -> Finding {
    if let Some((_, who)) = KEEPERS.iter().find(|(path, _)| host.exists(path)) {
        return SYNC.ok(*who);
    }
    if host.exists("/.dockerenv")
        || host.exists("/run/.containerenv")
        || host.exists("/run/systemd/container")
    {
        return SYNC.note("a container has its host's clock");
    }
    match host.exists("/run/systemd") {
        true => SYNC.advice("nobody that is known here").by(
            "systemctl enable --now systemd-timesyncd",
            "systemctl disable --now systemd-timesyncd",
        ),
        false => SYNC.note("nobody that is known here; a hypervisor may do it"),
    }
}

/// Whether the kernel's generator is seeded.
pub(crate) fn entropy(host: &Host) -> Finding {
    match host.number(ENTROPY_AVAILABLE) {
        Ok(bits) if bits >= 256 => ENTROPY.ok(format!("{bits} bits")),
        // Before 5.18 it is a pool that is drawn from, and low now and then.
        Ok(bits) => ENTROPY.note(format!("{bits} bits")),
        Err(why) => ENTROPY.unread(ENTROPY_AVAILABLE, why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::State;

    #[test]
    fn who_keeps_the_time_is_known_by_what_it_leaves() {
        let of = |path| sync(&Host::of(&[(path, "")])).state;
        assert_eq!(of("/run/chrony/chronyd.pid"), State::Ok);
        assert_eq!(of("/run/systemd/units"), State::Advice);
        assert_eq!(of("/.dockerenv"), State::Note);
    }

    #[test]
    fn tsc_is_only_advised_where_the_kernel_trusts_it() {
        let of =
            |current, available| source(&Host::of(&[(CURRENT, current), (AVAILABLE, available)]));
        assert_eq!(of("tsc", "tsc hpet").state, State::Ok);
        assert!(of("hpet", "hpet acpi_pm").set.is_none());
        assert!(of("hpet", "tsc hpet acpi_pm").set.is_some());
        assert_eq!(source(&Host::of(&[])).state, State::Note);
    }
}
