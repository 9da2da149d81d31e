//! Authentication over a link: PAP, CHAP with MD5, MS-CHAPv2, EAP; both ends.
//!
//! ```text
//! peer ── Response ──▶ link ── Event::Authenticate(Credentials) ──▶ owner (users file, RADIUS, …)
//! peer ◀─ Success ──── link ◀─ handle_verdict(Verdict) ──────────── owner, whenever it knows
//! ```
//!
//! The authenticator end judges nobody: it asks its owner and waits. EAP is passed through, packet by
//! packet; an owner that wants to terminate EAP-MSCHAPv2 itself uses [`eap_mschapv2::Authenticator`].
//! The authenticatee end computes the answers itself and verifies the server's.
//!
//! RFC 1334 (PAP), RFC 1994 (CHAP), RFC 2759 (MS-CHAPv2), RFC 3748 (EAP). MS-CHAPv1 and EAP methods
//! in TLS are not here.

mod authenticatee;
mod authenticator;
pub(super) mod chap;
mod eap;
pub mod eap_mschapv2;
pub(super) mod pap;

use core::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::crypto::hlak::Hlak;
use crate::ppp::frame;

pub(super) use authenticatee::{Authenticatee, Progress};
pub(super) use authenticator::{Authenticator, Outcome};

/// The error RFC 2759 §6 gives for a wrong name or password.
pub const ERROR_AUTHENTICATION_FAILURE: u16 = 691;

/// What an error number says, in words (RFC 2759 §6).
#[must_use]
pub const fn error_words(error: u16) -> &'static str {
    match error {
        646 => "not at this hour",
        647 => "the account is disabled",
        648 => "the password has expired",
        649 => "no permission to dial in",
        ERROR_AUTHENTICATION_FAILURE => "wrong name or password",
        709 => "the password could not be changed",
        _ => "a number that RFC 2759 does not have",
    }
}

/// A protocol, and for CHAP its algorithm, as LCP negotiates it (RFC 1661 §6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AuthMethod {
    /// Password Authentication Protocol: name and password as they are; makes no key.
    Pap,
    /// CHAP with MD5 (algorithm 5); makes no key.
    ChapMd5,
    /// CHAP with MS-CHAPv2 (algorithm 0x81).
    MsChapV2,
    /// Extensible Authentication Protocol; its methods negotiate themselves.
    Eap,
}

impl AuthMethod {
    /// The value of LCP's Authentication-Protocol option.
    #[must_use]
    pub const fn option_value(self) -> &'static [u8] {
        match self {
            Self::Pap => &[0xc0, 0x23],
            Self::ChapMd5 => &[0xc2, 0x23, 5],
            Self::MsChapV2 => &[0xc2, 0x23, 0x81],
            Self::Eap => &[0xc2, 0x27],
        }
    }

    /// The method that has this option value, if it is one of ours.
    #[must_use]
    pub fn from_option_value(value: &[u8]) -> Option<Self> {
        [Self::Pap, Self::ChapMd5, Self::MsChapV2, Self::Eap]
            .into_iter()
            .find(|method| method.option_value() == value)
    }

    /// The PPP protocol its packets travel in.
    #[must_use]
    pub const fn protocol(self) -> u16 {
        match self {
            Self::Pap => frame::PAP,
            Self::ChapMd5 | Self::MsChapV2 => frame::CHAP,
            Self::Eap => frame::EAP,
        }
    }
}

/// What the peer sent to prove who it is; names and packets are passed on byte for byte.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// RFC 1334 Authenticate-Request.
    Pap {
        /// Peer-ID.
        user: Vec<u8>,
        /// Password.
        password: Zeroizing<Vec<u8>>,
    },
    /// RFC 1994 Response with MD5.
    ChapMd5 {
        /// Name.
        user: Vec<u8>,
        /// The CHAP identifier, part of the hash.
        identifier: u8,
        /// Our challenge.
        challenge: [u8; 16],
        /// The response value.
        response: [u8; 16],
    },
    /// RFC 2759 Response.
    MsChapV2 {
        /// Name, with its domain if it had one.
        user: Vec<u8>,
        /// The CHAP identifier, for RADIUS.
        identifier: u8,
        /// Our challenge.
        challenge: [u8; 16],
        /// The peer's challenge.
        peer_challenge: [u8; 16],
        /// The NT-Response.
        nt_response: [u8; 24],
    },
    /// RFC 3748 Response.
    Eap {
        /// What the peer answered to our Identity Request.
        identity: Vec<u8>,
        /// The whole EAP Response packet; the first one is that answer itself.
        response: Vec<u8>,
    },
}

impl Credentials {
    /// The name the peer gives itself.
    #[must_use]
    pub fn user(&self) -> &[u8] {
        match self {
            Self::Pap { user, .. } | Self::ChapMd5 { user, .. } | Self::MsChapV2 { user, .. } => {
                user
            }
            Self::Eap { identity, .. } => identity,
        }
    }

    /// The method they belong to.
    #[must_use]
    pub const fn method(&self) -> AuthMethod {
        match self {
            Self::Pap { .. } => AuthMethod::Pap,
            Self::ChapMd5 { .. } => AuthMethod::ChapMd5,
            Self::MsChapV2 { .. } => AuthMethod::MsChapV2,
            Self::Eap { .. } => AuthMethod::Eap,
        }
    }
}

impl fmt::Debug for Credentials {
    /// Prints method and name, no password and no response.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("method", &self.method())
            .field("user", &String::from_utf8_lossy(self.user()))
            .finish_non_exhaustive()
    }
}

/// The owner's answer to [`Credentials`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The peer is who it says, and may come in.
    Accept {
        /// The key the method made; [`Hlak::ZERO`] for one that makes none.
        hlak: Hlak,
        /// PAP and CHAP-MD5: text for the peer. MS-CHAPv2: text beginning with `S=`, from the back end.
        /// EAP: the whole EAP-Success, or empty to have one made.
        message: Vec<u8>,
    },
    /// It may not.
    Reject {
        /// RFC 2759 §6 error number, see [`ERROR_AUTHENTICATION_FAILURE`].
        error: u16,
        /// Text for the peer; for MS-CHAPv2 a whole message beginning with `E=` is passed on as it is.
        message: Vec<u8>,
        /// EAP: the whole EAP-Failure; `None` to have one made.
        eap: Option<Vec<u8>>,
    },
    /// EAP alone: the method goes on.
    Continue {
        /// The whole next EAP Request.
        request: Vec<u8>,
    },
}
