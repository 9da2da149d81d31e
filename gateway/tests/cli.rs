//! The real binary: exit statuses, and what a person does with it before the first session.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn sstp_gw(arguments: &[&str], directory: &Path, input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_sstp-gw"))
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that does not read its input closes it.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn usage_and_version_have_their_statuses() {
    let dir = tempfile::tempdir().unwrap();
    for (arguments, status) in [
        (vec!["--version"], 0),
        (vec!["--help"], 0),
        (vec![], 2),
        (vec!["serve"], 2),
        (vec!["run"], 2),
        (vec!["user", "list"], 2),
        (vec!["user", "--users", "a", "--config", "b", "list"], 2),
        (vec!["check", "--config", "missing.toml"], 78),
        (vec!["run", "--config", "missing.toml"], 78),
        (vec!["user", "--users", "missing.toml", "list"], 1),
    ] {
        let output = sstp_gw(&arguments, dir.path(), "");
        assert_eq!(
            output.status.code(),
            Some(status),
            "{arguments:?}: {}",
            text(&output)
        );
    }
}

#[test]
fn a_bad_configuration_is_78_and_every_error_is_said() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join("c.toml"),
        "[tls]\nmin_version = \"1.0\"\n[[pool]]\nv4 = 7\n",
    )
    .unwrap();
    for command in ["check", "run"] {
        let output = sstp_gw(&[command, "--config", "c.toml"], dir.path(), "");
        assert_eq!(output.status.code(), Some(78));
        let said = text(&output);
        for words in [
            "TLS below 1.2",
            "`pool.v4` is an integer",
            "`listen` is missing",
            "c.toml:2:15",
        ] {
            assert!(said.contains(words), "{said}");
        }
    }
}

#[test]
fn users_come_and_go_and_nothing_secret_is_shown() {
    use std::os::unix::fs::MetadataExt as _;

    let dir = tempfile::tempdir().unwrap();
    let user = |arguments: &[&str], input: &str| {
        let all = [&["user", "--users", "users.toml"], arguments].concat();
        sstp_gw(&all, dir.path(), input)
    };
    let add = [
        "add",
        "alice",
        "--password-stdin",
        "--v4",
        "10.99.0.7",
        "--v6",
        "fd00:99:0:7::",
    ];
    assert!(user(&add, "clientPass\n").status.success());
    assert!(
        user(&["add", "bob", "--password-stdin", "--pap-only"], "pw\n")
            .status
            .success()
    );
    let path = dir.path().join("users.toml");
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    let file = std::fs::read_to_string(&path).unwrap();
    assert!(file.contains("44ebba8d5312b8d611474411f56989ae") && file.contains("$argon2id$"));

    let again = user(&add, "x\n");
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again).contains("exists already"));
    assert_eq!(
        user(&["add", "carol", "--password-stdin"], "")
            .status
            .code(),
        Some(1)
    );
    // Without a terminal nobody can be asked.
    assert!(text(&user(&["passwd", "alice"], "x\n")).contains("--password-stdin"));

    let list = text(&user(&["list"], ""));
    assert!(
        list.contains("alice") && list.contains("10.99.0.7") && list.contains("fd00:99:0:7::/64")
    );
    assert!(
        !list.contains("44ebba") && !list.contains("argon2id"),
        "{list}"
    );
    assert!(
        user(&["passwd", "alice", "--password-stdin"], "new\n")
            .status
            .success()
    );
    assert!(!std::fs::read_to_string(&path).unwrap().contains("44ebba"));
    assert!(user(&["disable", "alice"], "").status.success());
    assert!(text(&user(&["list", "--json"], "")).contains("\"disabled\": true"));
    assert!(user(&["remove", "alice"], "").status.success());
    assert_eq!(user(&["remove", "alice"], "").status.code(), Some(1));
}
