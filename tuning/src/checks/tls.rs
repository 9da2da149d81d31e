//! TLS in the kernel.

use crate::finding::{Basis, Finding, Point};
use crate::host::{Host, Unread};

const ULP: &str = "/proc/sys/net/ipv4/tcp_available_ulp";
const STAT: &str = "/proc/net/tls_stat";

const KERNEL_TLS: Point = Point {
    name: "tls.kernel",
    should_be: "not needed (reported only)",
    worth: "at most 12 % less CPU by its copy arithmetic, and others measured 27 to 48 % more; it pays with a card \
            that encrypts by itself",
    basis: Basis::Arithmetic,
};

/// Whether the tls module is there. It is loaded on first use by those who may, so its absence from
/// the list says only that nobody asked yet.
pub(crate) fn kernel_tls(host: &Host) -> Finding {
    if host.exists(STAT) {
        return KERNEL_TLS.note("loaded");
    }
    match host.text(ULP) {
        Ok(protocols) if protocols.split_whitespace().any(|name| name == "tls") => {
            KERNEL_TLS.note("loaded")
        }
        Ok(_) => KERNEL_TLS
            .note("not loaded")
            .by("modprobe tls", "modprobe -r tls"),
        Err(Unread::Absent) => KERNEL_TLS.note("not in this kernel, or not visible here"),
        Err(why) => KERNEL_TLS.unread(ULP, why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::State;

    #[test]
    fn it_is_never_more_than_a_note() {
        for ulp in ["tls", "espintcp mptcp tls", "mptcp", ""] {
            assert_eq!(kernel_tls(&Host::of(&[(ULP, ulp)])).state, State::Note);
        }
        assert_eq!(
            kernel_tls(&Host::of(&[(ULP, "espintcp tls")])).found,
            "loaded"
        );
        assert_eq!(kernel_tls(&Host::of(&[(STAT, "")])).found, "loaded");
        assert_eq!(kernel_tls(&Host::of(&[])).state, State::Note);
    }
}
