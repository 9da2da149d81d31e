//! Handshakes: cut anywhere, broken anywhere, bounded, and what they agree on.

mod tls_support;

use std::sync::Arc;

use datapath::tls::{
    CertHashes, CertificateFault, ClientProfile, Error, HANDSHAKE_RECORDS_MAX, Handshake,
    KeyExchange, Limit, Progress, RecordLayerKind, ServerGeneration, Suite, TlsOptions, Version,
    alert_name, record_len,
};
use rcgen::{ExtendedKeyUsagePurpose, date_time_ymd};
use rustls_pki_types::ServerName;
use tls_support::*;

fn client_hello(pki: &Pki) -> (Handshake, Vec<u8>) {
    let profile = pki.client(&TlsOptions::default());
    let mut client = Handshake::client(&profile, name()).unwrap();
    let mut out = Vec::new();
    assert_eq!(client.handle_bytes(&[], &mut out), Ok(Progress::Pending));
    (client, out)
}

fn server(pki: &Pki) -> Handshake {
    Handshake::server(&pki.server(&TlsOptions::default())).unwrap()
}

#[test]
fn what_is_agreed_on_by_default() {
    let pki = Pki::new();
    let options = TlsOptions::default();
    let (client, server) = shake(&pki.client(&options), &pki.server(&options), usize::MAX);
    for info in [&client.info, &server.info] {
        assert_eq!(info.version, Version::Tls13);
        assert_eq!(info.suite, options.suites[0]);
        assert_eq!(info.group, "X25519MLKEM768");
        assert!(info.post_quantum);
        assert_eq!(info.certificate, CertHashes::of(&pki.leaf));
    }
    assert_eq!(server.info.sni.as_deref(), Some(NAME));
    assert_eq!(client.info.sni, None);
    // No tickets: not one byte follows the handshake.
    assert!(client.rest.is_empty() && server.rest.is_empty());
    assert_eq!(client.connection.budget().opened.records, 0);
}

#[test]
fn the_servers_order_of_suites_decides() {
    let pki = Pki::new();
    for version in [Version::Tls12, Version::Tls13] {
        let with = |suites: &[Suite]| TlsOptions {
            max_version: version,
            suites: suites.to_vec(),
            ..TlsOptions::default()
        };
        let (aes, chacha) = (Suite::Aes128Gcm, Suite::ChaCha20Poly1305);
        let client = pki.client(&with(&[chacha, aes]));
        let server = pki.server(&with(&[aes, Suite::Aes256Gcm, chacha]));
        assert_eq!(shake(&client, &server, usize::MAX).1.info.suite, aes);
    }
}

#[test]
fn post_quantum_can_be_required_and_left_out() {
    let pki = Pki::new();
    let with = |key_exchange| TlsOptions {
        key_exchange,
        ..TlsOptions::default()
    };
    let require = pki.server(&with(KeyExchange::RequirePostQuantum));
    let classic = pki.client(&with(KeyExchange::ClassicOnly));
    let error = try_shake(&classic, &require, usize::MAX).unwrap_err();
    assert!(matches!(error, Error::PeerIncompatible(_)), "{error}");
    let any = pki.client(&with(KeyExchange::PreferPostQuantum));
    assert!(shake(&any, &require, usize::MAX).0.info.post_quantum);
    let server = pki.server(&with(KeyExchange::PreferPostQuantum));
    let (done, _) = shake(&classic, &server, usize::MAX);
    assert_eq!((done.info.group, done.info.post_quantum), ("X25519", false));
}

#[test]
fn versions_without_overlap_end_with_an_alert() {
    let pki = Pki::new();
    let with = |version| only(version, Suite::Aes128Gcm, RecordLayerKind::Own);
    let client = pki.client(&with(Version::Tls12));
    let mut server = Handshake::server(&pki.server(&with(Version::Tls13))).unwrap();
    let mut client = Handshake::client(&client, name()).unwrap();
    let (mut up, mut down) = (Vec::new(), Vec::new());
    client.handle_bytes(&[], &mut up).unwrap();
    let error = server.handle_bytes(&up, &mut down).unwrap_err();
    assert!(matches!(error, Error::PeerIncompatible(_)), "{error}");
    assert_eq!(server.handle_bytes(&[], &mut down), Err(Error::Closed));
    let error = client.handle_bytes(&down, &mut up).unwrap_err();
    assert_eq!(error, Error::AlertReceived(70));
    assert!(error.to_string().contains(alert_name(70)));
}

#[test]
fn a_handshake_cut_into_single_bytes_succeeds() {
    let pki = Pki::new();
    for (version, suite) in MATRIX {
        let options = only(version, suite, RecordLayerKind::Own);
        shake(&pki.client(&options), &pki.server(&options), 1);
    }
}

#[test]
fn a_client_hello_cut_at_every_byte_of_the_stream_is_answered() {
    let pki = Pki::new();
    let (_, hello) = client_hello(&pki);
    for cut in 0..hello.len() {
        let mut server = server(&pki);
        let mut out = Vec::new();
        assert_eq!(
            server.handle_bytes(&hello[..cut], &mut out),
            Ok(Progress::Pending)
        );
        assert!(out.is_empty());
        server.handle_bytes(&hello[cut..], &mut out).unwrap();
        assert!(!out.is_empty(), "cut at {cut}");
    }
}

/// The records of `bytes` again, each payload cut where `cut` says.
fn recut(bytes: &[u8], cut: usize) -> Vec<u8> {
    let payload = &bytes[5..record_len(bytes).unwrap().unwrap()];
    let mut out = Vec::new();
    for part in [&payload[..cut], &payload[cut..]] {
        let len = u16::try_from(part.len()).unwrap().to_be_bytes();
        out.extend([&[22, 3, 1, len[0], len[1]], part].concat());
    }
    out
}

#[test]
fn a_client_hello_cut_into_two_records_at_every_byte_is_answered() {
    let pki = Pki::new();
    let (_, hello) = client_hello(&pki);
    for cut in 1..hello.len() - 5 {
        let mut out = Vec::new();
        server(&pki)
            .handle_bytes(&recut(&hello, cut), &mut out)
            .unwrap();
        assert!(!out.is_empty(), "cut at {cut}");
    }
}

#[test]
fn a_handshake_of_crumbs_is_ended() {
    let pki = Pki::new();
    let (_, hello) = client_hello(&pki);
    let crumbs: Vec<u8> = hello[5..]
        .iter()
        .flat_map(|&b| [22, 3, 1, 0, 1, b])
        .collect();
    let mut out = Vec::new();
    let error = server(&pki).handle_bytes(&crumbs, &mut out).unwrap_err();
    assert_eq!(error, Error::Exhausted(Limit::HandshakeRecords));
    let few = &crumbs[..HANDSHAKE_RECORDS_MAX * 6];
    assert_eq!(
        server(&pki).handle_bytes(few, &mut out),
        Ok(Progress::Pending)
    );
}

#[test]
fn a_handshake_without_end_is_ended() {
    let pki = Pki::new();
    let mut server = server(&pki);
    let mut out = Vec::new();
    // A ClientHello that says it is as long as rustls lets it be.
    let mut record = [&[22, 3, 1, 0x40, 0][..], &[1, 0, 0xff, 0xff], &[0; 16380]].concat();
    let mut sent = 0;
    let error = loop {
        sent += record.len();
        assert!(sent < 200_000);
        if let Err(error) = server.handle_bytes(&record, &mut out) {
            break error;
        }
        record.truncate(5);
        record.resize(5 + 16384, 0);
    };
    assert!(sent <= 5 * record.len(), "{sent}");
    assert_ne!(error, Error::NotDone);
}

#[test]
fn an_alert_at_every_stage_ends_the_handshake() {
    let pki = Pki::new();
    for version in [Version::Tls12, Version::Tls13] {
        let options = only(version, Suite::Aes128Gcm, RecordLayerKind::Own);
        let (client_profile, generation) = (pki.client(&options), pki.server(&options));
        for stage in 0..4 {
            for (level, alert) in [(2, 40), (2, 80), (1, 0), (1, 90), (7, 7)] {
                let mut client = Handshake::client(&client_profile, name()).unwrap();
                let mut server = Handshake::server(&generation).unwrap();
                let (mut up, mut down) = (Vec::new(), Vec::new());
                client.handle_bytes(&[], &mut up).unwrap();
                let mut done = false;
                for step in 0..=stage {
                    let (end, from, to): (&mut Handshake, _, _) = match step % 2 {
                        0 => (&mut server, &mut up, &mut down),
                        _ => (&mut client, &mut down, &mut up),
                    };
                    if step == stage {
                        let alert = [21, 3, 3, 0, 2, level, alert];
                        // A warning may be ignored; nothing may hang, panic or be done by it.
                        let _either = end.handle_bytes(&alert, to);
                        if level == 2 && !done {
                            assert_eq!(end.handle_bytes(&[], to), Err(Error::Closed));
                        }
                    } else {
                        // A client that is done keeps the alert for its connection.
                        done = end.handle_bytes(&std::mem::take(from), to) == Ok(Progress::Done);
                    }
                }
            }
        }
    }
}

#[test]
fn what_was_changed_in_a_server_flight_is_noticed() {
    let pki = Pki::new();
    let profile = pki.client(&only(
        Version::Tls13,
        Suite::Aes128Gcm,
        RecordLayerKind::Own,
    ));
    let generation = pki.server(&TlsOptions::default());
    for at in (0..40).chain((40..1700).step_by(7)) {
        let mut client = Handshake::client(&profile, name()).unwrap();
        let mut server = Handshake::server(&generation).unwrap();
        let (mut up, mut down) = (Vec::new(), Vec::new());
        client.handle_bytes(&[], &mut up).unwrap();
        server.handle_bytes(&up, &mut down).unwrap();
        let (mut start, mut version_bytes) = (0, Vec::new());
        while let Some(len) = record_len(&down[start..]).unwrap() {
            version_bytes.push(start + 2);
            start += len;
        }
        let Some(byte) = down.get_mut(at) else {
            break;
        };
        *byte ^= 0x20;
        up.clear();
        let done = client.handle_bytes(&down, &mut up) == Ok(Progress::Done);
        // RFC 8446 §5.1: the minor version of a record is to be ignored.
        assert!(!done || version_bytes.contains(&at), "byte {at}");
    }
}

#[test]
fn garbage_is_refused() {
    let pki = Pki::new();
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[22, 3, 1, 0xff, 0xff],
        &[23, 3, 3, 0, 1, 0],
        &[20, 3, 3, 0, 1, 1, 20, 3, 3, 0, 1, 1, 23, 3, 3, 0, 1, 0],
        &[22, 3, 1, 0, 4, 2, 0, 0, 0],
        &[22, 3, 1, 0, 0],
    ] {
        let mut out = Vec::new();
        let mut server = server(&pki);
        let result = server.handle_bytes(garbage, &mut out);
        let empty_record = garbage.ends_with(&[0, 0]) && garbage.len() == 5;
        assert!(result.is_err() || empty_record, "{garbage:?} {result:?}");
        assert!(server.finish().is_err());
    }
}

#[test]
fn data_right_behind_the_handshake_is_kept_for_the_connection() {
    let pki = Pki::new();
    for (version, suite) in MATRIX {
        for kind in [RecordLayerKind::Own, RecordLayerKind::Rustls] {
            let options = only(version, suite, kind);
            let (own, peer) = pipelined(&pki, &options);
            let (mut connection, mut rest) = (own.connection, own.rest);
            assert!(own.plaintext.is_empty());
            let heard = open_all(&mut connection, &mut rest).unwrap();
            assert!(heard.data == peer, "{options:?}");
            assert_eq!(rest, [23, 3], "a record that is not whole");
        }
    }
}

/// A server's end whose client sent its last flight, data and a bit more at once.
fn pipelined(pki: &Pki, options: &TlsOptions) -> (datapath::tls::Finished, Vec<u8>) {
    let config = Arc::new(rustls_client(pki, options.max_version));
    let mut peer = RustlsPeer(
        rustls::ClientConnection::new(config, name())
            .unwrap()
            .into(),
    );
    let mut server = Handshake::server(&pki.server(options)).unwrap();
    let mut out = Vec::new();
    loop {
        peer.read(&out).unwrap();
        out.clear();
        let done = !peer.0.is_handshaking();
        let flight = if done {
            [peer.write(&pattern(20_000)), vec![23, 3]].concat()
        } else {
            peer.flush()
        };
        if server.handle_bytes(&flight, &mut out).unwrap() == Progress::Done {
            if options.max_version == Version::Tls12 {
                peer.read(&out).unwrap();
                let data = [peer.write(&pattern(20_000)), vec![23, 3]].concat();
                server.handle_bytes(&data, &mut out).unwrap();
            }
            break;
        }
    }
    (server.finish().unwrap(), pattern(20_000))
}

fn fault(pki: &Pki, profile: &Arc<ClientProfile>, name: &str) -> (CertificateFault, Error) {
    let mut server = server(pki);
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = Handshake::client(profile, name).unwrap();
    let (mut up, mut down) = (Vec::new(), Vec::new());
    client.handle_bytes(&[], &mut up).unwrap();
    server.handle_bytes(&up, &mut down).unwrap();
    up.clear();
    let Err(Error::Certificate(fault)) = client.handle_bytes(&down, &mut up) else {
        panic!("the certificate was accepted");
    };
    (fault, server.handle_bytes(&up, &mut down).unwrap_err())
}

#[test]
fn certificates_are_refused_for_the_right_reason() {
    let options = TlsOptions::default();
    let pki = Pki::with(|leaf| leaf.not_after = date_time_ymd(2020, 1, 1));
    let (why, heard) = fault(&pki, &pki.client(&options), NAME);
    assert_eq!((why.label(), heard), ("expired", Error::AlertReceived(45)));
    let pki = Pki::with(|leaf| leaf.not_before = date_time_ymd(2090, 1, 1));
    assert_eq!(
        fault(&pki, &pki.client(&options), NAME).0,
        CertificateFault::NotYetValid
    );
    let pki = Pki::with(|leaf| {
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });
    assert_eq!(
        fault(&pki, &pki.client(&options), NAME).0,
        CertificateFault::WrongPurpose
    );
    let pki = Pki::new();
    assert_eq!(
        fault(&pki, &pki.client(&options), "other.example").0,
        CertificateFault::WrongName
    );
    let (why, heard) = fault(&pki, &Pki::new().client(&options), NAME);
    assert_eq!(
        (why, heard),
        (CertificateFault::UnknownIssuer, Error::AlertReceived(48))
    );
}

#[test]
fn a_client_that_accepts_any_certificate_still_knows_which() {
    let pki = Pki::with(|leaf| leaf.not_after = date_time_ymd(2020, 1, 1));
    for (version, suite) in MATRIX {
        let options = only(version, suite, RecordLayerKind::Own);
        let profile = Arc::new(ClientProfile::danger_accept_any(&options).unwrap());
        let (client, server) = shake(&profile, &pki.server(&options), usize::MAX);
        assert_eq!(client.info.certificate, CertHashes::of(&pki.leaf));
        assert_eq!(client.info.certificate, server.info.certificate);
    }
}

#[test]
fn a_connection_keeps_the_generation_it_was_accepted_under() {
    let options = TlsOptions::default();
    let (old, new) = (Pki::new(), Pki::new());
    let mut generation = old.server(&options);
    let mut under_old = Handshake::server(&generation).unwrap();
    generation = new.server(&options);
    let under_new = Handshake::server(&generation).unwrap();
    let (mut client, hello) = client_hello(&old);
    let (mut up, mut down) = (Vec::new(), Vec::new());
    under_old.handle_bytes(&hello, &mut down).unwrap();
    client.handle_bytes(&down, &mut up).unwrap();
    under_old.handle_bytes(&up, &mut down).unwrap();
    assert_eq!(
        under_old.finish().unwrap().info.certificate,
        CertHashes::of(&old.leaf)
    );
    assert_eq!(under_new.finish().unwrap_err(), Error::NotDone);
    assert_eq!(generation.hashes(), CertHashes::of(&new.leaf));
}

#[test]
fn what_cannot_be_set_up_is_told() {
    let (pki, other) = (Pki::new(), Pki::new());
    let options = TlsOptions::default();
    let leaf = || vec![pki.leaf.clone()];
    assert!(ServerGeneration::new(Vec::new(), pki.key(), &options).is_err());
    assert!(ServerGeneration::new(leaf(), other.key(), &options).is_err());
    let none = TlsOptions {
        suites: Vec::new(),
        ..TlsOptions::default()
    };
    assert!(ServerGeneration::new(leaf(), pki.key(), &none).is_err());
    assert!(ClientProfile::danger_accept_any(&none).is_err());
    let backwards = TlsOptions {
        min_version: Version::Tls13,
        max_version: Version::Tls12,
        ..TlsOptions::default()
    };
    assert!(ServerGeneration::new(leaf(), pki.key(), &backwards).is_err());
    assert!(ClientProfile::new(Vec::new(), &options).is_err());
}

#[test]
fn alpn_is_neither_offered_nor_refused() {
    let pki = Pki::new();
    let mut config = rustls_client(&pki, Version::Tls13);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let peer = rustls::ClientConnection::new(Arc::new(config), name()).unwrap();
    let mut peer = RustlsPeer(peer.into());
    let mut server = server(&pki);
    let mut down = Vec::new();
    server.handle_bytes(&peer.flush(), &mut down).unwrap();
    peer.read(&down).unwrap();
    assert_eq!(
        server.handle_bytes(&peer.flush(), &mut down),
        Ok(Progress::Done)
    );
    assert_eq!(peer.0.alpn_protocol(), None);
}

#[test]
fn the_null_handshake_has_the_same_shape() {
    let hashes = CertHashes::of(b"leaf");
    for chunk in [1, 2, 7, usize::MAX] {
        let server = Arc::new(ServerGeneration::null(hashes));
        let (mut client, mut server) = shake(&Arc::new(ClientProfile::null()), &server, chunk);
        assert_eq!(client.info.certificate, hashes);
        assert_eq!(server.info.sni.as_deref(), Some(NAME));
        let (up, down) = (&mut client.connection, &mut server.connection);
        assert_eq!((up.prefix_len(), up.suffix_len()), (5, 17));
        for len in [1, 7, 8, 9, 16384] {
            let mut record = seal(up, &pattern(len));
            assert_eq!(open_all(down, &mut record).unwrap().data, pattern(len));
        }
        let mut sent = Vec::new();
        down.update_keys(&mut sent).unwrap();
        sent.extend(seal(down, b"after"));
        assert_eq!(open_all(up, &mut sent).unwrap().data, b"after");
        let mut sent = pending(up);
        sent.extend(seal(up, b"after"));
        assert_eq!(open_all(down, &mut sent).unwrap().data, b"after");
        let record = seal(up, b"packet");
        let mut again = record.clone();
        assert!(open_all(down, &mut record.clone()).is_ok());
        assert_eq!(open_all(down, &mut again), Err(Error::BadRecord));
        let mut alert = pending(down);
        assert_eq!(open_all(up, &mut alert), Err(Error::AlertReceived(20)));
    }
}

#[test]
fn the_null_layer_notices_every_changed_bit() {
    let generation = Arc::new(ServerGeneration::null(CertHashes::of(b"leaf")));
    let new = || shake(&Arc::new(ClientProfile::null()), &generation, usize::MAX);
    let record = seal(&mut new().0.connection, b"some packet");
    for bit in 0..record.len() * 8 {
        let mut changed = record.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(new().1.connection.open(&mut changed).is_err(), "bit {bit}");
    }
}

#[test]
fn rsa_certificates_serve_all_versions_and_suites() {
    let pki = Pki::rsa();
    for (version, suite) in MATRIX {
        let options = only(version, suite, RecordLayerKind::Own);
        let (_, server) = shake(&pki.client(&options), &pki.server(&options), usize::MAX);
        let is_rsa = server.info.suite_name.contains("RSA_WITH");
        assert_eq!(
            is_rsa,
            version == Version::Tls12,
            "{}",
            server.info.suite_name
        );
    }
}

#[derive(Debug, Default)]
#[expect(
    clippy::disallowed_types,
    reason = "rustls logs keys through a shared reference"
)]
struct Lines(std::sync::Mutex<Vec<String>>);

impl rustls::KeyLog for Lines {
    fn log(&self, label: &str, _client_random: &[u8], _secret: &[u8]) {
        self.0.lock().unwrap().push(label.to_owned());
    }
}

#[test]
fn a_key_log_hears_all_secrets_when_it_is_asked_for() {
    let pki = Pki::new();
    for (version, first) in [
        (Version::Tls12, "CLIENT_RANDOM"),
        (Version::Tls13, "CLIENT_HANDSHAKE_TRAFFIC_SECRET"),
    ] {
        let lines = Arc::new(Lines::default());
        let options = TlsOptions {
            key_log: Some(Arc::<Lines>::clone(&lines)),
            ..only(version, Suite::Aes128Gcm, RecordLayerKind::Own)
        };
        let plain = only(version, Suite::Aes128Gcm, RecordLayerKind::Own);
        shake(&pki.client(&plain), &pki.server(&options), usize::MAX);
        let lines = lines.0.lock().unwrap();
        assert!(lines.iter().any(|line| line == first), "{lines:?}");
    }
}

#[test]
fn many_handshakes_on_one_thread_do_not_mix_their_secrets() {
    let pki = Pki::new();
    let options = only(Version::Tls13, Suite::Aes128Gcm, RecordLayerKind::Own);
    let (profile, generation) = (pki.client(&options), pki.server(&options));
    let mut pairs: Vec<_> = (0..8)
        .map(|_| {
            let client = Handshake::client(&profile, name()).unwrap();
            (
                client,
                Handshake::server(&generation).unwrap(),
                Vec::new(),
                Vec::new(),
            )
        })
        .collect();
    for _ in 0..4 {
        for (client, _, up, down) in &mut pairs {
            client.handle_bytes(&std::mem::take(down), up).unwrap();
        }
        for (_, server, up, down) in pairs.iter_mut().rev() {
            server.handle_bytes(&std::mem::take(up), down).unwrap();
        }
    }
    for (client, server, _, _) in pairs {
        let (mut client, mut server) = (client.finish().unwrap(), server.finish().unwrap());
        let mut record = seal(&mut client.connection, b"mine");
        assert_eq!(
            open_all(&mut server.connection, &mut record).unwrap().data,
            b"mine"
        );
    }
}

/// The client's side of the byte budget; without verification, which has a limit of its own.
#[test]
fn a_chain_without_end_is_refused() {
    let pki = Pki::new();
    let options = TlsOptions::default();
    let profile = Arc::new(ClientProfile::danger_accept_any(&options).unwrap());
    let with_chain_of = |len: usize| {
        let mut chain = vec![pki.leaf.clone()];
        // Five bytes around each certificate (RFC 8446 §4.4.2).
        while chain.iter().map(|der| der.len() + 5).sum::<usize>() < len {
            chain.push(pki.root.clone());
        }
        let server = Arc::new(ServerGeneration::new(chain, pki.key(), &options).unwrap());
        try_shake(&profile, &server, usize::MAX).map(|_| ())
    };
    assert_eq!(with_chain_of(55_000), Ok(()));
    // rustls takes messages up to 65,535 bytes; the whole handshake is longer.
    assert_eq!(
        with_chain_of(64_900),
        Err(Error::Exhausted(Limit::HandshakeBytes))
    );
    assert!(with_chain_of(80_000).is_err());
}
