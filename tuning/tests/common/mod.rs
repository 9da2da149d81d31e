//! What the tests of files and of `apply` share.

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
