//! The owner of one shard's clients: starts each at its planned time, counts what becomes of it,
//! sends its packets, and ends it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use datapath::session::event::{Addresses, EndReason, Ended, Event, Milestone, Milestones, Up};
use datapath::session::policy::Question;
use datapath::session::{ClientSettings, ServerSettings};
use datapath::shard::{Commands, Owner, SessionId};
use datapath::sys::clock;
use datapath::time::{Duration, Instant};

use super::conduct::{Act, Conduct, Live, Standing};
use super::pace::Pace;
use super::sample::Sampler;
use super::tally::{self, Tally};
use super::traffic::{self, Carrier, Traffic};
use crate::explain::{self, PHASES};
use crate::settings::Template;

/// Sessions started in one turn, at most, so that those under way are not kept waiting.
const STARTS_MAX: u32 = 64;

/// Sessions ended in one turn, at most.
const ENDS_MAX: usize = 64;

/// From a polite end to the cut.
const END_WAIT: Duration = Duration::from_secs(10);

/// How often the far end is asked for its counts at the end.
const TALLY_INTERVAL: Duration = Duration::from_millis(100);

/// What one shard of a run does.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) template: Template,
    /// `{n}` in it is the number of the session.
    pub(crate) user: String,
    pub(crate) first_user: u32,
    /// What the server is called in messages.
    pub(crate) host: String,
    pub(crate) to: SocketAddr,
    pub(crate) sources: Vec<IpAddr>,
    /// Sessions of the whole run.
    pub(crate) sessions: u32,
    /// Starts a second of the whole run.
    pub(crate) rate: f64,
    pub(crate) shards: u32,
    pub(crate) traffic: Option<Arc<traffic::Plan>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Waiting,
    Starting,
    Up,
    /// It was told to end.
    Ending,
    Over,
}

/// One client.
#[derive(Clone, Copy, Debug, Default)]
struct Member {
    stage: Stage,
    was_up: bool,
    session: Option<SessionId>,
    own: Option<std::net::Ipv4Addr>,
    gateway: Option<std::net::Ipv4Addr>,
}

/// The clients of one shard.
#[derive(Debug)]
pub(crate) struct Fleet {
    plan: Arc<Plan>,
    shard: u32,
    conduct: Arc<Conduct>,
    live: Arc<Live>,
    /// If all users are one.
    shared: Option<Arc<ClientSettings>>,
    members: Vec<Member>,
    /// Which member has a slot of the driver.
    by_slot: Vec<u32>,
    /// The next member to start, and when every start of the run is planned.
    next_start: u32,
    starts: Pace,
    act: Act,
    standing: Standing,
    told: Standing,
    traffic: Option<Traffic>,
    /// When the far end is to be asked for its counts again.
    tally_at: Option<Instant>,
    /// The next member to end, and by when all must be gone.
    next_end: usize,
    end_deadline: Option<Instant>,
    alive: u64,
    drained: bool,
    sampler: Sampler,
    tally: Tally,
}

impl Fleet {
    /// The clients of shard number `shard`: each `plan.shards`th of the run.
    pub(crate) fn new(plan: Arc<Plan>, shard: u32, conduct: Arc<Conduct>, live: Arc<Live>) -> Self {
        let shared = (!plan.user.contains("{n}")).then(|| plan.template.for_user(&plan.user));
        let count = (shard..plan.sessions)
            .step_by(plan.shards.max(1) as usize)
            .count();
        Self {
            shard,
            starts: Pace::new(conduct.setup_at(), plan.rate),
            sampler: Sampler::new(conduct.setup_at()),
            conduct,
            live,
            shared,
            members: vec![Member::default(); count],
            by_slot: Vec::new(),
            next_start: 0,
            act: Act::Setup,
            standing: Standing::default(),
            told: Standing::default(),
            traffic: None,
            tally_at: None,
            next_end: 0,
            end_deadline: None,
            alive: 0,
            drained: false,
            tally: Tally::default(),
            plan,
        }
    }

    /// How many they are.
    pub(crate) const fn len(&self) -> usize {
        self.members.len()
    }

    /// What it all came to.
    pub(crate) fn take_tally(&mut self) -> Tally {
        let cpu = clock::thread_cpu_time();
        self.tally.cpu_total = cpu;
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
    fn number(&self, member: u32) -> u32 {
        member
            .saturating_mul(self.plan.shards)
            .saturating_add(self.shard)
    }

    fn planned_start(&self, member: u32) -> Instant {
        self.starts.at(u64::from(self.number(member)))
    }

    fn start_due(&mut self, now: Instant, commands: &mut Commands) {
        for _ in 0..STARTS_MAX {
            let member = self.next_start;
            if member as usize >= self.members.len() {
                return;
            }
            let planned = self.planned_start(member);
            if planned > now {
                return;
            }
            self.next_start += 1;
            self.tally.started += 1;
            self.tally.lateness.record(now.saturating_since(planned));
            self.set_stage(member, Stage::Starting);
            let number = self.number(member);
            let settings = match &self.shared {
                Some(settings) => Arc::clone(settings),
                None => {
                    let number = number.saturating_add(self.plan.first_user);
                    let user = self.plan.user.replace("{n}", &number.to_string());
                    self.plan.template.for_user(&user)
                }
            };
            let sources = &self.plan.sources;
            let source = (number as usize)
                .checked_rem(sources.len())
                .and_then(|index| sources.get(index))
                .map(|&source| SocketAddr::new(source, 0));
            commands.connect(u64::from(member), settings, self.plan.to, source);
        }
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

    fn came_up(&mut self, member: u32, up: &Up) {
        let planned = self.planned_start(member);
        record_phases(&mut self.tally, &up.milestones);
        if let Some(at) = up.milestones.at(Milestone::Network) {
            self.tally.setup.record(at.saturating_since(planned));
        }
        let protection = &up.protection;
        if self.tally.protection.is_none() {
            self.tally.protection = Some((
                protection.version.to_owned(),
                protection.suite.to_owned(),
                protection.group.to_owned(),
            ));
        }
        self.tally.up += 1;
        self.standing.up += 1;
        self.standing.settled += 1;
        if let Some(known) = self.members.get_mut(member as usize) {
            if known.stage == Stage::Starting {
                known.stage = Stage::Up;
            }
            known.was_up = true;
        }
        self.learn(member, &up.addresses);
    }

    /// Takes addresses; one that is lost, as all are when a link ends, stays what it was.
    fn learn(&mut self, member: u32, addresses: &Addresses) {
        let Some(known) = self.members.get_mut(member as usize) else {
            return;
        };
        self.standing.addressed += u64::from(known.own.is_none() && addresses.ipv4.is_some());
        known.own = addresses.ipv4.or(known.own);
        known.gateway = addresses.ipv4_gateway.or(known.gateway);
    }

    fn ended(&mut self, member: u32, ended: &Ended) {
        self.alive = self.alive.saturating_sub(1);
        let Some(known) = self.members.get_mut(member as usize) else {
            return;
        };
        let stage = std::mem::replace(&mut known.stage, Stage::Over);
        known.session = None;
        if known.was_up {
            self.standing.up = self.standing.up.saturating_sub(1);
        }
        match stage {
            Stage::Ending if ended.reason == EndReason::UserRequest && ended.was_up => {
                self.tally.polite_ends += 1;
            }
            Stage::Ending if !ended.was_up => self.tally.given_up += 1,
            Stage::Ending => {
                let failure = explain::failure(ended, &self.plan.host);
                tally::count(
                    &mut self.tally.other_ends,
                    failure.class,
                    failure.phase,
                    &failure.text,
                );
            }
            _ => {
                let failure = explain::failure(ended, &self.plan.host);
                if ended.was_up {
                    self.standing.lost += 1;
                    let causes = &mut self.tally.disconnects;
                    tally::count(causes, failure.class, failure.phase, &failure.text);
                } else {
                    self.standing.failed += 1;
                    self.standing.settled += 1;
                    let causes = &mut self.tally.failures;
                    tally::count(causes, failure.class, failure.phase, &failure.text);
                }
            }
        }
    }

    /// Takes notice of what the conductor has begun.
    fn follow(&mut self, now: Instant) {
        let act = self.conduct.act();
        if act == self.act {
            return;
        }
        let cpu = clock::thread_cpu_time();
        if self.act == Act::Setup {
            self.tally.cpu_setup = cpu;
        }
        if act == Act::End {
            self.tally.cpu_steady = cpu.saturating_sub(self.tally.cpu_setup);
            self.end_deadline = Some(now + END_WAIT);
        }
        if let (Act::Steady, Some(plan)) = (act, &self.plan.traffic) {
            let carriers: Vec<Carrier> = self.carriers();
            let (start, up) = (self.conduct.steady_at(), self.conduct.up_at_steady());
            if plan.direction != crate::flags::Direction::Both {
                self.tally_at = Some(start + plan.duration + TALLY_INTERVAL);
            }
            self.traffic = Some(Traffic::new(plan, start, &carriers, up));
        }
        self.act = act;
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
                self.standing.settled += 1;
                let failure = explain::not_begun(error.to_string());
                let causes = &mut self.tally.failures;
                tally::count(causes, failure.class, failure.phase, &failure.text);
            }
        }
    }

    fn event(&mut self, _: Instant, session: SessionId, event: Event) {
        let Some(member) = self.member_of(session) else {
            return;
        };
        match event {
            Event::Up(up) => self.came_up(member, &up),
            Event::Changed(addresses) => self.learn(member, &addresses),
            Event::EchoReply { round_trip } => self.tally.echo.record(round_trip),
            Event::Identified(_) => {}
            Event::Ended(ended) => self.ended(member, &ended),
        }
    }

    fn packet(&mut self, now: Instant, session: SessionId, packet: &[u8]) {
        if let (Some(member), Some(_)) = (self.member_of(session), &self.traffic)
            && let Some(traffic) = &mut self.traffic
        {
            traffic.handle_packet(now, member, packet);
        }
    }

    fn poll(&mut self, now: Instant, commands: &mut Commands) {
        self.follow(now);
        match self.act {
            Act::Setup => self.start_due(now, commands),
            Act::Steady => self.carry(now, commands),
            Act::End => self.end_members(now, commands),
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
        let due = match self.act {
            Act::Setup => ((self.next_start as usize) < self.members.len())
                .then(|| self.planned_start(self.next_start)),
            Act::Steady => {
                let packets = self.traffic.as_ref().and_then(Traffic::next_timeout);
                packets.into_iter().chain(self.tally_at).min()
            }
            Act::End if self.drained => return None,
            Act::End if self.next_end < self.members.len() || self.alive == 0 => {
                Some(Instant::ZERO)
            }
            Act::End => self.end_deadline,
        };
        due.into_iter().chain([self.sampler.next_at]).min()
    }
}
