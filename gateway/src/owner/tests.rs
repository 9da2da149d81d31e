//! The control plane as a whole, without threads.

use std::time::SystemTime;

use crossbeam::channel::bounded;
use datapath::ppp::auth::Credentials;
use datapath::session::event::{Addresses as Given, Ended, Milestones, Protection, Traffic, Up};
use zeroize::Zeroizing;

use super::*;
use crate::config;
use crate::pki::DevPki;

const CONFIG: &str = r#"
listen = [{ address = "127.0.0.1:8443" }]
tls = { certificate = "chain.pem", key = "key.pem" }
auth = { users = "users.toml", methods = ["pap"] }
pool = [{ v4 = "10.9.0.0/29", v6 = "fd00:9::/60" }]
network = { dns = ["10.0.0.53", "fd00::53"], mtu = 1300 }
limits = { sessions = 4 }
"#;

const USERS: &str = r#"
[[user]]
name = "anybody"
nt_hash = "44ebba8d5312b8d611474411f56989ae"

[[user]]
name = "owner"
nt_hash = "44ebba8d5312b8d611474411f56989ae"
v4 = "10.9.0.6"
"#;

struct Plane {
    control: Control,
    sent: Vec<(u16, ToShard)>,
}

impl Plane {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            crate::files::replace(&dir.path().join(name), text.as_bytes(), 0o600).unwrap();
        };
        let pki = DevPki::new(&["vpn.example".to_owned()], SystemTime::now()).unwrap();
        file("chain.pem", &pki.chain);
        file("key.pem", &pki.key);
        file("users.toml", USERS);
        file("sstp-gw.toml", CONFIG);
        let loaded = config::load(&dir.path().join("sstp-gw.toml"), SystemTime::now()).unwrap();
        let said: String = loaded.reports.iter().map(ToString::to_string).collect();
        let snapshot = loaded.snapshot.unwrap_or_else(|| panic!("{said}"));
        Self {
            control: Control::new(Arc::new(snapshot)),
            sent: Vec::new(),
        }
    }

    fn ask(&mut self, session: SessionId, user: &str, password: &str) {
        let question = Question::Authenticate {
            credentials: Credentials::Pap {
                user: user.as_bytes().to_vec(),
                password: Zeroizing::new(password.as_bytes().to_vec()),
            },
            peer: "192.0.2.1:5000".parse().unwrap(),
        };
        let sent = &mut self.sent;
        self.control.ask(session, &question, &mut |shard, message| {
            sent.push((shard, message))
        });
    }

    fn end(&mut self, session: SessionId, reason: EndReason) {
        let event = Event::Ended(Ended {
            reason,
            detail: None,
            user: None,
            was_up: true,
            milestones: Milestones::default(),
            traffic: Traffic::default(),
        });
        self.tell(session, &event);
    }

    fn tell(&mut self, session: SessionId, event: &Event) {
        let sent = &mut self.sent;
        self.control
            .told(Instant::ZERO, session, event, &mut |shard, message| {
                sent.push((shard, message))
            });
    }

    /// The policy of the accepted login that was answered last.
    fn accepted(&mut self, session: SessionId) -> Policy {
        match self.sent.pop() {
            Some((shard, ToShard::Answer(to, Answer::Accept { policy, .. }))) => {
                assert_eq!((shard, to), (session.shard, session));
                *policy
            }
            sent => panic!("{sent:?}"),
        }
    }

    fn refusal(&mut self, session: SessionId) -> (u16, Refusal) {
        match self.sent.pop() {
            Some((shard, ToShard::Answer(to, Answer::Reject { error, refusal, .. }))) => {
                assert_eq!((shard, to), (session.shard, session));
                (error, refusal)
            }
            sent => panic!("{sent:?}"),
        }
    }
}

fn session(shard: u16, slot: u32) -> SessionId {
    SessionId {
        shard,
        connection: ConnectionId {
            slot,
            generation: 0,
        },
    }
}

#[test]
fn a_login_gets_what_the_configuration_says() {
    let mut plane = Plane::new();
    let id = session(1, 5);
    plane.ask(id, "anybody", "clientPass");
    let policy = plane.accepted(id);
    assert_eq!(policy.user, b"anybody");
    assert_eq!(policy.mtu, 1300);
    let ipv4 = policy.ipv4.unwrap();
    assert_eq!(ipv4.client.to_string(), "10.9.0.2");
    assert_eq!(ipv4.gateway.to_string(), "10.9.0.1");
    assert_eq!(ipv4.dns, [Some("10.0.0.53".parse().unwrap()), None]);
    let ipv6 = policy.ipv6.unwrap();
    assert_eq!(ipv6.prefix.unwrap().to_string(), "fd00:9:0:1::");
    assert_eq!(ipv6.gateway.unwrap().to_string(), "fd00:9::1");
    plane.ask(session(0, 0), "anybody", "wrong");
    assert_eq!(plane.refusal(session(0, 0)), (691, Refusal::Credentials));
}

#[test]
fn sessions_are_limited_by_name_and_their_end_makes_room() {
    let mut plane = Plane::new();
    for slot in 0..4 {
        plane.ask(session(0, slot), "anybody", "clientPass");
        plane.accepted(session(0, slot));
    }
    plane.ask(session(0, 9), "anybody", "clientPass");
    assert_eq!(plane.refusal(session(0, 9)), (649, Refusal::NoAddress));
    plane.end(session(0, 9), EndReason::Refused);
    plane.end(session(0, 2), EndReason::PeerClosed);
    plane.ask(session(0, 10), "anybody", "clientPass");
    plane.accepted(session(0, 10));
    // Every end gives back what was held, and nothing more.
    for slot in [0, 1, 3, 10] {
        plane.end(session(0, slot), EndReason::PeerClosed);
        plane.end(session(0, slot), EndReason::PeerClosed);
    }
    assert_eq!(plane.control.leases, 0);
    assert!(plane.control.sessions.is_empty());
}

#[test]
fn an_own_address_goes_to_the_newer_login_when_the_older_is_gone() {
    let mut plane = Plane::new();
    let (older, newer, third) = (session(0, 1), session(1, 2), session(1, 3));
    plane.ask(older, "owner", "clientPass");
    assert_eq!(
        plane.accepted(older).ipv4.unwrap().client.to_string(),
        "10.9.0.6"
    );
    // A wrong password moves nobody.
    plane.ask(newer, "owner", "wrong");
    assert_eq!(plane.refusal(newer), (691, Refusal::Credentials));
    plane.ask(newer, "owner", "clientPass");
    match plane.sent.pop() {
        Some((0, ToShard::Abandon(id, EndReason::Replaced))) => assert_eq!(id, older),
        sent => panic!("{sent:?}"),
    }
    assert!(plane.sent.is_empty(), "the newer login waits");
    // One that gave up meanwhile is not answered.
    plane.ask(third, "owner", "clientPass");
    plane.sent.clear();
    plane.end(third, EndReason::PeerClosed);
    plane.end(older, EndReason::Replaced);
    assert_eq!(
        plane.accepted(newer).ipv4.unwrap().client.to_string(),
        "10.9.0.6"
    );
    assert!(plane.sent.is_empty());
    assert!(plane.control.waiting.is_empty());
}

#[test]
fn news_of_a_session_nobody_knows_do_nothing() {
    let mut plane = Plane::new();
    let up = Event::Up(Up {
        user: b"x".to_vec(),
        addresses: Given::default(),
        protection: Protection::default(),
        milestones: Milestones::default(),
    });
    plane.tell(session(0, 0), &up);
    plane.end(session(0, 0), EndReason::NotSstp);
    assert!(plane.sent.is_empty());
    assert!(plane.control.sessions.is_empty());
}

#[test]
fn what_does_not_fit_waits_in_order() {
    let (sender, receiver) = bounded(2);
    let mut outbox = Outbox::new(sender);
    for number in 0..5 {
        outbox.send(number);
    }
    assert_eq!(receiver.try_iter().collect::<Vec<_>>(), [0, 1]);
    assert!(!outbox.flush());
    assert_eq!(receiver.try_iter().collect::<Vec<_>>(), [2, 3]);
    assert!(outbox.flush());
    assert_eq!(receiver.try_iter().collect::<Vec<_>>(), [4]);
    drop(receiver);
    outbox.send(9);
    assert!(outbox.flush(), "nobody is there to miss it");
}

#[test]
fn a_source_is_bounded_until_it_comes_as_far_as_a_password() {
    let (a, b): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
    let mut gate = SourceGate::new(3);
    for slot in 0..3 {
        assert!(gate.admit(session(0, slot), a));
    }
    assert!(!gate.admit(session(0, 3), a));
    assert!(gate.admit(session(0, 4), b), "others are not touched");
    gate.leave(session(0, 1));
    gate.leave(session(0, 1));
    assert!(gate.admit(session(0, 5), a));
    assert!(!gate.admit(session(0, 6), a));
    // A place that is taken anew was given up, though nobody said so.
    let mut again = session(0, 0);
    again.connection.generation = 1;
    assert!(gate.admit(again, a));
    gate.leave(session(0, 0));
    assert!(
        !gate.admit(session(0, 7), a),
        "the place's earlier user is not counted twice"
    );
    for slot in [2, 4, 5] {
        gate.leave(session(0, slot));
    }
    gate.leave(again);
    assert!(gate.counts.is_empty() && gate.waiting.is_empty());
}

#[test]
fn one_customers_ipv6_network_is_one_source() {
    let mut gate = SourceGate::new(1);
    assert!(gate.admit(session(0, 0), "2001:db8::1".parse().unwrap()));
    assert!(!gate.admit(session(0, 1), "2001:db8::ffff".parse().unwrap()));
    assert!(gate.admit(session(0, 2), "2001:db8:0:1::1".parse().unwrap()));
}
