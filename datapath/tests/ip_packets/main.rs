//! The `ip` layer against hand-made packets and slow references that share no code with it.
#![expect(
    clippy::cast_possible_truncation,
    reason = "packets built here are short"
)]

mod checksums;
mod fragments;
mod mss_clamp;
mod packet;
#[path = "../rfc1071/mod.rs"]
mod rfc1071;
mod source_check;
mod too_big;
mod views;
