//! One table: what a gigabyte costs each server, relative to sstp-gw in the same rounds.

use std::fmt;

use serde::Serialize;

use super::super::report::{Figure, short};
use super::Direction;
use super::iperf::Transfer;
use super::tunnel::Tunnel;

/// All of them, sstp-gw first.
#[derive(Clone, Debug, Serialize)]
pub struct Table {
    /// Transfers of each direction, in turn with the others'.
    pub rounds: usize,
    /// One a server.
    pub lines: Vec<Line>,
}

/// A server.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// As in the names of the figures.
    pub name: &'static str,
    /// Protocol, cipher, transport, client.
    pub what: String,
    /// Client host to gateway.
    pub up: Way,
    /// Gateway to client host.
    pub down: Way,
}

/// What one way costs.
#[derive(Clone, Debug, Serialize)]
pub struct Way {
    /// CPU seconds a GB of the server; `None` where they cannot be read.
    pub server: Option<Figure>,
    /// By those of sstp-gw, round by round.
    pub server_ratio: Option<Figure>,
    /// The client's CPU seconds a GB by those of sstp-gw's client.
    pub client_ratio: Figure,
    /// Median rate.
    pub gbit_per_s: f64,
}

impl Way {
    fn new(own: &[Transfer], ours: &[Transfer]) -> Self {
        let ratios = |cost: fn(&Transfer) -> Option<f64>| -> Option<Vec<f64>> {
            let pairs = own.iter().zip(ours);
            pairs
                .map(|(own, ours)| Some(cost(own)? / cost(ours)?))
                .collect()
        };
        let seconds = own.iter().map(|own| Some(own.cpu_ms_per_gb()? / 1e3));
        let client = ratios(|transfer| Some(transfer.client_cpu_ms_per_gb()));
        Self {
            server: seconds.collect::<Option<Vec<f64>>>().map(Figure::of),
            server_ratio: ratios(Transfer::cpu_ms_per_gb).map(Figure::of),
            client_ratio: Figure::of(client.unwrap_or_default()),
            gbit_per_s: Figure::of(own.iter().map(Transfer::gbit_per_s).collect()).median,
        }
    }

    /// The cell of a server: its own cost where it is the measure, else its ratio.
    fn cell(&self, is_measure: bool) -> String {
        match (&self.server, &self.server_ratio) {
            (Some(own), _) if is_measure => {
                format!(
                    "1.00 = {:.3} CPU-s/GB ({:.3}..{:.3})",
                    own.median, own.least, own.most
                )
            }
            (_, Some(ratio)) => ratio.to_string(),
            _ => "not to be read".to_owned(),
        }
    }
}

impl Table {
    /// Of what was measured; `None` without sstp-gw or anybody beside it.
    pub(super) fn new(tunnels: &[Tunnel]) -> Option<Self> {
        let ours = tunnels.iter().find(|tunnel| tunnel.name == "sstp-gw")?;
        let measured = |tunnel: &&Tunnel| !tunnel.up.is_empty() && !tunnel.down.is_empty();
        let line = |tunnel: &Tunnel| {
            let way = |way| Way::new(tunnel.transfers(way), ours.transfers(way));
            Line {
                name: tunnel.name,
                what: tunnel.what.clone(),
                up: way(Direction::Up),
                down: way(Direction::Down),
            }
        };
        let lines: Vec<Line> = tunnels.iter().filter(measured).map(line).collect();
        (lines.len() > 1).then_some(Self {
            rounds: ours.up.len(),
            lines,
        })
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "CPU-s/GB of the server, relative to sstp-gw: medians (least..most) of the ratios of {} rounds, all in turn, over \
             the same three hosts;\nthen the client's CPU beside loadgen's with sstp-gw, and the rate; up / down",
            self.rounds
        )?;
        writeln!(
            f,
            "{:13} {:40} {:40} {:>12} {:>13}  what it is",
            "", "server, up", "server, down", "client", "Gbit/s"
        )?;
        for line in &self.lines {
            let is_measure = line.name == "sstp-gw";
            let both = |up: f64, down: f64| format!("{} / {}", short(up), short(down));
            writeln!(
                f,
                "{:13} {:40} {:40} {:>12} {:>13}  {}",
                line.name,
                line.up.cell(is_measure),
                line.down.cell(is_measure),
                both(line.up.client_ratio.median, line.down.client_ratio.median),
                both(line.up.gbit_per_s, line.down.gbit_per_s),
                line.what,
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(median: f64) -> Figure {
        Figure::of(vec![median * 0.9, median, median * 1.1])
    }

    fn line(name: &'static str, ratio: Option<f64>) -> Line {
        let way = Way {
            server: ratio.map(|ratio| figure(ratio * 0.7)),
            server_ratio: ratio.map(figure),
            client_ratio: figure(1.0),
            gbit_per_s: 5.0,
        };
        Line {
            name,
            what: format!("what {name} is"),
            up: way.clone(),
            down: way,
        }
    }

    #[test]
    fn all_are_told_by_sstp_gw_and_only_that_by_itself() {
        let table = Table {
            rounds: 5,
            lines: vec![
                line("sstp-gw", Some(1.0)),
                line("openvpn", Some(12.0)),
                line("sstp-server", None),
            ],
        };
        let text = table.to_string();
        let row = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap();
        assert!(
            row("sstp-gw").contains("1.00 = 0.700 CPU-s/GB (0.630..0.770)"),
            "{text}"
        );
        assert!(row("openvpn").contains("12.0 (10.8..13.2)"), "{text}");
        assert!(row("openvpn").ends_with("what openvpn is"), "{text}");
        assert!(!row("openvpn").contains("CPU-s"), "{text}");
        assert!(row("sstp-server").contains("not to be read"), "{text}");
        assert!(text.contains("5 rounds"), "{text}");
    }

    #[test]
    fn json_has_what_cannot_be_read_as_nothing() {
        let json = serde_json::to_value(line("sstp-server", None)).unwrap();
        assert_eq!(json["up"]["server_ratio"], serde_json::Value::Null);
        assert_eq!(json["up"]["gbit_per_s"], 5.0);
    }
}
