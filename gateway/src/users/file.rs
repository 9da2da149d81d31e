//! The users file as text: reading it and writing it anew.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use toml::de::DeTable;
use zeroize::Zeroizing;

use super::{Places, Secret, User, Users, mistake_in_name, parse_prefix};
use crate::config::{Placed, Section};
use crate::diagnostics::Report;

const HEADER: &str = "\
# Users of sstp-gw; edited by `sstp-gw user`. Keep this file mode 0600: an nt_hash is as good as the
# password it was made of.
";

/// Reads every user; reports what is wrong.
pub(super) fn parse(text: &str, report: &mut Report) -> Users {
    let mut users = Users::default();
    let (table, syntax) = DeTable::parse_recoverable(text);
    if !syntax.is_empty() {
        for error in syntax {
            report.error(
                error.span(),
                format!("this is not TOML: {}", error.message()),
            );
        }
        return users;
    }
    let mut root = Section::root(table.get_ref());
    for section in root.sections("user", report) {
        if let Some((user, places)) = user(section, report) {
            users.push(user, places, report);
        }
    }
    root.finish(report);
    users
}

fn user(mut section: Section<'_>, report: &mut Report) -> Option<(User, Places)> {
    if !section.has("name") {
        section.missing("name", "name = \"...\"", report);
    }
    let name = section.string("name", report);
    let nt_hash = section.string("nt_hash", report);
    let argon2 = section.string("argon2", report);
    let v4 = section.parsed::<Ipv4Addr>("v4", "an IPv4 address", report);
    let v6 = section.string("v6", report);
    let disabled = section.boolean("disabled", report).unwrap_or(false);
    let place = section.place();
    section.finish(report);

    let v6 = v6.and_then(|text| match parse_prefix(&text) {
        Ok(prefix) => Some((prefix, text.place())),
        Err(error) => {
            report.error(text.place(), format!("`user.v6`: {error}"));
            None
        }
    });
    let name = name?;
    if let Some(mistake) = mistake_in_name(&name) {
        report.error(
            name.place(),
            format!("`user.name`: {mistake}; choose another name"),
        );
        return None;
    }
    let shown = name.escape_debug();
    let secret = match (nt_hash, argon2) {
        (Some(text), None) => (Secret::parse_nt_hash(&text), text.place()),
        (None, Some(text)) => (Secret::parse_argon2(&text), text.place()),
        (None, None) => {
            report.error(
                place,
                format!("the user \"{shown}\" has no usable password; set one by: sstp-gw user passwd {shown}"),
            );
            return None;
        }
        (Some(_), Some(second)) => {
            report.error(
                second.place(),
                format!("the user \"{shown}\" has both `nt_hash` and `argon2`; keep one"),
            );
            return None;
        }
    };
    let secret = match secret {
        (Ok(secret), _) => secret,
        (Err(error), place) => {
            report.error(place, format!("the user \"{shown}\": {error}"));
            return None;
        }
    };
    let places = Places {
        name: name.place(),
        v4: v4.as_ref().and_then(Placed::place),
        v6: v6.as_ref().and_then(|(_, place)| place.clone()),
    };
    let user = User {
        name: name.value.clone(),
        secret,
        v4: v4.map(|v4| v4.value),
        v6: v6.map(|(prefix, _)| prefix),
        disabled,
    };
    Some((user, places))
}

/// The whole file anew.
pub(crate) fn emit<'a>(users: impl Iterator<Item = &'a User>) -> Zeroizing<String> {
    // Enough room at once: a grown String leaves its old self behind, unwiped.
    let users: Vec<_> = users.collect();
    let mut text = Zeroizing::new(String::with_capacity(HEADER.len() + users.len() * 1024));
    text.push_str(HEADER);
    for user in users {
        let (key, secret) = user.secret.file_entry();
        // `Value`'s Display quotes and escapes as TOML does; writing to a String cannot fail.
        let name = toml::Value::String(user.name.clone());
        let _ = write!(
            text,
            "\n[[user]]\nname = {name}\n{key} = \"{}\"\n",
            secret.as_str()
        );
        if let Some(v4) = user.v4 {
            let _ = writeln!(text, "v4 = \"{v4}\"");
        }
        if let Some(v6) = user.v6 {
            let _ = writeln!(text, "v6 = \"{v6}\"");
        }
        if user.disabled {
            text.push_str("disabled = true\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> (Users, Report) {
        let mut report = Report::on_secrets(Path::new("users.toml"), text);
        let users = parse(text, &mut report);
        (users, report)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            name in "\\PC{1,40}",
            hash: [u8; 16],
            v4: Option<u32>,
            disabled: bool,
        ) {
            prop_assume!(mistake_in_name(&name).is_none());
            let user = User {
                name: name.clone(),
                secret: Secret::NtHash(datapath::crypto::nt_hash::NtHash::from_bytes(hash)),
                v4: v4.map(Ipv4Addr::from_bits),
                v6: Some("fd00:99:0:1::/64".parse().unwrap()),
                disabled,
            };
            let (users, report) = read(&emit(std::iter::once(&user)));
            prop_assert!(!report.has_errors(), "{report}");
            let back = users.named(name.as_bytes()).unwrap();
            prop_assert_eq!(&back.name, &name);
            prop_assert_eq!(back.secret.file_entry().1, user.secret.file_entry().1);
            prop_assert_eq!((back.v4, back.v6, back.disabled), (user.v4, user.v6, disabled));
        }
    }

    #[test]
    fn every_mistake_is_told_at_once_and_no_hash_is_shown() {
        let (_, report) = read(
            "[[user]]\nname = \"a\"\nnt_hash = \"beef\"\n\
             [[user]]\nname = \"b\"\n\
             [[user]]\nname = \"c\"\nnt_hash = \"44ebba8d5312b8d611474411f56989ae\"\nargon2 = \"x\"\n\
             [[user]]\nname = \"d\"\nnt_hash = \"44ebba8d5312b8d611474411f56989ae\"\nv4 = \"10.1\"\nv6 = \"fd00::1:0:0:0:1/64\"\n\
             [[user]]\nname = \"d\"\nnt_hash = \"44ebba8d5312b8d611474411f56989ae\"\n\
             [[user]]\nname = \"e \"\npasword = \"1\"\nnt_hash = \"44ebba8d5312b8d611474411f56989ae\"\n\
             [[user]]\nnt_hash = \"44ebba8d5312b8d611474411f56989ae\"\n",
        );
        let text = report.to_string();
        assert!(!text.contains("44ebba") && !text.contains("beef"), "{text}");
        insta::assert_snapshot!(text);
    }
}
