//! From the changes of the chosen points to files and values.
//!
//! Three files are ours: one of `sysctl.d`, one drop-in of the unit, one of `tmpfiles.d` (which writes
//! values below `/sys` at each start). A line is replaced by its key and everything else in them is kept.

use std::fmt;

use super::disk::Disk;
use super::journal::hint;
use crate::finding::{Change, Finding};

const SYSCTL_FILE: &str = "/etc/sysctl.d/60-sstp-gw.conf";
const UNIT_DIR: &str = "/etc/systemd/system/sstp-gw.service.d";
const UNIT_FILE: &str = "/etc/systemd/system/sstp-gw.service.d/60-sstp-tune.conf";
const TMPFILES_FILE: &str = "/etc/tmpfiles.d/60-sstp-gw.conf";
/// Directories that may have to be made, outer ones first.
const DIRS: [&str; 6] = [
    "/etc",
    "/etc/sysctl.d",
    "/etc/tmpfiles.d",
    "/etc/systemd",
    "/etc/systemd/system",
    UNIT_DIR,
];

const HEADING: &str =
    "# Written by `sstp-tune apply`; `sstp-tune undo` restores what was here before.\n";

/// A key, and the whole line that says it.
type Line = (String, String);
/// Which key a line of a file is about.
type KeyOf<'a> = &'a dyn Fn(&str) -> Option<String>;

/// One thing that is done to the host.
#[derive(Debug)]
pub(crate) enum Operation {
    /// A directory that is not there yet.
    Dir { path: String },
    /// A file, replaced whole; and which lines are new in it, for people.
    File {
        path: String,
        text: String,
        lines: Vec<String>,
    },
    /// A value below `/proc` or `/sys`, and what it was, for people.
    Value {
        path: String,
        value: String,
        was: String,
    },
}

impl Operation {
    /// Whether systemd has to be told.
    pub(crate) fn is_unit(&self) -> bool {
        matches!(self, Self::File { path, .. } if path == UNIT_FILE)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dir { path } => write!(f, "make {path}"),
            Self::File { path, lines, .. } => {
                write!(f, "write {path}:")?;
                lines.iter().try_for_each(|line| write!(f, "\n    {line}"))
            }
            Self::Value { path, value, was } => write!(f, "set {path} to {value} (was {was})"),
        }
    }
}

/// What has to be done for these points; nothing that is as wanted already.
pub(crate) fn of_points(disk: &Disk, points: &[&Finding]) -> Result<Vec<Operation>, String> {
    let mut sysctl = Vec::new();
    let mut unit = Vec::new();
    let mut tmpfiles = Vec::new();
    let mut values = Vec::new();
    for change in points.iter().flat_map(|finding| &finding.changes) {
        match change {
            Change::Sysctl { key, value } => {
                sysctl.push((key.clone(), format!("{key} = {value}")));
                values.push((format!("/proc/sys/{}", key.replace('.', "/")), value));
            }
            Change::Value { path, value } => {
                tmpfiles.push((path.clone(), format!("w {path} - - - - {value}")));
                values.push((path.clone(), value));
            }
            Change::Now { path, value } => values.push((path.clone(), value)),
            Change::Unit { line } => {
                let key = line.split_once('=').map_or(*line, |(key, _)| key);
                unit.push((key.to_owned(), (*line).to_owned()));
            }
        }
    }
    let sysctl_key = |line: &str| {
        line.split_once('=')
            .map(|(key, _)| key.trim().replace('/', "."))
    };
    let unit_key = |line: &str| line.split_once('=').map(|(key, _)| key.trim().to_owned());
    let tmpfiles_key = |line: &str| line.split_whitespace().nth(1).map(str::to_owned);
    let files: [(&str, &str, Vec<Line>, KeyOf<'_>); 3] = [
        (SYSCTL_FILE, "", sysctl, &sysctl_key),
        (UNIT_FILE, "[Service]\n", unit, &unit_key),
        (TMPFILES_FILE, "", tmpfiles, &tmpfiles_key),
    ];
    let mut written = Vec::new();
    for (path, section, lines, key_of) in files {
        if lines.is_empty() {
            continue;
        }
        let was = disk
            .text(path)
            .map_err(|error| format!("{path}: {error}{}", hint(&error)))?;
        let text = merged(was.as_deref(), section, &lines, key_of);
        if was.as_deref() != Some(text.as_str()) {
            written.push(Operation::File {
                path: path.to_owned(),
                text,
                lines: lines.into_iter().map(|(_, line)| line).collect(),
            });
        }
    }
    let needs = |dir: &str| {
        written.iter().any(|operation| {
            matches!(operation, Operation::File { path, .. } if path.starts_with(&format!("{dir}/")))
        })
    };
    let mut operations: Vec<Operation> = DIRS
        .iter()
        .filter(|dir| needs(dir) && !disk.is_dir(dir))
        .map(|&dir| Operation::Dir {
            path: dir.to_owned(),
        })
        .collect();
    operations.extend(written);
    for (path, value) in values {
        let was = disk
            .value(&path)
            .map_err(|error| format!("{path}: {error}{}", hint(&error)))?;
        if !was.split_whitespace().eq(value.split_whitespace()) {
            operations.push(Operation::Value {
                path,
                value: value.clone(),
                was,
            });
        }
    }
    Ok(operations)
}

/// The file with these lines in it: each in the place of the one with its key, or at the end.
fn merged(was: Option<&str>, section: &str, lines: &[Line], key_of: KeyOf<'_>) -> String {
    let mut kept: Vec<String> = match was {
        Some(was) => was.lines().map(str::to_owned).collect(),
        None => format!("{HEADING}{section}")
            .lines()
            .map(str::to_owned)
            .collect(),
    };
    for (key, line) in lines {
        let is_comment = |text: &str| text.trim_start().starts_with(['#', ';', '[']);
        let place = kept
            .iter_mut()
            .find(|text| !is_comment(text) && key_of(text).as_ref() == Some(key));
        match place {
            Some(place) => place.clone_from(line),
            None => kept.push(line.clone()),
        }
    }
    let mut text = kept.join("\n");
    text.push('\n');
    text
}
