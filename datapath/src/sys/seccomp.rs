//! A kernel that lacks something, for tests: a seccomp filter over a child process that makes single
//! system calls answer as they do where the feature is forbidden or absent.
//!
//! Nothing of the host is changed, and the filter ends with the process.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// What a kernel may refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// `io_uring_setup`: there is no ring.
    UringSetup,
    /// `io_uring_enter`: there is a ring that cannot be used.
    UringEnter,
    /// `io_uring_register` of a buffer ring (Linux 5.19).
    UringBufferRing,
    /// `epoll_pwait2` (Linux 5.11).
    EpollPwait2,
    /// `bpf`: no program can be loaded.
    Bpf,
    /// TUNSETOFFLOAD with any offload.
    TunOffload,
    /// TUNSETOFFLOAD with UDP offload (Linux 6.2).
    TunUdpOffload,
    /// TUNSETSTEERINGEBPF (Linux 4.16).
    TunSteering,
}

/// How it refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// EPERM: forbidden.
    Forbidden,
    /// ENOSYS: there is no such call.
    Absent,
    /// EINVAL: it does not know what is asked.
    Invalid,
}

/// One refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What is refused.
    pub call: Call,
    /// How.
    pub answer: Answer,
}

/// A test of the low half of an argument.
#[derive(Clone, Copy, Debug)]
enum Test {
    Equals(u32, u32),
    HasAnyOf(u32, u32),
}

// Specification constants of linux/if_tun.h and linux/io_uring.h.
const TUNSETOFFLOAD: u32 = 0x4004_54d0;
const TUNSETSTEERINGEBPF: u32 = 0x8004_54e0;
const TUN_F_USO4_USO6: u32 = 0x20 | 0x40;
const IORING_REGISTER_PBUF_RING: u32 = 22;

impl Call {
    /// Its number, and what its arguments must be.
    fn matcher(self) -> (libc::c_long, Vec<Test>) {
        match self {
            Self::UringSetup => (libc::SYS_io_uring_setup, vec![]),
            Self::UringEnter => (libc::SYS_io_uring_enter, vec![]),
            Self::UringBufferRing => (
                libc::SYS_io_uring_register,
                vec![Test::Equals(1, IORING_REGISTER_PBUF_RING)],
            ),
            Self::EpollPwait2 => (libc::SYS_epoll_pwait2, vec![]),
            Self::Bpf => (libc::SYS_bpf, vec![]),
            Self::TunOffload => (
                libc::SYS_ioctl,
                vec![Test::Equals(1, TUNSETOFFLOAD), Test::HasAnyOf(2, u32::MAX)],
            ),
            Self::TunUdpOffload => (
                libc::SYS_ioctl,
                vec![
                    Test::Equals(1, TUNSETOFFLOAD),
                    Test::HasAnyOf(2, TUN_F_USO4_USO6),
                ],
            ),
            Self::TunSteering => (libc::SYS_ioctl, vec![Test::Equals(1, TUNSETSTEERINGEBPF)]),
        }
    }
}

impl Answer {
    const fn errno(self) -> i32 {
        match self {
            Self::Forbidden => libc::EPERM,
            Self::Absent => libc::ENOSYS,
            Self::Invalid => libc::EINVAL,
        }
    }
}

/// Lets `command`, and what it starts, run on a kernel that refuses this. The filter takes from the
/// process the chance to gain rights by running a set-uid program (PR_SET_NO_NEW_PRIVS).
pub fn refuse(command: &mut Command, refusals: &[Refusal]) {
    let program = program(refusals);
    let install = move || {
        let filter = libc::sock_fprog {
            len: u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
            filter: program.as_ptr().cast_mut(),
        };
        // SAFETY: this option takes plain numbers.
        // JUSTIFICATION: nothing in use wraps it.
        let result = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `filter` points to `program`, which outlives the call; the kernel copies it.
        let result = unsafe {
            libc::prctl(
                libc::PR_SET_SECCOMP,
                libc::SECCOMP_MODE_FILTER,
                &raw const filter,
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure only makes two system calls and reads memory that was
    // there before; it takes no lock and allocates nothing.
    // JUSTIFICATION: a filter must be set in the process it is for, before its first instruction.
    unsafe { command.pre_exec(install) };
}

/// For each refusal: the number, then each argument; the first that differs goes on to the next.
fn program(refusals: &[Refusal]) -> Vec<libc::sock_filter> {
    let mut program = Vec::new();
    for refusal in refusals {
        let (number, tests) = refusal.call.matcher();
        // Two instructions a comparison, and the answer.
        let mut left = 2 * tests.len() + 1;
        let mut compare = |offset: usize, jump, value: u32| {
            program.push(instruction(
                libc::BPF_LD | libc::BPF_W | libc::BPF_ABS,
                offset,
            ));
            let skip = u8::try_from(left).unwrap_or(u8::MAX);
            left = left.saturating_sub(2);
            program.push(libc::sock_filter {
                jt: 0,
                jf: skip,
                ..instruction(libc::BPF_JMP | jump | libc::BPF_K, value as usize)
            });
        };
        compare(0, libc::BPF_JEQ, u32::try_from(number).unwrap_or(u32::MAX));
        for test in tests {
            match test {
                Test::Equals(argument, value) => {
                    compare(argument_offset(argument), libc::BPF_JEQ, value);
                }
                Test::HasAnyOf(argument, bits) => {
                    compare(argument_offset(argument), libc::BPF_JSET, bits);
                }
            }
        }
        let errno = refusal.answer.errno().unsigned_abs();
        program.push(instruction(
            libc::BPF_RET | libc::BPF_K,
            (libc::SECCOMP_RET_ERRNO | errno) as usize,
        ));
    }
    program.push(instruction(
        libc::BPF_RET | libc::BPF_K,
        libc::SECCOMP_RET_ALLOW as usize,
    ));
    program
}

/// `struct seccomp_data`: number, architecture, instruction pointer, then the arguments of 8 bytes.
fn argument_offset(argument: u32) -> usize {
    let low_half = if cfg!(target_endian = "big") { 4 } else { 0 };
    16 + 8 * argument as usize + low_half
}

fn instruction(code: u32, k: usize) -> libc::sock_filter {
    libc::sock_filter {
        code: u16::try_from(code).unwrap_or(0),
        jt: 0,
        jf: 0,
        k: u32::try_from(k).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_gets_the_answer_and_this_process_does_not() {
        // The shell's `ulimit` needs none of them; what counts is that both processes live.
        let mut command = Command::new("sh");
        command.args(["-c", "grep -q '^Seccomp:.*2' /proc/self/status"]);
        refuse(
            &mut command,
            &[
                Refusal {
                    call: Call::UringSetup,
                    answer: Answer::Absent,
                },
                Refusal {
                    call: Call::TunUdpOffload,
                    answer: Answer::Invalid,
                },
            ],
        );
        assert!(command.status().unwrap().success());
        assert!(crate::sys::uring::probe().is_ok());
    }

    #[test]
    fn every_jump_ends_at_the_next_refusal() {
        let refusals = [Call::TunUdpOffload, Call::UringSetup].map(|call| Refusal {
            call,
            answer: Answer::Invalid,
        });
        let program = program(&refusals);
        // Three comparisons and an answer, one comparison and an answer, and the pass.
        assert_eq!(program.len(), 7 + 3 + 1);
        let targets: Vec<_> = [1, 3, 5, 8]
            .map(|at: usize| at + 1 + usize::from(program[at].jf))
            .into();
        assert_eq!(targets, [7, 7, 7, 10]);
    }
}
