//! The files that come with the project: the kernel knows their keys, nft and systemd take them.

use std::path::{Path, PathBuf};
use std::process::Command;

mod common;
use common::{is_root, skip};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn sysctls() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(file("sysctl.d/60-sstp-gw.conf")).unwrap();
    text.lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let (key, value) = line.split_once(" = ").expect("key = value");
            (key.to_owned(), value.to_owned())
        })
        .collect()
}

#[test]
fn every_sysctl_is_one_of_this_kernel() {
    let keys = sysctls();
    assert!(keys.len() > 10);
    for (key, _) in keys {
        let path = PathBuf::from(format!("/proc/sys/{}", key.replace('.', "/")));
        // A kernel without IPv6 or eBPF has no such key, and a container may hide all of them.
        if !path.exists() {
            skip(
                "every_sysctl_is_one_of_this_kernel",
                &format!("in part: this kernel has no {key}"),
            );
        }
    }
}

#[test]
fn a_host_with_these_sysctls_is_told_nothing_about_them() {
    let dir = tempfile::tempdir().unwrap();
    for (key, value) in sysctls() {
        let path = dir.path().join("proc/sys").join(key.replace('.', "/"));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, value).unwrap();
    }
    let output = Command::new(env!("CARGO_BIN_EXE_sstp-tune"))
        .args(["check", "--json", "--root"])
        .arg(dir.path())
        .output()
        .unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let points = [
        "forwarding.ipv4",
        "forwarding.ipv6",
        "forwarding.rp_filter",
        "tcp.somaxconn",
        "tcp.syn_backlog",
        "tcp.wmem_max",
        "tcp.rmem_max",
        "path.mtu_probing",
        "ebpf.jit",
        "tun.steering",
    ];
    for point in points {
        let findings = report["findings"].as_array().unwrap();
        let finding = findings.iter().find(|f| f["point"] == point);
        let finding = finding.unwrap_or_else(|| panic!("no point {point}"));
        assert_eq!(finding["state"], "ok", "{finding:#}");
    }
}

#[test]
fn nft_takes_the_rules() {
    const TEST: &str = "nft_takes_the_rules";
    if !is_root() {
        return skip(TEST, "needs root: nft asks the kernel what it has");
    }
    // In a namespace of its own, so that nothing of this host's rules plays a part.
    let output = Command::new("unshare")
        .args(["--net", "nft", "-c", "-f"])
        .arg(file("nftables/sstp-gw.nft"))
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) => return skip(TEST, &format!("no unshare (package util-linux): {error}")),
    };
    let errors = String::from_utf8_lossy(&output.stderr);
    // What the kernel or the host lacks is not the file's fault; a mistake in it is told by line.
    let lacks = [
        "No such file",
        "not supported",
        "not permitted",
        "failed to execute",
    ];
    if !output.status.success() && lacks.iter().any(|lack| errors.contains(lack)) {
        return skip(TEST, errors.trim());
    }
    assert!(output.status.success(), "{errors}");
}

#[test]
fn the_unit_exposes_little() {
    const TEST: &str = "the_unit_exposes_little";
    let output = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--threshold=20", "--no-pager"])
        .arg(file("systemd/sstp-gw.service"))
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) => {
            return skip(
                TEST,
                &format!("no systemd-analyze (package systemd): {error}"),
            );
        }
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text
        .lines()
        .rev()
        .find(|line| line.contains("Overall exposure"));
    let Some(last) = last else {
        let errors = String::from_utf8_lossy(&output.stderr);
        return skip(
            TEST,
            &format!("systemd-analyze cannot say: {}", errors.trim()),
        );
    };
    assert!(output.status.success(), "more than 2.0: {last}");
}
