//! What joins the layers: news of the call go to the link, news of the link to the call and the
//! owner, and PPP's keys to SSTP's binding.
//!
//! ```text
//!   call: ConnectRequest ok ─▶ link up          link: Authenticate ─▶ owner ─▶ answer ─▶ link
//!   link: Authenticated(HLAK) ─▶ call           link: Ipv4Opened ┐
//!   call: Connected (binding verified) ─────────────────────────┴─▶ session is up
//!   link: Closed ─▶ call: Disconnect            call: Closed ─▶ connection closes
//! ```

use std::net::Ipv6Addr;

use super::event::{Addresses, EndReason, Event, Milestone, Up};
use super::policy::{Answer, Policy, Question};
use super::tunnel::{Call, Tunnel};
use super::{Context, Edge, Flow, Role, Session, Stage, Timer};
use crate::http;
use crate::ip::source::SourceCheck;
use crate::ppp::auth::Verdict;
use crate::ppp::link::{self, Assignment, Ipv4Assignment, Ipv6Assignment};
use crate::services::{Ipv4Service, Ipv6Service, Services};
use crate::sstp;
use crate::time::{Duration, Instant};

/// How long a peer that terminated the link may take to end the call.
const LINGER: Duration = Duration::from_secs(1);

impl Session {
    /// The client's first bytes inside TLS.
    pub(super) fn send_request<E: Edge>(&mut self, now: Instant, edge: &mut E) {
        let (_, mut cx) = self.split(now, edge);
        let Role::Client(settings) = cx.role else {
            return;
        };
        let correlation_id: [u8; 16] = {
            use crate::output::Entropy as _;
            cx.edge.entropy().array()
        };
        let mut request = Vec::new();
        let style = &settings.habits.request;
        http::emit_request(&settings.host, &correlation_id, style, &mut request);
        send_head(&request, &mut cx);
    }

    /// Looks at a head: `Some(length)` when it is whole and good, and the tunnel is made.
    pub(super) fn handle_head<E: Edge>(
        &mut self,
        now: Instant,
        head: &[u8],
        edge: &mut E,
    ) -> Result<Option<usize>, Flow> {
        let (stage, mut cx) = self.split(now, edge);
        let len = match cx.role {
            Role::Server(settings) => {
                let (request, len) = match cx.outside.scan.request(head) {
                    Ok(Some(parsed)) => parsed,
                    Ok(None) => return Ok(None),
                    Err(error) => {
                        cx.ledger
                            .note_end(EndReason::NotSstp, Some(error.to_string()));
                        send_head(http::NOT_FOUND_RESPONSE, &mut cx);
                        return Err(Flow::Close);
                    }
                };
                let refusal = match request {
                    http::Request::Sstp { .. } => None,
                    http::Request::Probe { .. } => Some(settings.probe.response()),
                    http::Request::Other => Some(http::NOT_FOUND_RESPONSE),
                };
                if let Some(response) = refusal {
                    cx.ledger.note_end(EndReason::NotSstp, None);
                    send_head(response, &mut cx);
                    return Err(Flow::Close);
                }
                send_head(http::OK_RESPONSE, &mut cx);
                len
            }
            Role::Client(_) => match cx.outside.scan.response(head) {
                Ok(Some(len)) => len,
                Ok(None) => return Ok(None),
                Err(error) => {
                    cx.ledger
                        .note_end(EndReason::HttpRefused, Some(error.to_string()));
                    return Err(Flow::Close);
                }
            },
        };
        cx.ledger.milestones.pass(Milestone::Http, now);
        cx.deadlines.set(Timer::Stage, now + cx.role.limits().call);
        let Some(certificate) = cx.outside.certificate else {
            return Err(Flow::Cut);
        };
        let mut tunnel = Box::new(Tunnel::new(certificate, &cx));
        tunnel.with_call(&mut cx, |call, now, out| match call {
            Call::Server(call) => call.start(now, out),
            Call::Client(call) => call.start(now, out),
        });
        let flow = tunnel.settle(&mut cx);
        *stage = Stage::Tunnel(tunnel);
        match flow {
            Flow::Continue => Ok(Some(len)),
            flow => Err(flow),
        }
    }

    /// Sends an LCP Echo-Request; the answer is [`Event::EchoReply`].
    pub fn echo<E: Edge>(&mut self, now: Instant, edge: &mut E) {
        let (stage, mut cx) = self.split(now, edge);
        let Stage::Tunnel(tunnel) = stage else { return };
        tunnel.with_link(&mut cx, |link, now, _, out| link.echo(now, out));
    }
}

/// Sends bytes that are not SSTP yet.
fn send_head<E: Edge>(bytes: &[u8], cx: &mut Context<'_, E>) {
    if let Some(tls) = cx.outside.tls.as_ref() {
        // Nothing else waits this early: there is room.
        let _ = cx.outside.transmit.push_control(&[bytes], tls, cx.edge);
    }
}

impl Tunnel {
    /// The framing of the stream is lost: nothing can be said any more (MS-SSTP 3.1.5.1).
    pub(super) fn framing_error<E: Edge>(
        &self,
        error: &sstp::packet::FramingError,
        cx: &mut Context<'_, E>,
    ) -> Flow {
        cx.ledger
            .note_end(EndReason::SstpViolation, Some(error.to_string()));
        Flow::Cut
    }

    /// The owner has decided.
    pub(super) fn handle_answer<E: Edge>(
        &mut self,
        answer: Answer,
        cx: &mut Context<'_, E>,
    ) -> Flow {
        if !std::mem::take(&mut self.asked) {
            return Flow::Continue;
        }
        let verdict = match answer {
            Answer::Accept {
                hlak,
                message,
                policy,
            } => {
                cx.ledger.user = Some(policy.user.clone());
                self.policy = Some(policy);
                Verdict::Accept { hlak, message }
            }
            Answer::Reject {
                error,
                message,
                eap,
                refusal,
            } => {
                cx.ledger.note_end(refusal.into(), None);
                Verdict::Reject {
                    error,
                    message,
                    eap,
                }
            }
            Answer::Continue { request } => Verdict::Continue { request },
        };
        self.with_link(cx, |link, now, entropy, out| {
            link.handle_verdict(now, verdict, entropy, out);
        });
        self.settle(cx)
    }

    /// Replaces the policy; addresses that are in use stay.
    pub(super) fn set_policy<E: Edge>(&mut self, policy: Box<Policy>, cx: &mut Context<'_, E>) {
        self.arm(&policy, cx);
        self.mtu = policy.mtu.min(self.link.peer_mru());
        self.policy = Some(policy);
    }

    /// Goes on in another process: services and timeouts begin anew.
    pub(super) fn resume<E: Edge>(&mut self, policy: Box<Policy>, cx: &mut Context<'_, E>) {
        self.arm(&policy, cx);
        self.policy = Some(policy);
        self.refresh(cx);
        self.advertise(cx);
    }

    /// Ends politely: the link first, then the call.
    pub(super) fn terminate<E: Edge>(&mut self, cx: &mut Context<'_, E>) -> Flow {
        if cx.role.farewell().terminates_link {
            self.with_link(cx, |link, now, _, out| {
                link.terminate(now, "session ended", out)
            });
        } else {
            self.disconnect(cx);
        }
        self.settle(cx)
    }

    /// Lets call, link and services act on their deadlines.
    pub(super) fn handle_timeout<E: Edge>(&mut self, cx: &mut Context<'_, E>) -> Flow {
        self.with_call(cx, |call, now, out| match call {
            Call::Server(call) => call.handle_timeout(now, out),
            Call::Client(call) => call.handle_timeout(now, out),
        });
        self.with_link(cx, |link, now, entropy, out| {
            link.handle_timeout(now, entropy, out)
        });
        self.with_services(cx, |services, now, entropy, out| {
            services.handle_timeout(now, entropy, out);
        });
        self.settle(cx)
    }

    /// Acts on news until there are none.
    pub(super) fn settle<E: Edge>(&mut self, cx: &mut Context<'_, E>) -> Flow {
        loop {
            if self.overrun {
                let detail = "the peer does not read what it asks for".to_owned();
                cx.ledger.note_end(EndReason::Exhausted, Some(detail));
                return Flow::Cut;
            }
            let flow = if !self.call_news.is_empty() {
                let news = self.call_news.remove(0);
                self.handle_call_news(news, cx)
            } else if !self.link_news.is_empty() {
                let news = self.link_news.remove(0);
                self.handle_link_news(news, cx)
            } else {
                return Flow::Continue;
            };
            if flow != Flow::Continue {
                self.call_news.clear();
                self.link_news.clear();
                return flow;
            }
        }
    }

    fn handle_call_news<E: Edge>(&mut self, news: sstp::Event, cx: &mut Context<'_, E>) -> Flow {
        match news {
            sstp::Event::StartPpp => {
                cx.ledger.milestones.pass(Milestone::Call, cx.now);
                cx.deadlines.clear(Timer::Stage);
                self.with_link(cx, |link, now, entropy, out| link.up(now, entropy, out));
                Flow::Continue
            }
            sstp::Event::Connected(_) | sstp::Event::BindingSent => {
                cx.ledger.milestones.pass(Milestone::Bound, cx.now);
                self.check_up(cx);
                Flow::Continue
            }
            sstp::Event::Draining(reason) => {
                cx.ledger
                    .note_end(end_of_call(&reason), Some(reason.to_string()));
                cx.deadlines.clear_all();
                if reason == sstp::CloseReason::Disconnected && !cx.role.farewell().awaits_ack {
                    return Flow::Close;
                }
                Flow::Continue
            }
            sstp::Event::Closed(reason) => {
                cx.ledger
                    .note_end(end_of_call(&reason), Some(reason.to_string()));
                Flow::Close
            }
        }
    }

    fn handle_link_news<E: Edge>(&mut self, news: link::Event, cx: &mut Context<'_, E>) -> Flow {
        match news {
            link::Event::LcpOpened => cx.ledger.milestones.pass(Milestone::Lcp, cx.now),
            link::Event::Authenticate(credentials) => {
                self.asked = true;
                cx.edge.ask(Question::Authenticate {
                    credentials,
                    peer: cx.peer,
                });
            }
            link::Event::Authenticated { hlak } => {
                cx.ledger.milestones.pass(Milestone::Authenticated, cx.now);
                self.with_call(cx, |call, now, out| match call {
                    Call::Server(call) => call.authenticated(now, &hlak, out),
                    Call::Client(call) => call.authenticated(now, &hlak, out),
                });
                self.assign(cx);
            }
            link::Event::Ipv4Opened {
                local, peer, dns, ..
            } => {
                let (client, gateway) = self.by_role(local, peer);
                self.addresses.ipv4 = Some(client);
                self.addresses.ipv4_gateway = Some(gateway);
                self.addresses.dns = dns;
                self.network_opened(cx);
            }
            link::Event::Ipv6Opened { local_id, peer_id } => {
                self.addresses.ipv6_ids = Some((local_id, peer_id));
                self.addresses.ipv6_prefix = self
                    .policy
                    .as_ref()
                    .and_then(|policy| policy.ipv6)
                    .and_then(|ipv6| ipv6.prefix);
                self.network_opened(cx);
            }
            link::Event::Ipv4Closed => {
                self.addresses = Addresses {
                    ipv4: None,
                    ipv4_gateway: None,
                    dns: [None; 2],
                    ..self.addresses
                };
                self.network_closed(cx);
            }
            link::Event::Ipv6Closed => {
                self.addresses = Addresses {
                    ipv6_prefix: None,
                    ipv6_ids: None,
                    ..self.addresses
                };
                self.network_closed(cx);
            }
            link::Event::PeerIdentification(text) => cx.edge.event(Event::Identified(text)),
            link::Event::EchoReply { round_trip } => cx.edge.event(Event::EchoReply { round_trip }),
            link::Event::Closed(reason) => {
                cx.ledger
                    .note_end(end_of_link(&reason), Some(reason.to_string()));
                if reason == link::CloseReason::PeerTerminated {
                    // Who terminates the link also ends the call; two that do it at once would
                    // both wait out DISCONNECT_2 (MS-SSTP 3.1.2).
                    cx.deadlines.clear_all();
                    cx.deadlines.set(Timer::Linger, cx.now + LINGER);
                } else {
                    self.disconnect(cx);
                }
            }
        }
        Flow::Continue
    }

    /// Ends the call in order.
    fn disconnect<E: Edge>(&mut self, cx: &mut Context<'_, E>) {
        self.with_call(cx, |call, now, out| match call {
            Call::Server(call) => call.disconnect(now, out),
            Call::Client(call) => call.disconnect(now, out),
        });
    }

    /// The peer terminated the link and then forgot the call.
    pub(super) fn linger_expired<E: Edge>(&mut self, cx: &mut Context<'_, E>) -> Flow {
        self.disconnect(cx);
        self.settle(cx)
    }

    /// Client's and gateway's, from ours and the peer's.
    fn by_role<T>(&self, local: T, peer: T) -> (T, T) {
        match self.call {
            Call::Server(_) => (peer, local),
            Call::Client(_) => (local, peer),
        }
    }

    /// Tells the link which addresses to give; only the server does.
    fn assign<E: Edge>(&mut self, cx: &mut Context<'_, E>) {
        let Some(policy) = self.policy.take() else {
            return;
        };
        self.mtu = policy.mtu.min(self.link.peer_mru());
        let assignment = Assignment {
            ipv4: policy.ipv4.map(|ipv4| Ipv4Assignment {
                gateway: ipv4.gateway,
                client: ipv4.client,
                dns: ipv4.dns,
                nbns: ipv4.nbns,
            }),
            ipv6: policy.ipv6.map(|ipv6| Ipv6Assignment {
                gateway_id: ipv6.gateway_id,
                client_id: ipv6.client_id,
            }),
            mtu: self.mtu,
        };
        self.policy = Some(policy);
        self.with_link(cx, |link, now, entropy, out| {
            link.assign(now, assignment, entropy, out)
        });
    }

    fn network_opened<E: Edge>(&mut self, cx: &mut Context<'_, E>) {
        cx.ledger.milestones.pass(Milestone::Network, cx.now);
        self.refresh(cx);
        if cx.ledger.was_up {
            cx.edge.event(Event::Changed(self.addresses));
            self.advertise(cx);
        }
        self.check_up(cx);
    }

    fn network_closed<E: Edge>(&mut self, cx: &mut Context<'_, E>) {
        self.refresh(cx);
        if cx.ledger.was_up {
            cx.edge.event(Event::Changed(self.addresses));
        }
    }

    /// The source check and the services follow the addresses.
    fn refresh<E: Edge>(&mut self, cx: &Context<'_, E>) {
        let (Role::Server(_), Some(policy)) = (cx.role, &self.policy) else {
            return;
        };
        let network = policy.network.clone();
        let prefix = self
            .addresses
            .ipv6_prefix
            .map(|prefix: Ipv6Addr| (prefix, 64));
        let client_id = self.addresses.ipv6_ids.map(|(_, peer)| peer);
        self.source_check = SourceCheck::new(self.addresses.ipv4, prefix, client_id);
        let Some(network) = network else { return };
        let mtu = self.mtu;
        let services = self
            .services
            .get_or_insert_with(|| Box::new(Services::new(network, mtu)));
        match (self.addresses.ipv4, self.addresses.ipv4_gateway) {
            (Some(client), Some(gateway)) => {
                services.open_ipv4(Ipv4Service { client, gateway });
            }
            _ => services.close_ipv4(),
        }
        if self.addresses.ipv6_ids.is_none() {
            services.close_ipv6();
        }
    }

    /// Lets the IPv6 services begin: what they send first is data, so the session must be up.
    fn advertise<E: Edge>(&mut self, cx: &mut Context<'_, E>) {
        let (true, Some((gateway_id, _))) = (cx.ledger.was_up, self.addresses.ipv6_ids) else {
            return;
        };
        let ipv6 = Ipv6Service {
            prefix: self.addresses.ipv6_prefix,
            gateway_id,
        };
        self.with_services(cx, |services, now, _, out| {
            services.open_ipv6(now, ipv6, out)
        });
    }

    /// Traffic may pass once the binding is verified *and* a network protocol is open.
    fn check_up<E: Edge>(&mut self, cx: &mut Context<'_, E>) {
        let is_open = self.addresses.ipv4.is_some() || self.addresses.ipv6_ids.is_some();
        let is_bound = cx.ledger.milestones.at(Milestone::Bound).is_some();
        if cx.ledger.was_up || !is_open || !is_bound {
            return;
        }
        cx.ledger.was_up = true;
        cx.ledger.last_traffic = cx.now;
        cx.deadlines.clear(Timer::Setup);
        if let Some(policy) = self.policy.take() {
            self.arm(&policy, cx);
            self.policy = Some(policy);
        }
        let user = match cx.role {
            Role::Server(_) => cx.ledger.user.clone().unwrap_or_default(),
            Role::Client(settings) => settings.link.user.clone(),
        };
        self.advertise(cx);
        cx.edge.event(Event::Up(Up {
            user,
            addresses: self.addresses,
            protection: cx.ledger.protection.clone(),
            milestones: cx.ledger.milestones,
        }));
    }

    /// Arms the timeouts that a policy asks for.
    fn arm<E: Edge>(&self, policy: &Policy, cx: &mut Context<'_, E>) {
        if !cx.ledger.was_up {
            return;
        }
        let up_since = cx
            .ledger
            .milestones
            .at(Milestone::Network)
            .unwrap_or(cx.now);
        match policy.session_timeout {
            Some(timeout) => cx.deadlines.set(Timer::Session, up_since + timeout),
            None => cx.deadlines.clear(Timer::Session),
        }
        match policy.idle_timeout {
            Some(timeout) => cx
                .deadlines
                .set(Timer::Idle, cx.ledger.last_traffic + timeout),
            None => cx.deadlines.clear(Timer::Idle),
        }
    }
}

/// What the end of the call means for the session.
const fn end_of_call(reason: &sstp::CloseReason) -> EndReason {
    use sstp::CloseReason as Call;
    match reason {
        Call::PeerDisconnected => EndReason::PeerDisconnected,
        Call::PeerAborted(_) | Call::PeerRefused(_) => EndReason::PeerAborted,
        Call::BindingRefused(_) => EndReason::BindingRefused,
        Call::HelloTimeout => EndReason::PeerLost,
        Call::RequestTimeout | Call::NegotiationTimeout => EndReason::SetupTimeout,
        Call::Malformed(_)
        | Call::PeerMisbehaved(_)
        | Call::NoHashProtocol(_)
        | Call::FramingError(_)
        | Call::Aborted(_) => EndReason::SstpViolation,
        Call::Disconnected => EndReason::Administrative,
    }
}

/// What the end of the link means for the session.
const fn end_of_link(reason: &link::CloseReason) -> EndReason {
    use link::CloseReason as Link;
    match reason {
        Link::PeerTerminated => EndReason::PeerDisconnected,
        Link::AuthenticationFailed { .. } | Link::ServerUnproven | Link::NoAuthMethod => {
            EndReason::AuthenticationFailed
        }
        Link::EchoTimeout => EndReason::PeerLost,
        Link::Timeout(_) => EndReason::SetupTimeout,
        Link::TerminatedByUs => EndReason::Administrative,
        Link::NoNetworkProtocol
        | Link::LoopDetected
        | Link::RenegotiationLimit
        | Link::Renegotiated
        | Link::ProtocolRejected => EndReason::PppFailed,
    }
}
