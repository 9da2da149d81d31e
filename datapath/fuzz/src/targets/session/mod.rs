//! A whole server session: what its peer sends, when, and what its owner and its kernel do to it.
//!
//! The harness sits in the middle: it speaks the null TLS with a cooperative client on one side and
//! with the server on the other. So an input can let the two log in and then say anything in the
//! client's name, with the keys, the state and the binding right.

mod middle;
mod watch;

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::Arc;

use datapath::crypto::nt_hash::nt_password_hash;
use datapath::io::Loss;
use datapath::ppp::auth::{AuthMethod, Credentials, Verdict, eap_mschapv2};
use datapath::ppp::frame;
use datapath::session::event::EndReason;
use datapath::session::policy::{Answer, Question, Refusal};
use datapath::session::{Disposition, ServerSettings, Session};
use datapath::testing::fixtures::{self, CERTIFICATE, PASSWORD, USER};
use datapath::testing::pair::TestEdge;
use datapath::time::{Duration, Instant};
use datapath::tls;

use super::{Input, Seeded};
use middle::Middle;
use watch::Watch;

/// The session's number: its client is `10.8.0.7`, its prefix `fd00:8:0:7::/64`.
const NUMBER: u16 = 7;

/// Operations of one input that count; more of the same finds nothing new.
const OPERATIONS_MAX: usize = 200;

/// What the session may send unasked, and then per byte received, per packet from the inside and
/// per event of the owner, the clock or the kernel. The smallest frame that is answered has 12
/// bytes; a request that opens LCP anew is answered by some 100 in three records.
const SENT_UNASKED: usize = 1_024;
const SENT_PER_BYTE: usize = 16;
const SENT_PER_EVENT: usize = 2_048;

/// Runs the operations of one input; the first byte chooses the method and how far to cooperate.
pub fn server_session(bytes: &[u8]) {
    let mut input = Input(bytes);
    let mut world = World::new(input.u8());
    for _ in 0..OPERATIONS_MAX {
        if input.is_empty() || world.is_closed() {
            break;
        }
        let operation = input.u8();
        world.step(operation, &mut input);
        world.check();
    }
    world.end();
}

/// Whether an input that begins with this byte starts behind the login.
pub fn starts_up(selector: u8) -> bool {
    World::new(selector).watch.is_up
}

struct World {
    now: Instant,
    settings: Arc<ServerSettings>,
    server: Session,
    watch: Watch,
    /// Set while a buffer of the server is with its kernel.
    in_flight: bool,
    client: Session,
    client_edge: TestEdge,
    to_server: Middle,
    to_client: Middle,
    /// What the bound on [`World::sent`] is made of: bytes from the outside, events, and bytes of
    /// the inside and the owner.
    received: usize,
    events: usize,
    offered: usize,
    /// Bytes that the server gave to its kernel.
    sent: usize,
    /// Deliveries to the server come in pieces of this many bytes.
    piece_len: usize,
    eap: eap_mschapv2::Authenticator,
}

impl World {
    fn new(selector: u8) -> Self {
        let now = Instant::from_nanos(1_000_000_000);
        let peer = ([192, 0, 2, 9], 4_433).into();
        let method = match selector & 0x03 {
            0 | 1 => AuthMethod::Pap,
            2 => AuthMethod::MsChapV2,
            _ => AuthMethod::Eap,
        };
        let settings = Arc::new(fixtures::server_settings());
        let client_settings = Arc::new(fixtures::client_settings(USER, PASSWORD, method));
        let profile = Arc::new(tls::ClientProfile::null());
        let generation = Arc::new(tls::ServerGeneration::null(CERTIFICATE));
        let name = client_settings.server_name.clone();
        let policy = fixtures::policy(NUMBER);
        let mut world = Self {
            now,
            server: Session::accept(now, Arc::clone(&settings), peer).expect("null TLS"),
            settings,
            watch: Watch {
                inside: 0,
                inside_bytes: 0,
                questions: VecDeque::new(),
                drops: 0,
                is_up: false,
                ended: false,
                may_answer_inside: false,
                client: policy.ipv4.expect("a dual policy").client,
                prefix: policy
                    .ipv6
                    .and_then(|ipv6| ipv6.prefix)
                    .expect("a dual policy"),
                entropy: Seeded(0x9e37_79b9_7f4a_7c15),
            },
            in_flight: false,
            client: Session::connect(now, client_settings, peer).expect("null TLS"),
            client_edge: TestEdge::new(3),
            to_server: Middle::new(tls::Handshake::client(&profile, name).expect("null TLS")),
            to_client: Middle::new(tls::Handshake::server(&generation).expect("null TLS")),
            received: 0,
            events: 0,
            offered: 0,
            sent: 0,
            piece_len: match selector >> 6 {
                0 | 1 => usize::MAX,
                2 => 1,
                _ => 7,
            },
            eap: eap_mschapv2::Authenticator::new(USER.as_bytes(), &mut Seeded(5)),
        };
        world.client.connected(now, &mut world.client_edge);
        match (selector >> 2) & 0x0f {
            // From the first byte on: TLS is the input's business too.
            0 => {}
            1 => {
                world.shake_hands();
            }
            // Up, or as far as the method's cooperation goes.
            2.. => {
                world.shake_hands();
                world.settle(true);
                for _ in 0..32 {
                    if world.watch.is_up || world.is_closed() {
                        break;
                    }
                    world.wait(true);
                    world.settle(true);
                }
            }
        }
        world.check();
        world
    }

    fn is_closed(&self) -> bool {
        matches!(self.server.disposition(), Disposition::Close { .. })
    }

    fn shake_hands(&mut self) {
        let mut hello = Vec::new();
        if let Some(handshake) = self.to_server.handshake.as_mut() {
            let _ = handshake.handle_bytes(&[], &mut hello);
        }
        self.deliver(&hello);
        self.server_speaks(true);
    }

    fn step(&mut self, operation: u8, input: &mut Input<'_>) {
        let variant = operation >> 4;
        match operation & 0x0f {
            0 => {
                if variant == 0 {
                    let bytes = input.chunk().to_vec();
                    self.deliver(&bytes);
                } else {
                    self.shake_hands();
                }
            }
            1 => {
                let bytes = input.chunk();
                self.say(bytes);
            }
            2 => {
                let kind = if variant == 15 {
                    input.u16()
                } else {
                    u16::from(variant)
                };
                let attributes = input.chunk();
                self.say_packet(1, &[&kind.to_be_bytes()[..], attributes].concat());
            }
            3 => self.say_frame(variant, input),
            4 => {
                let protocol = if variant & 1 == 0 { 0x0021 } else { 0x0057 };
                let header = [0xff, 0x03, 0x00, protocol];
                self.say_packet(0, &[&header[..], input.chunk()].concat());
            }
            5 => {
                let source = match variant & 0x03 {
                    0 | 1 => self.watch.client,
                    2 => fixtures::GATEWAY,
                    _ => Ipv4Addr::new(192, 0, 2, input.u8()),
                };
                let destination = match variant >> 2 {
                    0 => Ipv4Addr::new(198, 51, 100, 1),
                    1 => fixtures::GATEWAY,
                    2 => Ipv4Addr::BROADCAST,
                    _ => Ipv4Addr::new(224, 0, 0, input.u8()),
                };
                let packet = fixtures::udp(source, destination, input.chunk());
                self.say_packet(0, &[&[0xff, 0x03, 0x00, 0x21], &packet[..]].concat());
            }
            6 => {
                self.client_speaks(None);
            }
            7 => {
                self.server_speaks(variant & 1 == 0);
                if variant & 2 == 0 {
                    self.complete();
                }
            }
            8 => self.wait(variant & 1 == 0),
            9 => self.pass(Duration::from_millis(u64::from(input.u16()) * 4)),
            10 => self.answer(variant, input),
            11 => self.inside_sends(variant, input),
            12 => match variant & 0x07 {
                0 => {
                    self.in_flight = false;
                    self.events += 1;
                    self.server
                        .sent(self.now, Err(Loss::Reset), &mut self.watch);
                }
                1 => self.server.receive_ended(Loss::Finished, &mut self.watch),
                2 => self.server.receive_ended(Loss::TimedOut, &mut self.watch),
                _ => self.complete(),
            },
            13 => {
                self.events += 1;
                match variant & 0x07 {
                    0 | 1 => {
                        self.server
                            .terminate(self.now, EndReason::Administrative, &mut self.watch)
                    }
                    2 => self.server.abandon(EndReason::Shutdown, &mut self.watch),
                    3 => {
                        self.client.terminate(
                            self.now,
                            EndReason::UserRequest,
                            &mut self.client_edge,
                        );
                    }
                    4 => {
                        let mut policy = fixtures::policy(NUMBER);
                        policy.mtu = input.u16().max(576);
                        policy.idle_timeout = Some(Duration::from_secs(u64::from(input.u8())));
                        self.server
                            .set_policy(self.now, Box::new(policy), &mut self.watch);
                    }
                    5 => self.server.echo(self.now, &mut self.watch),
                    _ => self.move_house(),
                }
            }
            14 => self.settle(variant & 1 == 0),
            _ => {
                let tamper = (usize::from(input.u16()), input.u8());
                self.client_speaks(Some(tamper));
            }
        }
    }

    /// Bytes of the outside arrive at the server, in pieces.
    fn deliver(&mut self, bytes: &[u8]) {
        for piece in bytes.to_vec().chunks_mut(self.piece_len) {
            if self.is_closed() {
                return;
            }
            self.received += piece.len();
            self.server.receive(self.now, piece, &mut self.watch);
        }
    }

    /// Says it in the client's name.
    fn say(&mut self, plaintext: &[u8]) {
        if !plaintext.is_empty() {
            let record = self.to_server.seal(plaintext);
            self.deliver(&record);
        }
    }

    fn say_packet(&mut self, kind: u8, payload: &[u8]) {
        let payload = payload.get(..4_091).unwrap_or(payload);
        let [high, low] = u16::try_from(payload.len() + 4)
            .unwrap_or(u16::MAX)
            .to_be_bytes();
        self.say(&[&[0x10, kind, high, low], payload].concat());
    }

    /// A control frame of PPP whose length is right.
    fn say_frame(&mut self, variant: u8, input: &mut Input<'_>) {
        let protocol = match variant & 0x07 {
            0 | 1 => frame::LCP,
            2 => frame::IPCP,
            3 => frame::IPV6CP,
            4 => frame::PAP,
            5 => frame::CHAP,
            6 => frame::EAP,
            _ => input.u16(),
        };
        let (code, identifier) = (input.u8() % 16, input.u8());
        let data = input.chunk();
        let data = data.get(..4_000).unwrap_or(data);
        let len = u16::try_from(data.len() + 4).unwrap_or(u16::MAX);
        let mut payload = vec![0xff, 0x03];
        payload.extend(protocol.to_be_bytes());
        payload.extend([code, identifier]);
        payload.extend(len.to_be_bytes());
        payload.extend_from_slice(data);
        if variant >= 8 {
            // As many in one record as fit, at most eight: the answers have to wait.
            let [high, low] = u16::try_from(payload.len() + 4)
                .unwrap_or(u16::MAX)
                .to_be_bytes();
            let packet = [&[0x10, 0, high, low], &payload[..]].concat();
            let count = (16_384 / packet.len()).min(8);
            self.say(&packet.repeat(count));
        } else {
            self.say_packet(0, &payload);
        }
    }

    /// What the client has to say arrives, perhaps with a byte of it changed; whether it had any.
    fn client_speaks(&mut self, tamper: Option<(usize, u8)>) -> bool {
        let Some(buffer) = self.client.poll_send(self.now, &mut self.client_edge) else {
            return false;
        };
        let bytes = buffer.bytes[buffer.start..buffer.end].to_vec();
        self.client.sent(self.now, Ok(()), &mut self.client_edge);
        let (mut answer, mut plaintext) = self.to_client.receive(&bytes);
        if !answer.is_empty() {
            self.client
                .receive(self.now, &mut answer, &mut self.client_edge);
        }
        if let Some((at, mask)) = tamper {
            let at = at % plaintext.len().max(1);
            if let Some(byte) = plaintext.get_mut(at) {
                *byte ^= mask;
            }
        }
        for part in plaintext.chunks(tls::PLAINTEXT_LEN_MAX) {
            self.say(part);
        }
        true
    }

    /// What the server has to say goes out, and arrives or is lost; whether it had any.
    fn server_speaks(&mut self, arrives: bool) -> bool {
        let polled = self.server.poll_send(self.now, &mut self.watch);
        let Some(buffer) = polled else { return false };
        assert!(!self.in_flight, "one buffer at a time");
        assert!(buffer.start < buffer.end, "an empty send");
        self.in_flight = true;
        let bytes = buffer.bytes[buffer.start..buffer.end].to_vec();
        self.sent += bytes.len();
        let (answer, plaintext) = self.to_server.receive(&bytes);
        if !answer.is_empty() {
            self.deliver(&answer);
        }
        if arrives {
            for part in plaintext.chunks(tls::PLAINTEXT_LEN_MAX) {
                let mut record = self.to_client.seal(part);
                self.client
                    .receive(self.now, &mut record, &mut self.client_edge);
            }
        }
        true
    }

    /// The kernel is done with the server's buffer.
    fn complete(&mut self) {
        if std::mem::take(&mut self.in_flight) {
            self.server.sent(self.now, Ok(()), &mut self.watch);
        }
    }

    /// Time passes; every deadline in it is kept, and none comes at once again.
    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        for _ in 0..16 {
            match self.server.next_timeout() {
                Some(next) if next <= until => self.wait(false),
                _ => break,
            }
        }
        self.now = self.now.max(until);
        self.ring();
    }

    /// Jumps to the next deadline: the server's, or the earlier of both.
    fn wait(&mut self, of_both: bool) {
        let client = self.client.next_timeout().filter(|_| of_both);
        if let Some(next) = [self.server.next_timeout(), client]
            .into_iter()
            .flatten()
            .min()
        {
            self.now = self.now.max(next);
        }
        self.ring();
    }

    fn ring(&mut self) {
        self.events += 1;
        self.client.handle_timeout(self.now, &mut self.client_edge);
        if self.is_closed() {
            return;
        }
        self.server.handle_timeout(self.now, &mut self.watch);
        assert!(
            self.server
                .next_timeout()
                .is_none_or(|next| next > self.now),
            "a deadline that was kept comes again at once"
        );
    }

    /// Lets everybody talk until nothing moves. That must come.
    fn settle(&mut self, answers: bool) {
        for _ in 0..200 {
            let mut moved = self.client_speaks(None);
            moved |= self.server_speaks(true);
            self.complete();
            if answers && !self.watch.questions.is_empty() {
                self.answer(0, &mut Input(&[]));
                moved = true;
            }
            if !moved || self.is_closed() {
                return;
            }
        }
        panic!("they talk for ever");
    }

    /// The owner answers, be it asked or not.
    fn answer(&mut self, variant: u8, input: &mut Input<'_>) {
        let question = self.watch.questions.pop_front();
        self.events += 1;
        let honest = |question: Option<Question>, eap: &mut eap_mschapv2::Authenticator| {
            let question = question?;
            let Question::Authenticate { credentials, .. } = &question;
            let Credentials::Eap { response, .. } = credentials else {
                return Some(fixtures::judge(&question, NUMBER));
            };
            let verdict = eap.handle_response(response, Some(&nt_password_hash(PASSWORD)));
            Some(match verdict {
                Verdict::Accept { hlak, message } => Answer::Accept {
                    hlak,
                    message,
                    policy: Box::new(fixtures::policy(NUMBER)),
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
            })
        };
        let answer = match variant & 0x07 {
            0..=2 => match honest(question, &mut self.eap) {
                Some(answer) => answer,
                None => return,
            },
            3 => Answer::Accept {
                hlak: datapath::crypto::hlak::Hlak::ZERO,
                message: input.chunk().to_vec(),
                policy: Box::new(fixtures::policy(NUMBER)),
            },
            4 => {
                let mut policy = fixtures::policy(NUMBER);
                let choice = input.u8();
                if choice & 1 != 0 {
                    policy.ipv4 = None;
                }
                if choice & 2 != 0 {
                    policy.ipv6 = None;
                }
                if choice & 4 != 0 {
                    policy.session_timeout = Some(Duration::from_secs(u64::from(input.u8())));
                }
                if choice & 8 != 0 {
                    policy.network = None;
                }
                policy.mtu = 576 + u16::from(choice);
                Answer::Accept {
                    hlak: datapath::crypto::hlak::Hlak::ZERO,
                    message: Vec::new(),
                    policy: Box::new(policy),
                }
            }
            5 => Answer::Reject {
                error: input.u16(),
                message: input.chunk().to_vec(),
                eap: None,
                refusal: Refusal::Account,
            },
            6 => Answer::Reject {
                error: 691,
                message: Vec::new(),
                eap: Some(input.chunk().to_vec()),
                refusal: Refusal::NoAddress,
            },
            _ => Answer::Continue {
                request: input.chunk().to_vec(),
            },
        };
        // What the owner itself dictates may be sent and, unanswered, repeated.
        self.offered += match &answer {
            Answer::Accept { message, .. } => message.len(),
            Answer::Reject { message, eap, .. } => message.len() + eap.as_ref().map_or(0, Vec::len),
            Answer::Continue { request } => request.len(),
        };
        self.server.handle_answer(self.now, answer, &mut self.watch);
    }

    fn inside_sends(&mut self, variant: u8, input: &mut Input<'_>) {
        let body = input.chunk();
        let packet = match variant & 0x03 {
            0 => body.to_vec(),
            1 => fixtures::udp(Ipv4Addr::new(198, 51, 100, 1), self.watch.client, body),
            // Over any MTU, and it may be cut.
            2 => {
                let mut packet = fixtures::udp(
                    Ipv4Addr::new(198, 51, 100, 1),
                    self.watch.client,
                    &[body, &[0; 1_500]].concat(),
                );
                packet[6] = 0;
                packet[10..12].fill(0);
                let sum = datapath::ip::checksum::of(&packet[..20]);
                packet[10..12].copy_from_slice(&sum.to_be_bytes());
                packet
            }
            _ => fixtures::udp(
                Ipv4Addr::new(198, 51, 100, 1),
                self.watch.client,
                &[body, &[0; 1_500]].concat(),
            ),
        };
        self.offered += packet.len();
        self.events += 1;
        self.watch.may_answer_inside = true;
        self.server.send_packet(self.now, &packet, &mut self.watch);
        self.watch.may_answer_inside = false;
    }

    /// Another process takes the session up.
    fn move_house(&mut self) {
        if let Ok(exported) = self.server.export() {
            let network = fixtures::policy(NUMBER).network;
            let settings = Arc::clone(&self.settings);
            self.server = Session::import(self.now, exported, settings, network, &mut self.watch)
                .expect("what was exported here");
        }
    }

    /// What holds between any two operations.
    fn check(&self) {
        let bound = SENT_UNASKED
            + SENT_PER_BYTE * self.received
            + SENT_PER_EVENT * self.events
            + 8 * self.offered;
        assert!(
            self.sent <= bound,
            "{} bytes sent for {} received and {} events",
            self.sent,
            self.received,
            self.events
        );
        assert!(
            self.watch.inside_bytes <= self.received + self.offered,
            "more goes inside than came"
        );
        assert!(
            !self.is_closed() || self.watch.ended,
            "closed, and nobody told"
        );
        assert!(
            !self.server.is_up() || self.watch.is_up,
            "up, and nobody told"
        );
    }

    /// Left alone by peer and owner the session sends what it has, and ends.
    fn end(&mut self) {
        self.server
            .terminate(self.now, EndReason::Shutdown, &mut self.watch);
        for _ in 0..64 {
            if self.is_closed() {
                break;
            }
            let mut moved = false;
            while self.server_speaks(false) {
                self.complete();
                moved = true;
            }
            self.complete();
            if !moved {
                self.wait(false);
            }
        }
        assert!(self.is_closed(), "it does not end");
        assert!(self.watch.ended, "and nobody was told");
    }
}
