//! What arrives on an open connection that is not data: handshake messages and alerts.
//!
//! Sources: RFC 8446 §4.6 (post-handshake messages), §6 (alerts); RFC 5246 §7.4.1.1 (HelloRequest).
//!
//! A handshake message may span records, so the parser remembers the part of a header it has and how
//! many bytes to skip. It keeps no bodies: the only body it reads is the one byte of a `KeyUpdate`.
//! It does not act; the record layer does.

use super::{Error, Role, Version};

const HELLO_REQUEST: u8 = 0;
const CLIENT_HELLO: u8 = 1;
const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;

const MESSAGE_HEADER_LEN: usize = 4;

/// Longest body that is skipped: a ticket of 65,535 bytes with all its extensions, and a
/// ClientHello as long as a handshake may be.
const SKIPPED_LEN_MAX: u32 = 1 << 17;

/// What a handshake message asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// TLS 1.3: the peer's next record has new keys.
    KeyUpdate {
        /// It wants ours to change too.
        requested: bool,
    },
    /// TLS 1.2: the peer wants to shake hands again.
    Renegotiation,
}

/// Recognises handshake messages across record boundaries.
#[derive(Clone, Debug, Default)]
pub(super) struct Messages {
    header: [u8; MESSAGE_HEADER_LEN],
    header_len: usize,
    skip: u32,
}

impl Messages {
    /// Whether a message has begun and not ended.
    pub(super) const fn is_partial(&self) -> bool {
        self.header_len != 0 || self.skip != 0
    }

    pub(super) fn export(&self) -> (Vec<u8>, u32) {
        let header = self.header.get(..self.header_len).unwrap_or_default();
        (header.to_vec(), self.skip)
    }

    pub(super) fn import(header: &[u8], skip: u32) -> Option<Self> {
        let mut messages = Self {
            skip: (skip <= SKIPPED_LEN_MAX).then_some(skip)?,
            header_len: header.len(),
            ..Self::default()
        };
        messages
            .header
            .get_mut(..header.len())?
            .copy_from_slice(header);
        Some(messages)
    }

    /// Takes the handshake bytes of one record.
    pub(super) fn handle(
        &mut self,
        version: Version,
        role: Role,
        mut bytes: &[u8],
    ) -> Result<Option<Message>, Error> {
        let misbehaved = |why: &'static str| Err(Error::PeerMisbehaved(why.into()));
        if bytes.is_empty() {
            // RFC 8446 §5.1: no zero-length fragments of handshake messages.
            return misbehaved("empty handshake record");
        }
        let mut told = None;
        while let Some((&first, rest)) = bytes.split_first() {
            if self.skip > 0 {
                let len = usize::try_from(self.skip)
                    .unwrap_or(usize::MAX)
                    .min(bytes.len());
                bytes = bytes.get(len..).unwrap_or_default();
                self.skip = self
                    .skip
                    .saturating_sub(u32::try_from(len).unwrap_or(u32::MAX));
                continue;
            }
            if let Some(slot) = self.header.get_mut(self.header_len) {
                *slot = first;
                bytes = rest;
                self.header_len = self.header_len.saturating_add(1);
                if self.header_len < MESSAGE_HEADER_LEN {
                    continue;
                }
            }
            let [kind, len @ ..] = self.header;
            let len = u32::from_be_bytes([0, len[0], len[1], len[2]]);
            match (version, role, kind) {
                (Version::Tls13, _, KEY_UPDATE) => {
                    if len != 1 {
                        return Err(Error::Malformed("KeyUpdate of the wrong length".into()));
                    }
                    let Some((&request, rest)) = bytes.split_first() else {
                        // The body comes with the next record; the full header waits.
                        break;
                    };
                    if !rest.is_empty() {
                        // RFC 8446 §5.1: messages must not span a key change.
                        return misbehaved("bytes after a KeyUpdate");
                    }
                    bytes = rest;
                    told = Some(Message::KeyUpdate {
                        requested: match request {
                            0 => false,
                            1 => true,
                            _ => return misbehaved("KeyUpdate with an unknown request"),
                        },
                    });
                }
                (Version::Tls13, Role::Client, NEW_SESSION_TICKET) => self.skip = len,
                (Version::Tls12, Role::Client, HELLO_REQUEST) if len == 0 => {
                    told = Some(Message::Renegotiation);
                }
                (Version::Tls12, Role::Server, CLIENT_HELLO) => {
                    self.skip = len;
                    told = Some(Message::Renegotiation);
                }
                _ => return misbehaved("handshake message on an open connection"),
            }
            if self.skip > SKIPPED_LEN_MAX {
                return misbehaved("handshake message too long");
            }
            self.header_len = 0;
        }
        Ok(told)
    }
}

/// What an alert means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alert {
    /// The peer sends nothing more.
    CloseNotify,
    /// To be ignored.
    Warning,
    /// The connection is over.
    Fatal(u8),
}

/// Reads the payload of an alert record (RFC 8446 §6, RFC 5246 §7.2).
pub(super) fn parse_alert(version: Version, bytes: &[u8]) -> Result<Alert, Error> {
    let &[level, description] = bytes else {
        return Err(Error::Malformed("alert of the wrong length".into()));
    };
    Ok(match (version, level, description) {
        (_, _, 0) => Alert::CloseNotify,
        // RFC 8446 §6.1: user_canceled is followed by close_notify; all others end the connection,
        // whatever level they claim.
        (Version::Tls13, _, 90) => Alert::Warning,
        (Version::Tls13, ..) => Alert::Fatal(description),
        (Version::Tls12, 1, _) => Alert::Warning,
        (Version::Tls12, 2, _) => Alert::Fatal(description),
        (Version::Tls12, ..) => return Err(Error::Malformed("alert of no known level".into())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_recognised_however_records_cut_them() {
        let ticket = [4, 0, 0, 3, 9, 9, 9, 24, 0, 0, 1, 1];
        for cut in 1..ticket.len() {
            let mut messages = Messages::default();
            let (a, b) = ticket.split_at(cut);
            let first = messages.handle(Version::Tls13, Role::Client, a).unwrap();
            assert_eq!(first, None);
            assert_eq!(messages.is_partial(), cut != 7);
            let (header, skip) = messages.export();
            let mut messages = Messages::import(&header, skip).unwrap();
            let second = messages.handle(Version::Tls13, Role::Client, b).unwrap();
            assert_eq!(
                second,
                Some(Message::KeyUpdate { requested: true }),
                "cut at {cut}"
            );
            assert!(!messages.is_partial());
        }
    }

    #[test]
    fn what_has_no_place_on_an_open_connection_is_refused() {
        for (version, role, bytes) in [
            (Version::Tls13, Role::Server, &[4_u8, 0, 0, 0][..]),
            (Version::Tls13, Role::Server, &[1, 0, 0, 0]),
            (Version::Tls13, Role::Client, &[13, 0, 0, 0]),
            (Version::Tls13, Role::Client, &[24, 0, 0, 2, 0, 0]),
            (Version::Tls13, Role::Client, &[24, 0, 0, 1, 2]),
            (Version::Tls13, Role::Client, &[24, 0, 0, 1, 0, 0]),
            (Version::Tls13, Role::Client, &[4, 0xff, 0, 0]),
            (Version::Tls13, Role::Client, &[]),
            (Version::Tls12, Role::Client, &[24, 0, 0, 1, 0]),
            (Version::Tls12, Role::Server, &[0, 0, 0, 0]),
            (Version::Tls12, Role::Client, &[1, 0, 0, 0]),
        ] {
            let result = Messages::default().handle(version, role, bytes);
            assert!(result.is_err(), "{version:?} {role:?} {bytes:?}");
        }
        let hello = Messages::default().handle(Version::Tls12, Role::Server, &[1, 0, 0, 1, 7]);
        assert_eq!(hello, Ok(Some(Message::Renegotiation)));
    }

    #[test]
    fn alerts_are_read_by_version() {
        for (version, bytes, alert) in [
            (Version::Tls13, [1, 0], Alert::CloseNotify),
            (Version::Tls13, [1, 90], Alert::Warning),
            (Version::Tls13, [1, 100], Alert::Fatal(100)),
            (Version::Tls12, [1, 100], Alert::Warning),
            (Version::Tls12, [2, 20], Alert::Fatal(20)),
        ] {
            assert_eq!(parse_alert(version, &bytes), Ok(alert));
        }
        assert!(parse_alert(Version::Tls12, &[3, 20]).is_err());
        assert!(parse_alert(Version::Tls13, &[2]).is_err());
        assert!(parse_alert(Version::Tls13, &[2, 20, 0]).is_err());
    }
}
