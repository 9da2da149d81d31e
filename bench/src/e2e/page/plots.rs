//! The two kinds of plot: a strip, with a line for each name and values across, and a panel, with a column
//! for each name and values upwards.

use std::fmt::Write as _;

use super::super::report::Figure;
use super::escape;
use super::marks::{Axis, Look, Way, mark};

/// Several figures of one name.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    /// What begins here, if something does.
    pub(super) heading: Option<String>,
    /// Each with what it is told as.
    pub(super) marks: Vec<(Look, String, Figure)>,
}

/// Every value that has to find room.
fn values(entries: &[Entry]) -> impl Iterator<Item = f64> {
    let marks = entries.iter().flat_map(|entry| &entry.marks);
    marks.flat_map(|(_, _, figure)| [figure.least, figure.median, figure.most])
}

fn open(title: &str, legend: &str, (width, height): (f64, f64)) -> String {
    let title = escape(title);
    format!(
        "<figure><figcaption>{title}</figcaption>{legend}\
         <svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{title}\">"
    )
}

/// A line for each entry; `reference` is what values are seen against. As wide as it will be shown, about,
/// so that its words are as large as others.
pub(super) fn strip(
    title: &str,
    legend: &str,
    width: f64,
    reference: Option<f64>,
    entries: &[Entry],
) -> String {
    const LEFT: f64 = 112.0;
    const TOP: f64 = 22.0;
    const LINE: f64 = 15.0;
    if entries.is_empty() {
        return String::new();
    }
    let axis = Axis::over(values(entries).chain(reference), (LEFT, width - 14.0));
    let headings = entries
        .iter()
        .filter(|entry| entry.heading.is_some())
        .count();
    let height = TOP + LINE * (entries.len() + headings) as f64 + 4.0;
    let mut svg = open(title, legend, (width, height));
    for (x, name) in axis.ticks() {
        let _ = write!(
            svg,
            "<path class=\"grid\" d=\"M{x:.1} {TOP}V{height}\"/><text class=\"x\" x=\"{x:.1}\" y=\"14\">{name}</text>"
        );
    }
    if let Some(x) = reference.map(|value| axis.place(value)) {
        let _ = write!(svg, "<path class=\"limit\" d=\"M{x:.1} {TOP}V{height}\"/>");
    }
    let mut y = TOP + LINE / 2.0;
    for entry in entries {
        if let Some(heading) = &entry.heading {
            let heading = escape(heading);
            let _ = write!(
                svg,
                "<text class=\"line-name group\" x=\"0\" y=\"{y:.1}\">{heading}</text>"
            );
            y += LINE;
        }
        let name = escape(&entry.name);
        let _ = write!(
            svg,
            "<text class=\"line-name\" x=\"8\" y=\"{y:.1}\">{name}</text>"
        );
        let count = entry.marks.len() as f64;
        for (nth, (look, title, figure)) in entry.marks.iter().enumerate() {
            // Beside each other as far as the line has room, for they often are at one place.
            let shift = (nth as f64 + 0.5 - count / 2.0) * 3.0;
            svg += &mark(figure, *look, title, &axis, Way::Across, y + shift);
        }
        y += LINE;
    }
    svg + "</svg></figure>"
}

/// A column for each entry; `range` are values that panels beside each other share.
pub(super) fn panel(title: &str, unit: &str, range: &[f64], entries: &[Entry]) -> String {
    const WIDTH: f64 = 330.0;
    const HEIGHT: f64 = 260.0;
    const LEFT: f64 = 40.0;
    const BOTTOM: f64 = 236.0;
    let shared = range.iter().copied();
    let axis = Axis::over(values(entries).chain(shared), (BOTTOM, 22.0));
    let mut svg = open(title, "", (WIDTH, HEIGHT));
    let _ = write!(svg, "<text x=\"0\" y=\"10\">{}</text>", escape(unit));
    for (y, name) in axis.ticks() {
        let _ = write!(
            svg,
            "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{WIDTH}\"/><text class=\"y\" x=\"{}\" y=\"{:.1}\">{name}</text>",
            LEFT - 5.0,
            y + 4.0
        );
    }
    let column = (WIDTH - LEFT) / entries.len().max(1) as f64;
    for (index, entry) in entries.iter().enumerate() {
        let centre = LEFT + column * (index as f64 + 0.5);
        let _ = write!(
            svg,
            "<text class=\"x\" x=\"{centre:.1}\" y=\"{}\">{}</text>",
            HEIGHT - 6.0,
            escape(&entry.name)
        );
        let (floors, marks): (Vec<_>, Vec<_>) = entry
            .marks
            .iter()
            .partition(|(look, ..)| *look == Look::FLOOR);
        for (look, title, figure) in floors {
            // Under all that are built on it.
            let line = [-0.42, 0.42].map(|side| centre + side * column);
            let y = axis.place(figure.median);
            if figure.median.is_finite() {
                let _ = write!(
                    svg,
                    "<path class=\"floor\" d=\"M{:.1} {y:.1}H{:.1}\"/>",
                    line[0], line[1]
                );
            }
            svg += &mark(figure, *look, title, &axis, Way::Up, centre);
        }
        let count = marks.len().max(1) as f64;
        for (nth, (look, title, figure)) in marks.into_iter().enumerate() {
            let x = centre + (nth as f64 + 0.5 - count / 2.0) * column * 0.82 / count;
            svg += &mark(figure, *look, title, &axis, Way::Up, x);
        }
    }
    svg + "</svg></figure>"
}
