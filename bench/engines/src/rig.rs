//! Where it is measured: a network namespace of our own, and in it a TUN device for each pump.
//!
//! ```text
//!  64 clients ── TCP over loopback ── pump ── tunN 10.99.0.1/24 ── UDP port 5000
//! ```
//!
//! Both go with the processes that have them.

use std::fs::{self, File};
use std::io;
use std::process::Command;
use std::thread;
use std::time::Duration;

use datapath::sys::namespace;
use datapath::sys::tun::{self, TunConfig};

use crate::traffic::INSIDE;

/// Of the device; longer than any packet.
const MTU: u16 = 1500;
/// Looks for a device to be gone, and the time between two: ten seconds.
const GONE_POLLS: u32 = 5_000;
const GONE_PAUSE: Duration = Duration::from_millis(2);

/// Moves the calling thread, and what it starts, to a network of its own.
pub(crate) fn enter_network() -> io::Result<()> {
    namespace::enter_new_network().map_err(|error| {
        io::Error::other(format!("no network namespace: {error}; it takes root"))
    })?;
    for (name, value) in [
        // Only what is sent arrives.
        ("ipv6/conf/default/disable_ipv6", "1"),
        ("ipv4/conf/all/rp_filter", "0"),
        ("ipv4/conf/default/rp_filter", "0"),
        // 64 connections shall not take more than 100 MB of the kernel's memory.
        ("ipv4/tcp_rmem", "4096 131072 1048576"),
        ("ipv4/tcp_wmem", "4096 131072 524288"),
    ] {
        fs::write(format!("/proc/sys/net/{name}"), value)
            .map_err(|error| io::Error::other(format!("cannot set {name}: {error}")))?;
    }
    ip("link set lo up")
}

/// A TUN device without offload, one queue of the kernel's default length, and its name.
pub(crate) fn device() -> io::Result<(File, String)> {
    let config = TunConfig {
        mtu: MTU,
        ..TunConfig::default()
    };
    let device = tun::create(&config).map_err(io::Error::other)?;
    ip(&format!("addr add {INSIDE}/24 dev {}", device.name))?;
    let queue = device.queues.into_iter().next();
    let queue = queue.ok_or_else(|| io::Error::other("a device without a queue"))?;
    Ok((File::from(queue), device.name))
}

/// Waits until `device` is gone, which can be after the process that had it: a ring is taken down behind
/// its back. Until then its route would catch the packets for the next one.
pub(crate) fn wait_until_gone(device: &str) -> io::Result<()> {
    for _ in 0..GONE_POLLS {
        if counted(device).is_err() {
            return Ok(());
        }
        thread::sleep(GONE_PAUSE);
    }
    Err(io::Error::other(format!(
        "the device {device} stays when its pump is gone"
    )))
}

fn ip(arguments: &str) -> io::Result<()> {
    let status = Command::new("ip")
        .args(arguments.split(' '))
        .status()
        .map_err(|error| io::Error::other(format!("cannot run ip (iproute2): {error}")))?;
    if status.success() {
        Ok(())
    } else {
        Err(io::Error::other(format!("ip {arguments} failed")))
    }
}

/// What the network of the calling thread counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    /// Packets that the pump wrote to the device, and read from it.
    pub(crate) written: u64,
    pub(crate) read: u64,
    /// Errors and drops of the device, either way.
    pub(crate) device_faults: u64,
    /// Headers that the kernel took for broken, IP and UDP.
    pub(crate) header_errors: u64,
}

/// Reads what was counted of `device` so far.
pub(crate) fn counted(device: &str) -> io::Result<Counted> {
    // Not /proc/net, which is that of the process's first thread.
    let devices = fs::read_to_string("/proc/thread-self/net/dev")?;
    let protocols = fs::read_to_string("/proc/thread-self/net/snmp")?;
    of_proc(device, &devices, &protocols).ok_or_else(|| {
        io::Error::other(format!("the kernel does not tell the counters of {device}"))
    })
}

fn of_proc(device: &str, devices: &str, protocols: &str) -> Option<Counted> {
    let line = devices
        .lines()
        .find_map(|line| line.trim().strip_prefix(device)?.strip_prefix(':'))?;
    let fields: Vec<u64> = line
        .split_whitespace()
        .map(|field| field.parse().ok())
        .collect::<Option<_>>()?;
    let protocol = |name: &str, field: &str| {
        let mut lines = protocols.lines().filter_map(|line| line.strip_prefix(name));
        let at = lines
            .next()?
            .split_whitespace()
            .position(|name| name == field)?;
        lines
            .next()?
            .split_whitespace()
            .nth(at)?
            .parse::<u64>()
            .ok()
    };
    // bytes packets errs drop fifo frame compressed multicast; bytes packets errs drop …
    Some(Counted {
        written: *fields.get(1)?,
        read: *fields.get(9)?,
        device_faults: fields.get(2)? + fields.get(3)? + fields.get(10)? + fields.get(11)?,
        header_errors: protocol("Ip:", "InHdrErrors")? + protocol("Udp:", "InErrors")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_in_what_the_kernel_prints() {
        let devices = "Inter-|   Receive |  Transmit\n face |bytes packets\n    \
            lo: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n  \
            tun0: 100 20 1 0 0 0 0 0 300 40 0 2 0 0 0 0\n";
        let protocols = "Ip: Forwarding DefaultTTL InReceives InHdrErrors\nIp: 2 64 9 5\n\
            Udp: InDatagrams NoPorts InErrors\nUdp: 7 0 6\n";
        let counted = of_proc("tun0", devices, protocols).unwrap();
        assert_eq!((counted.written, counted.read), (20, 40));
        assert_eq!((counted.device_faults, counted.header_errors), (3, 11));
        assert_eq!(of_proc("tun1", devices, protocols), None);
    }
}
