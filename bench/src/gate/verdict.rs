//! What was counted beside what was known.

use std::fmt;

use super::baseline::{Baseline, Cost};
use super::tools::Judged;

/// Growth of instructions that is still all right, in percent: below it a compiler's choice is not told
/// from a change. Of allocations one more is too many.
const LIMIT_PERCENT: u64 = 3;

/// What became of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It costs what it did, or nearly.
    None,
    /// It costs less by more than the limit: the baseline is to be made anew, so that it stays so.
    Better,
    /// It takes more instructions by more than the limit, but the tools are not the baseline's.
    Untold,
    /// It takes more instructions by more than the limit.
    Grew,
    /// It allocates more often.
    Allocates,
    /// The baseline does not know it.
    New,
    /// The baseline knows it and it is no more.
    Gone,
}

impl Change {
    const fn fails(self) -> bool {
        match self {
            Self::None | Self::Better | Self::Untold => false,
            Self::Grew | Self::Allocates | Self::New | Self::Gone => true,
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Better => "better",
            Self::Untold => "grew, not judged",
            Self::Grew => "GREW",
            Self::Allocates => "ALLOCATES MORE",
            Self::New => "NOT IN THE BASELINE",
            Self::Gone => "IN THE BASELINE, BUT GONE",
        }
    }
}

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The path.
    pub name: String,
    /// What the baseline says.
    pub known: Option<Cost>,
    /// What was counted.
    pub counted: Option<Cost>,
    /// What to say of it.
    pub change: Change,
}

/// All of it.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Every path, changed or not.
    pub rows: Vec<Row>,
    /// What differs from the tools of the baseline, in words.
    pub differences: Vec<String>,
    judged: Judged,
    has_baseline: bool,
}

/// Compares; with `is_partial`, what was not counted is not missed.
#[must_use]
pub fn judge(known: Option<&Baseline>, counted: &Baseline, is_partial: bool) -> Verdict {
    let then = known.map_or(&counted.made_with, |known| &known.made_with);
    let judged = counted.made_with.judged_beside(then);
    let row = |(name, cost): &(String, Cost)| {
        let known = known.and_then(|known| known.cost(name));
        Row {
            name: name.clone(),
            known,
            counted: Some(*cost),
            change: known.map_or(Change::New, |known| change(known, *cost, judged)),
        }
    };
    let mut rows: Vec<Row> = counted.paths.iter().map(row).collect();
    let known_paths = known.iter().flat_map(|known| &known.paths);
    let gone = known_paths.filter(|(name, _)| !is_partial && counted.cost(name).is_none());
    rows.extend(gone.map(|(name, cost)| Row {
        name: name.clone(),
        known: Some(*cost),
        counted: None,
        change: Change::Gone,
    }));
    Verdict {
        rows,
        differences: counted.made_with.differences(then),
        judged,
        has_baseline: known.is_some(),
    }
}

fn change(known: Cost, counted: Cost, judged: Judged) -> Change {
    let own = grew(known.own, counted.own);
    let library = grew(known.library, counted.library);
    if counted.allocations > known.allocations {
        Change::Allocates
    } else if (own && judged.own) || (library && judged.library) {
        Change::Grew
    } else if own || library {
        Change::Untold
    } else if counted.allocations < known.allocations
        || grew(counted.own, known.own)
        || grew(counted.library, known.library)
    {
        Change::Better
    } else {
        Change::None
    }
}

/// Whether `after` is more than the limit above `before`.
const fn grew(before: u64, after: u64) -> bool {
    after.saturating_mul(100) > before.saturating_mul(100 + LIMIT_PERCENT)
}

impl Verdict {
    /// Whether the tree may be as it is.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.has_baseline && !self.rows.iter().any(|row| row.change.fails())
    }

    /// Paths that cost what the baseline says, to the instruction.
    fn same(&self) -> usize {
        let same = |row: &&Row| row.known.is_some() && row.known == row.counted;
        self.rows.iter().filter(same).count()
    }

    fn count(&self, wanted: impl Fn(Change) -> bool) -> usize {
        self.rows.iter().filter(|row| wanted(row.change)).count()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heads = [
            "instructions of a run",
            "own",
            "change",
            "library",
            "change",
        ];
        let [name, own, own_change, library, library_change] = heads;
        writeln!(
            f,
            "{name:44}{own:>10}{own_change:>10}{library:>10}{library_change:>10}  allocations"
        )?;
        for row in &self.rows {
            let own = Column::new(row, |cost| cost.own);
            let library = Column::new(row, |cost| cost.library);
            let allocations = Column::new(row, |cost| cost.allocations);
            let line = format!(
                "{:44}{own}{library}  {:>5}  {}",
                row.name,
                allocations.arrow(),
                row.change.words()
            );
            writeln!(f, "{}", line.trim_end())?;
        }
        for difference in &self.differences {
            writeln!(f, "the baseline was made with other tools: {difference}")?;
        }
        match self.judged {
            Judged { own: false, .. } => writeln!(f, "so only allocations are judged")?,
            Judged { library: false, .. } => {
                writeln!(f, "so what the cryptographic library takes is not judged")?;
            }
            Judged { .. } => {}
        }
        let bad = self.count(Change::fails);
        if bad > 0 {
            writeln!(
                f,
                "{bad} paths cost over {LIMIT_PERCENT} % more than bench/baseline.json allows.\n\
                 Either the change is made cheaper, or its commit says why and has the new baseline:\n\
                 cargo run --release -p bench -- gate --update"
            )?;
        } else {
            writeln!(f, "{} paths cost what they may", self.rows.len())?;
        }
        if self.has_baseline {
            let (same, all) = (self.same(), self.rows.len());
            writeln!(
                f,
                "{same} of {all} paths are the baseline's to the instruction"
            )?;
        }
        let better = self.count(|change| change == Change::Better);
        if better > 0 {
            writeln!(
                f,
                "{better} paths cost less: gate --update in the same commit keeps it so"
            )?;
        }
        Ok(())
    }
}

/// A figure then and now.
struct Column {
    known: Option<u64>,
    counted: Option<u64>,
}

impl Column {
    fn new(row: &Row, figure: fn(Cost) -> u64) -> Self {
        Self {
            known: row.known.map(figure),
            counted: row.counted.map(figure),
        }
    }

    fn change(&self) -> String {
        match (self.known, self.counted) {
            (Some(known), Some(counted)) if known == counted => "=".to_owned(),
            (Some(known), Some(counted)) => {
                let sign = if counted > known { '+' } else { '-' };
                let hundredths = counted.abs_diff(known).saturating_mul(10_000) / known.max(1);
                format!("{sign}{}.{:02} %", hundredths / 100, hundredths % 100)
            }
            _ => String::new(),
        }
    }

    fn arrow(&self) -> String {
        match (self.known, self.counted) {
            (Some(known), Some(counted)) if known != counted => format!("{known} → {counted}"),
            (known, counted) => counted.or(known).unwrap_or_default().to_string(),
        }
    }
}

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counted = self
            .counted
            .map_or_else(|| "-".to_owned(), |counted| counted.to_string());
        write!(f, "{counted:>10}{:>10}", self.change())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tools::Tools;
    use super::*;

    fn of(name: &str, own: u64, library: u64, allocations: u64) -> Baseline {
        let cost = Cost {
            own,
            library,
            allocations,
        };
        Baseline {
            made_with: Tools {
                rustc: "1".to_owned(),
                cc: "2".to_owned(),
                valgrind: "3".to_owned(),
                libc: "4".to_owned(),
                processor: "5".to_owned(),
            },
            paths: vec![(name.to_owned(), cost)],
        }
    }

    fn judged(before: (u64, u64, u64), after: (u64, u64, u64)) -> (Change, bool) {
        let known = of("a", before.0, before.1, before.2);
        let verdict = judge(Some(&known), &of("a", after.0, after.1, after.2), false);
        (verdict.rows[0].change, verdict.is_good())
    }

    #[test]
    fn growth_over_three_percent_and_every_allocation_fail() {
        let before = (1_000, 5_000, 2);
        assert_eq!(judged(before, before), (Change::None, true));
        assert_eq!(judged(before, (1_030, 5_150, 2)), (Change::None, true));
        assert_eq!(judged(before, (1_031, 5_000, 2)), (Change::Grew, false));
        assert_eq!(judged(before, (1_000, 5_151, 2)), (Change::Grew, false));
        assert_eq!(judged((1_000, 0, 0), (1_000, 1, 0)), (Change::Grew, false));
        assert_eq!(judged(before, (900, 4_000, 3)), (Change::Allocates, false));
        assert_eq!(judged(before, (970, 5_000, 2)), (Change::Better, true));
        assert_eq!(judged(before, (1_000, 5_000, 1)), (Change::Better, true));
        assert_eq!(judged((1, 1, 0), (1, 1, 1)), (Change::Allocates, false));
        assert_eq!(judged((1, 1, 117), (1, 1, 118)), (Change::Allocates, false));
    }

    #[test]
    fn it_tells_how_many_are_the_same_to_the_instruction() {
        let known = of("a", 1_000, 5, 0);
        let told = |own| judge(Some(&known), &of("a", own, 5, 0), false).to_string();
        assert!(told(1_000).contains("1 of 1 paths are the baseline's to the instruction"));
        assert!(told(1_001).contains("0 of 1 paths are the baseline's to the instruction"));
    }

    #[test]
    fn what_other_tools_make_is_told_and_allocations_are_judged() {
        let known = of("a", 1_000, 1_000, 0);
        let mut counted = of("a", 1_000, 2_000, 0);
        counted.made_with.cc = "another".to_owned();
        let verdict = judge(Some(&known), &counted, false);
        assert!(verdict.is_good());
        let text = verdict.to_string();
        assert!(text.contains("grew, not judged"), "{text}");
        assert!(text.contains("cc: 2 then, another now"), "{text}");
        counted.paths[0].1.own = 2_000;
        assert!(
            !judge(Some(&known), &counted, false).is_good(),
            "cc made none of it"
        );
        counted.made_with.libc = "another".to_owned();
        assert!(judge(Some(&known), &counted, false).is_good());
        counted.paths[0].1.allocations = 1;
        assert!(!judge(Some(&known), &counted, false).is_good());
    }

    #[test]
    fn new_and_gone_paths_fail_until_the_baseline_says_so() {
        let (known, counted) = (of("a", 1, 0, 0), of("b", 1, 0, 0));
        let verdict = judge(Some(&known), &counted, false);
        let changes: Vec<_> = verdict.rows.iter().map(|row| row.change).collect();
        assert_eq!(changes, [Change::New, Change::Gone]);
        assert!(!verdict.is_good());
        let part = judge(Some(&known), &of("a", 1, 0, 0), true);
        assert!(part.is_good(), "what was not asked for is not missed");
        assert!(!judge(None, &counted, false).is_good());
    }
}
