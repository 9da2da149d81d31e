//! Our own record layer: seals and opens records in place under keys that rustls agreed on.
//!
//! Sources: RFC 8446 §5 (TLS 1.3), RFC 5246 §6.2, RFC 5288 (AES-GCM) and RFC 7905 (ChaCha20) for 1.2.
//!
//! ```text
//! TLS 1.3              23 03 03 len | plaintext, type, zeros | tag 16     AAD = the header
//! TLS 1.2 AES-GCM    type 03 03 len | nonce 8 | plaintext | tag 16        AAD = number, header
//! TLS 1.2 ChaCha20   type 03 03 len | plaintext | tag 16                  AAD = the same
//! ```
//!
//! The nonce is the IV xor the record's number, everywhere: TLS 1.2 AES-GCM leaves the last eight bytes
//! to the sender (RFC 5288 §3), and rustls gives an IV whose last eight bytes are where to start.
//!
//! The first error ends the layer: nothing is sealed or opened after it but the alert it owes. It
//! changes keys only in [`RecordLayer::pending_output`] and [`RecordLayer::update_keys`], never while sealing
//! data, so a record that was sealed stays valid in the order of the calls.

use core::fmt;

use aws_lc_rs::aead::{Aad, LessSafeKey, Nonce};

use super::budget::{Budget, Limits, Used};
use super::control::{self, Alert, Message, Messages};
use super::kernel::{Half as KernelHalf, KernelKeys, KernelPlan, Share};
use super::keys::{EXPORT_FORMAT, IV_LEN, Keys};
use super::{
    ContentType, Error, ExportedHalf, ExportedKeys, HEADER_LEN, Limit, Opened, PLAINTEXT_LEN_MAX,
    Role, Suite, Version,
};

/// Most records in a row that carry no data: `KeyUpdate`s, tickets, warnings, empty records. The same
/// number that rustls and BoringSSL grant to each of these.
pub const CONTROL_RECORDS_MAX: u8 = 32;

/// Bytes of every suite's tag (RFC 5116 §5).
const TAG_LEN: usize = 16;

/// The byte behind TLS 1.3's plaintext that tells its real type (RFC 8446 §5.2).
const INNER_TYPE_LEN: usize = 1;

/// The part of TLS 1.2 AES-GCM's nonce that travels with the record (RFC 5288 §3).
const EXPLICIT_NONCE_LEN: usize = 8;

/// Most bytes before and behind a plaintext.
const OVERHEAD_MAX: usize = HEADER_LEN + EXPLICIT_NONCE_LEN + TAG_LEN;

/// The version field of every record after the first (RFC 8446 §5.1, RFC 5246 §6.2.1).
const RECORD_VERSION: [u8; 2] = [3, 3];

/// Why a `KeyUpdate` cannot be (RFC 8446 §4.6.3).
const NO_KEY_UPDATE: &str = "the keys were to change, which this host's kernel cannot do on an open \
     connection (Linux 6.14 can); with `tls.kernel = \"off\"` the gateway does it itself";

const ALERT_WARNING: u8 = 1;
const ALERT_FATAL: u8 = 2;
const CLOSE_NOTIFY: u8 = 0;
const NO_RENEGOTIATION: u8 = 100;

/// One direction.
struct Half {
    keys: Keys,
    cipher: LessSafeKey,
    seq: u64,
    used: Used,
}

impl Half {
    fn new(keys: Keys, seq: u64, used: Used) -> Result<Self, Error> {
        Ok(Self {
            cipher: keys.cipher()?,
            keys,
            seq,
            used,
        })
    }

    fn import(suite: Suite, half: &ExportedHalf) -> Result<Self, Error> {
        let secret = half.secret.clone().map(Into::into);
        let keys = Keys::from_parts(suite, &half.key, &half.iv, secret)?;
        Self::new(keys, half.seq, half.used)
    }

    /// RFC 8446 §7.2: the next keys, counted from zero.
    fn update(&mut self) -> Result<(), Error> {
        *self = Self::new(self.keys.next()?, 0, Used::default())?;
        Ok(())
    }

    /// RFC 8446 §5.3: the IV xor the number, which is padded on the left.
    fn nonce(&self) -> [u8; IV_LEN] {
        let mut nonce = *self.keys.iv();
        for (byte, seq) in nonce.iter_mut().rev().zip(self.seq.to_le_bytes()) {
            *byte ^= seq;
        }
        nonce
    }

    /// RFC 5246 §6.2.3.3: the number, the header's first three bytes, the plaintext's length.
    fn aad_tls12(&self, content_type: ContentType, plaintext_len: u16) -> [u8; 13] {
        let [a, b, c, d, e, f, g, h] = self.seq.to_be_bytes();
        let [major, minor] = RECORD_VERSION;
        let [high, low] = plaintext_len.to_be_bytes();
        let kind = content_type.byte();
        [a, b, c, d, e, f, g, h, kind, major, minor, high, low]
    }

    /// RFC 8446 §5.3: numbers must not wrap. The last one is never used.
    const fn count(&mut self, plaintext_len: usize) {
        self.seq = self.seq.saturating_add(1);
        self.used.count(plaintext_len);
    }
}

/// The keys and counters of one open connection.
pub(super) struct RecordLayer {
    role: Role,
    version: Version,
    explicit_nonce: bool,
    tx: Half,
    rx: Half,
    limits: Limits,
    key_budget: Option<u64>,
    key_updates: u64,
    control_run: u8,
    messages: Messages,
    owes_key_update: bool,
    asked_peer: bool,
    owes_refusal: bool,
    owes_alert: Option<u8>,
    sent_close: bool,
    received_close: bool,
    failed: bool,
    /// What of all this the kernel does.
    pub(super) kernel: Share,
}

impl fmt::Debug for RecordLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordLayer")
            .field("role", &self.role)
            .field("version", &self.version)
            .field("suite", &self.tx.keys.suite())
            .field("budget", &self.budget())
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

impl RecordLayer {
    /// A layer that goes on where the handshake ended: `tx` and `rx` are keys and next number.
    pub(super) fn new(
        role: Role,
        version: Version,
        tx: (u64, Keys),
        rx: (u64, Keys),
        key_budget: Option<u64>,
    ) -> Result<Self, Error> {
        let suite = tx.1.suite();
        Ok(Self {
            role,
            version,
            explicit_nonce: has_explicit_nonce(version, suite),
            tx: Half::new(tx.1, tx.0, Used::default())?,
            rx: Half::new(rx.1, rx.0, Used::default())?,
            limits: Limits::new(version, suite, key_budget),
            key_budget,
            key_updates: 0,
            control_run: 0,
            messages: Messages::default(),
            owes_key_update: false,
            asked_peer: false,
            owes_refusal: false,
            owes_alert: None,
            sent_close: false,
            received_close: false,
            failed: false,
            kernel: Share::default(),
        })
    }

    /// The same, with what the kernel is to do of it.
    pub(super) fn with_kernel(mut self, plan: KernelPlan) -> Self {
        self.kernel = Share::new(plan);
        self
    }

    pub(super) const fn prefix_len(&self) -> usize {
        if self.kernel.tx() {
            0
        } else if self.explicit_nonce {
            HEADER_LEN + EXPLICIT_NONCE_LEN
        } else {
            HEADER_LEN
        }
    }

    pub(super) const fn suffix_len(&self) -> usize {
        match self.version {
            _ if self.kernel.tx() => 0,
            Version::Tls12 => TAG_LEN,
            Version::Tls13 => INNER_TYPE_LEN + TAG_LEN,
        }
    }

    pub(super) const fn budget(&self) -> Budget {
        Budget {
            sealed: self.tx.used,
            opened: self.rx.used,
            limit_blocks: self.limits.blocks_max,
            limit_records: u64::MAX,
            key_updates: self.key_updates,
        }
    }

    pub(super) fn has_pending_output(&self) -> bool {
        self.owes_key_update
            || self.owes_refusal
            || self.owes_alert.is_some()
            || self.kernel.has_controls()
    }

    pub(super) fn seal(&mut self, record: &mut [u8], plaintext_len: usize) -> Result<usize, Error> {
        if self.failed || self.sent_close {
            return Err(Error::Closed);
        }
        if plaintext_len == 0 || plaintext_len > PLAINTEXT_LEN_MAX {
            return Err(Error::Room);
        }
        if !self.tx.used.allows(plaintext_len, self.limits.blocks_max) {
            return Err(Error::KeyBudgetSpent);
        }
        let len = if self.kernel.tx() {
            if record.len() < plaintext_len {
                return Err(Error::Room);
            }
            self.kernel.sealed(plaintext_len);
            // Twice: where the kernel cuts is its own affair, but it cuts at most so often.
            self.tx.count(0);
            self.tx.count(plaintext_len);
            plaintext_len
        } else {
            match self.seal_as(ContentType::ApplicationData, record, plaintext_len) {
                Ok(len) => len,
                Err(Error::Room) => return Err(Error::Room),
                Err(error) => return Err(self.fail(error)),
            }
        };
        if self.tx.used.blocks >= self.limits.rekey_blocks && self.kernel.may_update_tx() {
            self.owes_key_update = true;
        }
        Ok(len)
    }

    /// Seals `prefix | plaintext | suffix` as one record of `content_type`; gives the record's length.
    fn seal_as(
        &mut self,
        content_type: ContentType,
        record: &mut [u8],
        plaintext_len: usize,
    ) -> Result<usize, Error> {
        if self.tx.seq == u64::MAX {
            return Err(Error::Exhausted(Limit::SequenceNumbers));
        }
        let prefix_len = self.prefix_len();
        let record_len = prefix_len
            .saturating_add(plaintext_len)
            .saturating_add(self.suffix_len());
        let payload_len = record_len.saturating_sub(HEADER_LEN);
        let payload_len_field = u16::try_from(payload_len).map_err(|_| Error::Room)?;
        let plaintext_len_field = u16::try_from(plaintext_len).map_err(|_| Error::Room)?;
        let (prefix, rest) = record
            .get_mut(..record_len)
            .and_then(|record| record.split_at_mut_checked(prefix_len))
            .ok_or(Error::Room)?;
        let (header, explicit_nonce) = prefix
            .split_first_chunk_mut::<HEADER_LEN>()
            .ok_or(Error::Room)?;
        let (body, tag) = rest.split_last_chunk_mut::<TAG_LEN>().ok_or(Error::Room)?;

        let nonce = self.tx.nonce();
        let [_, _, _, _, explicit @ ..] = &nonce;
        if !explicit_nonce.is_empty() {
            explicit_nonce.copy_from_slice(explicit);
        }
        let [len_high, len_low] = payload_len_field.to_be_bytes();
        let [major, minor] = RECORD_VERSION;
        let nonce = Nonce::assume_unique_for_key(nonce);
        let sealed = match self.version {
            Version::Tls13 => {
                // RFC 8446 §5.2: the outside always claims to be data.
                let outer = ContentType::ApplicationData.byte();
                *header = [outer, major, minor, len_high, len_low];
                *body.last_mut().ok_or(Error::Room)? = content_type.byte();
                self.tx
                    .cipher
                    .seal_in_place_separate_tag(nonce, Aad::from(&header), body)
            }
            Version::Tls12 => {
                *header = [content_type.byte(), major, minor, len_high, len_low];
                let aad = self.tx.aad_tls12(content_type, plaintext_len_field);
                self.tx
                    .cipher
                    .seal_in_place_separate_tag(nonce, Aad::from(&aad), body)
            }
        };
        let sealed = sealed.map_err(|_| Error::Internal("sealing failed".into()))?;
        tag.copy_from_slice(sealed.as_ref());
        self.tx.count(plaintext_len);
        Ok(record_len)
    }

    /// Appends one short record that is not data.
    fn push(
        &mut self,
        content_type: ContentType,
        plaintext: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        if self.kernel.tx() {
            self.kernel.push(content_type.byte(), plaintext);
            self.tx.count(plaintext.len());
            return Ok(());
        }
        let start = out.len();
        out.resize(
            start
                .saturating_add(OVERHEAD_MAX)
                .saturating_add(plaintext.len()),
            0,
        );
        let prefix_len = self.prefix_len();
        let sealed = out.get_mut(start..).ok_or(Error::Room).and_then(|record| {
            record
                .get_mut(prefix_len..prefix_len.saturating_add(plaintext.len()))
                .ok_or(Error::Room)?
                .copy_from_slice(plaintext);
            self.seal_as(content_type, record, plaintext.len())
        });
        out.truncate(start.saturating_add(*sealed.as_ref().unwrap_or(&0)));
        sealed.map(|_| ())
    }

    /// RFC 8446 §4.6.3: announces new keys under the old ones, then takes them.
    fn push_key_update(&mut self, ask_peer: bool, out: &mut Vec<u8>) -> Result<(), Error> {
        let message = [24, 0, 0, 1, u8::from(ask_peer)];
        self.push(ContentType::Handshake, &message, out)?;
        self.tx.update()?;
        self.key_updates = self.key_updates.saturating_add(1);
        self.owes_key_update = false;
        self.asked_peer |= ask_peer;
        Ok(())
    }

    pub(super) fn update_keys(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        if self.failed || self.sent_close {
            return Err(Error::Closed);
        }
        if self.version != Version::Tls13 {
            return Err(Error::KeyBudgetSpent);
        }
        if !(self.kernel.may_update_tx() && self.kernel.may_update_rx()) {
            return Err(Error::KernelTls(NO_KEY_UPDATE.into()));
        }
        self.push_key_update(true, out)
            .map_err(|error| self.fail(error))
    }

    pub(super) fn close_notify(&mut self, out: &mut Vec<u8>) {
        if self.failed || self.sent_close {
            return;
        }
        self.pending_output(out);
        self.sent_close = true;
        let alert = [ALERT_WARNING, CLOSE_NOTIFY];
        if let Err(error) = self.push(ContentType::Alert, &alert, out) {
            self.fail(error);
        }
    }

    pub(super) fn pending_output(&mut self, out: &mut Vec<u8>) {
        if let Some(alert) = self.owes_alert.take()
            && !self.sent_close
        {
            // The layer has failed already; where the alert cannot be sealed either, silence.
            let _silence = self.push(ContentType::Alert, &[ALERT_FATAL, alert], out);
            self.sent_close = true;
        }
        if self.failed || self.sent_close {
            self.owes_key_update = false;
            self.owes_refusal = false;
            return;
        }
        let mut result = Ok(());
        if core::mem::take(&mut self.owes_refusal) {
            let alert = [ALERT_WARNING, NO_RENEGOTIATION];
            result = self.push(ContentType::Alert, &alert, out);
        }
        if self.owes_key_update && result.is_ok() {
            // A peer that has passed the limit itself is asked to change its keys too, once for
            // each of its keys (RFC 8446 §5.5 asks it to do so unasked).
            let ask = self.rx.used.blocks >= self.limits.rekey_blocks
                && !self.asked_peer
                && self.kernel.may_update_rx();
            result = self.push_key_update(ask, out);
        }
        if let Err(error) = result {
            self.fail(error);
        }
    }

    pub(super) fn open<'a>(&mut self, record: &'a mut [u8]) -> Result<Opened<'a>, Error> {
        if self.failed {
            return Err(Error::Closed);
        }
        if self.received_close {
            // RFC 8446 §6.1: what follows a closure alert must be ignored.
            return Ok(Opened::Closed);
        }
        self.open_and_handle(record)
            .map_err(|error| self.fail(error))
    }

    pub(super) fn fail(&mut self, error: Error) -> Error {
        self.failed = true;
        self.owes_alert = error.alert();
        error
    }

    fn open_and_handle<'a>(&mut self, record: &'a mut [u8]) -> Result<Opened<'a>, Error> {
        let (content_type, plaintext) = self.open_as(record)?;
        self.handle(content_type, plaintext)
    }

    /// What the kernel opened.
    pub(super) fn open_by_kernel<'a>(
        &mut self,
        content_type: u8,
        plaintext: &'a mut [u8],
    ) -> Result<Opened<'a>, Error> {
        if self.failed {
            return Err(Error::Closed);
        }
        if self.received_close {
            return Ok(Opened::Closed);
        }
        self.rx.count(plaintext.len());
        ContentType::from_byte(content_type)
            .ok_or_else(|| Error::Malformed("unknown record type".into()))
            .and_then(|content_type| self.handle(content_type, plaintext))
            .map_err(|error| self.fail(error))
    }

    /// Acts on one opened record.
    fn handle<'a>(
        &mut self,
        content_type: ContentType,
        plaintext: &'a mut [u8],
    ) -> Result<Opened<'a>, Error> {
        if self.messages.is_partial() && content_type != ContentType::Handshake {
            // RFC 8446 §5.1: no other record may come between the parts of a message.
            return Err(Error::PeerMisbehaved(
                "record inside a handshake message".into(),
            ));
        }
        if content_type == ContentType::ApplicationData && !plaintext.is_empty() {
            self.control_run = 0;
            return Ok(Opened::Data(plaintext));
        }
        self.control_run = self.control_run.saturating_add(1);
        if self.control_run > CONTROL_RECORDS_MAX {
            return Err(Error::Exhausted(Limit::ControlRecords));
        }
        match content_type {
            ContentType::ApplicationData => Ok(Opened::Handled),
            ContentType::Alert => match control::parse_alert(self.version, plaintext)? {
                Alert::CloseNotify => {
                    self.received_close = true;
                    Ok(Opened::Closed)
                }
                Alert::Warning => Ok(Opened::Handled),
                Alert::Fatal(alert) => Err(Error::AlertReceived(alert)),
            },
            ContentType::Handshake => {
                match self.messages.handle(self.version, self.role, plaintext)? {
                    Some(Message::KeyUpdate { requested }) => {
                        let may_answer = !requested || self.kernel.may_update_tx();
                        if !self.kernel.may_update_rx() || !may_answer {
                            return Err(Error::KernelTls(NO_KEY_UPDATE.into()));
                        }
                        self.rx.update()?;
                        self.kernel.renew_rx();
                        self.asked_peer = false;
                        self.owes_key_update |= requested;
                    }
                    Some(Message::Renegotiation) => self.owes_refusal = true,
                    None => {}
                }
                Ok(Opened::Handled)
            }
            // RFC 8446 §5: after the Finished it is unexpected. TLS 1.2: it would renegotiate.
            ContentType::ChangeCipherSpec => Err(Error::PeerMisbehaved(
                "ChangeCipherSpec on an open connection".into(),
            )),
        }
    }

    /// Opens exactly one record; gives its real type and plaintext.
    fn open_as<'a>(&mut self, record: &'a mut [u8]) -> Result<(ContentType, &'a mut [u8]), Error> {
        let whole = super::record_len(record)?;
        if whole != Some(record.len()) {
            return Err(Error::Room);
        }
        if self.rx.seq == u64::MAX {
            return Err(Error::Exhausted(Limit::SequenceNumbers));
        }
        let (&mut header, payload) = record
            .split_first_chunk_mut::<HEADER_LEN>()
            .ok_or(Error::Room)?;
        let [outer, major, minor, _, _] = header;
        let outer = ContentType::from_byte(outer)
            .ok_or_else(|| Error::Malformed("unknown record type".into()))?;
        if [major, minor] != RECORD_VERSION {
            return Err(Error::Malformed("unknown record version".into()));
        }
        let (content_type, plaintext) = match self.version {
            Version::Tls13 => self.open_tls13(outer, header, payload)?,
            Version::Tls12 => (outer, self.open_tls12(outer, payload)?),
        };
        self.rx.count(plaintext.len());
        if self.rx.used.blocks >= self.limits.rekey_blocks
            && !self.asked_peer
            && self.kernel.may_update_tx()
        {
            self.owes_key_update = true;
        }
        Ok((content_type, plaintext))
    }

    fn open_tls13<'a>(
        &self,
        outer: ContentType,
        header: [u8; HEADER_LEN],
        payload: &'a mut [u8],
    ) -> Result<(ContentType, &'a mut [u8]), Error> {
        if outer != ContentType::ApplicationData {
            // RFC 8446 §5.1: once keys are agreed all records are protected and look like data.
            return Err(Error::PeerMisbehaved("unprotected record".into()));
        }
        let nonce = Nonce::assume_unique_for_key(self.rx.nonce());
        let inner = self
            .rx
            .cipher
            .open_in_place(nonce, Aad::from(&header), payload)
            .map_err(|_| Error::BadRecord)?;
        if inner.len() > PLAINTEXT_LEN_MAX + INNER_TYPE_LEN {
            return Err(Error::RecordTooLong);
        }
        // RFC 8446 §5.4: the type is the last byte that is not zero.
        let Some(at) = inner.iter().rposition(|&byte| byte != 0) else {
            return Err(Error::PeerMisbehaved("record of padding alone".into()));
        };
        let (plaintext, tail) = inner.split_at_mut_checked(at).ok_or(Error::Room)?;
        let content_type = tail
            .first()
            .and_then(|&byte| ContentType::from_byte(byte))
            .ok_or_else(|| Error::PeerMisbehaved("unknown inner record type".into()))?;
        Ok((content_type, plaintext))
    }

    fn open_tls12<'a>(
        &self,
        outer: ContentType,
        payload: &'a mut [u8],
    ) -> Result<&'a mut [u8], Error> {
        let mut nonce = self.rx.nonce();
        let sealed = if self.explicit_nonce {
            let (explicit, sealed) = payload
                .split_first_chunk_mut::<EXPLICIT_NONCE_LEN>()
                .ok_or(Error::BadRecord)?;
            let [_, _, _, _, tail @ ..] = &mut nonce;
            // RFC 5288 §3: only the salt, the first four bytes, is agreed on.
            tail.copy_from_slice(explicit);
            sealed
        } else {
            payload
        };
        let plaintext_len = sealed.len().checked_sub(TAG_LEN).ok_or(Error::BadRecord)?;
        let plaintext_len = u16::try_from(plaintext_len).map_err(|_| Error::RecordTooLong)?;
        let aad = self.rx.aad_tls12(outer, plaintext_len);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let plaintext = self
            .rx
            .cipher
            .open_in_place(nonce, Aad::from(&aad), sealed)
            .map_err(|_| Error::BadRecord)?;
        if plaintext.len() > PLAINTEXT_LEN_MAX {
            return Err(Error::RecordTooLong);
        }
        Ok(plaintext)
    }

    pub(super) fn export(&self) -> Option<ExportedKeys> {
        if self.failed || self.sent_close || self.received_close {
            return None;
        }
        if self.kernel.tx() || self.kernel.rx() {
            // The numbers of the records are the kernel's.
            return None;
        }
        Some(ExportedKeys {
            format: EXPORT_FORMAT,
            role: self.role,
            version: self.version,
            suite: self.tx.keys.suite(),
            tx: self.tx.keys.export(self.tx.seq, self.tx.used),
            rx: self.rx.keys.export(self.rx.seq, self.rx.used),
            key_budget: self.key_budget,
            key_updates: self.key_updates,
            control_run: self.control_run,
            message: self.messages.export(),
            owes_key_update: self.owes_key_update,
            owes_refusal: self.owes_refusal,
            asked_peer: self.asked_peer,
        })
    }

    /// Whether one direction can go to the kernel now: it is neither over nor inside a message.
    pub(super) const fn may_move(&self, half: KernelHalf) -> bool {
        let waits = match half {
            KernelHalf::Tx => false,
            KernelHalf::Rx => self.received_close || self.messages.is_partial(),
        };
        !self.failed && !self.sent_close && !waits
    }

    /// One direction as the kernel is to have it.
    pub(super) fn half_for_kernel(&self, half: KernelHalf) -> KernelKeys {
        let of = match half {
            KernelHalf::Tx => &self.tx,
            KernelHalf::Rx => &self.rx,
        };
        KernelKeys {
            version: self.version,
            suite: of.keys.suite(),
            half: of.keys.export(of.seq, of.used),
        }
    }

    pub(super) fn import(keys: &ExportedKeys) -> Result<Self, Error> {
        let unknown = |what: &'static str| Error::Setup(what.into());
        if keys.format != EXPORT_FORMAT {
            return Err(unknown("exported keys of another format"));
        }
        let has_secrets = keys.tx.secret.is_some() && keys.rx.secret.is_some();
        if has_secrets != (keys.version == Version::Tls13) {
            return Err(unknown("exported keys without their secrets"));
        }
        let messages = Messages::import(&keys.message.0, keys.message.1)
            .ok_or_else(|| unknown("exported keys with a broken message"))?;
        Ok(Self {
            role: keys.role,
            version: keys.version,
            explicit_nonce: has_explicit_nonce(keys.version, keys.suite),
            tx: Half::import(keys.suite, &keys.tx)?,
            rx: Half::import(keys.suite, &keys.rx)?,
            limits: Limits::new(keys.version, keys.suite, keys.key_budget),
            key_budget: keys.key_budget,
            key_updates: keys.key_updates,
            control_run: keys.control_run,
            messages,
            owes_key_update: keys.owes_key_update,
            asked_peer: keys.asked_peer,
            owes_refusal: keys.owes_refusal,
            owes_alert: None,
            sent_close: false,
            received_close: false,
            failed: false,
            kernel: Share::default(),
        })
    }
}

const fn has_explicit_nonce(version: Version, suite: Suite) -> bool {
    matches!(version, Version::Tls12) && matches!(suite, Suite::Aes128Gcm | Suite::Aes256Gcm)
}

#[cfg(test)]
mod tests;
