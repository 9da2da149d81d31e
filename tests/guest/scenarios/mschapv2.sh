# sstpc and pppd log in with MS-CHAPv2 and crypto binding, get what is configured in both families,
# move data, and end the session; a second session is captured for tests/guest/decode.
gateway
dial 1 mschapv2
check up up 1
equal gateway_address $POOL_GATEWAY "$(of 1 IPREMOTE)"
check address_in_pool grep -q '^IPLOCAL=10\.77\.0\.' client1.ip-up
equal dns1 $DNS1 "$(of 1 DNS1)"
equal dns2 $DNS2 "$(of 1 DNS2)"
check ping_gateway reaches 1 $POOL_GATEWAY
check ping_lan reaches 1 $LAN
check ipv6_ping_link_local reaches 1 fe80::1%ppp1
# The address comes from the gateway's Router Advertisement, and the default route with it.
check ipv6_address within 20 in_ns c1 sh -c "ip -6 addr show dev ppp1 scope global | grep -q fd00:77:"
check ipv6_ping_gateway reaches 1 $POOL6_GATEWAY
check ipv6_ping_lan reaches 1 $LAN6
check transfer transfers 1 $LAN
check transfer_ipv6 transfers 1 $LAN6 1000000
hangup 1
check client_disconnects within 15 gone "${client_pid[1]}"

capture
dial 1 mschapv2
check again up 1
check captured_transfer transfers 1 $LAN 100000
hangup 1
check disconnects_again within 15 gone "${client_pid[1]}"
uncapture
