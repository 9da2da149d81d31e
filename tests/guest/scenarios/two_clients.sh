# Two clients at once: each has its own address and its own traffic; the gateway ends both politely.
gateway
dial 1 mschapv2 alice
dial 2 mschapv2 bob
check first_up up 1
check second_up up 2
refuse same_address [ "$(of 1 IPLOCAL)" = "$(of 2 IPLOCAL)" ]
transfers 1 $LAN 2000000 >first.log 2>&1 &
first=$!
check second_transfer transfers 2 $LAN 2000000
wait $first
equal first_transfer 0 $? # else first.log says why
refuse client_to_client reaches 1 "$(of 2 IPLOCAL)"

hangup 1
check first_disconnects within 15 gone "${client_pid[1]}"
check second_stays reaches 2 $LAN
kill -TERM $gateway_pid
check second_is_told within 15 gone "${client_pid[2]}"
check politely grep -qE 'rcvd \[LCP TermReq' client2.log
check gateway_ends within 15 gone $gateway_pid
refuse device_stays in_ns gw ip link show dev sstp0
