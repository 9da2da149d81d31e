//! iperf3: its server in the inside host, its client in the client host, and what they report.

use std::io;
use std::path::Path;

use datapath::time::Duration;
use serde_json::Value;

use super::super::process::{Process, Workspace};
use super::super::topology::Topology;
use super::Direction;
use super::tunnel::Tunnel;

/// Its own, if nobody says another.
pub(super) const PORT: u16 = 5201;

/// IPv4 and TCP with timestamps.
const HEADERS_LEN: f64 = 52.0;

/// One run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Transfer {
    /// Of the server, if it can be read.
    pub(super) cpu: Option<Duration>,
    pub(super) client_cpu: Duration,
    pub(super) report: Received,
}

/// What iperf3 says of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Received {
    /// Of TCP payload.
    payload_bytes: f64,
    seconds: f64,
    mss: f64,
}

impl Received {
    /// As `iperf3 --json` reports it.
    fn parse(json: &str) -> Result<Self, String> {
        let report: Value = serde_json::from_str(json).map_err(|error| error.to_string())?;
        if let Some(error) = report.get("error").and_then(Value::as_str) {
            return Err(error.to_owned());
        }
        let number = |path: &str| {
            let value = report.pointer(path).and_then(Value::as_f64);
            value.ok_or_else(|| format!("iperf3's report has no {path}"))
        };
        Ok(Self {
            payload_bytes: number("/end/sum_received/bytes")?,
            seconds: number("/end/sum_received/seconds")?,
            mss: number("/start/tcp_mss_default")?,
        })
    }

    /// Of IP packets, headers included, as the floor counts; acknowledgements are not.
    fn bytes(&self) -> f64 {
        self.payload_bytes * (self.mss + HEADERS_LEN) / self.mss
    }
}

impl Transfer {
    /// Of the server, if it can be read.
    pub(super) fn cpu_ms_per_gb(&self) -> Option<f64> {
        self.cpu.map(|cpu| self.ms_per_gb(cpu))
    }

    pub(super) fn client_cpu_ms_per_gb(&self) -> f64 {
        self.ms_per_gb(self.client_cpu)
    }

    fn ms_per_gb(&self, cpu: Duration) -> f64 {
        cpu.as_secs_f64() * 1e12 / self.report.bytes()
    }

    pub(super) fn gbit_per_s(&self) -> f64 {
        self.report.bytes() * 8.0 / self.report.seconds / 1e9
    }
}

/// Starts the server on the last processor.
pub(super) fn serve(workspace: &Workspace, topology: &Topology) -> io::Result<Process> {
    let port = PORT.to_string();
    let arguments = ["-s", "-p", &port, "--forceflush"];
    let host = Some(topology.inside.id());
    let cpu = workspace.cpus.last().copied();
    let mut server =
        workspace.start("iperf3-server", host, cpu, Path::new("iperf3"), &arguments)?;
    server.line("listening")?;
    Ok(server)
}

/// Sends for so many seconds.
pub(super) fn transfer(
    workspace: &Workspace,
    topology: &Topology,
    tunnel: &Tunnel,
    direction: Direction,
    seconds: u32,
) -> io::Result<Transfer> {
    let (to, port) = (
        tunnel.inside.ip().to_string(),
        tunnel.inside.port().to_string(),
    );
    let seconds = seconds.to_string();
    let mut arguments = vec!["-c", &to, "-p", &port, "-t", &seconds, "--json"];
    if direction == Direction::Down {
        arguments.push("-R");
    }
    let host = tunnel.is_on_topology.then(|| topology.client.id());
    let cpu = workspace.cpus.last().copied();
    let (server_before, client_before) = tunnel.cpus.read()?;
    let mut iperf = workspace.start("iperf3", host, cpu, Path::new("iperf3"), &arguments)?;
    let said = iperf.end_all()?;
    let (server, client) = tunnel.cpus.read()?;
    let spent = |before: Duration| server.map(|after| after.saturating_sub(before));
    let report = Received::parse(&said)
        .map_err(|why| io::Error::other(format!("{}: {why}", tunnel.name)))?;
    Ok(Transfer {
        cpu: server_before.and_then(spent),
        client_cpu: client.saturating_sub(client_before),
        report,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_understood_and_told_in_ip_packets() {
        let json = r#"{"start": {"tcp_mss_default": 1348},
            "end": {"sum_sent": {"bytes": 9}, "sum_received": {"bytes": 1348000000, "seconds": 2.0}}}"#;
        let report = Received::parse(json).unwrap();
        let transfer = Transfer {
            cpu: Some(Duration::from_millis(700)),
            client_cpu: Duration::from_millis(1400),
            report,
        };
        // A million packets of 1,400 bytes.
        assert!((transfer.report.bytes() - 1.4e9).abs() < 1.0);
        assert!((transfer.cpu_ms_per_gb().unwrap() - 500.0).abs() < 1e-6);
        assert!((transfer.client_cpu_ms_per_gb() - 1000.0).abs() < 1e-6);
        let unknown = Transfer {
            cpu: None,
            ..transfer
        };
        assert_eq!(unknown.cpu_ms_per_gb(), None);
        assert!((transfer.gbit_per_s() - 5.6).abs() < 1e-6);
    }

    #[test]
    fn a_failed_run_says_why() {
        let why = Received::parse(r#"{"start": {}, "error": "unable to connect"}"#).unwrap_err();
        assert_eq!(why, "unable to connect");
        assert!(
            Received::parse("{}")
                .unwrap_err()
                .contains("/end/sum_received")
        );
        assert!(Received::parse("iperf3: no").is_err());
    }
}
