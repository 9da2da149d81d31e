//! Counts what a figure carried, and the time it took.

use std::io;

use datapath::sys::clock;
use datapath::time::Duration;

/// What was carried in how much time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sample {
    /// Of the measuring thread.
    pub(crate) cpu: Duration,
    pub(crate) wall: Duration,
    pub(crate) bytes: u64,
    pub(crate) packets: u64,
}

impl Sample {
    pub(crate) fn cpu_ms_per_gb(&self) -> f64 {
        // Nanoseconds a byte are seconds a GB.
        self.cpu.as_nanos() as f64 * 1e3 / self.bytes as f64
    }

    pub(crate) fn cpu_ns_per_packet(&self) -> f64 {
        self.cpu.as_nanos() as f64 / self.packets as f64
    }

    /// Adds one piece of work and the time it takes; `work` answers how many bytes and packets it
    /// carried.
    pub(crate) fn time(
        &mut self,
        work: impl FnOnce() -> io::Result<(usize, usize)>,
    ) -> io::Result<()> {
        let wall = clock::now();
        let cpu = clock::thread_cpu_time();
        let (bytes, packets) = work()?;
        self.cpu += clock::thread_cpu_time() - cpu;
        self.wall += clock::now().saturating_since(wall);
        self.bytes += bytes as u64;
        self.packets += packets as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_summed_up_and_its_failure_is_not() {
        let mut sample = Sample::default();
        let start = clock::now();
        let work = || {
            while clock::now().saturating_since(start) < Duration::from_millis(2) {}
            Ok((100, 3))
        };
        sample.time(work).unwrap();
        sample.time(|| Ok((11, 1))).unwrap();
        sample.time(|| Err(io::Error::other("no"))).unwrap_err();
        assert_eq!((sample.bytes, sample.packets), (111, 4));
        assert!(sample.wall >= Duration::from_millis(1), "{sample:?}");
        assert!(sample.cpu > Duration::ZERO, "{sample:?}");
    }
}
