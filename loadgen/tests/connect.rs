//! `loadgen connect`, the binary, against a server in this process: what it prints and its exit code.

mod support;

use std::io::Write;
use std::process::{Command, Output, Stdio};

use datapath::ppp::auth::AuthMethod;
use datapath::time::Duration;
use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose, IsCa, SanType, date_time_ymd};
use serde_json::Value;

use support::{NAME, PASSWORD, Server, USER, Wishes, driver};

fn loadgen() -> Command {
    Command::new(env!("CARGO_BIN_EXE_loadgen"))
}

/// `loadgen connect` to `server` as a user would call it, with more flags.
fn connect(server: &Server, flags: &[&str]) -> Output {
    connect_as(server, PASSWORD, flags)
}

fn connect_as(server: &Server, password: &str, flags: &[&str]) -> Output {
    loadgen()
        .arg("connect")
        .arg(server.address.to_string())
        .args([
            "--server-name",
            NAME,
            "--user",
            USER,
            "--password",
            password,
            "--interval",
            "0.01",
            "--driver",
            &driver(),
        ])
        .arg("--ca")
        .arg(&server.ca)
        .args(flags)
        .output()
        .unwrap()
}

fn text(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.is_empty(), "{errors}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_str(&text(output)).unwrap()
}

#[test]
fn a_session_comes_up_and_is_told_in_full() {
    let server = Server::start(Wishes::default());
    let output = connect(&server, &["--json"]);
    let report = json(&output);
    assert_eq!(output.status.code(), Some(0), "{report:#}");
    assert_eq!(report["schema_version"], 1);
    assert_eq!(report["ok"], true);
    assert_eq!(report["failure"], Value::Null);
    let session = &report["session"];
    assert_eq!(session["ipv4"], "10.8.0.2");
    assert_eq!(session["ipv4_gateway"], "10.8.0.1");
    assert_eq!(session["dns"][0], "9.9.9.9");
    assert_eq!(session["ipv6_gateway"], "fe80::1");
    assert_eq!(session["tls"]["version"], "TLS 1.3");
    assert_eq!(session["tls"]["group"], "X25519MLKEM768");
    assert_eq!(session["tls"]["certificate_verified"], true);
    let phases: Vec<&str> = report["phases"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|p| p["name"].as_str())
        .collect();
    assert_eq!(
        phases,
        [
            "TCP", "TLS", "HTTP", "SSTP", "LCP", "auth", "binding", "network"
        ]
    );
    let ping = &report["ping"];
    assert_eq!(
        (&ping["sent"], &ping["answered"]),
        (&Value::from(4), &Value::from(4))
    );
    assert_eq!(ping["reflected"], 4, "the inside is a reflector");
    assert!(ping["round_trip_us"]["p50"].as_f64().unwrap() > 0.0);
    assert!(report["lcp_echo_us"].as_f64().unwrap() > 0.0);
    assert_eq!(report["end"]["reason"], "user-request");
    assert_eq!(report["end"]["uplink_packets"], 4);
    assert_eq!(report["end"]["downlink_packets"], 4);
}

#[test]
fn people_read_it_line_by_line() {
    let server = Server::start(Wishes::default());
    let text = text(&connect(&server, &["--ping", "2"]));
    for expected in [
        "connecting to 127.0.0.1 (127.0.0.1:",
        "\nsession up in ",
        "\n  IPv4         10.8.0.2, gateway 10.8.0.1, DNS 9.9.9.9\n",
        "\n  TLS          TLS 1.3, ",
        "\n  certificate  verified by /",
        "\n  phases (ms)  TCP ",
        "\nping 1 10.8.0.1: ",
        " ms (reflected)\n",
        "\nLCP echo: ",
        "\n2 pings, 2 answered, 2 reflected; round trip min ",
        "\nsession ended: user-request; 2 packets up, 2 down\n",
    ] {
        assert!(text.contains(expected), "{expected:?} is not in:\n{text}");
    }
}

#[test]
fn both_versions_of_tls_and_every_method() {
    let server = Server::start(Wishes::default());
    for (flags, version) in [
        (["--tls", "1.2", "--method", "mschapv2"], "TLS 1.2"),
        (["--tls", "1.3", "--method", "pap"], "TLS 1.3"),
        (["--tls", "1.2", "--method", "pap"], "TLS 1.2"),
        (["--tls", "1.3", "--method", "eap"], "TLS 1.3"),
    ] {
        let report = json(&connect(&server, &[&flags[..], &["--json"]].concat()));
        assert_eq!(report["ok"], true, "{flags:?}: {report:#}");
        assert_eq!(report["session"]["tls"]["version"], version);
    }
}

#[test]
fn one_network_protocol_alone() {
    let server = Server::start(Wishes::default());
    let v4 = json(&connect(&server, &["--json", "--no-ipv6"]));
    assert_eq!(v4["ok"], true, "{v4:#}");
    assert_eq!(v4["session"]["ipv6_gateway"], Value::Null);
    let v6 = json(&connect(&server, &["--json", "--no-ipv4"]));
    assert_eq!(v6["session"]["ipv4"], Value::Null, "{v6:#}");
    assert_eq!(v6["ping"]["target"], "fe80::1");
    let neither = connect(&server, &["--no-ipv4", "--no-ipv6"]);
    assert_eq!(neither.status.code(), Some(2));
}

#[test]
fn without_pings_it_still_connects_and_ends() {
    let server = Server::start(Wishes::default());
    let output = connect(&server, &["--json", "--ping", "0"]);
    let report = json(&output);
    assert_eq!(output.status.code(), Some(0), "{report:#}");
    assert_eq!(report["ping"], Value::Null);
    assert_eq!(report["end"]["uplink_packets"], 0);
}

#[test]
fn a_ping_that_cannot_be_sent_is_a_failure() {
    let server = Server::start(Wishes::default());
    let output = connect(&server, &["--json", "--ping-to", "2001:db8::1"]);
    let report = json(&output);
    assert_eq!(output.status.code(), Some(1), "{report:#}");
    assert_eq!(report["ok"], false);
    assert_eq!(report["failure"]["class"], "no-ping");
    assert_eq!(report["end"]["reason"], "user-request");
    // Not asked for, nothing is missed.
    let none = ["--json", "--ping-to", "2001:db8::1", "--ping", "0"];
    assert_eq!(connect(&server, &none).status.code(), Some(0));
}

#[test]
fn a_wrong_password_is_named_as_such() {
    let server = Server::start(Wishes::default());
    for method in ["mschapv2", "eap", "pap"] {
        let output = connect_as(&server, "wrong", &["--json", "--method", method]);
        let report = json(&output);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(
            report["failure"]["class"], "authentication-failed",
            "{report:#}"
        );
        assert_eq!(report["failure"]["phase"], "auth");
        assert_eq!(report["session"], Value::Null);
    }
}

#[test]
fn a_method_the_server_does_not_have_is_no_password_problem() {
    let server = Server::start(Wishes {
        methods: vec![AuthMethod::MsChapV2],
        ..Wishes::default()
    });
    let report = json(&connect(&server, &["--json", "--method", "pap"]));
    assert_eq!(report["ok"], false);
    assert_eq!(report["failure"]["phase"], "LCP", "{report:#}");
    assert!(
        report["failure"]["hint"]
            .as_str()
            .unwrap()
            .contains("--method")
    );
}

#[test]
fn each_certificate_problem_is_told_in_plain_words() {
    let refused = |server: &Server, flags: &[&str]| {
        let output = connect(server, &[flags, &["--json"]].concat());
        assert_eq!(output.status.code(), Some(1));
        let report = json(&output);
        assert_eq!(report["failure"]["phase"], "TLS");
        report["failure"]["class"].as_str().unwrap().to_owned()
    };
    let expired = Server::with_certificate(Wishes::default(), |leaf| {
        leaf.not_before = date_time_ymd(2020, 1, 1);
        leaf.not_after = date_time_ymd(2021, 1, 1);
    });
    assert_eq!(refused(&expired, &[]), "certificate-expired");
    let early = Server::with_certificate(Wishes::default(), |leaf| {
        leaf.not_before = date_time_ymd(2090, 1, 1);
        leaf.not_after = date_time_ymd(2091, 1, 1);
    });
    assert_eq!(refused(&early, &[]), "certificate-not-yet-valid");
    let purpose = Server::with_certificate(Wishes::default(), |leaf| {
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });
    assert_eq!(refused(&purpose, &[]), "certificate-wrong-purpose");
    let good = Server::start(Wishes::default());
    let other = ["--server-name", "other.example"];
    let output = loadgen()
        .args([
            "connect",
            &good.address.to_string(),
            "--user",
            USER,
            "--password",
            PASSWORD,
        ])
        .args(other)
        .arg("--ca")
        .arg(&good.ca)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("failed: the certificate is not for the name other.example\n"));

    // Another authority, first of the same name.
    let mut renewed = Server::start(Wishes::default());
    renewed.ca.clone_from(&good.ca);
    assert_eq!(refused(&renewed, &[]), "certificate-unknown-issuer");
    assert!(text(&connect(&renewed, &[])).contains("was probably made anew"));
    let foreign = Server::start(Wishes {
        authority: "another root",
        ..Wishes::default()
    });
    renewed.ca.clone_from(&foreign.ca);
    assert_eq!(refused(&renewed, &[]), "certificate-unknown-issuer");
}

#[test]
fn a_certificate_that_the_server_made_for_itself_is_told_apart() {
    let class = |server: &Server, ca: &std::path::Path| {
        let mut command = loadgen();
        command.args(["connect", &server.address.to_string(), "--json"]);
        command.args([
            "--server-name",
            NAME,
            "--user",
            USER,
            "--password",
            PASSWORD,
        ]);
        command.args(["--ping", "0", "--ca"]).arg(ca);
        let report = json(&command.output().unwrap());
        report["failure"]["class"].as_str().map(str::to_owned)
    };
    let other = Server::start(Wishes::default());
    // Signed with its own key: nobody vouches for it, unless it is itself what is trusted.
    let own = Server::start(Wishes {
        signs_itself: true,
        ..Wishes::default()
    });
    assert_eq!(
        class(&own, &other.ca).as_deref(),
        Some("certificate-unknown-issuer")
    );
    assert_eq!(class(&own, &own.ca), None, "it is trusted by name");
    // The same with the rights of an authority, as SoftEther makes it.
    let authority = Server::with_certificate(
        Wishes {
            signs_itself: true,
            ..Wishes::default()
        },
        |leaf| leaf.is_ca = IsCa::Ca(BasicConstraints::Unconstrained),
    );
    for ca in [&authority.ca, &other.ca] {
        assert_eq!(
            class(&authority, ca).as_deref(),
            Some("certificate-self-signed")
        );
    }
}

#[test]
fn any_certificate_is_accepted_only_when_asked_in_so_many_words() {
    let server = Server::with_certificate(Wishes::default(), |leaf| {
        leaf.subject_alt_names = vec![SanType::DnsName("nobody.example".try_into().unwrap())];
    });
    let output = loadgen()
        .args([
            "connect",
            &server.address.to_string(),
            "--user",
            USER,
            "--password",
            PASSWORD,
        ])
        .args(["--insecure-accept-any-certificate", "--interval", "0.01"])
        .output()
        .unwrap();
    let text = text(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("the certificate is NOT verified"), "{text}");
}

#[test]
fn a_server_that_ends_the_session_is_a_failure() {
    let server = Server::start(Wishes {
        session_timeout: Some(Duration::from_millis(300)),
        ..Wishes::default()
    });
    let output = connect(&server, &["--json", "--hold", "30"]);
    let report = json(&output);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        report["failure"]["class"], "peer-disconnected",
        "{report:#}"
    );
    assert_eq!(report["failure"]["phase"], "up");
    assert_eq!(report["session"]["ipv4"], "10.8.0.2");
}

#[test]
fn nobody_listens_or_nothing_like_tls_answers() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let run = || {
        let output = loadgen()
            .args(["connect", &address, "--user", USER, "--password", PASSWORD])
            .args(["--insecure-accept-any-certificate", "--json"])
            .args(["--driver", &driver()])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        json(&output)["failure"]["class"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let server = std::thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        connection.write_all(b"220 mail.example ESMTP\r\n").unwrap();
        // The listener goes with this thread.
        std::thread::sleep(Duration::from_millis(200));
    });
    assert_eq!(run(), "tls-failed");
    server.join().unwrap();
    assert_eq!(run(), "connect-failed");
}

#[test]
fn a_password_from_standard_input() {
    let server = Server::start(Wishes::default());
    let run = |input: &str| {
        let mut child = loadgen()
            .args([
                "connect",
                &server.address.to_string(),
                "--server-name",
                NAME,
            ])
            .args([
                "--user",
                USER,
                "--password-stdin",
                "--ping",
                "0",
                "--json",
                "--ca",
            ])
            .arg(&server.ca)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(input.as_bytes())
            .unwrap();
        child.wait_with_output().unwrap().status.code()
    };
    assert_eq!(run(&format!("{PASSWORD}\nsecond line\n")), Some(0));
    assert_eq!(run(PASSWORD), Some(0));
    assert_eq!(run("wrong\n"), Some(1));
    assert_eq!(run(""), Some(2));
}

#[test]
fn usage_errors_name_what_is_wrong() {
    let run = |flags: &[&str]| {
        let output = loadgen().arg("connect").args(flags).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(run(&["127.0.0.1", "--user", "u"]).contains("--password"));
    let gone = [
        "127.0.0.1",
        "--user",
        "u",
        "--password",
        "p",
        "--ca",
        "/no/such/file",
    ];
    assert!(run(&gone).contains("/no/such/file: No such file"));
    assert!(run(&["host:port", "--user", "u", "--password", "p"]).contains("is no port"));
    let name = [
        "127.0.0.1",
        "--user",
        "u",
        "--password",
        "p",
        "--server-name",
        "a b",
    ];
    let name = [&name[..], &["--insecure-accept-any-certificate"]].concat();
    assert!(run(&name).contains("neither a name nor an address"));
}

#[test]
fn help() {
    let run = |arguments: &[&str]| {
        let output = loadgen()
            .args(arguments)
            .env("COLUMNS", "100")
            .output()
            .unwrap();
        text(&output)
    };
    insta::assert_snapshot!("help", run(&["--help"]));
    insta::assert_snapshot!("help_connect", run(&["connect", "--help"]));
}
