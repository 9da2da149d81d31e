//! Interrupts of the cards: which CPU takes which.

use std::collections::BTreeSet;

use super::cpu::Cpuinfo;
use super::{cpus, interfaces};
use crate::finding::{Basis, Change, Finding, Point};
use crate::host::{Host, Unread};

const AFFINITY: Point = Point {
    name: "irq.affinity",
    should_be: "each queue's interrupt on a CPU of its own, and irqbalance not moving them",
    worth: "two queues on one CPU are one shard with twice the sessions and one without; a queue that moves takes its \
            connections away from the shard that owns them",
    basis: Basis::Documented,
    source: "datapath/ARCHITECTURE.md; Documentation/core-api/irq/irq-affinity.rst; Documentation/networking/scaling.rst",
};

/// Interrupts of one card that are looked at, at most.
const INTERRUPTS_MAX: usize = 1_024;

/// Where the interrupts of the cards' queues are taken.
pub(crate) fn affinity(host: &Host) -> Finding {
    let cards = interfaces::cards(host);
    let irqs: Vec<u32> = cards.iter().flat_map(|card| of_card(host, card)).collect();
    let balanced = host.exists("/run/irqbalance") || host.exists("/run/irqbalance.pid");
    if irqs.is_empty() {
        return AFFINITY.note("no interrupts of a card are told");
    }
    let mut taken = BTreeSet::new();
    let mut was = Vec::new();
    for &irq in &irqs {
        let path = format!("/proc/irq/{irq}/smp_affinity_list");
        let list = match host.text(&path).map(|text| cpus::list(&text).map(|_| text)) {
            Ok(Some(list)) => list,
            Ok(None) => return AFFINITY.unread(&path, Unread::Garbage),
            Err(why) => return AFFINITY.unread(&path, why),
        };
        // Of several allowed CPUs one takes it.
        let effective = host
            .text(&format!("/proc/irq/{irq}/effective_affinity_list"))
            .unwrap_or_else(|_| list.clone());
        taken.extend(cpus::list(&effective).and_then(|cpus| cpus.into_iter().next()));
        was.push((path, list));
    }
    let count = Cpuinfo::read(host).map_or(1, |cpuinfo| cpuinfo.count);
    let best = irqs.len().min(count);
    let mut found = format!(
        "interrupts: {}, CPUs that take them: {}",
        irqs.len(),
        taken.len()
    );
    if balanced {
        found.push_str(", irqbalance runs");
    }
    if taken.len() >= best && !balanced {
        return AFFINITY.ok(found);
    }
    let want: Vec<(String, u32)> = was
        .iter()
        .zip((0..u32::try_from(count).unwrap_or(1)).cycle())
        .map(|((path, _), cpu)| (path.clone(), cpu))
        .collect();
    let mut set = String::new();
    let mut undo = String::new();
    if balanced {
        set.push_str("systemctl stop irqbalance && ");
        undo.push_str(" && systemctl start irqbalance");
    }
    set.push_str(
        "sstp-tune apply irq.affinity (one CPU for each queue, from 0 on; until the next start)",
    );
    let finding = match taken.len() >= best {
        true => AFFINITY.note(found),
        false => AFFINITY.advice(found),
    };
    finding
        .by(set, format!("sstp-tune undo{undo}"))
        .changing(want.into_iter().map(|(path, cpu)| Change::Now {
            path,
            value: cpu.to_string(),
        }))
}

/// The interrupts of a card's queues. A virtual card's device hangs below the one that interrupts.
fn of_card(host: &Host, card: &str) -> Vec<u32> {
    let names: Vec<(u32, String)> = host
        .text("/proc/interrupts")
        .unwrap_or_default()
        .lines()
        .filter_map(|line| {
            let (number, rest) = line.trim_start().split_once(':')?;
            let name = rest.split_whitespace().next_back()?;
            Some((number.parse().ok()?, name.to_owned()))
        })
        .collect();
    let mut irqs: BTreeSet<u32> = ["device/msi_irqs", "device/../msi_irqs"]
        .iter()
        .flat_map(|dir| host.names(&interfaces::path(card, dir)))
        .filter_map(|name| name.parse().ok())
        .collect();
    // What tells of the card itself, and of what was sent, is not what brings packets to a shard.
    let is_queue = |name: &str| {
        let other = [
            "async", "config", "control", "ctrl", "cmd", "misc", "mgmt", "output", "-tx-",
        ];
        !other.iter().any(|word| name.contains(word))
    };
    if irqs.is_empty() {
        irqs.extend(
            names
                .iter()
                .filter(|(_, name)| name.starts_with(card))
                .map(|&(irq, _)| irq),
        );
    }
    let named = |irq: &u32| names.iter().find(|(number, _)| number == irq);
    let queues: Vec<u32> = irqs
        .iter()
        .copied()
        .filter(|irq| named(irq).is_some_and(|(_, name)| is_queue(name)))
        .take(INTERRUPTS_MAX)
        .collect();
    queues
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::State;

    #[test]
    fn two_queues_on_one_cpu_are_taken_apart() {
        let of = |second| {
            affinity(&Host::of(&[
                ("/proc/cpuinfo", "processor : 0\nprocessor : 1\n"),
                ("/sys/class/net/eth0/device/msi_irqs/40", ""),
                ("/sys/class/net/eth0/device/msi_irqs/41", ""),
                ("/sys/class/net/eth0/device/msi_irqs/42", ""),
                (
                    "/proc/interrupts",
                    "  CPU0 CPU1\n40: 1 2 PCI-MSIX eth0-TxRx-0\n41: 1 2 PCI-MSIX eth0-TxRx-1\n42: 0 0 PCI-MSIX eth0-ctrl\n",
                ),
                ("/proc/irq/40/smp_affinity_list", "0"),
                ("/proc/irq/41/smp_affinity_list", second),
            ]))
        };
        assert_eq!(of("1").state, State::Ok);
        let together = of("0");
        assert_eq!(together.state, State::Advice);
        assert_eq!(together.found, "interrupts: 2, CPUs that take them: 1");
        assert_eq!(together.changes.len(), 2);
        assert_eq!(of("zero").state, State::Unknown);
        assert_eq!(affinity(&Host::of(&[])).state, State::Note);
    }
}
