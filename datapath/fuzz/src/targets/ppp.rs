//! PPP: frames and options alone, and links of both roles brought to the phase that is to be tried.

use std::net::Ipv4Addr;
use std::sync::Arc;

use datapath::crypto::hlak::Hlak;
use datapath::crypto::nt_hash::nt_password_hash;
use datapath::output::Collected;
use datapath::ppp::auth::{AuthMethod, Verdict, eap_mschapv2};
use datapath::ppp::control::{Options, Packet};
use datapath::ppp::frame;
use datapath::ppp::link::{
    Assignment, AuthenticateeConfig, AuthenticatorConfig, Event, Ipv4Assignment, Ipv6Assignment,
    Link,
};
use datapath::time::{Duration, Instant};

use super::{Input, Seeded};

/// A payload of an SSTP data packet; both ways of reading it agree.
pub fn ppp_frame(bytes: &[u8]) {
    let parsed = frame::parse(bytes);
    assert_eq!(
        frame::parse_offset(bytes),
        parsed.map(|frame| (frame.protocol, bytes.len() - frame.information.len()))
    );
    if let Ok(frame) = parsed {
        assert!(!frame.information.is_empty());
        if let Ok(packet) = Packet::parse(frame.information) {
            assert!(packet.bytes.len() <= frame.information.len());
        }
    }
}

/// Options of LCP, IPCP and IPV6CP: alone, then as requests and answers on open links.
pub fn ppp_options(bytes: &[u8]) {
    if let Ok(options) = Options::parse(bytes) {
        let len: usize = options.map(|option| option.value.len() + 2).sum();
        assert!(len <= bytes.len());
    }
    let mut pair = Pair::new(AuthMethod::MsChapV2);
    pair.run_until(|event| matches!(event, Event::Ipv4Opened { .. }));
    pair.disturb(
        bytes,
        &[
            frame::LCP,
            frame::IPCP,
            frame::IPV6CP,
            frame::LCP,
            0x80fd,
            0x0021,
            0x8057,
            0xc023,
        ],
    );
}

/// CHAP and MS-CHAPv2 and PAP, while a link authenticates.
pub fn chap(bytes: &[u8]) {
    let (method, rest) = match bytes.split_first() {
        Some((0, rest)) => (AuthMethod::Pap, rest),
        Some((1, rest)) => (AuthMethod::ChapMd5, rest),
        _ => (AuthMethod::MsChapV2, bytes),
    };
    let mut pair = Pair::new(method);
    pair.run_until(|event| matches!(event, Event::LcpOpened));
    pair.disturb(
        rest,
        &[
            frame::CHAP,
            frame::CHAP,
            frame::PAP,
            frame::CHAP,
            frame::LCP,
            frame::EAP,
            frame::CHAP,
            frame::PAP,
        ],
    );
}

/// EAP on a link that authenticates by it, and the machine that ends EAP-MSCHAPv2 here.
pub fn eap(bytes: &[u8]) {
    let hash = nt_password_hash(PASSWORD);
    let mut input = Input(bytes);
    let mut authenticator = eap_mschapv2::Authenticator::new(b"alice", &mut Seeded(3));
    for _ in 0..8 {
        let response = input.chunk();
        authenticator.handle_response(response, Some(&hash));
    }
    let mut pair = Pair::new(AuthMethod::Eap);
    pair.run_until(|event| matches!(event, Event::LcpOpened));
    pair.disturb(
        bytes,
        &[
            frame::EAP,
            frame::EAP,
            frame::EAP,
            frame::LCP,
            frame::CHAP,
            frame::EAP,
            frame::EAP,
            frame::PAP,
        ],
    );
}

const PASSWORD: &str = "clientPass";

/// An authenticator and an authenticatee that talk to each other, and news of the former.
struct Pair {
    now: Instant,
    entropy: Seeded,
    ends: [Link; 2],
    out: [Collected<Event>; 2],
    eap: eap_mschapv2::Authenticator,
}

impl Pair {
    fn new(method: AuthMethod) -> Self {
        let mut entropy = Seeded(0x9e37_79b9_7f4a_7c15);
        let server = AuthenticatorConfig {
            methods: vec![method],
            ..Default::default()
        };
        let client = AuthenticateeConfig {
            user: b"alice".to_vec(),
            password: PASSWORD.to_owned().into(),
            methods: vec![method],
            ..Default::default()
        };
        let mut ends = [
            Link::authenticator(Arc::new(server), &mut entropy),
            Link::authenticatee(Arc::new(client), &mut entropy),
        ];
        let mut out = [Collected::default(), Collected::default()];
        for (end, out) in ends.iter_mut().zip(&mut out) {
            end.up(Instant::ZERO, &mut entropy, out);
        }
        let eap = eap_mschapv2::Authenticator::new(b"alice", &mut entropy);
        Self {
            now: Instant::ZERO,
            entropy,
            ends,
            out,
            eap,
        }
    }

    /// Lets them talk, undisturbed, until the authenticator tells `news`.
    fn run_until(&mut self, news: impl Fn(&Event) -> bool) {
        for _ in 0..100 {
            let told = self.out[0].events.iter().any(&news);
            self.exchange();
            if told {
                return;
            }
            self.wait(Duration::from_secs(1));
        }
    }

    /// Frames under way arrive, questions are answered.
    fn exchange(&mut self) {
        for from in [0, 1] {
            for bytes in core::mem::take(&mut self.out[from].sent) {
                let frame = frame::parse(&bytes).expect("a link sends frames");
                self.arrive(1 - from, frame.protocol, frame.information);
            }
        }
        for event in core::mem::take(&mut self.out[0].events) {
            match event {
                Event::Authenticate(datapath::ppp::auth::Credentials::Eap { response, .. }) => {
                    let verdict = self
                        .eap
                        .handle_response(&response, Some(&nt_password_hash(PASSWORD)));
                    self.ends[0].handle_verdict(
                        self.now,
                        verdict,
                        &mut self.entropy,
                        &mut self.out[0],
                    );
                }
                Event::Authenticate(_) => {
                    let message = format!("S={}", "0".repeat(40)).into_bytes();
                    let verdict = Verdict::Accept {
                        hlak: Hlak::ZERO,
                        message,
                    };
                    self.ends[0].handle_verdict(
                        self.now,
                        verdict,
                        &mut self.entropy,
                        &mut self.out[0],
                    );
                }
                Event::Authenticated { .. } => {
                    self.ends[0].assign(
                        self.now,
                        assignment(),
                        &mut self.entropy,
                        &mut self.out[0],
                    );
                }
                _ => {}
            }
        }
        self.out[1].events.clear();
    }

    fn arrive(&mut self, end: usize, protocol: u16, information: &[u8]) {
        self.ends[end].handle_frame(
            self.now,
            protocol,
            information,
            &mut self.entropy,
            &mut self.out[end],
        );
    }

    fn wait(&mut self, time: Duration) {
        self.now = self.now + time;
        for (end, out) in self.ends.iter_mut().zip(&mut self.out) {
            end.handle_timeout(self.now, &mut self.entropy, out);
        }
    }

    /// Reads operations: frames of `protocols` to either end (whole, or with a header made up so
    /// that they pass its length check), time, exchange, verdicts.
    fn disturb(&mut self, bytes: &[u8], protocols: &[u16; 8]) {
        let mut input = Input(bytes);
        while !input.is_empty() {
            let operation = input.u8();
            let end = usize::from(operation >> 7);
            let protocol = protocols[usize::from(operation & 0x07)];
            match (operation >> 3) & 0x07 {
                0..=2 => {
                    let information = input.chunk();
                    self.arrive(end, protocol, information);
                }
                3 | 4 => {
                    let (code, identifier, data) = (input.u8() % 16, input.u8(), input.chunk());
                    let [high, low] = u16::try_from(data.len() + 4)
                        .unwrap_or(u16::MAX)
                        .to_be_bytes();
                    let information = [&[code, identifier, high, low], data].concat();
                    self.arrive(end, protocol, &information);
                }
                5 => self.wait(Duration::from_millis(u64::from(input.u16()) * 4)),
                6 => self.exchange(),
                _ => {
                    let verdict = match input.u8() & 0x03 {
                        0 => Verdict::Accept {
                            hlak: Hlak::ZERO,
                            message: input.chunk().to_vec(),
                        },
                        1 => Verdict::Reject {
                            error: input.u16(),
                            message: input.chunk().to_vec(),
                            eap: None,
                        },
                        2 => Verdict::Continue {
                            request: input.chunk().to_vec(),
                        },
                        _ => Verdict::Reject {
                            error: 691,
                            message: Vec::new(),
                            eap: Some(input.chunk().to_vec()),
                        },
                    };
                    self.ends[0].handle_verdict(
                        self.now,
                        verdict,
                        &mut self.entropy,
                        &mut self.out[0],
                    );
                }
            }
            for out in &mut self.out {
                assert!(out.sent.len() <= 64, "answers grow out of proportion");
                for sent in &out.sent {
                    assert!(
                        frame::parse(sent).is_ok() && sent.len() <= 1504,
                        "{sent:02x?}"
                    );
                }
                if operation & 0x40 != 0 {
                    out.sent.clear();
                }
            }
            self.drain_if_full();
        }
    }

    fn drain_if_full(&mut self) {
        if self
            .out
            .iter()
            .any(|out| out.sent.len() > 32 || out.events.len() > 32)
        {
            self.exchange();
        }
    }
}

fn assignment() -> Assignment {
    Assignment {
        ipv4: Some(Ipv4Assignment {
            gateway: Ipv4Addr::new(10, 77, 0, 1),
            client: Ipv4Addr::new(10, 77, 0, 2),
            dns: [Some(Ipv4Addr::new(10, 77, 0, 1)), None],
            nbns: [None; 2],
        }),
        ipv6: Some(Ipv6Assignment {
            gateway_id: 1,
            client_id: Some(2),
        }),
        mtu: 1400,
    }
}
