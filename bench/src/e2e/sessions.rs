//! What a session costs: to set up, and to have.

use std::fs;
use std::io;
use std::sync::Arc;

use datapath::sys::clock;
use datapath::time::Duration;
use datapath::tls::{ClientProfile, Handshake, Progress, ServerGeneration, TlsOptions};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use super::client::Client;
use super::gateway::{self, Gateway, Plan};
use super::load::Field;
use super::process::Workspace;
use super::report::{Bar, Report, Row, Sense};
use super::{Options, client, connect};

/// The names of the figures.
pub(super) const NAMES: [&str; 3] = ["set-ups", "idle/memory", "idle/cpu"];

/// Set-ups per second of the gateway's CPU, beside handshakes of TLS alone.
pub(super) fn set_ups(
    options: &Options,
    gateway: &mut Gateway,
    report: &mut Report,
) -> io::Result<()> {
    if !options.wants(NAMES[0]) {
        return Ok(());
    }
    let count = if options.is_quick { 100 } else { 300 };
    let settings = client::settings()?;
    let (mut values, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..options.reps {
        bare.push(bare_handshakes(count)?);
        let before = gateway.meter.read()?;
        let clients = connect(&settings, super::OUTSIDE.into(), count)?;
        values.push(per_core_second(gateway, before, clients)?);
    }
    let bar = Bar {
        sense: Sense::AtLeast,
        bar: 0.6,
        stretch: 0.7,
    };
    let row = Row::beside(
        NAMES[0],
        "/core-s",
        &values,
        ("TLS handshakes", &bare),
        Some(bar),
    );
    let note = "whole sessions of TCP, TLS 1.3, HTTP, SSTP, MS-CHAPv2, IPCP, then cut, log lines included; beside: the server's \
                half of a TLS handshake alone, same key exchange and certificate";
    report.rows.push(row.with_note(note.to_owned()));
    Ok(())
}

/// Set-ups per second of the gateway's CPU, which was at `before` when these came; cuts them.
pub(super) fn per_core_second(
    gateway: &mut Gateway,
    before: Duration,
    clients: Vec<Client>,
) -> io::Result<f64> {
    let count = clients.len();
    drop(clients);
    // Their ends are part of the cost, and take a moment.
    std::thread::sleep(Duration::from_millis(300));
    let cpu = gateway.meter.read()?.saturating_sub(before);
    gateway.skim();
    Ok(count as f64 / cpu.as_secs_f64())
}

/// Handshakes a second of the server's CPU, without sockets.
fn bare_handshakes(count: usize) -> io::Result<f64> {
    let (certificate, key) = gateway::certificate("bench.example")?;
    let certificate =
        CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(io::Error::other)?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(io::Error::other)?;
    let options = TlsOptions::default();
    let server = ServerGeneration::new(vec![certificate], key, &options);
    let server = Arc::new(server.map_err(io::Error::other)?);
    let client = ClientProfile::danger_accept_any(&options).map_err(io::Error::other)?;
    let client = Arc::new(client);
    let name = ServerName::try_from("bench.example").map_err(io::Error::other)?;
    let mut cpu = Duration::ZERO;
    for _ in 0..count {
        cpu += handshake(&server, &client, name.clone()).map_err(io::Error::other)?;
    }
    Ok(count as f64 / cpu.as_secs_f64())
}

/// The server's CPU time of one.
fn handshake(
    server: &Arc<ServerGeneration>,
    client: &Arc<ClientProfile>,
    name: ServerName<'static>,
) -> Result<Duration, datapath::tls::Error> {
    let mut client = Handshake::client(client, name)?;
    let (mut up, mut down) = (Vec::new(), Vec::new());
    client.handle_bytes(&[], &mut up)?;
    let begun = clock::thread_cpu_time();
    let mut server = Handshake::server(server)?;
    let mut cpu = clock::thread_cpu_time() - begun;
    for _ in 0..4 {
        let begun = clock::thread_cpu_time();
        let progress = server.handle_bytes(&up, &mut down)?;
        cpu += clock::thread_cpu_time() - begun;
        up.clear();
        if progress == Progress::Done {
            break;
        }
        client.handle_bytes(&down, &mut up)?;
        down.clear();
    }
    let begun = clock::thread_cpu_time();
    server.finish()?;
    Ok(cpu + (clock::thread_cpu_time() - begun))
}

/// What sessions cost that nobody uses.
pub(super) fn idle(
    options: &Options,
    workspace: &Workspace,
    report: &mut Report,
) -> io::Result<()> {
    if !options.wants_any(&NAMES[1..]) {
        return Ok(());
    }
    let (count, seconds) = if options.is_quick {
        (1_000, 4)
    } else {
        // Both echoes come once a minute; long enough for a sixth of the sessions.
        (9_500, 10)
    };
    let plan = Plan {
        name: "idle",
        listen: "127.0.0.1:444",
        pool: "10.79.0.0/16",
        tun: "sstp1",
        shards: 1,
        sessions: 10_000,
        network: None,
    };
    let mut gateway = Gateway::start(workspace, &plan)?;
    let before = memory(gateway.id())?;
    let settings = client::settings()?;
    let clients = connect(&settings, ([127, 0, 0, 1], 444).into(), count)?;
    gateway.skim();
    let mut field = Field::new(clients, gateway.meter.clone());
    // What the handshakes left is given back in a while.
    wait(&mut field, Duration::from_secs(2))?;
    let after = memory(gateway.id())?;
    let each = after.saturating_sub(before) as f64 / count as f64 / 1e3;
    let cpu = field.meter.read()?;
    let begun = clock::now();
    wait(&mut field, Duration::from_secs(seconds))?;
    let wall = clock::now().saturating_since(begun);
    let cpu = field.meter.read()?.saturating_sub(cpu);
    let share = cpu.as_secs_f64() / wall.as_secs_f64() * 100.0;
    let bar = |bar, stretch| {
        Some(Bar {
            sense: Sense::AtMost,
            bar,
            stretch,
        })
    };
    let row = Row::alone(NAMES[1], "KB", &[each], bar(10.0, 6.0));
    let note = format!(
        "user memory (anonymous, resident) a session at {count}; {:.1} MB before the first",
        before as f64 / 1e6
    );
    report.rows.push(row.with_note(note));
    let row = Row::alone(NAMES[2], "% of core", &[share], bar(5.0, 5.0));
    let note = format!("{count} sessions, both echoes at their defaults, over {seconds} s");
    report.rows.push(row.with_note(note));
    drop(field);
    Ok(())
}

/// Lets every client answer echoes now and then.
pub(super) fn wait(field: &mut Field, time: Duration) -> io::Result<()> {
    let begun = clock::now();
    while clock::now().saturating_since(begun) < time {
        field.step()?;
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// Bytes of anonymous memory that are resident.
pub(super) fn memory(pid: u32) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    of_status(&status).ok_or_else(|| io::Error::other("/proc/PID/status has no RssAnon"))
}

fn of_status(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_found_in_what_the_kernel_prints() {
        let text = "VmRSS:\t   20 kB\nRssAnon:\t     12 kB\nRssFile:\t 8 kB\n";
        assert_eq!(of_status(text), Some(12 * 1024));
        assert_eq!(of_status("VmRSS: 1 kB\n"), None);
        assert!(memory(std::process::id()).unwrap() > 0);
    }

    #[test]
    fn a_handshake_takes_the_server_some_time() {
        assert!(bare_handshakes(2).unwrap() > 0.0);
    }
}
