//! What clients do each in their own way: when their network protocols start, and what they say that
//! nobody asked.

use hex_literal::hex;

use super::*;

fn pair_of(client: AuthenticateeConfig) -> Pair {
    let mut pair = Pair::new(server_config(&[AuthMethod::MsChapV2]), client);
    pair.up();
    pair.run(Duration::from_secs(10));
    pair
}

/// When the client asked first for IPCP and IPV6CP, as places in all that was sent.
fn first_requests(pair: &Pair) -> [usize; 2] {
    [&hex!("ff03802101")[..], &hex!("ff03805701")].map(|head| {
        let mut frames = pair.trace.iter();
        let is_it = |(_, side, frame): &(Instant, Side, Vec<u8>)| {
            *side == Side::Client && frame.starts_with(head)
        };
        frames.position(is_it).unwrap()
    })
}

#[test]
fn network_protocols_start_in_the_order_asked_for() {
    for network_order in [
        NetworkOrder::Ipv6First,
        NetworkOrder::Ipv4First,
        NetworkOrder::Ipv6Later,
    ] {
        let pair = pair_of(AuthenticateeConfig {
            network_order,
            ..client_config(AuthMethod::MsChapV2, PASSWORD)
        });
        assert!(pair.client.admits(frame::IPV4) && pair.client.admits(frame::IPV6));
        assert!(pair.server.admits(frame::IPV4) && pair.server.admits(frame::IPV6));
        let [ipcp, ipv6cp] = first_requests(&pair);
        assert_eq!(ipv6cp < ipcp, network_order == NetworkOrder::Ipv6First);
        let ipcp_opened = pair
            .trace
            .iter()
            .position(|(_, side, frame)| {
                *side == Side::Server && frame.starts_with(&hex!("ff03802102"))
            })
            .unwrap();
        assert_eq!(
            ipv6cp > ipcp_opened,
            network_order == NetworkOrder::Ipv6Later
        );
    }
}

#[test]
fn ipv6_that_waits_comes_though_there_is_no_ipv4() {
    let client = AuthenticateeConfig {
        network_order: NetworkOrder::Ipv6Later,
        ..client_config(AuthMethod::MsChapV2, PASSWORD)
    };
    let mut pair = Pair::new(server_config(&[AuthMethod::MsChapV2]), client);
    pair.assignment.ipv4 = None;
    pair.up();
    pair.run(Duration::from_secs(10));
    assert!(!pair.client.admits(frame::IPV4) && pair.client.admits(frame::IPV6));

    let alone = pair_of(AuthenticateeConfig {
        network_order: NetworkOrder::Ipv6Later,
        ipv4: false,
        ..client_config(AuthMethod::MsChapV2, PASSWORD)
    });
    assert!(alone.client.admits(frame::IPV6));
}

#[test]
fn a_client_identifies_itself_and_asks_for_compression_that_it_does_not_get() {
    let pair = pair_of(AuthenticateeConfig {
        identifications: &[b"MSRASV5.20", b"MSRAS-0-HOST"],
        ccp: Some(&hex!("120601000001")),
        ..client_config(AuthMethod::MsChapV2, PASSWORD)
    });
    let heard: Vec<&[u8]> = pair
        .server_events
        .iter()
        .filter_map(|event| match event {
            Event::PeerIdentification(text) => Some(&text[..]),
            _ => None,
        })
        .collect();
    assert_eq!(heard, [&b"MSRASV5.20"[..], b"MSRAS-0-HOST"]);
    let asked = pair.sent(Side::Client, &hex!("ff0380fd"));
    let asked: Vec<&[u8]> = asked.iter().map(|(_, frame)| *frame).collect();
    assert_eq!(asked, [hex!("ff0380fd 0101000a 120601000001")]);
    let rejected = pair.sent(Side::Server, &hex!("ff03c02108"));
    assert_eq!(rejected.len(), 1, "by a Protocol-Reject");
    assert_eq!((pair.client_closed(), pair.server_closed()), (None, None));
    assert!(pair.client.admits(frame::IPV4) && pair.client.admits(frame::IPV6));
}
