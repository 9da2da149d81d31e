//! Loads a certificate chain and its key, and says in words what is wrong with them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::sign::{CertifiedKey, SigningKey};
use rustls_pki_types::pem::{PemObject as _, SectionKind};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::X509Certificate;
use x509_parser::public_key::PublicKey;

use super::Date;
use crate::files::{self, FileError};

const DAY: i64 = 86_400;
/// When an operator should begin to worry.
const EXPIRY_WARNING_DAYS: i64 = 21;
/// What Apple's clients allow a certificate of a private CA.
const VALIDITY_DAYS_MAX: i64 = 825;

/// Why a certificate or key cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{0} has no certificate in it: expected a PEM file, the server's certificate first")]
    NoCertificate(PathBuf),
    #[error("{0} holds a private key, not a certificate; were `certificate` and `key` swapped?")]
    KeyNotCertificate(PathBuf),
    #[error("{0} holds a certificate, not a private key; were `certificate` and `key` swapped?")]
    CertificateNotKey(PathBuf),
    #[error(
        "{0} is not PEM text; if it is DER: openssl x509 -inform der -in FILE -out FILE.pem; \
         if it is PKCS #12 (.pfx): openssl pkcs12 -in FILE -nodes -out FILE.pem"
    )]
    NotPem(PathBuf),
    #[error("{path} is broken PEM: {error}")]
    Pem { path: PathBuf, error: String },
    #[error("certificate {number} of {path} cannot be read: {error}")]
    Certificate {
        path: PathBuf,
        number: usize,
        error: String,
    },
    #[error(
        "the chain in {path} is out of order: certificate {number} ({subject}) did not issue the one \
         before it, whose issuer is {issuer}; put each certificate's issuer after it"
    )]
    Order {
        path: PathBuf,
        number: usize,
        subject: String,
        issuer: String,
    },
    #[error("the first certificate of {0} is an authority's; put the server's own first")]
    AuthorityFirst(PathBuf),
    #[error("{0} has no private key in it")]
    NoKey(PathBuf),
    #[error(
        "the key in {0} is encrypted, and nobody is there to type its password; \
         run: openssl pkey -in FILE -out FILE.new"
    )]
    EncryptedKey(PathBuf),
    #[error("{0} holds more than one private key; keep one")]
    SeveralKeys(PathBuf),
    #[error("the key in {path} cannot be used: {error}")]
    Key { path: PathBuf, error: String },
    #[error("the key in {key} is not that of the certificate in {certificate}")]
    Mismatch { key: PathBuf, certificate: PathBuf },
}

/// The server's certificate and those that lead to a root, in order.
#[derive(Debug)]
pub(crate) struct Chain {
    path: PathBuf,
    certificates: Vec<CertificateDer<'static>>,
}

impl Chain {
    /// Reads a PEM file.
    pub(crate) fn load(path: &Path) -> Result<Self, LoadError> {
        let text = match files::read_text(path) {
            Err(FileError::NotText(path)) => return Err(LoadError::NotPem(path)),
            text => text?,
        };
        let path = path.to_owned();
        let mut certificates = Vec::new();
        let mut keys = 0;
        for section in sections(&path, &text)? {
            match section {
                (SectionKind::Certificate, der) => certificates.push(CertificateDer::from(der)),
                (kind, _) if is_key(kind) => keys += 1,
                _ => {}
            }
        }
        if certificates.is_empty() {
            return Err(if keys > 0 {
                LoadError::KeyNotCertificate(path)
            } else {
                LoadError::NoCertificate(path)
            });
        }
        let chain = Self { path, certificates };
        chain.check_order()?;
        Ok(chain)
    }

    fn check_order(&self) -> Result<(), LoadError> {
        let mut parsed = Vec::new();
        for (index, der) in self.certificates.iter().enumerate() {
            let failed = |error: String| LoadError::Certificate {
                path: self.path.clone(),
                number: index + 1,
                error,
            };
            let (rest, certificate) = x509_parser::parse_x509_certificate(der)
                .map_err(|error| failed(error.to_string()))?;
            if !rest.is_empty() {
                return Err(failed("there are bytes behind its end".to_owned()));
            }
            parsed.push(certificate);
        }
        if parsed.len() > 1 && parsed[0].is_ca() {
            return Err(LoadError::AuthorityFirst(self.path.clone()));
        }
        for (index, pair) in parsed.windows(2).enumerate() {
            if !can_have_issued(&pair[1], &pair[0]) {
                return Err(LoadError::Order {
                    path: self.path.clone(),
                    number: index + 2,
                    subject: pair[1].subject().to_string(),
                    issuer: pair[0].issuer().to_string(),
                });
            }
        }
        Ok(())
    }

    fn leaf(&self) -> Option<X509Certificate<'_>> {
        let der = self.certificates.first()?;
        x509_parser::parse_x509_certificate(der)
            .ok()
            .map(|(_, leaf)| leaf)
    }

    /// What clients will not like, though the gateway can run with it.
    pub(crate) fn warnings(&self, now: SystemTime) -> Vec<String> {
        let Some(leaf) = self.leaf() else {
            return Vec::new();
        };
        let mut warnings = Vec::new();
        validity_warnings(&leaf, Date::from(now), &mut warnings);
        if names(&leaf).is_empty() {
            warnings.push(
                "it has no name in subjectAltName; clients refuse it, whatever its common name says".to_owned(),
            );
        }
        match leaf.extended_key_usage() {
            Ok(Some(usage)) if !usage.value.server_auth && !usage.value.any => warnings.push(
                "its extended key usage lacks serverAuth; Windows refuses it with 0x80070040"
                    .to_owned(),
            ),
            Ok(None) => warnings.push(
                "it has no extended key usage; Windows and Apple want serverAuth there".to_owned(),
            ),
            _ => {}
        }
        if let Ok(PublicKey::RSA(rsa)) = leaf.public_key().parsed()
            && rsa.key_size() < 2048
        {
            warnings.push(format!(
                "its RSA key has {} bits; clients want 2048 or more",
                rsa.key_size()
            ));
        }
        // sha1WithRSAEncryption, md5WithRSAEncryption, ecdsa-with-SHA1
        let weak = [
            "1.2.840.113549.1.1.5",
            "1.2.840.113549.1.1.4",
            "1.2.840.10045.4.1",
        ];
        if weak.contains(&leaf.signature_algorithm.algorithm.to_id_string().as_str()) {
            warnings.push("its signature uses SHA-1 or MD5; clients want SHA-256".to_owned());
        }
        if leaf.issuer().as_raw() == leaf.subject().as_raw() {
            warnings.push(
                "it is self-signed; Apple's clients refuse that, others must be told to trust it itself".to_owned(),
            );
        } else if leaf.is_ca() {
            warnings.push("it is an authority's, not a server's".to_owned());
        }
        warnings
    }

    /// The DNS names and addresses the server's certificate is for.
    pub(crate) fn names(&self) -> Vec<String> {
        self.leaf().map(|leaf| names(&leaf)).unwrap_or_default()
    }

    /// When the server's certificate ends.
    pub(crate) fn not_after(&self) -> Option<Date> {
        self.leaf()
            .map(|leaf| Date(leaf.validity().not_after.timestamp()))
    }
}

/// By names, and by key identifiers where both have one: a renewed authority keeps its name.
fn can_have_issued(issuer: &X509Certificate<'_>, subject: &X509Certificate<'_>) -> bool {
    let wanted =
        subject
            .iter_extensions()
            .find_map(|extension| match extension.parsed_extension() {
                ParsedExtension::AuthorityKeyIdentifier(id) => {
                    id.key_identifier.as_ref().map(|id| id.0)
                }
                _ => None,
            });
    let own = issuer
        .iter_extensions()
        .find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0),
            _ => None,
        });
    let same_key = match (wanted, own) {
        (Some(wanted), Some(own)) => wanted == own,
        _ => true,
    };
    subject.issuer().as_raw() == issuer.subject().as_raw() && same_key
}

fn validity_warnings(leaf: &X509Certificate<'_>, now: Date, warnings: &mut Vec<String>) {
    let (begin, end) = (
        Date(leaf.validity().not_before.timestamp()),
        Date(leaf.validity().not_after.timestamp()),
    );
    if now > end {
        warnings.push(format!(
            "it expired on {end}, and it is {now}: clients refuse it; renew it"
        ));
    } else if now < begin {
        warnings.push(format!(
            "it is valid from {begin} only, and it is {now}; is the clock right?"
        ));
    } else if end.0 - now.0 <= EXPIRY_WARNING_DAYS * DAY {
        warnings.push(format!(
            "it expires in {} days, on {end}; renew it",
            (end.0 - now.0) / DAY
        ));
    }
    let days = (end.0 - begin.0) / DAY;
    if days > VALIDITY_DAYS_MAX {
        warnings.push(format!(
            "it is valid for {days} days; Apple's clients refuse more than {VALIDITY_DAYS_MAX}"
        ));
    }
}

fn names(leaf: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(alternatives)) = leaf.subject_alternative_name() else {
        return Vec::new();
    };
    alternatives
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(bytes) => match bytes.len() {
                4 => <[u8; 4]>::try_from(*bytes)
                    .ok()
                    .map(|ip| std::net::Ipv4Addr::from(ip).to_string()),
                16 => <[u8; 16]>::try_from(*bytes)
                    .ok()
                    .map(|ip| std::net::Ipv6Addr::from(ip).to_string()),
                _ => None,
            },
            _ => None,
        })
        .collect()
}

/// A private key.
pub(crate) struct Key {
    path: PathBuf,
    der: PrivateKeyDer<'static>,
    signer: Arc<dyn SigningKey>,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({}, [redacted])", self.path.display())
    }
}

impl Key {
    /// Reads a PEM file that nobody else may read.
    pub(crate) fn load(path: &Path) -> Result<Self, LoadError> {
        let text = match files::read_secret(path) {
            Err(FileError::NotText(path)) => return Err(LoadError::NotPem(path)),
            text => text?,
        };
        let path = path.to_owned();
        if text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----")
            || text.contains("Proc-Type: 4,ENCRYPTED")
        {
            return Err(LoadError::EncryptedKey(path));
        }
        let (mut keys, mut certificates) = (Vec::new(), 0);
        for (kind, der) in sections(&path, &text)? {
            match PrivateKeyDer::from_pem(kind, der) {
                Some(key) => keys.push(key),
                None => certificates += usize::from(kind == SectionKind::Certificate),
            }
        }
        let der = match (keys.pop(), keys.is_empty()) {
            (Some(key), true) => key,
            (Some(_), false) => return Err(LoadError::SeveralKeys(path)),
            (None, _) if certificates > 0 => return Err(LoadError::CertificateNotKey(path)),
            (None, _) => return Err(LoadError::NoKey(path)),
        };
        let signer =
            rustls::crypto::aws_lc_rs::sign::any_supported_type(&der).map_err(|error| {
                LoadError::Key {
                    path: path.clone(),
                    error: error.to_string(),
                }
            })?;
        Ok(Self { path, der, signer })
    }
}

/// A chain and the key that belongs to it.
pub(crate) struct Identity {
    chain: Chain,
    key: PrivateKeyDer<'static>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("chain", &self.chain)
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// Checks that the key is that of the first certificate.
    pub(crate) fn new(chain: Chain, key: Key) -> Result<Self, LoadError> {
        CertifiedKey::new(chain.certificates.clone(), key.signer)
            .keys_match()
            .map_err(|_| LoadError::Mismatch {
                key: key.path,
                certificate: chain.path.clone(),
            })?;
        Ok(Self {
            chain,
            key: key.der,
        })
    }

    /// The certificates, the server's first.
    pub(crate) fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.chain.certificates
    }

    /// The server's key.
    pub(crate) const fn key(&self) -> &PrivateKeyDer<'static> {
        &self.key
    }

    /// The chain it was made of.
    pub(crate) const fn chain(&self) -> &Chain {
        &self.chain
    }
}

fn is_key(kind: SectionKind) -> bool {
    matches!(
        kind,
        SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey
    )
}

fn sections(path: &Path, text: &str) -> Result<Vec<(SectionKind, Vec<u8>)>, LoadError> {
    if !text.contains("-----BEGIN ") && !text.trim().is_empty() {
        return Err(LoadError::NotPem(path.to_owned()));
    }
    <(SectionKind, Vec<u8>)>::pem_slice_iter(text.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| LoadError::Pem {
            path: path.to_owned(),
            error: error.to_string(),
        })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{CertificateParams, KeyPair};

    use super::*;
    use crate::pki::DevPki;

    struct Fixture {
        dir: tempfile::TempDir,
        pki: DevPki,
    }

    fn fixture() -> Fixture {
        Fixture {
            dir: tempfile::tempdir().unwrap(),
            pki: DevPki::new(&["vpn.example".to_owned()], SystemTime::now()).unwrap(),
        }
    }

    impl Fixture {
        fn file(&self, name: &str, text: &[u8]) -> PathBuf {
            let path = self.dir.path().join(name);
            files::replace(&path, text, 0o600).unwrap();
            path
        }
    }

    #[test]
    fn what_we_make_we_load() {
        let fixture = fixture();
        let chain = Chain::load(&fixture.file("chain", fixture.pki.chain.as_bytes())).unwrap();
        let key = Key::load(&fixture.file("key", fixture.pki.key.as_bytes())).unwrap();
        assert_eq!(chain.warnings(SystemTime::now()), Vec::<String>::new());
        assert_eq!(chain.names(), ["vpn.example"]);
        assert!(!format!("{key:?}").contains("PRIVATE"));
        let identity = Identity::new(chain, key).unwrap();
        assert_eq!(identity.certificates().len(), 2);
    }

    #[test]
    fn every_mistake_has_its_words() {
        let fixture = fixture();
        let DevPki { ca, chain, key } = &fixture.pki;
        let leaf = chain.strip_suffix(ca.as_str()).unwrap();
        let other = DevPki::new(&["other.example".to_owned()], SystemTime::now()).unwrap();
        let chains: [(Vec<u8>, &str); 7] = [
            (Vec::new(), "no certificate in it"),
            (
                key.as_bytes().to_vec(),
                "were `certificate` and `key` swapped?",
            ),
            (vec![0x30, 0x82, 0xFF, 0xFF], "not PEM text"),
            (b"hello".to_vec(), "not PEM text"),
            (
                format!("{ca}{leaf}").into_bytes(),
                "put the server's own first",
            ),
            (format!("{leaf}{}", other.ca).into_bytes(), "out of order"),
            (leaf.as_bytes()[..leaf.len() / 2].to_vec(), "broken PEM"),
        ];
        for (bytes, words) in chains {
            let error = Chain::load(&fixture.file("chain", &bytes))
                .unwrap_err()
                .to_string();
            assert!(error.contains(words), "{error} / {words}");
        }
        let encrypted =
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        for (text, words) in [
            ("", "no private key in it"),
            (chain.as_str(), "were `certificate` and `key` swapped?"),
            (encrypted, "is encrypted"),
            (
                &format!("{}{}", key.as_str(), other.key.as_str()),
                "more than one",
            ),
            (
                "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
                "cannot be used",
            ),
        ] {
            let error = Key::load(&fixture.file("key", text.as_bytes()))
                .unwrap_err()
                .to_string();
            assert!(error.contains(words), "{error} / {words}");
        }
        let chain = Chain::load(&fixture.file("chain", chain.as_bytes())).unwrap();
        let key = Key::load(&fixture.file("key", other.key.as_bytes())).unwrap();
        let error = Identity::new(chain, key).unwrap_err().to_string();
        assert!(error.contains("is not that of the certificate"), "{error}");
    }

    #[test]
    fn what_clients_dislike_is_warned_of() {
        let fixture = fixture();
        let now = SystemTime::now();
        let chain = Chain::load(&fixture.file("chain", fixture.pki.chain.as_bytes())).unwrap();
        let after = |days: u64| {
            chain
                .warnings(now + Duration::from_secs(days * 86_400))
                .join("; ")
        };
        assert!(after(20).contains("expires in"), "{}", after(20));
        assert!(after(40).contains("it expired on"), "{}", after(40));

        let key = KeyPair::generate().unwrap();
        let bare = CertificateParams::default()
            .self_signed(&key)
            .unwrap()
            .pem();
        let warnings = Chain::load(&fixture.file("bare", bare.as_bytes()))
            .unwrap()
            .warnings(now)
            .join("; ");
        for words in [
            "no name in subjectAltName",
            "no extended key usage",
            "self-signed",
            "Apple's clients refuse more",
        ] {
            assert!(warnings.contains(words), "{warnings} / {words}");
        }
    }
}
