//! LCP: who speaks first, which options are agreed, how it fails.

use super::*;
use hex_literal::hex;

const REQUEST: &[u8] = &hex!("ff03c02101");

#[test]
fn a_server_lets_the_client_speak_first() {
    let mut server = Solo::server(server_config(&[AuthMethod::Pap]));
    assert!(server.up().is_empty());
    assert!(server.wait(millis(699)).is_empty());
    let sent = server.hear(&control_frame(frame::LCP, 1, 0, &[]));
    assert!(sent[0].starts_with(REQUEST), "its own request");
    assert_eq!(
        sent[1],
        control_frame(frame::LCP, 2, 0, &[]),
        "an empty request is acknowledged"
    );
    assert_eq!(sent.len(), 2);
}

#[test]
fn a_server_speaks_by_itself_if_the_client_does_not() {
    let mut server = Solo::server(server_config(&[AuthMethod::Pap]));
    server.up();
    let sent = server.wait(millis(4000));
    let at: Vec<_> = sent.iter().map(|(at, _)| *at).collect();
    assert_eq!(at, [millis(700), millis(3700)]);
    assert_eq!(
        sent[0].1, sent[1].1,
        "a retransmission keeps its identifier"
    );
}

#[test]
fn an_unanswered_request_is_sent_again_when_the_client_shows_up() {
    let mut server = Solo::server(server_config(&[AuthMethod::Pap]));
    server.up();
    let lost = server.wait(millis(700)).remove(0).1;
    let young = server.hear(&control_frame(frame::LCP, 1, 0, &hex!("0d0306")));
    assert_eq!(young, [control_frame(frame::LCP, 4, 0, &hex!("0d0306"))]);
    server.wait(millis(201));
    let sent = server.hear(&control_frame(frame::LCP, 1, 1, &[]));
    assert_eq!(sent, [lost, control_frame(frame::LCP, 2, 1, &[])]);
}

#[test]
fn a_client_starts_at_once() {
    let mut client = Solo::client(client_config(AuthMethod::Pap, PASSWORD));
    let sent = client.up();
    assert_eq!(sent.len(), 1);
    assert!(sent[0].starts_with(REQUEST));
}

#[test]
fn lcp_has_20_seconds() {
    let mut server = Solo::server(server_config(&[AuthMethod::Pap]));
    server.up();
    server.wait(millis(19_999));
    assert_eq!(closed(&server.events), None);
    server.wait(millis(1));
    let reason = CloseReason::Timeout(Phase::Establish);
    assert_eq!(closed(&server.events), Some(reason));
    assert_eq!(server.link.next_timeout(), None, "nothing outlives a link");
}

#[test]
fn option_lists_of_known_clients() {
    // What the client asks, and what the server answers: code and options.
    for (who, asks, code, options) in [
        (
            "Windows 10",
            &hex!("01040ffb 0506a1b2c3d4 0702 0802 0d0306")[..],
            4,
            &hex!("0d0306")[..],
        ),
        ("Windows 10, again", &hex!("01040ffb 0506a1b2c3d4"), 2, &[]),
        ("pppd", &hex!("020600000000 0506a1b2c3d4 0702 0802"), 2, &[]),
        ("Open SSTP Client", &hex!("010405dc"), 2, &[]),
        (
            "SoftEther",
            &hex!("010405dc 0304c023"),
            4,
            &hex!("0304c023"),
        ),
        (
            "RRAS",
            &hex!("01040ffb 0304c227 0506a1b2c3d4 0d0306 1104064e 130901000102030405"),
            4,
            &hex!("0304c227 0d0306 1104064e 130901000102030405"),
        ),
        ("small MRU", &hex!("01040064"), 3, &hex!("010405dc")),
        ("largest MRU", &hex!("0104ffff"), 2, &[]),
        (
            "quality",
            &hex!("0408c02500000064"),
            4,
            &hex!("0408c02500000064"),
        ),
        (
            "MRU of the wrong length",
            &hex!("010305"),
            4,
            &hex!("010305"),
        ),
        (
            "reject before nak",
            &hex!("01040064 0d0306"),
            4,
            &hex!("0d0306"),
        ),
    ] {
        let mut server = Solo::server(AuthenticatorConfig {
            ipv6: false,
            ..server_config(&[AuthMethod::Pap])
        });
        server.up();
        let answer = server
            .hear(&control_frame(frame::LCP, 1, 9, asks))
            .pop()
            .expect(who);
        let data = if code == 2 { asks } else { options };
        assert_eq!(answer, control_frame(frame::LCP, code, 9, data), "{who}");
    }
}

#[test]
fn the_smallest_mru_depends_on_ipv6() {
    for (ipv6, mru, code) in [
        (false, 575, 3),
        (false, 576, 2),
        (true, 1279, 3),
        (true, 1280, 2),
    ] {
        let mut server = Solo::server(AuthenticatorConfig {
            ipv6,
            ..server_config(&[AuthMethod::Pap])
        });
        server.up();
        let [high, low] = u16::to_be_bytes(mru);
        let sent = server.hear(&control_frame(frame::LCP, 1, 1, &[1, 4, high, low]));
        assert_eq!(sent.last().unwrap()[4], code, "{mru}, IPv6 {ipv6}");
    }
}

#[test]
fn five_naks_and_then_a_reject() {
    let mut server = Solo::server(server_config(&[AuthMethod::Pap]));
    server.up();
    let codes: Vec<u8> = (0..7)
        .map(|id| server.hear(&control_frame(frame::LCP, 1, id, &hex!("01040064"))))
        .map(|sent| sent.last().unwrap()[4])
        .collect();
    assert_eq!(codes, [3, 3, 3, 3, 3, 4, 4]);
}

#[test]
fn zero_and_our_own_magic_are_naked() {
    let mut server = Solo::server(server_config(&[AuthMethod::Pap]));
    server.up();
    let magic = server.link.magic();
    for asked in [0, magic] {
        let mut option = hex!("050600000000");
        option[2..].copy_from_slice(&asked.to_be_bytes());
        let sent = server.hear(&control_frame(frame::LCP, 1, 1, &option));
        let nak = sent.last().unwrap();
        assert_eq!(nak[4], 3);
        let suggested = u32::from_be_bytes(nak[10..14].try_into().unwrap());
        assert!(suggested != 0 && suggested != magic);
    }
}

#[test]
fn a_mirror_is_recognised() {
    for methods in [
        &[AuthMethod::Pap][..],
        &[AuthMethod::MsChapV2, AuthMethod::Pap],
    ] {
        let mut server = Solo::server(server_config(methods));
        server.up();
        let mut frames = VecDeque::from(
            server
                .wait(millis(700))
                .into_iter()
                .map(|(_, frame)| frame)
                .collect::<Vec<_>>(),
        );
        for _ in 0..200 {
            let Some(frame) = frames.pop_front() else {
                break;
            };
            frames.extend(server.hear(&frame));
        }
        assert_eq!(closed(&server.events), Some(CloseReason::LoopDetected));
    }
}

#[test]
fn an_answer_counts_only_for_the_request_that_is_out() {
    let mut server = Solo::server(server_config(&[AuthMethod::Pap]));
    server.up();
    let request = server.hear(&control_frame(frame::LCP, 1, 1, &[])).remove(0);
    let ack = |change: fn(&mut Vec<u8>)| {
        let mut ack = request.clone();
        ack[4] = 2;
        change(&mut ack);
        ack
    };
    server.hear(&ack(|ack| ack[5] ^= 1));
    assert_eq!(
        server.link.lcp.state(),
        State::AckSent,
        "another identifier"
    );
    server.hear(&ack(|ack| *ack.last_mut().unwrap() ^= 1));
    assert_eq!(server.link.lcp.state(), State::AckSent, "other options");
    server.hear(&ack(|_| {}));
    assert_eq!(server.link.lcp.state(), State::Opened);
    assert!(
        server.hear(&ack(|_| {})).is_empty(),
        "a second Ack says nothing"
    );
    assert_eq!(server.link.lcp.state(), State::Opened);
}

/// Naks and Rejects of a client, and which method the server asks for next.
#[test]
fn methods_are_offered_in_turn() {
    use AuthMethod::{ChapMd5, Eap, MsChapV2, Pap};
    let all = [Eap, MsChapV2, ChapMd5, Pap];
    let nak = |method: AuthMethod| (3, option(3, method.option_value()));
    let mschapv1 = (3, hex!("0305c22380").to_vec());
    let nothing = (3, Vec::new());
    let mru = (3, hex!("01040578").to_vec());
    for (answers, next) in [
        (vec![nak(Pap)], Some(Pap)),
        (vec![nak(MsChapV2), nak(Eap)], Some(ChapMd5)),
        (vec![mschapv1.clone()], Some(MsChapV2)),
        (vec![nothing.clone(); 3], Some(Pap)),
        (vec![nothing; 4], None),
        (vec![mru], Some(Eap)),
        (vec![nak(Eap)], Some(MsChapV2)),
        (vec![nak(Pap), nak(Pap), nak(Pap), nak(Pap)], None),
        (vec![(4, hex!("0304c227").to_vec())], None),
    ] {
        let mut server = Solo::server(server_config(&all));
        server.up();
        let mut sent = server.hear(&control_frame(frame::LCP, 1, 1, &[])).remove(0);
        for (code, options) in &answers {
            let identifier = sent[5];
            sent = server
                .hear(&control_frame(frame::LCP, *code, identifier, options))
                .remove(0);
        }
        match next {
            Some(method) => {
                let value = method.option_value();
                assert_eq!(sent[4], 1, "{answers:?}");
                assert!(
                    sent.windows(value.len()).any(|part| part == value),
                    "{answers:?}"
                );
            }
            None => {
                let text = b"authentication required";
                assert_eq!((sent[4], &sent[8..]), (5, &text[..]), "{answers:?}");
                let id = sent[5];
                server.hear(&control_frame(frame::LCP, 6, id, &[]));
                assert_eq!(closed(&server.events), Some(CloseReason::NoAuthMethod));
            }
        }
    }
}

#[test]
fn a_peer_that_rejects_the_magic_number_gets_none() {
    let mut server = Solo::server(server_config(&[AuthMethod::Pap]));
    server.up();
    let request = server.hear(&control_frame(frame::LCP, 1, 1, &[])).remove(0);
    let magic = &request[request.len() - 6..];
    let second = server
        .hear(&control_frame(frame::LCP, 4, request[5], magic))
        .remove(0);
    assert_ne!(second[5], request[5], "a new request, a new identifier");
    let mut ack = second;
    ack[4] = 2;
    server.hear(&ack);
    assert!(server.link.lcp.is_open());
    assert_eq!(server.link.magic(), 0);
    let reply = server.hear(&control_frame(frame::LCP, 9, 7, &hex!("01020304 aa")));
    assert_eq!(
        reply,
        [control_frame(frame::LCP, 10, 7, &hex!("00000000 aa"))]
    );
}

#[test]
fn unknown_codes_are_rejected_and_identification_is_told() {
    let mut server = Solo::server(server_config(&[AuthMethod::Pap]));
    server.open_lcp();
    server.news();
    let id = server.link.lcp.next_identifier();
    let unknown = control_frame(frame::LCP, 99, 5, b"abc");
    let sent = server.hear(&unknown);
    assert_eq!(sent, [control_frame(frame::LCP, 7, id, &unknown[4..])]);
    assert!(server.news().is_empty());
    for (code, data) in [
        (11, &hex!("00000000 01")[..]),
        (13, &hex!("00000000 00000005")),
    ] {
        assert!(
            server
                .hear(&control_frame(frame::LCP, code, 1, data))
                .is_empty()
        );
        assert!(server.news().is_empty());
    }
    let sent = server.hear(&control_frame(frame::LCP, 12, 2, b"\0\0\0\0MSRASV5.20"));
    assert!(sent.is_empty());
    let told = Event::PeerIdentification(b"MSRASV5.20".to_vec());
    assert_eq!(server.news(), [told]);
}

#[test]
fn a_code_reject_of_what_lcp_needs_ends_the_link_and_another_does_not() {
    let mut server = Solo::server(server_config(&[AuthMethod::Pap]));
    server.open_lcp();
    server.hear(&control_frame(frame::LCP, 7, 1, &hex!("09010008 00000000")));
    assert_eq!(server.link.phase(), Phase::Authenticate);
    let sent = server.hear(&control_frame(frame::LCP, 7, 1, &hex!("01010004")));
    assert_eq!(sent[0][4], 5, "Terminate-Request");
    server.wait(millis(3000));
    assert_eq!(closed(&server.events), Some(CloseReason::ProtocolRejected));
}

#[test]
fn what_is_not_lcp_waits_for_lcp() {
    let mut server = Solo::server(server_config(&[AuthMethod::Pap]));
    server.up();
    for protocol in [frame::PAP, frame::IPCP, frame::CCP, 0xc025] {
        assert!(
            server
                .hear(&control_frame(protocol, 1, 1, b"\x04User\x01x"))
                .is_empty()
        );
    }
    assert!(server.news().is_empty());
}

#[test]
fn either_end_can_terminate() {
    let mut server = Solo::server(server_config(&[AuthMethod::Pap]));
    server.open_lcp();
    let sent = server.hear(&control_frame(frame::LCP, 5, 77, b"bye"));
    assert_eq!(sent, [control_frame(frame::LCP, 6, 77, &[])]);
    assert_eq!(closed(&server.events), Some(CloseReason::PeerTerminated));
    assert!(
        server
            .hear(&control_frame(frame::LCP, 5, 78, b"bye"))
            .is_empty()
    );

    let mut server = Solo::server(server_config(&[AuthMethod::Pap]));
    server.open_lcp();
    let mut out = Collected::default();
    server.link.terminate(server.now, "maintenance", &mut out);
    server.link.terminate(server.now, "maintenance", &mut out);
    assert_eq!(out.sent.len(), 1);
    assert_eq!(out.sent[0][8..], *b"maintenance");
    assert!(server.wait(millis(1499)).is_empty());
    assert_eq!(server.wait(millis(1)).len(), 1, "once more");
    server.wait(millis(1500));
    assert_eq!(closed(&server.events), Some(CloseReason::TerminatedByUs));
}

#[test]
fn a_link_without_methods_or_not_up_says_nothing() {
    let mut server = Solo::server(server_config(&[]));
    assert!(
        server
            .hear(&control_frame(frame::LCP, 1, 1, &[]))
            .is_empty()
    );
    assert!(server.up().is_empty());
    assert_eq!(closed(&server.events), Some(CloseReason::NoAuthMethod));
}

#[test]
fn a_client_insists_on_authentication() {
    let mut client = Solo::client(client_config(AuthMethod::MsChapV2, PASSWORD));
    client.up();
    let sent = client.hear(&control_frame(frame::LCP, 1, 1, &[]));
    assert_eq!(sent, [control_frame(frame::LCP, 3, 1, &hex!("0305c22381"))]);
    let sent = client.hear(&control_frame(frame::LCP, 1, 2, &hex!("0304c023")));
    assert_eq!(
        sent,
        [control_frame(frame::LCP, 3, 2, &hex!("0305c22381"))],
        "PAP is not allowed"
    );
    let rras = hex!("01040ffb 0305c22381 0506a1b2c3d4 0d0306 1104064e 0702 0802");
    let sent = client.hear(&control_frame(frame::LCP, 1, 3, &rras));
    assert_eq!(
        sent,
        [control_frame(frame::LCP, 4, 3, &hex!("0d0306 1104064e"))]
    );
    for id in 4..7 {
        client.hear(&control_frame(frame::LCP, 1, id, &[]));
    }
    client.hear(&control_frame(frame::LCP, 1, 7, &[]));
    client.wait(millis(3000));
    assert_eq!(closed(&client.events), Some(CloseReason::NoAuthMethod));
}
