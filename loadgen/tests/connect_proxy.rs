//! `loadgen connect` behind an HTTP proxy: a small one of the test's own, honest or not.

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::mpsc;
use std::thread;

use serde_json::Value;

use support::{NAME, PASSWORD, Server, USER, driver};

/// A proxy that takes one connection after another, tells what it was asked, and answers with
/// `answer`; if that is a 200, it joins the client with whom it asked for.
struct Proxy {
    address: SocketAddr,
    asked: mpsc::Receiver<String>,
}

impl Proxy {
    fn start(answer: &'static [u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, asked) = mpsc::channel();
        // It goes with the test's process.
        thread::spawn(move || {
            for client in listener.incoming() {
                serve(client.unwrap(), answer, &tell);
            }
        });
        Self { address, asked }
    }

    fn url(&self, login: &str) -> String {
        format!("http://{login}{}", self.address)
    }
}

fn serve(mut client: TcpStream, answer: &[u8], tell: &mpsc::Sender<String>) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if client.read(&mut byte).unwrap_or(0) == 0 {
            return;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let target = head.split(' ').nth(1).unwrap().to_owned();
    tell.send(head).unwrap();
    if !answer.starts_with(b"HTTP/1.1 200") {
        let _ = client.write_all(answer);
        return;
    }
    let server = TcpStream::connect(target).unwrap();
    client.write_all(answer).unwrap();
    let (from_client, to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    let up = thread::spawn(move || join(from_client, to_server));
    join(server, client);
    up.join().unwrap();
}

/// Carries what comes until there is no more.
fn join(mut from: TcpStream, mut to: TcpStream) {
    // Either end may go at any time.
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}

fn connect(server: &str, flags: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadgen"));
    for name in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
        command.env_remove(name);
    }
    command.env_remove("NO_PROXY").env_remove("no_proxy");
    command
        .args(["connect", server, "--server-name", NAME, "--user", USER])
        .args(["--password", PASSWORD, "--interval", "0.01", "--json"])
        .args(["--driver", &driver()])
        .args(flags)
        .envs(variables.iter().copied())
        .output()
        .unwrap()
}

fn json(output: &Output) -> Value {
    let errors = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no report: {errors}"))
}

#[test]
fn a_session_comes_up_through_a_proxy_that_wants_a_login() {
    let server = Server::start(support::Wishes::default());
    let proxy = Proxy::start(b"HTTP/1.1 200 Connection established\r\nVia: 1.1 test\r\n\r\n");
    let ca = server.ca.to_str().unwrap();
    let address = server.address.to_string();
    let url = proxy.url("al%40ice:open%20sesame@");
    let output = connect(&address, &["--ca", ca, "--proxy", &url], &[]);
    let report = json(&output);
    assert_eq!(output.status.code(), Some(0), "{report:#}");
    assert_eq!(report["ping"]["answered"], 4);
    assert_eq!(report["proxy"], proxy.address.to_string());
    assert_eq!(report["address"], proxy.address.to_string());
    let asked = proxy.asked.recv().unwrap();
    assert!(asked.starts_with(&format!(
        "CONNECT {address} HTTP/1.1\r\nHost: {address}\r\n"
    )));
    assert!(
        asked.contains("\r\nProxy-Authorization: Basic YWxAaWNlOm9wZW4gc2VzYW1l\r\n"),
        "{asked}"
    );

    // From the environment, with the password from a file; and past it where it says so.
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "pw\n").unwrap();
    let flags = [
        "--ca",
        ca,
        "--proxy",
        "env",
        "--proxy-password-file",
        secret.path().to_str().unwrap(),
    ];
    let url = proxy.url("bob@");
    let output = connect(&address, &flags, &[("https_proxy", &url)]);
    assert_eq!(output.status.code(), Some(0), "{:#}", json(&output));
    let asked = proxy.asked.recv().unwrap();
    assert!(asked.contains(": Basic Ym9iOnB3\r\n"), "{asked}");
    let past = [("HTTPS_PROXY", url.as_str()), ("NO_PROXY", "127.0.0.1")];
    let report = json(&connect(&address, &flags, &past));
    assert_eq!(
        (&report["ok"], &report["proxy"]),
        (&true.into(), &Value::Null)
    );
    assert!(proxy.asked.try_recv().is_err(), "it was not asked");
}

#[test]
fn what_a_proxy_does_wrong_is_told_in_plain_words() {
    for (answer, class, words) in [
        (
            &b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n\r\n"[..],
            "proxy-credentials",
            "wants another user name or password",
        ),
        (
            b"HTTP/1.1 407 X\r\nProxy-Authenticate: Negotiate\r\n\r\n",
            "proxy-credentials",
            "another method than Basic",
        ),
        (b"HTTP/1.1 403 No\r\n\r\n", "proxy-refused", "rules forbid"),
        (
            b"HTTP/1.1 503 X\r\n\r\n",
            "proxy-unreachable",
            "cannot reach",
        ),
        (
            b"\x15\x03\x01\0\x02\x02\x46\r\n\r\n",
            "proxy-failed",
            "not HTTP",
        ),
        (b"", "proxy-failed", "closed the connection"),
        (&[b'x'; 9000], "proxy-failed", "not HTTP"),
    ] {
        let proxy = Proxy::start(answer);
        let flags = [
            "--insecure-accept-any-certificate",
            "--proxy",
            &proxy.url(""),
        ];
        let output = connect("vpn.example", &flags, &[]);
        let report = json(&output);
        assert_eq!(output.status.code(), Some(1));
        let failure = &report["failure"];
        assert_eq!(failure["class"], class, "{report:#}");
        assert_eq!(failure["phase"], "proxy");
        assert!(
            failure["text"].as_str().unwrap().contains(words),
            "{failure:#}"
        );
        assert!(failure["text"].as_str().unwrap().contains("vpn.example"));
        assert!(
            proxy
                .asked
                .recv()
                .unwrap()
                .starts_with("CONNECT vpn.example:443 ")
        );
    }
}

#[test]
fn a_proxy_that_cannot_be_used_is_a_usage_error() {
    for flags in [
        &["--proxy", "socks5://127.0.0.1:1080"][..],
        &[
            "--proxy",
            "http://127.0.0.1:1",
            "--proxy-password-file",
            "/no/such/file",
        ],
        &["--proxy-password-file", "/no/such/file"],
    ] {
        let output = connect("127.0.0.1", flags, &[]);
        assert_eq!(output.status.code(), Some(2), "{flags:?}");
    }
}
