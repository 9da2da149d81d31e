//! The processor: whether it encrypts fast, and whether it is let.

use std::collections::BTreeMap;

use crate::finding::{Basis, Change, Finding, Point};
use crate::host::{Host, Unread};

const CPUINFO: &str = "/proc/cpuinfo";
const CPUS: &str = "/sys/devices/system/cpu";
const VULNERABILITIES: &str = "/sys/devices/system/cpu/vulnerabilities";

const AES: Point = Point {
    name: "cpu.aes",
    should_be: "instructions for AES and carry-less multiplication",
    worth: "AES-128-GCM runs at 22 GB/s a core with them; without them ChaCha20 (2.7 GB/s) is the better cipher",
    basis: Basis::Measured,
    source: "bench/README.md, floor: aead/seal",
};

const VECTOR_AES: Point = Point {
    name: "cpu.vaes",
    should_be: "VAES and VPCLMULQDQ (x86), any AES on ARM",
    worth: "several blocks in one instruction: the 22 GB/s a core of AES-128-GCM were measured with them (AVX-512)",
    basis: Basis::Measured,
    source: "bench/README.md, floor: aead/seal",
};

const GOVERNOR: Point = Point {
    name: "cpu.governor",
    should_be: "performance on every CPU that runs a shard",
    worth: "other governors let the clock fall between bursts, and a packet that ends the pause waits for it to rise",
    basis: Basis::Documented,
    source: "Documentation/admin-guide/pm/cpufreq.rst",
};

const MITIGATIONS: Point = Point {
    name: "cpu.mitigations",
    should_be: "on, as the kernel chose (reported only)",
    worth: "they make each system call dearer; a gateway handles strangers' bytes, so they stay on",
    basis: Basis::Documented,
    source: "Documentation/admin-guide/hw-vuln",
};

/// What `/proc/cpuinfo` says: of the first CPU, and how many there are.
#[derive(Debug)]
pub(crate) struct Cpuinfo {
    pub(crate) count: usize,
    pub(crate) model: Option<String>,
    flags: Vec<String>,
    arm: bool,
}

impl Cpuinfo {
    pub(crate) fn read(host: &Host) -> Result<Self, Unread> {
        let text = host.text(CPUINFO)?;
        let fields = || {
            text.lines()
                .filter_map(|line| line.split_once(':'))
                .map(|(key, value)| (key.trim(), value.trim()))
        };
        let value = |wanted: &str| {
            fields()
                .find(|(key, _)| *key == wanted)
                .map(|(_, value)| value)
        };
        let count = fields().filter(|(key, _)| *key == "processor").count();
        if count == 0 {
            return Err(Unread::Garbage);
        }
        // x86 says `flags`, ARM says `Features`.
        let flags = value("flags").or_else(|| value("Features"));
        Ok(Self {
            count,
            model: value("model name").map(str::to_owned),
            arm: value("flags").is_none() && flags.is_some(),
            flags: flags
                .unwrap_or_default()
                .split_whitespace()
                .map(str::to_owned)
                .collect(),
        })
    }

    fn has(&self, flag: &str) -> bool {
        self.flags.iter().any(|have| have == flag)
    }
}

/// AES by instruction.
pub(crate) fn aes(host: &Host) -> Finding {
    let cpuinfo = match Cpuinfo::read(host) {
        Ok(cpuinfo) => cpuinfo,
        Err(why) => return AES.unread(CPUINFO, why),
    };
    let multiply = if cpuinfo.arm { "pmull" } else { "pclmulqdq" };
    match (cpuinfo.has("aes"), cpuinfo.has(multiply)) {
        (true, true) => AES.ok(format!("aes, {multiply}")),
        (true, false) => AES.advice(format!("aes without {multiply}")),
        (false, _) => {
            AES.advice("none: the hypervisor may hide them (choose the CPU type \"host\")")
        }
    }
}

/// AES by vectors.
pub(crate) fn vector_aes(host: &Host) -> Finding {
    let cpuinfo = match Cpuinfo::read(host) {
        Ok(cpuinfo) => cpuinfo,
        Err(why) => return VECTOR_AES.unread(CPUINFO, why),
    };
    if cpuinfo.arm {
        return VECTOR_AES.note("not a thing of this processor");
    }
    let wide = cpuinfo.has("avx512f") && cpuinfo.has("avx512bw");
    match (cpuinfo.has("vaes") && cpuinfo.has("vpclmulqdq"), wide) {
        (true, true) => VECTOR_AES.ok("vaes, vpclmulqdq, avx512"),
        (true, false) => VECTOR_AES.ok("vaes, vpclmulqdq (256 bits wide)"),
        (false, _) => VECTOR_AES.note("absent: an older processor, or hidden by the hypervisor"),
    }
}

/// The frequency governor of every CPU.
pub(crate) fn governor(host: &Host) -> Finding {
    let governors = governors(host);
    if governors.is_empty() {
        return GOVERNOR.note("none here: firmware or the hypervisor decides");
    }
    let mut slow: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (cpu, governor) in &governors {
        if governor != "performance" {
            slow.entry(governor).or_default().push(cpu.to_string());
        }
    }
    if slow.is_empty() {
        return GOVERNOR.ok(format!("performance on {} CPUs", governors.len()));
    }
    let names: Vec<&str> = slow.keys().copied().collect();
    let count = slow.values().map(Vec::len).sum::<usize>();
    let undo: Vec<String> = slow
        .iter()
        .map(|(governor, cpus)| {
            format!("cpupower -c {} frequency-set -g {governor}", cpus.join(","))
        })
        .collect();
    GOVERNOR
        .advice(format!(
            "{} on {count} of {} CPUs",
            names.join(", "),
            governors.len()
        ))
        .by("cpupower frequency-set -g performance", undo.join(" && "))
        .changing(slow.values().flatten().map(|cpu| Change::Value {
            path: format!("{CPUS}/cpu{cpu}/cpufreq/scaling_governor"),
            value: "performance".to_owned(),
        }))
}

/// Each CPU that has a governor, and which, in the order of their numbers.
fn governors(host: &Host) -> BTreeMap<u32, String> {
    host.names(CPUS)
        .iter()
        .filter_map(|name| name.strip_prefix("cpu")?.parse().ok())
        .filter_map(|cpu: u32| {
            let governor = host.word(&format!("{CPUS}/cpu{cpu}/cpufreq/scaling_governor"));
            Some((cpu, governor.ok()?))
        })
        .collect()
}

/// What the kernel says about each known weakness of the processor.
pub(crate) fn mitigations(host: &Host) -> Finding {
    let mut mitigated = 0_usize;
    let mut vulnerable = Vec::new();
    let mut known = 0_usize;
    for name in host.names(VULNERABILITIES) {
        let Ok(text) = host.text(&format!("{VULNERABILITIES}/{name}")) else {
            continue;
        };
        known = known.saturating_add(1);
        if text.starts_with("Mitigation") {
            mitigated = mitigated.saturating_add(1);
        } else if text.starts_with("Vulnerable") {
            vulnerable.push(name);
        }
    }
    if known == 0 {
        return MITIGATIONS.note("not told by this kernel");
    }
    let mut found = format!("{mitigated} of {known} mitigated");
    if !vulnerable.is_empty() {
        found.push_str(", vulnerable: ");
        found.push_str(&vulnerable.join(", "));
    }
    MITIGATIONS.note(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::State;

    #[test]
    fn x86_and_arm_name_their_flags_differently() {
        let x86 = Host::of(&[(
            CPUINFO,
            "processor : 0\nflags : fpu aes pclmulqdq vaes vpclmulqdq\n",
        )]);
        assert_eq!(aes(&x86).state, State::Ok);
        assert_eq!(vector_aes(&x86).found, "vaes, vpclmulqdq (256 bits wide)");
        let arm = Host::of(&[(CPUINFO, "processor\t: 0\nFeatures\t: fp asimd aes pmull\n")]);
        assert_eq!(aes(&arm).found, "aes, pmull");
        assert_eq!(vector_aes(&arm).state, State::Note);
        let old = Host::of(&[(CPUINFO, "processor : 0\nflags : fpu sse2\n")]);
        assert_eq!(aes(&old).state, State::Advice);
        assert_eq!(
            aes(&Host::of(&[(CPUINFO, "nothing")])).state,
            State::Unknown
        );
    }

    #[test]
    fn one_slow_cpu_is_found_and_restored_alone() {
        let host = Host::of(&[
            (
                "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor",
                "performance",
            ),
            (
                "/sys/devices/system/cpu/cpu1/cpufreq/scaling_governor",
                "powersave",
            ),
            (
                "/sys/devices/system/cpu/cpufreq/policy0/scaling_governor",
                "ignored",
            ),
        ]);
        let finding = governor(&host);
        assert_eq!(finding.found, "powersave on 1 of 2 CPUs");
        assert_eq!(
            finding.undo.as_deref(),
            Some("cpupower -c 1 frequency-set -g powersave")
        );
        assert_eq!(governor(&Host::of(&[])).state, State::Note);
    }

    #[test]
    fn mitigations_are_never_advised_away() {
        let host = Host::of(&[
            (
                "/sys/devices/system/cpu/vulnerabilities/meltdown",
                "Not affected",
            ),
            (
                "/sys/devices/system/cpu/vulnerabilities/spectre_v2",
                "Mitigation: Retpolines",
            ),
            (
                "/sys/devices/system/cpu/vulnerabilities/srso",
                "Vulnerable: no microcode",
            ),
        ]);
        let finding = mitigations(&host);
        assert_eq!(finding.state, State::Note);
        assert_eq!(finding.found, "1 of 3 mitigated, vulnerable: srso");
        assert!(finding.set.is_none());
    }
}
