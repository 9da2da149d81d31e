//! The end that is asked: computes the proof, and believes a Success only where it is due.
//!
//! A Success or Failure counts if it answers a proof of ours that is not answered yet. With
//! MS-CHAPv2, in CHAP or in EAP, a Success must carry the server's own proof of the password
//! (RFC 2759 §8.8); without it the login has failed, whatever the code says.
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

use std::sync::Arc;

use super::{AuthMethod, ERROR_AUTHENTICATION_FAILURE, chap, eap, pap};
use crate::crypto::hlak::Hlak;
use crate::crypto::nt_hash::{NtHash, nt_password_hash};
use crate::crypto::{chap_md5, mschapv2};
use crate::output::{Entropy, Output};
use crate::ppp::config::AuthenticateeConfig;
use crate::ppp::control::{self, Packet};
use crate::ppp::frame;
use crate::ppp::link::Event;
use crate::ppp::rate::Rate;
use crate::time::{Duration, Instant};

/// What a packet of the server led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::ppp) enum Progress {
    /// Nothing is decided.
    Pending,
    /// We are in, and the server is who it should be as far as the method can tell.
    Authenticated(Hlak),
    /// The server refused us.
    Failed { error: u16 },
    /// The server accepted us but did not prove that it knows the password.
    ServerUnproven,
}

/// One login of ours.
#[derive(Debug)]
pub(in crate::ppp) struct Authenticatee {
    config: Arc<AuthenticateeConfig>,
    method: AuthMethod,
    exchange: Exchange,
    /// Bounds the answers a server can call forth.
    answers: Rate,
}

#[derive(Debug)]
enum Exchange {
    Pap { identifier: u8, answered: bool },
    Chap(Option<Box<ChapAnswer>>),
    Eap(Box<eap::Peer>),
}

/// Our Response to one Challenge.
#[derive(Debug)]
struct ChapAnswer {
    identifier: u8,
    challenge: Vec<u8>,
    value: Vec<u8>,
    proof: Option<Proof>,
    decided: bool,
}

/// Our MS-CHAPv2 proof, against which the server's is checked.
#[derive(Clone, Debug)]
pub(super) struct Proof {
    challenge: [u8; 16],
    peer_challenge: [u8; 16],
    nt_hash: NtHash,
    pub(super) nt_response: [u8; 24],
}

impl Proof {
    pub(super) fn new(
        config: &AuthenticateeConfig,
        challenge: [u8; 16],
        entropy: &mut impl Entropy,
    ) -> Self {
        let nt_hash = nt_password_hash(&config.password);
        let peer_challenge = entropy.array();
        let nt_response =
            mschapv2::nt_response(&challenge, &peer_challenge, &config.user, &nt_hash);
        Self {
            challenge,
            peer_challenge,
            nt_hash,
            nt_response,
        }
    }

    pub(super) fn value(&self) -> [u8; chap::MSCHAPV2_VALUE_LEN] {
        chap::MsChapV2Value {
            peer_challenge: self.peer_challenge,
            nt_response: self.nt_response,
        }
        .bytes()
    }

    /// The key, if `message` begins with the server's proof.
    pub(super) fn verify(&self, user: &[u8], message: &[u8]) -> Option<Hlak> {
        mschapv2::verify_authenticator_response(
            &self.challenge,
            &self.peer_challenge,
            user,
            &self.nt_hash,
            &self.nt_response,
            message,
        )
        .then(|| Hlak::from_mschapv2(&self.nt_hash, &self.nt_response))
    }
}

impl Authenticatee {
    pub(in crate::ppp) fn new(config: Arc<AuthenticateeConfig>, method: AuthMethod) -> Self {
        let exchange = match method {
            AuthMethod::Pap => Exchange::Pap {
                identifier: 1,
                answered: false,
            },
            AuthMethod::ChapMd5 | AuthMethod::MsChapV2 => Exchange::Chap(None),
            AuthMethod::Eap => Exchange::Eap(Box::default()),
        };
        Self {
            config,
            method,
            exchange,
            answers: Rate::new(10, Duration::from_secs(1)),
        }
    }

    /// Says what the peer need not be asked: PAP's request, again until it is answered. `false` if
    /// there is nothing to say.
    pub(in crate::ppp) fn speak(&self, out: &mut impl Output<Event>) -> bool {
        let Exchange::Pap {
            identifier,
            answered: false,
        } = self.exchange
        else {
            return false;
        };
        control::send(out, frame::PAP, pap::REQUEST, identifier, |to| {
            pap::write_request(to, &self.config.user, self.config.password.as_bytes())
        });
        true
    }

    /// Handles a packet of the server.
    pub(in crate::ppp) fn handle_packet(
        &mut self,
        now: Instant,
        protocol: u16,
        packet: Packet<'_>,
        entropy: &mut impl Entropy,
        out: &mut impl Output<Event>,
    ) -> Progress {
        if protocol != self.method.protocol() || !self.answers.allow(now) {
            return Progress::Pending;
        }
        match &mut self.exchange {
            Exchange::Pap {
                identifier,
                answered,
            } => {
                if *answered || packet.identifier != *identifier {
                    return Progress::Pending;
                }
                let progress = match packet.code {
                    pap::ACK => Progress::Authenticated(Hlak::ZERO),
                    pap::NAK => Progress::Failed {
                        error: ERROR_AUTHENTICATION_FAILURE,
                    },
                    _ => return Progress::Pending,
                };
                *answered = true;
                progress
            }
            Exchange::Chap(answer) => match packet.code {
                chap::CHALLENGE => {
                    answer_challenge(&self.config, self.method, answer, packet, entropy, out);
                    Progress::Pending
                }
                chap::SUCCESS | chap::FAILURE => match answer {
                    Some(answer) if answer.identifier == packet.identifier && !answer.decided => {
                        answer.decided = true;
                        decide_chap(answer, &self.config.user, packet)
                    }
                    _ => Progress::Pending,
                },
                _ => Progress::Pending,
            },
            Exchange::Eap(peer) => peer.handle_packet(&self.config, packet, entropy, out),
        }
    }
}

fn answer_challenge(
    config: &AuthenticateeConfig,
    method: AuthMethod,
    answer: &mut Option<Box<ChapAnswer>>,
    packet: Packet<'_>,
    entropy: &mut impl Entropy,
    out: &mut impl Output<Event>,
) {
    let Ok(chap::Valued { value, .. }) = chap::Valued::parse(packet.data) else {
        return;
    };
    let identifier = packet.identifier;
    // A repeated challenge gets the same answer, peer challenge and all.
    let repeated = answer
        .as_ref()
        .filter(|answer| answer.identifier == identifier && answer.challenge == value);
    if repeated.is_none() {
        let (response, proof) = match (method, <[u8; 16]>::try_from(value)) {
            (AuthMethod::MsChapV2, Ok(challenge)) => {
                let proof = Proof::new(config, challenge, entropy);
                (proof.value().to_vec(), Some(proof))
            }
            (AuthMethod::ChapMd5, _) if !value.is_empty() => {
                let secret = config.password.as_bytes();
                let response = chap_md5::response(identifier, secret, value);
                (response.to_vec(), None)
            }
            _ => return,
        };
        *answer = Some(Box::new(ChapAnswer {
            identifier,
            challenge: value.to_vec(),
            value: response,
            proof,
            decided: false,
        }));
    }
    if let Some(answer) = answer {
        let response = chap::Valued {
            value: &answer.value,
            name: &config.user,
        };
        control::send(out, frame::CHAP, chap::RESPONSE, identifier, |to| {
            response.write(to)
        });
    }
}

fn decide_chap(answer: &ChapAnswer, user: &[u8], packet: Packet<'_>) -> Progress {
    match (packet.code, &answer.proof) {
        (chap::SUCCESS, None) => Progress::Authenticated(Hlak::ZERO),
        (chap::SUCCESS, Some(proof)) => match proof.verify(user, packet.data) {
            Some(hlak) => Progress::Authenticated(hlak),
            None => Progress::ServerUnproven,
        },
        _ => Progress::Failed {
            error: chap::failure_error(packet.data),
        },
    }
}
