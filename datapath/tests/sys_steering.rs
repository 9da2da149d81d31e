//! Steering on a real TUN: every packet in the queue of its destination's owner. Needs root.
#![expect(
    clippy::disallowed_types,
    reason = "what these tests send and read is the standard library's"
)]

mod sys_common;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::AsFd as _;

use datapath::io::{Steering as _, SteeringFull};
use datapath::sys::bpf::SteeringMap;
use datapath::sys::tun::{TunConfig, create};

use sys_common::{inside_namespace, ip, skip};

const QUEUES: u16 = 4;
const FLOWS: u16 = 5;

fn v4(n: u16) -> IpAddr {
    Ipv4Addr::from_bits(0x0A4D_0100 + u32::from(n)).into()
}

/// A host of /64 number `n`, another one a flow: a session owns them all.
fn v6(n: u16, host: u16) -> IpAddr {
    Ipv6Addr::new(0xFD00, 0x77, 0, n, 0, host, 0, 0x10 + host).into()
}

/// The device's queues, each read to its end: destinations and how often, by queue.
fn read_queues(queues: &mut [File], header_len: usize) -> Vec<BTreeMap<IpAddr, u32>> {
    let mut buffer = [0; 70_000];
    queues
        .iter_mut()
        .map(|queue| {
            let mut seen = BTreeMap::new();
            while let Ok(len) = queue.read(&mut buffer) {
                let packet = &buffer[header_len..len];
                let destination = match packet[0] >> 4 {
                    4 => IpAddr::from(*packet[16..].first_chunk::<4>().unwrap()),
                    _ => IpAddr::from(*packet[24..].first_chunk::<16>().unwrap()),
                };
                // The kernel's own (router solicitations) are none of ours.
                if !destination.is_multicast() {
                    *seen.entry(destination).or_default() += 1;
                }
            }
            seen
        })
        .collect()
}

/// Sends one packet a flow to each of the destinations.
fn send(destinations: impl Iterator<Item = IpAddr>) {
    let v4_sockets: Vec<_> = (0..FLOWS)
        .map(|_| UdpSocket::bind("0.0.0.0:0").unwrap())
        .collect();
    let v6_sockets: Vec<_> = (0..FLOWS)
        .map(|_| UdpSocket::bind("[::]:0").unwrap())
        .collect();
    for destination in destinations {
        let sockets = if destination.is_ipv4() {
            &v4_sockets
        } else {
            &v6_sockets
        };
        for (flow, socket) in (0..).zip(sockets) {
            let to = match destination {
                IpAddr::V4(_) => destination,
                IpAddr::V6(to) => v6(to.segments()[3], flow),
            };
            socket.send_to(b"packet", (to, 1000 + flow)).unwrap();
        }
    }
}

/// The queue that a destination belongs to; not what its own bits would say.
fn owner(n: u16) -> u16 {
    (n / 3 + 1) % QUEUES
}

#[test]
fn steering_puts_every_packet_into_its_owners_queue() {
    let test = "steering_puts_every_packet_into_its_owners_queue";
    if !inside_namespace(test) {
        return;
    }
    let map = match SteeringMap::new(128) {
        Ok(map) => map,
        Err(error) => return skip(test, &error.to_string()),
    };
    for offload in [false, true] {
        let device = create(&TunConfig {
            name: Some("steered0".to_owned()),
            queues: usize::from(QUEUES),
            offload,
            ..TunConfig::default()
        })
        .unwrap();
        map.attach(device.queues[0].as_fd()).unwrap();
        ip("addr add 10.77.0.1/16 dev steered0");
        ip("addr add fd00:77::1/48 dev steered0 nodad");
        for n in 0..64 {
            map.steer(v4(n), owner(n)).unwrap();
            map.steer(v6(n, 0), owner(n)).unwrap();
        }
        let mut queues: Vec<_> = device.queues.into_iter().map(File::from).collect();
        send((0..64).flat_map(|n| [v4(n), v6(n, 0)]));

        let header_len = if offload { 10 } else { 0 };
        let seen = read_queues(&mut queues, header_len);
        let mut right = 0;
        for (queue, seen) in (0..).zip(&seen) {
            for (&destination, &count) in seen {
                let n = match destination {
                    IpAddr::V4(address) => address.octets()[3].into(),
                    IpAddr::V6(address) => address.segments()[3],
                };
                assert_eq!(queue, owner(n), "{destination}: {count}");
                right += count;
            }
        }
        assert_eq!(right, 640, "{seen:?}");
        eprintln!("offload {offload}: {right} of 640 in the right queue");

        // A session that moves takes its packets along; one that is gone has a queue all the same.
        map.steer(v4(0), 3).unwrap();
        map.steer(v4(0), 2).unwrap();
        map.forget(v4(9));
        send([v4(0), v4(9)].into_iter());
        let seen = read_queues(&mut queues, header_len);
        assert_eq!(seen[2].get(&v4(0)), Some(&FLOWS.into()), "{seen:?}");
        let of_nobody: Vec<_> = seen.iter().filter_map(|seen| seen.get(&v4(9))).collect();
        assert_eq!(of_nobody, [&u32::from(FLOWS)], "{seen:?}");

        // A full map refuses, and steers on.
        map.steer(v4(9), 1).unwrap();
        assert_eq!(map.steer(v4(100), 1), Err(SteeringFull));
        send([v4(9), v4(100)].into_iter());
        let seen = read_queues(&mut queues, header_len);
        assert_eq!(seen[1].get(&v4(9)), Some(&FLOWS.into()), "{seen:?}");
        let count: u32 = seen.iter().filter_map(|seen| seen.get(&v4(100))).sum();
        assert_eq!(count, FLOWS.into(), "{seen:?}");
    }
}
