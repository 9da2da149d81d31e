//! Nothing happens for a stranger: no session comes up, no packet reaches the inside, no address is
//! held, before the owner has said Accept and the crypto binding is verified.
//!
//! Sequences of steps around the right one, with some left out, doubled, too early or too late: by a
//! hostile client that says anything at any time, and by an honest one whose owner is erratic.

mod raw_client;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use datapath::crypto::hlak::Hlak;
use datapath::ppp::auth::AuthMethod;
use datapath::session::event::{Addresses, Event};
use datapath::session::policy::{Answer, Policy, Question, Refusal};
use datapath::sstp::binding::{CertificateHashes, HashProtocol, Nonce, compute};
use datapath::testing::fixtures::{self, PASSWORD, USER};
use datapath::testing::pair::Pair;
use datapath::time::Duration;
use hex_literal::hex;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};

use raw_client::{
    CHAP, Client, GOLDEN_CERTIFICATE, LCP, MSCHAPV2_HLAK, MSCHAPV2_RESPONSE, NUMBER, PAP,
    PAP_REQUEST, REQUEST, settings,
};

fn policy(number: u16) -> Box<Policy> {
    Box::new(Policy {
        user: number.to_string().into_bytes(),
        ..fixtures::policy(number)
    })
}

fn rejection() -> Answer {
    Answer::Reject {
        error: 691,
        message: b"no".to_vec(),
        eap: None,
        refusal: Refusal::Credentials,
    }
}

/// What a hostile client and its server's owner can do.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    Request,
    Lcp,
    Proof,
    WrongProof,
    /// The owner accepts, asked or not.
    Accept,
    /// The owner refuses, asked or not.
    Reject,
    Network,
    Bind,
    WrongBind,
    ZeroKeyBind,
    Data,
    Echo,
    /// SSTP packets that no client sends.
    ServersMessage,
    Terminate,
    Disconnect,
    Abort,
    Wait(u64),
}

const RIGHT_ORDER: [Step; 8] = [
    Step::Request,
    Step::Lcp,
    Step::Wait(200),
    Step::Proof,
    Step::Accept,
    Step::Network,
    Step::Bind,
    Step::Data,
];

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => select(vec![Step::Data, Step::Network, Step::Bind, Step::Proof, Step::Accept]),
        4 => select(vec![Step::WrongProof, Step::WrongBind, Step::ZeroKeyBind, Step::Echo]),
        2 => select(vec![Step::Request, Step::Lcp, Step::Reject, Step::ServersMessage]),
        1 => select(vec![Step::Terminate, Step::Disconnect, Step::Abort]),
        3 => select(vec![10, 200, 1_000, 5_000, 21_000, 61_000]).prop_map(Step::Wait),
    ]
}

/// The right order, each step with its chance to be missing and others before it.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    RIGHT_ORDER
        .map(|right| {
            let before = prop_oneof![
                5 => Just(Vec::new()),
                2 => prop::collection::vec(any_step(), 1..3),
            ];
            (before, prop::bool::weighted(0.95)).prop_map(move |(mut steps, kept)| {
                steps.extend(kept.then_some(right));
                steps
            })
        })
        .prop_map(|parts| parts.concat())
}

/// What was really granted.
#[derive(Debug, Default)]
struct Granted {
    /// The first answer to a question, if it was Accept.
    accepted: Option<u16>,
    rejected: bool,
    right_binding: bool,
    asked: usize,
}

fn hlak(method: AuthMethod) -> Hlak {
    if method == AuthMethod::Pap {
        Hlak::ZERO
    } else {
        MSCHAPV2_HLAK
    }
}

fn call_connected(key: &Hlak) -> [u8; 112] {
    let certificate = CertificateHashes {
        sha1: GOLDEN_CERTIFICATE.sha1,
        sha256: GOLDEN_CERTIFICATE.sha256,
    };
    let nonce = Nonce(std::array::from_fn(|at| u8::try_from(at).unwrap()));
    *compute(key, &nonce, HashProtocol::Sha256, &certificate).packet()
}

fn take(client: &mut Client, method: AuthMethod, step: Step, granted: &mut Granted) {
    match step {
        Step::Request => client.say(&REQUEST),
        Step::Lcp => client.frame(LCP, &hex!("0101000a0506a1b2c3d4")),
        Step::Proof if method == AuthMethod::Pap => client.frame(PAP, &PAP_REQUEST),
        Step::Proof => client.frame(CHAP, &MSCHAPV2_RESPONSE),
        Step::WrongProof if method == AuthMethod::Pap => {
            client.frame(PAP, &hex!("0101001004557365720663726f6f6b73"));
        }
        Step::WrongProof => {
            let mut response = MSCHAPV2_RESPONSE;
            response[40] ^= 1;
            client.frame(CHAP, &response);
        }
        Step::Accept => {
            let is_asked = client.edge.questions.pop_front().is_some();
            let number = NUMBER + u16::from(granted.asked > 0);
            if is_asked {
                granted.asked += 1;
                if !granted.rejected {
                    granted.accepted.get_or_insert(number);
                }
            }
            client.answer(Answer::Accept {
                hlak: hlak(method),
                message: b"S=".to_vec(),
                policy: policy(number),
            });
        }
        Step::Reject => {
            if client.edge.questions.pop_front().is_some() {
                granted.asked += 1;
                granted.rejected |= granted.accepted.is_none();
            }
            client.answer(rejection());
        }
        Step::Network => {
            client.network();
        }
        Step::Bind => {
            granted.right_binding = true;
            client.say(&call_connected(&hlak(method)));
        }
        Step::WrongBind => client.say(&call_connected(&Hlak::from_bytes([3; 32]))),
        Step::ZeroKeyBind => {
            granted.right_binding |= method == AuthMethod::Pap;
            client.say(&call_connected(&Hlak::ZERO));
        }
        Step::Data => client.push_data(),
        Step::Echo => client.say(&hex!("1001000800080000")),
        Step::ServersMessage => client.say(&hex!("1001000800020000")),
        Step::Terminate => client.frame(LCP, &hex!("05090004")),
        Step::Disconnect => client.say(&hex!("1001000800060000")),
        Step::Abort => client.say(&hex!("1001000800050000")),
        Step::Wait(millis) => client.advance(Duration::from_millis(millis)),
    }
}

fn check(client: &Client, granted: &Granted) {
    if granted.accepted.is_none() {
        assert_eq!(
            client.session.addresses(),
            Addresses::default(),
            "an address for a stranger"
        );
    }
    if granted.accepted.is_none() || granted.rejected || !granted.right_binding {
        assert!(!client.is_up() && !client.session.is_up(), "came up");
        assert!(client.edge.inside.is_empty(), "a packet reached the inside");
        assert!(client.data.is_empty(), "a packet reached the client");
        assert_eq!(
            client.session.traffic(),
            Default::default(),
            "traffic was counted"
        );
    }
    if client.edge.inside.len() + client.data.len() > 0 {
        assert!(client.is_up(), "a packet before the session was up");
    }
    for event in &client.edge.events {
        if let (Event::Up(up), Some(number)) = (event, granted.accepted) {
            assert_eq!(up.user, policy(number).user, "the first answer counts");
            assert!(
                [None, Some(policy(number).ipv4.unwrap().client)].contains(&up.addresses.ipv4),
                "the first answer counts"
            );
        }
    }
}

#[test]
fn auth_before_effect_hostile_client() {
    let came_up = Cell::new(0);
    let mut runner = TestRunner::new(Config {
        cases: 4_000,
        failure_persistence: None,
        ..Config::default()
    });
    let methods = select(vec![AuthMethod::MsChapV2, AuthMethod::Pap]);
    let result = runner.run(&(methods, steps()), |(method, steps)| {
        let mut client = Client::new(settings(method));
        client.shake_hands().http();
        let mut granted = Granted::default();
        for step in steps {
            take(&mut client, method, step, &mut granted);
            check(&client, &granted);
        }
        came_up.set(came_up.get() + u32::from(client.is_up()));
        // Whatever happened, it holds no address for good.
        if !client.session.is_up() {
            client.advance(Duration::from_secs(135));
            check(&client, &granted);
            assert!(client.closed.is_some(), "still open");
            assert_eq!(client.session.addresses(), Addresses::default());
        }
        Ok(())
    });
    result.unwrap();
    println!("{} of 4000 sequences came up", came_up.get());
    assert!(
        came_up.get() > 100,
        "the sequences come near enough to the right one"
    );
}

/// What an honest client's owner and its surroundings can do.
#[derive(Clone, Copy, Debug)]
enum Turn {
    Wait,
    Accept,
    Reject,
    /// An answer that nobody asked for.
    Unasked,
    ClientData,
    ServerData,
    Pieces(usize),
    ClientLeaves,
}

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let turn = prop_oneof![
        8 => Just(Turn::Wait),
        2 => Just(Turn::Accept),
        1 => Just(Turn::Reject),
        2 => Just(Turn::Unasked),
        2 => Just(Turn::ClientData),
        2 => Just(Turn::ServerData),
        1 => select(vec![1, 7, 100, usize::MAX]).prop_map(Turn::Pieces),
    ];
    (
        prop::collection::vec(turn, 1..25),
        prop::bool::weighted(0.2),
    )
        .prop_map(|(mut turns, leaves)| {
            turns.extend(leaves.then_some(Turn::ClientLeaves));
            turns
        })
}

#[test]
fn auth_before_effect_erratic_owner() {
    let came_up = Cell::new(0);
    let mut runner = TestRunner::new(Config {
        cases: 1_000,
        failure_persistence: None,
        ..Config::default()
    });
    let methods = select(vec![AuthMethod::MsChapV2, AuthMethod::Pap]);
    let input = (methods, any::<bool>(), turns(), any::<u64>());
    let result = runner.run(&input, |(method, knows, turns, seed)| {
        let questions = Rc::new(RefCell::new(VecDeque::<Question>::new()));
        let asked = Rc::clone(&questions);
        let password = if knows { PASSWORD } else { "wrong" };
        let mut pair = Pair::new(
            Arc::new(fixtures::client_settings(USER, password, method)),
            Arc::new(fixtures::server_settings()),
            seed,
            Box::new(move |question| {
                asked.borrow_mut().push_back(question);
                None
            }),
        )
        .unwrap();
        pair.settle();
        let mut accepted = None;
        for turn in turns {
            let now = pair.now;
            let server = &mut pair.server;
            match turn {
                Turn::Wait => {
                    pair.wait();
                }
                Turn::Accept => {
                    let question = questions.borrow_mut().pop_front();
                    if let Some(question) = question {
                        let answer = fixtures::judge(&question, 7);
                        if let Answer::Accept { .. } = answer {
                            accepted = Some(7);
                        }
                        server.session.handle_answer(now, answer, &mut server.edge);
                    }
                }
                Turn::Reject => {
                    if questions.borrow_mut().pop_front().is_some() {
                        server
                            .session
                            .handle_answer(now, rejection(), &mut server.edge);
                    }
                }
                Turn::Unasked if questions.borrow().is_empty() => {
                    let answer = Answer::Accept {
                        hlak: Hlak::ZERO,
                        message: Vec::new(),
                        policy: policy(8),
                    };
                    server.session.handle_answer(now, answer, &mut server.edge);
                }
                Turn::Unasked => {}
                Turn::ClientData => {
                    let to = [192, 0, 2, 1].into();
                    pair.client_sends(&fixtures::udp([10, 8, 0, 7].into(), to, b"up"));
                }
                Turn::ServerData => {
                    let from = [192, 0, 2, 1].into();
                    pair.server_sends(&fixtures::udp(from, [10, 8, 0, 7].into(), b"down"));
                }
                Turn::Pieces(len) => pair.piece_len = len,
                Turn::ClientLeaves => pair.client.closed = true,
            }
            pair.settle();
            let server = &pair.server;
            let is_up = server
                .edge
                .events
                .iter()
                .any(|event| matches!(event, Event::Up(_)));
            if accepted.is_none() {
                assert!(!is_up, "came up");
                assert_eq!(server.session.addresses(), Addresses::default());
            }
            if !is_up {
                assert!(server.edge.inside.is_empty(), "a packet reached the inside");
                assert!(
                    pair.client.edge.inside.is_empty(),
                    "a packet reached the client"
                );
            }
            if let Some(address) = server.session.addresses().ipv4 {
                assert_eq!(address, policy(7).ipv4.unwrap().client);
            }
        }
        came_up.set(came_up.get() + u32::from(pair.server.session.is_up()));
        if !pair.server.session.is_up() {
            let end = pair.now + Duration::from_secs(135);
            while !pair.server.closed && pair.now < end && pair.wait() {}
            assert!(
                pair.server.closed,
                "a session that never came up is still there"
            );
            assert_eq!(pair.server.session.addresses(), Addresses::default());
        }
        Ok(())
    });
    result.unwrap();
    println!("{} of 1000 owners let their client in", came_up.get());
    assert!(came_up.get() > 20, "some owners do let their client in");
}
