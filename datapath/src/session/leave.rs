//! Ends without a word of the protocol, as hosts have them that crash, lose their network or kill the
//! client: for trying what a server makes of it.

use super::event::EndReason;
use super::{Closing, Edge, Session, Stage};

/// How a session is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// The connection is reset.
    Reset,
    /// The connection is closed: FIN, without `close_notify` or anything else before it.
    Close,
    /// Nothing is sent or answered any more, and the connection stays until the peer closes it, or
    /// [`Session::terminate`]. The kernel acknowledges what comes: to TCP the host is alive.
    Silence,
}

impl Session {
    /// Leaves without a word; the owner is told of the end at once.
    pub fn leave<E: Edge>(&mut self, how: Leave, reason: EndReason, edge: &mut E) {
        if let Stage::Closing(_) = self.stage {
            return;
        }
        self.ledger.note_end(reason, None);
        self.ledger.tell_end(edge);
        self.deadlines.clear_all();
        self.stage = Stage::Closing(match how {
            Leave::Reset => Closing::Close { reset: true },
            Leave::Close => Closing::Close { reset: false },
            Leave::Silence => Closing::Silent,
        });
    }

    pub(super) const fn is_silent(&self) -> bool {
        matches!(self.stage, Stage::Closing(Closing::Silent))
    }
}
