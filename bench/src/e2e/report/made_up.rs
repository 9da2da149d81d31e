//! A report that nobody measured, with one of everything, for tests.

use super::super::matrix::{Cell, Dims, Engine, EngineCost, Latency, Matrix, Ratios};
use super::super::peers::{Line, Table, Way};
use super::{Bar, Figure, Machine, Report, Row, Sense, Told};

const BAR: Bar = Bar {
    sense: Sense::AtMost,
    bar: 1.6,
    stretch: 1.3,
};

fn figure(median: f64) -> Figure {
    Figure::of(vec![median * 0.9, median, median * 1.2])
}

fn rows() -> Vec<Row> {
    let least = Some(Bar {
        sense: Sense::AtLeast,
        bar: 12.0,
        stretch: 20.0,
    });
    let beside = |name, values: &[f64], others: &[f64], bar| {
        Row::beside(name, "ms/GB", values, ("floor <of & all>", others), bar)
    };
    vec![
        beside("bulk/down", &[270.0, 300.0], &[200.0, 200.0], Some(BAR)),
        beside("bulk/up", &[240.0, 250.0], &[200.0, 200.0], Some(BAR)),
        beside("udp/up", &[400.0, 500.0], &[200.0, 200.0], Some(BAR)),
        beside("peers/openvpn up", &[9e3, 11e3], &[700.0, 720.0], least),
        beside("shards/info", &[9.0, 11.0], &[7.0, 7.0], None),
        Row::alone("latency/down p50", "µs", &[40.0, 80.0], Some(BAR)),
        Row::alone("nothing came", "ns/packet", &[f64::NAN], None).with_note("100 % LOST".into()),
    ]
}

fn engines() -> Vec<Engine> {
    let on = |shards, driver| Engine {
        shards,
        driver,
        kernel_tls: false,
    };
    vec![
        on(1, "io_uring"),
        on(1, "epoll"),
        on(2, "io_uring"),
        on(2, "epoll"),
    ]
}

fn cell(dims: Dims, cost: f64) -> Cell {
    let one = dims.sessions == 1;
    Cell {
        name: dims.name(),
        dims,
        cpu_ns_per_packet: figure(cost),
        cpu_ms_per_gb: figure(cost / 1.4),
        gbit_per_core_s: figure(11_200.0 / cost),
        gbit_per_s: figure(1.5),
        packets_per_s: figure(4e5),
        loss: figure(0.001),
        floor_ns_per_packet: one.then(|| figure(500.0)),
        ratios: Ratios {
            floor: one.then(|| figure(cost / 500.0)),
            one_session: (!one).then(|| figure(1.8)),
            one_shard: (dims.engine.shards == 2).then(|| figure(1.1)),
            io_uring: (dims.engine.driver == "epoll").then(|| figure(0.97)),
            user_tls: None,
        },
    }
}

fn matrix() -> Matrix {
    let (mut cells, mut latency) = (Vec::new(), Vec::new());
    for direction in ["down", "up"] {
        for (nth, size) in (1_u32..).zip(["64", "512", "1400", "imix", "bulk"]) {
            for sessions in [1, 64, 1000] {
                for (index, engine) in (1_u32..).zip(engines()) {
                    let dims = Dims {
                        direction,
                        size,
                        sessions,
                        engine,
                    };
                    let cost = 400.0 * f64::from(nth) * (sessions as f64).sqrt();
                    cells.push(cell(dims, cost * (1.0 + f64::from(index) / 20.0)));
                    if size == "bulk" && sessions < 1000 {
                        latency.push(Latency {
                            name: format!("matrix/latency/{}", dims.name()),
                            dims,
                            p50_us: figure(45.0),
                            p99_us: figure(320.0),
                            gbit_per_s: figure(2.0),
                        });
                    }
                }
            }
        }
    }
    let engines = engines().into_iter().map(|engine| EngineCost {
        name: format!("matrix/set-ups, memory/{}", engine.words()),
        engine,
        set_ups_per_core_s: Some(figure(3_500.0)),
        memory_kb_per_session: Some(9.5),
        memory_mb_empty: 30.0,
        handed_over: 0,
        dropped: "none".to_owned(),
    });
    Matrix {
        slice_ms: 200,
        cells,
        latency,
        engines: engines.collect(),
    }
}

fn peers() -> Table {
    let line = |name, ratio: Option<f64>| {
        let way = Way {
            server: ratio.map(|ratio| figure(ratio * 0.7)),
            server_ratio: ratio.map(figure),
            client_ratio: figure(1.0),
            gbit_per_s: 2.5,
        };
        Line {
            name,
            what: "a protocol, a cipher".to_owned(),
            up: way.clone(),
            down: way,
        }
    };
    Table {
        rounds: 3,
        lines: vec![
            line("sstp-gw", Some(1.0)),
            line("openvpn", Some(12.0)),
            line("sstp-server", None),
        ],
    }
}

/// The report.
pub(crate) fn report() -> Report {
    Report {
        schema: 1,
        date: 1_795_287_600,
        commit: "0123456789ab".to_owned(),
        command: "cargo run --release -p bench -- e2e".to_owned(),
        machine: Machine {
            kernel: "6.18.0".to_owned(),
            processor: "<Fast> & co".to_owned(),
            processors: 2,
            load_average: vec![0.1, 0.2, 0.3],
        },
        options: Told {
            reps: 3,
            slice_ms: 400,
            only: Vec::new(),
            quick: false,
        },
        rows: rows(),
        matrix: Some(matrix()),
        peers: Some(peers()),
        skipped: vec!["peers/ocserv: not installed".to_owned()],
        clocks: vec!["apart by 1 %".to_owned()],
    }
}
