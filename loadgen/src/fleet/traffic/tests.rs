use super::*;

const START: Instant = Instant::from_nanos(5_000_000_000);
const MS: Duration = Duration::from_millis(1);

fn carrier(member: u32) -> Carrier {
    Carrier {
        member,
        session: member * 2,
        own: Some(Ipv4Addr::new(10, 0, 0, 10)),
        gateway: Some(Ipv4Addr::new(10, 0, 0, 1)),
    }
}

fn traffic(direction: Direction, carriers: &[Carrier]) -> Traffic {
    let plan = Plan {
        direction,
        to: None,
        load: Some(Load::Total(1000.0)),
        bulk: None,
        ping_interval: None,
        sizes: "64,200".parse().unwrap(),
        duration: MS * 100,
        run: 77,
        search: None,
    };
    Traffic::new(&Arc::new(plan), START, carriers, carriers.len() as u64)
}

fn sent(traffic: &mut Traffic, now: Instant) -> Vec<(u32, Vec<u8>)> {
    let mut packets = Vec::new();
    traffic.handle_timeout(now, |member, packet| {
        packets.push((member, packet.to_vec()));
        true
    });
    packets
}

#[test]
fn a_late_sender_catches_up_and_hides_nothing() {
    let mut traffic = traffic(Direction::Both, &[carrier(0), carrier(1)]);
    assert_eq!(traffic.next_timeout(), Some(START));
    assert_eq!(sent(&mut traffic, START).len(), 1);
    let late = START + MS * 50;
    let packets = sent(&mut traffic, late);
    assert_eq!(packets.len(), 50);
    for (member, packet) in &packets {
        traffic.handle_packet(late, *member, packet);
    }
    assert_eq!(traffic.tally.received, 50);
    assert!(traffic.tally.latency.histogram().max() >= 49_000_000);
    sent(&mut traffic, START + MS * 1000);
    assert_eq!(traffic.tally.sent, 100, "no more than what was planned");
    assert_eq!(traffic.next_timeout(), None);
}

#[test]
fn whatever_is_wrong_with_an_arrival_is_told() {
    let mut traffic = traffic(Direction::Both, &[carrier(0), carrier(1)]);
    let packets = sent(&mut traffic, START + MS * 9);
    let (member, packet) = &packets[0];
    let now = START + MS * 9;
    traffic.handle_packet(now, 1 - member, packet);
    assert_eq!(traffic.tally.wrong_session, 1);
    traffic.handle_packet(now, *member, &packets[2].1);
    traffic.handle_packet(now, *member, packet);
    traffic.handle_packet(now, *member, packet);
    assert_eq!((traffic.tally.reordered, traffic.tally.duplicates), (1, 1));
    let mut damaged = packets[4].1.clone();
    *damaged.last_mut().unwrap() ^= 1;
    traffic.handle_packet(now, *member, &damaged);
    assert_eq!(traffic.tally.corrupted, 1);
    // The magic itself damaged: still ours, by its port.
    let mut damaged = packets[4].1.clone();
    damaged[28] ^= 1;
    traffic.handle_packet(now, *member, &damaged);
    assert_eq!(traffic.tally.corrupted, 2);
    traffic.handle_packet(now, *member, &[]);
    assert_eq!(traffic.tally.foreign, 1);
    assert_eq!(traffic.tally.received, 2);
}

#[test]
fn a_session_that_is_gone_sends_nothing_and_that_is_counted() {
    let mut traffic = traffic(Direction::Up, &[carrier(0)]);
    traffic.handle_timeout(START + MS * 100, |_, _| false);
    assert_eq!((traffic.tally.sent, traffic.tally.not_sent), (0, 100));
}
