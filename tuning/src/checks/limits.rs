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
    source: "a session is a connection",
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
    finding.by_unit("LimitNOFILE=1048576")
}

const MEMLOCK: Point = Point {
    name: "limits.memlock",
    should_be: "8 MiB or more (under systemd: LimitMEMLOCK=infinity)",
    worth: "rings and maps are counted against it on older kernels; one that finds no room makes its shard use epoll, \
            or hand packets over instead of steering them",
    basis: Basis::Documented,
    source: "io_uring_setup(2), ENOMEM; setrlimit(2), RLIMIT_MEMLOCK",
};

const HOST_FILES: Point = Point {
    name: "limits.host_files",
    should_be: "fs.nr_open and fs.file-max 1048576 or more",
    worth: "nr_open bounds what a unit may be given as LimitNOFILE=, file-max all processes together",
    basis: Basis::Documented,
    source: "Documentation/admin-guide/sysctl/fs.rst",
};

/// Every host's default since Linux 5.16.
const LOCKED: u64 = 8 << 20;
/// What the unit asks for.
const HOST_FILES_MIN: u64 = 1 << 20;
const NR_OPEN: &str = "/proc/sys/fs/nr_open";
const FILE_MAX: &str = "/proc/sys/fs/file-max";

/// Memory that may be locked.
pub(crate) fn locked_memory(host: &Host) -> Finding {
    let limits = match host.text(PATH) {
        Ok(limits) => limits,
        Err(why) => return MEMLOCK.unread(PATH, why),
    };
    let Some((soft, _)) = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max locked memory"))
        .and_then(soft_and_hard)
    else {
        return MEMLOCK.unread(PATH, Unread::Garbage);
    };
    let found = match soft {
        u64::MAX => "unlimited".to_owned(),
        soft => super::bytes(soft),
    };
    match soft {
        soft if soft >= LOCKED => MEMLOCK.ok(found),
        _ => MEMLOCK.advice(found).by_unit("LimitMEMLOCK=infinity"),
    }
}

/// Descriptors of the whole host.
pub(crate) fn host_files(host: &Host) -> Finding {
    let mut low = Vec::new();
    let mut found = Vec::new();
    for (path, key) in [(NR_OPEN, "fs.nr_open"), (FILE_MAX, "fs.file-max")] {
        match host.number(path) {
            Ok(value) => {
                found.push(format!(
                    "{key} {}",
                    if value > u64::MAX >> 2 {
                        "unbounded".to_owned()
                    } else {
                        value.to_string()
                    }
                ));
                if value < HOST_FILES_MIN {
                    low.push((key, value.to_string()));
                }
            }
            Err(why) => return HOST_FILES.unread(path, why),
        }
    }
    let found = found.join(", ");
    if low.is_empty() {
        return HOST_FILES.ok(found);
    }
    let want = HOST_FILES_MIN.to_string();
    let all: Vec<(&str, &str, &str)> = low
        .iter()
        .map(|(key, was)| (*key, want.as_str(), was.as_str()))
        .collect();
    HOST_FILES.advice(found).by_sysctls(&all)
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
    fn locked_memory_is_shown_in_units() {
        let of = |line: &str| locked_memory(&Host::of(&[(PATH, line)]));
        assert_eq!(of("Max locked memory 8388608 8388608 bytes").found, "8 MiB");
        assert_eq!(
            of("Max locked memory 65536 65536 bytes").state,
            State::Advice
        );
        assert_eq!(
            of("Max locked memory unlimited unlimited bytes").state,
            State::Ok
        );
        assert_eq!(of("Max open files 1 1 files").state, State::Unknown);
    }

    #[test]
    fn the_lower_of_the_two_is_raised() {
        let finding = host_files(&Host::of(&[(NR_OPEN, "1048576"), (FILE_MAX, "90000")]));
        assert_eq!(
            finding.set.as_deref(),
            Some("sysctl -w fs.file-max=1048576")
        );
        assert_eq!(
            host_files(&Host::of(&[(NR_OPEN, "-")])).state,
            State::Unknown
        );
    }

    #[test]
    fn the_soft_limit_decides() {
        let of = |line: &str| open_files(&Host::of(&[(PATH, line)]));
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
