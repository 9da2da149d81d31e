//! What IPCP negotiates: addresses and name servers (RFC 1332, RFC 1877).
//!
//! | option | authenticator: of the peer | authenticatee: of ours |
//! |---|---|---|
//! | 3 IP-Address | Nak towards the assigned one; demanded once if missing | sent, from 0.0.0.0 |
//! | 129, 131 DNS | Nak towards ours, Reject if there is none | asked for |
//! | 130, 132 NBNS | the same | asked for as Windows does |
//! | 2 IP-Compression-Protocol and any other | Reject | VJ, to imitate pppd |
//!
//! The authenticator's own request holds nothing but its address: clients reject name servers there.
//! Rejects come first, then Naks, then the Ack: with Windows three rounds, and that cannot be
//! shortened, because a Nak of 0.0.0.0 is what the client asked for in the first place.
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

use core::net::Ipv4Addr;

use crate::output::Entropy;
use crate::ppp::config::{AuthenticateeConfig, Ipv4Assignment, Persona};
use crate::ppp::control::{Opt, Options, put_option};
use crate::ppp::frame;
use crate::ppp::link::Timer;
use crate::ppp::negotiation::{Faults, Judgement, Terms};
use crate::wire::{TooShort, Writer};

// Specification: RFC 1332 §3, RFC 1877 §1.

const COMPRESSION: u8 = 2;
const ADDRESS: u8 = 3;
const DNS: [u8; 2] = [129, 131];
const NBNS: [u8; 2] = [130, 132];

/// Van Jacobson, 16 slots, slot numbers compressed: what pppd asks for.
const COMPRESSION_VJ: [u8; 4] = [0x00, 0x2d, 0x0f, 0x01];

/// IPCP's terms.
#[derive(Debug, Default)]
pub(super) struct Ipcp {
    /// Authenticator: what the peer is to get.
    assignment: Option<Ipv4Assignment>,
    /// Our address as asked for; `None` once the peer will not hear of it.
    asks_address: Option<Ipv4Addr>,
    asks_compression: bool,
    asks_dns: [Option<Ipv4Addr>; 2],
    asks_nbns: [Option<Ipv4Addr>; 2],
    peer: Option<Ipv4Addr>,
    address_demanded: bool,
}

impl Ipcp {
    pub(super) fn authenticator(assignment: Ipv4Assignment) -> Self {
        Self {
            assignment: Some(assignment),
            asks_address: Some(assignment.gateway),
            ..Self::default()
        }
    }

    pub(super) fn authenticatee(config: &AuthenticateeConfig) -> Self {
        let zero = Some(Ipv4Addr::UNSPECIFIED);
        let windows = config.persona == Persona::Windows;
        let secondary = config.persona != Persona::OpenSstp;
        Self {
            asks_address: Some(config.ipv4_wish),
            asks_compression: config.persona == Persona::Pppd,
            asks_dns: [
                zero.filter(|_| config.ask_dns),
                zero.filter(|_| config.ask_dns && secondary),
            ],
            asks_nbns: [zero.filter(|_| config.ask_dns && windows); 2],
            ..Self::default()
        }
    }

    /// Our address, once open; unspecified if the peer gave none.
    pub(super) fn local(&self) -> Ipv4Addr {
        let assigned = self.assignment.map(|assignment| assignment.gateway);
        assigned
            .or(self.asks_address)
            .unwrap_or(Ipv4Addr::UNSPECIFIED)
    }

    /// The peer's address, once open; unspecified if it named none.
    pub(super) fn peer(&self) -> Ipv4Addr {
        let assigned = self.assignment.map(|assignment| assignment.client);
        assigned.or(self.peer).unwrap_or(Ipv4Addr::UNSPECIFIED)
    }

    /// The DNS servers that the peer has from us, or we from it.
    pub(super) fn dns(&self) -> [Option<Ipv4Addr>; 2] {
        let learnt = self.asks_dns.map(specified);
        self.assignment.map_or(learnt, |assignment| assignment.dns)
    }

    /// The same for NetBIOS name servers.
    pub(super) fn nbns(&self) -> [Option<Ipv4Addr>; 2] {
        let learnt = self.asks_nbns.map(specified);
        self.assignment.map_or(learnt, |assignment| assignment.nbns)
    }

    fn server(&mut self, kind: u8) -> Option<&mut Option<Ipv4Addr>> {
        let [dns_1, dns_2] = &mut self.asks_dns;
        let [nbns_1, nbns_2] = &mut self.asks_nbns;
        DNS.into_iter()
            .zip([dns_1, dns_2])
            .chain(NBNS.into_iter().zip([nbns_1, nbns_2]))
            .find_map(|(of, server)| (of == kind).then_some(server))
    }

    fn judge_as_authenticator(
        &mut self,
        assignment: &Ipv4Assignment,
        request: Options<'_>,
        naks_spent: bool,
    ) -> Judgement {
        let mut faults = Faults::new(naks_spent);
        let mut has_address = false;
        let [dns_1, dns_2] = assignment.dns;
        let [nbns_1, nbns_2] = assignment.nbns;
        for option in request {
            let ours = match option.kind {
                ADDRESS => Some(assignment.client),
                129 => dns_1,
                131 => dns_2,
                130 => nbns_1,
                132 => nbns_2,
                _ => None,
            };
            has_address |= option.kind == ADDRESS;
            match (ours, address(&option)) {
                (Some(ours), Some(asked)) if ours == asked => {}
                (Some(ours), Some(_)) => faults.nak(&option, &ours.octets()),
                _ => faults.reject(&option),
            }
        }
        if !has_address {
            // Without the option the peer would use an address that we did not give.
            if self.address_demanded {
                return Judgement::Close;
            }
            faults.append(ADDRESS, &assignment.client.octets());
        }
        let judgement = faults.judgement();
        self.address_demanded |= !has_address && matches!(judgement, Judgement::Nak(_));
        judgement
    }
}

impl Terms for Ipcp {
    const PROTOCOL: u16 = frame::IPCP;
    const RESTART: Timer = Timer::IpcpRestart;

    fn write_request(&self, to: &mut Writer<'_>) -> Result<(), TooShort> {
        if let Some(address) = self.asks_address {
            put_option(to, ADDRESS, &address.octets())?;
        }
        if self.asks_compression {
            put_option(to, COMPRESSION, &COMPRESSION_VJ)?;
        }
        let servers = self.asks_dns.iter().zip(&self.asks_nbns);
        for ((dns, nbns), (dns_kind, nbns_kind)) in servers.zip(DNS.into_iter().zip(NBNS)) {
            if let Some(dns) = dns {
                put_option(to, dns_kind, &dns.octets())?;
            }
            if let Some(nbns) = nbns {
                put_option(to, nbns_kind, &nbns.octets())?;
            }
        }
        Ok(())
    }

    fn judge(
        &mut self,
        request: Options<'_>,
        naks_spent: bool,
        _entropy: &mut impl Entropy,
    ) -> Judgement {
        if let Some(assignment) = self.assignment {
            return self.judge_as_authenticator(&assignment, request, naks_spent);
        }
        let mut faults = Faults::new(naks_spent);
        let mut peer = None;
        for option in request {
            match address(&option) {
                Some(asked) if option.kind == ADDRESS && !asked.is_unspecified() => {
                    peer = Some(asked);
                }
                _ => faults.reject(&option),
            }
        }
        let judgement = faults.judgement();
        if judgement == Judgement::Ack {
            self.peer = peer;
        }
        judgement
    }

    fn handle_nak(&mut self, options: Options<'_>, _entropy: &mut impl Entropy) {
        let is_authenticator = self.assignment.is_some();
        for option in options {
            let value = address(&option).and_then(|value| specified(Some(value)));
            match option.kind {
                // The gateway's address is not the peer's to choose.
                ADDRESS if is_authenticator => self.asks_address = None,
                ADDRESS if self.asks_address.is_some() => {
                    self.asks_address = value.or(self.asks_address);
                }
                COMPRESSION => self.asks_compression = false,
                kind => {
                    // 0.0.0.0 for 0.0.0.0 would go on for ever.
                    if let Some(server @ Some(_)) = self.server(kind) {
                        *server = value;
                    }
                }
            }
        }
    }

    fn handle_reject(&mut self, options: Options<'_>) {
        for option in options {
            match option.kind {
                ADDRESS => self.asks_address = None,
                COMPRESSION => self.asks_compression = false,
                kind => {
                    if let Some(server) = self.server(kind) {
                        *server = None;
                    }
                }
            }
        }
    }
}

fn address(option: &Opt<'_>) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(option.value).ok().map(Ipv4Addr::from)
}

fn specified(address: Option<Ipv4Addr>) -> Option<Ipv4Addr> {
    address.filter(|address| !address.is_unspecified())
}
