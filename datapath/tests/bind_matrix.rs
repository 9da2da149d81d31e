//! Crypto binding at a whole server session: every wrong CALL_CONNECTED is refused with the bytes
//! that the specification wants, and no user packet crosses in either direction (MS-SSTP §3.3.5.2.3).
//!
//! The client pushes user data before and after each of its steps, and so does the inside. IPCP and
//! IPV6CP are open before the binding is tried, so that nothing but the binding stands in the way.

mod raw_client;

use datapath::crypto::hlak::Hlak;
use datapath::ppp::auth::AuthMethod;
use datapath::session::event::EndReason;
use datapath::session::policy::Answer;
use datapath::sstp::binding::{CertificateHashes, HashBitmask, HashProtocol, Nonce, compute};
use datapath::testing::fixtures;
use datapath::time::Duration;
use hex_literal::hex;

use raw_client::{Client, GOLDEN_CERTIFICATE, LCP, MSCHAPV2_HLAK, NUMBER, REQUEST, settings};

const BAD_BINDING: &[u8] = &hex!("10010014000500010002000c0000000300000004");
const BAD_STATE: &[u8] = &hex!("10010014000500010002000c0000000000000005");
const MALFORMED: &[u8] = &hex!("10010014000500010002000c0000000000000007");
const TIMED_OUT: &[u8] = &hex!("10010014000500010002000c0000000000000008");
const BAD_ATTRIBUTE: &[u8] = &hex!("10010014000500010002000c0000000200000009");

/// Nonce 00…1f, the stand-in certificate, the HLAK of RFC 2759 §9.2.
const GOLDEN_SHA256: [u8; 112] = hex!(
    "10010070000400010003006800000002000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
    "40aff2e9d2d8922e47afd4648e6967497158785fbd1da870e7110266bf944880"
    "8390480f793ebf2b5b784f0f213496916121a2cd93d70b2dc4de8b2cd30ac199"
);
const GOLDEN_SHA1: [u8; 112] = hex!(
    "10010070000400010003006800000001000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
    "4916d6bdb7f78e6803698cab32d1586ea457dfc8000000000000000000000000"
    "13eceea3143d4ed4808b8939aa517c5457816753000000000000000000000000"
);
/// The MACs of the same with 32 zero bytes for an HLAK.
const ZERO_KEY_SHA256: [u8; 32] =
    hex!("275bd268612142e932a058ca946eff246888c5c043a78ef0e3434e917523100b");
const ZERO_KEY_SHA1: [u8; 32] =
    hex!("101b1a3e96be038e3380d214bd9e87bb470dd6f9000000000000000000000000");

const METHODS: [AuthMethod; 4] = [
    AuthMethod::MsChapV2,
    AuthMethod::Eap,
    AuthMethod::Pap,
    AuthMethod::ChapMd5,
];
const PROTOCOLS: [HashProtocol; 2] = [HashProtocol::Sha256, HashProtocol::Sha1];

const fn makes_key(method: AuthMethod) -> bool {
    matches!(method, AuthMethod::MsChapV2 | AuthMethod::Eap)
}

fn hlak(method: AuthMethod) -> Hlak {
    if makes_key(method) {
        MSCHAPV2_HLAK
    } else {
        Hlak::ZERO
    }
}

/// The right CALL_CONNECTED, from the worked examples.
fn golden(method: AuthMethod, protocol: HashProtocol) -> [u8; 112] {
    let (mut packet, zero_key) = match protocol {
        HashProtocol::Sha256 => (GOLDEN_SHA256, ZERO_KEY_SHA256),
        HashProtocol::Sha1 => (GOLDEN_SHA1, ZERO_KEY_SHA1),
    };
    if !makes_key(method) {
        packet[80..].copy_from_slice(&zero_key);
    }
    packet
}

const NONCE: Nonce = Nonce([
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25,
    26, 27, 28, 29, 30, 31,
]);
const CERTIFICATE: CertificateHashes = CertificateHashes {
    sha1: GOLDEN_CERTIFICATE.sha1,
    sha256: GOLDEN_CERTIFICATE.sha256,
};

/// Logged in, IPCP and IPV6CP open, data pushed all the while.
fn logged_in(method: AuthMethod) -> Client {
    let mut client = Client::up_to_verdict(method, true);
    client.accept().network();
    assert!(
        client.session.addresses().ipv4.is_some(),
        "{:?}",
        client.edge.events
    );
    assert!(client.session.addresses().ipv6_prefix.is_some());
    client
}

fn assert_nothing_crossed(client: &Client, what: &str) {
    assert!(
        client.edge.inside.is_empty(),
        "{what}: a packet reached the inside"
    );
    assert!(
        client.data.is_empty(),
        "{what}: a packet reached the client"
    );
    assert!(!client.is_up(), "{what}: came up");
    assert!(!client.session.is_up(), "{what}: is up");
}

/// The last control packet is this one, and nothing crosses afterwards, until the connection closes.
fn assert_refused(mut client: Client, abort: &[u8], reason: EndReason, what: &str) {
    assert_eq!(client.control.last().unwrap(), abort, "{what}");
    assert_nothing_crossed(&client, what);
    // Too late for the right one.
    for protocol in PROTOCOLS {
        client.say(&golden(AuthMethod::MsChapV2, protocol));
        client.say(&golden(AuthMethod::Pap, protocol));
    }
    client.say(abort);
    client.push_data();
    assert_nothing_crossed(&client, what);
    client.advance(Duration::from_secs(20));
    assert_nothing_crossed(&client, what);
    assert!(client.closed.is_some(), "{what}: still open");
    assert_eq!(client.end(), Some(reason), "{what}");
    let aborts = client
        .control
        .iter()
        .filter(|packet| packet[5] == 5)
        .count();
    assert_eq!(aborts, 1, "{what}: one CALL_ABORT and no more");
}

fn assert_up(mut client: Client, what: &str) {
    assert!(client.is_up(), "{what}: {:?}", client.edge.events);
    client.edge.inside.clear();
    client.data.clear();
    client.push_data();
    assert_eq!(
        client.edge.inside.len(),
        4,
        "{what}: {:?}",
        client.edge.drops
    );
    assert_eq!(client.data.len(), 2, "{what}");
}

/// Every wrong CALL_CONNECTED that is one in form, by name.
fn wrong_bindings(method: AuthMethod, protocol: HashProtocol) -> Vec<(String, [u8; 112])> {
    let right = golden(method, protocol);
    let (hash_len, other) = match protocol {
        HashProtocol::Sha256 => (32, HashProtocol::Sha1),
        HashProtocol::Sha1 => (20, HashProtocol::Sha256),
    };
    let mut list = Vec::new();
    let mut flips = |field: &str, bytes: std::ops::Range<usize>| {
        for at in bytes {
            for bit in 0..8 {
                let mut packet = right;
                packet[at] ^= 1 << bit;
                list.push((format!("{field}, byte {at}, bit {bit}"), packet));
            }
        }
    };
    flips("reserved", 12..15);
    flips("hash protocol", 15..16);
    flips("nonce", 16..48);
    // With SHA-1 the padding counts too: the MAC covers it.
    flips("certificate hash", 48..80);
    // Here it does not: nothing covers it.
    flips("MAC", 80..80 + hash_len);

    let key = hlak(method);
    let mut made = |name: &str, key: &Hlak, nonce: Nonce, protocol, certificate| {
        list.push((
            name.to_owned(),
            *compute(key, &nonce, protocol, &certificate).packet(),
        ));
    };
    let wrong_key = if makes_key(method) {
        Hlak::ZERO
    } else {
        MSCHAPV2_HLAK
    };
    made(
        "zero key, or a key where there is none",
        &wrong_key,
        NONCE,
        protocol,
        CERTIFICATE,
    );
    made(
        "another login's key",
        &Hlak::from_bytes([3; 32]),
        NONCE,
        protocol,
        CERTIFICATE,
    );
    made(
        "another session's nonce, MAC over it",
        &key,
        Nonce([9; 32]),
        protocol,
        CERTIFICATE,
    );
    made(
        "zero nonce, MAC over it",
        &key,
        Nonce([0; 32]),
        protocol,
        CERTIFICATE,
    );
    let elsewhere = CertificateHashes::of_der(b"the one in the middle");
    made(
        "another certificate, MAC over it",
        &key,
        NONCE,
        protocol,
        elsewhere,
    );
    let zero = CertificateHashes {
        sha1: [0; 20],
        sha256: [0; 32],
    };
    made("no certificate, MAC over it", &key, NONCE, protocol, zero);
    let crossed = CertificateHashes {
        sha1: CERTIFICATE.sha1,
        sha256: [0x49; 32],
    };
    made(
        "half of the hashes right",
        &key,
        NONCE,
        HashProtocol::Sha256,
        crossed,
    );

    let mut relayed = *compute(&key, &Nonce([9; 32]), protocol, &CERTIFICATE).packet();
    relayed[16..48].copy_from_slice(&NONCE.0);
    list.push(("MAC of another session, nonce of this".to_owned(), relayed));
    let mut truncated = right;
    truncated[80 + hash_len / 2..].fill(0);
    list.push(("half a MAC".to_owned(), truncated));
    let mut swapped = right;
    swapped[15] = other.code();
    list.push((
        "fields of one hash function, code of the other".to_owned(),
        swapped,
    ));
    let mut foreign = right;
    foreign[80..].copy_from_slice(&golden(method, other)[80..]);
    list.push(("MAC of the other hash function".to_owned(), foreign));
    let mut foreign = right;
    foreign[48..80].copy_from_slice(&golden(method, other)[48..80]);
    list.push(("certificate hash of the other function".to_owned(), foreign));
    for code in [0x00, 0x03, 0x04, 0x7f, 0xff] {
        let mut unknown = right;
        unknown[15] = code;
        list.push((format!("hash protocol {code:#04x}"), unknown));
    }
    list
}

#[test]
fn bind_matrix_right_bindings_are_accepted() {
    for method in METHODS {
        for protocol in PROTOCOLS {
            let what = format!("{method:?} {protocol:?}");
            let packet = golden(method, protocol);
            assert_eq!(
                compute(&hlak(method), &NONCE, protocol, &CERTIFICATE).packet(),
                &packet
            );

            let mut client = logged_in(method);
            assert_nothing_crossed(&client, &what);
            client.pushes = false;
            client.say(&packet);
            assert_up(client, &what);

            // The same before the network protocols.
            let mut client = Client::up_to_verdict(method, true);
            client.accept().say(&packet);
            assert_nothing_crossed(&client, &what);
            client.pushes = false;
            client.network();
            assert_up(client, &what);
        }
    }
}

#[test]
fn bind_matrix_wrong_bindings_are_refused() {
    let mut cells = 0;
    for method in METHODS {
        for protocol in PROTOCOLS {
            for (name, packet) in wrong_bindings(method, protocol) {
                let what = format!("{method:?} {protocol:?}: {name}");
                let mut client = logged_in(method);
                client.say(&packet);
                assert_refused(client, BAD_BINDING, EndReason::BindingRefused, &what);
                cells += 1;
            }
        }
    }
    println!("{cells} cells refused");
    assert!(cells >= 600);
}

#[test]
fn bind_matrix_a_parked_binding_is_checked_with_the_real_key() {
    let mut cells = 0;
    for method in METHODS {
        for protocol in PROTOCOLS {
            let what = format!("{method:?} {protocol:?} parked");
            let mut client = Client::up_to_verdict(method, true);
            client.say(&golden(method, protocol));
            assert_nothing_crossed(&client, &what);
            assert_eq!(
                client.control.len(),
                1,
                "{what}: nothing is said before the key is there"
            );
            client.accept();
            assert_nothing_crossed(&client, &what);
            client.pushes = false;
            client.network();
            assert_up(client, &what);

            for (name, packet) in wrong_bindings(method, protocol) {
                let what = format!("{what}: {name}");
                let mut client = Client::up_to_verdict(method, true);
                client.say(&packet);
                assert_nothing_crossed(&client, &what);
                client.accept();
                assert_refused(client, BAD_BINDING, EndReason::BindingRefused, &what);
                cells += 1;
            }

            let mut client = Client::up_to_verdict(method, true);
            client.say(&golden(method, protocol));
            client.say(&golden(method, protocol));
            client.accept();
            assert_refused(client, BAD_STATE, EndReason::SstpViolation, &what);
        }
    }
    println!("{cells} parked cells refused");
}

#[test]
fn bind_matrix_a_parked_binding_does_not_outlive_a_refusal() {
    for method in METHODS {
        let what = format!("{method:?} rejected");
        let mut client = Client::up_to_verdict(method, true);
        client.say(&golden(method, HashProtocol::Sha256));
        client.answer(Answer::Reject {
            error: 691,
            message: b"no".to_vec(),
            eap: None,
            refusal: datapath::session::policy::Refusal::Credentials,
        });
        let late = client.verdict.take().unwrap();
        client.answer(late);
        client.advance(Duration::from_secs(20));
        assert_nothing_crossed(&client, &what);
        assert!(client.closed.is_some(), "{what}");
        assert_eq!(
            client.end(),
            Some(EndReason::AuthenticationFailed),
            "{what}"
        );
    }
}

#[test]
fn bind_matrix_a_hash_that_was_not_offered_is_refused() {
    for method in METHODS {
        for (offered, protocol) in [
            (HashBitmask::SHA256, HashProtocol::Sha1),
            (HashBitmask::SHA1, HashProtocol::Sha256),
        ] {
            let mut config = settings(method);
            config.offered = offered;
            let mut client = Client::new(config);
            client.pushes = true;
            client
                .shake_hands()
                .http()
                .call()
                .lcp()
                .prove(method)
                .accept()
                .network();
            assert_eq!(client.control[0][15], offered.0);
            client.say(&golden(method, protocol));
            let what = format!("{method:?}: {protocol:?} not offered");
            assert_refused(client, BAD_BINDING, EndReason::BindingRefused, &what);
        }
    }
}

#[test]
fn bind_matrix_wrong_attributes_are_refused() {
    let right = GOLDEN_SHA256;
    let body = &right[8..];
    let packet = |count: u8, attributes: &[&[u8]]| {
        let attributes = attributes.concat();
        let [high, low] = u16::try_from(attributes.len() + 8).unwrap().to_be_bytes();
        [&[0x10, 0x01, high, low, 0, 4, 0, count], &attributes[..]].concat()
    };
    let status = |status: u8| {
        let mut info = hex!("0002000c0000000000000000");
        info[11] = status;
        info
    };
    let mut short = body.to_vec();
    short[3] = 103;
    short.pop();
    let mut long = body.to_vec();
    long[3] = 105;
    long.push(0);
    let mut lies = body.to_vec();
    lies[3] = 103;
    let mut foreign = body.to_vec();
    foreign[1] = 4;
    let cases: [(&str, Vec<u8>, &[u8]); 13] = [
        ("no attribute", packet(0, &[]), BAD_ATTRIBUTE),
        ("length 103", packet(1, &[&short]), BAD_ATTRIBUTE),
        ("length 105", packet(1, &[&long]), BAD_ATTRIBUTE),
        (
            "only the header",
            packet(1, &[&hex!("00030004")]),
            BAD_ATTRIBUTE,
        ),
        ("another attribute", packet(1, &[&foreign]), BAD_ATTRIBUTE),
        ("Status Info alone", packet(1, &[&status(0)]), BAD_ATTRIBUTE),
        (
            "Status Info not 0 behind",
            packet(2, &[body, &status(4)]),
            BAD_ATTRIBUTE,
        ),
        (
            "Status Info not 0 before",
            packet(2, &[&status(4), body]),
            BAD_ATTRIBUTE,
        ),
        (
            "twice in one message",
            packet(2, &[body, body]),
            BAD_ATTRIBUTE,
        ),
        (
            "length 103 and a byte left over",
            packet(1, &[&lies]),
            MALFORMED,
        ),
        ("behind the count", packet(0, &[body]), MALFORMED),
        (
            "more announced than there is",
            packet(2, &[body]),
            MALFORMED,
        ),
        (
            "attribute length 3",
            packet(1, &[&hex!("00030003")]),
            MALFORMED,
        ),
    ];
    for (name, packet, abort) in cases {
        for method in METHODS {
            let what = format!("{method:?}: {name}");
            let mut client = logged_in(method);
            client.say(&packet);
            assert_refused(client, abort, EndReason::SstpViolation, &what);

            let what = format!("{what}, before the verdict");
            let mut client = Client::up_to_verdict(method, true);
            client.say(&packet);
            client.accept();
            assert_refused(client, abort, EndReason::SstpViolation, &what);
        }
    }
}

#[test]
fn bind_matrix_no_single_bit_of_the_packet_may_differ() {
    // The first twelve bytes are framing: what comes of them differs, but never a session.
    for method in [AuthMethod::MsChapV2, AuthMethod::Pap] {
        for at in 0..12 {
            for bit in 0..8 {
                let what = format!("{method:?}: byte {at}, bit {bit}");
                let mut packet = golden(method, HashProtocol::Sha256);
                packet[at] ^= 1 << bit;
                let mut client = logged_in(method);
                client.say(&packet);
                assert_nothing_crossed(&client, &what);
                client.advance(Duration::from_secs(80));
                client.push_data();
                assert_nothing_crossed(&client, &what);
                assert!(client.closed.is_some(), "{what}: still open");
            }
        }
    }
}

#[test]
fn bind_matrix_never_sent() {
    for method in METHODS {
        let what = format!("{method:?} never bound");
        let mut client = logged_in(method);
        for _ in 0..59 {
            client.advance(Duration::from_millis(1_000));
            client.push_data();
            // An echo is no binding either.
            client.say(&hex!("1001000800080000"));
            assert_nothing_crossed(&client, &what);
        }
        client.advance(Duration::from_millis(1_000));
        assert_refused(client, TIMED_OUT, EndReason::SetupTimeout, &what);
    }
}

#[test]
fn bind_matrix_twice() {
    for method in METHODS {
        let what = format!("{method:?} twice");
        let mut client = logged_in(method);
        client.pushes = false;
        client.send(&golden(method, HashProtocol::Sha256));
        assert!(client.session.is_up(), "{what}");
        client.send(&golden(method, HashProtocol::Sha256));
        assert_eq!(client.control.last().unwrap(), BAD_STATE, "{what}");
        client.edge.inside.clear();
        client.data.clear();
        client.push_data();
        assert!(
            client.edge.inside.is_empty(),
            "{what}: data after CALL_ABORT"
        );
        assert!(client.data.is_empty(), "{what}: data after CALL_ABORT");
        client.advance(Duration::from_secs(20));
        assert!(client.closed.is_some(), "{what}");
        assert_eq!(client.end(), Some(EndReason::SstpViolation), "{what}");
    }
}

#[test]
fn bind_matrix_before_the_call_or_the_login() {
    let right = GOLDEN_SHA256;
    // Before CALL_CONNECT_REQUEST.
    let mut client = Client::new(settings(AuthMethod::MsChapV2));
    client.pushes = true;
    client.shake_hands().http();
    client.say(&right);
    client.say(&REQUEST);
    assert_refused(
        client,
        BAD_STATE,
        EndReason::SstpViolation,
        "before the request",
    );

    // Before LCP, before the proof: parked, and of no use without a login.
    for steps in 0..2 {
        let what = format!("parked {steps} steps into PPP, never logged in");
        let mut client = Client::new(settings(AuthMethod::MsChapV2));
        client.pushes = true;
        client.shake_hands().http().call();
        if steps > 0 {
            client.lcp();
        }
        client.say(&right);
        client.network();
        assert_nothing_crossed(&client, &what);
        client.advance(Duration::from_secs(100));
        assert_nothing_crossed(&client, &what);
        assert!(client.closed.is_some(), "{what}");
    }
}

#[test]
fn bind_matrix_an_answer_that_comes_late_or_twice() {
    for method in METHODS {
        let what = format!("{method:?} late");
        // After the binding's deadline.
        let mut client = Client::up_to_verdict(method, true);
        client.say(&golden(method, HashProtocol::Sha256));
        client.advance(Duration::from_secs(61));
        client.accept().network();
        assert_nothing_crossed(&client, &what);
        client.advance(Duration::from_secs(20));
        assert!(client.closed.is_some(), "{what}");
        assert_eq!(client.end(), Some(EndReason::SetupTimeout), "{what}");

        // After the call is aborted.
        let mut client = Client::up_to_verdict(method, true);
        client.say(&golden(method, HashProtocol::Sha256));
        client.say(&golden(method, HashProtocol::Sha256));
        client.accept().network();
        assert_refused(client, BAD_STATE, EndReason::SstpViolation, &what);

        // Twice, the second time with another key: the first stands, and only it.
        let mut client = Client::up_to_verdict(method, true);
        client.accept();
        client.answer(Answer::Accept {
            hlak: Hlak::from_bytes([3; 32]),
            message: Vec::new(),
            policy: Box::new(fixtures::policy(NUMBER + 1)),
        });
        client.network();
        client.say(
            compute(
                &Hlak::from_bytes([3; 32]),
                &NONCE,
                HashProtocol::Sha256,
                &CERTIFICATE,
            )
            .packet(),
        );
        assert_refused(client, BAD_BINDING, EndReason::BindingRefused, &what);
    }
}

#[test]
fn bind_matrix_nobody_else_logs_in_behind_a_binding() {
    // A relay that logs in as itself, binds, and then starts over with its victim's proof.
    for bound in [false, true] {
        let what = format!("second login, bound: {bound}");
        let mut client = logged_in(AuthMethod::MsChapV2);
        client.pushes = false;
        if bound {
            client.send(&GOLDEN_SHA256);
            assert!(client.session.is_up());
        }
        client.frame(LCP, &hex!("0105000a0506a1b2c3d5"));
        client.edge.inside.clear();
        client.data.clear();
        client.push_data();
        client.advance(Duration::from_secs(1));
        assert!(client.edge.questions.is_empty(), "{what}: asked again");
        client.say(&GOLDEN_SHA256);
        client.push_data();
        assert!(client.edge.inside.is_empty(), "{what}: data crossed");
        assert!(client.data.is_empty(), "{what}: data crossed");
        client.advance(Duration::from_secs(30));
        assert!(client.closed.is_some(), "{what}");
    }
}

#[test]
fn bind_matrix_nonces_differ_from_session_to_session() {
    let profile = std::sync::Arc::new(datapath::tls::ClientProfile::null());
    let mut nonces = std::collections::HashSet::new();
    for seed in 0..100 {
        let mut client = Client::with(settings(AuthMethod::MsChapV2), &profile, false, seed);
        client.shake_hands().http().call();
        assert!(nonces.insert(client.nonce()));
    }
}
