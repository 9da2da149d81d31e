//! What a packet costs where no clock can tell: instructions, and cache lines touched.
//!
//! The gateway's shard runs under valgrind's lackey, which names every instruction and every access to
//! memory; between two marks, that is between the driver's calls, they are counted. The record
//! layer is the one without secrecy, since a tracer's processor is not ours: what the AEAD costs is a
//! figure of [`crate::floor`]. The kernel is not counted either.
//!
//! ```text
//!  bench cost ── starts ──▶ valgrind … bench cost --only down ── trace ──▶ counted line by line
//! ```

pub(crate) mod site;

mod trace;

mod wire;

use std::fmt::Write as _;
use std::io::{self, BufReader};
use std::process::{Child, Command, Stdio};

use self::site::Site;
use self::trace::{Counted, Marks};

/// Bursts before anything is counted: buffers are in their pools, tables have their size.
const WARM_UP: usize = 16;
/// Bursts counted.
const BURSTS: usize = 8;

/// A kind of traffic, and what of it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    /// As in `bench cost --only NAME`.
    pub name: &'static str,
    is_downlink: bool,
    is_merged: bool,
    pub(crate) packet_len: usize,
}

/// Every kind.
pub const CASES: [Case; 6] = [
    case("down/superpacket/1400", true, true, 1_400),
    case("down/plain/1400", true, false, 1_400),
    case("down/plain/64", true, false, 64),
    case("up/merged/1400", false, true, 1_400),
    case("up/plain/1400", false, false, 1_400),
    case("up/plain/64", false, false, 64),
];

const fn case(name: &'static str, is_downlink: bool, is_merged: bool, packet_len: usize) -> Case {
    Case {
        name,
        is_downlink,
        is_merged,
        packet_len,
    }
}

/// Runs one case in this process, with marks; for a tracer.
///
/// # Panics
///
/// If the session does not come up or a packet is lost: then there is nothing to count.
pub fn run_marked(case: Case) {
    let mut site = Site::new(case);
    for _ in 0..WARM_UP {
        site.burst();
    }
    site.count_from_here();
    for _ in 0..BURSTS {
        site.burst();
    }
    let Marks { switch, burst } = wire::marks();
    println!("{switch} {burst} {}", site.packets_counted());
}

/// Counts every case whose name has `only` in it; the table is for people.
///
/// # Errors
///
/// If valgrind is not here, or the traced run fails.
pub fn run(only: Option<&str>) -> io::Result<String> {
    let mut table = format!(
        "{:24}{:>14}{:>14}{:>14}\n",
        "per packet, without AEAD", "instructions", "data lines", "code lines"
    );
    for case in CASES {
        if !case.name.contains(only.unwrap_or_default()) {
            continue;
        }
        let (counted, packets) = traced(case)?;
        let per_packet = |count: u64| {
            let tenths = count.saturating_mul(10) / packets.max(1);
            format!("{}.{}", tenths / 10, tenths % 10)
        };
        let _ = writeln!(
            table,
            "{:24}{:>14}{:>14}{:>14}",
            case.name,
            per_packet(counted.instructions),
            per_packet(counted.data_lines),
            per_packet(counted.code_lines)
        );
    }
    Ok(table)
}

/// What a traced case took, and for how many packets.
fn traced(case: Case) -> io::Result<(Counted, u64)> {
    // Every run under valgrind has the same addresses, so one tells where the next one's marks are.
    let told = valgrind("none", &[], case)?.wait_with_output()?;
    let text = String::from_utf8_lossy(&told.stdout);
    let mut words = text.split_whitespace().map(str::parse);
    let (Some(Ok(switch)), Some(Ok(burst)), Some(Ok(packets))) =
        (words.next(), words.next(), words.next())
    else {
        return Err(io::Error::other(format!(
            "{} under valgrind ended with {} and told nothing",
            case.name, told.status
        )));
    };
    let mut child = valgrind("lackey", &["--trace-mem=yes", "--log-fd=2"], case)?;
    let trace = child.stderr.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let counted = trace::count(
        BufReader::with_capacity(1 << 20, trace),
        Marks { switch, burst },
    )?;
    child.wait()?;
    Ok((counted, packets))
}

fn valgrind(tool: &str, options: &[&str], case: Case) -> io::Result<Child> {
    Command::new("valgrind")
        .args(["-q", &format!("--tool={tool}")])
        .args(options)
        .arg(std::env::current_exe()?)
        .args(["cost", "--marked", "--only", case.name])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| io::Error::other(format!("cannot run valgrind: {error}")))
}
