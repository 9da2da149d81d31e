#![doc = include_str!("../ARCHITECTURE.md")]
#![deny(unsafe_code)]

// The line above each module is the map for readers of this file. It is no doc comment: each
// module has its own, and behind an outer one rustdoc would resolve its links from here.

// (1) Vocabulary: depends on nothing here.

// Instants and deadlines as values.
pub mod time;

// Bounded reading and writing of byte slices.
pub mod wire;

// Where machines send and tell; where random numbers come from.
pub mod output;

// MS-CHAPv2, MPPE and SSTP key schedules.
pub mod crypto;

// (2) Layers, outside to inside: sans-IO; they see only (1), never each other.

// Handshake by rustls, records by our own layer.
pub mod tls;

// The request that opens an SSTP connection, and its answer.
pub mod http;

// Packets, messages, the call, the crypto binding.
pub mod sstp;

// Frames, the automaton, LCP, authentication, NCPs.
pub mod ppp;

// Views, checksums, MSS clamp, source check.
pub mod ip;

// What the gateway itself answers inside the tunnel.
pub mod services;

// (3) The session: the only place that knows more than one layer.

// One client, from accept to release.
pub mod session;

// (4) The edges: I/O.

// The seam between a shard and the kernel.
pub mod io;

// The loop of one core.
pub mod shard;

// The kernel; the only `unsafe`.
pub mod sys;

// Doubles of the kernel, for tests and simulation.
#[cfg(any(test, feature = "testing"))]
pub mod testing;
