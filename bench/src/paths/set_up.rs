//! A session from its connection's acceptance until it is up and its release, as the server sees it.

use datapath::tls::Suite;

use super::ends::{Ends, Settings};
use super::{Path, Work};

struct SetUp(Settings);

impl Work for SetUp {
    fn run(&mut self) {
        let Ends { client, server, .. } = Ends::set_up(&self.0);
        drop(server.session);
        super::apart(|| drop((client, server.edge)));
    }
}

pub(super) fn paths() -> Vec<Path> {
    let path = |name: &str, suite: Option<Suite>| Path {
        is_random: suite.is_some(),
        ..Path::new(format!("set_up/session/{name}"), 1, 0, move || {
            SetUp(Settings::new(suite, false))
        })
    };
    vec![
        path("protocol", None),
        path("with_handshake", Some(Suite::Aes128Gcm)),
    ]
}
