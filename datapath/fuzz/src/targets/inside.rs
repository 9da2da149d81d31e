//! Packets of users: views, source check, clamp, answers; and the services inside the tunnel.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use datapath::ip::packet::Packet;
use datapath::ip::source::SourceCheck;
use datapath::ip::{checksum, fragment, icmp, mss};
use datapath::output::Collected;
use datapath::services::{Ipv4Service, Ipv6Service, Profile, ProfileConfig, Services};
use datapath::time::{Duration, Instant};

use super::{Input, Seeded};

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const PREFIX: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x77, 0, 2, 0, 0, 0, 0);

/// One packet from a client: what is accepted has the right source; what is changed stays whole.
pub fn inner_packet(bytes: &[u8]) {
    let Some((&selector, packet)) = bytes.split_first() else {
        return;
    };
    let mtu = 576 + u16::from(selector) * 8;
    let check = SourceCheck::new(Some(CLIENT), Some((PREFIX, 64)), Some(2));
    let parsed = Packet::parse(packet);
    if let Ok(accepted) = check.check(packet) {
        let view = parsed.expect("what passes the check is a packet");
        assert_eq!(accepted.len, view.bytes().len());
        match view {
            Packet::V4(view) => assert_eq!(view.source(), CLIENT),
            Packet::V6(view) => assert!(
                view.source().segments()[..4] == PREFIX.segments()[..4]
                    || view.source().segments()[0] == 0xfe80
                    || view.source().is_unspecified()
            ),
        }
    }
    let mut clamped = packet.to_vec();
    mss::clamp(&mut clamped, mtu);
    let again = clamped.clone();
    mss::clamp(&mut clamped, mtu);
    assert_eq!(clamped, again, "a clamped packet needs no clamping");
    assert_eq!(
        Packet::parse(&clamped).map(|view| view.bytes().len()),
        parsed.map(|view| view.bytes().len())
    );

    let gateway = icmp::Gateway {
        v4: Some(GATEWAY),
        v6: Some(PREFIX),
    };
    let mut room = [0; 1500];
    if let Some(len) = icmp::too_big(packet, mtu, &gateway, &mut room) {
        Packet::parse(&room[..len]).expect("our own answer");
    }
    let mut payload_len = 0;
    let split = fragment::split(packet, mtu, |header, payload| {
        assert!(header.len() + payload.len() <= usize::from(mtu).max(packet.len()));
        payload_len += payload.len();
    });
    if let (Ok(_), Ok(Packet::V4(view))) = (split, &parsed) {
        assert_eq!(
            payload_len,
            view.payload().len(),
            "nothing is lost in fragments"
        );
    }
}

/// DHCP, router and neighbour discovery, DHCPv6: raw packets, and payloads behind right headers.
pub fn dhcp(bytes: &[u8]) {
    let profile = ProfileConfig {
        dns_v4: vec![GATEWAY],
        domain: Some("inside.test".to_owned()),
        routes_v4: vec![(Ipv4Addr::new(198, 18, 0, 0), 15)],
        dns_v6: vec![PREFIX],
        ..ProfileConfig::default()
    };
    let mut services = Services::new(
        Arc::new(Profile::new(&profile).expect("a good profile")),
        1400,
    );
    let mut out = Collected::default();
    let mut now = Instant::ZERO;
    services.open_ipv4(Ipv4Service {
        client: CLIENT,
        gateway: GATEWAY,
    });
    services.open_ipv6(
        now,
        Ipv6Service {
            prefix: Some(PREFIX),
            gateway_id: 1,
        },
        &mut out,
    );
    let mut input = Input(bytes);
    while !input.is_empty() {
        let operation = input.u8();
        let body = input.chunk();
        let packet = match operation & 0x07 {
            0 => body.to_vec(),
            1 | 2 => udp_v4(
                body,
                if operation & 1 == 1 {
                    Ipv4Addr::BROADCAST
                } else {
                    GATEWAY
                },
            ),
            3 => v6(58, body, 2),
            4 => v6(17, &udp(546, 547, body), 0),
            5 => v6(58, &icmp_v6(133, body), 2),
            6 => v6(58, &icmp_v6(135, body), 2),
            _ => {
                now = now + Duration::from_secs(u64::from(operation));
                services.handle_timeout(now, &mut Seeded(5), &mut out);
                continue;
            }
        };
        services.handle_packet(now, &packet, &mut out);
        for sent in out.sent.drain(..) {
            let view = Packet::parse(&sent).expect("our own answer");
            assert!(view.bytes().len() == sent.len() && sent.len() <= 1400);
        }
        out.events.clear();
    }
}

fn udp(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(payload.len() + 8).unwrap_or(u16::MAX);
    let mut packet = Vec::new();
    for word in [source, destination, len, 0] {
        packet.extend_from_slice(&word.to_be_bytes());
    }
    packet.extend_from_slice(payload);
    packet
}

fn udp_v4(payload: &[u8], destination: Ipv4Addr) -> Vec<u8> {
    let udp = udp(68, 67, payload);
    let len = u16::try_from(udp.len() + 20)
        .unwrap_or(u16::MAX)
        .to_be_bytes();
    let mut packet = vec![0x45, 0, len[0], len[1], 0, 0, 0, 0, 64, 17, 0, 0];
    packet.extend_from_slice(&CLIENT.octets());
    packet.extend_from_slice(&destination.octets());
    let sum = checksum::of(&packet).to_be_bytes();
    packet[10..12].copy_from_slice(&sum);
    packet.extend_from_slice(&udp);
    packet
}

fn icmp_v6(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind, 0, 0, 0], body].concat()
}

/// Behind an IPv6 header, with the checksum at `payload[6]` (UDP) or `payload[2]` (ICMPv6) made right.
fn v6(next_header: u8, payload: &[u8], group: u8) -> Vec<u8> {
    let source = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);
    let destination = match group {
        0 => Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2),
        _ => Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2),
    };
    let mut payload = payload.to_vec();
    let at = if next_header == 17 { 6 } else { 2 };
    if payload.len() >= at + 2 {
        payload[at..at + 2].fill(0);
        let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let sum = checksum::pseudo_v6(source, destination, next_header, len).add_bytes(&payload);
        payload[at..at + 2].copy_from_slice(&sum.checksum().to_be_bytes());
    }
    let len = u16::try_from(payload.len())
        .unwrap_or(u16::MAX)
        .to_be_bytes();
    let mut packet = vec![0x60, 0, 0, 0, len[0], len[1], next_header, 255];
    packet.extend_from_slice(&source.octets());
    packet.extend_from_slice(&destination.octets());
    packet.extend_from_slice(&payload);
    packet
}
