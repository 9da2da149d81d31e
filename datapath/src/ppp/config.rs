//! What the owner of a link decides before it starts, and what it assigns once the peer is known.

use core::fmt;
use core::net::Ipv4Addr;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::ppp::auth::AuthMethod;
use crate::ppp::frame;
use crate::time::Duration;

/// How long each phase and each wait may last; the defaults are right for SSTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Times {
    /// From [`Link::up`](crate::ppp::link::Link::up) to LCP opened.
    pub lcp_limit: Duration,
    /// From LCP opened to the verdict on the peer; take 120 s where EAP asks a human.
    pub auth_limit: Duration,
    /// From the verdict to the first network protocol opened.
    pub network_limit: Duration,
    /// Authenticator: how long its first LCP request waits for the peer's. Windows loses one that
    /// comes right behind the call's acknowledgement, and then costs itself 3 s.
    pub lcp_hold: Duration,
    /// Authenticator: between LCP opened and the first question. Some clients attach the next phase's
    /// handler only after they have told of the last one, and lose what comes in the same instant.
    pub auth_gap: Duration,
    /// Authenticator: how long a network protocol's own request waits for the peer's.
    pub network_hold: Duration,
    /// Authenticator: between a Failure and the Terminate-Request, so that the peer shows the reason.
    pub failure_linger: Duration,
    /// RFC 1661 §4.6, the restart timer.
    pub restart: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            lcp_limit: Duration::from_secs(20),
            auth_limit: Duration::from_secs(60),
            network_limit: Duration::from_secs(30),
            lcp_hold: Duration::from_millis(700),
            auth_gap: Duration::from_millis(75),
            network_hold: Duration::from_millis(500),
            failure_linger: Duration::from_millis(150),
            restart: Duration::from_secs(3),
        }
    }
}

/// The end that demands authentication: the gateway. Shared by all its links.
#[derive(Clone, Debug)]
pub struct AuthenticatorConfig {
    /// Methods to offer, the preferred one first. Empty refuses everyone.
    pub methods: Vec<AuthMethod>,
    /// Name in CHAP challenges, 1 to 64 bytes; empty counts as `gw`.
    pub name: Vec<u8>,
    /// What we ask the peer to send at most.
    pub mru: u16,
    /// Whether IPCP is answered at all.
    pub ipv4: bool,
    /// Whether IPV6CP is answered at all.
    pub ipv6: bool,
    /// Between LCP Echo-Requests of ours, `None` for none; three without answer end the link.
    pub lcp_echo_interval: Option<Duration>,
    /// Deadlines and gaps.
    pub times: Times,
}

impl Default for AuthenticatorConfig {
    fn default() -> Self {
        Self {
            methods: vec![AuthMethod::MsChapV2],
            name: b"gw".to_vec(),
            mru: frame::MRU_DEFAULT,
            ipv4: true,
            ipv6: true,
            lcp_echo_interval: None,
            times: Times::default(),
        }
    }
}

/// Whose option lists the authenticatee imitates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Persona {
    /// MRU and magic number; address and DNS.
    #[default]
    Plain,
    /// Windows 10: adds PFC, ACFC and callback; address, DNS and NBNS; IPV6CP before IPCP.
    Windows,
    /// pppd under sstpc: ACCM, magic number, PFC, ACFC and no MRU; address, VJ compression and DNS.
    Pppd,
    /// Open SSTP Client: MRU alone, and rejects all but MRU and authentication; address and one DNS.
    OpenSstp,
}

/// When an authenticatee starts its network protocols, once it is accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NetworkOrder {
    /// IPV6CP and right behind it IPCP, as Windows.
    #[default]
    Ipv6First,
    /// IPCP and right behind it IPV6CP.
    Ipv4First,
    /// IPV6CP once IPCP has opened or failed; what the peer asks before is lost, as Open SSTP Client
    /// has it.
    Ipv6Later,
}

/// The end that authenticates itself: loadgen and the client.
#[derive(Clone)]
pub struct AuthenticateeConfig {
    /// User name, sent as it is; a leading `DOMAIN\` stays out of MS-CHAPv2's hash.
    pub user: Vec<u8>,
    /// Password: UTF-8 for PAP and CHAP-MD5, UTF-16 in MS-CHAPv2's hash.
    pub password: Zeroizing<String>,
    /// Methods that may be used, the preferred one first.
    pub methods: Vec<AuthMethod>,
    /// Whether a server that asks for no authentication is put up with.
    pub allow_unauthenticated: bool,
    /// What we ask the peer to send at most.
    pub mru: u16,
    /// Whether to ask for DNS (and, as Windows, NBNS) addresses.
    pub ask_dns: bool,
    /// Whether to run IPCP.
    pub ipv4: bool,
    /// Whether to run IPV6CP.
    pub ipv6: bool,
    /// Address to ask for; unspecified lets the peer choose.
    pub ipv4_wish: Ipv4Addr,
    /// Whose option lists to imitate.
    pub persona: Persona,
    /// LCP Identifications (RFC 1570 §2.1) to send when LCP has opened.
    pub identifications: &'static [&'static [u8]],
    /// The options of a CCP Configure-Request to send once accepted, `None` for none. What is answered
    /// is not looked at: compression is never spoken.
    pub ccp: Option<&'static [u8]>,
    /// When the network protocols start.
    pub network_order: NetworkOrder,
    /// Between LCP Echo-Requests of ours, `None` for none; three without answer end the link.
    pub lcp_echo_interval: Option<Duration>,
    /// Deadlines.
    pub times: Times,
}

impl Default for AuthenticateeConfig {
    fn default() -> Self {
        Self {
            user: Vec::new(),
            password: Zeroizing::new(String::new()),
            methods: vec![AuthMethod::MsChapV2, AuthMethod::Eap, AuthMethod::Pap],
            allow_unauthenticated: false,
            mru: frame::MRU_DEFAULT,
            ask_dns: true,
            ipv4: true,
            ipv6: true,
            ipv4_wish: Ipv4Addr::UNSPECIFIED,
            persona: Persona::Plain,
            identifications: &[],
            ccp: None,
            network_order: NetworkOrder::default(),
            lcp_echo_interval: None,
            times: Times::default(),
        }
    }
}

impl fmt::Debug for AuthenticateeConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthenticateeConfig")
            .field("user", &String::from_utf8_lossy(&self.user))
            .field("methods", &self.methods)
            .field("persona", &self.persona)
            .finish_non_exhaustive()
    }
}

/// What the authenticator gives an accepted peer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// For IPCP; `None` rejects IPCP for good.
    pub ipv4: Option<Ipv4Assignment>,
    /// For IPV6CP; `None` rejects IPV6CP for good.
    pub ipv6: Option<Ipv6Assignment>,
    /// What the session sends at most, 0 for no bound of its own; see
    /// [`Link::send_mtu`](crate::ppp::link::Link::send_mtu).
    pub mtu: u16,
}

/// IPv4 addresses of one link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ipv4Assignment {
    /// Our end; may be the same on every link.
    pub gateway: Ipv4Addr,
    /// The peer's end.
    pub client: Ipv4Addr,
    /// Primary and secondary DNS server (RFC 1877 §1.1, 1.3).
    pub dns: [Option<Ipv4Addr>; 2],
    /// Primary and secondary NetBIOS name server (RFC 1877 §1.2, 1.4).
    pub nbns: [Option<Ipv4Addr>; 2],
}

/// Interface identifiers of one link: the lower half of the link-local addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ipv6Assignment {
    /// Ours; not 0.
    pub gateway_id: u64,
    /// The peer's, if it must be a certain one.
    pub client_id: Option<u64>,
}
