//! Merging and cutting: what goes in comes out, byte for byte, whatever the headers say.
#![expect(
    clippy::cast_possible_truncation,
    reason = "packets built here are short"
)]

mod flow;
mod oddity;
#[path = "../rfc1071/mod.rs"]
mod rfc1071;

use std::collections::BTreeMap;

use datapath::ip::checksum;
use datapath::ip::offload::cut::{Cut, Uncut};
use datapath::ip::offload::merge::{Aggregate, Merge, Offloads, Pushed, SEGMENTS_MAX};
use datapath::ip::offload::{
    BadOffload, Gso, GsoKind, PartialChecksum, VNET_HEADER_LEN, VnetHeader,
};
use datapath::ip::packet::Packet;
use hex_literal::hex;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use flow::{ACK, CWR, ECE, FIN, Flow, PSH, at, checksum_at, put, transport_at, upper_sum};
use oddity::{Oddity, step};
use rfc1071::slow_sum;

const BOTH: Offloads = Offloads {
    tcp: true,
    udp: true,
};

/// Runs packets through a merger and cuts what comes out, in order.
fn through(merge: &mut Merge, packets: &[(u32, Vec<u8>)]) -> (Vec<(u32, Vec<u8>)>, Vec<usize>) {
    let mut written = Vec::new();
    let mut sizes = Vec::new();
    let mut take = |aggregate: Aggregate<'_>| {
        sizes.push(aggregate.segments);
        for packet in cut_again(&aggregate) {
            written.push((aggregate.session, packet));
        }
    };
    for (session, packet) in packets {
        if merge.push(*session, packet, &mut take) == Pushed::Direct {
            take(Aggregate {
                bytes: &[&[0; VNET_HEADER_LEN], &packet[..]].concat(),
                segments: 1,
                session: *session,
            });
        }
    }
    merge.flush(&mut take);
    (written, sizes)
}

fn cut_again(aggregate: &Aggregate<'_>) -> Vec<Vec<u8>> {
    let (header, packet) = aggregate.bytes.split_first_chunk().unwrap();
    let header = VnetHeader::parse(header).unwrap();
    let Some(gso) = header.gso else {
        assert_eq!(header, VnetHeader::default());
        assert_eq!(aggregate.segments, 1);
        return vec![packet.to_vec()];
    };
    assert!(packet.len() <= 65_535 && (2..=SEGMENTS_MAX).contains(&aggregate.segments));
    assert_eq!(Packet::parse(packet).unwrap().bytes().len(), packet.len());
    let checksum = header.checksum.unwrap();
    assert_eq!(usize::from(checksum.start), transport_at(packet));
    let field = checksum_at(packet);
    assert_eq!(usize::from(checksum.start + checksum.offset), field);
    // The field holds the pseudo-header's sum: what virtio asks for.
    let mut whole = packet.to_vec();
    checksum.complete(&mut whole).unwrap();
    assert_eq!(upper_sum(&whole), 0xffff);
    let mut cut = Cut::new(gso, packet, u16::MAX).unwrap();
    assert_eq!(cut.count(), aggregate.segments);
    let mut packets = Vec::new();
    while let Some(len) = cut.next_len() {
        let mut room = vec![0xee; len + 1];
        assert_eq!(
            cut.write_next(&mut room[..len - 1]),
            None,
            "too little room"
        );
        assert_eq!(cut.write_next(&mut room), Some(len));
        assert_eq!(room.pop(), Some(0xee));
        packets.push(room);
    }
    assert_eq!(packets.len(), aggregate.segments);
    packets
}

/// What packets must not overtake each other.
fn order_key(session: u32, packet: &[u8]) -> (u32, Vec<u8>) {
    let protocol = packet[if packet[0] >> 4 == 4 { 9 } else { 6 }];
    let flow = match packet[0] >> 4 {
        4 => packet.get(12..24).unwrap_or(packet),
        _ => packet.get(8..44).unwrap_or(packet),
    };
    (session, [&[packet[0] >> 4, protocol][..], flow].concat())
}

fn in_order(packets: &[(u32, Vec<u8>)]) -> BTreeMap<(u32, Vec<u8>), Vec<&[u8]>> {
    let mut flows = BTreeMap::<_, Vec<&[u8]>>::new();
    for (session, packet) in packets {
        flows
            .entry(order_key(*session, packet))
            .or_default()
            .push(packet);
    }
    flows
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]
    #[test]
    fn merged_then_cut_is_what_went_in(steps in vec(step(), 1..150), turns in 1..4_usize) {
        let mut flows: Vec<_> = (0..6).map(|n| Flow::new(n % 3 != 0, n != 4 && n != 3, n)).collect();
        let mut merge = Merge::new(BOTH);
        let mut packets = Vec::new();
        for (number, (flow, len, flags, oddity)) in steps.into_iter().enumerate() {
            let flow = &mut flows[flow];
            let payload: Vec<u8> = (0..len).map(|at| (at * 7 + number) as u8).collect();
            let mut packet = flow.packet(&payload, flags);
            oddity.apply(&mut packet);
            // Sessions give whole packets without what is behind them.
            if let Ok(parsed) = Packet::parse(&packet) {
                packets.push((flow.session, parsed.bytes().to_vec()));
            }
        }
        for turn in packets.chunks(packets.len().div_ceil(turns).max(1)) {
            let (written, _) = through(&mut merge, turn);
            prop_assert_eq!(in_order(&written), in_order(turn));
        }
    }

    #[test]
    fn any_bytes_go_through(
        packets in vec((0..2_u32, vec(any::<u8>(), 44..400)), 1..20),
        nibble in select(vec![4_u8, 6]),
    ) {
        let packets: Vec<_> = packets.into_iter().map(|(session, mut packet)| {
            packet[0] = (nibble << 4) | 5;
            let len = packet.len() as u16;
            if nibble == 4 { put(&mut packet, 2, len) } else { put(&mut packet, 4, len - 40) }
            packet[if nibble == 4 { 9 } else { 6 }] &= 0x17;
            (session, packet)
        }).collect();
        let (written, _) = through(&mut Merge::new(BOTH), &packets);
        prop_assert_eq!(in_order(&written), in_order(&packets));
    }

    #[test]
    fn a_cut_survives_any_superpacket(
        mut packet in vec(any::<u8>(), 0..300), nibble in select(vec![4_u8, 6]),
        kind in select(vec![GsoKind::TcpV4, GsoKind::TcpV6, GsoKind::Udp]),
        segment_len in 0..200_u16, mtu in 0..400_u16,
    ) {
        if packet.len() >= 40 {
            packet[0] = (nibble << 4) | 5;
            let len = packet.len() as u16;
            if nibble == 4 { put(&mut packet, 2, len) } else { put(&mut packet, 4, len - 40) }
            packet[if nibble == 4 { 9 } else { 6 }] = if kind == GsoKind::Udp { 17 } else { 6 };
            packet[6] &= 0x40;
            packet[7] = 0;
        }
        let gso = Gso { kind, segment_len, has_cwr: false };
        if let Ok(mut cut) = Cut::new(gso, &packet, mtu) {
            let mut room = [0; 400];
            let mut count = 0;
            let expected = cut.count();
            while let Some(len) = cut.write_next(&mut room) {
                prop_assert!(len <= usize::from(mtu));
                prop_assert_eq!(Packet::parse(&room[..len]).unwrap().bytes().len(), len);
                count += 1;
            }
            prop_assert_eq!(cut.next_len(), None);
            prop_assert_eq!(count, expected);
        }
    }

    #[test]
    fn segments_are_made_to_fit(
        len in 1..9000_usize, segment_len in 1..3000_u16, mtu in 100..3000_u16, is_v4: bool,
        flags in any::<u8>(),
    ) {
        let mut flow = Flow::new(is_v4, true, 0);
        let payload: Vec<u8> = (0..len).map(|at| (at * 31) as u8).collect();
        let packet = flow.packet(&payload, flags);
        let kind = if is_v4 { GsoKind::TcpV4 } else { GsoKind::TcpV6 };
        let gso = Gso { kind, segment_len, has_cwr: false };
        let mut cut = Cut::new(gso, &packet, mtu).unwrap();
        let t = transport_at(&packet);
        let headers_len = t + 32;
        let mut seen = Vec::<u8>::new();
        let mut index = 0_u16;
        let count = cut.count();
        while let Some(len) = cut.next_len() {
            let mut room = vec![0; len];
            cut.write_next(&mut room).unwrap();
            prop_assert!(len <= usize::from(mtu) && len - headers_len <= usize::from(segment_len));
            prop_assert_eq!(upper_sum(&room), 0xffff);
            if is_v4 {
                prop_assert_eq!(slow_sum(&room[..20]), 0xffff);
                prop_assert_eq!(at(&room, 4), at(&packet, 4).wrapping_add(index));
            }
            let sequence = u32::from_be_bytes(room[t + 4..t + 8].try_into().unwrap());
            prop_assert_eq!(sequence, 0xffff_f000_u32.wrapping_add(seen.len() as u32));
            let is_last = usize::from(index) + 1 == count;
            let mut expected = flags;
            if !is_last { expected &= !(FIN | PSH); }
            if index > 0 { expected &= !CWR; }
            prop_assert_eq!(room[t + 13], expected);
            seen.extend(&room[headers_len..]);
            index += 1;
        }
        prop_assert_eq!(seen, payload);
    }

    #[test]
    fn one_pass_copies_and_sums(from in vec(any::<u8>(), 0..300), shorter in 0..300_usize) {
        let mut to = vec![0xaa; from.len()];
        let sum = checksum::copy_and_sum(&from, &mut to);
        prop_assert_eq!(&to, &from);
        prop_assert_eq!(sum.checksum(), checksum::of(&from));
        let len = shorter.min(from.len());
        let mut to = vec![0xaa; len];
        let sum = checksum::copy_and_sum(&from, &mut to);
        prop_assert_eq!(sum.checksum(), checksum::of(&from[..len]));
        prop_assert_eq!(to, &from[..len]);
    }
}

/// Sizes of what comes out of `packets`.
fn sizes(packets: &[Vec<u8>]) -> Vec<usize> {
    let packets: Vec<_> = packets.iter().map(|packet| (7, packet.clone())).collect();
    let (written, sizes) = through(&mut Merge::new(BOTH), &packets);
    assert_eq!(in_order(&written), in_order(&packets));
    sizes
}

#[test]
fn a_burst_becomes_one_superpacket() {
    for (is_v4, is_tcp) in [(true, true), (false, true), (true, false), (false, false)] {
        for number in [0, 1] {
            let mut flow = Flow::new(is_v4, is_tcp, number);
            let burst: Vec<_> = (0..40).map(|_| flow.packet(&[7; 1300], ACK)).collect();
            assert_eq!(sizes(&burst), [40], "IPv4 {is_v4}, TCP {is_tcp}");
        }
    }
}

#[test]
fn a_superpacket_has_bounds() {
    let mut flow = Flow::new(true, true, 1);
    let long: Vec<_> = (0..100).map(|_| flow.packet(&[7; 1360], ACK)).collect();
    assert_eq!(sizes(&long), [48, 48, 4], "48 x 1360 + 40 are 65,320 bytes");
    let short: Vec<_> = (0..100).map(|_| flow.packet(&[7; 500], ACK)).collect();
    assert_eq!(sizes(&short), [64, 36]);
    let mut flow = Flow::new(false, false, 1);
    let jumbo: Vec<_> = (0..20).map(|_| flow.packet(&[7; 4000], 0)).collect();
    assert_eq!(sizes(&jumbo), [16, 4]);
}

#[test]
fn a_burst_ends_where_its_sender_says() {
    let mut flow = Flow::new(true, true, 0);
    let mut burst = |steps: &[(usize, u8)]| {
        let packets: Vec<_> = steps
            .iter()
            .map(|&(len, flags)| flow.packet(&vec![7; len], flags))
            .collect();
        sizes(&packets)
    };
    assert_eq!(
        burst(&[(1300, ACK), (1300, ACK | PSH), (1300, ACK)]),
        [2, 1]
    );
    assert_eq!(
        burst(&[(1300, ACK), (1300, ACK | FIN), (1300, ACK)]),
        [2, 1]
    );
    assert_eq!(
        burst(&[(1300, ACK), (9, ACK), (1300, ACK)]),
        [2, 1],
        "a shorter one"
    );
    assert_eq!(
        burst(&[(1300, ACK), (1301, ACK), (1301, ACK)]),
        [1, 2],
        "a longer one"
    );
    assert_eq!(
        burst(&[(1300, ACK), (0, ACK), (1300, ACK)]),
        [1, 1, 1],
        "a pure ACK"
    );
    assert_eq!(
        burst(&[(1300, ACK), (1300, ACK | CWR), (1300, ACK)]),
        [1, 1, 1]
    );
    assert_eq!(
        burst(&[(1300, ACK | ECE), (1300, ACK | ECE), (1300, ACK)]),
        [2, 1]
    );
    assert_eq!(
        burst(&[(256, ACK), (256, ACK)]),
        [1, 1],
        "small ones do not wait"
    );
    assert_eq!(burst(&[(257, ACK), (257, ACK)]), [2]);
}

#[test]
fn small_packets_come_out_at_once() {
    let mut merge = Merge::new(BOTH);
    let mut flow = Flow::new(true, true, 0);
    let mut none = |_: Aggregate<'_>| panic!("nothing was open");
    for packet in [
        flow.packet(&[], ACK),
        flow.packet(&[1; 36], ACK),
        flow.packet(&[1; 900], ACK | PSH),
    ] {
        assert_eq!(merge.push(7, &packet, &mut none), Pushed::Direct);
    }
    assert_eq!(
        merge.push(7, &flow.packet(&[1; 900], ACK), &mut none),
        Pushed::Kept
    );
    // A fragment could belong to it: order is kept by letting go.
    let mut fragment = flow.packet(&[1; 900], ACK);
    fragment[6] = 0x20;
    let mut out = 0;
    assert_eq!(merge.push(8, &fragment, &mut |_| out += 1), Pushed::Direct);
    assert_eq!(out, 0, "another session's");
    assert_eq!(merge.push(7, &fragment, &mut |_| out += 1), Pushed::Direct);
    assert_eq!(out, 1);
}

#[test]
fn odd_headers_stay_single_even_in_pairs() {
    for oddity in [
        Oddity::Reserved,
        Oddity::MoreFragments,
        Oddity::ReservedFlags,
        Oddity::OnesChecksum,
        Oddity::DataOffset,
    ] {
        let mut flow = Flow::new(true, true, 0);
        let pair: Vec<_> = (0..2)
            .map(|_| {
                let mut packet = flow.packet(&[7; 1300], ACK);
                oddity.apply(&mut packet);
                packet
            })
            .collect();
        assert_eq!(sizes(&pair), [1, 1], "{oddity:?}");
    }
}

#[test]
fn one_flow_of_many_sessions_is_many_flows() {
    let mut merge = Merge::new(BOTH);
    for (one, other) in (0..32).flat_map(|one| (0..one).map(move |other| (one, other))) {
        let mut flow = Flow::new(true, true, 0);
        let mut most = 0;
        for session in [one, other, one, other] {
            let packet = flow.packet(&[7; 1300], ACK);
            merge.push(session, &packet, &mut |all| most = most.max(all.segments));
        }
        merge.flush(&mut |all| most = most.max(all.segments));
        assert_eq!(most, 1, "sessions {one} and {other}");
    }
}

#[test]
fn sessions_are_never_mixed() {
    let mut merge = Merge::new(BOTH);
    let mut flow = Flow::new(true, true, 0);
    let packets: Vec<_> = (0..10)
        .map(|n| (n / 5, flow.packet(&[7; 1300], ACK)))
        .collect();
    let mut seen = Vec::new();
    for (session, packet) in &packets {
        merge.push(*session, packet, &mut |all| {
            seen.push((all.session, all.segments))
        });
    }
    merge.flush_session(1, &mut |all| seen.push((all.session, all.segments)));
    merge.flush(&mut |all| seen.push((all.session, all.segments)));
    seen.sort_unstable();
    assert_eq!(seen, [(0, 5), (1, 5)]);
}

#[test]
fn what_the_tun_does_not_take_is_not_made() {
    let mut none = |_: Aggregate<'_>| panic!("nothing was open");
    let mut merge = Merge::new(Offloads {
        tcp: false,
        udp: false,
    });
    for is_tcp in [true, false] {
        let mut flow = Flow::new(true, is_tcp, 0);
        for _ in 0..3 {
            let packet = flow.packet(&[7; 1300], ACK);
            assert_eq!(merge.push(7, &packet, &mut none), Pushed::Direct);
        }
    }
    merge.flush(&mut none);
}

#[test]
fn what_is_no_superpacket_is_named() {
    let mut flow = Flow::new(true, true, 0);
    let packet = flow.packet(&[7; 3000], ACK);
    let gso = |kind, segment_len| Gso {
        kind,
        segment_len,
        has_cwr: false,
    };
    let result = |gso, packet: &[u8], mtu| Cut::new(gso, packet, mtu).err();
    let malformed = Some(Uncut::Bad(BadOffload::Malformed));
    assert_eq!(result(gso(GsoKind::TcpV4, 1300), &packet, 1400), None);
    assert_eq!(result(gso(GsoKind::TcpV6, 1300), &packet, 1400), malformed);
    assert_eq!(result(gso(GsoKind::Udp, 1300), &packet, 1400), malformed);
    assert_eq!(result(gso(GsoKind::TcpV4, 0), &packet, 1400), malformed);
    assert_eq!(
        result(gso(GsoKind::TcpV4, 1300), &packet[..3000], 1400),
        malformed
    );
    assert_eq!(
        result(gso(GsoKind::TcpV4, 1300), &packet, 52),
        Some(Uncut::TooBig)
    );
    assert_eq!(
        result(gso(GsoKind::TcpV4, 1300), &flow.packet(&[], ACK), 1400),
        malformed
    );
    for (place, byte) in [(6, 0x20), (7, 1), (32, 0x40), (32, 0xf0)] {
        let mut packet = flow.packet(&[7; 20], ACK);
        packet[place] = byte;
        assert_eq!(result(gso(GsoKind::TcpV4, 10), &packet, 1400), malformed);
    }
    let mut flow = Flow::new(false, false, 0);
    let packet = flow.packet(&[7; 3000], 0);
    assert_eq!(
        result(gso(GsoKind::Udp, 1400), &packet, 1400),
        Some(Uncut::TooBig)
    );
    assert_eq!(result(gso(GsoKind::Udp, 1352), &packet, 1400), None);
}

#[test]
fn extension_headers_are_copied_and_routing_is_refused() {
    // Destination options, then UDP, as one superpacket of two datagrams.
    let behind = |next: u8, header: [u8; 8]| {
        let mut flow = Flow::new(false, false, 0);
        let mut packet = flow.packet(&[9; 64], 0);
        packet.splice(40..40, header);
        packet[6] = next;
        put(&mut packet, 4, 80);
        packet
    };
    let gso = Gso {
        kind: GsoKind::Udp,
        segment_len: 32,
        has_cwr: false,
    };
    let packet = behind(60, hex!("11 00 01 04 00000000"));
    let mut cut = Cut::new(gso, &packet, 1400).unwrap();
    let mut room = [0; 88];
    for _ in 0..2 {
        assert_eq!(cut.write_next(&mut room), Some(88));
        assert_eq!(at(&room, 4), 48);
        assert_eq!(room[40..48], hex!("11 00 01 04 00000000"));
        assert_eq!(at(&room, 52), 40);
        let upper = [&room[8..40], &[0, 17, 0, 40], &room[48..]].concat();
        assert_eq!(slow_sum(&upper), 0xffff);
    }
    assert_eq!(cut.next_len(), None);
    let malformed = Err(Uncut::Bad(BadOffload::Malformed));
    let packet = behind(43, hex!("11 00 00 01 00000000"));
    assert_eq!(Cut::new(gso, &packet, 1400).map(|_| ()), malformed);
    let packet = behind(43, hex!("11 00 00 00 00000000"));
    assert!(Cut::new(gso, &packet, 1400).is_ok(), "the last station");
}

#[test]
fn a_partial_checksum_is_completed() {
    for (is_v4, is_tcp) in [(true, true), (false, true), (true, false), (false, false)] {
        let mut flow = Flow::new(is_v4, is_tcp, 0);
        let right = flow.packet(b"some payload of odd length.", ACK);
        let start = transport_at(&right);
        let field = checksum_at(&right);
        let mut packet = right.clone();
        // As the kernel hands it over: the pseudo-header's sum, not inverted.
        put(&mut packet, field, 0);
        let (behind, len) = (slow_sum(&packet[start..]), packet.len());
        let pseudo =
            slow_sum(&[(!behind).to_be_bytes(), upper_sum(&packet).to_be_bytes()].concat());
        put(&mut packet, field, pseudo);
        let checksum = PartialChecksum {
            start: start as u16,
            offset: (field - start) as u16,
        };
        checksum.complete(&mut packet).unwrap();
        assert_eq!(packet.len(), len);
        assert_eq!(packet, right);
    }
}
