//! What things cost, as measured; the rows of `bench/README.md` by their names.
//!
//! All of one kind of machine: two processors of a shared AMD EPYC, Linux 6.18, no network card. Where
//! rows differ by direction the dearer one counts.

/// One figure and where it is from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figure {
    pub(crate) value: f64,
    pub(crate) source: &'static str,
}

const fn row(value: f64, source: &'static str) -> Figure {
    Figure { value, source }
}

/// Clients that share 2 Gbit/s of bulk, and ms of CPU for each GB: bursts shrink with the number.
pub(crate) const BULK: [(u32, Figure); 3] = [
    (1, row(807.0, "bench/README.md, clients/1 down")),
    (10, row(1_007.0, "bench/README.md, clients/10 up")),
    (1_000, row(1_373.0, "bench/README.md, clients/1000 down")),
];

/// Bytes of a packet that cannot be merged, and ns of CPU for each, as they come from another processor.
pub(crate) const PACKETS: [(f64, Figure); 2] = [
    (
        64.0,
        row(3_546.0, "bench/README.md, udp/down 64, as it comes"),
    ),
    (
        1_400.0,
        row(3_934.0, "bench/README.md, udp/down 1400, as it comes"),
    ),
];

/// Sessions that one core sets up in a second.
pub(crate) const SET_UPS: Figure = row(3_538.0, "bench/README.md, set-ups");

/// Bytes of the gateway's memory for each idle session.
pub(crate) const SESSION: Figure = row(8_940.0, "bench/README.md, idle/memory");

/// Bytes of the gateway before its first session, with one shard.
pub(crate) const GATEWAY: Figure = row(57_200_000.0, "bench/README.md, idle/memory");

/// Bytes of one more shard: 384 buffers of 64 KiB.
pub(crate) const SHARD: Figure = row(
    384.0 * 65_536.0,
    "gateway/src/shards.rs: 64 to hand over, 256 to send from, 64 to receive into",
);

/// Bytes of the kernel's for each connection that is silent.
pub(crate) const SOCKET: Figure = row(
    3_712.0,
    "/proc/slabinfo, Linux 6.18: TCPv6 2496, sock_inode_cache 832, filp 192, dentry 192",
);

/// Bytes of the kernel's for each tracked flow.
pub(crate) const FLOW: Figure = row(256.0, "/proc/slabinfo, Linux 6.18: nf_conntrack");

/// How busy a core may be: latency was measured at half of what the gateway could carry.
pub(crate) const BUSY: Figure = row(0.5, "bench/README.md, latency/: measured at half load");
