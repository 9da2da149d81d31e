//! Who the sessions of a run log in as: a pattern, or the users of a file.
//!
//! ```text
//! user,password            (this line may be missing)
//! alice,correct horse
//! "smith, bob","a ""quoted"" one"
//! ```
//!
//! Fields are those of RFC 4180. A password is never printed, not even in part.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;
use std::{fmt, io};

use zeroize::Zeroizing;

/// No file of users is longer, in bytes and in users.
const FILE_LEN_MAX: u64 = 64 << 20;
const USERS_MAX: usize = 1_000_000;
/// A field that PPP can carry (RFC 1334 §2.2.1).
const FIELD_LEN_MAX: usize = 255;

/// One user of a file.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) password: Zeroizing<String>,
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("User").field(&self.name).finish()
    }
}

/// The users of a run; all have the run's one password unless the file gives each its own.
#[derive(Clone, Debug)]
pub(crate) enum Users {
    /// `{n}` in it is the number of the session, from `first` on.
    Pattern { name: String, first: u32 },
    /// Session `n` is the `n`th, and after the last comes the first again.
    List(Arc<[User]>),
}

/// Why a file of users cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{0}")]
    Read(#[from] io::Error),
    #[error("line {0}: not UTF-8")]
    Encoding(usize),
    #[error("line {0}: expected user,password")]
    NoComma(usize),
    #[error("line {0}: more than two fields; a comma in a field wants the field in double quotes")]
    Fields(usize),
    #[error("line {0}: a double quote is not closed, or something follows it")]
    Quote(usize),
    #[error("line {0}: the user name is empty")]
    NoName(usize),
    #[error("line {0}: a field has more than {FIELD_LEN_MAX} bytes")]
    TooLong(usize),
    #[error("no user in it")]
    Empty,
    #[error("more than {USERS_MAX} users")]
    TooMany,
}

impl Users {
    /// The users of the file at `path`.
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        use io::Read as _;

        let mut bytes = Zeroizing::new(Vec::new());
        std::fs::File::open(path)?
            .take(FILE_LEN_MAX)
            .read_to_end(&mut bytes)?;
        Ok(Self::List(parse(&bytes)?.into()))
    }

    /// Whether every session is the same user.
    pub(crate) fn is_one(&self) -> bool {
        match self {
            Self::Pattern { name, .. } => !name.contains("{n}"),
            Self::List(users) => users.len() == 1,
        }
    }

    /// The user of session `number`, and its own password if it has one.
    pub(crate) fn of(&self, number: u32) -> (Cow<'_, str>, Option<&Zeroizing<String>>) {
        match self {
            Self::Pattern { name, .. } if self.is_one() => (Cow::Borrowed(name), None),
            Self::Pattern { name, first } => {
                let number = number.saturating_add(*first).to_string();
                (Cow::Owned(name.replace("{n}", &number)), None)
            }
            Self::List(users) => {
                let index = (number as usize).checked_rem(users.len()).unwrap_or(0);
                users.get(index).map_or((Cow::Borrowed(""), None), |user| {
                    (Cow::Borrowed(&user.name), Some(&user.password))
                })
            }
        }
    }
}

fn parse(bytes: &[u8]) -> Result<Vec<User>, Error> {
    // Excel writes a byte order mark.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut users = Vec::new();
    for (line, number) in bytes.split(|&byte| byte == b'\n').zip(1..) {
        let line = str::from_utf8(line).map_err(|_| Error::Encoding(number))?;
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.trim().is_empty() {
            continue;
        }
        let (name, rest) = field(line).ok_or(Error::Quote(number))?;
        let rest = rest.ok_or(Error::NoComma(number))?;
        let (password, rest) = field(rest).ok_or(Error::Quote(number))?;
        if rest.is_some() {
            return Err(Error::Fields(number));
        }
        let is_header = ["user", "username", "name"]
            .iter()
            .any(|header| name.eq_ignore_ascii_case(header))
            && password.eq_ignore_ascii_case("password");
        if is_header && users.is_empty() {
            continue;
        }
        if name.is_empty() {
            return Err(Error::NoName(number));
        }
        if name.len().max(password.len()) > FIELD_LEN_MAX {
            return Err(Error::TooLong(number));
        }
        if users.len() >= USERS_MAX {
            return Err(Error::TooMany);
        }
        users.push(User {
            name: name.as_str().to_owned(),
            password,
        });
    }
    if users.is_empty() {
        return Err(Error::Empty);
    }
    Ok(users)
}

/// The first field of `line` and what is behind its comma, `None` if it is the last; `None` for bad
/// quotes.
fn field(line: &str) -> Option<(Zeroizing<String>, Option<&str>)> {
    let Some(quoted) = line.strip_prefix('"') else {
        let (field, rest) = match line.split_once(',') {
            Some((field, rest)) => (field, Some(rest)),
            None => (line, None),
        };
        return Some((Zeroizing::new(field.to_owned()), rest));
    };
    let mut field = Zeroizing::new(String::with_capacity(quoted.len()));
    let mut rest = quoted;
    loop {
        let (piece, after) = rest.split_once('"')?;
        field.push_str(piece);
        if let Some(more) = after.strip_prefix('"') {
            field.push('"');
            rest = more;
        } else if after.is_empty() {
            return Some((field, None));
        } else {
            return Some((field, Some(after.strip_prefix(',')?)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Vec<(String, String)> {
        let users = parse(text.as_bytes()).unwrap();
        users
            .into_iter()
            .map(|user| (user.name, user.password.as_str().to_owned()))
            .collect()
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        let own = |&(user, password): &(&str, &str)| (user.to_owned(), password.to_owned());
        pairs.iter().map(own).collect()
    }

    #[test]
    fn users_are_read_with_and_without_header() {
        let expected = pairs(&[("alice", "pw"), ("DOM\\bob", " s p ")]);
        for text in [
            "alice,pw\nDOM\\bob, s p \n",
            "user,password\r\nalice,pw\r\n\r\nDOM\\bob, s p ",
            "\u{feff}Username,Password\nalice,pw\nDOM\\bob, s p \n",
        ] {
            assert_eq!(list(text), expected, "{text:?}");
        }
        assert_eq!(
            list("\"smith, bob\",\"a \"\"b\"\", c\"\nc,\n"),
            pairs(&[("smith, bob", "a \"b\", c"), ("c", "")])
        );
    }

    #[test]
    fn errors_name_the_line_and_no_password() {
        let long = format!("a,b\n{},c", "x".repeat(256));
        for (text, line) in [
            ("a,b\nsecret", "line 2: expected user,password"),
            ("a,secret,c", "line 1: more than two fields"),
            ("\"a,secret", "line 1: a double quote"),
            ("\"a\"x,secret", "line 1: a double quote"),
            ("a,b\n\n,secret", "line 3: the user name is empty"),
            (long.as_str(), "line 2: a field has more"),
            ("user,password\n", "no user in it"),
        ] {
            let error = parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.starts_with(line), "{text:?}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
        let error = parse(b"a,\xff\xfe").unwrap_err().to_string();
        assert_eq!(error, "line 1: not UTF-8");
        assert!(!format!("{:?}", parse(b"a,secret")).contains("secret"));
    }

    #[test]
    fn sessions_take_them_in_turn() {
        let users = Users::List(parse(b"a,1\nb,2\nc,3").unwrap().into());
        let names: String = (0..7).map(|n| users.of(n).0.into_owned()).collect();
        assert_eq!(names, "abcabca");
        assert_eq!(users.of(4).1.map(|password| password.as_str()), Some("2"));
        let pattern = Users::Pattern {
            name: "u-{n}".to_owned(),
            first: 10,
        };
        assert_eq!(pattern.of(5).0, "u-15");
        assert!(pattern.of(5).1.is_none() && !pattern.is_one());
    }
}
