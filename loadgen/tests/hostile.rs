//! A fleet against servers that mean harm or know no better: each session ends in time, under one cause,
//! and none of them makes loadgen grow.

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::PrivateKeyDer;
use serde_json::Value;

const SESSIONS: u64 = 4;

/// What all sessions together may add to loadgen's memory: many times what they need, and far less than
/// what is thrown at them.
const GROWTH_MAX: u64 = 64 << 20;

/// What one flood sends at most; who takes that much has no bound.
const FLOOD_LEN: usize = 256 << 20;

type Tls = StreamOwned<ServerConnection, TcpStream>;

fn config() -> Arc<ServerConfig> {
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec![support::NAME.to_owned()]).unwrap();
    let leaf = leaf.self_signed(&key).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key);
    Arc::new(config.unwrap())
}

/// Reads until the client goes.
fn wait(stream: &mut impl Read) {
    let mut bytes = [0; 4096];
    while stream.read(&mut bytes).is_ok_and(|count| count > 0) {}
}

/// Sends `bytes` again and again until the client goes, or has taken more than anyone should.
fn flood(stream: &mut impl Write, bytes: &[u8]) {
    let many = bytes.repeat(16_384 / bytes.len() + 1);
    let mut sent = 0;
    while sent < FLOOD_LEN && stream.write_all(&many).is_ok() {
        sent += many.len();
    }
}

/// Serves as far as the client's request.
fn take_request(tls: &mut Tls) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && tls.read_exact(&mut byte).is_ok() {
        head.extend(byte);
    }
}

/// Serves as far as CALL_CONNECT_REQUEST.
fn take_call(tls: &mut Tls) {
    take_request(tls);
    let _ = tls.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\n");
    let _ = tls.read_exact(&mut [0; 14]);
}

/// Serves as far as PPP.
fn take_ppp(tls: &mut Tls) {
    take_call(tls);
    let mut ack = vec![0x10, 1, 0, 0x30, 0, 2, 0, 1, 0, 4, 0, 0x28, 0, 0, 0, 2];
    ack.resize(48, 7);
    let _ = tls.write_all(&ack);
}

/// A PPP frame in an SSTP data packet.
fn frame(frame: &[u8]) -> Vec<u8> {
    let len = u8::try_from(frame.len() + 4).unwrap();
    [&[0x10, 0, 0, len], frame].concat()
}

/// What a fleet reports of a server that does `evil` to each TCP connection.
fn fleet(evil: fn(TcpStream, Arc<ServerConfig>)) -> Value {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let config = config();
    let server = std::thread::spawn(move || {
        let mut threads = Vec::new();
        for _ in 0..SESSIONS {
            let (stream, _) = listener.accept().unwrap();
            let patience = Some(Duration::from_secs(60));
            stream.set_read_timeout(patience).unwrap();
            stream.set_write_timeout(patience).unwrap();
            let config = Arc::clone(&config);
            threads.push(std::thread::spawn(move || evil(stream, config)));
        }
        for thread in threads {
            thread.join().unwrap();
        }
    });
    let output = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(["storm", &address, "--server-name", support::NAME])
        .args(["--user", "u", "--password", "p", "--timeout", "6"])
        .args([
            "-N",
            &SESSIONS.to_string(),
            "--insecure-accept-any-certificate",
        ])
        .args(["--quiet", "--json", "-"])
        .output()
        .unwrap();
    server.join().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    let report: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {errors}"));
    assert_eq!(output.status.code(), Some(1), "{errors}{report:#}");
    report
}

/// Every session failed, under one class and in one phase, and memory stayed where it was.
fn assert_failed(report: &Value, class: &str, phase: &str) {
    let failures = report["setup"]["failures"].as_array().unwrap();
    assert_eq!(failures.len(), 1, "one cause: {report:#}");
    assert_eq!(
        (
            &failures[0]["class"],
            &failures[0]["phase"],
            &failures[0]["count"]
        ),
        (&class.into(), &phase.into(), &SESSIONS.into()),
        "{report:#}"
    );
    assert_eq!(report["setup"]["up"], 0);
    let own = &report["generator"];
    let memory = |when: &str| own[when].as_u64().unwrap();
    let grown = memory("memory_up_bytes").saturating_sub(memory("memory_before_bytes"));
    assert!(grown < GROWTH_MAX, "grew by {grown} bytes: {report:#}");
}

fn with_tls(stream: TcpStream, config: Arc<ServerConfig>, evil: impl FnOnce(&mut Tls)) {
    let mut tls = Tls::new(ServerConnection::new(config).unwrap(), stream);
    evil(&mut tls);
    let _ = tls.sock.shutdown(Shutdown::Both);
}

#[test]
fn before_tls() {
    let report = fleet(|mut stream, _| wait(&mut stream));
    assert_failed(&report, "setup-timeout", "TLS");
    let report = fleet(|mut stream, _| {
        flood(&mut stream, b"220 mail.example ESMTP\r\n");
        wait(&mut stream);
    });
    assert_failed(&report, "tls-failed", "TLS");
    // Records of a handshake message that announces 16 MB and never ends.
    let report = fleet(|mut stream, _| {
        let mut record = vec![22, 3, 3, 0x40, 0];
        record.extend([2, 0xff, 0xff, 0xff]);
        record.resize(5 + 0x4000, 0);
        flood(&mut stream, &record);
        wait(&mut stream);
    });
    assert_failed(&report, "tls-failed", "TLS");
}

#[test]
fn in_http() {
    let report = fleet(|stream, config| {
        with_tls(stream, config, |tls| {
            take_request(tls);
            wait(tls);
        });
    });
    assert_failed(&report, "setup-timeout", "HTTP");
    for endless in [
        // A line without an end, lines without an end, and bytes that are no HTTP.
        (|stream, config| {
            with_tls(stream, config, |tls| {
                take_request(tls);
                let _ = tls.write_all(b"HTTP/1.1 200 OK\r\nServer: ");
                flood(tls, b"x");
            });
        }) as fn(TcpStream, Arc<ServerConfig>),
        |stream, config| {
            with_tls(stream, config, |tls| {
                take_request(tls);
                let _ = tls.write_all(b"HTTP/1.1 200 OK\r\n");
                flood(tls, b"A: b\r\n");
            });
        },
        |stream, config| {
            with_tls(stream, config, |tls| {
                take_request(tls);
                flood(tls, b"\x00\x01\x02");
            });
        },
        |stream, config| {
            with_tls(stream, config, |tls| {
                take_request(tls);
                let _ = tls.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
                wait(tls);
            });
        },
    ] {
        assert_failed(&fleet(endless), "http-refused", "HTTP");
    }
}

#[test]
fn in_sstp() {
    let report = fleet(|stream, config| {
        with_tls(stream, config, |tls| {
            take_call(tls);
            wait(tls);
        });
    });
    assert_failed(&report, "setup-timeout", "SSTP");
    for evil in [
        // No SSTP, a packet shorter than its header, and echoes before the call is acknowledged.
        (|stream, config| {
            with_tls(stream, config, |tls| {
                take_call(tls);
                flood(tls, b"<html>");
            });
        }) as fn(TcpStream, Arc<ServerConfig>),
        |stream, config| {
            with_tls(stream, config, |tls| {
                take_call(tls);
                flood(tls, &[0x10, 0, 0, 0]);
            });
        },
        |stream, config| {
            with_tls(stream, config, |tls| {
                take_call(tls);
                flood(tls, &[0x10, 1, 0, 8, 0, 8, 0, 0]);
            });
        },
    ] {
        assert_failed(&fleet(evil), "sstp-violation", "SSTP");
    }
}

#[test]
fn in_ppp() {
    for evil in [
        // Silence, frames of a protocol that nobody knows, and Configure-Requests without an end of
        // which each is refused.
        (|stream, config| {
            with_tls(stream, config, |tls| {
                take_ppp(tls);
                wait(tls);
            });
        }) as fn(TcpStream, Arc<ServerConfig>),
        |stream, config| {
            with_tls(stream, config, |tls| {
                take_ppp(tls);
                flood(tls, &frame(&[0xff, 0x03, 0x80, 0x99, 1, 1, 0, 4]));
                wait(tls);
            });
        },
    ] {
        let report = fleet(evil);
        assert_failed(&report, "setup-timeout", "LCP");
    }
    let report = fleet(|stream, config| {
        with_tls(stream, config, |tls| {
            take_ppp(tls);
            // Callback, which no client grants.
            let request = [0xff, 0x03, 0xc0, 0x21, 1, 9, 0, 7, 13, 3, 6];
            flood(tls, &frame(&request));
            wait(tls);
        });
    });
    // The one that asks without end may also be let go because it does not read the answers.
    let failures = report["setup"]["failures"].as_array().unwrap();
    let count: u64 = failures
        .iter()
        .map(|cause| cause["count"].as_u64().unwrap())
        .sum();
    assert_eq!(count, SESSIONS, "{report:#}");
    assert!(
        failures.iter().all(|cause| cause["phase"] == "LCP"),
        "{report:#}"
    );
}
