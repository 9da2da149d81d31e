use super::*;
use crate::testing::rng::Rng;

const ADDRESS: &str = "192.0.2.10:443";
const ECONNREFUSED: i32 = 111;

fn pair(seed: u64, faults: Faults) -> (Network, SimIo, SimIo) {
    let network = Network::new(seed, faults);
    let server = SimIo::new(
        &network,
        &SimConfig {
            listeners: vec![ADDRESS.parse().unwrap()],
            receive_buffers: 4,
            receive_buffer_len: 1024,
            ..SimConfig::default()
        },
    );
    let client = SimIo::new(&network, &SimConfig::default());
    (network, server, client)
}

fn turn(io: &mut SimIo) -> Vec<Completion> {
    let mut completions = Vec::new();
    io.turn(None, &mut completions).unwrap();
    completions
}

fn buffer(bytes: Vec<u8>) -> SendBuffer {
    SendBuffer {
        start: 0,
        end: bytes.len(),
        bytes: bytes.into_boxed_slice(),
    }
}

/// Connects and returns the ids at the client and at the server.
fn connect(
    network: &Network,
    server: &mut SimIo,
    client: &mut SimIo,
) -> (ConnectionId, ConnectionId) {
    let at_client = client.connect(ADDRESS.parse().unwrap(), None).unwrap();
    loop {
        for completion in turn(server) {
            if let Completion::Accepted { connection, .. } = completion {
                while !turn(client).iter().any(|completion| {
                    matches!(completion, Completion::Connected { result: Ok(()), .. })
                }) {
                    assert!(network.advance());
                }
                return (at_client, connection);
            }
        }
        assert!(network.advance());
    }
}

/// Sends `bytes` from the client, reads them at the server, to the end; returns what came.
fn transfer(seed: u64, faults: Faults, len: usize) -> (Vec<u8>, Vec<u8>, u64) {
    let (network, mut server, mut client) = pair(seed, faults);
    let (at_client, _) = connect(&network, &mut server, &mut client);
    let mut bytes = vec![0; len];
    crate::output::Entropy::fill(&mut Rng::new(seed), &mut bytes);
    client.send(at_client, buffer(bytes.clone()));
    client.shutdown(at_client);
    let mut received = Vec::new();
    let mut sent = 0;
    loop {
        let mut over = false;
        for completion in turn(&mut server) {
            match completion {
                Completion::Received { buffer, .. } => {
                    received.extend_from_slice(&buffer.bytes[..buffer.len]);
                    server.release(buffer);
                }
                Completion::ReceiveEnded { connection, .. } => {
                    over = true;
                    server.close(connection, false);
                }
                _ => {}
            }
        }
        for completion in turn(&mut client) {
            if matches!(completion, Completion::Sent { .. }) {
                sent += 1;
            }
        }
        if over {
            break;
        }
        assert!(
            network.advance(),
            "seed {seed}: stuck at {}",
            received.len()
        );
    }
    assert_eq!(sent, 1, "seed {seed}");
    client.close(at_client, false);
    while network.advance() {
        turn(&mut server);
        turn(&mut client);
    }
    assert_eq!(network.end_count(), 0, "seed {seed}");
    assert_eq!(server.connection_count() + client.connection_count(), 0);
    assert_eq!(server.buffers_available(), 4);
    (bytes, received, network.trace_hash())
}

#[test]
fn rough_paths_lose_nothing_and_one_seed_is_one_run() {
    for seed in 0..50 {
        let (sent, received, hash) = transfer(seed, Faults::rough(), 300_000);
        assert!(sent == received, "seed {seed}");
        assert_eq!(
            hash,
            transfer(seed, Faults::rough(), 300_000).2,
            "seed {seed}"
        );
        assert_ne!(hash, transfer(seed + 1, Faults::rough(), 300_000).2);
    }
}

#[test]
fn what_comes_over_a_breaking_path_is_a_prefix() {
    let mut broken = 0;
    for seed in 0..100 {
        let faults = Faults {
            reset_per_mille: 300,
            half_close_per_mille: 300,
            ..Faults::rough()
        };
        let (sent, received, _) = transfer(seed, faults, 10_000);
        assert!(sent.starts_with(&received), "seed {seed}");
        broken += u32::from(received.len() < sent.len());
    }
    assert!(broken > 10);
}

#[test]
fn a_connect_to_nobody_is_refused_and_its_id_dies() {
    let (network, _server, mut client) = pair(1, Faults::none());
    let id = client
        .connect("192.0.2.99:1".parse().unwrap(), None)
        .unwrap();
    assert!(network.advance() && network.advance());
    assert!(matches!(
        turn(&mut client).as_slice(),
        [Completion::Connected {
            result: Err(Loss::Os(ECONNREFUSED)),
            ..
        }]
    ));
    client.send(id, buffer(vec![1]));
    assert!(matches!(
        turn(&mut client).as_slice(),
        [Completion::Sent {
            result: Err(Loss::Reset),
            ..
        }]
    ));
}
#[test]
fn without_buffers_receiving_waits_for_them() {
    let (network, mut server, mut client) = pair(1, Faults::none());
    let (at_client, _) = connect(&network, &mut server, &mut client);
    client.send(at_client, buffer(vec![7; 10_000]));
    network.advance_by(Duration::from_millis(1));
    let mut held = Vec::new();
    for _ in 0..8 {
        held.extend(turn(&mut server));
    }
    assert_eq!(held.len(), 4);
    assert!(!server.has_work());
    for completion in held {
        if let Completion::Received { buffer, .. } = completion {
            server.release(buffer);
        }
    }
    assert!(server.has_work());
    assert_eq!(turn(&mut server).len(), 1);
}

#[test]
fn a_paused_receiver_stops_the_sender_and_goes_on() {
    let (network, mut server, mut client) = pair(1, Faults::none());
    let (at_client, at_server) = connect(&network, &mut server, &mut client);
    server.pause_receive(at_server);
    client.send(at_client, buffer(vec![7; 1 << 20]));
    while network.advance() {
        assert!(turn(&mut server).is_empty());
        assert!(turn(&mut client).is_empty());
    }
    server.resume_receive(at_server);
    let mut received = 0;
    let mut sent = 0;
    while received < 1 << 20 {
        for completion in turn(&mut server) {
            if let Completion::Received { buffer, .. } = completion {
                received += buffer.len;
                server.release(buffer);
            }
        }
        sent += turn(&mut client).len();
        let _ = network.advance();
    }
    assert_eq!(sent, 1);
}

/// When each of ten sends of 4,000 bytes over `path` ended, in ms, one behind the other.
fn send_ends(path: Path, unsent_limit: usize) -> Vec<u128> {
    let (network, mut server, mut client) = pair(1, Faults::none());
    let (connection, _) = connect(&network, &mut server, &mut client);
    client.set_path(connection, Some(path));
    client.set_unsent_limit(connection, unsent_limit);
    let (began, mut ends) = (network.now(), Vec::new());
    client.send(connection, buffer(vec![7; 4_000]));
    while ends.len() < 10 {
        for completion in turn(&mut client) {
            if let Completion::Sent { .. } = completion {
                ends.push(network.now().saturating_since(began).as_millis());
                client.send(connection, buffer(vec![7; 4_000]));
            }
        }
        for completion in turn(&mut server) {
            if let Completion::Received { buffer, .. } = completion {
                server.release(buffer);
            }
        }
        assert!(network.advance());
    }
    ends
}

#[test]
fn a_path_takes_no_further_send_while_as_much_is_unsent_as_may_be() {
    // 4 ms a send. The first two are taken at once: when the second begins, less than 6,000 are held.
    let path = |flight_len_max| Path {
        rate: 1_000_000,
        flight_len_max,
    };
    let at_once = |ends: Vec<u128>| ends.iter().take_while(|&&at| at == 0).count();
    let ends = send_ends(path(None), 6_000);
    assert_eq!(ends, [0, 0, 5, 9, 13, 17, 21, 25, 29, 33]);
    // With 12,000 under way the kernel holds them beside what is unsent.
    assert_eq!(at_once(send_ends(path(Some(12_000)), 6_000)), 5);
    assert_eq!(at_once(send_ends(path(Some(12_000)), 1)), 4);
}

#[test]
fn a_connection_moves_between_drivers_with_its_bytes() {
    for seed in 0..20 {
        let (network, mut server, mut client) = pair(seed, Faults::none());
        let (at_client, at_server) = connect(&network, &mut server, &mut client);
        let mut second = SimIo::new(&network, &SimConfig::default());
        client.send(at_client, buffer(b"before".to_vec()));
        network.advance_by(Duration::from_millis(1));
        let detached = server.detach(at_server).unwrap();
        assert!(server.detach(at_server).is_none());
        turn(&mut client);
        client.send(at_client, buffer(b"after".to_vec()));
        let moved = second.attach(detached).unwrap();
        network.advance_by(Duration::from_millis(1));
        let mut received = Vec::new();
        while received.len() < 11 {
            for completion in turn(&mut second) {
                if let Completion::Received { connection, buffer } = completion {
                    assert_eq!(connection, moved);
                    received.extend_from_slice(&buffer.bytes[..buffer.len]);
                    second.release(buffer);
                }
            }
        }
        assert_eq!(received, b"beforeafter", "seed {seed}");
    }
}

#[test]
fn packets_go_to_the_queue_the_steering_says() {
    let network = Network::new(1, Faults::none());
    let device = network.add_device(|packet| usize::from(packet[0]));
    let config = SimConfig {
        device: Some(device),
        ..SimConfig::default()
    };
    let mut shards = [SimIo::new(&network, &config), SimIo::new(&network, &config)];
    for packet in [[0, 10], [1, 11], [3, 13]] {
        network.inject(device, &packet);
    }
    let mut buffer = [0; 64];
    assert!(matches!(
        turn(&mut shards[0]).as_slice(),
        [Completion::TunReadable]
    ));
    assert_eq!(shards[0].tun_read(&mut buffer), TunRead::Packet(2));
    assert_eq!(shards[0].tun_read(&mut buffer), TunRead::Empty);
    assert_eq!(shards[1].tun_read(&mut buffer), TunRead::Packet(2));
    assert_eq!(shards[1].tun_read(&mut buffer), TunRead::Packet(2));
    assert_eq!(buffer[..2], [3, 13]);
    shards[1].tun_write(&[], &[9, 9]).unwrap();
    assert_eq!(network.take_written(device), [(1, vec![9, 9])]);
    network.fail_device(device, 77);
    assert_eq!(shards[0].tun_read(&mut buffer), TunRead::Failed(77));
}

#[test]
fn accepting_pauses_without_descriptors_and_goes_on() {
    let (network, mut server, mut client) = pair(1, Faults::none());
    server.starve(Some(24));
    let _ = client.connect(ADDRESS.parse().unwrap(), None).unwrap();
    network.advance_by(Duration::from_millis(150));
    let pauses = turn(&mut server);
    assert_eq!(pauses.len(), 2);
    assert!(
        pauses
            .iter()
            .all(|pause| matches!(pause, Completion::AcceptPaused { .. }))
    );
    server.starve(None);
    network.advance_by(Duration::from_secs(1));
    assert!(matches!(
        turn(&mut server).as_slice(),
        [Completion::Accepted { .. }]
    ));
}

#[test]
fn a_waker_makes_work() {
    let network = Network::new(1, Faults::none());
    let mut io = SimIo::new(&network, &SimConfig::default());
    let waker = io.waker();
    assert!(!io.has_work());
    waker.wake();
    waker.wake();
    assert!(io.has_work());
    assert!(matches!(turn(&mut io).as_slice(), [Completion::Woken]));
    assert!(!io.has_work());
}

#[test]
fn a_deadline_is_where_time_stops() {
    let network = Network::new(1, Faults::none());
    let mut io = SimIo::new(&network, &SimConfig::default());
    let deadline = network.now() + Duration::from_secs(86_400);
    io.turn(Some(deadline), &mut Vec::new()).unwrap();
    assert!(network.advance());
    assert_eq!(network.now(), deadline);
    assert!(io.has_work());
}

#[test]
fn a_host_that_dies_resets_its_connections() {
    let (network, mut server, mut client) = pair(1, Faults::none());
    let (at_client, _) = connect(&network, &mut server, &mut client);
    drop(server);
    network.advance_by(Duration::from_millis(1));
    assert!(matches!(
        turn(&mut client).as_slice(),
        [Completion::ReceiveEnded {
            loss: Loss::Reset,
            ..
        }]
    ));
    client.close(at_client, false);
    assert_eq!(network.end_count(), 0);
}

#[test]
fn a_client_that_leaves_while_connecting_is_noticed() {
    for turns in 0..3 {
        let (network, mut server, mut client) = pair(1, Faults::none());
        let id = client.connect(ADDRESS.parse().unwrap(), None).unwrap();
        for _ in 0..turns {
            assert!(network.advance());
            for completion in turn(&mut server) {
                assert!(matches!(completion, Completion::Accepted { .. }));
            }
        }
        client.close(id, false);
        while network.advance() {
            assert!(turn(&mut client).is_empty());
            for completion in turn(&mut server) {
                if let Completion::ReceiveEnded { connection, .. } = completion {
                    server.close(connection, false);
                }
            }
        }
        assert_eq!(network.end_count(), 0, "after {turns}");
    }
}
