//! Sessions of a shard that leave and come back, and what they ask by DHCPINFORM meanwhile.

use datapath::services::inform::{INFORM_LEN, emit_inform, is_answer};
use datapath::session::event::EndReason;
use datapath::shard::Commands;
use datapath::time::{Duration, Instant};

use super::agenda::Todo;
use super::churn::Churn;
use super::owner::{Fleet, Stage};
use super::pace::Pace;
use super::plan::Phase;

/// DHCPINFORMs without an answer until a session asks no more, and the time between two.
const INFORMS_MAX: u8 = 3;
const INFORM_INTERVAL: Duration = Duration::from_secs(3);

/// Sessions that leave in one turn, at most.
const LEAVES_MAX: u32 = 64;

/// Apart from the streams of the mix.
const LEAVE_STREAM: u64 = 1 << 40;

impl Fleet {
    /// Does what the agenda says.
    pub(super) fn do_due(&mut self, now: Instant, commands: &mut Commands) {
        while let Some((due, member, todo)) = self.agenda.take_due(now) {
            match todo {
                Todo::Return => self.start(due, member, commands),
                Todo::Inform(before) => self.inform(now, member, before, commands),
            }
        }
    }

    /// When the next session of this shard is to leave.
    pub(super) fn next_planned_leave(&self, churn: &Churn) -> Option<Instant> {
        let began = self.conduct.began(self.phase);
        let at = Pace::new(began, churn.rate).at(self.next_leave);
        (at < began + churn.time).then_some(at)
    }

    /// Lets sessions leave whose time has come: every `shards`th ending of the run is this shard's.
    pub(super) fn leave_due(&mut self, now: Instant, churn: &Churn, commands: &mut Commands) {
        for _ in 0..LEAVES_MAX {
            let due = self.next_planned_leave(churn);
            if due.is_none_or(|due| due > now) {
                return;
            }
            let event = self.next_leave;
            self.next_leave += u64::from(self.plan.shards.max(1));
            self.standing.left += 1;
            // The phase's number keeps two churns of a run apart.
            let stream = LEAVE_STREAM * (self.phase as u64 + 1) + event;
            let mut random = self.plan.seed.stream(stream);
            let first = random.index(self.members.len());
            let ending = churn.endings.choose(&mut random);
            let is_up = |index: &usize| {
                let known = self.members.get(*index);
                known.is_some_and(|known| known.stage == Stage::Up)
            };
            let found = (first..self.members.len()).chain(0..first).find(is_up);
            let Some(known) = found.and_then(|index| self.members.get_mut(index)) else {
                self.tally.census.nobody_left += 1;
                continue;
            };
            let Some(session) = known.session else {
                continue;
            };
            known.stage = Stage::Leaving;
            if let Some(count) = self.tally.census.left.get_mut(ending as usize) {
                *count += 1;
            }
            match ending.leave() {
                None => commands.terminate(session, EndReason::UserRequest),
                Some(leave) => commands.leave(session, leave, EndReason::UserRequest),
            }
        }
    }

    /// A session that was told to leave is gone.
    pub(super) fn left(&mut self, now: Instant, member: u32) {
        let phases = self.plan.phases.iter();
        let mut churns = phases.take(self.phase + 1).filter_map(|phase| match phase {
            Phase::Churn(churn) => Some(churn),
            _ => None,
        });
        let delay = churns.next_back().and_then(|churn| churn.return_after);
        if let Some(delay) = delay {
            if let Some(known) = self.members.get_mut(member as usize) {
                known.is_back = true;
            }
            self.agenda.add(now + delay, member, Todo::Return);
        }
    }

    fn inform(&mut self, now: Instant, member: u32, before: u8, commands: &mut Commands) {
        let xid = self.number(member).to_be_bytes();
        let Some(known) = self.members.get_mut(member as usize) else {
            return;
        };
        let (Stage::Up, Some(session), Some(own)) = (known.stage, known.session, known.own) else {
            return;
        };
        match (before, known.asked) {
            (0, _) => {
                known.asked = Some(now);
                self.tally.census.dhcp_asked += 1;
            }
            // It was answered, or the session is another by now.
            (_, None) => return,
            (INFORMS_MAX.., _) => {
                known.asked = None;
                self.tally.census.dhcp_unanswered += 1;
                return;
            }
            _ => {}
        }
        let mut room = [0; INFORM_LEN];
        if let Ok(packet) = emit_inform(own, xid, &mut room) {
            commands.send_packet(session, packet);
        }
        self.agenda
            .add(now + INFORM_INTERVAL, member, Todo::Inform(before + 1));
    }

    /// Takes the answer to a DHCPINFORM of this member.
    pub(super) fn is_dhcp_answer(&mut self, now: Instant, member: u32, packet: &[u8]) -> bool {
        let xid = self.number(member).to_be_bytes();
        let Some(known) = self.members.get_mut(member as usize) else {
            return false;
        };
        let (Some(asked), Some(own)) = (known.asked, known.own) else {
            return false;
        };
        if !is_answer(packet, own, xid) {
            return false;
        }
        known.asked = None;
        self.tally.census.dhcp.record(now.saturating_since(asked));
        true
    }
}
