//! Golden bytes for PPP. One MS-CHAPv2 session as SSTP carries it, and packets of the other methods.
//! The cryptographic values are those of RFC 2759 §9.2; addresses, magic numbers and texts are
//! arbitrary. Each link is driven by one side of the transcript and has to produce the other.

use core::net::Ipv4Addr;
use core::time::Duration;

use datapath::crypto::hlak::Hlak;
use datapath::crypto::mschapv2;
use datapath::crypto::nt_hash::nt_password_hash;
use datapath::output::{Collected, Entropy};
use datapath::ppp::auth::{AuthMethod, Credentials, Verdict, eap_mschapv2};
use datapath::ppp::frame;
use datapath::ppp::link::{
    Assignment, AuthenticateeConfig, AuthenticatorConfig, Event, Ipv4Assignment, Ipv6Assignment,
    Link, Persona,
};
use datapath::time::Instant;
use hex_literal::hex;

const AUTHENTICATOR_CHALLENGE: [u8; 16] = hex!("5b5d7c7d7b3f2f3e3c2c602132262628");
const PEER_CHALLENGE: [u8; 16] = hex!("21402324255e262a28295f2b3a337c7e");
const NT_RESPONSE: [u8; 24] = hex!("82309ecd8d708b5ea08faa3981cd83544233114a3d85d6df");
const HLAK: [u8; 32] = hex!("d5f0e9521e3ea9589645e86051c822268b7cdc149b993a1ba118cb153f56dccb");

const CLIENT_LCP_REQUEST_0: &[u8] = &hex!("ff03c0210100001501040ffb0506a1b2c3d4070208020d0306");
const SERVER_LCP_REQUEST: &[u8] = &hex!("ff03c02101010013010405dc0305c22381050611223344");
const SERVER_LCP_REJECT: &[u8] = &hex!("ff03c0210400000b070208020d0306");
const CLIENT_LCP_ACK: &[u8] = &hex!("ff03c02102010013010405dc0305c22381050611223344");
const CLIENT_LCP_REQUEST_1: &[u8] = &hex!("ff03c0210101000e01040ffb0506a1b2c3d4");
const SERVER_LCP_ACK: &[u8] = &hex!("ff03c0210201000e01040ffb0506a1b2c3d4");
const CLIENT_IDENTIFICATION: &[u8] = &hex!("ff03c0210c020012a1b2c3d44d5352415356352e3230");
const SERVER_CHALLENGE: &[u8] = &hex!("ff03c22301010017105b5d7c7d7b3f2f3e3c2c6021322626286777");
const CLIENT_RESPONSE: &[u8] = &hex!(
    "ff03c2230201003a3121402324255e262a28295f2b3a337c7e0000000000000000"
    "82309ecd8d708b5ea08faa3981cd83544233114a3d85d6df0055736572"
);
const SERVER_SUCCESS: &[u8] = &hex!(
    "ff03c22303010033533d34303741353538393131354644304436323039463531304645394330343536363933"
    "324344413536204d3d4f4b"
);
const SERVER_FAILURE: &[u8] = &hex!(
    "ff03c2230401004c453d36393120523d3020433d354235443743374437423346324633453343324336303231"
    "333232363236323820563d33204d3d41757468656e7469636174696f6e206661696c6564"
);
const SERVER_IPCP_REQUEST: &[u8] = &hex!("ff0380210101000a03060a080001");
const CLIENT_IPCP_REQUEST_6: &[u8] =
    &hex!("ff03802101060022030600000000810600000000820600000000830600000000840600000000");
const SERVER_IPCP_REJECT: &[u8] = &hex!("ff03802104060010820600000000840600000000");
const CLIENT_IPCP_REQUEST_7: &[u8] = &hex!("ff03802101070016030600000000810600000000830600000000");
const SERVER_IPCP_NAK: &[u8] = &hex!("ff0380210307001603060a080005810609090909830601010101");
const CLIENT_CCP_REQUEST: &[u8] = &hex!("ff0380fd0104000a120601000001");
const SERVER_PROTOCOL_REJECT: &[u8] = &hex!("ff03c0210802001080fd0104000a120601000001");
const SERVER_IPV6CP_REQUEST: &[u8] = &hex!("ff0380570101000e010a0000000000000001");
const CLIENT_PAP_REQUEST: &[u8] = &hex!("ff03c0230101001404557365720a636c69656e7450617373");
const SERVER_PAP_ACK: &[u8] = &hex!("ff03c0230201000500");

const EAP_IDENTITY_REQUEST: &[u8] = &hex!("0100000501");
const EAP_IDENTITY_RESPONSE: &[u8] = &hex!("020000090155736572");
const EAP_CHALLENGE: &[u8] = &hex!("0101001c1a01010017105b5d7c7d7b3f2f3e3c2c6021322626286777");
const EAP_RESPONSE: &[u8] = &hex!(
    "0201003f1a0201003a3121402324255e262a28295f2b3a337c7e0000000000000000"
    "82309ecd8d708b5ea08faa3981cd83544233114a3d85d6df0055736572"
);
const EAP_SUCCESS_REQUEST: &[u8] = &hex!(
    "010200381a03010033533d34303741353538393131354644304436323039463531304645394330343536363933"
    "324344413536204d3d4f4b"
);
const EAP_SUCCESS_RESPONSE: &[u8] = &hex!("020200061a03");
const EAP_SUCCESS: &[u8] = &hex!("03020004");

/// Hands out what is written down, in order.
struct Script(Vec<u8>);

impl Script {
    fn new(parts: &[&[u8]]) -> Self {
        Self(parts.concat())
    }
}

impl Entropy for Script {
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            *byte = if self.0.is_empty() {
                0x5a
            } else {
                self.0.remove(0)
            };
        }
    }
}

struct Driven {
    now: Instant,
    link: Link,
    script: Script,
    events: Vec<Event>,
}

impl Driven {
    fn up(&mut self) -> Vec<Vec<u8>> {
        let mut out = Collected::default();
        self.link.up(self.now, &mut self.script, &mut out);
        self.events.extend(out.events);
        out.sent
    }

    fn hear(&mut self, payload: &[u8]) -> Vec<Vec<u8>> {
        let frame = frame::parse(payload).unwrap();
        let mut out = Collected::default();
        self.link.handle_frame(
            self.now,
            frame.protocol,
            frame.information,
            &mut self.script,
            &mut out,
        );
        self.events.extend(out.events);
        out.sent
    }

    fn wait(&mut self, length: Duration) -> Vec<Vec<u8>> {
        self.now = self.now + length;
        let mut out = Collected::default();
        self.link
            .handle_timeout(self.now, &mut self.script, &mut out);
        self.events.extend(out.events);
        out.sent
    }

    fn verdict(&mut self, verdict: Verdict) -> Vec<Vec<u8>> {
        let mut out = Collected::default();
        self.link
            .handle_verdict(self.now, verdict, &mut self.script, &mut out);
        self.events.extend(out.events);
        out.sent
    }

    fn last_credentials(&self) -> &Credentials {
        let credentials = self.events.iter().rev().find_map(|event| match event {
            Event::Authenticate(credentials) => Some(credentials),
            _ => None,
        });
        credentials.expect("the owner was asked")
    }
}

fn server(method: AuthMethod, script: &[&[u8]]) -> Driven {
    let mut script = Script::new(script);
    let config = AuthenticatorConfig {
        methods: vec![method],
        ..AuthenticatorConfig::default()
    };
    Driven {
        now: Instant::from_nanos(1),
        link: Link::authenticator(config, &mut script),
        script,
        events: Vec::new(),
    }
}

fn client(method: AuthMethod, script: &[&[u8]]) -> Driven {
    let mut script = Script::new(script);
    let config = AuthenticateeConfig {
        user: b"User".to_vec(),
        password: "clientPass".to_owned().into(),
        methods: vec![method],
        persona: Persona::Windows,
        ..AuthenticateeConfig::default()
    };
    Driven {
        now: Instant::from_nanos(1),
        link: Link::authenticatee(config, &mut script),
        script,
        events: Vec::new(),
    }
}

fn judge(credentials: &Credentials) -> Verdict {
    let Credentials::MsChapV2 {
        user,
        challenge,
        peer_challenge,
        nt_response,
        ..
    } = credentials
    else {
        panic!("MS-CHAPv2 was negotiated")
    };
    let verified = mschapv2::verify_nt_response(
        challenge,
        peer_challenge,
        user,
        &nt_password_hash("clientPass"),
        nt_response,
    );
    let verified = verified.expect("the password is right");
    Verdict::Accept {
        hlak: verified.hlak,
        message: [&verified.authenticator_response[..], b" M=OK"].concat(),
    }
}

fn open_lcp(server: &mut Driven) {
    assert!(server.up().is_empty());
    let sent = server.hear(CLIENT_LCP_REQUEST_0);
    // PFC and ACFC are acknowledged here, being without effect; the transcript's server rejects them.
    let reject = hex!("ff03c021040000070d0306");
    assert_eq!(sent, [SERVER_LCP_REQUEST, &reject]);
    assert!(server.hear(CLIENT_LCP_ACK).is_empty());
    assert_eq!(server.hear(CLIENT_LCP_REQUEST_1), [SERVER_LCP_ACK]);
    assert!(server.hear(CLIENT_IDENTIFICATION).is_empty());
}

#[test]
fn vectors_transcript_server() {
    let script: [&[u8]; 2] = [&hex!("11223344"), &AUTHENTICATOR_CHALLENGE];
    let mut server = server(AuthMethod::MsChapV2, &script);
    open_lcp(&mut server);
    assert_eq!(server.wait(Duration::from_millis(75)), [SERVER_CHALLENGE]);
    assert!(server.hear(CLIENT_RESPONSE).is_empty());
    let credentials = server.last_credentials().clone();
    let told = Credentials::MsChapV2 {
        user: b"User".to_vec(),
        identifier: 1,
        challenge: AUTHENTICATOR_CHALLENGE,
        peer_challenge: PEER_CHALLENGE,
        nt_response: NT_RESPONSE,
    };
    assert_eq!(credentials, told);
    assert_eq!(server.verdict(judge(&credentials)), [SERVER_SUCCESS]);
    let mut out = Collected::default();
    let assignment = Assignment {
        ipv4: Some(Ipv4Assignment {
            gateway: Ipv4Addr::new(10, 8, 0, 1),
            client: Ipv4Addr::new(10, 8, 0, 5),
            dns: [
                Some(Ipv4Addr::new(9, 9, 9, 9)),
                Some(Ipv4Addr::new(1, 1, 1, 1)),
            ],
            nbns: [None, None],
        }),
        ipv6: Some(Ipv6Assignment {
            gateway_id: 1,
            client_id: None,
        }),
        mtu: 0,
    };
    server
        .link
        .assign(server.now, assignment, &mut server.script, &mut out);
    assert!(out.sent.is_empty());
    let sent = server.hear(CLIENT_IPCP_REQUEST_6);
    assert_eq!(sent, [SERVER_IPCP_REQUEST, SERVER_IPCP_REJECT]);
    assert_eq!(server.hear(CLIENT_IPCP_REQUEST_7), [SERVER_IPCP_NAK]);
    assert_eq!(server.hear(CLIENT_CCP_REQUEST), [SERVER_PROTOCOL_REJECT]);
    assert_eq!(
        server.wait(Duration::from_millis(500)),
        [SERVER_IPV6CP_REQUEST]
    );
    let hlak = Hlak::from_bytes(HLAK);
    assert_eq!(
        server.events,
        [
            Event::LcpOpened,
            Event::PeerIdentification(b"MSRASV5.20".to_vec()),
            Event::Authenticate(told),
            Event::Authenticated { hlak },
        ]
    );
    assert_eq!(server.link.peer_mru(), 4091);
    assert_eq!(server.link.send_mtu(), 4087);
}

#[test]
fn vectors_transcript_client() {
    let script: [&[u8]; 2] = [&hex!("a1b2c3d4"), &PEER_CHALLENGE];
    let mut client = client(AuthMethod::MsChapV2, &script);
    assert_eq!(client.up(), [CLIENT_LCP_REQUEST_0]);
    assert_eq!(client.hear(SERVER_LCP_REQUEST), [CLIENT_LCP_ACK]);
    assert_eq!(client.hear(SERVER_LCP_REJECT), [CLIENT_LCP_REQUEST_1]);
    assert!(client.hear(SERVER_LCP_ACK).is_empty());
    assert_eq!(client.hear(SERVER_CHALLENGE), [CLIENT_RESPONSE]);
    let sent = client.hear(SERVER_SUCCESS);
    // IPV6CP, then IPCP, as Windows; identifiers start at 1 here.
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[0][..4], frame::header(frame::IPV6CP));
    assert_eq!(with_identifier(&sent[1], 6), CLIENT_IPCP_REQUEST_6);
    let id = sent[1][5];
    let sent = client.hear(&with_identifier(SERVER_IPCP_REJECT, id));
    assert_eq!(with_identifier(&sent[0], 7), CLIENT_IPCP_REQUEST_7);
    let nak = with_identifier(SERVER_IPCP_NAK, sent[0][5]);
    let sent = client.hear(&nak);
    let asked = hex!("03060a080005 810609090909 830601010101");
    assert_eq!(sent[0][8..], asked);
    let mut ack = sent[0].clone();
    ack[4] = 2;
    client.hear(&ack);
    client.hear(SERVER_IPCP_REQUEST);
    let hlak = Hlak::from_bytes(HLAK);
    assert_eq!(
        client.events,
        [
            Event::LcpOpened,
            Event::Authenticated { hlak },
            Event::Ipv4Opened {
                local: Ipv4Addr::new(10, 8, 0, 5),
                peer: Ipv4Addr::new(10, 8, 0, 1),
                dns: [
                    Some(Ipv4Addr::new(9, 9, 9, 9)),
                    Some(Ipv4Addr::new(1, 1, 1, 1))
                ],
                nbns: [None, None],
            },
        ]
    );
}

fn with_identifier(frame: &[u8], identifier: u8) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[5] = identifier;
    frame
}

#[test]
fn vectors_chap_failure() {
    // The challenge in a Failure is fresh; here the script says the same bytes again.
    let script: [&[u8]; 3] = [
        &hex!("11223344"),
        &AUTHENTICATOR_CHALLENGE,
        &AUTHENTICATOR_CHALLENGE,
    ];
    let mut server = server(AuthMethod::MsChapV2, &script);
    open_lcp(&mut server);
    server.wait(Duration::from_millis(75));
    server.hear(CLIENT_RESPONSE);
    let reject = Verdict::Reject {
        error: 691,
        message: Vec::new(),
        eap: None,
    };
    assert_eq!(server.verdict(reject), [SERVER_FAILURE]);
}

fn reach_authentication(client: &mut Driven, method: AuthMethod) -> Vec<Vec<u8>> {
    let request = client.up().remove(0);
    let value = method.option_value();
    let len = u8::try_from(value.len()).unwrap();
    let asks = [&hex!("ff03c021 0101 00")[..], &[len + 6, 3, len + 2], value].concat();
    assert_eq!(client.hear(&asks)[0][4], 2);
    let mut ack = request;
    ack[4] = 2;
    client.hear(&ack)
}

#[test]
fn vectors_pap() {
    let mut client = client(AuthMethod::Pap, &[]);
    let sent = reach_authentication(&mut client, AuthMethod::Pap);
    assert_eq!(sent, [CLIENT_PAP_REQUEST]);
    client.hear(SERVER_PAP_ACK);
    let hlak = Hlak::ZERO;
    assert!(client.events.contains(&Event::Authenticated { hlak }));

    let mut server = server(AuthMethod::Pap, &[]);
    server.up();
    let mut ack = server.hear(&hex!("ff03c02101010004")).remove(0);
    ack[4] = 2;
    server.hear(&ack);
    server.hear(CLIENT_PAP_REQUEST);
    let accept = Verdict::Accept {
        hlak: Hlak::ZERO,
        message: Vec::new(),
    };
    assert_eq!(server.verdict(accept), [SERVER_PAP_ACK]);
}

#[test]
fn vectors_chap_md5() {
    let mut client = client(AuthMethod::ChapMd5, &[]);
    reach_authentication(&mut client, AuthMethod::ChapMd5);
    let sent = client.hear(&hex!(
        "ff03c223 01160017 10 000102030405060708090a0b0c0d0e0f 6777"
    ));
    let response = hex!("ff03c223 02160019 10 38c2daa052a6a8c6a18baf443b779c7b 55736572");
    assert_eq!(sent, [response]);
}

fn eap_frame(packet: &[u8]) -> Vec<u8> {
    [&frame::header(frame::EAP), packet].concat()
}

#[test]
fn vectors_eap_client() {
    let script: [&[u8]; 2] = [&hex!("a1b2c3d4"), &PEER_CHALLENGE];
    let mut client = client(AuthMethod::Eap, &script);
    reach_authentication(&mut client, AuthMethod::Eap);
    for (request, response) in [
        (EAP_IDENTITY_REQUEST, EAP_IDENTITY_RESPONSE),
        (EAP_CHALLENGE, EAP_RESPONSE),
        (EAP_SUCCESS_REQUEST, EAP_SUCCESS_RESPONSE),
    ] {
        assert_eq!(client.hear(&eap_frame(request)), [eap_frame(response)]);
        assert_eq!(
            client.hear(&eap_frame(request)),
            [eap_frame(response)],
            "repeated"
        );
    }
    let hlak = Hlak::from_bytes(HLAK);
    let authenticated = Event::Authenticated { hlak };
    assert!(
        !client.events.contains(&authenticated),
        "not before EAP-Success"
    );
    client.hear(&eap_frame(EAP_SUCCESS));
    assert!(client.events.contains(&authenticated));
}

#[test]
fn vectors_eap_server_and_its_local_authenticator() {
    let mut server = server(AuthMethod::Eap, &[]);
    server.up();
    let mut ack = server.hear(&hex!("ff03c02101010004")).remove(0);
    ack[4] = 2;
    server.hear(&ack);
    let sent = server.wait(Duration::from_millis(75));
    assert_eq!(sent, [eap_frame(EAP_IDENTITY_REQUEST)]);
    let nt_hash = nt_password_hash("clientPass");
    let mut script = Script::new(&[&AUTHENTICATOR_CHALLENGE]);
    let mut authenticator = eap_mschapv2::Authenticator::new(b"User", &mut script);
    for (response, next) in [
        (EAP_IDENTITY_RESPONSE, EAP_CHALLENGE),
        (EAP_RESPONSE, EAP_SUCCESS_REQUEST),
        (EAP_SUCCESS_RESPONSE, EAP_SUCCESS),
    ] {
        assert!(server.hear(&eap_frame(response)).is_empty());
        let told = Credentials::Eap {
            identity: b"User".to_vec(),
            response: response.to_vec(),
        };
        assert_eq!(*server.last_credentials(), told);
        let verdict = authenticator.handle_response(response, Some(&nt_hash));
        assert_eq!(server.verdict(verdict), [eap_frame(next)]);
    }
    let hlak = Hlak::from_bytes(HLAK);
    assert_eq!(server.events.last(), Some(&Event::Authenticated { hlak }));
}

/// The local authenticator: each stage × each packet; only one path leads in.
#[test]
fn vectors_eap_mschapv2_stages() {
    let nt_hash = nt_password_hash("clientPass");
    let mut flipped = EAP_RESPONSE.to_vec();
    flipped[40] ^= 1;
    let packets: [(&str, &[u8]); 9] = [
        ("identity", EAP_IDENTITY_RESPONSE),
        ("response", EAP_RESPONSE),
        ("wrong response", &flipped),
        ("success response", EAP_SUCCESS_RESPONSE),
        ("failure response", &hex!("020200061a04")),
        ("nak", &hex!("02010006030d")),
        ("request", EAP_CHALLENGE),
        ("empty", &[]),
        ("lie", &hex!("0201ffff1a02")),
    ];
    for stage in 0..5 {
        for (what, packet) in packets {
            let mut script = Script::new(&[&AUTHENTICATOR_CHALLENGE]);
            let mut authenticator = eap_mschapv2::Authenticator::new(b"User", &mut script);
            let path = [EAP_IDENTITY_RESPONSE, EAP_RESPONSE, EAP_SUCCESS_RESPONSE];
            let path = if stage == 4 {
                vec![EAP_IDENTITY_RESPONSE, &flipped]
            } else {
                path[..stage].to_vec()
            };
            for response in path {
                authenticator.handle_response(response, Some(&nt_hash));
            }
            let outcome = match authenticator.handle_response(packet, Some(&nt_hash)) {
                Verdict::Accept { .. } => "accept",
                Verdict::Reject { .. } => "reject",
                Verdict::Continue { request } if request.get(5) == Some(&4) => "fail",
                Verdict::Continue { .. } => "continue",
            };
            let expected = match (stage, what) {
                (0, "identity") | (1, "response") => "continue",
                // Any packet of the method that is not the right response.
                (1, "wrong response" | "success response" | "failure response") => "fail",
                (2, "success response") => "accept",
                _ => "reject",
            };
            assert_eq!(outcome, expected, "stage {stage}, {what}");
        }
    }
}

#[test]
fn vectors_eap_mschapv2_unknown_user_fails_like_a_wrong_password() {
    let answer = |nt_hash: Option<&_>, response: &[u8]| {
        let mut script = Script::new(&[&AUTHENTICATOR_CHALLENGE]);
        let mut authenticator = eap_mschapv2::Authenticator::new(b"User", &mut script);
        authenticator.handle_response(EAP_IDENTITY_RESPONSE, nt_hash);
        authenticator.handle_response(response, nt_hash)
    };
    let wrong = nt_password_hash("other");
    assert_eq!(
        answer(None, EAP_RESPONSE),
        answer(Some(&wrong), EAP_RESPONSE)
    );
    // The hash that stands in for a missing one lets nobody in.
    let zero = datapath::crypto::nt_hash::NtHash::from_bytes([0; 16]);
    let response = mschapv2::nt_response(&AUTHENTICATOR_CHALLENGE, &PEER_CHALLENGE, b"User", &zero);
    let mut guess = EAP_RESPONSE.to_vec();
    guess[34..58].copy_from_slice(&response);
    assert!(
        matches!(answer(Some(&zero), &guess), Verdict::Continue { request } if request[5] == 3)
    );
    assert!(matches!(answer(None, &guess), Verdict::Continue { request } if request[5] == 4));
}
