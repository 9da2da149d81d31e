//! A real gateway for a test: in a namespace of its own, with one user and a certificate.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::{Namespace, Running, binary, driver, skip};

/// The one user.
pub const USER: &str = "alice";
/// Its password.
pub const PASSWORD: &str = "Tr0ub4dor&3";
const SERVER: &str = "127.0.0.1:4433";

/// A gateway in a namespace, with one user, on the certificate of a directory.
#[derive(Debug)]
pub struct Gateway {
    /// The gateway itself.
    pub process: Running,
    /// Where it runs.
    pub namespace: Namespace,
    dir: tempfile::TempDir,
    /// What it is run through.
    through: Vec<String>,
}

impl Gateway {
    /// One that serves; `None`, told in so many words, where this host has no room for it.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(test: &str) -> Option<Self> {
        Self::start_as(test, &config(&driver()), &[], |_| {})
    }

    /// One with a configuration of its own, run through the command `through`, of which `change` may
    /// set up the process.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start_as(
        test: &str,
        config: &str,
        through: &[&str],
        change: impl FnOnce(&mut Command),
    ) -> Option<Self> {
        let mut gateway = Self::launch(test, config, through, change)?;
        gateway.process.line("\"message\":\"serving\"");
        Some(gateway)
    }

    /// The same, without waiting until it serves.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn launch(
        test: &str,
        config: &str,
        through: &[&str],
        change: impl FnOnce(&mut Command),
    ) -> Option<Self> {
        let namespace = match Namespace::new() {
            Ok(namespace) => namespace,
            Err(why) => {
                skip(test, &why);
                return None;
            }
        };
        let dir = tempfile::tempdir().unwrap();
        certificate(dir.path());
        std::fs::write(dir.path().join("sstp-gw.toml"), config).unwrap();
        let mut add = Command::new(binary("sstp-gw"))
            .args(["user", "--users", "users.toml", "add", USER])
            .arg("--password-stdin")
            .current_dir(dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut input = add.stdin.take().unwrap();
        writeln!(input, "{PASSWORD}").unwrap();
        drop(input);
        assert!(add.wait().unwrap().success());
        let mut run = namespace.command("env");
        run.args(through).arg(binary("sstp-gw"));
        run.args(["run", "--config", "sstp-gw.toml"]);
        change(&mut run);
        let process = Running::start(run.current_dir(dir.path()));
        Some(Self {
            process,
            namespace,
            dir,
            through: through.iter().map(ToString::to_string).collect(),
        })
    }

    /// The certificate of the CA that signed its own.
    pub fn ca(&self) -> std::path::PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// `loadgen connect` to it, in JSON, which it says at its end.
    pub fn loadgen(&self, password: &str, flags: &[&str]) -> Command {
        let mut command = self.connect(password, flags);
        command.arg("--json");
        command
    }

    /// `loadgen connect` to it, which says in lines what happens.
    pub fn connect(&self, password: &str, flags: &[&str]) -> Command {
        self.connect_from(&self.namespace, SERVER, password, flags)
    }

    /// The same from another namespace, to the address that leads to it there.
    pub fn connect_from(
        &self,
        namespace: &Namespace,
        server: &str,
        password: &str,
        flags: &[&str],
    ) -> Command {
        let mut command = namespace.command(binary("loadgen"));
        command.args(["connect", server, "--server-name", "gateway.test"]);
        command.args(["--user", USER, "--password", password]);
        command.args(["--driver", &driver()]);
        command.arg("--ca").arg(self.dir.path().join("ca.pem"));
        command.args(flags).stdout(Stdio::piped());
        command
    }

    /// Kills it, as a crash would, and starts it anew.
    ///
    /// # Panics
    /// When it does not come back.
    pub fn restart(&mut self) {
        self.process.kill();
        // A dead process's ring lets go of its listeners a moment later.
        self.namespace
            .shell("timeout 60 sh -c 'while ss -Hltn | grep -q :4433; do sleep 0.05; done'");
        let mut run = self.namespace.command("env");
        run.args(&self.through).arg(binary("sstp-gw"));
        run.args(["run", "--config", "sstp-gw.toml"]);
        self.process = Running::start(run.current_dir(self.dir.path()));
        self.process.line("\"message\":\"serving\"");
    }

    /// Ends it with SIGTERM; the fields of its last line.
    ///
    /// # Panics
    /// When it does not end well.
    pub fn stop(self) -> (Namespace, Value) {
        self.process.signal("TERM");
        let (status, log) = self.process.end();
        assert_eq!(status.code(), Some(0), "{log}");
        let last = log
            .lines()
            .find(|line| line.contains("\"message\":\"stopped\""))
            .unwrap_or_else(|| panic!("no word of the end:\n{log}"));
        (self.namespace, serde_json::from_str(last).unwrap())
    }
}

/// A configuration with two shards on this driver.
pub fn config(driver: &str) -> String {
    CONFIG.replace("DRIVER", driver)
}

const CONFIG: &str = r#"
[[listen]]
address = "127.0.0.1:4433"

[tls]
certificate = "gateway.pem"
key = "gateway.key"

[auth]
users = "users.toml"

[[pool]]
v4 = "10.77.0.0/24"
v6 = "fd00:77::/48"

[network]
tun = "e2e0"
dns = ["10.77.0.1"]

[limits]
sessions = 100
handshakes = 100

[shards]
count = 2
driver = "DRIVER"

[log]
format = "json"
"#;

/// Makes `ca.pem`, and `gateway.pem` with its key signed by it.
///
/// # Panics
/// When `openssl` does not.
pub fn certificate(dir: &Path) {
    let script = "set -e
        new='-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes'
        openssl req -x509 $new -days 2 -subj '/CN=CA of a test' -keyout ca.key -out ca.pem \
            -addext keyUsage=critical,keyCertSign
        openssl req $new -subj /CN=gateway.test -keyout gateway.key -out gateway.csr
        printf 'subjectAltName=DNS:gateway.test\nextendedKeyUsage=serverAuth\n' >extensions
        openssl x509 -req -in gateway.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
            -extfile extensions -out gateway.pem
        chmod 600 gateway.key";
    let mut command = Command::new("sh");
    let output = command.args(["-c", script]).current_dir(dir).output();
    let output = output.unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
}

/// The JSON that `loadgen` printed.
///
/// # Panics
/// When it is none.
pub fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        let errors = String::from_utf8_lossy(&output.stderr);
        panic!("{error}: {errors}")
    })
}
