//! nftables: whether established flows can pass by the rules.

use crate::finding::{Basis, Finding, Point};
use crate::host::{Host, Unread};

const MODULES: &str = "/proc/modules";

const FLOWTABLE: Point = Point {
    name: "nft.flowtable",
    should_be: "reported only: a flowtable helps between the outside and other networks, not into the tunnel",
    worth: "it takes established flows past the rules and conntrack's hooks; it looks at packets one by one as they come \
            from a card, and a TUN has no hook of its own for it, so the gateway's own rules should stay few",
    basis: Basis::Documented,
    source: "Documentation/networking/nf_flowtable.rst; not measured here",
};

/// Whether flow tables are in use.
pub(crate) fn flowtable(host: &Host) -> Finding {
    match host.text(MODULES) {
        Ok(modules) => {
            let loaded = modules
                .lines()
                .filter_map(|line| line.split_whitespace().next())
                .any(|name| name == "nf_flow_table");
            match loaded {
                true => FLOWTABLE.note("nf_flow_table is loaded"),
                false => FLOWTABLE.note("no module nf_flow_table"),
            }
        }
        Err(Unread::Absent) => FLOWTABLE.note("this kernel has no modules; not told"),
        Err(why) => FLOWTABLE.unread(MODULES, why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_is_looked_for_by_its_whole_name() {
        let of = |text| flowtable(&Host::of(&[(MODULES, text)])).found;
        assert!(of("nf_flow_table 65536 1 nft_flow_offload, Live 0x0\n").ends_with("loaded"));
        assert!(of("nf_flow_table_inet 16384 0 - Live 0x0\n").starts_with("no module"));
    }
}
