//! A session from its connection's acceptance until it is up and its release, as the server sees it.

use datapath::tls::Suite;

use super::ends::{Ends, Settings};
use super::{Path, Work};

const SUITE: Suite = Suite::Aes128Gcm;

struct SetUp(Settings);

impl Work for SetUp {
    fn run(&mut self) {
        let Ends { client, server, .. } = Ends::set_up(&self.0);
        drop(server.session);
        super::apart(|| drop((client, server.edge)));
    }
}

pub(super) fn paths() -> Vec<Path> {
    let path = |name: &str, settings: fn() -> Settings| {
        let name = format!("set_up/session/{name}");
        Path::new(name, 1, 0, move || SetUp(settings()))
    };
    vec![
        path("protocol", || Settings::new(None, false)),
        path("with_handshake", || Settings::new(Some(SUITE), false)),
        Path {
            is_random: true,
            ..path("as_shipped", || Settings::random(SUITE))
        },
    ]
}
