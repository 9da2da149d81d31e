use std::collections::VecDeque;
use std::net::Ipv4Addr;

use super::*;

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const WINDOW: Window = Window {
    receive: 256 << 10,
    send: 256 << 10,
};
const DELAY: Duration = Duration::from_millis(5);

/// Two stacks and the line between them, which is as long as [`DELAY`].
struct Line {
    now: Instant,
    ends: [Stack; 2],
    under_way: VecDeque<(Instant, usize, Vec<u8>)>,
    sent: u64,
    /// Of every so many packets one is lost; none for 0.
    loses: u64,
}

impl Line {
    fn new(client: IpAddr, server: IpAddr) -> Self {
        let now = Instant::from_nanos(1_000_000_000);
        let stack = |address, seed| Stack::new(&Settings { mtu: 1400, seed }, &[address], now);
        Self {
            now,
            ends: [stack(client, 7), stack(server, 8)],
            under_way: VecDeque::new(),
            sent: 0,
            loses: 0,
        }
    }

    /// Whatever is next: a packet arrives, or a timer ends. `false` if nothing ever is.
    fn step(&mut self) -> bool {
        let timeouts = self.ends.iter().filter_map(Stack::next_timeout);
        let arrival = self.under_way.front().map(|(at, ..)| *at);
        let Some(next) = timeouts.chain(arrival).min() else {
            return false;
        };
        self.now = self.now.max(next);
        while let Some((_, end, packet)) = self.under_way.pop_front_if(|(at, ..)| *at <= self.now) {
            self.ends[end].handle_packet(self.now, &packet);
        }
        for (end, stack) in self.ends.iter_mut().enumerate() {
            if stack.next_timeout().is_some_and(|at| at <= self.now) {
                stack.handle_timeout(self.now, 64, |packet| {
                    assert!(packet.len() <= 1400);
                    self.sent += 1;
                    if !self.sent.is_multiple_of(self.loses) {
                        let arrives = self.now + DELAY;
                        self.under_way
                            .push_back((arrives, 1 - end, packet.to_vec()));
                    }
                });
            }
        }
        true
    }

    fn until(&mut self, done: impl Fn(&Self) -> bool) {
        for _ in 0..1_000_000 {
            if done(self) {
                return;
            }
            assert!(
                self.step(),
                "nothing will ever happen again: {:?}",
                self.ends
            );
        }
        panic!("it never ends: {:?}", self.ends);
    }
}

fn byte(index: usize) -> u8 {
    u8::try_from((index * 31 + index / 251) % 256).unwrap()
}

/// Moves `total` bytes up a connection; what the far end read.
fn deliver(line: &mut Line, total: usize) -> Vec<u8> {
    let listener = line.ends[1].listen(7, WINDOW);
    let to = SocketAddr::new(if line.ends[1].is_v6() { v6(1) } else { SERVER }, 7);
    let client = line.ends[0].connect(to, WINDOW).unwrap();
    let (mut written, mut read) = (0, Vec::new());
    while line.ends[0].state(&client) != State::Finished {
        let [near, far] = &mut line.ends;
        if near.writable(&client) > 0 {
            written += near.write(&client, |room| {
                let len = room.len().min(total - written);
                for (offset, place) in room[..len].iter_mut().enumerate() {
                    *place = byte(written + offset);
                }
                len
            });
            if written == total {
                near.finish(&client);
            }
        }
        if far.readable(&listener) > 0 {
            far.read(&listener, |bytes| {
                read.extend_from_slice(bytes);
                bytes.len()
            });
        }
        if far.state(&listener) == State::HalfOpen && far.readable(&listener) == 0 {
            far.finish(&listener);
        }
        assert!(line.step(), "stuck after {} bytes", read.len());
    }
    line.ends[0].release(client);
    line.ends[1].release(listener);
    line.until(|line| line.ends.iter().all(|end| end.known.is_empty()));
    read
}

fn v6(last: u16) -> IpAddr {
    IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, last])
}

impl Stack {
    fn is_v6(&self) -> bool {
        self.interface
            .ip_addrs()
            .iter()
            .any(|cidr| cidr.address() == v6(1).into())
    }
}

#[test]
fn a_megabyte_arrives_intact() {
    let expected: Vec<u8> = (0..1 << 20).map(byte).collect();
    for (client, server) in [(CLIENT, SERVER), (v6(2), v6(1))] {
        let mut line = Line::new(client, server);
        assert!(deliver(&mut line, 1 << 20) == expected);
        assert_eq!(line.ends[0].retransmitted(), 0);
    }
}

#[test]
fn what_is_lost_is_sent_again_and_counted() {
    let expected: Vec<u8> = (0..1 << 20).map(byte).collect();
    let mut line = Line::new(CLIENT, SERVER);
    line.loses = 50;
    assert!(deliver(&mut line, 1 << 20) == expected);
    assert!(line.ends[0].retransmitted() > 0);
}

#[test]
fn the_room_of_a_turn_is_kept() {
    let mut line = Line::new(CLIENT, SERVER);
    let listener = line.ends[1].listen(7, WINDOW);
    let client = line.ends[0]
        .connect(SocketAddr::new(SERVER, 7), WINDOW)
        .unwrap();
    line.until(|line| line.ends[0].state(&client) == State::Open);
    line.until(|line| line.ends[1].state(&listener) == State::Open);
    // It starts slowly: let the first bytes be acknowledged.
    line.ends[0].write(&client, |room| room.len() / 8);
    line.until(|line| line.ends[0].unacknowledged(&client) == 0);
    line.ends[0].write(&client, |room| room.len());
    let mut count = 0;
    line.ends[0].handle_timeout(line.now, 3, |_| count += 1);
    assert_eq!(count, 3);
    assert!(line.ends[0].next_timeout().is_some_and(|at| at <= line.now));
}

#[test]
fn each_failure_has_its_name() {
    let to = SocketAddr::new(SERVER, 7);
    // Nobody listens.
    let mut line = Line::new(CLIENT, SERVER);
    let client = line.ends[0].connect(to, WINDOW).unwrap();
    line.until(|line| line.ends[0].state(&client) != State::Opening);
    assert_eq!(line.ends[0].state(&client), State::Failed(Failure::Refused));
    // Nobody is there.
    line.loses = 1;
    let began = line.now;
    let client = line.ends[0].connect(to, WINDOW).unwrap();
    line.until(|line| line.ends[0].state(&client) != State::Opening);
    assert_eq!(
        line.ends[0].state(&client),
        State::Failed(Failure::Unanswered)
    );
    assert!(line.now.saturating_since(began) < CONNECT_WITHIN * 2);
    // It lets go in the middle.
    line.loses = 0;
    let listener = line.ends[1].listen(7, WINDOW);
    let client = line.ends[0].connect(to, WINDOW).unwrap();
    line.until(|line| line.ends[1].state(&listener) == State::Open);
    line.ends[1].release(listener);
    line.until(|line| line.ends[0].state(&client) != State::Open);
    assert_eq!(line.ends[0].state(&client), State::Failed(Failure::Reset));
    // It is gone in the middle, and we have nothing to say.
    let listener = line.ends[1].listen(7, WINDOW);
    let client = line.ends[0].connect(to, WINDOW).unwrap();
    line.until(|line| line.ends[1].state(&listener) == State::Open);
    line.loses = 1;
    line.until(|line| line.ends[0].state(&client) != State::Open);
    assert_eq!(line.ends[0].state(&client), State::Failed(Failure::Silent));
}

#[test]
fn an_idle_connection_stays() {
    let mut line = Line::new(CLIENT, SERVER);
    let listener = line.ends[1].listen(7, WINDOW);
    let client = line.ends[0]
        .connect(SocketAddr::new(SERVER, 7), WINDOW)
        .unwrap();
    line.until(|line| line.ends[1].state(&listener) == State::Open);
    let began = line.now;
    line.until(|line| line.now.saturating_since(began) > Duration::from_secs(3600));
    assert_eq!(line.ends[0].state(&client), State::Open);
}

#[test]
fn addresses_of_no_host_are_refused() {
    let mut line = Line::new(CLIENT, SERVER);
    for bad in [
        "0.0.0.0:7",
        "224.0.0.1:7",
        "255.255.255.255:7",
        "10.0.0.1:0",
        "[fd00::1]:7",
    ] {
        let to = bad.parse().unwrap();
        assert_eq!(
            line.ends[0].connect(to, WINDOW),
            Err(ConnectError::Unreachable),
            "{bad}"
        );
    }
}

#[test]
fn damaged_packets_do_no_harm() {
    let mut line = Line::new(CLIENT, SERVER);
    let client = line.ends[0]
        .connect(SocketAddr::new(SERVER, 7), WINDOW)
        .unwrap();
    let mut syn = Vec::new();
    line.ends[0].handle_timeout(line.now, 1, |packet| syn = packet.to_vec());
    line.ends[1].listen(7, WINDOW);
    for len in 0..syn.len() {
        line.ends[1].handle_packet(line.now, &syn[..len]);
    }
    for bit in 0..syn.len() * 8 {
        let mut packet = syn.clone();
        packet[bit / 8] ^= 1 << (bit % 8);
        line.ends[1].handle_packet(line.now, &packet);
    }
    assert!(line.ends[1].port.answers.len() <= ANSWERS_MAX);
    assert_eq!(line.ends[0].state(&client), State::Opening);
}
