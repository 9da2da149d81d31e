//! What the TLS tests share: certificates made on the spot, handshakes between any two ends.
#![allow(dead_code, reason = "each test crate uses its own part")]

use std::io::{Read, Write};
use std::sync::Arc;

use datapath::tls::{
    ClientProfile, Connection, Error, Finished, Handshake, Opened, Progress, RecordLayerKind,
    ServerGeneration, Suite, TlsOptions, Version, record_len,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

pub(crate) const NAME: &str = "vpn.example";

pub(crate) const MATRIX: [(Version, Suite); 6] = [
    (Version::Tls13, Suite::Aes128Gcm),
    (Version::Tls13, Suite::Aes256Gcm),
    (Version::Tls13, Suite::ChaCha20Poly1305),
    (Version::Tls12, Suite::Aes128Gcm),
    (Version::Tls12, Suite::Aes256Gcm),
    (Version::Tls12, Suite::ChaCha20Poly1305),
];

/// A root and one leaf under it.
pub(crate) struct Pki {
    pub(crate) root: CertificateDer<'static>,
    pub(crate) leaf: CertificateDer<'static>,
    pub(crate) leaf_pem: String,
    pub(crate) root_pem: String,
    pub(crate) key_pem: String,
    key: Vec<u8>,
}

impl Pki {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    /// A leaf that `change` had its hands on.
    pub(crate) fn with(change: impl FnOnce(&mut CertificateParams)) -> Self {
        Self::with_key(KeyPair::generate().unwrap(), change)
    }

    /// An RSA certificate, as Windows wants it.
    pub(crate) fn rsa() -> Self {
        Self::with_key(
            KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap(),
            |_| {},
        )
    }

    fn with_key(key: KeyPair, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut root = CertificateParams::new(Vec::new()).unwrap();
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root_key = KeyPair::generate().unwrap();
        // No two roots share a name, or their leaves would seem to be forged.
        let root_name = format!("test root {:x?}", &root_key.public_key_raw()[..8]);
        root.distinguished_name.push(DnType::CommonName, root_name);
        let root = CertifiedIssuer::self_signed(root, root_key).unwrap();
        let mut leaf = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
        leaf.distinguished_name.push(DnType::CommonName, NAME);
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        change(&mut leaf);
        let leaf = leaf.signed_by(&key, &root).unwrap();
        Self {
            root: root.der().clone(),
            leaf: leaf.der().clone(),
            leaf_pem: leaf.pem(),
            root_pem: root.pem(),
            key_pem: key.serialize_pem(),
            key: key.serialize_der(),
        }
    }

    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(self.key.clone()).unwrap()
    }

    pub(crate) fn server(&self, options: &TlsOptions) -> Arc<ServerGeneration> {
        let chain = vec![self.leaf.clone()];
        Arc::new(ServerGeneration::new(chain, self.key(), options).unwrap())
    }

    pub(crate) fn client(&self, options: &TlsOptions) -> Arc<ClientProfile> {
        Arc::new(ClientProfile::new([self.root.clone()], options).unwrap())
    }
}

pub(crate) fn name() -> ServerName<'static> {
    ServerName::try_from(NAME).unwrap()
}

/// Options that leave one choice.
pub(crate) fn only(version: Version, suite: Suite, record_layer: RecordLayerKind) -> TlsOptions {
    TlsOptions {
        min_version: version,
        max_version: version,
        suites: vec![suite],
        record_layer,
        ..TlsOptions::default()
    }
}

/// Runs two handshakes against each other, `chunk` bytes at a time.
pub(crate) fn shake(
    client: &Arc<ClientProfile>,
    server: &Arc<ServerGeneration>,
    chunk: usize,
) -> (Finished, Finished) {
    try_shake(client, server, chunk).unwrap()
}

pub(crate) fn try_shake(
    client: &Arc<ClientProfile>,
    server: &Arc<ServerGeneration>,
    chunk: usize,
) -> Result<(Finished, Finished), Error> {
    let mut client = Handshake::client(client, name())?;
    let mut server = Handshake::server(server)?;
    let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
    client.handle_bytes(&[], &mut to_server)?;
    let (mut client_done, mut server_done) = (false, false);
    while !(client_done && server_done && to_server.is_empty() && to_client.is_empty()) {
        assert!(
            !(to_server.is_empty() && to_client.is_empty()),
            "both wait: client {client_done}, server {server_done}"
        );
        for piece in std::mem::take(&mut to_server).chunks(chunk) {
            server_done |= server.handle_bytes(piece, &mut to_client)? == Progress::Done;
        }
        for piece in std::mem::take(&mut to_client).chunks(chunk) {
            client_done |= client.handle_bytes(piece, &mut to_server)? == Progress::Done;
        }
    }
    Ok((client.finish()?, server.finish()?))
}

/// Seals `plaintext` as one record.
pub(crate) fn seal(connection: &mut Connection, plaintext: &[u8]) -> Vec<u8> {
    let (prefix, suffix) = (connection.prefix_len(), connection.suffix_len());
    let mut record = vec![0xee; prefix + plaintext.len() + suffix];
    record[prefix..prefix + plaintext.len()].copy_from_slice(plaintext);
    let len = connection.seal(&mut record, plaintext.len()).unwrap();
    assert_eq!(len, record.len());
    record
}

/// What a stream of whole records held.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) data: Vec<u8>,
    pub(crate) handled: usize,
    pub(crate) closed: bool,
}

/// Opens all records of `stream`, whole or not: gives what is left.
pub(crate) fn open_all(connection: &mut Connection, stream: &mut Vec<u8>) -> Result<Heard, Error> {
    let mut heard = Heard::default();
    while let Some(len) = record_len(stream)?.filter(|&len| len <= stream.len()) {
        let mut record: Vec<u8> = stream.drain(..len).collect();
        match connection.open(&mut record)? {
            Opened::Data(data) => heard.data.extend_from_slice(data),
            Opened::Handled => heard.handled += 1,
            Opened::Closed => heard.closed = true,
        }
    }
    Ok(heard)
}

pub(crate) fn pending(connection: &mut Connection) -> Vec<u8> {
    let mut out = Vec::new();
    connection.pending_output(&mut out);
    out
}

/// Bytes that differ from place to place.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| (i * 31 + i / 251).to_le_bytes()[0])
        .collect()
}

/// rustls' own buffered connection as the peer, without any code of ours.
pub(crate) struct RustlsPeer(pub(crate) rustls::Connection);

impl RustlsPeer {
    pub(crate) fn write(&mut self, plaintext: &[u8]) -> Vec<u8> {
        self.0.writer().write_all(plaintext).unwrap();
        self.flush()
    }

    pub(crate) fn flush(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        while self.0.wants_write() {
            self.0.write_tls(&mut out).unwrap();
        }
        out
    }

    pub(crate) fn read(&mut self, mut stream: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        let mut data = Vec::new();
        while !stream.is_empty() {
            self.0.read_tls(&mut stream).unwrap();
            let state = self.0.process_new_packets()?;
            let mut part = vec![0; state.plaintext_bytes_to_read()];
            self.0.reader().read_exact(&mut part).unwrap();
            data.extend(part);
        }
        Ok(data)
    }
}

/// A rustls server, built by hand so that it is independent of our configuration.
pub(crate) fn rustls_server(pki: &Pki, version: Version) -> rustls::ServerConfig {
    let versions: &[_] = match version {
        Version::Tls12 => &[&rustls::version::TLS12],
        Version::Tls13 => &[&rustls::version::TLS13],
    };
    rustls::ServerConfig::builder_with_provider(Arc::new(
        rustls::crypto::aws_lc_rs::default_provider(),
    ))
    .with_protocol_versions(versions)
    .unwrap()
    .with_no_client_auth()
    .with_single_cert(vec![pki.leaf.clone()], pki.key())
    .unwrap()
}

/// A rustls client, likewise.
pub(crate) fn rustls_client(pki: &Pki, version: Version) -> rustls::ClientConfig {
    let versions: &[_] = match version {
        Version::Tls12 => &[&rustls::version::TLS12],
        Version::Tls13 => &[&rustls::version::TLS13],
    };
    let mut roots = rustls::RootCertStore::empty();
    roots.add(pki.root.clone()).unwrap();
    rustls::ClientConfig::builder_with_provider(Arc::new(
        rustls::crypto::aws_lc_rs::default_provider(),
    ))
    .with_protocol_versions(versions)
    .unwrap()
    .with_root_certificates(roots)
    .with_no_client_auth()
}

/// Our end in `role`, already through the handshake with a rustls peer.
pub(crate) fn own_against_rustls(
    pki: &Pki,
    role: datapath::tls::Role,
    options: &TlsOptions,
) -> (Finished, RustlsPeer) {
    use datapath::tls::Role;
    let version = options.max_version;
    let (mut own, peer): (_, rustls::Connection) = match role {
        Role::Server => {
            let config = Arc::new(rustls_client(pki, version));
            let peer = rustls::ClientConnection::new(config, name()).unwrap();
            (
                Handshake::server(&pki.server(options)).unwrap(),
                peer.into(),
            )
        }
        Role::Client => {
            let config = Arc::new(rustls_server(pki, version));
            let peer = rustls::ServerConnection::new(config).unwrap();
            (
                Handshake::client(&pki.client(options), name()).unwrap(),
                peer.into(),
            )
        }
    };
    let mut peer = RustlsPeer(peer);
    let mut out = Vec::new();
    let mut progress = own.handle_bytes(&[], &mut out).unwrap();
    for _ in 0..8 {
        peer.read(&out).unwrap();
        out.clear();
        let flight = peer.flush();
        progress = own.handle_bytes(&flight, &mut out).unwrap();
    }
    assert_eq!(progress, Progress::Done);
    assert!(!peer.0.is_handshaking());
    (own.finish().unwrap(), peer)
}
