//! Kernel TLS: the calls that hand a connection's keys to the kernel, and records that are not data.
//!
//! Source: Linux' `Documentation/networking/tls.rst`, `include/uapi/linux/tls.h`.
//!
//! ```text
//! TCP_ULP "tls"        once, on an established connection; nothing changes yet
//! TLS_TX, TLS_RX       keys, IV and number of the next record; again (6.14 on): new keys
//! sendmsg + cmsg       TLS_SET_RECORD_TYPE: a record that is not data
//! recvmsg + cmsg       TLS_GET_RECORD_TYPE: what came; without room for it such a record is EIO
//! ```
//!
//! Every call is synchronous and for any driver. It does not keep keys: what it built for the kernel
//! is wiped. Nothing here knows when a connection may be switched; the session does.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr;

use libc::{c_int, c_void};
use zeroize::Zeroize as _;

use crate::io::kernel_tls::{Direction, TlsCipher, TlsKeys, TlsVersion};

mod probe;

pub use self::probe::{Capabilities, Support, pair, probe};

/// `include/linux/socket.h`; libc has it for none but Android.
const TCP_ULP: c_int = 31;

/// `TLS_1_2_VERSION` and `TLS_1_3_VERSION` of `linux/tls.h`: the bytes on the wire.
const TLS_1_2: u16 = 0x0303;
const TLS_1_3: u16 = 0x0304;

/// Set in the explicit nonces the kernel counts from; see [`explicit_nonce`].
const KERNEL_NONCES: u64 = 1 << 63;

/// Room for one control message of one byte, aligned as `cmsghdr` wants it.
type ControlRoom = [u64; 4];

/// What a socket held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Bytes; 0 is the end of the stream.
    pub len: usize,
    /// The record's type where the kernel opened it; `None`: bytes as they came.
    pub content_type: Option<u8>,
}

impl Received {
    /// Whether it is a record that is not data (RFC 8446 §5.1).
    #[must_use]
    pub fn is_control(&self) -> bool {
        const DATA: u8 = 23;
        self.content_type.is_some_and(|kind| kind != DATA)
    }
}

/// The four structures the kernel takes here, as one value of the right length.
enum CryptoInfo {
    Aes128Gcm(libc::tls12_crypto_info_aes_gcm_128),
    Aes256Gcm(libc::tls12_crypto_info_aes_gcm_256),
    ChaCha20Poly1305(libc::tls12_crypto_info_chacha20_poly1305),
}

/// Where TLS 1.2 AES-GCM's explicit nonces go on, RFC 5288 §3: never one that this key had before.
///
/// Ours were `start ^ number`, the kernel counts up by one from what it is given. `start ^ number` for
/// numbers below 2^48 agrees with `start` in the top 16 bits; the kernel's begin with the top bit
/// turned and would need 2^63 - 2^48 records to come round. The key budget ends long before.
fn explicit_nonce(iv: &[u8; 12]) -> [u8; 8] {
    let [_, _, _, _, start @ ..] = *iv;
    (u64::from_be_bytes(start) ^ KERNEL_NONCES).to_be_bytes()
}

impl CryptoInfo {
    fn new(keys: &TlsKeys) -> Self {
        let version = match keys.version {
            TlsVersion::Tls12 => TLS_1_2,
            TlsVersion::Tls13 => TLS_1_3,
        };
        let info = |cipher_type| libc::tls_crypto_info {
            version,
            cipher_type,
        };
        let [s0, s1, s2, s3, rest @ ..] = keys.iv;
        // RFC 8446 §5.3: all twelve bytes are fixed. RFC 5288 §3: the last eight count.
        let iv = match keys.version {
            TlsVersion::Tls12 => explicit_nonce(&keys.iv),
            TlsVersion::Tls13 => rest,
        };
        let salt = [s0, s1, s2, s3];
        let rec_seq = keys.seq.to_be_bytes();
        match keys.cipher {
            TlsCipher::Aes128Gcm => {
                let mut key = [0; 16];
                key.copy_from_slice(&keys.key[..16]);
                let made = Self::Aes128Gcm(libc::tls12_crypto_info_aes_gcm_128 {
                    info: info(libc::TLS_CIPHER_AES_GCM_128),
                    iv,
                    key,
                    salt,
                    rec_seq,
                });
                key.zeroize();
                made
            }
            TlsCipher::Aes256Gcm => Self::Aes256Gcm(libc::tls12_crypto_info_aes_gcm_256 {
                info: info(libc::TLS_CIPHER_AES_GCM_256),
                iv,
                key: keys.key,
                salt,
                rec_seq,
            }),
            // RFC 7905 §2: as TLS 1.3, in either version.
            TlsCipher::ChaCha20Poly1305 => {
                Self::ChaCha20Poly1305(libc::tls12_crypto_info_chacha20_poly1305 {
                    info: info(libc::TLS_CIPHER_CHACHA20_POLY1305),
                    iv: keys.iv,
                    key: keys.key,
                    salt: [],
                    rec_seq,
                })
            }
        }
    }

    fn set(&self, fd: RawFd, name: c_int) -> io::Result<()> {
        match self {
            Self::Aes128Gcm(info) => set_option(fd, libc::SOL_TLS, name, info),
            Self::Aes256Gcm(info) => set_option(fd, libc::SOL_TLS, name, info),
            Self::ChaCha20Poly1305(info) => set_option(fd, libc::SOL_TLS, name, info),
        }
    }
}

impl Drop for CryptoInfo {
    fn drop(&mut self) {
        match self {
            Self::Aes128Gcm(info) => info.key.zeroize(),
            Self::Aes256Gcm(info) => info.key.zeroize(),
            Self::ChaCha20Poly1305(info) => info.key.zeroize(),
        }
    }
}

/// Puts the TLS protocol on an established connection; nothing changes until keys are installed. Once
/// a connection.
///
/// # Errors
/// ENOENT: the kernel has no module `tls`. ENOTCONN: the connection is not (or no more) established.
pub fn attach(socket: BorrowedFd<'_>) -> io::Result<()> {
    set_option(
        socket.as_raw_fd(),
        libc::IPPROTO_TCP,
        TCP_ULP,
        &[b't', b'l', b's', 0_u8],
    )
}

/// Gives the kernel the keys of one direction of an [attached](attach) connection.
///
/// # Errors
/// ENOENT, EINVAL: it has no such cipher or version. EBUSY: it had keys, and cannot take others.
pub fn install(socket: BorrowedFd<'_>, direction: Direction, keys: &TlsKeys) -> io::Result<()> {
    let name = match direction {
        Direction::Tx => libc::TLS_TX,
        Direction::Rx => libc::TLS_RX,
    };
    CryptoInfo::new(keys).set(socket.as_raw_fd(), name)?;
    if direction == Direction::Rx && keys.version == TlsVersion::Tls13 {
        // Spares a copy of every record that is not padded (6.0 on); without it all is right, too.
        let _ = expect_no_padding(socket);
    }
    Ok(())
}

/// TLS_RX_EXPECT_NO_PAD: the kernel opens a TLS 1.3 record straight into the caller's memory, and does
/// it again where it was padded.
fn expect_no_padding(socket: BorrowedFd<'_>) -> io::Result<()> {
    let on: c_int = 1;
    let fd = socket.as_raw_fd();
    set_option(fd, libc::SOL_TLS, libc::TLS_RX_EXPECT_NO_PAD, &on)
}

/// Receives what there is, without waiting. A record that is not data comes alone.
///
/// # Errors
/// EAGAIN: nothing whole is there. EBADMSG: a record failed authentication. EMSGSIZE: one is too long.
/// EKEYEXPIRED: the peer changed its keys and the kernel awaits ours. EINVAL: a record of another
/// version.
pub fn receive(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> io::Result<Received> {
    let mut room: ControlRoom = [0; 4];
    let mut part = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    };
    let mut message = message(&mut part, &mut room);
    // SAFETY: `message` names `bytes` and `room`, both valid for writing for this call.
    // JUSTIFICATION: std's sockets have no control messages.
    let len = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
    let Ok(len) = usize::try_from(len) else {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::WouldBlock {
            clear_error(socket);
        }
        return Err(error);
    };
    Ok(Received {
        len,
        content_type: content_type(&message),
    })
}

/// Takes the error off the socket: a record that cannot be opened leaves EBADMSG there for whoever
/// sends next, which would be the alert that says so.
fn clear_error(socket: BorrowedFd<'_>) {
    // It tells no more than what is known already.
    let _ = socket2::SockRef::from(&socket).take_error();
}

/// The type of record that recvmsg put beside the bytes.
fn content_type(message: &libc::msghdr) -> Option<u8> {
    // SAFETY: recvmsg filled `message`, whose control room is still borrowed by it.
    let header = unsafe { libc::CMSG_FIRSTHDR(message) };
    if header.is_null() {
        return None;
    }
    // SAFETY: not null, so it lies whole in the control room, which is aligned for it.
    let control = unsafe { header.read() };
    if control.cmsg_level != libc::SOL_TLS || control.cmsg_type != libc::TLS_GET_RECORD_TYPE {
        return None;
    }
    // SAFETY: as above; it computes an address.
    let data = unsafe { libc::CMSG_DATA(header) };
    // SAFETY: this control message carries one byte, and the room has it.
    Some(unsafe { data.read() })
}

/// A record that is not data on its way to the kernel: what sendmsg is called with.
#[derive(Debug)]
pub(super) struct ControlMessage {
    message: libc::msghdr,
    part: libc::iovec,
    room: ControlRoom,
}

impl ControlMessage {
    /// For the `len` bytes at `bytes`, which must stay there until the send is done.
    pub(super) fn new(content_type: u8, bytes: *mut u8, len: usize) -> Box<Self> {
        let mut made = Box::new(Self {
            message: message(ptr::null_mut(), &mut [0; 4]),
            part: libc::iovec {
                iov_base: bytes.cast(),
                iov_len: len,
            },
            room: [0; 4],
        });
        let Self {
            message: whole,
            part,
            room,
        } = &mut *made;
        *whole = message(part, room);
        // SAFETY: it computes a length.
        whole.msg_controllen = unsafe { libc::CMSG_SPACE(1) } as usize;
        // SAFETY: the control room is ours and longer than one header.
        let header = unsafe { libc::CMSG_FIRSTHDR(whole) };
        let control = libc::cmsghdr {
            // SAFETY: it computes a length.
            cmsg_len: unsafe { libc::CMSG_LEN(1) } as usize,
            cmsg_level: libc::SOL_TLS,
            cmsg_type: libc::TLS_SET_RECORD_TYPE,
        };
        // SAFETY: the room is aligned and has at least one header.
        unsafe { header.write(control) };
        // SAFETY: as above; it computes an address.
        let data = unsafe { libc::CMSG_DATA(header) };
        // SAFETY: the room has one byte behind the header.
        unsafe { data.write(content_type) };
        made
    }

    /// What sendmsg takes; valid as long as the box is where it is.
    pub(super) const fn header(&self) -> *const libc::msghdr {
        &raw const self.message
    }
}

/// Sends one record that is not data, at once.
///
/// # Errors
/// EAGAIN: the socket has no room now.
pub fn send_control(socket: BorrowedFd<'_>, content_type: u8, bytes: &[u8]) -> io::Result<()> {
    let message = ControlMessage::new(content_type, bytes.as_ptr().cast_mut(), bytes.len());
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the header names `bytes` and the message's own room; sendmsg reads both and keeps
    // neither.
    let len = unsafe { libc::sendmsg(socket.as_raw_fd(), message.header(), flags) };
    if len < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn message(part: *mut libc::iovec, room: &mut ControlRoom) -> libc::msghdr {
    // SAFETY: msghdr is integers and pointers; zeros are a message of nothing.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = part;
    message.msg_iovlen = 1;
    message.msg_control = ptr::from_mut(room).cast::<c_void>();
    message.msg_controllen = size_of::<ControlRoom>();
    message
}

fn set_option<T>(fd: RawFd, level: c_int, name: c_int, value: &T) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of::<T>()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: `value` is readable for `len` bytes and has no pointers; the kernel copies it.
    // JUSTIFICATION: socket2 has none of these options.
    let result = unsafe { libc::setsockopt(fd, level, name, ptr::from_ref(value).cast(), len) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests;
