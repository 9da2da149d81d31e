//! Cutting what may be cut, put together again.

use datapath::ip::fragment::{self, Unsplit};
use datapath::ip::packet::Packet;
use hex_literal::hex;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

use crate::packet::{a6, finish_v4, v4, v6};
use crate::rfc1071::slow_sum;

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
