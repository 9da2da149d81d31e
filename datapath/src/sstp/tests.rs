//! Both roles of a call on a fake clock: timers, causes, hand-over, and any order of events.

use proptest::prelude::*;

use super::binding::{self, HashProtocol};
use super::call::{ABORT_1_TIMEOUT, Drain, PeerMisbehaved, PeerStatus, State};
use super::message::{self, AttributeId, MessageType, Status, bare};
use super::*;
use crate::crypto::Hlak;
use crate::output::Collected;
use crate::time::{Duration, Instant};

const NONCE: Nonce = Nonce([7; 32]);
const KEY: Hlak = Hlak::from_bytes([9; 32]);
const DATA: &[u8] = &[0x10, 0, 0, 6, 0, 0x21];

fn at(seconds: u64) -> Instant {
    Instant::from_nanos(seconds * 1_000_000_000)
}

fn certificate() -> CertificateHashes {
    CertificateHashes::of_der(b"certificate")
}

fn server() -> server::Call {
    server::Call::new(server::Config::new(NONCE, vec![certificate()]))
}

fn client() -> client::Call {
    client::Call::new(client::Config::new(certificate()))
}

fn take(
    call: &mut server::Call,
    now: Instant,
    bytes: &[u8],
    out: &mut Collected<Event>,
) -> Admission {
    let (packet, _) = packet::parse(bytes).unwrap().unwrap();
    call.handle_packet(now, packet, out)
}

fn call_connected() -> [u8; 112] {
    *binding::compute(&KEY, &NONCE, HashProtocol::Sha256, &certificate()).packet()
}

/// A server's call that has been connected at `now`, and nothing told of it.
fn connected_server(now: Instant) -> (server::Call, Collected<Event>) {
    let (mut call, mut out) = (server(), Collected::default());
    call.start(now, &mut out);
    take(&mut call, now, &message::CALL_CONNECT_REQUEST, &mut out);
    call.authenticated(now, &KEY, &mut out);
    take(&mut call, now, &call_connected(), &mut out);
    assert!(call.is_connected());
    (call, Collected::default())
}

fn echo_request() -> Vec<u8> {
    bare(MessageType::EchoRequest).to_vec()
}

/// What `client` sends goes to `server` and back, until both are silent.
fn exchange(
    server: &mut server::Call,
    client: &mut client::Call,
    from_server: &mut Collected<Event>,
    from_client: &mut Collected<Event>,
) {
    let now = Instant::ZERO;
    loop {
        let (to_server, to_client) = (
            core::mem::take(&mut from_client.sent),
            core::mem::take(&mut from_server.sent),
        );
        if to_server.is_empty() && to_client.is_empty() {
            return;
        }
        for bytes in to_server {
            server.handle_packet(now, packet::parse(&bytes).unwrap().unwrap().0, from_server);
        }
        for bytes in to_client {
            client.handle_packet(now, packet::parse(&bytes).unwrap().unwrap().0, from_client);
        }
    }
}

#[test]
fn both_roles_come_up_and_end_together() {
    let (mut server, mut client) = (server(), client());
    let (mut from_server, mut from_client) = (Collected::default(), Collected::default());
    server.start(Instant::ZERO, &mut from_server);
    client.start(Instant::ZERO, &mut from_client);
    exchange(&mut server, &mut client, &mut from_server, &mut from_client);
    client.authenticated(Instant::ZERO, &KEY, &mut from_client);
    exchange(&mut server, &mut client, &mut from_server, &mut from_client);
    assert!(client.is_connected() && !server.is_connected(), "parked");
    server.authenticated(Instant::ZERO, &KEY, &mut from_server);
    assert!(server.is_connected());
    server.disconnect(Instant::ZERO, &mut from_server);
    exchange(&mut server, &mut client, &mut from_server, &mut from_client);
    assert_eq!(server.state(), State::Closed);
    client.handle_timeout(at(1), &mut from_client);
    assert_eq!(
        from_client.events,
        [
            Event::StartPpp,
            Event::BindingSent,
            Event::Draining(CloseReason::PeerDisconnected),
            Event::Closed(CloseReason::PeerDisconnected),
        ]
    );
}

#[test]
fn two_disconnects_that_meet_are_both_acknowledged() {
    let (mut server, mut client) = (server(), client());
    let (mut from_server, mut from_client) = (Collected::default(), Collected::default());
    server.start(Instant::ZERO, &mut from_server);
    client.start(Instant::ZERO, &mut from_client);
    exchange(&mut server, &mut client, &mut from_server, &mut from_client);
    server.disconnect(Instant::ZERO, &mut from_server);
    client.disconnect(Instant::ZERO, &mut from_client);
    exchange(&mut server, &mut client, &mut from_server, &mut from_client);
    let drain = Drain::DisconnectTimeoutPending;
    assert_eq!(server.state(), State::Draining(drain));
    assert_eq!(client.state(), State::Draining(drain));
    server.handle_timeout(at(1), &mut from_server);
    let last = from_server.events.pop();
    assert_eq!(last, Some(Event::Closed(CloseReason::Disconnected)));
}

/// MS-SSTP §3.1.6.1.
#[test]
fn hello_asks_after_a_minute_and_gives_up_after_two() {
    let (mut call, mut out) = connected_server(at(100));
    assert_eq!(call.next_timeout(), Some(at(160)));
    call.handle_timeout(at(160), &mut out);
    assert_eq!(out.sent, [echo_request()]);
    assert_eq!(call.next_timeout(), Some(at(220)));
    call.handle_timeout(at(220), &mut out);
    assert_eq!(out.sent.len(), 1, "nobody would read an abort");
    assert_eq!(out.events, [Event::Closed(CloseReason::HelloTimeout)]);
    assert_eq!(call.next_timeout(), None);
}

#[test]
fn a_patient_client_echoes_as_often_as_it_may() {
    let mut config = client::Config::new(certificate());
    config.timing.hello_unanswered_max = 3;
    let (mut call, mut out) = (client::Call::new(config), Collected::default());
    call.start(at(0), &mut out);
    let ack = message::call_connect_ack(&message::BindingRequest {
        offered: HashBitmask::BOTH,
        nonce: NONCE,
    });
    call.handle_packet(at(0), packet::parse(&ack).unwrap().unwrap().0, &mut out);
    call.authenticated(at(0), &KEY, &mut out);
    let mut out = Collected::default();
    for (second, echoes) in [(60, 1), (120, 2), (150, 2), (180, 3)] {
        call.handle_timeout(at(second), &mut out);
        assert_eq!(out.sent, vec![echo_request(); echoes], "{second}");
    }
    // An answer begins the count anew.
    let answer = bare(MessageType::EchoResponse);
    call.handle_packet(
        at(200),
        packet::parse(&answer).unwrap().unwrap().0,
        &mut out,
    );
    for (second, echoes) in [(240, 3), (260, 4), (320, 5), (380, 6)] {
        call.handle_timeout(at(second), &mut out);
        assert_eq!(out.sent.len(), echoes, "{second}");
    }
    assert_eq!(out.events, []);
    call.handle_timeout(at(440), &mut out);
    assert_eq!(out.events, [Event::Closed(CloseReason::HelloTimeout)]);
}

#[test]
fn a_client_may_disconnect_without_giving_a_status() {
    for (gives_status, len) in [(true, 20), (false, 8)] {
        let mut config = client::Config::new(certificate());
        config.gives_status = gives_status;
        let (mut call, mut out) = (client::Call::new(config), Collected::default());
        call.start(at(0), &mut out);
        call.disconnect(at(0), &mut out);
        let sent = out.sent.last().unwrap();
        assert_eq!((sent.len(), &sent[4..6]), (len, &[0, 6][..]));
    }
}

#[test]
fn any_packet_restarts_hello_and_counts_as_an_answer() {
    for packet in [DATA.to_vec(), bare(MessageType::EchoResponse).to_vec()] {
        let (mut call, mut out) = connected_server(at(100));
        take(&mut call, at(130), &packet, &mut out);
        call.handle_timeout(at(160), &mut out);
        assert!(out.sent.is_empty(), "30 seconds ago");
        assert_eq!(call.next_timeout(), Some(at(190)));
        call.handle_timeout(at(190), &mut out);
        assert_eq!(out.sent, [echo_request()]);
        take(&mut call, at(200), &packet, &mut out);
        call.handle_timeout(at(250), &mut out);
        assert_eq!(
            call.next_timeout(),
            Some(at(260)),
            "60 seconds after the last"
        );
        call.handle_timeout(at(260), &mut out);
        assert_eq!(out.sent.len(), 2);
        assert!(call.is_connected() && out.events.is_empty());
    }
}

#[test]
fn hello_intervals_are_spread_by_a_tenth_at_the_most() {
    let timing = Timing::default();
    let interval = |random| timing.with_hello_jitter(random).hello_interval;
    assert_eq!(interval(0), Duration::from_secs(54));
    assert_eq!(interval(0x8000), Duration::from_secs(60));
    assert!(interval(u16::MAX) < Duration::from_secs(66));
    assert!(interval(u16::MAX) > Duration::from_millis(65_990));
    assert_eq!(
        timing.with_hello_jitter(1).request_timeout,
        timing.request_timeout
    );
}

#[test]
fn the_negotiation_timer_starts_anew_with_the_ack_and_not_with_a_nak() {
    let (mut call, mut out) = (server(), Collected::default());
    call.start(at(0), &mut out);
    take(
        &mut call,
        at(10),
        &bare(MessageType::CallConnectRequest),
        &mut out,
    );
    assert_eq!(call.next_timeout(), Some(at(60)));
    take(&mut call, at(50), &message::CALL_CONNECT_REQUEST, &mut out);
    assert_eq!(call.next_timeout(), Some(at(110)));
    take(&mut call, at(90), &call_connected(), &mut out);
    take(&mut call, at(91), DATA, &mut out);
    assert_eq!(call.next_timeout(), Some(at(110)), "nothing else moves it");
    call.handle_timeout(at(110), &mut out);
    assert_eq!(
        out.events.last(),
        Some(&Event::Draining(CloseReason::NegotiationTimeout))
    );
    assert_eq!(call.next_timeout(), Some(at(110) + ABORT_1_TIMEOUT));
}

#[test]
fn a_client_resends_three_times_and_starts_its_timer_anew_each_time() {
    let (mut call, mut out) = (client(), Collected::default());
    call.start(at(0), &mut out);
    let nak = bare(MessageType::CallConnectNak);
    let (packet, _) = packet::parse(&nak).unwrap().unwrap();
    for count in 1..=3 {
        call.handle_packet(at(count), packet, &mut out);
        assert_eq!(call.next_timeout(), Some(at(count + 60)));
    }
    assert_eq!(out.sent, vec![message::CALL_CONNECT_REQUEST.to_vec(); 4]);
    call.handle_packet(at(4), packet, &mut out);
    let reason = CloseReason::PeerRefused(None);
    assert_eq!(out.events, [Event::Draining(reason)]);
}

#[test]
fn a_server_refuses_three_times_then_aborts() {
    let (mut call, mut out) = (server(), Collected::default());
    call.start(at(0), &mut out);
    for count in 1..=4 {
        take(
            &mut call,
            at(0),
            &bare(MessageType::CallConnectRequest),
            &mut out,
        );
        assert_eq!(out.sent.len(), count);
    }
    let reason = CloseReason::PeerMisbehaved(PeerMisbehaved::TooManyRequests);
    assert_eq!(out.events, [Event::Draining(reason)]);
    assert_eq!(
        reason.status_owed(),
        Some(PeerStatus {
            attribute: AttributeId::STATUS_INFO,
            status: Status::RETRY_COUNT_EXCEEDED
        })
    );
}

#[test]
fn the_first_key_stands() {
    let (mut call, mut out) = (server(), Collected::default());
    call.start(at(0), &mut out);
    take(&mut call, at(0), &message::CALL_CONNECT_REQUEST, &mut out);
    call.authenticated(at(0), &KEY, &mut out);
    call.authenticated(at(0), &Hlak::ZERO, &mut out);
    take(&mut call, at(0), &call_connected(), &mut out);
    assert!(call.is_connected());
}

#[test]
fn the_first_cause_stands() {
    let (mut call, mut out) = connected_server(at(0));
    call.disconnect(at(0), &mut out);
    let abort = message::with_status(MessageType::CallAbort, AttributeId::NONE, Status(5));
    take(&mut call, at(1), &abort, &mut out);
    call.abort(at(1), Status(7), &mut out);
    call.handle_timeout(at(2), &mut out);
    let reason = CloseReason::Disconnected;
    assert_eq!(out.events, [Event::Draining(reason), Event::Closed(reason)]);
}

#[test]
fn a_call_that_drains_asks_for_nothing_more() {
    let (mut call, mut out) = connected_server(at(100));
    call.disconnect(at(159), &mut out);
    assert_eq!(call.next_timeout(), Some(at(164)), "no Hello at 160");
    let (mut call, mut out) = (server(), Collected::default());
    call.start(at(0), &mut out);
    call.abort(at(59), Status(5), &mut out);
    assert_eq!(call.next_timeout(), Some(at(62)), "no timeout at 60");
}

#[test]
fn what_a_peer_says_is_kept_and_shown() {
    let (mut call, mut out) = connected_server(at(0));
    let abort = message::with_status(MessageType::CallAbort, AttributeId(3), Status(0x77));
    take(&mut call, at(0), &abort, &mut out);
    let Some(Event::Draining(reason)) = out.events.first() else {
        panic!("{out:?}");
    };
    assert_eq!(
        reason.to_string(),
        "aborted by the peer: status 0x77 (attribute 3)"
    );
}

#[test]
fn echo_requests_are_answered_ten_times_a_second() {
    let (mut call, mut out) = connected_server(at(100));
    for count in 0..25 {
        let admission = take(&mut call, at(100), &echo_request(), &mut out);
        let expected = match count {
            0..10 => Admission::Control,
            _ => Admission::Drop(DropReason::EchoFlood),
        };
        assert_eq!(admission, expected);
    }
    assert_eq!(out.sent.len(), 10);
    take(&mut call, at(101), &echo_request(), &mut out);
    assert_eq!(out.sent.len(), 11);
}

#[test]
fn a_connected_call_goes_on_in_another_process() {
    let (mut call, mut out) = connected_server(at(100));
    call.handle_timeout(at(160), &mut out);
    let text = serde_json::to_string(&call.snapshot().unwrap()).unwrap();
    let snapshot: CallSnapshot = serde_json::from_str(&text).unwrap();
    let mut restored = server::Call::restore(&snapshot);
    assert_eq!(restored.snapshot(), Some(snapshot));
    let mut out = Collected::default();
    assert_eq!(
        take(&mut restored, at(170), DATA, &mut out),
        Admission::PppAll
    );
    restored.handle_timeout(at(230), &mut out);
    assert_eq!(out.sent, [echo_request()], "the silence is counted on");
    restored.handle_timeout(at(290), &mut out);
    assert_eq!(out.events, [Event::Closed(CloseReason::HelloTimeout)]);

    assert_eq!(server().snapshot(), None, "only a connected call moves");
    let restored = client::Call::restore(&snapshot);
    assert!(restored.is_connected());
}

#[test]
fn a_client_uses_the_strongest_hash_on_offer_and_allowed() {
    for (offered, allowed, used) in [
        (HashBitmask::BOTH, HashBitmask::BOTH, Some(2)),
        (HashBitmask::SHA256, HashBitmask::BOTH, Some(2)),
        (HashBitmask(0xFD), HashBitmask::BOTH, Some(1)),
        (HashBitmask::BOTH, HashBitmask::SHA1, Some(1)),
        (HashBitmask::SHA256, HashBitmask::SHA1, None),
        (HashBitmask(0xFC), HashBitmask(0xFF), None),
    ] {
        let mut config = client::Config::new(certificate());
        config.allowed = allowed;
        let (mut call, mut out) = (client::Call::new(config), Collected::default());
        call.start(at(0), &mut out);
        let ack = message::call_connect_ack(&message::BindingRequest {
            offered,
            nonce: NONCE,
        });
        let (packet, _) = packet::parse(&ack).unwrap().unwrap();
        call.handle_packet(at(0), packet, &mut out);
        call.authenticated(at(0), &KEY, &mut out);
        let hash = out.sent.iter().find(|sent| sent.len() == 112);
        assert_eq!(hash.map(|sent| sent[15]), used, "{offered:?} {allowed:?}");
    }
}

/// One thing that can happen to a server's call.
#[derive(Clone, Debug)]
enum Step {
    Bytes(Vec<u8>),
    Wait(u64),
    Authenticated(Hlak),
    Disconnect,
    Abort,
    FramingError,
}

fn step() -> impl Strategy<Value = Step> {
    let message =
        prop::sample::select(MessageType::ALL.to_vec()).prop_map(|kind| bare(kind).to_vec());
    prop_oneof![
        4 => Just(Step::Bytes(message::CALL_CONNECT_REQUEST.to_vec())),
        4 => Just(Step::Bytes(call_connected().to_vec())),
        2 => Just(Step::Bytes([&call_connected()[..111], &[0]].concat())),
        4 => Just(Step::Bytes(DATA.to_vec())),
        4 => message.prop_map(Step::Bytes),
        4 => (0_u64..70).prop_map(Step::Wait),
        3 => Just(Step::Authenticated(KEY)),
        1 => Just(Step::Authenticated(Hlak::ZERO)),
        1 => Just(Step::Disconnect),
        1 => Just(Step::Abort),
        1 => Just(Step::FramingError),
    ]
}

proptest! {
    /// Whatever happens in whatever order: network frames pass only after the one proof, the owner
    /// is told in order, and a call that is left alone comes to rest.
    #[test]
    fn auth_before_effect_in_any_order_of_events(steps in prop::collection::vec(step(), 0..40)) {
        let (mut call, mut out) = (server(), Collected::default());
        let mut now = at(1);
        call.start(now, &mut out);
        for step in steps {
            match step {
                Step::Bytes(bytes) => {
                    let admission = take(&mut call, now, &bytes, &mut out);
                    if admission == Admission::PppAll {
                        let proofs = out.events.iter().filter(|event| matches!(event, Event::Connected(_)));
                        prop_assert_eq!(proofs.count(), 1);
                        prop_assert!(call.is_connected());
                    }
                }
                Step::Wait(seconds) => {
                    now = now + Duration::from_secs(seconds);
                    call.handle_timeout(now, &mut out);
                }
                Step::Authenticated(hlak) => call.authenticated(now, &hlak, &mut out),
                Step::Disconnect => call.disconnect(now, &mut out),
                Step::Abort => call.abort(now, Status(5), &mut out),
                Step::FramingError => {
                    call.framing_error(packet::FramingError::Length(0), &mut out);
                }
            }
            if let Some(next) = call.next_timeout() {
                prop_assert!(next.saturating_since(now) <= Duration::from_secs(60));
            }
        }
        let mut expiries = 0;
        while let Some(next) = call.next_timeout() {
            call.handle_timeout(next, &mut out);
            expiries += 1;
            prop_assert!(expiries <= 4, "{:?}", call.state());
        }
        prop_assert_eq!(call.state(), State::Closed);
        let order: Vec<_> = out.events.iter().map(|event| match event {
            Event::StartPpp => 0,
            Event::Connected(_) | Event::BindingSent => 1,
            Event::Draining(_) => 2,
            Event::Closed(_) => 3,
        }).collect();
        prop_assert!(order.is_sorted_by(|a, b| a < b), "{:?}", out.events);
    }
}
