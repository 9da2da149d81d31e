//! SSTP against bytes that others made: the worked examples of MS-SSTP §4, a capture of Windows, and
//! a whole session, line by line, for both roles.

use datapath::crypto::hmac::{hmac_sha256, sha1, sha256};
use datapath::crypto::{Hlak, mschapv2, nt_hash};
use datapath::output::Collected;
use datapath::sstp::binding::{self, BindingRefused, Expected, HashProtocol};
use datapath::sstp::message::{self, Message, MessageType, Status};
use datapath::sstp::{
    Admission, CertificateHashes, CloseReason, Event, HashBitmask, Nonce, client, packet, server,
};
use datapath::time::Instant;
use hex_literal::hex;
use proptest::prelude::*;

const T0: Instant = Instant::ZERO;

/// One worked example; the certificate hash of the function that is not used is of no matter.
struct Example {
    hlak: [u8; 32],
    nonce: [u8; 32],
    protocol: HashProtocol,
    certificate: CertificateHashes,
    compound_mac: [u8; 32],
}

/// The nonce of the examples that are nobody else's, and its stand-in for a certificate.
const COUNTING: [u8; 32] = hex!("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f");

fn stand_in_certificate() -> CertificateHashes {
    let der: Vec<u8> = (0..=255).collect();
    CertificateHashes::of_der(&der)
}

fn padded(mac: [u8; 20]) -> [u8; 32] {
    let mut field = [0; 32];
    field[..20].copy_from_slice(&mac);
    field
}

fn examples() -> Vec<(&'static str, Example)> {
    let of_sha256 = |sha256| CertificateHashes {
        sha1: [0xEE; 20],
        sha256,
    };
    let mschapv2 = hex!("d5f0e9521e3ea9589645e86051c822268b7cdc149b993a1ba118cb153f56dccb");
    let counting = |hlak, protocol, compound_mac| Example {
        hlak,
        nonce: COUNTING,
        protocol,
        certificate: stand_in_certificate(),
        compound_mac,
    };
    vec![
        (
            "MS-SSTP §4, SHA-256",
            Example {
                hlak: hex!("2a1bb40d55ab0f5ef32f06f2b3cc73c48fd3fac41d7a1315a19228d9024ca164"),
                nonce: hex!("412b489aebd7ecc7d08966f26be7cd72b231a0e9210d7c91b308862b0344c435"),
                protocol: HashProtocol::Sha256,
                certificate: of_sha256(hex!(
                    "7993ef314c493dace9f02d60e7e61c84b6690aafe9d7aeea92cbbe8ad599422d"
                )),
                compound_mac: hex!(
                    "52a68efd8cffbf52770b8f0fe8ec73716583af6d611eb6d179b3b20840985449"
                ),
            },
        ),
        (
            "MS-SSTP §4, SHA-1",
            Example {
                hlak: hex!("4b3128f43925d9006eefb1c4e86515a1d88e56bab3ca2bdf0373b7f5a8a13b19"),
                nonce: hex!("0f1a2d58d4a3e3000fad3ce4906e07b707aa9e441cceac5cbd7b2cc1c9d86cdf"),
                protocol: HashProtocol::Sha1,
                certificate: CertificateHashes {
                    sha1: hex!("5826b629bda59b8e6fd8dcd2622fd34c534805a5"),
                    sha256: [0xEE; 32],
                },
                compound_mac: padded(hex!("69915dd583d8062fef16f61db2f03290ec27cb6c")),
            },
        ),
        (
            "Windows 8.1 to Windows Server 2019, EAP-TLS",
            Example {
                hlak: hex!("bb2c17edbaa643b3d511eb9848792b7cab5f5d709fe9bdf89b5deaf5a8c17db7"),
                nonce: hex!("388a1ecbf302ba02f9f372ce37488ec36b71a28b5e1b19fbe44d5465a631c463"),
                protocol: HashProtocol::Sha256,
                certificate: of_sha256(hex!(
                    "7ff150176fa8e38a1f402d11ff89ff11b66505ad7f9ae81205277ba4a6b9ef9d"
                )),
                compound_mac: hex!(
                    "fe6473c7d183914e483fea1b12a6e760a4da16b62fab12a0a1e54e0ec325b24e"
                ),
            },
        ),
        (
            "MS-CHAPv2, SHA-256",
            counting(
                mschapv2,
                HashProtocol::Sha256,
                hex!("8390480f793ebf2b5b784f0f213496916121a2cd93d70b2dc4de8b2cd30ac199"),
            ),
        ),
        (
            "MS-CHAPv2, SHA-1",
            counting(
                mschapv2,
                HashProtocol::Sha1,
                padded(hex!("13eceea3143d4ed4808b8939aa517c5457816753")),
            ),
        ),
        (
            "no key, SHA-256",
            counting(
                [0; 32],
                HashProtocol::Sha256,
                hex!("275bd268612142e932a058ca946eff246888c5c043a78ef0e3434e917523100b"),
            ),
        ),
        (
            "no key, SHA-1",
            counting(
                [0; 32],
                HashProtocol::Sha1,
                padded(hex!("101b1a3e96be038e3380d214bd9e87bb470dd6f9")),
            ),
        ),
    ]
}

impl Example {
    fn call_connected(&self) -> [u8; 112] {
        *binding::compute(
            &Hlak::from_bytes(self.hlak),
            &Nonce(self.nonce),
            self.protocol,
            &self.certificate,
        )
        .packet()
    }

    fn verify(&self, packet: &[u8]) -> Result<binding::BindingVerified, BindingRefused> {
        let Ok(Message::CallConnected(Ok(message))) = message::parse(packet) else {
            panic!("no CALL_CONNECTED");
        };
        let expected = Expected {
            nonce: &Nonce(self.nonce),
            offered: HashBitmask::BOTH,
            certificates: &[self.certificate],
        };
        binding::verify(&message, &expected, &Hlak::from_bytes(self.hlak))
    }
}

#[test]
fn vectors_compound_mac_of_the_examples() {
    for (name, example) in examples() {
        let packet = example.call_connected();
        assert_eq!(packet[80..], example.compound_mac, "{name}");
        assert!(example.verify(&packet).is_ok(), "{name}");
    }
}

#[test]
fn vectors_certificate_hashes() {
    let hashes = stand_in_certificate();
    assert_eq!(
        hashes.sha256,
        hex!("40aff2e9d2d8922e47afd4648e6967497158785fbd1da870e7110266bf944880")
    );
    assert_eq!(
        hashes.sha1,
        hex!("4916d6bdb7f78e6803698cab32d1586ea457dfc8")
    );
    let der: Vec<u8> = (0..=255).collect();
    assert_eq!(hashes.sha1, sha1(&[&der]));
    assert_eq!(hashes.sha256, sha256(&[&der]));
}

/// From the password to the packet.
#[test]
fn vectors_call_connected_of_an_mschapv2_login() {
    let nt_hash = nt_hash::nt_password_hash("clientPass");
    let response = mschapv2::nt_response(
        &hex!("5b5d7c7d7b3f2f3e3c2c602132262628"),
        &hex!("21402324255e262a28295f2b3a337c7e"),
        b"User",
        &nt_hash,
    );
    let hlak = Hlak::from_mschapv2(&nt_hash, &response);
    let packet = |protocol| {
        *binding::compute(&hlak, &Nonce(COUNTING), protocol, &stand_in_certificate()).packet()
    };
    assert_eq!(packet(HashProtocol::Sha256), CALL_CONNECTED);
    assert_eq!(
        packet(HashProtocol::Sha1),
        hex!(
            "10010070000400010003006800000001000102030405060708090a0b0c0d0e0f"
            "101112131415161718191a1b1c1d1e1f4916d6bdb7f78e6803698cab32d1586e"
            "a457dfc800000000000000000000000013eceea3143d4ed4808b8939aa517c54"
            "57816753000000000000000000000000"
        )
    );
}

/// MS-SSTP §3.2.5.2.2 makes `LEN` little-endian; taken big-endian the example's MAC differs.
#[test]
fn vectors_len_is_little_endian() {
    let (_, example) = &examples()[0];
    let mut packet = example.call_connected();
    let mac = |len: [u8; 2], packet: &[u8]| {
        let seed = b"SSTP inner method derived CMK";
        let key = hmac_sha256(&example.hlak, &[seed, &len, &[1]]);
        hmac_sha256(&key, &[&packet[..80], &[0; 32]])
    };
    assert_eq!(mac([0x20, 0x00], &packet), example.compound_mac);
    let wrong = mac([0x00, 0x20], &packet);
    assert_ne!(wrong, example.compound_mac);
    packet[80..].copy_from_slice(&wrong);
    assert_eq!(example.verify(&packet), Err(BindingRefused::CompoundMac));
}

/// Whatever bit of a right packet is turned, the packet proves nothing any more.
#[test]
fn each_flipped_bit_is_refused() {
    for (name, example) in examples() {
        let right = example.call_connected();
        for bit in 0..right.len() * 8 {
            let mut packet = right;
            packet[bit / 8] ^= 1 << (bit % 8);
            let refused = match message::parse(&packet) {
                Ok(Message::CallConnected(Ok(_))) => example.verify(&packet).is_err(),
                _ => true,
            };
            // The padding of a SHA-1 MAC is covered by nothing.
            let covered = example.protocol == HashProtocol::Sha256 || bit / 8 < 100;
            assert_eq!(refused, covered, "{name}, bit {bit}");
        }
    }
}

#[test]
fn each_cause_is_told_apart() {
    let (_, example) = &examples()[3];
    let refused = |at: usize, value: u8| {
        let mut packet = example.call_connected();
        packet[at] = value;
        example.verify(&packet).unwrap_err()
    };
    assert_eq!(refused(15, 0), BindingRefused::HashProtocol(0));
    assert_eq!(refused(15, 3), BindingRefused::HashProtocol(3));
    assert_eq!(refused(16, 0xFF), BindingRefused::Nonce);
    assert_eq!(refused(48, 0xFF), BindingRefused::CertificateHash);
    assert_eq!(refused(80, 0xFF), BindingRefused::CompoundMac);

    let Ok(Message::CallConnected(Ok(message))) = message::parse(&CALL_CONNECTED) else {
        panic!("no CALL_CONNECTED");
    };
    let certificates = [stand_in_certificate()];
    let expected = Expected {
        nonce: &Nonce(COUNTING),
        offered: HashBitmask::SHA1,
        certificates: &certificates,
    };
    assert_eq!(
        binding::verify(&message, &expected, &Hlak::from_bytes(example.hlak)),
        Err(BindingRefused::HashProtocol(2)),
        "a function that was not offered"
    );
    let expected = Expected {
        certificates: &[],
        offered: HashBitmask::BOTH,
        ..expected
    };
    assert_eq!(
        binding::verify(&message, &expected, &Hlak::from_bytes(example.hlak)),
        Err(BindingRefused::CertificateHash)
    );
}

#[test]
fn any_of_several_certificates_is_taken() {
    let (_, example) = &examples()[3];
    let Ok(Message::CallConnected(Ok(message))) = message::parse(&CALL_CONNECTED) else {
        panic!("no CALL_CONNECTED");
    };
    let renewed = CertificateHashes::of_der(b"renewed");
    let expected = Expected {
        nonce: &Nonce(COUNTING),
        offered: HashBitmask::SHA256,
        certificates: &[renewed, stand_in_certificate()],
    };
    assert!(binding::verify(&message, &expected, &Hlak::from_bytes(example.hlak)).is_ok());
}

const CALL_CONNECT_REQUEST: [u8; 14] = hex!("1001000e00010001000100060001");
const CALL_CONNECT_ACK: [u8; 48] = hex!(
    "10010030000200010004002800000003"
    "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
);
const CALL_CONNECTED: [u8; 112] = hex!(
    "10010070000400010003006800000002000102030405060708090a0b0c0d0e0f"
    "101112131415161718191a1b1c1d1e1f40aff2e9d2d8922e47afd4648e696749"
    "7158785fbd1da870e7110266bf9448808390480f793ebf2b5b784f0f21349691"
    "6121a2cd93d70b2dc4de8b2cd30ac199"
);
const ECHO_REQUEST: [u8; 8] = hex!("1001000800080000");
const ECHO_RESPONSE: [u8; 8] = hex!("1001000800090000");
const CALL_DISCONNECT: [u8; 20] = hex!("10010014000600010002000c0000000000000000");
const CALL_DISCONNECT_ACK: [u8; 8] = hex!("1001000800070000");
const LCP_CONFIGURE_REQUEST: [u8; 29] =
    hex!("1000001dff03c0210100001501040ffb0506a1b2c3d4070208020d0306");
const HLAK: [u8; 32] = hex!("d5f0e9521e3ea9589645e86051c822268b7cdc149b993a1ba118cb153f56dccb");

fn whole(bytes: &[u8]) -> packet::Packet<'_> {
    let (packet, consumed) = packet::parse(bytes).unwrap().unwrap();
    assert_eq!(consumed, bytes.len());
    packet
}

fn new_server() -> server::Call {
    server::Call::new(server::Config::new(
        Nonce(COUNTING),
        vec![stand_in_certificate()],
    ))
}

#[test]
fn vectors_transcript_of_a_session_as_the_server() {
    let mut call = new_server();
    let mut out = Collected::default();
    call.start(T0, &mut out);
    let take = |call: &mut server::Call, bytes: &[u8], out: &mut Collected<Event>| {
        out.sent.clear();
        out.events.clear();
        call.handle_packet(T0, whole(bytes), out)
    };
    take(&mut call, &CALL_CONNECT_REQUEST, &mut out);
    assert_eq!(out.sent, [CALL_CONNECT_ACK]);
    assert_eq!(out.events, [Event::StartPpp]);
    assert_eq!(
        take(&mut call, &LCP_CONFIGURE_REQUEST, &mut out),
        Admission::Ppp
    );
    call.authenticated(T0, &Hlak::from_bytes(HLAK), &mut out);
    take(&mut call, &CALL_CONNECTED, &mut out);
    assert!(matches!(out.events[..], [Event::Connected(_)]));
    assert_eq!(
        take(&mut call, &LCP_CONFIGURE_REQUEST, &mut out),
        Admission::PppAll
    );
    take(&mut call, &ECHO_REQUEST, &mut out);
    assert_eq!(out.sent, [ECHO_RESPONSE]);
    take(&mut call, &CALL_DISCONNECT, &mut out);
    assert_eq!(out.sent, [CALL_DISCONNECT_ACK]);
}

#[test]
fn vectors_transcript_of_a_session_as_the_client() {
    let mut call = client::Call::new(client::Config::new(stand_in_certificate()));
    let mut out = Collected::default();
    call.start(T0, &mut out);
    assert_eq!(out.sent, [CALL_CONNECT_REQUEST]);
    out = Collected::default();
    call.handle_packet(T0, whole(&CALL_CONNECT_ACK), &mut out);
    assert_eq!(out.events, [Event::StartPpp]);
    call.authenticated(T0, &Hlak::from_bytes(HLAK), &mut out);
    assert_eq!(out.sent, [CALL_CONNECTED]);
    assert_eq!(out.events, [Event::StartPpp, Event::BindingSent]);
    out = Collected::default();
    call.disconnect(T0, &mut out);
    assert_eq!(out.sent, [CALL_DISCONNECT]);
    call.handle_packet(T0, whole(&CALL_DISCONNECT_ACK), &mut out);
    let reason = CloseReason::Disconnected;
    assert_eq!(out.events, [Event::Draining(reason), Event::Closed(reason)]);
}

#[test]
fn vectors_aborts_and_a_nak() {
    let mut out = Collected::default();
    let mut call = new_server();
    call.start(T0, &mut out);
    call.handle_packet(T0, whole(&hex!("1001000e00010001000100060002")), &mut out);
    assert_eq!(
        out.sent,
        [hex!("10010016000300010002000e00000001000000040002")],
        "protocol 2"
    );

    let mut out = Collected::default();
    call.handle_packet(T0, whole(&ECHO_REQUEST), &mut out);
    assert_eq!(
        out.sent,
        [hex!("10010014000500010002000c0000000000000005")],
        "bad state"
    );

    for (attribute, status, bytes) in [
        (
            3,
            Status::VALUE_NOT_SUPPORTED,
            hex!("10010014000500010002000c0000000300000004"),
        ),
        (
            2,
            Status::RETRY_COUNT_EXCEEDED,
            hex!("10010014000500010002000c0000000200000006"),
        ),
        (
            0,
            Status::NEGOTIATION_TIMEOUT,
            hex!("10010014000500010002000c0000000000000008"),
        ),
    ] {
        let attribute = message::AttributeId(attribute);
        assert_eq!(
            message::with_status(MessageType::CallAbort, attribute, status),
            bytes
        );
        let Ok(Message::CallAbort(Some(info))) = message::parse(&bytes) else {
            panic!("no CALL_ABORT");
        };
        assert_eq!((info.attribute, info.status), (attribute, status));
    }
}

proptest! {
    /// A control packet is read or refused, whatever its bytes; what is read says its own type.
    #[test]
    fn no_progress_any_control_packet(
        code in 0_u16..12,
        count in 0_u16..4,
        body in prop::collection::vec(prop_oneof![
            (0_u8..6, prop::collection::vec(any::<u8>(), 0..40)).prop_map(|(id, value)| {
                let len = u8::try_from(value.len() + 4).unwrap();
                [vec![0, id, 0, len], value].concat()
            }),
            prop::collection::vec(any::<u8>(), 0..8),
        ], 0..4).prop_map(|parts| parts.concat()),
    ) {
        let [high, low] = code.to_be_bytes();
        let [count_high, count_low] = count.to_be_bytes();
        let packet = [&[0x10, 1, 0, 0, high, low, count_high, count_low], &body[..]].concat();
        if let Ok(message) = message::parse(&packet) {
            prop_assert_eq!(message.message_type().code(), code);
            if let Message::CallConnectRequest(request) = message {
                let mut buffer = [0; packet::PACKET_LEN_MAX];
                let nak = message::write_call_connect_nak(request.problems(), &mut buffer);
                let (nak, _) = packet::parse(nak).unwrap().unwrap();
                let Ok(Message::CallConnectNak(first)) = message::parse(nak.bytes()) else {
                    panic!("what is written is read");
                };
                let problem = request.problems().next();
                prop_assert_eq!(
                    first.map(|info| (info.attribute, info.status)),
                    problem.map(|info| (info.attribute, info.status))
                );
            }
        }
    }

    /// The stream may be cut anywhere: the call says and does the same.
    #[test]
    fn no_progress_any_stream_any_cut(
        packets in prop::collection::vec(prop_oneof![
            Just(CALL_CONNECT_REQUEST.to_vec()),
            Just(hex!("1001000800010000").to_vec()),
            Just(CALL_CONNECTED.to_vec()),
            Just(ECHO_REQUEST.to_vec()),
            Just(LCP_CONFIGURE_REQUEST.to_vec()),
            Just(CALL_DISCONNECT.to_vec()),
            Just(hex!("10010003").to_vec()),
            prop::collection::vec(any::<u8>(), 0..20),
        ], 0..12),
        pieces in prop::collection::vec(1_usize..30, 0..100),
    ) {
        let stream = packets.concat();
        prop_assert_eq!(serve(&stream, &pieces), serve(&stream, &[]));
    }
}

/// What a server does with `stream` when it comes in `pieces`.
fn serve(stream: &[u8], pieces: &[usize]) -> (Vec<Vec<u8>>, String, usize) {
    let mut call = new_server();
    let mut out = Collected::default();
    call.start(T0, &mut out);
    let (mut held, mut admitted) = (Vec::new(), 0);
    let mut sizes = pieces.iter().copied().chain(std::iter::repeat(usize::MAX));
    let mut rest = stream;
    while !rest.is_empty() && call.state() != datapath::sstp::call::State::Closed {
        let size = sizes.next().unwrap_or(usize::MAX).min(rest.len());
        let (piece, left) = rest.split_at(size);
        rest = left;
        held.extend_from_slice(piece);
        loop {
            match packet::parse(&held) {
                Ok(Some((packet, consumed))) => {
                    let admission = call.handle_packet(T0, packet, &mut out);
                    admitted += usize::from(admission == Admission::Ppp);
                    if out.events == [Event::StartPpp] {
                        call.authenticated(T0, &Hlak::from_bytes(HLAK), &mut out);
                    }
                    held.drain(..consumed);
                }
                Ok(None) => break,
                Err(error) => {
                    call.framing_error(error, &mut out);
                    break;
                }
            }
        }
    }
    (
        out.sent,
        format!("{:?} {:?}", call.state(), out.events),
        admitted,
    )
}
