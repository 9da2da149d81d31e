//! The TUN device falls while traffic runs: set down, deleted, its name taken, its MTU changed.

use std::time::{Duration, Instant};

use e2e::Running;
use e2e::gateway::{Gateway, PASSWORD, report};
use serde_json::Value;

/// Nothing here takes so long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(30);
/// Of the time that an outage lasts, what the gateway may compute.
const CPU_SHARE_MAX: f64 = 0.2;
/// Clock ticks a second, on every Linux of ours (USER_HZ).
const TICKS: f64 = 100.0;

/// CPU seconds that a process has used, all its threads.
fn cpu_seconds(process: &Running) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.id())).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let fields: Vec<_> = fields.split_whitespace().collect();
    let ticks: f64 = fields[11..13]
        .iter()
        .map(|field| field.parse::<f64>().unwrap())
        .sum();
    ticks / TICKS
}

/// Packets that the device has taken from the gateway and given to it.
fn device_packets(gateway: &Gateway) -> Option<(u64, u64)> {
    let text = gateway
        .namespace
        .shell("ip -s -j link show dev e2e0 || true");
    let links: Value = serde_json::from_str(&text).ok()?;
    let count = |way: &str| links[0]["stats64"][way]["packets"].as_u64();
    Some((count("rx")?, count("tx")?))
}

/// Waits until the pings of the client that was there before go both ways, in numbers that the host's
/// own packets (router solicitations) do not come to.
fn expect_traffic(gateway: &Gateway) {
    let deadline = Instant::now() + PATIENCE;
    let mut before = None;
    loop {
        let now = device_packets(gateway);
        if let (Some((rx, tx)), Some((rx_before, tx_before))) = (now, before)
            && rx >= rx_before + 50
            && tx >= tx_before + 50
        {
            return;
        }
        // A device made again begins at zero.
        if before.is_none() || now < before {
            before = now;
        }
        assert!(Instant::now() < deadline, "{before:?} and no more: {now:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A new client comes up and is answered.
fn ping(gateway: &Gateway) {
    let flags = ["--ping", "5", "--interval", "0.05"];
    let report = report(&gateway.loadgen(PASSWORD, &flags).output().unwrap());
    assert_eq!(report["ping"]["answered"], 5, "{report:#}");
}

/// Runs `outage` and says what share of its time the gateway computed.
fn expect_rest(gateway: &mut Gateway, name: &str, outage: impl FnOnce(&mut Gateway)) {
    let (start, before) = (Instant::now(), cpu_seconds(&gateway.process));
    outage(gateway);
    let used = cpu_seconds(&gateway.process) - before;
    let wall = start.elapsed().as_secs_f64();
    eprintln!("{name}: {used:.2} CPU seconds in {wall:.2} seconds");
    assert!(
        used / wall < CPU_SHARE_MAX,
        "{name}: {used:.2} CPU seconds in {wall:.2} seconds"
    );
}

#[test]
fn tun_gone() {
    let Some(mut gateway) = Gateway::start("tun_gone") else {
        return;
    };
    // Here from the first to the last; pings until it is killed.
    let flags = ["--ping", "1000000", "--interval", "0.01"];
    let mut client = gateway.loadgen(PASSWORD, &flags).spawn().unwrap();
    let up = gateway.process.line("\"message\":\"session up\"");
    let up: Value = serde_json::from_str(&up).unwrap();
    expect_traffic(&gateway);

    // Down, and up.
    expect_rest(&mut gateway, "down", |gateway| {
        gateway.namespace.shell("ip link set e2e0 down");
        gateway.process.line("e2e0 was set down");
        std::thread::sleep(Duration::from_secs(2));
    });
    gateway.namespace.shell("ip link set e2e0 up");
    gateway.process.line("e2e0 is up again");
    expect_traffic(&gateway);
    ping(&gateway);

    // Deleted: it is there again before anybody can look.
    gateway.namespace.shell("ip link del e2e0");
    gateway.process.line("e2e0 was deleted; it was made again");
    expect_traffic(&gateway);
    ping(&gateway);
    let routes = gateway.namespace.shell("ip route; ip -6 route");
    assert!(
        routes.contains("10.77.0.0/24 dev e2e0") && routes.contains("fd00:77::/48 dev e2e0"),
        "{routes}"
    );

    // Deleted, and something else has its name for a while.
    expect_rest(&mut gateway, "gone", |gateway| {
        gateway.namespace.shell(
            "ip link set e2e0 down && ip link set e2e0 name old0 && \
             ip tuntap add dev e2e0 mode tap && ip link del old0",
        );
        let line = gateway.process.line("cannot be made again");
        assert!(line.contains("is taken"), "{line}");
        std::thread::sleep(Duration::from_secs(2));
    });
    gateway.namespace.shell("ip link del e2e0");
    gateway
        .process
        .nth_line("e2e0 was deleted; it was made again", 2);
    expect_traffic(&gateway);
    ping(&gateway);

    // Another MTU: what is too long for the session is answered.
    gateway.namespace.shell("ip link set e2e0 mtu 9000");
    let line = gateway.process.line("the MTU of e2e0 was changed");
    assert!(line.contains("from 1400 to 9000"), "{line}");
    let address = up["v4"].as_str().unwrap();
    gateway.namespace.shell(&format!(
        "exec 3>/dev/udp/{address}/9; head -c 3000 /dev/zero >&3"
    ));
    expect_traffic(&gateway);
    gateway.namespace.shell("ip link set e2e0 mtu 1400");
    gateway.process.nth_line("the MTU of e2e0 was changed", 2);
    expect_traffic(&gateway);
    ping(&gateway);

    assert!(client.try_wait().unwrap().is_none(), "it pings to the end");
    client.kill().unwrap();
    client.wait().unwrap();
    let (_, stopped) = gateway.stop();
    // The first, and one after each of the four.
    assert_eq!(stopped["sessions"], 5, "{stopped:#}");
    let dropped = stopped["dropped"].as_str().unwrap();
    assert!(dropped.contains("inside-down"), "{dropped}");
    assert!(dropped.contains("too-big 1"), "{dropped}");
}
