//! The points, one file for each area; each point is one pure function of the host.
//!
//! A function always answers: with the value it found, or that it could not be read and why. It
//! says what a thing is worth only where that was measured, is documented or follows by arithmetic.

use crate::finding::Finding;
use crate::host::Host;

pub(crate) mod clock;
pub(crate) mod conntrack;
pub(crate) mod cpu;
mod cpus;
pub(crate) mod ebpf;
pub(crate) mod forwarding;
pub(crate) mod idle;
mod interfaces;
pub(crate) mod irq;
pub(crate) mod kernel;
pub(crate) mod keys;
pub(crate) mod limits;
pub(crate) mod memory;
pub(crate) mod nft;
pub(crate) mod nic;
pub(crate) mod offloads;
pub(crate) mod outside;
pub(crate) mod tcp;
pub(crate) mod tls;
pub(crate) mod tun;
pub(crate) mod uring;

/// Every check, in the order of the report: what must be there first, then what makes it faster.
pub(crate) const ALL: &[fn(&Host) -> Finding] = &[
    kernel::version,
    uring::features,
    uring::allowed,
    uring::seccomp,
    tun::device,
    tun::offload,
    ebpf::steering,
    ebpf::compiler,
    outside::port,
    keys::modes,
    forwarding::ipv4,
    forwarding::ipv6,
    forwarding::reverse_path,
    conntrack::table,
    conntrack::buckets,
    nft::flowtable,
    limits::open_files,
    limits::locked_memory,
    limits::host_files,
    tcp::accept_backlog,
    tcp::syn_backlog,
    tcp::receive_buffer,
    tcp::send_buffer,
    tcp::unsent_low_water,
    tcp::congestion_control,
    outside::mtu,
    outside::mtu_probing,
    nic::queues,
    nic::receive_side_scaling,
    nic::packet_steering,
    nic::transmit_steering,
    nic::numa,
    irq::affinity,
    offloads::offloads,
    offloads::udp_gro_forwarding,
    cpu::aes,
    cpu::vector_aes,
    cpu::governor,
    idle::states,
    idle::smt,
    idle::isolation,
    cpu::mitigations,
    memory::huge_pages,
    memory::transparent_huge_pages,
    clock::source,
    clock::sync,
    clock::entropy,
    tls::kernel_tls,
    tls::ciphers,
    tls::rekey,
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
