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
    source: "the benchmarks that Hyper-DERP publishes; Documentation/networking/tls.rst",
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

const CIPHERS: Point = Point {
    name: "tls.kernel_ciphers",
    should_be: "gcm(aes) and rfc7539(chacha20,poly1305) (reported only)",
    worth: "a cipher that the kernel lacks is done by the gateway, at the same speed or better",
    basis: Basis::Documented,
    source: "README.md, Security, Kernel TLS; Documentation/networking/tls.rst",
};

const REKEY: Point = Point {
    name: "tls.kernel_rekey",
    should_be: "Linux 6.14 or newer (reported only)",
    worth: "before, the kernel cannot change keys: a client's KeyUpdate ends a session whose records the kernel does",
    basis: Basis::Documented,
    source: "README.md, Security, Kernel TLS; Documentation/networking/tls.rst",
};

const CRYPTO: &str = "/proc/crypto";

/// Which ciphers the kernel has registered for its TLS, and who does them.
pub(crate) fn ciphers(host: &Host) -> Finding {
    let text = match host.text(CRYPTO) {
        Ok(text) => text,
        Err(Unread::Absent) => return CIPHERS.note("not told by this kernel"),
        Err(why) => return CIPHERS.unread(CRYPTO, why),
    };
    let (mut name, mut found) = ("", Vec::new());
    for (key, value) in text.lines().filter_map(|line| line.split_once(':')) {
        match key.trim() {
            "name" => name = value.trim(),
            "driver" if name == "gcm(aes)" || name == "rfc7539(chacha20,poly1305)" => {
                found.push(format!("{name} by {}", value.trim()));
            }
            _ => {}
        }
    }
    match (found.is_empty(), name.is_empty()) {
        (true, true) => CIPHERS.unread(CRYPTO, Unread::Garbage),
        (true, false) => {
            CIPHERS.note("none registered: they are on first use, where the kernel has them")
        }
        (false, _) => CIPHERS.note(found.join(", ")),
    }
}

/// Whether the kernel can take new keys.
pub(crate) fn rekey(host: &Host) -> Finding {
    match super::kernel::release(host) {
        Ok(release) if release >= (6, 14) => REKEY.note("yes, by its version"),
        Ok(_) => REKEY.note("no, by its version"),
        Err((path, why)) => REKEY.unread(path, why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::State;

    #[test]
    fn ciphers_are_named_with_who_does_them() {
        let of = |text| ciphers(&Host::of(&[(CRYPTO, text)]));
        let text = "name         : gcm(aes)\ndriver       : generic-gcm-aesni\n\nname : sha1\ndriver : sha1-ni\n";
        assert_eq!(of(text).found, "gcm(aes) by generic-gcm-aesni");
        assert!(
            of("name : sha1\ndriver : x\n")
                .found
                .starts_with("none registered")
        );
        assert_eq!(of("garbage").state, State::Unknown);
    }

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
