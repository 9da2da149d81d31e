//! TCP sockets as a gateway and its clients open them.
//!
//! Listeners are made once, at start, a group of one a shard ([`listen_group`]): all bound to the
//! same address by SO_REUSEPORT, in shard order, with a filter that gives a connection to the shard
//! of the processor that took its SYN. An accepted connection inherits its listener's
//! [`ConnectionOptions`], so accepting costs no further system calls for them.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

use crate::io::UNSENT_LIMIT_AT_START;
use crate::time::Duration;

/// Options of a connection; `None` leaves the system's default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionOptions {
    /// TCP_NODELAY: the driver sends whole bursts, so waiting for more only delays.
    pub no_delay: bool,
    /// TCP_NOTSENT_LOWAT in bytes: keeps the socket's own backlog short, since what is in it can
    /// no longer be dropped or reordered.
    pub not_sent_low_water: Option<u32>,
    /// TCP_USER_TIMEOUT: how long sent bytes may stay unacknowledged.
    pub user_timeout: Option<Duration>,
    /// Keepalive of the transport.
    pub keepalive: Option<Keepalive>,
    /// Congestion control by the kernel's name, such as `bbr`; an unknown one is an error.
    pub congestion: Option<String>,
}

impl Default for ConnectionOptions {
    fn default() -> Self {
        Self {
            no_delay: true,
            not_sent_low_water: u32::try_from(UNSENT_LIMIT_AT_START).ok(),
            user_timeout: Some(Duration::from_secs(60)),
            keepalive: None,
            congestion: None,
        }
    }
}

/// What a send of plain bytes is flagged with on a connection whose kernel shall hold `unsent_limit`
/// bytes that were not sent yet.
///
/// Linux asks for that limit only before it makes an skb: whatever is sent meanwhile is added to the last
/// one, up to 64 KB. MSG_EOR closes it, so that the next send is asked for. That costs a short segment a
/// send; where the limit is no less than that nothing is gained by it.
pub(super) const fn end_of_send(unsent_limit: usize) -> i32 {
    if unsent_limit < 64 * 1_024 {
        libc::MSG_EOR
    } else {
        0
    }
}

/// Keepalive of the transport; whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence before the first probe.
    pub idle: Duration,
    /// Between probes.
    pub interval: Duration,
    /// Unanswered probes until the connection is lost.
    pub retries: u32,
}

/// How to listen.
#[derive(Clone, Debug)]
pub struct ListenOptions {
    /// Connections the kernel holds until they are accepted; it may cut the number
    /// (`net.core.somaxconn`).
    pub backlog: i32,
    /// Accept only once bytes came, or after so long (TCP_DEFER_ACCEPT, whole seconds).
    pub defer_accept: Option<Duration>,
    /// What accepted connections inherit.
    pub connection: ConnectionOptions,
}

impl Default for ListenOptions {
    fn default() -> Self {
        Self {
            backlog: 4096,
            defer_accept: None,
            connection: ConnectionOptions::default(),
        }
    }
}

/// Opens one listener. An IPv6 address takes IPv6 only: `[::]` and `0.0.0.0` live side by side.
pub fn listen(address: SocketAddr, options: &ListenOptions) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // A restart must not wait for the connections of the process before.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    apply(&socket, &options.connection)?;
    if let Some(wait) = options.defer_accept {
        let seconds = i32::try_from(wait.as_secs().max(1)).unwrap_or(i32::MAX);
        set_option(&socket, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, &seconds)?;
    }
    socket.bind(&address.into())?;
    socket.listen(options.backlog)?;
    Ok(socket)
}

/// The listeners of one address.
#[derive(Debug)]
pub struct ListenGroup {
    /// One a shard, in shard order.
    pub sockets: Vec<Socket>,
    /// Whether a new connection goes to the shard of the processor that took its SYN.
    pub by_cpu: Result<(), NotByCpu>,
}

/// Why new connections are spread by the hash of their addresses and ports instead.
#[derive(Debug, thiserror::Error)]
pub enum NotByCpu {
    /// There is nothing to choose between.
    #[error("there is one shard")]
    Alone,
    /// A processor has no shard of its own to give its connections to.
    #[error(
        "some processors have several shards; lower `shards.count` to the number of processors"
    )]
    Shared,
    /// The system refuses the filter.
    #[error("the kernel refuses the filter (SO_ATTACH_REUSEPORT_CBPF): {0}")]
    Refused(io::Error),
}

/// Opens one listener a shard on `address`; `cpus[i]` is the processor of shard `i`. Port 0 becomes
/// one free port for all. Where connections cannot be spread by processor they are by their hash.
pub fn listen_group(
    address: SocketAddr,
    cpus: &[usize],
    options: &ListenOptions,
) -> io::Result<ListenGroup> {
    let mut address = address;
    let mut sockets = Vec::with_capacity(cpus.len());
    for _ in cpus {
        let socket = listen(address, options)?;
        if address.port() == 0
            && let Some(bound) = socket.local_addr()?.as_socket()
        {
            address = bound;
        }
        sockets.push(socket);
    }
    let is_shared = |(index, cpu)| cpus.iter().take(index).any(|before| before == cpu);
    let by_cpu = match sockets.as_slice() {
        // Of several shards of one processor the filter would serve the first alone.
        [_, _, ..] if cpus.iter().enumerate().any(is_shared) => Err(NotByCpu::Shared),
        [first, _, ..] => steer_by_cpu(first, cpus).map_err(NotByCpu::Refused),
        _ => Err(NotByCpu::Alone),
    };
    Ok(ListenGroup { sockets, by_cpu })
}

/// Gives each new connection of a SO_REUSEPORT group to the listener of the processor that took the
/// SYN: `cpus[i]` is the processor of the `i`-th socket bound. Other processors spread by number.
pub fn steer_by_cpu(any_of_group: &Socket, cpus: &[usize]) -> io::Result<()> {
    let program = steering_program(cpus)?;
    let filter = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        filter: program.as_ptr().cast_mut(),
    };
    // `filter` points to `program`, which outlives the call; the kernel copies it.
    set_option(
        any_of_group,
        libc::SOL_SOCKET,
        libc::SO_ATTACH_REUSEPORT_CBPF,
        &filter,
    )
}

/// `ld cpu; jeq #cpus[0] → ret 0; …; mod #count; ret a`, as classic BPF.
fn steering_program(cpus: &[usize]) -> io::Result<Vec<libc::sock_filter>> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
    let instruction = |code: u32, jt, jf, k| {
        let code = u16::try_from(code).map_err(|_| invalid())?;
        Ok::<_, io::Error>(libc::sock_filter { code, jt, jf, k })
    };
    let number = |index: usize| u32::try_from(index).map_err(|_| invalid());
    let count = number(cpus.len())?;
    if count == 0 {
        return Err(invalid());
    }
    let cpu_offset = (libc::SKF_AD_OFF + libc::SKF_AD_CPU).cast_unsigned();
    let mut program = vec![instruction(
        libc::BPF_LD | libc::BPF_W | libc::BPF_ABS,
        0,
        0,
        cpu_offset,
    )?];
    for (index, &cpu) in cpus.iter().enumerate() {
        let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
        program.push(instruction(equal, 0, 1, number(cpu)?)?);
        program.push(instruction(
            libc::BPF_RET | libc::BPF_K,
            0,
            0,
            number(index)?,
        )?);
    }
    let modulo = libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K;
    program.push(instruction(modulo, 0, 0, count)?);
    program.push(instruction(libc::BPF_RET | libc::BPF_A, 0, 0, 0)?);
    Ok(program)
}

/// Sets a connection's (or a listener's) options.
pub fn apply(socket: &Socket, options: &ConnectionOptions) -> io::Result<()> {
    socket.set_tcp_nodelay(options.no_delay)?;
    if let Some(bytes) = options.not_sent_low_water {
        socket.set_tcp_notsent_lowat(bytes)?;
    }
    if let Some(timeout) = options.user_timeout {
        socket.set_tcp_user_timeout(Some(timeout))?;
    }
    if let Some(keepalive) = options.keepalive {
        let parameters = TcpKeepalive::new()
            .with_time(keepalive.idle)
            .with_interval(keepalive.interval)
            .with_retries(keepalive.retries);
        socket.set_tcp_keepalive(&parameters)?;
    }
    if let Some(name) = &options.congestion {
        socket.set_tcp_congestion(name.as_bytes())?;
    }
    Ok(())
}

/// A socket ready to connect to `to`, bound to `source` if given.
pub(super) fn outgoing(
    to: SocketAddr,
    source: Option<SocketAddr>,
    options: &ConnectionOptions,
) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    apply(&socket, options)?;
    if let Some(source) = source {
        if source.port() == 0 {
            // The port is chosen with the destination in view, so that one source address has
            // 28,000 ports a destination and not 28,000 in all.
            let on = 1_i32;
            set_option(
                &socket,
                libc::IPPROTO_IP,
                libc::IP_BIND_ADDRESS_NO_PORT,
                &on,
            )?;
        }
        socket.bind(&source.into())?;
    }
    Ok(socket)
}

/// Resets the connection at once: the peer gets an RST, whoever waits for the socket an error
/// (tcp_disconnect of Linux, which close(2) with SO_LINGER 0 calls too, but only after the last
/// request has ended).
pub(super) fn reset(socket: &Socket) -> io::Result<()> {
    let nowhere = libc::sockaddr {
        sa_family: libc::sa_family_t::try_from(libc::AF_UNSPEC).unwrap_or_default(),
        sa_data: [0; 14],
    };
    let len = libc::socklen_t::try_from(size_of_val(&nowhere)).unwrap_or_default();
    // SAFETY: `nowhere` is readable for `len` bytes, and the kernel reads no more.
    // JUSTIFICATION: socket2 makes no address of the family AF_UNSPEC without unsafe code.
    let result = unsafe { libc::connect(socket.as_raw_fd(), &raw const nowhere, len) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Sets an option that socket2 does not know. `value` must be the type the option takes; its
/// pointers, if it has any, must be valid for the call.
fn set_option<T>(socket: &Socket, level: i32, name: i32, value: &T) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of::<T>()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: `value` is readable for `len` bytes, and the three options set in this module take
    // an int or a sock_fprog whose instructions outlive the call.
    // JUSTIFICATION: socket2 has none of the three.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            len,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
