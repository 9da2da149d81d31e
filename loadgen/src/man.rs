//! The man page, from the same definitions as `--help`: `loadgen man > loadgen.1`.
//!
//! It is one page for all commands, as long as it is: what a flag does is found by searching for it.

use std::io;

use clap::CommandFactory as _;
use clap_mangen::Man;

use crate::flags::Flags;

/// The page, as troff reads it.
pub(crate) fn page() -> io::Result<String> {
    let mut page = Vec::new();
    let mut root = Flags::command();
    root.build();
    let man = Man::new(root.clone())
        .section("1")
        .manual("loadgen")
        .source(concat!("loadgen ", env!("CARGO_PKG_VERSION")));
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    for command in root.get_subcommands() {
        if command.is_hide_set() || command.get_name() == "help" {
            continue;
        }
        // A section of the page is a heading below the command's own.
        let name = command.get_name();
        page.extend_from_slice(format!(".SH \"LOADGEN {}\"\n", name.to_uppercase()).as_bytes());
        let man = Man::new(command.clone().display_name(format!("loadgen {name}")));
        let mut sections = Vec::new();
        man.render_synopsis_section(&mut sections)?;
        man.render_description_section(&mut sections)?;
        man.render_options_section(&mut sections)?;
        if command.get_after_help().is_some() {
            man.render_extra_section(&mut sections)?;
        }
        let sections = String::from_utf8_lossy(&sections).replace(".SH ", ".SS ");
        page.extend_from_slice(sections.as_bytes());
    }
    page.extend_from_slice(
        b".SH \"EXIT STATUS\"\n0: it did what was asked. 1: it failed. 2: it was asked for something \
          that cannot be. 99: a threshold of \\fB\\-\\-fail\\fR is broken. 130: interrupted; the report is \
          written all the same.\n",
    );
    Ok(String::from_utf8_lossy(&page).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `cargo run -p loadgen -- man > loadgen/loadgen.1` makes it so.
    #[test]
    fn the_page_in_the_tree_is_current() {
        let page = page().unwrap();
        for heading in [
            ".SH NAME",
            "LOADGEN STORM",
            "LOADGEN COMPARE",
            "hdr\\-out",
            "EXIT STATUS",
        ] {
            assert!(page.contains(heading), "{heading}");
        }
        let kept = include_str!("../loadgen.1");
        assert!(
            page == kept,
            "loadgen.1 is not current: cargo run -p loadgen -- man > loadgen/loadgen.1"
        );
    }
}
