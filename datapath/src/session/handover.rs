//! Everything a live session is made of, as one value that another process can take up.
//!
//! Keys and sequence numbers, call, link, policy, addresses, what arrived in part, counters. A
//! session can be exported while it is up and nothing of it is in the kernel's hands: between the
//! completion of a send and the next. Deadlines are not carried; call and link start them afresh,
//! which gives a peer at most one more interval.
//!
//! The value holds keys: whoever has it can read and forge the session's traffic.

use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::event::{Addresses, Milestone, Milestones, Protection, Traffic};
use super::policy::Policy;
use super::tunnel::{Call, Tunnel};
use super::{Edge, Ledger, Outside, Role, ServerSettings, Session, Stage};
use crate::ppp::link::{Link, LinkSnapshot, RestoreError};
use crate::services::Profile;
use crate::sstp;
use crate::sstp::CallSnapshot;
use crate::time::{Deadlines, Instant};
use crate::tls;

/// The layout of [`Exported`]; one that is not known is refused.
const VERSION: u16 = 1;

/// A live session of the server role, outside of any process.
#[derive(Debug, Serialize, Deserialize)]
pub struct Exported {
    version: u16,
    peer: SocketAddr,
    keys: tls::ExportedKeys,
    call: CallSnapshot,
    link: LinkSnapshot,
    policy: Policy,
    addresses: Addresses,
    mtu: u16,
    traffic: Traffic,
    partial_record: Vec<u8>,
    partial: Vec<u8>,
}

/// Why a session cannot be exported or taken up.
#[derive(Debug, thiserror::Error)]
pub enum NotExportable {
    /// It is not up, or is a client's.
    #[error("the session is not up")]
    NotUp,
    /// Bytes of it are on their way; ask again when they are sent.
    #[error("the session has bytes in flight")]
    Busy,
    /// Its record layer keeps its keys to itself.
    #[error("the record layer in use, or the kernel, cannot give its keys away")]
    Keys,
    /// It was exported by another version.
    #[error("export of version {0} is not known here")]
    Version(u16),
    /// The keys do not make a record layer.
    #[error("the exported keys are refused: {0}")]
    Refused(#[from] tls::Error),
    /// The link's state contradicts itself.
    #[error("the exported link is refused: {0}")]
    Link(#[from] RestoreError),
}

impl Session {
    /// The session as a value; it must not be used after it was exported for good.
    pub fn export(&self) -> Result<Exported, NotExportable> {
        let (Stage::Tunnel(tunnel), Role::Server(_), true) =
            (&self.stage, &self.role, self.ledger.was_up)
        else {
            return Err(NotExportable::NotUp);
        };
        let transmit = &self.outside.transmit;
        if transmit.in_flight() || transmit.has_pending() || !self.outside.flight.is_empty() {
            return Err(NotExportable::Busy);
        }
        let Call::Server(call) = &tunnel.call else {
            return Err(NotExportable::NotUp);
        };
        Ok(Exported {
            version: VERSION,
            peer: self.peer,
            keys: self
                .outside
                .tls
                .as_ref()
                .and_then(tls::Connection::export)
                .ok_or(NotExportable::Keys)?,
            call: call.snapshot().ok_or(NotExportable::NotUp)?,
            link: tunnel.link.snapshot().ok_or(NotExportable::NotUp)?,
            policy: tunnel.policy().cloned().ok_or(NotExportable::NotUp)?,
            addresses: tunnel.addresses,
            mtu: tunnel.mtu,
            traffic: self.ledger.traffic,
            partial_record: self.outside.partial_record.clone(),
            partial: self.outside.partial.clone(),
        })
    }

    /// A session that goes on where `exported` stopped.
    pub fn import<E: Edge>(
        now: Instant,
        exported: Exported,
        settings: Arc<ServerSettings>,
        network: Option<Arc<Profile>>,
        edge: &mut E,
    ) -> Result<Self, NotExportable> {
        if exported.version != VERSION {
            return Err(NotExportable::Version(exported.version));
        }
        let call = sstp::server::Call::restore(&exported.call);
        let link = Arc::clone(&settings.link);
        let link = Link::restore(link, exported.link, now, &mut edge.entropy())?;
        let mut policy = exported.policy;
        policy.network = network;
        let mut milestones = Milestones::default();
        for milestone in Milestone::ALL {
            milestones.pass(milestone, now);
        }
        let mut session = Self {
            peer: exported.peer,
            stage: Stage::Request,
            outside: Outside {
                tls: Some(tls::Connection::import(&exported.keys)?),
                partial_record: exported.partial_record,
                partial: exported.partial,
                ..Outside::default()
            },
            ledger: Ledger {
                protection: Protection::default(),
                milestones,
                traffic: exported.traffic,
                last_traffic: now,
                user: Some(policy.user.clone()),
                was_up: true,
                ..Ledger::default()
            },
            deadlines: Deadlines::default(),
            role: Role::Server(settings),
        };
        let (stage, mut cx) = session.split(now, edge);
        let mut tunnel = Box::new(Tunnel::with_layers(Call::Server(call), link));
        tunnel.addresses = exported.addresses;
        tunnel.mtu = exported.mtu;
        tunnel.resume(Box::new(policy), &mut cx);
        *stage = Stage::Tunnel(tunnel);
        Ok(session)
    }

    /// Whether the connection can be given to another shard: nothing of it is in flight, and its
    /// owner has not been asked about it yet, so that nothing is held in its name.
    #[must_use]
    pub fn is_movable(&self) -> bool {
        // What the kernel has of a connection is known to its driver alone.
        let in_kernel =
            self.outside.tls.as_ref().is_some_and(|tls| {
                tls.is_in_kernel(tls::Half::Tx) || tls.is_in_kernel(tls::Half::Rx)
            });
        let is_quiet =
            !in_kernel && !self.outside.transmit.in_flight() && self.outside.flight.is_empty();
        match &self.stage {
            Stage::Handshake(_) | Stage::Request => is_quiet,
            Stage::Tunnel(tunnel) => is_quiet && !tunnel.asked && tunnel.policy.is_none(),
            Stage::Proxy(_) | Stage::Closing(_) => false,
        }
    }
}
