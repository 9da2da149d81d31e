//! From the flags to what a session is configured with: whom to trust, who we are, how long to wait.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use datapath::ppp::auth::AuthMethod;
use datapath::ppp::link::AuthenticateeConfig;
use datapath::session::{ClientSettings, Habits, Limits};
use datapath::sstp::Timing;
use datapath::tls::{TlsOptions, Version};
use rustls_pki_types::ServerName;
use zeroize::Zeroizing;

use crate::flags::{Access, Method, Password, Server, TlsVersion};
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
    /// Reads the password and the authorities' file.
    pub(crate) fn new(access: &Access, server: &Server, trust: &Trust) -> Result<Self, Stop> {
        let version = access.tls.map(|version| match version {
            TlsVersion::Tls12 => Version::Tls12,
            TlsVersion::Tls13 => Version::Tls13,
        });
        let options = TlsOptions::default();
        let options = TlsOptions {
            min_version: version.unwrap_or(options.min_version),
            max_version: version.unwrap_or(options.max_version),
            ..options
        };
        let tls = trust
            .profile(&options)
            .map_err(|error| Stop::Usage(error.to_string()))?;
        let name = name(access, server);
        let server_name = ServerName::try_from(name.to_owned())
            .map_err(|_| Stop::Usage(format!("{name:?} is neither a name nor an address")))?;
        let link = AuthenticateeConfig {
            password: password(&access.password)?,
            methods: access.method.iter().copied().map(method).collect(),
            ipv4: !access.no_ipv4,
            ipv6: !access.no_ipv6,
            ..AuthenticateeConfig::default()
        };
        let settings = ClientSettings {
            tls: Arc::new(tls),
            server_name,
            host: host_header(name),
            proxy: None,
            timing: Timing::default(),
            link: Arc::new(link.clone()),
            limits: Limits {
                setup: access.timeout,
                ..Limits::default()
            },
            habits: Habits::default(),
        };
        Ok(Self { settings, link })
    }

    /// The settings of one user.
    pub(crate) fn for_user(&self, user: &str) -> Arc<ClientSettings> {
        Arc::new(ClientSettings {
            link: Arc::new(AuthenticateeConfig {
                user: user.as_bytes().to_vec(),
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

fn password(flags: &Password) -> Result<Zeroizing<String>, Stop> {
    use io::Read as _;

    if let Some(password) = &flags.password {
        return Ok(Zeroizing::new(password.clone()));
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
