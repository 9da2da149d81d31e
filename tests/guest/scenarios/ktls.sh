# Kernel TLS: a client of its own making (sstp_client.py) over OpenSSL, packets reflected by the gateway.
# By default a slice, on both drivers; with MATRIX=1 (tests/guest/run --matrix) off, TX, RX and both × TLS 1.2
# and 1.3 × three ciphers, 20 MB each way.

client=$GUEST_ROOT/tests/guest/sstp_client.py
LIMIT=600
certificates

# serve TX RX [DRIVER]: a gateway with these wishes; its log is gateway.log.
serve() {
    cat >gateway.toml <<TOML
[[listen]]
address = "127.0.0.1:443"
[tls]
certificate = "/tmp/pki/gateway.pem"
key = "/tmp/pki/gateway.key"
kernel_tx = "$1"
kernel_rx = "$2"
[auth]
users = "/tmp/$SCENARIO.users"
methods = ["pap"]
[[pool]]
v4 = "$POOL"
[network]
inside = "reflector"
[shards]
count = 1
driver = "${3:-auto}"
[log]
level = "debug"
TOML
    [ -e /tmp/$SCENARIO.users ] ||
        echo "$PASSWORD" | $SSTP_GW user add alice --password-stdin --users /tmp/$SCENARIO.users
    ip netns exec gw $SSTP_GW run --config gateway.toml >gateway.log 2>&1 &
    gateway_pid=$!
    within 60 listening || { fail gateway "does not listen: $(tail -n 3 gateway.log)"; exit; }
}

# stop NAME: ends it, keeps its log by that name.
stop() {
    stop_gateway
    mv gateway.log "gateway-$1.log"
}

sstp() { in_ns gw timeout $LIMIT python3 $client 127.0.0.1 443 alice "$PASSWORD" "$@"; }

# carries NAME OPTION...: the client must be content; what it says is kept.
carries() {
    local name=$1 said
    shift
    if said=$(sstp "$@" 2>&1); then
        pass "$name"
        echo "$name: $said" >>figures
    else
        fail "$name" "$* → $(echo "$said" | tail -n 1); gateway: $(tail -n 2 gateway.log)"
    fi
}

# ends NAME REASON: the session that ended last did for this reason.
ends() { check "$1" logged "$2"; }

# busy: processor time of the gateway so far, in ticks.
busy() { awk '{ print $14 + $15 }' /proc/$gateway_pid/stat; }

# in_kernel MODE: the kernel has counted connections of this mode, and of no direction that is off.
in_kernel() {
    awk -v mode="$1" '{ n[$1] = $2 } END {
        exit !((n["TlsTxSw"] > 0) == (mode ~ /tx/) && (n["TlsRxSw"] > 0) == (mode ~ /rx/)) }' /tmp/tls_stat
}
# rekeyed MODE: the kernel has taken new keys for the directions of this mode, and refused none.
rekeyed() {
    awk -v mode="$1" '{ n[$1] = $2 } END {
        exit !((n["TlsTxRekeyOk"] > 0) == (mode ~ /tx/) && (n["TlsRxRekeyOk"] > 0) == (mode ~ /rx/) &&
            !(n["TlsTxRekeyError"] + n["TlsRxRekeyError"])) }' /tmp/tls_stat
}
# What the kernel counted since the last call.
tls_stat() {
    in_ns gw cat /proc/net/tls_stat >/tmp/tls_now
    awk 'NR == FNR { was[$1] = $2; next } { print $1, $2 - was[$1] }' /tmp/tls_was /tmp/tls_now >/tmp/tls_stat
    mv /tmp/tls_now /tmp/tls_was
}

# driver MODE: its end, after an underscore, or auto.
driver() { case $1 in *_*) echo ${1#*_} ;; *) echo auto ;; esac; }
wish() { case $1 in *$2*) echo require ;; *) echo off ;; esac; }

in_ns gw $SSTP_GW --version
serve auto auto
check auto_says_both_figures logged 'kernel TLS takes .*sending .*ms/GB against .*receiving .*ms/GB against'
grep -o 'kernel TLS takes.*' gateway.log >>figures
# The kernel's own word for it: Linux 6.14 counts new keys, and takes them. On others a KeyUpdate is to be refused.
rekeys=$(in_ns gw grep -o TlsTxRekeyOk /proc/net/tls_stat)
case $rekeys in
    '') check knows_no_key_update logged 'kernel TLS takes .*without KeyUpdate' ;;
    *) check knows_key_update logged 'kernel TLS takes .*with KeyUpdate' ;;
esac
stop auto

if [ -n "${MATRIX:-}" ]; then
    modes="${MATRIX_MODES:-off tx rx txrx}" versions="1.2 1.3" ciphers="aes128 aes256 chacha20" bytes=${MATRIX_BYTES:-20000000}
else
    modes="txrx txrx_epoll" versions="1.2 1.3" ciphers="aes128" bytes=1000000
fi
in_ns gw cat /proc/net/tls_stat >/tmp/tls_was
for mode in $modes; do
    serve $(wish $mode tx) $(wish $mode rx) $(driver $mode)
    tls_stat # what the gateway's probe did is not the sessions'
    # epoll's part is the same in either version; the default run is to stay short.
    [ -n "${MATRIX:-}" ] || case $mode in *_epoll) versions=1.3 ;; esac
    for version in $versions; do
        for cipher in $ciphers; do
            carries ${mode}_${version}_$cipher --tls $version --cipher $cipher --bytes $bytes --end close
        done
        ends ${mode}_${version}_close 'peer-closed'
        carries ${mode}_${version}_alert --tls $version --bytes 50000 --end alert
        ends ${mode}_${version}_alert_reason 'the peer sent the alert'
        carries ${mode}_${version}_corrupt --tls $version --bytes 50000 --end corrupt
        ends ${mode}_${version}_corrupt_reason 'a record failed authentication'
        before=$(busy)
        carries ${mode}_${version}_halves --tls $version --bytes 50000 --end partial
        used=$(($(busy) - before))
        echo "${mode}_${version}_halves: $used ticks" >>figures
    done
    if [ $mode = off ] || [ -n "$rekeys" ]; then
        for cipher in $ciphers; do
            carries ${mode}_${cipher}_key_update --cipher $cipher --bytes 200000 --end keyupdate
        done
    else
        carries ${mode}_key_update_refused --bytes 50000 --end keyupdate_refused
        ends ${mode}_key_update_reason 'kernel-tls'
    fi
    stop $mode
    tls_stat
    check ${mode}_in_kernel in_kernel $mode
    if [ -n "$rekeys" ]; then
        check ${mode}_rekeyed rekeyed $mode
        echo "$mode: $(grep Rekey /tmp/tls_stat | tr '\n' ' ')" >>figures
    fi
done
