//! SSTP over the byte stream that TLS and HTTP have opened: MS-SSTP revision 21.0, both roles.
//!
//! ```text
//! bytes ─ packet::parse ─▶ Packet ─ Call::handle_packet ─┬▶ Admission   may its frame go to PPP?
//!                            │                           ├▶ send        SSTP packets
//!                            └ control: message::parse   └▶ Event       StartPpp, Connected, Closed
//! ```
//!
//! [`packet`] is the framing, [`message`] what control packets say, [`binding`] the proof that TLS
//! and PPP authentication share one client, [`call`] what both roles have in common and [`server`]
//! and [`client`] their state machines. Nothing here knows PPP, HTTP or TLS: frames are opaque, the
//! key of the binding and the hashes of the certificate come from the session.
//!
//! ```
//! use datapath::output::Collected;
//! use datapath::sstp::{CertificateHashes, Nonce, client, packet, server};
//! use datapath::time::Instant;
//!
//! let certificate = CertificateHashes::of_der(b"the leaf certificate of the connection");
//! let nonce = Nonce([7; 32]); // unpredictable in earnest
//! let mut client = client::Call::new(client::Config::new(certificate));
//! let mut server = server::Call::new(server::Config::new(nonce, vec![certificate]));
//! let (mut from_client, mut from_server) = (Collected::default(), Collected::default());
//! server.start(Instant::ZERO, &mut from_server);
//! client.start(Instant::ZERO, &mut from_client);
//! let (request, consumed) = packet::parse(&from_client.sent[0]).unwrap().unwrap();
//! assert_eq!(consumed, 14);
//! server.handle_packet(Instant::ZERO, request, &mut from_server);
//! assert_eq!(from_server.sent[0].len(), 48, "a CALL_CONNECT_ACK");
//! ```

mod attribute;
pub mod binding;
pub mod call;
pub mod client;
pub mod message;
pub mod packet;
pub mod server;

pub use binding::{BindingVerified, CertificateHashes, HashBitmask, Nonce};
pub use call::{Admission, CallSnapshot, CloseReason, DropReason, Event, Timing};

#[cfg(test)]
mod tests;
