//! What other servers cost, relative to sstp-gw.

use std::fmt::Write as _;

use super::super::peers::{Table, Way};
use super::super::report::short;
use super::escape;

/// The servers, a row each, sstp-gw first.
pub(super) fn section(table: &Table) -> String {
    let mut html = format!(
        "<section><h2>Other servers</h2><p>Processor seconds a GB of the server, relative to sstp-gw: medians (least..most) \
         of the ratios of {} rounds, all in turn, over the same three hosts.</p>\n\
         <div class=\"wide\"><table><thead><tr><th class=\"words\">server</th><th>up</th><th>down</th><th>Gbit/s, up and down</th>\
         <th class=\"words\">what it is</th></tr></thead><tbody>\n",
        table.rounds
    );
    for line in &table.lines {
        let _ = writeln!(
            html,
            "<tr><th>{}</th><td>{}</td><td>{}</td><td>{} / {}</td><td class=\"words\">{}</td></tr>",
            escape(line.name),
            cost(&line.up),
            cost(&line.down),
            short(line.up.gbit_per_s),
            short(line.down.gbit_per_s),
            escape(&line.what)
        );
    }
    html + "</tbody></table></div></section>\n"
}

fn cost(way: &Way) -> String {
    match &way.server_ratio {
        Some(ratio) => ratio.to_string(),
        None => "not to be read".to_owned(),
    }
}
