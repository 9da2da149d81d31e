//! Opening a ring: the ladder of features, and why it is not there.
//!
//! | rung | Linux | set-up flags |
//! |---|---|---|
//! | [`Rung::NoArray`] | 6.6 | as below and NO_SQARRAY |
//! | [`Rung::DeferTaskrun`] | 6.1 | SINGLE_ISSUER, DEFER_TASKRUN, COOP_TASKRUN, TASKRUN_FLAG, SUBMIT_ALL |
//! | [`Rung::CoopTaskrun`] | 6.0 | COOP_TASKRUN, TASKRUN_FLAG, SUBMIT_ALL |

use std::{fmt, io};

use io_uring::{IoUring, Probe, opcode};

/// How much of io_uring this kernel gave us, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rung {
    /// Linux 6.6: without the indirection array.
    NoArray,
    /// Linux 6.1: completions run only when the shard waits for them.
    DeferTaskrun,
    /// Linux 6.0: completions run at the next system call.
    CoopTaskrun,
}

/// The rung for the log: what of io_uring is in use, and what the kernel does not have.
impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoArray => "with every feature of Linux 6.6",
            Self::DeferTaskrun => "without NO_SQARRAY (Linux 6.6)",
            Self::CoopTaskrun => "without DEFER_TASKRUN (Linux 6.1) and NO_SQARRAY (Linux 6.6)",
        })
    }
}

const LADDER: [Rung; 3] = [Rung::NoArray, Rung::DeferTaskrun, Rung::CoopTaskrun];

/// Why io_uring cannot be used here.
#[derive(Debug)]
pub enum Unavailable {
    /// `kernel.io_uring_disabled` forbids it: 1 to the unprivileged, 2 to everyone (Linux 6.6).
    Sysctl(u8),
    /// It is forbidden though the sysctl allows it: a seccomp filter or a security module.
    Forbidden,
    /// The kernel does not know the system call (or a seccomp filter says so).
    Absent,
    /// The kernel knows io_uring, but not what is named here.
    TooOld(&'static str),
    /// Not enough lockable memory (RLIMIT_MEMLOCK) or memory at all (ENOMEM).
    Memory,
    /// The driver's configuration makes no sense; no host could serve it.
    Config(&'static str),
    /// Another error of the system.
    Other(io::Error),
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sysctl(1) => f.write_str(
                "io_uring is for the privileged only (EPERM, sysctl kernel.io_uring_disabled=1); \
                 to allow it: give CAP_SYS_ADMIN or the group of kernel.io_uring_group, or \
                 sysctl -w kernel.io_uring_disabled=0",
            ),
            Self::Sysctl(value) => write!(
                f,
                "io_uring is switched off (EPERM, sysctl kernel.io_uring_disabled={value}); \
                 to allow it: sysctl -w kernel.io_uring_disabled=0"
            ),
            Self::Forbidden => f.write_str(
                "io_uring is forbidden (EPERM) though the sysctl allows it; to allow it: let the \
                 seccomp filter (container profile, SystemCallFilter=) or security module pass \
                 io_uring_setup, io_uring_enter and io_uring_register",
            ),
            Self::Absent => f.write_str(
                "there is no io_uring (ENOSYS); to have it: a kernel with CONFIG_IO_URING, or a \
                 seccomp filter (container profile) that does not hide it",
            ),
            Self::TooOld(what) => write!(
                f,
                "the kernel's io_uring is too old: it lacks {what}; to have it: Linux 6.1 or newer"
            ),
            Self::Memory => f.write_str(
                "io_uring gets no memory (ENOMEM); to have it: raise RLIMIT_MEMLOCK (systemd: \
                 LimitMEMLOCK=infinity), give CAP_IPC_LOCK, or raise the cgroup's memory limit",
            ),
            Self::Config(what) => write!(f, "the driver's configuration makes no sense: {what}"),
            Self::Other(error) => write!(f, "io_uring cannot be set up: {error}"),
        }
    }
}

impl std::error::Error for Unavailable {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Other(error) => Some(error),
            _ => None,
        }
    }
}

impl From<Unavailable> for io::Error {
    fn from(why: Unavailable) -> Self {
        match why {
            Unavailable::Other(error) => error,
            other => Self::new(io::ErrorKind::Unsupported, other),
        }
    }
}

/// Says on which rung of the ladder a ring would stand here, or why there is none.
pub fn probe() -> Result<Rung, Unavailable> {
    open(4, 16, Rung::NoArray).map(|(_, rung)| rung)
}

/// Opens a ring on the highest rung possible, `max` at most, and checks that what the driver needs is there.
pub(super) fn open(
    sq_entries: u32,
    cq_entries: u32,
    max: Rung,
) -> Result<(IoUring, Rung), Unavailable> {
    let (ring, rung) = climb(sq_entries, cq_entries, max)?;
    let params = ring.params();
    if !params.is_feature_nodrop() {
        return Err(Unavailable::TooOld("NODROP"));
    }
    if !params.is_feature_ext_arg() {
        return Err(Unavailable::TooOld("a time limit on the wait (EXT_ARG)"));
    }
    let mut known = Probe::new();
    ring.submitter()
        .register_probe(&mut known)
        .map_err(explain)?;
    // SEND_ZC came with Linux 6.0 like multishot receive, which has no opcode of its own to ask for.
    let needed = [
        (opcode::SendZc::CODE, "multishot receive (Linux 6.0)"),
        (opcode::AcceptMulti::CODE, "ACCEPT"),
        (opcode::RecvMulti::CODE, "RECV"),
        (opcode::Send::CODE, "SEND"),
        (opcode::Connect::CODE, "CONNECT"),
        (opcode::PollAdd::CODE, "POLL_ADD"),
        (opcode::AsyncCancel2::CODE, "ASYNC_CANCEL"),
    ];
    if let Some(&(_, what)) = needed.iter().find(|(code, _)| !known.is_supported(*code)) {
        return Err(Unavailable::TooOld(what));
    }
    // A filter may allow the set-up and not the use: better found here than in the first turn.
    ring.submitter().submit().map_err(explain)?;
    Ok((ring, rung))
}

fn climb(sq_entries: u32, cq_entries: u32, max: Rung) -> Result<(IoUring, Rung), Unavailable> {
    for rung in LADDER.into_iter().skip_while(|&rung| rung != max) {
        let mut builder = IoUring::builder();
        builder
            .dontfork()
            .setup_cqsize(cq_entries)
            .setup_clamp()
            .setup_submit_all()
            .setup_coop_taskrun()
            .setup_taskrun_flag();
        if rung != Rung::CoopTaskrun {
            builder.setup_single_issuer().setup_defer_taskrun();
        }
        if rung == Rung::NoArray {
            builder.setup_no_sqarray();
        }
        match builder.build(sq_entries) {
            Ok(ring) => return Ok((ring, rung)),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            Err(error) => return Err(explain(error)),
        }
    }
    Err(Unavailable::TooOld("COOP_TASKRUN (Linux 6.0)"))
}

/// What an error of any of the three system calls means.
pub(super) fn explain(error: io::Error) -> Unavailable {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            let value = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled")
                .ok()
                .and_then(|text| text.trim().parse().ok())
                .unwrap_or(0);
            if value == 0 {
                Unavailable::Forbidden
            } else {
                Unavailable::Sysctl(value)
            }
        }
        Some(libc::ENOSYS) => Unavailable::Absent,
        Some(libc::ENOMEM) => Unavailable::Memory,
        // Buffer rings, the youngest of what is registered, came with 5.19.
        Some(libc::EINVAL) => Unavailable::TooOld("buffer rings (Linux 5.19)"),
        _ => Unavailable::Other(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_its_reason() {
        let why = |errno| explain(io::Error::from_raw_os_error(errno));
        assert!(matches!(why(libc::ENOSYS), Unavailable::Absent));
        assert!(matches!(why(libc::ENOMEM), Unavailable::Memory));
        assert!(matches!(why(libc::EMFILE), Unavailable::Other(_)));
        // Which of the two depends on the host's sysctl, never on nothing.
        assert!(matches!(
            why(libc::EPERM),
            Unavailable::Forbidden | Unavailable::Sysctl(1 | 2)
        ));
        let text = Unavailable::Sysctl(2).to_string();
        assert!(text.contains("kernel.io_uring_disabled=2"));
        assert!(Unavailable::Forbidden.to_string().contains("seccomp"));
    }

    #[test]
    fn every_rung_up_to_the_best_opens() {
        let best = probe().unwrap();
        for max in LADDER.into_iter().skip_while(|&rung| rung != best) {
            assert_eq!(open(8, 32, max).unwrap().1, max);
        }
    }
}
