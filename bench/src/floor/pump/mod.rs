//! `pump`: the whole path in one thread, each direction in its variants; and what of it is neither TUN
//! nor socket.

mod down;
mod up;

use std::io;

use datapath::ip::checksum;
use datapath::sys::copy_and_sum;

use super::Figure;
use super::rig::{CLIENT, Rig};
use super::traffic::{self, Direction, IMIX, Kind};

/// What precedes each packet in a record: SSTP data packet (MS-SSTP §2.2.3), PPP frame with IPv4.
const PREFIX_LEN: usize = 8;

/// Records of a send: 64 KB.
const RECORDS: usize = 4;

/// Packets of a burst of the mix: as many as of the others, about, and the mix whole.
const MIX_COUNT: usize = 21 * IMIX.len();

fn prefix(packet_len: usize) -> [u8; PREFIX_LEN] {
    let len = u16::try_from(PREFIX_LEN + packet_len).expect("at most 4095 bytes");
    let [high, low] = len.to_be_bytes();
    [0x10, 0, high, low, 0xff, 0x03, 0x00, 0x21]
}

/// The length of the packet behind the prefix that `bytes` start with.
fn packet_len(bytes: &[u8]) -> io::Result<usize> {
    match bytes.first_chunk() {
        Some(&[0x10, 0, high, low, 0xff, 0x03, 0x00, 0x21]) => {
            Ok(usize::from(u16::from_be_bytes([high, low])) - PREFIX_LEN)
        }
        _ => Err(io::Error::other("a packet that nobody sent")),
    }
}

pub(super) fn figures(rig: &Rig, receiver_cpu: usize) -> io::Result<Vec<Box<dyn Figure + '_>>> {
    let mut figures: Vec<Box<dyn Figure>> = Vec::new();
    let tcp = traffic::packets(Kind::Tcp, Direction::Downlink, 1400, 48 * 8);
    let superpackets = traffic::merged(&tcp);
    for (name, copy_and_sum) in [
        ("pump/cut+frame+seal tcp", copy_and_sum::fastest()),
        ("pump/cut+frame+seal tcp, scalar", checksum::copy_and_sum),
    ] {
        let crypt = down::Crypt::new(name, &superpackets, copy_and_sum);
        figures.push(Box::new(crypt));
    }
    let flows = |direction, len| traffic::packets(Kind::UdpFlows, direction, len, 256);
    let mix = |direction| traffic::mixed_of(CLIENT, Kind::UdpFlows, direction, &IMIX, MIX_COUNT);
    for (name, writes, packets, records) in [
        ("pump/down tcp", superpackets.clone(), tcp.len(), RECORDS),
        ("pump/down tcp, 16 KB sends", superpackets, tcp.len(), 1),
        (
            "pump/down udp/1400",
            traffic::plain(&flows(Direction::Downlink, 1400)),
            256,
            RECORDS,
        ),
        (
            "pump/down udp/512",
            traffic::plain(&flows(Direction::Downlink, 512)),
            256,
            RECORDS,
        ),
        (
            "pump/down udp/64",
            traffic::plain(&flows(Direction::Downlink, 64)),
            256,
            RECORDS,
        ),
        (
            "pump/down udp/imix",
            traffic::plain(&mix(Direction::Downlink)),
            MIX_COUNT,
            RECORDS,
        ),
    ] {
        let down = down::Down::new(name, rig, writes, packets, records, receiver_cpu)?;
        figures.push(Box::new(down));
    }
    let tcp = traffic::packets(Kind::Tcp, Direction::Uplink, 1400, 48 * 8);
    let udp = traffic::packets(Kind::UdpFlow, Direction::Uplink, 1400, 47 * 8);
    figures.push(Box::new(up::Crypt::new("pump/open+merge tcp", &tcp)));
    for (name, packets, is_packed) in [
        ("pump/up tcp, packed records", tcp.clone(), true),
        ("pump/up tcp, record a packet", tcp, false),
        ("pump/up udp one flow/1400", udp, true),
        ("pump/up udp/1400", flows(Direction::Uplink, 1400), true),
        ("pump/up udp/512", flows(Direction::Uplink, 512), true),
        ("pump/up udp/64", flows(Direction::Uplink, 64), true),
        ("pump/up udp/imix", mix(Direction::Uplink), true),
    ] {
        figures.push(Box::new(up::Up::new(name, rig, &packets, is_packed)?));
    }
    Ok(figures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_what_the_product_writes() {
        let mut header = [0; 4];
        let frame_len = 1400 + datapath::ppp::frame::HEADER_LEN;
        datapath::sstp::packet::write_data_header(&mut header, frame_len).unwrap();
        let frame = datapath::ppp::frame::header(datapath::ppp::frame::IPV4);
        assert_eq!(prefix(1400).as_slice(), [header, frame].concat());
        assert_eq!(packet_len(&prefix(1400)).unwrap(), 1400);
        assert!(packet_len(&[0x10, 1, 0, 8]).is_err());
    }
}
