//! `sstp-gw demo`: everything at once, out of nothing, and nothing left behind.
//!
//! It writes an ordinary configuration with certificate and users file into a fresh directory, and
//! runs that. What it made and changed is printed, and undone when it ends.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use datapath::output::Entropy as _;
use datapath::sys::entropy::SystemEntropy;
use ipnet::{IpNet, Ipv4Net};
use zeroize::Zeroizing;

use crate::cli;
use crate::config::{self, DriverKind, InsideKind, Log};
use crate::files::{self, FileError};
use crate::host;
use crate::pki::{DevPki, MakeError};
use crate::serve::{self, ServeError, Standing, WithoutTun};
use crate::users::{self, Secret, User};

const USER: &str = "demo";
const TUN: &str = "sstpdemo0";
/// The first that this host has no route into is taken.
const POOLS: [&str; 4] = [
    "10.99.0.0/24",
    "172.30.99.0/24",
    "192.168.199.0/24",
    "10.213.77.0/24",
];
/// Given to clients when this host has none that they could reach.
const DNS_FALLBACK: &str = "9.9.9.9";
const FORWARD_SYSCTL: &str = "/proc/sys/net/ipv4/ip_forward";
const NFT_TABLE: &str = "sstp_gw_demo";

/// Why there is no demo.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DemoError {
    #[error("cannot make the directory {path}: {source}")]
    Directory { path: PathBuf, source: io::Error },
    #[error("cannot listen anywhere: {0}")]
    Listen(io::Error),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Certificate(#[from] MakeError),
    #[error("the configuration made for the demo is wrong, which is our mistake:\n{0}")]
    Config(String),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error("cannot set {path}: {source}")]
    Sysctl {
        path: &'static str,
        source: io::Error,
    },
    #[error("cannot run nft, which --forward needs: {0}")]
    Nft(String),
}

/// Runs the demo until a signal.
///
/// # Errors
/// When it cannot start.
pub(crate) fn run(flags: &cli::Demo) -> Result<(), DemoError> {
    let log = Log {
        format: flags.log_format,
        level: flags.log_level,
    };
    crate::logs::start(log);
    let state = StateDirectory::new()?;
    let plan = Plan::new(flags, &state)?;
    let snapshot = plan.write(log)?;
    // Dropped, and thereby undone, after the gateway has ended, however it ends.
    let mut forwarding = None;
    let mut forward_error = None;
    let result = serve::serve(snapshot, u32::MAX, WithoutTun::Reflect, |standing| {
        if flags.forward && standing.inside == InsideKind::Tun {
            match Forwarding::start(plan.pool_v4) {
                Ok(started) => forwarding = Some(started),
                Err(error) => forward_error = Some(error),
            }
        }
        if let Some(error) = &forward_error {
            tracing::error!("{error}");
        }
        // A closed standard output is no reason to stop serving.
        let _ = plan.print(standing, forwarding.is_some(), &mut io::stdout());
    });
    drop(forwarding);
    result.map_err(Into::into)
}

/// A directory of our own, gone when this is.
#[derive(Debug)]
struct StateDirectory(PathBuf);

impl StateDirectory {
    fn new() -> Result<Self, DemoError> {
        let path = std::env::temp_dir().join(format!("sstp-gw-demo-{}", word(8)));
        match fs::DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => Ok(Self(path)),
            Err(source) => Err(DemoError::Directory { path, source }),
        }
    }
}

impl Drop for StateDirectory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!("cannot remove {}: {error}", self.0.display());
        }
    }
}

/// So many random letters and digits, none of which looks like another.
fn word(len: usize) -> String {
    const LETTERS: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz023456789";
    let mut bytes = vec![0; len];
    SystemEntropy.fill(&mut bytes);
    bytes
        .iter()
        .map(|byte| char::from(LETTERS[usize::from(byte % 32)]))
        .collect()
}

/// What the demo runs with.
struct Plan {
    directory: PathBuf,
    listen: SocketAddr,
    host: String,
    names: Vec<String>,
    password: Zeroizing<String>,
    pool_v4: Ipv4Net,
    pool_v6: Option<String>,
    dns: Vec<String>,
    shards: Option<u16>,
    driver: DriverKind,
    inside: InsideKind,
}

impl Plan {
    fn new(flags: &cli::Demo, state: &StateDirectory) -> Result<Self, DemoError> {
        let listen = match flags.listen {
            Some(address) => address,
            None => free_address().map_err(DemoError::Listen)?,
        };
        let host = flags.host.clone().unwrap_or_else(|| host_of(listen));
        let mut names = vec![host.clone()];
        for name in ["localhost", "127.0.0.1", "::1"] {
            if name != host {
                names.push(name.to_owned());
            }
        }
        let routes = host::routes_of_host();
        let pool_v4 = POOLS
            .iter()
            .filter_map(|pool| pool.parse().ok())
            .find(|&pool: &Ipv4Net| {
                let pool = IpNet::V4(pool);
                !routes
                    .iter()
                    .any(|(route, _)| route.contains(&pool) || pool.contains(route))
            })
            .unwrap_or_else(|| Ipv4Net::new_assert(Ipv4Addr::new(10, 99, 0, 0), 24));
        let has_v6 = Path::new("/proc/net/if_inet6").exists()
            && fs::read_to_string("/proc/sys/net/ipv6/conf/default/disable_ipv6")
                .is_ok_and(|text| text.trim() == "0");
        let mut id = [0; 5];
        SystemEntropy.fill(&mut id);
        // RFC 4193 §3: fd and 40 random bits.
        let pool_v6 = has_v6.then(|| {
            format!(
                "fd{:02x}:{:02x}{:02x}:{:02x}{:02x}::/48",
                id[0], id[1], id[2], id[3], id[4]
            )
        });
        Ok(Self {
            directory: state.0.clone(),
            listen,
            host,
            names,
            password: Zeroizing::new(word(12)),
            pool_v4,
            pool_v6,
            dns: dns_servers(),
            shards: flags.shards,
            driver: flags.driver,
            inside: flags.inside.unwrap_or(InsideKind::Tun),
        })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Writes every file, and reads them back as `run` would.
    fn write(&self, log: Log) -> Result<config::Snapshot, DemoError> {
        let now = SystemTime::now();
        let pki = DevPki::new(&self.names, now)?;
        files::replace(&self.file("ca.pem"), pki.ca.as_bytes(), 0o644)?;
        files::replace(&self.file("chain.pem"), pki.chain.as_bytes(), 0o644)?;
        files::replace(&self.file("key.pem"), pki.key.as_bytes(), 0o600)?;
        let user = User {
            name: USER.to_owned(),
            secret: Secret::nt_hash(&self.password),
            v4: None,
            v6: None,
            disabled: false,
        };
        let users = users::emit(std::iter::once(&user));
        files::replace(&self.file("users.toml"), users.as_bytes(), 0o600)?;
        let config = self.file("sstp-gw.toml");
        files::replace(&config, self.toml(log).as_bytes(), 0o644)?;
        let loaded = config::load(&config, now)?;
        loaded.snapshot.ok_or_else(|| {
            DemoError::Config(loaded.reports.iter().map(ToString::to_string).collect())
        })
    }

    fn toml(&self, log: Log) -> String {
        let quote = |items: &[String]| {
            items
                .iter()
                .map(|item| format!("\"{item}\""))
                .collect::<Vec<_>>()
                .join(", ")
        };
        let mut text = format!(
            "[[listen]]\naddress = \"{}\"\n\n\
             [tls]\ncertificate = \"chain.pem\"\nkey = \"key.pem\"\n\n\
             [auth]\nusers = \"users.toml\"\n\n\
             [[pool]]\nv4 = \"{}\"\n",
            self.listen, self.pool_v4
        );
        if let Some(pool) = &self.pool_v6 {
            text += &format!("v6 = \"{pool}\"\n");
        }
        text += &format!(
            "\n[network]\ninside = \"{}\"\ndns = [{}]\n",
            self.inside,
            quote(&self.dns)
        );
        if self.inside == InsideKind::Tun {
            text += &format!("tun = \"{TUN}\"\n");
        }
        // No more than the pool has: the demo should not warn of itself.
        text += "\n[limits]\nsessions = 250\n";
        text += &format!("\n[shards]\ndriver = \"{}\"\n", self.driver);
        if let Some(shards) = self.shards {
            text += &format!("count = {shards}\n");
        }
        text += &format!(
            "\n[log]\nformat = \"{}\"\nlevel = \"{}\"\n",
            log.format, log.level
        );
        text
    }

    fn print(
        &self,
        standing: &Standing,
        forwards: bool,
        out: &mut impl io::Write,
    ) -> io::Result<()> {
        let (host, port) = (&self.host, self.listen.port());
        let server = match host.parse() {
            Ok(IpAddr::V6(ip)) => format!("[{ip}]:{port}"),
            _ => format!("{host}:{port}"),
        };
        let ca = self.file("ca.pem");
        let (ca, password) = (ca.display(), self.password.as_str());
        writeln!(out, "\nsstp-gw demo serves on {}", self.listen)?;
        writeln!(out, "  server    {server}")?;
        writeln!(out, "  user      {USER}")?;
        writeln!(out, "  password  {password}")?;
        writeln!(out, "  CA        {ca}")?;
        writeln!(out, "  config    {}", self.file("sstp-gw.toml").display())?;
        let v6 = self
            .pool_v6
            .as_ref()
            .map_or_else(String::new, |pool| format!(" and {pool}"));
        writeln!(out, "  pool      {}{v6}", self.pool_v4)?;
        writeln!(out, "  DNS       {}", self.dns.join(", "))?;

        writeln!(
            out,
            "\nConnect from another terminal here, without any right:"
        )?;
        writeln!(
            out,
            "  cargo run --release --bin loadgen -- connect {server} --user {USER} --password {password} --ca {ca}"
        )?;
        writeln!(
            out,
            "\nConnect from Linux (packages sstp-client and ppp, as root):"
        )?;
        writeln!(
            out,
            "  sstpc --log-stderr --ca-cert {ca} --user {USER} --password {password} {server} \\\n    \
             noauth usepeerdns noipdefault nodefaultroute refuse-pap refuse-chap refuse-mschap"
        )?;
        writeln!(
            out,
            "\nConnect from Windows (PowerShell as administrator; bring ca.pem there as ca.cer first):"
        )?;
        writeln!(
            out,
            "  Import-Certificate -FilePath .\\ca.cer -CertStoreLocation Cert:\\LocalMachine\\Root\n  \
             Add-VpnConnection -Name sstp-demo -ServerAddress {server} -TunnelType Sstp `\n    \
             -AuthenticationMethod MSChapv2 -EncryptionLevel Optional\n  \
             rasdial sstp-demo {USER} {password}"
        )?;
        if self.listen.ip().is_loopback() {
            writeln!(
                out,
                "  (It listens on this host only. For others: run it as root, or with --listen 0.0.0.0:{port} --host NAME)"
            )?;
        }

        writeln!(out, "\nMade on this host; all of it goes when this ends:")?;
        writeln!(out, "  directory {}", self.directory.display())?;
        for made in &standing.made {
            writeln!(out, "  {made}")?;
        }
        if standing.inside == InsideKind::Reflector {
            writeln!(
                out,
                "  no device: packets are sent back to their clients, addresses swapped"
            )?;
        }
        if forwards {
            writeln!(
                out,
                "  net.ipv4.ip_forward = 1, nftables table ip {NFT_TABLE} (masquerading)"
            )?;
        } else if standing.inside == InsideKind::Tun {
            writeln!(
                out,
                "  (Clients reach this host. To let them reach what is behind it: --forward)"
            )?;
        }
        writeln!(out, "\nCtrl-C ends it.\n")?;
        out.flush()
    }
}

/// 0.0.0.0:443 if that is allowed and free, else a free port of this host alone.
fn free_address() -> io::Result<SocketAddr> {
    let mut result = Err(io::ErrorKind::AddrInUse.into());
    let all = [(Ipv4Addr::UNSPECIFIED, 443)];
    let here = (8443..8453).map(|port| (Ipv4Addr::LOCALHOST, port));
    for address in all.into_iter().chain(here).map(SocketAddr::from) {
        result = TcpListener::bind(address).map(|_| address);
        if result.is_ok() {
            break;
        }
    }
    result
}

/// The name by which clients reach what listens there.
fn host_of(listen: SocketAddr) -> String {
    if !listen.ip().is_unspecified() {
        return listen.ip().to_string();
    }
    // Nothing is sent: connecting a datagram socket only asks which source would be used.
    let source = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| {
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
        socket.local_addr()
    });
    match source {
        Ok(address) if !address.ip().is_unspecified() => address.ip().to_string(),
        _ => Ipv4Addr::LOCALHOST.to_string(),
    }
}

/// This host's own servers, as far as a client could reach them.
fn dns_servers() -> Vec<String> {
    let text = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let mut servers: Vec<_> = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .filter_map(|server| server.trim().parse::<Ipv4Addr>().ok())
        .filter(|server| !server.is_loopback() && !server.is_unspecified())
        .take(2)
        .map(|server| server.to_string())
        .collect();
    if servers.is_empty() {
        servers.push(DNS_FALLBACK.to_owned());
    }
    servers
}

/// Forwarding and address translation, as long as this lives.
#[derive(Debug)]
struct Forwarding {
    /// What the sysctl was before, if it was changed.
    before: Option<String>,
}

impl Forwarding {
    fn start(pool: Ipv4Net) -> Result<Self, DemoError> {
        let failed = |source| DemoError::Sysctl {
            path: FORWARD_SYSCTL,
            source,
        };
        nft(&format!(
            "table ip {NFT_TABLE} {{ chain post {{ type nat hook postrouting priority srcnat; \
             ip saddr {pool} oifname != \"{TUN}\" masquerade; }} }}"
        ))?;
        let mut started = Self { before: None };
        let before = fs::read_to_string(FORWARD_SYSCTL).map_err(failed)?;
        if before.trim() != "1" {
            fs::write(FORWARD_SYSCTL, "1").map_err(failed)?;
            started.before = Some(before);
        }
        Ok(started)
    }
}

impl Drop for Forwarding {
    fn drop(&mut self) {
        if let Some(before) = &self.before
            && let Err(error) = fs::write(FORWARD_SYSCTL, before.trim())
        {
            tracing::warn!("cannot set {FORWARD_SYSCTL} back: {error}");
        }
        if let Err(error) = nft(&format!("delete table ip {NFT_TABLE}")) {
            tracing::warn!("cannot remove the nftables table {NFT_TABLE}: {error}");
        }
    }
}

fn nft(script: &str) -> Result<(), DemoError> {
    let failed = |error: io::Error| DemoError::Nft(error.to_string());
    let output = Command::new("nft")
        .arg(script)
        .stdin(Stdio::null())
        .output()
        .map_err(failed)?;
    if output.status.success() {
        Ok(())
    } else {
        Err(DemoError::Nft(
            String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{LogFormat, LogLevel};

    fn plan(directory: &Path) -> Plan {
        Plan {
            directory: directory.to_owned(),
            listen: "127.0.0.1:8443".parse().unwrap(),
            host: "vpn.example".to_owned(),
            names: vec!["vpn.example".to_owned(), "127.0.0.1".to_owned()],
            password: Zeroizing::new("secret123456".to_owned()),
            pool_v4: "10.99.0.0/24".parse().unwrap(),
            pool_v6: Some("fd12:3456:789a::/48".to_owned()),
            dns: vec!["9.9.9.9".to_owned()],
            shards: Some(1),
            driver: DriverKind::Epoll,
            inside: InsideKind::Tun,
        }
    }

    #[test]
    fn what_the_demo_writes_is_a_good_configuration_without_warnings() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log {
            format: LogFormat::Json,
            level: LogLevel::Debug,
        };
        let plan = plan(dir.path());
        let snapshot = plan.write(log).unwrap();
        assert_eq!(
            snapshot.identity.chain().names(),
            ["vpn.example", "127.0.0.1"]
        );
        let loaded = config::load(&plan.file("sstp-gw.toml"), SystemTime::now()).unwrap();
        let warnings: Vec<_> = loaded
            .reports
            .iter()
            .flat_map(|report| report.messages(crate::diagnostics::Severity::Warning))
            .collect();
        assert_eq!(warnings, Vec::<&str>::new());
    }

    #[test]
    fn the_demo_says_how_to_connect() {
        let mut out = Vec::new();
        let standing = Standing {
            inside: InsideKind::Tun,
            made: vec!["device sstpdemo0 with 1 queue, MTU 1400".to_owned()],
            obstacles: Vec::new(),
        };
        plan(Path::new("/tmp/sstp-gw-demo-x"))
            .print(&standing, false, &mut out)
            .unwrap();
        insta::assert_snapshot!(String::from_utf8(out).unwrap());
    }

    #[test]
    fn the_state_directory_goes_with_the_demo() {
        let state = StateDirectory::new().unwrap();
        let path = state.0.clone();
        assert!(path.is_dir());
        drop(state);
        assert!(!path.exists());
    }
}
