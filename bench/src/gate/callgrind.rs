//! callgrind: told by function names what to count, and what it wrote.
//!
//! ```text
//! fn=datapath::tls::connection::Connection::seal      a function
//! 516 13                                              a line of it, and instructions there
//! cfn=aws_lc_0_47_0_EVP_AEAD_CTX_seal_scatter         a function that it called
//! calls=1 208
//! 516 37752                                           from this line, and instructions in there
//! totals: 38142
//! ```

use std::io;
use std::path::{Path, PathBuf};
use std::{env, fs, process};

/// What is counted: from the entry of [`crate::paths`]' `measured_run` until it returns, but for
/// `unmeasured_run`. Names are written out.
const OPTIONS: [&str; 6] = [
    "-q",
    "--tool=callgrind",
    "--collect-atstart=no",
    // One pattern for both: each entry and each return turns counting on or off.
    "--toggle-collect=*measured_run*",
    "--compress-strings=no",
    "--compress-pos=no",
];

/// Instructions of a measured run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) total: u64,
    /// Of them, those in the cryptographic library, its C and its assembler.
    pub(super) library: u64,
}

/// The file that a traced run leaves.
#[derive(Debug)]
pub(super) struct Profile {
    path: PathBuf,
}

impl Profile {
    /// A place for the one with this number.
    pub(super) fn new(number: usize) -> Self {
        let name = format!("sstp-bench-gate-{}-{number}", process::id());
        Self {
            path: env::temp_dir().join(name),
        }
    }

    /// The options that make callgrind write it.
    pub(super) fn options(&self) -> Vec<String> {
        let mut options: Vec<_> = OPTIONS.map(str::to_owned).into();
        options.push(format!("--callgrind-out-file={}", self.path.display()));
        options
    }

    /// What it says.
    pub(super) fn read(&self) -> io::Result<Counted> {
        let text = fs::read_to_string(&self.path)
            .map_err(|error| failed(&self.path, &error.to_string()))?;
        counted(&text).ok_or_else(|| failed(&self.path, "callgrind gave no total"))
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn failed(path: &Path, why: &str) -> io::Error {
    io::Error::other(format!("{}: {why}", path.display()))
}

/// Reads a profile.
fn counted(profile: &str) -> Option<Counted> {
    let (mut caller, mut callee) = ("", "");
    let mut counted = Counted::default();
    let mut has_total = false;
    let mut lines = profile.lines();
    while let Some(line) = lines.next() {
        if let Some(name) = line.strip_prefix("fn=") {
            caller = name;
        } else if let Some(name) = line.strip_prefix("cfn=") {
            callee = name;
        } else if line.starts_with("calls=") {
            let instructions: u64 = lines.next()?.rsplit(' ').next()?.parse().ok()?;
            if is_rust(caller) && is_library(callee) {
                counted.library += instructions;
            }
        } else if let Some(total) = line.strip_prefix("totals:") {
            counted.total = total.trim().parse().ok()?;
            has_total = true;
        }
    }
    has_total.then_some(counted)
}

/// Names of C have no path.
fn is_rust(name: &str) -> bool {
    name.contains("::")
}

/// Entries of AWS-LC carry its version.
fn is_library(name: &str) -> bool {
    let rest = name.strip_prefix("aws_lc_");
    rest.is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_is_what_rust_calls_of_it() {
        let profile = "events: Ir\nfn=aws_lc_rs::aead::UnboundKey::open_within\n1 5\n\
            cfn=aws_lc_0_47_0_EVP_AEAD_CTX_open\ncalls=2 9\n320 700\n2 5\n\n\
            fn=aws_lc_0_47_0_EVP_AEAD_CTX_open\n1 10\n\
            cfn=aws_lc_0_47_0_EVP_AEAD_CTX_open_gather\ncalls=2 9\n1 690\n\n\
            fn=open_impl\ncfn=aws_lc_0_47_0_CRYPTO_gcm128_aad\ncalls=1 1\n1 60\n\
            fn=bench::paths::run\ncfn=aws_lc_rs::aead::UnboundKey::open_within\ncalls=1 1\n1 710\n\
            totals: 730\n";
        let expected = Counted {
            total: 730,
            library: 700,
        };
        assert_eq!(counted(profile), Some(expected));
        assert_eq!(counted("fn=main\n"), None);
    }
}
