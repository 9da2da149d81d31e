//! What a check says about one point of the host.
//!
//! A [`Point`] is the constant part (what should be, what it is worth and how that is known), a
//! [`Finding`] the point with what this host has and the commands that change it.

use serde::Serialize;

use crate::host::Unread;

/// How bad it is; ordered from harmless to fatal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// As it should be.
    Ok,
    /// Reported, neither good nor bad.
    Note,
    /// Could not be read, so nothing is said about it.
    Unknown,
    /// The gateway works, but slower or with less room than this host could give.
    Advice,
    /// The gateway, or a thing nearly everyone wants of it, does not work.
    Problem,
}

impl State {
    /// All, from harmless to fatal.
    pub(crate) const ALL: [Self; 5] = [
        Self::Ok,
        Self::Note,
        Self::Unknown,
        Self::Advice,
        Self::Problem,
    ];

    /// The word for people; the same as in JSON.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Unknown => "unknown",
            Self::Advice => "advice",
            Self::Problem => "problem",
        }
    }
}

/// How the worth of a point is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Basis {
    /// Measured by this project on its development machine.
    Measured,
    /// Stated by a public text: the kernel's documentation, a standard, another project.
    Documented,
    /// Follows by arithmetic from the values.
    Arithmetic,
}

impl Basis {
    /// The word for people; the same as in JSON.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Measured => "measured",
            Self::Documented => "documented",
            Self::Arithmetic => "arithmetic",
        }
    }
}

/// One thing that is looked at.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Point {
    /// `area.point`; stable, scripts select by it.
    #[serde(rename = "point")]
    pub(crate) name: &'static str,
    /// What it should be.
    pub(crate) should_be: &'static str,
    /// What that gains, or what is lost without it.
    pub(crate) worth: &'static str,
    /// How the worth is known.
    pub(crate) basis: Basis,
    /// Where: a table of this project, or a public text by its name.
    pub(crate) source: &'static str,
}

/// One thing that `sstp-tune apply` can do about a point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// A sysctl, now and at each start of the host.
    Sysctl { key: String, value: String },
    /// A value below `/sys` or `/proc`, now and at each start of the host.
    Value { path: String, value: String },
    /// The same of a thing that has another name after the next start: now only.
    Now { path: String, value: String },
    /// A line for the section `[Service]` of the gateway's unit.
    Unit { line: &'static str },
}

/// A point as it is on this host.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Finding {
    /// What was looked at.
    #[serde(flatten)]
    pub(crate) point: Point,
    /// How bad it is.
    pub(crate) state: State,
    /// What was found.
    pub(crate) found: String,
    /// The command that makes it as it should be, where one exists.
    pub(crate) set: Option<String>,
    /// The command that restores what was found.
    pub(crate) undo: Option<String>,
    /// The same for `apply`; empty where a person has to do it.
    #[serde(skip)]
    pub(crate) changes: Vec<Change>,
}

impl Point {
    /// The point in a given state.
    pub(crate) fn found(self, state: State, found: impl Into<String>) -> Finding {
        Finding {
            point: self,
            state,
            found: found.into(),
            set: None,
            undo: None,
            changes: Vec::new(),
        }
    }

    /// As it should be.
    pub(crate) fn ok(self, found: impl Into<String>) -> Finding {
        self.found(State::Ok, found)
    }

    /// Reported only.
    pub(crate) fn note(self, found: impl Into<String>) -> Finding {
        self.found(State::Note, found)
    }

    /// Works, but could be better.
    pub(crate) fn advice(self, found: impl Into<String>) -> Finding {
        self.found(State::Advice, found)
    }

    /// Does not work.
    pub(crate) fn problem(self, found: impl Into<String>) -> Finding {
        self.found(State::Problem, found)
    }

    /// `path` could not be read.
    pub(crate) fn unread(self, path: &str, why: Unread) -> Finding {
        self.found(State::Unknown, format!("{path}: {why}"))
    }
}

impl Finding {
    /// Adds the command that sets it and the one that undoes that.
    pub(crate) fn by(mut self, set: impl Into<String>, undo: impl Into<String>) -> Self {
        self.set = Some(set.into());
        self.undo = Some(undo.into());
        self
    }

    /// Adds the command of a change that there is no way back from, or none that is needed.
    pub(crate) fn by_only(mut self, set: impl Into<String>) -> Self {
        self.set = Some(set.into());
        self
    }

    /// Adds what `apply` would do.
    pub(crate) fn changing(mut self, changes: impl IntoIterator<Item = Change>) -> Self {
        self.changes.extend(changes);
        self
    }

    /// Adds the two commands of a sysctl: to `want`, and back to `was`.
    pub(crate) fn by_sysctl(self, key: &str, want: &str, was: &str) -> Self {
        self.by_sysctls(&[(key, want, was)])
    }

    /// Adds the two commands of several sysctls: key, to what, and what it was.
    pub(crate) fn by_sysctls(self, all: &[(&str, &str, &str)]) -> Self {
        // Values such as `4096 131072 6291456` are one argument.
        let command = |value: fn(&(&str, &str, &str)) -> String| {
            let words: Vec<String> = all
                .iter()
                .map(value)
                .map(|word| match word.contains(char::is_whitespace) {
                    true => format!("'{word}'"),
                    false => word,
                })
                .collect();
            format!("sysctl -w {}", words.join(" "))
        };
        let set = command(|(key, want, _)| format!("{key}={want}"));
        let undo = command(|(key, _, was)| format!("{key}={was}"));
        let changes = all.iter().map(|&(key, want, _)| Change::Sysctl {
            key: key.to_owned(),
            value: want.to_owned(),
        });
        self.by(set, undo).changing(changes)
    }

    /// Adds the two commands of one value below `/sys`: to `want`, and back to `was`.
    pub(crate) fn by_value(self, path: &str, want: &str, was: &str) -> Self {
        self.by(
            format!("echo {want} > {path}"),
            format!("echo {was} > {path}"),
        )
        .changing([Change::Value {
            path: path.to_owned(),
            value: want.to_owned(),
        }])
    }

    /// Adds a line of the gateway's unit.
    pub(crate) fn by_unit(self, line: &'static str) -> Self {
        self.by(
            format!("{line} under [Service] (systemctl edit sstp-gw)"),
            "remove the line (systemctl edit sstp-gw)",
        )
        .changing([Change::Unit { line }])
    }
}
