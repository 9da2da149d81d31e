//! `sstp-gw run` with a TUN device and two shards, in a network namespace made for it.

use e2e::gateway::{Gateway, PASSWORD, USER, config, report};
use e2e::{Running, driver, skip};
use serde_json::Value;

#[test]
fn tun_carries_several_clients_and_goes_with_the_gateway() {
    let Some(gateway) = Gateway::start("tun_carries_several_clients_and_goes_with_the_gateway")
    else {
        return;
    };
    let device = gateway.namespace.shell("ip -d link show dev e2e0");
    assert!(
        device.contains("tun") && device.contains("multi_queue"),
        "{device}"
    );
    let routes = "ip route show dev e2e0; ip -6 route show dev e2e0";
    let before = gateway.namespace.shell(routes);
    assert!(
        before.contains("10.77.0.0/24") && before.contains("fd00:77::/48"),
        "{before}"
    );

    // Each speaks of itself alone: an address of its own, every ping answered by this host.
    // Ten: the gateway answers for its link-local address no more often than that in one go.
    let flags = ["--ping", "10", "--interval", "0.05"];
    let clients: Vec<_> = (0..6)
        .map(|n| {
            let more: &[&str] = match n % 3 {
                0 => &[],
                1 => &["--ping-to", "fe80::1"],
                _ => &["--tls", "1.2", "--method", "eap"],
            };
            let all = [&flags[..], more].concat();
            gateway.loadgen(PASSWORD, &all).spawn().unwrap()
        })
        .collect();
    let mut addresses = Vec::new();
    for client in clients {
        let output = client.wait_with_output().unwrap();
        let report = report(&output);
        assert_eq!(output.status.code(), Some(0), "{report:#}");
        assert_eq!(report["ping"]["answered"], 10, "{report:#}");
        assert_eq!(report["ping"]["reflected"], 0, "this host answers itself");
        assert_eq!(report["ping"]["duplicates"], 0);
        assert_eq!(report["session"]["dns"][0], "10.77.0.1");
        assert_eq!(report["end"]["reason"], "user-request");
        addresses.push(report["session"]["ipv4"].as_str().unwrap().to_owned());
    }
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 6, "{addresses:?}");

    let (namespace, stopped) = gateway.stop();
    assert_eq!(stopped["sessions"], 6, "{stopped:#}");
    assert!(stopped["handed_over"].is_u64(), "{stopped:#}");
    let links = namespace.shell("ip link");
    assert!(!links.contains("e2e0"), "{links}");
    let after = namespace.shell("ip route; ip -6 route");
    assert!(!after.contains("77"), "{after}");
}

#[test]
fn tun_packets_on_the_wrong_queue_reach_their_session_and_are_counted() {
    let test = "tun_packets_on_the_wrong_queue_reach_their_session_and_are_counted";
    // Without the right to load a program that steers them.
    let through = ["setpriv", "--bounding-set=-bpf,-sys_admin"];
    let Some(mut gateway) = Gateway::start_as(test, &config(&driver()), &through, |_| {}) else {
        return;
    };
    if gateway.process.line("inside: e2e0").contains("eBPF") {
        return skip(test, "here everybody may load BPF programs");
    }
    let why = gateway.process.line("not steered to the queue");
    assert!(why.contains("CAP_BPF"), "{why}");
    let flags = ["--no-ipv6", "--ping", "20", "--interval", "0.05"];
    let mut client = gateway.loadgen(PASSWORD, &flags).spawn().unwrap();
    let up = gateway.process.line("\"message\":\"session up\"");
    let up: Value = serde_json::from_str(&up).unwrap();
    let address = up["v4"].as_str().unwrap();
    // Flows that the client did not begin: the kernel spreads them over the queues by their hash.
    let burst = format!("for port in {{1..32}}; do echo packet >/dev/udp/{address}/$port; done");
    while client.try_wait().unwrap().is_none() {
        gateway.namespace.shell(&burst);
    }
    let report = report(&client.wait_with_output().unwrap());
    let arrived = report["end"]["downlink_packets"].as_u64().unwrap();
    assert!(arrived > 20, "none but the pings: {report:#}");
    let (_, stopped) = gateway.stop();
    assert!(stopped["handed_over"].as_u64().unwrap() > 0, "{stopped:#}");
    // A letter box holds so many; on a busy host the bursts can fill it, which is counted.
    let is_full = stopped["dropped"].as_str().unwrap().contains("full");
    assert!(
        report["ping"]["answered"] == 20 || is_full,
        "{report:#} {stopped:#}"
    );
}

#[test]
fn tun_packets_are_steered_to_their_shard_and_none_is_handed_over() {
    let test = "tun_packets_are_steered_to_their_shard_and_none_is_handed_over";
    let Some(mut gateway) = Gateway::start(test) else {
        return;
    };
    let got = gateway.process.line("inside: e2e0");
    if !got.contains("eBPF") {
        return skip(test, &gateway.process.line("not steered to the queue"));
    }
    // One after the other, so that the log tells whose address it is; they ping to the end.
    let mut clients = Vec::new();
    let mut addresses = Vec::new();
    for n in 1..=6 {
        let flags = ["--ping", "1000000", "--interval", "0.02"];
        let mut client = Running::start(&mut gateway.connect(PASSWORD, &flags));
        let up = gateway.process.nth_line("\"message\":\"session up\"", n);
        let up: Value = serde_json::from_str(&up).unwrap();
        addresses.push(up["v4"].as_str().unwrap().to_owned());
        addresses.push(format!("{}7", up["v6"].as_str().unwrap()));
        client.line("ping 1 ");
        clients.push(client);
    }
    // And flows that the clients did not begin.
    let burst: Vec<_> = addresses
        .iter()
        .map(|to| format!("for port in {{1..40}}; do echo packet >/dev/udp/{to}/$port; done"))
        .collect();
    gateway.namespace.shell(&burst.join("; "));
    // What is in its queue a shard reads before it is told to end.
    gateway.process.signal("TERM");
    let (_, log) = gateway.process.end();
    let lines = |message: &str| {
        let message = format!("\"message\":\"{message}\"");
        log.lines()
            .filter(|line| line.contains(&message))
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .collect::<Vec<_>>()
    };
    let ended = lines("session ended");
    assert_eq!(ended.len(), 6, "{log}");
    for ended in ended {
        let count = |way: &str| ended[way].as_u64().unwrap();
        assert!(count("uplink_packets") > 0, "its pings: {log}");
        assert!(
            count("downlink_packets") > 80,
            "both bursts, and answers: {log}"
        );
    }
    let [stopped] = &lines("stopped")[..] else {
        panic!("{log}");
    };
    assert_eq!(stopped["handed_over"], 0, "{stopped:#}");
    assert_eq!(stopped["taken_over"], 0, "{stopped:#}");
}

#[test]
fn tun_what_was_got_is_said_at_start_and_a_card_without_tso_is_named() {
    let test = "tun_what_was_got_is_said_at_start_and_a_card_without_tso_is_named";
    // Two cards of which one cuts superpackets.
    let script = "ip link add good0 type veth peer name good1 && ip link set good0 up &&
        ip link add bad0 type veth peer name bad1 && ip link set bad0 up &&
        ip addr add 192.0.2.1/25 dev good0 && ip addr add 192.0.2.129/25 dev bad0 &&
        ip route add default via 192.0.2.130 && ethtool -K bad0 tso off >&2 || echo no such cards
        exec \"$0\" \"$@\"";
    let through = ["sh", "-c", script];
    let Some(mut gateway) = Gateway::start_as(test, &config(&driver()), &through, |_| {}) else {
        return;
    };
    gateway
        .process
        .line("inside: e2e0: 2 queues, superpackets of TCP");
    gateway.process.line("outside: ");
    gateway.process.signal("TERM");
    let (_, log) = gateway.process.end();
    if log.contains("no such cards") {
        return skip(test, "needs veth and ethtool(8)");
    }
    let named: Vec<_> = log
        .lines()
        .filter(|line| line.contains("TSO is off"))
        .collect();
    let [line] = named[..] else {
        panic!("{log}");
    };
    assert!(line.contains("cure: ethtool -K bad0 tso on"), "{line}");
}

#[test]
fn tun_a_wrong_password_is_refused_in_plain_words() {
    let Some(mut gateway) = Gateway::start("tun_a_wrong_password_is_refused_in_plain_words") else {
        return;
    };
    for method in ["mschapv2", "eap"] {
        let output = gateway.loadgen("wrong", &["--method", method]).output();
        let output = output.unwrap();
        let report = report(&output);
        assert_eq!(output.status.code(), Some(1), "{report:#}");
        assert_eq!(report["failure"]["class"], "authentication-failed");
        assert_eq!(report["session"], Value::Null);
    }
    let line = gateway
        .process
        .nth_line("\"message\":\"session not set up\"", 2);
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["user"], USER, "{line:#}");
    let (_, stopped) = gateway.stop();
    assert_eq!(stopped["sessions"], 0, "{stopped:#}");
    assert_eq!(stopped["uplink_bytes"], 0, "{stopped:#}");
}
