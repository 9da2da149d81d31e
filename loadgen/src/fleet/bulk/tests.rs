use std::net::Ipv4Addr;

use super::*;

const START: Instant = Instant::from_nanos(5_000_000_000);
const FAR: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const WINDOW: Window = Window {
    receive: 65_536,
    send: 65_536,
};
const DURATION: Duration = Duration::from_millis(200);

fn own(member: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0002 + member).into()
}

/// One connection of the far end, which does as `loadgen reflect` does.
struct Served {
    connection: Connection,
    head: Vec<u8>,
    request: Option<(Request, Pattern)>,
    is_right: bool,
    is_done: bool,
}

/// Two sessions of a shard, and the far end of both.
struct World {
    now: Instant,
    bulk: Bulk,
    counts: Counts,
    far: Stack,
    served: Vec<Served>,
    to_far: Vec<Vec<u8>>,
    /// Up, until it is cut.
    is_up: bool,
}

impl World {
    fn new(up: bool, down: bool, listeners: usize) -> Self {
        let plan = Plan {
            up,
            down,
            to: SocketAddr::new(FAR, 7100),
            window: 65_536,
            raw: false,
        };
        let mut bulk = Bulk::new(plan, 7, START, DURATION);
        for member in 0..2 {
            bulk.add(member, member * 2, own(member));
        }
        let settings = Settings {
            mtu: MTU,
            seed: 1234,
        };
        let mut far = Stack::new(&settings, &[FAR], START);
        let served = (0..listeners).map(|_| Served {
            connection: far.listen(7100, WINDOW),
            head: Vec::new(),
            request: None,
            is_right: true,
            is_done: false,
        });
        Self {
            now: START,
            bulk,
            counts: Counts::default(),
            served: served.collect(),
            far,
            to_far: Vec::new(),
            is_up: true,
        }
    }

    fn serve(&mut self) {
        for served in &mut self.served {
            let far = &mut self.far;
            let connection = &served.connection;
            while far.readable(connection) > 0 {
                far.read(connection, |bytes| {
                    let missing = (REQUEST_LEN - served.head.len()).min(bytes.len());
                    served.head.extend_from_slice(&bytes[..missing]);
                    if let Ok(message) = <&[u8; REQUEST_LEN]>::try_from(&served.head[..]) {
                        let request = Request::parse(message).expect("it is a request");
                        let (_, pattern) = served
                            .request
                            .get_or_insert_with(|| (request, request.pattern()));
                        served.is_right &= pattern.check(&bytes[missing..]);
                    }
                    bytes.len()
                });
            }
            let Some((request, pattern)) = &mut served.request else {
                continue;
            };
            let is_upload = request.kind == Kind::Upload;
            if !served.is_done && is_upload && far.state(connection) == State::HalfOpen {
                let verdict = Verdict {
                    run: request.run,
                    session: request.session,
                    received: pattern.at(),
                    damaged: u64::from(!served.is_right),
                };
                far.write(connection, |room| {
                    room[..VERDICT_LEN].copy_from_slice(&verdict.emit());
                    VERDICT_LEN
                });
                served.is_done = true;
            } else if !served.is_done && !is_upload {
                far.write(connection, |room| {
                    pattern.fill(room);
                    room.len()
                });
                served.is_done = self.now >= START + DURATION;
            }
            if served.is_done && far.state(connection) != State::Finished {
                far.finish(connection);
            }
        }
    }

    /// Runs until nothing is open, or `until`.
    fn run(&mut self, until: Instant) {
        while self.bulk.open() > 0 && self.now < until {
            let timeouts = [self.bulk.next_timeout(), self.far.next_timeout()];
            let next = timeouts.into_iter().flatten().min();
            let step = Duration::from_micros(100);
            // Each packet takes a while, and nobody sleeps longer than there is to do.
            self.now = next.map_or(self.now + step, |next| next.max(self.now + step));
            let (to_far, is_up) = (&mut self.to_far, self.is_up);
            self.bulk
                .handle_timeout(self.now, &mut self.counts, |_, packet| {
                    if is_up {
                        to_far.push(packet.to_vec());
                    }
                    is_up
                });
            for packet in self.to_far.drain(..) {
                self.far.handle_packet(self.now, &packet);
            }
            self.serve();
            let (bulk, counts) = (&mut self.bulk, &mut self.counts);
            self.far.handle_timeout(self.now, usize::MAX, |packet| {
                let to = IpAddr::from([packet[16], packet[17], packet[18], packet[19]]);
                let member = u32::from(packet[19]) - 2;
                bulk.handle_packet(self.now, member, to, packet, counts);
            });
        }
        self.bulk.finish(&mut self.counts);
    }
}

const LATE: Instant = Instant::from_nanos(120_000_000_000);

#[test]
fn both_ways_at_once_finish_and_are_right() {
    let mut world = World::new(true, true, 4);
    assert_eq!(world.bulk.next_timeout(), Some(START));
    world.run(LATE);
    let counts = &world.counts;
    assert_eq!((counts.connections, counts.opened), (4, 4));
    assert_eq!((counts.finished, counts.unfinished), (4, 0));
    assert_eq!((counts.corrupted, counts.wrong_session), (0, 0));
    assert_eq!(
        (counts.failures(), counts.reset, counts.ended_early),
        (0, 0, 0)
    );
    assert!(counts.up.bytes > 100_000 && counts.down.bytes > 100_000);
    assert_eq!((counts.up.transfers, counts.down.transfers), (2, 2));
    assert!(counts.up.min > Some(0) && counts.up.min <= Some(counts.up.max));
    assert!(world.served.iter().all(|served| served.is_right));
}

#[test]
fn a_far_end_that_refuses_is_counted() {
    let mut world = World::new(true, false, 0);
    world.run(LATE);
    assert_eq!((world.counts.refused, world.counts.up.transfers), (2, 2));
    assert_eq!((world.counts.failures(), world.bulk.open()), (2, 0));
}

#[test]
fn a_session_that_is_gone_does_not_spin() {
    let mut world = World::new(true, false, 2);
    world.is_up = false;
    let later = START + DURATION * 4;
    world.run(later);
    assert_eq!(world.bulk.next_timeout().filter(|at| *at <= later), None);
    assert_eq!((world.counts.unfinished, world.counts.finished), (2, 0));
}

#[test]
fn bytes_that_are_not_those_that_were_sent_are_told() {
    let mut world = World::new(false, true, 2);
    // The far end sends each what it thinks is another's.
    for (served, session) in world.served.iter_mut().zip([5, 6]) {
        let request = Request {
            kind: Kind::Download,
            run: 7,
            session,
            bytes: 0,
            duration_ms: 0,
        };
        served.request = Some((request, request.pattern()));
    }
    world.run(LATE);
    assert_eq!((world.counts.corrupted, world.counts.opened), (2, 2));
    assert!(!world.counts.is_sound());
}

#[test]
fn a_segment_for_another_session_is_told() {
    let mut world = World::new(true, false, 2);
    let mut counts = Counts::default();
    world
        .bulk
        .handle_packet(START, 0, own(1), &[0x45; 40], &mut counts);
    assert_eq!(counts.wrong_session, 1);
}
