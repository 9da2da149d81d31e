//! Processes that the harness starts, and what it leaves behind: nothing.
//!
//! Whatever is started dies with the thread that started it (`setpriv --pdeathsig`), network namespaces
//! are held by processes and go with them, control groups and files lie under names made of our process
//! id and are swept at the end, by the handler of SIGINT and SIGTERM, and by the next run after a SIGKILL.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Read};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use datapath::sys::affinity;

use super::cpu::Meter;

const PREFIX: &str = "sstp-gw-e2e-";

/// Bounds every wait for a line.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where everything of one run lies.
#[derive(Debug)]
pub(super) struct Workspace {
    pub(super) directory: PathBuf,
    /// A control group of version 2 of our own, if this host lets us have one.
    cgroup: Option<PathBuf>,
    /// Processors, as they were before anybody was pinned.
    pub(super) cpus: Vec<usize>,
}

impl Workspace {
    /// Sweeps what dead runs left, makes a directory and a control group, and sees to it that both go
    /// when a signal ends us.
    pub(super) fn new() -> io::Result<Self> {
        for stale in stale() {
            sweep(stale);
        }
        let id = std::process::id();
        let directory = directory(id);
        fs::DirBuilder::new().mode(0o700).create(&directory)?;
        let cgroup = cgroup_mount().map(|mount| mount.join(name(id)));
        let cgroup = cgroup.filter(|path| fs::create_dir(path).is_ok());
        end_on_signal(id)?;
        Ok(Self {
            directory,
            cgroup,
            cpus: affinity::cpus(),
        })
    }

    /// A control group for one program, if there can be one.
    fn group(&self, name: &str) -> Option<PathBuf> {
        let path = self.cgroup.as_ref()?.join(name);
        match fs::create_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => None,
            _ => Some(path),
        }
    }

    /// Starts `program` with `arguments` in the network of the calling thread, or of process `network`,
    /// in a control group called `name`.
    pub(super) fn start(
        &self,
        name: &str,
        network: Option<u32>,
        cpu: Option<usize>,
        program: &Path,
        arguments: &[&str],
    ) -> io::Result<Process> {
        let group = self.group(name);
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        if let Some(pid) = network {
            command.args(["nsenter", &format!("--net=/proc/{pid}/ns/net")]);
        }
        // The thread that starts it may be pinned itself.
        let cpus = cpu.map_or_else(|| list(&self.cpus), |cpu| cpu.to_string());
        command.args(["taskset", "-c", &cpus]);
        if let Some(group) = &group {
            // Moved before it starts, so that nothing it does is missed.
            command.args(["sh", "-c", "echo $$ > \"$0\" && exec \"$@\""]);
            command.arg(group.join("cgroup.procs"));
        }
        command.arg(program).args(arguments);
        Process::start(name, &mut command, group)
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        sweep(std::process::id());
    }
}

fn list(cpus: &[usize]) -> String {
    let cpus: Vec<String> = cpus.iter().map(ToString::to_string).collect();
    cpus.join(",")
}

fn name(id: u32) -> String {
    format!("{PREFIX}{id}")
}

fn directory(id: u32) -> PathBuf {
    std::env::temp_dir().join(name(id))
}

/// Where control groups of version 2 are mounted.
fn cgroup_mount() -> Option<PathBuf> {
    mount_of_cgroup2(&fs::read_to_string("/proc/mounts").ok()?)
}

fn mount_of_cgroup2(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let path = fields.next()?;
        (fields.next()? == "cgroup2").then(|| PathBuf::from(path))
    })
}

/// Process ids of runs that are over and have left something.
fn stale() -> Vec<u32> {
    let places = [Some(std::env::temp_dir()), cgroup_mount()];
    let entries = places
        .into_iter()
        .flatten()
        .filter_map(|place| fs::read_dir(place).ok());
    let names = entries.flatten().flatten().map(|entry| entry.file_name());
    let ids = names.filter_map(|name| name.to_str()?.strip_prefix(PREFIX)?.parse().ok());
    let mut ids: Vec<u32> = ids
        .filter(|id| !Path::new(&format!("/proc/{id}")).exists())
        .collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// Kills what is left of run `id` and removes its control groups and files.
fn sweep(id: u32) {
    if let Some(mount) = cgroup_mount() {
        let parent = mount.join(name(id));
        let _ = fs::write(parent.join("cgroup.kill"), "1");
        let children: Vec<PathBuf> = fs::read_dir(&parent)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.is_dir())
            .collect();
        for group in children.iter().chain([&parent]) {
            let begun = Instant::now();
            // Busy until the last of its processes is reaped.
            while group.exists()
                && fs::remove_dir(group).is_err()
                && begun.elapsed() < Duration::from_secs(2)
            {
                thread::sleep(Duration::from_millis(5));
            }
        }
    }
    let _ = fs::remove_dir_all(directory(id));
}

fn end_on_signal(id: u32) -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let wait = move || {
        let code = runtime.block_on(async {
            let mut interrupt = signal(SignalKind::interrupt()).ok()?;
            let mut terminate = signal(SignalKind::terminate()).ok()?;
            Some(tokio::select! {
                _ = interrupt.recv() => 130,
                _ = terminate.recv() => 143,
            })
        });
        if let Some(code) = code {
            sweep(id);
            #[expect(
                clippy::exit,
                reason = "a signal ends the process, from whatever it does"
            )]
            std::process::exit(code);
        }
    };
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(wait)
        .map(|_| ())
}

/// A process whose lines are read as they come. Killed when dropped, with all it started.
#[derive(Debug)]
pub(super) struct Process {
    name: String,
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
    keeps_all: bool,
    group: Option<PathBuf>,
}

impl Process {
    fn start(name: &str, command: &mut Command, group: Option<PathBuf>) -> io::Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| io::Error::other(format!("cannot start {name}: {error}")))?;
        let (sender, lines) = mpsc::channel();
        read_lines(child.stdout.take(), sender.clone());
        read_lines(child.stderr.take(), sender);
        Ok(Self {
            name: name.to_owned(),
            child,
            lines,
            seen: Vec::new(),
            keeps_all: false,
            group,
        })
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What reads the CPU time of all its threads and, with a control group, of all it started.
    pub(super) fn meter(&self) -> Meter {
        Meter::new(self.group.clone(), self.id())
    }

    /// The first line with `text` in it, from those said already on.
    pub(super) fn line(&mut self, text: &str) -> io::Result<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(line) = self.seen.iter().find(|line| line.contains(text)) {
                return Ok(line.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => self.note(line),
                Err(why) => {
                    let why = match why {
                        RecvTimeoutError::Timeout => "did not say",
                        RecvTimeoutError::Disconnected => "ended without saying",
                    };
                    let name = &self.name;
                    let tail = self.tail();
                    return Err(io::Error::other(format!("{name} {why} {text:?}:\n{tail}")));
                }
            }
        }
    }

    fn note(&mut self, line: String) {
        // Sessions say a line each; nobody looks for those.
        if self.seen.len() > 400 && !self.keeps_all {
            self.seen.drain(..200);
        }
        self.seen.push(line);
    }

    /// Throws away what it has said so far.
    pub(super) fn skim(&mut self) {
        while let Ok(line) = self.lines.try_recv() {
            self.note(line);
        }
    }

    fn tail(&self) -> String {
        let from = self.seen.len().saturating_sub(20);
        self.seen.get(from..).unwrap_or_default().join("\n")
    }

    /// Sends it a signal, named as `kill` does.
    pub(super) fn signal(&self, name: &str) -> io::Result<()> {
        let id = self.id().to_string();
        Command::new("kill")
            .args(["-s", name, &id])
            .status()
            .map(|_| ())
    }

    /// What it said last.
    pub(super) fn said(&mut self) -> String {
        self.skim();
        format!("{}:\n{}", self.name, self.tail())
    }

    /// Waits for its end; all that it said.
    pub(super) fn end_all(&mut self) -> io::Result<String> {
        self.keeps_all = true;
        self.end()
    }

    /// Waits for its end; what it said last.
    pub(super) fn end(&mut self) -> io::Result<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => self.note(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    return Err(io::Error::other(format!("{} does not end", self.name)));
                }
            }
        }
        self.child.wait()?;
        Ok(self.seen.join("\n"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(group) = &self.group {
            let _ = fs::write(group.join("cgroup.kill"), "1");
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_lines(from: Option<impl Read + Send + 'static>, to: Sender<String>) {
    let Some(from) = from else { return };
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if to.send(line).is_err() {
                break;
            }
        }
    });
}

/// Runs a command to its end; what it printed.
///
/// # Errors
///
/// What it said, if it failed.
pub(super) fn run(command: &mut Command) -> io::Result<String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| {
        let program = command.get_program().to_string_lossy();
        io::Error::other(format!("cannot run {program}: {error}"))
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{command:?}: {}", said.trim())))
}

/// Whether a program of this name is in the search path or where Debian keeps daemons.
pub(super) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    places
        .map(|place| place.join(program))
        .find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_version_of_control_groups_is_found_beside_the_first() {
        let mounts = "cgroup /sys/fs/cgroup/cpu cgroup rw,relatime,cpu 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0\n";
        let path = mount_of_cgroup2(mounts).unwrap();
        assert_eq!(path, Path::new("/sys/fs/cgroup/unified"));
        assert_eq!(mount_of_cgroup2("tmpfs /tmp tmpfs rw 0 0\n"), None);
    }

    #[test]
    fn a_command_that_fails_says_why() {
        let error = run(Command::new("sh").args(["-c", "echo so it is >&2; exit 3"])).unwrap_err();
        assert!(error.to_string().ends_with("so it is"), "{error}");
        assert_eq!(run(Command::new("echo").arg("here")).unwrap(), "here\n");
    }

    #[test]
    fn programs_are_looked_for() {
        assert!(find("sh").is_some());
        assert!(find("no such program").is_none());
    }
}
