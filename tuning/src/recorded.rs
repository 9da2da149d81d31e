//! A host in one text: what a check would read, file by file, written by `sstp-tune record` or by hand.
//!
//! ```text
//! # a comment, before the first file
//! --- /proc/sys/kernel/osrelease
//! 6.12.48+deb13-amd64
//! --- /etc/sstp-gw/key.pem mode=0600 uid=0
//! --- /proc/slabinfo denied
//! --- /sys/devices/system/cpu/cpu{0..63}/cpufreq/scaling_governor
//! performance
//! --- /proc/irq/{120..183}/smp_affinity_list
//! {n-120}
//! ```
//!
//! `{a..b}` in a path stands for that many files, `{n}`, `{n+k}` and `{n-k}` in their contents for the
//! number of each; `{a..b}` in contents for that many lines. A later file replaces an earlier one of the
//! same path. What a program or a probe said is a file below `/tool` or `/probe`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// The first line of what `sstp-tune record` prints.
pub(crate) const HEADING: &str = "# a host as sstp-tune read it";

/// Files and lines that one range stands for, at most.
const RANGE_MAX: u32 = 4_096;
/// Files of one host, at most.
const FILES_MAX: usize = 65_536;

/// One file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    /// What is in it; `None` if it may not be read.
    pub(crate) contents: Option<Vec<u8>>,
    /// Permission bits, and whose it is.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
}

/// The files of a host, by absolute path.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recorded {
    pub(crate) files: BTreeMap<String, Entry>,
}

impl Recorded {
    /// Reads the text; `Err` says which line is wrong.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut recorded = Self::default();
        let mut open: Option<(&str, Vec<&str>)> = None;
        for (line, number) in text.lines().zip(1_u32..) {
            if let Some(head) = line.strip_prefix("--- ") {
                if let Some((head, lines)) = open.replace((head, Vec::new())) {
                    recorded.add(head, &lines)?;
                }
            } else if let Some((_, lines)) = &mut open {
                lines.push(line);
            } else if !line.is_empty() && !line.starts_with('#') {
                return Err(format!(
                    "line {number}: expected `--- /path` before any contents"
                ));
            }
        }
        if let Some((head, lines)) = open {
            recorded.add(head, &lines)?;
        }
        Ok(recorded)
    }

    fn add(&mut self, head: &str, lines: &[&str]) -> Result<(), String> {
        let mut words = head.split_whitespace();
        let path = words.next().unwrap_or_default();
        if !path.starts_with('/') {
            return Err(format!("`--- {head}`: the path must be absolute"));
        }
        let mut entry = Entry {
            contents: Some(Vec::new()),
            mode: 0o644,
            uid: 0,
        };
        for word in words {
            let value = match word.split_once('=') {
                None if word == "denied" => {
                    entry.contents = None;
                    continue;
                }
                Some(("mode", mode)) => u32::from_str_radix(mode, 8).map(|mode| entry.mode = mode),
                Some(("uid", uid)) => uid.parse().map(|uid| entry.uid = uid),
                _ => return Err(format!("`--- {head}`: `{word}` is not understood")),
            };
            value.map_err(|error| format!("`--- {head}`: `{word}`: {error}"))?;
        }
        let mut put = |path: String, number: Option<u32>| -> Result<(), String> {
            let mut entry = entry.clone();
            if let Some(contents) = &mut entry.contents {
                *contents = expand(lines, number)?.into_bytes();
            }
            self.files.insert(path, entry);
            if self.files.len() > FILES_MAX {
                return Err(format!("more than {FILES_MAX} files"));
            }
            Ok(())
        };
        match range(path)? {
            None => put(path.to_owned(), None),
            Some((before, numbers, after)) => {
                for number in numbers {
                    put(format!("{before}{number}{after}"), Some(number))?;
                }
                Ok(())
            }
        }
    }

    /// The text of it.
    pub(crate) fn text(&self) -> String {
        let mut out = format!("{HEADING}\n");
        for (path, entry) in &self.files {
            // Writing to a String cannot fail.
            let _ = write!(out, "--- {path}");
            if entry.mode != 0o644 || entry.uid != 0 {
                let _ = write!(out, " mode={:04o} uid={}", entry.mode, entry.uid);
            }
            match &entry.contents {
                None => out.push_str(" denied\n"),
                Some(contents) => {
                    out.push('\n');
                    for line in String::from_utf8_lossy(contents).lines() {
                        // A line of contents is never taken for the head of a file.
                        if line.starts_with("--- ") {
                            out.push(' ');
                        }
                        out.push_str(line);
                        out.push('\n');
                    }
                }
            }
        }
        out
    }
}

/// The contents, of the file with this number.
fn expand(lines: &[&str], number: Option<u32>) -> Result<String, String> {
    let mut out = String::new();
    for line in lines {
        match range(line)? {
            Some((before, numbers, after)) => {
                for number in numbers {
                    let _ = writeln!(out, "{before}{number}{after}");
                }
            }
            None => {
                let _ = writeln!(out, "{}", numbered(line, number));
            }
        }
    }
    Ok(out)
}

/// `line` with the number in place of `{n}`, `{n+k}` and `{n-k}`.
fn numbered(line: &str, number: Option<u32>) -> String {
    let value = |inner: &str| {
        let rest = inner.strip_prefix('n')?;
        let number = number?;
        match rest.split_at_checked(1) {
            None => Some(number),
            Some(("+", k)) => number.checked_add(k.parse().ok()?),
            Some(("-", k)) => number.checked_sub(k.parse().ok()?),
            Some(_) => None,
        }
    };
    let found = line.split_once('{').and_then(|(before, rest)| {
        let (inner, after) = rest.split_once('}')?;
        Some((before, value(inner)?, after))
    });
    match found {
        Some((before, value, after)) => format!("{before}{value}{}", numbered(after, number)),
        None => line.to_owned(),
    }
}

/// What is before `{a..b}`, its numbers, and what is after.
#[expect(clippy::type_complexity, reason = "used in two places below")]
fn range(text: &str) -> Result<Option<(&str, std::ops::RangeInclusive<u32>, &str)>, String> {
    let found = text.split_once('{').and_then(|(before, rest)| {
        let (inner, after) = rest.split_once('}')?;
        let (first, last) = inner.split_once("..")?;
        let first: u32 = first.parse().ok()?;
        let last: u32 = last.parse().ok()?;
        Some((before, first..=last, after))
    });
    match found {
        Some((_, numbers, _)) if numbers.end().saturating_sub(*numbers.start()) >= RANGE_MAX => {
            Err(format!("`{text}`: a range of more than {RANGE_MAX}"))
        }
        found => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(recorded: &Recorded, path: &str) -> String {
        let entry = recorded.files.get(path).expect("the file");
        String::from_utf8(entry.contents.clone().expect("readable")).expect("UTF-8")
    }

    #[test]
    fn ranges_stand_for_files_and_lines() {
        let recorded = Recorded::parse(
            "# host\n--- /a{8..10}/b\n{n-8} of {n}\n--- /c\nx {0..2}\n--- /d denied\n--- /e mode=0600 uid=7\n",
        )
        .unwrap();
        assert_eq!(contents(&recorded, "/a9/b"), "1 of 9\n");
        assert_eq!(contents(&recorded, "/c"), "x 0\nx 1\nx 2\n");
        assert_eq!(recorded.files["/d"].contents, None);
        assert_eq!(
            (recorded.files["/e"].mode, recorded.files["/e"].uid),
            (0o600, 7)
        );
        assert_eq!(recorded.files.len(), 6);
    }

    #[test]
    fn what_is_written_is_read_again() {
        let recorded =
            Recorded::parse("--- /a\none\ntwo\n--- /b denied\n--- /c mode=0640 uid=3\n").unwrap();
        let again = Recorded::parse(&recorded.text()).unwrap();
        assert_eq!(again.files, recorded.files);
    }

    #[test]
    fn mistakes_are_named() {
        for (text, says) in [
            ("6.12\n", "line 1"),
            ("--- relative\n", "absolute"),
            ("--- /a wrong\n", "`wrong`"),
            ("--- /a mode=9\n", "mode=9"),
            ("--- /a{0..4294967295}\n", "range"),
        ] {
            let error = Recorded::parse(text).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
