//! The real binary under load of nothing but itself: it starts, answers the curious, and stops.
//!
//! Needs loopback, no right: the inside is the reflector. The driver is that of SSTP_GW_DRIVER.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};

/// A demo that runs until dropped.
struct Demo {
    child: Child,
    stdout: BufReader<ChildStdout>,
    address: SocketAddr,
    ca: PathBuf,
}

impl Demo {
    fn start() -> Self {
        let address = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let driver = std::env::var("SSTP_GW_DRIVER").unwrap_or_else(|_| "auto".to_owned());
        let mut child = Command::new(env!("CARGO_BIN_EXE_sstp-gw"))
            .args(["demo", "--inside", "reflector", "--shards", "2"])
            .args(["--listen", &address.to_string()])
            .args(["--driver", &driver])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut ca = None;
        let mut line = String::new();
        while stdout.read_line(&mut line).unwrap() > 0 && !line.contains("Ctrl-C") {
            if let Some(path) = line.trim().strip_prefix("CA ") {
                ca = Some(PathBuf::from(path.trim()));
            }
            line.clear();
        }
        Self {
            child,
            stdout,
            address,
            ca: ca.expect("the demo says where its CA lies"),
        }
    }

    fn connect(&self) -> rustls::StreamOwned<rustls::ClientConnection, TcpStream> {
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(&self.ca).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        let client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        rustls::StreamOwned::new(client, TcpStream::connect(self.address).unwrap())
    }

    fn request(&self, head: &str) -> String {
        let mut stream = self.connect();
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args([name, &pid]).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // Twice is at once; a kill would leave its directory behind.
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal("-TERM");
            self.signal("-INT");
        }
        let _ = self.child.wait();
    }
}

#[test]
fn the_curious_are_answered_and_sent_away() {
    let demo = Demo::start();
    let other = demo.request("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(other.starts_with("HTTP/1.1 404 "), "{other}");
    let path = "/sra_{BA195980-CD49-458b-9E23-C84EE0ADCD75}/";
    let probe = demo.request(&format!("HEAD {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
    assert!(probe.starts_with("HTTP/1.1 401 "), "{probe}");
}

#[test]
fn a_call_is_acknowledged_and_ended_politely_when_the_gateway_stops() {
    let mut demo = Demo::start();
    let mut stream = demo.connect();
    let head = "SSTP_DUPLEX_POST /sra_{BA195980-CD49-458b-9E23-C84EE0ADCD75}/ HTTP/1.1\r\n\
                Content-Length: 18446744073709551615\r\nHost: localhost\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
    }
    assert!(answer.starts_with(b"HTTP/1.1 200 "));
    // CALL_CONNECT_REQUEST for PPP (MS-SSTP §2.2.9); the answer is CALL_CONNECT_ACK.
    stream
        .write_all(&[0x10, 0x01, 0, 14, 0, 1, 0, 1, 0, 1, 0, 6, 0, 1])
        .unwrap();
    let mut ack = [0; 48];
    stream.read_exact(&mut ack).unwrap();
    assert_eq!(ack[..8], [0x10, 0x01, 0, 48, 0, 2, 0, 1]);

    let begun = Instant::now();
    demo.signal("-TERM");
    assert_eq!(demo.child.wait().unwrap().code(), Some(0));
    assert!(
        begun.elapsed() < Duration::from_secs(8),
        "{:?}",
        begun.elapsed()
    );
    // What comes before the end of the stream has a CALL_DISCONNECT in it (MS-SSTP §2.2.14).
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    let disconnect = [0x10, 0x01, 0, 20, 0, 6];
    assert!(
        rest.windows(disconnect.len())
            .any(|bytes| bytes == disconnect),
        "{rest:02x?}"
    );
    // Nothing is left behind.
    let mut said = String::new();
    demo.stdout.read_to_string(&mut said).unwrap();
    assert!(!demo.ca.parent().unwrap().exists());
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut demo = Demo::start();
    let _silent = TcpStream::connect(demo.address).unwrap();
    let begun = Instant::now();
    demo.signal("-INT");
    demo.signal("-TERM");
    assert_eq!(demo.child.wait().unwrap().code(), Some(0));
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "{:?}",
        begun.elapsed()
    );
    assert!(!demo.ca.parent().unwrap().exists());
}
