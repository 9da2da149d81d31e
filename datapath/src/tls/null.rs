//! A stand-in for TLS without secrecy: for simulation and fuzzing, never in a shipped binary.
//!
//! It has the framing and the overhead of TLS 1.3 and is deterministic. A sum over each record, its
//! number, its sender and how often the sender's key was changed notices wrong bytes and records that
//! were lost, repeated, reflected or put before the `KeyUpdate` they follow.
//!
//! ```text
//! handshake   22 03 03 len | 1, the name asked for      client → server
//!             22 03 03 len | 2, SHA-1, SHA-256          server → client
//!             22 03 03 len | 3                          client → server
//! record      23 03 03 len | plaintext | type 1, number 8, sum 8
//! ```

use rustls_pki_types::ServerName;

use super::budget::{Budget, Used};
use super::control::{self, Alert};
use super::handshake::Info;
use super::keys::EXPORT_FORMAT;
use super::record::CONTROL_RECORDS_MAX;
use super::{
    CertHashes, Connection, ContentType, Error, ExportedHalf, ExportedKeys, HEADER_LEN, Limit,
    Opened, PLAINTEXT_LEN_MAX, Role, Suite, Version, record_len,
};

const SUFFIX_LEN: usize = 17;
const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
const FINISHED: u8 = 3;

/// Three framed messages.
#[derive(Debug)]
pub(super) struct NullHandshake {
    role: Role,
    next: u8,
    certificate: Option<CertHashes>,
    name: Option<String>,
    pending: Vec<u8>,
}

impl NullHandshake {
    pub(super) const fn server(hashes: CertHashes) -> Self {
        Self {
            role: Role::Server,
            next: CLIENT_HELLO,
            certificate: Some(hashes),
            name: None,
            pending: Vec::new(),
        }
    }

    pub(super) fn client(name: &ServerName<'_>) -> Self {
        let mut handshake = Self {
            role: Role::Client,
            next: SERVER_HELLO,
            certificate: None,
            name: None,
            pending: Vec::new(),
        };
        handshake.push(CLIENT_HELLO, name.to_str().as_bytes());
        handshake
    }

    fn push(&mut self, kind: u8, body: &[u8]) {
        let len = u16::try_from(body.len().saturating_add(1)).unwrap_or(1);
        let [high, low] = len.to_be_bytes();
        self.pending.extend_from_slice(&[22, 3, 3, high, low, kind]);
        self.pending.extend_from_slice(body);
    }

    pub(super) fn handle_record(&mut self, record: &[u8]) -> Result<(), Error> {
        let Some((&[22, 3, 3, _, _], &[kind, ref body @ ..])) =
            record.split_first_chunk::<HEADER_LEN>()
        else {
            return Err(Error::Malformed("no null handshake".into()));
        };
        if kind != self.next {
            return Err(Error::PeerMisbehaved("null message out of order".into()));
        }
        match kind {
            CLIENT_HELLO => {
                let name =
                    core::str::from_utf8(body).map_err(|_| Error::Malformed("null name".into()))?;
                self.name = Some(name.to_owned());
                if let Some(hashes) = self.certificate {
                    self.push(SERVER_HELLO, &[&hashes.sha1[..], &hashes.sha256].concat());
                }
                self.next = FINISHED;
            }
            SERVER_HELLO => {
                let hashes = body.split_first_chunk().and_then(|(&sha1, rest)| {
                    let sha256 = rest.try_into().ok()?;
                    Some(CertHashes { sha1, sha256 })
                });
                self.certificate =
                    Some(hashes.ok_or_else(|| Error::Malformed("null hashes".into()))?);
                self.push(FINISHED, &[]);
                self.next = 0;
            }
            _ => self.next = 0,
        }
        Ok(())
    }

    pub(super) fn write(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.pending);
    }

    pub(super) const fn is_done(&self) -> bool {
        self.next == 0
    }

    pub(super) fn finish(
        self,
        role: Role,
        key_budget: Option<u64>,
    ) -> Result<(Connection, Info), Error> {
        let layer = NullLayer {
            role: self.role,
            sealed: Used::default(),
            opened: Used::default(),
            key_budget,
            tx_epoch: 0,
            rx_epoch: 0,
            control_run: 0,
            owes_key_update: false,
            owes_alert: None,
            sent_close: false,
            received_close: false,
            failed: false,
        };
        let info = Info {
            version: Version::Tls13,
            suite: Suite::Null,
            suite_name: "null",
            group: "null",
            post_quantum: false,
            certificate: self.certificate.ok_or(Error::NotDone)?,
            sni: self.name.filter(|_| role == Role::Server),
        };
        Ok((Connection::from_null(layer), info))
    }
}

/// Records without secrecy.
#[derive(Debug)]
pub(super) struct NullLayer {
    role: Role,
    sealed: Used,
    opened: Used,
    key_budget: Option<u64>,
    tx_epoch: u64,
    rx_epoch: u64,
    control_run: u8,
    owes_key_update: bool,
    owes_alert: Option<u8>,
    sent_close: bool,
    received_close: bool,
    failed: bool,
}

/// Sums eight bytes at a time; any change of one of them changes the sum, since every step can be
/// undone.
fn sum(sender: Role, epoch: u64, number: u64, header: &[u8], body: &[u8]) -> u64 {
    let start = match sender {
        Role::Client => 0xcbf2_9ce4_8422_2325,
        Role::Server => 0x8422_2325_cbf2_9ce4,
    };
    let step = |sum: u64, chunk: &[u8]| {
        let mut eight = [0; 8];
        for (to, from) in eight.iter_mut().zip(chunk) {
            *to = *from;
        }
        (sum ^ u64::from_le_bytes(eight))
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(29)
    };
    let sum = step(start, &epoch.to_le_bytes());
    let sum = step(sum, &number.to_le_bytes());
    let sum = step(sum, header);
    body.chunks(8).fold(sum, step)
}

impl NullLayer {
    #[expect(clippy::unused_self, reason = "the same shape as the other layers")]
    pub(super) const fn prefix_len(&self) -> usize {
        HEADER_LEN
    }

    #[expect(clippy::unused_self, reason = "the same shape as the other layers")]
    pub(super) const fn suffix_len(&self) -> usize {
        SUFFIX_LEN
    }

    pub(super) fn budget(&self) -> Budget {
        Budget {
            sealed: self.sealed,
            opened: self.opened,
            limit_blocks: self.key_budget.unwrap_or(u64::MAX),
            limit_records: u64::MAX,
            key_updates: self.tx_epoch,
        }
    }

    pub(super) const fn has_pending_output(&self) -> bool {
        self.owes_key_update || self.owes_alert.is_some()
    }

    pub(super) fn seal(&mut self, record: &mut [u8], plaintext_len: usize) -> Result<usize, Error> {
        if self.failed || self.sent_close {
            return Err(Error::Closed);
        }
        if plaintext_len == 0 || plaintext_len > PLAINTEXT_LEN_MAX {
            return Err(Error::Room);
        }
        if !self
            .sealed
            .allows(plaintext_len, self.budget().limit_blocks)
        {
            return Err(Error::KeyBudgetSpent);
        }
        self.seal_as(ContentType::ApplicationData, record, plaintext_len)
    }

    fn seal_as(
        &mut self,
        content_type: ContentType,
        record: &mut [u8],
        plaintext_len: usize,
    ) -> Result<usize, Error> {
        let payload_len = plaintext_len.saturating_add(SUFFIX_LEN);
        let [high, low] = u16::try_from(payload_len)
            .map_err(|_| Error::Room)?
            .to_be_bytes();
        let len = HEADER_LEN.saturating_add(payload_len);
        let (header, rest) = record
            .get_mut(..len)
            .and_then(|record| record.split_first_chunk_mut::<HEADER_LEN>())
            .ok_or(Error::Room)?;
        *header = [23, 3, 3, high, low];
        let (body, sum_field) = rest.split_last_chunk_mut::<8>().ok_or(Error::Room)?;
        let number = self.sealed.records;
        let (inner, number_field) = body.split_last_chunk_mut::<8>().ok_or(Error::Room)?;
        *number_field = number.to_be_bytes();
        *inner.last_mut().ok_or(Error::Room)? = content_type.byte();
        *sum_field = sum(self.role, self.tx_epoch, number, header, body).to_be_bytes();
        self.sealed.count(plaintext_len);
        Ok(len)
    }

    fn push(&mut self, content_type: ContentType, plaintext: &[u8], out: &mut Vec<u8>) {
        let mut record = [&[0; HEADER_LEN][..], plaintext, &[0; SUFFIX_LEN]].concat();
        if let Ok(len) = self.seal_as(content_type, &mut record, plaintext.len()) {
            out.extend_from_slice(record.get(..len).unwrap_or_default());
        }
    }

    fn push_key_update(&mut self, ask_peer: bool, out: &mut Vec<u8>) {
        self.push(
            ContentType::Handshake,
            &[24, 0, 0, 1, u8::from(ask_peer)],
            out,
        );
        self.tx_epoch = self.tx_epoch.saturating_add(1);
        self.owes_key_update = false;
    }

    pub(super) fn open<'a>(&mut self, record: &'a mut [u8]) -> Result<Opened<'a>, Error> {
        if self.failed {
            return Err(Error::Closed);
        }
        if self.received_close {
            return Ok(Opened::Closed);
        }
        self.open_and_handle(record).inspect_err(|error| {
            self.failed = true;
            self.owes_alert = error.alert();
        })
    }

    fn open_and_handle<'a>(&mut self, record: &'a mut [u8]) -> Result<Opened<'a>, Error> {
        if record_len(record)? != Some(record.len()) {
            return Err(Error::Room);
        }
        let sender = match self.role {
            Role::Client => Role::Server,
            Role::Server => Role::Client,
        };
        let number = self.opened.records;
        let (header, rest) = record
            .split_first_chunk_mut::<HEADER_LEN>()
            .ok_or(Error::BadRecord)?;
        let (body, sum_field) = rest.split_last_chunk_mut::<8>().ok_or(Error::BadRecord)?;
        if header.first() != Some(&23)
            || *sum_field != sum(sender, self.rx_epoch, number, header, body).to_be_bytes()
        {
            return Err(Error::BadRecord);
        }
        let (inner, number_field) = body.split_last_chunk_mut::<8>().ok_or(Error::BadRecord)?;
        if *number_field != number.to_be_bytes() {
            return Err(Error::BadRecord);
        }
        let (&mut content_type, plaintext) = inner.split_last_mut().ok_or(Error::BadRecord)?;
        if plaintext.len() > PLAINTEXT_LEN_MAX {
            return Err(Error::RecordTooLong);
        }
        self.opened.count(plaintext.len());
        let content_type = ContentType::from_byte(content_type);
        if content_type == Some(ContentType::ApplicationData) && !plaintext.is_empty() {
            self.control_run = 0;
            return Ok(Opened::Data(plaintext));
        }
        self.control_run = self.control_run.saturating_add(1);
        if self.control_run > CONTROL_RECORDS_MAX {
            return Err(Error::Exhausted(Limit::ControlRecords));
        }
        match content_type {
            Some(ContentType::ApplicationData) => Ok(Opened::Handled),
            Some(ContentType::Alert) => match control::parse_alert(Version::Tls13, plaintext)? {
                Alert::CloseNotify => {
                    self.received_close = true;
                    Ok(Opened::Closed)
                }
                Alert::Warning => Ok(Opened::Handled),
                Alert::Fatal(alert) => Err(Error::AlertReceived(alert)),
            },
            Some(ContentType::Handshake) => {
                let &mut [24, 0, 0, 1, ask @ (0 | 1)] = plaintext else {
                    return Err(Error::PeerMisbehaved("null message of another type".into()));
                };
                self.rx_epoch = self.rx_epoch.saturating_add(1);
                self.owes_key_update |= ask == 1;
                Ok(Opened::Handled)
            }
            _ => Err(Error::PeerMisbehaved("null record of another type".into())),
        }
    }

    pub(super) fn pending_output(&mut self, out: &mut Vec<u8>) {
        if let Some(alert) = self.owes_alert.take()
            && !self.sent_close
        {
            self.push(ContentType::Alert, &[2, alert], out);
            self.sent_close = true;
        }
        if self.failed || self.sent_close {
            self.owes_key_update = false;
        } else if self.owes_key_update {
            self.push_key_update(false, out);
        }
    }

    pub(super) fn close_notify(&mut self, out: &mut Vec<u8>) {
        if !self.failed && !self.sent_close {
            self.pending_output(out);
            self.push(ContentType::Alert, &[1, 0], out);
            self.sent_close = true;
        }
    }

    pub(super) fn update_keys(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        if self.failed || self.sent_close {
            return Err(Error::Closed);
        }
        self.push_key_update(true, out);
        Ok(())
    }

    pub(super) fn export(&self) -> Option<ExportedKeys> {
        if self.failed || self.sent_close || self.received_close {
            return None;
        }
        let half = |used: Used, epoch: u64| ExportedHalf {
            key: Vec::new(),
            iv: Vec::new(),
            secret: None,
            seq: epoch,
            used,
        };
        Some(ExportedKeys {
            format: EXPORT_FORMAT,
            role: self.role,
            version: Version::Tls13,
            suite: Suite::Null,
            tx: half(self.sealed, self.tx_epoch),
            rx: half(self.opened, self.rx_epoch),
            key_budget: self.key_budget,
            key_updates: self.tx_epoch,
            control_run: self.control_run,
            message: (Vec::new(), 0),
            owes_key_update: self.owes_key_update,
            owes_refusal: false,
            asked_peer: false,
        })
    }

    pub(super) fn import(keys: &ExportedKeys) -> Result<Self, Error> {
        if keys.format != EXPORT_FORMAT {
            return Err(Error::Setup("exported keys of another format".into()));
        }
        Ok(Self {
            role: keys.role,
            sealed: keys.tx.used,
            opened: keys.rx.used,
            key_budget: keys.key_budget,
            tx_epoch: keys.tx.seq,
            rx_epoch: keys.rx.seq,
            control_run: keys.control_run,
            owes_key_update: keys.owes_key_update,
            owes_alert: None,
            sent_close: false,
            received_close: false,
            failed: false,
        })
    }
}
