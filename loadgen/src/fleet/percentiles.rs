//! Distributions as curves: the time that each share of all stayed below.

use datapath::time::Duration;
use serde::Serialize;

use super::report::micros;
use super::tally::{Tally, Times};

/// Between 0 and 1 at first even, then nearing 1 by a factor.
const QUANTILES: [f64; 31] = [
    0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.975, 0.98, 0.99,
    0.9925, 0.995, 0.9975, 0.998, 0.999, 0.9995, 0.9998, 0.9999, 0.99995, 0.99998, 0.99999,
    0.999_995, 0.999_998, 0.999_999,
];

/// One distribution of the whole run.
#[derive(Debug, Serialize)]
pub(super) struct Curve {
    name: &'static str,
    points: Vec<CurvePoint>,
}

#[derive(Debug, Serialize)]
struct CurvePoint {
    /// A share of all; 1 is the last point.
    quantile: f64,
    us: f64,
}

impl Curve {
    fn new(name: &'static str, times: &Times) -> Option<Self> {
        let histogram = times.histogram();
        let us = |nanos: u64| micros(Duration::from_nanos(nanos));
        let count = histogram.len() as f64;
        // Beyond the last but one there is only the largest.
        let known = QUANTILES
            .iter()
            .filter(|&&quantile| (1.0 - quantile) * count > 0.5);
        let points = known.map(|&quantile| CurvePoint {
            quantile,
            us: us(histogram.value_at_quantile(quantile)),
        });
        let last = CurvePoint {
            quantile: 1.0,
            us: us(histogram.max()),
        };
        (!times.is_empty()).then(|| Self {
            name,
            points: points.chain([last]).collect(),
        })
    }
}

/// Those of a run that have anything in them.
pub(super) fn curves(tally: &Tally) -> Vec<Curve> {
    let all = [
        ("setup", &tally.setup),
        ("lcp_echo", &tally.echo),
        ("latency", &tally.packets.latency),
        ("start_lateness", &tally.lateness),
        ("send_lateness", &tally.packets.lateness),
    ];
    all.into_iter()
        .filter_map(|(name, times)| Curve::new(name, times))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_goes_as_far_as_there_are_times() {
        let mut tally = Tally::default();
        for millis in 1..=1_000 {
            tally.setup.record(Duration::from_millis(millis));
        }
        let curves = curves(&tally);
        assert_eq!(curves.len(), 1);
        let points = &curves[0].points;
        let last = points.last().unwrap();
        assert!(last.quantile >= 1.0 && last.us >= 1_000_000.0);
        assert!((points[points.len() - 2].quantile - 0.999).abs() < 1e-9);
        assert!(points.is_sorted_by(|a, b| a.quantile < b.quantile && a.us <= b.us));
    }
}
