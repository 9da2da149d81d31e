//! Our record layer against rustls' own connection, in every combination of version, suite and role.

mod tls_support;

use datapath::tls::{
    CONTROL_RECORDS_MAX, Error, Opened, RecordLayerKind, Role, Version, record_len,
};
use tls_support::*;

const EDGES: [usize; 9] = [1, 2, 15, 16, 17, 1400, 8192, 16383, 16384];
const KINDS: [RecordLayerKind; 2] = [RecordLayerKind::Own, RecordLayerKind::Rustls];
const ROLES: [Role; 2] = [Role::Client, Role::Server];

#[test]
fn data_passes_both_ways() {
    let pki = Pki::new();
    for (version, suite) in MATRIX {
        for kind in KINDS {
            for role in ROLES {
                let options = only(version, suite, kind);
                let (own, mut peer) = own_against_rustls(&pki, role, &options);
                assert_eq!((own.info.version, own.info.suite), (version, suite));
                let mut connection = own.connection;
                let mut stream = own.rest;
                open_all(&mut connection, &mut stream).unwrap();
                for len in EDGES {
                    let plaintext = pattern(len);
                    let record = seal(&mut connection, &plaintext);
                    assert_eq!(peer.read(&record).unwrap(), plaintext, "{options:?} {len}");
                    stream.extend(peer.write(&plaintext));
                    let heard = open_all(&mut connection, &mut stream).unwrap();
                    assert_eq!(heard.data, plaintext, "{options:?} {len}");
                }
            }
        }
    }
}

#[test]
fn many_records_of_the_peer_in_one_stream_cut_anywhere() {
    let pki = Pki::new();
    for (version, suite) in MATRIX {
        let options = only(version, suite, RecordLayerKind::Own);
        let (own, mut peer) = own_against_rustls(&pki, Role::Server, &options);
        let mut connection = own.connection;
        let plaintext = pattern(40_000);
        let sent = peer.write(&plaintext);
        let (mut stream, mut data) = (Vec::new(), Vec::new());
        for byte in sent {
            stream.push(byte);
            data.extend(open_all(&mut connection, &mut stream).unwrap().data);
        }
        assert!(data == plaintext && stream.is_empty());
        for len in [5, 6, 7, 30] {
            let record = seal(&mut connection, &pattern(len));
            for cut in 0..record.len() {
                let len = record_len(&record[..cut]).unwrap();
                assert_eq!(len, (cut >= 5).then_some(record.len()));
            }
            for byte in &record[..record.len() - 1] {
                assert!(peer.read(&[*byte]).unwrap().is_empty());
            }
            assert_eq!(
                peer.read(&record[record.len() - 1..]).unwrap(),
                pattern(len)
            );
        }
    }
}

#[test]
fn keys_change_from_either_side_with_data_around_it() {
    let pki = Pki::new();
    for (_, suite) in MATRIX.into_iter().take(3) {
        for kind in KINDS {
            for role in ROLES {
                let options = only(Version::Tls13, suite, kind);
                let (own, mut peer) = own_against_rustls(&pki, role, &options);
                let (mut connection, mut stream) = (own.connection, own.rest);
                open_all(&mut connection, &mut stream).unwrap();
                for round in 0..5_u8 {
                    // Ours: the peer is asked too, and answers with its next write.
                    let mut sent = seal(&mut connection, b"before");
                    connection.update_keys(&mut sent).unwrap();
                    sent.extend(seal(&mut connection, b"after"));
                    assert_eq!(peer.read(&sent).unwrap(), b"beforeafter", "{round}");
                    stream.extend(peer.write(b"answer"));
                    let heard = open_all(&mut connection, &mut stream).unwrap();
                    assert_eq!((&heard.data[..], heard.handled), (&b"answer"[..], 1));
                    assert!(!connection.has_pending_output());

                    // The peer's: we are asked too.
                    peer.0.refresh_traffic_keys().unwrap();
                    stream.extend(peer.write(b"new"));
                    let heard = open_all(&mut connection, &mut stream).unwrap();
                    assert_eq!((&heard.data[..], heard.handled), (&b"new"[..], 1));
                    assert!(connection.has_pending_output());
                    let mut sent = pending(&mut connection);
                    assert!(!sent.is_empty());
                    sent.extend(seal(&mut connection, b"new too"));
                    assert_eq!(peer.read(&sent).unwrap(), b"new too");
                    assert!(peer.flush().is_empty());
                }
                let updates = connection.budget().key_updates;
                assert!(updates >= 5, "{updates}");
            }
        }
    }
}

#[test]
fn closing_is_heard_on_both_ends() {
    let pki = Pki::new();
    for (version, suite) in MATRIX {
        for kind in KINDS {
            for role in ROLES {
                let options = only(version, suite, kind);
                let (own, mut peer) = own_against_rustls(&pki, role, &options);
                let (mut connection, mut stream) = (own.connection, own.rest);
                open_all(&mut connection, &mut stream).unwrap();

                peer.0.send_close_notify();
                stream.extend(peer.flush());
                assert!(open_all(&mut connection, &mut stream).unwrap().closed);
                // Half-closed: we may still send.
                let mut out = seal(&mut connection, b"last");
                connection.close_notify(&mut out);
                connection.close_notify(&mut out);
                assert_eq!(peer.read(&out).unwrap(), b"last");
                let state = peer.0.process_new_packets().unwrap();
                assert!(state.peer_has_closed());
                assert_eq!(connection.seal(&mut [0; 100], 1), Err(Error::Closed));
                assert_eq!(connection.update_keys(&mut out), Err(Error::Closed));
                assert!(connection.export().is_none());
            }
        }
    }
}

#[test]
fn a_tampered_record_ends_the_connection_with_bad_record_mac() {
    let pki = Pki::new();
    for (version, suite) in MATRIX {
        for kind in KINDS {
            for role in ROLES {
                let options = only(version, suite, kind);
                // Towards us.
                let (own, mut peer) = own_against_rustls(&pki, role, &options);
                let (mut connection, mut stream) = (own.connection, own.rest);
                open_all(&mut connection, &mut stream).unwrap();
                let mut record = peer.write(b"packet");
                *record.last_mut().unwrap() ^= 1;
                assert_eq!(connection.open(&mut record), Err(Error::BadRecord));
                assert_eq!(connection.seal(&mut [0; 100], 1), Err(Error::Closed));
                let alert = pending(&mut connection);
                let heard = peer.read(&alert);
                let bad_mac = rustls::AlertDescription::BadRecordMac;
                assert_eq!(heard, Err(rustls::Error::AlertReceived(bad_mac)));

                // Towards the peer: its alert reaches us.
                let (own, mut peer) = own_against_rustls(&pki, role, &options);
                let (mut connection, mut stream) = (own.connection, own.rest);
                open_all(&mut connection, &mut stream).unwrap();
                let mut record = seal(&mut connection, b"packet");
                *record.last_mut().unwrap() ^= 1;
                assert_eq!(peer.read(&record), Err(rustls::Error::DecryptError));
                let mut alert = peer.flush();
                let heard = open_all(&mut connection, &mut alert);
                assert_eq!(heard, Err(Error::AlertReceived(20)), "{options:?} {role:?}");
                assert!(
                    pending(&mut connection).is_empty(),
                    "an alert is not answered"
                );
            }
        }
    }
}

#[test]
fn an_oversized_record_is_refused_before_it_is_read() {
    assert_eq!(record_len(&[23, 3, 3, 0x41, 0]), Ok(Some(5 + 16640)));
    assert_eq!(record_len(&[23, 3, 3, 0x41, 1]), Err(Error::RecordTooLong));
    assert_eq!(
        record_len(&[23, 3, 3, 0xff, 0xff]),
        Err(Error::RecordTooLong)
    );
    assert_eq!(
        record_len(b"GET /"),
        Err(Error::Malformed("no TLS record".into()))
    );
    assert_eq!(record_len(b"GET "), Ok(None));
}

#[test]
fn a_flood_of_key_updates_is_refused_as_rustls_refuses_it() {
    let pki = Pki::new();
    for kind in KINDS {
        let options = only(Version::Tls13, MATRIX[0].1, kind);
        let (own, mut peer) = own_against_rustls(&pki, Role::Server, &options);
        let mut connection = own.connection;
        let mut refused = None;
        for n in 0..=CONTROL_RECORDS_MAX {
            peer.0.refresh_traffic_keys().unwrap();
            let mut record = peer.flush();
            match connection.open(&mut record) {
                Ok(Opened::Handled) => {}
                Err(error) => refused = Some((n, error)),
                other => panic!("{other:?}"),
            }
        }
        let (n, error) = refused.unwrap();
        assert_eq!(n, CONTROL_RECORDS_MAX);
        assert_eq!(error.alert(), Some(10), "{error}");
    }
}

/// Two of our own ends, in all four pairings of layers.
#[test]
fn our_ends_understand_each_other() {
    let pki = Pki::new();
    for (version, suite) in MATRIX {
        for client_kind in KINDS {
            for server_kind in KINDS {
                let client = pki.client(&only(version, suite, client_kind));
                let server = pki.server(&only(version, suite, server_kind));
                let (mut client, mut server) = shake(&client, &server, usize::MAX);
                for len in EDGES {
                    let mut up = seal(&mut client.connection, &pattern(len));
                    let heard = open_all(&mut server.connection, &mut up).unwrap();
                    assert_eq!(heard.data, pattern(len));
                    let mut down = seal(&mut server.connection, &pattern(len));
                    let heard = open_all(&mut client.connection, &mut down).unwrap();
                    assert_eq!(heard.data, pattern(len));
                }
                assert_eq!(
                    server.connection.budget().sealed,
                    client.connection.budget().opened
                );
            }
        }
    }
}
