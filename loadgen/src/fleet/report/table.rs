//! A report for people: the table that is printed at the end.

use std::fmt::Write as _;

use super::{Cause, Distribution, Report, TrafficReport};

impl Report {
    /// The table at the end. Writing to a String cannot fail.
    pub(in crate::fleet) fn table(&self) -> String {
        let mut text = String::new();
        let setup = &self.setup;
        let _ = write!(
            text,
            "{} of {} sessions up in {:.1} s ({:.1} a second)",
            setup.up, self.scenario.sessions, setup.seconds, setup.rate_per_s
        );
        if let Some(tls) = &self.tls {
            let _ = write!(text, ", {}, {}, {}", tls.version, tls.suite, tls.group);
        }
        text.push('\n');
        list(&mut text, "failed", &setup.failures);
        text += &self.clients.table();
        let _ = writeln!(
            text,
            "\n{:16}{:>10}{:>10}{:>10}{:>10}{:>10}",
            "ms", "p50", "p90", "p99", "p99.9", "max"
        );
        for phase in &setup.phases {
            row(&mut text, phase.name, phase.us.as_ref());
        }
        row(&mut text, "from plan to up", setup.total_us.as_ref());
        row(&mut text, "start lateness", setup.lateness_us.as_ref());
        row(&mut text, "LCP echo", self.hold.lcp_echo_us.as_ref());
        if let Some(traffic) = &self.traffic {
            row(&mut text, "latency", traffic.latency_us.as_ref());
            row(&mut text, "send lateness", traffic.lateness_us.as_ref());
            traffic.write(&mut text);
        }
        row(&mut text, "ping", self.inside.round_trip());
        text += &self.inside.table();
        let _ = writeln!(
            text,
            "\nheld {:.1} s, {} disconnects; ended {} politely, {} otherwise",
            self.hold.seconds, self.hold.disconnects, self.end.polite, self.end.other
        );
        list(&mut text, "disconnected", &self.hold.disconnect_causes);
        list(&mut text, "ended", &self.end.other_causes);
        let own = &self.generator;
        let _ = writeln!(
            text,
            "loadgen itself: {:.2} CPU-s ({:.2} set-up, {:.2} steady), {:.1} KB of memory a session",
            own.cpu_s,
            own.cpu_setup_s,
            own.cpu_steady_s,
            own.memory_per_session_bytes as f64 / 1024.0
        );
        for why in &self.generator_bound_why {
            let _ = writeln!(
                text,
                "generator-bound: {why}; these figures are not the server's"
            );
        }
        for threshold in &self.thresholds {
            let verdict = if threshold.ok { "holds" } else { "BROKEN" };
            let value = threshold
                .value
                .map_or_else(|| "not measured".to_owned(), |v| format!("{v}"));
            let _ = writeln!(text, "{}: {verdict} ({value})", threshold.threshold);
        }
        if self.interrupted {
            text += "interrupted\n";
        }
        text
    }
}

impl TrafficReport {
    fn write(&self, text: &mut String) {
        let _ = writeln!(
            text,
            "\n{} sent ({:.0} pps, {:.1} Mbit/s), {} received ({:.0} pps, {:.1} Mbit/s) over {} sessions",
            self.sent,
            self.pps_sent,
            self.bps_sent / 1e6,
            self.received,
            self.pps_received,
            self.bps_received / 1e6,
            self.sessions,
        );
        let _ = writeln!(
            text,
            "{} lost ({:.4} %), {} duplicate, {} reordered, {} corrupted, {} of a wrong session; fairness {:.3}",
            self.lost,
            self.loss * 100.0,
            self.duplicates,
            self.reordered,
            self.corrupted,
            self.wrong_session,
            self.fairness,
        );
        if self.own_queue_full > 0 {
            let _ = writeln!(
                text,
                "  {} found no room in their session's queue here: the server took them too slowly",
                self.own_queue_full
            );
        }
        if self.not_sent > 0 {
            let _ = writeln!(
                text,
                "  {} were not sent: their session was gone",
                self.not_sent
            );
        }
    }
}

fn row(text: &mut String, name: &str, times: Option<&Distribution>) {
    if let Some(times) = times {
        let _ = write!(text, "{name:16}");
        for us in [times.p50, times.p90, times.p99, times.p999, times.max] {
            let _ = write!(text, "{:10.3}", us / 1e3);
        }
        text.push('\n');
    }
}

fn list(text: &mut String, word: &str, causes: &[Cause]) {
    for cause in causes {
        let _ = writeln!(
            text,
            "  {} {word}: {} ({}): {}",
            cause.count, cause.class, cause.phase, cause.example
        );
    }
}
