//! Many clients of `loadgen` against the real gateway: by its reflector, and through a TUN to
//! `loadgen reflect`.

use std::net::TcpListener;
use std::process::Command;

use e2e::{Namespace, Running, binary, skip};
use serde_json::Value;

/// A demo gateway, and what it printed about itself.
struct Gateway {
    process: Running,
    address: String,
    password: String,
    ca: String,
}

impl Gateway {
    fn start(demo: &mut Command, flags: &[&str]) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr();
        let listen = free.unwrap().to_string();
        demo.args([
            "demo",
            "--listen",
            &listen,
            "--shards",
            "2",
            "--log-level",
            "warn",
        ]);
        let mut process = Running::start(demo.args(flags));
        let mut word = |name: &str| {
            let line = process.line(&format!("  {name} "));
            line.split_whitespace().last().unwrap().to_owned()
        };
        let (address, password, ca) = (word("server"), word("password"), word("CA"));
        process.line("Ctrl-C ends it");
        Self {
            process,
            address,
            password,
            ca,
        }
    }

    /// Plays a scenario to its end; its report.
    fn play(&self, mut loadgen: Command, file: &std::path::Path) -> Value {
        loadgen.args(["run", "--server", &self.address]).arg(file);
        loadgen.args([
            "--user",
            "demo",
            "--password",
            &self.password,
            "--ca",
            &self.ca,
        ]);
        loadgen.args(["--sources", "127.0.1.0/24", "--quiet", "--json", "-"]);
        report(&loadgen.output().unwrap())
    }

    /// Runs `loadgen` to its end; its report.
    fn run(&self, mut loadgen: Command, command: &str, flags: &[&str]) -> Value {
        loadgen.args([
            command,
            &self.address,
            "--user",
            "demo",
            "--password",
            &self.password,
        ]);
        loadgen.args([
            "--ca",
            &self.ca,
            "--sources",
            "127.0.1.0/24",
            "--quiet",
            "--json",
            "-",
        ]);
        report(&loadgen.args(flags).output().unwrap())
    }

    fn end(self) {
        self.process.signal("TERM");
        let (status, log) = self.process.end();
        assert_eq!(status.code(), Some(0), "{log}");
    }
}

/// The report of a run that went well.
fn report(output: &std::process::Output) -> Value {
    let errors = String::from_utf8_lossy(&output.stderr);
    let report =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {errors}"));
    assert_eq!(output.status.code(), Some(0), "{errors}{report:#}");
    report
}

#[test]
fn fleet_of_200_comes_up_and_each_packet_is_its_own() {
    let gateway = Gateway::start(
        &mut Command::new(binary("sstp-gw")),
        &["--inside", "reflector"],
    );
    let loadgen = || Command::new(binary("loadgen"));
    let flags = [
        "-N",
        "200",
        "--rate",
        "400",
        "--hold",
        "2",
        "--lcp-echo",
        "1",
    ];
    let report = gateway.run(loadgen(), "storm", &flags);
    assert_eq!(report["setup"]["up"], 200, "{report:#}");
    assert_eq!(report["hold"]["disconnects"], 0);
    assert_eq!(report["end"]["polite"], 200);
    assert!(
        report["hold"]["lcp_echo_us"]["count"].as_u64() >= Some(200),
        "{report:#}"
    );

    let flags = [
        "-N",
        "200",
        "--rate",
        "400",
        "--pps",
        "4000",
        "--duration",
        "2",
        "--size",
        "imix",
    ];
    for record_per_packet in [false, true] {
        let more: &[&str] = if record_per_packet {
            &["--record-per-packet"]
        } else {
            &[]
        };
        let report = gateway.run(loadgen(), "traffic", &[&flags[..], more].concat());
        let traffic = &report["traffic"];
        assert_eq!(traffic["sent"], 8000, "{report:#}");
        for none in [
            "lost",
            "duplicates",
            "corrupted",
            "wrong_session",
            "foreign",
        ] {
            assert_eq!(traffic[none], 0, "{none}: {report:#}");
        }
    }
    gateway.end();
}

/// Each known client, as far as it is known, is taken by the gateway, gets its answer to DHCPINFORM, and
/// is not missed when it leaves in whatever way.
#[test]
fn every_persona_comes_leaves_and_returns() {
    let gateway = Gateway::start(
        &mut Command::new(binary("sstp-gw")),
        &["--inside", "reflector"],
    );
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("scenario.toml");
    let scenario = r#"
        seed = 11
        [personas]
        windows-10 = 1
        windows-11 = 2
        routeros = 1
        sstpc = 1
        open-sstp-client = 1
        sstp-connect = 1
        [clients]
        dhcp = true
        [[phase]]
        kind = "connect"
        sessions = 28
        rate = "50/s"
        [[phase]]
        kind = "churn"
        time = "2s"
        rate = "14/s"
        endings = { polite = 2, reset = 1, close = 1, silent = 1 }
        return-after = "100ms"
        [[phase]]
        kind = "hold"
        time = "2s"
    "#;
    std::fs::write(&file, scenario).unwrap();
    let report = gateway.play(Command::new(binary("loadgen")), &file);
    let clients = &report["clients"];
    for persona in clients["personas"].as_array().unwrap() {
        assert_eq!(persona["up"], persona["started"], "{report:#}");
    }
    assert_eq!(clients["personas"].as_array().unwrap().len(), 6);
    assert_eq!(report["setup"]["up"], 28, "{report:#}");
    assert_eq!(report["hold"]["disconnects"], 0, "{report:#}");
    let count = |of: &str, name: &str| clients[of][name].as_u64().unwrap();
    assert!(count("dhcp", "asked") >= 28, "{report:#}");
    assert!(count("dhcp", "answered") > 0, "{report:#}");
    assert!(count("churn", "returned") > 0, "{report:#}");
    assert_eq!(count("churn", "returns_failed"), 0, "{report:#}");
    gateway.end();
}

#[test]
fn packets_of_a_fleet_cross_a_tun_each_way() {
    let namespace = match Namespace::new() {
        Ok(namespace) => namespace,
        Err(why) => return skip("packets_of_a_fleet_cross_a_tun_each_way", &why),
    };
    let gateway = Gateway::start(&mut namespace.command(binary("sstp-gw")), &[]);
    let dir = tempfile::tempdir().unwrap();
    let counted = dir.path().join("reflect.json");
    let mut reflect = namespace.command(binary("loadgen"));
    reflect.args(["reflect", "--listen", "0.0.0.0:7100", "--gso", "--json"]);
    let mut reflect = Running::start(reflect.arg(&counted));
    reflect.line("reflecting on");
    let mut sent = 0;
    for (direction, size) in [("--both", "imix"), ("--up", "1400"), ("--down", "1000")] {
        let flags = [
            "-N",
            "20",
            "--rate",
            "200",
            "--pps",
            "2000",
            "--duration",
            "1",
        ];
        let far = ["--to", "10.99.0.1:7100", "--size", size, direction];
        let flags = [&flags[..], &far].concat();
        let report = gateway.run(namespace.command(binary("loadgen")), "traffic", &flags);
        let traffic = &report["traffic"];
        assert_eq!(traffic["direction"], direction[2..]);
        assert_eq!(
            (&traffic["sent"], &traffic["received"]),
            (&2000.into(), &2000.into()),
            "{report:#}"
        );
        for none in ["lost", "duplicates", "corrupted", "wrong_session"] {
            assert_eq!(traffic[none], 0, "{none}: {report:#}");
        }
        sent += 2000;
    }
    reflect.signal("TERM");
    let (status, said) = reflect.end();
    assert_eq!(status.code(), Some(0), "{said}");
    let counted: Value = serde_json::from_slice(&std::fs::read(counted).unwrap()).unwrap();
    let count = |name: &str| counted[name].as_u64().unwrap();
    assert_eq!(
        count("echoed") + count("counted") + count("sent"),
        sent,
        "{counted:#}"
    );
    assert_eq!(
        (count("corrupted"), count("send_errors"), count("streams")),
        (0, 0, 20)
    );
    gateway.end();
}
