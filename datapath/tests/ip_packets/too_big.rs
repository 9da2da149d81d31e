//! What a sender is told whose packet is too big.

use std::net::{Ipv4Addr, Ipv6Addr};

use datapath::ip::icmp::{self, Gateway};
use datapath::ip::packet::Packet;
use hex_literal::hex;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::packet::{a6, chain, pseudo, v4, v6};
use crate::rfc1071::slow_sum;

const GATEWAY: Gateway = Gateway {
    v4: Some(Ipv4Addr::new(10, 8, 0, 1)),
    v6: Some(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
};

#[test]
fn fragmentation_needed_is_sent_for_df() {
    let big = v4([192, 0, 2, 1], [10, 8, 0, 2], 17, &[0xab; 1480]);
    let mut room = [0; icmp::REPLY_LEN_MAX];
    let len = icmp::too_big(&big, 1400, &GATEWAY, &mut room).unwrap();
    let reply = &room[..len];
    assert_eq!(len, 576);
    assert_eq!(reply[..10], hex!("45 c0 0240 0000 4000 40 01"));
    assert_eq!(reply[12..20], [10, 8, 0, 1, 192, 0, 2, 1]);
    assert_eq!(slow_sum(&reply[..20]), 0xffff);
    assert_eq!(reply[20..22], [3, 4]);
    assert_eq!(reply[24..28], [0, 0, 0x05, 0x78]);
    assert_eq!(slow_sum(&reply[20..]), 0xffff);
    assert_eq!(reply[28..], big[..548]);
}

#[test]
fn packet_too_big_is_sent_for_ipv6() {
    let source = a6("2001:db8:9::1");
    let big = v6(source, a6("2001:db8:1:2::1"), 17, &[0xab; 1460]);
    let mut room = [0; icmp::REPLY_LEN_MAX];
    let len = icmp::too_big(&big, 1400, &GATEWAY, &mut room).unwrap();
    let reply = &room[..len];
    assert_eq!(len, 1280);
    assert_eq!(reply[..8], hex!("60000000 04d8 3a 40"));
    assert_eq!(reply[24..40], source.octets());
    assert_eq!(reply[40..42], [2, 0]);
    assert_eq!(reply[44..48], [0, 0, 0x05, 0x78]);
    assert_eq!(reply[48..], big[..1232]);
    let front = pseudo(GATEWAY.v6.unwrap().into(), source.into(), 58, len - 40);
    assert_eq!(slow_sum(&[&front, &reply[40..]].concat()), 0xffff);
    assert_eq!(icmp::too_big(&big, 1400, &GATEWAY, &mut [0; 1279]), None);
}

#[test]
fn some_packets_are_never_answered() {
    let mut room = [0; icmp::REPLY_LEN_MAX];
    let mut is_answered =
        |packet: &[u8]| icmp::too_big(packet, 1400, &GATEWAY, &mut room).is_some();
    let (far, near) = ([192, 0, 2, 1], [10, 8, 0, 2]);
    let udp = v4(far, near, 17, &[0; 1480]);
    assert!(is_answered(&udp));
    let with = |at: usize, byte: u8| {
        let mut packet = udp.clone();
        packet[at] = byte;
        packet
    };
    assert!(!is_answered(&with(6, 0)), "without DF");
    assert!(!is_answered(&with(7, 1)), "a later fragment");
    for first in [0, 127, 224, 240, 255] {
        assert!(!is_answered(&with(12, first)), "from {first}");
        assert!(!is_answered(&with(16, first)), "to {first}");
    }
    for kind in 0..=255 {
        let icmp = v4(far, near, 1, &[&[kind][..], &[0; 1479]].concat());
        assert_eq!(
            is_answered(&icmp),
            !matches!(kind, 3..=5 | 11 | 12),
            "ICMP {kind}"
        );
    }

    let (far, near) = (a6("2001:db8:9::1"), a6("2001:db8:1:2::1"));
    for kind in 0..=255 {
        let body = [&[kind][..], &[0; 1479]].concat();
        let is_owed = kind >= 128 && kind != 137;
        assert_eq!(
            is_answered(&v6(far, near, 58, &body)),
            is_owed,
            "ICMPv6 {kind}"
        );
        let behind = [&hex!("3a 00 01 04 00000000")[..], &body].concat();
        assert_eq!(is_answered(&v6(far, near, 60, &behind)), is_owed);
    }
    for nobody in ["::", "::1", "ff02::1"] {
        assert!(
            !is_answered(&v6(a6(nobody), near, 17, &[0; 1400])),
            "{nobody}"
        );
    }
    assert!(!is_answered(&v6(far, a6("ff0e::1"), 17, &[0; 1400])));
    let later = [&hex!("11 00 0008 00000007")[..], &[0; 1400]].concat();
    assert!(!is_answered(&v6(far, near, 44, &later)));
    assert!(!is_answered(&chain(9)), "what cannot be walked");
    assert!(!is_answered(&[]));

    let nobody = Gateway::default();
    assert_eq!(icmp::too_big(&udp, 1400, &nobody, &mut room), None);
}

proptest! {
    #[test]
    fn an_answer_to_any_bytes_is_right_and_bounded(
        bytes in vec(any::<u8>(), 0..2000), nibble in 4..7_u8, mtu: u16,
    ) {
        let mut bytes = bytes;
        if bytes.len() >= 40 {
            bytes[0] = (nibble << 4) | 5;
            let len = (bytes.len() - if nibble == 6 { 40 } else { 0 }) as u16;
            let at = if nibble == 6 { 4 } else { 2 };
            bytes[at..at + 2].copy_from_slice(&len.to_be_bytes());
        }
        let mut room = [0; icmp::REPLY_LEN_MAX];
        if let Some(len) = icmp::too_big(&bytes, mtu, &GATEWAY, &mut room) {
            let reply = &room[..len];
            prop_assert_eq!(Packet::parse(reply).unwrap().bytes().len(), len);
            let mut again = [0; icmp::REPLY_LEN_MAX];
            prop_assert_eq!(icmp::too_big(reply, mtu, &GATEWAY, &mut again), None, "about an error");
        }
    }
}
