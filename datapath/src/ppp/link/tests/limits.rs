//! What a hostile peer can make a link do: bounded, whatever the bytes.

use super::*;
use hex_literal::hex;
use proptest::prelude::*;

fn open_server() -> Solo {
    let mut server = Solo::assigned(AuthenticatorConfig::default());
    let request = control_frame(frame::IPCP, 1, 1, &hex!("03060a080005"));
    let mut ack = server.hear(&request).remove(0);
    ack[4] = 2;
    server.hear(&ack);
    assert!(server.link.admits(frame::IPV4));
    server
}

#[test]
fn echoes_are_answered_with_our_magic_and_in_measure() {
    let mut server = open_server();
    let magic = server.link.magic().to_be_bytes();
    let request = control_frame(frame::LCP, 9, 5, &hex!("01020304 6162"));
    let reply = control_frame(frame::LCP, 10, 5, &[&magic[..], b"ab"].concat());
    assert_eq!(server.hear(&request), [reply]);
    let own = control_frame(frame::LCP, 9, 5, &magic);
    assert!(server.hear(&own).is_empty(), "our own, come back");
    assert!(
        server
            .hear(&control_frame(frame::LCP, 9, 5, &[1, 2, 3]))
            .is_empty()
    );
    let replies: usize = (0..100).map(|_| server.hear(&request).len()).sum();
    assert_eq!(replies, 9, "ten a second");
    server.wait(millis(1000));
    assert_eq!(server.hear(&request).len(), 1);
    let big = control_frame(frame::LCP, 9, 5, &[7; 4000]);
    let reply = server.hear(&big).remove(0);
    assert_eq!(
        reply.len(),
        frame::HEADER_LEN + 1500,
        "no more than the peer can receive"
    );
    assert_eq!(reply[6..8], 1500_u16.to_be_bytes());
}

#[test]
fn a_peer_that_answers_no_echo_is_dead() {
    let config = AuthenticatorConfig {
        lcp_echo_interval: Some(Duration::from_secs(30)),
        ..AuthenticatorConfig::default()
    };
    let mut server = Solo::accepted(config);
    server.assign(assignment());
    let request = control_frame(frame::IPCP, 1, 1, &hex!("03060a080005"));
    let mut ack = server.hear(&request).remove(0);
    ack[4] = 2;
    server.hear(&ack);
    server.wait(Duration::from_secs(29));
    let echo = server
        .wait(Duration::from_secs(1))
        .pop()
        .expect("the first echo")
        .1;
    assert_eq!(echo[4], 9);
    server.now = server.now + millis(40);
    server.news();
    // Open SSTP Client answers with a text where the magic number belongs.
    server.hear(&control_frame(frame::LCP, 10, echo[5], b"Hello"));
    let round_trip = millis(40);
    assert_eq!(server.news(), [Event::EchoReply { round_trip }]);
    server.hear(&control_frame(frame::LCP, 10, echo[5], b"Hello"));
    assert!(server.news().is_empty(), "answered once");
    server.wait(Duration::from_secs(119));
    assert_eq!(closed(&server.events), None);
    server.wait(Duration::from_secs(1));
    assert_eq!(closed(&server.events), Some(CloseReason::EchoTimeout));
}

#[test]
fn renegotiation_goes_on_thirty_times_a_minute() {
    let mut server = open_server();
    let mut sent = 0;
    for round in 0..100 {
        let answers = server.hear(&control_frame(frame::IPCP, 1, round, &hex!("03060a080005")));
        if answers
            .iter()
            .any(|frame| frame.starts_with(&hex!("ff03c02105")))
        {
            break;
        }
        let request = answers.iter().find(|frame| frame[4] == 1);
        if let Some(request) = request {
            sent += 1;
            let mut ack = request.clone();
            ack[4] = 2;
            server.hear(&ack);
        }
    }
    assert!((29..=30).contains(&sent), "{sent}");
    assert_eq!(server.link.phase(), Phase::Terminate);
    server.wait(millis(3000));
    assert_eq!(
        closed(&server.events),
        Some(CloseReason::RenegotiationLimit)
    );
}

#[test]
fn terminate_acks_out_of_the_blue_are_bounded_too() {
    let mut server = open_server();
    for _ in 0..1000 {
        let sent = server.hear(&control_frame(frame::IPCP, 6, 1, &[]));
        for frame in sent.iter().filter(|frame| frame[4] == 1) {
            let mut ack = frame.clone();
            ack[4] = 2;
            server.hear(&ack);
            server.hear(&control_frame(frame::IPCP, 1, 1, &hex!("03060a080005")));
        }
    }
    assert_eq!(server.link.phase(), Phase::Terminate);
}

#[test]
fn a_link_survives_being_handed_over() {
    let server = open_server();
    assert!(
        Solo::accepted(AuthenticatorConfig::default())
            .link
            .snapshot()
            .is_none()
    );
    let snapshot = server.link.snapshot().expect("an open link");
    let json = serde_json::to_string(&snapshot).unwrap();
    let back: LinkSnapshot = serde_json::from_str(&json).unwrap();
    assert_eq!(back, snapshot);
    let now = Instant::from_nanos(5);
    let config = AuthenticatorConfig::default();
    let link = Link::restore(config, back, now, &mut Seeded(99)).unwrap();
    let mut restored = Solo::new(link, Seeded(99));
    restored.now = now;
    assert_eq!(restored.link.magic(), server.link.magic());
    assert_eq!(restored.link.send_mtu(), server.link.send_mtu());
    assert_eq!(restored.link.auth_method(), server.link.auth_method());
    assert!(restored.link.admits(frame::IPV4) && !restored.link.admits(frame::IPV6));
    assert_eq!(restored.link.snapshot().unwrap(), snapshot);
    // IPv6 was not open: it begins now.
    let sent = restored.wait(millis(0));
    assert_eq!(
        sent[0].1,
        control_frame(frame::IPV6CP, 1, 1, &hex!("010a0000000000000001"))
    );
    // And the rest goes on: echo, terminate.
    let echo = control_frame(frame::LCP, 9, 5, &[0; 4]);
    assert_eq!(restored.hear(&echo).len(), 1);
    restored.hear(&control_frame(frame::LCP, 5, 1, &[]));
    assert_eq!(closed(&restored.events), Some(CloseReason::PeerTerminated));

    let mut contradiction = serde_json::to_value(&snapshot).unwrap();
    contradiction["assignment"]["ipv4"] = serde_json::Value::Null;
    let snapshot: LinkSnapshot = serde_json::from_value(contradiction).unwrap();
    let config = AuthenticatorConfig::default();
    let error = Link::restore(config, snapshot, now, &mut Seeded(1)).unwrap_err();
    assert_eq!(error, RestoreError::Unassigned);
}

#[test]
fn an_idle_link_is_small() {
    let server = open_server();
    assert!(
        matches!(server.link.exchange, Exchange::None),
        "the login is forgotten"
    );
    let size = size_of::<Link>();
    assert!(size <= 1024, "{size} bytes");
}

/// One thing that can happen to a link.
#[derive(Clone, Debug)]
enum Op {
    Hear(u16, Vec<u8>),
    /// A well-formed control packet.
    Packet(u16, u8, u8, Vec<u8>),
    /// What the link sent last but so many comes back with another code.
    Echo(usize, u8),
    Wait(u64),
    Verdict(u8),
    Assign,
    Terminate,
    Up,
}

fn op() -> impl Strategy<Value = Op> {
    let protocol = prop_oneof![
        4 => Just(frame::LCP),
        1 => Just(frame::PAP),
        1 => Just(frame::CHAP),
        1 => Just(frame::EAP),
        2 => Just(frame::IPCP),
        2 => Just(frame::IPV6CP),
        1 => Just(frame::CCP),
        1 => any::<u16>(),
    ];
    let bytes = proptest::collection::vec(any::<u8>(), 0..80);
    let options = proptest::collection::vec((0_u8..=20, 0_usize..=8, any::<u8>()), 0..4).prop_map(
        |options| {
            let option = |(kind, len, fill): (u8, usize, u8)| option(kind, &vec![fill; len]);
            options.into_iter().flat_map(option).collect::<Vec<u8>>()
        },
    );
    let data = prop_oneof![bytes.clone(), options];
    prop_oneof![
        2 => (protocol.clone(), bytes).prop_map(|(protocol, bytes)| Op::Hear(protocol, bytes)),
        6 => (protocol, 0_u8..=14, 0_u8..=5, data).prop_map(|(p, c, i, d)| Op::Packet(p, c, i, d)),
        6 => (0_usize..4, 1_u8..=6).prop_map(|(back, code)| Op::Echo(back, code)),
        2 => (0_u64..5000).prop_map(Op::Wait),
        2 => any::<u8>().prop_map(Op::Verdict),
        1 => Just(Op::Assign),
        1 => Just(Op::Up),
        1 => (0_u8..20).prop_map(|n| if n == 0 { Op::Terminate } else { Op::Assign }),
    ]
}

/// Applies one step; returns the bytes heard and the bytes sent in answer to them.
fn apply(solo: &mut Solo, sent: &mut Vec<Vec<u8>>, op: Op) -> (usize, usize) {
    let answers = match op {
        Op::Hear(protocol, bytes) => {
            let mut out = Collected::default();
            solo.link
                .handle_frame(solo.now, protocol, &bytes, &mut solo.entropy, &mut out);
            let answers = solo.take(out);
            return count(sent, bytes.len() + frame::HEADER_LEN, answers);
        }
        Op::Packet(protocol, code, identifier, data) => {
            let packet = control_frame(protocol | 1, code, identifier, &data);
            let information = packet[frame::HEADER_LEN..].to_vec();
            let mut out = Collected::default();
            solo.link.handle_frame(
                solo.now,
                protocol,
                &information,
                &mut solo.entropy,
                &mut out,
            );
            let answers = solo.take(out);
            return count(sent, packet.len(), answers);
        }
        Op::Echo(back, code) => {
            let Some(index) = sent.len().checked_sub(back + 1) else {
                return (0, 0);
            };
            let mut frame = sent[index].clone();
            frame[4] = code;
            let answers = solo.hear(&frame);
            return count(sent, frame.len(), answers);
        }
        Op::Wait(length) => solo
            .wait(millis(length))
            .into_iter()
            .map(|(_, frame)| frame)
            .collect(),
        Op::Verdict(which) => {
            let message = b"S=".to_vec();
            solo.verdict(match which % 3 {
                0 => Verdict::Accept {
                    hlak: Hlak::ZERO,
                    message,
                },
                1 => Verdict::Continue {
                    request: hex!("01090006 1a01").to_vec(),
                },
                _ => Verdict::Reject {
                    error: 691,
                    message,
                    eap: None,
                },
            })
        }
        Op::Assign => solo.assign(assignment()),
        Op::Terminate => {
            let mut out = Collected::default();
            solo.link.terminate(solo.now, "bye", &mut out);
            solo.take(out)
        }
        Op::Up => solo.up(),
    };
    sent.extend(answers);
    (0, 0)
}

fn count(sent: &mut Vec<Vec<u8>>, heard: usize, answers: Vec<Vec<u8>>) -> (usize, usize) {
    let bytes = answers.iter().map(Vec::len).sum();
    sent.extend(answers);
    (heard, bytes)
}

/// What a minute's worth of bounded answers may add to what was heard: 30 requests of 60 bytes, ten
/// rejects and echoes a second at 8 bytes more than they answer, a repeated verdict, a few Naks.
const SLACK: usize = 30 * 60 + 60 * 20 * 8 + 8 * 80 + 400;

fn check(mut solo: Solo, ops: Vec<Op>) {
    let mut sent = Vec::new();
    let (mut heard, mut answered) = (0, 0);
    let started = solo.now;
    for op in ops {
        let (more_heard, more_answered) = apply(&mut solo, &mut sent, op);
        heard += more_heard;
        answered += more_answered;
        if let Some(next) = solo.link.next_timeout() {
            let far = solo.now + Duration::from_secs(200);
            assert!(next <= far, "a deadline nobody lives to see");
        }
        for frame in &sent {
            assert!(frame.len() <= 4091 && frame::parse(frame).is_ok());
        }
        sent.drain(..sent.len().saturating_sub(4));
        closed(&solo.events);
    }
    let seconds = solo.now.saturating_since(started).as_secs();
    let minutes = usize::try_from(seconds / 60).unwrap() + 2;
    assert!(
        answered <= heard + SLACK * minutes,
        "{heard} bytes called forth {answered}"
    );
    // Left alone it comes to rest: open for good, or over.
    solo.wait(Duration::from_secs(600));
    let idle = solo.link.next_timeout().is_none();
    assert!(idle, "{:?} still waits", solo.link.phase());
    assert!(solo.link.phase() == Phase::Dead || solo.link.ipv4_open || solo.link.ipv6_open);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_progress_is_no_loop_at_the_server(
        method in 0_usize..4,
        opened in any::<bool>(),
        ops in proptest::collection::vec(op(), 0..120),
    ) {
        let methods = [AuthMethod::Pap, AuthMethod::ChapMd5, AuthMethod::MsChapV2, AuthMethod::Eap];
        let mut solo = Solo::server(server_config(&methods[method..]));
        if opened {
            solo.open_lcp();
        }
        check(solo, ops);
    }

    #[test]
    fn no_progress_is_no_loop_at_the_client(
        persona in 0_usize..4,
        ops in proptest::collection::vec(op(), 0..120),
    ) {
        let personas = [Persona::Plain, Persona::Windows, Persona::Pppd, Persona::OpenSstp];
        let mut solo = Solo::client(AuthenticateeConfig {
            persona: personas[persona],
            allow_unauthenticated: true,
            methods: vec![AuthMethod::MsChapV2, AuthMethod::Eap, AuthMethod::Pap, AuthMethod::ChapMd5],
            ..client_config(AuthMethod::MsChapV2, PASSWORD)
        });
        solo.up();
        check(solo, ops);
    }

    #[test]
    fn no_progress_in_a_flood_of_one_second(
        ops in proptest::collection::vec(op(), 0..400),
    ) {
        let ops: Vec<Op> = ops.into_iter().filter(|op| !matches!(op, Op::Wait(_))).collect();
        let mut solo = open_server();
        let mut sent = Vec::new();
        let (mut heard, mut answered) = (0, 0);
        for op in ops {
            let (more_heard, more_answered) = apply(&mut solo, &mut sent, op);
            heard += more_heard;
            answered += more_answered;
        }
        // 30 requests, 20 rejects and echoes, one verdict's repetitions, Naks.
        prop_assert!(answered <= heard + 30 * 60 + 20 * 8 + 400, "{heard} called forth {answered}");
    }
}
