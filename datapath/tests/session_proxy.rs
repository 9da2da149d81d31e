//! A client behind an HTTP proxy: CONNECT, its answer in any pieces, and a proxy that is hostile or
//! silent.

use std::sync::Arc;

use datapath::http::proxy;
use datapath::io::Loss;
use datapath::ppp::auth::AuthMethod;
use datapath::session::event::{EndReason, Ended, Event};
use datapath::session::{ClientSettings, Disposition};
use datapath::testing::fixtures;
use datapath::testing::pair::Pair;
use datapath::time::Duration;
use zeroize::Zeroizing;

const REQUEST: &str = "CONNECT vpn.example.com:443 HTTP/1.1\r\nHost: vpn.example.com:443\r\n\
                       Proxy-Authorization: Basic YTpi\r\n\r\n";

fn client_settings() -> Arc<ClientSettings> {
    let mut settings =
        fixtures::client_settings(fixtures::USER, fixtures::PASSWORD, AuthMethod::MsChapV2);
    settings.proxy = Some(Arc::new(proxy::Connect {
        authority: "vpn.example.com:443".to_owned(),
        authorization: Some(Zeroizing::new("Basic YTpi".to_owned())),
    }));
    Arc::new(settings)
}

/// A client that has just sent its request to the proxy, and a server behind that.
fn at_proxy() -> Pair {
    let server = Arc::new(fixtures::server_settings());
    let authority = Box::new(|question| Some(fixtures::judge(&question, 7)));
    let mut pair = Pair::new(client_settings(), server, 7, authority).unwrap();
    assert_eq!(sent(&mut pair), REQUEST.as_bytes());
    pair
}

/// What the client sends at once.
fn sent(pair: &mut Pair) -> Vec<u8> {
    let (session, edge) = (&mut pair.client.session, &mut pair.client.edge);
    let mut bytes = Vec::new();
    while let Some(buffer) = session.poll_send(pair.now, edge) {
        bytes.extend_from_slice(&buffer.bytes[buffer.start..buffer.end]);
        session.sent(pair.now, Ok(()), edge);
    }
    bytes
}

fn receive(pair: &mut Pair, bytes: &[u8]) {
    let mut bytes = bytes.to_vec();
    let (session, edge) = (&mut pair.client.session, &mut pair.client.edge);
    session.receive(pair.now, &mut bytes, edge);
}

fn ended(pair: &Pair) -> Option<&Ended> {
    let events = pair.client.edge.events.iter();
    events.rev().find_map(|event| match event {
        Event::Ended(ended) => Some(ended),
        _ => None,
    })
}

/// The client gave up, said why, and sends nothing more.
fn assert_failed(pair: &mut Pair, detail: &str) {
    let ended = ended(pair).expect("it ended");
    assert_eq!(ended.reason, EndReason::ProxyFailed);
    let told = ended.detail.as_deref().unwrap_or_default();
    assert!(told.contains(detail), "{told:?} has no {detail:?}");
    assert_eq!(sent(pair), b"");
    assert_ne!(pair.client.session.disposition(), Disposition::Keep);
}

#[test]
fn a_session_comes_up_behind_a_proxy_however_its_answer_is_cut() {
    let answer = b"HTTP/1.0 200 Connection established\r\nVia: 1.1 proxy\r\n\r\n";
    for piece_len in [1, 7, answer.len()] {
        let mut pair = at_proxy();
        for piece in answer.chunks(piece_len) {
            assert!(pair.client.session.is_shaking_hands());
            assert_eq!(
                sent(&mut pair),
                b"",
                "nothing is sent before the whole answer"
            );
            receive(&mut pair, piece);
        }
        assert!(pair.run_until(100, Pair::is_up), "cut at {piece_len}");
    }
}

#[test]
fn each_refusal_ends_the_session_in_its_own_words() {
    for (answer, detail) in [
        (&b"HTTP/1.1 407 Who\r\n\r\n"[..], "user name or password"),
        (b"HTTP/1.1 403 No\r\n\r\n<html>", "rules forbid"),
        (b"HTTP/1.1 502 Bad\r\n\r\n", "cannot reach"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\n\0", "not HTTP"),
    ] {
        let mut pair = at_proxy();
        receive(&mut pair, answer);
        assert_failed(&mut pair, detail);
    }
}

#[test]
fn a_head_without_an_end_is_cut_at_its_limit() {
    let mut pair = at_proxy();
    receive(&mut pair, b"HTTP/1.1 200 OK\r\n");
    let mut taken = 0;
    while ended(&pair).is_none() {
        assert!(taken <= datapath::http::HEAD_LEN_MAX);
        receive(&mut pair, b"a: b\r\n");
        taken += 6;
    }
    assert_failed(&mut pair, "not HTTP");
}

#[test]
fn a_proxy_that_closes_is_named_as_the_one() {
    for loss in [Loss::Finished, Loss::Reset] {
        let mut pair = at_proxy();
        receive(&mut pair, b"HTTP/1.1 200");
        let (session, edge) = (&mut pair.client.session, &mut pair.client.edge);
        session.receive_ended(loss, edge);
        assert_failed(&mut pair, "closed the connection");
    }
}

#[test]
fn a_proxy_that_is_silent_or_trickles_is_left_after_the_time_of_a_head() {
    let mut pair = at_proxy();
    let begun = pair.now;
    while ended(&pair).is_none() {
        assert!(
            pair.now < begun + Duration::from_secs(11),
            "it waits for ever"
        );
        receive(&mut pair, b"H");
        // A line of so many bytes is still within its limit.
        pair.now = pair.now + Duration::from_millis(50);
        let (session, edge) = (&mut pair.client.session, &mut pair.client.edge);
        if session.next_timeout().is_some_and(|at| at <= pair.now) {
            session.handle_timeout(pair.now, edge);
        }
    }
    assert!(pair.now >= begun + Duration::from_secs(10));
    assert_failed(&mut pair, "did not answer in time");
}

#[test]
fn tls_has_its_whole_time_after_a_slow_proxy() {
    let mut pair = at_proxy();
    let begun = pair.now;
    pair.now = pair.now + Duration::from_secs(9);
    receive(&mut pair, b"HTTP/1.1 200 OK\r\n\r\n");
    assert!(!sent(&mut pair).is_empty(), "the first flight of TLS");
    assert_eq!(
        pair.client.session.next_timeout(),
        Some(begun + Duration::from_secs(19))
    );
}
