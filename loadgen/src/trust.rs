//! Whom to trust: certificate authorities from a file, from the system, or anybody.

use std::path::{Path, PathBuf};
use std::{fmt, io};

use datapath::tls::{self, ClientProfile, TlsOptions};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::{self, PemObject};

use crate::flags::Access;

/// Where distributions keep the authorities they trust: Debian, Red Hat, SUSE, Alpine.
const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// No file of authorities is longer.
const FILE_LEN_MAX: u64 = 16 << 20;

/// Who is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// The authorities in this file.
    File(PathBuf),
    /// The authorities of this system.
    System,
    /// Whoever answers.
    Anybody,
}

/// Why nobody can be trusted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{path}: {error}")]
    Read { path: PathBuf, error: io::Error },
    #[error("{0}: there is no certificate in it (PEM or DER)")]
    NoCertificate(PathBuf),
    #[error(
        "this system has no list of certificate authorities where one is usually kept \
         (Debian: the package ca-certificates); name one by --ca"
    )]
    NoSystemBundle,
    #[error(transparent)]
    Tls(#[from] tls::Error),
}

impl fmt::Display for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "verified by {}", path.display()),
            Self::System => f.write_str("verified by this system's authorities"),
            Self::Anybody => f.write_str("NOT verified"),
        }
    }
}

impl Trust {
    /// Whom the flags say to trust.
    pub(crate) fn of(access: &Access) -> Self {
        match (&access.ca, access.insecure_accept_any_certificate) {
            (_, true) => Self::Anybody,
            (Some(path), false) => Self::File(path.clone()),
            (None, false) => Self::System,
        }
    }

    /// The profile that believes so.
    pub(crate) fn profile(&self, options: &TlsOptions) -> Result<ClientProfile, Error> {
        let roots = match self {
            Self::Anybody => return Ok(ClientProfile::danger_accept_any(options)?),
            Self::File(path) => authorities(path)?,
            Self::System => {
                let bundle = SYSTEM_BUNDLES
                    .iter()
                    .map(Path::new)
                    .find(|path| path.exists())
                    .ok_or(Error::NoSystemBundle)?;
                authorities(bundle)?
            }
        };
        Ok(ClientProfile::new(roots, options)?)
    }
}

/// Every certificate of a PEM file, or the one of a DER file.
fn authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let bytes = read(path).map_err(|error| Error::Read {
        path: path.to_owned(),
        error,
    })?;
    let found: Result<Vec<CertificateDer<'static>>, pem::Error> =
        CertificateDer::pem_slice_iter(&bytes).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        // A SEQUENCE with a two-byte length: a certificate without armour.
        _ if bytes.starts_with(&[0x30, 0x82]) => Ok(vec![CertificateDer::from(bytes)]),
        _ => Err(Error::NoCertificate(path.to_owned())),
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    use io::Read as _;

    let mut bytes = Vec::new();
    std::fs::File::open(path)?
        .take(FILE_LEN_MAX)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_certificate_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        let error = |contents: &str| {
            std::fs::write(&path, contents).unwrap();
            Trust::File(path.clone())
                .profile(&TlsOptions::default())
                .unwrap_err()
                .to_string()
        };
        assert!(error("hello").contains("no certificate"));
        assert!(
            error("-----BEGIN CERTIFICATE-----\n*\n-----END CERTIFICATE-----").contains("ca.pem")
        );
        assert!(error("0").contains("no certificate"));
        let gone = Trust::File(dir.path().join("gone"));
        let gone = gone
            .profile(&TlsOptions::default())
            .unwrap_err()
            .to_string();
        assert!(gone.contains("gone: No such file"), "{gone}");
    }

    #[test]
    fn anybody_needs_no_file() {
        assert!(Trust::Anybody.profile(&TlsOptions::default()).is_ok());
    }
}
