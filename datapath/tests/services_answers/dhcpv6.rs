//! Stateless DHCPv6.

use datapath::services::Discard;
use hex_literal::hex;

use crate::packet::{assert_sums, sealed};
use crate::{a6, answer, ask};

pub(crate) fn information_request(client_ids: &[&[u8]]) -> Vec<u8> {
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
