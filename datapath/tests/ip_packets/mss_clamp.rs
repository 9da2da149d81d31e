//! The MSS clamp, against packets built anew with the lower value.

use std::net::IpAddr;

use datapath::ip::mss;
use hex_literal::hex;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::packet::{a6, finish_v4, pseudo, slow_checksum, v4, v6};

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
