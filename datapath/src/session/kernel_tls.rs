//! A session whose records the kernel seals or opens: when it goes over, and what is different then.
//!
//! ```text
//! tx goes over   nothing in flight, nothing laid out behind room for a header, nothing owed
//! rx goes over   everything received was consumed, up to the end of a record
//! ```
//!
//! Both are so right after the handshake, and between any two of a client's turns; where they are
//! not, the next turn asks again. A driver that lets the kernel receive tells at most one buffer of a
//! connection in a turn, so at the end of a turn nothing that was received is left anywhere else.
//!
//! It makes no calls: the shard takes [`Session::keys_for_kernel`] to its driver.

use super::event::EndReason;
use super::{Closing, Edge, Flow, Session, Stage};
use crate::io::Loss;
use crate::io::kernel_tls::{Direction, KEY_LEN_MAX, KernelSend, TlsCipher, TlsKeys, TlsVersion};
use crate::time::Instant;
use crate::tls;

/// Linux' numbers for what kernel TLS alone says (errno-base.h, errno.h).
mod errno {
    pub(super) const EIO: i32 = 5;
    pub(super) const EINVAL: i32 = 22;
    pub(super) const EBADMSG: i32 = 74;
    pub(super) const EMSGSIZE: i32 = 90;
    pub(super) const EKEYEXPIRED: i32 = 127;
}

impl Session {
    /// What the kernel is to be given now, if anything; to be asked at the end of each turn, and
    /// answered with [`Session::kernel_answered`] at once.
    #[must_use]
    pub fn keys_for_kernel(&self) -> Option<(Direction, TlsKeys)> {
        let tls = self.outside.tls.as_ref()?;
        if !tls.owes_kernel_keys() || matches!(self.stage, Stage::Closing(Closing::Close { .. })) {
            return None;
        }
        let transmit = &self.outside.transmit;
        let tx_is_quiet = !transmit.in_flight()
            && self.outside.flight.is_empty()
            && (tls.is_in_kernel(tls::Half::Tx) || transmit.needs_no_room());
        let rx_is_quiet = self.outside.partial_record.is_empty();
        let of = |direction, half, is_quiet: bool| {
            let keys = is_quiet.then(|| tls.keys_for_kernel(half)).flatten()?;
            Some((direction, keys_of(&keys)?))
        };
        of(Direction::Rx, tls::Half::Rx, rx_is_quiet)
            .or_else(|| of(Direction::Tx, tls::Half::Tx, tx_is_quiet))
    }

    /// What the driver said to [`Session::keys_for_kernel`]: done, or an error's number.
    pub fn kernel_answered<E: Edge>(
        &mut self,
        now: Instant,
        direction: Direction,
        answer: Result<(), i32>,
        edge: &mut E,
    ) {
        let half = match direction {
            Direction::Tx => tls::Half::Tx,
            Direction::Rx => tls::Half::Rx,
        };
        let Some(tls) = self.outside.tls.as_mut() else {
            return;
        };
        let refused = match answer {
            Ok(()) => {
                tls.moved_to_kernel(half);
                return;
            }
            Err(errno) => {
                let why = std::io::Error::from_raw_os_error(errno).to_string();
                tls.refused_by_kernel(half, &why)
            }
        };
        if let Err(error) = refused {
            let flow = self.tls_failed(&error);
            self.follow(flow, now, edge);
        }
    }

    /// How the buffer of the last [`Session::poll_send`] is to be sent; `None`: as it is.
    #[must_use]
    pub const fn kernel_send(&self) -> Option<KernelSend> {
        self.outside.kernel_send
    }

    /// Takes a record that is not data, opened by the kernel.
    pub fn receive_control<E: Edge>(
        &mut self,
        now: Instant,
        content_type: u8,
        bytes: &mut [u8],
        edge: &mut E,
    ) {
        if let Stage::Closing(_) = self.stage {
            return;
        }
        let flow = self.receive_opened(now, content_type, bytes, edge);
        self.follow(flow, now, edge);
    }

    /// Whether what is received was opened by the kernel.
    pub(super) fn receives_by_kernel(&self) -> bool {
        let tls = self.outside.tls.as_ref();
        tls.is_some_and(|tls| tls.is_in_kernel(tls::Half::Rx))
    }

    /// Takes plaintext that the kernel opened.
    pub(super) fn receive_opened<E: Edge>(
        &mut self,
        now: Instant,
        content_type: u8,
        bytes: &mut [u8],
        edge: &mut E,
    ) -> Flow {
        let Some(tls) = self.outside.tls.as_mut() else {
            return Flow::Cut;
        };
        match tls.open_by_kernel(content_type, bytes) {
            Ok(tls::Opened::Data(plaintext)) => self.receive_plaintext(now, plaintext, edge),
            Ok(tls::Opened::Handled) => Flow::Continue,
            Ok(tls::Opened::Closed) => {
                self.ledger.note_end(EndReason::PeerClosed, None);
                Flow::Close
            }
            Err(error) => self.tls_failed(&error),
        }
    }

    /// Nothing more will be received: the connection's end, or an error of TLS that the kernel found.
    pub fn receive_lost<E: Edge>(&mut self, now: Instant, loss: Loss, edge: &mut E) {
        let error = match loss {
            Loss::Os(number) if self.receives_by_kernel() => found_by_kernel(number),
            _ => None,
        };
        let closing = matches!(self.stage, Stage::Closing(_));
        match (error, self.outside.tls.as_mut()) {
            (Some(error), Some(tls)) if !closing => {
                let error = tls.failed_in_kernel(error);
                let flow = self.tls_failed(&error);
                self.follow(flow, now, edge);
            }
            _ => self.receive_ended(loss, edge),
        }
    }
}

/// How data that was just sealed is to be sent: the last packet keeps its own record (see `transmit`).
pub(super) fn data(tls: &tls::Connection) -> Option<KernelSend> {
    tls.is_in_kernel(tls::Half::Tx).then(|| KernelSend::Data {
        last_len: tls.last_sealed_len(),
    })
}

/// What an error's number of a receive means on a connection that the kernel opens.
fn found_by_kernel(number: i32) -> Option<tls::Error> {
    Some(match number {
        errno::EBADMSG => tls::Error::BadRecord,
        errno::EMSGSIZE => tls::Error::RecordTooLong,
        errno::EINVAL => tls::Error::Malformed("no TLS record of this version".into()),
        errno::EKEYEXPIRED => tls::Error::KernelTls(
            "the peer changed its keys before this host's kernel had the new ones".into(),
        ),
        errno::EIO => {
            tls::Error::KernelTls("this host's kernel met a record that it cannot hand over".into())
        }
        _ => return None,
    })
}

fn keys_of(keys: &tls::KernelKeys) -> Option<TlsKeys> {
    let mut made = TlsKeys {
        version: match keys.version {
            tls::Version::Tls12 => TlsVersion::Tls12,
            tls::Version::Tls13 => TlsVersion::Tls13,
        },
        cipher: match keys.suite {
            tls::Suite::Aes128Gcm => TlsCipher::Aes128Gcm,
            tls::Suite::Aes256Gcm => TlsCipher::Aes256Gcm,
            tls::Suite::ChaCha20Poly1305 => TlsCipher::ChaCha20Poly1305,
            #[cfg(any(test, feature = "testing"))]
            tls::Suite::Null => return None,
        },
        key: [0; KEY_LEN_MAX],
        iv: [0; 12],
        seq: keys.half.seq,
    };
    let key = made.key.get_mut(..keys.half.key.len())?;
    key.copy_from_slice(&keys.half.key);
    made.iv = *keys.half.iv.first_chunk()?;
    Some(made)
}
