//! ocserv, with openconnect as its client: TLS over TCP with AES-128-GCM, no DTLS.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::super::gateway::{PASSWORD, USER};
use super::super::process::{self, Workspace};
use super::super::topology::{GATEWAY, INSIDE_NETWORK, Topology};
use super::MTU;
use super::tunnel::{Cpus, Tunnel, wait_until_it_carries};
use crate::e2e::pki::Pki;

const WHAT: &str = "AnyConnect over TLS over TCP, AES-128-GCM, no DTLS; openconnect";

pub(super) fn start(workspace: &Workspace, topology: &Topology) -> io::Result<Option<Tunnel>> {
    let programs = ["ocserv", "ocpasswd", "openconnect"].map(process::find);
    let [Some(ocserv), Some(ocpasswd), Some(openconnect)] = programs else {
        return Ok(None);
    };
    let directory = workspace.directory.join("ocserv");
    fs::create_dir_all(&directory)?;
    // Its worker gives up root.
    for path in [workspace.directory.as_path(), &directory] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    }
    let pki = Pki::new()?;
    fs::write(directory.join("ca.pem"), pki.ca())?;
    pki.issue(&directory, "server", &GATEWAY.to_string())?;
    let path = directory.to_string_lossy().into_owned();
    password_file(&ocpasswd, &path)?;
    fs::write(directory.join("ocserv.conf"), server_config(&path))?;
    let script = directory.join("script");
    fs::write(&script, CLIENT_SCRIPT.replace("NETWORK", INSIDE_NETWORK))?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;

    let config = format!("{path}/ocserv.conf");
    let arguments = ["--foreground", "--log-stderr", "--config", &config];
    let (first, last) = (workspace.cpus.first(), workspace.cpus.last());
    let gateway = Some(topology.gateway.id());
    let mut server = workspace.start(
        "ocserv-server",
        gateway,
        first.copied(),
        &ocserv,
        &arguments,
    )?;
    server.line("listening")?;
    let line = format!(
        "echo {PASSWORD} | exec {} --user={USER} --passwd-on-stdin --no-dtls --non-inter \
         --cafile={path}/ca.pem --interface=ocserv0 --script={path}/script --mtu={LINK_MTU} \
         --base-mtu=1500 https://{GATEWAY}:4443",
        openconnect.display()
    );
    let host = Some(topology.client.id());
    let arguments = ["-c", &line];
    let client = workspace.start(
        "openconnect",
        host,
        last.copied(),
        Path::new("sh"),
        &arguments,
    )?;
    let cpus = Cpus::of(&server, &client);
    let mut running = vec![server, client];
    wait_until_it_carries(topology, "ocserv0", &mut running)?;
    Ok(Some(Tunnel::new("ocserv", WHAT, "ocserv0", cpus, running)))
}

/// It takes 28 bytes off for a header of UDP that there is not; its device then has the MTU of the others.
const LINK_MTU: u32 = MTU + 28;

/// What openconnect calls when the tunnel stands.
const CLIENT_SCRIPT: &str = "#!/bin/sh
[ \"$reason\" = connect ] || exit 0
ip link set dev \"$TUNDEV\" up mtu 1400
ip addr add \"$INTERNAL_IP4_ADDRESS/32\" dev \"$TUNDEV\"
ip route replace NETWORK dev \"$TUNDEV\"
";

fn password_file(ocpasswd: &Path, directory: &str) -> io::Result<()> {
    let program = ocpasswd.display();
    let line =
        format!("printf '{PASSWORD}\\n{PASSWORD}\\n' | {program} -c {directory}/passwd {USER}");
    process::run(std::process::Command::new("sh").args(["-c", &line])).map(|_| ())
}

fn server_config(directory: &str) -> String {
    format!(
        "auth = \"plain[passwd={directory}/passwd]\"\ntcp-port = 4443\nlisten-host = {GATEWAY}\n\
         run-as-user = nobody\nrun-as-group = daemon\nsocket-file = {directory}/socket\n\
         server-cert = {directory}/server.pem\nserver-key = {directory}/server-key.pem\n\
         isolate-workers = false\nmax-clients = 16\nmax-same-clients = 4\nkeepalive = 300\n\
         dpd = 300\nmobile-dpd = 300\ntry-mtu-discovery = false\ncompression = false\n\
         tls-priorities = \"NORMAL:-CIPHER-ALL:+AES-128-GCM\"\nauth-timeout = 240\n\
         use-occtl = false\npid-file = {directory}/pid\ndevice = gwoc\npredictable-ips = true\n\
         ipv4-network = 10.89.0.0\nipv4-netmask = 255.255.255.0\nroute = {INSIDE_NETWORK}\n\
         mtu = {LINK_MTU}\ncisco-client-compat = true\nrekey-time = 172800\nrekey-method = ssl\n"
    )
}
