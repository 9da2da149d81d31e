//! Who may log in, and how that is proved.
//!
//! The users file is TOML, one `[[user]]` each:
//!
//! ```toml
//! [[user]]
//! name = "alice"
//! nt_hash = "44ebba8d5312b8d611474411f56989ae"
//! v4 = "10.99.0.17"          # optional: always this address
//! v6 = "fd00:99:0:17::/64"   # optional: always this prefix
//! disabled = true            # optional: cannot log in
//!
//! [[user]]
//! name = "bob"
//! argon2 = "$argon2id$v=19$..."
//! ```
//!
//! MS-CHAPv2 can only be checked with the NT hash of the password (RFC 2759 §8.3), and whoever has
//! that hash can log in without the password: it is *password-equivalent*. The file is therefore
//! refused when others can read it. Users of PAP alone need no such hash; theirs is Argon2id.

mod commands;
mod file;
mod secret;

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use ipnet::{IpNet, Ipv6Net};
use zeroize::Zeroizing;

pub(crate) use commands::{Command, run};
pub(crate) use file::emit;
pub(crate) use secret::{Secret, argon2_hash, argon2_verify};

use crate::config::Pool;
use crate::diagnostics::Report;
use crate::files::{self, FileError};

/// Longest name, in bytes; PAP carries no more (RFC 1334 §2.2.1).
pub(crate) const NAME_LEN_MAX: usize = 255;

/// One user.
#[derive(Clone, Debug)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) secret: Secret,
    /// Always this address.
    pub(crate) v4: Option<Ipv4Addr>,
    /// Always this /64.
    pub(crate) v6: Option<Ipv6Net>,
    pub(crate) disabled: bool,
}

/// Where in the file what stands.
#[derive(Clone, Debug, Default)]
struct Places {
    name: Option<Range<usize>>,
    v4: Option<Range<usize>>,
    v6: Option<Range<usize>>,
}

/// Every user of the file.
#[derive(Debug, Default)]
pub(crate) struct Users {
    by_name: HashMap<String, usize>,
    list: Vec<(Arc<User>, Places)>,
    any_argon2: bool,
}

impl Users {
    /// Reads the file. The report has everything that is wrong in it; if it has an error, the users
    /// are those that were right.
    ///
    /// # Errors
    /// When the file cannot be read, or others can read it.
    pub(crate) fn load(path: &Path) -> Result<(Self, Report), FileError> {
        Ok(Self::parse(path, files::read_secret(path)?))
    }

    /// As [`Users::load`] for editing: root may edit the file of the gateway's own user.
    pub(crate) fn load_to_edit(path: &Path) -> Result<(Self, Report), FileError> {
        Ok(Self::parse(path, files::read_secret_of_anyone(path)?))
    }

    #[expect(
        clippy::needless_pass_by_value,
        reason = "the text is wiped when it is parsed"
    )]
    fn parse(path: &Path, text: Zeroizing<String>) -> (Self, Report) {
        let mut report = Report::on_secrets(path, &text);
        let users = file::parse(&text, &mut report);
        (users, report)
    }

    fn push(&mut self, user: User, places: Places, report: &mut Report) {
        if self.by_name.contains_key(&user.name) {
            report.error(
                places.name.clone(),
                format!(
                    "the user \"{}\" stands twice; take one out",
                    user.name.escape_debug()
                ),
            );
            return;
        }
        self.insert(user, places);
    }

    fn insert(&mut self, user: User, places: Places) {
        self.any_argon2 |= matches!(user.secret, Secret::Argon2(_));
        self.by_name.insert(user.name.clone(), self.list.len());
        self.list.push((Arc::new(user), places));
    }

    /// The user of exactly this name.
    pub(crate) fn named(&self, name: &[u8]) -> Option<&Arc<User>> {
        let name = str::from_utf8(name).ok()?;
        self.list
            .get(*self.by_name.get(name)?)
            .map(|(user, _)| user)
    }

    /// Every user, in the order of the file.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &User> {
        self.list.iter().map(|(user, _)| user.as_ref())
    }

    /// Whether nobody is in the file.
    pub(crate) const fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether anybody's password is kept as Argon2.
    pub(crate) const fn any_argon2(&self) -> bool {
        self.any_argon2
    }

    /// Names of those who can log in by PAP only.
    pub(crate) fn pap_only_names(&self) -> impl Iterator<Item = &str> {
        self.iter()
            .filter(|user| matches!(user.secret, Secret::Argon2(_)))
            .map(|user| user.name.as_str())
    }

    /// Checks everybody's own addresses against the pools and against each other.
    pub(crate) fn check_addresses(&self, pools: &[Pool], report: &mut Report) {
        let mut owners = BTreeMap::<IpAddr, &str>::new();
        for (user, places) in &self.list {
            let name = user.name.escape_debug();
            if let Some(address) = user.v4 {
                match pools.iter().filter_map(|pool| pool.v4).find(|pool| pool.network.contains(&address)) {
                    None => report.error(
                        places.v4.clone(),
                        format!("the user \"{name}\" has v4 = \"{address}\", which is in no [[pool]]; take one that is"),
                    ),
                    Some(pool)
                        if address == pool.gateway
                            || address == pool.network.network()
                            || address == pool.network.broadcast() =>
                    {
                        report.error(
                            places.v4.clone(),
                            format!(
                                "the user \"{name}\" has v4 = \"{address}\", which is the gateway's or no host's in {}",
                                pool.network
                            ),
                        );
                    }
                    Some(_) => {}
                }
                own(&mut owners, address.into(), user, places.v4.clone(), report);
            }
            if let Some(prefix) = user.v6 {
                let ours = |pool: &crate::config::PoolV6| prefix.contains(&pool.gateway);
                match pools.iter().filter_map(|pool| pool.v6).find(|pool| pool.network.contains(&prefix)) {
                    None => report.error(
                        places.v6.clone(),
                        format!("the user \"{name}\" has v6 = \"{prefix}\", which is in no [[pool]]; take one that is"),
                    ),
                    Some(pool) if ours(&pool) => report.error(
                        places.v6.clone(),
                        format!("the user \"{name}\" has v6 = \"{prefix}\", which is the gateway's own /64"),
                    ),
                    Some(_) => {}
                }
                own(
                    &mut owners,
                    prefix.network().into(),
                    user,
                    places.v6.clone(),
                    report,
                );
            }
        }
    }
}

/// Reports an address that two users have.
fn own<'a>(
    owners: &mut BTreeMap<IpAddr, &'a str>,
    address: IpAddr,
    user: &'a User,
    place: Option<Range<usize>>,
    report: &mut Report,
) {
    if let Some(other) = owners.insert(address, &user.name) {
        report.error(
            place,
            format!(
                "the users \"{}\" and \"{}\" both have the address {address}; give each its own",
                other.escape_debug(),
                user.name.escape_debug()
            ),
        );
    }
}

/// Why `name` cannot name a user, if it cannot.
pub(crate) fn mistake_in_name(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        Some("it is empty")
    } else if name.len() > NAME_LEN_MAX {
        Some("it is longer than 255 bytes")
    } else if name.chars().any(char::is_control) {
        Some("it has control characters in it")
    } else if name.trim() != name {
        Some("it begins or ends with a blank")
    } else {
        None
    }
}

/// Reads `--v6`: a /64, with or without saying so.
pub(crate) fn parse_prefix(text: &str) -> Result<Ipv6Net, String> {
    let net = match text.parse::<Ipv6Addr>() {
        Ok(address) => IpNet::from(IpAddr::from(address)),
        Err(_) => text.parse().map_err(|_| {
            format!("`{text}` is no IPv6 prefix, for example \"fd00:99:0:17::/64\"")
        })?,
    };
    let IpNet::V6(net) = net else {
        return Err(format!("`{text}` is not IPv6"));
    };
    let prefix = if net.prefix_len() == 128 {
        Ipv6Net::new_assert(net.addr(), 64)
    } else {
        net
    };
    if prefix.prefix_len() != 64 || prefix.trunc() != prefix {
        return Err(format!(
            "`{text}` must be a whole /64, for example \"{}/64\"",
            Ipv6Net::new_assert(net.addr(), 64).network()
        ));
    }
    Ok(prefix)
}
