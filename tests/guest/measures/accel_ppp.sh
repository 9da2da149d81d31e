# Instructions a byte of accel-ppp and of sstp-gw, side by side: the same client (sstpc and pppd), hosts, kernel,
# certificate, cipher and MTU. Run by tests/guest/run --accel-ppp DIR.
#
#   processor 0   the server, and all the kernel does in its namespace: interrupts, work queues, timers
#   processor 1   sstpc, pppd, the host in lan, everything else
#
# A packet that enters a namespace goes to its processor, as from one host to another (RPS). Work queues keep
# to the processor they were asked on, for each is a NUMA node of its own. What processor 0 runs between the first
# byte of a transfer and the last is the server host's.
#
# table, a line each: server, way and bytes, instructions in user space, in the kernel, seconds of the guest.

ROUNDS=${ROUNDS:-3}
BYTES=${PEER_BYTES:-20000000}
accel=/mnt/host$ACCEL_PPP

taskset -pc 1 $$ >/dev/null
# The first request of accel-ppp's LCP meets a terminal that pppd has not set to raw yet, comes back as an echo, and
# is taken for pppd's; not every call survives that.
connect() {
    local try
    for try in 1 2 3 4 5 6 7 8 9 10; do
        OPENSSL_CONF=$PWD/client.cnf dial 1 mschapv2
        up 1 && return
        within 30 gone "${client_pid[1]}" || kill "${client_pid[1]}"
    done
    return 1
}

steer() {
    local device
    for device in lan c1; do
        in_ns gw sh -c "echo 1 >/sys/class/net/$device/queues/rx-0/rps_cpus"
    done
    for device in lan c1; do
        in_ns $device sh -c "echo 2 >/sys/class/net/eth0/queues/rx-0/rps_cpus"
    done
}

# Either server takes what the client offers, which is this alone.
offer_one_cipher() {
    cat >client.cnf <<CNF
openssl_conf = init
[init]
ssl_conf = ssl
[ssl]
system_default = default
[default]
Ciphersuites = TLS_AES_128_GCM_SHA256
CipherString = ECDHE-ECDSA-AES128-GCM-SHA256
CNF
}

# As of the moment: what processor 0 has run in user space and in the kernel.
count() { od -An -td8 -N16 /mnt/out/instructions; }

# phase N: what processor 0 runs from here on is kept as that of phase N (tests/guest/profile); 0: nothing's.
phase() {
    printf "\\x$1" | dd of=/mnt/out/instructions bs=1 seek=4096 conv=notrunc status=none
}

# counted SERVER WHAT PHASE COMMAND...: runs it; what processor 0 did meanwhile goes to the table.
counted() {
    local server=$1 what=$2 phase=$3 before after start status=0
    shift 3
    start=$(cut -d' ' -f1 /proc/uptime)
    phase $phase
    before=$(count)
    "$@" || status=1
    after=$(count)
    phase 0
    echo "$server $what $(echo $before $after $start $(cut -d' ' -f1 /proc/uptime) |
        awk '{ printf "%d %d %.2f", $3 - $1, $4 - $2, $6 - $5 }')" | tee -a table
    return $status
}

start_accel_ppp() {
    cat >accel.conf <<CONF
[modules]
path=$accel/lib64/accel-ppp
log_file
sstp
auth_mschap_v2
ippool
chap-secrets
[core]
log-error=$PWD/accel-error.log
thread-count=1
[log]
log-file=$PWD/accel.log
level=2
[ppp]
mtu=1400
mru=1400
ipv4=require
ipv6=deny
ccp=0
mppe=deny
[sstp]
accept=ssl
ssl-pemfile=/tmp/pki/gateway.pem
ssl-keyfile=/tmp/pki/gateway.key
ssl-protocol=tls1.2,tls1.3
[client-ip-range]
10.9.0.0/16
[ip-pool]
gw-ip-address=$POOL_GATEWAY
10.77.0.2-200
[dns]
dns1=$DNS1
[chap-secrets]
chap-secrets=$PWD/accel.users
CONF
    echo "alice * \"$PASSWORD\" *" >accel.users
    LD_LIBRARY_PATH=$accel/lib64/accel-ppp ip netns exec gw taskset -c 0 "$accel/sbin/accel-pppd" -c accel.conf \
        >accel.out 2>&1 &
    gateway_pid=$!
    within 60 listening || { fail accel_ppp "does not listen: $(cat accel.out accel-error.log | tail -n 3)"; exit; }
}

start_sstp_gw() {
    cat >gateway.toml <<TOML
[[listen]]
address = "0.0.0.0:443"
[tls]
certificate = "/tmp/pki/gateway.pem"
key = "/tmp/pki/gateway.key"
[auth]
users = "/tmp/$SCENARIO.users"
methods = ["mschapv2"]
[[pool]]
v4 = "$POOL"
[network]
dns = ["$DNS1"]
[shards]
count = 1
TOML
    [ -e /tmp/$SCENARIO.users ] ||
        echo "$PASSWORD" | $SSTP_GW user add alice --password-stdin --users /tmp/$SCENARIO.users
    ip netns exec gw taskset -c 0 $SSTP_GW run --config gateway.toml >gateway.log 2>&1 &
    gateway_pid=$!
    within 60 listening || { fail sstp_gw "does not listen: $(tail -n 3 gateway.log)"; exit; }
}

# one SERVER WAY PHASE BYTES: a transfer, compared at its end. Of the client's whole payload one phase.
one() {
    local way=$2 n=1 to=$LAN port=5001 payload=/tmp/payload limit=900
    head -c "$4" /dev/urandom >$payload
    if counted $1 $2_$4 $3 moved $2; then pass $1_$2; else fail $1_$2 "the transfer"; fi
}

grep -q . /mnt/out/instructions || { skip all "instructions are counted with tests/guest/run --accel-ppp alone"; exit; }
cat /proc/kallsyms >/mnt/out/kallsyms
certificates
steer
offer_one_cipher
for round in $(seq $ROUNDS); do
    for server in accel_ppp sstp_gw; do
        start_$server
        connect || { fail ${server}_connects "$(tail -n 2 client1.log)"; exit; }
        case $server in accel_ppp) up=1 down=2 ;; *) up=3 down=4 ;; esac
        one $server up 0 500000
        one $server down 0 500000
        counted $server idle 0 sleep 5
        one $server up $up $BYTES
        one $server down $down $BYTES
        hangup 1
        within 30 gone "${client_pid[1]}"
        kill -TERM $gateway_pid
        within 30 gone $gateway_pid || fail $server "does not stop"
    done
done
