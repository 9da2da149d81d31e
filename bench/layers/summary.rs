//! What to look at after a run: the paths whose time changed beside the run that they were compared with.
//!
//! criterion says so of each path where it stands in the log; 70 paths later nobody sees it.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::Value;

/// Changes below this are not told: on a shared machine they are there without any cause.
const TOLD: f64 = 0.05;

/// Prints it for `names`, as far as they were compared since `start`.
pub(crate) fn print(names: &[String], start: SystemTime) {
    let changes: Vec<_> = names
        .iter()
        .filter_map(|name| Some((name, Change::read(&file(name), start)?)))
        .collect();
    if changes.is_empty() {
        return;
    }
    let (slower, faster) = (
        changes.iter().filter(|(_, change)| change.is_slower()),
        changes.iter().filter(|(_, change)| change.is_faster()),
    );
    let percent = |part: f64| part * 100.0;
    let mut medians: Vec<_> = changes.iter().map(|(_, change)| change.median).collect();
    medians.sort_by(f64::total_cmp);
    println!(
        "{} paths compared: {} slower, {} faster by 5 % at least, whole interval; \
         {:+.1} % in the middle of all, which is the machine's doing rather than a path's",
        changes.len(),
        slower.clone().count(),
        faster.clone().count(),
        percent(medians[medians.len() / 2])
    );
    for (name, change) in slower.chain(faster) {
        println!(
            "  {name:40} {:+7.1} %   ({:+.1} … {:+.1})",
            percent(change.median),
            percent(change.low),
            percent(change.high)
        );
    }
}

/// By which part a path's median changed, and the interval that this is in.
#[derive(Debug)]
struct Change {
    median: f64,
    low: f64,
    high: f64,
}

impl Change {
    fn read(file: &Path, start: SystemTime) -> Option<Self> {
        let is_new = fs::metadata(file).ok()?.modified().ok()? >= start;
        let text = is_new.then(|| fs::read_to_string(file).ok())??;
        let estimates: Value = serde_json::from_str(&text).ok()?;
        let median = estimates.get("median")?;
        let interval = median.get("confidence_interval")?;
        Some(Self {
            median: median.get("point_estimate")?.as_f64()?,
            low: interval.get("lower_bound")?.as_f64()?,
            high: interval.get("upper_bound")?.as_f64()?,
        })
    }

    fn is_slower(&self) -> bool {
        self.low >= TOLD
    }

    fn is_faster(&self) -> bool {
        self.high <= -TOLD
    }
}

/// Where criterion leaves how a path changed.
fn file(name: &str) -> PathBuf {
    let (layer, rest) = name.split_once('/').unwrap_or((name, ""));
    let directory = directory().join(layer).join(rest.replace('/', "_"));
    directory.join("change").join("estimates.json")
}

/// `target/criterion`, as cargo builds this program in `target/release/deps`.
fn directory() -> PathBuf {
    let program = env::current_exe().unwrap_or_default();
    let target = program.ancestors().nth(3).map(Path::to_path_buf);
    env::var_os("CRITERION_HOME").map_or_else(
        || target.unwrap_or_default().join("criterion"),
        PathBuf::from,
    )
}
