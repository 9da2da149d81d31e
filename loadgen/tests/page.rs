//! The HTML report in a real browser: it shows something in light and in dark, wide and narrow, and
//! the browser has nothing to complain about.

mod support;

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use support::{NAME, PASSWORD, Server, USER, Wishes};

/// Debian's headless shell, or any whole Chromium.
const BROWSERS: [&str; 4] = [
    "chromium-headless-shell",
    "chromium",
    "chromium-browser",
    "google-chrome",
];

/// A browser that can be started here.
fn browser() -> Option<&'static str> {
    BROWSERS.into_iter().find(|name| {
        let version = Command::new(name).arg("--version").output();
        version.is_ok_and(|version| version.status.success())
    })
}

/// How long a browser may take for one page.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the browser prints, and what it complains about; none if it does not come to an end.
fn browse(browser: &str, home: &Path, flags: &[&str], page: &Path) -> Option<(String, String)> {
    let files = [home.join("out"), home.join("errors")];
    let [out, errors] = files.each_ref().map(|path| File::create(path).unwrap());
    let mut child = Command::new(browser)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
        ])
        .args([
            "--no-first-run",
            "--hide-scrollbars",
            "--force-device-scale-factor=1",
        ])
        .args(["--enable-logging=stderr", "--v=0"])
        .arg(format!("--user-data-dir={}", home.display()))
        .args(flags)
        .arg(format!("file://{}", page.display()))
        .env("HOME", home)
        .stdout(out)
        .stderr(errors)
        .spawn()
        .unwrap();
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if began.elapsed() > PATIENCE {
            child.kill().unwrap();
            child.wait().unwrap();
            return None;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let [out, errors] = files.map(|path| {
        let text = std::fs::read(path).unwrap();
        String::from_utf8_lossy(&text).into_owned()
    });
    assert!(status.success(), "{errors}");
    Some((out, errors))
}

/// Whether a picture is of one colour: that compresses to some 8 KB, and what is drawn does not.
const fn is_blank(png: &[u8]) -> bool {
    png.len() < 20_000
}

#[test]
fn a_browser_shows_the_page() {
    let Some(browser) = browser() else {
        support::skip(
            "page::a_browser_shows_the_page",
            "there is no Chromium (chromium-headless-shell)",
        );
        return;
    };
    let server = Server::start(Wishes {
        sessions: 16,
        ..Wishes::default()
    });
    let dir = tempfile::tempdir().unwrap();
    let page = dir.path().join("traffic.html");
    let output = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args([
            "traffic",
            &server.address.to_string(),
            "--server-name",
            NAME,
        ])
        .args([
            "--user",
            USER,
            "--password",
            PASSWORD,
            "--lcp-echo",
            "1",
            "-q",
        ])
        .args(["-N", "8", "--rate", "20", "--pps", "500", "--duration", "3"])
        .arg("--ca")
        .arg(&server.ca)
        .arg("--report")
        .arg(&page)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}");

    for (name, flags) in [
        (
            "light",
            [
                "--window-size=1100,1600",
                "--blink-settings=preferredColorScheme=1",
            ],
        ),
        (
            "dark-phone",
            [
                "--window-size=390,1600",
                "--blink-settings=preferredColorScheme=0",
            ],
        ),
    ] {
        let picture = dir.path().join(format!("{name}.png"));
        let shot = format!("--screenshot={}", picture.display());
        let flags = [&flags[..], &["--dump-dom", &shot]].concat();
        // A browser that hangs says nothing of the page; once is not yet hanging.
        let seen = browse(browser, dir.path(), &flags, &page);
        let Some((dom, errors)) = seen.or_else(|| browse(browser, dir.path(), &flags, &page))
        else {
            support::skip(
                "page::a_browser_shows_the_page",
                "the browser did not come to an end",
            );
            return;
        };
        // What a page logs, and what its policy keeps it from loading, is a CONSOLE line.
        assert!(!errors.contains("CONSOLE"), "{errors}");
        for part in [
            "<svg",
            "class=\"line s0\"",
            "class=\"word\">Passed",
            "Lateness of sends",
            "</footer>",
        ] {
            assert!(dom.contains(part), "{part}: {dom}");
        }
        let png = std::fs::read(&picture).unwrap();
        assert!(png.starts_with(b"\x89PNG"), "{name}");
        assert!(!is_blank(&png), "{name} is blank: {} bytes", png.len());
        // For whoever wants to look at them.
        if let Some(kept) = std::env::var_os("SSTP_GW_PICTURES") {
            std::fs::copy(&picture, Path::new(&kept).join(format!("{name}.png"))).unwrap();
        }
    }
}
