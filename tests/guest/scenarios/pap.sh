# PAP, only where the configuration says so.
gateway '"pap"'
dial 1 pap
check up up 1
check ping reaches 1 $POOL_GATEWAY
hangup 1
check client_disconnects within 15 gone "${client_pid[1]}"
stop_gateway

gateway
dial 1 pap
check refused_by_default refuses 1
