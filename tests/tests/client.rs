//! `loadgen connect` as the client of a person: this host's routes and resolver, a gateway that is
//! restarted, and ports that are forwarded without root.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use datapath::sys::namespace;
use e2e::gateway::{Gateway, PASSWORD, config, report};
use e2e::{Namespace, Running, driver, skip};
use serde_json::Value;

/// A namespace of the client's own, joined to the gateway's by a router that does nothing but that:
/// client 192.0.2.2 ── 192.0.2.1 gateway, and behind it 198.51.100.1, which it listens on.
struct Apart {
    gateway: Gateway,
    client: Namespace,
}

const LISTEN: &str = "198.51.100.1:4433";

impl Apart {
    fn new(test: &str) -> Option<Self> {
        let client = match Namespace::new() {
            Ok(client) => client,
            Err(why) => {
                skip(test, &why);
                return None;
            }
        };
        let script = format!(
            "ip link show out0 >/dev/null 2>&1 || \
             ip link add out0 type veth peer name out1 netns /proc/{}/ns/net && \
             ip addr replace 192.0.2.1/24 dev out0 && ip link set out0 up && \
             ip addr replace 198.51.100.1/32 dev lo && exec \"$0\" \"$@\"",
            client.id()
        );
        let config = config(&driver()).replace("127.0.0.1:4433", LISTEN);
        let gateway = Gateway::start_as(test, &config, &["sh", "-c", &script], |_| {})?;
        client.shell(
            "ip addr add 192.0.2.2/24 dev out1 && ip link set out1 up && \
             ip route add default via 192.0.2.1",
        );
        Some(Self { gateway, client })
    }

    /// `loadgen connect` in the client's namespace.
    fn connect(&self, flags: &[&str]) -> Command {
        self.gateway
            .connect_from(&self.client, LISTEN, PASSWORD, flags)
    }

    /// The number of the tunnel's interface, and what it has.
    fn interface(&self) -> (String, String) {
        let state = self.client.shell(
            "ip -o link show dev vpn0 | cut -d: -f1; ip -brief -4 addr show dev vpn0; \
             ip route show dev vpn0",
        );
        let (index, rest) = state.split_once('\n').unwrap();
        (index.to_owned(), rest.to_owned())
    }

    fn assert_all_goes_through_the_tunnel(&self) {
        let routes = self.client.shell("ip route; ip -6 route");
        for route in [
            "0.0.0.0/1 dev vpn0",
            "128.0.0.0/1 dev vpn0",
            "::/1 dev vpn0",
            "8000::/1 dev vpn0",
            "198.51.100.1 via 192.0.2.1 dev out1",
            "default via 192.0.2.1 dev out1",
        ] {
            assert!(routes.contains(route), "no {route:?} in:\n{routes}");
        }
        // Anybody, and the server itself.
        let way = self.client.shell("ip route get 203.0.113.9");
        assert!(way.contains("dev vpn0"), "{way}");
        let way = self.client.shell("ip route get 198.51.100.1");
        assert!(way.contains("via 192.0.2.1 dev out1"), "{way}");
    }

    /// Everything of this host that a client could change. Link-local addresses come a second after
    /// their link, and are none of it.
    fn state(&self) -> String {
        self.client.shell(
            "ip -brief link | cut -d' ' -f1; ip -4 -brief addr show dev out1; \
             ip -4 route show table all; ip -6 route show table all | grep -v -e fe80 -e ff00",
        )
    }
}

#[test]
fn client_everything_goes_through_the_tunnel_and_comes_back_afterwards() {
    let test = "client_everything_goes_through_the_tunnel_and_comes_back_afterwards";
    let Some(apart) = Apart::new(test) else {
        return;
    };
    let before = apart.state();
    for signal in [None, Some("TERM"), Some("INT"), Some("both"), Some("gone")] {
        let mut flags = vec!["--tun", "vpn0", "--default-route"];
        if signal.is_none() {
            flags.extend(["--hold", "1"]);
        }
        let mut client = Running::start(&mut apart.connect(&flags));
        if signal.is_some() {
            client.line("stays up until SIGINT or SIGTERM");
            apart.assert_all_goes_through_the_tunnel();
        }
        match signal {
            Some("both") => {
                // The first cannot end it politely; the second does not wait for that.
                apart.gateway.process.signal("STOP");
                client.signal("TERM");
                client.signal("INT");
            }
            Some("gone") => apart.gateway.process.signal("KILL"),
            Some(signal) => client.signal(signal),
            None => {}
        }
        let (status, said) = client.end();
        let codes = match signal {
            // The polite end has its own limit, should the second signal be that late.
            Some("both") => [0, 130],
            Some("gone") => [1, 1],
            _ => [0, 0],
        };
        let code = status.code().unwrap();
        assert!(codes.contains(&code), "{signal:?}: {code}: {said}");
        if signal == Some("both") {
            apart.gateway.process.signal("CONT");
        }
        assert_eq!(apart.state(), before, "{signal:?}: {said}");
    }
}

#[test]
fn client_a_route_to_the_server_that_was_there_stays() {
    let test = "client_a_route_to_the_server_that_was_there_stays";
    let Some(apart) = Apart::new(test) else {
        return;
    };
    apart
        .client
        .shell("ip route add 198.51.100.1 via 192.0.2.1 dev out1");
    let before = apart.state();
    let flags = ["--tun", "vpn0", "--default-route", "--hold", "0"];
    let (status, said) = Running::start(&mut apart.connect(&flags)).end();
    assert_eq!(status.code(), Some(0), "{said}");
    assert_eq!(apart.state(), before);
}

#[test]
fn client_the_resolver_is_set_and_put_back_or_the_servers_are_printed() {
    let test = "client_the_resolver_is_set_and_put_back_or_the_servers_are_printed";
    let Some(apart) = Apart::new(test) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let told = dir.path().join("told");
    let fake = dir.path().join("resolvectl");
    let flags = ["--tun", "vpn0", "--default-route", "--dns", "--hold", "0"];

    // Nobody who could be told.
    let alone = dir.path().join("alone");
    std::fs::create_dir(&alone).unwrap();
    let nsenter = Command::new("sh")
        .args(["-c", "command -v nsenter"])
        .output()
        .unwrap();
    let nsenter = String::from_utf8(nsenter.stdout).unwrap();
    std::os::unix::fs::symlink(nsenter.trim(), alone.join("nsenter")).unwrap();
    let mut without = apart.connect(&flags);
    without.env("PATH", &alone);
    let (status, said) = Running::start(&mut without).end();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(said.contains("not set: resolvectl"), "{said}");
    assert!(said.contains("nameserver 10.77.0.1"), "{said}");

    let script = format!("#!/bin/sh\necho \"$@\" >>{}\n", told.display());
    std::fs::write(&fake, script).unwrap();
    assert!(
        Command::new("chmod")
            .arg("+x")
            .arg(&fake)
            .status()
            .unwrap()
            .success()
    );
    let path = format!(
        "{}:{}",
        dir.path().display(),
        std::env::var("PATH").unwrap()
    );
    let mut with = apart.connect(&flags);
    with.env("PATH", path);
    let (status, said) = Running::start(&mut with).end();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(said.contains("10.77.0.1 set for vpn0"), "{said}");
    let told = std::fs::read_to_string(told).unwrap();
    assert_eq!(told, "dns vpn0 10.77.0.1\ndomain vpn0 ~.\nrevert vpn0\n");
}

#[test]
fn client_connects_again_when_the_gateway_is_restarted_and_keeps_its_interface() {
    let test = "client_connects_again_when_the_gateway_is_restarted_and_keeps_its_interface";
    let Some(mut apart) = Apart::new(test) else {
        return;
    };
    // Another has the first address of the pool, and does not come back.
    let mut other = Running::start(&mut apart.connect(&["--hold", "3600"]));
    other.line("LCP echo");
    let flags = ["--tun", "vpn0", "--route", "10.99.0.0/16", "--reconnect"];
    let mut client = Running::start(&mut apart.connect(&flags));
    client.line("stays up until");
    let (index, before) = apart.interface();
    assert!(before.contains("10.77.0.3/32"), "{before}");
    assert!(before.contains("10.99.0.0/16"), "{before}");

    // To another address, and then to the same.
    let mut last = String::new();
    for n in 1..=2 {
        apart.gateway.restart();
        client.nth_line("connecting again in", n);
        client.nth_line("stays up until", n + 1);
        let (same, after) = apart.interface();
        assert_eq!(same, index, "the interface is the same");
        assert_eq!(after, before.replace("10.77.0.3", "10.77.0.2"));
        last = after;
    }
    assert!(last.contains("10.77.0.2/32"), "{last}");

    client.signal("TERM");
    let (status, said) = client.end();
    assert_eq!(status.code(), Some(0), "{said}");

    // A wrong password does not become right by waiting.
    let flags = ["--reconnect", "--json"];
    let wrong = apart
        .gateway
        .connect_from(&apart.client, LISTEN, "wrong", &flags)
        .output()
        .unwrap();
    assert_eq!(wrong.status.code(), Some(1));
    let told = report(&wrong);
    assert_eq!(
        told["failure"]["class"], "authentication-failed",
        "{told:#}"
    );
    assert_eq!(told["reconnects"], Value::from(0));
}

/// Serves the megabyte that `byte` says, once for each connection, behind the gateway: to whoever has
/// finished its own request, so that a half-closed connection must carry it.
fn serve_behind(namespace: &Namespace, connections: usize) -> std::thread::JoinHandle<Vec<usize>> {
    let id = namespace.id();
    let (tell, ready) = std::sync::mpsc::channel();
    let server = std::thread::spawn(move || {
        namespace::enter_network_of(id).unwrap();
        let listener = TcpListener::bind("10.99.0.1:80").unwrap();
        tell.send(()).unwrap();
        let mut requests = Vec::new();
        for _ in 0..connections {
            let (connection, _) = listener.accept().unwrap();
            requests.push(std::thread::spawn(|| answer(connection)));
        }
        requests
            .into_iter()
            .map(|one| one.join().unwrap())
            .collect()
    });
    ready.recv_timeout(PATIENCE).unwrap();
    server
}

/// The length of the request.
fn answer(mut connection: TcpStream) -> usize {
    // Whoever is not told of an end fails the test, and does not stay.
    connection.set_read_timeout(Some(PATIENCE)).unwrap();
    connection.set_write_timeout(Some(PATIENCE)).unwrap();
    let mut request = Vec::new();
    connection.read_to_end(&mut request).unwrap();
    let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {BODY_LEN}\r\n\r\n");
    let body: Vec<u8> = (0..BODY_LEN).map(byte).collect();
    // One of the clients leaves in the middle, and that is told.
    if let Err(error) = connection.write_all(&[head.as_bytes(), &body].concat()) {
        assert_ne!(
            error.kind(),
            ErrorKind::WouldBlock,
            "it waits for somebody who is gone"
        );
    }
    request.len()
}

const BODY_LEN: usize = 1 << 20;

/// Nothing here takes a tenth of it on an idle machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn byte(index: usize) -> u8 {
    (index.wrapping_mul(2_654_435_761) >> 16).to_le_bytes()[0]
}

#[test]
fn client_forwards_a_port_without_root() {
    let Some(gateway) = Gateway::start("client_forwards_a_port_without_root") else {
        return;
    };
    gateway.namespace.shell("ip addr add 10.99.0.1/32 dev lo");
    let server = serve_behind(&gateway.namespace, 3);
    // The client has no device: all of it is in its own process.
    let mut command = gateway.connect(
        PASSWORD,
        &["-L", "0:10.99.0.1:80", "-L", "127.0.0.1:0:10.99.0.1:81"],
    );
    let mut client = Running::start(&mut command);
    let port = |line: &str| -> u16 {
        let (bind, _) = line.split_once(" to ").unwrap();
        bind.rsplit_once(':').unwrap().1.parse().unwrap()
    };
    let open = port(&client.nth_line("forwarding", 1));
    let shut = port(&client.nth_line("forwarding", 2));

    let id = gateway.namespace.id();
    let user = std::thread::spawn(move || {
        namespace::enter_network_of(id).unwrap();
        let get = |request: &[u8], stall: bool| {
            let mut connection = TcpStream::connect(("127.0.0.1", open)).unwrap();
            connection.write_all(request).unwrap();
            connection.shutdown(Shutdown::Write).unwrap();
            let mut answer = Vec::new();
            if stall {
                // Reads the first bytes and then nothing, until another connection is served whole:
                // what is not read waits at the far end and holds up nobody.
                let mut first = [0; 64];
                connection.read_exact(&mut first).unwrap();
                answer.extend_from_slice(&first);
            }
            (connection, answer)
        };
        let (mut slow, mut slow_answer) = get(b"GET /slow HTTP/1.0\r\n\r\n", true);
        let (mut quick, mut quick_answer) = get(&[b'x'; 300_000], false);
        quick.read_to_end(&mut quick_answer).unwrap();
        slow.read_to_end(&mut slow_answer).unwrap();
        for answer in [&slow_answer, &quick_answer] {
            let body = &answer[answer.len() - BODY_LEN..];
            assert!(
                body.iter()
                    .enumerate()
                    .all(|(index, &is)| is == byte(index))
            );
            assert!(answer.starts_with(b"HTTP/1.0 200 OK\r\n"));
        }
        // Nobody listens there: the reset arrives as one.
        let mut refused = TcpStream::connect(("127.0.0.1", shut)).unwrap();
        assert!(
            refused.read(&mut [0]).is_err(),
            "an end in order would be a lie"
        );
        // The last one leaves in the middle of the answer.
        let (leaver, _) = get(b"GET /left HTTP/1.0\r\n\r\n", true);
        drop(leaver);
    });
    user.join().unwrap();
    client.line("not forwarded: 10.99.0.1:81: the far end refused");
    client.signal("INT");
    let (status, said) = client.end();
    assert_eq!(status.code(), Some(0), "{said}");
    let requests = server.join().unwrap();
    assert_eq!(requests[1], 300_000, "{requests:?}");
}
