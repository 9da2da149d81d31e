//! Takes the keys of a TOML table one by one and says everything that is wrong with them.
//!
//! A [`Section`] is one table. Each key is asked for once, with its type; a wrong value is reported
//! where it stands and read as absent, so that the reading goes on. [`Section::finish`] reports the
//! keys nobody asked for, with the nearest one that was: the keys asked for *are* the format.
//!
//! serde stops at the first error, which is why it is not used here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::ops::{Deref, Range, RangeInclusive};
use std::str::FromStr;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::diagnostics::{Report, nearest};

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Placed<T> {
    pub(crate) value: T,
    pub(crate) span: Range<usize>,
}

impl<T> Deref for Placed<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> Placed<T> {
    /// The span, as reports want it.
    pub(crate) fn place(&self) -> Option<Range<usize>> {
        Some(self.span.clone())
    }
}

/// One table of the file.
#[derive(Debug)]
pub(crate) struct Section<'a> {
    name: String,
    span: Option<Range<usize>>,
    entries: BTreeMap<&'a str, (Range<usize>, &'a Spanned<DeValue<'a>>)>,
    asked: BTreeSet<&'static str>,
    /// It stands in the file, but not as a table: said once, its keys are not missed.
    broken: bool,
}

impl<'a> Section<'a> {
    /// The whole file.
    pub(crate) fn root(table: &'a DeTable<'a>) -> Self {
        Self::new(String::new(), None, table)
    }

    fn new(name: String, span: Option<Range<usize>>, table: &'a DeTable<'a>) -> Self {
        let entries = table
            .iter()
            .map(|(key, value)| (key.get_ref().as_ref(), (key.span(), value)))
            .collect();
        Self {
            name,
            span,
            entries,
            asked: BTreeSet::new(),
            broken: false,
        }
    }

    /// Where the table stands; nowhere if it is the file or absent.
    pub(crate) fn place(&self) -> Option<Range<usize>> {
        self.span.clone()
    }

    /// The key as an operator would name it.
    fn path(&self, key: &str) -> String {
        if self.name.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.name)
        }
    }

    fn take(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.asked.insert(key);
        self.entries.remove(key).map(|(_, value)| value)
    }

    fn mistyped(&self, key: &str, found: &Spanned<DeValue<'_>>, wanted: &str, report: &mut Report) {
        report.error(
            Some(found.span()),
            format!(
                "`{}` is {}, but must be {wanted}",
                self.path(key),
                with_article(found.get_ref().type_str())
            ),
        );
    }

    /// A string.
    pub(crate) fn string(
        &mut self,
        key: &'static str,
        report: &mut Report,
    ) -> Option<Placed<String>> {
        let found = self.take(key)?;
        match found.get_ref().as_str() {
            Some(text) => Some(Placed {
                value: text.to_owned(),
                span: found.span(),
            }),
            None => {
                self.mistyped(key, found, "a string", report);
                None
            }
        }
    }

    /// A string that parses as `T`; `wanted` says what it must be, with an example.
    pub(crate) fn parsed<T>(
        &mut self,
        key: &'static str,
        wanted: &str,
        report: &mut Report,
    ) -> Option<Placed<T>>
    where
        T: FromStr<Err: Display>,
    {
        let text = self.string(key, report)?;
        self.parse(key, &text, wanted, report)
    }

    fn parse<T>(
        &self,
        key: &str,
        text: &Placed<String>,
        wanted: &str,
        report: &mut Report,
    ) -> Option<Placed<T>>
    where
        T: FromStr<Err: Display>,
    {
        match text.value.parse() {
            Ok(value) => Some(Placed {
                value,
                span: text.span.clone(),
            }),
            Err(error) => {
                report.error(
                    text.place(),
                    format!(
                        "`{}` = \"{}\": {error}; it must be {wanted}",
                        self.path(key),
                        text.value
                    ),
                );
                None
            }
        }
    }

    /// A list of strings, each of which parses as `T`; absent is `None`.
    pub(crate) fn list<T>(
        &mut self,
        key: &'static str,
        wanted: &str,
        report: &mut Report,
    ) -> Option<Vec<Placed<T>>>
    where
        T: FromStr<Err: Display>,
    {
        let found = self.take(key)?;
        let Some(items) = found.get_ref().as_array() else {
            self.mistyped(key, found, &format!("a list, each item {wanted}"), report);
            return None;
        };
        let mut values = Vec::new();
        for item in items {
            let Some(text) = item.get_ref().as_str() else {
                self.mistyped(key, item, &format!("a string: {wanted}"), report);
                continue;
            };
            let text = Placed {
                value: text.to_owned(),
                span: item.span(),
            };
            values.extend(self.parse(key, &text, wanted, report));
        }
        Some(values)
    }

    /// A whole number within `range`.
    pub(crate) fn integer<T>(
        &mut self,
        key: &'static str,
        range: RangeInclusive<T>,
        report: &mut Report,
    ) -> Option<Placed<T>>
    where
        T: TryFrom<i128> + PartialOrd + Display,
    {
        let found = self.take(key)?;
        let wanted = format!("a whole number from {} to {}", range.start(), range.end());
        let Some(integer) = found.get_ref().as_integer() else {
            self.mistyped(key, found, &wanted, report);
            return None;
        };
        let value = i128::from_str_radix(integer.as_str(), integer.radix())
            .ok()
            .and_then(|value| T::try_from(value).ok())
            .filter(|value| range.contains(value));
        if value.is_none() {
            report.error(
                Some(found.span()),
                format!(
                    "`{}` = {}: it must be {wanted}",
                    self.path(key),
                    integer.as_str()
                ),
            );
        }
        Some(Placed {
            value: value?,
            span: found.span(),
        })
    }

    /// `true` or `false`.
    pub(crate) fn boolean(&mut self, key: &'static str, report: &mut Report) -> Option<bool> {
        let found = self.take(key)?;
        let value = found.get_ref().as_bool();
        if value.is_none() {
            self.mistyped(key, found, "true or false", report);
        }
        value
    }

    /// A duration such as "30s" within `range`.
    pub(crate) fn duration(
        &mut self,
        key: &'static str,
        range: RangeInclusive<Duration>,
        report: &mut Report,
    ) -> Option<Duration> {
        let wanted = format!(
            "a duration from {} to {}, for example \"30s\"",
            Span(*range.start()),
            Span(*range.end())
        );
        let placed = self.parsed::<Span>(key, &wanted, report)?;
        if range.contains(&placed.0) {
            return Some(placed.0);
        }
        report.error(
            placed.place(),
            format!(
                "`{}` = \"{}\": it must be {wanted}",
                self.path(key),
                placed.value
            ),
        );
        None
    }

    /// A table; an absent one has no entries, so that its defaults hold.
    pub(crate) fn section(&mut self, key: &'static str, report: &mut Report) -> Self {
        let found = self.take(key);
        let name = format!("{}{key}", self.prefix());
        let empty = |broken| Self {
            name: name.clone(),
            span: None,
            entries: BTreeMap::new(),
            asked: BTreeSet::new(),
            broken,
        };
        let Some(found) = found else {
            return empty(false);
        };
        match found.get_ref().as_table() {
            Some(table) => Self::new(name, Some(found.span()), table),
            None => {
                self.mistyped(key, found, &format!("a table: [{name}]"), report);
                empty(true)
            }
        }
    }

    /// The tables of an array of tables, in order.
    pub(crate) fn sections(&mut self, key: &'static str, report: &mut Report) -> Vec<Self> {
        let Some(found) = self.take(key) else {
            return Vec::new();
        };
        let name = format!("{}{key}", self.prefix());
        let Some(items) = found.get_ref().as_array() else {
            self.mistyped(
                key,
                found,
                &format!("one or more tables: [[{name}]]"),
                report,
            );
            return Vec::new();
        };
        let mut sections = Vec::new();
        for item in items {
            match item.get_ref().as_table() {
                Some(table) => sections.push(Self::new(name.clone(), Some(item.span()), table)),
                None => self.mistyped(key, item, &format!("a table: [[{name}]]"), report),
            }
        }
        sections
    }

    fn prefix(&self) -> String {
        if self.name.is_empty() {
            String::new()
        } else {
            format!("{}.", self.name)
        }
    }

    /// Reports that `key`, which must be there, is not.
    pub(crate) fn missing(&self, key: &str, example: &str, report: &mut Report) {
        if self.broken {
            return;
        }
        report.error(
            self.place(),
            format!("`{}` is missing; add: {example}", self.path(key)),
        );
    }

    /// Whether `key` was there when the reading began and has not been asked for.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// Reports the keys nobody asked for.
    pub(crate) fn finish(self, report: &mut Report) {
        for (key, (span, _)) in &self.entries {
            let path = self.path(key);
            let hint = match nearest(key, self.asked.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => {
                    let known: Vec<_> = self.asked.iter().map(|key| format!("`{key}`")).collect();
                    format!("known here: {}", known.join(", "))
                }
            };
            report.error(Some(span.clone()), format!("`{path}` is unknown; {hint}"));
        }
    }
}

fn with_article(kind: &str) -> String {
    match kind {
        "integer" | "array" | "inline table" => format!("an {kind}"),
        kind => format!("a {kind}"),
    }
}

/// A duration as it stands in the file: a whole number and `ms`, `s`, `m` or `h`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Span(Duration);

impl FromStr for Span {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let number: u64 = number
            .parse()
            .map_err(|_| "it does not begin with a number")?;
        let millis = match unit {
            "ms" => Some(number),
            "s" => number.checked_mul(1_000),
            "m" => number.checked_mul(60_000),
            "h" => number.checked_mul(3_600_000),
            _ => return Err("its unit is none of ms, s, m, h"),
        };
        millis
            .map(|millis| Self(Duration::from_millis(millis)))
            .ok_or("it is too long")
    }
}

impl Display for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let millis = self.0.as_millis();
        for (unit, name) in [(3_600_000, "h"), (60_000, "m"), (1_000, "s")] {
            if millis > 0 && millis.is_multiple_of(unit) {
                return write!(f, "{}{name}", millis / unit);
            }
        }
        write!(f, "{millis}ms")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_print_alike() {
        for text in ["250ms", "30s", "90m", "24h"] {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "30",
            "s",
            "1.5s",
            "-1s",
            "30 s",
            "99999999999999999999s",
        ] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
        assert!("18446744073709551615h".parse::<Span>().is_err());
    }
}
