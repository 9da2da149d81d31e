use datapath::io::kernel_tls::TlsVersion as Version13;

use super::*;
use crate::config::TlsVersion;

/// A host that says what a test wants.
struct Said {
    kernel: Result<(bool, bool), i32>,
    figures: [Figures; 2],
}

impl Host for Said {
    fn probe(&self) -> io::Result<ktls::Capabilities> {
        let (chacha, rekeys) = self.kernel.map_err(io::Error::from_raw_os_error)?;
        let support = |cipher, name, taken| ktls::Support {
            version: Version13::Tls13,
            cipher,
            name: ("TLS 1.3", name),
            tx: taken,
            rx: taken,
        };
        Ok(ktls::Capabilities {
            supports: vec![
                support(TlsCipher::Aes128Gcm, "AES-128-GCM", true),
                support(TlsCipher::ChaCha20Poly1305, "ChaCha20-Poly1305", chacha),
            ],
            rekeys,
        })
    }

    fn measure(&self) -> io::Result<[Figures; 2]> {
        Ok(self.figures)
    }
}

const NO_MODULE: i32 = 2;

fn host(kernel: Result<(bool, bool), i32>) -> Said {
    let figures = |own, kernel| Figures { own, kernel };
    Said {
        kernel,
        figures: [figures(100, 80), figures(100, 99)],
    }
}

fn tls(tx: KernelTls, rx: KernelTls) -> Tls {
    Tls {
        min_version: TlsVersion::V12,
        record_layer: RecordLayer::Own,
        kernel_tx: tx,
        kernel_rx: rx,
        insecure_key_log: None,
    }
}

#[test]
fn off_asks_nobody_and_says_nothing() {
    let decision = decide(&tls(KernelTls::Off, KernelTls::Off), &host(Err(NO_MODULE))).unwrap();
    assert_eq!(decision.plan, KernelPlan::default());
    assert_eq!(decision.line, None);
}

#[test]
fn auto_falls_back_with_one_line_where_the_kernel_has_none() {
    let wish = tls(KernelTls::Auto, KernelTls::Auto);
    let decision = decide(&wish, &host(Err(NO_MODULE))).unwrap();
    assert_eq!(decision.plan, KernelPlan::default());
    let line = decision.line.unwrap();
    assert!(
        line.contains("not used") && line.contains("modprobe tls"),
        "{line}"
    );
    assert!(!line.contains('\n'));
}

#[test]
fn require_fails_with_the_reason() {
    for (wish, kernel, part) in [
        (
            tls(KernelTls::Require, KernelTls::Off),
            Err(NO_MODULE),
            "modprobe tls",
        ),
        (tls(KernelTls::Auto, KernelTls::Require), Err(101), "`lo`"),
        (
            tls(KernelTls::Require, KernelTls::Off),
            Ok((false, true)),
            "all but TLS 1.3 ChaCha20",
        ),
    ] {
        let said = decide(&wish, &host(kernel)).unwrap_err().to_string();
        assert!(said.contains("requires") && said.contains(part), "{said}");
    }
    let mut wish = tls(KernelTls::Require, KernelTls::Require);
    wish.record_layer = RecordLayer::Rustls;
    let said = decide(&wish, &host(Ok((true, true))))
        .unwrap_err()
        .to_string();
    assert!(said.contains("record_layer"), "{said}");
}

#[test]
fn auto_takes_what_wins_each_direction_for_itself_and_logs_both_figures() {
    let wish = tls(KernelTls::Auto, KernelTls::Auto);
    let decision = decide(&wish, &host(Ok((true, false)))).unwrap();
    assert_eq!(
        decision.plan,
        KernelPlan {
            tx: KernelUse::Prefer,
            rx: KernelUse::Never,
            rekeys: false,
        }
    );
    let line = decision.line.unwrap();
    assert!(
        line.contains("sending used, 80 ms/GB against 100"),
        "{line}"
    );
    assert!(
        line.contains("receiving not used, 99 ms/GB against 100"),
        "{line}"
    );
}

#[test]
fn require_takes_it_without_asking_what_it_costs() {
    let wish = tls(KernelTls::Require, KernelTls::Off);
    let plan = decide(&wish, &host(Ok((true, true)))).unwrap().plan;
    assert_eq!(plan.tx, KernelUse::Require);
    assert_eq!(plan.rx, KernelUse::Never);
    assert!(plan.rekeys);
}

/// The measurement itself, where there is a kernel to measure; else that its absence is named.
#[test]
fn this_host_is_measured_or_says_why_not() {
    match ThisHost.probe() {
        Ok(_) => {
            let figures = ThisHost.measure().unwrap();
            assert!(
                figures
                    .iter()
                    .all(|figures| figures.own > 0 && figures.kernel > 0)
            );
        }
        Err(error) => {
            assert!(why_not(&error).contains("modprobe tls"), "{error}");
        }
    }
}
