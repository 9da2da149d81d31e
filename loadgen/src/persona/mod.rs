//! What known clients do on the wire, as far as that is known, for `--persona`.
//!
//! A [`Persona`] is plain values for the data path's client role, beside a list of [`Fact`]s: each
//! says what the client does and how that is known. `--help` shows the facts, so whoever reads a
//! result can tell what was imitated, what was guessed and what was left out.
//!
//! No persona imitates a client's own impatience (Open SSTP Client gives authentication 3 s): a busy
//! generator would then look like a slow server.

mod mix;
mod table;

use std::fmt::Write as _;

use datapath::ppp::auth::AuthMethod;
use datapath::ppp::link::{NetworkOrder, Persona as Options};
use datapath::session::Habits;
use datapath::time::Duration;
use datapath::tls::{Suite, Version};

pub(crate) use self::mix::Mix;
pub(crate) use self::table::PERSONAS;

/// A client to imitate.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Persona {
    /// As `--persona` takes it.
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    /// The lowest and the highest version of TLS.
    pub(crate) versions: [Version; 2],
    /// AEADs, best first.
    pub(crate) suites: &'static [Suite],
    pub(crate) sni: bool,
    pub(crate) record_per_packet: bool,
    pub(crate) habits: Habits,
    pub(crate) mru: u16,
    pub(crate) options: Options,
    /// Best first.
    pub(crate) methods: &'static [AuthMethod],
    pub(crate) identifications: &'static [&'static [u8]],
    pub(crate) ccp: Option<&'static [u8]>,
    pub(crate) network_order: NetworkOrder,
    /// Asks by DHCPINFORM once it has an address.
    pub(crate) dhcp: bool,
    pub(crate) sstp_echo: Duration,
    pub(crate) sstp_echo_unanswered_max: u8,
    pub(crate) lcp_echo: Option<Duration>,
    pub(crate) facts: &'static [Fact],
}

/// What a fact is about; every persona has at least one of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aspect {
    Tls,
    Suites,
    Sni,
    Http,
    Records,
    Lcp,
    Auth,
    Network,
    Ccp,
    Dhcp,
    Echo,
    End,
}

impl Aspect {
    #[cfg(test)]
    const ALL: [Self; 12] = [
        Self::Tls,
        Self::Suites,
        Self::Sni,
        Self::Http,
        Self::Records,
        Self::Lcp,
        Self::Auth,
        Self::Network,
        Self::Ccp,
        Self::Dhcp,
        Self::Echo,
        Self::End,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Tls => "TLS",
            Self::Suites => "suites",
            Self::Sni => "SNI",
            Self::Http => "HTTP",
            Self::Records => "records",
            Self::Lcp => "LCP",
            Self::Auth => "auth",
            Self::Network => "network",
            Self::Ccp => "CCP",
            Self::Dhcp => "DHCP",
            Self::Echo => "echo",
            Self::End => "end",
        }
    }
}

/// How a fact is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Read in a specification, in the client's source or documentation, or in a log of it.
    Known,
    /// Plausible; nobody looked.
    Unverified,
    /// The client is known, or thought, to do something else that this program cannot or does not do.
    NotImitated,
}

/// One thing that a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fact {
    pub(crate) aspect: Aspect,
    pub(crate) text: &'static str,
    pub(crate) source: Source,
}

/// The long help of `--persona`.
pub(crate) fn help() -> String {
    let mut help = "Behave on the wire as this client does, or as a mix of several: \
                    windows-11=6,routeros=1,sstpc=3. Flags that are given win over what the persona \
                    would do.\n\n\
                    What each does; [unverified] is plausible but seen by nobody, [not imitated] is \
                    known to be otherwise:\n"
        .to_owned();
    for persona in PERSONAS {
        // Writing to a String does not fail.
        let _ = write!(help, "\n{}: {}\n", persona.name, persona.title);
        for fact in persona.facts {
            let mark = match fact.source {
                Source::Known => "",
                Source::Unverified => " [unverified]",
                Source::NotImitated => " [not imitated]",
            };
            let _ = writeln!(help, "  {}: {}{mark}", fact.aspect.name(), fact.text);
        }
    }
    help
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_persona_has_a_fact_of_each_aspect() {
        for persona in PERSONAS {
            for aspect in Aspect::ALL {
                assert!(
                    persona.facts.iter().any(|fact| fact.aspect == aspect),
                    "{}: {aspect:?}",
                    persona.name
                );
            }
        }
    }

    #[test]
    fn the_help_marks_what_nobody_has_seen() {
        let help = help();
        let of = |name: &str| {
            let start = help.find(&format!("\n{name}: ")).unwrap();
            let rest = &help[start + 1..];
            rest.split_once("\n\n")
                .map_or(rest, |(own, _)| own)
                .to_owned()
        };
        let ios = of("sstp-connect");
        let lines = ios.lines().count() - 1;
        let marked = ios.matches("[unverified]").count();
        assert!(marked + 3 >= lines, "next to nothing is known of it: {ios}");
        let windows = of("windows-10");
        assert!(windows.contains("  LCP: asks MRU 4091"), "{windows}");
        assert!(of("routeros").contains("AES-CBC-SHA"));
    }
}
