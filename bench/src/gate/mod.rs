//! The gate: what each of [`crate::paths`] costs in instructions and allocations, beside a baseline.
//!
//! ```text
//!  bench gate ── starts ──▶ valgrind --tool=callgrind … bench gate --here PATH ──▶ a count
//!      └── compares with baseline.json ──▶ table, and failure where a path grew
//! ```
//!
//! Those in the cryptographic library are told apart, since its compiler and the processor choose them.
//! Instructions do not depend on what else the machine does, nor on how fast it is: each path runs in a
//! process of its own, on the processor that valgrind plays (a Haswell, on every host that has AVX2),
//! without a randomised address space, with an empty environment. They do depend on the tools that made the
//! binary and on the C library in it, so the baseline says which those were; what comes of other tools is
//! told but does not fail. Allocations are counted by the allocator and always judged.

pub mod baseline;

mod callgrind;

pub mod tools;

pub mod verdict;

use std::fs;
use std::io;
use std::num::NonZero;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use self::baseline::{Baseline, Cost};
use self::tools::Tools;
use crate::paths::{self, Path};

/// What to do.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Only paths whose name has this in it.
    pub only: Option<String>,
    /// Makes what is counted the baseline.
    pub update: bool,
    /// Where what is counted is written too, as the baseline is.
    pub json: Option<PathBuf>,
}

/// Counts, compares, and tells; `false` if a path grew.
///
/// # Errors
///
/// If valgrind is not here, a traced run fails, or the baseline cannot be read or written.
pub fn run(options: &Options) -> io::Result<bool> {
    let known = baseline::load()?;
    let mut counted = Baseline {
        made_with: Tools::here(),
        paths: Vec::new(),
    };
    let only = options.only.as_deref().unwrap_or_default();
    let names = paths::counted().map(|path| path.name);
    let names: Vec<_> = names.filter(|name| name.contains(only)).collect();
    for (name, cost) in names.iter().zip(count_all(&names)) {
        counted.paths.push((name.clone(), cost?));
    }
    let verdict = verdict::judge(known.as_ref(), &counted, options.only.is_some());
    print!("{verdict}");
    if let Some(path) = &options.json {
        let sorted = baseline::merge(None, counted.clone(), false);
        fs::write(path, sorted.to_json()?)?;
    }
    if options.update {
        let merged = baseline::merge(known, counted, options.only.is_some());
        baseline::store(&merged)?;
        println!("bench/baseline.json is written: commit it with the change that explains it");
        return Ok(true);
    }
    Ok(verdict.is_good())
}

/// Runs the named path once, warmed up, and tells its allocations; for valgrind.
///
/// # Errors
///
/// If there is no such path, or it fails.
pub fn run_here(name: &str) -> io::Result<()> {
    let path = named(name).ok_or_else(|| io::Error::other("there is no such path"))?;
    // Made there, since a work need not go from thread to thread.
    let wanted = path.name.clone();
    let counted = thread::spawn(move || {
        let path = named(&wanted)?;
        // The stack of a thread begins at a page, whatever the arguments and the environment are.
        let (_, allocations) = paths::measure(&mut *path.make());
        Some(allocations)
    });
    let failed = || io::Error::other(format!("{name} failed"));
    let allocations = counted.join().ok().flatten().ok_or_else(failed)?;
    println!("{allocations}");
    Ok(())
}

fn named(name: &str) -> Option<Path> {
    paths::counted().find(|path| path.name == name)
}

/// What each of `names` costs; as many are counted at a time as there are processors.
fn count_all(names: &[String]) -> Vec<io::Result<Cost>> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut counted = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(name) = names.get(number) else {
                return counted;
            };
            counted.push((number, count(number, name)));
        }
    };
    let mut counted = thread::scope(|scope| {
        let processors = thread::available_parallelism().map_or(1, NonZero::get);
        let workers: Vec<_> = (0..processors).map(|_| scope.spawn(work)).collect();
        let counted = workers.into_iter().map(|worker| worker.join());
        counted
            .flat_map(|part| part.expect("it only waits"))
            .collect::<Vec<_>>()
    });
    counted.sort_by_key(|(number, _)| *number);
    counted.into_iter().map(|(_, cost)| cost).collect()
}

/// What the named path costs.
fn count(number: usize, name: &str) -> io::Result<Cost> {
    let profile = callgrind::Profile::new(number);
    let output = Command::new("valgrind")
        .args(profile.options())
        .arg(std::env::current_exe()?)
        .args(["gate", "--here", name])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .stdin(Stdio::null())
        .output()
        .map_err(|error| {
            io::Error::other(format!(
                "cannot run valgrind, which counts the instructions: {error}"
            ))
        })?;
    let failed = |why: &str| {
        let (status, said) = (output.status, String::from_utf8_lossy(&output.stderr));
        io::Error::other(format!("{name} under valgrind {why} ({status}): {said}"))
    };
    if !output.status.success() {
        return Err(failed("failed"));
    }
    let counted = profile.read()?;
    if counted.total == 0 {
        return Err(failed("counted nothing; are symbols stripped?"));
    }
    let told = String::from_utf8_lossy(&output.stdout);
    let allocations = told.trim().parse();
    Ok(Cost {
        own: counted.total - counted.library,
        library: counted.library,
        allocations: allocations.map_err(|_| failed("did not tell its allocations"))?,
    })
}

/// Where this crate is.
fn crate_root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
