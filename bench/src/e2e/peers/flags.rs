//! How another SSTP server is named on the command line; the words are loadgen's.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::Args;

use super::iperf;

/// An SSTP server that the harness did not start, if one is given.
#[derive(Clone, Debug, Default, Args)]
pub struct SstpFlags {
    /// Also compares with this SSTP server, of whatever make, on whatever host. The client is `loadgen
    /// connect --tun` in the network that this is started in; the route to --sstp-inside is taken
    /// back at the end.
    #[arg(
        long,
        value_name = "HOST:PORT",
        requires_all = ["sstp_user", "sstp_password", "sstp_inside"],
        conflicts_with_all = ["list", "baseline"]
    )]
    pub sstp_server: Option<String>,

    /// Log in there with this user name.
    #[arg(long, value_name = "NAME", requires = "sstp_server")]
    pub sstp_user: Option<String>,

    /// And this password; other users of this host can see it in the list of processes.
    #[arg(long, value_name = "PASSWORD", requires = "sstp_server")]
    pub sstp_password: Option<String>,

    /// Where an iperf3 server listens that is reached through the tunnel alone; port 5201 unless given.
    #[arg(long, value_name = "ADDR[:PORT]", requires = "sstp_server", value_parser = inside)]
    pub sstp_inside: Option<SocketAddr>,

    /// Trust the certificate authorities in this file instead of the system's.
    #[arg(
        long,
        value_name = "FILE",
        requires = "sstp_server",
        conflicts_with = "sstp_insecure_accept_any_certificate"
    )]
    pub sstp_ca: Option<PathBuf>,

    /// Verify its certificate for this name instead of HOST.
    #[arg(long, value_name = "NAME", requires = "sstp_server")]
    pub sstp_server_name: Option<String>,

    /// Accept whatever certificate it shows.
    #[arg(long, requires = "sstp_server")]
    pub sstp_insecure_accept_any_certificate: bool,

    /// Its process, if it runs on this host: its CPU time and that of all it has started is counted. Of a
    /// server elsewhere rate and client are all there is to tell.
    #[arg(long, value_name = "PID", requires = "sstp_server")]
    pub sstp_pid: Option<u32>,
}

/// An address, and a port unless it is iperf3's own.
fn inside(text: &str) -> Result<SocketAddr, String> {
    let address = text.parse::<IpAddr>();
    let with_port = || text.parse::<SocketAddr>();
    let parsed = address.map(|address| SocketAddr::new(address, iperf::PORT));
    parsed
        .or_else(|_| with_port())
        .map_err(|_| format!("{text} is no address; 198.51.100.2 or [2001:db8::2]:5201 would be"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Flags {
        #[arg(long)]
        list: bool,
        #[arg(long)]
        baseline: Option<String>,
        #[command(flatten)]
        sstp: SstpFlags,
    }

    #[test]
    fn a_server_needs_a_user_a_password_and_an_address_behind_it() {
        let parse = |line: &str| Flags::try_parse_from(line.split(' '));
        let whole = "e2e --sstp-server vpn.example:443 --sstp-user u --sstp-password p --sstp-inside 10.0.0.1";
        let flags = parse(whole).unwrap();
        assert_eq!(
            flags.sstp.sstp_inside,
            Some("10.0.0.1:5201".parse().unwrap())
        );
        assert!(parse("e2e").unwrap().sstp.sstp_server.is_none());
        for missing in ["--sstp-user u ", "--sstp-password p "] {
            assert!(parse(&whole.replace(missing, "")).is_err(), "{missing}");
        }
        assert!(parse("e2e --sstp-pid 7").is_err());
        assert!(parse(&format!("{whole} --list")).is_err());
        assert!(parse(&format!("{whole} --baseline HEAD")).is_err());
    }

    #[test]
    fn the_address_may_have_a_port() {
        assert_eq!(
            inside("[2001:db8::2]:99"),
            Ok("[2001:db8::2]:99".parse().unwrap())
        );
        assert_eq!(
            inside("2001:db8::2"),
            Ok("[2001:db8::2]:5201".parse().unwrap())
        );
        assert!(inside("vpn.example").unwrap_err().contains("no address"));
    }
}
