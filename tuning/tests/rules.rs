//! The example rules of nftables between three hosts, each a network namespace: what should pass
//! passes, and what should not is counted by the rule that drops it.
//!
//! ```text
//!  client 10.99.0.2, 10.99.0.3 ── sstp0 [ gateway 10.99.0.1 | 192.0.2.1 ] eth0 ── 192.0.2.9 network
//! ```

use std::path::Path;

mod common;
use common::in_namespaces;

/// A closed port answers at once where packets pass both ways; where they do not, nobody answers, and
/// what tells is the counter of the rule, not the time.
const SCRIPT: &str = r#"
    command -v ip nft ping >/dev/null || exit 77
    mount -t tmpfs none /run || exit 77
    for host in client network; do ip netns add $host || exit 77; done
    ip link add sstp0 type veth peer name wire netns client || exit 77
    ip link add eth0 type veth peer name wire netns network || exit 77
    set -e
    ip addr add 10.99.0.1/16 dev sstp0
    ip addr add 192.0.2.1/24 dev eth0
    for link in lo sstp0 eth0; do ip link set $link up; done
    echo 1 >/proc/sys/net/ipv4/ip_forward
    ip -n client addr add 10.99.0.2/16 dev wire
    ip -n client addr add 10.99.0.3/16 dev wire
    ip -n network addr add 192.0.2.9/24 dev wire
    for host in client network; do ip -n $host link set lo up; ip -n $host link set wire up; done
    ip -n client route add default via 10.99.0.1
    # From outside to a client's address, as a neighbour would try.
    ip -n network route add 10.99.0.0/16 via 192.0.2.1
    nft -f "$RULES" || exit 77

    refused() { # HOST ADDRESS PORT: told at once that nobody listens
        ip netns exec $1 timeout 60 bash -c "exec 3<>/dev/tcp/$2/$3" 2>&1 | grep -q 'Connection refused'
    }
    dropped() { # CHAIN RULE: packets that the rule dropped
        nft list chain inet sstp_gw $1 | grep -F "$2" | grep -o 'packets [0-9]*' | cut -d' ' -f2
    }
    # Sends until one more is counted, and says how many are; a loaded machine may need more than one second
    # to send anything at all.
    counts() { # CHAIN RULE COMMAND...
        local chain=$1 rule=$2 before tries
        before=$(dropped $chain "$rule")
        shift 2
        for tries in $(seq 10); do
            timeout $tries "$@" >/dev/null 2>&1 || true
            [ "$(dropped $chain "$rule")" -gt "$before" ] && break
        done
        dropped $chain "$rule"
    }
    refused client 192.0.2.9 80 && echo "a client reaches the network"
    ip netns exec client ping -c 1 -W 60 10.99.0.1 >/dev/null && echo "a client may ping the gateway"
    inside='iifname "sstp0" counter'
    port='exec 3<>/dev/tcp/$0/$1'
    echo "inside address dropped $(counts input "$inside" ip netns exec client bash -c "$port" 10.99.0.1 22)"
    echo "tunnel in the tunnel dropped $(counts input "$inside" ip netns exec client bash -c "$port" 192.0.2.1 443)"
    refused network 192.0.2.1 22 && echo "the network reaches the gateway"
    rule='iifname "eth0" oifname "sstp0" counter'
    echo "from outside dropped $(counts forward "$rule" ip netns exec network bash -c "$port" 10.99.0.2 80)"
    # The packet goes back by the interface it came from: client to client.
    ip -n client route add 10.99.7.7 via 10.99.0.1
    rule='iifname "sstp0" oifname "sstp0" counter'
    echo "client to client dropped $(counts forward "$rule" ip netns exec client bash -c "$port" 10.99.7.7 80)"
    ip -n client addr add 172.16.0.9/32 dev wire
    rule='ip saddr != 10.99.0.0/16'
    echo "foreign source dropped $(counts forward "$rule" ip netns exec client ping -c 1 -I 172.16.0.9 192.0.2.9)"
    echo end
"#;

#[test]
fn what_should_pass_passes_and_nothing_else() {
    const TEST: &str = "what_should_pass_passes_and_nothing_else";
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("nftables/sstp-gw.nft");
    let rules = ("RULES", rules.as_os_str());
    let Some((text, errors)) = in_namespaces(TEST, "bash", SCRIPT, rules) else {
        return;
    };
    for passes in [
        "a client reaches the network",
        "a client may ping the gateway",
        "the network reaches the gateway",
        "end",
    ] {
        assert!(
            text.lines().any(|line| line == passes),
            "not so: {passes}\n{text}\n{errors}"
        );
    }
    let counted = |what: &str| -> u32 {
        let line = text.lines().find_map(|line| line.strip_prefix(what));
        let count = line.and_then(|line| line.trim().parse().ok());
        count.unwrap_or_else(|| panic!("no count of {what}\n{text}\n{errors}"))
    };
    let to_inside = counted("inside address dropped");
    assert!(to_inside > 0);
    assert!(counted("tunnel in the tunnel dropped") > to_inside);
    for what in [
        "from outside dropped",
        "client to client dropped",
        "foreign source dropped",
    ] {
        assert!(counted(what) > 0, "{what}\n{text}");
    }
}
