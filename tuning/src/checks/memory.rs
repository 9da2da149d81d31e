//! Memory: transparent huge pages.

use crate::finding::{Basis, Finding, Point};
use crate::host::{Host, Unread};

const ENABLED: &str = "/sys/kernel/mm/transparent_hugepage/enabled";

const THP: Point = Point {
    name: "memory.thp",
    should_be: "madvise",
    worth: "always: many small, long-lived allocations (idle sessions) may each hold a 2 MiB page, and making one \
            stalls a shard; never: programs that ask for huge pages get none",
    basis: Basis::Documented,
    source: "Documentation/admin-guide/mm/transhuge.rst",
};

/// When the kernel makes huge pages by itself.
pub(crate) fn transparent_huge_pages(host: &Host) -> Finding {
    let text = match host.text(ENABLED) {
        Ok(text) => text,
        Err(Unread::Absent) => return THP.note("this kernel has none"),
        Err(why) => return THP.unread(ENABLED, why),
    };
    let chosen = text
        .split_whitespace()
        .find_map(|word| word.strip_prefix('[')?.strip_suffix(']'));
    match chosen {
        Some("madvise") => THP.ok("madvise"),
        Some(other @ ("always" | "never")) => THP.note(other).by_value(ENABLED, "madvise", other),
        _ => THP.unread(ENABLED, Unread::Garbage),
    }
}

const MEMINFO: &str = "/proc/meminfo";

const HUGE_PAGES: Point = Point {
    name: "memory.huge_pages",
    should_be: "none reserved for the gateway: it asks for none",
    worth: "reserved pages are taken from everybody, and the gateway's buffers are ordinary memory",
    basis: Basis::Documented,
    source: "Documentation/admin-guide/mm/hugetlbpage.rst",
};

/// Pages that are reserved whether anybody uses them or not.
pub(crate) fn huge_pages(host: &Host) -> Finding {
    let text = match host.text(MEMINFO) {
        Ok(text) => text,
        Err(why) => return HUGE_PAGES.unread(MEMINFO, why),
    };
    let value = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.strip_prefix(':')?
            .split_whitespace()
            .next()?
            .parse()
            .ok()
    };
    match (
        value("HugePages_Total"),
        value("HugePages_Free"),
        value("MemTotal"),
    ) {
        (Some(0), _, Some(_)) => HUGE_PAGES.ok("none reserved"),
        (Some(total), Some(free), Some(_)) => {
            HUGE_PAGES.note(format!("{total} reserved, {free} of them unused"))
        }
        (None, _, Some(_)) => HUGE_PAGES.note("this kernel has none"),
        _ => HUGE_PAGES.unread(MEMINFO, Unread::Garbage),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::State;

    #[test]
    fn reserved_pages_are_counted() {
        let of = |text| huge_pages(&Host::of(&[(MEMINFO, text)]));
        assert_eq!(of("MemTotal: 9 kB\nHugePages_Total: 0\n").state, State::Ok);
        assert_eq!(
            of("MemTotal: 9 kB\nHugePages_Total: 64\nHugePages_Free: 60\n").found,
            "64 reserved, 60 of them unused"
        );
        assert_eq!(of("MemTotal: 9 kB\n").state, State::Note);
        assert_eq!(of("none").state, State::Unknown);
    }

    #[test]
    fn the_word_in_brackets_holds() {
        let of = |text| transparent_huge_pages(&Host::of(&[(ENABLED, text)]));
        assert_eq!(of("always [madvise] never").state, State::Ok);
        assert_eq!(of("[always] madvise never").found, "always");
        assert_eq!(of("always madvise never").state, State::Unknown);
        assert_eq!(of("[").state, State::Unknown);
    }
}
