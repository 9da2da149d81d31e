//! What `sstp-tune` gives, the gateway takes: the configuration of `plan`, and the rights of the unit.

use std::process::{Command, Stdio};

use e2e::gateway::{Gateway, PASSWORD, certificate, config, report};
use e2e::{binary, driver, skip};

#[test]
fn a_planned_configuration_is_accepted() {
    let dir = tempfile::tempdir().unwrap();
    certificate(dir.path());
    let loads: [&[&str]; 4] = [
        &["--sessions", "1", "--gbps", "0.01"],
        &["--sessions", "5000", "--gbps", "10"],
        &[
            "--sessions",
            "70000",
            "--gbps",
            "40",
            "--setups-per-s",
            "500",
        ],
        &[
            "--sessions",
            "1000000",
            "--gbps",
            "2",
            "--packet-size",
            "200",
        ],
    ];
    std::fs::rename(dir.path().join("gateway.pem"), dir.path().join("chain.pem")).unwrap();
    std::fs::rename(dir.path().join("gateway.key"), dir.path().join("key.pem")).unwrap();
    let mut add = Command::new(binary("sstp-gw"))
        .args([
            "user",
            "--users",
            "users.toml",
            "add",
            "alice",
            "--password-stdin",
        ])
        .current_dir(dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut add.stdin.take().unwrap(), PASSWORD.as_bytes()).unwrap();
    assert!(add.wait().unwrap().success());
    for load in loads {
        let plan = Command::new(binary("sstp-tune"))
            .args(["plan", "--config"])
            .args(load)
            .output()
            .unwrap();
        assert!(plan.status.success(), "{load:?}");
        std::fs::write(dir.path().join("sstp-gw.toml"), &plan.stdout).unwrap();
        let check = Command::new(binary("sstp-gw"))
            .args(["check", "--config", "sstp-gw.toml"])
            .current_dir(dir.path())
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&check.stderr);
        let text = String::from_utf8_lossy(&plan.stdout);
        assert_eq!(check.status.code(), Some(0), "{load:?}: {errors}\n{text}");
    }
}

/// The capabilities that the unit leaves: the device, its routes and its steering need no more.
#[test]
fn the_rights_of_the_unit_suffice() {
    const TEST: &str = "the_rights_of_the_unit_suffice";
    let unit = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../tuning/systemd/sstp-gw.service"
    );
    let unit = std::fs::read_to_string(unit).unwrap();
    let set = unit
        .lines()
        .find_map(|line| line.strip_prefix("CapabilityBoundingSet="))
        .expect("the unit bounds them");
    let rights = set.split_whitespace().map(|right| {
        let name = right.strip_prefix("CAP_").expect("a capability");
        format!(",+{}", name.to_lowercase())
    });
    let bounds = format!("--bounding-set=-all{}", rights.collect::<String>());
    let through = ["setpriv", &bounds, "--inh-caps=-all", "--no-new-privs"];
    let tried = Command::new("setpriv")
        .args(&through[1..])
        .arg("true")
        .output();
    if !tried.is_ok_and(|output| output.status.success()) {
        return skip(
            TEST,
            "needs root, and a setpriv (package util-linux) that knows CAP_BPF",
        );
    }
    let Some(mut gateway) = Gateway::launch(TEST, &config(&driver()), &through, |_| {}) else {
        return;
    };
    gateway.process.line("\"message\":\"serving\"");
    let output = gateway
        .loadgen(PASSWORD, &["--ping", "3"])
        .output()
        .unwrap();
    assert_eq!(report(&output)["ping"]["answered"], 3);
    gateway.process.signal("TERM");
    let (status, log) = gateway.process.end();
    assert_eq!(status.code(), Some(0), "{log}");
    // Steering falls back where it is not allowed; here it is.
    assert!(!log.contains("EPERM"), "{log}");
}
