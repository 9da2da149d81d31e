//! Every path of the data path by the clock, named `layer/action/size`.

mod summary;

use std::time::{Duration, SystemTime};

use bench::paths::{self, LAYERS, Path};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group};

fn layers(criterion: &mut Criterion) {
    for (layer, paths) in LAYERS {
        let mut group = criterion.benchmark_group(layer);
        for path in paths() {
            bench(&mut group, &path);
        }
        group.finish();
    }
}

fn bench(group: &mut BenchmarkGroup<'_, WallTime>, path: &Path) {
    group.throughput(if path.bytes == 0 {
        Throughput::Elements(path.packets)
    } else {
        Throughput::ElementsAndBytes {
            elements: path.packets,
            bytes: path.bytes,
        }
    });
    let (_, name) = path.name.split_once('/').expect("layer/action/size");
    let mut work = None;
    group.bench_function(name, |bencher| {
        // Made only if it is to run, and once for all its samples.
        let work = work.get_or_insert_with(|| path.make());
        bencher.iter_custom(|runs| (0..runs).map(|_| paths::measure(&mut **work).0).sum());
    });
}

criterion_group! {
    name = benches;
    // About two seconds a path. Where time is spent that is not measured, more.
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(40);
    targets = layers
}

fn main() {
    let start = SystemTime::now();
    benches();
    Criterion::default().configure_from_args().final_summary();
    let paths = LAYERS.iter().flat_map(|(_, paths)| paths());
    let names: Vec<_> = paths.map(|path| path.name).collect();
    summary::print(&names, start);
}
