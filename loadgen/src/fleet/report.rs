//! What came of a run of many clients: JSON for machines, a table for people, and its exit code.
//!
//! The JSON's fields are stable within a `schema_version`: one may be added, none changes its
//! meaning. Times are in microseconds where their name says `_us`, otherwise in seconds.

use std::net::SocketAddr;

use datapath::time::Duration;
use serde::Serialize;

use super::percentiles::{Curve, curves};
use super::run::{Scenario, Timing};
use super::tally::{self, Causes, Packets, Tally, Times};
use super::timeline::{Timeline, TimelineReport};
use crate::explain::PHASES;
use crate::flags::{Direction, Fleet};
use crate::trust::Trust;

mod table;

/// Raised when a field changes its meaning or goes.
const SCHEMA_VERSION: u32 = 1;

/// A start later than this was late by our fault.
const START_LATE: Duration = Duration::from_millis(10);

/// The same of a packet.
const SEND_LATE: Duration = Duration::from_millis(1);

/// The share of late ones from which the result is bound by the generator.
const LATE_SHARE_MAX: f64 = 0.01;

/// Memory of this process, before the first session and when all were up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    pub(super) before: u64,
    pub(super) up: u64,
}

/// What a report is made of.
#[derive(Debug)]
pub(super) struct Subject<'a> {
    pub(super) flags: &'a Fleet,
    pub(super) trust: &'a Trust,
    pub(super) address: SocketAddr,
    pub(super) scenario: &'a Scenario,
    pub(super) shards: usize,
    pub(super) timing: &'a Timing,
    pub(super) memory: &'a Memory,
    pub(super) tally: &'a Tally,
    pub(super) timeline: &'a Timeline,
}

/// Everything about one run.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    schema_version: u32,
    version: &'static str,
    command: &'static str,
    ok: bool,
    interrupted: bool,
    /// Starts or packets were late by loadgen's own fault: the figures are not the server's.
    generator_bound: bool,
    generator_bound_why: Vec<String>,
    server: String,
    address: SocketAddr,
    tls: Option<Tls>,
    scenario: ScenarioReport,
    setup: Setup,
    hold: Hold,
    traffic: Option<TrafficReport>,
    end: End,
    generator: Generator,
    thresholds: Vec<ThresholdReport>,
    timeline: TimelineReport,
    curves: Vec<Curve>,
}

#[derive(Debug, Serialize)]
struct Tls {
    version: String,
    suite: String,
    group: String,
    certificate_verified: bool,
}

#[derive(Debug, Serialize)]
struct ScenarioReport {
    sessions: u32,
    rate_per_s: f64,
    hold_s: Option<f64>,
    shards: usize,
    sources: usize,
    lcp_echo_s: f64,
    sstp_echo_s: f64,
}

#[derive(Debug, Serialize)]
struct Setup {
    started: u64,
    up: u64,
    failed: u64,
    /// Interrupted while under way.
    given_up: u64,
    failures: Vec<Cause>,
    seconds: f64,
    /// Sessions that came up, a second.
    rate_per_s: f64,
    /// From the planned start to up.
    total_us: Option<Distribution>,
    phases: Vec<PhaseReport>,
    /// From the planned start to the start.
    lateness_us: Option<Distribution>,
}

#[derive(Debug, Serialize)]
struct PhaseReport {
    name: &'static str,
    us: Option<Distribution>,
}

#[derive(Debug, Serialize)]
struct Cause {
    class: &'static str,
    phase: &'static str,
    count: u64,
    /// The words of the first one.
    example: String,
}

#[derive(Debug, Serialize)]
struct Hold {
    seconds: f64,
    disconnects: u64,
    disconnect_causes: Vec<Cause>,
    lcp_echo_us: Option<Distribution>,
}

#[derive(Debug, Serialize)]
struct TrafficReport {
    direction: Direction,
    sizes: String,
    record_per_packet: bool,
    duration_s: f64,
    sessions: u64,
    sent: u64,
    sent_bytes: u64,
    not_sent: u64,
    received: u64,
    received_bytes: u64,
    lost: u64,
    /// As a fraction of what was sent.
    loss: f64,
    /// Of the lost: found no room in loadgen's own queue, because the server did not read.
    own_queue_full: u64,
    duplicates: u64,
    reordered: u64,
    too_old: u64,
    corrupted: u64,
    wrong_session: u64,
    foreign: u64,
    pps_sent: f64,
    pps_received: f64,
    bps_sent: f64,
    bps_received: f64,
    received_min_of_a_session: u64,
    received_max_of_a_session: u64,
    /// Jain's index over what each session received; 1 is perfectly even.
    fairness: f64,
    /// From the planned time; the way there and back, or one way if the direction is down.
    latency_us: Option<Distribution>,
    /// From the planned time to the sending.
    lateness_us: Option<Distribution>,
}

#[derive(Debug, Serialize)]
struct End {
    polite: u64,
    other: u64,
    other_causes: Vec<Cause>,
}

#[derive(Debug, Serialize)]
struct Generator {
    cpu_s: f64,
    cpu_setup_s: f64,
    /// While holding or sending.
    cpu_steady_s: f64,
    memory_before_bytes: u64,
    memory_up_bytes: u64,
    memory_per_session_bytes: u64,
    sends: u64,
    turns: u64,
    own_drops: u64,
}

#[derive(Debug, Serialize)]
struct ThresholdReport {
    threshold: String,
    /// In microseconds, as a fraction, or plain; none if there is no such figure in this run.
    value: Option<f64>,
    ok: bool,
}

/// A distribution of times in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
struct Distribution {
    count: u64,
    min: f64,
    mean: f64,
    p50: f64,
    p90: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

impl Distribution {
    fn of(times: &Times) -> Option<Self> {
        let histogram = times.histogram();
        let us = |nanos: u64| micros(Duration::from_nanos(nanos));
        (!times.is_empty()).then(|| Self {
            count: histogram.len(),
            min: us(histogram.min()),
            mean: (histogram.mean()).round() / 1e3,
            p50: us(histogram.value_at_quantile(0.5)),
            p90: us(histogram.value_at_quantile(0.9)),
            p99: us(histogram.value_at_quantile(0.99)),
            p999: us(histogram.value_at_quantile(0.999)),
            max: us(histogram.max()),
        })
    }

    fn quantile(&self, name: &str) -> Option<f64> {
        Some(match name {
            "p50" => self.p50,
            "p90" => self.p90,
            "p99" => self.p99,
            "p999" => self.p999,
            "max" => self.max,
            _ => return None,
        })
    }
}

pub(super) fn micros(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e9).round() / 1e3
}

fn causes(causes: &Causes) -> Vec<Cause> {
    let list = causes.iter().map(|(&(class, phase), cases)| Cause {
        class,
        phase,
        count: cases.count,
        example: cases.example.clone(),
    });
    let mut list: Vec<Cause> = list.collect();
    list.sort_by_key(|cause| std::cmp::Reverse(cause.count));
    list
}

impl Report {
    pub(super) fn new(subject: &Subject<'_>) -> Self {
        let Subject {
            flags,
            tally,
            timing,
            scenario,
            ..
        } = subject;
        let traffic = match scenario {
            Scenario::Traffic { .. } => Some(TrafficReport::new(subject)),
            Scenario::Hold(_) => None,
        };
        let why = generator_bound(tally);
        let (failed, lost) = (
            tally::total(&tally.failures),
            tally::total(&tally.disconnects),
        );
        let is_sound = tally.packets.corrupted == 0 && tally.packets.wrong_session == 0;
        let mut report = Self {
            schema_version: SCHEMA_VERSION,
            version: env!("CARGO_PKG_VERSION"),
            command: if traffic.is_some() {
                "traffic"
            } else {
                "storm"
            },
            ok: tally.up > 0 && failed == 0 && lost == 0 && is_sound && !timing.interrupted,
            interrupted: timing.interrupted,
            generator_bound: !why.is_empty(),
            generator_bound_why: why,
            server: format!("{}:{}", flags.server.host, flags.server.port),
            address: subject.address,
            tls: tally.protection.clone().map(|(version, suite, group)| Tls {
                version,
                suite,
                group,
                certificate_verified: *subject.trust != Trust::Anybody,
            }),
            scenario: ScenarioReport {
                sessions: flags.sessions,
                rate_per_s: flags.rate,
                hold_s: match scenario {
                    Scenario::Hold(hold) => Some(hold.as_secs_f64()),
                    Scenario::Traffic { .. } => None,
                },
                shards: subject.shards,
                sources: flags.sources.0.len(),
                lcp_echo_s: flags.lcp_echo.as_secs_f64(),
                sstp_echo_s: flags.sstp_echo.as_secs_f64(),
            },
            setup: Setup::new(tally, timing),
            hold: Hold {
                seconds: timing.steady.as_secs_f64(),
                disconnects: lost,
                disconnect_causes: causes(&tally.disconnects),
                lcp_echo_us: Distribution::of(&tally.echo),
            },
            traffic,
            end: End {
                polite: tally.polite_ends,
                other: tally::total(&tally.other_ends),
                other_causes: causes(&tally.other_ends),
            },
            generator: Generator::new(subject),
            thresholds: Vec::new(),
            timeline: subject.timeline.report(match scenario {
                Scenario::Traffic { plan, .. } => plan.direction == Direction::Both,
                Scenario::Hold(_) => false,
            }),
            curves: curves(tally),
        };
        report.thresholds = flags
            .fail
            .iter()
            .map(|threshold| {
                let value = report.figure(&threshold.figure);
                ThresholdReport {
                    threshold: threshold.to_string(),
                    value,
                    // What was not measured cannot be claimed to hold.
                    ok: value.is_some_and(|value| threshold.holds(value)),
                }
            })
            .collect();
        report
    }

    /// 0 pass, 1 failed, 99 a threshold is broken, 130 interrupted.
    pub(super) fn exit_code(&self) -> u8 {
        if self.interrupted {
            130
        } else if !self.ok {
            1
        } else if self.thresholds.iter().any(|threshold| !threshold.ok) {
            99
        } else {
            0
        }
    }

    /// A figure that a threshold can be on.
    fn figure(&self, name: &str) -> Option<f64> {
        let traffic = self.traffic.as_ref();
        let number = |number: u64| number as f64;
        match name {
            "loss" => traffic.map(|traffic| traffic.loss),
            "duplicates" => traffic.map(|traffic| number(traffic.duplicates)),
            "reordered" => traffic.map(|traffic| number(traffic.reordered)),
            "corrupted" => traffic.map(|traffic| number(traffic.corrupted)),
            "wrong_session" => traffic.map(|traffic| number(traffic.wrong_session)),
            "pps" => traffic.map(|traffic| traffic.pps_received),
            "bps" => traffic.map(|traffic| traffic.bps_received),
            "failed" => Some(number(self.setup.failed)),
            "disconnects" => Some(number(self.hold.disconnects)),
            "rate" => Some(self.setup.rate_per_s),
            "cpu" => Some(self.generator.cpu_s),
            "memory" => Some(number(self.generator.memory_per_session_bytes)),
            _ => {
                let (name, quantile) = name.split_once('_')?;
                let distribution = match name {
                    "setup" => self.setup.total_us,
                    "echo" => self.hold.lcp_echo_us,
                    "latency" => traffic.and_then(|traffic| traffic.latency_us),
                    "lateness" => match traffic {
                        Some(traffic) => traffic.lateness_us,
                        None => self.setup.lateness_us,
                    },
                    _ => {
                        let mut phases = self.setup.phases.iter();
                        phases
                            .find(|phase| phase.name.eq_ignore_ascii_case(name))?
                            .us
                    }
                };
                distribution?.quantile(quantile)
            }
        }
    }

    /// The report as a page is made of it.
    pub(super) fn value(&self) -> serde_json::Value {
        // Only strings and finite numbers are in it, so it cannot fail.
        serde_json::to_value(self).unwrap_or_default()
    }

    /// For machines: one object, pretty-printed.
    pub(super) fn json(&self) -> String {
        // Only strings and finite numbers are in it, so writing it cannot fail.
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }
}

/// Why the figures are ours and not the server's; empty if they are not.
fn generator_bound(tally: &Tally) -> Vec<String> {
    let mut why = Vec::new();
    let share = tally.lateness.share_over(START_LATE);
    if share > LATE_SHARE_MAX {
        why.push(format!(
            "{:.1} % of the sessions were started more than {} ms late",
            share * 100.0,
            START_LATE.as_millis()
        ));
    }
    let share = tally.packets.lateness.share_over(SEND_LATE);
    if share > LATE_SHARE_MAX {
        why.push(format!(
            "{:.1} % of the packets were sent more than {} ms late",
            share * 100.0,
            SEND_LATE.as_millis()
        ));
    }
    why
}

impl Setup {
    fn new(tally: &Tally, timing: &Timing) -> Self {
        let seconds = timing.setup.as_secs_f64();
        Self {
            started: tally.started,
            up: tally.up,
            failed: tally::total(&tally.failures),
            given_up: tally.given_up,
            failures: causes(&tally.failures),
            seconds,
            rate_per_s: per_second(tally.up, timing.setup),
            total_us: Distribution::of(&tally.setup),
            phases: PHASES
                .iter()
                .zip(&tally.phases)
                .map(|((_, name), times)| PhaseReport {
                    name,
                    us: Distribution::of(times),
                })
                .collect(),
            lateness_us: Distribution::of(&tally.lateness),
        }
    }
}

fn per_second(count: u64, time: Duration) -> f64 {
    let seconds = time.as_secs_f64();
    if seconds > 0.0 {
        (count as f64 / seconds * 10.0).round() / 10.0
    } else {
        0.0
    }
}

impl TrafficReport {
    fn new(subject: &Subject<'_>) -> Self {
        let packets: &Packets = &subject.tally.packets;
        let (direction, sizes, duration, record_per_packet) = match subject.scenario {
            Scenario::Traffic {
                plan,
                record_per_packet,
                ..
            } => {
                // Interrupted, it was shorter.
                let duration = plan.duration.min(subject.timing.steady);
                (
                    plan.direction,
                    plan.sizes.to_string(),
                    duration,
                    *record_per_packet,
                )
            }
            Scenario::Hold(_) => (Direction::Both, String::new(), Duration::ZERO, false),
        };
        let lost = packets.sent.saturating_sub(packets.received);
        let share = |part: u64| {
            if packets.sent > 0 {
                part as f64 / packets.sent as f64
            } else {
                0.0
            }
        };
        let (sum, count) = (packets.received as f64, packets.sessions as f64);
        let fairness = if packets.received_squares > 0.0 {
            sum * sum / (count * packets.received_squares)
        } else {
            1.0
        };
        Self {
            direction,
            sizes,
            record_per_packet,
            duration_s: duration.as_secs_f64(),
            sessions: packets.sessions,
            sent: packets.sent,
            sent_bytes: packets.sent_bytes,
            not_sent: packets.not_sent,
            received: packets.received,
            received_bytes: packets.received_bytes,
            lost,
            loss: share(lost),
            own_queue_full: subject.tally.own_queue_full,
            duplicates: packets.duplicates,
            reordered: packets.reordered,
            too_old: packets.too_old,
            corrupted: packets.corrupted,
            wrong_session: packets.wrong_session,
            foreign: packets.foreign,
            pps_sent: per_second(packets.sent, duration),
            pps_received: per_second(packets.received, duration),
            bps_sent: per_second(packets.sent_bytes * 8, duration),
            bps_received: per_second(packets.received_bytes * 8, duration),
            received_min_of_a_session: packets.received_min.unwrap_or(0),
            received_max_of_a_session: packets.received_max,
            fairness,
            latency_us: Distribution::of(&packets.latency),
            lateness_us: Distribution::of(&packets.lateness),
        }
    }
}

impl Generator {
    fn new(subject: &Subject<'_>) -> Self {
        let Subject { tally, memory, .. } = subject;
        let seconds = |time: Duration| (time.as_secs_f64() * 1e6).round() / 1e6;
        Self {
            cpu_s: seconds(tally.cpu_total),
            cpu_setup_s: seconds(tally.cpu_setup),
            cpu_steady_s: seconds(tally.cpu_steady),
            memory_before_bytes: memory.before,
            memory_up_bytes: memory.up,
            memory_per_session_bytes: memory
                .up
                .saturating_sub(memory.before)
                .checked_div(tally.up)
                .unwrap_or(0),
            sends: tally.sends,
            turns: tally.turns,
            own_drops: tally.own_drops,
        }
    }
}
