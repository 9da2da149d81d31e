//! CPU time of a process, read from the outside, in more than one way.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::Command;

use datapath::time::Duration;

use super::process;

/// `/proc/PID/stat` counts in hundredths of a second on every Linux that Rust knows.
const TICK: Duration = Duration::from_millis(10);

/// Reads the CPU time, user and system, of a process with all its threads.
#[derive(Clone, Debug)]
pub(super) struct Meter {
    cgroup: Option<PathBuf>,
    pid: u32,
}

/// The same span of time, measured in different ways.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Readings {
    pub(super) cgroup: Option<Duration>,
    /// Sum of the threads' run time.
    pub(super) schedstat: Option<Duration>,
    /// What `getrusage` and `ps` say.
    pub(super) stat: Option<Duration>,
}

impl Meter {
    pub(super) const fn new(cgroup: Option<PathBuf>, pid: u32) -> Self {
        Self { cgroup, pid }
    }

    /// By the control group where there is one, else by the threads.
    pub(super) fn read(&self) -> io::Result<Duration> {
        let readings = Readings {
            stat: None,
            ..self.readings()
        };
        readings
            .cgroup
            .or(readings.schedstat)
            .ok_or_else(|| io::Error::other(format!("process {} is gone", self.pid)))
    }

    /// In every way this host has but `perf`.
    pub(super) fn readings(&self) -> Readings {
        let group = self.cgroup.as_ref().map(|path| path.join("cpu.stat"));
        let cgroup = group.and_then(|path| of_cpu_stat(&fs::read_to_string(path).ok()?));
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid));
        Readings {
            cgroup,
            schedstat: self.threads(),
            stat: stat.ok().and_then(|text| of_proc_stat(&text)),
        }
    }

    fn threads(&self) -> Option<Duration> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid)).ok()?;
        let texts = tasks
            .flatten()
            .filter_map(|task| fs::read_to_string(task.path().join("schedstat")).ok());
        let times = texts.filter_map(|text| of_schedstat(&text));
        Some(times.sum())
    }

    /// Starts `perf stat` on the process for `seconds`; `None` without perf.
    pub(super) fn perf(&self, seconds: f64) -> Option<std::thread::JoinHandle<Option<Duration>>> {
        let perf = process::find("perf")?;
        let mut command = Command::new(perf);
        command.args(["stat", "-x,", "-e", "task-clock", "-p"]);
        command.arg(self.pid.to_string());
        command.args(["--", "sleep", &seconds.to_string()]);
        Some(std::thread::spawn(move || {
            let output = command.output().ok()?;
            of_perf(&String::from_utf8_lossy(&output.stderr))
        }))
    }
}

/// `usage_usec` of a control group.
fn of_cpu_stat(text: &str) -> Option<Duration> {
    let usage = text
        .lines()
        .find_map(|line| line.strip_prefix("usage_usec "))?;
    Some(Duration::from_micros(usage.trim().parse().ok()?))
}

/// The first of three numbers: nanoseconds on a processor.
fn of_schedstat(text: &str) -> Option<Duration> {
    let first = text.split_whitespace().next()?;
    Some(Duration::from_nanos(first.parse().ok()?))
}

/// `utime` and `stime`, fields 14 and 15; the name, field 2, may have anything in it.
fn of_proc_stat(text: &str) -> Option<Duration> {
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u32>().ok();
    Some(TICK * ticks()?.checked_add(ticks()?)?)
}

/// Milliseconds in the first field of the line of `task-clock`.
fn of_perf(text: &str) -> Option<Duration> {
    let line = text.lines().find(|line| line.contains("task-clock"))?;
    let value: f64 = line.split(',').next()?.trim().parse().ok()?;
    Duration::try_from_secs_f64(value / 1e3).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_in_what_the_kernel_prints() {
        let text = "usage_usec 1234567\nuser_usec 1000000\nsystem_usec 234567\n";
        assert_eq!(of_cpu_stat(text), Some(Duration::from_micros(1_234_567)));
        assert_eq!(of_cpu_stat("user_usec 1\n"), None);
        assert_eq!(of_schedstat("17 3 5\n"), Some(Duration::from_nanos(17)));
        assert_eq!(of_schedstat(""), None);
        let text = "7 (a) b) S 1 7 7 0 -1 4194560 99 0 0 0 120 45 0 0 20 0 3 0 100 1 1";
        assert_eq!(of_proc_stat(text), Some(Duration::from_millis(1650)));
        assert_eq!(of_proc_stat("7 (sh) S 1"), None);
    }

    #[test]
    fn cpu_time_is_found_in_what_perf_prints() {
        let text = "1503.35,msec,task-clock,1503351234,100.00,0.752,CPUs utilized\n";
        assert_eq!(of_perf(text), Some(Duration::from_micros(1_503_350)));
        assert_eq!(of_perf("<not counted>,,task-clock,0,0.00\n"), None);
        assert_eq!(of_perf("perf: command not found\n"), None);
    }

    #[test]
    fn this_process_has_used_some() {
        let meter = Meter::new(None, std::process::id());
        let begun = meter.read().unwrap();
        let mut sum = 0_u64;
        while meter.read().unwrap() < begun + Duration::from_millis(1) {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(meter.readings().stat.is_some());
        assert!(Meter::new(None, u32::MAX).read().is_err());
    }
}
