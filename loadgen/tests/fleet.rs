//! `loadgen storm` and `loadgen traffic`, the binary, against a server in this process.

mod support;

use std::process::{Command, Output, Stdio};

use datapath::time::Duration;
use serde_json::Value;

use support::{NAME, PASSWORD, Server, USER, Wishes};

fn loadgen(command: &str, server: &Server, flags: &[&str]) -> Command {
    let mut loadgen = Command::new(env!("CARGO_BIN_EXE_loadgen"));
    loadgen.arg(command).arg(server.address.to_string());
    loadgen.args([
        "--server-name",
        NAME,
        "--user",
        USER,
        "--password",
        PASSWORD,
    ]);
    loadgen
        .arg("--ca")
        .arg(&server.ca)
        .args(["--json", "-", "--quiet"]);
    loadgen.args(flags);
    loadgen
}

fn report(output: &Output) -> Value {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.is_empty(), "{errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Runs it to its end; its report and exit code.
fn run(command: &str, server: &Server, flags: &[&str]) -> (Value, i32) {
    let output = loadgen(command, server, flags).output().unwrap();
    (report(&output), output.status.code().unwrap())
}

fn server_of(sessions: usize) -> Server {
    Server::start(Wishes {
        sessions,
        ..Wishes::default()
    })
}

#[test]
fn a_storm_brings_all_up_holds_them_and_ends_them() {
    let server = server_of(64);
    let flags = [
        "-N",
        "40",
        "--rate",
        "200",
        "--hold",
        "1.5",
        "--lcp-echo",
        "1",
    ];
    let (report, code) = run("storm", &server, &flags);
    assert_eq!(code, 0, "{report:#}");
    assert_eq!(
        (&report["schema_version"], &report["ok"]),
        (&1.into(), &true.into())
    );
    assert_eq!(report["command"], "storm");
    let setup = &report["setup"];
    assert_eq!(
        (&setup["started"], &setup["up"], &setup["failed"]),
        (&40.into(), &40.into(), &0.into())
    );
    let names: Vec<_> = setup["phases"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| &p["name"])
        .collect();
    assert_eq!(
        names,
        [
            "TCP", "TLS", "HTTP", "SSTP", "LCP", "auth", "binding", "network"
        ]
    );
    for phase in setup["phases"].as_array().unwrap() {
        assert_eq!(phase["us"]["count"], 40, "{phase}");
    }
    assert_eq!(setup["total_us"]["count"], 40);
    assert_eq!(setup["lateness_us"]["count"], 40);
    assert_eq!(report["hold"]["disconnects"], 0);
    assert_eq!(
        report["hold"]["lcp_echo_us"]["count"]
            .as_u64()
            .map(|count| count >= 40),
        Some(true)
    );
    assert_eq!(report["end"]["polite"], 40);
    assert_eq!(report["traffic"], Value::Null);
    assert_eq!(report["tls"]["version"], "TLS 1.3");
    assert!(report["generator"]["cpu_s"].as_f64().unwrap() > 0.0);
}

#[test]
fn what_fails_is_counted_by_reason() {
    let server = server_of(8);
    // The test's server gives each session an address, but holds only eight.
    let (report, code) = run(
        "storm",
        &server,
        &["-N", "20", "--rate", "1000", "--hold", "0.1"],
    );
    assert_eq!(code, 1, "{report:#}");
    assert_eq!(report["setup"]["up"], 8, "{report:#}");
    assert_eq!(report["setup"]["failed"], 12);
    let failures = report["setup"]["failures"].as_array().unwrap();
    let count: u64 = failures
        .iter()
        .map(|cause| cause["count"].as_u64().unwrap())
        .sum();
    assert_eq!(count, 12);

    let wrong = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(["storm", &server.address.to_string(), "--server-name", NAME])
        .args([
            "--user",
            "nobody-{n}",
            "--password",
            PASSWORD,
            "-N",
            "3",
            "--json",
            "-",
            "-q",
        ])
        .arg("--ca")
        .arg(&server.ca)
        .output()
        .unwrap();
    assert_eq!(wrong.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&wrong.stdout).unwrap();
    assert_eq!(
        report["setup"]["failures"][0]["class"], "authentication-failed",
        "{report:#}"
    );
    assert_eq!(report["setup"]["failures"][0]["count"], 3);
}

#[test]
fn sessions_that_end_while_held_are_disconnects() {
    let server = Server::start(Wishes {
        session_timeout: Some(Duration::from_millis(400)),
        ..Wishes::default()
    });
    let (report, code) = run("storm", &server, &["-N", "3", "--hold", "1.5"]);
    assert_eq!(code, 1, "{report:#}");
    assert_eq!(report["hold"]["disconnects"], 3);
    assert_eq!(
        report["hold"]["disconnect_causes"][0]["class"],
        "peer-disconnected"
    );
}

#[test]
fn every_packet_is_accounted_for() {
    let server = server_of(16);
    for size in ["60", "imix", "1400"] {
        let flags = [
            "-N",
            "12",
            "--rate",
            "200",
            "--pps",
            "2000",
            "--size",
            size,
            "--duration",
            "1",
        ];
        let flags = [
            &flags[..],
            &["--fail", "loss<0.1%", "--fail", "wrong_session<1"],
        ]
        .concat();
        let (report, code) = run("traffic", &server, &flags);
        assert_eq!(code, 0, "{report:#}");
        let traffic = &report["traffic"];
        assert_eq!(traffic["direction"], "both");
        assert_eq!(
            (&traffic["sent"], &traffic["received"]),
            (&2000.into(), &2000.into()),
            "{report:#}"
        );
        for none in [
            "lost",
            "duplicates",
            "reordered",
            "too_old",
            "corrupted",
            "wrong_session",
            "foreign",
        ] {
            assert_eq!(traffic[none], 0, "{none}: {report:#}");
        }
        assert_eq!(traffic["latency_us"]["count"], 2000);
        assert_eq!(traffic["sessions"], 12);
        assert_eq!(report["thresholds"].as_array().unwrap().len(), 2);
    }
}

#[test]
fn a_server_that_stalls_is_seen_to_stall() {
    let stall = Duration::from_secs(1);
    for more in [&[][..], &["--record-per-packet"]] {
        stalled(stall, more);
    }
}

fn stalled(stall: Duration, more: &[&str]) {
    let server = Server::start(Wishes {
        stall: Some((Duration::from_millis(700), stall)),
        ..Wishes::default()
    });
    // 3,000 packets in 3 s; a third of them is planned while the server does nothing. A generator
    // that waits for answers would have sent few of them, and called the server fast.
    let flags = [
        "-N",
        "4",
        "--pps",
        "1000",
        "--size",
        "100",
        "--duration",
        "3",
        "--wait",
        "5",
    ];
    let (report, code) = run("traffic", &server, &[&flags[..], more].concat());
    assert_eq!(code, 0, "{report:#}");
    let traffic = &report["traffic"];
    assert_eq!(
        (&traffic["sent"], &traffic["received"]),
        (&3000.into(), &3000.into()),
        "{report:#}"
    );
    let latency = |quantile: &str| traffic["latency_us"][quantile].as_f64().unwrap();
    assert!(latency("max") >= 900_000.0, "{report:#}");
    assert!(
        latency("p90") >= 500_000.0,
        "a third of them waited: {report:#}"
    );
}

#[test]
fn thresholds_decide_the_exit_code() {
    let server = server_of(8);
    let (report, code) = run(
        "storm",
        &server,
        &["-N", "2", "--fail", "setup_max<1us", "--fail", "failed<1"],
    );
    assert_eq!(code, 99, "{report:#}");
    assert_eq!(report["thresholds"][0]["ok"], false);
    assert_eq!(report["thresholds"][1]["ok"], true);
    // What was not measured does not hold.
    let (report, code) = run("storm", &server, &["-N", "2", "--fail", "loss<1%"]);
    assert_eq!(code, 99, "{report:#}");
    assert_eq!(report["thresholds"][0]["value"], Value::Null);
}

#[test]
fn an_interrupted_run_still_reports() {
    let server = server_of(8);
    let child = loadgen("storm", &server, &["-N", "3", "--hold", "600"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    server.wait_for_sessions(3);
    let pid = child.id().to_string();
    let status = Command::new("kill")
        .args(["-s", "INT", &pid])
        .status()
        .unwrap();
    assert!(status.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let report = report(&output);
    assert_eq!(report["interrupted"], true);
    // The server's end of a session may be up a moment before the client's.
    let count = |section: &str, field: &str| report[section][field].as_u64().unwrap();
    let up = count("setup", "up");
    assert_eq!(up + count("setup", "given_up"), 3, "{report:#}");
    assert_eq!(count("end", "polite"), up, "{report:#}");
}

#[test]
fn usage_errors_name_what_is_wrong() {
    let server = server_of(8);
    let run = |command: &str, flags: &[&str]| {
        let output = loadgen(command, &server, flags).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{flags:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(run("storm", &["--fail", "speed>1"]).contains("there is no figure \"speed\""));
    assert!(run("storm", &["--rate", "0"]).contains("not between 0 and"));
    assert!(run("storm", &["--sources", "here"]).contains("is no address"));
    assert!(run("traffic", &[]).contains("--pps"));
    assert!(run("traffic", &["--pps", "1", "--bps", "1"]).contains("cannot be used with"));
    assert!(run("traffic", &["--pps", "1", "--up", "--down"]).contains("cannot be used with"));
    assert!(run("traffic", &["--pps", "1", "--size", "59"]).contains("is not imix"));
}

#[test]
fn help() {
    for command in ["storm", "traffic", "run"] {
        let output = Command::new(env!("CARGO_BIN_EXE_loadgen"))
            .args([command, "--help"])
            .env("COLUMNS", "100")
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        insta::assert_snapshot!(format!("help_{command}"), text);
    }
}
