# What a scenario is written with. Sourced in the guest by tests/guest/scenario.
#
#   client 1  10.9.1.2 ─┐                                     ┌─ 198.18.0.2      lan: a host behind
#                       ├─ 10.9.x.1  gw: sstp-gw  198.18.0.1 ─┤                  the gateway, with
#   client 2  10.9.2.2 ─┘                                     └─ 2001:db8:18::2  TCP services
#
# Each of c1, c2, gw, lan is a network namespace. The pool is 10.77.0.0/24 and fd00:77::/48; clients
# have no way to lan but the tunnel. A scenario runs in a directory of its own; what it leaves there
# is kept.

GATEWAY=gateway.test
PASSWORD='Tr0ub4dor&3'
POOL=10.77.0.0/24 POOL_GATEWAY=10.77.0.1 POOL6=fd00:77::/48 POOL6_GATEWAY=fd00:77::1
LAN=198.18.0.2 LAN6=2001:db8:18::2
DNS1=10.77.0.1 DNS2=198.18.0.2
BYTES=$((10 * 1000 * 1000))
[ -n "${BIG:-}" ] && BYTES=$((100 * 1000 * 1000))

pass() { echo "PASS $SCENARIO/$1"; }
fail() { echo "FAIL $SCENARIO/$1: ${*:2}"; }
skip() { echo "SKIP $SCENARIO/$1: ${*:2}"; }

# check NAME COMMAND...: the command must succeed.
check() {
    local name=$1 said
    shift
    if said=$("$@" 2>&1); then pass "$name"; else fail "$name" "$* → ${said:-it failed}"; fi
}

# refuse NAME COMMAND...: the command must fail.
refuse() {
    local name=$1 said
    shift
    if said=$("$@" 2>&1); then fail "$name" "$* succeeded${said:+: $said}"; else pass "$name"; fi
}

# equal NAME WANTED GOT
equal() { if [ "$2" = "$3" ]; then pass "$1"; else fail "$1" "wanted '$2', got '$3'"; fi; }

# within SECONDS COMMAND...: succeeds as soon as the command does.
within() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.2
    done
}

# in_ns NAMESPACE COMMAND...; not for background jobs, whose $! would be a shell's.
in_ns() { ip netns exec "$@"; }

network() {
    local ns n
    for ns in gw lan c1 c2; do
        ip netns add $ns
        in_ns $ns ip link set lo up
    done
    for n in 1 2; do
        ip link add c$n netns gw type veth peer name eth0 netns c$n
        in_ns gw ip addr add 10.9.$n.1/24 dev c$n
        in_ns c$n ip addr add 10.9.$n.2/24 dev eth0
        in_ns gw ip link set c$n up
        in_ns c$n ip link set eth0 up
        # A network between two hosts takes time; without any, sstpc (1.0.18) loses its only event when
        # the answer to its ClientHello is there before it looks, and waits for ever.
        in_ns gw tc qdisc add dev c$n root netem delay 5ms limit 10000
    done
    ip link add lan netns gw type veth peer name eth0 netns lan
    in_ns gw ip addr add 198.18.0.1/24 dev lan
    in_ns gw ip addr add 2001:db8:18::1/64 dev lan nodad
    in_ns lan ip addr add $LAN/24 dev eth0
    in_ns lan ip addr add $LAN6/64 dev eth0 nodad
    in_ns gw ip link set lan up
    in_ns lan ip link set eth0 up
    in_ns lan ip route add default via 198.18.0.1
    in_ns lan ip route add default via 2001:db8:18::1
    in_ns gw sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
}

# The certificate of the gateway, made once a boot in /tmp/pki, and a second CA that did not sign it.
certificates() {
    [ -e /tmp/pki/gateway.pem ] && return
    mkdir -p /tmp/pki
    local ca
    for ca in ca other-ca; do
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 \
            -subj "/CN=$ca of the tests" -addext keyUsage=critical,keyCertSign,cRLSign \
            -keyout /tmp/pki/$ca.key -out /tmp/pki/$ca.pem
    done
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=$GATEWAY" \
        -keyout /tmp/pki/gateway.key -out /tmp/pki/gateway.csr
    openssl x509 -req -in /tmp/pki/gateway.csr -CA /tmp/pki/ca.pem -CAkey /tmp/pki/ca.key -days 30 \
        -CAcreateserial -out /tmp/pki/gateway.pem -extfile - <<EXT
subjectAltName=DNS:$GATEWAY,IP:10.9.1.1,IP:10.9.2.1
extendedKeyUsage=serverAuth
basicConstraints=critical,CA:false
EXT
    chmod 600 /tmp/pki/*.key
} 2>openssl.log

# gateway [METHODS]: users alice and bob; METHODS as in the configuration file.
gateway() {
    local user
    certificates
    cat >gateway.toml <<TOML
[[listen]]
address = "0.0.0.0:443"

[tls]
certificate = "/tmp/pki/gateway.pem"
key = "/tmp/pki/gateway.key"
insecure_key_log = "$PWD/keys.log"

[auth]
users = "/tmp/$SCENARIO.users"
methods = [${1:-"\"mschapv2\", \"eap\""}]

[[pool]]
v4 = "$POOL"
v6 = "$POOL6"

[network]
dns = ["$DNS1", "$DNS2"]
domain = "inside.test"
routes = ["198.18.0.0/24"]

[log]
level = "debug"
TOML
    for user in alice bob; do
        grep -qs $user /tmp/$SCENARIO.users && continue
        echo "$PASSWORD" | $SSTP_GW user add $user --password-stdin --users /tmp/$SCENARIO.users ||
            fail gateway "user add $user"
    done
    ip netns exec gw $SSTP_GW run --config gateway.toml >gateway.log 2>&1 &
    gateway_pid=$!
    within 60 listening || { fail gateway "does not listen: $(tail -n 3 gateway.log)"; exit; }
}

stop_gateway() {
    kill -TERM $gateway_pid
    within 15 gone $gateway_pid || fail gateway "does not stop"
}

listening() { in_ns gw ss -Hltn 'sport = 443' | grep -q LISTEN; }

# peer N: what pppd of client N is told, in that namespace's own /etc/ppp. Its secrets hold PASSWORD.
peer() {
    local dir=/etc/netns/c$1/ppp user name
    rm -rf "/etc/netns/c$1"
    mkdir -p "$dir/peers"
    echo "10.9.$1.1 $GATEWAY" >"/etc/netns/c$1/hosts"
    for user in alice bob mallory; do
        printf '%s * "%s" *\n' $user "${SECRET:-$PASSWORD}"
    done | tee "$dir/chap-secrets" >"$dir/pap-secrets"
    chmod 600 "$dir"/*-secrets
    : >"$dir/options"
    for name in ip-up ip-down ipv6-up ipv6-down; do
        printf '#!/bin/sh\nenv >%s/client%s.%s\n' "$PWD" "$1" $name >"$dir/$name"
        chmod 755 "$dir/$name"
    done
    cat >"$dir/peers/common" <<PPP
noauth
usepeerdns
noipdefault
defaultroute
+ipv6
nobsdcomp
nodeflate
nodetach
debug
logfd 2
maxfail 1
PPP
    echo "refuse-eap refuse-pap refuse-chap refuse-mschap" | tr ' ' '\n' >"$dir/peers/mschapv2"
    echo "refuse-eap refuse-chap refuse-mschap refuse-mschap-v2" | tr ' ' '\n' >"$dir/peers/pap"
    echo "refuse-pap refuse-chap refuse-mschap refuse-mschap-v2" | tr ' ' '\n' >"$dir/peers/eap"
}

# dial N METHOD [USER] [CA]: starts sstpc and pppd as client N; does not wait.
dial() {
    peer "$1"
    rm -f "client$1".{ip,ipv6}-*
    mkdir -p /run/sstpc
    ip netns exec "c$1" sstpc --ipparam "guest$1" --ca-cert "/tmp/pki/${4:-ca}.pem" --tls-ext \
        --log-level 4 --log-stderr $GATEWAY call common call "$2" user "${3:-alice}" unit "$1" \
        >"client$1.log" 2>&1 &
    client_pid[$1]=$!
}

# up N: client N has its address; fails at once if sstpc has ended instead.
up() { within 60 settled "$1" && [ -e "client$1.ip-up" ]; }
settled() { [ -e "client$1.ip-up" ] || gone "${client_pid[$1]}"; }
gone() { ! kill -0 "$1" 2>/dev/null; }

# refuses N: client N ends without ever being up.
refuses() { within 60 settled "$1" && [ ! -e "client$1.ip-up" ]; }

# capture: everything between the gateway and client 1, from now to uncapture, for tests/guest/decode.
capture() {
    ip netns exec gw dumpcap -q -i c1 -w "$PWD/session.pcapng" 2>dumpcap.log &
    capture_pid=$!
    within 20 grep -q 'File:' dumpcap.log
}
uncapture() {
    sleep 1
    kill -INT $capture_pid
    wait $capture_pid
}

# hangup N: the client ends its session.
hangup() { kill -TERM "$(cat /run/ppp$1.pid)"; }

# of N NAME: what ip-up was told (IPLOCAL, IPREMOTE, DNS1, DNS2).
of() { sed -n "s/^$2=//p" "client$1.ip-up"; }

# logged REGEX: the gateway says it within 10 s.
logged() { within 10 grep -qE "$1" gateway.log; }

reaches() { in_ns "c$1" ping -c 3 -i 0.3 -W 5 -q "$2"; }

# transfers N ADDRESS [BYTES]: so much each way over TCP with the host at ADDRESS, compared by SHA-256.
transfers() {
    local n=$1 to=$2 bytes=${3:-$BYTES} port=500$1 payload=/tmp/payload$1 limit
    limit=$((60 + bytes / 100000))
    head -c "$bytes" /dev/urandom >"$payload"
    [[ $to == *:* ]] && to="[$to]"
    moved up && moved down
}

# One way of it; uses what its caller declared. The host in lan listens, whoever sends.
moved() {
    local listen="TCP6-LISTEN:$port,ipv6only=0,reuseaddr" connect="TCP:$to:$port" server client pid said=
    local original="OPEN:$payload" copy="OPEN:/tmp/moved$n,creat,trunc"
    case $1 in
        up) server=("$listen" "$copy") client=("$original" "$connect") ;;
        down) server=("$original" "$listen") client=("$connect" "$copy") ;;
    esac
    ip netns exec lan timeout "$limit" socat -u "${server[@]}" &
    pid=$!
    within 10 serving "$port"
    ip netns exec "c$n" timeout "$limit" socat -u "${client[@]}" || { said="socat ended with $?"; kill $pid; }
    wait $pid
    cmp_sha "$payload" "/tmp/moved$n" ||
        said="$said; $(stat -c %s "/tmp/moved$n") of $bytes bytes arrived, or other ones"
    rm -f "/tmp/moved$n"
    [ -z "$said" ] || { echo "$1: $said"; return 1; }
}

serving() { in_ns lan ss -Hltn "sport = $1" | grep -q LISTEN; }
cmp_sha() { [ "$(sha256sum <"$1")" = "$(sha256sum <"$2")" ]; }

scenario_ends() {
    local pids ns
    for ns in c1 c2 lan gw; do
        pids=$(ip netns pids $ns) && [ -n "$pids" ] && kill -KILL $pids
        ip netns del $ns
    done 2>/dev/null
    wait
} 2>/dev/null
