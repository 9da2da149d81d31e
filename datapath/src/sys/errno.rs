//! What the system's error numbers mean to a driver.

use crate::io::Loss;

/// Why a direction of a connection ended.
pub(super) fn loss(errno: i32) -> Loss {
    match errno {
        libc::ECONNRESET | libc::EPIPE | libc::ECANCELED => Loss::Reset,
        libc::ETIMEDOUT => Loss::TimedOut,
        other => Loss::Os(other),
    }
}

/// Whether accepting goes on at once after this error: it is of the connection, not of ours
/// (accept(2): "should be treated like EAGAIN"). After EMFILE, ENFILE, ENOMEM, ENOBUFS and what is not
/// known, accepting at once would only fail again at once.
pub(super) fn accept_goes_on(errno: i32) -> bool {
    matches!(
        errno,
        libc::EINTR
            | libc::EAGAIN
            | libc::ECONNABORTED
            | libc::EPROTO
            | libc::ENOPROTOOPT
            | libc::ENETDOWN
            | libc::EHOSTDOWN
            | libc::ENONET
            | libc::EHOSTUNREACH
            | libc::ENETUNREACH
    )
}
