//! Charts as SVG text: lines over an axis, and bars. No script: a browser's own tooltips tell the
//! numbers of each column.
//!
//! Colours are classes (`s0` to `s4`), so the page's style decides them for light, dark and paper.

use std::fmt::Write as _;

use super::escape;
use crate::units::plain;

const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 230.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 34.0;

/// Columns of a chart, at most; a line has no more points, for a screen could not show them.
const COLUMNS_MAX: usize = 240;

/// How the values of an axis lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    /// From 0.
    Linear,
    /// By decades.
    Log,
}

/// What stands for several points where there are more than columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Thin {
    Mean,
    Worst,
}

/// One line.
#[derive(Clone, Debug)]
pub(super) struct Series {
    pub(super) name: &'static str,
    /// Its colour, `s0` to `s4`.
    pub(super) class: &'static str,
    /// By point; none leaves a gap.
    pub(super) values: Vec<Option<f64>>,
}

/// A chart of lines.
#[derive(Clone, Debug)]
pub(super) struct Chart<'a> {
    pub(super) title: &'a str,
    /// What is below the horizontal axis.
    pub(super) x_name: &'a str,
    /// Where each point is on it, in order.
    pub(super) x: &'a [f64],
    /// Ticks of the horizontal axis, if they are not to be found: where, and what is written.
    pub(super) x_ticks: Option<&'a [(f64, String)]>,
    pub(super) scale: Scale,
    pub(super) thin: Thin,
    /// How a value is written.
    pub(super) format: fn(f64) -> String,
    pub(super) series: Vec<Series>,
}

/// A range of values, and where they are drawn.
struct Axis {
    low: f64,
    high: f64,
    scale: Scale,
    from: f64,
    to: f64,
}

impl Axis {
    fn place(&self, value: f64) -> f64 {
        let part = match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Log => (value.max(self.low) / self.low).ln() / (self.high / self.low).ln(),
        };
        self.from + part.clamp(0.0, 1.0) * (self.to - self.from)
    }

    /// A vertical axis that holds all of these values.
    fn over(values: impl Iterator<Item = f64>, scale: Scale) -> Self {
        let values: Vec<f64> = values.filter(|value| value.is_finite()).collect();
        let high = values.iter().copied().fold(0.0, f64::max);
        let (low, high) = match scale {
            Scale::Linear => {
                let step = step(high);
                (0.0, ((high / step).ceil() * step).max(step))
            }
            Scale::Log => {
                let positive = values.iter().copied().filter(|&value| value > 0.0);
                let low = positive.fold(f64::INFINITY, f64::min);
                let low = if low.is_finite() { low } else { 1.0 };
                let low = 10_f64.powf(low.log10().floor());
                (low, 10_f64.powf(high.max(low * 1.01).log10().ceil()))
            }
        };
        Self {
            low,
            high,
            scale,
            from: HEIGHT - BOTTOM,
            to: TOP,
        }
    }

    fn ticks(&self) -> Vec<f64> {
        let mut ticks = Vec::new();
        let mut at = self.low;
        let step = step(self.high - self.low);
        // Eight decades at most are in any of our figures; the bound is for those of others.
        while at <= self.high * 1.000_001 && ticks.len() < 20 {
            ticks.push(at);
            at = match self.scale {
                Scale::Linear => at + step,
                Scale::Log => at * 10.0,
            };
        }
        ticks
    }
}

/// A round number that goes into `high` four to ten times.
fn step(high: f64) -> f64 {
    if !(high > 0.0 && high.is_finite()) {
        return 0.25;
    }
    let decade = 10_f64.powf((high / 4.0).log10().floor());
    let steps = [1.0, 2.0, 2.5, 5.0, 10.0].map(|factor| factor * decade);
    let fits = steps.into_iter().rfind(|step| high / step >= 3.999);
    fits.unwrap_or(decade)
}

impl Chart<'_> {
    /// The chart, or nothing if there is nothing in it.
    pub(super) fn svg(&self) -> String {
        let thinned = self.thinned();
        let values = || thinned.iter().flat_map(|(_, values)| values).flatten();
        if values().next().is_none() {
            return String::new();
        }
        let axis = Axis::over(values().copied(), self.scale);
        let first = self.x.first().copied().unwrap_or(0.0);
        let last = self.x.last().copied().unwrap_or(1.0);
        let across = Axis {
            low: first,
            high: if last > first { last } else { first + 1.0 },
            scale: Scale::Linear,
            from: LEFT,
            to: WIDTH - RIGHT,
        };
        let mut text = format!("<figure><figcaption>{}</figcaption>", escape(self.title));
        text += &self.legend();
        let _ = write!(
            text,
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">",
            escape(self.title)
        );
        for tick in axis.ticks() {
            let y = axis.place(tick);
            let _ = write!(
                text,
                "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{:.1}\"/><text class=\"y\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                y + 4.0,
                escape(&(self.format)(tick))
            );
        }
        text += &self.x_axis(&across);
        for (index, series) in self.series.iter().enumerate() {
            let points = thinned
                .iter()
                .map(|(x, values)| (*x, values.get(index).copied().flatten()));
            let (path, alone) = path(
                points.map(|(x, value)| value.map(|value| (across.place(x), axis.place(value)))),
            );
            let _ = write!(text, "<path class=\"line {}\" d=\"{path}\"/>", series.class);
            for (x, y) in alone {
                let _ = write!(
                    text,
                    "<circle class=\"{}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.5\"/>",
                    series.class
                );
            }
        }
        text += &self.columns(&thinned, &across);
        text += "</svg></figure>";
        text
    }

    fn legend(&self) -> String {
        let mut text = "<p class=\"legend\">".to_owned();
        for series in &self.series {
            let _ = write!(
                text,
                "<span class=\"{}\"><i></i>{}</span>",
                series.class,
                escape(series.name)
            );
        }
        text += "</p>";
        text
    }

    fn x_axis(&self, across: &Axis) -> String {
        let y = HEIGHT - BOTTOM;
        let mut text = format!("<path class=\"axis\" d=\"M{LEFT} {y}H{}\"/>", WIDTH - RIGHT);
        let found: Vec<(f64, String)>;
        let ticks = if let Some(ticks) = self.x_ticks {
            ticks
        } else {
            let step = step(across.high - across.low);
            let begin = (across.low / step).ceil() * step;
            let count = ((across.high - begin) / step).floor().clamp(0.0, 20.0);
            found = (0_u32..=20)
                .map(f64::from)
                .take_while(|&n| n <= count)
                .map(|n| (begin + n * step, plain(begin + n * step)))
                .collect();
            &found
        };
        for (at, label) in ticks {
            let x = across.place(*at);
            let _ = write!(
                text,
                "<path class=\"axis\" d=\"M{x:.1} {y}v4\"/><text class=\"x\" x=\"{x:.1}\" y=\"{:.1}\">{}</text>",
                y + 16.0,
                escape(label)
            );
        }
        let _ = write!(
            text,
            "<text class=\"name\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            WIDTH - RIGHT,
            HEIGHT - 3.0,
            escape(self.x_name)
        );
        text
    }

    /// A place to point at for each column, with its numbers.
    fn columns(&self, thinned: &[(f64, Vec<Option<f64>>)], across: &Axis) -> String {
        let mut text = String::new();
        let width = (across.to - across.from) / thinned.len().max(1) as f64;
        for (x, values) in thinned {
            let label = match self.x_ticks {
                Some(_) => String::new(),
                None => format!("{} {}", plain(*x), self.x_name),
            };
            let mut title = label;
            for (series, value) in self.series.iter().zip(values) {
                if let Some(value) = value {
                    let _ = write!(title, "\n{}: {}", series.name, (self.format)(*value));
                }
            }
            let _ = write!(
                text,
                "<rect class=\"tip\" x=\"{:.1}\" y=\"{TOP}\" width=\"{width:.1}\" height=\"{:.1}\"><title>{}</title></rect>",
                across.place(*x) - width / 2.0,
                HEIGHT - BOTTOM - TOP,
                escape(title.trim())
            );
        }
        text
    }

    /// At most so many points as there are columns: where, and each series' value.
    fn thinned(&self) -> Vec<(f64, Vec<Option<f64>>)> {
        let size = self.x.len().div_ceil(COLUMNS_MAX).max(1);
        let chunks = self.x.chunks(size).enumerate();
        chunks
            .map(|(chunk, x)| {
                let one = |series: &Series| {
                    let from = chunk * size;
                    let to = (from + size).min(series.values.len());
                    let values = series.values.get(from..to).unwrap_or_default();
                    let known = || values.iter().flatten().copied().filter(|v| v.is_finite());
                    let count = known().count();
                    (count > 0).then(|| match self.thin {
                        Thin::Mean => known().sum::<f64>() / count as f64,
                        Thin::Worst => known().fold(f64::NEG_INFINITY, f64::max),
                    })
                };
                let at = x.first().copied().unwrap_or(0.0);
                (at, self.series.iter().map(one).collect())
            })
            .collect()
    }
}

/// A path through these places, and those that stand alone, of which a path would show nothing.
fn path(points: impl Iterator<Item = Option<(f64, f64)>>) -> (String, Vec<(f64, f64)>) {
    let (mut text, mut alone) = (String::new(), Vec::new());
    let (mut run, mut last) = (0_usize, None);
    for point in points.chain([None]) {
        match point {
            Some((x, y)) => {
                let _ = write!(text, "{}{x:.1} {y:.1}", if run > 0 { 'L' } else { 'M' });
                run += 1;
            }
            None => {
                alone.extend(last.filter(|_| run == 1));
                run = 0;
            }
        }
        last = point;
    }
    (text, alone)
}

/// Groups of bars on one scale, such as the phases of the set-up with their quantiles.
pub(super) fn bars(
    title: &str,
    names: &[&'static str],
    groups: &[(String, Vec<Option<f64>>)],
    format: fn(f64) -> String,
) -> String {
    const NAME: f64 = 66.0;
    const VALUE: f64 = 60.0;
    const BAR: f64 = 9.0;
    let all = || groups.iter().flat_map(|(_, values)| values).flatten();
    let high = all().copied().fold(0.0, f64::max);
    if all().next().is_none() || high <= 0.0 {
        return String::new();
    }
    let group = BAR * names.len() as f64 + 10.0;
    let height = group * groups.len() as f64 + 6.0;
    let mut text = format!("<figure><figcaption>{}</figcaption>", escape(title));
    text += "<p class=\"legend\">";
    for (index, name) in names.iter().enumerate() {
        let _ = write!(
            text,
            "<span class=\"s{index}\"><i></i>{}</span>",
            escape(name)
        );
    }
    let _ = write!(
        text,
        "</p><svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\">",
        escape(title)
    );
    for (row, (name, values)) in groups.iter().enumerate() {
        let top = group * row as f64 + 6.0;
        let _ = write!(
            text,
            "<text class=\"bar\" x=\"0\" y=\"{:.1}\">{}</text>",
            top + group / 2.0,
            escape(name)
        );
        for (index, value) in values.iter().enumerate() {
            let Some(value) = value else { continue };
            let y = top + BAR * index as f64;
            let width = value / high * (WIDTH - NAME - VALUE);
            let _ = write!(
                text,
                "<rect class=\"s{index}\" x=\"{NAME}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>\
                 <text class=\"value\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                width.max(0.5),
                BAR - 1.5,
                NAME + width + 4.0,
                y + BAR - 2.0,
                escape(&format(*value))
            );
        }
    }
    text += "</svg></figure>";
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::scaled;

    fn chart<'a>(x: &'a [f64], values: Vec<Option<f64>>, scale: Scale) -> Chart<'a> {
        Chart {
            title: "a < b",
            x_name: "s",
            x,
            x_ticks: None,
            scale,
            thin: Thin::Worst,
            format: scaled,
            series: vec![Series {
                name: "one",
                class: "s0",
                values,
            }],
        }
    }

    #[test]
    fn gaps_are_gaps_and_lone_points_are_seen() {
        let x = [0.0, 1.0, 2.0, 3.0];
        let svg = chart(
            &x,
            vec![Some(1.0), Some(2.0), None, Some(4.0)],
            Scale::Linear,
        )
        .svg();
        assert!(
            svg.contains("d=\"M52.0 149.5L188.0 103.0M460.0 10.0\""),
            "{svg}"
        );
        assert_eq!(svg.matches("<circle").count(), 1, "{svg}");
        assert!(svg.contains("cx=\"460.0\" cy=\"10.0\""), "{svg}");
        assert!(svg.contains("a &lt; b") && !svg.contains("a < b"));
        assert_eq!(chart(&x, vec![None; 4], Scale::Linear).svg(), "");
    }

    #[test]
    fn many_points_become_columns_that_keep_the_worst() {
        let x: Vec<f64> = (0_u32..3_600).map(f64::from).collect();
        let values = x
            .iter()
            .map(|&x| Some(if x == 1_801.0 { 500.0 } else { 1.0 }));
        let chart = chart(&x, values.collect(), Scale::Log);
        let thinned = chart.thinned();
        assert_eq!(thinned.len(), COLUMNS_MAX);
        assert_eq!(thinned[120], (1_800.0, vec![Some(500.0)]));
        assert!(chart.svg().contains(">1k</text>"));
    }

    #[test]
    fn steps_are_round() {
        for (high, expected) in [
            (100.0, 25.0),
            (1.0, 0.25),
            (7.0, 1.0),
            (12_345.0, 2_500.0),
            (0.0, 0.25),
        ] {
            assert!(
                (step(high) - expected).abs() < 1e-9,
                "{high}: {}",
                step(high)
            );
        }
    }
}
