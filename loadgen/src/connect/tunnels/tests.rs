use std::net::Ipv4Addr;

use datapath::time::Duration;

use super::*;
use crate::stack::Failure;

const OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const FAR: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const PORT: u16 = 80;

/// Tunnels, the host at their other end, and a program that has connected.
struct World {
    now: Instant,
    tunnels: Tunnels,
    far: Stack,
    arrive: mpsc::Sender<Arrived>,
}

/// The program's ends of its pipe.
struct Program {
    write: Option<mpsc::Sender<Vec<u8>>>,
    read: Option<mpsc::Receiver<Vec<u8>>>,
    fault: Fault,
}

fn addresses(ipv4: Ipv4Addr) -> Addresses {
    Addresses {
        ipv4: Some(ipv4),
        ..Addresses::default()
    }
}

impl World {
    fn new() -> Self {
        let now = Instant::from_nanos(1_000_000_000);
        let (arrive, arrivals) = mpsc::channel(4);
        let mut tunnels = Tunnels::new(arrivals, 1);
        tunnels.up(now, &addresses(OWN));
        let settings = stack::Settings { mtu: MTU, seed: 2 };
        let far = Stack::new(&settings, &[FAR.into()], now);
        Self {
            now,
            tunnels,
            far,
            arrive,
        }
    }

    fn connect(&self, port: u16) -> Program {
        let (write, from_local) = mpsc::channel(4);
        let (to_local, read) = mpsc::channel(4);
        let fault = Fault::default();
        let pipe = Pipe {
            from_local,
            to_local,
            fault: fault.clone(),
        };
        let to = SocketAddr::new(FAR.into(), port);
        self.arrive.try_send(Arrived { to, pipe }).unwrap();
        Program {
            write: Some(write),
            read: Some(read),
            fault,
        }
    }

    /// Both sides work for a while, a millisecond a turn.
    fn settle(&mut self) {
        for _ in 0..2_000 {
            let (mut up, mut down) = (Vec::new(), Vec::new());
            self.tunnels
                .poll(self.now, |packet| up.push(packet.to_vec()));
            self.far
                .handle_timeout(self.now, 64, |packet| down.push(packet.to_vec()));
            self.now = self.now + Duration::from_millis(1);
            up.iter()
                .for_each(|packet| self.far.handle_packet(self.now, packet));
            for packet in &down {
                self.tunnels.handle_packet(self.now, packet);
            }
        }
    }
}

impl Program {
    /// What has come, and whether it was all.
    fn take(&mut self) -> (Vec<u8>, bool) {
        let mut bytes = Vec::new();
        loop {
            match self.read.as_mut().unwrap().try_recv() {
                Ok(chunk) => bytes.extend(chunk),
                Err(TryRecvError::Empty) => return (bytes, false),
                Err(TryRecvError::Disconnected) => return (bytes, true),
            }
        }
    }
}

const WIDE: Window = Window {
    receive: 1 << 20,
    send: 4 << 20,
};

#[test]
fn each_end_of_stream_is_told_alone_and_the_other_direction_goes_on() {
    let mut world = World::new();
    let server = world.far.listen(PORT, WIDE);
    let mut program = world.connect(PORT);
    program
        .write
        .as_ref()
        .unwrap()
        .try_send(b"request".to_vec())
        .unwrap();
    program.write = None;
    world.settle();
    assert_eq!(world.far.state(&server), State::HalfOpen);
    let mut request = Vec::new();
    world.far.read(&server, |bytes| {
        request.extend_from_slice(bytes);
        bytes.len()
    });
    assert_eq!(request, b"request");
    assert_eq!(
        program.take(),
        (Vec::new(), false),
        "the answer may still come"
    );

    world.far.write(&server, |room| {
        room[..6].copy_from_slice(b"answer");
        6
    });
    world.settle();
    assert_eq!(program.take(), (b"answer".to_vec(), false));
    world.far.finish(&server);
    world.settle();
    assert_eq!(program.take(), (Vec::new(), true));
    assert!(!program.fault.is_set());
    assert!(world.tunnels.open.is_empty());
}

#[test]
fn a_program_that_does_not_read_stops_the_far_end_at_a_bound() {
    let mut world = World::new();
    let server = world.far.listen(PORT, WIDE);
    let mut program = world.connect(PORT);
    world.settle();
    let mut written = 0;
    loop {
        let now = world.far.write(&server, |room| {
            room.fill(7);
            room.len()
        });
        written += now;
        world.settle();
        if now == 0 {
            break;
        }
    }
    let under_way = written - world.far.unacknowledged(&server);
    let bound = WINDOW.receive + 5 * CHUNK_LEN;
    assert!(
        under_way > CHUNK_LEN && under_way <= bound,
        "{under_way} of {bound}"
    );
    // It reads again, and all of it comes.
    let mut read = 0;
    while read < written {
        let (bytes, is_all) = program.take();
        assert!(!is_all && bytes.iter().all(|&byte| byte == 7));
        read += bytes.len();
        world.settle();
    }
    assert_eq!(read, written);
}

#[test]
fn a_far_end_that_does_not_read_stops_the_program() {
    let mut world = World::new();
    let narrow = Window {
        receive: 10_000,
        send: 10_000,
    };
    let server = world.far.listen(PORT, narrow);
    let program = world.connect(PORT);
    let write = program.write.as_ref().unwrap();
    let mut chunks = 0;
    loop {
        while write.try_send(vec![9; CHUNK_LEN]).is_ok() {
            chunks += 1;
        }
        let before = chunks;
        world.settle();
        if write.capacity() == 0 {
            break;
        }
        assert!(before * CHUNK_LEN <= WINDOW.send + 6 * CHUNK_LEN + 10_000);
    }
    assert_eq!(world.far.readable(&server), 10_000);
}

#[test]
fn a_reset_of_either_side_is_one_on_the_other() {
    let mut world = World::new();
    let server = world.far.listen(PORT, WIDE);
    let mut program = world.connect(PORT);
    world.settle();
    world.far.release(server);
    world.settle();
    assert!(program.take().1 && program.fault.is_set());
    assert!(world.tunnels.take_failures()[0].contains("reset"));

    let server = world.far.listen(PORT, WIDE);
    let mut program = world.connect(PORT);
    world.settle();
    program.fault.set();
    program.write = None;
    program.read = None;
    world.settle();
    assert_eq!(world.far.state(&server), State::Failed(Failure::Reset));
    assert!(world.tunnels.open.is_empty());

    // Nobody listens there.
    let mut program = world.connect(PORT + 1);
    world.settle();
    assert!(program.take().1 && program.fault.is_set());
    assert!(world.tunnels.take_failures()[0].contains("refused"));
}

#[test]
fn connections_outlive_a_session_whose_addresses_come_back_and_no_other() {
    let mut world = World::new();
    let server = world.far.listen(PORT, WIDE);
    let mut program = world.connect(PORT);
    world.settle();
    world.tunnels.up(world.now, &addresses(OWN));
    world.far.write(&server, |room| {
        room[..5].copy_from_slice(b"still");
        5
    });
    world.settle();
    assert_eq!(program.take(), (b"still".to_vec(), false));

    world
        .tunnels
        .up(world.now, &addresses(Ipv4Addr::new(10, 0, 0, 9)));
    assert!(program.take().1 && program.fault.is_set());
}

#[test]
fn both_ends_are_told_before_the_session_ends() {
    let mut world = World::new();
    let server = world.far.listen(PORT, WIDE);
    let mut program = world.connect(PORT);
    world.settle();
    let mut last = Vec::new();
    world
        .tunnels
        .close(world.now, |packet| last.push(packet.to_vec()));
    for packet in &last {
        world.far.handle_packet(world.now, packet);
    }
    assert_eq!(world.far.state(&server), State::Failed(Failure::Reset));
    assert!(program.take().1 && program.fault.is_set());
}
