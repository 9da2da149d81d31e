//! Which charts a report has.

use serde_json::Value;

use super::chart::{Chart, Scale, Series, Thin, bars};
use crate::saved::{list, number, text};
use crate::units::{percent, scaled, time};

/// The points of the run over time.
struct Timeline<'a> {
    points: &'a [Value],
    x: Vec<f64>,
    /// Seconds of each point.
    interval: f64,
}

impl<'a> Timeline<'a> {
    fn new(report: &'a Value) -> Self {
        let points = list(report, "timeline.points");
        Self {
            points,
            x: points
                .iter()
                .map(|point| number(point, "t_s").unwrap_or(0.0))
                .collect(),
            interval: number(report, "timeline.interval_s")
                .unwrap_or(1.0)
                .max(1.0),
        }
    }

    fn values(&self, of: impl Fn(&Value) -> Option<f64>) -> Vec<Option<f64>> {
        self.points.iter().map(of).collect()
    }

    fn series(&self, name: &'static str, class: &'static str, path: &str) -> Series {
        let values = self.values(|point| number(point, path));
        Series {
            name,
            class,
            values,
        }
    }

    /// A count as a rate, times a factor.
    fn rate(&self, name: &'static str, class: &'static str, path: &str, factor: f64) -> Series {
        let factor = factor / self.interval;
        let values = self.values(|point| Some(number(point, path)? * factor));
        Series {
            name,
            class,
            values,
        }
    }

    fn quantiles(&self, of: &str) -> Vec<Series> {
        let names = [("p50", "s0"), ("p90", "s1"), ("p99", "s2"), ("max", "s3")];
        names
            .into_iter()
            .map(|(name, class)| self.series(name, class, &format!("{of}.{name}")))
            .collect()
    }

    fn chart(
        &self,
        title: &'a str,
        (scale, thin): (Scale, Thin),
        format: fn(f64) -> String,
        series: Vec<Series>,
    ) -> String {
        // A line of nothing but zeros says less than no line.
        let is_nothing = |series: &Series| {
            let mut known = series.values.iter().flatten();
            known.all(|&value| value == 0.0)
        };
        let series: Vec<Series> = series
            .into_iter()
            .filter(|series| !is_nothing(series))
            .collect();
        let chart = Chart {
            title,
            x_name: "seconds",
            x: &self.x,
            x_ticks: None,
            scale,
            thin,
            format,
            series,
        };
        chart.svg()
    }
}

/// All charts that have something to show.
pub(super) fn all(report: &Value) -> String {
    const RATES: (Scale, Thin) = (Scale::Linear, Thin::Mean);
    const WORST: (Scale, Thin) = (Scale::Linear, Thin::Worst);
    const TIMES: (Scale, Thin) = (Scale::Log, Thin::Worst);
    let over = Timeline::new(report);
    let rate = |name, class, path| over.rate(name, class, path, 1.0);
    let mut html = String::new();
    let mut section = |title: &str, charts: &[String]| {
        let charts = charts.concat();
        if !charts.is_empty() {
            html += &format!(
                "<section><h2>{title}</h2><div class=\"charts\">{charts}</div></section>\n"
            );
        }
    };
    section(
        "Sessions",
        &[
            over.chart(
                "Sessions up",
                WORST,
                scaled,
                vec![over.series("up", "s0", "up")],
            ),
            over.chart(
                "Starts and what came of them, a second",
                RATES,
                scaled,
                vec![
                    rate("started", "s3", "started"),
                    rate("came up", "s0", "came_up"),
                    rate("failed", "s4", "failed"),
                    rate("disconnected", "s2", "disconnects"),
                ],
            ),
            over.chart(
                "Set-up time, from the planned start",
                TIMES,
                time,
                over.quantiles("setup_us"),
            ),
            phases(report),
        ],
    );
    section(
        "Traffic",
        &[
            over.chart(
                "Packets a second",
                RATES,
                scaled,
                vec![
                    rate("sent", "s3", "sent"),
                    rate("received", "s0", "received"),
                ],
            ),
            over.chart(
                "Bits a second",
                RATES,
                scaled,
                vec![
                    over.rate("sent", "s3", "sent_bytes", 8.0),
                    over.rate("received", "s0", "received_bytes", 8.0),
                ],
            ),
            over.chart(
                "Latency, from the planned time",
                TIMES,
                time,
                over.quantiles("latency_us"),
            ),
            over.chart(
                "Loss so far (with what is under way)",
                WORST,
                percent,
                vec![over.series("missing", "s4", "loss")],
            ),
            over.chart("LCP echo", TIMES, time, over.quantiles("lcp_echo_us")),
        ],
    );
    section("Percentiles", &curves(report));
    section(
        "The generator itself",
        &[
            over.chart(
                "Lateness of starts",
                TIMES,
                time,
                over.quantiles("start_lateness_us"),
            ),
            over.chart(
                "Lateness of sends",
                TIMES,
                time,
                over.quantiles("send_lateness_us"),
            ),
            over.chart(
                "Processors in use",
                RATES,
                scaled,
                vec![rate("of loadgen", "s0", "cpu_s")],
            ),
        ],
    );
    html
}

fn phases(report: &Value) -> String {
    let groups: Vec<(String, Vec<Option<f64>>)> = list(report, "setup.phases")
        .iter()
        .map(|phase| {
            let us = |field: &str| number(phase.get("us")?, field);
            let values = ["p50", "p90", "p99"].map(us);
            (text(phase, "name").to_owned(), values.to_vec())
        })
        .collect();
    bars(
        "Phases of the set-up",
        &["p50", "p90", "p99"],
        &groups,
        time,
    )
}

/// Percentile curves: the horizontal axis gives each further nine the same room.
fn curves(report: &Value) -> Vec<String> {
    // The largest has no place on such an axis; it is drawn where its rank would be.
    let place = |quantile: f64| (1.0 / (1.0 - quantile.min(0.999_999_9))).log10();
    let names = [
        ("setup", "Set-up time"),
        ("latency", "Latency"),
        ("lcp_echo", "LCP echo"),
        ("send_lateness", "Lateness of sends"),
    ];
    let all = list(report, "curves");
    names
        .into_iter()
        .filter_map(|(name, title)| {
            let curve = all.iter().find(|curve| text(curve, "name") == name)?;
            let points: Vec<(f64, f64)> = list(curve, "points")
                .iter()
                .filter_map(|point| Some((number(point, "quantile")?, number(point, "us")?)))
                .collect();
            let last = points.iter().map(|point| point.0).filter(|&q| q < 1.0);
            let last = last.fold(0.0, f64::max);
            let x: Vec<f64> = points
                .iter()
                .map(|&(quantile, _)| {
                    if quantile < 1.0 {
                        place(quantile)
                    } else {
                        place(last) + 0.3
                    }
                })
                .collect();
            let end = x.last().copied().unwrap_or(1.0);
            let labels = [
                (0.0, "0 %"),
                (0.5, "50 %"),
                (0.9, "90 %"),
                (0.99, "99 %"),
                (0.999, "99.9 %"),
                (0.9999, "99.99 %"),
                (0.999_99, "99.999 %"),
            ];
            let ticks: Vec<(f64, String)> = labels
                .into_iter()
                .map(|(quantile, label)| (place(quantile), label.to_owned()))
                // Those that would stand upon another are left out.
                .filter(|(at, _)| *at <= end * 0.93 && (*at == 0.0 || *at >= end * 0.12))
                .chain([(end, "max".to_owned())])
                .collect();
            let chart = Chart {
                title,
                x_name: "",
                x: &x,
                x_ticks: Some(&ticks),
                scale: Scale::Log,
                thin: Thin::Worst,
                format: time,
                series: vec![Series {
                    name: "share of all that took no longer",
                    class: "s0",
                    values: points.iter().map(|&(_, us)| Some(us)).collect(),
                }],
            };
            Some(chart.svg())
        })
        .collect()
}
