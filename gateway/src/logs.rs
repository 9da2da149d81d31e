//! Log lines: one when a session comes up, one when it ends, and failures at a bounded rate.
//!
//! What a client sent is escaped and cut before it is printed, so that a name can neither forge a
//! line nor fill a disk.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use datapath::session::event::{EndReason, Ended, Milestone, Up};
use datapath::shard::SessionId;
use datapath::time::Instant as At;
use tracing_subscriber::filter::LevelFilter;

use crate::config::{Log, LogFormat, LogLevel};

/// Longest text of a client's in a line, in characters.
const TEXT_LEN_MAX: usize = 128;
/// Failures of one kind that are logged one by one, each [`WINDOW`].
const LINES_PER_WINDOW: u32 = 10;
const WINDOW: Duration = Duration::from_secs(60);

/// Sends log lines to standard error from now on. A second call changes nothing.
pub(crate) fn start(log: Log) {
    let level = match log.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let builder = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(io::stderr)
        .with_target(false);
    let result = match log.format {
        LogFormat::Human => builder
            .with_ansi(io::IsTerminal::is_terminal(&io::stderr()))
            .try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    // Only a second call fails.
    drop(result);
}

/// A client's text as it may stand in a line: printable, one line, bounded.
pub(crate) fn printable(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let mut shown = String::new();
    for (count, c) in text.chars().enumerate() {
        if count == TEXT_LEN_MAX {
            shown.push('…');
            break;
        }
        if is_plain(c) {
            shown.push(c);
        } else {
            shown.extend(c.escape_default());
        }
    }
    shown
}

/// Neither a control, nor a mark that turns or hides what stands around it.
fn is_plain(c: char) -> bool {
    !c.is_control()
        && c != '\\'
        && c != '"'
        && !matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// Lets some failures of each kind into the log, and counts the rest.
#[derive(Debug, Default)]
pub(crate) struct FailureGate {
    kinds: HashMap<EndReason, Kind>,
}

#[derive(Debug)]
struct Kind {
    since: Instant,
    lines: u32,
    silent: u64,
}

/// Whether a failure is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Yes; and so many before it were not.
    Log { silent_before: u64 },
    /// No, it is counted.
    Silent,
}

impl FailureGate {
    /// Asks for one failure of this kind.
    pub(crate) fn admit(&mut self, reason: EndReason, now: Instant) -> Admission {
        let kind = self.kinds.entry(reason).or_insert(Kind {
            since: now,
            lines: 0,
            silent: 0,
        });
        if now.saturating_duration_since(kind.since) >= WINDOW {
            kind.since = now;
            kind.lines = 0;
        }
        if kind.lines >= LINES_PER_WINDOW {
            kind.silent += 1;
            return Admission::Silent;
        }
        kind.lines += 1;
        Admission::Log {
            silent_before: std::mem::take(&mut kind.silent),
        }
    }
}

/// What is known of a session that came up, besides its own news.
#[derive(Debug)]
pub(crate) struct UpLine {
    pub(crate) session: SessionId,
    pub(crate) peer: SocketAddr,
    pub(crate) v4: Option<Ipv4Addr>,
    pub(crate) v6: Option<Ipv6Addr>,
}

/// What is known of a session that ended, besides its own news; of one that never asked, little.
#[derive(Debug)]
pub(crate) struct EndLine<'a> {
    pub(crate) session: SessionId,
    /// As the client gave it.
    pub(crate) name: Option<&'a [u8]>,
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) lasted: Option<Duration>,
}

/// Writes the lines about sessions.
#[derive(Debug, Default)]
pub(crate) struct SessionLog {
    gate: FailureGate,
}

impl SessionLog {
    /// A session came up.
    pub(crate) fn up(&self, line: &UpLine, at: At, up: &Up) {
        let begun = up.milestones.at(Milestone::Begun).unwrap_or(at);
        let set_up_ms = milliseconds(at.saturating_since(begun));
        tracing::info!(
            session = %line.session,
            user = %printable(&up.user),
            peer = %line.peer,
            v4 = %or_dash(line.v4),
            v6 = %or_dash(line.v6),
            tls = up.protection.version,
            suite = up.protection.suite,
            group = up.protection.group,
            set_up_ms,
            "session up"
        );
    }

    /// A session ended; those that never came up are logged at a bounded rate.
    pub(crate) fn ended(&mut self, line: &EndLine<'_>, ended: &Ended) {
        let &EndLine {
            session,
            name,
            peer,
            lasted,
        } = line;
        let user = ended
            .user
            .as_deref()
            .or(name)
            .map_or_else(|| "-".to_owned(), printable);
        let detail = ended
            .detail
            .as_deref()
            .map_or_else(|| "-".to_owned(), |detail| printable(detail.as_bytes()));
        let reason = ended.reason.name();
        if ended.was_up {
            tracing::info!(
                session = %session,
                user = %user,
                peer = %or_dash(peer),
                reason,
                detail = %detail,
                lasted_ms = lasted.map_or(0, milliseconds),
                uplink_bytes = ended.traffic.uplink_bytes,
                uplink_packets = ended.traffic.uplink_packets,
                downlink_bytes = ended.traffic.downlink_bytes,
                downlink_packets = ended.traffic.downlink_packets,
                "session ended"
            );
            return;
        }
        // Port 443 is scanned all day: who never spoke SSTP is of no interest to most.
        let stranger = matches!(
            ended.reason,
            EndReason::NotSstp | EndReason::TlsFailed | EndReason::CertificateRefused
        ) || ended.milestones.at(Milestone::Http).is_none();
        let step = ended.milestones.last();
        match self.gate.admit(ended.reason, Instant::now()) {
            Admission::Silent => {}
            Admission::Log { silent_before } if stranger => tracing::debug!(
                session = %session, peer = %or_dash(peer), reason, detail = %detail, after = ?step,
                silent_before, "connection ended before a session"
            ),
            Admission::Log { silent_before } => tracing::warn!(
                session = %session, user = %user, peer = %or_dash(peer), reason, detail = %detail,
                after = ?step, silent_before, "session not set up"
            ),
        }
    }

    /// No address was left.
    pub(crate) fn exhausted(&mut self) {
        if let Admission::Log { silent_before } =
            self.gate.admit(EndReason::Exhausted, Instant::now())
        {
            tracing::error!(
                silent_before,
                "every address of the pools is taken: a login was refused; enlarge a [[pool]]"
            );
        }
    }
}

fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_stay_on_their_line() {
        for (name, shown) in [
            (&b"alice"[..], "alice"),
            (b"a\nsession up user=root", "a\\nsession up user=root"),
            (b"\x1b[31mred", "\\u{1b}[31mred"),
            (b"a\0b", "a\\u{0}b"),
            (b"q\"\\", "q\\\"\\\\"),
            (b"\xff\xfe", "\u{fffd}\u{fffd}"),
            ("rtl\u{202e}gnp".as_bytes(), "rtl\\u{202e}gnp"),
            ("J\u{fc}rgen".as_bytes(), "J\u{fc}rgen"),
        ] {
            assert_eq!(printable(name), shown);
        }
        let long = printable(&[b'a'; 255]);
        assert_eq!(long.chars().count(), TEXT_LEN_MAX + 1);
    }

    #[test]
    fn failures_are_logged_at_a_bounded_rate_and_none_is_lost() {
        let mut gate = FailureGate::default();
        let start = Instant::now();
        let mut logged = 0;
        for _ in 0..1000 {
            logged += u32::from(gate.admit(EndReason::NotSstp, start) != Admission::Silent);
        }
        assert_eq!(logged, LINES_PER_WINDOW);
        // Another kind has its own window.
        assert_eq!(
            gate.admit(EndReason::TlsFailed, start),
            Admission::Log { silent_before: 0 }
        );
        assert_eq!(
            gate.admit(EndReason::NotSstp, start + WINDOW),
            Admission::Log { silent_before: 990 }
        );
        assert_eq!(
            gate.admit(EndReason::NotSstp, start + WINDOW),
            Admission::Log { silent_before: 0 }
        );
    }
}
