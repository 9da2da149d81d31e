//! eBPF: the program that gives each packet of the TUN to the shard that owns its session.

use crate::finding::{Basis, Finding, Point};
use crate::host::{Host, Unread};

const UNPRIVILEGED: &str = "/proc/sys/kernel/unprivileged_bpf_disabled";
const JIT: &str = "/proc/sys/net/core/bpf_jit_enable";
const STATUS: &str = "/proc/self/status";

/// linux/capability.h.
const CAP_BPF: u32 = 39;
const CAP_SYS_ADMIN: u32 = 21;

const STEERING: Point = Point {
    name: "tun.steering",
    should_be: "the gateway may load an eBPF program (CAP_BPF, which the unit gives it)",
    worth: "packets come to the shard that owns their session; without, they are handed over between shards, a copy more \
            each (0 handed over in every measured run with it)",
    basis: Basis::Measured,
    source: "bench/README.md, shards/handed over; datapath/ARCHITECTURE.md",
};

const COMPILER: Point = Point {
    name: "ebpf.jit",
    should_be: "1",
    worth: "the steering program is 25 instructions a packet: compiled, or interpreted one by one",
    basis: Basis::Documented,
    source: "Documentation/admin-guide/sysctl/net.rst, bpf_jit_enable",
};

/// Whether a steering program can be loaded, and by whom.
pub(crate) fn steering(host: &Host) -> Finding {
    let rights = host.text(STATUS).ok().and_then(|status| {
        let effective = status
            .lines()
            .find_map(|line| line.strip_prefix("CapEff:"))?;
        u64::from_str_radix(effective.trim(), 16).ok()
    });
    let has = |cap: u32| rights.is_some_and(|rights| (rights >> cap) & 1 == 1);
    let who = match rights {
        None => "rights of this process unknown",
        Some(_) if has(CAP_BPF) || has(CAP_SYS_ADMIN) => "this process has the right",
        Some(_) => "not this process",
    };
    match host.number(UNPRIVILEGED) {
        Ok(0) => STEERING
            .note("anyone may load programs, which only the gateway needs to")
            .by_sysctl("kernel.unprivileged_bpf_disabled", "2", "0"),
        Ok(value @ 1..=2) => STEERING.ok(format!("with CAP_BPF ({value}); {who}")),
        Ok(_) => STEERING.unread(UNPRIVILEGED, Unread::Garbage),
        Err(Unread::Absent) => STEERING.note("not told: this kernel has no eBPF, or hides it here"),
        Err(why) => STEERING.unread(UNPRIVILEGED, why),
    }
}

/// Whether programs are compiled.
pub(crate) fn compiler(host: &Host) -> Finding {
    match host.number(JIT) {
        Ok(0) => COMPILER
            .advice("0: interpreted")
            .by_sysctl("net.core.bpf_jit_enable", "1", "0"),
        Ok(value) => COMPILER.ok(value.to_string()),
        Err(Unread::Absent) => COMPILER.note("not told: always on in this kernel, or no eBPF"),
        Err(why) => COMPILER.unread(JIT, why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::State;

    #[test]
    fn rights_are_read_from_the_mask() {
        let of = |mask| steering(&Host::of(&[(UNPRIVILEGED, "2"), (STATUS, mask)])).found;
        assert!(of("CapEff:\t0000008000000000").ends_with("has the right"));
        assert!(of("CapEff:\t0000000000000000").ends_with("not this process"));
        assert!(of("CapEff:\tnone").ends_with("unknown"));
        assert_eq!(
            steering(&Host::of(&[(UNPRIVILEGED, "7")])).state,
            State::Unknown
        );
    }

    #[test]
    fn an_interpreter_is_advice() {
        let of = |value| compiler(&Host::of(&[(JIT, value)])).state;
        assert_eq!(of("0"), State::Advice);
        assert_eq!(of("1"), State::Ok);
        assert_eq!(of("on"), State::Unknown);
    }
}
