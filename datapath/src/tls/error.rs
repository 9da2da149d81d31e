//! What can go wrong in TLS, by whose fault it is, and the alert that the peer is owed for it.
//!
//! Source: RFC 8446 §6 (alerts). It does not log and does not send: the connection sends the alert.

use std::borrow::Cow;

use rustls::{AlertDescription, CertificateError};

/// Why a certificate was refused, in the words of an operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateFault {
    /// Its time is over.
    #[error("the certificate has expired")]
    Expired,
    /// Its time has not come; often a wrong clock.
    #[error("the certificate is not valid yet")]
    NotYetValid,
    /// It names another host.
    #[error("the certificate is for another name")]
    WrongName,
    /// No chain leads to a trusted root.
    #[error("the certificate's issuer is not known")]
    UnknownIssuer,
    /// It is not for servers.
    #[error("the certificate is for another purpose")]
    WrongPurpose,
    /// Anything else; the text is for the log.
    #[error("the certificate was refused: {0}")]
    Other(String),
}

impl CertificateFault {
    /// A short label for counters and reports.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::WrongName => "wrong_name",
            Self::UnknownIssuer => "unknown_issuer",
            Self::WrongPurpose => "wrong_purpose",
            Self::Other(_) => "other",
        }
    }

    fn from_rustls(error: &CertificateError) -> Self {
        match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                Self::NotYetValid
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Self::WrongName
            }
            CertificateError::UnknownIssuer => Self::UnknownIssuer,
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                Self::WrongPurpose
            }
            other => Self::Other(other.to_string()),
        }
    }
}

/// Which bound was passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Limit {
    /// `HANDSHAKE_BYTES_MAX`.
    #[error("handshake bytes")]
    HandshakeBytes,
    /// `HANDSHAKE_RECORDS_MAX`.
    #[error("handshake records")]
    HandshakeRecords,
    /// `CONTROL_RECORDS_MAX`.
    #[error("records in a row without data")]
    ControlRecords,
    /// The last sequence number of a key (RFC 8446 §5.3).
    #[error("sequence numbers of a key")]
    SequenceNumbers,
}

/// Why a handshake or a connection is over; after any of these it does nothing more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Bytes that are no TLS.
    #[error("malformed TLS: {0}")]
    Malformed(Cow<'static, str>),
    /// The peer did what the protocol forbids.
    #[error("the peer broke TLS: {0}")]
    PeerMisbehaved(Cow<'static, str>),
    /// No version, suite, group or signature in common.
    #[error("the peer is incompatible: {0}")]
    PeerIncompatible(Cow<'static, str>),
    /// A record longer than the protocol allows (RFC 8446 §5.2).
    #[error("a record is too long")]
    RecordTooLong,
    /// A record that was not sealed with the right key, number and header.
    #[error("a record failed authentication")]
    BadRecord,
    /// The server's certificate was refused.
    #[error(transparent)]
    Certificate(#[from] CertificateFault),
    /// The peer gave up, with this alert.
    #[error("the peer sent the alert {}", alert_name(*.0))]
    AlertReceived(u8),
    /// The peer asked more than it is granted.
    #[error("limit passed: {0}")]
    Exhausted(Limit),
    /// The key has sealed all it may, and this version of TLS cannot change it.
    #[error("the key budget is spent")]
    KeyBudgetSpent,
    /// Nothing can be sent any more: `close_notify` was sent, or an error came before.
    #[error("the connection is closed")]
    Closed,
    /// The caller's buffer or length does not fit a record.
    #[error("the buffer does not fit the record")]
    Room,
    /// The connection owes output that must be sent before this record: call `pending_output`.
    #[error("pending output must be sent first")]
    OutputPending,
    /// The kernel, which seals or opens this connection's records, cannot go on with it.
    #[error("kernel TLS: {0}")]
    KernelTls(Cow<'static, str>),
    /// The handshake is not done.
    #[error("the handshake is not done")]
    NotDone,
    /// A certificate, key or option that cannot be used.
    #[error("TLS cannot be set up: {0}")]
    Setup(Cow<'static, str>),
    /// Something that should not happen: no randomness, a bug.
    #[error("internal TLS error: {0}")]
    Internal(Cow<'static, str>),
}

impl Error {
    /// The fatal alert that the peer is owed for this (RFC 8446 §6.2), if any.
    #[must_use]
    pub const fn alert(&self) -> Option<u8> {
        Some(match self {
            Self::Malformed(_) => 50,
            Self::PeerMisbehaved(_) | Self::Exhausted(_) => 10,
            Self::PeerIncompatible(_) => 40,
            Self::RecordTooLong => 22,
            Self::BadRecord => 20,
            Self::Certificate(_) => 46,
            Self::Internal(_) | Self::KernelTls(_) => 80,
            Self::AlertReceived(_)
            | Self::KeyBudgetSpent
            | Self::Closed
            | Self::Room
            | Self::OutputPending
            | Self::NotDone
            | Self::Setup(_) => return None,
        })
    }
}

impl From<rustls::Error> for Error {
    fn from(error: rustls::Error) -> Self {
        use rustls::Error as E;
        match error {
            E::InvalidMessage(rustls::InvalidMessage::MessageTooLarge)
            | E::PeerSentOversizedRecord => Self::RecordTooLong,
            E::InvalidMessage(why) => Self::Malformed(format!("{why:?}").into()),
            E::InappropriateMessage { got_type, .. } => {
                Self::PeerMisbehaved(format!("unexpected {got_type:?} record").into())
            }
            E::InappropriateHandshakeMessage { got_type, .. } => {
                Self::PeerMisbehaved(format!("unexpected {got_type:?} message").into())
            }
            E::PeerMisbehaved(why) => Self::PeerMisbehaved(format!("{why:?}").into()),
            E::PeerIncompatible(why) => Self::PeerIncompatible(format!("{why:?}").into()),
            E::DecryptError => Self::BadRecord,
            E::NoCertificatesPresented => {
                Self::Certificate(CertificateFault::Other("none was sent".to_owned()))
            }
            E::InvalidCertificate(why) => Self::Certificate(CertificateFault::from_rustls(&why)),
            E::AlertReceived(alert) => Self::AlertReceived(u8::from(alert)),
            other => Self::Internal(other.to_string().into()),
        }
    }
}

/// The name of an alert as RFC 8446 §6 writes it, mostly; `unknown` for numbers without one.
#[must_use]
pub fn alert_name(alert: u8) -> &'static str {
    AlertDescription::from(alert).as_str().unwrap_or("unknown")
}
