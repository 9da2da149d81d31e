//! Settings, users and packets that tests and simulations share.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use rustls_pki_types::ServerName;
use zeroize::Zeroizing;

use crate::crypto::hlak::Hlak;
use crate::crypto::mschapv2;
use crate::crypto::nt_hash::nt_password_hash;
use crate::http::ProbeAnswer;
use crate::ip::checksum;
use crate::ppp::auth::{AuthMethod, Credentials};
use crate::ppp::link::{AuthenticateeConfig, AuthenticatorConfig};
use crate::services::{Profile, ProfileConfig};
use crate::session::policy::{Answer, Ipv4Policy, Ipv6Policy, Policy, Question, Refusal};
use crate::session::{ClientSettings, Habits, Limits, ServerSettings};
use crate::sstp::binding::HashBitmask;
use crate::{sstp, tls};

/// The user whose password every fixture knows (RFC 2759 §9.2).
pub const USER: &str = "User";
/// Their password.
pub const PASSWORD: &str = "clientPass";
/// The gateway's address in the tunnel.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 1);

/// Hashes of a certificate that nobody has.
pub const CERTIFICATE: tls::CertHashes = tls::CertHashes {
    sha1: [0x51; 20],
    sha256: [0x52; 32],
};

/// The server role without secrecy: MS-CHAPv2, EAP and PAP, the null TLS.
#[must_use]
pub fn server_settings() -> ServerSettings {
    server_settings_with(Arc::new(tls::ServerGeneration::null(CERTIFICATE)))
}

/// The server role under this certificate.
#[must_use]
pub fn server_settings_with(tls: Arc<tls::ServerGeneration>) -> ServerSettings {
    ServerSettings {
        tls,
        timing: sstp::Timing::default(),
        offered: HashBitmask::BOTH,
        link: Arc::new(AuthenticatorConfig {
            methods: vec![AuthMethod::MsChapV2, AuthMethod::Eap, AuthMethod::Pap],
            ..AuthenticatorConfig::default()
        }),
        limits: Limits::default(),
        probe: ProbeAnswer::default(),
    }
}

/// A client of [`server_settings`] that logs in by `method`.
#[must_use]
pub fn client_settings(user: &str, password: &str, method: AuthMethod) -> ClientSettings {
    client_settings_with(Arc::new(tls::ClientProfile::null()), user, password, method)
}

/// A client with this view of certificates.
///
/// # Panics
///
/// Never: the name is one.
#[must_use]
pub fn client_settings_with(
    tls: Arc<tls::ClientProfile>,
    user: &str,
    password: &str,
    method: AuthMethod,
) -> ClientSettings {
    ClientSettings {
        tls,
        server_name: ServerName::try_from("vpn.example.com").expect("a DNS name"),
        host: "vpn.example.com".to_owned(),
        proxy: None,
        timing: sstp::Timing::default(),
        link: Arc::new(AuthenticateeConfig {
            user: user.as_bytes().to_vec(),
            password: Zeroizing::new(password.to_owned()),
            methods: vec![method],
            ..AuthenticateeConfig::default()
        }),
        limits: Limits::default(),
        habits: Habits::default(),
    }
}

/// What an accepted session may do: client `10.8.x.y`, prefix `fd00:8:0:n::/64`.
#[must_use]
pub fn policy(number: u16) -> Policy {
    let [high, low] = number.to_be_bytes();
    Policy {
        user: USER.as_bytes().to_vec(),
        ipv4: Some(Ipv4Policy {
            client: Ipv4Addr::new(10, 8, high, low),
            gateway: GATEWAY,
            dns: [Some(Ipv4Addr::new(9, 9, 9, 9)), None],
            nbns: [None; 2],
        }),
        ipv6: Some(Ipv6Policy {
            prefix: Some(Ipv6Addr::new(0xfd00, 8, 0, number, 0, 0, 0, 0)),
            gateway: Some(Ipv6Addr::new(0xfd00, 8, 0, 0, 0, 0, 0, 1)),
            gateway_id: 1,
            client_id: None,
        }),
        mtu: 1_400,
        session_timeout: None,
        idle_timeout: None,
        network: Profile::new(&ProfileConfig::default()).ok().map(Arc::new),
    }
}

/// Judges PAP and MS-CHAPv2 against the one user there is; the address follows from `number`.
#[must_use]
pub fn judge(question: &Question, number: u16) -> Answer {
    let Question::Authenticate { credentials, .. } = question;
    let hash = nt_password_hash(PASSWORD);
    let accepted = match credentials {
        Credentials::Pap { user, password } => (user == USER.as_bytes()
            && password.as_slice() == PASSWORD.as_bytes())
        .then(|| (Hlak::ZERO, b"welcome".to_vec())),
        Credentials::MsChapV2 {
            user,
            challenge,
            peer_challenge,
            nt_response,
            ..
        } => mschapv2::verify_nt_response(challenge, peer_challenge, user, &hash, nt_response)
            .map(|verified| (verified.hlak, verified.authenticator_response.to_vec())),
        Credentials::ChapMd5 { .. } | Credentials::Eap { .. } => None,
    };
    match accepted {
        Some((hlak, message)) => Answer::Accept {
            hlak,
            message,
            policy: Box::new(policy(number)),
        },
        None => Answer::Reject {
            error: 691,
            message: b"Authentication failed".to_vec(),
            eap: None,
            refusal: Refusal::Credentials,
        },
    }
}

/// A UDP packet with a right checksum.
#[must_use]
pub fn udp(source: Ipv4Addr, destination: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let udp_len = u16::try_from(8 + payload.len()).unwrap_or(u16::MAX);
    let mut packet = vec![0x45, 0];
    packet.extend((20 + udp_len).to_be_bytes());
    packet.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    let sum = checksum::of(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    // A checksum of zero means that there is none (RFC 768).
    packet.extend([0x10, 0x00, 0x20, 0x00]);
    packet.extend(udp_len.to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(payload);
    packet
}
