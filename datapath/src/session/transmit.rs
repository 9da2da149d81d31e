//! What is about to be sent on one connection: frames packed into records, records into one send.
//!
//! ```text
//! ┌─ one send buffer ───────────────────────────────────────────────────────────┐
//! │ prefix │ SSTP packet │ SSTP packet │ … │ suffix ║ prefix │ SSTP packet │ …  │
//! └─ one record: at most 16,384 bytes inside ───────╨───────────────────────────┘
//! ```
//!
//! The last packet of a send has a record to itself: sstpc (1.0.18) reads one packet whenever its
//! socket is readable, and what OpenSSL holds back of the last record is not readable. With one
//! packet in that, the socket stays readable until all before it is read.
//!
//! Packets are laid down behind the room that the record's header needs, and stay plaintext until
//! [`Transmit::flush`] finds the connection free: what is not sealed can still be dropped. That is
//! the way of a connection that keeps up: one copy, nothing kept of a packet.
//!
//! When packets have waited for [`SORT_AFTER`], or the connection is known to be slow ([`Pace`]), what
//! waits is *sorted*: a [`FlowQueue`] takes the buffers over where they lie, and from then on each
//! send is put together from it, a quantum at a time: control packets first, then flow by flow, each
//! under CoDel. That costs a second copy, on connections that wait for the path anyway. It ends
//! when nothing waits; and when a fast connection has caught up, newcomers are laid down as before
//! while the queue runs empty.
//!
//! At most one buffer is under way in the kernel; with those that wait, [`LARGE_MAX`] are of the
//! pool. When they are full a packet is refused, so a session that stops reading costs three
//! buffers and the queue (210 KiB) and 16 KiB of control packets. An idle session holds no buffer.
//!
//! It does not know when to flush: the session does.

use std::collections::VecDeque;

use super::codel::Parameters;
pub use super::filling::BUFFER_LEN;
use super::filling::Filling;
use super::pace::Pace;
use super::queue::{FlowQueue, Shed};
use crate::io::SendBuffer;
use crate::ip::flow;
use crate::time::{Duration, Instant};
use crate::tls;

/// Buffers that wait laid out.
pub const QUEUE_LEN_MAX: usize = 3;

/// Buffers of the pool that one session holds, with the one under way.
pub const LARGE_MAX: usize = 3;

/// What has waited so long is sorted; shorter waiting is below CoDel's target, and a flow that
/// overtakes gains next to nothing.
const SORT_AFTER: Duration = Duration::from_millis(5);

/// Where packets waited less, a fast connection has caught up.
const CAUGHT_UP: Duration = Duration::from_millis(1);

/// Bytes of a buffer that carries only control traffic; the largest SSTP packet fits.
pub const SMALL_BUFFER_LEN: usize = 8_192;

/// What one full packet takes of a send, with what is around it. A send that has less left of its quantum
/// ends there: a packet more would make the smallest one half as large again.
const PACKET_ROOM: usize = 1_500;

/// Control traffic that may wait for a buffer, in bytes. A peer that reads nothing and makes us
/// answer more than this is let go.
const BACKLOG_LEN_MAX: usize = 16_384;

/// The packet was not taken: the last buffer that may wait is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// What a packet is to those that wait with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Of call or link: goes first, and in a small buffer that is always to be had.
    Control,
    /// A user's, of the flow with this hash.
    Flow(u32),
}

/// The sending half of a connection, above the record layer.
#[derive(Debug, Default)]
pub struct Transmit {
    /// Oldest first; only the last one is filled.
    queue: VecDeque<Filling>,
    /// What waits longer; it goes before `queue`.
    sorted: Option<Box<FlowQueue>>,
    /// Newcomers go to `queue` again, though `sorted` is not empty yet.
    caught_up: bool,
    in_flight: bool,
    /// Records of the last flush.
    last_records: usize,
    /// What is under way is a buffer of the pool.
    large_in_flight: bool,
    pace: Pace,
    shed: Shed,
    /// Time of this turn.
    now: Instant,
    /// Control packets that found no room, in order.
    backlog: VecDeque<Vec<u8>>,
    backlog_len: usize,
    record_per_packet: bool,
}

/// Where buffers come from; a shard's pool.
pub trait BufferSource {
    /// A buffer of [`BUFFER_LEN`] bytes, or `None` when the pool is empty.
    fn large(&mut self) -> Option<SendBuffer>;
    /// A buffer of [`SMALL_BUFFER_LEN`] bytes; never fails, for control traffic must get out.
    fn small(&mut self) -> SendBuffer;
    /// As [`BufferSource::large`], for a session that holds `held` already: the more it holds, the
    /// earlier it is refused, so that those that stand still leave enough to those that move.
    fn large_beside(&mut self, held: usize) -> Option<SendBuffer> {
        let _ = held;
        self.large()
    }
    /// Takes back a buffer of either kind.
    fn give_back(&mut self, buffer: SendBuffer) {
        drop(buffer);
    }
    /// An empty queue.
    fn queue(&mut self) -> Box<FlowQueue> {
        Box::default()
    }
    /// Takes an empty queue back.
    fn give_queue(&mut self, queue: Box<FlowQueue>) {
        drop(queue);
    }
}

impl Transmit {
    /// It is `now`, until it is told otherwise.
    pub const fn set_now(&mut self, now: Instant) {
        self.now = now;
    }

    /// Whether each packet gets a record of its own from here on.
    pub const fn set_record_per_packet(&mut self, record_per_packet: bool) {
        self.record_per_packet = record_per_packet;
    }

    /// Whether a buffer is with the kernel.
    #[must_use]
    pub const fn in_flight(&self) -> bool {
        self.in_flight
    }

    /// Whether something waits to be flushed.
    #[must_use]
    pub fn has_pending(&self) -> bool {
        !self.queue.is_empty() || !self.backlog.is_empty() || self.sorted.is_some()
    }

    /// Whether nothing counts on the room around a record, which is none where the kernel seals:
    /// nothing waits, and no packet keeps its length there.
    #[must_use]
    pub fn needs_no_room(&self) -> bool {
        !self.has_pending() && !self.record_per_packet
    }

    /// Users' packets that wait.
    #[must_use]
    pub fn waiting_count(&self) -> usize {
        let laid_out = self.queue.iter().map(|filling| filling.data_count);
        let sorted = self.sorted.as_ref().map_or(0, |sorted| sorted.count());
        laid_out.sum::<usize>() + sorted
    }

    /// Records in the buffer handed out last, if it came from here.
    #[must_use]
    pub const fn last_records(&self) -> usize {
        self.last_records
    }

    /// Whether a buffer that can take no more could be flushed.
    #[must_use]
    pub fn has_full(&self) -> bool {
        !self.in_flight && self.queue.len() > 1
    }

    /// The kernel is done with the buffer of the last flush.
    pub fn sent(&mut self) {
        self.in_flight = false;
        self.large_in_flight = false;
        self.pace.sent(self.now, self.has_pending());
    }

    /// The kernel has been given a buffer that did not come from here (a TLS flight).
    pub const fn started(&mut self) {
        self.in_flight = true;
        self.last_records = 0;
        self.pace.started(self.now, 0);
    }

    /// The number of unsent bytes that the kernel shall hold at most, if that has changed.
    pub fn take_unsent_limit(&mut self) -> Option<usize> {
        self.pace.take_unsent_limit()
    }

    /// Whether the connection is known to be slow.
    pub(super) const fn is_slow(&self) -> bool {
        !self.pace.is_full()
    }

    /// How long it takes for two full packets.
    pub(super) fn two_packets(&self) -> Duration {
        self.pace.two_packets()
    }

    /// What was dropped or marked since the last call.
    pub fn take_shed(&mut self) -> Shed {
        std::mem::take(&mut self.shed)
    }

    /// The class of an IP packet that is about to be laid down: which flow, if that matters now.
    pub fn class_of(
        &mut self,
        packet: &[u8],
        tls: &tls::Connection,
        source: &mut impl BufferSource,
    ) -> Class {
        let backed_up = self.in_flight
            && self.queue.front().is_some_and(|front| {
                !self.pace.is_full() || self.now.saturating_since(front.since) >= SORT_AFTER
            });
        if backed_up {
            self.sort(tls, source);
        }
        match self.sorted {
            Some(_) if !self.caught_up => Class::Flow(flow::hash(packet)),
            _ => Class::Flow(0),
        }
    }

    /// Sorts what waits, unless there is a queue already.
    fn sort(&mut self, tls: &tls::Connection, source: &mut impl BufferSource) {
        // It takes records apart as it finds them; those of packets apart have another form.
        if self.sorted.is_some() || self.record_per_packet {
            return;
        }
        let prefix = tls.prefix_len();
        let mut sorted = source.queue();
        for filling in self.queue.drain(..) {
            let records = filling.records.into_iter().take(filling.record_count);
            let runs = records.map(|record| {
                let start = record.start + prefix;
                (start, start + record.plaintext_len)
            });
            if let Err(buffer) = sorted.adopt(filling.buffer, filling.since, runs) {
                // It has room for as many as can wait.
                source.give_back(buffer);
            }
        }
        self.sorted = Some(sorted);
        self.caught_up = false;
    }

    /// Whether a quantum is too much for a small buffer.
    const fn sends_large(&self) -> bool {
        self.pace.quantum() > SMALL_BUFFER_LEN / 2
    }

    /// Buffers of the pool that this session holds.
    fn large_held(&self) -> usize {
        let sorted = self
            .sorted
            .as_ref()
            .map_or(0, |sorted| sorted.large_count());
        usize::from(self.large_in_flight) + self.queue.len() + sorted
    }

    /// Room for one SSTP packet of `len` bytes (at most 4,095), to be filled by the caller at once.
    pub fn reserve(
        &mut self,
        len: usize,
        class: Class,
        tls: &tls::Connection,
        source: &mut impl BufferSource,
    ) -> Result<&mut [u8], Full> {
        if self.sorted.is_some() && !self.caught_up {
            // One is for the send that is under way, or for the next.
            let large_max = LARGE_MAX - usize::from(self.large_in_flight || self.sends_large());
            let sorted = self.sorted.as_mut().ok_or(Full)?;
            let room = sorted.reserve(class, len, self.now, large_max, source);
            return room.ok_or(Full);
        }
        let mut at = self.queue.back_mut().and_then(|last| last.place(len, tls));
        if at.is_none() {
            let mut filling = Filling::new(self.next_buffer(class, source)?, self.now);
            filling.apart = self.record_per_packet;
            at = filling.place(len, tls);
            self.queue.push_back(filling);
        }
        let at = at.ok_or(Full)?;
        let last = self.queue.back_mut().ok_or(Full)?;
        last.data_count += usize::from(class != Class::Control);
        last.buffer.bytes.get_mut(at..at + len).ok_or(Full)
    }

    /// A buffer to be laid out, if another one may wait.
    fn next_buffer(
        &self,
        class: Class,
        source: &mut impl BufferSource,
    ) -> Result<SendBuffer, Full> {
        let held = self.large_held();
        if self.queue.len() >= QUEUE_LEN_MAX {
            return Err(Full);
        }
        if class == Class::Control {
            return Ok(source.small());
        }
        if held >= LARGE_MAX {
            return Err(Full);
        }
        match source.large_beside(held) {
            Some(buffer) => Ok(buffer),
            // Those that stand still may hold the whole pool; whoever moves gets this much.
            None if self.queue.is_empty() => Ok(source.small()),
            None => Err(Full),
        }
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
            && let Ok(mut room) = self.reserve(len, Class::Control, tls, source)
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
            match self.reserve(packet.len(), Class::Control, tls, source) {
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

    /// Seals what goes out next and hands it out, if the connection is free.
    pub fn flush(
        &mut self,
        tls: &mut tls::Connection,
        parameters: &Parameters,
        source: &mut impl BufferSource,
    ) -> Result<Option<SendBuffer>, tls::Error> {
        if self.in_flight {
            return Ok(None);
        }
        if self.queue.front().is_some_and(|front| {
            !self.pace.is_full() && (self.queue.len() > 1 || front.end(tls) > self.pace.quantum())
        }) {
            self.sort(tls, source);
        }
        if !self.backlog.is_empty() {
            self.load_backlog(tls, source);
        }
        let mut next = self.put_together(tls, parameters, source);
        if next.is_none() {
            next = self.queue.pop_front();
        }
        let Some(mut filling) = next else {
            return Ok(None);
        };
        if let Err(error) = filling.seal(tls) {
            self.queue.push_front(filling);
            return Err(error);
        }
        let buffer = filling.buffer;
        self.in_flight = true;
        self.last_records = filling.sealed;
        self.large_in_flight = buffer.bytes.len() == BUFFER_LEN;
        self.pace.started(self.now, buffer.end - buffer.start);
        Ok(Some(buffer))
    }

    /// Lays out a quantum of what is sorted.
    fn put_together(
        &mut self,
        tls: &tls::Connection,
        parameters: &Parameters,
        source: &mut impl BufferSource,
    ) -> Option<Filling> {
        let held = self.large_held();
        let large = self.sends_large() && held < LARGE_MAX;
        let sorted = self.sorted.as_mut()?;
        let quantum = self.pace.quantum();
        let large = large.then(|| source.large_beside(held)).flatten();
        let buffer = large.unwrap_or_else(|| source.small());
        let mut filling = Filling::new(buffer, self.now);
        let parameters = Parameters {
            target: parameters.target.max(self.pace.two_packets()),
            ..*parameters
        };
        while filling.end(tls) + PACKET_ROOM <= quantum && filling.takes_any(tls) {
            let Some(packet) = sorted.pop(self.now, &parameters) else {
                break;
            };
            let len = packet.len();
            if let Some(at) = filling.place(len, tls)
                && let Some(room) = filling.buffer.bytes.get_mut(at..at + len)
            {
                room.copy_from_slice(packet);
            }
        }
        self.shed.add(sorted.take_shed());
        sorted.return_spent(source);
        self.caught_up |=
            self.pace.is_full() && self.now.saturating_since(sorted.last_since()) < CAUGHT_UP;
        if sorted.is_empty()
            && let Some(sorted) = self.sorted.take()
        {
            source.give_queue(sorted);
            self.caught_up = false;
        }
        if filling.record_count == 0 {
            source.give_back(filling.buffer);
            return None;
        }
        Some(filling)
    }

    /// Gives up what waits, a buffer a call.
    pub fn discard(&mut self) -> Option<SendBuffer> {
        self.backlog = VecDeque::new();
        self.backlog_len = 0;
        if let Some(filling) = self.queue.pop_front() {
            return Some(filling.buffer);
        }
        let buffer = self.sorted.as_mut().and_then(|sorted| sorted.take_buffer());
        if buffer.is_none() {
            self.sorted = None;
        }
        buffer
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
        let sent = transmit
            .flush(tls, &Parameters::default(), &mut Heap)
            .unwrap()
            .unwrap();
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
    fn the_last_packet_of_a_send_has_a_record_to_itself() {
        let mut tls = connection();
        let mut transmit = Transmit::default();
        for len in [100, 10, 300] {
            let packet = vec![0; len];
            transmit.push_control(&[&packet], &tls, &mut Heap).unwrap();
        }
        assert_eq!(plaintexts(&mut transmit, &mut tls), [110, 300]);
        transmit.push_control(&[&[7; 7]], &tls, &mut Heap).unwrap();
        assert_eq!(plaintexts(&mut transmit, &mut tls), [7]);
    }

    #[test]
    fn a_session_that_stops_reading_costs_a_quarter_of_a_megabyte() {
        // A small one may be under way, another may be laid out.
        let buffers = LARGE_MAX * BUFFER_LEN + 2 * SMALL_BUFFER_LEN;
        let all = buffers + size_of::<FlowQueue>();
        assert!(all <= 256 * 1_024, "{all}");
    }

    #[test]
    fn packets_apart_stay_apart_on_a_slow_connection() {
        let mut tls = connection();
        let mut transmit = Transmit::default();
        transmit.set_record_per_packet(true);
        let (mut now, mut sent, mut received) = (Instant::from_nanos(1), 0, 0);
        // Ten packets a turn, and each send takes 20 ms: half a megabyte a second.
        for _ in 0..100 {
            for _ in 0..10 {
                transmit.class_of(&[0x45; 1000], &tls, &mut Heap);
                let room = transmit.reserve(1000, Class::Flow(0), &tls, &mut Heap);
                sent += room.map_or(0, |room| room.len() / 1000);
            }
            now = now + Duration::from_millis(20);
            transmit.set_now(now);
            transmit.sent();
            let whole = 1000 + tls.prefix_len() + tls.suffix_len();
            let buffer = transmit.flush(&mut tls, &Parameters::default(), &mut Heap);
            let buffer = buffer.unwrap().unwrap();
            received += (buffer.end - buffer.start) / whole;
        }
        transmit.sent();
        while transmit.has_pending() {
            received += plaintexts(&mut transmit, &mut tls).len();
        }
        assert!(!transmit.pace.is_full(), "it was found to be slow");
        assert_eq!(received, sent);
    }

    #[test]
    fn room_is_counted_on_by_what_is_laid_out_sorted_or_owed() {
        let mut tls = connection();
        let mut transmit = Transmit::default();
        assert!(transmit.needs_no_room());
        transmit.push_control(&[&[7; 7]], &tls, &mut Heap).unwrap();
        assert!(!transmit.needs_no_room(), "laid out");
        plaintexts(&mut transmit, &mut tls);
        assert!(transmit.needs_no_room());
        let room = transmit.reserve(100, Class::Flow(0), &tls, &mut Heap);
        room.unwrap()[..4].copy_from_slice(&[0x10, 0, 0, 100]);
        transmit.sort(&tls, &mut Heap);
        assert!(transmit.queue.is_empty() && !transmit.needs_no_room());
        while transmit.has_pending() {
            plaintexts(&mut transmit, &mut tls);
        }
        transmit.backlog.push_back(vec![9; 9]);
        assert!(!transmit.needs_no_room(), "owed");
        transmit.backlog.clear();
        assert!(transmit.needs_no_room());
        transmit.set_record_per_packet(true);
        assert!(!transmit.needs_no_room(), "keeps lengths there");
    }

    #[test]
    fn packets_apart_have_a_record_each() {
        let mut tls = connection();
        let mut transmit = Transmit::default();
        transmit.set_record_per_packet(true);
        let lengths: Vec<usize> = (0..200).map(|number| 4 + number).collect();
        for &len in &lengths {
            let packet = vec![9; len];
            let room = transmit
                .reserve(len, Class::Flow(0), &tls, &mut Heap)
                .unwrap();
            room.copy_from_slice(&packet);
        }
        assert_eq!(plaintexts(&mut transmit, &mut tls), lengths);
        assert!(!transmit.has_pending());
    }

    #[test]
    fn what_waits_is_bounded_and_comes_out_a_buffer_a_flush() {
        let mut tls = connection();
        let mut transmit = Transmit::default();
        let reserve = |transmit: &mut Transmit| {
            let room = transmit.reserve(4_000, Class::Flow(0), &tls, &mut Heap);
            room.map(|room| room.fill(1))
        };
        let mut taken = 0;
        while reserve(&mut transmit).is_ok() {
            taken += 1;
        }
        assert_eq!(taken, 16 * QUEUE_LEN_MAX);
        for _ in 0..QUEUE_LEN_MAX {
            let lengths = plaintexts(&mut transmit, &mut tls);
            assert_eq!(lengths, [16_000, 16_000, 16_000, 12_000, 4_000]);
        }
        assert!(!transmit.has_pending());
    }

    #[test]
    fn control_packets_that_find_no_room_wait_whole_and_in_order() {
        let mut tls = connection();
        let mut transmit = Transmit::default();
        while transmit
            .reserve(4_000, Class::Flow(0), &tls, &mut Heap)
            .is_ok()
        {}
        let mut accepted = 0;
        while transmit.push_control(&[&[9; 500]], &tls, &mut Heap).is_ok() {
            accepted += 1;
        }
        assert_eq!(accepted, BACKLOG_LEN_MAX / 500, "bounded");
        let mut control_len = 0;
        while transmit.has_pending() {
            let lengths = plaintexts(&mut transmit, &mut tls);
            control_len += lengths
                .iter()
                .filter(|&&len| len % 4_000 != 0)
                .sum::<usize>();
        }
        assert!(
            control_len >= accepted * 500,
            "nothing is lost: {control_len}"
        );
    }
}
