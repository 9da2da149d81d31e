//! The tables of MS-SSTP §3.2 and §3.3 typed from the text, and every cell of them played.
//!
//! A cell says what is sent, where the call goes and what its owner is told:
//!
//! ```text
//! ABT(s) ABT(s,a)   CALL_ABORT with status s (attribute a), to AbortPending
//! NAK ACK ECHO REQ  that message
//! >X                to state X: RS request pending or sent, CP connected pending or ack received,
//!                   C connected, AP ATP abort (timeout) pending, DP DTP disconnect ack (timeout) pending
//! CLOSE             nothing sent, closed
//! ok                taken, nothing sent, nothing changes
//! ppp  ppp+ip       the frame may go to PPP: control frames; network frames too
//! DROP              dropped
//! ```

use datapath::crypto::Hlak;
use datapath::output::Collected;
use datapath::sstp::binding::{self, HashProtocol};
use datapath::sstp::call::{Drain, State};
use datapath::sstp::message::{self, AttributeId, Message, MessageType, Status};
use datapath::sstp::packet::{self, FramingError};
use datapath::sstp::{Admission, CertificateHashes, Event, Nonce, client, server};
use datapath::time::{Duration, Instant};
use hex_literal::hex;

const T0: Instant = Instant::from_nanos(1_000_000_000);
const NONCE: Nonce = Nonce([7; 32]);
const KEY: Hlak = Hlak::from_bytes([9; 32]);

fn certificate() -> CertificateHashes {
    CertificateHashes::of_der(b"certificate")
}

/// The two roles under one name, so that both tables are played alike.
#[derive(Debug)]
enum Call {
    Server(server::Call),
    Client(client::Call),
}

macro_rules! both {
    ($call:expr, $name:ident($($argument:expr),*)) => {
        match $call {
            Call::Server(call) => call.$name($($argument),*),
            Call::Client(call) => call.$name($($argument),*),
        }
    };
}

impl Call {
    fn state(&self) -> &'static str {
        match self {
            Self::Server(call) => name(call.state(), |live| match live {
                server::Live::ConnectRequestPending => "RS",
                server::Live::CallConnectedPending => "CP",
                server::Live::CallConnected => "C",
            }),
            Self::Client(call) => name(call.state(), |live| match live {
                client::Live::ConnectRequestSent => "RS",
                client::Live::ConnectAckReceived => "CP",
                client::Live::CallConnected => "C",
            }),
        }
    }

    fn take(&mut self, bytes: &[u8], out: &mut Collected<Event>) -> Admission {
        let (packet, consumed) = packet::parse(bytes).unwrap().unwrap();
        assert_eq!(consumed, bytes.len());
        both!(self, handle_packet(T0, packet, out))
    }
}

fn name<L>(state: State<L>, live: impl Fn(L) -> &'static str) -> &'static str {
    match state {
        State::CallDisconnected => "new",
        State::Live(state) => live(state),
        State::Draining(Drain::AbortPending) => "AP",
        State::Draining(Drain::AbortTimeoutPending) => "ATP",
        State::Draining(Drain::DisconnectAckPending) => "DP",
        State::Draining(Drain::DisconnectTimeoutPending) => "DTP",
        State::Closed => "closed",
    }
}

/// A call in the state that a column is for.
fn call_in(role: &str, column: &str) -> Call {
    let out = &mut Collected::default();
    let mut call = match role {
        "server" => Call::Server(server::Call::new(server::Config::new(
            NONCE,
            vec![certificate()],
        ))),
        _ => Call::Client(client::Call::new(client::Config::new(certificate()))),
    };
    if column == "new" {
        return call;
    }
    both!(&mut call, start(T0, out));
    if column == "RS" {
        return call;
    }
    if column == "RS+3" {
        let bad = match role {
            "server" => packet("REQUEST, no protocol"),
            _ => packet("NAK"),
        };
        for _ in 0..3 {
            call.take(&bad, out);
        }
        return call;
    }
    let opening = match role {
        "server" => packet("REQUEST"),
        _ => packet("ACK"),
    };
    call.take(&opening, out);
    let connect = |call: &mut Call, out: &mut Collected<Event>| {
        both!(&mut *call, authenticated(T0, &KEY, out));
        if matches!(call, Call::Server(_)) {
            call.take(&packet("CONNECTED"), out);
        }
    };
    match column {
        "CP" => {}
        "CP+early" => {
            call.take(&packet("CONNECTED"), out);
        }
        "CP+key" => both!(&mut call, authenticated(T0, &KEY, out)),
        "C" => connect(&mut call, out),
        "AP" => both!(&mut call, abort(T0, Status::INVALID_FRAME_RECEIVED, out)),
        "ATP" => {
            call.take(&packet("ABORT"), out);
        }
        "DP" => both!(&mut call, disconnect(T0, out)),
        "DTP" => {
            call.take(&packet("DISCONNECT"), out);
        }
        "closed" => both!(&mut call, framing_error(FramingError::Version(0), out)),
        _ => panic!("no column {column}"),
    }
    let state = column.split('+').next().unwrap();
    assert_eq!(call.state(), state, "the way into {column}");
    call
}

/// A CALL_CONNECTED that is right but for what `change` does to it.
fn connected(change: impl Fn(&mut [u8; 112])) -> Vec<u8> {
    let message = binding::compute(&KEY, &NONCE, HashProtocol::Sha256, &certificate());
    let mut bytes = *message.packet();
    change(&mut bytes);
    bytes.to_vec()
}

/// The packet that a row is for.
fn packet(row: &str) -> Vec<u8> {
    let info =
        |message_type| message::with_status(message_type, AttributeId(0), Status(0)).to_vec();
    match row {
        "short header" => hex!("10010006 0008").to_vec(),
        "unknown type" => hex!("10010008 000a0000").to_vec(),
        "attribute length 3" => hex!("1001000c 00080001 00020003").to_vec(),
        "attribute too long" => hex!("1001000c 00080001 00020005").to_vec(),
        "attribute missing" => hex!("10010008 00080001").to_vec(),
        "bytes left over" => hex!("10010009 0008000000").to_vec(),
        "REQUEST" => message::CALL_CONNECT_REQUEST.to_vec(),
        "REQUEST, padded packet" => hex!("10018010 00010001 000100060001 0000").to_vec(),
        "REQUEST, padded attribute" => hex!("10018010 00010001 0001000800010000").to_vec(),
        "REQUEST, status 0" => {
            hex!("1001001a 00010002 000100060001 0002000c 00000000 00000000").to_vec()
        }
        "REQUEST, no protocol" => hex!("10010008 00010000").to_vec(),
        "REQUEST, protocol 2" => hex!("1001000e 00010001 000100060002").to_vec(),
        "ACK" => message::call_connect_ack(&message::BindingRequest {
            offered: binding::HashBitmask::BOTH,
            nonce: NONCE,
        })
        .to_vec(),
        "ACK, no binding" => hex!("10010008 00020000").to_vec(),
        "ACK, binding too short" => hex!("10010010 00020001 00040008 00000003").to_vec(),
        "ACK, no hash" => message::call_connect_ack(&message::BindingRequest {
            offered: binding::HashBitmask(0xFC),
            nonce: NONCE,
        })
        .to_vec(),
        "NAK" => hex!("10010016 00030001 0002000e 00000001 00000004 0002").to_vec(),
        "NAK, bare" => hex!("10010008 00030000").to_vec(),
        "CONNECTED" => connected(|_| {}),
        "CONNECTED, no binding" => hex!("10010008 00040000").to_vec(),
        "CONNECTED, binding 103" => {
            let mut bytes = connected(|bytes| {
                bytes[3] = 111;
                bytes[11] = 103;
            });
            bytes.pop();
            bytes
        }
        "CONNECTED, status 4" => hex!("10010014 00040001 0002000c 00000000 00000004").to_vec(),
        "CONNECTED, twice bound" => {
            let mut bytes = connected(|bytes| {
                bytes[3] = 112 + 104;
                bytes[7] = 2;
            });
            bytes.extend_from_within(8..);
            bytes
        }
        "CONNECTED, wrong hash" => connected(|bytes| bytes[15] = 4),
        "CONNECTED, wrong nonce" => connected(|bytes| bytes[16] ^= 1),
        "CONNECTED, wrong certificate" => connected(|bytes| bytes[48] ^= 1),
        "CONNECTED, wrong MAC" => connected(|bytes| bytes[111] ^= 1),
        "ABORT" => info(MessageType::CallAbort),
        "ABORT, bare" => message::bare(MessageType::CallAbort).to_vec(),
        "DISCONNECT" => info(MessageType::CallDisconnect),
        "DISCONNECT, bare" => message::bare(MessageType::CallDisconnect).to_vec(),
        "DISCONNECT_ACK" => message::bare(MessageType::CallDisconnectAck).to_vec(),
        "ECHO_REQUEST" => message::bare(MessageType::EchoRequest).to_vec(),
        "ECHO_RESPONSE" => message::bare(MessageType::EchoResponse).to_vec(),
        "data" => hex!("1000000a ff03c0210100").to_vec(),
        "data, empty" => hex!("10000004").to_vec(),
        _ => panic!("no row {row}"),
    }
}

/// Plays one cell and writes it in the table's words.
fn play(role: &str, row: &str, column: &str) -> String {
    let mut call = call_in(role, column);
    let before = call.state();
    let mut out = Collected::default();
    let admission = match row {
        "version 0x11" => {
            both!(
                &mut call,
                framing_error(FramingError::Version(0x11), &mut out)
            );
            Admission::Control
        }
        "length 3" => {
            both!(&mut call, framing_error(FramingError::Length(3), &mut out));
            Admission::Control
        }
        "deadline" => {
            if let Some(at) = both!(&call, next_timeout()) {
                both!(&mut call, handle_timeout(at, &mut out));
            }
            Admission::Control
        }
        "authenticated" => {
            both!(&mut call, authenticated(T0, &KEY, &mut out));
            Admission::Control
        }
        "we disconnect" => {
            both!(&mut call, disconnect(T0, &mut out));
            Admission::Control
        }
        "we abort" => {
            both!(&mut call, abort(T0, Status(5), &mut out));
            Admission::Control
        }
        _ => call.take(&packet(row), &mut out),
    };
    let after = call.state();
    check_events(before, after, &out.events);
    let said = match (&out.sent[..], admission) {
        ([], Admission::Ppp) => "ppp".to_owned(),
        ([], Admission::PppAll) => "ppp+ip".to_owned(),
        ([], Admission::Drop(_)) => "DROP".to_owned(),
        ([], Admission::Control) if after == "closed" && before != "closed" => {
            return "CLOSE".to_owned();
        }
        ([], Admission::Control) => "ok".to_owned(),
        ([bytes], Admission::Control) => sent(bytes),
        other => panic!("{role}, {row}, {column}: {other:?}"),
    };
    if after == before || (after == "AP" && said.starts_with("ABT")) {
        said
    } else {
        format!("{said}>{after}")
    }
}

fn sent(bytes: &[u8]) -> String {
    match message::parse(bytes).unwrap() {
        Message::CallConnectRequest(_) => "REQ".to_owned(),
        Message::CallConnectAck(_) => "ACK".to_owned(),
        Message::CallConnectNak(_) => "NAK".to_owned(),
        Message::CallConnected(_) => "CONNECTED".to_owned(),
        Message::CallAbort(info) => {
            let info = info.unwrap();
            match (info.status.0, info.attribute.0) {
                (status, 0) => format!("ABT({status})"),
                (status, attribute) => format!("ABT({status},{attribute})"),
            }
        }
        Message::CallDisconnect(info) => {
            assert_eq!(info.unwrap().status, Status::NO_ERROR);
            "DISC".to_owned()
        }
        Message::CallDisconnectAck => "DISC_ACK".to_owned(),
        Message::EchoRequest => "ECHO?".to_owned(),
        Message::EchoResponse => "ECHO".to_owned(),
    }
}

/// The owner is told of each way between states, and of nothing else.
fn check_events(before: &str, after: &str, events: &[Event]) {
    let live = |state: &str| matches!(state, "RS" | "CP" | "C");
    let right = match (before, after) {
        _ if before == after => events.is_empty(),
        ("RS", "CP") => matches!(events, [Event::StartPpp]),
        ("CP", "C") => matches!(events, [Event::Connected(_) | Event::BindingSent]),
        (_, "closed") => matches!(events, [Event::Closed(_)]),
        _ if live(before) => matches!(events, [Event::Draining(_)]),
        _ => events.is_empty(),
    };
    assert!(right, "{before} to {after}: {events:?}");
}

/// Plays all cells of a table and reports each that differs.
fn check(role: &str, table: &str) {
    let mut lines = table.lines().filter(|line| !line.trim().is_empty());
    let cells = |line: &'static str| line.split('|').map(str::trim).collect::<Vec<_>>();
    let table: Vec<Vec<&str>> = lines
        .by_ref()
        .map(|line| cells(line.to_owned().leak()))
        .collect();
    let (header, rows) = table.split_first().unwrap();
    let (mut wrong, mut count) = (Vec::new(), 0);
    for row in rows {
        assert_eq!(row.len(), header.len(), "{row:?}");
        for (column, expected) in header.iter().zip(row).skip(1) {
            let played = play(role, row[0], column);
            count += 1;
            if played != *expected {
                wrong.push(format!("{} in {column}: {played}, not {expected}", row[0]));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {count}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// MS-SSTP §3.3.5, §3.3.7. `RS+3`: three requests were refused. `CP+early`: CALL_CONNECTED has come,
/// the key has not. `CP+key`: the other way round.
const SERVER_LIVE: &str = "
event                        | RS       | RS+3     | CP       | CP+early | CP+key   | C
version 0x11                 | CLOSE    | CLOSE    | CLOSE    | CLOSE    | CLOSE    | CLOSE
length 3                     | CLOSE    | CLOSE    | CLOSE    | CLOSE    | CLOSE    | CLOSE
short header                 | ABT(7)   | ABT(7)   | ABT(7)   | ABT(7)   | ABT(7)   | ABT(7)
unknown type                 | ABT(7)   | ABT(7)   | ABT(7)   | ABT(7)   | ABT(7)   | ABT(7)
attribute length 3           | ABT(7)   | ABT(7)   | ABT(7)   | ABT(7)   | ABT(7)   | ABT(7)
attribute too long           | ABT(7)   | ABT(7)   | ABT(7)   | ABT(7)   | ABT(7)   | ABT(7)
attribute missing            | ABT(7)   | ABT(7)   | ABT(7)   | ABT(7)   | ABT(7)   | ABT(7)
bytes left over              | ABT(7)   | ABT(7)   | ABT(7)   | ABT(7)   | ABT(7)   | ABT(7)
REQUEST                      | ACK>CP   | ACK>CP   | ABT(5)   | ABT(5)   | ABT(5)   | ABT(5)
REQUEST, padded packet       | ACK>CP   | ACK>CP   | ABT(5)   | ABT(5)   | ABT(5)   | ABT(5)
REQUEST, padded attribute    | ACK>CP   | ACK>CP   | ABT(5)   | ABT(5)   | ABT(5)   | ABT(5)
REQUEST, status 0            | ACK>CP   | ACK>CP   | ABT(5)   | ABT(5)   | ABT(5)   | ABT(5)
REQUEST, no protocol         | NAK      | ABT(6,2) | ABT(5)   | ABT(5)   | ABT(5)   | ABT(5)
REQUEST, protocol 2          | NAK      | ABT(6,2) | ABT(5)   | ABT(5)   | ABT(5)   | ABT(5)
ACK                          | ABT(5)   | ABT(5)   | ABT(5)   | ABT(5)   | ABT(5)   | ABT(5)
NAK                          | ABT(5)   | ABT(5)   | ABT(5)   | ABT(5)   | ABT(5)   | ABT(5)
CONNECTED                    | ABT(5)   | ABT(5)   | ok       | ABT(5)   | ok>C     | ABT(5)
CONNECTED, no binding        | ABT(5)   | ABT(5)   | ABT(9,2) | ABT(9,2) | ABT(9,2) | ABT(5)
CONNECTED, binding 103       | ABT(5)   | ABT(5)   | ABT(9,2) | ABT(9,2) | ABT(9,2) | ABT(5)
CONNECTED, status 4          | ABT(5)   | ABT(5)   | ABT(9,2) | ABT(9,2) | ABT(9,2) | ABT(5)
CONNECTED, twice bound       | ABT(5)   | ABT(5)   | ABT(9,2) | ABT(9,2) | ABT(9,2) | ABT(5)
CONNECTED, wrong hash        | ABT(5)   | ABT(5)   | ok       | ABT(5)   | ABT(4,3) | ABT(5)
CONNECTED, wrong nonce       | ABT(5)   | ABT(5)   | ok       | ABT(5)   | ABT(4,3) | ABT(5)
CONNECTED, wrong certificate | ABT(5)   | ABT(5)   | ok       | ABT(5)   | ABT(4,3) | ABT(5)
CONNECTED, wrong MAC         | ABT(5)   | ABT(5)   | ok       | ABT(5)   | ABT(4,3) | ABT(5)
ABORT                        | ABT(0)>ATP | ABT(0)>ATP | ABT(0)>ATP | ABT(0)>ATP | ABT(0)>ATP | ABT(0)>ATP
ABORT, bare                  | ABT(0)>ATP | ABT(0)>ATP | ABT(0)>ATP | ABT(0)>ATP | ABT(0)>ATP | ABT(0)>ATP
DISCONNECT                   | DISC_ACK>DTP | DISC_ACK>DTP | DISC_ACK>DTP | DISC_ACK>DTP | DISC_ACK>DTP | DISC_ACK>DTP
DISCONNECT, bare             | DISC_ACK>DTP | DISC_ACK>DTP | DISC_ACK>DTP | DISC_ACK>DTP | DISC_ACK>DTP | DISC_ACK>DTP
DISCONNECT_ACK               | ABT(5)   | ABT(5)   | ABT(5)   | ABT(5)   | ABT(5)   | ABT(5)
ECHO_REQUEST                 | ABT(5)   | ABT(5)   | ECHO     | ECHO     | ECHO     | ECHO
ECHO_RESPONSE                | ABT(5)   | ABT(5)   | ok       | ok       | ok       | ok
data                         | DROP     | DROP     | ppp      | ppp      | ppp      | ppp+ip
data, empty                  | DROP     | DROP     | DROP     | DROP     | DROP     | DROP
authenticated                | ok       | ok       | ok       | ok>C     | ok       | ok
deadline                     | CLOSE    | CLOSE    | ABT(8)   | ABT(8)   | ABT(8)   | ECHO?
we disconnect                | DISC>DP  | DISC>DP  | DISC>DP  | DISC>DP  | DISC>DP  | DISC>DP
we abort                     | ABT(5)   | ABT(5)   | ABT(5)   | ABT(5)   | ABT(5)   | ABT(5)
";

/// MS-SSTP §3.2.5, §3.2.7.
const CLIENT_LIVE: &str = "
event                        | RS       | RS+3     | CP          | C
version 0x11                 | CLOSE    | CLOSE    | CLOSE       | CLOSE
length 3                     | CLOSE    | CLOSE    | CLOSE       | CLOSE
short header                 | ABT(7)   | ABT(7)   | ABT(7)      | ABT(7)
unknown type                 | ABT(7)   | ABT(7)   | ABT(7)      | ABT(7)
attribute length 3           | ABT(7)   | ABT(7)   | ABT(7)      | ABT(7)
attribute too long           | ABT(7)   | ABT(7)   | ABT(7)      | ABT(7)
attribute missing            | ABT(7)   | ABT(7)   | ABT(7)      | ABT(7)
bytes left over              | ABT(7)   | ABT(7)   | ABT(7)      | ABT(7)
REQUEST                      | ABT(5)   | ABT(5)   | ABT(5)      | ABT(5)
REQUEST, no protocol         | ABT(5)   | ABT(5)   | ABT(5)      | ABT(5)
ACK                          | ok>CP    | ok>CP    | ABT(5)      | ABT(5)
ACK, no binding              | ABT(9,2) | ABT(9,2) | ABT(5)      | ABT(5)
ACK, binding too short       | ABT(9,2) | ABT(9,2) | ABT(5)      | ABT(5)
ACK, no hash                 | ABT(4,4) | ABT(4,4) | ABT(5)      | ABT(5)
NAK                          | REQ      | ABT(6,2) | ABT(5)      | ABT(5)
NAK, bare                    | REQ      | ABT(6,2) | ABT(5)      | ABT(5)
CONNECTED                    | ABT(5)   | ABT(5)   | ABT(5)      | ABT(5)
CONNECTED, no binding        | ABT(5)   | ABT(5)   | ABT(5)      | ABT(5)
ABORT                        | ABT(0)>ATP | ABT(0)>ATP | ABT(0)>ATP | ABT(0)>ATP
ABORT, bare                  | ABT(0)>ATP | ABT(0)>ATP | ABT(0)>ATP | ABT(0)>ATP
DISCONNECT                   | DISC_ACK>DTP | DISC_ACK>DTP | DISC_ACK>DTP | DISC_ACK>DTP
DISCONNECT, bare             | DISC_ACK>DTP | DISC_ACK>DTP | DISC_ACK>DTP | DISC_ACK>DTP
DISCONNECT_ACK               | ABT(5)   | ABT(5)   | ABT(5)      | ABT(5)
ECHO_REQUEST                 | ABT(5)   | ABT(5)   | ECHO        | ECHO
ECHO_RESPONSE                | ABT(5)   | ABT(5)   | ok          | ok
data                         | DROP     | DROP     | ppp         | ppp+ip
data, empty                  | DROP     | DROP     | DROP        | DROP
authenticated                | ok       | ok       | CONNECTED>C | ok
deadline                     | ABT(8)   | ABT(8)   | ABT(8)      | ECHO?
we disconnect                | DISC>DP  | DISC>DP  | DISC>DP     | DISC>DP
we abort                     | ABT(5)   | ABT(5)   | ABT(5)      | ABT(5)
";

/// MS-SSTP §3.1.5 and §3.1.7, the same for both roles; and the two ends of a call's life.
const OVER: &str = "
event                        | new      | AP       | ATP      | DP           | DTP      | closed
version 0x11                 | CLOSE    | CLOSE    | CLOSE    | CLOSE        | CLOSE    | ok
length 3                     | CLOSE    | CLOSE    | CLOSE    | CLOSE        | CLOSE    | ok
short header                 | DROP     | DROP     | DROP     | DROP         | DROP     | DROP
unknown type                 | DROP     | DROP     | DROP     | DROP         | DROP     | DROP
attribute length 3           | DROP     | DROP     | DROP     | DROP         | DROP     | DROP
attribute too long           | DROP     | DROP     | DROP     | DROP         | DROP     | DROP
attribute missing            | DROP     | DROP     | DROP     | DROP         | DROP     | DROP
bytes left over              | DROP     | DROP     | DROP     | DROP         | DROP     | DROP
REQUEST                      | DROP     | DROP     | DROP     | DROP         | DROP     | DROP
REQUEST, no protocol         | DROP     | DROP     | DROP     | DROP         | DROP     | DROP
ACK                          | DROP     | DROP     | DROP     | DROP         | DROP     | DROP
ACK, no binding              | DROP     | DROP     | DROP     | DROP         | DROP     | DROP
NAK                          | DROP     | DROP     | DROP     | DROP         | DROP     | DROP
CONNECTED                    | DROP     | DROP     | DROP     | DROP         | DROP     | DROP
CONNECTED, no binding        | DROP     | DROP     | DROP     | DROP         | DROP     | DROP
CONNECTED, wrong MAC         | DROP     | DROP     | DROP     | DROP         | DROP     | DROP
ABORT                        | DROP     | ok>ATP   | DROP     | ABT(0)>ATP   | DROP     | DROP
ABORT, bare                  | DROP     | ok>ATP   | DROP     | ABT(0)>ATP   | DROP     | DROP
DISCONNECT                   | DROP     | DROP     | DROP     | DISC_ACK>DTP | DROP     | DROP
DISCONNECT, bare             | DROP     | DROP     | DROP     | DISC_ACK>DTP | DROP     | DROP
DISCONNECT_ACK               | DROP     | DROP     | DROP     | CLOSE        | DROP     | DROP
ECHO_REQUEST                 | DROP     | DROP     | DROP     | DROP         | DROP     | DROP
ECHO_RESPONSE                | DROP     | DROP     | DROP     | DROP         | DROP     | DROP
data                         | DROP     | DROP     | DROP     | DROP         | DROP     | DROP
data, empty                  | DROP     | DROP     | DROP     | DROP         | DROP     | DROP
authenticated                | ok       | ok       | ok       | ok           | ok       | ok
deadline                     | ok       | CLOSE    | CLOSE    | CLOSE        | CLOSE    | ok
we disconnect                | CLOSE    | ok       | ok       | ok           | ok       | ok
we abort                     | CLOSE    | ok       | ok       | ok           | ok       | ok
";

#[test]
fn state_table_of_the_server() {
    check("server", SERVER_LIVE);
    check("server", OVER);
}

#[test]
fn state_table_of_the_client() {
    check("client", CLIENT_LIVE);
    check("client", OVER);
}

/// What was parked is judged when the key comes, as if it had come then.
#[test]
fn state_table_of_a_parked_call_connected() {
    for (row, expected) in [
        ("CONNECTED", "ok>C"),
        ("CONNECTED, wrong hash", "ABT(4,3)"),
        ("CONNECTED, wrong nonce", "ABT(4,3)"),
        ("CONNECTED, wrong certificate", "ABT(4,3)"),
        ("CONNECTED, wrong MAC", "ABT(4,3)"),
    ] {
        let mut call = call_in("server", "CP");
        let mut out = Collected::default();
        call.take(&packet(row), &mut out);
        assert!(
            out.sent.is_empty() && out.events.is_empty(),
            "{row} is parked"
        );
        both!(&mut call, authenticated(T0, &KEY, &mut out));
        let said = match &out.sent[..] {
            [] => "ok".to_owned(),
            [bytes] => sent(bytes),
            other => panic!("{other:?}"),
        };
        let said = match call.state() {
            "AP" => said,
            state => format!("{said}>{state}"),
        };
        assert_eq!(said, expected, "{row}");
    }
}

/// Attribute, status and length of the value of a Status Info.
#[derive(Debug, PartialEq)]
struct Told(u8, u32, usize);

/// MS-SSTP §3.3.5.2.2: all that is wrong with a request is in one CALL_CONNECT_NAK.
#[test]
fn state_table_of_request_attributes() {
    let cases: [(&[u8], &[Told]); 12] = [
        (&hex!("00010000"), &[Told(1, 0x0A, 0)]),
        (&hex!("00010001 000100060002"), &[Told(1, 0x04, 2)]),
        (&hex!("00010001 00010004"), &[Told(1, 0x03, 0)]),
        (&hex!("00010001 0001000501"), &[Told(1, 0x03, 1)]),
        (&hex!("00010001 0001000800020000"), &[Told(1, 0x03, 4)]),
        (
            &hex!("00010002 000100060001 000100060001"),
            &[Told(1, 0x01, 2)],
        ),
        (
            &hex!("00010002 000100060001 00090006ffff"),
            &[Told(9, 0x02, 0)],
        ),
        (&hex!("00010002 000100060001 00000004"), &[Told(0, 0x02, 0)]),
        (&hex!("00010002 000100060001 00040004"), &[Told(4, 0x02, 0)]),
        (
            &hex!("00010002 000100060001 0002000c0000000000000005"),
            &[Told(2, 0x0B, 8)],
        ),
        (
            &hex!("00010002 000100060001 00020005ff"),
            &[Told(2, 0x03, 1)],
        ),
        (
            &hex!("00010004 0002000c0000000000000005 00090004 00090004 0002000c0000000000000000"),
            &[
                Told(2, 0x0B, 8),
                Told(9, 0x02, 0),
                Told(9, 0x02, 0),
                Told(2, 0x01, 8),
                Told(1, 0x0A, 0),
            ],
        ),
    ];
    for (body, expected) in cases {
        let len = u8::try_from(body.len() + 4).unwrap();
        let request = [&[0x10, 0x01, 0x00, len], body].concat();
        let mut call = call_in("server", "RS");
        let mut out = Collected::default();
        call.take(&request, &mut out);
        let [nak] = &out.sent[..] else {
            panic!("{body:02x?}: {out:?}");
        };
        assert_eq!(status_infos(nak), expected, "{body:02x?}");
        call.take(&packet("REQUEST"), &mut out);
        assert_eq!(call.state(), "CP", "a good one after a bad one");
    }
}

/// Reads a CALL_CONNECT_NAK independently of the code under test.
fn status_infos(nak: &[u8]) -> Vec<Told> {
    assert_eq!(nak[..2], [0x10, 0x01]);
    assert_eq!(usize::from(u16::from_be_bytes([nak[2], nak[3]])), nak.len());
    assert_eq!(nak[4..6], [0, 3]);
    let count = u16::from_be_bytes([nak[6], nak[7]]);
    let (mut infos, mut rest) = (Vec::new(), &nak[8..]);
    while !rest.is_empty() {
        let len = usize::from(u16::from_be_bytes([rest[2], rest[3]]));
        assert_eq!((rest[0], rest[1], &rest[4..7]), (0, 2, &[0, 0, 0][..]));
        let status = u32::from_be_bytes(rest[8..12].try_into().unwrap());
        infos.push(Told(rest[7], status, len - 12));
        rest = &rest[len..];
    }
    assert_eq!(usize::from(count), infos.len());
    infos
}

/// A request of a thousand unknown attributes is answered by one packet, not by three.
#[test]
fn a_nak_never_outgrows_a_packet() {
    let count = (packet::PACKET_LEN_MAX - 8) / 4;
    let mut request = hex!("10010fff 00010000").to_vec();
    request[6..8].copy_from_slice(&u16::try_from(count).unwrap().to_be_bytes());
    for _ in 0..count {
        request.extend_from_slice(&hex!("00090004"));
    }
    request.resize(packet::PACKET_LEN_MAX, 0);
    let mut call = call_in("server", "RS");
    let mut out = Collected::default();
    call.take(&request, &mut out);
    assert_eq!(
        status_infos(&out.sent[0]).len(),
        (packet::PACKET_LEN_MAX - 8) / 12
    );
}

/// A rejected value is repeated up to 64 bytes.
#[test]
fn a_rejected_value_is_cut() {
    let mut request = hex!("1001006c 00010001 00010064").to_vec();
    request.resize(108, 0xEE);
    let mut call = call_in("server", "RS");
    let mut out = Collected::default();
    call.take(&request, &mut out);
    assert_eq!(status_infos(&out.sent[0]), [Told(1, 0x03, 64)]);
}

/// Each deadline of the tables, to the nanosecond.
#[test]
fn state_table_of_the_timers() {
    let seconds = |role: &str, column: &str| {
        both!(&call_in(role, column), next_timeout()).map(|at| at.saturating_since(T0).as_secs())
    };
    for role in ["server", "client"] {
        for (column, expected) in [
            ("new", None),
            ("RS", Some(60)),
            ("CP", Some(60)),
            ("C", Some(60)),
            ("AP", Some(3)),
            ("ATP", Some(1)),
            ("DP", Some(5)),
            ("DTP", Some(1)),
            ("closed", None),
        ] {
            assert_eq!(seconds(role, column), expected, "{role} {column}");
            let mut call = call_in(role, column);
            if let Some(at) = both!(&call, next_timeout()) {
                let mut out = Collected::default();
                let early = Instant::from_nanos(at.as_nanos() - 1);
                both!(&mut call, handle_timeout(early, &mut out));
                assert!(out.sent.is_empty() && out.events.is_empty());
                assert_eq!(at.saturating_since(early), Duration::from_nanos(1));
            }
        }
    }
}
