//! What was there before each change, written and kept before the change is made.
//!
//! One JSON object a line in `/var/lib/sstp-tune/journal`. Its last line may be cut where a process was
//! killed while it wrote: the change that it was to tell of did not happen yet, so it is left out.
//! Anything else that is not understood is an error: nothing is guessed about what to restore.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;

use serde::{Deserialize, Serialize};

use super::disk::{Disk, Owner};

const DIR: &str = "/var/lib/sstp-tune";
const JOURNAL: &str = "/var/lib/sstp-tune/journal";
const LOCK: &str = "/var/lib/sstp-tune/lock";

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "kind")]
pub(crate) enum Entry {
    /// A file was replaced or made.
    File {
        path: String,
        was: Option<String>,
        owner: Option<Owner>,
        becomes: String,
    },
    /// A value below `/proc` or `/sys` was set.
    Value {
        path: String,
        was: String,
        becomes: String,
    },
    /// A directory was made.
    Dir { path: String },
}

/// The journal, for this process alone.
#[derive(Debug)]
pub(crate) struct Journal<'a> {
    disk: &'a Disk,
    pub(crate) entries: Vec<Entry>,
    /// Held as long as this lives.
    _lock: File,
}

impl<'a> Journal<'a> {
    /// Opens it; `Err` says why that cannot be.
    pub(crate) fn open(disk: &'a Disk) -> Result<Self, String> {
        let explain = |what: &str, error: io::Error| format!("{what}: {error}{}", hint(&error));
        for dir in ["/var", "/var/lib", DIR] {
            if !disk.is_dir(dir) {
                disk.make_dir(dir).map_err(|error| explain(dir, error))?;
            }
        }
        let mut options = OpenOptions::new();
        let lock = options
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(disk.at(LOCK))
            .map_err(|error| explain(LOCK, error))?;
        lock.try_lock()
            .map_err(|_| format!("another sstp-tune is at work (it holds {LOCK})"))?;
        let text = disk
            .text(JOURNAL)
            .map_err(|error| explain(JOURNAL, error))?
            .unwrap_or_default();
        let (entries, whole) = parse(&text)?;
        if !whole {
            disk.replace(JOURNAL, &written(&entries), None)
                .map_err(|error| explain(JOURNAL, error))?;
        }
        Ok(Self {
            disk,
            entries,
            _lock: lock,
        })
    }

    /// Keeps one more; the change may be made when this returns.
    pub(crate) fn append(&mut self, entry: Entry) -> Result<(), String> {
        self.disk
            .append(JOURNAL, &written(std::slice::from_ref(&entry)))
            .map_err(|error| format!("{JOURNAL}: {error}{}", hint(&error)))?;
        self.entries.push(entry);
        Ok(())
    }

    /// Leaves only these; none: the journal goes.
    pub(crate) fn keep(&mut self, entries: Vec<Entry>) -> Result<(), String> {
        match entries.is_empty() {
            true => self.disk.remove(JOURNAL),
            false => self.disk.replace(JOURNAL, &written(&entries), None),
        }
        .map_err(|error| format!("{JOURNAL}: {error}{}", hint(&error)))?;
        self.entries = entries;
        Ok(())
    }
}

/// What to do about an error that an operator meets.
pub(crate) fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "; run it as root",
        io::ErrorKind::ReadOnlyFilesystem => {
            "; in a container this belongs to its host: apply it there"
        }
        _ => "",
    }
}

fn written(entries: &[Entry]) -> String {
    let mut text = String::new();
    for entry in entries {
        // Only strings and numbers are in it, so writing it cannot fail.
        text.push_str(&serde_json::to_string(entry).unwrap_or_default());
        text.push('\n');
    }
    text
}

/// The entries, and whether the last line is whole.
fn parse(text: &str) -> Result<(Vec<Entry>, bool), String> {
    let mut entries = Vec::new();
    for (line, number) in text.split_inclusive('\n').zip(1_u32..) {
        let Some(line) = line.strip_suffix('\n') else {
            return Ok((entries, false));
        };
        entries.push(serde_json::from_str(line).map_err(|error| {
            format!(
                "{JOURNAL}, line {number}: {error}; nothing was changed. It was written by another version, or by \
                 hand: restore by what it says, then remove it"
            )
        })?);
    }
    Ok((entries, true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_cut_short_is_left_out_and_nothing_else_is_guessed() {
        let entry = Entry::Value {
            path: "/proc/sys/x".to_owned(),
            was: "1\t2".to_owned(),
            becomes: "3".to_owned(),
        };
        let text = written(&[entry.clone(), entry.clone()]);
        assert_eq!(
            parse(&text).unwrap(),
            (vec![entry.clone(), entry.clone()], true)
        );
        for cut in 1..text.len() / 2 {
            let (entries, whole) = parse(&text[..text.len() - cut]).unwrap();
            assert_eq!(entries, std::slice::from_ref(&entry));
            assert!(!whole || cut == text.len() / 2);
        }
        assert!(parse("nonsense\n").unwrap_err().contains("line 1"));
    }
}
