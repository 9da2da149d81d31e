//! The network card: queues, and how the kernel spreads them over CPUs.
//!
//! A connection belongs to the shard of the CPU that took its SYN, so how a card spreads packets is
//! how sessions are spread over shards.

use std::collections::BTreeMap;

use super::cpu::Cpuinfo;
use super::{cpus, interfaces};
use crate::finding::{Basis, Change, Finding, Point, State};
use crate::host::{Host, Unread};

const QUEUES: Point = Point {
    name: "nic.queues",
    should_be: "a receive queue for each shard (by default one for each CPU)",
    worth: "a session goes to the shard of the CPU that took its SYN: shards whose CPU has no queue stay idle unless \
            RPS spreads the packets",
    basis: Basis::Documented,
    source: "datapath/ARCHITECTURE.md, \"Which shard has which packet\"; Documentation/networking/scaling.rst",
};

const RSS: Point = Point {
    name: "nic.rss",
    should_be: "every receive queue is in the card's indirection table",
    worth: "a queue that is not in the table takes nothing, and its shard neither",
    basis: Basis::Documented,
    source: "Documentation/networking/scaling.rst, RSS",
};

const RPS: Point = Point {
    name: "nic.rps",
    should_be: "off where there is a queue for each CPU, else on for all CPUs",
    worth: "with fewer queues than CPUs it is what brings SYNs to the other shards; with enough it only adds an \
            interrupt between CPUs",
    basis: Basis::Documented,
    source: "Documentation/networking/scaling.rst, RPS",
};

const XPS: Point = Point {
    name: "nic.xps",
    should_be: "each sending queue belongs to CPUs of its own",
    worth: "a shard then sends by a queue that no other CPU locks",
    basis: Basis::Documented,
    source: "Documentation/networking/scaling.rst, XPS",
};

const NUMA: Point = Point {
    name: "nic.numa",
    should_be: "shards on the CPUs of the card's node",
    worth: "packets otherwise cross the link between the sockets, there and back",
    basis: Basis::Documented,
    source: "Documentation/networking/scaling.rst; not measured here",
};

/// What each card says, as one finding: the worst of them, all named.
fn of_cards(host: &Host, point: Point, mut each: impl FnMut(&str, Finding) -> Finding) -> Finding {
    let cards = interfaces::cards(host);
    let mut all = point.note("no card and no default route");
    for (index, card) in cards.iter().enumerate() {
        let one = each(card, point.ok(""));
        let found = format!("{card}: {}", one.found);
        if index == 0 {
            all = Finding { found, ..one };
            continue;
        }
        all.state = all.state.max(one.state);
        all.found = format!("{}; {found}", all.found);
        let join = |first: Option<String>, second: Option<String>| match (first, second) {
            (Some(first), Some(second)) => Some(format!("{first} && {second}")),
            (first, second) => first.or(second),
        };
        all.set = join(all.set, one.set);
        all.undo = join(all.undo, one.undo);
        all.changes.extend(one.changes);
    }
    all
}

/// Queues against shards.
pub(crate) fn queues(host: &Host) -> Finding {
    let shards = Cpuinfo::read(host).map(|cpuinfo| cpuinfo.count);
    of_cards(host, QUEUES, |card, _| {
        let have = interfaces::queues(host, card, "rx-");
        let shards = match shards {
            Ok(shards) => shards,
            Err(why) => return QUEUES.unread("/proc/cpuinfo", why),
        };
        if have == 0 {
            return QUEUES.unread(&interfaces::path(card, "queues"), Unread::Absent);
        }
        let found = format!("{have} for {shards} CPUs");
        if have >= shards {
            return QUEUES.ok(found);
        }
        let most = host
            .ethtool('l', card)
            .ok()
            .and_then(|text| channels_max(&text));
        match most.map(|most| most.min(shards)) {
            Some(want) if want > have => QUEUES.advice(found).by(
                format!("ethtool -L {card} combined {want}"),
                format!("ethtool -L {card} combined {have}"),
            ),
            Some(_) => QUEUES.note(format!("{found}, all that it has: see nic.rps")),
            None => QUEUES.note(format!("{found}; how many it could have is not told")),
        }
    })
}

/// `Combined:` below `Pre-set maximums:`.
fn channels_max(text: &str) -> Option<usize> {
    text.lines()
        .skip_while(|line| !line.starts_with("Pre-set maximums"))
        .find_map(|line| line.strip_prefix("Combined:"))?
        .trim()
        .parse()
        .ok()
}

/// The card's own spreading.
pub(crate) fn receive_side_scaling(host: &Host) -> Finding {
    of_cards(host, RSS, |card, _| {
        let have = interfaces::queues(host, card, "rx-");
        if have == 1 {
            return RSS.ok("one queue, nothing to spread");
        }
        let text = match host.ethtool('x', card) {
            Ok(text) => text,
            Err(Unread::Absent) => {
                return RSS.found(State::Unknown, "no ethtool here, or the card does not tell");
            }
            Err(why) => return RSS.unread("ethtool -x", why),
        };
        let Some(weights) = indirection(&text, have) else {
            return RSS.unread("ethtool -x", Unread::Garbage);
        };
        let used = weights.iter().filter(|&&weight| weight > 0).count();
        let found = format!("{used} of {have} queues in the table");
        if used == have {
            return RSS.ok(found);
        }
        let weights: Vec<String> = weights.iter().map(u32::to_string).collect();
        RSS.advice(found).by(
            format!("ethtool -X {card} equal {have}"),
            format!("ethtool -X {card} weight {}", weights.join(" ")),
        )
    })
}

/// How often each queue is in the table of `ethtool -x`; `None` if no such table is there.
fn indirection(text: &str, queues: usize) -> Option<Vec<u32>> {
    let mut weights = vec![0_u32; queues];
    let mut seen = false;
    for line in text.lines() {
        let Some((index, rings)) = line.trim().split_once(':') else {
            continue;
        };
        if index.parse::<u32>().is_err() {
            continue;
        }
        for ring in rings.split_whitespace() {
            let weight = weights.get_mut(ring.parse::<usize>().ok()?)?;
            *weight = weight.checked_add(1)?;
            seen = true;
        }
    }
    seen.then_some(weights)
}

/// Spreading by the kernel.
pub(crate) fn packet_steering(host: &Host) -> Finding {
    let count = Cpuinfo::read(host).map(|cpuinfo| cpuinfo.count);
    of_cards(host, RPS, |card, _| {
        let count = match count {
            Ok(count) => count,
            Err(why) => return RPS.unread("/proc/cpuinfo", why),
        };
        let have = interfaces::queues(host, card, "rx-");
        let masks: BTreeMap<String, String> = (0..have)
            .map(|queue| interfaces::path(card, &format!("queues/rx-{queue}/rps_cpus")))
            .filter_map(|path| Some((path.clone(), host.word(&path).ok()?)))
            .filter(|(_, mask)| cpus::mask_count(mask).is_some())
            .collect();
        if masks.is_empty() || masks.len() < have {
            return RPS.unread(
                &interfaces::path(card, "queues/rx-*/rps_cpus"),
                Unread::Garbage,
            );
        }
        let on = |mask: &str| cpus::mask_count(mask).unwrap_or(0) > 0;
        let on_count = masks.values().filter(|mask| on(mask)).count();
        let found = format!("on for {on_count} of {have} queues");
        let wanted = have < count;
        if (wanted && on_count == have) || (!wanted && on_count == 0) {
            return RPS.ok(found);
        }
        let want = match wanted {
            true => cpus::mask(0..u32::try_from(count).unwrap_or(0)),
            false => "0".to_owned(),
        };
        let finding = match wanted {
            true => RPS.advice(found),
            false => RPS.note(found),
        };
        let all = interfaces::path(card, "queues/rx-*/rps_cpus");
        let to_all = |mask: &str| format!("for f in {all}; do echo {mask} > $f; done");
        let undo = match masks.values().next() {
            Some(first) if masks.values().all(|mask| mask == first) => to_all(first),
            _ => masks
                .iter()
                .map(|(path, mask)| format!("echo {mask} > {path}"))
                .collect::<Vec<_>>()
                .join(" && "),
        };
        finding
            .by(to_all(&want), undo)
            .changing(masks.keys().map(|path| Change::Value {
                path: path.clone(),
                value: want.clone(),
            }))
    })
}

/// Which CPU sends by which queue.
pub(crate) fn transmit_steering(host: &Host) -> Finding {
    of_cards(host, XPS, |card, _| {
        let have = interfaces::queues(host, card, "tx-");
        if have <= 1 {
            return XPS.ok("one queue, nothing to choose");
        }
        let set = (0..have)
            .map(|queue| interfaces::path(card, &format!("queues/tx-{queue}/xps_cpus")))
            .map(|path| host.word(&path))
            .map(|mask| mask.and_then(|mask| cpus::mask_count(&mask).ok_or(Unread::Garbage)))
            .try_fold(0_usize, |set, count| {
                count.map(|count| set.saturating_add(usize::from(count > 0)))
            });
        match set {
            Ok(set) if set == have => XPS.ok(format!("set for {have} queues")),
            Ok(set) => XPS
                .advice(format!("set for {set} of {have} queues"))
                .by(
                    format!(
                        "for q in $(seq 0 {}); do printf '%x' $((1 << q)) > {}/tx-$q/xps_cpus; done",
                        have.saturating_sub(1).min(31),
                        interfaces::path(card, "queues")
                    ),
                    format!(
                        "for q in {}/tx-*; do echo 0 > $q/xps_cpus; done",
                        interfaces::path(card, "queues")
                    ),
                )
                .changing((0..u32::try_from(have).unwrap_or(0)).map(|queue| Change::Value {
                    path: interfaces::path(card, &format!("queues/tx-{queue}/xps_cpus")),
                    value: cpus::mask([queue]),
                })),
            Err(Unread::Absent) => XPS.note("this kernel has none"),
            Err(why) => XPS.unread(&interfaces::path(card, "queues/tx-*/xps_cpus"), why),
        }
    })
}

/// Where the card is.
pub(crate) fn numa(host: &Host) -> Finding {
    const NODES: &str = "/sys/devices/system/node";
    let nodes = host
        .names(NODES)
        .iter()
        .filter(|name| {
            name.strip_prefix("node")
                .is_some_and(|n| n.parse::<u32>().is_ok())
        })
        .count();
    if nodes <= 1 {
        return NUMA.ok("one node");
    }
    of_cards(host, NUMA, |card, _| {
        let path = interfaces::path(card, "device/numa_node");
        let node = match host.word(&path) {
            Ok(node) => node,
            Err(why) => return NUMA.unread(&path, why),
        };
        let Ok(node) = node.parse::<u32>() else {
            return match node.as_str() {
                "-1" => NUMA.note("its node is not told"),
                _ => NUMA.unread(&path, Unread::Garbage),
            };
        };
        let path = format!("{NODES}/node{node}/cpulist");
        match host.text(&path).map(|text| cpus::list(&text)) {
            Ok(Some(cpus)) if !cpus.is_empty() => {
                let list = cpus::shown(&cpus);
                NUMA.note(format!("node {node} of {nodes}, CPUs {list}")).by(
                    format!("CPUAffinity={list} and NUMAPolicy=local under [Service] (systemctl edit sstp-gw)"),
                    "remove the lines (systemctl edit sstp-gw)",
                )
            }
            Ok(_) => NUMA.unread(&path, Unread::Garbage),
            Err(why) => NUMA.unread(&path, why),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CPUS4: (&str, &str) = (
        "/proc/cpuinfo",
        "processor : 0\nprocessor : 1\nprocessor : 2\nprocessor : 3\nflags : fpu\n",
    );
    const CARD: (&str, &str) = ("/sys/class/net/eth0/device", "");

    #[test]
    fn fewer_queues_than_shards_are_advice_only_if_the_card_has_more() {
        let queue = ("/sys/class/net/eth0/queues/rx-0/rps_cpus", "0");
        let maximums =
            "Pre-set maximums:\nRX: n/a\nCombined: 8\nCurrent hardware settings:\nCombined: 1\n";
        let of = |files: &[(&str, &str)]| queues(&Host::of(files));
        let more = of(&[CPUS4, CARD, queue, ("/tool/ethtool-l/eth0", maximums)]);
        assert_eq!(more.state, State::Advice);
        assert_eq!(more.set.as_deref(), Some("ethtool -L eth0 combined 4"));
        assert_eq!(more.undo.as_deref(), Some("ethtool -L eth0 combined 1"));
        assert_eq!(of(&[CPUS4, CARD, queue]).state, State::Note);
        assert_eq!(of(&[CPUS4, CARD]).state, State::Unknown);
        assert_eq!(of(&[CPUS4]).state, State::Note);
    }

    #[test]
    fn rps_makes_up_for_missing_queues() {
        let path = "/sys/class/net/eth0/queues/rx-0/rps_cpus";
        let of = |mask| packet_steering(&Host::of(&[CPUS4, CARD, (path, mask)]));
        assert_eq!(of("f").state, State::Ok);
        let off = of("0");
        assert_eq!(off.state, State::Advice);
        assert_eq!(
            off.set.as_deref(),
            Some("for f in /sys/class/net/eth0/queues/rx-*/rps_cpus; do echo f > $f; done")
        );
        assert_eq!(of("many").state, State::Unknown);
    }

    #[test]
    fn a_queue_outside_the_table_is_seen() {
        let table = "RX flow hash indirection table for eth0 with 2 RX ring(s):\n    0:  0 0 0 0\n    4:  0 0 0 0\n";
        let of = |table| {
            receive_side_scaling(&Host::of(&[
                CARD,
                ("/sys/class/net/eth0/queues/rx-0/rps_cpus", "0"),
                ("/sys/class/net/eth0/queues/rx-1/rps_cpus", "0"),
                ("/tool/ethtool-x/eth0", table),
            ]))
        };
        let uneven = of(table);
        assert_eq!(uneven.state, State::Advice);
        assert_eq!(uneven.undo.as_deref(), Some("ethtool -X eth0 weight 8 0"));
        assert_eq!(of("0: 0 1 0 1").state, State::Ok);
        assert_eq!(of("0: 0 9").state, State::Unknown);
        assert_eq!(of("nothing").state, State::Unknown);
    }
}
