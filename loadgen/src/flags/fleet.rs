//! The flags of commands that run many clients: `storm` and `traffic`.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{ArgGroup, Args, Parser, ValueEnum};

use super::{Access, Inside, Server, seconds};
use crate::fleet::sizes::Sizes;
use crate::fleet::threshold::Threshold;

/// Source addresses of one run, at most.
const SOURCES_MAX: usize = 65_536;

/// Who connects, how often, and what is written about it.
#[derive(Clone, Debug, Args)]
pub(crate) struct Fleet {
    /// The server, as a name or an address; an IPv6 address with a port goes in brackets.
    #[arg(value_name = "HOST[:PORT]")]
    pub(crate) server: Server,

    /// Sessions to bring up.
    #[arg(long, short = 'N', value_name = "N", default_value_t = 100,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) sessions: u32,

    /// Sessions started a second; 500/s is good, and so are fractions.
    #[arg(long, value_name = "PER_SECOND", default_value = "100", value_parser = rate)]
    pub(crate) rate: f64,

    /// User name; an n in braces in it is the number of the session, from --first-user on.
    #[arg(long, short, required_unless_present = "users")]
    pub(crate) user: Option<String>,

    /// The number that the n of --user begins with.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) first_user: u32,

    /// Log in as the users of this file, a line user,password each; sessions take them in turn. The
    /// file may have a header and double quotes. No password of it is ever printed.
    #[arg(long, value_name = "FILE.csv", group = "Password", conflicts_with_all = ["user", "first_user"])]
    pub(crate) users: Option<PathBuf>,

    /// What all choices follow from: which session is which persona, who leaves and how.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,

    /// Ask by DHCPINFORM for what IPCP does not tell, once a session has an address, and time the
    /// answer; a persona that does so needs no telling.
    #[arg(long)]
    pub(crate) dhcp: bool,

    #[command(flatten)]
    pub(crate) access: Access,

    /// Threads that run the sessions, each on a processor of its own [default: as many as there are].
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) shards: Option<u16>,

    /// Connect from these addresses of this host, in turn: a network such as 127.0.1.0/24, or a
    /// list with commas. One address has 28,000 ports, and a server may bound what one source does.
    #[arg(long, value_name = "ADDRESSES", default_value = "")]
    pub(crate) sources: Sources,

    /// Send an LCP echo on each session every so many seconds; 0 for none. Three without an answer
    /// end the session [default: 30, or what the persona does].
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) lcp_echo: Option<Duration>,

    /// Send an SSTP echo after so many seconds in which the server was silent [default: 60, or what
    /// the persona does].
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) sstp_echo: Option<Duration>,

    /// Write the report as JSON to this file; `-` is standard output, and then nothing else is.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// End with code 99 unless this holds, such as loss<0.1% or setup_p99<500ms; may be repeated.
    ///
    /// Figures: loss, duplicates, reordered, corrupted, wrong_session, failed, disconnects, rate, pps,
    /// bps, cpu, memory; setup_, tcp_, tls_, latency_ and lateness_ with p50, p90, p99, p999 or max.
    #[arg(long, value_name = "FIGURE<LIMIT")]
    pub(crate) fail: Vec<Threshold>,

    #[command(flatten)]
    pub(crate) output: super::Output,

    /// Do not tell of the run while it goes on: no live view, no line a second.
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

impl Fleet {
    /// Between LCP echoes of a client without a persona.
    pub(crate) fn lcp_echo(&self) -> Duration {
        self.lcp_echo.unwrap_or(Duration::from_secs(30))
    }

    /// Silence before an SSTP echo of a client without a persona.
    pub(crate) fn sstp_echo(&self) -> Duration {
        self.sstp_echo.unwrap_or(Duration::from_secs(60))
    }
}

/// Flags of `loadgen storm`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  loadgen storm vpn.example.com --sessions 1000 --rate 50 --user 'user-{n}' --password-stdin < secret
  loadgen storm 127.0.0.1:4433 -N 10000 --rate 500 --user demo --password demo --ca ca.pem \\
      --server-name demo --sources 127.0.1.0/24 --hold 60 --json storm.json --fail 'setup_p99<500ms'")]
pub(crate) struct Storm {
    #[command(flatten)]
    pub(crate) fleet: Fleet,

    /// Hold all sessions for so many seconds once the last one is up.
    #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = seconds)]
    pub(crate) hold: Duration,
}

/// Flags of `loadgen traffic`.
#[derive(Clone, Debug, Args)]
#[command(
    group = ArgGroup::new("direction").args(["both", "up", "down"]),
    group = ArgGroup::new("load").args(["pps", "pps_per_session", "bps", "bps_per_session"]),
    group = ArgGroup::new("work")
        .args(["pps", "pps_per_session", "bps", "bps_per_session", "tcp_up", "tcp_down", "ping_interval"])
        .multiple(true)
        .required(true),
    after_help = "\
Examples:
  loadgen traffic 127.0.0.1:4433 -N 200 --user demo --password demo --ca ca.pem --server-name demo \\
      --pps 20000 --size 1400 --duration 10 --json traffic.json
  loadgen traffic vpn.example.com -N 50 --user 'user-{n}' --password-stdin --down --to 10.0.0.9:7100 \\
      --bps-per-session 2M --size imix --fail 'loss<0.1%' --fail 'latency_p99<20ms' < secret
  loadgen traffic vpn.example.com -N 50 --user 'user-{n}' --password-stdin --size 1400 --pps 10k \\
      --search ndr --loss 0.1% --duration 5 --json ndr.json < secret
  loadgen traffic vpn.example.com -N 100 --user 'user-{n}' --password-stdin --to 10.0.0.9:7100 \\
      --tcp-up --tcp-down --ping-interval 0.2 --duration 30 < secret"
)]
pub(crate) struct Traffic {
    #[command(flatten)]
    pub(crate) fleet: Fleet,

    /// Every packet comes back (the default): loss and latency are those of the round trip. The far
    /// end is a reflector or `loadgen reflect`.
    #[arg(long)]
    pub(crate) both: bool,

    /// Packets go up only; the far end, `loadgen reflect`, counts them and is asked at the end.
    #[arg(long)]
    pub(crate) up: bool,

    /// Packets come down only: the far end, `loadgen reflect`, is asked to send them. Latency is one
    /// way, and means something only if both ends run on this host.
    #[arg(long)]
    pub(crate) down: bool,

    /// The far end inside the tunnel [default: the gateway's own address, port 7].
    #[arg(long, value_name = "ADDR[:PORT]", value_parser = far_end)]
    pub(crate) to: Option<SocketAddr>,

    /// Packets a second, over all sessions; k, M and G are good.
    #[arg(long, value_name = "N", value_parser = amount)]
    pub(crate) pps: Option<f64>,

    /// Packets a second, of each session.
    #[arg(long, value_name = "N", value_parser = amount)]
    pub(crate) pps_per_session: Option<f64>,

    /// Bits of IP packets a second, over all sessions.
    #[arg(long, value_name = "N", value_parser = amount)]
    pub(crate) bps: Option<f64>,

    /// Bits of IP packets a second, of each session.
    #[arg(long, value_name = "N", value_parser = amount)]
    pub(crate) bps_per_session: Option<f64>,

    /// Bytes of each IP packet: a number of 60 or more, several with commas, or imix (7 of 64, 4 of
    /// 570 and 1 of 1400).
    #[arg(long, value_name = "BYTES|LIST|imix", default_value = "1400")]
    pub(crate) size: Sizes,

    /// Send for so many seconds.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub(crate) duration: Duration,

    /// Wait so many seconds for what is still under way when all is sent.
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = seconds)]
    pub(crate) wait: Duration,

    /// Give each packet a TLS record of its own, as Windows and sstpc do, instead of packing what is
    /// due at once into as few as possible.
    #[arg(long)]
    pub(crate) record_per_packet: bool,

    /// Search for the highest rate, of packets of --size over all sessions, at which no more than --loss
    /// are lost: trials of --duration seconds begin at --pps and double or halve until the rate lies
    /// between two of them, then bisect; the rate that is found must hold three times as long.
    #[arg(long, requires = "pps", conflicts_with_all = ["tcp_up", "tcp_down"])]
    pub(crate) search: Option<Search>,

    /// The share of packets that a rate may lose in --search.
    #[arg(long, value_name = "SHARE", default_value = "0.1%", value_parser = share)]
    pub(crate) loss: f64,

    #[command(flatten)]
    pub(crate) inside: Inside,
}

impl Traffic {
    pub(crate) const fn direction(&self) -> Direction {
        match (self.up, self.down) {
            (true, _) => Direction::Up,
            (_, true) => Direction::Down,
            _ => Direction::Both,
        }
    }
}

/// What is searched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Search {
    /// The non-drop rate (RFC 2544 §26.1, with a bound in place of zero).
    Ndr,
}

/// Flags of `loadgen run`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  loadgen run --check monday-morning.toml
  loadgen run monday-morning.toml --json monday.json --fail 'setup_p99<2s'
  loadgen run --server 127.0.0.1:4433 monday-morning.toml --ca ca.pem --server-name demo \\
      --user demo --password-stdin < secret")]
pub(crate) struct Run {
    /// Connect to this server instead of the file's.
    #[arg(long, value_name = "HOST[:PORT]")]
    pub(crate) server: Option<Server>,

    /// Say whether the file is sound, and what it would do, and do nothing.
    #[arg(long)]
    pub(crate) check: bool,

    /// The scenario; files that it names are looked for beside it.
    #[arg(value_name = "FILE.toml")]
    pub(crate) file: PathBuf,

    /// Flags of `storm`, which win over what the file says; all but -N, --rate and --hold.
    #[arg(
        value_name = "FLAGS",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    pub(crate) flags: Vec<OsString>,
}

/// A scenario's head as the flags of a fleet, so that both are checked alike.
#[derive(Debug, Parser)]
#[command(
    name = "loadgen run",
    no_binary_name = true,
    args_override_self = true,
    disable_help_flag = true
)]
pub(crate) struct Head {
    #[command(flatten)]
    pub(crate) fleet: Fleet,
}

/// Flags of `loadgen reflect`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  loadgen reflect --listen 10.0.0.9:7100
  loadgen reflect --listen 10.0.0.9:7100 --gso --json reflect.json")]
pub(crate) struct Reflect {
    /// The address and the port, of UDP and of TCP, to receive on.
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) listen: SocketAddr,

    /// Send packets of a stream that are due together by one system call (UDP_SEGMENT), so that a
    /// gateway's TUN sees them as one superpacket.
    #[arg(long)]
    pub(crate) gso: bool,

    /// Write what was counted as JSON to this file at the end.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Print nothing.
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

/// Which way the packets that count go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Direction {
    Both,
    Up,
    Down,
}

/// Addresses to connect from; empty leaves the choice to the system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sources(pub(crate) Vec<IpAddr>);

impl FromStr for Sources {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut sources = Vec::new();
        for part in text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
        {
            match part.split_once('/') {
                None => sources.push(address(part)?),
                Some((network, len)) => sources.extend(hosts(network, len)?),
            }
            if sources.len() > SOURCES_MAX {
                return Err(format!("more than {SOURCES_MAX} addresses"));
            }
        }
        if sources.iter().any(IpAddr::is_ipv4) && sources.iter().any(IpAddr::is_ipv6) {
            return Err("IPv4 and IPv6 addresses do not mix".to_owned());
        }
        Ok(Self(sources))
    }
}

fn address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("{text:?} is no address"))
}

/// The addresses of an IPv4 network but for its first and last.
fn hosts(network: &str, len: &str) -> Result<impl Iterator<Item = IpAddr> + use<>, String> {
    let bits: u32 = network
        .parse::<Ipv4Addr>()
        .map_err(|_| format!("{network:?} is no IPv4 address (list IPv6 addresses one by one)"))?
        .to_bits();
    let len: u32 = len
        .parse()
        .ok()
        .filter(|len| (16..=30).contains(len))
        .ok_or("the network must be a /16 to /30")?;
    let host_mask = u32::MAX >> len;
    let first = bits & !host_mask;
    let last = first | host_mask;
    Ok((first + 1..last).map(|bits| Ipv4Addr::from_bits(bits).into()))
}

/// Starts a second, `/s` or not: more than none, at most a million.
pub(crate) fn rate(text: &str) -> Result<f64, String> {
    let digits = text.strip_suffix("/s").unwrap_or(text);
    let rate: f64 = digits.parse().map_err(|_| "not a number".to_owned())?;
    if rate > 0.0 && rate <= 1e6 {
        Ok(rate)
    } else {
        Err("not between 0 and 1000000".to_owned())
    }
}

/// A share such as 0.1% or 0.001.
fn share(text: &str) -> Result<f64, String> {
    let (digits, unit) = match text.strip_suffix('%') {
        Some(digits) => (digits, 0.01),
        None => (text, 1.0),
    };
    let number: f64 = digits.parse().map_err(|_| "not a number".to_owned())?;
    let share = number * unit;
    if (0.0..1.0).contains(&share) {
        Ok(share)
    } else {
        Err("not between 0 and 100%".to_owned())
    }
}

/// A positive number with an optional k, M or G behind it.
pub(crate) fn amount(text: &str) -> Result<f64, String> {
    let (digits, factor) = match text.strip_suffix(['k', 'M', 'G']) {
        Some(digits) if text.ends_with('k') => (digits, 1e3),
        Some(digits) if text.ends_with('M') => (digits, 1e6),
        Some(digits) => (digits, 1e9),
        None => (text, 1.0),
    };
    let number: f64 = digits.parse().map_err(|_| "not a number".to_owned())?;
    let amount = number * factor;
    if amount > 0.0 && amount <= 1e12 {
        Ok(amount)
    } else {
        Err("not between 0 and 1000G".to_owned())
    }
}

/// The port of RFC 862, which a reflector does not look at.
const ECHO_PORT: u16 = 7;

pub(crate) fn far_end(text: &str) -> Result<SocketAddr, String> {
    text.parse::<SocketAddr>()
        .or_else(|_| {
            text.parse::<IpAddr>()
                .map(|ip| SocketAddr::new(ip, ECHO_PORT))
        })
        .map_err(|_| "neither ADDR nor ADDR:PORT".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_networks_and_lists() {
        let count = |text: &str| text.parse::<Sources>().map(|sources| sources.0.len());
        assert_eq!(count(""), Ok(0));
        assert_eq!(count("127.0.1.0/24"), Ok(254));
        assert_eq!(count("127.0.0.1, 127.0.0.2"), Ok(2));
        let sources: Sources = "127.0.1.77/30".parse().unwrap();
        assert_eq!(
            sources.0,
            [IpAddr::from([127, 0, 1, 77]), [127, 0, 1, 78].into()]
        );
        for bad in ["x", "127.0.0.0/8", "::1/64", "127.0.0.1,::1", "127.0.0.0/"] {
            assert!(bad.parse::<Sources>().is_err(), "{bad}");
        }
    }

    #[test]
    fn amounts_have_units() {
        assert_eq!(amount("1.5M"), Ok(1_500_000.0));
        assert_eq!(amount("20k"), Ok(20_000.0));
        for bad in ["", "k", "-1", "0", "1T", "inf", "nan"] {
            assert!(amount(bad).is_err(), "{bad}");
        }
        assert!(rate("0").is_err() && rate("0.5").is_ok());
        assert_eq!((rate("500/s"), rate("500")), (Ok(500.0), Ok(500.0)));
        assert!(rate("500/m").is_err() && rate("/s").is_err());
    }

    #[test]
    fn shares_are_fractions_or_percent() {
        assert_eq!(share("0.5"), Ok(0.5));
        assert_eq!(share("50%"), Ok(0.5));
        for bad in ["", "%", "1", "100%", "-1%", "nan"] {
            assert!(share(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_far_end_has_a_port_or_that_of_echo() {
        assert_eq!(far_end("10.0.0.1"), Ok(([10, 0, 0, 1], 7).into()));
        assert_eq!(far_end("10.0.0.1:9"), Ok(([10, 0, 0, 1], 9).into()));
        assert!(far_end("host").is_err());
    }
}
