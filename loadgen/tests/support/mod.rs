//! A small SSTP server for the tests: the data path's server role on its own thread, one user, a
//! reflector on the inside, and certificates made on the spot.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;

use datapath::crypto::hlak::Hlak;
use datapath::crypto::mschapv2;
use datapath::crypto::nt_hash::nt_password_hash;
use datapath::http::ProbeAnswer;
use datapath::io::{Io, Waker};
use datapath::ip::checksum;
use datapath::ppp::auth::eap_mschapv2::Authenticator;
use datapath::ppp::auth::{AuthMethod, Credentials, Verdict};
use datapath::ppp::link::AuthenticatorConfig;
use datapath::session::event::{EndReason, Event};
use datapath::session::policy::{Answer, Ipv4Policy, Ipv6Policy, Policy, Question, Refusal};
use datapath::session::{Limits, ServerSettings};
use datapath::shard::counters::Published;
use datapath::shard::handoff::Mailbox;
use datapath::shard::route::Directory;
use datapath::shard::{self, Commands, Inside, Owner, SessionId, Shard};
use datapath::sstp::Timing;
use datapath::sstp::binding::HashBitmask;
use datapath::sys::driver::{self, Choice, Driver};
use datapath::sys::entropy::SystemEntropy;
use datapath::sys::socket::{self, ListenOptions};
use datapath::sys::uring::Rung;
use datapath::time::{Duration, Instant};
use datapath::tls::{ServerGeneration, TlsOptions};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};
use rustls_pki_types::PrivateKeyDer;

pub(crate) const NAME: &str = "vpn.example";
pub(crate) const USER: &str = "alice";
pub(crate) const PASSWORD: &str = "clientPass";

/// Which driver both ends of a test have; `tests/run` runs them with each.
pub(crate) fn driver() -> String {
    std::env::var("SSTP_GW_DRIVER").unwrap_or_else(|_| "auto".to_owned())
}

/// What the server is to be like.
#[derive(Debug)]
pub(crate) struct Wishes {
    pub(crate) methods: Vec<AuthMethod>,
    pub(crate) ipv6: bool,
    /// What the certificate's authority is called.
    pub(crate) authority: &'static str,
    /// End every session so long after it came up.
    pub(crate) session_timeout: Option<Duration>,
    /// Sessions it holds at once.
    pub(crate) sessions: usize,
    /// Does nothing at all for so long, once, so long after the first session came up.
    pub(crate) stall: Option<(Duration, Duration)>,
}

impl Default for Wishes {
    fn default() -> Self {
        Self {
            methods: vec![AuthMethod::MsChapV2, AuthMethod::Eap, AuthMethod::Pap],
            ipv6: true,
            authority: "test root",
            session_timeout: None,
            sessions: 8,
            stall: None,
        }
    }
}

/// A server on loopback that ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) ca: PathBuf,
    _dir: tempfile::TempDir,
    stop: Arc<AtomicBool>,
    up: mpsc::Receiver<()>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(wishes: Wishes) -> Self {
        Self::with_certificate(wishes, |_| {})
    }

    /// A server whose certificate `change` had its hands on.
    pub(crate) fn with_certificate(
        wishes: Wishes,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ca = dir.path().join("ca.pem");
        let generation = certificate(wishes.authority, &ca, change);
        let settings = Arc::new(ServerSettings {
            tls: Arc::new(generation),
            timing: Timing::default(),
            offered: HashBitmask::BOTH,
            link: Arc::new(AuthenticatorConfig {
                methods: wishes.methods.clone(),
                ipv6: wishes.ipv6,
                ..AuthenticatorConfig::default()
            }),
            limits: Limits::default(),
            probe: ProbeAnswer::default(),
        });
        let listener = socket::listen(([127, 0, 0, 1], 0).into(), &ListenOptions::default());
        let listener = listener.unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let (tell_up, up) = mpsc::channel();
        let owner = TestOwner {
            settings,
            wishes,
            stop: Arc::clone(&stop),
            up: tell_up,
            drained: false,
            answers: Vec::new(),
            eap: HashMap::new(),
            sessions_up: 0,
            stall_at: None,
        };
        let sessions = owner.wishes.sessions;
        let (send_waker, receive_waker) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let config = driver::Config {
                submission_entries: 64,
                receive_buffers: 8,
                connections: u32::try_from(sessions).unwrap(),
                listeners: vec![listener],
                ..driver::Config::default()
            };
            let choice = match driver().as_str() {
                "auto" => Choice::Auto,
                "io_uring" => Choice::IoUring(Rung::NoArray),
                "epoll" => Choice::Epoll,
                other => panic!("SSTP_GW_DRIVER={other}: auto, io_uring or epoll"),
            };
            let driver = Driver::open(choice, config).unwrap();
            send_waker.send(driver.waker()).unwrap();
            let config = shard::Config {
                index: 0,
                connections_max: sessions,
                handshakes_max: sessions,
                send_buffers: sessions,
                inside: Inside::Reflector,
                offloads: None,
                copy_and_sum: checksum::copy_and_sum,
                isolate: false,
                directory: Arc::new(Directory::new(&[])),
                mailboxes: Arc::new([Mailbox::new(1)]),
                published: Published::new(),
            };
            Shard::new(driver, owner, SystemEntropy, config)
                .run()
                .unwrap();
        });
        Self {
            address,
            ca,
            _dir: dir,
            stop,
            up,
            waker: receive_waker.recv().unwrap(),
            thread: Some(thread),
        }
    }
}

impl Server {
    /// Waits until so many sessions have come up, besides those waited for before.
    pub(crate) fn wait_for_sessions(&self, count: usize) {
        for _ in 0..count {
            self.up.recv_timeout(Duration::from_secs(60)).unwrap();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.waker.wake();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(
                ended.is_ok() || std::thread::panicking(),
                "the server panicked"
            );
        }
    }
}

/// Writes the authority's certificate to `ca` and returns a leaf of it.
fn certificate(
    authority: &str,
    ca: &Path,
    change: impl FnOnce(&mut CertificateParams),
) -> ServerGeneration {
    let mut root = CertificateParams::default();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    root.distinguished_name.push(DnType::CommonName, authority);
    let root = CertifiedIssuer::self_signed(root, KeyPair::generate().unwrap()).unwrap();
    std::fs::write(ca, root.pem()).unwrap();
    let mut leaf = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    change(&mut leaf);
    let key = KeyPair::generate().unwrap();
    let leaf = leaf.signed_by(&key, &root).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    ServerGeneration::new(vec![leaf.der().clone()], key, &TlsOptions::default()).unwrap()
}

#[derive(Debug)]
struct TestOwner {
    settings: Arc<ServerSettings>,
    wishes: Wishes,
    stop: Arc<AtomicBool>,
    /// Told of each session that came up.
    up: mpsc::Sender<()>,
    drained: bool,
    answers: Vec<(SessionId, Answer)>,
    eap: HashMap<SessionId, Authenticator>,
    sessions_up: u8,
    stall_at: Option<Instant>,
}

impl TestOwner {
    fn judge(&mut self, credentials: &Credentials) -> Answer {
        let hash = nt_password_hash(PASSWORD);
        let proof = match credentials {
            Credentials::Pap { user, password } => (user == USER.as_bytes()
                && password.as_slice() == PASSWORD.as_bytes())
            .then(|| (Hlak::ZERO, b"welcome".to_vec())),
            Credentials::MsChapV2 {
                user,
                challenge,
                peer_challenge,
                nt_response,
                ..
            } if user == USER.as_bytes() => {
                mschapv2::verify_nt_response(challenge, peer_challenge, user, &hash, nt_response)
                    .map(|proof| (proof.hlak, proof.authenticator_response.to_vec()))
            }
            _ => None,
        };
        match proof {
            Some((hlak, message)) => Answer::Accept {
                hlak,
                message,
                policy: Box::new(self.policy()),
            },
            None => Answer::Reject {
                error: 691,
                message: b"no".to_vec(),
                eap: None,
                refusal: Refusal::Credentials,
            },
        }
    }

    /// EAP-MSCHAPv2 goes several rounds; the first response is the identity.
    fn judge_eap(&mut self, session: SessionId, identity: &[u8], response: &[u8]) -> Answer {
        let hash = nt_password_hash(PASSWORD);
        let hash = (identity == USER.as_bytes()).then_some(&hash);
        let eap = self
            .eap
            .entry(session)
            .or_insert_with(|| Authenticator::new(identity, &mut SystemEntropy));
        match eap.handle_response(response, hash) {
            Verdict::Accept { hlak, message } => Answer::Accept {
                hlak,
                message,
                policy: Box::new(self.policy()),
            },
            Verdict::Reject {
                error,
                message,
                eap,
            } => Answer::Reject {
                error,
                message,
                eap,
                refusal: Refusal::Credentials,
            },
            Verdict::Continue { request } => Answer::Continue { request },
        }
    }

    /// Each session gets the next address, from 10.8.0.2 on.
    fn policy(&mut self) -> Policy {
        let host = 2 + self.sessions_up;
        self.sessions_up = (self.sessions_up + 1) % 250;
        Policy {
            user: USER.as_bytes().to_vec(),
            ipv4: Some(Ipv4Policy {
                client: Ipv4Addr::new(10, 8, 0, host),
                gateway: Ipv4Addr::new(10, 8, 0, 1),
                dns: [Some(Ipv4Addr::new(9, 9, 9, 9)), None],
                nbns: [None; 2],
            }),
            ipv6: self.wishes.ipv6.then_some(Ipv6Policy {
                prefix: None,
                gateway: None,
                gateway_id: 1,
                client_id: None,
            }),
            mtu: 1400,
            session_timeout: self.wishes.session_timeout,
            idle_timeout: None,
            network: None,
        }
    }
}

impl Owner for TestOwner {
    fn accept(&mut self, _: SessionId, _: usize, _: SocketAddr) -> Option<Arc<ServerSettings>> {
        Some(Arc::clone(&self.settings))
    }

    fn ask(&mut self, session: SessionId, question: Question) {
        let Question::Authenticate { credentials, .. } = question;
        let answer = match &credentials {
            Credentials::Eap { identity, response } => self.judge_eap(session, identity, response),
            other => self.judge(other),
        };
        self.answers.push((session, answer));
    }

    fn event(&mut self, now: Instant, _: SessionId, event: Event) {
        if let Event::Up(_) = event {
            // Nobody may be interested.
            let _ = self.up.send(());
            if let Some((after, _)) = self.wishes.stall {
                self.stall_at.get_or_insert(now + after);
            }
        }
    }

    fn next_timeout(&self) -> Option<Instant> {
        self.stall_at.filter(|_| self.wishes.stall.is_some())
    }

    fn poll(&mut self, now: Instant, commands: &mut Commands) {
        if let (Some(at), Some((_, time))) = (self.stall_at, self.wishes.stall)
            && at <= now
        {
            self.wishes.stall = None;
            std::thread::sleep(time);
        }
        for (session, answer) in self.answers.drain(..) {
            commands.answer(session, answer);
        }
        if self.stop.load(Ordering::Acquire) && !self.drained {
            self.drained = true;
            commands.drain(EndReason::Shutdown, Duration::from_secs(2));
        }
    }
}

/// Says loudly that test `name` did not run, and why; in $SSTP_GW_SKIPPED too.
pub(crate) fn skip(name: &str, why: &str) {
    eprintln!("SKIPPED {name}: {why}");
    if let Some(path) = std::env::var_os("SSTP_GW_SKIPPED") {
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.create(true).append(true).open(path).unwrap();
        std::io::Write::write_all(&mut file, format!("{name}: {why}\n").as_bytes()).unwrap();
    }
}
