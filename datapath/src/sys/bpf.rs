//! Steering of the TUN: a small eBPF program that gives each packet to the queue of the shard that
//! owns its session.
//!
//! The kernel asks the program for the queue of every packet on its way to a multi-queue TUN
//! (TUNSETSTEERINGEBPF); a superpacket is one packet. At offset 0 it sees the IP header. It looks the
//! inside destination up in a map that the shards write as sessions come and go:
//!
//! ```text
//!           0        4                8               12
//!  key      +--------+----------------+---------------+      value: queue, u32
//!  IPv4     |   4    |       0        |    address    |
//!  IPv6     |   6    | upper 64 bits: a session owns its whole /64 |
//!           +--------+----------------+---------------+
//! ```
//!
//! A destination that is not there goes to the queue that its own bits name, so that at least its
//! packets stay in order. Program and map are loaded with bpf(2) directly; they live as long as a
//! [`SteeringMap`] or a device they are attached to.
//!
//! Limits: the map's size is fixed when it is made, and its memory allocated then.

mod program;

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::io::{Steering, SteeringFull};

/// `_IOR('T', 224, int)` of linux/if_tun.h.
const TUNSETSTEERINGEBPF: libc::Ioctl = 0x8004_54E0;

/// Commands, types and flags of linux/bpf.h.
const BPF_MAP_CREATE: libc::c_int = 0;
const BPF_MAP_LOOKUP_ELEM: libc::c_int = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
const BPF_MAP_DELETE_ELEM: libc::c_int = 3;
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_MAP_TYPE_HASH: u32 = 1;
const BPF_PROG_TYPE_SOCKET_FILTER: u32 = 1;
const BPF_ANY: u64 = 0;

/// Entries of one map, at most; 2^20 sessions of two families.
const ENTRIES_MAX: u32 = 1 << 21;

/// Family, upper and lower word, each as the program loads it.
type Key = [u32; 3];

const KEY_LEN: u32 = 12;
const VALUE_LEN: u32 = 4;
const _: () =
    assert!(size_of::<Key>() == KEY_LEN as usize && size_of::<u32>() == VALUE_LEN as usize);

fn key(address: IpAddr) -> Key {
    match address {
        IpAddr::V4(address) => [4, 0, address.to_bits()],
        IpAddr::V6(address) => {
            let [a, b, c, d, e, f, g, h, ..] = address.octets();
            [
                6,
                u32::from_be_bytes([a, b, c, d]),
                u32::from_be_bytes([e, f, g, h]),
            ]
        }
    }
}

/// Why packets cannot be steered.
#[derive(Debug, thiserror::Error)]
pub enum SteeringError {
    /// The right is missing.
    #[error(
        "not allowed to load a BPF program (EPERM): CAP_BPF is needed where \
         kernel.unprivileged_bpf_disabled is not 0"
    )]
    NotPermitted,
    /// The kernel has no bpf(2), or no steering of a TUN (Linux 4.16).
    #[error("this kernel has no {0}")]
    Absent(&'static str),
    /// The kernel's verifier does not take the program: a fault of ours.
    #[error("the kernel refuses the steering program: {0}; please report it with `uname -r`")]
    Rejected(io::Error),
    /// Not enough memory for the map.
    #[error("not enough memory for a map of {0} addresses; lower `limits.sessions`")]
    Memory(u32),
    /// Another error of the system.
    #[error("cannot {what}: {error}")]
    Os {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        error: io::Error,
    },
}

/// Which queue gets the packets of which address; written by shards, read by the kernel.
#[derive(Debug)]
pub struct SteeringMap {
    map: OwnedFd,
    program: OwnedFd,
}

impl SteeringMap {
    /// A map with room for `addresses` addresses (and /64 prefixes), and the program that reads it.
    pub fn new(addresses: u32) -> Result<Self, SteeringError> {
        let entries = addresses.clamp(1, ENTRIES_MAX);
        let map = create_map(entries).map_err(|error| match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => SteeringError::NotPermitted,
            Some(libc::ENOSYS) => SteeringError::Absent("bpf(2)"),
            Some(libc::ENOMEM | libc::E2BIG) => SteeringError::Memory(entries),
            _ => SteeringError::Os {
                what: "make the steering map",
                error,
            },
        })?;
        let program = load(&program::steering(map.as_raw_fd())).map_err(|error| {
            match error.raw_os_error() {
                Some(libc::EPERM) => SteeringError::NotPermitted,
                _ => SteeringError::Rejected(error),
            }
        })?;
        Ok(Self { map, program })
    }

    /// Steers the device of which `queue` is any queue, in place of what steered it before. Ends
    /// with the device.
    pub fn attach(&self, queue: BorrowedFd<'_>) -> Result<(), SteeringError> {
        let program: libc::c_int = self.program.as_raw_fd();
        // SAFETY: both descriptors are open; the kernel reads one int from the pointer.
        // JUSTIFICATION: no crate in use has this request.
        let result = unsafe {
            libc::ioctl(
                queue.as_raw_fd(),
                TUNSETSTEERINGEBPF,
                std::ptr::from_ref(&program),
            )
        };
        if result == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        Err(match error.raw_os_error() {
            Some(libc::EINVAL | libc::ENOTTY) => {
                SteeringError::Absent("TUNSETSTEERINGEBPF (Linux 4.16)")
            }
            _ => SteeringError::Os {
                what: "attach the steering program to the TUN",
                error,
            },
        })
    }

    /// The queue entered for `address`.
    #[must_use]
    pub fn queue(&self, address: IpAddr) -> Option<u32> {
        let mut value = 0_u32;
        let key = key(address);
        let attributes = Element {
            map_fd: self.map.as_raw_fd(),
            padding: 0,
            key: std::ptr::from_ref(&key) as u64,
            value: std::ptr::from_mut(&mut value) as u64,
            flags: 0,
        };
        // SAFETY: key and value are of the map's sizes and outlive the call.
        unsafe { bpf(BPF_MAP_LOOKUP_ELEM, &attributes) }.ok()?;
        Some(value)
    }
}

impl Steering for SteeringMap {
    fn steer(&self, address: IpAddr, queue: u16) -> Result<(), SteeringFull> {
        let key = key(address);
        let value = u32::from(queue);
        let attributes = Element {
            map_fd: self.map.as_raw_fd(),
            padding: 0,
            key: std::ptr::from_ref(&key) as u64,
            value: std::ptr::from_ref(&value) as u64,
            flags: BPF_ANY,
        };
        // SAFETY: key and value are of the map's sizes and outlive the call; the kernel copies them.
        unsafe { bpf(BPF_MAP_UPDATE_ELEM, &attributes) }
            .map(|_| ())
            // E2BIG: the map is full. Whatever else it is, the address is not in the map.
            .map_err(|_| SteeringFull)
    }

    fn forget(&self, address: IpAddr) {
        let key = key(address);
        let attributes = Element {
            map_fd: self.map.as_raw_fd(),
            padding: 0,
            key: std::ptr::from_ref(&key) as u64,
            value: 0,
            flags: 0,
        };
        // SAFETY: the key is of the map's size and outlives the call.
        // An address that is not there (ENOENT) is what was asked for.
        let _ = unsafe { bpf(BPF_MAP_DELETE_ELEM, &attributes) };
    }
}

/// `union bpf_attr` for BPF_MAP_CREATE.
#[repr(C)]
struct NewMap {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
}

/// `union bpf_attr` for the commands on one element.
#[repr(C)]
struct Element {
    map_fd: i32,
    /// Where the kernel aligns the next field.
    padding: u32,
    /// A pointer.
    key: u64,
    /// A pointer.
    value: u64,
    flags: u64,
}

/// `union bpf_attr` for BPF_PROG_LOAD.
#[repr(C)]
struct NewProgram {
    program_type: u32,
    instruction_count: u32,
    /// A pointer.
    instructions: u64,
    /// A pointer to text.
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

fn create_map(max_entries: u32) -> io::Result<OwnedFd> {
    let attributes = NewMap {
        map_type: BPF_MAP_TYPE_HASH,
        key_size: KEY_LEN,
        value_size: VALUE_LEN,
        max_entries,
        // Its memory is taken now, so that a session that comes up later finds it.
        map_flags: 0,
    };
    // SAFETY: no pointer in it.
    let fd = unsafe { bpf(BPF_MAP_CREATE, &attributes) }?;
    // SAFETY: just made (closed on exec), and owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn load(program: &[u64]) -> io::Result<OwnedFd> {
    let license = c"Dual MIT/GPL";
    let attributes = NewProgram {
        program_type: BPF_PROG_TYPE_SOCKET_FILTER,
        instruction_count: u32::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        instructions: program.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
    };
    // SAFETY: program and licence outlive the call; the kernel copies and verifies them.
    let fd = unsafe { bpf(BPF_PROG_LOAD, &attributes) }?;
    // SAFETY: just made (closed on exec), and owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// bpf(2). The kernel takes a shorter `union bpf_attr` than its own for one whose rest is zero.
///
/// # Safety
/// Pointers in `attributes` must be valid for what `command` does with them.
unsafe fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<libc::c_int> {
    // SAFETY: `attributes` is readable for its size; what it points to is the caller's promise.
    // JUSTIFICATION: libc has no function for this system call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attributes),
            size_of::<T>(),
        )
    };
    match libc::c_int::try_from(result) {
        Ok(result) if result >= 0 => Ok(result),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_keeps_what_it_was_told_until_it_is_full() {
        let map = match SteeringMap::new(3) {
            Ok(map) => map,
            Err(SteeringError::NotPermitted | SteeringError::Absent(_)) => {
                eprintln!(
                    "SKIPPED the_map_keeps_what_it_was_told_until_it_is_full: no bpf(2) here"
                );
                return;
            }
            Err(error) => panic!("{error}"),
        };
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(map.queue(address("10.0.0.1")), None);
        map.steer(address("10.0.0.1"), 3).unwrap();
        map.steer(address("fd00:1:2:3::9"), 2).unwrap();
        // The same bits, but another family.
        map.steer(address("::a00:1:0:0:0:0"), 1).unwrap();
        assert_eq!(map.queue(address("10.0.0.1")), Some(3));
        assert_eq!(map.queue(address("fd00:1:2:3:ffff::")), Some(2));
        assert_eq!(map.queue(address("fd00:1:2:4::9")), None);
        assert_eq!(map.queue(address("::a00:1:0:0:0:0")), Some(1));
        // No room for one more, but for another queue of one that is there.
        assert_eq!(map.steer(address("10.0.0.2"), 0), Err(SteeringFull));
        map.steer(address("10.0.0.1"), 0).unwrap();
        map.forget(address("10.0.0.1"));
        map.forget(address("10.0.0.1"));
        assert_eq!(map.queue(address("10.0.0.1")), None);
        map.steer(address("10.0.0.2"), 1).unwrap();
    }
}
