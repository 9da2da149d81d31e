use super::*;
use crate::io::kernel_tls::KEY_LEN_MAX;

fn keys(version: TlsVersion, cipher: TlsCipher) -> TlsKeys {
    let mut key = [0; KEY_LEN_MAX];
    for (index, byte) in (0_u8..).zip(&mut key) {
        *byte = 0x40 + index;
    }
    TlsKeys {
        version,
        cipher,
        key,
        iv: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12],
        seq: 0x0102_0304_0506_0708,
    }
}

/// The bytes the kernel is given.
fn bytes(keys: &TlsKeys) -> Vec<u8> {
    fn of<T>(value: &T) -> Vec<u8> {
        // SAFETY: the structures are bytes and 16-bit numbers without padding (their lengths say so).
        unsafe { std::slice::from_raw_parts(ptr::from_ref(value).cast(), size_of::<T>()) }.to_vec()
    }
    match &CryptoInfo::new(keys) {
        CryptoInfo::Aes128Gcm(info) => of(info),
        CryptoInfo::Aes256Gcm(info) => of(info),
        CryptoInfo::ChaCha20Poly1305(info) => of(info),
    }
}

#[test]
fn structures_are_laid_out_as_linux_tls_h_has_them() {
    let seq = [1, 2, 3, 4, 5, 6, 7, 8];
    let key: Vec<u8> = (0x40..0x60).collect();
    let head = |version: u16, cipher: u16| [version.to_ne_bytes(), cipher.to_ne_bytes()].concat();
    for (version, number) in [(TlsVersion::Tls12, 0x0303), (TlsVersion::Tls13, 0x0304)] {
        // TLS 1.3: the fixed rest of the IV (RFC 8446 §5.3). TLS 1.2: where explicit nonces go on.
        let iv = match version {
            TlsVersion::Tls13 => [5, 6, 7, 8, 9, 10, 11, 12],
            TlsVersion::Tls12 => [0x85, 6, 7, 8, 9, 10, 11, 12],
        };
        let salt = [1, 2, 3, 4];
        let gcm128 = [&head(number, 51)[..], &iv, &key[..16], &salt, &seq].concat();
        assert_eq!(bytes(&keys(version, TlsCipher::Aes128Gcm)), gcm128);
        let gcm256 = [&head(number, 52)[..], &iv, &key, &salt, &seq].concat();
        assert_eq!(bytes(&keys(version, TlsCipher::Aes256Gcm)), gcm256);
        let whole_iv: Vec<u8> = (1..=12).collect();
        let chacha = [&head(number, 54)[..], &whole_iv, &key, &seq].concat();
        assert_eq!(bytes(&keys(version, TlsCipher::ChaCha20Poly1305)), chacha);
    }
}

/// A nonce that comes twice under one AES-GCM key gives the key away.
#[test]
fn the_kernel_never_counts_into_explicit_nonces_that_we_used() {
    for start in [0_u64, 1, 2, 0x7fff_ffff_ffff_ffff, 1 << 63, u64::MAX - 5] {
        let mut iv = [0; 12];
        iv[4..].copy_from_slice(&start.to_be_bytes());
        let first = u64::from_be_bytes(explicit_nonce(&iv));
        // Ours all lie in one block of 2^48; the kernel's next 2^48 must not reach it.
        let block = start >> 48;
        for counted in [0, 1, 1_000_000, (1 << 48) - 1] {
            assert_ne!(
                first.wrapping_add(counted) >> 48,
                block,
                "{start:#x} {counted}"
            );
        }
    }
}

#[test]
fn a_control_message_says_what_the_kernel_reads() {
    let mut alert = [1, 0];
    let message = ControlMessage::new(21, alert.as_mut_ptr(), alert.len());
    // SAFETY: the header is the box's own.
    let header = unsafe { &*message.header() };
    assert_eq!(header.msg_iovlen, 1);
    assert_eq!(header.msg_controllen, 24, "CMSG_SPACE(1)");
    let room: Vec<u8> = message
        .room
        .iter()
        .flat_map(|word| word.to_ne_bytes())
        .collect();
    assert_eq!(room[..8], 17_u64.to_ne_bytes(), "CMSG_LEN(1)");
    assert_eq!(room[8..12], 282_i32.to_ne_bytes(), "SOL_TLS");
    assert_eq!(room[12..16], 1_i32.to_ne_bytes(), "TLS_SET_RECORD_TYPE");
    assert_eq!(room[16], 21);
}

#[test]
fn plain_bytes_come_without_a_type() {
    use std::os::fd::AsFd as _;
    let (one, other) = pair().unwrap();
    assert_eq!(one.send(b"hello").unwrap(), 5);
    let mut bytes = [0; 16];
    let received = receive(other.as_fd(), &mut bytes).unwrap();
    assert_eq!((received.len, received.content_type), (5, None));
    let empty = receive(other.as_fd(), &mut bytes).unwrap_err();
    assert_eq!(empty.kind(), io::ErrorKind::WouldBlock);
    drop(one);
    // The end may take a moment on its way.
    while receive(other.as_fd(), &mut bytes).is_err() {}
    assert_eq!(receive(other.as_fd(), &mut bytes).unwrap().len, 0);
}

/// Where the kernel has no TLS the probe says so; where it has, it knows what it can.
#[test]
fn the_probe_says_what_is_there() {
    match probe() {
        Ok(capabilities) => {
            assert_eq!(capabilities.supports.len(), 6);
            assert!(capabilities.takes_any(Direction::Tx), "{capabilities}");
        }
        Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{error}"),
    }
}
