//! `sstp-tune plan`: what host a load needs, by what each part of it costs.
//!
//! Every line is a formula with its numbers in it and where they are from, so that a reader can put in
//! others. It plans for the dearest measured row that fits; a network card's own cost was measured
//! nowhere, and stands under the same reserve as everything else: no core is planned to be more than half
//! busy.

mod figures;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;

use self::figures::{BULK, BUSY, FLOW, Figure, GATEWAY, PACKETS, SESSION, SET_UPS, SHARD, SOCKET};

/// What `shards.count` may be.
const SHARDS_MAX: u64 = 256;
/// Listeners of the fragment: IPv4 and IPv6.
const LISTENERS: u64 = 2;
/// What is open besides sessions; `descriptors_needed` of the gateway.
const FILES_FIXED: u64 = 64;
const FILES_PER_SHARD: u64 = 4;
/// Seconds in which everybody comes back after an outage, where nothing else is said.
const RETURN_S: f64 = 120.0;
/// Seconds that a handshake is in progress over a long path.
const HANDSHAKE_S: f64 = 2.0;

/// A load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Sessions at the same time.
    pub(crate) sessions: u32,
    /// Inside the tunnels, both directions together.
    pub(crate) gbps: f64,
    /// New sessions in a second.
    pub(crate) setups_per_s: Option<f64>,
    /// Bytes of a packet, where packets cannot be merged; bulk TCP otherwise.
    pub(crate) packet_size: Option<u32>,
    /// Round trip to the clients.
    pub(crate) rtt_ms: f64,
    /// Flows of one client that are tracked at a time.
    pub(crate) flows: u32,
}

/// What it needs.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    load: Load,
    setups_per_s: f64,
    traffic: (f64, String),
    setups_cores: f64,
    shards: u64,
    handshakes: u64,
    files: u64,
    memory: [(&'static str, f64, String); 5],
    buffer: u64,
    tracked: u64,
    backlog: u64,
}

/// A float as a count: rounded up, never less than nothing.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "not negative, and `as` saturates"
)]
fn count(value: f64) -> u64 {
    value.ceil().max(0.0) as u64
}

/// A count as a float: no count here is beyond 2^53.
#[expect(clippy::cast_precision_loss, reason = "see above")]
const fn float(value: u64) -> f64 {
    value as f64
}

impl Plan {
    /// Sizes a host for `load`.
    pub(crate) fn of(load: Load) -> Self {
        let sessions = f64::from(load.sessions);
        let setups_per_s = load.setups_per_s.unwrap_or(sessions / RETURN_S);
        let traffic = traffic(&load);
        let setups_cores = setups_per_s / SET_UPS.value;
        let shards = count((traffic.0 + setups_cores) / BUSY.value).max(1);
        let handshakes = count(setups_per_s * HANDSHAKE_S).clamp(1_000, 1_000_000);
        let files = u64::from(load.sessions)
            .saturating_add(handshakes)
            .saturating_add(FILES_FIXED)
            .saturating_add(shards.saturating_mul(FILES_PER_SHARD.saturating_add(LISTENERS)));
        let in_flight = load.gbps * 1e9 / 8.0 * load.rtt_ms / 1e3;
        let flows = sessions * f64::from(load.flows);
        let more = float(shards.saturating_sub(1));
        let memory = [
            (
                "gateway",
                GATEWAY.value + more * SHARD.value,
                format!(
                    "57.2 MB + {more:.0} × 24 MiB of buffers   [{}; {}]",
                    GATEWAY.source, SHARD.source
                ),
            ),
            (
                "sessions",
                sessions * SESSION.value,
                format!("{} × 8.94 KB   [{}]", load.sessions, SESSION.source),
            ),
            (
                "sockets",
                sessions * SOCKET.value,
                format!("{} × 3.7 KB   [{}]", load.sessions, SOCKET.source),
            ),
            (
                "in flight",
                2.0 * in_flight,
                format!(
                    "2 × {} Gbit/s × {} ms: what was sent and not acknowledged, in the kernel's buffers",
                    load.gbps, load.rtt_ms
                ),
            ),
            (
                "flows",
                flows * FLOW.value,
                format!(
                    "{} × {} × 256 B, where they are tracked   [{}]",
                    load.sessions, load.flows, FLOW.source
                ),
            ),
        ];
        // One session's share of the rate is at most a gigabit here: it is what one client may want.
        let window = load.gbps.min(1.0) * 1e9 / 8.0 * load.rtt_ms / 1e3;
        Self {
            load,
            setups_per_s,
            traffic,
            setups_cores,
            shards,
            handshakes,
            files,
            memory,
            buffer: count(window).next_power_of_two().clamp(4 << 20, 64 << 20),
            tracked: count(flows * 1.25).next_power_of_two().max(262_144),
            backlog: count(setups_per_s)
                .next_power_of_two()
                .clamp(4_096, 65_536)
                .min(65_535),
        }
    }

    /// How many hosts of the gateway's 256 shards it takes.
    fn hosts(&self) -> u64 {
        self.shards.div_ceil(SHARDS_MAX)
    }

    fn memory_sum(&self) -> f64 {
        self.memory.iter().map(|(_, bytes, _)| bytes).sum()
    }

    /// For people: formulas, sizes, the fragment and the sysctls.
    pub(crate) fn text(&self) -> String {
        let Load {
            sessions,
            gbps,
            packet_size,
            rtt_ms,
            ..
        } = self.load;
        let mut out = String::new();
        let mut line = |text: String| {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "{text}");
        };
        let kind = packet_size.map_or_else(
            || "bulk TCP".to_owned(),
            |bytes| format!("packets of {bytes} bytes that cannot be merged"),
        );
        line(format!(
            "{sessions} sessions, {gbps} Gbit/s of {kind}, round trip {rtt_ms} ms"
        ));
        line(String::new());
        line("CPU, by what was measured on one kind of machine (virtual, AMD EPYC, no network card):".to_owned());
        line(format!(
            "  traffic   {:8.2} cores = {}",
            self.traffic.0, self.traffic.1
        ));
        let why = match self.load.setups_per_s {
            Some(_) => String::new(),
            None => format!(" (all of them within {RETURN_S:.0} s)"),
        };
        line(format!(
            "  set-ups   {:8.2} cores = {:.0}/s{why} / 3,538   [{}]",
            self.setups_cores, self.setups_per_s, SET_UPS.source
        ));
        line(format!(
            "  shards    {:8} cores = ({:.2} + {:.2}) / {}   [{}]",
            self.shards, self.traffic.0, self.setups_cores, BUSY.value, BUSY.source
        ));
        if self.hosts() > 1 {
            line(format!(
                "  A gateway has {SHARDS_MAX} shards at most: this is {} hosts. What follows is for all of them together.",
                self.hosts()
            ));
        }
        line(format!(
            "  One session is one shard's: {:.1} Gbit/s of bulk at most   [8 / 0.807; {}]",
            8_000.0 / BULK[0].1.value,
            BULK[0].1.source
        ));
        if sessions > 1_000 && packet_size.is_none() {
            line("  Nothing was measured beyond 1,000 clients that send at once.".to_owned());
        }
        line(String::new());
        line("Memory:".to_owned());
        for (name, bytes, why) in &self.memory {
            line(format!("  {name:9} {:8.1} MB = {why}", bytes / 1e6));
        }
        line(format!(
            "  together  {:8.1} MB; a host of {} GiB leaves half of it to everything else",
            self.memory_sum() / 1e6,
            count(self.memory_sum() * 2.0 / float(1 << 30))
                .next_power_of_two()
                .max(1)
        ));
        line(String::new());
        line("Host:".to_owned());
        line(format!(
            "  files     {:8}    = {sessions} sessions + {} handshakes + 64 + {} × (4 + {LISTENERS}): LimitNOFILE={}",
            self.files,
            self.handshakes,
            self.shards,
            self.files.next_power_of_two()
        ));
        line("  memlock   infinity    = rings and maps: LimitMEMLOCK=infinity".to_owned());
        line(format!(
            "  queues    {:8}    = one of the card's receive queues for each shard: ethtool -L eth0 combined {}",
            self.shards, self.shards
        ));
        line(format!(
            "  card      {:8.1} Gbit/s outside = {gbps} × 1.05 for TCP, TLS, SSTP and PPP; and as much again inside",
            gbps * 1.05
        ));
        line(format!(
            "  tcp_mem   {:8} pages or more as its third value = what is in flight / 4096",
            count(self.memory[3].1 / 4_096.0)
        ));
        line(String::new());
        line("--- sstp-gw.toml (alone: sstp-tune plan ... --config)".to_owned());
        out.push_str(&self.config());
        out.push_str("\n--- /etc/sysctl.d/60-sstp-gw.conf (alone: sstp-tune plan ... --sysctl)\n");
        out.push_str(&self.sysctl());
        out
    }

    /// The gateway's configuration; names of files and the pool are for the operator to change.
    pub(crate) fn config(&self) -> String {
        let sessions = u64::from(self.load.sessions);
        // The network's own address, its broadcast address and the gateway's are nobody's.
        let host_bits = sessions
            .saturating_add(3)
            .next_power_of_two()
            .trailing_zeros();
        let v4 = 32_u32.saturating_sub(host_bits.max(8)).max(12);
        let base = match v4 {
            16.. => "10.99.0.0",
            _ => "10.96.0.0",
        };
        let v6 = 64_u32.saturating_sub(host_bits.max(16));
        format!(
            "# {sessions} sessions, {} Gbit/s, {:.0} set-ups a second; by `sstp-tune plan`\n\
             [[listen]]\naddress = \"0.0.0.0:443\"\n\n\
             [[listen]]\naddress = \"[::]:443\"\n\n\
             [tls]\ncertificate = \"chain.pem\"\nkey = \"key.pem\"\n\n\
             [auth]\nusers = \"users.toml\"\n\n\
             [[pool]]\nv4 = \"{base}/{v4}\"\nv6 = \"fd00:90::/{v6}\"\n\n\
             [network]\n# dns = [\"10.0.0.53\"]\n\n\
             [limits]\nsessions = {sessions}\nhandshakes = {}\n\n\
             [shards]\ncount = {}\n",
            self.load.gbps,
            self.setups_per_s,
            self.handshakes,
            self.shards.min(SHARDS_MAX),
        )
    }

    /// Values for `sysctl.d`.
    pub(crate) fn sysctl(&self) -> String {
        let mut out = format!(
            "# {} sessions, {} Gbit/s; by `sstp-tune plan`\n",
            self.load.sessions, self.load.gbps
        );
        let mut line = |key: &str, value: String, why: &str| {
            let _ = writeln!(out, "{key} = {value}  # {why}");
        };
        line(
            "net.ipv4.ip_forward",
            "1".to_owned(),
            "clients reach what is behind",
        );
        line(
            "net.ipv6.conf.all.forwarding",
            "1".to_owned(),
            "the same for IPv6",
        );
        line(
            "net.ipv4.tcp_wmem",
            format!("4096 16384 {}", self.buffer),
            "one client's rate × the round trip",
        );
        // Half of a receive buffer is the kernel's own (tcp_adv_win_scale 1).
        line(
            "net.ipv4.tcp_rmem",
            format!(
                "4096 131072 {}",
                self.buffer.saturating_mul(2).min(64 << 20)
            ),
            "the same, and as much again for the kernel's bookkeeping",
        );
        line(
            "net.core.somaxconn",
            self.backlog.to_string(),
            "a second of set-ups",
        );
        line(
            "net.ipv4.tcp_max_syn_backlog",
            self.backlog.to_string(),
            "a second of set-ups",
        );
        line(
            "net.netfilter.nf_conntrack_max",
            self.tracked.to_string(),
            "sessions × flows × 1.25, where flows are tracked",
        );
        if self.files > 1 << 20 {
            let files = self.files.next_power_of_two().to_string();
            line("fs.nr_open", files.clone(), "LimitNOFILE= may be no more");
            line("fs.file-max", files, "of all processes together");
        }
        // sysctl(8) takes no comment behind a value: each goes above its line.
        out.lines()
            .map(|line| match line.split_once("  # ") {
                Some((setting, why)) => format!("# {why}\n{setting}\n"),
                None => format!("{line}\n"),
            })
            .collect()
    }
}

/// Cores for the traffic, and the formula.
fn traffic(load: &Load) -> (f64, String) {
    let gigabytes = load.gbps / 8.0;
    match load.packet_size {
        None => {
            let Figure { value, source } = bulk(load.sessions);
            (
                gigabytes * value / 1e3,
                format!("{} Gbit/s / 8 × {value} ms/GB   [{source}]", load.gbps),
            )
        }
        Some(bytes) => {
            let [(small, short), (large, long)] = PACKETS;
            let size = f64::from(bytes).clamp(small, large);
            let ns = short.value + (long.value - short.value) * (size - small) / (large - small);
            let packets = gigabytes * 1e9 / f64::from(bytes.max(1));
            (
                packets * ns / 1e9,
                format!(
                    "{:.0} packets/s × {ns:.0} ns   [between {} and {}]",
                    packets,
                    short.source,
                    long.source.rsplit('/').next().unwrap_or(long.source)
                ),
            )
        }
    }
}

/// The row with the next number of clients that is not below ours; the last for more than that.
fn bulk(sessions: u32) -> Figure {
    BULK.iter()
        .find(|(clients, _)| *clients >= sessions)
        .map_or(BULK[2].1, |(_, figure)| *figure)
}
