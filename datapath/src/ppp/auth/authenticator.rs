//! The end that asks: sends the Challenge or the EAP Identity Request, passes the peer's proof to the
//! owner, and tells the peer what the owner decided.
//!
//! ```text
//! Waiting ──ask──▶ Asked ──Response──▶ Pending ──Accept, Reject──▶ Decided
//! (PAP: a Request leads from Waiting to Pending; EAP: Continue leads from Pending back to Asked)
//! ```
//!
//! One proof is with the owner at any time: what comes meanwhile is dropped. After the decision a
//! repeated proof gets the same answer, whatever it says (RFC 1994 §4.2, RFC 1334 §2.2.1).
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

use zeroize::Zeroizing;

use super::{AuthMethod, Credentials, Verdict, chap, eap, pap};
use crate::crypto::hlak::Hlak;
use crate::output::{Entropy, Output};
use crate::ppp::control::{self, Packet};
use crate::ppp::frame;
use crate::ppp::link::Event;

/// How often one decision is repeated to a peer that does not seem to hear it.
const REPEATS_MAX: u8 = 8;
/// Bytes of our name in a challenge; it is there because the field must not be empty.
const NAME_LEN_MAX: usize = 64;
const NAME_DEFAULT: &[u8] = b"gw";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Asked,
    Pending,
    Decided,
}

/// What a verdict led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::ppp) enum Outcome {
    /// Nobody had asked.
    Ignored,
    /// EAP goes on.
    Continued,
    /// The peer was told that it may come in.
    Accepted(Hlak),
    /// The peer was told that it may not.
    Rejected { error: u16 },
}

/// One authentication of the peer.
#[derive(Debug)]
pub(in crate::ppp) struct Authenticator {
    method: AuthMethod,
    state: State,
    /// Of the question that is out, or of the proof that is with the owner.
    identifier: u8,
    challenge: [u8; chap::CHALLENGE_LEN],
    identity: Option<Vec<u8>>,
    answer: Answer,
}

/// What the peer is told, kept to be repeated.
#[derive(Debug, Default)]
struct Answer {
    code: u8,
    data: Vec<u8>,
    repeats: u8,
}

impl Authenticator {
    /// CHAP identifiers start at `identifier`, EAP's at 0.
    pub(in crate::ppp) fn new(
        method: AuthMethod,
        identifier: u8,
        entropy: &mut impl Entropy,
    ) -> Self {
        Self {
            method,
            state: State::Waiting,
            identifier: if method == AuthMethod::Eap {
                0
            } else {
                identifier
            },
            challenge: entropy.array(),
            identity: None,
            answer: Answer::default(),
        }
    }

    /// Whether nothing was asked yet.
    pub(in crate::ppp) fn is_first_question(&self) -> bool {
        self.state == State::Waiting
    }

    /// Whether a proof is or was with the owner.
    pub(in crate::ppp) fn is_committed(&self) -> bool {
        matches!(self.state, State::Pending | State::Decided) || self.identity.is_some()
    }

    /// Asks, or asks again with the same words; `false` if there is nothing to ask any more.
    pub(in crate::ppp) fn ask(&mut self, name: &[u8], out: &mut impl Output<Event>) -> bool {
        if !matches!(self.state, State::Waiting | State::Asked) {
            return false;
        }
        match self.method {
            // The peer speaks first.
            AuthMethod::Pap => return false,
            AuthMethod::ChapMd5 | AuthMethod::MsChapV2 => {
                let name = match name.get(..NAME_LEN_MAX).unwrap_or(name) {
                    b"" => NAME_DEFAULT,
                    name => name,
                };
                let challenge = chap::Valued {
                    value: &self.challenge,
                    name,
                };
                control::send(out, frame::CHAP, chap::CHALLENGE, self.identifier, |to| {
                    challenge.write(to)
                });
            }
            AuthMethod::Eap => {
                // Later requests are the method's; the stream loses none (RFC 3748 §4.3).
                if self.identity.is_some() {
                    return false;
                }
                control::send(out, frame::EAP, eap::REQUEST, self.identifier, |to| {
                    to.u8(eap::IDENTITY)
                });
            }
        }
        self.state = State::Asked;
        true
    }

    /// Handles a packet of the peer; returns what the owner is to judge.
    pub(in crate::ppp) fn handle_packet(
        &mut self,
        protocol: u16,
        packet: Packet<'_>,
        out: &mut impl Output<Event>,
    ) -> Option<Credentials> {
        if protocol != self.method.protocol() {
            return None;
        }
        match self.method {
            AuthMethod::Pap => self.handle_pap(packet, out),
            AuthMethod::ChapMd5 | AuthMethod::MsChapV2 => self.handle_chap(packet, out),
            AuthMethod::Eap => self.handle_eap(packet, out),
        }
    }

    fn handle_pap(
        &mut self,
        packet: Packet<'_>,
        out: &mut impl Output<Event>,
    ) -> Option<Credentials> {
        if packet.code != pap::REQUEST {
            return None;
        }
        let (user, password) = pap::parse_request(packet.data).ok()?;
        match self.state {
            State::Waiting | State::Asked => {
                self.identifier = packet.identifier;
                self.state = State::Pending;
                Some(Credentials::Pap {
                    user: user.to_vec(),
                    password: Zeroizing::new(password.to_vec()),
                })
            }
            State::Pending => None,
            State::Decided => {
                self.identifier = packet.identifier;
                self.repeat(out);
                None
            }
        }
    }

    fn handle_chap(
        &mut self,
        packet: Packet<'_>,
        out: &mut impl Output<Event>,
    ) -> Option<Credentials> {
        if packet.code != chap::RESPONSE || packet.identifier != self.identifier {
            return None;
        }
        let chap::Valued { value, name } = chap::Valued::parse(packet.data).ok()?;
        let (user, identifier, challenge) = (name.to_vec(), self.identifier, self.challenge);
        let credentials = match self.method {
            AuthMethod::ChapMd5 => Credentials::ChapMd5 {
                user,
                identifier,
                challenge,
                response: value.try_into().ok()?,
            },
            _ => {
                let value = chap::MsChapV2Value::parse(value)?;
                Credentials::MsChapV2 {
                    user,
                    identifier,
                    challenge,
                    peer_challenge: value.peer_challenge,
                    nt_response: value.nt_response,
                }
            }
        };
        match self.state {
            State::Asked => {
                self.state = State::Pending;
                Some(credentials)
            }
            State::Waiting | State::Pending => None,
            State::Decided => {
                self.repeat(out);
                None
            }
        }
    }

    fn handle_eap(
        &mut self,
        packet: Packet<'_>,
        out: &mut impl Output<Event>,
    ) -> Option<Credentials> {
        if packet.code != eap::RESPONSE || packet.identifier != self.identifier {
            return None;
        }
        let (&kind, data) = packet.data.split_first()?;
        match self.state {
            State::Asked => {}
            State::Waiting | State::Pending => return None,
            State::Decided => {
                self.repeat(out);
                return None;
            }
        }
        let identity = match &self.identity {
            // A method under way does not ask who it is talking to (RFC 3748 §5.1).
            Some(_) if kind == eap::IDENTITY => return None,
            Some(identity) => identity.clone(),
            None if kind == eap::IDENTITY => self.identity.insert(data.to_vec()).clone(),
            None => return None,
        };
        self.state = State::Pending;
        Some(Credentials::Eap {
            identity,
            response: packet.bytes.to_vec(),
        })
    }

    /// Tells the peer what the owner decided.
    pub(in crate::ppp) fn handle_verdict(
        &mut self,
        verdict: Verdict,
        entropy: &mut impl Entropy,
        out: &mut impl Output<Event>,
    ) -> Outcome {
        if self.state != State::Pending {
            return Outcome::Ignored;
        }
        match verdict {
            Verdict::Continue { request } => {
                let usable = Packet::parse(&request)
                    .ok()
                    .filter(|packet| packet.code == eap::REQUEST && !packet.data.is_empty());
                match usable {
                    Some(packet) if self.method == AuthMethod::Eap => {
                        self.identifier = packet.identifier;
                        self.state = State::Asked;
                        control::send(out, frame::EAP, eap::REQUEST, packet.identifier, |to| {
                            to.put(packet.data)
                        });
                        Outcome::Continued
                    }
                    // Not a question one can ask: the owner's back end speaks nonsense.
                    _ => self.reject(super::ERROR_AUTHENTICATION_FAILURE, b"", None, entropy, out),
                }
            }
            Verdict::Accept { hlak, message } => {
                let (code, data) = match self.method {
                    AuthMethod::Pap => (pap::ACK, message),
                    AuthMethod::ChapMd5 | AuthMethod::MsChapV2 => (chap::SUCCESS, message),
                    AuthMethod::Eap => {
                        self.take_identifier_of(&message, eap::SUCCESS);
                        (eap::SUCCESS, Vec::new())
                    }
                };
                self.decide(code, data, out);
                Outcome::Accepted(hlak)
            }
            Verdict::Reject {
                error,
                message,
                eap,
            } => self.reject(error, &message, eap.as_deref(), entropy, out),
        }
    }

    fn reject(
        &mut self,
        error: u16,
        message: &[u8],
        eap: Option<&[u8]>,
        entropy: &mut impl Entropy,
        out: &mut impl Output<Event>,
    ) -> Outcome {
        let (code, data) = match self.method {
            AuthMethod::Pap => (pap::NAK, message.to_vec()),
            AuthMethod::ChapMd5 => (chap::FAILURE, message.to_vec()),
            AuthMethod::MsChapV2 => (
                chap::FAILURE,
                chap::failure_message(error, &entropy.array(), message),
            ),
            AuthMethod::Eap => {
                self.take_identifier_of(eap.unwrap_or_default(), eap::FAILURE);
                (eap::FAILURE, Vec::new())
            }
        };
        self.decide(code, data, out);
        Outcome::Rejected { error }
    }

    /// Success and Failure are four bytes (RFC 3748 §4.2): of the owner's packet only the identifier
    /// can differ from what we would say.
    fn take_identifier_of(&mut self, packet: &[u8], code: u8) {
        if let Ok(packet) = Packet::parse(packet)
            && packet.code == code
        {
            self.identifier = packet.identifier;
        }
    }

    fn decide(&mut self, code: u8, data: Vec<u8>, out: &mut impl Output<Event>) {
        self.state = State::Decided;
        self.answer = Answer {
            code,
            data,
            repeats: 0,
        };
        self.send_answer(out);
    }

    fn repeat(&mut self, out: &mut impl Output<Event>) {
        if self.answer.repeats < REPEATS_MAX {
            self.answer.repeats = self.answer.repeats.saturating_add(1);
            self.send_answer(out);
        }
    }

    fn send_answer(&self, out: &mut impl Output<Event>) {
        let Answer { code, data, .. } = &self.answer;
        control::send(out, self.method.protocol(), *code, self.identifier, |to| {
            if self.method == AuthMethod::Pap {
                pap::write_message(to, data)
            } else {
                to.put(data)
            }
        });
    }
}
