//! Our record layer against OpenSSL's `s_server` and `s_client`, over loopback.
//!
//! Skipped, loudly, where there is no `openssl`.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "OpenSSL is spoken to over real sockets, with files and threads"
)]

mod tls_support;

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use datapath::tls::{
    Connection, Error, Finished, Handshake, Info, Opened, Progress, RecordLayerKind, Suite,
    TlsOptions, Version, record_len,
};
use tempfile::TempDir;
use tls_support::*;

const PATIENCE: Duration = Duration::from_secs(30);
const BULK: usize = 200_000;

fn openssl_is_there() -> bool {
    let there = Command::new("openssl").arg("version").output().is_ok();
    if !there {
        eprintln!("SKIPPED: no `openssl` on this machine, nothing was tested against it");
    }
    there
}

/// An openssl process; its standard output goes to a file.
struct OpenSsl {
    child: Child,
    directory: TempDir,
}

impl OpenSsl {
    fn spawn(pki: &Pki, arguments: &[&str]) -> Self {
        let directory = TempDir::new().unwrap();
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("cert.pem"), &pki.leaf_pem).unwrap();
        std::fs::write(path("key.pem"), &pki.key_pem).unwrap();
        std::fs::write(path("root.pem"), &pki.root_pem).unwrap();
        let child = Command::new("openssl")
            .args(arguments)
            .current_dir(directory.path())
            .stdin(Stdio::piped())
            .stdout(File::create(path("out")).unwrap())
            .stderr(File::create(path("err")).unwrap())
            .spawn()
            .unwrap();
        Self { child, directory }
    }

    fn say(&mut self, bytes: &[u8]) {
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin.write_all(bytes).unwrap();
        stdin.flush().unwrap();
        // Commands must be read apart from what follows.
        std::thread::sleep(Duration::from_millis(100));
    }

    fn said(&self) -> Vec<u8> {
        std::fs::read(self.directory.path().join("out")).unwrap()
    }

    fn wait_for(&self, is_there: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let start = Instant::now();
        loop {
            let said = self.said();
            if is_there(&said) {
                return said;
            }
            assert!(
                start.elapsed() < PATIENCE,
                "openssl: {} bytes; {}",
                said.len(),
                self.log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("err")).unwrap()
    }
}

impl Drop for OpenSsl {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Our end: a socket and the connection over it.
struct End {
    tcp: TcpStream,
    connection: Connection,
    stream: Vec<u8>,
    handled: usize,
    closed: bool,
}

impl End {
    fn new(mut tcp: TcpStream, mut handshake: Handshake) -> (Self, Info) {
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut out = Vec::new();
        let mut progress = handshake.handle_bytes(&[], &mut out).unwrap();
        let mut buffer = [0; 4096];
        loop {
            tcp.write_all(&std::mem::take(&mut out)).unwrap();
            if progress == Progress::Done {
                break;
            }
            let len = tcp.read(&mut buffer).unwrap();
            assert!(len > 0, "closed in the handshake");
            progress = handshake.handle_bytes(&buffer[..len], &mut out).unwrap();
        }
        let Finished {
            connection,
            rest,
            info,
            ..
        } = handshake.finish().unwrap();
        let end = Self {
            tcp,
            connection,
            stream: rest,
            handled: 0,
            closed: false,
        };
        (end, info)
    }

    fn send(&mut self, plaintext: &[u8]) {
        for part in plaintext.chunks(16384) {
            let mut out = pending(&mut self.connection);
            out.extend(seal(&mut self.connection, part));
            self.tcp.write_all(&out).unwrap();
        }
    }

    /// Reads until `len` bytes of data have come, or the end.
    fn receive(&mut self, len: usize) -> Result<Vec<u8>, Error> {
        let mut data = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            while let Some(len) = record_len(&self.stream)?.filter(|&l| l <= self.stream.len()) {
                let mut record: Vec<u8> = self.stream.drain(..len).collect();
                match self.connection.open(&mut record)? {
                    Opened::Data(bytes) => data.extend_from_slice(bytes),
                    Opened::Handled => self.handled += 1,
                    Opened::Closed => self.closed = true,
                }
                let out = pending(&mut self.connection);
                self.tcp.write_all(&out).unwrap();
            }
            if data.len() >= len || self.closed {
                return Ok(data);
            }
            let len = self.tcp.read(&mut buffer).unwrap();
            assert!(len > 0, "closed without close_notify");
            self.stream.extend_from_slice(&buffer[..len]);
        }
    }

    fn close(&mut self) {
        let mut out = Vec::new();
        self.connection.close_notify(&mut out);
        self.tcp.write_all(&out).unwrap();
    }
}

fn connect(port: u16) -> TcpStream {
    let start = Instant::now();
    loop {
        match TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
            Ok(tcp) => return tcp,
            Err(error) => assert!(start.elapsed() < PATIENCE, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

const fn version_flag(version: Version) -> &'static str {
    match version {
        Version::Tls12 => "-tls1_2",
        Version::Tls13 => "-tls1_3",
    }
}

fn against_s_server(pki: &Pki, options: &TlsOptions, flags: &[&str]) -> (OpenSsl, End, Info) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let accept = format!("127.0.0.1:{port}");
    let mut arguments = vec!["s_server", "-accept", &accept, "-naccept", "1"];
    arguments.extend([
        "-cert",
        "cert.pem",
        "-key",
        "key.pem",
        version_flag(options.max_version),
    ]);
    arguments.extend(flags);
    let openssl = OpenSsl::spawn(pki, &arguments);
    let handshake = Handshake::client(&pki.client(options), name()).unwrap();
    let (end, info) = End::new(connect(port), handshake);
    (openssl, end, info)
}

fn against_s_client(pki: &Pki, options: &TlsOptions, flags: &[&str]) -> (OpenSsl, End, Info) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let connect = listener.local_addr().unwrap().to_string();
    let mut arguments = vec!["s_client", "-connect", &connect, "-servername", NAME];
    arguments.extend([
        "-CAfile",
        "root.pem",
        "-verify_return_error",
        "-verify_quiet",
    ]);
    arguments.extend(["-verify_hostname", NAME, version_flag(options.max_version)]);
    arguments.extend(flags);
    let openssl = OpenSsl::spawn(pki, &arguments);
    let handshake = Handshake::server(&pki.server(options)).unwrap();
    let (end, info) = End::new(listener.accept().unwrap().0, handshake);
    (openssl, end, info)
}

/// Text without the letters that `s_server` and `s_client` take for commands.
fn text(len: usize) -> Vec<u8> {
    let mut text: Vec<u8> = pattern(len).iter().map(|byte| b'0' + byte % 10).collect();
    *text.last_mut().unwrap() = b'\n';
    text
}

fn exchange(openssl: &mut OpenSsl, end: &mut End) {
    let bulk = text(BULK);
    end.send(&bulk);
    let said = openssl.wait_for(|said| said.len() >= BULK);
    assert!(said == bulk, "what openssl got is not what was sent");
    let mut stdin = openssl.child.stdin.take().unwrap();
    let sent = bulk.clone();
    let writer = std::thread::spawn(move || {
        stdin.write_all(&sent).unwrap();
        stdin
    });
    let received = end.receive(BULK).unwrap();
    assert!(received == bulk, "what we got is not what openssl sent");
    openssl.child.stdin = Some(writer.join().unwrap());
    end.send(b"end\n");
    openssl.wait_for(|said| said.ends_with(b"end\n"));
}

#[test]
fn our_client_and_s_server_exchange_data_and_close() {
    if !openssl_is_there() {
        return;
    }
    let pki = Pki::new();
    for (version, suite) in MATRIX {
        for kind in [RecordLayerKind::Own, RecordLayerKind::Rustls] {
            let options = only(version, suite, kind);
            let (mut openssl, mut end, info) = against_s_server(&pki, &options, &["-quiet"]);
            assert_eq!((info.version, info.suite), (version, suite));
            exchange(&mut openssl, &mut end);
            end.close();
            assert!(end.receive(1).unwrap().is_empty());
            assert!(end.closed, "s_server answers close_notify");
        }
    }
}

#[test]
fn our_server_and_s_client_exchange_data_and_close() {
    if !openssl_is_there() {
        return;
    }
    let pki = Pki::new();
    for (version, suite) in MATRIX {
        for kind in [RecordLayerKind::Own, RecordLayerKind::Rustls] {
            let options = only(version, suite, kind);
            let flags = ["-quiet", "-no_ign_eof"];
            let (mut openssl, mut end, info) = against_s_client(&pki, &options, &flags);
            assert_eq!((info.version, info.suite), (version, suite));
            assert_eq!(info.sni.as_deref(), Some(NAME));
            exchange(&mut openssl, &mut end);
            openssl.say(b"Q\n");
            assert!(end.receive(1).unwrap().is_empty());
            assert!(end.closed);
        }
    }
}

#[test]
fn openssl_changes_its_keys_and_asks_for_ours() {
    if !openssl_is_there() {
        return;
    }
    let pki = Pki::new();
    for (_, suite) in MATRIX.into_iter().take(3) {
        let options = only(Version::Tls13, suite, RecordLayerKind::Own);
        let client = ["-quiet", "-no_ign_eof"];
        for (mut openssl, mut end, _) in [
            against_s_client(&pki, &options, &client),
            against_s_server(&pki, &options, &[]),
        ] {
            for (n, command) in [b"k\n", b"K\n", b"K\n", b"k\n"].into_iter().enumerate() {
                openssl.say(command);
                openssl.say(b"after\n");
                assert_eq!(end.receive(6).unwrap(), b"after\n");
                let answer = format!("answer {n}\n");
                end.send(answer.as_bytes());
                openssl.wait_for(|said| {
                    said.windows(answer.len())
                        .any(|window| window == answer.as_bytes())
                });
            }
            assert_eq!(end.connection.budget().key_updates, 2, "one for each K");
            // Ours, which asks OpenSSL for its own.
            let mut out = Vec::new();
            end.connection.update_keys(&mut out).unwrap();
            end.tcp.write_all(&out).unwrap();
            end.send(b"ours\n");
            openssl.wait_for(|said| said.windows(5).any(|window| window == b"ours\n"));
            let handled = end.handled;
            openssl.say(b"last\n");
            assert_eq!(end.receive(5).unwrap(), b"last\n");
            assert_eq!(end.handled, handled + 1, "its KeyUpdate came first");
        }
    }
}

#[test]
fn openssl_refuses_what_was_tampered_with() {
    if !openssl_is_there() {
        return;
    }
    let pki = Pki::new();
    for (version, suite) in MATRIX {
        let options = only(version, suite, RecordLayerKind::Own);
        let (_openssl, mut end, _) = against_s_server(&pki, &options, &["-quiet"]);
        let mut record = seal(&mut end.connection, b"packet");
        *record.last_mut().unwrap() ^= 1;
        end.tcp.write_all(&record).unwrap();
        assert_eq!(
            end.receive(1),
            Err(Error::AlertReceived(20)),
            "{version:?} {suite:?}"
        );
    }
}

#[test]
fn padded_and_fragmented_records_of_openssl_are_read() {
    if !openssl_is_there() {
        return;
    }
    let pki = Pki::new();
    for (version, suite) in MATRIX {
        let options = only(version, suite, RecordLayerKind::Own);
        let flags: &[&str] = match version {
            Version::Tls12 => &["-quiet", "-max_send_frag", "512"],
            Version::Tls13 => &["-quiet", "-max_send_frag", "600", "-record_padding", "4096"],
        };
        let (mut openssl, mut end, _) = against_s_server(&pki, &options, flags);
        exchange(&mut openssl, &mut end);
    }
}

#[test]
fn renegotiation_is_refused_without_harm_to_us() {
    if !openssl_is_there() {
        return;
    }
    let pki = Pki::new();
    let options = only(Version::Tls12, Suite::Aes128Gcm, RecordLayerKind::Own);
    let flags = ["-quiet", "-no_ign_eof"];
    let (mut openssl, mut end, _) = against_s_client(&pki, &options, &flags);
    openssl.say(b"R\n");
    // OpenSSL takes the refusal for the end, with a fatal alert or without.
    let ended = end.receive(1);
    assert!(
        matches!(ended, Ok(_) | Err(Error::AlertReceived(_))),
        "{ended:?}"
    );
    assert_eq!(end.handled, 1);
}

#[test]
fn versions_and_suites_that_are_not_ours_are_refused() {
    if !openssl_is_there() {
        return;
    }
    let pki = Pki::new();
    let refused = [
        &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"][..],
        &["-tls1", "-cipher", "ALL:@SECLEVEL=0"],
        &["-tls1_2", "-cipher", "aNULL:@SECLEVEL=0"],
        &["-tls1_2", "-cipher", "kRSA:@SECLEVEL=0"],
        &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0"],
        &["-tls1_2", "-cipher", "DHE:@SECLEVEL=0"],
    ];
    for flags in refused {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let connect = listener.local_addr().unwrap().to_string();
        let mut arguments = vec!["s_client", "-connect", &connect, "-servername", NAME];
        arguments.extend(flags);
        let openssl = OpenSsl::spawn(&pki, &arguments);
        let (mut tcp, _) = listener.accept().unwrap();
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut server = Handshake::server(&pki.server(&TlsOptions::default())).unwrap();
        let mut out = Vec::new();
        let mut buffer = [0; 4096];
        let error = loop {
            let len = tcp.read(&mut buffer).unwrap();
            assert!(len > 0, "{flags:?} sent nothing: {}", openssl.log());
            if let Err(error) = server.handle_bytes(&buffer[..len], &mut out) {
                break error;
            }
        };
        assert!(
            matches!(error, Error::PeerIncompatible(_)),
            "{flags:?} {error}"
        );
        assert_eq!(out.first(), Some(&21), "an alert says so");
    }
}
