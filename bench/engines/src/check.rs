//! Whether an engine carries what it is given: a short run of its own, before anything is measured.
//!
//! Every packet has a number. Up, the stream is cut where no frame ends; whoever is inside looks at
//! source, length, number and every byte. Down, the clients take every frame apart and look whose it
//! is. The counters of the device must agree, and the kernel must have found no broken header.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::case::Direction;
use crate::clients::Clients;
use crate::rig::{self, Counted};
use crate::traffic::{self, CONNECTIONS, HEADER_LEN, INSIDE, IP_UDP_LEN, PORT};

/// Packets of each client: whole runs.
const PACKETS: u32 = 40 * RUN;
/// Packets under way at once: fewer than the queues of the device and of a socket hold.
const WINDOW: u32 = 64;
/// For the next packet to come.
const PATIENCE: Duration = Duration::from_secs(5);
/// Packets of a run for one client.
const RUN: u32 = 4;

/// Which packets came, and how.
#[derive(Debug)]
struct Seen {
    packets: Vec<bool>,
    count: u32,
    last: Vec<Option<u32>>,
    /// Packets that came after a later one of the same client.
    late: u32,
}

impl Seen {
    fn new() -> Self {
        let total = CONNECTIONS * usize::try_from(PACKETS).unwrap_or(0);
        Self {
            packets: vec![false; total],
            count: 0,
            last: vec![None; CONNECTIONS],
            late: 0,
        }
    }

    /// Notes packet `sequence` of client `index`, or says what is wrong with it.
    fn note(&mut self, index: usize, sequence: u32) -> io::Result<()> {
        let wrong = |what| io::Error::other(format!("packet {sequence} of client {index} {what}"));
        if index >= CONNECTIONS || sequence >= PACKETS {
            return Err(wrong("was never sent"));
        }
        let number = index * PACKETS as usize + sequence as usize;
        if std::mem::replace(&mut self.packets[number], true) {
            return Err(wrong("came twice"));
        }
        self.count += 1;
        if self.last[index].is_some_and(|last| last > sequence) {
            self.late += 1;
        } else {
            self.last[index] = Some(sequence);
        }
        Ok(())
    }
}

/// Checks the pump between `clients`; tells how many packets came out of order.
pub(crate) fn run(
    clients: &mut Clients,
    direction: Direction,
    len: usize,
    device: &str,
) -> io::Result<u32> {
    let before = rig::counted(device)?;
    let seen = match direction {
        Direction::Up => up(clients, len)?,
        Direction::Down => down(clients, len)?,
    };
    let after = rig::counted(device)?;
    let total = u64::from(seen.count);
    let expected = match direction {
        Direction::Up => Counted {
            written: before.written + total,
            ..before
        },
        Direction::Down => Counted {
            read: before.read + total,
            ..before
        },
    };
    if after != expected {
        let what = format!("the kernel counted {after:?} where {expected:?} was sent");
        return Err(io::Error::other(what));
    }
    Ok(seen.late)
}

fn total() -> u32 {
    PACKETS * u32::try_from(CONNECTIONS).unwrap_or(0)
}

fn missing(seen: &Seen) -> io::Error {
    io::Error::other(format!("{} of {} packets came", seen.count, total()))
}

fn up(clients: &mut Clients, len: usize) -> io::Result<Seen> {
    let frame_len = len + HEADER_LEN;
    let mut streams: Vec<Vec<u8>> = vec![Vec::new(); CONNECTIONS];
    for (index, stream) in streams.iter_mut().enumerate() {
        for sequence in 0..PACKETS {
            stream.extend(traffic::header(len));
            stream.extend(traffic::packet(index, sequence, len));
        }
    }
    // Two frames and a third of one.
    let piece_len = 2 * frame_len + frame_len / 3;
    let mut starts = vec![0; CONNECTIONS];
    let (mut sent, mut next) = (0, 0);
    let mut seen = Seen::new();
    let mut buffer = vec![0; 2 * len];
    clients.inside.set_read_timeout(Some(PATIENCE))?;
    while seen.count < total() {
        while sent < total() && sent - seen.count < WINDOW {
            let (stream, start) = (&streams[next], &mut starts[next]);
            let end = (*start + piece_len).min(stream.len());
            write_all(&mut clients.streams[next], &stream[*start..end])?;
            let whole = end / frame_len - *start / frame_len;
            sent += u32::try_from(whole).unwrap_or(u32::MAX);
            *start = end;
            next = (next + 1) % CONNECTIONS;
        }
        let Ok((came, from)) = clients.inside.recv_from(&mut buffer) else {
            return Err(missing(&seen));
        };
        let Some((index, sequence)) = traffic::read_payload(&buffer[..came], len) else {
            return Err(io::Error::other(
                "a packet came that was not sent like that",
            ));
        };
        if from.ip() != IpAddr::V4(traffic::client(index)) || from.port() != PORT {
            return Err(io::Error::other(format!(
                "a packet of client {index} came from {from}"
            )));
        }
        seen.note(index, sequence)?;
    }
    Ok(seen)
}

/// Writes all of it to a socket that does not block.
fn write_all(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.write_all(bytes)?;
    stream.set_nonblocking(true)
}

fn down(clients: &mut Clients, len: usize) -> io::Result<Seen> {
    let mut seen = Seen::new();
    let mut kept: Vec<Vec<u8>> = vec![Vec::new(); CONNECTIONS];
    let mut sent = 0;
    let mut last = (0, Instant::now());
    while seen.count < total() {
        while sent < total() && sent - seen.count < WINDOW {
            // Runs for one client after the other, round and round.
            let (run, step) = (sent / RUN, sent % RUN);
            let index = run as usize % CONNECTIONS;
            let sequence = (run / u32::try_from(CONNECTIONS).unwrap_or(1)) * RUN + step;
            sent += 1;
            let payload = traffic::payload(index, sequence, len);
            let to = (traffic::client(index), PORT);
            clients.inside.send_to(&payload, to)?;
        }
        for (index, kept) in kept.iter_mut().enumerate() {
            receive(&mut clients.streams[index], kept)?;
            while let Some(frame) = traffic::frame_len(kept)? {
                let sequence = inspect(&kept[HEADER_LEN..frame], index, len)?;
                seen.note(index, sequence)?;
                kept.drain(..frame);
            }
        }
        if seen.count > last.0 {
            last = (seen.count, Instant::now());
        } else if last.1.elapsed() > PATIENCE {
            return Err(missing(&seen));
        } else {
            thread::sleep(Duration::from_micros(50));
        }
    }
    Ok(seen)
}

/// Receives what is there.
fn receive(stream: &mut TcpStream, kept: &mut Vec<u8>) -> io::Result<()> {
    let mut buffer = [0; 16 << 10];
    match stream.read(&mut buffer) {
        Ok(0) => Err(io::Error::other("the pump closed a connection")),
        Ok(len) => {
            kept.extend_from_slice(&buffer[..len]);
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        Err(error) => Err(error),
    }
}

/// The number of a packet that came to client `index`.
fn inspect(packet: &[u8], index: usize, len: usize) -> io::Result<u32> {
    let is_for_it = packet.get(12..16) == Some(&INSIDE.octets())
        && packet.get(16..20) == Some(&traffic::client(index).octets());
    let payload = packet.get(IP_UDP_LEN..).unwrap_or_default();
    match traffic::read_payload(payload, len) {
        Some((owner, sequence)) if owner == index && is_for_it => Ok(sequence),
        _ => Err(io::Error::other(format!(
            "client {index} got a packet that was not sent to it like that"
        ))),
    }
}
