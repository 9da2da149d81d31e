//! What one process may have.

use crate::finding::{Basis, Finding, Point};
use crate::host::{Host, Unread};

const PATH: &str = "/proc/self/limits";

/// 50,000 sessions, and what the process has open besides.
const OPEN_FILES: u64 = 65_536;
/// Below this not even a small office fits.
const OPEN_FILES_FLOOR: u64 = 1_024;

const FILES: Point = Point {
    name: "limits.open_files",
    should_be: "65536 or more as the soft limit (under systemd: LimitNOFILE=1048576)",
    worth: "one descriptor for each session: the soft limit is the most sessions there can be",
    basis: Basis::Arithmetic,
};

/// The limit of descriptors of what is started as this was; a service may have its own.
pub(crate) fn open_files(host: &Host) -> Finding {
    let limits = match host.text(PATH) {
        Ok(limits) => limits,
        Err(why) => return FILES.unread(PATH, why),
    };
    let Some((soft, hard)) = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .and_then(soft_and_hard)
    else {
        return FILES.unread(PATH, Unread::Garbage);
    };
    let found = format!("soft {}, hard {}", shown(soft), shown(hard));
    let finding = match soft {
        soft if soft >= OPEN_FILES => return FILES.ok(found),
        soft if soft >= OPEN_FILES_FLOOR => FILES.advice(found),
        _ => FILES.problem(found),
    };
    finding.by(
        "LimitNOFILE=1048576 in the unit (systemctl edit sstp-gw), or `ulimit -n 1048576` as root before the start",
        "remove the line (systemctl revert sstp-gw)",
    )
}

/// The two numbers at the start of a limit's line; `unlimited` is the largest.
fn soft_and_hard(line: &str) -> Option<(u64, u64)> {
    let mut limits = line.split_whitespace().map(|word| match word {
        "unlimited" => Some(u64::MAX),
        word => word.parse().ok(),
    });
    Some((limits.next()??, limits.next()??))
}

fn shown(limit: u64) -> String {
    if limit == u64::MAX {
        "unlimited".to_owned()
    } else {
        limit.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::State;

    #[test]
    fn the_soft_limit_decides() {
        let of = |line: &'static str| open_files(&Host::of(&[(PATH, line)]));
        assert_eq!(
            of("Max open files   1048576  1048576  files").state,
            State::Ok
        );
        assert_eq!(
            of("Max open files   1024  1048576  files").state,
            State::Advice
        );
        assert_eq!(of("Max open files   256  256  files").state, State::Problem);
        assert_eq!(
            of("Max open files   1024  unlimited  files").found,
            "soft 1024, hard unlimited"
        );
        assert_eq!(of("Max open files").state, State::Unknown);
        assert_eq!(of("Max open files x y").state, State::Unknown);
        assert_eq!(of("").state, State::Unknown);
    }
}
