# Who must not come in.
gateway
SECRET=wrong dial 1 mschapv2
check wrong_password refuses 1
check wrong_password_told grep -qE 'rcvd \[CHAP Failure.*E=691' client1.log
dial 1 mschapv2 mallory
check unknown_user refuses 1
dial 1 mschapv2 alice other-ca
check wrong_ca refuses 1
refuse wrong_ca_no_ppp grep -q 'rcvd \[LCP' client1.log
dial 2 mschapv2 bob
check others_still up 2
