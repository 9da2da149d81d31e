//! Packets, streams and connections to measure with.
//!
//! Everything is made here, once, before a measurement begins; contents are fixed but for what a TLS
//! server draws. A fixture that cannot be made is a bug of the benchmark, so these functions panic.

pub mod repeatable;

use std::sync::Arc;

use datapath::ip::checksum;
use datapath::sstp::packet;
use datapath::tls::{
    ClientProfile, Connection, Finished, Handshake, Progress, ServerGeneration, Suite, TlsOptions,
    Version,
};
use rcgen::{CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

/// Largest packet that PPP over SSTP usually carries.
pub const MTU: u16 = 1400;

/// A name for the certificates of this file.
const NAME: &str = "bench.example";

/// An IPv4 TCP segment of `len` bytes in all, from 192.0.2.1 to 198.51.100.1, with right checksums.
/// A SYN carries an MSS option of 1460.
///
/// # Panics
///
/// If `len` is below 44 or above 65535.
#[must_use]
pub fn tcp_segment(len: usize, is_syn: bool) -> Vec<u8> {
    let total_len = u16::try_from(len).expect("an IPv4 packet");
    let mut packet = vec![0; len];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&total_len.to_be_bytes());
    packet[6] = 0x40;
    packet[8] = 64;
    packet[9] = 6;
    packet[12..16].copy_from_slice(&[192, 0, 2, 1]);
    packet[16..20].copy_from_slice(&[198, 51, 100, 1]);
    let ip_checksum = checksum::of(&packet[..20]);
    packet[10..12].copy_from_slice(&ip_checksum.to_be_bytes());

    let (header, payload) = packet.split_at_mut(20);
    payload[0..4].copy_from_slice(&[0xc0, 0x00, 0x01, 0xbb]);
    payload[12] = 0x60;
    payload[13] = if is_syn { 0x02 } else { 0x10 };
    payload[20..24].copy_from_slice(&[2, 4, 0x05, 0xb4]);
    for (at, byte) in payload.iter_mut().enumerate().skip(24) {
        *byte = at.to_le_bytes()[0];
    }
    let address = |at: usize| {
        let bytes: [u8; 4] = header[at..at + 4].try_into().expect("four bytes");
        bytes.into()
    };
    let segment_len = total_len - 20;
    let tcp_checksum = checksum::pseudo_v4(address(12), address(16), 6, segment_len)
        .add_bytes(payload)
        .checksum();
    payload[16..18].copy_from_slice(&tcp_checksum.to_be_bytes());
    packet
}

/// A PPP frame that carries `packet`.
#[must_use]
pub fn ppp_frame(packet: &[u8]) -> Vec<u8> {
    let mut frame = vec![0xff, 0x03, 0x00, 0x21];
    frame.extend_from_slice(packet);
    frame
}

/// `count` SSTP data packets in a row, each with a TCP segment of `len` bytes in a frame.
///
/// # Panics
///
/// If `len` does not fit a packet.
#[must_use]
pub fn data_packets(count: usize, len: usize) -> Vec<u8> {
    let frame = ppp_frame(&tcp_segment(len, false));
    let mut header = [0; packet::HEADER_LEN];
    packet::write_data_header(&mut header, frame.len()).expect("it fits a packet");
    let mut stream = Vec::new();
    for _ in 0..count {
        stream.extend_from_slice(&header);
        stream.extend_from_slice(&frame);
    }
    stream
}

/// What a client calls the server of [`tls_roles`].
///
/// # Panics
///
/// Never: the name is one.
#[must_use]
pub fn server_name() -> ServerName<'static> {
    ServerName::try_from(NAME).expect("a name")
}

/// Both roles of TLS 1.3 under `suite`: every handshake between them takes the same instructions.
///
/// # Panics
///
/// If a certificate cannot be made.
#[must_use]
pub fn tls_roles(suite: Suite) -> (ServerGeneration, ClientProfile) {
    let options = options(suite);
    let [root_key, key] = [1, 2].map(repeatable::key_pair);
    let (root, generation) = server(root_key, &key, &options);
    let (random, group) = (&repeatable::Fixed, &repeatable::FixedGroup);
    let profile = ClientProfile::with_randomness([root], random, group, &options);
    (generation, profile.expect("a profile"))
}

/// Both roles of TLS 1.3 under `suite` as they are shipped: all is drawn, and the certificate is of
/// ECDSA P-256, as a gateway's is by default.
///
/// # Panics
///
/// If a certificate cannot be made.
#[must_use]
pub fn random_tls_roles(suite: Suite) -> (ServerGeneration, ClientProfile) {
    let options = options(suite);
    let [root_key, key] = [(); 2].map(|()| KeyPair::generate().expect("a key"));
    let (root, generation) = server(root_key, &key, &options);
    let profile = ClientProfile::new([root], &options);
    (generation, profile.expect("a profile"))
}

fn options(suite: Suite) -> TlsOptions {
    TlsOptions {
        min_version: Version::Tls13,
        suites: vec![suite],
        ..TlsOptions::default()
    }
}

/// A root with its own key, and a server whose certificate it has signed.
fn server(
    root_key: KeyPair,
    key: &KeyPair,
    options: &TlsOptions,
) -> (CertificateDer<'static>, ServerGeneration) {
    let mut root = CertificateParams::default();
    root.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let root = CertifiedIssuer::self_signed(root, root_key).expect("a root");
    let mut leaf = CertificateParams::new(vec![NAME.to_owned()]).expect("a name");
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let leaf = leaf.signed_by(key, &root).expect("a leaf");
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let generation = ServerGeneration::new(vec![leaf.der().clone()], key, options);
    (root.der().clone(), generation.expect("a generation"))
}

/// Both ends of a connection of [`tls_roles`], client first, after a real handshake.
///
/// # Panics
///
/// If the handshake fails.
#[must_use]
pub fn tls_pair(suite: Suite) -> (Connection, Connection) {
    let (client, server) = shake_hands(tls_roles(suite));
    (client.connection, server.connection)
}

/// What both ends have of a handshake, client first.
fn shake_hands((generation, profile): (ServerGeneration, ClientProfile)) -> (Finished, Finished) {
    let mut client = Handshake::client(&Arc::new(profile), server_name()).expect("a client");
    let mut server = Handshake::server(&Arc::new(generation)).expect("a server");

    let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
    client.handle_bytes(&[], &mut to_server).expect("a hello");
    let (mut client_progress, mut server_progress) = (Progress::Pending, Progress::Pending);
    while client_progress != Progress::Done || server_progress != Progress::Done {
        let bytes = std::mem::take(&mut to_server);
        server_progress = server
            .handle_bytes(&bytes, &mut to_client)
            .expect("a good client");
        let bytes = std::mem::take(&mut to_client);
        client_progress = client
            .handle_bytes(&bytes, &mut to_server)
            .expect("a good server");
    }
    let finished = |handshake: Handshake| handshake.finish().expect("it is done");
    (finished(client), finished(server))
}

/// A record's room for `plaintext_len` bytes under `connection`, filled with something.
#[must_use]
pub fn record_room(connection: &Connection, plaintext_len: usize) -> Vec<u8> {
    let mut room = vec![0x5a; connection.prefix_len() + plaintext_len + connection.suffix_len()];
    room[..connection.prefix_len()].fill(0);
    room
}

#[cfg(test)]
mod tests {
    use datapath::ip::packet::Packet;
    use datapath::tls::Opened;

    use super::*;

    #[test]
    fn segments_are_good_packets() {
        for (len, is_syn) in [(44, true), (1400, false), (65_535, false)] {
            let segment = tcp_segment(len, is_syn);
            assert!(checksum::is_right(&segment[..20]));
            assert_eq!(Packet::parse(&segment).unwrap().bytes().len(), len);
        }
    }

    #[test]
    fn a_stream_of_packets_can_be_walked() {
        let stream = data_packets(3, 1400);
        let mut at = 0;
        let mut count = 0;
        while let Some((packet, len)) = packet::parse(&stream[at..]).unwrap() {
            assert_eq!(packet.payload().len(), 1404);
            at += len;
            count += 1;
        }
        assert_eq!((at, count), (stream.len(), 3));
    }

    #[test]
    fn hellos_are_the_same_each_time_unless_they_are_random() {
        let hello = |(_, profile): (ServerGeneration, ClientProfile)| {
            let mut hello = Vec::new();
            let mut client = Handshake::client(&Arc::new(profile), server_name()).unwrap();
            client.handle_bytes(&[], &mut hello).unwrap();
            hello
        };
        let suite = Suite::Aes128Gcm;
        assert_eq!(hello(tls_roles(suite)), hello(tls_roles(suite)));
        let shipped = [
            hello(random_tls_roles(suite)),
            hello(random_tls_roles(suite)),
        ];
        assert_ne!(shipped[0], shipped[1]);
        assert_eq!(shipped[0].len(), hello(tls_roles(suite)).len());
    }

    #[test]
    fn handshakes_agree_on_the_exchange_that_is_shipped() {
        for roles in [tls_roles, random_tls_roles] {
            let (client, server) = shake_hands(roles(Suite::Aes128Gcm));
            assert!(client.info.post_quantum && server.info.post_quantum);
            assert_eq!(client.info.certificate, server.info.certificate);
        }
    }

    #[test]
    fn both_ends_of_a_pair_understand_each_other() {
        let (mut client, mut server) = tls_pair(Suite::Aes128Gcm);
        let mut record = record_room(&client, 100);
        let len = client.seal(&mut record, 100).unwrap();
        assert!(
            matches!(server.open(&mut record[..len]), Ok(Opened::Data(data)) if data.len() == 100)
        );
    }
}
