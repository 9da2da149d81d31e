//! The binary over recorded hosts: its whole output for people and for machines, and its exit code.
//!
//! The trees under `trees/` were written by hand from the kernel's documentation: `metal64` a
//! 64-CPU server with a few settings left at their defaults, `container` an unprivileged container
//! on an old kernel with files missing, masked or spoilt, `vm2` a small ARM guest in good order.

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
    assert!(points >= 18, "{points}");
    assert_eq!(output.matches("worth: ").count(), points);
}

#[test]
fn help() {
    let output = Command::new(env!("CARGO_BIN_EXE_sstp-tune"))
        .args(["check", "--help"])
        .env("COLUMNS", "100")
        .output()
        .expect("the binary runs");
    insta::assert_snapshot!(text(&output));
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
