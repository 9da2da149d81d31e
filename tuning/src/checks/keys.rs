//! Who may read the gateway's secrets.

use crate::finding::{Basis, Finding, Point, State};
use crate::host::{Host, Unread};

/// The gateway's configuration at its usual place.
pub(crate) const CONFIG: &str = "/etc/sstp-gw/sstp-gw.toml";
const DIR: &str = "/etc/sstp-gw";

const MODES: Point = Point {
    name: "keys.mode",
    should_be: "0600 and root's or the gateway's own, for the private key and the users file",
    worth: "whoever reads the key can pose as the gateway; whoever reads the users file can log in (NT hashes); the \
            gateway refuses files that others may touch",
    basis: Basis::Documented,
    source: "README.md, Security",
};

/// Modes of the files that the configuration at its usual place names.
pub(crate) fn modes(host: &Host) -> Finding {
    let config = match host.text(CONFIG) {
        Ok(text) => match text.parse::<toml::Table>() {
            Ok(table) => Some(table),
            Err(_) => return MODES.unread(CONFIG, Unread::Garbage),
        },
        Err(Unread::Absent) => None,
        Err(why) => return MODES.unread(CONFIG, why),
    };
    let named = |section: &str, key: &str, default: &str| {
        let path = config
            .as_ref()
            .and_then(|config| config.get(section)?.get(key)?.as_str())
            .unwrap_or(default);
        match path.starts_with('/') {
            true => path.to_owned(),
            false => format!("{DIR}/{path}"),
        }
    };
    let mut found = Vec::new();
    let mut state = State::Ok;
    let (mut set, mut undo) = (Vec::new(), Vec::new());
    for path in [
        named("tls", "key", "key.pem"),
        named("auth", "users", "users.toml"),
    ] {
        match host.mode(&path) {
            Ok((mode, uid)) => {
                found.push(format!("{path} {mode:04o} of user {uid}"));
                if mode & 0o077 != 0 {
                    state = State::Problem;
                    // A name that a shell would take apart is for a person to quote.
                    if path
                        .chars()
                        .all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c))
                    {
                        set.push(format!("chmod 0600 {path}"));
                        undo.push(format!("chmod {mode:04o} {path}"));
                    }
                }
            }
            Err(Unread::Absent) => {}
            Err(why) => {
                state = state.max(State::Unknown);
                found.push(format!("{path}: {why}"));
            }
        }
    }
    if found.is_empty() {
        return MODES.note(format!("no key and no users file in {DIR}"));
    }
    let finding = MODES.found(state, found.join("; "));
    match set.is_empty() {
        true => finding,
        false => finding.by(set.join(" && "), undo.join(" && ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorded::Recorded;

    fn of(text: &str) -> Finding {
        modes(&Host::recorded(Recorded::parse(text).unwrap()))
    }

    #[test]
    fn the_files_that_the_configuration_names_are_looked_at() {
        let config = "--- /etc/sstp-gw/sstp-gw.toml\n[tls]\nkey = \"/srv/k.pem\"\n";
        let tight = of(&format!("{config}--- /srv/k.pem mode=0600 uid=0\n"));
        assert_eq!(tight.state, State::Ok);
        let open = of(&format!("{config}--- /srv/k.pem mode=0644 uid=0\n"));
        assert_eq!(open.state, State::Problem);
        assert_eq!(open.undo.as_deref(), Some("chmod 0644 /srv/k.pem"));
        assert_eq!(of("").state, State::Note);
        assert_eq!(
            of("--- /etc/sstp-gw/sstp-gw.toml\n= = =\n").state,
            State::Unknown
        );
    }
}
