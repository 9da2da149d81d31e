//! On a terminal a run is shown live, Ctrl-C ends it in order, and the terminal is given back.

mod support;

use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use support::{NAME, PASSWORD, Server, USER, Wishes};

/// What a terminal is told on entering the other screen, and on leaving it with the cursor shown.
const ENTER: &str = "\x1b[?1049h";
const LEAVE: &str = "\x1b[?1049l\x1b[?25h";

/// The command on its terminal; it does not outlive a test that failed.
struct OnTerminal(Child);

impl Drop for OnTerminal {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_run_is_shown_until_ctrl_c() {
    // Of util-linux: runs a command on a terminal of its own.
    if Command::new("script").arg("--version").output().is_err() {
        support::skip(
            "terminal::a_run_is_shown_until_ctrl_c",
            "there is no script (bsdutils)",
        );
        return;
    }
    let server = Server::start(Wishes::default());
    let command = format!(
        "stty cols 100 rows 30; exec {} storm {} --server-name {NAME} --user {USER} --password {PASSWORD} \
         --ca {} -N 3 --hold 600",
        env!("CARGO_BIN_EXE_loadgen"),
        server.address,
        server.ca.display()
    );
    let child = Command::new("script")
        .args([
            "--quiet",
            "--return",
            "--flush",
            "--command",
            &command,
            "/dev/null",
        ])
        .env("TERM", "xterm")
        .env("SHELL", "/bin/sh")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut child = OnTerminal(child);
    let (mut keys, mut screen) = (
        child.0.stdin.take().unwrap(),
        child.0.stdout.take().unwrap(),
    );
    let (send, shown) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut chunk = [0; 4096];
        while let Ok(len @ 1..) = screen.read(&mut chunk) {
            let _ = send.send(chunk[..len].to_vec());
        }
    });
    server.wait_for_sessions(3);
    let mut text = String::new();
    let until = Instant::now() + Duration::from_secs(60);
    // A word of the first picture: blanks are not drawn, and later pictures draw what changed alone.
    while !text.contains("Ctrl-C") {
        let patience = until.saturating_duration_since(Instant::now());
        let chunk = shown
            .recv_timeout(patience)
            .unwrap_or_else(|_| panic!("no view came: {text:?}"));
        text += &String::from_utf8_lossy(&chunk);
    }
    keys.write_all(b"\x03").unwrap();
    keys.flush().unwrap();
    let status = child.0.wait().unwrap();
    drop(keys);
    reader.join().unwrap();
    for chunk in shown.try_iter() {
        text += &String::from_utf8_lossy(&chunk);
    }
    assert_eq!(status.code(), Some(130), "{text:?}");
    let (view, after) = text
        .split_once(LEAVE)
        .unwrap_or_else(|| panic!("not given back: {text:?}"));
    assert!(
        view.contains(ENTER) && view.contains("loadgen storm"),
        "{view:?}"
    );
    assert!(
        after.contains("of 3 sessions up") && after.contains("interrupted"),
        "{after:?}"
    );
    assert!(!after.contains(ENTER), "{after:?}");
}
