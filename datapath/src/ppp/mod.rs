//! PPP: frames, the option automaton, LCP, authentication, IPCP, IPV6CP (RFC 1661), both roles.
//!
//! ```text
//! frame    FF 03 | protocol u16 | information            one SSTP data packet holds one frame
//! control  code u8 | identifier u8 | length u16 | data    information of LCP, IPCP, IPV6CP, PAP, CHAP, EAP
//! option   type u8 | length u8 | value                    data of Configure-*
//!
//! phases (RFC 1661 §3.2)
//!   Dead ──up──▶ Establish ──LCP open──▶ Authenticate ──accepted──▶ Network ──terminate──▶ Terminate ─▶ Dead
//! ```
//!
//! | module | source |
//! |---|---|
//! | [`frame`] | RFC 1661 §2, RFC 1662 §3.1 without flags, escapes and checksum |
//! | [`control`] | RFC 1661 §5, §6 |
//! | [`automaton`] | RFC 1661 §4.1: one table for LCP and every NCP |
//! | `negotiation` | RFC 1661 §4.3–4.6: what the table's actions do |
//! | `lcp` | RFC 1661 §5.8–6, RFC 1570 |
//! | [`auth`] | RFC 1334 (PAP), 1994 (CHAP), 2759 (MS-CHAPv2), 3748 (EAP) |
//! | `ipcp` | RFC 1332, 1877 |
//! | `ipv6cp` | RFC 5072 |
//! | [`link`] | RFC 1661 §3.2: the phases, their deadlines, and who may speak when |
//!
//! It does not compress, encrypt, bundle links or call back: TLS is around it. What a link may
//! carry between the peers' addresses is the session's question, see [`link::Link::admits`].

pub mod frame;

pub mod control;

pub mod automaton;

pub mod config;

mod negotiation;

mod lcp;

pub mod auth;

mod ipcp;

mod ipv6cp;

pub mod link;

mod rate;

mod snapshot;
