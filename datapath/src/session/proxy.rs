//! The client's way through an HTTP proxy: between TCP and TLS it asks for the server by CONNECT.
//!
//! Nothing else of the session knows of it: when the proxy has answered, TLS begins as it would have
//! on a connection of its own. The answer's length and time are bounded ([`Limits::http`]).
//!
//! [`Limits::http`]: super::Limits::http

use super::event::EndReason;
use super::{Edge, Flow, Role, Session, Stage, Timer};
use crate::http::{Scan, proxy};
use crate::time::Instant;

impl Session {
    /// The connection to the proxy stands.
    pub(super) fn ask_proxy<E: Edge>(&mut self, now: Instant, edge: &mut E) {
        let (_, cx) = self.split(now, edge);
        let Role::Client(settings) = cx.role else {
            return;
        };
        if let Some(proxy) = &settings.proxy {
            proxy.emit(&mut cx.outside.flight);
        }
        cx.deadlines.set(Timer::Stage, now + settings.limits.http);
    }

    /// Collects the proxy's answer; what follows it in the same bytes belongs to TLS.
    pub(super) fn receive_proxy<E: Edge>(
        &mut self,
        now: Instant,
        bytes: &[u8],
        edge: &mut E,
    ) -> Flow {
        let (stage, cx) = self.split(now, edge);
        cx.outside.partial.extend_from_slice(bytes);
        let head_len = match cx.outside.scan.proxy_response(&cx.outside.partial) {
            Ok(Some(len)) => len,
            Ok(None) => return Flow::Continue,
            Err(error) => {
                self.note_proxy_failed(error);
                return Flow::Close;
            }
        };
        let mut head = std::mem::take(&mut cx.outside.partial);
        cx.outside.scan = Scan::default();
        match std::mem::replace(stage, Stage::Request) {
            Stage::Proxy(handshake) => *stage = Stage::Handshake(handshake),
            other => *stage = other,
        }
        let limit = cx.role.limits().handshake;
        cx.deadlines.set(Timer::Stage, now + limit);
        self.receive_handshake(now, &head.split_off(head_len), edge)
    }

    /// Whether the proxy has not let us through yet.
    pub(super) const fn is_at_proxy(&self) -> bool {
        matches!(self.stage, Stage::Proxy(_))
    }

    pub(super) fn note_proxy_failed(&mut self, error: proxy::Error) {
        self.ledger
            .note_end(EndReason::ProxyFailed, Some(error.to_string()));
    }
}
