# Paths of 10 to 100 Mbit/s with 40 ms of round trip between the gateway and a client: bulk TCP down to
# the client, a ping inside meanwhile. What the ping takes longer than on the idle path is what stands in
# queues: ours, the kernel's behind us, the path's (which has fq_codel, as modern ones do).
#
#   gw 10.9.1.1 ── 10.9.1.254  path  10.9.3.1 ── 10.9.3.2 c1
#      40 ms upwards: netem    ▲        ▼ down: tbf at the rate, fq_codel
#
# The guest emulates its CPUs. What the tunnel carries without a limit is measured before and after each rate;
# a rate that is not below three quarters of that and was not reached is skipped. A ping beside the tunnel, which fq_codel
# lets overtake, says how late the emulator itself is: where that is half of what is allowed, nothing is
# said of the ping inside. It is not in the default run, for it measures time.

# Makes the path between gw and c1 one that passes a third namespace.
path() {
    ip netns add path
    in_ns gw ip link del c1
    ip link add c1 netns gw type veth peer name north netns path
    ip link add eth0 netns c1 type veth peer name south netns path
    in_ns gw ip addr add 10.9.1.1/24 dev c1
    in_ns path ip addr add 10.9.1.254/24 dev north
    in_ns path ip addr add 10.9.3.1/24 dev south
    in_ns c1 ip addr add 10.9.3.2/24 dev eth0
    in_ns gw ip link set c1 up
    in_ns path ip link set lo up
    in_ns path ip link set north up
    in_ns path ip link set south up
    in_ns c1 ip link set eth0 up
    in_ns gw ip route add 10.9.3.0/24 via 10.9.1.254
    in_ns c1 ip route add 10.9.1.0/24 via 10.9.3.1
    in_ns path sysctl -qw net.ipv4.ip_forward=1
    in_ns path tc qdisc add dev north root netem delay 40ms limit 10000
    in_order gw c1
    in_order path north
    in_order path south
    in_order c1 eth0
}

# in_order NS DEVICE: what arrives there goes on in order. A veth leaves each packet to the CPU that sent it,
# and both send for one connection: one at the end of a send, the other at an acknowledgement.
in_order() { in_ns "$1" sh -c "echo 1 >/sys/class/net/$2/queues/rx-0/rps_cpus"; }

# rate MBIT: what the path takes on its way down.
rate() {
    in_ns path tc qdisc replace dev south root handle 1: tbf rate "$1mbit" burst 10kb limit 1mb
    in_ns path tc qdisc replace dev south parent 1:1 handle 10: fq_codel
}

# pings NAME SECONDS: round trips of a host in lan with the client, in ms, sorted.
pings() {
    ip netns exec gw ping -i 0.05 -w "$2" 10.9.3.2 >"outside-$1.ping" &
    ip netns exec lan ping -i 0.05 -w "$2" "$inside" >"$1.ping"
    for f in "$1" "outside-$1"; do sed -n 's/.* time=\([0-9.]*\) ms/\1/p' "$f.ping" | sort -n >"$f.ms"; done
}

# quantile FILE PER_CENT
quantile() { awk -v share="$2" '{ v[NR] = $1 } END { i = int(NR * share / 100 + 0.999999); print v[i < 1 ? 1 : i] }' "$1"; }

received() { in_ns path cat /sys/class/net/south/statistics/tx_bytes; }

# bulk NAME SECONDS: TCP from lan to the client; the pid of its sender is in bulk_pid.
bulk() {
    ip netns exec c1 iperf3 -s -1 -p 5201 >"$1.server" 2>&1 &
    within 10 in_ns c1 sh -c "ss -Hltn 'sport = 5201' | grep -q LISTEN"
    ip netns exec lan iperf3 -c "$inside" -p 5201 -t "$2" -i 1 -f k >"$1.client" 2>&1 &
    bulk_pid=$!
}

# capacity NAME: kbit/s that the guest's CPUs carry through the tunnel.
capacity() {
    in_ns path tc qdisc del dev south root 2>/dev/null
    bulk "capacity$1" 6
    wait $bulk_pid
    awk '/receiver/ { print int($7) }' "capacity$1.client"
}

# over MS MS: how much longer.
over() { awk -v a="$1" -v b="$2" 'BEGIN { print a - b }'; }
at_most() { awk -v a="$1" -v b="$2" 'BEGIN { exit !(a != "" && a <= b) }'; }

# judge NAME FOUND BAR NOISE: a figure in ms against its bar, if the emulator is not too late to tell.
judge() {
    if at_most "$2" "$3"; then
        pass "$1"
    elif at_most "$4" "$(($3 / 2))"; then
        fail "$1" "$2 ms over the idle path, at most $3 are wanted; beside the tunnel $4"
    else
        skip "$1" "$2 ms over the idle path, but beside the tunnel a ping is $4 ms late, too"
    fi
}

# bloat MBIT SECONDS
bloat() {
    local mbit=$1 seconds=$2 idle beside before used i50 i99 o50 o99
    if [ "$capacity" -lt $((mbit * 900)) ]; then
        skip "at_$mbit" "the guest's CPUs carry $capacity kbit/s"
        return
    fi
    rate "$mbit"
    pings "idle$mbit" 5
    idle=$(quantile "idle$mbit.ms" 50)
    beside=$(quantile "outside-idle$mbit.ms" 50)
    bulk "bulk$mbit" $((seconds + 7))
    sleep 5 # what TCP needs to find the rate
    before=$(received)
    pings "busy$mbit" "$seconds"
    used=$((($(received) - before) / (seconds * mbit * 1250)))
    in_ns gw ss -Htinm state established 'sport = 443' >"ss$mbit" 2>&1
    wait $bulk_pid
    i50=$(over "$(quantile "busy$mbit.ms" 50)" "$idle")
    i99=$(over "$(quantile "busy$mbit.ms" 99)" "$idle")
    o50=$(over "$(quantile "outside-busy$mbit.ms" 50)" "$beside")
    o99=$(over "$(quantile "outside-busy$mbit.ms" 99)" "$beside")
    capacity=$(capacity "$mbit")
    echo "INFO $mbit Mbit/s: idle p50 $idle ms; bulk adds p50 $i50 p99 $i99 ms ($(wc -l <"busy$mbit.ms") pings)," \
        "beside the tunnel $o50 and $o99; link use $used %; the guest carries $capacity kbit/s" | tee -a figures
    if [ "$used" -lt 90 ] && [ "$capacity" -lt $((mbit * 1333)) ]; then
        skip "at_$mbit" "$(tail -n 1 figures): the CPUs were the limit"
        return
    fi
    check "link_use_$mbit" [ "$used" -ge 90 ]
    # Of nothing nothing can be said.
    [ "$(wc -l <"busy$mbit.ms")" -ge $((seconds * 10)) ] || { fail "pings_$mbit" "too few came back"; return; }
    judge "p50_$mbit" "$i50" 15 "$o50"
    judge "p99_$mbit" "$i99" 40 "$o99"
}

busybox modprobe sch_tbf || fail module "this kernel has no sch_tbf"
busybox modprobe tcp_diag # what ss tells of TCP
path
gateway
kept=$PWD
cd /tmp || exit # writing to the host takes the emulator time
# loadgen and not sstpc with pppd, whose own copying the emulated CPUs would spend most of theirs on.
ip netns exec c1 $LOADGEN connect 10.9.1.1 --server-name $GATEWAY --ca /tmp/pki/ca.pem --user alice \
    --password "$PASSWORD" --tun c0 --route 198.18.0.0/24 --ping 0 --hold 600 >"$kept/client1.log" 2>&1 &
client=$!
address() { in_ns c1 ip -4 -o addr show dev c0 | sed -n 's/.* inet \([0-9.]*\).*/\1/p'; }
reached() { inside=$(address) && [ -n "$inside" ] && in_ns lan ping -c 1 -W 2 -q "$inside"; }
check up within 90 reached
inside=$(address)
[ -n "$inside" ] || { tail -n 3 "$kept"/*.log; exit; }
capacity=$(capacity before)
for mbit in ${MBITS:-10 20 50 100}; do
    bloat "$mbit" 10
done
kill $client
cp figures idle* busy* outside* bulk* capacity* ss* "$kept"
ip netns del path
