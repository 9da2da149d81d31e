//! The command line, defined once: what a flag is called, takes and means.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;

use crate::connect::forward::Forward;
use crate::connect::proxy;

mod fleet;
mod inside;

mod output;

pub(crate) use self::fleet::{
    Direction, Fleet, Head, Reflect, Run, Sources, Storm, Traffic, amount, far_end, rate,
};
pub(crate) use self::inside::{Inside, TCP_WINDOW, window};
pub(crate) use self::output::{Compare, Output, Page};
use crate::persona::Mix;

/// Real SSTP clients, to try any SSTP server and to measure it. Needs no root.
#[derive(Debug, Parser)]
#[command(name = "loadgen", version)]
pub(crate) struct Flags {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Connect one client, ping through the tunnel, and say what was seen.
    ///
    /// Makes one whole SSTP session (TCP, TLS, HTTP, SSTP with crypto binding, PPP), reports its
    /// addresses and how long each phase took, pings through the tunnel, and ends it politely. The
    /// inside of the tunnel stays within this process: nothing of this host is changed, unless --tun
    /// asks for an interface. SIGINT or SIGTERM ends the session politely, a second one at once.
    ///
    /// Exit code: 0 if the session came up and pings were answered, 1 if not, 2 for a usage error, 130
    /// if it was interrupted before its time was up.
    Connect(Box<Connect>),

    /// Connect thousands of clients at a set rate, hold them, and end them politely.
    ///
    /// Open loop: each start has a planned time and is never held back by the server. Each phase of
    /// the set-up (TCP, TLS, HTTP, SSTP, LCP, auth, binding, network) is timed. While the sessions
    /// are held, both echoes run (SSTP and LCP), and every session that ends is a disconnect.
    ///
    /// Exit code: 0 pass, 1 a session failed or was lost, 2 usage, 99 a --fail threshold is broken,
    /// 130 interrupted (the report is written all the same).
    Storm(Box<Storm>),

    /// Send numbered UDP packets through many sessions, and account for each of them.
    ///
    /// Brings the sessions up as `storm` does, then sends for --duration. Open loop: each packet has
    /// a planned time, and latency counts from it, so that a stalled server hides nothing. Every
    /// payload carries run, session, number and planned time: loss, duplicates, reordering,
    /// corruption and packets delivered to the wrong session are told apart.
    ///
    /// The far end is the gateway's reflector, or `loadgen reflect` on the inside network.
    ///
    /// Exit code: as of `storm`; a corrupted packet or one of a wrong session fails the run, a lost
    /// one only a --fail threshold.
    Traffic(Box<Traffic>),

    /// Play a scenario from a file: storms, ramps, churn, traffic, one after the other.
    ///
    /// The file (TOML) says whom to connect to, as whom, as which clients, and what happens in which
    /// order. The same file with the same seed makes the same choices. loadgen/scenarios has examples.
    ///
    /// Exit code: as of `storm`.
    Run(Box<Run>),

    /// Be the far end of `traffic` on the network behind a gateway: echo, count, or send UDP packets.
    ///
    /// One port does all three: each packet says what it is for. It answers whoever asks, with as much
    /// as was asked for, so run it on a network of your own. Ends at SIGINT or SIGTERM.
    ///
    /// Exit code: 0, 1 if it cannot receive, 2 for a usage error.
    Reflect(Box<Reflect>),

    /// Say what changed from one report to another, beyond the noise.
    ///
    /// Reads two reports that --json of `storm` or `traffic` wrote, and lists every figure of both with
    /// its relative change and whether that means anything.
    ///
    /// Exit code: 0, 2 if they cannot be compared (it says why), 99 a --fail threshold is broken.
    Compare(Box<Compare>),

    /// Make the HTML page of a report that was saved.
    ///
    /// Exit code: 0, 1 if it cannot be written, 2 if it is no report.
    Report(Page),

    /// Print the man page, for `man -l -`.
    #[command(hide = true)]
    Man,
}

/// Flags of `loadgen connect`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  loadgen connect vpn.example.com --user alice --password-stdin < secret
  loadgen connect 127.0.0.1:4433 --server-name demo --ca ca.pem --user demo --password demo
  loadgen connect vpn.example.com --user alice --password-stdin --json | jq .phases
  loadgen connect vpn.example.com --user alice --password-stdin -L 8080:10.0.0.1:80
  loadgen connect vpn.example.com --user alice --password-stdin --tun vpn0 --default-route --dns --reconnect")]
pub(crate) struct Connect {
    /// The server, as a name or an address; an IPv6 address with a port goes in brackets.
    #[arg(value_name = "HOST[:PORT]")]
    pub(crate) server: Server,

    /// User name, as the server expects it (DOMAIN\user is sent as it is).
    #[arg(long, short)]
    pub(crate) user: String,

    #[command(flatten)]
    pub(crate) access: Access,

    /// Go through this HTTP proxy, by CONNECT: http://[USER[:PASSWORD]@]HOST[:PORT], with %xx for what a
    /// URL cannot have. The proxy looks the server's name up. `env` takes the proxy from HTTPS_PROXY or
    /// ALL_PROXY, but for what NO_PROXY names.
    #[arg(long, value_name = "URL|env")]
    pub(crate) proxy: Option<proxy::Choice>,

    /// Read the proxy's password from the first line of this file.
    #[arg(long, value_name = "FILE", requires = "proxy")]
    pub(crate) proxy_password_file: Option<PathBuf>,

    /// Connect from this address of this host.
    #[arg(long, value_name = "ADDR")]
    pub(crate) source: Option<IpAddr>,

    /// Send this many pings through the tunnel; 0 for none.
    #[arg(
        long,
        short = 'n',
        visible_alias = "count",
        value_name = "N",
        default_value_t = 4,
        default_value_if("forward", clap::builder::ArgPredicate::IsPresent, "0")
    )]
    pub(crate) ping: u32,

    /// Ping this address instead of the gateway's inside the tunnel.
    #[arg(long, value_name = "ADDR")]
    pub(crate) ping_to: Option<IpAddr>,

    /// Time between pings, in seconds; fractions are good.
    #[arg(long, value_name = "SECONDS", default_value = "0.2", value_parser = seconds)]
    pub(crate) interval: Duration,

    /// Bytes of data in each ping.
    #[arg(long, value_name = "BYTES", default_value_t = 56,
          value_parser = clap::value_parser!(u16).range(16..=1372))]
    pub(crate) size: u16,

    /// Keep the session up for at least this many seconds [default: 0; with --tun or -L until SIGINT or
    /// SIGTERM].
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) hold: Option<Duration>,

    /// Connect again when the session is lost or cannot be made, after 1 s at first and 60 s at most, the
    /// half of it by chance. Not after a refusal that time does not heal: of the password, of the
    /// certificate.
    #[arg(long)]
    pub(crate) reconnect: bool,

    /// Forward this port of this host to a host inside the tunnel, as ssh does; needs no root, and may be
    /// given several times. BIND is 127.0.0.1 unless given, HOST an address. Nothing is pinged unless
    /// --ping says so.
    #[arg(
        short = 'L',
        long = "forward",
        value_name = "[BIND:]PORT:HOST:HOSTPORT",
        conflicts_with = "tun"
    )]
    pub(crate) forward: Vec<Forward>,

    /// Make this host a client: a TUN interface of this name with the tunnel's addresses (needs
    /// CAP_NET_ADMIN); it goes when the session ends. Nothing is pinged from within.
    #[arg(long, value_name = "NAME", value_parser = interface_name)]
    pub(crate) tun: Option<String>,

    /// With --tun: send what goes to this network through the tunnel; may be given several times.
    #[arg(long, value_name = "CIDR", requires = "tun")]
    pub(crate) route: Vec<IpNet>,

    /// With --tun: send everything through the tunnel, by routes to the two halves of the internet that
    /// leave the default route alone. The server itself stays outside, by a route that is taken back at
    /// the end.
    #[arg(long, requires = "tun")]
    pub(crate) default_route: bool,

    /// With --tun: have systemd-resolved ask the DNS servers that the server names, until the end; without
    /// systemd-resolved they are printed.
    #[arg(long, requires = "tun")]
    pub(crate) dns: bool,

    /// With --tun: its MTU in bytes, instead of what the server and we agreed on.
    #[arg(long, value_name = "BYTES", requires = "tun", default_value_t = 1400,
          value_parser = clap::value_parser!(u16).range(576..=4_087))]
    pub(crate) mtu: u16,

    /// With --tun: a packet a read and a write, as kernels without TUN offload have it.
    #[arg(long, requires = "tun")]
    pub(crate) no_offload: bool,

    /// Give each packet a TLS record of its own, as Windows and sstpc do.
    #[arg(long)]
    pub(crate) record_per_packet: bool,

    /// Print one JSON object at the end, and nothing else.
    #[arg(long)]
    pub(crate) json: bool,
}

/// How a server is reached and convinced; the same for one client and for thousands.
#[derive(Clone, Debug, Args)]
pub(crate) struct Access {
    #[command(flatten)]
    pub(crate) password: Password,

    /// Trust the certificate authorities in this PEM or DER file instead of the system's.
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "insecure_accept_any_certificate"
    )]
    pub(crate) ca: Option<PathBuf>,

    /// Accept whatever certificate is shown: anyone on the way can read and change everything.
    #[arg(long)]
    pub(crate) insecure_accept_any_certificate: bool,

    /// Verify the certificate for this name, and send it as SNI, instead of HOST.
    #[arg(long, value_name = "NAME")]
    pub(crate) server_name: Option<String>,

    /// Behave on the wire as this client does, or as a mix: windows-11=6,routeros=1,sstpc=3.
    #[arg(long, value_name = "NAME[=WEIGHT],…", default_value = "", hide_default_value = true,
          value_parser = persona_mix, long_help = crate::persona::help())]
    pub(crate) persona: Mix,

    /// Authentication methods to agree to, the preferred one first [default: mschapv2,eap, or the
    /// persona's].
    #[arg(long, value_enum, value_delimiter = ',', value_name = "METHOD,…")]
    pub(crate) method: Vec<Method>,

    /// Speak only this version of TLS.
    #[arg(long, value_enum, value_name = "VERSION")]
    pub(crate) tls: Option<TlsVersion>,

    /// Give up if a session is not up after this many seconds.
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub(crate) timeout: Duration,

    /// Do not ask for IPv6 in the tunnel.
    #[arg(long, conflicts_with = "no_ipv4")]
    pub(crate) no_ipv6: bool,

    /// Do not ask for IPv4 in the tunnel.
    #[arg(long)]
    pub(crate) no_ipv4: bool,

    /// Do the I/O with this; auto is io_uring where this host allows it.
    #[arg(long, value_enum, value_name = "DRIVER", default_value = "auto")]
    pub(crate) driver: Driver,
}

/// Where the password comes from.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Password {
    /// The password; other users of this host can see it in the list of processes.
    #[arg(long, value_name = "PASSWORD")]
    pub(crate) password: Option<String>,

    /// Read the password from the first line of standard input.
    #[arg(long)]
    pub(crate) password_stdin: bool,
}

/// How to prove who we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Method {
    /// MS-CHAPv2 (RFC 2759).
    Mschapv2,
    /// EAP with EAP-MSCHAPv2 inside.
    Eap,
    /// CHAP with MD5 (RFC 1994): no keys for crypto binding.
    ChapMd5,
    /// The password itself, protected by TLS alone.
    Pap,
}

/// What waits for the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Driver {
    /// io_uring where this host allows it, else epoll.
    Auto,
    /// io_uring or nothing.
    #[value(name = "io_uring")]
    IoUring,
    /// epoll, whatever else there is.
    Epoll,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TlsVersion {
    #[value(name = "1.2")]
    Tls12,
    #[value(name = "1.3")]
    Tls13,
}

/// A server as written on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Server {
    /// A name or an address, without brackets.
    pub(crate) host: String,
    /// 443 unless given.
    pub(crate) port: u16,
}

impl Server {
    /// A server as written, at `default_port` unless another is written.
    pub(crate) fn with_port(text: &str, default_port: u16) -> Result<Self, String> {
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (host, rest) = rest.split_once(']').ok_or("the bracket is not closed")?;
            match rest.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if rest.is_empty() => (host, None),
                None => return Err("only :PORT may follow the bracket".to_owned()),
            }
        } else if text.parse::<std::net::Ipv6Addr>().is_ok() {
            (text, None)
        } else {
            match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            }
        };
        if host.is_empty() {
            return Err("there is no host".to_owned());
        }
        let port = match port {
            Some(port) => match port.parse() {
                Ok(0) | Err(_) => return Err(format!("{port:?} is no port")),
                Ok(port) => port,
            },
            None => default_port,
        };
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

impl std::str::FromStr for Server {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::with_port(text, 443)
    }
}

/// The name of an interface: 1 to 15 bytes that are no space and no slash.
fn interface_name(text: &str) -> Result<String, String> {
    let is_good = |byte: u8| byte.is_ascii_graphic() && byte != b'/';
    if (1..=15).contains(&text.len()) && text.bytes().all(is_good) {
        Ok(text.to_owned())
    } else {
        Err("an interface name has 1 to 15 characters, none of them a space or a slash".to_owned())
    }
}

/// A mix of personas; nothing is a plain client.
fn persona_mix(text: &str) -> Result<Mix, String> {
    if text.is_empty() {
        return Ok(Mix::default());
    }
    text.parse()
}

/// A number of seconds, with a fraction if need be; at most a day.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if !(0.0..=86_400.0).contains(&seconds) {
        return Err("not between 0 and 86400".to_owned());
    }
    Ok(Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn server(text: &str) -> Result<Server, String> {
        text.parse()
    }

    #[test]
    fn the_definition_is_sound() {
        Flags::command().debug_assert();
    }

    #[test]
    fn servers_are_names_or_addresses_with_or_without_port() {
        let is = |host: &str, port| {
            Ok(Server {
                host: host.to_owned(),
                port,
            })
        };
        assert_eq!(server("vpn.example.com"), is("vpn.example.com", 443));
        assert_eq!(server("vpn.example.com:4433"), is("vpn.example.com", 4433));
        assert_eq!(server("192.0.2.1:8443"), is("192.0.2.1", 8443));
        assert_eq!(server("2001:db8::1"), is("2001:db8::1", 443));
        assert_eq!(server("[2001:db8::1]:8443"), is("2001:db8::1", 8443));
        assert_eq!(server("[2001:db8::1]"), is("2001:db8::1", 443));
        for bad in [
            "",
            ":443",
            "host:",
            "host:0",
            "host:70000",
            "[::1",
            "[::1]443",
        ] {
            assert!(server(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn seconds_are_bounded_numbers() {
        assert_eq!(seconds("0.25"), Ok(Duration::from_millis(250)));
        for bad in ["-1", "nan", "inf", "90000", "1s", ""] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_password_is_given_once() {
        let parse = |flags: &[&str]| {
            let line = ["loadgen", "connect", "h", "--user", "u"];
            Flags::try_parse_from(line.iter().chain(flags)).is_ok()
        };
        assert!(parse(&["--password", "p"]));
        assert!(parse(&["--password-stdin"]));
        assert!(!parse(&[]));
        assert!(!parse(&["--password", "p", "--password-stdin"]));
        assert!(!parse(&[
            "--password",
            "p",
            "--ca",
            "f",
            "--insecure-accept-any-certificate"
        ]));
        assert!(parse(&[
            "--password",
            "p",
            "--count",
            "0",
            "--method",
            "pap,eap"
        ]));
    }
}
