//! `bench/baseline.json`: what every path may cost, a line each so that a diff shows what changed.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::crate_root;
use super::tools::Tools;

/// What one run of a path costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// Instructions in user space, the C library's included.
    pub own: u64,
    /// Those in the cryptographic library.
    pub library: u64,
    /// Calls of the allocator that gave memory.
    pub allocations: u64,
}

/// What was counted, and with which tools.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Baseline {
    /// The tools it was counted with.
    pub made_with: Tools,
    /// By name.
    pub paths: Vec<(String, Cost)>,
}

/// As it is in the file; `serde_json`'s map sorts by name.
#[derive(Debug, Deserialize)]
struct Stored {
    made_with: Tools,
    paths: serde_json::Map<String, serde_json::Value>,
}

impl Baseline {
    /// What `name` may cost.
    #[must_use]
    pub fn cost(&self, name: &str) -> Option<Cost> {
        let mut paths = self.paths.iter();
        paths.find(|(path, _)| path == name).map(|(_, cost)| *cost)
    }

    /// Reads what [`Baseline::to_json`] wrote.
    ///
    /// # Errors
    ///
    /// If it is not that.
    pub fn from_json(text: &str) -> serde_json::Result<Self> {
        let stored: Stored = serde_json::from_str(text)?;
        let paths = stored.paths.into_iter();
        let paths = paths
            .map(|(name, value)| serde_json::from_value(value).map(|cost| (name, cost)))
            .collect::<serde_json::Result<_>>()?;
        Ok(Self {
            made_with: stored.made_with,
            paths,
        })
    }

    /// The file's text.
    ///
    /// # Errors
    ///
    /// Never: all of it is text and numbers.
    pub fn to_json(&self) -> serde_json::Result<String> {
        let mut text = "{\n  \"made_with\": ".to_owned();
        let tools = serde_json::to_string_pretty(&self.made_with)?;
        text.push_str(&tools.replace('\n', "\n  "));
        text.push_str(",\n  \"paths\": {\n");
        for (at, (name, cost)) in self.paths.iter().enumerate() {
            let comma = if at + 1 == self.paths.len() { "" } else { "," };
            let name = serde_json::to_string(name)?;
            let cost = serde_json::to_string(cost)?;
            let _ = writeln!(text, "    {name}: {cost}{comma}");
        }
        text.push_str("  }\n}\n");
        Ok(text)
    }
}

/// What becomes the baseline: `counted`, and of `known` what was not counted if only a part was.
#[must_use]
pub fn merge(known: Option<Baseline>, counted: Baseline, is_partial: bool) -> Baseline {
    let kept = known.filter(|_| is_partial).map_or_else(Vec::new, |known| {
        let mut paths = known.paths;
        paths.retain(|(name, _)| counted.cost(name).is_none());
        paths
    });
    let mut paths = [kept, counted.paths].concat();
    paths.sort_by(|(a, _), (b, _)| a.cmp(b));
    Baseline {
        made_with: counted.made_with,
        paths,
    }
}

fn path() -> PathBuf {
    crate_root().join("baseline.json")
}

/// The committed baseline; `None` if there is none yet.
///
/// # Errors
///
/// If it cannot be read, or is none.
pub fn load() -> io::Result<Option<Baseline>> {
    match fs::read_to_string(path()) {
        Ok(text) => Baseline::from_json(&text).map(Some).map_err(|error| {
            io::Error::other(format!(
                "bench/baseline.json: {error}; `bench gate --update` writes it anew"
            ))
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes the baseline.
///
/// # Errors
///
/// If it cannot be written.
pub fn store(baseline: &Baseline) -> io::Result<()> {
    fs::write(path(), baseline.to_json()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn baseline(paths: &[(&str, u64)]) -> Baseline {
        let cost = |&(name, own): &(&str, u64)| {
            let cost = Cost {
                own,
                library: 5,
                allocations: 3,
            };
            (name.to_owned(), cost)
        };
        Baseline {
            made_with: Tools::here(),
            paths: paths.iter().map(cost).collect(),
        }
    }

    #[test]
    fn what_is_written_can_be_read_and_has_a_line_for_each_path() {
        let written = baseline(&[("a/b/1", 7), ("a/c/1", 8)]);
        let text = written.to_json().unwrap();
        assert!(text.contains("\n    \"a/b/1\": {\"own\":7,\"library\":5,\"allocations\":3},\n"));
        assert_eq!(Baseline::from_json(&text).unwrap(), written);
    }

    #[test]
    fn a_part_replaces_its_own_paths_and_the_whole_all() {
        let known = baseline(&[("a/b/1", 1), ("c/d/1", 2)]);
        let counted = baseline(&[("c/d/1", 9)]);
        let part = merge(Some(known.clone()), counted.clone(), true);
        assert_eq!(part.paths, baseline(&[("a/b/1", 1), ("c/d/1", 9)]).paths);
        assert_eq!(merge(Some(known), counted.clone(), false), counted);
    }

    #[test]
    fn the_committed_baseline_has_every_path_and_no_other() {
        let committed = load().unwrap().expect("bench/baseline.json");
        let mut paths: Vec<String> = crate::paths::counted().map(|path| path.name).collect();
        paths.sort();
        let known: Vec<String> = committed.paths.into_iter().map(|(name, _)| name).collect();
        assert_eq!(known, paths, "`bench gate --update` adds what is new");
    }
}
