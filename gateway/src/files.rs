//! Files that hold secrets: who may read them, and how they are replaced.
//!
//! A secret is refused rather than used when others can read it, as ssh does: the mistake must be
//! seen on the day it is made. A file is replaced as a whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// Files larger than this are not what they are said to be.
const LEN_MAX: u64 = 64 << 20;

/// Why a file was not used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {path}: {source}")]
    Write { path: PathBuf, source: io::Error },
    #[error("{0} is not a regular file")]
    NotAFile(PathBuf),
    #[error("{0} is larger than 64 MiB")]
    TooLarge(PathBuf),
    #[error("{0} is not UTF-8 text")]
    NotText(PathBuf),
    #[error("{path} can be read by others (mode {mode:04o}); run: chmod 600 {path}")]
    Exposed { path: PathBuf, mode: u32 },
    #[error("{path} belongs to user id {owner}, not to us ({us}) or root; run: chown {us} {path}")]
    ForeignOwner { path: PathBuf, owner: u32, us: u32 },
}

/// Reads a text file whose content is no secret.
pub(crate) fn read_text(path: &Path) -> Result<String, FileError> {
    let text = read(path, Access::Anyone)?;
    String::from_utf8(text.to_vec()).map_err(|_| FileError::NotText(path.to_owned()))
}

/// Reads a text file that only its owner, who must be us or root, may read or write.
pub(crate) fn read_secret(path: &Path) -> Result<Zeroizing<String>, FileError> {
    secret_text(path, Access::UsOrRoot)
}

/// As [`read_secret`], whoever owns the file: root edits what the gateway's own user reads.
pub(crate) fn read_secret_of_anyone(path: &Path) -> Result<Zeroizing<String>, FileError> {
    secret_text(path, Access::Owner)
}

fn secret_text(path: &Path, access: Access) -> Result<Zeroizing<String>, FileError> {
    let bytes = read(path, access)?;
    str::from_utf8(&bytes)
        .map(|text| Zeroizing::new(text.to_owned()))
        .map_err(|_| FileError::NotText(path.to_owned()))
}

/// Who may be able to read a file that we use.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Anyone,
    Owner,
    UsOrRoot,
}

fn read(path: &Path, access: Access) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let failed = |source| FileError::Read {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    // Of the open file, not of the path: the two could differ by now.
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(FileError::NotAFile(path.to_owned()));
    }
    if metadata.len() > LEN_MAX {
        return Err(FileError::TooLarge(path.to_owned()));
    }
    if access != Access::Anyone {
        let mode = metadata.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(FileError::Exposed {
                path: path.to_owned(),
                mode,
            });
        }
        let us = our_uid().map_err(failed)?;
        if access == Access::UsOrRoot && metadata.uid() != us && metadata.uid() != 0 {
            return Err(FileError::ForeignOwner {
                path: path.to_owned(),
                owner: metadata.uid(),
                us,
            });
        }
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(
        usize::try_from(metadata.len()).unwrap_or_default(),
    ));
    file.take(LEN_MAX).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// Our effective user id, which owns `/proc/self`.
fn our_uid() -> io::Result<u32> {
    Ok(fs::metadata("/proc/self")?.uid())
}

/// Writes `path` anew with this mode: afterwards it holds all of `bytes` or what it held before.
///
/// An existing file's owner is kept, so that root may edit what the gateway reads under its own
/// user.
pub(crate) fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    let failed = |source| FileError::Write {
        path: path.to_owned(),
        source,
    };
    let directory = directory_of(path);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = directory.join(format!(".{name}.{}", std::process::id()));
    let result = (|| {
        // A leftover of a killed process with our number must not stop us for ever.
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&temporary)?;
        if let Ok(old) = fs::metadata(path)
            && old.uid() != our_uid()?
        {
            fchown(&file, Some(old.uid()), Some(old.gid()))?;
        }
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(&directory)?.sync_all()
    })();
    if result.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(&temporary);
    }
    result.map_err(failed)
}

/// Keeps other processes from editing files beside `path` until it is dropped.
pub(crate) fn lock_directory_of(path: &Path) -> Result<File, FileError> {
    let directory = directory_of(path);
    let lock = File::open(&directory).and_then(|lock| {
        lock.lock()?;
        Ok(lock)
    });
    lock.map_err(|source| FileError::Write {
        path: directory,
        source,
    })
}

fn directory_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_secret_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        replace(&path, b"secret", 0o600).unwrap();
        assert_eq!(read_secret(&path).unwrap().as_str(), "secret");
        for mode in [0o640, 0o604, 0o620, 0o644] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = read_secret(&path).unwrap_err();
            assert!(matches!(error, FileError::Exposed { .. }), "{mode:o}");
            assert!(error.to_string().contains("chmod 600"));
        }
    }

    #[test]
    fn replacing_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("users.toml");
        replace(&path, b"1", 0o600).unwrap();
        replace(&path, b"2", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"2");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_directory_is_no_file() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(read_text(dir.path()), Err(FileError::NotAFile(_))));
    }
}
