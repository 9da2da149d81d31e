//! What the cards do of the kernel's work: merging and cutting.

use super::interfaces;
use crate::finding::{Basis, Finding, Point, State};
use crate::host::{Host, Unread};

const OFFLOADS: Point = Point {
    name: "nic.offloads",
    should_be: "GRO, GSO, TSO, checksums and scatter-gather on",
    worth: "GRO makes the superpackets that cross the TUN at 27 ms/GB instead of 348; without TSO the kernel cuts each \
            64 KB that the gateway writes",
    basis: Basis::Measured,
    source: "bench/README.md, floor: tun/read tcp, tun/read plain/1400",
};

const UDP: Point = Point {
    name: "nic.udp_gro_forwarding",
    should_be: "on",
    worth: "forwarded UDP (QUIC) reaches the TUN in superpackets: 38 ns a packet to read instead of 488",
    basis: Basis::Measured,
    source: "bench/README.md, floor: tun/read udp, tun/read plain/1400; Tailscale's \"QUIC/UDP throughput\" advises it too",
};

/// Feature of `ethtool -k`, and its word for `ethtool -K`.
const WANTED: [(&str, &str); 5] = [
    ("generic-receive-offload", "gro"),
    ("generic-segmentation-offload", "gso"),
    ("tcp-segmentation-offload", "tso"),
    ("tx-checksumming", "tx"),
    ("scatter-gather", "sg"),
];

/// The offloads that a gateway lives by.
pub(crate) fn offloads(host: &Host) -> Finding {
    features(host, OFFLOADS, &WANTED)
}

/// Merging of UDP that is forwarded (Linux 5.12).
pub(crate) fn udp_gro_forwarding(host: &Host) -> Finding {
    features(
        host,
        UDP,
        &[("rx-udp-gro-forwarding", "rx-udp-gro-forwarding")],
    )
}

fn features(host: &Host, point: Point, wanted: &[(&str, &str)]) -> Finding {
    let cards = interfaces::cards(host);
    if cards.is_empty() {
        return point.note("no card and no default route");
    }
    let mut state = State::Ok;
    let mut found = Vec::new();
    let (mut set, mut undo) = (Vec::new(), Vec::new());
    for card in &cards {
        let text = match host.ethtool('k', card) {
            Ok(text) => text,
            Err(Unread::Absent) => {
                state = state.max(State::Unknown);
                found.push(format!(
                    "{card}: no ethtool here, or the card does not tell"
                ));
                continue;
            }
            Err(why) => {
                state = state.max(State::Unknown);
                found.push(format!("{card}: ethtool -k {why}"));
                continue;
            }
        };
        let value = |feature: &str| {
            text.lines()
                .filter_map(|line| line.split_once(':'))
                .find(|(name, _)| name.trim() == feature)
                .map(|(_, value)| value.trim())
        };
        let mut words = Vec::new();
        for &(feature, word) in wanted {
            match value(feature) {
                Some("on" | "on [fixed]") => {}
                Some("off") => {
                    state = state.max(State::Advice);
                    words.push(format!("{word} off"));
                    set.push(format!("ethtool -K {card} {word} on"));
                    undo.push(format!("ethtool -K {card} {word} off"));
                }
                // `off [requested on]` and `off [fixed]`: nothing that a person could switch.
                Some(fixed) if fixed.starts_with("off") => {
                    state = state.max(State::Note);
                    words.push(format!("{word} {fixed}"));
                }
                _ => {
                    state = state.max(State::Unknown);
                    words.push(format!("{word} not told"));
                }
            }
        }
        found.push(match words.is_empty() {
            true => format!("{card}: on"),
            false => format!("{card}: {}", words.join(", ")),
        });
    }
    let finding = point.found(state, found.join("; "));
    match set.is_empty() {
        true => finding,
        false => finding.by(set.join(" && "), undo.join(" && ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_fixed_is_not_advised() {
        let of = |text| {
            udp_gro_forwarding(&Host::of(&[
                ("/sys/class/net/eth0/device", ""),
                ("/tool/ethtool-k/eth0", text),
            ]))
        };
        assert_eq!(of("rx-udp-gro-forwarding: on").state, State::Ok);
        let off = of("Features for eth0:\nrx-udp-gro-forwarding: off\n");
        assert_eq!(off.state, State::Advice);
        assert_eq!(
            off.undo.as_deref(),
            Some("ethtool -K eth0 rx-udp-gro-forwarding off")
        );
        assert_eq!(of("rx-udp-gro-forwarding: off [fixed]").state, State::Note);
        assert_eq!(of("garbage").state, State::Unknown);
        assert_eq!(of("rx-udp-gro-forwarding: \u{7}").state, State::Unknown);
    }
}
