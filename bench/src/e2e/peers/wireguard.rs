//! wireguard-go: WireGuard in user space, ChaCha20-Poly1305 over UDP. There is no other cipher to choose.

use std::io;
use std::path::Path;

use super::super::process::{self, Process, Workspace};
use super::super::topology::{GATEWAY, INSIDE_NETWORK, Topology};
use super::MTU;
use super::tunnel::{Cpus, Tunnel, wait_until_it_carries};

const PORT: &str = "51820";

const WHAT: &str = "WireGuard over UDP, ChaCha20-Poly1305, in user space; wireguard-go";

/// One end.
struct End {
    device: &'static str,
    address: &'static str,
    private: String,
    public: String,
}

impl End {
    fn new(wg: &Path, device: &'static str, address: &'static str) -> io::Result<Self> {
        let wg = wg.display();
        let keys = format!("key=$({wg} genkey) && echo \"$key\" && echo \"$key\" | {wg} pubkey");
        let said = process::run(std::process::Command::new("sh").args(["-c", &keys]))?;
        let (private, public) = parse_keys(&said).ok_or_else(|| {
            io::Error::other(format!("`wg genkey` printed no two keys: {said:?}"))
        })?;
        Ok(Self {
            device,
            address,
            private,
            public,
        })
    }

    /// Starts the daemon and tells it all. It keeps its socket under /run, of which it is given one of its own, so
    /// that nothing is left there.
    fn script(&self, daemon: &Path, wg: &Path, own: &str, peer: &Self, theirs: &str) -> String {
        let (daemon, wg) = (daemon.display(), wg.display());
        let Self {
            device,
            address,
            private,
            ..
        } = self;
        let public = &peer.public;
        format!(
            "mount -t tmpfs none /run && mkdir /run/wireguard && (umask 077; echo {private} > /run/key) || exit 1
             tell() {{
                 for i in $(seq 200); do [ -S /run/wireguard/{device}.sock ] && break; sleep 0.05; done
                 ip link set {device} mtu {MTU} && ip addr add {address}/24 dev {device} &&
                 {wg} set {device} {own} private-key /run/key peer {public} {theirs} &&
                 ip link set {device} up && echo it stands
             }}
             tell & exec {daemon} -f {device}"
        )
    }

    fn start(
        &self,
        workspace: &Workspace,
        name: &str,
        network: u32,
        cpu: Option<usize>,
        script: &str,
    ) -> io::Result<Process> {
        let arguments = ["--mount", "sh", "-c", script];
        let unshare = Path::new("unshare");
        let mut process = workspace.start(name, Some(network), cpu, unshare, &arguments)?;
        process.line("it stands")?;
        Ok(process)
    }
}

/// A line each, both 32 bytes in base64.
fn parse_keys(said: &str) -> Option<(String, String)> {
    let mut lines = said.lines().map(str::trim);
    let keys = (lines.next()?.to_owned(), lines.next()?.to_owned());
    let is_key = |key: &str| key.len() == 44 && key.ends_with('=');
    (is_key(&keys.0) && is_key(&keys.1)).then_some(keys)
}

pub(super) fn start(workspace: &Workspace, topology: &Topology) -> io::Result<Option<Tunnel>> {
    let programs = ["wireguard-go", "wg"].map(process::find);
    let [Some(daemon), Some(wg)] = programs else {
        return Ok(None);
    };
    let server = End::new(&wg, "gwwg0", "10.90.0.1")?;
    let client = End::new(&wg, "wireguard-go0", "10.90.0.2")?;
    let to_client = format!("allowed-ips {}/32", client.address);
    // The client's port comes with its first packet.
    let listens = format!("listen-port {PORT}");
    let server_script = server.script(&daemon, &wg, &listens, &client, &to_client);
    let to_server = format!(
        "endpoint {GATEWAY}:{PORT} allowed-ips {}/32,{INSIDE_NETWORK}",
        server.address
    );
    let client_script = client.script(&daemon, &wg, "", &server, &to_server);
    let (first, last) = (workspace.cpus.first(), workspace.cpus.last());
    let (gateway, host) = (topology.gateway.id(), topology.client.id());
    let served = server.start(
        workspace,
        "wireguard-server",
        gateway,
        first.copied(),
        &server_script,
    )?;
    let connected = client.start(
        workspace,
        "wireguard-client",
        host,
        last.copied(),
        &client_script,
    )?;
    let cpus = Cpus::of(&served, &connected);
    let mut running = vec![served, connected];
    wait_until_it_carries(topology, "wireguard-go0", &mut running)?;
    Ok(Some(Tunnel::new(
        "wireguard-go",
        WHAT,
        "wireguard-go0",
        cpus,
        running,
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_keys_are_two_keys() {
        let key = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";
        let parsed = parse_keys(&format!("{key}\n{key}\n")).unwrap();
        assert_eq!(parsed, (key.to_owned(), key.to_owned()));
        assert_eq!(parse_keys(&format!("{key}\n")), None);
        assert_eq!(parse_keys("wg: command not found\nno\n"), None);
    }
}
