//! Which HTTP proxy to go through, and what it is told: from a URL, or from the environment.
//!
//! The exchange itself is the session's (`datapath::http::proxy`); here are only words and files.

use std::io::{self, Read as _};
use std::path::Path;
use std::str::FromStr;

use base64ct::{Base64, Encoding as _};
use datapath::http;
use zeroize::Zeroizing;

use crate::flags::Server;
use crate::settings::Stop;

/// Where programs look for a proxy, the first that is set. An SSTP connection is one of HTTPS.
const VARIABLES: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
/// Who is not to be reached through it.
const EXCEPTIONS: [&str; 2] = ["NO_PROXY", "no_proxy"];

/// The port of `http://host` without one (RFC 9110 §4.2.1).
const PORT: u16 = 80;

/// No password is longer; more in the file is a mistake.
const PASSWORD_LEN_MAX: u64 = 4096;

/// The value of `--proxy`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// The one the environment names, if it names one.
    Environment,
    /// This one.
    Given(Proxy),
}

/// An HTTP proxy, and who we are to it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Proxy {
    pub(crate) server: Server,
    user: Option<String>,
    password: Option<Zeroizing<String>>,
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxy")
            .field("server", &self.server)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "env" => Ok(Self::Environment),
            url => Ok(Self::Given(url.parse()?)),
        }
    }
}

impl FromStr for Proxy {
    type Err = String;

    fn from_str(url: &str) -> Result<Self, String> {
        let rest = match url.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some((scheme, _)) => {
                return Err(format!(
                    "{scheme}:// is no proxy this program can speak to; only http:// is"
                ));
            }
            None => url,
        };
        let rest = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (login, server) = match rest.rsplit_once('@') {
            Some((login, server)) => (Some(login), server),
            None => (None, rest),
        };
        let (user, password) = match login.map(|login| login.split_once(':').ok_or(login)) {
            None => (None, None),
            Some(Ok((user, password))) => (Some(unescape(user)?), Some(unescape(password)?)),
            Some(Err(user)) => (Some(unescape(user)?), None),
        };
        if user.as_ref().is_some_and(|user| user.contains(':')) {
            return Err("a user name with a colon cannot be told by Basic".to_owned());
        }
        Ok(Self {
            server: Server::with_port(server, PORT)?,
            user,
            password: password.map(Zeroizing::new),
        })
    }
}

impl Choice {
    /// The proxy to go through to `target`; `None`: none. `variable` is the environment.
    pub(crate) fn resolve(
        &self,
        target: &Server,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Proxy>, String> {
        let set = |name: &&str| variable(name).filter(|value| !value.is_empty());
        match self {
            Self::Given(proxy) => Ok(Some(proxy.clone())),
            Self::Environment => {
                let exceptions = EXCEPTIONS.iter().find_map(set).unwrap_or_default();
                if is_excepted(&target.host, &exceptions) {
                    return Ok(None);
                }
                let Some((name, url)) = VARIABLES.iter().find_map(|name| Some((name, set(name)?)))
                else {
                    return Ok(None);
                };
                url.parse()
                    .map(Some)
                    .map_err(|why: String| format!("the variable {name} of the environment: {why}"))
            }
        }
    }
}

impl Proxy {
    /// Takes the password from the first line of this file.
    pub(crate) fn read_password(&mut self, path: &Path) -> Result<(), Stop> {
        let path_name = path.display();
        if self.user.is_none() {
            return Err(Stop::Usage(format!(
                "{path_name} has the password for the proxy, but --proxy names no user: write \
                 http://USER@HOST:PORT"
            )));
        }
        let read = || -> io::Result<Zeroizing<String>> {
            let mut text = Zeroizing::new(String::new());
            std::fs::File::open(path)?
                .take(PASSWORD_LEN_MAX)
                .read_to_string(&mut text)?;
            Ok(text)
        };
        let text = read().map_err(|error| Stop::Usage(format!("{path_name}: {error}")))?;
        match text.lines().next() {
            Some(line) if !line.is_empty() => {
                self.password = Some(Zeroizing::new(line.to_owned()));
                Ok(())
            }
            _ => Err(Stop::Usage(format!(
                "{path_name}: the first line is empty: no password for the proxy"
            ))),
        }
    }

    /// What it is asked for: a connection to `target`.
    pub(crate) fn connect(&self, target: &Server) -> http::proxy::Connect {
        let host = &target.host;
        let authority = if host.contains(':') {
            format!("[{host}]:{}", target.port)
        } else {
            format!("{host}:{}", target.port)
        };
        http::proxy::Connect {
            authority,
            authorization: self.user.as_ref().map(|user| {
                let password = self.password.as_ref().map_or("", |password| password);
                let login = Zeroizing::new(format!("{user}:{password}"));
                let login = Zeroizing::new(Base64::encode_string(login.as_bytes()));
                Zeroizing::new(format!("Basic {}", login.as_str()))
            }),
        }
    }
}

/// Whether `host` is in the list: `*`, a name, a domain with or without a leading dot, an address.
fn is_excepted(host: &str, list: &str) -> bool {
    list.split(',').map(str::trim).any(|exception| {
        let domain = exception.trim_start_matches('.');
        if exception == "*" || host.eq_ignore_ascii_case(domain) {
            return true;
        }
        let at = host.len().checked_sub(domain.len());
        !domain.is_empty()
            && at
                .and_then(|at| host.split_at_checked(at))
                .is_some_and(|(front, end)| {
                    front.ends_with('.') && end.eq_ignore_ascii_case(domain)
                })
    })
}

/// What `%xx` stands for.
fn unescape(text: &str) -> Result<String, String> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        let value = digit().zip(digit()).map(|(high, low)| high * 16 + low);
        match value.map(u8::try_from) {
            Some(Ok(value)) => out.push(value),
            _ => {
                return Err(
                    "a % that two hexadecimal digits do not follow; write it as %25".into(),
                );
            }
        }
    }
    String::from_utf8(out).map_err(|_| "the user name or the password is not UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(url: &str) -> Result<Proxy, String> {
        url.parse()
    }

    fn target(text: &str) -> Server {
        text.parse().unwrap()
    }

    #[test]
    fn urls_name_a_host_and_perhaps_a_user() {
        let whole = proxy("http://al%40ice:p%3Aw@proxy.example:3128/").unwrap();
        assert_eq!(whole.server, target("proxy.example:3128"));
        assert_eq!(whole.user.as_deref(), Some("al@ice"));
        assert_eq!(whole.password.as_ref().map(|p| p.as_str()), Some("p:w"));
        assert!(!format!("{whole:?}").contains("p:w"));
        let bare = proxy("proxy.example").unwrap();
        assert_eq!((bare.server.port, &bare.user), (80, &None));
        assert_eq!(proxy("http://[::1]:1").unwrap().server.host, "::1");
        for bad in [
            "socks5://a:1",
            "https://a",
            "http://",
            "http://a:b:c",
            "http://a%@b",
        ] {
            assert!(proxy(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_login_is_told_as_rfc_7617_says() {
        // RFC 7617 §2's example.
        let proxy = proxy("http://Aladdin:open%20sesame@p").unwrap();
        let connect = proxy.connect(&target("[2001:db8::1]:8443"));
        assert_eq!(connect.authority, "[2001:db8::1]:8443");
        assert_eq!(
            connect.authorization.unwrap().as_str(),
            "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
        );
    }

    #[test]
    fn the_environment_is_asked_in_order_and_has_exceptions() {
        let resolve = |variables: &[(&str, &str)], host: &str| {
            let variable = |name: &str| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            Choice::Environment
                .resolve(&target(host), variable)
                .map(|proxy| proxy.map(|proxy| proxy.server.host))
        };
        let both = [("ALL_PROXY", "http://all"), ("HTTPS_PROXY", "http://https")];
        assert_eq!(resolve(&both, "vpn.example"), Ok(Some("https".to_owned())));
        let empty = [("ALL_PROXY", "http://all"), ("HTTPS_PROXY", "")];
        assert_eq!(resolve(&empty, "vpn.example"), Ok(Some("all".to_owned())));
        assert_eq!(resolve(&[], "vpn.example"), Ok(None));
        let wrong = resolve(&[("ALL_PROXY", "socks5://a")], "h").unwrap_err();
        assert!(wrong.contains("ALL_PROXY"), "{wrong}");
        for (list, host, is_excepted) in [
            ("example", "vpn.example", true),
            (".example", "vpn.example", true),
            ("other, vpn.example", "VPN.example", true),
            ("*", "anything", true),
            ("n.example", "vpn.example", false),
            ("", "vpn.example", false),
            ("10.0.0.1", "10.0.0.1", true),
        ] {
            let with = [("HTTPS_PROXY", "http://p"), ("NO_PROXY", list)];
            let found = resolve(&with, host).unwrap();
            assert_eq!(found.is_none(), is_excepted, "{list:?} {host}");
        }
    }

    #[test]
    fn a_password_from_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, "s3cret\nmore\n").unwrap();
        let mut with_user = proxy("http://u@p").unwrap();
        with_user.read_password(&path).unwrap();
        let login = with_user.connect(&target("h")).authorization.unwrap();
        assert_eq!(login.as_str(), "Basic dTpzM2NyZXQ=");
        assert!(proxy("http://p").unwrap().read_password(&path).is_err());
        std::fs::write(&path, "").unwrap();
        assert!(with_user.read_password(&path).is_err());
        assert!(with_user.read_password(&dir.path().join("gone")).is_err());
    }
}
