//! Findings as a table for people and as JSON for machines.

use std::fmt::Write;

use serde::Serialize;

use crate::checks;
use crate::finding::{Finding, State};
use crate::host::Host;

/// Raised when a field of the JSON changes its meaning or goes.
const SCHEMA_VERSION: u32 = 1;

/// Everything that is said about one host.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    schema_version: u32,
    version: &'static str,
    host: Summary,
    counts: Counts,
    pub(crate) findings: Vec<Finding>,
}

/// What kind of host it is.
#[derive(Debug, Serialize)]
struct Summary {
    kernel: Option<String>,
    cpu_count: Option<usize>,
    cpu_model: Option<String>,
    /// Which container this is, as far as it shows.
    container: Option<String>,
}

#[derive(Debug, Serialize)]
struct Counts {
    ok: usize,
    note: usize,
    unknown: usize,
    advice: usize,
    problem: usize,
}

impl Report {
    /// Runs every check on `host`.
    pub(crate) fn of(host: &Host) -> Self {
        let findings: Vec<Finding> = checks::ALL.iter().map(|check| check(host)).collect();
        let count = |state| findings.iter().filter(|f| f.state == state).count();
        Self {
            schema_version: SCHEMA_VERSION,
            version: env!("CARGO_PKG_VERSION"),
            host: Summary::of(host),
            counts: Counts {
                ok: count(State::Ok),
                note: count(State::Note),
                unknown: count(State::Unknown),
                advice: count(State::Advice),
                problem: count(State::Problem),
            },
            findings,
        }
    }

    /// The worst state of all findings.
    pub(crate) fn worst(&self) -> State {
        self.findings
            .iter()
            .map(|finding| finding.state)
            .max()
            .unwrap_or(State::Ok)
    }

    /// For machines: one object, pretty-printed.
    pub(crate) fn json(&self) -> String {
        // Only strings and numbers are in it, so writing it cannot fail.
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// For people: a line for each point, below it what to do where something should be done.
    pub(crate) fn table(&self, verbose: bool, coloured: bool) -> String {
        let mut text = String::new();
        let out = &mut text;
        let Summary {
            kernel,
            cpu_count,
            cpu_model,
            container,
        } = &self.host;
        let unknown = || "unknown".to_owned();
        line(
            out,
            format_args!(
                "Linux {} · {} CPUs · {}",
                kernel.clone().unwrap_or_else(unknown),
                cpu_count.map_or_else(unknown, |count| count.to_string()),
                cpu_model.clone().unwrap_or_else(unknown),
            ),
        );
        if let Some(container) = container {
            line(
                out,
                format_args!(
                    "In a container ({container}): what is not this container's own has to be set on its host."
                ),
            );
        }
        line(out, format_args!(""));

        let name_len = self.longest(|finding| finding.point.name);
        let found_len = self.longest(|finding| &finding.found).min(44);
        for finding in &self.findings {
            let state = finding.state;
            line(
                out,
                format_args!(
                    "{}{:7}{}  {:name_len$}  {:found_len$}  (should be: {})",
                    if coloured { colour(state) } else { "" },
                    state.word(),
                    if coloured { "\x1b[0m" } else { "" },
                    finding.point.name,
                    finding.found,
                    finding.point.should_be,
                ),
            );
            if verbose || state >= State::Advice {
                line(
                    out,
                    format_args!(
                        "         worth: {} [{}: {}]",
                        finding.point.worth,
                        finding.point.basis.word(),
                        finding.point.source,
                    ),
                );
            }
            if let Some(set) = &finding.set {
                line(out, format_args!("         set:   {set}"));
            }
            if let Some(undo) = &finding.undo {
                line(out, format_args!("         undo:  {undo}"));
            }
        }

        line(out, format_args!(""));
        let counts: Vec<String> = State::ALL
            .iter()
            .map(|&state| {
                (
                    state,
                    self.findings.iter().filter(|f| f.state == state).count(),
                )
            })
            .filter(|&(_, count)| count > 0)
            .map(|(state, count)| format!("{count} {}", state.word()))
            .collect();
        line(out, format_args!("{}", counts.join(", ")));
        if self.findings.iter().any(|f| {
            f.set
                .as_deref()
                .is_some_and(|set| set.starts_with("sysctl"))
        }) {
            line(
                out,
                format_args!(
                    "A sysctl set this way lasts until the next start of the host; `sstp-tune apply POINT ...` sets it and\n\
                     writes it into /etc/sysctl.d/60-sstp-gw.conf, `sstp-tune undo` restores both."
                ),
            );
        }
        text
    }

    /// Characters in the longest of one column.
    fn longest<'a>(&'a self, column: impl Fn(&'a Finding) -> &'a str) -> usize {
        self.findings
            .iter()
            .map(|finding| column(finding).chars().count())
            .max()
            .unwrap_or(0)
    }
}

impl Summary {
    fn of(host: &Host) -> Self {
        let cpuinfo = checks::cpu::Cpuinfo::read(host).ok();
        Self {
            kernel: host.word("/proc/sys/kernel/osrelease").ok(),
            cpu_count: cpuinfo.as_ref().map(|cpuinfo| cpuinfo.count),
            cpu_model: cpuinfo.and_then(|cpuinfo| cpuinfo.model),
            container: container(host),
        }
    }
}

/// Which container this is: systemd and podman say so in a file, docker leaves one behind.
fn container(host: &Host) -> Option<String> {
    if let Ok(kind) = host.word("/run/systemd/container") {
        return Some(kind);
    }
    if host.exists("/run/.containerenv") {
        return Some("podman".to_owned());
    }
    host.exists("/.dockerenv").then(|| "docker".to_owned())
}

/// ANSI colour of a state.
const fn colour(state: State) -> &'static str {
    match state {
        State::Ok => "\x1b[32m",
        State::Note | State::Unknown => "\x1b[36m",
        State::Advice => "\x1b[33m",
        State::Problem => "\x1b[1;31m",
    }
}

/// Appends a line; no white space at its end.
fn line(out: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = out.write_fmt(arguments);
    out.truncate(out.trim_end_matches(' ').len());
    out.push('\n');
}

#[cfg(test)]
mod tests;
