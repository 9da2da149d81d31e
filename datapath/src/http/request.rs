//! The client's request, as each client writes it: the headers are the same, their order and the
//! braces are not (MS-SSTP §3.2.4.1).

use std::io::Write as _;

use super::{METHOD, PATH};

/// A header of the client's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestHeader {
    /// `SSTPCORRELATIONID`
    CorrelationId,
    /// `Content-Length`
    ContentLength,
    /// `Host`
    Host,
}

/// What the specification leaves open about a client's request (MS-SSTP §3.2.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestStyle {
    /// The headers in their order; each is sent once.
    pub order: [RequestHeader; 3],
    /// Whether the correlation id is in braces.
    pub braces: bool,
}

impl RequestStyle {
    /// Windows.
    pub const WINDOWS: Self = Self {
        order: [
            RequestHeader::CorrelationId,
            RequestHeader::ContentLength,
            RequestHeader::Host,
        ],
        braces: true,
    };
    /// sstpc on Linux.
    pub const SSTPC: Self = Self {
        order: [
            RequestHeader::Host,
            RequestHeader::ContentLength,
            RequestHeader::CorrelationId,
        ],
        braces: false,
    };
    /// Open SSTP Client on Android.
    pub const OPEN_SSTP: Self = Self {
        order: [
            RequestHeader::ContentLength,
            RequestHeader::Host,
            RequestHeader::CorrelationId,
        ],
        braces: true,
    };
}

impl Default for RequestStyle {
    fn default() -> Self {
        Self::WINDOWS
    }
}

/// Client: appends the request for `host` (a name or address, with its port if it is not 443).
/// Characters that no host has are left out.
pub fn emit_request(
    host: &str,
    correlation_id: &[u8; 16],
    style: &RequestStyle,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(METHOD.as_bytes());
    out.push(b' ');
    out.extend_from_slice(PATH.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    for header in style.order {
        match header {
            RequestHeader::CorrelationId => {
                out.extend_from_slice(b"SSTPCORRELATIONID: ");
                emit_guid(correlation_id, style.braces, out);
            }
            RequestHeader::ContentLength => {
                out.extend_from_slice(b"Content-Length: 18446744073709551615");
            }
            RequestHeader::Host => {
                out.extend_from_slice(b"Host: ");
                out.extend(host.bytes().filter(u8::is_ascii_graphic));
            }
        }
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// `8-4-4-4-12` hexadecimal digits, upper case.
fn emit_guid(id: &[u8; 16], braces: bool, out: &mut Vec<u8>) {
    if braces {
        out.push(b'{');
    }
    for (index, byte) in id.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            out.push(b'-');
        }
        // Writing to a Vec does not fail.
        let _ = write!(out, "{byte:02X}");
    }
    if braces {
        out.push(b'}');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_style_is_taken() {
        let id = [0xAB; 16];
        let guid = "ABABABAB-ABAB-ABAB-ABAB-ABABABABABAB";
        for (style, lines) in [
            (
                RequestStyle::WINDOWS,
                format!(
                    "SSTPCORRELATIONID: {{{guid}}}\r\nContent-Length: 18446744073709551615\r\nHost: a\r\n"
                ),
            ),
            (
                RequestStyle::SSTPC,
                format!(
                    "Host: a\r\nContent-Length: 18446744073709551615\r\nSSTPCORRELATIONID: {guid}\r\n"
                ),
            ),
            (
                RequestStyle::OPEN_SSTP,
                format!(
                    "Content-Length: 18446744073709551615\r\nHost: a\r\nSSTPCORRELATIONID: {{{guid}}}\r\n"
                ),
            ),
        ] {
            let mut head = Vec::new();
            emit_request("a", &id, &style, &mut head);
            assert_eq!(
                str::from_utf8(&head).unwrap(),
                format!("{METHOD} {PATH} HTTP/1.1\r\n{lines}\r\n")
            );
            assert!(matches!(
                crate::http::parse_request(&head),
                Ok(Some((crate::http::Request::Sstp { .. }, _)))
            ));
        }
    }
}
