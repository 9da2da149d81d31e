//! `sstp-gw run` with a TUN device and two shards, in a network namespace made for it.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use e2e::{Namespace, Running, binary, driver, skip};
use serde_json::Value;

const USER: &str = "alice";
const PASSWORD: &str = "Tr0ub4dor&3";
const SERVER: &str = "127.0.0.1:4433";

/// A gateway in a namespace, with one user, on the certificate of a directory.
struct Gateway {
    process: Running,
    namespace: Namespace,
    dir: tempfile::TempDir,
}

impl Gateway {
    /// One that serves; `None`, told in so many words, where this host has no room for it.
    fn start(test: &str) -> Option<Self> {
        let namespace = match Namespace::new() {
            Ok(namespace) => namespace,
            Err(why) => {
                skip(test, &why);
                return None;
            }
        };
        let dir = tempfile::tempdir().unwrap();
        certificate(dir.path());
        let config = CONFIG.replace("DRIVER", &driver());
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
        let mut run = namespace.command(binary("sstp-gw"));
        run.args(["run", "--config", "sstp-gw.toml"]);
        let mut process = Running::start(run.current_dir(dir.path()));
        process.line("\"message\":\"serving\"");
        Some(Self {
            process,
            namespace,
            dir,
        })
    }

    fn loadgen(&self, password: &str, flags: &[&str]) -> Command {
        let mut command = self.namespace.command(binary("loadgen"));
        command.args(["connect", SERVER, "--server-name", "gateway.test"]);
        command.args(["--user", USER, "--password", password, "--json"]);
        command.args(["--driver", &driver()]);
        command.arg("--ca").arg(self.dir.path().join("ca.pem"));
        command.args(flags).stdout(Stdio::piped());
        command
    }

    /// Ends it with SIGTERM; the fields of its last line.
    fn stop(self) -> (Namespace, Value) {
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

/// `ca.pem`, and `gateway.pem` with its key signed by it.
fn certificate(dir: &Path) {
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

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        let errors = String::from_utf8_lossy(&output.stderr);
        panic!("{error}: {errors}")
    })
}

#[test]
fn tun_carries_several_clients_and_goes_with_the_gateway() {
    let Some(gateway) = Gateway::start("tun_carries_several_clients_and_goes_with_the_gateway")
    else {
        return;
    };
    let device = gateway.namespace.shell("ip -d link show dev e2e0");
    assert!(
        device.contains("tun") && device.contains("multi_queue"),
        "{device}"
    );
    let routes = "ip route show dev e2e0; ip -6 route show dev e2e0";
    let before = gateway.namespace.shell(routes);
    assert!(
        before.contains("10.77.0.0/24") && before.contains("fd00:77::/48"),
        "{before}"
    );

    // Each speaks of itself alone: an address of its own, every ping answered by this host.
    // Ten: the gateway answers for its link-local address no more often than that in one go.
    let flags = ["--ping", "10", "--interval", "0.05"];
    let clients: Vec<_> = (0..6)
        .map(|n| {
            let more: &[&str] = match n % 3 {
                0 => &[],
                1 => &["--ping-to", "fe80::1"],
                _ => &["--tls", "1.2", "--method", "eap"],
            };
            let all = [&flags[..], more].concat();
            gateway.loadgen(PASSWORD, &all).spawn().unwrap()
        })
        .collect();
    let mut addresses = Vec::new();
    for client in clients {
        let output = client.wait_with_output().unwrap();
        let report = report(&output);
        assert_eq!(output.status.code(), Some(0), "{report:#}");
        assert_eq!(report["ping"]["answered"], 10, "{report:#}");
        assert_eq!(report["ping"]["reflected"], 0, "this host answers itself");
        assert_eq!(report["ping"]["duplicates"], 0);
        assert_eq!(report["session"]["dns"][0], "10.77.0.1");
        assert_eq!(report["end"]["reason"], "user-request");
        addresses.push(report["session"]["ipv4"].as_str().unwrap().to_owned());
    }
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 6, "{addresses:?}");

    let (namespace, stopped) = gateway.stop();
    assert_eq!(stopped["sessions"], 6, "{stopped:#}");
    assert!(stopped["handed_over"].is_u64(), "{stopped:#}");
    let links = namespace.shell("ip link");
    assert!(!links.contains("e2e0"), "{links}");
    let after = namespace.shell("ip route; ip -6 route");
    assert!(!after.contains("77"), "{after}");
}

#[test]
fn tun_packets_on_the_wrong_queue_reach_their_session_and_are_counted() {
    let test = "tun_packets_on_the_wrong_queue_reach_their_session_and_are_counted";
    let Some(mut gateway) = Gateway::start(test) else {
        return;
    };
    let flags = ["--no-ipv6", "--ping", "20", "--interval", "0.05"];
    let mut client = gateway.loadgen(PASSWORD, &flags).spawn().unwrap();
    let up = gateway.process.line("\"message\":\"session up\"");
    let up: Value = serde_json::from_str(&up).unwrap();
    let address = up["v4"].as_str().unwrap();
    // Flows that the client did not begin: the kernel spreads them over the queues by their hash.
    let burst = format!("for port in {{1..32}}; do echo packet >/dev/udp/{address}/$port; done");
    while client.try_wait().unwrap().is_none() {
        gateway.namespace.shell(&burst);
    }
    let report = report(&client.wait_with_output().unwrap());
    assert_eq!(report["ping"]["answered"], 20, "{report:#}");
    let arrived = report["end"]["downlink_packets"].as_u64().unwrap();
    assert!(arrived > 20, "none but the pings: {report:#}");
    let (_, stopped) = gateway.stop();
    assert!(stopped["handed_over"].as_u64().unwrap() > 0, "{stopped:#}");
}

#[test]
fn tun_a_wrong_password_is_refused_in_plain_words() {
    let Some(mut gateway) = Gateway::start("tun_a_wrong_password_is_refused_in_plain_words") else {
        return;
    };
    for method in ["mschapv2", "eap"] {
        let output = gateway.loadgen("wrong", &["--method", method]).output();
        let output = output.unwrap();
        let report = report(&output);
        assert_eq!(output.status.code(), Some(1), "{report:#}");
        assert_eq!(report["failure"]["class"], "authentication-failed");
        assert_eq!(report["session"], Value::Null);
    }
    let line = gateway
        .process
        .nth_line("\"message\":\"session not set up\"", 2);
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["user"], USER, "{line:#}");
    let (_, stopped) = gateway.stop();
    assert_eq!(stopped["sessions"], 0, "{stopped:#}");
    assert_eq!(stopped["uplink_bytes"], 0, "{stopped:#}");
}
