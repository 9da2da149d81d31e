//! What is compared.

use clap::ValueEnum;

/// A way to move the pump's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Engine {
    IoUring,
    IoUringSqes,
    Epoll,
    Tokio,
    TokioUring,
    TokioUringAround,
    Glommio,
    GlommioAround,
}

/// What the others are related to.
pub(crate) const BASE: Engine = Engine::IoUring;

impl Engine {
    /// Its name in the table.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::IoUring => "io_uring, the gateway's driver",
            Self::IoUringSqes => "io_uring, TUN by requests too",
            Self::Epoll => "epoll, the gateway's driver",
            Self::Tokio => "epoll, tokio current_thread",
            Self::TokioUring => "tokio-uring, as documented",
            Self::TokioUringAround => "tokio-uring, around it for the TUN",
            Self::Glommio => "glommio, as documented",
            Self::GlommioAround => "glommio, around it for the TUN",
        }
    }

    /// It does not run without io_uring.
    pub(crate) const fn needs_io_uring(self) -> bool {
        !matches!(self, Self::Epoll | Self::Tokio)
    }

    /// Its name as an argument.
    pub(crate) fn argument(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }
}
