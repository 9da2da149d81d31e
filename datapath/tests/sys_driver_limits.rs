//! Each driver where something runs out: buffers, descriptors, queue entries, slots.
#![expect(
    clippy::disallowed_types,
    reason = "the other end of these tests is the standard library"
)]

mod sys_common;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use datapath::io::{Completion, Io as _};
use datapath::sys::clock;
use datapath::sys::driver::{Config, Driver};
use datapath::sys::thread::spawn_shard;
use datapath::sys::uring::Rung;
use datapath::time::Duration;
use socket2::{Domain, Socket, Type};

use sys_common::{
    Echoed, Kind, URING, accept, config, deadline, descriptor_count, echo, echo_clients, in_child,
    is_child, on_every_driver, pattern, run, server,
};

on_every_driver!(
    four_receive_buffers_are_enough_for_everyone,
    without_buffers_the_driver_waits_and_does_not_spin,
    a_full_table_refuses_and_goes_on,
    accepting_pauses_without_descriptors_and_resumes_within_a_second,
    a_driver_dropped_with_everything_under_way_leaves_nothing_behind,
    an_impossible_configuration_is_an_error,
);

/// An echo server on a thread of its own against clients on this one.
fn echo_pair(kind: Kind, config: Config, count: usize, len: usize) -> Echoed {
    let (send, address) = std::sync::mpsc::channel();
    let shard = spawn_shard("server".to_owned(), None, move |_| {
        let (mut driver, address) = server(kind, config);
        send.send(address).unwrap();
        echo(&mut driver, count)
    });
    echo_clients(kind, address.recv().unwrap(), count, len);
    let echoed = shard.unwrap().join().unwrap();
    assert_eq!(echoed.connections, count);
    assert_eq!(echoed.left, 0);
    assert!(echoed.buffers_back);
    assert_eq!(echoed.counters.unclaimed, 0);
    assert_eq!(echoed.counters.cq_lost, 0);
    echoed
}

#[test]
fn thousands_of_connections_are_echoed_on_every_rung() {
    let rungs = [Rung::NoArray, Rung::DeferTaskrun, Rung::CoopTaskrun];
    for kind in rungs.map(Kind::IoUring).into_iter().chain([Kind::Epoll]) {
        let config = Config {
            connections: 2000,
            ..config()
        };
        let echoed = echo_pair(kind, config, 2000, 5000);
        assert_eq!(echoed.counters.refused, 0);
    }
}

fn four_receive_buffers_are_enough_for_everyone(kind: Kind) {
    let config = Config {
        connections: 200,
        receive_buffers: 4,
        receive_buffer_len: 1024,
        ..config()
    };
    let echoed = echo_pair(kind, config, 200, 100_000);
    assert!(echoed.counters.buffer_waits > 0, "{echoed:?}");
}

fn without_buffers_the_driver_waits_and_does_not_spin(kind: Kind) {
    let (mut driver, address) = server(
        kind,
        Config {
            receive_buffers: 1,
            receive_buffer_len: 100,
            ..config()
        },
    );
    let mut peers: Vec<TcpStream> = (0..3)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    for (number, peer) in peers.iter_mut().enumerate() {
        peer.write_all(&pattern(1000, number as u64)).unwrap();
    }
    let mut held = None;
    run(&mut driver, |_, completion| {
        if let Completion::Received { buffer, .. } = completion {
            held = Some(buffer);
        }
        held.is_some()
    });
    // Everything is readable and nothing can be received: a turn lasts until its deadline.
    let settled = clock::now() + Duration::from_millis(50);
    let mut completions = Vec::new();
    while clock::now() < settled {
        driver.turn(Some(settled), &mut completions).unwrap();
    }
    let quiet = driver.counters();
    let end = clock::now() + Duration::from_millis(100);
    driver.turn(Some(end), &mut completions).unwrap();
    assert!(clock::now() >= end);
    assert_eq!(driver.counters(), quiet);
    assert!(
        !completions
            .iter()
            .any(|c| matches!(c, Completion::Received { .. }))
    );
    // One buffer back, and all 3000 bytes come through it.
    let mut len = held.as_ref().unwrap().len;
    driver.release(held.unwrap());
    run(&mut driver, |driver, completion| {
        if let Completion::Received { buffer, .. } = completion {
            len += buffer.len;
            driver.release(buffer);
        }
        len == 3000
    });
}

#[test]
fn a_completion_queue_of_eight_loses_nothing() {
    let (mut driver, address) = server(
        URING,
        Config {
            submission_entries: 4,
            completion_entries: Some(8),
            connections: 1000,
            ..config()
        },
    );
    // All of them wait to be accepted before the driver looks.
    let mut peers: Vec<TcpStream> = (0..1000)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    for (number, peer) in peers.iter_mut().enumerate() {
        peer.write_all(&pattern(100, number as u64)).unwrap();
        peer.shutdown(std::net::Shutdown::Write).unwrap();
    }
    let echoed = echo(&mut driver, peers.len());
    for (number, peer) in peers.iter_mut().enumerate() {
        let mut answer = Vec::new();
        peer.read_to_end(&mut answer).unwrap();
        assert_eq!(answer, pattern(100, number as u64));
    }
    assert!(echoed.counters.cq_overflows > 0, "{echoed:?}");
    assert_eq!(echoed.counters.cq_lost, 0);
    assert!(echoed.buffers_back);
}

fn a_full_table_refuses_and_goes_on(kind: Kind) {
    let (mut driver, address) = server(
        kind,
        Config {
            connections: 1,
            ..config()
        },
    );
    let first = TcpStream::connect(address).unwrap();
    let id = accept(&mut driver);
    let mut second = TcpStream::connect(address).unwrap();
    let until = deadline();
    let mut completions = Vec::new();
    while driver.counters().refused == 0 {
        driver
            .turn(
                Some(clock::now() + Duration::from_millis(10)),
                &mut completions,
            )
            .unwrap();
        assert!(clock::now() < until);
    }
    assert!(completions.is_empty());
    assert_eq!(second.read(&mut [0]).unwrap_or(0), 0);
    driver.close(id, false);
    drop(first);
    let _third = TcpStream::connect(address).unwrap();
    accept(&mut driver);
}

fn accepting_pauses_without_descriptors_and_resumes_within_a_second(kind: Kind) {
    if !is_child() {
        return in_child(
            &["sh", "-c", "ulimit -n 64 && exec \"$0\" \"$@\""],
            &kind.test("accepting_pauses_without_descriptors_and_resumes_within_a_second"),
        );
    }
    let (mut driver, address) = server(kind, config());
    let mut established = TcpStream::connect(address).unwrap();
    let id = accept(&mut driver);
    // They connect only when no descriptor is left to accept them with.
    let waiting: Vec<Socket> = (0..4)
        .map(|_| Socket::new(Domain::IPV4, Type::STREAM, None).unwrap())
        .collect();
    let mut fillers = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        fillers.push(file);
    }
    for peer in &waiting {
        peer.connect(&address.into()).unwrap();
    }

    let mut completions = Vec::new();
    let end = clock::now() + Duration::from_millis(1000);
    let mut turns = 0;
    while clock::now() < end {
        driver.turn(Some(end), &mut completions).unwrap();
        turns += 1;
    }
    assert!(turns < 30, "{turns} turns in a second is a spin");
    let pauses = completions.iter().filter(|completion| {
        matches!(completion, Completion::AcceptPaused { errno, .. } if *errno == libc::EMFILE)
    });
    // At 0, 100, 300, 700 ms.
    let pauses = pauses.count();
    assert!(
        (2..=5).contains(&pauses),
        "{pauses} pauses: {completions:?}"
    );

    // Who is in is served meanwhile.
    established.write_all(b"still here").unwrap();
    assert_eq!(
        sys_common::receive(&mut driver, id, 10).unwrap(),
        b"still here"
    );

    drop(fillers);
    let room = clock::now();
    let mut accepted = 0;
    run(&mut driver, |_, completion| {
        accepted += u32::from(matches!(completion, Completion::Accepted { .. }));
        accepted == 4
    });
    let after = clock::now().saturating_since(room);
    assert!(after <= Duration::from_secs(1), "{after:?}");
}

fn a_driver_dropped_with_everything_under_way_leaves_nothing_behind(kind: Kind) {
    if !is_child() {
        return in_child(
            &["env"],
            &kind.test("a_driver_dropped_with_everything_under_way_leaves_nothing_behind"),
        );
    }
    // What is made once by a first driver (of the runtime, not ours) is not counted.
    drop(server(kind, config()));
    let before = descriptor_count();
    for round in 0..8 {
        let (mut driver, address) = server(
            kind,
            Config {
                receive_buffers: 2,
                submission_entries: 8,
                ..config()
            },
        );
        let mut peers = Vec::new();
        for _ in 0..10 {
            let mut peer = TcpStream::connect(address).unwrap();
            let id = accept(&mut driver);
            peer.write_all(&[round; 100]).unwrap();
            // More than any socket takes: stays under way.
            driver.send(id, sys_common::buffer(&vec![1; 16 << 20]));
            peers.push(peer);
        }
        // A listener that nobody accepts from, with a full queue: the connect stays under way.
        let full = datapath::sys::socket::listen(
            "127.0.0.1:0".parse().unwrap(),
            &datapath::sys::socket::ListenOptions {
                backlog: 0,
                ..Default::default()
            },
        )
        .unwrap();
        let full_address = full.local_addr().unwrap().as_socket().unwrap();
        for _ in 0..8 {
            driver.connect(full_address, None).unwrap();
        }
        let turns = round % 4;
        for _ in 0..turns {
            driver.turn(Some(clock::now()), &mut Vec::new()).unwrap();
        }
        let start = clock::now();
        drop(driver);
        let took = clock::now().saturating_since(start);
        assert!(
            took < Duration::from_secs(1),
            "{took:?} to drop, {turns} turns"
        );
        for peer in &mut peers {
            // FIN or RST, but an end: the driver's descriptors are gone.
            while peer.read(&mut [0; 65536]).is_ok_and(|len| len > 0) {}
        }
    }
    assert_eq!(descriptor_count(), before);
}

fn an_impossible_configuration_is_an_error(kind: Kind) {
    for bad in [
        Config {
            connections: u32::MAX,
            ..config()
        },
        Config {
            receive_buffers: 0,
            ..config()
        },
        Config {
            receive_buffer_len: 0,
            ..config()
        },
        Config {
            submission_entries: 0,
            ..config()
        },
    ] {
        Driver::open(kind.choice(), bad).unwrap_err();
    }
}
