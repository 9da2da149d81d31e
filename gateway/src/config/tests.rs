//! Wrong configurations and what is said about them, as one snapshot to be read.

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use super::*;
use crate::pki::DevPki;

const GOOD: &str = r#"[[listen]]
address = "127.0.0.1:8443"

[tls]
certificate = "chain.pem"
key = "key.pem"

[auth]
users = "users.toml"

[[pool]]
v4 = "10.99.0.0/16"
v6 = "fd00:99::/48"

[network]
dns = ["10.0.0.53"]
"#;

const USERS: &str = "[[user]]\nname = \"alice\"\nnt_hash = \"44ebba8d5312b8d611474411f56989ae\"\n";

struct Fixture {
    dir: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let fixture = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        let pki = DevPki::new(&["vpn.example".to_owned()], SystemTime::now()).unwrap();
        fixture.file("chain.pem", &pki.chain, 0o644);
        fixture.file("key.pem", &pki.key, 0o600);
        let other = DevPki::new(&["vpn.example".to_owned()], SystemTime::now()).unwrap();
        fixture.file("other.pem", &other.key, 0o600);
        fixture.file("exposed.pem", &pki.key, 0o640);
        fixture.file("users.toml", USERS, 0o600);
        fixture.file("exposed.toml", USERS, 0o644);
        fixture.file("nobody.toml", "", 0o600);
        let own = |v4, v6| format!("{USERS}v4 = \"{v4}\"\nv6 = \"{v6}\"\n");
        fixture.file("outside.toml", &own("10.1.0.1", "fd00:1::/64"), 0o600);
        fixture.file("gateway.toml", &own("10.99.0.1", "fd00:99::/64"), 0o600);
        let twice = own("10.99.0.7", "fd00:99:0:7::/64")
            + &own("10.99.0.7", "fd00:99:0:7::/64").replace("alice", "bob");
        fixture.file("twice.toml", &twice, 0o600);
        let crate::users::Secret::Argon2(argon2) = crate::users::argon2_hash(b"pw").unwrap() else {
            panic!("not Argon2")
        };
        fixture.file(
            "pap.toml",
            &format!(
                "[[user]]\nname = \"bob\"\nargon2 = \"{}\"\n",
                argon2.as_str()
            ),
            0o600,
        );
        fixture
    }

    fn file(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn load(&self, text: &str) -> (Loaded, String) {
        let loaded = load(&self.file("sstp-gw.toml", text, 0o644), SystemTime::now()).unwrap();
        let mut said = String::new();
        for report in &loaded.reports {
            write!(said, "{report}").unwrap();
        }
        let said = said.replace(self.dir.path().to_str().unwrap(), "DIR");
        (loaded, said)
    }
}

#[test]
fn a_good_configuration_is_taken_and_its_defaults_hold() {
    let (loaded, said) = Fixture::new().load(GOOD);
    let snapshot = loaded.snapshot.unwrap_or_else(|| panic!("{said}"));
    let config = &snapshot.config;
    assert_eq!(config.auth.methods, [Method::MsChapV2, Method::Eap]);
    assert_eq!(config.tls.min_version, TlsVersion::V12);
    assert_eq!(config.tls.record_layer, RecordLayer::Own);
    assert_eq!(config.tls.kernel_tx, KernelTls::Off);
    assert_eq!(config.tls.kernel_rx, KernelTls::Off);
    assert_eq!(config.driver, DriverKind::Auto);
    assert_eq!(config.network.mtu, 1400);
    assert!(!config.network.client_to_client);
    let pool = config.pools[0].v4.unwrap();
    assert_eq!(pool.gateway.to_string(), "10.99.0.1");
    assert_eq!(pool.range.1.to_string(), "10.99.255.254");
    assert_eq!(
        config.pools[0].v6.unwrap().gateway.to_string(),
        "fd00:99::1"
    );
    assert_eq!(config.timeouts.shutdown, Duration::from_secs(5));
    assert_eq!(snapshot.identity.chain().names(), ["vpn.example"]);
    assert_eq!(snapshot.users.iter().count(), 1);
}

#[test]
fn the_example_is_a_good_configuration() {
    let example = include_str!("../../sstp-gw.example.toml");
    let text = example.replace("/etc/sstp-gw/", "");
    let (loaded, said) = Fixture::new().load(&text);
    assert!(loaded.snapshot.is_some(), "{said}");
}

/// Each line of the table: what is wrong, what of [`GOOD`] is replaced, by what.
const WRONG: &[(&str, &str, &str)] = &[
    ("not TOML", "[tls]", "[tls"),
    ("not TOML twice", GOOD, "a = \n[b\nc = 1\n"),
    ("empty", GOOD, ""),
    (
        "key stands twice",
        "key = \"key.pem\"",
        "key = \"key.pem\"\nkey = \"key.pem\"",
    ),
    ("unknown section", "[network]", "[netwrok]"),
    (
        "unknown key, near a known one",
        "certificate =",
        "certifcate =",
    ),
    ("unknown key, far from any", "users = ", "zzz = 1\nusers = "),
    (
        "wrong type: string wanted",
        "address = \"127.0.0.1:8443\"",
        "address = 443",
    ),
    (
        "wrong type: table wanted",
        GOOD,
        "tls = 1\nlisten = 2\npool = [3]\n",
    ),
    (
        "wrong type: list wanted",
        "dns = [\"10.0.0.53\"]",
        "dns = \"10.0.0.53\"",
    ),
    (
        "wrong type in a list",
        "dns = [\"10.0.0.53\"]",
        "dns = [10]",
    ),
    (
        "wrong type: boolean wanted",
        "dns =",
        "client_to_client = \"no\"\ndns =",
    ),
    ("no port", "127.0.0.1:8443", "127.0.0.1"),
    ("port 0", "127.0.0.1:8443", "127.0.0.1:0"),
    (
        "a name, not an address",
        "127.0.0.1:8443",
        "vpn.example:443",
    ),
    (
        "listener twice",
        "[tls]",
        "[[listen]]\naddress = \"127.0.0.1:8443\"\n[tls]",
    ),
    (
        "congestion control that no kernel has",
        "[tls]",
        "congestion = \"warp\"\n[tls]",
    ),
    ("listener in a pool", "127.0.0.1:8443", "10.99.0.1:443"),
    ("no such certificate", "chain.pem", "missing.pem"),
    ("certificate is the key", "chain.pem", "key.pem"),
    ("key is the certificate", "key.pem", "chain.pem"),
    ("key of another certificate", "key.pem", "other.pem"),
    ("key that others can read", "key.pem", "exposed.pem"),
    ("TLS 1.0", "[auth]", "min_version = \"1.0\"\n[auth]"),
    (
        "unknown record layer",
        "[auth]",
        "record_layer = \"kernel\"\n[auth]",
    ),
    (
        "unknown wish for kernel TLS",
        "[auth]",
        "kernel = \"on\"\n[auth]",
    ),
    ("empty path", "\"users.toml\"", "\"\""),
    ("no such users file", "users.toml", "missing.toml"),
    (
        "users file that others can read",
        "users.toml",
        "exposed.toml",
    ),
    ("nobody in the users file", "users.toml", "nobody.toml"),
    (
        "user's own addresses in no pool",
        "users.toml",
        "outside.toml",
    ),
    (
        "user's own addresses are the gateway's",
        "users.toml",
        "gateway.toml",
    ),
    (
        "two users with the same address",
        "users.toml",
        "twice.toml",
    ),
    ("PAP-only user without PAP", "users.toml", "pap.toml"),
    (
        "MS-CHAPv1",
        "[[pool]]",
        "methods = [\"mschapv1\"]\n[[pool]]",
    ),
    (
        "CHAP-MD5",
        "[[pool]]",
        "methods = [\"chap-md5\", \"mschapv2\"]\n[[pool]]",
    ),
    (
        "unknown method",
        "[[pool]]",
        "methods = [\"eap-tls\"]\n[[pool]]",
    ),
    (
        "method twice",
        "[[pool]]",
        "methods = [\"pap\", \"pap\"]\n[[pool]]",
    ),
    ("no method", "[[pool]]", "methods = []\n[[pool]]"),
    (
        "no pool",
        "[[pool]]\nv4 = \"10.99.0.0/16\"\nv6 = \"fd00:99::/48\"\n",
        "",
    ),
    (
        "empty pool",
        "v4 = \"10.99.0.0/16\"\nv6 = \"fd00:99::/48\"\n",
        "",
    ),
    ("pool names a host", "10.99.0.0/16", "10.99.1.0/16"),
    ("pool is no network", "10.99.0.0/16", "10.99.0.0"),
    ("pool too small", "10.99.0.0/16", "10.99.0.0/31"),
    ("pool too large", "10.99.0.0/16", "10.0.0.0/8"),
    ("IPv6 pool too large", "fd00:99::/48", "fd00::/16"),
    ("pool of loopback addresses", "10.99.0.0/16", "127.0.0.0/8"),
    ("IPv6 pool names a host", "fd00:99::/48", "fd00:99::1/48"),
    ("IPv6 pool too small", "fd00:99::/48", "fd00:99::/64"),
    (
        "IPv6 pool of link-local addresses",
        "fd00:99::/48",
        "fe80::/48",
    ),
    (
        "pools overlap",
        "[network]",
        "[[pool]]\nv4 = \"10.99.128.0/24\"\nv6 = \"fd00:99:0:8::/62\"\n[network]",
    ),
    (
        "gateway outside of its pool",
        "v6 = ",
        "v4_gateway = \"10.98.0.1\"\nv6_gateway = \"fd00:98::1\"\nv6 = ",
    ),
    (
        "gateway is the broadcast address",
        "v6 = ",
        "v4_gateway = \"10.99.255.255\"\nv6 = ",
    ),
    (
        "range leaves its pool",
        "v6 = ",
        "v4_range = \"10.99.0.10-10.100.0.1\"\nv6 = ",
    ),
    (
        "range backwards",
        "v6 = ",
        "v4_range = \"10.99.0.20-10.99.0.10\"\nv6 = ",
    ),
    (
        "range of the gateway alone",
        "v6 = ",
        "v4_range = \"10.99.0.1-10.99.0.1\"\nv6 = ",
    ),
    (
        "range without a network",
        "v4 = \"10.99.0.0/16\"",
        "v4_range = \"10.99.0.1-10.99.0.9\"",
    ),
    (
        "DNS of a family without a pool",
        "v6 = \"fd00:99::/48\"\n\n[network]\ndns = [\"10.0.0.53\"]",
        "[network]\ndns = [\"fd00::53\"]",
    ),
    ("DNS that nobody reaches", "10.0.0.53", "127.0.0.53"),
    (
        "three DNS servers",
        "\"10.0.0.53\"",
        "\"10.0.0.1\", \"10.0.0.2\", \"10.0.0.3\"",
    ),
    (
        "three NBNS servers",
        "dns =",
        "nbns = [\"10.0.0.1\", \"10.0.0.2\", \"10.0.0.3\"]\ndns =",
    ),
    ("no domain", "dns =", "domain = \"corp_example.\"\ndns ="),
    (
        "route to a host",
        "dns =",
        "routes = [\"10.0.0.1/8\"]\ndns =",
    ),
    ("too many routes", "dns =", "ROUTES\ndns ="),
    ("MTU too small", "dns =", "mtu = 500\ndns ="),
    ("MTU too small for IPv6", "dns =", "mtu = 1200\ndns ="),
    ("MTU is no number", "dns =", "mtu = \"1400\"\ndns ="),
    (
        "no device name",
        "dns =",
        "tun = \"a/very-long-device-name\"\ndns =",
    ),
    (
        "TUN name with a reflector",
        "dns =",
        "inside = \"reflector\"\ntun = \"tun7\"\ndns =",
    ),
    (
        "sessions below one",
        "[network]",
        "[limits]\nsessions = 0\nhandshakes = -1\n[network]",
    ),
    (
        "more sessions than addresses",
        "10.99.0.0/16\"",
        "10.99.0.0/29\"\n[limits]\nsessions = 100\n[pools]",
    ),
    (
        "duration without a unit",
        "[network]",
        "[timeouts]\nhello = \"60\"\n[network]",
    ),
    (
        "duration out of range",
        "[network]",
        "[timeouts]\nshutdown = \"48h\"\nhandshake = 5\n[network]",
    ),
    (
        "too many shards",
        "[network]",
        "[shards]\ncount = 257\n[network]",
    ),
    (
        "unknown driver",
        "[network]",
        "[shards]\ndriver = \"iouring\"\n[network]",
    ),
    (
        "unknown log format",
        "[network]",
        "[log]\nformat = \"xml\"\nlevel = \"loud\"\n[network]",
    ),
    (
        "key log",
        "[auth]",
        "insecure_key_log = \"keys.log\"\n[auth]",
    ),
];

#[test]
fn every_mistake_is_named_with_its_place_and_its_cure() {
    let fixture = Fixture::new();
    let mut all = String::new();
    let routes: Vec<_> = (0..120).map(|n| format!("\"10.{n}.0.0/16\"")).collect();
    let routes = format!("routes = [{}]", routes.join(", "));
    for &(name, from, to) in WRONG {
        assert!(GOOD.contains(from), "{name}: nothing to replace");
        let to = to.replace("ROUTES", &routes);
        let (_, said) = fixture.load(&GOOD.replacen(from, &to, 1));
        let said = said.replace(&routes, "ROUTES");
        writeln!(all, "=== {name}\n{said}").unwrap();
        assert!(
            said.contains("error: ") || said.contains("warning: "),
            "{name}: nothing was said"
        );
    }
    assert!(WRONG.len() >= 40);
    // The number of CPUs is not ours to fix.
    insta::assert_snapshot!(all);
}

#[test]
fn a_file_that_is_not_there_is_said_to_be() {
    let error = load(Path::new("/nowhere/sstp-gw.toml"), SystemTime::now()).unwrap_err();
    assert!(error.to_string().contains("/nowhere/sstp-gw.toml"));
}
