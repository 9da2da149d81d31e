//! Records after the handshake. The keys are the null layer's, which everybody has, so the fuzzer
//! gets behind them.

use std::sync::Arc;

use datapath::tls::{self, Handshake, Opened, Progress, ServerGeneration};

/// A stream of records to a server in its handshake and after it.
pub fn tls_record(bytes: &[u8]) {
    let hashes = tls::CertHashes::of(b"certificate");
    let generation = Arc::new(ServerGeneration::null(hashes));
    let mut handshake = Handshake::server(&generation).expect("the null engine always begins");
    let mut out = Vec::new();
    let Ok(Progress::Done) = handshake.handle_bytes(bytes, &mut out) else {
        return;
    };
    let Ok(finished) = handshake.finish() else {
        return;
    };
    let (mut connection, mut rest) = (finished.connection, finished.rest);
    while let Ok(Some(len)) = tls::record_len(&rest) {
        assert!((tls::HEADER_LEN..=tls::HEADER_LEN + tls::PAYLOAD_LEN_MAX).contains(&len));
        if len > rest.len() {
            return;
        }
        let mut record: Vec<u8> = rest.drain(..len).collect();
        match connection.open(&mut record) {
            Ok(Opened::Data(plaintext)) => assert!(plaintext.len() <= tls::PLAINTEXT_LEN_MAX),
            Ok(Opened::Closed) | Err(_) => return,
            Ok(_) => {}
        }
        out.clear();
        connection.pending_output(&mut out);
        assert!(out.len() <= 4096, "answers grow out of proportion");
    }
}
