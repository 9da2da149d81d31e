//! What the services tell clients: checked once, shared by all sessions it applies to.

use core::net::{Ipv4Addr, Ipv6Addr};

/// What clients are to be told, as configured. Every field is optional; the default tells nothing
/// but the mask and default routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfileConfig {
    /// Mask of the client's address (DHCP option 1).
    pub mask: Ipv4Addr,
    /// IPv4 DNS servers, at most 8 (option 6).
    pub dns_v4: Vec<Ipv4Addr>,
    /// NetBIOS name servers, at most 4 (options 44 and 46).
    pub nbns: Vec<Ipv4Addr>,
    /// The client's DNS domain (option 15).
    pub domain: Option<String>,
    /// Domains to search (option 119, RDNSS's DNSSL, DHCPv6 option 24); without any, `domain`.
    pub search: Vec<String>,
    /// IPv4 networks behind the gateway, as (address, prefix length) (options 121 and 249).
    pub routes_v4: Vec<(Ipv4Addr, u8)>,
    /// Whether the gateway is the client's IPv4 default router (option 3).
    pub default_route_v4: bool,
    /// IPv6 DNS servers, at most 8.
    pub dns_v6: Vec<Ipv6Addr>,
    /// IPv6 networks behind the gateway, at most 24 (Route Information, RFC 4191).
    pub routes_v6: Vec<(Ipv6Addr, u8)>,
    /// Whether the gateway is the client's IPv6 default router (Router Lifetime above 0).
    pub default_route_v6: bool,
    /// The gateway's DHCPv6 identity, a UUID (RFC 8415 §11.5); the same after every start.
    pub server_id: [u8; 16],
}

impl Default for ProfileConfig {
    fn default() -> Self {
        Self {
            mask: Ipv4Addr::BROADCAST,
            dns_v4: Vec::new(),
            nbns: Vec::new(),
            domain: None,
            search: Vec::new(),
            routes_v4: Vec::new(),
            default_route_v4: true,
            dns_v6: Vec::new(),
            routes_v6: Vec::new(),
            default_route_v6: true,
            server_id: [0; 16],
        }
    }
}

/// Why a [`ProfileConfig`] cannot be told to clients.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// The mask's ones are not all in front.
    #[error("{0} is not a network mask")]
    Mask(Ipv4Addr),
    /// A name is not a DNS name of letters, digits, hyphens and underscores (RFC 1035 §2.3.1).
    #[error("{0:?} is not a domain name")]
    Name(String),
    /// The search list does not fit 255 bytes (RFC 3397 §2).
    #[error("the search list takes {0} bytes, 255 are possible")]
    Search(usize),
    /// More addresses or routes of a kind than can be told.
    #[error("{count} {what} are given, {max} are possible")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many there may be.
        max: usize,
    },
    /// The IPv4 routes do not fit the 255 bytes of one option (RFC 3442): aggregate them.
    #[error("the IPv4 routes take {0} bytes, 255 are possible; aggregate them")]
    Routes(usize),
    /// A prefix is longer than its address.
    #[error("a prefix length of {0} is longer than the address")]
    PrefixLength(u8),
}

/// A checked [`ProfileConfig`], in the form its parts have on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    pub(super) mask: Ipv4Addr,
    pub(super) dns_v4: Vec<Ipv4Addr>,
    pub(super) nbns: Vec<Ipv4Addr>,
    /// As text (RFC 2132 §3.17).
    pub(super) domain: Option<String>,
    /// As labels, one name behind the other (RFC 1035 §3.1).
    pub(super) search: Vec<u8>,
    pub(super) routes_v4: Vec<(Ipv4Addr, u8)>,
    pub(super) default_route_v4: bool,
    pub(super) dns_v6: Vec<Ipv6Addr>,
    pub(super) routes_v6: Vec<(Ipv6Addr, u8)>,
    pub(super) default_route_v6: bool,
    pub(super) server_id: [u8; 16],
}

const DNS_MAX: usize = 8;
const NBNS_MAX: usize = 4;
/// With 8 DNS servers and the longest search list, an advertisement of 24 routes is 1,088 bytes: it
/// fits the 1,280 that every IPv6 link carries.
const ROUTES_V6_MAX: usize = 24;
/// One DHCP option's value (RFC 2132 §2).
pub(super) const OPTION_LEN_MAX: usize = 255;

impl Profile {
    /// Checks `config`; whatever passes fits the answers it goes into.
    pub fn new(config: &ProfileConfig) -> Result<Self, ProfileError> {
        let mask = u32::from(config.mask);
        if mask.leading_ones().saturating_add(mask.trailing_zeros()) < 32 {
            return Err(ProfileError::Mask(config.mask));
        }
        at_most("DNS servers", config.dns_v4.len(), DNS_MAX)?;
        at_most("IPv6 DNS servers", config.dns_v6.len(), DNS_MAX)?;
        at_most("NetBIOS name servers", config.nbns.len(), NBNS_MAX)?;
        at_most("IPv6 routes", config.routes_v6.len(), ROUTES_V6_MAX)?;
        let lens_v4 = config.routes_v4.iter().map(|&(_, len)| (len, 32));
        let lens_v6 = config.routes_v6.iter().map(|&(_, len)| (len, 128));
        if let Some((len, _)) = lens_v4.chain(lens_v6).find(|&(len, max)| len > max) {
            return Err(ProfileError::PrefixLength(len));
        }
        let routes_len = config
            .routes_v4
            .iter()
            .map(|&(_, len)| significant_len(len).saturating_add(5))
            .sum();
        if routes_len > OPTION_LEN_MAX {
            return Err(ProfileError::Routes(routes_len));
        }
        if let Some(domain) = &config.domain {
            put_name(domain, &mut Vec::new())?;
        }
        let mut search = Vec::new();
        for name in &config.search {
            put_name(name, &mut search)?;
        }
        if search.is_empty()
            && let Some(domain) = &config.domain
        {
            put_name(domain, &mut search)?;
        }
        if search.len() > OPTION_LEN_MAX {
            return Err(ProfileError::Search(search.len()));
        }
        Ok(Self {
            mask: config.mask,
            dns_v4: config.dns_v4.clone(),
            nbns: config.nbns.clone(),
            domain: config
                .domain
                .as_deref()
                .map(|domain| domain.trim_end_matches('.').to_owned()),
            search,
            routes_v4: config.routes_v4.clone(),
            default_route_v4: config.default_route_v4,
            dns_v6: config.dns_v6.clone(),
            routes_v6: config.routes_v6.clone(),
            default_route_v6: config.default_route_v6,
            server_id: config.server_id,
        })
    }

    /// The broadcast address of the network that `client` believes to be in; `None` on a link of
    /// two (RFC 3021) or one.
    pub(super) fn subnet_broadcast(&self, client: Ipv4Addr) -> Option<Ipv4Addr> {
        let mask = u32::from(self.mask);
        (mask.count_ones() < 31).then(|| Ipv4Addr::from(u32::from(client) | !mask))
    }
}

/// Bytes of an IPv4 destination that its prefix covers (RFC 3442).
pub(super) fn significant_len(prefix_len: u8) -> usize {
    usize::from(prefix_len.div_ceil(8))
}

fn at_most(what: &'static str, count: usize, max: usize) -> Result<(), ProfileError> {
    if count > max {
        return Err(ProfileError::TooMany { what, count, max });
    }
    Ok(())
}

/// Appends `name` as labels (RFC 1035 §3.1); a dot at its end is allowed.
fn put_name(name: &str, labels: &mut Vec<u8>) -> Result<(), ProfileError> {
    let refuse = || ProfileError::Name(name.to_owned());
    let trimmed = name.strip_suffix('.').unwrap_or(name);
    // RFC 1035 §2.3.4: 255 on the wire, which has two bytes more.
    if trimmed.len() > 253 {
        return Err(refuse());
    }
    for label in trimmed.split('.') {
        let is_plain = label
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        let len = u8::try_from(label.len())
            .ok()
            .filter(|len| (1..=63).contains(len));
        let (true, Some(len)) = (is_plain, len) else {
            return Err(refuse());
        };
        labels.push(len);
        labels.extend_from_slice(label.as_bytes());
    }
    labels.push(0);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(change: impl FnOnce(&mut ProfileConfig)) -> Result<Profile, ProfileError> {
        let mut config = ProfileConfig::default();
        change(&mut config);
        Profile::new(&config)
    }

    #[test]
    fn names_become_labels() {
        let profile = with(|config| config.search = vec!["corp.example".into(), "b_c.".into()]);
        assert_eq!(profile.unwrap().search, b"\x04corp\x07example\0\x03b_c\0");
        let profile = with(|config| config.domain = Some("a.b".into())).unwrap();
        assert_eq!(profile.search, b"\x01a\x01b\0");
    }

    #[test]
    fn what_cannot_be_told_is_refused() {
        for name in [
            "",
            ".",
            "a..b",
            "a b",
            "ä.de",
            &"a".repeat(64),
            &"a.".repeat(128),
        ] {
            let result = with(|config| config.domain = Some(name.to_owned()));
            assert_eq!(result, Err(ProfileError::Name(name.to_owned())), "{name}");
        }
        let mask = Ipv4Addr::new(255, 0, 255, 0);
        assert_eq!(
            with(|config| config.mask = mask),
            Err(ProfileError::Mask(mask))
        );
        let address = Ipv4Addr::new(10, 0, 0, 0);
        assert_eq!(
            with(|config| config.routes_v4 = vec![(address, 24); 32]),
            Err(ProfileError::Routes(256))
        );
        assert!(with(|config| config.routes_v4 = vec![(address, 24); 31]).is_ok());
        assert_eq!(
            with(|config| config.routes_v4 = vec![(address, 33)]),
            Err(ProfileError::PrefixLength(33))
        );
        assert_eq!(
            with(|config| config.routes_v6 = vec![(Ipv6Addr::UNSPECIFIED, 129)]),
            Err(ProfileError::PrefixLength(129))
        );
        assert_eq!(
            with(|config| config.search = vec!["a.example".into(); 24]),
            Err(ProfileError::Search(264))
        );
        assert!(matches!(
            with(|config| config.dns_v6 = vec![Ipv6Addr::LOCALHOST; 9]),
            Err(ProfileError::TooMany {
                count: 9,
                max: 8,
                ..
            })
        ));
    }
}
