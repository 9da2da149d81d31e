//! One run of one pump: starts its process, plays its clients, and sees to its end.

use std::io::{self, BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use crate::case::{Case, Direction};
use crate::check;
use crate::clients::Clients;
use crate::engine::Engine;
use crate::meter::Sample;
use crate::rig;

/// For a pump to be there, or to end.
const PATIENCE: Duration = Duration::from_secs(10);
/// A pump that is checked is ended when that is done.
const CHECK_SLICE: Duration = Duration::from_secs(120);

/// Slices until an engine that carries nothing has failed.
const TRIES: u32 = 3;

/// How to run a pump.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    /// Of the pump, and of all else.
    pub(crate) cpu: usize,
    pub(crate) beside: usize,
    pub(crate) warm_up: Duration,
    pub(crate) slice: Duration,
}

/// Measures `engine` once. A slice in which nothing was carried is tried again: on a busy machine the
/// clients may not have had a processor all the while.
pub(crate) fn measure(engine: Engine, case: Case, setting: Setting) -> io::Result<Sample> {
    for _ in 0..TRIES {
        let sample = measure_once(engine, case, setting)?;
        if sample.packets > 0 {
            return Ok(sample);
        }
    }
    Err(io::Error::other("it runs and carries nothing"))
}

fn measure_once(engine: Engine, case: Case, setting: Setting) -> io::Result<Sample> {
    let pump = Pump::start(engine, setting)?;
    let mut clients = Clients::connect(pump.port)?;
    let deadline = Instant::now() + setting.warm_up + setting.slice + PATIENCE;
    let fed = clients.feed(case, &pump.has_spoken, deadline);
    // A pump that has said what it measured hangs up on its clients.
    let sample = pump.answer().or_else(|error| fed.and(Err(error)));
    let sample = pump.end(sample)?;
    Ok(serde_json::from_str(&sample)?)
}

/// Checks what `engine` carries; tells how many packets it put out of order.
pub(crate) fn check(
    engine: Engine,
    direction: Direction,
    len: usize,
    setting: Setting,
) -> io::Result<u32> {
    let setting = Setting {
        slice: CHECK_SLICE,
        ..setting
    };
    let pump = Pump::start(engine, setting)?;
    let device = pump.device.clone();
    let checked = Clients::connect(pump.port)
        .and_then(|mut clients| check::run(&mut clients, direction, len, &device));
    pump.end(checked)
}

/// A pump's process; it dies with this.
#[derive(Debug)]
struct Pump {
    child: Child,
    port: u16,
    device: String,
    /// It has said what it measured, or ended.
    has_spoken: Arc<AtomicBool>,
    lines: Receiver<String>,
    complaint: Receiver<String>,
}

impl Pump {
    fn start(engine: Engine, setting: Setting) -> io::Result<Self> {
        let millis = |time: Duration| time.as_millis().to_string();
        let mut child = Command::new("/proc/self/exe")
            .args(["pump", "--engine", &engine.argument()])
            .args(["--cpu", &setting.cpu.to_string()])
            .args(["--beside", &setting.beside.to_string()])
            .args(["--warm-up", &millis(setting.warm_up)])
            .args(["--slice", &millis(setting.slice)])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let piped = || io::Error::other("a pipe is missing");
        let stdout = child.stdout.take().ok_or_else(piped)?;
        let mut stderr = child.stderr.take().ok_or_else(piped)?;
        let has_spoken = Arc::new(AtomicBool::new(false));
        let (tell, lines) = mpsc::channel();
        let speaks = Arc::clone(&has_spoken);
        thread::spawn(move || {
            for (number, line) in BufReader::new(stdout)
                .lines()
                .map_while(Result::ok)
                .enumerate()
            {
                let _ = tell.send(line);
                if number > 0 {
                    speaks.store(true, Ordering::Relaxed);
                }
            }
            speaks.store(true, Ordering::Relaxed);
        });
        let (tell, complaint) = mpsc::channel();
        thread::spawn(move || {
            let mut text = String::new();
            let _ = stderr.read_to_string(&mut text);
            let _ = tell.send(text);
        });
        let mut pump = Self {
            child,
            port: 0,
            device: String::new(),
            has_spoken,
            lines,
            complaint,
        };
        let first = pump.answer();
        match first.as_ref().ok().and_then(|line| line.split_once(' ')) {
            Some((port, device)) => {
                pump.port = port.parse().map_err(io::Error::other)?;
                device.clone_into(&mut pump.device);
                Ok(pump)
            }
            None => Err(pump
                .end(first)
                .err()
                .unwrap_or_else(|| io::Error::other("it says nonsense"))),
        }
    }

    /// The next line it prints.
    fn answer(&self) -> io::Result<String> {
        let line = self.lines.recv_timeout(PATIENCE);
        line.map_err(|error| match error {
            mpsc::RecvTimeoutError::Timeout => io::Error::other("it hangs"),
            mpsc::RecvTimeoutError::Disconnected => io::Error::other("it ended"),
        })
    }

    /// Ends it. If `result` is an error and the pump has complained, that is the error.
    fn end<T>(mut self, result: io::Result<T>) -> io::Result<T> {
        let status = self.child.try_wait();
        self.kill();
        if !self.device.is_empty() {
            rig::wait_until_gone(&self.device)?;
        }
        result.map_err(|error| {
            let text = self.complaint.recv_timeout(PATIENCE).unwrap_or_default();
            let text = complaint(&text);
            match status {
                // What its clients saw of it tells less.
                Ok(Some(status)) if status.code().is_none() => io::Error::other(
                    text.map_or_else(|| status.to_string(), |text| format!("{text} ({status})")),
                ),
                _ => text.map_or(error, io::Error::other),
            }
        })
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What a process printed when it died, in one line: the message of a panic, or the last line.
fn complaint(text: &str) -> Option<String> {
    let mut lines = text
        .lines()
        .skip_while(|line| !line.contains("panicked at"));
    let panic = lines.nth(1);
    let line = panic.or_else(|| text.lines().rfind(|line| !line.trim().is_empty()))?;
    let line = line.trim();
    Some(line.strip_prefix("engines: ").unwrap_or(line).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_process_is_understood() {
        assert_eq!(complaint(""), None);
        let complaint = |text| complaint(text).unwrap();
        assert_eq!(complaint("a warning\nengines: no memory\n\n"), "no memory");
        let panic = "\nthread 'pump' panicked at src/a.rs:1:2:\nout of luck\nnote: run with\n";
        assert_eq!(complaint(panic), "out of luck");
    }
}
