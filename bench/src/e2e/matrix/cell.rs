//! The cells: every direction with every size, number of sessions, number of shards, driver and way of
//! TLS, and the packets of each.

use serde::Serialize;

use super::super::Options;
use super::super::client::Client;
use super::super::load::{Flow, Sample};
use crate::floor::traffic::{Direction, IMIX, Kind};

/// Sessions that are up, and take turns.
pub(super) const SESSIONS: [usize; 3] = [1, 64, 1000];

/// What the packets are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    /// Datagrams of so many bytes, headers included, each of a flow of its own.
    Udp(usize),
    /// Datagrams of 64, 576 and 1,400 bytes, 7:4:1, each of a flow of its own.
    Imix,
    /// Segments of 1,400 bytes, one flow a session: superpackets downlink, packed records uplink.
    Bulk,
}

/// All of them.
pub(super) const SIZES: [Size; 5] = [
    Size::Udp(64),
    Size::Udp(512),
    Size::Udp(1400),
    Size::Imix,
    Size::Bulk,
];

/// Both ways, and their words.
pub(super) const DIRECTIONS: [(Direction, &str); 2] =
    [(Direction::Downlink, "down"), (Direction::Uplink, "up")];

/// What a gateway runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Engine {
    /// Of the gateway.
    pub shards: u16,
    /// `shards.driver`
    pub driver: &'static str,
    /// `tls.kernel = "require"` instead of `"off"`.
    pub kernel_tls: bool,
}

impl Engine {
    /// As it is told in names.
    #[must_use]
    pub fn words(&self) -> String {
        let plural = if self.shards == 1 { "" } else { "s" };
        let tls = if self.kernel_tls { "+ktls" } else { "" };
        format!("{} shard{plural}/{}{tls}", self.shards, self.driver)
    }
}

/// The engines of a host; the first is that of the rows beside the floor.
pub(super) fn engines(processors: usize, has_kernel_tls: bool) -> Vec<Engine> {
    let mut engines = Vec::new();
    for kernel_tls in [false, true] {
        for shards in [1, 2] {
            for driver in ["io_uring", "epoll"] {
                engines.push(Engine {
                    shards,
                    driver,
                    kernel_tls,
                });
            }
        }
    }
    engines.retain(|engine| {
        usize::from(engine.shards) <= processors && (has_kernel_tls || !engine.kernel_tls)
    });
    engines
}

/// Where a cell stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Dims {
    /// `down` or `up`.
    pub direction: &'static str,
    /// `64`, `512` and `1400` are bytes of a datagram, `imix` and `bulk` are mixes of them and TCP.
    pub size: &'static str,
    /// Sessions that are up, and take turns.
    pub sessions: usize,
    /// What the gateway runs on.
    #[serde(flatten)]
    pub engine: Engine,
}

impl Dims {
    /// `matrix/` and all of it.
    #[must_use]
    pub fn name(&self) -> String {
        let Self {
            direction,
            size,
            sessions,
            engine,
        } = self;
        let plural = if *sessions == 1 { "" } else { "s" };
        let engine = engine.words();
        format!("matrix/{direction}/{size}/{sessions} session{plural}/{engine}")
    }
}

impl Size {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Udp(64) => "64",
            Self::Udp(512) => "512",
            Self::Udp(_) => "1400",
            Self::Imix => "imix",
            Self::Bulk => "bulk",
        }
    }

    /// The floor's figure of the same packets.
    pub(super) const fn floor(self, direction: Direction) -> &'static str {
        match (direction, self) {
            (Direction::Downlink, Self::Udp(64)) => "pump/down udp/64",
            (Direction::Downlink, Self::Udp(512)) => "pump/down udp/512",
            (Direction::Downlink, Self::Udp(_)) => "pump/down udp/1400",
            (Direction::Downlink, Self::Imix) => "pump/down udp/imix",
            (Direction::Downlink, Self::Bulk) => "pump/down tcp",
            (Direction::Uplink, Self::Udp(64)) => "pump/up udp/64",
            (Direction::Uplink, Self::Udp(512)) => "pump/up udp/512",
            (Direction::Uplink, Self::Udp(_)) => "pump/up udp/1400",
            (Direction::Uplink, Self::Imix) => "pump/up udp/imix",
            (Direction::Uplink, Self::Bulk) => "pump/up tcp, packed records",
        }
    }

    /// Whether a run of less measures it too.
    const fn is_in_quick(self) -> bool {
        matches!(self, Self::Udp(64 | 1400) | Self::Bulk)
    }

    /// The packets to or from `clients`. A burst is as large for many sessions as for one, and dealt to
    /// them: so many packets in a row each.
    pub(super) fn flow(self, clients: &[Client], direction: Direction) -> Flow {
        let Deal {
            burst,
            turn,
            repeat,
        } = self.deal(direction, clients.len());
        let (kind, lens): (Kind, &[usize]) = match &self {
            Self::Udp(len) => (Kind::UdpFlows, std::slice::from_ref(len)),
            Self::Imix => (Kind::UdpFlows, &IMIX),
            Self::Bulk => (Kind::Tcp, &[1400]),
        };
        // A superpacket is one shot.
        let is_merged = kind == Kind::Tcp && direction == Direction::Downlink;
        let group = if is_merged { 1 } else { turn };
        Flow::mixed(clients, kind, direction, lens, repeat)
            .with_burst(burst as u64)
            .with_group(group)
    }

    fn deal(self, direction: Direction, sessions: usize) -> Deal {
        let is_bulk = self == Self::Bulk;
        // With one session, those of the rows beside the floor.
        let (burst, most) = match (direction, is_bulk) {
            (Direction::Downlink, true) => (768, 48),
            (Direction::Downlink, false) => (384, 384),
            (Direction::Uplink, true) => (2_880, 96),
            (Direction::Uplink, false) => (1_536, 96),
        };
        // TCP sends an initial window at least (RFC 6928).
        let least = if is_bulk { 10 } else { 1 };
        let turn = (burst / sessions.max(1)).clamp(least, most);
        let repeat = match (sessions, is_bulk) {
            (..=1, true) => 48 * 8,
            (..=1, false) if self == Self::Imix => 21 * IMIX.len(),
            (..=1, false) => 256,
            (_, true) => turn,
            // Whole mixes.
            (_, false) => turn.next_multiple_of(IMIX.len()),
        };
        Deal {
            burst,
            turn,
            repeat,
        }
    }
}

/// How packets come to sessions.
#[derive(Debug, PartialEq, Eq)]
struct Deal {
    /// Packets of all sessions at a time.
    burst: usize,
    /// Packets of one before the next one's.
    turn: usize,
    /// Packets of one before they repeat.
    repeat: usize,
}

/// The cells of a group differ in their engine alone, and are measured one right after the other.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) direction: Direction,
    pub(super) size: Size,
    pub(super) sessions: usize,
    pub(super) cells: Vec<Measured>,
    /// Nanoseconds a packet that the floor takes, a round each; for one session.
    pub(super) floors: Vec<f64>,
}

/// A cell, and what was measured.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) dims: Dims,
    pub(super) samples: Vec<Sample>,
}

/// Every cell that is wanted, in the order of a round.
pub(super) fn groups(options: &Options, engines: &[Engine]) -> Vec<Group> {
    let mut groups = Vec::new();
    for (direction, word) in DIRECTIONS {
        for size in SIZES {
            for sessions in SESSIONS {
                if options.is_quick && !(size.is_in_quick() && sessions < 1000) {
                    continue;
                }
                let dims = |engine| Dims {
                    direction: word,
                    size: size.word(),
                    sessions,
                    engine,
                };
                let cells = engines.iter().copied().map(dims);
                let cells = cells.filter(|dims| options.wants_matrix(&dims.name()));
                let cell = |dims| Measured {
                    dims,
                    samples: Vec::new(),
                };
                groups.push(Group {
                    direction,
                    size,
                    sessions,
                    cells: cells.map(cell).collect(),
                    floors: Vec::new(),
                });
            }
        }
    }
    groups.retain(|group| !group.cells.is_empty());
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(only: &[&str], is_quick: bool) -> Options {
        Options {
            reps: 1,
            slice: datapath::time::Duration::from_millis(1),
            only: only.iter().map(|&part| part.to_owned()).collect(),
            is_quick,
            ..Options::default()
        }
    }

    fn names(only: &[&str], is_quick: bool) -> Vec<String> {
        let groups = groups(&options(only, is_quick), &engines(2, false));
        let cells = groups.iter().flat_map(|group| &group.cells);
        cells.map(|cell| cell.dims.name()).collect()
    }

    #[test]
    fn the_matrix_is_the_product_of_its_dimensions() {
        let all = names(&[], false);
        assert_eq!(all.len(), 2 * 5 * 3 * 2 * 2);
        assert_eq!(all[0], "matrix/down/64/1 session/1 shard/io_uring");
        let last = "matrix/up/bulk/1000 sessions/2 shards/epoll";
        assert_eq!(all.last().unwrap(), last);
        assert_eq!(names(&[], true).len(), 2 * 3 * 2 * 2 * 2);
        assert_eq!(engines(2, true).len(), 8);
        assert_eq!(engines(1, false).len(), 2);
    }

    #[test]
    fn parts_of_names_select_cells_only_if_they_name_the_matrix() {
        assert_eq!(names(&["matrix/up/imix"], false).len(), 3 * 4);
        assert_eq!(names(&["bulk"], false).len(), 0);
    }

    #[test]
    fn a_burst_is_dealt_to_the_sessions() {
        let deal = |size: Size, direction| {
            SESSIONS.map(|sessions| {
                let deal = size.deal(direction, sessions);
                (deal.burst, deal.turn, deal.repeat)
            })
        };
        let (down, up) = (Direction::Downlink, Direction::Uplink);
        let bulk = deal(Size::Bulk, down);
        assert_eq!(bulk, [(768, 48, 384), (768, 12, 12), (768, 10, 10)]);
        let bulk = deal(Size::Bulk, up);
        assert_eq!(bulk, [(2880, 96, 384), (2880, 45, 45), (2880, 10, 10)]);
        let mix = deal(Size::Imix, down);
        assert_eq!(mix, [(384, 384, 252), (384, 6, 12), (384, 1, 12)]);
        let small = deal(Size::Udp(64), up);
        assert_eq!(small, [(1536, 96, 256), (1536, 24, 24), (1536, 1, 12)]);
    }
}
