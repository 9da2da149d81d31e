//! The owner of one shard's clients: starts each at its planned time, counts what becomes of it,
//! sends its packets, and ends it. Who comes, goes and asks besides is in `visits.rs`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use datapath::session::event::{Addresses, EndReason, Ended, Event, Milestone, Milestones, Up};
use datapath::session::policy::Question;
use datapath::session::{ClientSettings, ServerSettings};
use datapath::shard::{Commands, Owner, SessionId};
use datapath::sys::clock;
use datapath::time::{Duration, Instant};

use super::agenda::{Agenda, Todo};
use super::census::Census;
use super::conduct::{Conduct, Live, Standing};
use super::plan::Phase;
use super::sample::Sampler;
use super::tally::{self, Tally};
use super::traffic::{Carrier, Traffic};
use crate::explain::{self, PHASES};
use crate::persona::Mix;
use crate::seed::Seed;
use crate::settings::Template;
use crate::users::Users;

/// Sessions started in one turn, at most, so that those under way are not kept waiting.
const STARTS_MAX: u32 = 64;

/// Sessions ended in one turn, at most.
const ENDS_MAX: usize = 64;

/// From a polite end to the cut.
const END_WAIT: Duration = Duration::from_secs(10);

/// How often the far end is asked for its counts at the end.
const TALLY_INTERVAL: Duration = Duration::from_millis(100);

/// How a kind of client behaves.
#[derive(Debug)]
pub(crate) struct Manner {
    pub(crate) template: Template,
    /// Asks by DHCPINFORM.
    pub(crate) dhcp: bool,
}

/// What one shard of a run does.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) phases: Vec<Phase>,
    /// By persona, in the mix's order; one if there is no mix.
    pub(crate) manners: Vec<Manner>,
    pub(crate) mix: Mix,
    pub(crate) seed: Seed,
    pub(crate) users: Users,
    /// What the server is called in messages.
    pub(crate) host: String,
    pub(crate) to: SocketAddr,
    pub(crate) sources: Vec<IpAddr>,
    /// Sessions of the whole run.
    pub(crate) sessions: u32,
    pub(crate) shards: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stage {
    #[default]
    Waiting,
    Starting,
    Up,
    /// It was told to leave, and comes back after a while if it is to.
    Leaving,
    /// It was told to end.
    Ending,
    Over,
}

/// One client.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Member {
    pub(super) stage: Stage,
    pub(super) was_up: bool,
    /// It has left before, so what it does now is no set-up of the run.
    pub(super) is_back: bool,
    pub(super) session: Option<SessionId>,
    pub(super) own: Option<Ipv4Addr>,
    gateway: Option<Ipv4Addr>,
    /// When its present start was planned.
    planned: Instant,
    /// When it asked by DHCPINFORM, while there is no answer.
    pub(super) asked: Option<Instant>,
}

/// The clients of one shard.
#[derive(Debug)]
pub(crate) struct Fleet {
    pub(super) plan: Arc<Plan>,
    pub(super) shard: u32,
    pub(super) conduct: Arc<Conduct>,
    live: Arc<Live>,
    /// By manner, if all users are one.
    shared: Option<Vec<Arc<ClientSettings>>>,
    pub(super) members: Vec<Member>,
    /// Which member has a slot of the driver.
    by_slot: Vec<u32>,
    /// The next member to start for the first time.
    next_start: u32,
    /// The number of the present phase.
    pub(super) phase: usize,
    pub(super) agenda: Agenda,
    /// The next ending of the present phase that is this shard's.
    pub(super) next_leave: u64,
    pub(super) standing: Standing,
    told: Standing,
    traffic: Option<Traffic>,
    /// When the far end is to be asked for its counts again.
    tally_at: Option<Instant>,
    /// The next member to end, and by when all must be gone.
    next_end: usize,
    end_deadline: Option<Instant>,
    alive: u64,
    drained: bool,
    cpu_seen: Duration,
    sampler: Sampler,
    pub(super) tally: Tally,
}

impl Fleet {
    /// The clients of shard number `shard`: each `plan.shards`th of the run.
    pub(crate) fn new(plan: Arc<Plan>, shard: u32, conduct: Arc<Conduct>, live: Arc<Live>) -> Self {
        let shared = plan.users.is_one().then(|| {
            let (user, password) = plan.users.of(0);
            let of = |manner: &Manner| manner.template.for_user(&user, password);
            plan.manners.iter().map(of).collect()
        });
        let count = (shard..plan.sessions)
            .step_by(plan.shards.max(1) as usize)
            .count();
        let tally = Tally {
            census: Census::new(&plan.mix),
            ..Tally::default()
        };
        let mut fleet = Self {
            shard,
            sampler: Sampler::new(conduct.began(0)),
            conduct,
            live,
            shared,
            members: vec![Member::default(); count],
            by_slot: Vec::new(),
            next_start: 0,
            phase: 0,
            agenda: Agenda::default(),
            next_leave: u64::from(shard),
            standing: Standing::default(),
            told: Standing::default(),
            traffic: None,
            tally_at: None,
            next_end: 0,
            end_deadline: None,
            alive: 0,
            drained: false,
            cpu_seen: Duration::ZERO,
            tally,
            plan,
        };
        fleet.enter(Instant::ZERO);
        fleet
    }

    /// Connections at once, at most: its members', and those that fell silent and are still there.
    pub(crate) fn connections_max(&self) -> usize {
        let silent: u32 = self.plan.phases.iter().fold(0, |sum, phase| match phase {
            Phase::Churn(churn) => sum.saturating_add(churn.silent_max()),
            _ => sum,
        });
        self.members
            .len()
            .saturating_add(silent.div_ceil(self.plan.shards.max(1)) as usize)
    }

    /// What it all came to.
    pub(crate) fn take_tally(&mut self) -> Tally {
        self.tally.cpu_total = clock::thread_cpu_time();
        let packets = self.traffic.as_mut().map(|traffic| &mut traffic.tally);
        self.sampler.take(
            self.standing.up,
            &mut self.tally,
            packets,
            &self.live.samples,
        );
        if let Some(traffic) = &mut self.traffic {
            traffic.finish();
            self.tally.packets = std::mem::take(&mut traffic.tally);
        }
        std::mem::take(&mut self.tally)
    }

    /// Number of a member in the run.
    pub(super) fn number(&self, member: u32) -> u32 {
        member
            .saturating_mul(self.plan.shards)
            .saturating_add(self.shard)
    }

    fn present(&self) -> Option<&Phase> {
        self.plan.phases.get(self.phase)
    }

    /// When the next member is planned to start for the first time, in the present phase.
    fn next_planned_start(&self) -> Option<Instant> {
        let Some(Phase::Start(starts)) = self.present() else {
            return None;
        };
        let number = self.number(self.next_start);
        let is_due = number < starts.end() && (self.next_start as usize) < self.members.len();
        is_due.then(|| {
            let began = self.conduct.began(self.phase);
            starts.curve.at(began, number.saturating_sub(starts.first))
        })
    }

    fn start_due(&mut self, now: Instant, commands: &mut Commands) {
        for _ in 0..STARTS_MAX {
            let Some(planned) = self.next_planned_start().filter(|&planned| planned <= now) else {
                return;
            };
            let member = self.next_start;
            self.next_start += 1;
            self.tally.started += 1;
            self.tally.lateness.record(now.saturating_since(planned));
            let manner = self.manner(member);
            if let Some(kind) = self.tally.census.kind(manner) {
                kind.started += 1;
            }
            self.start(planned, member, commands);
        }
    }

    /// Starts a member, for the first time or again.
    pub(super) fn start(&mut self, planned: Instant, member: u32, commands: &mut Commands) {
        if let Some(known) = self.members.get_mut(member as usize) {
            *known = Member {
                stage: Stage::Starting,
                is_back: known.is_back,
                planned,
                ..Member::default()
            };
        }
        let number = self.number(member);
        let manner = self.manner(member);
        let shared = self.shared.as_ref().and_then(|shared| shared.get(manner));
        let settings = match (shared, self.plan.manners.get(manner)) {
            (Some(settings), _) => Arc::clone(settings),
            (None, Some(manner)) => {
                let (user, password) = self.plan.users.of(number);
                manner.template.for_user(&user, password)
            }
            (None, None) => return,
        };
        let sources = &self.plan.sources;
        let source = (number as usize)
            .checked_rem(sources.len())
            .and_then(|index| sources.get(index))
            .map(|&source| SocketAddr::new(source, 0));
        commands.connect(u64::from(member), settings, self.plan.to, source);
    }

    /// Which of the plan's manners a member has.
    pub(super) fn manner(&self, member: u32) -> usize {
        self.plan.mix.of(self.plan.seed, self.number(member))
    }

    fn set_stage(&mut self, member: u32, stage: Stage) {
        if let Some(member) = self.members.get_mut(member as usize) {
            member.stage = stage;
        }
    }

    /// The member of a session that is not over.
    fn member_of(&self, session: SessionId) -> Option<u32> {
        let slot = session.connection.slot as usize;
        let member = *self.by_slot.get(slot)?;
        let known = self.members.get(member as usize)?;
        (known.session == Some(session)).then_some(member)
    }

    fn came_up(&mut self, now: Instant, member: u32, up: &Up) {
        let manner = self.manner(member);
        self.standing.up += 1;
        let Some(known) = self.members.get_mut(member as usize) else {
            return;
        };
        if known.stage == Stage::Starting {
            known.stage = Stage::Up;
        }
        known.was_up = true;
        let took = up.milestones.at(Milestone::Network);
        let took = took.map(|at| at.saturating_since(known.planned));
        if known.is_back {
            self.tally.census.returns.record(took.unwrap_or_default());
        } else {
            record_phases(&mut self.tally, &up.milestones);
            if let Some(took) = took {
                self.tally.setup.record(took);
            }
            self.tally.up += 1;
            self.standing.settled += 1;
            if let Some(kind) = self.tally.census.kind(manner) {
                kind.up += 1;
            }
        }
        let protection = &up.protection;
        if self.tally.protection.is_none() {
            self.tally.protection = Some((
                protection.version.to_owned(),
                protection.suite.to_owned(),
                protection.group.to_owned(),
            ));
        }
        self.learn(now, member, &up.addresses);
    }

    /// Takes addresses; one that is lost, as all are when a link ends, stays what it was.
    fn learn(&mut self, now: Instant, member: u32, addresses: &Addresses) {
        let manner = self.manner(member);
        let Some(known) = self.members.get_mut(member as usize) else {
            return;
        };
        let is_new = known.own.is_none() && addresses.ipv4.is_some();
        self.standing.addressed += u64::from(is_new);
        known.own = addresses.ipv4.or(known.own);
        known.gateway = addresses.ipv4_gateway.or(known.gateway);
        let asks = |manner: &Manner| manner.dhcp;
        if is_new && self.plan.manners.get(manner).is_some_and(asks) {
            self.agenda.add(now, member, Todo::Inform(0));
        }
    }

    fn ended(&mut self, now: Instant, member: u32, ended: &Ended) {
        self.alive = self.alive.saturating_sub(1);
        let Some(known) = self.members.get_mut(member as usize) else {
            return;
        };
        let stage = std::mem::replace(&mut known.stage, Stage::Over);
        let is_back = known.is_back;
        known.session = None;
        known.asked = None;
        if known.was_up {
            self.standing.up = self.standing.up.saturating_sub(1);
            self.standing.addressed -= u64::from(known.own.is_some());
        }
        if stage == Stage::Leaving {
            return self.left(now, member);
        }
        if stage == Stage::Ending && !ended.was_up {
            self.tally.given_up += 1;
            return;
        }
        if stage == Stage::Ending && ended.reason == EndReason::UserRequest {
            self.tally.polite_ends += 1;
            return;
        }
        let causes = match (stage, ended.was_up) {
            (Stage::Ending, _) => &mut self.tally.other_ends,
            (_, true) => {
                self.standing.lost += 1;
                &mut self.tally.disconnects
            }
            (_, false) => {
                self.standing.failed += 1;
                if is_back {
                    self.tally.census.returns_failed += 1;
                } else {
                    self.standing.settled += 1;
                }
                &mut self.tally.failures
            }
        };
        let failure = explain::failure(ended, &self.plan.host);
        tally::count(causes, failure.class, failure.phase, &failure.text);
    }

    /// Takes notice of what the conductor has begun.
    fn follow(&mut self, now: Instant) {
        let phase = self.conduct.phase();
        while self.phase < phase {
            let cpu = clock::thread_cpu_time();
            let spent = cpu.saturating_sub(std::mem::replace(&mut self.cpu_seen, cpu));
            match self.present() {
                Some(Phase::Start(_)) => self.tally.cpu_setup += spent,
                _ => self.tally.cpu_steady += spent,
            }
            self.phase += 1;
            self.enter(now);
        }
    }

    fn enter(&mut self, now: Instant) {
        self.next_leave = u64::from(self.shard);
        self.standing.steady = 0;
        let plan = match self.present() {
            None => {
                self.end_deadline = Some(now + END_WAIT);
                return;
            }
            Some(Phase::Traffic(carry)) => Arc::clone(&carry.plan),
            Some(Phase::Start(_) | Phase::Hold(_) | Phase::Churn(_)) => return,
        };
        let carriers: Vec<Carrier> = self.carriers();
        let (start, up) = (self.conduct.began(self.phase), self.conduct.up());
        if plan.direction != crate::flags::Direction::Both {
            self.tally_at = Some(start + plan.duration + TALLY_INTERVAL);
        }
        self.traffic = Some(Traffic::new(&plan, start, &carriers, up));
    }

    fn carriers(&self) -> Vec<Carrier> {
        (0..)
            .zip(&self.members)
            .filter(|(_, known)| known.stage == Stage::Up)
            .map(|(member, known)| Carrier {
                member,
                session: self.number(member),
                own: known.own,
                gateway: known.gateway,
            })
            .collect()
    }

    fn carry(&mut self, now: Instant, commands: &mut Commands) {
        let Some(traffic) = &mut self.traffic else {
            return;
        };
        let members = &self.members;
        let mut send = |member: u32, packet: &[u8]| {
            let known = members.get(member as usize);
            match known.and_then(|known| known.session.filter(|_| known.stage == Stage::Up)) {
                Some(session) => {
                    commands.send_packet(session, packet);
                    true
                }
                None => false,
            }
        };
        traffic.handle_timeout(now, &mut send);
        if self.tally_at.is_some_and(|at| at <= now) {
            self.tally_at = Some(now + TALLY_INTERVAL);
            traffic.ask_for_tallies(now, &mut send);
        }
        self.standing.steady = 1;
        self.standing.unsent = traffic.unsent();
        self.standing.sent = traffic.tally.sent;
        self.standing.received = traffic.tally.received;
    }

    fn end_members(&mut self, now: Instant, commands: &mut Commands) {
        let mut left = ENDS_MAX;
        while left > 0 && self.next_end < self.members.len() {
            if let Some(known) = self.members.get_mut(self.next_end)
                && let Some(session) = known.session
            {
                known.stage = Stage::Ending;
                commands.terminate(session, EndReason::UserRequest);
                left -= 1;
            }
            self.next_end += 1;
        }
        let is_over = self.next_end >= self.members.len() && self.alive == 0;
        if !self.drained && (is_over || self.end_deadline.is_some_and(|at| at <= now)) {
            // The sessions' last words are still to be sent.
            self.drained = true;
            commands.drain(EndReason::UserRequest, Duration::from_secs(2));
        }
    }
}

/// Records how long each phase took, from the milestone before it that was passed.
fn record_phases(tally: &mut Tally, milestones: &Milestones) {
    let mut last = milestones.at(Milestone::Begun);
    for ((milestone, _), times) in PHASES.iter().zip(&mut tally.phases) {
        let Some(at) = milestones.at(*milestone) else {
            continue;
        };
        if let Some(since) = last {
            times.record(at.saturating_since(since));
        }
        last = Some(at);
    }
}

impl Owner for Fleet {
    fn accept(&mut self, _: SessionId, _: usize, _: SocketAddr) -> Option<Arc<ServerSettings>> {
        None
    }

    fn ask(&mut self, _: SessionId, _: Question) {}

    fn connecting(&mut self, token: u64, session: io::Result<SessionId>) {
        let Ok(member) = u32::try_from(token) else {
            return;
        };
        match session {
            Ok(session) => {
                let slot = session.connection.slot as usize;
                if slot >= self.by_slot.len() {
                    self.by_slot.resize(slot + 1, u32::MAX);
                }
                if let Some(place) = self.by_slot.get_mut(slot) {
                    *place = member;
                }
                if let Some(known) = self.members.get_mut(member as usize) {
                    known.session = Some(session);
                }
                self.alive += 1;
            }
            Err(error) => {
                self.set_stage(member, Stage::Over);
                self.standing.failed += 1;
                let known = self.members.get(member as usize);
                if known.is_some_and(|known| known.is_back) {
                    self.tally.census.returns_failed += 1;
                } else {
                    self.standing.settled += 1;
                }
                let failure = explain::not_begun(error.to_string());
                let causes = &mut self.tally.failures;
                tally::count(causes, failure.class, failure.phase, &failure.text);
            }
        }
    }

    fn event(&mut self, now: Instant, session: SessionId, event: Event) {
        let Some(member) = self.member_of(session) else {
            return;
        };
        match event {
            Event::Up(up) => self.came_up(now, member, &up),
            Event::Changed(addresses) => self.learn(now, member, &addresses),
            Event::EchoReply { round_trip } => self.tally.echo.record(round_trip),
            Event::Identified(_) => {}
            Event::Ended(ended) => self.ended(now, member, &ended),
        }
    }

    fn packet(&mut self, now: Instant, session: SessionId, packet: &[u8]) {
        let Some(member) = self.member_of(session) else {
            return;
        };
        if self.is_dhcp_answer(now, member, packet) {
            return;
        }
        if let Some(traffic) = &mut self.traffic {
            traffic.handle_packet(now, member, packet);
        }
    }

    fn poll(&mut self, now: Instant, commands: &mut Commands) {
        self.follow(now);
        if self.present().is_some() {
            self.do_due(now, commands);
        }
        match self.present() {
            Some(Phase::Start(_)) => self.start_due(now, commands),
            Some(Phase::Hold(_)) => {}
            Some(Phase::Churn(churn)) => {
                let churn = *churn;
                self.leave_due(now, &churn, commands);
            }
            Some(Phase::Traffic(_)) => self.carry(now, commands),
            None => self.end_members(now, commands),
        }
        let packets = self.traffic.as_mut().map(|traffic| &mut traffic.tally);
        self.sampler.poll(
            now,
            self.standing.up,
            &mut self.tally,
            packets,
            &self.live.samples,
        );
        if self.standing != self.told {
            self.told = self.standing;
            self.live.tell(&self.standing);
        }
    }

    fn next_timeout(&self) -> Option<Instant> {
        let own = match self.present() {
            Some(Phase::Start(_)) => self.next_planned_start(),
            Some(Phase::Hold(_)) => None,
            Some(Phase::Churn(churn)) => self.next_planned_leave(churn),
            Some(Phase::Traffic(_)) => {
                let packets = self.traffic.as_ref().and_then(Traffic::next_timeout);
                packets.into_iter().chain(self.tally_at).min()
            }
            None if self.drained => return None,
            None if self.next_end < self.members.len() || self.alive == 0 => Some(Instant::ZERO),
            None => self.end_deadline,
        };
        // At the end nothing more is done that was put off.
        let todo = self.present().and_then(|_| self.agenda.next());
        own.into_iter()
            .chain(todo)
            .chain([self.sampler.next_at])
            .min()
    }
}
