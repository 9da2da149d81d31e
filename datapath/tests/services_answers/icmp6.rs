//! Router and neighbour discovery, echo, and what of IPv6 ends here.

use std::sync::Arc;

use datapath::output::Collected;
use datapath::services::{Discard, Event, Ipv6Service, Profile, ProfileConfig, Service, Services};
use datapath::time::Duration;
use hex_literal::hex;

use crate::dhcpv6::information_request;
use crate::packet::{assert_sums, sealed};
use crate::{Counting, MTU, START, a6, answer, ask, ask_at, config, services, services_with};

pub(crate) fn icmp6(source: &str, destination: &str, hop_limit: u8, message: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 0, 58, hop_limit];
    packet.extend(a6(source).octets());
    packet.extend(a6(destination).octets());
    packet.extend(message);
    sealed(packet)
}

pub(crate) const ROUTER_SOLICITATION: [u8; 8] = hex!("85 00 0000 00000000");

pub(crate) fn neighbour_solicitation(target: &str) -> Vec<u8> {
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
