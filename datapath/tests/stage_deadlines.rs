//! A peer that stalls is let go at the deadline of its stage, whether it is silent, trickles bytes or
//! repeats itself: only progress to the next stage buys time.
//!
//! Seconds from the stage's beginning: ClientHello 5, TLS 10 (both from accept), HTTP 10, call request
//! 10, LCP 20, authentication 60, binding 60 (MS-SSTP §3.1.2, from CALL_CONNECT_ACK), network protocols
//! 30; all together 120.

mod raw_client;

use std::sync::Arc;

use datapath::ppp::auth::AuthMethod;
use datapath::ppp::link::{AuthenticatorConfig, Times};
use datapath::session::event::EndReason;
use datapath::session::{Limits, ServerSettings};
use datapath::sstp::Timing;
use datapath::time::{Duration, Instant};
use hex_literal::hex;

use raw_client::{CHAP, Client, IPCP, LCP, REQUEST, http_request, settings};

/// The longest polite end: LCP Terminate 3 s, Call Disconnect 5 s, and 5 s for the peer's FIN.
const FAREWELL: Duration = Duration::from_secs(13);

const METHOD: AuthMethod = AuthMethod::MsChapV2;

fn seconds(from: Instant, to: Instant) -> f64 {
    to.saturating_since(from).as_secs_f64()
}

/// Whether the session has begun to end: it said so, or shut the connection.
fn is_ending(client: &Client) -> bool {
    let is_farewell = |packet: &Vec<u8>| matches!(packet[5], 5 | 6);
    let terminates =
        |(protocol, information): &(u16, Vec<u8>)| *protocol == LCP && information[0] == 5;
    client.closed.is_some()
        || client.shut
        || client.control.iter().any(is_farewell)
        || client.frames.iter().any(terminates)
}

/// Lets `client` do `nuisance` twice a second until the session ends, which it must between
/// `deadline` and a second later; and the connection soon after.
fn assert_ends(
    what: &str,
    mut client: Client,
    since: Instant,
    deadline: u64,
    reason: EndReason,
    mut nuisance: impl FnMut(&mut Client, usize),
) {
    let mut step = 0;
    while !is_ending(&client) {
        assert!(seconds(since, client.now) < 200.0, "{what}: never ends");
        nuisance(&mut client, step);
        step += 1;
        for _ in 0..5 {
            if !is_ending(&client) {
                client.advance(Duration::from_millis(100));
            }
        }
    }
    let ended = seconds(since, client.now);
    #[expect(clippy::cast_precision_loss, reason = "a few seconds")]
    let deadline = deadline as f64;
    println!("{what}: after {ended:.1} s");
    // LCP takes 0.2 s of the sixty from CALL_CONNECT_ACK.
    assert!(
        (deadline - 0.3..=deadline + 1.0).contains(&ended),
        "{what}: after {ended} s"
    );
    assert!(!client.is_up(), "{what}");

    let ending = client.now;
    while client.closed.is_none() {
        assert!(
            client.now.saturating_since(ending) <= FAREWELL,
            "{what}: lingers"
        );
        nuisance(&mut client, step);
        step += 1;
        client.push_data();
        client.advance(Duration::from_millis(500));
    }
    assert_eq!(client.end(), Some(reason), "{what}");
    assert!(!client.is_up() && client.edge.inside.is_empty(), "{what}");
}

/// Each stage: a name, how it is reached, its deadline and reason, and the nuisances tried in it.
type Nuisance = (&'static str, fn(&mut Client, usize));
struct Stage {
    name: &'static str,
    reach: fn(&mut Client),
    /// Seconds from reaching the stage; those of the binding run from CALL_CONNECT_ACK.
    deadline: u64,
    reason: EndReason,
    nuisances: &'static [Nuisance],
}

fn trickle(client: &mut Client, bytes: &[u8], step: usize) {
    // The last byte is never sent: the stage is never done.
    if let Some(byte) = bytes[..bytes.len() - 1].get(step) {
        client.send(&[*byte]);
    }
}

const SILENT: Nuisance = ("silent", |_, _| {});

const STAGES: &[Stage] = &[
    Stage {
        name: "HTTP",
        reach: |client| {
            client.shake_hands();
        },
        deadline: 10,
        reason: EndReason::SetupTimeout,
        nuisances: &[
            SILENT,
            ("a byte at a time", |client, step| {
                trickle(client, &http_request(), step)
            }),
            ("header after header", |client, step| {
                if step == 0 {
                    let request = http_request();
                    client.send(&request[..request.len() - 2]);
                }
                client.send(b"X-Header: value\r\n");
            }),
        ],
    },
    Stage {
        name: "call request",
        reach: |client| {
            client.shake_hands().http();
        },
        deadline: 10,
        reason: EndReason::SetupTimeout,
        nuisances: &[
            SILENT,
            ("a byte at a time", |client, step| {
                // Fourteen bytes: slower than the others.
                if step.is_multiple_of(2) {
                    trickle(client, &REQUEST, step / 2);
                }
            }),
            ("data packets", |client, _| client.push_data()),
            ("PPP frames", |client, _| {
                client.frame(LCP, &hex!("0101000a0506a1b2c3d4"))
            }),
            ("two refused requests, then silence", |client, step| {
                if step < 2 {
                    client.send(&hex!("1001000800010000"));
                }
            }),
        ],
    },
    Stage {
        name: "LCP",
        reach: |client| {
            client.shake_hands().http().call();
        },
        deadline: 20,
        reason: EndReason::SetupTimeout,
        nuisances: &[
            SILENT,
            ("data packets", |client, _| client.push_data()),
            ("echo requests", |client, _| {
                client.send(&hex!("1001000800080000"))
            }),
            ("requests, never an acknowledgement", |client, step| {
                client.acks = false;
                if step.is_multiple_of(4) {
                    client.frame(LCP, &hex!("0101000a0506a1b2c3d4"));
                }
            }),
            ("identification after identification", |client, _| {
                client.acks = false;
                client.frame(LCP, &hex!("0c01000c0000000041414141"));
            }),
            ("an acknowledgement of nothing", |client, step| {
                client.acks = false;
                client.frame(LCP, &[2, u8::try_from(step & 0x3f).unwrap() + 100, 0, 4]);
            }),
            ("a packet that never ends", |client, step| {
                if step == 0 {
                    client.send(&[0x10, 0, 0x0f, 0xff]);
                }
                client.send(&[0]);
            }),
        ],
    },
    Stage {
        name: "authentication",
        reach: |client| {
            client.shake_hands().http().call().lcp();
        },
        deadline: 60,
        reason: EndReason::SetupTimeout,
        nuisances: &[
            SILENT,
            ("data packets", |client, _| client.push_data()),
            ("echoes of both kinds", |client, _| {
                client.send(&hex!("1001000800080000"));
                client.frame(LCP, &hex!("09010008a1b2c3d4"));
            }),
            ("broken proofs", |client, _| {
                client.frame(CHAP, &hex!("0201000a0541414141"))
            }),
            ("network protocols", |client, _| {
                client.network();
            }),
        ],
    },
    Stage {
        name: "the owner's answer",
        reach: |client| {
            client.shake_hands().http().call().lcp().prove(METHOD);
        },
        deadline: 60,
        reason: EndReason::SetupTimeout,
        nuisances: &[
            SILENT,
            ("the same proof again", |client, _| {
                client.frame(CHAP, &raw_client::MSCHAPV2_RESPONSE);
            }),
        ],
    },
    Stage {
        name: "binding",
        reach: |client| {
            client
                .shake_hands()
                .http()
                .call()
                .lcp()
                .prove(METHOD)
                .accept()
                .network();
        },
        deadline: 60,
        reason: EndReason::SetupTimeout,
        nuisances: &[
            SILENT,
            ("data packets", |client, _| client.push_data()),
            ("echoes of both kinds", |client, _| {
                client.send(&hex!("1001000800080000"));
                client.frame(LCP, &hex!("09010008a1b2c3d4"));
            }),
        ],
    },
    Stage {
        name: "network",
        reach: |client| {
            client
                .shake_hands()
                .http()
                .call()
                .lcp()
                .prove(METHOD)
                .accept()
                .bind(METHOD);
        },
        deadline: 30,
        reason: EndReason::PppFailed,
        nuisances: &[
            SILENT,
            ("data packets", |client, _| client.push_data()),
            ("requests, never an acknowledgement", |client, step| {
                client.acks = false;
                if step.is_multiple_of(8) {
                    client.frame(IPCP, &hex!("0101000a03060a080005"));
                }
            }),
            ("wishes that are never granted", |client, step| {
                client.acks = false;
                if step.is_multiple_of(8) {
                    client.frame(IPCP, &hex!("0101000a030601010101"));
                }
            }),
            ("echoes of both kinds", |client, _| {
                client.send(&hex!("1001000800080000"));
                client.frame(LCP, &hex!("09010008a1b2c3d4"));
            }),
        ],
    },
];

#[test]
fn stage_deadlines_hold_against_silence_and_noise() {
    for stage in STAGES {
        for (nuisance, act) in stage.nuisances {
            let mut client = Client::new(settings(METHOD));
            (stage.reach)(&mut client);
            let since = client.now;
            let what = format!("{}, {nuisance}", stage.name);
            assert_ends(&what, client, since, stage.deadline, stage.reason, act);
        }
    }
}

#[test]
fn stage_deadlines_tls() {
    type Act = fn(&mut Client, &[u8], usize);
    let nuisances: [(&str, u64, Act); 4] = [
        ("silent", 5, |_, _, _| {}),
        ("a byte at a time", 5, |client, hello, step| {
            if let Some(byte) = hello[..hello.len() - 1].get(step) {
                client.deliver(&[*byte]);
            }
        }),
        ("a whole hello, then silence", 10, |client, hello, step| {
            if step == 0 {
                client.deliver(hello);
            }
        }),
        (
            "a whole hello, then a byte at a time",
            10,
            |client, hello, step| {
                if step == 0 {
                    client.deliver(hello);
                } else if let Some(byte) = hex!("1603030040 030000000000000000").get(step - 1) {
                    client.deliver(&[*byte]);
                }
            },
        ),
    ];
    for (nuisance, deadline, act) in nuisances {
        let mut client = Client::new(settings(METHOD));
        let hello = client.take_first_flight();
        // The client's own handshake does not go on.
        client.deaf = true;
        let since = client.now;
        let what = format!("TLS, {nuisance}");
        let reason = EndReason::SetupTimeout;
        assert_ends(&what, client, since, deadline, reason, |client, step| {
            act(client, &hello, step);
        });
    }
}

#[test]
fn stage_deadlines_each_stage_slow_but_in_time() {
    // Every stage just in time, as long as the binding's sixty seconds allow; then nothing.
    let mut client = Client::new(settings(METHOD));
    let begun = client.now;
    client.advance(Duration::from_millis(4_900));
    let almost = Duration::from_millis(9_900);
    client.shake_hands().advance(almost);
    client.http().advance(almost);
    client.call();
    let acknowledged = client.now;
    client.advance(Duration::from_millis(19_900));
    client.lcp().advance(Duration::from_millis(39_000));
    client.prove(METHOD).accept().bind(METHOD);
    assert!(client.now.saturating_since(acknowledged) < Duration::from_secs(60));
    assert!(
        !is_ending(&client),
        "late, but in time: {:?}",
        client.edge.events
    );
    let since = client.now;
    assert!(seconds(begun, since) < 90.0);
    assert_ends(
        "all stages slow",
        client,
        since,
        30,
        EndReason::PppFailed,
        |_, _| {},
    );
}

#[test]
fn stage_deadlines_the_whole_set_up() {
    let limits = Limits {
        setup: Duration::from_secs(25),
        ..Limits::default()
    };
    let slow = ServerSettings {
        limits,
        ..settings(METHOD)
    };
    let mut client = Client::new(slow);
    let since = client.now;
    client.shake_hands().advance(Duration::from_secs(9));
    client.http().advance(Duration::from_secs(9));
    client.call().advance(Duration::from_secs(5));
    client.lcp();
    assert_ends(
        "whole set-up",
        client,
        since,
        25,
        EndReason::SetupTimeout,
        |client, _| {
            client.push_data();
        },
    );
}

#[test]
fn stage_deadlines_lcp_over_and_over_buys_no_time() {
    // LCP opens, and is negotiated again before anybody proves anything.
    let mut client = Client::new(settings(METHOD));
    client.shake_hands().http().call();
    let since = client.now;
    assert_ends(
        "LCP again",
        client,
        since,
        60,
        EndReason::SetupTimeout,
        |client, step| {
            if step.is_multiple_of(16) {
                client.frame(LCP, &hex!("0101000a0506a1b2c3d4"));
            }
        },
    );
}

#[test]
fn stage_deadlines_eap_round_by_round_buys_no_time() {
    // An identity every few seconds, and an owner that keeps asking.
    let mut client = Client::new(settings(AuthMethod::Eap));
    client.shake_hands().http().call().lcp();
    let since = client.now;
    let mut identifier = 0;
    assert_ends(
        "EAP rounds",
        client,
        since,
        60,
        EndReason::SetupTimeout,
        |client, step| {
            if !step.is_multiple_of(4) {
                return;
            }
            client.frame(
                raw_client::EAP,
                &[2, identifier, 0, 9, 1, 0x55, 0x73, 0x65, 0x72],
            );
            if client.edge.questions.pop_front().is_some() {
                identifier += 1;
                let request = vec![1, identifier, 0, 6, 1, 0];
                client.answer(datapath::session::policy::Answer::Continue { request });
            }
        },
    );
}

#[test]
fn stage_deadlines_are_those_of_the_threat_model() {
    let s = Duration::from_secs;
    let limits = Limits::default();
    let wanted = Limits {
        hello: s(5),
        handshake: s(10),
        http: s(10),
        call: s(10),
        setup: s(120),
        drain: s(5),
        queue: limits.queue,
        record_per_packet: false,
    };
    assert_eq!(limits, wanted);
    let Times {
        lcp_limit,
        auth_limit,
        network_limit,
        ..
    } = Times::default();
    assert_eq!(
        (lcp_limit, auth_limit, network_limit),
        (s(20), s(60), s(30))
    );
    assert_eq!(
        Arc::new(AuthenticatorConfig::default()).times,
        Times::default()
    );
    assert_eq!(Timing::default().negotiation_timeout, s(60));
}
