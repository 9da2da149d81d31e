//! The processor time of a pump, by two clocks.
//!
//! The *task clock* of perf, a counter on each thread of the pump, counts; what the scheduler accounts
//! (`schedstat`, of which getrusage is made) is told beside it. They agree on a quiet machine. While other
//! processes preempted the pump the account of engines with long system calls fell to less than half of
//! the task clock (0.81 beside 1.85 s per million packets), and that of the others did not.

use std::fs;
use std::io;
use std::process;

use datapath::sys::clock;
use perf_event::events::Software;
use perf_event::{Builder, Counter};
use serde::{Deserialize, Serialize};

/// What was measured in a span of time.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Sample {
    pub(crate) wall_ns: u64,
    /// By the task clock of perf, where it can be had.
    pub(crate) task_clock_ns: Option<u64>,
    /// By the scheduler's account.
    pub(crate) schedstat_ns: u64,
    /// Times that a thread of the pump went to sleep.
    pub(crate) sleeps: u64,
    pub(crate) packets: u64,
    /// Receives that brought something, or sends.
    pub(crate) calls: u64,
    pub(crate) dropped: u64,
}

impl Sample {
    /// What was added since `begun`.
    pub(crate) fn since(&self, begun: &Self) -> Self {
        let clocks = self.task_clock_ns.zip(begun.task_clock_ns);
        Self {
            wall_ns: self.wall_ns - begun.wall_ns,
            task_clock_ns: clocks.map(|(now, then)| now.saturating_sub(then)),
            schedstat_ns: self.schedstat_ns.saturating_sub(begun.schedstat_ns),
            sleeps: self.sleeps.saturating_sub(begun.sleeps),
            ..Self::default()
        }
    }

    /// What counts.
    pub(crate) fn cpu_ns(&self) -> u64 {
        self.task_clock_ns.unwrap_or(self.schedstat_ns)
    }
}

/// Reads the clocks of all threads of this process but the first, and of the thread that does the
/// pump's soft interrupts when there are too many.
#[derive(Debug)]
pub(crate) struct Meter {
    /// `None`: perf is not for us.
    counters: Option<Vec<Counter>>,
    softirq: Option<u32>,
}

impl Meter {
    /// Of the pump on processor `cpu`. Threads that come later are counted with those they come from.
    pub(crate) fn new(cpu: usize) -> io::Result<Self> {
        let softirq = softirq_thread(cpu);
        let observed = threads()?.into_iter().chain(softirq);
        let counters = observed.map(counter).collect::<io::Result<Vec<_>>>();
        Ok(Self {
            counters: counters.ok(),
            softirq,
        })
    }

    /// Reads them; what the pump carried is not of here.
    pub(crate) fn read(&mut self) -> io::Result<Sample> {
        let mut sample = Sample {
            wall_ns: clock::now().as_nanos(),
            ..Sample::default()
        };
        if let Some(counters) = &mut self.counters {
            let mut sum = 0;
            for counter in counters {
                sum += counter.read()?; // nanoseconds
            }
            sample.task_clock_ns = Some(sum);
        }
        for thread in threads()? {
            let directory = format!("/proc/self/task/{thread}");
            // A thread can end at any time.
            sample.schedstat_ns += schedstat(&directory).unwrap_or(0);
            sample.sleeps += sleeps(&directory).unwrap_or(0);
        }
        if let Some(thread) = self.softirq {
            sample.schedstat_ns += schedstat(&format!("/proc/{thread}")).unwrap_or(0);
        }
        Ok(sample)
    }
}

fn counter(thread: u32) -> io::Result<Counter> {
    let thread = i32::try_from(thread).map_err(io::Error::other)?;
    Builder::new(Software::TASK_CLOCK)
        .observe_pid(thread)
        .any_cpu()
        .include_kernel()
        .include_hv()
        .inherit(true)
        .enabled(true)
        .build()
}

/// All threads of this process but the first, which measures.
fn threads() -> io::Result<Vec<u32>> {
    let entries = fs::read_dir("/proc/self/task")?.flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    Ok(ids.filter(|&id| id != process::id()).collect())
}

fn softirq_thread(cpu: usize) -> Option<u32> {
    let name = format!("ksoftirqd/{cpu}");
    let entries = fs::read_dir("/proc").ok()?.flatten();
    let mut ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.find(|id: &u32| {
        let text = fs::read_to_string(format!("/proc/{id}/comm"));
        text.is_ok_and(|text| text.trim() == name)
    })
}

/// The first of three numbers: nanoseconds on a processor.
fn schedstat(directory: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("{directory}/schedstat")).ok()?;
    text.split_whitespace().next()?.parse().ok()
}

fn sleeps(directory: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("{directory}/status")).ok()?;
    let mut lines = text.lines();
    let count = lines.find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
    count.trim().parse().ok()
}
