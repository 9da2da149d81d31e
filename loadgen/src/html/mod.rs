//! A report as one page: `--report FILE`, and `loadgen report` for one that was saved.
//!
//! The page is whole in itself (style and drawings are in it, there is no script, and its policy lets
//! a browser load nothing), so it can be mailed, kept and printed. It is made from the JSON alone,
//! and whatever a server could have put there is escaped.

use std::fmt::Write as _;

use serde_json::Value;

use crate::saved::{at, is, list, number, text, write_threshold};
use crate::units::{percent, plain, scaled, time, with_unit};

mod chart;

mod charts;

const STYLE: &str = include_str!("style.css");

/// Text as it may stand in an element or in an attribute.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&#39;",
            // Control characters are no text of HTML.
            '\n' | '\t' => escaped.push(character),
            control if control.is_control() => escaped.push('\u{fffd}'),
            other => escaped.push(other),
        }
    }
    escaped
}

/// The page of a report.
pub(crate) fn page(report: &Value) -> String {
    let title = format!(
        "{} of {} sessions against {}",
        text(report, "command"),
        count(report, "scenario.sessions"),
        text(report, "server")
    );
    let title = escape(&title);
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>loadgen: {title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <header><p class=\"kind\">loadgen {}</p><h1>{title}</h1></header>\n",
        escape(text(report, "version"))
    );
    page += &verdict(report);
    page += &tiles(report);
    page += &charts::all(report);
    page += &times(report);
    page += &causes(report);
    page += &details(report);
    page += "</main>\n</body>\n</html>\n";
    page
}

fn count(report: &Value, path: &str) -> String {
    number(report, path).map_or_else(|| "?".to_owned(), |number| format!("{number:.0}"))
}

/// What it comes to, first of all, and why.
fn verdict(report: &Value) -> String {
    let broken: Vec<&Value> = list(report, "thresholds")
        .iter()
        .filter(|threshold| !is(threshold, "ok"))
        .collect();
    let (class, word) = if is(report, "interrupted") {
        ("warn", "Interrupted")
    } else if !is(report, "ok") {
        ("bad", "Failed")
    } else if !broken.is_empty() {
        ("bad", "Threshold broken")
    } else if is(report, "generator_bound") {
        ("warn", "Passed, but bound by the generator")
    } else {
        ("good", "Passed")
    };
    let mut reasons = Vec::new();
    let events = |path: &str, words: &str| {
        number(report, path)
            .filter(|&number| number > 0.0)
            .map(|number| format!("{number:.0} {words}"))
    };
    reasons.extend(events("setup.failed", "sessions did not come up"));
    reasons.extend(events(
        "hold.disconnects",
        "sessions were lost while they were held",
    ));
    reasons.extend(events("traffic.corrupted", "packets were corrupted"));
    reasons.extend(events(
        "traffic.wrong_session",
        "packets came out of a wrong session",
    ));
    if number(report, "setup.up") == Some(0.0) {
        reasons.push("no session came up".to_owned());
    }
    reasons.extend(broken.iter().map(|threshold| {
        let name = text(threshold, "threshold");
        format!("{name} does not hold: {}", write_threshold(threshold))
    }));
    for why in list(report, "generator_bound_why") {
        reasons.push(format!(
            "{}: these figures are loadgen's own, not the server's",
            why.as_str().unwrap_or_default()
        ));
    }
    if is(report, "interrupted") {
        reasons.push("the run was ended before its time".to_owned());
    }
    let mut html = format!("<section class=\"verdict {class}\"><p class=\"word\">{word}</p>");
    if reasons.is_empty() {
        let _ = write!(
            html,
            "<p>All {} sessions came up, and none was lost.</p>",
            escape(&count(report, "setup.up"))
        );
    } else {
        html += "<ul>";
        for reason in reasons {
            let _ = write!(html, "<li>{}</li>", escape(&reason));
        }
        html += "</ul>";
    }
    html += "</section>\n";
    html
}

/// The figures that are asked for first.
fn tiles(report: &Value) -> String {
    let mut html = "<section class=\"tiles\">".to_owned();
    let mut tile = |value: Option<String>, name: &str| {
        if let Some(value) = value {
            let _ = write!(
                html,
                "<div><b>{}</b><span>{}</span></div>",
                escape(&value),
                escape(name)
            );
        }
    };
    let of = |path: &str, format: fn(f64) -> String| number(report, path).map(format);
    let whole = |value: f64| format!("{value:.0}");
    tile(of("setup.up", whole), "sessions came up");
    tile(
        of("setup.rate_per_s", |rate| format!("{}/s", scaled(rate))),
        "set-ups",
    );
    tile(of("setup.total_us.p99", time), "set-up, p99");
    tile(of("hold.disconnects", whole), "disconnects");
    tile(
        of("traffic.bps_received", |bps| with_unit(bps, "bit/s")),
        "received",
    );
    tile(
        of("traffic.pps_received", |pps| format!("{}/s", scaled(pps))),
        "packets received",
    );
    tile(of("traffic.loss", percent), "loss");
    tile(of("traffic.latency_us.p50", time), "latency, median");
    tile(of("traffic.latency_us.p99", time), "latency, p99");
    if at(report, "traffic").is_none() {
        tile(of("hold.lcp_echo_us.p99", time), "LCP echo, p99");
    }
    tile(
        of("generator.memory_per_session_bytes", |bytes| {
            with_unit(bytes, "B")
        }),
        "memory of loadgen a session",
    );
    html += "</section>\n";
    html
}

/// The distributions in numbers.
fn times(report: &Value) -> String {
    let mut html = "<section><h2>Times</h2><div class=\"wide\"><table><thead><tr><th></th><th>count</th>\
                    <th>min</th><th>mean</th><th>p50</th><th>p90</th><th>p99</th><th>p99.9</th><th>max</th>\
                    </tr></thead><tbody>"
        .to_owned();
    let mut row = |name: &str, times: Option<&Value>| {
        let Some(times) = times else { return };
        let _ = write!(
            html,
            "<tr><th>{}</th><td>{}</td>",
            escape(name),
            escape(&count(times, "count"))
        );
        for field in ["min", "mean", "p50", "p90", "p99", "p999", "max"] {
            let value = number(times, field).map_or_else(String::new, time);
            let _ = write!(html, "<td>{}</td>", escape(&value));
        }
        html += "</tr>";
    };
    for phase in list(report, "setup.phases") {
        row(text(phase, "name"), at(phase, "us"));
    }
    for (name, path) in [
        ("from plan to up", "setup.total_us"),
        ("LCP echo", "hold.lcp_echo_us"),
        ("latency", "traffic.latency_us"),
        ("lateness of starts", "setup.lateness_us"),
        ("lateness of sends", "traffic.lateness_us"),
    ] {
        row(name, at(report, path));
    }
    html += "</tbody></table></div></section>\n";
    html
}

/// What failed, in the words of the first of each kind, and the thresholds.
fn causes(report: &Value) -> String {
    let mut html = String::new();
    let lists = [
        ("did not come up", "setup.failures"),
        ("were lost", "hold.disconnect_causes"),
        ("ended otherwise than asked", "end.other_causes"),
    ];
    let rows: Vec<String> = lists
        .iter()
        .flat_map(|(what, path)| {
            list(report, path).iter().map(move |cause| {
                format!(
                    "<tr><td>{}</td><td class=\"words\">{what}</td><td class=\"words\">{} ({})</td>\
                     <td class=\"words\">{}</td></tr>",
                    escape(&count(cause, "count")),
                    escape(text(cause, "class")),
                    escape(text(cause, "phase")),
                    escape(text(cause, "example"))
                )
            })
        })
        .collect();
    if !rows.is_empty() {
        let _ = writeln!(
            html,
            "<section><h2>What went wrong</h2><div class=\"wide\"><table><thead><tr><th>sessions</th>\
             <th class=\"words\"></th><th class=\"words\">why (phase)</th><th class=\"words\">the first of them</th>\
             </tr></thead><tbody>{}</tbody></table></div></section>",
            rows.concat()
        );
    }
    let thresholds = list(report, "thresholds");
    if !thresholds.is_empty() {
        html += "<section><h2>Thresholds</h2><table><tbody>";
        for threshold in thresholds {
            let (class, word) = if is(threshold, "ok") {
                ("good", "holds")
            } else {
                ("bad", "broken")
            };
            let _ = write!(
                html,
                "<tr><th><code>{}</code></th><td>{}</td><td class=\"{class}\">{word}</td></tr>",
                escape(text(threshold, "threshold")),
                escape(&write_threshold(threshold))
            );
        }
        html += "</tbody></table></section>\n";
    }
    html
}

/// Everything else that is one number or one word, as it is in the JSON.
fn details(report: &Value) -> String {
    let mut html = "<section class=\"details\">".to_owned();
    for (name, path) in [
        ("Scenario", "scenario"),
        ("TLS", "tls"),
        ("Traffic", "traffic"),
        ("Generator", "generator"),
    ] {
        let Some(Value::Object(fields)) = at(report, path) else {
            continue;
        };
        let _ = write!(html, "<div><h2>{name}</h2><dl>");
        for (field, value) in fields {
            let value = match value {
                Value::String(text) => text.clone(),
                Value::Number(number) => number.as_f64().map_or_else(String::new, thousands),
                Value::Bool(is) => if *is { "yes" } else { "no" }.to_owned(),
                Value::Null | Value::Array(_) | Value::Object(_) => continue,
            };
            let _ = write!(
                html,
                "<dt>{}</dt><dd>{}</dd>",
                escape(&field.replace('_', " ")),
                escape(&value)
            );
        }
        html += "</dl></div>";
    }
    html += "</section>\n<footer>Every start and every packet has a planned time, and times count from it: \
             what a server makes wait is seen in full. Percentiles over time are those of each interval, merged \
             over all threads. loadgen's own lateness says how far the figures can be trusted.</footer>\n";
    html
}

/// A number with thin spaces between thousands.
fn thousands(number: f64) -> String {
    if number.fract() != 0.0 || number.abs() < 10_000.0 {
        return plain(number);
    }
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) && !text.ends_with('-') {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_from_outside_is_escaped() {
        let evil = "<script>alert('x')</script>\"&\u{1b}";
        let report = serde_json::json!({
            "schema_version": 1, "command": evil, "version": evil, "server": evil, "ok": false,
            "generator_bound_why": [evil],
            "setup": {"failed": 1, "failures": [{"class": evil, "phase": evil, "count": 1, "example": evil}],
                      "phases": [{"name": evil, "us": {"count": 1, "p50": 1.0, "p90": 1.0, "p99": 1.0}}]},
            "thresholds": [{"threshold": evil, "ok": false}],
            "tls": {evil: evil},
            "timeline": {"interval_s": 1, "points": [{"t_s": 0, "up": 1}, {"t_s": evil, "up": evil}]},
            "curves": [{"name": evil, "points": [{"quantile": 0.5, "us": 1.0}]}],
        });
        let page = page(&report);
        assert!(!page.contains("<script") && !page.contains('\u{1b}') && !page.contains("alert('"));
        assert!(page.contains("&lt;script&gt;alert(&#39;x&#39;)"));
    }

    #[test]
    fn an_empty_report_makes_a_page_too() {
        let page = page(&serde_json::json!({}));
        assert!(page.contains("Failed") && page.ends_with("</html>\n"));
    }

    #[test]
    fn thousands_are_apart() {
        assert_eq!(thousands(1_234_567.0), "1\u{202f}234\u{202f}567");
        assert_eq!(thousands(-123_456.0), "-123\u{202f}456");
        assert_eq!(thousands(1_234.0), "1234");
    }
}
