//! Each driver: how connections begin, move, pause and end.
#![expect(
    clippy::disallowed_types,
    reason = "the other end of these tests is the standard library"
)]

mod sys_common;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use datapath::io::{Completion, ConnectionId, Io as _, Loss};
use datapath::sys::clock;
use datapath::sys::driver::Config;
use datapath::sys::socket::{ListenOptions, listen};
use datapath::sys::thread::spawn_shard;
use datapath::testing::rng::Rng;
use datapath::time::Duration;

use sys_common::{
    Kind, accept, buffer, config, deadline, on_every_driver, pattern, receive, run, server,
};

on_every_driver!(
    a_connect_to_a_closed_port_is_refused_and_its_id_dies,
    a_connect_comes_from_the_source_it_was_given,
    no_wake_up_is_lost,
    a_waker_may_outlive_its_driver,
    a_paused_connection_is_told_nothing_until_it_is_resumed,
    shutdown_waits_for_the_send_and_receiving_goes_on,
    an_orderly_close_lets_the_send_finish_and_a_reset_does_not,
    stopping_takes_in_who_waits_and_closes_the_door,
    a_connection_moves_between_drivers_under_traffic,
    a_connection_that_sends_cannot_be_detached,
    any_order_of_verbs_leaves_nothing_behind,
);

fn a_connect_to_a_closed_port_is_refused_and_its_id_dies(kind: Kind) {
    // Bound, so that nobody else gets the port, and closed.
    let closed = listen("127.0.0.1:0".parse().unwrap(), &ListenOptions::default()).unwrap();
    let address = closed.local_addr().unwrap().as_socket().unwrap();
    drop(closed);
    let mut driver = kind.driver(config());
    let id = driver.connect(address, None).unwrap();
    run(&mut driver, |_, completion| match completion {
        Completion::Connected { connection, result } => {
            assert_eq!(connection, id);
            assert_eq!(result, Err(Loss::Os(libc::ECONNREFUSED)));
            true
        }
        _ => false,
    });
    driver.send(id, buffer(b"x"));
    run(&mut driver, |_, completion| {
        let Completion::Sent { result, buffer, .. } = completion else {
            return false;
        };
        result == Err(Loss::Reset) && *buffer.bytes == *b"x"
    });
    assert_eq!(driver.connection_count(), 0);
}

fn a_connect_comes_from_the_source_it_was_given(kind: Kind) {
    let (mut driver, address) = server(kind, config());
    driver
        .connect(address, Some("127.0.0.7:0".parse().unwrap()))
        .unwrap();
    run(&mut driver, |_, completion| match completion {
        Completion::Accepted { peer, .. } => {
            assert_eq!(peer.ip().to_string(), "127.0.0.7");
            true
        }
        _ => false,
    });
}

fn no_wake_up_is_lost(kind: Kind) {
    let mut driver = kind.driver(config());
    let waker = driver.waker();
    let (sender, receiver) = std::sync::mpsc::channel();
    let other = spawn_shard("waker".to_owned(), None, move |_| {
        for number in 0..20_000 {
            sender.send(number).unwrap();
            waker.wake();
        }
    });
    let mut next = 0;
    run(&mut driver, |_, completion| {
        assert!(matches!(completion, Completion::Woken));
        while let Ok(number) = receiver.try_recv() {
            assert_eq!(number, next);
            next += 1;
        }
        next == 20_000
    });
    other.unwrap().join().unwrap();
}

fn a_waker_may_outlive_its_driver(kind: Kind) {
    let driver = kind.driver(config());
    let waker = driver.waker();
    drop(driver);
    waker.wake();
}

fn a_paused_connection_is_told_nothing_until_it_is_resumed(kind: Kind) {
    let (mut driver, address) = server(kind, config());
    let mut peer = TcpStream::connect(address).unwrap();
    let id = accept(&mut driver);
    driver.pause_receive(id);
    // One turn to cancel, and then bytes come.
    driver.turn(Some(clock::now()), &mut Vec::new()).unwrap();
    peer.write_all(b"paused").unwrap();
    let mut completions = Vec::new();
    let end = clock::now() + Duration::from_millis(50);
    driver.turn(Some(end), &mut completions).unwrap();
    assert!(completions.is_empty(), "{completions:?}");
    driver.resume_receive(id);
    assert_eq!(receive(&mut driver, id, 6).unwrap(), b"paused");

    // Back and forth within a turn ends as it was left.
    driver.pause_receive(id);
    driver.resume_receive(id);
    driver.pause_receive(id);
    driver.resume_receive(id);
    peer.write_all(b"again").unwrap();
    assert_eq!(receive(&mut driver, id, 5).unwrap(), b"again");
}

fn shutdown_waits_for_the_send_and_receiving_goes_on(kind: Kind) {
    let (mut driver, address) = server(kind, config());
    let mut peer = TcpStream::connect(address).unwrap();
    let id = accept(&mut driver);
    let bytes = pattern(8 << 20, 3);
    driver.send(id, buffer(&bytes));
    driver.shutdown(id);
    let reader = spawn_shard("peer".to_owned(), None, move |_| {
        let mut received = Vec::new();
        peer.read_to_end(&mut received).unwrap();
        assert!(received == bytes);
        peer.write_all(b"after your FIN").unwrap();
        peer
    });
    assert_eq!(receive(&mut driver, id, 14).unwrap(), b"after your FIN");
    reader.unwrap().join().unwrap();
}

fn an_orderly_close_lets_the_send_finish_and_a_reset_does_not(kind: Kind) {
    for reset in [false, true] {
        let (mut driver, address) = server(kind, config());
        let mut peer = TcpStream::connect(address).unwrap();
        let id = accept(&mut driver);
        let bytes = pattern(16 << 20, 3);
        driver.send(id, buffer(&bytes));
        driver.turn(Some(clock::now()), &mut Vec::new()).unwrap();
        driver.close(id, reset);
        let reader = spawn_shard("peer".to_owned(), None, move |_| {
            let mut received = Vec::new();
            let result = peer.read_to_end(&mut received);
            (received == bytes, result.map_err(|error| error.kind()))
        });
        run(&mut driver, |_, completion| match completion {
            Completion::Sent {
                connection, result, ..
            } => {
                assert_eq!(connection, id);
                assert_eq!(result, if reset { Err(Loss::Reset) } else { Ok(()) });
                true
            }
            other => panic!("a closed connection is told of: {other:?}"),
        });
        let (whole, result) = reader.unwrap().join().unwrap();
        assert_eq!(whole, !reset);
        if reset {
            assert_eq!(result, Err(std::io::ErrorKind::ConnectionReset));
        }
        assert_eq!(driver.connection_count(), 0);
    }
}

fn stopping_takes_in_who_waits_and_closes_the_door(kind: Kind) {
    let (mut driver, address) = server(kind, config());
    let _waiting: Vec<TcpStream> = (0..5)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    driver.stop_accepting();
    let mut accepted = 0;
    run(&mut driver, |_, completion| {
        accepted += u32::from(matches!(completion, Completion::Accepted { .. }));
        accepted == 5
    });
    let refused = TcpStream::connect(address).map_err(|error| error.kind());
    assert_eq!(refused.err(), Some(std::io::ErrorKind::ConnectionRefused));
}

fn a_connection_moves_between_drivers_under_traffic(kind: Kind) {
    let (mut first, address) = server(kind, config());
    let mut second = kind.driver(config());
    let mut peer = TcpStream::connect(address).unwrap();
    let mut id = accept(&mut first);
    let bytes = pattern(32 << 20, 5);
    let expected = bytes.clone();
    let writer = spawn_shard("peer".to_owned(), None, move |_| {
        peer.write_all(&bytes).unwrap();
        peer
    });
    let mut received = Vec::new();
    let mut drivers = [&mut first, &mut second];
    let until = deadline();
    let mut moves = 0;
    while received.len() < expected.len() {
        let mut completions = Vec::new();
        drivers[0].turn(Some(until), &mut completions).unwrap();
        for completion in completions {
            match completion {
                Completion::Received { connection, buffer } => {
                    assert_eq!(connection, id);
                    received.extend_from_slice(&buffer.bytes[..buffer.len]);
                    drivers[0].release(buffer);
                }
                other => panic!("{other:?}"),
            }
        }
        let detached = drivers[0].detach(id).unwrap();
        assert!(drivers[0].detach(id).is_none());
        drivers.reverse();
        id = drivers[0].attach(detached).unwrap();
        moves += 1;
    }
    assert!(moves > 10);
    assert!(received == expected);
    let mut peer = writer.unwrap().join().unwrap();
    drivers[0].send(id, buffer(b"arrived"));
    run(drivers[0], |_, completion| {
        matches!(completion, Completion::Sent { result: Ok(()), .. })
    });
    let mut answer = [0; 7];
    peer.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"arrived");
    for driver in drivers {
        assert_eq!(driver.buffers_available(), 16);
        assert_eq!(driver.counters().unclaimed, 0);
    }
}

fn a_connection_that_sends_cannot_be_detached(kind: Kind) {
    let (mut driver, address) = server(kind, config());
    let _peer = TcpStream::connect(address).unwrap();
    let id = accept(&mut driver);
    driver.send(id, buffer(&vec![0; 16 << 20]));
    assert!(driver.detach(id).is_none());
    driver.close(id, true);
    assert!(driver.detach(id).is_none());
}

/// Every verb at any moment, in any order; in the end everything is back.
fn any_order_of_verbs_leaves_nothing_behind(kind: Kind) {
    for seed in 0..20 {
        let mut rng = Rng::new(seed);
        let (mut driver, address) = server(
            kind,
            Config {
                receive_buffers: 3,
                receive_buffer_len: 2048,
                submission_entries: 8,
                ..config()
            },
        );
        let mut peers: Vec<TcpStream> = Vec::new();
        // By id: sends under way. Closed ones stay while their send is out.
        let mut open: Vec<ConnectionId> = Vec::new();
        let mut sends: BTreeMap<ConnectionId, u32> = BTreeMap::new();
        let mut held = Vec::new();
        let mut completions = Vec::new();
        for _ in 0..2000 {
            match rng.below(12) {
                0 if peers.len() < 20 => {
                    let peer = TcpStream::connect(address).unwrap();
                    peer.set_nonblocking(true).unwrap();
                    peers.push(peer);
                }
                1 if !peers.is_empty() => drop(peers.swap_remove(rng.index(peers.len()))),
                2 | 3 if !peers.is_empty() => {
                    let peer = rng.index(peers.len());
                    let _ = peers[peer].write(&pattern(5000, seed));
                }
                4 if !peers.is_empty() => {
                    let peer = rng.index(peers.len());
                    let _ = peers[peer].read(&mut [0; 100_000]);
                }
                5 if !open.is_empty() => {
                    let id = open[rng.index(open.len())];
                    if sends.get(&id).is_none_or(|&count| count == 0) {
                        driver.send(id, buffer(&vec![1; 1 + rng.index(400_000)]));
                        *sends.entry(id).or_default() += 1;
                    }
                }
                6 if !open.is_empty() => driver.pause_receive(open[rng.index(open.len())]),
                7 if !open.is_empty() => driver.resume_receive(open[rng.index(open.len())]),
                8 if !open.is_empty() => driver.shutdown(open[rng.index(open.len())]),
                9 if !open.is_empty() => {
                    let id = open.swap_remove(rng.index(open.len()));
                    driver.close(id, rng.chance(500));
                }
                10 if !open.is_empty() => {
                    let index = rng.index(open.len());
                    if let Some(detached) = driver.detach(open[index]) {
                        open[index] = driver.attach(detached).unwrap();
                    }
                }
                _ => {
                    driver.turn(Some(clock::now()), &mut completions).unwrap();
                }
            }
            if rng.chance(300) {
                for buffer in held.drain(..) {
                    driver.release(buffer);
                }
            }
            for completion in completions.drain(..) {
                match completion {
                    Completion::Accepted { connection, .. } => open.push(connection),
                    Completion::Received { connection, buffer } => {
                        assert!(open.contains(&connection), "seed {seed}");
                        held.push(buffer);
                    }
                    Completion::ReceiveEnded { connection, .. } => {
                        assert!(open.contains(&connection), "seed {seed}");
                    }
                    Completion::Sent {
                        connection, buffer, ..
                    } => {
                        assert!(!buffer.bytes.is_empty());
                        *sends.get_mut(&connection).expect("a send of ours") -= 1;
                    }
                    other => panic!("seed {seed}: {other:?}"),
                }
            }
        }
        for buffer in held {
            driver.release(buffer);
        }
        for id in open {
            driver.close(id, true);
        }
        drop(peers);
        driver.stop_accepting();
        let until = deadline();
        while driver.connection_count() > 0 || sends.values().any(|&count| count > 0) {
            let wait = clock::now() + Duration::from_millis(10);
            driver.turn(Some(wait), &mut completions).unwrap();
            assert!(clock::now() < until, "seed {seed}: {driver:?} {sends:?}");
            for completion in completions.drain(..) {
                match completion {
                    Completion::Sent { connection, .. } => {
                        *sends.get_mut(&connection).unwrap() -= 1;
                    }
                    Completion::Accepted { connection, .. } => driver.close(connection, true),
                    Completion::Received { buffer, .. } => driver.release(buffer),
                    _ => {}
                }
            }
        }
        assert_eq!(driver.buffers_available(), 3, "seed {seed}");
        assert_eq!(driver.counters().unclaimed, 0, "seed {seed}");
    }
}
