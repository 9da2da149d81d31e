//! Each driver over real loopback.
#![expect(
    clippy::disallowed_types,
    reason = "the other end of these tests is the standard library"
)]

mod sys_common;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use datapath::io::{Completion, Io as _, Loss};
use datapath::sys::clock;
use datapath::sys::driver::Config;
use datapath::sys::uring::probe;
use datapath::time::Duration;

use sys_common::{Kind, accept, buffer, config, on_every_driver, pattern, receive, run, server};

on_every_driver!(
    bytes_go_both_ways_and_the_end_is_told,
    a_send_larger_than_the_socket_is_continued_by_the_driver_and_by_the_kernel,
    a_deadline_ends_the_wait,
);

#[test]
fn the_probe_finds_a_rung() {
    probe().unwrap();
}

fn bytes_go_both_ways_and_the_end_is_told(kind: Kind) {
    let (mut driver, address) = server(kind, config());
    let mut peer = TcpStream::connect(address).unwrap();
    let connection = accept(&mut driver);

    peer.write_all(b"hello").unwrap();
    assert_eq!(receive(&mut driver, connection, 5).unwrap(), b"hello");

    driver.send(connection, buffer(b"xworldx"));
    run(&mut driver, |_, completion| {
        matches!(completion, Completion::Sent { result: Ok(()), .. })
    });
    let mut answer = [0; 7];
    peer.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"xworldx");

    peer.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(receive(&mut driver, connection, 1), Err(Loss::Finished));

    driver.close(connection, false);
    let mut completions = Vec::new();
    driver.turn(Some(clock::now()), &mut completions).unwrap();
    assert_eq!(peer.read(&mut answer).unwrap(), 0);
    assert!(completions.is_empty());
    assert_eq!(driver.connection_count(), 0);
    assert_eq!(driver.buffers_available(), 16);
    assert_eq!(driver.counters().unclaimed, 0);
}

fn a_send_larger_than_the_socket_is_continued_by_the_driver_and_by_the_kernel(kind: Kind) {
    for kernel_finishes_sends in [false, true] {
        let (mut driver, address) = server(
            kind,
            Config {
                kernel_finishes_sends,
                ..config()
            },
        );
        let mut peer = TcpStream::connect(address).unwrap();
        let connection = accept(&mut driver);
        let bytes = pattern(20 << 20, 1);
        let expected = bytes.clone();
        let reader = std::thread::Builder::new()
            .spawn(move || {
                let mut received = vec![0; expected.len()];
                peer.read_exact(&mut received).unwrap();
                assert!(received == expected);
                peer
            })
            .unwrap();
        driver.send(connection, buffer(&bytes));
        run(&mut driver, |_, completion| match completion {
            Completion::Sent { buffer, result, .. } => {
                assert_eq!(result, Ok(()));
                assert_eq!((buffer.start, buffer.end), (0, bytes.len()));
                true
            }
            _ => false,
        });
        reader.join().unwrap();
        let by_driver = kind == Kind::Epoll || !kernel_finishes_sends;
        assert_eq!(driver.counters().short_sends > 0, by_driver);
    }
}

fn a_deadline_ends_the_wait(kind: Kind) {
    let (mut driver, _) = server(kind, config());
    let mut completions = Vec::new();
    let deadline = clock::now() + Duration::from_millis(20);
    driver.turn(Some(deadline), &mut completions).unwrap();
    assert!(driver.now() >= deadline);
    assert!(completions.is_empty());
}
