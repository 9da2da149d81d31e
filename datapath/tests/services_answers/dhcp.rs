//! DHCPINFORM, and what of IPv4 ends here.

use std::net::Ipv4Addr;

use datapath::services::{Discard, ProfileConfig};
use hex_literal::hex;

use crate::packet::{assert_sums, sealed};
use crate::{GATEWAY, ROUTES, START, answer, ask, ask_at, config, services_with};

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
pub(crate) fn inform() -> Vec<u8> {
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
