//! TCP inside the tunnels: each session moves as many bytes as its connection takes, up, down or both.
//!
//! ```text
//!   start ─ connect ─ request ─▶ pattern … ─▶ end of the time: bytes so far are the goodput
//!                                             └▶ finish ─ verdict ─ closed by both
//! ```
//!
//! A transfer up counts what the far end has acknowledged, one down what was read and compared. Bytes
//! that arrive after the end of the time are compared and not counted. One transfer is one connection.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::net::{IpAddr, SocketAddr};

use datapath::time::{Duration, Instant};

use super::tally::Times;
use crate::pattern::{Pattern, REQUEST_LEN, Request, VERDICT_LEN, Verdict};
use crate::payload::Kind;
use crate::stack::{Connection, Failure, Settings, Stack, State, Window};

/// Of IP packets inside: what every server's tunnel takes.
const MTU: u16 = 1400;

/// Packets that one session sends in a turn, so that all take turns.
const ROOM: usize = 64;

/// Bytes buffered in the direction that carries requests and verdicts only.
const SMALL_WINDOW: usize = 4096;

/// What shall be moved; the same for all sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) up: bool,
    pub(crate) down: bool,
    pub(crate) to: SocketAddr,
    /// Bytes that a connection may have under way.
    pub(crate) window: usize,
    /// The far end is no `loadgen reflect`: nothing is asked of it and nothing compared.
    pub(crate) raw: bool,
}

/// One direction, summed over sessions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Moved {
    pub(crate) bytes: u64,
    pub(crate) transfers: u64,
    pub(crate) min: Option<u64>,
    pub(crate) max: u64,
    /// For Jain's index.
    pub(crate) squares: f64,
}

impl Moved {
    fn count(&mut self, bytes: u64) {
        self.bytes += bytes;
        self.transfers += 1;
        self.min = Some(self.min.map_or(bytes, |min| min.min(bytes)));
        self.max = self.max.max(bytes);
        self.squares += (bytes as f64) * (bytes as f64);
    }

    fn add(&mut self, other: &Self) {
        self.bytes += other.bytes;
        self.transfers += other.transfers;
        self.min = self.min.into_iter().chain(other.min).min();
        self.max = self.max.max(other.max);
        self.squares += other.squares;
    }
}

/// What became of the transfers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) up: Moved,
    pub(crate) down: Moved,
    pub(crate) connections: u64,
    pub(crate) opened: u64,
    /// Closed by both after the time was up.
    pub(crate) finished: u64,
    /// Could not be begun: the session had no address.
    pub(crate) unreachable: u64,
    pub(crate) refused: u64,
    pub(crate) unanswered: u64,
    pub(crate) reset: u64,
    pub(crate) silent: u64,
    /// Ended by the far end before the time was up.
    pub(crate) ended_early: u64,
    /// Still open when the run was over.
    pub(crate) unfinished: u64,
    /// Transfers in which a byte was not the one that was sent.
    pub(crate) corrupted: u64,
    /// Segments for the address of another session.
    pub(crate) wrong_session: u64,
    /// Data segments that loadgen sent again.
    pub(crate) retransmitted: u64,
    /// From the first SYN to the far end's answer.
    pub(crate) connect: Times,
}

impl Counts {
    pub(crate) fn add(&mut self, other: &Self) {
        self.up.add(&other.up);
        self.down.add(&other.down);
        self.connections += other.connections;
        self.opened += other.opened;
        self.finished += other.finished;
        self.unreachable += other.unreachable;
        self.refused += other.refused;
        self.unanswered += other.unanswered;
        self.reset += other.reset;
        self.silent += other.silent;
        self.ended_early += other.ended_early;
        self.unfinished += other.unfinished;
        self.corrupted += other.corrupted;
        self.wrong_session += other.wrong_session;
        self.retransmitted += other.retransmitted;
        self.connect.add(&other.connect);
    }

    /// Transfers that did not go as asked.
    pub(crate) const fn failures(&self) -> u64 {
        self.unreachable
            + self.refused
            + self.unanswered
            + self.reset
            + self.silent
            + self.ended_early
    }

    /// Whether every byte was the right one, as far as was compared.
    pub(crate) const fn is_sound(&self) -> bool {
        self.corrupted == 0 && self.wrong_session == 0
    }

    const fn fail(&mut self, failure: Failure) {
        *match failure {
            Failure::Refused => &mut self.refused,
            Failure::Unanswered => &mut self.unanswered,
            Failure::Reset => &mut self.reset,
            Failure::Silent => &mut self.silent,
        } += 1;
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Opening,
    Moving,
    /// Its bytes are counted; what is still under way is waited for.
    Finishing,
    Over,
}

/// One connection.
#[derive(Debug)]
struct Transfer {
    request: Request,
    connection: Option<Connection>,
    stage: Stage,
    began: Instant,
    /// Bytes of the request that were written.
    asked: usize,
    pattern: Pattern,
    is_right: bool,
    verdict: Vec<u8>,
}

/// The transfers of one session.
#[derive(Debug)]
struct Flow {
    own: IpAddr,
    stack: Stack,
    transfers: Vec<Transfer>,
    is_ready: bool,
    /// The earliest entry of it among those that are due.
    due: Option<Instant>,
}

/// The transfers of one shard.
#[derive(Debug)]
pub(super) struct Bulk {
    plan: Plan,
    start: Instant,
    end: Instant,
    is_begun: bool,
    is_ended: bool,
    run: u32,
    /// By member.
    flows: Vec<Option<Box<Flow>>>,
    /// Members that have something to do now, and at a time; a time may be out of date.
    ready: VecDeque<u32>,
    due: BinaryHeap<Reverse<(Instant, u32)>>,
    open: u64,
}

impl Bulk {
    pub(super) const fn new(plan: Plan, run: u32, start: Instant, duration: Duration) -> Self {
        Self {
            plan,
            start,
            end: Instant::from_nanos(start.as_nanos().saturating_add(nanos(duration))),
            is_begun: false,
            is_ended: false,
            run,
            flows: Vec::new(),
            ready: VecDeque::new(),
            due: BinaryHeap::new(),
            open: 0,
        }
    }

    /// A session that shall carry.
    pub(super) fn add(&mut self, member: u32, session: u32, own: IpAddr) {
        let index = member as usize;
        if index >= self.flows.len() {
            self.flows.resize_with(index + 1, || None);
        }
        let seed = (u64::from(self.run) << 32) | u64::from(session);
        let settings = Settings { mtu: MTU, seed };
        let kinds = [
            (self.plan.up, Kind::Upload),
            (self.plan.down, Kind::Download),
        ];
        let transfers = kinds.into_iter().filter(|(wanted, _)| *wanted);
        let flow = Flow {
            own,
            stack: Stack::new(&settings, &[own], self.start),
            transfers: transfers
                .map(|(_, kind)| Transfer::new(kind, self.run, session, self.end, self.start))
                .collect(),
            is_ready: true,
            due: None,
        };
        self.open += flow.transfers.len() as u64;
        if let Some(slot) = self.flows.get_mut(index) {
            *slot = Some(Box::new(flow));
        }
        self.ready.push_back(member);
    }

    /// Transfers that are not over.
    pub(super) const fn open(&self) -> u64 {
        self.open
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        if !self.is_begun {
            return (!self.ready.is_empty()).then_some(self.start);
        }
        if !self.ready.is_empty() {
            return Some(Instant::ZERO);
        }
        let end = (!self.is_ended).then_some(self.end);
        let due = self.due.peek().map(|Reverse((at, _))| *at);
        due.into_iter().chain(end).min()
    }

    /// Sends what is due.
    pub(super) fn handle_timeout(
        &mut self,
        now: Instant,
        counts: &mut Counts,
        mut send: impl FnMut(u32, &[u8]) -> bool,
    ) {
        if now < self.start {
            return;
        }
        self.is_begun = true;
        if now >= self.end && !self.is_ended {
            self.is_ended = true;
            for member in 0..u32::try_from(self.flows.len()).unwrap_or(u32::MAX) {
                self.rouse(member);
            }
        }
        while let Some(&Reverse((at, member))) = self.due.peek()
            && at <= now
        {
            self.due.pop();
            if let Some(Some(flow)) = self.flows.get_mut(member as usize) {
                flow.due = None;
            }
            self.rouse(member);
        }
        // Those that are still not done have another turn, after all others.
        for _ in 0..self.ready.len() {
            let Some(member) = self.ready.pop_front() else {
                break;
            };
            let Some(Some(flow)) = self.flows.get_mut(member as usize) else {
                continue;
            };
            flow.is_ready = false;
            let before = flow.open();
            flow.drive(now, self.end, &self.plan, counts);
            let mut is_up = true;
            flow.stack.handle_timeout(now, ROOM, |packet| {
                is_up &= send(member, packet);
            });
            self.open -= before - flow.open();
            // A session that is gone does not come back.
            match flow.stack.next_timeout().filter(|_| is_up) {
                Some(at) if at <= now => self.rouse(member),
                Some(at) if flow.due.is_none_or(|due| at < due) => {
                    flow.due = Some(at);
                    self.due.push(Reverse((at, member)));
                }
                Some(_) | None => {}
            }
        }
    }

    fn rouse(&mut self, member: u32) {
        if let Some(Some(flow)) = self.flows.get_mut(member as usize)
            && !flow.is_ready
        {
            flow.is_ready = true;
            self.ready.push_back(member);
        }
    }

    /// A TCP packet came out of the tunnel of `member`.
    pub(super) fn handle_packet(
        &mut self,
        now: Instant,
        member: u32,
        to: IpAddr,
        packet: &[u8],
        counts: &mut Counts,
    ) {
        let Some(Some(flow)) = self.flows.get_mut(member as usize) else {
            return;
        };
        if flow.own != to {
            counts.wrong_session += 1;
            return;
        }
        flow.stack.handle_packet(now, packet);
        self.rouse(member);
    }

    /// Closes the account.
    pub(super) fn finish(&mut self, counts: &mut Counts) {
        for flow in self.flows.iter_mut().flatten() {
            for transfer in &mut flow.transfers {
                if transfer.stage == Stage::Opening || transfer.stage == Stage::Moving {
                    transfer.count(&flow.stack, counts);
                }
                counts.unfinished += u64::from(transfer.stage != Stage::Over);
            }
            counts.retransmitted += flow.stack.retransmitted();
        }
        self.flows.clear();
    }
}

const fn nanos(duration: Duration) -> u64 {
    let nanos = duration.as_nanos();
    if nanos > u64::MAX as u128 {
        return u64::MAX;
    }
    duration.as_secs() * 1_000_000_000 + duration.subsec_nanos() as u64
}

impl Flow {
    fn open(&self) -> u64 {
        let open = self.transfers.iter().filter(|one| one.stage != Stage::Over);
        open.count() as u64
    }

    fn drive(&mut self, now: Instant, end: Instant, plan: &Plan, counts: &mut Counts) {
        for transfer in &mut self.transfers {
            transfer.drive(&mut self.stack, now, end, plan, counts);
        }
    }
}

impl Transfer {
    fn new(kind: Kind, run: u32, session: u32, end: Instant, start: Instant) -> Self {
        let duration = end.saturating_since(start).as_millis();
        let request = Request {
            kind,
            run,
            session,
            bytes: 0,
            duration_ms: u32::try_from(duration).unwrap_or(u32::MAX).max(1),
        };
        Self {
            request,
            connection: None,
            stage: Stage::Opening,
            began: start,
            asked: 0,
            pattern: request.pattern(),
            is_right: true,
            verdict: Vec::new(),
        }
    }

    const fn is_up(&self) -> bool {
        matches!(self.request.kind, Kind::Upload)
    }

    /// Does what its stage asks for.
    fn drive(
        &mut self,
        stack: &mut Stack,
        now: Instant,
        end: Instant,
        plan: &Plan,
        counts: &mut Counts,
    ) {
        if self.stage == Stage::Over {
            return;
        }
        let Some(connection) = self.connection.take() else {
            return self.connect(stack, now, plan, counts);
        };
        let state = stack.state(&connection);
        if self.stage == Stage::Opening && !matches!(state, State::Opening | State::Failed(_)) {
            self.stage = Stage::Moving;
            counts.opened += 1;
            counts.connect.record(now.saturating_since(self.began));
        }
        if self.stage == Stage::Moving || self.stage == Stage::Finishing {
            self.receive(stack, &connection, plan);
        }
        // One that opened late says at least what it is, so that the far end can answer.
        if self.stage == Stage::Moving && self.ask(stack, &connection, plan) && now < end {
            self.write(stack, &connection);
        }
        // It is kept where the count finds it.
        self.connection = Some(connection);
        if let State::Failed(failure) = state {
            counts.fail(failure);
            return self.close(stack, counts);
        }
        let has_ended = state == State::Finished && self.is_read(stack);
        if state == State::HalfOpen
            && self.is_read(stack)
            && let Some(connection) = &self.connection
        {
            stack.finish(connection);
        }
        if self.stage == Stage::Moving && now >= end {
            self.count(stack, counts);
            self.stage = Stage::Finishing;
            if let Some(connection) = &self.connection
                && (self.is_up() || plan.raw)
            {
                stack.finish(connection);
            }
        }
        let is_settled = has_ended || plan.raw && self.is_acknowledged(stack);
        if self.stage == Stage::Finishing && is_settled {
            self.settle(plan, counts);
            self.close(stack, counts);
        } else if has_ended && self.is_up() {
            counts.ended_early += 1;
            self.close(stack, counts);
        } else if has_ended {
            // The far end's time may be up a moment before ours; the goodput is counted to the end.
            if plan.raw {
                counts.ended_early += 1;
            } else {
                counts.finished += 1;
            }
            self.close(stack, counts);
        }
    }

    fn connect(&mut self, stack: &mut Stack, now: Instant, plan: &Plan, counts: &mut Counts) {
        let (receive, send) = if self.is_up() {
            (SMALL_WINDOW, plan.window)
        } else {
            (plan.window, SMALL_WINDOW)
        };
        counts.connections += 1;
        self.began = now;
        match stack.connect(plan.to, Window { receive, send }) {
            Ok(connection) => self.connection = Some(connection),
            Err(_) => {
                counts.unreachable += 1;
                self.stage = Stage::Over;
            }
        }
    }

    /// Writes the request, as far as there is room; whether it is whole.
    fn ask(&mut self, stack: &mut Stack, connection: &Connection, plan: &Plan) -> bool {
        if plan.raw {
            return true;
        }
        if self.asked < REQUEST_LEN {
            let message = self.request.emit();
            let rest = message.get(self.asked..).unwrap_or_default();
            self.asked += stack.write(connection, |room| {
                let len = rest.len().min(room.len());
                if let (Some(to), Some(from)) = (room.get_mut(..len), rest.get(..len)) {
                    to.copy_from_slice(from);
                }
                len
            });
        }
        self.asked >= REQUEST_LEN
    }

    fn write(&mut self, stack: &mut Stack, connection: &Connection) {
        while self.is_up() && stack.writable(connection) > 0 {
            let filled = stack.write(connection, |room| {
                self.pattern.fill(room);
                room.len()
            });
            if filled == 0 {
                break;
            }
        }
    }

    /// Reads all that came: of an upload the verdict, of a download the pattern.
    fn receive(&mut self, stack: &mut Stack, connection: &Connection, plan: &Plan) {
        while stack.readable(connection) > 0 {
            let taken = stack.read(connection, |bytes| {
                if !self.is_up() {
                    self.is_right &= self.pattern.check(bytes) || plan.raw;
                } else if self.verdict.len() + bytes.len() <= VERDICT_LEN {
                    self.verdict.extend_from_slice(bytes);
                }
                bytes.len()
            });
            if taken == 0 {
                break;
            }
        }
    }

    fn is_read(&self, stack: &Stack) -> bool {
        let connection = self.connection.as_ref();
        connection.is_none_or(|connection| stack.readable(connection) == 0)
    }

    fn is_acknowledged(&self, stack: &Stack) -> bool {
        let connection = self.connection.as_ref();
        connection.is_none_or(|connection| stack.unacknowledged(connection) == 0)
    }

    /// Counts what was moved until now.
    fn count(&self, stack: &Stack, counts: &mut Counts) {
        let under_way = match &self.connection {
            Some(connection) if self.is_up() => stack.unacknowledged(connection) as u64,
            _ => 0,
        };
        let bytes = self.pattern.at().saturating_sub(under_way);
        let moved = if self.is_up() {
            &mut counts.up
        } else {
            &mut counts.down
        };
        moved.count(bytes);
    }

    /// It ended as it should; whether what the far end has is what was sent.
    fn settle(&mut self, plan: &Plan, counts: &mut Counts) {
        counts.finished += 1;
        if self.is_up() && !plan.raw {
            let verdict = Verdict::parse(&self.verdict);
            self.is_right = verdict.is_some_and(|verdict| {
                verdict.run == self.request.run
                    && verdict.session == self.request.session
                    && verdict.received == self.pattern.at()
                    && verdict.damaged == 0
            });
        }
    }

    fn close(&mut self, stack: &mut Stack, counts: &mut Counts) {
        if self.stage != Stage::Finishing {
            self.count(stack, counts);
        }
        counts.corrupted += u64::from(!self.is_right);
        self.stage = Stage::Over;
        if let Some(connection) = self.connection.take() {
            stack.release(connection);
        }
    }
}

#[cfg(test)]
mod tests;
