//! A link as a value: exported from one process, taken up by another.
//!
//! Only a link that has reached the network phase and is not ending can be exported; one that is
//! being set up starts again with its connection. Half-done negotiations of network protocols are
//! not exported but begun anew. Deadlines are not exported: they start at the moment of taking up.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::output::Entropy;
use crate::ppp::auth::AuthMethod;
use crate::ppp::config::{Assignment, AuthenticatorConfig};
use crate::ppp::ipcp::Ipcp;
use crate::ppp::ipv6cp::Ipv6cp;
use crate::ppp::link::{Link, Phase, Timer};
use crate::ppp::negotiation::Negotiation;
use crate::time::Instant;

/// An authenticator's open link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkSnapshot {
    method: AuthMethod,
    magic: u32,
    peer_magic: u32,
    peer_mru: u16,
    lcp_identifier: u8,
    assignment: Assignment,
    ipv4: Option<Ipv4Snapshot>,
    ipv6: Option<Ipv6Snapshot>,
}

/// IPCP, open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Ipv4Snapshot {
    identifier: u8,
}

/// IPV6CP, open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Ipv6Snapshot {
    identifier: u8,
    local_id: u64,
    peer_id: u64,
}

/// Why a snapshot cannot be taken up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// The protocol was open, and the assignment has nothing for it.
    #[error("an open network protocol without an assignment")]
    Unassigned,
    /// No protocol was open and none can be begun.
    #[error("a link without a network protocol")]
    NoNetworkProtocol,
}

impl Link {
    /// The link as a value; `None` for an authenticatee, and for one that is not in the network phase
    /// with its addresses assigned.
    #[must_use]
    pub fn snapshot(&self) -> Option<LinkSnapshot> {
        let is_settled = self.phase == Phase::Network && self.lcp.is_open();
        let assignment = self.assignment.clone().filter(|_| is_settled)?;
        let ipv4 = self.ipcp.as_ref().filter(|_| self.ipv4_open);
        let ipv6 = self.ipv6cp.as_ref().filter(|_| self.ipv6_open);
        Some(LinkSnapshot {
            method: self.lcp.terms.auth_method()?,
            magic: self.lcp.terms.magic(),
            peer_magic: self.lcp.terms.peer_magic,
            peer_mru: self.lcp.terms.peer_mru,
            lcp_identifier: self.lcp.next_identifier(),
            assignment,
            ipv4: ipv4.map(|ipcp| Ipv4Snapshot {
                identifier: ipcp.next_identifier(),
            }),
            ipv6: ipv6.map(|ipv6cp| Ipv6Snapshot {
                identifier: ipv6cp.next_identifier(),
                local_id: ipv6cp.terms.local_id(),
                peer_id: ipv6cp.terms.peer_id(),
            }),
        })
    }

    /// Takes a link up as it was. No event is told again; what was not open begins at the next
    /// timeout, which is due at once.
    ///
    /// # Errors
    /// The snapshot contradicts itself.
    pub fn restore(
        config: impl Into<Arc<AuthenticatorConfig>>,
        snapshot: LinkSnapshot,
        now: Instant,
        entropy: &mut impl Entropy,
    ) -> Result<Self, RestoreError> {
        let config = config.into();
        let (ipv4, ipv6) = (config.ipv4, config.ipv6);
        let network_limit = config.times.network_limit;
        let mut link = Self::authenticator(config, entropy);
        let LinkSnapshot {
            method,
            magic,
            peer_magic,
            peer_mru,
            lcp_identifier,
            assignment,
            ..
        } = snapshot;
        link.lcp.terms.restore(magic, peer_magic, peer_mru);
        link.lcp.terms.set_auth_method(method);
        link.lcp = Negotiation::restored(link.lcp.terms, true, lcp_identifier);
        link.phase = Phase::Network;
        link.ipcp = match (assignment.ipv4, snapshot.ipv4) {
            (None, Some(_)) => return Err(RestoreError::Unassigned),
            (Some(given), open) if ipv4 || open.is_some() => {
                let identifier = open.map_or(1, |open| open.identifier);
                let terms = Ipcp::authenticator(given);
                Some(Negotiation::restored(terms, open.is_some(), identifier))
            }
            _ => None,
        };
        link.ipv6cp = match (assignment.ipv6, snapshot.ipv6) {
            (None, Some(_)) => return Err(RestoreError::Unassigned),
            (Some(given), open) if ipv6 || open.is_some() => {
                let identifier = open.map_or(1, |open| open.identifier);
                let mut terms = Ipv6cp::authenticator(given);
                if let Some(open) = open {
                    terms.restore(open.local_id, open.peer_id);
                }
                Some(Negotiation::restored(terms, open.is_some(), identifier))
            }
            _ => None,
        };
        if link.ipcp.is_none() && link.ipv6cp.is_none() {
            return Err(RestoreError::NoNetworkProtocol);
        }
        link.ipv4_open = snapshot.ipv4.is_some();
        link.ipv6_open = snapshot.ipv6.is_some();
        link.assignment = Some(assignment);
        // At once: the peer has waited long enough.
        if !link.ipv4_open && link.ipcp.is_some() {
            link.shared.deadlines.set(Timer::IpcpHold, now);
        }
        if !link.ipv6_open && link.ipv6cp.is_some() {
            link.shared.deadlines.set(Timer::Ipv6cpHold, now);
        }
        if !link.ipv4_open && !link.ipv6_open {
            let deadlines = &mut link.shared.deadlines;
            deadlines.set(Timer::Phase, now + network_limit);
        }
        link.start_echoes(now);
        Ok(link)
    }
}
