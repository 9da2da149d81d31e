//! The gateway's shard with one session, from the driver's completions to the driver's calls.

use datapath::tls::Suite;

use super::ends::Settings;
use super::{Path, Work};
use crate::cost::CASES;
use crate::cost::site::{BURST_PACKETS, Site};

impl Work for Site {
    fn run(&mut self) {
        self.burst();
    }
}

pub(super) fn paths() -> Vec<Path> {
    let path = |case: crate::cost::Case| {
        let name = format!("shard/{}", case.name.replacen('/', "_", 1));
        Path::new(
            name,
            BURST_PACKETS,
            BURST_PACKETS * case.packet_len,
            move || {
                let settings = Settings::new(Some(Suite::Aes128Gcm), false);
                Site::under(case, settings.server, settings.client)
            },
        )
    };
    CASES.into_iter().map(path).collect()
}
