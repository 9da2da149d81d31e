//! What the tests of the whole stand on: the real binaries, their lines, and namespaces to run in.
//!
//! A test that cannot run on this host says so with [`skip`] and returns; it is counted as skipped by
//! `tests/run`, never as passed.

pub mod gateway;

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

/// Bounds every wait for a line or an end; nothing here takes a tenth of it on an idle machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The binary `name` of the profile that this test was built with.
///
/// # Panics
/// When it was not built: `cargo build --workspace --bins`.
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("this test has a path");
    let path = test
        .parent()
        .and_then(Path::parent)
        .expect("it lies in target/PROFILE/deps")
        .join(name);
    assert!(
        path.exists(),
        "{} is not built; cargo build --workspace --bins",
        path.display()
    );
    path
}

/// Which driver the gateways and clients of a test have: the word of `shards.driver` and `--driver` that
/// `tests/run` put into SSTP_GW_DRIVER, by default `auto`.
pub fn driver() -> String {
    std::env::var("SSTP_GW_DRIVER").unwrap_or_else(|_| "auto".to_owned())
}

/// Says loudly that test `name` did not run, and why; in $SSTP_GW_SKIPPED too.
///
/// # Panics
/// When that file cannot be written: a test must not be skipped in silence.
pub fn skip(name: &str, why: &str) {
    eprintln!("SKIPPED {name}: {why}");
    if let Some(path) = std::env::var_os("SSTP_GW_SKIPPED") {
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.create(true).append(true).open(path).unwrap();
        // One write, so that tests do not write into each other's lines.
        file.write_all(format!("{name}: {why}\n").as_bytes())
            .unwrap();
    }
}

/// Whether this process is root.
pub fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

/// A process whose lines, of standard output and error together, are read as they come. Killed when
/// dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Running {
    /// Starts it, without input.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let (sender, lines) = mpsc::channel();
        read_lines(child.stdout.take().expect("it is piped"), sender.clone());
        read_lines(child.stderr.take().expect("it is piped"), sender);
        Self {
            child,
            lines,
            seen: Vec::new(),
        }
    }

    /// The first line that has `text` in it, from those said already on.
    ///
    /// # Panics
    /// When the process ends or a minute passes without such a line.
    pub fn line(&mut self, text: &str) -> String {
        self.nth_line(text, 1)
    }

    /// The `n`th line that has `text` in it, counted from one.
    ///
    /// # Panics
    /// As [`Running::line`].
    pub fn nth_line(&mut self, text: &str, n: usize) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut found = self.seen.iter().filter(|line| line.contains(text));
            if let Some(line) = found.nth(n - 1) {
                return line.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => self.seen.push(line),
                Err(why) => panic!(
                    "{}, and {n} times {text:?} was not among its lines:\n{}",
                    match why {
                        RecvTimeoutError::Timeout => "a minute passed",
                        RecvTimeoutError::Disconnected => "it ended",
                    },
                    self.seen.join("\n")
                ),
            }
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal, named as `kill` does.
    ///
    /// # Panics
    /// When that fails.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(status.is_ok_and(|status| status.success()), "kill {name}");
    }

    /// Kills it, and waits until it is gone.
    ///
    /// # Panics
    /// When that fails.
    pub fn kill(&mut self) {
        self.child.kill().expect("it is a child of ours");
        self.child.wait().expect("it is a child of ours");
    }

    /// Waits for its end; its status, and all that it said.
    ///
    /// # Panics
    /// When it does not end in a minute.
    pub fn end(mut self) -> (ExitStatus, String) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    panic!("it does not end:\n{}", self.seen.join("\n"))
                }
            }
        }
        let status = self.child.wait().expect("it is a child of ours");
        (status, self.seen.join("\n"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_lines(from: impl Read + Send + 'static, to: Sender<String>) {
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if to.send(line).is_err() {
                break;
            }
        }
    });
}

/// A network namespace of its own with loopback up, gone when this is.
#[derive(Debug)]
pub struct Namespace {
    holder: Running,
    /// Its end keeps the holder alive, and ends it even if this process is killed.
    _input: std::process::ChildStdin,
}

impl Namespace {
    /// Makes one in which TUN devices can be made.
    ///
    /// # Errors
    /// Why this host does not allow it, in words for [`skip`].
    pub fn new() -> Result<Self, String> {
        if !is_root() {
            return Err("needs root, for a network namespace with a TUN device".to_owned());
        }
        let script = "ip link set lo up && ip tuntap add dev probe mode tun multi_queue && \
                      ip link del probe && echo it stands && exec cat";
        let mut child = Command::new("unshare")
            .args(["--net", "sh", "-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("no unshare (package util-linux): {error}"))?;
        let input = child.stdin.take().expect("it is piped");
        let (sender, lines) = mpsc::channel();
        read_lines(child.stdout.take().expect("it is piped"), sender.clone());
        read_lines(child.stderr.take().expect("it is piped"), sender);
        let mut seen = Vec::new();
        while let Ok(line) = lines.recv_timeout(PATIENCE) {
            if line == "it stands" {
                let holder = Running { child, lines, seen };
                return Ok(Self {
                    holder,
                    _input: input,
                });
            }
            seen.push(line);
        }
        let _ = child.wait();
        Err(format!(
            "no network namespace with a TUN device: {}",
            seen.join("; ")
        ))
    }

    /// The process that holds it.
    pub fn id(&self) -> u32 {
        self.holder.child.id()
    }

    /// `program`, to be run inside.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.holder.child.id()));
        command.arg("--").arg(program);
        command
    }

    /// What `script` says inside, of a shell.
    ///
    /// # Panics
    /// When it fails.
    pub fn shell(&self, script: &str) -> String {
        let output = self.command("bash").args(["-c", script]).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script}: {errors}");
        String::from_utf8(output.stdout).expect("commands speak UTF-8")
    }
}
