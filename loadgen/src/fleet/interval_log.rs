//! `--hdr-out`: the distributions of every second as an HdrHistogram interval log (format 1.3), which
//! HistogramLogAnalyzer, HistogramLogProcessor and the like read.
//!
//! One line a second and distribution, told apart by its tag: `setup`, `phase_tls` and the other
//! phases, `lcp_echo`, `latency`, `start_lateness`, `send_lateness`. Values are nanoseconds to three
//! digits (the maximum on each line is in milliseconds, as is the custom), starts count from the first
//! planned start. A line is written as soon as its second is over, so a run that is killed leaves its
//! log.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use datapath::sys::clock;
use datapath::time::Duration;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

use super::sample::{INTERVAL, Metric};
use super::tally::Times;
use super::timeline::Second;

/// From nanoseconds to what the maximum of a line is in.
const MAX_DIVISOR: f64 = 1e6;

/// A log that is being written.
#[derive(Debug)]
pub(super) struct IntervalLog {
    out: BufWriter<File>,
}

impl IntervalLog {
    /// Begins one at `path`; what was there is gone.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let mut log = Self {
            out: BufWriter::new(File::create(path)?),
        };
        log.begin()?;
        Ok(log)
    }

    fn begin(&mut self) -> io::Result<()> {
        let now = clock::wall_clock();
        writeln!(
            self.out,
            "#[Logged with loadgen {}]\n#[Histogram log format version 1.3]\n\
             #[StartTime: {:.3} (seconds since epoch)]\n#[BaseTime: 0.000 (seconds since epoch)]\n\
             \"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"",
            env!("CARGO_PKG_VERSION"),
            now.as_secs_f64()
        )?;
        self.out.flush()
    }

    /// Adds the lines of a second.
    pub(super) fn add(&mut self, second: &Second) -> io::Result<()> {
        for metric in Metric::all() {
            if let Some(times) = second.distributions.of(metric) {
                self.line(second.second, &metric.name(), times)?;
            }
        }
        self.out.flush()
    }

    fn line(&mut self, second: u32, tag: &str, times: &Times) -> io::Result<()> {
        let mut text = Vec::new();
        let mut builder = IntervalLogWriterBuilder::new();
        builder.with_max_value_divisor(MAX_DIVISOR);
        builder
            .begin_log_with(&mut text, &mut V2DeflateSerializer::new())?
            .write_histogram(
                times.histogram(),
                Duration::from_secs(second.into()),
                INTERVAL,
                Tag::new(tag),
            )
            .map_err(|error| io::Error::other(error.to_string()))?;
        // The writer begins with a comment on the divisor each time.
        let line = text.split(|&byte| byte == b'\n').nth(1).unwrap_or_default();
        self.out.write_all(line)?;
        self.out.write_all(b"\n")
    }
}

#[cfg(test)]
mod tests {
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::super::sample::Distributions;
    use super::*;

    #[test]
    fn the_log_can_be_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.hlog");
        let mut log = IntervalLog::create(&path).unwrap();
        for second in [3, 4] {
            let mut times = Times::default();
            times.record(Duration::from_micros(1_500));
            times.record(Duration::from_millis(u64::from(second) * 10));
            let distributions = Distributions::with(Metric::Phase(1), times);
            let second = Second {
                second,
                distributions,
                ..Second::default()
            };
            log.add(&second).unwrap();
        }
        let text = std::fs::read(&path).unwrap();
        let lines = IntervalLogIterator::new(&text).filter_map(|entry| match entry.unwrap() {
            LogEntry::Interval(line) => Some(line),
            _ => None,
        });
        let lines: Vec<_> = lines.collect();
        assert_eq!(lines.len(), 2, "{}", String::from_utf8_lossy(&text));
        let line = &lines[1];
        assert_eq!(line.tag().unwrap().as_str(), "phase_tls");
        assert_eq!(line.start_timestamp(), Duration::from_secs(4));
        assert_eq!(line.duration(), Duration::from_secs(1));
        assert!(
            (line.max() - 40.0).abs() < 0.1,
            "milliseconds: {}",
            line.max()
        );
        // What is between the commas is a histogram in nanoseconds, in the crate's own base64.
        let encoded = line.encoded_histogram();
        assert!(encoded.starts_with("HISTFAA"), "V2, compressed: {encoded}");
    }
}
