//! What the tests of files and of `apply` share.
#![allow(dead_code, reason = "each test uses its own part")]

use std::ffi::OsStr;
use std::io::Write as _;
use std::process::Command;

/// Says loudly that test `name` did not run, and why; in $SSTP_GW_SKIPPED too.
pub(crate) fn skip(name: &str, why: &str) {
    eprintln!("SKIPPED {name}: {why}");
    if let Some(path) = std::env::var_os("SSTP_GW_SKIPPED") {
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.create(true).append(true).open(path).unwrap();
        // One write, so that tests do not write into each other's lines.
        file.write_all(format!("{name}: {why}\n").as_bytes())
            .unwrap();
    }
}

/// Whether this process is root.
pub(crate) fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output();
    id.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

/// Runs `script` by `shell` as root in a network and a mount namespace of its own and gives what it
/// wrote, to standard output and to standard error. `None`, and the test is skipped, where that
/// cannot be had or the script ends with 77.
pub(crate) fn in_namespaces(
    test: &str,
    shell: &str,
    script: &str,
    (name, value): (&str, &OsStr),
) -> Option<(String, String)> {
    if !is_root() {
        skip(test, "needs root, for namespaces of its own");
        return None;
    }
    let output = Command::new("unshare")
        .args(["--net", "--mount", shell, "-c", script])
        .env(name, value)
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) => {
            skip(test, &format!("no unshare (package util-linux): {error}"));
            return None;
        }
    };
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.code() == Some(77) || errors.contains("unshare:") {
        skip(test, &format!("not on this host: {}", errors.trim()));
        return None;
    }
    assert!(output.status.success(), "{text}\n{errors}");
    Some((text, errors))
}
