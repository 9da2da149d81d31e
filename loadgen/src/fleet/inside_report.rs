//! What a report says of TCP and pings inside the tunnels, and of a search.

use std::fmt::Write as _;

use datapath::time::Duration;
use serde::Serialize;

use super::bulk::{Counts, Moved, Plan};
use super::pings;
use super::report::{Distribution, LATE_SHARE_MAX, SEND_LATE};
use super::search::{BoundBy, SearchReport};
use super::tally::Tally;
use super::traffic;

/// The share of its time that a thread works from which more could not be sent.
const BUSY_SHARE_MAX: f64 = 0.95;

/// What a run did besides sending datagrams at one rate.
#[derive(Debug, Default, Serialize)]
pub(super) struct Inside {
    tcp: Option<BulkReport>,
    ping: Option<PingReport>,
    search: Option<SearchReport>,
    #[serde(skip)]
    steady: Duration,
}

impl Inside {
    /// Of a run whose traffic lasted for `steady`.
    pub(super) fn new(plan: &traffic::Plan, tally: &Tally, steady: Duration) -> Self {
        let packets = &tally.packets;
        // Interrupted, it was shorter.
        let duration = plan.duration.min(steady);
        let bulk = plan.bulk.as_ref();
        let bits = plan.sizes.mean() * 8.0;
        Self {
            tcp: bulk.map(|bulk| BulkReport::new(bulk, &packets.bulk, duration)),
            ping: plan
                .ping_interval
                .map(|interval| PingReport::new(interval, &packets.pings)),
            search: plan.search.as_ref().map(|desk| desk.report(bits)),
            steady,
        }
    }

    /// Whether every transfer went as asked, every byte was the right one, and what was searched for
    /// was found.
    pub(super) fn is_sound(&self, tally: &Tally) -> bool {
        let (bulk, pings) = (&tally.packets.bulk, &tally.packets.pings);
        bulk.is_sound()
            && bulk.failures() == 0
            && pings.wrong_session == 0
            && self.search.as_ref().is_none_or(SearchReport::is_found)
    }

    /// Why the figures are ours and not the server's, besides what is known already.
    pub(super) fn generator_bound(
        &self,
        mut why: Vec<String>,
        tally: &Tally,
        shards: usize,
    ) -> Vec<String> {
        if let Some(search) = &self.search {
            // It goes until something gives; what that was is its result.
            why.clear();
            if search.bound_by == BoundBy::Generator {
                why.push("the rate that was found is the highest that loadgen can send".to_owned());
            }
        }
        let share = tally.packets.pings.lateness.share_over(SEND_LATE);
        if share > LATE_SHARE_MAX {
            why.push(format!(
                "{:.1} % of the pings were sent more than {} ms late",
                share * 100.0,
                SEND_LATE.as_millis()
            ));
        }
        // TCP sends as fast as it goes, so nothing of it is late; a thread that never waits says so.
        let busy = tally.cpu_steady.as_secs_f64() / (self.steady.as_secs_f64() * shards as f64);
        if self.tcp.is_some() && busy > BUSY_SHARE_MAX {
            why.push(format!(
                "loadgen's threads worked {:.0} % of the time while TCP was sent",
                busy * 100.0
            ));
        }
        why
    }

    pub(super) fn round_trip(&self) -> Option<&Distribution> {
        self.ping.as_ref()?.round_trip_us.as_ref()
    }

    /// A figure that a threshold can be on.
    pub(super) fn figure(&self, name: &str) -> Option<f64> {
        let tcp = self.tcp.as_ref();
        match name {
            "ndr_pps" => self.search.as_ref()?.found_pps,
            "up_bps" => Some(tcp?.up.as_ref()?.bps),
            "down_bps" => Some(tcp?.down.as_ref()?.bps),
            _ => None,
        }
    }

    /// Its part of the table.
    pub(super) fn table(&self) -> String {
        let ping = self.ping.as_ref().map(PingReport::table);
        let tcp = self.tcp.as_ref().map(BulkReport::table);
        let search = self.search.as_ref().map(SearchReport::table);
        [ping, tcp, search].into_iter().flatten().collect()
    }
}

/// TCP inside the tunnels.
#[derive(Debug, Serialize)]
pub(super) struct BulkReport {
    window_bytes: usize,
    raw: bool,
    connections: u64,
    opened: u64,
    finished: u64,
    unfinished: u64,
    unreachable: u64,
    refused: u64,
    unanswered: u64,
    reset: u64,
    silent: u64,
    ended_early: u64,
    corrupted: u64,
    wrong_session: u64,
    retransmitted_segments: u64,
    /// From the first SYN to the far end's answer.
    connect_us: Option<Distribution>,
    up: Option<MovedReport>,
    down: Option<MovedReport>,
}

/// One direction: bytes of payload that arrived within the time.
#[derive(Debug, Serialize)]
struct MovedReport {
    transfers: u64,
    bytes: u64,
    bps: f64,
    bps_min_of_a_session: f64,
    bps_max_of_a_session: f64,
    /// Jain's index over the transfers; 1 is perfectly even.
    fairness: f64,
}

impl MovedReport {
    fn of(moved: &Moved, duration: Duration) -> Self {
        let bps = |bytes: u64| {
            let seconds = duration.as_secs_f64();
            if seconds > 0.0 {
                (bytes as f64 * 8.0 / seconds).round()
            } else {
                0.0
            }
        };
        let (sum, count) = (moved.bytes as f64, moved.transfers as f64);
        Self {
            transfers: moved.transfers,
            bytes: moved.bytes,
            bps: bps(moved.bytes),
            bps_min_of_a_session: bps(moved.min.unwrap_or(0)),
            bps_max_of_a_session: bps(moved.max),
            fairness: if moved.squares > 0.0 {
                sum * sum / (count * moved.squares)
            } else {
                1.0
            },
        }
    }
}

impl BulkReport {
    pub(super) fn new(plan: &Plan, counts: &Counts, duration: Duration) -> Self {
        Self {
            window_bytes: plan.window,
            raw: plan.raw,
            connections: counts.connections,
            opened: counts.opened,
            finished: counts.finished,
            unfinished: counts.unfinished,
            unreachable: counts.unreachable,
            refused: counts.refused,
            unanswered: counts.unanswered,
            reset: counts.reset,
            silent: counts.silent,
            ended_early: counts.ended_early,
            corrupted: counts.corrupted,
            wrong_session: counts.wrong_session,
            retransmitted_segments: counts.retransmitted,
            connect_us: Distribution::of(&counts.connect),
            up: plan.up.then(|| MovedReport::of(&counts.up, duration)),
            down: plan.down.then(|| MovedReport::of(&counts.down, duration)),
        }
    }

    /// Its lines of the table.
    pub(super) fn table(&self) -> String {
        let mut text = String::new();
        for (way, moved) in [("up", &self.up), ("down", &self.down)] {
            let Some(moved) = moved else { continue };
            let _ = writeln!(
                text,
                "TCP {way:<9} {:.1} Mbit/s; {:.2} to {:.2} a session, fairness {:.3}",
                moved.bps / 1e6,
                moved.bps_min_of_a_session / 1e6,
                moved.bps_max_of_a_session / 1e6,
                moved.fairness
            );
        }
        let _ = writeln!(
            text,
            "connections   {} opened of {}, {} finished, {} segments sent again, {} corrupted, \
             {} to the wrong session",
            self.opened,
            self.connections,
            self.finished,
            self.retransmitted_segments,
            self.corrupted,
            self.wrong_session
        );
        let failures = [
            (self.unreachable, "had no address to connect from"),
            (
                self.refused,
                "were refused: does `loadgen reflect` listen there?",
            ),
            (
                self.unanswered,
                "were not answered: is there a route back to the sessions?",
            ),
            (self.reset, "were reset by the far end"),
            (self.silent, "fell silent"),
            (self.ended_early, "were ended early by the far end"),
            (
                self.unfinished,
                "were still open at the end: a longer --wait would tell",
            ),
        ];
        for (count, what) in failures.into_iter().filter(|(count, _)| *count > 0) {
            let _ = writeln!(text, "              {count} {what}");
        }
        text
    }
}

/// Pings inside the tunnels.
#[derive(Debug, Serialize)]
pub(super) struct PingReport {
    interval_s: f64,
    sent: u64,
    received: u64,
    lost: u64,
    duplicates: u64,
    wrong_session: u64,
    /// From the planned time to the answer.
    round_trip_us: Option<Distribution>,
    lateness_us: Option<Distribution>,
}

impl PingReport {
    pub(super) fn new(interval: Duration, counts: &pings::Counts) -> Self {
        Self {
            interval_s: interval.as_secs_f64(),
            sent: counts.sent,
            received: counts.received,
            lost: counts.sent.saturating_sub(counts.received),
            duplicates: counts.duplicates,
            wrong_session: counts.wrong_session,
            round_trip_us: Distribution::of(&counts.round_trip),
            lateness_us: Distribution::of(&counts.lateness),
        }
    }

    /// Its line of the table.
    pub(super) fn table(&self) -> String {
        format!(
            "\n{} pings sent, {} answered, {} lost, {} to the wrong session\n",
            self.sent, self.received, self.lost, self.wrong_session
        )
    }
}
