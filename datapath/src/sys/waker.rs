//! The eventfd by which other threads end a driver's wait.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::io::Wake;

#[derive(Debug)]
pub(super) struct EventFd {
    file: File,
    /// A wake-up is on its way, so that a second one costs no system call.
    pending: AtomicBool,
}

impl EventFd {
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: takes no pointer.
        // JUSTIFICATION: no crate in use wraps eventfd.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just made, and owned by nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self {
            file: File::from(fd),
            pending: AtomicBool::new(false),
        })
    }

    /// Takes the wake-up; one that comes later is a new one. Whoever was spared a system call
    /// because of `pending` published its news before, and sees this swap or is seen by it.
    pub(super) fn clear(&self) {
        let mut count = [0; 8];
        // EAGAIN if somebody else was faster: nothing to take.
        let _ = (&self.file).read(&mut count);
        self.pending.swap(false, Ordering::AcqRel);
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl AsRawFd for EventFd {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl Wake for EventFd {
    fn wake(&self) {
        if !self.pending.swap(true, Ordering::AcqRel) {
            // It can only fail if the counter is full, and then the driver is awake.
            let _ = (&self.file).write(&1_u64.to_ne_bytes());
        }
    }
}
