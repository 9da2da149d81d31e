//! Each driver under pressure from one side: sockets that take little, peers that are gone, asks that
//! cannot be met, one connection that never ends.
#![expect(
    clippy::disallowed_types,
    reason = "the other end of these tests is the standard library"
)]

mod sys_common;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use datapath::io::{Completion, ConnectionId, Io as _, Loss, SendBuffer, UNSENT_LIMIT_AT_START};
use datapath::sys::clock;
use datapath::sys::driver::{Config, Driver};
use datapath::sys::socket::{ListenOptions, listen};
use datapath::sys::thread::spawn_shard;
use datapath::time::Duration;
use socket2::Socket;

use sys_common::{
    Kind, accept, buffer, config, deadline, in_child, is_child, on_every_driver, pattern, receive,
    run, server,
};

on_every_driver!(
    a_socket_that_takes_little_gets_all_of_a_send_in_order,
    everything_before_the_end_is_told_before_it,
    a_reset_is_told_as_one,
    a_paused_connection_that_was_closed_does_not_keep_the_driver_awake,
    a_send_that_cannot_be_is_given_back_and_says_why,
    what_a_closed_connection_had_received_comes_back_unseen,
    nobody_starves_beside_a_connection_that_always_has_more,
    a_connect_without_descriptors_fails_alone,
    a_connect_into_a_full_table_fails_alone,
    the_kernel_holds_no_more_unsent_than_it_was_told,
);

/// A driver whose accepted sockets have the smallest send buffer there is.
fn narrow(kind: Kind) -> (Driver, SocketAddr) {
    let listener = listen("127.0.0.1:0".parse().unwrap(), &ListenOptions::default()).unwrap();
    listener.set_send_buffer_size(1).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let driver = kind.driver(Config {
        listeners: vec![listener],
        kernel_finishes_sends: false,
        ..config()
    });
    (driver, address)
}

fn a_socket_that_takes_little_gets_all_of_a_send_in_order(kind: Kind) {
    let (mut driver, address) = narrow(kind);
    let mut peer = TcpStream::connect(address).unwrap();
    let id = accept(&mut driver);
    let bytes = pattern(1 << 20, 9);
    let expected = bytes.clone();
    let reader = spawn_shard("peer".to_owned(), None, move |_| {
        let mut received = Vec::new();
        peer.read_to_end(&mut received).unwrap();
        assert!(received == expected);
    });
    for piece in bytes.chunks(64 * 1024) {
        driver.send(id, buffer(piece));
        run(&mut driver, |_, completion| match completion {
            Completion::Sent { result, buffer, .. } => {
                assert_eq!((result, buffer.end), (Ok(()), piece.len()));
                true
            }
            other => panic!("{other:?}"),
        });
    }
    driver.close(id, false);
    let until = deadline();
    while driver.connection_count() > 0 {
        driver.turn(Some(until), &mut Vec::new()).unwrap();
        assert!(clock::now() < until);
    }
    reader.unwrap().join().unwrap();
    assert!(driver.counters().short_sends > 0, "{driver:?}");
}

fn everything_before_the_end_is_told_before_it(kind: Kind) {
    // Less than a buffer, exactly one, and many: a short receive must not hide the end behind it.
    for len in [1, 16 * 1024, 16 * 1024 + 1, 200_000] {
        let (mut driver, address) = server(kind, config());
        let mut peer = TcpStream::connect(address).unwrap();
        let id = accept(&mut driver);
        driver.pause_receive(id);
        driver.turn(Some(clock::now()), &mut Vec::new()).unwrap();
        let bytes = pattern(len, 4);
        peer.write_all(&bytes).unwrap();
        drop(peer);
        driver.resume_receive(id);
        let mut received = Vec::new();
        let mut end = None;
        run(&mut driver, |driver, completion| {
            match completion {
                Completion::Received { buffer, .. } => {
                    assert_eq!(end, None, "bytes after the end");
                    received.extend_from_slice(&buffer.bytes[..buffer.len]);
                    driver.release(buffer);
                }
                Completion::ReceiveEnded { loss, .. } => end = Some(loss),
                other => panic!("{other:?}"),
            }
            end.is_some()
        });
        assert!(received == bytes, "{} of {len}", received.len());
        assert_eq!(end, Some(Loss::Finished));
    }
}

fn a_reset_is_told_as_one(kind: Kind) {
    let (mut driver, address) = server(kind, config());
    let peer = TcpStream::connect(address).unwrap();
    let id = accept(&mut driver);
    let peer = Socket::from(peer);
    peer.set_linger(Some(Duration::ZERO)).unwrap();
    drop(peer);
    assert_eq!(receive(&mut driver, id, 1), Err(Loss::Reset));
    driver.send(id, buffer(b"into the void"));
    run(&mut driver, |_, completion| match completion {
        Completion::Sent { result, .. } => {
            assert_eq!(result, Err(Loss::Reset));
            true
        }
        _ => false,
    });
    driver.close(id, false);
    driver.turn(Some(clock::now()), &mut Vec::new()).unwrap();
    assert_eq!(driver.connection_count(), 0);
}

fn a_paused_connection_that_was_closed_does_not_keep_the_driver_awake(kind: Kind) {
    let (mut driver, address) = server(kind, config());
    let mut peer = TcpStream::connect(address).unwrap();
    let id = accept(&mut driver);
    driver.pause_receive(id);
    driver.turn(Some(clock::now()), &mut Vec::new()).unwrap();
    peer.write_all(b"bytes, and the end").unwrap();
    drop(peer);
    let end = clock::now() + Duration::from_millis(100);
    let mut turns = 0;
    let mut completions = Vec::new();
    while clock::now() < end {
        driver.turn(Some(end), &mut completions).unwrap();
        turns += 1;
    }
    assert!(turns < 10, "{turns} turns in 100 ms is a spin");
    assert!(completions.is_empty(), "{completions:?}");
}

fn a_send_that_cannot_be_is_given_back_and_says_why(kind: Kind) {
    let (mut driver, address) = server(kind, config());
    let _peer = TcpStream::connect(address).unwrap();
    let id = accept(&mut driver);
    let range = |start, end| SendBuffer {
        bytes: vec![7; 10].into_boxed_slice(),
        start,
        end,
    };
    let answer = |driver: &mut Driver, wanted_len| {
        let mut answer = None;
        run(driver, |_, completion| {
            if let Completion::Sent { result, buffer, .. } = completion
                && buffer.bytes.len() == wanted_len
            {
                answer = Some(result);
            }
            answer.is_some()
        });
        answer.unwrap()
    };
    for (start, end, result) in [
        (4, 4, Ok(())),
        (4, 3, Err(Loss::Os(libc::EINVAL))),
        (0, 11, Err(Loss::Os(libc::EINVAL))),
        (11, 12, Err(Loss::Os(libc::EINVAL))),
    ] {
        driver.send(id, range(start, end));
        assert_eq!(answer(&mut driver, 10), result, "{start}..{end}");
    }
    // More than any socket takes while nobody reads, and a second one.
    driver.send(id, buffer(&vec![0; 16 << 20]));
    driver.send(id, range(0, 10));
    assert_eq!(answer(&mut driver, 10), Err(Loss::Os(libc::EBUSY)));
    driver.close(id, true);
    assert_eq!(answer(&mut driver, 16 << 20), Err(Loss::Reset));
    driver.send(id, range(0, 10));
    assert_eq!(answer(&mut driver, 10), Err(Loss::Reset));
}

fn what_a_closed_connection_had_received_comes_back_unseen(kind: Kind) {
    let (mut driver, address) = server(kind, config());
    let mut peers = Vec::new();
    let mut ids = Vec::new();
    for _ in 0..2 {
        peers.push(TcpStream::connect(address).unwrap());
        ids.push(accept(&mut driver));
    }
    for peer in &mut peers {
        peer.write_all(&pattern(100_000, 1)).unwrap();
    }
    // Both have bytes; in one turn the shard is told of them and closes one: no more of that one.
    let mut closed = None;
    let end = deadline();
    let mut other_len = 0;
    let mut completions = Vec::new();
    while other_len < 100_000 {
        driver.turn(Some(end), &mut completions).unwrap();
        let before = closed;
        for completion in completions.drain(..) {
            match completion {
                Completion::Received { connection, buffer } => {
                    assert_ne!(Some(connection), before, "{kind:?}");
                    if closed.is_none() {
                        driver.close(connection, false);
                        closed = Some(connection);
                    } else if Some(connection) != closed {
                        other_len += buffer.len;
                    }
                    driver.release(buffer);
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(clock::now() < end);
    }
    assert!(ids.contains(&closed.unwrap()));
    assert_eq!(driver.buffers_available(), 16);
    assert_eq!(driver.counters().unclaimed, 0);
}

fn nobody_starves_beside_a_connection_that_always_has_more(kind: Kind) {
    let (mut driver, address) = server(kind, config());
    let mut hog = TcpStream::connect(address).unwrap();
    let hog_id = accept(&mut driver);
    let mut quiet = TcpStream::connect(address).unwrap();
    let quiet_id = accept(&mut driver);
    let writer = spawn_shard("hog".to_owned(), None, move |_| {
        while hog.write_all(&[1; 256 * 1024]).is_ok() {}
    });
    let mut hog_bytes = 0_usize;
    let mut completions = Vec::new();
    let end = deadline();
    for _ in 0..20 {
        let before = hog_bytes;
        quiet.write_all(b"?").unwrap();
        let mut heard = false;
        let mut turns = 0;
        // Bounded by what the driver does before it looks at the quiet one, not by time.
        while !heard || hog_bytes == before {
            driver.turn(Some(end), &mut completions).unwrap();
            turns += u32::from(!heard);
            for completion in completions.drain(..) {
                if let Completion::Received { connection, buffer } = completion {
                    if connection == hog_id {
                        hog_bytes += buffer.len;
                    } else {
                        assert_eq!(connection, quiet_id);
                        heard = true;
                    }
                    driver.release(buffer);
                }
            }
            assert!(turns < 50, "{kind:?}: not heard in {turns} turns");
        }
    }
    driver.close(hog_id, true);
    // Requests that are under way keep its socket open.
    while driver.connection_count() > 1 {
        assert!(clock::now() < end, "{kind:?}: it does not close");
        driver.turn(Some(end), &mut completions).unwrap();
        for completion in completions.drain(..) {
            if let Completion::Received { buffer, .. } = completion {
                driver.release(buffer);
            }
        }
    }
    writer.unwrap().join().unwrap();
}

fn a_connect_without_descriptors_fails_alone(kind: Kind) {
    if !is_child() {
        return in_child(
            &["sh", "-c", "ulimit -n 64 && exec \"$0\" \"$@\""],
            &kind.test("a_connect_without_descriptors_fails_alone"),
        );
    }
    let (mut driver, address) = server(kind, config());
    let mut peer = TcpStream::connect(address).unwrap();
    let id = accept(&mut driver);
    let mut fillers = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        fillers.push(file);
    }
    let error = driver.connect(address, None).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
    assert_eq!(driver.connection_count(), 1);
    peer.write_all(b"still here").unwrap();
    assert_eq!(receive(&mut driver, id, 10).unwrap(), b"still here");
    drop(fillers);
    driver.connect(address, None).unwrap();
}

fn a_connect_into_a_full_table_fails_alone(kind: Kind) {
    let (mut driver, address) = server(
        kind,
        Config {
            connections: 1,
            ..config()
        },
    );
    let mut peer = TcpStream::connect(address).unwrap();
    let id = accept(&mut driver);
    let error = driver.connect(address, None).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOBUFS));
    peer.write_all(b"still here").unwrap();
    assert_eq!(receive(&mut driver, id, 10).unwrap(), b"still here");
}

/// Sends 4,000 bytes at a time until the kernel takes no more; the peer does not read.
fn fill(driver: &mut Driver, id: ConnectionId) -> usize {
    let mut taken = 0;
    loop {
        match driver.send_now(id, buffer(&[7; 4_000])) {
            Ok(buffer) => taken += buffer.end,
            Err(rest) => return taken + rest.start,
        }
    }
}

fn the_kernel_holds_no_more_unsent_than_it_was_told(kind: Kind) {
    let (mut driver, address) = server(kind, config());
    let mut everything = vec![0; 16 << 20];
    // As a connection begins, and as it is told.
    for limit in [UNSENT_LIMIT_AT_START, 16 * 1_024] {
        let peer = TcpStream::connect(address).unwrap();
        let id = accept(&mut driver);
        driver.set_unsent_limit(id, limit);
        let taken = fill(&mut driver, id);
        // One send may begin just below the limit.
        let enough = taken - (limit + 4_000);
        let until = deadline();
        while peer.peek(&mut everything).unwrap() < enough {
            assert!(
                clock::now() < until,
                "of {taken} bytes the kernel has not sent more than {limit}"
            );
        }
        driver.close(id, true);
    }
}
