//! The personas: values, and what is known of them.
//!
//! Where a fact comes from is said beside it. *Log* is the SSTP troubleshooting log in VyOS'
//! documentation and SoftEther's issue 1169 (both Windows 10); *source* is the client's own source
//! code: sstp-client 1.0.18 with ppp 2.5.2, Open SSTP Client at 13f417b2.

use datapath::http::RequestStyle;
use datapath::ppp::auth::AuthMethod::{ChapMd5, Eap, MsChapV2, Pap};
use datapath::ppp::link::{NetworkOrder, Persona as Options};
use datapath::session::{Farewell, Habits};
use datapath::time::Duration;
use datapath::tls::Suite::{Aes128Gcm, Aes256Gcm, ChaCha20Poly1305};
use datapath::tls::Version::{Tls12, Tls13};

use super::Aspect::{Auth, Ccp, Dhcp, Echo, End, Http, Lcp, Network, Records, Sni, Suites, Tls};
use super::Source::{Known, NotImitated, Unverified};
use super::{Aspect, Fact, Persona, Source};

const fn fact(aspect: Aspect, source: Source, text: &'static str) -> Fact {
    Fact {
        aspect,
        text,
        source,
    }
}

const FULL_FAREWELL: Farewell = Farewell {
    terminates_link: true,
    gives_status: true,
    awaits_ack: true,
};

/// What Windows says about itself when LCP has opened (log); a third one, binary, is left out.
const WINDOWS_IDENTIFICATIONS: &[&[u8]] = &[b"MSRASV5.20", b"MSRAS-0-LOADGEN"];

/// MPPC, stateless (log).
const WINDOWS_CCP: &[u8] = &[18, 6, 0x01, 0x00, 0x00, 0x01];

const WINDOWS_HABITS: Habits = Habits {
    request: RequestStyle::WINDOWS,
    farewell: FULL_FAREWELL,
};

const WINDOWS_10: Persona = Persona {
    name: "windows-10",
    title: "Windows 10's own client",
    versions: [Tls12, Tls12],
    suites: &[Aes256Gcm, Aes128Gcm],
    sni: true,
    record_per_packet: true,
    habits: WINDOWS_HABITS,
    mru: 4091,
    options: Options::Windows,
    methods: &[MsChapV2, Eap],
    identifications: WINDOWS_IDENTIFICATIONS,
    ccp: Some(WINDOWS_CCP),
    network_order: NetworkOrder::Ipv6First,
    dhcp: true,
    sstp_echo: Duration::from_secs(60),
    sstp_echo_unanswered_max: 1,
    lcp_echo: None,
    facts: &[
        // SoftEther's issues 1496 and 1722.
        fact(Tls, Known, "1.2 at most"),
        // SoftEther 1169 negotiated it.
        fact(Suites, Known, "takes ECDHE with AES-256-GCM"),
        fact(
            Suites,
            Unverified,
            "AES-128-GCM behind it, and no other AEAD",
        ),
        fact(
            Suites,
            NotImitated,
            "offers CBC suites too, which our TLS does not have",
        ),
        // sslh's issue 166.
        fact(Sni, Unverified, "sent"),
        // Log; MS-SSTP §3.2.4.1.
        fact(
            Http,
            Known,
            "SSTPCORRELATIONID in braces, Content-Length, Host",
        ),
        fact(Records, Unverified, "a TLS record for each packet"),
        // Log.
        fact(
            Lcp,
            Known,
            "asks MRU 4091, magic number, PFC, ACFC and callback, then MRU and magic number; \
             identifies itself twice",
        ),
        fact(Lcp, NotImitated, "a third identification is binary"),
        // What may be used is the profile's choice.
        fact(Auth, Unverified, "MS-CHAPv2, or EAP-MSCHAPv2"),
        // Log.
        fact(
            Network,
            Known,
            "IPV6CP, then IPCP with address, two DNS and two NBNS servers",
        ),
        // Log.
        fact(Ccp, Known, "asked once, for MPPC; repetitions are left out"),
        // MS-DHCPE §2.2; Microsoft's documentation of remote access.
        fact(Dhcp, Known, "DHCPINFORM once there is an address"),
        fact(
            Dhcp,
            Unverified,
            "its option list, and that it is repeated twice",
        ),
        // MS-SSTP §3.1.6.1 and its product notes.
        fact(
            Echo,
            Known,
            "SSTP echo after 60 s of silence, gives up at the second; no LCP echo",
        ),
        // MS-SSTP's product notes.
        fact(
            End,
            Known,
            "CALL_DISCONNECT with Status Info, and waits for the answer",
        ),
        fact(End, Unverified, "terminates LCP first"),
    ],
};

const WINDOWS_11: Persona = Persona {
    name: "windows-11",
    title: "Windows 11's own client",
    versions: [Tls12, Tls13],
    facts: &[
        // SoftEther's issue 1722.
        fact(Tls, Known, "1.3, and 1.2 where the server has no more"),
        fact(
            Suites,
            Unverified,
            "ECDHE with AES-256-GCM, then AES-128-GCM",
        ),
        // Only a group policy turns it on, from 24H2.
        fact(Suites, Known, "no post-quantum key exchange by default"),
        fact(Sni, Unverified, "sent"),
        fact(
            Http,
            Unverified,
            "as Windows 10: SSTPCORRELATIONID in braces, Content-Length, Host",
        ),
        fact(Records, Unverified, "a TLS record for each packet"),
        fact(Lcp, Unverified, "as Windows 10"),
        fact(Auth, Unverified, "MS-CHAPv2, or EAP-MSCHAPv2"),
        fact(Network, Unverified, "as Windows 10"),
        fact(Ccp, Unverified, "as Windows 10"),
        fact(Dhcp, Unverified, "as Windows 10"),
        // MS-SSTP §3.1.6.1, without an exception in its product notes.
        fact(
            Echo,
            Known,
            "SSTP echo after 60 s of silence, gives up at the second",
        ),
        fact(Echo, Unverified, "no LCP echo"),
        fact(
            End,
            Known,
            "CALL_DISCONNECT with Status Info, and waits for the answer",
        ),
        fact(End, Unverified, "terminates LCP first"),
    ],
    ..WINDOWS_10
};

const ROUTEROS: Persona = Persona {
    name: "routeros",
    title: "MikroTik RouterOS",
    versions: [Tls12, Tls12],
    suites: &[Aes256Gcm, Aes128Gcm],
    sni: false,
    record_per_packet: true,
    habits: WINDOWS_HABITS,
    mru: 1500,
    options: Options::Plain,
    methods: &[MsChapV2, ChapMd5, Pap],
    identifications: &[],
    ccp: None,
    network_order: NetworkOrder::Ipv4First,
    dhcp: false,
    sstp_echo: Duration::from_secs(60),
    sstp_echo_unanswered_max: 1,
    lcp_echo: None,
    facts: &[
        // Its setting tls-version is any or only-1.2.
        fact(Tls, Known, "1.2"),
        fact(Tls, Unverified, "and not 1.3"),
        // The README of ogital's server; a setting `ciphers` exists in newer versions.
        fact(
            Suites,
            NotImitated,
            "older versions offer AES-CBC-SHA alone; ECDHE with AES-GCM stands in for it",
        ),
        // MikroTik's change log: add-sni since 7.15.
        fact(Sni, Known, "not sent unless told to"),
        fact(Http, Unverified, "headers as Windows"),
        fact(Records, Unverified, "a TLS record for each packet"),
        // MikroTik's manual: max-mru, mrru off.
        fact(Lcp, Known, "MRU 1500, no multilink"),
        fact(Lcp, Unverified, "MRU and magic number are all it asks"),
        // MikroTik's manual: pap, chap, mschap1, mschap2.
        fact(Auth, Known, "MS-CHAPv2, CHAP or PAP"),
        fact(Auth, NotImitated, "MS-CHAPv1 too"),
        fact(
            Network,
            Unverified,
            "IPCP with address and DNS, and IPV6CP behind it",
        ),
        fact(Ccp, Unverified, "not asked"),
        // Its manual knows no way to take routes from a server.
        fact(Dhcp, Known, "not asked"),
        // keepalive-timeout=60.
        fact(Echo, Known, "every 60 s of silence"),
        fact(Echo, Unverified, "by SSTP, and gives up at the second"),
        fact(
            End,
            Unverified,
            "terminates LCP, then CALL_DISCONNECT with Status Info",
        ),
    ],
};

const SSTPC: Persona = Persona {
    name: "sstpc",
    title: "sstpc with pppd on Linux (also NetworkManager)",
    versions: [Tls12, Tls13],
    suites: &[Aes256Gcm, ChaCha20Poly1305, Aes128Gcm],
    sni: true,
    record_per_packet: true,
    habits: Habits {
        request: RequestStyle::SSTPC,
        farewell: Farewell {
            terminates_link: true,
            gives_status: false,
            awaits_ack: true,
        },
    },
    mru: 1500,
    options: Options::Pppd,
    methods: &[MsChapV2, Eap, ChapMd5, Pap],
    identifications: &[],
    ccp: None,
    network_order: NetworkOrder::Ipv4First,
    dhcp: false,
    sstp_echo: Duration::from_secs(60),
    sstp_echo_unanswered_max: 5,
    lcp_echo: None,
    facts: &[
        // OpenSSL's defaults.
        fact(Tls, Known, "1.2 and 1.3"),
        fact(Suites, Known, "what OpenSSL has"),
        fact(Suites, Unverified, "AES-256-GCM, ChaCha20, AES-128-GCM"),
        fact(
            Suites,
            NotImitated,
            "OpenSSL 3.5 offers post-quantum key exchange",
        ),
        // src/sstp-stream.c; an older account has it only with --tls-ext.
        fact(Sni, Known, "sent"),
        // Source.
        fact(
            Http,
            Known,
            "Host, Content-Length, SSTPCORRELATIONID without braces",
        ),
        fact(Records, Unverified, "a TLS record for each packet"),
        // Source.
        fact(
            Lcp,
            Known,
            "asks ACCM 0, magic number, PFC and ACFC; no MRU, for it is 1500",
        ),
        // Its refuse- options decide.
        fact(Auth, Known, "MS-CHAPv2, EAP, CHAP or PAP"),
        fact(Auth, Unverified, "in this order"),
        // Source.
        fact(Network, Known, "IPCP with address, VJ compression and DNS"),
        fact(Network, Unverified, "IPV6CP right behind it"),
        fact(Ccp, NotImitated, "pppd asks for compression of its own"),
        fact(Dhcp, Known, "not asked"),
        // Source.
        fact(
            Echo,
            Known,
            "SSTP echo after 60 s of silence, gives up after more than 4",
        ),
        fact(Echo, Unverified, "no LCP echo, which is an option of pppd"),
        // Source.
        fact(End, Known, "CALL_DISCONNECT without Status Info"),
        fact(
            End,
            Unverified,
            "pppd terminates LCP first; the answer is awaited",
        ),
    ],
};

const OPEN_SSTP: Persona = Persona {
    name: "open-sstp-client",
    title: "Open SSTP Client on Android",
    versions: [Tls12, Tls13],
    suites: &[Aes128Gcm, Aes256Gcm, ChaCha20Poly1305],
    sni: true,
    record_per_packet: true,
    habits: Habits {
        request: RequestStyle::OPEN_SSTP,
        farewell: Farewell {
            terminates_link: false,
            gives_status: true,
            awaits_ack: false,
        },
    },
    mru: 1500,
    options: Options::OpenSstp,
    methods: &[Eap, MsChapV2, Pap],
    identifications: &[],
    ccp: None,
    network_order: NetworkOrder::Ipv6Later,
    dhcp: false,
    sstp_echo: Duration::from_secs(20),
    sstp_echo_unanswered_max: 1,
    lcp_echo: Some(Duration::from_secs(20)),
    facts: &[
        fact(Tls, Known, "1.2 and 1.3, as Android has them"),
        fact(Suites, Unverified, "AES-128-GCM, AES-256-GCM, ChaCha20"),
        // The feature table of its version 1.10.2.
        fact(Sni, Known, "sent"),
        // Source, as all that follows.
        fact(
            Http,
            Known,
            "Content-Length, Host, SSTPCORRELATIONID in braces",
        ),
        fact(Records, Unverified, "a TLS record for each packet"),
        fact(
            Lcp,
            Known,
            "asks MRU 1500 alone, refuses less, and rejects all but MRU and authentication",
        ),
        fact(
            Auth,
            Known,
            "EAP-MSCHAPv2, MS-CHAPv2, PAP, in this order; asks for one if there is none",
        ),
        fact(Auth, NotImitated, "gives it 3 s, and then ends the session"),
        fact(
            Network,
            Known,
            "IPCP with address and one DNS server; IPV6CP only when IPCP is done",
        ),
        fact(Ccp, Known, "not asked"),
        fact(Dhcp, Unverified, "not asked"),
        fact(
            Echo,
            Known,
            "SSTP echo after 20 s of silence; LCP echo every 20 s",
        ),
        fact(
            Echo,
            NotImitated,
            "its LCP echo waits for 20 s without data",
        ),
        fact(
            End,
            Known,
            "CALL_DISCONNECT without LCP's end, and closes without waiting for the answer",
        ),
        fact(
            End,
            NotImitated,
            "a Protocol- or Code-Reject ends its session",
        ),
    ],
};

const SSTP_CONNECT: Persona = Persona {
    name: "sstp-connect",
    title: "SSTP Connect on iOS",
    versions: [Tls12, Tls13],
    suites: &[Aes128Gcm, Aes256Gcm, ChaCha20Poly1305],
    sni: true,
    record_per_packet: true,
    habits: WINDOWS_HABITS,
    mru: 1400,
    options: Options::Plain,
    methods: &[MsChapV2, Eap, ChapMd5, Pap],
    identifications: &[],
    ccp: None,
    network_order: NetworkOrder::Ipv6First,
    dhcp: true,
    sstp_echo: Duration::from_secs(60),
    sstp_echo_unanswered_max: 1,
    lcp_echo: None,
    facts: &[
        // Its help page: 1.0 and 1.1 can be off.
        fact(Tls, Known, "up to 1.3"),
        fact(Tls, Unverified, "from 1.2"),
        fact(Suites, Unverified, "AES-128-GCM, AES-256-GCM, ChaCha20"),
        fact(Sni, Unverified, "sent"),
        fact(Http, Unverified, "headers as Windows"),
        fact(Records, Unverified, "a TLS record for each packet"),
        fact(Lcp, Unverified, "asks MRU 1400 and a magic number"),
        fact(Auth, Unverified, "MS-CHAPv2, EAP, CHAP, PAP, in this order"),
        fact(
            Network,
            Unverified,
            "IPV6CP, then IPCP with address and DNS",
        ),
        fact(Ccp, Unverified, "not asked"),
        // Its help page: static routes come by remote DHCP.
        fact(Dhcp, Known, "asked for routes"),
        fact(Dhcp, Unverified, "by a DHCPINFORM as Windows' own"),
        fact(
            Echo,
            Unverified,
            "SSTP echo after 60 s of silence, gives up at the second",
        ),
        fact(
            End,
            Unverified,
            "terminates LCP, then CALL_DISCONNECT with Status Info",
        ),
    ],
};

/// Every persona.
pub(crate) const PERSONAS: &[Persona] = &[
    WINDOWS_10,
    WINDOWS_11,
    ROUTEROS,
    SSTPC,
    OPEN_SSTP,
    SSTP_CONNECT,
];
