//! What a client changes of this host beside its own interface, and how that is undone: a route to the
//! server that stays outside the tunnel, and the resolver.
//!
//! Addresses of the interface and routes through it go with it, whatever becomes of this process. The
//! route to the server does not: it is taken back at the end, and one that was there before is let be.
//! Only SIGKILL leaves it behind, and then it does no harm but to be there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Command;

use datapath::session::event::Addresses;
use futures_util::TryStreamExt as _;
use ipnet::IpNet;
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use rtnetlink::{Handle, RouteMessageBuilder};

use crate::tun::{self, Error, Interface};

/// Everything, as two halves: they win over the default route without touching it.
const HALVES_V4: [&str; 2] = ["0.0.0.0/1", "128.0.0.0/1"];
const HALVES_V6: [&str; 2] = ["::/1", "8000::/1"];

/// The kernel's answer to a route that is there already.
const EEXIST: i32 = 17;

/// What is wanted of this host.
#[derive(Clone, Debug)]
pub(super) struct Wishes {
    /// Networks behind the tunnel.
    pub(super) routes: Vec<IpNet>,
    /// Everything goes through it, but the connection to this address: the server, or the proxy.
    pub(super) default_route: Option<IpAddr>,
    /// The tunnel's DNS servers are asked.
    pub(super) dns: bool,
}

/// This host as a client.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) interface: Interface,
    wishes: Wishes,
    /// What the interface has now.
    addresses: Option<Addresses>,
    /// The route to the server, if it is ours.
    kept_outside: Option<RouteMessage>,
    resolver_changed: bool,
}

impl Host {
    pub(super) const fn new(interface: Interface, wishes: Wishes) -> Self {
        Self {
            interface,
            wishes,
            addresses: None,
            kept_outside: None,
            resolver_changed: false,
        }
    }

    /// Gives the host what the session brought; what a session before it brought is replaced if it
    /// differs. Returns what is worth telling, in lines.
    pub(super) fn apply(&mut self, addresses: &Addresses) -> Result<String, Error> {
        if self.addresses.as_ref() == Some(addresses) {
            return Ok(String::new());
        }
        let mut told = String::new();
        let routes = self.routes(addresses, &mut told)?;
        if self.addresses.is_some() {
            tun::with_netlink(async |netlink| self.interface.clear(&netlink).await)?;
        }
        self.interface.configure(addresses, &routes)?;
        self.addresses = Some(*addresses);
        if self.wishes.dns {
            told += &self.set_resolver(addresses);
        }
        Ok(told)
    }

    /// Every route that is to lead into the tunnel. The one to the server is set first, so that there
    /// is no moment in which the tunnel would carry itself.
    fn routes(&mut self, addresses: &Addresses, told: &mut String) -> Result<Vec<IpNet>, Error> {
        let mut routes = self.wishes.routes.clone();
        let Some(server) = self.wishes.default_route else {
            return Ok(routes);
        };
        if self.kept_outside.is_none() {
            self.kept_outside =
                tun::with_netlink(async |netlink| keep_outside(&netlink, server).await)?;
        }
        if addresses.ipv4.is_some() {
            routes.extend(
                HALVES_V4
                    .iter()
                    .filter_map(|half| half.parse::<IpNet>().ok()),
            );
        } else {
            *told += "  default      IPv4 stays outside: the tunnel has none\n";
        }
        if addresses.ipv6_ids.is_some() {
            routes.extend(
                HALVES_V6
                    .iter()
                    .filter_map(|half| half.parse::<IpNet>().ok()),
            );
        } else {
            *told += "  default      IPv6 stays outside: the tunnel has none\n";
        }
        Ok(routes)
    }

    /// Has systemd-resolved ask the tunnel's servers, or says why not and what to do.
    fn set_resolver(&mut self, addresses: &Addresses) -> String {
        let servers: Vec<String> = addresses
            .dns
            .iter()
            .flatten()
            .map(ToString::to_string)
            .collect();
        if servers.is_empty() {
            return "  DNS          the server named none; the resolver is as it was\n".to_owned();
        }
        let name = self.interface.name().to_owned();
        let mut set_servers = vec!["dns", &name];
        set_servers.extend(servers.iter().map(String::as_str));
        // Without a domain of its own the interface is asked for everything only if it has the default
        // route; `~.` says so in so many words.
        let result = resolvectl(&set_servers).and_then(|()| {
            self.resolver_changed = true;
            if self.wishes.default_route.is_some() {
                resolvectl(&["domain", &name, "~."])
            } else {
                Ok(())
            }
        });
        match result {
            Ok(()) => format!("  DNS          {} set for {name}\n", servers.join(" and ")),
            Err(why) => format!(
                "  DNS          not set: {why}\n               \
                 put this into /etc/resolv.conf yourself, and take it out again:\n{}",
                servers
                    .iter()
                    .map(|server| format!("               nameserver {server}\n"))
                    .collect::<String>()
            ),
        }
    }

    /// Takes everything back. Returns what could not be, in lines.
    pub(super) fn undo(&mut self) -> String {
        let mut told = String::new();
        if std::mem::take(&mut self.resolver_changed)
            && let Err(why) = resolvectl(&["revert", self.interface.name()])
        {
            // It forgets an interface that is gone.
            told += &format!(
                "the resolver was not put back ({why}); it will be when the interface goes\n"
            );
        }
        if let Some(route) = self.kept_outside.take() {
            let result = tun::with_netlink(async |netlink| {
                let delete = netlink.route().del(route.clone()).execute();
                delete.await.map_err(Error::Kernel)
            });
            if let Err(why) = result {
                told += &format!("the route to the server could not be taken back: {why}\n");
            }
        }
        told
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // On every way out, an error's included; whoever undid it before finds nothing here.
        eprint!("{}", self.undo());
    }
}

/// Has the way to `server` stay what it is now, whatever wider route comes. `None` if nothing needs to
/// be done for that: it is this host, or there is such a route already.
async fn keep_outside(netlink: &Handle, server: IpAddr) -> Result<Option<RouteMessage>, Error> {
    let question = match server {
        IpAddr::V4(server) => RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(server, 32)
            .build(),
        IpAddr::V6(server) => RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(server, 128)
            .build(),
    };
    let mut answers = Box::pin(netlink.route().get(question).execute());
    let now = answers.try_next().await.map_err(Error::Kernel)?;
    let Some(now) = now.filter(|now| now.header.kind == RouteType::Unicast) else {
        return Ok(None);
    };
    let mut index = None;
    let mut gateway = None;
    for attribute in now.attributes {
        match attribute {
            RouteAttribute::Oif(oif) => index = Some(oif),
            RouteAttribute::Gateway(address) => gateway = Some(address),
            _ => {}
        }
    }
    let Some(index) = index else {
        return Ok(None);
    };
    let route = match server {
        IpAddr::V4(server) => {
            let mut route = RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(server, 32)
                .output_interface(index);
            if let Some(RouteAddress::Inet(gateway)) = gateway {
                route = route.gateway(gateway);
            }
            route.build()
        }
        IpAddr::V6(server) => {
            let mut route = RouteMessageBuilder::<Ipv6Addr>::new()
                .destination_prefix(server, 128)
                .output_interface(index);
            if let Some(RouteAddress::Inet6(gateway)) = gateway {
                route = route.gateway(gateway);
            }
            route.build()
        }
    };
    match netlink.route().add(route.clone()).execute().await {
        Ok(()) => Ok(Some(route)),
        Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -EEXIST => Ok(None),
        Err(error) => Err(Error::Kernel(error)),
    }
}

fn resolvectl(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("resolvectl")
        .args(arguments)
        .output()
        .map_err(|error| format!("resolvectl (systemd-resolved): {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    let why = errors.lines().next().unwrap_or("it failed without a word");
    Err(format!("resolvectl {}: {why}", arguments.join(" ")))
}
