//! What a stranger costs: the memory of a session that is parked at each stage of its set-up, and of an
//! idle one that is up. The figures are printed.
//!
//! Counted by the allocator, with the session itself, without the shard's slot for it and without the
//! kernel's socket. The allocator does not see what the cryptographic library takes by `malloc`; the
//! last test therefore asks the kernel what a thousand sessions take.

mod raw_client;

use std::hint::black_box;
use std::sync::Arc;

use datapath::ppp::auth::AuthMethod;
use datapath::session::ServerSettings;
use datapath::sys::alloc::CountingAllocator;
use datapath::time::Duration;
use datapath::tls::{ClientProfile, RecordLayerKind, ServerGeneration, TlsOptions, Version};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use raw_client::{Client, http_request, settings};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Before the HTTP exchange, TLS handshake included.
const BEFORE_HTTP_MAX: i64 = 24 * 1024;
/// From the HTTP exchange to the end of the set-up.
const AFTER_HTTP_MAX: i64 = 12 * 1024;
/// Idle and up.
const IDLE_MAX: i64 = 10_000;

const METHOD: AuthMethod = AuthMethod::MsChapV2;

/// Real TLS: a P-256 leaf alone, as `demo` makes it, under one version.
fn ends(version: Version) -> (Arc<ServerGeneration>, Arc<ClientProfile>) {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["vpn.example.com".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let options = TlsOptions {
        min_version: version,
        max_version: version,
        record_layer: RecordLayerKind::Own,
        ..TlsOptions::default()
    };
    let chain = vec![CertificateDer::from(certificate.der().to_vec())];
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    (
        Arc::new(ServerGeneration::new(chain, key, &options).unwrap()),
        Arc::new(ClientProfile::danger_accept_any(&options).unwrap()),
    )
}

fn client(version: Version) -> Client {
    let (tls, profile) = ends(version);
    let settings = ServerSettings {
        tls,
        ..settings(METHOD)
    };
    Client::with(settings, &profile, true, 1)
}

/// Stages of one session, in order: a name, the step that leads there, and the bound.
type Step = fn(&mut Client);
const STAGES: [(&str, Step, i64); 11] = [
    ("accepted", |_| {}, BEFORE_HTTP_MAX),
    (
        "TLS done",
        |client| {
            client.shake_hands();
        },
        BEFORE_HTTP_MAX,
    ),
    (
        "half a request",
        |client| {
            let request = http_request();
            client.send(&request[..request.len() / 2]);
        },
        BEFORE_HTTP_MAX,
    ),
    (
        "HTTP done",
        |client| {
            let request = http_request();
            client.send(&request[request.len() / 2..]);
        },
        AFTER_HTTP_MAX,
    ),
    (
        "call",
        |client| {
            client.call();
        },
        AFTER_HTTP_MAX,
    ),
    (
        "LCP",
        |client| {
            client.lcp();
        },
        AFTER_HTTP_MAX,
    ),
    (
        "proof given",
        |client| {
            client.prove(METHOD);
        },
        AFTER_HTTP_MAX,
    ),
    (
        "accepted by the owner",
        |client| {
            client.accept();
        },
        AFTER_HTTP_MAX,
    ),
    (
        "bound",
        |client| {
            client.bind(METHOD);
        },
        AFTER_HTTP_MAX,
    ),
    (
        "up",
        |client| {
            client.network();
        },
        AFTER_HTTP_MAX,
    ),
    (
        "idle after traffic",
        |client| {
            for _ in 0..100 {
                client.push_data();
            }
            // Past the first Router Advertisements; nothing is in flight.
            client.advance(Duration::from_secs(50));
        },
        IDLE_MAX,
    ),
];

#[test]
fn preauth_memory_of_a_parked_stranger() {
    for version in [Version::Tls13, Version::Tls12] {
        // What the process allocates once is not a session's.
        client(version).come_up(METHOD);
        let mut client = client(version);
        for (stage, step, bound) in STAGES {
            step(&mut client);
            assert!(client.closed.is_none(), "{stage}");
            println!("{version:?}, {stage}: {} bytes", client.memory);
            assert!(client.memory <= bound, "{stage}: {} bytes", client.memory);
        }
        println!(
            "{version:?}: at most {} bytes between two steps",
            client.memory_max
        );
        assert!(client.is_up());
        assert!(client.memory > 1_000, "it counts");
    }
}

#[test]
fn preauth_memory_in_the_middle_of_the_handshake() {
    for version in [Version::Tls13, Version::Tls12] {
        client(version).come_up(METHOD);
        for bytes in ["a byte", "half a hello", "a whole hello"] {
            let mut client = client(version);
            let hello = client.take_first_flight();
            client.deaf = true;
            let len = match bytes {
                "a byte" => 1,
                "half a hello" => hello.len() / 2,
                _ => hello.len(),
            };
            client.deliver(&hello[..len]);
            println!(
                "{version:?}, {bytes} of {}: {} bytes",
                hello.len(),
                client.memory
            );
            assert!(
                client.memory <= BEFORE_HTTP_MAX,
                "{bytes}: {} bytes",
                client.memory
            );
        }
    }
}

/// Much is announced, little is sent: what is kept follows what has arrived.
#[test]
fn preauth_memory_follows_what_arrives() {
    let version = Version::Tls13;
    client(version).come_up(METHOD);
    let measure = |name: &str, bound: i64, reach: &dyn Fn(&mut Client), act: Step| {
        let mut client = client(version);
        reach(&mut client);
        act(&mut client);
        println!(
            "{name}: {} bytes, at most {}",
            client.memory, client.memory_max
        );
        assert!(client.closed.is_none(), "{name}");
        assert!(client.memory <= bound, "{name}: {} bytes", client.memory);
    };
    measure(
        "a hello of 16 KiB announced",
        BEFORE_HTTP_MAX,
        &|_| {},
        |client| {
            client.deaf = true;
            client.deliver(&[22, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc, 3, 3]);
        },
    );
    let shaken = |client: &mut Client| {
        client.shake_hands();
    };
    measure(
        "a record of 16 KiB announced",
        BEFORE_HTTP_MAX,
        &shaken,
        |client| {
            client.deliver(&[23, 3, 3, 0x40, 0x10, 1, 2, 3]);
        },
    );
    measure(
        "8,000 bytes of a request",
        BEFORE_HTTP_MAX,
        &shaken,
        |client| {
            let request = http_request();
            client.send(&request[..request.len() - 2]);
            for _ in 0..57 {
                client.send(
                    b"X-Header: a line of a bit more than a hundred bytes, of no use to anybody",
                );
                client.send(b", which is sent to fill the buffer up to where it ends\r\n");
            }
        },
    );
    let called = |client: &mut Client| {
        client.shake_hands().http().call();
    };
    measure(
        "an SSTP packet of 4,095 bytes announced",
        AFTER_HTTP_MAX,
        &called,
        |client| {
            client.send(&[0x10, 0x00, 0x0f, 0xff, 0xff, 0x03]);
        },
    );
    let asked = |client: &mut Client| {
        client.shake_hands().http().call().lcp();
    };
    measure(
        "an EAP packet of 64 KiB announced",
        AFTER_HTTP_MAX,
        &asked,
        |client| {
            client.frame(
                raw_client::EAP,
                &[2, 0, 0xff, 0xff, 13, 0x80, 0xff, 0xff, 0xff, 0xff],
            );
        },
    );
    measure(
        "identifications, and echoes unread",
        AFTER_HTTP_MAX,
        &asked,
        |client| {
            for _ in 0..200 {
                client.frame(raw_client::LCP, &[12, 1, 0, 9, 0, 0, 0, 0, 65]);
                client.frame(raw_client::LCP, &[9, 1, 0, 8, 0, 0, 0, 0]);
            }
        },
    );
}

/// The most that a peer can make a session keep: a record, a packet and answers, each in part.
#[test]
fn preauth_memory_has_a_bound_whatever_the_peer_does() {
    let version = Version::Tls13;
    client(version).come_up(METHOD);
    let mut client = client(version);
    client.shake_hands().http().call().lcp();
    let mut packet = vec![0; 4_000];
    packet[..4].copy_from_slice(&[0x10, 0x00, 0x0f, 0xff]);
    client.send(&packet);
    let mut record = vec![0; 16_000];
    record[..5].copy_from_slice(&[23, 3, 3, 0x40, 0x10]);
    client.deliver(&record);
    println!("a packet and a record in part: {} bytes", client.memory);
    assert!(client.closed.is_none());
    assert!(
        client.memory <= 12 * 1024 + 16_656 + 4_095 + 512,
        "{} bytes",
        client.memory
    );
}

#[test]
fn preauth_memory_is_given_back() {
    let version = Version::Tls13;
    client(version).come_up(METHOD);
    let mut first = client(version);
    first.come_up(METHOD);
    first.terminate();
    first.advance(Duration::from_secs(20));
    assert!(first.closed.is_some());
    println!("ended, its session not dropped yet: {} bytes", first.memory);
    assert!(first.memory <= 2_048, "{} bytes", first.memory);
}

/// Resident memory of this process in bytes.
#[expect(clippy::disallowed_methods, reason = "the kernel says it in a file")]
fn resident() -> i64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: i64 = statm.split_whitespace().nth(1).unwrap().parse().unwrap();
    pages * 4_096
}

#[test]
fn preauth_memory_as_the_kernel_sees_it() {
    const SESSIONS: i64 = 1_000;
    let (tls, profile) = ends(Version::Tls13);
    let parked = |reach: fn(&mut Client)| {
        let settings = ServerSettings {
            tls: Arc::clone(&tls),
            ..settings(METHOD)
        };
        let mut client = Client::with(settings, &profile, true, 1);
        reach(&mut client);
        assert!(client.closed.is_none());
        Box::new(client.session)
    };
    type Reach = fn(&mut Client);
    let stages: [(&str, Reach, i64); 4] = [
        (
            "a whole hello",
            |client| {
                let hello = client.take_first_flight();
                client.deaf = true;
                client.deliver(&hello);
            },
            BEFORE_HTTP_MAX,
        ),
        (
            "HTTP done",
            |client| {
                client.shake_hands().http();
            },
            AFTER_HTTP_MAX,
        ),
        (
            "proof given",
            |client| {
                client.shake_hands().http().call().lcp().prove(METHOD);
            },
            AFTER_HTTP_MAX,
        ),
        (
            "idle and up",
            |client| {
                client.come_up(METHOD).advance(Duration::from_secs(50));
            },
            IDLE_MAX,
        ),
    ];
    let mut all = Vec::new();
    for (name, reach, bound) in stages {
        // So that what the client's side leaves behind is reused, not added.
        drop((0..50).map(|_| parked(reach)).collect::<Vec<_>>());
        let mut sessions = Vec::with_capacity(1_000);
        let before = resident();
        for _ in 0..SESSIONS {
            sessions.push(parked(reach));
        }
        let each = (resident() - before) / SESSIONS;
        println!("{name}: {each} bytes of resident memory each");
        assert!(each <= bound, "{name}: {each} bytes");
        // Kept, so that the next stage finds no memory to use again.
        all.push(sessions);
    }
    drop(black_box(all));
}
