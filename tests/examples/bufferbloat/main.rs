//! How long a ping inside the tunnel waits beside bulk TCP, over paths of 40 ms: see `--help`.

mod path;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::Duration;

use e2e::gateway::{Gateway, PASSWORD};
use e2e::{Namespace, Running, driver};
use path::{Path, Queue};

const HELP: &str = "\
Bulk TCP goes down through a tunnel over a path of 40 ms and so many Mbit/s, a ping beside it. Prints what
the bulk adds to the ping and how much of the path it uses. Needs root, ip, ping, iperf3, ss, and
sstp-gw and loadgen of the same profile. Measures time: on a quiet host only, and in no test run.

  bufferbloat [--mbit 10,100] [--congestion cubic,bbr] [--seconds 15] [--rounds 1] [--samples DIR]
              [--queue codel|deep] [--jitter MS] [--rival yes]

Without --congestion the system's default is used. --samples keeps what ss says of all connections each
quarter of a second. --queue deep: the path drops nothing until 1 MB stands in it. --jitter: up to so much
more delay each way, in order. --rival: a TCP connection outside the tunnel wants the path, too; its share
is printed, and the bars are of the path without. Exit status: 0 all is within the bars (p50 15 ms, p99 40 ms, 90 % of the path), 1 not.";

/// A way each.
const DELAY: Duration = Duration::from_millis(20);
/// What bulk TCP gets to find the rate before it is measured.
const WARM: u64 = 5;
const GATEWAY: &str = "10.9.1.1";
const CLIENT: &str = "10.9.3.2";
const FIRST_PORT: usize = 4430;

struct Options {
    mbit: Vec<u64>,
    congestion: Vec<String>,
    seconds: u64,
    rounds: u64,
    samples: Option<String>,
    network: String,
    queue: Queue,
    jitter: Duration,
    has_rival: bool,
}

fn options() -> Result<Options, String> {
    let mut words: BTreeMap<String, String> = BTreeMap::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(flag) = arguments.next() {
        let value = arguments.next().ok_or_else(|| HELP.to_owned())?;
        words.insert(flag, value);
    }
    let mut take =
        |flag: &str, default: &str| words.remove(flag).unwrap_or_else(|| default.to_owned());
    let list = |text: String| text.split(',').map(ToOwned::to_owned).collect::<Vec<_>>();
    let number = |text: &str| {
        text.parse::<u64>()
            .map_err(|_| format!("{text:?} is no number\n{HELP}"))
    };
    let options = Options {
        mbit: list(take("--mbit", "10,100"))
            .iter()
            .map(|text| number(text))
            .collect::<Result<_, _>>()?,
        congestion: list(take("--congestion", "")),
        seconds: number(&take("--seconds", "15"))?,
        rounds: number(&take("--rounds", "1"))?,
        queue: match take("--queue", "codel").as_str() {
            "codel" => Queue::CoDel,
            "deep" => Queue::Deep,
            other => return Err(format!("--queue {other} is unknown\n{HELP}")),
        },
        jitter: Duration::from_millis(number(&take("--jitter", "0"))?),
        samples: words.remove("--samples"),
        has_rival: words.remove("--rival").is_some(),
        network: words.remove("--network").unwrap_or_default(),
    };
    match words.keys().next() {
        Some(flag) => Err(format!("{flag} is unknown\n{HELP}")),
        None => Ok(options),
    }
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(help) => {
            eprintln!("{help}");
            return ExitCode::from(2);
        }
    };
    let Some(field) = Field::new(&options) else {
        return ExitCode::from(1);
    };
    let mut good = true;
    for round in 0..options.rounds {
        for (number, congestion) in options.congestion.iter().enumerate() {
            for &mbit in &options.mbit {
                good &= field.measure(&options, FIRST_PORT + number, congestion, mbit, round);
            }
        }
    }
    let (_, stopped) = field.gateway.stop();
    println!("{stopped}");
    ExitCode::from(u8::from(!good))
}

/// lan ── gateway ── path ── client.
struct Field {
    gateway: Gateway,
    lan: Namespace,
    client: Namespace,
    path: Path,
}

impl Field {
    fn new(options: &Options) -> Option<Self> {
        let gateway = Gateway::start_as("bufferbloat", &config(options), &[], |_| {})?;
        let (lan, client) = (Namespace::new().ok()?, Namespace::new().ok()?);
        // The client's own: BBR would pause for 200 ms every ten seconds, replies to pings included.
        client.shell("echo reno >/proc/sys/net/ipv4/tcp_congestion_control");
        let path = Path::new(
            (gateway.namespace.id(), client.id()),
            DELAY,
            options.jitter,
            options.queue,
        );
        gateway.namespace.shell(&format!(
            "ip addr add {GATEWAY}/32 dev path0 && ip route add {CLIENT} dev path0 &&
             ip link add lan0 type veth peer name lan0 netns {} &&
             ip addr add 198.18.0.1/24 dev lan0 && ip link set lan0 up &&
             echo 1 >/proc/sys/net/ipv4/ip_forward",
            lan.id()
        ));
        client.shell(&format!(
            "ip addr add {CLIENT}/32 dev path0 && ip route add {GATEWAY} dev path0"
        ));
        lan.shell(
            "ip addr add 198.18.0.2/24 dev lan0 && ip link set lan0 up && ip route add default via 198.18.0.1",
        );
        Some(Self {
            gateway,
            lan,
            client,
            path,
        })
    }

    /// One session, idle and then with bulk; whether it keeps within the bars.
    fn measure(
        &self,
        options: &Options,
        port: usize,
        congestion: &str,
        mbit: u64,
        round: u64,
    ) -> bool {
        self.path.set_rate(mbit);
        let server = format!("{GATEWAY}:{port}");
        let hold = (options.seconds + 60).to_string();
        let flags = [
            "--tun",
            "c0",
            "--route",
            "198.18.0.0/24",
            "--ping",
            "0",
            "--hold",
            &hold,
        ];
        let client = self
            .gateway
            .connect_from(&self.client, &server, PASSWORD, &flags);
        let mut client = { client }
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let inside = self.client.shell(
            "timeout 30 sh -c 'until ip -4 -o addr show dev c0 2>/dev/null | grep -q inet; do sleep 0.1; done'
             ip -4 -o addr show dev c0 | sed -n 's/.* inet \\([0-9.]*\\).*/\\1/p'",
        );
        let inside = inside.trim();
        let idle = pings(&self.lan, inside, 3).wait();
        let beside_idle = pings(&self.gateway.namespace, CLIENT, 2).wait();
        let listening =
            Running::start(
                self.client
                    .command("iperf3")
                    .args(["-s", "-1", "--forceflush"]),
            );
        let mut listening = listening;
        listening.line("listening");
        let time = (options.seconds + WARM + 2).to_string();
        let rival = options.has_rival.then(|| self.rival(&time));
        let mut bulk = self.lan.command("iperf3");
        let bulk = Running::start(bulk.args([
            "-c", inside, "-t", &time, "-i", "1", "-f", "k", "-C", "cubic",
        ]));
        let name = format!(
            "{}-{mbit}-{round}",
            if congestion.is_empty() {
                "default"
            } else {
                congestion
            }
        );
        let sampler = options
            .samples
            .as_ref()
            .map(|dir| self.sample(&format!("{dir}/{name}")));
        let kept = options
            .samples
            .as_ref()
            .map(|dir| format!("{dir}/{name}.ping"));
        thread::sleep(Duration::from_secs(WARM));
        let before = self.path.passed();
        let beside = pings(&self.gateway.namespace, CLIENT, options.seconds);
        let busy = pings(&self.lan, inside, options.seconds).wait_kept(kept.as_deref());
        let passed = self.path.passed();
        let beside = beside.wait();
        let (_, said) = bulk.end();
        let rival = rival.map(|(listening, rival)| {
            let (_, said) = rival.end();
            drop(listening);
            format!("; rival: {}", sender(&said))
        });
        drop((sampler, listening));
        let _ = Command::new("kill").arg(client.id().to_string()).status();
        let _ = client.wait();
        let used = (passed.bytes - before.bytes) as f64 / (options.seconds * mbit * 1_250) as f64;
        let (base, p50, p99) = (idle.at(50), busy.at(50), busy.at(99));
        let good = used >= 90.0 && p50 - base <= 15.0 && p99 - base <= 40.0;
        let mut line = format!(
            "{} {name} Mbit/s: bulk adds",
            if good { "PASS" } else { "FAIL" }
        );
        let _ = write!(
            line,
            " p50 {:.1} p99 {:.1} max {:.1} ms ({} of {} pings, idle {base:.1}, its p99 +{:.1}); beside it {:.1} {:.1}; \
             link use {used:.0} %; path dropped {}; emulation late by {:.1} ms at most",
            p50 - base,
            p99 - base,
            busy.at(100) - base,
            busy.0.len(),
            options.seconds * 20,
            idle.at(99) - base,
            beside.at(50) - beside_idle.at(50),
            beside.at(99) - beside_idle.at(50),
            passed.drops - before.drops,
            passed.late.as_secs_f64() * 1e3,
        );
        println!(
            "{line}; inner: {}{}",
            sender(&said),
            rival.unwrap_or_default()
        );
        good
    }

    /// A connection beside the tunnel, and who listens for it.
    fn rival(&self, seconds: &str) -> (Running, Running) {
        let mut listening = self.client.command("iperf3");
        let mut listening =
            Running::start(listening.args(["-s", "-1", "-p", "5202", "--forceflush"]));
        listening.line("listening");
        let mut rival = self.gateway.namespace.command("iperf3");
        let rival = rival.args([
            "-c", CLIENT, "-p", "5202", "-t", seconds, "-f", "k", "-C", "cubic",
        ]);
        (listening, Running::start(rival))
    }

    fn sample(&self, file: &str) -> Running {
        let loops = |id: u32, filter: &str| {
            format!("nsenter --net=/proc/{id}/ns/net ss -Htinm state established '{filter}'")
        };
        let outer = loops(
            self.gateway.namespace.id(),
            "sport >= 4430 and sport <= 4450",
        );
        let inner = loops(self.lan.id(), "dport = 5201");
        let script = format!(
            "while sleep 0.25; do echo T $(cut -d' ' -f1 /proc/uptime); {outer}; echo INNER; {inner}; done >{file}"
        );
        Running::start(Command::new("sh").args(["-c", &script]))
    }
}

fn config(options: &Options) -> String {
    let mut config = String::new();
    for (number, congestion) in options.congestion.iter().enumerate() {
        let _ = writeln!(
            config,
            "[[listen]]\naddress = \"0.0.0.0:{}\"",
            FIRST_PORT + number
        );
        if !congestion.is_empty() {
            let _ = writeln!(config, "congestion = \"{congestion}\"");
        }
    }
    let template = e2e::gateway::config(&driver());
    let rest = template.split_once("[tls]").map_or("", |(_, rest)| rest);
    let rest = rest.replace("count = 2", "count = 1").replace(
        "tun = \"e2e0\"",
        &format!("tun = \"e2e0\"\n{}", options.network),
    );
    config + "[tls]" + &rest
}

/// What iperf3 says of all that it sent.
fn sender(said: &str) -> &str {
    let line = said.lines().find(|line| line.contains("sender"));
    line.unwrap_or_default().trim()
}

struct Pings(Running);

/// Round trips in ms, sorted.
struct Times(Vec<f64>);

fn pings(from: &Namespace, to: &str, seconds: u64) -> Pings {
    let seconds = seconds.to_string();
    let mut ping = from.command("ping");
    Pings(Running::start(
        ping.args(["-n", "-i", "0.05", "-w", &seconds, to]),
    ))
}

impl Pings {
    fn wait(self) -> Times {
        self.wait_kept(None)
    }

    /// Keeps what ping says in a file.
    fn wait_kept(self, file: Option<&str>) -> Times {
        let (_, said) = self.0.end();
        if let Some(file) = file {
            let _ = std::fs::write(file, &said);
        }
        let times = said.lines().filter_map(|line| {
            let (_, time) = line.split_once("time=")?;
            time.strip_suffix(" ms")?.parse::<f64>().ok()
        });
        let mut times: Vec<_> = times.collect();
        times.sort_by(f64::total_cmp);
        Times(times)
    }
}

impl Times {
    fn at(&self, per_cent: usize) -> f64 {
        let index = (self.0.len() * per_cent).div_ceil(100).max(1) - 1;
        self.0.get(index).copied().unwrap_or(f64::NAN)
    }
}
