//! This host as the client: a TUN interface that carries the tunnel's addresses and routes.
//!
//! The interface is made before the session and goes with this process. Addresses and routes are set
//! when the server has said which; everything the kernel is asked to do is named if it refuses.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;

use datapath::ip::offload::merge::Offloads;
use datapath::session::event::Addresses;
use datapath::sys::tun::{self, TunConfig, TunError};
use futures_util::TryStreamExt as _;
use ipnet::IpNet;
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};

/// Why this host is no client.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{0}")]
    Tun(#[from] TunError),
    #[error("cannot speak to the kernel (netlink): {0}")]
    Netlink(io::Error),
    #[error("cannot give {device} the address {address}: {error}")]
    Address {
        device: String,
        address: IpAddr,
        error: rtnetlink::Error,
    },
    #[error("the kernel refuses (netlink): {0}")]
    Kernel(rtnetlink::Error),
    #[error("cannot route {network} to {device}: {error}")]
    Route {
        device: String,
        network: IpNet,
        error: rtnetlink::Error,
    },
}

/// The interface, as long as its queue is open.
#[derive(Debug)]
pub(crate) struct Interface {
    name: String,
    index: u32,
    /// Which superpackets it takes; `Some`: packets have a virtio-net header.
    pub(crate) offloads: Option<Offloads>,
}

/// Makes the interface; the second is its queue.
pub(crate) fn open(name: &str, mtu: u16, has_offload: bool) -> Result<(Interface, OwnedFd), Error> {
    let mut device = tun::create(&TunConfig {
        name: Some(name.to_owned()),
        mtu,
        offload: has_offload,
        ..TunConfig::default()
    })?;
    let queue = device
        .queues
        .pop()
        .ok_or(TunError::Config("the device has no queue"))?;
    let interface = Interface {
        name: device.name,
        index: device.index,
        offloads: has_offload.then_some(Offloads {
            tcp: true,
            udp: device.udp_offload,
        }),
    };
    Ok((interface, queue))
}

/// Speaks to the kernel as long as `work` does.
pub(crate) fn with_netlink<T>(
    work: impl AsyncFnOnce(Handle) -> Result<T, Error>,
) -> Result<T, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(Error::Netlink)?;
    runtime.block_on(async {
        let (connection, netlink, _) = rtnetlink::new_connection().map_err(Error::Netlink)?;
        let connection = tokio::spawn(connection);
        let result = work(netlink).await;
        connection.abort();
        result
    })
}

impl Interface {
    /// Gives it the addresses of the session, and the routes.
    pub(crate) fn configure(&self, addresses: &Addresses, routes: &[IpNet]) -> Result<(), Error> {
        with_netlink(async |netlink| self.set(&netlink, addresses, routes).await)
    }

    /// What it is called.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Takes its addresses and the routes through it away, by setting it down and up.
    pub(crate) async fn clear(&self, netlink: &Handle) -> Result<(), Error> {
        let mut addresses = netlink
            .address()
            .get()
            .set_link_index_filter(self.index)
            .execute();
        while let Some(address) = addresses.try_next().await.map_err(Error::Kernel)? {
            let delete = netlink.address().del(address).execute();
            delete.await.map_err(Error::Kernel)?;
        }
        for link in [
            LinkUnspec::new_with_index(self.index).down().build(),
            LinkUnspec::new_with_index(self.index).up().build(),
        ] {
            let set = netlink.link().set(link).execute();
            set.await.map_err(Error::Kernel)?;
        }
        Ok(())
    }

    async fn set(
        &self,
        netlink: &Handle,
        addresses: &Addresses,
        routes: &[IpNet],
    ) -> Result<(), Error> {
        let v4 = addresses.ipv4.map(|v4| (IpAddr::V4(v4), 32));
        let link_local = addresses.ipv6_ids.map(|(own, _)| {
            let address = Ipv6Addr::from((0xfe80_u128 << 112) | u128::from(own));
            (IpAddr::V6(address), 64)
        });
        for (address, prefix_len) in v4.into_iter().chain(link_local) {
            let add = netlink.address().add(self.index, address, prefix_len);
            add.execute().await.map_err(|error| Error::Address {
                device: self.name.clone(),
                address,
                error,
            })?;
        }
        let gateway = addresses.ipv4_gateway.filter(|v4| !v4.is_unspecified());
        let gateway = gateway.map(|v4| IpNet::from(IpAddr::V4(v4)));
        for &network in gateway.iter().chain(routes) {
            let route = match network {
                IpNet::V4(net) => RouteMessageBuilder::<Ipv4Addr>::new()
                    .destination_prefix(net.network(), net.prefix_len())
                    .output_interface(self.index)
                    .build(),
                IpNet::V6(net) => RouteMessageBuilder::<Ipv6Addr>::new()
                    .destination_prefix(net.network(), net.prefix_len())
                    .output_interface(self.index)
                    .build(),
            };
            let add = netlink.route().add(route);
            add.execute().await.map_err(|error| Error::Route {
                device: self.name.clone(),
                network,
                error,
            })?;
        }
        Ok(())
    }
}
