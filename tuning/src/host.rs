//! The host as a tree of small files: the only place that reads.
//!
//! Every read is bounded, and tells apart a file that is absent, forbidden, or not what it should
//! be, because a check must say which. The tree is a directory (`/`, or a recorded host) or, in
//! tests, a table in memory.

use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::PathBuf;

/// No file that a check needs is longer: `/proc/cpuinfo` has about 1.5 KB for each of 1,024 CPUs.
const FILE_LEN_MAX: u64 = 2 << 20;

/// Why a file says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unread {
    /// It does not exist.
    Absent,
    /// This user may not read it.
    Denied,
    /// It is not text, too long, or does not hold what it should.
    Garbage,
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Absent => "does not exist",
            Self::Denied => "may not be read by this user",
            Self::Garbage => "does not hold what it should",
        })
    }
}

/// The files of one host.
#[derive(Debug)]
pub(crate) struct Host {
    tree: Tree,
}

#[derive(Debug)]
enum Tree {
    Below(PathBuf),
    #[cfg(test)]
    Table(std::collections::BTreeMap<&'static str, &'static str>),
}

impl Host {
    /// The host whose `/` is `root`.
    pub(crate) const fn below(root: PathBuf) -> Self {
        Self {
            tree: Tree::Below(root),
        }
    }

    /// A host that has just these files.
    #[cfg(test)]
    pub(crate) fn of(files: &[(&'static str, &'static str)]) -> Self {
        Self {
            tree: Tree::Table(files.iter().copied().collect()),
        }
    }

    /// The text of the file at the absolute `path`, without white space at its ends.
    pub(crate) fn text(&self, path: &str) -> Result<String, Unread> {
        let bytes = match &self.tree {
            Tree::Below(root) => read(&root.join(path.trim_start_matches('/')))?,
            #[cfg(test)]
            Tree::Table(files) => files.get(path).ok_or(Unread::Absent)?.as_bytes().to_vec(),
        };
        let text = String::from_utf8(bytes).map_err(|_| Unread::Garbage)?;
        // Only white space and what can be printed: the text goes to somebody's terminal.
        if text.chars().any(|c| c.is_control() && !c.is_whitespace()) {
            return Err(Unread::Garbage);
        }
        Ok(text.trim().to_owned())
    }

    /// The one word in the file at `path`.
    pub(crate) fn word(&self, path: &str) -> Result<String, Unread> {
        let text = self.text(path)?;
        let mut words = text.split_whitespace();
        match (words.next(), words.next()) {
            (Some(word), None) => Ok(word.to_owned()),
            _ => Err(Unread::Garbage),
        }
    }

    /// The one decimal number in the file at `path`.
    pub(crate) fn number(&self, path: &str) -> Result<u64, Unread> {
        self.word(path)?.parse().map_err(|_| Unread::Garbage)
    }

    /// The decimal numbers in the file at `path`, exactly `N`.
    pub(crate) fn numbers<const N: usize>(&self, path: &str) -> Result<[u64; N], Unread> {
        let numbers: Result<Vec<u64>, _> = self
            .text(path)?
            .split_whitespace()
            .map(str::parse)
            .collect();
        numbers
            .ok()
            .and_then(|numbers| numbers.try_into().ok())
            .ok_or(Unread::Garbage)
    }

    /// Whether anything is at `path` (it is not opened).
    pub(crate) fn exists(&self, path: &str) -> bool {
        match &self.tree {
            Tree::Below(root) => root.join(path.trim_start_matches('/')).exists(),
            #[cfg(test)]
            Tree::Table(files) => files.contains_key(path),
        }
    }

    /// The names in the directory `path`, sorted; none if it cannot be read.
    pub(crate) fn names(&self, path: &str) -> Vec<String> {
        let mut names: Vec<String> = match &self.tree {
            Tree::Below(root) => std::fs::read_dir(root.join(path.trim_start_matches('/')))
                .into_iter()
                .flatten()
                .flatten()
                .filter_map(|entry| entry.file_name().into_string().ok())
                .collect(),
            #[cfg(test)]
            Tree::Table(files) => files
                .keys()
                .filter_map(|file| file.strip_prefix(path)?.strip_prefix('/'))
                .filter_map(|rest| rest.split('/').next())
                .map(str::to_owned)
                .collect(),
        };
        names.sort();
        names.dedup();
        names
    }
}

/// Reads a whole regular file. Devices and pipes are not opened: a recorded tree may hold anything.
fn read(path: &std::path::Path) -> Result<Vec<u8>, Unread> {
    let unread = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => Unread::Absent,
        ErrorKind::PermissionDenied => Unread::Denied,
        // A sysctl may exist and refuse to be read (EINVAL, EOPNOTSUPP): nothing can be said.
        _ => Unread::Garbage,
    };
    let metadata = std::fs::metadata(path).map_err(unread)?;
    if !metadata.is_file() {
        return Err(Unread::Garbage);
    }
    let mut bytes = Vec::new();
    File::open(path)
        .map_err(unread)?
        .take(FILE_LEN_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(unread)?;
    if bytes.len() as u64 > FILE_LEN_MAX {
        return Err(Unread::Garbage);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absence_and_garbage_are_told_apart() {
        let host = Host::of(&[
            ("/a", "12\n"),
            ("/b", "1 2 3"),
            ("/c", "x\u{1b}[2J"),
            ("/d", ""),
        ]);
        assert_eq!(host.number("/a"), Ok(12));
        assert_eq!(host.number("/none"), Err(Unread::Absent));
        assert_eq!(host.number("/b"), Err(Unread::Garbage));
        assert_eq!(host.numbers("/b"), Ok([1, 2, 3]));
        assert_eq!(host.numbers::<2>("/b"), Err(Unread::Garbage));
        assert_eq!(
            host.text("/c"),
            Err(Unread::Garbage),
            "no escape reaches a terminal"
        );
        assert_eq!(host.number("/d"), Err(Unread::Garbage));
    }

    #[test]
    fn a_file_without_end_and_a_directory_are_garbage() {
        let dir = tempfile::tempdir().unwrap();
        let long = File::create(dir.path().join("long")).unwrap();
        long.set_len(FILE_LEN_MAX + 1).unwrap();
        std::fs::write(dir.path().join("binary"), [0xff, 0xfe]).unwrap();
        let host = Host::below(dir.path().to_owned());
        assert_eq!(host.text("/long"), Err(Unread::Garbage));
        assert_eq!(host.text("/binary"), Err(Unread::Garbage));
        assert_eq!(host.text("/"), Err(Unread::Garbage));
        assert_eq!(host.text("/none"), Err(Unread::Absent));
    }
}
