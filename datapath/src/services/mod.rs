//! What a client asks of the gateway itself, inside the tunnel.
//!
//! ```text
//!  client                                       gateway
//!  DHCPINFORM  (UDP 68 → 67, broadcast)      → dhcp                  → DHCPACK: mask, DNS, routes
//!  Router Solicitation (ICMPv6 133)          → router_advertisement  → Router Advertisement
//!  nothing, 3 times at first, then 200-600 s → router_advertisement  → Router Advertisement
//!  Information-request (UDP 546 → 547)       → dhcpv6                → Reply: DNS, search list
//!  Neighbour Solicitation for the gateway    → neighbour             → Neighbour Advertisement
//!  Echo Request to fe80::<gateway>           → neighbour             → Echo Reply
//!  any other broadcast, multicast, link-local packet                 → discarded, told why
//! ```
//!
//! IPCP carries an address and two DNS servers, IPV6CP an identifier; all else a client learns here.
//! [`Services`] is one session's part, small, over a [`Profile`] that many sessions share. It sits
//! on the views and checksums of [`crate::ip`] and knows no other layer.
//!
//! It assigns nothing: leases (DHCPDISCOVER, DHCPREQUEST, DHCPv6 Solicit …) are discarded. It never
//! answers more than 5 (DHCP, DHCPv6) and 10 (the rest) requests a second after a burst of as many,
//! with one answer for one request and to this session's client only. Nothing link-local, and no
//! broadcast or multicast, ever leaves it towards the inside.
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

mod dhcp;

pub mod inform;

mod router_advertisement;

mod dhcpv6;

mod neighbour;

mod emit;

mod profile;

mod rate;

use core::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

pub use profile::{Profile, ProfileConfig, ProfileError};

use crate::ip::packet::{ICMPV6, Packet, Part, UDP, V4, V6};
use crate::ip::source::link_local;
use crate::output::{Entropy, Output};
use crate::time::{Duration, Instant};
use crate::wire::TooShort;
use rate::{Rate, after};

/// Answers to DHCP and DHCPv6 a second.
const LEASE_ANSWERS_PER_SECOND: u8 = 5;
/// Answers to all other requests a second.
const OTHER_ANSWERS_PER_SECOND: u8 = 10;
/// The longest packet that is ever built here.
const REPLY_LEN_MAX: usize = 1500;
/// What IPv6 lets every link carry (RFC 8200 §5), so no answer over it exceeds this.
const V6_REPLY_LEN_MAX: usize = 1280;

// RFC 4861 §6.2.4 allows 3 initial ones up to 16 s apart; 3 s is what peers do. §6.2.1 for the rest.
const INITIAL_ADVERTISEMENTS: u8 = 3;
const INITIAL_INTERVAL: Duration = Duration::from_secs(3);
const INTERVAL_MIN: Duration = Duration::from_secs(200);
const INTERVAL_SPREAD_MS: u32 = 400_000;

/// The addresses of an open IPCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4Service {
    /// The client's.
    pub client: Ipv4Addr,
    /// The gateway's on this link: source of answers, DHCP server identifier, router of all routes.
    pub gateway: Ipv4Addr,
}

/// The identifiers of an open IPV6CP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6Service {
    /// The session's own /64, from which the client makes addresses; `None`: link-local only.
    pub prefix: Option<Ipv6Addr>,
    /// The gateway's interface identifier: it answers from `fe80::<gateway_id>`.
    pub gateway_id: u64,
}

/// Whether a packet has reached its end here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handled {
    /// It was answered or discarded: forget it.
    Consumed,
    /// It is none of the services' business: an ordinary packet.
    Pass,
}

/// What became of a packet, or was done unasked; each is worth a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A packet was sent.
    Answered(Service),
    /// A packet was taken and not answered.
    Discarded(Discard),
}

/// What answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Service {
    /// DHCPINFORM, by DHCPACK.
    Dhcp,
    /// Router Solicitation, by Router Advertisement.
    Router,
    /// Nobody: a Router Advertisement whose time had come.
    Unsolicited,
    /// Information-request, by Reply.
    DhcpV6,
    /// Neighbour Solicitation, by Neighbour Advertisement.
    Neighbour,
    /// Echo Request to the gateway's link-local address, by Echo Reply.
    Echo,
}

/// Why a packet ended without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Discard {
    /// It breaks a rule of its protocol: length, checksum, hop limit, required field.
    Malformed,
    /// Broadcast or multicast nobody here listens to (NetBIOS, LLMNR, SSDP, mDNS, IGMP, MLD).
    Group,
    /// A client looking for others with its own address; silence means there are none
    /// (RFC 4862 §5.4).
    AddressDetection,
    /// A Router Advertisement or Redirect: the client is not the router (RFC 6104).
    RouterRole,
    /// A DHCP or DHCPv6 message that asks for more than information.
    Lease,
    /// Too many in too short a time.
    Rate,
    /// Anything else on the link: no such service, or its network protocol is not open.
    Unserved,
}

/// The services of one session.
#[derive(Clone, Debug)]
pub struct Services {
    profile: Arc<Profile>,
    ipv4: Option<Ipv4Service>,
    ipv6: Option<Ipv6>,
    next_advertisement: Option<Instant>,
    leases: Rate<LEASE_ANSWERS_PER_SECOND>,
    others: Rate<OTHER_ANSWERS_PER_SECOND>,
    mtu: u16,
    initial_left: u8,
}

/// As [`Ipv6Service`], in what is needed of it.
#[derive(Clone, Copy, Debug)]
struct Ipv6 {
    /// The upper half of the /64.
    prefix: Option<u64>,
    gateway_id: u64,
}

impl Ipv6 {
    fn gateway(self) -> Ipv6Addr {
        link_local(self.gateway_id)
    }

    fn prefix(self) -> Option<Ipv6Addr> {
        self.prefix
            .map(|upper| Ipv6Addr::from(u128::from(upper) << 64))
    }
}

impl Services {
    /// The services of a session on which nothing is open yet; `mtu` is the longest packet the
    /// client may send and be sent.
    #[must_use]
    pub fn new(profile: Arc<Profile>, mtu: u16) -> Self {
        Self {
            profile,
            ipv4: None,
            ipv6: None,
            next_advertisement: None,
            leases: Rate::default(),
            others: Rate::default(),
            mtu,
            initial_left: 0,
        }
    }

    /// IPCP has opened: DHCPINFORM is answered from now on.
    pub const fn open_ipv4(&mut self, addresses: Ipv4Service) {
        self.ipv4 = Some(addresses);
    }

    /// IPCP has closed.
    pub const fn close_ipv4(&mut self) {
        self.ipv4 = None;
    }

    /// IPV6CP has opened: sends the first Router Advertisement and answers from now on.
    pub fn open_ipv6(&mut self, now: Instant, ipv6: Ipv6Service, out: &mut impl Output<Event>) {
        self.ipv6 = Some(Ipv6 {
            prefix: ipv6.prefix.map(upper_half),
            gateway_id: ipv6.gateway_id,
        });
        self.initial_left = INITIAL_ADVERTISEMENTS.saturating_sub(1);
        self.next_advertisement = Some(after(now, INITIAL_INTERVAL));
        self.advertise(Ipv6Addr::from(ALL_NODES), Service::Unsolicited, out);
    }

    /// IPV6CP has closed.
    pub const fn close_ipv6(&mut self) {
        self.ipv6 = None;
        self.next_advertisement = None;
    }

    /// Answers from another profile from now on.
    pub fn change_profile(&mut self, profile: Arc<Profile>) {
        self.profile = profile;
    }

    /// Takes a packet of the client that has passed the source check. Meant for those marked
    /// `ip::source::To::Services`; any other is passed, unless it is DHCP sent to the gateway.
    pub fn handle_packet(
        &mut self,
        now: Instant,
        packet: &[u8],
        out: &mut impl Output<Event>,
    ) -> Handled {
        let result = match Packet::parse(packet) {
            Ok(Packet::V4(packet)) => self.handle_v4(now, &packet, out),
            Ok(Packet::V6(packet)) => self.handle_v6(now, &packet, out),
            Err(_) => Err(Discard::Malformed),
        };
        match result {
            Ok(handled) => handled,
            Err(discard) => {
                out.event(Event::Discarded(discard));
                Handled::Consumed
            }
        }
    }

    /// Sends a Router Advertisement if its time has come.
    pub fn handle_timeout(
        &mut self,
        now: Instant,
        entropy: &mut impl Entropy,
        out: &mut impl Output<Event>,
    ) {
        if self.next_advertisement.is_none_or(|at| at > now) {
            return;
        }
        self.advertise(Ipv6Addr::from(ALL_NODES), Service::Unsolicited, out);
        self.initial_left = self.initial_left.saturating_sub(1);
        let interval = if self.initial_left > 0 {
            INITIAL_INTERVAL
        } else {
            let spread_ms = u32::from_be_bytes(entropy.array())
                .checked_rem(INTERVAL_SPREAD_MS)
                .unwrap_or(0);
            INTERVAL_MIN.saturating_add(Duration::from_millis(u64::from(spread_ms)))
        };
        self.next_advertisement = Some(after(now, interval));
    }

    /// When [`Services::handle_timeout`] is to be called next.
    #[must_use]
    pub const fn next_timeout(&self) -> Option<Instant> {
        self.next_advertisement
    }

    fn handle_v4(
        &mut self,
        now: Instant,
        packet: &V4<'_>,
        out: &mut impl Output<Event>,
    ) -> Result<Handled, Discard> {
        let destination = packet.destination();
        let is_gateway = self.ipv4.is_some_and(|ipv4| ipv4.gateway == destination);
        let is_group = destination.is_broadcast()
            || destination.is_multicast()
            || self.ipv4.is_some_and(|ipv4| {
                self.profile.subnet_broadcast(ipv4.client) == Some(destination)
            });
        if !is_gateway && !is_group {
            return Ok(Handled::Pass);
        }
        if destination.is_multicast() || !dhcp::is_to_server(packet) {
            return if is_group {
                Err(Discard::Group)
            } else {
                Ok(Handled::Pass)
            };
        }
        let ipv4 = self.ipv4.ok_or(Discard::Unserved)?;
        let inform = dhcp::parse(packet, ipv4.client)?;
        self.leases.take(now)?;
        let mut room = [0; REPLY_LEN_MAX];
        let reply = dhcp::emit(&inform, ipv4, &self.profile, self.mtu, &mut room);
        answer(Service::Dhcp, reply, out)
    }

    fn handle_v6(
        &mut self,
        now: Instant,
        packet: &V6<'_>,
        out: &mut impl Output<Event>,
    ) -> Result<Handled, Discard> {
        let (source, destination) = (packet.source(), packet.destination());
        let is_on_link = destination.is_multicast()
            || destination.is_unicast_link_local()
            || source.is_unicast_link_local()
            || source.is_unspecified();
        if !is_on_link {
            return Ok(Handled::Pass);
        }
        let ipv6 = self.ipv6.ok_or(Discard::Unserved)?;
        match packet.next_header() {
            ICMPV6 => self.handle_icmpv6(now, packet, ipv6, out),
            UDP if dhcpv6::is_to_server(packet) => {
                let request = dhcpv6::parse(packet, &self.profile)?;
                self.leases.take(now)?;
                let mut room = [0; V6_REPLY_LEN_MAX];
                let reply =
                    dhcpv6::emit(&request, (ipv6.gateway(), source), &self.profile, &mut room);
                answer(Service::DhcpV6, reply, out)
            }
            // MLD comes behind a hop-by-hop header (RFC 3810 §5): of groups there are none here.
            _ if destination.is_multicast() => Err(Discard::Group),
            _ => Err(Discard::Unserved),
        }
    }

    fn handle_icmpv6(
        &mut self,
        now: Instant,
        packet: &V6<'_>,
        ipv6: Ipv6,
        out: &mut impl Output<Event>,
    ) -> Result<Handled, Discard> {
        let gateway = ipv6.gateway();
        let mut room = [0; V6_REPLY_LEN_MAX];
        match packet.payload().first() {
            Some(&neighbour::ROUTER_SOLICITATION) => {
                neighbour::check_solicitation(packet, neighbour::ROUTER_SOLICITATION_LEN)?;
                self.others.take(now)?;
                let source = packet.source();
                let to = if source.is_unspecified() {
                    Ipv6Addr::from(ALL_NODES)
                } else {
                    source
                };
                self.advertise(to, Service::Router, out);
                Ok(Handled::Consumed)
            }
            Some(&neighbour::NEIGHBOUR_SOLICITATION) => {
                let asked = neighbour::parse_solicitation(packet, gateway)?;
                self.others.take(now)?;
                let reply = neighbour::emit_advertisement(asked, gateway, &mut room);
                answer(Service::Neighbour, reply, out)
            }
            Some(&neighbour::ECHO_REQUEST) if packet.destination() == gateway => {
                let to = neighbour::check_echo(packet)?;
                self.others.take(now)?;
                let reply = neighbour::emit_echo_reply(packet, gateway, to, &mut room);
                answer(Service::Echo, reply, out)
            }
            Some(&(neighbour::ROUTER_ADVERTISEMENT | neighbour::REDIRECT)) => {
                Err(Discard::RouterRole)
            }
            Some(_) if packet.destination().is_multicast() => Err(Discard::Group),
            Some(_) => Err(Discard::Unserved),
            None => Err(Discard::Malformed),
        }
    }

    fn advertise(&self, to: Ipv6Addr, service: Service, out: &mut impl Output<Event>) {
        let Some(ipv6) = self.ipv6 else {
            return;
        };
        let mut room = [0; V6_REPLY_LEN_MAX];
        // `Profile` has refused what would not fit.
        if let Ok(reply) = router_advertisement::emit(&self.profile, ipv6, self.mtu, to, &mut room)
        {
            out.send(reply);
            out.event(Event::Answered(service));
        }
    }
}

/// `ff02::1`, all nodes (RFC 4291 §2.7.1).
const ALL_NODES: u128 = 0xff02 << 112 | 1;

fn answer(
    service: Service,
    reply: Result<&[u8], TooShort>,
    out: &mut impl Output<Event>,
) -> Result<Handled, Discard> {
    // An answer longer than any that is owed (an echo of more than 1,280 bytes) is not given.
    out.send(reply.map_err(|TooShort { .. }| Discard::Unserved)?);
    out.event(Event::Answered(service));
    Ok(Handled::Consumed)
}

/// Where a UDP datagram is bound for, if the packet holds its header.
fn udp_destination_port(payload: &[u8], part: Part) -> Option<u16> {
    let ports = payload.get(2..4)?.first_chunk()?;
    (part == Part::Whole).then(|| u16::from_be_bytes(*ports))
}

fn upper_half(address: Ipv6Addr) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = address.octets();
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_pays_little() {
        let shared = size_of::<Arc<Profile>>();
        let own = size_of::<Services>() - shared;
        assert!(own <= 128, "{own} bytes a session");
    }
}
