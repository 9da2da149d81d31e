//! What a CPU does when it has nothing to do, and with whom it shares.

use super::cpus;
use crate::finding::{Basis, Change, Finding, Point};
use crate::host::{Host, Unread};

const CPUS: &str = "/sys/devices/system/cpu";
const SMT_ACTIVE: &str = "/sys/devices/system/cpu/smt/active";
const ISOLATED: &str = "/sys/devices/system/cpu/isolated";
const NOHZ_FULL: &str = "/sys/devices/system/cpu/nohz_full";

/// A tenth of what the gateway adds to a packet in the 99th percentile, and near its median.
const LATENCY_MAX_US: u64 = 50;

const IDLE: Point = Point {
    name: "cpu.idle",
    should_be: "no idle state that takes more than 50 µs to leave, on the CPUs of the shards",
    worth: "a packet that ends a pause waits for it: as much again as the gateway adds in the median (51 to 68 µs one way); \
            costs power while idle",
    basis: Basis::Measured,
    source: "bench/README.md, latency/down p50 and up p50; Documentation/admin-guide/pm/cpuidle.rst",
};

const SMT: Point = Point {
    name: "cpu.smt",
    should_be: "reported only: two threads of a core share it",
    worth: "two shards on one core do more than one, but not twice as much; for the least latency set shards.count to the \
            number of cores",
    basis: Basis::Documented,
    source: "Documentation/admin-guide/hw-vuln/l1tf.rst on what threads share; not measured here",
};

const ISOLATION: Point = Point {
    name: "cpu.isolation",
    should_be: "no isolcpus= or nohz_full=, or the gateway placed there by CPUAffinity=",
    worth: "isolated CPUs get no shard by themselves: the gateway has one for each CPU that it may run on",
    basis: Basis::Documented,
    source: "Documentation/admin-guide/kernel-parameters.txt, isolcpus= and nohz_full=",
};

/// The deepest idle state that is allowed, over all CPUs.
pub(crate) fn states(host: &Host) -> Finding {
    let mut deepest: Option<(u64, String)> = None;
    let mut slow = Vec::new();
    let mut garbage = None;
    let cpus = host.names(CPUS);
    for cpu in cpus.iter().filter(|name| {
        name.strip_prefix("cpu")
            .is_some_and(|n| n.parse::<u32>().is_ok())
    }) {
        for state in host.names(&format!("{CPUS}/{cpu}/cpuidle")) {
            let dir = format!("{CPUS}/{cpu}/cpuidle/{state}");
            let read = (
                host.number(&format!("{dir}/latency")),
                host.number(&format!("{dir}/disable")),
            );
            let (Ok(latency), Ok(disabled)) = read else {
                garbage = Some(dir);
                continue;
            };
            if disabled != 0 {
                continue;
            }
            if latency > LATENCY_MAX_US {
                slow.push(format!("{dir}/disable"));
            }
            if deepest.as_ref().is_none_or(|(most, _)| latency > *most) {
                let name = host.text(&format!("{dir}/name"));
                deepest = Some((latency, name.unwrap_or(state)));
            }
        }
    }
    match (deepest, garbage) {
        (_, Some(dir)) => IDLE.unread(&dir, Unread::Garbage),
        (None, None) => IDLE.note("no states here: firmware or the hypervisor decides"),
        (Some((latency, name)), None) if slow.is_empty() => {
            IDLE.ok(format!("{name}, {latency} µs to leave"))
        }
        (Some((latency, name)), None) => IDLE
            .advice(format!("{name}, {latency} µs to leave"))
            .by(
                format!("cpupower idle-set -D {}", LATENCY_MAX_US.saturating_add(1)),
                "cpupower idle-set -E (sstp-tune undo restores just what was)",
            )
            .changing(slow.into_iter().map(|path| Change::Value {
                path,
                value: "1".to_owned(),
            })),
    }
}

/// Threads that share a core.
pub(crate) fn smt(host: &Host) -> Finding {
    match host.number(SMT_ACTIVE) {
        Ok(0) => SMT.note("off, or not there"),
        Ok(1) => SMT.note("on"),
        Ok(_) => SMT.unread(SMT_ACTIVE, Unread::Garbage),
        Err(Unread::Absent) => SMT.note("not told by this kernel"),
        Err(why) => SMT.unread(SMT_ACTIVE, why),
    }
}

/// CPUs that the kernel keeps out of its own scheduling.
pub(crate) fn isolation(host: &Host) -> Finding {
    if !host.exists(ISOLATED) && !host.exists(NOHZ_FULL) {
        return ISOLATION.note("not told by this kernel");
    }
    let mut found = Vec::new();
    for (path, word) in [(ISOLATED, "isolcpus"), (NOHZ_FULL, "nohz_full")] {
        let text = match host.text(path) {
            Ok(text) if text == "(null)" => continue,
            Ok(text) => text,
            Err(Unread::Absent) => continue,
            Err(why) => return ISOLATION.unread(path, why),
        };
        match cpus::list(&text) {
            Some(cpus) if cpus.is_empty() => {}
            Some(cpus) => found.push((word, cpus::shown(&cpus))),
            None => return ISOLATION.unread(path, Unread::Garbage),
        }
    }
    let Some((_, list)) = found.first() else {
        return ISOLATION.ok("none");
    };
    let set = format!(
        "CPUAffinity={list} under [Service] (systemctl edit sstp-gw), if the gateway is meant to have them"
    );
    let words: Vec<String> = found
        .iter()
        .map(|(word, list)| format!("{word}={list}"))
        .collect();
    ISOLATION
        .note(words.join(" "))
        .by(set, "remove the line (systemctl edit sstp-gw)")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::State;

    #[test]
    fn a_deep_state_that_is_disabled_does_not_count() {
        let of = |disable| {
            states(&Host::of(&[
                ("/sys/devices/system/cpu/cpu0/cpuidle/state0/latency", "1"),
                ("/sys/devices/system/cpu/cpu0/cpuidle/state0/disable", "0"),
                ("/sys/devices/system/cpu/cpu0/cpuidle/state0/name", "C1"),
                ("/sys/devices/system/cpu/cpu0/cpuidle/state1/latency", "800"),
                (
                    "/sys/devices/system/cpu/cpu0/cpuidle/state1/disable",
                    disable,
                ),
                ("/sys/devices/system/cpu/cpu0/cpuidle/state1/name", "C2"),
            ]))
        };
        assert_eq!(of("1").found, "C1, 1 µs to leave");
        assert_eq!(of("1").state, State::Ok);
        let deep = of("0");
        assert_eq!(deep.state, State::Advice);
        assert_eq!(deep.changes.len(), 1);
        assert_eq!(of("x").state, State::Unknown);
    }

    #[test]
    fn isolated_cpus_are_named() {
        let of = |isolated| isolation(&Host::of(&[(ISOLATED, isolated)]));
        assert_eq!(of("").state, State::Ok);
        assert_eq!(of("2-5").found, "isolcpus=2-5");
        assert_eq!(of("two").state, State::Unknown);
    }
}
