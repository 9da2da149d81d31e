//! A scenario file as it is written (TOML), before it is known whether it makes sense.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::word::{Amount, Checked, FarEnd, Rate, Secret, Window, Word};
use crate::flags;
use crate::fleet::sizes::Sizes;
use crate::fleet::threshold::Threshold;

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct File {
    pub(super) seed: Option<u64>,
    #[serde(default)]
    pub(super) fail: Vec<Word<Checked<Threshold>>>,
    #[serde(default)]
    pub(super) server: Server,
    #[serde(default)]
    pub(super) users: Users,
    #[serde(default)]
    pub(super) personas: Option<Spanned<BTreeMap<String, u32>>>,
    #[serde(default)]
    pub(super) clients: Clients,
    #[serde(default, rename = "phase")]
    pub(super) phases: Vec<Spanned<Phase>>,
}

/// `[server]`: whom to connect to, and whom to trust.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Server {
    pub(super) address: Option<Word<Checked<flags::Server>>>,
    pub(super) name: Option<String>,
    pub(super) ca: Option<PathBuf>,
    #[serde(default)]
    pub(super) insecure_accept_any_certificate: bool,
}

/// `[users]`: a pattern with one password, or a file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Users {
    pub(super) pattern: Option<String>,
    pub(super) first: Option<u32>,
    pub(super) password: Option<Secret>,
    pub(super) file: Option<PathBuf>,
}

/// `[clients]`: what the flags of the same names say.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Clients {
    pub(super) sources: Option<Word<Checked<flags::Sources>>>,
    pub(super) shards: Option<u16>,
    pub(super) method: Option<Vec<String>>,
    pub(super) tls: Option<String>,
    pub(super) timeout: Option<Word<Duration>>,
    pub(super) lcp_echo: Option<Word<Duration>>,
    pub(super) sstp_echo: Option<Word<Duration>>,
    #[serde(default)]
    pub(super) dhcp: bool,
    #[serde(default)]
    pub(super) no_ipv4: bool,
    #[serde(default)]
    pub(super) no_ipv6: bool,
    #[serde(default)]
    pub(super) record_per_packet: bool,
}

/// What a phase is.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Kind {
    Connect,
    Ramp,
    Hold,
    Churn,
    Traffic,
    End,
}

impl Kind {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Ramp => "ramp",
            Self::Hold => "hold",
            Self::Churn => "churn",
            Self::Traffic => "traffic",
            Self::End => "end",
        }
    }
}

/// How often each way to leave is chosen.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Endings {
    #[serde(default)]
    pub(super) polite: u16,
    #[serde(default)]
    pub(super) reset: u16,
    #[serde(default)]
    pub(super) close: u16,
    #[serde(default)]
    pub(super) silent: u16,
}

macro_rules! phase {
    ($($field:ident, $name:literal: $type:ty;)*) => {
        /// `[[phase]]`: the keys of all kinds; which of them a kind has is checked afterwards, so that
        /// the message can name the key.
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields, rename_all = "kebab-case")]
        pub(super) struct Phase {
            pub(super) kind: Kind,
            $(pub(super) $field: Option<Spanned<$type>>,)*
        }

        impl Phase {
            /// The keys that are there, and where.
            pub(super) fn keys(&self) -> Vec<(&'static str, Range<usize>)> {
                let mut keys = Vec::new();
                $(if let Some(value) = &self.$field {
                    keys.push(($name, value.span()));
                })*
                keys
            }
        }
    };
}

phase! {
    sessions, "sessions": u32;
    rate, "rate": Word<Rate>;
    from, "from": Word<Rate>;
    to, "to": Word<Rate>;
    time, "time": Word<Duration>;
    endings, "endings": Endings;
    return_after, "return-after": Word<Duration>;
    pps, "pps": Word<Amount>;
    pps_per_session, "pps-per-session": Word<Amount>;
    bps, "bps": Word<Amount>;
    bps_per_session, "bps-per-session": Word<Amount>;
    size, "size": Word<Sizes>;
    direction, "direction": flags::Direction;
    far_end, "far-end": Word<FarEnd>;
    tcp, "tcp": flags::Direction;
    tcp_window, "tcp-window": Word<Window>;
    ping_interval, "ping-interval": Word<Duration>;
    wait, "wait": Word<Duration>;
}
