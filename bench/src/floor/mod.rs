//! The floor: what one thread of this machine needs at the least to carry a packet.
//!
//! ```text
//!  downlink   TUN read → cut, copy + checksum, frame → seal → one send of four records
//!  uplink     recv 64 KB → open in place → frames → merge → TUN write (and forward)
//! ```
//!
//! First the parts, then the whole path as one loop without protocol state, queues or timers. Every
//! figure is measured once a round, so what disturbs the machine disturbs all of them; the median of
//! the rounds counts. What the loop needs is made before the clock runs: a burst lies in the TUN or in
//! the socket, then it is pumped until nothing is left. CPU is that of the pumping thread, user and
//! system, with whatever the kernel does in its name (on loopback: the receiver's half of TCP).
//!
//! A GB is 10^9 bytes of IP packets (of plaintext, where there are none).

mod aead;
mod beside;
mod meter;
mod pump;
mod record;
mod report;
pub(crate) mod rig;
mod socket;
pub(crate) mod traffic;
mod tun;

use std::io;

use datapath::sys::affinity;
use datapath::time::Duration;

pub use report::{Report, Row, Spread};

pub(crate) use beside::Beside;
pub(crate) use meter::Sample as Reading;

use meter::Sample;
use rig::Rig;

/// How to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// Measurements of each figure.
    pub rounds: u32,
    /// Wall-clock time of each, at least.
    pub slice: Duration,
    /// Part of the names of the figures to measure; all if `None`.
    pub only: Option<String>,
    /// The receivers of what is sent run on another processor than the pump. Waking them is then an
    /// interrupt between processors, which costs more the busier and the more virtual they are.
    pub apart: bool,
}

/// One thing to measure, again and again.
trait Figure {
    /// `part/what/size`.
    fn name(&self) -> String;

    /// Measures for `slice` of wall-clock time.
    fn measure(&mut self, slice: Duration) -> io::Result<Sample>;
}

/// Measures the floor. Without the right to make a network namespace and a TUN, or without
/// `/dev/net/tun`, what needs them is left out, and the report says so.
///
/// # Errors
///
/// If a system call fails on the way.
pub fn run(options: &Options) -> io::Result<Report> {
    let rig = Rig::new();
    let skipped = rig.as_ref().err().map(ToString::to_string);
    let cpus = affinity::cpus();
    let (first, last) = (cpus[0], cpus[cpus.len() - 1]);
    let receiver_cpu = if options.apart { first } else { last };
    let mut figures = aead::figures();
    figures.extend(socket::figures(receiver_cpu)?);
    if let Ok(rig) = &rig {
        figures.extend(tun::figures(rig));
        figures.extend(pump::figures(rig, receiver_cpu)?);
    }
    if let Some(part) = &options.only {
        figures.retain(|figure| figure.name().contains(part));
    }
    if let Err(error) = affinity::pin(last) {
        eprintln!("floor: {error}; figures will vary more");
    }
    let mut samples = vec![Vec::new(); figures.len()];
    for figure in &mut figures {
        figure.measure(options.slice / 4)?;
    }
    for _ in 0..options.rounds {
        for (figure, samples) in figures.iter_mut().zip(&mut samples) {
            samples.push(figure.measure(options.slice)?);
        }
    }
    let rows = figures.iter().zip(&samples);
    let rows = rows.map(|(figure, samples)| Row::new(figure.name(), samples));
    Ok(Report::new(options, rows.collect(), skipped))
}
