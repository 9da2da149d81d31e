//! What the compiler cannot see: the invariants of ARCHITECTURE.md, and a few habits, by reading the
//! sources of the whole workspace.
//!
//! Rules look at code: comments and literals are blanked out first, except where a rule is about lines.
#![expect(clippy::disallowed_methods, reason = "it reads the sources")]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// Columns of a line, at most; rustfmt keeps to 100 wherever it can.
const COLUMNS_MAX: usize = 110;
/// Lines of a file, at most.
const LINES_MAX: usize = 700;

/// Files with wide lines, and why.
const WIDE_FILES: [(&str, &str); 2] = [
    (
        "datapath/src/ppp/automaton.rs",
        "laid out like the table of RFC 1661 §4.1",
    ),
    (
        "datapath/tests/state_table.rs",
        "laid out like the tables of MS-SSTP",
    ),
];

/// Files of datapath that use the host's clock outside `sys`, and why.
const CLOCK_FILES: [(&str, &str); 1] = [(
    "datapath/tests/tls_openssl.rs",
    "it waits for another program",
)];

/// Files outside `sys` with `unsafe`, and why.
const UNSAFE_FILES: [(&str, &str); 1] = [(
    "bench/engines/src/sys.rs",
    "a plain ring and foreign runtimes, compared with what `sys` has",
)];

const VOCABULARY: [&str; 4] = ["time", "wire", "output", "crypto"];
const LAYERS: [&str; 6] = ["tls", "http", "sstp", "ppp", "ip", "services"];

/// One source file of the workspace.
struct Source {
    /// From the root of the workspace.
    path: String,
    text: String,
    /// The text without comments and literals, line by line as it was.
    code: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every Rust file of the workspace, the fuzz targets included.
fn sources() -> Vec<Source> {
    let root = root();
    let mut directories = vec![root.clone()];
    let mut sources = Vec::new();
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() {
                if name != "target" && !name.starts_with('.') {
                    directories.push(path);
                }
            } else if name.ends_with(".rs") {
                let text = fs::read_to_string(&path).unwrap();
                let path = path
                    .strip_prefix(&root)
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned();
                sources.push(Source {
                    path,
                    code: code_of(&text),
                    text,
                });
            }
        }
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(sources.len() > 100, "only {} files found", sources.len());
    sources
}

/// Blanks out comments, strings and characters; keeps the lines.
fn code_of(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let at = |index: usize| chars.get(index).copied().unwrap_or('\0');
    let mut code = String::with_capacity(text.len());
    let mut index = 0;
    while index < chars.len() {
        let (start, c) = (index, at(index));
        let is_word = start > 0 && (at(start - 1).is_alphanumeric() || at(start - 1) == '_');
        if c == '/' && at(index + 1) == '/' {
            while index < chars.len() && at(index) != '\n' {
                index += 1;
            }
        } else if c == '/' && at(index + 1) == '*' {
            let mut depth = 0;
            while index < chars.len() {
                match (at(index), at(index + 1)) {
                    ('/', '*') => depth += 1,
                    ('*', '/') => depth -= 1,
                    _ => {
                        index += 1;
                        continue;
                    }
                }
                index += 2;
                if depth == 0 {
                    break;
                }
            }
        } else if c == 'r'
            && !is_word
            && matches!(at(index + 1), '"' | '#')
            && raw(&chars, index) > 0
        {
            index = raw(&chars, index);
        } else if c == '"' {
            index += 1;
            while index < chars.len() && at(index) != '"' {
                index += 1 + usize::from(at(index) == '\\');
            }
            index += 1;
        } else if c == '\'' && (at(index + 1) == '\\' || at(index + 2) == '\'') {
            index += 2 + usize::from(at(index + 1) == '\\');
            while index < chars.len() && at(index) != '\'' {
                index += 1;
            }
            index += 1;
        } else {
            code.push(c);
            index += 1;
            continue;
        }
        let end = index.min(chars.len());
        code.extend(
            chars[start..end]
                .iter()
                .map(|&c| if c == '\n' { '\n' } else { ' ' }),
        );
    }
    code
}

/// The end of the raw string that begins at `start`; 0 if none does.
fn raw(chars: &[char], start: usize) -> usize {
    let hashes = chars[start + 1..].iter().take_while(|&&c| c == '#').count();
    if chars.get(start + 1 + hashes) != Some(&'"') {
        return 0;
    }
    let mut index = start + hashes + 2;
    while index < chars.len() {
        let is_end = chars[index] == '"'
            && chars[index + 1..]
                .iter()
                .take(hashes)
                .filter(|&&c| c == '#')
                .count()
                == hashes;
        index += 1;
        if is_end {
            return index + hashes;
        }
    }
    index
}

/// Every place of `word` in the code that is not part of a longer word, as line numbers.
fn lines_with(source: &Source, word: &str) -> Vec<usize> {
    let is_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let mut lines = Vec::new();
    for (number, line) in source.code.lines().enumerate() {
        let found = line.match_indices(word).any(|(at, _)| {
            !is_word(line[..at].chars().next_back())
                && !is_word(line[at + word.len()..].chars().next())
        });
        if found {
            lines.push(number + 1);
        }
    }
    lines
}

fn assert_clean(complaints: &str) {
    assert!(complaints.is_empty(), "\n{complaints}");
}

#[test]
fn tidy_comments_and_literals_are_not_code() {
    let text =
        "a // b\nc /* d /* e */ f\n*/ g \"h \\\" i\" j r#\"k \" l\"# m '\\'' n 'o' p<'q> b\"r\"";
    let words: Vec<_> = code_of(text)
        .split(|c: char| !c.is_alphanumeric())
        .map(str::to_owned)
        .collect();
    let words: Vec<_> = words.iter().filter(|word| !word.is_empty()).collect();
    assert_eq!(words, ["a", "c", "g", "j", "m", "n", "p", "q", "b"]);
    assert_eq!(code_of(text).lines().count(), text.lines().count());
}

#[test]
fn tidy_unsafe_only_under_sys() {
    let mut complaints = String::new();
    let mut count = 0;
    for source in sources() {
        let lines = lines_with(&source, "unsafe");
        let is_excused = UNSAFE_FILES.iter().any(|(path, _)| source.path == *path);
        if source.path.starts_with("datapath/src/sys/") || is_excused {
            count += lines.len();
        } else if !lines.is_empty() {
            let _ = writeln!(complaints, "{}: unsafe in lines {lines:?}", source.path);
        }
    }
    assert_clean(&complaints);
    assert!(count > 0, "the rule finds what it looks for");
}

/// The modules of this crate that the code names, with the line.
fn crate_modules(source: &Source) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, _) in source.code.match_indices("crate::") {
        let line = source.code[..at].lines().count();
        let rest = &source.code[at + "crate::".len()..];
        let mut name = |text: &str| {
            let name: String = text
                .chars()
                .take_while(|&c| c.is_alphanumeric() || c == '_')
                .collect();
            if !name.is_empty() {
                found.push((line, name));
            }
        };
        let Some(group) = rest.strip_prefix('{') else {
            name(rest);
            continue;
        };
        let mut depth = 0;
        let mut expects_name = true;
        for (at, c) in group.char_indices() {
            match c {
                '}' if depth == 0 => break,
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => expects_name = true,
                _ if expects_name && !c.is_whitespace() => {
                    name(&group[at..]);
                    expects_name = false;
                }
                _ => {}
            }
        }
    }
    found
}

/// The modules that a file of `depth` names by climbing up to the root of the crate.
fn climbed_modules(source: &Source, depth: usize) -> Vec<(usize, String)> {
    let up = "super::".repeat(depth);
    let mut found = Vec::new();
    for (number, line) in source.code.lines().enumerate() {
        if let Some((_, rest)) = line.split_once(&up) {
            let name = rest
                .split(|c: char| !c.is_alphanumeric() && c != '_')
                .next();
            found.extend(name.map(|name| (number + 1, name.to_owned())));
        }
    }
    found
}

#[test]
fn tidy_arrows_never_turn_back() {
    let mut complaints = String::new();
    let mut seen = 0;
    for source in sources() {
        let Some(inner) = source.path.strip_prefix("datapath/src/") else {
            continue;
        };
        let module = inner.split('/').next().unwrap().trim_end_matches(".rs");
        let mut allowed: Vec<&str> = vec![module];
        match module {
            "time" | "wire" | "output" => {}
            "crypto" => allowed.extend(VOCABULARY),
            "services" => {
                allowed.extend(VOCABULARY);
                allowed.push("ip");
            }
            layer if LAYERS.contains(&layer) => allowed.extend(VOCABULARY),
            "io" => allowed.push("time"),
            "session" => {
                allowed.extend(VOCABULARY);
                allowed.extend(LAYERS);
                allowed.push("io");
            }
            // Shard and sys meet only in io; sys also fills Entropy and reads Instants.
            "shard" => {
                allowed.extend(VOCABULARY);
                allowed.extend(LAYERS);
                allowed.extend(["io", "session"]);
            }
            // The vector kernels give what the scalar way in `ip::checksum` gives.
            "sys" => allowed.extend(["io", "time", "output", "ip"]),
            // Doubles and the map itself see everything.
            "testing" | "lib" => continue,
            other => panic!("datapath/src/{other} has no place in the order of modules"),
        }
        for (line, name) in crate_modules(&source) {
            seen += 1;
            let is_module = name
                .chars()
                .all(|c| c.is_lowercase() || c.is_numeric() || c == '_');
            if is_module && !allowed.contains(&name.as_str()) {
                let _ = writeln!(complaints, "{}:{line}: {module} uses {name}", source.path);
            }
        }
        let depth = inner.trim_end_matches("/mod.rs").split('/').count();
        for (line, name) in climbed_modules(&source, depth) {
            let is_top = VOCABULARY.contains(&name.as_str())
                || LAYERS.contains(&name.as_str())
                || ["session", "shard", "sys", "io", "testing"].contains(&name.as_str());
            if is_top && !allowed.contains(&name.as_str()) {
                let _ = writeln!(
                    complaints,
                    "{}:{line}: {module} climbs to {name}",
                    source.path
                );
            }
        }
    }
    assert_clean(&complaints);
    assert!(seen > 200, "the rule finds what it looks for: {seen}");
}

#[test]
fn tidy_the_world_is_touched_only_under_sys() {
    let mut complaints = String::new();
    for source in sources() {
        let is_excused = CLOCK_FILES.iter().any(|(path, _)| source.path == *path);
        if !source.path.starts_with("datapath/")
            || source.path.starts_with("datapath/src/sys/")
            || source.path.starts_with("datapath/fuzz/")
            || is_excused
        {
            continue;
        }
        for word in [
            "Instant::now",
            "SystemTime::now",
            "thread::sleep",
            "thread::spawn",
        ] {
            for line in lines_with(&source, word) {
                let _ = writeln!(complaints, "{}:{line}: {word}", source.path);
            }
        }
    }
    assert_clean(&complaints);
}

#[test]
fn tidy_nothing_is_left_undone() {
    let mut complaints = String::new();
    for source in sources() {
        for word in ["todo!", "unimplemented!", "dbg!", "#[ignore"] {
            for line in lines_with(&source, word) {
                let _ = writeln!(complaints, "{}:{line}: {word}", source.path);
            }
        }
    }
    assert_clean(&complaints);
}

/// A line that is long for a text meant for people, which is not cut.
fn is_text(line: &str) -> bool {
    let quoted = line
        .split('"')
        .skip(1)
        .map(|part| part.chars().count())
        .max();
    quoted.is_some_and(|len| len > 30)
}

#[test]
fn tidy_lines_and_files_fit() {
    let mut complaints = String::new();
    for source in sources() {
        let is_wide = WIDE_FILES.iter().any(|(path, _)| source.path == *path);
        let codes = source.code.lines().chain(std::iter::repeat(""));
        for (number, (line, code)) in source.text.lines().zip(codes).enumerate() {
            let columns = line.chars().count();
            // A continued text has no quotes on its line: there the code is blank.
            if columns > COLUMNS_MAX && !is_wide && !is_text(line) && code.trim().len() > 3 {
                let _ = writeln!(
                    complaints,
                    "{}:{}: {columns} columns",
                    source.path,
                    number + 1
                );
            }
            if line.starts_with("//") && columns > COLUMNS_MAX {
                let _ = writeln!(
                    complaints,
                    "{}:{}: {columns} columns",
                    source.path,
                    number + 1
                );
            }
            if line.contains('\t') || line.ends_with(' ') {
                let _ = writeln!(
                    complaints,
                    "{}:{}: tab or blank at end",
                    source.path,
                    number + 1
                );
            }
        }
        let lines = source.text.lines().count();
        if lines > LINES_MAX {
            let _ = writeln!(complaints, "{}: {lines} lines", source.path);
        }
    }
    let excuses = WIDE_FILES.iter().chain(&CLOCK_FILES);
    for (path, reason) in excuses.chain(&UNSAFE_FILES) {
        if !root().join(path).exists() || reason.is_empty() {
            let _ = writeln!(complaints, "{path} is excused but not there");
        }
    }
    assert_clean(&complaints);
}

#[test]
fn tidy_every_file_says_what_it_is() {
    let mut complaints = String::new();
    for source in sources() {
        // Their headers are those of what they test.
        let is_part = source.path.ends_with("/tests.rs") || source.path.contains("/fuzz_targets/");
        let has_header = source.text.starts_with("//!") || source.text.starts_with("#![doc");
        if !has_header && !is_part {
            let _ = writeln!(complaints, "{}: no header", source.path);
        }
    }
    assert_clean(&complaints);
}
