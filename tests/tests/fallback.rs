//! The gateway where the kernel lacks or forbids something: it starts all the same, says in one line
//! what it does without and why, and one client connects and pings.
//!
//! What is lacking is made by a seccomp filter over the process, a limit of it, or the configuration;
//! nothing of the host is changed.

use std::process::Command;

use datapath::sys::seccomp::{Answer, Call, Refusal, refuse};
use e2e::gateway::{Gateway, PASSWORD, config, report};
use e2e::{Running, skip};

/// One rung: what is refused, and what the line about it must say.
struct Rung {
    /// The word of `shards.driver`.
    driver: &'static str,
    refusals: &'static [(Call, Answer)],
    /// Run through this command.
    through: &'static [&'static str],
    /// Each is in one line of the log.
    says: &'static [&'static str],
}

const RUNGS: &[Rung] = &[
    Rung {
        driver: "auto",
        refusals: &[],
        through: &[],
        says: &["driver: io_uring"],
    },
    Rung {
        driver: "io_uring-6.1",
        refusals: &[],
        through: &[],
        says: &["driver: io_uring, without NO_SQARRAY"],
    },
    Rung {
        driver: "io_uring-6.0",
        refusals: &[],
        through: &[],
        says: &["driver: io_uring, without DEFER_TASKRUN"],
    },
    Rung {
        driver: "auto",
        refusals: &[(Call::UringSetup, Answer::Forbidden)],
        through: &[],
        says: &[
            "driver: epoll, because io_uring is",
            "EPERM",
            "to allow it:",
        ],
    },
    Rung {
        driver: "auto",
        refusals: &[(Call::UringSetup, Answer::Absent)],
        through: &[],
        says: &["driver: epoll, because there is no io_uring (ENOSYS)"],
    },
    Rung {
        driver: "auto",
        refusals: &[(Call::UringEnter, Answer::Forbidden)],
        through: &[],
        says: &["driver: epoll, because io_uring is", "EPERM"],
    },
    Rung {
        driver: "auto",
        refusals: &[(Call::UringBufferRing, Answer::Invalid)],
        through: &[],
        says: &[
            "driver: epoll, because the kernel's io_uring is too old",
            "buffer rings",
        ],
    },
    Rung {
        driver: "auto",
        refusals: &[
            (Call::UringSetup, Answer::Absent),
            (Call::EpollPwait2, Answer::Absent),
        ],
        through: &[],
        says: &["driver: epoll with deadlines to the millisecond", "ENOSYS"],
    },
    Rung {
        driver: "epoll",
        refusals: &[],
        through: &[],
        says: &["driver: epoll, because the configuration demands it"],
    },
    Rung {
        driver: "auto",
        refusals: &[(Call::TunOffload, Answer::Invalid)],
        through: &[],
        says: &["refuses superpackets at the TUN (TUNSETOFFLOAD: EINVAL)"],
    },
    Rung {
        driver: "auto",
        refusals: &[(Call::TunUdpOffload, Answer::Invalid)],
        through: &[],
        says: &["no UDP superpackets at the TUN (USO)"],
    },
    Rung {
        driver: "auto",
        refusals: &[
            (Call::Bpf, Answer::Forbidden),
            (Call::TunSteering, Answer::Invalid),
        ],
        through: &[],
        says: &["driver: io_uring"],
    },
];

/// The configuration of a rung: superpackets asked for, so that their lack is one.
fn config_of(rung: &Rung) -> String {
    config(rung.driver).replace("[network]\n", "[network]\noffload = true\n")
}

fn refuse_all(command: &mut Command, refusals: &[(Call, Answer)]) {
    let refusals: Vec<_> = refusals
        .iter()
        .map(|&(call, answer)| Refusal { call, answer })
        .collect();
    if !refusals.is_empty() {
        refuse(command, &refusals);
    }
}

/// The one line that has all of it.
fn assert_says(process: &mut Running, says: &[&str]) {
    let line = process.line(says[0]);
    for text in says {
        assert!(line.contains(text), "{text:?} is missing: {line}");
    }
}

/// One client, under the same refusals, is served.
fn assert_serves(gateway: &Gateway, refusals: &[(Call, Answer)]) {
    let mut client = gateway.loadgen(PASSWORD, &["--ping", "5", "--interval", "0.01"]);
    refuse_all(&mut client, refusals);
    let output = client.output().unwrap();
    let report = report(&output);
    assert_eq!(output.status.code(), Some(0), "{report:#}");
    assert_eq!(report["ping"]["answered"], 5, "{report:#}");
}

fn climb(test: &str, rungs: &[Rung]) {
    for rung in rungs {
        let started = Gateway::start_as(test, &config_of(rung), rung.through, |command| {
            refuse_all(command, rung.refusals);
        });
        let Some(mut gateway) = started else {
            return;
        };
        assert_says(&mut gateway.process, rung.says);
        assert_serves(&gateway, rung.refusals);
        let (_, stopped) = gateway.stop();
        assert_eq!(stopped["sessions"], 1, "{stopped:#}");
    }
}

#[test]
fn fallback_ladder() {
    climb("fallback_ladder", RUNGS);
}

#[test]
fn fallback_ladder_without_lockable_memory() {
    let test = "fallback_ladder_without_lockable_memory";
    // Root may lock what it likes, so it must be without that right; kernels before 6.13 do not count
    // the memory of a ring, and there is nothing to fall back from.
    let rung = Rung {
        driver: "auto",
        refusals: &[],
        through: &[
            "prlimit",
            "--memlock=0:0",
            "setpriv",
            "--bounding-set=-ipc_lock",
            "--inh-caps=-ipc_lock",
        ],
        says: &[
            "driver: epoll, because io_uring gets no memory (ENOMEM)",
            "RLIMIT_MEMLOCK",
        ],
    };
    let Some(mut gateway) = Gateway::start_as(test, &config_of(&rung), rung.through, |_| {}) else {
        return;
    };
    let line = gateway.process.line("driver: ");
    if line.contains("driver: io_uring") {
        skip(test, "this kernel does not count a ring's memory as locked");
    } else {
        assert_says(&mut gateway.process, rung.says);
    }
    assert_serves(&gateway, rung.refusals);
    gateway.stop();
}

#[test]
fn fallback_ladder_ends_where_io_uring_is_demanded() {
    let test = "fallback_ladder_ends_where_io_uring_is_demanded";
    let launched = Gateway::launch(test, &config("io_uring"), &[], |command| {
        refuse_all(command, &[(Call::UringSetup, Answer::Forbidden)]);
    });
    let Some(mut gateway) = launched else {
        return;
    };
    assert_says(
        &mut gateway.process,
        &["the driver io_uring is demanded, but io_uring is", "EPERM"],
    );
    let (status, log) = gateway.process.end();
    assert_eq!(status.code(), Some(1), "{log}");
}
