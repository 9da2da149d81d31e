//! The outside's first layers: the HTTP head, the stream of SSTP packets, the call.

use datapath::crypto::hlak::Hlak;
use datapath::http;
use datapath::output::Collected;
use datapath::sstp::message;
use datapath::sstp::message::Status;
use datapath::sstp::packet::{self, Kind};
use datapath::sstp::{CertificateHashes, Event, Nonce, client, server};
use datapath::time::{Duration, Instant};

use super::Input;

/// The head of a request and of a response: what is found does not depend on how it is cut.
pub fn http_head(bytes: &[u8]) {
    let request = http::parse_request(bytes);
    let response = http::parse_response(bytes);
    for len in [request.map(|found| found.map(|(_, len)| len)), response]
        .into_iter()
        .flatten()
    {
        assert!(
            len.is_none_or(|len| (1..=bytes.len()).contains(&len)),
            "{len:?}"
        );
    }
    let step = 1 + bytes.len() / 7;
    let (mut scan, mut scan_response) = (http::Scan::default(), http::Scan::default());
    for end in (0..bytes.len()).step_by(step).chain([bytes.len()]) {
        let cut = scan.request(&bytes[..end]);
        if cut != Ok(None) || end == bytes.len() {
            assert_eq!(cut, request, "cut in pieces of {step}");
            break;
        }
    }
    for end in (0..bytes.len()).step_by(step).chain([bytes.len()]) {
        let cut = scan_response.response(&bytes[..end]);
        if cut != Ok(None) || end == bytes.len() {
            assert_eq!(cut, response, "cut in pieces of {step}");
            break;
        }
    }
}

/// The stream of packets: every step consumes, ends or waits, however the stream is cut.
pub fn sstp_stream(bytes: &[u8]) {
    let Some((&step, stream)) = bytes.split_first() else {
        return;
    };
    let whole = packets(stream, stream.len().max(1));
    assert_eq!(packets(stream, usize::from(step) + 1), whole);
}

/// The packets of a stream that arrives in pieces of `step` bytes, and whether it broke.
fn packets(stream: &[u8], step: usize) -> (Vec<(Kind, &[u8])>, bool) {
    let (mut found, mut at) = (Vec::new(), 0);
    for end in (step..stream.len()).step_by(step).chain([stream.len()]) {
        loop {
            match packet::parse(&stream[at..end]) {
                Ok(Some((packet, len))) => {
                    assert!(len >= packet::HEADER_LEN, "no progress");
                    assert_eq!(packet.payload().len() + packet::HEADER_LEN, len);
                    found.push((packet.kind(), packet.bytes()));
                    at += len;
                }
                Ok(None) => break,
                Err(_) => return (found, true),
            }
        }
    }
    (found, false)
}

/// One message, then a call of each role under a sequence of packets, deadlines and commands.
pub fn sstp_control(bytes: &[u8]) {
    if let Ok(parsed) = message::parse(bytes) {
        let _ = format!("{parsed:?}");
    }
    let mut input = Input(bytes);
    let certificate = CertificateHashes::of_der(b"certificate");
    let mut server = server::Call::new(server::Config::new(Nonce([7; 32]), vec![certificate]));
    let mut client = client::Call::new(client::Config::new(certificate));
    let (mut now, mut server_out, mut client_out) =
        (Instant::ZERO, Collected::default(), Collected::default());
    server.start(now, &mut server_out);
    client.start(now, &mut client_out);
    let (mut keyed, mut proven) = (false, false);
    while !input.is_empty() {
        let operation = input.u8();
        let hlak = if operation & 0x10 == 0 {
            Hlak::ZERO
        } else {
            Hlak::from_mppe_keys(&[1; 16], &[2; 16])
        };
        match operation & 0x07 {
            0 => {
                now = now + Duration::from_millis(u64::from(input.u16()) * 10);
                server.handle_timeout(now, &mut server_out);
                client.handle_timeout(now, &mut client_out);
            }
            1 => {
                keyed = true;
                server.authenticated(now, &hlak, &mut server_out);
                client.authenticated(now, &hlak, &mut client_out);
            }
            2 => server.disconnect(now, &mut server_out),
            3 => client.abort(now, Status(u32::from(operation)), &mut client_out),
            // Each one's own words to the other: the way further in.
            4 => {
                for sent in core::mem::take(&mut client_out.sent) {
                    deliver(&sent, |packet| {
                        server.handle_packet(now, packet, &mut server_out)
                    });
                }
                for sent in core::mem::take(&mut server_out.sent) {
                    deliver(&sent, |packet| {
                        client.handle_packet(now, packet, &mut client_out)
                    });
                }
            }
            5 | 6 => {
                let payload = input.chunk();
                let payload = &payload[..payload.len().min(packet::PAYLOAD_LEN_MAX)];
                let kind = u8::from(operation & 0x07 == 5);
                let [high, low] = ((payload.len() + packet::HEADER_LEN) as u16).to_be_bytes();
                let packet = [&[packet::VERSION, kind, high, low], payload].concat();
                deliver(&packet, |packet| {
                    server.handle_packet(now, packet, &mut server_out)
                });
                deliver(&packet, |packet| {
                    client.handle_packet(now, packet, &mut client_out)
                });
            }
            _ => {
                if let (Some(server), Some(client)) = (server.snapshot(), client.snapshot()) {
                    let _ = (
                        server::Call::restore(&server),
                        client::Call::restore(&client),
                    );
                }
            }
        }
        proven |= server_out
            .events
            .iter()
            .any(|event| matches!(event, Event::Connected(_)));
        assert!(keyed || !proven, "connected without a key");
        assert!(
            server_out.events.len() <= 8,
            "one call tells the same news for ever"
        );
        for sent in server_out.sent.iter().chain(&client_out.sent) {
            let (packet, len) = packet::parse(sent).expect("ours").expect("whole");
            assert_eq!((packet.kind(), len), (Kind::Control, sent.len()));
        }
    }
}

fn deliver<T>(bytes: &[u8], mut to: impl FnMut(packet::Packet<'_>) -> T) {
    if let Ok(Some((packet, _))) = packet::parse(bytes) {
        to(packet);
    }
}
