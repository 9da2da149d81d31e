//! The TUN device, by which packets leave the tunnel.

use crate::finding::{Basis, Finding, Point};
use crate::host::Host;

const NODE: &str = "/dev/net/tun";

const DEVICE: Point = Point {
    name: "tun.device",
    should_be: "/dev/net/tun exists",
    worth: "without it no packet leaves the tunnel: `sstp-gw demo` then only reflects packets to their sender",
    basis: Basis::Documented,
};

/// Whether there is a TUN driver, and the node to open it by.
pub(crate) fn device(host: &Host) -> Finding {
    let registered = host
        .text("/proc/misc")
        .is_ok_and(|misc| misc.lines().any(|line| line.trim() == "200 tun"));
    match (host.exists(NODE), registered) {
        (true, _) => DEVICE.ok("present"),
        (false, true) => DEVICE.problem("the driver is loaded, /dev/net/tun is missing").by(
            "mkdir -p /dev/net && mknod -m 0666 /dev/net/tun c 10 200 (in a container: --device /dev/net/tun)",
            "rm /dev/net/tun",
        ),
        (false, false) => DEVICE
            .problem("no driver and no /dev/net/tun")
            .by("modprobe tun", "modprobe -r tun"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::State;

    #[test]
    fn driver_and_node_are_told_apart() {
        assert_eq!(device(&Host::of(&[(NODE, "")])).state, State::Ok);
        let no_node = device(&Host::of(&[("/proc/misc", "235 autofs\n200 tun\n")]));
        assert_eq!(no_node.state, State::Problem);
        assert!(no_node.set.unwrap().starts_with("mkdir"));
        assert_eq!(device(&Host::of(&[])).set.as_deref(), Some("modprobe tun"));
    }
}
