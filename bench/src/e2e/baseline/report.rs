//! The comparison, as a table and as JSON.

use std::fmt;

use serde::Serialize;

use super::super::report::{Figure, Report as Host, short};
use super::judge::{self, Interval, Verdict};
use super::revision::Revision;

/// A run against another commit.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// When, where, and beside how much else.
    #[serde(flatten)]
    pub(super) host: Host,
    /// What this tree is at.
    pub this: Revision,
    /// What it is compared with.
    pub baseline: Revision,
    /// How often one of all the verdicts may be wrong, as a share of runs.
    pub error_max: f64,
    /// One a figure.
    pub comparisons: Vec<Row>,
}

/// One figure of both.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What was measured, as in a run without a baseline.
    pub name: String,
    /// Of both; less is better.
    pub unit: &'static str,
    /// Those in which both carried something.
    pub rounds: usize,
    /// Of this tree.
    pub this: Figure,
    /// Of the baseline.
    pub baseline: Figure,
    /// Of the rounds' ratios, this tree's by the baseline's.
    pub ratio: Figure,
    /// What is left of those.
    pub interval: Interval,
    /// What follows from it.
    pub verdict: Verdict,
}

impl Row {
    /// Of what the rounds read, wrong with a probability of `error_max` at most.
    pub(super) fn new(
        name: &str,
        unit: &'static str,
        this: &[f64],
        baseline: &[f64],
        error_max: f64,
    ) -> Self {
        let ratios = judge::ratios(this, baseline);
        let interval = Interval::of(&ratios, error_max);
        Self {
            name: name.to_owned(),
            unit,
            rounds: ratios.len(),
            this: Figure::of(this.to_vec()),
            baseline: Figure::of(baseline.to_vec()),
            ratio: Figure::of(ratios),
            interval,
            verdict: interval.verdict(),
        }
    }
}

impl Comparison {
    /// The comparison as one JSON object.
    ///
    /// # Panics
    ///
    /// Never: it has nothing that JSON cannot say.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("numbers and text")
    }

    fn count(&self, verdict: Verdict) -> usize {
        let rows = self.comparisons.iter();
        rows.filter(|row| row.verdict == verdict).count()
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} {:?}", self.name, self.short(), self.subject)?;
        if self.is_dirty {
            f.write_str(" and changes that are not committed")?;
        }
        Ok(())
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Better => "BETTER",
            Verdict::Same => "same",
            Verdict::Worse => "WORSE",
        };
        write!(
            f,
            "{:28} {:>9} {:>7} {:>15} {:>7} {:>15} {:>7} {:>13} {:>14} {verdict}",
            self.name,
            self.unit,
            short(self.this.median),
            self.this.spread(),
            short(self.baseline.median),
            self.baseline.spread(),
            format!("{:.3}", self.ratio.median),
            self.ratio.spread(),
            format!("{:.3}..{:.3}", self.interval.low, self.interval.high),
        )
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = &self.host;
        writeln!(
            f,
            "{}, {} rounds; medians (least..most)",
            host.machine, host.options.reps
        )?;
        writeln!(f, "A {}\nB {}", self.this, self.baseline)?;
        writeln!(
            f,
            "{:28} {:>9} {:>7} {:>15} {:>7} {:>15} {:>7} {:>13} {:>14} verdict",
            "", "unit", "A", "", "B", "", "A/B", "", "its interval"
        )?;
        for row in &self.comparisons {
            writeln!(f, "{row}")?;
        }
        for why in &host.skipped {
            writeln!(f, "*** SKIPPED: {why} ***")?;
        }
        writeln!(
            f,
            "A is better in {}, the same in {}, worse in {}. The interval is the median's, by the rounds' signs, so that \
             of {:.0} runs\nwithout any difference one calls some; better or worse is what lies whole on one side of 1.",
            self.count(Verdict::Better),
            self.count(Verdict::Same),
            self.count(Verdict::Worse),
            1.0 / self.error_max
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::Options;
    use super::*;

    fn revision(name: &str, is_dirty: bool) -> Revision {
        Revision {
            commit: "0123456789abcdef".to_owned(),
            subject: "Do it".to_owned(),
            name: name.to_owned(),
            is_dirty,
        }
    }

    fn comparison() -> Comparison {
        let row = |name, this: f64| {
            let base = [100.0, 90.0, 110.0, 100.0, 95.0, 105.0];
            let this: Vec<f64> = base.iter().map(|value| value * this).collect();
            Row::new(name, "ms/GB", &this, &base, 0.05)
        };
        let mut host = Host::new(&Options {
            reps: 6,
            ..Options::default()
        });
        host.skipped.push("x: why".to_owned());
        Comparison {
            host,
            this: revision("this tree", true),
            baseline: revision("v1", false),
            error_max: 0.05,
            comparisons: vec![row("dear", 1.2), row("cheap", 0.5), row("equal", 1.0)],
        }
    }

    #[test]
    fn the_table_says_who_is_compared_and_how_each_row_stands() {
        let text = comparison().to_string();
        assert!(
            text.contains("A this tree: 0123456789 \"Do it\" and changes"),
            "{text}"
        );
        assert!(text.contains("B v1: 0123456789 \"Do it\"\n"), "{text}");
        for (name, ratio, verdict) in [
            ("dear", "1.200", "WORSE"),
            ("cheap", "0.500", "BETTER"),
            ("equal", "1.000", "same"),
        ] {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap();
            let words: Vec<&str> = line.split_whitespace().collect();
            assert!(words.contains(&ratio), "{line}");
            assert_eq!(words.last(), Some(&verdict), "{line}");
        }
        assert!(text.contains("SKIPPED: x: why"), "{text}");
        assert!(
            text.contains("better in 1, the same in 1, worse in 1"),
            "{text}"
        );
        assert!(text.contains("of 20 runs"), "{text}");
    }

    #[test]
    fn json_has_the_same() {
        let json: serde_json::Value = serde_json::from_str(&comparison().to_json()).unwrap();
        assert_eq!(json["baseline"]["commit"], "0123456789abcdef");
        assert_eq!(json["this"]["is_dirty"], true);
        assert_eq!(json["comparisons"][0]["verdict"], "worse");
        assert_eq!(json["comparisons"][1]["interval"]["high"], 0.5);
        assert_eq!(json["options"]["reps"], 6);
        assert_eq!(json["comparisons"][2]["rounds"], 6);
    }
}
