//! What `loadgen traffic` sends through a real TUN, and whether its figures can be trusted when the
//! gateway or loadgen itself stands still.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use e2e::gateway::{Gateway, PASSWORD, USER};
use e2e::{Running, binary, driver};
use serde_json::Value;

const FAR_END: &str = "10.77.0.1:7100";

/// How long a process stands still. A test that takes a hundred times as long fails.
const STALL: Duration = Duration::from_millis(1500);

/// Packets a second in the tests of a stall.
const RATE: u32 = 50;

fn reflect(gateway: &Gateway, dir: &tempfile::TempDir) -> Running {
    let mut command = gateway.namespace.command(binary("loadgen"));
    command.args(["reflect", "--listen", FAR_END, "--json"]);
    let mut reflect = Running::start(command.arg(dir.path().join("reflect.json")));
    reflect.line("reflecting on");
    reflect
}

fn traffic(gateway: &Gateway, dir: &tempfile::TempDir, flags: &[&str]) -> Command {
    let mut command = gateway.namespace.command(binary("loadgen"));
    command.args(["traffic", "127.0.0.1:4433", "--server-name", "gateway.test"]);
    command.args(["--user", USER, "--password", PASSWORD, "--to", FAR_END]);
    command
        .args(["--driver", &driver(), "--ca"])
        .arg(gateway.ca());
    command.args(flags);
    command.arg("--json").arg(dir.path().join("traffic.json"));
    command
}

fn read(dir: &tempfile::TempDir, name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(dir.path().join(name)).unwrap()).unwrap()
}

#[test]
fn tcp_of_a_fleet_crosses_a_tun_each_way() {
    let Some(gateway) = Gateway::start("tcp_of_a_fleet_crosses_a_tun_each_way") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let reflect = reflect(&gateway, &dir);
    let flags = [
        "-N",
        "10",
        "--tcp-up",
        "--tcp-down",
        "--ping-interval",
        "0.1",
    ];
    let bounds = ["--duration", "4", "--wait", "50", "--tcp-window", "64K"];
    let run = Running::start(&mut traffic(
        &gateway,
        &dir,
        &[&flags[..], &bounds].concat(),
    ));
    let (status, said) = run.end();
    assert_eq!(status.code(), Some(0), "{said}");
    let report = read(&dir, "traffic.json");
    let (tcp, ping) = (&report["tcp"], &report["ping"]);
    for (name, count) in [
        ("connections", 20),
        ("opened", 20),
        ("finished", 20),
        ("corrupted", 0),
        ("wrong_session", 0),
    ] {
        assert_eq!(tcp[name], count, "{name}: {report:#}");
    }
    assert!(ping["received"].as_u64() > Some(0), "{report:#}");
    assert_eq!(ping["wrong_session"], 0, "{report:#}");
    reflect.signal("TERM");
    let (status, said) = reflect.end();
    assert_eq!(status.code(), Some(0), "{said}");
    let counted = &read(&dir, "reflect.json")["tcp"];
    assert_eq!(
        (&counted["connections"], &counted["corrupted"]),
        (&20.into(), &0.into()),
        "{counted:#}"
    );
    for (way, far) in [("up", "received_bytes"), ("down", "sent_bytes")] {
        let bytes = tcp[way]["bytes"].as_u64().unwrap();
        assert!(bytes > 0, "{report:#}");
        assert!(counted[far].as_u64() >= Some(bytes), "{way}: {counted:#}");
    }
    gateway.stop();
}

#[test]
fn a_tcp_far_end_that_is_not_there_is_told() {
    let Some(gateway) = Gateway::start("a_tcp_far_end_that_is_not_there_is_told") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let run = Running::start(&mut traffic(
        &gateway,
        &dir,
        &["-N", "2", "--tcp-up", "--duration", "1", "--wait", "50"],
    ));
    let (status, said) = run.end();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("2 were refused"), "{said}");
    assert_eq!(read(&dir, "traffic.json")["tcp"]["refused"], 2);
    gateway.stop();
}

/// Runs traffic in which `halt` stops somebody for a while; the report, and how long it was at least.
fn with_a_stall(gateway: &Gateway, halt: impl FnOnce(&Running) -> Duration) -> (Value, Duration) {
    let dir = tempfile::tempdir().unwrap();
    let reflect = reflect(gateway, &dir);
    let rate = RATE.to_string();
    // It ends when it is told to, however slow the machine is.
    let flags = [
        "-N",
        "4",
        // Of one shard the packets are planned at even intervals.
        "--shards",
        "1",
        "--pps",
        &rate,
        "--size",
        "100",
        "--duration",
        "600",
    ];
    let mut run = Running::start(&mut traffic(gateway, &dir, &flags));
    // The first line may be said before the first packet.
    run.nth_line(" received", 2);
    let stalled = halt(&run);
    run.nth_line(" received", 4);
    run.signal("INT");
    let (status, said) = run.end();
    assert_eq!(status.code(), Some(130), "{said}");
    drop(reflect);
    (read(&dir, "traffic.json"), stalled)
}

/// Stops a process for [`STALL`] at least; how long it stood still for certain.
fn stop(process: &Running) -> Duration {
    process.signal("STOP");
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_stopped(process.id()) {
        assert!(Instant::now() < deadline, "it does not stop");
        thread::sleep(Duration::from_millis(1));
    }
    let began = Instant::now();
    thread::sleep(STALL);
    let stalled = began.elapsed();
    process.signal("CONT");
    stalled
}

/// Whether all threads of a process stand still.
fn is_stopped(process: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let mut stats =
        threads.map(|thread| std::fs::read_to_string(thread.unwrap().path().join("stat")));
    // The state follows the name, which is in brackets; a thread that is gone does nothing either.
    stats.all(|stat| stat.map_or(true, |stat| stat.contains(") T ")))
}

#[test]
fn a_server_that_stalls_is_seen_in_the_latency_in_full() {
    let Some(gateway) = Gateway::start("a_server_that_stalls_is_seen_in_the_latency_in_full")
    else {
        return;
    };
    let (report, stalled) = with_a_stall(&gateway, |_| stop(&gateway.process));
    let (traffic, latency) = (&report["traffic"], &report["traffic"]["latency_us"]);
    let us = |name: &str| Duration::from_secs_f64(latency[name].as_f64().unwrap() / 1e6);
    // A packet was planned within an interval of the stop, and was answered after the stall. Three
    // digits of a time are kept.
    let seen = us("max").mul_f64(1.002) + Duration::from_secs(1) / RATE;
    assert!(seen >= stalled, "{stalled:?}: {report:#}");
    // Every packet planned in the first half of the stall waited for its second half at least: one
    // that waits with sending for the last answer would have sent a few of them.
    let late = stalled.as_secs_f64() / 2.0 * f64::from(RATE) - 1.0;
    let share = late / traffic["received"].as_f64().unwrap();
    let quantiles = [("p50", 0.5), ("p90", 0.1), ("p99", 0.01), ("p999", 0.001)];
    let (name, _) = quantiles
        .iter()
        .find(|(_, over)| share > *over)
        .expect("the run is not a thousand times the stall");
    let seen = us(name).mul_f64(1.002);
    assert!(seen >= stalled / 2, "{name} of {share}: {report:#}");
    gateway.stop();
}

#[test]
fn loadgen_that_stands_still_says_that_the_figures_are_its_own() {
    let Some(gateway) =
        Gateway::start("loadgen_that_stands_still_says_that_the_figures_are_its_own")
    else {
        return;
    };
    let (report, stalled) = with_a_stall(&gateway, stop);
    let lateness = &report["traffic"]["lateness_us"];
    let seen = Duration::from_secs_f64(lateness["max"].as_f64().unwrap() / 1e6);
    let seen = seen.mul_f64(1.002) + Duration::from_secs(1) / RATE;
    assert!(seen >= stalled, "{stalled:?}: {report:#}");
    assert_eq!(report["generator_bound"], true, "{report:#}");
    let why = report["generator_bound_why"].to_string();
    assert!(why.contains("of the packets were sent more than"), "{why}");
    gateway.stop();
}
