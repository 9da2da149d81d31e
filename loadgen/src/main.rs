//! `loadgen`: real SSTP clients, without root.
//!
//! The client is the data path's own client role on the data path's own shard loop; this crate is
//! its [`Owner`](datapath::shard::Owner): it says whom to connect to, what to send through the
//! tunnel and when to end, and reports what came of it. It speaks to any SSTP server.
//!
//! Path of a run: [`flags`] → [`connect`] (trust, address, shard) → [`client`] (the owner) with
//! [`ping`] inside the tunnel → [`report`].
//!
//! Exit codes: 0 it did what was asked, 1 it failed, 2 usage.

use std::process::ExitCode;

use clap::Parser;

mod client;
mod connect;
mod explain;
mod flags;
mod icmp;
mod ping;
mod report;
mod trust;
mod tun;

use crate::flags::{Command, Flags};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let Flags { command } = Flags::parse();
    match command {
        Command::Connect(flags) => connect::run(&flags),
    }
}
