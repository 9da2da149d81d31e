//! Whether the kernel seals and opens TLS records: what is configured, what it can, what it is worth.
//!
//! `require` wants it and refuses to start without. `auto` takes it, each direction for itself, where
//! a measurement at start says that it costs less CPU time on this host than our own record layer:
//! about 20 MB through a loopback connection, both ways of doing it in turn on one thread, tens of
//! milliseconds in all, the medians compared. The measurement counts the time of the thread alone, so
//! that other load disturbs it little; and it must win by a margin, so that noise keeps what is known.
//!
//! It knows no sessions: the plan it makes is carried out by `datapath`.

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::net::TcpStream;
use std::os::fd::AsFd as _;
use std::time::Duration;

use datapath::io::kernel_tls::{Direction, KEY_LEN_MAX, TlsCipher, TlsKeys, TlsVersion};
use datapath::sys::clock::thread_cpu_time;
use datapath::sys::ktls;
use datapath::tls::{Connection, KernelPlan, KernelUse, Opened, Suite, Version};

use crate::config::{KernelTls, RecordLayer, Tls};

/// The kernel's cost must be below this share of ours, in percent: what changes little is not worth
/// a second way of doing things.
const WINS_BELOW: u64 = 95;
/// Measurements of each way, of which the median counts; one more before them warms up.
const ROUNDS: usize = 5;
/// Sends in one measurement.
const SENDS: usize = 32;
/// Plaintext of one send, as bulk makes it: four records of packets, and one packet alone.
const SEND_LEN: usize = 64 * 1024;
const LAST_LEN: usize = 1_408;
const RECORD_LEN: usize = 16_384;
/// Longest wait for bytes within this host.
const STUCK: Duration = Duration::from_secs(2);

/// What was decided, with the line that says it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) plan: KernelPlan,
    /// `None`: it is off, and there is nothing to say.
    pub(crate) line: Option<String>,
}

/// Why the gateway does not start.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`tls.kernel` requires kernel TLS: {0}; or set `tls.kernel = \"auto\"`")]
pub(crate) struct Missing(String);

/// What the kernel and this host say; a seam for tests.
pub(crate) trait Host {
    fn probe(&self) -> io::Result<ktls::Capabilities>;
    fn measure(&self) -> io::Result<[Figures; 2]>;
}

/// This host.
#[derive(Debug)]
pub(crate) struct ThisHost;

impl Host for ThisHost {
    fn probe(&self) -> io::Result<ktls::Capabilities> {
        ktls::probe()
    }

    fn measure(&self) -> io::Result<[Figures; 2]> {
        Ok([measure_tx()?, measure_rx()?])
    }
}

/// CPU time of one direction, milliseconds per GB of plaintext.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Figures {
    pub(crate) own: u64,
    pub(crate) kernel: u64,
}

impl Figures {
    fn kernel_wins(self) -> bool {
        self.kernel.saturating_mul(100) < self.own.saturating_mul(WINS_BELOW)
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms/GB against {} of our own", self.kernel, self.own)
    }
}

/// Decides for this configuration on this host.
///
/// # Errors
/// Something is required that is not there.
pub(crate) fn decide(tls: &Tls, host: &impl Host) -> Result<Decision, Missing> {
    let wanted = [
        (Direction::Tx, tls.kernel_tx, "sending"),
        (Direction::Rx, tls.kernel_rx, "receiving"),
    ];
    let mut plan = KernelPlan::default();
    if wanted.iter().all(|(_, wish, _)| *wish == KernelTls::Off) {
        return Ok(Decision { plan, line: None });
    }
    let required = wanted
        .iter()
        .any(|(_, wish, _)| *wish == KernelTls::Require);
    let without = |why: String| {
        if required {
            return Err(Missing(why));
        }
        Ok(Decision {
            plan: KernelPlan::default(),
            line: Some(format!("kernel TLS is not used: {why}")),
        })
    };
    if tls.record_layer == RecordLayer::Rustls {
        return without("`tls.record_layer = \"rustls\"` keeps the keys to itself".to_owned());
    }
    let capabilities = match host.probe() {
        Ok(capabilities) => capabilities,
        Err(error) => return without(why_not(&error)),
    };
    plan.rekeys = capabilities.rekeys;
    let measures = wanted.iter().any(|(_, wish, _)| *wish == KernelTls::Auto);
    let figures = match measures.then(|| host.measure()).transpose() {
        Ok(figures) => figures,
        Err(error) => return without(format!("it could not be measured ({error})")),
    };
    let mut said = Vec::new();
    for (index, (direction, wish, name)) in wanted.into_iter().enumerate() {
        let figures = figures.map(|figures| figures[index]);
        let (decided, text) = match wish {
            KernelTls::Off => (KernelUse::Never, format!("{name} off")),
            KernelTls::Require if !capabilities.takes_all(direction) => {
                return Err(Missing(format!(
                    "for {name} this host's kernel takes {capabilities}"
                )));
            }
            KernelTls::Require => (KernelUse::Require, format!("{name} used, as required")),
            KernelTls::Auto => match figures {
                Some(figures) if figures.kernel_wins() && capabilities.takes_any(direction) => {
                    (KernelUse::Prefer, format!("{name} used, {figures}"))
                }
                Some(figures) => (KernelUse::Never, format!("{name} not used, {figures}")),
                None => (KernelUse::Never, format!("{name} not measured")),
            },
        };
        match direction {
            Direction::Tx => plan.tx = decided,
            Direction::Rx => plan.rx = decided,
        }
        said.push(text);
    }
    Ok(Decision {
        plan,
        line: Some(format!(
            "kernel TLS takes {capabilities}: {}",
            said.join("; ")
        )),
    })
}

/// What an operator can do about a probe that failed.
fn why_not(error: &io::Error) -> String {
    match error.raw_os_error() {
        // ENOENT
        Some(2) => "this host's kernel has no TLS (CONFIG_TLS); where it is a module: modprobe tls"
            .to_owned(),
        _ => format!("it could not be tried on a loopback connection ({error}); is `lo` up?"),
    }
}

fn known_keys() -> TlsKeys {
    TlsKeys {
        version: TlsVersion::Tls13,
        cipher: TlsCipher::Aes128Gcm,
        key: [0x6b; KEY_LEN_MAX],
        iv: [0x21; 12],
        seq: 0,
    }
}

/// Our own record layer under the same keys.
fn own_layer() -> io::Result<Connection> {
    let keys = known_keys();
    Connection::with_known_keys(Version::Tls13, Suite::Aes128Gcm, &keys.key[..16], &keys.iv)
        .map_err(io::Error::other)
}

/// Two ends of a loopback connection with room for a whole send.
fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let (one, other) = ktls::pair()?;
    for end in [&one, &other] {
        end.set_send_buffer_size(1 << 20)?;
        end.set_recv_buffer_size(1 << 20)?;
        end.set_tcp_nodelay(true)?;
        end.set_read_timeout(Some(STUCK))?;
        end.set_write_timeout(Some(STUCK))?;
    }
    Ok((one.into(), other.into()))
}

/// Seals one send's records into `out`, packet-sized last one alone; returns their bytes.
fn seal_send(tls: &mut Connection, out: &mut [u8]) -> io::Result<usize> {
    let (mut at, mut left) = (0, SEND_LEN);
    while left > 0 {
        let len = if left > LAST_LEN {
            RECORD_LEN.min(left - LAST_LEN)
        } else {
            left
        };
        let record = out.get_mut(at..).unwrap_or_default();
        at += tls.seal(record, len).map_err(io::Error::other)?;
        left -= len;
    }
    Ok(at)
}

/// Takes `len` bytes out of a connection without copying them.
fn discard(stream: &TcpStream, mut len: usize) -> io::Result<()> {
    const MSG_TRUNC: i32 = 0x20; // tcp(7): discards instead of copying
    let socket = socket2::SockRef::from(stream);
    let mut room = [MaybeUninit::uninit(); SEND_LEN];
    while len > 0 {
        let part = len.min(room.len());
        let got = socket.recv_with_flags(&mut room[..part], MSG_TRUNC)?;
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        len -= got.min(len);
    }
    Ok(())
}

/// The median time of each way, as milliseconds per GB.
fn compare(
    mut own: impl FnMut() -> io::Result<Duration>,
    mut kernel: impl FnMut() -> io::Result<Duration>,
) -> io::Result<Figures> {
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..=ROUNDS {
        let pair = [own()?, kernel()?];
        if round > 0 {
            times[0].push(pair[0]);
            times[1].push(pair[1]);
        }
    }
    let [own, kernel] = times.map(|mut times| {
        times.sort_unstable();
        let nanos = times.get(times.len() / 2).map_or(0, Duration::as_nanos);
        let bytes = (SENDS * SEND_LEN) as u128;
        // ns / bytes = s / GB.
        u64::try_from(nanos * 1_000 / bytes).unwrap_or(u64::MAX)
    });
    Ok(Figures { own, kernel })
}

fn measure_tx() -> io::Result<Figures> {
    let mut tls = own_layer()?;
    let (mut own_out, own_in) = pair()?;
    let mut sealed = vec![0; SEND_LEN + 1024];
    let (mut kernel_out, kernel_in) = pair()?;
    ktls::attach(kernel_out.as_fd())?;
    ktls::install(kernel_out.as_fd(), Direction::Tx, &known_keys())?;
    let plain = vec![0; SEND_LEN];
    // The same records, made by the same rule.
    let wire_len = seal_send(&mut own_layer()?, &mut sealed)?;
    let own = || {
        let start = thread_cpu_time();
        for _ in 0..SENDS {
            let len = seal_send(&mut tls, &mut sealed)?;
            own_out.write_all(sealed.get(..len).unwrap_or_default())?;
            discard(&own_in, len)?;
        }
        Ok(spent(start))
    };
    let kernel = || {
        let start = thread_cpu_time();
        let (most, last) = plain.split_at(SEND_LEN - LAST_LEN);
        for _ in 0..SENDS {
            kernel_out.write_all(most)?;
            kernel_out.write_all(last)?;
            discard(&kernel_in, wire_len)?;
        }
        Ok(spent(start))
    };
    compare(own, kernel)
}

fn measure_rx() -> io::Result<Figures> {
    let mut sealer = own_layer()?;
    let mut opener = own_layer()?;
    let (mut own_out, mut own_in) = pair()?;
    let mut sealed = vec![0; SEND_LEN + 1024];
    let mut bytes = vec![0; SEND_LEN + 1024];
    let own = || {
        let mut time = Duration::ZERO;
        for _ in 0..SENDS {
            let len = seal_send(&mut sealer, &mut sealed)?;
            own_out.write_all(sealed.get(..len).unwrap_or_default())?;
            let start = thread_cpu_time();
            let received = bytes.get_mut(..len).unwrap_or_default();
            own_in.read_exact(received)?;
            open_all(&mut opener, received)?;
            time += spent(start);
        }
        Ok(time)
    };
    let mut kernel_sealer = own_layer()?;
    let (mut kernel_out, kernel_in) = pair()?;
    ktls::attach(kernel_in.as_fd())?;
    ktls::install(kernel_in.as_fd(), Direction::Rx, &known_keys())?;
    let mut kernel_sealed = vec![0; SEND_LEN + 1024];
    let mut opened = vec![0; SEND_LEN];
    let kernel = || {
        let mut time = Duration::ZERO;
        for _ in 0..SENDS {
            let len = seal_send(&mut kernel_sealer, &mut kernel_sealed)?;
            kernel_out.write_all(kernel_sealed.get(..len).unwrap_or_default())?;
            let start = thread_cpu_time();
            receive_all(&kernel_in, &mut opened)?;
            time += spent(start);
        }
        Ok(time)
    };
    compare(own, kernel)
}

fn spent(start: Duration) -> Duration {
    thread_cpu_time().saturating_sub(start)
}

fn open_all(tls: &mut Connection, mut bytes: &mut [u8]) -> io::Result<()> {
    while let Some(len) = Connection::record_len(bytes).map_err(io::Error::other)? {
        let (record, rest) = bytes
            .split_at_mut_checked(len)
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        match tls.open(record).map_err(io::Error::other)? {
            Opened::Data(_) => {}
            Opened::Handled | Opened::Closed => return Err(io::ErrorKind::InvalidData.into()),
        }
        bytes = rest;
    }
    Ok(())
}

/// Receives until `bytes` is full, as a shard does: what is there, without waiting.
fn receive_all(stream: &TcpStream, bytes: &mut [u8]) -> io::Result<()> {
    let mut at = 0;
    let mut tries = 0;
    while let Some(room) = bytes.get_mut(at..).filter(|room| !room.is_empty()) {
        match ktls::receive(stream.as_fd(), room) {
            Ok(received) if received.len > 0 => at += received.len,
            Ok(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
            // It was all sent, so it is on its way up within this host.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && tries < 1_000 => {
                tries += 1;
                std::thread::yield_now();
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
