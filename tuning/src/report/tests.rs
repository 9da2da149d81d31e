//! The whole report over hosts that are whole, spoilt, or empty: it never panics, and what could not
//! be read is said.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::recorded::{Entry, Recorded};

const TREES: [&str; 4] = [
    include_str!("../../tests/trees/metal64.txt"),
    include_str!("../../tests/trees/vm2.txt"),
    include_str!("../../tests/trees/container.txt"),
    include_str!("../../tests/trees/old61.txt"),
];

fn tree(index: usize) -> Recorded {
    Recorded::parse(TREES[index]).unwrap()
}

#[test]
fn a_host_without_any_file_gives_a_whole_report() {
    let report = Report::of(&Host::of(&[]));
    assert_eq!(report.findings.len(), checks::ALL.len());
    assert!(report.table(true, false).lines().count() > checks::ALL.len());
    let json: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
    assert_eq!(json["schema_version"], 1);
    assert_eq!(json["host"]["kernel"], serde_json::Value::Null);
}

#[test]
fn every_point_has_its_own_name_and_whole_sentences() {
    let report = Report::of(&Host::of(&[]));
    let mut names: Vec<&str> = report.findings.iter().map(|f| f.point.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), report.findings.len());
    for finding in &report.findings {
        assert!(finding.point.name.contains('.'), "{}", finding.point.name);
        assert!(!finding.point.worth.is_empty());
        assert!(!finding.point.should_be.is_empty());
        assert!(!finding.point.source.is_empty());
    }
}

#[test]
fn whatever_is_advised_says_how_and_how_to_go_back() {
    for index in 0..TREES.len() {
        let report = Report::of(&Host::recorded(tree(index)));
        for finding in &report.findings {
            assert!(
                finding.changes.is_empty() || finding.undo.is_some(),
                "{}: apply changes it, and nothing says how to undo that",
                finding.point.name
            );
            if finding.point.name == "cpu.mitigations" {
                assert!(finding.set.is_none(), "never advised away");
            }
        }
    }
}

/// How one file is spoilt.
#[derive(Clone, Copy, Debug)]
enum Spoil {
    Absent,
    Denied,
    Binary,
    Words,
    Empty,
    Truncated,
    Huge,
    Enormous,
}

const SPOILS: [Spoil; 8] = [
    Spoil::Absent,
    Spoil::Denied,
    Spoil::Binary,
    Spoil::Words,
    Spoil::Empty,
    Spoil::Truncated,
    Spoil::Huge,
    Spoil::Enormous,
];

fn spoil(files: &mut BTreeMap<String, Entry>, path: &str, how: Spoil) {
    let Some(entry) = files.get_mut(path) else {
        return;
    };
    let old = entry.contents.take().unwrap_or_default();
    entry.contents = match how {
        Spoil::Absent => {
            files.remove(path);
            return;
        }
        Spoil::Denied => None,
        Spoil::Binary => Some(vec![0xff, 0x00, 0x1b, 0x5b]),
        Spoil::Words => Some(b"no such thing as this: [ { 12 -1 0xzz\n".to_vec()),
        Spoil::Empty => Some(Vec::new()),
        Spoil::Truncated => Some(old[..old.len() / 2].to_vec()),
        Spoil::Huge => {
            Some(b"99999999999999999999999999 18446744073709551615 4294967295\n".repeat(64))
        }
        Spoil::Enormous => Some(b"0-4294967295,".repeat(200_000)),
    };
}

#[test]
fn one_spoilt_file_never_stops_the_report() {
    for index in 0..TREES.len() {
        let whole = tree(index);
        let mut seen: Vec<String> = Vec::new();
        for path in whole.files.keys() {
            // One of each kind: the 64th CPU tells nothing that the first did not.
            let kind: String = path.chars().filter(|c| !c.is_ascii_digit()).collect();
            if seen.contains(&kind) {
                continue;
            }
            seen.push(kind);
            for how in SPOILS {
                let mut spoilt = whole.clone();
                spoil(&mut spoilt.files, path, how);
                let report = Report::of(&Host::recorded(spoilt));
                assert_eq!(report.findings.len(), checks::ALL.len(), "{path} {how:?}");
                for text in [report.table(true, true), report.json()] {
                    assert!(!text.contains('\u{7f}'));
                }
            }
        }
    }
}

/// What the finding rests on is garbage: then nothing good or bad is said about the host.
#[test]
fn a_host_of_garbage_is_judged_by_nothing() {
    for how in [Spoil::Binary, Spoil::Denied] {
        for index in 0..TREES.len() {
            let mut host = tree(index);
            let paths: Vec<String> = host.files.keys().cloned().collect();
            for path in &paths {
                spoil(&mut host.files, path, how);
            }
            let report = Report::of(&Host::recorded(host));
            for finding in &report.findings {
                // These ask only whether something is there, or what its mode is.
                let by_existence = [
                    "tun.device",
                    "clock.sync",
                    "keys.mode",
                    "nic.xps",
                    "nic.rss",
                ];
                if by_existence.contains(&finding.point.name) {
                    continue;
                }
                // What is not there at all is none the worse for it.
                let absent = finding.found.contains("not loaded")
                    || finding.found.contains("absent")
                    || finding.found == "one node";
                assert!(
                    matches!(finding.state, State::Unknown | State::Note) || absent,
                    "{how:?}, tree {index}: {} says {:?} {}",
                    finding.point.name,
                    finding.state,
                    finding.found
                );
            }
            assert!(report.findings.iter().any(|f| f.state == State::Unknown));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_bytes_in_any_files_give_a_report(
        index in 0..TREES.len(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<Vec<u8>>()), 1..40),
    ) {
        let mut host = tree(index);
        let paths: Vec<String> = host.files.keys().cloned().collect();
        for (which, bytes) in changes {
            if let Some(entry) = host.files.get_mut(which.get(&paths)) {
                entry.contents = Some(bytes);
            }
        }
        let report = Report::of(&Host::recorded(host));
        prop_assert_eq!(report.findings.len(), checks::ALL.len());
        let shown = report.table(true, false);
        prop_assert!(!shown.chars().any(|c| c.is_control() && c != '\n' && c != '\t'));
    }

    #[test]
    fn any_text_is_a_host_or_a_mistake(text in "(--- |/|\\{|\\}|[0-9]|\\.\\.|n|-|\n|[a-z ]){0,60}") {
        if let Ok(recorded) = Recorded::parse(&text) {
            let _ = Report::of(&Host::recorded(recorded));
        }
    }
}
