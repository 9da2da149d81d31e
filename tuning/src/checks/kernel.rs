//! The kernel's version: what of io_uring and TUN can be there at all.

use crate::finding::{Basis, Finding, Point};
use crate::host::{Host, Unread};

const PATH: &str = "/proc/sys/kernel/osrelease";

const VERSION: Point = Point {
    name: "kernel.version",
    should_be: "6.12 or newer; 6.0 at least",
    worth: "below 6.0 the io_uring driver does not start (multishot receive); from 6.1 completions run only when \
            the shard waits for them; from 6.2 UDP in the tunnel crosses the TUN in superpackets (USO), 13 to 21 \
            times cheaper per byte than packet by packet",
    basis: Basis::Measured,
    source: "bench/README.md, floor: tun/read and tun/write",
};

/// Which kernel this is.
pub(crate) fn version(host: &Host) -> Finding {
    match host.word(PATH) {
        Ok(release) => match parse(&release) {
            Some(version) if version >= (6, 12) => VERSION.ok(release),
            Some(version) if version >= (6, 0) => VERSION.advice(release),
            Some(_) => VERSION.problem(release),
            None => VERSION.unread(PATH, Unread::Garbage),
        },
        Err(why) => VERSION.unread(PATH, why),
    }
}

/// Major and minor of the running kernel.
pub(crate) fn release(host: &Host) -> Result<(u32, u32), (&'static str, Unread)> {
    let release = host.word(PATH).map_err(|why| (PATH, why))?;
    parse(&release).ok_or((PATH, Unread::Garbage))
}

/// Major and minor of `6.12.48+deb13-amd64`.
fn parse(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::State;

    #[test]
    fn versions_compare_by_number() {
        let state = |release| version(&Host::of(&[(PATH, release)])).state;
        assert_eq!(state("6.12.48+deb13-amd64"), State::Ok);
        assert_eq!(state("7.0-rc1"), State::Ok);
        assert_eq!(state("6.1.0-39-amd64"), State::Advice);
        assert_eq!(state("6.9"), State::Advice, "9 is less than 12");
        assert_eq!(state("5.14.0-570.el9.x86_64"), State::Problem);
        assert_eq!(state("garbage"), State::Unknown);
        assert_eq!(state("99999999999.1"), State::Unknown);
    }
}
