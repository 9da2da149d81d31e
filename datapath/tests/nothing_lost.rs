//! Numbered packets both ways, below, near and above what the path takes: each is delivered once, in
//! order within its flow, or counted under exactly one reason.

mod queue_world;

use std::collections::BTreeMap;

use queue_world::{HOST, Mark, Rig, TICK, drops, mark_of, mbit, packet};

use datapath::session::event::DropReason;

const CLIENTS: usize = 4;
const FLOWS: u16 = 3;
const PATH_MBIT: u64 = 20;

/// What came, by client and flow.
type Received = BTreeMap<(usize, u16), Vec<u64>>;

/// Sends for two seconds each way at `load` per cent of the path; returns sent, delivered and dropped
/// packets, down and up.
fn exchange(load: u64) -> [(u64, u64, u64); 2] {
    let mut rig = Rig::new(CLIENTS, 64, true);
    for client in 0..CLIENTS {
        rig.set_down_rate(client, mbit(PATH_MBIT));
        rig.set_up_rate(client, mbit(PATH_MBIT));
    }
    let lens = [1_400, 700, 90];
    let bytes_a_tick = PATH_MBIT * 125_000 * load / 100 * u64::try_from(TICK.as_nanos()).unwrap();
    let (mut credit, mut next) = (0, vec![0_u64; usize::from(FLOWS)]);
    let (mut down, mut up) = (Received::new(), Received::new());
    for tick in 0..60_000 {
        credit += if tick < 10_000 { bytes_a_tick } else { 0 };
        while tick < 10_000 && credit >= 1_400_000_000_000 {
            let flow = next.iter().sum::<u64>() % u64::from(FLOWS);
            let index = usize::try_from(flow).unwrap();
            let flow = u16::try_from(flow).unwrap();
            let (number, len) = (next[index], lens[index]);
            next[index] += 1;
            credit -= len as u64 * 1_000_000_000;
            for client in 0..CLIENTS {
                // Some say that they understand marks.
                let tos = if client % 2 == 0 { 0 } else { 2 };
                rig.inject(client, flow, number, len, tos);
                let sent_at = rig.now();
                let mark = Mark {
                    flow,
                    number,
                    sent_at,
                };
                let packet = packet(rig.address(client), HOST, mark, len, tos);
                rig.send(client, packet);
            }
        }
        rig.step();
        for packet in rig.take_inside() {
            let [low, high] = [packet[15], packet[14]];
            let number = u16::from_be_bytes([high, low]);
            let client = (0..CLIENTS).find(|&client| rig.number(client) == number);
            let mark = mark_of(&packet);
            let flow = (client.unwrap(), mark.flow);
            up.entry(flow).or_default().push(mark.number);
        }
    }
    for arrival in rig.take_arrivals() {
        let flow = (arrival.client, arrival.mark.flow);
        down.entry(flow).or_default().push(arrival.mark.number);
    }
    assert_eq!(rig.device_drops(), 0);
    let sent = next.iter().sum::<u64>() * CLIENTS as u64;
    let account = |name, received: &Received, counters| {
        let mut delivered = 0;
        for (flow, numbers) in received {
            let rises = numbers.is_sorted_by(|a, b| a < b);
            assert!(
                rises,
                "{name} at {load} %: {flow:?} came twice or out of order"
            );
            delivered += numbers.len() as u64;
        }
        let drops = drops(counters);
        println!("{name} at {load} %: {sent} sent, {delivered} delivered, {drops:?}");
        let known = |&(reason, _): &_| matches!(reason, DropReason::QueueFull | DropReason::Late);
        assert!(drops.iter().all(known), "{drops:?}");
        let dropped = drops.iter().map(|drop| drop.1).sum::<u64>();
        (sent, delivered, dropped)
    };
    let gateway = rig.gateway.counters();
    let clients = rig.clients.counters();
    let down = account("down", &down, gateway);
    let up = account("up", &up, clients);
    assert_eq!(
        gateway.totals.downlink_packets, down.1,
        "what is counted as carried"
    );
    assert_eq!(clients.totals.uplink_packets, up.1);
    assert_eq!(gateway.totals.uplink_packets, up.1);
    [down, up]
}

#[test]
fn nothing_lost_at_half_load() {
    for (sent, delivered, dropped) in exchange(50) {
        assert_eq!((delivered, dropped), (sent, 0));
    }
}

#[test]
fn nothing_lost_at_nine_tenths() {
    for (sent, delivered, dropped) in exchange(90) {
        assert_eq!((delivered, dropped), (sent, 0));
    }
}

#[test]
fn nothing_lost_without_a_reason_at_overload() {
    for (sent, delivered, dropped) in exchange(120) {
        assert_eq!(delivered + dropped, sent);
        assert!(
            dropped > 0 && delivered > sent * 3 / 4,
            "{delivered} of {sent}"
        );
    }
}
