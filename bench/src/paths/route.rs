//! Whose packet it is: inside address to session, and to the shard that owns it.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};

use datapath::io::ConnectionId;
use datapath::shard::route::{Directory, Local, Range};

use super::{Path, REPEATS, Work};

const POOL: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 0);
const POOL_LEN: u64 = 65_536;

/// The address of the session with this number.
fn address(number: usize) -> IpAddr {
    let number = u32::try_from(number).expect("a small number");
    Ipv4Addr::from(u32::from(POOL) + number).into()
}

/// As many addresses as are looked up in a run, spread over `sessions`.
fn asked(sessions: usize) -> Vec<IpAddr> {
    (0..REPEATS)
        .map(|at| address(at * 997 % sessions))
        .collect()
}

struct Find {
    local: Local,
    asked: Vec<IpAddr>,
}

impl Work for Find {
    fn run(&mut self) {
        for &address in &self.asked {
            black_box(self.local.find(black_box(address)));
        }
    }
}

struct Owner {
    directory: Directory,
    asked: Vec<IpAddr>,
}

impl Work for Owner {
    fn run(&mut self) {
        for &address in &self.asked {
            black_box(self.directory.owner(black_box(address)));
        }
    }
}

pub(super) fn paths() -> Vec<Path> {
    let mut paths: Vec<_> = [1, 1_000, 10_000]
        .into_iter()
        .map(|sessions| {
            let name = format!("route/session/{sessions}");
            Path::new(name, REPEATS, 0, move || {
                let mut local = Local::with_capacity(sessions);
                for number in 0..sessions {
                    let slot = u32::try_from(number).expect("a small number");
                    let session = ConnectionId {
                        slot,
                        generation: 1,
                    };
                    local.insert(address(number), session);
                }
                let asked = asked(sessions);
                Find { local, asked }
            })
        })
        .collect();
    paths.push(Path::new("route/shard/65536", REPEATS, 0, || {
        let range = Range::v4(POOL, POOL_LEN).expect("a pool");
        let directory = Directory::new(&[range]);
        let asked = asked(10_000);
        for &address in &asked {
            directory.claim(address, 1);
        }
        Owner { directory, asked }
    }));
    paths
}
