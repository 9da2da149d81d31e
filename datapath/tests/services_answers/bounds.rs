//! How many answers there are, to what, and that any of them is right.

use std::sync::Arc;

use datapath::services::{Discard, Profile, ProfileConfig, Services};
use datapath::time::Duration;
use hex_literal::hex;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::dhcp::inform;
use crate::dhcpv6::information_request;
use crate::icmp6::{ROUTER_SOLICITATION, icmp6, neighbour_solicitation};
use crate::packet::{assert_sums, sealed};
use crate::{CLIENT, MTU, START, ask, ask_at, config, services};

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
