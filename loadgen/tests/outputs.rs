//! What a run leaves behind: JSON by its schema, a page that a browser shows, an interval log, a
//! comparison, and the exit codes.

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use support::{NAME, PASSWORD, Server, USER, Wishes};

const SCHEMA: &str = include_str!("../schema/report-1.json");

fn loadgen(arguments: &[&str]) -> Command {
    let mut loadgen = Command::new(env!("CARGO_BIN_EXE_loadgen"));
    loadgen.args(arguments);
    loadgen
}

/// Against this server, into this directory, with all outputs but JSON named `name`.
fn fleet(server: &Server, dir: &Path, name: &str, arguments: &[&str]) -> Command {
    let mut loadgen = loadgen(arguments);
    loadgen.arg(server.address.to_string());
    loadgen.args([
        "--server-name",
        NAME,
        "--user",
        USER,
        "--password",
        PASSWORD,
    ]);
    loadgen.arg("--ca").arg(&server.ca);
    for (flag, ending) in [
        ("--json", "json"),
        ("--report", "html"),
        ("--hdr-out", "hlog"),
    ] {
        loadgen.arg(flag).arg(dir.join(format!("{name}.{ending}")));
    }
    loadgen
}

fn server() -> Server {
    Server::start(Wishes {
        sessions: 16,
        ..Wishes::default()
    })
}

fn text(output: &Output) -> String {
    let [out, errors] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    format!("{out}{errors}")
}

fn read(path: PathBuf) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Everything that is wrong with a report.
fn problems(report: &Value) -> Vec<String> {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    let problems = validator.iter_errors(report);
    problems
        .map(|problem| format!("{}: {problem}", problem.instance_path()))
        .collect()
}

/// Every object of the schema says all there may be, and each field what it is.
fn assert_closed(schema: &Value, path: &str) {
    let Some(object) = schema.as_object() else {
        return;
    };
    if let Some(Value::Object(properties)) = object.get("properties") {
        assert_eq!(
            object.get("additionalProperties"),
            Some(&Value::Bool(false)),
            "{path}"
        );
        for (name, property) in properties {
            let description = property["description"].as_str().unwrap_or_default();
            assert!(!description.is_empty(), "{path}.{name} says nothing");
        }
    }
    for (name, part) in object {
        assert_closed(part, &format!("{path}/{name}"));
    }
}

#[test]
fn what_a_storm_leaves_keeps_to_the_schema() {
    let (server, dir) = (server(), tempfile::tempdir().unwrap());
    let arguments = [
        "storm",
        "-N",
        "10",
        "--rate",
        "50",
        "--hold",
        "2.2",
        "--lcp-echo",
        "1",
        "-q",
    ];
    let output = fleet(&server, dir.path(), "storm", &arguments)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let report = read(dir.path().join("storm.json"));
    assert_eq!(problems(&report), [""; 0], "{report:#}");

    let points = report["timeline"]["points"].as_array().unwrap();
    let sum = |field: &str| {
        points
            .iter()
            .map(|point| point[field].as_u64().unwrap())
            .sum::<u64>()
    };
    assert_eq!(report["timeline"]["interval_s"], 1);
    for (field, expected) in [
        ("started", 10),
        ("came_up", 10),
        ("ended", 10),
        ("failed", 0),
        ("sent", 0),
    ] {
        assert_eq!(sum(field), expected, "{field}: {points:#?}");
    }
    assert!(points.iter().any(|point| point["up"] == 10), "{points:#?}");
    let set_up = points
        .iter()
        .map(|point| point["setup_us"]["count"].as_u64().unwrap_or(0));
    assert_eq!(set_up.sum::<u64>(), 10);
    let curves = report["curves"].as_array().unwrap();
    let setup = curves
        .iter()
        .find(|curve| curve["name"] == "setup")
        .unwrap();
    let last = setup["points"].as_array().unwrap().last().unwrap();
    assert_eq!(last["us"], report["setup"]["total_us"]["max"]);

    let log = std::fs::read_to_string(dir.path().join("storm.hlog")).unwrap();
    for tag in [
        "setup",
        "phase_tls",
        "phase_network",
        "lcp_echo",
        "start_lateness",
    ] {
        assert!(log.contains(&format!("\nTag={tag},")), "{tag}: {log}");
    }
}

#[test]
fn what_traffic_leaves_keeps_to_the_schema() {
    let (server, dir) = (server(), tempfile::tempdir().unwrap());
    let arguments = [
        "traffic",
        "-N",
        "8",
        "--rate",
        "100",
        "--pps",
        "500",
        "--duration",
        "2.5",
        "-q",
    ];
    let arguments = [
        &arguments[..],
        &["--fail", "loss<1%", "--fail", "echo_p50<1us"],
    ]
    .concat();
    let output = fleet(&server, dir.path(), "traffic", &arguments)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(99), "{}", text(&output));
    let report = read(dir.path().join("traffic.json"));
    assert_eq!(problems(&report), [""; 0], "{report:#}");
    let points = report["timeline"]["points"].as_array().unwrap();
    for field in ["sent", "sent_bytes", "received", "received_bytes"] {
        let sum: u64 = points
            .iter()
            .map(|point| point[field].as_u64().unwrap())
            .sum();
        assert_eq!(
            Some(sum),
            report["traffic"][field].as_u64(),
            "{field}: {points:#?}"
        );
    }
    let arrived = points
        .iter()
        .map(|point| point["latency_us"]["count"].as_u64().unwrap_or(0));
    assert_eq!(
        Some(arrived.sum::<u64>()),
        report["traffic"]["latency_us"]["count"].as_u64()
    );
    assert_eq!(points.last().unwrap()["loss"], report["traffic"]["loss"]);
    let page = std::fs::read_to_string(dir.path().join("traffic.html")).unwrap();
    for part in [
        "Threshold broken",
        "echo_p50&lt;1us",
        "Latency, from the planned time",
        "Lateness of sends",
    ] {
        assert!(page.contains(part), "{part}");
    }
}

#[test]
fn the_schema_says_all_there_is() {
    assert_closed(&serde_json::from_str(SCHEMA).unwrap(), "");
    // And it refuses what it does not say.
    let found = problems(&serde_json::json!({"schema_version": 2, "speed": 5}));
    for expected in [
        "speed",
        "\"setup\" is a required property",
        "1 was expected",
    ] {
        assert!(
            found.iter().any(|problem| problem.contains(expected)),
            "{expected}: {found:#?}"
        );
    }
}

#[test]
fn an_interrupted_run_leaves_everything() {
    let (server, dir) = (server(), tempfile::tempdir().unwrap());
    let child = fleet(
        &server,
        dir.path(),
        "cut",
        &["storm", "-N", "3", "--hold", "600", "-q"],
    )
    .stdout(Stdio::piped())
    .stderr(Stdio::piped())
    .spawn()
    .unwrap();
    server.wait_for_sessions(3);
    let pid = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-s", "INT", &pid])
            .status()
            .unwrap()
            .success()
    );
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", text(&output));
    let report = read(dir.path().join("cut.json"));
    assert_eq!(problems(&report), [""; 0], "{report:#}");
    let page = std::fs::read_to_string(dir.path().join("cut.html")).unwrap();
    assert!(page.contains("Interrupted") && page.ends_with("</html>\n"));
}

#[test]
fn a_file_that_cannot_be_written_is_said_to_be() {
    let (server, dir) = (server(), tempfile::tempdir().unwrap());
    let nowhere = dir.path().join("nowhere");
    // Before the run where it can be known, else after it.
    let output = fleet(&server, &nowhere, "a", &["storm", "-N", "1", "-q"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("cannot write"), "{}", text(&output));
    assert!(!text(&output).contains("sessions up"), "{}", text(&output));
    let mut command = loadgen(&["storm", &server.address.to_string(), "--server-name", NAME]);
    command.args([
        "--user",
        USER,
        "--password",
        PASSWORD,
        "-N",
        "1",
        "-q",
        "--ca",
    ]);
    let output = command
        .arg(&server.ca)
        .arg("--report")
        .arg(nowhere.join("a.html"))
        .output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = text(&output);
    assert!(
        text.contains("cannot write") && text.contains("1 of 1 sessions up"),
        "{text}"
    );
}

/// A storm's report in this directory.
fn storm(server: &Server, dir: &Path, name: &str, sessions: &str) -> String {
    let arguments = ["storm", "-N", sessions, "--rate", "100", "-q"];
    let output = fleet(server, dir, name, &arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    dir.join(format!("{name}.json"))
        .to_str()
        .unwrap()
        .to_owned()
}

#[test]
fn two_runs_are_compared() {
    let (server, dir) = (server(), tempfile::tempdir().unwrap());
    let [a, b, other] = [("a", "4"), ("b", "4"), ("other", "5")]
        .map(|(name, sessions)| storm(&server, dir.path(), name, sessions));

    let output = loadgen(&["compare", &a, &b]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains("setup_p99"), "{}", text(&output));
    // Four set-ups make no p99, and no run differs from itself.
    let output = loadgen(&["compare", &a, &a, "--json"]).output().unwrap();
    let comparison: Value = serde_json::from_slice(&output.stdout).unwrap();
    let figures = comparison["figures"].as_array().unwrap();
    let verdict =
        |name: &str| &figures.iter().find(|row| row["figure"] == name).unwrap()["verdict"];
    assert_eq!(verdict("setup_p99"), "too_few");
    // On a busy machine the starts themselves may have been late.
    let is_late = comparison["a"]["generator_bound"] == true;
    let expected = if is_late { "generator_bound" } else { "same" };
    assert_eq!(verdict("rate"), expected);
    assert!(
        figures
            .iter()
            .all(|row| row["verdict"] != "worse" && row["verdict"] != "better")
    );

    let limits = ["--fail", "rate>-1%", "--fail", "setup_p50<0%"];
    let output = loadgen(&[&["compare", &a, &a][..], &limits].concat())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(99), "{}", text(&output));
    assert!(
        text(&output).contains("rate>-1%: holds") && text(&output).contains("setup_p50<0%: BROKEN")
    );

    let output = loadgen(&["compare", &a, &other]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text(&output).contains("scenario.sessions: 4 and 5"),
        "{}",
        text(&output)
    );
    let output = loadgen(&["compare", &a, &other, "--force"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));

    let bad = dir.path().join("bad.json");
    std::fs::write(&bad, "{\"schema_version\": 7}").unwrap();
    let output = loadgen(&["compare", &a, bad.to_str().unwrap()])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text(&output).contains("schema version 7"),
        "{}",
        text(&output)
    );
}
