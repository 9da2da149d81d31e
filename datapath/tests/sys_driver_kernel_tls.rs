//! A driver that lets the kernel open TLS: receiving a buffer a connection and turn, on plain
//! connections, and what it says where the kernel has no TLS. TLS itself: `tests/guest/run ktls`.
#![expect(
    clippy::disallowed_types,
    reason = "the other end of these tests is the standard library"
)]

mod sys_common;

use std::io::Write as _;
use std::net::TcpStream;

use datapath::io::kernel_tls::{
    Direction, KEY_LEN_MAX, KernelSend, TlsCipher, TlsKeys, TlsVersion,
};
use datapath::io::{Completion, Io as _, Loss};
use datapath::sys::driver::Config;
use datapath::sys::thread::spawn_shard;

use sys_common::{
    Kind, URING, accept, buffer, config, deadline, on_every_driver, pattern, receive, run, server,
};

on_every_driver!(
    polled_connections_give_every_byte_in_order_and_their_end,
    a_polled_connection_is_told_of_once_a_turn,
    a_paused_polled_connection_is_silent_until_it_is_resumed,
    keys_are_refused_where_they_cannot_be_and_nothing_is_sent_in_the_clear,
);

fn polled() -> Config {
    Config {
        kernel_opens_tls: true,
        receive_buffers: 2,
        ..config()
    }
}

fn keys() -> TlsKeys {
    TlsKeys {
        version: TlsVersion::Tls13,
        cipher: TlsCipher::Aes128Gcm,
        key: [1; KEY_LEN_MAX],
        iv: [2; 12],
        seq: 0,
    }
}

fn polled_connections_give_every_byte_in_order_and_their_end(kind: Kind) {
    let (mut driver, address) = server(kind, polled());
    let mut clients = Vec::new();
    let mut ids = Vec::new();
    for seed in 0..5 {
        let stream = TcpStream::connect(address).unwrap();
        let sent = pattern(300_000, seed);
        ids.push((accept(&mut driver), sent.clone(), Vec::new()));
        clients.push((stream, sent));
    }
    let clients = clients.into_iter().map(|(mut stream, bytes)| {
        let write = move |_| stream.write_all(&bytes).unwrap();
        spawn_shard("client".to_owned(), None, write).unwrap()
    });
    let clients: Vec<_> = clients.collect();
    let mut ended = 0;
    run(&mut driver, |driver, completion| {
        match completion {
            Completion::Received { connection, buffer } => {
                let place = ids.iter_mut().find(|(id, ..)| *id == connection).unwrap();
                place.2.extend_from_slice(&buffer.bytes[..buffer.len]);
                driver.release(buffer);
            }
            Completion::ReceiveEnded { loss, .. } => {
                assert_eq!(loss, Loss::Finished);
                ended += 1;
            }
            _ => {}
        }
        ended == 5
    });
    for (_, sent, received) in ids {
        assert!(sent == received);
    }
    for client in clients {
        client.join().unwrap();
    }
}

/// What the hand-over of the keys stands on: when the shard acts, it has been told of at most one buffer
/// of a connection, and all behind it is still in the socket.
fn a_polled_connection_is_told_of_once_a_turn(kind: Kind) {
    let (mut driver, address) = server(kind, polled());
    let mut client = TcpStream::connect(address).unwrap();
    let id = accept(&mut driver);
    let sent = pattern(100_000, 1);
    client.write_all(&sent).unwrap();
    let mut received = Vec::new();
    let mut completions = Vec::new();
    while received.len() < sent.len() {
        driver.turn(Some(deadline()), &mut completions).unwrap();
        let mut told = 0;
        for completion in completions.drain(..) {
            if let Completion::Received { connection, buffer } = completion {
                assert_eq!(connection, id);
                told += 1;
                received.extend_from_slice(&buffer.bytes[..buffer.len]);
                driver.release(buffer);
            }
        }
        assert!(told <= 1);
    }
    assert!(received == sent);
}

fn a_paused_polled_connection_is_silent_until_it_is_resumed(kind: Kind) {
    let (mut driver, address) = server(kind, polled());
    let mut client = TcpStream::connect(address).unwrap();
    let id = accept(&mut driver);
    driver.pause_receive(id);
    client.write_all(b"first").unwrap();
    let mut other = TcpStream::connect(address).unwrap();
    let second = accept(&mut driver);
    other.write_all(b"second").unwrap();
    assert_eq!(receive(&mut driver, second, 6).unwrap(), b"second");
    driver.resume_receive(id);
    assert_eq!(receive(&mut driver, id, 5).unwrap(), b"first");
    drop(client);
    assert_eq!(receive(&mut driver, id, 1), Err(Loss::Finished));
    driver.close(id, false);
    driver.close(second, true);
    let mut completions = Vec::new();
    while driver.connection_count() > 0 {
        driver.turn(Some(deadline()), &mut completions).unwrap();
    }
}

fn keys_are_refused_where_they_cannot_be_and_nothing_is_sent_in_the_clear(kind: Kind) {
    let (mut driver, address) = server(kind, config());
    let _client = TcpStream::connect(address).unwrap();
    let id = accept(&mut driver);
    if kind == URING {
        // A multishot receive may hold bytes that nobody has seen.
        let refused = driver.install_tls(id, Direction::Rx, &keys());
        assert_eq!(refused, Err(libc::EOPNOTSUPP));
    }
    let how = KernelSend::Data { last_len: 1 };
    let back = driver.send_by_kernel(id, buffer(b"secret"), how);
    assert_eq!(*back.unwrap_err().bytes, *b"secret");

    let (mut driver, address) = server(kind, polled());
    let mut client = TcpStream::connect(address).unwrap();
    let id = accept(&mut driver);
    match driver.install_tls(id, Direction::Rx, &keys()) {
        // This kernel has TLS.
        Ok(()) => {}
        Err(errno) => {
            assert_eq!(errno, libc::ENOENT);
            client.write_all(b"goes on").unwrap();
            assert_eq!(receive(&mut driver, id, 7).unwrap(), b"goes on");
        }
    }
}
