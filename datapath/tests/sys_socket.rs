//! Sockets as the kernel sees them: groups, inheritance, steering.
#![expect(
    clippy::disallowed_types,
    reason = "the other end of these tests is the standard library"
)]

use std::net::{SocketAddr, TcpStream};

use datapath::sys::affinity;
use datapath::sys::socket::{
    ConnectionOptions, Keepalive, ListenOptions, NotByCpu, listen, listen_group,
};
use datapath::sys::thread::spawn_shard;
use datapath::time::Duration;

fn any_v4() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

#[test]
fn an_accepted_connection_inherits_every_option() {
    let options = ListenOptions {
        connection: ConnectionOptions {
            no_delay: true,
            not_sent_low_water: Some(100_000),
            user_timeout: Some(Duration::from_millis(12_345)),
            keepalive: Some(Keepalive {
                idle: Duration::from_secs(33),
                interval: Duration::from_secs(7),
                retries: 4,
            }),
            congestion: Some("reno".to_owned()),
        },
        ..ListenOptions::default()
    };
    let listener = listen(any_v4(), &options).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let _peer = TcpStream::connect(address).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    assert!(accepted.tcp_nodelay().unwrap());
    assert_eq!(accepted.tcp_notsent_lowat().unwrap(), 100_000);
    assert_eq!(
        accepted.tcp_user_timeout().unwrap(),
        Some(Duration::from_millis(12_345))
    );
    assert!(accepted.keepalive().unwrap());
    assert_eq!(
        accepted.tcp_keepalive_time().unwrap(),
        Duration::from_secs(33)
    );
    assert_eq!(
        accepted.tcp_keepalive_interval().unwrap(),
        Duration::from_secs(7)
    );
    assert_eq!(accepted.tcp_keepalive_retries().unwrap(), 4);
    assert!(accepted.tcp_congestion().unwrap().starts_with(b"reno"));
}

#[test]
fn an_unknown_congestion_control_is_an_error() {
    let options = ListenOptions {
        connection: ConnectionOptions {
            congestion: Some("no-such-thing".to_owned()),
            ..ConnectionOptions::default()
        },
        ..ListenOptions::default()
    };
    listen(any_v4(), &options).unwrap_err();
}

#[test]
fn both_families_listen_on_one_port() {
    let v6 = listen("[::1]:0".parse().unwrap(), &ListenOptions::default()).unwrap();
    let port = v6.local_addr().unwrap().as_socket().unwrap().port();
    let any_v6 = SocketAddr::new(std::net::Ipv6Addr::UNSPECIFIED.into(), port);
    let any_v4 = SocketAddr::new(std::net::Ipv4Addr::UNSPECIFIED.into(), port);
    let any_v6 = listen(any_v6, &ListenOptions::default()).unwrap();
    assert!(any_v6.only_v6().unwrap());
    listen(any_v4, &ListenOptions::default()).unwrap();
}

#[test]
fn deferred_accept_waits_for_bytes() {
    let options = ListenOptions {
        defer_accept: Some(Duration::from_secs(5)),
        ..ListenOptions::default()
    };
    let listener = listen(any_v4(), &options).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let mut peer = TcpStream::connect(address).unwrap();
    listener.set_nonblocking(true).unwrap();
    let nobody = listener.accept().map(|_| ()).map_err(|error| error.kind());
    assert_eq!(nobody, Err(std::io::ErrorKind::WouldBlock));
    std::io::Write::write_all(&mut peer, b"hello").unwrap();
    listener.set_nonblocking(false).unwrap();
    listener.accept().unwrap();
}

#[test]
fn the_processor_that_takes_the_syn_has_the_connection() {
    let cpus = affinity::cpus();
    let group = listen_group(any_v4(), &cpus, &ListenOptions::default()).unwrap();
    assert_eq!(group.by_cpu.is_ok(), cpus.len() > 1, "{:?}", group.by_cpu);
    let group = group.sockets;
    let address = group[0].local_addr().unwrap().as_socket().unwrap();
    if cpus.len() < 2 {
        eprintln!("SKIPPED in part: one processor, so nothing to choose between");
    }
    for (shard, &cpu) in cpus.iter().enumerate() {
        // Over loopback the SYN is taken by the processor that sends it.
        let peers = spawn_shard("client".to_owned(), Some(cpu), move |pinned| {
            pinned.unwrap();
            (0..50)
                .map(|_| TcpStream::connect(address).unwrap())
                .collect::<Vec<_>>()
        });
        let peers = peers.unwrap().join().unwrap();
        for _ in &peers {
            let (_, from) = group[shard].accept().unwrap();
            assert!(from.as_socket().is_some());
        }
    }
    for listener in &group {
        listener.set_nonblocking(true).unwrap();
        assert!(listener.accept().is_err());
    }
}

#[test]
fn shards_that_share_a_processor_share_its_connections() {
    let cpu = affinity::cpus()[0];
    let group = listen_group(any_v4(), &[cpu, cpu], &ListenOptions::default()).unwrap();
    assert!(matches!(group.by_cpu, Err(NotByCpu::Shared)));
    let address = group.sockets[0].local_addr().unwrap().as_socket().unwrap();
    let peers: Vec<_> = (0..100)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    let mut accepted = Vec::new();
    for listener in &group.sockets {
        listener.set_nonblocking(true).unwrap();
        accepted.push(std::iter::from_fn(|| listener.accept().ok()).count());
    }
    // By a hash of 100 ports: one of the two gets none once in 2^99 times.
    assert!(accepted.iter().all(|&count| count > 0), "{accepted:?}");
    assert_eq!(accepted.iter().sum::<usize>(), peers.len());
}
