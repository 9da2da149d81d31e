use datapath::io::ConnectionId;
use datapath::session::event::{Milestones, Protection, Traffic};
use datapath::session::{Habits, Limits};
use datapath::sstp::Timing;
use datapath::tls::{ClientProfile, TlsOptions};

use super::*;

fn addresses() -> Addresses {
    Addresses {
        ipv4: Some([10, 0, 0, 2].into()),
        ipv4_gateway: Some([10, 0, 0, 1].into()),
        ipv6_ids: Some((2, 1)),
        ..Addresses::default()
    }
}

/// A client of `plan`, up at `now`.
fn up(now: Instant, ping_count: u32, hold: Duration) -> Client {
    client(
        now,
        ping_count,
        Some(hold),
        Reconnect::Never,
        Interrupts::default(),
    )
}

fn client(
    now: Instant,
    ping_count: u32,
    hold: Option<Duration>,
    reconnect: Reconnect,
    interrupts: Interrupts,
) -> Client {
    let tls = ClientProfile::danger_accept_any(&TlsOptions::default()).unwrap();
    let settings = ClientSettings {
        tls: Arc::new(tls),
        server_name: "vpn.example".try_into().unwrap(),
        host: String::new(),
        proxy: None,
        timing: Timing::default(),
        link: Arc::default(),
        limits: Limits::default(),
        habits: Habits::default(),
    };
    let plan = Plan {
        settings: Arc::new(settings),
        to: ([127, 0, 0, 1], 443).into(),
        source: None,
        ping_count,
        ping_to: None,
        ping_interval: Duration::from_millis(100),
        ping_data_len: 56,
        hold,
        reconnect,
        nonce: 1,
    };
    let mut client = Client::new(plan, interrupts, None);
    come_up(now, &mut client);
    client
}

/// Whatever it waits for has come about.
fn come_up(now: Instant, client: &mut Client) {
    client.poll(now, &mut Commands::default());
    assert_eq!(client.stage, Stage::Connecting);
    client.connecting(0, Ok(ID));
    let up = Up {
        user: Vec::new(),
        addresses: addresses(),
        protection: Protection::default(),
        milestones: Milestones::default(),
    };
    client.event(now, ID, Event::Up(up));
}

const ID: SessionId = SessionId {
    shard: 0,
    connection: ConnectionId {
        slot: 0,
        generation: 0,
    },
};

#[test]
fn it_waits_only_for_what_is_to_come() {
    let start = Instant::from_nanos(1_000_000_000);
    for (pings, hold_ms) in [(0, 0), (0, 300), (0, 5_000), (3, 0), (3, 5_000)] {
        let hold = Duration::from_millis(hold_ms);
        let mut client = up(start, pings, hold);
        let mut now = start;
        let mut polls = 0;
        // No ping and no echo is answered, and it ends all the same, in few polls.
        while client.stage != Stage::Ending {
            client.poll(now, &mut Commands::default());
            polls += 1;
            assert!(polls < 20, "{pings} pings, {hold_ms} ms: it spins");
            now = client.next_timeout().unwrap_or(now).max(now);
        }
        assert!(now.saturating_since(start) >= hold);
        assert!(now.saturating_since(start) <= hold.max(Duration::from_secs(3)));
    }
}

#[test]
fn the_gateway_is_pinged_unless_another_is_named() {
    let v4 = |last| IpAddr::from([10, 0, 0, last]);
    assert_eq!(endpoints(&addresses(), None), Ok((v4(2), v4(1))));
    assert_eq!(endpoints(&addresses(), Some(v4(9))), Ok((v4(2), v4(9))));
    let only_v6 = Addresses {
        ipv4: None,
        ipv4_gateway: None,
        ..addresses()
    };
    let link_local = |last| Ok::<IpAddr, ()>(format!("fe80::{last}").parse().unwrap());
    assert_eq!(
        endpoints(&only_v6, None).unwrap(),
        (link_local(2).unwrap(), link_local(1).unwrap())
    );
    assert!(endpoints(&only_v6, Some(v4(9))).is_err());
    assert!(endpoints(&addresses(), Some("2001:db8::1".parse().unwrap())).is_err());
    assert!(endpoints(&Addresses::default(), None).is_err());
    let nameless = Addresses {
        ipv4_gateway: Some([0; 4].into()),
        ipv6_ids: None,
        ..addresses()
    };
    assert!(endpoints(&nameless, None).is_err());
}

#[test]
fn a_ping_to_us_is_answered_and_nothing_else() {
    let mut packet = Vec::new();
    let request = Echo {
        kind: Kind::Request,
        source: [10, 0, 0, 1].into(),
        destination: [10, 0, 0, 2].into(),
        identifier: 1,
        sequence: 2,
        data: b"data",
    };
    request.emit(&mut packet).unwrap();
    let reply = reply_to(&packet, &addresses()).unwrap();
    let reply = icmp::parse(&reply).unwrap();
    assert_eq!(
        (reply.kind, reply.destination, reply.data),
        (Kind::Reply, request.source, request.data)
    );
    Echo {
        destination: [10, 0, 0, 3].into(),
        ..request
    }
    .emit(&mut packet)
    .unwrap();
    assert_eq!(reply_to(&packet, &addresses()), None);
    Echo {
        kind: Kind::Reply,
        ..request
    }
    .emit(&mut packet)
    .unwrap();
    assert_eq!(reply_to(&packet, &addresses()), None);
}

fn ended(reason: EndReason) -> Event {
    Event::Ended(Ended {
        reason,
        detail: None,
        user: None,
        was_up: true,
        milestones: Milestones::default(),
        traffic: Traffic::default(),
    })
}

const START: Instant = Instant::from_nanos(1_000_000_000);

#[test]
fn a_lost_session_is_made_again_and_again_with_longer_waits() {
    let hold = Some(Duration::from_secs(3600));
    let mut client = client(START, 0, hold, Reconnect::OnceUp, Interrupts::default());
    let mut now = START;
    let mut longest = Duration::ZERO;
    for n in 0..10 {
        client.event(now, ID, ended(EndReason::ConnectionReset));
        let Stage::Waiting { until } = client.stage else {
            panic!("attempt {n}: {:?}", client.stage);
        };
        longest = longest.max(until.saturating_since(now));
        assert_eq!(client.next_timeout(), Some(until));
        client.poll(now, &mut Commands::default());
        assert!(matches!(client.stage, Stage::Waiting { .. }), "not before");
        now = until;
        come_up(now, &mut client);
    }
    assert!(longest > Duration::from_secs(29), "{longest:?}");
    assert!(longest <= Duration::from_secs(60), "{longest:?}");
    assert_eq!(client.outcome.reconnects, 10);
    let notices = client.take_notices();
    let again = notices.iter().filter(|n| matches!(n, Notice::Again { .. }));
    assert_eq!(again.count(), 10);

    // One that was good for a while begins anew.
    now = now + Duration::from_secs(31);
    client.event(now, ID, ended(EndReason::PeerLost));
    assert!(client.next_timeout() <= Some(now + Duration::from_secs(1)));
}

#[test]
fn what_time_does_not_heal_is_not_tried_again() {
    for reason in [
        EndReason::AuthenticationFailed,
        EndReason::CertificateRefused,
    ] {
        let interrupts = Interrupts::default();
        let mut client = client(START, 0, None, Reconnect::Always, interrupts);
        client.event(START, ID, ended(reason));
        assert_eq!(client.stage, Stage::Over, "{reason}");
    }
    let mut never = up(START, 0, Duration::from_secs(9));
    never.event(START, ID, ended(EndReason::ConnectionReset));
    assert_eq!(never.stage, Stage::Over);
}

#[test]
fn an_interrupt_ends_it_in_whatever_stage() {
    // Held until then: that is what was asked for.
    let interrupts = Interrupts::default();
    let mut endless = client(START, 0, None, Reconnect::Always, interrupts.clone());
    interrupts.add();
    endless.poll(START, &mut Commands::default());
    assert_eq!(endless.stage, Stage::Ending);
    assert!(!endless.outcome.interrupted);
    // A server that hangs up instead of an answer is not connected to again.
    endless.event(START, ID, ended(EndReason::ConnectionReset));
    assert_eq!(endless.stage, Stage::Over);

    let interrupts = Interrupts::default();
    let hold = Some(Duration::from_secs(60));
    let mut cut_short = client(START, 0, hold, Reconnect::Always, interrupts.clone());
    cut_short.event(START, ID, ended(EndReason::PeerLost));
    assert!(matches!(cut_short.stage, Stage::Waiting { .. }));
    interrupts.add();
    cut_short.poll(START, &mut Commands::default());
    assert_eq!(cut_short.stage, Stage::Drained);
    assert!(cut_short.outcome.interrupted);
}

#[test]
fn pings_that_are_done_are_not_sent_again_by_the_next_session() {
    let mut client = client(START, 3, None, Reconnect::Always, Interrupts::default());
    let mut now = START;
    while client
        .pinger
        .as_ref()
        .is_none_or(|pinger| !pinger.is_done())
    {
        client.poll(now, &mut Commands::default());
        now = client.next_timeout().unwrap_or(now).max(now);
    }
    client.event(now, ID, ended(EndReason::PeerLost));
    now = client.next_timeout().unwrap();
    come_up(now, &mut client);
    client.poll(now, &mut Commands::default());
    assert_eq!(client.outcome().tally.unwrap().sent, 3);
}
