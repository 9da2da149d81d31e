//! Through an HTTP proxy: CONNECT and its answer, before TLS (RFC 9110 §9.3.6, RFC 9112 §3.2.3).
//!
//! ```text
//! CONNECT vpn.example.com:443 HTTP/1.1 ─▶
//!                                      ◀─ HTTP/1.x 2xx, and from there on the server's bytes
//! ```
//!
//! The client's side alone. The answer's head has the limits of every head ([`super::Scan`]); a body
//! that comes with a refusal is not waited for.

use std::fmt;

use zeroize::Zeroizing;

use super::{LINE_COUNT_MAX, Scan};

/// What a proxy is asked for.
#[derive(Clone, PartialEq, Eq)]
pub struct Connect {
    /// The server, as `host:port`; an IPv6 address in brackets.
    pub authority: String,
    /// The value of `Proxy-Authorization`, if the proxy wants to know who asks.
    pub authorization: Option<Zeroizing<String>>,
}

impl fmt::Debug for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect")
            .field("authority", &self.authority)
            .field("authorization", &self.authorization.is_some())
            .finish()
    }
}

/// Why a proxy does not let us through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// 407, and Basic would do.
    #[error("it wants another user name or password (status 407)")]
    Credentials,
    /// 407, and Basic would not do.
    #[error("it wants to be logged in to by another method than Basic (status 407)")]
    Method,
    /// 403 or 405: its rules.
    #[error("its rules forbid this connection (status {0})")]
    Forbidden(u16),
    /// 502, 503 or 504: what is behind it.
    #[error("it cannot reach the server (status {0})")]
    Unreachable(u16),
    /// Any other status.
    #[error("it answered with status {0}")]
    Status(u16),
    /// No answer that HTTP knows.
    #[error("what it answered is not HTTP: {0}")]
    NotHttp(#[from] super::Error),
    /// It closed before its answer was whole.
    #[error("it closed the connection instead of an answer")]
    Closed,
    /// Its time is up.
    #[error("it did not answer in time")]
    TimedOut,
}

impl From<httparse::Error> for Error {
    fn from(error: httparse::Error) -> Self {
        Self::NotHttp(error.into())
    }
}

impl Connect {
    /// Appends the request. Characters that no authority has are left out, so that nobody's
    /// configuration can add a line of its own.
    pub fn emit(&self, out: &mut Vec<u8>) {
        let authority = || self.authority.bytes().filter(u8::is_ascii_graphic);
        out.extend_from_slice(b"CONNECT ");
        out.extend(authority());
        out.extend_from_slice(b" HTTP/1.1\r\nHost: ");
        out.extend(authority());
        if let Some(authorization) = &self.authorization {
            out.extend_from_slice(b"\r\nProxy-Authorization: ");
            let is_value = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ';
            out.extend(authorization.bytes().filter(is_value));
        }
        out.extend_from_slice(b"\r\n\r\n");
    }
}

impl Scan {
    /// Takes a proxy's answer at the head of `bytes`, which must be of the class 2xx, and says how many
    /// bytes it took, `None` if more are needed; what follows comes from the server.
    ///
    /// Lengths and encodings in it mean nothing (RFC 9110 §9.3.6), and HTTP/1.0 is as good as 1.1.
    pub fn proxy_response(&mut self, bytes: &[u8]) -> Result<Option<usize>, Error> {
        let Some(head_len) = self.head_len(bytes)? else {
            return Ok(None);
        };
        let mut headers = [httparse::EMPTY_HEADER; LINE_COUNT_MAX];
        let mut response = httparse::Response::new(&mut headers);
        let head = bytes.get(..head_len).unwrap_or_default();
        if response.parse(head)?.is_partial() {
            return Err(httparse::Error::NewLine.into());
        }
        match response.code.unwrap_or(0) {
            200..=299 => Ok(Some(head_len)),
            407 if offers_basic(response.headers) => Err(Error::Credentials),
            407 => Err(Error::Method),
            status @ (403 | 405) => Err(Error::Forbidden(status)),
            status @ 502..=504 => Err(Error::Unreachable(status)),
            status => Err(Error::Status(status)),
        }
    }
}

/// Whether one of the challenges is Basic (RFC 7617 §2). A proxy that names no method gets the benefit
/// of the doubt.
fn offers_basic(headers: &[httparse::Header<'_>]) -> bool {
    let mut challenges = headers
        .iter()
        .filter(|header| header.name.eq_ignore_ascii_case("Proxy-Authenticate"))
        .peekable();
    if challenges.peek().is_none() {
        return true;
    }
    challenges
        .flat_map(|header| header.value.split(|&byte| byte == b','))
        .filter_map(|challenge| challenge.trim_ascii().get(..5))
        .any(|scheme| scheme.eq_ignore_ascii_case(b"basic"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::HEAD_LEN_MAX;
    use super::*;

    fn answer(text: &str) -> Result<Option<usize>, Error> {
        Scan::default().proxy_response(text.as_bytes())
    }

    fn request(connect: &Connect) -> String {
        let mut out = Vec::new();
        connect.emit(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn it_asks_for_the_server_and_says_who_asks() {
        let mut connect = Connect {
            authority: "vpn.example.com:443".to_owned(),
            authorization: None,
        };
        assert_eq!(
            request(&connect),
            "CONNECT vpn.example.com:443 HTTP/1.1\r\nHost: vpn.example.com:443\r\n\r\n"
        );
        connect.authorization = Some(Zeroizing::new("Basic YTpi".to_owned()));
        assert!(request(&connect).ends_with("443\r\nProxy-Authorization: Basic YTpi\r\n\r\n"));
        assert!(!format!("{connect:?}").contains("YTpi"));
    }

    #[test]
    fn no_configuration_adds_a_line() {
        let connect = Connect {
            authority: "a:1\r\nX: y".to_owned(),
            authorization: Some(Zeroizing::new("Basic a\r\nX: y".to_owned())),
        };
        assert_eq!(request(&connect).lines().count(), 4);
    }

    #[test]
    fn a_2xx_of_either_version_lets_us_through_whatever_else_it_says() {
        let whole = |text: &str| assert_eq!(answer(text), Ok(Some(text.len())), "{text}");
        whole("HTTP/1.1 200 Connection established\r\n\r\n");
        whole("HTTP/1.0 200 OK\r\nVia: proxy\r\n\r\n");
        whole("HTTP/1.1 204 \r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n");
        assert_eq!(answer("HTTP/1.1 200 OK\r\n\r\n\x16\x03\x01"), Ok(Some(19)));
        assert_eq!(answer("HTTP/1.1 200 OK\r\n"), Ok(None));
    }

    #[test]
    fn each_refusal_has_its_own_words() {
        let refused = |status: &str, error| {
            assert_eq!(answer(&format!("HTTP/1.1 {status}\r\n\r\n")), Err(error));
        };
        refused("407 Who are you?", Error::Credentials);
        refused(
            "407 X\r\nProxy-Authenticate: basic realm=\"a\"",
            Error::Credentials,
        );
        refused(
            "407 X\r\nProxy-Authenticate: NTLM, Basic realm=b",
            Error::Credentials,
        );
        refused(
            "407 X\r\nProxy-Authenticate: Negotiate\r\nProxy-Authenticate: NTLM",
            Error::Method,
        );
        refused("403 No", Error::Forbidden(403));
        refused("502 Bad Gateway", Error::Unreachable(502));
        refused("100 Continue", Error::Status(100));
        refused("302 Found\r\nLocation: http://a/", Error::Status(302));
    }

    #[test]
    fn what_is_no_http_is_told_so_and_bounded() {
        assert!(matches!(answer("220 mail\r\n\r\n"), Err(Error::NotHttp(_))));
        assert!(matches!(answer("\x16\x03\x01\0"), Err(Error::NotHttp(_))));
        let long = format!("HTTP/1.1 200 OK\r\n{}", "a: b\r\n".repeat(100));
        assert!(matches!(answer(&long), Err(Error::NotHttp(_))));
    }

    proptest! {
        #[test]
        fn no_bytes_and_no_cut_confuse_it(
            parts in prop::collection::vec(prop_oneof![
                Just(b"HTTP/1.1 200 OK\r\n".to_vec()),
                Just(b"HTTP/1.0 407 \r\n".to_vec()),
                Just(b"Proxy-Authenticate: Basic\r\n".to_vec()),
                Just(b"\r\n".to_vec()),
                Just(b"b".repeat(3000)),
                prop::collection::vec(any::<u8>(), 0..20),
            ], 0..8),
            cut in 0_usize..9000,
        ) {
            let stream = parts.concat();
            let whole = Scan::default().proxy_response(&stream);
            let mut scan = Scan::default();
            let first = scan.proxy_response(&stream[..cut.min(stream.len())]);
            let in_two = match first {
                Ok(None) => scan.proxy_response(&stream),
                other => other,
            };
            prop_assert_eq!(in_two, whole);
            if stream.len() >= HEAD_LEN_MAX {
                prop_assert!(whole != Ok(None), "never waits with a head's worth in hand");
            }
        }
    }
}
