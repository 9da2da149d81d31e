//! `apply` and `undo` on the real `/proc/sys`, in namespaces of their own: network settings are the
//! namespace's, and `/etc` and `/var/lib` are empty ones that nobody else sees.

use std::ffi::OsStr;

mod common;
use common::in_namespaces;

#[test]
fn a_running_value_is_set_and_restored() {
    const TEST: &str = "a_running_value_is_set_and_restored";
    let script = r#"
        mount -t tmpfs none /etc && mount -t tmpfs none /var/lib || exit 77
        forward=/proc/sys/net/ipv4/ip_forward
        echo 0 >$forward || exit 77
        set -e
        "$TUNE" apply | grep forwarding.ipv4
        "$TUNE" apply --dry-run forwarding.ipv4
        echo "dry $(cat $forward)"
        "$TUNE" apply forwarding.ipv4
        echo "applied $(cat $forward)"
        grep ip_forward /etc/sysctl.d/60-sstp-gw.conf
        "$TUNE" check | grep '^ok *forwarding.ipv4'
        "$TUNE" undo
        echo "undone $(cat $forward)"
        find /etc /var/lib -mindepth 1 | sort
    "#;
    let tune = OsStr::new(env!("CARGO_BIN_EXE_sstp-tune"));
    let Some((text, _)) = in_namespaces(TEST, "sh", script, ("TUNE", tune)) else {
        return;
    };
    for line in [
        "dry 0",
        "applied 1",
        "net.ipv4.ip_forward = 1",
        "undone 0",
        "restored /proc/sys/net/ipv4/ip_forward",
        "removed /etc/sysctl.d/60-sstp-gw.conf",
    ] {
        assert!(text.lines().any(|l| l == line), "no `{line}` in\n{text}");
    }
    // Nothing is left but the place of the journal.
    assert!(
        text.ends_with("/var/lib/sstp-tune\n/var/lib/sstp-tune/lock\n"),
        "{text}"
    );
}
