# The guest has what the other scenarios stand on.
check ppp_device sh -c 'exec 3<>/dev/ppp'
check tls_module grep -q '^tls ' /proc/modules
check netem in_ns c1 tc qdisc add dev eth0 root netem delay 5ms loss 1%
check fq_codel in_ns c2 tc qdisc add dev eth0 root fq_codel
check tun in_ns gw ip tuntap add dev probe mode tun multi_queue

# pppd against pppd over a pseudo terminal: Debian's pppd works here at all.
peer 1
ip netns exec c1 pppd nodetach noauth local debug logfd 2 10.8.0.1:10.8.0.2 \
    pty 'pppd nodetach noauth local notty' >pppd.log 2>&1 &
client_pid[1]=$!
check pppd up 1
check pppd_address within 10 in_ns c1 ip addr show to 10.8.0.1
