//! What a handshake is made from: options, a server's certificate generation, a client's profile.
//!
//! A [`ServerGeneration`] is one certificate with everything derived from it. A reload makes a new one
//! for new connections; open ones keep theirs, since crypto binding hashes the certificate that was
//! sent (MS-SSTP §3.3.5.2.3). It reads no files.

use core::fmt;
use std::cell::RefCell;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::{self as provider, cipher_suite, kx_group};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{
    ClientConfig, DigitallySignedStruct, KeyLog, RootCertStore, ServerConfig, SignatureScheme,
    SupportedCipherSuite, SupportedProtocolVersion,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::keys::Secret;
use super::{Error, KernelPlan, Suite, Version};

/// The hashes of a leaf certificate's DER bytes, for crypto binding (MS-SSTP §3.2.5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CertHashes {
    /// SHA-1.
    pub sha1: [u8; 20],
    /// SHA-256.
    pub sha256: [u8; 32],
}

impl CertHashes {
    /// The hashes of a certificate's DER bytes.
    #[must_use]
    pub fn of(der: &[u8]) -> Self {
        use aws_lc_rs::digest;
        let mut hashes = Self {
            sha1: [0; 20],
            sha256: [0; 32],
        };
        // The digests are as long as the arrays by definition of the algorithms.
        let sha1 = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, der);
        hashes.sha1.copy_from_slice(sha1.as_ref());
        hashes
            .sha256
            .copy_from_slice(digest::digest(&digest::SHA256, der).as_ref());
        hashes
    }
}

/// Who carries the records once the handshake is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecordLayerKind {
    /// Our own: in place, no allocation, keys can be handed over.
    #[default]
    Own,
    /// rustls' buffered connection: the reference, and the fallback.
    Rustls,
}

/// Which key exchanges are offered, best first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyExchange {
    /// X25519MLKEM768 first, then X25519, P-256, P-384.
    #[default]
    PreferPostQuantum,
    /// X25519MLKEM768 alone, hence TLS 1.3 alone.
    RequirePostQuantum,
    /// X25519, P-256, P-384: cheaper on both ends.
    ClassicOnly,
}

/// The choices that both roles have.
#[derive(Clone, Debug)]
pub struct TlsOptions {
    /// Lowest version spoken.
    pub min_version: Version,
    /// Highest version spoken.
    pub max_version: Version,
    /// AEADs allowed, best first; the server's order decides.
    pub suites: Vec<Suite>,
    /// Key exchanges allowed.
    pub key_exchange: KeyExchange,
    /// Client: whether the server's name is sent (RFC 6066 §3).
    pub sni: bool,
    /// Who carries the records.
    pub record_layer: RecordLayerKind,
    /// Lowers the number of AEAD blocks one key may seal (see [`super::Budget`]); never raises it.
    pub key_budget: Option<u64>,
    /// What the kernel seals and opens (own record layer only).
    pub kernel: KernelPlan,
    /// Where the secrets of every connection go, for looking into a capture. Never by default.
    pub key_log: Option<Arc<dyn KeyLog>>,
}

impl Default for TlsOptions {
    fn default() -> Self {
        Self {
            min_version: Version::Tls12,
            max_version: Version::Tls13,
            suites: default_suites(),
            key_exchange: KeyExchange::default(),
            sni: true,
            record_layer: RecordLayerKind::default(),
            key_budget: None,
            kernel: KernelPlan::default(),
            key_log: None,
        }
    }
}

/// AES-128-GCM is the fastest by far where the CPU has AES instructions, ChaCha20 where not.
fn default_suites() -> Vec<Suite> {
    let [aes128, aes256, chacha] = [Suite::Aes128Gcm, Suite::Aes256Gcm, Suite::ChaCha20Poly1305];
    if cpu_has_aes() {
        vec![aes128, aes256, chacha]
    } else {
        vec![chacha, aes128, aes256]
    }
}

#[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
fn cpu_has_aes() -> bool {
    std::arch::is_x86_feature_detected!("aes")
}

#[cfg(target_arch = "aarch64")]
fn cpu_has_aes() -> bool {
    std::arch::is_aarch64_feature_detected!("aes")
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "x86", target_arch = "aarch64")))]
const fn cpu_has_aes() -> bool {
    false
}

impl TlsOptions {
    fn provider(&self) -> Arc<CryptoProvider> {
        let mut cipher_suites: Vec<SupportedCipherSuite> = Vec::new();
        for suite in &self.suites {
            cipher_suites.extend(match suite {
                Suite::Aes128Gcm => [
                    cipher_suite::TLS13_AES_128_GCM_SHA256,
                    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
                    cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
                ],
                Suite::Aes256Gcm => [
                    cipher_suite::TLS13_AES_256_GCM_SHA384,
                    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
                    cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
                ],
                Suite::ChaCha20Poly1305 => [
                    cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
                    cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
                    cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
                ],
                #[cfg(any(test, feature = "testing"))]
                Suite::Null => continue,
            });
        }
        // rustls would offer suites of a version that it does not speak.
        let versions = self.versions();
        cipher_suites.retain(|suite| versions.is_empty() || versions.contains(&suite.version()));
        let kx_groups = match self.key_exchange {
            KeyExchange::PreferPostQuantum => vec![
                kx_group::X25519MLKEM768,
                kx_group::X25519,
                kx_group::SECP256R1,
                kx_group::SECP384R1,
            ],
            KeyExchange::RequirePostQuantum => vec![kx_group::X25519MLKEM768],
            KeyExchange::ClassicOnly => {
                vec![kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1]
            }
        };
        Arc::new(CryptoProvider {
            cipher_suites,
            kx_groups,
            ..provider::default_provider()
        })
    }

    fn versions(&self) -> Vec<&'static SupportedProtocolVersion> {
        use rustls::version::{TLS12, TLS13};
        let min_version = match self.key_exchange {
            KeyExchange::RequirePostQuantum => Version::Tls13,
            _ => self.min_version,
        };
        match (min_version, self.max_version) {
            (Version::Tls12, Version::Tls13) => vec![&TLS13, &TLS12],
            (Version::Tls13, Version::Tls13) => vec![&TLS13],
            (Version::Tls12, Version::Tls12) => vec![&TLS12],
            (Version::Tls13, Version::Tls12) => Vec::new(),
        }
    }

    fn key_log(&self) -> Arc<dyn KeyLog> {
        Arc::new(SecretTap {
            next: self.key_log.clone(),
        })
    }
}

fn setup(error: &rustls::Error) -> Error {
    Error::Setup(error.to_string().into())
}

/// How handshakes are made.
#[derive(Clone, Debug)]
pub(super) enum Engine<C> {
    Rustls(Arc<C>),
    #[cfg(any(test, feature = "testing"))]
    Null,
}

/// One certificate of a server, with the configuration made for it. Cheap to share.
#[derive(Debug)]
pub struct ServerGeneration {
    pub(super) engine: Engine<ServerConfig>,
    pub(super) hashes: CertHashes,
    pub(super) record_layer: RecordLayerKind,
    pub(super) key_budget: Option<u64>,
    pub(super) kernel: KernelPlan,
}

impl ServerGeneration {
    /// From the chain to send, leaf first, and the leaf's private key.
    ///
    /// # Errors
    /// [`Error::Setup`]: an empty chain, a key that is not the leaf's, options that exclude all.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        options: &TlsOptions,
    ) -> Result<Self, Error> {
        let leaf = chain
            .first()
            .ok_or_else(|| Error::Setup("the certificate chain is empty".into()))?;
        let hashes = CertHashes::of(leaf);
        let mut config = ServerConfig::builder_with_provider(options.provider())
            .with_protocol_versions(&options.versions())
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
            .map_err(|error| setup(&error))?;
        // Resumed sessions send no certificate and would carry the hash of an old one.
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        config.ignore_client_order = true;
        config.enable_secret_extraction = options.record_layer == RecordLayerKind::Own;
        config.key_log = options.key_log();
        Ok(Self {
            engine: Engine::Rustls(Arc::new(config)),
            hashes,
            record_layer: options.record_layer,
            key_budget: options.key_budget,
            kernel: options.kernel,
        })
    }

    /// A generation without secrecy whose certificate has these hashes, for simulation.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub const fn null(hashes: CertHashes) -> Self {
        Self {
            engine: Engine::Null,
            hashes,
            record_layer: RecordLayerKind::Own,
            key_budget: None,
            kernel: KernelPlan {
                tx: super::KernelUse::Never,
                rx: super::KernelUse::Never,
                rekeys: false,
            },
        }
    }

    /// The hashes of the leaf certificate.
    #[must_use]
    pub const fn hashes(&self) -> CertHashes {
        self.hashes
    }
}

/// What a client trusts and offers. Cheap to share.
#[derive(Debug)]
pub struct ClientProfile {
    pub(super) engine: Engine<ClientConfig>,
    pub(super) record_layer: RecordLayerKind,
    pub(super) key_budget: Option<u64>,
}

impl ClientProfile {
    /// Trusts servers whose chain ends in one of `roots` and whose certificate has the asked name.
    ///
    /// # Errors
    /// [`Error::Setup`]: no root that can be used, options that exclude all.
    pub fn new(
        roots: impl IntoIterator<Item = CertificateDer<'static>>,
        options: &TlsOptions,
    ) -> Result<Self, Error> {
        Self::trusting(roots, options.provider(), options)
    }

    /// As [`ClientProfile::new`], for measurements in which every handshake is to be the same: what is
    /// drawn for the hello comes from `random`, and `group` takes the place of the key exchange of its name.
    ///
    /// # Errors
    /// Those of [`ClientProfile::new`].
    #[cfg(any(test, feature = "testing"))]
    pub fn with_randomness(
        roots: impl IntoIterator<Item = CertificateDer<'static>>,
        random: &'static dyn rustls::crypto::SecureRandom,
        group: &'static dyn rustls::crypto::SupportedKxGroup,
        options: &TlsOptions,
    ) -> Result<Self, Error> {
        let mut provider = (*options.provider()).clone();
        provider.secure_random = random;
        for known in &mut provider.kx_groups {
            if known.name() == group.name() {
                *known = group;
            }
        }
        Self::trusting(roots, Arc::new(provider), options)
    }

    fn trusting(
        roots: impl IntoIterator<Item = CertificateDer<'static>>,
        provider: Arc<CryptoProvider>,
        options: &TlsOptions,
    ) -> Result<Self, Error> {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(roots);
        if store.is_empty() {
            return Err(Error::Setup("no usable root certificate".into()));
        }
        let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(
            Arc::new(store),
            Arc::clone(&provider),
        )
        .build()
        .map_err(|error| Error::Setup(error.to_string().into()))?;
        Self::with_verifier(provider, verifier, options)
    }

    /// Trusts every server. The connection is open to anyone in the middle; for load tests.
    ///
    /// # Errors
    /// [`Error::Setup`]: options that exclude all.
    pub fn danger_accept_any(options: &TlsOptions) -> Result<Self, Error> {
        let provider = options.provider();
        let verifier = Arc::new(AcceptAny {
            provider: Arc::clone(&provider),
        });
        Self::with_verifier(provider, verifier, options)
    }

    /// The profile that talks to [`ServerGeneration::null`].
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub const fn null() -> Self {
        Self {
            engine: Engine::Null,
            record_layer: RecordLayerKind::Own,
            key_budget: None,
        }
    }

    fn with_verifier(
        provider: Arc<CryptoProvider>,
        verifier: Arc<dyn ServerCertVerifier>,
        options: &TlsOptions,
    ) -> Result<Self, Error> {
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&options.versions())
            .map_err(|error| setup(&error))?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        config.resumption = rustls::client::Resumption::disabled();
        config.enable_early_data = false;
        config.enable_sni = options.sni;
        config.enable_secret_extraction = options.record_layer == RecordLayerKind::Own;
        config.key_log = options.key_log();
        Ok(Self {
            engine: Engine::Rustls(Arc::new(config)),
            record_layer: options.record_layer,
            key_budget: options.key_budget,
        })
    }
}

/// Accepts any certificate, but still wants the handshake signed by it.
#[derive(Debug)]
struct AcceptAny {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// The first application traffic secrets of a TLS 1.3 handshake (RFC 8446 §7.1).
#[derive(Default)]
pub(super) struct TrafficSecrets {
    pub(super) client: Option<Secret>,
    pub(super) server: Option<Secret>,
}

impl fmt::Debug for TrafficSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrafficSecrets").finish_non_exhaustive()
    }
}

thread_local! {
    static TAPPED: RefCell<TrafficSecrets> = RefCell::default();
}

/// Hears the traffic secrets from rustls, which gives out keys but not what the next ones follow
/// from. rustls calls it from within `process_new_packets`, on the thread of its caller.
#[derive(Debug)]
struct SecretTap {
    next: Option<Arc<dyn KeyLog>>,
}

impl KeyLog for SecretTap {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let copy = || Some(Zeroizing::new(secret.to_vec()));
        TAPPED.with_borrow_mut(|tapped| match label {
            "CLIENT_TRAFFIC_SECRET_0" => tapped.client = copy(),
            "SERVER_TRAFFIC_SECRET_0" => tapped.server = copy(),
            _ => {}
        });
        if let Some(next) = &self.next {
            next.log(label, client_random, secret);
        }
    }

    fn will_log(&self, label: &str) -> bool {
        label.ends_with("_TRAFFIC_SECRET_0")
            || self.next.as_ref().is_some_and(|next| next.will_log(label))
    }
}

/// Takes what rustls told this thread since the last call.
pub(super) fn take_tapped_secrets() -> TrafficSecrets {
    TAPPED.take()
}
