//! The binary over recorded hosts: its whole output for people and for machines, and its exit code.
//!
//! The hosts under `trees/` were written by hand from the kernel's documentation, in the format of
//! `sstp-tune record`: `metal64` a 64-CPU server with a 100G card and a few settings left at their
//! defaults, `container` an unprivileged container on an old kernel with files missing, masked or spoilt,
//! `vm2` a small ARM guest in good order, `old61` a server with Linux 6.1 as it was installed.

use std::path::Path;
use std::process::{Command, Output};

fn check(tree: &str, flags: &[&str]) -> Output {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/trees")
        .join(format!("{tree}.txt"));
    Command::new(env!("CARGO_BIN_EXE_sstp-tune"))
        .arg("check")
        .arg("--root")
        .arg(root)
        .args(flags)
        .output()
        .expect("the binary runs")
}

fn text(output: &Output) -> String {
    assert!(
        output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

#[test]
fn tables() {
    for tree in ["metal64", "container", "vm2", "old61"] {
        insta::assert_snapshot!(format!("table_{tree}"), text(&check(tree, &[])));
    }
}

#[test]
fn json() {
    for tree in ["metal64", "container", "vm2", "old61"] {
        insta::assert_snapshot!(format!("json_{tree}"), text(&check(tree, &["--json"])));
    }
}

#[test]
fn the_exit_code_says_whether_something_must_be_done() {
    let code = |tree, flags: &[&str]| check(tree, flags).status.code();
    assert_eq!(
        code("metal64", &[]),
        Some(1),
        "its connection table is nearly full"
    );
    assert_eq!(code("container", &["--json"]), Some(1));
    assert_eq!(code("vm2", &[]), Some(0));
    assert_eq!(code("vm2", &["--strict"]), Some(0));
    assert_eq!(code("no-such-tree", &[]), Some(2));
    assert_eq!(code("vm2", &["--no-such-flag"]), Some(2));
}

#[test]
fn verbose_says_what_each_point_is_worth() {
    let output = text(&check("vm2", &["--verbose"]));
    let points = output.matches("(should be: ").count();
    assert!(points >= 50, "{points}");
    assert_eq!(output.matches("worth: ").count(), points);
}

#[test]
fn help() {
    let of = |command: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_sstp-tune"))
            .args(command)
            .arg("--help")
            .env("COLUMNS", "100")
            .output()
            .expect("the binary runs");
        text(&output)
    };
    let all = [
        &[][..],
        &["check"],
        &["record"],
        &["plan"],
        &["apply"],
        &["undo"],
    ];
    insta::assert_snapshot!(all.map(of).join("\n=====\n"));
}

#[test]
fn a_record_of_this_host_is_read_again() {
    let record = Command::new(env!("CARGO_BIN_EXE_sstp-tune"))
        .arg("record")
        .output()
        .expect("the binary runs");
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("host.txt");
    std::fs::write(&file, text(&record)).expect("a file");
    let output = Command::new(env!("CARGO_BIN_EXE_sstp-tune"))
        .args(["check", "--json", "--root"])
        .arg(&file)
        .output()
        .expect("the binary runs");
    let report: serde_json::Value = serde_json::from_str(&text(&output)).expect("JSON");
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("Linux");
    assert_eq!(report["host"]["kernel"], kernel.trim());
    assert!(report["counts"]["ok"].as_u64().expect("a count") > 0);
}

#[test]
fn this_host_is_read_without_fault() {
    let output = Command::new(env!("CARGO_BIN_EXE_sstp-tune"))
        .args(["check", "--json"])
        .output()
        .expect("the binary runs");
    let report: serde_json::Value = serde_json::from_str(&text(&output)).expect("JSON");
    let kernel = report["host"]["kernel"].as_str().expect("a kernel");
    assert!(kernel.contains('.'), "{kernel}");
}
