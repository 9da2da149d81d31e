//! What a session tells its owner, and the closed list of reasons for which one ends.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::policy::Refusal;
use crate::time::{Duration, Instant};

/// News of one session.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Traffic may pass: crypto binding is verified and a network protocol is open.
    Up(Up),
    /// Another network protocol opened, or one closed, while the session is up.
    Changed(Addresses),
    /// The client asked for something by LCP Identification (RFC 1570 §2.1); a text for the log.
    Identified(Vec<u8>),
    /// An LCP echo came back.
    EchoReply {
        /// From request to reply.
        round_trip: Duration,
    },
    /// It is over. No other event follows.
    Ended(Ended),
}

/// A session that came up.
#[derive(Clone, Debug, PartialEq)]
pub struct Up {
    /// The name from its policy (server) or its own (client).
    pub user: Vec<u8>,
    /// What it was given.
    pub addresses: Addresses,
    /// What protects it.
    pub protection: Protection,
    /// When it passed each milestone.
    pub milestones: Milestones,
}

/// TLS parameters worth a log line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Protection {
    /// Protocol version, as `TLSv1.3`.
    pub version: &'static str,
    /// Cipher suite, by its IANA name.
    pub suite: &'static str,
    /// Key exchange group.
    pub group: &'static str,
    /// The name the client asked for by SNI (server role).
    pub server_name: Option<String>,
}

/// The addresses of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Addresses {
    /// The client's IPv4 address.
    pub ipv4: Option<Ipv4Addr>,
    /// The gateway's IPv4 address in the tunnel.
    pub ipv4_gateway: Option<Ipv4Addr>,
    /// DNS servers told by IPCP.
    pub dns: [Option<Ipv4Addr>; 2],
    /// The client's /64 (known to the server role only).
    pub ipv6_prefix: Option<Ipv6Addr>,
    /// Interface identifiers, ours first.
    pub ipv6_ids: Option<(u64, u64)>,
}

/// The steps of a set-up, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Milestone {
    /// The connection was accepted, or asked for.
    Begun,
    /// TCP stands.
    Tcp,
    /// The TLS handshake is done.
    Tls,
    /// The HTTP exchange is done.
    Http,
    /// The call request is acknowledged.
    Call,
    /// LCP is open.
    Lcp,
    /// PPP authentication is done.
    Authenticated,
    /// Crypto binding is verified (server) or sent (client).
    Bound,
    /// The first network protocol is open.
    Network,
}

impl Milestone {
    /// Every milestone, in order.
    pub const ALL: [Self; 9] = [
        Self::Begun,
        Self::Tcp,
        Self::Tls,
        Self::Http,
        Self::Call,
        Self::Lcp,
        Self::Authenticated,
        Self::Bound,
        Self::Network,
    ];
}

/// When a session passed each milestone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Milestones([Option<Instant>; 9]);

impl Milestones {
    /// Notes that `milestone` was passed; the first time counts.
    pub const fn pass(&mut self, milestone: Milestone, now: Instant) {
        let slot = &mut self.0[milestone as usize];
        if slot.is_none() {
            *slot = Some(now);
        }
    }

    /// When `milestone` was passed.
    #[must_use]
    pub const fn at(&self, milestone: Milestone) -> Option<Instant> {
        self.0[milestone as usize]
    }

    /// The last milestone passed.
    #[must_use]
    pub fn last(&self) -> Milestone {
        Milestone::ALL
            .into_iter()
            .rev()
            .find(|&milestone| self.at(milestone).is_some())
            .unwrap_or(Milestone::Begun)
    }
}

/// A session that ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    /// Why.
    pub reason: EndReason,
    /// A detail for the log line, if there is one.
    pub detail: Option<String>,
    /// Whose it was, once that was known.
    pub user: Option<Vec<u8>>,
    /// Whether it had come up.
    pub was_up: bool,
    /// When it passed each milestone.
    pub milestones: Milestones,
    /// What it carried.
    pub traffic: Traffic,
}

/// User packets carried; a byte counts where the packet crosses the inside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Traffic {
    /// Packets from the client to the network.
    pub uplink_packets: u64,
    /// Their bytes.
    pub uplink_bytes: u64,
    /// Packets from the network to the client.
    pub downlink_packets: u64,
    /// Their bytes.
    pub downlink_bytes: u64,
}

impl Traffic {
    /// Takes out what was counted and then did not go out after all.
    pub(crate) const fn take_back(&mut self, other: Self) {
        self.uplink_packets = self.uplink_packets.saturating_sub(other.uplink_packets);
        self.uplink_bytes = self.uplink_bytes.saturating_sub(other.uplink_bytes);
        self.downlink_packets = self.downlink_packets.saturating_sub(other.downlink_packets);
        self.downlink_bytes = self.downlink_bytes.saturating_sub(other.downlink_bytes);
    }
}

macro_rules! end_reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// Why a session ended: a closed list, the same in logs, counters and accounting.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum EndReason {
            $($(#[$doc])* $variant,)*
        }

        impl EndReason {
            /// Every reason.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name in logs and metrics.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

end_reasons! {
    /// The peer ended the call in order (Call Disconnect, or LCP Terminate).
    PeerDisconnected = "peer-disconnected",
    /// The peer aborted the call (MS-SSTP 2.2.13).
    PeerAborted = "peer-aborted",
    /// The peer closed the connection without ending the call.
    PeerClosed = "peer-closed",
    /// The connection was reset.
    ConnectionReset = "connection-reset",
    /// Nothing was acknowledged for too long, or no answer came to our echo.
    PeerLost = "peer-lost",
    /// The connection could not be opened (client role).
    ConnectFailed = "connect-failed",
    /// The HTTP proxy in between did not let us through (client role).
    ProxyFailed = "proxy-failed",
    /// TLS failed.
    TlsFailed = "tls-failed",
    /// The kernel, which was to seal or open the session's records, could not; the detail says why.
    KernelTls = "kernel-tls",
    /// The other end does not trust a certificate, or we do not trust its.
    CertificateRefused = "certificate-refused",
    /// The request was not one of SSTP; it was answered and closed.
    NotSstp = "not-sstp",
    /// The server answered something else than 200 (client role).
    HttpRefused = "http-refused",
    /// A stage of the set-up took too long.
    SetupTimeout = "setup-timeout",
    /// The peer broke SSTP.
    SstpViolation = "sstp-violation",
    /// The peer broke PPP, or no agreement was found.
    PppFailed = "ppp-failed",
    /// Wrong name or password.
    AuthenticationFailed = "authentication-failed",
    /// The crypto binding was wrong: someone may be in the middle (MS-SSTP 3.3.5.2.3).
    BindingRefused = "binding-refused",
    /// The authority refused the account, had no address, or could not be asked.
    Refused = "refused",
    /// The session's time was up.
    SessionTimeout = "session-timeout",
    /// The user was idle for too long.
    IdleTimeout = "idle-timeout",
    /// Ended by the operator.
    Administrative = "administrative",
    /// Replaced by a newer login that owns its address.
    Replaced = "replaced",
    /// The gateway is stopping.
    Shutdown = "shutdown",
    /// A limit was reached (sessions, buffers).
    Exhausted = "exhausted",
    /// The TLS keys have protected nearly as much as they may, and cannot be replaced (TLS 1.2).
    KeysSpent = "keys-spent",
    /// Ended by its own user (client role).
    UserRequest = "user-request",
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl From<Refusal> for EndReason {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Credentials => Self::AuthenticationFailed,
            Refusal::Account | Refusal::NoAddress | Refusal::Unavailable => Self::Refused,
        }
    }
}

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// Why a packet was dropped; every one is counted under exactly one of these.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum DropReason {
            $($(#[$doc])* $variant,)*
        }

        impl DropReason {
            /// Every reason, in the order of its counter.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name in metrics.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

drop_reasons! {
    /// Uplink: data in a state of the call or the link that forbids it.
    NotUp = "not-up",
    /// Uplink: not a whole IP packet.
    Malformed = "malformed",
    /// Uplink: a source address that is not the session's.
    Source = "source",
    /// Uplink: multicast, broadcast or a service that is not offered.
    Unserved = "unserved",
    /// Uplink: to another client, while clients are isolated.
    Isolated = "isolated",
    /// Uplink: larger than what was agreed.
    TooLong = "too-long",
    /// Uplink: the TUN refused it.
    InsideRefused = "inside-refused",
    /// Uplink: the TUN device is down or gone.
    InsideDown = "inside-down",
    /// Uplink: a PPP frame of a protocol nobody negotiated, or garbage.
    BadFrame = "bad-frame",
    /// Downlink: no session has this destination.
    NoSession = "no-session",
    /// Downlink: larger than the session's MTU; the sender was told.
    TooBig = "too-big",
    /// Downlink: the session's queue is full.
    QueueFull = "queue-full",
    /// Downlink: it waited too long for a standing queue (CoDel, RFC 8289).
    Late = "late",
    /// Downlink: it still waited when its session ended.
    Ended = "session-ended",
    /// Downlink: the other shard's letter box is full.
    HandoffFull = "handoff-full",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = EndReason::ALL.iter().map(|reason| reason.name()).collect();
        names.extend(DropReason::ALL.iter().map(|reason| reason.name()));
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn the_first_passage_of_a_milestone_counts() {
        let mut milestones = Milestones::default();
        milestones.pass(Milestone::Tls, Instant::from_nanos(5));
        milestones.pass(Milestone::Tls, Instant::from_nanos(9));
        assert_eq!(milestones.at(Milestone::Tls), Some(Instant::from_nanos(5)));
        assert_eq!(milestones.last(), Milestone::Tls);
    }
}
