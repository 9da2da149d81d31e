//! What the system lets this process have.

use std::io;

/// Raises the number of descriptors this process may have open to what it may raise it to, and says
/// how many that is.
///
/// # Errors
/// When the system refuses, which it does not for a soft limit up to the hard one.
pub fn raise_open_files() -> io::Result<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is an rlimit to be filled.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if limit.rlim_cur < limit.rlim_max {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: `limit` is a whole rlimit; the call only reads it.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(limit.rlim_cur)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raising_twice_changes_nothing() {
        let first = raise_open_files().expect("a soft limit can be raised to the hard one");
        assert!(first > 0);
        assert_eq!(raise_open_files().ok(), Some(first));
    }
}
