//! Nothing is allocated by either driver once its connections stand: a counting allocator over the
//! thread that runs it.
#![expect(
    clippy::disallowed_types,
    reason = "the other end of these tests is the standard library"
)]

mod sys_common;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use datapath::io::{Completion, Io as _, SendBuffer};
use datapath::sys::alloc::{CountingAllocator, counted};
use datapath::sys::driver::{Config, Driver};
use datapath::sys::thread::spawn_shard;

use sys_common::{Kind, accept, config, deadline, on_every_driver, server};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

on_every_driver!(
    no_alloc_driver_bulk_both_ways,
    no_alloc_driver_send_that_waits
);

const LEN: usize = 64 * 1024;

/// Receives `len` bytes and sends as many, a buffer at a time.
fn exchange(
    driver: &mut Driver,
    id: datapath::io::ConnectionId,
    room: &mut Option<Box<[u8]>>,
    completions: &mut Vec<Completion>,
    len: usize,
) {
    let (mut received, mut sent) = (0, 0);
    let until = deadline();
    while received < len || sent < len {
        if sent < len
            && let Some(bytes) = room.take()
        {
            let end = bytes.len();
            driver.send(
                id,
                SendBuffer {
                    bytes,
                    start: 0,
                    end,
                },
            );
        }
        driver.turn(Some(until), completions).unwrap();
        for completion in completions.drain(..) {
            match completion {
                Completion::Received { buffer, .. } => {
                    received += buffer.len;
                    driver.release(buffer);
                }
                Completion::Sent { buffer, result, .. } => {
                    assert_eq!(result, Ok(()));
                    sent += buffer.bytes.len();
                    *room = Some(buffer.bytes);
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

fn no_alloc_driver_bulk_both_ways(kind: Kind) {
    let (mut driver, address) = server(kind, config());
    let mut writes = TcpStream::connect(address).unwrap();
    let mut reads = writes.try_clone().unwrap();
    let id = accept(&mut driver);
    let writer = spawn_shard("writer".to_owned(), None, move |_| {
        while writes.write_all(&[1; LEN]).is_ok() {}
    });
    let reader = spawn_shard("reader".to_owned(), None, move |_| {
        let mut bytes = vec![0; LEN];
        while reads.read(&mut bytes).is_ok_and(|len| len > 0) {}
    });
    let mut room = Some(vec![0; LEN].into_boxed_slice());
    // As many completions as there are buffers may come in one turn, and those of sends.
    let mut completions = Vec::with_capacity(128);
    exchange(&mut driver, id, &mut room, &mut completions, 8 << 20);
    let ((), allocations) = counted(|| {
        exchange(&mut driver, id, &mut room, &mut completions, 64 << 20);
    });
    assert_eq!(allocations.count, 0, "{kind:?}: {allocations:?}");
    driver.close(id, true);
    drop(driver);
    writer.unwrap().join().unwrap();
    reader.unwrap().join().unwrap();
}

fn no_alloc_driver_send_that_waits(kind: Kind) {
    let (mut driver, address) = server(
        kind,
        Config {
            kernel_finishes_sends: false,
            ..config()
        },
    );
    let mut reads = TcpStream::connect(address).unwrap();
    let id = accept(&mut driver);
    let reader = spawn_shard("reader".to_owned(), None, move |_| {
        let mut bytes = vec![0; LEN];
        while reads.read(&mut bytes).is_ok_and(|len| len > 0) {}
    });
    // Larger than any socket's buffer, so each is continued.
    let mut room = Some(vec![0; 16 << 20].into_boxed_slice());
    let mut completions = Vec::with_capacity(128);
    let send = |driver: &mut Driver, room: &mut Option<Box<[u8]>>, completions: &mut Vec<_>| {
        let bytes = room.take().unwrap();
        let end = bytes.len();
        driver.send(
            id,
            SendBuffer {
                bytes,
                start: 0,
                end,
            },
        );
        let until = deadline();
        while room.is_none() {
            driver.turn(Some(until), completions).unwrap();
            for completion in completions.drain(..) {
                if let Completion::Sent { buffer, .. } = completion {
                    *room = Some(buffer.bytes);
                }
            }
        }
    };
    send(&mut driver, &mut room, &mut completions);
    let before = driver.counters().short_sends;
    let ((), allocations) = counted(|| {
        for _ in 0..4 {
            send(&mut driver, &mut room, &mut completions);
        }
    });
    assert_eq!(allocations.count, 0, "{kind:?}: {allocations:?}");
    assert!(driver.counters().short_sends > before);
    driver.close(id, true);
    drop(driver);
    reader.unwrap().join().unwrap();
}
