//! The inside of the TLS connection: the SSTP call, the PPP link it carries, and the addresses.
//!
//! It is made when the HTTP exchange is done. `control.rs` moves news between the layers;
//! `uplink.rs` and `downlink.rs` move packets through them.

use super::event::{Addresses, DropReason};
use super::policy::Policy;
use super::transmit::Transmit;
use std::sync::Arc;

use super::downlink::{TooBig, data_header_of};
use super::{Context, Edge, Role};
use crate::ip::source::SourceCheck;
use crate::output::{Entropy as _, Output};
use crate::ppp;
use crate::ppp::frame::{INFORMATION_LEN_MAX, MRU_DEFAULT};
use crate::ppp::link::Link;
use crate::services::{self, Services};
use crate::sstp;
use crate::sstp::binding::{CertificateHashes, Nonce};
use crate::time::Instant;
use crate::tls;

/// The call in either role.
#[derive(Debug)]
pub(super) enum Call {
    Server(sstp::server::Call),
    Client(sstp::client::Call),
}

/// Call, link and what hangs on them.
#[derive(Debug)]
pub(super) struct Tunnel {
    pub(super) call: Call,
    pub(super) link: Link,
    /// What the server role checks an uplink packet's source against.
    pub(super) source_check: SourceCheck,
    pub(super) services: Option<Box<Services>>,
    pub(super) policy: Option<Box<Policy>>,
    pub(super) addresses: Addresses,
    /// The largest packet that may be sent to the peer.
    pub(super) mtu: u16,
    /// The largest packet that is taken from the peer.
    pub(super) receive_len_max: u16,
    /// Too-big answers and fragments are expensive: so many are left in this second.
    pub(super) too_big: TooBig,
    /// The owner has been asked and has not answered.
    pub(super) asked: bool,
    /// News that are not acted on yet; empty between calls.
    pub(super) call_news: Vec<sstp::Event>,
    pub(super) link_news: Vec<ppp::link::Event>,
    pub(super) service_news: Vec<services::Event>,
    /// A control packet found no room: the peer does not read.
    pub(super) overrun: bool,
}

/// What a layer's units are wrapped in.
#[derive(Clone, Copy, Debug)]
enum Wrap {
    /// They are SSTP packets already.
    Nothing,
    /// PPP frames, into an SSTP data packet.
    Sstp,
    /// IP packets, into a PPP frame and that into an SSTP data packet.
    PppAndSstp,
}

/// Where call, link and services send and tell their news.
pub(super) struct Sender<'a, E, N> {
    transmit: &'a mut Transmit,
    tls: &'a tls::Connection,
    edge: &'a mut E,
    news: &'a mut Vec<N>,
    overrun: &'a mut bool,
    wrap: Wrap,
}

impl<E: Edge, N> Output<N> for Sender<'_, E, N> {
    fn send(&mut self, bytes: &[u8]) {
        let mut sstp_header = [0; sstp::packet::HEADER_LEN];
        let data_header;
        let parts: &[&[u8]] = match self.wrap {
            Wrap::Nothing => &[bytes],
            Wrap::Sstp => {
                if sstp::packet::write_data_header(&mut sstp_header, bytes.len()).is_err() {
                    return;
                }
                &[&sstp_header, bytes]
            }
            Wrap::PppAndSstp => {
                let Some(header) = data_header_of(bytes) else {
                    return;
                };
                data_header = header;
                &[&data_header, bytes]
            }
        };
        if self
            .transmit
            .push_control(parts, self.tls, self.edge)
            .is_err()
        {
            *self.overrun = true;
        }
    }

    fn event(&mut self, event: N) {
        self.news.push(event);
    }
}

impl Tunnel {
    /// Call and link of the session's role, not started yet, bound to this certificate.
    pub(super) fn new<E: Edge>(certificate: tls::CertHashes, cx: &Context<'_, E>) -> Self {
        let tls::CertHashes { sha1, sha256 } = certificate;
        let certificate = CertificateHashes { sha1, sha256 };
        let (call, link) = match cx.role {
            Role::Server(settings) => {
                let mut entropy = cx.edge.entropy();
                let [high, low] = entropy.array();
                let call = sstp::server::Call::new(sstp::server::Config {
                    timing: settings
                        .timing
                        .with_hello_jitter(u16::from_be_bytes([high, low])),
                    nonce: Nonce(entropy.array()),
                    offered: settings.offered,
                    certificates: vec![certificate],
                });
                let link = Link::authenticator(Arc::clone(&settings.link), &mut entropy);
                (Call::Server(call), link)
            }
            Role::Client(settings) => {
                let mut entropy = cx.edge.entropy();
                let [high, low] = entropy.array();
                let call = sstp::client::Call::new(sstp::client::Config {
                    timing: settings
                        .timing
                        .with_hello_jitter(u16::from_be_bytes([high, low])),
                    gives_status: settings.habits.farewell.gives_status,
                    ..sstp::client::Config::new(certificate)
                });
                let link = Link::authenticatee(Arc::clone(&settings.link), &mut entropy);
                (Call::Client(call), link)
            }
        };
        Self::with_layers(call, link)
    }

    /// A tunnel of these layers in which nothing is open.
    pub(super) fn with_layers(call: Call, link: Link) -> Self {
        Self {
            call,
            link,
            source_check: SourceCheck::new(None, None, None),
            services: None,
            policy: None,
            addresses: Addresses::default(),
            mtu: MRU_DEFAULT,
            receive_len_max: INFORMATION_LEN_MAX,
            too_big: TooBig::default(),
            asked: false,
            call_news: Vec::new(),
            link_news: Vec::new(),
            service_news: Vec::new(),
            overrun: false,
        }
    }

    pub(super) fn policy(&self) -> Option<&Policy> {
        self.policy.as_deref()
    }

    pub(super) const fn addresses(&self) -> Addresses {
        self.addresses
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let call = match &self.call {
            Call::Server(call) => call.next_timeout(),
            Call::Client(call) => call.next_timeout(),
        };
        let services = self
            .services
            .as_ref()
            .and_then(|services| services.next_timeout());
        [call, self.link.next_timeout(), services]
            .into_iter()
            .flatten()
            .min()
    }

    /// Lets the call work.
    pub(super) fn with_call<E: Edge, T>(
        &mut self,
        cx: &mut Context<'_, E>,
        work: impl FnOnce(&mut Call, Instant, &mut Sender<'_, E, sstp::Event>) -> T,
    ) -> Option<T> {
        let mut sender = Sender {
            tls: cx.outside.tls.as_ref()?,
            transmit: &mut cx.outside.transmit,
            edge: cx.edge,
            news: &mut self.call_news,
            overrun: &mut self.overrun,
            wrap: Wrap::Nothing,
        };
        Some(work(&mut self.call, cx.now, &mut sender))
    }

    /// Lets the link work; it draws its random numbers from the shard.
    pub(super) fn with_link<E: Edge, T>(
        &mut self,
        cx: &mut Context<'_, E>,
        work: impl FnOnce(
            &mut Link,
            Instant,
            &mut E::Entropy,
            &mut Sender<'_, E, ppp::link::Event>,
        ) -> T,
    ) -> Option<T> {
        let mut entropy = cx.edge.entropy();
        let mut sender = Sender {
            tls: cx.outside.tls.as_ref()?,
            transmit: &mut cx.outside.transmit,
            edge: cx.edge,
            news: &mut self.link_news,
            overrun: &mut self.overrun,
            wrap: Wrap::Sstp,
        };
        Some(work(&mut self.link, cx.now, &mut entropy, &mut sender))
    }

    /// Lets the services work; what they send is an IP packet for the peer.
    pub(super) fn with_services<E: Edge, T>(
        &mut self,
        cx: &mut Context<'_, E>,
        work: impl FnOnce(
            &mut Services,
            Instant,
            &mut E::Entropy,
            &mut Sender<'_, E, services::Event>,
        ) -> T,
    ) -> Option<T> {
        let mut entropy = cx.edge.entropy();
        let services = self.services.as_mut()?;
        let mut sender = Sender {
            tls: cx.outside.tls.as_ref()?,
            transmit: &mut cx.outside.transmit,
            edge: cx.edge,
            news: &mut self.service_news,
            overrun: &mut self.overrun,
            wrap: Wrap::PppAndSstp,
        };
        let result = work(services, cx.now, &mut entropy, &mut sender);
        for news in self.service_news.drain(..) {
            if let services::Event::Discarded(_) = news {
                cx.edge.dropped(DropReason::Unserved);
            }
        }
        Some(result)
    }
}
