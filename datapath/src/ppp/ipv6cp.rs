//! What IPV6CP negotiates: interface identifiers, the lower halves of the link-local addresses
//! (RFC 5072 §4.1).
//!
//! A peer's identifier is taken if it is neither zero nor ours; an assigned one is insisted on.
//! Global addresses are not negotiated here: they come by Router Advertisement or DHCPv6.
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

use crate::output::Entropy;
use crate::ppp::config::Ipv6Assignment;
use crate::ppp::control::{Options, put_option};
use crate::ppp::frame;
use crate::ppp::link::Timer;
use crate::ppp::negotiation::{Faults, Judgement, Terms};
use crate::wire::{TooShort, Writer};

// Specification: RFC 5072 §4.
const INTERFACE_IDENTIFIER: u8 = 1;

/// IPV6CP's terms.
#[derive(Debug, Default)]
pub(super) struct Ipv6cp {
    local_id: u64,
    asks: bool,
    peer_id: u64,
    /// What the peer must use, if it must use a certain one.
    peer_id_assigned: Option<u64>,
}

impl Ipv6cp {
    pub(super) const fn authenticator(assignment: Ipv6Assignment) -> Self {
        Self {
            local_id: assignment.gateway_id,
            asks: true,
            peer_id: 0,
            peer_id_assigned: assignment.client_id,
        }
    }

    pub(super) fn authenticatee(entropy: &mut impl Entropy) -> Self {
        Self {
            local_id: fresh_id(entropy, 0),
            asks: true,
            peer_id: 0,
            peer_id_assigned: None,
        }
    }

    /// Takes up what was negotiated before.
    pub(super) const fn restore(&mut self, local_id: u64, peer_id: u64) {
        self.local_id = local_id;
        self.peer_id = peer_id;
    }

    pub(super) const fn local_id(&self) -> u64 {
        self.local_id
    }

    pub(super) const fn peer_id(&self) -> u64 {
        self.peer_id
    }
}

impl Terms for Ipv6cp {
    const PROTOCOL: u16 = frame::IPV6CP;
    const RESTART: Timer = Timer::Ipv6cpRestart;

    fn write_request(&self, to: &mut Writer<'_>) -> Result<(), TooShort> {
        if self.asks {
            put_option(to, INTERFACE_IDENTIFIER, &self.local_id.to_be_bytes())?;
        }
        Ok(())
    }

    fn judge(
        &mut self,
        request: Options<'_>,
        naks_spent: bool,
        entropy: &mut impl Entropy,
    ) -> Judgement {
        let mut faults = Faults::new(naks_spent);
        let mut named = None;
        for option in request {
            let id = <[u8; 8]>::try_from(option.value).map(u64::from_be_bytes);
            match (option.kind, id) {
                (INTERFACE_IDENTIFIER, Ok(id)) => {
                    named = Some(id);
                    let wrong = self.peer_id_assigned.is_some_and(|assigned| assigned != id);
                    if wrong || id == 0 || id == self.local_id {
                        let better = self
                            .peer_id_assigned
                            .unwrap_or_else(|| fresh_id(entropy, self.local_id));
                        faults.nak(&option, &better.to_be_bytes());
                    }
                }
                _ => faults.reject(&option),
            }
        }
        if named.is_none() {
            // Both ends need an identifier, and there is no other way to learn the peer's.
            if naks_spent {
                return Judgement::Close;
            }
            let suggestion = self
                .peer_id_assigned
                .unwrap_or_else(|| fresh_id(entropy, self.local_id));
            faults.append(INTERFACE_IDENTIFIER, &suggestion.to_be_bytes());
        }
        let judgement = faults.judgement();
        if judgement == Judgement::Ack {
            self.peer_id = named.unwrap_or_default();
        }
        judgement
    }

    fn handle_nak(&mut self, options: Options<'_>, entropy: &mut impl Entropy) {
        for option in options {
            if option.kind != INTERFACE_IDENTIFIER {
                continue;
            }
            let wish = <[u8; 8]>::try_from(option.value)
                .map(u64::from_be_bytes)
                .ok()
                .filter(|&id| id != 0 && id != self.peer_id);
            self.local_id = wish.unwrap_or_else(|| fresh_id(entropy, self.local_id));
        }
    }

    fn handle_reject(&mut self, options: Options<'_>) {
        for option in options {
            self.asks &= option.kind != INTERFACE_IDENTIFIER;
        }
    }
}

/// An identifier that is neither zero nor `other`.
fn fresh_id(entropy: &mut impl Entropy, other: u64) -> u64 {
    let id = u64::from_be_bytes(entropy.array());
    if id == 0 || id == other {
        other.wrapping_add(1).max(1)
    } else {
        id
    }
}
