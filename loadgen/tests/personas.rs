//! What each persona puts on the wire: its ClientHello, its request and its first LCP packet, byte for
//! byte, and what it does once it is accepted.

mod support;

use std::io::{Cursor, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::PrivateKeyDer;

/// What is expected of one persona.
struct Expected {
    name: &'static str,
    versions: &'static [u16],
    suites: &'static [u16],
    has_sni: bool,
    /// The headers in order; `{}` is the correlation id.
    headers: [&'static str; 3],
    /// The options of the first LCP Configure-Request; the magic number reads as zeros.
    lcp: &'static str,
}

const LENGTH: &str = "Content-Length: 18446744073709551615";
const HOST: &str = "Host: vpn.example";

const EXPECTED: [Expected; 6] = [
    Expected {
        name: "windows-10",
        versions: &[0x0303],
        suites: &[0xc02c, 0xc030, 0xc02b, 0xc02f],
        has_sni: true,
        headers: ["SSTPCORRELATIONID: {}", LENGTH, HOST],
        lcp: "01040ffb 050600000000 0702 0802 0d0306",
    },
    Expected {
        name: "windows-11",
        versions: &[0x0304, 0x0303],
        suites: &[0x1302, 0xc02c, 0xc030, 0x1301, 0xc02b, 0xc02f],
        has_sni: true,
        headers: ["SSTPCORRELATIONID: {}", LENGTH, HOST],
        lcp: "01040ffb 050600000000 0702 0802 0d0306",
    },
    Expected {
        name: "routeros",
        versions: &[0x0303],
        suites: &[0xc02c, 0xc030, 0xc02b, 0xc02f],
        has_sni: false,
        headers: ["SSTPCORRELATIONID: {}", LENGTH, HOST],
        lcp: "010405dc 050600000000",
    },
    Expected {
        name: "sstpc",
        versions: &[0x0304, 0x0303],
        suites: &[
            0x1302, 0xc02c, 0xc030, 0x1303, 0xcca9, 0xcca8, 0x1301, 0xc02b, 0xc02f,
        ],
        has_sni: true,
        headers: [HOST, LENGTH, "SSTPCORRELATIONID: bare"],
        lcp: "020600000000 050600000000 0702 0802",
    },
    Expected {
        name: "open-sstp-client",
        versions: &[0x0304, 0x0303],
        suites: &[
            0x1301, 0xc02b, 0xc02f, 0x1302, 0xc02c, 0xc030, 0x1303, 0xcca9, 0xcca8,
        ],
        has_sni: true,
        headers: [LENGTH, HOST, "SSTPCORRELATIONID: {}"],
        lcp: "010405dc",
    },
    Expected {
        name: "sstp-connect",
        versions: &[0x0304, 0x0303],
        suites: &[
            0x1301, 0xc02b, 0xc02f, 0x1302, 0xc02c, 0xc030, 0x1303, 0xcca9, 0xcca8,
        ],
        has_sni: true,
        headers: ["SSTPCORRELATIONID: {}", LENGTH, HOST],
        lcp: "01040578 050600000000",
    },
];

/// What was read once is read again.
struct Replay {
    read: Cursor<Vec<u8>>,
    stream: TcpStream,
}

impl Read for Replay {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self.read.read(buffer)? {
            0 => self.stream.read(buffer),
            count => Ok(count),
        }
    }
}

impl Write for Replay {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.stream.flush()
    }
}

/// A cursor over a ClientHello.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len);
        self.0 = rest;
        taken
    }

    fn number(&mut self, len: usize) -> usize {
        let bytes = self.take(len);
        bytes
            .iter()
            .fold(0, |number, &byte| number << 8 | usize::from(byte))
    }

    /// A list behind its length of `len` bytes.
    fn list(&mut self, len: usize) -> Self {
        let count = self.number(len);
        Self(self.take(count))
    }

    fn all_u16(mut self) -> Vec<u16> {
        let mut all = Vec::new();
        while !self.0.is_empty() {
            all.push(u16::try_from(self.number(2)).unwrap());
        }
        all
    }
}

/// Versions, suites, and whether there is a server name (RFC 8446 §4.1.2).
fn read_hello(record: &[u8]) -> (Vec<u16>, Vec<u16>, bool) {
    let mut hello = Bytes(&record[5 + 4..]);
    let legacy = u16::try_from(hello.number(2)).unwrap();
    hello.take(32);
    hello.list(1);
    let mut suites = hello.list(2).all_u16();
    // TLS_EMPTY_RENEGOTIATION_INFO_SCSV is no suite.
    suites.retain(|&suite| suite != 0x00ff);
    hello.list(1);
    let mut extensions = hello.list(2);
    let (mut versions, mut has_sni) = (vec![legacy], false);
    while !extensions.0.is_empty() {
        let kind = extensions.number(2);
        let mut body = extensions.list(2);
        match kind {
            0 => has_sni = true,
            43 => versions = body.list(1).all_u16(),
            _ => {}
        }
    }
    (versions, suites, has_sni)
}

fn server_config() -> Arc<ServerConfig> {
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec![support::NAME.to_owned()]).unwrap();
    let leaf = leaf.self_signed(&key).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key);
    Arc::new(config.unwrap())
}

/// The next SSTP packet.
fn packet(stream: &mut impl Read) -> Vec<u8> {
    let mut packet = vec![0; 4];
    stream.read_exact(&mut packet).unwrap();
    let len = usize::from(u16::from_be_bytes([packet[2], packet[3]]) & 0x0fff);
    packet.resize(len, 0);
    stream.read_exact(&mut packet[4..]).unwrap();
    packet
}

fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
        .collect()
}

#[test]
fn each_persona_writes_what_its_client_writes() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let config = server_config();
    for expected in &EXPECTED {
        let mut client = Command::new(env!("CARGO_BIN_EXE_loadgen"))
            .args(["connect", &address, "--server-name", support::NAME])
            .args(["--user", "u", "--password", "p", "--persona", expected.name])
            .arg("--insecure-accept-any-certificate")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        let mut record = vec![0; 5];
        stream.read_exact(&mut record).unwrap();
        let len = usize::from(u16::from_be_bytes([record[3], record[4]]));
        record.resize(5 + len, 0);
        stream.read_exact(&mut record[5..]).unwrap();
        let name = expected.name;
        let (versions, suites, has_sni) = read_hello(&record);
        assert_eq!(versions, expected.versions, "{name}");
        assert_eq!(suites, expected.suites, "{name}: {suites:04x?}");
        assert_eq!(has_sni, expected.has_sni, "{name}");

        let read = Cursor::new(record);
        let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
        let mut tls = StreamOwned::new(connection, Replay { read, stream });
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            tls.read_exact(&mut byte).unwrap();
            head.extend(byte);
        }
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.split("\r\n");
        let request = "SSTP_DUPLEX_POST /sra_{BA195980-CD49-458b-9E23-C84EE0ADCD75}/ HTTP/1.1";
        assert_eq!(lines.next(), Some(request), "{name}");
        for header in expected.headers {
            let line = lines.next().unwrap();
            let line = match line.strip_prefix("SSTPCORRELATIONID: ") {
                Some(id) => {
                    let bare = id.trim_start_matches('{').trim_end_matches('}');
                    assert_eq!(bare.len(), 36, "{name}: {line}");
                    let form = if id == format!("{{{bare}}}") {
                        "{}"
                    } else {
                        "bare"
                    };
                    format!("SSTPCORRELATIONID: {form}")
                }
                None => line.to_owned(),
            };
            assert_eq!(line, header, "{name}");
        }
        assert_eq!(lines.collect::<Vec<_>>(), ["", ""], "{name}");
        tls.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\n")
            .unwrap();

        assert_eq!(
            packet(&mut tls),
            hex("1001000e 0001 0001 00010006 0001"),
            "{name}"
        );
        // CALL_CONNECT_ACK, SHA-256, a nonce of zeros.
        let mut ack = hex("10010030 0002 0001 00040028 00000002");
        ack.resize(48, 0);
        tls.write_all(&ack).unwrap();
        let mut lcp = packet(&mut tls);
        // Header, address and control, protocol; code 1, identifier 0, length.
        assert_eq!(lcp[4..8], hex("ff03c021")[..], "{name}");
        assert_eq!(lcp[8..10], [1, 0], "{name}");
        let mut options = lcp.split_off(12);
        let wanted = hex(expected.lcp);
        let magic = wanted
            .windows(6)
            .position(|option| option == hex("050600000000"));
        if let Some(at) = magic {
            assert_ne!(options[at + 2..at + 6], [0; 4], "{name}: a magic number");
            options[at + 2..at + 6].fill(0);
        }
        assert_eq!(options, wanted, "{name}: {options:02x?}");
        drop(tls);
        client.wait().unwrap();
    }
}

#[test]
fn every_persona_comes_up_against_a_server() {
    let server = support::Server::start(support::Wishes {
        sessions: 32,
        ..support::Wishes::default()
    });
    let mix = "windows-10=2,windows-11=3,routeros,sstpc=2,open-sstp-client,sstp-connect";
    let output = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args([
            "storm",
            &server.address.to_string(),
            "--server-name",
            support::NAME,
        ])
        .args(["--user", support::USER, "--password", support::PASSWORD])
        .args([
            "-N",
            "20",
            "--rate",
            "100/s",
            "--persona",
            mix,
            "--seed",
            "5",
        ])
        .args(["--hold", "0.5", "--quiet", "--json", "-"])
        .arg("--ca")
        .arg(&server.ca)
        .output()
        .unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{report:#}");
    let personas = report["clients"]["personas"].as_array().unwrap();
    let counts: Vec<(&str, u64, u64)> = personas
        .iter()
        .map(|kind| {
            let count = |name: &str| kind[name].as_u64().unwrap();
            (
                kind["name"].as_str().unwrap(),
                count("started"),
                count("up"),
            )
        })
        .collect();
    assert_eq!(
        counts,
        [
            ("windows-10", 4, 4),
            ("windows-11", 6, 6),
            ("routeros", 2, 2),
            ("sstpc", 4, 4),
            ("open-sstp-client", 2, 2),
            ("sstp-connect", 2, 2),
        ]
    );
    assert_eq!(report["end"]["polite"], 20, "{report:#}");
}
