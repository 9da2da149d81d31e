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
                finding.by(
                    format!("echo tsc > {CURRENT}"),
                    format!("echo {current} > {CURRENT}"),
                )
            } else {
                finding
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::State;

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
