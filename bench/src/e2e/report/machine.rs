//! Where and when figures were measured: two reports can be compared as far as these agree.

use std::fmt;
use std::fs;
use std::process::Command;

use serde::Serialize;

use super::super::process;

/// The host, as it was when the run began.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Machine {
    /// Release of the running kernel.
    pub kernel: String,
    /// Name of the processor.
    pub processor: String,
    /// How many of them this process may use.
    pub processors: usize,
    /// Runnable threads on average over 1, 5 and 15 minutes: what else was running.
    pub load_average: Vec<f64>,
}

impl Machine {
    /// This one, now.
    #[must_use]
    pub fn here() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let load = read("/proc/loadavg");
        let load = load.split(' ').take(3);
        Self {
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            processor: model(&read("/proc/cpuinfo")),
            processors: datapath::sys::affinity::cpus().len(),
            load_average: load.filter_map(|value| value.parse().ok()).collect(),
        }
    }
}

/// In one line, with the load of the last minute.
impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let load = self.load_average.first().copied().unwrap_or(f64::NAN);
        let (kernel, processor) = (&self.kernel, &self.processor);
        write!(
            f,
            "Linux {kernel}, {processor}, load average {load:.2} at start"
        )
    }
}

fn model(cpuinfo: &str) -> String {
    let mut lines = cpuinfo.lines();
    let name = lines.find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    name.map_or("", |(_, name)| name).to_owned()
}

/// The commit of the sources, with `-dirty` if they are not as it has them; empty outside of git.
pub(super) fn commit() -> String {
    let mut git = Command::new("git");
    git.args(["-C", env!("CARGO_MANIFEST_DIR")]);
    git.args([
        "describe",
        "--always",
        "--abbrev=12",
        "--exclude=*",
        "--dirty",
    ]);
    process::run(&mut git).map_or_else(|_| String::new(), |text| text.trim().to_owned())
}

/// The command that this program was started with, as a shell takes it; without passwords.
pub(super) fn command() -> String {
    format!(
        "cargo run --release -p bench --{}",
        shown(std::env::args().skip(1))
    )
}

fn shown(arguments: impl Iterator<Item = String>) -> String {
    let mut text = String::new();
    let mut is_secret = false;
    for argument in arguments {
        text.push(' ');
        if std::mem::take(&mut is_secret) {
            text.push('…');
            continue;
        }
        match argument.split_once('=') {
            Some((flag, _)) if flag.ends_with("password") => text += &format!("{flag}=…"),
            _ if argument.contains(|c: char| c.is_whitespace() || c == '\'') => {
                text += &format!("'{}'", argument.replace('\'', "'\\''"));
            }
            _ => text += &argument,
        }
        is_secret = argument.starts_with("--") && argument.ends_with("password");
    }
    text
}

/// A time in seconds since 1970-01-01 as a date and time of day, UTC.
pub(crate) fn utc(seconds: u64) -> String {
    let (mut day, rest) = (seconds / 86_400, seconds % 86_400);
    let mut year = 1970;
    let leaps =
        |year: u64| year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    while day >= 365 + u64::from(leaps(year)) {
        day -= 365 + u64::from(leaps(year));
        year += 1;
    }
    let february = 28 + u64::from(leaps(year));
    let mut month = 1;
    for days in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if day < days {
            break;
        }
        day -= days;
        month += 1;
    }
    let (hour, minute) = (rest / 3_600, rest % 3_600 / 60);
    format!("{year}-{month:02}-{:02} {hour:02}:{minute:02} UTC", day + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_told_as_far_as_it_is_known() {
        let machine = Machine::here();
        assert!(machine.processors > 0 && machine.load_average.len() == 3);
        assert_eq!(
            model("a: b\nmodel name\t: Fast\nmodel name\t: Other\n"),
            "Fast"
        );
        assert_eq!(model(""), "");
    }

    #[test]
    fn a_command_is_shown_without_its_passwords() {
        let shown = |words: &[&str]| shown(words.iter().map(|&word| word.to_owned()));
        assert_eq!(shown(&["e2e", "--only", "a b"]), " e2e --only 'a b'");
        let secret = ["--sstp-password", "s3cret", "--reps", "3"];
        assert_eq!(shown(&secret), " --sstp-password … --reps 3");
        assert_eq!(shown(&["--sstp-password=s3cret"]), " --sstp-password=…");
    }

    #[test]
    fn seconds_are_dates() {
        assert_eq!(utc(0), "1970-01-01 00:00 UTC");
        // Before and on the leap day of a century that has one, and the days around.
        assert_eq!(utc(951_782_399), "2000-02-28 23:59 UTC");
        assert_eq!(utc(951_782_400), "2000-02-29 00:00 UTC");
        assert_eq!(utc(1_798_761_599), "2026-12-31 23:59 UTC");
        assert_eq!(utc(4_107_542_400), "2100-03-01 00:00 UTC");
    }
}
