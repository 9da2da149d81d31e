//! A packet as its header tells it.

use std::net::IpAddr;

use datapath::ip::packet::{Malformed, Packet, Part};
use hex_literal::hex;

use crate::packet::{a6, chain, v4, v6};

#[test]
fn a_view_ends_where_the_header_says() {
    let mut bytes = v4([10, 8, 0, 2], [192, 0, 2, 1], 17, b"payload!");
    bytes.extend(b"padding");
    let packet = Packet::parse(&bytes).unwrap();
    assert_eq!(packet.bytes(), &bytes[..28]);
    assert_eq!(packet.source(), IpAddr::from([10, 8, 0, 2]));
    assert_eq!(packet.destination(), IpAddr::from([192, 0, 2, 1]));

    let mut bytes = v6(a6("2001:db8::2"), a6("2001:db8::1"), 17, b"payload!");
    bytes.extend(b"padding");
    let packet = Packet::parse(&bytes).unwrap();
    assert_eq!(packet.bytes(), &bytes[..48]);
    assert_eq!(packet.source(), IpAddr::from(a6("2001:db8::2")));
    assert_eq!(packet.destination(), IpAddr::from(a6("2001:db8::1")));
    let Packet::V6(packet) = packet else {
        panic!("not IPv6")
    };
    assert_eq!(packet.payload(), b"payload!");
}

#[test]
fn a_header_with_options_is_read_whole() {
    // Internet header length 6: router alert (RFC 2113).
    let bytes = hex!(
        "46 c0 0020 1234 2005 40 02 0000 0a080002 e0000016 94040000"
        "22 00 f9 02 00 00 00 00"
    );
    let Packet::V4(packet) = Packet::parse(&bytes).unwrap() else {
        panic!("not IPv4")
    };
    assert_eq!(packet.header_len(), 24);
    assert_eq!(packet.options(), hex!("94040000"));
    assert_eq!(packet.payload(), &bytes[24..]);
    assert_eq!(packet.tos(), 0xc0);
    assert_eq!(packet.identification(), 0x1234);
    assert!(packet.more_fragments() && !packet.dont_fragment());
    assert_eq!(packet.fragment_offset(), 5);
    assert_eq!((packet.ttl(), packet.protocol()), (64, 2));
    assert_eq!(packet.transport().part, Part::Later);
}

#[test]
fn lengths_that_lie_are_named() {
    let good = v4([10, 8, 0, 2], [192, 0, 2, 1], 17, b"payload!");
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        Packet::parse(&bytes).err()
    };
    assert_eq!(Packet::parse(&[]), Err(Malformed::Short));
    assert_eq!(Packet::parse(&good[..19]), Err(Malformed::Short));
    assert_eq!(Packet::parse(&good[..27]), Err(Malformed::Length));
    assert_eq!(with(0, 0x55), Some(Malformed::Version));
    assert_eq!(with(0, 0x05), Some(Malformed::Version));
    assert_eq!(with(0, 0x44), Some(Malformed::HeaderLength), "IHL 4");
    assert_eq!(
        with(0, 0x48),
        Some(Malformed::HeaderLength),
        "behind the end"
    );
    assert_eq!(
        with(3, 19),
        Some(Malformed::HeaderLength),
        "total below IHL"
    );
    assert_eq!(with(2, 1), Some(Malformed::Length));
    let good = v6(a6("2001:db8::2"), a6("2001:db8::1"), 17, b"payload!");
    assert_eq!(Packet::parse(&good[..39]), Err(Malformed::Short));
    assert_eq!(Packet::parse(&good[..47]), Err(Malformed::Length));
}

#[test]
fn the_walk_over_extension_headers_is_bounded() {
    for count in 0..=100 {
        let bytes = chain(count);
        let transport = Packet::parse(&bytes).unwrap().transport();
        if count <= 8 {
            let transport = transport.unwrap();
            assert_eq!((transport.protocol, transport.offset), (17, 40 + 8 * count));
            assert_eq!(transport.part, Part::Whole);
        } else {
            assert_eq!(transport, None, "{count} headers");
        }
    }
    // Authentication header (length in words, minus 2), then a first and a later fragment.
    let payload = hex!("2c 04 0000 00000001 00000001 000102030405060708090a0b");
    let first = hex!("06 00 0001 00000007 0050 0050");
    let later = hex!("06 00 0009 00000007 0050 0050");
    for (fragment, part) in [(first, Part::First), (later, Part::Later)] {
        let payload = [&payload[..], &fragment].concat();
        let bytes = v6(a6("2001:db8::2"), a6("2001:db8::1"), 51, &payload);
        let transport = Packet::parse(&bytes).unwrap().transport().unwrap();
        assert_eq!((transport.protocol, transport.offset), (6, 40 + 24 + 8));
        assert_eq!(transport.part, part);
    }
    // A header that ends behind the packet.
    let bytes = v6(
        a6("2001:db8::2"),
        a6("2001:db8::1"),
        0,
        &[17, 1, 0, 0, 0, 0, 0, 0],
    );
    assert_eq!(Packet::parse(&bytes).unwrap().transport(), None);
}
