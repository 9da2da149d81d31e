//! The state machines: PPP's table, a whole link from start to open, and the server's call.

use std::hint::black_box;

use datapath::output::Output;
use datapath::ppp::automaton::{self, Event, State};
use datapath::sstp::message::{self, MessageType};
use datapath::sstp::server::{Call, Config};
use datapath::sstp::{self, CertificateHashes, Nonce, packet};
use datapath::time::{Duration, Instant};

use super::{Path, REPEATS, Work};

/// Counts what a machine says.
#[derive(Debug, Default)]
struct Told {
    sent: usize,
    events: usize,
}

impl Output<sstp::Event> for Told {
    fn send(&mut self, bytes: &[u8]) {
        self.sent += black_box(bytes).len();
    }

    fn event(&mut self, event: sstp::Event) {
        black_box(&event);
        self.events += 1;
    }
}

/// Every event in every state.
struct Table;

impl Work for Table {
    fn run(&mut self) {
        for state in State::ALL {
            for event in Event::ALL {
                black_box(automaton::transition(black_box(state), black_box(event)));
            }
        }
    }
}

/// A call that is asked for, again and again.
struct Request {
    config: Config,
}

impl Work for Request {
    fn run(&mut self) {
        let mut told = Told::default();
        let mut call = Call::new(self.config.clone());
        call.start(Instant::ZERO, &mut told);
        handle(
            &mut call,
            Instant::ZERO,
            &message::CALL_CONNECT_REQUEST,
            &mut told,
        );
        assert!(told.sent > 0, "it is acknowledged");
    }
}

/// Echo requests to a call that waits, a second apart: more often they are not answered.
struct Echo {
    call: Call,
    now: Instant,
    request: Vec<u8>,
}

impl Work for Echo {
    fn run(&mut self) {
        let mut told = Told::default();
        for _ in 0..REPEATS {
            self.now = self.now + Duration::from_secs(1);
            handle(&mut self.call, self.now, &self.request, &mut told);
        }
        assert_eq!(told.sent, REPEATS * self.request.len(), "it is answered");
    }
}

fn handle(call: &mut Call, now: Instant, bytes: &[u8], told: &mut Told) {
    let (packet, _) = packet::parse(bytes).expect("good").expect("whole");
    black_box(call.handle_packet(now, packet, told));
}

fn config() -> Config {
    let certificate = CertificateHashes::of_der(b"certificate");
    Config::new(Nonce([7; 32]), vec![certificate])
}

pub(super) fn paths() -> Vec<Path> {
    vec![
        Path::new(
            "automata/ppp/table",
            State::ALL.len() * Event::ALL.len(),
            0,
            || Table,
        ),
        Path::new("automata/sstp/request", 1, 0, || Request {
            config: config(),
        }),
        Path::new("automata/sstp/echo", REPEATS, 0, || {
            let mut told = Told::default();
            let mut call = Call::new(config());
            call.start(Instant::ZERO, &mut told);
            handle(
                &mut call,
                Instant::ZERO,
                &message::CALL_CONNECT_REQUEST,
                &mut told,
            );
            let request = message::bare(MessageType::EchoRequest).to_vec();
            Echo {
                call,
                now: Instant::ZERO,
                request,
            }
        }),
    ]
}
