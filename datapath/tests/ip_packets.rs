//! The `ip` layer against hand-made packets and slow references that share no code with it.
#![expect(
    clippy::cast_possible_truncation,
    reason = "packets built here are short"
)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use datapath::ip::fragment::{self, Unsplit};
use datapath::ip::icmp::{self, Gateway};
use datapath::ip::packet::{Family, Malformed, Packet, Part};
use datapath::ip::source::{Accepted, DropReason, SourceCheck, To};
use datapath::ip::{checksum, mss};
use hex_literal::hex;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

/// RFC 1071 §1 word by word, in no hurry.
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

fn slow_checksum(bytes: &[u8]) -> u16 {
    0xffff - slow_sum(bytes)
}

fn pseudo(source: IpAddr, destination: IpAddr, protocol: u8, len: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for address in [source, destination] {
        match address {
            IpAddr::V4(address) => bytes.extend(address.octets()),
            IpAddr::V6(address) => bytes.extend(address.octets()),
        }
    }
    bytes.extend((len as u32).to_be_bytes());
    bytes.extend([0, 0, 0, protocol]);
    bytes
}

fn v4(source: [u8; 4], destination: [u8; 4], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 0, 0x12, 0x34, 0x40, 0, 64, protocol, 0, 0];
    packet.extend(source);
    packet.extend(destination);
    finish_v4(packet, payload)
}

fn finish_v4(mut header: Vec<u8>, payload: &[u8]) -> Vec<u8> {
    let len = (header.len() + payload.len()) as u16;
    header[2..4].copy_from_slice(&len.to_be_bytes());
    header[10..12].fill(0);
    let sum = slow_checksum(&header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    header.extend(payload);
    header
}

fn v6(source: Ipv6Addr, destination: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([next, 64]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(payload);
    packet
}

fn a6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

// Views.

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

/// `count` destination-options headers of 8 bytes, then UDP.
fn chain(count: usize) -> Vec<u8> {
    let mut payload = Vec::new();
    for left in (0..count).rev() {
        payload.extend([if left == 0 { 17 } else { 60 }, 0, 1, 4, 0, 0, 0, 0]);
    }
    payload.extend([0; 8]);
    let next = if count == 0 { 17 } else { 60 };
    v6(a6("2001:db8::2"), a6("2001:db8::1"), next, &payload)
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

// Checksums.

proptest! {
    #[test]
    fn the_sum_equals_the_slow_one(bytes in vec(any::<u8>(), 0..3000), cut in 0..1500_usize) {
        prop_assert_eq!(checksum::Sum::ZERO.add_bytes(&bytes).fold() % 0xffff, slow_sum(&bytes) % 0xffff);
        prop_assert_eq!(checksum::of(&bytes) == 0xffff, bytes.iter().all(|&byte| byte == 0));
        let cut = (2 * cut).min(bytes.len() & !1);
        let (front, back) = bytes.split_at(cut);
        let in_parts = checksum::Sum::ZERO.add_bytes(front).add_sum(checksum::Sum::ZERO.add_bytes(back));
        prop_assert_eq!(in_parts.checksum(), checksum::of(&bytes));
    }

    #[test]
    fn an_update_equals_a_new_sum(
        mut bytes in vec(any::<u8>(), 2..100), at in any::<prop::sample::Index>(), new: [u8; 2]
    ) {
        // RFC 1624 §3 holds for data that is not all zero; a pseudo-header never is.
        bytes.splice(0..0, [1, 0]);
        let before = checksum::of(&bytes);
        let at = at.index(bytes.len() - 3) + 2;
        let old = [bytes[at], bytes[at + 1]];
        bytes[at..at + 2].copy_from_slice(&new);
        let turn = |word: [u8; 2]| {
            let word = u16::from_be_bytes(word);
            if at.is_multiple_of(2) { word } else { word.swap_bytes() }
        };
        prop_assert_eq!(checksum::update(before, turn(old), turn(new)), checksum::of(&bytes));
    }
}

#[test]
fn ones_do_not_overflow_the_sum() {
    let bytes = [0xff; 65_536];
    let mut sum = checksum::Sum::ZERO;
    for _ in 0..1000 {
        sum = sum.add_bytes(&bytes);
    }
    assert_eq!(sum.fold(), 0xffff);
}

// The source check.

fn check() -> SourceCheck {
    SourceCheck::new(
        Some(Ipv4Addr::new(10, 8, 0, 2)),
        Some((a6("2001:db8:1:2::"), 64)),
        Some(0x1234),
    )
}

fn check_v4(source: [u8; 4], destination: [u8; 4]) -> Result<To, DropReason> {
    let accepted = check().check(&v4(source, destination, 17, &[0; 8]))?;
    assert_eq!((accepted.family, accepted.len), (Family::V4, 28));
    Ok(accepted.to)
}

fn check_v6(source: &str, destination: &str) -> Result<To, DropReason> {
    let accepted = check().check(&v6(a6(source), a6(destination), 17, &[0; 8]))?;
    assert_eq!((accepted.family, accepted.len), (Family::V6, 48));
    Ok(accepted.to)
}

#[test]
fn only_the_assigned_ipv4_address_passes() {
    let mine = [10, 8, 0, 2];
    let far = [192, 0, 2, 1];
    assert_eq!(check_v4(mine, far), Ok(To::Inside));
    assert_eq!(check_v4(mine, [10, 8, 0, 1]), Ok(To::Inside));
    for group in [[255; 4], [224, 0, 0, 251], [239, 255, 255, 250]] {
        assert_eq!(check_v4(mine, group), Ok(To::Services));
    }
    for nobody in [[0; 4], [0, 1, 2, 3], [127, 0, 0, 1], [240, 0, 0, 1]] {
        assert_eq!(check_v4(mine, nobody), Err(DropReason::Destination));
    }
    assert_eq!(check_v4([0; 4], far), Err(DropReason::Zero));
    assert_eq!(
        check_v4([0; 4], [255; 4]),
        Err(DropReason::Zero),
        "DHCPDISCOVER"
    );
    assert_eq!(check_v4([127, 0, 0, 1], far), Err(DropReason::Loopback));
    for group in [[224, 0, 0, 1], [239, 1, 1, 1], [240, 0, 0, 1], [255; 4]] {
        assert_eq!(check_v4(group, far), Err(DropReason::Multicast));
    }
    for other in [
        [10, 8, 0, 1],
        [10, 8, 0, 3],
        [11, 8, 0, 2],
        [169, 254, 0, 1],
    ] {
        assert_eq!(check_v4(other, far), Err(DropReason::Foreign));
    }
}

#[test]
fn only_the_assigned_ipv6_prefix_passes() {
    let far = "2001:db8:ffff::1";
    assert_eq!(check_v6("2001:db8:1:2::", far), Ok(To::Inside));
    assert_eq!(
        check_v6("2001:db8:1:2:ffff:ffff:ffff:ffff", far),
        Ok(To::Inside)
    );
    for other in [
        "2001:db8:1:1:ffff:ffff:ffff:ffff",
        "2001:db8:1:3::",
        "2001:db9:1:2::1",
        "::ffff:10.8.0.2",
        "fec0::1",
    ] {
        assert_eq!(check_v6(other, far), Err(DropReason::Foreign));
    }
    assert_eq!(check_v6("::1", far), Err(DropReason::Loopback));
    assert_eq!(check_v6("ff02::1", far), Err(DropReason::Multicast));
    assert_eq!(check_v6("::", far), Err(DropReason::Zero));
    assert_eq!(check_v6("::", "fe80::1"), Err(DropReason::Zero));
    assert_eq!(check_v6("::", "ff02::1:ff00:1234"), Ok(To::Services));
    for nobody in ["::", "::1"] {
        assert_eq!(
            check_v6("2001:db8:1:2::1", nobody),
            Err(DropReason::Destination)
        );
    }
}

#[test]
fn link_local_stays_on_the_link() {
    assert_eq!(check_v6("fe80::1234", "ff02::2"), Ok(To::Services));
    assert_eq!(check_v6("fe80::1234", "fe80::1"), Ok(To::Services));
    assert_eq!(check_v6("2001:db8:1:2::1", "fe80::1"), Ok(To::Services));
    assert_eq!(check_v6("2001:db8:1:2::1", "ff0e::1"), Ok(To::Services));
    assert_eq!(
        check_v6("fe80::1234", "2001:db8::1"),
        Err(DropReason::LinkLocalScope)
    );
    for other in ["fe80::1", "fe80::1235", "fe80:0:0:1::1234", "febf::1234"] {
        assert_eq!(check_v6(other, "ff02::2"), Err(DropReason::LinkLocal));
    }
}

#[test]
fn a_family_that_is_not_open_is_refused() {
    let none = SourceCheck::new(None, None, None);
    let packet = v4([10, 8, 0, 2], [192, 0, 2, 1], 17, &[]);
    assert_eq!(none.check(&packet), Err(DropReason::NotAssigned));
    let packet = v6(a6("fe80::1234"), a6("ff02::2"), 58, &[]);
    assert_eq!(none.check(&packet), Err(DropReason::NotAssigned));
    assert_eq!(
        none.check(&[0x45]),
        Err(DropReason::Malformed(Malformed::Short))
    );

    // Link-local only, as after IPV6CP without a prefix; and a single assigned address.
    let link = SourceCheck::new(None, None, Some(0x1234));
    assert!(link.check(&packet).is_ok());
    let global = v6(a6("2001:db8::1"), a6("2001:db8::2"), 58, &[]);
    assert_eq!(link.check(&global), Err(DropReason::Foreign));
    let one = SourceCheck::new(None, Some((a6("2001:db8::1"), 128)), None);
    assert_eq!(
        one.check(&global),
        Ok(Accepted {
            family: Family::V6,
            len: 40,
            to: To::Inside
        })
    );
    let next = v6(a6("2001:db8::"), a6("2001:db8::2"), 58, &[]);
    assert_eq!(one.check(&next), Err(DropReason::Foreign));
    // A prefix of everything is still no licence for groups and loopback.
    let all = SourceCheck::new(None, Some((a6("::"), 0)), None);
    assert!(all.check(&global).is_ok());
    for (source, reason) in [
        ("ff05::1", DropReason::Multicast),
        ("::1", DropReason::Loopback),
    ] {
        let packet = v6(a6(source), a6("2001:db8::2"), 58, &[]);
        assert_eq!(all.check(&packet), Err(reason));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]
    #[test]
    fn no_bytes_pass_with_a_foreign_source(mut bytes in vec(any::<u8>(), 0..100), nibble in 3..8_u8) {
        if let Some(first) = bytes.first_mut() {
            *first = (*first & 0x0f) | (nibble << 4);
        }
        if bytes.len() > 6 {
            bytes[2] = 0;
            bytes[4] = 0;
        }
        let Ok(packet) = Packet::parse(&bytes) else {
            prop_assert!(check().check(&bytes).is_err());
            return Ok(());
        };
        prop_assert!(bytes.starts_with(packet.bytes()));
        if let Some(transport) = packet.transport() {
            prop_assert!(transport.offset <= packet.bytes().len());
        }
        if let Ok(accepted) = check().check(&bytes) {
            prop_assert_eq!(accepted.len, packet.bytes().len());
            let is_mine = match packet.source() {
                IpAddr::V4(source) => source == Ipv4Addr::new(10, 8, 0, 2),
                IpAddr::V6(source) => source.segments()[..4] == [0x2001, 0xdb8, 1, 2]
                    || (accepted.to == To::Services
                        && (source.is_unspecified() || source == a6("fe80::1234"))),
            };
            prop_assert!(is_mine);
        }
    }
}

// The MSS clamp, against packets built anew with the lower value.

#[derive(Clone, Debug)]
enum TcpOption {
    Nop,
    Mss(u16),
    Other(Vec<u8>),
    End,
}

#[derive(Clone, Debug)]
struct Segment {
    is_v6: bool,
    ip_options: usize,
    extensions: Vec<u8>,
    fragment: Option<(bool, u16)>,
    flags: u8,
    options: Vec<TcpOption>,
    payload: Vec<u8>,
}

fn tcp_option() -> impl Strategy<Value = TcpOption> {
    prop_oneof![
        3 => Just(TcpOption::Nop),
        4 => any::<u16>().prop_map(TcpOption::Mss),
        2 => vec(any::<u8>(), 0..10).prop_map(TcpOption::Other),
        1 => Just(TcpOption::End),
    ]
}

fn segment() -> impl Strategy<Value = Segment> {
    (
        any::<bool>(),
        0..=10_usize,
        vec(prop::sample::select(vec![0_u8, 43, 60, 51]), 0..10),
        proptest::option::weighted(0.3, (any::<bool>(), 0..3_u16)),
        prop_oneof![Just(0x02_u8), Just(0x12), any::<u8>()],
        vec(tcp_option(), 0..8),
        vec(any::<u8>(), 0..64),
    )
        .prop_map(
            |(is_v6, ip_options, extensions, fragment, flags, options, payload)| Segment {
                is_v6,
                ip_options,
                extensions,
                fragment,
                flags,
                options,
                payload,
            },
        )
}

impl Segment {
    /// The packet, with every MSS that counts as an option at most `limit`.
    fn build(&self, limit: u16) -> Vec<u8> {
        let (source, destination) = if self.is_v6 {
            (
                IpAddr::from(a6("2001:db8::2")),
                IpAddr::from(a6("2001:db8::1")),
            )
        } else {
            (IpAddr::from([10, 8, 0, 2]), IpAddr::from([192, 0, 2, 1]))
        };
        let tcp = self.tcp(limit, source, destination);
        if self.is_v6 {
            self.in_v6(&tcp)
        } else {
            self.in_v4(&tcp)
        }
    }

    fn tcp(&self, limit: u16, source: IpAddr, destination: IpAddr) -> Vec<u8> {
        let mut options = Vec::new();
        let mut ended = false;
        for option in &self.options {
            let bytes = match option {
                TcpOption::Nop => vec![1],
                TcpOption::Mss(value) => {
                    let value = if ended { *value } else { (*value).min(limit) };
                    [&[2, 4][..], &value.to_be_bytes()].concat()
                }
                TcpOption::Other(value) => [&[254, value.len() as u8 + 2][..], value].concat(),
                TcpOption::End => vec![0],
            };
            if options.len() + bytes.len() <= 40 {
                ended |= matches!(option, TcpOption::End);
                options.extend(bytes);
            }
        }
        options.resize(options.len().next_multiple_of(4), 0);
        let mut tcp = hex!("c000 0050 01020304 05060708 50 00 ffff 0000 0000").to_vec();
        tcp[12] = ((5 + options.len() / 4) << 4) as u8;
        tcp[13] = self.flags;
        tcp.extend(options);
        tcp.extend(&self.payload);
        let summed = [pseudo(source, destination, 6, tcp.len()), tcp.clone()].concat();
        tcp[16..18].copy_from_slice(&slow_checksum(&summed).to_be_bytes());
        tcp
    }

    fn in_v4(&self, tcp: &[u8]) -> Vec<u8> {
        let mut header = v4([10, 8, 0, 2], [192, 0, 2, 1], 6, &[]);
        header[0] = 0x45 + self.ip_options as u8;
        header.resize(20 + 4 * self.ip_options, 1);
        let (more, offset) = self.fragment.unwrap_or_default();
        header[6] = if more { 0x20 } else { 0 };
        header[7] = offset as u8;
        finish_v4(header, tcp)
    }

    fn in_v6(&self, tcp: &[u8]) -> Vec<u8> {
        let mut kinds = self.extensions.clone();
        if self.fragment.is_some() {
            kinds.push(44);
        }
        let mut payload = Vec::new();
        for (at, &kind) in kinds.iter().enumerate() {
            let next = kinds.get(at + 1).copied().unwrap_or(6);
            payload.extend(match (kind, self.fragment) {
                (44, Some((more, offset))) => [
                    next,
                    0,
                    (offset >> 5) as u8,
                    ((offset << 3) as u8) | u8::from(more),
                    0,
                    0,
                    0,
                    7,
                ]
                .to_vec(),
                (51, _) => [next, 2, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 9, 9, 9, 9].to_vec(),
                _ => [next, 0, 1, 4, 0, 0, 0, 0].to_vec(),
            });
        }
        payload.extend(tcp);
        let first = kinds.first().copied().unwrap_or(6);
        v6(a6("2001:db8::2"), a6("2001:db8::1"), first, &payload)
    }

    fn is_clamped(&self) -> bool {
        let headers = self.extensions.len() + usize::from(self.fragment.is_some());
        let is_later = self.fragment.is_some_and(|(_, offset)| offset != 0);
        self.flags & 2 != 0 && !is_later && (!self.is_v6 || headers <= 8)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]
    #[test]
    fn the_clamp_equals_a_packet_built_with_the_lower_value(segment in segment(), mtu in 68..=4091_u16) {
        let fixed = if segment.is_v6 { 60 } else { 40 };
        let limit = mtu.saturating_sub(fixed).max(1);
        let original = segment.build(u16::MAX);
        let expected = segment.build(if segment.is_clamped() { limit } else { u16::MAX });
        let mut packet = original.clone();
        let changed = mss::clamp(&mut packet, mtu);
        prop_assert_eq!(&packet, &expected);
        prop_assert_eq!(changed, original != expected);
        prop_assert!(!mss::clamp(&mut packet, mtu), "a second time changes nothing");
    }

    #[test]
    fn the_clamp_survives_any_bytes(
        segment in segment(), at in any::<prop::sample::Index>(), byte: u8,
        cut in any::<prop::sample::Index>(), mtu: u16,
    ) {
        let mut packet = segment.build(u16::MAX);
        let at = at.index(packet.len());
        packet[at] = byte;
        packet.truncate(cut.index(packet.len() + 1));
        let before = packet.clone();
        if !mss::clamp(&mut packet, mtu) {
            prop_assert_eq!(before, packet);
        }
    }
}

#[test]
fn a_windows_syn_is_clamped() {
    // MSS 1460, NOP, WS 8, NOP, NOP, SACK permitted; checksum by hand in the slow way.
    let mut tcp = hex!(
        "c001 01bb 00000001 00000000 80 02 faf0 0000 0000"
        "020405b4 01030308 01010402"
    )
    .to_vec();
    let (source, destination) = ([10, 8, 0, 2], [192, 0, 2, 1]);
    let seal = |tcp: &mut Vec<u8>| {
        tcp[16..18].fill(0);
        let front = pseudo(source.into(), destination.into(), 6, tcp.len());
        let sum = slow_checksum(&[front, tcp.clone()].concat());
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    };
    seal(&mut tcp);
    let mut packet = v4(source, destination, 6, &tcp);
    assert!(mss::clamp(&mut packet, 1400));
    tcp[22..24].copy_from_slice(&1360_u16.to_be_bytes());
    seal(&mut tcp);
    assert_eq!(packet, v4(source, destination, 6, &tcp));
    assert!(!mss::clamp(&mut packet, 1500), "never raised");
}

// Too big.

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

// Fragments.

/// Puts pieces together as RFC 791 §3.2 does, checking each header.
fn reassemble(pieces: &[Vec<u8>], mtu: u16, original: &[u8]) -> TestCaseResult {
    let mut payload = Vec::<u8>::new();
    let whole = Packet::parse(original).unwrap();
    let Packet::V4(whole) = whole else {
        unreachable!()
    };
    for (at, bytes) in pieces.iter().enumerate() {
        prop_assert!(bytes.len() <= usize::from(mtu));
        let Packet::V4(piece) = Packet::parse(bytes).unwrap() else {
            unreachable!()
        };
        prop_assert_eq!(piece.bytes().len(), bytes.len());
        prop_assert_eq!(slow_sum(piece.header()), 0xffff);
        prop_assert_eq!(piece.identification(), whole.identification());
        prop_assert_eq!((piece.ttl(), piece.tos()), (whole.ttl(), whole.tos()));
        prop_assert_eq!(piece.protocol(), whole.protocol());
        prop_assert_eq!(
            (piece.source(), piece.destination()),
            (whole.source(), whole.destination())
        );
        let offset = usize::from(piece.fragment_offset() - whole.fragment_offset()) * 8;
        prop_assert_eq!(offset, payload.len());
        let is_last = at + 1 == pieces.len();
        prop_assert_eq!(piece.more_fragments(), !is_last || whole.more_fragments());
        prop_assert!(is_last || piece.payload().len().is_multiple_of(8));
        if at == 0 {
            prop_assert_eq!(piece.options(), whole.options());
        }
        payload.extend(piece.payload());
    }
    prop_assert_eq!(payload, whole.payload());
    Ok(())
}

proptest! {
    #[test]
    fn pieces_make_the_whole(
        payload in vec(any::<u8>(), 0..4000), words in 0..=10_usize, options in vec(any::<u8>(), 40),
        offset in 0..1000_u16, more: bool, mtu in 68..1500_u16,
    ) {
        let mut header = v4([192, 0, 2, 1], [10, 8, 0, 2], 17, &[]);
        header[0] = 0x45 + words as u8;
        header.extend(&options[..4 * words]);
        header[6..8].copy_from_slice(&(offset | if more { 0x2000 } else { 0 }).to_be_bytes());
        let packet = finish_v4(header, &payload);
        let mut pieces = Vec::new();
        let count = fragment::split(&packet, mtu, |header, payload| pieces.push([header, payload].concat()));
        prop_assert_eq!(count, Ok(pieces.len()));
        if packet.len() <= usize::from(mtu) {
            prop_assert_eq!(pieces, [packet]);
        } else {
            reassemble(&pieces, mtu, &packet)?;
        }
    }
}

#[test]
fn later_pieces_carry_only_options_that_are_copied() {
    let mut header = v4([192, 0, 2, 1], [10, 8, 0, 2], 17, &[]);
    header[0] = 0x49;
    header[6] = 0;
    // Record route (7, not copied), NOP, router alert (148, copied), end.
    header.extend(hex!("07 07 04 00000000 01 94040000 00000000"));
    let packet = finish_v4(header, &[1; 200]);
    let mut options = Vec::new();
    fragment::split(&packet, 100, |header, _| {
        options.push(header[20..].to_vec())
    })
    .unwrap();
    assert_eq!(options[0], packet[20..36]);
    assert_eq!(
        options[1..],
        [hex!("94040000"), hex!("94040000"), hex!("94040000")][..options.len() - 1]
    );
}

#[test]
fn what_must_not_be_split_is_named() {
    let sink = |_: &[u8], _: &[u8]| panic!("nothing may come out");
    let df = v4([192, 0, 2, 1], [10, 8, 0, 2], 17, &[0; 1480]);
    assert_eq!(fragment::split(&df, 1400, sink), Err(Unsplit::DontFragment));
    let mut may = df[..20].to_vec();
    may[6] = 0;
    let packet = finish_v4(may.clone(), &[0; 1480]);
    assert_eq!(fragment::split(&packet, 67, sink), Err(Unsplit::Mtu));
    may[6..8].copy_from_slice(&0x1fff_u16.to_be_bytes());
    let packet = finish_v4(may, &[0; 1480]);
    assert_eq!(fragment::split(&packet, 1400, sink), Err(Unsplit::Offset));
    let packet = v6(a6("2001:db8::2"), a6("2001:db8::1"), 17, &[0; 1480]);
    assert_eq!(fragment::split(&packet, 1400, sink), Err(Unsplit::NotV4));
    assert_eq!(fragment::split(&[0x45], 1400, sink), Err(Unsplit::NotV4));
}
