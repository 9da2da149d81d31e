//! EAP-MSCHAPv2 (type 26): MS-CHAPv2 in EAP packets, and an authenticator for owners that end EAP
//! themselves.
//!
//! ```text
//! type data   opcode u8 | identifier u8 | length u16, of the type data | …
//!   1 Challenge   10 | challenge 16 | name      2 Response   31 | value 49 | name
//!   3 Success     S=… M=…                       3, 4         the opcode alone
//!   4 Failure     E=… R=0 C=… V=3 M=…
//!
//! authenticator  Identity ▶ Challenge ▶ Response ▶ Success ▶ 3 ▶ EAP-Success
//!                                               └▶ Failure ▶ 4 ▶ EAP-Failure
//! ```
//!
//! MS-CHAP 3.1.5 and draft-kamath-pppext-eap-mschapv2 §2. The inner identifier is copied from the
//! Challenge and insisted on by nobody. No retry and no change of password.
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

use super::{ERROR_AUTHENTICATION_FAILURE, Verdict, chap, eap};
use crate::crypto::hlak::Hlak;
use crate::crypto::mschapv2;
use crate::crypto::nt_hash::NtHash;
use crate::output::Entropy;
use crate::ppp::control::Packet;
use crate::wire::{Reader, TooShort};

/// The EAP type.
pub const TYPE: u8 = 26;

const CHALLENGE: u8 = 1;
const RESPONSE: u8 = 2;
const SUCCESS: u8 = 3;
const FAILURE: u8 = 4;

/// Type and type data of a Success-Response: one byte behind the type.
pub(super) const SUCCESS_RESPONSE: [u8; 2] = [TYPE, SUCCESS];
/// The same of a Failure-Response.
pub(super) const FAILURE_RESPONSE: [u8; 2] = [TYPE, FAILURE];

const NAME: &[u8] = b"gw";

/// A message of the authenticator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request<'a> {
    Challenge { identifier: u8, challenge: [u8; 16] },
    Success { message: &'a [u8] },
    Failure { message: &'a [u8] },
}

/// The message is none that the method has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

impl From<TooShort> for Malformed {
    fn from(_: TooShort) -> Self {
        Self
    }
}

impl<'a> Request<'a> {
    /// Takes type data apart. The inner length is not looked at: EAP's own bounds it.
    pub(super) fn parse(data: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(data);
        let opcode = reader.u8()?;
        let identifier = reader.u8()?;
        reader.u16()?;
        match opcode {
            CHALLENGE => {
                if usize::from(reader.u8()?) != chap::CHALLENGE_LEN {
                    return Err(Malformed);
                }
                let challenge = reader.array()?;
                Ok(Self::Challenge {
                    identifier,
                    challenge,
                })
            }
            SUCCESS => Ok(Self::Success {
                message: reader.rest(),
            }),
            FAILURE => Ok(Self::Failure {
                message: reader.rest(),
            }),
            _ => Err(Malformed),
        }
    }
}

/// Type and type data of a Challenge-Response.
pub(super) fn challenge_response(
    identifier: u8,
    value: &[u8; chap::MSCHAPV2_VALUE_LEN],
    user: &[u8],
) -> Vec<u8> {
    message(RESPONSE, identifier, &[&[49], value, user])
}

/// Type and type data of any message but the one-byte ones.
fn message(opcode: u8, identifier: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let len = u16::try_from(body.len().saturating_add(4)).unwrap_or(u16::MAX);
    let [high, low] = len.to_be_bytes();
    let mut bytes = vec![TYPE, opcode, identifier, high, low];
    bytes.extend_from_slice(&body);
    bytes
}

/// A whole EAP packet.
fn packet(code: u8, identifier: u8, type_and_data: &[u8]) -> Vec<u8> {
    let len = u16::try_from(type_and_data.len().saturating_add(4)).unwrap_or(u16::MAX);
    let [high, low] = len.to_be_bytes();
    let mut bytes = vec![code, identifier, high, low];
    bytes.extend_from_slice(type_and_data);
    bytes
}

/// Terminates EAP-MSCHAPv2: give it every `Credentials::Eap` of one link and hand its verdicts back.
#[derive(Debug)]
pub struct Authenticator {
    identity: Vec<u8>,
    stage: Stage,
    challenge: [u8; 16],
    failure_challenge: [u8; 16],
}

#[derive(Debug)]
enum Stage {
    Identity,
    Challenged { identifier: u8 },
    Succeeded { hlak: Hlak },
    Failed,
    Over,
}

impl Authenticator {
    /// For a peer that calls itself `identity`; whose password counts is the caller's to look up.
    pub fn new(identity: &[u8], entropy: &mut impl Entropy) -> Self {
        Self {
            identity: identity.to_vec(),
            stage: Stage::Identity,
            challenge: entropy.array(),
            failure_challenge: entropy.array(),
        }
    }

    /// What the peer answered to the Identity Request.
    #[must_use]
    pub fn identity(&self) -> &[u8] {
        &self.identity
    }

    /// Handles a whole EAP Response; the first one is the Identity. `nt_hash` is that of the identity,
    /// `None` for an unknown one: it is refused like a wrong password, with the same work.
    pub fn handle_response(&mut self, response: &[u8], nt_hash: Option<&NtHash>) -> Verdict {
        let stage = core::mem::replace(&mut self.stage, Stage::Over);
        let Ok(response) = Packet::parse(response) else {
            return reject();
        };
        let Some((&kind, data)) = response.data.split_first() else {
            return reject();
        };
        if response.code != eap::RESPONSE {
            return reject();
        }
        let next = response.identifier.wrapping_add(1);
        match (stage, kind) {
            (Stage::Identity, eap::IDENTITY) => {
                self.stage = Stage::Challenged { identifier: next };
                let body: &[&[u8]] = &[&[16], &self.challenge, NAME];
                request(next, &message(CHALLENGE, next, body))
            }
            (Stage::Challenged { identifier }, TYPE) => {
                let verified = self.verify(data, nt_hash);
                let request_data = match verified {
                    Ok(verified) => {
                        self.stage = Stage::Succeeded {
                            hlak: verified.hlak,
                        };
                        let body: &[&[u8]] = &[&verified.authenticator_response, b" M=OK"];
                        message(SUCCESS, identifier, body)
                    }
                    Err(()) => {
                        self.stage = Stage::Failed;
                        let text = chap::failure_message(
                            ERROR_AUTHENTICATION_FAILURE,
                            &self.failure_challenge,
                            b"",
                        );
                        message(FAILURE, identifier, &[&text])
                    }
                };
                request(next, &request_data)
            }
            (Stage::Succeeded { hlak }, TYPE) if data == [SUCCESS] => Verdict::Accept {
                hlak,
                message: packet(eap::SUCCESS, response.identifier, &[]),
            },
            // A Nak, a Failure-Response, a peer that does not believe our proof, or nonsense.
            _ => reject(),
        }
    }

    fn verify(&self, data: &[u8], nt_hash: Option<&NtHash>) -> Result<mschapv2::Verified, ()> {
        let mut reader = Reader::new(data);
        let header = reader.take(4).map_err(drop)?;
        let valued = chap::Valued::parse(reader.rest()).map_err(drop)?;
        let value = chap::MsChapV2Value::parse(valued.value).ok_or(())?;
        if header.first() != Some(&RESPONSE) {
            return Err(());
        }
        let nobody = NtHash::from_bytes([0; 16]);
        let verified = mschapv2::verify_nt_response(
            &self.challenge,
            &value.peer_challenge,
            valued.name,
            nt_hash.unwrap_or(&nobody),
            &value.nt_response,
        );
        verified.filter(|_| nt_hash.is_some()).ok_or(())
    }
}

fn request(identifier: u8, type_and_data: &[u8]) -> Verdict {
    Verdict::Continue {
        request: packet(eap::REQUEST, identifier, type_and_data),
    }
}

fn reject() -> Verdict {
    Verdict::Reject {
        error: ERROR_AUTHENTICATION_FAILURE,
        message: Vec::new(),
        eap: None,
    }
}
