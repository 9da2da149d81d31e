//! rustls' buffered connection behind our seam: the reference for our own layer, and the fallback.
//!
//! It copies and allocates, its keys cannot be handed over, and it ends a TLS 1.2 AES-GCM connection
//! after 2²⁴ records. In TLS 1.3 it changes its keys at that number; we ask for it at half, between
//! records, since a `KeyUpdate` does not fit into the room for one. What it opens is counted from the
//! connection's start: it does not tell when the peer changed keys.

use core::fmt;
use std::io::{Cursor, Read, Write};

use super::budget::{Budget, Limits, Used};
use super::handshake::{Info, internal};
use super::{Error, HEADER_LEN, Opened, PLAINTEXT_LEN_MAX, Suite, Version, record_len};

/// Records after which TLS 1.3 changes keys: half of rustls' own limit.
const REKEY_RECORDS: u64 = 1 << 23;

/// rustls' own limit for AES-GCM, which is not exposed per connection.
const RECORDS_MAX_GCM: u64 = 1 << 24;

/// rustls' connection and what is needed to use it record by record.
pub(super) struct Reference {
    rustls: Box<rustls::Connection>,
    version: Version,
    suite: Suite,
    limits: Limits,
    sealed: Used,
    opened: Used,
    key_updates: u64,
    owes_refresh: bool,
    /// Written by rustls, not yet taken.
    pending: Vec<u8>,
    sent_close: bool,
    received_close: bool,
    failed: bool,
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reference")
            .field("version", &self.version)
            .field("suite", &self.suite)
            .field("budget", &self.budget())
            .finish_non_exhaustive()
    }
}

impl Reference {
    pub(super) fn new(rustls: rustls::Connection, info: &Info, key_budget: Option<u64>) -> Self {
        Self {
            rustls: Box::new(rustls),
            version: info.version,
            suite: info.suite,
            limits: Limits::new(info.version, info.suite, key_budget),
            sealed: Used::default(),
            opened: Used::default(),
            key_updates: 0,
            owes_refresh: false,
            pending: Vec::new(),
            sent_close: false,
            received_close: false,
            failed: false,
        }
    }

    const fn has_explicit_nonce(&self) -> bool {
        matches!(self.version, Version::Tls12)
            && matches!(self.suite, Suite::Aes128Gcm | Suite::Aes256Gcm)
    }

    pub(super) const fn prefix_len(&self) -> usize {
        if self.has_explicit_nonce() {
            13
        } else {
            HEADER_LEN
        }
    }

    pub(super) const fn suffix_len(&self) -> usize {
        match self.version {
            Version::Tls12 => 16,
            Version::Tls13 => 17,
        }
    }

    pub(super) const fn budget(&self) -> Budget {
        Budget {
            sealed: self.sealed,
            opened: self.opened,
            limit_blocks: self.limits.blocks_max,
            limit_records: match self.suite {
                Suite::Aes128Gcm | Suite::Aes256Gcm => RECORDS_MAX_GCM,
                _ => u64::MAX,
            },
            key_updates: self.key_updates,
        }
    }

    pub(super) fn has_pending_output(&self) -> bool {
        self.owes_refresh || !self.pending.is_empty()
    }

    fn drain(&mut self) -> Result<(), Error> {
        while self.rustls.wants_write() {
            self.rustls
                .write_tls(&mut self.pending)
                .map_err(|error| internal(&error))?;
        }
        Ok(())
    }

    pub(super) fn seal(&mut self, record: &mut [u8], plaintext_len: usize) -> Result<usize, Error> {
        if self.failed || self.sent_close {
            return Err(Error::Closed);
        }
        if !self.pending.is_empty() {
            return Err(Error::OutputPending);
        }
        let prefix_len = self.prefix_len();
        let len = prefix_len
            .saturating_add(plaintext_len)
            .saturating_add(self.suffix_len());
        let plaintext = prefix_len..prefix_len.saturating_add(plaintext_len);
        if plaintext_len == 0 || plaintext_len > PLAINTEXT_LEN_MAX || record.len() < len {
            return Err(Error::Room);
        }
        if !self.sealed.allows(plaintext_len, self.limits.blocks_max) {
            return Err(Error::KeyBudgetSpent);
        }
        let plaintext = record.get(plaintext).ok_or(Error::Room)?;
        self.rustls
            .writer()
            .write_all(plaintext)
            .map_err(|error| internal(&error))?;
        let mut room = Cursor::new(record);
        while self.rustls.wants_write() {
            match self.rustls.write_tls(&mut room) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => return Err(self.fail(internal(&error))),
            }
        }
        let written = usize::try_from(room.position()).unwrap_or(0);
        if self.rustls.wants_write() || written != len {
            // TLS 1.2 at 2^24 records: rustls wrote its close_notify in place of the record.
            return Err(self.fail(Error::KeyBudgetSpent));
        }
        self.sealed.count(plaintext_len);
        let is_due =
            self.sealed.records >= REKEY_RECORDS || self.sealed.blocks >= self.limits.rekey_blocks;
        // Not at once: the rest of a burst may follow this record without asking for output.
        self.owes_refresh |= self.version == Version::Tls13 && is_due;
        Ok(len)
    }

    fn refresh(&mut self) -> Result<(), Error> {
        self.owes_refresh = false;
        self.rustls.refresh_traffic_keys()?;
        self.sealed = Used::default();
        self.key_updates = self.key_updates.saturating_add(1);
        self.drain()
    }

    fn fail(&mut self, error: Error) -> Error {
        self.failed = true;
        error
    }

    pub(super) fn open<'a>(&mut self, record: &'a mut [u8]) -> Result<Opened<'a>, Error> {
        if self.failed {
            return Err(Error::Closed);
        }
        if self.received_close {
            return Ok(Opened::Closed);
        }
        match self.open_record(record) {
            Ok(Some(len)) => Ok(Opened::Data(record.get_mut(..len).ok_or(Error::Room)?)),
            Ok(None) if self.received_close => Ok(Opened::Closed),
            Ok(None) => Ok(Opened::Handled),
            Err(error) => {
                // rustls has the alert ready, if one is owed.
                let _error_told_already = self.drain();
                Err(self.fail(error))
            }
        }
    }

    /// Opens into the front of `record`; gives the plaintext's length if there is data.
    fn open_record(&mut self, record: &mut [u8]) -> Result<Option<usize>, Error> {
        if record_len(record)? != Some(record.len()) {
            return Err(Error::Room);
        }
        let mut bytes = Cursor::new(&*record);
        let mut data = 0;
        while bytes.position() < record.len() as u64 {
            let read = self
                .rustls
                .read_tls(&mut bytes)
                .map_err(|error| internal(&error))?;
            if read == 0 {
                return Err(Error::Internal("rustls stopped reading".into()));
            }
            let state = self.rustls.process_new_packets()?;
            data = state.plaintext_bytes_to_read();
            self.received_close |= state.peer_has_closed();
        }
        self.opened.count(data);
        // rustls holds the answer to a KeyUpdate back until something is written; nothing will do.
        let written = self.rustls.writer().write(&[]);
        written.map_err(|error| internal(&error))?;
        self.drain()?;
        if data == 0 {
            return Ok(None);
        }
        let plaintext = record.get_mut(..data).ok_or(Error::Room)?;
        self.rustls
            .reader()
            .read_exact(plaintext)
            .map_err(|error| internal(&error))?;
        Ok(Some(data))
    }

    pub(super) fn pending_output(&mut self, out: &mut Vec<u8>) {
        if core::mem::take(&mut self.owes_refresh)
            && !self.failed
            && !self.sent_close
            && let Err(error) = self.refresh()
        {
            self.fail(error);
        }
        out.append(&mut self.pending);
    }

    pub(super) fn update_keys(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        if self.failed || self.sent_close {
            return Err(Error::Closed);
        }
        if self.version != Version::Tls13 {
            return Err(Error::KeyBudgetSpent);
        }
        self.refresh()?;
        self.pending_output(out);
        Ok(())
    }

    pub(super) fn close_notify(&mut self, out: &mut Vec<u8>) {
        if !self.failed && !self.sent_close {
            self.sent_close = true;
            self.rustls.send_close_notify();
            if let Err(error) = self.drain() {
                self.fail(error);
            }
        }
        self.pending_output(out);
    }
}
