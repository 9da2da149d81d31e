//! Our record layer against rustls' own connection, byte by byte, in every combination.

mod tls_support;

use std::sync::Arc;

use datapath::tls::{CertHashes, ClientProfile, RecordLayerKind, Role, ServerGeneration};
use tls_support::*;

const EDGES: [usize; 9] = [1, 2, 15, 16, 17, 1400, 8192, 16383, 16384];

#[test]
fn data_passes_both_ways_between_our_layer_and_rustls() {
    let pki = Pki::new();
    for (version, suite) in MATRIX {
        for kind in [RecordLayerKind::Own, RecordLayerKind::Rustls] {
            for role in [Role::Client, Role::Server] {
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
fn null_shakes_hands_and_carries_data() {
    let hashes = CertHashes::of(b"leaf");
    let (mut client, mut server) = shake(
        &Arc::new(ClientProfile::null()),
        &Arc::new(ServerGeneration::null(hashes)),
        1,
    );
    assert_eq!(client.info.certificate, hashes);
    assert_eq!(server.info.sni.as_deref(), Some(NAME));
    let mut record = seal(&mut client.connection, b"up");
    assert_eq!(
        open_all(&mut server.connection, &mut record).unwrap().data,
        b"up"
    );
    let mut record = seal(&mut server.connection, b"down");
    assert_eq!(
        open_all(&mut client.connection, &mut record).unwrap().data,
        b"down"
    );
}
