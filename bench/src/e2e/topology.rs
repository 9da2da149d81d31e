//! Three hosts in a row, each a network namespace held by a sleeping process, and gone with it.
//!
//! ```text
//!  client ── 192.0.2.0/24 ── gateway ── 198.51.100.0/24 ── inside
//!       .2     veth        .1       .1      veth         .2
//! ```

use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use super::process::{self, Process, Workspace};

pub(super) const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub(super) const INSIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
pub(super) const INSIDE_NETWORK: &str = "198.51.100.0/24";

/// The hosts.
#[derive(Debug)]
pub(super) struct Topology {
    pub(super) client: Host,
    pub(super) gateway: Host,
    pub(super) inside: Host,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Host(Process);

impl Topology {
    pub(super) fn new(workspace: &Workspace) -> io::Result<Self> {
        let topology = Self {
            client: Host::new(workspace, "client-host")?,
            gateway: Host::new(workspace, "gateway-host")?,
            inside: Host::new(workspace, "inside-host")?,
        };
        let (client, inside) = (topology.client.id(), topology.inside.id());
        topology.gateway.shell(&format!(
            "ip link add outside0 type veth peer name eth0 netns {client} &&
             ip link add inside0 type veth peer name eth0 netns {inside} &&
             ip addr add {GATEWAY}/24 dev outside0 && ip link set outside0 up &&
             ip addr add 198.51.100.1/24 dev inside0 && ip link set inside0 up &&
             echo 1 > /proc/sys/net/ipv4/ip_forward"
        ))?;
        topology
            .client
            .shell("ip addr add 192.0.2.2/24 dev eth0 && ip link set eth0 up")?;
        topology.inside.shell(&format!(
            "ip addr add {INSIDE}/24 dev eth0 && ip link set eth0 up &&
             ip route add default via 198.51.100.1"
        ))?;
        Ok(topology)
    }
}

impl Host {
    fn new(workspace: &Workspace, name: &str) -> io::Result<Self> {
        let script = "ip link set lo up && echo it stands && exec sleep infinity";
        let arguments = ["--net", "sh", "-c", script];
        let mut holder = workspace.start(name, None, None, Path::new("unshare"), &arguments)?;
        holder.line("it stands")?;
        Ok(Self(holder))
    }

    /// The process that holds its network.
    pub(super) fn id(&self) -> u32 {
        self.0.id()
    }

    /// What `script` prints there.
    pub(super) fn shell(&self, script: &str) -> io::Result<String> {
        self.command(&["sh", "-c", script])
    }

    fn command(&self, arguments: &[&str]) -> io::Result<String> {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.id()));
        process::run(command.arg("--").args(arguments))
    }
}
