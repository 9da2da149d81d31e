//! The only `unsafe`, the only system calls, the only clock.
//!
//! Everything here is a thin, safe face of something the kernel does: the driver of a shard
//! ([`driver`], which is [`uring`] or [`epoll`]), sockets and the TUN device as they are opened at
//! start ([`socket`], [`tun`]), which of its queues gets which packet ([`bpf`]), what a network card can
//! do ([`ethtool`]), threads and their processors ([`thread`], [`affinity`]), time ([`clock`]),
//! randomness ([`entropy`]), vector instructions for checksums ([`copy_and_sum`]), and for tests and
//! benchmarks network namespaces ([`namespace`]) and a counting allocator ([`alloc`]).
//!
//! *Architecture Invariant*: nothing above this module sees a descriptor in use or a pointer.
#![expect(
    unsafe_code,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "this is the one place that may: see the invariant above"
)]

pub mod driver;

pub mod uring;

mod buf_ring;

pub mod epoll;

mod slots;

mod told;

mod errno;

mod waker;

mod lent;

pub mod socket;

mod path;

pub mod ktls;

pub mod tun;

pub mod bpf;

pub mod ethtool;

pub mod affinity;

pub mod thread;

pub mod clock;

pub mod entropy;

pub mod copy_and_sum;

pub mod namespace;

pub mod alloc;

pub mod limits;

#[cfg(any(test, feature = "testing"))]
pub mod seccomp;

pub mod terminal;
