//! Packets of one user, of every kind that takes its own way through a session.

use datapath::testing::fixtures::{self, GATEWAY};
use hex_literal::hex;

use crate::raw_client::{NUMBER, data_packet};

/// A TCP SYN with a MSS option over the MTU, so that it is clamped.
fn syn() -> Vec<u8> {
    let mut packet = fixtures::udp([10, 8, 0, 5].into(), [192, 0, 2, 1].into(), &[0; 16]);
    packet[9] = 6;
    packet[10..12].fill(0);
    let sum = datapath::ip::checksum::of(&packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet[32..34].copy_from_slice(&[0x60, 0x02]);
    packet[40..44].copy_from_slice(&[2, 4, 0x20, 0x00]);
    packet
}

fn udp_v6() -> Vec<u8> {
    let prefix = fixtures::policy(NUMBER).ipv6.unwrap().prefix.unwrap();
    let mut packet = vec![0x60, 0, 0, 0, 0, 108, 17, 64];
    packet.extend(prefix.octets());
    packet.extend([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    packet.extend([0x10, 0, 0x20, 0, 0, 108, 0x12, 0x34]);
    packet.extend([7; 100]);
    packet
}

/// What one user sends in a while: small, large, IPv6, a SYN, one with a foreign source, a ping.
pub(crate) fn uplink_mix() -> Vec<Vec<u8>> {
    let client = fixtures::policy(NUMBER).ipv4.unwrap().client;
    let outside = [192, 0, 2, 1].into();
    vec![
        fixtures::udp(client, outside, b"small"),
        fixtures::udp(client, outside, &[1; 1_372]),
        udp_v6(),
        syn(),
        fixtures::udp(client, outside, &[2; 500]),
        fixtures::udp([10, 9, 9, 9].into(), outside, b"forged"),
        fixtures::udp(client, GATEWAY, &[3; 64]),
        fixtures::udp(client, outside, &[4; 1_200]),
    ]
}

/// What comes for that user in a while, with packets over the MTU.
pub(crate) fn downlink_mix() -> Vec<Vec<u8>> {
    let client = fixtures::policy(NUMBER).ipv4.unwrap().client;
    let outside = [192, 0, 2, 1].into();
    let mut v6 = udp_v6();
    v6[8..40].rotate_left(16);
    let mut without_df = fixtures::udp(outside, client, &[5; 1_450]);
    without_df[6] = 0;
    vec![
        fixtures::udp(outside, client, b"small"),
        fixtures::udp(outside, client, &[1; 1_372]),
        v6,
        fixtures::udp(outside, client, &[2; 500]),
        // Over the MTU: one is answered with ICMP, one is cut.
        fixtures::udp(outside, client, &[6; 1_450]),
        without_df,
        fixtures::udp(outside, client, &[4; 1_200]),
    ]
}

/// What clients ask the gateway itself: DHCPINFORM, a Router Solicitation, a DHCPv6 request.
pub(crate) fn service_mix() -> Vec<Vec<u8>> {
    let client = fixtures::policy(NUMBER).ipv4.unwrap().client;
    let mut inform = hex!("01080600deadbeef00008000").to_vec();
    inform.extend(client.octets());
    inform.extend([0; 12]);
    inform.extend(hex!("005345000000"));
    inform.extend([0; 202]);
    inform.extend(hex!("63825363 350108 370406 0f79f9 ff"));
    let mut inform = fixtures::udp(client, [255; 4].into(), &inform);
    inform[20..24].copy_from_slice(&hex!("00440043"));

    // From the identifier that `Client::network` asks for.
    let from = hex!("fe800000000000000200000000000077");
    let v6 = |next: u8, hops: u8, to: [u8; 16], upper: &[u8], sum_at: usize| {
        let len = u8::try_from(upper.len()).unwrap();
        let mut upper = upper.to_vec();
        let pseudo = [&from[..], &to, &[0, 0, 0, len, 0, 0, 0, next], &upper].concat();
        let sum = datapath::ip::checksum::of(&pseudo);
        upper[sum_at..sum_at + 2].copy_from_slice(&sum.to_be_bytes());
        [&[0x60, 0, 0, 0, 0, len, next, hops], &from[..], &to, &upper].concat()
    };
    let routers = hex!("ff020000000000000000000000000002");
    let dhcp_servers = hex!("ff020000000000000000000000010002");
    let request = hex!("02220223001a 0000 0babcdef 00080002 0000 00060004 00170018");
    vec![
        inform,
        v6(58, 255, routers, &hex!("8500000000000000"), 2),
        v6(17, 1, dhcp_servers, &request, 6),
    ]
}

/// An SSTP stream of data packets.
pub(crate) fn stream_of(packets: &[Vec<u8>]) -> Vec<u8> {
    let packets = packets
        .iter()
        .map(|packet| data_packet(if packet[0] >> 4 == 6 { 0x57 } else { 0x21 }, packet));
    packets.collect::<Vec<_>>().concat()
}
