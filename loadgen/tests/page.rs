//! The HTML report in a real browser: it shows something in light and in dark, wide and narrow, and
//! the browser has nothing to complain about.

mod support;

use std::path::Path;
use std::process::Command;

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

/// What the browser prints, and what it complains about.
fn browse(browser: &str, home: &Path, flags: &[&str], page: &Path) -> (String, String) {
    let output = Command::new(browser)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--enable-logging=stderr",
            "--v=0",
        ])
        .args(["--hide-scrollbars", "--force-device-scale-factor=1"])
        .arg(format!("--user-data-dir={}", home.display()))
        .args(flags)
        .arg(format!("file://{}", page.display()))
        .env("HOME", home)
        .output()
        .unwrap();
    let [out, errors] =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(output.status.success(), "{errors}");
    (out, errors)
}

/// How many different bytes the picture's rows have: one that is blank has next to none.
fn is_blank(png: &[u8]) -> bool {
    // What is drawn does not compress as a page of one colour does, a byte for some 500 pixels.
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

    let (dom, errors) = browse(browser, dir.path(), &["--dump-dom"], &page);
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

    for (name, flags) in [
        ("light", &["--window-size=1100,3600"][..]),
        (
            "dark",
            &[
                "--window-size=1100,3600",
                "--blink-settings=preferredColorScheme=0",
            ],
        ),
        ("phone", &["--window-size=390,6000"]),
    ] {
        let picture = dir.path().join(format!("{name}.png"));
        let shot = format!("--screenshot={}", picture.display());
        let flags = [flags, &[&shot]].concat();
        browse(browser, dir.path(), &flags, &page);
        let png = std::fs::read(&picture).unwrap();
        assert!(png.starts_with(b"\x89PNG"), "{name}");
        assert!(!is_blank(&png), "{name} is blank: {} bytes", png.len());
        // For whoever wants to look at them.
        if let Some(kept) = std::env::var_os("SSTP_GW_PICTURES") {
            std::fs::copy(&picture, Path::new(&kept).join(format!("{name}.png"))).unwrap();
        }
    }
}
