//! Connection tracking, which NAT of the clients' addresses needs.

use crate::finding::{Basis, Finding, Point};
use crate::host::{Host, Unread};

const MAX: &str = "/proc/sys/net/netfilter/nf_conntrack_max";
const COUNT: &str = "/proc/sys/net/netfilter/nf_conntrack_count";
const KEY: &str = "net.netfilter.nf_conntrack_max";

/// A client opens some 50 to 200 flows at a time; this is room for 2,000 to 5,000 clients.
const ENTRIES_MIN: u64 = 262_144;

const TABLE: Point = Point {
    name: "conntrack.max",
    should_be: "262144 or more, and below 80 % used; absent where nothing is tracked",
    worth: "each flow inside a tunnel is an entry (about 320 bytes); a full table drops new flows of all clients",
    basis: Basis::Documented,
    source: "Documentation/networking/nf_conntrack-sysctl.rst",
};

/// Size and use of the table.
pub(crate) fn table(host: &Host) -> Finding {
    let max = match host.number(MAX) {
        Ok(max) => max,
        Err(Unread::Absent) => return TABLE.ok("not loaded: nothing is tracked"),
        Err(why) => return TABLE.unread(MAX, why),
    };
    let count = host.number(COUNT);
    let used = count.map_or_else(
        |why| format!("{max}, use unknown ({why})"),
        |count| format!("{count} of {max} used"),
    );
    let in_use = count.unwrap_or(0);
    // Twice what is used, so that it is not full again at once.
    let want = in_use.saturating_mul(2).max(ENTRIES_MIN);
    let tight = in_use.saturating_mul(5) >= max.saturating_mul(4);
    if tight {
        TABLE
            .problem(used)
            .by_sysctl(KEY, &want.to_string(), &max.to_string())
    } else if max < ENTRIES_MIN {
        TABLE
            .advice(used)
            .by_sysctl(KEY, &want.to_string(), &max.to_string())
    } else {
        TABLE.ok(used)
    }
}

const BUCKETS: Point = Point {
    name: "conntrack.buckets",
    should_be: "at least an eighth of nf_conntrack_max",
    worth: "a look-up walks max / buckets entries when the table is full; the kernel's own default is 1 to 8",
    basis: Basis::Documented,
    source: "Documentation/networking/nf_conntrack-sysctl.rst, nf_conntrack_buckets",
};

const BUCKETS_PATH: &str = "/proc/sys/net/netfilter/nf_conntrack_buckets";

/// How long the chains of the table get.
pub(crate) fn buckets(host: &Host) -> Finding {
    let (max, buckets) = match (host.number(MAX), host.number(BUCKETS_PATH)) {
        (Ok(max), Ok(buckets)) => (max, buckets),
        (Err(Unread::Absent), Err(Unread::Absent)) => {
            return BUCKETS.ok("not loaded: nothing is tracked");
        }
        (Err(why), _) => return BUCKETS.unread(MAX, why),
        (_, Err(why)) => return BUCKETS.unread(BUCKETS_PATH, why),
    };
    let found = format!("{buckets} for {max}");
    let want = max.div_ceil(4);
    if buckets.saturating_mul(8) >= max {
        return BUCKETS.ok(found);
    }
    BUCKETS.advice(found).by_sysctl(
        "net.netfilter.nf_conntrack_buckets",
        &want.to_string(),
        &buckets.to_string(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::State;

    #[test]
    fn long_chains_are_advice() {
        let of = |max, buckets| buckets_of(max, buckets).state;
        assert_eq!(of("262144", "65536"), State::Ok);
        assert_eq!(of("1048576", "65536"), State::Advice);
        assert_eq!(of("1048576", "many"), State::Unknown);
        assert_eq!(buckets(&Host::of(&[])).state, State::Ok);
    }

    fn buckets_of(max: &str, count: &str) -> Finding {
        buckets(&Host::of(&[(MAX, max), (BUCKETS_PATH, count)]))
    }

    #[test]
    fn a_table_nearly_full_is_a_problem_whatever_its_size() {
        let of = |max, count| table(&Host::of(&[(MAX, max), (COUNT, count)]));
        assert_eq!(of("262144", "10").state, State::Ok);
        assert_eq!(of("65536", "10").state, State::Advice);
        let full = of("1000000", "800000");
        assert_eq!(full.state, State::Problem);
        assert_eq!(
            full.set.as_deref(),
            Some("sysctl -w net.netfilter.nf_conntrack_max=1600000")
        );
        assert_eq!(
            of("18446744073709551615", "18446744073709551615").state,
            State::Problem
        );
        assert_eq!(table(&Host::of(&[])).state, State::Ok);
        assert_eq!(table(&Host::of(&[(MAX, "many")])).state, State::Unknown);
    }
}
