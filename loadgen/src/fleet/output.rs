//! What a run leaves behind: the table, the JSON, the page, and its exit code.

use std::path::Path;
use std::process::ExitCode;

use super::report::Report;
use crate::settings::Stop;
use crate::{connect, flags, html};

/// Prints and writes the report, and says by the exit code what it comes to.
pub(super) fn exit(flags: &flags::Fleet, report: Result<Report, Stop>) -> ExitCode {
    let report = match report {
        Ok(report) => report,
        Err(Stop::Usage(message)) => {
            eprintln!("loadgen: {message}");
            return ExitCode::from(2);
        }
        Err(Stop::Failed(message)) => {
            eprintln!("loadgen: {message}");
            return ExitCode::FAILURE;
        }
    };
    let json = flags.json.as_deref();
    let is_printed = json == Some(Path::new("-"));
    // Printed before anything is written, so that a full disk does not take it away.
    connect::print(&if is_printed {
        report.json()
    } else {
        report.table()
    });
    let json = json.filter(|_| !is_printed);
    let json = json.is_none_or(|path| write(path, &report.json()));
    let page = flags.output.report.as_deref();
    let page = page.is_none_or(|path| write(path, &html::page(&report.value())));
    if json && page {
        ExitCode::from(report.exit_code())
    } else {
        ExitCode::FAILURE
    }
}

/// Whether it could be written; if not, that was said.
fn write(path: &Path, text: &str) -> bool {
    let written = std::fs::write(path, text);
    if let Err(error) = &written {
        eprintln!("loadgen: cannot write {}: {error}", path.display());
    }
    written.is_ok()
}

/// Runs `loadgen report`: the page of a report that was saved.
pub(crate) fn page(flags: &flags::Page) -> ExitCode {
    let report = match crate::saved::read(&flags.file) {
        Ok(report) => report,
        Err(error) => {
            eprintln!("loadgen: {error}");
            return ExitCode::from(2);
        }
    };
    let page = html::page(&report);
    if flags.html == Path::new("-") {
        connect::print(&page);
        return ExitCode::SUCCESS;
    }
    if write(&flags.html, &page) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
