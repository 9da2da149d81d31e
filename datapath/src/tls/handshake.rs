//! The handshake, over byte slices, for both roles.
//!
//! rustls does it. It is fed one record at a time and not one more than the handshake needs, so
//! whatever follows the last one stays with us, unread, for the record layer that comes next. Then
//! the keys are taken out of rustls, or rustls is kept, as the options say.
//!
//! It has no clock: the owner bounds its time. Its bytes and records are bounded here.

use std::io::{self, Cursor};
use std::sync::Arc;

use rustls::{ClientConnection, ServerConnection};
use rustls_pki_types::ServerName;

use super::config::{Engine, TrafficSecrets, take_tapped_secrets};
use super::keys::Keys;
use super::record::RecordLayer;
use super::reference::Reference;
use super::{
    CertHashes, ClientProfile, Connection, Error, HEADER_LEN, KernelPlan, Limit, RecordLayerKind,
    Role, ServerGeneration, Suite, Version, record_len,
};

/// Most bytes the peer may send for a handshake: long chains fit, floods do not.
pub const HANDSHAKE_BYTES_MAX: usize = 64 * 1024;

/// Most records the peer may cut them into: 64 KiB in the smallest fragments that OpenSSL makes (512
/// bytes), twice over.
pub const HANDSHAKE_RECORDS_MAX: usize = 256;

/// How far a handshake is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// More bytes are needed.
    Pending,
    /// [`Handshake::finish`] can be called.
    Done,
}

/// What was agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// The version.
    pub version: Version,
    /// The AEAD.
    pub suite: Suite,
    /// The cipher suite's registered name.
    pub suite_name: &'static str,
    /// The key exchange's registered name.
    pub group: &'static str,
    /// Whether the key exchange withstands a quantum computer.
    pub post_quantum: bool,
    /// The leaf certificate of this very handshake: sent (server) or received (client).
    pub certificate: CertHashes,
    /// The name the client asked for (server).
    pub sni: Option<String>,
}

/// All that a finished handshake leaves.
#[derive(Debug)]
pub struct Finished {
    /// Carries the data from now on.
    pub connection: Connection,
    /// Received, but not part of the handshake: records, the last perhaps not whole.
    pub rest: Vec<u8>,
    /// Plaintext that came out of the handshake's last records: nothing, today.
    pub plaintext: Vec<u8>,
    /// What was agreed on.
    pub info: Info,
}

#[derive(Debug)]
enum Driver {
    Rustls(Box<rustls::Connection>),
    #[cfg(any(test, feature = "testing"))]
    Null(super::null::NullHandshake),
}

/// A handshake under way.
#[derive(Debug)]
pub struct Handshake {
    driver: Driver,
    role: Role,
    certificate: Option<CertHashes>,
    record_layer: RecordLayerKind,
    key_budget: Option<u64>,
    kernel: KernelPlan,
    secrets: TrafficSecrets,
    received: Vec<u8>,
    records: usize,
    bytes: usize,
    progress: Progress,
    failed: bool,
}

impl Handshake {
    /// The server's side, under this generation's certificate.
    ///
    /// # Errors
    /// [`Error::Internal`]: rustls refuses the configuration.
    pub fn server(generation: &Arc<ServerGeneration>) -> Result<Self, Error> {
        let driver = match &generation.engine {
            Engine::Rustls(config) => {
                let connection = ServerConnection::new(Arc::clone(config))?;
                Driver::Rustls(Box::new(connection.into()))
            }
            #[cfg(any(test, feature = "testing"))]
            Engine::Null => Driver::Null(super::null::NullHandshake::server(generation.hashes)),
        };
        let mut handshake = Self::new(
            driver,
            Role::Server,
            Some(generation.hashes),
            generation.record_layer,
            generation.key_budget,
        );
        handshake.kernel = generation.kernel;
        Ok(handshake)
    }

    /// The client's side, towards the server called `name`; sends the name unless it is an address.
    ///
    /// # Errors
    /// [`Error::Internal`]: no randomness.
    pub fn client(profile: &Arc<ClientProfile>, name: ServerName<'static>) -> Result<Self, Error> {
        let driver = match &profile.engine {
            Engine::Rustls(config) => {
                let connection = ClientConnection::new(Arc::clone(config), name)?;
                Driver::Rustls(Box::new(connection.into()))
            }
            #[cfg(any(test, feature = "testing"))]
            Engine::Null => Driver::Null(super::null::NullHandshake::client(&name)),
        };
        let (layer, budget) = (profile.record_layer, profile.key_budget);
        Ok(Self::new(driver, Role::Client, None, layer, budget))
    }

    const fn new(
        driver: Driver,
        role: Role,
        certificate: Option<CertHashes>,
        record_layer: RecordLayerKind,
        key_budget: Option<u64>,
    ) -> Self {
        Self {
            driver,
            role,
            certificate,
            record_layer,
            key_budget,
            kernel: KernelPlan {
                tx: super::KernelUse::Never,
                rx: super::KernelUse::Never,
                rekeys: false,
            },
            secrets: TrafficSecrets {
                client: None,
                server: None,
            },
            received: Vec::new(),
            records: 0,
            bytes: 0,
            progress: Progress::Pending,
            failed: false,
        }
    }

    /// Takes what arrived and appends what must be sent. A client is started with no bytes.
    ///
    /// # Errors
    /// Ends the handshake; what was appended to `out`, an alert, should still be sent.
    pub fn handle_bytes(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<Progress, Error> {
        if self.failed {
            return Err(Error::Closed);
        }
        // Whatever another connection of this thread made rustls tell is not for us.
        drop(take_tapped_secrets());
        self.received.extend_from_slice(bytes);
        let mut consumed = 0;
        let result = self.drive(&mut consumed, out);
        self.received.drain(..consumed.min(self.received.len()));
        self.failed = result.is_err();
        result
    }

    fn drive(&mut self, consumed: &mut usize, out: &mut Vec<u8>) -> Result<Progress, Error> {
        self.write(out)?;
        while self.progress == Progress::Pending {
            let unread = self.received.get(*consumed..).unwrap_or_default();
            let len = match record_len(unread) {
                Ok(None) => break,
                Ok(Some(len)) => len,
                Err(error) => {
                    // rustls knows which alert is owed, and under which keys.
                    let header = unread.get(..HEADER_LEN).unwrap_or_default();
                    let _same_error = self.driver.handle_record(header);
                    self.write(out)?;
                    return Err(error);
                }
            };
            let Some(record) = unread.get(..len) else {
                break;
            };
            self.records = self.records.saturating_add(1);
            self.bytes = self.bytes.saturating_add(len);
            if self.bytes > HANDSHAKE_BYTES_MAX {
                return Err(Error::Exhausted(Limit::HandshakeBytes));
            }
            if self.records > HANDSHAKE_RECORDS_MAX {
                return Err(Error::Exhausted(Limit::HandshakeRecords));
            }
            let handled = self.driver.handle_record(record);
            *consumed = consumed.saturating_add(len);
            // Alerts too: they tell the peer why.
            self.write(out)?;
            handled?;
        }
        Ok(self.progress)
    }

    /// Appends what rustls wants sent, and takes the secrets it has told of.
    fn write(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        self.driver.write(out)?;
        let tapped = take_tapped_secrets();
        self.secrets.client = tapped.client.or_else(|| self.secrets.client.take());
        self.secrets.server = tapped.server.or_else(|| self.secrets.server.take());
        if self.driver.is_done() {
            self.progress = Progress::Done;
        }
        Ok(())
    }

    /// Ends the handshake and starts the connection.
    ///
    /// # Errors
    /// [`Error::NotDone`] before [`Progress::Done`]; [`Error::Internal`] where rustls' secrets do
    /// not fit together.
    pub fn finish(self) -> Result<Finished, Error> {
        if self.failed || self.progress != Progress::Done {
            return Err(Error::NotDone);
        }
        let (connection, info) = match self.driver {
            #[cfg(any(test, feature = "testing"))]
            Driver::Null(null) => null.finish(self.role, self.key_budget)?,
            Driver::Rustls(rustls) => {
                let info = info(&rustls, self.certificate)?;
                let connection = match self.record_layer {
                    RecordLayerKind::Rustls => {
                        Connection::from_reference(Reference::new(*rustls, &info, self.key_budget))
                    }
                    RecordLayerKind::Own => {
                        let (tx_secret, rx_secret) = match self.role {
                            Role::Client => (self.secrets.client, self.secrets.server),
                            Role::Server => (self.secrets.server, self.secrets.client),
                        };
                        let secrets = rustls.dangerous_extract_secrets()?;
                        let is_tls13 = info.version == Version::Tls13;
                        if is_tls13 != tx_secret.is_some() || is_tls13 != rx_secret.is_some() {
                            return Err(Error::Internal("a traffic secret is missing".into()));
                        }
                        let tx = Keys::from_extracted(&secrets.tx.1, tx_secret)?;
                        let rx = Keys::from_extracted(&secrets.rx.1, rx_secret)?;
                        let layer = RecordLayer::new(
                            self.role,
                            info.version,
                            (secrets.tx.0, tx),
                            (secrets.rx.0, rx),
                            self.key_budget,
                        )?;
                        Connection::from_own(layer.with_kernel(self.kernel))
                    }
                };
                (connection, info)
            }
        };
        Ok(Finished {
            connection,
            rest: self.received,
            plaintext: Vec::new(),
            info,
        })
    }
}

impl Driver {
    fn handle_record(&mut self, record: &[u8]) -> Result<(), Error> {
        match self {
            Self::Rustls(rustls) => {
                let mut bytes = Cursor::new(record);
                while bytes.position() < record.len() as u64 {
                    match rustls.read_tls(&mut bytes) {
                        Ok(0) => return Err(Error::Internal("rustls stopped reading".into())),
                        Ok(_) => {}
                        Err(error) => return Err(internal(&error)),
                    }
                    rustls.process_new_packets()?;
                }
                Ok(())
            }
            #[cfg(any(test, feature = "testing"))]
            Self::Null(null) => null.handle_record(record),
        }
    }

    fn write(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        match self {
            Self::Rustls(rustls) => {
                while rustls.wants_write() {
                    rustls.write_tls(out).map_err(|error| internal(&error))?;
                }
            }
            #[cfg(any(test, feature = "testing"))]
            Self::Null(null) => null.write(out),
        }
        Ok(())
    }

    fn is_done(&self) -> bool {
        match self {
            Self::Rustls(rustls) => !rustls.is_handshaking(),
            #[cfg(any(test, feature = "testing"))]
            Self::Null(null) => null.is_done(),
        }
    }
}

pub(super) fn internal(error: &io::Error) -> Error {
    Error::Internal(error.to_string().into())
}

fn info(rustls: &rustls::Connection, sent: Option<CertHashes>) -> Result<Info, Error> {
    use rustls::CipherSuite as C;
    let unknown = |what: &'static str| Error::Internal(what.into());
    let version = match rustls.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_2) => Version::Tls12,
        Some(rustls::ProtocolVersion::TLSv1_3) => Version::Tls13,
        _ => return Err(unknown("no version was agreed on")),
    };
    let cipher_suite = rustls
        .negotiated_cipher_suite()
        .ok_or_else(|| unknown("no suite was agreed on"))?
        .suite();
    let suite = match cipher_suite {
        C::TLS13_AES_128_GCM_SHA256
        | C::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
        | C::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => Suite::Aes128Gcm,
        C::TLS13_AES_256_GCM_SHA384
        | C::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
        | C::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => Suite::Aes256Gcm,
        C::TLS13_CHACHA20_POLY1305_SHA256
        | C::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
        | C::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => Suite::ChaCha20Poly1305,
        _ => return Err(unknown("an unknown suite was agreed on")),
    };
    let group = rustls
        .negotiated_key_exchange_group()
        .map(|group| group.name());
    let certificate = match sent {
        Some(sent) => sent,
        None => rustls
            .peer_certificates()
            .and_then(|chain| chain.first())
            .map(|leaf| CertHashes::of(leaf))
            .ok_or_else(|| unknown("the server sent no certificate"))?,
    };
    let sni = match rustls {
        rustls::Connection::Server(server) => server.server_name().map(str::to_owned),
        rustls::Connection::Client(_) => None,
    };
    Ok(Info {
        version,
        suite,
        suite_name: cipher_suite.as_str().unwrap_or("unknown"),
        group: group.and_then(|group| group.as_str()).unwrap_or("unknown"),
        post_quantum: group == Some(rustls::NamedGroup::X25519MLKEM768),
        certificate,
        sni,
    })
}
