//! The HTTP exchange in front of SSTP: one head each way, then a raw stream (MS-SSTP §3.2.4.1,
//! §3.3.5.1, RFC 9112).
//!
//! ```text
//! SSTP_DUPLEX_POST /sra_{BA195980-CD49-458b-9E23-C84EE0ADCD75}/ HTTP/1.1 ─▶
//!                                             ◀─ HTTP/1.1 200 OK, or 404 for whatever is not SSTP
//! ```
//!
//! Both heads announce a body of 2^64-1 bytes, which is never believed nor waited for: what follows
//! the blank line is SSTP. A scan with fixed limits finds the blank line; only then is the head
//! read. Whatever is no SSTP request and no health probe is answered with the same bytes, so that a
//! scanner learns nothing. Limits: a head of 8 KiB, lines of 4 KiB, 64 lines.
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

pub mod proxy;

use std::io::Write as _;

mod request;

pub use self::request::{RequestHeader, RequestStyle, emit_request};

/// Bytes of the longest head, blank line included.
pub const HEAD_LEN_MAX: usize = 8 * 1024;
/// Bytes of the longest line, line end included.
pub const LINE_LEN_MAX: usize = 4 * 1024;
/// Lines of the longest head, without the blank one.
pub const LINE_COUNT_MAX: usize = 64;

/// The path that every SSTP client asks for (MS-SSTP §3.2.4.1).
pub const PATH: &str = "/sra_{BA195980-CD49-458b-9E23-C84EE0ADCD75}/";

const METHOD: &str = "SSTP_DUPLEX_POST";

/// The answer to an SSTP request: the lines that every client takes, and nothing behind them,
/// because sstpc waits for a line end at the end of what it reads. `Server` is what Windows says.
pub const OK_RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\n\
    Content-Length: 18446744073709551615\r\n\
    Server: Microsoft-HTTPAPI/2.0\r\n\
    \r\n";

/// The answer to all that is neither SSTP nor a probe; the connection is closed after it.
pub const NOT_FOUND_RESPONSE: &[u8] = b"HTTP/1.1 404 Not Found\r\n\
    Content-Length: 0\r\n\
    Connection: close\r\n\
    \r\n";

/// What a load balancer is told that probes the SSTP path; the connection is closed after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProbeAnswer {
    /// 401, as Windows' own server answers: serving.
    #[default]
    Unauthorized,
    /// 200: serving, for balancers that take nothing else.
    Ok,
    /// 503: full or draining.
    Unavailable,
}

impl ProbeAnswer {
    /// The whole response, the same for HEAD and GET.
    #[must_use]
    pub const fn response(self) -> &'static [u8] {
        match self {
            Self::Unauthorized => {
                b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            }
            Self::Ok => b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            Self::Unavailable => {
                b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            }
        }
    }
}

/// What a request is after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// An SSTP client.
    Sstp {
        /// `SSTPCORRELATIONID` as sent, braces or not; to be logged with care.
        correlation_id: Option<&'a [u8]>,
        /// The host asked for, port and all.
        host: Option<&'a [u8]>,
    },
    /// A GET or HEAD of the SSTP path, as load balancers and curious people send.
    Probe {
        /// Whether it is a HEAD.
        head: bool,
    },
    /// A well-formed request for something that is not here.
    Other,
}

/// A head that is refused. A request is owed [`NOT_FOUND_RESPONSE`] like any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No blank line within the limit.
    #[error("head longer than {HEAD_LEN_MAX} bytes")]
    HeadTooLong,
    /// A line is longer than the limit.
    #[error("line longer than {LINE_LEN_MAX} bytes")]
    LineTooLong,
    /// More lines than the limit.
    #[error("more than {LINE_COUNT_MAX} lines")]
    TooManyLines,
    /// A control character, or a line end that is none.
    #[error("control character {0:#04x}")]
    ControlCharacter(u8),
    /// A line that continues the one before (RFC 9112 §5.2), or nothing before the blank line.
    #[error("folded or empty head")]
    Folded,
    /// The lines are not HTTP.
    #[error("not HTTP: {0}")]
    Syntax(#[from] httparse::Error),
    /// `Transfer-Encoding`, or a second `Content-Length` or `Host`: what a smuggler would send.
    #[error("ambiguous headers")]
    Ambiguous,
    /// Client: the server does not speak HTTP/1.1.
    #[error("HTTP/1.{0} instead of HTTP/1.1")]
    Version(u8),
    /// Client: the server answers with another status than 200.
    #[error("HTTP status {0}")]
    Status(u16),
}

/// How far the scan for the blank line has come, so that bytes that trickle in are read once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    scanned: usize,
    line_start: usize,
    line_count: usize,
}

impl Scan {
    /// The length of the head in `bytes`, which begin as they did at the last call and have perhaps
    /// grown; `None` if more are needed. What is found does not depend on the pieces they came in.
    pub fn head_len(&mut self, bytes: &[u8]) -> Result<Option<usize>, Error> {
        let limit = bytes.len().min(HEAD_LEN_MAX);
        let mut previous = self
            .scanned
            .checked_sub(1)
            .and_then(|at| bytes.get(at).copied());
        for &byte in bytes.get(self.scanned..limit).unwrap_or_default() {
            self.scanned = self.scanned.saturating_add(1);
            let line_len = self.scanned.saturating_sub(self.line_start);
            match byte {
                b'\n' => {
                    let empty = line_len == 1 || (line_len == 2 && previous == Some(b'\r'));
                    match (empty, self.line_count) {
                        (true, 0) => return Err(Error::Folded),
                        (true, _) => return Ok(Some(self.scanned)),
                        (false, LINE_COUNT_MAX) => return Err(Error::TooManyLines),
                        (false, _) => {}
                    }
                    self.line_count = self.line_count.saturating_add(1);
                    self.line_start = self.scanned;
                }
                _ if line_len >= LINE_LEN_MAX => return Err(Error::LineTooLong),
                _ if previous == Some(b'\r') => return Err(Error::ControlCharacter(b'\r')),
                b' ' | b'\t' if line_len == 1 => return Err(Error::Folded),
                b'\r' | b'\t' => {}
                0x00..=0x1F | 0x7F => return Err(Error::ControlCharacter(byte)),
                _ => {}
            }
            previous = Some(byte);
        }
        if self.scanned >= HEAD_LEN_MAX {
            return Err(Error::HeadTooLong);
        }
        Ok(None)
    }

    /// Takes the request at the head of `bytes`, as [`parse_request`] does.
    pub fn request<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<(Request<'a>, usize)>, Error> {
        let Some(head_len) = self.head_len(bytes)? else {
            return Ok(None);
        };
        let head = bytes.get(..head_len).unwrap_or_default();
        Ok(Some((read_request(head)?, head_len)))
    }

    /// Takes the response at the head of `bytes`, as [`parse_response`] does.
    pub fn response(&mut self, bytes: &[u8]) -> Result<Option<usize>, Error> {
        let Some(head_len) = self.head_len(bytes)? else {
            return Ok(None);
        };
        read_response(bytes.get(..head_len).unwrap_or_default())?;
        Ok(Some(head_len))
    }
}

/// Takes the request at the head of `bytes` and says how many bytes it took, `None` if more are
/// needed; what follows belongs to SSTP. [`Scan::request`] does not begin anew for each piece.
pub fn parse_request(bytes: &[u8]) -> Result<Option<(Request<'_>, usize)>, Error> {
    Scan::default().request(bytes)
}

/// Client: takes the response at the head of `bytes`, which must be `HTTP/1.1 200`, and says how
/// many bytes it took, `None` if more are needed; what follows belongs to SSTP.
pub fn parse_response(bytes: &[u8]) -> Result<Option<usize>, Error> {
    Scan::default().response(bytes)
}

fn read_request(head: &[u8]) -> Result<Request<'_>, Error> {
    let mut headers = [httparse::EMPTY_HEADER; LINE_COUNT_MAX];
    let mut request = httparse::Request::new(&mut headers);
    if request.parse(head)?.is_partial() {
        return Err(Error::Syntax(httparse::Error::NewLine));
    }
    refuse_ambiguous(request.headers)?;
    let (Some(method), Some(target), Some(version)) =
        (request.method, request.path, request.version)
    else {
        return Ok(Request::Other);
    };
    let (authority, path) = split_target(target);
    if !is_sstp_path(path) {
        return Ok(Request::Other);
    }
    Ok(match method {
        "HEAD" => Request::Probe { head: true },
        "GET" => Request::Probe { head: false },
        _ if method.eq_ignore_ascii_case(METHOD) && version == 1 => Request::Sstp {
            correlation_id: header(request.headers, "SSTPCORRELATIONID"),
            // RFC 9112 §3.2.2: an absolute target overrides the header.
            host: authority
                .map(str::as_bytes)
                .or_else(|| header(request.headers, "Host")),
        },
        _ => Request::Other,
    })
}

fn read_response(head: &[u8]) -> Result<(), Error> {
    let mut headers = [httparse::EMPTY_HEADER; LINE_COUNT_MAX];
    let mut response = httparse::Response::new(&mut headers);
    if response.parse(head)?.is_partial() {
        return Err(Error::Syntax(httparse::Error::NewLine));
    }
    refuse_ambiguous(response.headers)?;
    match (response.version, response.code) {
        (Some(1), Some(200)) => Ok(()),
        (Some(1), Some(status)) => Err(Error::Status(status)),
        (version, _) => Err(Error::Version(version.unwrap_or(0))),
    }
}

fn refuse_ambiguous(headers: &[httparse::Header<'_>]) -> Result<(), Error> {
    let count = |name: &str| {
        headers
            .iter()
            .filter(|header| header.name.eq_ignore_ascii_case(name))
            .count()
    };
    if count("Transfer-Encoding") > 0 || count("Content-Length") > 1 || count("Host") > 1 {
        return Err(Error::Ambiguous);
    }
    Ok(())
}

fn header<'a>(headers: &[httparse::Header<'a>], name: &str) -> Option<&'a [u8]> {
    headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case(name))
        .map(|header| header.value)
}

/// The authority of an absolute target, and the path without its query.
fn split_target(target: &str) -> (Option<&str>, &str) {
    let (authority, path) = match target.split_once("://") {
        Some((scheme, rest)) if matches_any(scheme, &["http", "https"]) => {
            let at = rest.find('/').unwrap_or(rest.len());
            let (authority, path) = rest.split_at(at);
            (Some(authority), path)
        }
        _ => (None, target),
    };
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    (authority, path)
}

fn matches_any(text: &str, known: &[&str]) -> bool {
    known.iter().any(|known| text.eq_ignore_ascii_case(known))
}

/// Compares without case, percent-encoded or not.
fn is_sstp_path(path: &str) -> bool {
    let mut bytes = path.bytes();
    // A broken escape is an item that equals nothing.
    let decoded = core::iter::from_fn(|| {
        let byte = match bytes.next()? {
            b'%' => unescape(bytes.next(), bytes.next()),
            byte => Some(byte),
        };
        Some(byte.map(|byte| byte.to_ascii_lowercase()))
    });
    decoded.eq(PATH.bytes().map(|byte| Some(byte.to_ascii_lowercase())))
}

fn unescape(high: Option<u8>, low: Option<u8>) -> Option<u8> {
    let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
    u8::try_from((digit(high)? << 4) | digit(low)?).ok()
}

/// Appends [`OK_RESPONSE`] with a `Date`, as Windows' server sends it; `unix_seconds` is now.
pub fn emit_ok_response(unix_seconds: u64, out: &mut Vec<u8>) {
    let (lines, blank) = OK_RESPONSE.split_at(OK_RESPONSE.len().saturating_sub(2));
    out.extend_from_slice(lines);
    out.extend_from_slice(b"Date: ");
    emit_date(unix_seconds, out);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(blank);
}

/// An IMF-fixdate (RFC 9110 §5.6.7).
fn emit_date(unix_seconds: u64, out: &mut Vec<u8>) {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [(&str, u64); 12] = [
        ("Jan", 31),
        ("Feb", 28),
        ("Mar", 31),
        ("Apr", 30),
        ("May", 31),
        ("Jun", 30),
        ("Jul", 31),
        ("Aug", 31),
        ("Sep", 30),
        ("Oct", 31),
        ("Nov", 30),
        ("Dec", 31),
    ];
    const YEARS_400_DAYS: u64 = 146_097;
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let days = unix_seconds / 86_400;
    let second = unix_seconds % 86_400;
    let weekday = usize::try_from(days % 7)
        .ok()
        .and_then(|index| DAYS.get(index))
        .unwrap_or(&"");
    // Whole cycles of 400 years first, so that the loop is short whatever the clock says.
    let mut year = 1970_u64.saturating_add((days / YEARS_400_DAYS).saturating_mul(400));
    let mut day = days % YEARS_400_DAYS;
    while let Some(rest) = day.checked_sub(365_u64.saturating_add(u64::from(leap(year)))) {
        day = rest;
        year = year.saturating_add(1);
    }
    let mut name = "";
    for (month, len) in MONTHS {
        name = month;
        let len = len.saturating_add(u64::from(month == "Feb" && leap(year)));
        match day.checked_sub(len) {
            Some(rest) => day = rest,
            None => break,
        }
    }
    // Writing to a Vec does not fail.
    let _ = write!(
        out,
        "{weekday}, {:02} {name} {year:04} {:02}:{:02}:{:02} GMT",
        day.saturating_add(1),
        second / 3600,
        second / 60 % 60,
        second % 60
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEAD: &str = "SSTP_DUPLEX_POST /sra_{BA195980-CD49-458b-9E23-C84EE0ADCD75}/ HTTP/1.1\r\n";

    fn parse(text: &str) -> Result<Option<(Request<'_>, usize)>, Error> {
        parse_request(text.as_bytes())
    }

    fn is_sstp(text: &str) -> bool {
        matches!(parse(text), Ok(Some((Request::Sstp { .. }, _))))
    }

    #[test]
    fn a_windows_request_is_taken_and_what_follows_is_left() {
        let head = format!(
            "{HEAD}SSTPCORRELATIONID: {{6B29FC40-CA47-1067-B31D-00DD010662DA}}\r\n\
             Content-Length: 18446744073709551615\r\nHost: vpn.example.com\r\n\r\n"
        );
        let piped = format!("{head}\x10\x01\x00\x0e");
        let (request, consumed) = parse(&piped).unwrap().unwrap();
        assert_eq!(consumed, head.len());
        assert_eq!(
            request,
            Request::Sstp {
                correlation_id: Some(b"{6B29FC40-CA47-1067-B31D-00DD010662DA}"),
                host: Some(b"vpn.example.com"),
            }
        );
    }

    #[test]
    fn our_own_request_is_taken() {
        let mut head = Vec::new();
        let id = core::array::from_fn(|index| u8::try_from(index).unwrap());
        emit_request(
            "vpn.example.com\r\nX: y",
            &id,
            &RequestStyle::default(),
            &mut head,
        );
        let (request, consumed) = parse_request(&head).unwrap().unwrap();
        assert_eq!(consumed, head.len());
        assert_eq!(
            request,
            Request::Sstp {
                correlation_id: Some(b"{00010203-0405-0607-0809-0A0B0C0D0E0F}"),
                host: Some(b"vpn.example.comX:y"),
            },
            "a host cannot add a header"
        );
    }

    #[test]
    fn requests_that_are_sstp() {
        for text in [
            &format!("{HEAD}\r\n"),
            &format!("{HEAD}content-length: 5\r\nsstpcorrelationid: x\r\n\r\n"),
            "sstp_duplex_post /SRA_%7bba195980-CD49-458b-9E23-C84EE0ADCD75%7D/ HTTP/1.1\r\n\r\n",
            "SSTP_DUPLEX_POST /sra_{BA195980-CD49-458b-9E23-C84EE0ADCD75}/?tenantid=a HTTP/1.1\n\n",
            "SSTP_DUPLEX_POST HTTPS://h:443/sra_{BA195980-CD49-458b-9E23-C84EE0ADCD75}/ HTTP/1.1\r\n\r\n",
        ] {
            assert!(is_sstp(text), "{text}");
        }
    }

    #[test]
    fn requests_that_are_something_else() {
        for text in [
            "GET / HTTP/1.1\r\n\r\n",
            "POST /sra_{BA195980-CD49-458b-9E23-C84EE0ADCD75}/ HTTP/1.1\r\n\r\n",
            "SSTP_DUPLEX_POST /sra_{BA195980-CD49-458b-9E23-C84EE0ADCD75}/ HTTP/1.0\r\n\r\n",
            "SSTP_DUPLEX_POST /sra_{BA195980-CD49-458b-9E23-C84EE0ADCD75} HTTP/1.1\r\n\r\n",
            "SSTP_DUPLEX_POST /sra_{BA195980-CD49-458b-9E23-C84EE0ADCD75}/%7 HTTP/1.1\r\n\r\n",
            "SSTP_DUPLEX_POST /sra_{BA195980-CD49-458b-9E23-C84EE0ADCD75}/%+7 HTTP/1.1\r\n\r\n",
            "SSTP_DUPLEX_POST /sra_{BA195980-CD49-458b-9E23-C84EE0ADCD75}/x HTTP/1.1\r\n\r\n",
            "SSTP_DUPLEX_POST * HTTP/1.1\r\n\r\n",
        ] {
            let parsed = parse(text).unwrap().unwrap();
            assert_eq!(parsed, (Request::Other, text.len()), "{text}");
        }
    }

    #[test]
    fn probes_of_load_balancers() {
        for (method, head) in [("HEAD", true), ("GET", false)] {
            for version in ["1.0", "1.1"] {
                let text = format!("{method} {PATH} HTTP/{version}\r\nHost: a\r\n\r\n");
                let (request, _) = parse(&text).unwrap().unwrap();
                assert_eq!(request, Request::Probe { head });
            }
        }
        for answer in [
            ProbeAnswer::Unauthorized,
            ProbeAnswer::Ok,
            ProbeAnswer::Unavailable,
        ] {
            let text = str::from_utf8(answer.response()).unwrap();
            assert!(text.contains("\r\nContent-Length: 0\r\n") && text.ends_with("\r\n\r\n"));
        }
    }

    #[test]
    fn heads_that_are_refused() {
        for (text, error) in [
            (
                "PRI * HTTP/2.0\r\n\r\n",
                Error::Syntax(httparse::Error::Version),
            ),
            ("\x16\x03\x01", Error::ControlCharacter(0x16)),
            ("\r\n\r\n", Error::Folded),
            ("GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", Error::Folded),
            (
                "GET / HTTP/1.1\rA: b\r\n\r\n",
                Error::ControlCharacter(b'\r'),
            ),
            (
                "GET / HTTP/1.1\r\nA: \0\r\n\r\n",
                Error::ControlCharacter(0),
            ),
            (
                "GET / HTTP/1.1\r\nA : b\r\n\r\n",
                Error::Syntax(httparse::Error::HeaderName),
            ),
            (
                "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
                Error::Ambiguous,
            ),
            (
                "GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
                Error::Ambiguous,
            ),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n",
                Error::Ambiguous,
            ),
        ] {
            assert_eq!(parse(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn limits_hold_exactly() {
        let lines = |count: usize| format!("{HEAD}{}\r\n", "A: b\r\n".repeat(count - 1));
        assert!(is_sstp(&lines(LINE_COUNT_MAX)));
        assert_eq!(parse(&lines(LINE_COUNT_MAX + 1)), Err(Error::TooManyLines));

        let line = |len: usize| format!("{HEAD}A: {}\r\n\r\n", "b".repeat(len - 5));
        assert!(is_sstp(&line(LINE_LEN_MAX)));
        assert_eq!(parse(&line(LINE_LEN_MAX + 1)), Err(Error::LineTooLong));

        let head = |len: usize| {
            let fill = len - HEAD.len() - 2;
            let (first, second) = (fill / 2, fill - fill / 2);
            let [first, second] =
                [first, second].map(|len| format!("A: {}\r\n", "b".repeat(len - 5)));
            format!("{HEAD}{first}{second}\r\n")
        };
        assert_eq!(head(HEAD_LEN_MAX).len(), HEAD_LEN_MAX);
        assert!(is_sstp(&head(HEAD_LEN_MAX)));
        assert_eq!(parse(&head(HEAD_LEN_MAX + 1)), Err(Error::HeadTooLong));
        assert_eq!(parse(&"b".repeat(LINE_LEN_MAX - 1)), Ok(None));
        assert_eq!(parse(&"b".repeat(LINE_LEN_MAX)), Err(Error::LineTooLong));
    }

    #[test]
    fn a_client_takes_http_1_1_and_200_and_nothing_else() {
        let mut response = Vec::new();
        emit_ok_response(784_111_777, &mut response);
        let text = str::from_utf8(&response).unwrap();
        assert!(
            text.contains("\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"),
            "{text}"
        );
        assert!(text.lines().count() <= 7, "sstpc holds seven lines");
        assert_eq!(parse_response(&response), Ok(Some(response.len())));
        assert_eq!(parse_response(OK_RESPONSE), Ok(Some(OK_RESPONSE.len())));
        assert_eq!(parse_response(b"HTTP/1.1 200\r\n\r\n\x10"), Ok(Some(16)));
        assert_eq!(parse_response(&OK_RESPONSE[..40]), Ok(None));
        assert_eq!(parse_response(NOT_FOUND_RESPONSE), Err(Error::Status(404)));
        assert_eq!(
            parse_response(b"HTTP/1.0 200 OK\r\n\r\n"),
            Err(Error::Version(0))
        );
        assert!(parse_response(b"ICY 200 OK\r\n\r\n").is_err());
    }

    #[test]
    fn dates_of_all_times() {
        for (seconds, text) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (951_825_599, "Tue, 29 Feb 2000 11:59:59 GMT"),
            (1_735_689_599, "Tue, 31 Dec 2024 23:59:59 GMT"),
            (1_767_225_600, "Thu, 01 Jan 2026 00:00:00 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
        ] {
            let mut out = Vec::new();
            emit_date(seconds, &mut out);
            assert_eq!(str::from_utf8(&out).unwrap(), text);
        }
        emit_date(u64::MAX, &mut Vec::new());
    }

    /// What a server makes of `stream` when it comes in `pieces`.
    fn outcome(stream: &[u8], pieces: &[usize]) -> Result<Option<(String, usize)>, Error> {
        let mut scan = Scan::default();
        let mut end = 0_usize;
        let mut sizes = pieces.iter().copied().chain([usize::MAX]);
        loop {
            let size = sizes.next().unwrap_or(usize::MAX);
            end = stream.len().min(end.saturating_add(size));
            if let Some((request, consumed)) = scan.request(&stream[..end])? {
                assert!(consumed > 0 && consumed <= end);
                return Ok(Some((format!("{request:?}"), consumed)));
            }
            assert!(
                end < HEAD_LEN_MAX,
                "never waits with a head's worth in hand"
            );
            if end == stream.len() {
                return Ok(None);
            }
        }
    }

    proptest! {
        #[test]
        fn no_progress_any_bytes_any_cut(
            parts in prop::collection::vec(prop_oneof![
                Just(HEAD.as_bytes().to_vec()),
                Just(b"\r\n".to_vec()),
                Just(b"\n".to_vec()),
                Just(b"Host: a\r\n".to_vec()),
                Just(b"b".repeat(3000)),
                "[ -~]{0,20}\r\n".prop_map(String::into_bytes),
                prop::collection::vec(any::<u8>(), 0..20),
            ], 0..12),
            pieces in prop::collection::vec(1_usize..40, 0..300),
        ) {
            let stream = parts.concat();
            prop_assert_eq!(outcome(&stream, &pieces), outcome(&stream, &[]));
            let _ = parse_response(&stream);
        }
    }
}
