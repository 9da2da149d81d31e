//! `loadgen`: real SSTP clients, without root.
//!
//! The client is the data path's own client role on the data path's own shard loop; this crate is
//! its [`Owner`](datapath::shard::Owner): it says whom to connect to, what to send through the
//! tunnel and when to end, and reports what came of it. It speaks to any SSTP server.
//!
//! One client: [`flags`] → [`connect`] (trust, address, shard) → [`client`] (the owner) with
//! [`ping`] inside the tunnel → [`report`]. Thousands: [`fleet`], whose packets carry
//! [`payload`] and may go to [`reflect`]. TCP inside a tunnel is [`stack`]. What a run left is
//! [`saved`], read by [`compare`] and made a page of by [`html`].
//!
//! Exit codes: 0 it did what was asked, 1 it failed, 2 usage, 99 a threshold is broken, 130
//! interrupted.

use std::process::ExitCode;

use clap::Parser;

mod client;
mod compare;
mod connect;
#[cfg(test)]
mod examples;
mod explain;
mod flags;
mod fleet;
mod html;
mod icmp;
mod man;
mod pattern;
mod payload;
mod persona;
mod ping;
mod reflect;
mod report;
mod saved;
mod scenario;
mod seed;
mod settings;
mod stack;
mod trust;
mod tun;
mod units;
mod users;

use crate::flags::{Command, Flags};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let Flags { command } = Flags::parse();
    match command {
        Command::Connect(flags) => connect::run(&flags),
        Command::Storm(flags) => fleet::storm(&flags),
        Command::Traffic(flags) => fleet::traffic(&flags),
        Command::Run(flags) => scenario::run(&flags),
        Command::Reflect(flags) => reflect::run(&flags),
        Command::Compare(flags) => compare::run(&flags),
        Command::Report(flags) => fleet::page(&flags),
        Command::Man => {
            // Into memory, so it cannot fail.
            connect::print(&man::page().unwrap_or_default());
            ExitCode::SUCCESS
        }
    }
}
