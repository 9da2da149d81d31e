//! CPU time of a process that somebody else started, with all that it has started.
//!
//! User and system time of every process of the tree, all threads, those that have ended among them, and
//! of children that it has waited for: what `/proc/PID/stat` says, in hundredths of a second.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::time::Duration;

/// `/proc/PID/stat` counts in hundredths of a second on every Linux that Rust knows.
const TICK: Duration = Duration::from_millis(10);

/// What one process is to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    pid: u32,
    parent: u32,
    ticks: u32,
}

/// Of `root` and its descendants.
///
/// # Errors
///
/// If there is no such process.
pub(super) fn cpu_time(root: u32) -> io::Result<Duration> {
    let entries: Vec<Entry> = fs::read_dir("/proc")?
        .flatten()
        .filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let text = fs::read_to_string(entry.path().join("stat")).ok()?;
            parse(pid, &text)
        })
        .collect();
    of_tree(&entries, root).ok_or_else(|| {
        io::Error::other(format!(
            "there is no process {root}; --sstp-pid is the server's own"
        ))
    })
}

/// Of a line of `/proc/PID/stat`; the name, field 2, may have anything in it.
fn parse(pid: u32, text: &str) -> Option<Entry> {
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let parent = fields.get(1)?.parse().ok()?;
    // utime, stime, cutime, cstime: fields 14 to 17.
    let times = fields.get(11..15)?.iter();
    let ticks = times.map(|field| field.parse::<u32>().ok());
    let ticks = ticks.sum::<Option<u32>>()?;
    Some(Entry { pid, parent, ticks })
}

fn of_tree(entries: &[Entry], root: u32) -> Option<Duration> {
    entries.iter().find(|entry| entry.pid == root)?;
    let mut tree = HashSet::from([root]);
    // Process ids wrap around, so a child may stand before its parent.
    loop {
        let before = tree.len();
        let children = entries.iter().filter(|entry| tree.contains(&entry.parent));
        let children: Vec<u32> = children.map(|entry| entry.pid).collect();
        tree.extend(children);
        if tree.len() == before {
            break;
        }
    }
    let members = entries.iter().filter(|entry| tree.contains(&entry.pid));
    Some(members.map(|entry| TICK * entry.ticks).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(pid: u32, parent: u32, ticks: u32) -> Entry {
        Entry { pid, parent, ticks }
    }

    #[test]
    fn a_line_of_proc_is_understood_whatever_the_name() {
        let text = "7 (a) b) S 1 7 7 0 -1 4194560 99 0 0 0 120 45 3 2 20 0 3 0 100 1 1";
        assert_eq!(parse(7, text), Some(entry(7, 1, 170)));
        assert_eq!(parse(7, "7 (sh) S 1"), None);
        assert_eq!(parse(7, ""), None);
    }

    #[test]
    fn the_tree_and_nothing_beside_it_is_counted() {
        let entries = [
            entry(9, 12, 1),
            entry(10, 1, 100),
            entry(12, 10, 20),
            entry(13, 1, 1000),
        ];
        assert_eq!(of_tree(&entries, 10), Some(Duration::from_millis(1210)));
        assert_eq!(of_tree(&entries, 12), Some(Duration::from_millis(210)));
        assert_eq!(of_tree(&entries, 11), None);
    }

    #[test]
    fn this_process_is_there_and_another_is_not() {
        assert!(cpu_time(std::process::id()).is_ok());
        let error = cpu_time(u32::MAX).unwrap_err();
        assert!(error.to_string().contains("--sstp-pid"), "{error}");
    }
}
