//! What the engines carry.

use std::fmt;

use clap::ValueEnum;

/// Which way packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Direction {
    /// From the connections to the TUN.
    Up,
    /// From the TUN to the connections.
    Down,
}

/// Packets of one length in one direction, at one rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Case {
    pub(crate) direction: Direction,
    /// Of an IP packet.
    pub(crate) len: usize,
    /// Packets a second; `None`: as many as there is room for.
    pub(crate) rate: Option<u32>,
}

/// Far below what any engine can carry: waking up is most of the work.
const RATE: u32 = 40_000;

/// All of them, saturated first.
pub(crate) fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    for rate in [None, Some(RATE)] {
        for direction in [Direction::Up, Direction::Down] {
            for len in [1400, 100] {
                cases.push(Case {
                    direction,
                    len,
                    rate,
                });
            }
        }
    }
    cases
}

/// `up/1400/saturated`.
impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = match self.direction {
            Direction::Up => "up",
            Direction::Down => "down",
        };
        write!(f, "{direction}/{}/", self.len)?;
        match self.rate {
            None => f.write_str("saturated"),
            Some(rate) => write!(f, "{}kpps", rate / 1000),
        }
    }
}
