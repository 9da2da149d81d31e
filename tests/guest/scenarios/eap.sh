# EAP as Debian's pppd speaks it: EAP-MSCHAPv2.
gateway '"eap"'
dial 1 eap
check up up 1
check method grep -q 'EAP.*MSCHAPv2' client1.log
check ping reaches 1 $POOL_GATEWAY
hangup 1
check client_disconnects within 15 gone "${client_pid[1]}"
