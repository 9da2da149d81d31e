//! Where it is measured: a network namespace with two TUN devices, between which the kernel forwards.
//!
//! ```text
//!  pump ── gateway0 10.77.0.1/24 ── kernel forwards ── network0 10.78.0.1/24 ── whoever is inside
//! ```

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::net::Ipv4Addr;
use std::process::Command;

use datapath::sys::namespace;
use datapath::sys::tun::{self, TunConfig};

/// The client inside the tunnel.
pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// Whom it talks to.
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 2);
/// Of both devices.
pub(super) const MTU: u16 = 1400;
/// A burst must find room in a device whole.
const BURST_PACKETS_MAX: u32 = 1000;

/// Longer than what a TUN gives at a time.
pub(crate) const READ_LEN_MAX: usize = 10 + 65_536;

/// Both devices.
#[derive(Debug)]
pub(super) struct Rig {
    /// What the pump reads and writes.
    pub(super) gateway: File,
    /// What those inside read and write.
    pub(super) network: File,
    /// The kernel takes UDP superpackets (Linux 6.2).
    pub(super) udp_offload: bool,
}

impl Rig {
    /// Moves the calling thread to a namespace of its own and makes the devices there.
    pub(super) fn new() -> io::Result<Self> {
        enter_network()?;
        let (gateway, udp_offload) = device("gateway0", "10.77.0.1/24")?;
        let (network, _) = device("network0", "10.78.0.1/24")?;
        Ok(Self {
            gateway,
            network,
            udp_offload,
        })
    }
}

/// Moves the calling thread to a new network namespace that forwards.
pub(crate) fn enter_network() -> io::Result<()> {
    namespace::enter_new_network()
        .map_err(|error| io::Error::other(format!("no network namespace: {error}")))?;
    // Neither router solicitations nor refusals: only what is written comes out.
    for (name, value) in [
        ("ipv6/conf/default/disable_ipv6", "1"),
        ("ipv4/ip_forward", "1"),
        ("ipv4/conf/all/rp_filter", "0"),
        ("ipv4/conf/default/rp_filter", "0"),
        // A burst must find room in a socket whole.
        ("ipv4/tcp_rmem", "4096 4194304 8388608"),
        ("ipv4/tcp_wmem", "4096 4194304 8388608"),
        // A burst after a pause is as good as one before it.
        ("ipv4/tcp_slow_start_after_idle", "0"),
    ] {
        fs::write(format!("/proc/sys/net/{name}"), value)
            .map_err(|error| io::Error::other(format!("cannot set {name}: {error}")))?;
    }
    ip("link set lo up")
}

/// A TUN device with this name and address, and whether the kernel takes UDP superpackets.
pub(crate) fn device(name: &str, address: &str) -> io::Result<(File, bool)> {
    let config = TunConfig {
        name: Some(name.to_owned()),
        mtu: MTU,
        queue_len: Some(2 * BURST_PACKETS_MAX),
        offload: true,
        ..TunConfig::default()
    };
    let device = tun::create(&config).map_err(io::Error::other)?;
    ip(&format!("addr add {address} dev {name}"))?;
    let queue = device.queues.into_iter().next();
    let queue = queue.ok_or_else(|| io::Error::other("a device without a queue"))?;
    Ok((File::from(queue), device.udp_offload))
}

pub(crate) fn ip(arguments: &str) -> io::Result<()> {
    let status = Command::new("ip").args(arguments.split(' ')).status()?;
    if status.success() {
        Ok(())
    } else {
        Err(io::Error::other(format!("ip {arguments} failed")))
    }
}

/// Reads one packet behind its vnet header; `None` if there is none.
pub(crate) fn read(mut tun: &File, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    match tun.read(buffer) {
        Ok(len) => Ok(Some(len)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes one packet behind its vnet header.
pub(crate) fn write(mut tun: &File, packet: &[u8]) -> io::Result<()> {
    tun.write(packet).map(|_| ())
}

/// Reads what is there; tells bytes behind vnet headers, and how many packets or superpackets.
pub(super) fn drain(tun: &File, buffer: &mut [u8]) -> io::Result<(usize, usize)> {
    let (mut bytes, mut packets) = (0, 0);
    while let Some(len) = read(tun, buffer)? {
        bytes += len - 10;
        packets += 1;
    }
    Ok((bytes, packets))
}
