//! The questions a session asks its owner, and the answers.
//!
//! Whether a name and its proof are good, and which addresses belong to it, is not the data path's
//! to know. A session asks once ([`Question`]), goes on serving its peer, and takes the [`Answer`]
//! whenever it comes: a file, a RADIUS server or a person with a telephone may be behind it. What
//! a session may do is one value, its [`Policy`], which the owner can replace while it lives.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ppp::auth::Credentials;
use crate::services::Profile;
use crate::time::Duration;

/// What a session wants to know.
#[derive(Debug)]
pub enum Question {
    /// Are these credentials good? With EAP this is asked once a round.
    Authenticate {
        /// What the peer offered.
        credentials: Credentials,
        /// Where its connection comes from.
        peer: SocketAddr,
    },
}

/// What the owner answers.
#[derive(Debug)]
pub enum Answer {
    /// The peer is who it says.
    Accept {
        /// The key that crypto binding is checked with; [`crate::crypto::hlak::Hlak::ZERO`] for
        /// methods that make none (MS-SSTP 3.2.5.2).
        hlak: crate::crypto::hlak::Hlak,
        /// Text of the PAP or CHAP success (for MS-CHAPv2 it starts with `S=`), or the EAP-Success.
        message: Vec<u8>,
        /// What the session may do.
        policy: Box<Policy>,
    },
    /// It is not, or may not now.
    Reject {
        /// RFC 2759 §6 error number, 691 for wrong credentials.
        error: u16,
        /// A text for the person at the other end.
        message: Vec<u8>,
        /// The EAP-Failure or the method's own failure request, for EAP.
        eap: Option<Vec<u8>>,
        /// Why, for our log.
        refusal: Refusal,
    },
    /// EAP goes on with this request.
    Continue {
        /// The whole EAP Request.
        request: Vec<u8>,
    },
}

/// Why an owner refused a session; a closed list for logs and counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Unknown name or wrong proof; which of the two is not told to anybody.
    Credentials,
    /// The account is disabled or may not log in now.
    Account,
    /// No address is left in the pool, or the user's own is taken.
    NoAddress,
    /// The authority could not be asked.
    Unavailable,
}

/// What one session may do. Replacing it takes effect with the next packet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Policy {
    /// The name to log and account, as the authority gave it.
    pub user: Vec<u8>,
    /// The IPv4 side, if the session may have one.
    pub ipv4: Option<Ipv4Policy>,
    /// The IPv6 side, if the session may have one.
    pub ipv6: Option<Ipv6Policy>,
    /// Largest packet in either direction, in bytes; the peer's MRU may lower it further.
    pub mtu: u16,
    /// End the session this long after it came up.
    pub session_timeout: Option<Duration>,
    /// End the session after this long without a user's packet.
    pub idle_timeout: Option<Duration>,
    /// What the in-tunnel services tell the client, shared by all sessions of one configuration;
    /// `None` leaves them silent.
    #[serde(skip)]
    pub network: Option<Arc<Profile>>,
}

/// Addresses of the IPv4 side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ipv4Policy {
    /// The client's address; no other source passes.
    pub client: Ipv4Addr,
    /// Our address in the tunnel.
    pub gateway: Ipv4Addr,
    /// DNS servers for IPCP (RFC 1877 §1.1, §1.3).
    pub dns: [Option<Ipv4Addr>; 2],
    /// NetBIOS name servers for IPCP (RFC 1877 §1.2, §1.4).
    pub nbns: [Option<Ipv4Addr>; 2],
}

/// Addresses of the IPv6 side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ipv6Policy {
    /// The /64 that belongs to this session alone; `None` leaves it with link-local addresses.
    pub prefix: Option<Ipv6Addr>,
    /// Our address beyond the link, which our ICMP errors come from.
    pub gateway: Option<Ipv6Addr>,
    /// Our interface identifier.
    pub gateway_id: u64,
    /// The client's interface identifier, if it may not choose.
    pub client_id: Option<u64>,
}
