//! A million packets with sources that are not the client's, of every kind there is, to everyone
//! there is, whole and in fragments: none passes, each is counted, and the honest ones between them
//! all arrive. Clients do not reach each other.

mod queue_world;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use queue_world::{HOST, Rig, drops};

use datapath::ip::checksum;
use datapath::session::event::DropReason;
use datapath::testing::fixtures::{self, GATEWAY};

const FORGED: usize = 1_000_000;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Shape {
    Whole,
    First,
    Later,
}

const SHAPES: [Shape; 3] = [Shape::Whole, Shape::First, Shape::Later];

fn v4(from: Ipv4Addr, to: Ipv4Addr, shape: Shape) -> Vec<u8> {
    let mut packet = fixtures::udp(from, to, b"forged or not");
    let fragment: u16 = match shape {
        Shape::Whole => 0,
        Shape::First => 0x2000,
        Shape::Later => 0x0003,
    };
    packet[6..8].copy_from_slice(&fragment.to_be_bytes());
    packet[10..12].fill(0);
    let sum = checksum::of(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

fn v6(from: Ipv6Addr, to: Ipv6Addr, shape: Shape) -> Vec<u8> {
    let mut upper = vec![17, 0, 0, 0, 0, 0, 0, 9];
    match shape {
        Shape::Whole => upper.clear(),
        Shape::First => upper[3] = 1,
        Shape::Later => upper[3] = 24,
    }
    let next = if upper.is_empty() { 17 } else { 44 };
    upper.extend([0x10, 0, 0x20, 0, 0, 16, 0x12, 0x34, 1, 2, 3, 4, 5, 6, 7, 8]);
    let len = u8::try_from(upper.len()).unwrap();
    let header = [0x60, 0, 0, 0, 0, len, next, 64];
    [&header[..], &from.octets(), &to.octets(), &upper].concat()
}

fn of(from: IpAddr, to: IpAddr, shape: Shape) -> Vec<u8> {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => v4(from, to, shape),
        (IpAddr::V6(from), IpAddr::V6(to)) => v6(from, to, shape),
        (from, to) => panic!("{from} cannot write to {to}"),
    }
}

/// The delegated prefix of a client, `away` prefixes from its own, and a host in it.
fn in_prefix(number: u16, away: i128) -> Ipv6Addr {
    let prefix = fixtures::policy(number).ipv6.unwrap().prefix.unwrap();
    let bits = prefix.to_bits().wrapping_add_signed(away << 64);
    Ipv6Addr::from_bits(bits + 0x77)
}

/// Every source that is not of the client with this number.
fn forged_sources(number: u16, own: Ipv4Addr) -> Vec<IpAddr> {
    let v4 = [
        Ipv4Addr::from_bits(own.to_bits() + 1),
        Ipv4Addr::from_bits(own.to_bits() - 1),
        GATEWAY,
        HOST,
        Ipv4Addr::UNSPECIFIED,
        Ipv4Addr::LOCALHOST,
        Ipv4Addr::BROADCAST,
        Ipv4Addr::new(224, 0, 0, 1),
        Ipv4Addr::new(240, 0, 0, 1),
    ];
    let v6 = [
        in_prefix(number, 1),
        in_prefix(number, -1),
        // One bit beyond the prefix, at either end.
        Ipv6Addr::from_bits((in_prefix(number, 1).to_bits() >> 64) << 64),
        Ipv6Addr::from_bits(((in_prefix(number, 0).to_bits() >> 64) << 64) - 1),
        "fd00:8::1".parse().unwrap(),
        "2001:db8::1".parse().unwrap(),
        Ipv6Addr::UNSPECIFIED,
        Ipv6Addr::LOCALHOST,
        "ff02::1".parse().unwrap(),
        "fe80::bad".parse().unwrap(),
        "::ffff:203.0.113.1".parse().unwrap(),
    ];
    let v4 = v4.into_iter().map(IpAddr::from);
    v4.chain(v6.into_iter().map(IpAddr::from)).collect()
}

fn destinations(other: Ipv4Addr, other_number: u16, is_v4: bool) -> Vec<IpAddr> {
    if is_v4 {
        let all = [
            HOST,
            GATEWAY,
            other,
            Ipv4Addr::BROADCAST,
            Ipv4Addr::new(224, 0, 0, 251),
        ];
        return all.map(IpAddr::from).to_vec();
    }
    let all: [Ipv6Addr; 3] = [
        "2001:db8::5".parse().unwrap(),
        "fd00:8::1".parse().unwrap(),
        in_prefix(other_number, 0),
    ];
    all.map(IpAddr::from).to_vec()
}

#[test]
fn isolate_lets_no_forged_source_pass_and_every_honest_one() {
    let mut rig = Rig::new(2, 64, true);
    let (own, other) = (rig.address(0), rig.address(1));
    let (number, other_number) = (rig.number(0), rig.number(1));
    let mut forged = Vec::new();
    for from in forged_sources(number, own) {
        // An address may be the other client's, who must not be written to by himself.
        for to in destinations(other, other_number, from.is_ipv4()) {
            forged.extend(SHAPES.map(|shape| of(from, to, shape)));
        }
    }
    let mut honest = Vec::new();
    for shape in SHAPES {
        honest.push(v4(own, HOST, shape));
        honest.push(v6(
            in_prefix(number, 0),
            "2001:db8::5".parse().unwrap(),
            shape,
        ));
    }
    let rounds = FORGED.div_ceil(forged.len());
    let mut passed = 0;
    for round in 0..rounds {
        for packet in &forged {
            rig.send(0, packet.clone());
        }
        for packet in &honest {
            rig.send(0, packet.clone());
        }
        for _ in 0..3 {
            rig.step();
        }
        for packet in rig.take_inside() {
            assert!(honest.contains(&packet), "round {round}: {packet:02x?}");
            passed += 1;
        }
    }
    rig.drain(100);
    passed += rig.take_inside().len();
    println!("{} forged, {passed} honest passed", rounds * forged.len());
    assert_eq!(passed, rounds * honest.len(), "every honest packet passes");
    assert_eq!(drops(rig.clients.counters()), [], "all of them were sent");
    let expected = [(DropReason::Source, (rounds * forged.len()) as u64)];
    assert_eq!(drops(rig.gateway.counters()), expected);
    assert_eq!(rig.take_arrivals().len(), 0, "nobody else got anything");
}

#[test]
fn isolate_keeps_clients_from_each_other_and_from_the_link() {
    let mut rig = Rig::new(2, 64, true);
    let (own, other) = (rig.address(0), rig.address(1));
    let (number, other_number) = (rig.number(0), rig.number(1));
    let own_v6 = in_prefix(number, 0);
    let mut wanted = [0; 2];
    for shape in SHAPES {
        for _ in 0..100 {
            rig.send(0, v4(own, other, shape));
            rig.send(0, v6(own_v6, in_prefix(other_number, 0), shape));
            wanted[0] += 2;
            rig.send(0, v4(own, Ipv4Addr::new(224, 0, 0, 251), shape));
            rig.send(0, v4(own, Ipv4Addr::BROADCAST, shape));
            rig.send(0, v6(own_v6, "ff02::fb".parse().unwrap(), shape));
            wanted[1] += 3;
            rig.step();
        }
    }
    rig.drain(100);
    assert_eq!(rig.take_inside(), Vec::<Vec<u8>>::new());
    let counters = rig.gateway.counters();
    let expected = [
        (DropReason::Unserved, wanted[1]),
        (DropReason::Isolated, wanted[0]),
    ];
    assert_eq!(drops(counters), expected);
    assert_eq!(rig.take_arrivals().len(), 0);
}
