//! One send buffer: packets laid into records behind each other, sealed where they lie.
//!
//! It knows room, not time: what goes in, and when it is sealed, is `transmit`'s.

use crate::io::SendBuffer;
use crate::sstp;
use crate::time::Instant;
use crate::tls;

/// Largest plaintext of one TLS record (RFC 8446 §5.1).
const RECORD_PLAINTEXT_LEN_MAX: usize = 16_384;

/// Records in one send, at most, but for that of the last packet: four full ones are 64 KB, which
/// costs a fiftieth per byte of a send per packet; more gains nothing.
pub(super) const RECORDS_MAX: usize = 4;

/// Bytes of a pooled send buffer: four full records with their headers and tags.
pub const BUFFER_LEN: usize = RECORDS_MAX * (RECORD_PLAINTEXT_LEN_MAX + 64);

/// A record being filled or waiting to be sealed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Record {
    pub(super) start: usize,
    pub(super) plaintext_len: usize,
}

/// A buffer with its records.
#[derive(Debug)]
pub(super) struct Filling {
    pub(super) buffer: SendBuffer,
    pub(super) records: [Record; RECORDS_MAX],
    pub(super) record_count: usize,
    /// Records after sealing.
    pub(super) sealed: usize,
    /// Of the packet placed last.
    pub(super) last_len: usize,
    /// When the first packet came.
    pub(super) since: Instant,
    /// Users' packets in it.
    pub(super) data_count: usize,
    /// Each packet has a record to itself. `records` then has only the last of them, and each
    /// keeps its length in the room of its own header until it is sealed.
    pub(super) apart: bool,
}

impl Filling {
    pub(super) const fn new(buffer: SendBuffer, since: Instant) -> Self {
        Self {
            buffer,
            since,
            data_count: 0,
            records: [Record {
                start: 0,
                plaintext_len: 0,
            }; RECORDS_MAX],
            record_count: 0,
            sealed: 0,
            last_len: 0,
            apart: false,
        }
    }

    /// Finds a place for `len` bytes, in the last record or in a new one behind it.
    pub(super) fn place(&mut self, len: usize, tls: &tls::Connection) -> Option<usize> {
        let (prefix, suffix) = (tls.prefix_len(), tls.suffix_len());
        if self.apart {
            return self.place_apart(len, prefix, suffix);
        }
        // Behind the packet: the end of its record, and what it takes to part it from the others.
        let behind = suffix + prefix + suffix;
        let last = self.record_count.checked_sub(1);
        let last = last.and_then(|last| self.records.get_mut(last));
        let room = self.buffer.bytes.len();
        let start = match last {
            Some(record) => {
                let at = record.start + prefix + record.plaintext_len;
                if record.plaintext_len + len <= RECORD_PLAINTEXT_LEN_MAX {
                    if at + len + behind > room {
                        return None;
                    }
                    record.plaintext_len += len;
                    self.last_len = len;
                    return Some(at);
                }
                at + suffix
            }
            None => 0,
        };
        let at = start + prefix;
        if at + len + behind > room {
            return None;
        }
        *self.records.get_mut(self.record_count)? = Record {
            start,
            plaintext_len: len,
        };
        self.record_count += 1;
        self.last_len = len;
        Some(at)
    }

    /// One past the last byte of plaintext.
    pub(super) fn end(&self, tls: &tls::Connection) -> usize {
        let last = self.record_count.checked_sub(1);
        let last = last.and_then(|last| self.records.get(last));
        last.map_or(0, |last| last.start + tls.prefix_len() + last.plaintext_len)
    }

    /// Whether [`Filling::place`] finds room for the largest packet there is.
    pub(super) fn takes_any(&self, tls: &tls::Connection) -> bool {
        let (prefix, suffix) = (tls.prefix_len(), tls.suffix_len());
        let len = sstp::packet::PACKET_LEN_MAX;
        let last = self.record_count.checked_sub(1);
        let shares = last
            .and_then(|last| self.records.get(last))
            .is_some_and(|last| last.plaintext_len + len <= RECORD_PLAINTEXT_LEN_MAX);
        let needed = suffix + prefix + len + suffix + prefix + suffix;
        (shares || self.record_count < RECORDS_MAX)
            && self.end(tls) + needed <= self.buffer.bytes.len()
    }

    /// Finds a place in a record of its own behind the others.
    fn place_apart(&mut self, len: usize, prefix: usize, suffix: usize) -> Option<usize> {
        let last = self.records.first_mut()?;
        let start = match self.record_count {
            0 => 0,
            _ => last.start + prefix + last.plaintext_len + suffix,
        };
        if start + prefix + len + suffix > self.buffer.bytes.len() {
            return None;
        }
        let (_, behind) = self.buffer.bytes.split_at_mut_checked(start)?;
        *behind.first_chunk_mut()? = u16::try_from(len).ok()?.to_be_bytes();
        *last = Record {
            start,
            plaintext_len: len,
        };
        self.record_count = 1;
        Some(start + prefix)
    }

    /// Seals the records of packets that were placed apart.
    fn seal_apart(&mut self, tls: &mut tls::Connection) -> Result<(), tls::Error> {
        let overhead = tls.prefix_len() + tls.suffix_len();
        let last = self.records.first().copied().unwrap_or_default();
        let (mut at, mut end) = (0, 0);
        while at <= last.start && self.record_count > 0 {
            let (_, behind) = self.buffer.bytes.split_at_mut(at);
            let Some(len) = behind.first_chunk().map(|len| u16::from_be_bytes(*len)) else {
                break;
            };
            let whole = usize::from(len) + overhead;
            if let Some(bytes) = behind.get_mut(..whole) {
                end = at + tls.seal(bytes, usize::from(len))?;
                self.sealed += 1;
            }
            at += whole;
        }
        self.buffer.start = 0;
        self.buffer.end = end;
        Ok(())
    }

    /// Moves the last packet out of a record it shares, into one behind it.
    fn part_last(&mut self, prefix: usize, suffix: usize) -> Option<Record> {
        let shared = self.records.get_mut(self.record_count.checked_sub(1)?)?;
        if shared.plaintext_len <= self.last_len {
            return None;
        }
        let end = shared.start + prefix + shared.plaintext_len;
        shared.plaintext_len -= self.last_len;
        let alone = Record {
            start: shared.start + prefix + shared.plaintext_len + suffix,
            plaintext_len: self.last_len,
        };
        // `place` left room behind it.
        let packet = end - self.last_len..end;
        self.buffer.bytes.copy_within(packet, alone.start + prefix);
        Some(alone)
    }

    /// Seals every record where it lies.
    pub(super) fn seal(&mut self, tls: &mut tls::Connection) -> Result<(), tls::Error> {
        if self.apart {
            return self.seal_apart(tls);
        }
        let (prefix, suffix) = (tls.prefix_len(), tls.suffix_len());
        let alone = self.part_last(prefix, suffix);
        let shared = self.records.iter().take(self.record_count);
        let mut end = 0;
        for record in shared.chain(&alone) {
            let whole = record.start..record.start + prefix + record.plaintext_len + suffix;
            if let Some(bytes) = self.buffer.bytes.get_mut(whole) {
                end = record.start + tls.seal(bytes, record.plaintext_len)?;
                self.sealed += 1;
            }
        }
        self.buffer.start = 0;
        self.buffer.end = end;
        Ok(())
    }
}
