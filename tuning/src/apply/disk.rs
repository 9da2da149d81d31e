//! The host's disk as `apply` changes it: in single steps, below a root.
//!
//! A file is replaced whole (a new one beside it, fsync, rename, fsync of the directory), so that a
//! reader sees the old or the new one; values below `/proc` and `/sys` are written in place, as only
//! they can be. Tests stop before any chosen step, as a kill would.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

/// No file that is replaced is longer.
const FILE_LEN_MAX: u64 = 1 << 20;

/// The disk below a root.
#[derive(Debug)]
pub(crate) struct Disk {
    root: PathBuf,
    /// Steps that a test still lets happen.
    #[cfg(test)]
    steps_left: std::cell::Cell<Option<u32>>,
}

/// Whose a file is, and who may do what with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Owner {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Disk {
    /// The disk whose `/` is `root`.
    pub(crate) const fn below(root: PathBuf) -> Self {
        Self {
            root,
            #[cfg(test)]
            steps_left: std::cell::Cell::new(None),
        }
    }

    /// The same, stopped before step `count` of those that change something.
    #[cfg(test)]
    pub(crate) fn stopping(self, count: u32) -> Self {
        self.steps_left.set(Some(count));
        self
    }

    /// Where `path` is.
    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    #[cfg(test)]
    fn step(&self) -> io::Result<()> {
        match self.steps_left.get() {
            None => Ok(()),
            Some(0) => Err(io::Error::other("stopped by the test")),
            Some(left) => {
                self.steps_left.set(Some(left.saturating_sub(1)));
                Ok(())
            }
        }
    }

    #[cfg(not(test))]
    #[expect(
        clippy::unused_self,
        clippy::unnecessary_wraps,
        reason = "a test's hook"
    )]
    const fn step(&self) -> io::Result<()> {
        Ok(())
    }

    /// The text of the file at `path`; `None` if there is none.
    pub(crate) fn text(&self, path: &str) -> io::Result<Option<String>> {
        let at = self.at(path);
        let metadata = match fs::symlink_metadata(&at) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if !metadata.is_file() {
            return Err(io::Error::other("it is not a regular file; left alone"));
        }
        if metadata.len() > FILE_LEN_MAX {
            return Err(io::Error::other("it is longer than 1 MiB; left alone"));
        }
        fs::read_to_string(&at).map(Some)
    }

    /// What a file below `/proc` or `/sys` has now; of several words to choose from, the chosen one.
    pub(crate) fn value(&self, path: &str) -> io::Result<String> {
        let text = fs::read_to_string(self.at(path))?;
        let chosen = text
            .split_whitespace()
            .find_map(|word| word.strip_prefix('[')?.strip_suffix(']'));
        Ok(chosen.unwrap_or_else(|| text.trim()).to_owned())
    }

    /// Whose the file at `path` is.
    pub(crate) fn owner(&self, path: &str) -> io::Result<Owner> {
        let metadata = fs::metadata(self.at(path))?;
        Ok(Owner {
            mode: metadata.mode() & 0o7777,
            uid: metadata.uid(),
            gid: metadata.gid(),
        })
    }

    /// Whether a directory is at `path`.
    pub(crate) fn is_dir(&self, path: &str) -> bool {
        self.at(path).is_dir()
    }

    /// Makes one directory.
    pub(crate) fn make_dir(&self, path: &str) -> io::Result<()> {
        self.step()?;
        let at = self.at(path);
        match fs::create_dir(&at) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists && at.is_dir() => {}
            made => made?,
        }
        self.sync_parent(path)
    }

    /// Puts a whole new file in the place of what is at `path`.
    pub(crate) fn replace(&self, path: &str, text: &str, owner: Option<Owner>) -> io::Result<()> {
        let beside = self.at(&beside(path));
        self.step()?;
        if let Err(error) = fs::remove_file(&beside)
            && error.kind() != ErrorKind::NotFound
        {
            return Err(error);
        }
        self.step()?;
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&beside)?;
        // In two halves, so that a test can stop between them.
        let (first, second) = text.as_bytes().split_at(text.len() / 2);
        self.step()?;
        file.write_all(first)?;
        self.step()?;
        file.write_all(second)?;
        self.step()?;
        if let Some(Owner { uid, gid, .. }) = owner {
            chown(&beside, Some(uid), Some(gid))?;
        }
        file.set_permissions(Permissions::from_mode(owner.map_or(0o644, |o| o.mode)))?;
        file.sync_all()?;
        self.step()?;
        fs::rename(&beside, self.at(path))?;
        self.sync_parent(path)
    }

    /// Appends a line to the file at `path`, which is made if it is not there, and waits until it is kept.
    pub(crate) fn append(&self, path: &str, line: &str) -> io::Result<()> {
        self.step()?;
        let mut options = OpenOptions::new();
        let mut file = options
            .append(true)
            .create(true)
            .mode(0o600)
            .open(self.at(path))?;
        let (first, second) = line.as_bytes().split_at(line.len() / 2);
        self.step()?;
        file.write_all(first)?;
        self.step()?;
        file.write_all(second)?;
        self.step()?;
        file.sync_all()?;
        self.sync_parent(path)
    }

    /// Writes a value below `/proc` or `/sys`.
    pub(crate) fn set(&self, path: &str, value: &str) -> io::Result<()> {
        self.step()?;
        let mut file = OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(self.at(path))?;
        // One write: the kernel takes each as a whole value.
        file.write_all(format!("{value}\n").as_bytes())
    }

    /// Removes the file at `path`, and what a stopped [`Self::replace`] left beside it.
    pub(crate) fn remove(&self, path: &str) -> io::Result<()> {
        for path in [path.to_owned(), beside(path)] {
            self.step()?;
            match fs::remove_file(self.at(&path)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.sync_parent(path)
    }

    /// Removes the directory at `path` if nothing is in it; says whether it is gone.
    pub(crate) fn remove_dir(&self, path: &str) -> io::Result<bool> {
        self.step()?;
        match fs::remove_dir(self.at(path)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn sync_parent(&self, path: &str) -> io::Result<()> {
        self.step()?;
        let at = self.at(path);
        match at.parent() {
            // The directory may have gone with what was in it.
            Some(parent) if parent.is_dir() => File::open(parent)?.sync_all(),
            _ => Ok(()),
        }
    }
}

/// The name that a new file has until it is whole.
fn beside(path: &str) -> String {
    match Path::new(path).file_name().and_then(|name| name.to_str()) {
        Some(name) => {
            let dir = path.strip_suffix(name).unwrap_or_default();
            format!("{dir}.{name}.sstp-tune")
        }
        None => format!("{path}.sstp-tune"),
    }
}
