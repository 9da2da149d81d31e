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
        Some(other @ ("always" | "never")) => THP.note(other).by(
            format!("echo madvise > {ENABLED}"),
            format!("echo {other} > {ENABLED}"),
        ),
        _ => THP.unread(ENABLED, Unread::Garbage),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::State;

    #[test]
    fn the_word_in_brackets_holds() {
        let of = |text| transparent_huge_pages(&Host::of(&[(ENABLED, text)]));
        assert_eq!(of("always [madvise] never").state, State::Ok);
        assert_eq!(of("[always] madvise never").found, "always");
        assert_eq!(of("always madvise never").state, State::Unknown);
        assert_eq!(of("[").state, State::Unknown);
    }
}
