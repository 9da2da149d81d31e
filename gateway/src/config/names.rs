//! The words the file may use where it must choose one.

use std::fmt;
use std::str::FromStr;

/// Declares an enum whose variants are words in the file.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub(crate) enum $name { $($(#[$variant_doc])* $variant),+ }

        impl $name {
            /// Every word, as it stands in the file.
            const WORDS: &'static [(&'static str, Self)] = &[$(($word, Self::$variant)),+];

            /// The word in the file.
            pub(crate) const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }

            /// What the file may say here.
            pub(crate) fn wanted() -> String {
                let words: Vec<_> = Self::WORDS.iter().map(|(word, _)| format!("\"{word}\"")).collect();
                format!("one of {}", words.join(", "))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.word())
            }
        }

        impl FromStr for $name {
            type Err = &'static str;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::WORDS
                    .iter()
                    .find(|(word, _)| *word == text)
                    .map(|&(_, value)| value)
                    .ok_or_else(|| unknown(text))
            }
        }
    };
}

/// Some words are refused for a reason that the operator should read.
fn unknown(text: &str) -> &'static str {
    match text {
        "mschapv1" | "mschap" | "ms-chap" | "ms-chapv1" | "mschap-v1" => {
            "MS-CHAPv1 is never offered: its answers are broken in seconds (RFC 2433); use \"mschapv2\""
        }
        "1.0" | "1.1" => "TLS below 1.2 is never spoken (RFC 8996)",
        _ => "this word is not known here",
    }
}

words! {
    /// How a client may prove who it is.
    Method {
        /// RFC 2759
        MsChapV2 = "mschapv2",
        /// EAP-MSCHAPv2, ended by the gateway itself.
        Eap = "eap",
        /// RFC 1334: the password as it is, in the tunnel.
        Pap = "pap",
        /// RFC 1994
        ChapMd5 = "chap-md5",
    }
}

words! {
    /// The lowest version of TLS spoken.
    TlsVersion {
        V12 = "1.2",
        V13 = "1.3",
    }
}

words! {
    /// Who opens and seals TLS records after the handshake.
    RecordLayer {
        /// Ours, in place, without allocation.
        Own = "own",
        /// rustls' buffered connection.
        Rustls = "rustls",
    }
}

words! {
    /// Whether the kernel seals and opens TLS records.
    KernelTls {
        /// It does not.
        Off = "off",
        /// Where it was measured to cost less on this host.
        Auto = "auto",
        /// It does, or the gateway does not start.
        Require = "require",
    }
}

words! {
    /// Where packets go that come out of a tunnel.
    InsideKind {
        /// Into a TUN device.
        Tun = "tun",
        /// Back where they came from, addresses swapped: needs no right, carries no traffic.
        Reflector = "reflector",
    }
}

words! {
    /// What a shard waits in for all its connections.
    DriverKind {
        /// io_uring where this host has it for us, else epoll.
        Auto = "auto",
        /// io_uring or nothing.
        IoUring = "io_uring",
        /// With no feature newer than Linux 6.1's, should one of them misbehave.
        IoUring61 = "io_uring-6.1",
        /// With no feature newer than Linux 6.0's.
        IoUring60 = "io_uring-6.0",
        /// epoll, whatever else there is.
        Epoll = "epoll",
    }
}

words! {
    /// How log lines look.
    LogFormat {
        Human = "human",
        Json = "json",
    }
}

words! {
    /// What is logged.
    LogLevel {
        Error = "error",
        Warn = "warn",
        Info = "info",
        Debug = "debug",
        Trace = "trace",
    }
}
