//! What this kernel's TLS can do, found out by doing it on loopback connections to ourselves.

use std::fmt;
use std::io;
use std::os::fd::AsFd as _;

use socket2::{Domain, Socket, Type};

use super::{attach, install};
use crate::io::kernel_tls::{Direction, KEY_LEN_MAX, TlsCipher, TlsKeys, TlsVersion};

const VERSIONS: [(TlsVersion, &str); 2] = [
    (TlsVersion::Tls12, "TLS 1.2"),
    (TlsVersion::Tls13, "TLS 1.3"),
];

const CIPHERS: [(TlsCipher, &str); 3] = [
    (TlsCipher::Aes128Gcm, "AES-128-GCM"),
    (TlsCipher::Aes256Gcm, "AES-256-GCM"),
    (TlsCipher::ChaCha20Poly1305, "ChaCha20-Poly1305"),
];

/// One version with one cipher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Support {
    /// The version.
    pub version: TlsVersion,
    /// The cipher.
    pub cipher: TlsCipher,
    /// Its usual name, version included.
    pub name: (&'static str, &'static str),
    /// The kernel takes it for sending.
    pub tx: bool,
    /// And for receiving.
    pub rx: bool,
}

/// What the kernel can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Every version with every cipher.
    pub supports: Vec<Support>,
    /// It takes new keys on a connection that has some: TLS 1.3's `KeyUpdate` (6.14 on).
    pub rekeys: bool,
}

impl Capabilities {
    /// Whether every version and cipher that is spoken here is taken in this direction.
    #[must_use]
    pub fn takes_all(&self, direction: Direction) -> bool {
        self.supports.iter().all(|support| support.takes(direction))
    }

    /// Whether any is.
    #[must_use]
    pub fn takes_any(&self, direction: Direction) -> bool {
        self.supports.iter().any(|support| support.takes(direction))
    }
}

impl Support {
    const fn takes(&self, direction: Direction) -> bool {
        match direction {
            Direction::Tx => self.tx,
            Direction::Rx => self.rx,
        }
    }
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let missing: Vec<_> = self
            .supports
            .iter()
            .filter(|support| !support.tx || !support.rx)
            .map(|support| format!("{} {}", support.name.0, support.name.1))
            .collect();
        if missing.is_empty() {
            f.write_str("all versions and ciphers")?;
        } else if missing.len() == self.supports.len() {
            f.write_str("no version and cipher (they are modules: gcm, chacha20poly1305)")?;
        } else {
            write!(f, "all but {}", missing.join(", "))?;
        }
        f.write_str(if self.rekeys {
            ", with KeyUpdate"
        } else {
            ", without KeyUpdate"
        })
    }
}

/// Asks the kernel, on a dozen loopback connections.
///
/// # Errors
/// ENOENT: it has no module `tls`. Others: no loopback connection could be made.
pub fn probe() -> io::Result<Capabilities> {
    let (one, _other) = pair()?;
    attach(one.as_fd())?;
    let mut supports = Vec::new();
    for (version, version_name) in VERSIONS {
        for (cipher, cipher_name) in CIPHERS {
            let keys = keys(version, cipher);
            let takes = |direction| -> io::Result<bool> {
                let (one, _other) = pair()?;
                attach(one.as_fd())?;
                Ok(install(one.as_fd(), direction, &keys).is_ok())
            };
            supports.push(Support {
                version,
                cipher,
                name: (version_name, cipher_name),
                tx: takes(Direction::Tx)?,
                rx: takes(Direction::Rx)?,
            });
        }
    }
    let keys = keys(TlsVersion::Tls13, TlsCipher::Aes128Gcm);
    let rekeys = install(one.as_fd(), Direction::Tx, &keys).is_ok()
        && install(one.as_fd(), Direction::Tx, &keys).is_ok();
    Ok(Capabilities { supports, rekeys })
}

/// Keys for a connection that carries nothing.
fn keys(version: TlsVersion, cipher: TlsCipher) -> TlsKeys {
    TlsKeys {
        version,
        cipher,
        key: [0x5a; KEY_LEN_MAX],
        iv: [0xa5; 12],
        seq: 0,
    }
}

/// Two ends of one TCP connection within this host: who connected, who accepted.
///
/// # Errors
/// Loopback is down, or there are no descriptors.
pub fn pair() -> io::Result<(Socket, Socket)> {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    listener.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
    listener.listen(1)?;
    let one = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    one.connect(&listener.local_addr()?)?;
    let (other, _) = listener.accept()?;
    Ok((one, other))
}
