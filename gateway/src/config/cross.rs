//! The values against each other, and against the files they name.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::SystemTime;

use datapath::services::{Profile, ProfileConfig};
use ipnet::IpNet;

use super::names::{InsideKind, Method};
use super::reader::Placed;
use super::sections::{Draft, ListenTcp};
use super::{Auth, Config, Listen, Network, Pool, Tls};
use crate::diagnostics::{Report, Severity};
use crate::pki;
use crate::users::Users;

const MTU_DEFAULT: u16 = 1400;
const TUN_DEFAULT: &str = "sstp0";
/// IFNAMSIZ less the zero at the end.
const TUN_NAME_LEN_MAX: usize = 15;
/// RFC 8200 §5.
const IPV6_MTU_MIN: u16 = 1280;
/// IPCP has two options of each kind (RFC 1877).
const IPCP_SERVERS_MAX: usize = 2;

/// Checks everything but the files; `None` if the report has got an error.
pub(super) fn check(draft: &Draft, pools: &[Pool], report: &mut Report) -> Option<Config> {
    listeners(draft, report);
    let methods = methods(draft, report);
    let network = network(draft, report);
    capacity(draft, pools, report);
    if let Some(path) = &draft.insecure_key_log {
        report.warning(
            path.place(),
            "`tls.insecure_key_log` writes the keys of every session to a file: whoever reads it \
             reads the traffic; take the line out when the capture is done",
        );
    }
    if let Some(shards) = &draft.shards {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        if usize::from(shards.value) > cpus {
            report.warning(
                shards.place(),
                format!(
                    "`shards.count` = {}: we may use {cpus} CPUs; more shards than CPUs only add work",
                    shards.value
                ),
            );
        }
    }
    Some(Config {
        listen: draft
            .listen
            .iter()
            .zip(&draft.listen_tcp)
            .map(listen)
            .collect(),
        tls: Tls {
            min_version: draft.min_version,
            record_layer: draft.record_layer,
            kernel_tx: draft.kernel_tx,
            kernel_rx: draft.kernel_rx,
            insecure_key_log: draft.insecure_key_log.clone().map(|path| path.value),
        },
        auth: Auth { methods },
        pools: pools.to_vec(),
        network: network?,
        limits: draft.limits.clone(),
        timeouts: draft.timeouts.clone(),
        shards: draft.shards.as_ref().map(|shards| shards.value),
        driver: draft.driver,
        log: draft.log,
    })
    .filter(|_| !report.has_errors())
}

fn listen((address, tcp): (&Placed<SocketAddr>, &ListenTcp)) -> Listen {
    Listen {
        address: address.value,
        congestion: tcp.congestion.as_ref().map(|name| name.value.clone()),
        user_timeout: tcp.user_timeout,
    }
}

/// The congestion controls of this kernel that are loaded; `None` where it does not say.
fn congestion_controls() -> Option<String> {
    std::fs::read_to_string("/proc/sys/net/ipv4/tcp_available_congestion_control").ok()
}

fn listeners(draft: &Draft, report: &mut Report) {
    for tcp in &draft.listen_tcp {
        if let Some(name) = &tcp.congestion
            && let Some(known) = congestion_controls()
            && !known.split_whitespace().any(|known| known == name.value)
        {
            report.error(
                name.place(),
                format!(
                    "`listen.congestion` = \"{0}\" is not known to this kernel; load it with: modprobe tcp_{0} ; to \
                     see which it has: sysctl net.ipv4.tcp_available_congestion_control",
                    name.value
                ),
            );
        }
    }
    for (index, listen) in draft.listen.iter().enumerate() {
        if listen.port() == 0 {
            report.error(
                listen.place(),
                format!(
                    "`listen.address` = \"{}\": port 0 means any port; name one, usually 443",
                    listen.value
                ),
            );
        }
        if draft.listen[..index]
            .iter()
            .any(|earlier| earlier.value == listen.value)
        {
            report.error(
                listen.place(),
                format!(
                    "`listen.address` = \"{}\" stands twice; take one out",
                    listen.value
                ),
            );
        }
        let ip = listen.ip();
        for pool in &draft.pools {
            let network = match ip {
                IpAddr::V4(ip) => pool
                    .v4
                    .as_ref()
                    .filter(|net| net.contains(&ip))
                    .map(|net| net.to_string()),
                IpAddr::V6(ip) => pool
                    .v6
                    .as_ref()
                    .filter(|net| net.contains(&ip))
                    .map(|net| net.to_string()),
            };
            if let Some(network) = network {
                report.error(
                    listen.place(),
                    format!(
                        "`listen.address` = \"{}\" lies in the pool {network}: its packets would go into the tunnels; \
                         choose another pool",
                        listen.value
                    ),
                );
            }
        }
    }
}

fn methods(draft: &Draft, report: &mut Report) -> Vec<Method> {
    let Some(placed) = &draft.methods else {
        return vec![Method::MsChapV2, Method::Eap];
    };
    let mut methods = Vec::new();
    for method in placed {
        if methods.contains(&method.value) {
            report.error(
                method.place(),
                format!(
                    "`auth.methods` names \"{}\" twice; take one out",
                    method.value
                ),
            );
            continue;
        }
        if method.value == Method::ChapMd5 {
            report.error(
                method.place(),
                "`auth.methods`: \"chap-md5\" needs every password in the clear, and the users file keeps \
                 only hashes, so nobody could log in with it; take it out",
            );
        }
        methods.push(method.value);
    }
    // An unknown word in the list has been reported already.
    if methods.is_empty() && !report.has_errors() {
        report.error(
            draft.methods_place.clone(),
            "`auth.methods` is empty, so nobody could log in; the default is [\"mschapv2\", \"eap\"]",
        );
    }
    methods
}

fn network(draft: &Draft, report: &mut Report) -> Option<Network> {
    let network = &draft.network;
    // A pool that could not be read has been reported already; it does not take its family away.
    let has_v4 = draft.pools.iter().any(|pool| pool.v4.is_some());
    let has_v6 = draft.pools.iter().any(|pool| pool.v6.is_some());
    let families_known =
        !draft.pools.is_empty() && !draft.pools.iter().any(|pool| pool.empty || pool.unread);

    let mut counts = BTreeMap::<bool, usize>::new();
    for dns in &network.dns {
        let ip = dns.value;
        if ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() {
            report.error(
                dns.place(),
                format!("`network.dns`: {ip} is no address that a client could reach"),
            );
        }
        let (has, family) = if ip.is_ipv4() {
            (has_v4, "v4")
        } else {
            (has_v6, "v6")
        };
        if families_known && !has {
            report.error(
                dns.place(),
                format!("`network.dns`: {ip} is of use only to sessions with {family} addresses, and no [[pool]] has `{family}`"),
            );
        }
        let count = counts.entry(ip.is_ipv4()).or_default();
        *count += 1;
        if ip.is_ipv4() && *count > IPCP_SERVERS_MAX {
            report.error(
                dns.place(),
                format!(
                    "`network.dns`: {ip} is one IPv4 server too many; PPP carries two (RFC 1877)"
                ),
            );
        }
    }
    if let Some(third) = network.nbns.get(IPCP_SERVERS_MAX) {
        report.error(
            third.place(),
            format!(
                "`network.nbns`: {} is one too many; PPP carries two (RFC 1877)",
                third.value
            ),
        );
    }
    if let Some(domain) = &network.domain
        && !is_domain(domain)
    {
        report.error(
            domain.place(),
            format!(
                "`network.domain` = \"{}\" is no domain name; for example \"corp.example\"",
                domain.value
            ),
        );
    }
    for route in &network.routes {
        if route.trunc() != route.value {
            report.error(
                route.place(),
                format!(
                    "`network.routes`: {} names a host, not a network; did you mean {}?",
                    route.value,
                    route.trunc()
                ),
            );
        }
    }
    if let Some(mtu) = &network.mtu
        && mtu.value < IPV6_MTU_MIN
        && has_v6
    {
        report.error(
            mtu.place(),
            format!(
                "`network.mtu` = {}: IPv6 needs at least {IPV6_MTU_MIN} (RFC 8200); raise it or take `v6` from the pools",
                mtu.value
            ),
        );
    }
    if let Some(tun) = &network.tun {
        let name = tun.as_str();
        if name.is_empty()
            || name.len() > TUN_NAME_LEN_MAX
            || !name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
            || matches!(name, "." | "..")
        {
            report.error(
                tun.place(),
                format!(
                    "`network.tun` = \"{name}\" cannot name a device: 1 to {TUN_NAME_LEN_MAX} letters, digits, - _ ."
                ),
            );
        } else if network.inside == InsideKind::Reflector {
            report.warning(
                tun.place(),
                "`network.tun` is set, but `network.inside` = \"reflector\" makes no TUN",
            );
        }
    }
    Some(Network {
        inside: network.inside,
        profile: profile(draft, report)?,
        tun: network
            .tun
            .as_ref()
            .map_or_else(|| TUN_DEFAULT.to_owned(), |tun| tun.value.clone()),
        mtu: network.mtu.as_ref().map_or(MTU_DEFAULT, |mtu| mtu.value),
        dns: network.dns.iter().map(|dns| dns.value).collect(),
        nbns: network.nbns.iter().map(|nbns| nbns.value).collect(),
        client_to_client: network.client_to_client,
        offload: network.offload,
        queue_target: network.queue_target,
    })
}

/// What the services inside the tunnel tell; it has bounds of its own.
fn profile(draft: &Draft, report: &mut Report) -> Option<Arc<Profile>> {
    let network = &draft.network;
    let routes = || network.routes.iter().map(|route| route.trunc());
    let routes_v4: Vec<_> = routes()
        .filter_map(|route| match route {
            IpNet::V4(net) => Some((net.network(), net.prefix_len())),
            IpNet::V6(_) => None,
        })
        .collect();
    let routes_v6: Vec<_> = routes()
        .filter_map(|route| match route {
            IpNet::V6(net) => Some((net.network(), net.prefix_len())),
            IpNet::V4(_) => None,
        })
        .collect();
    let dns = || network.dns.iter().map(|dns| dns.value);
    let profile = Profile::new(&ProfileConfig {
        dns_v4: dns()
            .filter_map(|dns| match dns {
                IpAddr::V4(dns) => Some(dns),
                IpAddr::V6(_) => None,
            })
            .collect(),
        dns_v6: dns()
            .filter_map(|dns| match dns {
                IpAddr::V6(dns) => Some(dns),
                IpAddr::V4(_) => None,
            })
            .collect(),
        nbns: network.nbns.iter().map(|nbns| nbns.value).collect(),
        domain: network.domain.clone().map(|domain| domain.value),
        // With routes of a family to tell, we are no default router of it.
        default_route_v4: routes_v4.is_empty(),
        default_route_v6: routes_v6.is_empty(),
        routes_v4,
        routes_v6,
        server_id: server_id(),
        ..ProfileConfig::default()
    });
    match profile {
        Ok(profile) => Some(Arc::new(profile)),
        // Servers and domain have been judged with their places above.
        Err(_) if report.has_errors() => None,
        Err(error) => {
            let place = network.routes.last().and_then(Placed::place);
            report.error(
                place,
                format!("[network] cannot be told to clients: {error}"),
            );
            None
        }
    }
}

/// The same on this machine after every start (RFC 8415 §11.5).
fn server_id() -> [u8; 16] {
    let machine = std::fs::read("/etc/machine-id").unwrap_or_default();
    let digest = aws_lc_rs::digest::digest(
        &aws_lc_rs::digest::SHA256,
        &[b"sstp-gw DHCPv6 server of ".as_slice(), &machine].concat(),
    );
    digest.as_ref().first_chunk().copied().unwrap_or_default()
}

fn is_domain(text: &str) -> bool {
    text.len() <= 253
        && text.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}

fn capacity(draft: &Draft, pools: &[Pool], report: &mut Report) {
    let room: u64 = pools
        .iter()
        .filter_map(|pool| pool.v4)
        .map(|pool| {
            let (first, last) = pool.range;
            let all = u64::from(last.to_bits().saturating_sub(first.to_bits())) + 1;
            all - u64::from((first..=last).contains(&pool.gateway))
        })
        .sum();
    if room > 0 && room < u64::from(draft.limits.sessions) && draft.sessions_place.is_some() {
        report.warning(
            draft.sessions_place.clone(),
            format!(
                "`limits.sessions` = {}: the pools have {room} IPv4 addresses; sessions beyond that are refused",
                draft.limits.sessions
            ),
        );
    }
}

/// Loads certificate and key; `None` if they cannot be used together.
pub(super) fn identity(
    draft: &Draft,
    now: SystemTime,
    report: &mut Report,
) -> Option<pki::Identity> {
    let chain = draft
        .certificate
        .as_ref()
        .and_then(|path| match pki::Chain::load(&path.value) {
            Ok(chain) => {
                for warning in chain.warnings(now) {
                    report.warning(path.place(), format!("`tls.certificate`: {warning}"));
                }
                Some(chain)
            }
            Err(error) => {
                report.error(path.place(), format!("`tls.certificate`: {error}"));
                None
            }
        });
    let key = draft
        .key
        .as_ref()
        .and_then(|path| match pki::Key::load(&path.value) {
            Ok(key) => Some((key, path)),
            Err(error) => {
                report.error(path.place(), format!("`tls.key`: {error}"));
                None
            }
        });
    let (chain, (key, path)) = (chain?, key?);
    match pki::Identity::new(chain, key) {
        Ok(identity) => Some(identity),
        Err(error) => {
            report.error(path.place(), format!("`tls.key`: {error}"));
            None
        }
    }
}

/// Reads the users file; its mistakes are in its own report.
pub(super) fn users(
    draft: &Draft,
    pools: &[Pool],
    report: &mut Report,
) -> (Option<Users>, Option<Report>) {
    let Some(path) = &draft.users else {
        return (None, None);
    };
    let (users, mut users_report) = match Users::load(&path.value) {
        Ok(loaded) => loaded,
        Err(error) => {
            report.error(path.place(), format!("`auth.users`: {error}"));
            return (None, None);
        }
    };
    users.check_addresses(pools, &mut users_report);
    let pap = draft
        .methods
        .as_ref()
        .is_some_and(|methods| methods.iter().any(|method| method.value == Method::Pap));
    let pap_only: Vec<_> = users.pap_only_names().collect();
    if !pap && let Some(first) = pap_only.first() {
        let others = match pap_only.len() - 1 {
            0 => String::new(),
            count => format!(" and {count} more"),
        };
        report.warning(
            path.place(),
            format!(
                "`auth.users`: \"{first}\"{others} can log in by PAP only, which `auth.methods` does not allow; \
                 add \"pap\" there or set the password anew without --pap-only"
            ),
        );
    }
    if users.is_empty() && users_report.count(Severity::Error) == 0 {
        report.warning(
            path.place(),
            "`auth.users`: nobody is in the file; run: sstp-gw user add --config FILE NAME",
        );
    }
    let usable = !users_report.has_errors();
    (usable.then_some(users), Some(users_report))
}
