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
    /// Stated by the kernel's documentation or source.
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

    /// Adds the two commands of a sysctl: to `want`, and back to `was`.
    pub(crate) fn by_sysctl(self, key: &str, want: &str, was: &str) -> Self {
        // Values such as `4096 131072 6291456` are one argument.
        let quoted = |value: &str| {
            if value.contains(char::is_whitespace) {
                format!("sysctl -w '{key}={value}'")
            } else {
                format!("sysctl -w {key}={value}")
            }
        };
        self.by(quoted(want), quoted(was))
    }
}
