//! The gateway under test: its files, its start, its end.

use std::fs;
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rcgen::{CertificateParams, KeyPair};

use super::cpu::Meter;
use super::process::{Process, Workspace};

pub(super) const USER: &str = "bench";
pub(super) const PASSWORD: &str = "bench-password";

/// A running gateway.
#[derive(Debug)]
pub(super) struct Gateway {
    process: Process,
    pub(super) meter: Meter,
}

/// How to run it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan<'a> {
    /// Distinguishes it from others of this run.
    pub(super) name: &'a str,
    pub(super) listen: &'a str,
    pub(super) pool: &'a str,
    pub(super) tun: &'a str,
    pub(super) shards: u16,
    pub(super) sessions: u32,
    /// Start it in the network of this process instead of the calling thread's.
    pub(super) network: Option<u32>,
}

/// What it is told of its machinery beside [`Plan`]; what is not said, it chooses as it is shipped.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Engine {
    /// `shards.driver`
    pub(super) driver: Option<&'static str>,
    /// `tls.kernel`
    pub(super) kernel_tls: Option<&'static str>,
}

impl Gateway {
    /// Writes its files and starts it; it serves when this returns.
    pub(super) fn start(workspace: &Workspace, plan: &Plan<'_>) -> io::Result<Self> {
        Self::start_binary(workspace, plan, &binary("sstp-gw")?)
    }

    /// As [`Gateway::start`], on a certain engine.
    pub(super) fn start_with(
        workspace: &Workspace,
        plan: &Plan<'_>,
        engine: Engine,
    ) -> io::Result<Self> {
        Self::start_as(workspace, plan, engine, &binary("sstp-gw")?)
    }

    /// As [`Gateway::start`], of the gateway that `binary` is.
    pub(super) fn start_binary(
        workspace: &Workspace,
        plan: &Plan<'_>,
        binary: &Path,
    ) -> io::Result<Self> {
        Self::start_as(workspace, plan, Engine::default(), binary)
    }

    fn start_as(
        workspace: &Workspace,
        plan: &Plan<'_>,
        engine: Engine,
        binary: &Path,
    ) -> io::Result<Self> {
        let directory = workspace.directory.join(plan.name);
        fs::create_dir_all(&directory)?;
        let config = write_files(&directory, binary, plan, engine)?;
        let config = config.to_string_lossy().into_owned();
        let arguments = ["run", "--config", &config];
        let mut process = workspace.start(plan.name, plan.network, None, binary, &arguments)?;
        process.line("serving")?;
        let meter = process.meter();
        Ok(Self { process, meter })
    }

    pub(super) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Throws away the lines it has said.
    pub(super) fn skim(&mut self) {
        self.process.skim();
    }

    /// Ends it; what its last line says of packets handed over between shards, and of drops.
    pub(super) fn stop(mut self) -> io::Result<Last> {
        self.process.skim();
        self.process.signal("TERM")?;
        self.process.signal("TERM")?;
        let said = self.process.end()?;
        Last::parse(&said).ok_or_else(|| {
            io::Error::other("the gateway's last line does not say what it handed over")
        })
    }
}

/// What the gateway says when it stops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Last {
    pub(super) handed_over: u64,
    pub(super) dropped: String,
}

impl Last {
    fn parse(said: &str) -> Option<Self> {
        let said = without_colours(said);
        let line = said.lines().rfind(|line| line.contains("handed_over="))?;
        let (_, value) = line.split_once("handed_over=")?;
        let handed_over = value.split_whitespace().next()?.parse().ok()?;
        let dropped = line.split_once("dropped=").map_or("", |(_, rest)| rest);
        Some(Self {
            handed_over,
            dropped: dropped.trim().trim_matches('"').to_owned(),
        })
    }
}

/// Without the escape sequences that colour a terminal.
fn without_colours(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut pieces = text.split('\u{1b}');
    plain.extend(pieces.next());
    for piece in pieces {
        plain.extend(piece.split_once('m').map(|(_, rest)| rest));
    }
    plain
}

/// A binary of the profile that this one was built with.
pub(super) fn binary(name: &str) -> io::Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    if path.is_file() {
        return Ok(path);
    }
    let message = format!(
        "{} is not built; cargo build --release -p gateway -p loadgen",
        path.display()
    );
    Err(io::Error::other(message))
}

/// Makes sure that what is measured is what the sources say.
pub(super) fn build() -> io::Result<()> {
    // Set by `cargo run`; who starts the binary by hand has built what he wants.
    let Some(cargo) = std::env::var_os("CARGO") else {
        return Ok(());
    };
    let arguments = [
        "build",
        "--release",
        "--locked",
        "-q",
        "-p",
        "gateway",
        "-p",
        "loadgen",
    ];
    let status = Command::new(cargo).args(arguments).status()?;
    if status.success() {
        Ok(())
    } else {
        Err(io::Error::other("gateway and loadgen cannot be built"))
    }
}

/// A self-signed certificate of `name` and its key, in PEM.
pub(super) fn certificate(name: &str) -> io::Result<(String, String)> {
    let key = KeyPair::generate().map_err(io::Error::other)?;
    let params = CertificateParams::new(vec![name.to_owned()]).map_err(io::Error::other)?;
    let certificate = params.self_signed(&key).map_err(io::Error::other)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

/// Writes a file that nobody else may read.
pub(super) fn write_secret(path: &Path, text: &str) -> io::Result<()> {
    use io::Write as _;

    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    file.write_all(text.as_bytes())
}

fn write_files(
    directory: &Path,
    binary: &Path,
    plan: &Plan<'_>,
    engine: Engine,
) -> io::Result<PathBuf> {
    let (certificate, key) = certificate("bench.example")?;
    fs::write(directory.join("chain.pem"), certificate)?;
    write_secret(&directory.join("key.pem"), &key)?;
    let users = directory.join("users.toml");
    if !users.exists() {
        add_user(binary, &users)?;
    }
    let Plan {
        listen,
        pool,
        tun,
        shards,
        sessions,
        ..
    } = plan;
    let line = |key: &str, value: Option<&str>| {
        value.map_or_else(String::new, |value| format!("{key} = \"{value}\"\n"))
    };
    let kernel = line("kernel", engine.kernel_tls);
    let driver = line("driver", engine.driver);
    let config = format!(
        "[[listen]]\naddress = \"{listen}\"\n\n\
         [tls]\ncertificate = \"chain.pem\"\nkey = \"key.pem\"\n{kernel}\n\
         [auth]\nusers = \"users.toml\"\n\n\
         [[pool]]\nv4 = \"{pool}\"\n\n\
         [network]\ntun = \"{tun}\"\nmtu = 1400\noffload = true\n\n\
         [limits]\nsessions = {sessions}\nhandshakes = 1000\nhandshakes_per_source = 1000\n\n\
         [shards]\ncount = {shards}\n{driver}"
    );
    let path = directory.join("sstp-gw.toml");
    fs::write(&path, config)?;
    Ok(path)
}

fn add_user(binary: &Path, users: &Path) -> io::Result<()> {
    use io::Write as _;

    let mut child = Command::new(binary)
        .args(["user", "--users"])
        .arg(users)
        .args(["add", USER, "--password-stdin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()?;
    if let Some(mut input) = child.stdin.take() {
        writeln!(input, "{PASSWORD}")?;
    }
    if child.wait()?.success() {
        Ok(())
    } else {
        Err(io::Error::other("sstp-gw user add failed"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_understood_with_and_without_colours() {
        let expected = Some(Last {
            handed_over: 17,
            dropped: "queue_full 3, not_up 1".to_owned(),
        });
        let plain =
            "x\nINFO stopped uplink_bytes=1 handed_over=17 dropped=\"queue_full 3, not_up 1\"\n";
        assert_eq!(Last::parse(plain), expected);
        let coloured = "\u{1b}[2mhanded_over\u{1b}[0m\u{1b}[2m=\u{1b}[0m17 \
                        \u{1b}[3mdropped\u{1b}[0m\u{1b}[2m=\u{1b}[0m\"queue_full 3, not_up 1\"";
        assert_eq!(Last::parse(coloured), expected);
        assert_eq!(Last::parse("serving\n"), None);
    }
}
