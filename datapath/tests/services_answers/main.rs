//! The services against hand-made requests; answers are read back without the code that made them.
#![expect(
    clippy::cast_possible_truncation,
    reason = "packets built here are short"
)]

mod bounds;
mod dhcp;
mod dhcpv6;
mod icmp6;
mod packet;
#[path = "../rfc1071/mod.rs"]
mod rfc1071;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use datapath::output::{Collected, Entropy};
use datapath::services::{
    Discard, Event, Handled, Ipv4Service, Ipv6Service, Profile, ProfileConfig, Services,
};
use datapath::time::Instant;
use hex_literal::hex;

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 2);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 1);
const ROUTES: [u8; 14] = hex!("08 0a 0a080001  18 c0a814 0a080001");
const MTU: u16 = 1400;
const START: Instant = Instant::from_nanos(5_000_000_000);

struct Counting(u32);

impl Entropy for Counting {
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *byte = (self.0 >> 24) as u8;
        }
    }
}

fn a6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

fn config() -> ProfileConfig {
    ProfileConfig {
        dns_v4: vec![Ipv4Addr::new(10, 8, 0, 53), Ipv4Addr::new(10, 8, 0, 54)],
        nbns: vec![Ipv4Addr::new(10, 8, 0, 7)],
        domain: Some("corp.example".to_owned()),
        search: vec!["corp.example".to_owned(), "lab.example".to_owned()],
        routes_v4: vec![
            (Ipv4Addr::new(10, 0, 0, 0), 8),
            (Ipv4Addr::new(192, 168, 20, 0), 24),
        ],
        dns_v6: vec![a6("2001:db8::53"), a6("2001:db8::54")],
        routes_v6: vec![
            (a6("2001:db8:a::"), 48),
            (a6("2001:db8:b::1"), 128),
            (a6("::"), 0),
        ],
        server_id: *b"0123456789abcdef",
        ..ProfileConfig::default()
    }
}

fn services_with(config: &ProfileConfig) -> Services {
    let profile = Arc::new(Profile::new(config).unwrap());
    let mut services = Services::new(profile, MTU);
    services.open_ipv4(Ipv4Service {
        client: CLIENT,
        gateway: GATEWAY,
    });
    let ipv6 = Ipv6Service {
        prefix: Some(a6("2001:db8:1:2::")),
        gateway_id: 1,
    };
    services.open_ipv6(START, ipv6, &mut Collected::default());
    services
}

fn services() -> Services {
    services_with(&config())
}

/// What became of `packet`: the one answer, or why there is none, or `None` for a packet passed.
fn ask_at(
    services: &mut Services,
    now: Instant,
    packet: &[u8],
) -> Option<Result<Vec<u8>, Discard>> {
    let mut out = Collected::default();
    let handled = services.handle_packet(now, packet, &mut out);
    match (handled, &out.events[..]) {
        (Handled::Pass, []) => {
            assert!(out.sent.is_empty());
            None
        }
        (Handled::Consumed, [Event::Discarded(why)]) => {
            assert!(out.sent.is_empty());
            Some(Err(*why))
        }
        (Handled::Consumed, [Event::Answered(_)]) => {
            assert_eq!(out.sent.len(), 1);
            Some(Ok(out.sent.remove(0)))
        }
        other => panic!("{other:?}"),
    }
}

fn ask(packet: &[u8]) -> Option<Result<Vec<u8>, Discard>> {
    ask_at(&mut services(), START, packet)
}

fn answer(packet: &[u8]) -> Vec<u8> {
    ask(packet).unwrap().unwrap()
}
