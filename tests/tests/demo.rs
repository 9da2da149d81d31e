//! The demo as its first user meets it: without any right, and with the very line that it prints.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use e2e::{Running, binary, driver, is_root};

/// `program`, without the rights that this process may have.
fn unprivileged(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    command.args(["--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"]);
    command.arg("--").arg(program);
    command
}

#[test]
fn demo_without_rights_is_reached_by_the_line_it_prints() {
    // The tree may lie where nobody else can look; this directory does not.
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o1777)).unwrap();
    let [sstp_gw, loadgen] = ["sstp-gw", "loadgen"].map(|name| {
        let copy = dir.path().join(name);
        std::fs::copy(binary(name), &copy).unwrap();
        copy
    });

    let mut command = unprivileged(&sstp_gw);
    command.args(["demo", "--inside", "reflector", "--shards", "2"]);
    command.args(["--driver", &driver()]);
    command.env("TMPDIR", dir.path()).current_dir(dir.path());
    let mut demo = Running::start(&mut command);
    let line = demo.line("loadgen -- connect");
    demo.line("Ctrl-C ends it");
    let (cargo, arguments) = line.split_once(" -- ").unwrap();
    assert_eq!(cargo.trim(), "cargo run --release --bin loadgen");
    let arguments: Vec<_> = arguments.split_whitespace().collect();
    let mut client = unprivileged(&loadgen);
    client.args(&arguments).args(["--driver", &driver()]);
    let output = client.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}{errors}");
    assert!(said.contains("session up in "), "{said}");
    assert!(said.contains("4 pings, 4 answered, 4 reflected"), "{said}");
    demo.line("session up");
    demo.line("session ended");

    demo.signal("TERM");
    let (status, log) = demo.end();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("stopped"), "{log}");
    let left: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| name != "sstp-gw" && name != "loadgen")
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn demo_says_in_one_line_that_it_has_no_tun() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o1777)).unwrap();
    let sstp_gw = dir.path().join("sstp-gw");
    std::fs::copy(binary("sstp-gw"), &sstp_gw).unwrap();
    let mut command = unprivileged(&sstp_gw);
    // The port that demo chooses is for the other test.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr();
    let listen = free.unwrap().to_string();
    command.args(["demo", "--shards", "1", "--listen", &listen]);
    command.args(["--driver", &driver()]);
    command.env("TMPDIR", dir.path()).current_dir(dir.path());
    let mut demo = Running::start(&mut command);
    let line = demo.line("packets are sent back to their clients instead");
    assert!(line.contains("WARN"), "{line}");
    demo.line("no device: packets are sent back to their clients");
    demo.line("Ctrl-C ends it");
    demo.signal("INT");
    assert_eq!(demo.end().0.code(), Some(0));
}
