//! What is about to be sent on one connection: frames packed into records, records into one send.
//!
//! ```text
//! ┌─ one send buffer ───────────────────────────────────────────────────────────┐
//! │ prefix │ SSTP packet │ SSTP packet │ … │ suffix ║ prefix │ SSTP packet │ …  │
//! └─ one record: at most 16,384 bytes inside ───────╨───────────────────────────┘
//! ```
//!
//! A control packet has a record to itself: sstpc (1.0.18) reads one packet whenever its socket is
//! readable, and what else the record held waits in its TLS library until the next record comes,
//! which in a negotiation is a timeout later.
//!
//! Packets are laid down behind the room that the record's header needs, and stay plaintext until
//! [`Transmit::flush`] finds the connection free: what is not sealed can still be dropped. At most
//! one buffer is under way in the kernel and [`QUEUE_LEN_MAX`] wait; when the last of them is full
//! the newcomer is refused, so a session that stops reading costs at most 256 KiB. An idle session
//! holds no buffer.
//!
//! It does not know what it sends, nor when to flush: the session does.

use std::collections::VecDeque;

use crate::io::SendBuffer;
use crate::tls;

/// Largest plaintext of one TLS record (RFC 8446 §5.1).
const RECORD_PLAINTEXT_LEN_MAX: usize = 16_384;

/// Full records in one send: four are 64 KB, which costs a fiftieth per byte of a send per packet;
/// more gains nothing.
const RECORDS_FULL: usize = 4;

/// Records in one send, at most; when there are as many, control packets share the last.
const RECORDS_MAX: usize = 12;

/// Bytes of a pooled send buffer: four full records with their headers and tags.
pub const BUFFER_LEN: usize = RECORDS_FULL * (RECORD_PLAINTEXT_LEN_MAX + 64);

/// Buffers that wait behind the one under way.
pub const QUEUE_LEN_MAX: usize = 3;

/// Bytes of a buffer that carries only control traffic; the largest SSTP packet fits.
pub const SMALL_BUFFER_LEN: usize = 8_192;

/// Control traffic that may wait for a buffer, in bytes. A peer that reads nothing and makes us
/// answer more than this is let go.
const BACKLOG_LEN_MAX: usize = 16_384;

/// The packet was not taken: the last buffer that may wait is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// A record being filled or waiting to be sealed.
#[derive(Clone, Copy, Debug, Default)]
struct Record {
    start: usize,
    plaintext_len: usize,
    /// Holds a control packet, and nothing else.
    is_control: bool,
}

/// A buffer with its records.
#[derive(Debug)]
struct Filling {
    buffer: SendBuffer,
    records: [Record; RECORDS_MAX],
    record_count: usize,
}

impl Filling {
    const fn new(buffer: SendBuffer) -> Self {
        Self {
            buffer,
            records: [Record {
                start: 0,
                plaintext_len: 0,
                is_control: false,
            }; RECORDS_MAX],
            record_count: 0,
        }
    }

    /// Finds a place for `len` bytes, in the last record or in a new one behind it.
    fn place(&mut self, len: usize, urgent: bool, tls: &tls::Connection) -> Option<usize> {
        let (prefix, suffix) = (tls.prefix_len(), tls.suffix_len());
        let is_last = self.record_count == RECORDS_MAX;
        let last = self.record_count.checked_sub(1);
        let last = last.and_then(|last| self.records.get_mut(last));
        let room = self.buffer.bytes.len();
        let start = match last {
            Some(record) => {
                let at = record.start + prefix + record.plaintext_len;
                let may_share = is_last || !(urgent || record.is_control);
                if may_share && record.plaintext_len + len <= RECORD_PLAINTEXT_LEN_MAX {
                    let fits = at + len + suffix <= room;
                    record.plaintext_len += if fits { len } else { 0 };
                    return fits.then_some(at);
                }
                at + suffix
            }
            None => 0,
        };
        let at = start + prefix;
        if at + len + suffix > room {
            return None;
        }
        *self.records.get_mut(self.record_count)? = Record {
            start,
            plaintext_len: len,
            is_control: urgent,
        };
        self.record_count += 1;
        Some(at)
    }

    /// Seals every record where it lies.
    fn seal(&mut self, tls: &mut tls::Connection) -> Result<(), tls::Error> {
        let (prefix, suffix) = (tls.prefix_len(), tls.suffix_len());
        let mut end = 0;
        for record in self.records.iter().take(self.record_count) {
            let whole = record.start..record.start + prefix + record.plaintext_len + suffix;
            if let Some(bytes) = self.buffer.bytes.get_mut(whole) {
                end = record.start + tls.seal(bytes, record.plaintext_len)?;
            }
        }
        self.buffer.start = 0;
        self.buffer.end = end;
        Ok(())
    }
}

/// The sending half of a connection, above the record layer.
#[derive(Debug, Default)]
pub struct Transmit {
    /// Oldest first; only the last one is filled.
    queue: VecDeque<Filling>,
    in_flight: bool,
    /// Control packets that found no room, in order.
    backlog: VecDeque<Vec<u8>>,
    backlog_len: usize,
}

/// Where buffers come from; a shard's pool.
pub trait BufferSource {
    /// A buffer of [`BUFFER_LEN`] bytes, or `None` when the pool is empty.
    fn large(&mut self) -> Option<SendBuffer>;
    /// A buffer of [`SMALL_BUFFER_LEN`] bytes; never fails, for control traffic must get out.
    fn small(&mut self) -> SendBuffer;
}

impl Transmit {
    /// Whether a buffer is with the kernel.
    #[must_use]
    pub const fn in_flight(&self) -> bool {
        self.in_flight
    }

    /// Whether something waits to be flushed.
    #[must_use]
    pub fn has_pending(&self) -> bool {
        !self.queue.is_empty() || !self.backlog.is_empty()
    }

    /// The kernel is done with the buffer of the last flush.
    pub const fn sent(&mut self) {
        self.in_flight = false;
    }

    /// The kernel has been given a buffer that did not come from here (a TLS flight).
    pub const fn started(&mut self) {
        self.in_flight = true;
    }

    /// Room for one SSTP packet of `len` bytes (at most 4,095), to be filled by the caller at once.
    ///
    /// `urgent` is for control traffic, which takes a small buffer that is always to be had, and a
    /// record of its own.
    pub fn reserve(
        &mut self,
        len: usize,
        urgent: bool,
        tls: &tls::Connection,
        source: &mut impl BufferSource,
    ) -> Result<&mut [u8], Full> {
        let mut at = self
            .queue
            .back_mut()
            .and_then(|last| last.place(len, urgent, tls));
        if at.is_none() && self.queue.len() < QUEUE_LEN_MAX {
            let buffer = if urgent {
                source.small()
            } else {
                source.large().ok_or(Full)?
            };
            let mut filling = Filling::new(buffer);
            at = filling.place(len, urgent, tls);
            self.queue.push_back(filling);
        }
        let at = at.ok_or(Full)?;
        let last = self.queue.back_mut().ok_or(Full)?;
        last.buffer.bytes.get_mut(at..at + len).ok_or(Full)
    }

    /// Takes one control packet, given in parts; it waits if it must, in order, within bounds.
    pub fn push_control(
        &mut self,
        parts: &[&[u8]],
        tls: &tls::Connection,
        source: &mut impl BufferSource,
    ) -> Result<(), Full> {
        let len = parts.iter().map(|part| part.len()).sum::<usize>();
        if self.backlog.is_empty()
            && let Ok(mut room) = self.reserve(len, true, tls, source)
        {
            for part in parts {
                let (head, tail) = room.split_at_mut_checked(part.len()).ok_or(Full)?;
                head.copy_from_slice(part);
                room = tail;
            }
            return Ok(());
        }
        if self.backlog_len + len > BACKLOG_LEN_MAX {
            return Err(Full);
        }
        self.backlog_len += len;
        self.backlog.push_back(parts.concat());
        Ok(())
    }

    /// Moves what it can of the backlog, packet by packet, to where it will be sealed.
    fn load_backlog(&mut self, tls: &tls::Connection, source: &mut impl BufferSource) {
        while let Some(packet) = self.backlog.pop_front() {
            match self.reserve(packet.len(), true, tls, source) {
                Ok(room) => {
                    room.copy_from_slice(&packet);
                    self.backlog_len -= packet.len();
                }
                Err(Full) => {
                    self.backlog.push_front(packet);
                    return;
                }
            }
        }
    }

    /// Seals what has waited longest and hands it out, if the connection is free.
    pub fn flush(
        &mut self,
        tls: &mut tls::Connection,
        source: &mut impl BufferSource,
    ) -> Result<Option<SendBuffer>, tls::Error> {
        if self.in_flight {
            return Ok(None);
        }
        if !self.backlog.is_empty() {
            self.load_backlog(tls, source);
        }
        let Some(mut filling) = self.queue.pop_front() else {
            return Ok(None);
        };
        if let Err(error) = filling.seal(tls) {
            self.queue.push_front(filling);
            return Err(error);
        }
        self.in_flight = true;
        Ok(Some(filling.buffer))
    }

    /// Gives up what waits, a buffer a call.
    pub fn discard(&mut self) -> Option<SendBuffer> {
        self.backlog = VecDeque::new();
        self.backlog_len = 0;
        self.queue.pop_front().map(|filling| filling.buffer)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    struct Heap;

    impl BufferSource for Heap {
        fn large(&mut self) -> Option<SendBuffer> {
            Some(buffer(BUFFER_LEN))
        }

        fn small(&mut self) -> SendBuffer {
            buffer(SMALL_BUFFER_LEN)
        }
    }

    fn buffer(len: usize) -> SendBuffer {
        SendBuffer {
            bytes: vec![0; len].into(),
            start: 0,
            end: 0,
        }
    }

    fn connection() -> tls::Connection {
        let hashes = tls::CertHashes::of(b"leaf");
        let mut server =
            tls::Handshake::server(&Arc::new(tls::ServerGeneration::null(hashes))).unwrap();
        let name = "vpn.example".try_into().unwrap();
        let mut client =
            tls::Handshake::client(&Arc::new(tls::ClientProfile::null()), name).unwrap();
        let (mut up, mut down) = (Vec::new(), Vec::new());
        client.handle_bytes(&[], &mut up).unwrap();
        server
            .handle_bytes(&std::mem::take(&mut up), &mut down)
            .unwrap();
        client.handle_bytes(&down, &mut up).unwrap();
        server.handle_bytes(&up, &mut Vec::new()).unwrap();
        server.finish().unwrap().connection
    }

    /// What the records of one flush hold, by their lengths.
    fn plaintexts(transmit: &mut Transmit, tls: &mut tls::Connection) -> Vec<usize> {
        let overhead = tls.prefix_len() + tls.suffix_len();
        let sent = transmit.flush(tls, &mut Heap).unwrap().unwrap();
        transmit.sent();
        let mut bytes = &sent.bytes[sent.start..sent.end];
        let mut lengths = Vec::new();
        while let Some(len) = tls::record_len(bytes).unwrap() {
            lengths.push(len - overhead);
            bytes = &bytes[len..];
        }
        assert!(bytes.is_empty());
        lengths
    }

    #[test]
    fn a_control_packet_has_a_record_to_itself_and_data_share_theirs() {
        let mut tls = connection();
        let mut transmit = Transmit::default();
        let data = |transmit: &mut Transmit, tls: &tls::Connection| {
            transmit.reserve(100, false, tls, &mut Heap).unwrap();
        };
        data(&mut transmit, &tls);
        data(&mut transmit, &tls);
        for len in [10, 20] {
            let packet = vec![0; len];
            transmit.push_control(&[&packet], &tls, &mut Heap).unwrap();
        }
        data(&mut transmit, &tls);
        data(&mut transmit, &tls);
        assert_eq!(plaintexts(&mut transmit, &mut tls), [200, 10, 20, 200]);

        // As many as there are records, and then they share one.
        for _ in 0..RECORDS_MAX + 3 {
            transmit.push_control(&[&[0; 7]], &tls, &mut Heap).unwrap();
        }
        let mut wanted = [7; RECORDS_MAX];
        wanted[RECORDS_MAX - 1] = 4 * 7;
        assert_eq!(plaintexts(&mut transmit, &mut tls), wanted);
    }
}
