//! The paths that are measured, each apart from the rest: one list for every instrument.
//!
//! ```text
//!  paths ──┬── criterion, by the clock (`cargo bench`)
//!          └── the gate, by instructions and allocations (`bench gate`); not those that are random
//! ```
//!
//! A path is named `layer/action/size`. What only prepares it, or plays its peer, is not measured: that
//! is what [`Work::ready`] and [`apart`] are for.

mod automata;

mod crypto;

mod ends;

mod ip;

mod offload;

mod ppp_frame;

mod queue;

mod route;

mod session;

mod set_up;

mod shard;

mod sstp_packet;

mod tls_record;

use std::cell::Cell;
use std::hint::black_box;
use std::time::{Duration, Instant};

use datapath::sys::alloc::{self, Allocations};

/// Runs that let pools, tables and buffers reach their size.
const WARM_UPS: usize = 4;

/// How often a work repeats what is short, and what takes nanoseconds: no instrument is to count itself.
const REPEATS: usize = 64;
const MANY_REPEATS: usize = 1_024;

/// Something that is done again and again.
pub trait Work {
    /// Prepares the next run; not measured.
    fn ready(&mut self) {}
    /// What is measured.
    fn run(&mut self);
}

/// One path, not yet made.
pub struct Path {
    /// `layer/action/size`.
    pub name: String,
    /// Packets a run takes; records, lookups or set-ups where there are no packets.
    pub packets: u64,
    /// Bytes a run takes; 0 where that says nothing.
    pub bytes: u64,
    /// Whether its instructions go by what it draws at random: then it is timed and not counted.
    pub is_random: bool,
    make: Box<dyn Fn() -> Box<dyn Work>>,
}

impl std::fmt::Debug for Path {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Path").field(&self.name).finish()
    }
}

impl Path {
    fn new<W: Work + 'static>(
        name: impl Into<String>,
        packets: usize,
        bytes: usize,
        make: impl Fn() -> W + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            packets: packets as u64,
            bytes: bytes as u64,
            is_random: false,
            make: Box::new(move || Box::new(make())),
        }
    }

    /// Its work, warmed up.
    #[must_use]
    pub fn make(&self) -> Box<dyn Work> {
        let mut work = (self.make)();
        for _ in 0..WARM_UPS {
            work.ready();
            work.run();
        }
        work
    }
}

/// The paths that take the same instructions each time.
pub fn counted() -> impl Iterator<Item = Path> {
    let paths = LAYERS.iter().flat_map(|(_, paths)| paths());
    paths.filter(|path| !path.is_random)
}

/// A layer: its name, and what makes its paths.
pub type Layer = (&'static str, fn() -> Vec<Path>);

/// Every layer, from the outside in, and then what is made of them.
pub const LAYERS: [Layer; 12] = [
    ("tls_record", tls_record::paths),
    ("sstp_packet", sstp_packet::paths),
    ("ppp_frame", ppp_frame::paths),
    ("ip", ip::paths),
    ("offload", offload::paths),
    ("route", route::paths),
    ("queue", queue::paths),
    ("session", session::paths),
    ("shard", shard::paths),
    ("set_up", set_up::paths),
    ("automata", automata::paths),
    ("crypto", crypto::paths),
];

/// A work that repeats one small thing.
struct Repeat<F> {
    thing: F,
    times: usize,
}

impl<T, F: FnMut() -> T> Work for Repeat<F> {
    fn run(&mut self) {
        for _ in 0..self.times {
            black_box((self.thing)());
        }
    }
}

/// A path of one small thing, `times` times, `bytes` each.
fn repeated<T: 'static, F: FnMut() -> T + 'static>(
    name: impl Into<String>,
    times: usize,
    bytes: usize,
    make: impl Fn() -> F + 'static,
) -> Path {
    Path::new(name, times, times * bytes, move || Repeat {
        thing: make(),
        times,
    })
}

/// What lies apart within a measured run.
#[derive(Clone, Copy, Debug, Default)]
struct Apart {
    is_measuring: bool,
    time: Duration,
    allocations: Allocations,
}

thread_local! {
    static APART: Cell<Apart> = const {
        Cell::new(Apart {
            is_measuring: false,
            time: Duration::ZERO,
            allocations: Allocations { count: 0, bytes: 0, frees: 0, freed_bytes: 0 },
        })
    };
}

/// Runs `work` once and tells how long that took and how often it allocated, without what it did
/// [`apart`]. The number of allocations is 0 unless the allocator counts.
pub fn measure(work: &mut dyn Work) -> (Duration, u64) {
    work.ready();
    APART.set(Apart {
        is_measuring: true,
        ..Apart::default()
    });
    let (before, start) = (alloc::allocations(), Instant::now());
    measured_run(work);
    let (time, after) = (start.elapsed(), alloc::allocations());
    let apart = APART.take();
    (
        time.saturating_sub(apart.time),
        after.count - before.count - apart.allocations.count,
    )
}

/// Does `work` outside the measurement: what the peer, the driver or the owner does in a run.
pub fn apart<T>(work: impl FnOnce() -> T) -> T {
    if !APART.get().is_measuring {
        return work();
    }
    let (mut work, mut result) = (Some(work), None);
    unmeasured_run(&mut || {
        let mut apart = APART.get();
        APART.set(Apart {
            is_measuring: false,
            ..apart
        });
        let (before, start) = (alloc::allocations(), Instant::now());
        result = work.take().map(|work| work());
        let after = alloc::allocations();
        apart.allocations.count += after.count - before.count;
        apart.time += start.elapsed();
        APART.set(apart);
    });
    result.expect("it ran")
}

/// While this function runs, instructions are counted; the gate knows it by its name.
#[inline(never)]
fn measured_run(work: &mut dyn Work) {
    work.run();
    // Else the call above becomes a jump, and this function is never seen to end.
    black_box(());
}

/// While this function runs within [`measured_run`], they are not.
#[inline(never)]
fn unmeasured_run(work: &mut dyn FnMut()) {
    work();
    black_box(());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_runs_and_is_named_by_its_layer() {
        let mut names = std::collections::HashSet::new();
        for (layer, paths) in LAYERS {
            for path in paths() {
                assert_eq!(path.name.split('/').next(), Some(layer));
                assert_eq!(path.name.split('/').count(), 3, "{}", path.name);
                assert!(path.packets > 0, "{}", path.name);
                measure(&mut *path.make());
                assert!(names.insert(path.name));
            }
        }
    }

    struct Slow;

    impl Work for Slow {
        fn run(&mut self) {
            apart(|| apart(|| std::thread::sleep(Duration::from_secs(3_600) / 36_000)));
        }
    }

    #[test]
    fn what_is_done_apart_is_not_measured() {
        let start = Instant::now();
        let (time, _) = measure(&mut Slow);
        assert!(start.elapsed() - time >= Duration::from_millis(100));
    }
}
