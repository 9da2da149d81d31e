//! The services against hand-made requests; answers are read back without the code that made them.
#![expect(
    clippy::cast_possible_truncation,
    reason = "packets built here are short"
)]

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use datapath::output::{Collected, Entropy};
use datapath::services::{
    Discard, Event, Handled, Ipv4Service, Ipv6Service, Profile, ProfileConfig, Service, Services,
};
use datapath::time::{Duration, Instant};
use hex_literal::hex;
use proptest::collection::vec;
use proptest::prelude::*;

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 2);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 1);
const ROUTES: [u8; 14] = hex!("08 0a 0a080001  18 c0a814 0a080001");
const MTU: u16 = 1400;
const START: Instant = Instant::from_nanos(5_000_000_000);

struct Counting(u32);

impl Entropy for Counting {
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *byte = (self.0 >> 24) as u8;
        }
    }
}

fn a6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

fn config() -> ProfileConfig {
    ProfileConfig {
        dns_v4: vec![Ipv4Addr::new(10, 8, 0, 53), Ipv4Addr::new(10, 8, 0, 54)],
        nbns: vec![Ipv4Addr::new(10, 8, 0, 7)],
        domain: Some("corp.example".to_owned()),
        search: vec!["corp.example".to_owned(), "lab.example".to_owned()],
        routes_v4: vec![
            (Ipv4Addr::new(10, 0, 0, 0), 8),
            (Ipv4Addr::new(192, 168, 20, 0), 24),
        ],
        dns_v6: vec![a6("2001:db8::53"), a6("2001:db8::54")],
        routes_v6: vec![
            (a6("2001:db8:a::"), 48),
            (a6("2001:db8:b::1"), 128),
            (a6("::"), 0),
        ],
        server_id: *b"0123456789abcdef",
        ..ProfileConfig::default()
    }
}

fn services_with(config: &ProfileConfig) -> Services {
    let profile = Arc::new(Profile::new(config).unwrap());
    let mut services = Services::new(profile, MTU);
    services.open_ipv4(Ipv4Service {
        client: CLIENT,
        gateway: GATEWAY,
    });
    let ipv6 = Ipv6Service {
        prefix: Some(a6("2001:db8:1:2::")),
        gateway_id: 1,
    };
    services.open_ipv6(START, ipv6, &mut Collected::default());
    services
}

fn services() -> Services {
    services_with(&config())
}

/// What became of `packet`: the one answer, or why there is none, or `None` for a packet passed.
fn ask_at(
    services: &mut Services,
    now: Instant,
    packet: &[u8],
) -> Option<Result<Vec<u8>, Discard>> {
    let mut out = Collected::default();
    let handled = services.handle_packet(now, packet, &mut out);
    match (handled, &out.events[..]) {
        (Handled::Pass, []) => {
            assert!(out.sent.is_empty());
            None
        }
        (Handled::Consumed, [Event::Discarded(why)]) => {
            assert!(out.sent.is_empty());
            Some(Err(*why))
        }
        (Handled::Consumed, [Event::Answered(_)]) => {
            assert_eq!(out.sent.len(), 1);
            Some(Ok(out.sent.remove(0)))
        }
        other => panic!("{other:?}"),
    }
}

fn ask(packet: &[u8]) -> Option<Result<Vec<u8>, Discard>> {
    ask_at(&mut services(), START, packet)
}

fn answer(packet: &[u8]) -> Vec<u8> {
    ask(packet).unwrap().unwrap()
}

// Slow and independent: sums, headers.

fn slow_sum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        let low = pair.get(1).copied().unwrap_or(0);
        sum += u32::from(pair[0]) * 256 + u32::from(low);
        if sum > 0xffff {
            sum -= 0xffff;
        }
    }
    sum as u16
}

/// Fills in the lengths and checksums of an IPv4 UDP datagram or an IPv6 packet.
fn sealed(mut packet: Vec<u8>) -> Vec<u8> {
    let len = packet.len();
    let is_v4 = packet[0] >> 4 == 4;
    let header_len = if is_v4 { 20 } else { 40 };
    let upper_len = (len - header_len) as u16;
    let protocol = if is_v4 {
        packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        packet[10..12].fill(0);
        let sum = !slow_sum(&packet[..20]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet[9]
    } else {
        packet[4..6].copy_from_slice(&upper_len.to_be_bytes());
        packet[6]
    };
    let at = header_len + if protocol == 17 { 6 } else { 2 };
    if protocol == 17 {
        packet[header_len + 4..header_len + 6].copy_from_slice(&upper_len.to_be_bytes());
    }
    packet[at..at + 2].fill(0);
    let sum = !upper_sum(&packet);
    packet[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// The sum of pseudo-header and upper layer: 0xFFFF if the checksum in it is right.
fn upper_sum(packet: &[u8]) -> u16 {
    let (header_len, addresses, protocol) = match packet[0] >> 4 {
        4 => (20, &packet[12..20], packet[9]),
        _ => (40, &packet[8..40], packet[6]),
    };
    let mut bytes = addresses.to_vec();
    bytes.extend([0, protocol]);
    bytes.extend(((packet.len() - header_len) as u16).to_be_bytes());
    bytes.extend(&packet[header_len..]);
    slow_sum(&bytes)
}

fn assert_sums(packet: &[u8]) {
    if packet[0] >> 4 == 4 {
        assert_eq!(slow_sum(&packet[..20]), 0xffff, "header checksum");
        assert_eq!(packet[2..4], (packet.len() as u16).to_be_bytes());
    } else {
        assert_eq!(packet[4..6], (packet.len() as u16 - 40).to_be_bytes());
    }
    assert_eq!(upper_sum(packet), 0xffff, "transport checksum");
}

// DHCPINFORM.

fn dhcp(kind: u8, options: &[u8]) -> Vec<u8> {
    let mut packet = hex!(
        "4500 0000 0001 0000 80 11 0000 0a080002 ffffffff" // IPv4
        "0044 0043 0000 0000" // UDP
        "01 08 06 00 deadbeef 0005 8000 0a080002 00000000 00000000 00000000" // to giaddr
        "005345000000 00000000000000000000" // chaddr, the address of every WAN adapter
    )
    .to_vec();
    packet.extend([0; 192]);
    packet.extend(hex!("63825363 35 01"));
    packet.push(kind);
    packet.extend(options);
    packet.push(255);
    sealed(packet)
}

/// What Windows asks for (protocol: options 60 `MSFT 5.0`, 77 `RRAS.Microsoft`, 55).
fn inform() -> Vec<u8> {
    dhcp(
        8,
        &hex!(
            "3d 07 01 005345000000" "0c 02 5043"
            "3c 08 4d53465420352e30"
            "4d 0e 525241532e4d6963726f736f6674"
            "37 0d 01 0f 03 06 2c 2e 2f 1f 21 79 f9 2b fc"
        ),
    )
}

fn options(packet: &[u8]) -> Vec<(u8, Vec<u8>)> {
    assert_eq!(packet[28 + 236..28 + 240], hex!("63825363"));
    let mut rest = &packet[28 + 240..];
    let mut list = Vec::new();
    loop {
        match rest {
            [255, padding @ ..] => {
                assert!(padding.iter().all(|&byte| byte == 0));
                return list;
            }
            [option, len, behind @ ..] => {
                let (value, behind) = behind.split_at(usize::from(*len));
                list.push((*option, value.to_vec()));
                rest = behind;
            }
            _ => panic!("options without end"),
        }
    }
}

#[test]
fn windows_learns_its_routes_and_names() {
    let ack = answer(&inform());
    assert_sums(&ack);
    assert_eq!(ack[9], 17);
    assert_eq!(ack[12..28][..12], hex!("0a080001 0a080002 0043 0044"));
    let message = &ack[28..];
    assert!(message.len() >= 300);
    assert_eq!(
        message[..44],
        hex!(
            "02 08 06 00 deadbeef 0000 8000 0a080002 00000000 0a080001 00000000"
            "005345000000 00000000000000000000"
        )
    );
    let list = options(&ack);
    assert_eq!(list[0], (53, vec![5]));
    assert_eq!(list[1], (54, vec![10, 8, 0, 1]));
    let value = |option: u8| {
        let mut values = list.iter().filter(|(kind, _)| *kind == option);
        let value = values.next().map(|(_, value)| value.clone());
        assert_eq!(values.next(), None, "option {option} twice");
        value
    };
    assert_eq!(value(1).unwrap(), [255; 4]);
    assert_eq!(value(6).unwrap(), hex!("0a080035 0a080036"));
    assert_eq!(value(15).unwrap(), b"corp.example");
    assert_eq!(value(121).unwrap(), ROUTES);
    assert_eq!(value(249).unwrap(), ROUTES);
    assert_eq!(value(3).unwrap(), [10, 8, 0, 1]);
    assert_eq!(value(44).unwrap(), [10, 8, 0, 7]);
    assert_eq!(value(46).unwrap(), [8]);
    for absent in [51, 58, 59, 119] {
        assert_eq!(value(absent), None, "option {absent}");
    }
}

#[test]
fn only_what_is_asked_for_is_told() {
    let kinds = |packet: &[u8]| -> Vec<u8> {
        options(&answer(packet))
            .iter()
            .map(|(kind, _)| *kind)
            .collect()
    };
    assert_eq!(kinds(&dhcp(8, &[55, 1, 6])), [53, 54, 6]);
    assert_eq!(kinds(&dhcp(8, &[55, 1, 121])), [53, 54, 121, 249]);
    assert_eq!(kinds(&dhcp(8, &[55, 1, 249])), [53, 54, 121, 249]);
    assert_eq!(kinds(&dhcp(8, &[55, 0])), [53, 54]);
    let all = [53, 54, 1, 6, 15, 121, 249, 3, 44, 46, 119];
    assert_eq!(kinds(&dhcp(8, &[])), all);

    let split_tunnel = ProfileConfig {
        default_route_v4: false,
        ..config()
    };
    let ack = ask_at(&mut services_with(&split_tunnel), START, &inform());
    let list = options(&ack.unwrap().unwrap());
    assert!(list.iter().all(|(kind, _)| *kind != 3));
}

#[test]
fn an_answer_keeps_to_the_length_the_client_takes() {
    let large = ProfileConfig {
        routes_v4: vec![(Ipv4Addr::new(10, 1, 1, 0), 24); 31],
        search: vec!["a-rather-long-label.another-rather-long-label.example".to_owned(); 4],
        ..config()
    };
    for (len, expected) in [(576_u16, 576), (0, 576), (900, 900), (65535, 1400)] {
        let option = [&[57, 2][..], &len.to_be_bytes()].concat();
        let ack = ask_at(&mut services_with(&large), START, &dhcp(8, &option));
        let ack = ack.unwrap().unwrap();
        assert!(ack.len() <= expected, "{} of {expected} bytes", ack.len());
        let kinds: Vec<_> = options(&ack).iter().map(|(kind, _)| *kind).collect();
        assert!(
            kinds.starts_with(&[53, 54, 1, 6, 15, 121]) || len < 900,
            "{kinds:?}"
        );
    }
}

#[test]
fn leases_are_not_given() {
    for kind in (0..=255).filter(|&kind| kind != 8) {
        assert_eq!(
            ask(&dhcp(kind, &[])),
            Some(Err(Discard::Lease)),
            "message type {kind}"
        );
    }
    // BOOTP: no magic cookie.
    let mut bootp = dhcp(8, &[]);
    bootp[28 + 236] = 0;
    assert_eq!(ask(&sealed(bootp)), Some(Err(Discard::Lease)));
}

#[test]
fn broken_informs_get_no_answer() {
    let with = |at: usize, byte: u8| {
        let mut packet = inform();
        packet[at] = byte;
        ask(&sealed(packet))
    };
    assert_eq!(with(28, 2), Some(Err(Discard::Malformed)), "a reply");
    assert_eq!(
        with(28 + 15, 3),
        Some(Err(Discard::Malformed)),
        "another's ciaddr"
    );
    let mut wrong_sum = inform();
    wrong_sum[26] ^= 1;
    assert_eq!(ask(&wrong_sum), Some(Err(Discard::Malformed)));
    let mut no_sum = inform();
    no_sum[26..28].fill(0);
    assert!(
        ask(&no_sum).unwrap().is_ok(),
        "IPv4 allows UDP without checksum"
    );
    for len in 28..28 + 243 {
        let packet = sealed(inform()[..len].to_vec());
        let got = ask(&packet).unwrap();
        assert!(
            matches!(got, Err(Discard::Malformed | Discard::Lease)),
            "{len}: {got:?}"
        );
    }
    let lying = dhcp(8, &[55, 200, 1, 3]);
    assert_eq!(
        ask(&lying),
        Some(Err(Discard::Malformed)),
        "an option beyond the end"
    );
    // A fragment shows no ports.
    let mut fragment = inform();
    fragment[6] = 0x20;
    assert_eq!(ask(&sealed(fragment)), Some(Err(Discard::Group)));
}

#[test]
fn ipv4_chatter_ends_here_and_traffic_does_not() {
    let udp = |destination: [u8; 4], port: u16| {
        let mut packet =
            hex!("4500 0000 0001 0000 80 11 0000 0a080002 00000000 0089 0000 0000 0000").to_vec();
        packet[16..20].copy_from_slice(&destination);
        packet[22..24].copy_from_slice(&port.to_be_bytes());
        sealed(packet)
    };
    for (group, port) in [
        ([255; 4], 137),
        ([255; 4], 138),
        ([224, 0, 0, 252], 5355),
        ([224, 0, 0, 251], 5353),
        ([239, 255, 255, 250], 1900),
        ([239, 255, 255, 250], 67),
    ] {
        assert_eq!(
            ask(&udp(group, port)),
            Some(Err(Discard::Group)),
            "{group:?}:{port}"
        );
    }
    let igmp = sealed(
        hex!("4600 0000 0001 0000 01 02 0000 0a080002 e0000016 94040000 2200 0000").to_vec(),
    );
    assert_eq!(ask(&igmp), Some(Err(Discard::Group)));
    for (host, port) in [
        ([10, 8, 0, 1], 53),
        ([10, 8, 0, 255], 137),
        ([192, 0, 2, 1], 67),
    ] {
        assert_eq!(ask(&udp(host, port)), None, "{host:?}:{port}");
    }
    let with_mask = ProfileConfig {
        mask: Ipv4Addr::new(255, 255, 255, 0),
        ..config()
    };
    let got = ask_at(
        &mut services_with(&with_mask),
        START,
        &udp([10, 8, 0, 255], 137),
    );
    assert_eq!(got, Some(Err(Discard::Group)));

    // To the server itself, as RFC 2131 §4.4.3 allows.
    let mut unicast = inform();
    unicast[16..20].copy_from_slice(&GATEWAY.octets());
    assert!(ask(&sealed(unicast)).unwrap().is_ok());
}

// ICMPv6.

fn icmp6(source: &str, destination: &str, hop_limit: u8, message: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 0, 58, hop_limit];
    packet.extend(a6(source).octets());
    packet.extend(a6(destination).octets());
    packet.extend(message);
    sealed(packet)
}

const ROUTER_SOLICITATION: [u8; 8] = hex!("85 00 0000 00000000");

fn neighbour_solicitation(target: &str) -> Vec<u8> {
    [&hex!("87 00 0000 00000000")[..], &a6(target).octets()].concat()
}

fn check_advertisement(packet: &[u8], to: &str) {
    assert_sums(packet);
    assert_eq!(packet[..4], hex!("60000000"));
    assert_eq!(packet[6..8], [58, 255]);
    assert_eq!(packet[8..24], a6("fe80::1").octets());
    assert_eq!(packet[24..40], a6(to).octets());
    let message = &packet[40..];
    assert_eq!(message[..2], [134, 0]);
    assert_eq!(message[4..16], hex!("40 40 0708 00000000 00000000"));
    let expected = [
        // The session's prefix: A, not L; valid 5400 s, preferred 2700 s.
        &hex!("03 04 40 40 00001518 00000a8c 00000000 20010db8000100020000000000000000")[..],
        // MTU 1400.
        &hex!("05 01 0000 00000578"),
        // RDNSS, 1800 s.
        &hex!(
            "19 05 0000 00000708 20010db8000000000000000000000053 20010db8000000000000000000000054"
        ),
        // DNSSL, 1800 s.
        &hex!("1f 05 0000 00000708"),
        b"\x04corp\x07example\0\x03lab\x07example\0",
        &hex!("0000000000"),
        // Routes: /48 in 2 units, /128 in 3, ::/0 in 1.
        &hex!("18 02 30 00 00000708 20010db8000a0000"),
        &hex!("18 03 80 00 00000708 20010db8000b00000000000000000001"),
        &hex!("18 01 00 00 00000708"),
    ]
    .concat();
    assert_eq!(message[16..], expected);
}

#[test]
fn a_router_solicitation_is_answered_to_whom_it_came_from() {
    let packet = icmp6("fe80::1234", "ff02::2", 255, &ROUTER_SOLICITATION);
    check_advertisement(&answer(&packet), "fe80::1234");
    let packet = icmp6("::", "ff02::2", 255, &ROUTER_SOLICITATION);
    check_advertisement(&answer(&packet), "ff02::1");
    let with_option = [&ROUTER_SOLICITATION[..], &hex!("0101 005345000000")].concat();
    assert!(
        ask(&icmp6("fe80::1234", "ff02::2", 255, &with_option))
            .unwrap()
            .is_ok()
    );
    for (source, hop_limit, message) in [
        ("fe80::1234", 254, &ROUTER_SOLICITATION[..]),
        ("fe80::1234", 255, &hex!("85 01 0000 00000000")),
        ("fe80::1234", 255, &ROUTER_SOLICITATION[..7]),
        (
            "fe80::1234",
            255,
            &hex!("85 00 0000 00000000 0100 000000000000"),
        ),
        (
            "fe80::1234",
            255,
            &hex!("85 00 0000 00000000 0102 000000000000"),
        ),
        ("::", 255, &with_option),
    ] {
        let packet = icmp6(source, "ff02::2", hop_limit, message);
        assert_eq!(
            ask(&packet),
            Some(Err(Discard::Malformed)),
            "{source} {message:x?}"
        );
    }
    let mut wrong_sum = packet;
    wrong_sum[42] ^= 0x80;
    assert_eq!(ask(&wrong_sum), Some(Err(Discard::Malformed)));
}

#[test]
fn the_largest_profile_fits_every_link() {
    let label = "a".repeat(61);
    let largest = ProfileConfig {
        dns_v6: vec![a6("2001:db8::53"); 8],
        search: vec![format!("{label}.{label}.{label}.{label}"), "ab".to_owned()],
        routes_v6: vec![(a6("2001:db8::"), 128); 24],
        ..config()
    };
    let mut services = services_with(&largest);
    let packet = icmp6("fe80::1234", "ff02::2", 255, &ROUTER_SOLICITATION);
    let reply = ask_at(&mut services, START, &packet).unwrap().unwrap();
    assert!(reply.len() > 1000 && reply.len() <= 1280, "{}", reply.len());
    let reply = ask_at(&mut services, START, &information_request(&[&[0; 130]])).unwrap();
    assert_sums(&reply.unwrap());
}

#[test]
fn advertisements_come_three_times_and_then_now_and_then() {
    let mut services = Services::new(Arc::new(Profile::new(&config()).unwrap()), MTU);
    assert_eq!(services.next_timeout(), None);
    let mut out = Collected::default();
    let ipv6 = Ipv6Service {
        prefix: Some(a6("2001:db8:1:2::")),
        gateway_id: 1,
    };
    services.open_ipv6(START, ipv6, &mut out);
    check_advertisement(&out.sent[0], "ff02::1");
    assert_eq!(out.events, [Event::Answered(Service::Unsolicited)]);
    let mut entropy = Counting(1);
    let mut now = START;
    let mut waits = Vec::new();
    for count in 2..50 {
        let at = services.next_timeout().unwrap();
        services.handle_timeout(now, &mut entropy, &mut out);
        assert_eq!(out.sent.len(), count - 1, "not before its time");
        services.handle_timeout(at, &mut entropy, &mut out);
        assert_eq!(out.sent.len(), count);
        waits.push(at.saturating_since(now).as_millis());
        now = at;
    }
    check_advertisement(out.sent.last().unwrap(), "ff02::1");
    assert_eq!(waits[..2], [3000, 3000]);
    assert!(
        waits[2..]
            .iter()
            .all(|wait| (200_000..=600_000).contains(wait))
    );
    assert!(waits[2..].iter().max().unwrap() - waits[2..].iter().min().unwrap() > 200_000);

    services.close_ipv6();
    assert_eq!(services.next_timeout(), None);
    services.handle_timeout(now + Duration::from_secs(999), &mut entropy, &mut out);
    assert_eq!(out.sent.len(), 49);
}

#[test]
fn without_a_prefix_no_default_route_is_told() {
    let mut services = services();
    let ipv6 = Ipv6Service {
        prefix: None,
        gateway_id: 1,
    };
    let mut out = Collected::default();
    services.open_ipv6(START, ipv6, &mut out);
    let message = &out.sent[0][40..];
    assert_eq!(message[4..8], hex!("40 40 0000"));
    assert_eq!(message[16], 5, "MTU comes first, there is no prefix");
}

#[test]
fn the_gateway_is_found_to_be_alive() {
    let solicitation = neighbour_solicitation("fe80::1");
    for destination in ["fe80::1", "ff02::1:ff00:1"] {
        let reply = answer(&icmp6("fe80::1234", destination, 255, &solicitation));
        assert_sums(&reply);
        assert_eq!(reply[6..8], [58, 255]);
        assert_eq!(
            reply[8..40],
            [a6("fe80::1").octets(), a6("fe80::1234").octets()].concat()
        );
        // R and S.
        let expected = [&hex!("c0000000")[..], &a6("fe80::1").octets()].concat();
        assert_eq!(reply[40..42], [136, 0]);
        assert_eq!(reply[44..], expected);
    }
    for (hop_limit, message) in [
        (64, solicitation.clone()),
        (255, solicitation[..23].to_vec()),
        (255, neighbour_solicitation("ff02::1")),
        (255, [&solicitation[..], &[1, 0]].concat()),
    ] {
        let packet = icmp6("fe80::1234", "fe80::1", hop_limit, &message);
        assert_eq!(ask(&packet), Some(Err(Discard::Malformed)));
    }
    let other = icmp6(
        "fe80::1234",
        "ff02::1:ff00:2",
        255,
        &neighbour_solicitation("fe80::2"),
    );
    assert_eq!(ask(&other), Some(Err(Discard::Unserved)));
}

#[test]
fn duplicate_address_detection_is_met_by_silence() {
    for own in ["fe80::1234", "2001:db8:1:2::77"] {
        let packet = icmp6("::", "ff02::1:ff00:1234", 255, &neighbour_solicitation(own));
        assert_eq!(ask(&packet), Some(Err(Discard::AddressDetection)));
    }
    // Unless the address is the gateway's: told to all (RFC 4861 §7.2.4).
    let packet = icmp6(
        "::",
        "ff02::1:ff00:1",
        255,
        &neighbour_solicitation("fe80::1"),
    );
    let reply = answer(&packet);
    assert_sums(&reply);
    assert_eq!(reply[24..40], a6("ff02::1").octets());
    assert_eq!(reply[44], 0x80, "R without S");
    let packet = icmp6("::", "ff02::1", 255, &neighbour_solicitation("fe80::1"));
    assert_eq!(
        ask(&packet),
        Some(Err(Discard::Malformed)),
        "not a solicited-node group"
    );
}

#[test]
fn the_gateway_answers_a_ping() {
    let ping = icmp6(
        "fe80::1234",
        "fe80::1",
        64,
        &hex!("80 00 0000 0007 0001 68656c6c6f"),
    );
    let reply = answer(&ping);
    assert_sums(&reply);
    assert_eq!(
        reply[8..40],
        [a6("fe80::1").octets(), a6("fe80::1234").octets()].concat()
    );
    assert_eq!(reply[40..42], [129, 0]);
    assert_eq!(reply[44..], hex!("0007 0001 68656c6c6f"));
    let long = [&hex!("80 00 0000 0007 0001")[..], &[7; 1233]].concat();
    let ping = icmp6("fe80::1234", "fe80::1", 64, &long);
    assert_eq!(
        ask(&ping),
        Some(Err(Discard::Unserved)),
        "longer than every link carries"
    );
}

#[test]
fn ipv6_chatter_ends_here_and_traffic_does_not() {
    let advertisement = [&hex!("86 00 0000 40 40 0708 00000000 00000000")[..], &[]].concat();
    for destination in ["ff02::1", "fe80::1"] {
        let packet = icmp6("fe80::1234", destination, 255, &advertisement);
        assert_eq!(ask(&packet), Some(Err(Discard::RouterRole)));
        let redirect = [&hex!("89 00 0000 00000000")[..], &[0; 32]].concat();
        let packet = icmp6("fe80::1234", destination, 255, &redirect);
        assert_eq!(ask(&packet), Some(Err(Discard::RouterRole)));
    }
    for kind in [128, 131, 132, 136, 143] {
        let packet = icmp6("fe80::1234", "ff02::16", 1, &[kind, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(ask(&packet), Some(Err(Discard::Group)), "ICMPv6 {kind}");
    }
    // MLD as it is really sent, behind a router alert.
    let mut report = icmp6(
        "fe80::1234",
        "ff02::16",
        1,
        &hex!("3a00 05020000 0100 8f00 0000 0000 0000"),
    );
    report[6] = 0;
    assert_eq!(ask(&report), Some(Err(Discard::Group)));
    let mut llmnr = icmp6(
        "2001:db8:1:2::1",
        "ff02::1:3",
        1,
        &hex!("c000 14eb 0008 0000"),
    );
    llmnr[6] = 17;
    assert_eq!(ask(&sealed(llmnr)), Some(Err(Discard::Group)));
    let mut tcp = icmp6("fe80::1234", "fe80::1", 64, &[0; 20]);
    tcp[6] = 6;
    assert_eq!(ask(&tcp), Some(Err(Discard::Unserved)));
    assert_eq!(
        ask(&icmp6(
            "2001:db8:1:2::1",
            "2001:db8::1",
            64,
            &[128, 0, 0, 0]
        )),
        None
    );
    assert_eq!(ask(&[]), Some(Err(Discard::Malformed)));
}

// DHCPv6.

fn information_request(client_ids: &[&[u8]]) -> Vec<u8> {
    let mut options = Vec::new();
    for id in client_ids {
        options.extend([0, 1]);
        options.extend((id.len() as u16).to_be_bytes());
        options.extend(*id);
    }
    // Elapsed time; DNS, search list, refresh time wanted.
    options.extend(hex!("0008 0002 0000 0006 0006 0017 0018 0020"));
    dhcpv6(11, "fe80::1234", "ff02::1:2", &options)
}

fn dhcpv6(kind: u8, source: &str, destination: &str, options: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 0, 17, 1];
    packet.extend(a6(source).octets());
    packet.extend(a6(destination).octets());
    packet.extend(hex!("0222 0223 0000 0000"));
    packet.push(kind);
    packet.extend(hex!("abcdef"));
    packet.extend(options);
    sealed(packet)
}

const SERVER_ID: [u8; 22] = *b"\0\x02\0\x12\0\x040123456789abcdef";

#[test]
fn an_information_request_is_answered() {
    let id = hex!("0001 0001 2b6f7f3a 005345000000");
    let reply = answer(&information_request(&[&id]));
    assert_sums(&reply);
    assert_eq!(
        reply[8..40],
        [a6("fe80::1").octets(), a6("fe80::1234").octets()].concat()
    );
    assert_eq!(reply[40..44], hex!("0223 0222"));
    let expected = [
        &hex!("07 abcdef 0001 000e")[..],
        &id,
        &SERVER_ID,
        &hex!("0017 0020 20010db8000000000000000000000053 20010db8000000000000000000000054"),
        &hex!("0018 001b"),
        b"\x04corp\x07example\0\x03lab\x07example\0",
        &hex!("0020 0004 00015180"),
    ]
    .concat();
    assert_eq!(reply[48..], expected);
    // No client identifier, one wish.
    let reply = answer(&dhcpv6(
        11,
        "fe80::1234",
        "ff02::1:2",
        &hex!("0006 0002 0018"),
    ));
    let expected = [
        &hex!("07 abcdef")[..],
        &SERVER_ID,
        &hex!("0018 001b"),
        b"\x04corp\x07example\0\x03lab\x07example\0",
    ]
    .concat();
    assert_eq!(reply[48..], expected);
    let for_us = dhcpv6(11, "fe80::1234", "ff02::1:2", &SERVER_ID);
    assert!(ask(&for_us).unwrap().is_ok());
}

#[test]
fn other_dhcpv6_gets_no_answer() {
    let group = "ff02::1:2";
    for kind in (0..=255).filter(|&kind| kind != 11) {
        let got = ask(&dhcpv6(kind, "fe80::1234", group, &[]));
        assert_eq!(got, Some(Err(Discard::Lease)), "message type {kind}");
    }
    for (options, why) in [
        (
            &hex!("0003 000c 00000001 00000000 00000000")[..],
            Discard::Lease,
        ),
        (
            &hex!("0019 000c 00000001 00000000 00000000"),
            Discard::Lease,
        ),
        (&hex!("0002 0002 0004"), Discard::Unserved),
        (&hex!("0001 ffff 00"), Discard::Malformed),
        (&hex!("0001 00"), Discard::Malformed),
        (
            &[&hex!("0001 0083")[..], &[0; 131]].concat(),
            Discard::Malformed,
        ),
    ] {
        let got = ask(&dhcpv6(11, "fe80::1234", group, options));
        assert_eq!(got, Some(Err(why)), "{options:x?}");
    }
    let got = ask(&dhcpv6(11, "2001:db8:1:2::1", group, &[]));
    assert_eq!(
        got,
        Some(Err(Discard::Malformed)),
        "not from a link-local address"
    );
    let got = ask(&dhcpv6(11, "fe80::1234", "fe80::1", &[]));
    assert_eq!(got, Some(Err(Discard::Unserved)), "unicast");
    let mut no_sum = dhcpv6(11, "fe80::1234", group, &[]);
    no_sum[46..48].fill(0);
    assert_eq!(ask(&no_sum), Some(Err(Discard::Malformed)));
}

// Bounds.

#[test]
fn answers_are_bounded_by_time() {
    let id = hex!("0001 0001 2b6f7f3a 005345000000");
    let requests = [
        (inform(), 5),
        (information_request(&[&id]), 5),
        (
            icmp6("fe80::1234", "ff02::2", 255, &ROUTER_SOLICITATION),
            10,
        ),
        (
            icmp6(
                "fe80::1234",
                "fe80::1",
                255,
                &neighbour_solicitation("fe80::1"),
            ),
            10,
        ),
        (
            icmp6("fe80::1234", "fe80::1", 64, &[128, 0, 0, 0, 0, 0, 0, 0]),
            10,
        ),
    ];
    for (request, per_second) in requests {
        let mut services = services();
        let mut answered = 0;
        for ms in 0..10_000 {
            match ask_at(&mut services, START + Duration::from_millis(ms), &request) {
                Some(Ok(_)) => answered += 1,
                other => assert_eq!(other, Some(Err(Discard::Rate))),
            }
        }
        assert!(
            (per_second * 10..=per_second * 11).contains(&answered),
            "{answered}"
        );
    }
}

#[test]
fn what_is_not_open_is_not_served() {
    let profile = Arc::new(Profile::new(&config()).unwrap());
    let mut services = Services::new(profile, MTU);
    let solicitation = icmp6("fe80::1234", "ff02::2", 255, &ROUTER_SOLICITATION);
    for packet in [&inform(), &solicitation, &information_request(&[])] {
        assert_eq!(
            ask_at(&mut services, START, packet),
            Some(Err(Discard::Unserved))
        );
    }
    let mut services = self::services();
    services.close_ipv4();
    assert_eq!(
        ask_at(&mut services, START, &inform()),
        Some(Err(Discard::Unserved))
    );
    assert!(ask_at(&mut services, START, &solicitation).unwrap().is_ok());
    services.change_profile(Arc::new(Profile::new(&ProfileConfig::default()).unwrap()));
    let reply = ask_at(&mut services, START, &solicitation)
        .unwrap()
        .unwrap();
    assert_eq!(reply.len(), 40 + 16 + 32 + 8, "prefix and MTU only");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5_000))]
    #[test]
    fn any_change_to_a_request_gives_one_right_answer_or_none(
        which in 0..5_usize, changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in proptest::option::of(any::<prop::sample::Index>()), reseal: bool,
    ) {
        let mut packet = match which {
            0 => inform(),
            1 => information_request(&[&[0, 4, 1, 2, 3]]),
            2 => icmp6("fe80::1234", "ff02::2", 255, &ROUTER_SOLICITATION),
            3 => icmp6("fe80::1234", "fe80::1", 255, &neighbour_solicitation("fe80::1")),
            _ => icmp6("fe80::1234", "fe80::1", 64, &[128, 0, 0, 0, 0, 0, 0, 0]),
        };
        for (at, byte) in changes {
            let at = at.index(packet.len());
            packet[at] = byte;
        }
        if let Some(cut) = cut {
            packet.truncate(cut.index(packet.len() + 1));
        }
        let is_whole = packet.len() >= 48 && matches!(packet[0] >> 4, 4 | 6);
        if reseal && is_whole {
            packet = sealed(packet);
        }
        if let Some(Ok(reply)) = ask(&packet) {
            assert_sums(&reply);
            let is_to_client = match reply[0] >> 4 {
                4 => reply[16..20] == CLIENT.octets(),
                _ => reply[24..40] != [0; 16],
            };
            prop_assert!(is_to_client && reply.len() <= usize::from(MTU));
        }
    }
}
