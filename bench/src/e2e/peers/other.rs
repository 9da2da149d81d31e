//! Any SSTP server that is up somewhere, with `loadgen connect` as its client, in the harness's own network.

use std::io;

use super::super::gateway;
use super::super::process::{self, Process, Workspace};
use super::MTU;
use super::flags::SstpFlags;
use super::tunnel::{Cpus, Server, Tunnel, wait_until};

/// The client's device.
const DEVICE: &str = "sstp-server0";

/// Connects to the server that `flags` name; `None` if they name none.
pub(super) fn start(workspace: &Workspace, flags: &SstpFlags) -> io::Result<Option<Tunnel>> {
    let (Some(server), Some(inside)) = (&flags.sstp_server, flags.sstp_inside) else {
        return Ok(None);
    };
    let arguments = arguments(flags, server);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let cpu = workspace.cpus.last().copied();
    let loadgen = gateway::binary("loadgen")?;
    let client = workspace.start("loadgen-other", None, cpu, &loadgen, &arguments)?;
    let cpus = Cpus {
        server: flags.sstp_pid.map_or(Server::Unknown, Server::Tree),
        client: client.meter(),
    };
    // Says so at once if there is no such process.
    cpus.read()?;
    let mut running = vec![client];
    let echo = ["-c1", "-W1", "-I", DEVICE, &inside.ip().to_string()].map(str::to_owned);
    wait_until(DEVICE, &mut running, || {
        process::run(std::process::Command::new("ping").args(&echo))
    })?;
    let what = what(
        server,
        &running.iter_mut().map(Process::said).collect::<String>(),
    );
    let tunnel = Tunnel::new("sstp-server", &what, DEVICE, cpus, running);
    Ok(Some(tunnel.elsewhere(inside)))
}

/// What loadgen said of the connection, and that it is not the others' path.
fn what(server: &str, said: &str) -> String {
    let tls = said
        .lines()
        .find_map(|line| line.trim().strip_prefix("TLS "));
    let tls = tls.map_or("TLS", str::trim);
    format!("{server}: SSTP over {tls} over TCP; loadgen connect --tun, a path of its own")
}

/// Of loadgen.
fn arguments(flags: &SstpFlags, server: &str) -> Vec<String> {
    let mut arguments = vec!["connect".to_owned(), server.to_owned()];
    let mut add = |flag: &str, value: Option<String>| {
        if let Some(value) = value {
            arguments.extend([flag.to_owned(), value]);
        }
    };
    add("--user", flags.sstp_user.clone());
    add("--password", flags.sstp_password.clone());
    let ca = flags.sstp_ca.as_ref();
    add("--ca", ca.map(|path| path.to_string_lossy().into_owned()));
    add("--server-name", flags.sstp_server_name.clone());
    add("--tun", Some(DEVICE.to_owned()));
    add("--mtu", Some(MTU.to_string()));
    let inside = flags.sstp_inside.map(|inside| inside.ip());
    let host = inside.map(|ip| format!("{ip}/{}", if ip.is_ipv4() { 32 } else { 128 }));
    add("--route", host);
    add("--hold", Some("3600".to_owned()));
    if inside.is_some_and(|ip| ip.is_ipv4()) {
        arguments.push("--no-ipv6".to_owned());
    }
    if flags.sstp_insecure_accept_any_certificate {
        arguments.push("--insecure-accept-any-certificate".to_owned());
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_is_told_as_loadgen_found_it() {
        let said = "session up in 9 ms\n  TLS          TLS 1.3, TLS13_AES_256_GCM_SHA384, X25519\n";
        let told = what("vpn.example:443", said);
        assert!(
            told.contains("over TLS 1.3, TLS13_AES_256_GCM_SHA384, X25519 over TCP"),
            "{told}"
        );
        assert!(what("h", "").starts_with("h: SSTP over TLS over TCP; "));
    }

    #[test]
    fn loadgen_is_told_what_was_said_here() {
        let flags = SstpFlags {
            sstp_user: Some("u".to_owned()),
            sstp_password: Some("p".to_owned()),
            sstp_inside: Some("198.51.100.2:99".parse().unwrap()),
            sstp_ca: Some("ca.pem".into()),
            ..SstpFlags::default()
        };
        assert_eq!(
            arguments(&flags, "vpn.example:443").join(" "),
            "connect vpn.example:443 --user u --password p --ca ca.pem --tun sstp-server0 --mtu 1400 \
             --route 198.51.100.2/32 --hold 3600 --no-ipv6"
        );
        let flags = SstpFlags {
            sstp_inside: Some("[2001:db8::2]:5201".parse().unwrap()),
            sstp_insecure_accept_any_certificate: true,
            ..SstpFlags::default()
        };
        let line = arguments(&flags, "h").join(" ");
        assert!(line.contains("--route 2001:db8::2/128"), "{line}");
        assert!(
            line.ends_with("--insecure-accept-any-certificate"),
            "{line}"
        );
    }
}
