//! `-L [BIND:]PORT:HOST:HOSTPORT`: which port of this host leads where inside the tunnel.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

/// One port that is forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Forward {
    /// Where to listen; port 0 lets the kernel choose.
    pub(crate) bind: SocketAddr,
    /// Where connections go, inside the tunnel.
    pub(crate) to: SocketAddr,
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.bind, self.to)
    }
}

impl FromStr for Forward {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = parts(text)?;
        let (bind, port, host, host_port) = match parts[..] {
            [port, host, host_port] => (None, port, host, host_port),
            [bind, port, host, host_port] => (Some(bind), port, host, host_port),
            _ => return Err("write it as [BIND:]PORT:HOST:HOSTPORT".to_owned()),
        };
        let bind: IpAddr = match bind {
            // As ssh: whoever is on this host, and nobody else.
            None | Some("localhost" | "") => Ipv4Addr::LOCALHOST.into(),
            Some("*") => Ipv4Addr::UNSPECIFIED.into(),
            Some(address) => address
                .parse()
                .map_err(|_| format!("{address:?} is no address to listen on"))?,
        };
        let to: IpAddr = host.parse().map_err(|_| {
            format!(
                "{host:?} is no address: names inside the tunnel are not looked up, give the address"
            )
        })?;
        let is_reachable = match to {
            IpAddr::V4(_) => true,
            IpAddr::V6(to) => to.is_unicast_link_local(),
        };
        if !is_reachable {
            return Err(format!(
                "{to} cannot be reached from here: without root there is IPv4, and IPv6 to the gateway's \
                 link-local address alone"
            ));
        }
        let number = |port: &str| {
            port.parse::<u16>()
                .map_err(|_| format!("{port:?} is no port"))
        };
        let to = SocketAddr::new(to, number(host_port)?);
        if to.port() == 0 {
            return Err("0 is no port to connect to".to_owned());
        }
        Ok(Self {
            bind: SocketAddr::new(bind, number(port)?),
            to,
        })
    }
}

/// Cuts at the colons that are not within brackets, and takes the brackets away.
fn parts(text: &str) -> Result<Vec<&str>, String> {
    let mut parts = Vec::new();
    let mut rest = text;
    loop {
        let (part, after) = if let Some(inner) = rest.strip_prefix('[') {
            inner.split_once(']').ok_or("the bracket is not closed")?
        } else {
            rest.split_at(rest.find(':').unwrap_or(rest.len()))
        };
        parts.push(part);
        match after.strip_prefix(':') {
            Some(next) => rest = next,
            None if after.is_empty() => return Ok(parts),
            None => return Err("only a colon may follow a bracket".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forward(text: &str) -> Result<(String, String), String> {
        let Forward { bind, to } = text.parse()?;
        Ok((bind.to_string(), to.to_string()))
    }

    #[test]
    fn it_is_written_as_for_ssh() {
        let is = |bind: &str, to: &str| Ok((bind.to_owned(), to.to_owned()));
        assert_eq!(
            forward("8080:10.0.0.1:80"),
            is("127.0.0.1:8080", "10.0.0.1:80")
        );
        assert_eq!(forward("*:1:10.0.0.1:2"), is("0.0.0.0:1", "10.0.0.1:2"));
        assert_eq!(
            forward("localhost:0:10.0.0.1:2"),
            is("127.0.0.1:0", "10.0.0.1:2")
        );
        assert_eq!(forward("[::1]:8:[fe80::1]:9"), is("[::1]:8", "[fe80::1]:9"));
    }

    #[test]
    fn what_cannot_be_forwarded_is_told_why() {
        for (text, why) in [
            ("8080", "write it as"),
            ("1:2:3:4:5", "write it as"),
            ("8080:intranet:80", "give the address"),
            ("8080:[2001:db8::1]:80", "cannot be reached"),
            ("8080:[fe80::1:80", "not closed"),
            ("[::1]8080:10.0.0.1:80", "colon"),
            ("99999:10.0.0.1:80", "no port"),
            ("8080:10.0.0.1:0", "0 is no port"),
            ("nowhere:1:10.0.0.1:80", "no address to listen"),
        ] {
            let told = forward(text).unwrap_err();
            assert!(told.contains(why), "{text}: {told}");
        }
    }
}
