//! `loadgen run`, and users from a file: the binary against a server in this process.

mod support;

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use support::{NAME, PASSWORD, Server, USER, Wishes};

fn server_of(sessions: usize) -> Server {
    Server::start(Wishes {
        sessions,
        ..Wishes::default()
    })
}

/// `loadgen run` of this text, with these flags behind it.
fn run(server: &Server, dir: &Path, text: &str, flags: &[&str]) -> Output {
    let file = dir.join("scenario.toml");
    std::fs::write(&file, text).unwrap();
    Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(["run", "--server", &server.address.to_string()])
        .arg(&file)
        .args(["--server-name", NAME, "--quiet", "--json", "-"])
        .arg("--ca")
        .arg(&server.ca)
        .args(flags)
        .output()
        .unwrap()
}

fn report(output: &Output) -> Value {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.is_empty(), "{errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn users_come_from_a_file_in_turn() {
    let server = server_of(16);
    let dir = tempfile::tempdir().unwrap();
    let users = dir.path().join("users.csv");
    std::fs::write(
        &users,
        format!("user,password\n{USER},{PASSWORD}\nmallory,hunter2\n"),
    )
    .unwrap();
    let storm = |users: &Path| {
        Command::new(env!("CARGO_BIN_EXE_loadgen"))
            .args(["storm", &server.address.to_string(), "--server-name", NAME])
            .args(["-N", "6", "--quiet", "--json", "-", "--users"])
            .arg(users)
            .arg("--ca")
            .arg(&server.ca)
            .output()
            .unwrap()
    };
    let output = storm(&users);
    let report = report(&output);
    assert_eq!(output.status.code(), Some(1), "{report:#}");
    assert_eq!(report["setup"]["up"], 3, "{report:#}");
    assert_eq!(
        report["setup"]["failures"][0]["class"],
        "authentication-failed"
    );
    assert_eq!(report["setup"]["failures"][0]["count"], 3);
    assert!(!String::from_utf8_lossy(&output.stdout).contains("hunter2"));

    std::fs::write(&users, "alice,clientPass\nbob;hunter2\n").unwrap();
    let output = storm(&users);
    assert_eq!(output.status.code(), Some(2));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(
        errors.contains("users.csv: line 2: expected user,password"),
        "{errors}"
    );
    assert!(!errors.contains("hunter2"), "{errors}");
}

const SCENARIO: &str = r#"
seed = 3

[users]
pattern = "alice"
password = "clientPass"

[personas]
windows-11 = 1
sstpc = 1

[[phase]]
kind = "connect"
sessions = 8
rate = "100/s"

[[phase]]
kind = "ramp"
from = "10/s"
to = "30/s"
time = "0.2s"

[[phase]]
kind = "churn"
time = "1s"
rate = "24/s"
endings = { polite = 1, reset = 1, close = 1, silent = 1 }
return-after = "100ms"

[[phase]]
kind = "hold"
time = "1s"

[[phase]]
kind = "traffic"
pps = 200
size = "imix"
time = "0.5s"

[[phase]]
kind = "end"
"#;

#[test]
fn a_scenario_is_played_from_beginning_to_end() {
    // Those that fall silent stay with the server, which waits a minute for their echoes.
    let server = server_of(64);
    let dir = tempfile::tempdir().unwrap();
    let output = run(&server, dir.path(), SCENARIO, &[]);
    let report = report(&output);
    assert_eq!(output.status.code(), Some(0), "{report:#}");
    assert_eq!(report["command"], "run");
    let setup = &report["setup"];
    assert_eq!(
        (&setup["started"], &setup["up"]),
        (&12.into(), &12.into()),
        "{report:#}"
    );
    let clients = &report["clients"];
    let phases: Vec<&str> = clients["phases"]
        .as_array()
        .unwrap()
        .iter()
        .map(|lap| lap["phase"].as_str().unwrap())
        .collect();
    assert_eq!(phases, ["connect", "ramp", "churn", "hold", "traffic"]);
    let churn = &clients["churn"];
    let count = |name: &str| churn[name].as_u64().unwrap();
    let left = count("polite") + count("reset") + count("close") + count("silent");
    // Every ending is planned; one that is due when nobody is up, on a machine that is slow, is counted.
    assert_eq!(left + count("nobody_left"), 24, "{report:#}");
    assert!(left > 0 && count("returned") > 0, "{report:#}");
    assert!(
        count("returned") <= left && count("returns_failed") == 0,
        "{report:#}"
    );
    assert_eq!(report["hold"]["disconnects"], 0, "{report:#}");
    let traffic = &report["traffic"];
    assert_eq!(traffic["sent"], 100, "{report:#}");
    for none in ["duplicates", "corrupted", "wrong_session"] {
        assert_eq!(traffic[none], 0, "{none}: {report:#}");
    }
}

#[test]
fn a_scenario_is_checked_and_its_mistakes_told() {
    let server = server_of(8);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("scenario.toml");
    std::fs::write(&file, SCENARIO).unwrap();
    let check = |file: &Path| {
        Command::new(env!("CARGO_BIN_EXE_loadgen"))
            .args(["run", "--check", "--server", "127.0.0.1:1"])
            .arg(file)
            .output()
            .unwrap()
    };
    let output = check(&file);
    assert_eq!(output.status.code(), Some(0));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        said.starts_with("12 sessions\n   1  connect 8 at 100/s\n"),
        "{said}"
    );

    std::fs::write(&file, SCENARIO.replace("return-after", "comeback")).unwrap();
    let output = check(&file);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("scenario.toml: line 28: unknown field `comeback`"),
        "{said}"
    );

    // A flag that does not exist, and one that the phases own.
    let said = run(&server, dir.path(), SCENARIO, &["--speed", "9"]);
    assert_eq!(said.status.code(), Some(2));
    let said = run(&server, dir.path(), SCENARIO, &["-N", "9"]);
    assert_eq!(said.status.code(), Some(2));
}
