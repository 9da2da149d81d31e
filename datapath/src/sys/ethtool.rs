//! What a network card can do, by the ethtool interface.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// linux/ethtool.h: whether any of TCP segmentation offload is on.
const ETHTOOL_GTSO: u32 = 0x1E;
const SIOCETHTOOL: libc::Ioctl = 0x8946;

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// Whether interface `name` cuts TCP superpackets itself (TSO), as far as its driver tells.
///
/// # Errors
/// When there is no such interface, or it does not say.
pub fn has_tso(name: &str) -> io::Result<bool> {
    // SAFETY: no pointer is passed.
    // JUSTIFICATION: the request needs a socket that is connected to nothing, which std has not.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just made, and owned by nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut ifr_name = [0; libc::IFNAMSIZ];
    // One byte less, so that the name ends in a zero.
    if name.len() >= ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    let mut value = Value {
        command: ETHTOOL_GTSO,
        data: 0,
    };
    let mut request = libc::ifreq {
        ifr_name,
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_data: std::ptr::from_mut(&mut value).cast(),
        },
    };
    // SAFETY: the request's name ends in a zero, and its pointer is to the command's structure; both
    // outlive the call.
    // JUSTIFICATION: no crate in use asks this.
    let result = unsafe {
        libc::ioctl(
            socket.as_raw_fd(),
            SIOCETHTOOL,
            std::ptr::from_mut(&mut request),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(value.data != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_takes_superpackets_and_no_interface_is_an_error() {
        assert!(has_tso("lo").unwrap());
        let error = has_tso("nosuchthing0").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV));
        assert!(has_tso("a-name-of-sixteen").is_err());
    }
}
