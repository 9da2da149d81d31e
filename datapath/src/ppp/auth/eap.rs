//! EAP, the end that is asked (RFC 3748); the asking end passes packets through, see
//! [`super::Authenticator`].
//!
//! ```text
//! packet   code u8 | identifier u8 | length u16 | [type u8 | type data]
//! ```
//!
//! | request | answer |
//! |---|---|
//! | 1 Identity | our name |
//! | 2 Notification | the same, empty |
//! | 26 MSCHAPv2 | the method, see [`super::eap_mschapv2`] |
//! | any other, MD5-Challenge (4) among them, before a method has begun | 3 Nak, wanting 26 |
//! | any other, later | none |
//!
//! EAP-Success counts only after the server proved itself within the method (RFC 3748 §4.2): an early
//! one would skip authentication. EAP-Failure counts once we have answered anything, because servers
//! refuse a name, or a password, without another word; it can only end the login.
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

use super::authenticatee::{Progress, Proof};
use super::{ERROR_AUTHENTICATION_FAILURE, chap, eap_mschapv2};
use crate::crypto::hlak::Hlak;
use crate::output::{Entropy, Output};
use crate::ppp::config::AuthenticateeConfig;
use crate::ppp::control::{self, Packet};
use crate::ppp::frame;
use crate::ppp::link::Event;

// Specification: RFC 3748 §4, §5.

pub(super) const REQUEST: u8 = 1;
pub(super) const RESPONSE: u8 = 2;
pub(super) const SUCCESS: u8 = 3;
pub(super) const FAILURE: u8 = 4;

pub(super) const IDENTITY: u8 = 1;
const NOTIFICATION: u8 = 2;
const NAK: u8 = 3;

/// The answering end.
#[derive(Debug, Default)]
pub(super) struct Peer {
    method: Method,
    /// What we said last, and to which request: a repeated request gets it again (RFC 3748 §4.1).
    last: Option<(u8, Vec<u8>)>,
}

#[derive(Debug, Default)]
enum Method {
    #[default]
    None,
    Proving(Box<Proof>),
    /// The server proved itself; EAP-Success is due.
    Proven(Hlak),
    Over,
}

impl Peer {
    pub(super) fn handle_packet(
        &mut self,
        config: &AuthenticateeConfig,
        packet: Packet<'_>,
        entropy: &mut impl Entropy,
        out: &mut impl Output<Event>,
    ) -> Progress {
        match packet.code {
            REQUEST => self.handle_request(config, packet, entropy, out),
            SUCCESS => match core::mem::take(&mut self.method) {
                Method::Proven(hlak) => {
                    self.method = Method::Over;
                    Progress::Authenticated(hlak)
                }
                method => {
                    self.method = method;
                    Progress::Pending
                }
            },
            FAILURE if self.last.is_some() && !matches!(self.method, Method::Over) => {
                self.method = Method::Over;
                Progress::Failed {
                    error: ERROR_AUTHENTICATION_FAILURE,
                }
            }
            _ => Progress::Pending,
        }
    }

    fn handle_request(
        &mut self,
        config: &AuthenticateeConfig,
        packet: Packet<'_>,
        entropy: &mut impl Entropy,
        out: &mut impl Output<Event>,
    ) -> Progress {
        let Some((&kind, data)) = packet.data.split_first() else {
            return Progress::Pending;
        };
        let identifier = packet.identifier;
        if let Some((last, response)) = &self.last
            && *last == identifier
        {
            send(identifier, response, out);
            return Progress::Pending;
        }
        let mut progress = Progress::Pending;
        let response = match (kind, &self.method) {
            (_, Method::Over) => return Progress::Pending,
            (IDENTITY, Method::None) => [&[IDENTITY], &config.user[..]].concat(),
            (NOTIFICATION, _) => vec![NOTIFICATION],
            (eap_mschapv2::TYPE, _) => {
                let response;
                (response, progress) = self.handle_mschapv2(config, data, entropy);
                match response {
                    Some(response) => response,
                    None => return progress,
                }
            }
            (IDENTITY | NAK, _) => return Progress::Pending,
            (_, Method::None) => vec![NAK, eap_mschapv2::TYPE],
            _ => return Progress::Pending,
        };
        send(identifier, &response, out);
        self.last = Some((identifier, response));
        progress
    }

    /// The type and type data to answer with, and what has come of it.
    fn handle_mschapv2(
        &mut self,
        config: &AuthenticateeConfig,
        data: &[u8],
        entropy: &mut impl Entropy,
    ) -> (Option<Vec<u8>>, Progress) {
        let nothing = (None, Progress::Pending);
        let Ok(message) = eap_mschapv2::Request::parse(data) else {
            return nothing;
        };
        match (message, &self.method) {
            (
                eap_mschapv2::Request::Challenge {
                    identifier,
                    challenge,
                },
                Method::None | Method::Proving(_),
            ) => {
                let proof = Proof::new(config, challenge, entropy);
                let value = proof.value();
                self.method = Method::Proving(Box::new(proof));
                let response = eap_mschapv2::challenge_response(identifier, &value, &config.user);
                (Some(response), Progress::Pending)
            }
            (eap_mschapv2::Request::Success { message }, Method::Proving(proof)) => {
                match proof.verify(&config.user, message) {
                    Some(hlak) => {
                        self.method = Method::Proven(hlak);
                        (
                            Some(eap_mschapv2::SUCCESS_RESPONSE.to_vec()),
                            Progress::Pending,
                        )
                    }
                    None => {
                        self.method = Method::Over;
                        (None, Progress::ServerUnproven)
                    }
                }
            }
            (eap_mschapv2::Request::Failure { message }, Method::Proving(_)) => {
                let error = chap::failure_error(message);
                self.method = Method::Over;
                (
                    Some(eap_mschapv2::FAILURE_RESPONSE.to_vec()),
                    Progress::Failed { error },
                )
            }
            _ => nothing,
        }
    }
}

fn send(identifier: u8, type_and_data: &[u8], out: &mut impl Output<Event>) {
    control::send(out, frame::EAP, RESPONSE, identifier, |to| {
        to.put(type_and_data)
    });
}
