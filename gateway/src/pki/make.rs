//! The demo's own authority and the certificate it signs.
//!
//! ECDSA P-256 with SHA-256, serverAuth, names in subjectAltName, 30 days. The authority's key is
//! dropped as soon as it has signed once: who trusts this CA trusts that one certificate, not us.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use datapath::output::Entropy as _;
use datapath::sys::entropy::SystemEntropy;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, SerialNumber,
};
use zeroize::Zeroizing;

use super::Date;

/// Far below the 397 days that Apple and browsers allow.
const VALIDITY: Duration = Duration::from_secs(30 * 86_400);
/// A client's clock may be a little behind.
const BACKDATE: Duration = Duration::from_secs(86_400);

/// A fresh CA and a server certificate by it, in PEM.
#[derive(Debug)]
pub(crate) struct DevPki {
    /// For clients to trust.
    pub(crate) ca: String,
    /// The server's certificate, then the CA's.
    pub(crate) chain: String,
    pub(crate) key: Zeroizing<String>,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MakeError {
    #[error("\"{0}\" is neither an IP address nor a DNS name")]
    Name(String),
    #[error("cannot make a certificate: {0}")]
    Rcgen(#[from] rcgen::Error),
}

impl DevPki {
    /// For these names: DNS names or IP addresses, the first of them the main one.
    pub(crate) fn new(names: &[String], now: SystemTime) -> Result<Self, MakeError> {
        let ca_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        // Each has a name of its own, so that one left in a client's store is not taken for another.
        let mut tag = [0; 4];
        SystemEntropy.fill(&mut tag);
        let tag = u32::from_be_bytes(tag);
        let mut ca = params(
            now,
            &format!("sstp-gw demo CA {tag:08x} {}", Date::from(now)),
        );
        // No certificate below it may sign another.
        ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let ca_certificate = ca.self_signed(&ca_key)?;

        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut server = params(now, names.first().map_or("sstp-gw", String::as_str));
        server.subject_alt_names = names
            .iter()
            .map(|name| san(name))
            .collect::<Result<_, _>>()?;
        server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        server.use_authority_key_identifier_extension = true;
        let certificate = server.signed_by(&key, &Issuer::from_params(&ca, &ca_key))?;

        let ca = ca_certificate.pem();
        Ok(Self {
            chain: format!("{}{ca}", certificate.pem()),
            ca,
            key: Zeroizing::new(key.serialize_pem()),
        })
    }
}

fn params(now: SystemTime, common_name: &str) -> CertificateParams {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let now = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let mut params = CertificateParams::default();
    params.not_before = epoch + now.saturating_sub(BACKDATE);
    params.not_after = epoch + now + VALIDITY;
    params.distinguished_name = rcgen::DistinguishedName::new();
    // RFC 5280's bound for a common name is 64 characters.
    let common_name: String = common_name.chars().take(64).collect();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    let mut serial = [0; 16];
    SystemEntropy.fill(&mut serial);
    // Positive, and without a leading zero byte (RFC 5280 §4.1.2.2).
    serial[0] = serial[0] & 0x7F | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params
}

fn san(name: &str) -> Result<SanType, MakeError> {
    if let Ok(ip) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(ip));
    }
    let wrong = || MakeError::Name(name.to_owned());
    if rustls_pki_types::DnsName::try_from(name).is_err() {
        return Err(wrong());
    }
    name.try_into().map(SanType::DnsName).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::RootCertStore;
    use rustls::client::WebPkiServerVerifier;
    use rustls_pki_types::pem::PemObject as _;
    use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

    use super::*;

    fn verify(pki: &DevPki, name: &str, now: SystemTime) -> Result<(), rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(pki.ca.as_bytes()).unwrap())?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .unwrap();
        let chain: Vec<_> = CertificateDer::pem_slice_iter(pki.chain.as_bytes())
            .collect::<Result<_, _>>()
            .unwrap();
        let now = UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH).unwrap());
        let name = ServerName::try_from(name.to_owned()).unwrap();
        rustls::client::danger::ServerCertVerifier::verify_server_cert(
            verifier.as_ref(),
            &chain[0],
            &chain[1..],
            &name,
            &[],
            now,
        )
        .map(|_| ())
    }

    #[test]
    fn a_verifier_that_trusts_the_ca_accepts_its_names_and_no_others() {
        let now = SystemTime::now();
        let names = ["vpn.example", "192.0.2.7", "2001:db8::7"].map(str::to_owned);
        let pki = DevPki::new(&names, now).unwrap();
        for name in &names {
            verify(&pki, name, now).unwrap();
        }
        assert!(verify(&pki, "other.example", now).is_err());
        assert!(verify(&pki, "vpn.example", now + VALIDITY + BACKDATE).is_err());
        let other = DevPki::new(&names, now).unwrap();
        let crossed = DevPki {
            ca: other.ca,
            ..pki
        };
        assert!(verify(&crossed, "vpn.example", now).is_err());
    }

    #[test]
    fn the_certificate_has_what_apple_and_windows_ask_for() {
        let now = SystemTime::now();
        let pki = DevPki::new(&["vpn.example".to_owned()], now).unwrap();
        let der = CertificateDer::from_pem_slice(pki.chain.as_bytes()).unwrap();
        let (_, certificate) = x509_parser::parse_x509_certificate(&der).unwrap();
        let usage = certificate.extended_key_usage().unwrap().unwrap();
        assert!(usage.value.server_auth);
        assert!(certificate.subject_alternative_name().unwrap().is_some());
        let validity = certificate.validity();
        let days = (validity.not_after.timestamp() - validity.not_before.timestamp()) / 86_400;
        assert!(days <= 397, "{days}");
        // ecdsa-with-SHA256
        assert_eq!(
            certificate.signature_algorithm.algorithm.to_id_string(),
            "1.2.840.10045.4.3.2"
        );
        assert!(certificate.raw_serial().len() <= 20);
        assert!(!certificate.is_ca());
    }

    #[test]
    fn a_name_that_is_none_is_refused() {
        for name in ["", "a b", "-x", "ü.example"] {
            assert!(
                DevPki::new(&[name.to_owned()], SystemTime::now()).is_err(),
                "{name}"
            );
        }
    }
}
