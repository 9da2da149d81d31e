//! `sstp-gw user …`: edits the users file.

use std::io::{self, IsTerminal as _, Write as _};
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;

use ipnet::Ipv6Net;
use zeroize::Zeroizing;

use super::{Secret, User, Users, argon2_hash, file, mistake_in_name};
use crate::files::{self, FileError};

/// Longest password, in bytes; what MS-CHAPv2 and PAP carry (RFC 2759 §8.9, RFC 1334 §2.2.1).
const PASSWORD_LEN_MAX: usize = 255;

/// What to do with the users file.
#[derive(Debug)]
pub(crate) enum Command {
    /// Add a user.
    Add {
        name: String,
        pap_only: bool,
        v4: Option<Ipv4Addr>,
        v6: Option<Ipv6Net>,
        disabled: bool,
        password_stdin: bool,
    },
    /// Remove a user.
    Remove { name: String },
    /// Print every user; never a secret.
    List { json: bool },
    /// Set a password anew.
    Passwd {
        name: String,
        pap_only: bool,
        password_stdin: bool,
    },
    /// Let a user log in again, or no more.
    Disable { name: String, disabled: bool },
}

/// Why the file was not edited.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UserError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{0}")]
    Broken(String),
    #[error("the user \"{}\" exists already; to set a new password: sstp-gw user passwd", .0.escape_debug())]
    Exists(String),
    #[error("there is no user \"{}\"; to see all: sstp-gw user list", .0.escape_debug())]
    Unknown(String),
    #[error("\"{}\" cannot name a user: {mistake}", .name.escape_debug())]
    Name { name: String, mistake: &'static str },
    #[error("the password is empty")]
    EmptyPassword,
    #[error("the password is longer than {PASSWORD_LEN_MAX} bytes, which PPP cannot carry")]
    LongPassword,
    #[error("the two passwords differ")]
    Mismatch,
    #[error("there is no terminal to ask for the password on; give it by --password-stdin")]
    NoTerminal,
    #[error("cannot read the password: {0}")]
    Password(io::Error),
    #[error("cannot print: {0}")]
    Print(io::Error),
    #[error("Argon2 failed: {0}")]
    Argon2(argon2::password_hash::Error),
}

/// Does `command` to the users file at `path`.
///
/// # Errors
/// When nothing was changed, with what to do about it.
pub(crate) fn run(
    path: &Path,
    command: Command,
    out: &mut impl io::Write,
) -> Result<(), UserError> {
    if let Command::List { json } = command {
        return list(&read(path)?, json, out).map_err(UserError::Print);
    }
    // The password is read before the lock is taken: a person may think for a while.
    let password = match &command {
        Command::Add {
            name,
            password_stdin,
            ..
        }
        | Command::Passwd {
            name,
            password_stdin,
            ..
        } => {
            if let Some(mistake) = mistake_in_name(name) {
                return Err(UserError::Name {
                    name: name.clone(),
                    mistake,
                });
            }
            Some(read_password(name, *password_stdin)?)
        }
        _ => None,
    };
    let _lock = files::lock_directory_of(path)?;
    let users = if path.exists() {
        read(path)?
    } else {
        Users::default()
    };
    let mut list: Vec<Arc<User>> = users.list.into_iter().map(|(user, _)| user).collect();
    let done = apply(&mut list, command, password.as_deref().map(String::as_str))?;
    let text = file::emit(list.iter().map(AsRef::as_ref));
    files::replace(path, text.as_bytes(), 0o600)?;
    writeln!(out, "{done} in {}", path.display()).map_err(UserError::Print)
}

fn read(path: &Path) -> Result<Users, UserError> {
    let (users, report) = Users::load_to_edit(path)?;
    if report.has_errors() {
        // Writing it anew would lose what could not be read.
        return Err(UserError::Broken(report.to_string()));
    }
    Ok(users)
}

/// Edits the list; says what was done.
fn apply(
    list: &mut Vec<Arc<User>>,
    command: Command,
    password: Option<&str>,
) -> Result<String, UserError> {
    let find = |list: &[Arc<User>], name: &str| {
        list.iter()
            .position(|user| user.name == name)
            .ok_or_else(|| UserError::Unknown(name.to_owned()))
    };
    let secret = |pap_only| {
        let password = password.unwrap_or_default();
        if pap_only {
            argon2_hash(password.as_bytes()).map_err(UserError::Argon2)
        } else {
            Ok(Secret::nt_hash(password))
        }
    };
    match command {
        Command::Add {
            name,
            pap_only,
            v4,
            v6,
            disabled,
            ..
        } => {
            if find(list, &name).is_ok() {
                return Err(UserError::Exists(name));
            }
            let done = format!("user \"{}\" added", name.escape_debug());
            let secret = secret(pap_only)?;
            list.push(Arc::new(User {
                name,
                secret,
                v4,
                v6,
                disabled,
            }));
            Ok(done)
        }
        Command::Remove { name } => {
            list.remove(find(list, &name)?);
            Ok(format!("user \"{}\" removed", name.escape_debug()))
        }
        Command::Passwd { name, pap_only, .. } => {
            let index = find(list, &name)?;
            Arc::make_mut(&mut list[index]).secret = secret(pap_only)?;
            Ok(format!("password of \"{}\" set", name.escape_debug()))
        }
        Command::Disable { name, disabled } => {
            let index = find(list, &name)?;
            Arc::make_mut(&mut list[index]).disabled = disabled;
            let what = if disabled { "disabled" } else { "enabled" };
            Ok(format!("user \"{}\" {what}", name.escape_debug()))
        }
        Command::List { .. } => Ok(String::new()),
    }
}

fn list(users: &Users, json: bool, out: &mut impl io::Write) -> io::Result<()> {
    let kind = |user: &User| match user.secret {
        Secret::NtHash(_) => "nt-hash",
        Secret::Argon2(_) => "argon2",
    };
    if json {
        let list: Vec<_> = users
            .iter()
            .map(|user| {
                serde_json::json!({
                    "name": user.name,
                    "password": kind(user),
                    "v4": user.v4,
                    "v6": user.v6,
                    "disabled": user.disabled,
                })
            })
            .collect();
        serde_json::to_writer_pretty(&mut *out, &list)?;
        return writeln!(out);
    }
    let width = users
        .iter()
        .map(|user| user.name.escape_debug().count())
        .chain([4])
        .max()
        .unwrap_or_default();
    writeln!(
        out,
        "{:width$}  {:8}  {:15}  {:24}  STATE",
        "NAME", "PASSWORD", "V4", "V6"
    )?;
    for user in users.iter() {
        writeln!(
            out,
            "{:width$}  {:8}  {:15}  {:24}  {}",
            user.name.escape_debug().to_string(),
            kind(user),
            user.v4.map_or_else(|| "-".to_owned(), |v4| v4.to_string()),
            user.v6.map_or_else(|| "-".to_owned(), |v6| v6.to_string()),
            if user.disabled { "disabled" } else { "enabled" }
        )?;
    }
    Ok(())
}

/// From standard input's first line, or twice from the terminal, unseen.
fn read_password(name: &str, from_stdin: bool) -> Result<Zeroizing<String>, UserError> {
    let stdin = io::stdin();
    let password = if from_stdin {
        line(&mut stdin.lock())?
    } else {
        if !stdin.is_terminal() {
            return Err(UserError::NoTerminal);
        }
        let _hidden = datapath::sys::terminal::hide_input().map_err(UserError::Password)?;
        let ask = |question: String| {
            eprint!("{question}");
            io::stderr().flush().map_err(UserError::Password)?;
            let line = line(&mut stdin.lock());
            eprintln!();
            line
        };
        let first = ask(format!("Password of {}: ", name.escape_debug()))?;
        let second = ask("Once more: ".to_owned())?;
        if *first != *second {
            return Err(UserError::Mismatch);
        }
        first
    };
    if password.is_empty() {
        return Err(UserError::EmptyPassword);
    }
    if password.len() > PASSWORD_LEN_MAX {
        return Err(UserError::LongPassword);
    }
    Ok(password)
}

fn line(input: &mut impl io::BufRead) -> Result<Zeroizing<String>, UserError> {
    let mut line = Zeroizing::new(String::with_capacity(1024));
    input.read_line(&mut line).map_err(UserError::Password)?;
    while line.ends_with(['\n', '\r']) {
        line.pop();
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(name: &str, pap_only: bool) -> Command {
        Command::Add {
            name: name.to_owned(),
            pap_only,
            v4: None,
            v6: None,
            disabled: false,
            password_stdin: false,
        }
    }

    #[test]
    fn a_user_comes_changes_and_goes() {
        let mut list = Vec::new();
        apply(&mut list, add("alice", false), Some("clientPass")).unwrap();
        assert!(matches!(
            apply(&mut list, add("alice", false), Some("x")),
            Err(UserError::Exists(_))
        ));
        let passwd = Command::Passwd {
            name: "alice".to_owned(),
            pap_only: true,
            password_stdin: false,
        };
        apply(&mut list, passwd, Some("other")).unwrap();
        assert!(matches!(list[0].secret, Secret::Argon2(_)));
        let disable = Command::Disable {
            name: "alice".to_owned(),
            disabled: true,
        };
        apply(&mut list, disable, None).unwrap();
        assert!(list[0].disabled);
        let remove = || Command::Remove {
            name: "alice".to_owned(),
        };
        apply(&mut list, remove(), None).unwrap();
        assert!(matches!(
            apply(&mut list, remove(), None),
            Err(UserError::Unknown(_))
        ));
    }

    #[test]
    fn a_list_shows_no_secret() {
        let mut users = Users::default();
        for (name, secret) in [
            ("alice", Secret::nt_hash("clientPass")),
            ("bob\u{1b}[31m", argon2_hash(b"pw").unwrap()),
        ] {
            users.insert(
                User {
                    name: name.to_owned(),
                    secret,
                    v4: None,
                    v6: None,
                    disabled: false,
                },
                super::super::Places::default(),
            );
        }
        for json in [false, true] {
            let mut out = Vec::new();
            list(&users, json, &mut out).unwrap();
            let text = String::from_utf8(out).unwrap();
            assert!(
                text.contains("alice") && !text.contains("44ebba") && !text.contains("$argon2id"),
                "{text}"
            );
            assert!(!text.contains('\u{1b}'), "{text}");
        }
    }

    #[test]
    fn a_password_ends_at_the_line() {
        let mut input = "secret\r\nmore".as_bytes();
        assert_eq!(line(&mut input).unwrap().as_str(), "secret");
    }
}
