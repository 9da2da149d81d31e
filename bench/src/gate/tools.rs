//! What instruction counts depend on beside the source: who made the binary, and what it runs on.

use std::process::Command;

use serde::{Deserialize, Serialize};

/// The tools, as they name themselves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tools {
    /// Compiles everything but the cryptography.
    pub rustc: String,
    /// Compiles the C in the cryptography.
    pub cc: String,
    /// Plays the processor.
    pub valgrind: String,
    /// Copies memory and allocates.
    pub libc: String,
    /// What of the host's processor shows through valgrind.
    pub processor: String,
}

/// Which instructions may be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judged {
    /// Those of everything but the cryptographic library.
    pub own: bool,
    /// Those in it.
    pub library: bool,
}

impl Tools {
    /// What may be compared with what was counted with the tools `then`. On a processor without AVX2
    /// everything is another way; the C compiler makes the cryptographic library only.
    #[must_use]
    pub fn judged_beside(&self, then: &Self) -> Judged {
        let own = Self {
            cc: then.cc.clone(),
            ..self.clone()
        } == *then;
        Judged {
            own,
            library: own && self.cc == then.cc,
        }
    }

    /// Those of this machine.
    #[must_use]
    pub fn here() -> Self {
        let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
        Self {
            rustc: first_line("rustc", "--version"),
            cc: first_line(&compiler, "--version"),
            valgrind: first_line("valgrind", "--version"),
            libc: first_line("ldd", "--version"),
            processor: processor(),
        }
    }

    /// What differs from `other`, in words; empty if nothing does.
    #[must_use]
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let pairs = [
            ("rustc", &self.rustc, &other.rustc),
            ("cc", &self.cc, &other.cc),
            ("valgrind", &self.valgrind, &other.valgrind),
            ("libc", &self.libc, &other.libc),
            ("processor", &self.processor, &other.processor),
        ];
        pairs
            .into_iter()
            .filter(|(_, this, that)| this != that)
            .map(|(name, this, that)| format!("{name}: {that} then, {this} now"))
            .collect()
    }
}

fn first_line(program: &str, argument: &str) -> String {
    let output = Command::new(program)
        .arg(argument)
        .current_dir(super::crate_root())
        .output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    text.ok()
        .and_then(|text| text.lines().next().map(str::to_owned))
        .unwrap_or_else(|| "unknown".to_owned())
}

/// valgrind plays a Haswell where the host has AVX2, and something lesser where not: wider vectors and
/// VAES, which the host may have, are never seen by what is counted.
fn processor() -> String {
    #[cfg(target_arch = "x86_64")]
    let features = [
        ("avx2", is_x86_feature_detected!("avx2")),
        ("aes", is_x86_feature_detected!("aes")),
        ("pclmulqdq", is_x86_feature_detected!("pclmulqdq")),
        ("bmi2", is_x86_feature_detected!("bmi2")),
    ];
    #[cfg(not(target_arch = "x86_64"))]
    let features: [(&str, bool); 0] = [];
    let mut text = std::env::consts::ARCH.to_owned();
    for (name, _) in features.into_iter().filter(|(_, is_here)| *is_here) {
        text.push(' ');
        text.push_str(name);
    }
    text
}
