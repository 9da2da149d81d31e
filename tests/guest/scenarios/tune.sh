# What sstp-tune says of a host that has kernel TLS and nothing else set for it.
$SSTP_TUNE check >report.log 2>errors.log
check ends [ $? -le 1 ]
refuse complains [ -s errors.log ]
$SSTP_TUNE check --json >report.json
check kernel_tls grep -qE '^[a-z]+ +tls\.kernel +loaded' report.log
check ciphers grep -qE '^[a-z]+ +tls\.kernel_ciphers .*gcm\(aes\)' report.log
check json python3 -m json.tool report.json /dev/null
