//! Why a session failed, in words that a person can act on, and in one word for a machine.

use datapath::http;
use datapath::session::event::{EndReason, Ended, Milestone};
use datapath::tls::CertificateFault;
use serde::Serialize;

/// A failure, explained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Failure {
    /// One word of a closed list; scripts select by it.
    pub(crate) class: &'static str,
    /// The phase of the set-up that was under way; `up` afterwards.
    pub(crate) phase: &'static str,
    /// What happened.
    pub(crate) text: String,
    /// What to look at.
    pub(crate) hint: Option<&'static str>,
}

/// The phases of a set-up in order: the milestone that ends each, and its name.
pub(crate) const PHASES: [(Milestone, &str); 8] = [
    (Milestone::Tcp, "TCP"),
    (Milestone::Tls, "TLS"),
    (Milestone::Http, "HTTP"),
    (Milestone::Call, "SSTP"),
    (Milestone::Lcp, "LCP"),
    (Milestone::Authenticated, "auth"),
    (Milestone::Bound, "binding"),
    (Milestone::Network, "network"),
];

const OTHER_METHOD: &str = "The server may want another authentication method; see --method.";

/// Explains why a session that was not ended by us is over. `host` is what the user called the
/// server.
pub(crate) fn failure(ended: &Ended, host: &str) -> Failure {
    let phase = phase_after(ended);
    let detail = ended.detail.as_deref();
    if ended.reason == EndReason::CertificateRefused {
        return certificate(detail, host);
    }
    if ended.reason == EndReason::ProxyFailed {
        return proxy(detail.unwrap_or_default(), host);
    }
    let (text, hint) = words(ended.reason, host);
    // A server that finds no method in common ends the link before authentication has begun.
    let hint = if phase == "LCP" {
        hint.or(Some(OTHER_METHOD))
    } else {
        hint
    };
    let text = match detail {
        Some(detail) if !text.contains(detail) => format!("{text}: {detail}"),
        _ => text,
    };
    let text = if ended.was_up || says_when(ended.reason) {
        text
    } else {
        format!("{text} (during {phase})")
    };
    Failure {
        class: ended.reason.name(),
        phase,
        text,
        hint,
    }
}

/// Whether another attempt may succeed although nobody changes anything: not where a password, a
/// certificate or a rule is wrong.
pub(crate) fn can_heal(ended: &Ended) -> bool {
    let detail = ended.detail.as_deref().unwrap_or_default();
    match ended.reason {
        EndReason::AuthenticationFailed
        | EndReason::CertificateRefused
        | EndReason::BindingRefused
        | EndReason::UserRequest => false,
        EndReason::PppFailed => ended.was_up,
        // A balancer without a server behind it; all else says that there is no SSTP.
        EndReason::HttpRefused => detail.starts_with("HTTP status 5"),
        EndReason::ProxyFailed => {
            let class = proxy(detail, "").class;
            !matches!(class, "proxy-credentials" | "proxy-refused")
        }
        _ => true,
    }
}

/// A session that could not even be begun.
pub(crate) fn not_begun(error: String) -> Failure {
    Failure {
        class: "not-begun",
        phase: "TCP",
        text: error,
        hint: None,
    }
}

/// A session that was to be pinged through and could not be.
pub(crate) fn no_ping(why: String) -> Failure {
    Failure {
        class: "no-ping",
        phase: "up",
        text: format!("nothing was pinged: {why}"),
        hint: Some("Name an address to ping by --ping-to, or ask for none by --ping 0."),
    }
}

/// The phase that follows the last milestone.
fn phase_after(ended: &Ended) -> &'static str {
    if ended.was_up {
        return "up";
    }
    let last = ended.milestones.last();
    PHASES
        .iter()
        .find(|(milestone, _)| *milestone as usize > last as usize)
        .map_or("network", |(_, name)| name)
}

/// Whether the words for `reason` already say when it happened.
const fn says_when(reason: EndReason) -> bool {
    matches!(
        reason,
        EndReason::ConnectFailed
            | EndReason::ProxyFailed
            | EndReason::TlsFailed
            | EndReason::HttpRefused
            | EndReason::AuthenticationFailed
            | EndReason::BindingRefused
    )
}

fn words(reason: EndReason, host: &str) -> (String, Option<&'static str>) {
    let (text, hint) = match reason {
        EndReason::ConnectFailed => (
            format!("no TCP connection to {host}"),
            Some("Is the server running, and does a firewall let you through to its port?"),
        ),
        EndReason::TlsFailed => (
            "TLS failed".to_owned(),
            Some("Does the server speak TLS 1.2 or 1.3 on this port?"),
        ),
        EndReason::HttpRefused => (
            "the server refused the SSTP request".to_owned(),
            Some("There is a web server at this address, but it does not offer SSTP."),
        ),
        EndReason::AuthenticationFailed => (
            "the server refused the login".to_owned(),
            Some(
                "If the password is right: some servers want the name as DOMAIN\\user, and one without a free \
                 address may refuse like this.",
            ),
        ),
        EndReason::BindingRefused => (
            "the server refused the crypto binding".to_owned(),
            Some(
                "Someone may be in the middle: a proxy that opens TLS, or a server that hashes another \
                 certificate than it shows.",
            ),
        ),
        EndReason::PppFailed => ("PPP found no agreement".to_owned(), Some(OTHER_METHOD)),
        EndReason::SetupTimeout => (
            "the server did not answer in time".to_owned(),
            Some("It takes connections but is too busy, or what answers is no SSTP server."),
        ),
        EndReason::PeerClosed => ("the server closed the connection".to_owned(), None),
        EndReason::ConnectionReset => ("the connection was reset".to_owned(), None),
        EndReason::PeerLost => ("the server does not answer any more".to_owned(), None),
        EndReason::PeerAborted => ("the server aborted the call".to_owned(), None),
        EndReason::PeerDisconnected => ("the server ended the call".to_owned(), None),
        EndReason::SstpViolation => ("the server broke SSTP".to_owned(), None),
        other => (other.name().to_owned(), None),
    };
    (text, hint)
}

/// Why the HTTP proxy did not let us through. The session tells it in the words of
/// [`http::proxy::Error`].
fn proxy(detail: &str, host: &str) -> Failure {
    use http::proxy::Error;

    let is = |error: Error| detail == error.to_string();
    let begins = |text: &str| detail.starts_with(text);
    let (class, hint) = if is(Error::Credentials) {
        (
            "proxy-credentials",
            "Give them as --proxy http://USER:PASSWORD@HOST:PORT, or the password by \
             --proxy-password-file.",
        )
    } else if is(Error::Method) {
        (
            "proxy-credentials",
            "Ask the proxy's operator for a login by Basic, or for a way without one.",
        )
    } else if begins("its rules") {
        (
            "proxy-refused",
            "Proxies often allow CONNECT to port 443 only; ask the proxy's operator.",
        )
    } else if begins("it cannot reach") {
        (
            "proxy-unreachable",
            "Is the server's name right, and is it running? The proxy looks the name up, not this host.",
        )
    } else {
        (
            "proxy-failed",
            "Is that the address and port of an HTTP proxy?",
        )
    };
    Failure {
        class,
        phase: "proxy",
        text: format!("the proxy opened no connection to {host}: {detail}"),
        hint: Some(hint),
    }
}

/// What is wrong with the server's certificate. The session tells it in the words of
/// [`CertificateFault`].
fn certificate(detail: Option<&str>, host: &str) -> Failure {
    let known = [
        CertificateFault::Expired,
        CertificateFault::NotYetValid,
        CertificateFault::WrongName,
        CertificateFault::UnknownIssuer,
        CertificateFault::WrongPurpose,
    ];
    let fault = known
        .into_iter()
        .find(|fault| detail.is_some_and(|detail| detail.contains(&fault.to_string())));
    let (class, text, hint) = match fault {
        Some(CertificateFault::Expired) => (
            "certificate-expired",
            format!("the certificate of {host} has expired"),
            "Its operator has to renew it; if not, this computer's clock is ahead.",
        ),
        Some(CertificateFault::NotYetValid) => (
            "certificate-not-yet-valid",
            format!("the certificate of {host} is not valid yet"),
            "This computer's clock is probably behind.",
        ),
        Some(CertificateFault::WrongName) => (
            "certificate-wrong-name",
            format!("the certificate is not for the name {host}"),
            "Connect by a name that is in the certificate, or give that name by --server-name.",
        ),
        Some(CertificateFault::UnknownIssuer) => (
            "certificate-unknown-issuer",
            format!("the certificate of {host} was issued by nobody we trust"),
            "Give the file of its certificate authority by --ca, or the certificate itself if the server \
             signed it with its own key. If you have neither, ask the operator; do not go on without.",
        ),
        Some(CertificateFault::WrongPurpose) => (
            "certificate-wrong-purpose",
            format!("the certificate of {host} is not one for servers"),
            "It lacks the extended key usage serverAuth; its operator has to issue another.",
        ),
        // rustls' name for what servers make for themselves that know no better (SoftEther, test set-ups).
        _ if detail.is_some_and(|detail| detail.contains("CaUsedAsEndEntity")) => (
            "certificate-self-signed",
            format!(
                "the certificate of {host} is that of an authority, as a server makes for itself"
            ),
            "It proves nothing about a server. Its operator has to install one that is for this name and for \
             servers; until then only --insecure-accept-any-certificate is left, on a network you trust.",
        ),
        // rustls' name for a signature that the issuer's key did not make.
        _ if detail.is_some_and(|detail| detail.contains("BadSignature")) => (
            "certificate-unknown-issuer",
            format!(
                "the certificate of {host} names an authority we trust, but is signed with another key"
            ),
            "The authority was probably made anew: get its present certificate for --ca.",
        ),
        Some(CertificateFault::Other(_)) | None => (
            "certificate-refused",
            format!(
                "the certificate of {host} was refused: {}",
                detail
                    .map(|detail| detail
                        .rsplit_once("refused: ")
                        .map_or(detail, |(_, why)| why))
                    .unwrap_or("no reason was given")
            ),
            "Its operator has to look at it.",
        ),
    };
    Failure {
        class,
        phase: "TLS",
        text,
        hint: Some(hint),
    }
}

#[cfg(test)]
mod tests {
    use datapath::session::event::{Milestones, Traffic};
    use datapath::time::Instant;

    use super::*;

    fn ended(reason: EndReason, detail: Option<&str>, passed: &[Milestone]) -> Ended {
        let mut milestones = Milestones::default();
        for &milestone in passed {
            milestones.pass(milestone, Instant::from_nanos(1));
        }
        Ended {
            reason,
            detail: detail.map(str::to_owned),
            user: None,
            was_up: false,
            milestones,
            traffic: Traffic::default(),
        }
    }

    #[test]
    fn every_certificate_problem_has_its_own_words() {
        let faults = [
            CertificateFault::Expired,
            CertificateFault::NotYetValid,
            CertificateFault::WrongName,
            CertificateFault::UnknownIssuer,
            CertificateFault::WrongPurpose,
            CertificateFault::Other("BadSignature".to_owned()),
            CertificateFault::Other("Other(CaUsedAsEndEntity)".to_owned()),
            CertificateFault::Other("it is a holiday".to_owned()),
        ];
        let mut text = String::new();
        for fault in faults {
            let ended = ended(
                EndReason::CertificateRefused,
                Some(&fault.to_string()),
                &[Milestone::Tcp],
            );
            let failure = failure(&ended, "vpn.example.com");
            text += &format!(
                "{}: {}\n    {}\n",
                failure.class,
                failure.text,
                failure.hint.unwrap_or_default()
            );
        }
        insta::assert_snapshot!(text);
    }

    #[test]
    fn a_failure_says_in_which_phase() {
        use Milestone::{Begun, Call, Http, Lcp, Tcp, Tls};

        let closed = ended(EndReason::PeerClosed, None, &[Begun, Tcp, Tls, Http]);
        let failure_of = |ended: &Ended| failure(ended, "h");
        assert_eq!(
            failure_of(&closed).text,
            "the server closed the connection (during SSTP)"
        );
        let wrong = ended(
            EndReason::AuthenticationFailed,
            Some("error 691"),
            &[Begun, Tcp, Tls, Http, Call, Lcp],
        );
        assert_eq!(failure_of(&wrong).phase, "auth");
        assert_eq!(
            failure_of(&wrong).text,
            "the server refused the login: error 691"
        );
        let refused = ended(EndReason::ConnectFailed, None, &[Begun]);
        assert_eq!(failure_of(&refused).phase, "TCP");
        let late = Ended {
            was_up: true,
            ..closed
        };
        assert_eq!(failure_of(&late).phase, "up");
        assert_eq!(failure_of(&late).text, "the server closed the connection");
    }

    #[test]
    fn every_reason_has_words() {
        for &reason in EndReason::ALL {
            let failure = failure(&ended(reason, None, &[]), "h");
            assert!(!failure.text.is_empty() && !failure.class.is_empty());
        }
    }
}
