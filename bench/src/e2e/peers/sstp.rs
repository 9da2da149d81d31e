//! The gateway, and `loadgen connect` as its client.

use std::io;

use super::super::gateway::{self, Gateway};
use super::super::process::Workspace;
use super::super::topology::{INSIDE_NETWORK, Topology};
use super::MTU;
use super::tunnel::{Cpus, Server, Tunnel, wait_until_it_carries};

const WHAT: &str = "SSTP over TLS 1.3 over TCP, AES-128-GCM, one shard; loadgen connect --tun";

pub(super) fn start(workspace: &Workspace, topology: &Topology) -> io::Result<Tunnel> {
    let plan = gateway::Plan {
        name: "sstp-gw",
        listen: "192.0.2.1:443",
        pool: "10.77.0.0/16",
        tun: "gw0",
        shards: 1,
        sessions: 100,
        network: Some(topology.gateway.id()),
    };
    let gateway = Gateway::start(workspace, &plan)?;
    let mtu = MTU.to_string();
    let arguments = [
        "connect",
        "192.0.2.1:443",
        "--insecure-accept-any-certificate",
        "--user",
        gateway::USER,
        "--password",
        gateway::PASSWORD,
        "--no-ipv6",
        "--tun",
        "sstp0",
        "--mtu",
        &mtu,
        "--route",
        INSIDE_NETWORK,
        "--hold",
        "3600",
    ];
    let host = Some(topology.client.id());
    let cpu = workspace.cpus.last().copied();
    let loadgen = gateway::binary("loadgen")?;
    let client = workspace.start("loadgen", host, cpu, &loadgen, &arguments)?;
    let cpus = Cpus {
        server: Server::Process(gateway.meter.clone()),
        client: client.meter(),
    };
    let mut running = vec![client];
    wait_until_it_carries(topology, "sstp0", &mut running)?;
    let tunnel = Tunnel::new("sstp-gw", WHAT, "sstp0", cpus, running);
    Ok(tunnel.with_gateway(gateway))
}
