//! The gateway, and `loadgen connect` as its client.

use std::io;

use super::super::gateway::{self, Gateway};
use super::super::process::Workspace;
use super::super::topology::{INSIDE_NETWORK, Topology};
use super::{MTU, Tunnel, wait_until_it_carries};

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
    let meter = gateway.meter.clone();
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
    let mut running = vec![client];
    wait_until_it_carries(topology, "sstp", &mut running)?;
    Ok(Tunnel {
        name: "sstp",
        meter,
        _running: running,
        gateway: Some(gateway),
        up: Vec::new(),
        down: Vec::new(),
    })
}
