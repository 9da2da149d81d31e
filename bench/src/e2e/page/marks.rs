//! What both kinds of plot share: a logarithmic axis, and a median as a mark with its whiskers.
//!
//! Who a mark belongs to is told by its colour and by its shape, so that it can be told on paper and by
//! whoever sees no colours.

use std::fmt::Write as _;

use super::super::matrix::Engine;
use super::super::report::{Figure, short};
use super::escape;

/// What a mark looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look {
    /// `s0` to `s4`.
    colour: &'static str,
    shape: Shape,
    is_full: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Circle,
    Square,
    Diamond,
    Bar,
}

impl Look {
    /// Of figures that have no others beside them.
    pub(super) const PLAIN: Self = Self::new("s0", Shape::Circle, true);
    /// Of the floor.
    pub(super) const FLOOR: Self = Self::new("s3", Shape::Bar, true);
    /// Of the second of two.
    pub(super) const OTHER: Self = Self::new("s2", Shape::Square, true);

    const fn new(colour: &'static str, shape: Shape, is_full: bool) -> Self {
        Self {
            colour,
            shape,
            is_full,
        }
    }

    /// Colour and shape tell the driver and who does TLS, hollow marks more than one shard.
    pub(super) fn of(engine: Engine) -> Self {
        let (colour, shape) = match (engine.kernel_tls, engine.driver) {
            (false, "io_uring") => ("s0", Shape::Circle),
            (false, _) => ("s2", Shape::Square),
            (true, "io_uring") => ("s1", Shape::Diamond),
            (true, _) => ("s4", Shape::Diamond),
        };
        Self::new(colour, shape, engine.shards == 1)
    }

    fn path(self, x: f64, y: f64) -> String {
        let class = if self.is_full { "full" } else { "hollow" };
        let d = match self.shape {
            Shape::Circle => {
                format!(
                    "M{:.1} {y:.1}a3.2 3.2 0 1 0 6.4 0a3.2 3.2 0 1 0 -6.4 0",
                    x - 3.2
                )
            }
            Shape::Square => format!("M{:.1} {:.1}h5.6v5.6h-5.6z", x - 2.8, y - 2.8),
            Shape::Diamond => format!("M{x:.1} {:.1}l4 4l-4 4l-4 -4z", y - 4.0),
            Shape::Bar => format!("M{:.1} {:.1}h12v2h-12z", x - 6.0, y - 1.0),
        };
        format!("<path class=\"{class}\" d=\"{d}\"/>")
    }
}

/// Names with their marks.
pub(super) fn legend(names: &[(Look, String)]) -> String {
    let mut html = "<p class=\"legend\">".to_owned();
    for (look, name) in names {
        let _ = write!(
            html,
            "<span class=\"{}\"><svg viewBox=\"0 0 14 14\" aria-hidden=\"true\">{}</svg>{}</span>",
            look.colour,
            look.path(7.0, 7.0),
            escape(name)
        );
    }
    html + "</p>"
}

/// Values and where they are drawn: from 1, 2 or 5 times a power of ten to another such.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    ticks: Vec<f64>,
    from: f64,
    to: f64,
}

impl Axis {
    /// One that holds all of these.
    pub(super) fn over(values: impl Iterator<Item = f64>, (from, to): (f64, f64)) -> Self {
        let values = values.filter(|value| value.is_finite() && *value > 0.0);
        let (low, high) = values.fold((f64::INFINITY, 0.0_f64), |(low, high), value| {
            (low.min(value), high.max(value))
        });
        let (low, high) = if low > high { (1.0, 10.0) } else { (low, high) };
        let mut decade = 10_f64.powf(low.log10().floor());
        let mut ticks = Vec::new();
        // A dozen decades are more than any figure here varies by.
        for _ in 0..12 {
            ticks.extend([1.0, 2.0, 5.0].map(|factor| factor * decade));
            decade *= 10.0;
        }
        let first = ticks.iter().rposition(|&tick| tick <= low * 1.000_1);
        let last = ticks.iter().position(|&tick| tick >= high * 0.999_9);
        let (first, last) = (first.unwrap_or(0), last.unwrap_or(ticks.len() - 1));
        let ticks = ticks.get(first..=last.max(first + 1)).unwrap_or_default();
        Self {
            ticks: ticks.to_vec(),
            from,
            to,
        }
    }

    pub(super) fn ticks(&self) -> impl Iterator<Item = (f64, String)> {
        let ticks = self.ticks.iter();
        ticks.map(|&tick| (self.place(tick), plain(tick)))
    }

    /// The greatest value that is not drawn at the end.
    pub(super) fn last(&self) -> f64 {
        self.ticks.last().copied().unwrap_or(f64::INFINITY)
    }

    pub(super) fn place(&self, value: f64) -> f64 {
        let low = self.ticks.first().copied().unwrap_or(1.0);
        let high = self.ticks.last().copied().unwrap_or(10.0);
        let part = (value.max(low) / low).ln() / (high / low).ln();
        self.from + part.clamp(0.0, 1.0) * (self.to - self.from)
    }
}

/// As it is written beside an axis.
fn plain(value: f64) -> String {
    if value >= 1e4 {
        format!("{}k", value / 1e3)
    } else {
        // Without the tail that multiplying has left.
        let text = format!("{value:.4}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}

/// Which way an axis goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Across,
    Up,
}

/// A median with its whiskers at `other` on the other axis; nothing if there is none.
pub(super) fn mark(
    figure: &Figure,
    look: Look,
    title: &str,
    axis: &Axis,
    way: Way,
    other: f64,
) -> String {
    if !figure.median.is_finite() {
        return String::new();
    }
    let [least, median, most] =
        [figure.least, figure.median, figure.most].map(|value| axis.place(value));
    let (span, (x, y)) = match way {
        Way::Across => (format!("M{least:.1} {other:.1}H{most:.1}"), (median, other)),
        Way::Up => (format!("M{other:.1} {least:.1}V{most:.1}"), (other, median)),
    };
    format!(
        "<g class=\"mark {}\"><title>{}: {}</title><path class=\"span\" d=\"{span}\"/>{}</g>",
        look.colour,
        escape(title),
        escape(&format!("{} {}", short(figure.median), figure.spread())),
        look.path(x, y)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_goes_from_one_round_value_to_another() {
        let ticks = |values: &[f64]| -> Vec<String> {
            let axis = Axis::over(values.iter().copied(), (0.0, 100.0));
            axis.ticks().map(|(_, name)| name).collect()
        };
        assert_eq!(
            ticks(&[420.0, 11_000.0]).join(" "),
            "200 500 1000 2000 5000 10k 20k"
        );
        assert_eq!(ticks(&[0.9, 1.3]).join(" "), "0.5 1 2");
        assert_eq!(ticks(&[1.0]).join(" "), "1 2");
        assert_eq!(ticks(&[0.0, f64::NAN]).join(" "), "1 2 5 10");
        let axis = Axis::over([1.0, 100.0].into_iter(), (200.0, 0.0));
        assert_eq!(axis.place(10.0).round(), 100.0);
        assert_eq!((axis.place(1e9), axis.place(0.0)), (0.0, 200.0));
    }

    #[test]
    fn every_engine_looks_different() {
        let mut looks = Vec::new();
        for driver in ["io_uring", "epoll"] {
            for (shards, kernel_tls) in [(1, false), (2, false), (1, true), (2, true)] {
                looks.push(Look::of(Engine {
                    shards,
                    driver,
                    kernel_tls,
                }));
            }
        }
        for (index, look) in looks.iter().enumerate() {
            assert_eq!(looks.iter().position(|other| other == look), Some(index));
        }
    }

    #[test]
    fn what_was_not_measured_is_not_drawn() {
        let axis = Axis::over([1.0, 2.0].into_iter(), (0.0, 100.0));
        let draw = |values: Vec<f64>| {
            mark(
                &Figure::of(values),
                Look::PLAIN,
                "a<b",
                &axis,
                Way::Across,
                7.0,
            )
        };
        assert_eq!(draw(vec![f64::NAN]), "");
        let drawn = draw(vec![1.0, 1.0, 2.0]);
        assert!(drawn.contains("a&lt;b: 1.00 (1.00..2.00)"), "{drawn}");
        assert!(drawn.contains("d=\"M0.0 7.0H100.0\""), "{drawn}");
    }
}
