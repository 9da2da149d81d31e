//! A network namespace to make traffic in without touching the host's, for tests and benchmarks.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;

/// Moves the calling thread to a new network namespace, empty but for a loopback interface that is
/// down. Threads and processes it starts later are there too, others are not; the namespace ends with
/// the last of them. Needs CAP_SYS_ADMIN.
pub fn enter_new_network() -> io::Result<()> {
    // SAFETY: the call takes no pointer and changes nothing but which network the thread sees;
    // descriptors that are open stay what they are.
    // JUSTIFICATION: std has no way to do it.
    let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Moves the calling thread to the network namespace of the process `id`. Needs CAP_SYS_ADMIN.
pub fn enter_network_of(id: u32) -> io::Result<()> {
    let namespace = File::open(format!("/proc/{id}/ns/net"))?;
    // SAFETY: the descriptor is open for the call; it changes nothing but which network the thread sees.
    // JUSTIFICATION: std has no way to do it.
    let result = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// `net` is a link that tells namespaces apart.
    fn network() -> std::path::PathBuf {
        fs::read_link("/proc/thread-self/ns/net").unwrap()
    }

    #[test]
    fn a_thread_goes_to_the_network_of_a_process_or_is_told_why_not() {
        let before = network();
        let inside = std::thread::spawn(move || {
            enter_new_network()?;
            // This process's main thread is still where it was.
            enter_network_of(std::process::id()).map(|()| network())
        });
        match inside.join().unwrap() {
            Ok(inside) => assert_eq!(inside, before),
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EPERM)),
        }
    }

    #[test]
    fn a_thread_gets_a_network_of_its_own_or_is_told_why_not() {
        let before = network();
        let inside = std::thread::spawn(|| enter_new_network().map(|()| network()))
            .join()
            .unwrap();
        match inside {
            Ok(inside) => assert_ne!(inside, before),
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EPERM)),
        }
        assert_eq!(network(), before);
    }
}
