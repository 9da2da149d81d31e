//! Functions that take any bytes and must not panic, loop or contradict themselves.
//!
//! The fuzzer drives them on nightly; `datapath/tests/fuzz_corpora.rs` includes this same file and
//! drives them over the committed corpora on stable. A target that is a sequence of operations reads
//! them from the bytes with [`Input`], so that every input means something.

mod inside;
mod ppp;
mod session;
mod sstp;
mod tls;

pub use inside::{dhcp, inner_packet};
pub use ppp::{chap, eap, ppp_frame, ppp_options};
pub use session::{server_session, starts_up};
pub use sstp::{http_head, sstp_control, sstp_stream};
pub use tls::tls_record;

use datapath::output::Entropy;

/// A target and the name of its corpus.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const ALL: &[Target] = &[
    ("sstp_stream", sstp_stream),
    ("sstp_control", sstp_control),
    ("http_head", http_head),
    ("ppp_frame", ppp_frame),
    ("ppp_options", ppp_options),
    ("chap", chap),
    ("eap", eap),
    ("inner_packet", inner_packet),
    ("dhcp", dhcp),
    ("tls_record", tls_record),
    ("server_session", server_session),
];

/// Reads operations and their arguments; what is not there reads as zero or is shorter.
pub(crate) struct Input<'a>(pub(crate) &'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn u8(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_be_bytes([self.u8(), self.u8()])
    }

    pub(crate) fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Bytes behind their own length, which has two bytes.
    pub(crate) fn chunk(&mut self) -> &'a [u8] {
        let len = usize::from(self.u16());
        self.take(len)
    }
}

/// The same numbers in every run.
#[derive(Clone)]
pub(crate) struct Seeded(pub(crate) u64);

impl Entropy for Seeded {
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            // xorshift64
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            *byte = self.0.to_be_bytes()[0];
        }
    }
}
