//! The points, one file for each area; each point is one pure function of the host.
//!
//! A function always answers: with the value it found, or that it could not be read and why. It
//! says what a thing is worth only where that was measured, is documented or follows by arithmetic.

use crate::finding::Finding;
use crate::host::Host;

pub(crate) mod clock;
pub(crate) mod conntrack;
pub(crate) mod cpu;
pub(crate) mod forwarding;
pub(crate) mod kernel;
pub(crate) mod limits;
pub(crate) mod memory;
pub(crate) mod tcp;
pub(crate) mod tls;
pub(crate) mod tun;
pub(crate) mod uring;

/// Every check, in the order of the report: what must be there first, then what makes it faster.
pub(crate) const ALL: &[fn(&Host) -> Finding] = &[
    kernel::version,
    uring::allowed,
    uring::seccomp,
    tun::device,
    forwarding::ipv4,
    forwarding::ipv6,
    forwarding::reverse_path,
    conntrack::table,
    limits::open_files,
    tcp::accept_backlog,
    tcp::receive_buffer,
    tcp::send_buffer,
    tcp::unsent_low_water,
    tcp::congestion_control,
    cpu::aes,
    cpu::vector_aes,
    cpu::governor,
    cpu::mitigations,
    memory::transparent_huge_pages,
    clock::source,
    tls::kernel_tls,
];

/// Bytes in the unit a person would use.
fn bytes(value: u64) -> String {
    const KI: u64 = 1 << 10;
    const MI: u64 = 1 << 20;
    if value >= MI && value.is_multiple_of(MI) {
        format!("{} MiB", value / MI)
    } else if value >= KI && value.is_multiple_of(KI) {
        format!("{} KiB", value / KI)
    } else {
        format!("{value} bytes")
    }
}
