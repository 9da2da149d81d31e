//! What a run's clients were and did besides set-up and traffic: personas, comings and goings,
//! DHCPINFORM, and how long each phase took.

use std::fmt::Write as _;

use serde::Serialize;

use super::churn::Ending;
use super::tally::Times;
use crate::persona::Mix;

/// What is counted of one shard's clients.
#[derive(Clone, Debug, Default)]
pub(crate) struct Census {
    /// By persona, in the mix's order.
    pub(crate) personas: Vec<Kind>,
    /// Sessions that left, in the order of [`Ending::ALL`].
    pub(crate) left: [u64; 4],
    /// An ending was due, and no session of the shard was up.
    pub(crate) nobody_left: u64,
    /// Sessions that came back, and how long that took from the planned start.
    pub(crate) returns: Times,
    pub(crate) returns_failed: u64,
    pub(crate) dhcp_asked: u64,
    /// Three questions, and no answer.
    pub(crate) dhcp_unanswered: u64,
    /// From the first question to the answer.
    pub(crate) dhcp: Times,
}

/// What became of the first sessions of one persona.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Kind {
    pub(crate) started: u64,
    pub(crate) up: u64,
}

impl Census {
    /// Counts of as many personas as the mix has.
    pub(crate) fn new(mix: &Mix) -> Self {
        Self {
            personas: mix.personas().map(|_| Kind::default()).collect(),
            ..Self::default()
        }
    }

    /// The counts of persona `index`; there are none of a plain client.
    pub(crate) fn kind(&mut self, index: usize) -> Option<&mut Kind> {
        self.personas.get_mut(index)
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.personas.resize(
            self.personas.len().max(other.personas.len()),
            Kind::default(),
        );
        for (sum, one) in self.personas.iter_mut().zip(&other.personas) {
            sum.started += one.started;
            sum.up += one.up;
        }
        for (sum, one) in self.left.iter_mut().zip(other.left) {
            *sum += one;
        }
        self.nobody_left += other.nobody_left;
        self.returns.add(&other.returns);
        self.returns_failed += other.returns_failed;
        self.dhcp_asked += other.dhcp_asked;
        self.dhcp_unanswered += other.dhcp_unanswered;
        self.dhcp.add(&other.dhcp);
    }
}

/// How one phase went.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Lap {
    pub(crate) phase: &'static str,
    pub(crate) seconds: f64,
    /// Sessions up at its end.
    pub(crate) up: u64,
    /// Since the run began: sessions that did not come up, and that were lost.
    pub(crate) failed: u64,
    pub(crate) lost: u64,
}

/// The same for the report's JSON.
#[derive(Debug, Serialize)]
pub(crate) struct Clients {
    seed: u64,
    phases: Vec<Lap>,
    personas: Vec<PersonaReport>,
    churn: Option<ChurnReport>,
    dhcp: Option<DhcpReport>,
}

#[derive(Debug, Serialize)]
struct PersonaReport {
    name: &'static str,
    started: u64,
    up: u64,
}

#[derive(Debug, Serialize)]
struct ChurnReport {
    polite: u64,
    reset: u64,
    close: u64,
    silent: u64,
    /// Endings that were due when no session was up.
    nobody_left: u64,
    returned: u64,
    returns_failed: u64,
    /// From the planned start to up again.
    return_p50_us: Option<f64>,
    return_p99_us: Option<f64>,
}

#[derive(Debug, Serialize)]
struct DhcpReport {
    asked: u64,
    answered: u64,
    unanswered: u64,
    p50_us: Option<f64>,
    p99_us: Option<f64>,
}

/// A quantile in microseconds.
fn quantile(times: &Times, quantile: f64) -> Option<f64> {
    let nanos = times.histogram().value_at_quantile(quantile);
    (!times.is_empty()).then(|| nanos as f64 / 1e3)
}

impl Clients {
    pub(crate) fn new(census: &Census, mix: &Mix, seed: u64, laps: &[Lap]) -> Self {
        let [polite, reset, close, silent] = census.left;
        let has_churned = census.left.iter().sum::<u64>() + census.nobody_left > 0;
        Self {
            seed,
            phases: laps.to_vec(),
            personas: mix
                .personas()
                .zip(&census.personas)
                .map(|(persona, kind)| PersonaReport {
                    name: persona.name,
                    started: kind.started,
                    up: kind.up,
                })
                .collect(),
            churn: has_churned.then(|| ChurnReport {
                polite,
                reset,
                close,
                silent,
                nobody_left: census.nobody_left,
                returned: census.returns.histogram().len(),
                returns_failed: census.returns_failed,
                return_p50_us: quantile(&census.returns, 0.5),
                return_p99_us: quantile(&census.returns, 0.99),
            }),
            dhcp: (census.dhcp_asked > 0).then(|| DhcpReport {
                asked: census.dhcp_asked,
                answered: census.dhcp.histogram().len(),
                unanswered: census.dhcp_unanswered,
                p50_us: quantile(&census.dhcp, 0.5),
                p99_us: quantile(&census.dhcp, 0.99),
            }),
        }
    }

    /// Lines for people; none where there is nothing to say.
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        // Writing to a String does not fail.
        if self.phases.len() > 2 {
            for lap in &self.phases {
                let Lap {
                    phase, seconds, up, ..
                } = lap;
                let _ = writeln!(
                    text,
                    "  phase {phase:<8} {seconds:8.1} s, {up} up at its end"
                );
            }
        }
        for PersonaReport { name, started, up } in &self.personas {
            let _ = writeln!(text, "  persona {name:<17} {up} of {started} up");
        }
        if let Some(churn) = &self.churn {
            let left: Vec<String> = Ending::ALL
                .into_iter()
                .zip([churn.polite, churn.reset, churn.close, churn.silent])
                .filter(|(_, count)| *count > 0)
                .map(|(ending, count)| format!("{count} {}", ending.name()))
                .collect();
            let _ = writeln!(
                text,
                "  left {}; {} came back, {} could not",
                left.join(", "),
                churn.returned,
                churn.returns_failed
            );
        }
        if let Some(dhcp) = &self.dhcp {
            let p50 = dhcp.p50_us.map_or(String::new(), |us| {
                format!(", half of them within {:.1} ms", us / 1e3)
            });
            let _ = writeln!(
                text,
                "  DHCPINFORM {} answered of {}{p50}",
                dhcp.answered, dhcp.asked
            );
        }
        text
    }
}
