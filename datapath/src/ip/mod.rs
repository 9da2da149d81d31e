//! IP packets between the frame and the TUN: checked views, and the few changes a gateway makes.
//!
//! Sources: RFC 791 (IPv4), RFC 8200 (IPv6), RFC 1071 and RFC 1624 (checksums), RFC 9293 (the MSS
//! option), RFC 792, RFC 1191 and RFC 4443 (too-big answers).
//!
//! ```text
//!  uplink    bytes of a frame → packet::Packet::parse → source::SourceCheck → mss::clamp → inside
//!  downlink  inside → mss::clamp → fits? frame
//!                                → DF or IPv6: icmp::too_big   → IPv4 without DF: fragment::split
//! ```
//!
//! Between the two, [`offload`] makes superpackets of packets and packets of superpackets.
//!
//! Nothing here routes, reassembles or keeps state about flows, and nothing allocates per
//! packet. A length
//! that lies ends in a typed error; extension headers are walked only where a function says so, and
//! [`packet::EXTENSION_HEADERS_MAX`] bounds the walk.
//!
//! ```
//! use datapath::ip::{packet::Packet, source::{SourceCheck, To}};
//!
//! // UDP from 10.8.0.2 to 10.8.0.1, four bytes of it padding behind the packet.
//! let bytes = [
//!     0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 8, 0, 2, 10, 8, 0, 1, // IPv4
//!     0x30, 0x39, 0, 53, 0, 8, 0, 0, // UDP
//!     0, 0, 0, 0,
//! ];
//! assert_eq!(Packet::parse(&bytes).unwrap().bytes().len(), 28);
//! let check = SourceCheck::new(Some([10, 8, 0, 2].into()), None, None);
//! let accepted = check.check(&bytes).unwrap();
//! assert_eq!((accepted.len, accepted.to), (28, To::Inside));
//! ```
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

pub mod packet;

pub mod checksum;

pub mod source;

pub mod mss;

pub mod flow;

pub mod ecn;

pub mod icmp;

pub mod fragment;

pub mod offload;
