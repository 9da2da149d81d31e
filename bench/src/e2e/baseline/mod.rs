//! This tree's gateway beside that of another commit, both driven by the harness of this tree.
//!
//! A round starts both anew, in a network of its own and in exchanged places, and measures every figure in
//! the order A B B A: what drifts meets both, and what is luck of one process (where its pages lie, which
//! seeds it drew) differs from round to round and is in the spread.

mod judge;
mod report;
mod revision;
mod rows;

use std::io;
use std::path::Path;
use std::thread;

use datapath::sys::limits;

use super::process::Workspace;
use super::report::Report as Host;
use super::{Options, gateway};

pub use judge::{Interval, Verdict};
pub use report::{Comparison, Row};
pub use revision::Revision;

use rows::Series;

/// Rounds beyond those without which nothing can be called: as many may contradict.
const ROUNDS_MORE: u32 = 4;

/// Measures this tree against the commit that git knows as `name`. Needs root.
///
/// # Errors
///
/// If there is no such commit, its gateway cannot be built, or does not take this tree's configuration.
pub fn run(options: &Options, name: &str) -> io::Result<Comparison> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let names: Vec<&str> = rows::names().filter(|name| options.wants(name)).collect();
    if names.is_empty() {
        let all: Vec<&str> = rows::names().collect();
        let message = format!(
            "with --baseline there is no such figure; there are {}",
            all.join(", ")
        );
        return Err(io::Error::other(message));
    }
    let baseline = Revision::find(&root, name)?;
    let this = Revision::here(&root)?;
    let old = baseline.gateway(&root)?;
    gateway::build()?;
    let new = gateway::binary("sstp-gw")?;
    limits::raise_open_files()?;
    let workspace = Workspace::new()?;

    let error_max = judge::ERROR_MAX / names.len() as f64;
    let enough = judge::rounds_min(error_max);
    let rounds = if options.is_quick {
        enough
    } else {
        options.reps.max(enough + ROUNDS_MORE)
    };
    let host = Host::new(&Options {
        reps: rounds,
        ..options.clone()
    });
    let mut series = Series::new(&names);
    let measure = || -> io::Result<()> {
        for round in 0..rounds {
            rows::round(options, &workspace, [&new, &old], round, &mut series)
                .map_err(|error| explain(error, &baseline))?;
            eprintln!("round {} of {rounds}:{}", round + 1, series.last());
        }
        Ok(())
    };
    // A thread of its own: it moves to other networks, and what it starts ends with it.
    thread::scope(|scope| scope.spawn(measure).join())
        .map_err(|_| io::Error::other("the harness panicked"))??;
    Ok(Comparison {
        host,
        this,
        baseline,
        error_max: judge::ERROR_MAX,
        comparisons: series.rows(error_max),
    })
}

/// Says whose fault it is that a gateway did not do what it should.
fn explain(error: io::Error, baseline: &Revision) -> io::Error {
    let text = error.to_string();
    if !text.contains(rows::BASELINE) {
        return error;
    }
    let message = format!(
        "the gateway of {} ({}) cannot be driven by this tree's harness: it may be older than the configuration, or a \
         command, that the harness uses. Name a later commit.\n{text}",
        baseline.short(),
        baseline.subject
    );
    io::Error::other(message)
}
