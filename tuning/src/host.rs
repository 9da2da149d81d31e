//! The host as a tree of small files: the only place that reads.
//!
//! Every read is bounded, and tells apart a file that is absent, forbidden, or not what it should
//! be, because a check must say which. The tree is a directory (`/`, or one like it) or a recorded
//! host. What no file tells, `ethtool` and a probe of io_uring do; of a host that is not this one
//! their answers are files below `/tool` and `/probe`.

use std::cell::RefCell;
use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::recorded::{Entry, Recorded};

/// No file that a check needs is longer: `/proc/cpuinfo` has about 1.5 KB for each of 1,024 CPUs.
const FILE_LEN_MAX: u64 = 2 << 20;
/// Names in one directory, at most: `/proc` has one for each process.
const NAMES_MAX: usize = 32_768;

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
    /// What was read, for `sstp-tune record`.
    log: RefCell<Recorded>,
}

#[derive(Debug)]
enum Tree {
    Below(PathBuf),
    Recorded(Recorded),
}

impl Host {
    /// The host whose `/` is `root`.
    pub(crate) fn below(root: PathBuf) -> Self {
        Self::with(Tree::Below(root))
    }

    /// A host from its record.
    pub(crate) fn recorded(recorded: Recorded) -> Self {
        Self::with(Tree::Recorded(recorded))
    }

    /// A host that has just these files.
    #[cfg(test)]
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        let files = files.iter().map(|&(path, text)| {
            let entry = Entry {
                contents: Some(text.as_bytes().to_vec()),
                mode: 0o644,
                uid: 0,
            };
            (path.to_owned(), entry)
        });
        Self::recorded(Recorded {
            files: files.collect(),
        })
    }

    fn with(tree: Tree) -> Self {
        Self {
            tree,
            log: RefCell::default(),
        }
    }

    /// What was read of it so far.
    pub(crate) fn log(&self) -> Recorded {
        self.log.borrow().clone()
    }

    /// The text of the file at the absolute `path`, without white space at its ends.
    pub(crate) fn text(&self, path: &str) -> Result<String, Unread> {
        let bytes = match &self.tree {
            Tree::Below(root) => read(&below(root, path)),
            Tree::Recorded(recorded) => match recorded.files.get(path) {
                None => Err(Unread::Absent),
                Some(Entry { contents: None, .. }) => Err(Unread::Denied),
                Some(Entry {
                    contents: Some(contents),
                    ..
                }) if contents.len() as u64 > FILE_LEN_MAX => Err(Unread::Garbage),
                Some(Entry {
                    contents: Some(contents),
                    ..
                }) => Ok(contents.clone()),
            },
        };
        self.keep(path, &bytes);
        clean(bytes?)
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
        let exists = match &self.tree {
            Tree::Below(root) => below(root, path).exists(),
            Tree::Recorded(recorded) => {
                recorded.files.contains_key(path) || !self.names(path).is_empty()
            }
        };
        if exists {
            let mut log = self.log.borrow_mut();
            log.files.entry(path.to_owned()).or_insert_with(empty);
        }
        exists
    }

    /// Permission bits of what is at `path`, and the number of the user whose it is.
    pub(crate) fn mode(&self, path: &str) -> Result<(u32, u32), Unread> {
        let found = match &self.tree {
            Tree::Below(root) => std::fs::metadata(below(root, path))
                .map(|metadata| (metadata.mode() & 0o7777, metadata.uid()))
                .map_err(|error| unread(&error))?,
            Tree::Recorded(recorded) => {
                let entry = recorded.files.get(path).ok_or(Unread::Absent)?;
                (entry.mode, entry.uid)
            }
        };
        let mut log = self.log.borrow_mut();
        let entry = log.files.entry(path.to_owned()).or_insert_with(empty);
        (entry.mode, entry.uid) = found;
        Ok(found)
    }

    /// The names in the directory `path`, sorted; none if it cannot be read.
    pub(crate) fn names(&self, path: &str) -> Vec<String> {
        let mut names: Vec<String> = match &self.tree {
            Tree::Below(root) => std::fs::read_dir(below(root, path))
                .into_iter()
                .flatten()
                .flatten()
                .filter_map(|entry| entry.file_name().into_string().ok())
                .filter(|name| !name.contains(char::is_whitespace))
                .take(NAMES_MAX)
                .collect(),
            Tree::Recorded(recorded) => recorded
                .files
                .range(format!("{path}/")..)
                .map_while(|(file, _)| file.strip_prefix(path)?.strip_prefix('/'))
                .filter_map(|rest| rest.split('/').next())
                .map(str::to_owned)
                .collect(),
        };
        names.sort();
        names.dedup();
        // Not of `/proc` itself: which processes run here is nobody's business.
        if path != "/proc" {
            let mut log = self.log.borrow_mut();
            for name in &names {
                log.files
                    .entry(format!("{path}/{name}"))
                    .or_insert_with(empty);
            }
        }
        names
    }

    /// What `ethtool -FLAG INTERFACE` prints. A host that is not this one has it in a file.
    pub(crate) fn ethtool(&self, flag: char, interface: &str) -> Result<String, Unread> {
        let path = format!("/tool/ethtool-{flag}/{interface}");
        if !self.is_this() {
            return self.text(&path);
        }
        let bytes = Command::new("ethtool")
            .arg(format!("-{flag}"))
            .arg(interface)
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .output()
            .map_err(|error| unread(&error))
            .and_then(|output| match output.status.success() {
                true => Ok(output.stdout),
                false => Err(Unread::Absent),
            });
        self.keep(&path, &bytes);
        clean(bytes?)
    }

    /// What the gateway's own probe of io_uring says: a line that begins with `yes` or `no`.
    pub(crate) fn io_uring(&self) -> Result<String, Unread> {
        const PATH: &str = "/probe/io_uring";
        if !self.is_this() {
            return self.text(PATH);
        }
        let text = match datapath::sys::uring::probe() {
            Ok(rung) => format!("yes, {rung}"),
            Err(why) => format!("no, {why}"),
        };
        self.keep(PATH, &Ok(text.clone().into_bytes()));
        Ok(text)
    }

    /// Whether this is the host that we run on.
    fn is_this(&self) -> bool {
        matches!(&self.tree, Tree::Below(root) if root == Path::new("/"))
    }

    fn keep(&self, path: &str, bytes: &Result<Vec<u8>, Unread>) {
        let contents = match bytes {
            Ok(bytes) => Some(bytes.clone()),
            Err(Unread::Denied) => None,
            Err(_) => return,
        };
        let mut log = self.log.borrow_mut();
        log.files
            .entry(path.to_owned())
            .or_insert_with(empty)
            .contents = contents;
    }
}

const fn empty() -> Entry {
    Entry {
        contents: Some(Vec::new()),
        mode: 0o644,
        uid: 0,
    }
}

fn below(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

/// What may be shown: the text goes to somebody's terminal, so only what can be printed.
fn clean(bytes: Vec<u8>) -> Result<String, Unread> {
    let text = String::from_utf8(bytes).map_err(|_| Unread::Garbage)?;
    if text.chars().any(|c| c.is_control() && !c.is_whitespace()) {
        return Err(Unread::Garbage);
    }
    Ok(text.trim().to_owned())
}

fn unread(error: &std::io::Error) -> Unread {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => Unread::Absent,
        ErrorKind::PermissionDenied => Unread::Denied,
        // A sysctl may exist and refuse to be read (EINVAL, EOPNOTSUPP): nothing can be said.
        _ => Unread::Garbage,
    }
}

/// Reads a whole regular file. Devices and pipes are not opened: a recorded tree may hold anything.
fn read(path: &Path) -> Result<Vec<u8>, Unread> {
    let metadata = std::fs::metadata(path).map_err(|error| unread(&error))?;
    if !metadata.is_file() {
        return Err(Unread::Garbage);
    }
    let mut bytes = Vec::new();
    File::open(path)
        .map_err(|error| unread(&error))?
        .take(FILE_LEN_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| unread(&error))?;
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

    #[test]
    fn names_are_those_of_one_directory() {
        let host = Host::of(&[("/a/x/1", ""), ("/a/x/2", ""), ("/a/y", ""), ("/ab/z", "")]);
        assert_eq!(host.names("/a"), ["x", "y"]);
        assert!(host.exists("/a/x"));
        assert!(!host.exists("/b"));
    }
}
