//! `sstp-tune apply` and `undo`: what the operator chose, and back.
//!
//! ```text
//! findings ─▶ chosen points ─▶ operations ─▶ for each: journal, fsync, change
//! journal, backwards ─▶ what was there first ─▶ change, then the journal goes
//! ```
//!
//! Nothing is changed that was not asked for by name. Each operation is skipped if what it would make is
//! there already, so that applying twice is applying once. A process that is killed leaves either the old
//! or the new state of each file and value, and in the journal the way back from both.

mod disk;
mod journal;
mod operations;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;

pub(crate) use self::disk::Disk;
use self::journal::{Entry, Journal, hint};
use self::operations::{Operation, of_points};
use crate::finding::Finding;

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// All that was asked for.
    Done,
    /// Not all of it; the text says what.
    InPart,
}

/// The points that could be chosen, with what would be done.
pub(crate) fn choices(findings: &[Finding]) -> String {
    let mut out = String::from(
        "Nothing was changed: name the points to apply. These can be chosen here:\n\n",
    );
    let can: Vec<&Finding> = findings.iter().filter(|f| !f.changes.is_empty()).collect();
    let name_len = can.iter().map(|f| f.point.name.len()).max().unwrap_or(0);
    for finding in &can {
        let _ = writeln!(
            out,
            "{:7}  {:name_len$}  {}",
            finding.state.word(),
            finding.point.name,
            finding.found
        );
    }
    if can.is_empty() {
        return "Nothing was changed, and nothing here is for `apply` to do; see `sstp-tune check`.\n"
            .to_owned();
    }
    out.push_str("\nWhat each would do: sstp-tune apply --dry-run POINT ...\n");
    out
}

/// Applies the points of these names. `Err` is wrong usage, or nothing was done at all.
pub(crate) fn apply(
    disk: &Disk,
    findings: &[Finding],
    points: &[String],
    dry_run: bool,
) -> Result<(String, Ending), String> {
    let mut out = String::new();
    let mut ending = Ending::Done;
    let mut chosen = Vec::new();
    for name in points {
        let Some(finding) = findings.iter().find(|f| f.point.name == name) else {
            return Err(format!(
                "there is no point `{name}`; `sstp-tune apply` lists those that can be chosen"
            ));
        };
        if !finding.changes.is_empty() {
            chosen.push(finding);
        } else if let Some(set) = &finding.set {
            ending = Ending::InPart;
            let _ = writeln!(out, "{name}: this is for you to do: {set}");
        } else {
            let _ = writeln!(out, "{name}: nothing to do ({})", finding.found);
        }
    }
    let operations = of_points(disk, &chosen)?;
    if dry_run {
        for operation in &operations {
            let _ = writeln!(out, "would {operation}");
        }
        if operations.is_empty() {
            out.push_str("nothing to change\n");
        }
        return Ok((out, ending));
    }
    if operations.is_empty() {
        out.push_str("nothing to change\n");
        return Ok((out, ending));
    }
    let mut journal = Journal::open(disk)?;
    for operation in &operations {
        let _ = match perform(disk, &mut journal, operation) {
            Ok(()) => writeln!(out, "{operation}"),
            Err(why) => {
                ending = Ending::InPart;
                writeln!(out, "FAILED to {operation}: {why}")
            }
        };
    }
    if operations.iter().any(Operation::is_unit) {
        out.push_str(
            "The unit takes its lines with: systemctl daemon-reload && systemctl restart sstp-gw\n",
        );
    }
    out.push_str("To restore what was: sstp-tune undo\n");
    Ok((out, ending))
}

fn perform(disk: &Disk, journal: &mut Journal<'_>, operation: &Operation) -> Result<(), String> {
    let explain = |error: std::io::Error| format!("{error}{}", hint(&error));
    match operation {
        Operation::Dir { path } => {
            journal.append(Entry::Dir { path: path.clone() })?;
            disk.make_dir(path).map_err(explain)
        }
        Operation::File { path, text, .. } => {
            let was = disk.text(path).map_err(explain)?;
            let owner = match was {
                Some(_) => Some(disk.owner(path).map_err(explain)?),
                None => None,
            };
            journal.append(Entry::File {
                path: path.clone(),
                was,
                owner,
                becomes: text.clone(),
            })?;
            disk.replace(path, text, owner).map_err(explain)
        }
        Operation::Value { path, value, .. } => {
            let was = disk.value(path).map_err(explain)?;
            journal.append(Entry::Value {
                path: path.clone(),
                was,
                becomes: value.clone(),
            })?;
            disk.set(path, value).map_err(explain)
        }
    }
}

/// Restores everything that the journal tells of.
pub(crate) fn undo(disk: &Disk, dry_run: bool, force: bool) -> Result<(String, Ending), String> {
    let mut journal = Journal::open(disk)?;
    let entries = journal.entries.clone();
    if entries.is_empty() {
        // What a process left that was killed before it had kept anything.
        journal.keep(Vec::new())?;
        return Ok(("nothing to undo\n".to_owned(), Ending::Done));
    }
    let mut out = String::new();
    let mut left: Vec<Entry> = Vec::new();
    let mut seen: Vec<&str> = Vec::new();
    for entry in entries.iter().rev() {
        let path = entry.path();
        if seen.contains(&path) {
            continue;
        }
        seen.push(path);
        // What was there before the first change, and what any of the changes made of it.
        let ours: Vec<&Entry> = entries.iter().filter(|e| e.path() == path).collect();
        let Some(first) = ours.first() else { continue };
        if dry_run {
            let _ = writeln!(out, "would restore {path}");
            continue;
        }
        let _ = match restore(disk, first, &ours, force) {
            Ok(what) => writeln!(out, "{what} {path}"),
            Err(why) => {
                left.extend(ours.iter().map(|&entry| entry.clone()));
                writeln!(out, "LEFT {path}: {why}")
            }
        };
    }
    if dry_run {
        return Ok((out, Ending::Done));
    }
    let ending = match left.is_empty() {
        true => Ending::Done,
        false => Ending::InPart,
    };
    journal.keep(left)?;
    if seen.iter().any(|path| path.contains(".service.d")) {
        out.push_str(
            "The unit goes back with: systemctl daemon-reload && systemctl restart sstp-gw\n",
        );
    }
    Ok((out, ending))
}

const OTHERS: &str = "somebody changed it since; `sstp-tune undo --force` restores it all the same";

/// Puts back what `first` says was there; `ours` are all entries of that path.
fn restore(
    disk: &Disk,
    first: &Entry,
    ours: &[&Entry],
    force: bool,
) -> Result<&'static str, String> {
    let explain = |error: std::io::Error| format!("{error}{}", hint(&error));
    match first {
        Entry::Dir { path } => match disk.remove_dir(path).map_err(explain)? {
            true => Ok("removed"),
            false => Ok("kept, others have files in it:"),
        },
        Entry::File {
            path, was, owner, ..
        } => {
            let now = disk.text(path).map_err(explain)?;
            let known = ours.iter().any(|entry| match entry {
                Entry::File { was, becomes, .. } => now == *was || now.as_ref() == Some(becomes),
                _ => false,
            });
            if !known && now.is_some() && !force {
                return Err(OTHERS.to_owned());
            }
            match was {
                None => disk.remove(path).map_err(explain).map(|()| "removed"),
                Some(was) => disk
                    .replace(path, was, *owner)
                    .map_err(explain)
                    .map(|()| "restored"),
            }
        }
        Entry::Value { path, was, .. } => {
            let now = match disk.value(path) {
                Ok(now) => now,
                // A card or an interrupt that has gone has no value to go back to.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok("gone:"),
                Err(error) => return Err(explain(error)),
            };
            let same = |a: &str, b: &str| a.split_whitespace().eq(b.split_whitespace());
            let known = ours.iter().any(|entry| match entry {
                Entry::Value { was, becomes, .. } => same(&now, was) || same(&now, becomes),
                _ => false,
            });
            if !known && !force {
                return Err(format!("it is {now} now; {OTHERS}"));
            }
            if !same(&now, was) {
                disk.set(path, was).map_err(explain)?;
            }
            Ok("restored")
        }
    }
}

impl Entry {
    fn path(&self) -> &str {
        match self {
            Self::File { path, .. } | Self::Value { path, .. } | Self::Dir { path } => path,
        }
    }
}
