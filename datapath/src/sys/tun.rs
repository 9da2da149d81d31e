//! The TUN device: creating it with its queues, and reading and writing one packet at a time.
//!
//! One device for all sessions, one queue (descriptor) a shard, attached in shard order and never
//! detached while running: the kernel renumbers the rest when a queue goes. The device is made by
//! tun-rs; from then on there are only descriptors. A packet starts with its IP header, or with the
//! 10 bytes of a virtio-net header where [`TunConfig::offload`] asks for it.

use std::fs::File;
use std::io::{self, IoSlice, Read as _, Write as _};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::path::Path;

use tun_rs::{DeviceBuilder, SyncDevice};

use crate::io::TunRead;

const DEVICE_NODE: &str = "/dev/net/tun";

/// What device to make.
#[derive(Clone, Debug)]
pub struct TunConfig {
    /// Interface name, 1..=15 bytes; `None` lets the kernel choose `tunN`.
    pub name: Option<String>,
    /// MTU of the interface in bytes.
    pub mtu: u16,
    /// Queues to attach, at least 1.
    pub queues: usize,
    /// Packets the kernel holds for us per queue (`txqueuelen`); `None` leaves its default, 500.
    pub queue_len: Option<u32>,
    /// Superpackets: IFF_VNET_HDR with checksum, TSO and, where the kernel has it, USO offload.
    pub offload: bool,
}

impl Default for TunConfig {
    fn default() -> Self {
        Self {
            name: None,
            mtu: 1400,
            queues: 1,
            queue_len: None,
            offload: false,
        }
    }
}

/// A device that stands and is up.
#[derive(Debug)]
pub struct TunDevice {
    /// The interface's name.
    pub name: String,
    /// The interface's index.
    pub index: u32,
    /// Its queues in the order of attachment: non-blocking, closed on exec.
    pub queues: Vec<OwnedFd>,
    /// Superpackets are on, and every packet has a virtio-net header: asked for, and the kernel takes
    /// TUNSETOFFLOAD.
    pub offload: bool,
    /// UDP segmentation offload (USO) is on: asked for, and the kernel has it (Linux 6.2).
    pub udp_offload: bool,
}

/// Why there is no TUN device.
#[derive(Debug, thiserror::Error)]
pub enum TunError {
    /// The device node is missing.
    #[error("there is no /dev/net/tun: load the tun module, or give the container the device")]
    NoNode,
    /// Not allowed to open the node or to make an interface.
    #[error("not allowed to make a TUN interface: CAP_NET_ADMIN is needed")]
    NotPermitted,
    /// The name is taken by something that is no multi-queue TUN, or all its queues are attached.
    #[error("the interface name {0:?} is taken, or belongs to a device with other properties")]
    NameTaken(String),
    /// The configuration makes no sense.
    #[error("bad TUN configuration: {0}")]
    Config(&'static str),
    /// Another error of the system.
    #[error("cannot {what}: {error}")]
    Os {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        error: io::Error,
    },
}

/// Makes the device (or attaches to a persistent one of that name), sets it up and brings it up.
pub fn create(config: &TunConfig) -> Result<TunDevice, TunError> {
    if config.queues == 0 {
        return Err(TunError::Config("at least one queue is needed"));
    }
    if let Some(name) = &config.name
        && !(1..=15).contains(&name.len())
    {
        return Err(TunError::Config("an interface name has 1 to 15 bytes"));
    }
    // Asked here because the library would try to make the node.
    if !Path::new(DEVICE_NODE).exists() {
        return Err(TunError::NoNode);
    }
    let wanted = config.name.as_deref().unwrap_or("tunN");
    let mut offload = config.offload;
    let mut built = device(config, offload).build_sync();
    if offload && matches!(&built, Err(error) if error.raw_os_error() == Some(libc::EINVAL)) {
        // Either the kernel takes no offload, or it is something else, which is told again.
        offload = false;
        built = device(config, false).build_sync();
    }
    let first = built.map_err(|error| explain(error, wanted, "make the TUN interface"))?;
    let os = |what| move |error| TunError::Os { what, error };
    let name = first.name().map_err(os("read the interface's name"))?;
    let index = first.if_index().map_err(os("read the interface's index"))?;
    let udp_offload = offload && first.udp_gso();
    let mut devices = Vec::with_capacity(config.queues);
    for _ in 1..config.queues {
        let queue = first
            .try_clone()
            .map_err(|error| explain(error, &name, "attach a queue to the TUN interface"))?;
        devices.push(queue);
    }
    devices.insert(0, first);
    let mut queues = Vec::with_capacity(config.queues);
    for device in devices {
        let queue = into_descriptor(device);
        set_nonblocking(std::os::fd::AsFd::as_fd(&queue))
            .map_err(os("make a TUN queue non-blocking"))?;
        queues.push(queue);
    }
    Ok(TunDevice {
        name,
        index,
        queues,
        offload,
        udp_offload,
    })
}

fn device(config: &TunConfig, offload: bool) -> DeviceBuilder {
    let mut builder = DeviceBuilder::new()
        .mtu(config.mtu)
        .multi_queue(true)
        .packet_information(false)
        .offload(offload)
        .enable(true);
    if let Some(name) = &config.name {
        builder = builder.name(name);
    }
    if let Some(len) = config.queue_len {
        builder = builder.tx_queue_len(len);
    }
    builder
}

fn into_descriptor(device: SyncDevice) -> OwnedFd {
    let fd = device.into_raw_fd();
    // SAFETY: `into_raw_fd` gave up ownership of an open descriptor.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn explain(error: io::Error, name: &str, what: &'static str) -> TunError {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => TunError::NotPermitted,
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => TunError::NoNode,
        Some(libc::EBUSY | libc::EEXIST | libc::EINVAL) => TunError::NameTaken(name.to_owned()),
        _ => TunError::Os { what, error },
    }
}

/// Makes reads answer EAGAIN instead of waiting.
pub(super) fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the descriptor is open as long as it is borrowed; no pointer is passed.
    // JUSTIFICATION: std has this for sockets only.
    let flags = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) };
    if flags < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as above.
    let result = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Reads one packet from a queue; a packet longer than the buffer is cut by the kernel.
pub(super) fn read(mut queue: &File, buffer: &mut [u8]) -> TunRead {
    loop {
        match queue.read(buffer) {
            Ok(0) => return TunRead::Empty,
            Ok(len) => return TunRead::Packet(len),
            Err(error) => match error.raw_os_error() {
                Some(libc::EAGAIN) => return TunRead::Empty,
                Some(libc::EINTR) => {}
                Some(errno) => return TunRead::Failed(errno),
                None => return TunRead::Failed(libc::EIO),
            },
        }
    }
}

/// Writes one packet to a queue, `header` right before it.
pub(super) fn write(mut queue: &File, header: &[u8], packet: &[u8]) -> io::Result<()> {
    loop {
        let written = if header.is_empty() {
            queue.write(packet)
        } else {
            queue.write_vectored(&[IoSlice::new(header), IoSlice::new(packet)])
        };
        match written {
            // The kernel takes a packet whole or not at all.
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
