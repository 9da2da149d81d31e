//! Logging in: every method at both ends, and what must not count as a login.

use super::*;
use hex_literal::hex;

const METHODS: [AuthMethod; 4] = [
    AuthMethod::Pap,
    AuthMethod::ChapMd5,
    AuthMethod::MsChapV2,
    AuthMethod::Eap,
];

fn accept(message: &[u8]) -> Verdict {
    Verdict::Accept {
        hlak: Hlak::from_bytes([9; 32]),
        message: message.to_vec(),
    }
}

fn reject() -> Verdict {
    Verdict::Reject {
        error: 691,
        message: Vec::new(),
        eap: None,
    }
}

#[test]
fn each_method_logs_in_at_both_ends_with_one_key() {
    for method in METHODS {
        let mut pair = Pair::new(server_config(&[method]), client_config(method, PASSWORD));
        pair.up();
        pair.run(Duration::from_secs(5));
        let keys = [hlak(&pair.server_events), hlak(&pair.client_events)].map(Option::unwrap);
        assert_eq!(keys[0], keys[1], "{method:?}");
        let makes_key = matches!(method, AuthMethod::MsChapV2 | AuthMethod::Eap);
        assert_eq!(!keys[0].is_zero(), makes_key, "{method:?}");
        for (link, events) in [
            (&pair.server, &pair.server_events),
            (&pair.client, &pair.client_events),
        ] {
            assert!(link.admits(frame::IPV4) && link.admits(frame::IPV6));
            assert_eq!(link.auth_method(), Some(method));
            assert_eq!(closed(events), None);
        }
        assert!(pair.now.saturating_since(Instant::ZERO) <= Duration::from_secs(6));
    }
}

#[test]
fn each_method_refuses_a_wrong_password_and_an_unknown_user() {
    for method in METHODS {
        for (user, password) in [(USER, "wrong"), (&b"nobody"[..], PASSWORD)] {
            let mut client = client_config(method, password);
            client.user = user.to_vec();
            let mut pair = Pair::new(server_config(&[method]), client);
            pair.up();
            pair.run(Duration::from_secs(5));
            let reason = CloseReason::AuthenticationFailed { error: 691 };
            assert_eq!(pair.client_closed(), Some(reason), "{method:?}");
            assert_eq!(pair.server_closed(), Some(reason), "{method:?}");
            assert_eq!(hlak(&pair.server_events), None);
            assert_eq!(hlak(&pair.client_events), None);
            for protocol in [frame::IPCP, frame::IPV6CP] {
                for side in [Side::Server, Side::Client] {
                    assert!(pair.sent(side, &frame::header(protocol)).is_empty());
                }
            }
        }
    }
}

#[test]
fn a_client_falls_back_to_the_method_it_may_use() {
    let server = server_config(&[AuthMethod::Eap, AuthMethod::MsChapV2, AuthMethod::Pap]);
    let mut pair = Pair::new(server, client_config(AuthMethod::Pap, PASSWORD));
    pair.up();
    pair.run(Duration::from_secs(3));
    assert!(pair.server.admits(frame::IPV4));
    assert_eq!(pair.server.auth_method(), Some(AuthMethod::Pap));
}

#[test]
fn no_method_in_common_ends_the_link() {
    let server = server_config(&[AuthMethod::MsChapV2]);
    let mut pair = Pair::new(server, client_config(AuthMethod::Pap, PASSWORD));
    pair.up();
    pair.run(Duration::from_secs(5));
    assert_eq!(pair.server_closed(), Some(CloseReason::NoAuthMethod));
    assert_eq!(pair.client_closed(), Some(CloseReason::PeerTerminated));
}

#[test]
fn the_first_question_waits_a_moment_and_is_repeated() {
    for (method, protocol) in [
        (AuthMethod::MsChapV2, frame::CHAP),
        (AuthMethod::Eap, frame::EAP),
    ] {
        let mut server = Solo::server(server_config(&[method]));
        server.open_lcp();
        let sent = server.wait(Duration::from_secs(10));
        let at: Vec<_> = sent.iter().map(|(at, _)| *at).collect();
        assert_eq!(at, [75, 1075, 4075, 7075].map(millis), "{method:?}");
        assert!(
            sent.iter().all(|(_, frame)| *frame == sent[0].1),
            "the same words"
        );
        assert!(sent[0].1.starts_with(&frame::header(protocol)));
    }
}

#[test]
fn authentication_has_60_seconds_whoever_is_slow() {
    // The peer.
    let mut server = Solo::server(server_config(&[AuthMethod::Pap]));
    server.open_lcp();
    server.wait(millis(59_999));
    assert_eq!(server.link.phase(), Phase::Authenticate);
    assert_eq!(server.wait(millis(1)).len(), 1, "Terminate-Request");
    server.wait(millis(3000));
    let reason = CloseReason::Timeout(Phase::Authenticate);
    assert_eq!(closed(&server.events), Some(reason));
    // The owner.
    let mut server = Solo::server(server_config(&[AuthMethod::Pap]));
    server.open_lcp();
    server.hear(&control_frame(frame::PAP, 1, 1, b"\x04User\x01x"));
    server.wait(millis(63_000));
    assert_eq!(closed(&server.events), Some(reason));
    assert!(server.verdict(accept(b"")).is_empty(), "too late");
    assert_eq!(closed(&server.events), Some(reason));
}

/// PAP: name and password are told byte for byte, once; the answer is repeated.
#[test]
fn pap_at_the_server() {
    let mut server = Solo::server(server_config(&[AuthMethod::Pap]));
    server.open_lcp();
    server.news();
    for bad in [&b"\x05User\x01x"[..], b"\x04User\x02x", b"\x04User", b""] {
        assert!(
            server
                .hear(&control_frame(frame::PAP, 1, 1, bad))
                .is_empty()
        );
    }
    assert!(server.news().is_empty());
    let name = b"DOM\\u\0ser\xff \r\n";
    let mut data = vec![u8::try_from(name.len()).unwrap()];
    data.extend_from_slice(name);
    data.extend_from_slice(b"\x00");
    let request = control_frame(frame::PAP, 1, 5, &data);
    assert!(server.hear(&request).is_empty());
    let told = Event::Authenticate(Credentials::Pap {
        user: name.to_vec(),
        password: Zeroizing::new(Vec::new()),
    });
    assert_eq!(server.news(), [told]);
    assert!(server.hear(&request).is_empty(), "one question at a time");
    assert!(server.news().is_empty());
    let ack = control_frame(frame::PAP, 2, 5, b"\x02hi");
    assert_eq!(server.verdict(accept(b"hi")), std::slice::from_ref(&ack));
    assert!(server.verdict(reject()).is_empty(), "one verdict");
    assert_eq!(server.hear(&request), [ack]);
    let other = control_frame(frame::PAP, 1, 6, &data);
    let ack = control_frame(frame::PAP, 2, 6, b"\x02hi");
    assert_eq!(
        server.hear(&other),
        [ack],
        "the answer carries the request's identifier"
    );
    let again: usize = (0..50).map(|_| server.hear(&other).len()).sum();
    assert!(again <= 8, "but not for ever");
    assert_eq!(server.news().len(), 1, "Authenticated, once");
}

/// Every state of a CHAP login at the server × every packet of the client.
#[test]
fn chap_states_at_the_server() {
    let response = |id| {
        let mut data = vec![49];
        data.extend_from_slice(&[7; 49]);
        data.extend_from_slice(USER);
        control_frame(frame::CHAP, 2, id, &data)
    };
    let packets = [
        ("right", response(1)),
        ("wrong identifier", response(2)),
        (
            "challenge",
            control_frame(frame::CHAP, 1, 1, b"\x10aaaaaaaaaaaaaaaapeer"),
        ),
        ("success", control_frame(frame::CHAP, 3, 1, b"S=")),
        ("failure", control_frame(frame::CHAP, 4, 1, b"E=691")),
        (
            "md5 response",
            control_frame(frame::CHAP, 2, 1, b"\x10aaaaaaaaaaaaaaaaUser"),
        ),
        (
            "value too long",
            control_frame(frame::CHAP, 2, 1, b"\xffabc"),
        ),
        ("pap", control_frame(frame::PAP, 1, 1, b"\x04User\x01x")),
        ("eap", control_frame(frame::EAP, 2, 1, b"\x01User")),
        ("lie", hex!("ff03c223 0201ffff 31").to_vec()),
    ];
    for state in ["waiting", "asked", "pending", "accepted", "rejected"] {
        for (what, packet) in &packets {
            let mut server = Solo::server(server_config(&[AuthMethod::MsChapV2]));
            server.open_lcp();
            if state != "waiting" {
                assert_eq!(server.wait(millis(75)).len(), 1, "the challenge");
            }
            if matches!(state, "pending" | "accepted" | "rejected") {
                server.hear(&response(1));
            }
            match state {
                "accepted" => drop(server.verdict(accept(b"S=x"))),
                "rejected" => drop(server.verdict(reject())),
                _ => {}
            }
            server.news();
            let sent: Vec<u8> = server.hear(packet).iter().map(|frame| frame[4]).collect();
            let asks = server
                .news()
                .iter()
                .any(|event| matches!(event, Event::Authenticate(_)));
            let expected: (&[u8], bool) = match (state, *what) {
                ("asked", "right") => (&[], true),
                ("accepted", "right") => (&[3], false),
                ("rejected", "right") => (&[4], false),
                _ => (&[], false),
            };
            assert_eq!((&sent[..], asks), expected, "{state}, {what}");
        }
    }
}

#[test]
fn a_refused_peer_sees_why_before_the_link_goes() {
    let mut server = Solo::server(server_config(&[AuthMethod::MsChapV2]));
    server.open_lcp();
    server.wait(millis(75));
    let mut data = vec![49];
    data.extend_from_slice(&[7; 49]);
    server.hear(&control_frame(frame::CHAP, 2, 1, &data));
    let failure = server.verdict(reject()).remove(0);
    let text = String::from_utf8(failure[8..].to_vec()).unwrap();
    assert!(text.starts_with("E=691 R=0 C=") && text.ends_with(" V=3 M=Authentication failed"));
    assert_eq!(text.split(' ').nth(2).unwrap().len(), 2 + 32);
    let sent = server.wait(millis(150));
    assert_eq!(sent.len(), 1);
    assert_eq!((sent[0].0, sent[0].1[4]), (millis(150), 5));
    server.wait(millis(3000));
    let reason = CloseReason::AuthenticationFailed { error: 691 };
    assert_eq!(closed(&server.events), Some(reason));
}

#[test]
fn a_back_ends_own_failure_text_is_passed_on() {
    let mut server = Solo::server(server_config(&[AuthMethod::MsChapV2]));
    server.open_lcp();
    server.wait(millis(75));
    let mut data = vec![49];
    data.extend_from_slice(&[7; 49]);
    server.hear(&control_frame(frame::CHAP, 2, 1, &data));
    let sent = server.verdict(Verdict::Reject {
        error: 648,
        message: b"E=648 R=0 C=00 V=3".to_vec(),
        eap: None,
    });
    assert_eq!(
        sent,
        [control_frame(frame::CHAP, 4, 1, b"E=648 R=0 C=00 V=3")]
    );
}

/// Until the verdict nothing about addresses is said, whatever comes.
#[test]
fn nothing_is_assigned_before_the_verdict() {
    let mut server = Solo::server(server_config(&[AuthMethod::Pap]));
    server.open_lcp();
    server.news();
    assert!(server.assign(assignment()).is_empty());
    server.hear(&control_frame(frame::PAP, 1, 1, b"\x04User\x01x"));
    assert!(server.assign(assignment()).is_empty());
    for protocol in [frame::IPCP, frame::IPV6CP, frame::CCP] {
        assert!(server.hear(&control_frame(protocol, 1, 1, &[])).is_empty());
    }
    assert!(server.wait(millis(5000)).is_empty());
    assert!(!server.link.admits(frame::IPV4) && !server.link.admits(frame::IPV6));
    server.verdict(reject());
    assert!(server.assign(assignment()).is_empty());
    assert!(
        server
            .hear(&control_frame(frame::IPCP, 1, 1, &[]))
            .is_empty()
    );
}

/// LCP may start again before a proof was sent, and never after.
#[test]
fn a_login_cannot_be_slipped_under_a_verdict() {
    let mut server = Solo::server(server_config(&[AuthMethod::Pap]));
    server.open_lcp();
    let sent = server.hear(&control_frame(frame::LCP, 1, 50, &[]));
    assert_eq!(sent.len(), 2, "request and Ack");
    assert_eq!(server.link.phase(), Phase::Establish);
    let mut ack = sent[0].clone();
    ack[4] = 2;
    server.hear(&ack);
    assert_eq!(server.link.phase(), Phase::Authenticate);

    server.hear(&control_frame(frame::PAP, 1, 1, b"\x04User\x01x"));
    server.hear(&control_frame(frame::LCP, 1, 51, &[]));
    assert_eq!(server.link.phase(), Phase::Terminate);
    assert!(server.verdict(accept(b"")).is_empty());
    server.wait(millis(3000));
    assert_eq!(closed(&server.events), Some(CloseReason::Renegotiated));
    assert_eq!(hlak(&server.events), None);

    let mut server = Solo::assigned(server_config(&[AuthMethod::Pap]));
    server.hear(&control_frame(frame::LCP, 1, 51, &[]));
    server.wait(millis(3000));
    assert_eq!(closed(&server.events), Some(CloseReason::Renegotiated));
}

/// However often LCP starts again, the time for it and for authentication is spent once.
#[test]
fn restarts_of_lcp_do_not_buy_time() {
    let mut server = Solo::server(server_config(&[AuthMethod::Pap]));
    server.open_lcp();
    for round in 0..20 {
        server.wait(millis(5000));
        let sent = server.hear(&control_frame(frame::LCP, 1, round, &[]));
        if let Some(request) = sent.first().filter(|frame| frame[4] == 1) {
            let mut ack = request.clone();
            ack[4] = 2;
            server.hear(&ack);
        }
    }
    assert!(matches!(
        closed(&server.events),
        Some(CloseReason::Timeout(_))
    ));
}

/// A client believes a Success only for a proof it has sent, and only with the server's own proof.
#[test]
fn chap_states_at_the_client() {
    let mut client = opened_client(AuthMethod::MsChapV2);
    let success = |id, text: &[u8]| control_frame(frame::CHAP, 3, id, text);
    let s = b"S=407A5589115FD0D6209F510FE9C04566932CDA56";
    // Early.
    client.hear(&success(1, s));
    client.hear(&success(0, s));
    client.hear(&control_frame(frame::CHAP, 4, 1, b"E=691"));
    assert!(client.news().is_empty(), "no proof was sent");
    // A challenge that is none of MS-CHAPv2's.
    assert!(
        client
            .hear(&control_frame(frame::CHAP, 1, 1, b"\x08aaaaaaaa"))
            .is_empty()
    );
    let challenge = control_frame(frame::CHAP, 1, 1, b"\x10aaaaaaaaaaaaaaaagw");
    let response = client.hear(&challenge);
    assert_eq!(response.len(), 1);
    assert_eq!(
        client.hear(&challenge),
        response,
        "the same answer to the same challenge"
    );
    client.hear(&success(2, s));
    assert!(client.news().is_empty(), "another identifier");
    // Accepted, but by a server that does not know the password.
    client.hear(&success(1, s));
    client.wait(millis(3000));
    assert_eq!(closed(&client.events), Some(CloseReason::ServerUnproven));
    assert_eq!(hlak(&client.events), None);
}

/// Opens LCP of a client for `method`.
fn opened_client(method: AuthMethod) -> Solo {
    let mut client = Solo::client(client_config(method, PASSWORD));
    let request = client.up().remove(0);
    let asks = option(3, method.option_value());
    client.hear(&control_frame(frame::LCP, 1, 1, &asks));
    let mut ack = request;
    ack[4] = 2;
    client.hear(&ack);
    assert_eq!(client.link.phase(), Phase::Authenticate);
    client.news();
    client
}

/// Every state of an EAP login at the client × every packet of the server.
#[test]
fn eap_states_at_the_client() {
    let eap = |code, id, data: &[u8]| control_frame(frame::EAP, code, id, data);
    let challenge = hex!("1a 01 09 0017 10 5b5d7c7d7b3f2f3e3c2c602132262628 6777");
    let unproven = b"\x1a\x03\x09\x00\x2eS=407A5589115FD0D6209F510FE9C04566932CDA56";
    let failure = b"\x1a\x04\x09\x00\x10E=647 R=0 V=3";
    let packets: [(&str, Vec<u8>); 11] = [
        ("identity", eap(1, 5, &[1])),
        ("notification", eap(1, 5, b"\x02hello")),
        (
            "md5",
            eap(1, 5, &hex!("04 10 000102030405060708090a0b0c0d0e0f")),
        ),
        ("tls", eap(1, 5, &hex!("0d20"))),
        ("challenge", eap(1, 5, &challenge)),
        ("unproven success", eap(1, 5, unproven)),
        ("method failure", eap(1, 5, failure)),
        ("nak", eap(1, 5, &hex!("031a"))),
        ("EAP-Success", eap(3, 5, &[])),
        ("EAP-Failure", eap(4, 5, &[])),
        ("response", eap(2, 5, b"\x01User")),
    ];
    let failed = |error| Some(CloseReason::AuthenticationFailed { error });
    for state in ["start", "identified", "proving"] {
        for (what, packet) in &packets {
            let mut client = opened_client(AuthMethod::Eap);
            if state != "start" {
                assert_eq!(client.hear(&eap(1, 1, &[1])), [eap(2, 1, b"\x01User")]);
            }
            if state == "proving" {
                assert_eq!(client.hear(&eap(1, 2, &challenge)).len(), 1);
            }
            let sent: Vec<u8> = client
                .hear(packet)
                .iter()
                .filter(|frame| frame.starts_with(&frame::header(frame::EAP)))
                .map(|frame| frame[8])
                .collect();
            client.wait(millis(3000));
            let expected: (&[u8], Option<CloseReason>) = match (state, *what) {
                ("start" | "identified", "identity") => (&[1], None),
                (_, "notification") => (&[2], None),
                ("start" | "identified", "md5" | "tls") => (&[3], None),
                (_, "challenge") => (&[26], None),
                ("proving", "unproven success") => (&[], Some(CloseReason::ServerUnproven)),
                ("proving", "method failure") => (&[26], failed(647)),
                ("identified" | "proving", "EAP-Failure") => (&[], failed(691)),
                _ => (&[], None),
            };
            let got = (&sent[..], closed(&client.events));
            assert_eq!(got, expected, "{state}, {what}");
            assert_eq!(
                hlak(&client.events),
                None,
                "{state}, {what}: no key, no login"
            );
        }
    }
}

/// Every state of an EAP login at the server × every packet of the client.
#[test]
fn eap_states_at_the_server() {
    let eap = |code, id, data: &[u8]| control_frame(frame::EAP, code, id, data);
    let request = hex!("01070006 1a01");
    let packets = [
        ("identity", eap(2, 0, b"\x01User")),
        ("identity, wrong identifier", eap(2, 1, b"\x01User")),
        ("method", eap(2, 7, b"\x1a\x02")),
        ("identity again", eap(2, 7, b"\x01Other")),
        ("nak", eap(2, 7, b"\x03\x0d")),
        ("no type", eap(2, 7, b"")),
        ("request", eap(1, 7, b"\x01")),
        ("success", eap(3, 7, b"")),
        ("failure", eap(4, 7, b"")),
    ];
    for state in ["asked", "pending", "continued", "accepted", "rejected"] {
        for (what, packet) in &packets {
            let mut server = Solo::server(server_config(&[AuthMethod::Eap]));
            server.open_lcp();
            assert_eq!(server.wait(millis(75))[0].1, eap(1, 0, &[1]));
            if state != "asked" {
                server.hear(&eap(2, 0, b"\x01User"));
            }
            if matches!(state, "continued" | "accepted" | "rejected") {
                let request = request.to_vec();
                let sent = server.verdict(Verdict::Continue { request });
                assert_eq!(sent, [eap(1, 7, b"\x1a\x01")]);
            }
            if matches!(state, "accepted" | "rejected") {
                server.hear(&eap(2, 7, b"\x1a\x02"));
                let verdict = if state == "accepted" {
                    accept(&hex!("03070004"))
                } else {
                    reject()
                };
                let code = if state == "accepted" { 3 } else { 4 };
                assert_eq!(server.verdict(verdict), [eap(code, 7, &[])]);
            }
            server.news();
            let sent: Vec<u8> = server.hear(packet).iter().map(|frame| frame[4]).collect();
            let asked = server.news().into_iter().find_map(|event| match event {
                Event::Authenticate(Credentials::Eap { identity, response }) => {
                    assert_eq!(identity, USER);
                    Some(response)
                }
                _ => None,
            });
            let expected: (&[u8], bool) = match (state, *what) {
                ("asked", "identity") | ("continued", "method" | "nak") => (&[], true),
                ("accepted", "method" | "identity again" | "nak") => (&[3], false),
                ("rejected", "method" | "identity again" | "nak") => (&[4], false),
                _ => (&[], false),
            };
            assert_eq!((&sent[..], asked.is_some()), expected, "{state}, {what}");
            if let Some(response) = asked {
                assert_eq!(response, packet[4..], "passed on to the byte");
            }
        }
    }
}

#[test]
fn a_continue_that_is_no_request_refuses_the_peer() {
    for request in [
        &b""[..],
        &hex!("02070006 1a01"),
        &hex!("01070004"),
        &hex!("0107ffff 1a"),
    ] {
        let mut server = Solo::server(server_config(&[AuthMethod::Eap]));
        server.open_lcp();
        server.wait(millis(75));
        server.hear(&control_frame(frame::EAP, 2, 0, b"\x01User"));
        let request = request.to_vec();
        let sent = server.verdict(Verdict::Continue { request });
        assert_eq!(sent, [control_frame(frame::EAP, 4, 0, &[])]);
    }
}

#[test]
fn a_pap_client_repeats_itself_and_takes_the_short_ack() {
    let mut client = Solo::client(client_config(AuthMethod::Pap, PASSWORD));
    let request = client.up().remove(0);
    client.hear(&control_frame(frame::LCP, 1, 1, &hex!("0304c023")));
    let mut ack = request;
    ack[4] = 2;
    let sent = client.hear(&ack);
    let login = control_frame(frame::PAP, 1, 1, b"\x04User\x0aclientPass");
    assert_eq!(sent, std::slice::from_ref(&login));
    assert_eq!(client.wait(millis(3000)), [(millis(3000), login)]);
    client.hear(&control_frame(frame::PAP, 2, 2, &[]));
    assert_eq!(hlak(&client.events), None, "another identifier");
    // RouterOS: Length 4, and text behind it.
    client.hear(&hex!("ff03c023 02010004 084c6f67696e206f6b"));
    assert_eq!(hlak(&client.events), Some(Hlak::ZERO));
}

#[test]
fn a_server_may_challenge_again_later() {
    let method = AuthMethod::ChapMd5;
    let mut client = opened_client(method);
    client.hear(&control_frame(frame::CHAP, 1, 1, b"\x04abcdgw"));
    client.hear(&control_frame(frame::CHAP, 3, 1, b""));
    assert!(matches!(client.news()[..], [Event::Authenticated { .. }]));
    let sent = client.hear(&control_frame(frame::CHAP, 1, 2, b"\x04efghgw"));
    assert_eq!(sent.len(), 1);
    client.hear(&control_frame(frame::CHAP, 3, 2, b""));
    assert!(client.news().is_empty(), "told once");
    client.hear(&control_frame(frame::CHAP, 1, 3, b"\x04ijklgw"));
    client.hear(&control_frame(frame::CHAP, 4, 3, b"E=691"));
    client.wait(millis(3000));
    let reason = CloseReason::AuthenticationFailed { error: 691 };
    assert_eq!(closed(&client.events), Some(reason));
}

#[test]
fn secrets_are_not_printed() {
    let credentials = Credentials::Pap {
        user: b"User\r\n".to_vec(),
        password: Zeroizing::new(b"hunter2".to_vec()),
    };
    let config = client_config(AuthMethod::Pap, "hunter2");
    for text in [format!("{credentials:?}"), format!("{config:?}")] {
        assert!(
            !text.contains("hunter2") && !text.contains("104, 117"),
            "{text}"
        );
        assert!(!text.contains('\n'));
    }
}

/// A verdict counts for the proof that is being judged, and for nothing else.
#[test]
fn a_verdict_nobody_asked_for_is_ignored() {
    let mut server = Solo::server(server_config(&[AuthMethod::MsChapV2]));
    server.open_lcp();
    assert!(
        server.verdict(accept(b"S=")).is_empty(),
        "before the challenge"
    );
    server.wait(millis(75));
    assert!(
        server.verdict(accept(b"S=")).is_empty(),
        "before the response"
    );
    let mut data = vec![49];
    data.extend_from_slice(&[7; 49]);
    server.hear(&control_frame(frame::CHAP, 2, 1, &data));
    assert_eq!(server.verdict(reject()).len(), 1);
    assert!(server.verdict(accept(b"S=")).is_empty(), "after another");
    server.wait(millis(5000));
    let reason = CloseReason::AuthenticationFailed { error: 691 };
    assert_eq!(closed(&server.events), Some(reason));
    assert_eq!(hlak(&server.events), None);
}
