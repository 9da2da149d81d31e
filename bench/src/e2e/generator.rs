//! What the generator costs itself: loadgen is the instrument of every test of capacity, so a host
//! that runs it should know what it takes.

use std::io;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::Options;
use super::gateway::{PASSWORD, USER, binary};
use super::process::{Workspace, run};
use super::report::{Report, Row};

/// The names of the figures.
pub(super) const NAMES: [&str; 4] = [
    "generator/set-ups",
    "generator/udp/up",
    "generator/tcp/up",
    "generator/tcp/down",
];

/// The far end, on the gateway's own address.
const FAR_END: &str = "10.77.0.1:7100";

/// Loadgen's own CPU time, of all its threads: for 1,000 set-ups, and for a gigabyte each way.
pub(super) fn cost(
    options: &Options,
    workspace: &Workspace,
    report: &mut Report,
) -> io::Result<()> {
    if !options.wants_any(&NAMES) {
        return Ok(());
    }
    let loadgen = binary("loadgen")?;
    let arguments = ["reflect", "--listen", FAR_END];
    let mut far_end = workspace.start("reflect", None, None, &loadgen, &arguments)?;
    far_end.line("reflecting on")?;
    let (sessions, seconds) = if options.is_quick {
        ("200", "1")
    } else {
        ("1000", "3")
    };
    let set_ups = ["storm", "-N", sessions, "--rate", "250"];
    let traffic = [
        "traffic",
        "-N",
        "10",
        "--to",
        FAR_END,
        "--duration",
        seconds,
    ];
    let udp = ["--up", "--pps", "50k", "--size", "1400"];
    let cases: [(&str, Vec<&str>); 4] = [
        (NAMES[0], set_ups.to_vec()),
        (NAMES[1], [&traffic[..], &udp].concat()),
        (NAMES[2], [&traffic[..], &["--tcp-up"]].concat()),
        (NAMES[3], [&traffic[..], &["--tcp-down"]].concat()),
    ];
    for (name, arguments) in cases {
        if !options.wants(name) {
            continue;
        }
        let mut values = Vec::new();
        for round in 1..=options.reps {
            let value = figure(&one(&loadgen, &arguments)?, name);
            let value = value.ok_or_else(|| {
                io::Error::other(format!("loadgen's report does not say what {name} cost"))
            })?;
            eprintln!("round {round} of {}: {name} {value:.3}", options.reps);
            values.push(value);
        }
        let unit = if name == NAMES[0] {
            "CPU-s/1000"
        } else {
            "CPU-s/GB"
        };
        let note = "loadgen's own CPU, user and system, one shard; the gateway and the far end share the host";
        report
            .rows
            .push(Row::alone(name, unit, &values, None).with_note(note.to_owned()));
    }
    far_end.signal("TERM")?;
    far_end.end().map(|_| ())
}

/// The report of one run.
fn one(loadgen: &Path, arguments: &[&str]) -> io::Result<Value> {
    let mut command = Command::new(loadgen);
    command.args(arguments);
    command.args(["127.0.0.1:443", "--user", USER, "--password", PASSWORD]);
    command.args([
        "--shards",
        "1",
        "--quiet",
        "--insecure-accept-any-certificate",
        "--json",
        "-",
    ]);
    serde_json::from_str(&run(&mut command)?).map_err(io::Error::other)
}

/// CPU seconds for 1,000 set-ups, or for 10⁹ bytes of the direction that `name` ends with.
fn figure(report: &Value, name: &str) -> Option<f64> {
    let number = |path: &str| report.pointer(path)?.as_f64();
    let steady = number("/generator/cpu_steady_s");
    let (cpu, count) = match name {
        "generator/set-ups" => (number("/generator/cpu_setup_s"), number("/setup/up")? / 1e3),
        "generator/udp/up" => (steady, number("/traffic/sent_bytes")? / 1e9),
        "generator/tcp/up" => (steady, number("/tcp/up/bytes")? / 1e9),
        _ => (steady, number("/tcp/down/bytes")? / 1e9),
    };
    (count > 0.0).then(|| cpu.map(|cpu| cpu / count))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_from_the_report() {
        let report = serde_json::json!({
            "setup": { "up": 500 },
            "generator": { "cpu_setup_s": 0.25, "cpu_steady_s": 3.0 },
            "traffic": { "sent_bytes": 1_500_000_000_u64 },
            "tcp": { "up": { "bytes": 2_000_000_000_u64 }, "down": { "bytes": 0 } },
        });
        let figures = NAMES.map(|name| figure(&report, name));
        assert_eq!(figures, [Some(0.5), Some(2.0), Some(1.5), None]);
    }
}
