//! A scripted client before one server session: it says exactly the bytes it is told to say.
//!
//! Up to the end of the HTTP exchange it uses the crate's own client side; from there on it writes
//! packets byte by byte, so that it can be as wrong as a test wants it. With golden entropy the
//! session draws the nonce and the challenge of the specification's worked examples, and the right
//! answers are literal bytes.
#![allow(dead_code, reason = "each test crate uses its own part")]

mod edge;

use std::collections::VecDeque;
use std::sync::Arc;

use datapath::crypto::chap_md5;
use datapath::crypto::hlak::Hlak;
use datapath::crypto::nt_hash::nt_password_hash;
use datapath::io::Loss;
use datapath::ppp::auth::{AuthMethod, Credentials, Verdict, eap_mschapv2};
use datapath::ppp::link::AuthenticatorConfig;
use datapath::session::event::{EndReason, Event};
use datapath::session::policy::{Answer, Question, Refusal};
use datapath::session::{Disposition, ServerSettings, Session};
use datapath::sstp::binding::{CertificateHashes, HashProtocol, Nonce, compute};
use datapath::testing::fixtures::{self, PASSWORD, USER};
use datapath::testing::pair::SharedRng;
use datapath::time::{Duration, Instant};
use datapath::tls::{self, CertHashes, ClientProfile, Opened, Progress, ServerGeneration};
use hex_literal::hex;
use rustls_pki_types::ServerName;

use self::edge::{Scripted, ScriptedEdge, held};

pub(crate) const LCP: u16 = 0xc021;
pub(crate) const PAP: u16 = 0xc023;
pub(crate) const CHAP: u16 = 0xc223;
pub(crate) const EAP: u16 = 0xc227;
pub(crate) const IPCP: u16 = 0x8021;
pub(crate) const IPV6CP: u16 = 0x8057;

/// CALL_CONNECT_REQUEST (MS-SSTP §2.2.9).
pub(crate) const REQUEST: [u8; 14] = hex!("1001000e00010001000100060001");

/// The number that [`fixtures::policy`] makes the client's addresses from.
pub(crate) const NUMBER: u16 = 5;

/// CHAP Response of MS-CHAPv2 (RFC 2759 §9.2) to the golden challenge, identifier 1.
pub(crate) const MSCHAPV2_RESPONSE: [u8; 58] = hex!(
    "0201003a3121402324255e262a28295f2b3a337c7e000000000000000082309ecd8d708b5ea08faa3981cd83544233"
    "114a3d85d6df0055736572"
);
/// The same inside EAP.
const EAP_MSCHAPV2_RESPONSE: [u8; 63] = hex!(
    "0201003f1a0201003a3121402324255e262a28295f2b3a337c7e000000000000000082309ecd8d708b5ea08faa3981"
    "cd83544233114a3d85d6df0055736572"
);
pub(crate) const PAP_REQUEST: [u8; 20] = hex!("0101001404557365720a636c69656e7450617373");

/// The HLAK that RFC 2759 §9.2 leads to, by RFC 3079 and MS-SSTP §3.2.5.2.
pub(crate) const MSCHAPV2_HLAK: Hlak = Hlak::from_bytes(hex!(
    "d5f0e9521e3ea9589645e86051c822268b7cdc149b993a1ba118cb153f56dccb"
));

/// Hashes of the stand-in certificate of the worked examples: the bytes 00, 01, …, ff.
pub(crate) const GOLDEN_CERTIFICATE: CertHashes = CertHashes {
    sha1: hex!("4916d6bdb7f78e6803698cab32d1586ea457dfc8"),
    sha256: hex!("40aff2e9d2d8922e47afd4648e6967497158785fbd1da870e7110266bf944880"),
};

/// Server settings that offer one method.
pub(crate) fn settings(method: AuthMethod) -> ServerSettings {
    let mut settings =
        fixtures::server_settings_with(Arc::new(ServerGeneration::null(GOLDEN_CERTIFICATE)));
    settings.link = Arc::new(AuthenticatorConfig {
        methods: vec![method],
        ..AuthenticatorConfig::default()
    });
    settings
}

/// The client, and the session it torments.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) session: Session,
    pub(crate) edge: ScriptedEdge,
    pub(crate) now: Instant,
    /// The session wants its connection closed; with RST?
    pub(crate) closed: Option<bool>,
    /// The session has sent FIN.
    pub(crate) shut: bool,
    /// SSTP control packets received.
    pub(crate) control: Vec<Vec<u8>>,
    /// PPP control frames received and not looked at: protocol, information.
    pub(crate) frames: VecDeque<(u16, Vec<u8>)>,
    /// IP packets received.
    pub(crate) data: Vec<Vec<u8>>,
    /// Whether every Configure-Request is acknowledged.
    pub(crate) acks: bool,
    /// Whether user data is pushed both ways after every step.
    pub(crate) pushes: bool,
    /// What the session sends is not read.
    pub(crate) deaf: bool,
    /// The owner's final word, not given yet.
    pub(crate) verdict: Option<Answer>,
    /// The head of the HTTP answer.
    pub(crate) head: Vec<u8>,
    /// Memory of the session, if the counting allocator is installed.
    pub(crate) memory: i64,
    /// The most of it at any time between two steps.
    pub(crate) memory_max: i64,
    handshake: Option<tls::Handshake>,
    pub(crate) tls: Option<tls::Connection>,
    certificate: Option<CertHashes>,
    stream: Vec<u8>,
    plaintext: Vec<u8>,
    eap: Option<eap_mschapv2::Authenticator>,
}

impl Client {
    /// A connection just accepted, with the golden nonce and challenge.
    pub(crate) fn new(settings: ServerSettings) -> Self {
        Self::with(settings, &Arc::new(ClientProfile::null()), true, 1)
    }

    /// A connection just accepted.
    pub(crate) fn with(
        settings: ServerSettings,
        profile: &Arc<ClientProfile>,
        golden: bool,
        seed: u64,
    ) -> Self {
        let now = Instant::from_nanos(1_000_000_000);
        let name = ServerName::try_from("vpn.example.com").unwrap();
        let settings = Arc::new(settings);
        let before = held();
        let session = Session::accept(now, settings, ([192, 0, 2, 9], 50_000).into()).unwrap();
        let memory = held() - before + i64::try_from(size_of::<Session>()).unwrap();
        let mut handshake = tls::Handshake::client(profile, name).unwrap();
        let mut flight = Vec::new();
        handshake.handle_bytes(&[], &mut flight).unwrap();
        let entropy = Scripted {
            rng: SharedRng::new(seed),
            golden,
        };
        Self {
            session,
            edge: ScriptedEdge {
                inside: Vec::new(),
                questions: VecDeque::new(),
                events: Vec::new(),
                drops: Vec::new(),
                entropy,
                own: 0,
            },
            now,
            closed: None,
            shut: false,
            control: Vec::new(),
            frames: VecDeque::new(),
            data: Vec::new(),
            acks: true,
            pushes: false,
            deaf: false,
            verdict: None,
            head: Vec::new(),
            memory,
            memory_max: memory,
            handshake: Some(handshake),
            tls: None,
            certificate: None,
            // What it would say first; sent by `shake_hands`.
            stream: flight,
            plaintext: Vec::new(),
            eap: None,
        }
    }

    // The session's side

    /// Lets the session work, and counts its memory.
    fn drive<T>(&mut self, work: impl FnOnce(&mut Session, Instant, &mut ScriptedEdge) -> T) -> T {
        let (before, own) = (held(), self.edge.own);
        let result = work(&mut self.session, self.now, &mut self.edge);
        self.memory += held() - before - (self.edge.own - own);
        self.memory_max = self.memory_max.max(self.memory);
        result
    }

    /// Bytes of the connection, as they are.
    pub(crate) fn deliver(&mut self, bytes: &[u8]) {
        let mut bytes = bytes.to_vec();
        if self.closed.is_none() {
            self.drive(|session, now, edge| session.receive(now, &mut bytes, edge));
        }
        self.pump();
    }

    /// Takes everything that the session sends, answers what is answered by itself.
    fn pump(&mut self) {
        loop {
            if self.closed.is_some() {
                return;
            }
            if let Some(buffer) = self.drive(|session, now, edge| session.poll_send(now, edge)) {
                self.stream
                    .extend_from_slice(&buffer.bytes[buffer.start..buffer.end]);
                self.drive(|session, now, edge| {
                    drop(buffer);
                    session.sent(now, Ok(()), edge);
                });
                self.read();
                continue;
            }
            match self.session.disposition() {
                Disposition::Keep => return,
                Disposition::Shutdown => {
                    self.shut = true;
                    return;
                }
                Disposition::Close { reset } => self.closed = Some(reset),
            }
        }
    }

    /// The peer's FIN.
    pub(crate) fn finish(&mut self) {
        if self.closed.is_none() {
            self.drive(|session, _, edge| session.receive_ended(Loss::Finished, edge));
        }
        self.pump();
    }

    /// The owner ends the session.
    pub(crate) fn terminate(&mut self) {
        self.drive(|session, now, edge| session.terminate(now, EndReason::Administrative, edge));
        self.pump();
    }

    /// Lets time pass; the session is asked at each of its deadlines.
    pub(crate) fn advance(&mut self, duration: Duration) {
        let until = self.now + duration;
        while self.closed.is_none()
            && let Some(at) = self.session.next_timeout()
            && at <= until
        {
            self.now = self.now.max(at);
            self.drive(|session, now, edge| session.handle_timeout(now, edge));
            self.pump();
        }
        self.now = until;
    }

    pub(crate) fn end(&self) -> Option<EndReason> {
        self.edge.events.iter().find_map(|event| match event {
            Event::Ended(ended) => Some(ended.reason),
            _ => None,
        })
    }

    pub(crate) fn is_up(&self) -> bool {
        self.edge
            .events
            .iter()
            .any(|event| matches!(event, Event::Up(_)))
    }

    // The peer's side

    fn read(&mut self) {
        if self.deaf {
            return;
        }
        if let Some(handshake) = &mut self.handshake {
            let bytes = std::mem::take(&mut self.stream);
            let mut flight = Vec::new();
            let progress = handshake.handle_bytes(&bytes, &mut flight);
            if matches!(progress, Ok(Progress::Done)) {
                let done = self.handshake.take().unwrap().finish().unwrap();
                self.tls = Some(done.connection);
                self.certificate = Some(done.info.certificate);
                self.stream = done.rest;
            }
            if !flight.is_empty() {
                self.deliver(&flight);
            }
        }
        let Some(tls) = &mut self.tls else { return };
        while let Ok(Some(len)) = tls::Connection::record_len(&self.stream)
            && len <= self.stream.len()
        {
            let mut record: Vec<u8> = self.stream.drain(..len).collect();
            if let Ok(Opened::Data(plaintext)) = tls.open(&mut record) {
                self.plaintext.extend_from_slice(plaintext);
            }
        }
        if self.head.is_empty() {
            let Some(end) = self
                .plaintext
                .windows(4)
                .position(|four| four == b"\r\n\r\n")
            else {
                return;
            };
            self.head = self.plaintext.drain(..end + 4).collect();
        }
        let mut answers = Vec::new();
        while let Some(&[_, kind, high, low]) = self.plaintext.first_chunk::<4>() {
            let len = usize::from(u16::from_be_bytes([high, low]));
            if self.plaintext.len() < len {
                break;
            }
            let packet: Vec<u8> = self.plaintext.drain(..len).collect();
            if kind & 1 == 1 {
                self.control.push(packet);
                continue;
            }
            assert_eq!(packet[4..6], [0xff, 0x03]);
            let protocol = u16::from_be_bytes([packet[6], packet[7]]);
            let information = packet[8..].to_vec();
            match (protocol, information[0]) {
                (0x0021 | 0x0057, _) => self.data.push(information),
                (LCP | IPCP | IPV6CP, 1) if self.acks => {
                    answers.push((protocol, [&[2], &information[1..]].concat()));
                }
                _ => self.frames.push_back((protocol, information)),
            }
        }
        for (protocol, information) in answers {
            self.send(&data_packet(protocol, &information));
        }
    }

    /// Sends plaintext in one record.
    pub(crate) fn send(&mut self, plaintext: &[u8]) {
        let Some(tls) = &mut self.tls else { return };
        let (prefix, suffix) = (tls.prefix_len(), tls.suffix_len());
        let mut record = [&vec![0; prefix], plaintext, &vec![0; suffix]].concat();
        let Ok(len) = tls.seal(&mut record, plaintext.len()) else {
            return;
        };
        self.deliver(&record[..len]);
    }

    /// Sends one SSTP packet; then, if wanted, pushes user data both ways.
    pub(crate) fn say(&mut self, packet: &[u8]) {
        self.push();
        self.send(packet);
        self.push();
    }

    /// Sends a PPP frame.
    pub(crate) fn frame(&mut self, protocol: u16, information: &[u8]) {
        self.say(&data_packet(protocol, information));
    }

    /// User data both ways, in every form there is for it, if that is wanted.
    pub(crate) fn push(&mut self) {
        if self.pushes && !self.head.is_empty() {
            self.push_data();
        }
    }

    /// User data both ways, with the addresses that the session would have.
    pub(crate) fn push_data(&mut self) {
        let policy = fixtures::policy(NUMBER);
        let client = policy.ipv4.unwrap().client;
        let outside = [192, 0, 2, 1].into();
        let up = fixtures::udp(client, outside, b"up");
        let down = fixtures::udp(outside, client, b"down");
        let mut up_v6 = vec![0x60, 0, 0, 0, 0, 0, 59, 64];
        up_v6.extend(policy.ipv6.unwrap().prefix.unwrap().octets());
        up_v6.extend([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        let mut down_v6 = up_v6.clone();
        down_v6[8..40].rotate_left(16);
        let forms = [
            data_packet(0x0021, &up),
            data_packet(0x0057, &up_v6),
            // Compressed address, control and protocol fields (RFC 1661 §6.5, §6.6).
            sstp_packet(&[&[0x21], &up[..]].concat()),
            sstp_packet(&[&[0x00, 0x21], &up[..]].concat()),
        ];
        for form in &forms {
            self.send(form);
        }
        for packet in [down, down_v6] {
            if self.closed.is_none() {
                self.drive(|session, now, edge| session.send_packet(now, &packet, edge));
            }
        }
        self.pump();
    }

    // The steps of a set-up

    /// The TLS handshake.
    pub(crate) fn shake_hands(&mut self) -> &mut Self {
        let flight = std::mem::take(&mut self.stream);
        self.deliver(&flight);
        assert!(self.tls.is_some(), "{:?}", self.edge.events);
        self
    }

    /// What the client would send first, for those who send it in pieces.
    pub(crate) fn take_first_flight(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.stream)
    }

    /// The HTTP exchange.
    pub(crate) fn http(&mut self) -> &mut Self {
        self.send(&http_request());
        assert!(self.head.starts_with(b"HTTP/1.1 200 OK\r\n"));
        self
    }

    /// CALL_CONNECT_REQUEST, which is acknowledged.
    pub(crate) fn call(&mut self) -> &mut Self {
        self.say(&REQUEST);
        let ack = self.control.last().expect("an answer");
        assert_eq!(ack[..15], hex!("100100300002000100040028000000"));
        self
    }

    /// The nonce in the CALL_CONNECT_ACK.
    pub(crate) fn nonce(&self) -> [u8; 32] {
        let ack = self
            .control
            .iter()
            .find(|packet| packet[4..6] == [0, 2])
            .unwrap();
        ack[16..48].try_into().unwrap()
    }

    /// LCP, up to the point where the peer has to prove itself.
    pub(crate) fn lcp(&mut self) -> &mut Self {
        self.frame(LCP, &hex!("0101000a0506a1b2c3d4"));
        let (protocol, ack) = self.frames.pop_front().expect("an answer");
        assert_eq!((protocol, &ack[..2]), (LCP, &[2, 1][..]));
        self.advance(Duration::from_millis(200));
        self
    }

    /// The proof, by `method`; the owner's last word stays with the test.
    pub(crate) fn prove(&mut self, method: AuthMethod) -> &mut Self {
        match method {
            AuthMethod::Pap => self.frame(PAP, &PAP_REQUEST),
            AuthMethod::MsChapV2 => {
                self.frames.retain(|(protocol, _)| *protocol != CHAP);
                self.frame(CHAP, &MSCHAPV2_RESPONSE);
            }
            AuthMethod::ChapMd5 => {
                let (_, challenge) = self.frames.pop_front().expect("a challenge");
                assert_eq!(challenge[..5], [1, 1, 0, challenge[3], 16]);
                let value = chap_md5::response(1, PASSWORD.as_bytes(), &challenge[5..21]);
                self.frame(
                    CHAP,
                    &[&hex!("0201001910")[..], &value, USER.as_bytes()].concat(),
                );
            }
            AuthMethod::Eap => {
                self.frame(EAP, &hex!("020000090155736572"));
                self.judge();
                self.frame(EAP, &EAP_MSCHAPV2_RESPONSE);
                self.judge();
                self.frame(EAP, &hex!("020200061a03"));
            }
        }
        self.judge();
        self.frames.clear();
        assert!(
            matches!(self.verdict, Some(Answer::Accept { .. })),
            "{:?}",
            self.verdict
        );
        self
    }

    /// Forms the owner's answer; only EAP's intermediate requests are given to the session.
    fn judge(&mut self) {
        let Some(question) = self.edge.questions.pop_front() else {
            return;
        };
        let answer = self.answer_to(&question);
        if let Answer::Continue { .. } = answer {
            self.answer(answer);
        } else {
            self.verdict = Some(answer);
        }
    }

    fn answer_to(&mut self, question: &Question) -> Answer {
        let Question::Authenticate { credentials, .. } = question;
        let policy = Box::new(fixtures::policy(NUMBER));
        match credentials {
            Credentials::ChapMd5 {
                identifier,
                challenge,
                response,
                ..
            } => {
                assert!(chap_md5::verify(
                    *identifier,
                    PASSWORD.as_bytes(),
                    challenge,
                    response
                ));
                Answer::Accept {
                    hlak: Hlak::ZERO,
                    message: Vec::new(),
                    policy,
                }
            }
            Credentials::Eap { identity, response } => {
                let mut entropy = self.edge.entropy.clone();
                let eap = self.eap.get_or_insert_with(|| {
                    eap_mschapv2::Authenticator::new(identity, &mut entropy)
                });
                let hash = nt_password_hash(PASSWORD);
                match eap.handle_response(response, Some(&hash)) {
                    Verdict::Accept { hlak, message } => Answer::Accept {
                        hlak,
                        message,
                        policy,
                    },
                    Verdict::Continue { request } => Answer::Continue { request },
                    Verdict::Reject {
                        error,
                        message,
                        eap,
                    } => {
                        let refusal = Refusal::Credentials;
                        Answer::Reject {
                            error,
                            message,
                            eap,
                            refusal,
                        }
                    }
                }
            }
            _ => fixtures::judge(question, NUMBER),
        }
    }

    /// Gives the session an answer.
    pub(crate) fn answer(&mut self, answer: Answer) {
        if self.closed.is_none() {
            self.drive(|session, now, edge| session.handle_answer(now, answer, edge));
        }
        self.pump();
        self.push();
    }

    /// Gives the owner's last word.
    pub(crate) fn accept(&mut self) -> &mut Self {
        let answer = self.verdict.take().expect("a verdict");
        self.answer(answer);
        self
    }

    /// IPCP and IPV6CP.
    pub(crate) fn network(&mut self) -> &mut Self {
        let [a, b, c, d] = fixtures::policy(NUMBER).ipv4.unwrap().client.octets();
        self.frame(IPCP, &[1, 1, 0, 10, 3, 6, a, b, c, d]);
        self.frame(IPV6CP, &hex!("0101000e010a0200000000000077"));
        self
    }

    /// The right CALL_CONNECTED for this connection and the proof that was given.
    pub(crate) fn bind(&mut self, method: AuthMethod) -> &mut Self {
        let CertHashes { sha1, sha256 } = self.certificate.unwrap();
        let key = match method {
            AuthMethod::MsChapV2 | AuthMethod::Eap => MSCHAPV2_HLAK,
            AuthMethod::Pap | AuthMethod::ChapMd5 => Hlak::ZERO,
        };
        let certificate = CertificateHashes { sha1, sha256 };
        let nonce = Nonce(self.nonce());
        self.say(compute(&key, &nonce, HashProtocol::Sha256, &certificate).packet());
        self
    }

    /// All the way up, by `method`.
    pub(crate) fn come_up(&mut self, method: AuthMethod) -> &mut Self {
        self.shake_hands()
            .http()
            .call()
            .lcp()
            .prove(method)
            .accept()
            .bind(method)
            .network();
        assert!(self.is_up(), "{:?}", self.edge.events);
        self
    }

    /// Everything up to the proof being judged.
    pub(crate) fn up_to_verdict(method: AuthMethod, pushes: bool) -> Self {
        let mut client = Self::new(settings(method));
        client.pushes = pushes;
        client.shake_hands().http().call().lcp().prove(method);
        client
    }
}

/// The HTTP request of an SSTP client.
pub(crate) fn http_request() -> Vec<u8> {
    let mut request = Vec::new();
    datapath::http::emit_request(
        "vpn.example.com",
        &[7; 16],
        &datapath::http::RequestStyle::default(),
        &mut request,
    );
    request
}

/// An SSTP data packet.
pub(crate) fn sstp_packet(payload: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(payload.len() + 4).unwrap().to_be_bytes();
    [&[0x10, 0x00, high, low], payload].concat()
}

/// An SSTP data packet with a PPP frame.
pub(crate) fn data_packet(protocol: u16, information: &[u8]) -> Vec<u8> {
    let [high, low] = protocol.to_be_bytes();
    sstp_packet(&[&[0xff, 0x03, high, low], information].concat())
}
