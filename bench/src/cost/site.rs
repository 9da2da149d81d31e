//! A gateway's shard and a client's, joined by a wire.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use datapath::ip::offload::merge::Offloads;
use datapath::ppp::auth::AuthMethod;
use datapath::session::event::Event;
use datapath::session::policy::{Answer, Question};
use datapath::session::{ClientSettings, ServerSettings};
use datapath::shard::counters::Published;
use datapath::shard::handoff::Mailbox;
use datapath::shard::route::Directory;
use datapath::shard::{Commands, Config, Inside, Owner, SessionId, Shard};
use datapath::sys::copy_and_sum;
use datapath::testing::fixtures::{self, PASSWORD, USER};
use datapath::testing::pair::SharedRng;
use datapath::time::Instant;

use super::Case;
use super::wire::{self, End, Stream, Wire};
use crate::floor::rig::CLIENT;
use crate::floor::traffic::{self, Direction, Kind};
use crate::paths::apart;

/// Packets of a burst: what a superpacket stands for.
pub(crate) const BURST_PACKETS: usize = 48;
/// Turns within which the session is up.
const SET_UP_TURNS: usize = 2_000;

const SETTLE_TURNS: usize = 50;

/// Lets its one client in.
#[derive(Debug)]
struct Gateway {
    settings: Arc<ServerSettings>,
    question: Option<(SessionId, Question)>,
}

impl Owner for Gateway {
    fn accept(&mut self, _: SessionId, _: usize, _: SocketAddr) -> Option<Arc<ServerSettings>> {
        Some(Arc::clone(&self.settings))
    }

    fn ask(&mut self, session: SessionId, question: Question) {
        self.question = Some((session, question));
    }

    fn event(&mut self, _: Instant, _: SessionId, event: Event) {
        assert!(!matches!(event, Event::Ended(_)), "{event:?}");
    }

    fn poll(&mut self, _: Instant, commands: &mut Commands) {
        if let Some((session, question)) = self.question.take() {
            let mut answer = fixtures::judge(&question, 1);
            if let Answer::Accept { policy, .. } = &mut answer
                && let Some(ipv4) = &mut policy.ipv4
            {
                ipv4.client = CLIENT;
            }
            commands.answer(session, answer);
        }
    }
}

/// The one client.
#[derive(Debug)]
struct Client {
    settings: Arc<ClientSettings>,
    has_asked: bool,
    session: Option<SessionId>,
    is_up: bool,
    received: u64,
    packets: Vec<Vec<u8>>,
    sends: bool,
}

impl Owner for Client {
    fn accept(&mut self, _: SessionId, _: usize, _: SocketAddr) -> Option<Arc<ServerSettings>> {
        None
    }

    fn ask(&mut self, _: SessionId, _: Question) {}

    fn connecting(&mut self, _: u64, session: std::io::Result<SessionId>) {
        self.session = session.ok();
    }

    fn event(&mut self, _: Instant, _: SessionId, event: Event) {
        self.is_up |= matches!(event, Event::Up(_));
        assert!(!matches!(event, Event::Ended(_)), "{event:?}");
    }

    fn packet(&mut self, _: Instant, _: SessionId, _: &[u8]) {
        self.received += 1;
    }

    fn poll(&mut self, _: Instant, commands: &mut Commands) {
        if !std::mem::replace(&mut self.has_asked, true) {
            let settings = Arc::clone(&self.settings);
            commands.connect(0, settings, ([127, 0, 0, 1], 443).into(), None);
        }
        if std::mem::take(&mut self.sends)
            && let Some(session) = self.session
        {
            for packet in &self.packets {
                commands.send_packet(session, packet);
            }
        }
    }
}

/// Both ends, with the session up.
#[derive(Debug)]
pub(crate) struct Site {
    gateway: Shard<Wire, Gateway, SharedRng>,
    client: Shard<Wire, Client, SharedRng>,
    gateway_end: Rc<RefCell<End>>,
    #[cfg(test)]
    client_end: Rc<RefCell<End>>,
    case: Case,
    is_counted: bool,
    packets_counted: u64,
}

impl Site {
    /// Without secrecy.
    pub(super) fn new(case: Case) -> Self {
        let client = fixtures::client_settings(USER, PASSWORD, AuthMethod::MsChapV2);
        Self::under(
            case,
            Arc::new(fixtures::server_settings()),
            Arc::new(client),
        )
    }

    /// Under these settings, which have to fit each other.
    pub(crate) fn under(
        case: Case,
        server: Arc<ServerSettings>,
        client: Arc<ClientSettings>,
    ) -> Self {
        let (up, down) = (Stream::default(), Stream::default());
        let outside = Wire::new(&up, &down, true);
        let gateway_end = Rc::clone(&outside.end);
        let client_wire = Wire::new(&down, &up, false);
        #[cfg(test)]
        let client_end = Rc::clone(&client_wire.end);
        let kind = if case.is_merged {
            Kind::Tcp
        } else {
            Kind::UdpFlows
        };
        let packets = |direction| traffic::packets(kind, direction, case.packet_len, BURST_PACKETS);
        let downlink = packets(Direction::Downlink);
        gateway_end.borrow_mut().tun_reads = if case.is_merged {
            traffic::merged(&downlink)
        } else {
            traffic::plain(&downlink)
        };
        let gateway = Gateway {
            settings: server,
            question: None,
        };
        let client = Client {
            settings: client,
            has_asked: false,
            session: None,
            is_up: false,
            received: 0,
            packets: packets(Direction::Uplink),
            sends: false,
        };
        let mut site = Self {
            gateway: Shard::new(outside, gateway, SharedRng::new(1), config(Inside::Tun)),
            client: Shard::new(
                client_wire,
                client,
                SharedRng::new(2),
                config(Inside::Owner),
            ),
            gateway_end,
            #[cfg(test)]
            client_end,
            case,
            is_counted: false,
            packets_counted: 0,
        };
        let mut turns = 0;
        while !site.client.owner().is_up {
            site.turn();
            turns += 1;
            assert!(turns < SET_UP_TURNS, "the session is not up");
        }
        // The other network protocol, and what the services say first.
        for _ in 0..SETTLE_TURNS {
            site.turn();
        }
        site
    }

    /// From now on the gateway's work is marked.
    pub(super) fn count_from_here(&mut self) {
        self.is_counted = true;
    }

    pub(super) const fn packets_counted(&self) -> u64 {
        self.packets_counted
    }

    /// Carries one burst.
    pub(crate) fn burst(&mut self) {
        let before = self.carried();
        if self.case.is_downlink {
            let mut end = self.gateway_end.borrow_mut();
            end.tun_left = end.tun_reads.len();
        } else {
            self.client.owner_mut().sends = true;
        }
        for _ in 0..4 {
            self.turn();
        }
        let carried = self.carried() - before;
        // A router advertisement of the gateway comes beside them now and then.
        assert!(carried >= BURST_PACKETS as u64, "packets were lost");
        if self.is_counted {
            wire::end_of_burst();
            self.packets_counted += carried;
        }
    }

    fn carried(&self) -> u64 {
        let totals = &self.gateway.counters().totals;
        if self.case.is_downlink {
            self.client.owner().received
        } else {
            totals.uplink_packets
        }
    }

    fn turn(&mut self) {
        // Its own packets cost the client, not the gateway.
        apart(|| self.client.turn()).expect("the wire holds");
        if self.is_counted {
            self.gateway_end.borrow_mut().is_marked = true;
            wire::switch();
        }
        let turned = self.gateway.turn();
        if self.is_counted {
            wire::switch();
            self.gateway_end.borrow_mut().is_marked = false;
        }
        turned.expect("the wire holds");
    }
}

fn config(inside: Inside) -> Config {
    Config {
        index: 0,
        connections_max: 4,
        handshakes_max: 4,
        send_buffers: 8,
        inside,
        offloads: (inside == Inside::Tun).then_some(Offloads {
            tcp: true,
            udp: true,
        }),
        copy_and_sum: copy_and_sum::fastest(),
        isolate: true,
        directory: Arc::new(Directory::new(&[])),
        mailboxes: Arc::new([Mailbox::new(1)]),
        published: Published::new(),
    }
}

#[cfg(test)]
mod tests {
    use datapath::time::Duration;

    use super::*;
    use crate::cost::CASES;

    #[test]
    fn bursts_go_on_for_longer_than_any_interval_of_the_protocols() {
        for case in CASES {
            let mut site = Site::new(case);
            for _ in 0..100 {
                for end in [&site.gateway_end, &site.client_end] {
                    let mut end = end.borrow_mut();
                    end.now = end.now + Duration::from_secs(20);
                }
                site.burst();
            }
            let advertised = site.carried() - 100 * BURST_PACKETS as u64;
            assert_eq!(advertised > 0, case.is_downlink, "{}", case.name);
        }
    }
}
