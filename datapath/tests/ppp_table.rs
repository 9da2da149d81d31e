//! The automaton's table, printed like the one of RFC 1661 §4.1 to be laid beside it.

use datapath::ppp::automaton::{Action, Event, State, transition};

/// The RFC prints its table in two halves, six states and four.
fn half(states: &[State]) -> String {
    let mut text = String::from("     |");
    for state in states {
        text += &format!(" {:<15}", format!("{} {state:?}", state.number()));
    }
    text = text.trim_end().to_owned() + "\n-----+" + &"-".repeat(16 * states.len()) + "\n";
    for event in Event::ALL {
        let mut line = format!("{:<5}|", event.name());
        for &state in states {
            let cell =
                transition(state, event).map_or_else(|| "-".to_owned(), |cell| cell.to_string());
            line += &format!(" {cell:<15}");
        }
        text += &(line.trim_end().to_owned() + "\n");
    }
    text
}

#[test]
fn ppp_table() {
    let (first, second) = State::ALL.split_at(6);
    let printed = format!("{}\n{}", half(first), half(second));
    insta::assert_snapshot!(printed, @r"
         | 0 Initial       1 Starting      2 Closed        3 Stopped       4 Closing       5 Stopping
    -----+------------------------------------------------------------------------------------------------
    Up   | 2               irc,scr/6       -               -               -               -
    Down | -               -               0               tls/1           0               1
    Open | tls/1           1               irc,scr/6       3r              5r              5r
    Close| 0               tlf/0           2               2               4               4
    TO+  | -               -               -               -               str/4           str/5
    TO-  | -               -               -               -               tlf/2           tlf/3
    RCR+ | -               -               sta/2           irc,scr,sca/8   4               5
    RCR- | -               -               sta/2           irc,scr,scn/6   4               5
    RCA  | -               -               sta/2           sta/3           4               5
    RCN  | -               -               sta/2           sta/3           4               5
    RTR  | -               -               sta/2           sta/3           sta/4           sta/5
    RTA  | -               -               2               3               tlf/2           tlf/3
    RUC  | -               -               scj/2           scj/3           scj/4           scj/5
    RXJ+ | -               -               2               3               4               5
    RXJ- | -               -               tlf/2           tlf/3           tlf/2           tlf/3
    RXR  | -               -               2               3               4               5

         | 6 ReqSent       7 AckRcvd       8 AckSent       9 Opened
    -----+----------------------------------------------------------------
    Up   | -               -               -               -
    Down | 1               1               1               tld/1
    Open | 6               7               8               9r
    Close| irc,str/4       irc,str/4       irc,str/4       tld,irc,str/4
    TO+  | scr/6           scr/6           scr/8           -
    TO-  | tlf/3p          tlf/3p          tlf/3p          -
    RCR+ | sca/8           sca,tlu/9       sca/8           tld,scr,sca/8
    RCR- | scn/6           scn/7           scn/6           tld,scr,scn/6
    RCA  | irc/7           scr/6x          irc,tlu/9       tld,scr/6x
    RCN  | irc,scr/6       scr/6x          irc,scr/8       tld,scr/6x
    RTR  | sta/6           sta/6           sta/6           tld,zrc,sta/5
    RTA  | 6               6               8               tld,scr/6
    RUC  | scj/6           scj/7           scj/8           scj/9
    RXJ+ | 6               6               8               9
    RXJ- | tlf/3           tlf/3           tlf/3           tld,irc,str/5
    RXR  | 6               7               8               ser/9
    ");
}

/// The rules that RFC 1661 §4.1 and §4.2 state in words, apart from the table.
#[test]
fn ppp_table_obeys_the_text() {
    for state in State::ALL {
        for event in Event::ALL {
            let Some(cell) = transition(state, event) else {
                continue;
            };
            let does = |action| cell.actions.contains(&action);
            let opens = cell.next == State::Opened && state != State::Opened;
            let leaves = state == State::Opened && cell.next != State::Opened;
            assert_eq!(does(Action::tlu), opens, "{state:?} {event:?}: up");
            assert_eq!(does(Action::tld), leaves, "{state:?} {event:?}: down");
            // What is sent and expects an answer is repeated by the timer.
            if does(Action::scr) || does(Action::str) {
                assert!(
                    cell.next.restarts(),
                    "{state:?} {event:?}: nothing repeats it"
                );
            }
            // Only a Configure-Request can be acknowledged or refused.
            let answers = does(Action::sca) || does(Action::scn);
            assert!(!answers || matches!(event, Event::RcrPlus | Event::RcrMinus));
            // A layer that gave up is not waiting for anything.
            if does(Action::tlf) {
                assert!(!cell.next.restarts(), "{state:?} {event:?}: finished");
            }
        }
    }
}

/// No sequence of timeouts alone keeps an automaton busy: from every state that repeats, TO- ends it.
#[test]
fn ppp_table_comes_to_rest() {
    for state in State::ALL.into_iter().filter(|state| state.restarts()) {
        let end = transition(state, Event::TimeoutMinus).expect("a restarting state times out");
        assert!(matches!(end.next, State::Closed | State::Stopped));
        let again = transition(state, Event::TimeoutPlus).expect("a restarting state times out");
        assert!(again.next.restarts());
    }
}
