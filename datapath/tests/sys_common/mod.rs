//! What the tests of the drivers share: a loop that drives one, loopback sockets, and running a test on
//! each kind of driver.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::net::SocketAddr;

use datapath::io::{Completion, ConnectionId, Io as _, Loss, ReceiveBuffer, SendBuffer};
use datapath::sys::clock;
use datapath::sys::driver::{Choice, Config, Counters, Driver};
use datapath::sys::socket::{ListenOptions, listen};
use datapath::sys::uring::Rung;
use datapath::time::{Duration, Instant};

/// Nothing in these tests takes so long unless it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Small numbers, so that limits are met.
pub(crate) fn config() -> Config {
    Config {
        submission_entries: 64,
        receive_buffers: 16,
        receive_buffer_len: 16 * 1024,
        connections: 64,
        ..Config::default()
    }
}

/// A kind of driver, each of which passes the same tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// With the features of this rung.
    IoUring(Rung),
    Epoll,
}

impl Kind {
    pub(crate) fn choice(self) -> Choice {
        match self {
            Self::IoUring(rung) => Choice::IoUring(rung),
            Self::Epoll => Choice::Epoll,
        }
    }

    pub(crate) fn driver(self, config: Config) -> Driver {
        Driver::open(self.choice(), config).unwrap()
    }

    /// The full name of the test `name` on this driver.
    pub(crate) fn test(self, name: &str) -> String {
        match self {
            Self::IoUring(_) => format!("io_uring::{name}"),
            Self::Epoll => format!("epoll::{name}"),
        }
    }
}

/// io_uring as this kernel has it.
pub(crate) const URING: Kind = Kind::IoUring(Rung::NoArray);

/// Makes a test a driver of each function `fn name(kind: Kind)`.
#[allow(unused_macros, reason = "each test binary uses its part")]
macro_rules! on_every_driver {
    ($($name:ident),+ $(,)?) => {
        mod io_uring {
            $(#[test] fn $name() { super::$name(super::sys_common::URING); })+
        }
        mod epoll {
            $(#[test] fn $name() { super::$name(super::sys_common::Kind::Epoll); })+
        }
    };
}
#[allow(unused_imports, reason = "each test binary uses its part")]
pub(crate) use on_every_driver;

/// A driver that listens on a free port of 127.0.0.1.
pub(crate) fn server(kind: Kind, config: Config) -> (Driver, SocketAddr) {
    let listener = listen("127.0.0.1:0".parse().unwrap(), &ListenOptions::default()).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let driver = kind.driver(Config {
        listeners: vec![listener],
        ..config
    });
    (driver, address)
}

pub(crate) fn buffer(bytes: &[u8]) -> SendBuffer {
    SendBuffer {
        bytes: bytes.to_vec().into_boxed_slice(),
        start: 0,
        end: bytes.len(),
    }
}

/// Bytes in which every position can be recognised.
pub(crate) fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .collect()
}

pub(crate) fn deadline() -> Instant {
    clock::now() + PATIENCE
}

/// Turns until `done` says so; panics when it takes too long.
pub(crate) fn run(driver: &mut Driver, mut done: impl FnMut(&mut Driver, Completion) -> bool) {
    let deadline = deadline();
    let mut completions = Vec::new();
    loop {
        driver.turn(Some(deadline), &mut completions).unwrap();
        let mut finished = false;
        for completion in completions.drain(..) {
            finished |= done(driver, completion);
        }
        if finished {
            return;
        }
        assert!(
            clock::now() < deadline,
            "nothing happened for too long: {driver:?}"
        );
    }
}

/// Turns until a connection was accepted.
pub(crate) fn accept(driver: &mut Driver) -> ConnectionId {
    let mut accepted = None;
    run(driver, |_, completion| {
        if let Completion::Accepted { connection, .. } = completion {
            accepted = Some(connection);
        }
        accepted.is_some()
    });
    accepted.unwrap()
}

/// Turns until `len` bytes came on a connection (or its end), and gives every buffer back.
pub(crate) fn receive(
    driver: &mut Driver,
    from: ConnectionId,
    len: usize,
) -> Result<Vec<u8>, Loss> {
    let mut received = Vec::new();
    let mut end = None;
    run(driver, |driver, completion| {
        match completion {
            Completion::Received { connection, buffer } => {
                if connection == from {
                    received.extend_from_slice(&buffer.bytes[..buffer.len]);
                }
                driver.release(buffer);
            }
            Completion::ReceiveEnded { connection, loss } if connection == from => {
                end = Some(loss);
            }
            _ => {}
        }
        received.len() >= len || end.is_some()
    });
    match end {
        Some(loss) if received.len() < len => Err(loss),
        _ => Ok(received),
    }
}

/// What an echo server saw.
#[derive(Debug)]
pub(crate) struct Echoed {
    pub(crate) connections: usize,
    pub(crate) counters: Counters,
    pub(crate) buffers_back: bool,
    pub(crate) left: usize,
}

/// Echoes until `connections` came and went. Holds received buffers until the bytes are sent, so
/// that few buffers run out.
pub(crate) fn echo(driver: &mut Driver, connections: usize) -> Echoed {
    #[derive(Default)]
    struct Peer {
        waiting: std::collections::VecDeque<ReceiveBuffer>,
        sending: Option<ReceiveBuffer>,
        ended: bool,
    }
    fn forward(driver: &mut Driver, id: ConnectionId, peer: &mut Peer) -> bool {
        if peer.sending.is_none() {
            peer.sending = peer.waiting.pop_front();
            match &peer.sending {
                Some(received) => driver.send(id, buffer(&received.bytes[..received.len])),
                None if peer.ended => {
                    driver.close(id, false);
                    return true;
                }
                None => {}
            }
        }
        false
    }
    let all = driver.buffers_available();
    let mut peers = std::collections::BTreeMap::<ConnectionId, Peer>::new();
    let mut over = 0;
    run(driver, |driver, completion| {
        let id = match completion {
            Completion::Accepted { connection, .. } => {
                assert!(peers.insert(connection, Peer::default()).is_none());
                return false;
            }
            Completion::Received { connection, buffer } => {
                let peer = peers
                    .get_mut(&connection)
                    .expect("bytes of a live connection");
                peer.waiting.push_back(buffer);
                connection
            }
            Completion::ReceiveEnded { connection, loss } => {
                assert_eq!(loss, Loss::Finished);
                peers.get_mut(&connection).unwrap().ended = true;
                connection
            }
            Completion::Sent {
                connection, result, ..
            } => {
                assert_eq!(result, Ok(()));
                let sent = peers.get_mut(&connection).unwrap().sending.take();
                driver.release(sent.expect("one send a connection"));
                connection
            }
            _ => return false,
        };
        if forward(driver, id, peers.get_mut(&id).unwrap()) {
            peers.remove(&id);
            over += 1;
        }
        over == connections
    });
    let mut completions = Vec::new();
    let deadline = deadline();
    while driver.connection_count() > 0 {
        driver.turn(Some(deadline), &mut completions).unwrap();
        assert!(completions.is_empty(), "{completions:?}");
    }
    Echoed {
        connections: over,
        counters: driver.counters(),
        buffers_back: driver.buffers_available() == all,
        left: driver.connection_count(),
    }
}

/// Opens `count` connections to an echo server at once, sends `len` bytes on each in pieces, checks
/// that they come back, and closes.
pub(crate) fn echo_clients(kind: Kind, address: SocketAddr, count: usize, len: usize) {
    struct Client {
        bytes: Vec<u8>,
        sent: usize,
        received: usize,
    }
    fn piece(client: &Client) -> usize {
        let rest = client.bytes.len() - client.sent;
        // 1 to 4096 bytes, cut where the pattern says.
        let wish = usize::from(client.bytes[client.sent]) * 16 + 1;
        wish.min(rest)
    }
    fn send(driver: &mut Driver, id: ConnectionId, client: &mut Client) {
        let len = piece(client);
        driver.send(id, buffer(&client.bytes[client.sent..client.sent + len]));
        client.sent += len;
    }
    let mut driver = kind.driver(Config {
        connections: u32::try_from(count).unwrap(),
        receive_buffers: 64,
        ..config()
    });
    let mut clients = std::collections::BTreeMap::new();
    for number in 0..count {
        let id = driver.connect(address, None).unwrap();
        let client = Client {
            bytes: pattern(len, number as u64 + 1),
            sent: 0,
            received: 0,
        };
        clients.insert(id, client);
    }
    let mut over = 0;
    run(&mut driver, |driver, completion| {
        match completion {
            Completion::Connected { connection, result } => {
                assert_eq!(result, Ok(()));
                send(driver, connection, clients.get_mut(&connection).unwrap());
            }
            Completion::Sent {
                connection, result, ..
            } => {
                assert_eq!(result, Ok(()));
                let client = clients.get_mut(&connection).unwrap();
                if client.sent < client.bytes.len() {
                    send(driver, connection, client);
                } else {
                    driver.shutdown(connection);
                }
            }
            Completion::Received { connection, buffer } => {
                let client = clients.get_mut(&connection).unwrap();
                let end = client.received + buffer.len;
                assert!(client.bytes[client.received..end] == buffer.bytes[..buffer.len]);
                client.received = end;
                driver.release(buffer);
            }
            Completion::ReceiveEnded { connection, loss } => {
                assert_eq!(loss, Loss::Finished);
                assert_eq!(clients[&connection].received, len);
                driver.close(connection, false);
                over += 1;
            }
            _ => {}
        }
        over == count
    });
    assert_eq!(driver.counters().unclaimed, 0);
}

/// Runs one test of this binary again in a process of its own, under `command` (which gets the
/// program and its arguments appended) with `CHILD` set; panics with its output if it fails.
pub(crate) fn in_child(command: &[&str], test: &str) {
    let program = std::env::current_exe().unwrap();
    let (first, rest) = command.split_first().unwrap();
    let output = std::process::Command::new(first)
        .args(rest)
        .arg(program)
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env("CHILD", "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "the child failed, or there is no test {test:?}:\n{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

pub(crate) fn is_child() -> bool {
    std::env::var_os("CHILD").is_some()
}

/// Descriptors open in this process.
pub(crate) fn descriptor_count() -> usize {
    // The one that reads the directory is there both times.
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Runs the calling test in a new network namespace; returns whether this is the inside.
pub(crate) fn inside_namespace(test: &str) -> bool {
    if is_child() {
        return true;
    }
    let possible = std::process::Command::new("unshare")
        .args(["--net", "true"])
        .output();
    if possible.is_ok_and(|output| output.status.success())
        && std::path::Path::new("/dev/net/tun").exists()
    {
        in_child(&["unshare", "--net"], test);
    } else {
        skip(test, "needs root, unshare(1) and /dev/net/tun");
    }
    false
}

pub(crate) fn ip(arguments: &str) {
    let status = std::process::Command::new("ip")
        .args(arguments.split(' '))
        .status();
    assert!(status.unwrap().success(), "ip {arguments}");
}

/// Says loudly that test `name` did not run, and why; in $SSTP_GW_SKIPPED too.
pub(crate) fn skip(name: &str, why: &str) {
    eprintln!("SKIPPED {name}: {why}");
    if let Some(path) = std::env::var_os("SSTP_GW_SKIPPED") {
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.create(true).append(true).open(path).unwrap();
        std::io::Write::write_all(&mut file, format!("{name}: {why}\n").as_bytes()).unwrap();
    }
}
