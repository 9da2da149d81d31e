//! Reads a trace of lackey: every instruction and every access to memory, a line each.
//!
//! ```text
//! I  0010a3c0,4        an instruction, its address and length
//!  L 1ffeffe7e,8       a load;  S: a store;  M: both
//! ```

use std::collections::HashSet;
use std::io::{self, BufRead};

/// Bytes of a cache line.
const LINE_LEN: u64 = 64;

/// Where stores mean something to the counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Marks {
    /// Counting begins or pauses.
    pub(super) switch: u64,
    /// A burst is over.
    pub(super) burst: u64,
}

/// What lay between marks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) instructions: u64,
    /// Cache lines of data, each once a burst.
    pub(super) data_lines: u64,
    /// Cache lines of code, each once a burst.
    pub(super) code_lines: u64,
}

/// Counts what of `trace` lies between the marks.
pub(super) fn count(mut trace: impl BufRead, marks: Marks) -> io::Result<Counted> {
    let mut counted = Counted::default();
    let (mut data, mut code) = (HashSet::new(), HashSet::new());
    let mut is_counting = false;
    let mut line = Vec::new();
    while trace.read_until(b'\n', &mut line)? > 0 {
        if let Some((kind, address, len)) = parse(&line) {
            let last = address.saturating_add(len.saturating_sub(1));
            let lines = address / LINE_LEN..=last / LINE_LEN;
            match kind {
                b'S' if address == marks.switch => is_counting = !is_counting,
                b'S' if address == marks.burst => {
                    counted.data_lines += data.len() as u64;
                    counted.code_lines += code.len() as u64;
                    data.clear();
                    code.clear();
                }
                _ if !is_counting => {}
                b'I' => {
                    counted.instructions += 1;
                    code.extend(lines);
                }
                _ => data.extend(lines),
            }
        }
        line.clear();
    }
    Ok(counted)
}

/// Kind, address and length of an access.
fn parse(line: &[u8]) -> Option<(u8, u64, u64)> {
    let text = std::str::from_utf8(line).ok()?.trim();
    let (kind, rest) = text.split_at_checked(1)?;
    let (address, len) = rest.trim().split_once(',')?;
    let kind = *kind.as_bytes().first()?;
    let is_access = matches!(kind, b'I' | b'L' | b'S' | b'M');
    let address = u64::from_str_radix(address, 16).ok()?;
    is_access.then_some((kind, address, len.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_between_the_marks_is_counted_and_lines_once_a_burst() {
        let trace = b"I  0001,4\n S 900,8\nI  0100,4\nI  0104,4\n L 2000,8\n M 2008,8\n S 203c,8\n \
            S 900,8\nI  0200,4\n L 3000,8\n S 908,8\n S 900,8\n L 2000,8\nI  0100,4\n S 900,8\n S 908,8\n\
            ==12== something else\n";
        let marks = Marks {
            switch: 0x900,
            burst: 0x908,
        };
        let counted = count(&trace[..], marks).unwrap();
        let expected = Counted {
            instructions: 3,
            // 2000 and 2040 (straddled), then 2000 again.
            data_lines: 3,
            code_lines: 2,
        };
        assert_eq!(counted, expected);
    }
}
