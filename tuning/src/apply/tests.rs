//! Applied, stopped at each step, undone: what was there is there again, byte for byte.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use super::*;
use crate::host::Host;
use crate::report::Report;

/// A host with something to do for every kind of change, and files of ours that others have edited.
const FILES: [(&str, &str); 13] = [
    ("/proc/sys/net/core/somaxconn", "128\n"),
    ("/proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t6291456\n"),
    ("/proc/sys/net/ipv4/conf/all/rp_filter", "0\n"),
    ("/proc/sys/net/ipv4/conf/default/rp_filter", "0\n"),
    ("/proc/self/limits", "Max open files 1024 4096 files\n"),
    (
        "/sys/kernel/mm/transparent_hugepage/enabled",
        "[always] madvise never\n",
    ),
    ("/proc/cpuinfo", "processor : 0\nprocessor : 1\n"),
    ("/sys/class/net/eth0/device/msi_irqs/40", "msix\n"),
    ("/sys/class/net/eth0/device/msi_irqs/41", "msix\n"),
    (
        "/proc/interrupts",
        "40: 1 1 MSI eth0-0\n41: 1 1 MSI eth0-1\n",
    ),
    ("/proc/irq/40/smp_affinity_list", "1\n"),
    ("/proc/irq/41/smp_affinity_list", "1\n"),
    (
        "/etc/sysctl.d/60-sstp-gw.conf",
        "# mine, without a line's end\nnet.core.somaxconn=512\nvm.swappiness = 1",
    ),
];

const POINTS: [&str; 6] = [
    "tcp.somaxconn",
    "tcp.rmem_max",
    "forwarding.rp_filter",
    "limits.open_files",
    "memory.thp",
    "irq.affinity",
];

fn host() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (path, text) in FILES {
        let path = dir.path().join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let sysctl = dir.path().join("etc/sysctl.d/60-sstp-gw.conf");
    fs::set_permissions(sysctl, fs::Permissions::from_mode(0o640)).unwrap();
    dir
}

/// Everything below `root` but our own journal: contents and mode by path.
fn tree(root: &Path) -> BTreeMap<String, (u32, Vec<u8>)> {
    let mut all = BTreeMap::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path
                .strip_prefix(root)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            // Directories of the journal are made by opening it.
            if name.starts_with("var") {
                continue;
            }
            let mode = fs::symlink_metadata(&path).unwrap().mode();
            if path.is_dir() {
                all.insert(name, (mode, Vec::new()));
                dirs.push(path);
            } else {
                all.insert(name, (mode, fs::read(&path).unwrap()));
            }
        }
    }
    all
}

/// Values are compared by what the kernel would say: it writes what we wrote without the choices.
fn same_but_for_choices(
    mut before: BTreeMap<String, (u32, Vec<u8>)>,
    mut after: BTreeMap<String, (u32, Vec<u8>)>,
) {
    let thp = "sys/kernel/mm/transparent_hugepage/enabled";
    for tree in [&mut before, &mut after] {
        let text = String::from_utf8(tree[thp].1.clone()).unwrap();
        assert!(text.contains("always"), "{text}");
        tree.remove(thp);
    }
    assert_eq!(before, after);
}

fn run(root: &Path, stop: Option<u32>) -> Result<(String, Ending), String> {
    run_of(root, &POINTS, stop)
}

fn run_of(root: &Path, points: &[&str], stop: Option<u32>) -> Result<(String, Ending), String> {
    let findings = Report::of(&Host::below(root.to_owned())).findings;
    let mut disk = Disk::below(root.to_owned());
    if let Some(stop) = stop {
        disk = disk.stopping(stop);
    }
    let points: Vec<String> = points.iter().map(|&name| name.to_owned()).collect();
    apply(&disk, &findings, &points, false)
}

fn undone(root: &Path) {
    let (text, ending) = undo(&Disk::below(root.to_owned()), false, false).unwrap();
    assert_eq!(ending, Ending::Done, "{text}");
}

#[test]
fn what_was_chosen_is_there_and_goes_again() {
    let host = host();
    let root = host.path();
    let before = tree(root);
    let (text, ending) = run(root, None).unwrap();
    assert_eq!(ending, Ending::Done, "{text}");
    insta::assert_snapshot!("applied", text);
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap();
    insta::assert_snapshot!(
        "written",
        [
            "etc/sysctl.d/60-sstp-gw.conf",
            "etc/systemd/system/sstp-gw.service.d/60-sstp-tune.conf",
            "etc/tmpfiles.d/60-sstp-gw.conf",
        ]
        .map(|path| format!("== {path}\n{}", read(path)))
        .concat()
    );
    assert_eq!(read("proc/sys/net/core/somaxconn"), "4096\n");
    assert_eq!(read("proc/irq/40/smp_affinity_list"), "0\n");

    // Once more changes nothing but what a recorded tree cannot show of itself.
    let (text, _) = run(root, None).unwrap();
    assert!(!text.contains("write /etc"), "{text}");

    undone(root);
    same_but_for_choices(before, tree(root));
    let (text, _) = undo(&Disk::below(root.to_owned()), false, false).unwrap();
    assert_eq!(text, "nothing to undo\n");
}

/// One for each kind of change: steps take their time, each waits for the disk.
const KINDS: [&str; 4] = [
    "tcp.somaxconn",
    "limits.open_files",
    "memory.thp",
    "irq.affinity",
];

#[test]
fn stopped_at_any_step_it_can_be_undone() {
    let mut stopped = 0;
    for step in 0.. {
        let host = host();
        let before = tree(host.path());
        let ended = run_of(host.path(), &KINDS, Some(step));
        undone(host.path());
        same_but_for_choices(before, tree(host.path()));
        match ended {
            Ok((text, Ending::Done)) => {
                assert!(
                    stopped > 60,
                    "only {stopped} steps; the last run said {text}"
                );
                return;
            }
            _ => stopped += 1,
        }
        assert!(step < 1_000, "it does not come to an end");
    }
}

#[test]
fn stopped_and_applied_again_it_can_be_undone() {
    for step in (0..).step_by(7) {
        let host = host();
        let before = tree(host.path());
        let ended = run(host.path(), Some(step));
        let (text, ending) = run(host.path(), None).unwrap();
        assert_eq!(ending, Ending::Done, "{text}");
        undone(host.path());
        same_but_for_choices(before, tree(host.path()));
        if matches!(ended, Ok((_, Ending::Done))) {
            return;
        }
    }
}

#[test]
fn an_undo_stopped_at_any_step_is_finished_by_the_next() {
    for step in 0.. {
        let host = host();
        let before = tree(host.path());
        run(host.path(), None).unwrap();
        let disk = Disk::below(host.path().to_owned()).stopping(step);
        let ended = undo(&disk, false, false);
        drop(disk);
        undone(host.path());
        same_but_for_choices(before, tree(host.path()));
        if matches!(ended, Ok((_, Ending::Done))) {
            assert!(step > 20, "only {step} steps");
            return;
        }
    }
}

#[test]
fn what_somebody_else_changed_since_is_left_unless_forced() {
    let host = host();
    let root = host.path();
    let before = tree(root);
    run(root, None).unwrap();
    let file = root.join("etc/sysctl.d/60-sstp-gw.conf");
    fs::write(&file, "theirs\n").unwrap();
    fs::write(root.join("proc/sys/net/core/somaxconn"), "77\n").unwrap();
    let disk = Disk::below(root.to_owned());
    let (text, ending) = undo(&disk, false, false).unwrap();
    assert_eq!(ending, Ending::InPart);
    assert_eq!(text.matches("LEFT ").count(), 2, "{text}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "theirs\n");
    let (text, ending) = undo(&disk, false, true).unwrap();
    assert_eq!(ending, Ending::Done, "{text}");
    same_but_for_choices(before, tree(root));
}

#[test]
fn nothing_is_done_that_was_not_asked_for() {
    let host = host();
    let root = host.path();
    let before = tree(root);
    let findings = Report::of(&Host::below(root.to_owned())).findings;
    let disk = Disk::below(root.to_owned());
    let wrong = apply(&disk, &findings, &["tcp.nonsense".to_owned()], false);
    assert!(wrong.unwrap_err().contains("tcp.nonsense"));
    let (text, _) = apply(&disk, &findings, &["tcp.somaxconn".to_owned()], true).unwrap();
    assert!(
        text.contains("would write /etc/sysctl.d/60-sstp-gw.conf"),
        "{text}"
    );
    insta::assert_snapshot!("choices", choices(&findings));
    assert_eq!(tree(root), before);
    assert!(!root.join("var").exists());
}

#[test]
fn a_link_in_the_place_of_our_file_is_left_alone() {
    let host = host();
    let root = host.path();
    let file = root.join("etc/sysctl.d/60-sstp-gw.conf");
    fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink("/dev/null", &file).unwrap();
    let why = run(root, None).unwrap_err();
    assert!(why.contains("not a regular file"), "{why}");
}
