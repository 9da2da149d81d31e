//! RFC 8448 §3 ("Simple 1-RTT Handshake") byte for byte, and what no well-behaved peer can show.

use hex_literal::hex;
use proptest::prelude::*;
use zeroize::Zeroizing;

use super::*;
use crate::tls::record_len;

const CLIENT_SECRET: [u8; 32] =
    hex!("9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5");
const CLIENT_KEY: [u8; 16] = hex!("17422dda596ed5d9acd890e3c63f5051");
const CLIENT_IV: [u8; 12] = hex!("5b78923dee08579033e523d9");
const SERVER_SECRET: [u8; 32] =
    hex!("a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643");
const SERVER_KEY: [u8; 16] = hex!("9f02283b6c9c07efc26bb9f2ac92e356");
const SERVER_IV: [u8; 12] = hex!("cf782b88dd83549aadf1e984");

const CLIENT_DATA: [u8; 72] = hex!(
    "1703030043 a23f7054b62c94d0affafe8228ba55cbefacea42f914aa66bcab3f2b9819a8a5b46b395bd54a9a"
    "20441e2b62974e1f5a6292a2977014bd1e3deae63aeebb21694915e4"
);
const CLIENT_CLOSE: [u8; 24] = hex!("1703030013 c9872760655666b74d7ff1153efd6db6d0b0e3");
const SERVER_DATA: [u8; 72] = hex!(
    "1703030043 2e937e11ef4ac740e538ad36005fc4a46932fc3225d05f82aa1b36e30efaf97d90e6dffc602dcb"
    "501a59a8fcc49c4bf2e5f0a21c0047c2abf332540dd032e167c2955d"
);
const SERVER_CLOSE: [u8; 24] = hex!("1703030013 b58fd67166ebf599d24720cfbe7efa7a8864a9");

fn keys(secret: [u8; 32], key: [u8; 16], iv: [u8; 12]) -> Keys {
    let secret = Some(Zeroizing::new(secret.to_vec()));
    Keys::from_parts(Suite::Aes128Gcm, &key, &iv, secret).expect("keys follow from the secret")
}

fn layer(role: Role, client_seq: u64, server_seq: u64, key_budget: Option<u64>) -> RecordLayer {
    let client = (client_seq, keys(CLIENT_SECRET, CLIENT_KEY, CLIENT_IV));
    let server = (server_seq, keys(SERVER_SECRET, SERVER_KEY, SERVER_IV));
    let (tx, rx) = match role {
        Role::Client => (client, server),
        Role::Server => (server, client),
    };
    RecordLayer::new(role, Version::Tls13, tx, rx, key_budget).unwrap()
}

fn tls12(role: Role, suite: Suite) -> RecordLayer {
    let key = |byte: u8| {
        Keys::from_parts(suite, &vec![byte; suite.key_len()], &[byte; 12], None).unwrap()
    };
    let (tx, rx) = match role {
        Role::Client => (key(1), key(2)),
        Role::Server => (key(2), key(1)),
    };
    RecordLayer::new(role, Version::Tls12, (1, tx), (1, rx), None).unwrap()
}

fn pair() -> (RecordLayer, RecordLayer) {
    (
        layer(Role::Client, 0, 0, None),
        layer(Role::Server, 0, 0, None),
    )
}

fn sealed(layer: &mut RecordLayer, content_type: ContentType, plaintext: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    layer.push(content_type, plaintext, &mut out).unwrap();
    out
}

/// Seals whatever it is given as the inner plaintext of TLS 1.3.
fn sealed_raw(layer: &mut RecordLayer, inner: &[u8]) -> Vec<u8> {
    let len = u16::try_from(inner.len() + TAG_LEN).unwrap().to_be_bytes();
    let header = [23, 3, 3, len[0], len[1]];
    let mut body = inner.to_vec();
    let nonce = Nonce::assume_unique_for_key(layer.tx.nonce());
    let cipher = &layer.tx.cipher;
    let tag = cipher
        .seal_in_place_separate_tag(nonce, Aad::from(&header), &mut body)
        .unwrap();
    layer.tx.count(inner.len());
    [&header[..], &body, tag.as_ref()].concat()
}

#[test]
fn the_records_of_rfc_8448_are_made_and_read() {
    let plaintext: Vec<u8> = (0..50).collect();
    // The server's number 0 was its ticket.
    let mut client = layer(Role::Client, 0, 1, None);
    let mut record = [&[0; 5][..], &plaintext, &[0; 17]].concat();
    assert_eq!(client.seal(&mut record, 50), Ok(72));
    assert_eq!(record, CLIENT_DATA);
    let mut out = Vec::new();
    client.close_notify(&mut out);
    assert_eq!(out, CLIENT_CLOSE);
    assert_eq!(client.seal(&mut record, 50), Err(Error::Closed));
    assert!(
        matches!(client.open(&mut SERVER_DATA.clone()), Ok(Opened::Data(data)) if data == plaintext)
    );
    assert_eq!(client.open(&mut SERVER_CLOSE.clone()), Ok(Opened::Closed));

    let mut server = layer(Role::Server, 0, 1, None);
    assert!(
        matches!(server.open(&mut CLIENT_DATA.clone()), Ok(Opened::Data(data)) if data == plaintext)
    );
    assert_eq!(server.open(&mut CLIENT_CLOSE.clone()), Ok(Opened::Closed));
    assert_eq!(
        server.open(&mut [0; 9]),
        Ok(Opened::Closed),
        "what follows is ignored"
    );
    let mut record = [&[0; 5][..], &plaintext, &[0; 17]].concat();
    assert_eq!(server.seal(&mut record, 50), Ok(72));
    assert_eq!(record, SERVER_DATA);
    server.close_notify(&mut out);
    assert_eq!(out[CLIENT_CLOSE.len()..], SERVER_CLOSE);
}

#[test]
fn the_nonce_is_the_iv_xor_the_number() {
    let half = |seq| {
        Half::new(
            keys(CLIENT_SECRET, CLIENT_KEY, CLIENT_IV),
            seq,
            Used::default(),
        )
    };
    assert_eq!(half(0).unwrap().nonce(), CLIENT_IV);
    assert_eq!(half(1).unwrap().nonce(), hex!("5b78923dee08579033e523d8"));
    assert_eq!(
        half(0x0102_0304_0506_0708).unwrap().nonce(),
        hex!("5b78923def0a549436e324d1")
    );
}

#[test]
fn padding_is_stripped_and_record_types_are_found_behind_it() {
    let (mut client, mut server) = pair();
    for padding in [0, 1, 255, 4000] {
        let inner = [&b"data\0"[..], &[23], &vec![0; padding]].concat();
        let mut record = sealed_raw(&mut client, &inner);
        assert!(matches!(server.open(&mut record), Ok(Opened::Data(data)) if data == b"data\0"));
    }
    let mut record = sealed_raw(&mut client, &[&[1, 0, 21][..], &[0; 64]].concat());
    assert_eq!(server.open(&mut record), Ok(Opened::Closed));
}

/// What `server` makes of the record that `make` forges, and the alert it then owes.
fn refusal(make: impl FnOnce(&mut RecordLayer) -> Vec<u8>) -> (Error, Option<u8>) {
    let (mut client, mut server) = pair();
    let mut record = make(&mut client);
    let error = server.open(&mut record).expect_err("refused");
    assert_eq!(server.seal(&mut [0; 100], 1), Err(Error::Closed));
    assert_eq!(server.open(&mut record), Err(Error::Closed));
    let mut out = Vec::new();
    server.pending_output(&mut out);
    let alert = (!out.is_empty()).then(|| match client.open(&mut out) {
        Err(Error::AlertReceived(alert)) => alert,
        other => panic!("{other:?} is no alert"),
    });
    let mut again = Vec::new();
    server.pending_output(&mut again);
    assert!(again.is_empty(), "an alert is sent once");
    (error, alert)
}

#[test]
fn what_tls_1_3_forbids_is_refused_with_the_right_alert() {
    let full = |extra: usize| [&vec![7; PLAINTEXT_LEN_MAX + extra][..], &[23]].concat();
    assert_eq!(refusal(|c| sealed_raw(c, &full(1))).1, Some(22));
    assert_eq!(
        refusal(|c| sealed_raw(c, &[0; 40])).1,
        Some(10),
        "padding alone"
    );
    assert_eq!(
        refusal(|c| sealed_raw(c, &[])).1,
        Some(10),
        "not even a type"
    );
    assert_eq!(
        refusal(|c| sealed_raw(c, &[1, 20])).1,
        Some(10),
        "inner ChangeCipherSpec"
    );
    assert_eq!(
        refusal(|c| sealed_raw(c, &[1, 99])).1,
        Some(10),
        "unknown inner type"
    );
    assert_eq!(
        refusal(|c| sealed_raw(c, &[22])).1,
        Some(10),
        "empty handshake record"
    );
    assert_eq!(refusal(|c| sealed_raw(c, &[21])).1, Some(50), "empty alert");
    assert_eq!(
        refusal(|c| sealed_raw(c, &[1, 0, 0, 21])).1,
        Some(50),
        "two alerts"
    );
    assert_eq!(
        refusal(|c| sealed_raw(c, &[1, 0, 0, 0, 22])).1,
        Some(10),
        "ClientHello"
    );
    assert_eq!(
        refusal(|_| vec![20, 3, 3, 0, 1, 1]).1,
        Some(10),
        "ChangeCipherSpec"
    );
    assert_eq!(
        refusal(|_| vec![21, 3, 3, 0, 2, 2, 40]).1,
        Some(10),
        "unprotected alert"
    );
    assert_eq!(
        refusal(|_| vec![22, 3, 3, 0, 4, 0, 0, 0, 0]).1,
        Some(10),
        "unprotected"
    );
    assert_eq!(refusal(|_| vec![23, 3, 3, 0, 0]).1, Some(20), "nothing");
    assert_eq!(
        refusal(|_| vec![23, 3, 3, 0, 3, 1, 2, 3]).1,
        Some(20),
        "shorter than a tag"
    );
    assert_eq!(
        refusal(|_| vec![23, 3, 1, 0, 1, 1]).1,
        Some(50),
        "another version"
    );
    assert_eq!(
        refusal(|_| vec![24, 3, 3, 0, 1, 1]).1,
        Some(50),
        "another type"
    );
    assert_eq!(
        refusal(|_| vec![23, 3, 3, 0x41, 0x01, 1]).1,
        Some(22),
        "header over the limit"
    );
    assert_eq!(
        refusal(|c| sealed_raw(c, &[2, 40, 21])),
        (Error::AlertReceived(40), None)
    );
    assert_eq!(
        refusal(|_| vec![23, 3, 3, 0, 9, 1]),
        (Error::Room, None),
        "not whole"
    );
}

#[test]
fn the_largest_padded_record_is_read() {
    let (mut client, mut server) = pair();
    let inner = [&vec![7; PLAINTEXT_LEN_MAX][..], &[23]].concat();
    let mut record = sealed_raw(&mut client, &inner);
    assert!(
        matches!(server.open(&mut record), Ok(Opened::Data(d)) if d.len() == PLAINTEXT_LEN_MAX)
    );
    let inner = [&[7, 23][..], &vec![0; PLAINTEXT_LEN_MAX - 1]].concat();
    let mut record = sealed_raw(&mut client, &inner);
    assert_eq!(server.open(&mut record), Ok(Opened::Data(&mut [7])));
}

#[test]
fn every_changed_bit_of_a_record_is_noticed() {
    let layers: [fn(Role) -> RecordLayer; 4] = [
        |role| layer(role, 0, 0, None),
        |role| tls12(role, Suite::Aes128Gcm),
        |role| tls12(role, Suite::Aes256Gcm),
        |role| tls12(role, Suite::ChaCha20Poly1305),
    ];
    for make in layers {
        let record = sealed(
            &mut make(Role::Client),
            ContentType::ApplicationData,
            b"packet",
        );
        let mut whole = record.clone();
        assert!(matches!(
            make(Role::Server).open(&mut whole),
            Ok(Opened::Data(_))
        ));
        for bit in 0..record.len() * 8 {
            let mut changed = record.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(make(Role::Server).open(&mut changed).is_err(), "bit {bit}");
        }
        for len in 0..record.len() {
            assert!(
                make(Role::Server)
                    .open(&mut record[..len].to_vec())
                    .is_err(),
                "cut at {len}"
            );
        }
        let mut reflected = record.clone();
        assert!(
            make(Role::Client).open(&mut reflected).is_err(),
            "own record"
        );
        let mut server = make(Role::Server);
        server.open(&mut record.clone()).unwrap();
        assert_eq!(
            server.open(&mut record.clone()),
            Err(Error::BadRecord),
            "repeated"
        );
    }
}

#[test]
fn records_without_data_are_bounded_and_data_restores_the_bound() {
    let kinds: [&[u8]; 3] = [&[23], &[24, 0, 0, 1, 0, 22], &[1, 90, 21]];
    for kind in kinds {
        let (mut client, mut server) = pair();
        for round in 0..3 {
            for n in 0..CONTROL_RECORDS_MAX {
                let mut record = sealed_raw(&mut client, kind);
                assert_eq!(server.open(&mut record), Ok(Opened::Handled), "{round} {n}");
                if kind.len() == 6 {
                    client.tx.update().unwrap();
                }
            }
            if round < 2 {
                let mut record = sealed_raw(&mut client, &[9, 23]);
                assert!(matches!(server.open(&mut record), Ok(Opened::Data(_))));
            }
        }
        let mut record = sealed_raw(&mut client, kind);
        assert_eq!(
            server.open(&mut record),
            Err(Error::Exhausted(Limit::ControlRecords))
        );
    }
}

#[test]
fn nothing_may_come_between_the_parts_of_a_message() {
    let (mut client, mut server) = pair();
    let mut record = sealed_raw(&mut client, &[24, 0, 22]);
    assert_eq!(server.open(&mut record), Ok(Opened::Handled));
    let mut record = sealed_raw(&mut client, &[1, 23]);
    assert!(matches!(
        server.open(&mut record),
        Err(Error::PeerMisbehaved(_))
    ));
}

#[test]
fn many_requests_to_change_keys_are_answered_once() {
    let (mut client, mut server) = pair();
    for _ in 0..3 {
        let mut out = Vec::new();
        client.update_keys(&mut out).unwrap();
        assert_eq!(server.open(&mut out), Ok(Opened::Handled));
    }
    let mut out = Vec::new();
    server.pending_output(&mut out);
    assert_eq!(record_len(&out), Ok(Some(out.len())), "one record");
    assert_eq!(client.open(&mut out), Ok(Opened::Handled));
    assert!(!client.has_pending_output(), "the answer asks for none");
    let mut record = sealed(&mut server, ContentType::ApplicationData, b"new keys");
    assert!(matches!(client.open(&mut record), Ok(Opened::Data(_))));
    assert_eq!(
        (client.budget().key_updates, server.budget().key_updates),
        (3, 1)
    );
}

#[test]
fn tls_1_2_refuses_to_shake_hands_again_and_goes_on() {
    for suite in [Suite::Aes128Gcm, Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
        let (mut client, mut server) = (tls12(Role::Client, suite), tls12(Role::Server, suite));
        let mut record = sealed(&mut client, ContentType::Handshake, &[1, 0, 0, 3, 3, 3, 0]);
        assert_eq!(server.open(&mut record), Ok(Opened::Handled));
        let mut record = sealed(&mut server, ContentType::Handshake, &[0, 0, 0, 0]);
        assert_eq!(client.open(&mut record), Ok(Opened::Handled));
        let refuse = |from: &mut RecordLayer, to: &mut RecordLayer| {
            let mut out = Vec::new();
            from.pending_output(&mut out);
            assert_eq!(
                to.open(&mut out),
                Ok(Opened::Handled),
                "a warning: no_renegotiation"
            );
            let mut record = sealed(from, ContentType::ApplicationData, b"on");
            assert!(matches!(to.open(&mut record), Ok(Opened::Data(_))));
        };
        refuse(&mut server, &mut client);
        refuse(&mut client, &mut server);
        let mut record = sealed(&mut client, ContentType::ChangeCipherSpec, &[1]);
        assert!(matches!(
            server.open(&mut record),
            Err(Error::PeerMisbehaved(_))
        ));
    }
}

#[test]
fn numbers_end_before_they_wrap() {
    let mut client = layer(Role::Client, u64::MAX - 1, u64::MAX - 1, None);
    let mut server = layer(Role::Server, u64::MAX - 1, u64::MAX - 1, None);
    let mut record = sealed(&mut client, ContentType::ApplicationData, b"last");
    assert!(matches!(server.open(&mut record), Ok(Opened::Data(_))));
    let exhausted = Err(Error::Exhausted(Limit::SequenceNumbers));
    assert_eq!(client.seal(&mut [0; 100], 1), exhausted);
    assert_eq!(server.open(&mut CLIENT_CLOSE.clone()).map(|_| 0), exhausted);
}

#[test]
fn the_callers_mistakes_harm_nothing() {
    let (mut client, mut server) = pair();
    assert_eq!(client.seal(&mut [0; 100], 0), Err(Error::Room));
    assert_eq!(client.seal(&mut [0; 22], 1), Err(Error::Room));
    assert_eq!(
        client.seal(&mut [0; 20_000], PLAINTEXT_LEN_MAX + 1),
        Err(Error::Room)
    );
    let mut record = sealed(&mut client, ContentType::ApplicationData, b"fine");
    assert!(matches!(server.open(&mut record), Ok(Opened::Data(_))));
}

#[test]
fn a_layer_that_lives_long_announces_its_end_in_tls_1_2() {
    let suite = Suite::Aes128Gcm;
    let key = || Keys::from_parts(suite, &[1; 16], &[1; 12], None).unwrap();
    let mut layer = RecordLayer::new(
        Role::Client,
        Version::Tls12,
        (1, key()),
        (1, key()),
        Some(1600),
    )
    .unwrap();
    let (mut near, mut records) = (0, 0);
    let mut record = [0; 200];
    while layer.seal(&mut record, 100).is_ok() {
        records += 1;
        near += u32::from(layer.budget().is_near());
        assert!(layer.budget().sealed.blocks <= 1600);
    }
    // 100 bytes are seven blocks, and two for the record.
    assert_eq!((records, near), (1600 / 9, 11));
    assert_eq!(layer.seal(&mut record, 100), Err(Error::KeyBudgetSpent));
    assert!(
        !layer.has_pending_output(),
        "there is no KeyUpdate to wait for"
    );
    let mut out = Vec::new();
    layer.close_notify(&mut out);
    assert!(!out.is_empty(), "it can still be closed properly");
}

proptest! {
    #[test]
    fn no_bytes_do_worse_than_end_the_connection(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        header in any::<bool>(),
    ) {
        let tls12_pair = || {
            let suite = Suite::Aes128Gcm;
            (tls12(Role::Client, suite), tls12(Role::Server, suite))
        };
        for make in [pair, tls12_pair] {
            let (_, mut server) = make();
            let mut record = bytes.clone();
            if header && record.len() >= HEADER_LEN {
                let len = u16::try_from(record.len() - HEADER_LEN).unwrap().to_be_bytes();
                record[..HEADER_LEN].copy_from_slice(&[23, 3, 3, len[0], len[1]]);
            }
            prop_assert!(server.open(&mut record).is_err());
        }
    }

    #[test]
    fn no_sequence_of_plaintexts_does_worse_than_end_the_connection(
        inners in proptest::collection::vec(
            (proptest::collection::vec(0..30_u8, 0..12), 20..24_u8), 0..40),
        client_is_asked in any::<bool>(),
    ) {
        let (mut client, mut server) = pair();
        let (from, to) = if client_is_asked {
            (&mut server, &mut client)
        } else {
            (&mut client, &mut server)
        };
        for (mut inner, content_type) in inners {
            inner.push(content_type);
            let mut record = sealed_raw(from, &inner);
            if to.open(&mut record).is_err() {
                break;
            }
            let mut out = Vec::new();
            to.pending_output(&mut out);
            prop_assert!(out.len() < 200);
        }
        let mut out = Vec::new();
        to.close_notify(&mut out);
    }
}
