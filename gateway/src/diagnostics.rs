//! What is wrong with a file: all of it at once, with lines and carets.
//!
//! A [`Report`] belongs to one file. Whoever reads the file adds [`Problem`]s and goes on; whoever
//! asked for the file prints the report. A report on a file of secrets never quotes its lines.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Characters of a line that are quoted at most.
const COLUMNS: usize = 120;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Severity {
    /// The gateway does not start.
    Error,
    /// The gateway starts; somebody should look.
    Warning,
}

/// One thing that is wrong.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    severity: Severity,
    span: Option<Range<usize>>,
    message: String,
}

/// Everything that is wrong with one file.
#[derive(Debug)]
pub(crate) struct Report {
    path: PathBuf,
    source: String,
    quotes: bool,
    problems: Vec<Problem>,
}

impl Report {
    /// An empty report on the file `path` with the text `source`.
    pub(crate) fn new(path: &Path, source: &str) -> Self {
        Self {
            path: path.to_owned(),
            source: source.to_owned(),
            quotes: true,
            problems: Vec::new(),
        }
    }

    /// As [`Report::new`], for a file whose lines must not be shown.
    pub(crate) fn on_secrets(path: &Path, source: &str) -> Self {
        Self {
            quotes: false,
            ..Self::new(path, source)
        }
    }

    /// Adds an error at `span` of the source, or about the file as a whole.
    pub(crate) fn error(&mut self, span: Option<Range<usize>>, message: impl Into<String>) {
        self.add(Severity::Error, span, message.into());
    }

    /// Adds a warning at `span` of the source, or about the file as a whole.
    pub(crate) fn warning(&mut self, span: Option<Range<usize>>, message: impl Into<String>) {
        self.add(Severity::Warning, span, message.into());
    }

    fn add(&mut self, severity: Severity, span: Option<Range<usize>>, message: String) {
        self.problems.push(Problem {
            severity,
            span,
            message,
        });
    }

    /// How many problems of this severity there are.
    pub(crate) fn count(&self, severity: Severity) -> usize {
        self.problems
            .iter()
            .filter(|problem| problem.severity == severity)
            .count()
    }

    /// Whether anything forbids a start.
    pub(crate) fn has_errors(&self) -> bool {
        self.count(Severity::Error) > 0
    }

    /// The messages of this severity, in the order of the file.
    pub(crate) fn messages(&self, severity: Severity) -> impl Iterator<Item = &str> {
        self.in_order()
            .into_iter()
            .filter(move |problem| problem.severity == severity)
            .map(|problem| problem.message.as_str())
    }

    fn in_order(&self) -> Vec<&Problem> {
        let mut problems: Vec<_> = self.problems.iter().collect();
        problems.sort_by_key(|problem| problem.span.as_ref().map_or(usize::MAX, |span| span.start));
        problems
    }

    /// Line and column of a byte of the source, both from 1, the column in characters.
    fn position(&self, byte: usize) -> (usize, usize) {
        let before = self.source.get(..byte).unwrap_or(&self.source);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (
            before.matches('\n').count() + 1,
            before[line_start..].chars().count() + 1,
        )
    }

    fn fmt_place(&self, span: &Range<usize>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (line, column) = self.position(span.start);
        writeln!(f, " --> {}:{line}:{column}", self.path.display())?;
        if !self.quotes {
            return Ok(());
        }
        let text = self.source.lines().nth(line - 1).unwrap_or_default();
        let gutter = line.to_string().len();
        // Of a long line, the part around the mistake.
        let skipped = if column > COLUMNS {
            column - COLUMNS / 4
        } else {
            0
        };
        let shown: String = text.chars().skip(skipped).take(COLUMNS).collect();
        // A span over several lines (a table) is marked on its first line only.
        let rest = text.chars().count().saturating_sub(column - 1);
        let spanned = self.source.get(span.clone()).unwrap_or_default();
        let carets = spanned.chars().count().min(rest).clamp(1, COLUMNS / 2);
        writeln!(f, "{:gutter$} |", "")?;
        writeln!(f, "{line} | {}", shown.replace('\t', " "))?;
        writeln!(
            f,
            "{:gutter$} | {:indent$}{}",
            "",
            "",
            "^".repeat(carets),
            indent = column - 1 - skipped
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in self.in_order() {
            let label = match problem.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
            };
            writeln!(f, "{label}: {}", problem.message)?;
            match &problem.span {
                Some(span) => self.fmt_place(span, f)?,
                None => writeln!(f, " --> {}", self.path.display())?,
            }
        }
        let count = |severity, one: &str| {
            let count = self.count(severity);
            let plural = if count == 1 { "" } else { "s" };
            format!("{count} {one}{plural}")
        };
        writeln!(
            f,
            "{}: {}, {}",
            self.path.display(),
            count(Severity::Error, "error"),
            count(Severity::Warning, "warning")
        )
    }
}

/// The candidate closest to `word`, if one is close enough to be what was meant.
pub(crate) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (edits(word, candidate), candidate))
        .filter(|&(edits, candidate)| edits <= candidate.len().div_ceil(3))
        .min_by_key(|&(edits, _)| edits)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance, in bytes.
fn edits(a: &str, b: &str) -> usize {
    let b = b.as_bytes();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replace = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carets_stand_under_the_words() {
        let source = "a = 1\nü = \"wrong\"\n";
        let mut report = Report::new(Path::new("f.toml"), source);
        let start = source.find('"').unwrap();
        report.error(Some(start..start + 7), "`ü` is wrong");
        report.warning(None, "and so on");
        insta::assert_snapshot!(report, @r#"
        error: `ü` is wrong
         --> f.toml:2:5
          |
        2 | ü = "wrong"
          |     ^^^^^^^
        warning: and so on
         --> f.toml
        f.toml: 1 error, 1 warning
        "#);
    }

    #[test]
    fn a_file_of_secrets_is_not_quoted() {
        let mut report = Report::on_secrets(Path::new("users.toml"), "nt_hash = \"44ebba\"\n");
        report.error(Some(10..18), "too short");
        assert!(!report.to_string().contains("44ebba"));
        assert!(report.to_string().contains("users.toml:1:11"));
    }

    #[test]
    fn a_span_outside_of_the_source_does_not_panic() {
        let mut report = Report::new(Path::new("f"), "x");
        report.error(Some(7..9), "far out");
        assert!(report.to_string().contains("far out"));
    }

    #[test]
    fn the_nearest_word_is_near() {
        assert_eq!(nearest("adress", ["address", "users"]), Some("address"));
        assert_eq!(nearest("quite_else", ["address", "users"]), None);
    }
}
