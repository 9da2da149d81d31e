//! What a session is configured with: an immutable snapshot, shared by all that began under it.
//!
//! A reload makes a new snapshot for the sessions to come; those that live keep theirs, and with
//! it the certificate whose hash their crypto binding is checked against.

use std::sync::Arc;

use rustls_pki_types::ServerName;

use super::codel::Parameters as QueueLimits;
use crate::http::{self, ProbeAnswer, RequestStyle};
use crate::ppp::link::{AuthenticateeConfig, AuthenticatorConfig};
use crate::sstp;
use crate::sstp::binding::HashBitmask;
use crate::time::Duration;
use crate::tls;

/// Time limits of the steps that call and link do not time themselves. Progress to the next step
/// is the only thing that moves a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From accept to the whole ClientHello (server role).
    pub hello: Duration,
    /// From accept (or connect) to the end of the TLS handshake.
    pub handshake: Duration,
    /// From there to the whole HTTP head.
    pub http: Duration,
    /// From there to the call request.
    pub call: Duration,
    /// From accept to up, all steps together.
    pub setup: Duration,
    /// From the wish to end politely to the cut.
    pub drain: Duration,
    /// How long packets may wait to be sent.
    pub queue: QueueLimits,
    /// Each packet gets a TLS record of its own, as from Windows and sstpc, instead of sharing records
    /// with those that go out with it. It costs the peer several times as much; for measuring that.
    pub record_per_packet: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            hello: Duration::from_secs(5),
            handshake: Duration::from_secs(10),
            http: Duration::from_secs(10),
            call: Duration::from_secs(10),
            setup: Duration::from_secs(120),
            drain: Duration::from_secs(5),
            queue: QueueLimits::default(),
            record_per_packet: false,
        }
    }
}

/// What the server role needs to know.
#[derive(Debug)]
pub struct ServerSettings {
    /// Certificate, versions, record layer: one generation of them.
    pub tls: Arc<tls::ServerGeneration>,
    /// Timers of the call.
    pub timing: sstp::Timing,
    /// Hash functions offered for the binding.
    pub offered: HashBitmask,
    /// Methods, MRU and timers of the link.
    pub link: Arc<AuthenticatorConfig>,
    /// Time limits.
    pub limits: Limits,
    /// What a load balancer's GET or HEAD on the SSTP URI is answered with.
    pub probe: ProbeAnswer,
}

/// How a client ends its session when its user wants so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Farewell {
    /// LCP is terminated before the call is (MS-SSTP §3.2.4.2).
    pub terminates_link: bool,
    /// CALL_DISCONNECT carries its Status Info.
    pub gives_status: bool,
    /// The connection stays until CALL_DISCONNECT is acknowledged.
    pub awaits_ack: bool,
}

impl Default for Farewell {
    fn default() -> Self {
        Self {
            terminates_link: true,
            gives_status: true,
            awaits_ack: true,
        }
    }
}

/// What clients do differently though the protocol is one; the default is Windows' way where it is
/// known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Habits {
    /// The request's headers.
    pub request: RequestStyle,
    /// The end.
    pub farewell: Farewell,
}

/// What the client role needs to know.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// Whom to trust, versions, suites.
    pub tls: Arc<tls::ClientProfile>,
    /// The name to verify and to send as SNI.
    pub server_name: ServerName<'static>,
    /// The `Host` header.
    pub host: String,
    /// What to ask for first, where the connection goes to an HTTP proxy.
    pub proxy: Option<Arc<http::proxy::Connect>>,
    /// Timers of the call.
    pub timing: sstp::Timing,
    /// User, password, methods and timers of the link.
    pub link: Arc<AuthenticateeConfig>,
    /// Time limits.
    pub limits: Limits,
    /// Whose ways to imitate.
    pub habits: Habits,
}
