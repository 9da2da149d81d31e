//! Sealing and opening records in place, the largest part of a packet's cost.

use datapath::tls::{Connection, Suite};

use super::{Path, Work};
use crate::fixtures;

const SUITES: [(&str, Suite); 3] = [
    ("aes128gcm", Suite::Aes128Gcm),
    ("aes256gcm", Suite::Aes256Gcm),
    ("chacha20poly1305", Suite::ChaCha20Poly1305),
];

/// A packet, a page, the largest record.
const LENS: [usize; 3] = [1_400, 4_096, 16_384];

struct Seal {
    client: Connection,
    record: Vec<u8>,
    len: usize,
}

impl Work for Seal {
    fn run(&mut self) {
        let sealed = self.client.seal(&mut self.record, self.len);
        sealed.expect("within the key budget");
    }
}

struct Open {
    client: Connection,
    server: Connection,
    record: Vec<u8>,
    sealed_len: usize,
    len: usize,
}

impl Work for Open {
    fn ready(&mut self) {
        let sealed = self.client.seal(&mut self.record, self.len);
        self.sealed_len = sealed.expect("within the key budget");
    }

    fn run(&mut self) {
        let opened = self.server.open(&mut self.record[..self.sealed_len]);
        opened.expect("sealed by the other end");
    }
}

pub(super) fn paths() -> Vec<Path> {
    let mut paths = Vec::new();
    for (name, suite) in SUITES {
        for len in LENS {
            let name = format!("tls_record/seal_{name}/{len}");
            paths.push(Path::new(name, 1, len, move || {
                let (client, _) = fixtures::tls_pair(suite);
                let record = fixtures::record_room(&client, len);
                Seal {
                    client,
                    record,
                    len,
                }
            }));
        }
        for len in LENS {
            let name = format!("tls_record/open_{name}/{len}");
            paths.push(Path::new(name, 1, len, move || {
                let (client, server) = fixtures::tls_pair(suite);
                let record = fixtures::record_room(&client, len);
                Open {
                    client,
                    server,
                    record,
                    sealed_len: 0,
                    len,
                }
            }));
        }
    }
    paths
}
