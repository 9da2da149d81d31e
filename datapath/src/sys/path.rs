//! What the kernel knows of a connection's path (TCP_INFO), and how fast it may send (SO_MAX_PACING_RATE).

use std::io;
use std::os::fd::AsRawFd as _;

use socket2::Socket;

use crate::io::PathSeen;
use crate::time::Duration;

/// Of `struct tcp_info` (linux/tcp.h), which only ever grows: up to tcpi_min_rtt, and that (Linux 4.6).
const INFO_LEN: usize = 152;

const CA_STATE_AT: usize = 1;
const UNACKED_AT: usize = 24;
const RTT_AT: usize = 68;
const SND_CWND_AT: usize = 80;
const TOTAL_RETRANS_AT: usize = 100;
const BYTES_ACKED_AT: usize = 120;
const MIN_RTT_AT: usize = 148;

/// `TCP_CA_Recovery`; behind it only `TCP_CA_Loss`.
const RECOVERY: u8 = 3;

/// How the connection's path does; `None` where the kernel cannot tell.
pub(super) fn seen(socket: &Socket) -> Option<PathSeen> {
    let mut info = [0_u8; INFO_LEN];
    let mut len = libc::socklen_t::try_from(INFO_LEN).ok()?;
    // SAFETY: `info` is writable for `len` bytes, and the kernel writes no more.
    // JUSTIFICATION: socket2 does not have TCP_INFO, and libc's structure ends before what is needed.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    if result < 0 || usize::try_from(len).ok()? < INFO_LEN {
        return None;
    }
    let number = |at| {
        let bytes = info.get(at..)?.first_chunk()?;
        Some(u32::from_ne_bytes(*bytes))
    };
    let micros = |at| number(at).map(|micros| Duration::from_micros(micros.into()));
    Some(PathSeen {
        rtt: micros(RTT_AT)?,
        rtt_min: micros(MIN_RTT_AT)?,
        acked: u64::from_ne_bytes(*info.get(BYTES_ACKED_AT..)?.first_chunk()?),
        is_filled: number(UNACKED_AT)? > number(SND_CWND_AT)? / 2,
        retransmitted: number(TOTAL_RETRANS_AT)?,
        is_recovering: *info.get(CA_STATE_AT)? >= RECOVERY,
    })
}

/// The kernel sends no more than so many bytes a second of it; `u64::MAX`: as many as it will.
pub(super) fn limit(socket: &Socket, rate: u64) -> io::Result<()> {
    let len =
        libc::socklen_t::try_from(size_of::<u64>()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: `rate` is readable for `len` bytes; the kernel copies it.
    // JUSTIFICATION: socket2 does not have SO_MAX_PACING_RATE.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MAX_PACING_RATE,
            (&raw const rate).cast(),
            len,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_path_is_seen_and_a_limit_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(&[7; 1_000]).unwrap();
        server.read_exact(&mut [0; 1_000]).unwrap();
        // The answer carries the acknowledgement.
        server.write_all(&[7]).unwrap();
        client.read_exact(&mut [0]).unwrap();
        let socket = Socket::from(client);
        let seen = seen(&socket).unwrap();
        // The SYN counts as one.
        assert_eq!(seen.acked, 1_001);
        assert!(
            seen.rtt_min > Duration::ZERO && seen.rtt_min <= seen.rtt,
            "{seen:?}"
        );
        assert!(seen.rtt < Duration::from_secs(60), "{seen:?}");
        assert!(!seen.is_filled && !seen.is_recovering);
        assert_eq!(seen.retransmitted, 0);
        limit(&socket, 1_000_000).unwrap();
        limit(&socket, u64::MAX).unwrap();
    }
}
