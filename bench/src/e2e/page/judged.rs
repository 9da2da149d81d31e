//! What is judged, first of all; and the other figures that have a name each.

use std::fmt::Write as _;

use super::super::report::{Bar, Figure, Row, Sense, Verdict, short};
use super::escape;
use super::marks::{Axis, Look, Way, mark};

/// What is judged of a row.
const fn judged(row: &Row) -> &Figure {
    match &row.ratio {
        Some(ratio) => ratio,
        None => &row.figure,
    }
}

const fn sign(bar: Bar) -> &'static str {
    match bar.sense {
        Sense::AtMost => "≤",
        Sense::AtLeast => "≥",
    }
}

/// How many bars are met, and which are not.
pub(super) fn verdict(rows: &[Row]) -> String {
    let of = |verdict| rows.iter().filter(move |row| row.verdict == verdict);
    let (stretch, met) = (of(Verdict::Stretch).count(), of(Verdict::Bar).count());
    let missed: Vec<&Row> = of(Verdict::Missed).collect();
    let all = stretch + met + missed.len();
    let (class, word) = match (all, missed.len()) {
        (0, _) => ("warn", "Nothing here is judged".to_owned()),
        (_, 0) => ("good", format!("All {all} bars met")),
        (_, count) => ("bad", format!("{count} of {all} bars missed")),
    };
    let mut html = format!("<section class=\"verdict {class}\"><p class=\"word\">{word}</p>");
    if all > 0 {
        let _ = write!(html, "<p>{met} met, {stretch} with their stretch.</p>");
    }
    if !missed.is_empty() {
        html += "<ul>";
        for row in missed {
            let Some(bar) = row.bar else { continue };
            let figure = judged(row);
            let _ = write!(
                html,
                "<li>{}: {} {}, wanted {} {}</li>",
                escape(&row.name),
                short(figure.median),
                figure.spread(),
                sign(bar),
                short(bar.bar)
            );
        }
        html += "</ul>";
    }
    html + "</section>\n"
}

/// How a figure stands to its bar: 1 is just met, less is better whichever way is good.
fn to_bar(figure: &Figure, bar: Bar) -> Option<Figure> {
    let part = |value: f64| match bar.sense {
        Sense::AtMost => value / bar.bar,
        Sense::AtLeast => bar.bar / value,
    };
    (bar.bar > 0.0).then(|| Figure::of(figure.samples.iter().map(|&value| part(value)).collect()))
}

/// The small plot of one row: the bar as a line, the stretch as a dashed one, the floor in grey.
fn plot(row: &Row, axis: &Axis) -> Option<String> {
    const HEIGHT: f64 = 20.0;
    let bar = row.bar?;
    let figure = to_bar(judged(row), bar)?;
    let mut svg = format!("<svg viewBox=\"0 0 190 {HEIGHT}\" aria-hidden=\"true\">");
    let mut line = |class: &str, value: f64| {
        let x = axis.place(value);
        let _ = write!(
            svg,
            "<path class=\"{class}\" d=\"M{x:.1} 1V{:.1}\"/>",
            HEIGHT - 1.0
        );
    };
    line("limit", 1.0);
    let stretch = to_bar(&Figure::of(vec![bar.stretch]), bar)?;
    if stretch.median.is_finite() && stretch.median != 1.0 {
        line("wish", stretch.median);
    }
    if row
        .beside
        .as_ref()
        .is_some_and(|beside| beside.name == "floor")
    {
        let floor = Figure::of(vec![1.0 / bar.bar]);
        svg += &mark(
            &floor,
            Look::FLOOR,
            "floor",
            axis,
            Way::Across,
            HEIGHT / 2.0,
        );
    }
    if figure.median > axis.last() {
        // It is further out than can be shown.
        svg += "<path class=\"limit\" d=\"M180 6l4 4l-4 4\"/>";
    }
    svg += &mark(
        &figure,
        Look::PLAIN,
        "× the bar",
        axis,
        Way::Across,
        HEIGHT / 2.0,
    );
    Some(svg + "</svg>")
}

/// Rows with a bar, each with its plot, then the others.
pub(super) fn tables(rows: &[Row]) -> String {
    let (with, without): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(|row| row.bar.is_some());
    let mut html = String::new();
    if !with.is_empty() {
        let stands = with.iter().filter_map(|row| to_bar(judged(row), row.bar?));
        let values = stands.flat_map(|figure| [figure.least, figure.most]);
        // One noisy round does not push all others together.
        let axis = Axis::over(values.map(|value| value.clamp(0.2, 5.0)), (6.0, 172.0));
        html += "<section class=\"judged\"><h2>Judged</h2><p class=\"say\">Median of the rounds (least..most). In the \
                 plot the solid line is the bar, the dashed one the stretch, the grey tick the floor; further left is \
                 better. Values of one round are divided by what was measured beside them in that round.</p>";
        html += &table(&with, Some(&axis));
        html += "</section>\n";
    }
    if !without.is_empty() {
        html += "<section class=\"judged\"><h2>Not judged</h2>";
        html += &table(&without, None);
        html += "</section>\n";
    }
    html
}

fn table(rows: &[&Row], axis: Option<&Axis>) -> String {
    let mut html =
        "<div class=\"wide\"><table><thead><tr><th class=\"words\">figure</th>".to_owned();
    if axis.is_some() {
        html += "<th class=\"words\">verdict</th><th class=\"words\">against the bar</th>\
                 <th>bar</th><th>stretch</th>";
    }
    html += "<th>ratio</th><th>gateway</th><th>beside</th></tr></thead><tbody>";
    for row in rows {
        html += &line(row, axis);
    }
    html + "</tbody></table></div>"
}

fn figure(figure: &Figure) -> String {
    if !figure.median.is_finite() {
        return "–".to_owned();
    }
    format!(
        "{} <small>{}</small>",
        short(figure.median),
        figure.spread()
    )
}

fn line(row: &Row, axis: Option<&Axis>) -> String {
    let class = if row.note.is_empty() {
        ""
    } else {
        " class=\"said\""
    };
    let mut html = format!("<tr{class}><th>{}</th>", escape(&row.name));
    if let (Some(axis), Some(bar)) = (axis, row.bar) {
        let (class, word) = match row.verdict {
            Verdict::Stretch => ("good", "stretch"),
            Verdict::Bar => ("good", "met"),
            Verdict::Missed => ("bad", "missed"),
            Verdict::Info => ("", ""),
        };
        let _ = write!(
            html,
            "<td class=\"words {class}\">{word}</td><td class=\"plot\">{}</td>\
             <td>{sign} {}</td><td>{sign} {}</td>",
            plot(row, axis).unwrap_or_default(),
            short(bar.bar),
            short(bar.stretch),
            sign = sign(bar)
        );
    }
    let beside = row.beside.as_ref().map(|beside| {
        format!(
            "{} <small>{}</small>",
            short(beside.figure.median),
            escape(&beside.name)
        )
    });
    let _ = writeln!(
        html,
        "<td>{}</td><td>{} <small>{}</small></td><td>{}</td></tr>",
        row.ratio.as_ref().map(figure).unwrap_or_default(),
        figure(&row.figure),
        escape(row.unit),
        beside.unwrap_or_default()
    );
    if !row.note.is_empty() {
        let columns = if axis.is_some() { 8 } else { 4 };
        let note = escape(&row.note);
        let _ = writeln!(
            html,
            "<tr><td class=\"note\" colspan=\"{columns}\">{note}</td></tr>"
        );
    }
    html
}
