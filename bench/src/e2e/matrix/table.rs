//! The matrix as text: a line a direction, size and number of sessions, a column an engine.

use std::fmt;

use super::super::report::{Figure, short};
use super::cell::Engine;
use super::tell::{Cell, Matrix};

impl Matrix {
    /// The engines, in the order of the cells.
    pub(crate) fn columns(&self) -> Vec<Engine> {
        let cells = self.cells.iter().map(|cell| cell.dims.engine);
        let latencies = self.latency.iter().map(|latency| latency.dims.engine);
        let mut columns: Vec<Engine> = Vec::new();
        for engine in cells.chain(latencies) {
            if !columns.contains(&engine) {
                columns.push(engine);
            }
        }
        columns
    }

    /// Cells that differ in their engine alone, together.
    pub(crate) fn lines(&self) -> impl Iterator<Item = &[Cell]> {
        self.cells.chunk_by(|one, other| {
            let (one, other) = (one.dims, other.dims);
            (one.direction, one.size, one.sessions) == (other.direction, other.size, other.sessions)
        })
    }
}

fn median(figure: Option<&Figure>) -> String {
    figure.map_or_else(String::new, |figure| short(figure.median))
}

impl fmt::Display for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.columns();
        if !self.cells.is_empty() {
            writeln!(
                f,
                "matrix, {} ms each: the gateway's CPU in ns/packet (least..most), Gbit/s that a processor \
                 carries at that; × the floor's for one session, × one session's for more",
                self.slice_ms
            )?;
            write!(f, "{:4} {:>4} {:>8}", "", "size", "sessions")?;
            for engine in &columns {
                write!(f, "  {:>34}", engine.words())?;
            }
            writeln!(f)?;
        }
        for line in self.lines() {
            let Some(first) = line.first() else { continue };
            let dims = &first.dims;
            let (direction, size) = (dims.direction, dims.size);
            write!(f, "{direction:4} {size:>4} {:>8}", dims.sessions)?;
            for engine in &columns {
                let cell = line.iter().find(|cell| cell.dims.engine == *engine);
                let Some(cell) = cell else {
                    write!(f, "  {:>34}", "")?;
                    continue;
                };
                let ratio = cell.ratios.floor.as_ref();
                let ratio = median(ratio.or(cell.ratios.one_session.as_ref()));
                write!(
                    f,
                    "  {:>6} {:>14} {:>6} {:>5}",
                    short(cell.cpu_ns_per_packet.median),
                    cell.cpu_ns_per_packet.spread(),
                    short(cell.gbit_per_core_s.median),
                    if ratio.is_empty() {
                        ratio
                    } else {
                        format!("×{ratio}")
                    },
                )?;
            }
            writeln!(f)?;
        }
        for latency in &self.latency {
            writeln!(
                f,
                "{:44} p50 {} µs, p99 {} µs at {} Gbit/s",
                latency.name,
                latency.p50_us,
                latency.p99_us,
                short(latency.gbit_per_s.median)
            )?;
        }
        for engine in &self.engines {
            let set_ups = engine.set_ups_per_core_s.as_ref();
            let set_ups =
                set_ups.map_or_else(String::new, |figure| format!("{figure} set-ups/core-s, "));
            let memory = engine.memory_kb_per_session;
            let memory = memory.map_or_else(String::new, |each| {
                format!("{} KB a session, ", short(each))
            });
            writeln!(
                f,
                "{:44} {set_ups}{memory}{} MB before the first; handed over {}, dropped {}",
                engine.name,
                short(engine.memory_mb_empty),
                engine.handed_over,
                engine.dropped
            )?;
        }
        Ok(())
    }
}
