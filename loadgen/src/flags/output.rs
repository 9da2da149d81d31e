//! The flags of what a run leaves behind, and of the commands that read it again.

use std::path::PathBuf;

use clap::Args;

use crate::compare::limit::Limit;

/// What is written about a run beside its JSON.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Output {
    /// Write the report as one HTML page with its plots to this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,

    /// Write the distributions of every second to this file, as an HdrHistogram interval log with a
    /// tag for each.
    #[arg(long, value_name = "FILE")]
    pub(crate) hdr_out: Option<PathBuf>,
}

/// Flags of `loadgen compare`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
A figure changed if it moved by more than its noise, which is the largest of: 5 % (10 % for a p99, 20 %
for a p99.9); the interquartile range of the figure over the seconds of either run; what chance does: for
a quantile, three by the square root of the values beyond it, for events three times the square root of
how many there were in both runs. A quantile with fewer than ten values beyond it is not judged, nor is a
maximum, nor times and rates of a run that was bound by its generator. --fail is on the change itself,
whatever the noise.

Examples:
  loadgen compare before.json after.json
  loadgen compare before.json after.json --fail 'latency_p99<+10%' --fail 'pps>-5%'")]
pub(crate) struct Compare {
    /// The report to compare with, as --json wrote it.
    #[arg(value_name = "A.json")]
    pub(crate) a: PathBuf,

    /// The report to compare.
    #[arg(value_name = "B.json")]
    pub(crate) b: PathBuf,

    /// End with code 99 unless the change from A to B keeps to this, such as latency_p99<+10% or
    /// pps>-5%; may be repeated.
    #[arg(long, value_name = "FIGURE<CHANGE")]
    pub(crate) fail: Vec<Limit>,

    /// Compare runs that were not asked for the same.
    #[arg(long)]
    pub(crate) force: bool,

    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Flags of `loadgen report`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  loadgen report storm.json --html storm.html")]
pub(crate) struct Page {
    /// The report, as --json wrote it.
    #[arg(value_name = "FILE.json")]
    pub(crate) file: PathBuf,

    /// The page to write; `-` is standard output.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: PathBuf,
}
