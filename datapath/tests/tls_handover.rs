//! Keys that leave the process, and keys that come to their end.

mod tls_support;

use std::sync::Arc;

use datapath::tls::{
    CertHashes, ClientProfile, Connection, Error, ExportedKeys, RecordLayerKind, Role,
    ServerGeneration, Suite, TlsOptions, Version,
};
use tls_support::*;

/// Out of the process and back.
fn moved(connection: &Connection) -> Connection {
    let exported = connection.export().unwrap();
    let shown = format!("{exported:?}");
    assert!(
        !shown.contains("key:") && !shown.contains("secret"),
        "{shown}"
    );
    let text = serde_json::to_string(&exported).unwrap();
    let exported: ExportedKeys = serde_json::from_str(&text).unwrap();
    Connection::import(&exported).unwrap()
}

#[test]
fn a_connection_goes_on_in_another_process() {
    let pki = Pki::new();
    for (version, suite) in MATRIX {
        for role in [Role::Client, Role::Server] {
            let options = only(version, suite, RecordLayerKind::Own);
            let (own, mut peer) = own_against_rustls(&pki, role, &options);
            let (mut connection, mut stream) = (own.connection, own.rest);
            open_all(&mut connection, &mut stream).unwrap();
            for round in 0..6 {
                assert_eq!(peer.read(&seal(&mut connection, b"up")).unwrap(), b"up");
                stream.extend(peer.write(b"down"));
                assert_eq!(
                    open_all(&mut connection, &mut stream).unwrap().data,
                    b"down"
                );
                let before = connection.budget();
                connection = moved(&connection);
                assert_eq!(connection.budget(), before);
                if version == Version::Tls13 && round % 2 == 0 {
                    // The successors of the keys can be found on the other side too.
                    let mut out = Vec::new();
                    connection.update_keys(&mut out).unwrap();
                    peer.read(&out).unwrap();
                    peer.0.refresh_traffic_keys().unwrap();
                }
            }
            // Moved between a KeyUpdate and the answer to it.
            if version == Version::Tls13 {
                stream.extend(peer.flush());
                open_all(&mut connection, &mut stream).unwrap();
                assert!(connection.has_pending_output());
                connection = moved(&connection);
                let mut out = pending(&mut connection);
                assert!(!out.is_empty());
                out.extend(seal(&mut connection, b"moved"));
                assert_eq!(peer.read(&out).unwrap(), b"moved");
            }
        }
    }
}

#[test]
fn the_keys_given_out_are_those_that_a_kernel_needs() {
    let pki = Pki::new();
    for (version, suite) in MATRIX {
        let options = only(version, suite, RecordLayerKind::Own);
        let (mut client, server) = shake(&pki.client(&options), &pki.server(&options), 1000);
        seal(&mut client.connection, b"one");
        let client = client.connection.export().unwrap();
        let server = server.connection.export().unwrap();
        assert_eq!(
            (client.version, client.suite, client.role),
            (version, suite, Role::Client)
        );
        assert_eq!(
            (&client.tx.key, &client.tx.iv),
            (&server.rx.key, &server.rx.iv)
        );
        assert_eq!(
            (&client.rx.key, &client.rx.iv),
            (&server.tx.key, &server.tx.iv)
        );
        let key_len = if suite == Suite::Aes128Gcm { 16 } else { 32 };
        assert_eq!((client.tx.key.len(), client.tx.iv.len()), (key_len, 12));
        // The Finished of TLS 1.2 took number 0; in TLS 1.3 it had other keys.
        let first = u64::from(version == Version::Tls12);
        assert_eq!((client.tx.seq, server.tx.seq), (first + 1, first));
    }
}

#[test]
fn what_was_not_exported_by_us_is_refused() {
    let pki = Pki::new();
    for (version, suite) in MATRIX {
        let options = only(version, suite, RecordLayerKind::Own);
        let (client, _) = shake(&pki.client(&options), &pki.server(&options), 1000);
        let exported = serde_json::to_value(client.connection.export().unwrap()).unwrap();
        let import = |path: &str, value: serde_json::Value| {
            let mut changed = exported.clone();
            *changed.pointer_mut(path).unwrap() = value;
            let keys: ExportedKeys = serde_json::from_value(changed).ok()?;
            Connection::import(&keys).ok()
        };
        assert!(import("/format", 1.into()).is_some());
        assert!(import("/format", 2.into()).is_none());
        assert!(import("/tx/key", vec![1; 15].into()).is_none());
        assert!(import("/rx/iv", vec![1; 11].into()).is_none());
        assert!(import("/message", (vec![1; 5], 0).serialize_json()).is_none());
        assert!(import("/message", (vec![1; 0], u32::MAX).serialize_json()).is_none());
        let other = vec![7; if version == Version::Tls13 { 32 } else { 48 }];
        assert!(import("/tx/secret", other.into()).is_none());
        if version == Version::Tls13 {
            assert!(import("/tx/secret", serde_json::Value::Null).is_none());
            let len = client.connection.export().unwrap().tx.key.len();
            assert!(
                import("/tx/key", vec![1; len].into()).is_none(),
                "not from the secret"
            );
        }
    }
}

trait ToJson {
    fn serialize_json(&self) -> serde_json::Value;
}

impl ToJson for (Vec<u8>, u32) {
    fn serialize_json(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap()
    }
}

#[test]
fn the_null_connection_can_be_moved_too_and_rustls_cannot() {
    let generation = Arc::new(ServerGeneration::null(CertHashes::of(b"leaf")));
    let (mut client, mut server) = shake(&Arc::new(ClientProfile::null()), &generation, usize::MAX);
    for _ in 0..3 {
        let mut record = seal(&mut client.connection, b"up");
        client.connection = moved(&client.connection);
        server.connection = moved(&server.connection);
        assert_eq!(
            open_all(&mut server.connection, &mut record).unwrap().data,
            b"up"
        );
    }
    let pki = Pki::new();
    let options = TlsOptions {
        record_layer: RecordLayerKind::Rustls,
        ..TlsOptions::default()
    };
    let (client, _) = shake(&pki.client(&options), &pki.server(&options), 1000);
    assert!(client.connection.export().is_none());
}

/// 2^12 blocks: small enough to pass many times, larger than a burst of three full records.
const LOWERED: u64 = 1 << 12;

#[test]
fn tls_1_3_changes_its_keys_before_the_budget_ends() {
    let pki = Pki::new();
    for kind in [RecordLayerKind::Own, RecordLayerKind::Rustls] {
        for len in [1, 1400, 16384] {
            let options = TlsOptions {
                key_budget: Some(LOWERED),
                ..only(Version::Tls13, Suite::Aes128Gcm, kind)
            };
            let (own, mut peer) = own_against_rustls(&pki, Role::Server, &options);
            let mut connection = own.connection;
            let (mut updates, mut sent_blocks) = (0, 0);
            while sent_blocks < LOWERED * 10 {
                let mut sent = pending(&mut connection);
                updates += u64::from(!sent.is_empty());
                sent.extend(seal(&mut connection, &pattern(len)));
                assert!(connection.budget().sealed.blocks <= LOWERED);
                sent_blocks += (len as u64).div_ceil(16) + 2;
                assert!(peer.read(&sent).unwrap() == pattern(len));
            }
            assert_eq!(connection.budget().key_updates, updates);
            assert!(updates >= 10, "{updates}");
        }
    }
}

#[test]
fn a_burst_is_sealed_without_asking_for_output_in_between() {
    let pki = Pki::new();
    for kind in [RecordLayerKind::Own, RecordLayerKind::Rustls] {
        let options = TlsOptions {
            key_budget: Some(1 << 14),
            ..only(Version::Tls13, Suite::Aes128Gcm, kind)
        };
        let (own, mut peer) = own_against_rustls(&pki, Role::Server, &options);
        let mut connection = own.connection;
        for _ in 0..40 {
            let mut burst = pending(&mut connection);
            for _ in 0..4 {
                burst.extend(seal(&mut connection, &pattern(16384)));
            }
            assert_eq!(peer.read(&burst).unwrap().len(), 4 * 16384);
        }
        assert!(connection.budget().key_updates >= 10);
    }
}

#[test]
fn a_peer_that_forgets_its_budget_is_asked_once_per_key() {
    let pki = Pki::new();
    let options = TlsOptions {
        key_budget: Some(LOWERED),
        ..only(Version::Tls13, Suite::Aes128Gcm, RecordLayerKind::Own)
    };
    let (own, mut peer) = own_against_rustls(&pki, Role::Server, &options);
    let mut connection = own.connection;
    let mut asked: u64 = 0;
    for _ in 0..1000 {
        let mut stream = peer.write(&pattern(1400));
        open_all(&mut connection, &mut stream).unwrap();
        let out = pending(&mut connection);
        asked += u64::from(!out.is_empty());
        peer.read(&out).unwrap();
    }
    // 88 blocks and two for the record, and rustls obeys with its next write.
    let expected = 1000 * 90 / (LOWERED * 7 / 10);
    assert!(asked.abs_diff(expected) <= 2, "{asked} {expected}");
    assert!(connection.budget().opened.blocks < LOWERED);
}

#[test]
fn tls_1_2_says_when_its_key_is_spent_and_stops() {
    let pki = Pki::new();
    for kind in [RecordLayerKind::Own, RecordLayerKind::Rustls] {
        let options = TlsOptions {
            key_budget: Some(LOWERED),
            ..only(Version::Tls12, Suite::Aes256Gcm, kind)
        };
        let (own, mut peer) = own_against_rustls(&pki, Role::Server, &options);
        let mut connection = own.connection;
        let mut record = vec![0; 13 + 100 + 16];
        let mut near = 0;
        let error = loop {
            near += u32::from(connection.budget().is_near());
            match connection.seal(&mut record, 100) {
                Ok(len) => assert_eq!(peer.read(&record[..len]).unwrap().len(), 100),
                Err(error) => break error,
            }
            record.fill(0);
        };
        assert_eq!(error, Error::KeyBudgetSpent);
        assert!(near > 20 && connection.budget().sealed.blocks <= LOWERED);
        assert_eq!(
            connection.update_keys(&mut Vec::new()),
            Err(Error::KeyBudgetSpent)
        );
        // Its end is orderly, and the other direction still works.
        let mut stream = peer.write(b"still heard");
        assert_eq!(
            open_all(&mut connection, &mut stream).unwrap().data,
            b"still heard"
        );
        let mut out = Vec::new();
        connection.close_notify(&mut out);
        peer.read(&out).unwrap();
        assert!(peer.0.process_new_packets().unwrap().peer_has_closed());
    }
}

#[test]
fn limits_are_as_derived_and_only_lowered() {
    let pki = Pki::new();
    for (version, suite) in MATRIX {
        let limit = |key_budget| {
            let options = TlsOptions {
                key_budget,
                ..only(version, suite, RecordLayerKind::Own)
            };
            let (client, _) = shake(&pki.client(&options), &pki.server(&options), 1000);
            client.connection.budget().limit_blocks
        };
        let derived = limit(None);
        // The derivation bounds the square: (s + q + 1)² ≤ p · 2¹²⁹.
        let square = |blocks: u64| u128::from(blocks).pow(2);
        let bound = match (version, suite) {
            (_, Suite::ChaCha20Poly1305) => None,
            (Version::Tls13, _) => Some(1 << (129 - 60)),
            (Version::Tls12, _) => Some(1 << (129 - 50)),
        };
        match bound {
            Some(bound) => assert!(square(derived) <= bound && square(derived + 1) > bound),
            None => assert_eq!(derived, u64::MAX),
        }
        assert!(
            derived / 90 > 1 << 24,
            "more records of one packet than rustls grants"
        );
        assert_eq!(limit(Some(u64::MAX)), derived);
        assert_eq!(limit(Some(1 << 20)), 1 << 20);
    }
}
