//! What the tests of the io_uring driver share: a loop that drives one, and loopback sockets.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::net::SocketAddr;

use datapath::io::{Completion, ConnectionId, Io, Loss, SendBuffer};
use datapath::sys::clock;
use datapath::sys::socket::{ListenOptions, listen};
use datapath::sys::uring::{Config, Uring};
use datapath::time::{Duration, Instant};

/// Nothing in these tests takes so long unless it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Small numbers, so that limits are met.
pub(crate) fn config() -> Config {
    Config {
        submission_entries: 64,
        receive_buffers: 16,
        receive_buffer_len: 16 * 1024,
        connections: 64,
        ..Config::default()
    }
}

/// A driver that listens on a free port of 127.0.0.1.
pub(crate) fn server(config: Config) -> (Uring, SocketAddr) {
    let listener = listen("127.0.0.1:0".parse().unwrap(), &ListenOptions::default()).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let driver = Uring::new(Config {
        listeners: vec![listener],
        ..config
    });
    (driver.unwrap(), address)
}

pub(crate) fn buffer(bytes: &[u8]) -> SendBuffer {
    SendBuffer {
        bytes: bytes.to_vec().into_boxed_slice(),
        start: 0,
        end: bytes.len(),
    }
}

/// Bytes in which every position can be recognised.
pub(crate) fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .collect()
}

pub(crate) fn deadline() -> Instant {
    clock::now() + PATIENCE
}

/// Turns until `done` says so; panics when it takes too long.
pub(crate) fn run(driver: &mut Uring, mut done: impl FnMut(&mut Uring, Completion) -> bool) {
    let deadline = deadline();
    let mut completions = Vec::new();
    loop {
        driver.turn(Some(deadline), &mut completions).unwrap();
        let mut finished = false;
        for completion in completions.drain(..) {
            finished |= done(driver, completion);
        }
        if finished {
            return;
        }
        assert!(
            clock::now() < deadline,
            "nothing happened for too long: {driver:?}"
        );
    }
}

/// Turns until a connection was accepted.
pub(crate) fn accept(driver: &mut Uring) -> ConnectionId {
    let mut accepted = None;
    run(driver, |_, completion| {
        if let Completion::Accepted { connection, .. } = completion {
            accepted = Some(connection);
        }
        accepted.is_some()
    });
    accepted.unwrap()
}

/// Turns until `len` bytes came on a connection (or its end), and gives every buffer back.
pub(crate) fn receive(driver: &mut Uring, from: ConnectionId, len: usize) -> Result<Vec<u8>, Loss> {
    let mut received = Vec::new();
    let mut end = None;
    run(driver, |driver, completion| {
        match completion {
            Completion::Received { connection, buffer } => {
                if connection == from {
                    received.extend_from_slice(&buffer.bytes[..buffer.len]);
                }
                driver.release(buffer);
            }
            Completion::ReceiveEnded { connection, loss } if connection == from => {
                end = Some(loss);
            }
            _ => {}
        }
        received.len() >= len || end.is_some()
    });
    match end {
        Some(loss) if received.len() < len => Err(loss),
        _ => Ok(received),
    }
}
