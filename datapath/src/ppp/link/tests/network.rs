//! IPCP and IPV6CP: what is given and taken, when they speak, and what ends with them.

use super::*;
use hex_literal::hex;

fn ipcp(code: u8, id: u8, options: &[u8]) -> Vec<u8> {
    control_frame(frame::IPCP, code, id, options)
}

fn ipv6cp(code: u8, id: u8, options: &[u8]) -> Vec<u8> {
    control_frame(frame::IPV6CP, code, id, options)
}

fn server() -> Solo {
    Solo::assigned(AuthenticatorConfig::default())
}

/// Answers the request in `frames`.
fn acknowledge(solo: &mut Solo, request: &[u8]) -> Vec<Vec<u8>> {
    let mut ack = request.to_vec();
    assert_eq!(ack[4], 1);
    ack[4] = 2;
    solo.hear(&ack)
}

#[test]
fn each_persona_gets_its_addresses() {
    let nbns = Some(Ipv4Addr::new(10, 0, 0, 53));
    for persona in [
        Persona::Plain,
        Persona::Windows,
        Persona::Pppd,
        Persona::OpenSstp,
    ] {
        for with_nbns in [false, true] {
            let client = AuthenticateeConfig {
                persona,
                ..client_config(AuthMethod::MsChapV2, PASSWORD)
            };
            let mut pair = Pair::new(server_config(&[AuthMethod::MsChapV2]), client);
            let mut given = assignment().ipv4.unwrap();
            if with_nbns {
                given.nbns = [nbns, None];
            }
            pair.assignment.ipv4 = Some(given);
            pair.up();
            pair.run(Duration::from_secs(3));
            let mut dns = given.dns;
            if persona == Persona::OpenSstp {
                dns[1] = None;
            }
            let asks_nbns = persona == Persona::Windows && with_nbns;
            let opened = Event::Ipv4Opened {
                local: ip(5),
                peer: ip(1),
                dns,
                nbns: [nbns.filter(|_| asks_nbns), None],
            };
            assert!(
                pair.client_events.contains(&opened),
                "{persona:?} {:?}",
                pair.client_events
            );
            let opened = Event::Ipv4Opened {
                local: ip(1),
                peer: ip(5),
                dns: given.dns,
                nbns: given.nbns,
            };
            assert!(pair.server_events.contains(&opened), "{persona:?}");
            assert!(pair.server.admits(frame::IPV6) && pair.client.admits(frame::IPV6));
            let expected = if persona == Persona::Windows {
                4087
            } else {
                1500
            };
            assert_eq!(frame::send_mru(pair.server.peer_mru()), expected);
            assert_eq!(pair.server.send_mtu(), 1400);
            assert_eq!(pair.client.send_mtu(), 1500);
        }
    }
}

#[test]
fn ipcp_requests_and_answers() {
    let with_nbns = |options: &[u8]| (options.to_vec(), true);
    let without = |options: &[u8]| (options.to_vec(), false);
    for ((asks, nbns), code, answer) in [
        (without(&hex!("03060a080005")), 2, &hex!("03060a080005")[..]),
        (without(&hex!("030600000000")), 3, &hex!("03060a080005")),
        (without(&hex!("0306c0a80001")), 3, &hex!("03060a080005")),
        (
            without(&hex!(
                "030600000000 810600000000 820600000000 830600000000 840600000000"
            )),
            4,
            &hex!("820600000000 840600000000"),
        ),
        (
            with_nbns(&hex!("030600000000 820600000000 840600000000")),
            4,
            &hex!("840600000000"),
        ),
        (
            with_nbns(&hex!("03060a080005 820600000000")),
            3,
            &hex!("82060a000035"),
        ),
        (
            without(&hex!("030600000000 810600000000 830600000000")),
            3,
            &hex!("03060a080005 810609090909 830601010101"),
        ),
        (
            without(&hex!("030600000000 0206002d0f01")),
            4,
            &hex!("0206002d0f01"),
        ),
        (
            without(&hex!("010a0000000000000000")),
            4,
            &hex!("010a0000000000000000"),
        ),
        (without(&hex!("0305000000")), 4, &hex!("0305000000")),
        (without(&[]), 3, &hex!("03060a080005")),
    ] {
        let mut server = Solo::accepted(AuthenticatorConfig::default());
        let mut given = assignment();
        if nbns && let Some(ipv4) = &mut given.ipv4 {
            ipv4.nbns[0] = Some(Ipv4Addr::new(10, 0, 0, 53));
        }
        server.assign(given);
        let sent = server.hear(&ipcp(1, 9, &asks));
        assert_eq!(
            sent[0],
            ipcp(1, 1, &hex!("03060a080001")),
            "its own address alone"
        );
        assert_eq!(sent[1], ipcp(code, 9, answer), "{asks:02x?}");
    }
}

#[test]
fn an_address_is_demanded_once() {
    let mut server = server();
    server.hear(&ipcp(1, 1, &[]));
    let sent = server.hear(&ipcp(1, 2, &[]));
    assert_eq!(sent[0][4], 5, "Terminate-Request of IPCP");
    assert!(sent[0].starts_with(&frame::header(frame::IPCP)));
    assert!(!server.link.admits(frame::IPV4));
    assert_eq!(server.link.phase(), Phase::Network, "IPv6 may still come");
}

#[test]
fn a_gateway_address_that_the_peer_will_not_have_is_left_out() {
    for (code, options) in [(3, hex!("0306c0a80001")), (4, hex!("03060a080001"))] {
        let mut server = server();
        let id = server.hear(&ipcp(1, 1, &hex!("03060a080005")))[0][5];
        let sent = server.hear(&ipcp(code, id, &options));
        assert_eq!(sent, [ipcp(1, id + 1, &[])]);
        acknowledge(&mut server, &sent[0]);
        assert!(server.link.admits(frame::IPV4));
    }
}

#[test]
fn ipv6_identifiers() {
    for (asks, assigned, code, exact) in [
        (&hex!("010a0000000000000002")[..], None, 2, true),
        (&hex!("010a0000000000000000"), None, 3, false),
        (&hex!("010a0000000000000001"), None, 3, false),
        (&hex!("010a0000000000000002"), Some(7), 3, true),
        (&hex!("010a0000000000000007"), Some(7), 2, true),
        (&hex!("02040000"), None, 4, true),
        (&[], None, 3, false),
    ] {
        let mut server = Solo::accepted(AuthenticatorConfig::default());
        server.assign(Assignment {
            ipv6: Some(Ipv6Assignment {
                gateway_id: 1,
                client_id: assigned,
            }),
            ..assignment()
        });
        let sent = server.hear(&ipv6cp(1, 9, asks));
        assert_eq!(sent[0], ipv6cp(1, 1, &hex!("010a0000000000000001")));
        assert_eq!(sent[1][4], code, "{asks:02x?}");
        match (code, assigned) {
            (3, Some(assigned)) => {
                assert_eq!(sent[1][10..], u64::to_be_bytes(assigned));
            }
            (3, None) => {
                let suggested = u64::from_be_bytes(sent[1][10..18].try_into().unwrap());
                assert!(suggested > 1, "neither zero nor ours");
            }
            _ => assert_eq!(sent[1][8..], *asks),
        }
        assert!(exact || code == 3);
    }
}

#[test]
fn our_own_request_waits_for_the_clients_or_half_a_second() {
    let mut server = server();
    let sent = server.wait(millis(600));
    assert_eq!(sent.len(), 2);
    assert!(
        sent.iter()
            .all(|(at, frame)| *at == millis(500) && frame[4] == 1)
    );
}

#[test]
fn a_request_that_comes_before_the_assignment_is_not_lost() {
    let mut server = Solo::accepted(AuthenticatorConfig::default());
    assert!(server.hear(&ipcp(1, 3, &hex!("030600000000"))).is_empty());
    assert!(
        server
            .hear(&ipv6cp(1, 4, &hex!("010a0000000000000002")))
            .is_empty()
    );
    assert!(
        server.hear(&ipcp(5, 9, &[])).is_empty(),
        "only requests are kept"
    );
    let sent = server.assign(assignment());
    assert_eq!(sent.len(), 4);
    assert_eq!(sent[1], ipv6cp(2, 4, &hex!("010a0000000000000002")));
    assert_eq!(sent[3], ipcp(3, 3, &hex!("03060a080005")));
    assert!(server.assign(assignment()).is_empty(), "assigned once");
}

#[test]
fn packets_pass_only_while_their_protocol_is_open() {
    let mut server = server();
    let request = server.hear(&ipcp(1, 1, &hex!("03060a080005"))).remove(0);
    assert!(!server.link.admits(frame::IPV4), "half open");
    acknowledge(&mut server, &request);
    assert!(server.link.admits(frame::IPV4));
    assert!(!server.link.admits(frame::IPV6));
    assert!(!server.link.admits(0x002d));
    server.news();
    // The client closes IPCP; the link stays for IPv6, for a while.
    let sent = server.hear(&ipcp(5, 9, &[]));
    assert_eq!(sent, [ipcp(6, 9, &[])]);
    assert!(!server.link.admits(frame::IPV4));
    assert_eq!(server.news(), [Event::Ipv4Closed]);
    assert_eq!(server.link.phase(), Phase::Network);
    server.wait(Duration::from_secs(40));
    assert_eq!(closed(&server.events), Some(CloseReason::NoNetworkProtocol));
}

#[test]
fn a_protocol_that_stays_silent_does_not_end_the_link() {
    // Open SSTP Client ignores IPV6CP when IPv6 is off.
    let client = AuthenticateeConfig {
        persona: Persona::OpenSstp,
        ..client_config(AuthMethod::Pap, PASSWORD)
    };
    let mut pair = Pair::new(server_config(&[AuthMethod::Pap]), client);
    pair.loses = |side, frame| {
        side == Side::Server && frame.starts_with(&frame::header(frame::IPV6CP))
            || side == Side::Client && frame.starts_with(&frame::header(frame::IPV6CP))
    };
    pair.up();
    pair.run(Duration::from_secs(300));
    assert_eq!(pair.server_closed(), None);
    assert!(pair.server.admits(frame::IPV4) && !pair.server.admits(frame::IPV6));
    let requests = pair.sent(Side::Server, &hex!("ff03805701"));
    assert_eq!(requests.len(), 10, "Max-Configure");
}

#[test]
fn without_any_network_protocol_the_link_ends() {
    let mut server = server();
    server.wait(Duration::from_secs(40));
    assert_eq!(closed(&server.events), Some(CloseReason::NoNetworkProtocol));

    let mut server = Solo::accepted(AuthenticatorConfig::default());
    server.wait(Duration::from_secs(40));
    let reason = CloseReason::Timeout(Phase::Network);
    assert_eq!(
        closed(&server.events),
        Some(reason),
        "the owner never assigned"
    );

    let mut server = Solo::accepted(AuthenticatorConfig::default());
    let sent = server.assign(Assignment::default());
    assert_eq!(sent[0][8..], *b"no network protocol");

    // Both rejected.
    let mut server = Solo::assigned(AuthenticatorConfig::default());
    server.wait(millis(500));
    server.hear(&control_frame(frame::LCP, 8, 1, &hex!("8021 01010004")));
    assert_eq!(server.link.phase(), Phase::Network);
    server.hear(&control_frame(frame::LCP, 8, 2, &hex!("8057 01010004")));
    assert_eq!(server.link.phase(), Phase::Terminate);
}

#[test]
fn ccp_is_rejected_but_never_early() {
    let ccp = control_frame(frame::CCP, 1, 4, &hex!("120601000001"));
    let mut server = Solo::server(server_config(&[AuthMethod::Pap]));
    server.open_lcp();
    assert!(server.hear(&ccp).is_empty());
    let mut server = Solo::accepted(AuthenticatorConfig::default());
    let sent = server.hear(&ccp);
    assert_eq!(
        sent,
        [hex!("ff03c021 08020010 80fd 0104000a120601000001").to_vec()]
    );
    for data in [0x0021, 0x0057, 0x002d, 0x00fd] {
        assert!(
            server.hear(&control_frame(data, 1, 1, &[])).is_empty(),
            "data, not a question"
        );
    }
    assert_eq!(
        server.hear(&control_frame(0xc025, 1, 1, &[])).len(),
        1,
        "quality reports"
    );
}

#[test]
fn a_family_that_is_off_is_rejected_for_good() {
    let mut server = Solo::accepted(AuthenticatorConfig {
        ipv6: false,
        ..AuthenticatorConfig::default()
    });
    server.assign(assignment());
    let sent = server.hear(&ipv6cp(1, 1, &hex!("010a0000000000000002")));
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0][..5], hex!("ff03c021 08"));
    assert_eq!(sent[0][8..10], hex!("8057"));
}

#[test]
fn a_client_without_an_address_is_not_open() {
    let client = client_config(AuthMethod::Pap, PASSWORD);
    let mut client = Solo::client(AuthenticateeConfig {
        ipv6: false,
        ..client
    });
    let request = client.up().remove(0);
    client.hear(&control_frame(frame::LCP, 1, 1, &hex!("0304c023")));
    acknowledge(&mut client, &request);
    let request = client.hear(&control_frame(frame::PAP, 2, 1, &[])).remove(0);
    assert_eq!(
        request,
        ipcp(1, 1, &hex!("030600000000 810600000000 830600000000"))
    );
    client.hear(&ipcp(1, 1, &hex!("03060a080001")));
    let sent = acknowledge(&mut client, &request);
    assert_eq!(sent[0][4], 5, "0.0.0.0 is no address");
    assert!(!client.link.admits(frame::IPV4));
    client.wait(Duration::from_secs(10));
    assert_eq!(closed(&client.events), Some(CloseReason::NoNetworkProtocol));
    assert!(
        !client
            .events
            .iter()
            .any(|event| matches!(event, Event::Ipv4Opened { .. }))
    );
}
