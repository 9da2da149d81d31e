//! What waits for a connection that is the limit: packets by flow, each flow under CoDel.
//!
//! ```text
//!             ┌ control ─────────────────────────────┐ first, never dropped
//!  packets ──▶│ new flows ─▶ old flows, round robin  │──▶ one send's worth
//!             └ each flow: a list of packets + CoDel ┘
//!  slots  │ a │ b │ a │ c │ …   where a packet lies, how long, since when, what follows it
//!  buffers│ up to three of the pool, filled from the front; empty ones go back │
//! ```
//!
//! This is FQ-CoDel (RFC 8290) for one session: flows take turns by bytes, a flow that was silent
//! goes before those that stand in line, and what waits too long is marked or dropped at the head. When all
//! room is taken the longest flow pays: a newcomer of its own is refused, anyone else's takes the
//! place of its oldest packet.
//!
//! A queue exists only while its session is backed up ([`transmit`](super::transmit) says when);
//! a session that keeps up never touches one. Within a flow order never changes. It knows where in an
//! SSTP data packet the IP packet begins, and nothing else of what it stores.
//!
//! Limits: [`PACKETS_MAX`] packets, the bytes of the buffers it is allowed.

use super::codel::{Codel, Parameters, Verdict};
use super::downlink::DATA_HEADER_LEN;
use super::transmit::{BUFFER_LEN, BufferSource, Class};
use crate::io::SendBuffer;
use crate::ip::{ecn, flow};
use crate::ppp::frame;
use crate::sstp::packet::{Kind, locate};
use crate::time::Instant;

/// Packets that wait at most: three buffers full of packets of 380 bytes.
pub const PACKETS_MAX: usize = 512;

/// Flows that are told apart; more share. A session is one client.
const FLOWS: usize = 64;

/// The place of control packets behind the flows.
const CONTROL: usize = FLOWS;

/// Bytes that a flow may send in its turn: one full packet (RFC 8290 §5.2).
const TURN_LEN: i32 = 1_514;

/// Buffers in use at once, with those that hold control packets only.
const BUFFERS_MAX: usize = 4;

/// Packets of the longest flow that one newcomer may push out.
const EVICTIONS_MAX: usize = 8;

const NO_SLOT: u16 = u16::MAX;
const NO_FLOW: u8 = u8::MAX;

/// What was dropped or marked, since it was last asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shed {
    /// Packets dropped because they had waited too long.
    pub late: u64,
    /// Packets dropped because another flow needed their place.
    pub evicted: u64,
    /// IP bytes of both.
    pub bytes: u64,
    /// Packets that bear the mark of congestion instead of being dropped.
    pub marked: u64,
}

impl Shed {
    /// Adds what was shed since.
    pub(super) const fn add(&mut self, other: Self) {
        self.late += other.late;
        self.evicted += other.evicted;
        self.bytes += other.bytes;
        self.marked += other.marked;
    }
}

/// Where a packet lies.
#[derive(Clone, Copy, Debug)]
struct Slot {
    since: Instant,
    start: u32,
    len: u16,
    /// Bytes of its place; a later user of the place may be shorter.
    room: u16,
    next: u16,
    buffer: u8,
}

#[derive(Clone, Copy, Debug)]
struct Flow {
    head: u16,
    tail: u16,
    bytes: u32,
    deficit: i32,
    next: u8,
    is_listed: bool,
    codel: Codel,
}

/// Flows one behind the other.
#[derive(Clone, Copy, Debug)]
struct Line {
    head: u8,
    tail: u8,
}

impl Line {
    const EMPTY: Self = Self {
        head: NO_FLOW,
        tail: NO_FLOW,
    };
}

#[derive(Debug)]
struct Stored {
    memory: SendBuffer,
    /// Packets in it that still wait.
    live: usize,
    /// One past the last byte that was used.
    end: usize,
}

/// The packets that wait for one session.
#[derive(Debug)]
pub struct FlowQueue {
    slots: [Slot; PACKETS_MAX],
    free: u16,
    flows: [Flow; FLOWS + 1],
    new: Line,
    old: Line,
    buffers: [Option<Stored>; BUFFERS_MAX],
    /// The buffer that is being filled.
    filling: usize,
    /// Data packets.
    count: usize,
    shed: Shed,
    /// Since when the packet taken last had waited.
    last_since: Instant,
}

impl Default for FlowQueue {
    fn default() -> Self {
        let slot = Slot {
            since: Instant::ZERO,
            start: 0,
            len: 0,
            room: 0,
            next: NO_SLOT,
            buffer: 0,
        };
        let flow = Flow {
            head: NO_SLOT,
            tail: NO_SLOT,
            bytes: 0,
            deficit: 0,
            next: NO_FLOW,
            is_listed: false,
            codel: Codel::default(),
        };
        let mut queue = Self {
            slots: [slot; PACKETS_MAX],
            free: NO_SLOT,
            flows: [flow; FLOWS + 1],
            new: Line::EMPTY,
            old: Line::EMPTY,
            buffers: [const { None }; BUFFERS_MAX],
            filling: 0,
            count: 0,
            shed: Shed::default(),
            last_since: Instant::ZERO,
        };
        queue.clear();
        queue
    }
}

impl FlowQueue {
    /// Makes it as new, for another session. Its buffers must have been taken.
    pub fn clear(&mut self) {
        let mut next = NO_SLOT;
        for (index, slot) in (0..).zip(&mut self.slots) {
            slot.next = next;
            next = index;
        }
        self.free = next;
        for flow in &mut self.flows {
            flow.codel = Codel::default();
            (flow.head, flow.tail, flow.bytes) = (NO_SLOT, NO_SLOT, 0);
            (flow.deficit, flow.is_listed) = (0, false);
        }
        (self.new, self.old) = (Line::EMPTY, Line::EMPTY);
        (self.filling, self.count) = (0, 0);
        self.shed = Shed::default();
    }

    /// Whether nothing waits.
    pub(super) const fn is_empty(&self) -> bool {
        self.count == 0 && self.flows[CONTROL].head == NO_SLOT
    }

    /// Data packets that wait.
    pub(super) const fn count(&self) -> usize {
        self.count
    }

    /// Buffers of the pool it holds.
    pub(super) fn large_count(&self) -> usize {
        let stored = self.buffers.iter().flatten();
        stored
            .filter(|stored| stored.memory.bytes.len() == BUFFER_LEN)
            .count()
    }

    /// Since when the packet that was taken last had waited.
    pub(super) const fn last_since(&self) -> Instant {
        self.last_since
    }

    /// What was dropped or marked since the last call.
    pub(super) fn take_shed(&mut self) -> Shed {
        std::mem::take(&mut self.shed)
    }

    /// Takes over a buffer with `runs` of SSTP packets in it, all of which came at `since`.
    pub(super) fn adopt(
        &mut self,
        memory: SendBuffer,
        since: Instant,
        runs: impl Iterator<Item = (usize, usize)>,
    ) -> Result<(), SendBuffer> {
        let Some(index) = self.buffers.iter().position(Option::is_none) else {
            return Err(memory);
        };
        let mut stored = Stored {
            memory,
            live: 0,
            end: 0,
        };
        for (start, end) in runs {
            stored.end = end;
            let mut at = start;
            while at < end
                && let Some(bytes) = stored.memory.bytes.get(at..end)
                && let Ok(Some(span)) = locate(bytes)
            {
                let flow = flow_of_stored(span.kind, &bytes[..span.len]);
                match self.take_free(index, at, span.len, since) {
                    Some(slot) => {
                        stored.live += 1;
                        self.append(flow, slot);
                    }
                    None => self.note_evicted(span.len),
                }
                at += span.len;
            }
        }
        self.buffers[index] = Some(stored);
        self.filling = index;
        Ok(())
    }

    /// Room for a packet of `len` bytes that comes now, to be filled at once. With `large_max`
    /// buffers of the pool in use it takes no more of them.
    pub(super) fn reserve(
        &mut self,
        class: Class,
        len: usize,
        now: Instant,
        large_max: usize,
        source: &mut impl BufferSource,
    ) -> Option<&mut [u8]> {
        let flow = match class {
            Class::Control => CONTROL,
            Class::Flow(hash) => hash as usize % FLOWS,
        };
        let slot = match self.place(len, now, large_max, source) {
            Some(slot) => slot,
            None => self.evict(flow, len, now)?,
        };
        self.append(flow, slot);
        self.bytes_of(slot)
    }

    /// Takes the packet whose turn it is; its bytes are good until the next call.
    pub(super) fn pop(&mut self, now: Instant, parameters: &Parameters) -> Option<&mut [u8]> {
        let slot = match self.take_head(CONTROL) {
            Some(slot) => slot,
            None => self.next_data(now, parameters)?,
        };
        self.last_since = self.slots[usize::from(slot)].since;
        self.release(slot);
        self.bytes_of(slot)
    }

    /// Gives the buffers back in which nothing waits.
    pub(super) fn return_spent(&mut self, source: &mut impl BufferSource) {
        for stored in &mut self.buffers {
            if let Some(spent) = stored.take_if(|stored| stored.live == 0) {
                source.give_back(spent.memory);
            }
        }
    }

    /// Takes a buffer out, whatever waits in it.
    pub(super) fn take_buffer(&mut self) -> Option<SendBuffer> {
        let stored = self.buffers.iter_mut().find_map(Option::take)?;
        Some(stored.memory)
    }

    // Places.

    fn bytes_of(&mut self, slot: u16) -> Option<&mut [u8]> {
        let slot = self.slots[usize::from(slot)];
        let stored = self.buffers[usize::from(slot.buffer)].as_mut()?;
        let start = slot.start as usize;
        stored
            .memory
            .bytes
            .get_mut(start..start + usize::from(slot.len))
    }

    /// A slot for the bytes at `start` of a buffer.
    fn take_free(
        &mut self,
        buffer: usize,
        start: usize,
        len: usize,
        since: Instant,
    ) -> Option<u16> {
        let index = self.free;
        let len = u16::try_from(len).ok()?;
        let start = u32::try_from(start).ok()?;
        let buffer = u8::try_from(buffer).ok()?;
        let slot = self.slots.get_mut(usize::from(index))?;
        self.free = slot.next;
        *slot = Slot {
            since,
            start,
            len,
            room: len,
            next: NO_SLOT,
            buffer,
        };
        Some(index)
    }

    /// A place that nothing else has.
    fn place(
        &mut self,
        len: usize,
        now: Instant,
        large_max: usize,
        source: &mut impl BufferSource,
    ) -> Option<u16> {
        if self.free == NO_SLOT {
            return None;
        }
        let has_room = |stored: &Stored| stored.end + len <= stored.memory.bytes.len();
        if !self.buffers[self.filling].as_ref().is_some_and(has_room) {
            self.filling = self.next_buffer(len, large_max, source)?;
        }
        let buffer = self.filling;
        let stored = self.buffers[buffer].as_mut()?;
        let start = stored.end;
        stored.end += len;
        stored.live += 1;
        self.take_free(buffer, start, len, now)
    }

    /// A buffer with nothing in it.
    fn next_buffer(
        &mut self,
        len: usize,
        large_max: usize,
        source: &mut impl BufferSource,
    ) -> Option<usize> {
        let spent = self
            .buffers
            .iter_mut()
            .enumerate()
            .find_map(|(index, stored)| {
                let stored = stored.as_mut()?;
                (stored.live == 0 && stored.memory.bytes.len() >= len).then_some((index, stored))
            });
        if let Some((index, stored)) = spent {
            stored.end = 0;
            return Some(index);
        }
        let held = self.large_count();
        let index = self.buffers.iter().position(Option::is_none)?;
        if held >= large_max {
            return None;
        }
        self.buffers[index] = Some(Stored {
            memory: source.large_beside(held)?,
            live: 0,
            end: 0,
        });
        Some(index)
    }

    /// The place of the oldest packet of the longest flow, if that is not the newcomer's own.
    fn evict(&mut self, flow: usize, len: usize, now: Instant) -> Option<u16> {
        for _ in 0..EVICTIONS_MAX {
            let longest = (0..FLOWS).max_by_key(|&flow| self.flows[flow].bytes)?;
            if longest == flow {
                return None;
            }
            let index = self.take_head(longest)?;
            let slot = &mut self.slots[usize::from(index)];
            let evicted = usize::from(slot.len);
            let fits = usize::from(slot.room) >= len;
            if fits {
                // It was no longer than the room, which is a u16.
                slot.len = u16::try_from(len).unwrap_or(slot.room);
                slot.since = now;
            }
            self.note_evicted(evicted);
            if fits {
                return Some(index);
            }
            self.release(index);
        }
        None
    }

    fn note_evicted(&mut self, len: usize) {
        self.shed.evicted += 1;
        self.shed.bytes += len.saturating_sub(DATA_HEADER_LEN) as u64;
    }

    /// Frees a slot; the bytes stay until the place has a new user.
    fn release(&mut self, index: u16) {
        let slot = &mut self.slots[usize::from(index)];
        slot.next = self.free;
        self.free = index;
        if let Some(stored) = self.buffers[usize::from(slot.buffer)].as_mut() {
            stored.live -= 1;
        }
    }

    // Flows.

    fn append(&mut self, number: usize, index: u16) {
        let slot = &mut self.slots[usize::from(index)];
        slot.next = NO_SLOT;
        let len = u32::from(slot.len);
        let flow = &mut self.flows[number];
        flow.bytes += len;
        let tail = std::mem::replace(&mut flow.tail, index);
        if tail == NO_SLOT {
            flow.head = index;
        } else {
            self.slots[usize::from(tail)].next = index;
        }
        if number == CONTROL {
            return;
        }
        self.count += 1;
        if !flow.is_listed {
            flow.is_listed = true;
            flow.deficit = TURN_LEN;
            self.push_back(true, number);
        }
    }

    fn take_head(&mut self, number: usize) -> Option<u16> {
        let flow = &mut self.flows[number];
        let index = flow.head;
        let slot = self.slots.get(usize::from(index))?;
        flow.head = slot.next;
        if flow.head == NO_SLOT {
            flow.tail = NO_SLOT;
        }
        flow.bytes -= u32::from(slot.len);
        self.count -= usize::from(number != CONTROL);
        Some(index)
    }

    fn push_back(&mut self, is_new: bool, number: usize) {
        // There are fewer flows than a u8 counts.
        let number = u8::try_from(number).unwrap_or(NO_FLOW);
        let line = if is_new { &mut self.new } else { &mut self.old };
        let tail = std::mem::replace(&mut line.tail, number);
        if tail == NO_FLOW {
            line.head = number;
        } else {
            self.flows[usize::from(tail)].next = number;
        }
        self.flows[usize::from(number)].next = NO_FLOW;
    }

    fn pop_front(&mut self, is_new: bool) {
        let line = if is_new { &mut self.new } else { &mut self.old };
        if line.head == NO_FLOW {
            return;
        }
        line.head = self.flows[usize::from(line.head)].next;
        if line.head == NO_FLOW {
            line.tail = NO_FLOW;
        }
    }

    /// The next packet by deficit round robin, new flows first (RFC 8290 §4.2).
    fn next_data(&mut self, now: Instant, parameters: &Parameters) -> Option<u16> {
        loop {
            let is_new = self.new.head != NO_FLOW;
            let number = if is_new { self.new.head } else { self.old.head };
            let number = usize::from(number);
            if number >= FLOWS {
                return None;
            }
            if self.flows[number].deficit <= 0 {
                self.flows[number].deficit += TURN_LEN;
                self.pop_front(is_new);
                self.push_back(false, number);
                continue;
            }
            let Some(slot) = self.take_judged(number, now, parameters) else {
                self.pop_front(is_new);
                // So that it does not come back as a new flow before the old ones had their turn.
                if is_new && self.old.head != NO_FLOW {
                    self.push_back(false, number);
                } else {
                    self.flows[number].is_listed = false;
                }
                continue;
            };
            self.flows[number].deficit -= i32::from(self.slots[usize::from(slot)].len);
            return Some(slot);
        }
    }

    /// The next packet of a flow that CoDel lets pass.
    fn take_judged(&mut self, number: usize, now: Instant, parameters: &Parameters) -> Option<u16> {
        loop {
            let index = self.take_head(number)?;
            let slot = self.slots[usize::from(index)];
            let flow = &mut self.flows[number];
            let behind = flow.bytes as usize;
            if flow.codel.judge(now, slot.since, behind, parameters) == Verdict::Pass {
                return Some(index);
            }
            let packet = self.bytes_of(index);
            if packet
                .and_then(|bytes| bytes.get_mut(DATA_HEADER_LEN..))
                .is_some_and(ecn::mark)
            {
                self.shed.marked += 1;
                return Some(index);
            }
            self.shed.late += 1;
            self.shed.bytes += u64::from(slot.len).saturating_sub(DATA_HEADER_LEN as u64);
            self.release(index);
        }
    }
}

/// The flow of a packet as it was laid out to be sent.
fn flow_of_stored(kind: Kind, packet: &[u8]) -> usize {
    let Some((header, inner)) = packet.split_first_chunk::<DATA_HEADER_LEN>() else {
        return CONTROL;
    };
    let is_data = [frame::IPV4, frame::IPV6]
        .iter()
        .any(|&protocol| header.ends_with(&frame::header(protocol)));
    match kind {
        Kind::Data if is_data => flow::hash(inner) as usize % FLOWS,
        _ => CONTROL,
    }
}

#[cfg(test)]
mod tests;
