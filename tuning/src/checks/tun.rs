//! The TUN device, by which packets leave the tunnel.

use crate::finding::{Basis, Finding, Point};
use crate::host::Host;

const NODE: &str = "/dev/net/tun";

const DEVICE: Point = Point {
    name: "tun.device",
    should_be: "/dev/net/tun exists",
    worth: "without it no packet leaves the tunnel: `sstp-gw demo` then only reflects packets to their sender",
    basis: Basis::Documented,
    source: "Documentation/networking/tuntap.rst",
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

const OFFLOAD: Point = Point {
    name: "tun.offload",
    should_be: "superpackets of TCP and UDP: Linux 6.2 or newer",
    worth: "a superpacket crosses the TUN at 27 ms/GB to read and 52 to write, single packets at 349 and 1,167",
    basis: Basis::Measured,
    source: "bench/README.md, floor: tun/read and tun/write",
};

/// Which superpackets the TUN takes, by the kernel's version: to ask would be to make a device.
pub(crate) fn offload(host: &Host) -> Finding {
    match super::kernel::release(host) {
        Ok(release) if release >= (6, 2) => OFFLOAD.ok("TCP and UDP, by the kernel's version"),
        Ok(_) => OFFLOAD.advice("TCP only, by the kernel's version: UDP one by one"),
        Err((path, why)) => OFFLOAD.unread(path, why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::State;

    #[test]
    fn udp_superpackets_came_with_6_2() {
        let of = |release| offload(&Host::of(&[("/proc/sys/kernel/osrelease", release)])).state;
        assert_eq!(of("6.2.0"), State::Ok);
        assert_eq!(of("6.1.0-39-amd64"), State::Advice);
        assert_eq!(of("new"), State::Unknown);
    }

    #[test]
    fn driver_and_node_are_told_apart() {
        assert_eq!(device(&Host::of(&[(NODE, "")])).state, State::Ok);
        let no_node = device(&Host::of(&[("/proc/misc", "235 autofs\n200 tun\n")]));
        assert_eq!(no_node.state, State::Problem);
        assert!(no_node.set.unwrap().starts_with("mkdir"));
        assert_eq!(device(&Host::of(&[])).set.as_deref(), Some("modprobe tun"));
    }
}
