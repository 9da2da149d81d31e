//! The matrix: panels of what a packet costs, strips of how engines stand to each other, and all numbers.

use std::fmt::Write as _;

use super::super::matrix::{Cell, Engine, Matrix, Ratios};
use super::super::report::{Figure, short};
use super::escape;
use super::marks::{Look, legend};
use super::plots::{Entry, panel, strip};

/// Everything that is in it.
pub(super) fn section(matrix: &Matrix) -> String {
    let engines = matrix.columns();
    let mut html = String::new();
    if !matrix.cells.is_empty() {
        let _ = write!(
            html,
            "<section><h2>Matrix: what a packet costs</h2><p class=\"say\">The gateway's CPU a packet, by size, number of \
             sessions, shards and driver; {} ms a measurement. Medians of the rounds with whiskers from least to most, on a \
             logarithmic scale. Sizes are bytes of a datagram; imix is 64, 576 and 1400 bytes 7:4:1; bulk is one flow of TCP a \
             session. A burst is as large for many sessions as for one, and dealt to them. With one session the grey tick is \
             the floor: the same packets without a protocol.</p>",
            matrix.slice_ms
        );
        html += &key(&engines);
        for (direction, words) in [
            ("down", "Down, to the clients"),
            ("up", "Up, from the clients"),
        ] {
            html += &panels(matrix, direction, words);
        }
        html += "</section>\n<section><h2>What a choice costs</h2><p class=\"say\">CPU a packet of one cell to another's, of the \
                 same round: right of the line it costs more. Each line is a size × a number of sessions.</p><div class=\"charts three\">";
        for (title, ratio) in RATIOS {
            html += &ratios(matrix, title, ratio);
        }
        html += "</div></section>\n";
        html += &numbers(matrix, &engines);
    }
    html += &latency(matrix);
    html += &costs(matrix);
    html
}

fn key(engines: &[Engine]) -> String {
    let engines = engines
        .iter()
        .map(|&engine| (Look::of(engine), engine.words()));
    let floor = (Look::FLOOR, "floor".to_owned());
    legend(&engines.chain([floor]).collect::<Vec<_>>())
}

/// A panel for each number of sessions, all on one scale.
fn panels(matrix: &Matrix, direction: &str, words: &str) -> String {
    let cells = || {
        matrix
            .cells
            .iter()
            .filter(|cell| cell.dims.direction == direction)
    };
    let range: Vec<f64> = cells()
        .flat_map(|cell| [cell.cpu_ns_per_packet.least, cell.cpu_ns_per_packet.most])
        .collect();
    let mut counts: Vec<usize> = cells().map(|cell| cell.dims.sessions).collect();
    counts.sort_unstable();
    counts.dedup();
    let mut html = format!("<h3>{words}</h3><div class=\"charts three\">");
    for count in counts {
        let lines = matrix.lines().filter(|line| {
            let dims = line.first().map(|cell| cell.dims);
            dims.is_some_and(|dims| dims.direction == direction && dims.sessions == count)
        });
        let entries: Vec<Entry> = lines.map(column).collect();
        let plural = if count == 1 { "" } else { "s" };
        let title = format!("{direction}, {count} session{plural}");
        html += &panel(&title, "CPU ns/packet", &range, &entries);
    }
    html + "</div>"
}

/// All engines of one size.
fn column(line: &[Cell]) -> Entry {
    let first = line.first();
    let floor = first.and_then(|cell| cell.floor_ns_per_packet.clone());
    let floor = floor.map(|figure| (Look::FLOOR, "floor".to_owned(), figure));
    let cells = line.iter().map(|cell| {
        let engine = cell.dims.engine;
        (
            Look::of(engine),
            engine.words(),
            cell.cpu_ns_per_packet.clone(),
        )
    });
    Entry {
        name: first.map_or("", |cell| cell.dims.size).to_owned(),
        heading: None,
        marks: floor.into_iter().chain(cells).collect(),
    }
}

type Pick = fn(&Ratios) -> Option<&Figure>;

const RATIOS: [(&str, Pick); 4] = [
    ("epoll ÷ io_uring", |ratios| ratios.io_uring.as_ref()),
    ("2 shards ÷ 1 shard", |ratios| ratios.one_shard.as_ref()),
    ("many sessions ÷ 1 session", |ratios| {
        ratios.one_session.as_ref()
    }),
    ("TLS in the kernel ÷ in user space", |ratios| {
        ratios.user_tls.as_ref()
    }),
];

/// A line for each cell that differs in its engine alone.
fn ratios(matrix: &Matrix, title: &str, ratio: Pick) -> String {
    let mut entries = Vec::new();
    let mut direction = "";
    let mut engines: Vec<Engine> = Vec::new();
    for line in matrix.lines() {
        let Some(first) = line.first() else { continue };
        let marks = line.iter().filter_map(|cell| {
            let engine = cell.dims.engine;
            let figure = ratio(&cell.ratios)?.clone();
            if !engines.contains(&engine) {
                engines.push(engine);
            }
            Some((Look::of(engine), engine.words(), figure))
        });
        let marks: Vec<_> = marks.collect();
        if marks.is_empty() {
            continue;
        }
        let is_new = std::mem::replace(&mut direction, first.dims.direction) != direction;
        entries.push(Entry {
            name: format!("{} × {}", first.dims.size, first.dims.sessions),
            heading: is_new.then(|| direction.to_owned()),
            marks,
        });
    }
    let names: Vec<_> = engines
        .iter()
        .map(|&engine| (Look::of(engine), engine.words()))
        .collect();
    strip(title, &legend(&names), 330.0, Some(1.0), &entries)
}

fn numbers(matrix: &Matrix, engines: &[Engine]) -> String {
    let mut html = "<section class=\"cells\"><h2>All cells</h2><p class=\"say\">CPU ns/packet (least..most); Gbit/s that one \
                    processor carries at that; × the floor with one session, × one session with more; share lost.</p>\
                    <div class=\"wide\"><table><thead><tr><th></th><th>size</th><th>sessions</th>"
        .to_owned();
    for engine in engines {
        let _ = write!(html, "<th>{}</th>", escape(&engine.words()));
    }
    html += "</tr></thead><tbody>";
    for line in matrix.lines() {
        let Some(first) = line.first() else { continue };
        let dims = first.dims;
        let _ = write!(
            html,
            "<tr><th>{}</th><th>{}</th><td>{}</td>",
            escape(dims.direction),
            escape(dims.size),
            dims.sessions
        );
        for engine in engines {
            let cell = line.iter().find(|cell| cell.dims.engine == *engine);
            let _ = write!(html, "<td>{}</td>", cell.map(in_table).unwrap_or_default());
        }
        html += "</tr>\n";
    }
    html + "</tbody></table></div></section>\n"
}

fn in_table(cell: &Cell) -> String {
    let ratio = cell.ratios.floor.as_ref();
    let ratio = ratio.or(cell.ratios.one_session.as_ref());
    let ratio = ratio.map_or_else(String::new, |ratio| format!(", ×{}", short(ratio.median)));
    let loss = cell.loss.median;
    let loss = if loss > 0.0 {
        format!(", {:.2} % lost", loss * 100.0)
    } else {
        String::new()
    };
    format!(
        "{} <small>{}</small><br><small>{} Gbit/s{ratio}{loss}</small>",
        short(cell.cpu_ns_per_packet.median),
        cell.cpu_ns_per_packet.spread(),
        short(cell.gbit_per_core_s.median)
    )
}

fn latency(matrix: &Matrix) -> String {
    if matrix.latency.is_empty() {
        return String::new();
    }
    let names = [
        (Look::PLAIN, "half of the probes".to_owned()),
        (Look::OTHER, "99 of 100".to_owned()),
    ];
    let mut last = (String::new(), 0);
    let mut entries = Vec::new();
    let mut rows = String::new();
    for latency in &matrix.latency {
        let dims = latency.dims;
        let here = (dims.direction.to_owned(), dims.sessions);
        let plural = if dims.sessions == 1 { "" } else { "s" };
        let heading = format!("{}, {} session{plural}", dims.direction, dims.sessions);
        let engine = dims.engine.words();
        let _ = writeln!(
            rows,
            "<tr><th>{}</th><th>{}</th><td>{} <small>{}</small></td><td>{} <small>{}</small></td><td>{}</td></tr>",
            escape(&heading),
            escape(&engine),
            short(latency.p50_us.median),
            latency.p50_us.spread(),
            short(latency.p99_us.median),
            latency.p99_us.spread(),
            short(latency.gbit_per_s.median)
        );
        entries.push(Entry {
            name: engine,
            heading: (here != last).then_some(heading),
            marks: vec![
                (Look::PLAIN, "p50".to_owned(), latency.p50_us.clone()),
                (Look::OTHER, "p99".to_owned(), latency.p99_us.clone()),
            ],
        });
        last = here;
    }
    let plot = strip(
        "Microseconds one way",
        &legend(&names),
        480.0,
        None,
        &entries,
    );
    format!(
        "<section><h2>Latency</h2><p class=\"say\">One way through both hops beside 2 Gbit/s of TCP, by a probe every 500 µs; \
         with the harness's own turn in it, so an upper bound. With 1,000 sessions that turn is longer than what it would \
         measure, so they are left out.</p><div class=\"charts\">{plot}<div class=\"wide\"><table><thead><tr><th></th><th></th>\
         <th>p50 µs</th><th>p99 µs</th><th>Gbit/s</th></tr></thead><tbody>{rows}</tbody></table></div></div></section>\n"
    )
}

fn costs(matrix: &Matrix) -> String {
    if matrix.engines.is_empty() {
        return String::new();
    }
    let mut html = "<section><h2>Set-ups and memory</h2><div class=\"wide\"><table><thead><tr><th></th>\
                    <th>set-ups a second of CPU</th><th>KB a session</th><th>MB before the first</th>\
                    <th>handed over</th><th class=\"words\">dropped</th></tr></thead><tbody>"
        .to_owned();
    for engine in &matrix.engines {
        let set_ups = engine.set_ups_per_core_s.as_ref().map_or_else(
            || "–".to_owned(),
            |figure| {
                format!(
                    "{} <small>{}</small>",
                    short(figure.median),
                    figure.spread()
                )
            },
        );
        let _ = writeln!(
            html,
            "<tr><th>{}</th><td>{set_ups}</td><td>{}</td><td>{}</td><td>{}</td><td class=\"words\">{}</td></tr>",
            escape(&engine.engine.words()),
            engine
                .memory_kb_per_session
                .map_or_else(|| "–".to_owned(), short),
            short(engine.memory_mb_empty),
            engine.handed_over,
            escape(&engine.dropped)
        );
    }
    html + "</tbody></table></div></section>\n"
}
