//! OpenVPN in user space: TCP, TLS with AES-128-GCM for the data, no kernel offload.

use std::fs;
use std::io;

use super::super::process::{self, Workspace};
use super::super::topology::{GATEWAY, Topology};
use super::MTU;
use super::tunnel::{Cpus, Tunnel, wait_until_it_carries};
use crate::e2e::pki::Pki;

const WHAT: &str = "OpenVPN over TCP, AES-128-GCM, data channel in user space; openvpn";

/// What both ends are told.
fn common() -> String {
    format!(
        "dev-type tun\ntun-mtu {MTU}\ndisable-dco\ndata-ciphers AES-128-GCM\ncipher AES-128-GCM\n\
         auth SHA256\npersist-key\npersist-tun\nverb 3\nmssfix 0\nsocket-flags TCP_NODELAY\n\
         txqueuelen 1000\nca ca.pem\nscript-security 1\n"
    )
}

pub(super) fn start(workspace: &Workspace, topology: &Topology) -> io::Result<Option<Tunnel>> {
    let Some(program) = process::find("openvpn") else {
        return Ok(None);
    };
    let directory = workspace.directory.join("openvpn");
    fs::create_dir_all(&directory)?;
    let pki = Pki::new()?;
    fs::write(directory.join("ca.pem"), pki.ca())?;
    pki.issue(&directory, "server", &GATEWAY.to_string())?;
    pki.issue(&directory, "client", "client.example")?;
    let server = format!(
        "{}dev gwovpn0\nproto tcp-server\nlocal {GATEWAY}\nport 1194\nserver 10.88.0.0 255.255.255.0\n\
         topology subnet\ncert server.pem\nkey server-key.pem\ndh none\nkeepalive 10 60\n",
        common()
    );
    let client = format!(
        "{}dev openvpn0\nclient\nproto tcp-client\nremote {GATEWAY} 1194\nnobind\n\
         cert client.pem\nkey client-key.pem\nremote-cert-tls server\nroute-nopull\n",
        common()
    );
    fs::write(directory.join("server.conf"), server)?;
    fs::write(directory.join("client.conf"), client)?;
    let path = directory.to_string_lossy().into_owned();
    let arguments = |file| ["--cd", &path, "--config", file];
    let (first, last) = (workspace.cpus.first(), workspace.cpus.last());
    let mut server = workspace.start(
        "openvpn-server",
        Some(topology.gateway.id()),
        first.copied(),
        &program,
        &arguments("server.conf"),
    )?;
    server.line("Initialization Sequence Completed")?;
    let client = workspace.start(
        "openvpn-client",
        Some(topology.client.id()),
        last.copied(),
        &program,
        &arguments("client.conf"),
    )?;
    let cpus = Cpus::of(&server, &client);
    let mut running = vec![server, client];
    wait_until_it_carries(topology, "openvpn0", &mut running)?;
    Ok(Some(Tunnel::new(
        "openvpn", WHAT, "openvpn0", cpus, running,
    )))
}
