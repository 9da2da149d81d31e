//! A report as one page: `--html FILE`.
//!
//! The page is whole in itself (style and drawings are in it, there is no script, and its policy lets a
//! browser load nothing), so it can be mailed, kept and printed. Its style begins with that of loadgen's
//! reports, so that colours for light, dark and paper are chosen once.

mod judged;
mod marks;
mod others;
mod plots;
mod product;

use std::fmt::Write as _;

use super::report::{Report, utc};

const STYLE: [&str; 2] = [
    include_str!("../../../../loadgen/src/html/style.css"),
    include_str!("page.css"),
];

/// Text as it may stand in an element or in an attribute.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            // Control characters are no text of HTML.
            control if control.is_control() => escaped.push('\u{fffd}'),
            other => escaped.push(other),
        }
    }
    escaped
}

/// The page of a report.
pub(super) fn page(report: &Report) -> String {
    let machine = &report.machine;
    let date = utc(report.date);
    let kind = format!(
        "{date} · commit {} · Linux {} · {}",
        report.commit, machine.kernel, machine.processor
    );
    let mut html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>sstp-gw end to end, {date}</title>\n<style>\n{}</style>\n</head>\n<body>\n<main>\n\
         <header><h1>sstp-gw, end to end</h1><p class=\"kind\">{}</p></header>\n",
        STYLE.concat(),
        escape(&kind)
    );
    html += &judged::verdict(&report.rows);
    html += &judged::tables(&report.rows);
    html += &report
        .peers
        .as_ref()
        .map(others::section)
        .unwrap_or_default();
    html += &report
        .matrix
        .as_ref()
        .map(product::section)
        .unwrap_or_default();
    html += &circumstances(report);
    html + "</main>\n</body>\n</html>\n"
}

/// Where and how, so that it can be done again.
fn circumstances(report: &Report) -> String {
    let (machine, options) = (&report.machine, &report.options);
    let load: Vec<String> = machine
        .load_average
        .iter()
        .map(|load| format!("{load:.2}"))
        .collect();
    let mut html = format!(
        "<section><h2>How to have it again</h2><code class=\"run\">{}</code></section>\n<section class=\"details\">",
        escape(&report.command)
    );
    for (name, fields) in [
        (
            "Machine",
            vec![
                ("kernel", machine.kernel.clone()),
                ("processor", machine.processor.clone()),
                ("processors", machine.processors.to_string()),
                ("load average at start (1, 5, 15 minutes)", load.join(", ")),
            ],
        ),
        (
            "Run",
            vec![
                ("date", utc(report.date)),
                ("commit", report.commit.clone()),
                ("rounds", options.reps.to_string()),
                ("milliseconds a measurement", options.slice_ms.to_string()),
            ],
        ),
    ] {
        let _ = write!(html, "<div><h2>{name}</h2><dl>");
        for (field, value) in fields {
            let _ = write!(html, "<dt>{field}</dt><dd>{}</dd>", escape(&value));
        }
        html += "</dl></div>";
    }
    html += "</section>\n";
    for (title, lines) in [
        ("Left out", &report.skipped),
        ("Said at the end", &report.clocks),
    ] {
        if !lines.is_empty() {
            let _ = write!(html, "<section><h2>{title}</h2><ul class=\"said\">");
            for line in lines {
                let _ = write!(html, "<li>{}</li>", escape(line));
            }
            html += "</ul></section>\n";
        }
    }
    html + "<footer>CPU is that of the whole gateway process, user and system, all threads. A GB is 10⁹ bytes of IP packets \
            inside the tunnel, headers included, that arrived. Two numbers of different runs can differ by a half: compare \
            ratios.</footer>\n"
}

#[cfg(test)]
mod tests {
    use super::super::report::made_up;
    use super::*;

    #[test]
    fn a_page_is_whole_in_itself() {
        let page = page(&made_up::report());
        // For whoever wants to look at it.
        if let Some(kept) = std::env::var_os("SSTP_GW_PICTURES") {
            std::fs::write(std::path::Path::new(&kept).join("e2e.html"), &page).unwrap();
        }
        assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>\n"));
        for foreign in [
            "http://", "https://", "src=", "href=", "url(", "@import", "<script", "<link", "<img",
        ] {
            assert!(!page.contains(foreign), "{foreign}");
        }
        for (open, close) in [
            ("<section", "</section>"),
            ("<svg", "</svg>"),
            ("<table", "</table>"),
            ("<g ", "</g>"),
        ] {
            assert_eq!(
                page.matches(open).count(),
                page.matches(close).count(),
                "{open}"
            );
        }
        assert!(
            !page.contains("NaN") && !page.contains(">inf"),
            "what was not measured is left out"
        );
    }

    #[test]
    fn a_page_has_every_row_and_every_cell() {
        let report = made_up::report();
        let page = page(&report);
        for row in &report.rows {
            assert!(
                page.contains(&format!("<th>{}</th>", row.name)),
                "{}",
                row.name
            );
        }
        for line in &report.peers.unwrap().lines {
            assert!(page.contains(&format!("<th>{}</th>", line.name)));
        }
        assert!(page.contains("<td>12.0 (10.8..14.4)</td>"));
        assert!(page.contains("not to be read"), "of a server elsewhere");
        let matrix = report.matrix.unwrap();
        for cell in &matrix.cells {
            let spread = cell.cpu_ns_per_packet.spread();
            assert!(page.contains(&spread), "{}", cell.name);
        }
        // A mark in a panel for each, and a floor for each size and direction.
        let marks = |text: &str| page.matches(text).count();
        for engine in matrix.columns() {
            let words = engine.words();
            assert!(marks(&format!("<title>{words}: ")) >= 2 * 5 * 3, "{words}");
        }
        assert!(marks("<title>floor: ") >= 2 * 5);
        assert!(
            page.contains("2 of 5 bars missed"),
            "the verdict comes first"
        );
        assert!(page.contains("peers/ocserv: not installed") && page.contains("apart by 1 %"));
        assert!(page.contains("&lt;Fast&gt; &amp; co") && !page.contains("<Fast>"));
    }

    #[test]
    fn a_page_of_nothing_is_a_page_too() {
        let empty = Report::new(&super::super::Options::default());
        let page = page(&empty);
        assert!(page.contains("Nothing here is judged") && page.ends_with("</html>\n"));
    }
}
