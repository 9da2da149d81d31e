//! From the flags to what a session is configured with: whom to trust, who we are, how long to wait.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use datapath::ppp::auth::AuthMethod;
use datapath::ppp::link::AuthenticateeConfig;
use datapath::session::{ClientSettings, Habits, Limits};
use datapath::sstp::Timing;
use datapath::tls::{KeyExchange, TlsOptions, Version};
use rustls_pki_types::ServerName;
use zeroize::Zeroizing;

use crate::flags::{Access, Method, Password, Server, TlsVersion};
use crate::persona::Persona;
use crate::trust::Trust;

/// No password is longer; more on standard input is a mistake.
const PASSWORD_LEN_MAX: u64 = 4096;

/// Why there is not even a report.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The flags, or a file they name, cannot be used.
    Usage(String),
    /// This host or the network does not let us.
    Failed(String),
}

/// What all clients of a run have in common: everything but the user's name.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    pub(crate) settings: ClientSettings,
    pub(crate) link: AuthenticateeConfig,
}

impl Template {
    /// Reads the authorities' file.
    pub(crate) fn new(
        access: &Access,
        server: &Server,
        trust: &Trust,
        password: &Zeroizing<String>,
        persona: Option<&Persona>,
    ) -> Result<Self, Stop> {
        let tls = trust
            .profile(&tls_options(access, persona))
            .map_err(|error| Stop::Usage(error.to_string()))?;
        let name = name(access, server);
        let server_name = ServerName::try_from(name.to_owned())
            .map_err(|_| Stop::Usage(format!("{name:?} is neither a name nor an address")))?;
        let methods = match (&access.method[..], persona) {
            ([], Some(persona)) => persona.methods.to_vec(),
            ([], None) => vec![AuthMethod::MsChapV2, AuthMethod::Eap],
            (given, _) => given.iter().copied().map(method).collect(),
        };
        let plain = AuthenticateeConfig::default();
        let link = AuthenticateeConfig {
            password: password.clone(),
            methods,
            ipv4: !access.no_ipv4,
            ipv6: !access.no_ipv6,
            mru: persona.map_or(plain.mru, |persona| persona.mru),
            persona: persona.map_or(plain.persona, |persona| persona.options),
            identifications: persona.map_or(&[], |persona| persona.identifications),
            ccp: persona.and_then(|persona| persona.ccp),
            network_order: persona.map_or(plain.network_order, |persona| persona.network_order),
            lcp_echo_interval: persona.and_then(|persona| persona.lcp_echo),
            ..plain
        };
        let timing = persona.map_or_else(Timing::default, |persona| Timing {
            hello_interval: persona.sstp_echo,
            hello_unanswered_max: persona.sstp_echo_unanswered_max,
            ..Timing::default()
        });
        let settings = ClientSettings {
            tls: Arc::new(tls),
            server_name,
            host: host_header(name),
            proxy: None,
            timing,
            link: Arc::new(link.clone()),
            limits: Limits {
                setup: access.timeout,
                record_per_packet: persona.is_some_and(|persona| persona.record_per_packet),
                ..Limits::default()
            },
            habits: persona.map_or_else(Habits::default, |persona| persona.habits),
        };
        Ok(Self { settings, link })
    }

    /// The settings of one user, who may have a password of its own.
    pub(crate) fn for_user(
        &self,
        user: &str,
        password: Option<&Zeroizing<String>>,
    ) -> Arc<ClientSettings> {
        Arc::new(ClientSettings {
            link: Arc::new(AuthenticateeConfig {
                user: user.as_bytes().to_vec(),
                password: password.unwrap_or(&self.link.password).clone(),
                ..self.link.clone()
            }),
            ..self.settings.clone()
        })
    }
}

/// What the server is called, in its certificate and to itself.
pub(crate) fn name<'a>(access: &'a Access, server: &'a Server) -> &'a str {
    access.server_name.as_ref().unwrap_or(&server.host)
}

/// The `Host` header: an IPv6 address goes in brackets (RFC 9110 §7.2).
fn host_header(name: &str) -> String {
    match name.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) => format!("[{address}]"),
        _ => name.to_owned(),
    }
}

const fn method(method: Method) -> AuthMethod {
    match method {
        Method::Mschapv2 => AuthMethod::MsChapV2,
        Method::Eap => AuthMethod::Eap,
        Method::ChapMd5 => AuthMethod::ChapMd5,
        Method::Pap => AuthMethod::Pap,
    }
}

/// What the flags offer, and otherwise what the persona does.
fn tls_options(access: &Access, persona: Option<&Persona>) -> TlsOptions {
    let mut options = TlsOptions::default();
    if let Some(persona) = persona {
        [options.min_version, options.max_version] = persona.versions;
        options.suites = persona.suites.to_vec();
        options.sni = persona.sni;
        // None of them is known to offer post-quantum key exchange by itself.
        options.key_exchange = KeyExchange::ClassicOnly;
    }
    if let Some(version) = access.tls {
        let version = match version {
            TlsVersion::Tls12 => Version::Tls12,
            TlsVersion::Tls13 => Version::Tls13,
        };
        [options.min_version, options.max_version] = [version; 2];
    }
    options
}

/// The run's password: the one that is given, or the first line of standard input; empty if each user
/// has its own.
pub(crate) fn password(flags: &Password) -> Result<Zeroizing<String>, Stop> {
    use io::Read as _;

    if let Some(password) = &flags.password {
        return Ok(Zeroizing::new(password.clone()));
    }
    if !flags.password_stdin {
        return Ok(Zeroizing::default());
    }
    let mut text = Zeroizing::new(String::new());
    io::stdin()
        .take(PASSWORD_LEN_MAX)
        .read_to_string(&mut text)
        .map_err(|error| Stop::Usage(format!("no password on standard input: {error}")))?;
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(Zeroizing::new(line.to_owned())),
        _ => Err(Stop::Usage(
            "the first line of standard input is empty: no password".to_owned(),
        )),
    }
}
