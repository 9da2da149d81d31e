//! A client that stops reading costs a bounded amount of memory, and nobody else a packet.

mod queue_world;

use queue_world::{Rig, Source, drops, mbit, run};

use datapath::session::event::DropReason;
use datapath::session::transmit::LARGE_MAX;
use datapath::time::Duration;

const STALL: Duration = Duration::from_secs(3);

/// `stalled` of `count` clients stop reading, with bulk for them and a trickle for all others.
fn stall(count: usize, stalled: usize, buffers: usize) {
    let mut rig = Rig::new(count, buffers, false);
    let source = |client| {
        let bulk = Source::new(client, 1, 1_400, mbit(200 / stalled as u64));
        let trickle = Source::new(client, 1, 300, mbit(1));
        if client < stalled { bulk } else { trickle }
    };
    let mut sources: Vec<_> = (0..count).map(source).collect();
    for client in 0..count {
        rig.set_down_rate(client, mbit(50));
    }
    for client in 0..stalled {
        rig.stall(client, true);
    }
    run(&mut rig, &mut sources, STALL);
    for source in sources.iter_mut().take(stalled) {
        source.rate = 0;
    }
    run(&mut rig, &mut sources, Duration::from_millis(20));
    let lent = rig.gateway.send_buffers_lent();
    println!("{stalled} of {count} stand still: {lent} of {buffers} buffers are with them");
    assert!(lent <= LARGE_MAX * stalled, "{lent}");

    // They read again: what waited comes, and then what is new.
    for client in 0..stalled {
        rig.stall(client, false);
    }
    for source in sources.iter_mut().take(stalled) {
        source.rate = 125_000;
    }
    run(&mut rig, &mut sources, Duration::from_secs(2));
    for source in &mut sources {
        source.rate = 0;
    }
    run(&mut rig, &mut sources, Duration::from_secs(2));

    assert_eq!(rig.device_drops(), 0);
    let mut received = vec![Vec::new(); count];
    for arrival in rig.take_arrivals() {
        received[arrival.client].push(arrival.mark.number);
    }
    let mut lost = 0;
    for (client, source) in sources.iter().enumerate() {
        let numbers = &received[client];
        assert!(numbers.is_sorted(), "order of client {client}");
        if client < stalled {
            lost += source.sent - numbers.len() as u64;
            let last = numbers.last().copied();
            assert_eq!(last, Some(source.sent - 1), "client {client} has recovered");
        } else {
            assert_eq!(
                numbers.len() as u64,
                source.sent,
                "client {client} lost a packet"
            );
        }
    }
    let counted: u64 = drops(rig.gateway.counters())
        .iter()
        .map(|drop| drop.1)
        .sum();
    assert_eq!(counted, lost, "{:?}", drops(rig.gateway.counters()));
    assert!(rig.gateway.counters().drops(DropReason::QueueFull) > 0);
    assert_eq!(rig.gateway.send_buffers_lent(), 0, "all buffers are back");
}

#[test]
fn slow_reader_costs_nobody_else_a_packet() {
    stall(10, 1, 64);
}

#[test]
fn slow_readers_that_could_hold_the_whole_pool_leave_enough_to_others() {
    stall(60, 40, 32);
}
