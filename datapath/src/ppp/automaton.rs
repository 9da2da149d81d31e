//! The option negotiation automaton of RFC 1661 §4.1, as one table.
//!
//! [`transition`] answers what happens in a state on an event: which actions, in order, and which
//! state comes next. One table serves LCP, IPCP and IPV6CP; what the actions do is in `negotiation`.
//! The table is printed like the RFC's own by the test `ppp_table`.
//!
//! It holds no state, counts nothing and sends nothing.

use core::fmt;

/// Where an automaton stands (RFC 1661 §4.2), in the RFC's order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum State {
    /// The lower layer is down, and nobody asked for this one.
    #[default]
    Initial,
    /// The lower layer is down; this one is wanted.
    Starting,
    /// The lower layer is up; this one is not wanted.
    Closed,
    /// It gave up or was told to stop; a request of the peer starts it again.
    Stopped,
    /// We asked the peer to terminate because this layer is not wanted any more.
    Closing,
    /// We asked, or the peer asked, to terminate; this layer is still wanted.
    Stopping,
    /// Our request is out; nothing is acknowledged.
    ReqSent,
    /// Our request is acknowledged, the peer's is not.
    AckRcvd,
    /// The peer's request is acknowledged, ours is not.
    AckSent,
    /// Both are acknowledged.
    Opened,
}

impl State {
    /// All states, in the order of the RFC's columns.
    pub const ALL: [Self; 10] = [
        Self::Initial,
        Self::Starting,
        Self::Closed,
        Self::Stopped,
        Self::Closing,
        Self::Stopping,
        Self::ReqSent,
        Self::AckRcvd,
        Self::AckSent,
        Self::Opened,
    ];

    /// The RFC's number of the state.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Whether the restart timer runs in this state (RFC 1661 §4.1: 4 to 8).
    #[must_use]
    pub const fn restarts(self) -> bool {
        matches!(
            self,
            Self::Closing | Self::Stopping | Self::ReqSent | Self::AckRcvd | Self::AckSent
        )
    }
}

/// What can happen (RFC 1661 §4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The lower layer is up.
    Up,
    /// The lower layer is down.
    Down,
    /// This layer is wanted.
    Open,
    /// This layer is not wanted.
    Close,
    /// TO+: the restart timer expired and the counter is above zero.
    TimeoutPlus,
    /// TO-: the restart timer expired and the counter is at zero.
    TimeoutMinus,
    /// RCR+: an acceptable Configure-Request.
    RcrPlus,
    /// RCR-: a Configure-Request that is not acceptable as it is.
    RcrMinus,
    /// RCA: a Configure-Ack.
    Rca,
    /// RCN: a Configure-Nak or -Reject.
    Rcn,
    /// RTR: a Terminate-Request.
    Rtr,
    /// RTA: a Terminate-Ack.
    Rta,
    /// RUC: a packet of unknown code.
    Ruc,
    /// RXJ+: a Code-Reject or Protocol-Reject that can be lived with.
    RxjPlus,
    /// RXJ-: one that cannot.
    RxjMinus,
    /// RXR: an Echo-Request, Echo-Reply or Discard-Request.
    Rxr,
}

impl Event {
    /// All events, in the order of the RFC's rows.
    pub const ALL: [Self; 16] = [
        Self::Up,
        Self::Down,
        Self::Open,
        Self::Close,
        Self::TimeoutPlus,
        Self::TimeoutMinus,
        Self::RcrPlus,
        Self::RcrMinus,
        Self::Rca,
        Self::Rcn,
        Self::Rtr,
        Self::Rta,
        Self::Ruc,
        Self::RxjPlus,
        Self::RxjMinus,
        Self::Rxr,
    ];

    /// The RFC's name of the event.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "Up",
            Self::Down => "Down",
            Self::Open => "Open",
            Self::Close => "Close",
            Self::TimeoutPlus => "TO+",
            Self::TimeoutMinus => "TO-",
            Self::RcrPlus => "RCR+",
            Self::RcrMinus => "RCR-",
            Self::Rca => "RCA",
            Self::Rcn => "RCN",
            Self::Rtr => "RTR",
            Self::Rta => "RTA",
            Self::Ruc => "RUC",
            Self::RxjPlus => "RXJ+",
            Self::RxjMinus => "RXJ-",
            Self::Rxr => "RXR",
        }
    }
}

/// What is to be done (RFC 1661 §4.4); the `Debug` form is the RFC's own name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(
    non_camel_case_types,
    reason = "the RFC's own names, as its table prints them"
)]
pub enum Action {
    /// This-Layer-Up.
    tlu,
    /// This-Layer-Down.
    tld,
    /// This-Layer-Started.
    tls,
    /// This-Layer-Finished.
    tlf,
    /// Initialize-Restart-Count.
    irc,
    /// Zero-Restart-Count.
    zrc,
    /// Send-Configure-Request.
    scr,
    /// Send-Configure-Ack.
    sca,
    /// Send-Configure-Nak or -Reject.
    scn,
    /// Send-Terminate-Request.
    str,
    /// Send-Terminate-Ack.
    sta,
    /// Send-Code-Reject.
    scj,
    /// Send-Echo-Reply.
    ser,
}

/// A remark the RFC makes on a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// "r", restart option: an implementation may go Down and Up here; this one does not.
    Restart,
    /// "p", passive option: an implementation may wait here without giving up; this one gives up.
    Passive,
    /// "x", crossed connection: an answer to a request that is answered already.
    Crossed,
}

/// A cell of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// What to do, in order.
    pub actions: &'static [Action],
    /// The state after it.
    pub next: State,
    /// The RFC's remark, if it makes one.
    pub note: Option<Note>,
}

impl fmt::Display for Transition {
    /// Prints the cell as the RFC does: `irc,scr,sca/8`, `3r`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for action in self.actions {
            write!(f, "{separator}{action:?}")?;
            separator = ",";
        }
        let slash = if self.actions.is_empty() { "" } else { "/" };
        let note = match self.note {
            None => "",
            Some(Note::Restart) => "r",
            Some(Note::Passive) => "p",
            Some(Note::Crossed) => "x",
        };
        write!(f, "{slash}{}{note}", self.next.number())
    }
}

/// What happens in `state` on `event`; `None` where the RFC prints "-", "cannot happen": do nothing.
#[must_use]
pub fn transition(state: State, event: Event) -> Option<Transition> {
    TABLE[event as usize][state as usize]
}

type Cell = Option<Transition>;

const fn go(actions: &'static [Action], next: State) -> Cell {
    Some(Transition {
        actions,
        next,
        note: None,
    })
}

const fn noted(actions: &'static [Action], next: State, note: Note) -> Cell {
    Some(Transition {
        actions,
        next,
        note: Some(note),
    })
}

#[rustfmt::skip]
static TABLE: [[Cell; 10]; 16] = {
    use Action::{irc, sca, scj, scn, scr, ser, sta, str, tld, tlf, tls, tlu, zrc};
    use Note::{Crossed as X, Passive as P, Restart as R};
    use State::{
        AckRcvd as S7, AckSent as S8, Closed as S2, Closing as S4, Initial as S0, Opened as S9,
        ReqSent as S6, Starting as S1, Stopped as S3, Stopping as S5,
    };
    const __: Cell = None;
    [
        // 0 Initial          1 Starting               2 Closed                 3 Stopped                      4 Closing               5 Stopping
        //   6 Req-Sent                7 Ack-Rcvd                8 Ack-Sent                9 Opened
        /* Up   */ [go(&[], S2),   go(&[irc, scr], S6), __,                  __,                            __,                     __,
                    __,                      __,                      __,                      __],
        /* Down */ [__,            __,                  go(&[], S0),         go(&[tls], S1),                go(&[], S0),            go(&[], S1),
                    go(&[], S1),             go(&[], S1),             go(&[], S1),             go(&[tld], S1)],
        /* Open */ [go(&[tls], S1), go(&[], S1),        go(&[irc, scr], S6), noted(&[], S3, R),             noted(&[], S5, R),      noted(&[], S5, R),
                    go(&[], S6),             go(&[], S7),             go(&[], S8),             noted(&[], S9, R)],
        /* Close*/ [go(&[], S0),   go(&[tlf], S0),      go(&[], S2),         go(&[], S2),                   go(&[], S4),            go(&[], S4),
                    go(&[irc, str], S4),     go(&[irc, str], S4),     go(&[irc, str], S4),     go(&[tld, irc, str], S4)],
        /* TO+  */ [__,            __,                  __,                  __,                            go(&[str], S4),         go(&[str], S5),
                    go(&[scr], S6),          go(&[scr], S6),          go(&[scr], S8),          __],
        /* TO-  */ [__,            __,                  __,                  __,                            go(&[tlf], S2),         go(&[tlf], S3),
                    noted(&[tlf], S3, P),    noted(&[tlf], S3, P),    noted(&[tlf], S3, P),    __],
        /* RCR+ */ [__,            __,                  go(&[sta], S2),      go(&[irc, scr, sca], S8),      go(&[], S4),            go(&[], S5),
                    go(&[sca], S8),          go(&[sca, tlu], S9),     go(&[sca], S8),          go(&[tld, scr, sca], S8)],
        /* RCR- */ [__,            __,                  go(&[sta], S2),      go(&[irc, scr, scn], S6),      go(&[], S4),            go(&[], S5),
                    go(&[scn], S6),          go(&[scn], S7),          go(&[scn], S6),          go(&[tld, scr, scn], S6)],
        /* RCA  */ [__,            __,                  go(&[sta], S2),      go(&[sta], S3),                go(&[], S4),            go(&[], S5),
                    go(&[irc], S7),          noted(&[scr], S6, X),    go(&[irc, tlu], S9),     noted(&[tld, scr], S6, X)],
        /* RCN  */ [__,            __,                  go(&[sta], S2),      go(&[sta], S3),                go(&[], S4),            go(&[], S5),
                    go(&[irc, scr], S6),     noted(&[scr], S6, X),    go(&[irc, scr], S8),     noted(&[tld, scr], S6, X)],
        /* RTR  */ [__,            __,                  go(&[sta], S2),      go(&[sta], S3),                go(&[sta], S4),         go(&[sta], S5),
                    go(&[sta], S6),          go(&[sta], S6),          go(&[sta], S6),          go(&[tld, zrc, sta], S5)],
        /* RTA  */ [__,            __,                  go(&[], S2),         go(&[], S3),                   go(&[tlf], S2),         go(&[tlf], S3),
                    go(&[], S6),             go(&[], S6),             go(&[], S8),             go(&[tld, scr], S6)],
        /* RUC  */ [__,            __,                  go(&[scj], S2),      go(&[scj], S3),                go(&[scj], S4),         go(&[scj], S5),
                    go(&[scj], S6),          go(&[scj], S7),          go(&[scj], S8),          go(&[scj], S9)],
        /* RXJ+ */ [__,            __,                  go(&[], S2),         go(&[], S3),                   go(&[], S4),            go(&[], S5),
                    go(&[], S6),             go(&[], S6),             go(&[], S8),             go(&[], S9)],
        /* RXJ- */ [__,            __,                  go(&[tlf], S2),      go(&[tlf], S3),                go(&[tlf], S2),         go(&[tlf], S3),
                    go(&[tlf], S3),          go(&[tlf], S3),          go(&[tlf], S3),          go(&[tld, irc, str], S5)],
        /* RXR  */ [__,            __,                  go(&[], S2),         go(&[], S3),                   go(&[], S4),            go(&[], S5),
                    go(&[], S6),             go(&[], S7),             go(&[], S8),             go(&[ser], S9)],
    ]
};
