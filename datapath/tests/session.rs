//! One client session and one server session, the whole protocol, no I/O.

use std::net::Ipv4Addr;
use std::sync::Arc;

use datapath::ppp::auth::AuthMethod;
use datapath::session::event::{DropReason, EndReason, Event};
use datapath::testing::fixtures::{self, GATEWAY, PASSWORD, USER};
use datapath::testing::pair::Pair;
use datapath::time::Duration;

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 7);

fn pair(method: AuthMethod, password: &str) -> Pair {
    Pair::new(
        Arc::new(fixtures::client_settings(USER, password, method)),
        Arc::new(fixtures::server_settings()),
        7,
        Box::new(|question| Some(fixtures::judge(&question, 7))),
    )
    .expect("the null TLS always begins")
}

fn up(method: AuthMethod) -> Pair {
    let mut pair = pair(method, PASSWORD);
    assert!(
        pair.run_until(100, Pair::is_up),
        "{:#?}",
        pair.server.edge.events
    );
    pair
}

fn end_of(events: &[Event]) -> Option<EndReason> {
    events.iter().find_map(|event| match event {
        Event::Ended(ended) => Some(ended.reason),
        _ => None,
    })
}

/// Without the Router Advertisements.
fn ipv4(packets: &[Vec<u8>]) -> Vec<&Vec<u8>> {
    packets
        .iter()
        .filter(|packet| packet[0] >> 4 == 4)
        .collect()
}

#[test]
fn a_client_logs_in_by_each_method_and_gets_its_address() {
    for method in [AuthMethod::MsChapV2, AuthMethod::Pap] {
        let pair = up(method);
        let addresses = pair.client.session.addresses();
        assert_eq!(addresses.ipv4, Some(CLIENT), "{method:?}");
        assert_eq!(addresses.ipv4_gateway, Some(GATEWAY));
        assert_eq!(addresses.dns[0], Some(Ipv4Addr::new(9, 9, 9, 9)));
        assert_eq!(pair.server.session.addresses().ipv4, Some(CLIENT));
    }
}

#[test]
fn packets_cross_both_ways_whatever_the_pieces() {
    for piece_len in [1, 3, 7, 1_000, usize::MAX] {
        let mut pair = pair(AuthMethod::MsChapV2, PASSWORD);
        pair.piece_len = piece_len;
        assert!(pair.run_until(100, Pair::is_up));
        let up = fixtures::udp(CLIENT, Ipv4Addr::new(192, 0, 2, 1), b"up");
        let down = fixtures::udp(Ipv4Addr::new(192, 0, 2, 1), CLIENT, &[9; 1_200]);
        pair.client_sends(&up);
        pair.server_sends(&down);
        assert_eq!(pair.server.edge.inside, [up]);
        assert_eq!(ipv4(&pair.client.edge.inside), [&down]);
    }
}

#[test]
fn a_foreign_source_does_not_pass() {
    let mut pair = up(AuthMethod::MsChapV2);
    let forged = fixtures::udp(Ipv4Addr::new(10, 8, 0, 8), GATEWAY, b"?");
    pair.client_sends(&forged);
    assert!(pair.server.edge.inside.is_empty());
    assert_eq!(pair.server.edge.drops, [DropReason::Source]);
}

#[test]
fn a_wrong_password_ends_the_session_and_nothing_crosses() {
    let mut pair = pair(AuthMethod::MsChapV2, "wrong");
    assert!(pair.run_until(100, |pair| pair.client.closed && pair.server.closed));
    assert_eq!(
        end_of(&pair.server.edge.events),
        Some(EndReason::AuthenticationFailed)
    );
    assert_eq!(
        end_of(&pair.client.edge.events),
        Some(EndReason::AuthenticationFailed)
    );
    assert!(pair.server.edge.inside.is_empty());
}

#[test]
fn each_side_ends_politely_and_the_other_knows() {
    for by_client in [true, false] {
        let mut pair = up(AuthMethod::MsChapV2);
        let now = pair.now;
        let (own, reason) = if by_client {
            (&mut pair.client, EndReason::UserRequest)
        } else {
            (&mut pair.server, EndReason::Administrative)
        };
        own.session.terminate(now, reason, &mut own.edge);
        assert!(pair.run_until(20, |pair| pair.client.closed && pair.server.closed));
        let waited = pair.now.saturating_since(now);
        assert!(
            waited < Duration::from_millis(100),
            "no deadline was needed, {waited:?} passed"
        );
        let (own, other) = if by_client {
            (&pair.client, &pair.server)
        } else {
            (&pair.server, &pair.client)
        };
        assert_eq!(end_of(&own.edge.events), Some(reason));
        assert_eq!(
            end_of(&other.edge.events),
            Some(EndReason::PeerDisconnected)
        );
    }
}

#[test]
fn an_unanswered_question_ends_at_the_deadline() {
    let mut pair = Pair::new(
        Arc::new(fixtures::client_settings(
            USER,
            PASSWORD,
            AuthMethod::MsChapV2,
        )),
        Arc::new(fixtures::server_settings()),
        1,
        Box::new(|_| None),
    )
    .expect("the null TLS always begins");
    assert!(pair.run_until(200, |pair| pair.server.closed));
    assert_eq!(
        end_of(&pair.server.edge.events),
        Some(EndReason::SetupTimeout)
    );
    assert!(pair.now.as_nanos() <= 125_000_000_000, "at {:?}", pair.now);
}

#[test]
fn a_silent_session_is_kept_alive_by_echoes_and_lost_without_them() {
    let mut pair = up(AuthMethod::MsChapV2);
    let since = pair.now;
    pair.run_until(200, |pair| {
        pair.now.saturating_since(since) > Duration::from_secs(600)
    });
    assert!(pair.is_up(), "echoes keep it");
    pair.client.closed = true;
    pair.run_until(50, |pair| pair.server.closed);
    assert_eq!(end_of(&pair.server.edge.events), Some(EndReason::PeerLost));
}

#[test]
fn a_packet_over_the_mtu_is_answered_or_cut() {
    let mut pair = up(AuthMethod::MsChapV2);
    let mut big = fixtures::udp(Ipv4Addr::new(192, 0, 2, 1), CLIENT, &[1; 1_400]);
    pair.server_sends(&big);
    assert_eq!(pair.server.edge.drops, [DropReason::TooBig], "DF is set");
    assert_eq!(pair.server.edge.inside.len(), 1, "its sender is told");
    assert_eq!(
        pair.server.edge.inside[0][20..22],
        [3, 4],
        "ICMP fragmentation needed"
    );

    big[6] = 0;
    big[10..12].fill(0);
    let sum = datapath::ip::checksum::of(&big[..20]);
    big[10..12].copy_from_slice(&sum.to_be_bytes());
    pair.server_sends(&big);
    assert_eq!(
        ipv4(&pair.client.edge.inside).len(),
        2,
        "without DF it comes in two pieces"
    );
}

#[test]
fn a_live_session_goes_on_in_another_process() {
    let mut pair = up(AuthMethod::MsChapV2);
    let exported = pair.server.session.export().expect("quiet and up");
    let bytes = serde_json::to_vec(&exported).expect("a plain value");
    let exported = serde_json::from_slice(&bytes).expect("what was just written");
    pair.server.session = datapath::session::Session::import(
        pair.now,
        exported,
        Arc::new(fixtures::server_settings()),
        fixtures::policy(7).network,
        &mut pair.server.edge,
    )
    .expect("the same version");
    let packet = fixtures::udp(CLIENT, Ipv4Addr::new(192, 0, 2, 1), b"still there");
    pair.client_sends(&packet);
    assert_eq!(pair.server.edge.inside, [packet]);
    let since = pair.now;
    pair.run_until(100, |pair| {
        pair.now.saturating_since(since) > Duration::from_secs(200)
    });
    assert!(pair.is_up(), "echoes go on");
}
